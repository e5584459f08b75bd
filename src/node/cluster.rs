//! The node's side of a cluster: its members step beside its partitions, and partitions that the
//! configuration wants here are made.
//!
//! Not here: what members do (`cluster/`), sockets to etcd (`reactor/`).

use crate::cluster::etcd::{Outcome, Request};
use crate::cluster::{Cluster, ClusterOptions};
use crate::partition::Assignment;
use crate::storage::Role;

use super::removals::RemovalOrder;
use super::state::Node;

impl Node {
    /// The node is one of a cluster, and etcd says what its partitions are. Called before it has
    /// any, with `--await-assignment`.
    pub fn join_cluster(&mut self, options: ClusterOptions) {
        let ids = self.ids.split();
        self.cluster = Some(Box::new(Cluster::new(options, ids)));
    }

    /// The cluster that it is one of.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_deref()
    }

    /// Does what is due for the cluster. `now_ms` was read after all that has come so far.
    pub fn step_cluster(&mut self, now_ms: u64) {
        if self.loading().is_some() {
            return;
        }
        let Some(cluster) = &mut self.cluster else {
            return;
        };
        cluster.step(now_ms, &mut self.partitions);
        let missing: Vec<u32> = cluster.missing(&self.partitions).collect();
        for id in missing {
            let is_begun = self.openings.pending.iter().any(|opening| opening.id == id);
            if !is_begun {
                self.make_copy(id);
            }
        }
        self.remove_unwanted(now_ms);
    }

    /// Removes a copy that the configuration does not want any more.
    fn remove_unwanted(&mut self, now_ms: u64) {
        let Some(cluster) = &self.cluster else { return };
        let Some((id, epoch)) = cluster.unwanted(&self.partitions, now_ms).next() else {
            return;
        };
        let order = RemovalOrder {
            epoch: Some(epoch),
            discards: true,
        };
        match self.give_up(id, order, now_ms) {
            Ok(_) => log::info!("partition {id}: its copy is not wanted here: it is removed"),
            Err(refusal) => log::debug!("partition {id}: its copy stays: {refusal:?}"),
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.on_removed(id);
        }
    }

    /// Makes an empty copy of a partition, which follows its leader once it is there.
    fn make_copy(&mut self, id: u32) {
        let assignment = Assignment {
            role: Role::Unassigned,
            epoch: None,
            leader: None,
            peers: Vec::new(),
        };
        match self.assign(id, assignment) {
            Ok(_) => log::info!("partition {id}: this node is to have a copy: it is made"),
            Err(refusal) => log::debug!("partition {id}: no copy is made yet: {refusal:?}"),
        }
    }

    /// When [`step_cluster`](Self::step_cluster) is to be called next; none: never.
    pub fn cluster_wake_at_ms(&self) -> Option<u64> {
        let cluster = self.cluster.as_ref()?;
        Some(cluster.wake_at_ms())
    }

    /// Something has happened that the cluster is to look at: a confirmation, a change on disk.
    pub fn wake_cluster(&mut self) {
        if let Some(cluster) = &mut self.cluster {
            cluster.wake();
        }
    }

    /// What to ask etcd next, with a ticket: an outcome follows.
    pub fn take_etcd_request(&mut self, now_ms: u64) -> Option<(u64, Request)> {
        let cluster = self.cluster.as_mut()?;
        cluster.take_request(now_ms, &self.partitions)
    }

    /// Etcd has answered, or has not.
    pub fn on_etcd_outcome(&mut self, now_ms: u64, outcome: Outcome) {
        if let Some(cluster) = &mut self.cluster {
            cluster.on_outcome(now_ms, outcome, &mut self.partitions);
        }
    }

    /// Something in etcd may have changed.
    pub fn on_etcd_hint(&mut self) {
        if let Some(cluster) = &mut self.cluster {
            cluster.on_hint();
        }
    }

    /// Hands a partition over to another node; false if that cannot be.
    pub fn hand_over(&mut self, id: u32, to: &str, now_ms: u64) -> bool {
        let Some(index) = self.index_of(id) else {
            return false;
        };
        let cluster = self.cluster.as_mut();
        cluster.is_some_and(|cluster| cluster.hand_over(&mut self.partitions[index], to, now_ms))
    }
}
