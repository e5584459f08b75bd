//! Conditions, and engines that are let go of.

use super::*;
use crate::config::Fsync;
use crate::lsm::{Lsm, NewValue, Options};
use crate::storage::{CopyId, HistoryId, IdGenerator, Lineage, PartitionMeta, Position, Role};

fn partition() -> Partition {
    let engine = Options {
        memtable_bytes: 1 << 20,
        hash_seed: 1,
    };
    let (fsync, wal_retain_bytes) = (Fsync::Always, 0);
    let options = PartitionOptions {
        engine,
        fsync,
        wal_retain_bytes,
        address: "http://h:1".to_owned(),
        has_token: false,
    };
    let lineage = Lineage::new(HistoryId([0; 16]));
    let meta = PartitionMeta::new(Role::Leader, lineage, CopyId([1; 16]));
    Partition::new(
        0,
        Lsm::new(engine),
        Roles::in_force(meta),
        None,
        options,
        IdGenerator::new([1; 16]),
    )
}

fn only_if(set: TokenSet) -> Conditions {
    Conditions {
        if_match: Some(set),
        if_none_match: None,
    }
}

/// However many engines were let go of while snapshots of theirs are held, each is freed when its
/// own are dropped.
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
        partition.retired.add(engine);
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
        assert_eq!(partition.retired.engines.len(), left);
    }
}

#[test]
fn conditions_guard_writes() {
    let mut partition = partition();
    let none = Conditions::default();
    let create_only = Conditions {
        if_match: None,
        if_none_match: Some(TokenSet::Any),
    };
    assert_eq!(
        partition.set(b"k", NewValue::Inline(b"1"), None, &create_only),
        Ok(1)
    );
    let token = |version| Lineage::new(HistoryId([0; 16])).token_of(version);
    let failed = Err(ConditionFailed {
        current: Some(token(1)),
    });
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
            &only_if(TokenSet::Of(vec![token(9), token(1)]))
        ),
        Ok(2)
    );
    let failed = Err(ConditionFailed {
        current: Some(token(2)),
    });
    assert_eq!(
        partition.delete(b"k", &only_if(TokenSet::Of(vec![token(1)]))),
        failed
    );
    assert_eq!(partition.delete(b"k", &none), Ok(Some(3)));
    assert_eq!(partition.delete(b"k", &none), Ok(None));
    let failed = Err(ConditionFailed { current: None });
    assert_eq!(
        partition
            .put(b"k", NewValue::Inline(b""), None, &only_if(TokenSet::Any))
            .map(|w| w.version),
        failed
    );
    let written = partition.put(b"k", NewValue::Inline(b""), None, &create_only);
    assert_eq!(
        written,
        Ok(WriteResult {
            version: 4,
            replaced: false
        })
    );
}

/// A version that was written in one history is not taken for the same version of another.
#[test]
fn conditions_and_positions_tell_histories_apart() {
    let mut partition = partition();
    let none = Conditions::default();
    let set = |partition: &mut Partition, value: &[u8]| {
        partition.set(b"k", NewValue::Inline(value), None, &none)
    };
    assert_eq!(set(&mut partition, b"kept"), Ok(1));
    let kept = partition.last_token();
    // A leader that this partition replaces had another write of version 2.
    let lost = partition.token_of(2);
    let leader = Assignment {
        role: Role::Leader,
        epoch: Some(5),
        leader: None,
        peers: Vec::new(),
    };
    partition.assign(&leader).expect("allowed");
    let if_match = |token| only_if(TokenSet::Of(vec![token]));
    assert_eq!(partition.check(b"k", &if_match(kept)), Ok(Some(1)));
    assert_eq!(partition.last_token(), kept, "what stays keeps its token");
    assert_eq!(set(&mut partition, b"new"), Ok(2));
    let new = partition.last_token();
    assert_eq!((lost.version, new.version), (2, 2));
    assert_ne!(lost, new);
    let failed = Err(ConditionFailed { current: Some(new) });
    assert_eq!(partition.check(b"k", &if_match(lost)), failed);
    assert_eq!(partition.check(b"k", &if_match(new)), Ok(Some(2)));
    let unless_lost = Conditions {
        if_match: None,
        if_none_match: Some(TokenSet::Of(vec![lost, kept])),
    };
    assert_eq!(partition.check(b"k", &unless_lost), Ok(Some(2)));
    let unknown = Lineage::new(HistoryId([9; 16])).token_of(1);
    let ahead = partition.token_of(3);
    for (position, expected) in [
        (Position::Token(kept), Ok(1)),
        (Position::Token(new), Ok(2)),
        (Position::Token(lost), Err(PositionError::Unknown)),
        (Position::Token(unknown), Err(PositionError::Unknown)),
        (Position::Token(ahead), Err(PositionError::Ahead)),
        (Position::Version(2), Ok(2)),
        (Position::Version(3), Err(PositionError::Ahead)),
    ] {
        assert_eq!(partition.version_at(position), expected, "{position}");
    }
}
