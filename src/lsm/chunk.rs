//! The chunk: a dense, sorted, immutable piece of a layer with its own point index, and the only home of its byte layout.
//!
//! A chunk is built once. The same bytes are memory, checkpoint file and snapshot on the wire; adopting one means checking
//! it, not re-indexing it. All integers are little-endian.
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
//!     35      1  format          1
//!     36      4  zero
//!     40         entries, ascending by key, each key once:
//!                  2  key_len in the low 13 bits; bit 13 tombstone, 14 expires, 15 large
//!                  2  value_len (4 for a large value)
//!                  w  version
//!                0/8  expires, Unix ms
//!                     key
//!                     value, or the index of a large value among the chunk's blobs (4 bytes)
//!      …         restarts: offset of every 16th entry, 2 bytes each
//!      …         zeros up to a multiple of 64; none in chunks written before 2026-11-23
//!      …         buckets of 64 bytes: 21 tags (0: free), 21 entry offsets of 2 bytes, 1 byte "also look in the next bucket"
//! ```
//!
//! A point read touches one bucket, which is a cache line in memory, and one entry: two cache misses. With 16-byte keys and 32-byte values an entry costs
//! about 11 bytes beside key and value: 4 + 3 head, 3.8 in the buckets, 0.1 in the restarts.
//!
//! Invariants:
//! 1. A chunk is at most [`CHUNK_MAX_BYTES`] long and never empty; its memory is exactly as long as it is.
//! 2. Every entry is reachable through the buckets and in key order.
//!
//! Not here: checking a chunk that came from elsewhere (`chunk_check.rs`).
//!
//! Ideas: restarts are `LevelDB`'s; buckets with tags are those of `F14` and Swiss tables, with offsets as small as the chunk.

use super::figures::Footprint;
use super::hash::KeyHasher;
use super::record::{Blob, Entry, KEY_MAX_BYTES, Value};
use crate::allocator::{Block, CACHE_LINE_BYTES, prefetch};
use crate::swar;

/// The most bytes of a chunk: offsets fit 16 bits, and rewriting one is a bounded slice of work.
pub const CHUNK_MAX_BYTES: usize = 64 * 1024;

pub(super) const HEADER_BYTES: usize = 40;
pub(super) const FORMAT: u8 = 1;
pub(super) const RESTART_ENTRIES: usize = 16;
pub(super) const BUCKET_BYTES: usize = 64;
pub(super) const BUCKET_SLOTS: usize = 21;
/// Mean fill that buckets are made for: 17 of 21 slots, so that one in seven overflows into its neighbour.
const BUCKET_FILL: usize = 17;

pub(super) const KEY_LEN_MASK: u16 = (1 << 13) - 1;
pub(super) const FLAG_TOMBSTONE: u16 = 1 << 13;
pub(super) const FLAG_EXPIRES: u16 = 1 << 14;
pub(super) const FLAG_LARGE: u16 = 1 << 15;

pub(super) const NO_EXPIRY: u64 = u64::MAX;

/// A chunk is rewritten without its expired entries once they are one part in this many of it: each byte that is freed costs so
/// many that are moved, at most, and no more than that part of memory is held by what has expired.
const EXPIRED_SHARE: usize = 8;

const _: () = assert!(KEY_MAX_BYTES <= KEY_LEN_MASK as usize);

/// An immutable chunk.
#[derive(Debug)]
pub struct Chunk {
    bytes: Block,
    blobs: Vec<Blob>,
    // What a point read needs of the header, so that it need not touch the header's cache line.
    restarts_at: usize,
    buckets_at: usize,
    version_width: usize,
}

impl Chunk {
    /// Takes in a chunk that came from elsewhere, and returns it with the offset of its last entry. Everything that reading
    /// relies on is checked; an error says what does not hold.
    pub fn adopt(
        bytes: &[u8],
        blobs: Vec<Blob>,
        hash_seed: u64,
        last_version: u64,
    ) -> Result<(Self, usize), &'static str> {
        super::chunk_check::check(bytes, &blobs, hash_seed, last_version).map(|checked| {
            let chunk = Self {
                bytes: Block::copy_of(bytes),
                blobs,
                restarts_at: checked.restarts_at,
                buckets_at: checked.buckets_at,
                version_width: checked.version_width,
            };
            (chunk, checked.last_entry)
        })
    }

    /// The large values it refers to, in the order of their entries.
    pub fn blobs(&self) -> &[Blob] {
        &self.blobs
    }

    /// Its bytes, as they go to disk and wire (large values follow separately).
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of entries, tombstones included.
    pub fn entry_count(&self) -> usize {
        usize::from(self.header_u16(24))
    }

    /// Memory held by it, large values included.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.blobs.iter().map(|blob| blob.len()).sum::<usize>()
    }

    /// When the first of its entries expires, or expired; all ones: none ever does.
    pub(super) fn first_expiry_ms(&self) -> u64 {
        u64::from_le_bytes(*self.bytes[16..].first_chunk().expect("a header"))
    }

    /// Whether enough of it has expired for rewriting it to pay: an [`EXPIRED_SHARE`]th of its bytes, or a large value. Looks at
    /// all entries.
    pub(super) fn is_worth_sweeping(&self, now_ms: u64) -> bool {
        let (mut offset, mut expired_bytes) = (self.begin(), 0);
        while offset < self.end() {
            let (entry, next) = self.entry_at(offset);
            if entry.is_expired(now_ms) {
                expired_bytes +=
                    next - offset + if matches!(entry.value, Value::Large(_)) { CHUNK_MAX_BYTES } else { 0 };
            }
            offset = next;
        }
        expired_bytes * EXPIRED_SHARE >= self.bytes.len()
    }

    /// The smallest key in it.
    pub fn first_key(&self) -> &[u8] {
        self.key_at(HEADER_BYTES)
    }

    /// The entry for a key whose hash under the chunk's seed is `hash`.
    #[inline]
    pub fn get(&self, hash: u32, key: &[u8]) -> Option<Entry<'_>> {
        let buckets = &self.bytes[self.buckets_at..];
        let bucket_count = buckets.len() / BUCKET_BYTES;
        let mut index = bucket_of(hash, bucket_count);
        for _ in 0..bucket_count {
            let bucket = &buckets[index * BUCKET_BYTES..][..BUCKET_BYTES];
            for slot in slots_with(tag_of(hash), bucket) {
                let offset = usize::from(read_u16(bucket, BUCKET_SLOTS + 2 * slot));
                if self.key_at(offset) == key {
                    return Some(self.entry_at(offset).0);
                }
            }
            if bucket[BUCKET_BYTES - 1] == 0 {
                return None;
            }
            index = if index + 1 == bucket_count { 0 } else { index + 1 };
        }
        None
    }

    /// Asks for what every read begins with.
    #[inline]
    pub(super) fn prefetch(&self) {
        prefetch(&self.bytes);
        prefetch(&self.version_width);
    }

    /// Asks for the memory that looking for a hash begins with.
    #[inline]
    pub(super) fn prefetch_bucket(&self, hash: u32) {
        prefetch(&self.bytes[self.bucket_at(hash)]);
    }

    /// Asks for the memory of the entry that looking for a hash most likely comes to.
    #[inline]
    pub(super) fn prefetch_entry(&self, hash: u32) {
        let bucket = &self.bytes[self.bucket_at(hash)..][..BUCKET_BYTES];
        if let Some(slot) = slots_with(tag_of(hash), bucket).next() {
            let offset = usize::from(read_u16(bucket, BUCKET_SLOTS + 2 * slot));
            prefetch(&self.bytes[offset]);
            // What follows comes by itself when it is read in order; behind an entry there is always a bucket.
            prefetch(&self.bytes[offset + CACHE_LINE_BYTES - 1]);
        }
    }

    #[inline]
    fn bucket_at(&self, hash: u32) -> usize {
        let bucket_count = (self.bytes.len() - self.buckets_at) / BUCKET_BYTES;
        self.buckets_at + BUCKET_BYTES * bucket_of(hash, bucket_count)
    }

    /// The offset of the first entry whose key is at or above `key`; [`end`](Self::end) when there is none.
    pub fn seek(&self, key: &[u8]) -> usize {
        let restarts = &self.bytes[self.restarts_at..self.buckets_at];
        let (mut low, mut high) = (0, self.entry_count().div_ceil(RESTART_ENTRIES));
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.key_at(usize::from(read_u16(restarts, 2 * middle))) < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let mut offset = match low {
            0 => HEADER_BYTES,
            _ => usize::from(read_u16(restarts, 2 * (low - 1))),
        };
        while offset < self.end() && self.key_at(offset) < key {
            offset = self.entry_at(offset).1;
        }
        offset
    }

    /// Offset of the first entry.
    pub fn begin(&self) -> usize {
        HEADER_BYTES
    }

    /// Offset behind the last entry.
    pub fn end(&self) -> usize {
        self.restarts_at
    }

    /// The entry at an offset and the offset of the next one.
    #[inline]
    pub fn entry_at(&self, offset: usize) -> (Entry<'_>, usize) {
        let bytes = &*self.bytes;
        let key_word = read_u16(bytes, offset);
        let value_len = usize::from(read_u16(bytes, offset + 2));
        let mut version = [0; 8];
        version[..self.version_width].copy_from_slice(&bytes[offset + 4..][..self.version_width]);
        let (expires_at_ms, key_start) = self.expiry_at(offset, key_word);
        let key_end = key_start + usize::from(key_word & KEY_LEN_MASK);
        let stored_value = &bytes[key_end..key_end + value_len];
        let value = if key_word & FLAG_TOMBSTONE != 0 {
            Value::Tombstone
        } else if key_word & FLAG_LARGE != 0 {
            let index = u32::from_le_bytes(*stored_value.first_chunk().expect("an index of four bytes"));
            Value::Large(&self.blobs[index as usize])
        } else {
            Value::Inline(stored_value)
        };
        let entry =
            Entry { key: &bytes[key_start..key_end], version: u64::from_le_bytes(version), expires_at_ms, value };
        (entry, key_end + value_len)
    }

    /// The key of the entry at an offset; the hot part of [`entry_at`](Self::entry_at).
    #[inline]
    fn key_at(&self, offset: usize) -> &[u8] {
        let key_word = read_u16(&self.bytes, offset);
        let expires_bytes = if key_word & FLAG_EXPIRES == 0 { 0 } else { 8 };
        &self.bytes[offset + 4 + self.version_width + expires_bytes..][..usize::from(key_word & KEY_LEN_MASK)]
    }

    fn expiry_at(&self, offset: usize, key_word: u16) -> (Option<u64>, usize) {
        let at = offset + 4 + self.version_width;
        if key_word & FLAG_EXPIRES == 0 {
            return (None, at);
        }
        (Some(u64::from_le_bytes(*self.bytes[at..].first_chunk().expect("an expiry of eight bytes"))), at + 8)
    }

    fn header_u16(&self, at: usize) -> u16 {
        read_u16(&self.bytes, at)
    }

    /// What it takes.
    pub(super) fn footprint(&self) -> Footprint {
        Footprint { bytes: self.bytes.len(), large_bytes: self.memory_bytes() - self.bytes.len() }
    }

    /// Its bytes, and the large values, for freeing them one by one.
    pub(super) fn into_parts(self) -> (Block, Vec<Blob>) {
        (self.bytes, self.blobs)
    }
}

/// Builds chunks, one after the other, in one buffer.
#[derive(Debug)]
pub struct ChunkBuilder {
    bytes: Vec<u8>,
    index: Vec<(u32, u16)>,
    restarts: Vec<u16>,
    blobs: Vec<Blob>,
    hash_seed: u64,
    version_width: usize,
    first_expiry: u64,
    tombstone_count: u16,
}

impl ChunkBuilder {
    /// A builder of chunks with versions up to `last_version`.
    pub fn new(hash_seed: u64, last_version: u64) -> Self {
        let used_bits = u64::BITS - last_version.leading_zeros();
        let mut bytes = Vec::with_capacity(CHUNK_MAX_BYTES);
        bytes.resize(HEADER_BYTES, 0);
        Self {
            bytes,
            index: Vec::new(),
            restarts: Vec::new(),
            blobs: Vec::new(),
            hash_seed,
            version_width: used_bits.div_ceil(8).max(1) as usize,
            first_expiry: NO_EXPIRY,
            tombstone_count: 0,
        }
    }

    /// Whether nothing was added since the last [`finish`](Self::finish).
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Bytes of the chunk if it were finished now.
    pub fn len(&self) -> usize {
        Self::total_bytes(self.bytes.len(), self.index.len())
    }

    fn total_bytes(entries_end: usize, entry_count: usize) -> usize {
        let restarts_end = entries_end + 2 * entry_count.div_ceil(RESTART_ENTRIES);
        restarts_end.next_multiple_of(BUCKET_BYTES) + BUCKET_BYTES * entry_count.div_ceil(BUCKET_FILL)
    }

    fn stored_bytes(&self, entry: &Entry<'_>) -> usize {
        let expires_bytes = if entry.expires_at_ms.is_some() { 8 } else { 0 };
        let value_bytes = match entry.value {
            Value::Large(_) => 4,
            value => value.len(),
        };
        4 + self.version_width + expires_bytes + entry.key.len() + value_bytes
    }

    /// Whether one more entry would keep the chunk within [`CHUNK_MAX_BYTES`]. An empty builder has room for any entry.
    pub fn has_room_for(&self, entry: &Entry<'_>) -> bool {
        Self::total_bytes(self.bytes.len() + self.stored_bytes(entry), self.index.len() + 1) <= CHUNK_MAX_BYTES
    }

    /// Adds an entry; keys must ascend, and there must be room. Returns the bytes it takes, about.
    pub fn add(&mut self, entry: &Entry<'_>, hash: u32) -> usize {
        let start = self.bytes.len();
        self.note(start, hash);
        let mut key_word = u16::try_from(entry.key.len()).expect("a key of legal length");
        let (flag, value_len) = match entry.value {
            Value::Tombstone => (FLAG_TOMBSTONE, 0),
            Value::Inline(bytes) => (0, u16::try_from(bytes.len()).expect("an inline value")),
            Value::Large(_) => (FLAG_LARGE, 4),
        };
        key_word |= flag;
        if let Some(expires_at_ms) = entry.expires_at_ms {
            key_word |= FLAG_EXPIRES;
            self.first_expiry = self.first_expiry.min(expires_at_ms);
        }
        debug_assert!(self.version_width == 8 || entry.version >> (8 * self.version_width) == 0, "version too wide");
        // As one piece, and what is too long cut off again: so the compiler knows the length.
        let mut head = [0; 12];
        head[..2].copy_from_slice(&key_word.to_le_bytes());
        head[2..4].copy_from_slice(&value_len.to_le_bytes());
        head[4..].copy_from_slice(&entry.version.to_le_bytes());
        self.bytes.extend_from_slice(&head);
        self.bytes.truncate(start + 4 + self.version_width);
        if let Some(expires_at_ms) = entry.expires_at_ms {
            self.bytes.extend_from_slice(&expires_at_ms.to_le_bytes());
        }
        self.bytes.extend_from_slice(entry.key);
        match entry.value {
            Value::Tombstone => self.tombstone_count += 1,
            Value::Inline(bytes) => self.bytes.extend_from_slice(bytes),
            Value::Large(blob) => {
                let index = u32::try_from(self.blobs.len()).expect("fewer large values than bytes");
                self.bytes.extend_from_slice(&index.to_le_bytes());
                self.blobs.push(Blob::clone(blob));
            }
        }
        self.bytes.len() - start + BUCKET_BYTES / BUCKET_FILL
    }

    /// Adds entries of a chunk as they lie there, from `offset` on: up to `count_max` of those whose keys are below `end`, if there
    /// is one, as long as there is room. Tombstones, large values and what expires are not among them, nor is anything if versions
    /// are not as wide as in this chunk. Returns how many there were, and the offset behind them.
    pub(super) fn add_some_of(
        &mut self,
        chunk: &Chunk,
        offset: usize,
        end: Option<&[u8]>,
        count_max: usize,
        hasher: &KeyHasher,
    ) -> (usize, usize) {
        if chunk.version_width != self.version_width {
            return (0, offset);
        }
        let begin = offset;
        let (mut offset, mut count) = (begin, 0);
        while count < count_max && offset < chunk.end() {
            let key_word = read_u16(&chunk.bytes, offset);
            let key_start = offset + 4 + chunk.version_width;
            let next =
                key_start + usize::from(key_word & KEY_LEN_MASK) + usize::from(read_u16(&chunk.bytes, offset + 2));
            let entries_end = self.bytes.len() + next - begin;
            if key_word & !KEY_LEN_MASK != 0 || Self::total_bytes(entries_end, self.index.len() + 1) > CHUNK_MAX_BYTES {
                break;
            }
            let key = &chunk.bytes[key_start..][..usize::from(key_word & KEY_LEN_MASK)];
            if end.is_some_and(|end| key >= end) {
                break;
            }
            self.note(self.bytes.len() + offset - begin, hasher.hash(key));
            (offset, count) = (next, count + 1);
        }
        self.bytes.extend_from_slice(&chunk.bytes[begin..offset]);
        (count, offset)
    }

    /// Takes note of an entry.
    fn note(&mut self, offset: usize, hash: u32) {
        let offset = u16::try_from(offset).expect("a chunk with room for the entry");
        if self.index.len().is_multiple_of(RESTART_ENTRIES) {
            self.restarts.push(offset);
        }
        self.index.push((hash, offset));
    }

    /// Makes the chunk; the builder is empty again. There must be an entry.
    pub fn finish(&mut self) -> Chunk {
        assert!(!self.is_empty(), "a chunk has at least one entry");
        let restarts_at = self.bytes.len();
        for restart in &self.restarts {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        let buckets_at = self.bytes.len().next_multiple_of(BUCKET_BYTES);
        self.bytes.resize(buckets_at, 0);
        self.append_buckets();
        let small = |count: usize| u16::try_from(count).expect("counts within a chunk").to_le_bytes();
        let len = u32::try_from(self.bytes.len()).expect("a chunk is small");
        let bucket_count = (self.bytes.len() - buckets_at) / BUCKET_BYTES;
        let header = &mut self.bytes[..HEADER_BYTES];
        header[4..8].copy_from_slice(&len.to_le_bytes());
        header[8..16].copy_from_slice(&self.hash_seed.to_le_bytes());
        header[16..24].copy_from_slice(&self.first_expiry.to_le_bytes());
        header[24..26].copy_from_slice(&small(self.index.len()));
        header[26..28].copy_from_slice(&self.tombstone_count.to_le_bytes());
        header[28..30].copy_from_slice(&small(self.blobs.len()));
        header[30..32].copy_from_slice(&small(restarts_at));
        header[32..34].copy_from_slice(&small(bucket_count));
        header[34..36].copy_from_slice(&[small(self.version_width)[0], FORMAT]);
        let checksum = crc32c::crc32c(&self.bytes[4..]);
        self.bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        let mut blobs = std::mem::take(&mut self.blobs);
        blobs.shrink_to_fit();
        let chunk = Chunk {
            bytes: Block::copy_of(&self.bytes),
            blobs,
            restarts_at,
            buckets_at,
            version_width: self.version_width,
        };
        self.clear();
        chunk
    }

    fn append_buckets(&mut self) {
        let start = self.bytes.len();
        let bucket_count = self.index.len().div_ceil(BUCKET_FILL);
        self.bytes.resize(start + bucket_count * BUCKET_BYTES, 0);
        let buckets = &mut self.bytes[start..];
        for &(hash, offset) in &self.index {
            let mut index = bucket_of(hash, bucket_count);
            // Ends: there are more slots than entries.
            let (bucket, slot) = loop {
                let bucket = &buckets[index * BUCKET_BYTES..][..BUCKET_BYTES];
                if let Some(slot) = slots_with(0, bucket).next() {
                    break (&mut buckets[index * BUCKET_BYTES..][..BUCKET_BYTES], slot);
                }
                buckets[index * BUCKET_BYTES + BUCKET_BYTES - 1] = 1;
                index = if index + 1 == bucket_count { 0 } else { index + 1 };
            };
            bucket[slot] = tag_of(hash);
            bucket[BUCKET_SLOTS + 2 * slot..][..2].copy_from_slice(&offset.to_le_bytes());
        }
    }

    fn clear(&mut self) {
        self.bytes.truncate(HEADER_BYTES);
        self.bytes.fill(0);
        self.index.clear();
        self.restarts.clear();
        self.first_expiry = NO_EXPIRY;
        self.tombstone_count = 0;
    }
}

#[inline]
pub(super) fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// The slots of a bucket with this tag.
#[inline]
fn slots_with(tag: u8, bucket: &[u8]) -> impl Iterator<Item = usize> + use<> {
    // The last eight tags overlap those before them.
    const STARTS: [usize; 3] = [0, 8, BUCKET_SLOTS - 8];
    let mut marks =
        STARTS.map(|at| swar::each_equal(u64::from_le_bytes(*bucket[at..].first_chunk().expect("tags")), tag));
    marks[2] &= !(u64::MAX >> (8 * STARTS[2] - 64));
    let mut part = 0;
    std::iter::from_fn(move || {
        while part < STARTS.len() {
            if marks[part] != 0 {
                let slot = STARTS[part] + swar::first(marks[part]);
                marks[part] &= marks[part] - 1;
                return Some(slot);
            }
            part += 1;
        }
        None
    })
}

/// High bits of the hash choose the bucket …
#[inline]
fn bucket_of(hash: u32, bucket_count: usize) -> usize {
    ((u64::from(hash) * bucket_count as u64) >> 32) as usize
}

/// … and low bits the tag; 0 is for free slots.
#[inline]
fn tag_of(hash: u32) -> u8 {
    hash.to_le_bytes()[0].max(1)
}
