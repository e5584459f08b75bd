//! What the disk thread does with a command: the stores of all partitions, on any [`Disks`], a
//! simulated one too.
//!
//! Each batch is a group commit: it gathered in the loop while the batch before was synced
//! (`partition/disk_log.rs`). Checkpoints and replacements are written in between, a piece at a
//! time, so that a commit waits for at most one piece.
//!
//! Invariants:
//! 1. With `Fsync::Always` an append is reported as durable only after its sync.
//! 2. After an error the worker is not used any more. A lack of room or of descriptors is no error:
//!    the command that fails for it waits, and the commands of its partition wait behind it; a
//!    checkpoint is given up.

use std::collections::{BTreeMap, VecDeque};

use crate::config::Fsync;
use crate::lsm::{LogBatch, Lsm, Snapshot};

use super::copy_id::CopyId;
use super::disk::{Disk, Disks};
use super::error::{StorageError, shortage};
use super::history_id::HistoryId;
use super::id_generator::IdGenerator;
use super::lineage::Lineage;
use super::partition_meta::{PartitionMeta, Role};
use super::recovery::{
    RecoveredPartition, RecoveryOptions, RecoveryProgress, RecoveryReport, recover,
};
use super::replacement::Replacement;
use super::store::{Store, StoreEvent, StoreStats};

/// A shortage that passes before so many tries is not reported.
const QUIET_TRIES: u32 = 5;

/// A command of the loop; numbers are those of partitions.
#[derive(Debug)]
pub enum DiskCommand {
    /// Opens a partition, or makes it.
    Open(u32),
    /// Appends records to the log.
    Append(u32, LogBatch),
    /// Syncs the logs of all partitions.
    Sync,
    /// Writes a checkpoint, unless one is being written.
    Checkpoint(u32, Snapshot),
    /// Makes the metadata of a partition durable.
    Settle(u32, Box<PartitionMeta>),
    /// Records the time by which entries expire, in Unix ms.
    RecordTime(u32, u64),
    /// Replaces all data. Nothing is appended until [`StoreEvent::Replaced`].
    Replace(u32, Box<Replacement>),
    /// Removes a partition. The next command with its number opens a new one.
    Remove(u32),
}

/// What the worker reports.
#[derive(Debug)]
pub enum DiskEvent {
    /// How far recovery has come.
    Progress(RecoveryProgress),
    /// A partition is loaded, and takes commands.
    Loaded(Box<LoadedPartition>),
    /// All partitions that were there at the start are loaded.
    Ready,
    /// The partition is removed: no start finds it. Later events of its number are about a new one.
    Removed(u32),
    /// Something has become of the files of a partition; with statistics of its store.
    Store(u32, StoreEvent, StoreStats),
    /// A partition could not be made.
    NotOpened(u32, StorageError),
    /// Writing has failed, and has ended with the last event before this one.
    Failed(StorageError),
    /// The thread has synced everything and ends.
    Closed,
}

/// A partition as recovery hands it to the loop.
#[derive(Debug)]
pub struct LoadedPartition {
    /// Its number.
    pub partition: u32,
    /// The engine. Its time is the last one recorded before the start; 0: none was.
    pub lsm: Lsm,
    /// Role, epoch and histories.
    pub meta: PartitionMeta,
    /// What was found.
    pub report: RecoveryReport,
    /// Statistics of the store; none without a data directory.
    pub stats: Option<StoreStats>,
}

impl LoadedPartition {
    /// Whether the node went down while the partition was made: the request for it had no answer.
    pub(super) fn is_half_made(&self) -> bool {
        let PartitionMeta { role, epoch, .. } = self.meta;
        role == Role::Unassigned && epoch == 0 && self.lsm.last_version() == 0
    }

    /// A partition that is not on disk.
    pub(super) fn in_memory(partition: u32, lsm: Lsm, fresh: &RecoveryOptions) -> Self {
        let lineage = Lineage::new(fresh.fresh_history);
        let report = RecoveryReport {
            checkpoint_version: lsm.last_version(),
            ..RecoveryReport::default()
        };
        Self {
            partition,
            lsm,
            meta: PartitionMeta::new(Role::Leader, lineage, fresh.fresh_copy),
            report,
            stats: None,
        }
    }
}

#[derive(Debug)]
struct OpenPartition<D: Disk> {
    id: u32,
    store: Store<D>,
    /// Batches appended since the last [`StoreEvent::Written`].
    batches: Vec<LogBatch>,
    /// The versions in that event.
    reported: (u64, u64),
    /// [`StoreEvent::Settled`]s that wait for the end of a replacement.
    unsettled_count: usize,
    /// So many of the first [`DiskCommand::Settle`]s that wait are the worker's own: no event is
    /// due for them.
    own_settle_count: usize,
    /// Commands that wait for room or descriptors, oldest first.
    stalled: VecDeque<DiskCommand>,
    /// A piece of a replacement waits for room or descriptors.
    is_replacement_stalled: bool,
    /// How often the oldest of them has failed.
    failed_tries: u32,
}

impl<D: Disk> OpenPartition<D> {
    fn is_stalled(&self) -> bool {
        self.is_replacement_stalled || !self.stalled.is_empty() || self.store.waits_for_log()
    }

    fn has_piece(&self) -> bool {
        let has_replacement_piece =
            self.store.replacement.is_some() && !self.is_replacement_stalled;
        self.store.checkpoint.is_some() || has_replacement_piece
    }

    /// All data is being replaced: the commands that wait are about the old data.
    fn drop_stalled(&mut self) {
        self.is_replacement_stalled = false;
        for command in std::mem::take(&mut self.stalled) {
            match command {
                DiskCommand::Append(_, batch) => self.batches.push(batch),
                DiskCommand::Settle(..) if self.own_settle_count > 0 => {
                    self.own_settle_count -= 1;
                }
                DiskCommand::Settle(..) => self.unsettled_count += 1,
                _ => {}
            }
        }
    }

    fn event(&self, event: StoreEvent) -> DiskEvent {
        DiskEvent::Store(self.id, event, self.store.stats())
    }

    /// A command or a piece has failed for lack of room or descriptors.
    fn on_shortage(&mut self, error: StorageError, emit: &mut dyn FnMut(DiskEvent)) {
        self.failed_tries += 1;
        if self.failed_tries == QUIET_TRIES {
            emit(self.event(StoreEvent::Stalled(error)));
        }
    }

    /// Nothing waits for room or descriptors any more.
    fn on_room(&mut self, emit: &mut dyn FnMut(DiskEvent)) {
        if std::mem::take(&mut self.failed_tries) >= QUIET_TRIES {
            emit(self.event(StoreEvent::Resumed));
        }
    }
}

/// The stores of all open partitions.
#[derive(Debug)]
pub struct DiskWorker<S: Disks> {
    disks: S,
    options: RecoveryOptions,
    /// Draws the ids of histories that begin here.
    ids: IdGenerator,
    fsync: Fsync,
    open: BTreeMap<u32, OpenPartition<S::Disk>>,
    is_sync_due: bool,
    /// Removals of partitions that wait for room or descriptors, oldest first.
    removals: VecDeque<u32>,
    /// Whether files of removed partitions may be left.
    is_clearing: bool,
    /// The clock that measures syncs, in microseconds.
    clock_us: Option<fn() -> u64>,
}

impl<S: Disks> DiskWorker<S> {
    /// A worker that has nothing open yet.
    pub fn new(disks: S, options: RecoveryOptions, ids: IdGenerator, fsync: Fsync) -> Self {
        Self {
            disks,
            options,
            ids,
            fsync,
            open: BTreeMap::new(),
            is_sync_due: false,
            removals: VecDeque::new(),
            // A crash may have left files.
            is_clearing: true,
            clock_us: None,
        }
    }

    /// Measures syncs by a clock; without one [`StoreEvent::Written`] has no duration.
    pub fn measure(&mut self, clock_us: fn() -> u64) {
        self.clock_us = Some(clock_us);
    }

    /// Recovers a partition from its directory, an empty one too.
    pub fn load(
        &mut self,
        id: u32,
        on_progress: &mut dyn FnMut(RecoveryProgress),
    ) -> Result<LoadedPartition, StorageError> {
        let fresh_history = HistoryId(self.ids.draw());
        let options = RecoveryOptions {
            fresh_history,
            fresh_copy: CopyId::draw(&mut self.ids, self.options.fresh_copy),
            fsync: self.fsync,
            ..self.options
        };
        let recovered = recover(self.disks.partition(id)?, options, on_progress)?;
        let is_copy_stored = recovered.is_copy_stored;
        let mut loaded = self.open(id, recovered);
        // Clients, and without `--fsync always` replicas, may have read writes that never reached
        // this disk. What a leader writes from now on is another history, so that the versions of
        // those writes are not taken for versions of these.
        let is_known = loaded.meta.lineage.history() != fresh_history;
        let begins_history = loaded.meta.role == Role::Leader && is_known;
        if begins_history {
            let version = loaded.lsm.last_version();
            let history = HistoryId(self.ids.draw());
            loaded.meta.lineage = loaded.meta.lineage.begin(history, version);
        }
        if begins_history || !is_copy_stored {
            self.settle_loaded(&mut loaded)?;
        }
        Ok(loaded)
    }

    /// Opens a partition that was made of a backup.
    pub(super) fn adopt(
        &mut self,
        id: u32,
        recovered: RecoveredPartition<S::Disk>,
    ) -> Result<LoadedPartition, StorageError> {
        let mut loaded = self.open(id, recovered);
        self.settle_loaded(&mut loaded)?;
        Ok(loaded)
    }

    /// Makes durable what a start has changed of the metadata.
    fn settle_loaded(&mut self, loaded: &mut LoadedPartition) -> Result<(), StorageError> {
        let id = loaded.partition;
        let open = self.store(id);
        match open.store.settle(&loaded.meta) {
            // Nothing is written before it.
            Err(error) if error.is_passing() => {
                let meta = Box::new(loaded.meta.clone());
                open.stalled.push_back(DiskCommand::Settle(id, meta));
                open.own_settle_count += 1;
                open.failed_tries = QUIET_TRIES;
                loaded.report.shortage.get_or_insert(error);
            }
            settled => drop(settled?),
        }
        Ok(())
    }

    /// Opens a recovered partition.
    fn open(&mut self, id: u32, recovered: RecoveredPartition<S::Disk>) -> LoadedPartition {
        let store = recovered.store;
        let meta = recovered.meta.unwrap_or_else(|| {
            // Any other partition is just being made, and has no role yet.
            let role = if id == 0 {
                Role::Leader
            } else {
                Role::Unassigned
            };
            PartitionMeta::new(role, Lineage::new(recovered.history), recovered.copy)
        });
        let stats = Some(store.stats());
        let reported = store.versions();
        // The loop hears of a shortage with the partition.
        let is_short = recovered.report.shortage.is_some();
        self.open.insert(
            id,
            OpenPartition {
                id,
                store,
                batches: Vec::new(),
                reported,
                unsettled_count: 0,
                own_settle_count: 0,
                stalled: VecDeque::new(),
                is_replacement_stalled: false,
                failed_tries: if is_short { QUIET_TRIES } else { 0 },
            },
        );
        LoadedPartition {
            partition: id,
            lsm: recovered.lsm,
            meta,
            report: recovered.report,
            stats,
        }
    }

    fn store(&mut self, id: u32) -> &mut OpenPartition<S::Disk> {
        self.open
            .get_mut(&id)
            .expect("commands are for partitions that are open")
    }

    /// Executes a command; [`commit`](Self::commit) after one or more.
    pub fn execute(
        &mut self,
        command: DiskCommand,
        emit: &mut dyn FnMut(DiskEvent),
    ) -> Result<(), StorageError> {
        match command {
            DiskCommand::Open(id) => match self.make(id, emit) {
                Ok(loaded) => emit(DiskEvent::Loaded(Box::new(loaded))),
                Err(error) if error.is_passing() => {
                    self.open.remove(&id);
                    emit(DiskEvent::NotOpened(id, error));
                }
                Err(error) => return Err(error),
            },
            DiskCommand::Append(id, _) | DiskCommand::Settle(id, _) => {
                let open = self.store(id);
                if open.stalled.is_empty() {
                    return self.write(id, command, emit);
                }
                open.stalled.push_back(command);
            }
            DiskCommand::Sync => self.is_sync_due = true,
            DiskCommand::RecordTime(id, time_ms) => {
                self.store(id).store.log_end.record_time(time_ms)?;
            }
            DiskCommand::Checkpoint(id, snapshot) => {
                self.store(id).store.begin_checkpoint(snapshot);
            }
            DiskCommand::Replace(id, replacement) => {
                let open = self.store(id);
                open.store.begin_replacement(*replacement);
                open.drop_stalled();
            }
            DiskCommand::Remove(id) => {
                self.open.remove(&id);
                self.removals.push_back(id);
                self.try_removals(emit)?;
            }
        }
        Ok(())
    }

    /// Makes a partition, after the removal of another partition with its number.
    fn make(
        &mut self,
        id: u32,
        emit: &mut dyn FnMut(DiskEvent),
    ) -> Result<LoadedPartition, StorageError> {
        let obstacle = self.try_removals(emit)?;
        if let Some(error) = obstacle.filter(|_| self.removals.contains(&id)) {
            return Err(error);
        }
        let loaded = self.load(id, &mut |_| {})?;
        self.store(id).store.sync_log_end()?;
        Ok(loaded)
    }

    /// Removes partitions, in order, up to the first for which room or descriptors are short;
    /// returns that shortage.
    fn try_removals(
        &mut self,
        emit: &mut dyn FnMut(DiskEvent),
    ) -> Result<Option<StorageError>, StorageError> {
        while let Some(id) = self.removals.front().copied() {
            if let Some(error) = shortage(self.disks.remove(id))? {
                return Ok(Some(error));
            }
            self.removals.pop_front();
            self.is_clearing = true;
            emit(DiskEvent::Removed(id));
        }
        Ok(None)
    }

    /// Executes a command that waits if room or descriptors are short.
    fn write(
        &mut self,
        id: u32,
        command: DiskCommand,
        emit: &mut dyn FnMut(DiskEvent),
    ) -> Result<(), StorageError> {
        let open = self.store(id);
        let outcome = match &command {
            DiskCommand::Append(_, batch) => open.store.append(batch),
            DiskCommand::Settle(_, meta) => open.store.settle(meta).map(|is_settled| {
                if open.own_settle_count > 0 {
                    open.own_settle_count -= 1;
                } else if is_settled {
                    emit(open.event(StoreEvent::Settled));
                } else {
                    open.unsettled_count += 1;
                }
            }),
            _ => Ok(()),
        };
        if let Some(error) = shortage(outcome)? {
            open.stalled.push_front(command);
            open.on_shortage(error, emit);
        } else if let DiskCommand::Append(_, batch) = command {
            open.batches.push(batch);
        }
        Ok(())
    }

    /// Whether a command or a piece waits for room or descriptors.
    pub fn is_stalled(&self) -> bool {
        !self.removals.is_empty() || self.open.values().any(OpenPartition::is_stalled)
    }

    /// Tries again the commands that wait for room or descriptors; [`commit`](Self::commit) after
    /// it.
    pub fn try_stalled(&mut self, emit: &mut dyn FnMut(DiskEvent)) -> Result<(), StorageError> {
        self.try_removals(emit)?;
        let is_stalled =
            |(id, open): (&u32, &OpenPartition<S::Disk>)| open.is_stalled().then_some(*id);
        let ids: Vec<u32> = self.open.iter().filter_map(is_stalled).collect();
        for id in ids {
            let open = self.store(id);
            open.is_replacement_stalled = false;
            if let Some(error) = shortage(open.store.begin_log())? {
                open.on_shortage(error, emit);
            }
            let mut waiting = std::mem::take(&mut open.stalled);
            while self.store(id).stalled.is_empty()
                && let Some(command) = waiting.pop_front()
            {
                self.write(id, command, emit)?;
            }
            self.store(id).stalled.append(&mut waiting);
        }
        Ok(())
    }

    /// Syncs appended records if they are to be durable, and reports them, and that nothing waits
    /// for room any more.
    pub fn commit(&mut self, emit: &mut dyn FnMut(DiskEvent)) -> Result<(), StorageError> {
        let is_sync_due = std::mem::take(&mut self.is_sync_due) || self.fsync == Fsync::Always;
        for open in self.open.values_mut() {
            let mut sync_us = None;
            if is_sync_due && open.store.log.has_unsynced() {
                let begun_us = self.clock_us.map(|now_us| now_us());
                open.store.sync()?;
                let clock = self.clock_us.zip(begun_us);
                sync_us = clock.map(|(now_us, begun_us)| now_us().saturating_sub(begun_us));
            }
            if !open.is_stalled() && open.store.replacement.is_none() {
                open.on_room(emit);
            }
            let versions = open.store.versions();
            if versions == open.reported && open.batches.is_empty() {
                continue;
            }
            open.reported = versions;
            let (version, synced_version) = versions;
            let batches = std::mem::take(&mut open.batches);
            emit(open.event(StoreEvent::Written {
                version,
                synced_version,
                sync_us,
                batches,
            }));
        }
        Ok(())
    }

    /// Whether a mark or a piece of a checkpoint or replacement is to be written, or a file of a
    /// removed partition is left.
    pub fn has_more(&self) -> bool {
        let has_more =
            |open: &OpenPartition<S::Disk>| open.store.log.is_mark_due || open.has_piece();
        self.is_clearing || self.open.values().any(has_more)
    }

    /// Writes the marks that are due. To be called when nothing more is to be appended for now.
    pub fn rest(&mut self) -> Result<(), StorageError> {
        self.open
            .values_mut()
            .try_for_each(|open| open.store.rest())
    }

    /// Removes one file of a removed partition. If that fails, the file takes room until the next
    /// start, and does no other harm.
    fn clear_piece(&mut self) {
        if self.is_clearing {
            self.is_clearing = self.disks.clear_removed().unwrap_or_else(|error| {
                log::warn!("files of a removed partition are left until the next start: {error}");
                false
            });
        }
    }

    /// Whether a `log-end` is written and not synced.
    pub fn is_log_end_behind(&self) -> bool {
        self.open
            .values()
            .any(|open| open.store.log_end.is_sync_due)
    }

    /// Syncs each `log-end`. To be called about a second after it was written.
    pub fn sync_log_ends(&mut self) -> Result<(), StorageError> {
        for open in self.open.values_mut() {
            // After a shortage the next call tries again.
            shortage(open.store.sync_log_end())?;
        }
        Ok(())
    }

    /// Writes one piece of a checkpoint or replacement, or removes one file.
    pub fn write_piece(&mut self, emit: &mut dyn FnMut(DiskEvent)) -> Result<(), StorageError> {
        self.clear_piece();
        let Some(open) = self.open.values_mut().find(|open| open.has_piece()) else {
            return Ok(());
        };
        if let Some(end) = open.store.checkpoint_step()? {
            emit(open.event(end));
        }
        let replaced = match open.store.replacement_step() {
            Err(error) if error.is_passing() => {
                open.is_replacement_stalled = true;
                open.on_shortage(error, emit);
                return Ok(());
            }
            replaced => replaced?,
        };
        if !open.is_stalled() {
            open.on_room(emit);
        }
        if let Some(number) = replaced {
            open.reported = open.store.versions();
            emit(open.event(StoreEvent::Replaced(number)));
            for _ in 0..std::mem::take(&mut open.unsettled_count) {
                emit(open.event(StoreEvent::Settled));
            }
        }
        Ok(())
    }

    /// Makes everything durable, at a clean stop: nothing was confirmed that did not come here.
    pub fn close(&mut self) -> Result<(), StorageError> {
        self.sync_all()?;
        let mut stores = self.open.values_mut().map(|open| &mut open.store);
        stores.try_for_each(Store::vouch)
    }

    /// Makes durable what has come here.
    pub(super) fn sync_all(&mut self) -> Result<(), StorageError> {
        for open in self.open.values_mut() {
            // The last try: with `--fsync interval` clients have answers to some of these.
            for command in open.stalled.drain(..) {
                match command {
                    DiskCommand::Append(_, batch) => open.store.append(&batch)?,
                    DiskCommand::Settle(_, meta) => drop(open.store.settle(&meta)?),
                    _ => {}
                }
            }
            open.store.sync()?;
            open.store.rest()?;
            open.store.sync_log_end()?;
        }
        Ok(())
    }
}
