//! What a member has to know beside its partition.

use std::collections::BTreeMap;

use crate::config::WhenAllLost;
use crate::storage::CopyId;

use super::config::{CopyRecord, NodeValue, PartitionConfig};
use super::contact::Contact;

/// The node that a member is on, and the nodes around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Surroundings<'a> {
    /// The name of this node.
    pub(super) node: &'a str,
    /// The lease that this node counts on when it leads.
    pub(super) lease_ms: u64,
    /// Copies that have to be in sync for writes.
    pub(super) min_in_sync: usize,
    /// The node is stopping: it does not stand, and grants only until its copy is out of the set.
    pub(super) is_draining: bool,
    /// What is done once all copies in sync are gone for good.
    pub(super) when_all_lost: WhenAllLost,
    /// When this node has started.
    pub(super) started_at_ms: u64,
    /// When etcd has answered.
    pub(super) contact: Contact,
    /// A number that differs from node to node, and from call to call.
    pub(super) random: u64,
    pub(super) nodes: &'a BTreeMap<String, NodeValue>,
    /// The copies of the partition, by the names of their nodes.
    pub(super) copies: &'a BTreeMap<String, CopyRecord>,
}

impl<'a> Surroundings<'a> {
    /// Where a node is.
    pub(super) fn url_of(&self, node: &str) -> Option<&'a str> {
        self.nodes.get(node).map(|value| &value.url[..])
    }

    /// Whether no other node has, or is to have, a copy of the partition.
    pub(super) fn is_alone(&self, config: &PartitionConfig) -> bool {
        let mut names = config.replicas.iter().chain(self.copies.keys());
        names.all(|name| name == self.node)
    }

    /// Whether a node has registered this copy as its own.
    pub(super) fn has_registered(&self, node: &str, copy: CopyId) -> bool {
        self.copies
            .get(node)
            .is_some_and(|record| record.copy == copy)
    }

    /// The name of the node that has a copy.
    pub(super) fn node_of(&self, copy: CopyId) -> Option<&'a str> {
        let mut copies = self.copies.iter();
        copies
            .find(|(_, record)| record.copy == copy)
            .map(|(name, _)| &name[..])
    }
}
