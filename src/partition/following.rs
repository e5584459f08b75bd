//! A partition as a replica: finding its leader, taking over what that sends, and changes of role.
//!
//! Invariants:
//! 1. The data is replaced whole or not at all; the old is freed piece by piece.
//! 2. While a change of standing is not on disk, nothing is taken from the leader.
//! 3. After a connection that failed the next is tried a little later each time, and not more often than every
//!    [`RETRY_MAX_MS`] in the end, or of [`RETRY_PARTED_MS`] where the leader holds other data.

use crate::planted::{Bug, is_planted};
use crate::replication::{Ended, Following, Installed, Sync, Upstream};
use crate::storage::{Dropped, HistoryId, Replacement, Role, Standing};

use super::roles::{AssignError, Assignment};
use super::{DiskLog, LinkId, Partition};

/// First wait after a failure, and the longest.
const RETRY_MIN_MS: u64 = 100;
const RETRY_MAX_MS: u64 = 2_000;

/// The longest where only an operator can help: each try costs the leader a snapshot that is not wanted.
const RETRY_PARTED_MS: u64 = 30_000;

/// Maintenance may be owed so much before the leader is listened to again: some slices.
const OWED_MAX_WORK: usize = 4 * 1024 * 1024;

/// The disk may be behind by so much before the leader is listened to again.
const UNWRITTEN_MAX_COUNT: u64 = 200_000;

/// How fast what is known of the leader's clock follows it back: heartbeats that were under way for long make it seem late.
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
enum Dial {
    /// To be dialed then.
    At(u64),
    UnderWay,
    Connected(LinkId, Box<Upstream>),
}

/// Figures about a replica's leader.
#[derive(Clone, Debug)]
pub struct FollowingStats {
    /// What the connection is doing.
    pub state: &'static str,
    /// How far it is.
    pub sync: Sync,
    /// Its version as last heard, while connected.
    pub leader_version: Option<u64>,
    /// Why it is not followed, if so.
    pub obstacle: Option<String>,
}

/// A replica's side of its leader.
#[derive(Debug)]
pub(super) struct Follows {
    dial: Dial,
    retry_ms: u64,
    /// Survives a connection that is lost: what is here is what the leader had, if not all of it. Not a time as leader: whoever
    /// follows after that may hold what its new leader has not.
    sync: Sync,
    obstacle: Option<String>,
    /// The leader's clock is so far ahead of this node's, as far as is known, and from which connection.
    clock_ahead_ms: i64,
    clock_link: Option<LinkId>,
}

impl Default for Follows {
    fn default() -> Self {
        Self {
            dial: Dial::At(0),
            retry_ms: RETRY_MIN_MS,
            sync: Sync::Behind,
            obstacle: None,
            clock_ahead_ms: 0,
            clock_link: None,
        }
    }
}

impl Follows {
    pub(super) fn sync(&self) -> Sync {
        self.sync
    }

    fn retry(&mut self, reason: String, now_ms: u64) {
        self.dial = Dial::At(now_ms + self.retry_ms);
        let max_ms = if self.sync == Sync::Parted {
            RETRY_PARTED_MS
        } else {
            RETRY_MAX_MS
        };
        self.retry_ms = (self.retry_ms * 2).min(max_ms);
        self.obstacle = Some(reason);
    }
}

impl Partition {
    /// Takes on a role; the number of the change, which [`Wait::Settled`](super::Wait::Settled) waits for. `history`: for one
    /// that begins.
    pub fn assign(
        &mut self,
        assignment: &Assignment,
        history: HistoryId,
    ) -> Result<u64, AssignError> {
        let standing = self
            .roles
            .assigned(assignment, self.lsm.last_version(), history)?;
        let before = self.roles.standing().clone();
        let role_before = self.roles.role();
        self.change_standing(standing);
        if role_before == Role::Leader && self.roles.role() != Role::Leader {
            self.tenure += 1;
        }
        let now = self.roles.standing();
        if (now.role, &now.leader, now.epoch) != (role_before, &before.leader, before.epoch) {
            log::info!(
                "partition {}: {} in epoch {}",
                self.id,
                now.role.name(),
                now.epoch
            );
            self.disconnect();
        }
        Ok(self.roles.changed_count())
    }

    /// Somebody knows of a higher epoch: whoever leads in it, it is not this node.
    pub(super) fn hear_epoch(&mut self, epoch: u64) {
        if self.roles.role() == Role::Leader {
            log::warn!(
                "partition {}: epoch {epoch} has begun elsewhere: this node leads no more",
                self.id
            );
            self.tenure += 1;
            self.change_standing(self.roles.deposed(epoch));
            self.disconnect();
        }
    }

    fn change_standing(&mut self, standing: Standing) {
        let lasts = self.disk.is_none();
        self.roles.change(standing, lasts);
    }

    /// The leader's clock showed this when it sent its heartbeat. The one that was under way for the shortest time tells most.
    fn note_leader_time(&mut self, link: LinkId, time_ms: u64) {
        let ahead_ms = time_ms.saturating_sub(self.time_ms).cast_signed()
            - self.time_ms.saturating_sub(time_ms).cast_signed();
        let follows = &mut self.following;
        follows.clock_ahead_ms = match follows.clock_link.replace(link) {
            Some(same) if same == link => {
                ahead_ms.max(follows.clock_ahead_ms - CLOCK_DRIFT_MS_PER_BEAT)
            }
            _ => ahead_ms,
        };
        self.note_time(self.time_ms);
    }

    /// Tells what time it is, in Unix ms. A replica goes by its leader's clock: what has expired there has expired here.
    pub fn note_time(&mut self, time_ms: u64) {
        self.time_ms = time_ms;
        self.lsm
            .note_time(time_ms.saturating_add_signed(self.following.clock_ahead_ms));
    }

    /// Ends all connections, and looks for the leader anew.
    fn disconnect(&mut self) {
        self.followers.clear();
        // What was known of a leader's clock is worth something until the next one is heard; a leader goes by its own.
        let (sync, clock_ahead_ms) = match self.roles.role() {
            Role::Replica => (self.following.sync, self.following.clock_ahead_ms),
            Role::Leader | Role::Unassigned => (Sync::Behind, 0),
        };
        let begun = Follows {
            sync,
            clock_ahead_ms,
            ..Follows::default()
        };
        let follows = std::mem::replace(&mut self.following, begun);
        if let Dial::Connected(_, upstream) = follows.dial {
            self.free_upstream(*upstream);
        }
        self.keep_log();
    }

    fn free_upstream(&mut self, upstream: Upstream) {
        if let Some(remains) = upstream.into_remains(self.options.engine) {
            self.abandon(remains);
        }
    }

    /// The leader's address, if it is to be dialed now. [`connected`](Self::connected) or [`note_unreachable`](Self::note_unreachable)
    /// follows.
    pub fn take_dial(&mut self, now_ms: u64) -> Option<String> {
        let at_ms = self.dial_at_ms()?;
        if at_ms > now_ms {
            return None;
        }
        let leader = self.roles.standing().leader.clone()?;
        self.following.dial = Dial::UnderWay;
        Some(leader)
    }

    /// When the leader is to be dialed, if it is.
    pub fn dial_at_ms(&self) -> Option<u64> {
        let is_due = self.roles.role() == Role::Replica && self.roles.is_settled();
        match self.following.dial {
            Dial::At(at_ms) if is_due && self.roles.standing().leader.is_some() => Some(at_ms),
            _ => None,
        }
    }

    /// The leader cannot be reached. Logged once for each reason: the next try is never far.
    pub fn note_unreachable(&mut self, leader: &str, reason: String, now_ms: u64) {
        if matches!(self.following.dial, Dial::UnderWay)
            && self.roles.standing().leader.as_deref() == Some(leader)
        {
            let is_known = self.following.obstacle.as_ref() == Some(&reason);
            log::log!(
                if is_known {
                    log::Level::Debug
                } else {
                    log::Level::Warn
                },
                "partition {}: {reason}",
                self.id
            );
            self.following.retry(reason, now_ms);
        }
    }

    /// The leader's replication socket is open: what is to be said first goes to `out`. False if it is not wanted any more.
    pub fn connected(
        &mut self,
        link: LinkId,
        leader: &str,
        token: &[u8],
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> bool {
        let standing = self.roles.standing();
        let is_wanted = matches!(self.following.dial, Dial::UnderWay)
            && standing.leader.as_deref() == Some(leader);
        if is_wanted {
            let (node_id, position) = (self.options.node_id, self.lsm.position());
            let upstream =
                Upstream::greet(self.id, node_id, standing, position, token, now_ms, out);
            self.following.dial = Dial::Connected(link, Box::new(upstream));
        }
        is_wanted
    }

    /// Whether the leader is to be listened to now: neither the disk nor maintenance is too far behind.
    pub fn wants_from_leader(&self) -> bool {
        let unwritten = self
            .disk
            .as_ref()
            .map_or(0, |disk| self.lsm.last_version() - disk.handed_version());
        self.roles.is_settled()
            && self.lsm.owed_work() < OWED_MAX_WORK
            && unwritten < UNWRITTEN_MAX_COUNT
    }

    /// The leader says something. Takes all of `input`, unless a change of standing has to be on disk first: then call again with the
    /// rest once [`wants_from_leader`](Self::wants_from_leader).
    pub fn receive_from_leader(
        &mut self,
        link: LinkId,
        input: &mut &[u8],
        now_ms: u64,
    ) -> Result<(), Ended> {
        while self.roles.is_settled() {
            let Dial::Connected(id, upstream) = &mut self.following.dial else {
                return Err(left());
            };
            if *id != link {
                return Err(left());
            }
            let standing = self.roles.standing();
            let outcome =
                upstream.receive(input, &mut self.lsm, standing, self.options.engine, now_ms);
            if upstream.sync() == Sync::Parted {
                self.following.sync = Sync::Parted;
            }
            let Some(following) = outcome? else {
                return Ok(());
            };
            if upstream.sync() == Sync::InSync && self.following.sync != Sync::InSync {
                self.following.sync = Sync::InSync;
                log::info!(
                    "partition {}: in sync with its leader at version {}",
                    self.id,
                    self.lsm.last_version()
                );
            }
            match following {
                Following::Noted => {}
                Following::Beat { time_ms } => self.note_leader_time(link, time_ms),
                Following::Continues { epoch, lineage } => {
                    let lineage = lineage.with_older_of(&self.roles.standing().lineage);
                    (self.following.obstacle, self.following.retry_ms) = (None, RETRY_MIN_MS);
                    log::debug!(
                        "partition {}: goes on behind version {}",
                        self.id,
                        self.lsm.last_version()
                    );
                    self.change_standing(Standing {
                        epoch,
                        lineage,
                        ..self.roles.standing().clone()
                    });
                }
                Following::SnapshotBegins {
                    version,
                    about_bytes,
                } => {
                    self.following.sync = Sync::Behind;
                    self.following.obstacle = None;
                    log::info!(
                        "partition {}: gets a snapshot of version {version} from its leader, about {} MiB",
                        self.id,
                        about_bytes.div_ceil(1 << 20)
                    );
                }
                Following::Installed(installed) => self.install(*installed),
            }
            self.note_epoch_of_data();
        }
        Ok(())
    }

    /// Once all is here that the leader's epoch began with, the data is of that epoch.
    fn note_epoch_of_data(&mut self) {
        let standing = self.roles.standing();
        if standing.data_epoch < standing.epoch
            && matches!(&self.following.dial, Dial::Connected(_, upstream) if upstream.epoch() == Some(standing.epoch))
            && standing.lineage.begun_version() <= self.lsm.last_version()
        {
            self.change_standing(Standing {
                data_epoch: standing.epoch,
                ..standing.clone()
            });
        }
    }

    /// Replaces all data.
    fn install(&mut self, installed: Installed) {
        let Installed {
            lsm,
            epoch,
            lineage,
        } = installed;
        self.snapshot_stats.received_count += 1;
        self.following.retry_ms = RETRY_MIN_MS;
        let before = self.roles.standing().clone();
        let version = self.lsm.last_version();
        let common_version = lineage
            .common_version_with(&before.lineage, version)
            .unwrap_or(0);
        let standing = Standing {
            epoch,
            data_epoch: epoch,
            lineage: lineage.with_older_of(&before.lineage),
            ..before.clone()
        };
        let mut old = std::mem::replace(&mut self.lsm, lsm);
        self.lsm.note_time(old.time_ms());
        let dropped = (common_version < version).then(|| {
            let (history, snapshot) = (before.lineage.history(), old.snapshot());
            Dropped {
                snapshot,
                history,
                common_version,
            }
        });
        self.followers.clear();
        if let Some(disk) = &mut self.disk {
            let number = disk.begin_replacement(&self.lsm);
            let snapshot = self.lsm.snapshot();
            self.replacement = Some(Box::new(Replacement {
                number,
                snapshot,
                standing: standing.clone(),
                dropped,
            }));
            self.roles.replace(standing);
        } else {
            if dropped.is_some() {
                log::warn!(
                    "partition {}: writes of versions {} to {version}, which only this node had, are dropped; without --data-dir there \
                     is no place to save them",
                    self.id,
                    common_version + 1
                );
            }
            self.change_standing(standing);
        }
        self.abandon(old);
        self.keep_log();
    }

    /// Appends what is to be confirmed to the leader.
    pub fn confirm_to_leader(
        &mut self,
        link: LinkId,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), Ended> {
        let is_early = is_planted(Bug::AckBeforeSync);
        let durable_version = match self.released_version() {
            _ if is_early => u64::MAX,
            // What counts as this epoch's must not be lost as an older one's.
            _ if !self.roles.is_settled() => 0,
            version => version,
        };
        let applied_version = self.lsm.last_version();
        match &mut self.following.dial {
            Dial::Connected(id, upstream) if *id == link => {
                upstream.confirm(applied_version, durable_version, now_ms, out)
            }
            _ => Err(left()),
        }
    }

    /// When the leader is to hear something at the latest.
    pub fn confirm_at_ms(&self) -> Option<u64> {
        match &self.following.dial {
            Dial::Connected(_, upstream) => Some(upstream.wake_at_ms()),
            Dial::At(_) | Dial::UnderWay => None,
        }
    }

    /// The connection to the leader has ended.
    pub fn forget_leader(&mut self, link: LinkId, reason: &Ended, now_ms: u64) {
        if matches!(self.following.dial, Dial::Connected(id, _) if id == link) {
            let dial = std::mem::replace(&mut self.following.dial, Dial::At(now_ms));
            self.following.retry(reason.0.clone(), now_ms);
            if let Dial::Connected(_, upstream) = dial {
                self.free_upstream(*upstream);
            }
        }
    }

    /// Figures about the leader, of a replica.
    pub fn following_stats(&self) -> Option<FollowingStats> {
        if self.roles.role() != Role::Replica {
            return None;
        }
        let (state, leader_version) = match &self.following.dial {
            Dial::Connected(_, upstream) => (upstream.state_name(), upstream.leader_version()),
            Dial::At(_) | Dial::UnderWay if self.roles.standing().leader.is_none() => {
                ("no leader known", None)
            }
            Dial::At(_) | Dial::UnderWay => ("connecting", None),
        };
        let obstacle = match &self.roles.standing().leader {
            Some(_) => self.following.obstacle.clone(),
            None => Some("no leader is known: assign one".to_owned()),
        };
        Some(FollowingStats {
            state,
            sync: self.following.sync,
            leader_version,
            obstacle,
        })
    }

    /// Whether its data can be served: a leader's always, a replica's once it has caught up.
    pub fn is_in_sync(&self) -> bool {
        match self.roles.role() {
            Role::Leader => true,
            Role::Replica => self.following.sync == Sync::InSync,
            Role::Unassigned => false,
        }
    }

    /// Whether a disk, if there is one, holds its data rather than what it replaces.
    pub fn is_replaced(&self) -> bool {
        !self.disk.as_ref().is_some_and(DiskLog::is_replacing)
    }
}

fn left() -> Ended {
    Ended("the role of this node has changed".to_owned())
}
