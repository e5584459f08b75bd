//! Fetches the memory that the look-ups of some keys will touch into the processor's cache, for all
//! keys at once, and caches the positions that it finds.
//!
//! With a million entries a look-up waits for memory two or three times in each layer, one wait
//! after the other, because each address comes out of the line before. For keys that are known
//! ahead the waits overlap: all buckets are requested first, then all entries that they point to.
//! (`cargo bench --bench engine -- "get hit"` measures the gain.)
//!
//! The cache keeps the hash of each key, the layers that do not hold it, and the chunk of each run
//! that it belongs to. The look-up that follows does not repeat that work.
//!
//! Invariants:
//! 1. A useless fetch costs time, and has no other effect.
//! 2. A cached look-up is that of exactly this key. All are dropped when any layer or chunk moves.

use super::chunk::Chunk;
use super::immutable_layer::ImmutableLayer;
use super::log::wal::Segment;
use super::memtable::Memtable;
use super::run::{ChunkPosition, Fence, LookupKey};

/// Keys that are fetched at once: the processor has about so many requests to memory under way.
pub const PREFETCH_KEYS_MAX: usize = 16;

/// Layers looked up with overlapping memory accesses. An engine rarely has more.
const LAYERS_AT_ONCE: usize = 8;

/// Layers, counted from the newest, with cached positions of a key.
const CACHED_LAYERS: usize = LAYERS_AT_ONCE;

/// The cached position of a key in a layer without the key.
pub(super) const ABSENT: u32 = u32::MAX;

/// Cached look-ups: several times as many as are fetched at once, so that few share a slot.
const SLOTS: usize = 128;
const _: () = assert!(SLOTS <= 1 << u8::BITS);

/// A layer to fetch from.
#[derive(Clone, Copy)]
enum SourceLayer<'a> {
    Active(&'a Memtable, &'a Segment),
    Immutable(&'a ImmutableLayer),
}

/// The requests to one layer.
enum LayerFetch<'a> {
    Nothing,
    /// The slot of each key in the index, then the record that it points to.
    Memtable(&'a Memtable, Option<&'a Segment>),
    /// The chunk that each key belongs to, then its bucket, then its entry.
    Chunks([Option<&'a Chunk>; PREFETCH_KEYS_MAX]),
}

impl<'a> LayerFetch<'a> {
    /// Requests the first line of each key. `positions` receives where in the layer they belong.
    fn begin(
        layer: SourceLayer<'a>,
        lookups: &[LookupKey<'_>],
        positions: &mut [u32; PREFETCH_KEYS_MAX],
    ) -> Self {
        match layer {
            SourceLayer::Active(memtable, segment) => {
                Self::begin_in_memtable(memtable, Some(segment), lookups)
            }
            SourceLayer::Immutable(ImmutableLayer::Memtable(frozen)) => {
                Self::begin_in_memtable(&frozen.memtable, None, lookups)
            }
            SourceLayer::Immutable(ImmutableLayer::Run(run)) => {
                let mut chunks = [None; PREFETCH_KEYS_MAX];
                for ((chunk, lookup), known) in chunks.iter_mut().zip(lookups).zip(positions) {
                    let position = run.find_chunk(lookup);
                    *known = position.map_or(ABSENT, ChunkPosition::pack);
                    *chunk = position
                        .and_then(|position| run.chunk(position))
                        .map(|chunk| {
                            chunk.prefetch();
                            &**chunk
                        });
                }
                Self::Chunks(chunks)
            }
        }
    }

    fn begin_in_memtable(
        memtable: &'a Memtable,
        active: Option<&'a Segment>,
        lookups: &[LookupKey<'_>],
    ) -> Self {
        for lookup in lookups {
            memtable.prefetch_slot(lookup.hash);
        }
        Self::Memtable(memtable, active)
    }

    /// Requests the next line of each key, now that the first has arrived.
    fn advance(&self, lookups: &[LookupKey<'_>], positions: &mut [u32; PREFETCH_KEYS_MAX]) {
        match self {
            Self::Nothing => {}
            Self::Memtable(memtable, active) => {
                for (lookup, known) in lookups.iter().zip(positions) {
                    *known = if memtable.prefetch_record(*active, lookup.hash) {
                        0
                    } else {
                        ABSENT
                    };
                }
            }
            Self::Chunks(chunks) => {
                for (chunk, lookup) in chunks.iter().zip(lookups) {
                    if let Some(chunk) = chunk {
                        chunk.prefetch_bucket(lookup.hash);
                    }
                }
            }
        }
    }

    /// Requests the entries, now that the buckets have arrived.
    fn finish(&self, lookups: &[LookupKey<'_>]) {
        if let Self::Chunks(chunks) = self {
            for (chunk, lookup) in chunks.iter().zip(lookups) {
                if let Some(chunk) = chunk {
                    chunk.prefetch_entry(lookup.hash);
                }
            }
        }
    }
}

/// The look-up of one key.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CachedLookup {
    fence: Fence,
    /// 0: the slot is free.
    key_len: usize,
    pub(super) hash: u32,
    positions: [u32; CACHED_LAYERS],
    position_count: usize,
}

impl CachedLookup {
    /// The positions of the key in the newest layers, for
    /// [`Levels::get`](super::levels::Levels::get).
    #[inline]
    pub(super) fn positions(&self) -> &[u32] {
        &self.positions[..self.position_count]
    }
}

/// The look-ups of the keys that were fetched last.
#[derive(Debug, Default)]
pub(super) struct LookupCache {
    /// A key's slot follows from its fence. Empty until the first fetch.
    slots: Vec<CachedLookup>,
    /// The generation of the levels that the slots are of.
    generation: u64,
}

impl LookupCache {
    /// The look-up of a key, if the levels are still of its generation.
    #[inline]
    pub(super) fn get(&self, key: &[u8], generation: u64) -> Option<&CachedLookup> {
        if self.slots.is_empty() || self.generation != generation {
            return None;
        }
        let fence = Fence::new(key);
        // Only keys no longer than a fence are cached: fence and length identify them.
        self.slots
            .get(slot_of(fence))
            .filter(|cached| cached.key_len == key.len() && cached.fence == fence)
    }

    /// Fetches the memory that writes of some keys will touch, if no look-up precedes them.
    pub(super) fn fetch_for_writes<'k>(
        &mut self,
        lookups: impl Iterator<Item = LookupKey<'k>>,
        memtable: &Memtable,
        generation: u64,
    ) {
        self.enter_generation(generation);
        for lookup in lookups {
            memtable.prefetch_slot(lookup.hash);
            self.insert(&lookup, std::iter::empty());
        }
    }

    /// Fetches the memory that look-ups of some keys, at most [`PREFETCH_KEYS_MAX`], will touch.
    pub(super) fn fetch<'a>(
        &mut self,
        lookups: &[LookupKey<'_>],
        active: (&'a Memtable, &'a Segment),
        immutable: impl DoubleEndedIterator<Item = &'a ImmutableLayer> + ExactSizeIterator,
        generation: u64,
    ) {
        let mut positions = [[0; PREFETCH_KEYS_MAX]; CACHED_LAYERS];
        let mut uncached = [0; PREFETCH_KEYS_MAX];
        let immutable_count = immutable.len();
        // The bottom goes first: its memory is the slowest to arrive.
        let immutable = immutable.map(SourceLayer::Immutable).enumerate().rev();
        let active = SourceLayer::Active(active.0, active.1);
        let mut layers = immutable.chain(std::iter::once((CACHED_LAYERS, active)));
        loop {
            let mut fetches = [const { (CACHED_LAYERS, LayerFetch::Nothing) }; LAYERS_AT_ONCE];
            let mut fetch_count = 0;
            for (fetch, (index, layer)) in fetches.iter_mut().zip(&mut layers) {
                let known = positions.get_mut(index).unwrap_or(&mut uncached);
                *fetch = (index, LayerFetch::begin(layer, lookups, known));
                fetch_count += 1;
            }
            if fetch_count == 0 {
                break;
            }
            let fetches = &fetches[..fetch_count];
            for (index, fetch) in fetches {
                fetch.advance(lookups, positions.get_mut(*index).unwrap_or(&mut uncached));
            }
            for (_, fetch) in fetches {
                fetch.finish(lookups);
            }
        }
        let known = &positions[..immutable_count.min(CACHED_LAYERS)];
        self.enter_generation(generation);
        for (index, lookup) in lookups.iter().enumerate() {
            self.insert(lookup, known.iter().map(|positions| positions[index]));
        }
    }

    /// Drops look-ups of another generation.
    fn enter_generation(&mut self, generation: u64) {
        if self.generation != generation || self.slots.is_empty() {
            self.generation = generation;
            self.slots.clear();
            self.slots.resize(SLOTS, CachedLookup::default());
        }
    }

    fn insert(&mut self, lookup: &LookupKey<'_>, positions: impl ExactSizeIterator<Item = u32>) {
        if lookup.key.len() <= Fence::BYTES {
            let cached = &mut self.slots[slot_of(lookup.fence)];
            (cached.fence, cached.key_len, cached.hash) =
                (lookup.fence, lookup.key.len(), lookup.hash);
            cached.position_count = positions.len();
            for (known, position) in cached.positions.iter_mut().zip(positions) {
                *known = position;
            }
        }
    }
}

#[inline]
fn slot_of(fence: Fence) -> usize {
    usize::from(fence.mix().to_be_bytes()[0]) % SLOTS
}
