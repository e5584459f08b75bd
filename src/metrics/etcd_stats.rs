//! What is counted about etcd, by a node of a cluster.

use super::histogram::Histogram;

/// Kinds of failures of requests to etcd, in the order of their counts.
pub const ETCD_FAILURE_KINDS: [&str; 4] = ["lost", "timeout", "error", "malformed"];

/// How etcd answers.
#[derive(Clone, Debug, Default)]
pub struct EtcdStats {
    /// Now: the last request was answered.
    pub is_up: bool,
    /// Now: the member that is asked, such as `10.0.0.5:2379`.
    pub endpoint: String,
    /// The last failure, with the member that it was of; empty: there was none, or it is over.
    pub last_error: String,
    /// Durations of requests that were answered.
    pub durations: Histogram,
    /// Requests that were not, by [`ETCD_FAILURE_KINDS`].
    pub failure_counts: [u64; ETCD_FAILURE_KINDS.len()],
}
