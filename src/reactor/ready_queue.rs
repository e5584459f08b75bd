//! The queue of sessions to visit, first come first served.

use std::collections::VecDeque;

use super::session::Session;

/// The queue.
#[derive(Debug, Default)]
pub(super) struct ReadyQueue {
    keys: VecDeque<usize>,
    /// The time of the turn, in microseconds since the node started.
    pub(super) now_us: u64,
}

impl ReadyQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key at a place in the queue, the next one being at 0.
    pub(super) fn get(&self, index: usize) -> Option<usize> {
        self.keys.get(index).copied()
    }

    /// Puts back a session that was taken out and not served.
    pub(super) fn push_front(&mut self, key: usize) {
        self.keys.push_front(key);
    }

    pub(super) fn pop_front(&mut self) -> Option<usize> {
        self.keys.pop_front()
    }
}

/// Puts a session on the queue, unless it is on it.
pub(super) fn enqueue(ready: &mut ReadyQueue, session: &mut Session, key: usize) {
    if !session.is_queued {
        session.is_queued = true;
        session.queued_at_us = ready.now_us;
        ready.keys.push_back(key);
    }
}
