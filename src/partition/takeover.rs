//! Coming to lead: asking the partition's other nodes first.
//!
//! A node that is made leader visits the partition's other nodes one after another: those that a
//! controller named, its last leader, and the nodes that have connected to it. From each it first
//! takes what that node has and it lacks (a *survey*: the ordinary dialogue of a replica). Then it
//! *claims* to lead in its epoch, and the other node *grants* that: it leads no more, takes nothing
//! from leaders of lower epochs, and tells them. Once every node that can be reached has granted
//! the claim, the node takes its *office*: a new history begins, and writes are taken. Nodes that
//! could not be reached are told later (they are *announced* to), so that a leader that was cut off
//! hears of its successor as soon as it is back.
//!
//! Invariants:
//! 1. A node in office holds what every node that it could reach held when that granted its claim,
//!    unless a controller's order (an explicit epoch) or newer data of its own (a higher epoch of
//!    data) stands against it.
//! 2. Everything is bounded: [`PEERS_MAX`] nodes, one connection at a time, [`PATIENCE_MS`] for one
//!    that does not get on.
//!
//! Not here: the visits themselves (`visits.rs`), the other side, a node that grants a claim
//! (`claims.rs`), following a leader (`following.rs`), what assignments are allowed (`roles.rs`).

use crate::storage::{HistoryId, PEERS_MAX};

/// When a node that answers, but cannot be surveyed yet, is asked again.
pub(super) const BUSY_RETRY_MS: u64 = 50;

/// How long a node that answers is waited for until it can be surveyed. It may be loading its data.
const PATIENCE_MS: u64 = 10_000;

/// When a node with diverged data is asked again: a controller may have decided meanwhile.
pub(super) const PARTED_RETRY_MS: u64 = 2_000;

/// Time between two announcements to a node that could not be reached, at first and in the end.
const ANNOUNCE_MIN_MS: u64 = 500;
pub(super) const ANNOUNCE_MAX_MS: u64 = 10_000;

/// A node that was visited longer ago than this may follow another one by now: before this node
/// leads, it is asked again.
const VISIT_FRESH_MS: u64 = 1_000;

/// How long the reply to an assignment waits for the office.
pub(super) const ANSWER_MAX_MS: u64 = 1_000;

/// Why this node claims to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClaimBasis {
    /// It was assigned the role and chose the epoch itself: it may choose a higher one.
    OwnEpoch,
    /// A controller named the epoch.
    Ordered,
    /// It led in this epoch before it was restarted.
    Resumed,
}

/// How far the visit to one node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VisitState {
    /// To be made at this time.
    Due(u64),
    /// Over at this time: the node has granted the claim, or has nothing to do with the partition.
    Done(u64),
    /// The node cannot be reached.
    Unreachable,
}

/// How far a takeover has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TakeoverStage {
    /// All nodes are visited in the epoch that it claims.
    Gathering,
    /// Nodes that were visited long ago are visited again: only once in an epoch, so that slow
    /// nodes cannot put the office off for ever.
    Confirming,
    /// The node is in office, and announces it to nodes that were not reached.
    Announcing,
}

/// A node to be visited.
#[derive(Debug)]
pub(super) struct PeerVisit {
    pub(super) address: String,
    pub(super) visit: VisitState,
    /// Since when the node answers that it is not ready.
    busy_since_ms: Option<u64>,
}

impl PeerVisit {
    pub(super) fn new(address: String) -> Self {
        Self {
            address,
            visit: VisitState::Due(0),
            busy_since_ms: None,
        }
    }

    /// The node answers that it is not ready: the visit waits, up to [`PATIENCE_MS`].
    pub(super) fn wait(&mut self, now_ms: u64) {
        let since_ms = *self.busy_since_ms.get_or_insert(now_ms);
        self.visit = if now_ms.saturating_sub(since_ms) < PATIENCE_MS {
            VisitState::Due(now_ms + BUSY_RETRY_MS)
        } else {
            VisitState::Unreachable
        };
    }
}

/// A takeover that is under way, or the announcements after it.
#[derive(Debug)]
pub(super) struct Takeover {
    pub(super) basis: ClaimBasis,
    /// The history of the data before anything was fetched.
    pub(super) begun_in: HistoryId,
    pub(super) stops: Vec<PeerVisit>,
    /// The index of the visit that is under way.
    pub(super) current: usize,
    pub(super) begun_at_ms: Option<u64>,
    pub(super) stage: TakeoverStage,
    /// A controller assigned the role again while the node was in office: the node is to lead above
    /// any epoch that others know of.
    pub(super) is_told_again: bool,
    pub(super) retry_ms: u64,
    /// The change of role with a reply that waits for the office, and the change that the office
    /// made.
    pub(super) ordered_change: u64,
    pub(super) office_change: Option<u64>,
    pub(super) is_answer_due: bool,
}

impl Takeover {
    pub(super) fn new(
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
            stage: TakeoverStage::Gathering,
            is_told_again: false,
            retry_ms: ANNOUNCE_MIN_MS,
            ordered_change,
            office_change: None,
            is_answer_due: false,
        }
    }

    pub(super) fn is_announcing(&self) -> bool {
        self.stage == TakeoverStage::Announcing
    }

    /// When the next visit is due.
    pub(super) fn due_at_ms(&self) -> Option<u64> {
        let due = |stop: &PeerVisit| match stop.visit {
            VisitState::Due(at_ms) => Some(at_ms),
            VisitState::Done(_) | VisitState::Unreachable => None,
        };
        self.stops.iter().filter_map(due).min()
    }

    /// The node of the visit that is under way.
    pub(super) fn current(&self) -> Option<&str> {
        self.stops.get(self.current).map(|stop| &stop.address[..])
    }

    pub(super) fn set_visit(&mut self, visit: VisitState) {
        if let Some(stop) = self.stops.get_mut(self.current) {
            stop.visit = visit;
        }
    }

    /// The node that is visited has sent its state.
    pub(super) fn on_answer(&mut self) {
        if let Some(stop) = self.stops.get_mut(self.current) {
            stop.busy_since_ms = None;
        }
    }

    pub(super) fn add(&mut self, address: String) {
        let is_known = self.stops.iter().any(|stop| stop.address == address);
        if !is_known && self.stops.len() < PEERS_MAX {
            self.stops.push(PeerVisit::new(address));
        }
    }

    /// All visits are to be made again.
    pub(super) fn restart(&mut self) {
        self.stage = TakeoverStage::Gathering;
        for stop in &mut self.stops {
            *stop = PeerVisit::new(std::mem::take(&mut stop.address));
        }
    }

    /// Plans the visits once more that were made too long ago.
    pub(super) fn confirm(&mut self, now_ms: u64) {
        self.stage = TakeoverStage::Confirming;
        let is_old = |at_ms: u64| now_ms.saturating_sub(at_ms) > VISIT_FRESH_MS;
        for stop in &mut self.stops {
            if matches!(stop.visit, VisitState::Done(at_ms) if is_old(at_ms)) {
                stop.visit = VisitState::Due(now_ms);
            }
        }
    }

    pub(super) fn missed(&self) -> impl Iterator<Item = &PeerVisit> {
        let stops = self.stops.iter();
        stops.filter(|stop| stop.visit == VisitState::Unreachable)
    }

    /// The highest change that counts as durable while replies wait for the office.
    pub(super) fn held_change(&self, settled_count: u64) -> Option<u64> {
        let is_awaited = !self.is_announcing()
            || self
                .office_change
                .is_some_and(|change| settled_count < change);
        (is_awaited && !self.is_answer_due).then(|| self.ordered_change.saturating_sub(1))
    }
}
