//! Making way: what a node does about claims of other nodes to lead, and about epochs that other
//! nodes have begun.
//!
//! Invariants:
//! 1. A claim is granted only to a higher epoch, or to the node that is already followed in the
//!    same one. Of two nodes that claim the same epoch one gives way: the one with the lower copy
//!    id.
//! 2. Data that only this node holds is dropped for no epoch but one that a controller named
//!    (`replication/leader_receiver.rs`).
//! 3. An epoch that a stranger reports changes nothing ([`Partition::is_believed`]), and no report
//!    makes the epoch leap.
//! 4. A node that makes way sends its state to its leader and replicas before their links end.
//!
//! Not here: claiming (`takeover.rs`).

use std::cmp::Ordering;

use crate::replication::frame::PROTOCOL_MIN;
use crate::replication::{Intent, LinkError, LinkId, PeerHello, PeerState};
use crate::seeded_bugs::SeededBug;
use crate::storage::{Lineage, PartitionMeta, Role};

use super::leader_link::DialState;
use super::roles::EPOCH_LEAP_MAX;
use super::state::Partition;

impl Partition {
    /// The node leaves office: its deferred replies fail, and its replicas look for a leader anew.
    pub(super) fn leave_office(&mut self) {
        self.leadership.generation += 1;
        self.queue_farewells();
        self.replicas.clear();
        self.keep_log();
    }

    /// This node leads no more: a peer has reported a higher epoch, and perhaps its leader.
    pub(super) fn step_down(&mut self, epoch: u64, ordered_epoch: u64, leader: &str) {
        let was_contender = self.roles.role() == Role::Leader || self.roles.is_taking_over();
        let consequence = if was_contender {
            "this node leads no more"
        } else {
            "this node follows its leader"
        };
        log::warn!(
            "partition {}: epoch {epoch} has begun elsewhere: {consequence}",
            self.id
        );
        let leader = Some(leader.to_owned()).filter(|leader| leader.starts_with("http://"));
        self.depose(self.roles.deposed(epoch, ordered_epoch, leader));
        self.disconnect();
    }

    /// A peer reports an epoch, and perhaps its leader.
    pub(super) fn on_leader_report(&mut self, state: &PeerState) {
        let meta = self.roles.meta();
        let is_near = state.epoch.saturating_sub(meta.epoch) <= EPOCH_LEAP_MAX;
        // In a cluster only etcd says which node leads. A leader makes way all the same.
        if self.is_in_cluster() && self.roles.role() != Role::Leader {
            return;
        }
        if !is_near || !is_higher_epoch(state.epoch, meta.epoch) {
            return;
        }
        let is_own = state.address == self.options.address;
        let leader = if is_own { "" } else { &state.address };
        match self.roles.role() {
            Role::Leader => self.step_down(state.epoch, state.ordered_epoch, leader),
            _ if self.roles.is_taking_over() => {
                if state.ordered_epoch > meta.ordered_epoch || self.should_yield() {
                    self.step_down(state.epoch, state.ordered_epoch, leader);
                } else {
                    self.disconnect();
                    self.raise_epoch(state.epoch);
                }
            }
            Role::Replica if !leader.is_empty() => {
                self.step_down(state.epoch, state.ordered_epoch, leader);
            }
            Role::Replica | Role::Unassigned => {}
        }
    }

    /// A peer claims to lead. The answer grants the claim, or says where this node stands.
    pub(super) fn on_claim(
        &mut self,
        link: LinkId,
        claim: &PeerState,
    ) -> Result<PeerState, LinkError> {
        let meta = self.roles.meta();
        if claim.epoch.saturating_sub(meta.epoch) > EPOCH_LEAP_MAX {
            return Err(LinkError::NotFollowed(format!(
                "a claim to epoch {} is refused: epoch {} is in force, and it leaps",
                claim.epoch, meta.epoch
            )));
        }
        let claimant = self.replicas.get(link).ok_or(LinkError::RoleChanged)?;
        let (copy, is_fed) = (claimant.copy, claimant.facts.sends_data());
        let is_believed = is_fed || self.is_believed(&claim.lineage, claim.last_version);
        let is_contender = self.roles.role() == Role::Leader || self.roles.is_taking_over();
        // An epoch has one leader: one that a controller named in it, that has led in it, or that
        // this node granted it to.
        let is_its_leader = match &meta.leader {
            Some(leader) => {
                *leader == claim.address && (meta.is_heard || claim.data_epoch == claim.epoch)
            }
            None => claim.data_epoch == claim.epoch,
        };
        let is_granted = match claim.epoch.cmp(&meta.epoch) {
            Ordering::Less => false,
            Ordering::Equal if is_contender => is_believed && copy > meta.copy,
            Ordering::Equal => claim.intent == Intent::OrderedClaim || is_its_leader,
            Ordering::Greater => is_believed,
        };
        if !is_granted || self.is_in_cluster() {
            return Ok(self.own_state(Intent::Report));
        }
        if acts_on_grant() {
            self.grant(link, claim);
        }
        Ok(self.own_state(Intent::Grant))
    }

    /// Makes way for a leader of a higher epoch.
    fn grant(&mut self, link: LinkId, claim: &PeerState) {
        let was_contender = self.roles.role() == Role::Leader || self.roles.is_taking_over();
        let meta = self.roles.meta();
        let is_known = meta.leader.as_ref() == Some(&claim.address) && claim.epoch == meta.epoch;
        if is_known && !was_contender {
            return;
        }
        let leader = Some(claim.address.clone()).filter(|leader| leader.starts_with("http://"));
        log::warn!(
            "partition {}: {} leads in epoch {}: this node makes way",
            self.id,
            leader.as_deref().unwrap_or("another node"),
            claim.epoch
        );
        self.depose(self.roles.deposed(claim.epoch, claim.ordered_epoch, leader));
        self.queue_farewell_to_leader();
        // The claimant goes on getting what it lacks: the log that it reads is kept.
        self.replicas.clear_but(link);
        self.disconnect_from_leader();
    }

    /// Sends this node's state to its replicas before their links end.
    /// Ends what this node does as the leader, or to become it; `meta` names the other leader.
    fn depose(&mut self, meta: PartitionMeta) {
        if self.roles.role() == Role::Leader {
            self.leadership.generation += 1;
        }
        self.change_meta(meta);
        self.takeover = None;
        self.queue_farewells();
    }

    fn queue_farewells(&mut self) {
        let state = self.own_state(Intent::Report);
        let links = self.replicas.links();
        self.known_peers
            .farewells
            .extend(links.map(|link| (link, state.clone())));
    }

    /// Sends this node's state to its leader before the link to it ends.
    pub(super) fn queue_farewell_to_leader(&mut self) {
        if let DialState::Connected(link, facts) = &self.leader_link.dial
            && facts.protocol > PROTOCOL_MIN
        {
            let farewell = (*link, self.own_state(Intent::Report));
            self.known_peers.farewells.push(farewell);
        }
    }

    /// Whether an epoch that a peer reports counts: the peer presented the token, or its data and
    /// this node's data share a history, which a stranger could not know. A node without data has
    /// nothing to lose by it.
    pub(super) fn is_believed(&self, lineage: &Lineage, version: u64) -> bool {
        let (own, own_version) = (&self.roles.meta().lineage, self.lsm.last_version());
        self.options.has_token
            || own_version == 0
            || own.common_version_with(lineage, version).is_some()
            || lineage.common_version_with(own, own_version).is_some()
    }

    /// A replica that is to follow this node knows of an epoch that this node does not know of.
    pub(super) fn on_epoch_of_replica(&mut self, hello: &PeerHello) {
        let meta = self.roles.meta();
        let ordered_epoch = hello
            .state
            .as_ref()
            .map_or(hello.epoch, |state| state.ordered_epoch);
        let is_contender = self.roles.role() == Role::Leader || self.roles.is_taking_over();
        if !is_contender && !self.has_yielded() {
            return;
        }
        if ordered_epoch > meta.ordered_epoch || self.is_in_cluster() {
            // A controller names epochs: it will say what this node is in that one.
            return self.step_down(hello.epoch, ordered_epoch, "");
        }
        // No controller named that epoch: what was written in it is fetched, and then this node
        // leads above it.
        self.fetch_above(hello.epoch);
    }
}

/// Whether a node steps down when another one tells of this epoch.
pub(super) fn is_higher_epoch(epoch: u64, own_epoch: u64) -> bool {
    !SeededBug::EpochNotHeard.is_on() && epoch > own_epoch
}

/// Whether a node that grants a claim acts on it.
fn acts_on_grant() -> bool {
    !SeededBug::GrantNotKept.is_on()
}
