//! One partition's files: its log, and a checkpoint when one is due.

use crate::lsm::{LogBatch, Snapshot};

use super::checkpoint_writer::CheckpointWriter;
use super::disk::Disk;
use super::generation::Generation;
use super::log_writer::LogWriter;
use super::replacement::{Replaced, Replacement, ReplacementWriter};
use super::standing::{self, Standing};
use super::{HistoryId, StorageError};

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
    pub written: Written,
}

/// What was written to a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Writes of batches; each may be several system calls.
    pub count: u64,
    /// Bytes of records, marks, and zeros written ahead of them.
    pub bytes: u64,
}

impl Written {
    fn and(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// The files of one partition.
#[derive(Debug)]
pub struct Store<D: Disk> {
    root: D,
    disk: Generation<D>,
    log: LogWriter<D::File>,
    checkpoint: Option<CheckpointWriter<D::File>>,
    checkpoint_version: u64,
    replacement: Option<Box<ReplacementWriter<D>>>,
    /// To logs before this one.
    written_before: Written,
}

impl<D: Disk> Store<D> {
    /// A store that goes on where recovery ended.
    pub(super) fn new(
        root: D,
        disk: Generation<D>,
        log: LogWriter<D::File>,
        checkpoint_version: u64,
    ) -> Self {
        Self {
            root,
            disk,
            log,
            checkpoint: None,
            checkpoint_version,
            replacement: None,
            written_before: Written::default(),
        }
    }

    /// The lineage that the log is of.
    pub fn history(&self) -> HistoryId {
        self.log.history()
    }

    /// Makes last where the partition stands, and all that was written before; false if a replacement is under way, with whose end
    /// it will.
    pub fn settle(&mut self, standing: Standing) -> Result<bool, StorageError> {
        if let Some(replacement) = &mut self.replacement {
            replacement.set_standing(standing);
            return Ok(false);
        }
        self.log.sync(&self.disk)?;
        let standing = &standing;
        standing::write(&self.root, standing, self.disk.number())?;
        self.log.set_history(standing.lineage.history());
        Ok(true)
    }

    /// Begins to replace all data; [`replacement_step`](Self::replacement_step) until it is done. What is appended before that is
    /// lost with the old data.
    pub fn begin_replacement(&mut self, replacement: Replacement) -> Result<(), StorageError> {
        // A checkpoint of the old data would be written for nothing.
        self.checkpoint = None;
        let generation = self.disk.number() + 1;
        self.replacement = Some(Box::new(ReplacementWriter::begin(
            &self.root,
            generation,
            replacement,
        )?));
        Ok(())
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
        let Some(replaced) = replacement.step(&self.root, self.log.file_max_bytes())? else {
            return Ok(None);
        };
        let Replaced {
            number,
            disk,
            log,
            checkpoint_version,
        } = replaced;
        self.written_before = self.written_before.and(self.log.written());
        (self.disk, self.log, self.checkpoint_version) = (disk, log, checkpoint_version);
        self.replacement = None;
        Ok(Some(number))
    }

    /// Writes a batch behind the log, without waiting for it to last.
    pub fn append(&mut self, batch: &LogBatch) -> Result<(), StorageError> {
        self.log.append(&self.disk, batch)
    }

    /// Makes the log last; returns the version up to which it does.
    pub fn sync(&mut self) -> Result<u64, StorageError> {
        self.log.sync(&self.disk)
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

    /// Begins a checkpoint; [`checkpoint_step`](Self::checkpoint_step) until it is done. One at a time: another that is under
    /// way goes on instead.
    pub fn begin_checkpoint(&mut self, snapshot: Snapshot) -> Result<(), StorageError> {
        if self.checkpoint.is_none() {
            self.checkpoint = Some(CheckpointWriter::begin(
                &self.disk,
                snapshot,
                self.log.history(),
            )?);
        }
        Ok(())
    }

    /// Whether a checkpoint is under way.
    pub fn has_checkpoint_work(&self) -> bool {
        self.checkpoint.is_some()
    }

    /// Goes on with the checkpoint; its version when it is done, and all that it covers is removed.
    pub fn checkpoint_step(&mut self) -> Result<Option<u64>, StorageError> {
        let Some(checkpoint) = &mut self.checkpoint else {
            return Ok(None);
        };
        if !checkpoint.step(&self.disk)? {
            return Ok(None);
        }
        let version = checkpoint.version();
        self.checkpoint = None;
        self.checkpoint_version = version;
        CheckpointWriter::<D::File>::remove_older(&self.disk, version)?;
        self.log.remove_up_to(&self.disk, version)?;
        Ok(Some(version))
    }

    /// Figures.
    pub fn stats(&self) -> StoreStats {
        StoreStats {
            log_file_count: self.log.file_count(),
            log_bytes: self.log.file_bytes(),
            checkpoint_version: self.checkpoint_version,
            written: self.written_before.and(self.log.written()),
        }
    }
}
