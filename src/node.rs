//! The node: the partitions of this process, and what it tells about itself.
//!
//! Invariants:
//! 1. Everything is owned here, by one thread; nothing is shared.
//! 2. The node has no clock: `now_ms` (milliseconds since it started) comes in.

use crate::config::Config;
use crate::lsm::Options;
use crate::partition::Partition;

/// The partition that a request means when it names none.
pub const DEFAULT_PARTITION: u32 = 0;

/// A turn longer than this shows in the tail of latencies.
pub const SLOW_TURN_US: u64 = 2_000;

/// What the reactor saw of itself; shown by `/status`.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoopStats {
    /// Connections open now.
    pub connection_count: usize,
    /// Connections accepted since the start.
    pub accepted_count: u64,
    /// Connections turned away because there were too many.
    pub refused_count: u64,
    /// Requests answered since the start.
    pub request_count: u64,
    /// Turns of the loop since the start.
    pub turn_count: u64,
    /// Processor time of the longest turn, in microseconds, its poll included. Where a hypervisor takes the processor away,
    /// that time counts too.
    pub longest_turn_us: u64,
    /// Turns that took more than [`SLOW_TURN_US`].
    pub slow_turn_count: u64,
    /// Processor time of the longest slice of maintenance, in microseconds.
    pub longest_slice_us: u64,
}

/// The node.
#[derive(Debug)]
pub struct Node {
    config: Config,
    partition: Partition,
    is_draining: bool,
    /// Figures of the loop that runs it.
    pub loop_stats: LoopStats,
}

impl Node {
    /// A node with one empty partition.
    pub fn new(config: Config, hash_seed: u64) -> Self {
        let options = Options { memtable_bytes: config.memtable_bytes, hash_seed };
        Self {
            config,
            partition: Partition::new(DEFAULT_PARTITION, options),
            is_draining: false,
            loop_stats: LoopStats::default(),
        }
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The partition with a number, if it is here.
    #[inline]
    pub fn partition(&mut self, id: u32) -> Option<&mut Partition> {
        (id == self.partition.id()).then_some(&mut self.partition)
    }

    /// All partitions.
    pub fn partitions(&self) -> impl Iterator<Item = &Partition> {
        std::iter::once(&self.partition)
    }

    /// Takes no new work from now on: not ready, and connections end after what is in flight.
    pub fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Whether it is on its way out.
    pub fn is_draining(&self) -> bool {
        self.is_draining
    }

    /// Maintenance owed for the writes so far, in units of work.
    pub fn owed_work(&self) -> usize {
        self.partition.lsm().owed_work()
    }

    /// Whether maintenance has nothing to do.
    pub fn is_idle(&self) -> bool {
        self.partition.lsm().is_idle()
    }

    /// Does maintenance, at most about `budget` units of work; returns the units spent.
    pub fn maintain(&mut self, budget: usize) -> usize {
        self.partition.lsm_mut().maintain(budget)
    }
}
