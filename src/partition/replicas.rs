//! What a partition knows of its replicas.

use std::collections::VecDeque;

use crate::lsm::Snapshot;
use crate::replication::frame::PROTOCOL_MIN;
use crate::replication::{LinkId, SenderFacts, SenderPhase, UNHEARD_MS};
use crate::storage::CopyId;

/// Replicas of one partition at a time.
pub(super) const REPLICAS_MAX: usize = 32;

/// Statistics of one replica.
#[derive(Clone, Debug)]
pub struct ReplicaStats {
    /// Its address.
    pub address: String,
    /// The id of the replica's copy.
    pub copy: CopyId,
    /// What it was sent and has confirmed.
    pub facts: SenderFacts,
    /// Since anything was heard.
    pub silent_ms: u64,
}

/// A connected replica, or a node that claims to lead.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) link: LinkId,
    pub(super) copy: CopyId,
    pub(super) protocol: u16,
    pub(super) address: String,
    /// Where the node serves HTTP, if it has told.
    pub(super) http_address: String,
    /// The snapshot that is sent to it, for other replicas to share.
    pub(super) snapshot: Option<Snapshot>,
    pub(super) facts: SenderFacts,
}

impl Replica {
    fn stats(&self, now_ms: u64) -> ReplicaStats {
        ReplicaStats {
            address: self.address.clone(),
            copy: self.copy,
            facts: self.facts,
            silent_ms: self.facts.silent_ms(now_ms),
        }
    }

    /// Whether it receives data, and was heard within two heartbeats.
    fn is_heard(&self, now_ms: u64) -> bool {
        self.facts.sends_data() && self.facts.silent_ms(now_ms) < UNHEARD_MS
    }
}

/// The replicas of a partition.
#[derive(Debug, Default)]
pub(super) struct Replicas {
    connected: Vec<Replica>,
    /// Replicas that have disconnected, and when; the last ones.
    lost: VecDeque<(CopyId, u64)>,
}

impl Replicas {
    pub(super) fn add(&mut self, replica: Replica) {
        self.connected.push(replica);
    }

    pub(super) fn get(&self, link: LinkId) -> Option<&Replica> {
        self.connected.iter().find(|replica| replica.link == link)
    }

    pub(super) fn is_full(&self) -> bool {
        self.connected.len() >= REPLICAS_MAX
    }

    /// Records what a link has sent and confirmed. None: the link was dropped. Otherwise, whether
    /// log may go.
    pub(super) fn record(&mut self, link: LinkId, facts: SenderFacts) -> Option<bool> {
        let mut connected = self.connected.iter_mut();
        let replica = connected.find(|replica| replica.link == link)?;
        let has_confirmed = facts.needed_version() != replica.facts.needed_version();
        replica.facts = facts;
        if facts.phase != SenderPhase::Snapshot {
            replica.snapshot = None;
        }
        Some(has_confirmed)
    }

    /// The log behind this version must be kept.
    pub(super) fn needed_version(&self) -> u64 {
        let needed = self.facts().map(SenderFacts::needed_version);
        needed.min().unwrap_or(u64::MAX)
    }

    fn facts(&self) -> impl Iterator<Item = &SenderFacts> {
        self.connected.iter().map(|replica| &replica.facts)
    }

    /// The version that so many replicas hold.
    pub(super) fn acked_version(&self, count: usize) -> u64 {
        if count == 0 {
            return u64::MAX;
        }
        let versions = || self.facts().map(|facts| facts.acked.durable_version);
        // Replicas are few: each version is compared with all.
        let is_held = |version: &u64| versions().filter(|held| held >= version).count() >= count;
        versions().filter(is_held).max().unwrap_or(0)
    }

    /// What a copy has confirmed on its disk.
    pub(super) fn acked_by(&self, copy: CopyId) -> u64 {
        let acked = self.copies().filter(|(of, _)| *of == copy);
        let acked = acked.map(|(_, facts)| facts.acked.durable_version);
        acked.max().unwrap_or(0)
    }

    /// The copies that are connected.
    pub(super) fn copies(&self) -> impl Iterator<Item = (CopyId, SenderFacts)> {
        let connected = self.connected.iter();
        connected.map(|replica| (replica.copy, replica.facts))
    }

    /// Replicas that were heard within two heartbeats.
    pub(super) fn heard_count(&self, now_ms: u64) -> usize {
        self.heard(now_ms).count()
    }

    fn heard(&self, now_ms: u64) -> impl Iterator<Item = CopyId> {
        let heard = self
            .connected
            .iter()
            .filter(move |replica| replica.is_heard(now_ms));
        heard.map(|replica| replica.copy)
    }

    /// The same with replicas that have just disconnected: they are likely to be back at once.
    pub(super) fn recent_count(&self, now_ms: u64) -> usize {
        let is_recent = |(copy, at_ms): &&(CopyId, u64)| {
            now_ms.saturating_sub(*at_ms) < UNHEARD_MS
                && self.heard(now_ms).all(|heard| heard != *copy)
        };
        self.heard_count(now_ms) + self.lost.iter().filter(is_recent).count()
    }

    /// A connection has ended.
    pub(super) fn on_closed(&mut self, link: LinkId, now_ms: u64) {
        let is_it = |replica: &Replica| replica.link == link;
        let Some(at) = self.connected.iter().position(is_it) else {
            return;
        };
        let replica = self.connected.remove(at);
        if replica.is_heard(now_ms) {
            self.lost.retain(|(lost, _)| *lost != replica.copy);
            if self.lost.len() == REPLICAS_MAX {
                self.lost.pop_front();
            }
            self.lost.push_back((replica.copy, now_ms));
        }
    }

    /// Whether any node follows.
    pub(super) fn is_followed(&self) -> bool {
        self.facts().any(SenderFacts::sends_data)
    }

    /// Where the connected nodes serve HTTP.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &String> {
        self.connected.iter().map(|replica| &replica.http_address)
    }

    /// Links with a protocol that can carry a node's state.
    pub(super) fn links(&self) -> impl Iterator<Item = LinkId> {
        let has_words = |replica: &&Replica| replica.protocol > PROTOCOL_MIN;
        self.connected
            .iter()
            .filter(has_words)
            .map(|replica| replica.link)
    }

    /// Drops all links: each ends with its next call.
    pub(super) fn clear(&mut self) {
        self.connected.clear();
        self.lost.clear();
    }

    /// Drops all links but one.
    pub(super) fn clear_but(&mut self, link: LinkId) {
        self.connected.retain(|replica| replica.link == link);
        self.lost.clear();
    }

    /// Snapshots that are being sent, the one that was begun last first.
    pub(super) fn snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        let replicas = self.connected.iter().rev();
        replicas.filter_map(|replica| replica.snapshot.as_ref())
    }

    pub(super) fn stats(&self, now_ms: u64) -> impl Iterator<Item = ReplicaStats> {
        self.connected
            .iter()
            .map(move |replica| replica.stats(now_ms))
    }
}
