//! Statistics of the event loop. The reactor counts, `/status` and `/metrics` show.

use crate::metrics::EtcdStats;

/// A turn longer than this shows in the tail of latencies.
pub const SLOW_TURN_US: u64 = 2_000;

/// Counts that the reactor keeps of itself; `/status` shows them.
#[derive(Clone, Debug, Default)]
pub struct LoopStats {
    /// Connections open now.
    pub connection_count: usize,
    /// Watchers there are now.
    pub watcher_count: usize,
    /// Connections accepted since the start.
    pub accepted_count: u64,
    /// Connections turned away because there were too many.
    pub refused_count: u64,
    /// Connections closed between two requests to make room for others.
    pub evicted_count: u64,
    /// Connections that may be open, by `--max-connections` and the limit on descriptors.
    pub connection_max: usize,
    /// Replication connections open now, in both directions.
    pub link_count: usize,
    /// Of these, connections that have not said hello.
    pub stranger_count: usize,
    /// Connections to the replication port that ended without becoming that of a replica.
    pub refused_link_count: u64,
    /// The limit on descriptors in force.
    pub descriptor_limit: usize,
    /// Requests answered since the start.
    pub request_count: u64,
    /// Turns of the loop since the start.
    pub turn_count: u64,
    /// Processor time of the longest turn, in microseconds, its poll included. Where a hypervisor
    /// takes the processor away, that time counts too.
    pub longest_turn_us: u64,
    /// Turns that took more than [`SLOW_TURN_US`].
    pub slow_turn_count: u64,
    /// Processor time of the longest slice of maintenance, in microseconds.
    pub longest_slice_us: u64,
    /// Etcd, once it was asked.
    pub etcd: Option<Box<EtcdStats>>,
}
