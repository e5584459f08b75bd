//! Limits the lines of one kind in the log, so that events caused by peers do not drown the rest.

use super::timers::Millis;

/// Lines of one kind in a second, after the burst.
const LINES_PER_SECOND: u32 = 5;

/// The limit of one kind of line (a token bucket), and how many lines were left out.
#[derive(Debug)]
pub(super) struct LineLimit {
    /// The burst.
    burst: u32,
    /// Lines allowed now.
    left_count: u32,
    /// The last time when it was below the burst.
    since: Millis,
    left_out_count: u64,
}

impl LineLimit {
    pub(super) fn new(burst: u32) -> Self {
        Self {
            burst,
            left_count: burst,
            since: 0,
            left_out_count: 0,
        }
    }

    /// Adds the lines of the time that has passed. Returns how many were left out in the second
    /// that is over.
    #[inline]
    pub(super) fn tick(&mut self, now: Millis) -> u64 {
        if self.left_count == self.burst {
            self.since = now;
            return 0;
        }
        if now < self.since + 1_000 {
            return 0;
        }
        self.left_count = (self.left_count + LINES_PER_SECOND).min(self.burst);
        self.since = now;
        std::mem::take(&mut self.left_out_count)
    }

    /// Whether a line about `count` events may be logged; else they are counted as left out.
    pub(super) fn admits(&mut self, count: u64) -> bool {
        if self.left_count == 0 {
            self.left_out_count += count;
            return false;
        }
        self.left_count -= 1;
        self.left_out_count += count - 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_so_many_lines_and_the_rest_is_counted() {
        let mut limit = LineLimit::new(8);
        assert_eq!(limit.tick(10_000), 0);
        let admitted = |limit: &mut LineLimit| (0..20).filter(|_| limit.admits(1)).count();
        assert_eq!(admitted(&mut limit), 8);
        assert_eq!(limit.tick(10_999), 0);
        assert!(!limit.admits(3));
        assert_eq!(limit.tick(11_000), 15);
        assert_eq!(limit.tick(11_000), 0);
        assert!(limit.admits(4));
        assert_eq!(limit.tick(12_000), 3);
        assert_eq!(admitted(&mut limit), 8, "no more than at first");
    }
}
