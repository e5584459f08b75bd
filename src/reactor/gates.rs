//! Replies that wait for the disk: which session waits for which version.
//!
//! Versions are given out in ascending order, and a session comes here with the newest of its visit, so the first in the queue
//! is the first to go: no search, no order to keep.

use std::collections::VecDeque;

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Gates {
    /// Version and key of the session. A session that was closed meanwhile is found out by its version.
    waiting: VecDeque<(u64, usize)>,
}

impl Gates {
    /// A session waits for a version, not below those before it.
    pub(super) fn push(&mut self, version: u64, key: usize) {
        debug_assert!(self.waiting.back().is_none_or(|(last, _)| *last <= version), "versions ascend");
        self.waiting.push_back((version, key));
    }

    /// The next session whose version is at or below the released one.
    pub(super) fn pop(&mut self, released_version: u64) -> Option<(u64, usize)> {
        self.waiting.pop_front_if(|(version, _)| *version <= released_version)
    }

    /// Whether [`pop`](Self::pop) would return something.
    pub(super) fn is_due(&self, released_version: u64) -> bool {
        self.waiting.front().is_some_and(|(version, _)| *version <= released_version)
    }
}
