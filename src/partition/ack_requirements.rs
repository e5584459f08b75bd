//! Whether enough replicas are there for a write to be confirmed, and what a read waits for that
//! shows only what is confirmed.
//!
//! Invariants:
//! 1. A read of that kind shows no write that fewer replicas hold than it counts: the write that it
//!    shows, or if it shows none, all that were made before it.
//! 2. A leader that hears fewer replicas answers no such read. So a replaced leader that no message
//!    about it reached ceases to answer two heartbeats after its replicas have left it.
//!
//! Not here: counting confirmations (`replicas.rs`), holding replies back (`reactor/`).

use crate::replication::UNHEARD_MS;
use crate::seeded_bugs::SeededBug;
use crate::storage::Role;

use super::state::Partition;
use super::wait::{Wait, WaitProgress};

/// Fewer replicas are there than are needed: answer 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooFewReplicas {
    /// As many as are there.
    pub count: usize,
}

impl Partition {
    /// Whether so many replicas are connected that a write can be confirmed. One that has just
    /// disconnected counts for two heartbeats, and so do the nodes that a new leader knows of:
    /// they are likely to connect before a reply has waited for too long.
    #[inline]
    pub fn check_replicas(&self, count: u8, now_ms: u64) -> Result<(), TooFewReplicas> {
        match count {
            0 => Ok(()),
            _ => self.count_replicas(usize::from(count), now_ms),
        }
    }

    fn count_replicas(&self, count: usize, now_ms: u64) -> Result<(), TooFewReplicas> {
        let connected_count = self.replicas.recent_count(now_ms);
        if connected_count >= count {
            return Ok(());
        }
        let is_new = self.clock.time_ms.abs_diff(self.leadership.begun_at_ms) < UNHEARD_MS;
        if is_new && self.roles.meta().peers.len() >= count {
            return Ok(());
        }
        Err(TooFewReplicas {
            count: connected_count,
        })
    }

    /// Whether this leader hears so many replicas that a read can show what is confirmed.
    pub fn check_read(&self, count: u8, now_ms: u64) -> Result<(), TooFewReplicas> {
        let heard_count = self.replicas.heard_count(now_ms);
        if self.roles.role() == Role::Leader && heard_count >= usize::from(count) {
            Ok(())
        } else {
            Err(TooFewReplicas { count: heard_count })
        }
    }

    /// What a read waits for that shows what so many replicas hold.
    pub fn read_wait(&self, count: u8) -> Wait {
        let generation = self.leadership_generation();
        Wait::Read { count, generation }
    }

    /// The version that the reply to such a read waits for; none: it may go at once.
    /// `shown_version`: that of the write that it shows; none: it shows that there is none, or
    /// many.
    pub fn read_gate(&self, count: u8, shown_version: Option<u64>) -> Option<u64> {
        let last_version = self.lsm().last_version();
        let needed = shown_version.unwrap_or(last_version);
        let is_held = match self.wait_progress(self.read_wait(count)) {
            WaitProgress::UpTo(held) => held >= needed,
            WaitProgress::Never => false,
        };
        let is_hidden = match shown_version {
            Some(_) => SeededBug::ReadsUncommitted.is_on(),
            None => SeededBug::NotFoundUncommitted.is_on(),
        };
        if is_hidden {
            return None;
        }
        // Numbers that are waited for ascend: that of the write alone might not.
        is_awaited(is_held).then_some(last_version)
    }
}

/// Whether a read waits: replicas do not hold yet what it shows.
fn is_awaited(is_held: bool) -> bool {
    !SeededBug::ReadNotAwaited.is_on() && !is_held
}
