//! The files of one partition: its log, a checkpoint when one is due, and a replacement of all of
//! them when a leader's data takes their place.

use crate::lsm::{LogBatch, Snapshot};

use super::checkpoint_writer::{CheckpointWriter, remove_older};
use super::copy_id::CopyId;
use super::disk::Disk;
use super::error::{StorageError, shortage};
use super::generation::Generation;
use super::header::FileId;
use super::log_end::{DataFiles, LogEnd};
use super::log_writer::{LogWriteStats, LogWriter};
use super::partition_meta::{self, PartitionMeta};
use super::replacement::{Replacement, ReplacementWriter};

/// Statistics of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Log files.
    pub log_file_count: usize,
    /// Bytes in them.
    pub log_bytes: u64,
    /// Bytes, at least, of the files that a checkpoint of all data would free.
    pub freeable_log_bytes: u64,
    /// Version of the newest checkpoint; 0: there is none.
    pub checkpoint_version: u64,
    /// What was written to the log since the start.
    pub written: LogWriteStats,
}

/// What becomes of the files of a partition.
#[derive(Debug)]
pub enum StoreEvent {
    /// Records up to this version are written. The batches come back for their memory.
    Written {
        /// Version of the last record.
        version: u64,
        /// Version up to which they are also synced.
        synced_version: u64,
        /// How long the sync took, if there was one and it was measured.
        sync_us: Option<u64>,
        /// Batches to fill again.
        batches: Vec<LogBatch>,
    },
    /// The checkpoint of this version is in place.
    Checkpointed(u64),
    /// The checkpoint could not be written, and what there was of it is removed. The log goes on.
    CheckpointGivenUp(StorageError),
    /// Room or descriptors are short: commands wait, and are tried again.
    Stalled(StorageError),
    /// The shortage is over.
    Resumed,
    /// The metadata is durable: one event for each
    /// [`DiskCommand::Settle`](super::DiskCommand::Settle), in order.
    Settled,
    /// All data is replaced, by the replacement of this number; the partition takes commands again.
    Replaced(u64),
}

/// The files of one partition.
#[derive(Debug)]
pub struct Store<D: Disk> {
    root: D,
    copy: CopyId,
    pub(super) log: LogWriter<D>,
    pub(super) log_end: LogEnd<D>,
    /// The checkpoint under way.
    pub(super) checkpoint: Option<CheckpointWriter<Generation<D>>>,
    /// The replacement under way.
    pub(super) replacement: Option<Box<ReplacementWriter<D>>>,
}

impl<D: Disk> Store<D> {
    /// A store that goes on where recovery ended.
    pub(super) fn new(root: D, copy: CopyId, log: LogWriter<D>, log_end: LogEnd<D>) -> Self {
        Self {
            root,
            copy,
            log,
            log_end,
            checkpoint: None,
            replacement: None,
        }
    }

    /// Whether there was no room to begin the log at the start, and is none yet.
    pub(super) fn waits_for_log(&self) -> bool {
        self.replacement.is_none() && !self.log.is_begun()
    }

    /// Begins the log if it waits for that.
    pub(super) fn begin_log(&mut self) -> Result<(), StorageError> {
        if self.waits_for_log() {
            self.log.begin(&mut self.log_end)?;
        }
        Ok(())
    }

    /// Writes a batch behind the log, without a sync.
    pub fn append(&mut self, batch: &LogBatch) -> Result<(), StorageError> {
        let file_count = self.log.file_count();
        self.log.append(&mut self.log_end, batch)?;
        // The file before the one that this has begun may be covered as a whole.
        let checkpoint = self.log_end.in_force().checkpoint;
        if let Some(id) = checkpoint.filter(|_| self.log.file_count() > file_count) {
            self.remove_covered(id);
        }
        Ok(())
    }

    /// Syncs the log; returns the version up to which it is durable.
    pub fn sync(&mut self) -> Result<u64, StorageError> {
        let version = self.log.sync()?;
        self.log_end.record_synced(version)?;
        Ok(version)
    }

    /// Writes the mark behind the last sync. To be called when nothing more is to be written for
    /// now.
    pub fn rest(&mut self) -> Result<(), StorageError> {
        self.log.write_mark()
    }

    /// Makes durable how far the log is synced.
    pub fn sync_log_end(&mut self) -> Result<(), StorageError> {
        self.log_end.sync()
    }

    /// Makes durable that nothing is missing, at the end of a clean stop.
    pub fn vouch(&mut self) -> Result<(), StorageError> {
        self.log_end.vouch_for(self.copy)
    }

    /// The version up to which the log is written, and the one up to which it is synced.
    pub fn versions(&self) -> (u64, u64) {
        (self.log.written_version(), self.log.synced_version)
    }

    /// Makes the metadata durable, and all that was written before; false if a replacement is under
    /// way, which ends with this metadata in force.
    pub fn settle(&mut self, meta: &PartitionMeta) -> Result<bool, StorageError> {
        if let Some(replacement) = &mut self.replacement {
            replacement.meta = meta.clone();
            return Ok(false);
        }
        let (generation, synced_version) = (self.log.disk.number, self.log.sync()?);
        let files = DataFiles {
            metadata: Some(partition_meta::checksum(meta, generation)),
            synced_version,
            ..self.log_end.in_force()
        };
        self.log_end.change(files, || {
            partition_meta::write(&self.root, meta, generation)
        })?;
        self.log.history = meta.lineage.history();
        Ok(true)
    }

    /// Begins a checkpoint; [`checkpoint_step`](Self::checkpoint_step) until it is done. If another
    /// one is under way, that goes on instead.
    pub fn begin_checkpoint(&mut self, snapshot: Snapshot) {
        let (disk, history) = (&self.log.disk, self.log.history);
        self.checkpoint
            .get_or_insert_with(|| CheckpointWriter::new(disk.clone(), snapshot, history));
    }

    /// Writes the next piece of the checkpoint. Its end: all that it covers is removed, or it is
    /// given up.
    pub fn checkpoint_step(&mut self) -> Result<Option<StoreEvent>, StorageError> {
        let Some(checkpoint) = &mut self.checkpoint else {
            return Ok(None);
        };
        let id = checkpoint.header().id();
        let failure = match checkpoint.step() {
            Ok(false) => return Ok(None),
            Ok(true) => {
                let files = DataFiles {
                    checkpoint: Some(id),
                    ..self.log_end.in_force()
                };
                shortage(self.log_end.change(files, || checkpoint.put_in_place()))?
            }
            // Whatever the error: the log has all that the checkpoint was to have.
            Err(error) => Some(error),
        };
        let checkpoint = self.checkpoint.take();
        if let Some(error) = failure {
            checkpoint.into_iter().for_each(CheckpointWriter::remove);
            return Ok(Some(StoreEvent::CheckpointGivenUp(error)));
        }
        self.remove_covered(id);
        Ok(Some(StoreEvent::Checkpointed(id.version)))
    }

    /// Removes what a checkpoint replaces. What cannot be removed takes room until the next
    /// checkpoint, or the next start, and harms nothing else.
    fn remove_covered(&mut self, checkpoint: FileId) {
        let removed = remove_older(&self.log.disk, checkpoint.version)
            .and_then(|()| self.log.remove_up_to(checkpoint.version));
        if let Err(error) = removed {
            log::warn!("files that a checkpoint replaces are left for now: {error}");
        }
    }

    /// Begins to replace all data; [`replacement_step`](Self::replacement_step) until it is done.
    /// What is appended before that is lost with the old data.
    pub fn begin_replacement(&mut self, replacement: Replacement) {
        // A checkpoint of the old data would be written for nothing.
        self.checkpoint = None;
        let log_file_bytes = self.log.file_max_bytes;
        let writer = ReplacementWriter::new(self.root.clone(), replacement, log_file_bytes);
        self.replacement = Some(Box::new(writer));
    }

    /// Writes the next piece of the replacement; its number when the new data is in force.
    pub fn replacement_step(&mut self) -> Result<Option<u64>, StorageError> {
        let Some(replacement) = &mut self.replacement else {
            return Ok(None);
        };
        let Some(log) = replacement.step(&mut self.log_end)? else {
            return Ok(None);
        };
        let (number, stats) = (replacement.number, self.log.stats);
        self.replacement = None;
        self.log = log;
        self.log.stats = stats;
        Ok(Some(number))
    }

    /// Statistics.
    pub fn stats(&self) -> StoreStats {
        let checkpoint = self.log_end.in_force().checkpoint;
        StoreStats {
            log_file_count: self.log.file_count(),
            log_bytes: self.log.file_bytes(),
            freeable_log_bytes: self.log.freeable_bytes(),
            checkpoint_version: checkpoint.map_or(0, |id| id.version),
            written: self.log.stats,
        }
    }
}
