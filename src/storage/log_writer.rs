//! The writer of the log: batches of records one behind the other, a mark after each sync, a new
//! file when one is full.
//!
//! Invariants:
//! 1. A file is begun only when all before it is synced, and has its name only when its header is.
//!    Its first record is written when `log-end` names it as the newest file.
//! 2. A mark is written only after the sync that covers its version has returned.
//! 3. A failed sync is final, and not tried again: it is not known what is lost (Rebello et al.
//!    2020, "Can Applications Recover from fsync Failures?"). So is a failed write, unless room or
//!    descriptors are short: then nothing of the batch counts as written, and the next try writes
//!    over what is there of it.
//!
//! Not here: the layout (`log_file.rs`), when to sync (`store.rs`).

use std::collections::VecDeque;

use crate::lsm::{LogBatch, LogPosition};

use super::disk::{Disk, DiskFile, OnFile};
use super::draft::write_file;
use super::error::{StorageError, shortage};
use super::file_names::log_name_behind;
use super::generation::Generation;
use super::header::{FileHeader, HEADER_BYTES};
use super::history_id::HistoryId;
use super::log_end::{DataFiles, LogEnd};
use super::log_file::{MARK_BYTES, encode_mark};

/// The longest log file: small enough that recovery reads a whole one into memory.
pub const LOG_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Zeros written ahead of the records at a time.
const ZERO_AHEAD_BYTES: usize = 256 * 1024;

/// What was written to a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogWriteStats {
    /// Writes of batches; each may be several system calls.
    pub count: u64,
    /// Bytes of records, marks, and zeros written ahead of them.
    pub bytes: u64,
}

/// The log of one partition.
#[derive(Debug)]
pub(super) struct LogWriter<D: Disk> {
    /// The generation of its files.
    pub(super) disk: Generation<D>,
    /// The file that is written to; none until the first one is begun.
    file: Option<D::File>,
    /// Names of all files, oldest first, each with the position that it was begun at.
    files: VecDeque<(LogPosition, String)>,
    header_checksum: u32,
    /// The history of the next records, which the header of the next file names.
    pub(super) history: HistoryId,
    /// Offset of the next bytes.
    offset: u64,
    /// Offset up to which zeros are written.
    zeroed_to: u64,
    /// The zeros to write: memory that is never touched, and so costs nothing.
    zeros: Box<[u8]>,
    written: LogPosition,
    /// Version up to which records are synced.
    pub(super) synced_version: u64,
    /// Whether the mark of the last sync is not written yet.
    pub(super) is_mark_due: bool,
    /// Bytes of the files before the one that is written to.
    older_bytes: u64,
    /// A file that would become longer is followed by another one.
    pub(super) file_max_bytes: u64,
    /// What was written since the start.
    pub(super) stats: LogWriteStats,
}

impl<D: Disk> LogWriter<D> {
    /// A log that goes on at a position that is durable; `older` are the files before it. The first
    /// write begins a file, if [`begin`](Self::begin) has not.
    pub(super) fn new(
        disk: Generation<D>,
        history: HistoryId,
        position: LogPosition,
        file_max_bytes: u64,
    ) -> Self {
        Self {
            disk,
            file: None,
            files: VecDeque::new(),
            header_checksum: 0,
            history,
            offset: 0,
            zeroed_to: 0,
            zeros: vec![0; ZERO_AHEAD_BYTES].into(),
            written: position,
            synced_version: position.version,
            is_mark_due: false,
            older_bytes: 0,
            file_max_bytes,
            stats: LogWriteStats::default(),
        }
    }

    /// Names the files of the log that are there, and where each begins.
    pub(super) fn go_on_behind(&mut self, files: VecDeque<(LogPosition, String)>, bytes: u64) {
        (self.files, self.older_bytes) = (files, bytes);
    }

    /// Begins the next file, behind all that is written, and names it in `log-end`.
    pub(super) fn begin(&mut self, log_end: &mut LogEnd<D>) -> Result<(), StorageError> {
        let next = DataFiles {
            log: Some(self.next_header().id()),
            synced_version: self.synced_version,
            ..log_end.in_force()
        };
        log_end.change(next, || self.begin_unnamed())
    }

    /// The header of the file that is begun next.
    pub(super) fn next_header(&self) -> FileHeader {
        FileHeader::of_log(self.history, self.written)
    }

    /// Begins the next file. The caller names it in `log-end`.
    pub(super) fn begin_unnamed(&mut self) -> Result<(), StorageError> {
        let header = self.next_header();
        let name = log_name_behind(header.position.version);
        let (bytes, header_checksum) = header.encode();
        let file = write_file(&self.disk, &name, &bytes, self.file_max_bytes);
        self.file = Some(file.map_err(|error| error.for_room(self.file_max_bytes))?);
        self.header_checksum = header_checksum;
        self.older_bytes += self.offset;
        // A file without a record gives way to its successor of the same name.
        self.files
            .retain(|(begun_at, _)| begun_at.version < header.position.version);
        self.files.push_back((header.position, name));
        self.offset = HEADER_BYTES as u64;
        self.zeroed_to = self.offset;
        self.is_mark_due = false;
        Ok(())
    }

    fn write_at(&mut self, parts: &[&[u8]], offset: u64) -> Result<(), StorageError> {
        let written = match &mut self.file {
            Some(file) => file.write_at(parts, offset),
            None => Ok(()),
        };
        written.on("writing", &self.disk, self.name())
    }

    /// Writes a batch, which continues the log.
    pub(super) fn append(
        &mut self,
        log_end: &mut LogEnd<D>,
        batch: &LogBatch,
    ) -> Result<(), StorageError> {
        let Some(last) = batch.last() else {
            return Ok(());
        };
        let needed_bytes = (MARK_BYTES + batch.stream_bytes()) as u64;
        let is_over = self.offset + needed_bytes > self.file_max_bytes;
        if self.file.is_none() || (is_over && self.written != self.begun_at()) {
            self.rotate(log_end)?;
        }
        log_end.confirm()?;
        let mark = encode_mark(self.header_checksum, self.offset, self.synced_version);
        let mark_parts = if self.is_mark_due {
            &[&mark[..]][..]
        } else {
            &[]
        };
        let parts: Vec<&[u8]> = mark_parts.iter().copied().chain(batch.parts()).collect();
        // After an error, the next try writes over this one: the offset stays.
        self.write_at(&parts, self.offset)?;
        let bytes = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        self.offset += bytes;
        self.stats.count += 1;
        self.stats.bytes += bytes;
        self.is_mark_due = false;
        self.written = last;
        self.write_zeros_ahead()
    }

    fn write_zeros_ahead(&mut self) -> Result<(), StorageError> {
        self.zeroed_to = self.zeroed_to.max(self.offset);
        let is_near = self.offset + (ZERO_AHEAD_BYTES / 2) as u64 > self.zeroed_to;
        let room = self
            .file_max_bytes
            .saturating_sub(self.zeroed_to)
            .min(ZERO_AHEAD_BYTES as u64);
        if is_near && room > 0 {
            let zeros = std::mem::take(&mut self.zeros);
            let ahead = &zeros[..usize::try_from(room).unwrap_or(0)];
            let written = self.write_at(&[ahead], self.zeroed_to);
            self.zeros = zeros;
            // Without room for the zeros a sync takes longer, and nothing else.
            if shortage(written)?.is_none() {
                self.zeroed_to += room;
                self.stats.bytes += room;
            }
        }
        Ok(())
    }

    /// Makes everything written durable; returns the version of it.
    pub(super) fn sync(&mut self) -> Result<u64, StorageError> {
        if self.has_unsynced() {
            if let Some(file) = &mut self.file {
                let synced = file.sync();
                let synced = synced.on("syncing", &self.disk, self.name());
                synced.map_err(StorageError::into_final)?;
            }
            self.synced_version = self.written.version;
            self.is_mark_due = true;
        }
        Ok(self.synced_version)
    }

    /// Writes the mark of the last sync, if no batch has brought it along.
    pub(super) fn write_mark(&mut self) -> Result<(), StorageError> {
        if std::mem::take(&mut self.is_mark_due) {
            let mark = encode_mark(self.header_checksum, self.offset, self.synced_version);
            // Without room for the mark, the next sync earns another one.
            if shortage(self.write_at(&[&mark], self.offset))?.is_none() {
                self.offset += MARK_BYTES as u64;
                self.stats.bytes += MARK_BYTES as u64;
            }
        }
        Ok(())
    }

    fn rotate(&mut self, log_end: &mut LogEnd<D>) -> Result<(), StorageError> {
        self.sync()?;
        // Gives back the room that was not needed. This need not be durable.
        if let Some(file) = &mut self.file {
            let cut = file.truncate(self.offset);
            cut.on("truncating", &self.disk, self.name())?;
            self.zeroed_to = self.offset;
        }
        self.begin(log_end)
    }

    /// Removes files that hold nothing behind `version`.
    pub(super) fn remove_up_to(&mut self, version: u64) -> Result<(), StorageError> {
        while let Some((begun_at, _)) = self.files.get(1)
            && begun_at.version <= version
            && let Some((_, name)) = self.files.pop_front()
        {
            let file = self.disk.open(&name);
            let bytes = file.and_then(|file| file.len_bytes()).unwrap_or(0);
            self.disk.remove(&name).on("removing", &self.disk, &name)?;
            self.older_bytes = self.older_bytes.saturating_sub(bytes);
        }
        Ok(())
    }

    /// Version up to which records are written, synced or not.
    pub(super) fn written_version(&self) -> u64 {
        self.written.version
    }

    /// Whether something is written and not synced.
    pub(super) fn has_unsynced(&self) -> bool {
        self.synced_version < self.written.version
    }

    /// Bytes of all files, without room that is not used.
    pub(super) fn file_bytes(&self) -> u64 {
        self.older_bytes + self.offset
    }

    /// Bytes, at least, of the files before the last one.
    pub(super) fn freeable_bytes(&self) -> u64 {
        // Until a file is begun, the last one is among the older ones.
        let last_max_bytes = if self.is_begun() {
            0
        } else {
            self.file_max_bytes
        };
        self.older_bytes.saturating_sub(last_max_bytes)
    }

    /// Whether there is a file to write to. The first write begins one too.
    pub(super) fn is_begun(&self) -> bool {
        self.file.is_some()
    }

    /// Number of files.
    pub(super) fn file_count(&self) -> usize {
        self.files.len()
    }

    fn begun_at(&self) -> LogPosition {
        self.files
            .back()
            .map_or(self.written, |(begun_at, _)| *begun_at)
    }

    /// The name of the file that is written to.
    fn name(&self) -> &str {
        self.files.back().map_or("", |(_, name)| name)
    }
}
