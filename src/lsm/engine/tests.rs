//! What snapshots pin, that what is made is freed, and how long buffers are kept.

use super::{Lsm, Options};
use crate::lsm::footprint::Footprint;
use crate::lsm::log::record::{LargeValue, NewValue};

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
    assert_eq!(lsm.free_queue.alive, lsm.levels.footprint());
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
    assert_eq!(lsm.free_queue.alive, lsm.levels.footprint());
}

/// Each snapshot freezes a memtable and lets go of all layers when it is dropped, and there is
/// always one.
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
    assert_eq!(lsm.free_queue.alive, lsm.levels.footprint());
}

/// Whatever is written, frozen, merged and held: what was made is freed, and once nothing is held,
/// what is alive is live.
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
            let (alive, live) = (lsm.free_queue.alive, lsm.levels.footprint());
            assert!(
                alive.bytes >= live.bytes && alive.large_bytes >= live.large_bytes,
                "seed {seed}"
            );
        }
        snapshots.clear();
        settle(&mut lsm);
        assert_eq!(lsm.free_queue.alive, lsm.levels.footprint(), "seed {seed}");
        assert_eq!(
            lsm.stats().retained_log_bytes,
            0,
            "seed {seed}: no replica wants any log"
        );
    }
}

/// Writes some memtables, and pays what is owed.
fn write_and_pay(lsm: &mut Lsm) {
    for number in 0..200_000_u32 {
        lsm.set(&number.to_be_bytes(), NewValue::Inline(&[b'v'; 32]), None);
        if number % 100 == 0 {
            lsm.maintain(lsm.owed_work());
        }
    }
}

/// What is owed, turn by turn, until nothing is.
fn pay(lsm: &mut Lsm) {
    for _ in 0..10_000 {
        let owed_work = lsm.owed_work();
        if owed_work == 0 {
            return;
        }
        lsm.maintain(owed_work);
    }
    panic!("something is owed for ever");
}

#[test]
fn buffers_are_kept_while_they_are_needed_and_no_longer() {
    let new = || {
        Lsm::new(Options {
            memtable_bytes: 1 << 20,
            hash_seed: 1,
        })
    };
    let mut lsm = new();
    lsm.set_time_ms(5_000);
    write_and_pay(&mut lsm);
    assert!(
        lsm.wal.has_spare() && lsm.levels.has_spare(),
        "nothing is kept"
    );
    pay(&mut lsm);
    assert!(
        lsm.has_spare(),
        "freed although there may be more writes at once"
    );
    lsm.set_time_ms(7_000);
    pay(&mut lsm);
    assert!(
        !lsm.has_spare(),
        "kept although there is nothing to write, in a loop that is never idle"
    );
    write_and_pay(&mut lsm);
    while !lsm.is_idle() {
        lsm.maintain(100_000);
    }
    assert!(!lsm.has_spare(), "kept although there is time to free it");
    write_and_pay(&mut lsm);
    lsm.retire();
    pay(&mut lsm);
    assert!(
        lsm.is_idle() && !lsm.has_spare(),
        "kept by an engine that is good for nothing else"
    );
}
