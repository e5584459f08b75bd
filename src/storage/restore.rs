//! Starting from a backup, which is the answer of `GET /snapshot`. What is written from then on is
//! of a history of its own.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;

use crate::lsm::Lsm;

use super::disk::{Disk, DiskFile};
use super::error::{FormatError, StorageError};
use super::generation::Generation;
use super::log_end::{DataFiles, LogEnd};
use super::log_writer::LogWriter;
use super::recovery::{
    RecoveredPartition, RecoveryOptions, RecoveryProgress, read_checkpoint, write_checkpoint,
};
use super::store::Store;

/// Reads a backup into an engine.
#[expect(clippy::disallowed_methods, reason = "storage touches files")]
pub(super) fn read_backup(
    path: &Path,
    options: &RecoveryOptions,
    on_progress: &mut dyn FnMut(RecoveryProgress),
) -> Result<Lsm, StorageError> {
    let shown = path.display();
    let unusable = |error: std::io::Error| {
        StorageError::Unusable(format!(
            "--restore {shown}: {error}; name a file that GET /snapshot gave"
        ))
    };
    let file = File::open(path).map_err(unusable)?;
    let total_bytes = file.len_bytes().map_err(unusable)?;
    let mut progress = RecoveryProgress {
        done_bytes: 0,
        total_bytes,
    };
    let mut on_read = |bytes: u64| {
        progress.done_bytes += bytes;
        on_progress(progress);
    };
    let read =
        read_checkpoint(&file, total_bytes, options.engine, &mut on_read).map_err(unusable)?;
    match (read.engine, read.outcome) {
        (Some((lsm, _)), Ok(())) => Ok(lsm),
        (_, Err(FormatError::TooNew(format))) => Err(StorageError::TooNew {
            path: path.display().to_string(),
            format,
        }),
        (_, outcome) => {
            let problem = match outcome {
                Err(FormatError::Damaged(problem)) => problem,
                _ => "it is cut off",
            };
            Err(StorageError::BadBackup(format!(
                "--restore {shown} is not a whole backup: at byte {}: {problem}; take another with \
                 GET /snapshot",
                read.offset
            )))
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
    let checkpoint_version = lsm.last_version();
    let files = DataFiles {
        checkpoint: Some(checkpoint.header().id()),
        synced_version: checkpoint_version,
        ..log_end.in_force()
    };
    log_end.change(files, || checkpoint.put_in_place())?;
    let mut log = LogWriter::new(
        disk,
        history,
        lsm.position(),
        VecDeque::new(),
        0,
        options.log_file_bytes,
    );
    log.begin(&mut log_end)?;
    Ok(RecoveredPartition {
        store: Store::new(root, log, log_end),
        lsm,
        meta: None,
        history,
        checkpoint_version,
        replayed_count: 0,
        torn: None,
        losses: Vec::new(),
        set_aside: Vec::new(),
    })
}
