//! What requests leave to be done once they are carried out: above all replies to writes, which go
//! only when what they say is true: on disk, on replicas.

use crate::partition::Wait;

use super::body::change_stream::WatchRequest;
use super::request_labels::VisitAnswers;

/// What a reply waits for: a number in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gate {
    /// The partition.
    pub partition: u32,
    /// What is waited for.
    pub wait: Wait,
    /// A version, or the count of a change.
    pub number: u64,
}

/// What one request leaves to be done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct FollowUp {
    pub(crate) gate: Option<Gate>,
    /// Merging, in units of work: as long as handling so many bytes takes, about.
    pub(crate) work: usize,
}

/// What the requests of one visit leave to be done.
#[derive(Debug, Default)]
pub struct Effects {
    /// Answers to be counted.
    pub answers: VisitAnswers,
    /// What replies wait for.
    pub gates: Vec<Gate>,
    pub(crate) watch: Option<WatchRequest>,
    request_count: usize,
    deferred_count: usize,
    /// Work that is not charged to the turn yet.
    pub(crate) owed_work: usize,
    /// Requests since the first reply that waits.
    later_request_count: usize,
}

impl Effects {
    /// A request is begun.
    #[inline]
    pub(crate) fn record_request(&mut self) {
        self.request_count += 1;
        self.later_request_count += usize::from(self.deferred_count > 0);
    }

    /// Whether a request was begun.
    pub fn has_requests(&self) -> bool {
        self.request_count > 0
    }

    /// Whether of all replies one was held back, and none came after it.
    pub fn is_one_deferred(&self) -> bool {
        self.deferred_count == 1 && self.later_request_count == 0
    }

    /// Everything is done; returns the request to be told of changes that was answered last, if
    /// there was one.
    #[inline]
    pub fn end(&mut self) -> Option<WatchRequest> {
        self.answers.clear();
        self.gates.clear();
        (
            self.request_count,
            self.deferred_count,
            self.later_request_count,
        ) = (0, 0, 0);
        self.watch.take()
    }

    /// A reply waits at a gate.
    #[inline(never)] // so that replies that wait for nothing do not carry it along
    pub(crate) fn defer(&mut self, gate: Gate) {
        self.deferred_count += 1;
        self.answers.hold();
        let is_same =
            |other: &&mut Gate| (other.partition, other.wait) == (gate.partition, gate.wait);
        match self.gates.iter_mut().find(is_same) {
            // Numbers ascend: the newest stands for all.
            Some(same) => same.number = gate.number,
            None => self.gates.push(gate),
        }
    }
}
