//! Snapshots that scans read: kept between two pages of a scan, so that all pages show one version.
//!
//! Invariants:
//! 1. At most [`KEPT_MAX`] snapshots are kept; a new one replaces an idle one or is refused.
//! 2. A snapshot goes [`KEEP_MS`] after its last page was asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::lsm::Snapshot;
use crate::storage::VersionToken;

/// Snapshots kept at a time: each pins all data as it was.
const KEPT_MAX: usize = 8;

/// How long a snapshot waits for the request of the next page.
const KEEP_MS: u64 = 30_000;

/// A snapshot of which no page is being sent or was asked for in this time is idle: it makes room
/// for another one.
const IDLE_MS: u64 = 1_000;

/// Marks a kept snapshot as in use while one of its pages is sent.
#[derive(Clone, Debug, Default)]
pub struct SnapshotUse(Arc<AtomicBool>);

impl SnapshotUse {
    /// The page was the last one: from now on another snapshot may replace this one.
    pub fn finish(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A kept snapshot.
#[derive(Debug)]
struct ScanSnapshot {
    partition: u32,
    token: VersionToken,
    snapshot: Snapshot,
    until_ms: u64,
    /// Each page that is being sent has a clone.
    in_use: SnapshotUse,
}

impl ScanSnapshot {
    fn is_finished(&self) -> bool {
        self.in_use.0.load(Ordering::Relaxed)
    }

    /// Whether it may go before its time is over.
    fn is_idle(&self, now_ms: u64) -> bool {
        let is_unused = Arc::strong_count(&self.in_use.0) == 1;
        let asked_at_ms = self.until_ms.saturating_sub(KEEP_MS);
        is_unused && (self.is_finished() || now_ms.saturating_sub(asked_at_ms) >= IDLE_MS)
    }
}

/// All kept snapshots. Call [`release`](Self::release) before other methods whenever time has
/// passed.
#[derive(Debug, Default)]
pub struct ScanSnapshots(Vec<ScanSnapshot>);

impl ScanSnapshots {
    /// Keeps a snapshot, in place of an idle one if there is no other room; none if all are in use.
    /// `token` names the snapshot's version.
    #[must_use]
    pub fn hold(
        &mut self,
        partition: u32,
        token: VersionToken,
        snapshot: Snapshot,
        now_ms: u64,
    ) -> Option<SnapshotUse> {
        if self.0.len() >= KEPT_MAX && !self.release_idle(now_ms) {
            return None;
        }
        let in_use = SnapshotUse::default();
        self.0.push(ScanSnapshot {
            partition,
            token,
            snapshot,
            until_ms: now_ms + KEEP_MS,
            in_use: in_use.clone(),
        });
        Some(in_use)
    }

    /// Drops an idle snapshot: one with its last page sent, else the one that was used
    /// longest ago. False if none is idle.
    pub fn release_idle(&mut self, now_ms: u64) -> bool {
        let idle = (self.0.iter().enumerate()).filter(|(_, held)| held.is_idle(now_ms));
        let first = idle.min_by_key(|(_, held)| (!held.is_finished(), held.until_ms));
        let Some(at) = first.map(|(at, _)| at) else {
            return false;
        };
        self.0.remove(at);
        true
    }

    /// The snapshot of a version, if it is still kept. Its time begins anew.
    pub fn get(
        &mut self,
        partition: u32,
        token: VersionToken,
        now_ms: u64,
    ) -> Option<(Snapshot, SnapshotUse)> {
        let is_it = |held: &&mut ScanSnapshot| held.partition == partition && held.token == token;
        let held = self.0.iter_mut().find(is_it)?;
        held.until_ms = now_ms + KEEP_MS;
        held.in_use.0.store(false, Ordering::Relaxed);
        Some((held.snapshot.clone(), held.in_use.clone()))
    }

    /// Drops the snapshots of a partition.
    pub fn forget(&mut self, partition: u32) {
        self.0.retain(|held| held.partition != partition);
    }

    /// Drops the snapshots that were kept long enough.
    pub fn release(&mut self, now_ms: u64) {
        self.0.retain(|held| held.until_ms > now_ms);
    }

    /// When the time of the next snapshot is over.
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
    fn hold(held: &mut ScanSnapshots, partition: u32, lsm: &mut Lsm, now_ms: u64) -> bool {
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
        let (mut lsm, mut held) = (lsm(), ScanSnapshots::default());
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
        let (mut lsm, mut held) = (lsm(), ScanSnapshots::default());
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
        let (mut lsm, mut held) = (lsm(), ScanSnapshots::default());
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
}
