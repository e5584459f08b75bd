//! Statistics of requests: counts and durations of answers, bytes, memory of connections.
//!
//! The duration of a request begins with the turn in which its connection enters the ready queue
//! (for its last byte, if it arrives in pieces), and ends with the visit that writes the beginning
//! of its answer. It includes waits for other requests, for the disk and for replicas, but not the
//! network, nor a peer that sends or reads slowly.
//!
//! Invariants:
//! 1. A visit reads the clock once at most, and only if it has answered something. Counting costs
//!    no system call and, replies that are held back in numbers aside, no allocation.
//! 2. Each answer is counted once, with the status that was sent. An answer that is held back is
//!    counted when it, or the refusal in its place, is sent.
//!
//! Not here: other counts (turns in `housekeeping.rs`, waits in `deferred_replies.rs`), the list of
//! metrics (`api/metrics/families.rs`).

use crate::api::VisitAnswers;
use crate::metrics::NodeStats;

use super::clock::Clock;
use super::pending_metrics::{PendingMetrics, Phases};
use super::session::Session;
use super::slow_log::SlowLog;

/// Counts the answers that a visit has sent. `released`: those that were held back before.
#[inline]
pub(super) fn record_visit(
    slow_log: &mut SlowLog,
    session: &mut Session,
    answers: &VisitAnswers,
    released: Option<PendingMetrics>,
    stats: &mut NodeStats,
    clock: &Clock,
) {
    if answers.is_empty() && released.is_none() {
        return;
    }
    let now_us = clock.read_us();
    if let Some(held) = released {
        release(held.count(), stats);
        for answer in std::iter::once(&held.first).chain(&held.rest) {
            let took_us = now_us.saturating_sub(held.came_at_us);
            answer.record(&mut stats.requests, took_us);
            if took_us >= slow_log.threshold_us {
                slow_log.record(&mut stats.slow_requests, answer, took_us, &held.phases, 1);
            }
        }
    }
    let came_at_us = session.came_at_us;
    let phases = || Phases::executed(came_at_us, clock.now_us, now_us);
    let took_us = now_us.saturating_sub(came_at_us);
    let counts = answers.sent_counts.iter().enumerate();
    for (group, count) in counts.filter(|(_, count)| **count > 0) {
        stats.requests.record_durations(group, took_us, *count);
    }
    if took_us >= slow_log.threshold_us
        && let Some(last) = answers.last_sent
    {
        let count = answers.sent_counts.iter().sum();
        slow_log.record(&mut stats.slow_requests, &last, took_us, &phases(), count);
    }
    if !answers.held.is_empty()
        && let Some(held) = PendingMetrics::of(&answers.held, came_at_us, phases())
    {
        hold(session, held, stats);
    }
}

/// Counts answers as held back.
pub(super) fn hold(session: &mut Session, held: PendingMetrics, stats: &mut NodeStats) {
    debug_assert!(
        session.held.is_none(),
        "a session with answers held back executes no request"
    );
    stats.held_reply_count += held.count();
    session.held = Some(held);
}

/// Counts answers as no longer held back; saturating, so that a counting bug cannot stop the node.
pub(super) fn release(count: usize, stats: &mut NodeStats) {
    debug_assert!(
        stats.held_reply_count >= count,
        "more are released than were held"
    );
    stats.held_reply_count = stats.held_reply_count.saturating_sub(count);
}

/// Counts bytes read and sent in a visit, and the change of the connection's memory.
#[inline]
pub(super) fn record_bytes(session: &mut Session, sent_bytes_before: u64, stats: &mut NodeStats) {
    stats.received_bytes += std::mem::take(&mut session.accounting.uncounted_bytes);
    stats.sent_bytes += session.sent_bytes - sent_bytes_before;
    let heap_bytes = session.heap_bytes();
    if heap_bytes != session.accounting.counted_heap_bytes {
        stats.connection_bytes =
            stats.connection_bytes - session.accounting.counted_heap_bytes + heap_bytes;
        session.accounting.counted_heap_bytes = heap_bytes;
    }
}

/// Subtracts a freed session from the statistics of the present.
pub(super) fn record_freed(session: &Session, stats: &mut NodeStats) {
    stats.connection_bytes -= session.accounting.counted_heap_bytes;
    release(
        session.held.as_ref().map_or(0, PendingMetrics::count),
        stats,
    );
}
