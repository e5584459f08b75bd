//! Why the node refuses a request or an assignment. The API layer makes answers of them.

use crate::partition::AssignError;
use crate::storage::RecoveryProgress;

/// Why a request finds no partition: refuse the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// It is not on this node.
    Unknown(u32),
    /// No controller has assigned one yet.
    Unassigned,
    /// None was named, and there are several to choose from.
    Unnamed,
    /// The node is reading its data.
    Loading(RecoveryProgress),
}

/// Why an assignment is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignRefusal {
    /// The node is reading its data.
    Loading(RecoveryProgress),
    /// The partition's role or epoch does not allow it.
    PartitionMeta(AssignError),
    /// There are [`PARTITIONS_MAX`](super::PARTITIONS_MAX) already.
    TooMany,
    /// Each has a file open, and the limit on descriptors allows no more than this.
    TooFewDescriptors {
        /// Partitions on disk, at most.
        partition_max: usize,
    },
    /// The disk has failed.
    Failed,
}
