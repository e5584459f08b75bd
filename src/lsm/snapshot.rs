//! A point-in-time view of the engine, and ordered scans over it.
//!
//! Invariants:
//! 1. A snapshot has all writes up to its version and none behind it, whatever is written, merged
//!    or freed later.
//! 2. Taking a snapshot costs O(layers). Dropping it, on any thread, returns its layers to the
//!    engine. Maintenance frees those that are used nowhere else, a bounded piece at a time.
//!
//! Not here: the view as chunks, for files and replicas (`chunk/walk.rs`).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::lsm::hash::KeyHasher;
use crate::lsm::immutable_layer::ImmutableLayer;
use crate::lsm::level::Level;
use crate::lsm::log::position::LogPosition;
use crate::lsm::log::record::Entry;
use crate::lsm::merge::cursor::{MergeCursor, Preparation};
use crate::lsm::merge::job::Tombstones;
use crate::lsm::work::{self, Work};

/// A view of all data as of one version.
#[derive(Debug)]
pub struct Snapshot {
    /// Newest first.
    pub(super) layers: Vec<(Level, ImmutableLayer)>,
    /// The position of the last record.
    pub position: LogPosition,
    /// The hasher of keys.
    pub hasher: KeyHasher,
    /// When it was taken, in Unix ms: entries that had expired are not in it.
    pub(super) time_ms: u64,
    shared: Arc<SnapshotShared>,
}

/// What snapshots and their engine share.
#[derive(Debug, Default)]
struct SnapshotShared {
    /// Snapshots that are not dropped.
    live: AtomicUsize,
    /// Layers on their way back to the engine.
    returning: AtomicUsize,
    /// These layers. The engine never waits for the lock, which is held to add one.
    returned: Mutex<Vec<ImmutableLayer>>,
}

/// The engine's end, to which the layers of dropped snapshots return.
#[derive(Debug, Default)]
pub(super) struct SnapshotHome(Arc<SnapshotShared>);

impl SnapshotHome {
    pub(super) fn snapshot(
        &self,
        layers: Vec<(Level, ImmutableLayer)>,
        position: LogPosition,
        hasher: KeyHasher,
        time_ms: u64,
    ) -> Snapshot {
        self.0.live.fetch_add(1, Ordering::Relaxed);
        Snapshot {
            layers,
            position,
            hasher,
            time_ms,
            shared: Arc::clone(&self.0),
        }
    }

    /// Snapshots not yet dropped.
    pub(super) fn live_count(&self) -> usize {
        self.0.live.load(Ordering::Relaxed)
    }

    /// Whether a layer has come back.
    pub(super) fn has_returned(&self) -> bool {
        self.0.returning.load(Ordering::Acquire) > 0
    }

    /// A layer that has come back.
    pub(super) fn take_returned(&self) -> Option<ImmutableLayer> {
        let layer = self.0.returned.try_lock().ok()?.pop()?;
        self.0.returning.fetch_sub(1, Ordering::Relaxed);
        Some(layer)
    }
}

impl Snapshot {
    /// The version of the newest write in it.
    pub fn version(&self) -> u64 {
        self.position.version
    }

    /// When it was taken, in Unix ms.
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// The same view at a later time, by which more entries have expired.
    #[must_use]
    pub fn at_time(self, time_ms: u64) -> Self {
        let mut later = self;
        later.time_ms = later.time_ms.max(time_ms);
        later
    }

    /// A scan in key order, from the first key at or above `start`.
    pub fn scan(&self, start: &[u8]) -> Scan {
        self.clone().into_scan(start)
    }

    /// A scan that takes the snapshot over.
    pub fn into_scan(self, start: &[u8]) -> Scan {
        Scan {
            preparation: Preparation::new(self.layers()),
            start: start.to_vec(),
            cursor: None,
            tombstones: Tombstones::Drop,
            snapshot: self,
        }
    }

    /// A scan of the newest write of each key, expired or not, with deletions that still have
    /// tombstones.
    pub fn into_scan_of_writes(self) -> Scan {
        Scan {
            tombstones: Tombstones::Keep,
            ..self.into_scan(&[])
        }
    }

    fn layers(&self) -> impl Iterator<Item = &ImmutableLayer> {
        self.layers.iter().map(|(_, layer)| layer)
    }
}

/// Another handle of the same view.
impl Clone for Snapshot {
    fn clone(&self) -> Self {
        self.shared.live.fetch_add(1, Ordering::Relaxed);
        Self {
            layers: self.layers.clone(),
            position: self.position,
            hasher: self.hasher,
            time_ms: self.time_ms,
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        for (_, layer) in self.layers.drain(..) {
            // Without an engine, what is shared is freed with the last snapshot.
            let returned = self.shared.returned.lock();
            let mut returned = returned.unwrap_or_else(PoisonError::into_inner);
            returned.push(layer);
            self.shared.returning.fetch_add(1, Ordering::Release);
        }
        self.shared.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The state of a scan after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanState {
    /// The budget was used up before the next live key was found.
    Searching,
    /// [`Scan::entry`] is the next live key.
    Found,
    /// There are no more keys.
    End,
}

/// An ordered scan that can pause anywhere: it holds `Arc`s, and borrows nothing.
#[derive(Debug)]
pub struct Scan {
    preparation: Preparation,
    start: Vec<u8>,
    cursor: Option<MergeCursor>,
    tombstones: Tombstones,
    /// Dropped last: by then it holds the only reference to the layers that it returns.
    snapshot: Snapshot,
}

impl Scan {
    /// Goes to the next live key, with at most about `budget` units of work; returns the work done.
    pub fn step(&mut self, budget: usize) -> (ScanState, usize) {
        let mut work = Work::new(budget);
        let state = self.find_next(&mut work);
        (state, work.spent())
    }

    fn find_next(&mut self, work: &mut Work) -> ScanState {
        if let Some(cursor) = &mut self.cursor {
            cursor.advance();
        } else {
            if !self.preparation.step(work) {
                return ScanState::Searching;
            }
            self.cursor = Some(MergeCursor::new(self.snapshot.layers(), &self.start));
        }
        let Some(cursor) = &mut self.cursor else {
            return ScanState::Searching;
        };
        loop {
            let Some(entry) = cursor.entry() else {
                return ScanState::End;
            };
            work.spend(work::of_entry(entry.key.len()));
            if self.tombstones == Tombstones::Keep || entry.is_live(self.snapshot.time_ms) {
                return ScanState::Found;
            }
            if work.is_used_up() {
                // What is not live is passed by the next step's advance.
                return ScanState::Searching;
            }
            cursor.advance();
        }
    }

    /// The key found by the last step.
    pub fn entry(&self) -> Option<Entry<'_>> {
        self.cursor.as_ref()?.entry()
    }
}
