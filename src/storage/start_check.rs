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

/// Says what a start would find, as the end of a sentence; the error is that of the start. A
/// directory that another process uses is not read, since its files change meanwhile.
pub fn check_start(
    folder: Option<&Path>,
    restore: Option<&Path>,
    options: RecoveryOptions,
) -> Result<String, StorageError> {
    let data_dir = match folder.map(DataDir::open_unchanged).transpose() {
        Err(StorageError::Locked(path)) if restore.is_none() => {
            return Ok(format!(
                "once the db-node that uses {path} now has ended (its files were not read)"
            ));
        }
        data_dir => data_dir?.flatten(),
    };
    let place = folder.map_or("in memory only".to_owned(), |folder| {
        format!("data in {}", folder.display())
    });
    if let Some(path) = restore {
        check_restore(path, data_dir.as_ref())?;
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
        let recovered = recover(data_dir.partition_unchanged(id), options, &mut |_| {})?;
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
