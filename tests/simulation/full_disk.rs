//! Writes that wait for room on the disk, while what they belong to is replaced.

use db_node::config::Fsync;
use db_node::lsm::{LogBatch, Lsm, NewValue, Options};
use db_node::storage::{
    DiskCommand, DiskEvent, DiskWorker, HistoryId, IdGenerator, Lineage, PartitionMeta,
    RecoveryOptions, Replacement, Role, StoreEvent,
};

use crate::cluster::SimDisks;
use crate::sim_disk::Shortage;

/// Writes that wait for room when all data is replaced are no part of what replaces it: they are
/// told as done with, and not written.
#[test]
fn writes_that_wait_for_room_are_not_appended_to_what_replaces_their_data() {
    let engine = Options {
        memtable_bytes: 64 * 1024,
        hash_seed: 1,
    };
    let disks = SimDisks::new(1);
    let worker = || {
        let options = RecoveryOptions {
            engine,
            fresh_history: HistoryId([1; 16]),
            accept_data_loss: false,
            log_file_bytes: 30_000,
        };
        DiskWorker::new(
            disks.clone(),
            options,
            IdGenerator::new([1; 16]),
            Fsync::Always,
        )
    };
    let mut made = worker();
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
    let changed = PartitionMeta::new(Role::Replica, Lineage::new(HistoryId([1; 16])));
    for command in [
        DiskCommand::Append(0, batch),
        DiskCommand::Settle(0, Box::new(changed)),
    ] {
        made.execute(command, &mut tell).expect("it waits");
    }
    assert!(made.is_stalled());

    let mut of_leader = Lsm::new(engine);
    for key in [b"a", b"b", b"c"] {
        of_leader.set(key, NewValue::Inline(b"v"), None);
    }
    let replacement = Replacement {
        number: 7,
        snapshot: of_leader.snapshot(),
        meta: PartitionMeta::new(Role::Replica, Lineage::new(HistoryId([2; 16]))),
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
    let loaded = worker().load(0, &mut |_| {}).expect("sound files");
    assert_eq!(loaded.lsm.last_version(), 3);
    assert_eq!(loaded.meta.lineage.history(), HistoryId([2; 16]));
    assert!(loaded.lsm.get(b"waits").is_none() && loaded.lsm.get(b"c").is_some());
}
