//! Starting from a backup, which is the answer of `GET /snapshot`. What is written from then on is
//! of a history of its own.

use std::path::Path;

use crate::config::Fsync;
use crate::lsm::Lsm;

use super::data_dir::DataDir;
use super::disk::{Disk, DiskFile, SystemFile};
use super::error::{FormatError, StorageError};
use super::generation::Generation;
use super::header::{FileHeader, FileKind, HEADER_BYTES};
use super::log_end::{DataFiles, LogEnd};
use super::log_writer::LogWriter;
use super::recovery::{
    RecoveredPartition, RecoveryOptions, RecoveryProgress, RecoveryReport, read_checkpoint,
    write_checkpoint,
};
use super::store::Store;

/// Refuses to restore what is no backup by its first bytes, and into a directory with data.
pub fn check_restore(path: &Path, data_dir: Option<&DataDir>) -> Result<(), StorageError> {
    if data_dir.is_some_and(|data_dir| !matches!(data_dir.is_empty(), Ok(true))) {
        return Err(StorageError::Unusable(
            "--restore: the data directory already holds data; name an empty --data-dir, or leave \
             --restore out to start from what is there"
                .to_owned(),
        ));
    }
    let (file, file_bytes) = open_backup(path)?;
    let mut header = [0; HEADER_BYTES];
    let is_whole = file_bytes >= HEADER_BYTES as u64;
    let header = if is_whole { &mut header[..] } else { &mut [] };
    file.read_at(header, 0)
        .map_err(|error| unusable(path, &error))?;
    FileHeader::decode(FileKind::Checkpoint, header)
        .map(drop)
        .map_err(|error| no_backup(path, 0, error))
}

fn unusable(path: &Path, error: &std::io::Error) -> StorageError {
    let shown = path.display();
    StorageError::Unusable(format!(
        "--restore {shown}: {error}; name a file that GET /snapshot gave"
    ))
}

fn no_backup(path: &Path, offset: u64, error: FormatError) -> StorageError {
    let shown = path.display();
    match error {
        FormatError::TooNew(format) => StorageError::TooNew {
            path: shown.to_string(),
            format,
        },
        FormatError::Damaged(problem) => StorageError::BadBackup(format!(
            "--restore {shown} is not a whole backup: at byte {offset}: {problem}; take another \
             with GET /snapshot"
        )),
    }
}

fn open_backup(path: &Path) -> Result<(SystemFile, u64), StorageError> {
    let opened = SystemFile::read(path).and_then(|file| Ok((file.len_bytes()?, file)));
    let (file_bytes, file) = opened.map_err(|error| unusable(path, &error))?;
    Ok((file, file_bytes))
}

/// Reads a backup into an engine.
pub(super) fn read_backup(
    path: &Path,
    options: &RecoveryOptions,
    on_progress: &mut dyn FnMut(RecoveryProgress),
) -> Result<Lsm, StorageError> {
    let (file, total_bytes) = open_backup(path)?;
    let mut progress = RecoveryProgress {
        done_bytes: 0,
        total_bytes,
    };
    let mut on_read = |bytes: u64| {
        progress.done_bytes += bytes;
        on_progress(progress);
    };
    let read = read_checkpoint(&file, total_bytes, options.engine, &mut on_read)
        .map_err(|error| unusable(path, &error))?;
    match (read.engine, read.outcome) {
        (Some((lsm, _)), Ok(())) if read.offset == total_bytes => Ok(lsm),
        (Some(_), Ok(())) => {
            // Another backup, or what an interrupted copy left: which one is meant is not known.
            let problem = FormatError::Damaged("the backup ends here, and other bytes follow");
            Err(no_backup(path, read.offset, problem))
        }
        (_, outcome) => {
            let cut_off = FormatError::Damaged("it is cut off");
            Err(no_backup(
                path,
                read.offset,
                outcome.err().unwrap_or(cut_off),
            ))
        }
    }
}

/// Writes an engine into the directory of a partition, which is still empty.
pub(super) fn settle<D: Disk>(
    root: D,
    mut lsm: Lsm,
    options: &RecoveryOptions,
) -> Result<RecoveredPartition<D>, StorageError> {
    let disk = Generation::new(root.clone(), 0);
    let history = options.fresh_history;
    let mut checkpoint = write_checkpoint(&disk, &mut lsm, history)?;
    let mut log_end = LogEnd::new(&root, DataFiles::default(), 0);
    let copy = options.fresh_copy;
    log_end.mark_copy((options.fsync == Fsync::Always).then_some(copy));
    let checkpoint_version = lsm.last_version();
    let files = DataFiles {
        checkpoint: Some(checkpoint.header().id()),
        synced_version: checkpoint_version,
        ..log_end.in_force()
    };
    log_end.change(files, || checkpoint.put_in_place())?;
    let mut log = LogWriter::new(disk, history, lsm.position(), options.log_file_bytes);
    log.begin(&mut log_end)?;
    Ok(RecoveredPartition {
        store: Store::new(root, copy, log, log_end),
        lsm,
        meta: None,
        history,
        copy,
        is_copy_stored: false,
        report: RecoveryReport {
            checkpoint_version,
            ..RecoveryReport::default()
        },
    })
}
