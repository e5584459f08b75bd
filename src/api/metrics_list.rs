//! The list of metrics: name, kind, what it means, and where its samples come from. The README says
//! which deserve an alert.
//!
//! Invariants:
//! 1. Each name is there once, and no two samples of a family have the same labels.
//! 2. What there is once a partition is told by partition, so that its text can be cut there.
//!
//! Not here: metrics of partitions (`metrics_partition.rs`).

use crate::metrics::{Exposition, GateKind, Kind};
use crate::node::SLOW_TURN_US;

use super::answered::{Group, endpoints};
use super::metrics::{PartitionReport, Report};
use super::metrics_partition::OF_PARTITION;

/// Where the samples of a family come from.
#[derive(Clone, Copy)]
pub(super) enum Samples {
    OfNode(fn(&Report, &mut Exposition<'_>)),
    /// Told for one partition after the other.
    OfPartition(fn(&PartitionReport, &mut Exposition<'_>)),
}

/// A metric.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) samples: Samples,
}

pub(super) const fn counter(name: &'static str, help: &'static str, samples: Samples) -> Family {
    Family {
        name,
        kind: Kind::Counter,
        help,
        samples,
    }
}

pub(super) const fn gauge(name: &'static str, help: &'static str, samples: Samples) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        help,
        samples,
    }
}

pub(super) const fn histogram(name: &'static str, help: &'static str, samples: Samples) -> Family {
    Family {
        name,
        kind: Kind::Histogram,
        help,
        samples,
    }
}

// The turn that counts as slow is named in a help text.
const _: () = assert!(SLOW_TURN_US == 2_000);

/// Metrics of the node.
const OF_NODE: &[Family] = &[
    gauge(
        "build_info",
        "Version and commit of the program; always 1.",
        Samples::OfNode(|_, text| {
            let commit = crate::version::COMMIT.unwrap_or("");
            text.sample(
                &[("version", &crate::version::VERSION), ("commit", &commit)],
                1,
            );
        }),
    ),
    gauge(
        "process_start_time_seconds",
        "When the process started, in seconds since 1970.",
        Samples::OfNode(|node, text| {
            text.seconds(&[], node.stats.started_unix_ms * 1_000);
        }),
    ),
    counter(
        "clock_steps_total",
        "How often the system's clock was set while the node ran.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.stats.clock_step_count);
        }),
    ),
    gauge(
        "clock_away_seconds",
        "How far the system's clock is from the time that times to live go by; the node follows it \
         slowly.",
        Samples::OfNode(|node, text| {
            text.seconds(&[], node.stats.clock_away_ms * 1_000);
        }),
    ),
    gauge(
        "loading",
        "1 while the node reads its data and answers no requests for keys.",
        Samples::OfNode(|node, text| {
            text.sample(&[], u8::from(node.is_loading));
        }),
    ),
    gauge(
        "draining",
        "1 while the node is stopping.",
        Samples::OfNode(|node, text| {
            text.sample(&[], u8::from(node.is_draining));
        }),
    ),
    counter(
        "requests_total",
        "Answers by path and status; other: not a path of the API; invalid: not HTTP, or not in \
         time.",
        Samples::OfNode(requests),
    ),
    histogram(
        "request_seconds",
        "From the turn in which a request came to the write of its answer, waits for disk and \
         replicas included.",
        Samples::OfNode(|node, text| {
            for (group, name) in Group::NAMES {
                text.histogram(
                    &[("group", &name)],
                    node.stats.requests.durations(group.number()),
                );
            }
        }),
    ),
    counter(
        "slow_requests_total",
        "Requests that took longer than --slow-request-ms.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.stats.slow_request_count);
        }),
    ),
    counter(
        "http_received_bytes_total",
        "Bytes read from HTTP connections.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.stats.received_bytes);
        }),
    ),
    counter(
        "http_sent_bytes_total",
        "Bytes written to HTTP connections.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.stats.sent_bytes);
        }),
    ),
    gauge(
        "connections",
        "HTTP connections open now.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.loop_stats.connection_count);
        }),
    ),
    counter(
        "accepted_connections_total",
        "HTTP connections that came, those turned away included.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.loop_stats.accepted_count);
        }),
    ),
    counter(
        "refused_connections_total",
        "HTTP connections turned away because there were too many, or lost before they were taken \
         in.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.loop_stats.refused_count);
        }),
    ),
    counter(
        "evicted_connections_total",
        "Idle HTTP connections closed to make room for others.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.loop_stats.evicted_count);
        }),
    ),
    gauge(
        "connections_max",
        "HTTP connections that may be open, by --max-connections and the limit on descriptors.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.loop_stats.connection_max);
        }),
    ),
    gauge(
        "replication_connections",
        "Replication connections open now, in both directions.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.loop_stats.link_count);
        }),
    ),
    gauge(
        "replication_strangers",
        "Connections to the replication port that have not said hello yet.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.loop_stats.stranger_count);
        }),
    ),
    counter(
        "refused_replication_connections_total",
        "Connections to the replication port that ended without becoming that of a replica.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.loop_stats.refused_link_count);
        }),
    ),
    gauge(
        "descriptor_limit",
        "File descriptors that the process may have open.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.loop_stats.descriptor_limit);
        }),
    ),
    histogram(
        "loop_turn_seconds",
        "Processor time of the turns of the loop, polls included: what a request that comes \
         meanwhile waits for.",
        Samples::OfNode(|node, text| {
            text.histogram(&[], &node.stats.turns);
        }),
    ),
    gauge(
        "loop_longest_turn_seconds",
        "Processor time of the longest turn since the start.",
        Samples::OfNode(|node, text| {
            text.seconds(&[], node.loop_stats.longest_turn_us);
        }),
    ),
    counter(
        "loop_slow_turns_total",
        "Turns of more than 2 ms of processor time.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.loop_stats.slow_turn_count);
        }),
    ),
    histogram(
        "loop_slice_seconds",
        "Processor time of slices of maintenance.",
        Samples::OfNode(|node, text| {
            text.histogram(&[], &node.stats.slices);
        }),
    ),
    gauge(
        "loop_longest_slice_seconds",
        "Processor time of the longest slice of maintenance since the start.",
        Samples::OfNode(|node, text| {
            text.seconds(&[], node.loop_stats.longest_slice_us);
        }),
    ),
    gauge(
        "held_replies",
        "Replies that wait now for the disk, for replicas or for a change of role.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.stats.held_reply_count);
        }),
    ),
    histogram(
        "gate_wait_seconds",
        "How long connections waited with the replies they held back, by what they waited for.",
        Samples::OfNode(|node, text| {
            for kind in GateKind::ALL {
                text.histogram(
                    &[("kind", &kind.name())],
                    &node.stats.gate_waits[kind as usize],
                );
            }
        }),
    ),
    histogram(
        "log_sync_seconds",
        "Syncs of the log that commits waited for, measured on the disk thread.",
        Samples::OfNode(|node, text| {
            text.histogram(&[], &node.stats.log_syncs);
        }),
    ),
    counter(
        "replication_received_bytes_total",
        "Bytes read from leaders and replicas.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.stats.link_received_bytes);
        }),
    ),
    counter(
        "replication_sent_bytes_total",
        "Bytes made for leaders and replicas.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.stats.link_sent_bytes);
        }),
    ),
    gauge(
        "upload_claimed_bytes",
        "Memory that request bodies on their way claim: what they say they will take, or have \
         taken.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.upload_claimed_bytes);
        }),
    ),
    counter(
        "ended_uploads_total",
        "Uploads ended because memory was short and they were among the slowest.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.stats.ended_upload_count);
        }),
    ),
    counter(
        "ended_downloads_total",
        "Answers cut off because memory was short and their readers were slow, or did not read at \
         all.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.stats.ended_download_count);
        }),
    ),
    gauge(
        "resident_memory_bytes",
        "Memory of the process as the system counts it.",
        Samples::OfNode(|node, text| {
            if let Some(bytes) = node.resident_bytes {
                text.sample(&[], bytes);
            }
        }),
    ),
    gauge(
        "allocated_memory_bytes",
        "Memory allocated by the process: what --max-memory limits.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.allocated_bytes);
        }),
    ),
    gauge(
        "memory_limit_bytes",
        "The limit set by --max-memory, above which sets are refused; 0: none.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.memory_limit_bytes);
        }),
    ),
    gauge(
        "watchers",
        "Requests that are being told of changes.",
        Samples::OfNode(|node, text| {
            text.sample(&[], node.loop_stats.watcher_count);
        }),
    ),
    gauge(
        "memory_bytes",
        "Memory by owner. Log is what only replicas need; large values count once for each layer \
         they are in; indexes of memtables do not count.",
        Samples::OfNode(memory),
    ),
];

/// The metric with a number, in the order in which they are told; those of the node come first.
pub(super) fn family(number: usize) -> Option<&'static Family> {
    OF_NODE.iter().chain(OF_PARTITION).nth(number)
}

fn requests(node: &Report, text: &mut Exposition<'_>) {
    for (endpoint, route) in endpoints() {
        for (status, count) in node.stats.requests.counts(endpoint) {
            text.sample(&[("route", &route), ("code", &status)], count);
        }
    }
}

fn memory(node: &Report, text: &mut Exposition<'_>) {
    let sum =
        |bytes: fn(&PartitionReport) -> usize| node.partitions.iter().map(bytes).sum::<usize>();
    for (owner, bytes) in [
        (
            "memtables",
            sum(|partition| partition.engine.memtables.bytes),
        ),
        ("runs", sum(|partition| partition.engine.runs.bytes)),
        (
            "large_values",
            sum(|partition| {
                partition.engine.memtables.large_bytes + partition.engine.runs.large_bytes
            }),
        ),
        ("log", sum(|partition| partition.engine.retained_log_bytes)),
        ("snapshots", sum(|partition| partition.pinned.bytes)),
        (
            "connections",
            node.stats.connection_bytes + node.stats.connection_table_bytes,
        ),
    ] {
        text.sample(&[("owner", &owner)], bytes);
    }
}
