//! All data of a partition replaced by that of a leader: written beside the old, which stays in force until the new is whole.
//!
//! Invariant: whenever the power goes, recovery finds the old data or the new, with the role, epoch and history that belong to it.

use std::collections::VecDeque;

use crate::lsm::{LogPosition, Snapshot};
use crate::planted::{Bug, is_planted};

use super::checkpoint_writer::{CheckpointWriter, checkpoint_version};
use super::disk::Disk;
use super::diverged::DivergedWriter;
use super::generation::Generation;
use super::log_file::first_version_of;
use super::log_writer::LogWriter;
use super::standing::{self, Standing};
use super::{HistoryId, StorageError};

/// What replaces the data.
#[derive(Debug)]
pub struct Replacement {
    /// Counted by whoever asks: one that is begun before another is done takes its place, and is not told as done.
    pub number: u64,
    /// The new data.
    pub snapshot: Snapshot,
    /// Where the partition then stands.
    pub standing: Standing,
    /// The old data, if it has something that the new one lacks.
    pub dropped: Option<Dropped>,
}

/// Data that is dropped, and saved before.
#[derive(Debug)]
pub struct Dropped {
    /// The data.
    pub snapshot: Snapshot,
    /// Its history.
    pub history: HistoryId,
    /// What is not behind this version the new data has too.
    pub common_version: u64,
}

/// A replacement on its way to disk.
#[derive(Debug)]
pub(super) struct ReplacementWriter<D: Disk> {
    number: u64,
    diverged: Option<DivergedWriter<D>>,
    checkpoint: CheckpointWriter<D::File>,
    position: LogPosition,
    disk: Generation<D>,
    standing: Standing,
}

/// What the store goes on with.
pub(super) struct Replaced<D: Disk> {
    pub(super) number: u64,
    pub(super) disk: Generation<D>,
    pub(super) log: LogWriter<D::File>,
    pub(super) checkpoint_version: u64,
}

impl<D: Disk> ReplacementWriter<D> {
    /// Begins to write the next generation of files.
    pub(super) fn begin(
        root: &D,
        generation: u32,
        replacement: Replacement,
    ) -> Result<Self, StorageError> {
        let Replacement {
            number,
            snapshot,
            standing,
            dropped,
        } = replacement;
        let disk = Generation::new(root.clone(), generation);
        let position = snapshot.position();
        let checkpoint = CheckpointWriter::begin(&disk, snapshot, standing.lineage.history())?;
        Ok(Self {
            number,
            diverged: dropped.map(DivergedWriter::begin),
            checkpoint,
            position,
            disk,
            standing,
        })
    }

    /// Changes where the partition will stand.
    pub(super) fn set_standing(&mut self, standing: Standing) {
        self.standing = standing;
    }

    /// Writes the next piece; what the store goes on with when the new data is in force.
    pub(super) fn step(
        &mut self,
        root: &D,
        log_file_bytes: u64,
    ) -> Result<Option<Replaced<D>>, StorageError> {
        if let Some(diverged) = &mut self.diverged {
            if diverged.step(root)? {
                self.diverged = None;
            }
            return Ok(None);
        }
        if !self.checkpoint.step(&self.disk)? {
            return Ok(None);
        }
        let disk = self.disk.clone();
        let history = self.standing.lineage.history();
        let log = LogWriter::start(
            &disk,
            history,
            self.position,
            VecDeque::new(),
            0,
            log_file_bytes,
        )?;
        if is_planted(Bug::OldFilesRemovedFirst) {
            remove_other_generations(&disk)?;
        }
        standing::write(root, &self.standing, disk.number())?;
        remove_other_generations(&disk)?;
        Ok(Some(Replaced {
            number: self.number,
            disk,
            log,
            checkpoint_version: self.position.version,
        }))
    }
}

/// Removes data that is not in force: a replaced one, or one that was never whole.
pub(super) fn remove_other_generations<D: Disk>(disk: &Generation<D>) -> Result<(), StorageError> {
    let is_data = |name: &str| {
        let whole = name.strip_suffix(".tmp").unwrap_or(name);
        first_version_of(whole).is_some() || checkpoint_version(whole).is_some()
    };
    disk.remove_others(is_data)
        .map_err(|error| StorageError::io("removing", disk.path(""), &error))
}
