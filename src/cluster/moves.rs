//! Copies that move: an order adds one node to those that are to have a copy and names another one
//! as leaving, and the partition's leader does the rest.
//!
//! The order is one comparison of the configuration, so any node can write it. From then on it is
//! carried out by the node that leads, whichever that is: the new copy joins the set; if the copy
//! that leaves leads, another one takes over; then it goes out of the set and out of the
//! configuration. Its node keeps it for a minute (`member.rs`).
//!
//! Invariants:
//! 1. A copy goes out of the set only while the copies of all nodes that stay are in it.
//! 2. One move of a partition at a time, and of a node one copy that comes and one that goes. Two
//!    nodes that are asked in the same moment may exceed that, which costs bandwidth only.
//!
//! Not here: which moves are of use (`balance.rs`), when copies join (`office.rs`).

use std::collections::VecDeque;

use crate::config::{COPIES_MAX, REPLICA_MAX};

use super::config::{Key, PartitionConfig};
use super::etcd::Request;
use super::operations::OperationEnd;
use super::state::Cluster;

/// A copy of a partition that comes, goes, or moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyMove {
    /// The partition.
    pub partition: u32,
    /// The node that is to have no copy any more; none: a copy is added.
    pub from: Option<String>,
    /// The node that is to have one; none: a copy is dropped.
    pub to: Option<String>,
}

/// Why a move is not begun, or not cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MoveRefusal {
    /// Etcd was not read yet.
    Unknown,
    /// This node is changing a configuration already.
    Changing,
    /// The configuration cannot be read.
    Unreadable,
    /// The cluster has no such partition.
    NoPartition,
    /// No node of this name has registered.
    NoNode(String),
    /// This node is to have no copy of the partition.
    NoCopy(String),
    /// This node is to have one already.
    HasCopy(String),
    /// The copy of this node is leaving already.
    IsMoving(String),
    /// This node has a copy of that partition that is to join the set.
    IsComing(String, u32),
    /// That node is to stop for good once its copies are gone.
    IsLeaving(String),
    /// The cluster has as many copies as it can have.
    ClusterFull,
    /// The copy of that partition is leaving this node.
    IsGoing(String, u32),
    /// A partition has no more copies than this.
    TooMany(usize),
    /// So many copies would be left, and `--min-in-sync` is more, or none is left.
    TooFew(usize),
    /// There is no such move.
    NoMove,
}

/// How far the copies of a partition are from what its configuration wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveStep {
    /// A copy is not in sync yet.
    Joining,
    /// Another node is to lead before the copy of this one goes.
    HandingOver,
    /// A copy goes out of the set.
    Leaving,
}

impl MoveStep {
    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::HandingOver => "handing over",
            Self::Leaving => "leaving",
        }
    }

    /// That of a partition; none: all is as it is to be.
    pub fn of(config: &PartitionConfig) -> Option<Self> {
        if !config.are_staying_in_sync() {
            return Some(Self::Joining);
        }
        let leaving = config.leaving.first()?;
        Some(if *leaving == config.leader {
            Self::HandingOver
        } else {
            Self::Leaving
        })
    }
}

/// What the leader of a partition does next about copies that leave, and about the node that is to
/// lead.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MoveAction {
    /// It hands over: to this node, or to the copy in sync that is furthest.
    HandOver(Option<String>),
    /// It asks for this configuration.
    Change(Box<PartitionConfig>),
}

impl MoveAction {
    /// That of a leader on this node. `may_leave`: the copies of all nodes that stay are in sync.
    pub(super) fn of(config: &PartitionConfig, node: &str, may_leave: bool) -> Option<Self> {
        let next = config.next_leader.as_ref();
        let leaving = config.leaving.first().filter(|_| may_leave);
        if next.is_none() && leaving.is_none() {
            return None;
        }
        let is_void =
            |next: &&String| *next == node || !config.has_replica(next) || config.has_leaving(next);
        let is_other = |leaving: &&String| *leaving != node;
        let (void, other) = (next.filter(is_void), leaving.filter(is_other));
        if void.is_some() || other.is_some() {
            let mut proposal = config.clone();
            proposal.next_leader = next.filter(|_| void.is_none()).cloned();
            if let Some(other) = other {
                drop_copy(&mut proposal, other);
            }
            return Some(Self::Change(Box::new(proposal)));
        }
        let next = next.filter(|next| config.has_in_sync(next));
        (next.is_some() || leaving.is_some()).then(|| Self::HandOver(next.cloned()))
    }
}

/// Takes a node out of a configuration.
fn drop_copy(config: &mut PartitionConfig, node: &str) {
    config.in_sync.retain(|of| of.node != node);
    config.replicas.retain(|name| name != node);
    config.leaving.retain(|name| name != node);
}

impl Cluster {
    /// Begins a move; returns the number of the operation, which ends once etcd has it.
    pub fn begin_move(&mut self, order: &CopyMove, now_ms: u64) -> Result<u64, MoveRefusal> {
        let proposal = self.moved(order)?;
        let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "nowhere".to_owned());
        let (from, to) = (name(&order.from), name(&order.to));
        log::info!(
            "partition {}: by order, a copy moves from {from} to {to}",
            order.partition
        );
        Ok(self.write_config(order.partition, &proposal, now_ms))
    }

    /// Cancels a move that is under way. A copy that has joined meanwhile leaves again.
    pub fn cancel_move(&mut self, order: &CopyMove, now_ms: u64) -> Result<u64, MoveRefusal> {
        let mut proposal = self.config_to_change(order.partition)?.clone();
        let is_leaving = |name: &String| proposal.leaving.contains(name);
        let is_it = match (&order.from, &order.to) {
            (Some(from), None) => is_leaving(from),
            (Some(from), Some(to)) => is_leaving(from) && !is_leaving(to),
            (None, Some(to)) => {
                let is_last = proposal.replicas.len() < 2;
                proposal.leaving.is_empty() && !proposal.has_in_sync(to) && !is_last
            }
            (None, None) => false,
        };
        let to = order.to.as_ref();
        let is_there = to.is_none_or(|to| proposal.has_replica(to));
        if !is_it || !is_there {
            return Err(MoveRefusal::NoMove);
        }
        proposal
            .leaving
            .retain(|name| Some(name) != order.from.as_ref());
        if let Some(to) = to {
            if proposal.has_in_sync(to) || proposal.leader == *to {
                proposal.leaving.push(to.clone());
            } else {
                drop_copy(&mut proposal, to);
            }
        }
        log::info!(
            "partition {}: by order, a move is cancelled",
            order.partition
        );
        Ok(self.write_config(order.partition, &proposal, now_ms))
    }

    /// Nodes that have registered a copy of a partition and are to have none any more.
    pub fn kept<'c>(
        &'c self,
        id: u32,
        config: &'c PartitionConfig,
    ) -> impl Iterator<Item = &'c str> {
        let copies = self.registered.copies.get(&id).into_iter().flatten();
        let names = copies.map(|(name, _)| &name[..]);
        names.filter(|name| !config.has_replica(name))
    }

    /// The configuration with a move begun.
    pub(super) fn moved(&self, order: &CopyMove) -> Result<PartitionConfig, MoveRefusal> {
        let mut config = self.config_to_change(order.partition)?.clone();
        if let Some(to) = &order.to {
            self.check_coming(&config, to)?;
            self.check_room(order)?;
        }
        if let Some(from) = &order.from {
            self.check_going(&config, from)?;
        }
        config.replicas.extend(order.to.clone());
        config.leaving.extend(order.from.clone());
        let staying_count = config.replicas.len().saturating_sub(config.leaving.len());
        if order.to.is_none() && staying_count < self.options.min_in_sync.max(1) {
            return Err(MoveRefusal::TooFew(staying_count));
        }
        Ok(config)
    }

    /// The configuration of a partition as it was read last, if it can be changed now.
    fn config_to_change(&self, id: u32) -> Result<&PartitionConfig, MoveRefusal> {
        if !self.registered.is_read {
            return Err(MoveRefusal::Unknown);
        }
        if self.is_unreadable(id) {
            return Err(MoveRefusal::Unreadable);
        }
        let read = self.registered.configs.get(&id);
        let (_, config) = read.ok_or(MoveRefusal::NoPartition)?;
        if self.operations.is_writing() {
            return Err(MoveRefusal::Changing);
        }
        Ok(config)
    }

    /// Whether a node can take a copy.
    fn check_coming(&self, config: &PartitionConfig, to: &str) -> Result<(), MoveRefusal> {
        if !self.nodes().contains_key(to) {
            return Err(MoveRefusal::NoNode(to.to_owned()));
        }
        if config.has_replica(to) {
            return Err(MoveRefusal::HasCopy(to.to_owned()));
        }
        if config.replicas.len() >= usize::try_from(REPLICA_MAX).unwrap_or(usize::MAX) {
            return Err(MoveRefusal::TooMany(config.replicas.len()));
        }
        if self.nodes().get(to).is_some_and(|node| node.is_leaving) {
            return Err(MoveRefusal::IsLeaving(to.to_owned()));
        }
        match self.coming_to(to) {
            Some(id) => Err(MoveRefusal::IsComing(to.to_owned(), id)),
            None => Ok(()),
        }
    }

    /// Whether the cluster can have one copy more, if another one does not go for it.
    fn check_room(&self, order: &CopyMove) -> Result<(), MoveRefusal> {
        let all = self.registered.configs.values();
        let copy_count: usize = all.map(|(_, own)| own.replicas.len()).sum();
        let is_full = copy_count >= COPIES_MAX as usize && order.from.is_none();
        if is_full {
            return Err(MoveRefusal::ClusterFull);
        }
        Ok(())
    }

    /// Whether a node can give its copy up.
    fn check_going(&self, config: &PartitionConfig, from: &str) -> Result<(), MoveRefusal> {
        if !config.has_replica(from) {
            return Err(MoveRefusal::NoCopy(from.to_owned()));
        }
        if let Some(leaving) = config.leaving.first() {
            return Err(MoveRefusal::IsMoving(leaving.clone()));
        }
        match self.going_from(from) {
            Some(id) => Err(MoveRefusal::IsGoing(from.to_owned(), id)),
            None => Ok(()),
        }
    }

    /// A partition of which a node has a copy that is to join the set.
    fn coming_to(&self, node: &str) -> Option<u32> {
        let is_coming = |config: &PartitionConfig| {
            config.has_replica(node) && !config.has_in_sync(node) && !config.has_leaving(node)
        };
        self.find_config(is_coming)
    }

    /// A partition of which a node gives its copy up.
    fn going_from(&self, node: &str) -> Option<u32> {
        self.find_config(|config| config.has_leaving(node))
    }

    fn find_config(&self, is_it: impl Fn(&PartitionConfig) -> bool) -> Option<u32> {
        let mut configs = self.registered.configs.iter();
        let (id, _) = configs.find(|(_, (_, config))| is_it(config))?;
        Some(*id)
    }

    /// Etcd has the configurations of an operation: the next one is checked against them.
    pub(super) fn on_operation_written(&mut self, request: &Request, revision: u64) {
        let Request::Write { puts, .. } = request else {
            return;
        };
        let prefix = self.prefix();
        for (key, value) in puts {
            let key = key.strip_prefix(&prefix[..]).and_then(Key::parse);
            if let (Some(Key::Config(id)), Ok(config)) = (key, PartitionConfig::decode(value)) {
                self.registered.configs.insert(id, (revision, config));
            }
        }
    }

    /// Asks etcd for another configuration than the one that was read last.
    pub(super) fn write_config(&mut self, id: u32, proposal: &PartitionConfig, now_ms: u64) -> u64 {
        let requests = VecDeque::from([self.config_request(id, proposal)]);
        self.wake_at_ms = 0;
        self.operations
            .write(requests, OperationEnd::Changed, now_ms)
    }

    /// A write of another configuration than the one that was read last.
    pub(super) fn config_request(&self, id: u32, proposal: &PartitionConfig) -> Request {
        let revision = self.registered.config_revision(id);
        let prefix = self.prefix();
        let key = Key::Config(id).in_cluster(&prefix);
        let mut compares = vec![(key.clone(), revision)];
        let mut puts = vec![(key, proposal.encode())];
        // Where etcd was emptied, it has lost over how many partitions keys are spread, too.
        if let (None, Some(value)) = (self.value(), self.last_value()) {
            let key = Key::Cluster.in_cluster(&prefix);
            compares.push((key.clone(), 0));
            puts.push((key, value.encode()));
        }
        Request::Write {
            compares,
            puts,
            deletes: Vec::new(),
        }
    }
}
