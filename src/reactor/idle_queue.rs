//! Finds the connection that has been idle for longest, to make room for a new one.
//!
//! A connection has one entry, with a time at which it was idle or in use. Requests do not touch
//! the entry; only when it comes up in a search is the connection checked, and queued again if it
//! was in use since. So requests cost nothing here.
//!
//! Invariants:
//! 1. A connection is idle since the time of its entry, or since later.
//! 2. One search checks at most [`LOOKS_MAX`] connections; those that it queues again help the next
//!    search.

use std::collections::BTreeSet;

use super::timers::Millis;

/// Connections checked in one search.
const LOOKS_MAX: usize = 32;

/// The result of checking a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdleCheck {
    /// It is idle since the time of its entry.
    Idle,
    /// It was in use until then: this is the time of its new entry.
    UsedUntil(Millis),
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct IdleQueue(BTreeSet<(Millis, usize)>);

impl IdleQueue {
    /// Adds a new connection.
    pub(super) fn enter(&mut self, key: usize, at: Millis) {
        self.0.insert((at, key));
    }

    /// Removes a connection that closes; `at` is the time of its entry.
    pub(super) fn leave(&mut self, key: usize, at: Millis) {
        self.0.remove(&(at, key));
    }

    /// The connection that has been idle for longest, if it is idle since `until` or earlier.
    /// `look` checks a connection, given the time of its entry.
    pub(super) fn idlest(
        &mut self,
        until: Millis,
        mut look: impl FnMut(usize, Millis) -> IdleCheck,
    ) -> Option<usize> {
        for _ in 0..LOOKS_MAX {
            let (at, key) = *self.0.first().filter(|(at, _)| *at <= until)?;
            match look(key, at) {
                IdleCheck::Idle => return Some(key),
                IdleCheck::UsedUntil(used_until) => {
                    self.leave(key, at);
                    self.enter(key, used_until);
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections as the loop sees them: the time of the entry of each, and since when it is idle.
    struct Connections {
        queue: IdleQueue,
        all: Vec<(Millis, Millis)>,
    }

    impl Connections {
        fn new(idle_since: &[Millis]) -> Self {
            let mut queue = IdleQueue::default();
            (0..idle_since.len()).for_each(|key| queue.enter(key, 0));
            let all = idle_since.iter().map(|since| (0, *since));
            Self {
                queue,
                all: all.collect(),
            }
        }

        /// Closes the idlest.
        fn close(&mut self, until: Millis) -> Option<usize> {
            let all = &mut self.all;
            let found = self.queue.idlest(until, |key, at| {
                let (entry_at, since) = &mut all[key];
                assert_eq!(*entry_at, at);
                if *since == at {
                    return IdleCheck::Idle;
                }
                *entry_at = *since;
                IdleCheck::UsedUntil(*since)
            })?;
            self.queue.leave(found, self.all[found].0);
            Some(found)
        }
    }

    #[test]
    fn the_one_that_is_idle_for_longest_is_found() {
        let mut connections = Connections::new(&[700, 5_000, 300, 500]);
        assert_eq!(connections.close(1_000), Some(2));
        assert_eq!(connections.close(1_000), Some(3));
        connections.all[0].1 = 5_900;
        assert_eq!(connections.close(1_000), None, "it was used since");
        connections.all[1].1 = 6_500;
        assert_eq!(connections.close(6_600), Some(0));
        assert_eq!(connections.close(6_600), Some(1));
        assert_eq!(connections.close(20_000), None);
    }

    #[test]
    fn a_search_is_bounded_and_the_next_one_gets_on() {
        let mut connections = Connections::new(&[100; 100]);
        connections.all[99].1 = 10;
        let searches = (0..10).take_while(|_| connections.close(50).is_none());
        assert_eq!(searches.count(), 3);
    }
}
