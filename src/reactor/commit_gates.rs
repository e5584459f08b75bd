//! Queues of sessions with replies that wait for the disk, for replicas, or for a change of role.
//!
//! A reply waits until a number of its partition is reached: a version, or the count of a change.
//! Numbers ascend, and a session enters with the highest one of its visit, so the first in a queue
//! is the first to leave. A session with replies that wait for several things is in several queues;
//! its replies are sent when it has left all of them.

use std::collections::VecDeque;

use crate::api::CommitGate;
use crate::partition::{Wait, WaitProgress};

/// A session in a queue. Its ticket tells whether it still waits with the replies of that visit.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingSession {
    number: u64,
    pub(super) key: usize,
    pub(super) ticket: u64,
}

#[derive(Debug)]
struct Queue {
    partition: u32,
    wait: Wait,
    waiting: VecDeque<WaitingSession>,
}

/// All queues.
#[derive(Debug, Default)]
pub(super) struct CommitGates {
    queues: Vec<Queue>,
    last_ticket: u64,
}

impl CommitGates {
    /// Adds a session to the queues of all these gates; returns its ticket.
    pub(super) fn enter(&mut self, gates: &[CommitGate], key: usize) -> u64 {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        for gate in gates {
            let queue = self.queue(gate.partition, gate.wait);
            debug_assert!(
                queue.back().is_none_or(|last| last.number <= gate.number),
                "numbers ascend"
            );
            queue.push_back(WaitingSession {
                number: gate.number,
                key,
                ticket,
            });
        }
        ticket
    }

    fn queue(&mut self, partition: u32, wait: Wait) -> &mut VecDeque<WaitingSession> {
        let is_it = |queue: &Queue| queue.partition == partition && queue.wait == wait;
        let index = self.queues.iter().position(is_it).unwrap_or_else(|| {
            self.queues.push(Queue {
                partition,
                wait,
                waiting: VecDeque::new(),
            });
            self.queues.len() - 1
        });
        &mut self.queues[index].waiting
    }

    /// Whether there are no queues.
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Removes at most `max` sessions that have waited long enough, and calls `leave` for each:
    /// with true if its number is reached, with false if it never will be.
    pub(super) fn open(
        &mut self,
        max: usize,
        reached: impl Fn(u32, Wait) -> WaitProgress,
        mut leave: impl FnMut(WaitingSession, Wait, bool),
    ) {
        let mut left = max;
        let queues = self.queues.iter_mut();
        for queue in queues.filter(|queue| !queue.waiting.is_empty()) {
            let so_far = reached(queue.partition, queue.wait);
            while left > 0
                && let Some(waiting) = queue
                    .waiting
                    .pop_front_if(|waiting| is_over(waiting, so_far))
            {
                left -= 1;
                leave(waiting, queue.wait, so_far != WaitProgress::Never);
            }
        }
        // No session joins the queue of a leadership generation that is over.
        self.queues.retain(|queue| {
            !queue.waiting.is_empty() || reached(queue.partition, queue.wait) != WaitProgress::Never
        });
    }

    /// Whether [`open`](Self::open) would release a reply.
    pub(super) fn is_due(&self, reached: impl Fn(u32, Wait) -> WaitProgress) -> bool {
        let is_due = |queue: &Queue| {
            let first = queue.waiting.front();
            first.is_some_and(|waiting| is_over(waiting, reached(queue.partition, queue.wait)))
        };
        self.queues.iter().any(is_due)
    }
}

/// Whether the wait is over.
fn is_over(waiting: &WaitingSession, reached: WaitProgress) -> bool {
    match reached {
        WaitProgress::UpTo(number) => waiting.number <= number,
        WaitProgress::Never => true,
    }
}
