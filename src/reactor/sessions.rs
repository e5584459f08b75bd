//! All HTTP sessions: the table, the ready queue, deadlines, and those to be freed.
//!
//! Invariant: a session is freed at the end of a turn only, so that a stale event of the same turn
//! never meets another session under the same key. The acceptor may free one earlier, after the
//! events of the turn are taken in.
//!
//! Not here: what a session does (`session.rs`), when it is too slow (`deadlines.rs`).

use std::collections::VecDeque;

use mio::event::Event;
use slab::Slab;

use super::deadlines::TimeOuts;
use super::session::{Next, Session};
use super::timers::{Millis, Timers};

/// The queue of sessions to visit, first come first served.
#[derive(Debug, Default)]
pub(super) struct ReadyQueue {
    /// The keys of the sessions.
    pub(super) keys: VecDeque<usize>,
    /// The time of the turn, in microseconds since the node started.
    pub(super) now_us: u64,
}

/// Puts a session on the queue, unless it is on it.
pub(super) fn enqueue(ready: &mut ReadyQueue, session: &mut Session, key: usize) {
    if !session.is_queued {
        session.is_queued = true;
        session.queued_at_us = ready.now_us;
        ready.keys.push_back(key);
    }
}

/// The table of sessions.
pub(super) struct Sessions {
    pub(super) table: Slab<Session>,
    /// Sessions to visit, in order.
    pub(super) ready: ReadyQueue,
    /// Sessions to free at the end of the turn.
    closed: Vec<usize>,
    pub(super) timers: Timers,
    pub(super) time_outs: TimeOuts,
}

impl Sessions {
    pub(super) fn new(time_outs: TimeOuts) -> Self {
        Self {
            table: Slab::new(),
            ready: ReadyQueue::default(),
            closed: Vec::new(),
            timers: Timers::default(),
            time_outs,
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

    /// The next session that is past its deadline. `left` bounds the entries that are looked at.
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
}
