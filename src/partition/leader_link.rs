//! A partition as a replica: finding its leader, taking over what that sends, and changes of role.
//!
//! Invariants:
//! 1. The data is replaced whole or not at all; the old is freed piece by piece.
//! 2. While a change of meta is not on disk, nothing is taken from the leader.
//! 3. After a connection that failed the next is tried a little later each time, and not more often
//!    than every [`RETRY_MAX_MS`] in the end, or of [`RETRY_PARTED_MS`] where the leader holds
//!    other data.

use crate::replication::frame::{PROTOCOL_MIN, PROTOCOL_VERSION, RefusalCode};
use crate::replication::{
    Intent, LeaderReceiver, LinkError, PeerState, ReceivedData, ReceiverEvent, SyncState,
    UNHEARD_MS, whole_address,
};
use crate::seeded_bugs::SeededBug;
use crate::slew::{LAST_UNIX_MS, SlewedClock};
use crate::storage::{DivergedData, PartitionMeta, Replacement, Role};

use super::roles::{AssignError, Assignment};
use super::takeover::{ClaimBasis, VisitOutcome};
use super::{DiskLog, LinkId, Partition};

/// First wait after a failure, and the longest.
const RETRY_MIN_MS: u64 = 100;
const RETRY_MAX_MS: u64 = 2_000;

/// The longest where only an operator can help: each try costs the leader a snapshot that is not
/// wanted.
const RETRY_PARTED_MS: u64 = 30_000;

/// Maintenance may be owed so much before the leader is listened to again: some slices.
const OWED_MAX_WORK: usize = 4 * 1024 * 1024;

/// The disk may be behind by so much before the leader is listened to again.
const UNWRITTEN_MAX_COUNT: u64 = 200_000;

/// How fast what is known of the leader's clock follows it back: heartbeats that were under way for
/// long make it seem late.
const CLOCK_DRIFT_MS_PER_BEAT: i64 = 1;

/// What the other side of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A replica of this partition.
    Replica,
    /// Its leader.
    Leader,
}

#[derive(Debug)]
pub(super) enum DialState {
    /// To be dialed then.
    At(u64),
    UnderWay,
    Connected(LinkId, Box<LeaderReceiver>),
}

/// Figures about a replica's leader.
#[derive(Clone, Debug)]
pub struct LeaderStats {
    /// What the connection is doing.
    pub state: &'static str,
    /// How far it is.
    pub sync: SyncState,
    /// Its version as last heard, while connected.
    pub leader_version: Option<u64>,
    /// The epoch of its data, once its log is followed.
    pub leader_epoch: Option<u64>,
    /// Why it is not followed, if so.
    pub obstacle: Option<String>,
}

/// A replica's side of its leader.
#[derive(Debug)]
pub(super) struct LeaderLink {
    pub(super) dial: DialState,
    retry_ms: u64,
    /// The protocol that the next dial speaks.
    protocol: u16,
    /// Survives a lost connection: what is here is what the leader had, if not all of it. Not a
    /// time as leader: a node that follows after that may hold what its new leader has not.
    sync: SyncState,
    pub(super) obstacle: Option<String>,
    /// The leader's clock is so far ahead of this node's, as far as is known, and from which
    /// connection.
    clock_ahead_ms: i64,
    clock_link: Option<LinkId>,
    /// A leader's time was taken over, be it earlier than this node's; from then on it does not go
    /// back. Survives a connection and a change of leaders, as `sync` does.
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
    pub(super) fn sync(&self) -> SyncState {
        self.sync
    }

    fn retry(&mut self, reason: String, now_ms: u64) {
        self.dial = DialState::At(now_ms + self.retry_ms);
        let max_ms = if self.sync == SyncState::Parted {
            RETRY_PARTED_MS
        } else {
            RETRY_MAX_MS
        };
        self.retry_ms = (self.retry_ms * 2).min(max_ms);
        self.obstacle = Some(reason);
    }
}

impl Partition {
    /// Takes on a role; the number of the change, which [`Wait::Settled`](super::Wait::Settled)
    /// waits for.
    pub fn assign(&mut self, assignment: &Assignment) -> Result<u64, AssignError> {
        let mut meta = self.roles.assigned(assignment)?;
        let before = self.roles.meta().clone();
        let (role_before, took_over) = (self.roles.role(), self.roles.is_taking_over());
        if let Some(leader) = &before.leader {
            self.last_leader = Some(leader.clone());
        }
        self.roles.take_duty();
        self.is_told_to_lead = meta.role == Role::Leader;
        let is_same_epoch = meta.epoch == before.epoch;
        if meta.role == Role::Leader {
            meta.peers = self.with_known_peers(&meta.peers);
            if is_same_epoch && took_over {
                self.change_meta(meta);
                self.add_to_takeover(&assignment.peers);
                return Ok(self.roles.changed_count());
            }
            let basis = match assignment.epoch {
                Some(epoch) if epoch > 0 => ClaimBasis::Ordered,
                _ if before.role == Role::Leader => ClaimBasis::Resumed,
                _ => ClaimBasis::OwnEpoch,
            };
            if is_same_epoch && role_before == Role::Leader {
                self.change_meta(meta);
                let peers = self.roles.meta().peers.clone();
                self.reassure_peers(&peers, basis);
                return Ok(self.roles.changed_count());
            }
            self.change_meta(meta);
            if role_before == Role::Leader {
                self.leave_office();
            }
            self.roles.begin_takeover();
            self.tell_leader();
            self.disconnect();
            self.begin_takeover(basis);
            return Ok(self.roles.changed_count().min(self.ordered_change()));
        }
        self.change_meta(meta);
        if role_before == Role::Leader {
            self.leadership_generation += 1;
        }
        let now = self.roles.meta();
        if took_over
            || (now.role, &now.leader, now.epoch) != (role_before, &before.leader, before.epoch)
        {
            log::info!(
                "partition {}: {} in epoch {}",
                self.id,
                now.role.name(),
                now.epoch
            );
            self.takeover = None;
            self.disconnect();
        }
        Ok(self.roles.changed_count())
    }

    /// Goes on as the leader that the partition was before a restart, once its peers were asked.
    pub fn resume_office(&mut self) {
        let meta = self.roles.meta();
        let is_in_office = meta.data_epoch == meta.epoch;
        if self.roles.role() == Role::Leader && !(is_in_office && meta.peers.is_empty()) {
            self.begin_takeover(ClaimBasis::Resumed);
        }
    }

    pub(super) fn change_meta(&mut self, meta: PartitionMeta) {
        let lasts = self.disk.is_none();
        self.roles.change(meta, lasts);
    }

    /// The leader's clock showed this when it sent its heartbeat. The one that was under way for
    /// the shortest time tells most.
    fn on_leader_time(&mut self, link: LinkId, time_ms: u64) {
        let ahead_ms = time_ms.min(LAST_UNIX_MS).cast_signed() - self.time_ms.cast_signed();
        let follows = &mut self.leader_link;
        follows.clock_ahead_ms = match follows.clock_link.replace(link) {
            Some(same) if same == link => {
                ahead_ms.max(follows.clock_ahead_ms - CLOCK_DRIFT_MS_PER_BEAT)
            }
            _ => ahead_ms,
        };
        if !std::mem::replace(&mut follows.has_leader_time, true) {
            // What this node has shown so far was not this leader's data.
            self.clock = SlewedClock::showing(time_ms.min(LAST_UNIX_MS));
        }
        self.set_time_ms(self.time_ms);
    }

    /// Tells what time it is, in Unix ms. A replica goes by its leader's clock: what has expired
    /// there has expired here. A node that comes to lead goes on from there, and comes to its own
    /// clock little by little: what has expired stays so, and nothing expires because of the
    /// change.
    pub fn set_time_ms(&mut self, time_ms: u64) {
        let reference_ms = time_ms.saturating_add_signed(self.leader_link.clock_ahead_ms);
        // Until then it shows what it did before the start.
        let is_first = self.time_ms == 0;
        let elapsed_ms = time_ms.saturating_sub(self.time_ms);
        self.clock
            .advance(if is_first { 0 } else { elapsed_ms }, reference_ms);
        if is_first || self.roles.role() == Role::Replica {
            self.clock.catch_up(reference_ms);
        }
        self.time_ms = time_ms;
        self.lsm.set_time_ms(self.clock.now_ms());
    }

    /// Ends all connections, and looks for the leader anew.
    pub(super) fn disconnect(&mut self) {
        self.replicas.clear();
        self.disconnect_from_leader();
    }

    /// Ends the connection to the leader, or to a node that is visited.
    pub(super) fn disconnect_from_leader(&mut self) {
        // What was known of a leader's clock is worth something until the next one is heard; a
        // leader goes by its own.
        let begun = match self.roles.role() {
            Role::Replica => LeaderLink {
                sync: self.leader_link.sync,
                clock_ahead_ms: self.leader_link.clock_ahead_ms,
                has_leader_time: self.leader_link.has_leader_time,
                ..LeaderLink::default()
            },
            Role::Leader | Role::Unassigned => LeaderLink::default(),
        };
        let follows = std::mem::replace(&mut self.leader_link, begun);
        if let DialState::Connected(_, upstream) = follows.dial {
            self.free_upstream(*upstream);
        }
        self.keep_log();
    }

    fn free_upstream(&mut self, upstream: LeaderReceiver) {
        if let Some(remains) = upstream.into_remains(self.options.engine) {
            self.retire(remains);
        }
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

    /// A node cannot be reached; `is_starting`: it answers that it is not ready yet. Logged once
    /// for each reason: the next try is never far.
    pub fn on_unreachable(
        &mut self,
        address: &str,
        reason: String,
        is_starting: bool,
        now_ms: u64,
    ) {
        if !matches!(self.leader_link.dial, DialState::UnderWay) || self.dialed() != Some(address) {
            return;
        }
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
            self.visit_unreachable(is_starting, now_ms);
        } else {
            self.leader_link.retry(reason, now_ms);
        }
    }

    /// A replication socket is open: what is to be said first goes to `out`. False if it is not
    /// wanted any more.
    pub fn connected(
        &mut self,
        link: LinkId,
        address: &str,
        token: &[u8],
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> bool {
        let is_wanted =
            matches!(self.leader_link.dial, DialState::UnderWay) && self.dialed() == Some(address);
        if is_wanted {
            let upstream = LeaderReceiver::greet(
                self.id,
                self.options.node_id,
                self.own_state(self.intent()),
                self.lsm.position(),
                token,
                self.leader_link.protocol,
                now_ms,
                out,
            );
            self.leader_link.dial = DialState::Connected(link, Box::new(upstream));
        }
        is_wanted
    }

    /// Whether the leader is to be listened to now: neither the disk nor maintenance is too far
    /// behind.
    pub fn wants_from_leader(&self) -> bool {
        let unwritten = self
            .disk
            .as_ref()
            .map_or(0, |disk| self.lsm.last_version() - disk.handed_version());
        self.roles.is_settled()
            && self.lsm.owed_work() < OWED_MAX_WORK
            && unwritten < UNWRITTEN_MAX_COUNT
    }

    /// The leader says something. Takes all of `input`, unless a change of meta has to be on
    /// disk first: then call again with the rest once
    /// [`wants_from_leader`](Self::wants_from_leader).
    pub fn receive_from_leader(
        &mut self,
        link: LinkId,
        input: &mut &[u8],
        now_ms: u64,
    ) -> Result<(), LinkError> {
        while self.roles.is_settled() {
            let DialState::Connected(id, upstream) = &mut self.leader_link.dial else {
                return Err(left());
            };
            if *id != link {
                return Err(left());
            }
            let meta = self.roles.meta();
            let outcome = upstream.receive(input, &mut self.lsm, meta, self.options.engine, now_ms);
            let is_visit = self.takeover.is_some();
            if upstream.sync() == SyncState::Parted && !is_visit {
                self.leader_link.sync = SyncState::Parted;
            } else if upstream
                .refusal()
                .is_some_and(|code| code != RefusalCode::Busy)
            {
                // What it serves grows old, and no one knows how old.
                self.leader_link.sync = SyncState::Behind;
            }
            let Some(following) = outcome? else {
                return Ok(());
            };
            if !is_visit
                && upstream.sync() == SyncState::InSync
                && self.leader_link.sync != SyncState::InSync
            {
                self.leader_link.sync = SyncState::InSync;
                log::info!(
                    "partition {}: in sync with its leader at version {}",
                    self.id,
                    self.lsm.last_version()
                );
            }
            match following {
                ReceiverEvent::Noted => {}
                ReceiverEvent::Told => {
                    let told = upstream.peer().cloned();
                    if let (Some(told), false) = (told, is_visit) {
                        self.receive_from_leader_state(told);
                    }
                }
                // Only a leader's clock counts, not that of a node that is visited.
                ReceiverEvent::Beat { .. } if is_visit => {}
                ReceiverEvent::Beat { time_ms } => self.on_leader_time(link, time_ms),
                ReceiverEvent::Continues { epoch, lineage } => {
                    let lineage = lineage.with_older_of(&self.roles.meta().lineage);
                    (self.leader_link.obstacle, self.leader_link.retry_ms) = (None, RETRY_MIN_MS);
                    log::debug!(
                        "partition {}: goes on behind version {}",
                        self.id,
                        self.lsm.last_version()
                    );
                    let ordered_epoch = upstream.peer().map_or(0, |peer| peer.ordered_epoch);
                    let meta = self.roles.meta().clone();
                    let epoch = epoch.max(meta.epoch);
                    self.change_meta(PartitionMeta {
                        epoch,
                        ordered_epoch: ordered_epoch.min(epoch).max(meta.ordered_epoch),
                        lineage,
                        ..meta
                    });
                }
                ReceiverEvent::SnapshotBegins {
                    version,
                    about_bytes,
                } => {
                    self.leader_link.sync = SyncState::Behind;
                    self.leader_link.obstacle = None;
                    log::info!(
                        "partition {}: gets a snapshot of version {version} from its leader, about \
                         {} MiB",
                        self.id,
                        about_bytes.div_ceil(1 << 20)
                    );
                }
                ReceiverEvent::ReceivedData(installed) => self.install(*installed),
            }
            self.update_data_epoch();
            if self.takeover.is_some() {
                self.step_visit(now_ms)?;
            }
        }
        Ok(())
    }

    /// The leader tells where it stands: by its first words, or because it leads no more.
    fn receive_from_leader_state(&mut self, mut told: PeerState) {
        let leader = self.roles.meta().leader.as_deref().unwrap_or_default();
        let host = leader
            .trim_start_matches("http://")
            .rsplit_once(':')
            .map_or("", |(host, _)| host);
        told.address = whole_address(&told.address, host);
        let meta = self.roles.meta();
        let is_leading = told.address.is_empty() || Some(&told.address) == meta.leader.as_ref();
        if !is_leading && told.intent == Intent::Tell {
            self.hear_of_leader(&told);
        }
    }

    /// Once all is here that the epoch of the peer's data began with, the data is of that epoch.
    fn update_data_epoch(&mut self) {
        let DialState::Connected(_, upstream) = &self.leader_link.dial else {
            return;
        };
        let meta = self.roles.meta();
        let ordered_epoch = upstream.peer().map_or(0, |peer| peer.data_ordered_epoch);
        let Some(data_epoch) = upstream.epoch() else {
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
    fn install(&mut self, installed: ReceivedData) {
        let ReceivedData {
            lsm,
            epoch,
            lineage,
        } = installed;
        self.snapshot_stats.received_count += 1;
        self.leader_link.retry_ms = RETRY_MIN_MS;
        let before = self.roles.meta().clone();
        let version = self.lsm.last_version();
        let common_version = lineage
            .common_version_with(&before.lineage, version)
            .unwrap_or(0);
        let peer = match &self.leader_link.dial {
            DialState::Connected(_, upstream) => upstream.peer(),
            DialState::At(_) | DialState::UnderWay => None,
        };
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
        let dropped = (common_version < version).then(|| {
            let (history, snapshot) = (before.lineage.history(), old.snapshot());
            DivergedData {
                snapshot,
                history,
                common_version,
            }
        });
        self.replicas.clear();
        if let Some(disk) = &mut self.disk {
            let number = disk.begin_replacement(&self.lsm);
            let snapshot = self.lsm.snapshot();
            self.replacement = Some(Box::new(Replacement {
                number,
                snapshot,
                meta: meta.clone(),
                dropped,
            }));
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
        self.retire(old);
        self.keep_log();
    }

    /// Appends what is to be confirmed to the leader.
    pub fn confirm_to_leader(
        &mut self,
        link: LinkId,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        let is_early = SeededBug::AckBeforeSync.is_on();
        let durable_version = match self.released_version() {
            _ if is_early => u64::MAX,
            // What counts as this epoch's must not be lost as an older one's.
            _ if !self.roles.is_settled() => 0,
            version => version,
        };
        let applied_version = self.lsm.last_version();
        match &mut self.leader_link.dial {
            DialState::Connected(id, upstream) if *id == link => {
                upstream.confirm(applied_version, durable_version, now_ms, out)
            }
            _ => Err(left()),
        }
    }

    /// When the leader is to hear something at the latest.
    pub fn confirm_at_ms(&self) -> Option<u64> {
        match &self.leader_link.dial {
            DialState::Connected(_, upstream) => Some(upstream.wake_at_ms()),
            DialState::At(_) | DialState::UnderWay => None,
        }
    }

    /// The connection to the leader, or to a node that was visited, has ended.
    pub fn forget_leader(&mut self, link: LinkId, reason: &LinkError, now_ms: u64) {
        if !matches!(self.leader_link.dial, DialState::Connected(id, _) if id == link) {
            return;
        }
        let dial = std::mem::replace(&mut self.leader_link.dial, DialState::At(now_ms));
        let DialState::Connected(_, upstream) = dial else {
            return;
        };
        let (refusal, protocol) = (upstream.refusal(), upstream.protocol());
        let ended = VisitOutcome {
            refusal,
            sync: upstream.sync(),
            protocol,
        };
        self.free_upstream(*upstream);
        let is_older = refusal == Some(RefusalCode::Protocol) && protocol > PROTOCOL_MIN;
        self.leader_link.protocol = if is_older {
            PROTOCOL_MIN
        } else {
            PROTOCOL_VERSION
        };
        if self.takeover.is_some() {
            self.visit_ended(ended, now_ms);
        } else if is_older {
            self.leader_link.dial = DialState::At(now_ms);
        } else {
            self.leader_link.retry(reason.0.clone(), now_ms);
        }
    }

    /// Figures about the leader, of a replica.
    pub fn leader_stats(&self, now_ms: u64) -> Option<LeaderStats> {
        if self.roles.role() != Role::Replica {
            return None;
        }
        let (state, leader_version, leader_epoch) = match &self.leader_link.dial {
            DialState::Connected(_, upstream) => {
                let is_heard = upstream.silent_ms(now_ms) < UNHEARD_MS;
                (
                    upstream.state_name(),
                    upstream.leader_version().filter(|_| is_heard),
                    upstream.epoch(),
                )
            }
            DialState::At(_) | DialState::UnderWay if self.roles.meta().leader.is_none() => {
                ("no leader known", None, None)
            }
            DialState::At(_) | DialState::UnderWay => ("connecting", None, None),
        };
        let obstacle = match &self.roles.meta().leader {
            _ if self.takeover.is_some() => self.leader_link.obstacle.clone(),
            Some(_) => self.leader_link.obstacle.clone(),
            None => Some("no leader is known: assign one".to_owned()),
        };
        Some(LeaderStats {
            state,
            sync: self.leader_link.sync,
            leader_version,
            leader_epoch,
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
        !self.disk.as_ref().is_some_and(DiskLog::is_replacing)
    }
}

fn left() -> LinkError {
    LinkError("the role of this node has changed".to_owned())
}
