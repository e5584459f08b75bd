//! The body of `/status`: the configuration in force and what the node is made of at this moment.

use serde::Serialize;

use crate::lsm::LevelStats;
use crate::node::{LoopStats, Node};
use crate::partition::Partition;

/// All of it. Field names carry their unit; see the README for what each means.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    version: &'static str,
    uptime_ms: u64,
    draining: bool,
    config: ConfigStatus,
    #[serde(rename = "loop")]
    event_loop: LoopStatus,
    partitions: Vec<PartitionStatus>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigStatus {
    listen: String,
    memtable_bytes: usize,
    max_connections: usize,
    idle_timeout_ms: u64,
    header_timeout_ms: u64,
    max_value_bytes: usize,
    max_head_bytes: usize,
    token: bool,
    allowed_hosts: Vec<String>,
    durability: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoopStatus {
    connections: usize,
    accepted_connections: u64,
    refused_connections: u64,
    requests: u64,
    turns: u64,
    longest_turn_us: u64,
    slow_turns: u64,
    longest_slice_us: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PartitionStatus {
    id: u32,
    role: &'static str,
    last_version: u64,
    memtable_entries: usize,
    memtable_bytes: usize,
    levels: Vec<LevelStatus>,
    wal_segments: usize,
    wal_bytes: usize,
    debt: usize,
    pinned_snapshots: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LevelStatus {
    level: usize,
    layers: usize,
    entries: usize,
    bytes: usize,
}

pub(super) fn of(node: &Node, now_ms: u64) -> Status {
    let config = node.config();
    Status {
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: now_ms,
        draining: node.is_draining(),
        config: ConfigStatus {
            listen: config.listen.to_string(),
            memtable_bytes: config.memtable_bytes,
            max_connections: config.max_connections,
            idle_timeout_ms: config.idle_timeout_ms,
            header_timeout_ms: config.header_timeout_ms,
            max_value_bytes: config.max_value_bytes,
            max_head_bytes: config.max_head_bytes,
            token: config.token.is_some(),
            allowed_hosts: config.allowed_hosts.clone(),
            durability: "memory",
        },
        event_loop: LoopStatus::from(node.loop_stats),
        partitions: node.partitions().map(PartitionStatus::from).collect(),
    }
}

impl From<LoopStats> for LoopStatus {
    fn from(stats: LoopStats) -> Self {
        Self {
            connections: stats.connection_count,
            accepted_connections: stats.accepted_count,
            refused_connections: stats.refused_count,
            requests: stats.request_count,
            turns: stats.turn_count,
            longest_turn_us: stats.longest_turn_us,
            slow_turns: stats.slow_turn_count,
            longest_slice_us: stats.longest_slice_us,
        }
    }
}

impl From<&Partition> for PartitionStatus {
    fn from(partition: &Partition) -> Self {
        let stats = partition.lsm().stats();
        Self {
            id: partition.id(),
            role: "leader",
            last_version: stats.last_version,
            memtable_entries: stats.memtable_entry_count,
            memtable_bytes: stats.memtable_bytes,
            levels: stats.levels.iter().map(LevelStatus::from).collect(),
            wal_segments: stats.wal_segment_count,
            wal_bytes: stats.wal_bytes,
            debt: stats.debt,
            pinned_snapshots: stats.snapshot_count,
        }
    }
}

impl From<&LevelStats> for LevelStatus {
    fn from(stats: &LevelStats) -> Self {
        Self {
            level: stats.level,
            layers: stats.layer_entry_counts.len(),
            entries: stats.layer_entry_counts.iter().sum(),
            bytes: stats.memory_bytes,
        }
    }
}
