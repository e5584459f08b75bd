//! Fetching into the processor's cache what reads of some keys will touch, for all of them at once.
//!
//! In a million entries a read waits for memory two or three times in each layer, one after the other, since each place is only
//! known from the one before. Of several keys that are known ahead the waits overlap instead: first the bucket of each is asked
//! for, and when it has come the entry that it points to.
//!
//! Invariant: nothing depends on it. What is asked for in vain costs time and nothing else.

use super::chunk::Chunk;
use super::immutable_layer::ImmutableLayer;
use super::run::{Probe, Run};
use super::{Lsm, levels::Levels};

/// Keys fetched for at once: the processor asks memory for about so many lines at a time.
pub const PREFETCH_KEYS_MAX: usize = 16;

/// A chunk that was found for each key, if any.
type Found<'a> = [Option<&'a Chunk>; PREFETCH_KEYS_MAX];

/// Less data than this stays in the processor's cache by itself: the second level of most has 512 KiB or more.
const WORTH_BYTES: usize = 512 * 1024;

impl Lsm {
    /// Whether there is so much in runs that fetching ahead is worth anything.
    pub fn is_prefetch_worth(&self) -> bool {
        self.levels.memory_bytes() > WORTH_BYTES
    }

    /// Fetches what reads of these keys will touch in runs; at most [`PREFETCH_KEYS_MAX`].
    pub fn prefetch(&self, keys: &[&[u8]]) {
        let hasher = self.levels.hasher();
        let mut probes = [Probe::new(&[], 0); PREFETCH_KEYS_MAX];
        for (probe, key) in probes.iter_mut().zip(keys) {
            *probe = Probe::new(key, hasher.hash(key));
        }
        self.levels.prefetch(&probes[..keys.len().min(PREFETCH_KEYS_MAX)]);
    }
}

impl Levels {
    fn prefetch(&self, probes: &[Probe<'_>]) {
        let mut before: Found<'_> = [None; PREFETCH_KEYS_MAX];
        let runs = self.contents().filter_map(|layer| match layer {
            ImmutableLayer::Run(run) => Some(run),
            ImmutableLayer::Memtable(_) => None,
        });
        for run in runs {
            let found = prefetch_buckets(run, probes);
            prefetch_entries(&before, probes);
            before = found;
        }
        prefetch_entries(&before, probes);
    }
}

fn prefetch_buckets<'r>(run: &'r Run, probes: &[Probe<'_>]) -> Found<'r> {
    let mut found: Found<'_> = [None; PREFETCH_KEYS_MAX];
    for (found, probe) in found.iter_mut().zip(probes) {
        *found = run.find_chunk(probe);
        if let Some(chunk) = found {
            chunk.prefetch_bucket(probe.hash);
        }
    }
    found
}

fn prefetch_entries(found: &Found<'_>, probes: &[Probe<'_>]) {
    for (chunk, probe) in found.iter().zip(probes) {
        if let Some(chunk) = chunk {
            chunk.prefetch_entry(probe.hash);
        }
    }
}
