//! Whether a node could start from a data directory or a backup, without a change to either: all
//! files are read as at a start, with all checksums (`db-node --check`).
//!
//! Not here: why nothing changes (`disk.rs`), the rules of recovery (`recovery.rs`).

use std::path::Path;

use super::data_dir::DataDir;
use super::disk::Disks;
use super::error::StorageError;
use super::recovery::{RecoveryOptions, recover};
use super::restore::{check_restore, read_backup};

/// Partitions that are named one by one.
const SHOWN_MAX: usize = 8;

/// What a start would find.
#[derive(Debug)]
pub enum StartReport {
    /// Data that can be used, as the end of a sentence.
    Usable(String),
    /// A directory, which is named, that another process uses. It was not read, since its files
    /// change meanwhile.
    InUse(String),
}

/// Says what a start would find; the error is that of the start.
pub fn check_start(
    folder: Option<&Path>,
    restore: Option<&Path>,
    options: RecoveryOptions,
) -> Result<StartReport, StorageError> {
    match folder.map(DataDir::open_unchanged).transpose() {
        Err(StorageError::Locked(path)) if restore.is_none() => Ok(StartReport::InUse(path)),
        data_dir => {
            let found = usable(folder, data_dir?.flatten().as_ref(), restore, options)?;
            Ok(StartReport::Usable(found))
        }
    }
}

/// What is in a directory that no other process uses; none: that nothing was made in so far.
fn usable(
    folder: Option<&Path>,
    data_dir: Option<&DataDir>,
    restore: Option<&Path>,
    options: RecoveryOptions,
) -> Result<String, StorageError> {
    let place = folder.map_or("in memory only".to_owned(), |folder| {
        format!("data in {}", folder.display())
    });
    if let Some(path) = restore {
        check_restore(path, data_dir)?;
        let version = read_backup(path, &options, &mut |_| {})?.last_version();
        let shown = path.display();
        return Ok(format!(
            "{place}: the backup {shown} is whole, at version {version}"
        ));
    }
    let Some(data_dir) = data_dir else {
        return Ok(match folder {
            Some(_) => format!("{place}: empty so far"),
            None => place,
        });
    };
    let (mut found, mut losses) = (Vec::new(), Vec::new());
    for id in data_dir.partitions()? {
        let recovered = recover(data_dir.partition_unchanged(id)?, options, &mut |_| {})?;
        let version = recovered.lsm.last_version();
        found.push(format!("partition {id} at version {version}"));
        losses.extend(recovered.report.losses);
    }
    let more_count = found.len().saturating_sub(SHOWN_MAX);
    found.truncate(SHOWN_MAX);
    if more_count > 0 {
        found.push(format!("and {more_count} more"));
    }
    let state = match (&losses[..], &found[..]) {
        ([], []) => "empty so far".to_owned(),
        ([], found) => format!("whole, {}", found.join(", ")),
        (losses, found) => format!("{}, and lost: {}", found.join(", "), losses.join("; ")),
    };
    Ok(format!("{place}: {state}"))
}
