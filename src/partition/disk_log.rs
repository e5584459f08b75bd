//! A partition's side of the log on disk: what was handed over, what is written and synced, and
//! which replies wait for it.
//!
//! Invariants:
//! 1. Every record is handed over once, in order, a group at a time: while the disk thread writes
//!    and syncs one, the next one gathers in the log in memory.
//! 2. A client that got its reply with the last group is likely to write again: a group is expected
//!    to become nearly as large as the last one. Until it is, it is held back, but never for long
//!    ([`GATHER_MAX_US`]). Nearly: where writes do not come in answer to replies, groups shrink to
//!    what gathers during a sync, and no reply waits for more. Without this each sync begins with
//!    the first write that comes: many small groups, each as expensive as a large one.
//! 3. A reply that says a write lasts waits for its version: synced with `Fsync::Always`, else at
//!    most until the disk has caught up to within [`BACKLOG_MAX_BYTES`], which holds back writers
//!    that outrun it.
//! 4. After a failure nothing more is handed over, and no write is taken.

use crate::config::Fsync;
use crate::lsm::{LogBatch, Lsm, Snapshot, WalCursor};
use crate::seeded_bugs::SeededBug;
use crate::storage::{Replacement, StorageError, StoreEvent, StoreStats};

use super::checkpoint_schedule::CheckpointSchedule;

/// Taken out of the log at a time: what a turn copies at most, large values aside, which are
/// shared. Some hundred microseconds, for as much as a disk writes in some milliseconds.
const BATCH_MAX_BYTES: usize = 2 * 1024 * 1024;

/// Without a sync to wait for, writers may be ahead of the disk by this much.
const BACKLOG_MAX_BYTES: u64 = 32 * 1024 * 1024;

/// How long a group waits that stays smaller than expected: some syncs.
const GATHER_MAX_US: u64 = 1_000;

/// Where no reply waits for the disk, records gather for this time, or up to this count: handing
/// over those of each turn would cost more than writing them.
const LAZY_GATHER_US: u64 = 10_000;
const LAZY_GROUP_COUNT: u64 = 1_000;

/// How often the disk records the time, while values with a time to live exist.
const RECORD_TIME_MS: u64 = 100;

/// What an empty batch keeps of its allocation.
const SPARE_BATCH_BYTES: usize = 64 * 1024;

/// The disk, as one partition sees it.
#[derive(Debug)]
pub struct DiskLog {
    fsync: Fsync,
    cursor: WalCursor,
    /// Versions up to this one have been handed over.
    pub(super) handed_version: u64,
    written_version: u64,
    synced_version: u64,
    /// Handed over and not yet reported as written; 0 when the disk thread has nothing of this
    /// partition.
    in_flight_bytes: usize,
    /// How long the group may be held back, if it is.
    gathering_until_us: Option<u64>,
    /// Records in the last group.
    last_group_count: u64,
    /// The part of [`Lsm::logged_bytes`] that is reported as written.
    written_bytes: u64,
    checkpoints: CheckpointSchedule,
    /// A batch to fill again.
    spare: LogBatch,
    pub(super) replacement: ReplacementState,
    stats: StoreStats,
    failure: Option<StorageError>,
    /// What is short, while writes wait for it.
    stall: Option<StorageError>,
    /// The time that the disk recorded last.
    recorded_time_ms: u64,
}

impl DiskLog {
    /// The log goes on behind what `lsm` holds, all of which is on disk.
    pub fn new(lsm: &Lsm, fsync: Fsync, stats: StoreStats) -> Self {
        let version = lsm.last_version();
        Self {
            fsync,
            cursor: lsm.log_end(),
            handed_version: version,
            written_version: version,
            synced_version: version,
            in_flight_bytes: 0,
            gathering_until_us: None,
            last_group_count: 0,
            written_bytes: lsm.logged_bytes(),
            checkpoints: CheckpointSchedule::new(stats.log_bytes),
            spare: LogBatch::default(),
            replacement: ReplacementState::default(),
            stats,
            failure: None,
            stall: None,
            recorded_time_ms: lsm.time_ms(),
        }
    }

    /// The disk is to hold what `lsm` holds now, and nothing that it held before.
    /// The replacement is queued next, with the number that this returns.
    pub(super) fn begin_replacement(&mut self, lsm: &Lsm) -> u64 {
        let number = self.replacement.number + 1;
        *self = Self {
            failure: self.failure.take(),
            stall: self.stall.take(),
            checkpoints: self.checkpoints.restarted(self.stats.log_bytes),
            in_flight_bytes: self.in_flight_bytes,
            replacement: ReplacementState {
                is_running: true,
                number,
                queued: None,
            },
            written_version: version_before_replacement(lsm),
            synced_version: version_before_replacement(lsm),
            ..Self::new(lsm, self.fsync, self.stats)
        };
        number
    }

    /// Versions up to this one are synced.
    pub fn synced_version(&self) -> u64 {
        self.synced_version
    }

    /// Whether records are handed over and not yet synced.
    pub fn is_sync_owed(&self) -> bool {
        self.synced_version < self.handed_version && self.failure.is_none()
    }

    /// Until when a group is held back, if one is; in microseconds since the node started.
    pub fn gathering_until_us(&self) -> Option<u64> {
        self.gathering_until_us
    }

    /// Statistics of the files.
    pub fn stats(&self) -> StoreStats {
        self.stats
    }

    /// Why nothing is written any more, if the disk has failed.
    pub fn failure(&self) -> Option<&StorageError> {
        self.failure.as_ref()
    }

    /// What is short, if writes wait for it.
    pub fn stall(&self) -> Option<&StorageError> {
        self.stall.as_ref()
    }

    /// Checkpoints that could not be written.
    pub fn given_up_count(&self) -> u64 {
        self.checkpoints.given_up_count
    }

    /// The version that the reply to a write waits for; none: it is sent at once.
    pub(super) fn gate(&self, lsm: &Lsm) -> Option<u64> {
        let version = lsm.last_version();
        match self.fsync {
            Fsync::Always => (self.synced_version < version).then_some(version),
            Fsync::Interval | Fsync::Never => {
                (lsm.logged_bytes() - self.written_bytes > BACKLOG_MAX_BYTES).then_some(version)
            }
        }
    }

    /// Replies that wait for this version, or a lower one, may be sent.
    pub fn released_version(&self) -> u64 {
        match self.fsync {
            Fsync::Always => self.synced_version,
            Fsync::Interval | Fsync::Never => self.written_version,
        }
    }

    /// Whether there are records that were not handed over yet, and can be.
    pub(super) fn has_more(&self, lsm: &Lsm) -> bool {
        self.handed_version < lsm.last_version() && self.failure.is_none()
    }

    /// The next batch for the disk.
    pub(super) fn hand_over(&mut self, lsm: &Lsm, now_us: u64) -> Option<LogBatch> {
        if !self.has_more(lsm) || self.in_flight_bytes > 0 || self.replacement.is_running {
            return None;
        }
        let (expected_count, patience_us) = match self.fsync {
            Fsync::Always => (self.last_group_count * 15 / 16, GATHER_MAX_US),
            Fsync::Interval | Fsync::Never => (LAZY_GROUP_COUNT, LAZY_GATHER_US),
        };
        if lsm.last_version() - self.handed_version < expected_count {
            let until_us = *self.gathering_until_us.get_or_insert(now_us + patience_us);
            if now_us < until_us {
                return None;
            }
        }
        self.gathering_until_us = None;
        let mut batch = std::mem::take(&mut self.spare);
        lsm.read_log(&mut self.cursor, BATCH_MAX_BYTES, u64::MAX, &mut batch);
        self.handed_version = batch
            .last()
            .map_or(self.handed_version, |last| last.version);
        self.in_flight_bytes = batch.stream_bytes();
        self.checkpoints.logged_bytes += batch.stream_bytes();
        Some(batch)
    }

    /// The time that entries expire by, if it is to be recorded: what has expired for a client
    /// stays expired over a restart.
    pub(super) fn take_time(&mut self, lsm: &Lsm) -> Option<u64> {
        let time_ms = lsm.time_ms();
        let is_due = time_ms.abs_diff(self.recorded_time_ms) >= RECORD_TIME_MS
            && lsm.sweep_at_ms().is_some();
        is_due.then(|| {
            self.recorded_time_ms = time_ms;
            time_ms
        })
    }

    /// A snapshot to make a checkpoint of, if one is due.
    pub(super) fn take_checkpoint(&mut self, lsm: &mut Lsm, now_us: u64) -> Option<Snapshot> {
        let is_possible = self.failure.is_none() && !self.replacement.is_running;
        let (data_bytes, wanted_bytes) = (lsm.data_bytes(), self.wanted_bytes());
        let begins = self
            .checkpoints
            .begin_if_due(data_bytes, wanted_bytes, is_possible, now_us);
        begins.then(|| lsm.snapshot())
    }

    /// An operator wants a checkpoint; one that is under way will do.
    pub(super) fn request_checkpoint(&mut self) {
        self.checkpoints.request();
    }

    /// The disk thread reports what has become of the files.
    pub(super) fn on_store_event(&mut self, event: StoreEvent, stats: StoreStats) {
        match event {
            StoreEvent::Written {
                version,
                synced_version,
                batches,
                ..
            } => {
                self.take_back(batches);
                // A report about data that is being replaced says nothing about the new data.
                if !self.replacement.is_running {
                    self.last_group_count = version - self.written_version;
                    (self.written_version, self.synced_version) = (version, synced_version);
                    self.stats = stats;
                }
            }
            StoreEvent::Checkpointed(_) => {
                self.checkpoints.on_done();
                self.stats = stats;
            }
            // The log stays, and another checkpoint is tried later.
            StoreEvent::CheckpointGivenUp(_) => {
                self.checkpoints.on_given_up(stats.log_bytes);
                self.stats = stats;
            }
            // A later replacement supersedes an earlier one.
            StoreEvent::Replaced(number) if number == self.replacement.number => {
                self.replacement.is_running = false;
                self.written_version = self.handed_version;
                self.synced_version = self.handed_version;
                self.stats = stats;
            }
            StoreEvent::Stalled(error) => self.on_stall(error, stats),
            StoreEvent::Resumed => self.stall = None,
            StoreEvent::Replaced(_) | StoreEvent::Settled => {}
        }
    }

    /// Room or descriptors are short: writes wait.
    pub fn on_stall(&mut self, error: StorageError, stats: StoreStats) {
        self.stall = Some(error);
        if !self.replacement.is_running {
            self.stats = stats;
        }
    }

    /// Bytes of log that a checkpoint is to free since the disk is full; 0: none.
    fn wanted_bytes(&self) -> usize {
        let is_full = self.stall.as_ref().is_some_and(StorageError::is_full);
        let bytes = if is_full {
            self.stats.freeable_log_bytes
        } else {
            0
        };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Takes back the memory of batches that are written.
    fn take_back(&mut self, batches: Vec<LogBatch>) {
        for mut batch in batches {
            self.in_flight_bytes -= batch.stream_bytes();
            self.written_bytes += if self.replacement.is_running {
                0
            } else {
                batch.stream_bytes() as u64
            };
            batch.clear(SPARE_BATCH_BYTES);
            self.spare = batch;
        }
    }

    /// Whether a checkpoint is being written.
    pub(super) fn is_checkpointing(&self) -> bool {
        self.checkpoints.is_under_way()
    }

    pub(super) fn on_disk_failed(&mut self, failure: StorageError) {
        self.failure = Some(failure);
        self.gathering_until_us = None;
    }
}

/// The version that the disk holds of data that is to replace what it has: none yet.
fn version_before_replacement(lsm: &Lsm) -> u64 {
    if SeededBug::ReplacementNotAwaited.is_on() {
        return lsm.last_version();
    }
    0
}

/// A replacement of all data, as far as it has come.
#[derive(Debug, Default)]
pub(super) struct ReplacementState {
    /// While all data is being replaced, nothing else is handed over.
    pub(super) is_running: bool,
    /// Counts replacements; the last one is in force.
    number: u64,
    /// The replacement that was not handed over yet.
    pub(super) queued: Option<Box<Replacement>>,
}

/// Partitions that the disk thread writes as a whole, in files of their own: one checkpoint
/// and one replacement at a time, whatever is asked for, so that the files that are open are few.
/// The thread would not write two any sooner.
#[derive(Clone, Copy, Debug, Default)]
pub struct BulkWrites {
    /// The partition of the last checkpoint handed over, until it is done.
    pub checkpoint_of: Option<u32>,
    /// The partition of the last replacement handed over, until it is done.
    pub replacement_of: Option<u32>,
}

impl BulkWrites {
    pub(super) fn admits_checkpoint(self, id: u32) -> bool {
        self.checkpoint_of.is_none_or(|other| other == id)
    }

    pub(super) fn admits_replacement(&mut self, id: u32) -> bool {
        *self.replacement_of.get_or_insert(id) == id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsm::{NewValue, Options};

    /// Of two replacements in a row the disk may tell that the first is done when the second has
    /// begun: what the second holds is not on disk then.
    #[test]
    fn a_replacement_counts_only_if_it_is_the_last_one() {
        let mut lsm = Lsm::new(Options {
            memtable_bytes: 64 * 1024,
            hash_seed: 1,
        });
        let mut disk = DiskLog::new(&lsm, Fsync::Always, StoreStats::default());
        lsm.set(b"a", NewValue::Inline(b"1"), None);
        let first = disk.begin_replacement(&lsm);
        lsm.set(b"b", NewValue::Inline(b"2"), None);
        let second = disk.begin_replacement(&lsm);
        disk.on_store_event(StoreEvent::Replaced(first), StoreStats::default());
        assert!(disk.replacement.is_running);
        assert_eq!((disk.synced_version(), disk.released_version()), (0, 0));
        disk.on_store_event(StoreEvent::Replaced(second), StoreStats::default());
        assert!(!disk.replacement.is_running);
        assert_eq!((disk.synced_version(), disk.released_version()), (2, 2));
    }
}
