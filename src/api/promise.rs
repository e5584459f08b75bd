//! What requests leave to be done once they are carried out: above all replies to writes, which go
//! only when what they say is true: on disk, on replicas.

use crate::http::{Head, Refusal, Reply};
use crate::partition::{Partition, Wait};

use super::values::number;
use super::{Answers, Api, WatchRequest};

/// Most replicas that a request can ask for; more than one leader feeds.
const MIN_ACKS_MAX: u8 = 32;

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

/// What a write leaves to be done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Due {
    pub(super) gate: Option<Gate>,
    /// Merging, in units of work: as long as handling so many bytes takes, about.
    pub(super) work: usize,
}

/// What the requests of one visit leave to be done.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Answers to be counted.
    pub answers: Answers,
    /// What replies wait for.
    pub gates: Vec<Gate>,
    pub(super) watch: Option<WatchRequest>,
    request_count: usize,
    promise_count: usize,
    /// Work that is not charged to the turn yet.
    pub(super) owed_work: usize,
    /// Requests since the first promise.
    later_request_count: usize,
}

impl Outcome {
    /// A request is begun.
    #[inline]
    pub(super) fn note_request(&mut self) {
        self.request_count += 1;
        self.later_request_count += usize::from(self.promise_count > 0);
    }

    /// Whether a request was begun.
    pub fn has_requests(&self) -> bool {
        self.request_count > 0
    }

    /// Whether of all replies one was held back, and none came after it.
    pub fn is_promise_alone(&self) -> bool {
        self.promise_count == 1 && self.later_request_count == 0
    }

    /// Everything is done; returns the request to be told of changes that was answered last, if
    /// there was one.
    #[inline]
    pub fn end(&mut self) -> Option<WatchRequest> {
        self.answers.clear();
        self.gates.clear();
        (
            self.request_count,
            self.promise_count,
            self.later_request_count,
        ) = (0, 0, 0);
        self.watch.take()
    }

    #[inline(never)] // so that replies that wait for nothing do not carry it along
    fn add(&mut self, gate: Gate) {
        self.promise_count += 1;
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

impl Api<'_> {
    /// What a write that was just made in a partition leaves to be done, given what all writes
    /// before had incurred.
    #[inline]
    pub(super) fn due_of_write(partition: &Partition, min_acks: u8, incurred_before: u64) -> Due {
        let (id, number, tenure) = (
            partition.id(),
            partition.lsm().last_version(),
            partition.tenure(),
        );
        let gate = if min_acks > 0 {
            Some(Gate {
                partition: id,
                wait: Wait::Acks {
                    count: min_acks,
                    tenure,
                },
                number,
            })
        } else {
            partition.gate().map(|number| Gate {
                partition: id,
                wait: Wait::Disk { tenure },
                number,
            })
        };
        let work = usize::try_from(partition.lsm().incurred_work() - incurred_before)
            .unwrap_or(usize::MAX);
        Due { gate, work }
    }

    /// The reply: it goes when its gate opens.
    #[inline]
    pub(super) fn promise<'o>(&mut self, due: Due, reply: Reply<'o>) -> Reply<'o> {
        self.outcome.owed_work += due.work;
        let Some(gate) = due.gate else { return reply };
        self.outcome.add(gate);
        reply.hold()
    }

    /// Replicas that must hold a write, as asked for by the request or else by the command line.
    #[inline]
    pub(super) fn min_acks(&self, head: &Head<'_>) -> Result<u8, Refusal> {
        let Some(value) = head.min_acks else {
            return Ok(self.node.config().min_acks);
        };
        number(value)
            .filter(|count| *count <= MIN_ACKS_MAX)
            .ok_or_else(|| {
                Refusal::bad_request(format!(
                    "X-Min-Acks must be a number of replicas, 0 to {MIN_ACKS_MAX}"
                ))
            })
    }
}

/// What is said instead of a reply that waits for something that will not come.
#[cold]
pub fn broken(wait: Wait) -> Refusal {
    match wait {
        Wait::Disk { .. } | Wait::Acks { .. } => role_changed(),
        Wait::Read { .. } => {
            let message = "this node leads no more: what was read may be out of date; read it from \
                           the new leader";
            Refusal::new(503, "role_changing", message)
        }
        Wait::Settled { .. } | Wait::Removed => {
            let message = "the partition was given up before this was done: ask for its state, and \
                           order again";
            Refusal::new(409, "superseded", message)
        }
    }
}

/// What a write gets that was waiting when the node ceased to lead.
#[cold]
fn role_changed() -> Refusal {
    let message = "applied here, but this node leads no more: whether the write lasts is not \
                   known; read it from the new leader";
    Refusal::new(504, "role_changed", message)
}

/// What a write gets that replicas have not confirmed in time.
#[cold]
pub fn acks_timeout(timeout_ms: u64) -> Refusal {
    let message = format!(
        "applied here, and not confirmed by enough replicas within {timeout_ms} ms: it may last or \
         be lost if this node fails; GET /status shows the replicas"
    );
    Refusal::new(504, "acks_timeout", message)
}

/// What a read gets that shows what replicas have not confirmed in time.
#[cold]
pub fn unconfirmed(timeout_ms: u64) -> Refusal {
    let message = format!(
        "what this read would show was not confirmed by enough replicas within {timeout_ms} ms: \
         try again, or read with ?consistency=local; GET /status shows the replicas"
    );
    Refusal::new(503, "unconfirmed", message)
}
