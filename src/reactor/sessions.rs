//! All HTTP sessions: the table, the ready queue, deadlines, and those to be freed.
//!
//! Invariant: a session is freed at the end of a turn only, so that a stale event of the same turn
//! never meets another session under the same key. The acceptor may free one earlier, after the
//! events of the turn are taken in.
//!
//! Not here: what a session does (`session.rs`), when it is too slow (`deadlines.rs`).

use mio::event::Event;
use slab::Slab;

use super::deadlines::{Situation, TimeOuts};
use super::ready_queue::{ReadyQueue, enqueue};
use super::session::{Admission, Next, Session};
use super::timers::{Millis, Timers};
use crate::http::AwaitedInput;

/// The table of sessions.
pub(super) struct Sessions {
    pub(super) table: Slab<Session>,
    /// Sessions to visit, in order.
    pub(super) ready: ReadyQueue,
    /// Sessions to free at the end of the turn.
    closed: Vec<usize>,
    timers: Timers,
    time_outs: TimeOuts,
    is_stopping: bool,
}

impl Sessions {
    pub(super) fn new(time_outs: TimeOuts) -> Self {
        Self {
            table: Slab::new(),
            ready: ReadyQueue::default(),
            closed: Vec::new(),
            timers: Timers::default(),
            time_outs,
            is_stopping: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn get_mut(&mut self, key: usize) -> Option<&mut Session> {
        self.table.get_mut(key)
    }

    /// Puts a session on the ready queue, unless it is on it.
    pub(super) fn enqueue(&mut self, key: usize) {
        if let Some(session) = self.table.get_mut(key) {
            enqueue(&mut self.ready, session, key);
        }
    }

    /// Passes an event of the poll to its session, if that is still there.
    pub(super) fn on_event(&mut self, key: usize, event: &Event) {
        if let Some(session) = self.table.get_mut(key) {
            session.on_event(event);
            enqueue(&mut self.ready, session, key);
        }
    }

    /// Has a session freed at the end of the turn.
    pub(super) fn close(&mut self, key: usize) {
        self.closed.push(key);
    }

    /// Has all sessions freed at the end of the turn.
    pub(super) fn close_all(&mut self) {
        let keys = self.table.iter().map(|(key, _)| key);
        self.closed.extend(keys);
    }

    /// The sessions to free. A key is here twice if there were two reasons to close it.
    pub(super) fn take_closed(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.closed)
    }

    /// The node stops: sessions end after the request in flight.
    pub(super) fn drain(&mut self) {
        self.is_stopping = true;
        for (key, session) in &mut self.table {
            match session.drain() {
                Next::Close => self.closed.push(key),
                _ => enqueue(&mut self.ready, session, key),
            }
        }
    }

    /// When the next session is to be looked at.
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.timers.next()
    }

    /// The next session whose deadline has passed. `left` bounds the entries that are looked at.
    pub(super) fn pop_overdue(&mut self, now: Millis, left: &mut usize) -> Option<usize> {
        while *left > 0 {
            *left -= 1;
            let entry = self.timers.pop(now)?;
            let (_, key) = entry;
            if let Some(session) = self.table.get_mut(key)
                && self
                    .timers
                    .is_due(entry, &mut session.timeouts.deadline, now)
            {
                return Some(key);
            }
        }
        None
    }

    /// Sets the deadline of a session by what it waits for. `watches_until`: of one that waits for
    /// changes.
    pub(super) fn set_deadline(
        &mut self,
        key: usize,
        has_progressed: bool,
        watches_until: Option<Millis>,
        now: Millis,
    ) {
        let session = &mut self.table[key];
        // While an answer is being sent the peer is to read, whatever comes after: another request
        // or the end.
        let has_unsent = session.has_unsent();
        let situation = Situation {
            awaited: if has_unsent {
                AwaitedInput::Reply
            } else {
                session.http.awaited()
            },
            ending_bytes: session.ending_bytes().filter(|_| !has_unsent),
            is_stopping: self.is_stopping,
            has_progressed,
            sent_bytes: session.sent_bytes,
            streamed_bytes: session.is_streaming().then_some(session.sent_bytes),
            awaits_acks: session.awaits_acks(),
            watches_until: watches_until.filter(|_| !has_unsent),
        };
        let time_outs = match session.admission {
            Admission::Served => self.time_outs,
            Admission::TurnedAway => self.time_outs.of_turned_away(),
        };
        let at = session.timeouts.until(situation, now, time_outs);
        self.timers.set(key, &mut session.timeouts.deadline, at);
    }
}
