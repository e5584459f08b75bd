//! What time it is in a partition.
//!
//! A replica goes by its leader's clock: what has expired there has expired here. A node that comes
//! to lead goes on from there, and comes to its own clock little by little: what has expired stays
//! so, and nothing expires because of the change.

use crate::slew::{LAST_UNIX_MS, SlewedClock};

/// The clock that times to live go by.
#[derive(Debug)]
pub(super) struct PartitionClock {
    /// This node's clock, in Unix ms; 0 before the first reading.
    pub(super) time_ms: u64,
    /// Never goes back, whatever is led or followed.
    slewed: SlewedClock,
}

impl PartitionClock {
    /// A clock that shows this time until the node's clock is read.
    pub(super) fn showing(time_ms: u64) -> Self {
        Self {
            time_ms: 0,
            slewed: SlewedClock::showing(time_ms),
        }
    }

    /// What times to live go by, in Unix ms.
    pub(super) fn now_ms(&self) -> u64 {
        self.slewed.now_ms()
    }

    /// Shows the time of the first leader that is heard: what this node has shown so far was not
    /// this leader's data.
    pub(super) fn show(&mut self, time_ms: u64) {
        self.slewed = SlewedClock::showing(time_ms.min(LAST_UNIX_MS));
    }

    /// This node's clock shows `time_ms`, and the leader's is ahead of it by `ahead_ms`, as far as
    /// is known.
    pub(super) fn advance(&mut self, time_ms: u64, ahead_ms: i64, is_replica: bool) {
        let reference_ms = time_ms.saturating_add_signed(ahead_ms);
        // Until then it shows what it did before the start.
        let is_first = self.time_ms == 0;
        let elapsed_ms = time_ms.saturating_sub(self.time_ms);
        self.slewed
            .advance(if is_first { 0 } else { elapsed_ms }, reference_ms);
        if is_first || is_replica {
            self.slewed.catch_up(reference_ms);
        }
        self.time_ms = time_ms;
    }
}
