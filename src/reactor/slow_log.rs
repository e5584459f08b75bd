//! Slow requests, a line each in the log, so that who looks for the reason knows when and what.
//!
//! Invariant: there are at most [`LINES_PER_SECOND`] lines a second, and one that tells how many were left out: a node that is in trouble
//! is not to be drowned in its own log. Where standard error is not read, lines are dropped (`stderr_log.rs`), and the loop goes on.

use crate::api::Answer;

use super::timers::Millis;

const LINES_PER_SECOND: u32 = 5;

/// The log of slow requests.
#[derive(Debug)]
pub(super) struct SlowLog {
    /// All ones: nothing is slow.
    threshold_us: u64,
    /// Lines in the second that began then.
    line_count: u32,
    since: Millis,
    left_out_count: u64,
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
            line_count: 0,
            since: 0,
            left_out_count: 0,
        }
    }

    #[inline]
    pub(super) fn threshold_us(&self) -> u64 {
        self.threshold_us
    }

    /// A turn begins: a second later there are lines again. Until a turn comes nobody is told what was left out.
    #[inline]
    pub(super) fn tick(&mut self, now: Millis) {
        if self.line_count == 0 || now < self.since + 1_000 {
            if self.line_count == 0 {
                self.since = now;
            }
            return;
        }
        let left_out_count = std::mem::take(&mut self.left_out_count);
        if left_out_count > 0 {
            log::warn!("slow: and {left_out_count} more within a second");
        }
        (self.line_count, self.since) = (0, now);
    }

    /// So many of one connection were slow together; the last of them is told.
    #[cold]
    pub(super) fn note(&mut self, answer: &Answer, us: u64, count: u64) {
        if self.line_count == LINES_PER_SECOND {
            self.left_out_count += count;
            return;
        }
        self.line_count += 1;
        self.left_out_count += count - 1;
        log::warn!("slow: {answer} took {} ms", us / 1_000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_lines_and_the_rest_is_counted() {
        let mut log = SlowLog::new(100);
        assert_eq!(
            (log.threshold_us(), SlowLog::new(0).threshold_us()),
            (100_000, u64::MAX)
        );
        log.tick(10_000);
        for _ in 0..20 {
            log.note(&Answer::timed_out(), 100_000, 1);
        }
        assert_eq!((log.line_count, log.left_out_count), (LINES_PER_SECOND, 15));
        log.tick(10_999);
        assert_eq!(log.left_out_count, 15);
        log.tick(11_000);
        assert_eq!((log.line_count, log.left_out_count), (0, 0));
    }
}
