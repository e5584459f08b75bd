//! Why the node refuses a request or an assignment, and the limit behind it. The API layer makes
//! answers of them.

use crate::partition::AssignError;
use crate::storage::RecoveryProgress;

/// The partition that a request means when it names none, if it is here.
pub const DEFAULT_PARTITION: u32 = 0;

/// Partitions of one node: each costs every turn a look.
pub const PARTITIONS_MAX: usize = 1024;

/// Why a request finds no partition: refuse the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// It is not on this node.
    Unknown(u32),
    /// No controller has assigned one yet.
    Unassigned,
    /// The node is one of a cluster, and has no copy of it. None: none was named, and there are
    /// several, or it is not known how many there are.
    NoCopy(Option<u32>),
    /// None was named, and there are several to choose from.
    Unnamed,
    /// The keys of the cluster are spread over so many, and one has to be named.
    UnnamedOf(u32),
    /// The key belongs to this one, and the request names another.
    Wrong(u32),
    /// It is not known yet over how many partitions the keys of the cluster are spread.
    Unread,
    /// The node is reading its data.
    Loading(RecoveryProgress),
}

/// What a request is about: its partition follows from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'k> {
    /// A key. In a cluster it decides the partition, whatever the request names.
    Key(&'k [u8]),
    /// A partition as a whole. In a cluster of several it has to be named.
    Partition,
    /// The node: the named partition, or number 0, or the only one that is here.
    Node,
}

/// Why an assignment is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignRefusal {
    /// The node is reading its data.
    Loading(RecoveryProgress),
    /// The partition's role or epoch does not allow it.
    PartitionMeta(AssignError),
    /// There are [`PARTITIONS_MAX`] already.
    TooMany,
    /// Each has a file open, and the limit on descriptors allows no more than this.
    TooFewDescriptors {
        /// Partitions on disk, at most.
        partition_max: usize,
    },
    /// The disk has failed.
    Failed,
}

impl From<AssignError> for AssignRefusal {
    fn from(error: AssignError) -> Self {
        Self::PartitionMeta(error)
    }
}
