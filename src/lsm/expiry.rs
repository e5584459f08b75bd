//! What time it is, and when to look for what has expired.
//!
//! An entry whose time is over is not read any more from that millisecond on. [`KEEP_EXPIRED_MS`]
//! later its memory comes back when a merge passes by, or a sweep does. A sweep freezes a memtable
//! with such records, and rewrites the chunks that they are a good part of.
//!
//! Invariant: looking costs a bounded part of the time, however many chunks there are: they are
//! looked at ever more rarely.
//!
//! Not here: a clock (the time is told, in Unix ms), how chunks are rewritten (`merge/job.rs`).

/// What has expired is kept for so long: should the clock be set back, or another node with another
/// clock lead, nodes still agree on what there is, as long as clocks are not further apart.
const KEEP_EXPIRED_MS: u64 = 10_000;

/// Time between two sweeps …
const INTERVAL_MS: u64 = 5_000;

/// … and so much more for each chunk with entries that expire: a hundred times what looking at
/// all entries of one takes.
const INTERVAL_PER_CHUNK_MS: u64 = 1;

/// The time and the sweeps.
#[derive(Debug, Default)]
pub(super) struct ExpirySweeps {
    pub(super) now_ms: u64,
    /// When the last one began.
    begun_at_ms: u64,
    /// Maintenance is to go on whatever is written, until none is due: a sweep began, or merging
    /// was asked for.
    is_urgent: bool,
}

impl ExpirySweeps {
    /// What has expired by then can go.
    pub(super) fn removed_until_ms(&self) -> u64 {
        self.now_ms.saturating_sub(KEEP_EXPIRED_MS)
    }

    /// When the next one is due, given the number of chunks with entries that expire and the first
    /// expiry in the memtable (all ones: none); none while nothing expires.
    pub(super) fn due_at_ms(&self, chunk_count: usize, memtable_expiry_ms: u64) -> Option<u64> {
        let interval_ms = INTERVAL_MS + INTERVAL_PER_CHUNK_MS * chunk_count as u64;
        // Should the clock be set back, the interval counts from now.
        let next_ms = self.begun_at_ms.min(self.now_ms) + interval_ms;
        match (chunk_count, memtable_expiry_ms) {
            (0, u64::MAX) => None,
            (0, expiry_ms) => Some(next_ms.max(expiry_ms.saturating_add(KEEP_EXPIRED_MS))),
            _ => Some(next_ms),
        }
    }

    /// One begins.
    pub(super) fn begin(&mut self) {
        self.begun_at_ms = self.now_ms;
        self.is_urgent = true;
    }

    /// Maintenance is not to wait.
    pub(super) fn hurry(&mut self) {
        self.is_urgent = true;
    }

    /// Whether maintenance is to go on whatever is written.
    pub(super) fn is_urgent(&self) -> bool {
        self.is_urgent
    }

    /// There is no maintenance to do.
    pub(super) fn on_idle(&mut self) {
        self.is_urgent = false;
    }
}
