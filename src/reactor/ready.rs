//! Sessions to visit, first come first served, and since when each waits.

use std::collections::VecDeque;

use super::session::Session;

/// The ready list.
#[derive(Debug, Default)]
pub(super) struct Ready {
    keys: VecDeque<usize>,
    /// The time of the turn, in microseconds since the node started.
    pub(super) now_us: u64,
}

impl Ready {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key of the one that is visited after so many others.
    pub(super) fn get(&self, index: usize) -> Option<usize> {
        self.keys.get(index).copied()
    }

    /// Puts back a connection that was taken out and not served.
    pub(super) fn push_front(&mut self, key: usize) {
        self.keys.push_front(key);
    }

    pub(super) fn pop_front(&mut self) -> Option<usize> {
        self.keys.pop_front()
    }
}

/// Puts a session on the list, unless it is on it.
pub(super) fn enqueue(ready: &mut Ready, session: &mut Session, key: usize) {
    if !session.is_queued {
        session.is_queued = true;
        session.queued_at_us = ready.now_us;
        ready.keys.push_back(key);
    }
}
