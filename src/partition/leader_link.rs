//! What a partition knows of its leader, or of a node that its takeover visits.

use crate::replication::frame::PROTOCOL_VERSION;
use crate::replication::{LinkId, ReceiverFacts, SyncState};

/// First wait after a failure, and the longest.
pub(super) const RETRY_MIN_MS: u64 = 100;
const RETRY_MAX_MS: u64 = 2_000;

/// The longest wait where only an operator can help: each try costs the leader a snapshot that is
/// not wanted.
const RETRY_PARTED_MS: u64 = 30_000;

/// How fast the leader's clock, as this node knows it, may fall behind: heartbeats that were under
/// way for long make it seem late.
const CLOCK_DRIFT_MS_PER_HEARTBEAT: i64 = 1;

/// How far the connection is.
#[derive(Clone, Copy, Debug)]
pub(super) enum DialState {
    /// To be dialed then.
    At(u64),
    UnderWay,
    Connected(LinkId, ReceiverFacts),
}

/// Statistics of a replica's leader.
#[derive(Clone, Debug)]
pub struct LeaderStats {
    /// What the connection is doing.
    pub state: &'static str,
    /// How far the replica is.
    pub sync: SyncState,
    /// The leader's version as last heard, while connected.
    pub leader_version: Option<u64>,
    /// The epoch of the leader's data, once its log is followed.
    pub leader_epoch: Option<u64>,
    /// Why the leader is not followed, if so.
    pub obstacle: Option<String>,
}

/// A partition's side of its leader.
#[derive(Debug)]
pub(super) struct LeaderLink {
    pub(super) dial: DialState,
    pub(super) retry_ms: u64,
    /// The protocol that the next dial speaks.
    pub(super) protocol: u16,
    /// Survives a lost connection: what is here is what the leader had, if not all of it. Does not
    /// survive a time as leader: after that, this node may hold what its new leader lacks.
    pub(super) sync: SyncState,
    pub(super) obstacle: Option<String>,
    /// How far the leader's clock is ahead of this node's, as far as is known, and from which link.
    pub(super) clock_ahead_ms: i64,
    clock_link: Option<LinkId>,
    /// Whether a leader's time was ever taken over, be it earlier than this node's; from then on it
    /// does not go back. Survives a connection and a change of leaders, as `sync` does.
    has_leader_time: bool,
}

impl Default for LeaderLink {
    fn default() -> Self {
        Self {
            dial: DialState::At(0),
            retry_ms: RETRY_MIN_MS,
            protocol: PROTOCOL_VERSION,
            sync: SyncState::Behind,
            obstacle: None,
            clock_ahead_ms: 0,
            clock_link: None,
            has_leader_time: false,
        }
    }
}

impl LeaderLink {
    /// What is known of the leader after its link ended and the node goes on as a replica.
    pub(super) fn disconnected(&self) -> Self {
        Self {
            sync: self.sync,
            clock_ahead_ms: self.clock_ahead_ms,
            has_leader_time: self.has_leader_time,
            ..Self::default()
        }
    }

    /// Whether this link is the one to the leader.
    pub(super) fn is_connected_by(&self, link: LinkId) -> bool {
        matches!(self.dial, DialState::Connected(id, _) if id == link)
    }

    /// What is known of the receiver of the link, while there is one.
    pub(super) fn facts(&self) -> Option<&ReceiverFacts> {
        match &self.dial {
            DialState::Connected(_, facts) => Some(facts),
            DialState::At(_) | DialState::UnderWay => None,
        }
    }

    /// Records what the receiver knows, if its link is still the one to the leader.
    pub(super) fn record(&mut self, link: LinkId, facts: ReceiverFacts) {
        if self.is_connected_by(link) {
            self.dial = DialState::Connected(link, facts);
        }
    }

    /// Plans the next dial, later after each failure.
    pub(super) fn retry(&mut self, reason: String, now_ms: u64) {
        self.dial = DialState::At(now_ms + self.retry_ms);
        let max_ms = if self.sync == SyncState::Parted {
            RETRY_PARTED_MS
        } else {
            RETRY_MAX_MS
        };
        self.retry_ms = (self.retry_ms * 2).min(max_ms);
        self.obstacle = Some(reason);
    }

    /// The leader's clock was so far ahead when it sent a heartbeat. The heartbeat that was under
    /// way for the shortest time tells most. True for the first one that is ever heard.
    pub(super) fn on_clock(&mut self, link: LinkId, ahead_ms: i64) -> bool {
        self.clock_ahead_ms = match self.clock_link.replace(link) {
            Some(same) if same == link => {
                ahead_ms.max(self.clock_ahead_ms - CLOCK_DRIFT_MS_PER_HEARTBEAT)
            }
            _ => ahead_ms,
        };
        !std::mem::replace(&mut self.has_leader_time, true)
    }
}
