//! The files in the folder of a partition, compared with those that `log-end` names.
//!
//! Either the files in force are there, or those that a change on its way has announced. Otherwise
//! the start fails, and names a file that is missing. A directory of a version without `log-end` is
//! recognized by its log files, and accepted as far as these prove that they are complete.
//!
//! Nothing is changed here unless a loss is accepted; then files that do not fit are set aside.
//!
//! Not here: the content of the files (`recovery.rs`).

use super::disk::{Disk, DiskFile, OnFile};
use super::draft::is_draft;
use super::error::{FormatError, StorageError};
use super::file_names::{
    checkpoint_name, checkpoint_version, insert_sorted, log_first_version, log_name,
    log_name_behind,
};
use super::generation::{Generation, generation_of_data, split};
use super::header::{FileHeader, FileKind, HEADER_BYTES};
use super::log_end::{DataFiles, LOG_END_NAME, LogEnd};
use super::partition_meta::{self, META_NAME, StoredMeta};

/// Losses, which are errors unless they are accepted.
#[derive(Debug)]
pub(super) struct Losses {
    is_accepting: bool,
    /// Accepted losses, one line each.
    pub(super) accepted: Vec<String>,
    /// Files that were set aside.
    pub(super) set_aside: Vec<String>,
}

impl Losses {
    pub(super) fn new(is_accepting: bool) -> Self {
        Self {
            is_accepting,
            accepted: Vec::new(),
            set_aside: Vec::new(),
        }
    }

    /// Whether a loss was accepted.
    pub(super) fn any(&self) -> bool {
        !self.accepted.is_empty()
    }

    /// Fails with an error, unless it is a loss and losses are accepted.
    pub(super) fn refuse(&mut self, error: StorageError) -> Result<(), StorageError> {
        match error.loss() {
            Some(loss) if self.is_accepting => {
                self.accepted.push(loss);
                Ok(())
            }
            _ => Err(error),
        }
    }

    /// Renames a file to a name that no file has, and that nothing reads.
    pub(super) fn set_aside<D: Disk>(&mut self, disk: &D, name: &str) -> Result<(), StorageError> {
        let aside = free_name(disk, name)?;
        disk.rename(name, &aside).on("renaming", disk, name)?;
        self.set_aside.push(disk.path(&aside));
        Ok(())
    }
}

/// The first of `NAME.damaged`, `NAME.2.damaged` and so on that no file has.
pub(super) fn free_name<D: Disk>(disk: &D, name: &str) -> Result<String, StorageError> {
    let names = disk.list()?;
    let numbered = (2_u32..).map(|number| format!("{name}.{number}.damaged"));
    let mut wanted = std::iter::once(format!("{name}.damaged")).chain(numbered);
    let free = wanted.find(|aside| !names.contains(aside));
    Ok(free.expect("fewer files than numbers"))
}

/// The files that a start goes on with.
#[derive(Debug)]
pub(super) struct Inventory<D: Disk> {
    /// The generation in force.
    pub(super) disk: Generation<D>,
    /// The content of `partition.json`, if it is there.
    pub(super) stored: Option<StoredMeta>,
    /// The open `log-end`; none if it has to be made.
    pub(super) log_end: Option<LogEnd<D>>,
    /// The files that `log-end` names; none without `log-end`.
    pub(super) in_force: Option<DataFiles>,
    /// Version of the checkpoint to load.
    pub(super) checkpoint: Option<u64>,
    /// First versions of all log files, ascending, by their names.
    pub(super) logs: Vec<u64>,
    /// Names in the folder that are to be removed: drafts, and replaced files.
    pub(super) obsolete: Vec<String>,
}

/// Takes stock of a folder.
pub(super) fn take<D: Disk>(root: &D, losses: &mut Losses) -> Result<Inventory<D>, StorageError> {
    let names = root.list()?;
    let log_end = open_log_end(root, &names, losses)?;
    let stored = read_meta(root, losses)?;
    let in_force = match &log_end {
        Some(log_end) => in_force(root, log_end, stored.as_ref(), losses)?,
        None => None,
    };
    let draft_generation = log_end
        .as_ref()
        .map_or(0, |log_end| log_end.slot.draft_generation);
    let generation = match (&in_force, &stored) {
        (Some(files), _) => files.generation,
        (None, Some(stored)) => stored.generation,
        (None, None) => likely_generation(&names),
    };
    let disk = Generation::new(root.clone(), generation);
    let (mut obsolete, mut foreign) = (Vec::new(), Vec::new());
    for name in &names {
        let of_other = generation_of_data(name).filter(|number| *number != generation);
        if is_draft(name) {
            obsolete.push(name.clone());
        } else if let Some(number) = of_other {
            let is_replaced = number < generation || number == draft_generation;
            let to = if is_replaced {
                &mut obsolete
            } else {
                &mut foreign
            };
            to.push(name.clone());
        }
    }
    let checkpoint = checkpoint(&disk, in_force.as_ref(), losses)?;
    let logs = logs(&disk, in_force.as_ref(), losses)?;
    if losses.any() {
        // Which files are in force is a guess: none but drafts is removed.
        let (drafts, replaced) = obsolete
            .into_iter()
            .partition(|name: &String| is_draft(name));
        obsolete = drafts;
        foreign.extend(replaced);
        foreign
            .iter()
            .try_for_each(|name| losses.set_aside(root, name))?;
    }
    Ok(Inventory {
        disk,
        stored,
        log_end,
        in_force,
        checkpoint,
        logs,
        obsolete,
    })
}

/// Opens `log-end`. None if there is none, or if it is damaged and set aside.
fn open_log_end<D: Disk>(
    root: &D,
    names: &[String],
    losses: &mut Losses,
) -> Result<Option<LogEnd<D>>, StorageError> {
    let has = |name: &str| names.iter().any(|found| found == name);
    if !has(LOG_END_NAME) {
        check_that_none_is_missing(root, names, has(META_NAME), losses)?;
        return Ok(None);
    }
    match LogEnd::open(root) {
        Err(error) => {
            losses.refuse(error)?;
            losses.set_aside(root, LOG_END_NAME)?;
            Ok(None)
        }
        Ok(log_end) => Ok(Some(log_end)),
    }
}

/// Reads `partition.json`. None if there is none, or if it is damaged and set aside.
fn read_meta<D: Disk>(root: &D, losses: &mut Losses) -> Result<Option<StoredMeta>, StorageError> {
    partition_meta::read(root).or_else(|error| {
        losses.refuse(error)?;
        losses.set_aside(root, META_NAME)?;
        Ok(None)
    })
}

pub(super) fn lost<D: Disk>(disk: &D, name: &str, problem: impl Into<String>) -> StorageError {
    StorageError::Lost {
        path: disk.path(name),
        problem: problem.into(),
    }
}

/// The header of a file, if its checksum holds.
pub(super) fn read_header<D: Disk>(
    disk: &D,
    name: &str,
    kind: FileKind,
) -> Result<Result<FileHeader, FormatError>, StorageError> {
    let read = || {
        let file = disk.open(name)?;
        let mut bytes = [0; HEADER_BYTES];
        let is_whole = file.len_bytes()? >= HEADER_BYTES as u64;
        let bytes = if is_whole { &mut bytes[..] } else { &mut [] };
        file.read_at(bytes, 0)?;
        Ok(FileHeader::decode(kind, bytes).map(|(header, _)| header))
    };
    read().on("reading", disk, name)
}

/// Without `log-end`, the files must be those of a version that did not write one.
fn check_that_none_is_missing<D: Disk>(
    root: &D,
    names: &[String],
    has_metadata: bool,
    losses: &mut Losses,
) -> Result<(), StorageError> {
    let is_log = |name: &&String| log_first_version(split(name).1).is_some();
    let logs: Vec<&String> = names.iter().filter(is_log).collect();
    let mut has_log_end = false;
    for name in &logs {
        let mut bytes = [0; HEADER_BYTES];
        let read = root.open(name).and_then(|file| file.read_at(&mut bytes, 0));
        has_log_end |= read.is_ok() && FileHeader::has_log_end(&bytes);
    }
    // A version that did not write the file began the log before anything else.
    let is_checkpoint = |name: &String| checkpoint_version(split(name).1).is_some();
    let is_log_lost = logs.is_empty() && (has_metadata || names.iter().any(is_checkpoint));
    if has_log_end || is_log_lost {
        let problem =
            "is missing: it says which files are the newest, and how far they were synced";
        losses.refuse(lost(root, LOG_END_NAME, problem))?;
    }
    let is_later = |name: &String| generation_of_data(name).is_some_and(|number| number > 0);
    if !has_metadata && names.iter().any(is_later) {
        let problem = "is missing: it says which of the files here are in force";
        losses.refuse(lost(root, META_NAME, problem))?;
    }
    Ok(())
}

/// The files that `log-end` names: the announced ones if they are there, else those in force. None
/// if it seems to be of another directory.
fn in_force<D: Disk>(
    root: &D,
    log_end: &LogEnd<D>,
    stored: Option<&StoredMeta>,
    losses: &mut Losses,
) -> Result<Option<DataFiles>, StorageError> {
    let metadata = stored.map(|stored| stored.checksum);
    let candidates = [log_end.slot.announced, Some(log_end.in_force())];
    let (fitting, others): (Vec<DataFiles>, Vec<DataFiles>) = candidates
        .into_iter()
        .flatten()
        .partition(|files| files.metadata == metadata);
    if fitting.is_empty() {
        let problem = match metadata {
            None => "is missing: it holds role, epoch and histories of the partition",
            Some(_) => "is not the one that was written last: an older one, or another partition's",
        };
        losses.refuse(lost(root, META_NAME, problem))?;
    }
    // Log and checkpoint may be those of `log-end` although `partition.json` is not.
    for files in if fitting.is_empty() {
        &others
    } else {
        &fitting
    } {
        if are_there(root, files)? {
            return Ok(Some(*files));
        }
    }
    // If there are any, the checks that follow name the file that is missing.
    Ok(fitting.last().copied())
}

fn are_there<D: Disk>(root: &D, files: &DataFiles) -> Result<bool, StorageError> {
    let disk = Generation::new(root.clone(), files.generation);
    let log = files
        .log
        .map(|id| (log_name_behind(id.version), FileKind::Log, id));
    let checkpoint = files
        .checkpoint
        .map(|id| (checkpoint_name(id.version), FileKind::Checkpoint, id));
    let names = disk.list()?;
    for (name, kind, id) in log.into_iter().chain(checkpoint) {
        if !names.contains(&name) {
            return Ok(false);
        }
        let header = read_header(&disk, &name, kind)?;
        if header.map(|header| header.id()) != Ok(id) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The generation that is most likely in force, where no file says which: the newest with a whole
/// checkpoint, with which every replacement begins; or the oldest.
fn likely_generation(names: &[String]) -> u32 {
    let whole = names
        .iter()
        .filter(|name| checkpoint_version(split(name).1).is_some())
        .filter_map(|name| generation_of_data(name));
    let any = names.iter().filter_map(|name| generation_of_data(name));
    whole.max().or(any.min()).unwrap_or(0)
}

/// The versions that names of one kind of file tell, ascending.
fn versions_in(names: &[String], version_of: fn(&str) -> Option<u64>) -> Vec<u64> {
    let mut versions = Vec::new();
    for version in names.iter().filter_map(|name| version_of(name)) {
        insert_sorted(&mut versions, version);
    }
    versions
}

const NOT_NAMED: &str = "is not a file that log-end names: a copy, or a file of another partition";

/// The version of the checkpoint to load.
fn checkpoint<D: Disk>(
    disk: &Generation<D>,
    in_force: Option<&DataFiles>,
    losses: &mut Losses,
) -> Result<Option<u64>, StorageError> {
    let versions = versions_in(&disk.list()?, checkpoint_version);
    let named = in_force.map(|files| files.checkpoint);
    let missing = named.flatten().filter(|id| !versions.contains(&id.version));
    if let Some(id) = missing {
        let problem = format!("is missing: it holds the data as of version {}", id.version);
        losses.refuse(lost(disk, &checkpoint_name(id.version), problem))?;
    }
    for version in versions.into_iter().rev() {
        let name = checkpoint_name(version);
        let header = read_header(disk, &name, FileKind::Checkpoint)?;
        let is_newer = named.is_some_and(|id| id.is_none_or(|id| version > id.version));
        let named = named.flatten().filter(|id| id.version == version);
        let error = match header {
            Err(error) if !is_newer => StorageError::format(disk.path(&name), 0, error),
            Ok(header) if header.position.version != version => {
                other_version(disk, &name, header.position.version)
            }
            Ok(header) if named.is_some_and(|id| id != header.id()) => lost(disk, &name, NOT_NAMED),
            Ok(_) if is_newer && missing.is_some() => {
                // This checkpoint may have replaced the missing one: `log-end` is then too old.
                losses.refuse(lost(disk, &name, NOT_NAMED))?;
                return Ok(Some(version));
            }
            _ if is_newer => lost(disk, &name, NOT_NAMED),
            _ => return Ok(Some(version)),
        };
        losses.refuse(error)?;
        losses.set_aside(disk, &name)?;
    }
    Ok(None)
}

/// The error of a file with another version in its header than in its name.
pub(super) fn other_version<D: Disk>(disk: &D, name: &str, version: u64) -> StorageError {
    let problem = format!("is not the file of that name: by its header it is of version {version}");
    lost(disk, name, problem)
}

/// First versions of the log files, by their names.
fn logs<D: Disk>(
    disk: &Generation<D>,
    in_force: Option<&DataFiles>,
    losses: &mut Losses,
) -> Result<Vec<u64>, StorageError> {
    let names = disk.list()?;
    let logs = versions_in(&names, log_first_version);
    let Some(files) = in_force else {
        return Ok(logs);
    };
    if let Some(id) = files.log {
        let name = log_name_behind(id.version);
        if names.contains(&name) {
            match read_header(disk, &name, FileKind::Log)? {
                Ok(header) if header.id() == id => {}
                Ok(header) if header.position.version != id.version => {
                    losses.refuse(other_version(disk, &name, header.position.version))?;
                }
                Ok(_) => losses.refuse(lost(disk, &name, NOT_NAMED))?,
                Err(error) => {
                    losses.refuse(StorageError::format(disk.path(&name), 0, error))?;
                }
            }
        } else {
            let problem = format!(
                "is missing: it is the newest file of the log, which was synced up to version {}",
                files.synced_version
            );
            losses.refuse(lost(disk, &name, problem))?;
        }
    }
    let newest = files.log.map_or(0, |id| id.version + 1);
    for first in logs.iter().filter(|first| **first > newest) {
        losses.refuse(lost(disk, &log_name(*first), NOT_NAMED))?;
    }
    Ok(logs)
}
