//! What an operator can ask of a cluster: to hand a partition over, to recover one by force, to
//! leave.
//!
//! Not here: the rules of a hand-over (`leading.rs`), how operations go on (`operations.rs`).

use crate::config::REPLICA_MAX;
use crate::partition::{Partition, WaitProgress};

use super::config::{CopyOfNode, PartitionConfig, epoch_above};
use super::member::{HandoverEnd, Member};
use super::operations::{HandingOver, OPERATION_MAX_MS, OperationEnd};
use super::state::Cluster;

/// After a hand-over, time until this node has to follow the other one.
const SEEN_MAX_MS: u64 = 1_000;

/// The epoch of a recovery is so far above those that are known: higher than those of nodes that
/// come back later, which none tells of.
const RECOVERY_LEAP: u64 = 1_000;

/// A node that leaves hands over so many partitions at a time.
const LEAVING_AT_ONCE: usize = 4;

/// Why a hand-over does not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandoverRefusal {
    /// Another node leads; its address, where it is known.
    NotLeader(Option<String>),
    /// One is under way.
    UnderWay,
    /// The node that was named, if one was, has no other copy in sync; these nodes have.
    NotInSync(Vec<String>),
}

/// Why a partition is not recovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryRefusal {
    /// Etcd was not read yet.
    Unknown,
    /// The cluster has no such partition.
    NoPartition,
    /// That node has registered no copy of the partition.
    NoCopy,
}

/// What a node that leaves does with its partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaving {
    /// Those that go to other nodes.
    pub handing_over: Vec<u32>,
    /// Those of which no other copy is in sync: they stop with the node.
    pub staying: Vec<u32>,
    /// Those that other nodes lead, and of which this node's copy is named in sync: it leaves the
    /// set first.
    pub in_sync: Vec<u32>,
}

impl Cluster {
    /// How an operation ended; none: it is under way, or ended long ago.
    pub fn operation_end(&self, number: u64) -> Option<OperationEnd> {
        self.operations.end_of(number)
    }

    /// How far the wait for an operation is.
    pub fn operation_progress(&self, number: u64) -> WaitProgress {
        self.operations.progress(number)
    }

    /// Begins to hand a partition over, to the copy in sync that is furthest where no node is
    /// named. Returns the number of the operation, and the name of the other node.
    pub fn begin_handover(
        &mut self,
        partition: &mut Partition,
        to: Option<&str>,
        now_ms: u64,
    ) -> Result<(u64, String), HandoverRefusal> {
        let id = partition.id();
        let member = self.members.get(&id);
        let leader = member.and_then(Member::config).map(|own| &own.leader);
        let url = leader.and_then(|name| self.nodes().get(name));
        let url = url.map(|node| node.url.clone());
        let Some(member) = member.filter(|member| member.is_in_office()) else {
            return Err(HandoverRefusal::NotLeader(url));
        };
        if to == Some(&self.options.node[..]) {
            let number = self.operations.next_number();
            self.operations.end(number, OperationEnd::Done, now_ms);
            return Ok((number, self.options.node.clone()));
        }
        if self.operations.is_handing_over(id) {
            return Err(HandoverRefusal::UnderWay);
        }
        let in_sync = member.config().into_iter().flat_map(|own| &own.in_sync);
        let own = &self.options.node;
        let others = in_sync.map(|of| &of.node).filter(|name| *name != own);
        let others: Vec<String> = others.cloned().collect();
        let to = to
            .map(str::to_owned)
            .or_else(|| member.successor(partition));
        let Some(to) = to.filter(|to| others.contains(to)) else {
            return Err(HandoverRefusal::NotInSync(others));
        };
        self.wake_at_ms = 0;
        let member = self.members.get_mut(&id);
        if !member.is_some_and(|member| member.hand_over(&to, now_ms, now_ms, partition)) {
            return Err(HandoverRefusal::UnderWay);
        }
        let number = self.operations.next_number();
        self.operations.handovers.push(HandingOver {
            number,
            partition: id,
            to: to.clone(),
            begun_at_ms: now_ms,
            named_at_ms: None,
        });
        Ok((number, to))
    }

    /// Begins to make the copy of a node the only one in sync, and that node the leader, whatever
    /// other copies hold. Returns the number of the operation, and the new configuration.
    pub fn begin_recovery(
        &mut self,
        id: u32,
        node: &str,
        partitions: &[Partition],
        now_ms: u64,
    ) -> Result<(u64, PartitionConfig), RecoveryRefusal> {
        if !self.registered.is_read {
            return Err(RecoveryRefusal::Unknown);
        }
        let read = self.registered.configs.get(&id).cloned();
        let partition_count = self.partition_count().unwrap_or(u32::MAX);
        if read.is_none() && id >= partition_count {
            return Err(RecoveryRefusal::NoPartition);
        }
        let at = partitions.binary_search_by_key(&id, Partition::id);
        let own = at.ok().map(|at| &partitions[at]);
        let copies = self.registered.copies.get(&id);
        let registered = copies.and_then(|of| of.get(node)).map(|record| record.copy);
        let is_own = node == self.options.node;
        let copy = own.filter(|_| is_own).map(Partition::copy).or(registered);
        let copy = copy.ok_or(RecoveryRefusal::NoCopy)?;
        let known = read.map(|(_, config)| config);
        let config = known.unwrap_or_else(|| self.lost_config(id, node));
        let own_epoch = own.map_or(0, |own| own.roles().meta().epoch);
        let records = copies.into_iter().flatten().map(|(_, record)| record);
        let member = self.members.get(&id);
        let doubts = records.clone().map(|record| record.doubts);
        let doubted = doubts.fold(member.map_or(0, Member::doubted_epoch), u64::max);
        let epochs = records.map(|record| record.epoch);
        let newest = epochs.fold(config.epoch.max(own_epoch).max(doubted), u64::max);
        let epoch = epoch_above(newest, RECOVERY_LEAP);
        let mut replicas = config.replicas.clone();
        if !config.has_replica(node) {
            replicas.push(node.to_owned());
        }
        let leaving = config.leaving.iter().filter(|name| *name != node);
        let proposal = PartitionConfig {
            epoch,
            leader: node.to_owned(),
            handed_over: false,
            in_sync: vec![CopyOfNode {
                node: node.to_owned(),
                copy,
            }],
            replicas,
            leaving: leaving.cloned().collect(),
            next_leader: None,
            recovered: epoch,
            ..config.clone()
        };
        log::warn!(
            "partition {id}: recovered by order: {node} is to lead in epoch {epoch}, whatever \
             other copies hold"
        );
        Ok((self.write_config(id, &proposal, now_ms), proposal))
    }

    /// The configuration of a partition that etcd does not have: as this node has read it last, or
    /// a new one, of the copies, or else of the nodes, that have registered.
    fn lost_config(&self, id: u32, leader: &str) -> PartitionConfig {
        if let Some(known) = self.members.get(&id).and_then(Member::config) {
            return known.clone();
        }
        let copies = self.registered.copies.get(&id);
        let of_copies = copies.map(|of| of.keys().cloned().collect());
        let known: Vec<String> =
            of_copies.unwrap_or_else(|| self.nodes().keys().cloned().collect());
        let others = known.into_iter().filter(|name| name != leader);
        let replicas = std::iter::once(leader.to_owned()).chain(others);
        let replicas = replicas.take(REPLICA_MAX as usize).collect();
        PartitionConfig::first(leader.to_owned(), replicas, self.options.lease_ms)
    }

    /// What becomes of this node's partitions when it leaves.
    pub fn leaving(&self, partitions: &[Partition]) -> Leaving {
        let mut leaving = Leaving::default();
        for partition in partitions {
            let id = partition.id();
            let Some(member) = self.members.get(&id) else {
                continue;
            };
            let in_sync_count = member.config().map_or(0, |config| config.in_sync.len());
            let is_in_sync = |config: &PartitionConfig| {
                config.leader != self.options.node && config.is_in_sync(partition.copy())
            };
            match (member.is_in_office() || member.is_named(), in_sync_count) {
                (true, 0 | 1) => leaving.staying.push(id),
                (true, _) => leaving.handing_over.push(id),
                (false, _) if member.config().is_some_and(is_in_sync) => leaving.in_sync.push(id),
                (false, _) => {}
            }
        }
        leaving
    }

    /// Does what is due for operations.
    pub(super) fn step_operations(&mut self, now_ms: u64, partitions: &mut [Partition]) {
        let mut handovers = std::mem::take(&mut self.operations.handovers);
        handovers.retain_mut(|handover| {
            let at = partitions.binary_search_by_key(&handover.partition, Partition::id);
            let partition = at.ok().map(|at| &partitions[at]);
            let end = self.handover_end(handover, partition, now_ms);
            if let Some(end) = end {
                let (id, to) = (handover.partition, &handover.to);
                log::info!("partition {id}: the hand-over to {to} ended: {end:?}");
                self.operations.end(handover.number, end, now_ms);
            }
            end.is_none()
        });
        self.operations.handovers = handovers;
        if self.is_draining {
            for id in self.leaving(partitions).handing_over {
                let is_full = self.operations.handovers.len() >= LEAVING_AT_ONCE;
                let at = partitions.binary_search_by_key(&id, Partition::id);
                if let Ok(at) = at
                    && !is_full
                {
                    // Where no copy follows just now, it is tried again.
                    let _ = self.begin_handover(&mut partitions[at], None, now_ms);
                }
            }
        }
        self.operations.clean(now_ms);
        if !self.operations.handovers.is_empty() {
            self.wake_at_ms = self.wake_at_ms.min(now_ms + 5);
        }
        if let Some(late_at_ms) = self.operations.late_at_ms() {
            self.wake_at_ms = self.wake_at_ms.min(late_at_ms);
        }
    }

    /// How a hand-over has ended, if it has.
    fn handover_end(
        &mut self,
        handover: &mut HandingOver,
        partition: Option<&Partition>,
        now_ms: u64,
    ) -> Option<OperationEnd> {
        let member = self.members.get_mut(&handover.partition)?;
        let leader = member.config().map(|config| config.leader.clone());
        let is_named = leader.as_ref() == Some(&handover.to);
        if let Some(named_at_ms) = handover.named_at_ms {
            let epoch = member.config().map(|config| config.epoch);
            let stats = partition.and_then(|partition| partition.leader_stats(now_ms));
            let followed = stats.and_then(|stats| stats.leader_epoch);
            if followed.is_some() && followed >= epoch {
                return Some(OperationEnd::Done);
            }
            let is_late = now_ms.saturating_sub(named_at_ms) >= SEEN_MAX_MS;
            return is_late.then_some(OperationEnd::Unseen);
        }
        match member.take_ended_handover() {
            Some(HandoverEnd::TooSlow) => return Some(OperationEnd::TooSlow),
            Some(HandoverEnd::Superseded) => return Some(OperationEnd::Changed),
            Some(HandoverEnd::Done) => handover.named_at_ms = Some(now_ms),
            // The answer was lost, and the configuration was read.
            None if !member.is_in_office() && is_named => handover.named_at_ms = Some(now_ms),
            None if !member.is_in_office() => return Some(OperationEnd::Changed),
            None => {}
        }
        let is_late = now_ms.saturating_sub(handover.begun_at_ms) >= OPERATION_MAX_MS;
        is_late.then_some(OperationEnd::Unknown)
    }
}
