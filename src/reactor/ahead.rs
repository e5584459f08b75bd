//! Visiting sessions some at a time: first each of them is read, then what their requests will look for is asked of memory, and
//! then they are visited in order.
//!
//! Not here: what is asked for (`api/ahead.rs`), what a visit does (`session.rs`).

use std::io;
use std::ops::Range;

use crate::api::Ahead;

use super::Reactor;
use super::limits::{TURN_WORK_BYTES, VISITS_PER_TURN};

/// Sessions that are read before the first of them is visited.
const TOGETHER: usize = 8;

/// What a byte that is read costs in the end, in bytes of work: requests are small, and each costs as much as a thousand.
const WORK_PER_BYTE: usize = 12;

/// What a session was read to have, before it is visited.
#[derive(Debug)]
pub(super) struct ReadAhead {
    /// Where in the loop's buffer there is room for the session.
    pub(super) room: Range<usize>,
    /// What came of reading; none: the session was not read.
    pub(super) outcome: Option<io::Result<Option<usize>>>,
}

impl Reactor {
    /// Visits sessions until the budget of the turn is used up; true when none is left waiting.
    pub(super) fn visit_ready(&mut self) -> bool {
        let mut budget = TURN_WORK_BYTES;
        let mut visits_left = VISITS_PER_TURN;
        while budget > 0 && visits_left > 0 && !self.ready.is_empty() {
            // Whoever was read is visited, too: its input is kept in no other place.
            for ahead in self.read_ahead(visits_left, budget).into_iter().flatten() {
                let Some(key) = self.ready.pop_front() else { break };
                self.visit(key, ahead, &mut budget);
                visits_left -= 1;
            }
        }
        self.ready.is_empty()
    }

    /// Reads the first of those who wait: as many as are visited within the budget, about, or as what they look for can be fetched
    /// at once, and one at least.
    fn read_ahead(&mut self, visits_left: usize, budget: usize) -> [Option<ReadAhead>; TOGETHER] {
        let count = self.ready.len().min(TOGETHER).min(visits_left);
        let room_bytes = self.input.len() / count;
        let mut rooms = self.input.chunks_exact_mut(room_bytes);
        let mut read = [const { None }; TOGETHER];
        let mut ahead = Ahead::new(&self.node);
        let mut expected_work = 0;
        for (index, slot) in read.iter_mut().enumerate().take(count) {
            if index > 0 && (expected_work >= budget || ahead.as_ref().is_some_and(Ahead::is_enough)) {
                break;
            }
            let Some(room) = rooms.next() else { break };
            let session = self.ready.get(index).and_then(|key| self.sessions.get_mut(key));
            let outcome = session.and_then(|session| session.read_ahead(room));
            if let Some(Ok(Some(len))) = outcome {
                expected_work += len * WORK_PER_BYTE;
                if let Some(ahead) = &mut ahead {
                    ahead.look(&room[..len], &self.heads, &mut self.node);
                }
            }
            *slot = Some(ReadAhead { room: room_bytes * index..room_bytes * (index + 1), outcome });
        }
        if let Some(mut ahead) = ahead {
            ahead.fetch(&mut self.node);
        }
        read
    }
}
