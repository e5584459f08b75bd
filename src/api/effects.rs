//! What remains to be done once requests are executed: replies that wait until a write is on disk
//! or on replicas, merge work, watches that begin, answers to be counted.

use crate::partition::Wait;

use super::body::change_stream::FeedRequest;
use super::request_labels::VisitAnswers;

/// What a reply waits for: a number in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitGate {
    /// The partition.
    pub partition: u32,
    /// What is waited for.
    pub wait: Wait,
    /// A version, or the count of a change.
    pub number: u64,
}

/// What one request leaves for later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FollowUp {
    pub(crate) gate: Option<CommitGate>,
    /// Merge work, in the units of `lsm/work.rs`.
    pub(crate) work: usize,
    /// When the lease ends under which data was read; `u64::MAX`: it needed none.
    pub(crate) lease_end_ms: u64,
}

impl Default for FollowUp {
    fn default() -> Self {
        Self {
            gate: None,
            work: 0,
            lease_end_ms: u64::MAX,
        }
    }
}

/// What the requests of one visit leave for later.
#[derive(Debug)]
pub struct Effects {
    /// Answers to be counted.
    pub answers: VisitAnswers,
    /// What the replies that are held back wait for.
    pub gates: Vec<CommitGate>,
    pub(crate) watch: Option<FeedRequest>,
    request_count: usize,
    deferred_count: usize,
    /// Merge work that is not charged to the turn yet.
    pub(crate) owed_work: usize,
    /// The earliest end of a lease under which a request has read; `u64::MAX`: none has.
    lease_end_ms: u64,
    /// Requests after the first one with a deferred reply.
    later_request_count: usize,
}

impl Default for Effects {
    fn default() -> Self {
        Self {
            answers: VisitAnswers::default(),
            gates: Vec::new(),
            watch: None,
            request_count: 0,
            deferred_count: 0,
            owed_work: 0,
            lease_end_ms: u64::MAX,
            later_request_count: 0,
        }
    }
}

impl Effects {
    /// Counts a request that begins.
    #[inline]
    pub(crate) fn record_request(&mut self) {
        self.request_count += 1;
        self.later_request_count += usize::from(self.deferred_count > 0);
    }

    /// Until when the answers so far may be sent, in milliseconds since the node started: after
    /// that, what they show may be out of date. `u64::MAX`: for ever.
    #[inline]
    pub fn lease_end_ms(&self) -> u64 {
        self.lease_end_ms
    }

    /// Takes on what a request leaves for later; true if its reply is held back.
    #[inline]
    pub(crate) fn take_on(&mut self, follow_up: FollowUp) -> bool {
        self.owed_work += follow_up.work;
        self.lease_end_ms = self.lease_end_ms.min(follow_up.lease_end_ms);
        match follow_up.gate {
            Some(gate) => {
                self.defer(gate);
                true
            }
            None => false,
        }
    }

    /// Whether a request was begun.
    pub fn has_requests(&self) -> bool {
        self.request_count > 0
    }

    /// Whether exactly one reply is held back, and it is the last one.
    pub fn is_one_deferred(&self) -> bool {
        self.deferred_count == 1 && self.later_request_count == 0
    }

    /// Clears everything for the next visit. Returns the watch that begins, if the last request was
    /// one.
    #[inline]
    pub fn end(&mut self) -> Option<FeedRequest> {
        self.answers.clear();
        self.gates.clear();
        (
            self.request_count,
            self.deferred_count,
            self.later_request_count,
        ) = (0, 0, 0);
        self.lease_end_ms = u64::MAX;
        self.watch.take()
    }

    /// A reply waits at a gate.
    #[inline(never)] // so that replies that wait for nothing do not carry it along
    fn defer(&mut self, gate: CommitGate) {
        self.deferred_count += 1;
        self.answers.hold();
        let is_same =
            |other: &&mut CommitGate| (other.partition, other.wait) == (gate.partition, gate.wait);
        match self.gates.iter_mut().find(is_same) {
            // Numbers ascend within a partition, so the newest one covers those before.
            Some(same) => same.number = gate.number,
            None => self.gates.push(gate),
        }
    }
}
