//! The byte layout of a chunk: the only home of its offsets. Writer, reader and checker use these.
//!
//! A chunk is built once. The same bytes are memory, checkpoint file and snapshot on the wire;
//! adopting one means checking it, not re-indexing it. All integers are little-endian.
//!
//! ```text
//! offset  bytes  field
//!      0      4  checksum        CRC-32C of everything behind it
//!      4      4  len             bytes of the whole chunk, at most 65,536
//!      8      8  hash_seed       seed of the hash table (`hash.rs`)
//!     16      8  first_expiry    earliest expiry in it, Unix ms; all ones: nothing expires
//!     24      2  entry_count
//!     26      2  tombstone_count
//!     28      2  blob_count      large values it refers to
//!     30      2  restarts_at     offset of the restarts
//!     32      2  bucket_count
//!     34      1  version_width   bytes of each version, 1..=8
//!     35      1  format          2
//!     36      4  zero
//!     40         entries, ascending by key, each key once:
//!                  2  key_len in the low 13 bits; bit 13 tombstone, 14 expires, 15 large
//!                  2  value_len (4 for a large value)
//!                  w  version
//!                0/8  expires, Unix ms
//!                     key
//!                     value, or the index of a large value among the chunk's blobs (4 bytes)
//!      …         restarts: offset of every 16th entry, 2 bytes each
//!      …         zeros up to a multiple of 64, which is how a chunk is made; fewer are read, too
//!      …         buckets of 64 bytes: 21 tags (0: free), 21 entry offsets of 2 bytes,
//!                1 byte "also look in the next bucket"
//! ```
//!
//! A point read touches one bucket, which is a cache line in memory, and one entry: two cache
//! misses. With 16-byte keys and 32-byte values an entry costs about 11 bytes beside key and value:
//! 4 + 3 head, 3.8 in the buckets, 0.1 in the restarts.
//!
//! Ideas: restarts are `LevelDB`'s; buckets with tags are those of `F14` and Swiss tables, with
//! offsets as small as the chunk.

use std::ops::Range;

use crate::lsm::log::record::KEY_MAX_BYTES;

/// The most bytes of a chunk: offsets fit 16 bits, and rewriting one is a bounded slice of work.
pub const CHUNK_MAX_BYTES: usize = 64 * 1024;

/// The format of chunks, and of checkpoints, which are made of them.
pub const CHUNK_FORMAT: u8 = 2;

pub(crate) const HEADER_BYTES: usize = 40;
pub(crate) const RESTART_ENTRIES: usize = 16;
pub(crate) const BUCKET_BYTES: usize = 64;
pub(crate) const BUCKET_SLOTS: usize = 21;

pub(crate) const KEY_LEN_MASK: u16 = (1 << 13) - 1;
pub(crate) const FLAG_TOMBSTONE: u16 = 1 << 13;
pub(crate) const FLAG_EXPIRES: u16 = 1 << 14;
pub(crate) const FLAG_LARGE: u16 = 1 << 15;

pub(crate) const NO_EXPIRY: u64 = u64::MAX;

const _: () = assert!(KEY_MAX_BYTES <= KEY_LEN_MASK as usize);

const CHECKSUM: Range<usize> = 0..4;
const LEN: Range<usize> = 4..8;
const HASH_SEED: Range<usize> = 8..16;
const FIRST_EXPIRY: Range<usize> = 16..24;
const ENTRY_COUNT: Range<usize> = 24..26;
const TOMBSTONE_COUNT: Range<usize> = 26..28;
const BLOB_COUNT: Range<usize> = 28..30;
const RESTARTS_AT: Range<usize> = 30..32;
const BUCKET_COUNT: Range<usize> = 32..34;
const VERSION_WIDTH: usize = 34;
const FORMAT: usize = 35;
const ZERO: Range<usize> = 36..HEADER_BYTES;

/// What the header of a chunk says, the checksum aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkHeader {
    pub(crate) len: u32,
    pub(crate) hash_seed: u64,
    pub(crate) first_expiry: u64,
    pub(crate) entry_count: u16,
    pub(crate) tombstone_count: u16,
    pub(crate) blob_count: u16,
    pub(crate) restarts_at: u16,
    pub(crate) bucket_count: u16,
    pub(crate) version_width: u8,
}

impl ChunkHeader {
    /// Writes the header into the first bytes of a chunk; [`seal`] is left to do.
    pub(crate) fn write(&self, chunk: &mut [u8]) {
        chunk[LEN].copy_from_slice(&self.len.to_le_bytes());
        chunk[HASH_SEED].copy_from_slice(&self.hash_seed.to_le_bytes());
        chunk[FIRST_EXPIRY].copy_from_slice(&self.first_expiry.to_le_bytes());
        chunk[ENTRY_COUNT].copy_from_slice(&self.entry_count.to_le_bytes());
        chunk[TOMBSTONE_COUNT].copy_from_slice(&self.tombstone_count.to_le_bytes());
        chunk[BLOB_COUNT].copy_from_slice(&self.blob_count.to_le_bytes());
        chunk[RESTARTS_AT].copy_from_slice(&self.restarts_at.to_le_bytes());
        chunk[BUCKET_COUNT].copy_from_slice(&self.bucket_count.to_le_bytes());
        chunk[VERSION_WIDTH] = self.version_width;
        chunk[FORMAT] = CHUNK_FORMAT;
        chunk[ZERO].fill(0);
    }

    /// Reads the header of a chunk, which has at least [`HEADER_BYTES`]; none if its format is
    /// another one, or what has to be zero is not.
    pub(crate) fn read(chunk: &[u8]) -> Option<Self> {
        let is_known = chunk[FORMAT] == CHUNK_FORMAT && chunk[ZERO] == [0; ZERO.end - ZERO.start];
        is_known.then(|| Self {
            len: u32::from_le_bytes(field(chunk, LEN)),
            hash_seed: u64::from_le_bytes(field(chunk, HASH_SEED)),
            first_expiry: first_expiry(chunk),
            entry_count: entry_count(chunk),
            tombstone_count: u16::from_le_bytes(field(chunk, TOMBSTONE_COUNT)),
            blob_count: u16::from_le_bytes(field(chunk, BLOB_COUNT)),
            restarts_at: u16::from_le_bytes(field(chunk, RESTARTS_AT)),
            bucket_count: u16::from_le_bytes(field(chunk, BUCKET_COUNT)),
            version_width: chunk[VERSION_WIDTH],
        })
    }
}

/// Of the header of a chunk, this field.
#[inline]
pub(crate) fn entry_count(chunk: &[u8]) -> u16 {
    u16::from_le_bytes(field(chunk, ENTRY_COUNT))
}

/// Of the header of a chunk, this field.
#[inline]
pub(crate) fn first_expiry(chunk: &[u8]) -> u64 {
    u64::from_le_bytes(field(chunk, FIRST_EXPIRY))
}

/// The checksum that a chunk has.
pub(crate) fn checksum(chunk: &[u8]) -> u32 {
    u32::from_le_bytes(field(chunk, CHECKSUM))
}

/// The checksum that a chunk has to have.
pub(crate) fn checksum_of(chunk: &[u8]) -> u32 {
    crc32c::crc32c(&chunk[CHECKSUM.end..])
}

/// Writes the checksum, last of all.
pub(crate) fn seal(chunk: &mut [u8]) {
    let checksum = checksum_of(chunk);
    chunk[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
}

fn field<const N: usize>(chunk: &[u8], at: Range<usize>) -> [u8; N] {
    *chunk[at].first_chunk().expect("a field of the header")
}

/// The integer of 2 bytes at an offset of a chunk.
#[inline]
pub(crate) fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The integer of 8 bytes at an offset of a chunk.
#[inline]
pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("eight bytes"))
}
