//! The chunk: a dense, sorted, immutable piece of a layer with its own point index.
//!
//! A chunk is built once. The same bytes are memory, checkpoint file and snapshot on the wire;
//! adopting one means checking it, not re-indexing it.
//!
//! Invariants:
//! 1. A chunk is at most [`CHUNK_MAX_BYTES`] long and never empty; its memory is exactly as long as
//!    it is.
//! 2. Every entry is reachable through the buckets and in key order.
//!
//! Not here: the bytes (`chunk/layout.rs`), making one (`chunk/build.rs`), checking one that came
//! from elsewhere (`chunk/check.rs`).

pub(crate) mod build;
mod check;
pub(crate) mod layout;
#[cfg(test)]
mod tests;
pub(crate) mod walk;

use crate::allocator::{Block, CACHE_LINE_BYTES, prefetch};
use crate::lsm::chunk::layout::{
    BUCKET_BYTES, BUCKET_SLOTS, CHUNK_MAX_BYTES, FLAG_EXPIRES, FLAG_LARGE, FLAG_TOMBSTONE,
    HEADER_BYTES, KEY_LEN_MASK, RESTART_ENTRIES, read_u16, read_u64,
};
use crate::lsm::footprint::Footprint;
use crate::lsm::hash::KeyHasher;
use crate::lsm::log::record::{Blob, Entry, Value};
use crate::swar;

/// A chunk is rewritten without its expired entries once they are one part in this many of it: each
/// byte that is freed costs so many that are moved, at most, and no more than that part of memory
/// is held by what has expired.
const EXPIRED_SHARE: usize = 8;

/// An immutable chunk.
#[derive(Debug)]
pub struct Chunk {
    pub(crate) bytes: Block,
    pub(crate) blobs: Vec<Blob>,
    // Copies of the fields that a point read needs, so that it does not touch the header.
    pub(crate) restarts_at: usize,
    pub(crate) buckets_at: usize,
    pub(crate) version_width: usize,
}

impl Chunk {
    /// Makes a chunk of bytes from elsewhere, and returns it with the offset of its last entry.
    /// Everything that reading relies on is checked; the error says what is wrong.
    pub fn adopt(
        bytes: &[u8],
        blobs: Vec<Blob>,
        hasher: &KeyHasher,
        last_version: u64,
    ) -> Result<(Self, usize), &'static str> {
        let (parts, last_entry) = check::check(bytes, &blobs, hasher, last_version)?;
        let chunk = Self {
            bytes: Block::copy_of(bytes),
            blobs,
            restarts_at: parts.restarts_at,
            buckets_at: parts.buckets_at,
            version_width: parts.version_width,
        };
        Ok((chunk, last_entry))
    }

    /// The large values it refers to, in the order of their entries.
    pub fn blobs(&self) -> &[Blob] {
        &self.blobs
    }

    /// Its bytes, as they go to disk and wire (large values follow separately).
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The checksum of its bytes.
    pub fn checksum(&self) -> u32 {
        layout::checksum(&self.bytes)
    }

    /// Number of entries, tombstones included.
    pub fn entry_count(&self) -> usize {
        usize::from(layout::entry_count(&self.bytes))
    }

    /// Memory held by it, large values included.
    pub fn memory_bytes(&self) -> usize {
        self.bytes.len() + self.blobs.iter().map(|blob| blob.len()).sum::<usize>()
    }

    /// When the first of its entries expires, or expired; all ones: none ever does.
    pub(crate) fn first_expiry_ms(&self) -> u64 {
        layout::first_expiry(&self.bytes)
    }

    /// Whether so much of the chunk has expired that it pays to rewrite it: an [`EXPIRED_SHARE`]th
    /// of its bytes, or a large value. Looks at all entries.
    pub(crate) fn is_worth_sweeping(&self, now_ms: u64) -> bool {
        let (mut offset, mut expired_bytes) = (self.begin(), 0);
        while offset < self.end() {
            let (entry, next) = self.entry_at(offset);
            if entry.is_expired(now_ms) {
                expired_bytes += next - offset
                    + if matches!(entry.value, Value::Large(_)) {
                        CHUNK_MAX_BYTES
                    } else {
                        0
                    };
            }
            offset = next;
        }
        expired_bytes * EXPIRED_SHARE >= self.bytes.len()
    }

    /// The smallest key in it.
    pub fn first_key(&self) -> &[u8] {
        self.key_at(HEADER_BYTES)
    }

    /// The entry for a key; `hash` is its hash under the chunk's seed.
    #[inline]
    pub fn get(&self, hash: u32, key: &[u8]) -> Option<Entry<'_>> {
        self.find(hash, key).map(|offset| self.entry_at(offset).0)
    }

    /// The offset of the entry for a key; `hash` is its hash under the chunk's seed.
    #[inline]
    pub(crate) fn find(&self, hash: u32, key: &[u8]) -> Option<usize> {
        let buckets = &self.bytes[self.buckets_at..];
        let bucket_count = buckets.len() / BUCKET_BYTES;
        let mut index = bucket_of(hash, bucket_count);
        for _ in 0..bucket_count {
            let bucket = &buckets[index * BUCKET_BYTES..][..BUCKET_BYTES];
            for slot in slots_with(tag_of(hash), bucket) {
                let offset = usize::from(read_u16(bucket, BUCKET_SLOTS + 2 * slot));
                if self.key_at(offset) == key {
                    return Some(offset);
                }
            }
            if bucket[BUCKET_BYTES - 1] == 0 {
                return None;
            }
            index = if index + 1 == bucket_count {
                0
            } else {
                index + 1
            };
        }
        None
    }

    /// Prefetches the fields that every read begins with.
    #[inline]
    pub(crate) fn prefetch(&self) {
        prefetch(&self.bytes);
        prefetch(&self.version_width);
    }

    /// Prefetches the bucket in which a search for a hash begins.
    #[inline]
    pub(crate) fn prefetch_bucket(&self, hash: u32) {
        prefetch(&self.bytes[self.bucket_at(hash)]);
    }

    /// Prefetches the entry that a search for a hash most likely finds.
    #[inline]
    pub(crate) fn prefetch_entry(&self, hash: u32) {
        let bucket = &self.bytes[self.bucket_at(hash)..][..BUCKET_BYTES];
        if let Some(slot) = slots_with(tag_of(hash), bucket).next() {
            let offset = usize::from(read_u16(bucket, BUCKET_SLOTS + 2 * slot));
            prefetch(&self.bytes[offset]);
            // The processor itself fetches more when it is read in order; behind an entry there is
            // always a bucket.
            prefetch(&self.bytes[offset + CACHE_LINE_BYTES - 1]);
        }
    }

    #[inline]
    fn bucket_at(&self, hash: u32) -> usize {
        let bucket_count = (self.bytes.len() - self.buckets_at) / BUCKET_BYTES;
        self.buckets_at + BUCKET_BYTES * bucket_of(hash, bucket_count)
    }

    /// The offset of the first entry with a key at or above `key`; [`end`](Self::end) when there
    /// is none.
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
            let index =
                u32::from_le_bytes(*stored_value.first_chunk().expect("an index of four bytes"));
            Value::Large(&self.blobs[index as usize])
        } else {
            Value::Inline(stored_value)
        };
        let entry = Entry {
            key: &bytes[key_start..key_end],
            version: u64::from_le_bytes(version),
            expires_at_ms,
            value,
        };
        (entry, key_end + value_len)
    }

    /// The key of the entry at an offset; the hot part of [`entry_at`](Self::entry_at).
    #[inline]
    pub(crate) fn key_at(&self, offset: usize) -> &[u8] {
        let key_word = read_u16(&self.bytes, offset);
        let expires_bytes = if key_word & FLAG_EXPIRES == 0 { 0 } else { 8 };
        &self.bytes[offset + 4 + self.version_width + expires_bytes..]
            [..usize::from(key_word & KEY_LEN_MASK)]
    }

    /// The offset behind the entry at an offset.
    #[inline]
    pub(crate) fn entry_end(&self, offset: usize) -> usize {
        let key_word = read_u16(&self.bytes, offset);
        let expires_bytes = if key_word & FLAG_EXPIRES == 0 { 0 } else { 8 };
        let value_bytes = usize::from(read_u16(&self.bytes, offset + 2));
        offset
            + 4
            + self.version_width
            + expires_bytes
            + usize::from(key_word & KEY_LEN_MASK)
            + value_bytes
    }

    fn expiry_at(&self, offset: usize, key_word: u16) -> (Option<u64>, usize) {
        let at = offset + 4 + self.version_width;
        if key_word & FLAG_EXPIRES == 0 {
            return (None, at);
        }
        (Some(read_u64(&self.bytes, at)), at + 8)
    }

    /// The memory that it takes.
    pub(crate) fn footprint(&self) -> Footprint {
        Footprint {
            bytes: self.bytes.len(),
            large_bytes: self.memory_bytes() - self.bytes.len(),
        }
    }

    /// Its bytes, and the large values, for freeing them one by one.
    pub(crate) fn into_parts(self) -> (Block, Vec<Blob>) {
        (self.bytes, self.blobs)
    }
}

/// The slots of a bucket with this tag.
#[inline]
pub(crate) fn slots_with(tag: u8, bucket: &[u8]) -> impl Iterator<Item = usize> + use<> {
    // The last eight tags overlap those before them.
    const STARTS: [usize; 3] = [0, 8, BUCKET_SLOTS - 8];
    let mut marks = STARTS.map(|at| {
        swar::each_equal(
            u64::from_le_bytes(*bucket[at..].first_chunk().expect("tags")),
            tag,
        )
    });
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
pub(crate) fn bucket_of(hash: u32, bucket_count: usize) -> usize {
    ((u64::from(hash) * bucket_count as u64) >> 32) as usize
}

/// … and low bits the tag; 0 is for free slots.
#[inline]
pub(crate) fn tag_of(hash: u32) -> u8 {
    hash.to_le_bytes()[0].max(1)
}
