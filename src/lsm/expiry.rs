//! The time, and when to sweep for expired entries.
//!
//! Reads skip an entry from the millisecond on at which it expires. [`KEEP_EXPIRED_MS`] later the
//! next merge of its chunk, or a sweep, frees its memory. A sweep freezes a memtable with expired
//! records, and rewrites chunks of which a good part has expired.
//!
//! Invariant: sweeps take a bounded part of the time, however many chunks there are: the more, the
//! rarer.
//!
//! Not here: a clock (the caller sets the time, in Unix ms), how chunks are rewritten
//! (`merge/job.rs`).

/// How long expired entries are kept. If the clock is set back, or a node with another clock
/// becomes the leader, nodes still agree on the content as long as their clocks differ by less.
const KEEP_EXPIRED_MS: u64 = 10_000;

/// Time between two sweeps.
const INTERVAL_MS: u64 = 5_000;

/// In addition, for each chunk with entries that expire: a hundred times as long as it takes to
/// look at all entries of a chunk.
const INTERVAL_PER_CHUNK_MS: u64 = 1;

/// The time and the sweeps.
#[derive(Debug, Default)]
pub(super) struct ExpirySweeps {
    pub(super) now_ms: u64,
    /// When the last sweep began.
    begun_at_ms: u64,
    /// Maintenance goes on until none is due, even if nothing is written: a sweep began, or a
    /// compaction was asked for.
    pub(super) is_urgent: bool,
}

impl ExpirySweeps {
    /// Entries that have expired by this time may be removed.
    pub(super) fn removed_until_ms(&self) -> u64 {
        self.now_ms.saturating_sub(KEEP_EXPIRED_MS)
    }

    /// When the next sweep is due, given the number of chunks with entries that expire and the
    /// first expiry in the memtable (all ones: none); none while nothing expires.
    pub(super) fn due_at_ms(&self, chunk_count: usize, memtable_expiry_ms: u64) -> Option<u64> {
        let interval_ms = INTERVAL_MS + INTERVAL_PER_CHUNK_MS * chunk_count as u64;
        // If the clock is set back, the interval counts from now.
        let next_ms = self.begun_at_ms.min(self.now_ms) + interval_ms;
        match (chunk_count, memtable_expiry_ms) {
            (0, u64::MAX) => None,
            (0, expiry_ms) => Some(next_ms.max(expiry_ms.saturating_add(KEEP_EXPIRED_MS))),
            _ => Some(next_ms),
        }
    }

    /// Begins a sweep.
    pub(super) fn begin(&mut self) {
        self.begun_at_ms = self.now_ms;
        self.is_urgent = true;
    }
}
