//! When a start keeps the id of a copy, and when it draws a new one.
//!
//! The rule: a copy with the id of an earlier life holds all that this id has confirmed. And the id
//! is kept where that is known: with `--fsync always`, and after a clean stop.
//! `DB_NODE_TEST_SEED=n` repeats one run; `DB_NODE_TEST_RUNS=n` makes it longer.

use std::collections::BTreeMap;

use db_node::config::Fsync;
use db_node::lsm::{LogBatch, Lsm, NewValue, Options, WalCursor};
use db_node::storage::{
    CopyId, DiskCommand, DiskEvent, DiskWorker, Disks, HistoryId, IdGenerator, LoadedPartition,
    PartitionMeta, RecoveryOptions, StorageError, StoreEvent,
};

use crate::seeds::{Seed, seeds};
use crate::sim_disk::{Fault, Shortage, SimDisk};

const MODES: [Fsync; 3] = [Fsync::Always, Fsync::Interval, Fsync::Never];

/// The only partition is on one disk.
#[derive(Clone, Debug)]
struct OneDisk(SimDisk);

impl Disks for OneDisk {
    type Disk = SimDisk;

    fn partitions(&self) -> Result<Vec<u32>, StorageError> {
        Ok(vec![0])
    }

    fn partition(&self, _: u32) -> Result<SimDisk, StorageError> {
        Ok(self.0.clone())
    }

    fn remove(&self, _: u32) -> Result<(), StorageError> {
        unreachable!("none is removed")
    }

    fn clear_removed(&self) -> Result<bool, StorageError> {
        Ok(false)
    }
}

/// A process.
struct Life {
    worker: DiskWorker<OneDisk>,
    lsm: Lsm,
    cursor: WalCursor,
    meta: PartitionMeta,
    /// What the disk has reported as written; with `--fsync always`, as synced.
    confirmed_version: u64,
    fsync: Fsync,
}

fn try_start(disk: &SimDisk, seed: u8, fsync: Fsync, accepts: bool) -> Result<Life, StorageError> {
    let options = RecoveryOptions {
        engine: Options {
            memtable_bytes: 64 * 1024,
            hash_seed: 1,
        },
        fresh_history: HistoryId([0; 16]),
        fresh_copy: CopyId::NONE,
        fsync,
        accept_data_loss: accepts,
        log_file_bytes: 8_192,
    };
    let ids = IdGenerator::new([seed; 16]);
    let mut worker = DiskWorker::new(OneDisk(disk.clone()), options, ids, fsync);
    let LoadedPartition { lsm, meta, .. } = worker.load(0, &mut |_| {})?;
    Ok(Life {
        worker,
        cursor: lsm.log_end(),
        confirmed_version: lsm.last_version(),
        lsm,
        meta,
        fsync,
    })
}

fn start(disk: &SimDisk, seed: u8, fsync: Fsync) -> Life {
    try_start(disk, seed, fsync, false).expect("a sound directory")
}

impl Life {
    fn execute(&mut self, command: DiskCommand) -> Result<(), StorageError> {
        let (fsync, mut confirmed_version) = (self.fsync, self.confirmed_version);
        let emit = &mut |event| {
            if let DiskEvent::Store(
                _,
                StoreEvent::Written {
                    version,
                    synced_version,
                    ..
                },
                _,
            ) = event
            {
                let is_always = fsync == Fsync::Always;
                confirmed_version = if is_always { synced_version } else { version };
            }
        };
        self.worker.execute(command, emit)?;
        self.worker.commit(emit)?;
        self.confirmed_version = confirmed_version;
        Ok(())
    }

    fn write(&mut self, count: u64) -> Result<(), StorageError> {
        self.lsm.keep_log_behind(self.lsm.last_version());
        for _ in 0..count {
            self.lsm.set(b"k", NewValue::Inline(&[7; 300]), None);
        }
        let mut batch = LogBatch::default();
        self.lsm
            .read_log(&mut self.cursor, 1 << 20, u64::MAX, &mut batch);
        self.execute(DiskCommand::Append(0, batch))
    }

    fn settle(&mut self) -> Result<(), StorageError> {
        self.meta.epoch += 1;
        self.execute(DiskCommand::Settle(0, Box::new(self.meta.clone())))
    }

    /// Does this and that; true if a clean stop was the last of it.
    fn go_on(&mut self, rng: &mut fastrand::Rng) -> Result<bool, StorageError> {
        for _ in 0..rng.u8(..6) {
            match rng.u8(..4) {
                0 => self.settle()?,
                1 => self.execute(DiskCommand::Sync)?,
                _ => self.write(rng.u64(1..20))?,
            }
        }
        let is_stopped = rng.bool();
        if is_stopped {
            self.worker.close()?;
        }
        Ok(is_stopped)
    }
}

#[test]
fn a_clean_stop_keeps_the_id_and_another_stop_only_what_is_always_synced() {
    for fsync in MODES {
        for is_power_cut in [false, true] {
            let disk = SimDisk::new(1);
            let mut life = start(&disk, 1, fsync);
            let first = life.meta.copy;
            assert_ne!(first, CopyId::NONE);
            life.write(3).expect("no fault");
            life.worker.close().expect("no fault");
            let mut life = start(&disk, 2, fsync);
            assert_eq!(life.meta.copy, first, "{fsync:?}: after a clean stop");
            life.write(3).expect("no fault");
            drop(life);
            if is_power_cut {
                disk.crash();
            }
            let life = start(&disk, 3, fsync);
            let is_kept = life.meta.copy == first;
            assert_eq!(is_kept, fsync == Fsync::Always, "{fsync:?}: after a kill");
        }
    }
}

/// The mark goes before anything is written, and a crash right behind that is not clean.
#[test]
fn a_crash_before_anything_is_written_is_no_clean_stop() {
    for fsync in MODES {
        let disk = SimDisk::new(1);
        let mut life = start(&disk, 1, fsync);
        let first = life.meta.copy;
        life.worker.close().expect("no fault");
        drop(start(&disk, 2, fsync));
        disk.crash();
        let life = start(&disk, 3, fsync);
        let is_kept = life.meta.copy == first;
        assert_eq!(is_kept, fsync == Fsync::Always, "{fsync:?}");
    }
}

/// A start after a clean stop is cut off at each of its calls. The next start has the id until the
/// mark is gone, and another one from then on.
#[test]
fn a_start_that_is_cut_off_keeps_the_id_until_the_mark_is_gone() {
    for fsync in MODES {
        let mut kept = Vec::new();
        for call_count in 1.. {
            let disk = SimDisk::new(call_count);
            let mut life = start(&disk, 1, fsync);
            life.write(3).expect("no fault");
            let first = life.meta.copy;
            life.worker.close().expect("no fault");
            disk.fail_after(call_count, Fault::PowerCut);
            let is_whole = try_start(&disk, 2, fsync, false).is_ok();
            disk.crash();
            kept.push(start(&disk, 3, fsync).meta.copy == first);
            if is_whole {
                break;
            }
        }
        // In the call that removes the mark the sectors decide.
        let first_new = kept.iter().position(|is_kept| !is_kept);
        if fsync == Fsync::Always {
            assert_eq!(first_new, None, "{kept:?}");
        } else {
            let first_new = first_new.expect("the mark is gone in the end");
            let last_kept = kept.iter().rposition(|is_kept| *is_kept);
            let last_kept = last_kept.expect("it was there before");
            assert!(last_kept <= first_new + 2, "{kept:?}");
        }
    }
}

/// How the run before synced counts, and not how the next one does.
#[test]
fn the_way_of_syncing_may_change() {
    let disk = SimDisk::new(1);
    let first = start(&disk, 1, Fsync::Always).meta.copy;
    disk.crash();
    let life = start(&disk, 2, Fsync::Interval);
    assert_eq!(life.meta.copy, first, "everything was synced");
    drop(life);
    let life = start(&disk, 3, Fsync::Always);
    let second = life.meta.copy;
    assert_ne!(second, first, "something may be missing");
    drop(life);
    disk.crash();
    assert_eq!(start(&disk, 4, Fsync::Never).meta.copy, second);
}

#[test]
fn an_accepted_loss_begins_another_copy_and_a_useless_permission_does_not() {
    let disk = SimDisk::new(1);
    let mut life = start(&disk, 1, Fsync::Always);
    life.write(30).expect("no fault");
    let first = life.meta.copy;
    life.worker.close().expect("no fault");
    let mut life = try_start(&disk, 2, Fsync::Always, true).expect("nothing is lost");
    assert_eq!(life.meta.copy, first);
    life.worker.close().expect("no fault");
    let files = disk.files();
    let log = files.keys().find(|name| name.starts_with("wal-"));
    disk.lose(log.expect("a log file"));
    let refused = try_start(&disk, 3, Fsync::Always, false).map(drop);
    assert!(refused.is_err(), "the loss is found");
    let life = try_start(&disk, 4, Fsync::Always, true).expect("the loss is accepted");
    let second = life.meta.copy;
    assert_ne!(second, first);
    drop(life);
    assert_eq!(start(&disk, 5, Fsync::Always).meta.copy, second, "it lasts");
}

/// A release that knows no copies leaves the id out when it writes the metadata; and when it does
/// not, it writes zeros where the mark is.
#[test]
fn what_an_older_release_has_written_to_is_another_copy() {
    for writes_metadata in [true, false] {
        for fsync in MODES {
            let disk = SimDisk::new(1);
            let mut life = start(&disk, 1, fsync);
            let first = life.meta.copy;
            if writes_metadata {
                life.meta.copy = CopyId::NONE;
                life.settle().expect("no fault");
            }
            life.worker.close().expect("no fault");
            if !writes_metadata {
                disk.edit("log-end", |bytes| {
                    for slot in [0, 4_096] {
                        bytes[slot + 128..slot + 132].fill(0);
                        let checksum = crc32c::crc32c(&bytes[slot..slot + 132]);
                        bytes[slot + 132..slot + 136].copy_from_slice(&checksum.to_le_bytes());
                    }
                });
            }
            let mut life = start(&disk, 2, fsync);
            let second = life.meta.copy;
            assert!(second != first && second != CopyId::NONE);
            life.worker.close().expect("no fault");
            assert_eq!(start(&disk, 3, fsync).meta.copy, second, "it lasts");
        }
    }
}

/// Where the mark cannot be removed for want of room, a node goes on as another copy: the next
/// start finds the one before as it was.
#[test]
fn on_a_full_disk_nothing_is_confirmed_under_an_id_whose_mark_stands() {
    let disk = SimDisk::new(1);
    let mut life = start(&disk, 1, Fsync::Interval);
    life.write(3).expect("no fault");
    let first = life.meta.copy;
    life.worker.close().expect("no fault");
    disk.set_shortage(Some(Shortage::RoomForAnything));
    let life = start(&disk, 2, Fsync::Interval);
    assert_ne!(life.meta.copy, first);
    drop(life);
    disk.crash();
    disk.set_shortage(None);
    let life = start(&disk, 3, Fsync::Interval);
    assert_eq!((life.meta.copy, life.lsm.last_version()), (first, 3));
}

/// Lives of one directory that end in any way. The error says what an id had confirmed and a later
/// start under it lacks.
fn live(seed: &Seed) -> Result<(), String> {
    let mut rng = seed.rng();
    let disk = SimDisk::new(seed.0);
    let mut confirmed: BTreeMap<CopyId, u64> = BTreeMap::new();
    // The id that the next start has to keep.
    let mut expected = None;
    for number in 0..12 {
        let fsync = MODES[rng.usize(..3)];
        let is_cut = rng.u8(..3) == 0;
        if is_cut {
            disk.fail_after(rng.u64(1..60), Fault::PowerCut);
        }
        if let Ok(mut life) = try_start(&disk, number, fsync, false) {
            let (copy, held) = (life.meta.copy, life.lsm.last_version());
            let least = confirmed.entry(copy).or_default();
            if held < *least {
                return Err(format!("life {number}: {copy} had {least}, and has {held}"));
            }
            if expected.is_some_and(|expected| expected != copy) {
                return Err(format!("life {number}: a new id, and nothing is missing"));
            }
            let is_clean = life.go_on(&mut rng).unwrap_or(false);
            *least = life.confirmed_version.max(*least);
            expected = (is_clean || fsync == Fsync::Always).then_some(copy);
        } else if fsync != Fsync::Always {
            // The mark may be gone.
            expected = None;
        }
        disk.clear_fault();
        if is_cut || rng.bool() {
            disk.crash();
        }
    }
    Ok(())
}

#[test]
fn an_id_is_kept_only_with_all_that_it_confirmed() {
    for seed in seeds(300) {
        live(&seed).unwrap_or_else(|problem| panic!("{problem}"));
    }
}

#[cfg(feature = "seeded-bugs")]
#[test]
fn an_id_that_outlasts_an_unclean_stop_is_found() {
    use db_node::seeded_bugs::{SeededBug, switch_on};
    switch_on(Some(SeededBug::UncleanStopKeepsId));
    assert!(seeds(300).any(|seed| live(&seed).is_err()));
    switch_on(None);
}
