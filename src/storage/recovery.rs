//! Recovery: from files to an engine. The newest checkpoint is loaded, then the log behind it is
//! replayed.
//!
//! Where the log ends in a broken record, one question decides: had the record been synced? Marks
//! and headers of later files answer it (`log_file.rs`), and so does `log-end` (`log_end.rs`). If
//! it had not, the power failed while the record was written, no client had an answer, and the tail
//! is cut off. If it had, the disk has lost data: the node refuses to start, unless the loss is
//! accepted; then everything behind the damage is set aside.
//!
//! Invariants:
//! 1. The result is a state that the partition was once in, with all synced writes and no batch
//!    cut, or an error.
//! 2. Only drafts, torn tails, and files that a later checkpoint or generation replaces are
//!    removed.
//! 3. Memory holds one log file at a time, and at most [`FROZEN_MAX`] memtables that wait to be
//!    flushed.

use std::collections::VecDeque;
use std::fmt;

use crate::config::Fsync;
use crate::lsm::{EngineBuilder, KeyHasher, LogPosition, Lsm, Options, RecordError, StreamRecord};
use crate::seeded_bugs::SeededBug;

use super::checkpoint::{CheckpointDecoder, CodecStep};
use super::checkpoint_writer::{CheckpointWriter, remove_older};
use super::copy_id::CopyId;
use super::disk::{Disk, DiskFile, OnFile};
use super::draft::write_file;
use super::error::{FormatError, StorageError, shortage};
use super::file_names::{
    checkpoint_name, checkpoint_version, log_first_version, log_name, log_name_behind,
};
use super::generation::Generation;
use super::header::{FileHeader, FileId, FileKind, HEADER_BYTES};
use super::history_id::HistoryId;
use super::inventory::{self, Losses, free_name, lost, other_version, read_header};
use super::lineage::Lineage;
use super::log_end::{DataFiles, LogEnd};
use super::log_file::{MARK_BYTES, mark_at, synced_version_behind};
use super::log_writer::LogWriter;
use super::partition_meta::{self, PartitionMeta, Role};
use super::store::Store;

/// Memtables that may wait to be flushed while the log is replayed: replay is not held up, and
/// memory stays bounded.
const FROZEN_MAX: usize = 16;

/// Maintenance work done at once when there are more.
const CATCH_UP_WORK: usize = 16 * 1024 * 1024;

/// Options of recovery.
#[derive(Clone, Copy, Debug)]
pub struct RecoveryOptions {
    /// Options of the engine; its hash seed is used only if there is no checkpoint.
    pub engine: Options,
    /// The history of a new directory, or after an accepted loss; random.
    pub fresh_history: HistoryId,
    /// The id of the copy, unless the one that is stored can be kept; random.
    pub fresh_copy: CopyId,
    /// When the log is synced from now on.
    pub fsync: Fsync,
    /// Goes on without damaged and missing data.
    pub accept_data_loss: bool,
    /// The longest log file: [`LOG_FILE_BYTES`](super::LOG_FILE_BYTES).
    pub log_file_bytes: u64,
}

/// How far recovery has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryProgress {
    /// Bytes of files read.
    pub done_bytes: u64,
    /// Bytes there are to read.
    pub total_bytes: u64,
}

impl RecoveryProgress {
    /// The progress in whole percent; 0 while the total is not known.
    pub fn percent(&self) -> u64 {
        (self.done_bytes.min(self.total_bytes) * 100)
            .checked_div(self.total_bytes)
            .unwrap_or(0)
    }
}

impl fmt::Display for RecoveryProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} % of {} MiB",
            self.percent(),
            self.total_bytes.div_ceil(1 << 20)
        )
    }
}

/// A tail of the log that was never complete, and is cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub path: String,
    /// Where the file was cut.
    pub offset: u64,
    /// Bytes that were cut off.
    pub dropped_bytes: u64,
}

/// The result of recovery.
#[derive(Debug)]
pub struct RecoveredPartition<D: Disk> {
    /// The engine.
    pub lsm: Lsm,
    /// The files, ready for more writes.
    pub store: Store<D>,
    /// The metadata, if there is any; else the history of the log goes on.
    pub meta: Option<PartitionMeta>,
    /// The history that goes on.
    pub history: HistoryId,
    /// The id of the copy, which the metadata has, too.
    pub copy: CopyId,
    /// Whether the metadata on disk has it.
    pub is_copy_stored: bool,
    /// What was found.
    pub report: RecoveryReport,
}

/// What recovery found, and what it had to leave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Version of the checkpoint; 0: there was none.
    pub checkpoint_version: u64,
    /// Records replayed from the log.
    pub replayed_count: u64,
    /// The tail that was cut off, if any.
    pub torn: Option<TornTail>,
    /// What was lost, as accepted, one line each.
    pub losses: Vec<String>,
    /// What an accepted loss set aside.
    pub set_aside: Vec<String>,
    /// Why the log cannot go on yet, if room or descriptors are short.
    pub shortage: Option<StorageError>,
}

/// How the records of a file end.
enum LogTail {
    /// With zeros, or with the end of the file.
    Clean,
    /// With bytes that are no record, for this reason.
    Bad(&'static str),
}

struct Recovery<'p, D: Disk> {
    root: D,
    /// The generation of files in force.
    disk: Generation<D>,
    meta: Option<PartitionMeta>,
    /// The files that `log-end` names, if there is one.
    in_force: Option<DataFiles>,
    options: RecoveryOptions,
    on_progress: &'p mut dyn FnMut(RecoveryProgress),
    progress: RecoveryProgress,
    torn: Option<TornTail>,
    losses: Losses,
    replayed_count: u64,
}

/// The result of replaying the log.
#[derive(Default)]
struct ReplayedLog {
    /// The history of the last file.
    history: Option<HistoryId>,
    /// The files that stay, and where each begins.
    kept: VecDeque<(LogPosition, String)>,
    kept_bytes: u64,
}

/// Recovers a partition from its directory, an empty one too.
pub fn recover<D: Disk>(
    root: D,
    options: RecoveryOptions,
    on_progress: &mut dyn FnMut(RecoveryProgress),
) -> Result<RecoveredPartition<D>, StorageError> {
    let mut losses = Losses::new(options.accept_data_loss);
    let found = inventory::take(&root, &mut losses)?;
    let (meta, metadata) = found
        .stored
        .map(|stored| (stored.meta, stored.checksum))
        .unzip();
    let recovery = Recovery {
        root,
        disk: found.disk,
        meta,
        in_force: found.in_force,
        options,
        on_progress,
        progress: RecoveryProgress::default(),
        torn: None,
        losses,
        replayed_count: 0,
    };
    let (checkpoint, log_end) = (found.checkpoint, found.log_end);
    recovery.run(checkpoint, &found.logs, &found.obsolete, log_end, metadata)
}

impl<D: Disk> Recovery<'_, D> {
    fn run(
        mut self,
        checkpoint: Option<u64>,
        logs: &[u64],
        obsolete: &[String],
        mut log_end: Option<LogEnd<D>>,
        mut metadata: Option<u32>,
    ) -> Result<RecoveredPartition<D>, StorageError> {
        // Log files with all of their records in the checkpoint are not read.
        let covered_count = |version: u64| {
            logs.partition_point(|first| *first <= version + 1)
                .saturating_sub(1)
        };
        let names: Vec<String> = logs.iter().map(|first| log_name(*first)).collect();
        self.count_bytes(checkpoint, &names[covered_count(checkpoint.unwrap_or(0))..])?;

        let (mut lsm, history, is_salvaged) = self.load(checkpoint, &names)?;
        let (covered, logs) = names.split_at(covered_count(lsm.last_version()));
        let replayed = self.replay(&mut lsm, logs)?;
        let (copy, is_copy_stored) = self.name_copy(log_end.as_mut())?;
        self.remove_obsolete(obsolete)?;
        if self.losses.any() {
            metadata = Some(self.leave_history()?);
        }
        let history = self.history(replayed.history.or(history));
        let checkpoint = if is_salvaged {
            self.write_salvaged(&mut lsm, history)?;
            Some(lsm.last_version())
        } else {
            checkpoint
        };
        let newest_log = replayed.kept.back().map(|(_, name)| name);
        let found = DataFiles {
            generation: self.disk.number,
            metadata,
            checkpoint: self.id_of(
                checkpoint.map(checkpoint_name).as_ref(),
                FileKind::Checkpoint,
            )?,
            log: self.id_of(newest_log, FileKind::Log)?,
            synced_version: lsm.last_version(),
        };
        let mut log_end = self.log_end_of(found, log_end);
        log_end.mark_copy((self.options.fsync == Fsync::Always).then_some(copy));
        lsm.set_time_ms(log_end.slot.time_ms);
        let (log, shortage) = self.begin_log(lsm.position(), history, replayed, &mut log_end)?;
        let in_force = log_end.in_force().checkpoint;
        let checkpoint_version = in_force.map_or(0, |id| id.version);
        self.remove_covered(checkpoint_version, covered)?;
        Ok(RecoveredPartition {
            lsm,
            store: Store::new(self.root, copy, log, log_end),
            meta: self.meta,
            history,
            copy,
            is_copy_stored,
            report: RecoveryReport {
                checkpoint_version,
                replayed_count: self.replayed_count,
                torn: self.torn,
                losses: self.losses.accepted,
                set_aside: self.losses.set_aside,
                shortage,
            },
        })
    }

    fn remove_obsolete(&self, names: &[String]) -> Result<(), StorageError> {
        for name in names {
            match self.root.remove(name) {
                // A draft that was given its name meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                removed => removed.on("removing", &self.root, name)?,
            }
        }
        Ok(())
    }

    /// Removes the files that a checkpoint replaces. After a loss they stay until the next start.
    fn remove_covered(&self, checkpoint_version: u64, logs: &[String]) -> Result<(), StorageError> {
        if self.losses.any() {
            return Ok(());
        }
        remove_older(&self.disk, checkpoint_version)?;
        let mut logs = logs.iter();
        logs.try_for_each(|name| self.disk.remove(name).on("removing", &self.disk, name))
    }

    /// The history that goes on: a new one after a loss, else that of the metadata or the files.
    fn history(&self, of_files: Option<HistoryId>) -> HistoryId {
        let of_meta = self.meta.as_ref().map(|meta| meta.lineage.history());
        match of_meta.or(of_files) {
            Some(history) if !self.losses.any() => history,
            _ => self.options.fresh_history,
        }
    }

    /// Writes a checkpoint of what was saved of a damaged one, and sets the damaged one aside.
    fn write_salvaged(&mut self, lsm: &mut Lsm, history: HistoryId) -> Result<(), StorageError> {
        let names = self.disk.list()?;
        let is_checkpoint = |name: &&String| checkpoint_version(name).is_some();
        for name in names.iter().filter(is_checkpoint) {
            self.losses.set_aside(&self.disk, name)?;
        }
        write_checkpoint(&self.disk, lsm, history)?.put_in_place()
    }

    /// The `log-end` of the files that were found.
    fn log_end_of(&self, found: DataFiles, before: Option<LogEnd<D>>) -> LogEnd<D> {
        let time_ms = before.as_ref().map_or(0, |log_end| log_end.slot.time_ms);
        match before.filter(|_| !self.losses.any()) {
            Some(mut log_end) => {
                let log = self.in_force.and_then(|files| files.log);
                log_end.set_in_force(DataFiles { log, ..found });
                log_end
            }
            None => LogEnd::new(&self.root, found, time_ms),
        }
    }

    /// Begins a log file behind the files that were replayed. Returns the shortage, if one keeps it
    /// from that: until it is over, all data can be read.
    fn begin_log(
        &self,
        position: LogPosition,
        history: HistoryId,
        replayed: ReplayedLog,
        log_end: &mut LogEnd<D>,
    ) -> Result<(LogWriter<D>, Option<StorageError>), StorageError> {
        let (disk, file_bytes) = (self.disk.clone(), self.options.log_file_bytes);
        let mut log = LogWriter::new(disk, history, position, file_bytes);
        log.go_on_behind(replayed.kept, replayed.kept_bytes);
        let shortage = match log.begin(log_end) {
            // A loss that was accepted must not be found again.
            begun if self.losses.any() => begun.map(|()| None)?,
            begun => shortage(begun)?,
        };
        Ok((log, shortage))
    }

    /// Names the copy; returns its id, and whether the metadata on disk has it, or will have it.
    fn name_copy(
        &mut self,
        log_end: Option<&mut LogEnd<D>>,
    ) -> Result<(CopyId, bool), StorageError> {
        let kept = self.kept_copy(log_end)?;
        let copy = kept.unwrap_or(self.options.fresh_copy);
        if let Some(meta) = &mut self.meta {
            meta.copy = copy;
        }
        Ok((copy, kept.is_some() || self.losses.any()))
    }

    /// The id of the copy that is stored, if nothing can be missing that was confirmed under it.
    /// Unless everything is synced from now on, too, that ends here, before anything is written. If
    /// there is no room for that, the copy as it is now keeps the id, and goes on with another one
    /// in this process.
    fn kept_copy(&self, log_end: Option<&mut LogEnd<D>>) -> Result<Option<CopyId>, StorageError> {
        let stored = self.meta.as_ref().map(|meta| meta.copy);
        let Some((copy, log_end)) = stored.zip(log_end).filter(|_| !self.losses.any()) else {
            return Ok(None);
        };
        if copy == CopyId::NONE || !is_whole(log_end, copy) {
            return Ok(None);
        }
        if self.options.fsync == Fsync::Always {
            return Ok(Some(copy));
        }
        log_end.mark_copy(None);
        let obstacle = shortage(log_end.sync())?;
        Ok(obstacle.is_none().then_some(copy))
    }

    /// Begins the history that follows a loss, before anything is cut off: after a crash the files
    /// then differ from `log-end`, and the start is refused again. Returns the checksum of the
    /// metadata.
    fn leave_history(&mut self) -> Result<u32, StorageError> {
        let lineage = Lineage::new(self.options.fresh_history);
        let mut meta = self.meta.take().unwrap_or_else(|| {
            PartitionMeta::new(Role::Leader, lineage.clone(), self.options.fresh_copy)
        });
        meta.lineage = lineage;
        partition_meta::write(&self.root, &meta, self.disk.number)?;
        let checksum = partition_meta::checksum(&meta, self.disk.number);
        self.meta = Some(meta);
        Ok(checksum)
    }

    fn id_of(&self, name: Option<&String>, kind: FileKind) -> Result<Option<FileId>, StorageError> {
        let header = name.map(|name| read_header(&self.disk, name, kind));
        let header = header.transpose()?.and_then(Result::ok);
        Ok(header.map(|header| header.id()))
    }

    fn damaged(&self, name: &str, offset: usize, problem: &'static str) -> StorageError {
        StorageError::Damaged {
            path: self.disk.path(name),
            offset: offset as u64,
            problem,
        }
    }

    fn open(&self, name: &str) -> Result<(D::File, u64), StorageError> {
        let open = || {
            let file = self.disk.open(name)?;
            let bytes = file.len_bytes()?;
            Ok((file, bytes))
        };
        open().on("opening", &self.disk, name)
    }

    fn count_bytes(
        &mut self,
        checkpoint: Option<u64>,
        logs: &[String],
    ) -> Result<(), StorageError> {
        for name in checkpoint.map(checkpoint_name).iter().chain(logs) {
            self.progress.total_bytes += self.open(name)?.1;
        }
        Ok(())
    }

    /// The engine as of the checkpoint, its history, and whether a part of it was lost.
    fn load(
        &mut self,
        checkpoint: Option<u64>,
        logs: &[String],
    ) -> Result<(Lsm, Option<HistoryId>, bool), StorageError> {
        let Some(version) = checkpoint else {
            let is_lost = self
                .in_force
                .is_some_and(|files| files.checkpoint.is_some());
            let lsm = if is_lost {
                self.empty_below(logs)
            } else {
                Lsm::new(self.options.engine)
            };
            let is_salvaged = lsm.last_version() > 0;
            return Ok((lsm, None, is_salvaged));
        };
        let name = checkpoint_name(version);
        let (file, file_bytes) = self.open(&name)?;
        let (progress, on_progress) = (&mut self.progress, &mut *self.on_progress);
        let mut on_read = |bytes: u64| {
            progress.done_bytes += bytes;
            on_progress(*progress);
        };
        let read = read_checkpoint(&file, file_bytes, self.options.engine, &mut on_read)
            .on("reading", &self.disk, &name)?;
        let offset = read.offset;
        match (read.engine, read.outcome) {
            (Some((lsm, header)), Ok(())) => Ok((lsm, Some(header.history), false)),
            (engine, outcome) => {
                let error = outcome
                    .err()
                    .unwrap_or(FormatError::Damaged("it is cut off"));
                let error = StorageError::format(self.disk.path(&name), offset, error);
                self.losses.refuse(error)?;
                Ok(match engine {
                    Some((lsm, header)) => (lsm, Some(header.history), true),
                    None => (self.empty_below(logs), None, true),
                })
            }
        }
    }

    /// An empty engine that the first log file continues.
    fn empty_below(&self, logs: &[String]) -> Lsm {
        let header = logs.first().and_then(|name| self.header_of(name));
        let position = header.map_or(LogPosition::default(), |header| header.position);
        EngineBuilder::new(KeyHasher::new(self.options.engine.hash_seed), position)
            .finish(self.options.engine)
    }

    /// Replays the records that the engine does not have.
    fn replay(&mut self, lsm: &mut Lsm, logs: &[String]) -> Result<ReplayedLog, StorageError> {
        let mut at = lsm.position();
        let mut replayed = ReplayedLog::default();
        let mut bytes = Vec::new();
        for (index, name) in logs.iter().enumerate() {
            let (mut file, file_bytes) = self.open(name)?;
            bytes.resize(usize::try_from(file_bytes).unwrap_or(usize::MAX), 0);
            let read = file.read_at(&mut bytes, 0);
            read.on("reading", &self.disk, name)?;
            let outcome =
                self.replay_file(lsm, &mut at, index == 0, name, &bytes, logs.get(index + 1));
            self.progress.done_bytes += file_bytes;
            (self.on_progress)(self.progress);
            let (end, header) = match outcome {
                Ok(replayed) => replayed,
                Err((offset, error)) => {
                    self.losses.refuse(error)?;
                    self.leave_history()?;
                    self.set_rest_aside(name, offset, &bytes, &logs[index + 1..])?;
                    if offset < HEADER_BYTES {
                        return Ok(replayed);
                    }
                    let header = FileHeader::decode(FileKind::Log, &bytes).ok();
                    self.end_file(&mut file, name, offset)?;
                    let kept = header.map(|(header, _)| (header.position, name.clone()));
                    replayed.kept.extend(kept);
                    replayed.kept_bytes += offset as u64;
                    return Ok(replayed);
                }
            };
            replayed.history = Some(header.history);
            replayed.kept.push_back((header.position, name.clone()));
            replayed.kept_bytes += end as u64;
            if index + 1 == logs.len() {
                self.end_file(&mut file, name, end)?;
            }
        }
        Ok(replayed)
    }

    /// Cuts the last file behind its records, and syncs it before clients can read them.
    fn end_file(&self, file: &mut D::File, name: &str, end: usize) -> Result<(), StorageError> {
        let mut cut = || {
            file.truncate(end as u64)?;
            file.sync()
        };
        cut().on("truncating", &self.disk, name)
    }

    /// Replays one file. Returns the end of its records and its header; an error comes with the
    /// offset at which it shows.
    fn replay_file(
        &mut self,
        lsm: &mut Lsm,
        at: &mut LogPosition,
        is_first: bool,
        name: &str,
        bytes: &[u8],
        next_name: Option<&String>,
    ) -> Result<(usize, FileHeader), (usize, StorageError)> {
        let decoded = FileHeader::decode(FileKind::Log, bytes);
        let (header, header_checksum) =
            decoded.map_err(|error| (0, StorageError::format(self.disk.path(name), 0, error)))?;
        self.check_position(at, is_first, name, header.position)
            .map_err(|error| (0, error))?;
        let (offset, end) = self.replay_records(lsm, at, name, bytes, header_checksum)?;
        let next_header = next_name.and_then(|name| self.header_of(name));
        let synced_version = synced_version_behind(bytes, offset, header_checksum)
            .max(next_header.map(|header| header.position.version))
            .max(self.witnessed_version(name))
            .unwrap_or(0);
        // Records that the checkpoint has need not be in the log.
        if synced_version > at.version.max(lsm.last_version()) {
            let error = match end {
                LogTail::Bad(problem) => self.damaged(name, offset, problem),
                LogTail::Clean => {
                    let version = at.version;
                    let problem = format!(
                        "ends at byte {offset} with version {version}, but was synced up to \
                         version {synced_version}"
                    );
                    lost(&self.disk, name, problem)
                }
            };
            return Err((offset, error));
        }
        let dropped_bytes = bytes[offset..]
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        let is_torn = matches!(end, LogTail::Bad(_)) || dropped_bytes > 0;
        if is_torn && next_name.is_none() {
            let (path, dropped_bytes) = (self.disk.path(name), dropped_bytes as u64);
            self.torn = Some(TornTail {
                path,
                offset: offset as u64,
                dropped_bytes,
            });
        }
        Ok((offset, header))
    }

    /// Checks that a log file begins where the records before it end. A first file may begin
    /// earlier, and `at` moves back to it.
    fn check_position(
        &self,
        at: &mut LogPosition,
        is_first: bool,
        name: &str,
        position: LogPosition,
    ) -> Result<(), StorageError> {
        if log_first_version(name) != Some(position.version + 1) {
            return Err(other_version(&self.disk, name, position.version));
        }
        if is_first && position.version < at.version {
            *at = position;
        } else if position != *at {
            let problem = match position.version.checked_sub(at.version) {
                Some(0) | None => "is not of the history of what is before it".to_owned(),
                Some(missing_count) => format!(
                    "does not follow what is before it: {missing_count} records behind version {} \
                     are missing",
                    at.version
                ),
            };
            return Err(lost(&self.disk, name, problem));
        }
        Ok(())
    }

    /// Version up to which this file was synced by `log-end`, if that names this file.
    fn witnessed_version(&self, name: &str) -> Option<u64> {
        let files = self.in_force?;
        let newest = files.log.map(|id| log_name_behind(id.version));
        (newest.as_deref() == Some(name)).then_some(files.synced_version)
    }

    fn header_of(&self, name: &str) -> Option<FileHeader> {
        read_header(&self.disk, name, FileKind::Log).ok()?.ok()
    }

    /// Replays the records of a file, up to the first bytes that are none.
    fn replay_records(
        &mut self,
        lsm: &mut Lsm,
        at: &mut LogPosition,
        name: &str,
        bytes: &[u8],
        header_checksum: u32,
    ) -> Result<(usize, LogTail), (usize, StorageError)> {
        let mut offset = HEADER_BYTES;
        loop {
            let rest = &bytes[offset..];
            match at
                .next_record(rest)
                .and_then(|record| check_batch(record, rest))
            {
                Ok(record) => {
                    let mut next = Some(record);
                    while let Some(record) = next {
                        if record.position().version == lsm.last_version()
                            && record.position() != lsm.position()
                        {
                            let problem = "the log and the checkpoint are of different histories";
                            return Err((offset, self.damaged(name, offset, problem)));
                        }
                        self.apply(lsm, &record);
                        *at = record.position();
                        offset += record.stream_bytes();
                        next = if record.goes_on() {
                            at.next_record(&bytes[offset..]).ok()
                        } else {
                            None
                        };
                    }
                }
                Err(_) if mark_at(bytes, offset, header_checksum).is_some() => offset += MARK_BYTES,
                Err(_) if rest.iter().take(MARK_BYTES).all(|byte| *byte == 0) => {
                    return Ok((offset, LogTail::Clean));
                }
                Err(RecordError::Incomplete) => {
                    return Ok((offset, LogTail::Bad("a record is cut off")));
                }
                Err(RecordError::Damaged(problem)) => return Ok((offset, LogTail::Bad(problem))),
            }
        }
    }

    fn apply(&mut self, lsm: &mut Lsm, record: &StreamRecord<'_>) {
        if record.position().version <= lsm.last_version() {
            return;
        }
        lsm.replay(record);
        self.replayed_count += 1;
        while lsm.frozen_count() > FROZEN_MAX {
            lsm.maintain(CATCH_UP_WORK);
        }
    }

    /// Keeps everything behind the damage, under names that nothing reads.
    fn set_rest_aside(
        &mut self,
        name: &str,
        offset: usize,
        bytes: &[u8],
        later: &[String],
    ) -> Result<(), StorageError> {
        // The newest first: so a crash in between leaves no gap before a later file.
        for name in later.iter().rev() {
            self.losses.set_aside(&self.disk, name)?;
        }
        if offset < HEADER_BYTES {
            return self.losses.set_aside(&self.disk, name);
        }
        if bytes[offset..].iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let aside = free_name(&self.disk, &format!("{name}.from-{offset}"))?;
        write_file(&self.disk, &aside, &bytes[offset..], 0)?;
        self.losses.set_aside.push(self.disk.path(&aside));
        Ok(())
    }
}

/// Whether nothing can be missing of a copy.
fn is_whole<D: Disk>(log_end: &LogEnd<D>, copy: CopyId) -> bool {
    SeededBug::UncleanStopKeepsId.is_on() || log_end.vouches_for(copy)
}

/// Returns the record that `bytes` begin with, if it is of no batch or its batch is complete.
fn check_batch<'a>(first: StreamRecord<'a>, bytes: &[u8]) -> Result<StreamRecord<'a>, RecordError> {
    let (mut goes_on, mut at, mut offset) =
        (first.goes_on(), first.position(), first.stream_bytes());
    while goes_on {
        let record = at.next_record(&bytes[offset..])?;
        (goes_on, at) = (record.goes_on(), record.position());
        offset += record.stream_bytes();
    }
    Ok(first)
}

/// The result of reading a checkpoint.
pub(super) struct ReadCheckpoint {
    /// The engine of all sound bytes.
    pub(super) engine: Option<(Lsm, FileHeader)>,
    /// The offset at which reading ended.
    pub(super) offset: u64,
    pub(super) outcome: Result<(), FormatError>,
}

/// Reads a checkpoint file. The error is that of a system call; damage is in the result.
pub(super) fn read_checkpoint<F: DiskFile>(
    file: &F,
    file_bytes: u64,
    options: Options,
    on_read: &mut dyn FnMut(u64),
) -> std::io::Result<ReadCheckpoint> {
    let mut decoder = CheckpointDecoder::default();
    let outcome = loop {
        let (wanted, offset) = (decoder.wanted_bytes(), decoder.offset);
        if offset + wanted as u64 > file_bytes {
            break Err(FormatError::Damaged("it is cut off"));
        }
        let mut bytes = vec![0; wanted];
        file.read_at(&mut bytes, offset)?;
        match decoder.feed(bytes) {
            Ok(CodecStep::More) => {}
            Ok(CodecStep::Done) => break Ok(()),
            Err(error) => break Err(error),
        }
        on_read(wanted as u64);
    };
    Ok(ReadCheckpoint {
        offset: decoder.sound_to,
        engine: decoder.finish(options),
        outcome,
    })
}

/// Writes a checkpoint of an engine, all but its name.
pub(super) fn write_checkpoint<D: Disk>(
    disk: &D,
    lsm: &mut Lsm,
    history: HistoryId,
) -> Result<CheckpointWriter<D>, StorageError> {
    let mut writer = CheckpointWriter::new(disk.clone(), lsm.snapshot(), history);
    while !writer.step()? {}
    Ok(writer)
}
