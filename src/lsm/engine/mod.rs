//! The engine: the layers, the log and the maintenance of both behind one owner.
//!
//! Its parts and invariants are in `lsm/mod.rs`.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::lsm::expiry::ExpirySweeps;
use crate::lsm::footprint::Footprint;
use crate::lsm::hash::KeyHasher;
use crate::lsm::levels::Levels;
use crate::lsm::log::position::LogPosition;
use crate::lsm::log::record::{Entry, INLINE_VALUE_MAX_BYTES, NewValue, RECORD_HEAD_BYTES, Write};
use crate::lsm::log::stream::{LogBatch, StreamRecord};
use crate::lsm::log::wal::{AppendedRecord, LogPiece, SEGMENT_BYTES, Wal, WalCursor};
use crate::lsm::lookup_cache::{CachedLookup, LookupCache, PREFETCH_KEYS_MAX};
use crate::lsm::memtable::Memtable;
use crate::lsm::merge::policy::BOTTOM_REWRITES;
use crate::lsm::reclaim::FreeQueue;
use crate::lsm::run::LookupKey;
use crate::lsm::snapshot::{Snapshot, SnapshotHome};
use crate::lsm::stats::Stats;
use crate::lsm::work::{self, Work};

/// The most that one call of [`Lsm::maintain`] spends beyond its budget: the largest piece of work
/// that is not divided, which is to give back a chunk and the region of memory that becomes empty.
pub const WORK_LUMP_MAX: usize = 192 * 1024;

/// Work that a write owes for each unit that it brings in: sorting it, merging it through the upper
/// levels, rewriting the bottom, touching new memory, and a margin, so that the debt shrinks under
/// any load.
const DEBT_FACTOR: usize = 2 + 3 + BOTTOM_REWRITES + 2 + 2;

/// Work in every turn while there is something to free or to sweep, even if nothing is written.
const TURN_WORK: usize = 32 * 1024;

/// How long after a segment was filled freed buffers are kept for the next writes and merges.
const SPARE_KEPT_MS: u64 = 1_000;

/// Log segments released at once.
const RELEASED_SEGMENTS: usize = 1024;

/// Less data than this stays in the processor's cache without prefetching: the second level of most
/// caches has 512 KiB or more.
const PREFETCH_MIN_BYTES: usize = 512 * 1024;

/// Options of an engine.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Log bytes after which the active memtable is frozen, large values included.
    pub memtable_bytes: usize,
    /// Seed of the key hash, random wherever keys come from strangers. An engine made of chunks has
    /// the seed of these.
    pub hash_seed: u64,
}

/// The engine.
#[derive(Debug)]
pub struct Lsm {
    options: Options,
    wal: Wal,
    memtable: Memtable,
    levels: Levels,
    lookup_cache: LookupCache,
    free_queue: FreeQueue,
    owed_work: usize,
    incurred_work: u64,
    snapshots: SnapshotHome,
    sweeps: ExpirySweeps,
    /// Version up to which records are in runs.
    flushed_version: u64,
    /// The log behind this version is kept for readers.
    read_version: u64,
    /// Bytes of log that are kept for readers to come.
    retained_log_bytes: usize,
    /// Until when freed buffers are kept, in Unix ms.
    spare_until_ms: u64,
}

impl Lsm {
    /// An empty engine.
    pub fn new(options: Options) -> Self {
        Self::from_parts(
            options,
            Levels::new(KeyHasher::new(options.hash_seed)),
            LogPosition::default(),
        )
    }

    pub(super) fn from_parts(options: Options, levels: Levels, position: LogPosition) -> Self {
        Self {
            options,
            wal: Wal::new(position),
            memtable: Memtable::new(options.memtable_bytes, position.version, 0),
            free_queue: FreeQueue::new(levels.footprint()),
            levels,
            lookup_cache: LookupCache::default(),
            owed_work: 0,
            incurred_work: 0,
            snapshots: SnapshotHome::default(),
            sweeps: ExpirySweeps::default(),
            flushed_version: position.version,
            read_version: u64::MAX,
            retained_log_bytes: 0,
            spare_until_ms: 0,
        }
    }

    /// Sets the time, in Unix ms.
    #[inline]
    pub fn set_time_ms(&mut self, now_ms: u64) {
        self.sweeps.now_ms = now_ms;
    }

    /// The time that was set last.
    pub fn time_ms(&self) -> u64 {
        self.sweeps.now_ms
    }

    /// When a sweep is due, in Unix ms; none while nothing expires.
    pub fn sweep_at_ms(&self) -> Option<u64> {
        self.sweeps.due_at_ms(
            self.levels.expiring_chunk_count(),
            self.memtable.first_expiry_ms,
        )
    }

    fn is_sweep_due(&self) -> bool {
        self.sweep_at_ms()
            .is_some_and(|at_ms| at_ms <= self.sweeps.now_ms)
    }

    /// The newest write of a key; `None` when there is none, it is a tombstone, or its time is
    /// over.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<Entry<'_>> {
        self.find(key).1
    }

    /// The hash of a key, and what [`get`](Self::get) returns.
    #[inline]
    fn find(&self, key: &[u8]) -> (u32, Option<Entry<'_>>) {
        let cached = self.lookup_cache.get(key, self.levels.generation);
        let hash = cached.map_or_else(|| self.levels.hasher.hash(key), |cached| cached.hash);
        let entry = self
            .memtable
            .get(Some(&self.wal.active), hash, key)
            .or_else(|| {
                self.levels.get(
                    &LookupKey::new(key, hash),
                    cached.map_or(&[], CachedLookup::positions),
                )
            });
        (
            hash,
            entry.filter(|entry| entry.is_live(self.sweeps.now_ms)),
        )
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u32 {
        let cached = self.lookup_cache.get(key, self.levels.generation);
        cached.map_or_else(|| self.levels.hasher.hash(key), |cached| cached.hash)
    }

    /// Whether there is enough data for prefetching to pay.
    pub fn is_prefetch_worth(&self) -> bool {
        self.levels.memory_bytes() + self.memtable.log_bytes > PREFETCH_MIN_BYTES
    }

    /// Fetches what writes of these keys will touch, if nothing is looked up before; at most
    /// [`PREFETCH_KEYS_MAX`].
    pub fn prefetch_for_writes(&mut self, keys: &[&[u8]]) {
        let hasher = self.levels.hasher;
        let lookups = keys.iter().take(PREFETCH_KEYS_MAX);
        self.lookup_cache.fetch_for_writes(
            lookups.map(|key| LookupKey::new(key, hasher.hash(key))),
            &self.memtable,
            self.levels.generation,
        );
    }

    /// Fetches what reads of these keys will touch; at most [`PREFETCH_KEYS_MAX`].
    #[inline(never)]
    pub fn prefetch(&mut self, keys: &[&[u8]]) {
        let hasher = self.levels.hasher;
        let mut lookups = [LookupKey::new(&[], 0); PREFETCH_KEYS_MAX];
        let count = keys.len().min(PREFETCH_KEYS_MAX);
        for (lookup, key) in lookups.iter_mut().zip(keys) {
            *lookup = LookupKey::new(key, hasher.hash(key));
        }
        self.lookup_cache.fetch(
            &lookups[..count],
            (&self.memtable, &self.wal.active),
            self.levels.contents(),
            self.levels.generation,
        );
    }

    /// Writes a key and returns the version. The key is 1 to `KEY_MAX_BYTES` long. It expires at
    /// `expires_at_ms`, in Unix ms.
    pub fn set(&mut self, key: &[u8], value: NewValue<'_>, expires_at_ms: Option<u64>) -> u64 {
        let write = Write {
            key,
            value,
            expires_at_ms,
        };
        self.write(self.hash(key), write, false)
    }

    /// Writes a key, and returns the version and the one that the key had before.
    pub fn exchange(
        &mut self,
        key: &[u8],
        value: NewValue<'_>,
        expires_at_ms: Option<u64>,
    ) -> (u64, Option<u64>) {
        let (hash, before) = self.find(key);
        let before = before.map(|entry| entry.version);
        let write = Write {
            key,
            value,
            expires_at_ms,
        };
        (self.write(hash, write, false), before)
    }

    /// Executes writes as one batch: in memory, on disk and on replicas there are all of them or
    /// none. Returns the version of the last.
    pub fn write_batch<'w>(&mut self, writes: impl Iterator<Item = Write<'w>>) -> u64 {
        let mut writes = writes.peekable();
        while let Some(write) = writes.next() {
            let goes_on = writes.peek().is_some();
            self.write(self.levels.hasher.hash(write.key), write, goes_on);
        }
        self.last_version()
    }

    #[inline]
    fn write(&mut self, hash: u32, write: Write<'_>, goes_on: bool) -> u64 {
        let (key, expires_at_ms) = (write.key, write.expires_at_ms);
        let value_bytes = match &write.value {
            NewValue::Tombstone => 0,
            NewValue::Inline(bytes) => bytes.len(),
            NewValue::Large(large) => large.len(),
        };
        let appended = self.wal.append(write, goes_on);
        self.index(
            hash,
            key,
            appended,
            expires_at_ms,
            RECORD_HEAD_BYTES + key.len() + value_bytes,
        )
    }

    /// Executes the write of a record of the log again. The record must continue the history at
    /// [`position`](Self::position).
    pub fn replay(&mut self, record: &StreamRecord<'_>) -> u64 {
        let appended = self.wal.append_record(record);
        let hash = self.levels.hasher.hash(record.key());
        self.index(
            hash,
            record.key(),
            appended,
            record.expires_at_ms(),
            record.stream_bytes(),
        )
    }

    /// Makes a record that was appended the newest of its key.
    #[inline]
    fn index(
        &mut self,
        hash: u32,
        key: &[u8],
        appended: AppendedRecord,
        expires_at_ms: Option<u64>,
        record_bytes: usize,
    ) -> u64 {
        if let Some(expires_at_ms) = expires_at_ms {
            self.memtable.record_expiry(expires_at_ms);
        }
        let version = appended.version;
        if appended.sealed.is_some() {
            self.spare_until_ms = self.sweeps.now_ms.saturating_add(SPARE_KEPT_MS);
        }
        let new_bytes = self
            .memtable
            .insert(&self.wal.active, hash, key, appended, record_bytes);
        // A large value is moved by reference: it owes what an entry owes.
        let owed_work = DEBT_FACTOR * work::of_entry(record_bytes.min(INLINE_VALUE_MAX_BYTES));
        self.owed_work += owed_work;
        self.incurred_work += (owed_work + work::of_new(new_bytes)) as u64;
        if self.memtable.log_bytes >= self.options.memtable_bytes {
            self.freeze();
        }
        version
    }

    /// Writes a tombstone and returns the version.
    pub fn delete(&mut self, key: &[u8]) -> u64 {
        self.set(key, NewValue::Tombstone, None)
    }

    /// Makes the active memtable an immutable layer; false when it is empty.
    pub fn freeze(&mut self) -> bool {
        if self.memtable.entry_count == 0 {
            return false;
        }
        // Work owed while there was nothing to do is forgiven: later writes owe enough, and all of
        // it at once would hold the loop.
        if !self.is_due() {
            self.owed_work = 0;
        }
        let last_segment = self.wal.seal();
        // Most memtables hold about as many keys as the one before.
        let next = Memtable::new(
            self.options.memtable_bytes,
            self.wal.last.version,
            self.memtable.entry_count,
        );
        let memtable = std::mem::replace(&mut self.memtable, next);
        let frozen = memtable.freeze(last_segment);
        self.free_queue.record_frozen(&frozen);
        self.levels.push_frozen(Arc::new(frozen));
        true
    }

    /// Begins to merge everything written so far into one run. Maintenance owes some of this in
    /// every turn until it is done.
    pub fn compact(&mut self) {
        self.freeze();
        self.levels.compact();
        self.sweeps.is_urgent = true;
    }

    /// Gives up all content, which maintenance then frees a bounded piece at a time; dropping an
    /// engine frees all at once. Afterwards the engine may only be maintained and dropped.
    pub fn retire(&mut self) {
        self.freeze();
        self.levels.clear(&mut self.free_queue);
        for segment in self.wal.clear() {
            self.free_queue.push_segment(segment);
        }
        self.spare_until_ms = 0;
    }

    /// Does maintenance, at most about `budget` units; returns the units spent, 0 when nothing is
    /// due.
    pub fn maintain(&mut self, budget: usize) -> usize {
        let mut work = Work::new(budget);
        if self.is_sweep_due() {
            self.sweeps.begin();
            if self.memtable.first_expiry_ms <= self.sweeps.removed_until_ms() {
                self.freeze();
            }
            self.levels.begin_sweep(self.wal.last.version);
        }
        while !work.is_used_up()
            && let Some(layer) = self.snapshots.take_returned()
        {
            self.free_queue.push_layer(layer);
            work.spend(work::RETURN);
        }
        self.release_log();
        self.free_queue.step(&mut self.wal, &mut work);
        while (self.owed_work == 0 || self.has_needless_spare())
            && !work.is_used_up()
            && self.free_spare()
        {
            work.spend(work::of_give_back(SEGMENT_BYTES));
        }
        // Freeing comes first and is no part of what is owed, or merging would get nothing wherever
        // there is much to free.
        let freed = work.spent();
        if self.is_pinned() {
            work.limit(freed + self.owed_work());
        } else if self.owed_work == 0 {
            // More work than is owed: there is time for maintenance that could wait.
            self.levels.flush();
        }
        if self.levels.step(
            self.wal.last.version,
            self.sweeps.removed_until_ms(),
            &mut work,
            &mut self.free_queue,
        ) {
            let oldest = self.levels.oldest_memtable().map(|frozen| &frozen.memtable);
            self.flushed_version = oldest.unwrap_or(&self.memtable).base_version;
            self.release_log();
        }
        self.owed_work = self.owed_work.saturating_sub(work.spent() - freed);
        if !self.is_due() {
            self.owed_work = 0;
            self.sweeps.is_urgent = false;
        }
        work.spent()
    }

    /// Work that is to be done in this turn, in units for [`maintain`](Self::maintain): the work
    /// that writes owe, and some while there is anything to free or a compaction was asked for. 0:
    /// none.
    pub fn owed_work(&self) -> usize {
        if !self.is_due() {
            return 0;
        }
        let of_turn = if self.has_to_free() || self.sweeps.is_urgent || self.is_sweep_due() {
            TURN_WORK
        } else {
            0
        };
        self.owed_work.max(of_turn)
    }

    /// Work that all writes so far have owed, done or not, with that of touching new memory.
    #[inline]
    pub fn incurred_work(&self) -> u64 {
        self.incurred_work
    }

    /// Whether maintenance has nothing to do.
    pub fn is_idle(&self) -> bool {
        !self.is_due() && !self.has_spare() && (self.is_pinned() || !self.levels.is_waiting())
    }

    /// Whether a snapshot keeps layers alive. Merged data is then in memory twice, so no more is
    /// merged than is owed.
    fn is_pinned(&self) -> bool {
        self.snapshots.live_count() > 0
    }

    /// Whether there is maintenance that must not wait for an idle turn.
    fn is_due(&self) -> bool {
        let may_merge = !self.is_pinned() || self.owed_work > 0 || self.sweeps.is_urgent;
        let is_merge_due = may_merge && self.levels.is_due();
        self.has_to_free() || is_merge_due || self.is_sweep_due()
    }

    fn has_to_free(&self) -> bool {
        !self.free_queue.is_empty() || self.snapshots.has_returned() || self.has_needless_spare()
    }

    /// Whether memory is kept for writes although there have been few for long.
    fn has_needless_spare(&self) -> bool {
        self.spare_until_ms <= self.sweeps.now_ms && self.has_spare()
    }

    fn has_spare(&self) -> bool {
        self.wal.has_spare() || self.levels.has_spare()
    }

    /// Frees a piece of memory that is kept for writes; false: there is none.
    fn free_spare(&mut self) -> bool {
        self.wal.free_spare() || self.levels.free_spare()
    }

    /// A view of everything written so far.
    pub fn snapshot(&mut self) -> Snapshot {
        if self.freeze() {
            // A small memtable is merged at the same cost as a large one.
            self.owed_work += work::SMALL_LAYER;
        }
        self.snapshots.snapshot(
            self.levels.snapshot(),
            self.wal.last,
            self.levels.hasher,
            self.sweeps.now_ms,
        )
    }

    /// A cursor behind the newest record, for reading later records.
    /// [`keep_log_behind`](Self::keep_log_behind) keeps the log for it.
    pub fn log_end(&self) -> WalCursor {
        self.wal.end()
    }

    /// Reads the records behind `cursor`, up to `version`, into `batch` until it holds about
    /// `max_bytes`.
    pub fn read_log(
        &self,
        cursor: &mut WalCursor,
        max_bytes: usize,
        version: u64,
        batch: &mut LogBatch,
    ) {
        self.wal.read(cursor, max_bytes, version, batch);
    }

    /// The next records behind a cursor, up to `version`, as they lie in memory. The cursor stays.
    pub fn log_piece(&self, cursor: WalCursor, version: u64) -> Option<LogPiece<'_>> {
        self.wal.piece(cursor, version)
    }

    /// Keeps the log behind `version` in memory, until a call with a higher version. Other log goes
    /// once it is flushed.
    pub fn keep_log_behind(&mut self, version: u64) {
        self.read_version = version;
        self.release_log();
    }

    /// Keeps so many bytes of log, flushed or not, for readers to come.
    pub fn retain_log(&mut self, bytes: usize) {
        self.retained_log_bytes = bytes;
        self.release_log();
    }

    /// A cursor behind the record with this version, and the position there; none if the log in
    /// memory lacks the next record.
    pub fn log_behind(&self, version: u64) -> Option<(WalCursor, LogPosition)> {
        self.wal.seek(version)
    }

    /// The oldest version that [`log_behind`](Self::log_behind) has a cursor for.
    pub fn oldest_log_version(&self) -> u64 {
        self.wal.oldest_version()
    }

    /// Bytes of all records written since the engine was made, large values included.
    pub fn logged_bytes(&self) -> u64 {
        self.wal.appended_bytes()
    }

    /// Bytes of records that the log in memory holds, large values included.
    pub fn log_bytes(&self) -> usize {
        self.wal.held_bytes()
    }

    /// Bytes of records that are kept for readers alone, since no memtable needs them any more.
    pub fn flushed_log_bytes(&self) -> usize {
        self.wal.held_bytes_up_to(self.flushed_version)
    }

    /// Snapshots not yet dropped.
    pub fn snapshot_count(&self) -> usize {
        self.snapshots.live_count()
    }

    fn release_log(&mut self) {
        let version = self.flushed_version.min(self.read_version);
        // The next slice of maintenance releases more: there is something to free.
        for _ in 0..RELEASED_SEGMENTS {
            let Some(segment) = self.wal.release(version, self.retained_log_bytes) else {
                break;
            };
            self.free_queue.push_segment(segment);
        }
    }

    /// Version of the newest write.
    pub fn last_version(&self) -> u64 {
        self.wal.last.version
    }

    /// Version and checksum of the newest record.
    pub fn position(&self) -> LogPosition {
        self.wal.last
    }

    /// Bytes of memtables and runs, large values included.
    pub fn data_bytes(&self) -> usize {
        self.memtable.log_bytes + self.levels.memory_bytes()
    }

    /// Frozen memtables not yet flushed.
    pub fn frozen_count(&self) -> usize {
        self.levels.frozen_count()
    }

    /// Memory that snapshots alone keep alive; of large values an upper bound.
    pub fn pinned(&self) -> Footprint {
        if self.snapshot_count() == 0 {
            return Footprint::default();
        }
        let live = self.levels.footprint();
        let alive = self.free_queue.alive;
        Footprint {
            bytes: alive.bytes.saturating_sub(live.bytes),
            large_bytes: alive.large_bytes.saturating_sub(live.large_bytes),
        }
    }

    /// Statistics of everything but snapshots.
    pub fn stats(&self) -> Stats {
        let levels = self.levels.stats();
        let (frozen, runs) = levels.split_at(levels.len().min(1));
        let mut memtables: Footprint = frozen.iter().map(|level| level.footprint).sum();
        memtables.add(self.memtable.footprint());
        memtables.add(self.wal.active.footprint());
        let runs = runs.iter().map(|level| level.footprint).sum();
        let log_bytes = self.wal.held_bytes();
        Stats {
            last_version: self.last_version(),
            memtable_entry_count: self.memtable.entry_count,
            memtable_bytes: self.memtable.log_bytes,
            memtables,
            runs,
            levels,
            bottom_level: self.levels.bottom_number(),
            wal_segment_count: self.wal.segment_count(),
            wal_bytes: self.wal.stored_bytes(),
            log_bytes,
            // Until a flush, the records of memtables are in the log.
            retained_log_bytes: log_bytes.saturating_sub(memtables.total_bytes()),
            debt: self.levels.debt(),
        }
    }
}
