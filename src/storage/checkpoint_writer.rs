//! A checkpoint on its way to disk, a piece at a time: a draft, synced as it grows, then renamed.
//!
//! Invariant: a file has a checkpoint's name only when all of it is synced; the one before it and
//! the log it covers go when `log-end` says that the new one is in force.

use crate::lsm::Snapshot;

use super::checkpoint::{CheckpointEncoder, EncodeStep};
use super::disk::{Disk, DiskFile};
use super::error::StorageError;
use super::file_names::{checkpoint_name, checkpoint_version};
use super::header::FileHeader;
use super::history_id::HistoryId;

/// Written and synced in one step: what a commit that comes meanwhile waits for, about a
/// millisecond.
const STEP_BYTES: usize = 512 * 1024;

/// The draft.
#[derive(Debug)]
pub(super) struct CheckpointWriter<F> {
    encoder: CheckpointEncoder,
    /// Made by the first step.
    file: Option<F>,
    name: String,
    draft: String,
    offset: u64,
    /// Encoded, and not written yet.
    buffer: Vec<u8>,
    is_encoded: bool,
    is_named: bool,
}

impl<F: DiskFile> CheckpointWriter<F> {
    pub(super) fn new(snapshot: Snapshot, history: HistoryId) -> Self {
        let name = checkpoint_name(snapshot.version());
        Self {
            encoder: CheckpointEncoder::new(snapshot, history),
            file: None,
            draft: format!("{name}.tmp"),
            name,
            offset: 0,
            buffer: Vec::new(),
            is_encoded: false,
            is_named: false,
        }
    }

    /// Its header.
    pub(super) fn header(&self) -> &FileHeader {
        self.encoder.header()
    }

    /// Writes and syncs the next piece; true when that was the last one. After an error the same
    /// piece can be tried again.
    pub(super) fn step<D: Disk<File = F>>(&mut self, disk: &D) -> Result<bool, StorageError> {
        self.write(disk)
            .map_err(|error| StorageError::io("writing", disk.path(&self.draft), &error))
    }

    fn write<D: Disk<File = F>>(&mut self, disk: &D) -> std::io::Result<bool> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(disk.create(&self.draft, 0)?),
        };
        if self.buffer.is_empty() && !self.is_encoded {
            self.is_encoded = self.encoder.next(STEP_BYTES, &mut self.buffer) == EncodeStep::Done;
        }
        if !self.buffer.is_empty() {
            file.write_at(&[&self.buffer], self.offset)?;
            file.sync()?;
            self.offset += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(self.is_encoded)
    }

    /// Gives it its name once all of it is written; when this returns, that is durable.
    pub(super) fn put_in_place<D: Disk<File = F>>(&mut self, disk: &D) -> Result<(), StorageError> {
        if !self.is_named {
            disk.rename(&self.draft, &self.name)
                .map_err(|error| StorageError::io("renaming", disk.path(&self.draft), &error))?;
            self.is_named = true;
        }
        Ok(())
    }

    /// Removes the draft, as far as that can be done.
    pub(super) fn give_up<D: Disk<File = F>>(self, disk: &D) {
        drop(self.file);
        let _ = disk.remove(&self.draft);
    }

    /// Removes checkpoints of older versions, once this one has its name.
    pub(super) fn remove_older<D: Disk>(disk: &D, version: u64) -> Result<(), StorageError> {
        let names = disk
            .names()
            .map_err(|error| StorageError::io("listing", disk.path(""), &error))?;
        for name in names
            .iter()
            .filter(|name| checkpoint_version(name).is_some_and(|older| older < version))
        {
            disk.remove(name)
                .map_err(|error| StorageError::io("removing", disk.path(name), &error))?;
        }
        Ok(())
    }
}
