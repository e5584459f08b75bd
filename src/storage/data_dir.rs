//! The data directory: used by one process at a time, with nothing in it but a node's files. No
//! other user may enter it, unless it was there before.
//!
//! A partition is removed by renaming its folder, `partition-3` to `partition-3.removed-1`, so that
//! after a power cut it is there as a whole or not at all. Then the files in the folder are removed
//! one by one, except those that were saved for an operator: `diverged-*` and `*.damaged`. A start
//! goes on with that. An empty `partition-0.removed-1` stays: because of it the next start does not
//! make the first partition anew.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::disk::Disks;
use super::disk::{SystemDisk, private_files, rename_in, sync_folder};
use super::draft::is_draft;
use super::error::StorageError;
use super::file_names::insert_sorted;
use super::log_end::LOG_END_NAME;

/// A directory with this file is a node's.
const LOCK_NAME: &str = "lock";

/// Names that do not make a directory foreign: `lost+found` is at the root of a file system.
const HARMLESS_NAMES: [&str; 2] = [LOCK_NAME, "lost+found"];

/// Makes directories that no other user may enter.
fn private_folders() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// Makes a directory and all that are missing above it, durably.
fn make(folder: &Path) -> io::Result<()> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = folder.ancestors().take_while(is_missing).collect();
    private_folders().recursive(true).create(folder)?;
    for made in missing {
        let parent = made
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        sync_folder(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

/// A data directory that no other process uses.
#[derive(Debug)]
pub struct DataDir {
    folder: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

impl DataDir {
    /// Opens and locks a directory, which is made if it is not there. A directory with other files
    /// than a node's is an error.
    pub fn open(folder: &Path) -> Result<Self, StorageError> {
        make(folder).map_err(|error| cannot_be_made(folder, &error))?;
        check_ours(folder)?;
        let lock = lock(folder, private_files().write(true).create(true))?;
        Ok(Self {
            folder: folder.to_owned(),
            _lock: lock,
        })
    }

    /// The same for a directory that nothing is to be changed in. None if there is no data, and the
    /// directory can be used.
    pub(super) fn open_unchanged(folder: &Path) -> Result<Option<Self>, StorageError> {
        let nearest = folder.ancestors().find(|folder| folder.exists());
        let nearest = nearest.unwrap_or(Path::new("."));
        if !nearest.is_dir() {
            return Err(cannot_be_made(folder, &io::ErrorKind::NotADirectory.into()));
        }
        check_writable(nearest, Access::WRITE_OK | Access::EXEC_OK)?;
        if nearest != folder {
            return Ok(None);
        }
        if !check_ours(folder)? {
            return Ok(None);
        }
        check_writable(&folder.join(LOCK_NAME), Access::WRITE_OK)?;
        let lock = lock(folder, OpenOptions::new().read(true))?;
        Ok(Some(Self {
            folder: folder.to_owned(),
            _lock: lock,
        }))
    }

    /// The folder of a partition that is there; nothing is changed in it, and a start could.
    pub(super) fn partition_unchanged(&self, id: u32) -> Result<SystemDisk, StorageError> {
        let folder = self.folder.join(format!("{PARTITION_PREFIX}{id}"));
        check_writable(&folder, Access::WRITE_OK | Access::EXEC_OK)?;
        Ok(SystemDisk::unchanged(&folder))
    }

    /// Whether no partition has data here. Drafts, and a `log-end` without other files, are no
    /// data: a crash may have left them.
    pub fn is_empty(&self) -> Result<bool, StorageError> {
        for name in names_in(&self.folder)?
            .iter()
            .filter(|name| !HARMLESS_NAMES.contains(&name.as_str()))
        {
            let is_no_data = |name: &String| is_draft(name) || name == LOG_END_NAME;
            if !names_in(&self.folder.join(name)).is_ok_and(|names| names.iter().all(is_no_data)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether no partition has data here, and none was removed.
    pub fn is_fresh(&self) -> Result<bool, StorageError> {
        Ok(self.is_empty()? && self.removed_partitions()?.is_empty())
    }

    /// Numbers of the removed partitions that still have folders, as the first partition always
    /// has.
    pub(super) fn removed_partitions(&self) -> Result<Vec<u32>, StorageError> {
        let names = names_in(&self.folder)?;
        let numbers = names.iter().filter_map(|name| removed_numbers(name));
        Ok(numbers.map(|(id, _)| id).collect())
    }
}

/// The name of a partition's folder, before the number of the partition.
const PARTITION_PREFIX: &str = "partition-";

/// The name of a removed partition's folder, between the number of the partition and a number that
/// no other such folder has.
const REMOVED: &str = ".removed-";

/// The partition that a start makes in an empty directory.
const FIRST_PARTITION: u32 = 0;

/// The numbers in a name such as `partition-3.removed-1`.
fn removed_numbers(name: &str) -> Option<(u32, u32)> {
    let (id, number) = name.strip_prefix(PARTITION_PREFIX)?.split_once(REMOVED)?;
    let numbers = (id.parse().ok()?, number.parse().ok()?);
    (*name == removed_name(numbers.0, numbers.1)).then_some(numbers)
}

fn removed_name(id: u32, number: u32) -> String {
    format!("{PARTITION_PREFIX}{id}{REMOVED}{number}")
}

/// Whether a file was saved for an operator.
fn is_saved(name: &str) -> bool {
    name.starts_with("diverged-") || name.strip_suffix(".damaged").is_some()
}

impl Disks for DataDir {
    type Disk = SystemDisk;

    fn partitions(&self) -> Result<Vec<u32>, StorageError> {
        let number = |name: &String| {
            let id: u32 = name.strip_prefix(PARTITION_PREFIX)?.parse().ok()?;
            (*name == format!("{PARTITION_PREFIX}{id}")).then_some(id)
        };
        let mut ids = Vec::new();
        for id in names_in(&self.folder)?.iter().filter_map(number) {
            insert_sorted(&mut ids, id);
        }
        Ok(ids)
    }

    fn partition(&self, id: u32) -> Result<SystemDisk, StorageError> {
        let folder = self.folder.join(format!("{PARTITION_PREFIX}{id}"));
        let make = || match private_folders().create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            // A folder that is there may not be durable yet.
            _ => sync_folder(&self.folder),
        };
        make().map_err(|error| StorageError::io("making", folder.display().to_string(), &error))?;
        Ok(SystemDisk::new(&folder))
    }

    fn remove(&self, id: u32) -> Result<(), StorageError> {
        let name = format!("{PARTITION_PREFIX}{id}");
        let rename = || {
            let names = list(&self.folder)?;
            let numbers = names.iter().filter_map(|name| removed_numbers(name));
            let number = numbers
                .filter(|(of, _)| *of == id)
                .map(|(_, number)| number);
            let target = removed_name(id, number.max().unwrap_or(0) + 1);
            rename_in(&self.folder, &name, &target)
        };
        let path = self.folder.join(&name).display().to_string();
        rename().map_err(|error| StorageError::io("renaming", path, &error))
    }

    fn clear_removed(&self) -> Result<bool, StorageError> {
        for name in names_in(&self.folder)? {
            let Some((id, number)) = removed_numbers(&name) else {
                continue;
            };
            let folder = self.folder.join(&name);
            let names = names_in(&folder)?;
            let clear = || match names.iter().find(|name| !is_saved(name)) {
                Some(file) => fs::remove_file(folder.join(file)).map(|()| true),
                None if names.is_empty() && (id, number) != (FIRST_PARTITION, 1) => {
                    fs::remove_dir(&folder).map(|()| true)
                }
                None => Ok(false),
            };
            let cleared = clear().map_err(|error| {
                StorageError::io("removing", folder.display().to_string(), &error)
            })?;
            if cleared {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn list(folder: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn names_in(folder: &Path) -> Result<Vec<String>, StorageError> {
    list(folder).map_err(|error| {
        let shown = folder.display();
        StorageError::Unusable(format!(
            "--data-dir {shown} cannot be read: {error}; name a directory"
        ))
    })
}

fn cannot_be_made(folder: &Path, error: &io::Error) -> StorageError {
    let shown = folder.display();
    StorageError::Unusable(format!(
        "--data-dir {shown} cannot be made: {error}; name a directory that this user may make"
    ))
}

/// Refuses a path that this user may not write to.
fn check_writable(path: &Path, wanted: Access) -> Result<(), StorageError> {
    access(path, wanted).map_err(|error| cannot_be_written(path, &error.into()))
}

fn cannot_be_written(folder: &Path, error: &io::Error) -> StorageError {
    let shown = folder.display();
    StorageError::Unusable(format!(
        "--data-dir {shown} cannot be written to: {error}; check owner and mode"
    ))
}

/// Whether a directory is a node's, and not just empty. A directory with other files is an error.
fn check_ours(folder: &Path) -> Result<bool, StorageError> {
    let names = names_in(folder)?;
    let is_ours = names.iter().any(|name| name == LOCK_NAME);
    let is_foreign = |name: &&String| !HARMLESS_NAMES.contains(&name.as_str());
    match names.iter().find(is_foreign) {
        Some(foreign) if !is_ours => {
            let shown = folder.display();
            Err(StorageError::Unusable(format!(
                "--data-dir {shown} holds {foreign} and no data of a node: name an empty directory"
            )))
        }
        _ => Ok(is_ours),
    }
}

#[expect(clippy::disallowed_methods, reason = "storage touches files")]
fn lock(folder: &Path, options: &OpenOptions) -> Result<File, StorageError> {
    let opened = options.open(folder.join(LOCK_NAME));
    let file = opened.map_err(|error| cannot_be_written(folder, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StorageError::Locked(folder.display().to_string())),
        Err(TryLockError::Error(error)) => Err(cannot_be_written(folder, &error)),
    }
}
