//! What requests hold on to: slots of which there are only so many, and snapshots kept for the next
//! page of a scan.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::lsm::Snapshot;
use crate::storage::VersionToken;

/// Snapshots kept at a time: each pins all data as it was.
const HELD_MAX: usize = 8;

/// How long one is kept for the next page.
const HELD_MS: u64 = 30_000;

/// One that no page was asked of for so long, and that none is sent of, is idle: it makes room for
/// another one.
const IDLE_MS: u64 = 1_000;

/// So many at a time, counted by their holders.
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

/// A page is being sent from a snapshot that is kept: while there is one, the snapshot is in use.
#[derive(Clone, Debug, Default)]
pub struct HeldUse(Arc<AtomicBool>);

impl HeldUse {
    /// The page was the last one: the place of the snapshot is free for another one from now on.
    pub fn finish(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Held {
    partition: u32,
    token: VersionToken,
    snapshot: Snapshot,
    until_ms: u64,
    /// Its pages have a clone each.
    in_use: HeldUse,
}

impl Held {
    fn is_finished(&self) -> bool {
        self.in_use.0.load(Ordering::Relaxed)
    }

    /// Whether it may go before its time.
    fn is_idle(&self, now_ms: u64) -> bool {
        let is_unused = Arc::strong_count(&self.in_use.0) == 1;
        let asked_at_ms = self.until_ms.saturating_sub(HELD_MS);
        is_unused && (self.is_finished() || now_ms.saturating_sub(asked_at_ms) >= IDLE_MS)
    }
}

/// Snapshots that are kept until [`release`](Self::release) lets them go: call it before the
/// others, whenever time has passed.
#[derive(Debug, Default)]
pub struct HeldSnapshots(Vec<Held>);

impl HeldSnapshots {
    /// Keeps one for a while, in place of an idle one if there is no other room; none if all are in
    /// use. `token`: of its version.
    #[must_use]
    pub fn hold(
        &mut self,
        partition: u32,
        token: VersionToken,
        snapshot: Snapshot,
        now_ms: u64,
    ) -> Option<HeldUse> {
        if self.0.len() >= HELD_MAX && !self.release_idle(now_ms) {
            return None;
        }
        let in_use = HeldUse::default();
        self.0.push(Held {
            partition,
            token,
            snapshot,
            until_ms: now_ms + HELD_MS,
            in_use: in_use.clone(),
        });
        Some(in_use)
    }

    /// Lets an idle one go: one whose last page was sent, or else the one that was not asked for
    /// the longest. False if there is none.
    pub fn release_idle(&mut self, now_ms: u64) -> bool {
        let idle = (self.0.iter().enumerate()).filter(|(_, held)| held.is_idle(now_ms));
        let first = idle.min_by_key(|(_, held)| (!held.is_finished(), held.until_ms));
        let Some(at) = first.map(|(at, _)| at) else {
            return false;
        };
        self.0.remove(at);
        true
    }

    /// The one of a version, if it is still kept; from now on as long as a new one.
    pub fn get(
        &mut self,
        partition: u32,
        token: VersionToken,
        now_ms: u64,
    ) -> Option<(Snapshot, HeldUse)> {
        let is_it = |held: &&mut Held| held.partition == partition && held.token == token;
        let held = self.0.iter_mut().find(is_it)?;
        held.until_ms = now_ms + HELD_MS;
        held.in_use.0.store(false, Ordering::Relaxed);
        Some((held.snapshot.clone(), held.in_use.clone()))
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

    /// Keeps a snapshot of the next version, which is not in use then.
    fn hold(held: &mut HeldSnapshots, partition: u32, lsm: &mut Lsm, now_ms: u64) -> bool {
        let snapshot = snapshot(lsm);
        let token = token(snapshot.version());
        held.hold(partition, token, snapshot, now_ms).is_some()
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
        assert_eq!(
            held.get(7, token(1), 30_999).expect("in time").0.version(),
            1
        );
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
    fn few_snapshots_are_kept_and_idle_ones_make_room() {
        let (mut lsm, mut held) = (lsm(), HeldSnapshots::default());
        for now_ms in 0..8 {
            assert!(hold(&mut held, 0, &mut lsm, now_ms));
        }
        assert!(!hold(&mut held, 0, &mut lsm, 8) && !hold(&mut held, 1, &mut lsm, 8));
        assert_eq!(lsm.snapshot_count(), 8, "what is not kept goes at once");
        let first = held.get(0, token(1), 900);
        assert!(hold(&mut held, 0, &mut lsm, 1_002), "the second is idle");
        assert!(held.get(0, token(2), 1_002).is_none());
        assert!(held.get(0, token(1), 1_002).is_some(), "asked for late");
        assert!(held.get(0, token(3), 1_002).is_some(), "not the oldest");
        // Those in use stay, however long ago they were asked for.
        let mut uses: Vec<_> = (4..=8)
            .map(|version| held.get(0, token(version), 5_000))
            .collect();
        uses.extend([held.get(0, token(3), 5_000), first]);
        let newest = lsm.last_version();
        uses.push(held.get(0, token(newest), 5_000));
        assert!(uses.iter().all(Option::is_some) && uses.len() == 8);
        assert!(!hold(&mut held, 0, &mut lsm, 29_000), "all are in use");
        // One that has sent its last page makes room at once.
        let (_, last) = uses.remove(0).expect("it is kept");
        last.finish();
        assert!(!hold(&mut held, 0, &mut lsm, 29_000), "it is still sent");
        drop(last);
        assert!(hold(&mut held, 0, &mut lsm, 29_000));
        assert!(held.get(0, token(4), 29_000).is_none());
    }

    #[test]
    fn what_has_sent_its_last_page_goes_first() {
        let (mut lsm, mut held) = (lsm(), HeldSnapshots::default());
        for now_ms in 0..3 {
            assert!(hold(&mut held, 0, &mut lsm, now_ms));
        }
        held.get(0, token(3), 10).expect("it is kept").1.finish();
        held.get(0, token(2), 10).expect("it is kept").1.finish();
        assert!(held.get(0, token(2), 10).is_some(), "another page of it");
        assert!(held.release_idle(10) && !held.release_idle(10));
        assert!(held.get(0, token(3), 10).is_none());
        assert!(held.release_idle(1_010) && held.release_idle(1_010) && !held.release_idle(1_010));
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
