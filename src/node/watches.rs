//! Who waits for changes: watchers of a partition, by the prefix of the keys that concern them.
//!
//! A watcher that has seen everything rests. What is written is read from the log once for all who rest, and those whom a record
//! concerns are woken; each then reads on from where it is. So a watcher that rests costs its entry here, and a slow one
//! is not waited for and nothing is kept for it: once the log is gone that it would have to read, so is the watch.
//!
//! Invariants:
//! 1. A watcher is told of every record behind the version it began with whose key has its prefix, once, in order; or it is cut.
//! 2. Nothing is told that is not committed: on disk as clients are promised.
//! 3. A call does bounded work: it looks at about [`LOOK_BYTES`] of log, or wakes those whom one record concerns.
//!
//! Not here: how changes are told (`api/watch.rs`), connections (`reactor/watching.rs`).

use std::collections::{BTreeMap, VecDeque};

use crate::lsm::{LogBatch, StreamRecord};
use crate::partition::Partition;
use crate::storage::HistoryId;

/// Log looked at in one go.
const LOOK_BYTES: usize = 64 * 1024;

/// Prefixes looked for in one go.
const LOOKUPS_MAX: usize = 500;

/// Somebody who wants to be told.
#[derive(Debug)]
struct Watcher {
    partition: u32,
    prefix: Box<[u8]>,
    /// Has been told of everything up to here.
    version: u64,
    /// In the index of its partition; else it is on the list of those who are to read on, or busy.
    is_resting: bool,
    /// On the list of those who are to read on.
    is_listed: bool,
    /// It cannot be told what follows.
    is_cut: bool,
}

/// What is known of a partition that is audience.
#[derive(Debug)]
struct Audience {
    partition: u32,
    history: HistoryId,
    /// Those who rest know everything up to here.
    version: u64,
    /// Who rests, by prefix.
    resting: BTreeMap<Box<[u8]>, Vec<usize>>,
    /// How many prefixes there are of each length.
    prefix_lens: BTreeMap<usize, usize>,
}

/// What a watcher gets when it reads on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// This is not all: it is on the list again.
    More,
    /// It has been told of everything up to this version, and rests.
    UpTo(u64),
    /// What it would have to read is gone, or is of another history: it is a watcher no more.
    Cut,
}

/// All watchers, by the number of their connection.
#[derive(Debug, Default)]
pub struct Watches {
    watchers: BTreeMap<usize, Watcher>,
    audiences: Vec<Audience>,
    /// Who is to read on, in order.
    due: VecDeque<usize>,
    batch: LogBatch,
    looked_bytes: usize,
}

impl Watches {
    /// Somebody wants to be told of what follows a version.
    pub fn enter(&mut self, key: usize, partition: &Partition, prefix: Box<[u8]>, version: u64) {
        let id = partition.id();
        if !self.audiences.iter().any(|audience| audience.partition == id) {
            let (resting, prefix_lens) = (BTreeMap::new(), BTreeMap::new());
            let (history, version) = (partition.history(), partition.committed_version());
            self.audiences.push(Audience { partition: id, history, version, resting, prefix_lens });
        }
        self.watchers.insert(
            key,
            Watcher { partition: id, prefix, version, is_resting: false, is_listed: false, is_cut: false },
        );
        self.list(key);
    }

    /// Somebody is not there any more.
    pub fn leave(&mut self, key: usize) {
        let Some(watcher) = self.watchers.remove(&key) else { return };
        let is_its = |audience: &&mut Audience| audience.partition == watcher.partition;
        if watcher.is_resting
            && let Some(audience) = self.audiences.iter_mut().find(is_its)
        {
            audience.remove(&watcher.prefix, key);
        }
        if self.watchers.is_empty() {
            self.audiences.clear();
            self.due.clear();
        }
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// The partitions that are audience.
    pub fn partitions(&self) -> impl Iterator<Item = u32> {
        self.audiences.iter().map(|audience| audience.partition)
    }

    /// Whether somebody is to read on.
    pub fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The next who is to read on: by [`read`](Self::read), or later, when it has time ([`list`](Self::list)).
    pub fn take_due(&mut self) -> Option<usize> {
        while let Some(key) = self.due.pop_front() {
            if let Some(watcher) = self.watchers.get_mut(&key).filter(|watcher| watcher.is_listed) {
                watcher.is_listed = false;
                return Some(key);
            }
        }
        None
    }

    /// Somebody who does not rest is to read on.
    pub fn list(&mut self, key: usize) {
        if let Some(watcher) = self.watchers.get_mut(&key).filter(|watcher| !watcher.is_resting && !watcher.is_listed) {
            watcher.is_listed = true;
            self.due.push_back(key);
        }
    }

    /// Bytes of log that the last look or reading went through.
    pub fn looked_bytes(&self) -> usize {
        self.looked_bytes
    }

    /// The partition that somebody watches.
    pub fn partition_of(&self, key: usize) -> Option<u32> {
        self.watchers.get(&key).map(|watcher| watcher.partition)
    }

    /// Looks at what was written in a partition, and wakes those whom it concerns; true if there is more to look at.
    pub fn look(&mut self, partition: &Partition) -> bool {
        let is_it = |audience: &&mut Audience| audience.partition == partition.id();
        let Some(audience) = self.audiences.iter_mut().find(is_it) else { return false };
        let committed_version = partition.committed_version();
        if audience.history != partition.history() && !audience.follow(partition) {
            self.cut(partition);
            return false;
        }
        if audience.resting.is_empty() {
            audience.version = committed_version;
        }
        if audience.version >= committed_version {
            return false;
        }
        let Some((mut cursor, before)) = partition.lsm().log_behind(audience.version) else {
            self.cut(partition);
            return false;
        };
        partition.lsm().read_log(&mut cursor, LOOK_BYTES, committed_version, &mut self.batch);
        let mut lookup_count = 0;
        for record in self.batch.records(before) {
            let version = record.position().version;
            for key in audience.take_concerned(record.key()) {
                let Some(watcher) = self.watchers.get_mut(&key) else { continue };
                watcher.is_resting = false;
                watcher.version = watcher.version.max(version - 1);
                watcher.is_listed = true;
                self.due.push_back(key);
            }
            audience.version = version;
            lookup_count += audience.prefix_lens.len();
            if lookup_count > LOOKUPS_MAX {
                break;
            }
        }
        self.batch.clear(0);
        audience.version < committed_version
    }

    /// Nobody who watches a partition can be told what follows.
    fn cut(&mut self, partition: &Partition) {
        for (key, watcher) in self.watchers.iter_mut().filter(|(_, watcher)| watcher.partition == partition.id()) {
            if watcher.is_resting {
                self.due.push_back(*key);
                watcher.is_listed = true;
            }
            (watcher.is_resting, watcher.is_cut) = (false, true);
        }
        if let Some(audience) = self.audiences.iter_mut().find(|audience| audience.partition == partition.id()) {
            audience.resting.clear();
            audience.prefix_lens.clear();
            (audience.history, audience.version) = (partition.history(), partition.committed_version());
        }
    }

    /// Somebody reads on: `tell` is called with each record that concerns it until it returns false.
    pub fn read(&mut self, key: usize, partition: &Partition, mut tell: impl FnMut(&StreamRecord<'_>) -> bool) -> Told {
        let Some(watcher) = self.watchers.get_mut(&key) else { return Told::Cut };
        let committed_version = partition.committed_version();
        self.looked_bytes = 0;
        if watcher.version < committed_version && !watcher.is_cut {
            match partition.lsm().log_behind(watcher.version) {
                None => watcher.is_cut = true,
                Some((mut cursor, before)) => {
                    partition.lsm().read_log(&mut cursor, LOOK_BYTES, committed_version, &mut self.batch);
                    self.looked_bytes = self.batch.stream_bytes();
                    for record in self.batch.records(before) {
                        watcher.version = record.position().version;
                        if record.key().starts_with(&watcher.prefix) && !tell(&record) {
                            break;
                        }
                    }
                    self.batch.clear(0);
                }
            }
        }
        if watcher.is_cut {
            self.leave(key);
            return Told::Cut;
        }
        if watcher.version < committed_version {
            self.list(key);
            return Told::More;
        }
        let version = watcher.version;
        watcher.is_resting = true;
        if let Some(audience) = self.audiences.iter_mut().find(|audience| audience.partition == partition.id()) {
            if audience.resting.is_empty() {
                audience.version = version;
            }
            audience.add(watcher.prefix.clone(), key);
        }
        Told::UpTo(version)
    }
}

impl Audience {
    fn add(&mut self, prefix: Box<[u8]>, key: usize) {
        let prefix_len = prefix.len();
        let keys = self.resting.entry(prefix).or_default();
        if keys.is_empty() {
            *self.prefix_lens.entry(prefix_len).or_default() += 1;
        }
        keys.push(key);
    }

    fn remove(&mut self, prefix: &[u8], key: usize) {
        let Some(keys) = self.resting.get_mut(prefix) else { return };
        keys.retain(|other| *other != key);
        if keys.is_empty() {
            self.take(prefix);
        }
    }

    /// Those who rest with a prefix rest no more.
    fn take(&mut self, prefix: &[u8]) -> Vec<usize> {
        let Some(keys) = self.resting.remove(prefix) else { return Vec::new() };
        if let Some(count) = self.prefix_lens.get_mut(&prefix.len()) {
            *count -= 1;
            if *count == 0 {
                self.prefix_lens.remove(&prefix.len());
            }
        }
        keys
    }

    /// Those whom a key concerns rest no more.
    fn take_concerned(&mut self, key: &[u8]) -> Vec<usize> {
        let lens: Vec<usize> = self.prefix_lens.range(..=key.len()).map(|(len, _)| *len).collect();
        lens.into_iter().flat_map(|len| self.take(&key[..len])).collect()
    }

    /// Goes on in another history, if that has all that those who rest know.
    fn follow(&mut self, partition: &Partition) -> bool {
        let lineage = &partition.roles().standing().lineage;
        let follows = lineage.common_version(self.history, self.version) == Some(self.version);
        self.history = partition.history();
        follows
    }
}
