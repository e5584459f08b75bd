//! Writing the log: batches of records behind one another, marks after syncs, a new file when one
//! is full.
//!
//! Invariants:
//! 1. A file is begun only when all before it is synced, and has its name only when its header is.
//!    Its first record is written when `log-end` names it as the newest file.
//! 2. A mark tells a version only after the sync that covered it returned.
//! 3. A failed sync is final: it is not tried again, since the kernel does not tell what it has
//!    lost (Rebello et al. 2020, "Can Applications Recover from fsync Failures?"). So is a failed
//!    write, unless it failed for lack of room or of descriptors: then nothing of the batch counts
//!    as written, and it may be tried again, over what is there of it.
//!
//! Not here: the layout (`log_file.rs`), when to sync (`store.rs`).

use std::collections::VecDeque;

use crate::lsm::{LogBatch, LogPosition};

use super::disk::{Disk, DiskFile};
use super::error::StorageError;
use super::file_names::log_name_behind;
use super::generation::Generation;
use super::header::{FileHeader, FileKind, HEADER_BYTES};
use super::history_id::HistoryId;
use super::log_end::{DataFiles, LogEnd};
use super::log_file::{MARK_BYTES, encode_mark};

/// A file that would hold more is followed by another. Small enough that recovery reads one at a
/// time into memory.
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

impl LogWriteStats {
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// The log of one partition.
#[derive(Debug)]
pub(super) struct LogWriter<F> {
    /// None until the first one is begun.
    file: Option<F>,
    /// Names of all files, the one written to last, each with the position it was begun at.
    files: VecDeque<(LogPosition, String)>,
    header_checksum: u32,
    history: HistoryId,
    /// Where the next bytes go.
    offset: u64,
    /// Zeros are written up to here.
    zeroed_to: u64,
    /// What is written there; memory that is never touched, and so costs nothing.
    zeros: Box<[u8]>,
    written: LogPosition,
    synced_version: u64,
    is_mark_due: bool,
    /// Bytes of the files before this one.
    older_bytes: u64,
    /// A file that would hold more is followed by another.
    file_max_bytes: u64,
    written_stats: LogWriteStats,
}

impl<F: DiskFile> LogWriter<F> {
    /// A log that goes on at a position that is on disk; `older` are the files before it. Its first
    /// file is begun by the first write, if not by [`begin`](Self::begin).
    pub(super) fn new(
        history: HistoryId,
        position: LogPosition,
        older: VecDeque<(LogPosition, String)>,
        older_bytes: u64,
        file_max_bytes: u64,
    ) -> Self {
        Self {
            file: None,
            files: older,
            header_checksum: 0,
            history,
            offset: 0,
            zeroed_to: 0,
            zeros: vec![0; ZERO_AHEAD_BYTES].into(),
            written: position,
            synced_version: position.version,
            is_mark_due: false,
            older_bytes,
            file_max_bytes,
            written_stats: LogWriteStats::default(),
        }
    }

    /// Begins the next file, behind all that is written, and has `log-end` name it.
    pub(super) fn begin<D: Disk<File = F>>(
        &mut self,
        disk: &Generation<D>,
        log_end: &mut LogEnd<D>,
    ) -> Result<(), StorageError> {
        let next = DataFiles {
            log: Some(self.next_header().id()),
            synced_version: self.synced_version,
            ..log_end.in_force()
        };
        log_end.change(next, || self.begin_unnamed(disk))
    }

    /// The header of the file that is begun next.
    pub(super) fn next_header(&self) -> FileHeader {
        FileHeader::of_log(self.history, self.written)
    }

    /// Begins the next file. That `log-end` names it is left to the caller.
    pub(super) fn begin_unnamed<D: Disk<File = F>>(
        &mut self,
        disk: &D,
    ) -> Result<(), StorageError> {
        let header = self.next_header();
        self.file = Some(begin_file(disk, &header, self.file_max_bytes)?);
        self.header_checksum = header.id().header_checksum;
        self.older_bytes += self.offset;
        // A file without a record gives way to its successor of the same name.
        self.files
            .retain(|(begun_at, _)| begun_at.version < header.position.version);
        self.files
            .push_back((header.position, log_name_behind(header.position.version)));
        self.offset = HEADER_BYTES as u64;
        self.zeroed_to = self.offset;
        self.is_mark_due = false;
        Ok(())
    }

    fn write_at<D: Disk<File = F>>(
        &mut self,
        disk: &D,
        parts: &[&[u8]],
        offset: u64,
    ) -> Result<(), StorageError> {
        let written = match &mut self.file {
            Some(file) => file.write_at(parts, offset),
            None => Ok(()),
        };
        written.map_err(|error| StorageError::io("writing", self.path(disk), &error))
    }

    /// Writes a batch, which continues the log.
    pub(super) fn append<D: Disk<File = F>>(
        &mut self,
        disk: &Generation<D>,
        log_end: &mut LogEnd<D>,
        batch: &LogBatch,
    ) -> Result<(), StorageError> {
        let Some(last) = batch.last() else {
            return Ok(());
        };
        let needed_bytes = (MARK_BYTES + batch.stream_bytes()) as u64;
        let is_over = self.offset + needed_bytes > self.file_max_bytes;
        if self.file.is_none() || (is_over && self.written != self.begun_at()) {
            self.rotate(disk, log_end)?;
        }
        log_end.confirm()?;
        let mark = encode_mark(self.header_checksum, self.offset, self.synced_version);
        let mark_parts = if self.is_mark_due {
            &[&mark[..]][..]
        } else {
            &[]
        };
        let parts: Vec<&[u8]> = mark_parts.iter().copied().chain(batch.parts()).collect();
        // What fails half-way is written over by the next try, from here on.
        self.write_at(disk, &parts, self.offset)?;
        let bytes = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        self.offset += bytes;
        self.written_stats.count += 1;
        self.written_stats.bytes += bytes;
        self.is_mark_due = false;
        self.written = last;
        self.write_zeros_ahead(disk)
    }

    fn write_zeros_ahead<D: Disk<File = F>>(&mut self, disk: &D) -> Result<(), StorageError> {
        self.zeroed_to = self.zeroed_to.max(self.offset);
        let is_near = self.offset + (ZERO_AHEAD_BYTES / 2) as u64 > self.zeroed_to;
        let room = self
            .file_max_bytes
            .saturating_sub(self.zeroed_to)
            .min(ZERO_AHEAD_BYTES as u64);
        if is_near && room > 0 {
            let zeros = std::mem::take(&mut self.zeros);
            let written = self.write_at(
                disk,
                &[&zeros[..usize::try_from(room).unwrap_or(0)]],
                self.zeroed_to,
            );
            self.zeros = zeros;
            match written {
                Ok(()) => {}
                // Without room for them a sync takes longer, and nothing else.
                Err(error) if error.is_passing() => return Ok(()),
                Err(error) => return Err(error),
            }
            self.zeroed_to += room;
            self.written_stats.bytes += room;
        }
        Ok(())
    }

    /// Makes everything written last; returns the version up to which it is on disk.
    pub(super) fn sync<D: Disk<File = F>>(&mut self, disk: &D) -> Result<u64, StorageError> {
        if self.synced_version < self.written.version {
            if let Some(file) = &mut self.file {
                let synced = file.sync();
                synced.map_err(|error| StorageError::sync(self.path(disk), &error))?;
            }
            self.synced_version = self.written.version;
            self.is_mark_due = true;
        }
        Ok(self.synced_version)
    }

    /// Writes the mark that the last sync has earned, if nothing follows that would bring it along.
    pub(super) fn write_mark<D: Disk<File = F>>(&mut self, disk: &D) -> Result<(), StorageError> {
        if std::mem::take(&mut self.is_mark_due) {
            let mark = encode_mark(self.header_checksum, self.offset, self.synced_version);
            match self.write_at(disk, &[&mark], self.offset) {
                Ok(()) => {}
                // The next sync earns another one.
                Err(error) if error.is_passing() => return Ok(()),
                Err(error) => return Err(error),
            }
            self.offset += MARK_BYTES as u64;
            self.written_stats.bytes += MARK_BYTES as u64;
        }
        Ok(())
    }

    fn rotate<D: Disk<File = F>>(
        &mut self,
        disk: &Generation<D>,
        log_end: &mut LogEnd<D>,
    ) -> Result<(), StorageError> {
        self.sync(disk)?;
        // Gives back the room that was not needed; that this lasts is of no importance.
        if let Some(file) = &mut self.file {
            let cut = file.truncate(self.offset);
            cut.map_err(|error| StorageError::io("truncating", self.path(disk), &error))?;
            self.zeroed_to = self.offset;
        }
        self.begin(disk, log_end)
    }

    /// Removes files that hold nothing behind `version`.
    pub(super) fn remove_up_to<D: Disk>(
        &mut self,
        disk: &D,
        version: u64,
    ) -> Result<(), StorageError> {
        while self
            .files
            .get(1)
            .is_some_and(|(begun_at, _)| begun_at.version <= version)
        {
            let Some((_, name)) = self.files.pop_front() else {
                break;
            };
            let bytes = disk
                .open(&name)
                .and_then(|file| file.len_bytes())
                .unwrap_or(0);
            disk.remove(&name)
                .map_err(|error| StorageError::io("removing", disk.path(&name), &error))?;
            self.older_bytes = self.older_bytes.saturating_sub(bytes);
        }
        Ok(())
    }

    /// The lineage of its records.
    pub(super) fn history(&self) -> HistoryId {
        self.history
    }

    /// The lineage of what is written from now on; files that are begun then say so.
    pub(super) fn set_history(&mut self, history: HistoryId) {
        self.history = history;
    }

    /// A file that would hold more is followed by another.
    pub(super) fn file_max_bytes(&self) -> u64 {
        self.file_max_bytes
    }

    /// Version up to which records are written, synced or not.
    pub(super) fn written_version(&self) -> u64 {
        self.written.version
    }

    /// Version up to which records are synced.
    pub(super) fn synced_version(&self) -> u64 {
        self.synced_version
    }

    /// What it has written.
    pub(super) fn written(&self) -> LogWriteStats {
        self.written_stats
    }

    /// Whether a sync has earned a mark that is not written yet.
    pub(super) fn is_mark_due(&self) -> bool {
        self.is_mark_due
    }

    /// Bytes of all files, room not counted.
    pub(super) fn file_bytes(&self) -> u64 {
        self.older_bytes + self.offset
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

    /// The path of the file that is written to.
    fn path<D: Disk>(&self, disk: &D) -> String {
        disk.path(self.files.back().map_or("", |(_, name)| name))
    }
}

/// Makes a file with a synced header, under its name.
fn begin_file<D: Disk>(
    disk: &D,
    header: &FileHeader,
    room_bytes: u64,
) -> Result<D::File, StorageError> {
    let name = log_name_behind(header.position.version);
    let draft = format!("{name}.tmp");
    let (bytes, _) = header.encode(FileKind::Log);
    let begin = || {
        let mut file = disk.create(&draft, room_bytes)?;
        file.write_at(&[&bytes], 0)?;
        file.sync()?;
        disk.rename(&draft, &name)?;
        Ok(file)
    };
    begin().map_err(|error| {
        // What there is of it takes room that may be wanted.
        let _ = disk.remove(&draft);
        StorageError::io("beginning", disk.path(&name), &error)
    })
}
