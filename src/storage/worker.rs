//! What the disk thread does with a command: the stores of all partitions, on any [`Disks`], a simulated one too.
//!
//! Each batch is a group commit: it gathered in the loop while the one before was synced (`partition/disk_log.rs`). Checkpoints and
//! replacements are written in between, a piece at a time, so that a commit waits for at most one piece.
//!
//! Invariants:
//! 1. For `Fsync::Always` an append is told as durable only after its sync.
//! 2. After an error the worker is not to be used any more.

use std::collections::BTreeMap;
use std::fmt;

use crate::config::Fsync;
use crate::lsm::{LogBatch, Lsm, Snapshot};

use super::disk::Disk;
use super::lineage::{Lineage, Mint};
use super::recovery::{Progress, Recovered, RecoveryOptions, Torn, recover};
use super::replacement::Replacement;
use super::standing::{Role, Standing};
use super::store::{Store, StoreStats};
use super::{HistoryId, StorageError};

/// The directories of all partitions.
pub trait Disks: fmt::Debug + Send + 'static {
    /// That of one.
    type Disk: Disk;

    /// Numbers of the partitions that have a directory, ascending.
    fn partitions(&self) -> Result<Vec<u32>, StorageError>;
    /// The directory of a partition, which is made if need be.
    fn partition(&self, id: u32) -> Result<Self::Disk, StorageError>;
    /// Takes the directory of a partition out of the way, whole: once this has returned, no start
    /// finds it. What is in it goes with [`clear_removed`](Self::clear_removed).
    fn remove(&self, id: u32) -> Result<(), StorageError>;
    /// Removes one file of directories that are out of the way; false if none is left.
    fn clear_removed(&self) -> Result<bool, StorageError>;
}

/// What the loop asks for; numbers are those of partitions.
#[derive(Debug)]
pub enum Command {
    /// Open a partition, or make it.
    Open(u32),
    /// Write records behind the log.
    Append(u32, LogBatch),
    /// Make what is written last, in all partitions.
    Sync,
    /// Write a checkpoint, unless one is being written.
    Checkpoint(u32, Snapshot),
    /// Make last where the partition stands.
    Settle(u32, Box<Standing>),
    /// Replace all data. Nothing is appended until that is told as done.
    Replace(u32, Box<Replacement>),
    /// Remove a partition. The next command about its number opens a new one.
    Remove(u32),
}

/// What the worker tells.
#[derive(Debug)]
pub enum Event {
    /// Recovery goes on.
    Progress(Progress),
    /// A partition is there; commands for it are taken.
    Loaded(Box<Loaded>),
    /// All partitions that there are at the start are loaded.
    Ready,
    /// Records up to here are written. The batches come back for their allocation.
    Written {
        /// The partition.
        partition: u32,
        /// Version of the last one.
        version: u64,
        /// Version up to which they are also synced.
        synced_version: u64,
        /// How long the sync took, if there was one and it was measured.
        sync_us: Option<u64>,
        /// Batches to fill again.
        batches: Vec<LogBatch>,
        /// Figures.
        stats: StoreStats,
    },
    /// A checkpoint is in place.
    Checkpointed {
        /// The partition.
        partition: u32,
        /// Its version.
        version: u64,
        /// Figures.
        stats: StoreStats,
    },
    /// Where the partition stands lasts: one for each [`Command::Settle`], in order.
    Settled {
        /// The partition.
        partition: u32,
    },
    /// All data is replaced; commands for it are taken again.
    Replaced {
        /// The partition.
        partition: u32,
        /// That of the replacement.
        number: u64,
        /// Figures.
        stats: StoreStats,
    },
    /// No start will find the partition. Events that follow are about a new one.
    Removed {
        /// The partition.
        partition: u32,
    },
    /// It is over: nothing was or will be written behind what was told before.
    Failed(StorageError),
    /// The thread has synced everything and ends.
    Closed,
}

/// A partition as recovery hands it to the loop.
#[derive(Debug)]
pub struct Loaded {
    /// Its number.
    pub partition: u32,
    /// The engine.
    pub lsm: Lsm,
    /// Where the partition stands.
    pub standing: Standing,
    /// Version of the checkpoint it was made of; 0: there was none.
    pub checkpoint_version: u64,
    /// Records replayed from the log.
    pub replayed_count: u64,
    /// The tail that was cut off, if any.
    pub torn: Option<Torn>,
    /// What was lost, as accepted, one line each.
    pub losses: Vec<String>,
    /// What an accepted loss set aside.
    pub set_aside: Vec<String>,
    /// Figures; none where there is no data directory.
    pub stats: Option<StoreStats>,
}

impl Loaded {
    /// A partition that is not on disk.
    pub(super) fn in_memory(partition: u32, lsm: Lsm, history: HistoryId) -> Self {
        let checkpoint_version = lsm.last_version();
        let standing = Standing::new(Role::Leader, Lineage::new(history));
        let (torn, losses, set_aside, stats) = (None, Vec::new(), Vec::new(), None);
        Self {
            partition,
            lsm,
            standing,
            checkpoint_version,
            replayed_count: 0,
            torn,
            losses,
            set_aside,
            stats,
        }
    }
}

#[derive(Debug)]
struct Open<D: Disk> {
    store: Store<D>,
    /// Appended and not yet told.
    batches: Vec<LogBatch>,
    /// Versions told last.
    told: (u64, u64),
    /// [`Event::Settled`]s that wait for the end of a replacement.
    unsettled_count: usize,
}

/// The worker.
#[derive(Debug)]
pub struct DiskWorker<S: Disks> {
    disks: S,
    options: RecoveryOptions,
    /// For histories of new partitions.
    mint: Mint,
    fsync: Fsync,
    open: BTreeMap<u32, Open<S::Disk>>,
    is_sync_due: bool,
    /// Files of removed partitions may be left.
    is_clearing: bool,
    /// What syncs are measured by, in microseconds.
    clock_us: Option<fn() -> u64>,
}

impl<S: Disks> DiskWorker<S> {
    /// A worker that has nothing open yet.
    pub fn new(disks: S, options: RecoveryOptions, mint: Mint, fsync: Fsync) -> Self {
        Self {
            disks,
            options,
            mint,
            fsync,
            open: BTreeMap::new(),
            is_sync_due: false,
            // A crash may have left some.
            is_clearing: true,
            clock_us: None,
        }
    }

    /// Has syncs measured by a clock; without one they are not.
    pub fn measure(&mut self, clock_us: fn() -> u64) {
        self.clock_us = Some(clock_us);
    }

    /// Recovers a partition from its directory, an empty one too.
    pub fn load(
        &mut self,
        id: u32,
        on_progress: &mut dyn FnMut(Progress),
    ) -> Result<Loaded, StorageError> {
        let fresh_history = HistoryId(self.mint.draw());
        let options = RecoveryOptions {
            fresh_history,
            ..self.options
        };
        let recovered = recover(self.disks.partition(id)?, options, on_progress)?;
        let mut loaded = self.adopt(id, recovered);
        // Clients, and without `--fsync always` replicas, may have read writes that never reached
        // this disk. What a leader writes from now on is another history, so that the versions of
        // those writes are not taken for versions of these.
        let is_known = loaded.standing.lineage.history() != fresh_history;
        if loaded.standing.role == Role::Leader && is_known {
            let version = loaded.lsm.last_version();
            let history = HistoryId(self.mint.draw());
            loaded.standing.lineage = loaded.standing.lineage.begin(history, version);
            self.store(id).store.settle(loaded.standing.clone())?;
        }
        Ok(loaded)
    }

    /// Takes a recovered partition in.
    pub(super) fn adopt(&mut self, id: u32, recovered: Recovered<S::Disk>) -> Loaded {
        let Recovered {
            lsm,
            store,
            standing,
            history,
            checkpoint_version,
            replayed_count,
            torn,
            losses,
            set_aside,
        } = recovered;
        let standing =
            standing.unwrap_or_else(|| Standing::new(Role::Leader, Lineage::new(history)));
        let stats = Some(store.stats());
        let told = (store.written_version(), store.synced_version());
        self.open.insert(
            id,
            Open {
                store,
                batches: Vec::new(),
                told,
                unsettled_count: 0,
            },
        );
        Loaded {
            partition: id,
            lsm,
            standing,
            checkpoint_version,
            replayed_count,
            torn,
            losses,
            set_aside,
            stats,
        }
    }

    fn store(&mut self, id: u32) -> &mut Open<S::Disk> {
        self.open
            .get_mut(&id)
            .expect("commands are for partitions that are open")
    }

    /// Carries a command out; [`commit`](Self::commit) after one or more.
    pub fn carry_out(
        &mut self,
        command: Command,
        tell: &mut dyn FnMut(Event),
    ) -> Result<(), StorageError> {
        match command {
            Command::Open(id) => {
                let loaded = self.load(id, &mut |_| {})?;
                tell(Event::Loaded(Box::new(loaded)));
            }
            Command::Append(id, batch) => {
                let open = self.store(id);
                open.store.append(&batch)?;
                open.batches.push(batch);
            }
            Command::Sync => self.is_sync_due = true,
            Command::Checkpoint(id, snapshot) => self.store(id).store.begin_checkpoint(snapshot)?,
            Command::Settle(id, standing) => {
                let open = self.store(id);
                if open.store.settle(*standing)? {
                    tell(Event::Settled { partition: id });
                } else {
                    open.unsettled_count += 1;
                }
            }
            Command::Replace(id, replacement) => {
                self.store(id).store.begin_replacement(*replacement)?;
            }
            Command::Remove(id) => {
                self.disks.remove(id)?;
                self.open.remove(&id);
                self.is_clearing = true;
                tell(Event::Removed { partition: id });
            }
        }
        Ok(())
    }

    /// Makes appended records last, if they are to, and tells of them.
    pub fn commit(&mut self, tell: &mut dyn FnMut(Event)) -> Result<(), StorageError> {
        let is_sync_due = std::mem::take(&mut self.is_sync_due) || self.fsync == Fsync::Always;
        for (id, open) in &mut self.open {
            let mut sync_us = None;
            if is_sync_due && open.store.synced_version() < open.store.written_version() {
                let begun_us = self.clock_us.map(|now_us| now_us());
                open.store.sync()?;
                sync_us = self
                    .clock_us
                    .zip(begun_us)
                    .map(|(now_us, begun_us)| now_us().saturating_sub(begun_us));
            }
            let versions = (open.store.written_version(), open.store.synced_version());
            if versions == open.told && open.batches.is_empty() {
                continue;
            }
            open.told = versions;
            let (version, synced_version) = versions;
            let (batches, stats) = (std::mem::take(&mut open.batches), open.store.stats());
            tell(Event::Written {
                partition: *id,
                version,
                synced_version,
                sync_us,
                batches,
                stats,
            });
        }
        Ok(())
    }

    /// Whether a mark, a piece of a checkpoint or one of a replacement is to be written, or a file
    /// of a removed partition is left.
    pub fn has_more(&self) -> bool {
        let has_more = |store: &Store<S::Disk>| {
            store.is_mark_due() || store.has_checkpoint_work() || store.has_replacement_work()
        };
        self.is_clearing || self.open.values().any(|open| has_more(&open.store))
    }

    /// To be called when nothing more is to be appended for now.
    pub fn rest(&mut self) -> Result<(), StorageError> {
        self.open
            .values_mut()
            .try_for_each(|open| open.store.rest())
    }

    /// Removes one file of removed partitions. One that cannot be removed takes room until the next
    /// start, and harms nothing else.
    fn clear_piece(&mut self) {
        if self.is_clearing {
            self.is_clearing = self.disks.clear_removed().unwrap_or_else(|error| {
                log::warn!("files of a removed partition are left until the next start: {error}");
                false
            });
        }
    }

    /// Whether what is known of the end of a log is written and not yet synced.
    pub fn is_log_end_behind(&self) -> bool {
        self.open
            .values()
            .any(|open| open.store.is_log_end_behind())
    }

    /// To be called about a second after that, and when nothing else is to do.
    pub fn sync_log_ends(&mut self) -> Result<(), StorageError> {
        self.open
            .values_mut()
            .try_for_each(|open| open.store.sync_log_end())
    }

    /// Writes one piece of whatever is under way.
    pub fn write_piece(&mut self, tell: &mut dyn FnMut(Event)) -> Result<(), StorageError> {
        self.clear_piece();
        let has_piece =
            |store: &Store<S::Disk>| store.has_checkpoint_work() || store.has_replacement_work();
        let Some((id, open)) = self
            .open
            .iter_mut()
            .find(|(_, open)| has_piece(&open.store))
        else {
            return Ok(());
        };
        if let Some(version) = open.store.checkpoint_step()? {
            tell(Event::Checkpointed {
                partition: *id,
                version,
                stats: open.store.stats(),
            });
        }
        if let Some(number) = open.store.replacement_step()? {
            open.told = (open.store.written_version(), open.store.synced_version());
            tell(Event::Replaced {
                partition: *id,
                number,
                stats: open.store.stats(),
            });
            for _ in 0..std::mem::take(&mut open.unsettled_count) {
                tell(Event::Settled { partition: *id });
            }
        }
        Ok(())
    }

    /// Makes everything last.
    pub fn close(&mut self) -> Result<(), StorageError> {
        for open in self.open.values_mut() {
            open.store.sync()?;
            open.store.rest()?;
            open.store.sync_log_end()?;
        }
        Ok(())
    }
}
