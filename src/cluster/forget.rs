//! A node that leaves for good: its copies move to other nodes, one at a time, or are dropped where
//! no node can take one; then it deletes what it has registered, and stops.
//!
//! Until then it serves as before. In etcd it says that it leaves, so that no other node has copies
//! moved to it. What is here is forgotten at a restart: the node then stays, with the copies that
//! it has left.
//!
//! Not here: how a copy moves (`moves.rs`), where to (`balance.rs`), stopping (`reactor/`).

use std::collections::VecDeque;

use crate::partition::Partition;

use super::balance::Plan;
use super::config::{Key, PartitionConfig};
use super::etcd::Request;
use super::moves::CopyMove;
use super::operations::OperationEnd;
use super::state::Cluster;

/// Time from one look at what is left to the next.
const LOOK_MS: u64 = 100;

/// What becomes of the copies of a node that leaves for good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Partitions of which another node gets a copy.
    pub moving: Vec<u32>,
    /// Partitions that have one copy less then.
    pub dropping: Vec<u32>,
}

/// Why a node does not leave for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForgetRefusal {
    /// Etcd was not read yet.
    Unknown,
    /// No other node can take the copy of this partition, and it is needed.
    Needed(u32),
}

impl Cluster {
    /// Begins to leave for good.
    pub fn begin_forgetting(&mut self) -> Result<Forgotten, ForgetRefusal> {
        if !self.registered.is_read {
            return Err(ForgetRefusal::Unknown);
        }
        let mut plan = Plan::of(self);
        let mut forgotten = Forgotten::default();
        for (id, (_, config)) in &self.registered.configs {
            if !config.has_replica(&self.options.node) {
                continue;
            }
            if self.place_in(&mut plan, *id).is_some() {
                forgotten.moving.push(*id);
            } else if self.can_drop(config) {
                forgotten.dropping.push(*id);
            } else {
                return Err(ForgetRefusal::Needed(*id));
            }
        }
        log::info!("this node leaves for good: its copies move to other nodes first");
        self.operations.forgetting.get_or_insert_default();
        self.wake_at_ms = 0;
        Ok(forgotten)
    }

    /// Whether it leaves for good.
    pub(super) fn is_forgetting(&self) -> bool {
        self.operations.forgetting.is_some()
    }

    /// Where in the plan the node is that this node's copy can go to.
    fn place_in(&self, plan: &mut Plan, id: u32) -> Option<usize> {
        let own = plan.place_of(&self.options.node);
        plan.place_for(id, own.unwrap_or(usize::MAX))
    }

    /// Whether enough copies in sync are left without this node's.
    fn can_drop(&self, config: &PartitionConfig) -> bool {
        let names = config.in_sync.iter().map(|of| &of.node);
        let others = names.filter(|name| **name != self.options.node && !config.has_leaving(name));
        others.count() >= self.options.min_in_sync.max(1)
    }

    /// Does what is due for leaving for good.
    pub(super) fn step_forgetting(&mut self, now_ms: u64, partitions: &[Partition]) {
        let Some(forgetting) = &mut self.operations.forgetting else {
            return;
        };
        if self.is_draining {
            return;
        }
        let deletion = forgetting.deletion;
        if now_ms >= forgetting.next_at_ms {
            forgetting.next_at_ms = now_ms + LOOK_MS;
            self.wake_at_ms = self.wake_at_ms.min(now_ms + LOOK_MS);
            let end = deletion.and_then(|number| self.operations.end_of(number));
            if end == Some(OperationEnd::Done) {
                return self.drain();
            }
            if !self.operations.is_writing() {
                self.forget_next(now_ms, partitions);
            }
        } else {
            self.wake_at_ms = self.wake_at_ms.min(forgetting.next_at_ms);
        }
    }

    /// Begins to move or to drop the next copy; where none is left, deletes the registration.
    fn forget_next(&mut self, now_ms: u64, partitions: &[Partition]) {
        let own = &self.options.node;
        let mut plan = Plan::of(self);
        let (mut is_last, mut next) = (partitions.is_empty(), None);
        for (id, (_, config)) in &self.registered.configs {
            if !config.has_replica(own) {
                continue;
            }
            is_last = false;
            if config.has_leaving(own) {
                return;
            }
            if next.is_some() || !config.leaving.is_empty() {
                continue;
            }
            let place = self.place_in(&mut plan, *id);
            let can_go = match place {
                Some(to) => !plan.nodes[to].is_taking,
                None => self.can_drop(config),
            };
            next = can_go.then_some((*id, place));
        }
        if let Some((partition, place)) = next {
            let order = CopyMove {
                partition,
                from: Some(own.clone()),
                to: place.map(|to| plan.nodes[to].name.clone()),
            };
            // What stands in its way passes: it is tried again.
            let _ = self.begin_move(&order, now_ms);
        }
        let mut copies = self.registered.copies.values();
        if is_last && !copies.any(|of| of.contains_key(&self.options.node)) {
            let delete = Request::Write {
                compares: Vec::new(),
                puts: Vec::new(),
                deletes: vec![Key::Node(&self.options.node).in_cluster(&self.prefix())],
            };
            log::info!("this node has no copies any more: it is forgotten");
            let requests = VecDeque::from([delete]);
            let end = OperationEnd::Changed;
            let number = self.operations.write(requests, end, now_ms);
            if let Some(forgetting) = &mut self.operations.forgetting {
                forgetting.deletion = Some(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::moves_tests::{cluster, config};

    #[test]
    fn a_copy_that_is_needed_keeps_its_node() {
        let configs = || {
            vec![
                config(&["n0", "n1"], &["n0", "n1"], &[]),
                config(&["n1", "n2"], &["n1", "n2"], &[]),
                config(&["n0", "n1"], &["n0", "n1"], &[]),
            ]
        };
        let forgotten = |moving: &[u32], dropping: &[u32]| Forgotten {
            moving: moving.to_vec(),
            dropping: dropping.to_vec(),
        };
        let mut all = cluster(configs());
        assert_eq!(all.begin_forgetting(), Ok(forgotten(&[0, 2], &[])));
        assert_eq!(all.begin_forgetting(), Ok(forgotten(&[0, 2], &[])));
        // Without nodes that could take them.
        let few = |configs| {
            let mut few = cluster(configs);
            let nodes = &mut few.registered.nodes;
            nodes.retain(|name, _| ["n0", "n1"].contains(&&name[..]));
            few
        };
        assert_eq!(
            few(configs()).begin_forgetting(),
            Ok(forgotten(&[], &[0, 2]))
        );
        let mut strict = few(configs());
        strict.options.min_in_sync = 2;
        assert_eq!(strict.begin_forgetting(), Err(ForgetRefusal::Needed(0)));
        let mut single = configs();
        single[2] = config(&["n0", "n1"], &["n0"], &[]);
        let mut single = few(single);
        assert_eq!(single.begin_forgetting(), Err(ForgetRefusal::Needed(2)));
        assert!(!single.is_forgetting());
        let mut unread = cluster(configs());
        unread.registered.is_read = false;
        assert_eq!(unread.begin_forgetting(), Err(ForgetRefusal::Unknown));
    }

    #[test]
    fn copies_go_one_at_a_time_and_the_registration_last() {
        let mut cluster = cluster(vec![
            config(&["n0", "n1"], &["n0", "n1"], &[]),
            config(&["n1", "n2"], &["n1", "n2"], &[]),
        ]);
        assert!(cluster.begin_forgetting().is_ok());
        cluster.step_forgetting(1_000, &[]);
        let (number, request) = cluster.operations.next_request().expect("a move");
        cluster.step_forgetting(2_000, &[]);
        assert_eq!(
            cluster.operations.next_request().map(|(number, _)| number),
            Some(number)
        );
        let answer = crate::cluster::etcd::Answer::Written { revision: 10 };
        cluster.operations.on_outcome(number, Some(&answer), 2_000);
        cluster.on_operation_written(&request, 10);
        assert!(cluster.registered.configs[&0].1.has_leaving("n0"));
        cluster.step_forgetting(3_000, &[]);
        assert!(cluster.operations.next_request().is_none(), "one at a time");
        let gone = config(&["n1", "n3"], &["n1", "n3"], &[]);
        cluster.registered.configs.insert(0, (11, gone));
        cluster.step_forgetting(4_000, &[]);
        let (number, request) = cluster.operations.next_request().expect("a deletion");
        let Request::Write { puts, deletes, .. } = request else {
            panic!("{request:?}");
        };
        assert_eq!(
            (puts.len(), &deletes[..]),
            (0, &["/db-node/x/nodes/n0".to_owned()][..])
        );
        // Without an answer it is tried again.
        cluster.operations.on_outcome(number, None, 4_000);
        cluster.step_forgetting(5_000, &[]);
        let (number, _) = cluster.operations.next_request().expect("another deletion");
        cluster.operations.on_outcome(number, Some(&answer), 5_000);
        assert!(!cluster.is_draining());
        cluster.step_forgetting(6_000, &[]);
        assert!(cluster.is_draining());
    }
}
