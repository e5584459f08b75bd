//! What requests hold on to: slots of which there are only so many, and snapshots kept for the next page of a scan.

use std::sync::Arc;

use crate::lsm::Snapshot;

/// Snapshots kept at a time: each pins all data as it was.
const HELD_MAX: usize = 8;

/// How long one is kept for the next page.
const HELD_MS: u64 = 30_000;

/// So many at a time, counted by who holds one.
#[derive(Debug, Default)]
pub struct Slots(Arc<()>);

/// One of them, given back when it is dropped.
#[derive(Debug)]
pub struct Slot(#[expect(dead_code, reason = "it is counted")] Arc<()>);

impl Slots {
    /// Takes one, unless so many are taken.
    pub fn take(&self, max: usize) -> Option<Slot> {
        (Arc::strong_count(&self.0) <= max).then(|| Slot(Arc::clone(&self.0)))
    }
}

#[derive(Debug)]
struct Held {
    partition: u32,
    snapshot: Snapshot,
    until_ms: u64,
}

/// Snapshots that are kept.
#[derive(Debug, Default)]
pub struct HeldSnapshots(Vec<Held>);

impl HeldSnapshots {
    /// Keeps one for a while, unless too many are kept.
    #[must_use]
    pub fn hold(&mut self, partition: u32, snapshot: Snapshot, now_ms: u64) -> bool {
        self.release(now_ms);
        let has_room = self.0.len() < HELD_MAX;
        if has_room {
            self.0.push(Held { partition, snapshot, until_ms: now_ms + HELD_MS });
        }
        has_room
    }

    /// The one of a version, if it is still kept; from now on as long as a new one.
    pub fn get(&mut self, partition: u32, version: u64, now_ms: u64) -> Option<Snapshot> {
        self.release(now_ms);
        let is_it = |held: &&mut Held| held.partition == partition && held.snapshot.version() == version;
        let held = self.0.iter_mut().find(is_it)?;
        held.until_ms = now_ms + HELD_MS;
        Some(held.snapshot.clone())
    }

    /// Lets those go whose time is over.
    pub fn release(&mut self, now_ms: u64) {
        self.0.retain(|held| held.until_ms > now_ms);
    }

    /// When the next one is to go.
    pub fn next_ms(&self) -> Option<u64> {
        self.0.iter().map(|held| held.until_ms).min()
    }
}
