//! Measuring what the loop does for requests: counts and durations of answers, bytes, memory of
//! connections.
//!
//! A request lasts from the turn in which its connection came on the ready list with it (its last
//! byte, if it came in pieces) to the end of the visit that wrote the first of its answer. So the
//! time counts that it waited for other requests, for the disk and for replicas; what the network
//! and a peer that sends or reads slowly take does not.
//!
//! Invariants:
//! 1. A visit reads the clock once at most, and only if it has answered something. Counting costs
//!    no system call and, replies that are held back in numbers aside, no allocation.
//! 2. Each answer is counted once, with the status that was sent: one that is held back when it
//!    goes, or what is said instead.
//!
//! Not here: what is counted otherwise (turns in `mod.rs`, waits in `promises.rs`), the list of
//! metrics (`api/metrics/families.rs`).

use crate::api::{RequestLabels, VisitAnswers};
use crate::metrics::NodeStats;

use super::Reactor;
use super::clock::Clock;
use super::session::Session;
use super::slow_log::SlowLog;

/// Answers that wait to be sent; of requests that came together.
#[derive(Debug)]
pub(super) struct Held {
    first: RequestLabels,
    /// Of a peer that did not wait for the first.
    rest: Vec<RequestLabels>,
    /// When the requests came, in microseconds since the node started.
    came_at_us: u64,
}

impl Held {
    pub(super) fn one(answer: RequestLabels, came_at_us: u64) -> Self {
        Self {
            first: answer,
            rest: Vec::new(),
            came_at_us,
        }
    }

    fn of(answers: &[RequestLabels], came_at_us: u64) -> Option<Self> {
        let (first, rest) = answers.split_first()?;
        Some(Self {
            first: *first,
            rest: rest.to_vec(),
            came_at_us,
        })
    }

    pub(super) fn count(&self) -> usize {
        1 + self.rest.len()
    }

    /// Something else is said, once, instead of all of them.
    pub(super) fn replace(&mut self, status: u16) {
        self.first = self.first.with_status(status);
        self.rest = Vec::new();
    }
}

/// What visits leave to be counted.
#[derive(Debug)]
pub(super) struct Measure {
    pub(super) slow_log: SlowLog,
}

impl Measure {
    pub(super) fn new(slow_request_ms: u64) -> Self {
        Self {
            slow_log: SlowLog::new(slow_request_ms),
        }
    }

    /// Counts what a visit has sent. `released`: what was held back before it.
    #[inline]
    pub(super) fn note_visit(
        &mut self,
        session: &mut Session,
        answers: &VisitAnswers,
        released: Option<Held>,
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
                self.count(answer, now_us.saturating_sub(held.came_at_us), stats);
            }
        }
        let took_us = now_us.saturating_sub(session.came_at_us);
        for (group, count) in answers
            .sent_counts
            .iter()
            .enumerate()
            .filter(|(_, count)| **count > 0)
        {
            stats.requests.note_durations(group, took_us, *count);
        }
        if took_us >= self.slow_log.threshold_us()
            && let Some(last) = answers.last_sent
        {
            let count = answers.sent_counts.iter().sum();
            stats.slow_request_count += count;
            self.slow_log.note(&last, took_us, count);
        }
        if let Some(held) = Held::of(&answers.held, session.came_at_us) {
            hold(session, held, stats);
        }
    }

    fn count(&mut self, answer: &RequestLabels, us: u64, stats: &mut NodeStats) {
        answer.record(&mut stats.requests, us);
        if us >= self.slow_log.threshold_us() {
            stats.slow_request_count += 1;
            self.slow_log.note(answer, us, 1);
        }
    }
}

/// Answers wait to be sent.
pub(super) fn hold(session: &mut Session, held: Held, stats: &mut NodeStats) {
    debug_assert!(
        session.held.is_none(),
        "nothing is asked while answers wait"
    );
    stats.held_reply_count += held.count();
    session.held = Some(held);
}

/// Answers wait no more. Should it ever be counted wrong, the node does not end for it.
pub(super) fn release(count: usize, stats: &mut NodeStats) {
    debug_assert!(stats.held_reply_count >= count, "more go than waited");
    stats.held_reply_count = stats.held_reply_count.saturating_sub(count);
}

/// Counts bytes that a visit has moved, and memory that the connection has grown or shrunk by.
#[inline]
pub(super) fn note_bytes(session: &mut Session, sent_bytes_before: u64, stats: &mut NodeStats) {
    stats.received_bytes += std::mem::take(&mut session.uncounted_bytes);
    stats.sent_bytes += session.sent_bytes - sent_bytes_before;
    let heap_bytes = session.heap_bytes();
    if heap_bytes != session.counted_heap_bytes {
        stats.connection_bytes = stats.connection_bytes - session.counted_heap_bytes + heap_bytes;
        session.counted_heap_bytes = heap_bytes;
    }
}

impl Reactor {
    /// A connection goes, with what it still had to say.
    pub(super) fn forget_session(session: &Session, stats: &mut NodeStats) {
        stats.connection_bytes -= session.counted_heap_bytes;
        release(session.held.as_ref().map_or(0, Held::count), stats);
    }
}
