//! Replacing all data of a partition by that of a leader. The new files are written beside the old
//! ones, which stay in force until the new ones are complete.
//!
//! Invariant: after a power cut at any time, recovery finds the old data or the new, with the role,
//! epoch and history that belong to it.

use crate::lsm::Snapshot;
use crate::seeded_bugs::SeededBug;

use super::checkpoint::CheckpointEncoder;
use super::checkpoint_writer::CheckpointWriter;
use super::disk::Disk;
use super::diverged::{DivergedData, DivergedWriter};
use super::error::StorageError;
use super::generation::{Generation, generation_of_data};
use super::header::FileHeader;
use super::log_end::{DataFiles, LogEnd};
use super::log_writer::LogWriter;
use super::partition_meta::{self, PartitionMeta};

/// The new data, and what becomes of the old.
#[derive(Debug)]
pub struct Replacement {
    /// Sequence number from the caller. A later replacement supersedes an unfinished one;
    /// the completion of that is ignored.
    pub number: u64,
    /// The new data.
    pub snapshot: Snapshot,
    /// The metadata that belongs to the new data.
    pub meta: PartitionMeta,
    /// The old data, if it has writes that the new data lacks.
    pub dropped: Option<DivergedData>,
}

/// The writer of a replacement.
#[derive(Debug)]
pub(super) struct ReplacementWriter<D: Disk> {
    root: D,
    /// The sequence number that the caller gave.
    pub(super) number: u64,
    diverged: Option<DivergedWriter<D>>,
    /// The new data, until its generation is announced.
    encoder: Option<CheckpointEncoder>,
    /// The new data, once it is.
    checkpoint: Option<CheckpointWriter<Generation<D>>>,
    generation: u32,
    /// The metadata that takes force with the new data.
    pub(super) meta: PartitionMeta,
    log_file_bytes: u64,
}

impl<D: Disk> ReplacementWriter<D> {
    /// A writer beside the files in force; `log_file_bytes` is for the log behind the new data.
    pub(super) fn new(root: D, replacement: Replacement, log_file_bytes: u64) -> Self {
        let dropped = replacement.dropped;
        let history = replacement.meta.lineage.history();
        Self {
            number: replacement.number,
            diverged: dropped.map(|data| DivergedWriter::begin(root.clone(), data)),
            encoder: Some(CheckpointEncoder::new(replacement.snapshot, history)),
            checkpoint: None,
            generation: 0,
            meta: replacement.meta,
            log_file_bytes,
            root,
        }
    }

    /// Writes the next piece. Returns the log to go on with when the new data is in force. After a
    /// shortage the same piece can be tried again.
    pub(super) fn step(
        &mut self,
        log_end: &mut LogEnd<D>,
    ) -> Result<Option<LogWriter<D>>, StorageError> {
        if let Some(diverged) = &mut self.diverged {
            if diverged.step()? {
                self.diverged = None;
            }
            return Ok(None);
        }
        if self.encoder.is_some() {
            self.generation = announce(&self.root, log_end)?;
        }
        let disk = Generation::new(self.root.clone(), self.generation);
        if let Some(encoder) = self.encoder.take() {
            self.checkpoint = Some(CheckpointWriter::of(disk.clone(), encoder));
        }
        let Some(checkpoint) = &mut self.checkpoint else {
            return Ok(None);
        };
        if !checkpoint.step()? {
            return Ok(None);
        }
        checkpoint.put_in_place()?;
        let header = *checkpoint.header();
        self.put_in_force(disk, &header, log_end).map(Some)
    }

    /// Begins the log, and makes the change from the old files to the new ones.
    fn put_in_force(
        &self,
        disk: Generation<D>,
        checkpoint: &FileHeader,
        log_end: &mut LogEnd<D>,
    ) -> Result<LogWriter<D>, StorageError> {
        let (root, generation, position) = (&self.root, self.generation, checkpoint.position);
        let history = self.meta.lineage.history();
        let mut log = LogWriter::new(disk, history, position, self.log_file_bytes);
        let log_id = log.next_header().id();
        log.begin_unnamed()?;
        if is_removal_early() {
            remove_replaced(root, generation);
        }
        let files = DataFiles {
            generation,
            metadata: Some(partition_meta::checksum(&self.meta, generation)),
            checkpoint: Some(checkpoint.id()),
            log: Some(log_id),
            synced_version: position.version,
        };
        log_end.change(files, || {
            partition_meta::write(root, &self.meta, generation)
        })?;
        remove_replaced(root, generation);
        Ok(log)
    }
}

/// Announces a generation that is newer than any in the folder.
fn announce<D: Disk>(root: &D, log_end: &mut LogEnd<D>) -> Result<u32, StorageError> {
    let names = root.list()?;
    let found = names.iter().filter_map(|name| generation_of_data(name));
    let newest = found.max().unwrap_or(0);
    let generation = newest.max(log_end.in_force().generation) + 1;
    log_end.announce_draft(generation)?;
    Ok(generation)
}

/// Whether the old files are removed before the new ones are in force: never.
fn is_removal_early() -> bool {
    SeededBug::OldFilesRemovedFirst.is_on()
}

/// Removes log and checkpoints of the generations before the one in force. A file that cannot be
/// removed takes room until the next start, and does no other harm.
fn remove_replaced<D: Disk>(root: &D, in_force: u32) {
    let remove = || {
        for name in root.names()? {
            if generation_of_data(&name).is_some_and(|generation| generation < in_force) {
                root.remove(&name)?;
            }
        }
        Ok(())
    };
    let removed: std::io::Result<()> = remove();
    if let Err(error) = removed {
        log::warn!(
            "files that are replaced are left in {} until the next start: {error}",
            root.path("")
        );
    }
}
