//! One partition: an engine, its log on disk if it has one, and what a request may do with them.
//!
//! Invariants:
//! 1. Conditions are checked against the state that the write then changes: nothing happens in between.
//! 2. A refused write leaves no trace: no record, no version.
//! 3. Once the disk has failed, no write is taken.
//!
//! Not here: which partition a request means (`node.rs`), HTTP (`api/`).

mod disk_log;

use crate::lsm::{Entry, LogBatch, Lsm, NewValue, Snapshot};
use crate::storage::{HistoryId, StorageError, StoreStats};

pub use disk_log::DiskLog;

/// What a request demands of the current state of its key (RFC 9110, section 13.1). `None` is never demanded of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// `If-Match`: the write goes ahead only if this matches.
    pub if_match: Option<VersionSet>,
    /// `If-None-Match`: the write goes ahead only if this does not match.
    pub if_none_match: Option<VersionSet>,
}

/// The versions that a condition names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionSet {
    /// `*`: any version, so long as the key exists.
    Any,
    /// The listed ones.
    Of(Vec<u64>),
}

impl VersionSet {
    /// Whether a key's current version (`None`: it does not exist) is in the set.
    pub fn contains(&self, current: Option<u64>) -> bool {
        match (self, current) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::Of(versions), Some(current)) => versions.contains(&current),
        }
    }
}

impl Conditions {
    /// Whether nothing is demanded.
    pub fn is_empty(&self) -> bool {
        self.if_match.is_none() && self.if_none_match.is_none()
    }

    fn allow(&self, current: Option<u64>) -> Result<(), ConditionFailed> {
        let is_refused = self.if_match.as_ref().is_some_and(|set| !set.contains(current))
            || self.if_none_match.as_ref().is_some_and(|set| set.contains(current));
        if is_refused { Err(ConditionFailed { current }) } else { Ok(()) }
    }
}

/// The write was refused: fail the request with 412.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConditionFailed {
    /// Version of the key as it is; `None`: it does not exist.
    pub current: Option<u64>,
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The new version.
    pub version: u64,
    /// Whether the key existed before.
    pub replaced: bool,
}

/// One partition.
#[derive(Debug)]
pub struct Partition {
    id: u32,
    lsm: Lsm,
    history: HistoryId,
    disk: Option<DiskLog>,
}

impl Partition {
    /// A partition of an engine, which has a log on disk or lives in memory only.
    pub fn new(id: u32, lsm: Lsm, history: HistoryId, disk: Option<DiskLog>) -> Self {
        Self { id, lsm, history, disk }
    }

    /// The lineage of its writes.
    pub fn history(&self) -> HistoryId {
        self.history
    }

    /// Its log on disk.
    pub fn disk(&self) -> Option<&DiskLog> {
        self.disk.as_ref()
    }

    /// Why it takes no writes, if so.
    pub fn write_obstacle(&self) -> Option<&StorageError> {
        self.disk.as_ref()?.failure()
    }

    /// The version that the reply to the write just made must wait for; none: it may go at once.
    #[inline]
    pub fn gate(&self) -> Option<u64> {
        self.disk.as_ref()?.gate(&self.lsm)
    }

    /// The next batch for the disk. `now_us`: microseconds since the node started.
    pub fn hand_over(&mut self, now_us: u64) -> Option<LogBatch> {
        self.disk.as_mut()?.hand_over(&mut self.lsm, now_us)
    }

    /// Whether it has records that were not handed over yet, and can be.
    pub fn is_ahead_of_disk(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.has_more(&self.lsm))
    }

    /// A snapshot to make a checkpoint of, if one is due.
    pub fn take_checkpoint(&mut self) -> Option<Snapshot> {
        self.disk.as_mut()?.take_checkpoint(&mut self.lsm)
    }

    /// Has a checkpoint made soon; false when it lives in memory only.
    pub fn request_checkpoint(&mut self) -> bool {
        self.disk.as_mut().map(DiskLog::request_checkpoint).is_some()
    }

    /// The disk has told how far it is.
    pub fn note_written(&mut self, written: u64, synced: u64, batches: Vec<LogBatch>, stats: StoreStats) {
        if let Some(disk) = &mut self.disk {
            disk.note_written(written, synced, batches, stats);
        }
    }

    /// The disk has told that a checkpoint is in place.
    pub fn note_checkpointed(&mut self, stats: StoreStats) {
        if let Some(disk) = &mut self.disk {
            disk.note_checkpointed(stats);
        }
    }

    /// The disk has told that it writes no more.
    pub fn note_failed(&mut self, failure: StorageError) {
        if let Some(disk) = &mut self.disk {
            disk.note_failed(failure, &mut self.lsm);
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its engine, for maintenance and figures.
    pub fn lsm(&self) -> &Lsm {
        &self.lsm
    }

    /// Its engine, for maintenance.
    pub fn lsm_mut(&mut self) -> &mut Lsm {
        &mut self.lsm
    }

    /// The key's value and version, if it exists.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<Entry<'_>> {
        self.lsm.get(key)
    }

    /// Writes a key, whether it exists or not. Nothing is looked up unless there are conditions.
    pub fn set(&mut self, key: &[u8], value: NewValue<'_>, conditions: &Conditions) -> Result<u64, ConditionFailed> {
        if !conditions.is_empty() {
            conditions.allow(self.version_of(key))?;
        }
        Ok(self.lsm.set(key, value, None))
    }

    /// Writes a key and tells whether it existed.
    pub fn put(
        &mut self,
        key: &[u8],
        value: NewValue<'_>,
        conditions: &Conditions,
    ) -> Result<Written, ConditionFailed> {
        let current = self.version_of(key);
        conditions.allow(current)?;
        Ok(Written { version: self.lsm.set(key, value, None), replaced: current.is_some() })
    }

    /// Deletes a key; `None`, and no write, when it does not exist.
    pub fn delete(&mut self, key: &[u8], conditions: &Conditions) -> Result<Option<u64>, ConditionFailed> {
        let current = self.version_of(key);
        conditions.allow(current)?;
        Ok(current.map(|_| self.lsm.delete(key)))
    }

    fn version_of(&self, key: &[u8]) -> Option<u64> {
        self.lsm.get(key).map(|entry| entry.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsm::Options;

    fn partition() -> Partition {
        let lsm = Lsm::new(Options { memtable_bytes: 1 << 20, hash_seed: 1 });
        Partition::new(0, lsm, HistoryId([0; 16]), None)
    }

    fn only_if(set: VersionSet) -> Conditions {
        Conditions { if_match: Some(set), if_none_match: None }
    }

    #[test]
    fn conditions_guard_writes() {
        let mut partition = partition();
        let none = Conditions::default();
        let create_only = Conditions { if_match: None, if_none_match: Some(VersionSet::Any) };
        assert_eq!(partition.set(b"k", NewValue::Inline(b"1"), &create_only), Ok(1));
        let failed = Err(ConditionFailed { current: Some(1) });
        assert_eq!(partition.set(b"k", NewValue::Inline(b"2"), &create_only), failed);
        assert_eq!(partition.lsm().last_version(), 1, "a refused write left a record");
        assert_eq!(partition.set(b"k", NewValue::Inline(b"2"), &only_if(VersionSet::Of(vec![9, 1]))), Ok(2));
        let failed = Err(ConditionFailed { current: Some(2) });
        assert_eq!(partition.delete(b"k", &only_if(VersionSet::Of(vec![1]))), failed);
        assert_eq!(partition.delete(b"k", &none), Ok(Some(3)));
        assert_eq!(partition.delete(b"k", &none), Ok(None));
        let failed = Err(ConditionFailed { current: None });
        assert_eq!(partition.put(b"k", NewValue::Inline(b""), &only_if(VersionSet::Any)).map(|w| w.version), failed);
        let written = partition.put(b"k", NewValue::Inline(b""), &create_only);
        assert_eq!(written, Ok(Written { version: 4, replaced: false }));
    }
}
