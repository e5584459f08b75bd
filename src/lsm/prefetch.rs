//! Fetching into the processor's cache what reads of some keys will touch, for all of them at once.
//!
//! In a million entries a read waits for memory two or three times in each layer, one after the other, since each place is only
//! known from the one before. Of several keys that are known ahead the waits overlap instead: first the bucket of each is asked
//! for, and when it has come the entry that it points to. (The gain is in `cargo bench --bench engine -- "get hit"`.)
//!
//! What was computed on the way is remembered: the hash of each key, and which chunk of each run it belongs to. The read that
//! comes soon after need not do that again.
//!
//! Invariants:
//! 1. What is asked for in vain costs time and nothing else.
//! 2. What is remembered is that of exactly this key, and forgotten as soon as anything has moved.

use super::Lsm;
use super::chunk::Chunk;
use super::immutable_layer::ImmutableLayer;
use super::memtable::Memtable;
use super::run::{Fence, Position, Probe};
use super::wal::Segment;

/// Keys fetched for at once: the processor asks memory for about so many lines at a time.
pub const PREFETCH_KEYS_MAX: usize = 16;

/// Less data than this stays in the processor's cache by itself: the second level of most has 512 KiB or more.
const WORTH_BYTES: usize = 512 * 1024;

/// The first steps of looking for a key in one layer.
#[derive(Clone, Copy)]
enum Step<'a> {
    None,
    /// The slot of the index is asked for.
    Memtable(&'a Memtable, Option<&'a Segment>),
    /// The chunk is asked for.
    Chunk(&'a Chunk),
    /// Its bucket is.
    Bucket(&'a Chunk),
}

impl<'a> Step<'a> {
    /// Begins to look for a key in a layer.
    #[inline]
    fn begin(layer: &'a ImmutableLayer, probe: &Probe<'_>, place: &mut u32) -> Self {
        match layer {
            ImmutableLayer::Memtable(frozen) => Self::begin_in(frozen.memtable(), None, probe),
            ImmutableLayer::Run(run) => {
                let position = run.find_chunk(probe);
                *place = Position::pack(position);
                match position.and_then(|position| run.chunk(position)) {
                    Some(chunk) => {
                        chunk.prefetch();
                        Self::Chunk(chunk)
                    }
                    None => Self::None,
                }
            }
        }
    }

    #[inline]
    fn begin_in(memtable: &'a Memtable, active: Option<&'a Segment>, probe: &Probe<'_>) -> Self {
        memtable.prefetch_slot(probe.hash);
        Self::Memtable(memtable, active)
    }

    /// Goes on with what was asked for and has come meanwhile.
    #[inline]
    fn go_on(self, probe: &Probe<'_>) -> Self {
        match self {
            Self::None => Self::None,
            Self::Memtable(memtable, active) => {
                memtable.prefetch_record(active, probe.hash);
                Self::None
            }
            Self::Chunk(chunk) => {
                chunk.prefetch_bucket(probe.hash);
                Self::Bucket(chunk)
            }
            Self::Bucket(chunk) => {
                chunk.prefetch_entry(probe.hash);
                Self::None
            }
        }
    }
}

/// Layers of which is remembered where in them a key belongs; there are rarely more.
const PLACES_MAX: usize = 8;

/// Keys that are remembered at most: some times as many as are fetched for at once, so that few take each other's slot.
const SLOTS: usize = 128;
const _: () = assert!(SLOTS <= 1 << u8::BITS);

/// What is known of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sought {
    fence: Fence,
    /// 0: the slot is free.
    key_len: usize,
    hash: u32,
    places: [u32; PLACES_MAX],
    place_count: usize,
}

impl Sought {
    #[inline]
    pub(super) fn hash(&self) -> u32 {
        self.hash
    }

    /// Where in the first layers the key belongs; see [`Levels::get`](super::levels::Levels::get).
    #[inline]
    pub(super) fn places(&self) -> &[u32] {
        &self.places[..self.place_count]
    }
}

/// What is known of the keys that were fetched for last.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// In the slot that the key's fence says; no slots until something is fetched.
    slots: Vec<Sought>,
    /// That of the levels then.
    generation: u64,
}

impl Places {
    /// What is known of a key.
    #[inline]
    pub(super) fn of(&self, key: &[u8], generation: u64) -> Option<&Sought> {
        if self.slots.is_empty() || self.generation != generation {
            return None;
        }
        let fence = Fence::new(key);
        // A key that is not longer than a fence is told by that and its length.
        self.slots.get(slot_of(fence)).filter(|sought| sought.key_len == key.len() && sought.fence == fence)
    }

    /// Forgets what is not of this generation.
    fn begin(&mut self, generation: u64) {
        if self.generation != generation || self.slots.is_empty() {
            self.generation = generation;
            self.slots.clear();
            let free = Sought { fence: Fence::new(&[]), key_len: 0, hash: 0, places: [0; PLACES_MAX], place_count: 0 };
            self.slots.resize(SLOTS, free);
        }
    }

    fn remember(&mut self, probe: &Probe<'_>, places: [u32; PLACES_MAX], place_count: usize) {
        if probe.key.len() <= Fence::BYTES {
            self.slots[slot_of(probe.fence)] =
                Sought { fence: probe.fence, key_len: probe.key.len(), hash: probe.hash, places, place_count };
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

    /// Fetches what reads of these keys will touch; at most [`PREFETCH_KEYS_MAX`].
    pub fn prefetch(&mut self, keys: &[&[u8]]) {
        let hasher = self.levels.hasher();
        let mut probes = [Probe::new(&[], 0); PREFETCH_KEYS_MAX];
        let count = keys.len().min(PREFETCH_KEYS_MAX);
        for (probe, key) in probes.iter_mut().zip(keys) {
            *probe = Probe::new(key, hasher.hash(key));
        }
        let probes = &probes[..count];
        let mut places = [[0; PLACES_MAX]; PREFETCH_KEYS_MAX];
        // Of two layers one is begun with while what was asked for of the other comes. The bottom, whose memory is farthest away,
        // goes first.
        let mut before = [Step::None; PREFETCH_KEYS_MAX];
        let layers = self.levels.contents();
        let layer_count = layers.len();
        for (index, layer) in layers.enumerate().rev() {
            let mut steps = [Step::None; PREFETCH_KEYS_MAX];
            for ((step, probe), places) in steps.iter_mut().zip(probes).zip(&mut places) {
                let mut place = 0;
                *step = Step::begin(layer, probe, places.get_mut(index).unwrap_or(&mut place));
            }
            go_on(&mut before, probes);
            go_on(&mut steps, probes);
            before = steps;
        }
        let mut steps = [Step::None; PREFETCH_KEYS_MAX];
        for (step, probe) in steps.iter_mut().zip(probes) {
            *step = Step::begin_in(&self.memtable, Some(self.wal.active()), probe);
        }
        go_on(&mut before, probes);
        go_on(&mut steps, probes);
        self.places.begin(self.levels.generation());
        for (probe, places) in probes.iter().zip(places) {
            self.places.remember(probe, places, layer_count.min(PLACES_MAX));
        }
    }
}

fn go_on(steps: &mut [Step<'_>; PREFETCH_KEYS_MAX], probes: &[Probe<'_>]) {
    for (step, probe) in steps.iter_mut().zip(probes) {
        *step = step.go_on(probe);
    }
}
