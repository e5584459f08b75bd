//! When etcd has answered a node.
//!
//! Not here: what a member concludes (`history.rs`).

use crate::partition::Partition;
use crate::seeded_bugs::SeededBug;

/// Etcd was away for a node that it has not answered for so long: longer than from one read to the
/// next.
const GAP_MS: u64 = 6_000;

/// A node reads etcd at the latest so long after etcd can be reached: the longest pause of the
/// client, with time for two requests.
pub(super) const SETTLE_MS: u64 = 4_000;

/// When etcd has answered this node.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_field_names, reason = "each is a time")]
pub(super) struct Contact {
    /// The last time.
    pub(super) answered_at_ms: u64,
    /// Since when it does, without a gap.
    pub(super) since_ms: u64,
    /// When it was last asked for all that it has.
    pub(super) ranged_at_ms: u64,
}

impl Contact {
    pub(super) fn on_answer(&mut self, now_ms: u64) {
        let gap_ms = now_ms.saturating_sub(self.answered_at_ms);
        if self.answered_at_ms == 0 || gap_ms > GAP_MS {
            self.since_ms = now_ms;
        }
        self.answered_at_ms = now_ms;
    }

    /// Whether a leader was heard since.
    pub(super) fn has_heard(&self, partition: &Partition) -> bool {
        partition.leader_heard_at_ms() >= Some(self.since_ms)
    }

    /// When the other nodes have read what this one does.
    pub(super) fn settled_at_ms(&self) -> u64 {
        if SeededBug::OthersNotAwaited.is_on() {
            return self.since_ms;
        }
        self.since_ms + SETTLE_MS
    }
}
