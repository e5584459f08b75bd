//! Whether what clients have seen of a key is what one register shows: linearizability, for writes
//! of values that differ.
//!
//! With such writes every read tells which write it has seen. The write of a value and the reads of
//! it are its *cluster*. It was in force at least from the earliest end of one of its operations to
//! the latest start of one, if that is later: no other value was in force then. The rule is that of
//! Gibbons and Korach, "Testing Shared Memories" (1997): a history is linearizable if no read ends
//! before its write starts, no two such times overlap, and no cluster without one lies within the
//! time of another.

use std::collections::BTreeMap;

/// What a client has done with one key. Times are inclusive.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) is_write: bool,
    /// The number of the value; 0: there was none.
    pub(crate) value: u64,
    pub(crate) start: u64,
    /// `u64::MAX`: no answer came, so it may be carried out at any later time, or never.
    pub(crate) end: u64,
}

#[derive(Debug)]
struct Zone {
    value: u64,
    is_written: bool,
    write_start: u64,
    first_end: u64,
    last_start: u64,
}

/// What contradicts a register, if anything does.
pub(crate) fn violation(operations: &[Operation]) -> Option<String> {
    let mut zones: BTreeMap<u64, Zone> = BTreeMap::new();
    let is_read = |value: u64| {
        let mut reads = operations.iter().filter(|of| !of.is_write);
        reads.any(|read| read.value == value)
    };
    for operation in operations {
        // What no one has seen, and no one was told of, may never have been.
        if operation.is_write && operation.end == u64::MAX && !is_read(operation.value) {
            continue;
        }
        let zone = zones.entry(operation.value).or_insert(Zone {
            value: operation.value,
            is_written: operation.value == 0,
            write_start: 0,
            first_end: if operation.value == 0 { 0 } else { u64::MAX },
            last_start: 0,
        });
        if operation.is_write {
            (zone.is_written, zone.write_start) = (true, operation.start);
        }
        zone.first_end = zone.first_end.min(operation.end);
        zone.last_start = zone.last_start.max(operation.start);
    }
    for zone in zones.values() {
        if !zone.is_written || zone.first_end < zone.write_start {
            return Some(format!(
                "value {} was read before it was written",
                zone.value
            ));
        }
    }
    let (forward, backward): (Vec<&Zone>, Vec<&Zone>) = zones
        .values()
        .partition(|zone| zone.first_end < zone.last_start);
    let mut forward = forward;
    forward.sort_by_key(|zone| zone.first_end);
    for pair in forward.windows(2) {
        if pair[1].first_end < pair[0].last_start {
            return Some(format!(
                "values {} and {} were in force at the same time: {pair:?}",
                pair[0].value, pair[1].value
            ));
        }
    }
    for zone in backward {
        // The last that begins before it.
        let at = forward.partition_point(|other| other.first_end < zone.last_start);
        if let Some(other) = at.checked_sub(1).map(|at| forward[at])
            && zone.first_end < other.last_start
        {
            return Some(format!(
                "value {} was in force while value {} was: {zone:?}, {other:?}",
                zone.value, other.value
            ));
        }
    }
    None
}

#[test]
fn a_register_is_told_from_what_is_none() {
    let operation = |is_write, value, start, end| Operation {
        is_write,
        value,
        start,
        end,
    };
    let (write, read) = (
        |value, start, end| operation(true, value, start, end),
        |value, start, end| operation(false, value, start, end),
    );
    let good: [&[Operation]; 5] = [
        &[],
        &[read(0, 1, 2), write(1, 3, 4), read(1, 5, 6)],
        &[write(1, 1, 9), read(0, 2, 3), read(1, 4, 5)],
        &[write(1, 1, u64::MAX), read(0, 2, 30), read(1, 40, 50)],
        &[
            write(1, 1, 10),
            write(2, 1, 10),
            read(2, 3, 4),
            read(1, 5, 6),
        ],
    ];
    for history in good {
        assert_eq!(violation(history), None, "{history:?}");
    }
    let bad: [&[Operation]; 6] = [
        &[read(1, 1, 2), write(1, 3, 4)],
        &[read(7, 1, 2)],
        &[write(1, 1, 2), read(0, 3, 4)],
        &[write(1, 1, 2), write(2, 3, 4), read(1, 5, 6)],
        &[write(1, 1, 9), read(1, 2, 3), read(0, 4, 5)],
        &[write(1, 1, 2), read(1, 9, 10), write(2, 4, 5)],
    ];
    for history in bad {
        assert!(violation(history).is_some(), "{history:?}");
    }
}
