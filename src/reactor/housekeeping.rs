//! The work of a turn that is not for a request: clocks, a slice of maintenance, statistics.

use std::time::Duration;

use crate::allocator;
use crate::node::SLOW_TURN_US;

use super::clock::{self, WallTick};
use super::core::Core;
use super::limits::{CLOCK_STEP_LINES, IDLE_SLICE_WORK, TURN_WORK_BYTES};
use super::line_limit::LineLimit;

/// What is kept from turn to turn.
pub(super) struct Housekeeping {
    /// Limits the lines of log about a system's clock that was set.
    steps: LineLimit,
    /// Processor time of the loop at the end of the last turn.
    cpu_time: Duration,
}

impl Housekeeping {
    pub(super) fn start() -> Self {
        Self {
            steps: LineLimit::new(CLOCK_STEP_LINES),
            cpu_time: clock::thread_cpu_time(),
        }
    }

    /// Reads the clocks, and tells the node time and memory.
    pub(super) fn start_turn(&mut self, core: &mut Core) {
        let now = core.clock.tick();
        core.sessions.ready.now_us = core.clock.now_us;
        let wall = core.clock.tick_wall();
        core.node.set_time_ms(wall.now_ms);
        self.record_clock_step(core, &wall);
        core.node.set_memory_in_use(allocator::allocated_bytes());
        core.node.resources.scan_snapshots.release(now);
    }

    /// Counts and logs that the system's clock was set.
    fn record_clock_step(&mut self, core: &mut Core, wall: &WallTick) {
        core.node.stats.clock.away_ms = wall.system_ms.abs_diff(wall.now_ms);
        self.steps.tick(core.clock.now);
        if wall.step_ms == 0 {
            return;
        }
        core.node.stats.clock.step_count += 1;
        if self.steps.admits(1) {
            let direction = if wall.step_ms > 0 { "ahead" } else { "back" };
            let by_ms = wall.step_ms.unsigned_abs();
            log::warn!(
                "the system's clock was set {direction} by {}.{:03} s: times to live go on by the \
                 time that passes, and come to what the clock shows little by little",
                by_ms / 1_000,
                by_ms % 1_000
            );
        }
    }

    /// Counts a turn, at its end; returns its processor time in microseconds.
    pub(super) fn end_turn(&mut self, core: &mut Core) -> u64 {
        let cpu_time = clock::thread_cpu_time();
        let turn_us = micros(cpu_time.saturating_sub(self.cpu_time));
        self.cpu_time = cpu_time;
        let stats = &mut core.node.loop_stats;
        stats.turn_count += 1;
        stats.longest_turn_us = stats.longest_turn_us.max(turn_us);
        stats.slow_turn_count += u64::from(turn_us > SLOW_TURN_US);
        core.node.stats.turns.record(turn_us);
        turn_us
    }
}

/// Does a slice of maintenance: what the writes of this turn owe, or more in a quiet turn. Returns
/// its processor time in microseconds.
pub(super) fn maintain(core: &mut Core, is_quiet: bool) -> u64 {
    if core.node.is_idle() {
        return 0;
    }
    let work = if is_quiet {
        IDLE_SLICE_WORK
    } else {
        core.node.owed_work().min(TURN_WORK_BYTES)
    };
    if work == 0 {
        return 0;
    }
    let before = clock::thread_cpu_time();
    core.node.maintain(work);
    let slice_us = micros(clock::thread_cpu_time().saturating_sub(before));
    let stats = &mut core.node.loop_stats;
    stats.longest_slice_us = stats.longest_slice_us.max(slice_us);
    core.node.stats.slices.record(slice_us);
    slice_us
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
