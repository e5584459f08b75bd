//! Replies to writes that go only when what they say is true: on disk, on replicas.

use crate::http::{Head, Refusal, Reply};
use crate::partition::{Partition, Wait};

use super::values::number;
use super::{Answers, Api};

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

/// What the replies of one visit wait for.
#[derive(Debug)]
pub struct Promised<'n> {
    gates: &'n mut Vec<Gate>,
    pub(super) answers: &'n mut Answers,
    promise_count: usize,
    /// Requests since the first of them.
    request_count: usize,
}

impl<'n> Promised<'n> {
    /// Nothing yet; gates are collected in `gates`, answers in `answers`.
    pub fn new(gates: &'n mut Vec<Gate>, answers: &'n mut Answers) -> Self {
        Self { gates, answers, promise_count: 0, request_count: 0 }
    }

    /// A request is begun.
    #[inline]
    pub(super) fn note_request(&mut self) {
        self.request_count += usize::from(self.promise_count > 0);
    }

    pub(super) fn is_alone(&self) -> bool {
        self.promise_count == 1 && self.request_count == 0
    }

    fn add(&mut self, gate: Gate) {
        self.promise_count += 1;
        self.answers.hold();
        let is_same = |other: &&mut Gate| (other.partition, other.wait) == (gate.partition, gate.wait);
        match self.gates.iter_mut().find(is_same) {
            // Numbers ascend: the newest stands for all.
            Some(same) => same.number = gate.number,
            None => self.gates.push(gate),
        }
    }
}

impl Api<'_> {
    /// What the reply to a write that was just made in a partition waits for.
    #[inline]
    pub(super) fn gate_of_write(partition: &Partition, min_acks: u8) -> Option<Gate> {
        let (id, number, tenure) = (partition.id(), partition.lsm().last_version(), partition.tenure());
        if min_acks > 0 {
            return Some(Gate { partition: id, wait: Wait::Acks { count: min_acks, tenure }, number });
        }
        partition.gate().map(|number| Gate { partition: id, wait: Wait::Disk { tenure }, number })
    }

    /// The reply: it goes when its gate opens.
    #[inline]
    pub(super) fn promise<'o>(&mut self, gate: Option<Gate>, reply: Reply<'o>) -> Reply<'o> {
        let Some(gate) = gate else { return reply };
        self.promised.add(gate);
        reply.hold()
    }

    /// Replicas that must hold a write, as asked for by the request or else by the command line.
    #[inline]
    pub(super) fn min_acks(&self, head: &Head<'_>) -> Result<u8, Refusal> {
        let Some(value) = head.min_acks else { return Ok(self.node.config().min_acks) };
        number(value).filter(|count| *count <= MIN_ACKS_MAX).ok_or_else(|| {
            Refusal::bad_request(format!("X-Min-Acks must be a number of replicas, 0 to {MIN_ACKS_MAX}"))
        })
    }
}

/// What a write gets that was waiting when the node ceased to lead.
#[cold]
pub fn role_changed() -> Refusal {
    let message =
        "applied here, but this node leads no more: whether the write lasts is not known; read it from the new leader";
    Refusal::new(504, "role_changed", message)
}

/// What a write gets that replicas have not confirmed in time.
#[cold]
pub fn acks_timeout(timeout_ms: u64) -> Refusal {
    let message = format!(
        "applied here, and not confirmed by enough replicas within {timeout_ms} ms: it may last or be lost if this node fails; \
         GET /status shows the replicas"
    );
    Refusal::new(504, "acks_timeout", message)
}
