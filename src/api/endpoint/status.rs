//! `/status`: the configuration in force and the state of the node, as JSON.
//!
//! A request that names a partition gets that one alone: the status page asks once a second, and
//! there may be a thousand of them.

use serde::Serialize;

use crate::api::context::Api;
use crate::api::request::values::JSON;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::http::{Head, Refusal, Reply, json_line};
use crate::lsm::{LevelStats, Stats};
use crate::node::{Node, Subject};
use crate::partition::{DiskLog, LeaderStats, Partition, ReplicaStats};
use crate::replication::SyncState;
use crate::storage::{PartitionMeta, PastHistory, RecoveryProgress};

use crate::api::endpoint::health::lag_of;
use crate::api::errors::refuse;
use crate::api::request::params::Param;

use super::member_status::{ClusterStatus, MemberStatus, state_name};
use super::status_stats::{MemoryStatus, RequestsStatus};

/// The body. Field names carry their unit; `openapi.json` explains each.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'n> {
    version: &'static str,
    commit: Option<&'static str>,
    uptime_ms: u64,
    draining: bool,
    /// How far the node is with reading its data; none once it is done.
    loading: Option<LoadingStatus>,
    config: ConfigStatus<'n>,
    #[serde(flatten)]
    cluster: Option<ClusterStatus<'n>>,
    #[serde(rename = "loop")]
    event_loop: LoopStatus,
    requests: RequestsStatus<'n>,
    memory: MemoryStatus,
    partitions: Vec<PartitionStatus>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoadingStatus {
    done_bytes: u64,
    total_bytes: u64,
}

#[derive(Serialize)]
struct ConfigStatus<'n> {
    #[serde(flatten)]
    config: &'n Config,
    /// `memory`, or when writes are synced.
    durability: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoopStatus {
    connections: usize,
    /// Most connections, by the configuration and the limit on file descriptors.
    connections_max: usize,
    watchers: usize,
    accepted_connections: u64,
    refused_connections: u64,
    evicted_connections: u64,
    replication_connections: usize,
    refused_replication_connections: u64,
    descriptor_limit: usize,
    ended_uploads: u64,
    ended_downloads: u64,
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
    /// The id of this copy.
    copy: String,
    #[serde(flatten)]
    roles: RoleStatus,
    /// A word such as `leading`, `catching up to lead` or `in sync`.
    state: &'static str,
    #[serde(flatten)]
    member: Option<MemberStatus>,
    history_id: String,
    last_version: u64,
    /// The token of the last version.
    position: String,
    /// The last version that is synced to this node's disk; none in memory only.
    durable_version: Option<u64>,
    past_histories: Vec<PastStatus>,
    /// Of a replica.
    leader: Option<LeaderStatus>,
    replicas: Vec<ReplicaStatus>,
    /// Of a leader: nodes that it could not tell yet that it leads.
    not_told: Vec<String>,
    disk: Option<DiskStatus>,
    #[serde(flatten)]
    engine: EngineStatus,
}

/// The role of a partition.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RoleStatus {
    role: &'static str,
    epoch: u64,
    /// The epoch of the leader that this data is from.
    data_epoch: u64,
    /// The highest epoch that a controller named.
    ordered_epoch: u64,
    /// Whether role and epoch are durable; always true in memory.
    settled: bool,
    /// Other nodes of the partition, as a controller named them.
    peers: Vec<String>,
}

/// Of the engine of a partition.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EngineStatus {
    memtable_entries: usize,
    memtable_bytes: usize,
    levels: Vec<LevelStatus>,
    wal_segments: usize,
    wal_bytes: usize,
    debt: usize,
    /// Bytes of the log in memory, large values included.
    log_bytes: usize,
    pinned_snapshots: usize,
    /// Bytes that only snapshots still need. Large values may be counted although they are shared.
    pinned_bytes: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PastStatus {
    history_id: String,
    end_version: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LeaderStatus {
    address: Option<String>,
    state: &'static str,
    in_sync: bool,
    /// The leader's last version as of its last message; none while it is not connected.
    version: Option<u64>,
    lag: Option<u64>,
    /// Why the leader is not followed.
    obstacle: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ReplicaStatus {
    address: String,
    /// The id of the replica's copy.
    copy: String,
    state: &'static str,
    sent_version: u64,
    applied_version: u64,
    durable_version: u64,
    snapshot_sent_bytes: u64,
    silent_ms: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DiskStatus {
    log_files: usize,
    log_bytes: u64,
    checkpoint_version: u64,
    failure: Option<String>,
    stall: Option<String>,
    checkpoints_given_up: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LevelStatus {
    level: usize,
    layers: usize,
    entries: usize,
    bytes: usize,
}

impl Api<'_> {
    pub(crate) fn answer_status(&mut self, head: &Head<'_>, reply: Reply<'_>) {
        let shown = match self.shown_partitions(head) {
            Ok(shown) => shown,
            Err(refusal) => return refuse(reply, &refusal),
        };
        let body = json_line(&status_of(self.node, shown, self.now_ms));
        reply.status(200).content_type(JSON).body(&body);
    }

    /// All partitions, or the one that the request names.
    fn shown_partitions(&mut self, head: &Head<'_>) -> Result<Vec<PartitionStatus>, Refusal> {
        let now_ms = self.now_ms;
        let names_one =
            head.partition_id.is_some() || self.query(head).get(Param::Partition)?.is_some();
        let shown = if names_one && self.node.loading().is_none() {
            let index = self.partition_index(head, Subject::Node)?;
            &self.node.partitions()[index..=index]
        } else {
            self.node.partitions()
        };
        let cluster = self.node.cluster();
        let of = |partition| PartitionStatus::of(partition, cluster, now_ms);
        Ok(shown.iter().map(of).collect())
    }
}

fn status_of(node: &Node, partitions: Vec<PartitionStatus>, now_ms: u64) -> Status<'_> {
    let config = node.config();
    Status {
        version: crate::version::VERSION,
        commit: crate::version::COMMIT,
        uptime_ms: now_ms,
        draining: node.is_draining(),
        loading: node.loading().map(LoadingStatus::from),
        config: ConfigStatus {
            config,
            durability: config.durability(),
        },
        cluster: ClusterStatus::of(node),
        event_loop: LoopStatus::of(node),
        requests: RequestsStatus::of(&node.stats, now_ms),
        memory: MemoryStatus::of(node),
        partitions,
    }
}

impl From<RecoveryProgress> for LoadingStatus {
    fn from(progress: RecoveryProgress) -> Self {
        Self {
            done_bytes: progress.done_bytes,
            total_bytes: progress.total_bytes,
        }
    }
}

impl LoopStatus {
    fn of(node: &Node) -> Self {
        let stats = &node.loop_stats;
        Self {
            ended_uploads: node.stats.ended_upload_count,
            ended_downloads: node.stats.ended_download_count,
            connections: stats.connection_count,
            connections_max: stats.connection_max,
            watchers: stats.watcher_count,
            accepted_connections: stats.accepted_count,
            refused_connections: stats.refused_count,
            evicted_connections: stats.evicted_count,
            replication_connections: stats.link_count,
            refused_replication_connections: stats.refused_link_count,
            descriptor_limit: stats.descriptor_limit,
            requests: stats.request_count,
            turns: stats.turn_count,
            longest_turn_us: stats.longest_turn_us,
            slow_turns: stats.slow_turn_count,
            longest_slice_us: stats.longest_slice_us,
        }
    }
}

impl PartitionStatus {
    fn of(partition: &Partition, cluster: Option<&Cluster>, now_ms: u64) -> Self {
        let stats = partition.lsm().stats();
        let meta = partition.roles().meta();
        Self {
            id: partition.id(),
            copy: meta.copy.to_string(),
            roles: RoleStatus {
                role: partition.roles().role().name(),
                epoch: meta.epoch,
                data_epoch: meta.data_epoch,
                ordered_epoch: meta.ordered_epoch,
                settled: partition.roles().is_settled(),
                peers: meta.peers.clone(),
            },
            state: state_name(partition, cluster, now_ms),
            member: MemberStatus::of(partition, cluster, now_ms),
            history_id: partition.history().to_string(),
            last_version: stats.last_version,
            position: partition.token_of(stats.last_version).to_string(),
            durable_version: partition.disk().map(DiskLog::synced_version),
            past_histories: meta.lineage.past().map(PastStatus::from).collect(),
            leader: partition
                .leader_stats(now_ms)
                .map(|stats| LeaderStatus::of(stats, meta, partition, now_ms)),
            replicas: partition
                .replica_stats(now_ms)
                .map(ReplicaStatus::from)
                .collect(),
            not_told: partition.untold_peers().map(str::to_owned).collect(),
            disk: partition.disk().map(DiskStatus::from),
            engine: EngineStatus::of(partition, &stats),
        }
    }
}

impl EngineStatus {
    fn of(partition: &Partition, stats: &Stats) -> Self {
        Self {
            memtable_entries: stats.memtable_entry_count,
            memtable_bytes: stats.memtable_bytes,
            levels: stats
                .levels
                .iter()
                .enumerate()
                .map(LevelStatus::from)
                .collect(),
            wal_segments: stats.wal_segment_count,
            wal_bytes: stats.wal_bytes,
            debt: stats.debt,
            log_bytes: stats.log_bytes,
            pinned_snapshots: partition.lsm().snapshot_count(),
            pinned_bytes: partition.pinned().total_bytes(),
        }
    }
}

impl From<&PastHistory> for PastStatus {
    fn from(past: &PastHistory) -> Self {
        Self {
            history_id: past.history.to_string(),
            end_version: past.end_version,
        }
    }
}

impl LeaderStatus {
    fn of(stats: LeaderStats, meta: &PartitionMeta, partition: &Partition, now_ms: u64) -> Self {
        Self {
            address: meta.leader.clone(),
            state: stats.state,
            in_sync: stats.sync == SyncState::InSync,
            version: stats.leader_version,
            lag: lag_of(partition, now_ms),
            obstacle: stats.obstacle,
        }
    }
}

impl From<ReplicaStats> for ReplicaStatus {
    fn from(stats: ReplicaStats) -> Self {
        Self {
            address: stats.address,
            copy: stats.copy.to_string(),
            state: stats.facts.phase.name(),
            sent_version: stats.facts.sent_version,
            applied_version: stats.facts.acked.applied_version,
            durable_version: stats.facts.acked.durable_version,
            snapshot_sent_bytes: stats.facts.snapshot_sent_bytes,
            silent_ms: stats.silent_ms,
        }
    }
}

impl From<&DiskLog> for DiskStatus {
    fn from(disk: &DiskLog) -> Self {
        let stats = disk.stats();
        Self {
            log_files: stats.log_file_count,
            log_bytes: stats.log_bytes,
            checkpoint_version: stats.checkpoint_version,
            failure: disk.failure().map(ToString::to_string),
            stall: disk.stall().map(ToString::to_string),
            checkpoints_given_up: disk.given_up_count(),
        }
    }
}

impl From<(usize, &LevelStats)> for LevelStatus {
    fn from((level, stats): (usize, &LevelStats)) -> Self {
        let LevelStats {
            layer_count,
            entry_count,
            footprint,
        } = *stats;
        Self {
            level,
            layers: layer_count,
            entries: entry_count,
            bytes: footprint.total_bytes(),
        }
    }
}
