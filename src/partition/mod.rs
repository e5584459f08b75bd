//! One partition: an engine, its log on disk if it has one, and what a request may do with them.
//!
//! Invariants:
//! 1. Conditions are checked against the state that the write then changes: nothing happens in
//!    between.
//! 2. A refused write leaves no trace: no record, no version.
//! 3. Once the disk has failed, no write is taken.
//! 4. While a change of role, epoch or history is not on disk yet, the version does not move:
//!    neither writes nor a leader's records come in. So the file that tells them is always true of
//!    the log beside it.
//!
//! Not here: which partition a request means (`node/`), HTTP (`api/`).

mod ack_requirements;
mod claims;
mod disk_log;
mod replicas;
mod leader_link;
mod removal;
mod roles;
mod takeover;

use crate::config::Fsync;
use crate::lsm::{Entry, Footprint, LogBatch, Lsm, NewValue, Options, Write};
use crate::replication::frame::Frame;
use crate::replication::{NodeId, PeerState};
use crate::seeded_bugs::SeededBug;
use crate::slew::SlewedClock;
use crate::storage::{
    DiskCommand, HistoryId, IdGenerator, Lineage, Position, Replacement, StorageError, StoreStats,
    VersionToken,
};

pub use ack_requirements::TooFewReplicas;
pub use disk_log::DiskLog;
pub use leader_link::{LeaderStats, Peer};
pub use removal::RemovalError;
pub use replicas::{Rejection, ReplicaStats};
pub use roles::{AssignError, Assignment, EPOCH_LEAP_MAX, Roles};

use leader_link::LeaderLink;
use replicas::Replicas;
use takeover::Takeover;

/// What a reply waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// That a version is on this node's disk, as clients are promised, while it leads.
    Disk {
        /// The partition's leadership generation when the write was made.
        generation: u64,
    },
    /// That so many replicas hold a version too.
    Acks {
        /// How many.
        count: u8,
        /// The partition's leadership generation when the write was made.
        generation: u64,
    },
    /// The same, for the reply to a read that shows the version.
    Read {
        /// How many.
        count: u8,
        /// The partition's leadership generation when the read was made.
        generation: u64,
    },
    /// That a change of role, counted, lasts.
    Settled {
        /// The leadership generation that the partition began with.
        first_generation: u64,
    },
    /// That no start finds the files of a removed partition: removals of the node are counted.
    Removed,
}

/// How far a wait has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitProgress {
    /// What waits for this number, or one below, has what it waits for.
    UpTo(u64),
    /// It will not come: the node leads no more.
    Never,
}

/// What a request demands of the current state of its key (RFC 9110, section 13.1). `None` is never
/// demanded of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// `If-Match`: the write goes ahead only if this matches.
    pub if_match: Option<TokenSet>,
    /// `If-None-Match`: the write goes ahead only if this does not match.
    pub if_none_match: Option<TokenSet>,
}

/// The versions of a key that a condition names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSet {
    /// `*`: any version, so long as the key exists.
    Any,
    /// The listed ones.
    Of(Vec<VersionToken>),
}

impl TokenSet {
    /// Whether a key's current version (`None`: it does not exist) is in the set, given the lineage
    /// that it is a version of.
    pub fn contains(&self, current: Option<u64>, lineage: &Lineage) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Of(tokens), Some(current)) => tokens
                .iter()
                .any(|token| token.version == current && lineage.holds(*token)),
        }
    }
}

impl Conditions {
    /// Whether nothing is demanded.
    pub fn is_empty(&self) -> bool {
        self.if_match.is_none() && self.if_none_match.is_none()
    }

    fn allow(&self, current: Option<u64>, lineage: &Lineage) -> Result<(), ConditionFailed> {
        let is_refused = self
            .if_match
            .as_ref()
            .is_some_and(|set| !set.contains(current, lineage))
            || self
                .if_none_match
                .as_ref()
                .is_some_and(|set| set.contains(current, lineage));
        if is_refused {
            let current = current.map(|version| lineage.token_of(version));
            Err(ConditionFailed { current })
        } else {
            Ok(())
        }
    }
}

/// The write was refused: fail the request with 412.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConditionFailed {
    /// Version of the key as it is; `None`: it does not exist.
    pub current: Option<VersionToken>,
}

/// Why a partition does not have the place that a client names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PositionError {
    /// It is of a history that is not known here, or behind the end of one that is.
    Unknown,
    /// It is behind the newest write that is here.
    Ahead,
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteResult {
    /// The new version.
    pub version: u64,
    /// Whether the key existed before.
    pub replaced: bool,
}

/// Which connection of the node; the reactor's number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkId(pub usize);

/// What is the same for all partitions of a node.
#[derive(Clone, Debug)]
pub struct PartitionOptions {
    /// Of engines that are made or received.
    pub engine: Options,
    /// When writes are made to last.
    pub fsync: Fsync,
    /// Log kept for replicas that come back, once there was one.
    pub wal_retain_bytes: usize,
    /// This node.
    pub node_id: NodeId,
    /// Its HTTP address, as it tells other nodes: `:port` where they see the host themselves.
    pub address: String,
    /// Nodes that connect have presented a token.
    pub has_token: bool,
}

/// The partitions whose data the disk thread writes whole, in files of their own: one checkpoint
/// and one replacement at a time, whatever is asked for, so that the files that are open are few.
/// The thread would not write two any sooner.
#[derive(Clone, Copy, Debug, Default)]
pub struct BulkWrites {
    /// The partition whose checkpoint was handed over last, until it is done.
    pub checkpoint_of: Option<u32>,
    /// The partition whose replacement was handed over last, until it is done.
    pub replacement_of: Option<u32>,
}

impl BulkWrites {
    fn admits_checkpoint(self, id: u32) -> bool {
        self.checkpoint_of.is_none_or(|other| other == id)
    }

    fn admits_replacement(&mut self, id: u32) -> bool {
        *self.replacement_of.get_or_insert(id) == id
    }
}

/// Counts snapshots of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotStats {
    /// Not yet released.
    pub live_count: usize,
    /// Begun for replicas.
    pub sent_count: u64,
    /// Received whole from leaders.
    pub received_count: u64,
}

/// One partition.
#[derive(Debug)]
pub struct Partition {
    id: u32,
    options: PartitionOptions,
    lsm: Lsm,
    roles: Roles,
    disk: Option<DiskLog>,
    /// Data that was replaced, on its way out.
    replacement: Option<Box<Replacement>>,
    replicas: Replicas,
    leader_link: LeaderLink,
    /// Coming to lead, or telling nodes that were not reached then.
    takeover: Option<Takeover>,
    /// A controller told it to lead, since the process started.
    is_told_to_lead: bool,
    /// The leader it followed last.
    last_leader: Option<String>,
    /// Addresses of nodes that have connected.
    recent_peers: Vec<String>,
    /// What connections are still to be told before they end.
    farewells: Vec<(LinkId, PeerState)>,
    /// For histories that begin here.
    ids: IdGenerator,
    /// Engines that are freed piece by piece.
    retired: Vec<Lsm>,
    snapshot_stats: SnapshotStats,
    /// Counts how often it has ceased to lead.
    leadership_generation: u64,
    /// What that count began with.
    first_generation: u64,
    /// This node's clock, in Unix ms.
    time_ms: u64,
    /// What times to live go by: it never goes back, whatever is led or followed.
    clock: SlewedClock,
    /// The same when it began to lead.
    office_time_ms: u64,
    /// As of when merging has freed what it can, or is about to.
    reclaimed_version: u64,
}

impl Partition {
    /// A partition of an engine, which has a log on disk or lives in memory only.
    pub fn new(
        id: u32,
        lsm: Lsm,
        roles: Roles,
        disk: Option<DiskLog>,
        options: PartitionOptions,
        ids: IdGenerator,
    ) -> Self {
        let last_leader = roles.meta().leader.clone();
        let leader_link = LeaderLink::default();
        let (replacement, replicas, retired) = (None, Replicas::default(), Vec::new());
        let snapshot_stats = SnapshotStats::default();
        let clock = SlewedClock::showing(lsm.time_ms());
        let mut partition = Self {
            id,
            options,
            lsm,
            roles,
            disk,
            replacement,
            replicas,
            leader_link,
            takeover: None,
            is_told_to_lead: false,
            last_leader,
            recent_peers: Vec::new(),
            farewells: Vec::new(),
            ids,
            retired,
            snapshot_stats,
            leadership_generation: 0,
            first_generation: 0,
            time_ms: 0,
            clock,
            office_time_ms: 0,
            reclaimed_version: 0,
        };
        partition.keep_log();
        partition
    }

    /// The same, with a first leadership generation that no removed partition of this number has
    /// had.
    #[must_use]
    pub fn counting_from(self, generation: u64) -> Self {
        Self {
            leadership_generation: generation,
            first_generation: generation,
            ..self
        }
    }

    /// The history of its writes.
    pub fn history(&self) -> HistoryId {
        self.lineage().history()
    }

    /// That history with those before it.
    #[inline]
    pub fn lineage(&self) -> &Lineage {
        &self.roles.meta().lineage
    }

    /// The token of a version that is here.
    #[inline]
    pub fn token_of(&self, version: u64) -> VersionToken {
        self.lineage().token_of(version)
    }

    /// The token of the newest version that is here.
    pub fn last_token(&self) -> VersionToken {
        self.token_of(self.lsm.last_version())
    }

    /// The version that a client's position names, if that is here.
    pub fn version_at(&self, position: Position) -> Result<u64, PositionError> {
        match self.lineage().version_at(position) {
            None => Err(PositionError::Unknown),
            Some(version) if version > self.lsm.last_version() => Err(PositionError::Ahead),
            Some(version) => Ok(version),
        }
    }

    /// Its role, its epoch, its histories.
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// Its log on disk.
    pub fn disk(&self) -> Option<&DiskLog> {
        self.disk.as_ref()
    }

    /// Why the disk takes no writes, if so.
    pub fn write_obstacle(&self) -> Option<&StorageError> {
        let disk = self.disk.as_ref()?;
        disk.failure().or(disk.stall())
    }

    /// The version that the reply to the write just made must wait for; none: it may go at once.
    #[inline]
    pub fn gate(&self) -> Option<u64> {
        self.disk.as_ref()?.gate(&self.lsm)
    }

    /// How often it has ceased to lead: what was promised under another number cannot be kept any
    /// more.
    pub fn leadership_generation(&self) -> u64 {
        self.leadership_generation
    }

    /// What the reply to an assignment waits for.
    pub fn settled_wait(&self) -> Wait {
        let first_generation = self.first_generation;
        Wait::Settled { first_generation }
    }

    /// What of the replies that wait for something may go.
    pub fn wait_progress(&self, wait: Wait) -> WaitProgress {
        match wait {
            Wait::Disk { generation }
            | Wait::Acks { generation, .. }
            | Wait::Read { generation, .. }
                if generation != self.leadership_generation
                    && !SeededBug::LeadershipIgnored.is_on() =>
            {
                WaitProgress::Never
            }
            Wait::Disk { .. } => WaitProgress::UpTo(self.released_version()),
            Wait::Acks { count, .. } | Wait::Read { count, .. } => WaitProgress::UpTo(
                self.released_version()
                    .min(self.replicas.acked_version(usize::from(count))),
            ),
            // That of a partition that was here before this one, or of none.
            Wait::Settled { first_generation } if first_generation != self.first_generation => {
                WaitProgress::Never
            }
            Wait::Removed => WaitProgress::Never,
            Wait::Settled { .. } => {
                let count = self.roles.settled_count();
                let held = self
                    .takeover
                    .as_ref()
                    .and_then(|takeover| takeover.held_change(count));
                WaitProgress::UpTo(held.map_or(count, |held| held.min(count)))
            }
        }
    }

    /// Held as clients are promised up to here.
    fn released_version(&self) -> u64 {
        self.disk
            .as_ref()
            .map_or(u64::MAX, DiskLog::released_version)
    }

    /// Writes up to here can be told of: held as clients are promised.
    pub fn committed_version(&self) -> u64 {
        self.released_version().min(self.lsm.last_version())
    }

    /// Keeps as much log for its readers as is configured.
    pub fn retain_log(&mut self) {
        self.lsm.retain_log(self.options.wal_retain_bytes);
    }

    /// The next command for the disk. `now_us`: microseconds since the node started.
    pub fn take_disk_command(&mut self, now_us: u64, bulk: &mut BulkWrites) -> Option<DiskCommand> {
        let disk = self.disk.as_mut()?;
        if disk.failure().is_some() {
            return None;
        }
        if self.replacement.is_some() {
            // Nothing goes before it: what follows is about the new data.
            let replacement = self
                .replacement
                .take_if(|_| bulk.admits_replacement(self.id))?;
            return Some(DiskCommand::Replace(self.id, replacement));
        }
        if let Some(batch) = disk.hand_over(&self.lsm, now_us) {
            self.keep_log();
            return Some(DiskCommand::Append(self.id, batch));
        }
        // Where the partition stands is about all that was written before: that goes first.
        if !disk.has_more(&self.lsm)
            && let Some(meta) = self.roles.take_unsettled()
        {
            return Some(DiskCommand::Settle(self.id, Box::new(meta)));
        }
        if let Some(time_ms) = disk.take_time(&self.lsm) {
            return Some(DiskCommand::RecordTime(self.id, time_ms));
        }
        if !bulk.admits_checkpoint(self.id) {
            return None;
        }
        let snapshot = disk.take_checkpoint(&mut self.lsm, now_us)?;
        bulk.checkpoint_of = Some(self.id);
        Some(DiskCommand::Checkpoint(self.id, snapshot))
    }

    /// Whether the disk thread may have a checkpoint of it open.
    pub fn has_checkpoint_open(&self) -> bool {
        let is_open = |disk: &DiskLog| {
            disk.failure().is_none() && (disk.is_checkpointing() || self.replacement.is_some())
        };
        self.disk.as_ref().is_some_and(is_open)
    }

    /// Whether the disk thread may have a replacement of its data open.
    pub fn has_replacement_open(&self) -> bool {
        let is_open = |disk: &DiskLog| disk.failure().is_none() && disk.is_replacing();
        self.disk.as_ref().is_some_and(is_open)
    }

    /// Whether it has something for the disk that was not handed over yet, and can be.
    pub fn is_ahead_of_disk(&self) -> bool {
        let has_more = |disk: &DiskLog| {
            disk.failure().is_none() && (disk.has_more(&self.lsm) || disk.is_replacing())
        };
        self.disk.as_ref().is_some_and(has_more) || self.roles.has_unsettled()
    }

    /// Has a checkpoint made soon; false when it lives in memory only.
    pub fn request_checkpoint(&mut self) -> bool {
        self.disk
            .as_mut()
            .map(DiskLog::request_checkpoint)
            .is_some()
    }

    /// The disk has told how far it is.
    pub fn on_written(
        &mut self,
        written: u64,
        synced: u64,
        batches: Vec<LogBatch>,
        stats: StoreStats,
    ) {
        if let Some(disk) = &mut self.disk {
            disk.on_written(written, synced, batches, stats);
        }
    }

    /// The disk has told that a checkpoint is in place.
    pub fn on_checkpointed(&mut self, stats: StoreStats) {
        if let Some(disk) = &mut self.disk {
            disk.on_checkpointed(stats);
        }
    }

    /// The disk has told that where the partition stands lasts.
    pub fn on_settled(&mut self) {
        self.roles.on_settled();
        self.finish_takeover();
    }

    /// Tells a connection that is about to end what it has to hear.
    pub fn say_farewell(&mut self, link: LinkId, out: &mut Vec<u8>) {
        if let Some(at) = self.farewells.iter().position(|(told, _)| *told == link) {
            let (_, state) = self.farewells.swap_remove(at);
            Frame::PeerState(state).encode(out);
        }
    }

    /// The disk has told that all data is replaced.
    pub fn on_replaced(&mut self, number: u64, stats: StoreStats) {
        if let Some(disk) = &mut self.disk {
            disk.on_replaced(number, stats);
        }
    }

    /// The disk has told that it writes no more.
    pub fn on_disk_failed(&mut self, failure: StorageError) {
        if let Some(disk) = &mut self.disk {
            disk.on_disk_failed(failure);
        }
        self.keep_log();
    }

    /// The disk has told that room or descriptors are short, or are there again.
    pub fn on_stall(&mut self, stall: Option<StorageError>) {
        if let Some(disk) = &mut self.disk {
            disk.set_stall(stall);
        }
    }

    /// The disk has told that a checkpoint could not be written.
    pub fn on_checkpoint_given_up(&mut self, stats: StoreStats) {
        if let Some(disk) = &mut self.disk {
            disk.on_checkpoint_given_up(stats);
        }
    }

    /// Keeps the log that a replica or the disk still has to read, and no more.
    fn keep_log(&mut self) {
        let unwritten = self
            .disk
            .as_ref()
            .filter(|disk| disk.failure().is_none())
            .map(DiskLog::handed_version);
        let is_early = SeededBug::LogFreedTooEarly.is_on();
        let needed = if is_early {
            u64::MAX
        } else {
            self.replicas.needed_version()
        };
        let version = unwritten.unwrap_or(u64::MAX).min(needed);
        self.lsm.keep_log_behind(version);
    }

    /// Maintenance owed for the writes so far, in units of work.
    pub fn owed_work(&self) -> usize {
        self.lsm.owed_work() + self.retired.iter().map(Lsm::owed_work).sum::<usize>()
    }

    /// Whether maintenance has nothing to do.
    pub fn is_idle(&self) -> bool {
        self.lsm.is_idle() && self.retired.iter().all(Lsm::is_idle)
    }

    /// Does maintenance, at most about `budget` units of work; returns the units spent.
    pub fn maintain(&mut self, budget: usize) -> usize {
        let mut spent = self.lsm.maintain(budget);
        for lsm in &mut self.retired {
            if spent < budget {
                spent += lsm.maintain(budget - spent);
            }
        }
        // The last snapshots of one send their layers home to it.
        self.retired
            .retain(|lsm| !lsm.is_idle() || lsm.snapshot_count() > 0);
        spent
    }

    /// Whether something was written since merging has freed what it can.
    pub fn has_to_reclaim(&self) -> bool {
        self.reclaimed_version != self.lsm.last_version()
    }

    /// Memory is short: frees what merging can free, if there is anything new.
    pub fn reclaim(&mut self) {
        if self.lsm.is_idle() && self.has_to_reclaim() {
            self.reclaimed_version = self.lsm.last_version();
            self.lsm.compact();
        }
    }

    /// Lets an engine go without stopping for it.
    fn retire(&mut self, mut lsm: Lsm) {
        lsm.retire();
        self.retired.push(lsm);
    }

    /// Bytes that snapshots alone keep alive, of data that was replaced too; of large values at
    /// most.
    pub fn pinned(&self) -> Footprint {
        let retired = self.retired.iter().map(Lsm::pinned);
        retired.fold(self.lsm.pinned(), |all, pinned| Footprint {
            bytes: all.bytes + pinned.bytes,
            large_bytes: all.large_bytes + pinned.large_bytes,
        })
    }

    /// Snapshots of its data, of what was replaced too, and those sent to replicas and received.
    pub fn snapshot_stats(&self) -> SnapshotStats {
        let live_count =
            self.lsm.snapshot_count() + self.retired.iter().map(Lsm::snapshot_count).sum::<usize>();
        SnapshotStats {
            live_count,
            ..self.snapshot_stats
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its engine, for maintenance and figures.
    pub fn lsm(&self) -> &Lsm {
        &self.lsm
    }

    /// Its engine, for maintenance.
    pub fn lsm_mut(&mut self) -> &mut Lsm {
        &mut self.lsm
    }

    /// The key's value and version, if it exists.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<Entry<'_>> {
        self.lsm.get(key)
    }

    /// Writes a key, whether it exists or not. Nothing is looked up unless there are conditions.
    /// With a `ttl_ms` it is gone so much later, by this node's clock.
    pub fn set(
        &mut self,
        key: &[u8],
        value: NewValue<'_>,
        ttl_ms: Option<u64>,
        conditions: &Conditions,
    ) -> Result<u64, ConditionFailed> {
        if !conditions.is_empty() {
            self.check(key, conditions)?;
        }
        Ok(self.lsm.set(key, value, expiry(self.lsm.time_ms(), ttl_ms)))
    }

    /// The version of a key, none if it does not exist, if the conditions hold.
    pub fn check(
        &self,
        key: &[u8],
        conditions: &Conditions,
    ) -> Result<Option<u64>, ConditionFailed> {
        let current = self.lsm.get(key).map(|entry| entry.version);
        conditions.allow(current, self.lineage()).map(|()| current)
    }

    /// Does all these writes as one, whatever is there; returns the version of the last. Each has
    /// its time to live.
    pub fn write_batch<'w>(
        &mut self,
        writes: impl Iterator<Item = (&'w [u8], NewValue<'w>, Option<u64>)>,
    ) -> u64 {
        let now_ms = self.lsm.time_ms();
        let write = |(key, value, ttl_ms)| Write {
            key,
            value,
            expires_at_ms: expiry(now_ms, ttl_ms),
        };
        self.lsm.write_batch(writes.map(write))
    }

    /// Writes a key and tells whether it existed; otherwise like [`set`](Self::set).
    pub fn put(
        &mut self,
        key: &[u8],
        value: NewValue<'_>,
        ttl_ms: Option<u64>,
        conditions: &Conditions,
    ) -> Result<WriteResult, ConditionFailed> {
        if !conditions.is_empty() {
            self.check(key, conditions)?;
        }
        let (version, before) = self
            .lsm
            .exchange(key, value, expiry(self.lsm.time_ms(), ttl_ms));
        Ok(WriteResult {
            version,
            replaced: before.is_some(),
        })
    }

    /// Deletes a key; `None`, and no write, when it does not exist.
    pub fn delete(
        &mut self,
        key: &[u8],
        conditions: &Conditions,
    ) -> Result<Option<u64>, ConditionFailed> {
        let current = self.check(key, conditions)?;
        Ok(current.map(|_| self.lsm.delete(key)))
    }
}

/// When the time of a write is over.
fn expiry(now_ms: u64, ttl_ms: Option<u64>) -> Option<u64> {
    // All ones would be never.
    ttl_ms.map(|ttl_ms| now_ms.saturating_add(ttl_ms).min(u64::MAX - 1))
}

#[cfg(test)]
mod tests;
