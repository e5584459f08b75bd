//! The write-ahead log in memory: records, in order, in segments.
//!
//! Invariants:
//! 1. Versions in the log are contiguous: record N+1 follows record N, across segments too.
//! 2. A segment's buffer is allocated once, at [`SEGMENT_BYTES`], and never reallocated: a record's place is for good, and no
//!    write pays for a copy. A full segment is sealed behind an `Arc` and a fresh one takes its place.
//! 3. A sealed segment stays in the log until [`Wal::release`] says that its records are in sorted layers. Memtables
//!    hold their own `Arc`s, so releasing here never takes a record from under a reader.
//!
//! Not here: the bytes of a record (`record.rs`), finding one by key (`memtable.rs`), files (`storage/`, to come).

use std::collections::VecDeque;
use std::sync::Arc;

use super::record::{self, Blob, Entry, NewValue, RecordHead};

/// Room in one segment. A power of two, so that a place in a memtable's log is segment and offset in one `u32`; small
/// enough that a sealed, half-empty one (every freeze leaves one) costs little.
pub const SEGMENT_BYTES: usize = 256 * 1024;

// Any record fits into an empty segment.
const _: () =
    assert!(record::RECORD_HEAD_BYTES + 8 + record::KEY_MAX_BYTES + record::INLINE_VALUE_MAX_BYTES <= SEGMENT_BYTES);
const _: () = assert!(SEGMENT_BYTES.is_power_of_two());

/// A run of records in one buffer.
#[derive(Debug, Default)]
pub(super) struct Segment {
    bytes: Vec<u8>,
    /// Large values by the offset of their record, ascending.
    large: Vec<(usize, Blob)>,
    last_version: u64,
}

impl Segment {
    /// The record at `offset`.
    #[inline]
    pub(super) fn entry(&self, offset: usize) -> Entry<'_> {
        record::decode(&self.bytes[offset..], || {
            let index = self.large.binary_search_by_key(&offset, |(at, _)| *at).expect("a blob for each large record");
            &self.large[index].1
        })
    }

    /// The key of the record at `offset`.
    #[inline]
    pub(super) fn key(&self, offset: usize) -> &[u8] {
        record::key_of(&self.bytes[offset..])
    }

    /// Bytes that the record at `offset` takes; `None` behind the last one.
    pub(super) fn record_bytes(&self, offset: usize) -> Option<usize> {
        RecordHead::parse(&self.bytes[offset..]).map(|head| head.stored_bytes())
    }

    /// Bytes of records stored in the segment, large values not counted.
    pub(super) fn stored_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Takes a large value out, for freeing them one by one.
    pub(super) fn pop_large(&mut self) -> Option<Blob> {
        self.large.pop().map(|(_, blob)| blob)
    }
}

/// Where [`Wal::append`] put a record.
#[derive(Debug)]
pub(super) struct Appended {
    /// Sequence number of the record.
    pub version: u64,
    /// Offset in the active segment.
    pub offset: usize,
    /// Set when the record did not fit any more: this segment was sealed, and the record opens a fresh one.
    pub sealed: Option<Arc<Segment>>,
}

/// The log.
#[derive(Debug, Default)]
pub(super) struct Wal {
    sealed: VecDeque<Arc<Segment>>,
    active: Segment,
    last_version: u64,
    last_checksum: u32,
}

impl Wal {
    /// Appends a record.
    pub(super) fn append(&mut self, key: &[u8], value: NewValue<'_>, expires_at_ms: Option<u64>) -> Appended {
        let needed_bytes = record::stored_bytes(key, &value, expires_at_ms);
        let is_full = self.active.bytes.len() + needed_bytes > SEGMENT_BYTES;
        let sealed = if is_full { self.seal() } else { None };
        if self.active.bytes.capacity() == 0 {
            self.active.bytes.reserve_exact(SEGMENT_BYTES);
        }
        let offset = self.active.bytes.len();
        let version = self.last_version + 1;
        let (checksum, blob) =
            record::encode(&mut self.active.bytes, self.last_checksum, version, expires_at_ms, key, value);
        if let Some(blob) = blob {
            self.active.large.push((offset, blob));
        }
        self.active.last_version = version;
        self.last_version = version;
        self.last_checksum = checksum;
        Appended { version, offset, sealed }
    }

    /// Seals the active segment, if it has a record.
    pub(super) fn seal(&mut self) -> Option<Arc<Segment>> {
        if self.active.bytes.is_empty() {
            return None;
        }
        let segment = Arc::new(std::mem::take(&mut self.active));
        self.sealed.push_back(Arc::clone(&segment));
        Some(segment)
    }

    /// Lets one segment go whose records are all at or below `version`; call until it returns none.
    pub(super) fn release(&mut self, version: u64) -> Option<Arc<Segment>> {
        self.sealed.pop_front_if(|segment| segment.last_version <= version)
    }

    /// The segment that takes writes.
    pub(super) fn active(&self) -> &Segment {
        &self.active
    }

    /// Version of the newest record; 0 when there was none.
    pub(super) fn last_version(&self) -> u64 {
        self.last_version
    }

    /// Segments in the log, the active one included once it has a record.
    pub(super) fn segment_count(&self) -> usize {
        self.sealed.len() + usize::from(!self.active.bytes.is_empty())
    }

    /// Bytes of records in the log, large values not counted.
    pub(super) fn stored_bytes(&self) -> usize {
        self.sealed.iter().map(|segment| segment.stored_bytes()).sum::<usize>() + self.active.stored_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsm::record::{INLINE_VALUE_MAX_BYTES, Value};

    #[test]
    fn segments_are_sealed_when_full_and_released_in_order() {
        let mut wal = Wal::default();
        let value = [1; INLINE_VALUE_MAX_BYTES];
        let mut sealed = Vec::new();
        for _ in 0..100 {
            let appended = wal.append(b"key", NewValue::Inline(&value), None);
            assert_eq!(wal.active().entry(appended.offset).version, appended.version);
            assert!(wal.active().bytes.capacity() <= SEGMENT_BYTES, "a segment was reallocated");
            sealed.extend(appended.sealed);
        }
        assert_eq!(wal.last_version(), 100);
        assert_eq!(wal.segment_count(), sealed.len() + 1);
        let first_last = sealed[0].last_version;
        assert!(wal.release(first_last - 1).is_none(), "released although a record is still needed");
        assert!(Arc::ptr_eq(&wal.release(first_last).expect("released"), &sealed[0]));
        assert!(wal.release(first_last).is_none());
    }

    #[test]
    fn large_values_are_shared() {
        let mut wal = Wal::default();
        let mut large = record::LargeValue::new(vec![9; INLINE_VALUE_MAX_BYTES + 1]);
        while !large.step(usize::MAX) {}
        wal.append(b"a", NewValue::Inline(b"small"), None);
        let appended = wal.append(b"b", NewValue::Large(large), None);
        let Value::Large(blob) = wal.active().entry(appended.offset).value else { panic!("not large") };
        assert_eq!(blob.len(), INLINE_VALUE_MAX_BYTES + 1);
        assert!(wal.stored_bytes() < 100);
    }
}
