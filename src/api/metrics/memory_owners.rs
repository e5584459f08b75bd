//! Memory by owner, for `/metrics` and `/status`.
//!
//! Log is what only replicas need. Large values count once for each layer that they are in.

use serde::Serialize;

use crate::lsm::{Footprint, Stats};
use crate::metrics::NodeStats;

/// Memory by owner, in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MemoryByOwner {
    memtables: usize,
    runs: usize,
    large_values: usize,
    log: usize,
    snapshots: usize,
    connections: usize,
}

impl MemoryByOwner {
    /// The memory of connections; that of partitions is added.
    pub(crate) fn of_connections(stats: &NodeStats) -> Self {
        Self {
            memtables: 0,
            runs: 0,
            large_values: 0,
            log: 0,
            snapshots: 0,
            connections: stats.connection_bytes + stats.connection_table_bytes,
        }
    }

    /// Adds the memory of a partition.
    pub(crate) fn add(&mut self, engine: &Stats, pinned: Footprint) {
        self.memtables += engine.memtables.bytes;
        self.runs += engine.runs.bytes;
        self.large_values += engine.memtables.large_bytes + engine.runs.large_bytes;
        self.log += engine.retained_log_bytes;
        self.snapshots += pinned.bytes;
    }

    /// The owners by name.
    pub(crate) fn by_name(&self) -> [(&'static str, usize); 6] {
        [
            ("memtables", self.memtables),
            ("runs", self.runs),
            ("large_values", self.large_values),
            ("log", self.log),
            ("snapshots", self.snapshots),
            ("connections", self.connections),
        ]
    }
}
