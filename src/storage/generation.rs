//! The files of one generation among those of a partition: a directory of their own, by a prefix of their names.

use std::io;

use super::disk::Disk;

/// The files of one generation.
#[derive(Clone, Debug)]
pub(super) struct Generation<D> {
    disk: D,
    number: u32,
}

impl<D: Disk> Generation<D> {
    pub(super) fn new(disk: D, number: u32) -> Self {
        Self { disk, number }
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    fn name_in_folder(&self, name: &str) -> String {
        match self.number {
            0 => name.to_owned(),
            // The folder.
            _ if name.is_empty() => String::new(),
            number => format!("g{number}-{name}"),
        }
    }

    /// Removes the files of all other generations that `is_data` by the names they have in theirs.
    pub(super) fn remove_others(&self, is_data: impl Fn(&str) -> bool) -> io::Result<()> {
        for name in self.disk.names()? {
            let (number, inner) = split(&name);
            if number != self.number && is_data(inner) {
                self.disk.remove(&name)?;
            }
        }
        Ok(())
    }
}

/// The generation that a name in the folder belongs to, and the name in it.
fn split(name: &str) -> (u32, &str) {
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

    fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_names()
    }

    fn path(&self, name: &str) -> String {
        self.disk.path(&self.name_in_folder(name))
    }
}
