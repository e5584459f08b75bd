//! A clock that never jumps: it runs faster or slower until it shows the time of its reference.
//!
//! Invariants:
//! 1. It never goes back.
//! 2. While `e` ms pass the clock advances by `e` ms, give or take one part in [`SLEW_SHARE`]: a
//!    reference that is wrong for a moment has next to no effect.
//!
//! Not here: the clocks of the system (`reactor/clock.rs`), which node's time counts
//! (`partition/`).

/// The clock gains or loses one part in so many: a minute in 20.
const SLEW_SHARE: u64 = 20;

/// The last millisecond that dates are written for: the end of the year 9999.
pub const LAST_UNIX_MS: u64 = 253_402_300_799_999;

/// The clock, in Unix ms.
#[derive(Clone, Debug, Default)]
pub struct SlewedClock {
    now_ms: u64,
    /// Passed time that was too short to gain or lose a whole millisecond.
    rest_ms: u64,
}

impl SlewedClock {
    /// A clock that shows `now_ms`.
    pub fn showing(now_ms: u64) -> Self {
        let rest_ms = 0;
        Self { now_ms, rest_ms }
    }

    /// The time that the clock shows.
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// Advances the clock by `elapsed_ms`, and towards `reference_ms`.
    pub fn advance(&mut self, elapsed_ms: u64, reference_ms: u64) {
        self.now_ms = self.now_ms.saturating_add(elapsed_ms);
        let passed_ms = self.rest_ms.saturating_add(elapsed_ms);
        self.rest_ms = passed_ms % SLEW_SHARE;
        let most_ms = passed_ms / SLEW_SHARE;
        if reference_ms >= self.now_ms {
            self.now_ms += most_ms.min(reference_ms - self.now_ms);
        } else {
            // At most one part of the time that has passed, all of which was added before.
            let lost_ms = most_ms.min(self.now_ms - reference_ms).min(elapsed_ms);
            self.now_ms -= lost_ms;
        }
    }

    /// Sets the clock forward to `at_least_ms`, if it shows less.
    pub fn catch_up(&mut self, at_least_ms: u64) {
        self.now_ms = self.now_ms.max(at_least_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_by_what_has_passed_whatever_the_reference_shows() {
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut clock = SlewedClock::showing(1_000_000);
            let (mut passed_ms, mut last_ms) = (0, clock.now_ms());
            for _ in 0..2_000 {
                let pace_ms = [2, 5, 1_000][rng.usize(..3)];
                let elapsed_ms = rng.u64(..pace_ms);
                let reference_ms = [0, u64::MAX, rng.u64(..2_000_000)][rng.usize(..3)];
                clock.advance(elapsed_ms, reference_ms);
                passed_ms += elapsed_ms;
                assert!(clock.now_ms() >= last_ms, "seed {seed}: it goes back");
                last_ms = clock.now_ms();
            }
            let error_ms = last_ms.abs_diff(1_000_000 + passed_ms);
            assert!(
                error_ms <= passed_ms / SLEW_SHARE,
                "seed {seed}: {error_ms}"
            );
        }
    }

    #[test]
    fn it_comes_to_show_what_the_reference_does() {
        for begun_ms in [50_000, 150_000] {
            let mut clock = SlewedClock::showing(begun_ms);
            for at_ms in 100_000..100_000 + 50_000 * SLEW_SHARE {
                clock.advance(1, at_ms + 1);
            }
            let reference_ms = 100_000 + 50_000 * SLEW_SHARE;
            assert_eq!(clock.now_ms(), reference_ms, "{begun_ms}");
        }
        let mut clock = SlewedClock::showing(10);
        clock.catch_up(5);
        assert_eq!(clock.now_ms(), 10);
        clock.catch_up(15);
        assert_eq!(clock.now_ms(), 15);
    }
}
