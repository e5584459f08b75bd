//! Fetching into the processor's cache what reads of some keys will touch, for all of them at once.
//!
//! In a million entries a read waits for memory two or three times in each layer, one after the other, since each place is only
//! known from the one before. Of several keys that are known ahead the waits overlap instead: first the bucket of each is asked
//! for, and when it has come the entry that it points to. (The gain is in `cargo bench --bench engine -- "get hit"`.)
//!
//! What was found on the way is remembered: the hash of each key, which layers have not got it, and which chunk of each run it belongs
//! to. The read that comes soon after need not do that again.
//!
//! Invariants:
//! 1. What is asked for in vain costs time and nothing else.
//! 2. What is remembered is that of exactly this key, and forgotten as soon as anything has moved.

use super::Lsm;
use crate::lsm::chunk::Chunk;
use crate::lsm::immutable_layer::ImmutableLayer;
use crate::lsm::log::wal::Segment;
use crate::lsm::memtable::Memtable;
use crate::lsm::run::{Fence, LookupKey, Position};

/// Keys fetched for at once: the processor asks memory for about so many lines at a time.
pub const PREFETCH_KEYS_MAX: usize = 16;

/// Less data than this stays in the processor's cache by itself: the second level of most has 512 KiB or more.
const WORTH_BYTES: usize = 512 * 1024;

/// Layers that are asked at the same time; there are rarely more.
const LAYERS_AT_ONCE: usize = 8;

/// Where keys may be.
#[derive(Clone, Copy)]
enum Layer<'a> {
    Active(&'a Memtable, &'a Segment),
    Immutable(&'a ImmutableLayer),
}

/// What was asked for of one layer.
enum Asked<'a> {
    Nothing,
    /// Where a search for each key begins in its index.
    Memtable(&'a Memtable, Option<&'a Segment>),
    /// The chunks that keys belong to, then their buckets.
    Chunks([Option<&'a Chunk>; PREFETCH_KEYS_MAX]),
}

impl<'a> Asked<'a> {
    /// Begins to look for keys in a layer; `places`: where they belong.
    fn begin(
        layer: Layer<'a>,
        lookups: &[LookupKey<'_>],
        places: &mut [u32; PREFETCH_KEYS_MAX],
    ) -> Self {
        match layer {
            Layer::Active(memtable, segment) => Self::begin_in(memtable, Some(segment), lookups),
            Layer::Immutable(ImmutableLayer::Memtable(frozen)) => {
                Self::begin_in(frozen.memtable(), None, lookups)
            }
            Layer::Immutable(ImmutableLayer::Run(run)) => {
                let mut chunks = [None; PREFETCH_KEYS_MAX];
                for ((chunk, lookup), place) in chunks.iter_mut().zip(lookups).zip(places) {
                    let position = run.find_chunk(lookup);
                    *place = position.map_or(NOWHERE, Position::pack);
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

    fn begin_in(
        memtable: &'a Memtable,
        active: Option<&'a Segment>,
        lookups: &[LookupKey<'_>],
    ) -> Self {
        for lookup in lookups {
            memtable.prefetch_slot(lookup.hash);
        }
        Self::Memtable(memtable, active)
    }

    /// Goes on with what has come meanwhile.
    fn go_on(&self, lookups: &[LookupKey<'_>], places: &mut [u32; PREFETCH_KEYS_MAX]) {
        match self {
            Self::Nothing => {}
            Self::Memtable(memtable, active) => {
                for (lookup, place) in lookups.iter().zip(places) {
                    *place = if memtable.prefetch_record(*active, lookup.hash) {
                        0
                    } else {
                        NOWHERE
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

    /// Ends with asking for the entries.
    fn end(&self, lookups: &[LookupKey<'_>]) {
        if let Self::Chunks(chunks) = self {
            for (chunk, lookup) in chunks.iter().zip(lookups) {
                if let Some(chunk) = chunk {
                    chunk.prefetch_entry(lookup.hash);
                }
            }
        }
    }
}

/// Layers of which is remembered where in them a key belongs.
const PLACES_MAX: usize = LAYERS_AT_ONCE;

/// The place of a key that a layer has not.
pub(super) const NOWHERE: u32 = u32::MAX;

/// Keys that are remembered at most: some times as many as are fetched for at once, so that few take each other's slot.
const SLOTS: usize = 128;
const _: () = assert!(SLOTS <= 1 << u8::BITS);

/// What is known of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct CachedLookup {
    fence: Fence,
    /// 0: the slot is free.
    key_len: usize,
    hash: u32,
    places: [u32; PLACES_MAX],
    place_count: usize,
}

impl CachedLookup {
    #[inline]
    pub(super) fn hash(&self) -> u32 {
        self.hash
    }

    /// Where in the first layers the key belongs; see [`Levels::get`](crate::lsm::levels::Levels::get).
    #[inline]
    pub(super) fn places(&self) -> &[u32] {
        &self.places[..self.place_count]
    }
}

/// What is known of the keys that were fetched for last.
#[derive(Debug, Default)]
pub(super) struct LookupCache {
    /// In the slot that the key's fence says; no slots until something is fetched.
    slots: Vec<CachedLookup>,
    /// That of the levels then.
    generation: u64,
}

impl LookupCache {
    /// What is known of a key.
    #[inline]
    pub(super) fn of(&self, key: &[u8], generation: u64) -> Option<&CachedLookup> {
        if self.slots.is_empty() || self.generation != generation {
            return None;
        }
        let fence = Fence::new(key);
        // A key that is not longer than a fence is told by that and its length.
        self.slots
            .get(slot_of(fence))
            .filter(|cached| cached.key_len == key.len() && cached.fence == fence)
    }

    /// Forgets what is not of this generation.
    fn begin(&mut self, generation: u64) {
        if self.generation != generation || self.slots.is_empty() {
            self.generation = generation;
            self.slots.clear();
            let free = CachedLookup {
                fence: Fence::new(&[]),
                key_len: 0,
                hash: 0,
                places: [0; PLACES_MAX],
                place_count: 0,
            };
            self.slots.resize(SLOTS, free);
        }
    }

    fn remember(&mut self, lookup: &LookupKey<'_>, places: impl ExactSizeIterator<Item = u32>) {
        if lookup.key.len() <= Fence::BYTES {
            let cached = &mut self.slots[slot_of(lookup.fence)];
            (cached.fence, cached.key_len, cached.hash) =
                (lookup.fence, lookup.key.len(), lookup.hash);
            cached.place_count = places.len();
            cached
                .places
                .iter_mut()
                .zip(places)
                .for_each(|(known, place)| *known = place);
        }
    }
}

#[inline]
fn slot_of(fence: Fence) -> usize {
    usize::from(fence.mix().to_be_bytes()[0]) % SLOTS
}

impl Lsm {
    /// Whether there is so much data that fetching ahead is worth anything.
    pub fn is_prefetch_worth(&self) -> bool {
        self.levels.memory_bytes() + self.memtable.log_bytes() > WORTH_BYTES
    }

    /// Fetches what writes of these keys will touch, if nothing is looked up before; at most [`PREFETCH_KEYS_MAX`].
    pub fn prefetch_for_writes(&mut self, keys: &[&[u8]]) {
        self.places.begin(self.levels.generation());
        for key in keys.iter().take(PREFETCH_KEYS_MAX) {
            let lookup = LookupKey::new(key, self.levels.hasher().hash(key));
            self.memtable.prefetch_slot(lookup.hash);
            self.places.remember(&lookup, std::iter::empty());
        }
    }

    /// Fetches what reads of these keys will touch; at most [`PREFETCH_KEYS_MAX`].
    pub fn prefetch(&mut self, keys: &[&[u8]]) {
        let hasher = self.levels.hasher();
        let mut lookups = [LookupKey::new(&[], 0); PREFETCH_KEYS_MAX];
        let count = keys.len().min(PREFETCH_KEYS_MAX);
        for (lookup, key) in lookups.iter_mut().zip(keys) {
            *lookup = LookupKey::new(key, hasher.hash(key));
        }
        let lookups = &lookups[..count];
        let mut places = [[0; PREFETCH_KEYS_MAX]; PLACES_MAX];
        let mut no_places = [0; PREFETCH_KEYS_MAX];
        // What is asked for of some layers comes while others are asked. The bottom, whose memory is farthest away, goes first.
        let immutable_count = self.levels.contents().len();
        let immutable = self
            .levels
            .contents()
            .map(Layer::Immutable)
            .enumerate()
            .rev();
        let active = Layer::Active(&self.memtable, self.wal.active());
        let mut layers = immutable.chain(std::iter::once((PLACES_MAX, active)));
        loop {
            let mut asked = [const { (PLACES_MAX, Asked::Nothing) }; LAYERS_AT_ONCE];
            let mut asked_count = 0;
            for (asked, (index, layer)) in asked.iter_mut().zip(&mut layers) {
                *asked = (
                    index,
                    Asked::begin(
                        layer,
                        lookups,
                        places.get_mut(index).unwrap_or(&mut no_places),
                    ),
                );
                asked_count += 1;
            }
            if asked_count == 0 {
                break;
            }
            for (index, asked) in &asked[..asked_count] {
                asked.go_on(lookups, places.get_mut(*index).unwrap_or(&mut no_places));
            }
            asked[..asked_count]
                .iter()
                .for_each(|(_, asked)| asked.end(lookups));
        }
        let known = &places[..immutable_count.min(PLACES_MAX)];
        self.places.begin(self.levels.generation());
        for (index, lookup) in lookups.iter().enumerate() {
            self.places
                .remember(lookup, known.iter().map(|places| places[index]));
        }
    }
}
