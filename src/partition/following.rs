//! A partition as a replica: finding its leader, and taking over what the leader sends.
//!
//! Invariants:
//! 1. The data is replaced whole or not at all; the old is freed piece by piece.
//! 2. While a change of metadata is not on disk, nothing is taken from the leader.
//! 3. After a connection that failed the next is tried a little later each time, up to 2 s, or up
//!    to 30 s where the leader holds other data (`leader_link.rs`).
//!
//! Not here: the state machine of a link (`replication/leader_receiver.rs`).

use crate::replication::frame::{Ack, Hello, PROTOCOL_MIN, PROTOCOL_VERSION, RefusalCode};
use crate::replication::{
    DialFailure, Intent, LeaderReceiver, LinkError, LinkId, PeerState, ReceivedData, ReceiverEvent,
    SyncState, UNHEARD_MS, whole_address,
};
use crate::seeded_bugs::SeededBug;
use crate::storage::{DivergedData, Lineage, PartitionMeta, Replacement, Role};

use super::leader_link::{DialState, LeaderLink, LeaderStats, RETRY_MIN_MS};
use super::serving::host_of;
use super::state::Partition;

/// Maintenance may be owed so much before the leader is listened to again: some slices.
const OWED_MAX_WORK: usize = 4 * 1024 * 1024;

/// The disk may be behind by so much before the leader is listened to again.
const UNWRITTEN_MAX_COUNT: u64 = 200_000;

impl Partition {
    /// Drops all links, and looks for the leader anew.
    pub(super) fn disconnect(&mut self) {
        self.replicas.clear();
        self.disconnect_from_leader();
    }

    /// Drops the link to the leader, or to a node that is visited.
    pub(super) fn disconnect_from_leader(&mut self) {
        // What was known of a leader's clock is worth something until the next one is heard; a
        // leader goes by its own.
        self.leader_link = match self.roles.role() {
            Role::Replica => self.leader_link.disconnected(),
            Role::Leader | Role::Unassigned => LeaderLink::default(),
        };
        self.keep_log();
    }

    /// The address of the leader, or of another node that a takeover visits, if it is to be dialed
    /// now. [`connected`](Self::connected) or [`on_unreachable`](Self::on_unreachable) follows.
    pub fn take_dial(&mut self, now_ms: u64) -> Option<String> {
        if self.takeover.is_some() {
            return self.take_visit(now_ms);
        }
        let at_ms = self.dial_at_ms()?;
        if at_ms > now_ms {
            return None;
        }
        let leader = self.roles.meta().leader.clone()?;
        self.leader_link.dial = DialState::UnderWay;
        Some(leader)
    }

    /// When a node is to be dialed, if one is.
    pub fn dial_at_ms(&self) -> Option<u64> {
        if self.takeover.is_some() {
            return self.visit_at_ms();
        }
        let is_due = self.roles.role() == Role::Replica && self.roles.is_settled();
        match self.leader_link.dial {
            DialState::At(at_ms) if is_due && self.roles.meta().leader.is_some() => Some(at_ms),
            _ => None,
        }
    }

    /// The node that is dialed: that of a visit, or the leader.
    fn dialed(&self) -> Option<&str> {
        if self.takeover.is_some() {
            self.visited()
        } else {
            self.roles.meta().leader.as_deref()
        }
    }

    /// A node cannot be reached. Logged once for each reason: the next try is never far.
    pub fn on_unreachable(&mut self, address: &str, failure: DialFailure, now_ms: u64) {
        if !matches!(self.leader_link.dial, DialState::UnderWay) || self.dialed() != Some(address) {
            return;
        }
        let reason = failure.reason;
        let is_known = self.leader_link.obstacle.as_ref() == Some(&reason);
        let level = if is_known {
            log::Level::Debug
        } else {
            log::Level::Warn
        };
        log::log!(level, "partition {}: {reason}", self.id);
        if self.takeover.is_some() {
            (self.leader_link.dial, self.leader_link.obstacle) =
                (DialState::At(now_ms), Some(reason));
            self.on_visit_unreachable(failure.is_starting, now_ms);
        } else {
            self.leader_link.retry(reason, now_ms);
        }
    }

    /// A replication socket is open: what is to be said first goes to `out`. None if it is not
    /// wanted any more.
    pub fn connected(
        &mut self,
        link: LinkId,
        address: &str,
        token: &[u8],
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Option<LeaderReceiver> {
        let is_wanted =
            matches!(self.leader_link.dial, DialState::UnderWay) && self.dialed() == Some(address);
        if !is_wanted {
            return None;
        }
        let (state, position) = (self.own_state(self.intent()), self.lsm.position());
        let hello = Hello {
            protocol_version: self.leader_link.protocol,
            partition: self.id,
            copy: self.roles.meta().copy,
            epoch: state.epoch,
            history: state.lineage.history_at(position.version),
            position,
            token,
        };
        let mut receiver = LeaderReceiver::handshake(link, hello, state, now_ms, out);
        receiver.empty_leaders = self.empty_leaders();
        self.leader_link.dial = DialState::Connected(link, receiver.facts());
        Some(receiver)
    }

    /// The leader tells where it stands: by its first words, or because it leads no more.
    fn on_leader_state(&mut self, mut told: PeerState) {
        let leader = self.roles.meta().leader.as_deref().unwrap_or_default();
        let host = host_of(leader.trim_start_matches("http://"));
        told.address = whole_address(&told.address, host);
        let meta = self.roles.meta();
        let is_leading = told.address.is_empty() || Some(&told.address) == meta.leader.as_ref();
        if !is_leading && told.intent == Intent::Report {
            self.on_leader_report(&told);
        }
    }

    /// The log of the leader goes on from what is here.
    fn on_log_continues(&mut self, receiver: &LeaderReceiver, epoch: u64, lineage: Lineage) {
        (self.leader_link.obstacle, self.leader_link.retry_ms) = (None, RETRY_MIN_MS);
        log::debug!(
            "partition {}: goes on behind version {}",
            self.id,
            self.lsm.last_version()
        );
        let ordered_epoch = receiver.peer.as_ref().map_or(0, |peer| peer.ordered_epoch);
        let meta = self.roles.meta().clone();
        let epoch = epoch.max(meta.epoch);
        self.change_meta(PartitionMeta {
            epoch,
            ordered_epoch: ordered_epoch.min(epoch).max(meta.ordered_epoch),
            lineage: lineage.with_older_of(&meta.lineage),
            ..meta
        });
    }

    fn on_snapshot_begins(&mut self, version: u64, about_bytes: u64) {
        self.leader_link.sync = SyncState::Behind;
        self.leader_link.obstacle = None;
        log::info!(
            "partition {}: gets a snapshot of version {version} from its leader, about {} MiB",
            self.id,
            about_bytes.div_ceil(1 << 20)
        );
    }

    /// Once all is here that the epoch of the peer's data began with, the data is of that epoch.
    fn update_data_epoch(&mut self, receiver: &LeaderReceiver) {
        let meta = self.roles.meta();
        let ordered_epoch = receiver
            .peer
            .as_ref()
            .map_or(0, |peer| peer.data_ordered_epoch);
        let Some(data_epoch) = receiver.leader_epoch else {
            return;
        };
        let is_news = data_epoch > meta.data_epoch
            || (data_epoch == meta.data_epoch && ordered_epoch > meta.data_ordered_epoch);
        if is_news && meta.lineage.begun_version() <= self.lsm.last_version() {
            self.change_meta(PartitionMeta {
                data_epoch,
                data_ordered_epoch: ordered_epoch.max(meta.data_ordered_epoch),
                ..meta.clone()
            });
        }
    }

    /// Replaces all data.
    fn install(&mut self, data: ReceivedData, peer: Option<&PeerState>) {
        let ReceivedData {
            lsm,
            epoch,
            lineage,
        } = data;
        self.snapshot_stats.received_count += 1;
        self.leader_link.retry_ms = RETRY_MIN_MS;
        let before = self.roles.meta().clone();
        let version = self.lsm.last_version();
        let common_version = lineage
            .common_version_with(&before.lineage, version)
            .unwrap_or(0);
        let ordered_epoch = peer.map_or(0, |peer| peer.ordered_epoch);
        let epoch_now = epoch.max(before.epoch);
        let meta = PartitionMeta {
            epoch: epoch_now,
            ordered_epoch: ordered_epoch.min(epoch_now).max(before.ordered_epoch),
            data_epoch: epoch,
            data_ordered_epoch: peer.map_or(0, |peer| peer.data_ordered_epoch),
            lineage: lineage.with_older_of(&before.lineage),
            ..before.clone()
        };
        let mut old = std::mem::replace(&mut self.lsm, lsm);
        self.lsm.set_time_ms(old.time_ms());
        let dropped = (common_version < version).then(|| DivergedData {
            snapshot: old.snapshot(),
            history: before.lineage.history(),
            common_version,
        });
        self.replicas.clear();
        if let Some(disk) = &mut self.disk {
            let replacement = Replacement {
                number: disk.begin_replacement(&self.lsm),
                snapshot: self.lsm.snapshot(),
                meta: meta.clone(),
                dropped,
            };
            disk.replacement.queued = Some(Box::new(replacement));
            self.roles.replace(meta);
        } else {
            if dropped.is_some() {
                log::warn!(
                    "partition {}: writes of versions {} to {version}, which the leader's history \
                     lacks, are dropped; without --data-dir there is no place to save them",
                    self.id,
                    common_version + 1
                );
            }
            self.change_meta(meta);
        }
        self.retired.add(old);
        self.keep_log();
    }

    /// The version that the leader is told of as durable here.
    fn confirmable_version(&self) -> u64 {
        if SeededBug::AckBeforeSync.is_on() {
            return u64::MAX;
        }
        // What counts as this epoch's must not be lost as an older one's.
        if self.roles.is_settled() {
            self.released_version()
        } else {
            0
        }
    }

    /// Statistics of the leader; none if this node is not a replica.
    pub fn leader_stats(&self, now_ms: u64) -> Option<LeaderStats> {
        if self.roles.role() != Role::Replica {
            return None;
        }
        let has_leader = self.roles.meta().leader.is_some();
        let facts = self.leader_link.facts();
        let is_heard =
            facts.is_some_and(|facts| now_ms.saturating_sub(facts.heard_at_ms) < UNHEARD_MS);
        let state = match facts {
            Some(facts) => facts.state_name,
            None if has_leader => "connecting",
            None => "no leader known",
        };
        let obstacle = if self.takeover.is_some() || has_leader {
            self.leader_link.obstacle.clone()
        } else {
            let way_out = if self.is_in_cluster() {
                "etcd names none that has registered"
            } else {
                "assign one"
            };
            Some(format!("no leader is known: {way_out}"))
        };
        Some(LeaderStats {
            state,
            sync: self.leader_link.sync,
            leader_version: facts
                .and_then(|facts| facts.leader_version)
                .filter(|_| is_heard),
            leader_epoch: facts.and_then(|facts| facts.leader_epoch),
            obstacle,
        })
    }

    /// What it does, in words.
    pub fn state_name(&self) -> &'static str {
        match self.roles.role() {
            _ if self.roles.is_taking_over() => "catching up to lead",
            _ if !self.roles.is_settled() => "changing its role",
            Role::Leader => "leading",
            Role::Unassigned => "unassigned",
            Role::Replica => match self.leader_link.sync {
                SyncState::Behind => "catching up",
                SyncState::InSync => "in sync",
                SyncState::Parted => "parted from its leader",
            },
        }
    }

    /// Whether its data can be served: a leader's always, a replica's once it has caught up.
    pub fn is_in_sync(&self) -> bool {
        match self.roles.role() {
            Role::Leader => true,
            Role::Replica => self.leader_link.sync == SyncState::InSync,
            Role::Unassigned => false,
        }
    }

    /// Whether a disk, if there is one, holds its data rather than what it replaces.
    pub fn is_replaced(&self) -> bool {
        let disk = self.disk.as_ref();
        !disk.is_some_and(|disk| disk.replacement.is_running)
    }

    /// Whether what a leader sends can be taken in now: role and epoch are durable, and neither the
    /// disk nor maintenance is too far behind.
    pub fn wants_data(&self) -> bool {
        let unwritten = self
            .disk
            .as_ref()
            .map_or(0, |disk| self.lsm.last_version() - disk.handed_version);
        self.roles.is_settled()
            && self.lsm.owed_work() < OWED_MAX_WORK
            && unwritten < UNWRITTEN_MAX_COUNT
    }

    /// Whether the link is still the one to the leader, or to the node that a takeover visits.
    pub(super) fn check_connected(&self, link: LinkId) -> Result<(), LinkError> {
        if self.leader_link.is_connected_by(link) {
            Ok(())
        } else {
            Err(LinkError::RoleChanged)
        }
    }

    /// Acts on what a frame has brought. An error ends the link.
    pub(super) fn on_received(
        &mut self,
        receiver: &mut LeaderReceiver,
        event: ReceiverEvent,
        now_ms: u64,
    ) -> Result<(), LinkError> {
        let is_visit = self.takeover.is_some();
        match event {
            ReceiverEvent::Data => {}
            ReceiverEvent::Beat { number } => {
                if self.grants_beat(receiver.leader_epoch) {
                    receiver.grant(number);
                }
            }
            ReceiverEvent::PeerState => {
                if let Some(state) = receiver.peer.as_ref().filter(|_| !is_visit) {
                    self.on_leader_state(state.clone());
                }
            }
            // Only a leader's clock counts, not that of a node that is visited.
            ReceiverEvent::Heartbeat { .. } if is_visit => {}
            ReceiverEvent::Heartbeat { time_ms } => self.on_leader_time(receiver.link, time_ms),
            ReceiverEvent::LogContinues { epoch, lineage } => {
                self.on_log_continues(receiver, epoch, lineage);
            }
            ReceiverEvent::SnapshotBegins {
                version,
                about_bytes,
            } => self.on_snapshot_begins(version, about_bytes),
            ReceiverEvent::SnapshotReceived(data) => self.install(*data, receiver.peer.as_ref()),
        }
        self.check_connected(receiver.link)?;
        if !is_visit
            && receiver.sync == SyncState::InSync
            && self.leader_link.sync != SyncState::InSync
        {
            self.leader_link.sync = SyncState::InSync;
            log::info!(
                "partition {}: in sync with its leader at version {}",
                self.id,
                self.lsm.last_version()
            );
        }
        self.update_data_epoch(receiver);
        self.leader_link.record(receiver.link, receiver.facts());
        self.step_visit(receiver, now_ms)
    }

    /// What the leader may be told of as applied and durable. An error ends the link.
    pub(super) fn held_versions(&self, link: LinkId) -> Result<Ack, LinkError> {
        self.check_connected(link)?;
        Ok(Ack {
            applied_version: self.lsm.last_version(),
            durable_version: self.confirmable_version(),
        })
    }

    /// The connection to a leader has ended.
    pub(super) fn on_receiver_closed(
        &mut self,
        receiver: &LeaderReceiver,
        reason: &LinkError,
        now_ms: u64,
    ) {
        if !self.leader_link.is_connected_by(receiver.link) {
            return;
        }
        let (refusal, protocol) = (receiver.refusal, receiver.protocol);
        if receiver.sync == SyncState::Parted && self.takeover.is_none() {
            self.leader_link.sync = SyncState::Parted;
        } else if refusal.is_some_and(|code| code != RefusalCode::Busy) {
            // The data of this node grows old, and nothing tells how old.
            self.leader_link.sync = SyncState::Behind;
        }
        let is_older = refusal == Some(RefusalCode::Protocol) && protocol > PROTOCOL_MIN;
        self.leader_link.protocol = if is_older {
            PROTOCOL_MIN
        } else {
            PROTOCOL_VERSION
        };
        self.leader_link.dial = DialState::At(now_ms);
        if self.takeover.is_some() {
            self.on_visit_closed(receiver, now_ms);
        } else if !is_older {
            self.leader_link.retry(reason.to_string(), now_ms);
        }
    }
}
