//! All data of a partition replaced by that of a leader: written beside the old, which stays in
//! force until the new is whole.
//!
//! Invariant: whenever the power goes, recovery finds the old data or the new, with the role, epoch
//! and history that belong to it.

use std::collections::VecDeque;

use crate::lsm::{LogPosition, Snapshot};
use crate::seeded_bugs::SeededBug;

use super::checkpoint_writer::CheckpointWriter;
use super::disk::Disk;
use super::diverged::{DivergedData, DivergedWriter};
use super::error::StorageError;
use super::generation::{Generation, generation_of_data};
use super::log_end::{DataFiles, LogEnd};
use super::log_writer::LogWriter;
use super::partition_meta::{self, PartitionMeta};

/// What replaces the data.
#[derive(Debug)]
pub struct Replacement {
    /// Sequence number from the caller. A later replacement supersedes an unfinished one, whose
    /// completion is ignored.
    pub number: u64,
    /// The new data.
    pub snapshot: Snapshot,
    /// Where the partition then stands.
    pub meta: PartitionMeta,
    /// The old data, if it has something that the new one lacks.
    pub dropped: Option<DivergedData>,
}

/// A replacement on its way to disk.
#[derive(Debug)]
pub(super) struct ReplacementWriter<D: Disk> {
    number: u64,
    diverged: Option<DivergedWriter<D>>,
    checkpoint: CheckpointWriter<D::File>,
    position: LogPosition,
    /// The generation that is written; none until it is announced.
    disk: Option<Generation<D>>,
    meta: PartitionMeta,
}

/// What the store goes on with.
pub(super) struct CompletedReplacement<D: Disk> {
    pub(super) number: u64,
    pub(super) disk: Generation<D>,
    pub(super) log: LogWriter<D::File>,
}

impl<D: Disk> ReplacementWriter<D> {
    pub(super) fn new(replacement: Replacement) -> Self {
        let Replacement {
            number,
            snapshot,
            meta,
            dropped,
        } = replacement;
        Self {
            number,
            diverged: dropped.map(DivergedWriter::begin),
            position: snapshot.position(),
            checkpoint: CheckpointWriter::new(snapshot, meta.lineage.history()),
            disk: None,
            meta,
        }
    }

    /// The generation to write, announced: newer than any in the folder.
    fn disk(&mut self, root: &D, log_end: &mut LogEnd<D>) -> Result<Generation<D>, StorageError> {
        if let Some(disk) = &self.disk {
            return Ok(disk.clone());
        }
        let names = root
            .names()
            .map_err(|error| StorageError::io("listing", root.path(""), &error))?;
        let newest = names
            .iter()
            .filter_map(|name| generation_of_data(name))
            .max();
        let generation = newest.unwrap_or(0).max(log_end.in_force().generation) + 1;
        log_end.announce_draft(generation)?;
        let disk = Generation::new(root.clone(), generation);
        Ok(self.disk.insert(disk).clone())
    }

    /// Changes where the partition will stand.
    pub(super) fn set_meta(&mut self, meta: PartitionMeta) {
        self.meta = meta;
    }

    /// Writes the next piece; what the store goes on with when the new data is in force. After a
    /// shortage the same piece can be tried again.
    pub(super) fn step(
        &mut self,
        root: &D,
        log_end: &mut LogEnd<D>,
        log_file_bytes: u64,
    ) -> Result<Option<CompletedReplacement<D>>, StorageError> {
        if let Some(diverged) = &mut self.diverged {
            if diverged.step(root)? {
                self.diverged = None;
            }
            return Ok(None);
        }
        let disk = self.disk(root, log_end)?;
        if !self.checkpoint.step(&disk)? {
            return Ok(None);
        }
        self.checkpoint.put_in_place(&disk)?;
        let history = self.meta.lineage.history();
        let mut log = LogWriter::new(history, self.position, VecDeque::new(), 0, log_file_bytes);
        let log_id = log.next_header().id();
        log.begin_unnamed(&disk)?;
        if SeededBug::OldFilesRemovedFirst.is_on() {
            remove_replaced(root, disk.number());
        }
        let files = DataFiles {
            generation: disk.number(),
            metadata: Some(partition_meta::checksum(&self.meta, disk.number())),
            checkpoint: Some(self.checkpoint.header().id()),
            log: Some(log_id),
            synced_version: self.position.version,
        };
        log_end.change(files, || {
            partition_meta::write(root, &self.meta, disk.number())
        })?;
        remove_replaced(root, disk.number());
        Ok(Some(CompletedReplacement {
            number: self.number,
            disk,
            log,
        }))
    }
}

/// Removes log and checkpoints of the generations before the one in force. What cannot be removed
/// takes room until the next start, and harms nothing else.
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
