//! Fetching into the processor's cache what reads of some keys will touch, for all of them at once.
//!
//! In a million entries a read waits for memory two or three times in each layer, one after the other, since each place is only
//! known from the one before. Of several keys that are known ahead the waits overlap instead: first the bucket of each is asked
//! for, and when it has come the entry that it points to. (The gain is in `cargo bench --bench engine -- "get hit"`.)
//!
//! Invariant: nothing depends on it. What is asked for in vain costs time and nothing else.

use super::Lsm;
use super::chunk::Chunk;
use super::immutable_layer::ImmutableLayer;
use super::memtable::Memtable;
use super::run::Probe;
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
    fn begin(layer: &'a ImmutableLayer, probe: &Probe<'_>) -> Self {
        match layer {
            ImmutableLayer::Memtable(frozen) => Self::begin_in(frozen.memtable(), None, probe),
            ImmutableLayer::Run(run) => match run.find_chunk(probe) {
                Some(chunk) => {
                    chunk.prefetch();
                    Self::Chunk(chunk)
                }
                None => Self::None,
            },
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

impl Lsm {
    /// Whether there is so much data that fetching ahead is worth anything.
    pub fn is_prefetch_worth(&self) -> bool {
        self.levels.memory_bytes() + self.memtable.log_bytes() > WORTH_BYTES
    }

    /// Fetches what reads of these keys will touch; at most [`PREFETCH_KEYS_MAX`].
    pub fn prefetch(&self, keys: &[&[u8]]) {
        let hasher = self.levels.hasher();
        let mut probes = [Probe::new(&[], 0); PREFETCH_KEYS_MAX];
        let count = keys.len().min(PREFETCH_KEYS_MAX);
        for (probe, key) in probes.iter_mut().zip(keys) {
            *probe = Probe::new(key, hasher.hash(key));
        }
        let probes = &probes[..count];
        // Of two layers one is begun with while what was asked for of the other comes.
        let mut before = [Step::None; PREFETCH_KEYS_MAX];
        for (step, probe) in before.iter_mut().zip(probes) {
            *step = Step::begin_in(&self.memtable, Some(self.wal.active()), probe);
        }
        for layer in self.levels.contents() {
            let mut steps = [Step::None; PREFETCH_KEYS_MAX];
            for (step, probe) in steps.iter_mut().zip(probes) {
                *step = Step::begin(layer, probe);
            }
            go_on(&mut before, probes);
            go_on(&mut steps, probes);
            before = steps;
        }
        go_on(&mut before, probes);
    }
}

fn go_on(steps: &mut [Step<'_>; PREFETCH_KEYS_MAX], probes: &[Probe<'_>]) {
    for (step, probe) in steps.iter_mut().zip(probes) {
        *step = step.go_on(probe);
    }
}
