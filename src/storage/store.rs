//! One partition's files: its log, and a checkpoint when one is due.

use crate::lsm::{LogBatch, Snapshot};

use super::checkpoint_writer::CheckpointWriter;
use super::disk::Disk;
use super::error::StorageError;
use super::generation::Generation;
use super::history_id::HistoryId;
use super::log_end::{DataFiles, LogEnd};
use super::log_writer::{LogWriteStats, LogWriter};
use super::partition_meta::{self, PartitionMeta};
use super::replacement::{CompletedReplacement, Replacement, ReplacementWriter};

/// Figures about a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Log files.
    pub log_file_count: usize,
    /// Bytes in them.
    pub log_bytes: u64,
    /// Version of the newest checkpoint; 0: there is none.
    pub checkpoint_version: u64,
    /// What was written to the log since the start.
    pub written: LogWriteStats,
}

/// How a checkpoint ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointEnd {
    /// It is in place, as of this version.
    InPlace(u64),
    /// It could not be written, and what there was of it is removed.
    GivenUp(StorageError),
}

/// The files of one partition.
#[derive(Debug)]
pub struct Store<D: Disk> {
    root: D,
    disk: Generation<D>,
    log: LogWriter<D::File>,
    log_end: LogEnd<D>,
    checkpoint: Option<CheckpointWriter<D::File>>,
    replacement: Option<Box<ReplacementWriter<D>>>,
    /// To logs before this one.
    written_before: LogWriteStats,
}

impl<D: Disk> Store<D> {
    /// A store that goes on where recovery ended.
    pub(super) fn new(
        root: D,
        disk: Generation<D>,
        log: LogWriter<D::File>,
        log_end: LogEnd<D>,
    ) -> Self {
        Self {
            root,
            disk,
            log,
            log_end,
            checkpoint: None,
            replacement: None,
            written_before: LogWriteStats::default(),
        }
    }

    /// The lineage that the log is of.
    pub fn history(&self) -> HistoryId {
        self.log.history()
    }

    /// Makes last where the partition stands, and all that was written before; false if a
    /// replacement is under way, with whose end it will.
    pub fn settle(&mut self, meta: &PartitionMeta) -> Result<bool, StorageError> {
        if let Some(replacement) = &mut self.replacement {
            replacement.set_meta(meta.clone());
            return Ok(false);
        }
        let (generation, synced_version) = (self.disk.number(), self.log.sync(&self.disk)?);
        let files = DataFiles {
            metadata: Some(partition_meta::checksum(meta, generation)),
            synced_version,
            ..self.log_end.in_force()
        };
        self.log_end.change(files, || {
            partition_meta::write(&self.root, meta, generation)
        })?;
        self.log.set_history(meta.lineage.history());
        Ok(true)
    }

    /// Begins to replace all data; [`replacement_step`](Self::replacement_step) until it is done.
    /// What is appended before that is lost with the old data.
    pub fn begin_replacement(&mut self, replacement: Replacement) {
        // A checkpoint of the old data would be written for nothing.
        self.checkpoint = None;
        self.replacement = Some(Box::new(ReplacementWriter::new(replacement)));
    }

    /// Whether a replacement is under way.
    pub fn has_replacement_work(&self) -> bool {
        self.replacement.is_some()
    }

    /// Goes on with the replacement; its number when the new data is in force.
    pub fn replacement_step(&mut self) -> Result<Option<u64>, StorageError> {
        let Some(replacement) = &mut self.replacement else {
            return Ok(None);
        };
        let file_max_bytes = self.log.file_max_bytes();
        let replaced = replacement.step(&self.root, &mut self.log_end, file_max_bytes)?;
        let Some(replaced) = replaced else {
            return Ok(None);
        };
        let CompletedReplacement { number, disk, log } = replaced;
        self.written_before = self.written_before.and(self.log.written());
        (self.disk, self.log) = (disk, log);
        self.replacement = None;
        Ok(Some(number))
    }

    /// Writes a batch behind the log, without waiting for it to last.
    pub fn append(&mut self, batch: &LogBatch) -> Result<(), StorageError> {
        self.log.append(&self.disk, &mut self.log_end, batch)
    }

    /// Makes the log last; returns the version up to which it does.
    pub fn sync(&mut self) -> Result<u64, StorageError> {
        let version = self.log.sync(&self.disk)?;
        self.log_end.record_synced(version)?;
        Ok(version)
    }

    /// Notes the time that lives are held against, in Unix ms, for the next start.
    pub fn record_time(&mut self, time_ms: u64) -> Result<(), StorageError> {
        self.log_end.record_time(time_ms)
    }

    /// What keeps `log-end` from being made, if it is not.
    pub(super) fn make_log_end(&mut self) -> Result<(), StorageError> {
        self.log_end.sync()
    }

    /// Whether [`sync_log_end`](Self::sync_log_end) has something to do.
    pub fn is_log_end_behind(&self) -> bool {
        self.log_end.is_sync_due()
    }

    /// Makes durable how far the log is synced.
    pub fn sync_log_end(&mut self) -> Result<(), StorageError> {
        self.log_end.sync()
    }

    /// To be called when nothing more is to be written for now.
    pub fn rest(&mut self) -> Result<(), StorageError> {
        self.log.write_mark(&self.disk)
    }

    /// Whether [`rest`](Self::rest) has something to do.
    pub fn is_mark_due(&self) -> bool {
        self.log.is_mark_due()
    }

    /// Version up to which the log is synced.
    pub fn synced_version(&self) -> u64 {
        self.log.synced_version()
    }

    /// Version up to which the log is written.
    pub fn written_version(&self) -> u64 {
        self.log.written_version()
    }

    /// Begins a checkpoint; [`checkpoint_step`](Self::checkpoint_step) until it is done. One at a
    /// time: another that is under way goes on instead.
    pub fn begin_checkpoint(&mut self, snapshot: Snapshot) {
        let history = self.log.history();
        self.checkpoint
            .get_or_insert_with(|| CheckpointWriter::new(snapshot, history));
    }

    /// Whether a checkpoint is under way.
    pub fn has_checkpoint_work(&self) -> bool {
        self.checkpoint.is_some()
    }

    /// Goes on with the checkpoint. Its end: all that it covers is removed, or it is given up.
    pub fn checkpoint_step(&mut self) -> Result<Option<CheckpointEnd>, StorageError> {
        let Some(checkpoint) = &mut self.checkpoint else {
            return Ok(None);
        };
        let (disk, id) = (&self.disk, checkpoint.header().id());
        let failure = match checkpoint.step(disk) {
            Ok(false) => return Ok(None),
            Ok(true) => {
                let files = DataFiles {
                    checkpoint: Some(id),
                    ..self.log_end.in_force()
                };
                let change = self.log_end.change(files, || checkpoint.put_in_place(disk));
                match change {
                    Ok(()) => None,
                    Err(error) if error.is_passing() => Some(error),
                    Err(error) => return Err(error),
                }
            }
            // The log has all that it was to have.
            Err(error) => Some(error),
        };
        let checkpoint = self.checkpoint.take();
        if let Some(error) = failure {
            if let Some(checkpoint) = checkpoint {
                checkpoint.give_up(disk);
            }
            return Ok(Some(CheckpointEnd::GivenUp(error)));
        }
        self.remove_up_to(id.version);
        Ok(Some(CheckpointEnd::InPlace(id.version)))
    }

    /// Removes what a checkpoint replaces. What cannot be removed takes room until the next one, or
    /// the next start, and harms nothing else.
    fn remove_up_to(&mut self, version: u64) {
        let removed = CheckpointWriter::<D::File>::remove_older(&self.disk, version)
            .and_then(|()| self.log.remove_up_to(&self.disk, version));
        if let Err(error) = removed {
            log::warn!("files that a checkpoint replaces are left for now: {error}");
        }
    }

    /// Figures.
    pub fn stats(&self) -> StoreStats {
        let checkpoint = self.log_end.in_force().checkpoint;
        StoreStats {
            log_file_count: self.log.file_count(),
            log_bytes: self.log.file_bytes(),
            checkpoint_version: checkpoint.map_or(0, |id| id.version),
            written: self.written_before.and(self.log.written()),
        }
    }
}
