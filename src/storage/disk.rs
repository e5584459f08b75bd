//! The operations on files that storage needs, as traits, and the directories of the operating
//! system.
//!
//! In tests a simulated disk, which fails, tears and forgets, takes the place of the real one.
//!
//! Storage relies on this and on nothing else: once `sync` has returned, the file's bytes and
//! length survive a power cut; once `rename` has returned, so does everything that was created,
//! renamed and removed in the directory before; a rename is done as a whole or not at all. Writes
//! that were not synced may survive in any order and in part, by sectors of 512 bytes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FallocateFlags, access, fallocate};

use super::error::StorageError;

/// Slices in one system call; the kernel takes up to 1024.
const WRITE_SLICES: usize = 64;

/// One directory of files, named without path; a clone is the same directory.
pub trait Disk: Clone + std::fmt::Debug + Send + 'static {
    /// An open file.
    type File: DiskFile;

    /// Names of all files.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Opens a file that is there, for reading and writing.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Makes an empty file, in place of any other of that name, with room for so many bytes.
    fn create(&self, name: &str, room_bytes: u64) -> io::Result<Self::File>;
    /// Renames a file, over any other of that name, and makes this and all earlier changes of the
    /// directory durable. If the error is a lack of room or descriptors, nothing was done.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file. The next rename makes this durable.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The path of a file, for messages.
    fn path(&self, name: &str) -> String;

    /// Names of all files, or an error that names the directory.
    fn list(&self) -> Result<Vec<String>, StorageError> {
        self.names().on("listing", self, "")
    }
}

/// What an operation gave, with an error that says what was done to which file.
pub(super) trait OnFile<T> {
    /// `action` is what was done, such as "reading".
    fn on<D: Disk>(self, action: &'static str, disk: &D, name: &str) -> Result<T, StorageError>;
}

impl<T> OnFile<T> for io::Result<T> {
    fn on<D: Disk>(self, action: &'static str, disk: &D, name: &str) -> Result<T, StorageError> {
        self.map_err(|error| StorageError::io(action, disk.path(name), &error))
    }
}

/// An open file.
pub trait DiskFile: std::fmt::Debug + Send + 'static {
    /// Its length in bytes, room included.
    fn len_bytes(&self) -> io::Result<u64>;
    /// Reads exactly `into.len()` bytes.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all parts, one behind the other.
    fn write_at(&mut self, parts: &[&[u8]], offset: u64) -> io::Result<()>;
    /// Cuts it to a length.
    fn truncate(&mut self, bytes: u64) -> io::Result<()>;
    /// Makes bytes and length durable.
    fn sync(&mut self) -> io::Result<()>;
}

/// The directories of all partitions.
pub trait Disks: std::fmt::Debug + Send + 'static {
    /// The directory of one partition.
    type Disk: Disk;

    /// Numbers of the partitions that have a directory, ascending.
    fn partitions(&self) -> Result<Vec<u32>, StorageError>;
    /// The directory of a partition, which is made if it is not there.
    fn partition(&self, id: u32) -> Result<Self::Disk, StorageError>;
    /// Renames the directory of a partition so that no start finds it.
    /// [`clear_removed`](Self::clear_removed) removes the files in it.
    fn remove(&self, id: u32) -> Result<(), StorageError>;
    /// Removes one file of removed partitions; false if none is left.
    fn clear_removed(&self) -> Result<bool, StorageError>;
}

/// A directory of the operating system.
#[derive(Clone, Debug)]
pub struct SystemDisk {
    folder: PathBuf,
    is_unchanged: bool,
}

/// A file of the operating system.
#[derive(Debug)]
pub struct SystemFile {
    /// None: it would have been made, and nothing is to be changed.
    file: Option<File>,
    is_unchanged: bool,
}

impl SystemDisk {
    /// The directory, which is there.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            is_unchanged: false,
        }
    }

    /// The directory, in which nothing is changed: reads see what is there, and everything else
    /// does nothing, as if it had succeeded. So a recovery, which reads nothing that it has
    /// written, shows what a start would find.
    pub(super) fn unchanged(folder: &Path) -> Self {
        Self {
            is_unchanged: true,
            ..Self::new(folder)
        }
    }
}

impl SystemFile {
    /// A file that is only read.
    #[expect(clippy::disallowed_methods, reason = "storage touches files")]
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: Some(File::open(path)?),
            is_unchanged: true,
        })
    }

    /// The file, if it may be changed.
    fn changeable(&self) -> Option<&File> {
        self.file.as_ref().filter(|_| !self.is_unchanged)
    }
}

impl Disk for SystemDisk {
    type File = SystemFile;

    fn names(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.folder)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    #[expect(clippy::disallowed_methods, reason = "storage touches files")]
    fn open(&self, name: &str) -> io::Result<SystemFile> {
        let path = self.folder.join(name);
        if self.is_unchanged {
            // A start opens it for writing, too.
            access(&path, Access::WRITE_OK)?;
            return SystemFile::read(&path);
        }
        Ok(SystemFile {
            file: Some(OpenOptions::new().read(true).write(true).open(path)?),
            is_unchanged: false,
        })
    }

    #[expect(clippy::disallowed_methods, reason = "storage touches files")]
    fn create(&self, name: &str, room_bytes: u64) -> io::Result<SystemFile> {
        let is_unchanged = self.is_unchanged;
        if is_unchanged {
            return Ok(SystemFile {
                file: None,
                is_unchanged,
            });
        }
        let path = self.folder.join(name);
        let file = private_files()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        if room_bytes > 0 {
            match fallocate(&file, FallocateFlags::empty(), 0, room_bytes) {
                // Where the file system cannot allocate ahead, the file grows as it is written.
                Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(SystemFile {
            file: Some(file),
            is_unchanged,
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        if self.is_unchanged {
            return Ok(());
        }
        rename_in(&self.folder, from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if self.is_unchanged {
            return Ok(());
        }
        fs::remove_file(self.folder.join(name))
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// Options that make files which no other user may read.
pub(super) fn private_files() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

/// Renames a file or folder in a directory, and makes that durable. If the error is a lack of room
/// or descriptors, nothing was done.
#[expect(clippy::disallowed_methods, reason = "storage touches files")]
pub(super) fn rename_in(folder: &Path, from: &str, to: &str) -> io::Result<()> {
    let opened = File::open(folder)?;
    fs::rename(folder.join(from), folder.join(to))?;
    // Never a shortage that passes: after a failed sync it is not known what is lost.
    opened.sync_all().map_err(io::Error::other)
}

/// Makes durable what was created, renamed and removed in a directory.
#[expect(clippy::disallowed_methods, reason = "storage touches files")]
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

impl DiskFile for SystemFile {
    fn len_bytes(&self) -> io::Result<u64> {
        match &self.file {
            Some(file) => Ok(file.metadata()?.len()),
            None => Ok(0),
        }
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.file {
            Some(file) => file.read_exact_at(into, offset),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn write_at(&mut self, parts: &[&[u8]], mut offset: u64) -> io::Result<()> {
        let Some(file) = self.changeable() else {
            return Ok(());
        };
        for group in parts.chunks(WRITE_SLICES) {
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
            for (slice, part) in slices.iter_mut().zip(group) {
                *slice = IoSlice::new(part);
            }
            let mut rest = &mut slices[..group.len()];
            while rest.iter().any(|slice| !slice.is_empty()) {
                let written = match rustix::io::pwritev(file, rest, offset) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => written,
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(error) => return Err(error.into()),
                };
                offset += written as u64;
                IoSlice::advance_slices(&mut rest, written);
            }
        }
        Ok(())
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        self.changeable().map_or(Ok(()), |file| file.set_len(bytes))
    }

    fn sync(&mut self) -> io::Result<()> {
        self.changeable().map_or(Ok(()), File::sync_data)
    }
}
