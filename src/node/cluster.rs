//! The node's side of a cluster: its members step beside its partitions, and partitions that the
//! configuration wants here are made.
//!
//! Not here: what members do (`cluster/`), sockets to etcd (`reactor/`).

use crate::cluster::config::{PartitionConfig, partition_of_key};
use crate::cluster::etcd::{Outcome, Request};
use crate::cluster::{
    Cluster, ClusterOptions, CopyMove, ForgetRefusal, Forgotten, HandoverRefusal, InitRefusal,
    Leaving, Made, MoveRefusal, Rebalance, RecoveryRefusal,
};
use crate::config::ClusterInit;
use crate::partition::Assignment;
use crate::storage::Role;

use super::errors::{Subject, Unavailable};
use super::removals::RemovalOrder;
use super::state::{Node, Stage};

impl Node {
    /// The node is one of a cluster, and etcd says what its partitions are. Called before it has
    /// any, with `--await-assignment`.
    pub fn join_cluster(&mut self, options: ClusterOptions) {
        let ids = self.ids.split();
        self.cluster = Some(Box::new(Cluster::new(options, ids)));
        self.follow_spread();
    }

    /// Takes over what the cluster knows of how keys are spread over partitions.
    pub(super) fn follow_spread(&mut self) {
        let Some(cluster) = &self.cluster else { return };
        if self.loading().is_none() {
            self.stage = match cluster.partition_count() {
                Some(1) => Stage::Running,
                count => Stage::SpreadByKey(count),
            };
        }
    }

    /// Whether keys are spread over several partitions: which one a request is about is known once
    /// its key is.
    #[inline]
    pub fn spreads_keys(&self) -> bool {
        matches!(self.stage, Stage::SpreadByKey(Some(_)))
    }

    /// The partition that a key belongs to, where keys are spread over several.
    #[inline]
    pub fn partition_of_key(&self, key: &[u8]) -> Option<u32> {
        match self.stage {
            Stage::SpreadByKey(Some(count)) => Some(partition_of_key(key, count)),
            _ => None,
        }
    }

    /// The index of the partition that a request is about, where keys are spread over `count`.
    #[cold]
    pub(super) fn index_by_key(
        &self,
        count: Option<u32>,
        named: Option<u32>,
        subject: Subject<'_>,
    ) -> Result<usize, Unavailable> {
        match (subject, named, count) {
            (Subject::Node, None, _) => self.unnamed_index(),
            (Subject::Node | Subject::Partition, Some(id), _) => self.named_index(id),
            (_, _, None) => Err(Unavailable::Unread),
            (Subject::Partition, None, Some(count)) => Err(Unavailable::UnnamedOf(count)),
            (Subject::Key(key), named, Some(count)) => {
                let id = partition_of_key(key, count);
                match named {
                    Some(named) if named != id => Err(Unavailable::Wrong(id)),
                    _ => self.named_index(id),
                }
            }
        }
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

    /// Something has happened that the cluster is to look at: on disk, or a new partition.
    pub fn wake_cluster(&mut self) {
        if let Some(cluster) = &mut self.cluster {
            cluster.wake();
        }
    }

    /// What to ask etcd next, with a ticket: an outcome follows.
    pub fn take_etcd_request(&mut self, now_ms: u64) -> Option<(u64, Request)> {
        // What is registered tells of the partitions that are here.
        if self.loading().is_some() {
            return None;
        }
        let cluster = self.cluster.as_mut()?;
        cluster.take_request(now_ms, &self.partitions)
    }

    /// Etcd has answered, or has not.
    pub fn on_etcd_outcome(&mut self, now_ms: u64, outcome: Outcome) {
        if let Some(cluster) = &mut self.cluster {
            cluster.on_outcome(now_ms, outcome, &mut self.partitions);
        }
        self.follow_spread();
    }

    /// Something in etcd may have changed.
    pub fn on_etcd_hint(&mut self) {
        if let Some(cluster) = &mut self.cluster {
            cluster.on_hint();
        }
    }

    /// Begins to hand a partition over, to the copy in sync that is furthest where no node is
    /// named. Returns the number of the operation, and the name of the other node.
    pub fn begin_handover(
        &mut self,
        id: u32,
        to: Option<&str>,
        now_ms: u64,
    ) -> Result<(u64, String), HandoverRefusal> {
        let at = self.index_of(id);
        match (&mut self.cluster, at) {
            (Some(cluster), Some(at)) => {
                cluster.begin_handover(&mut self.partitions[at], to, now_ms)
            }
            _ => Err(HandoverRefusal::NotLeader(None)),
        }
    }

    /// Begins to make the copy of a node the only one in sync, and that node the leader, whatever
    /// other copies hold. Returns the number of the operation, and the new configuration.
    pub fn begin_recovery(
        &mut self,
        id: u32,
        node: &str,
        now_ms: u64,
    ) -> Result<(u64, PartitionConfig), RecoveryRefusal> {
        let cluster = self.cluster.as_mut().ok_or(RecoveryRefusal::Unknown)?;
        cluster.begin_recovery(id, node, &self.partitions, now_ms)
    }

    /// Begins to move a copy; the number of the operation.
    pub fn begin_move(&mut self, order: &CopyMove, now_ms: u64) -> Result<u64, MoveRefusal> {
        let cluster = self.cluster.as_mut().ok_or(MoveRefusal::Unknown)?;
        cluster.begin_move(order, now_ms)
    }

    /// Cancels a move; the number of the operation.
    pub fn cancel_move(&mut self, order: &CopyMove, now_ms: u64) -> Result<u64, MoveRefusal> {
        let cluster = self.cluster.as_mut().ok_or(MoveRefusal::Unknown)?;
        cluster.cancel_move(order, now_ms)
    }

    /// Plans what has to move until all nodes have as much as any other, and begins a part of it
    /// unless this is only to be told.
    pub fn begin_rebalance(
        &mut self,
        is_dry_run: bool,
        now_ms: u64,
    ) -> Result<Rebalance, MoveRefusal> {
        let cluster = self.cluster.as_mut().ok_or(MoveRefusal::Unknown)?;
        cluster.begin_rebalance(is_dry_run, now_ms)
    }

    /// Begins to leave the cluster for good: copies move away first.
    pub fn begin_forgetting(&mut self) -> Result<Forgotten, ForgetRefusal> {
        let cluster = self.cluster.as_mut().ok_or(ForgetRefusal::Unknown)?;
        cluster.begin_forgetting()
    }

    /// The node makes the cluster if it is not there, once enough nodes have registered.
    pub fn init_cluster_by_itself(&mut self, shape: ClusterInit) {
        if let Some(cluster) = &mut self.cluster {
            cluster.init_by_itself(shape);
        }
    }

    /// Begins to make the cluster. Returns the number of the operation, and what is made.
    pub fn begin_init(
        &mut self,
        shape: ClusterInit,
        now_ms: u64,
    ) -> Result<(u64, Made), InitRefusal> {
        let cluster = self.cluster.as_mut().ok_or(InitRefusal::Unknown)?;
        cluster.begin_init(shape, now_ms)
    }

    /// Begins to make a cluster of partition 0 of this node, with its data.
    pub fn begin_adoption(
        &mut self,
        node: &str,
        shape: ClusterInit,
        now_ms: u64,
    ) -> Result<(u64, Made), InitRefusal> {
        let cluster = self.cluster.as_mut().ok_or(InitRefusal::Unknown)?;
        cluster.begin_adoption(node, shape, &self.partitions, now_ms)
    }

    /// Hands over what other nodes can lead, leaves the sets of copies in sync, and takes nothing
    /// new on. The node stops then.
    pub fn begin_leaving(&mut self) -> Leaving {
        let Some(cluster) = &mut self.cluster else {
            return Leaving::default();
        };
        cluster.drain();
        cluster.leaving(&self.partitions)
    }

    /// Whether it hands over what it leads, and stops then.
    pub fn is_leaving(&self) -> bool {
        self.cluster().is_some_and(Cluster::is_draining)
    }

    /// Whether nothing is left to hand over, and no leader waits for a copy of this node.
    pub fn has_left(&self) -> bool {
        self.cluster().is_none_or(|own| {
            let leaving = own.leaving(&self.partitions);
            leaving.handing_over.is_empty() && leaving.in_sync.is_empty()
        })
    }
}
