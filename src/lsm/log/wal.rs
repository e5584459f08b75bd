//! The write-ahead log in memory: records, in order, in segments.
//!
//! Invariants:
//! 1. Versions in the log are contiguous: record N+1 follows record N, across segments too.
//! 2. A segment's buffer is allocated once, at [`SEGMENT_BYTES`], and no write pays for a copy. A
//!    full segment is sealed behind an `Arc`, and a new one takes its place. A freeze seals one
//!    that is not full; its buffer is at most four times as large as its records.
//! 3. A sealed segment stays in the log until its records are in sorted layers and every cursor has
//!    passed them ([`Wal::release`]). Memtables have `Arc`s of their own: no record is freed while
//!    it can be read.
//! 4. A cursor reads each record once, in order, even if segments are sealed meanwhile.
//!
//! Not here: the bytes of a record (`log/record.rs`), finding one by key (`memtable/mod.rs`), files
//! (`storage/`).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::allocator::{CACHE_LINE_BYTES, prefetch};

use crate::lsm::footprint::Footprint;
use crate::lsm::log::position::LogPosition;
use crate::lsm::log::record::{self, Blob, Entry, RecordHead, Write};
use crate::lsm::log::stream::{LogBatch, StreamRecord};

/// Room in one segment. A power of two, so that a place in a memtable's log is segment and offset
/// in one `u32`; small enough that a sealed, half-empty one costs little.
pub const SEGMENT_BYTES: usize = 256 * 1024;

/// A sealed segment with less than this moves to a buffer of its size: it may be kept for replicas
/// for long, and every scan after a write seals one.
const SMALL_SEGMENT_BYTES: usize = SEGMENT_BYTES / 4;

/// Buffers kept at most: as many as the merge of a few memtables frees at once.
const SPARE_BUFFERS_MAX: usize = 64;

// Any record fits into an empty segment.
const _: () = assert!(
    record::RECORD_HEAD_BYTES + 8 + record::KEY_MAX_BYTES + record::INLINE_VALUE_MAX_BYTES
        <= SEGMENT_BYTES
);
const _: () = assert!(SEGMENT_BYTES.is_power_of_two());

/// Whole records in a row as they lie in the log. Only the last one can have a large value.
#[derive(Clone, Copy, Debug)]
pub struct LogPiece<'a> {
    stored: &'a [u8],
    /// The large value of the last record; empty: there is none.
    large: &'a [u8],
    /// Where the history stands behind it.
    pub last: LogPosition,
    /// The cursor behind it.
    pub next: WalCursor,
}

impl<'a> LogPiece<'a> {
    /// Bytes in the stream.
    pub fn stream_bytes(&self) -> usize {
        self.stored.len() + self.large.len()
    }

    /// The bytes behind the first `skip_bytes`, as far as they lie in one place; empty if there are
    /// none.
    pub fn bytes_behind(&self, skip_bytes: usize) -> &'a [u8] {
        match self.stored.get(skip_bytes..) {
            Some(rest) if !rest.is_empty() => rest,
            _ => skip_bytes
                .checked_sub(self.stored.len())
                .and_then(|skip_bytes| self.large.get(skip_bytes..))
                .unwrap_or_default(),
        }
    }
}

/// A run of records in one buffer.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    bytes: Vec<u8>,
    /// Large values by the offset of their record, ascending.
    large: Vec<(usize, Blob)>,
    large_bytes: usize,
    /// The position before its first record.
    base: LogPosition,
    /// The position behind its last record.
    last: LogPosition,
    /// Whether a batch goes on behind its last record.
    goes_on: bool,
}

impl Segment {
    /// The record at `offset`.
    #[inline]
    pub(crate) fn entry(&self, offset: usize) -> Entry<'_> {
        record::decode(&self.bytes[offset..], || {
            let index = self
                .large
                .binary_search_by_key(&offset, |(at, _)| *at)
                .expect("a blob for each large record");
            &self.large[index].1
        })
    }

    /// The key of the record at `offset`.
    #[inline]
    pub(crate) fn key(&self, offset: usize) -> &[u8] {
        record::key_of(&self.bytes[offset..])
    }

    /// Prefetches the record at `offset`.
    #[inline]
    pub(crate) fn prefetch(&self, offset: usize) {
        prefetch(&self.bytes[offset]);
        if let Some(behind) = self.bytes.get(offset + CACHE_LINE_BYTES) {
            prefetch(behind);
        }
    }

    /// Bytes that the record at `offset` takes; `None` behind the last one.
    pub(crate) fn record_bytes(&self, offset: usize) -> Option<usize> {
        RecordHead::parse(&self.bytes[offset..]).map(|head| head.stored_bytes())
    }

    /// Bytes of records stored in the segment, large values not counted.
    pub(crate) fn stored_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The memory that its records take.
    pub(crate) fn footprint(&self) -> Footprint {
        Footprint {
            bytes: self.bytes.len(),
            large_bytes: self.large_bytes,
        }
    }

    /// Copies records from `offset` on into `batch`, up to `version`; returns the offset behind
    /// them. Large values count towards `max_bytes`, where copying stops; other records of a
    /// segment are few enough to be copied anyway. A batch of writes is not cut.
    fn read(
        &self,
        mut offset: usize,
        max_bytes: usize,
        version: u64,
        batch: &mut LogBatch,
    ) -> usize {
        let (segment_end, last, goes_on) = self.end_at(offset, version);
        let first_large = self.large.partition_point(|(at, _)| *at < offset);
        for (at, blob) in &self.large[first_large..] {
            if *at >= segment_end {
                break;
            }
            let head = RecordHead::parse(&self.bytes[*at..]).expect("a record for each blob");
            let end = at + head.stored_bytes();
            batch.push(&self.bytes[offset..end], head.position(), head.goes_on());
            batch.push_blob(Blob::clone(blob));
            offset = end;
            if batch.stream_bytes() >= max_bytes && !batch.is_open() {
                return offset;
            }
        }
        if offset < segment_end {
            batch.push(&self.bytes[offset..segment_end], last, goes_on);
        }
        segment_end
    }

    /// The records from `offset` on that are not above `version`, as far as the first large value;
    /// that value; and where the history stands behind them. None if there is no such record.
    fn piece(&self, offset: usize, version: u64) -> Option<(&[u8], &[u8], LogPosition)> {
        let (end, last, _) = self.end_at(offset, version);
        let first_large = self.large.partition_point(|(at, _)| *at < offset);
        match self.large.get(first_large).filter(|(at, _)| *at < end) {
            Some((at, blob)) => {
                let head = RecordHead::parse(&self.bytes[*at..]).expect("a record for each blob");
                let stored = &self.bytes[offset..at + head.stored_bytes()];
                Some((stored, blob.as_slice(), head.position()))
            }
            None if offset < end => Some((&self.bytes[offset..end], &[], last)),
            None => None,
        }
    }

    /// Of the records from `offset` on, finds the last one up to `version`. Returns the offset and
    /// position behind it, and whether a batch goes on there. Looks at each record only if the
    /// segment has records above `version`.
    fn end_at(&self, mut offset: usize, version: u64) -> (usize, LogPosition, bool) {
        if self.last.version <= version {
            return (self.bytes.len(), self.last, self.goes_on);
        }
        let (mut position, mut goes_on) = (self.base, false);
        while let Some(head) =
            RecordHead::parse(&self.bytes[offset..]).filter(|head| head.version <= version)
        {
            offset += head.stored_bytes();
            (position, goes_on) = (head.position(), head.goes_on());
        }
        (offset, position, goes_on)
    }

    /// The offset and the position behind the record with this version. Looks at each record
    /// before.
    fn seek(&self, version: u64) -> Option<(usize, LogPosition)> {
        let (mut offset, mut position) = (0, self.base);
        while position.version < version {
            let head = RecordHead::parse(&self.bytes[offset..])?;
            offset += head.stored_bytes();
            position = head.position();
        }
        (position.version == version).then_some((offset, position))
    }

    /// Bytes of records, large values included.
    fn stream_bytes(&self) -> usize {
        self.bytes.len() + self.large_bytes
    }

    /// Removes a large value, for freeing large values one by one.
    pub(crate) fn pop_large(&mut self) -> Option<Blob> {
        self.large.pop().map(|(_, blob)| blob)
    }
}

/// Where [`Wal::append`] put a record.
#[derive(Debug)]
pub(crate) struct AppendedRecord {
    /// Sequence number of the record.
    pub version: u64,
    /// Offset in the active segment.
    pub offset: usize,
    /// The segment that was sealed since the record did not fit; the record is in a new one.
    pub sealed: Option<Arc<Segment>>,
}

/// Where a reader of the log goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalCursor {
    /// Number of the segment, counted from the first segment of this log.
    segment: u64,
    offset: usize,
}

impl WalCursor {
    /// The begin of a segment.
    fn begin_of(segment: u64) -> Self {
        Self { segment, offset: 0 }
    }
}

/// The log.
#[derive(Debug, Default)]
pub(crate) struct Wal {
    /// Number of the first of `sealed`, or of the active segment if there is none.
    first_number: u64,
    sealed: VecDeque<Arc<Segment>>,
    /// Bytes of the records in `sealed`, large values included.
    sealed_bytes: usize,
    /// Bytes of the records in all segments that were ever sealed, large values included.
    sealed_total_bytes: u64,
    pub(crate) active: Segment,
    pub(crate) last: LogPosition,
    /// Empty buffers of freed segments, for the next ones.
    spare: Vec<Vec<u8>>,
}

impl Wal {
    /// An empty log that goes on from `position`.
    pub(crate) fn new(position: LogPosition) -> Self {
        let active = Segment {
            base: position,
            ..Segment::default()
        };
        Self {
            last: position,
            active,
            ..Self::default()
        }
    }

    /// Appends a new record; `goes_on`: the next record is of the same batch.
    pub(crate) fn append(&mut self, write: Write<'_>, goes_on: bool) -> AppendedRecord {
        let sealed = self.make_room(record::stored_bytes(&write));
        let offset = self.active.bytes.len();
        let version = self.last.version + 1;
        let (checksum, blob) = record::encode(
            &mut self.active.bytes,
            self.last.checksum,
            version,
            write,
            goes_on,
        );
        self.note(offset, LogPosition { version, checksum }, goes_on, blob);
        AppendedRecord {
            version,
            offset,
            sealed,
        }
    }

    /// Appends a record of a stream. It must be the next one.
    pub(crate) fn append_record(&mut self, record: &StreamRecord<'_>) -> AppendedRecord {
        assert_eq!(record.before(), self.last, "a record out of line");
        let sealed = self.make_room(record.stored().len());
        let offset = self.active.bytes.len();
        self.active.bytes.extend_from_slice(record.stored());
        self.note(
            offset,
            record.position(),
            record.goes_on(),
            record.large_value(),
        );
        AppendedRecord {
            version: self.last.version,
            offset,
            sealed,
        }
    }

    /// Makes room in the active segment; returns the segment that had to be sealed for it.
    fn make_room(&mut self, needed_bytes: usize) -> Option<Arc<Segment>> {
        let is_full = self.active.bytes.len() + needed_bytes > SEGMENT_BYTES;
        let sealed = if is_full { self.seal() } else { None };
        if self.active.bytes.capacity() == 0 {
            self.active.bytes = self
                .spare
                .pop()
                .unwrap_or_else(|| Vec::with_capacity(SEGMENT_BYTES));
        }
        sealed
    }

    fn note(&mut self, offset: usize, position: LogPosition, goes_on: bool, blob: Option<Blob>) {
        if let Some(blob) = blob {
            self.active.large_bytes += blob.len();
            self.active.large.push((offset, blob));
        }
        (self.active.last, self.active.goes_on) = (position, goes_on);
        self.last = position;
    }

    /// Seals the active segment, if it has a record.
    pub(crate) fn seal(&mut self) -> Option<Arc<Segment>> {
        if self.active.bytes.is_empty() {
            return None;
        }
        let next = Segment {
            base: self.last,
            ..Segment::default()
        };
        let mut sealed = std::mem::replace(&mut self.active, next);
        if sealed.bytes.len() < SMALL_SEGMENT_BYTES {
            let small = sealed.bytes.as_slice().to_vec();
            self.keep_spare(std::mem::replace(&mut sealed.bytes, small));
        }
        let segment = Arc::new(sealed);
        self.sealed_bytes += segment.stream_bytes();
        self.sealed_total_bytes += segment.stream_bytes() as u64;
        self.sealed.push_back(Arc::clone(&segment));
        Some(segment)
    }

    /// Removes one segment with all records at or below `version`, unless fewer than
    /// `kept_bytes` of log would be left; call until it returns none.
    pub(crate) fn release(&mut self, version: u64, kept_bytes: usize) -> Option<Arc<Segment>> {
        let spare_bytes =
            (self.sealed_bytes + self.active.stream_bytes()).saturating_sub(kept_bytes);
        let may_go = |segment: &mut Arc<Segment>| {
            segment.last.version <= version && segment.stream_bytes() <= spare_bytes
        };
        let released = self.sealed.pop_front_if(may_go)?;
        self.sealed_bytes -= released.stream_bytes();
        self.first_number += 1;
        Some(released)
    }

    /// Keeps the buffer of a segment without readers for a later segment; false: there are enough
    /// buffers.
    pub(crate) fn recycle(&mut self, segment: Segment) -> bool {
        self.keep_spare(segment.bytes)
    }

    fn keep_spare(&mut self, mut buffer: Vec<u8>) -> bool {
        let is_kept = self.spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() == SEGMENT_BYTES;
        if is_kept {
            buffer.clear();
            self.spare.push(buffer);
        }
        is_kept
    }

    /// Frees one of the buffers that are kept for the next segments; false: there is none.
    pub(crate) fn free_spare(&mut self) -> bool {
        self.spare.pop().is_some()
    }

    /// Whether buffers are kept for the next segments.
    pub(crate) fn has_spare(&self) -> bool {
        !self.spare.is_empty()
    }

    /// A cursor behind the newest record.
    pub(crate) fn end(&self) -> WalCursor {
        WalCursor {
            segment: self.first_number + self.sealed.len() as u64,
            offset: self.active.bytes.len(),
        }
    }

    /// A cursor behind the record with this version, and the position there; none if the log lacks
    /// the next record. Looks at each record of one segment.
    pub(crate) fn seek(&self, version: u64) -> Option<(WalCursor, LogPosition)> {
        if version == self.last.version {
            return Some((self.end(), self.last));
        }
        // The first segment with a record behind that version.
        let index = self
            .sealed
            .partition_point(|segment| segment.last.version <= version);
        let segment = self
            .sealed
            .get(index)
            .map_or(&self.active, |segment| segment);
        let (offset, position) = segment.seek(version)?;
        let segment = self.first_number + index as u64;
        Some((WalCursor { segment, offset }, position))
    }

    /// The version before the first record in the log.
    pub(crate) fn oldest_version(&self) -> u64 {
        self.sealed
            .front()
            .map_or(self.active.base, |segment| segment.base)
            .version
    }

    /// Reads records behind a cursor, up to `version`, into `batch` until it holds about
    /// `max_bytes`; neither a record nor a batch of writes is cut.
    pub(crate) fn read(
        &self,
        cursor: &mut WalCursor,
        max_bytes: usize,
        version: u64,
        batch: &mut LogBatch,
    ) {
        // Releases wait for cursors: a segment that was removed was read to its end.
        *cursor = self.oldest_from(*cursor);
        while batch.stream_bytes() < max_bytes || batch.is_open() {
            let sealed = self.sealed_at(cursor.segment);
            let segment = sealed.unwrap_or(&self.active);
            cursor.offset = segment.read(cursor.offset, max_bytes, version, batch);
            if cursor.offset < segment.bytes.len() || sealed.is_none() {
                return;
            }
            *cursor = WalCursor::begin_of(cursor.segment + 1);
        }
    }

    /// The next records behind a cursor, up to `version`, as they lie in memory. The cursor stays.
    pub(crate) fn piece(&self, cursor: WalCursor, version: u64) -> Option<LogPiece<'_>> {
        let mut at = self.oldest_from(cursor);
        loop {
            let sealed = self.sealed_at(at.segment);
            let segment = sealed.unwrap_or(&self.active);
            if let Some((stored, large, last)) = segment.piece(at.offset, version) {
                let offset = at.offset + stored.len();
                return Some(LogPiece {
                    stored,
                    large,
                    last,
                    next: WalCursor { offset, ..at },
                });
            }
            if sealed.is_none() || at.offset < segment.bytes.len() {
                return None;
            }
            at = WalCursor::begin_of(at.segment + 1);
        }
    }

    /// The cursor, or the begin of the oldest segment if the cursor's is released.
    fn oldest_from(&self, cursor: WalCursor) -> WalCursor {
        if cursor.segment < self.first_number {
            WalCursor::begin_of(self.first_number)
        } else {
            cursor
        }
    }

    /// A sealed segment by its number; none if it is the active one.
    fn sealed_at(&self, number: u64) -> Option<&Segment> {
        let index = usize::try_from(number - self.first_number).expect("fewer segments than bytes");
        self.sealed.get(index).map(|segment| &**segment)
    }

    /// Removes all records. The log goes on at its position.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = Arc<Segment>> {
        self.seal();
        self.first_number += self.sealed.len() as u64;
        self.sealed_bytes = 0;
        self.sealed.drain(..)
    }

    /// Segments in the log, the active one included once it has a record.
    pub(crate) fn segment_count(&self) -> usize {
        self.sealed.len() + usize::from(!self.active.bytes.is_empty())
    }

    /// Bytes of all records appended so far, large values and released segments included.
    pub(crate) fn appended_bytes(&self) -> u64 {
        self.sealed_total_bytes + self.active.stream_bytes() as u64
    }

    /// Bytes of records in the log, large values included.
    pub(crate) fn held_bytes(&self) -> usize {
        self.sealed_bytes + self.active.stream_bytes()
    }

    /// Bytes of the segments with all records at or below `version`. Looks at each segment.
    pub(crate) fn held_bytes_up_to(&self, version: u64) -> usize {
        let segments = self
            .sealed
            .iter()
            .take_while(|segment| segment.last.version <= version);
        segments.map(|segment| segment.stream_bytes()).sum()
    }

    /// Bytes of records in the log, large values not counted.
    pub(crate) fn stored_bytes(&self) -> usize {
        let sealed = self.sealed.iter().map(|segment| segment.stored_bytes());
        sealed.sum::<usize>() + self.active.stored_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsm::log::record::{INLINE_VALUE_MAX_BYTES, NewValue, Value};

    fn set<'a>(key: &'a [u8], value: NewValue<'a>) -> Write<'a> {
        Write {
            key,
            value,
            expires_at_ms: None,
        }
    }

    #[test]
    fn segments_are_sealed_when_full_and_released_in_order() {
        let mut wal = Wal::default();
        let value = [1; INLINE_VALUE_MAX_BYTES];
        let mut sealed = Vec::new();
        for _ in 0..100 {
            let appended = wal.append(set(b"key", NewValue::Inline(&value)), false);
            assert_eq!(wal.active.entry(appended.offset).version, appended.version);
            assert!(
                wal.active.bytes.capacity() <= SEGMENT_BYTES,
                "a segment was reallocated"
            );
            sealed.extend(appended.sealed);
        }
        assert_eq!(wal.last.version, 100);
        assert_eq!(wal.segment_count(), sealed.len() + 1);
        let first_last = sealed[0].last.version;
        assert!(
            wal.release(first_last - 1, 0).is_none(),
            "released although a record is still needed"
        );
        assert!(Arc::ptr_eq(
            &wal.release(first_last, 0).expect("released"),
            &sealed[0]
        ));
        assert!(wal.release(first_last, 0).is_none());
        let left_bytes = wal.sealed_bytes + wal.active.stream_bytes();
        assert!(
            wal.release(u64::MAX, left_bytes).is_none(),
            "released although it is to be kept"
        );
        assert!(
            wal.release(u64::MAX, left_bytes - sealed[1].stream_bytes())
                .is_some()
        );
    }

    /// Segments that freezes seal after a write or two are kept for replicas, many of them.
    #[test]
    fn small_segments_keep_little_more_than_their_records() {
        let mut wal = Wal::default();
        for _ in 0..1_000 {
            wal.append(set(b"key", NewValue::Inline(b"value")), false);
            wal.seal();
        }
        let kept_bytes: usize = wal
            .sealed
            .iter()
            .map(|sealed| sealed.bytes.capacity())
            .sum();
        assert_eq!(
            (wal.segment_count(), kept_bytes),
            (1_000, wal.stored_bytes())
        );
        assert_eq!(wal.spare.len(), 1, "all segments were filled in one buffer");
    }

    #[test]
    fn large_values_are_shared() {
        let mut wal = Wal::default();
        let mut large = record::LargeValue::new(vec![9; INLINE_VALUE_MAX_BYTES + 1]);
        while !large.step(usize::MAX) {}
        wal.append(set(b"a", NewValue::Inline(b"small")), false);
        let appended = wal.append(set(b"b", NewValue::Large(large)), false);
        let Value::Large(blob) = wal.active.entry(appended.offset).value else {
            panic!("not large")
        };
        assert_eq!(blob.len(), INLINE_VALUE_MAX_BYTES + 1);
        assert!(wal.stored_bytes() < 100);
    }

    /// Whatever the limits and however the log is cut into segments, the stream is that of all
    /// records.
    #[test]
    fn a_cursor_reads_every_record_once() {
        for seed in 0..30 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let start = LogPosition {
                version: rng.u64(..1000),
                checksum: rng.u32(..),
            };
            let mut wal = Wal::new(start);
            let mut cursor = wal.end();
            let (mut stream, mut read, mut read_to) = (Vec::new(), start, start);
            for _ in 0..300 {
                if rng.u8(..4) > 0 {
                    let value = vec![rng.u8(..); rng.usize(..INLINE_VALUE_MAX_BYTES + 2000)];
                    let new = if value.len() > INLINE_VALUE_MAX_BYTES {
                        let mut large = record::LargeValue::new(value);
                        while !large.step(usize::MAX) {}
                        NewValue::Large(large)
                    } else {
                        NewValue::Inline(&value)
                    };
                    wal.append(set(b"some key", new), false);
                } else if rng.bool() {
                    wal.seal();
                } else {
                    let mut batch = LogBatch::default();
                    let version = rng.u64(start.version..=wal.last.version);
                    wal.read(&mut cursor, rng.usize(1..600_000), version, &mut batch);
                    assert!(batch.last().is_none_or(|last| last.version <= version));
                    stream.extend(batch.parts().flatten());
                    if let Some(last) = batch.last() {
                        read_to = last;
                        while wal.release(last.version, 0).is_some() {}
                    }
                }
            }
            let mut rest = &stream[..];
            while !rest.is_empty() {
                let record = read.next_record(rest).expect("a whole record");
                (read, rest) = (record.position(), &rest[record.stream_bytes()..]);
            }
            assert_eq!(read, read_to, "seed {seed}");
        }
    }

    /// A cursor behind any version that the log has reads exactly what follows, and proves where it
    /// stands.
    #[test]
    fn the_log_is_read_from_any_version_it_has() {
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let start = LogPosition {
                version: rng.u64(..1000),
                checksum: rng.u32(..),
            };
            let mut wal = Wal::new(start);
            let mut positions = vec![start];
            for _ in 0..rng.usize(1..200) {
                let value = vec![1; rng.usize(..INLINE_VALUE_MAX_BYTES)];
                wal.append(set(b"some key", NewValue::Inline(&value)), false);
                positions.push(wal.last);
                if rng.u8(..20) == 0 {
                    wal.seal();
                }
            }
            let mut oldest = start;
            for _ in 0..rng.usize(..4) {
                oldest = wal
                    .release(u64::MAX, 0)
                    .map_or(oldest, |segment| segment.last);
            }
            assert!(wal.seek(wal.last.version + 1).is_none(), "seed {seed}");
            for position in positions {
                let Some((mut cursor, found)) = wal.seek(position.version) else {
                    assert!(
                        position.version < oldest.version,
                        "seed {seed}: {position:?} is there"
                    );
                    continue;
                };
                assert!(
                    position.version >= oldest.version,
                    "seed {seed}: {position:?} was released"
                );
                assert_eq!(found, position, "seed {seed}");
                let mut batch = LogBatch::default();
                wal.read(&mut cursor, 1, u64::MAX, &mut batch);
                let stream: Vec<u8> = batch.parts().flatten().copied().collect();
                match position.next_record(&stream) {
                    Ok(record) => assert_eq!(record.before(), position),
                    Err(error) => assert_eq!(position, wal.last, "seed {seed}: {error:?}"),
                }
            }
        }
    }
}
