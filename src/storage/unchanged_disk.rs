//! A directory in which nothing is changed: reads see what is there, and everything else does
//! nothing, as if it had succeeded. With it a recovery shows what a start would find.
//!
//! Not here: what is made of that (`start_check.rs`). A reader of its own writes would be misled;
//! recovery reads nothing that it has written.

use std::io;

use super::disk::{Disk, DiskFile};

/// A directory that stays as it is.
#[derive(Clone, Debug)]
pub(super) struct UnchangedDisk<D: Disk>(pub(super) D);

/// A file of such a directory.
#[derive(Debug)]
pub(super) enum UnchangedFile<F: DiskFile> {
    /// A file that is there.
    Found(F),
    /// A file that would have been made.
    Pretended,
}

impl<D: Disk> Disk for UnchangedDisk<D> {
    type File = UnchangedFile<D::File>;

    fn names(&self) -> io::Result<Vec<String>> {
        self.0.names()
    }

    fn open(&self, name: &str) -> io::Result<Self::File> {
        self.0.open(name).map(UnchangedFile::Found)
    }

    fn create(&self, _: &str, _: u64) -> io::Result<Self::File> {
        Ok(UnchangedFile::Pretended)
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        self.0.path(name)
    }
}

impl<F: DiskFile> DiskFile for UnchangedFile<F> {
    fn len_bytes(&self) -> io::Result<u64> {
        match self {
            Self::Found(file) => file.len_bytes(),
            Self::Pretended => Ok(0),
        }
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::Found(file) => file.read_at(into, offset),
            Self::Pretended => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn write_at(&mut self, _: &[&[u8]], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}
