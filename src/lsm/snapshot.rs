//! A point-in-time view of the engine, and ordered scans over it.
//!
//! Invariants:
//! 1. A snapshot is complete up to its version and has nothing behind it, whatever is written, merged or freed later.
//! 2. Taking one costs O(layers); what it pins is freed, a bounded piece at a time, after
//!    [`Lsm::release`](super::Lsm::release). A snapshot that is merely dropped frees what it held alone at once.

use std::sync::Arc;

use super::immutable_layer::ImmutableLayer;
use super::merge::{MergeCursor, Preparation};
use super::record::Entry;
use super::work::{self, Work};

/// A view of all data as of one version. A clone is another hold on the same view.
#[derive(Clone, Debug)]
#[must_use = "hand it back with `Lsm::release`"]
pub struct Snapshot {
    pub(super) layers: Vec<ImmutableLayer>,
    pub(super) version: u64,
    /// One more reference to the engine's pin: how it counts the snapshots out there.
    pub(super) _pin: Arc<()>,
}

impl Snapshot {
    /// The version of the newest write in it.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// A scan in key order, from the first key at or above `start`.
    pub fn scan(&self, start: &[u8]) -> Scan {
        Scan {
            snapshot: self.clone(),
            preparation: Preparation::new(self.layers.iter()),
            start: start.to_vec(),
            cursor: None,
        }
    }
}

/// Where a scan stands after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScanState {
    /// The budget was used up before the next live key was found.
    Searching,
    /// [`Scan::entry`] is the next live key.
    Found,
    /// There are no more keys.
    End,
}

/// An ordered scan that can rest anywhere: it holds `Arc`s, and borrows nothing.
#[derive(Debug)]
pub struct Scan {
    snapshot: Snapshot,
    preparation: Preparation,
    start: Vec<u8>,
    cursor: Option<MergeCursor>,
}

impl Scan {
    /// Goes to the next live key, doing at most about `budget` units of work; returns with what was spent.
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
            self.cursor = Some(MergeCursor::new(self.snapshot.layers.iter(), &self.start));
        }
        let Some(cursor) = &mut self.cursor else { return ScanState::Searching };
        loop {
            let Some(entry) = cursor.entry() else { return ScanState::End };
            work.spend(work::of_entry(entry.key.len()));
            if !entry.value.is_tombstone() {
                return ScanState::Found;
            }
            if work.is_used_up() {
                // The tombstone is passed by the next step's advance.
                return ScanState::Searching;
            }
            cursor.advance();
        }
    }

    /// Ends the scan, leaving its hold on the snapshot to be released.
    pub fn into_snapshot(self) -> Snapshot {
        self.snapshot
    }

    /// The key found by the last step.
    pub fn entry(&self) -> Option<Entry<'_>> {
        self.cursor.as_ref()?.entry()
    }
}
