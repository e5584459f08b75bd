//! Operations that are under way, and how the last ones ended. Each has a number, which the reply
//! to the operator waits for.
//!
//! Not here: what an operator can ask for (`orders.rs`).

use std::collections::VecDeque;

use crate::config::ClusterInit;
use crate::partition::WaitProgress;

use super::etcd::{Answer, Request};

/// How an operation ended is known for so long.
const ENDED_KEPT_MS: u64 = 10_000;

/// An operation without an outcome after this time has an unknown one.
pub(super) const OPERATION_MAX_MS: u64 = 5_000;

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationEnd {
    /// It is done.
    Done,
    /// A hand-over: the other copy did not have everything in time, and this node goes on.
    TooSlow,
    /// A hand-over: the other node is named, and was not heard as the leader in time.
    Unseen,
    /// What was read from etcd before has changed meanwhile.
    Changed,
    /// What was to be made is there.
    Exists,
    /// Etcd has not answered: it may have been done, or may still be.
    Unknown,
}

/// Writes to etcd, one after the other.
#[derive(Debug)]
struct Writing {
    number: u64,
    begun_at_ms: u64,
    requests: VecDeque<Request>,
    /// How it ends if the last request finds a key with another revision than the one compared.
    refused: OperationEnd,
}

/// A hand-over to another node.
#[derive(Debug)]
pub(super) struct HandingOver {
    pub(super) number: u64,
    pub(super) partition: u32,
    pub(super) to: String,
    pub(super) begun_at_ms: u64,
    /// Since when the other node is named.
    pub(super) named_at_ms: Option<u64>,
}

#[derive(Debug)]
struct Ended {
    number: u64,
    end: OperationEnd,
    at_ms: u64,
}

/// How far a node is that leaves for good.
#[derive(Debug, Default)]
pub(super) struct Forgetting {
    pub(super) next_at_ms: u64,
    /// The operation that deletes its registration.
    pub(super) deletion: Option<u64>,
}

/// The operations that are under way, and how the last ones ended.
#[derive(Debug, Default)]
pub(super) struct Operations {
    last_number: u64,
    writings: VecDeque<Writing>,
    pub(super) handovers: Vec<HandingOver>,
    /// The node leaves for good.
    pub(super) forgetting: Option<Forgetting>,
    ended: VecDeque<Ended>,
}

impl Operations {
    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    pub(super) fn end(&mut self, number: u64, end: OperationEnd, at_ms: u64) {
        self.ended.push_back(Ended { number, end, at_ms });
    }

    pub(super) fn is_handing_over(&self, partition: u32) -> bool {
        let mut handovers = self.handovers.iter();
        handovers.any(|handover| handover.partition == partition)
    }

    /// Whether etcd is being written to.
    pub(super) fn is_writing(&self) -> bool {
        !self.writings.is_empty()
    }

    /// Whether the registration of the node is being deleted, or was.
    pub(super) fn is_deregistering(&self) -> bool {
        let forgetting = self.forgetting.as_ref();
        forgetting.is_some_and(|own| own.deletion.is_some())
    }

    /// Etcd is to be written to, by these requests in turn; the number of the operation.
    pub(super) fn write(
        &mut self,
        requests: VecDeque<Request>,
        refused: OperationEnd,
        now_ms: u64,
    ) -> u64 {
        let number = self.next_number();
        self.writings.push_back(Writing {
            number,
            begun_at_ms: now_ms,
            requests,
            refused,
        });
        number
    }

    /// The next request, and the operation that it is of.
    pub(super) fn next_request(&self) -> Option<(u64, Request)> {
        let writing = self.writings.front()?;
        Some((writing.number, writing.requests.front()?.clone()))
    }

    /// What has become of a request; none: etcd has not answered. Returns the request if it was
    /// carried out.
    pub(super) fn on_outcome(
        &mut self,
        number: u64,
        answer: Option<&Answer>,
        now_ms: u64,
    ) -> Option<Request> {
        let is_it = |writing: &mut Writing| writing.number == number;
        let mut writing = self.writings.pop_front_if(is_it)?;
        let mut written = None;
        let end = match answer {
            Some(Answer::Written { .. }) => {
                written = writing.requests.pop_front();
                if !writing.requests.is_empty() {
                    self.writings.push_front(writing);
                    return written;
                }
                OperationEnd::Done
            }
            Some(Answer::Refused { .. }) if writing.requests.len() > 1 => OperationEnd::Changed,
            Some(Answer::Refused { .. }) => writing.refused,
            Some(Answer::Range { .. }) | None => OperationEnd::Unknown,
        };
        self.end(number, end, now_ms);
        written
    }

    /// Ends what takes too long, and forgets what ended long ago.
    pub(super) fn clean(&mut self, now_ms: u64) {
        let is_old = |at_ms: u64| now_ms.saturating_sub(at_ms) >= OPERATION_MAX_MS;
        while let Some(writing) = self.writings.pop_front_if(|own| is_old(own.begun_at_ms)) {
            self.end(writing.number, OperationEnd::Unknown, now_ms);
        }
        let is_past = |ended: &mut Ended| now_ms.saturating_sub(ended.at_ms) >= ENDED_KEPT_MS;
        while self.ended.pop_front_if(is_past).is_some() {}
    }

    /// How an operation ended; none: it is under way, or ended long ago.
    pub(super) fn end_of(&self, number: u64) -> Option<OperationEnd> {
        // The last first: it is asked for at once.
        let mut ended = self.ended.iter().rev();
        let ended = ended.find(|ended| ended.number == number)?;
        Some(ended.end)
    }

    /// How far the wait for an operation is.
    pub(super) fn progress(&self, number: u64) -> WaitProgress {
        let mut writings = self.writings.iter().map(|own| own.number);
        let mut handovers = self.handovers.iter().map(|own| own.number);
        let is_under_way = writings.any(|own| own == number) || handovers.any(|own| own == number);
        match self.end_of(number) {
            Some(OperationEnd::Done) => WaitProgress::UpTo(number),
            None if is_under_way => WaitProgress::UpTo(0),
            _ => WaitProgress::Never,
        }
    }

    /// When the first of the writes is given up.
    pub(super) fn late_at_ms(&self) -> Option<u64> {
        let first = self.writings.front()?;
        Some(first.begun_at_ms + OPERATION_MAX_MS)
    }
}

/// Why a cluster is not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitRefusal {
    /// Etcd was not read yet.
    Unknown,
    /// It is there.
    Exists,
    /// So many nodes have registered: too few for the copies.
    TooFewNodes(usize),
    /// It was begun with this many partitions at least.
    OtherShape(u32),
    /// This node has data that a new cluster would drop.
    HasData(String),
    /// Only the node itself can have its data adopted; its address, where it is known.
    NotHere(Option<String>),
    /// There is no partition 0 on this node.
    NothingToAdopt,
}

/// What a node with `--cluster-init` does about it.
#[derive(Debug)]
pub(super) struct InitByItself {
    pub(super) shape: ClusterInit,
    pub(super) next_at_ms: u64,
    pub(super) last_refusal: Option<InitRefusal>,
}
