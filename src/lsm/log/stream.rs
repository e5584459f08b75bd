//! The log as a stream of bytes: collected for disk and replicas, and checked when it is read from
//! them.
//!
//! Invariants:
//! 1. A [`StreamRecord`] exists only for bytes that continue the history: its version is the next
//!    one, and its checksum covers the checksum of the record before it. So no record that is cut,
//!    doubled, reordered, altered or from another history is ever applied.
//! 2. Lengths are checked against their limits before they are used.
//!
//! Not here: the bytes of a record (`log/record.rs`), where records lie in memory (`log/wal.rs`)
//! and in files (`storage/`).

use crate::lsm::log::position::LogPosition;
use crate::lsm::log::record::{Blob, RecordHead};

/// The bytes of a stream are not the next record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordError {
    /// The bytes may be the beginning of the record; call again with more of them.
    Incomplete,
    /// The bytes are not the next record, whatever follows. The text says why.
    Damaged(&'static str),
}

/// A record in a stream that continues the history.
#[derive(Clone, Copy, Debug)]
pub struct StreamRecord<'a> {
    head: RecordHead,
    /// The part that lies in a segment: all of the record but a large value.
    stored: &'a [u8],
    large: Option<LargeBytes<'a>>,
    before: LogPosition,
}

/// A large value of a record in a stream.
#[derive(Clone, Copy, Debug)]
enum LargeBytes<'a> {
    InStream(&'a [u8]),
    Collected(&'a Blob),
}

impl LogPosition {
    /// The record at the start of `bytes`, if it continues the history at this position.
    pub fn next_record<'a>(&self, bytes: &'a [u8]) -> Result<StreamRecord<'a>, RecordError> {
        let Some(head) = RecordHead::parse(bytes) else {
            return Err(RecordError::Incomplete);
        };
        if head.version != self.version + 1 {
            return Err(RecordError::Damaged("its version is not the next one"));
        }
        if !head.is_well_formed() {
            return Err(RecordError::Damaged("its lengths or flags cannot be"));
        }
        let stream_bytes = head.stream_bytes();
        let Some(bytes) = bytes.get(..stream_bytes) else {
            return Err(RecordError::Incomplete);
        };
        if self.chained(&bytes[4..]) != head.checksum {
            return Err(RecordError::Damaged("its checksum does not hold"));
        }
        let (stored, large) = bytes.split_at(head.stored_bytes());
        let large = head.is_large().then_some(LargeBytes::InStream(large));
        Ok(StreamRecord {
            head,
            stored,
            large,
            before: *self,
        })
    }

    /// The checksum of the next record over these bytes, which follow the checksum in the record.
    pub(crate) fn chained(&self, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.checksum.to_le_bytes()), bytes)
    }
}

impl<'a> StreamRecord<'a> {
    /// The position before it.
    pub fn before(&self) -> LogPosition {
        self.before
    }

    /// The position behind it.
    pub fn position(&self) -> LogPosition {
        self.head.position()
    }

    /// A record with a large value that was collected apart, and a checksum that holds.
    pub(crate) fn collected(
        head: RecordHead,
        stored: &'a [u8],
        large: &'a Blob,
        before: LogPosition,
    ) -> Self {
        Self {
            head,
            stored,
            large: Some(LargeBytes::Collected(large)),
            before,
        }
    }

    /// Whether the next record belongs to the same batch.
    pub fn goes_on(&self) -> bool {
        self.head.goes_on()
    }

    /// Bytes it takes in the stream.
    pub fn stream_bytes(&self) -> usize {
        self.head.stream_bytes()
    }

    /// Its key.
    pub fn key(&self) -> &'a [u8] {
        &self.stored[self.head.key_offset()..][..usize::from(self.head.key_len)]
    }

    /// Whether it deletes its key.
    pub fn is_tombstone(&self) -> bool {
        self.head.is_tombstone()
    }

    /// Bytes of its value.
    pub fn value_bytes(&self) -> usize {
        self.head.value_len as usize
    }

    /// The value, unless it is large.
    pub fn inline_value(&self) -> Option<&'a [u8]> {
        let value_start = self.head.key_offset() + usize::from(self.head.key_len);
        (!self.head.is_large()).then(|| &self.stored[value_start..])
    }

    /// When it expires, in Unix ms; none: never.
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.head.expires_at_ms
    }

    /// The part that lies in a segment.
    pub(crate) fn stored(&self) -> &'a [u8] {
        self.stored
    }

    /// The value, if it is large; copied unless it was collected.
    pub(crate) fn large_value(&self) -> Option<Blob> {
        self.large.map(|large| match large {
            LargeBytes::InStream(bytes) => Blob::new(bytes.to_vec()),
            LargeBytes::Collected(blob) => Blob::clone(blob),
        })
    }
}

/// Whole records in a row, as they lie in the log; large values are shared and not copied.
#[derive(Debug, Default)]
pub struct LogBatch {
    bytes: Vec<u8>,
    /// Large values, each with the offset in `bytes` before which it belongs.
    blobs: Vec<(usize, Blob)>,
    blob_bytes: usize,
    last: Option<LogPosition>,
    /// Whether a batch of writes goes on behind the last record.
    is_open: bool,
}

impl LogBatch {
    /// The position behind its last record; none if it is empty.
    pub fn last(&self) -> Option<LogPosition> {
        self.last
    }

    /// Bytes of all its records.
    pub fn stream_bytes(&self) -> usize {
        self.bytes.len() + self.blob_bytes
    }

    /// The bytes, piece by piece, in order.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let blobs = self.blobs.iter().map(|(at, blob)| (*at, &blob[..]));
        let mut from = 0;
        let parts = blobs.chain([(self.bytes.len(), &[][..])]);
        let parts = parts.flat_map(move |(at, blob)| {
            let plain = &self.bytes[std::mem::replace(&mut from, at)..at];
            [plain, blob]
        });
        parts.filter(|part| !part.is_empty())
    }

    /// Removes all records, and keeps up to `keep_bytes` of memory.
    pub fn clear(&mut self, keep_bytes: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(keep_bytes);
        self.blobs = Vec::new();
        self.blob_bytes = 0;
        self.last = None;
        self.is_open = false;
    }

    /// Whether it ends within a batch of writes.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Adds a record from a stream.
    pub fn push_record(&mut self, record: &StreamRecord<'_>) {
        self.push(record.stored(), record.position(), record.goes_on());
        if let Some(blob) = record.large_value() {
            self.push_blob(blob);
        }
    }

    /// Its records, given the position before the first. That they continue the history was checked
    /// when they were added.
    pub fn records(&self, before: LogPosition) -> impl Iterator<Item = StreamRecord<'_>> {
        let (mut offset, mut at, mut blobs) = (0, before, self.blobs.iter());
        std::iter::from_fn(move || {
            let head = RecordHead::parse(&self.bytes[offset..])?;
            let stored = &self.bytes[offset..offset + head.stored_bytes()];
            offset += stored.len();
            let large = if head.is_large() {
                blobs.next().map(|(_, blob)| LargeBytes::Collected(blob))
            } else {
                None
            };
            let before = std::mem::replace(&mut at, head.position());
            Some(StreamRecord {
                head,
                stored,
                large,
                before,
            })
        })
    }

    pub(crate) fn push(&mut self, records: &[u8], last: LogPosition, goes_on: bool) {
        self.bytes.extend_from_slice(records);
        self.last = Some(last);
        self.is_open = goes_on;
    }

    pub(crate) fn push_blob(&mut self, blob: Blob) {
        self.blob_bytes += blob.len();
        self.blobs.push((self.bytes.len(), blob));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsm::log::record::{
        INLINE_VALUE_MAX_BYTES, NewValue, RECORD_HEAD_BYTES, Write, encode,
    };

    fn stream() -> Vec<u8> {
        let mut out = Vec::new();
        let value = NewValue::Inline(b"value");
        let (first, _) = encode(
            &mut out,
            0,
            1,
            Write {
                key: b"key",
                value,
                expires_at_ms: None,
            },
            false,
        );
        let write = Write {
            key: b"key",
            value: NewValue::Tombstone,
            expires_at_ms: Some(77),
        };
        let (second, _) = encode(&mut out, first, 2, write, true);
        let value = NewValue::Inline(&[b'v'; 100]);
        encode(
            &mut out,
            second,
            3,
            Write {
                key: b"another",
                value,
                expires_at_ms: None,
            },
            false,
        );
        out
    }

    /// The versions of the records that a stream holds, and why it ends.
    fn read(stream: &[u8]) -> (Vec<u64>, RecordError) {
        let (mut at, mut rest, mut versions) = (LogPosition::default(), stream, Vec::new());
        loop {
            match at.next_record(rest) {
                Ok(record) => {
                    (at, rest) = (record.position(), &rest[record.stream_bytes()..]);
                    versions.push(at.version);
                }
                Err(error) => return (versions, error),
            }
        }
    }

    #[test]
    fn a_cut_stream_is_incomplete_wherever_it_is_cut() {
        let stream = stream();
        assert_eq!(read(&stream).0, [1, 2, 3]);
        for cut in 0..stream.len() {
            let (versions, error) = read(&stream[..cut]);
            assert!(versions.iter().copied().eq(1..=versions.len() as u64));
            assert_eq!(error, RecordError::Incomplete, "cut at {cut}");
            assert!(versions.len() < 3);
        }
    }

    #[test]
    fn a_flipped_bit_is_found_wherever_it_is() {
        let stream = stream();
        for bit in 0..stream.len() * 8 {
            let mut damaged = stream.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let (versions, _) = read(&damaged);
            let intact = [28, 31, 127].iter().scan(0, |end, len| {
                *end += len;
                Some(*end)
            });
            let before = intact.filter(|end| *end <= bit / 8).count();
            assert_eq!(versions.len(), before, "bit {bit}");
        }
    }

    #[test]
    fn lengths_are_not_believed() {
        let mut head = [0; RECORD_HEAD_BYTES];
        head[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        head[8] = 1;
        head[10] = 4;
        head[12] = 1;
        let error = LogPosition::default()
            .next_record(&head)
            .expect_err("too long");
        assert!(matches!(error, RecordError::Damaged(_)), "{error:?}");
        head[4..8].copy_from_slice(
            &u32::try_from(INLINE_VALUE_MAX_BYTES)
                .expect("small")
                .to_le_bytes(),
        );
        let error = LogPosition::default()
            .next_record(&head)
            .expect_err("large although it is not");
        assert!(matches!(error, RecordError::Damaged(_)), "{error:?}");
    }
}
