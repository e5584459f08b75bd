//! A file that appears under its name at once: written as `NAME.tmp`, synced as it grows, then
//! renamed.
//!
//! Invariant: a file has its name only when all of its bytes are synced, and once
//! [`put_in_place`](Draft::put_in_place) has returned, the name is durable.

use std::io;

use super::disk::{Disk, DiskFile, OnFile};
use super::error::StorageError;

/// A file on its way.
#[derive(Debug)]
pub(super) struct Draft<D: Disk> {
    disk: D,
    name: String,
    room_bytes: u64,
    /// None until the first bytes are written.
    file: Option<D::File>,
    offset: u64,
    is_in_place: bool,
}

impl<D: Disk> Draft<D> {
    /// A draft of the file `name`, without any bytes; room for `room_bytes` is allocated with it.
    pub(super) fn new(disk: D, name: String, room_bytes: u64) -> Self {
        Self {
            disk,
            name,
            room_bytes,
            file: None,
            offset: 0,
            is_in_place: false,
        }
    }

    /// The path that the file is going to have, for messages.
    pub(super) fn path(&self) -> String {
        self.disk.path(&self.name)
    }

    /// Writes bytes behind those written before, and syncs them. After an error the same bytes can
    /// be appended again.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let appended = self.write(bytes);
        appended.on("writing", &self.disk, &self.name)
    }

    /// Appends what is in a buffer, and empties it.
    pub(super) fn append_all(&mut self, buffer: &mut Vec<u8>) -> Result<(), StorageError> {
        if !buffer.is_empty() {
            self.append(buffer)?;
            buffer.clear();
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(self.disk.create(&draft_name(&self.name), self.room_bytes)?),
        };
        file.write_at(&[bytes], self.offset)?;
        file.sync()?;
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Gives the file its name. Without bytes there is no file, and none is made.
    pub(super) fn put_in_place(&mut self) -> Result<(), StorageError> {
        if self.file.is_some() && !self.is_in_place {
            let renamed = self.disk.rename(&draft_name(&self.name), &self.name);
            renamed.on("renaming", &self.disk, &self.name)?;
            self.is_in_place = true;
        }
        Ok(())
    }

    /// Removes the draft: it takes room that may be wanted. What cannot be removed now is removed
    /// at the next start.
    pub(super) fn remove(self) {
        drop(self.file);
        let _ = self.disk.remove(&draft_name(&self.name));
    }
}

/// Writes a whole file, in place of any other of that name. When this returns, the file is durable.
pub(super) fn write_file<D: Disk>(
    disk: &D,
    name: &str,
    bytes: &[u8],
    room_bytes: u64,
) -> Result<D::File, StorageError> {
    let mut draft = Draft::new(disk.clone(), name.to_owned(), room_bytes);
    match draft.append(bytes).and_then(|()| draft.put_in_place()) {
        Ok(()) => Ok(draft.file.expect("the first append makes the file")),
        Err(error) => {
            draft.remove();
            Err(error)
        }
    }
}

fn draft_name(name: &str) -> String {
    format!("{name}.tmp")
}

/// Whether a file of this name is a draft, which a start removes.
pub(super) fn is_draft(name: &str) -> bool {
    name.strip_suffix(".tmp").is_some()
}
