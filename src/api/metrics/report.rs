//! All statistics of a node at one moment, for `/metrics`.

use crate::cluster::{Cluster, Member, MemberCounts, MemberState};
use crate::lsm::{Footprint, LevelStats, Stats};
use crate::metrics::NodeStats;
use crate::node::{LoopStats, Node};
use crate::partition::{DiskLog, Partition, ReplicaStats, SnapshotStats};
use crate::storage::{Role, StoreStats};

use crate::api::endpoint::health::lag_of;
use crate::api::endpoint::member_status::lease_left_ms;

/// Statistics of a node at one moment.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) stats: NodeStats,
    pub(crate) loop_stats: LoopStats,
    pub(crate) resident_bytes: Option<u64>,
    pub(crate) allocated_bytes: usize,
    /// 0: there is no limit.
    pub(crate) memory_limit_bytes: usize,
    pub(crate) upload_claimed_bytes: usize,
    pub(crate) is_loading: bool,
    pub(crate) is_draining: bool,
    pub(crate) is_in_cluster: bool,
    pub(crate) partitions: Vec<PartitionReport>,
}

/// What is known of a partition in a cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemberReport {
    pub(crate) in_sync_count: usize,
    pub(crate) lease_left_ms: Option<u64>,
    pub(crate) went_back: bool,
    pub(crate) is_unreadable: bool,
    pub(crate) counts: MemberCounts,
}

impl MemberReport {
    /// None: the configuration was not read yet.
    fn of(partition: &Partition, cluster: &Cluster, now_ms: u64) -> Option<Self> {
        let member: &Member = cluster.member(partition.id())?;
        Some(Self {
            in_sync_count: member.config()?.in_sync.len(),
            lease_left_ms: lease_left_ms(partition, now_ms),
            went_back: member.state(partition, now_ms) == MemberState::EtcdWentBack,
            is_unreadable: cluster.is_unreadable(partition.id()),
            counts: member.counts(),
        })
    }
}

/// Statistics of a partition at the same moment.
#[derive(Debug)]
pub(crate) struct PartitionReport {
    pub(crate) id: u32,
    pub(crate) role: Role,
    pub(crate) epoch: u64,
    pub(crate) engine: Stats,
    pub(crate) pinned: Footprint,
    pub(crate) snapshots: SnapshotStats,
    /// None in memory only.
    pub(crate) disk: Option<StoreStats>,
    pub(crate) durable_version: Option<u64>,
    pub(crate) has_failed: bool,
    pub(crate) is_stalled: bool,
    pub(crate) checkpoints_given_up: Option<u64>,
    /// Of a replica.
    pub(crate) is_in_sync: Option<bool>,
    pub(crate) lag: Option<u64>,
    pub(crate) replicas: Vec<ReplicaStats>,
    /// Of a cluster.
    pub(crate) member: Option<MemberReport>,
}

impl PartitionReport {
    fn of(partition: &Partition, cluster: Option<&Cluster>, now_ms: u64) -> Self {
        let role = partition.roles().role();
        let mut engine = partition.lsm().stats();
        // Empty levels are listed too, down to the bottom.
        engine
            .levels
            .resize(engine.bottom_level + 1, LevelStats::default());
        Self {
            id: partition.id(),
            role,
            epoch: partition.roles().meta().epoch,
            engine,
            pinned: partition.pinned(),
            snapshots: partition.snapshot_stats(),
            disk: partition.disk().map(DiskLog::stats),
            durable_version: partition.disk().map(DiskLog::synced_version),
            has_failed: partition.disk().and_then(DiskLog::failure).is_some(),
            is_stalled: partition.disk().and_then(DiskLog::stall).is_some(),
            checkpoints_given_up: partition.disk().map(DiskLog::given_up_count),
            is_in_sync: (role == Role::Replica).then(|| partition.is_in_sync()),
            lag: lag_of(partition, now_ms),
            replicas: partition.replica_stats(now_ms).collect(),
            member: cluster.and_then(|cluster| MemberReport::of(partition, cluster, now_ms)),
        }
    }
}

impl Report {
    /// Takes all samples now.
    pub(crate) fn of(node: &Node, now_ms: u64) -> Self {
        let of = |partition| PartitionReport::of(partition, node.cluster(), now_ms);
        Self {
            stats: node.stats.clone(),
            loop_stats: node.loop_stats.clone(),
            resident_bytes: crate::storage::resident_bytes(),
            allocated_bytes: node.used_bytes(),
            memory_limit_bytes: node.config().max_memory_bytes.unwrap_or(0),
            upload_claimed_bytes: node.resources.bodies.claimed_bytes(),
            is_loading: node.loading().is_some(),
            is_draining: node.is_draining(),
            is_in_cluster: node.cluster().is_some(),
            partitions: node.partitions().iter().map(of).collect(),
        }
    }
}
