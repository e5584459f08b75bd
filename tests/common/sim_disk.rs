//! A disk in memory that behaves as badly as a real one may: what was not synced is kept, torn or
//! lost by sectors when the power goes, whatever the order it was written in; calls can fail; a
//! failed sync loses what it was to keep.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use db_node::storage::{Disk, DiskFile};

const SECTOR_BYTES: usize = 512;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The power goes: this call and all that follow fail, until [`SimDisk::crash`].
    PowerCut,
    /// An error once; part of what was to be done may be.
    Error(io::ErrorKind),
}

/// What there is not enough of, until there is again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// Room: files do not grow, and new ones stay empty.
    Room,
    /// Room on a disk that writes nothing in place: no write is done whole, and none of a new name.
    RoomForAnything,
    /// Room at once: files grow, and no room is allocated ahead.
    RoomAhead,
    /// Descriptors: no file and no folder can be opened.
    Descriptors,
}

impl Shortage {
    pub(crate) const ALL: [Self; 4] = [
        Self::Room,
        Self::RoomForAnything,
        Self::RoomAhead,
        Self::Descriptors,
    ];
}

/// Too many open files.
const EMFILE: i32 = 24;

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(String, usize),
    Unlink(String),
    Rename(String, String, usize),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    /// As a reader sees it.
    bytes: Vec<u8>,
    /// As it is after a power cut, at least.
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug)]
struct State {
    rng: fastrand::Rng,
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    call_count: u64,
    fault: Option<(u64, Fault)>,
    shortage: Option<Shortage>,
    is_off: bool,
}

/// The disk; a clone is the same disk.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// A file on it.
#[derive(Debug)]
pub(crate) struct SimFile {
    disk: SimDisk,
    inode: usize,
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write {
            offset,
            bytes: written,
        } => {
            let end = offset + written.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(written);
        }
        Change::Length(len) => bytes.resize(*len, 0),
    }
}

fn apply_name(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Link(name, inode) => drop(names.insert(name.clone(), *inode)),
        NameChange::Unlink(name) => drop(names.remove(name)),
        NameChange::Rename(from, to, inode) => {
            names.remove(from);
            names.insert(to.clone(), *inode);
        }
    }
}

impl State {
    /// Counts a call, and fails it if it is its turn.
    fn call(&mut self) -> io::Result<()> {
        self.call_count += 1;
        if self.is_off {
            return Err(io::Error::other("the power is off"));
        }
        match self.fault {
            Some((at, Fault::PowerCut)) if self.call_count >= at => {
                self.is_off = true;
                Err(io::Error::other("the power is off"))
            }
            Some((at, Fault::Error(kind))) if self.call_count >= at => {
                self.fault = None;
                Err(kind.into())
            }
            _ => Ok(()),
        }
    }

    /// Something is to be opened.
    fn open(&mut self) -> io::Result<()> {
        self.call()?;
        match self.shortage {
            Some(Shortage::Descriptors) => Err(io::Error::from_raw_os_error(EMFILE)),
            _ => Ok(()),
        }
    }

    /// How many of so many bytes at an offset of a file there is room for.
    fn room_for(&self, inode: usize, offset: usize, bytes: usize) -> usize {
        match self.shortage {
            None | Some(Shortage::Descriptors | Shortage::RoomAhead) => bytes,
            Some(Shortage::Room) => {
                let len = self.inodes[inode].bytes.len();
                len.saturating_sub(offset).min(bytes)
            }
            Some(Shortage::RoomForAnything) => 0,
        }
    }

    fn inode_of(&self, name: &str) -> io::Result<usize> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change_names(&mut self, change: NameChange) {
        apply_name(&mut self.names, &change);
        self.pending_names.push(change);
    }

    fn change(&mut self, inode: usize, change: Change) {
        apply(&mut self.inodes[inode].bytes, &change);
        self.inodes[inode].pending.push(change);
    }

    /// Keeps a random part of what was not synced: sectors of writes each for themselves.
    fn settle(&mut self, inode: usize, kept_share: f64) {
        for change in std::mem::take(&mut self.inodes[inode].pending) {
            match change {
                Change::Write { offset, bytes } => {
                    let mut at = 0;
                    while at < bytes.len() {
                        let sector_end = (offset + at + 1).next_multiple_of(SECTOR_BYTES) - offset;
                        let end = sector_end.min(bytes.len());
                        if self.rng.f64() < kept_share {
                            let part = Change::Write {
                                offset: offset + at,
                                bytes: bytes[at..end].to_vec(),
                            };
                            apply(&mut self.inodes[inode].durable, &part);
                        }
                        at = end;
                    }
                }
                length @ Change::Length(_) => {
                    if self.rng.f64() < kept_share {
                        apply(&mut self.inodes[inode].durable, &length);
                    }
                }
            }
        }
    }
}

impl SimDisk {
    /// An empty disk.
    pub(crate) fn new(seed: u64) -> Self {
        let state = State {
            rng: fastrand::Rng::with_seed(seed),
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            call_count: 0,
            fault: None,
            shortage: None,
            is_off: false,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("one thread")
    }

    /// Has the call after so many others fail.
    pub(crate) fn fail_after(&self, call_count: u64, fault: Fault) {
        let mut state = self.state();
        state.fault = Some((state.call_count + call_count, fault));
    }

    /// No call fails any more.
    pub(crate) fn clear_fault(&self) {
        self.state().fault = None;
    }

    /// From now on something is short, or nothing is any more. It lasts over power cuts.
    pub(crate) fn set_shortage(&self, shortage: Option<Shortage>) {
        self.state().shortage = shortage;
    }

    /// What is short.
    pub(crate) fn shortage(&self) -> Option<Shortage> {
        self.state().shortage
    }

    /// A file is lost.
    pub(crate) fn lose(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    /// Two files have each other's name.
    pub(crate) fn swap(&self, a: &str, b: &str) {
        let (bytes_a, bytes_b) = (self.bytes_of(a), self.bytes_of(b));
        self.put(a, bytes_b);
        self.put(b, bytes_a);
    }

    /// A file has another name, over any other of that name.
    pub(crate) fn move_over(&self, from: &str, to: &str) {
        let bytes = self.bytes_of(from);
        self.lose(from);
        self.put(to, bytes);
    }

    /// A file is there under another name, too, over any other of that name.
    pub(crate) fn duplicate(&self, from: &str, to: &str) {
        self.put(to, self.bytes_of(from));
    }

    /// The bytes of a file are changed by another hand, for good.
    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.bytes_of(name);
        change(&mut bytes);
        self.put(name, bytes);
    }

    fn bytes_of(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.inodes[state.names[name]].bytes.clone()
    }

    fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let inode = state.inodes.len();
        state.inodes.push(Inode {
            durable: bytes.clone(),
            bytes,
            pending: Vec::new(),
        });
        state.names.insert(name.to_owned(), inode);
        state.durable_names.insert(name.to_owned(), inode);
    }

    /// The power goes and comes back: what was not synced is kept in part.
    pub(crate) fn crash(&self) {
        let mut guard = self.state();
        let state = &mut *guard;
        let kept_share = [0.0, 0.1, 0.5, 0.9, 1.0][state.rng.usize(..5)];
        for change in std::mem::take(&mut state.pending_names) {
            if state.rng.f64() < kept_share {
                apply_name(&mut state.durable_names, &change);
            }
        }
        for inode in 0..state.inodes.len() {
            state.settle(inode, kept_share);
        }
        // Files without a name are gone.
        let kept: Vec<(String, usize)> = state.durable_names.clone().into_iter().collect();
        let inodes: Vec<Inode> = kept
            .iter()
            .map(|(_, inode)| {
                let durable = std::mem::take(&mut state.inodes[*inode].durable);
                Inode {
                    bytes: durable.clone(),
                    durable,
                    pending: Vec::new(),
                }
            })
            .collect();
        state.inodes = inodes;
        state.names = kept
            .into_iter()
            .enumerate()
            .map(|(inode, (name, _))| (name, inode))
            .collect();
        state.durable_names = state.names.clone();
        (state.fault, state.is_off) = (None, false);
    }

    /// All files with their bytes.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        state
            .names
            .iter()
            .map(|(name, inode)| (name.clone(), state.inodes[*inode].bytes.clone()))
            .collect()
    }

    /// A disk that holds these files.
    pub(crate) fn with_files(files: &BTreeMap<String, Vec<u8>>) -> Self {
        let disk = Self::new(0);
        {
            let mut state = disk.state();
            for (inode, (name, bytes)) in files.iter().enumerate() {
                state.names.insert(name.clone(), inode);
                state.inodes.push(Inode {
                    bytes: bytes.clone(),
                    durable: bytes.clone(),
                    pending: Vec::new(),
                });
            }
            state.durable_names = state.names.clone();
        }
        disk
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn names(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.open()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        let mut state = self.state();
        state.open()?;
        Ok(SimFile {
            inode: state.inode_of(name)?,
            disk: self.clone(),
        })
    }

    fn create(&self, name: &str, room_bytes: u64) -> io::Result<SimFile> {
        let mut state = self.state();
        state.open()?;
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        state.change_names(NameChange::Link(name.to_owned(), inode));
        let room_bytes = usize::try_from(room_bytes).expect("small");
        let is_short_ahead = state.shortage == Some(Shortage::RoomAhead) && room_bytes > 0;
        if is_short_ahead || state.room_for(inode, 0, room_bytes) < room_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if room_bytes > 0 {
            state.change(inode, Change::Length(room_bytes));
        }
        Ok(SimFile {
            inode,
            disk: self.clone(),
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut guard = self.state();
        let state = &mut *guard;
        state.open()?;
        if state.shortage == Some(Shortage::RoomForAnything) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = state.inode_of(from)?;
        state.change_names(NameChange::Rename(from.to_owned(), to.to_owned(), inode));
        // Then the folder is synced.
        state.call().map_err(io::Error::other)?;
        for change in std::mem::take(&mut state.pending_names) {
            apply_name(&mut state.durable_names, &change);
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.call()?;
        state.inode_of(name)?;
        state.change_names(NameChange::Unlink(name.to_owned()));
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        name.to_owned()
    }
}

impl DiskFile for SimFile {
    fn len_bytes(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.call()?;
        Ok(state.inodes[self.inode].bytes.len() as u64)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.call()?;
        let offset = usize::try_from(offset).expect("small");
        let bytes = state.inodes[self.inode]
            .bytes
            .get(offset..offset + into.len());
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&mut self, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let mut bytes = parts.concat();
        let offset = usize::try_from(offset).expect("small");
        let mut outcome = state.call();
        let room_bytes = state.room_for(self.inode, offset, bytes.len());
        if outcome.is_err() {
            let len = state.rng.usize(..=bytes.len());
            bytes.truncate(len);
        } else if room_bytes < bytes.len() {
            // What was left of a block may still take some.
            let len = room_bytes + state.rng.usize(..bytes.len() - room_bytes);
            bytes.truncate(len);
            outcome = Err(io::ErrorKind::StorageFull.into());
        }
        state.change(self.inode, Change::Write { offset, bytes });
        outcome
    }

    fn truncate(&mut self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.call()?;
        state.change(
            self.inode,
            Change::Length(usize::try_from(bytes).expect("small")),
        );
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        if let Err(error) = state.call() {
            if !state.is_off {
                // What the system could not write it forgets, and the next sync says that all is
                // well.
                let kept_share = state.rng.f64();
                state.settle(self.inode, kept_share);
            }
            return Err(error);
        }
        let inode = &mut state.inodes[self.inode];
        for change in std::mem::take(&mut inode.pending) {
            apply(&mut inode.durable, &change);
        }
        Ok(())
    }
}
