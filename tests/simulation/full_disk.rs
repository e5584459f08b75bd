//! Writes that wait for room on the disk, while a checkpoint is written, or what they belong to is
//! replaced.

use db_node::config::Fsync;
use db_node::lsm::{LogBatch, Lsm, NewValue, Options};
use db_node::storage::{
    CopyId, DiskCommand, DiskEvent, DiskWorker, HistoryId, IdGenerator, Lineage, LoadedPartition,
    PartitionMeta, RecoveryOptions, Replacement, Role, StoreEvent, StoreStats,
};

use crate::cluster::SimDisks;
use crate::sim_disk::Shortage;

const ENGINE: Options = Options {
    memtable_bytes: 64 * 1024,
    hash_seed: 1,
};

fn worker_on(disks: &SimDisks) -> DiskWorker<SimDisks> {
    let options = RecoveryOptions {
        engine: ENGINE,
        fresh_history: HistoryId([1; 16]),
        fresh_copy: CopyId([2; 16]),
        fsync: Fsync::Always,
        accept_data_loss: false,
        log_file_bytes: 30_000,
    };
    let ids = IdGenerator::new([1; 16]);
    DiskWorker::new(disks.clone(), options, ids, Fsync::Always)
}

/// What a store has told since, with statistics.
fn told(events: &mut Vec<DiskEvent>) -> Vec<(StoreEvent, StoreStats)> {
    let told = events.drain(..).filter_map(|event| match event {
        DiskEvent::Store(0, event, stats) => Some((event, stats)),
        _ => None,
    });
    told.collect()
}

/// While the log waits for room, a checkpoint is written, with what waits in it; it frees the log
/// before, and a start after a power cut finds everything.
#[test]
fn a_checkpoint_is_written_while_the_log_waits_for_room() {
    let disks = SimDisks::new(1);
    let mut worker = worker_on(&disks);
    let LoadedPartition { mut lsm, .. } = worker.load(0, &mut |_| {}).expect("an empty disk");
    lsm.keep_log_behind(0);
    let mut cursor = lsm.log_end();
    let mut events = Vec::new();
    let mut emit = |event| events.push(event);
    disks.all()[0].set_shortage(Some(Shortage::RoomAhead));
    // The first file has room, and the next one is not begun.
    for number in 0..30_u8 {
        let mut batch = LogBatch::default();
        lsm.set(&[number % 3], NewValue::Inline(&[number; 2_000]), None);
        lsm.read_log(&mut cursor, 100_000, u64::MAX, &mut batch);
        let append = DiskCommand::Append(0, batch);
        worker.execute(append, &mut emit).expect("it may wait");
        worker.commit(&mut emit).expect("there is room for that");
    }
    for _ in 0..10 {
        worker.try_stalled(&mut emit).expect("it waits");
    }
    assert!(worker.is_stalled());
    let told_so_far = told(&mut events);
    let stalls = told_so_far.iter().filter_map(|(event, stats)| match event {
        StoreEvent::Stalled(error) => Some((error.to_string(), stats.freeable_log_bytes)),
        _ => None,
    });
    let stalls: Vec<_> = stalls.collect();
    assert!(
        matches!(&stalls[..], [(error, 0)] if error.contains("at once")),
        "{stalls:?}"
    );

    let mut emit = |event| events.push(event);
    let checkpoint = DiskCommand::Checkpoint(0, lsm.snapshot());
    worker.execute(checkpoint, &mut emit).expect("it is begun");
    for _ in 0..20 {
        worker.write_piece(&mut emit).expect("there is room for it");
    }
    assert!(worker.is_stalled());
    let events_so_far = told(&mut events);
    let mut ends = events_so_far.iter().filter_map(|(event, _)| match event {
        StoreEvent::Checkpointed(version) => Some(*version),
        _ => None,
    });
    assert_eq!(ends.next(), Some(30), "{events_so_far:?}");
    drop(worker);
    disks.all()[0].crash();
    let mut restarted = worker_on(&disks);
    let loaded = restarted.load(0, &mut |_| {}).expect("sound files");
    let value = loaded.lsm.get(&[2]).map(|entry| entry.version);
    assert_eq!((loaded.lsm.last_version(), value), (30, Some(30)));

    // The log cannot be begun either: that is known at once, and over once there is room.
    let shortage = loaded.report.shortage.expect("there is no room ahead");
    assert!(shortage.is_full() && restarted.is_stalled(), "{shortage}");
    let mut emit = |event| events.push(event);
    restarted.try_stalled(&mut emit).expect("it waits");
    disks.all()[0].set_shortage(None);
    restarted.try_stalled(&mut emit).expect("there is room");
    restarted.commit(&mut emit).expect("there is room");
    assert!(!restarted.is_stalled());
    let told = told(&mut events);
    assert!(matches!(&told[..], [(StoreEvent::Resumed, _)]), "{told:?}");
}

/// The log could not be begun at the start. Once there is room, the first write begins it, and so
/// ends the wait.
#[test]
fn a_write_that_finds_room_ends_the_wait() {
    let disks = SimDisks::new(1);
    drop(
        worker_on(&disks)
            .load(0, &mut |_| {})
            .expect("an empty disk"),
    );
    disks.all()[0].set_shortage(Some(Shortage::RoomForAnything));
    let mut worker = worker_on(&disks);
    let loaded = worker.load(0, &mut |_| {}).expect("sound files");
    assert!(loaded.report.shortage.is_some());
    disks.all()[0].set_shortage(None);
    let (mut lsm, mut events) = (loaded.lsm, Vec::new());
    lsm.keep_log_behind(0);
    let (mut cursor, mut batch) = (lsm.log_end(), LogBatch::default());
    lsm.set(b"k", NewValue::Inline(b"v"), None);
    lsm.read_log(&mut cursor, 1_000, u64::MAX, &mut batch);
    let mut emit = |event| events.push(event);
    let append = DiskCommand::Append(0, batch);
    worker.execute(append, &mut emit).expect("there is room");
    worker.commit(&mut emit).expect("there is room");
    assert!(!worker.is_stalled());
    let told = told(&mut events);
    let is_resumed = |(event, _): &(StoreEvent, StoreStats)| matches!(event, StoreEvent::Resumed);
    assert!(told.iter().any(is_resumed), "{told:?}");
}

/// Writes that wait for room when all data is replaced are no part of what replaces it: they are
/// told as done with, and not written.
#[test]
fn writes_that_wait_for_room_are_not_appended_to_what_replaces_their_data() {
    let disks = SimDisks::new(1);
    let mut made = worker_on(&disks);
    let mut loaded = made.load(0, &mut |_| {}).expect("an empty disk");
    let mut events = Vec::new();
    let mut tell = |event| events.push(event);
    let set_shortage = |shortage| disks.all()[0].set_shortage(shortage);
    set_shortage(Some(Shortage::RoomForAnything));
    let lsm = &mut loaded.lsm;
    lsm.keep_log_behind(0);
    let (mut cursor, mut batch) = (lsm.log_end(), LogBatch::default());
    lsm.set(b"waits", NewValue::Inline(b"v"), None);
    lsm.read_log(&mut cursor, 1_000, u64::MAX, &mut batch);
    let changed = PartitionMeta::new(
        Role::Replica,
        Lineage::new(HistoryId([1; 16])),
        CopyId([2; 16]),
    );
    for command in [
        DiskCommand::Append(0, batch),
        DiskCommand::Settle(0, Box::new(changed)),
    ] {
        made.execute(command, &mut tell).expect("it waits");
    }
    assert!(made.is_stalled());

    let mut of_leader = Lsm::new(ENGINE);
    for key in [b"a", b"b", b"c"] {
        of_leader.set(key, NewValue::Inline(b"v"), None);
    }
    let replacement = Replacement {
        number: 7,
        snapshot: of_leader.snapshot(),
        meta: PartitionMeta::new(
            Role::Replica,
            Lineage::new(HistoryId([2; 16])),
            CopyId([2; 16]),
        ),
        dropped: None,
    };
    let replace = DiskCommand::Replace(0, Box::new(replacement));
    // There is room again, and the replacement is done before what waits is tried.
    set_shortage(None);
    made.execute(replace, &mut tell).expect("it is begun");
    made.commit(&mut tell).expect("there is room");
    for _ in 0..20 {
        made.write_piece(&mut tell).expect("there is room");
    }
    made.try_stalled(&mut tell).expect("there is room");
    made.commit(&mut tell).expect("there is room");
    let count = |is: fn(&DiskEvent) -> bool| events.iter().filter(|event| is(event)).count();
    let is_replaced =
        |event: &DiskEvent| matches!(event, DiskEvent::Store(0, StoreEvent::Replaced(7), _));
    assert_eq!(count(is_replaced), 1);
    let is_settled =
        |event: &DiskEvent| matches!(event, DiskEvent::Store(0, StoreEvent::Settled, _));
    assert_eq!(count(is_settled), 1);
    let is_returned = |event: &DiskEvent| match event {
        DiskEvent::Store(0, StoreEvent::Written { batches, .. }, _) => batches.len() == 1,
        _ => false,
    };
    assert_eq!(count(is_returned), 1);
    let loaded = worker_on(&disks).load(0, &mut |_| {}).expect("sound files");
    assert_eq!(loaded.lsm.last_version(), 3);
    assert_eq!(loaded.meta.lineage.history(), HistoryId([2; 16]));
    assert!(loaded.lsm.get(b"waits").is_none() && loaded.lsm.get(b"c").is_some());
}
