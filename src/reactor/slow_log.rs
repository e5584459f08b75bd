//! Slow requests, a line each in the log: what was asked, when, and how long it took.
//!
//! Invariant: there are at most [`LINES_PER_SECOND`] lines a second (`line_limit.rs`), and one that
//! tells how many were left out: a node that is in trouble is not to be drowned in its own log.
//! Where standard error is not read, lines are dropped (`stderr_log.rs`), and the loop goes on.

use crate::api::RequestLabels;

use super::line_limit::LineLimit;
use super::timers::Millis;

/// Lines in a second.
const LINES_PER_SECOND: u32 = 5;

/// The log of slow requests.
#[derive(Debug)]
pub(super) struct SlowLog {
    /// All ones: nothing is slow.
    threshold_us: u64,
    limit: LineLimit,
}

impl SlowLog {
    /// Logs what takes so long or longer; 0: nothing.
    pub(super) fn new(slow_ms: u64) -> Self {
        let threshold_us = if slow_ms == 0 {
            u64::MAX
        } else {
            slow_ms.saturating_mul(1_000)
        };
        Self {
            threshold_us,
            limit: LineLimit::new(LINES_PER_SECOND),
        }
    }

    #[inline]
    pub(super) fn threshold_us(&self) -> u64 {
        self.threshold_us
    }

    /// A turn begins. What was left out is told in the next turn.
    #[inline]
    pub(super) fn tick(&mut self, now: Millis) {
        let left_out_count = self.limit.tick(now);
        if left_out_count > 0 {
            log::warn!("slow: and {left_out_count} more within a second");
        }
    }

    /// So many of one connection were slow together; the last of them is told.
    #[cold]
    pub(super) fn log(&mut self, answer: &RequestLabels, us: u64, count: u64) {
        if self.limit.admits(count) {
            log::warn!("slow: {answer} took {} ms", us / 1_000);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_of_nothing_is_never_reached() {
        assert_eq!(SlowLog::new(0).threshold_us(), u64::MAX);
        assert_eq!(SlowLog::new(100).threshold_us(), 100_000);
    }
}
