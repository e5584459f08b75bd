//! Figures about a partition that no part of it has alone.

use crate::lsm::{Footprint, Lsm};

use super::Partition;

/// Figures about snapshots of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotStats {
    /// Not yet released.
    pub live_count: usize,
    /// Begun for replicas.
    pub sent_count: u64,
    /// Received whole from leaders.
    pub received_count: u64,
}

impl Partition {
    /// Bytes that snapshots alone keep alive, of data that was replaced too; of large values at
    /// most.
    pub fn pinned(&self) -> Footprint {
        let retired = self.retired.iter().map(Lsm::pinned);
        retired.fold(self.lsm.pinned(), |all, pinned| Footprint {
            bytes: all.bytes + pinned.bytes,
            large_bytes: all.large_bytes + pinned.large_bytes,
        })
    }

    /// Snapshots of its data, of what was replaced too, and those sent to replicas and received.
    pub fn snapshot_stats(&self) -> SnapshotStats {
        let live_count =
            self.lsm.snapshot_count() + self.retired.iter().map(Lsm::snapshot_count).sum::<usize>();
        SnapshotStats {
            live_count,
            ..self.snapshot_stats
        }
    }
}
