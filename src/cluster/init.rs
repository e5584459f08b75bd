//! Making a cluster: a configuration for each partition, and then the key that says that all of it
//! is there.
//!
//! Each key is written only if it is not there. What was begun and not finished is finished by the
//! same order again.

use std::collections::{BTreeMap, VecDeque};

use crate::config::{ClusterInit, WhenAllLost};
use crate::partition::Partition;

use super::config::{ClusterValue, CopyOfNode, Key, PartitionConfig, epoch_above};
use super::etcd::Request;
use super::operations::{InitByItself, InitRefusal, OperationEnd};
use super::placement::place;
use super::state::Cluster;

/// Keys of one transaction: etcd takes 128 by default.
const KEYS_PER_WRITE: usize = 100;

/// A node that makes the cluster by itself tries again after this time.
const RETRY_MS: u64 = 1_000;

/// The configurations of a new cluster.
pub type Made = BTreeMap<u32, PartitionConfig>;

impl Cluster {
    /// The node makes the cluster once enough nodes have registered, if it is not there and
    /// none of them has data.
    pub fn init_by_itself(&mut self, shape: ClusterInit) {
        self.init_by_itself = Some(InitByItself {
            shape,
            next_at_ms: 0,
            last_refusal: None,
        });
    }

    /// Begins to make the cluster. Returns the number of the operation, and what is made.
    pub fn begin_init(
        &mut self,
        shape: ClusterInit,
        now_ms: u64,
    ) -> Result<(u64, Made), InitRefusal> {
        self.check_new()?;
        let node_count = self.nodes().len();
        let replica_count = usize::try_from(shape.replicas).unwrap_or(usize::MAX);
        if node_count < replica_count {
            return Err(InitRefusal::TooFewNodes(node_count));
        }
        let configs = &self.registered.configs;
        let mut with_data = self.nodes().iter().filter(|(_, node)| node.has_data);
        // What was begun, or recovered, is theirs.
        if let Some((name, _)) = with_data.next().filter(|_| configs.is_empty()) {
            return Err(InitRefusal::HasData(name.clone()));
        }
        if let Some((last, _)) = configs.last_key_value()
            && *last >= shape.partitions
        {
            return Err(InitRefusal::OtherShape(last + 1));
        }
        let nodes = self.nodes().iter();
        let zones = nodes.map(|(name, node)| (name.clone(), node.zone.clone()));
        let placed = place(&zones.collect(), shape.partitions, replica_count);
        let lease_ms = self.options.lease_ms;
        let fresh = (0..).zip(placed).map(|(id, names)| {
            let leader = names.first().cloned().unwrap_or_default();
            (id, PartitionConfig::first(leader, names, lease_ms))
        });
        Ok(self.make(fresh.collect(), shape.when_all_lost, now_ms))
    }

    /// Begins to make a cluster of partition 0 of this node, with its data.
    pub fn begin_adoption(
        &mut self,
        node: &str,
        shape: ClusterInit,
        partitions: &[Partition],
        now_ms: u64,
    ) -> Result<(u64, Made), InitRefusal> {
        self.check_new()?;
        if node != self.options.node {
            let url = self.nodes().get(node).map(|node| node.url.clone());
            return Err(InitRefusal::NotHere(url));
        }
        let own = partitions.iter().find(|own| own.id() == 0);
        let own = own.ok_or(InitRefusal::NothingToAdopt)?;
        let others = self.nodes().keys().filter(|name| *name != node);
        let names = std::iter::once(node.to_owned()).chain(others.cloned());
        let replica_count = usize::try_from(shape.replicas).unwrap_or(usize::MAX);
        let replicas: Vec<String> = names.take(replica_count).collect();
        // An operator has decided, also where etcd was emptied.
        let epoch = epoch_above(own.roles().meta().epoch, 1);
        let config = PartitionConfig {
            epoch,
            recovered: epoch,
            in_sync: vec![CopyOfNode {
                node: node.to_owned(),
                copy: own.copy(),
            }],
            ..PartitionConfig::first(node.to_owned(), replicas, self.options.lease_ms)
        };
        Ok(self.make(Made::from([(0, config)]), shape.when_all_lost, now_ms))
    }

    fn check_new(&self) -> Result<(), InitRefusal> {
        match self.value() {
            _ if !self.registered.is_read => Err(InitRefusal::Unknown),
            Some(_) => Err(InitRefusal::Exists),
            None => Ok(()),
        }
    }

    /// Writes what is missing, the key of the cluster last.
    fn make(&mut self, fresh: Made, when_all_lost: WhenAllLost, now_ms: u64) -> (u64, Made) {
        let mut puts = Vec::new();
        let mut made = Made::new();
        for (id, config) in fresh {
            let known = self.registered.configs.get(&id);
            if known.is_none() {
                puts.push((Key::Config(id).in_cluster(&self.prefix()), config.encode()));
            }
            made.insert(id, known.map_or(config, |(_, known)| known.clone()));
        }
        let count = u32::try_from(made.len()).unwrap_or(u32::MAX);
        let value = ClusterValue::new(self.ids.draw(), count, when_all_lost);
        let mut requests: VecDeque<Request> = puts.chunks(KEYS_PER_WRITE).map(create).collect();
        let key = Key::Cluster.in_cluster(&self.prefix());
        requests.push_back(create(&[(key, value.encode())]));
        log::info!("the cluster is made, of {count} partitions");
        self.wake_at_ms = 0;
        let number = self
            .operations
            .write(requests, OperationEnd::Exists, now_ms);
        (number, made)
    }

    /// Makes the cluster if the node is to do so by itself, and it is time.
    pub(super) fn step_init(&mut self, now_ms: u64) {
        let Some(mut by_itself) = self.init_by_itself.take() else {
            return;
        };
        if now_ms >= by_itself.next_at_ms {
            by_itself.next_at_ms = now_ms + RETRY_MS;
            let refusal = self.begin_init(by_itself.shape, now_ms).err();
            if refusal == Some(InitRefusal::Exists) {
                return;
            }
            if let Some(refusal) = refusal.as_ref()
                && by_itself.last_refusal.as_ref() != Some(refusal)
            {
                log::info!("--cluster-init: not yet: {}", reason(refusal));
            }
            by_itself.last_refusal = refusal;
        }
        self.wake_at_ms = self.wake_at_ms.min(by_itself.next_at_ms);
        self.init_by_itself = Some(by_itself);
    }
}

/// Why a node does not make the cluster by itself.
fn reason(refusal: &InitRefusal) -> String {
    match refusal {
        InitRefusal::TooFewNodes(count) => format!("{count} nodes have registered"),
        InitRefusal::HasData(node) => format!(
            "{node} has data, which a new cluster would drop: docs/cluster.md says how to keep it"
        ),
        InitRefusal::OtherShape(count) => format!("one of {count} partitions was begun"),
        _ => "etcd was not read yet".to_owned(),
    }
}

/// Writes keys that are not there.
fn create(puts: &[(String, Vec<u8>)]) -> Request {
    Request::Write {
        compares: puts.iter().map(|(key, _)| (key.clone(), 0)).collect(),
        puts: puts.to_vec(),
        deletes: Vec::new(),
    }
}
