//! A generation of files: a complete set of log and checkpoint in the folder of a partition.
//!
//! A replacement of all data writes the next generation beside the one in force. The names of
//! generation 3 begin with `g3-`, those of generation 0 have no prefix.

use std::io;

use super::disk::Disk;
use super::file_names::{checkpoint_version, log_first_version};

/// A directory with the files of one generation alone.
#[derive(Clone, Debug)]
pub(super) struct Generation<D> {
    disk: D,
    pub(super) number: u32,
}

impl<D: Disk> Generation<D> {
    pub(super) fn new(disk: D, number: u32) -> Self {
        Self { disk, number }
    }

    fn name_in_folder(&self, name: &str) -> String {
        match self.number {
            0 => name.to_owned(),
            // The folder itself.
            _ if name.is_empty() => String::new(),
            number => format!("g{number}-{name}"),
        }
    }
}

/// Whether a name within a generation is that of a log file or checkpoint, or of a draft of one.
fn is_data(name: &str) -> bool {
    let whole = name.strip_suffix(".tmp").unwrap_or(name);
    log_first_version(whole).is_some() || checkpoint_version(whole).is_some()
}

/// The generation that a name in the folder belongs to, if it is that of a log file or checkpoint.
pub(super) fn generation_of_data(name: &str) -> Option<u32> {
    let (number, inner) = split(name);
    is_data(inner).then_some(number)
}

/// The generation that a name in the folder belongs to, and the name in it.
pub(super) fn split(name: &str) -> (u32, &str) {
    let prefixed = name.strip_prefix('g').and_then(|rest| rest.split_once('-'));
    match prefixed.and_then(|(number, inner)| Some((number.parse().ok()?, inner))) {
        Some((number, inner)) if number > 0 => (number, inner),
        _ => (0, name),
    }
}

impl<D: Disk> Disk for Generation<D> {
    type File = D::File;

    fn names(&self) -> io::Result<Vec<String>> {
        let names = self.disk.names()?;
        let of_this = names
            .iter()
            .map(|name| split(name))
            .filter(|(number, _)| *number == self.number);
        Ok(of_this.map(|(_, name)| name.to_owned()).collect())
    }

    fn open(&self, name: &str) -> io::Result<D::File> {
        self.disk.open(&self.name_in_folder(name))
    }

    fn create(&self, name: &str, room_bytes: u64) -> io::Result<D::File> {
        self.disk.create(&self.name_in_folder(name), room_bytes)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk
            .rename(&self.name_in_folder(from), &self.name_in_folder(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(&self.name_in_folder(name))
    }

    fn path(&self, name: &str) -> String {
        self.disk.path(&self.name_in_folder(name))
    }
}
