//! Watchers of a partition, by the prefix of the keys that they watch.
//!
//! A watcher that has seen everything rests. New records are read from the log once for all resting
//! watchers, and a record wakes the watchers of its key's prefixes; each then reads on from its
//! own position. So a resting watcher costs its entry here. A slow watcher holds nothing up and
//! keeps nothing alive: once the log that it would have to read is gone, its watch is cut.
//!
//! Invariants:
//! 1. A watcher gets every record of its prefix behind the version it began with, once, in order;
//!    or it is cut.
//! 2. Only committed records are sent: on disk as clients are promised.
//! 3. A call does bounded work, however many watchers there are: it looks at about [`LOOK_BYTES`]
//!    of log and for [`LOOKUPS_MAX`] prefixes, or goes on with one watcher. The watchers that a
//!    record concerns are put on the list as they rest, all of one prefix at once.
//!
//! Not here: how changes are sent (`api/body/change_stream.rs`), connections
//! (`reactor/watching.rs`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::lsm::{LogBatch, StreamRecord};
use crate::partition::Partition;
use crate::storage::{HistoryId, VersionToken};

/// Log looked at in one go.
const LOOK_BYTES: usize = 64 * 1024;

/// Prefixes looked for in one go.
const LOOKUPS_MAX: usize = 500;

/// Resting watchers, by prefix.
type RestingWatchers = BTreeMap<Box<[u8]>, BTreeSet<usize>>;

/// A watcher.
#[derive(Debug)]
struct Watcher {
    partition: u32,
    prefix: Box<[u8]>,
    /// The watcher has every record up to here.
    version: u64,
    /// The token of the version that it had when it last read.
    token: VersionToken,
    place: WatchState,
    /// The generation of its partition's watchers when it came.
    generation: u64,
}

/// What a watcher is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WatchState {
    /// Among the resting watchers, or on the list with them.
    Resting,
    /// On the list by itself.
    Listed,
    /// Reading, or busy sending what it has read.
    Busy,
}

/// An entry of the list of watchers that are to read on.
#[derive(Debug)]
enum DueWatch {
    One(usize),
    /// Watchers that rested, and have every record before this version.
    Woken {
        keys: RestingWatchers,
        version: u64,
    },
}

/// The watchers of a partition.
#[derive(Debug)]
struct WatchedPartition {
    partition: u32,
    history: HistoryId,
    /// Watchers of another generation cannot continue: their history has ended.
    generation: u64,
    /// The resting watchers have every record up to here.
    version: u64,
    resting: RestingWatchers,
    /// How many prefixes there are of each length.
    prefix_lens: BTreeMap<usize, usize>,
}

/// What a watcher gets when it reads on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchProgress {
    /// There is more: the watcher is on the list again.
    More,
    /// The watcher has everything, and rests.
    All,
    /// The log that it would have to read is gone, or of another history: it is a watcher no more.
    Cut,
}

/// All watchers, by the number of their connection.
#[derive(Debug, Default)]
pub struct Watches {
    watchers: BTreeMap<usize, Watcher>,
    audiences: Vec<WatchedPartition>,
    /// Watchers that are to read on, in order.
    due: VecDeque<DueWatch>,
    batch: LogBatch,
    looked_bytes: usize,
}

impl Watches {
    /// Adds a watcher of what follows a version.
    pub fn enter(&mut self, key: usize, partition: &Partition, prefix: Box<[u8]>, version: u64) {
        let id = partition.id();
        if self.audience(id).is_none() {
            self.audiences.push(WatchedPartition::new(partition));
        }
        let generation = self.audience(id).map_or(0, |audience| audience.generation);
        self.watchers.insert(
            key,
            Watcher {
                partition: id,
                prefix,
                version,
                token: partition.token_of(version),
                place: WatchState::Busy,
                generation,
            },
        );
        self.list(key);
    }

    fn audience(&mut self, partition: u32) -> Option<&mut WatchedPartition> {
        self.audiences
            .iter_mut()
            .find(|audience| audience.partition == partition)
    }

    /// Removes a watcher.
    pub fn leave(&mut self, key: usize) {
        let Some(watcher) = self.watchers.remove(&key) else {
            return;
        };
        if watcher.place == WatchState::Resting
            && let Some(audience) = self.audience(watcher.partition)
        {
            audience.remove(&watcher.prefix, key);
        }
        if self.watchers.is_empty() {
            self.audiences.clear();
            self.due.clear();
        }
    }

    /// Whether there is no watcher.
    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// The partitions that are watched.
    pub fn partitions(&self) -> Vec<u32> {
        self.audiences
            .iter()
            .map(|audience| audience.partition)
            .collect()
    }

    /// Whether a watcher is to read on.
    pub fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The next watcher that is to read on: by [`read`](Self::read), or later, when it has time
    /// ([`list`](Self::list)).
    pub fn take_due(&mut self) -> Option<usize> {
        loop {
            let (key, woken_at) = match self.due.front_mut()? {
                DueWatch::One(key) => (Some(*key), None),
                DueWatch::Woken { keys, version } => (pop(keys), Some(*version)),
            };
            if woken_at.is_none() || key.is_none() {
                self.due.pop_front();
            }
            let Some(key) = key else { continue };
            // It may have left, and another one come under its number.
            let expected = if woken_at.is_some() {
                WatchState::Resting
            } else {
                WatchState::Listed
            };
            let Some(watcher) = self
                .watchers
                .get_mut(&key)
                .filter(|watcher| watcher.place == expected)
            else {
                continue;
            };
            watcher.place = WatchState::Busy;
            if let Some(version) = woken_at {
                watcher.version = watcher.version.max(version - 1);
                let (partition, prefix) = (watcher.partition, watcher.prefix.clone());
                if let Some(audience) = self.audience(partition) {
                    audience.remove(&prefix, key);
                }
            }
            return Some(key);
        }
    }

    /// Puts a watcher that does not rest on the list.
    pub fn list(&mut self, key: usize) {
        if let Some(watcher) = self
            .watchers
            .get_mut(&key)
            .filter(|watcher| watcher.place == WatchState::Busy)
        {
            watcher.place = WatchState::Listed;
            self.due.push_back(DueWatch::One(key));
        }
    }

    /// Bytes of log that the last look or reading went through.
    pub fn looked_bytes(&self) -> usize {
        self.looked_bytes
    }

    /// Whether a watcher has nothing to read, as far as the log was looked at.
    pub fn rests(&self, key: usize) -> bool {
        self.resting_version(key).is_some()
    }

    /// Up to where the log was looked at for a watcher that rests.
    fn resting_version(&self, key: usize) -> Option<u64> {
        let watcher = self.watchers.get(&key)?;
        let is_it = |audience: &&WatchedPartition| audience.partition == watcher.partition;
        let audience = self.audiences.iter().find(is_it)?;
        let keys = audience.resting.get(&watcher.prefix)?;
        (watcher.generation == audience.generation && keys.contains(&key))
            .then(|| audience.version.max(watcher.version))
    }

    /// Up to where a watcher knows everything that concerns it. What others wrote meanwhile counts,
    /// so that a watcher that no change concerns does not fall out of the log.
    pub fn position_of(&self, key: usize, partition: &Partition) -> Option<VersionToken> {
        let watcher = self.watchers.get(&key)?;
        let is_it = |audience: &&WatchedPartition| audience.partition == partition.id();
        let audience = self.audiences.iter().find(is_it)?;
        // The log that was looked at may be that of another history than the present one.
        let is_present = audience.history == partition.history();
        Some(match self.resting_version(key).filter(|_| is_present) {
            Some(version) => partition.token_of(version),
            None => watcher.token,
        })
    }

    /// The partition that a watcher watches.
    pub fn partition_of(&self, key: usize) -> Option<u32> {
        self.watchers.get(&key).map(|watcher| watcher.partition)
    }

    /// Looks at what was written in a partition, and wakes the watchers that it concerns; true if
    /// there is more to look at.
    pub fn look(&mut self, partition: &Partition) -> bool {
        let is_it = |audience: &&mut WatchedPartition| audience.partition == partition.id();
        let Some(audience) = self.audiences.iter_mut().find(is_it) else {
            return false;
        };
        let committed_version = partition.committed_version();
        if audience.history != partition.history() && !audience.follow(partition) {
            self.due.extend(audience.cut(partition));
            return false;
        }
        if audience.resting.is_empty() {
            audience.version = committed_version;
        }
        if audience.version >= committed_version {
            return false;
        }
        let Some((mut cursor, before)) = partition.lsm().log_behind(audience.version) else {
            self.due.extend(audience.cut(partition));
            return false;
        };
        partition
            .lsm()
            .read_log(&mut cursor, LOOK_BYTES, committed_version, &mut self.batch);
        let mut lookup_count = 0;
        for record in self.batch.records(before) {
            let version = record.position().version;
            lookup_count += audience.prefix_lens.len();
            let keys = audience.take_concerned(record.key());
            if !keys.is_empty() {
                self.due.push_back(DueWatch::Woken { keys, version });
            }
            audience.version = version;
            if lookup_count > LOOKUPS_MAX {
                break;
            }
        }
        self.batch.clear(0);
        audience.version < committed_version
    }

    /// A partition is not here any more: its watchers find that out when they read on, those that
    /// rest at once.
    pub fn cut(&mut self, partition: u32) {
        let Some(audience) = self.audience(partition) else {
            return;
        };
        audience.prefix_lens.clear();
        let keys = std::mem::take(&mut audience.resting);
        if !keys.is_empty() {
            self.due.push_back(DueWatch::Woken { keys, version: 1 });
        }
    }

    /// A watcher reads on: `tell` is called with each record that concerns it until it returns
    /// false.
    pub fn read(
        &mut self,
        key: usize,
        partition: &Partition,
        mut tell: impl FnMut(&StreamRecord<'_>) -> bool,
    ) -> WatchProgress {
        let is_it = |audience: &&mut WatchedPartition| audience.partition == partition.id();
        let audience = self.audiences.iter_mut().find(is_it);
        let (Some(watcher), Some(audience)) = (self.watchers.get_mut(&key), audience) else {
            return WatchProgress::Cut;
        };
        let committed_version = partition.committed_version();
        self.looked_bytes = 0;
        let mut is_cut =
            watcher.generation != audience.generation || !partition.lineage().holds(watcher.token);
        if watcher.version < committed_version && !is_cut {
            match partition.lsm().log_behind(watcher.version) {
                None => is_cut = true,
                Some((mut cursor, before)) => {
                    partition.lsm().read_log(
                        &mut cursor,
                        LOOK_BYTES,
                        committed_version,
                        &mut self.batch,
                    );
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
        if is_cut {
            self.leave(key);
            return WatchProgress::Cut;
        }
        let version = watcher.version;
        watcher.token = partition.token_of(version);
        if version < committed_version {
            self.list(key);
            return WatchProgress::More;
        }
        watcher.place = WatchState::Resting;
        // It may be behind what others were told: a new leader has less that is committed than it
        // had as a replica. What is looked at once more wakes none of the others, since it concerns
        // none of them, or they have it.
        if audience.resting.is_empty() || version < audience.version {
            audience.version = version;
        }
        audience.add(watcher.prefix.clone(), key);
        WatchProgress::All
    }
}

/// Takes a watcher out of those that rest.
fn pop(keys: &mut RestingWatchers) -> Option<usize> {
    let mut first = keys.first_entry()?;
    let key = first.get_mut().pop_first();
    if first.get().is_empty() {
        first.remove();
    }
    key
}

impl WatchedPartition {
    fn new(partition: &Partition) -> Self {
        Self {
            partition: partition.id(),
            history: partition.history(),
            generation: 0,
            version: partition.committed_version(),
            resting: RestingWatchers::new(),
            prefix_lens: BTreeMap::new(),
        }
    }

    fn add(&mut self, prefix: Box<[u8]>, key: usize) {
        let prefix_len = prefix.len();
        let keys = self.resting.entry(prefix).or_default();
        if keys.is_empty() {
            *self.prefix_lens.entry(prefix_len).or_default() += 1;
        }
        keys.insert(key);
    }

    fn remove(&mut self, prefix: &[u8], key: usize) {
        let Some(keys) = self.resting.get_mut(prefix) else {
            return;
        };
        keys.remove(&key);
        if keys.is_empty() {
            self.take(prefix);
        }
    }

    /// Wakes the resting watchers of a prefix.
    fn take(&mut self, prefix: &[u8]) -> Option<(Box<[u8]>, BTreeSet<usize>)> {
        let taken = self.resting.remove_entry(prefix)?;
        if let Some(count) = self.prefix_lens.get_mut(&prefix.len()) {
            *count -= 1;
            if *count == 0 {
                self.prefix_lens.remove(&prefix.len());
            }
        }
        Some(taken)
    }

    /// Wakes the resting watchers that a key concerns.
    fn take_concerned(&mut self, key: &[u8]) -> RestingWatchers {
        let lens = self.prefix_lens.range(..=key.len());
        let lens: Vec<usize> = lens.map(|(len, _)| *len).collect();
        let lens = lens.into_iter();
        lens.filter_map(|len| self.take(&key[..len])).collect()
    }

    /// Cuts the present watchers, which cannot be told what follows: they find that out when they
    /// read on.
    fn cut(&mut self, partition: &Partition) -> Option<DueWatch> {
        let Self {
            generation,
            resting,
            ..
        } = std::mem::replace(self, Self::new(partition));
        self.generation = generation + 1;
        (!resting.is_empty()).then_some(DueWatch::Woken {
            keys: resting,
            version: 1,
        })
    }

    /// Goes on in another history, if that has all that the resting watchers know.
    fn follow(&mut self, partition: &Partition) -> bool {
        let lineage = partition.lineage();
        let follows = lineage.common_version(self.history, self.version) == Some(self.version);
        self.history = partition.history();
        follows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Fsync;
    use crate::lsm::{Lsm, NewValue, Options};
    use crate::partition::{PartitionOptions, Roles};
    use crate::storage::{CopyId, IdGenerator, Lineage, PartitionMeta, Role};

    const KEY: usize = 7;

    /// A leader in memory with so many writes.
    fn partition(lineage: Lineage, write_count: u64) -> Partition {
        let engine = Options {
            memtable_bytes: 1 << 20,
            hash_seed: 1,
        };
        let options = PartitionOptions {
            engine,
            fsync: Fsync::Always,
            wal_retain_bytes: 1 << 20,
            address: "http://h:1".to_owned(),
            has_token: false,
        };
        let meta = PartitionMeta::new(Role::Leader, lineage, CopyId([1; 16]));
        let roles = Roles::in_force(meta);
        let mut partition = Partition::new(
            0,
            Lsm::new(engine),
            roles,
            None,
            options,
            IdGenerator::new([1; 16]),
        );
        partition.retain_log();
        write(&mut partition, write_count);
        partition
    }

    fn write(partition: &mut Partition, count: u64) {
        for _ in 0..count {
            partition
                .lsm_mut()
                .set(b"other", NewValue::Inline(b"v"), None);
        }
    }

    fn read(watches: &mut Watches, partition: &Partition) -> WatchProgress {
        assert_eq!(watches.take_due(), Some(KEY));
        watches.read(KEY, partition, |_| true)
    }

    #[test]
    fn a_watcher_that_rests_knows_what_was_looked_at() {
        let mut partition = partition(Lineage::new(HistoryId([1; 16])), 3);
        let mut watches = Watches::default();
        watches.enter(KEY, &partition, (*b"w").into(), 1);
        let known = |watches: &Watches, partition: &Partition| {
            let token = watches.position_of(KEY, partition).expect("it watches");
            (token.version, watches.rests(KEY))
        };
        assert_eq!(known(&watches, &partition), (1, false));
        assert_eq!(read(&mut watches, &partition), WatchProgress::All);
        assert_eq!(known(&watches, &partition), (3, true));
        write(&mut partition, 10);
        assert_eq!(
            known(&watches, &partition),
            (3, true),
            "nothing was looked at"
        );
        assert!(!watches.look(&partition) && !watches.is_due());
        assert_eq!(known(&watches, &partition), (13, true));
        // What concerns it is behind what it knows until it is told.
        partition
            .lsm_mut()
            .set(b"watched", NewValue::Inline(b"v"), None);
        watches.look(&partition);
        assert_eq!(known(&watches, &partition), (3, false));
        assert_eq!(read(&mut watches, &partition), WatchProgress::All);
        assert_eq!(known(&watches, &partition), (14, true));
    }

    /// A watcher that knows what another history does not have is cut, wherever it is; until then
    /// its position is still one of the history that it knows.
    #[test]
    fn a_watcher_does_not_go_on_in_a_history_that_has_parted() {
        let old = Lineage::new(HistoryId([1; 16]));
        let before = partition(old.clone(), 3);
        // It has what was written up to version 2, and has gone on otherwise since.
        let after = partition(old.begin(HistoryId([2; 16]), 2), 5);
        for (version, is_cut) in [(1, false), (2, false), (3, true)] {
            let mut watches = Watches::default();
            watches.enter(KEY, &before, (*b"w").into(), version);
            let token = before.token_of(version);
            assert_eq!(watches.position_of(KEY, &after), Some(token));
            let told = read(&mut watches, &after);
            let expected = if is_cut {
                WatchProgress::Cut
            } else {
                WatchProgress::All
            };
            assert_eq!(told, expected, "{version}");
        }
        let mut watches = Watches::default();
        watches.enter(KEY, &before, (*b"w").into(), 0);
        read(&mut watches, &before);
        let token = before.token_of(3);
        assert_eq!(
            watches.position_of(KEY, &after),
            Some(token),
            "while it rests"
        );
        watches.look(&after);
        assert_eq!(read(&mut watches, &after), WatchProgress::Cut);
    }

    /// A new leader in a cluster has less that is acknowledged than its watchers were told while it
    /// was a replica: each of them gets what follows its own place, once, in order.
    #[test]
    fn watchers_of_a_new_leader_go_on_where_they_are() {
        const BEHIND: usize = 8;
        let mut partition = partition(Lineage::new(HistoryId([1; 16])), 10);
        let mut watches = Watches::default();
        watches.enter(KEY, &partition, (*b"o").into(), 0);
        assert_eq!(read(&mut watches, &partition), WatchProgress::All);
        partition.join_cluster(0);
        let led = partition.lead_in(1, vec![CopyId([2; 16])], 1_000);
        led.expect("it has no epoch yet");
        assert_eq!(partition.committed_version(), 0);
        assert!(!watches.look(&partition));
        watches.enter(BEHIND, &partition, (*b"o").into(), 7);
        assert_eq!(watches.take_due(), Some(BEHIND));
        let nothing = watches.read(BEHIND, &partition, |_| panic!("nothing is acknowledged"));
        assert_eq!(nothing, WatchProgress::All);
        write(&mut partition, 2);
        assert!(!watches.look(&partition) && !watches.is_due());

        // The other copy leaves the set: all is acknowledged.
        partition.name_copies(Vec::new());
        let mut told = BTreeMap::<usize, Vec<u64>>::new();
        while watches.look(&partition) || watches.is_due() {
            while let Some(key) = watches.take_due() {
                watches.read(key, &partition, |record| {
                    told.entry(key).or_default().push(record.position().version);
                    true
                });
            }
        }
        assert_eq!(told[&KEY], [11, 12]);
        assert_eq!(told[&BEHIND], [8, 9, 10, 11, 12]);
    }
}
