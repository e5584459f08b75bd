//! Replies that wait: for the disk, for replicas, for a change of role. Which session waits for what.
//!
//! What is waited for is a number in a partition: a version, or the count of a change. Numbers are given out in ascending order,
//! and a session comes here with the newest of its visit, so the first in a queue is the first to go: no search, no order to keep.
//! A session whose replies wait for several things is in several queues, and goes when it has left all.

use std::collections::VecDeque;

use crate::api::Gate;
use crate::partition::Wait;

/// A session in a queue; its ticket tells whether it still waits for what it came with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    number: u64,
    pub(super) key: usize,
    pub(super) ticket: u64,
}

#[derive(Debug)]
struct Queue {
    partition: u32,
    wait: Wait,
    waiting: VecDeque<Waiting>,
}

/// All queues.
#[derive(Debug, Default)]
pub(super) struct Gates {
    queues: Vec<Queue>,
    last_ticket: u64,
}

impl Gates {
    /// A session waits at all these gates; its ticket.
    pub(super) fn enter(&mut self, gates: &[Gate], key: usize) -> u64 {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        for gate in gates {
            let queue = self.queue(gate.partition, gate.wait);
            // Numbers that are not below were given out before all data was replaced: nobody waits for them any more.
            while queue.pop_back_if(|last| last.number > gate.number).is_some() {}
            queue.push_back(Waiting { number: gate.number, key, ticket });
        }
        ticket
    }

    fn queue(&mut self, partition: u32, wait: Wait) -> &mut VecDeque<Waiting> {
        let is_it = |queue: &Queue| queue.partition == partition && queue.wait == wait;
        let index = self.queues.iter().position(is_it).unwrap_or_else(|| {
            self.queues.push(Queue { partition, wait, waiting: VecDeque::new() });
            self.queues.len() - 1
        });
        &mut self.queues[index].waiting
    }

    /// Calls `leave` for sessions at gates that are open, at most so many. `reached`: the number that a gate is open for.
    pub(super) fn open(&mut self, max: usize, reached: impl Fn(u32, Wait) -> u64, mut leave: impl FnMut(Waiting)) {
        let mut left = max;
        for queue in self.queues.iter_mut().filter(|queue| !queue.waiting.is_empty()) {
            let number = reached(queue.partition, queue.wait);
            while left > 0
                && let Some(waiting) = queue.waiting.pop_front_if(|waiting| waiting.number <= number)
            {
                left -= 1;
                leave(waiting);
            }
        }
    }

    /// Whether [`open`](Self::open) would find anybody.
    pub(super) fn is_due(&self, reached: impl Fn(u32, Wait) -> u64) -> bool {
        self.queues.iter().any(|queue| {
            queue.waiting.front().is_some_and(|waiting| waiting.number <= reached(queue.partition, queue.wait))
        })
    }
}
