//! What every turn of the loop begins and ends with: clocks, how long the poll may wait, a slice of
//! maintenance, figures.

use std::time::Duration;

use crate::allocator;
use crate::http::HttpDate;
use crate::node::SLOW_TURN_US;

use super::clock::WallTick;
use super::limits::{IDLE_SLICE_WORK, TURN_WORK_BYTES};
use super::listener::RETRY_MS;
use super::timers::Millis;
use super::{Reactor, clock};

impl Reactor {
    /// How long the poll may wait.
    pub(super) fn time_out(&self) -> Option<Duration> {
        let is_busy = !self.ready.is_empty()
            || self.is_accepting
            || !self.node.is_idle()
            || self.watching.is_busy();
        if is_busy
            || self
                .gates
                .is_due(|partition, wait| self.node.wait_progress(partition, wait))
        {
            return Some(Duration::ZERO);
        }
        let link_at = self.replication.wake_at(&self.node);
        if link_at.is_some_and(|at| at <= self.clock.now()) {
            return Some(Duration::ZERO);
        }
        let gathered_at = self.node.gathering_until_us().map(|at_us| at_us / 1_000);
        let maintain_at = self
            .node
            .maintain_in_ms()
            .map(|in_ms| self.clock.now() + in_ms);
        let deadlines = [
            self.timers.next(),
            self.accept_again_at,
            self.drain_until,
            self.disk.sync_at(),
            gathered_at,
            link_at,
            maintain_at,
            self.node.scan_snapshots.next_ms(),
            self.supervisor.wake_at(),
            self.relief.wake_at(self.node.is_full(), self.clock.now()),
            (self.node.is_short_of_descriptors()).then(|| self.clock.now() + RETRY_MS),
        ];
        let next = deadlines
            .map(|at| at.unwrap_or(Millis::MAX))
            .into_iter()
            .min()
            .filter(|&at| at != Millis::MAX)?;
        // One more: the clock's milliseconds are rounded down, and waking just before the deadline
        // is one turn too many.
        Some(Duration::from_millis(
            next.saturating_sub(self.clock.now()) + 1,
        ))
    }

    pub(super) fn start_turn(&mut self) {
        let now = self.clock.tick();
        self.ready.now_us = self.clock.now_us();
        self.measure.slow_log.tick(now);
        let wall = self.clock.tick_wall();
        self.node.set_time_ms(wall.now_ms);
        self.note_clock_step(&wall);
        self.node.set_memory_in_use(allocator::allocated_bytes());
        self.node.scan_snapshots.release(now);
        self.share_descriptors();
        let seconds = wall.system_ms / 1_000;
        if seconds != self.date_seconds {
            self.date_seconds = seconds;
            self.date = HttpDate::from_unix_seconds(seconds);
        }
        if self.accept_again_at.is_some_and(|at| at <= now) {
            self.accept_again_at = None;
            self.is_accepting = true;
        }
    }

    /// Counts and logs that the system's clock was set.
    fn note_clock_step(&mut self, wall: &WallTick) {
        self.node.stats.clock_away_ms = wall.system_ms.abs_diff(wall.now_ms);
        self.clock_steps.tick(self.clock.now());
        if wall.step_ms == 0 {
            return;
        }
        self.node.stats.clock_step_count += 1;
        if self.clock_steps.admits(1) {
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

    pub(super) fn maintain(&mut self, is_quiet: bool) {
        if self.node.is_idle() {
            return;
        }
        let work = if is_quiet {
            IDLE_SLICE_WORK
        } else {
            self.node.owed_work().min(TURN_WORK_BYTES)
        };
        if work == 0 {
            return;
        }
        let before = clock::thread_cpu_time();
        self.node.maintain(work);
        let slice = clock::thread_cpu_time().saturating_sub(before);
        let stats = &mut self.node.loop_stats;
        stats.longest_slice_us = stats.longest_slice_us.max(micros(slice));
        self.node.stats.slices.record(micros(slice));
    }

    pub(super) fn end_turn(&mut self) {
        let cpu_time = clock::thread_cpu_time();
        let turn_us = micros(cpu_time.saturating_sub(self.cpu_time));
        self.cpu_time = cpu_time;
        let stats = &mut self.node.loop_stats;
        stats.turn_count += 1;
        stats.longest_turn_us = stats.longest_turn_us.max(turn_us);
        stats.slow_turn_count += u64::from(turn_us > SLOW_TURN_US);
        stats.connection_count = self.sessions.len();
        stats.watcher_count = self.watching.count();
        stats.link_count = self.replication.link_count();
        stats.stranger_count = self.replication.stranger_count();
        self.node.stats.turns.record(turn_us);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
