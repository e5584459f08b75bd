//! Copies that move: an order adds one node to those that are to have a copy and names another one
//! as leaving, and the partition's leader does the rest.
//!
//! The order is one comparison of the configuration, so any node can write it. From then on it is
//! carried out by the node that leads, whichever that is: the new copy joins the set; if the copy
//! that leaves leads, another one takes over; then it goes out of the set and out of the
//! configuration. Its node keeps it for a minute (`standing.rs`).
//!
//! Invariants:
//! 1. A copy goes out of the set only while the copies of all nodes that stay are in it.
//! 2. One move of a partition at a time, and of a node one copy that comes and one that goes. Two
//!    nodes that are asked in the same moment may exceed that, which costs bandwidth only.
//!
//! Not here: which moves are of use (`balance.rs`), when copies join (`office.rs`).

use std::collections::VecDeque;

use crate::config::REPLICA_MAX;

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
        let CopyMove { from, to, .. } = order;
        log::info!(
            "partition {}: by order, a copy moves: {from:?} to {to:?}",
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
            config.replicas.push(to.clone());
        }
        if let Some(from) = &order.from {
            self.check_going(&config, from)?;
            config.leaving.push(from.clone());
        }
        let staying_count = config.replicas.len() - config.leaving.len();
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
        match self.coming_to(to) {
            Some(id) => Err(MoveRefusal::IsComing(to.to_owned(), id)),
            None => Ok(()),
        }
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
        let read = self.registered.configs.get(&id);
        let revision = read.map_or(0, |(revision, _)| *revision);
        let key = Key::Config(id).in_cluster(&self.prefix());
        let request = Request::Write {
            compares: vec![(key.clone(), revision)],
            puts: vec![(key, proposal.encode())],
            deletes: Vec::new(),
        };
        self.wake_at_ms = 0;
        let requests = VecDeque::from([request]);
        self.operations
            .write(requests, OperationEnd::Changed, now_ms)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cluster::ClusterOptions;
    use crate::cluster::config::{CopyOfNode, NodeValue};
    use crate::storage::{CopyId, IdGenerator};

    /// A configuration: the first node leads, and the copies of `in_sync` are so.
    pub(crate) fn config(replicas: &[&str], in_sync: &[&str], leaving: &[&str]) -> PartitionConfig {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let copies = in_sync.iter().map(|name| CopyOfNode {
            node: (*name).to_owned(),
            copy: CopyId([name.as_bytes()[1]; 16]),
        });
        PartitionConfig {
            epoch: 7,
            in_sync: copies.collect(),
            leaving: names(leaving),
            ..PartitionConfig::first(replicas[0].to_owned(), names(replicas), 2_000)
        }
    }

    /// A node of a cluster of the nodes n0 to n5 that has read these configurations.
    pub(crate) fn cluster(configs: Vec<PartitionConfig>) -> Cluster {
        let options = ClusterOptions {
            cluster: "x".to_owned(),
            node: "n0".to_owned(),
            url: "http://n0".to_owned(),
            zone: String::new(),
            lease_ms: 2_000,
            min_in_sync: 1,
        };
        let mut cluster = Cluster::new(options, IdGenerator::new([1; 16]));
        cluster.registered.is_read = true;
        for number in 0..6 {
            let value = NodeValue::new(format!("http://n{number}"), String::new(), [1, 3]);
            let nodes = &mut cluster.registered.nodes;
            nodes.insert(format!("n{number}"), value);
        }
        let revised = configs.into_iter().map(|config| (9, config));
        cluster.registered.configs = (0..).zip(revised).collect();
        cluster
    }

    fn order(partition: u32, from: &str, to: &str) -> CopyMove {
        let name = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        CopyMove {
            partition,
            from: name(from),
            to: name(to),
        }
    }

    /// What etcd is asked to make of a partition.
    fn written(cluster: &Cluster) -> PartitionConfig {
        let (_, request) = cluster.operations.next_request().expect("a request");
        let Request::Write { compares, puts, .. } = request else {
            panic!("{request:?}");
        };
        assert_eq!((compares.len(), compares[0].1), (1, 9));
        assert_eq!(compares[0].0, puts[0].0);
        PartitionConfig::decode(&puts[0].1).expect("a configuration")
    }

    #[test]
    fn an_order_changes_the_configuration_and_nothing_else() {
        let whole = || config(&["n0", "n1"], &["n0", "n1"], &[]);
        for (from, to, replicas, leaving) in [
            ("n1", "n2", &["n0", "n1", "n2"][..], &["n1"][..]),
            ("n0", "n2", &["n0", "n1", "n2"], &["n0"]),
            ("", "n2", &["n0", "n1", "n2"], &[]),
            ("n1", "", &["n0", "n1"], &["n1"]),
        ] {
            let mut cluster = cluster(vec![whole()]);
            let begun = cluster.begin_move(&order(0, from, to), 0);
            assert!(begun.is_ok(), "{from} {to}: {begun:?}");
            assert_eq!(written(&cluster), config(replicas, &["n0", "n1"], leaving));
            let again = cluster.begin_move(&order(0, from, to), 0);
            assert_eq!(again, Err(MoveRefusal::Changing));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let name = str::to_owned;
        let configs = || {
            vec![
                config(&["n0", "n1"], &["n0", "n1"], &[]),
                config(&["n0", "n2", "n3"], &["n0", "n2"], &["n2"]),
                config(&["n0"], &["n0"], &[]),
            ]
        };
        for (partition, from, to, refusal) in [
            (7, "n0", "n1", MoveRefusal::NoPartition),
            (0, "n0", "n9", MoveRefusal::NoNode(name("n9"))),
            (0, "n4", "n5", MoveRefusal::NoCopy(name("n4"))),
            (0, "n0", "n1", MoveRefusal::HasCopy(name("n1"))),
            (0, "n1", "n1", MoveRefusal::HasCopy(name("n1"))),
            (0, "n1", "n3", MoveRefusal::IsComing(name("n3"), 1)),
            (1, "n0", "n4", MoveRefusal::IsMoving(name("n2"))),
            (2, "n0", "", MoveRefusal::TooFew(0)),
        ] {
            let begun = cluster(configs()).begin_move(&order(partition, from, to), 0);
            assert_eq!(begun, Err(refusal), "{partition} {from} {to}");
        }
        let mut two = configs();
        two[0] = config(&["n2", "n1"], &["n2", "n1"], &[]);
        let begun = cluster(two).begin_move(&order(0, "n2", "n4"), 0);
        assert_eq!(begun, Err(MoveRefusal::IsGoing(name("n2"), 1)));
        let mut strict = cluster(configs());
        strict.options.min_in_sync = 2;
        let begun = strict.begin_move(&order(0, "n1", ""), 0);
        assert_eq!(begun, Err(MoveRefusal::TooFew(1)));
        let mut unread = cluster(configs());
        unread.registered.is_read = false;
        let begun = unread.begin_move(&order(0, "n1", "n4"), 0);
        assert_eq!(begun, Err(MoveRefusal::Unknown));
        let names: Vec<String> = (0..32).map(|number| format!("m{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let begun = cluster(vec![config(&names, &[], &[])]).begin_move(&order(0, "m1", "n4"), 0);
        assert_eq!(begun, Err(MoveRefusal::TooMany(32)));
    }

    #[test]
    fn a_move_is_cancelled_for_as_long_as_the_old_copy_is_there() {
        let (two, three) = (["n0", "n1"], ["n0", "n1", "n2"]);
        for (before, from, to, after) in [
            // The new copy has not joined: it goes at once.
            (
                config(&three, &two, &["n1"]),
                "n1",
                "n2",
                config(&two, &two, &[]),
            ),
            (config(&three, &two, &[]), "", "n2", config(&two, &two, &[])),
            (
                config(&two, &two, &["n1"]),
                "n1",
                "",
                config(&two, &two, &[]),
            ),
            // It has: the leader drops it as any other.
            (
                config(&three, &three, &["n1"]),
                "n1",
                "n2",
                config(&three, &three, &["n2"]),
            ),
            (
                config(&three, &["n0"], &["n1"]),
                "n1",
                "n2",
                config(&two, &["n0"], &[]),
            ),
        ] {
            let mut cluster = cluster(vec![before]);
            let begun = cluster.cancel_move(&order(0, from, to), 0);
            assert!(begun.is_ok(), "{from} {to}: {begun:?}");
            assert_eq!(written(&cluster), after, "{from} {to}");
        }
        for (from, to) in [
            ("n0", "n2"),
            ("n1", "n3"),
            ("n2", ""),
            ("", "n1"),
            ("", "n2"),
            ("", ""),
        ] {
            let mut cluster = cluster(vec![config(&three, &three, &["n1"])]);
            let begun = cluster.cancel_move(&order(0, from, to), 0);
            assert_eq!(begun, Err(MoveRefusal::NoMove), "{from} {to}");
        }
        let mut cluster = cluster(vec![config(&["n0"], &[], &[])]);
        let begun = cluster.cancel_move(&order(0, "", "n0"), 0);
        assert_eq!(begun, Err(MoveRefusal::NoMove), "it is the only one");
    }

    #[test]
    fn a_leader_does_one_step_after_the_other() {
        let (two, three) = (["n0", "n1"], ["n0", "n1", "n2"]);
        let next = |config: PartitionConfig, next: Option<&str>| PartitionConfig {
            next_leader: next.map(str::to_owned),
            ..config
        };
        let change = |config| Some(MoveAction::Change(Box::new(config)));
        for (before, expected) in [
            (config(&three, &two, &["n1"]), None),
            (
                config(&three, &["n0", "n2"], &["n1"]),
                change(config(&["n0", "n2"], &["n0", "n2"], &[])),
            ),
            (
                config(&three, &three, &["n1"]),
                change(config(&["n0", "n2"], &["n0", "n2"], &[])),
            ),
            (
                config(&three, &three, &["n0"]),
                Some(MoveAction::HandOver(None)),
            ),
            (next(config(&three, &two, &["n0"]), Some("n2")), None),
            (
                next(config(&three, &three, &["n0"]), Some("n2")),
                Some(MoveAction::HandOver(Some("n2".to_owned()))),
            ),
            (
                next(config(&two, &two, &[]), Some("n1")),
                Some(MoveAction::HandOver(Some("n1".to_owned()))),
            ),
            // It leads, is to have no copy any more, or has none.
            (
                next(config(&two, &two, &[]), Some("n0")),
                change(config(&two, &two, &[])),
            ),
            (
                next(config(&two, &two, &[]), Some("n2")),
                change(config(&two, &two, &[])),
            ),
            (
                next(config(&three, &three, &["n1"]), Some("n0")),
                change(config(&["n0", "n2"], &["n0", "n2"], &[])),
            ),
        ] {
            let may_leave = before.are_staying_in_sync();
            let found = MoveAction::of(&before, "n0", may_leave);
            assert_eq!(found, expected, "{before:?}");
        }
    }

    /// What an operation has written is known before the configurations are read again.
    #[test]
    fn the_next_order_is_checked_against_the_one_before() {
        let whole = config(&["n0", "n1"], &["n0", "n1"], &[]);
        let mut cluster = cluster(vec![whole.clone(), whole]);
        assert!(cluster.begin_move(&order(0, "n1", "n2"), 0).is_ok());
        let (_, request) = cluster.operations.next_request().expect("a request");
        cluster.operations = crate::cluster::operations::Operations::default();
        cluster.on_operation_written(&request, 12);
        let refusal = |from, to| cluster_refusal(&cluster, from, to);
        assert_eq!(
            refusal("n0", "n2"),
            Some(MoveRefusal::IsComing("n2".to_owned(), 0))
        );
        assert_eq!(
            refusal("n1", "n3"),
            Some(MoveRefusal::IsGoing("n1".to_owned(), 0))
        );
        assert_eq!(refusal("n0", "n3"), None);
        assert_eq!(cluster.registered.configs[&0].0, 12);
    }

    fn cluster_refusal(cluster: &Cluster, from: &str, to: &str) -> Option<MoveRefusal> {
        cluster.moved(&order(1, from, to)).err()
    }
}
