//! The clocks, read nowhere else.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

use super::timers::Millis;

/// Time as the loop sees it: read once a turn.
#[derive(Debug)]
pub(super) struct Clock {
    started_us: u64,
    now: Millis,
    now_us: u64,
}

impl Clock {
    /// Starts at zero.
    pub(super) fn start() -> Self {
        Self {
            started_us: monotonic_us(),
            now: 0,
            now_us: 0,
        }
    }

    /// Reads the clock for this turn.
    pub(super) fn tick(&mut self) -> Millis {
        self.now_us = self.read_us();
        self.now = self.now_us / 1_000;
        self.now
    }

    /// Microseconds since the start, as of now: for measuring. Costs no system call where the kernel lends its clock (vDSO).
    #[inline]
    pub(super) fn read_us(&self) -> u64 {
        monotonic_us().saturating_sub(self.started_us)
    }

    /// Microseconds since the start, as of this turn.
    pub(super) fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Milliseconds since the start, as of this turn.
    pub(super) fn now(&self) -> Millis {
        self.now
    }
}

/// Microseconds since some moment, for the disk thread to measure by.
pub(super) fn monotonic_us() -> u64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::Monotonic);
    let (seconds, nanos) = (
        u64::try_from(tv_sec).unwrap_or(0),
        u64::try_from(tv_nsec).unwrap_or(0),
    );
    seconds.saturating_mul(1_000_000) + nanos / 1_000
}

/// Milliseconds since 1970; without a system call.
pub(super) fn unix_ms() -> u64 {
    u64::try_from(read(ClockId::Realtime).as_millis()).unwrap_or(u64::MAX)
}

/// Processor time of this thread. A system call of some hundred nanoseconds.
pub(super) fn thread_cpu_time() -> Duration {
    read(ClockId::ThreadCPUTime)
}

fn read(id: ClockId) -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(id);
    Duration::new(
        u64::try_from(tv_sec).unwrap_or(0),
        u32::try_from(tv_nsec).unwrap_or(0),
    )
}
