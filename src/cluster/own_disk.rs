//! What a leader observes of its own disk: whether it can still acknowledge writes.
//!
//! A leader that cannot is to hand over: while it holds its lease no other node may stand in for
//! it. A disk that has failed cannot at once; one that lacks room, or does not confirm what it was
//! given, once that has lasted for a lease.
//!
//! Not here: what becomes of it (`leading.rs`).

use crate::partition::Partition;

/// Why a leader cannot acknowledge writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskTrouble {
    /// The disk has failed, and takes nothing any more.
    Failed,
    /// Room or descriptors have been short for a lease.
    Stalled,
    /// A write was not confirmed for a lease.
    Slow,
}

impl DiskTrouble {
    /// The trouble as the end of a sentence that begins with the disk.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Failed => "has failed",
            Self::Stalled => "has had no room, or no descriptors were left, for a lease",
            Self::Slow => "has not confirmed a write for a lease",
        }
    }
}

/// The leader's own disk, as it has been observed in this office.
#[derive(Debug, Default)]
pub(super) struct OwnDisk {
    /// A version that it has not confirmed, and since when it was to.
    unconfirmed: Option<(u64, u64)>,
    stalled_since_ms: Option<u64>,
    /// Why no write is acknowledged, and since when that is known.
    trouble: Option<(DiskTrouble, u64)>,
}

impl OwnDisk {
    /// Looks at the disk. `is_late`: this node has stood still, and holds nothing before now
    /// against its disk.
    pub(super) fn look(&mut self, now_ms: u64, is_late: bool, lease_ms: u64, of: &Partition) {
        if is_late {
            (self.unconfirmed, self.stalled_since_ms) = (None, None);
        }
        let (last_version, held_version) = (of.lsm().last_version(), of.held_version());
        let waiting = self
            .unconfirmed
            .filter(|(version, _)| held_version < *version);
        let is_behind = held_version < last_version;
        self.unconfirmed = waiting.or(is_behind.then_some((last_version, now_ms)));
        let is_stalled = of.write_obstacle().is_some();
        let stalled_since_ms = self.stalled_since_ms.unwrap_or(now_ms);
        self.stalled_since_ms = is_stalled.then_some(stalled_since_ms);

        let is_over = |since_ms: u64| now_ms.saturating_sub(since_ms) >= lease_ms;
        let trouble = if of.disk_failure().is_some() {
            Some(DiskTrouble::Failed)
        } else if self.stalled_since_ms.is_some_and(is_over) {
            Some(DiskTrouble::Stalled)
        } else if self.unconfirmed.is_some_and(|(_, at_ms)| is_over(at_ms)) {
            Some(DiskTrouble::Slow)
        } else {
            None
        };
        let since_ms = self.trouble.map_or(now_ms, |(_, since_ms)| since_ms);
        self.trouble = trouble.map(|trouble| (trouble, since_ms));
    }

    /// Why this node cannot acknowledge writes, and since when that is known.
    pub(super) fn trouble(&self) -> Option<(DiskTrouble, u64)> {
        self.trouble
    }
}
