//! Logs and counts slow requests, and logs slow turns of the loop: the request, its duration, and
//! its parts.
//!
//! Invariant: there are at most [`LINES_PER_SECOND`] lines a second (`line_limit.rs`), and one with
//! the number of lines left out. If standard error is not read, lines are dropped
//! (`stderr_log.rs`).

use std::fmt::Write as _;

use crate::api::RequestLabels;
use crate::metrics::{PART_COUNT, SlowRequests};

use super::line_limit::LineLimit;
use super::pending_metrics::Phases;
use super::timers::Millis;

/// Lines in a second.
const LINES_PER_SECOND: u32 = 5;

/// What the parts of a request's time are called, by [`RequestPart`](crate::metrics::RequestPart).
const PART_NAMES: [&str; PART_COUNT] = [
    "queued",
    "executed",
    "waiting for the disk",
    "waiting for replicas",
    "waiting for a change of role",
    "sending",
];

/// The log of slow requests.
#[derive(Debug)]
pub(super) struct SlowLog {
    /// `u64::MAX`: nothing is slow.
    pub(super) threshold_us: u64,
    limit: LineLimit,
    /// When the turn began.
    now: Millis,
}

impl SlowLog {
    /// Logs what takes at least `slow_ms`; 0: nothing.
    pub(super) fn new(slow_ms: u64) -> Self {
        let threshold_us = if slow_ms == 0 {
            u64::MAX
        } else {
            slow_ms.saturating_mul(1_000)
        };
        Self {
            threshold_us,
            limit: LineLimit::new(LINES_PER_SECOND),
            now: 0,
        }
    }

    /// A turn begins: logs how many lines were left out before it.
    #[inline]
    pub(super) fn tick(&mut self, now: Millis) {
        self.now = now;
        let left_out_count = self.limit.tick(now);
        if left_out_count > 0 {
            log::warn!("slow: and {left_out_count} more within a second");
        }
    }

    /// Counts `count` requests of one connection that were slow together; logs and keeps the last.
    #[cold]
    pub(super) fn record(
        &mut self,
        stats: &mut SlowRequests,
        answer: &RequestLabels,
        us: u64,
        phases: &Phases,
        count: u64,
    ) {
        let parts_us = phases.parts_us(us);
        stats.record(answer.slow_request(self.now, us, parts_us, count));
        if self.limit.admits(count) {
            let parts = text_of(parts_us);
            log::warn!("slow: {answer} took {} ms{parts}", us / 1_000);
        }
    }

    /// Logs a turn that took this much processor time, including its slice of maintenance.
    #[inline]
    pub(super) fn log_turn(&mut self, turn_us: u64, slice_us: u64) {
        if turn_us >= self.threshold_us
            && let Some(line) = self.line_of_turn(turn_us, slice_us)
        {
            log::warn!("{line}");
        }
    }

    #[cold]
    fn line_of_turn(&mut self, turn_us: u64, slice_us: u64) -> Option<String> {
        let parts_us = [turn_us, slice_us, turn_us.saturating_sub(slice_us)];
        let [turn, slice, rest] = parts_us.map(|us| us / 1_000);
        self.limit.admits(1).then(|| {
            format!(
                "slow: a turn of the loop took {turn} ms: maintenance {slice} ms, requests \
                 and the rest {rest} ms"
            )
        })
    }
}

/// The parts of a request's time that are a millisecond or longer.
fn text_of(parts_us: [u64; PART_COUNT]) -> String {
    let parts = PART_NAMES.into_iter().zip(parts_us);
    let mut text = String::new();
    for (name, part_us) in parts.filter(|(_, part_us)| *part_us >= 1_000) {
        let before = if text.is_empty() { ":" } else { "," };
        let _ = write!(text, "{before} {name} {} ms", part_us / 1_000);
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::metrics::GateKind;

    use super::*;

    #[test]
    fn the_parts_of_the_time_are_named_from_a_millisecond_on() {
        let mut phases = Phases::executed(1_000, 4_500, 5_000);
        assert_eq!(text_of(phases.parts_us(4_000)), ": queued 3 ms");
        phases.record_wait(GateKind::Disk, 20_000);
        phases.record_wait(GateKind::Acks, 50_000);
        assert_eq!(
            text_of(phases.parts_us(56_000)),
            ": queued 3 ms, waiting for the disk 20 ms, waiting for replicas 50 ms, sending 2 ms"
        );
        assert_eq!(text_of(Phases::default().parts_us(900)), "");
    }

    #[test]
    fn a_slow_turn_names_its_maintenance_and_not_too_many_are_logged() {
        let mut log = SlowLog::new(1);
        let line =
            "slow: a turn of the loop took 7 ms: maintenance 4 ms, requests and the rest 2 ms";
        assert_eq!(log.line_of_turn(7_000, 4_100).as_deref(), Some(line));
        let more = (0..100).filter(|_| log.line_of_turn(7_000, 0).is_some());
        assert_eq!(more.count(), LINES_PER_SECOND as usize - 1);
    }

    #[test]
    fn a_threshold_of_nothing_is_never_reached() {
        assert_eq!(SlowLog::new(0).threshold_us, u64::MAX);
        assert_eq!(SlowLog::new(100).threshold_us, 100_000);
    }
}
