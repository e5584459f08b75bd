//! A run: sorted chunks that do not overlap, found by key through a flat index of the eight bytes
//! in which their first keys differ.
//!
//! Invariants:
//! 1. Chunks ascend and do not overlap; none is empty; no block is empty.
//! 2. A clone is one `Arc`, whatever the size. Changing a run that was cloned copies its list of
//!    blocks and the one block it touches, never the chunks: O(blocks + [`BLOCK_MAX_CHUNKS`]).
//!
//! Not here: what is in a chunk (`chunk/layout.rs`), when runs are merged (`levels.rs`).

pub(crate) mod filter;

use std::sync::Arc;

use crate::lsm::chunk::Chunk;
use crate::lsm::chunk::layout::NO_EXPIRY;
use crate::lsm::footprint::Footprint;
use crate::lsm::hash::GOLDEN;
use crate::lsm::log::record::Entry;
use crate::lsm::run::filter::Filter;
use crate::swar;

/// Chunks in one block: inserting moves a few kilobytes of pointers and fences.
const BLOCK_MAX_CHUNKS: usize = 128;

/// The first 24 bytes of a key as big-endian numbers, filled with zeros. The order of keys with
/// equal fences is that of the keys themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fence([u64; 3]);

impl Fence {
    /// Bytes of a key that a fence has at most.
    pub(crate) const BYTES: usize = 24;

    #[inline]
    pub(crate) fn new(key: &[u8]) -> Self {
        let part = |at: usize| key.get(at..).map_or(0, swar::big_endian_prefix);
        Self([part(0), part(8), part(16)])
    }

    /// The length of the common prefix of two fences, at most that which leaves eight bytes.
    #[inline]
    fn shared_bytes(self, other: Self) -> usize {
        let [first, second, _] = std::array::from_fn(|at| self.0[at] ^ other.0[at]);
        let shared_bits = if first != 0 {
            first.leading_zeros()
        } else {
            u64::BITS + second.leading_zeros()
        };
        shared_bits as usize / 8
    }

    /// The eight bytes behind `skip` others, which leave at least eight.
    #[inline]
    fn head_behind(self, skip: usize) -> u64 {
        let [first, second, third] = self.0;
        let (word, next) = [(first, second), (second, third), (third, 0)][skip / 8];
        // Shifted in two steps, since all 64 bits at once are too many.
        word << (8 * (skip % 8)) | next >> 1 >> (63 - 8 * (skip % 8))
    }

    /// A number that mostly differs for different fences.
    #[inline]
    pub(crate) fn mix(self) -> u64 {
        let [a, b, c] = self.0;
        (a ^ b.rotate_left(23) ^ c.rotate_left(46)).wrapping_mul(GOLDEN)
    }

    /// Subtracts fences as long numbers, and returns the borrow: without a branch, since the
    /// processor cannot predict the steps of a search.
    #[inline]
    fn is_below(self, other: Self) -> bool {
        let (Self([high, middle, low]), Self([other_high, other_middle, other_low])) =
            (self, other);
        let borrow = low < other_low;
        let borrow = middle.borrowing_sub(other_middle, borrow).1;
        high.borrowing_sub(other_high, borrow).1
    }
}

/// A key to look up, with its hash and fence, which are computed once for all layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LookupKey<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) hash: u32,
    pub(crate) fence: Fence,
}

impl<'a> LookupKey<'a> {
    #[inline]
    pub(crate) fn new(key: &'a [u8], hash: u32) -> Self {
        Self {
            key,
            hash,
            fence: Fence::new(key),
        }
    }

    /// The only chunk of a run that may hold this key: the last one that starts at or below it.
    #[inline]
    fn find(&self, blocks: &Blocks) -> Option<ChunkPosition> {
        let count = blocks.partition_point(|(fence, _)| fence.is_below(self.fence));
        // With equal fences, the keys are compared.
        let equal_count = blocks[count..].partition_point(|(fence, block)| {
            *fence == self.fence && block.chunks[0].first_key() <= self.key
        });
        let block = (count + equal_count).checked_sub(1)?;
        let count = blocks[block].1.count_up_to(self);
        let chunk = count.checked_sub(1)?;
        Some(ChunkPosition { block, chunk })
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ChunkBlock {
    chunks: Vec<Arc<Chunk>>,
    fences: Vec<Fence>,
    /// Length of the common prefix of the fences, and the next eight bytes of each. These lie close
    /// together, and a search among them leaves few fences to compare.
    skip: usize,
    heads: Vec<u64>,
}

impl ChunkBlock {
    /// Number of chunks that start at or below a key, which is not below the first of them.
    #[inline]
    fn count_up_to(&self, lookup: &LookupKey<'_>) -> usize {
        let len = self.chunks.len();
        let Some(first) = self.fences.first() else {
            return 0;
        };
        if lookup.fence.shared_bytes(*first) < self.skip {
            return len;
        }
        let head = lookup.fence.head_behind(self.skip);
        let (mut low, mut high) = (self.heads.partition_point(|other| *other < head), len);
        while low < high && self.heads[low] == head {
            let middle = usize::midpoint(low, high);
            // With equal heads the fences are compared, and with equal fences the keys.
            let order = self.heads[middle]
                .cmp(&head)
                .then(self.fences[middle].cmp(&lookup.fence));
            if order
                .then_with(|| self.chunks[middle].first_key().cmp(lookup.key))
                .is_le()
            {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn insert(&mut self, at: usize, chunk: Arc<Chunk>) {
        let fence = Fence::new(chunk.first_key());
        self.fences.insert(at, fence);
        self.chunks.insert(at, chunk);
        self.heads.insert(at, fence.head_behind(self.skip));
        self.update_skip();
    }

    fn remove(&mut self, at: usize) -> Arc<Chunk> {
        self.fences.remove(at);
        self.heads.remove(at);
        self.update_skip();
        self.chunks.remove(at)
    }

    fn split_off(&mut self, at: usize) -> Self {
        let (chunks, fences) = (self.chunks.split_off(at), self.fences.split_off(at));
        let mut behind = Self {
            chunks,
            fences,
            skip: self.skip,
            heads: self.heads.split_off(at),
        };
        self.update_skip();
        behind.update_skip();
        behind
    }

    /// Computes prefix and heads anew, if the first or the last fence has changed.
    fn update_skip(&mut self) {
        let (Some(first), Some(last)) = (self.fences.first(), self.fences.last()) else {
            return;
        };
        let skip = first.shared_bytes(*last);
        if skip != self.skip {
            self.skip = skip;
            self.heads.clear();
            self.heads
                .extend(self.fences.iter().map(|fence| fence.head_behind(skip)));
        }
    }

    /// Removes the last chunk, for freeing chunks one by one.
    pub(crate) fn pop(&mut self) -> Option<Arc<Chunk>> {
        self.chunks.pop()
    }
}

/// The list of a run's blocks, each with the fence of its first chunk.
pub(crate) type Blocks = Vec<(Fence, Arc<ChunkBlock>)>;

/// A place between two chunks of a run, or before the first, or behind the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct ChunkPosition {
    block: usize,
    chunk: usize,
}

impl ChunkPosition {
    /// The position as one number.
    #[inline]
    pub(crate) fn pack(self) -> u32 {
        u32::try_from(self.block * BLOCK_MAX_CHUNKS + self.chunk)
            .expect("a run has fewer chunks than a number can name")
    }

    #[inline]
    pub(crate) fn unpack(packed: u32) -> Self {
        let packed = packed as usize;
        Self {
            block: packed / BLOCK_MAX_CHUNKS,
            chunk: packed % BLOCK_MAX_CHUNKS,
        }
    }
}

/// A sorted run of chunks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    pub(crate) blocks: Arc<Blocks>,
    pub(crate) entry_count: usize,
    pub(crate) memory_bytes: usize,
    /// Bytes of large values.
    large_bytes: usize,
    /// Number of chunks with entries that expire.
    pub(crate) expiring_chunk_count: usize,
    /// A filter over all keys of the run, and maybe others. Runs made by merges have one, unless
    /// they are large.
    filter: Option<Arc<Filter>>,
}

impl Run {
    #[inline]
    pub(crate) fn get(&self, lookup: &LookupKey<'_>) -> Option<Entry<'_>> {
        self.get_in(self.find_chunk(lookup)?, lookup)
    }

    /// Sets the filter over all keys. The run must get no more keys.
    pub(crate) fn set_filter(&mut self, filter: Filter) {
        self.filter = Some(Arc::new(filter));
    }

    /// The entry of a key at a known position.
    #[inline]
    pub(crate) fn get_in(&self, at: ChunkPosition, lookup: &LookupKey<'_>) -> Option<Entry<'_>> {
        self.chunk(at)?.get(lookup.hash, lookup.key)
    }

    /// The position of the only chunk that may hold a key: the last one that starts at or below it.
    /// None, too, if the filter rules the key out.
    #[inline]
    pub(crate) fn find_chunk(&self, lookup: &LookupKey<'_>) -> Option<ChunkPosition> {
        let filter = self.filter.as_ref();
        if filter.is_some_and(|filter| !filter.may_have(lookup.hash)) {
            return None;
        }
        lookup.find(&self.blocks)
    }

    /// The position of the only chunk that may hold `key`, or else of the first chunk.
    pub(crate) fn seek(&self, key: &[u8]) -> ChunkPosition {
        LookupKey::new(key, 0)
            .find(&self.blocks)
            .unwrap_or_default()
    }

    /// The chunk behind a position.
    #[inline]
    pub(crate) fn chunk(&self, at: ChunkPosition) -> Option<&Arc<Chunk>> {
        self.blocks.get(at.block)?.1.chunks.get(at.chunk)
    }

    /// The position one chunk on.
    pub(crate) fn next(&self, at: ChunkPosition) -> ChunkPosition {
        self.normalize(ChunkPosition {
            block: at.block,
            chunk: at.chunk + 1,
        })
    }

    fn normalize(&self, at: ChunkPosition) -> ChunkPosition {
        match self.blocks.get(at.block) {
            Some((_, block)) if at.chunk >= block.chunks.len() => ChunkPosition {
                block: at.block + 1,
                chunk: 0,
            },
            _ => at,
        }
    }

    /// Removes the chunk behind a position, which then is that of the next chunk.
    pub(crate) fn remove(&mut self, at: ChunkPosition) -> (Arc<Chunk>, ChunkPosition) {
        let blocks = Arc::make_mut(&mut self.blocks);
        let (fence, block) = &mut blocks[at.block];
        let block = Arc::make_mut(block);
        let chunk = block.remove(at.chunk);
        match block.fences.first() {
            Some(first) => *fence = *first,
            None => drop(blocks.remove(at.block)),
        }
        self.entry_count -= chunk.entry_count();
        self.memory_bytes -= chunk.memory_bytes();
        self.large_bytes -= chunk.footprint().large_bytes;
        self.expiring_chunk_count -= usize::from(chunk.first_expiry_ms() != NO_EXPIRY);
        (chunk, self.normalize(at))
    }

    /// Inserts a chunk at a position, and returns the position behind it.
    pub(crate) fn insert(&mut self, at: ChunkPosition, chunk: Arc<Chunk>) -> ChunkPosition {
        self.entry_count += chunk.entry_count();
        self.memory_bytes += chunk.memory_bytes();
        self.large_bytes += chunk.footprint().large_bytes;
        self.expiring_chunk_count += usize::from(chunk.first_expiry_ms() != NO_EXPIRY);
        let blocks = Arc::make_mut(&mut self.blocks);
        let at = make_room(blocks, at);
        let (fence, block) = &mut blocks[at.block];
        let block = Arc::make_mut(block);
        block.insert(at.chunk, chunk);
        *fence = block.fences[0];
        self.next(at)
    }

    /// The memory that it takes.
    pub(crate) fn footprint(&self) -> Footprint {
        Footprint {
            bytes: self.memory_bytes - self.large_bytes,
            large_bytes: self.large_bytes,
        }
    }
}

/// Finds or makes a block with room for one more chunk at a position.
fn make_room(blocks: &mut Blocks, at: ChunkPosition) -> ChunkPosition {
    let is_full = |block: &ChunkBlock| block.chunks.len() >= BLOCK_MAX_CHUNKS;
    if at.chunk == 0 && at.block > 0 && !is_full(&blocks[at.block - 1].1) {
        let block = at.block - 1;
        let chunk = blocks[block].1.chunks.len();
        return ChunkPosition { block, chunk };
    }
    if at.block == blocks.len() {
        blocks.push((Fence::new(&[]), Arc::default()));
        return at;
    }
    let block = &mut blocks[at.block].1;
    if !is_full(block) {
        return at;
    }
    let upper = Arc::make_mut(block).split_off(BLOCK_MAX_CHUNKS / 2);
    blocks.insert(at.block + 1, (upper.fences[0], Arc::new(upper)));
    let block = at.block + 1;
    let moved = at.chunk.checked_sub(BLOCK_MAX_CHUNKS / 2);
    moved.map_or(at, |chunk| ChunkPosition { block, chunk })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsm::chunk::build::ChunkBuilder;
    use crate::lsm::hash::KeyHasher;
    use crate::lsm::log::record::Value;

    fn chunk(key: &[u8]) -> Arc<Chunk> {
        let mut builder = ChunkBuilder::new(&KeyHasher::new(0), 1);
        let entry = Entry {
            key,
            version: 1,
            expires_at_ms: None,
            value: Value::Inline(b""),
        };
        builder.add(&entry, KeyHasher::new(0).hash(key));
        Arc::new(builder.finish())
    }

    fn keys(run: &Run) -> Vec<Vec<u8>> {
        let mut at = ChunkPosition::default();
        let mut keys = Vec::new();
        while let Some(chunk) = run.chunk(at) {
            keys.push(chunk.first_key().to_vec());
            at = run.next(at);
        }
        keys
    }

    /// Random inserts and removals against a sorted `Vec`, with long common prefixes so that fences
    /// tie.
    #[test]
    fn behaves_as_a_sorted_list() {
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut run = Run::default();
            let mut model: Vec<Vec<u8>> = Vec::new();
            let long = "a prefix that is longer than a fence is ";
            let prefixes = [
                ["", ""],
                ["", long],
                [&long[..rng.usize(..26)]; 2],
                [&long[..7], &long[..15]],
            ][rng.usize(..4)];
            for _ in 0..2000 {
                let prefix = prefixes[rng.usize(..2)];
                let key = format!("{prefix}{:04}", rng.u32(..3000)).into_bytes();
                let held = if rng.u8(..50) == 0 {
                    Some((run.clone(), model.clone()))
                } else {
                    None
                };
                let mut at = run.seek(&key);
                while run
                    .chunk(at)
                    .is_some_and(|chunk| chunk.first_key() < &key[..])
                {
                    at = run.next(at);
                }
                match model.binary_search(&key) {
                    Ok(index) => {
                        assert!(
                            run.get(&LookupKey::new(&key, KeyHasher::new(0).hash(&key)))
                                .is_some(),
                            "seed {seed}"
                        );
                        let (removed, behind) = run.remove(at);
                        assert_eq!(removed.first_key(), key);
                        model.remove(index);
                        assert_eq!(
                            run.chunk(behind).map(|c| c.first_key().to_vec()),
                            model.get(index).cloned()
                        );
                    }
                    Err(index) => {
                        assert!(
                            run.get(&LookupKey::new(&key, KeyHasher::new(0).hash(&key)))
                                .is_none(),
                            "seed {seed}"
                        );
                        let behind = run.insert(at, chunk(&key));
                        model.insert(index, key);
                        assert_eq!(
                            run.chunk(behind).map(|c| c.first_key().to_vec()),
                            model.get(index + 1).cloned()
                        );
                    }
                }
                assert_eq!(run.entry_count, model.len());
                // One like those that are there, but for a byte anywhere.
                let mut other = model
                    .get(rng.usize(..=model.len()))
                    .cloned()
                    .unwrap_or_default();
                let changed = rng.usize(..=other.len());
                other
                    .get_mut(changed)
                    .into_iter()
                    .for_each(|byte| *byte = rng.u8(..));
                let cached = run
                    .chunk(run.seek(&other))
                    .map(|chunk| chunk.first_key().to_vec());
                let index = model.partition_point(|key| *key <= other).saturating_sub(1);
                assert_eq!(
                    cached,
                    model.get(index).cloned(),
                    "seed {seed}: looked for {other:?}"
                );
                if let Some((run, model)) = held {
                    assert_eq!(keys(&run), model, "a clone changed, seed {seed}");
                }
            }
            assert_eq!(keys(&run), model, "seed {seed}");
        }
    }
}
