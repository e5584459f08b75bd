//! The visits of a takeover: what a node that is to lead asks of the partition's other nodes, and
//! what it makes of their answers.
//!
//! Not here: the plan of a takeover (`takeover.rs`), the dialogue (`replication/`).

use crate::config::Fsync;
use crate::replication::frame::{PROTOCOL_MIN, RefusalCode};
use crate::replication::{
    Intent, LeaderReceiver, LinkError, PeerState, Relation, SyncState, relation,
};
use crate::seeded_bugs::SeededBug;
use crate::storage::{HistoryId, Lineage, PEERS_MAX, PartitionMeta, Role};

use super::leader_link::DialState;
use super::roles::EPOCH_LEAP_MAX;
use super::state::Partition;
use super::takeover::{
    ANNOUNCE_MAX_MS, ANSWER_MAX_MS, BUSY_RETRY_MS, ClaimBasis, PARTED_RETRY_MS, PeerVisit,
    Takeover, TakeoverStage, VisitState,
};

impl Partition {
    /// Begins to take over as the leader that the meta already names, or leads at once where
    /// there is no other node to ask.
    pub(super) fn begin_takeover(&mut self, basis: ClaimBasis) {
        let peers = self.peers_to_ask();
        self.roles.begin_takeover();
        if !peers.is_empty() {
            log::info!(
                "partition {}: takes over in epoch {}: first it takes what {} hold",
                self.id,
                self.roles.meta().epoch,
                peers.join(", ")
            );
        }
        self.leadership.unbelieving.clear();
        self.takeover = Some(self.new_takeover(basis, peers));
        self.conclude_takeover(0);
    }

    fn new_takeover(&self, basis: ClaimBasis, peers: Vec<String>) -> Takeover {
        Takeover::new(basis, self.history(), peers, self.roles.changed_count)
    }

    /// The nodes to ask before this node leads.
    fn peers_to_ask(&self) -> Vec<String> {
        if SeededBug::PeersNotAsked.is_on() {
            return Vec::new();
        }
        self.with_known_peers(&self.roles.meta().peers)
    }

    /// A leader in office was assigned the role again: it announces itself to nodes that do not
    /// follow it.
    pub(super) fn reassure_peers(&mut self, named: &[String], basis: ClaimBasis) {
        let is_followed = |peer: &String| self.replicas.addresses().any(|address| address == peer);
        let absent: Vec<String> = named
            .iter()
            .filter(|peer| !is_followed(peer))
            .cloned()
            .collect();
        match &mut self.takeover {
            Some(takeover) => {
                takeover.is_told_again |= takeover.is_announcing();
                for peer in absent {
                    takeover.add(peer);
                }
            }
            None if !absent.is_empty() => {
                let mut takeover = self.new_takeover(basis, absent);
                (takeover.stage, takeover.is_told_again) = (TakeoverStage::Announcing, true);
                self.takeover = Some(takeover);
            }
            None => {}
        }
    }

    /// The change that the order to take over made.
    pub(super) fn ordered_change(&self) -> u64 {
        self.takeover
            .as_ref()
            .map_or(u64::MAX, |takeover| takeover.ordered_change)
    }

    /// Adds nodes to the visits of the takeover.
    pub(super) fn add_to_takeover(&mut self, peers: &[String]) {
        if let Some(takeover) = &mut self.takeover {
            peers.iter().cloned().for_each(|peer| takeover.add(peer));
        }
    }

    /// Addresses of the partition's other nodes: those that a controller named, and those that this
    /// node knows.
    pub(super) fn with_known_peers(&self, named: &[String]) -> Vec<String> {
        self.known_peers.with_named(named, &self.options.address)
    }

    /// The node to dial for a takeover, if there is one and it is due.
    pub(super) fn take_visit(&mut self, now_ms: u64) -> Option<String> {
        let takeover = self.takeover.as_mut()?;
        let begun_at_ms = *takeover.begun_at_ms.get_or_insert(now_ms);
        takeover.is_answer_due |= now_ms.saturating_sub(begun_at_ms) >= ANSWER_MAX_MS;
        if !self.roles.is_settled() || !matches!(self.leader_link.dial, DialState::At(_)) {
            return None;
        }
        let is_due =
            |stop: &PeerVisit| matches!(stop.visit, VisitState::Due(at_ms) if at_ms <= now_ms);
        takeover.current = takeover.stops.iter().position(is_due)?;
        self.leader_link.dial = DialState::UnderWay;
        takeover.current().map(str::to_owned)
    }

    /// When a visit is due, or a reply has waited long enough.
    pub(super) fn visit_at_ms(&self) -> Option<u64> {
        let takeover = self.takeover.as_ref()?;
        let Some(begun_at_ms) = takeover.begun_at_ms else {
            return Some(0);
        };
        let answer_at_ms = (!takeover.is_announcing() && !takeover.is_answer_due)
            .then_some(begun_at_ms + ANSWER_MAX_MS);
        let is_free = self.roles.is_settled() && matches!(self.leader_link.dial, DialState::At(_));
        let due_at_ms = takeover.due_at_ms().filter(|_| is_free);
        answer_at_ms.into_iter().chain(due_at_ms).min()
    }

    /// The node that a takeover visits now.
    pub(super) fn visited(&self) -> Option<&str> {
        self.takeover.as_ref().and_then(Takeover::current)
    }

    /// The intent that a visit begins with.
    pub(super) fn intent(&self) -> Intent {
        match &self.takeover {
            None => Intent::Follow,
            Some(takeover) if takeover.is_announcing() => self.claim_intent(),
            Some(_) => Intent::Survey,
        }
    }

    fn claim_intent(&self) -> Intent {
        let meta = self.roles.meta();
        if meta.ordered_epoch == meta.epoch && meta.epoch > 0 {
            Intent::OrderedClaim
        } else {
            Intent::Claim
        }
    }

    /// The state of this node, for a peer. The address is that of this node, or of its leader if
    /// this node only reports that leader.
    pub(super) fn own_state(&self, intent: Intent) -> PeerState {
        let meta = self.roles.meta();
        let is_of_leader = matches!(intent, Intent::Grant | Intent::Report)
            && self.roles.role() != Role::Leader
            && !self.roles.is_taking_over();
        PeerState {
            intent,
            epoch: meta.epoch,
            ordered_epoch: meta.ordered_epoch,
            data_epoch: meta.data_epoch,
            data_ordered_epoch: meta.data_ordered_epoch,
            last_version: self.lsm.last_version(),
            lineage: self.shared_lineage(),
            address: if is_of_leader {
                meta.leader.clone().unwrap_or_default()
            } else {
                self.options.address.clone()
            },
        }
    }

    /// The lineage as peers get it: the newest histories, and the history of the newest version.
    fn shared_lineage(&self) -> Lineage {
        let lineage = &self.roles.meta().lineage;
        lineage.shared_with(lineage.history_at(self.lsm.last_version()))
    }

    /// Goes on with the visit that is under way, after the peer has said something. An error ends
    /// the visit.
    pub(super) fn step_visit(
        &mut self,
        receiver: &mut LeaderReceiver,
        now_ms: u64,
    ) -> Result<(), LinkError> {
        let Some(takeover) = &mut self.takeover else {
            return Ok(());
        };
        let is_announcing = takeover.is_announcing();
        let basis = takeover.basis;
        let Some(peer) = receiver.peer.as_ref() else {
            // A node that speaks protocol 1 takes no claims; it has heard the epoch in the hello.
            return if receiver.has_all() {
                self.end_visit(VisitState::Done(now_ms))
            } else {
                Ok(())
            };
        };
        takeover.on_answer();
        let meta = self.roles.meta();
        // An epoch has one leader: this one may have been another's.
        let is_taken = !is_announcing
            && peer.data_epoch == meta.epoch
            && meta.data_epoch < meta.epoch
            && meta.ordered_epoch < meta.epoch;
        if peer.epoch > meta.epoch || is_taken {
            return self.on_claim_refused(peer, now_ms);
        }
        let own = (&meta.lineage, self.lsm.last_version());
        let related = relation(own, (&peer.lineage, peer.last_version));
        if is_announcing && related == Relation::Newer {
            // It leads without what this peer holds, and has written nothing since: that is fetched
            // first.
            self.fetch_above(peer.epoch);
            let reason = "a peer holds more than this leader";
            return Err(LinkError::VisitOver(reason.to_owned()));
        }
        if !is_announcing {
            let is_newer = related == Relation::Parted
                && peer.data_ordered_epoch == meta.data_ordered_epoch
                && peer.data_epoch >= meta.data_epoch;
            if is_newer && basis != ClaimBasis::Ordered {
                return self.end_parted(now_ms, peer.last_version);
            }
            if related == Relation::Newer && !receiver.receives_data() {
                // It was written to since it was surveyed.
                return self.end_visit(VisitState::Due(now_ms));
            }
        }
        let lacks_data = related == Relation::Newer && !is_announcing && receiver.receives_data();
        if let Some(answer) = receiver.answer_to(meta.epoch) {
            return self.on_claim_answer(answer, lacks_data, now_ms);
        }
        if receiver.has_all() {
            receiver.claim(self.own_state(self.claim_intent()));
        }
        Ok(())
    }

    /// The peer has answered the claim. `lacks_data`: the peer still sends what this node lacks.
    fn on_claim_answer(
        &mut self,
        answer: &PeerState,
        lacks_data: bool,
        now_ms: u64,
    ) -> Result<(), LinkError> {
        let epoch = self.roles.meta().epoch;
        if answer.intent == Intent::Grant && answer.epoch == epoch {
            return if should_await_data(lacks_data) {
                Ok(())
            } else {
                self.end_visit(VisitState::Done(now_ms))
            };
        }
        if answer.epoch >= epoch {
            return self.on_claim_refused(answer, now_ms);
        }
        // A node with data of the same origin grants a higher epoch. What has come from it was sent
        // before it heard of the claim: it makes way for another leader.
        let is_related =
            answer.last_version == 0 || self.is_believed(&answer.lineage, answer.last_version);
        if is_related {
            return self.end_visit(VisitState::Due(now_ms + BUSY_RETRY_MS));
        }
        log::warn!(
            "partition {}: {} holds other data, of epoch {}: it is not told of this leader; \
             assign it a role, or stop it",
            self.id,
            self.visited().unwrap_or_default(),
            answer.epoch
        );
        let address = self.visited().unwrap_or_default().to_owned();
        let unbelieving = &mut self.leadership.unbelieving;
        if !unbelieving.contains(&address) && unbelieving.len() < PEERS_MAX {
            unbelieving.push(address);
        }
        self.end_visit(VisitState::Done(now_ms))
    }

    /// Nodes that this leader could not tell yet that it leads.
    pub fn untold_peers(&self) -> impl Iterator<Item = &str> {
        let takeover = self
            .takeover
            .as_ref()
            .filter(|takeover| takeover.is_announcing());
        let stops = takeover.into_iter().flat_map(|takeover| &takeover.stops);
        let is_untold = |stop: &&PeerVisit| !matches!(stop.visit, VisitState::Done(_));
        let unreached = stops.filter(is_untold).map(|stop| &stop.address[..]);
        let unbelieving = self.leadership.unbelieving.iter().map(String::as_str);
        let is_replica = |peer: &str| self.replicas.addresses().any(|address| address == peer);
        unreached
            .chain(unbelieving)
            .filter(move |peer| self.roles.role() == Role::Leader && !is_replica(peer))
            .take(PEERS_MAX)
    }

    fn end_visit(&mut self, visit: VisitState) -> Result<(), LinkError> {
        if let Some(takeover) = &mut self.takeover {
            takeover.set_visit(visit);
        }
        Err(LinkError::VisitOver("the visit is over".to_owned()))
    }

    fn end_parted(&mut self, now_ms: u64, peer_version: u64) -> Result<(), LinkError> {
        let address = self.visited().unwrap_or_default();
        let meta = self.roles.meta();
        let reason = format!(
            "cannot lead: {address} holds writes (up to version {peer_version}) that this node \
             lacks, and this node holds writes that {address} lacks. Assign the one that is to be \
             kept as leader, with an epoch above {}",
            meta.epoch
        );
        if self.leader_link.obstacle.as_ref() != Some(&reason) {
            log::error!("partition {}: {reason}", self.id);
        }
        self.leader_link.obstacle = Some(reason);
        self.end_visit(VisitState::Due(now_ms + PARTED_RETRY_MS))
    }

    /// A peer does not grant the claim: it knows of an epoch that is not below this node's.
    fn on_claim_refused(&mut self, peer: &PeerState, now_ms: u64) -> Result<(), LinkError> {
        let (epoch, ordered_epoch) = (peer.epoch, peer.ordered_epoch);
        let meta = self.roles.meta();
        let (own_epoch, own_ordered) = (meta.epoch, meta.ordered_epoch);
        if epoch - own_epoch > EPOCH_LEAP_MAX {
            log::warn!(
                "partition {}: epoch {epoch} of a peer is not believed: it leaps",
                self.id
            );
            return self.end_visit(VisitState::Done(now_ms));
        }
        let is_outdated = epoch > own_epoch && self.should_yield();
        let is_ordered_away = is_outdated
            || ordered_epoch > own_ordered
            || (ordered_epoch == own_ordered && ordered_epoch == epoch && epoch == own_epoch);
        if is_ordered_away {
            self.step_down(epoch, ordered_epoch, &peer.address);
        } else {
            self.raise_epoch(epoch);
        }
        Err(LinkError::VisitOver(format!(
            "a peer knows of epoch {epoch}"
        )))
    }

    /// Whether a higher epoch that began elsewhere ends this node's claim. Otherwise a controller's
    /// last word to this process is that it leads: it takes over above that epoch.
    pub(super) fn should_yield(&self) -> bool {
        match &self.takeover {
            Some(takeover) if takeover.is_announcing() => !takeover.is_told_again,
            _ => !self.leadership.is_ordered,
        }
    }

    /// Claims an epoch above one that a peer has begun.
    pub(super) fn raise_epoch(&mut self, heard_epoch: u64) {
        let epoch = heard_epoch + 1;
        log::info!(
            "partition {}: epoch {heard_epoch} was begun elsewhere: takes over in epoch {epoch}",
            self.id
        );
        self.take_over_in(epoch, ClaimBasis::OwnEpoch);
    }

    /// Visits all nodes that are known, in an epoch that is not below the one in force: also those
    /// that followed this node until now, and those that have granted an earlier claim.
    fn take_over_in(&mut self, epoch: u64, basis: ClaimBasis) {
        let peers = self.with_known_peers(&self.roles.meta().peers);
        self.leadership.unbelieving.clear();
        self.add_to_takeover(&peers);
        let was_leader = self.roles.role() == Role::Leader;
        let meta = self.roles.meta().clone();
        self.roles.begin_takeover();
        self.change_meta(PartitionMeta {
            role: Role::Leader,
            epoch,
            leader: None,
            is_heard: false,
            ..meta
        });
        if was_leader {
            self.leave_office();
        }
        if let Some(takeover) = &mut self.takeover {
            takeover.basis = basis;
            takeover.office_change = None;
            takeover.restart();
        }
    }

    /// The connection of a visit has ended.
    pub(super) fn on_visit_closed(&mut self, receiver: &LeaderReceiver, now_ms: u64) {
        let protocol = receiver.protocol;
        let Some(takeover) = &mut self.takeover else {
            return;
        };
        let Some(stop) = takeover.stops.get_mut(takeover.current) else {
            return;
        };
        // A visit that has said how it ended stays as it is.
        if matches!(stop.visit, VisitState::Due(at_ms) if at_ms <= now_ms) {
            stop.visit = match (receiver.refusal, receiver.sync) {
                // It is asked again in the older protocol, and hears of the epoch in the hello.
                (Some(RefusalCode::Protocol), _) if protocol > PROTOCOL_MIN => {
                    VisitState::Due(now_ms)
                }
                (
                    Some(RefusalCode::Partition | RefusalCode::NotLeader | RefusalCode::Protocol),
                    _,
                ) => VisitState::Done(now_ms),
                (Some(RefusalCode::Epoch), _) if protocol == PROTOCOL_MIN => {
                    VisitState::Done(now_ms)
                }
                (Some(RefusalCode::Token), _) => VisitState::Unreachable,
                (_, SyncState::Parted) if takeover.basis == ClaimBasis::Ordered => {
                    VisitState::Done(now_ms)
                }
                (_, SyncState::Parted) => VisitState::Due(now_ms + PARTED_RETRY_MS),
                _ => {
                    stop.wait(now_ms);
                    stop.visit
                }
            };
        }
        self.conclude_takeover(now_ms);
    }

    /// The node that is visited cannot be reached; `is_starting`: it answers, and will be ready
    /// soon.
    pub(super) fn on_visit_unreachable(&mut self, is_starting: bool, now_ms: u64) {
        let Some(takeover) = &mut self.takeover else {
            return;
        };
        if let Some(stop) = takeover.stops.get_mut(takeover.current) {
            if is_starting {
                stop.wait(now_ms);
            } else {
                stop.visit = VisitState::Unreachable;
            }
        }
        self.conclude_takeover(now_ms);
    }

    /// Takes office if no visit is left to be made; plans announcements.
    fn conclude_takeover(&mut self, now_ms: u64) {
        let Some(takeover) = &mut self.takeover else {
            return;
        };
        if takeover.stage == TakeoverStage::Gathering && takeover.due_at_ms().is_none() {
            takeover.confirm(now_ms);
        }
        if takeover.due_at_ms().is_some() {
            return;
        }
        if !takeover.is_announcing() {
            self.take_office();
        }
        let Some(takeover) = &mut self.takeover else {
            return;
        };
        takeover
            .stops
            .retain(|stop| stop.visit == VisitState::Unreachable);
        let retry_at_ms = now_ms + takeover.retry_ms;
        takeover.retry_ms = (takeover.retry_ms * 2).min(ANNOUNCE_MAX_MS);
        for stop in &mut takeover.stops {
            stop.visit = VisitState::Due(retry_at_ms);
        }
        self.finish_takeover();
    }

    /// Ends the takeover if the office is durable and no announcement is left.
    pub(super) fn finish_takeover(&mut self) {
        let settled_count = self.roles.settled_count;
        let is_over = |takeover: &Takeover| {
            takeover.is_announcing()
                && takeover.stops.is_empty()
                && takeover
                    .office_change
                    .is_none_or(|change| change <= settled_count)
        };
        if self.takeover.as_ref().is_some_and(is_over) {
            self.takeover = None;
        }
    }

    /// Takes office: the node leads from now on.
    fn take_office(&mut self) {
        let Some(takeover) = &mut self.takeover else {
            return;
        };
        let meta = self.roles.meta();
        let is_missed = takeover.missed().next().is_some();
        // What this node lost with the power a node that was not reached may still hold.
        let may_lack = is_missed && self.options.fsync != Fsync::Always;
        // The history of data that was fetched is another node's.
        let is_own = takeover.begun_in == meta.lineage.history();
        let begins = takeover.basis != ClaimBasis::Resumed || !is_own || may_lack;
        let version = self.lsm.last_version();
        let history = begins.then(|| HistoryId(self.ids.draw()));
        let office = self.roles.in_office(version, history);
        let missed: Vec<&str> = takeover.missed().map(|stop| &stop.address[..]).collect();
        let missed = if missed.is_empty() {
            String::new()
        } else {
            format!("; not reached: {}", missed.join(", "))
        };
        log::info!(
            "partition {}: leader in epoch {} from version {version} on{missed}",
            self.id,
            office.epoch
        );
        takeover.stage = TakeoverStage::Announcing;
        self.leadership.begun_at_ms = self.clock.time_ms;
        self.roles.take_office();
        self.change_meta(office);
        if let Some(takeover) = &mut self.takeover {
            takeover.office_change = Some(self.roles.changed_count);
        }
        self.disconnect();
    }

    /// Whether a controller's last word to this node was to lead, and another node has since
    /// claimed to.
    pub(super) fn has_yielded(&self) -> bool {
        self.leadership.is_ordered
            && self.roles.role() == Role::Replica
            && self.roles.meta().is_heard
    }

    /// This leader lacks what others hold: it takes over anew.
    pub(super) fn fetch_from_peers(&mut self) {
        self.fetch_above(self.roles.meta().epoch);
    }

    pub(super) fn fetch_above(&mut self, heard_epoch: u64) {
        if self.takeover.is_none() {
            self.takeover = Some(self.new_takeover(ClaimBasis::OwnEpoch, Vec::new()));
        }
        self.disconnect();
        let meta = self.roles.meta();
        if meta.ordered_epoch == meta.epoch && heard_epoch <= meta.epoch {
            // A controller named the epoch: it stays the one to lead in.
            self.take_over_in(meta.epoch, ClaimBasis::Ordered);
        } else {
            self.raise_epoch(heard_epoch.max(meta.epoch));
        }
    }
}

/// Whether a node with a granted claim waits for the data that it lacks.
fn should_await_data(lacks_data: bool) -> bool {
    !SeededBug::TakeoverTooEarly.is_on() && lacks_data
}
