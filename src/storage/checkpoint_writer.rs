//! A checkpoint on its way to disk, a piece at a time.
//!
//! Invariant: a file has a checkpoint's name only when all of it is synced. The checkpoint before
//! it, and the log that it covers, are removed when `log-end` says that the new one is in force.

use crate::lsm::Snapshot;

use super::checkpoint::{CheckpointEncoder, CodecStep};
use super::disk::{Disk, OnFile};
use super::draft::Draft;
use super::error::StorageError;
use super::file_names::{checkpoint_name, checkpoint_version};
use super::header::FileHeader;
use super::history_id::HistoryId;

/// Written and synced in one step: what a commit that comes meanwhile waits for, about a
/// millisecond.
const STEP_BYTES: usize = 512 * 1024;

/// The writer of one checkpoint.
#[derive(Debug)]
pub(super) struct CheckpointWriter<D: Disk> {
    encoder: CheckpointEncoder,
    draft: Draft<D>,
    /// Encoded, and not written yet.
    buffer: Vec<u8>,
    is_encoded: bool,
}

impl<D: Disk> CheckpointWriter<D> {
    pub(super) fn new(disk: D, snapshot: Snapshot, history: HistoryId) -> Self {
        Self::of(disk, CheckpointEncoder::new(snapshot, history))
    }

    /// The writer of what an encoder that has not begun yet encodes.
    pub(super) fn of(disk: D, encoder: CheckpointEncoder) -> Self {
        let name = checkpoint_name(encoder.header.position.version);
        Self {
            encoder,
            draft: Draft::new(disk, name, 0),
            buffer: Vec::new(),
            is_encoded: false,
        }
    }

    /// Its header.
    pub(super) fn header(&self) -> &FileHeader {
        &self.encoder.header
    }

    /// Writes and syncs the next piece; true when that was the last one. After an error the same
    /// piece can be tried again.
    pub(super) fn step(&mut self) -> Result<bool, StorageError> {
        if self.buffer.is_empty() && !self.is_encoded {
            self.is_encoded = self.encoder.next(STEP_BYTES, &mut self.buffer) == CodecStep::Done;
        }
        self.draft.append_all(&mut self.buffer)?;
        Ok(self.is_encoded)
    }

    /// Gives the checkpoint its name once all of it is written; when this returns, it is durable.
    pub(super) fn put_in_place(&mut self) -> Result<(), StorageError> {
        self.draft.put_in_place()
    }

    /// Gives up, and removes what was written.
    pub(super) fn remove(self) {
        self.draft.remove();
    }
}

/// Removes checkpoints of older versions than that of the one in force.
pub(super) fn remove_older<D: Disk>(disk: &D, version: u64) -> Result<(), StorageError> {
    let names = disk.list()?;
    let is_older = |name: &&String| checkpoint_version(name).is_some_and(|older| older < version);
    for name in names.iter().filter(is_older) {
        disk.remove(name).on("removing", disk, name)?;
    }
    Ok(())
}
