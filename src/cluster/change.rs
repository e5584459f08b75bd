//! A change of a partition's configuration that etcd is asked for.

use super::config::PartitionConfig;

/// Why a change of the configuration is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// To lead.
    Stand,
    /// Copies join or leave the set.
    Set,
    /// Another node is to lead.
    HandOver,
}

/// A change that is asked for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) change: Change,
    /// The revision that the configuration must still have.
    pub(super) revision: u64,
    pub(super) proposal: PartitionConfig,
    /// Whether etcd may have the request.
    pub(super) is_sent: bool,
}
