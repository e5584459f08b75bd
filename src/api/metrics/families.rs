//! The list of metrics, a row each: kind, name, source of the samples, help. `docs/metrics.md` says
//! which deserve an alert.
//!
//! Invariants:
//! 1. Each name is there once, and no two samples of a family have the same labels.
//! 2. Families of partitions are rendered one partition at a time, which bounds the work of a call.
//!
//! Replicas are labelled by the id of their copy and by address: a node that has reconnected may be
//! there twice, with two addresses.

use crate::api::request::route::Group;
use crate::api::request_labels::endpoints;
use crate::cluster::{CHANGE_OUTCOMES, SET_CHANGES, TAKEOVER_CAUSES};
use crate::lsm::LevelStats;
use crate::metrics::{ETCD_FAILURE_KINDS, Exposition, GateKind, Label, MetricKind};
use crate::node::SLOW_TURN_US;
use crate::partition::ReplicaStats;
use crate::replication::LINK_END_REASONS;
use crate::storage::{CopyId, Role};

use super::memory_owners::MemoryByOwner;
use super::report::{MemberReport, PartitionReport, Report};

/// A metric; `R` is the report that its samples come from.
pub(crate) struct Family<R: 'static> {
    pub(crate) name: &'static str,
    pub(crate) kind: MetricKind,
    pub(crate) help: &'static str,
    pub(crate) samples: fn(&R, &mut Exposition<'_>),
}

/// Rows are `Kind "name" form(value) "help";`. Forms: `number`; `number_if`, which may be none;
/// `seconds`, of microseconds; `histogram`; `samples`, which writes them itself.
macro_rules! families {
    ($list:ident, |$report:ident: &$type:ty, $text:ident| $labels:expr;
        $($kind:ident $name:literal $form:ident($value:expr) $help:literal;)*) => {
        pub(crate) const $list: &[Family<$type>] = &[$(Family {
            name: $name,
            kind: MetricKind::$kind,
            help: $help,
            samples: |$report, $text| families!(@$form $text, $labels, $value),
        },)*];
    };
    (@number $text:ident, $labels:expr, $value:expr) => { $text.sample(&$labels, $value) };
    (@number_if $text:ident, $labels:expr, $value:expr) => {
        if let Some(value) = $value {
            $text.sample(&$labels, value);
        }
    };
    (@seconds $text:ident, $labels:expr, $value:expr) => { $text.seconds(&$labels, $value) };
    (@histogram $text:ident, $labels:expr, $value:expr) => { $text.histogram(&$labels, $value) };
    (@samples $text:ident, $labels:expr, $value:expr) => { $value };
}

// A help text names this duration.
const _: () = assert!(SLOW_TURN_US == 2_000);

families! { OF_NODE, |node: &Report, text| [];
    Gauge "build_info" samples(build_info(node, text))
        "Version and commit of the program; always 1.";
    Gauge "process_start_time_seconds" seconds(node.stats.started_unix_ms * 1_000)
        "When the process started, in seconds since 1970.";
    Counter "clock_steps_total" number(node.stats.clock.step_count)
        "How often the system's clock was set while the node ran.";
    Gauge "clock_away_seconds" seconds(node.stats.clock.away_ms * 1_000)
        "How far the system's clock is from the time that times to live go by; the node follows \
         it slowly.";
    Gauge "loading" number(u8::from(node.is_loading))
        "1 while the node reads its data and answers no requests for keys.";
    Gauge "draining" number(u8::from(node.is_draining))
        "1 while the node is stopping.";
    Counter "requests_total" samples(requests(node, text))
        "Answers by path and status; other: not a path of the API; invalid: not HTTP, or not in \
         time.";
    Histogram "request_seconds" samples(durations(node, text))
        "From the turn in which a request came to the write of its answer, waits for disk and \
         replicas included.";
    Counter "slow_requests_total" number(node.stats.slow_requests.count())
        "Requests that took longer than --slow-request-ms.";
    Counter "http_received_bytes_total" number(node.stats.received_bytes)
        "Bytes read from HTTP connections.";
    Counter "http_sent_bytes_total" number(node.stats.sent_bytes)
        "Bytes written to HTTP connections.";
    Gauge "connections" number(node.loop_stats.connection_count)
        "HTTP connections open now.";
    Counter "accepted_connections_total" number(node.loop_stats.accepted_count)
        "HTTP connections that came, those turned away included.";
    Counter "refused_connections_total" number(node.loop_stats.refused_count)
        "HTTP connections turned away because there were too many, or lost before they were taken \
         in.";
    Counter "evicted_connections_total" number(node.loop_stats.evicted_count)
        "Idle HTTP connections closed to make room for others.";
    Gauge "connections_max" number(node.loop_stats.connection_max)
        "HTTP connections that may be open, by --max-connections and the limit on descriptors.";
    Gauge "replication_connections" number(node.loop_stats.link_count)
        "Replication connections open now, in both directions.";
    Gauge "replication_strangers" number(node.loop_stats.stranger_count)
        "Connections to the replication port that have not said hello yet.";
    Counter "refused_replication_connections_total" number(node.loop_stats.refused_link_count)
        "Connections to the replication port that ended without becoming that of a replica.";
    Gauge "descriptor_limit" number(node.loop_stats.descriptor_limit)
        "File descriptors that the process may have open.";
    Histogram "loop_turn_seconds" histogram(&node.stats.turns)
        "Processor time of the turns of the loop, polls included: what a request that comes \
         meanwhile waits for.";
    Gauge "loop_longest_turn_seconds" seconds(node.loop_stats.longest_turn_us)
        "Processor time of the longest turn since the start.";
    Counter "loop_slow_turns_total" number(node.loop_stats.slow_turn_count)
        "Turns of more than 2 ms of processor time.";
    Histogram "loop_slice_seconds" histogram(&node.stats.slices)
        "Processor time of slices of maintenance.";
    Gauge "loop_longest_slice_seconds" seconds(node.loop_stats.longest_slice_us)
        "Processor time of the longest slice of maintenance since the start.";
    Gauge "held_replies" number(node.stats.held_reply_count)
        "Replies that wait now for the disk, for replicas or for a change of role.";
    Histogram "gate_wait_seconds" samples(gate_waits(node, text))
        "How long connections waited with the replies they held back, by what they waited for.";
    Histogram "log_sync_seconds" histogram(&node.stats.log_syncs)
        "Syncs of the log that commits waited for, measured on the disk thread.";
    Counter "replication_received_bytes_total" number(node.stats.links.received_bytes)
        "Bytes read from leaders and replicas.";
    Counter "replication_link_ends_total" samples(link_ends(node, text))
        "Replication connections that ended, by reason.";
    Counter "replication_sent_bytes_total" number(node.stats.links.sent_bytes)
        "Bytes made for leaders and replicas.";
    Gauge "upload_claimed_bytes" number(node.upload_claimed_bytes)
        "Memory that request bodies on their way claim: what they say they will take, or have \
         taken.";
    Counter "ended_uploads_total" number(node.stats.ended_upload_count)
        "Uploads ended because memory was short and they were among the slowest.";
    Counter "ended_downloads_total" number(node.stats.ended_download_count)
        "Answers cut off because memory was short and their readers were slow, or did not read at \
         all.";
    Gauge "resident_memory_bytes" number_if(node.resident_bytes)
        "Memory of the process as the system counts it.";
    Gauge "allocated_memory_bytes" number(node.allocated_bytes)
        "Memory allocated by the process: what --max-memory limits.";
    Gauge "memory_limit_bytes" number(node.memory_limit_bytes)
        "The limit set by --max-memory, above which sets are refused; 0: none.";
    Gauge "watchers" number(node.loop_stats.watcher_count)
        "Requests that are being told of changes.";
    Gauge "memory_bytes" samples(memory(node, text))
        "Memory by owner. Log is what only replicas need; large values count once for each layer \
         they are in; indexes of memtables do not count.";
}

// Shown by a node of a cluster only.
families! { OF_ETCD, |node: &Report, text| [];
    Gauge "etcd_up"
        number(u8::from(node.loop_stats.etcd.as_ref().is_some_and(|etcd| etcd.is_up)))
        "1 while etcd answers this node.";
    Histogram "etcd_request_seconds" samples(etcd_durations(node, text))
        "How long etcd took to answer.";
    Counter "etcd_errors_total" samples(etcd_errors(node, text))
        "Requests to etcd without an answer, or answered with an error.";
}

families! { OF_PARTITION, |partition: &PartitionReport, text| [id(partition)];
    Gauge "role" samples(roles(partition, text))
        "1 for the role that the partition has.";
    Gauge "epoch" number(partition.epoch)
        "The epoch in force.";
    Gauge "last_version" number(partition.engine.last_version)
        "Version of the newest write.";
    Gauge "durable_version" number_if(partition.durable_version)
        "Version up to which writes are synced to this node's disk.";
    Gauge "memtable_bytes" number(partition.engine.memtable_bytes)
        "Log in the active memtable, large values included.";
    Gauge "memtable_entries" number(partition.engine.memtable_entry_count)
        "Keys in the active memtable, deleted ones included.";
    Gauge "frozen_memtables"
        number(partition.engine.levels.first().map_or(0, |frozen| frozen.layer_count))
        "Memtables that wait to be flushed.";
    Gauge "level_layers" samples(levels(partition, text, |level| level.layer_count))
        "Immutable layers by level; 0: frozen memtables, the highest: the bottom.";
    Gauge "level_entries" samples(levels(partition, text, |level| level.entry_count))
        "Entries by level, deleted and overwritten ones included.";
    Gauge "level_bytes" samples(levels(partition, text, |level| level.footprint.total_bytes()))
        "Bytes by level, large values included.";
    Gauge "merge_debt" number(partition.engine.debt)
        "Work that merges still have to do, in units of about a byte moved.";
    Gauge "log_segments" number(partition.engine.wal_segment_count)
        "Segments of log in memory.";
    Gauge "log_memory_bytes" number(partition.engine.log_bytes)
        "Log in memory, that of memtables and large values included.";
    Gauge "snapshots" number(partition.snapshots.live_count)
        "Snapshots that are held: backups, checkpoints and replicas on their way.";
    Gauge "pinned_bytes" samples(pinned(partition, text))
        "What snapshots alone keep alive: data that was overwritten or merged since, until it is \
         freed. Large values at most: newer layers may share them.";
    Counter "log_writes_total" number_if(partition.disk.as_ref().map(|disk| disk.written.count))
        "Batches written to the log on disk.";
    Counter "log_written_bytes_total"
        number_if(partition.disk.as_ref().map(|disk| disk.written.bytes))
        "Bytes written to the log on disk, zeros ahead of it included.";
    Gauge "log_files" number_if(partition.disk.as_ref().map(|disk| disk.log_file_count))
        "Files of the log on disk.";
    Gauge "log_file_bytes" number_if(partition.disk.as_ref().map(|disk| disk.log_bytes))
        "Bytes in them.";
    Gauge "checkpoint_version"
        number_if(partition.disk.as_ref().map(|disk| disk.checkpoint_version))
        "Version of the newest checkpoint; 0: there is none.";
    Gauge "storage_failed"
        number_if(partition.disk.as_ref().map(|_| u8::from(partition.has_failed)))
        "1 once the disk has failed: no writes until the node is restarted.";
    Gauge "storage_stalled"
        number_if(partition.disk.as_ref().map(|_| u8::from(partition.is_stalled)))
        "1 while writes wait for room on the disk, or for file descriptors.";
    Counter "checkpoints_given_up_total" number_if(partition.checkpoints_given_up)
        "Checkpoints that could not be written, for lack of room as a rule.";
    Gauge "in_sync" number_if(partition.is_in_sync.map(u8::from))
        "Of a replica: 1 once it has caught up with its leader.";
    Gauge "leader_connected"
        number_if(partition.is_in_sync.map(|_| u8::from(partition.lag.is_some())))
        "Of a replica: 1 while its leader is connected.";
    Gauge "leader_lag_versions" number_if(partition.lag)
        "Of a replica: versions that it is behind its leader, while that is connected.";
    Gauge "replicas" number(partition.replicas.len())
        "Replicas that are connected.";
    Gauge "replica_lag_versions" samples(replica_lags(partition, text))
        "Versions that a replica is behind; state is log, or snapshot while it gets one.";
    Gauge "replica_durable_lag_versions" samples(replica_durable_lags(partition, text))
        "Versions that a replica does not hold yet as its clients are promised.";
    Gauge "replica_silent_seconds" samples(replica_silences(partition, text))
        "Time since a replica was heard.";
    Counter "snapshots_sent_total" number(partition.snapshots.sent_count)
        "Snapshots begun for replicas.";
    Counter "snapshots_received_total" number(partition.snapshots.received_count)
        "Snapshots received whole from leaders.";
}

// Shown by a node of a cluster only.
families! { OF_MEMBER, |partition: &PartitionReport, text| [id(partition)];
    Gauge "in_sync_copies" number_if(partition.member.map(|member| member.in_sync_count))
        "Copies in sync, the leader's included, as this node has read in etcd.";
    Gauge "lease_left_seconds" samples(lease_left(partition, text))
        "Of a leader with other copies in sync: how long it may still answer reads.";
    Counter "fenced_seconds_total" samples(fenced(partition, text))
        "How long this node led without a lease, and answered nothing.";
    Counter "takeovers_total" samples(takeovers(partition, text))
        "How often this node became the leader: since the one before was silent (silent) or handed \
         over (handed_over), since it was restarted itself or is the first (restarted), or since \
         it was named by an order (named).";
    Counter "set_changes_total" samples(set_changes(partition, text))
        "Changes of the copies in sync that this node has asked etcd for, by kind and outcome.";
    Gauge "etcd_went_back" number_if(partition.member.map(|member| u8::from(member.went_back)))
        "1 while etcd has an older configuration than this copy, as after a restore.";
    Gauge "config_unreadable"
        number_if(partition.member.map(|member| u8::from(member.is_unreadable)))
        "1 while this node cannot read the configuration that etcd has.";
}

fn build_info(_node: &Report, text: &mut Exposition<'_>) {
    let (version, commit) = (
        crate::version::VERSION,
        crate::version::COMMIT.unwrap_or(""),
    );
    text.sample(&[("version", &version), ("commit", &commit)], 1);
}

fn requests(node: &Report, text: &mut Exposition<'_>) {
    for (endpoint, route) in endpoints() {
        for (status, count) in node.stats.requests.counts(endpoint) {
            text.sample(&[("route", &route), ("code", &status)], count);
        }
    }
}

fn durations(node: &Report, text: &mut Exposition<'_>) {
    for (group, name) in Group::NAMES {
        let durations = node.stats.requests.durations(group.number());
        text.histogram(&[("group", &name)], durations);
    }
}

fn link_ends(node: &Report, text: &mut Exposition<'_>) {
    for (reason, count) in LINK_END_REASONS.iter().zip(node.stats.links.ends) {
        text.sample(&[("reason", reason)], count);
    }
}

fn gate_waits(node: &Report, text: &mut Exposition<'_>) {
    for kind in GateKind::ALL {
        let waits = &node.stats.gate_waits[kind as usize];
        text.histogram(&[("kind", &kind.name())], waits);
    }
}

fn memory(node: &Report, text: &mut Exposition<'_>) {
    let mut memory = MemoryByOwner::of_connections(&node.stats);
    for partition in &node.partitions {
        memory.add(&partition.engine, partition.pinned);
    }
    for (owner, bytes) in memory.by_name() {
        text.sample(&[("owner", &owner)], bytes);
    }
}

fn etcd_durations(node: &Report, text: &mut Exposition<'_>) {
    if let Some(etcd) = &node.loop_stats.etcd {
        text.histogram(&[], &etcd.durations);
    }
}

fn etcd_errors(node: &Report, text: &mut Exposition<'_>) {
    let counts = node
        .loop_stats
        .etcd
        .as_ref()
        .map(|etcd| etcd.failure_counts);
    for (kind, count) in ETCD_FAILURE_KINDS.iter().zip(counts.unwrap_or_default()) {
        text.sample(&[("kind", kind)], count);
    }
}

fn lease_left(partition: &PartitionReport, text: &mut Exposition<'_>) {
    let left_ms = partition.member.and_then(|member| member.lease_left_ms);
    if let Some(left_ms) = left_ms {
        text.seconds(&[id(partition)], left_ms.saturating_mul(1_000));
    }
}

fn fenced(partition: &PartitionReport, text: &mut Exposition<'_>) {
    if let Some(MemberReport { counts, .. }) = partition.member {
        text.seconds(&[id(partition)], counts.fenced_ms.saturating_mul(1_000));
    }
}

fn takeovers(partition: &PartitionReport, text: &mut Exposition<'_>) {
    if let Some(MemberReport { counts, .. }) = partition.member {
        for (cause, count) in TAKEOVER_CAUSES.iter().zip(counts.takeovers) {
            text.sample(&[id(partition), ("cause", cause)], count);
        }
    }
}

fn set_changes(partition: &PartitionReport, text: &mut Exposition<'_>) {
    let Some(MemberReport { counts, .. }) = partition.member else {
        return;
    };
    for (kind, counts) in SET_CHANGES.iter().zip(counts.changes) {
        for (outcome, count) in CHANGE_OUTCOMES.iter().zip(counts) {
            let labels = [id(partition), ("kind", kind), ("outcome", outcome)];
            text.sample(&labels, count);
        }
    }
}

fn id(partition: &PartitionReport) -> Label<'_> {
    ("partition", &partition.id)
}

fn roles(partition: &PartitionReport, text: &mut Exposition<'_>) {
    for role in [Role::Unassigned, Role::Leader, Role::Replica] {
        let is_role = u8::from(partition.role == role);
        text.sample(&[id(partition), ("role", &role.name())], is_role);
    }
}

fn levels(
    partition: &PartitionReport,
    text: &mut Exposition<'_>,
    number: fn(&LevelStats) -> usize,
) {
    for (level, stats) in partition.engine.levels.iter().enumerate() {
        text.sample(&[id(partition), ("level", &level)], number(stats));
    }
}

fn pinned(partition: &PartitionReport, text: &mut Exposition<'_>) {
    let pinned = partition.pinned;
    text.sample(&[id(partition), ("what", &"data")], pinned.bytes);
    let labels = [id(partition), ("what", &"large_values")];
    text.sample(&labels, pinned.large_bytes);
}

fn replica_lags(partition: &PartitionReport, text: &mut Exposition<'_>) {
    let last_version = partition.engine.last_version;
    for replica in &partition.replicas {
        let name = replica.copy;
        let [id, node, address] = replica_labels(partition, &name, replica);
        let lag = last_version.saturating_sub(replica.facts.acked.applied_version);
        text.sample(
            &[id, node, address, ("state", &replica.facts.phase.name())],
            lag,
        );
    }
}

fn replica_durable_lags(partition: &PartitionReport, text: &mut Exposition<'_>) {
    let last_version = partition.engine.last_version;
    for replica in &partition.replicas {
        let lag = last_version.saturating_sub(replica.facts.acked.durable_version);
        let name = replica.copy;
        text.sample(&replica_labels(partition, &name, replica), lag);
    }
}

fn replica_silences(partition: &PartitionReport, text: &mut Exposition<'_>) {
    for replica in &partition.replicas {
        let silent_us = replica.silent_ms.saturating_mul(1_000);
        let name = replica.copy;
        text.seconds(&replica_labels(partition, &name, replica), silent_us);
    }
}

fn replica_labels<'r>(
    partition: &'r PartitionReport,
    name: &'r CopyId,
    replica: &'r ReplicaStats,
) -> [Label<'r>; 3] {
    [
        id(partition),
        ("replica", name),
        ("address", &replica.address),
    ]
}
