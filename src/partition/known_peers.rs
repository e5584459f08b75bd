//! Where the other nodes of a partition are, as far as this node has learned by itself, and what
//! they are still to be told.

use crate::replication::{LinkId, PeerState};
use crate::storage::PEERS_MAX;

/// Addresses that no controller has named.
#[derive(Debug, Default)]
pub(super) struct KnownPeers {
    /// The leader that was followed last.
    pub(super) last_leader: Option<String>,
    /// Nodes that have connected, the latest last.
    recent: Vec<String>,
    /// States that are sent to peers before their links end.
    pub(super) farewells: Vec<(LinkId, PeerState)>,
}

impl KnownPeers {
    pub(super) fn new(last_leader: Option<String>) -> Self {
        Self {
            last_leader,
            recent: Vec::new(),
            farewells: Vec::new(),
        }
    }

    /// Remembers a node that has connected.
    pub(super) fn remember(&mut self, address: &str) {
        let is_known = self.recent.iter().any(|known| known == address);
        if is_known || !address.starts_with("http://") {
            return;
        }
        if self.recent.len() >= PEERS_MAX {
            self.recent.remove(0);
        }
        self.recent.push(address.to_owned());
    }

    /// All nodes but this one: those that a controller named, the last leader, and nodes that have
    /// connected.
    pub(super) fn with_named(&self, named: &[String], own: &str) -> Vec<String> {
        let mut peers: Vec<String> = Vec::new();
        for peer in named.iter().chain(&self.last_leader).chain(&self.recent) {
            if !peers.contains(peer) && peer != own && peers.len() < PEERS_MAX {
                peers.push(peer.clone());
            }
        }
        peers
    }
}
