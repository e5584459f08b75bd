//! Coming to lead: asking the partition's other nodes first.
//!
//! A node that is made leader visits the partition's other nodes one after another: those that a
//! controller named, its last leader, and the nodes that have connected to it. From each it first
//! takes what that node has and it lacks (a *survey*: the ordinary dialogue of a replica). Then it
//! *claims* to lead in its epoch, and the other node *grants* that: it leads no more, takes nothing
//! from leaders of lower epochs, and tells them. Once every node that can be reached has granted
//! the claim, the node takes its
//! *office*: a new history begins, and writes are taken. Nodes that could not be reached are told
//! later (they are
//! *announced* to), so that a leader that was cut off hears of its successor as soon as it is back.
//!
//! Invariants:
//! 1. A node in office holds what every node that it could reach held when that granted its claim,
//!    unless a controller's order (an explicit epoch) or newer data of its own (a higher epoch of
//!    data) stands against it.
//! 2. Everything is bounded: [`PEERS_MAX`] nodes, one connection at a time, [`PATIENCE_MS`] for one
//!    that does not get on.
//!
//! Not here: the other side, a node that grants a claim (`claims.rs`), following a leader
//! (`leader_link.rs`), what assignments are allowed (`roles.rs`).

use crate::config::Fsync;
use crate::replication::frame::{PROTOCOL_MIN, RefusalCode};
use crate::replication::{Intent, LinkError, PeerState, Relation, SyncState, relation};
use crate::seeded_bugs::SeededBug;
use crate::storage::{HistoryId, Lineage, PEERS_MAX, PartitionMeta, Role};

use super::Partition;
use super::leader_link::DialState;
use super::roles::EPOCH_LEAP_MAX;

/// A node that answers, but cannot be surveyed yet, is asked again so soon.
const BUSY_RETRY_MS: u64 = 50;

/// A node that answers is waited for so long until it can be surveyed. It may be loading its data.
const PATIENCE_MS: u64 = 10_000;

/// Data that has parted is looked at again so often: a controller may have decided meanwhile.
const PARTED_RETRY_MS: u64 = 2_000;

/// Nodes that could not be reached are announced to so often, at first and in the end.
const ANNOUNCE_MIN_MS: u64 = 500;
const ANNOUNCE_MAX_MS: u64 = 10_000;

/// A node that was visited longer ago than this may follow another one by now: before this node
/// leads, it is asked again.
const VISIT_FRESH_MS: u64 = 1_000;

/// The answer to an assignment waits so long for the office.
const ANSWER_MAX_MS: u64 = 1_000;

/// Why this node claims to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimBasis {
    /// It was told to, and chose the epoch itself: it may choose a higher one.
    OwnEpoch,
    /// A controller named the epoch.
    Ordered,
    /// It led in this epoch before it was restarted.
    Resumed,
}

/// How far the visit to one node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VisitState {
    /// To be made then.
    Due(u64),
    /// It was over then: the node has granted the claim, or has nothing to do with the partition.
    Done(u64),
    /// It cannot be reached.
    Unreachable,
}

/// How far a takeover has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// All nodes are visited in the epoch that it claims.
    Gathering,
    /// Those are visited again whose visits were made long ago: only once in an epoch, so that slow
    /// nodes cannot put the office off for ever.
    Confirming,
    /// In office; only nodes that were not reached are still to be told.
    Announcing,
}

/// A node to be visited.
#[derive(Debug)]
struct PeerVisit {
    address: String,
    visit: VisitState,
    /// Since when it answers that it is not ready.
    busy_since_ms: Option<u64>,
}

impl PeerVisit {
    fn new(address: String) -> Self {
        Self {
            address,
            visit: VisitState::Due(0),
            busy_since_ms: None,
        }
    }

    /// It answers that it is not ready: it is waited for, up to [`PATIENCE_MS`].
    fn wait(&mut self, now_ms: u64) {
        let since_ms = *self.busy_since_ms.get_or_insert(now_ms);
        self.visit = if now_ms.saturating_sub(since_ms) < PATIENCE_MS {
            VisitState::Due(now_ms + BUSY_RETRY_MS)
        } else {
            VisitState::Unreachable
        };
    }
}

/// How the connection of a visit ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct VisitOutcome {
    pub(super) refusal: Option<RefusalCode>,
    pub(super) sync: SyncState,
    pub(super) protocol: u16,
}

/// A takeover that is under way, or the announcements after it.
#[derive(Debug)]
pub(super) struct Takeover {
    basis: ClaimBasis,
    /// The history of the data before anything was fetched.
    begun_in: HistoryId,
    stops: Vec<PeerVisit>,
    /// The one that is under way.
    current: usize,
    begun_at_ms: Option<u64>,
    stage: Stage,
    /// It was told to lead while it was in office: a controller wants it to lead above any epoch
    /// that others know of.
    is_told_again: bool,
    retry_ms: u64,
    /// The change whose reply waits for the office, and that of the office.
    ordered_change: u64,
    office_change: Option<u64>,
    is_answer_due: bool,
}

impl Takeover {
    fn new(
        basis: ClaimBasis,
        begun_in: HistoryId,
        peers: Vec<String>,
        ordered_change: u64,
    ) -> Self {
        Self {
            basis,
            begun_in,
            stops: peers.into_iter().map(PeerVisit::new).collect(),
            current: 0,
            begun_at_ms: None,
            stage: Stage::Gathering,
            is_told_again: false,
            retry_ms: ANNOUNCE_MIN_MS,
            ordered_change,
            office_change: None,
            is_answer_due: false,
        }
    }

    fn is_announcing(&self) -> bool {
        self.stage == Stage::Announcing
    }

    /// When the next visit is due.
    fn due_at_ms(&self) -> Option<u64> {
        let due = |stop: &PeerVisit| match stop.visit {
            VisitState::Due(at_ms) => Some(at_ms),
            VisitState::Done(_) | VisitState::Unreachable => None,
        };
        self.stops.iter().filter_map(due).min()
    }

    /// The node of the visit that is under way.
    fn current(&self) -> Option<&str> {
        self.stops.get(self.current).map(|stop| &stop.address[..])
    }

    fn set_visit(&mut self, visit: VisitState) {
        if let Some(stop) = self.stops.get_mut(self.current) {
            stop.visit = visit;
        }
    }

    /// The node that is visited has told where it stands.
    fn on_answer(&mut self) {
        if let Some(stop) = self.stops.get_mut(self.current) {
            stop.busy_since_ms = None;
        }
    }

    fn add(&mut self, address: String) {
        let is_known = self.stops.iter().any(|stop| stop.address == address);
        if !is_known && self.stops.len() < PEERS_MAX {
            self.stops.push(PeerVisit::new(address));
        }
    }

    /// All visits are to be made again.
    fn restart(&mut self) {
        self.stage = Stage::Gathering;
        for stop in &mut self.stops {
            *stop = PeerVisit::new(std::mem::take(&mut stop.address));
        }
    }

    /// Plans the visits once more that were made too long ago.
    fn confirm(&mut self, now_ms: u64) {
        self.stage = Stage::Confirming;
        let is_old = |at_ms: u64| now_ms.saturating_sub(at_ms) > VISIT_FRESH_MS;
        for stop in &mut self.stops {
            if matches!(stop.visit, VisitState::Done(at_ms) if is_old(at_ms)) {
                stop.visit = VisitState::Due(now_ms);
            }
        }
    }

    fn missed(&self) -> impl Iterator<Item = &PeerVisit> {
        let stops = self.stops.iter();
        stops.filter(|stop| stop.visit == VisitState::Unreachable)
    }

    /// The highest change that replies may hear of as lasting, if they wait for the office.
    pub(super) fn held_change(&self, settled_count: u64) -> Option<u64> {
        let is_awaited = !self.is_announcing()
            || self
                .office_change
                .is_some_and(|change| settled_count < change);
        (is_awaited && !self.is_answer_due).then(|| self.ordered_change.saturating_sub(1))
    }
}

impl Partition {
    /// Begins to take over as the leader that the meta already names, or leads at once where
    /// there is no other node to ask.
    pub(super) fn begin_takeover(&mut self, basis: ClaimBasis) {
        let mut peers = self.with_known_peers(&self.roles.meta().peers);
        if SeededBug::PeersNotAsked.is_on() {
            peers.clear();
        }
        self.roles.begin_takeover();
        if !peers.is_empty() {
            log::info!(
                "partition {}: takes over in epoch {}: first it takes what {} hold",
                self.id,
                self.roles.meta().epoch,
                peers.join(", ")
            );
        }
        let change = self.roles.changed_count();
        self.takeover = Some(Takeover::new(basis, self.history(), peers, change));
        self.conclude_takeover(0);
    }

    /// A leader in office was told once more to lead: nodes that do not follow it are told.
    pub(super) fn reassure_peers(&mut self, named: &[String], basis: ClaimBasis) {
        let is_followed = |peer: &String| self.replicas.addresses().any(|address| address == peer);
        let absent: Vec<String> = named
            .iter()
            .filter(|peer| !is_followed(peer))
            .cloned()
            .collect();
        let history = self.history();
        match &mut self.takeover {
            Some(takeover) => {
                takeover.is_told_again |= takeover.is_announcing();
                for peer in absent {
                    takeover.add(peer);
                }
            }
            None if !absent.is_empty() => {
                let change = self.roles.changed_count();
                let mut takeover = Takeover::new(basis, history, absent, change);
                (takeover.stage, takeover.is_told_again) = (Stage::Announcing, true);
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

    /// Nodes that the takeover under way is to visit, too.
    pub(super) fn add_to_takeover(&mut self, peers: &[String]) {
        if let Some(takeover) = &mut self.takeover {
            peers.iter().cloned().for_each(|peer| takeover.add(peer));
        }
    }

    /// Addresses of the partition's other nodes: those that a controller named, the last leader,
    /// and nodes that have connected.
    pub(super) fn with_known_peers(&self, named: &[String]) -> Vec<String> {
        let own = &self.options.address;
        let mut peers: Vec<String> = Vec::new();
        for peer in named
            .iter()
            .chain(&self.last_leader)
            .chain(&self.recent_peers)
        {
            if !peers.contains(peer) && peer != own && peers.len() < PEERS_MAX {
                peers.push(peer.clone());
            }
        }
        peers
    }

    /// Remembers where a node of the partition is.
    pub(super) fn remember_peer(&mut self, address: &str) {
        if address.starts_with("http://") && !self.recent_peers.iter().any(|known| known == address)
        {
            if self.recent_peers.len() >= PEERS_MAX {
                self.recent_peers.remove(0);
            }
            self.recent_peers.push(address.to_owned());
        }
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

    /// What a visit begins by telling.
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

    /// Where this node stands, for a peer. The address is that of this node unless it only tells of
    /// a leader.
    pub(super) fn own_state(&self, intent: Intent) -> PeerState {
        let meta = self.roles.meta();
        let is_of_leader = matches!(intent, Intent::Grant | Intent::Tell)
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

    /// The lineage as it is told: the newest histories, and the one that the newest version was
    /// written in.
    fn shared_lineage(&self) -> Lineage {
        let lineage = &self.roles.meta().lineage;
        lineage.shared_with(lineage.history_at(self.lsm.last_version()))
    }

    /// Goes on with the visit that is under way, after the peer has said something. An error ends
    /// the visit.
    pub(super) fn step_visit(&mut self, now_ms: u64) -> Result<(), LinkError> {
        let DialState::Connected(_, upstream) = &self.leader_link.dial else {
            return Ok(());
        };
        let Some(takeover) = &mut self.takeover else {
            return Ok(());
        };
        if upstream.peer().is_some() {
            takeover.on_answer();
        }
        let takeover = &*takeover;
        let basis = takeover.basis;
        let Some(peer) = upstream.peer() else {
            // One that speaks protocol 1 takes no claims; it has heard the epoch in the hello.
            return if upstream.has_all() {
                self.end_visit(VisitState::Done(now_ms))
            } else {
                Ok(())
            };
        };
        let meta = self.roles.meta();
        // An epoch has one leader: this one may have been another's.
        let is_taken = !takeover.is_announcing()
            && peer.data_epoch == meta.epoch
            && meta.data_epoch < meta.epoch
            && meta.ordered_epoch < meta.epoch;
        if peer.epoch > meta.epoch || is_taken {
            let (epoch, ordered_epoch) = (peer.epoch, peer.ordered_epoch);
            let leader = peer.address.clone();
            return self.claim_refused(epoch, ordered_epoch, &leader, now_ms);
        }
        let related = relation(
            (&meta.lineage, self.lsm.last_version()),
            (&peer.lineage, peer.last_version),
        );
        if takeover.is_announcing() && related == Relation::Newer {
            // It leads without what this peer holds, and has written nothing since: that is fetched
            // first.
            let epoch = peer.epoch;
            self.fetch_above(epoch);
            return Err(LinkError("a peer holds more than this leader".to_owned()));
        }
        if !takeover.is_announcing() {
            let is_newer = related == Relation::Parted
                && peer.data_ordered_epoch == meta.data_ordered_epoch
                && peer.data_epoch >= meta.data_epoch;
            if is_newer && basis != ClaimBasis::Ordered {
                return self.end_parted(now_ms, peer.last_version);
            }
            if related == Relation::Newer && !upstream.is_fed() {
                // It was written to since it was surveyed.
                return self.end_visit(VisitState::Due(now_ms));
            }
        }
        match upstream.answer_to(meta.epoch) {
            Some(answer) if answer.intent == Intent::Grant && answer.epoch == meta.epoch => {
                let is_behind = related == Relation::Newer && !takeover.is_announcing();
                if is_behind && upstream.is_fed() && !SeededBug::TakeoverTooEarly.is_on() {
                    return Ok(());
                }
                self.end_visit(VisitState::Done(now_ms))
            }
            Some(answer) if answer.epoch < meta.epoch => {
                // A node with data of the same origin grants a higher epoch. What has come from it
                // was sent before it heard of the claim: it makes way for another leader.
                let is_related = answer.last_version == 0
                    || self.is_believed(&answer.lineage, answer.last_version);
                if is_related {
                    return self.end_visit(VisitState::Due(now_ms + BUSY_RETRY_MS));
                }
                log::warn!(
                    "partition {}: {} holds other data, of epoch {}: it is not told of this \
                     leader; assign it a role, or stop it",
                    self.id,
                    self.visited().unwrap_or_default(),
                    answer.epoch
                );
                self.end_visit(VisitState::Done(now_ms))
            }
            Some(answer) => {
                let (epoch, ordered_epoch) = (answer.epoch, answer.ordered_epoch);
                let leader = answer.address.clone();
                self.claim_refused(epoch, ordered_epoch, &leader, now_ms)
            }
            None => {
                if upstream.has_all() {
                    let state = self.own_state(self.claim_intent());
                    if let DialState::Connected(_, upstream) = &mut self.leader_link.dial {
                        upstream.claim(state);
                    }
                }
                Ok(())
            }
        }
    }

    fn end_visit(&mut self, visit: VisitState) -> Result<(), LinkError> {
        if let Some(takeover) = &mut self.takeover {
            takeover.set_visit(visit);
        }
        Err(LinkError("the visit is over".to_owned()))
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

    /// A peer does not grant the claim: it knows of this epoch, which is not below this node's.
    fn claim_refused(
        &mut self,
        epoch: u64,
        ordered_epoch: u64,
        leader: &str,
        now_ms: u64,
    ) -> Result<(), LinkError> {
        let meta = self.roles.meta();
        let (own_epoch, own_ordered) = (meta.epoch, meta.ordered_epoch);
        if epoch - own_epoch > EPOCH_LEAP_MAX {
            log::warn!(
                "partition {}: epoch {epoch} of a peer is not believed: it leaps",
                self.id
            );
            return self.end_visit(VisitState::Done(now_ms));
        }
        let is_outdated = epoch > own_epoch && self.yields();
        let is_ordered_away = is_outdated
            || ordered_epoch > own_ordered
            || (ordered_epoch == own_ordered && ordered_epoch == epoch && epoch == own_epoch);
        if is_ordered_away {
            self.step_down(epoch, ordered_epoch, leader);
        } else {
            self.raise_epoch(epoch);
        }
        Err(LinkError(format!("a peer knows of epoch {epoch}")))
    }

    /// Whether a higher epoch that began elsewhere ends this node's claim. Otherwise a controller's
    /// last word to this process is that it leads: it takes over above that epoch.
    pub(super) fn yields(&self) -> bool {
        match &self.takeover {
            Some(takeover) if takeover.is_announcing() => !takeover.is_told_again,
            _ => !self.is_told_to_lead,
        }
    }

    /// Claims an epoch above one that was heard of.
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
    pub(super) fn visit_ended(&mut self, ended: VisitOutcome, now_ms: u64) {
        let VisitOutcome {
            refusal,
            sync,
            protocol,
        } = ended;
        let Some(takeover) = &mut self.takeover else {
            return;
        };
        let Some(stop) = takeover.stops.get_mut(takeover.current) else {
            return;
        };
        // A visit that has said how it ended stays as it is.
        if matches!(stop.visit, VisitState::Due(at_ms) if at_ms <= now_ms) {
            stop.visit = match (refusal, sync) {
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
    pub(super) fn visit_unreachable(&mut self, is_starting: bool, now_ms: u64) {
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
        if takeover.stage == Stage::Gathering && takeover.due_at_ms().is_none() {
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

    /// Ends the takeover if the office is on disk and no node is left to be told.
    pub(super) fn finish_takeover(&mut self) {
        let settled_count = self.roles.settled_count();
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

    /// Leads from now on.
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
        takeover.stage = Stage::Announcing;
        self.office_time_ms = self.time_ms;
        self.roles.take_office();
        self.change_meta(office);
        if let Some(takeover) = &mut self.takeover {
            takeover.office_change = Some(self.roles.changed_count());
        }
        self.disconnect();
    }

    /// Whether a controller's last word to this node was to lead, and another node has since
    /// claimed to.
    pub(super) fn has_made_way(&self) -> bool {
        self.is_told_to_lead && self.roles.role() == Role::Replica && self.roles.meta().is_heard
    }

    /// This leader lacks what others hold: it takes over anew.
    pub(super) fn fetch_from_peers(&mut self) {
        self.fetch_above(self.roles.meta().epoch);
    }

    pub(super) fn fetch_above(&mut self, heard_epoch: u64) {
        if self.takeover.is_none() {
            let change = self.roles.changed_count();
            let history = self.history();
            self.takeover = Some(Takeover::new(
                ClaimBasis::OwnEpoch,
                history,
                Vec::new(),
                change,
            ));
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
