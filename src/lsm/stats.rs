//! Figures for monitoring: what there is by level and by owner, and what snapshots alone keep alive.
//!
//! What is *pinned* is found without asking any snapshot. The engine counts the bytes of all frozen memtables and chunks that were made
//! and not freed yet (`reclaim.rs` frees all of them, those of snapshots too, which send their layers home). What of them is in no live
//! layer any more is kept by snapshots, or waits to be freed, which is a slice of maintenance at most while maintenance keeps up.
//!
//! Large values are counted apart, once for each layer that refers to them: the value itself is there once, and may be in a live layer, too.
//! So what snapshots pin of them is at most what is told.
//!
//! Cost: O(layers + segments of memtables), and one allocation.

use super::Lsm;
use super::footprint::Footprint;

/// What there is in one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelStats {
    /// Layers in it.
    pub layer_count: usize,
    /// Entries in them, tombstones and overwritten entries included.
    pub entry_count: usize,
    /// Bytes in them.
    pub footprint: Footprint,
}

/// Figures about the engine.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Version of the newest write.
    pub last_version: u64,
    /// Keys in the active memtable, tombstones included.
    pub memtable_entry_count: usize,
    /// Bytes of log in the active memtable.
    pub memtable_bytes: usize,
    /// Memtables, the active one included; without their hash index.
    pub memtables: Footprint,
    /// All runs.
    pub runs: Footprint,
    /// From level 0, the frozen memtables, to the last that has a layer.
    pub levels: Vec<LevelStats>,
    /// The number of the bottom, whether it has a layer or not.
    pub bottom_level: usize,
    /// Log segments held.
    pub wal_segment_count: usize,
    /// Bytes in them, large values not included.
    pub wal_bytes: usize,
    /// The same with large values.
    pub log_bytes: usize,
    /// The same of what no memtable needs any more: it is kept for replicas.
    pub retained_log_bytes: usize,
    /// Work that merges still have to do. An estimate.
    pub debt: usize,
}

impl Lsm {
    /// What snapshots alone keep alive; of large values at most.
    pub fn pinned(&self) -> Footprint {
        if self.snapshot_count() == 0 {
            return Footprint::default();
        }
        let live = self.levels.footprint();
        let alive = self.free_queue.alive();
        Footprint {
            bytes: alive.bytes.saturating_sub(live.bytes),
            large_bytes: alive.large_bytes.saturating_sub(live.large_bytes),
        }
    }

    /// Figures about everything but snapshots.
    pub fn stats(&self) -> Stats {
        let levels = self.levels.stats();
        let mut memtables = self.memtable.footprint();
        memtables.add(self.wal.active().footprint());
        let mut runs = Footprint::default();
        for (level, stats) in levels.iter().enumerate() {
            if level == 0 {
                memtables.add(stats.footprint);
            } else {
                runs.add(stats.footprint);
            }
        }
        let log_bytes = self.wal.held_bytes();
        Stats {
            last_version: self.last_version(),
            memtable_entry_count: self.memtable.entry_count(),
            memtable_bytes: self.memtable.log_bytes(),
            memtables,
            runs,
            levels,
            bottom_level: self.levels.bottom_number(),
            wal_segment_count: self.wal.segment_count(),
            wal_bytes: self.wal.stored_bytes(),
            log_bytes,
            // What memtables hold is in the log until it is flushed.
            retained_log_bytes: log_bytes.saturating_sub(memtables.total_bytes()),
            debt: self.levels.debt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsm::{LargeValue, NewValue, Options};

    fn lsm() -> Lsm {
        Lsm::new(Options {
            memtable_bytes: 64 * 1024,
            hash_seed: 7,
        })
    }

    fn write(lsm: &mut Lsm, keys: std::ops::Range<u32>, value: &[u8]) {
        for key in keys {
            lsm.set(&key.to_be_bytes(), NewValue::Inline(value), None);
        }
    }

    fn settle(lsm: &mut Lsm) {
        while !lsm.is_idle() {
            lsm.maintain(1 << 20);
        }
    }

    /// An engine with so many entries in one run.
    fn merged(key_count: u32) -> Lsm {
        let mut lsm = lsm();
        write(&mut lsm, 0..key_count, &[1; 100]);
        lsm.compact();
        settle(&mut lsm);
        lsm
    }

    #[test]
    fn a_snapshot_pins_what_was_overwritten_since() {
        let mut lsm = merged(10_000);
        let data = lsm.stats().runs;
        assert_eq!(lsm.pinned(), Footprint::default());
        let (old, same) = (lsm.snapshot(), lsm.snapshot());
        assert_eq!(
            lsm.pinned(),
            Footprint::default(),
            "everything is live, too"
        );
        write(&mut lsm, 0..10_000, &[2; 100]);
        lsm.compact();
        settle(&mut lsm);
        assert_eq!(
            (lsm.pinned(), lsm.snapshot_count()),
            (data, 2),
            "all that there was, counted once"
        );
        drop(old);
        settle(&mut lsm);
        assert_eq!(lsm.pinned(), data);
        drop(same);
        assert_eq!(lsm.pinned(), Footprint::default());
        settle(&mut lsm);
        assert_eq!(lsm.free_queue.alive(), lsm.levels.footprint());
    }

    #[test]
    fn a_snapshot_of_part_of_the_data_pins_that_part() {
        let mut lsm = merged(20_000);
        let data = lsm.stats().runs;
        let snapshot = lsm.snapshot();
        write(&mut lsm, 0..1_000, &[2; 100]);
        lsm.compact();
        settle(&mut lsm);
        let pinned = lsm.pinned();
        assert!(
            pinned.bytes > data.bytes / 25 && pinned.bytes < data.bytes / 10,
            "{pinned:?} of {data:?}"
        );
        drop(snapshot);
    }

    /// What merges replace is then there twice: as long as a snapshot is held, as little as writes owe.
    #[test]
    fn time_to_spare_is_not_used_to_merge_what_is_pinned() {
        let mut lsm = merged(100_000);
        let data_bytes = lsm.stats().runs.bytes;
        let snapshot = lsm.snapshot();
        let (mut rng, mut pinned_bytes) = (fastrand::Rng::with_seed(1), 0);
        for _ in 0..5_000 {
            let first = rng.u32(..100_000);
            write(&mut lsm, first..first + 10, &[2; 100]);
            settle(&mut lsm);
            let more_bytes = lsm.pinned().bytes.saturating_sub(pinned_bytes);
            assert!(
                more_bytes < data_bytes / 8,
                "{more_bytes} bytes replaced for ten writes"
            );
            pinned_bytes += more_bytes;
        }
        assert!(
            pinned_bytes > data_bytes / 2,
            "writes have paid for {pinned_bytes} bytes"
        );
        drop(snapshot);
        settle(&mut lsm);
        assert_eq!(lsm.free_queue.alive(), lsm.levels.footprint());
    }

    /// Each snapshot freezes a memtable and lets go of all layers when it is dropped, and there is always one.
    #[test]
    fn snapshots_that_come_and_go_leave_merging_its_share() {
        let mut lsm = lsm();
        let (held, mut last, mut layers_max) = (lsm.snapshot(), lsm.snapshot(), 0);
        for round in 0..3_000 {
            write(&mut lsm, round..round + 1, &[1; 100]);
            last = lsm.snapshot();
            settle(&mut lsm);
            layers_max = layers_max.max(lsm.levels.contents().len());
        }
        assert!(layers_max < 30, "{layers_max} layers");
        drop((held, last));
        settle(&mut lsm);
        assert_eq!(lsm.free_queue.alive(), lsm.levels.footprint());
    }

    /// Whatever is written, frozen, merged and held: what was made is freed, and once nothing is held, what is alive is live.
    #[test]
    fn what_is_made_is_freed() {
        for seed in 0..20 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut lsm = lsm();
            let mut snapshots = Vec::new();
            for _ in 0..400 {
                let first = rng.u32(..2_000);
                match rng.u8(..12) {
                    0 => snapshots.push(lsm.snapshot()),
                    1 if !snapshots.is_empty() => {
                        drop(snapshots.swap_remove(rng.usize(..snapshots.len())));
                    }
                    2 => {
                        let mut large = LargeValue::new(vec![1; 20_000]);
                        while !large.step(usize::MAX) {}
                        lsm.set(&first.to_be_bytes(), NewValue::Large(large), None);
                    }
                    3 => drop(lsm.delete(&first.to_be_bytes())),
                    4 => lsm.compact(),
                    _ => write(&mut lsm, first..first + 100, &[1; 50]),
                }
                lsm.maintain(rng.usize(..200_000));
                let (alive, live) = (lsm.free_queue.alive(), lsm.levels.footprint());
                assert!(
                    alive.bytes >= live.bytes && alive.large_bytes >= live.large_bytes,
                    "seed {seed}"
                );
            }
            snapshots.clear();
            settle(&mut lsm);
            assert_eq!(
                lsm.free_queue.alive(),
                lsm.levels.footprint(),
                "seed {seed}"
            );
            assert_eq!(
                lsm.stats().retained_log_bytes,
                0,
                "seed {seed}: no replica wants any log"
            );
        }
    }
}
