//! Metrics that there are once for each partition; the others are in `metrics_list.rs`.
//!
//! Replicas are told by node and address: a node that has connected anew may be there twice, on two
//! addresses.

use std::fmt::{self, Display};

use crate::metrics::Label;
use crate::storage::Role;

use super::metrics::PartitionReport;
use super::metrics_list::{Family, Samples, counter, gauge};

/// All of them.
pub(super) const OF_PARTITION: &[Family] = &[
    gauge(
        "role",
        "1 for the role that the partition has.",
        Samples::OfPartition(|partition, text| {
            for role in [Role::Unassigned, Role::Leader, Role::Replica] {
                text.sample(
                    &[id(partition), ("role", &role.name())],
                    u8::from(partition.role == role),
                );
            }
        }),
    ),
    gauge(
        "epoch",
        "The epoch in force.",
        Samples::OfPartition(|partition, text| {
            text.sample(&[id(partition)], partition.epoch);
        }),
    ),
    gauge(
        "last_version",
        "Version of the newest write.",
        Samples::OfPartition(|partition, text| {
            text.sample(&[id(partition)], partition.engine.last_version);
        }),
    ),
    gauge(
        "durable_version",
        "Version up to which writes are synced to this node's disk.",
        Samples::OfPartition(|partition, text| {
            if let Some(version) = partition.durable_version {
                text.sample(&[id(partition)], version);
            }
        }),
    ),
    gauge(
        "memtable_bytes",
        "Log in the active memtable, large values included.",
        Samples::OfPartition(|partition, text| {
            text.sample(&[id(partition)], partition.engine.memtable_bytes);
        }),
    ),
    gauge(
        "memtable_entries",
        "Keys in the active memtable, deleted ones included.",
        Samples::OfPartition(|partition, text| {
            text.sample(&[id(partition)], partition.engine.memtable_entry_count);
        }),
    ),
    gauge(
        "frozen_memtables",
        "Memtables that wait to be flushed.",
        Samples::OfPartition(|partition, text| {
            text.sample(
                &[id(partition)],
                partition
                    .engine
                    .levels
                    .first()
                    .map_or(0, |frozen| frozen.layer_count),
            );
        }),
    ),
    gauge(
        "level_layers",
        "Immutable layers by level; 0: frozen memtables, the highest: the bottom.",
        Samples::OfPartition(|partition, text| {
            for (level, stats) in partition.engine.levels.iter().enumerate() {
                text.sample(&[id(partition), ("level", &level)], stats.layer_count);
            }
        }),
    ),
    gauge(
        "level_entries",
        "Entries by level, deleted and overwritten ones included.",
        Samples::OfPartition(|partition, text| {
            for (level, stats) in partition.engine.levels.iter().enumerate() {
                text.sample(&[id(partition), ("level", &level)], stats.entry_count);
            }
        }),
    ),
    gauge(
        "level_bytes",
        "Bytes by level, large values included.",
        Samples::OfPartition(|partition, text| {
            for (level, stats) in partition.engine.levels.iter().enumerate() {
                text.sample(
                    &[id(partition), ("level", &level)],
                    stats.footprint.total_bytes(),
                );
            }
        }),
    ),
    gauge(
        "merge_debt",
        "Work that merges still have to do, in units of about a byte moved.",
        Samples::OfPartition(|partition, text| {
            text.sample(&[id(partition)], partition.engine.debt);
        }),
    ),
    gauge(
        "log_segments",
        "Segments of log in memory.",
        Samples::OfPartition(|partition, text| {
            text.sample(&[id(partition)], partition.engine.wal_segment_count);
        }),
    ),
    gauge(
        "log_memory_bytes",
        "Log in memory, that of memtables and large values included.",
        Samples::OfPartition(|partition, text| {
            text.sample(&[id(partition)], partition.engine.log_bytes);
        }),
    ),
    gauge(
        "snapshots",
        "Snapshots that are held: backups, checkpoints and replicas on their way.",
        Samples::OfPartition(|partition, text| {
            text.sample(&[id(partition)], partition.snapshots.live_count);
        }),
    ),
    gauge(
        "pinned_bytes",
        "What snapshots alone keep alive: data that was overwritten or merged since, until it is \
         freed. Large values at most: newer layers may share them.",
        Samples::OfPartition(|partition, text| {
            text.sample(&[id(partition), ("what", &"data")], partition.pinned.bytes);
            text.sample(
                &[id(partition), ("what", &"large_values")],
                partition.pinned.large_bytes,
            );
        }),
    ),
    counter(
        "log_writes_total",
        "Batches written to the log on disk.",
        Samples::OfPartition(|partition, text| {
            if let Some(disk) = &partition.disk {
                text.sample(&[id(partition)], disk.written.count);
            }
        }),
    ),
    counter(
        "log_written_bytes_total",
        "Bytes written to the log on disk, zeros ahead of it included.",
        Samples::OfPartition(|partition, text| {
            if let Some(disk) = &partition.disk {
                text.sample(&[id(partition)], disk.written.bytes);
            }
        }),
    ),
    gauge(
        "log_files",
        "Files of the log on disk.",
        Samples::OfPartition(|partition, text| {
            if let Some(disk) = &partition.disk {
                text.sample(&[id(partition)], disk.log_file_count);
            }
        }),
    ),
    gauge(
        "log_file_bytes",
        "Bytes in them.",
        Samples::OfPartition(|partition, text| {
            if let Some(disk) = &partition.disk {
                text.sample(&[id(partition)], disk.log_bytes);
            }
        }),
    ),
    gauge(
        "checkpoint_version",
        "Version of the newest checkpoint; 0: there is none.",
        Samples::OfPartition(|partition, text| {
            if let Some(disk) = &partition.disk {
                text.sample(&[id(partition)], disk.checkpoint_version);
            }
        }),
    ),
    gauge(
        "storage_failed",
        "1 once the disk has failed: no writes until the node is restarted.",
        Samples::OfPartition(|partition, text| {
            if partition.disk.is_some() {
                text.sample(&[id(partition)], u8::from(partition.has_failed));
            }
        }),
    ),
    gauge(
        "storage_stalled",
        "1 while writes wait for room on the disk, or for file descriptors.",
        Samples::OfPartition(|partition, text| {
            if partition.disk.is_some() {
                text.sample(&[id(partition)], u8::from(partition.is_stalled));
            }
        }),
    ),
    counter(
        "checkpoints_given_up_total",
        "Checkpoints that could not be written, for lack of room as a rule.",
        Samples::OfPartition(|partition, text| {
            if let Some(count) = partition.checkpoints_given_up {
                text.sample(&[id(partition)], count);
            }
        }),
    ),
    gauge(
        "in_sync",
        "Of a replica: 1 once it has caught up with its leader.",
        Samples::OfPartition(|partition, text| {
            if let Some(is_in_sync) = partition.is_in_sync {
                text.sample(&[id(partition)], u8::from(is_in_sync));
            }
        }),
    ),
    gauge(
        "leader_connected",
        "Of a replica: 1 while its leader is connected.",
        Samples::OfPartition(|partition, text| {
            if partition.is_in_sync.is_some() {
                text.sample(&[id(partition)], u8::from(partition.lag.is_some()));
            }
        }),
    ),
    gauge(
        "leader_lag_versions",
        "Of a replica: versions that it is behind its leader, while that is connected.",
        Samples::OfPartition(|partition, text| {
            if let Some(lag) = partition.lag {
                text.sample(&[id(partition)], lag);
            }
        }),
    ),
    gauge(
        "replicas",
        "Replicas that are connected.",
        Samples::OfPartition(|partition, text| {
            text.sample(&[id(partition)], partition.replicas.len());
        }),
    ),
    gauge(
        "replica_lag_versions",
        "Versions that a replica is behind; state is log, or snapshot while it gets one.",
        Samples::OfPartition(|partition, text| {
            for replica in &partition.replicas {
                let node = NodeName(replica.node_id.0);
                let lag = partition
                    .engine
                    .last_version
                    .saturating_sub(replica.feed.applied_version);
                let labels = [
                    ("replica", &node as &dyn Display),
                    ("address", &replica.address),
                ];
                text.sample(
                    &[
                        id(partition),
                        labels[0],
                        labels[1],
                        ("state", &replica.feed.state),
                    ],
                    lag,
                );
            }
        }),
    ),
    gauge(
        "replica_durable_lag_versions",
        "Versions that a replica does not hold yet as its clients are promised.",
        Samples::OfPartition(|partition, text| {
            for replica in &partition.replicas {
                let node = NodeName(replica.node_id.0);
                let lag = partition
                    .engine
                    .last_version
                    .saturating_sub(replica.feed.durable_version);
                text.sample(
                    &[
                        id(partition),
                        ("replica", &node),
                        ("address", &replica.address),
                    ],
                    lag,
                );
            }
        }),
    ),
    gauge(
        "replica_silent_seconds",
        "Time since a replica was heard.",
        Samples::OfPartition(|partition, text| {
            for replica in &partition.replicas {
                let node = NodeName(replica.node_id.0);
                let silent_us = replica.feed.silent_ms.saturating_mul(1_000);
                text.seconds(
                    &[
                        id(partition),
                        ("replica", &node),
                        ("address", &replica.address),
                    ],
                    silent_us,
                );
            }
        }),
    ),
    counter(
        "snapshots_sent_total",
        "Snapshots begun for replicas.",
        Samples::OfPartition(|partition, text| {
            text.sample(&[id(partition)], partition.snapshots.sent_count);
        }),
    ),
    counter(
        "snapshots_received_total",
        "Snapshots received whole from leaders.",
        Samples::OfPartition(|partition, text| {
            text.sample(&[id(partition)], partition.snapshots.received_count);
        }),
    ),
];

fn id(partition: &PartitionReport) -> Label<'_> {
    ("partition", &partition.id)
}

/// The identity of a node, as `/status` shows it.
struct NodeName([u8; 16]);

impl Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}
