//! The clocks; no other file reads one.
//!
//! Time-outs use a clock that counts from the start of the node and cannot be set. It goes on
//! while the machine is suspended (`CLOCK_BOOTTIME`), so that what was promised for a time is over
//! by then for this node, too. Times to live use [`WallClock`]: it shows the time of day, and
//! approaches the system's clock gradually when that is set.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::http::HttpDate;
use crate::slew::{LAST_UNIX_MS, SlewedClock};

use super::timers::Millis;

/// If the system's clock is this far from the expected time, it was set.
const STEP_MS: u64 = 1_000;

/// In addition it may drift by this fraction of the time since the last reading, as when it is
/// slewed.
const DRIFT_SHARE: u64 = 1_000;

/// Time as the loop sees it: read once a turn.
#[derive(Debug)]
pub(super) struct Clock {
    started_us: u64,
    /// Milliseconds since the start, as of this turn.
    pub(super) now: Millis,
    /// Microseconds since the start, as of this turn.
    pub(super) now_us: u64,
    wall: WallClock,
    /// The value of Date in this turn.
    pub(super) date: HttpDate,
    date_seconds: u64,
}

impl Clock {
    /// Starts at zero.
    pub(super) fn start() -> Self {
        Self {
            started_us: since_boot_us(),
            now: 0,
            now_us: 0,
            wall: WallClock::start(unix_ms(), since_boot_ms()),
            date: HttpDate::from_unix_seconds(0),
            date_seconds: 0,
        }
    }

    /// Reads the clock for this turn.
    pub(super) fn tick(&mut self) -> Millis {
        self.now_us = self.read_us();
        self.now = self.now_us / 1_000;
        self.now
    }

    /// Reads the time of day for this turn.
    pub(super) fn tick_wall(&mut self) -> WallTick {
        let wall = self.wall.tick(unix_ms(), since_boot_ms());
        let seconds = wall.system_ms / 1_000;
        if seconds != self.date_seconds {
            self.date_seconds = seconds;
            self.date = HttpDate::from_unix_seconds(seconds);
        }
        wall
    }

    /// Microseconds since the start, read now, for measuring. Takes no system call where the kernel
    /// maps its clock (vDSO).
    #[inline]
    pub(super) fn read_us(&self) -> u64 {
        since_boot_us().saturating_sub(self.started_us)
    }
}

/// The time of day: the system's time at the start plus the time since, running slightly faster or
/// slower while the system's clock shows another time.
#[derive(Debug)]
struct WallClock {
    clock: SlewedClock,
    /// The system's clocks at the last reading.
    system_ms: u64,
    since_boot_ms: u64,
}

/// One reading of the time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "the unit stands last")]
pub(super) struct WallTick {
    /// The time for times to live.
    pub(super) now_ms: u64,
    /// The system's clock.
    pub(super) system_ms: u64,
    /// By how much the system's clock was set forward (or back, if negative); 0: it was not.
    pub(super) step_ms: i64,
}

impl WallClock {
    fn start(system_ms: u64, since_boot_ms: u64) -> Self {
        Self {
            clock: SlewedClock::showing(system_ms),
            system_ms,
            since_boot_ms,
        }
    }

    fn tick(&mut self, system_ms: u64, since_boot_ms: u64) -> WallTick {
        let elapsed_ms = since_boot_ms.saturating_sub(self.since_boot_ms);
        let expected_ms = self.system_ms.saturating_add(elapsed_ms);
        // Both are of the years up to 9999.
        let away_ms = system_ms.cast_signed() - expected_ms.min(LAST_UNIX_MS).cast_signed();
        let is_step = away_ms.unsigned_abs() > STEP_MS + elapsed_ms / DRIFT_SHARE;
        (self.system_ms, self.since_boot_ms) = (system_ms, since_boot_ms);
        self.clock.advance(elapsed_ms, system_ms);
        WallTick {
            now_ms: self.clock.now_ms(),
            system_ms,
            step_ms: if is_step { away_ms } else { 0 },
        }
    }
}

/// Microseconds since the machine started, the time that it was suspended included.
pub(super) fn since_boot_us() -> u64 {
    let shown = clock_gettime(ClockId::Boottime);
    let [seconds, nanos] =
        [shown.tv_sec, shown.tv_nsec].map(|part| u64::try_from(part).unwrap_or(0));
    seconds.saturating_mul(1_000_000) + nanos / 1_000
}

/// Milliseconds since 1970, of the years 1970 to 9999; without a system call.
pub(super) fn unix_ms() -> u64 {
    unix_ms_of(clock_gettime(ClockId::Realtime))
}

/// A reading as milliseconds, limited to the range of dates that can be written.
fn unix_ms_of(shown: Timespec) -> u64 {
    ms(duration_of(shown)).min(LAST_UNIX_MS)
}

/// The same in milliseconds.
fn since_boot_ms() -> u64 {
    since_boot_us() / 1_000
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Processor time of this thread. A system call of some hundred nanoseconds.
pub(super) fn thread_cpu_time() -> Duration {
    read(ClockId::ThreadCPUTime)
}

fn read(id: ClockId) -> Duration {
    duration_of(clock_gettime(id))
}

/// A reading as a duration; zero if it is negative.
fn duration_of(shown: Timespec) -> Duration {
    let Timespec { tv_sec, tv_nsec } = shown;
    Duration::new(
        u64::try_from(tv_sec).unwrap_or(0),
        u32::try_from(tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    /// Looks at a clock every millisecond for so long, while the system's shows another time;
    /// returns what it showed last and the steps that were seen.
    fn run(clock: &mut WallClock, for_ms: u64, system_ms: impl Fn(u64) -> u64) -> (u64, Vec<i64>) {
        let (begun_ms, mut steps, mut shown_ms) = (clock.since_boot_ms, Vec::new(), 0);
        for at_ms in begun_ms + 1..=begun_ms + for_ms {
            let tick = clock.tick(system_ms(at_ms), at_ms);
            assert!(tick.now_ms >= shown_ms, "it goes back");
            shown_ms = tick.now_ms;
            steps.extend((tick.step_ms != 0).then_some(tick.step_ms));
        }
        (shown_ms, steps)
    }

    #[test]
    fn a_clock_outside_of_the_years_of_dates_shows_the_nearest_time() {
        let end_s = 253_402_300_800;
        for (tv_sec, expected_ms) in [
            (i64::MIN, 0),
            (-1, 0),
            (0, 0),
            (end_s - 1, LAST_UNIX_MS - 999),
            (end_s, LAST_UNIX_MS),
            (i64::MAX, LAST_UNIX_MS),
        ] {
            let shown = Timespec { tv_sec, tv_nsec: 0 };
            assert_eq!(unix_ms_of(shown), expected_ms, "{tv_sec}");
        }
    }

    /// Two hours ahead, or back, for half a second: two steps are told, and nothing that lives for
    /// a second ends before its time, or much later.
    #[test]
    fn a_step_for_a_moment_changes_next_to_nothing() {
        let base_ms = 1_800_000_000_000;
        for wrong_ms in [
            base_ms + 2 * HOUR_MS,
            base_ms - 2 * HOUR_MS,
            0,
            LAST_UNIX_MS,
        ] {
            let mut clock = WallClock::start(base_ms, 0);
            let right = |at_ms| base_ms + at_ms;
            let wrong = |at_ms: u64| (wrong_ms + at_ms).min(LAST_UNIX_MS);
            assert_eq!(run(&mut clock, 1_000, right), (base_ms + 1_000, vec![]));
            let (shown_ms, steps) = run(&mut clock, 500, wrong);
            assert!(shown_ms.abs_diff(base_ms + 1_500) <= 25, "{shown_ms}");
            let away_ms = wrong_ms.cast_signed() - base_ms.cast_signed();
            assert_eq!(steps.len(), 1);
            assert!(steps[0].abs_diff(away_ms) <= 1_001, "{steps:?}");
            let (shown_ms, steps) = run(&mut clock, 1_000, right);
            assert_eq!(shown_ms, base_ms + 2_500, "it has come back");
            assert_eq!(steps.len(), 1);
        }
    }

    /// A clock that is set for good, and one that is slowly corrected.
    #[test]
    fn the_systems_clock_is_followed_in_the_end() {
        let mut clock = WallClock::start(HOUR_MS, 0);
        let (shown_ms, steps) = run(&mut clock, 10 * 60_000, |at_ms| HOUR_MS + 20_000 + at_ms);
        assert_eq!(
            (shown_ms, steps),
            (HOUR_MS + 20_000 + 600_000, vec![20_000])
        );
        let (shown_ms, steps) = run(&mut clock, 10 * 60_000, |at_ms| {
            HOUR_MS + 20_000 + at_ms + (at_ms - 600_000) / 2_000
        });
        assert_eq!((shown_ms, steps), (HOUR_MS + 20_000 + 1_200_300, vec![]));
    }

    /// While the machine sleeps, or the node waits for hours, time goes on.
    #[test]
    fn a_long_sleep_is_no_step() {
        let mut clock = WallClock::start(HOUR_MS, 0);
        let tick = clock.tick(9 * HOUR_MS + 3_000, 8 * HOUR_MS);
        assert_eq!((tick.now_ms, tick.step_ms), (9 * HOUR_MS + 3_000, 0));
    }
}
