//! The builder of chunks.
//!
//! Not here: the layout (`chunk/layout.rs`).

use crate::allocator::Block;
use crate::lsm::chunk::layout::{
    self, BUCKET_BYTES, BUCKET_SLOTS, CHUNK_MAX_BYTES, ChunkHeader, FLAG_EXPIRES, FLAG_LARGE,
    FLAG_TOMBSTONE, HEADER_BYTES, KEY_LEN_MASK, NO_EXPIRY, RESTART_ENTRIES, read_u16,
};
use crate::lsm::chunk::{Chunk, bucket_of, tag_of};
use crate::lsm::hash::KeyHasher;
use crate::lsm::log::record::{Blob, Entry, Value};

/// Mean fill that buckets are made for: 17 of 21 slots, so that one in seven overflows into its
/// neighbour.
const BUCKET_FILL: usize = 17;

/// Memory touched at once: no kernel has smaller pages.
const PAGE_BYTES: usize = 4096;

/// Builds chunks, one after the other, in one buffer. (Each built where it is going to lie takes
/// longer: the buffer stays in the processor's cache.)
#[derive(Debug)]
pub struct ChunkBuilder {
    bytes: Vec<u8>,
    /// The block of the chunk, made ahead by [`prepare`](Self::prepare).
    place: Option<Block>,
    /// How much of the block was touched, and how much of it is new memory.
    touched_bytes: usize,
    new_bytes: usize,
    /// Of a chunk that was begun as a copy, the end of the entries that were kept.
    kept_end: usize,
    index: Vec<(u32, u16)>,
    /// Taken slots of each bucket, while buckets are made.
    fills: Vec<u8>,
    restarts: Vec<u16>,
    blobs: Vec<Blob>,
    hash_seed: u64,
    version_width: usize,
    first_expiry: u64,
    tombstone_count: u16,
    /// The greatest length of the chunk.
    max_bytes: usize,
}

impl ChunkBuilder {
    /// A builder of chunks with versions up to `last_version`.
    pub fn new(hasher: &KeyHasher, last_version: u64) -> Self {
        let used_bits = u64::BITS - last_version.leading_zeros();
        let mut bytes = Vec::with_capacity(CHUNK_MAX_BYTES);
        bytes.resize(HEADER_BYTES, 0);
        Self {
            bytes,
            place: None,
            touched_bytes: 0,
            new_bytes: 0,
            kept_end: 0,
            index: Vec::new(),
            fills: Vec::new(),
            restarts: Vec::new(),
            blobs: Vec::new(),
            hash_seed: hasher.seed(),
            version_width: used_bits.div_ceil(8).max(1) as usize,
            first_expiry: NO_EXPIRY,
            tombstone_count: 0,
            max_bytes: CHUNK_MAX_BYTES,
        }
    }

    /// Limits the chunk that is being built to less than [`CHUNK_MAX_BYTES`]. It must have an
    /// entry.
    pub(crate) fn limit(&mut self, max_bytes: usize) {
        debug_assert!(
            !self.is_empty() && max_bytes <= CHUNK_MAX_BYTES,
            "an empty builder has room for any entry"
        );
        self.max_bytes = max_bytes;
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
        restarts_end.next_multiple_of(BUCKET_BYTES)
            + BUCKET_BYTES * entry_count.div_ceil(BUCKET_FILL)
    }

    fn stored_bytes(&self, entry: &Entry<'_>) -> usize {
        let expires_bytes = if entry.expires_at_ms.is_some() { 8 } else { 0 };
        let value_bytes = match entry.value {
            Value::Large(_) => 4,
            value => value.len(),
        };
        4 + self.version_width + expires_bytes + entry.key.len() + value_bytes
    }

    /// Whether the chunk has room for one more entry. An empty builder has room for any entry.
    pub fn has_room_for(&self, entry: &Entry<'_>) -> bool {
        Self::total_bytes(
            self.bytes.len() + self.stored_bytes(entry),
            self.index.len() + 1,
        ) <= self.max_bytes
    }

    /// Adds an entry; keys must ascend, and there must be room. Returns the bytes it takes, about.
    pub fn add(&mut self, entry: &Entry<'_>, hash: u32) -> usize {
        let start = self.bytes.len();
        self.index_entry(start, hash);
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
        debug_assert!(
            self.version_width == 8 || entry.version >> (8 * self.version_width) == 0,
            "version too wide"
        );
        // One piece of a length that the compiler knows; the rest of the version is cut off again.
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

    /// Copies entries of a chunk from `offset` on, as long as there is room: up to so many entries
    /// and about so many bytes, with keys below `end`, if that is given. Stops before a tombstone,
    /// a large value and an entry that expires, and at once if versions of that chunk have another
    /// width. Returns the number of entries, and the offset behind them.
    pub(crate) fn add_some_of(
        &mut self,
        chunk: &Chunk,
        offset: usize,
        end: Option<&[u8]>,
        (count_max, bytes_max): (usize, usize),
        hasher: &KeyHasher,
    ) -> (usize, usize) {
        if chunk.version_width != self.version_width {
            return (0, offset);
        }
        let begin = offset;
        let (mut offset, mut count) = (begin, 0);
        // Up to here there is room without a closer look: rounding up takes at most one line more.
        let most_bytes =
            Self::total_bytes(self.bytes.len(), self.index.len() + count_max) + BUCKET_BYTES;
        let sure_end = self.bytes.len() + self.max_bytes.saturating_sub(most_bytes);
        while count < count_max && offset < chunk.end() && offset - begin < bytes_max {
            let key_word = read_u16(&chunk.bytes, offset);
            let key_start = offset + 4 + chunk.version_width;
            let next = key_start
                + usize::from(key_word & KEY_LEN_MASK)
                + usize::from(read_u16(&chunk.bytes, offset + 2));
            let entries_end = self.bytes.len() + next - begin;
            let has_room = entries_end <= sure_end
                || Self::total_bytes(entries_end, self.index.len() + 1) <= self.max_bytes;
            if key_word & !KEY_LEN_MASK != 0 || !has_room {
                break;
            }
            let key = &chunk.bytes[key_start..][..usize::from(key_word & KEY_LEN_MASK)];
            if end.is_some_and(|end| key >= end) {
                break;
            }
            self.index_entry(self.bytes.len() + offset - begin, hasher.hash(key));
            (offset, count) = (next, count + 1);
        }
        self.bytes.extend_from_slice(&chunk.bytes[begin..offset]);
        (count, offset)
    }

    /// Begins with a copy of a chunk; its entries are then [`replace`](Self::replace)d. The
    /// builder must be empty, and the chunk without large values. Nothing may be added before
    /// [`finish_as`](Self::finish_as), or before [`keep_some`](Self::keep_some) has kept all
    /// entries that are to stay.
    pub(crate) fn begin_as(&mut self, chunk: &Chunk) {
        assert!(
            self.is_empty() && chunk.blobs.is_empty(),
            "only an empty builder begins, and only without large values"
        );
        self.bytes.clear();
        self.bytes.extend_from_slice(chunk.bytes());
        self.kept_end = chunk.begin();
        self.reserve_place(chunk.bytes().len());
    }

    /// Of a chunk that was begun as a copy, keeps up to `count_max` more entries before `end`, as
    /// if they had been added. Returns their number; if it is less than `count_max`, the rest of
    /// the copy is dropped, and entries may be added.
    pub(crate) fn keep_some(
        &mut self,
        before: &Chunk,
        end: usize,
        count_max: usize,
        hasher: &KeyHasher,
    ) -> usize {
        let mut count = 0;
        while count < count_max && self.kept_end < end {
            let (entry, next) = before.entry_at(self.kept_end);
            self.index_entry(self.kept_end, hasher.hash(entry.key));
            self.first_expiry = self
                .first_expiry
                .min(entry.expires_at_ms.unwrap_or(NO_EXPIRY));
            self.tombstone_count += u16::from(entry.value.is_tombstone());
            (self.kept_end, count) = (next, count + 1);
        }
        if count < count_max {
            self.bytes.truncate(end);
        }
        count
    }

    /// Whether an entry of a chunk can be replaced by a new one of its key: both are plain values
    /// of the same length.
    pub(crate) fn can_replace(&self, chunk: &Chunk, offset: usize, entry: &Entry<'_>) -> bool {
        let has_flags = read_u16(&chunk.bytes, offset) & !KEY_LEN_MASK != 0;
        let value_len = usize::from(read_u16(&chunk.bytes, offset + 2));
        let Value::Inline(value) = entry.value else {
            return false;
        };
        !has_flags
            && value.len() == value_len
            && entry.expires_at_ms.is_none()
            && chunk.version_width == self.version_width
    }

    /// Replaces the entry at an offset, where [`can_replace`](Self::can_replace) is true.
    pub(crate) fn replace(&mut self, offset: usize, entry: &Entry<'_>) {
        let Value::Inline(value) = entry.value else {
            return;
        };
        let stored =
            &mut self.bytes[offset + 4..][..self.version_width + entry.key.len() + value.len()];
        let (version, key_and_value) = stored.split_at_mut(self.version_width);
        version.copy_from_slice(&entry.version.to_le_bytes()[..self.version_width]);
        key_and_value[entry.key.len()..].copy_from_slice(value);
    }

    /// Makes the chunk that was begun as a copy; the builder is empty again.
    pub(crate) fn finish_as(&mut self, before: &Chunk) -> Chunk {
        layout::seal(&mut self.bytes);
        let chunk = Chunk {
            bytes: self.take_place(),
            blobs: Vec::new(),
            ..*before
        };
        self.clear();
        chunk
    }

    /// Touches the block of the chunk, as far as the chunk has grown: so the kernel provides memory
    /// a page at a time, and not all of it when the chunk is finished. Returns the bytes provided.
    #[inline]
    pub(crate) fn prepare(&mut self) -> usize {
        let mut given_bytes = 0;
        while let Some(of_page) = self.prepare_page() {
            given_bytes += of_page;
        }
        given_bytes
    }

    /// Touches the next page; `None`: all are.
    #[inline]
    pub(crate) fn prepare_page(&mut self) -> Option<usize> {
        (self.touched_bytes < self.bytes.len()).then(|| self.touch_page())
    }

    fn touch_page(&mut self) -> usize {
        if self.place.is_none() {
            self.reserve_place(CHUNK_MAX_BYTES);
        }
        if let Some(byte) = self
            .place
            .as_mut()
            .and_then(|place| place.get_mut(self.touched_bytes))
        {
            *byte = 0;
        }
        self.touched_bytes += PAGE_BYTES;
        let given_bytes = self.new_bytes.min(PAGE_BYTES);
        self.new_bytes -= given_bytes;
        given_bytes
    }

    fn reserve_place(&mut self, len: usize) {
        let (place, new_bytes) = Block::new_counted(len);
        (self.place, self.touched_bytes, self.new_bytes) = (Some(place), 0, new_bytes);
    }

    /// Adds an entry to the index.
    fn index_entry(&mut self, offset: usize, hash: u32) {
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
        let small = |count: usize| u16::try_from(count).expect("counts within a chunk");
        let header = ChunkHeader {
            len: u32::try_from(self.bytes.len()).expect("a chunk is small"),
            hash_seed: self.hash_seed,
            first_expiry: self.first_expiry,
            entry_count: small(self.index.len()),
            tombstone_count: self.tombstone_count,
            blob_count: small(self.blobs.len()),
            restarts_at: small(restarts_at),
            bucket_count: small((self.bytes.len() - buckets_at) / BUCKET_BYTES),
            version_width: u8::try_from(self.version_width).expect("at most eight"),
        };
        header.write(&mut self.bytes);
        layout::seal(&mut self.bytes);
        let mut blobs = std::mem::take(&mut self.blobs);
        blobs.shrink_to_fit();
        let chunk = Chunk {
            bytes: self.take_place(),
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
        let buckets = &mut self.bytes[start..].as_chunks_mut::<BUCKET_BYTES>().0;
        self.fills.clear();
        self.fills.resize(bucket_count, 0);
        for &(hash, offset) in &self.index {
            let mut index = bucket_of(hash, bucket_count);
            // This loop ends, since there are more slots than entries.
            while usize::from(self.fills[index]) == BUCKET_SLOTS {
                buckets[index][BUCKET_BYTES - 1] = 1;
                index = if index + 1 == bucket_count {
                    0
                } else {
                    index + 1
                };
            }
            let slot = usize::from(self.fills[index]);
            self.fills[index] += 1;
            buckets[index][slot] = tag_of(hash);
            buckets[index][BUCKET_SLOTS + 2 * slot..][..2].copy_from_slice(&offset.to_le_bytes());
        }
    }

    /// A copy of the chunk, in the block that was made ahead if that is no longer than the chunk:
    /// no other chunk would fit into the hole behind it.
    fn take_place(&mut self) -> Block {
        self.touched_bytes = 0;
        if let Some(mut place) = self.place.take()
            && place.shorten(self.bytes.len())
        {
            place.copy_from_slice(&self.bytes);
            return place;
        }
        // The block that was made ahead is free again: most likely this one takes its place.
        Block::copy_of(&self.bytes)
    }

    fn clear(&mut self) {
        self.bytes.truncate(HEADER_BYTES);
        self.bytes.fill(0);
        self.index.clear();
        self.restarts.clear();
        self.first_expiry = NO_EXPIRY;
        self.tombstone_count = 0;
        self.max_bytes = CHUNK_MAX_BYTES;
    }
}
