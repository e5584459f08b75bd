//! Requests, slow requests and memory in `/status`.
//!
//! Invariant: their size does not depend on what peers send: some 3 KB in all.

use serde::Serialize;

use crate::metrics::{Histogram, NodeStats, RequestPart, SlowRequest};
use crate::node::Node;

use crate::api::metrics::memory_owners::MemoryByOwner;
use crate::api::request::route::Group;

/// How many requests there were and how long they took, since the start.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RequestsStatus<'n> {
    /// The upper bounds of the buckets in `groups`; a further bucket has no bound.
    bounds_us: Vec<u64>,
    groups: Vec<GroupStatus<'n>>,
    /// Requests that took longer than `--slow-request-ms`.
    slow: u64,
    /// The last of them, the newest first.
    slow_recent: Vec<SlowRequestStatus>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupStatus<'n> {
    name: &'static str,
    /// Requests by bucket of their duration.
    counts: &'n [u64],
    /// Their durations together.
    sum_us: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SlowRequestStatus {
    method: &'static str,
    route: &'static str,
    status: u16,
    partition: Option<u32>,
    ago_ms: u64,
    took_us: u64,
    /// How many of one connection were slow together; this is the last of them.
    count: u64,
    queued_us: u64,
    executed_us: u64,
    disk_us: u64,
    acks_us: u64,
    role_us: u64,
    sending_us: u64,
}

/// Memory that is in use now.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MemoryStatus {
    /// What `--max-memory` limits.
    allocated_bytes: usize,
    limit_bytes: Option<usize>,
    /// Of the process, as the system counts it; none if it does not tell.
    resident_bytes: Option<u64>,
    by_owner: MemoryByOwner,
}

impl<'n> RequestsStatus<'n> {
    pub(super) fn of(stats: &'n NodeStats, now_ms: u64) -> Self {
        let groups = Group::NAMES.map(|(group, name)| {
            let durations = stats.requests.durations(group.number());
            GroupStatus {
                name,
                counts: durations.counts(),
                sum_us: durations.sum_us(),
            }
        });
        let slow = &stats.slow_requests;
        Self {
            bounds_us: Histogram::bounds_us().collect(),
            groups: groups.into(),
            slow: slow.count(),
            slow_recent: slow
                .recent()
                .map(|request| SlowRequestStatus::of(request, now_ms))
                .collect(),
        }
    }
}

impl SlowRequestStatus {
    fn of(request: &SlowRequest, now_ms: u64) -> Self {
        let part_us = |part: RequestPart| request.parts_us[part as usize];
        Self {
            method: request.method,
            route: request.route,
            status: request.status,
            partition: request.partition,
            ago_ms: now_ms.saturating_sub(request.at_ms),
            took_us: request.took_us,
            count: request.count,
            queued_us: part_us(RequestPart::Queued),
            executed_us: part_us(RequestPart::Executed),
            disk_us: part_us(RequestPart::Disk),
            acks_us: part_us(RequestPart::Acks),
            role_us: part_us(RequestPart::Role),
            sending_us: part_us(RequestPart::Sending),
        }
    }
}

impl MemoryStatus {
    pub(super) fn of(node: &Node) -> Self {
        let mut by_owner = MemoryByOwner::of_connections(&node.stats);
        for partition in node.partitions() {
            by_owner.add(&partition.lsm().stats(), partition.pinned());
        }
        Self {
            allocated_bytes: node.used_bytes(),
            limit_bytes: node.config().max_memory_bytes,
            resident_bytes: crate::storage::resident_bytes(),
            by_owner,
        }
    }
}
