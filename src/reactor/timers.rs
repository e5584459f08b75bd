//! A heap of deadlines of connections.
//!
//! Most changes move a deadline later (each request does), so an entry in the heap is the time to
//! *check* a connection, not its deadline. Moving a deadline later costs nothing; when the entry
//! comes up, the connection is checked and scheduled again. Only a deadline that moves earlier
//! needs a new entry.
//!
//! Invariants:
//! 1. A connection is checked no later than its deadline, and no more often than its deadline moves
//!    earlier or comes up.
//! 2. The heap has at most a few entries for each connection; outdated ones are recognised by their
//!    time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A moment, in milliseconds since the node started.
pub(super) type Millis = u64;

/// The deadline of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    at: Millis,
    /// When the earliest entry that counts for this connection comes up.
    scheduled: Millis,
}

impl Default for Deadline {
    fn default() -> Self {
        Self {
            at: Millis::MAX,
            scheduled: Millis::MAX,
        }
    }
}

/// The heap of connections to check.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Millis, usize)>>,
}

impl Timers {
    /// Sets the deadline of connection `key`.
    #[inline]
    pub(super) fn set(&mut self, key: usize, deadline: &mut Deadline, at: Millis) {
        deadline.at = at;
        if at < deadline.scheduled {
            deadline.scheduled = at;
            self.heap.push(Reverse((at, key)));
        }
    }

    /// Takes the next entry that has come up. Pass it to [`Timers::is_due`] with that connection's
    /// deadline, if there is one.
    pub(super) fn pop(&mut self, now: Millis) -> Option<(Millis, usize)> {
        let Reverse((at, _)) = self.heap.peek()?;
        if *at > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Whether the connection of a popped entry is past its deadline; if it is not, it is scheduled
    /// anew.
    pub(super) fn is_due(
        &mut self,
        (entry_at, key): (Millis, usize),
        deadline: &mut Deadline,
        now: Millis,
    ) -> bool {
        if deadline.scheduled != entry_at {
            return false;
        }
        deadline.scheduled = Millis::MAX;
        if deadline.at <= now {
            return true;
        }
        let at = deadline.at;
        self.set(key, deadline, at);
        false
    }

    /// When the next entry comes up.
    pub(super) fn next(&self) -> Option<Millis> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pop_due(timers: &mut Timers, deadline: &mut Deadline, now: Millis) -> bool {
        let mut is_due = false;
        while let Some(entry) = timers.pop(now) {
            is_due |= timers.is_due(entry, deadline, now);
        }
        is_due
    }

    #[test]
    fn deadlines_that_move_away_cost_no_entries() {
        let (mut timers, mut deadline) = (Timers::default(), Deadline::default());
        for at in 100..200 {
            timers.set(1, &mut deadline, at);
        }
        assert_eq!(timers.heap.len(), 1);
        assert!(
            !pop_due(&mut timers, &mut deadline, 150),
            "looked at, not due"
        );
        assert_eq!(timers.next(), Some(199));
        assert!(pop_due(&mut timers, &mut deadline, 199));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn nearer_deadlines_come_first_and_outdated_entries_do_nothing() {
        let (mut timers, mut deadline) = (Timers::default(), Deadline::default());
        timers.set(1, &mut deadline, 100);
        timers.set(1, &mut deadline, 10);
        assert!(!pop_due(&mut timers, &mut deadline, 9));
        assert!(pop_due(&mut timers, &mut deadline, 10));
        timers.set(1, &mut deadline, 300);
        assert!(
            !pop_due(&mut timers, &mut deadline, 100),
            "the entry for 100 is outdated"
        );
        assert!(pop_due(&mut timers, &mut deadline, 300));
    }
}
