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

use crate::config::Fsync;
use crate::lsm::{Entry, Footprint, Lsm, NewValue, Options, Write};
use crate::replication::LinkId;
use crate::seeded_bugs::SeededBug;
use crate::slew::LAST_UNIX_MS;
use crate::storage::{
    DiskCommand, HistoryId, IdGenerator, Lineage, PartitionMeta, Position, Role, StorageError,
    StoreEvent, StoreStats, VersionToken,
};

use super::conditions::{ConditionFailed, Conditions};
use super::disk_log::{BulkWrites, DiskLog};
use super::known_peers::KnownPeers;
use super::leader_link::LeaderLink;
use super::membership::Membership;
use super::partition_clock::PartitionClock;
use super::replicas::Replicas;
use super::retired::RetiredEngines;
use super::roles::Roles;
use super::takeover::Takeover;
use super::wait::{Wait, WaitProgress};

/// Why a partition does not have the position that a client names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PositionError {
    /// Its history is not known here, or ends before it.
    Unknown,
    /// It is later than the newest write that is here.
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

/// Options that all partitions of a node share.
#[derive(Clone, Debug)]
pub struct PartitionOptions {
    /// Options of engines.
    pub engine: Options,
    /// When writes are synced.
    pub fsync: Fsync,
    /// Log kept for replicas that come back, once there was one.
    pub wal_retain_bytes: usize,
    /// The node's HTTP address as other nodes get it: `:port` where they see the host themselves.
    pub address: String,
    /// Whether nodes that connect must present a token.
    pub has_token: bool,
}

/// Counts snapshots of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotStats {
    /// Snapshots not yet released.
    pub live_count: usize,
    /// Snapshots that were begun to be sent to a replica.
    pub sent_count: u64,
    /// Snapshots received whole from leaders.
    pub received_count: u64,
}

/// The partition's times as leader.
#[derive(Debug, Default)]
pub(super) struct Leadership {
    /// Counts losses of leadership.
    pub(super) generation: u64,
    /// What that count began with.
    pub(super) first_generation: u64,
    /// Whether the last order of a controller to this process was to lead.
    pub(super) is_ordered: bool,
    /// When the node began to lead, by its own clock.
    pub(super) begun_at_ms: u64,
    /// Nodes with other data, which did not believe the last claim.
    pub(super) unbelieving: Vec<String>,
}

/// One partition.
#[derive(Debug)]
pub struct Partition {
    pub(super) id: u32,
    pub(super) options: PartitionOptions,
    pub(super) lsm: Lsm,
    pub(super) roles: Roles,
    pub(super) disk: Option<DiskLog>,
    pub(super) replicas: Replicas,
    pub(super) leader_link: LeaderLink,
    /// Its side of a configuration in etcd, if it has one.
    pub(super) membership: Option<Box<Membership>>,
    /// A takeover that is under way, or its announcements to nodes that were not reached.
    pub(super) takeover: Option<Takeover>,
    pub(super) known_peers: KnownPeers,
    /// Ids of histories that begin here.
    pub(super) ids: IdGenerator,
    pub(super) retired: RetiredEngines,
    pub(super) snapshot_stats: SnapshotStats,
    pub(super) leadership: Leadership,
    pub(super) clock: PartitionClock,
    /// The version up to which merging has freed what it can, or is about to.
    pub(super) reclaimed_version: u64,
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
        let known_peers = KnownPeers::new(roles.meta().leader.clone());
        let clock = PartitionClock::showing(lsm.time_ms());
        let mut partition = Self {
            id,
            options,
            lsm,
            roles,
            disk,
            replicas: Replicas::default(),
            leader_link: LeaderLink::default(),
            membership: None,
            takeover: None,
            known_peers,
            ids,
            retired: RetiredEngines::default(),
            snapshot_stats: SnapshotStats::default(),
            leadership: Leadership::default(),
            clock,
            reclaimed_version: 0,
        };
        partition.keep_log();
        partition
    }

    /// The same, with a first leadership generation that no removed partition of this number has
    /// had.
    #[must_use]
    pub fn counting_from(mut self, generation: u64) -> Self {
        self.leadership.generation = generation;
        self.leadership.first_generation = generation;
        self
    }

    /// The history of the writes.
    pub fn history(&self) -> HistoryId {
        self.lineage().history()
    }

    /// That history with the histories before it.
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

    /// The version that a client's position names, if the partition has it.
    pub fn version_at(&self, position: Position) -> Result<u64, PositionError> {
        match self.lineage().version_at(position) {
            None => Err(PositionError::Unknown),
            Some(version) if version > self.lsm.last_version() => Err(PositionError::Ahead),
            Some(version) => Ok(version),
        }
    }

    /// Role, epoch and histories.
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// The log on disk; none for a partition in memory.
    pub fn disk(&self) -> Option<&DiskLog> {
        self.disk.as_ref()
    }

    /// Why the disk takes no writes, if so.
    pub fn write_obstacle(&self) -> Option<&StorageError> {
        let disk = self.disk.as_ref()?;
        disk.failure().or(disk.stall())
    }

    /// The version that the reply to the write just made waits for; none: it is sent at once.
    #[inline]
    pub fn gate(&self) -> Option<u64> {
        self.disk.as_ref()?.gate(&self.lsm)
    }

    /// Counts losses of leadership: a reply that was deferred under another number fails.
    pub fn leadership_generation(&self) -> u64 {
        self.leadership.generation
    }

    /// Whether replies that were deferred in this leadership generation can never be sent.
    fn has_lost_leadership_since(&self, generation: u64) -> bool {
        !SeededBug::LeadershipIgnored.is_on() && generation != self.leadership.generation
    }

    /// What the reply to an assignment waits for.
    pub fn settled_wait(&self) -> Wait {
        let first_generation = self.leadership.first_generation;
        Wait::Settled { first_generation }
    }

    /// How far a kind of wait has been satisfied.
    pub fn wait_progress(&self, wait: Wait) -> WaitProgress {
        match wait {
            Wait::Disk { generation }
            | Wait::Acks { generation, .. }
            | Wait::Read { generation, .. }
                if self.has_lost_leadership_since(generation) =>
            {
                WaitProgress::Never
            }
            Wait::Disk { .. } => WaitProgress::UpTo(self.released_version()),
            Wait::Acks { count, .. } | Wait::Read { count, .. } => {
                let acked_version = self.replicas.acked_version(usize::from(count));
                let held_version = acked_version.min(self.set_acked_version());
                WaitProgress::UpTo(self.released_version().min(held_version))
            }
            wait if wait == self.settled_wait() => {
                let count = self.roles.settled_count;
                let takeover = self.takeover.as_ref();
                let held = takeover.and_then(|takeover| takeover.held_change(count));
                WaitProgress::UpTo(held.map_or(count, |held| held.min(count)))
            }
            // That of a partition that was here before this one, or of none.
            Wait::Settled { .. } | Wait::Removed | Wait::Operation { .. } => WaitProgress::Never,
        }
    }

    /// The version up to which writes are held as clients are promised.
    pub(super) fn released_version(&self) -> u64 {
        self.disk
            .as_ref()
            .map_or(u64::MAX, DiskLog::released_version)
    }

    /// The newest version that this node itself holds as clients are promised.
    pub fn held_version(&self) -> u64 {
        self.released_version().min(self.lsm.last_version())
    }

    /// The newest version that watchers may see: held as clients are promised, and where this node
    /// leads in a cluster, on every named copy.
    pub fn committed_version(&self) -> u64 {
        if self.leads_in_cluster() {
            return self.acked_version();
        }
        self.held_version()
    }

    /// The leader's clock showed this time when it sent a heartbeat.
    pub(super) fn on_leader_time(&mut self, link: LinkId, leader_ms: u64) {
        let own_ms = self.clock.time_ms;
        let ahead_ms = leader_ms.min(LAST_UNIX_MS).cast_signed() - own_ms.cast_signed();
        if self.leader_link.on_clock(link, ahead_ms) {
            self.clock.show(leader_ms);
        }
        self.set_time_ms(own_ms);
    }

    /// Sets this node's clock, in Unix ms (`partition_clock.rs`).
    pub fn set_time_ms(&mut self, time_ms: u64) {
        let is_replica = self.roles.role() == Role::Replica;
        self.clock
            .advance(time_ms, self.leader_link.clock_ahead_ms, is_replica);
        self.lsm.set_time_ms(self.clock.now_ms());
    }

    pub(super) fn change_meta(&mut self, meta: PartitionMeta) {
        let lasts = self.disk.is_none();
        self.roles.change(meta, lasts);
    }

    /// Keeps as much log for replicas as is configured.
    pub fn retain_log(&mut self) {
        self.lsm.retain_log(self.options.wal_retain_bytes);
    }

    /// The next command for the disk. `now_us`: microseconds since the node started.
    pub fn take_disk_command(&mut self, now_us: u64, bulk: &mut BulkWrites) -> Option<DiskCommand> {
        let disk = self.disk.as_mut()?;
        if disk.failure().is_some() {
            return None;
        }
        if disk.replacement.queued.is_some() {
            // Nothing goes before it: what follows is about the new data.
            if !bulk.admits_replacement(self.id) {
                return None;
            }
            let replacement = disk.replacement.queued.take()?;
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
        let is_open = |disk: &DiskLog| disk.is_checkpointing() || disk.replacement.queued.is_some();
        self.working_disk().is_some_and(is_open)
    }

    /// Whether the disk thread may have a replacement of its data open.
    pub fn has_replacement_open(&self) -> bool {
        let disk = self.working_disk();
        disk.is_some_and(|disk| disk.replacement.is_running)
    }

    /// Whether anything for the disk was not handed over yet, and can be.
    pub fn is_ahead_of_disk(&self) -> bool {
        let has_more = |disk: &DiskLog| disk.has_more(&self.lsm) || disk.replacement.is_running;
        self.working_disk().is_some_and(has_more) || self.roles.has_unsettled()
    }

    fn working_disk(&self) -> Option<&DiskLog> {
        let disk = self.disk.as_ref();
        disk.filter(|disk| disk.failure().is_none())
    }

    /// Requests a checkpoint; false for a partition in memory.
    pub fn request_checkpoint(&mut self) -> bool {
        let disk = self.disk.as_mut();
        disk.map(DiskLog::request_checkpoint).is_some()
    }

    /// The disk reports what has become of the partition's files.
    pub fn on_store_event(&mut self, event: StoreEvent, stats: StoreStats) {
        if let StoreEvent::Settled = event {
            self.roles.on_settled();
            self.finish_takeover();
        } else if let Some(disk) = &mut self.disk {
            disk.on_store_event(event, stats);
        }
    }

    /// The disk has failed and writes no more.
    pub fn on_disk_failed(&mut self, failure: StorageError) {
        if let Some(disk) = &mut self.disk {
            disk.on_disk_failed(failure);
        }
        self.keep_log();
    }

    /// Keeps the log that a replica or the disk still has to read, and no more.
    pub(super) fn keep_log(&mut self) {
        let disk = self.working_disk();
        let unwritten = disk.map_or(u64::MAX, |disk| disk.handed_version);
        self.lsm
            .keep_log_behind(unwritten.min(self.unconfirmed_version()));
    }

    /// The version behind which a replica has not confirmed the log.
    fn unconfirmed_version(&self) -> u64 {
        if SeededBug::LogFreedTooEarly.is_on() {
            return u64::MAX;
        }
        self.replicas.needed_version()
    }

    /// Maintenance owed for the writes so far, in units of work.
    pub fn owed_work(&self) -> usize {
        self.lsm.owed_work() + self.retired.owed_work()
    }

    /// Whether maintenance has nothing to do.
    pub fn is_idle(&self) -> bool {
        self.lsm.is_idle() && self.retired.is_idle()
    }

    /// Does maintenance, at most about `budget` units of work; returns the units spent.
    pub fn maintain(&mut self, budget: usize) -> usize {
        let spent = self.lsm.maintain(budget);
        spent + self.retired.maintain(budget.saturating_sub(spent))
    }

    /// Whether something was written since merging has freed what it can.
    pub fn has_to_reclaim(&self) -> bool {
        self.reclaimed_version != self.lsm.last_version()
    }

    /// Frees what merging can free, if anything was written since. Called when memory is short.
    pub fn reclaim(&mut self) {
        if self.lsm.is_idle() && self.has_to_reclaim() {
            self.reclaimed_version = self.lsm.last_version();
            self.lsm.compact();
        }
    }

    /// Bytes that only snapshots keep alive, replaced data included; an upper bound for large
    /// values.
    pub fn pinned(&self) -> Footprint {
        std::iter::once(self.lsm.pinned())
            .chain(self.retired.pinned())
            .sum()
    }

    /// Counts snapshots, those of replaced data included.
    pub fn snapshot_stats(&self) -> SnapshotStats {
        let live_count = self.lsm.snapshot_count() + self.retired.snapshot_count();
        SnapshotStats {
            live_count,
            ..self.snapshot_stats
        }
    }

    /// The partition's number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The engine.
    pub fn lsm(&self) -> &Lsm {
        &self.lsm
    }

    /// The engine, for maintenance.
    pub fn lsm_mut(&mut self) -> &mut Lsm {
        &mut self.lsm
    }

    /// The key's value and version, if it exists.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<Entry<'_>> {
        self.lsm.get(key)
    }

    /// Writes a key, whether it exists or not. Nothing is looked up unless there are conditions.
    /// With a `ttl_ms` the key expires after that time, by the partition's clock.
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

    /// Checks conditions. Returns the version of the key; none if it does not exist.
    pub fn check(
        &self,
        key: &[u8],
        conditions: &Conditions,
    ) -> Result<Option<u64>, ConditionFailed> {
        let current = self.lsm.get(key).map(|entry| entry.version);
        conditions.allow(current, self.lineage()).map(|()| current)
    }

    /// Does all these writes at once and unconditionally; returns the version of the last. Each has
    /// its own time to live.
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
