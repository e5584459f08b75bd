//! The memtable: a hash index over records that lie in the log.
//!
//! Invariants:
//! 1. The index maps each key to its newest record in this memtable's part of the log; there is no
//!    second copy of a key.
//! 2. The index is many small tables (shards, by the top bits of the hash), each grown on its own:
//!    the most that one write can pay for is moving one shard, some thousand slots of 8 bytes,
//!    without touching a record.
//! 3. A record is marked as superseded when a newer record of its key is indexed: the records
//!    without a mark are the entries.
//! 4. A frozen memtable never changes; its ordered view is computed once, on demand, a bounded
//!    piece at a time (`memtable/sort.rs`).
//!
//! Not here: when to freeze (`mod.rs`), turning one into chunks (`merge/job.rs`).

mod index;
pub(crate) mod sort;

use std::cmp::Ordering;
use std::sync::{Arc, OnceLock};

use crate::allocator::Block;
use crate::lsm::footprint::Footprint;
use crate::lsm::log::record::{Entry, RECORD_HEAD_BYTES};
use crate::lsm::log::wal::{AppendedRecord, SEGMENT_BYTES, Segment};
use crate::lsm::memtable::index::{RecordOffset, Shard};
use crate::swar;

/// Log bytes that one shard is meant for: some thousand of the smallest records.
const SHARD_LOG_BYTES: usize = 32 * 1024;

const SEGMENT_SHIFT: u32 = SEGMENT_BYTES.trailing_zeros();

/// Two records never begin within so many bytes.
const MARK_BYTES: usize = 16;
const _: () = assert!(RECORD_HEAD_BYTES >= MARK_BYTES);

/// Marks on the records of one segment: a bit for each [`MARK_BYTES`].
type Marks = [u64; SEGMENT_BYTES / MARK_BYTES / 64];

/// The segments of one memtable, sealed ones first.
#[derive(Debug, Default)]
pub(crate) struct Records {
    segments: Vec<Arc<Segment>>,
}

impl Records {
    /// The record at `place`; `active` is the segment behind the sealed ones, if the memtable still
    /// takes writes.
    fn locate<'a>(
        &'a self,
        active: Option<&'a Segment>,
        place: RecordOffset,
    ) -> (&'a Segment, usize) {
        let index = (place >> SEGMENT_SHIFT) as usize;
        let segment = self
            .segments
            .get(index)
            .map(|segment| &**segment)
            .or(active)
            .expect("a place in this memtable");
        (segment, place as usize & (SEGMENT_BYTES - 1))
    }

    fn entry<'a>(&'a self, active: Option<&'a Segment>, place: RecordOffset) -> Entry<'a> {
        let (segment, offset) = self.locate(active, place);
        segment.entry(offset)
    }

    fn prefetch(&self, active: Option<&Segment>, place: RecordOffset) {
        let (segment, offset) = self.locate(active, place);
        segment.prefetch(offset);
    }

    #[inline(always)]
    pub(crate) fn key<'a>(&'a self, active: Option<&'a Segment>, place: RecordOffset) -> &'a [u8] {
        let (segment, offset) = self.locate(active, place);
        segment.key(offset)
    }
}

/// The active memtable.
#[derive(Debug)]
pub(crate) struct Memtable {
    shards: Vec<Shard>,
    shard_shift: u32,
    records: Records,
    /// Which records are superseded, by number of the segment.
    #[expect(
        clippy::vec_box,
        reason = "the list grows by a pointer for each segment: no write pays for copying marks"
    )]
    superseded: Vec<Box<Marks>>,
    pub(crate) entry_count: usize,
    /// Bytes of the keys of its entries.
    key_bytes: usize,
    pub(crate) log_bytes: usize,
    /// The common prefix of all keys: sorting looks behind it. None: there is no key.
    shared_prefix: Option<Vec<u8>>,
    /// The number of keys expected in each shard.
    shard_keys: usize,
    /// The version of the record before its first.
    pub(crate) base_version: u64,
    pub(crate) last_version: u64,
    /// The first expiry of all records, superseded ones, too; all ones: nothing expires.
    pub(crate) first_expiry_ms: u64,
}

impl Memtable {
    /// An empty memtable for records behind `base_version`, which is going to be frozen at about
    /// `freeze_bytes` of log. With up to about `expected_keys` its index does not have to grow.
    pub(crate) fn new(freeze_bytes: usize, base_version: u64, expected_keys: usize) -> Self {
        let shard_count = (freeze_bytes / SHARD_LOG_BYTES)
            .next_power_of_two()
            .clamp(2, 1 << 14);
        Self {
            shards: std::iter::repeat_with(Shard::default)
                .take(shard_count)
                .collect(),
            shard_shift: u32::BITS - shard_count.trailing_zeros(),
            records: Records::default(),
            superseded: Vec::new(),
            entry_count: 0,
            key_bytes: 0,
            log_bytes: 0,
            shared_prefix: None,
            shard_keys: expected_keys / shard_count,
            base_version,
            last_version: base_version,
            first_expiry_ms: u64::MAX,
        }
    }

    /// The newest record of a key, if this memtable has one.
    #[inline]
    pub(crate) fn get<'a>(
        &'a self,
        active: Option<&'a Segment>,
        hash: u32,
        key: &[u8],
    ) -> Option<Entry<'a>> {
        let place = self
            .shard(hash)
            .find(hash, |place| self.records.key(active, place) == key)?;
        Some(self.records.entry(active, place))
    }

    #[inline]
    fn shard(&self, hash: u32) -> &Shard {
        &self.shards[(hash >> self.shard_shift) as usize]
    }

    /// Prefetches the memory in which a search for a hash begins.
    #[inline]
    pub(crate) fn prefetch_slot(&self, hash: u32) {
        self.shard(hash).prefetch(hash);
    }

    /// Prefetches the record that a search for a hash most likely finds; false: there is none.
    #[inline]
    pub(crate) fn prefetch_record(&self, active: Option<&Segment>, hash: u32) -> bool {
        let place = self.shard(hash).find(hash, |_| true);
        place
            .inspect(|place| self.records.prefetch(active, *place))
            .is_some()
    }

    /// Indexes a record that was just appended to the log's `active` segment. Returns how many
    /// bytes of new memory the index took.
    pub(crate) fn insert(
        &mut self,
        active: &Segment,
        hash: u32,
        key: &[u8],
        appended: AppendedRecord,
        stored_bytes: usize,
    ) -> usize {
        self.records.segments.extend(appended.sealed);
        if self.superseded.len() <= self.records.segments.len() {
            self.superseded.push(Box::new([0; _]));
        }
        let base = self.records.segments.len() << SEGMENT_SHIFT;
        let place = RecordOffset::try_from(base + appended.offset)
            .expect("memtables are frozen long before 4 GiB");
        self.log_bytes += stored_bytes;
        self.last_version = appended.version;
        let records = &self.records;
        let shard = &mut self.shards[(hash >> self.shard_shift) as usize];
        let is_it = |other| records.key(Some(active), other) == key;
        let (before, new_bytes) = shard.put(hash, place, self.shard_keys, is_it);
        if let Some(before) = before {
            self.mark_superseded(before);
            return 0;
        }
        self.entry_count += 1;
        self.key_bytes += key.len();
        let prefix = self.shared_prefix.get_or_insert_with(|| key.to_vec());
        if !key.starts_with(prefix) {
            prefix.truncate(common_prefix_len(prefix, key));
        }
        new_bytes
    }

    fn mark_superseded(&mut self, place: RecordOffset) {
        let (segment, word, bit) = mark_of(place);
        self.superseded[segment][word] |= bit;
    }

    /// Freezes the memtable; `last_segment` is the log's active segment, which was sealed for this.
    pub(crate) fn freeze(mut self, last_segment: Option<Arc<Segment>>) -> FrozenMemtable {
        self.records.segments.extend(last_segment);
        FrozenMemtable {
            memtable: self,
            order: OnceLock::new(),
        }
    }

    /// The memory of its sealed segments.
    pub(crate) fn footprint(&self) -> Footprint {
        let segments = self.records.segments.iter();
        segments.map(|segment| segment.footprint()).sum()
    }

    /// Records the expiry of a record.
    pub(crate) fn record_expiry(&mut self, expires_at_ms: u64) {
        self.first_expiry_ms = self.first_expiry_ms.min(expires_at_ms);
    }
}

/// An entry to sort: the first bytes of its key behind what all keys share, and its place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SortKey {
    /// Eight bytes, big-endian, so that comparing the numbers compares the bytes; short keys are
    /// filled with zeros.
    pub(crate) prefix: u64,
    pub(crate) place: RecordOffset,
}

impl SortKey {
    pub(crate) fn new(key_rest: &[u8], place: RecordOffset) -> Self {
        Self {
            prefix: swar::big_endian_prefix(key_rest),
            place,
        }
    }
}

/// A memtable that takes no more writes.
#[derive(Debug)]
pub(crate) struct FrozenMemtable {
    pub(crate) memtable: Memtable,
    order: OnceLock<Vec<RecordOffset>>,
}

impl FrozenMemtable {
    #[inline]
    pub(crate) fn get(&self, hash: u32, key: &[u8]) -> Option<Entry<'_>> {
        self.memtable.get(None, hash, key)
    }

    /// The places of all entries in key order, once some
    /// [`Sorter`](crate::lsm::memtable::sort::Sorter) has found it.
    pub(crate) fn order(&self) -> Option<&[RecordOffset]> {
        self.order.get().map(Vec::as_slice)
    }

    /// Stores the ordered view. Later calls change nothing: all orders of one memtable are the
    /// same.
    pub(crate) fn set_order(&self, order: Vec<RecordOffset>) {
        let _ = self.order.set(order);
    }

    pub(crate) fn entry(&self, place: RecordOffset) -> Entry<'_> {
        self.memtable.records.entry(None, place)
    }

    pub(crate) fn key(&self, place: RecordOffset) -> &[u8] {
        self.memtable.records.key(None, place)
    }

    /// A step of a walk through the log: the end of the record at `place`, and its sort key if it
    /// is the newest of its key. `None` at the end.
    #[inline]
    pub(crate) fn next_record(
        &self,
        place: RecordOffset,
    ) -> Option<(Option<SortKey>, RecordOffset)> {
        let index = (place >> SEGMENT_SHIFT) as usize;
        let offset = place as usize & (SEGMENT_BYTES - 1);
        let segment = self.memtable.records.segments.get(index)?;
        let Some(record_bytes) = segment.record_bytes(offset) else {
            return self.next_record(RecordOffset::try_from((index + 1) << SEGMENT_SHIFT).ok()?);
        };
        let next = place
            + RecordOffset::try_from(record_bytes).expect("a record is smaller than a segment");
        if self.is_superseded(place) {
            return Some((None, next));
        }
        let skip = self.memtable.shared_prefix.as_ref().map_or(0, Vec::len);
        Some((
            Some(SortKey::new(&segment.key(offset)[skip..], place)),
            next,
        ))
    }

    #[inline]
    fn is_superseded(&self, place: RecordOffset) -> bool {
        let (segment, word, bit) = mark_of(place);
        self.memtable.superseded[segment][word] & bit != 0
    }

    /// Prefetches a record.
    #[inline]
    pub(crate) fn prefetch(&self, place: RecordOffset) {
        self.memtable.records.prefetch(None, place);
    }

    /// The order of two entries.
    #[inline]
    pub(crate) fn compare(&self, a: SortKey, b: SortKey) -> Ordering {
        a.prefix
            .cmp(&b.prefix)
            .then_with(|| self.key(a.place).cmp(self.key(b.place)))
    }

    /// Mean number of bytes that comparing two keys looks at, where their [`SortKey`]s have the
    /// same prefix.
    pub(crate) fn mean_rest_bytes(&self) -> usize {
        let Memtable {
            key_bytes,
            entry_count,
            shared_prefix,
            ..
        } = &self.memtable;
        let skip = shared_prefix.as_ref().map_or(0, Vec::len) + size_of::<u64>();
        (key_bytes / (*entry_count).max(1)).saturating_sub(skip)
    }

    /// Moves a bounded part to what is to be freed; false when nothing large is left.
    pub(crate) fn shrink(
        &mut self,
        segments: &mut Vec<Arc<Segment>>,
        indexes: &mut Vec<Block>,
    ) -> bool {
        segments.extend(self.memtable.records.segments.pop());
        indexes.extend(self.memtable.shards.pop().and_then(Shard::into_block));
        self.memtable.superseded.pop();
        !(self.memtable.records.segments.is_empty() && self.memtable.shards.is_empty())
    }
}

/// The mark of a record: number of the segment, word, and bit in the word.
#[inline]
fn mark_of(place: RecordOffset) -> (usize, usize, u64) {
    let at = (place as usize & (SEGMENT_BYTES - 1)) / MARK_BYTES;
    ((place >> SEGMENT_SHIFT) as usize, at / 64, 1 << (at % 64))
}

fn common_prefix_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}
