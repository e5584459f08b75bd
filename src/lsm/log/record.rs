//! The record: one write in the log, and the only home of its byte layout.
//!
//! A write is encoded once. The same bytes are the memtable's storage, the log on disk and the
//! replication stream. All integers are little-endian.
//!
//! ```text
//! offset  bytes  field
//!      0      4  checksum   CRC-32C over the previous record's checksum (4 bytes), then this
//!                           record from byte 4 to its end
//!      4      4  value_len  bytes of value (0 for a tombstone)
//!      8      2  key_len    bytes of key, 1..=4096
//!     10      1  flags      1 tombstone, 2 expires, 4 large, 8 batch goes on with the next record
//!     11      1  zero
//!     12      8  version    sequence number, one more than the record before
//!     20    0/8  expires    Unix time in milliseconds; only with the flag
//!      …         key, value
//! ```
//!
//! Invariants:
//! 1. The checksums are a chain: each covers the one before it, so the checksum after version N
//!    stands for the whole history up to N, and a record that is missing, doubled or from another
//!    history cannot go unnoticed.
//! 2. A value longer than [`INLINE_VALUE_MAX_BYTES`] is *large*: its bytes are not copied into the
//!    segment but shared as a [`Blob`]; in the stream they follow the record's head and key as any
//!    other value does.
//! 3. Lengths are under the checksum, so a damaged length is found before it is believed.
//! 4. Records of a batch follow one another; all but the last have the flag. They are applied,
//!    written to disk and replicated together or not at all.
//!
//! Not here: where records lie (`log/wal.rs`), how they are found (`memtable/mod.rs`), the sorted
//! form (`chunk/layout.rs`).

use std::sync::Arc;

use crate::lsm::log::position::LogPosition;

/// A large value: received into one buffer and shared from there to the reply, never copied.
pub type Blob = Arc<Vec<u8>>;

/// Longest key in bytes (`api.md`): a chunk of 64 KiB holds several records whatever their keys.
pub const KEY_MAX_BYTES: usize = 4096;

/// Longest value stored within its record. Above it a copy in every merge costs more than a shared
/// buffer.
pub const INLINE_VALUE_MAX_BYTES: usize = 16 * 1024;

/// Longest value at all: a length beyond it in a stream is damage, not a reason to allocate.
pub const VALUE_MAX_BYTES: usize = 1 << 30;

/// Bytes of a record before its key, without an expiry.
pub const RECORD_HEAD_BYTES: usize = 20;

const EXPIRES_BYTES: usize = 8;

const FLAG_TOMBSTONE: u8 = 1;
const FLAG_EXPIRES: u8 = 2;
const FLAG_LARGE: u8 = 4;
const FLAG_GOES_ON: u8 = 8;

/// The value of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// The key was deleted at this version.
    Tombstone,
    /// A value of at most [`INLINE_VALUE_MAX_BYTES`].
    Inline(&'a [u8]),
    /// A longer value, shared.
    Large(&'a Blob),
}

impl Value<'_> {
    /// Bytes of the value; 0 for a tombstone.
    pub fn len(&self) -> usize {
        match self {
            Value::Tombstone => 0,
            Value::Inline(bytes) => bytes.len(),
            Value::Large(blob) => blob.len(),
        }
    }

    /// Whether the value has no bytes (true for a tombstone too).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the key was deleted.
    pub fn is_tombstone(&self) -> bool {
        matches!(self, Value::Tombstone)
    }
}

/// One key with its newest known write, wherever it lies: in the log, in a memtable or in a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key, 1 to [`KEY_MAX_BYTES`] bytes.
    pub key: &'a [u8],
    /// Sequence number of the write.
    pub version: u64,
    /// Unix time in milliseconds from which on the value is gone; `None`: never.
    pub expires_at_ms: Option<u64>,
    /// The value that was written.
    pub value: Value<'a>,
}

impl Entry<'_> {
    /// Whether its time is over.
    #[inline]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|at| at <= now_ms)
    }

    /// Whether the key can be read.
    #[inline]
    pub(crate) fn is_live(&self, now_ms: u64) -> bool {
        !self.value.is_tombstone() && !self.is_expired(now_ms)
    }
}

/// A large value with the CRC-32C of its bytes, taken piece by piece so that no turn pays for all
/// of it.
#[derive(Clone, Debug)]
pub struct LargeValue {
    blob: Blob,
    crc: u32,
    digested_bytes: usize,
}

impl LargeValue {
    /// A value longer than [`INLINE_VALUE_MAX_BYTES`]; [`step`](Self::step) until it is digested.
    pub fn new(bytes: Vec<u8>) -> Self {
        assert!(
            bytes.len() > INLINE_VALUE_MAX_BYTES,
            "a value of {} bytes is not large",
            bytes.len()
        );
        Self {
            blob: Arc::new(bytes),
            crc: 0,
            digested_bytes: 0,
        }
    }

    /// The value.
    pub fn blob(&self) -> &Blob {
        &self.blob
    }

    /// Bytes of the value.
    pub fn len(&self) -> usize {
        self.blob.len()
    }

    /// Never true: a large value is long.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Digests up to `budget_bytes` more; true when nothing is left to do.
    pub fn step(&mut self, budget_bytes: usize) -> bool {
        let end = self
            .blob
            .len()
            .min(self.digested_bytes.saturating_add(budget_bytes));
        self.crc = crc32c::crc32c_append(self.crc, &self.blob[self.digested_bytes..end]);
        self.digested_bytes = end;
        end == self.blob.len()
    }
}

/// The value of a write to come.
#[derive(Debug)]
pub enum NewValue<'a> {
    /// Delete the key.
    Tombstone,
    /// At most [`INLINE_VALUE_MAX_BYTES`].
    Inline(&'a [u8]),
    /// Longer, and fully digested.
    Large(LargeValue),
}

impl NewValue<'_> {
    /// The flag of a record with this value, and the bytes of the value.
    #[inline]
    fn flag_and_len(&self) -> (u8, usize) {
        match self {
            Self::Tombstone => (FLAG_TOMBSTONE, 0),
            Self::Inline(bytes) => {
                assert!(
                    bytes.len() <= INLINE_VALUE_MAX_BYTES,
                    "inline value of {} bytes",
                    bytes.len()
                );
                (0, bytes.len())
            }
            Self::Large(large) => {
                assert!(
                    large.digested_bytes == large.blob.len(),
                    "large value not digested"
                );
                (FLAG_LARGE, large.blob.len())
            }
        }
    }
}

/// A write to come.
#[derive(Debug)]
pub struct Write<'a> {
    /// 1 to [`KEY_MAX_BYTES`] bytes.
    pub key: &'a [u8],
    /// The new value of the key.
    pub value: NewValue<'a>,
    /// When the value expires, in Unix ms; none: never.
    pub expires_at_ms: Option<u64>,
}

/// The fields of a record before its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHead {
    /// The checksum as stored; see [`RecordHead::parse`].
    pub checksum: u32,
    /// Bytes of the value, large or not.
    pub value_len: u32,
    /// Bytes of the key.
    pub key_len: u16,
    /// Sequence number.
    pub version: u64,
    /// Unix time in milliseconds; `None`: never.
    pub expires_at_ms: Option<u64>,
    flags: u8,
    zero: u8,
}

impl RecordHead {
    /// Reads a head; `None` when `bytes` is too short to hold it. Nothing is verified.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (fixed, rest) = bytes.split_first_chunk::<RECORD_HEAD_BYTES>()?;
        let flags = fixed[10];
        let expires_at_ms = match flags & FLAG_EXPIRES {
            0 => None,
            _ => Some(u64::from_le_bytes(*rest.first_chunk()?)),
        };
        Some(Self {
            checksum: u32::from_le_bytes([fixed[0], fixed[1], fixed[2], fixed[3]]),
            value_len: u32::from_le_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            key_len: u16::from_le_bytes([fixed[8], fixed[9]]),
            version: u64::from_le_bytes([
                fixed[12], fixed[13], fixed[14], fixed[15], fixed[16], fixed[17], fixed[18],
                fixed[19],
            ]),
            expires_at_ms,
            flags,
            zero: fixed[11],
        })
    }

    /// Whether the record deletes its key.
    pub(crate) fn is_tombstone(&self) -> bool {
        self.flags & FLAG_TOMBSTONE != 0
    }

    /// Whether the value is shared rather than stored behind the key.
    pub(crate) fn is_large(&self) -> bool {
        self.flags & FLAG_LARGE != 0
    }

    /// Whether the next record belongs to the same batch.
    pub(crate) fn goes_on(&self) -> bool {
        self.flags & FLAG_GOES_ON != 0
    }

    /// The position behind the record.
    pub(crate) fn position(&self) -> LogPosition {
        LogPosition {
            version: self.version,
            checksum: self.checksum,
        }
    }

    /// Whether [`encode`] could have written it, the checksum aside.
    pub(crate) fn is_well_formed(&self) -> bool {
        let value_len = self.value_len as usize;
        let known_flags = FLAG_TOMBSTONE | FLAG_EXPIRES | FLAG_LARGE | FLAG_GOES_ON;
        self.flags & !known_flags == 0
            && self.zero == 0
            && (1..=KEY_MAX_BYTES).contains(&usize::from(self.key_len))
            && value_len <= VALUE_MAX_BYTES
            && self.is_large() == (value_len > INLINE_VALUE_MAX_BYTES)
            && !(self.is_tombstone() && value_len > 0)
    }

    /// Bytes the record takes in the stream.
    pub(crate) fn stream_bytes(&self) -> usize {
        self.key_offset() + usize::from(self.key_len) + self.value_len as usize
    }

    /// Bytes the record takes in its segment: all of it, but for a large value.
    pub(crate) fn stored_bytes(&self) -> usize {
        let value_bytes = if self.is_large() {
            0
        } else {
            self.value_len as usize
        };
        self.key_offset() + usize::from(self.key_len) + value_bytes
    }

    /// Where the key starts.
    pub(crate) fn key_offset(&self) -> usize {
        key_offset(self.expires_at_ms.is_some())
    }
}

/// Where the key of a record begins.
#[inline]
fn key_offset(expires: bool) -> usize {
    RECORD_HEAD_BYTES + if expires { EXPIRES_BYTES } else { 0 }
}

/// Bytes that a record with this key and value takes in its segment.
pub(crate) fn stored_bytes(write: &Write<'_>) -> usize {
    let value_bytes = match write.value {
        NewValue::Inline(bytes) => bytes.len(),
        NewValue::Tombstone | NewValue::Large(_) => 0,
    };
    key_offset(write.expires_at_ms.is_some()) + write.key.len() + value_bytes
}

/// Appends a record to `out` and returns its checksum and, for a large value, the blob that belongs
/// behind it.
///
/// The caller has checked key and value lengths (`KEY_MAX_BYTES`, values below 4 GiB).
pub(crate) fn encode(
    out: &mut Vec<u8>,
    previous_checksum: u32,
    version: u64,
    write: Write<'_>,
    goes_on: bool,
) -> (u32, Option<Blob>) {
    let Write {
        key,
        value,
        expires_at_ms,
    } = write;
    assert!(
        (1..=KEY_MAX_BYTES).contains(&key.len()),
        "key of {} bytes",
        key.len()
    );
    let (mut flags, value_len) = value.flag_and_len();
    if expires_at_ms.is_some() {
        flags |= FLAG_EXPIRES;
    }
    if goes_on {
        flags |= FLAG_GOES_ON;
    }
    let start = out.len();
    let mut head = [0; RECORD_HEAD_BYTES];
    let value_len = u32::try_from(value_len).expect("value below 4 GiB");
    let key_len = u16::try_from(key.len()).expect("key length checked");
    head[4..8].copy_from_slice(&value_len.to_le_bytes());
    head[8..10].copy_from_slice(&key_len.to_le_bytes());
    head[10] = flags;
    head[12..].copy_from_slice(&version.to_le_bytes());
    out.extend_from_slice(&head);
    if let Some(expires) = expires_at_ms {
        out.extend_from_slice(&expires.to_le_bytes());
    }
    out.extend_from_slice(key);
    if let NewValue::Inline(bytes) = value {
        out.extend_from_slice(bytes);
    }
    // The chain's link and the record in one go: the checksum's own four bytes hold the previous
    // one while it is taken.
    out[start..start + 4].copy_from_slice(&previous_checksum.to_le_bytes());
    let mut checksum = crc32c::crc32c(&out[start..]);
    let mut blob = None;
    if let NewValue::Large(large) = value {
        checksum = crc32c::crc32c_combine(checksum, large.crc, large.blob.len());
        blob = Some(large.blob);
    }
    out[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
    (checksum, blob)
}

/// Reads the record at the start of `bytes`, which this process wrote; `large` finds the blob of a
/// large value.
pub(crate) fn decode<'a>(bytes: &'a [u8], large: impl FnOnce() -> &'a Blob) -> Entry<'a> {
    let head = RecordHead::parse(bytes).expect("a whole record");
    let key_start = head.key_offset();
    let key_end = key_start + usize::from(head.key_len);
    let value = if head.is_tombstone() {
        Value::Tombstone
    } else if head.is_large() {
        Value::Large(large())
    } else {
        Value::Inline(&bytes[key_end..key_end + head.value_len as usize])
    };
    Entry {
        key: &bytes[key_start..key_end],
        version: head.version,
        expires_at_ms: head.expires_at_ms,
        value,
    }
}

/// The key of the record at the start of `bytes`; the hot half of [`decode`].
pub(crate) fn key_of(bytes: &[u8]) -> &[u8] {
    let key_len = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let key_start = key_offset(bytes[10] & FLAG_EXPIRES != 0);
    &bytes[key_start..key_start + key_len]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<'a>(key: &'a [u8], value: NewValue<'a>) -> Write<'a> {
        Write {
            key,
            value,
            expires_at_ms: None,
        }
    }

    #[test]
    fn golden_bytes() {
        let mut out = Vec::new();
        let (first, _) = encode(
            &mut out,
            0,
            1,
            set(b"key", NewValue::Inline(b"value")),
            false,
        );
        let write = Write {
            expires_at_ms: Some(0x0102_0304),
            ..set(b"key", NewValue::Tombstone)
        };
        let (second, _) = encode(&mut out, first, 2, write, false);
        encode(&mut out, second, 3, set(b"k", NewValue::Inline(b"")), true);
        let expected: &[u8] = &[
            0xca, 0xcc, 0x81, 0x60, 5, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'k', b'e',
            b'y', b'v', b'a', b'l', b'u', b'e', // the first record
            0x71, 0xf1, 0x00, 0x58, 0, 0, 0, 0, 3, 0, 3, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 0,
            0, 0, 0, b'k', b'e', b'y', // the second
            0x42, 0x1d, 0xa8, 0x55, 0, 0, 0, 0, 1, 0, 8, 0, 3, 0, 0, 0, 0, 0, 0, 0, b'k',
        ];
        assert_eq!(out, expected);
        assert_eq!(first, 0x6081_ccca, "checksum of the first record");
        assert_eq!(second, 0x5800_f171, "checksum of the second record");
    }

    #[test]
    fn large_value_checksum_is_that_of_the_stream() {
        let value = vec![7; INLINE_VALUE_MAX_BYTES + 1];
        let mut large = LargeValue::new(value.clone());
        while !large.step(1000) {}
        let mut out = Vec::new();
        let (checksum, blob) = encode(&mut out, 9, 5, set(b"k", NewValue::Large(large)), false);
        assert_eq!(*blob.expect("a blob"), value);
        let mut stream = out.clone();
        stream[..4].copy_from_slice(&9_u32.to_le_bytes());
        stream.extend_from_slice(&value);
        assert_eq!(checksum, crc32c::crc32c(&stream));
    }

    #[test]
    fn decode_returns_what_was_encoded() {
        for expires_at_ms in [None, Some(77)] {
            let mut out = Vec::new();
            let write = || Write {
                expires_at_ms,
                ..set(b"some key", NewValue::Inline(b""))
            };
            encode(&mut out, 3, 12, write(), false);
            let entry = decode(&out, || unreachable!("not large"));
            assert_eq!(
                entry,
                Entry {
                    key: b"some key",
                    version: 12,
                    expires_at_ms,
                    value: Value::Inline(b"")
                }
            );
            assert_eq!(key_of(&out), b"some key");
            assert_eq!(stored_bytes(&write()), out.len());
        }
    }
}
