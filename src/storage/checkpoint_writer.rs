//! A checkpoint on its way to disk, a piece at a time: a draft, synced as it grows, then renamed.
//!
//! Invariant: a file has a checkpoint's name only when all of it is synced; the one before it and the
//! log it covers go when `log-end` says that the new one is in force.

use crate::lsm::Snapshot;

use super::checkpoint::{CheckpointEncoder, EncodeStep};
use super::disk::{Disk, DiskFile};
use super::header::FileHeader;
use super::{HistoryId, StorageError};

/// Written and synced in one step: what a commit that comes meanwhile waits for, about a millisecond.
const STEP_BYTES: usize = 512 * 1024;

/// The name of the checkpoint of a version.
pub(super) fn checkpoint_name(version: u64) -> String {
    format!("checkpoint-{version:020}.dbn")
}

/// The version of the checkpoint with this name.
pub(super) fn checkpoint_version(name: &str) -> Option<u64> {
    super::version_in_name(name, "checkpoint-", ".dbn")
}

/// The draft.
#[derive(Debug)]
pub(super) struct CheckpointWriter<F> {
    encoder: CheckpointEncoder,
    file: F,
    name: String,
    draft: String,
    offset: u64,
    buffer: Vec<u8>,
}

impl<F: DiskFile> CheckpointWriter<F> {
    pub(super) fn begin<D: Disk<File = F>>(
        disk: &D,
        snapshot: Snapshot,
        history: HistoryId,
    ) -> Result<Self, StorageError> {
        let name = checkpoint_name(snapshot.version());
        let draft = format!("{name}.tmp");
        let file = disk
            .create(&draft, 0)
            .map_err(|error| StorageError::io("beginning", disk.path(&draft), &error))?;
        let encoder = CheckpointEncoder::new(snapshot, history);
        Ok(Self {
            encoder,
            file,
            name,
            draft,
            offset: 0,
            buffer: Vec::new(),
        })
    }

    /// Its header.
    pub(super) fn header(&self) -> &FileHeader {
        self.encoder.header()
    }

    /// Writes and syncs the next piece; true when that was the last one.
    pub(super) fn step<D: Disk<File = F>>(&mut self, disk: &D) -> Result<bool, StorageError> {
        self.write()
            .map_err(|error| StorageError::io("writing", disk.path(&self.draft), &error))
    }

    fn write(&mut self) -> std::io::Result<bool> {
        self.buffer.clear();
        let step = self.encoder.next(STEP_BYTES, &mut self.buffer);
        self.file.write_at(&[&self.buffer], self.offset)?;
        self.offset += self.buffer.len() as u64;
        if !self.buffer.is_empty() {
            self.file.sync()?;
        }
        Ok(step == EncodeStep::Done)
    }

    /// Gives it its name once all of it is written; when this returns, that is durable.
    pub(super) fn put_in_place<D: Disk<File = F>>(&self, disk: &D) -> Result<(), StorageError> {
        disk.rename(&self.draft, &self.name)
            .and_then(|()| disk.sync_names())
            .map_err(|error| StorageError::io("renaming", disk.path(&self.draft), &error))
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
