//! What recovery makes of files: after simulated crashes, cuts at every byte, flipped bits, and
//! lost files.
//!
//! The one rule: recovery gives a state that the partition was once in, with every write that was
//! synced; or, where files were damaged, it refuses. `DB_NODE_TEST_SEED=n` repeats one run;
//! `DB_NODE_TEST_RUNS=n` makes it longer.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use db_node::config::Fsync;
use db_node::lsm::{
    INLINE_VALUE_MAX_BYTES, LargeValue, LogBatch, Lsm, NewValue, Options, ScanState, Snapshot,
    Value, WalCursor,
};
use db_node::storage::{
    CopyId, HistoryId, RecoveredPartition, RecoveryOptions, StorageError, Store, recover,
};

use crate::seeds::{Seed, seeds};
use crate::sim_disk::{Fault, SimDisk};

/// Key to value; what a partition holds.
type Content = BTreeMap<Vec<u8>, Vec<u8>>;

/// One write: the value, or none for a deletion.
type Write = (Vec<u8>, Option<Vec<u8>>);

const HISTORY: HistoryId = HistoryId([1; 16]);

fn options(log_file_bytes: u64) -> RecoveryOptions {
    RecoveryOptions {
        engine: Options {
            memtable_bytes: 4_000,
            hash_seed: 5,
        },
        fresh_history: HISTORY,
        fresh_copy: CopyId([2; 16]),
        fsync: Fsync::Always,
        accept_data_loss: false,
        log_file_bytes,
    }
}

fn start(
    disk: &SimDisk,
    options: RecoveryOptions,
) -> Result<RecoveredPartition<SimDisk>, StorageError> {
    recover(disk.clone(), options, &mut |progress| {
        assert!(progress.percent() <= 100);
    })
}

fn content_of_snapshot(snapshot: &Snapshot) -> Content {
    let mut scan = snapshot.scan(&[]);
    let mut content = Content::new();
    loop {
        match scan.step(1 << 30).0 {
            ScanState::Searching => {}
            ScanState::Found => {
                let entry = scan.entry().expect("found");
                let value = match entry.value {
                    Value::Tombstone => panic!("a tombstone was returned"),
                    Value::Inline(bytes) => bytes.to_vec(),
                    Value::Large(blob) => blob.to_vec(),
                };
                content.insert(entry.key.to_vec(), value);
            }
            ScanState::End => return content,
        }
    }
}

fn content_of(lsm: &mut Lsm) -> Content {
    content_of_snapshot(&lsm.snapshot())
}

/// What the first `count` writes make.
fn content_after(writes: &[Write]) -> Content {
    let mut content = Content::new();
    for (key, value) in writes {
        match value {
            Some(value) => drop(content.insert(key.clone(), value.clone())),
            None => drop(content.remove(key)),
        }
    }
    content
}

/// Does writes, several of them as one batch.
fn apply(lsm: &mut Lsm, writes: &[Write]) {
    lsm.write_batch(writes.iter().map(|(key, value)| {
        let value = match value {
            None => NewValue::Tombstone,
            Some(value) if value.len() <= INLINE_VALUE_MAX_BYTES => NewValue::Inline(value),
            Some(value) => {
                let mut large = LargeValue::new(value.clone());
                while !large.step(usize::MAX) {}
                NewValue::Large(large)
            }
        };
        db_node::lsm::Write {
            key,
            value,
            expires_at_ms: None,
        }
    }));
}

fn random_write(rng: &mut fastrand::Rng) -> Write {
    let key = format!("key {}", rng.u8(..60)).into_bytes();
    let len = match rng.u8(..60) {
        0 => INLINE_VALUE_MAX_BYTES + rng.usize(..5_000),
        1..10 => rng.usize(..3_000),
        _ => rng.usize(..60),
    };
    // Zeros among the values, since zeros are also what is behind the log.
    let value = if rng.bool() {
        vec![0; len]
    } else {
        vec![rng.u8(..); len]
    };
    (key, (rng.u8(..5) > 0).then_some(value))
}

/// A partition on a simulated disk, driven as a node drives it.
struct Driver {
    disk: SimDisk,
    options: RecoveryOptions,
    rng: fastrand::Rng,
    /// All writes so far, the first one being version 1.
    writes: Vec<Write>,
    /// Versions within a batch, which goes on behind them.
    open_versions: BTreeSet<u64>,
    /// Versions that were synced.
    synced_version: u64,
    /// Appends that failed and went well when they were tried again.
    shortage_count: u64,
}

struct Running {
    lsm: Lsm,
    store: Store<SimDisk>,
    cursor: WalCursor,
}

impl Driver {
    /// Recovers, through power cuts if need be, and checks what came out.
    fn start(&mut self) -> Running {
        for _ in 0..10 {
            if self.rng.u8(..3) == 0 {
                self.disk.fail_after(self.rng.u64(..30), Fault::PowerCut);
            }
            match start(&self.disk, self.options) {
                Ok(recovered) => return self.check(recovered),
                Err(StorageError::Io { .. }) => self.disk.crash(),
                Err(error) => panic!("an undamaged disk was refused: {error}"),
            }
        }
        let recovered = start(&self.disk, self.options);
        self.check(recovered.expect("nothing is in the way"))
    }

    fn check(&mut self, recovered: RecoveredPartition<SimDisk>) -> Running {
        let RecoveredPartition {
            mut lsm,
            store,
            history,
            ..
        } = recovered;
        assert_eq!(history, HISTORY);
        let version = lsm.last_version();
        assert!(
            version >= self.synced_version,
            "version {version} of {} synced",
            self.synced_version
        );
        let count = usize::try_from(version).expect("small");
        assert!(
            count <= self.writes.len(),
            "version {version} of {} written",
            self.writes.len()
        );
        assert!(
            !self.open_versions.contains(&version),
            "version {version} is within a batch"
        );
        self.writes.truncate(count);
        self.open_versions.retain(|open| *open < version);
        // What was served must not be lost by the next crash.
        self.synced_version = version;
        assert_eq!(
            content_of(&mut lsm),
            content_after(&self.writes),
            "version {version}"
        );
        lsm.keep_log_behind(version);
        Running {
            cursor: lsm.log_end(),
            lsm,
            store,
        }
    }

    /// Works until a call fails or the steps are done.
    fn work(&mut self, running: &mut Running, steps: usize) -> Result<(), StorageError> {
        let Running { lsm, store, cursor } = running;
        let sync_weight = self.rng.u8(1..40);
        for _ in 0..steps {
            match self.rng.u8(..100) {
                n if n < sync_weight => {
                    let mut batch = LogBatch::default();
                    lsm.read_log(cursor, self.rng.usize(1..20_000), u64::MAX, &mut batch);
                    lsm.keep_log_behind(
                        batch.last().map_or(store.versions().0, |last| last.version),
                    );
                    // A full disk is tried again, as often as need be.
                    while let Err(error) = store.append(&batch) {
                        if !error.is_passing() {
                            return Err(error);
                        }
                        self.shortage_count += 1;
                    }
                    if self.rng.u8(..3) > 0 {
                        self.synced_version = store.sync()?;
                    }
                    if self.rng.bool() {
                        store.rest()?;
                    }
                }
                40 => store.begin_checkpoint(lsm.snapshot()),
                41..50 => drop(store.checkpoint_step()?),
                50..60 => drop(lsm.maintain(self.rng.usize(1..200_000))),
                _ => {
                    let count = if self.rng.u8(..8) == 0 {
                        self.rng.u64(2..8)
                    } else {
                        1
                    };
                    let writes: Vec<Write> =
                        (0..count).map(|_| random_write(&mut self.rng)).collect();
                    apply(lsm, &writes);
                    self.writes.extend(writes);
                    self.open_versions
                        .extend(lsm.last_version() - count + 1..lsm.last_version());
                }
            }
        }
        Ok(())
    }
}

/// Returns how many shortages of room it has come through.
fn run_crashes(seed: &Seed) -> u64 {
    let mut rng = seed.rng();
    let options = options([2_000, 20_000, 300_000][rng.usize(..3)]);
    let disk = SimDisk::new(rng.u64(..));
    let mut driver = Driver {
        disk,
        options,
        rng,
        writes: Vec::new(),
        open_versions: BTreeSet::new(),
        synced_version: 0,
        shortage_count: 0,
    };
    for _ in 0..12 {
        let mut running = driver.start();
        if driver.rng.u8(..4) > 0 {
            let kind = [io::ErrorKind::Other, io::ErrorKind::StorageFull][driver.rng.usize(..2)];
            let fault = if driver.rng.bool() {
                Fault::PowerCut
            } else {
                Fault::Error(kind)
            };
            driver.disk.fail_after(driver.rng.u64(..120), fault);
        }
        let steps = driver.rng.usize(..400);
        // After an error nothing more is written, until the node is started again.
        let outcome = driver.work(&mut running, steps);
        drop(running);
        // A process that is killed leaves its writes to the system: they are read again, and must
        // then last.
        if outcome.is_err() || driver.rng.bool() {
            driver.disk.crash();
        }
    }
    driver.shortage_count
}

#[test]
fn crashes_lose_nothing_that_was_synced() {
    let (mut run_count, mut shortage_count) = (0, 0);
    for seed in seeds(400) {
        shortage_count += run_crashes(&seed);
        run_count += 1;
    }
    assert!(
        run_count < 100 || shortage_count > 20,
        "{shortage_count} shortages"
    );
}

/// A log file is named by `log-end` for good before anything is written to it, whatever call
/// failed for lack of room when it was begun.
#[test]
fn a_log_file_that_was_written_to_is_missed_whatever_had_failed() {
    let mut failed_count = 0;
    for (call, seed) in (0..14).flat_map(|call| (0..10).map(move |seed| (call, seed))) {
        let disk = SimDisk::new(seed);
        let RecoveredPartition {
            mut lsm, mut store, ..
        } = start(&disk, options(2_000)).expect("an empty disk");
        lsm.keep_log_behind(0);
        let mut cursor = lsm.log_end();
        for key in [b"a", b"b"] {
            apply(&mut lsm, &[(key.to_vec(), Some(vec![7; 1_500]))]);
            let mut batch = LogBatch::default();
            lsm.read_log(&mut cursor, usize::MAX, u64::MAX, &mut batch);
            while let Err(error) = store.append(&batch) {
                failed_count += 1;
                if !error.is_passing() {
                    break;
                }
            }
            disk.clear_fault();
            if store.versions().0 < lsm.last_version() {
                continue;
            }
            store.sync().expect("synced");
            disk.fail_after(call, Fault::Error(io::ErrorKind::StorageFull));
        }
        if store.versions().1 < 2 {
            // A sync had failed.
            continue;
        }
        drop(store);
        disk.crash();
        let newest = last_log(&disk.files());
        disk.lose(&newest);
        match start(&disk, options(2_000)) {
            Err(StorageError::Lost { path, .. }) => assert_eq!(path, newest),
            other => panic!("call {call}, seed {seed}: {:?}", other.map(drop)),
        }
    }
    assert!(failed_count > 50, "{failed_count}");
}

/// Of small writes these are one batch.
const SMALL_BATCH: std::ops::Range<usize> = 3..6;

/// Files of a partition with these writes, all synced and marked; with a checkpoint of the first
/// ones if asked for.
fn small_files(
    writes: &[Write],
    checkpoint_after: Option<usize>,
    log_file_bytes: u64,
) -> BTreeMap<String, Vec<u8>> {
    let disk = SimDisk::new(1);
    let RecoveredPartition {
        mut lsm, mut store, ..
    } = start(&disk, options(log_file_bytes)).expect("an empty disk");
    lsm.keep_log_behind(0);
    let mut cursor = lsm.log_end();
    for index in 0..writes.len() {
        if checkpoint_after == Some(index) {
            store.begin_checkpoint(lsm.snapshot());
            while store.checkpoint_step().expect("a piece").is_none() {}
        }
        match &writes[SMALL_BATCH] {
            batch if index == SMALL_BATCH.start => apply(&mut lsm, batch),
            _ if SMALL_BATCH.contains(&index) => continue,
            _ => apply(&mut lsm, &writes[index..=index]),
        }
        let mut batch = LogBatch::default();
        lsm.read_log(&mut cursor, usize::MAX, u64::MAX, &mut batch);
        store.append(&batch).expect("appended");
        store.sync().expect("synced");
        store.rest().expect("marked");
    }
    disk.files()
}

fn small_writes() -> Vec<Write> {
    let mut rng = fastrand::Rng::with_seed(8);
    let mut writes: Vec<Write> = (0..14).map(|_| random_write(&mut rng)).collect();
    for (_, value) in &mut writes {
        if let Some(value) = value {
            value.truncate(90);
        }
    }
    writes
}

/// The last log file, by name.
fn last_log(files: &BTreeMap<String, Vec<u8>>) -> String {
    files
        .keys()
        .filter(|name| name.starts_with("wal-"))
        .max()
        .expect("a log file")
        .clone()
}

#[test]
fn a_log_cut_at_any_byte_gives_the_writes_before_the_cut() {
    let writes = small_writes();
    let mut files = small_files(&writes, None, 4_096);
    // As after a power cut: how far the log was synced had not been synced itself.
    let old = small_files(&[], None, 4_096);
    files.insert("log-end".to_owned(), old["log-end"].clone());
    let name = last_log(&files);
    let mut counts = Vec::new();
    for cut in 0..files[&name].len() {
        let mut cut_files = files.clone();
        cut_files.get_mut(&name).expect("the log").truncate(cut);
        match start(&SimDisk::with_files(&cut_files), options(4_096)) {
            Ok(RecoveredPartition { mut lsm, .. }) => {
                let count = usize::try_from(lsm.last_version()).expect("small");
                assert_eq!(
                    content_of(&mut lsm),
                    content_after(&writes[..count]),
                    "cut at {cut}"
                );
                assert!(
                    counts.last().is_none_or(|last| *last <= count),
                    "cut at {cut}: fewer than before"
                );
                counts.push(count);
            }
            Err(StorageError::Damaged { .. }) => assert!(cut < 64, "cut at {cut} was refused"),
            Err(error) => panic!("cut at {cut}: {error}"),
        }
    }
    counts.dedup();
    let expected = (0..=writes.len())
        .filter(|count| !(SMALL_BATCH.start < *count && *count < SMALL_BATCH.end));
    assert!(counts.iter().copied().eq(expected), "{counts:?}");
}

/// Where the records end in a log file that has two marks behind them.
fn end_of_records(log: &[u8]) -> usize {
    let last = log.iter().rposition(|byte| *byte != 0);
    (last.expect("a mark") + 1).next_multiple_of(32) - 64
}

#[test]
fn a_log_cut_below_what_was_synced_is_refused_with_the_version() {
    let writes = small_writes();
    let files = small_files(&writes, None, 4_096);
    let name = last_log(&files);
    let end = end_of_records(&files[&name]);
    for cut in 0..files[&name].len() {
        let mut cut_files = files.clone();
        cut_files.get_mut(&name).expect("the log").truncate(cut);
        match start(&SimDisk::with_files(&cut_files), options(4_096)) {
            Ok(RecoveredPartition { lsm, .. }) => {
                assert!(cut >= end, "cut at {cut}");
                assert_eq!(lsm.last_version(), writes.len() as u64, "cut at {cut}");
            }
            Err(error @ StorageError::Lost { .. }) => {
                let text = error.to_string();
                assert!(
                    text.starts_with(&name) && text.contains("up to version 14"),
                    "{text}"
                );
            }
            Err(StorageError::Damaged { path, .. }) => assert_eq!(path, name, "cut at {cut}"),
            Err(error) => panic!("cut at {cut}: {error}"),
        }
    }
}

/// Bytes that are taken out of the middle move what is behind them; the marks there still speak.
#[test]
fn bytes_cut_out_of_a_log_are_no_torn_tail() {
    let writes = small_writes();
    let mut files = small_files(&writes, None, 4_096);
    let old = small_files(&[], None, 4_096);
    files.insert("log-end".to_owned(), old["log-end"].clone());
    let name = last_log(&files);
    let end = end_of_records(&files[&name]);
    let mut rng = fastrand::Rng::with_seed(6);
    for _ in 0..2_000 {
        let from = rng.usize(64..end - 1);
        let to = rng.usize(from + 1..end);
        let mut cut_files = files.clone();
        cut_files.get_mut(&name).expect("the log").drain(from..to);
        match start(&SimDisk::with_files(&cut_files), options(4_096)) {
            // Nothing but marks was cut out.
            Ok(RecoveredPartition { lsm, .. }) => {
                assert_eq!(lsm.last_version(), 14, "{from}..{to}");
            }
            Err(StorageError::Damaged { path, .. } | StorageError::Lost { path, .. }) => {
                assert_eq!(path, name);
            }
            Err(error) => panic!("{from}..{to}: {error}"),
        }
    }
}

/// Flips bits in a file and looks at what recovery makes of it, with and without accepting a loss.
fn flip_bits(
    files: &BTreeMap<String, Vec<u8>>,
    name: &str,
    writes: &[Write],
    bits: impl Iterator<Item = usize>,
) {
    let whole = content_after(writes);
    let mut refused_count = 0;
    for bit in bits {
        let mut damaged = files.clone();
        damaged.get_mut(name).expect("the file")[bit / 8] ^= 1 << (bit % 8);
        let at = format!("bit {bit} of {name}");
        match start(&SimDisk::with_files(&damaged), options(4_096)) {
            // The bit did not matter.
            Ok(RecoveredPartition { mut lsm, .. }) => {
                assert_eq!(content_of(&mut lsm), whole, "{at}");
            }
            Err(StorageError::Damaged { path, offset, .. }) => {
                refused_count += 1;
                assert_eq!(path, name, "{at}");
                assert!(offset <= bit as u64 / 8, "{at} was found at byte {offset}");
            }
            Err(error) => panic!("{at}: {error}"),
        }
        let disk = SimDisk::with_files(&damaged);
        let accepting = RecoveryOptions {
            accept_data_loss: true,
            ..options(4_096)
        };
        let Ok(RecoveredPartition {
            mut lsm, report, ..
        }) = start(&disk, accepting)
        else {
            panic!("{at} was refused although the loss was accepted");
        };
        let saved = content_of(&mut lsm);
        assert!(
            saved == whole || !report.set_aside.is_empty(),
            "{at}: a loss that nothing was set aside for"
        );
        if name.starts_with("wal-") {
            let is_prefix =
                (0..=writes.len()).any(|count| content_after(&writes[..count]) == saved);
            assert!(is_prefix, "{at}: what was saved was never the state");
        }
        drop(lsm);
        let RecoveredPartition { mut lsm, .. } =
            start(&disk, options(4_096)).expect("what was saved is sound");
        assert_eq!(
            content_of(&mut lsm),
            saved,
            "{at}: what was saved was lost again"
        );
    }
    assert!(refused_count > 0, "no damage in {name} was refused");
}

#[test]
fn a_flipped_bit_in_the_log_is_refused_or_does_not_matter() {
    let writes = small_writes();
    let files = small_files(&writes, None, 700);
    let logs: Vec<&String> = files
        .keys()
        .filter(|name| name.starts_with("wal-"))
        .collect();
    assert!(logs.len() >= 3, "{logs:?}");
    for name in logs {
        let used_bytes = files[name]
            .iter()
            .rposition(|byte| *byte != 0)
            .expect("a header")
            + 1;
        flip_bits(&files, name, &writes, 0..used_bytes * 8);
    }
}

#[test]
fn a_flipped_bit_in_a_checkpoint_is_refused_or_does_not_matter() {
    let mut writes = small_writes();
    writes[3] = (b"large".to_vec(), Some(vec![6; INLINE_VALUE_MAX_BYTES + 1]));
    let files = small_files(&writes, Some(9), 4_096);
    let name = files
        .keys()
        .find(|name| name.starts_with("checkpoint-"))
        .expect("a checkpoint")
        .clone();
    let mut rng = fastrand::Rng::with_seed(4);
    let bit_count = files[&name].len() * 8;
    let sampled: Vec<usize> = (0..3_000).map(|_| rng.usize(..bit_count)).collect();
    flip_bits(&files, &name, &writes, (0..64 * 8).chain(sampled));
    for cut in (0..files[&name].len()).step_by(97) {
        let mut cut_files = files.clone();
        cut_files
            .get_mut(&name)
            .expect("the checkpoint")
            .truncate(cut);
        let error = start(&SimDisk::with_files(&cut_files), options(4_096))
            .map(|_| ())
            .expect_err("cut off");
        assert!(
            matches!(error, StorageError::Damaged { .. }),
            "cut at {cut}: {error}"
        );
    }
}

#[test]
fn a_file_that_is_missing_is_noticed() {
    let writes = small_writes();
    let mut missed_count = 0;
    for checkpoint_after in [None, Some(5)] {
        let files = small_files(&writes, checkpoint_after, 700);
        assert!(files.len() >= 3);
        for name in files.keys() {
            let mut fewer = files.clone();
            fewer.remove(name);
            match start(&SimDisk::with_files(&fewer), options(700)) {
                Ok(_) => panic!("{name} was not missed"),
                Err(StorageError::Lost { path, .. }) => {
                    missed_count += 1;
                    let is_named = path == *name || path.starts_with("wal-");
                    assert!(is_named, "{path} is named, and {name} is missing");
                }
                Err(error) => panic!("without {name}: {error}"),
            }
        }
    }
    assert!(missed_count >= 6, "{missed_count}");
}

#[test]
fn a_torn_tail_is_cut_and_reported() {
    let writes = small_writes();
    let mut files = small_files(&writes, None, 4_096);
    let name = last_log(&files);
    let log = files.get_mut(&name).expect("the log");
    let end = log.iter().rposition(|byte| *byte != 0).expect("a mark") + 1;
    // A record was on its way behind the last mark.
    log[end.next_multiple_of(32) + 20..][..30].fill(0xab);
    let disk = SimDisk::with_files(&files);
    let RecoveredPartition {
        mut lsm, report, ..
    } = start(&disk, options(4_096)).expect("nothing is lost");
    assert_eq!(content_of(&mut lsm), content_after(&writes));
    let torn = report.torn.expect("reported");
    assert_eq!((torn.path, report.set_aside.len()), (name, 0));
    assert!(torn.dropped_bytes >= 30, "{}", torn.dropped_bytes);
    let RecoveredPartition { report, .. } = start(&disk, options(4_096)).expect("again");
    assert_eq!(report.torn, None, "a tail is cut once");
}
