//! What requests hold on to: slots of which there are only so many, and snapshots kept for the next page of a scan.

use std::sync::Arc;

use crate::lsm::Snapshot;
use crate::storage::VersionToken;

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
    token: VersionToken,
    snapshot: Snapshot,
    until_ms: u64,
}

/// Snapshots that are kept until [`release`](Self::release) lets them go: call it before the others, whenever time has passed.
#[derive(Debug, Default)]
pub struct HeldSnapshots(Vec<Held>);

impl HeldSnapshots {
    /// Keeps one for a while, unless too many are kept. `token`: of its version.
    #[must_use]
    pub fn hold(
        &mut self,
        partition: u32,
        token: VersionToken,
        snapshot: Snapshot,
        now_ms: u64,
    ) -> bool {
        let has_room = self.0.len() < HELD_MAX;
        if has_room {
            self.0.push(Held {
                partition,
                token,
                snapshot,
                until_ms: now_ms + HELD_MS,
            });
        }
        has_room
    }

    /// The one of a version, if it is still kept; from now on as long as a new one.
    pub fn get(&mut self, partition: u32, token: VersionToken, now_ms: u64) -> Option<Snapshot> {
        let is_it = |held: &&mut Held| held.partition == partition && held.token == token;
        let held = self.0.iter_mut().find(is_it)?;
        held.until_ms = now_ms + HELD_MS;
        Some(held.snapshot.clone())
    }

    /// Lets those of a partition go.
    pub fn forget(&mut self, partition: u32) {
        self.0.retain(|held| held.partition != partition);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsm::{Lsm, NewValue, Options};
    use crate::storage::{HistoryId, Lineage};

    fn token(version: u64) -> VersionToken {
        Lineage::new(HistoryId([1; 16])).token_of(version)
    }

    /// Keeps a snapshot of the next version.
    fn hold(held: &mut HeldSnapshots, partition: u32, lsm: &mut Lsm, now_ms: u64) -> bool {
        let snapshot = snapshot(lsm);
        held.hold(partition, token(snapshot.version()), snapshot, now_ms)
    }

    /// A snapshot of a version of its own.
    fn snapshot(lsm: &mut Lsm) -> Snapshot {
        lsm.set(b"k", NewValue::Inline(b"v"), None);
        lsm.snapshot()
    }

    fn lsm() -> Lsm {
        Lsm::new(Options {
            memtable_bytes: 1 << 20,
            hash_seed: 1,
        })
    }

    #[test]
    fn a_snapshot_is_kept_for_a_while_after_it_was_asked_for() {
        let (mut lsm, mut held) = (lsm(), HeldSnapshots::default());
        assert_eq!(held.next_ms(), None);
        assert!(hold(&mut held, 7, &mut lsm, 1_000) && hold(&mut held, 7, &mut lsm, 2_000));
        let strange = Lineage::new(HistoryId([2; 16])).token_of(1);
        for (partition, token) in [(7, token(3)), (8, token(1)), (7, strange)] {
            assert!(
                held.get(partition, token, 2_000).is_none(),
                "another version, history or partition"
            );
        }
        held.release(30_999);
        assert_eq!(held.get(7, token(1), 30_999).expect("in time").version(), 1);
        assert_eq!(held.next_ms(), Some(32_000));
        held.release(32_000);
        assert!(held.get(7, token(2), 32_000).is_none(), "30 s have passed");
        held.release(60_998);
        assert!(
            held.get(7, token(1), 60_998).is_some(),
            "30 s since the last page"
        );
        held.release(90_998);
        assert_eq!((held.next_ms(), lsm.snapshot_count()), (None, 0));
    }

    #[test]
    fn few_snapshots_are_kept() {
        let (mut lsm, mut held) = (lsm(), HeldSnapshots::default());
        for now_ms in 0..8 {
            assert!(hold(&mut held, 0, &mut lsm, now_ms));
        }
        assert!(!hold(&mut held, 0, &mut lsm, 8) && !hold(&mut held, 1, &mut lsm, 8));
        assert_eq!(lsm.snapshot_count(), 8, "what is not kept goes at once");
        held.release(30_000);
        assert!(hold(&mut held, 0, &mut lsm, 30_000), "one has gone");
        assert!(!hold(&mut held, 0, &mut lsm, 30_000));
    }

    #[test]
    fn slots_are_so_many_and_come_back() {
        for max in [4, 64] {
            let slots = Slots::default();
            let mut taken: Vec<Slot> = (0..max).map(|_| slots.take(max).expect("a slot")).collect();
            assert!(slots.take(max).is_none(), "more than {max}");
            taken.pop();
            taken.extend(slots.take(max));
            assert!(taken.len() == max && slots.take(max).is_none());
        }
    }
}
