//! `/metrics`: figures for Prometheus, in its text format.
//!
//! All figures are taken in the turn of the request, so that they fit together: some hundred bytes
//! a partition, of which there are at most [`PARTITIONS_MAX`](crate::node::PARTITIONS_MAX), without
//! a look at data. With 1,024 partitions in memory the longest turn of a scrape took 1.3 ms of
//! processor time, most took less than 0.5 ms. The text, 1.2 MB then, is made of the figures piece
//! by piece as the peer takes it: one family of one partition at a time, so no turn does more than
//! its budget and one such piece.
//!
//! Not here: which metrics there are (`metrics_list.rs`), the format (`metrics/exposition.rs`).

use crate::http::{BodySource, Fill, Refusal, Reply};
use crate::lsm::{Footprint, LevelStats, Stats};
use crate::metrics::{Exposition, NodeStats};
use crate::node::{LoopStats, Slot};
use crate::partition::{DiskLog, FollowerStats, Partition, SnapshotStats};
use crate::storage::{Role, StoreStats};

use super::health::lag_of;
use super::metrics_list::{Samples, family};
use super::{Api, refuse};

const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers on their way at a time: each holds the figures it tells.
const SCRAPE_MAX: usize = 4;

/// Figures of a node as of one moment.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) stats: NodeStats,
    pub(super) loop_stats: LoopStats,
    pub(super) resident_bytes: Option<u64>,
    pub(super) allocated_bytes: usize,
    /// 0: none.
    pub(super) memory_limit_bytes: usize,
    pub(super) upload_claimed_bytes: usize,
    pub(super) is_loading: bool,
    pub(super) is_draining: bool,
    pub(super) partitions: Vec<PartitionReport>,
}

/// … of a partition.
#[derive(Debug)]
pub(super) struct PartitionReport {
    pub(super) id: u32,
    pub(super) role: Role,
    pub(super) epoch: u64,
    pub(super) engine: Stats,
    pub(super) pinned: Footprint,
    pub(super) snapshots: SnapshotStats,
    /// Of one that is kept on disk.
    pub(super) disk: Option<StoreStats>,
    pub(super) durable_version: Option<u64>,
    pub(super) has_failed: bool,
    pub(super) is_stalled: bool,
    pub(super) checkpoints_given_up: Option<u64>,
    /// Of a replica.
    pub(super) is_in_sync: Option<bool>,
    pub(super) lag: Option<u64>,
    pub(super) replicas: Vec<FollowerStats>,
}

impl PartitionReport {
    fn of(partition: &Partition, now_ms: u64) -> Self {
        let role = partition.roles().role();
        let mut engine = partition.lsm().stats();
        // Levels that are empty are told, too, down to the bottom.
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
            replicas: partition.follower_stats(now_ms).collect(),
        }
    }
}

/// The text, on its way.
struct Scrape {
    report: Report,
    /// The family that is being told, and the partition that comes next.
    family: usize,
    partition: usize,
    _slot: Slot,
}

impl BodySource for Scrape {
    fn fill(&mut self, out: &mut Vec<u8>, budget_bytes: usize) -> Fill {
        let end = out.len() + budget_bytes;
        while let Some(family) = family(self.family) {
            let mut text = Exposition::new(out, family.name);
            if self.partition == 0 {
                text.begin(family.kind, family.help);
            }
            let partition = self.report.partitions.get(self.partition);
            match (family.samples, partition) {
                (Samples::OfPartition(tell), Some(partition)) => {
                    tell(partition, &mut text);
                    self.partition += 1;
                }
                (Samples::OfPartition(_), None) => {
                    (self.family, self.partition) = (self.family + 1, 0);
                }
                (Samples::OfNode(tell), _) => {
                    tell(&self.report, &mut text);
                    self.family += 1;
                }
            }
            if out.len() >= end {
                return Fill::More;
            }
        }
        Fill::Done
    }
}

impl Api<'_> {
    pub(super) fn answer_metrics(&mut self, reply: Reply<'_>) {
        let Some(slot) = self.node.scrape_slots.take(SCRAPE_MAX) else {
            let message = format!(
                "{SCRAPE_MAX} answers with metrics are being read: try again when one is done"
            );
            return refuse(reply, &Refusal::new(503, "too_many_scrapes", message));
        };
        let report = self.report();
        let source = Scrape {
            report,
            family: 0,
            partition: 0,
            _slot: slot,
        };
        reply
            .status(200)
            .content_type(EXPOSITION)
            .source(Box::new(source));
    }

    fn report(&self) -> Report {
        let of = |partition| PartitionReport::of(partition, self.now_ms);
        Report {
            stats: self.node.stats.clone(),
            loop_stats: self.node.loop_stats,
            resident_bytes: crate::storage::resident_bytes(),
            allocated_bytes: self.node.used_bytes(),
            memory_limit_bytes: self.node.config().max_memory_bytes.unwrap_or(0),
            upload_claimed_bytes: self.node.bodies.claimed_bytes(),
            is_loading: self.node.loading().is_some(),
            is_draining: self.node.is_draining(),
            partitions: self.node.partitions().iter().map(of).collect(),
        }
    }
}
