//! Conditions, and engines that are let go of.

use super::*;
use crate::storage::{Lineage, Role, Standing};

fn partition() -> Partition {
    let engine = Options {
        memtable_bytes: 1 << 20,
        hash_seed: 1,
    };
    let (fsync, wal_retain_bytes, node_id) = (Fsync::Always, 0, NodeId([0; 16]));
    let options = PartitionOptions {
        engine,
        fsync,
        wal_retain_bytes,
        node_id,
    };
    let standing = Standing::new(Role::Leader, Lineage::new(HistoryId([0; 16])));
    Partition::new(
        0,
        Lsm::new(engine),
        Roles::in_force(standing),
        None,
        options,
    )
}

fn only_if(set: VersionSet) -> Conditions {
    Conditions {
        if_match: Some(set),
        if_none_match: None,
    }
}

/// However many engines were let go of while snapshots of theirs are held, each is freed when its own are dropped.
#[test]
fn engines_that_are_let_go_of_are_freed_in_any_order() {
    let mut partition = partition();
    let mut snapshots = Vec::new();
    for _ in 0..3 {
        let mut engine = Lsm::new(partition.options.engine);
        for key in 0..1_000_u32 {
            engine.set(&key.to_be_bytes(), NewValue::Inline(&[1; 100]), None);
        }
        snapshots.push(engine.snapshot());
        partition.abandon(engine);
    }
    let settle = |partition: &mut Partition| {
        let is_idle =
            (0..1_000).any(|_| partition.is_idle() || partition.maintain(100_000) == usize::MAX);
        assert!(is_idle, "it never rests");
    };
    settle(&mut partition);
    for (at, left) in [(1, 2), (0, 1), (0, 0)] {
        drop(snapshots.remove(at));
        settle(&mut partition);
        assert_eq!(partition.abandoned.len(), left);
    }
}

#[test]
fn conditions_guard_writes() {
    let mut partition = partition();
    let none = Conditions::default();
    let create_only = Conditions {
        if_match: None,
        if_none_match: Some(VersionSet::Any),
    };
    assert_eq!(
        partition.set(b"k", NewValue::Inline(b"1"), None, &create_only),
        Ok(1)
    );
    let failed = Err(ConditionFailed { current: Some(1) });
    assert_eq!(
        partition.set(b"k", NewValue::Inline(b"2"), None, &create_only),
        failed
    );
    assert_eq!(
        partition.lsm().last_version(),
        1,
        "a refused write left a record"
    );
    assert_eq!(
        partition.set(
            b"k",
            NewValue::Inline(b"2"),
            None,
            &only_if(VersionSet::Of(vec![9, 1]))
        ),
        Ok(2)
    );
    let failed = Err(ConditionFailed { current: Some(2) });
    assert_eq!(
        partition.delete(b"k", &only_if(VersionSet::Of(vec![1]))),
        failed
    );
    assert_eq!(partition.delete(b"k", &none), Ok(Some(3)));
    assert_eq!(partition.delete(b"k", &none), Ok(None));
    let failed = Err(ConditionFailed { current: None });
    assert_eq!(
        partition
            .put(b"k", NewValue::Inline(b""), None, &only_if(VersionSet::Any))
            .map(|w| w.version),
        failed
    );
    let written = partition.put(b"k", NewValue::Inline(b""), None, &create_only);
    assert_eq!(
        written,
        Ok(Written {
            version: 4,
            replaced: false
        })
    );
}
