//! Accepts connections. Above the limit a connection gets one answer.
//!
//! At the limit, a new connection replaces the one that has been idle for longest, if that is idle
//! for [`EVICT_IDLE_MS`]; HTTP allows a server to close an idle connection at any time. If none is
//! idle, one request is read from the new connection. Requests for health, metrics and status are
//! answered, so that a supervisor does not take a busy node for a dead one; others get `503`. Then
//! the connection ends. Such connections are few and short-lived: the oldest that has sent nothing,
//! or has its answer, is closed for the next one.

use std::collections::VecDeque;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::api::too_many_connections;

use super::core::Core;
use super::descriptors::{Descriptors, Shares};
use super::idle_queue::{IdleCheck, IdleQueue};
use super::limits::EVICT_IDLE_MS;
use super::listener::{ACCEPTS_PER_TURN, AcceptResult, Listener};
use super::measure;
use super::replication::Replication;
use super::session::{Admission, Session};
use super::timers::Millis;

/// Takes connections in, up to the limit.
pub(super) struct Acceptor {
    /// None once the node stops.
    listener: Option<Listener>,
    /// Sessions above the limit, the oldest first.
    turned_away: VecDeque<usize>,
    idle_queue: IdleQueue,
    descriptors: Descriptors,
    shares: Shares,
}

impl Acceptor {
    pub(super) fn new(listener: Listener, descriptors: Descriptors, shares: Shares) -> Self {
        Self {
            listener: Some(listener),
            turned_away: VecDeque::new(),
            idle_queue: IdleQueue::default(),
            descriptors,
            shares,
        }
    }

    /// The listener has connections.
    pub(super) fn on_event(&mut self) {
        self.listener.iter_mut().for_each(Listener::on_event);
    }

    /// When to accept the next connection at the latest; 0: now.
    pub(super) fn wake_at(&self) -> Option<Millis> {
        self.listener.as_ref()?.wake_at()
    }

    /// The node stops: closes the listener, so that connections in its backlog are refused.
    pub(super) fn stop(&mut self) {
        self.listener = None;
    }

    /// Accepts a bounded number of connections.
    pub(super) fn accept(&mut self, core: &mut Core, registry: &Registry) {
        if core.node.is_short_of_descriptors() {
            self.close_idlest(core);
        }
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = &mut self.listener else {
                return;
            };
            match listener.accept(core.clock.now) {
                AcceptResult::Stream(stream, _) => self.admit(core, registry, stream),
                AcceptResult::Lost => core.node.loop_stats.refused_count += 1,
                AcceptResult::NoneWaiting => return,
                AcceptResult::OutOfDescriptors => {
                    log::warn!(
                        "out of file descriptors: new connections wait; raise the limit (ulimit -n)"
                    );
                    // The shares rule this out, unless the limit was lowered meanwhile, or the
                    // whole machine is out of descriptors.
                    self.descriptors.read_again();
                }
            }
        }
    }

    /// Makes a session of a connection: a served one, also in the place of an idle one, or one that
    /// gets a single answer.
    fn admit(&mut self, core: &mut Core, registry: &Registry, stream: TcpStream) {
        core.node.loop_stats.accepted_count += 1;
        let has_room = core.sessions.len() - self.turned_away.len() < self.shares.connections
            || self.close_idlest(core);
        if !has_room {
            core.node.loop_stats.refused_count += 1;
            if self.turned_away.len() >= self.shares.turned_away && !self.close_turned_away(core) {
                return;
            }
        }
        let entry = core.sessions.table.vacant_entry();
        let key = entry.key();
        let session = entry.insert(if has_room {
            Session::new(stream)
        } else {
            Session::turned_away(stream)
        });
        let now = core.clock.now;
        if has_room {
            session.idle_entry_at = now;
            self.idle_queue.enter(key, now);
        } else {
            self.turned_away.push_back(key);
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        if registry
            .register(&mut session.socket.stream, Token(key), interest)
            .is_err()
        {
            core.sessions.close(key);
            return;
        }
        core.node.stats.connection_table_bytes =
            core.sessions.table.capacity() * size_of::<Session>();
        core.set_deadline(key, true, None);
    }

    /// Closes the connection that has been idle for longest; false if none is idle for
    /// [`EVICT_IDLE_MS`]. Its session is freed at once, which is safe here: the events of this turn
    /// are taken in, and nothing else in this turn holds its key.
    fn close_idlest(&mut self, core: &mut Core) -> bool {
        let now = core.clock.now;
        let Some(until) = now.checked_sub(EVICT_IDLE_MS) else {
            return false;
        };
        let sessions = &mut core.sessions.table;
        let idlest = self.idle_queue.idlest(until, |key, at| {
            let session = &mut sessions[key];
            let idle_since = session.timeouts.idle_since();
            let used_until = match idle_since.filter(|_| session.is_resting()) {
                Some(since) if since <= at && session.is_silent() => return IdleCheck::Idle,
                Some(since) if since > at => since,
                _ => now,
            };
            session.idle_entry_at = used_until;
            IdleCheck::UsedUntil(used_until)
        });
        let Some(key) = idlest else {
            return false;
        };
        core.node.loop_stats.evicted_count += 1;
        self.free(core, key);
        true
    }

    /// Closes the oldest connection above the limit that has sent no request or has its answer;
    /// false if there is none.
    fn close_turned_away(&mut self, core: &mut Core) -> bool {
        let (sessions, turned_away) = (&mut core.sessions.table, &self.turned_away);
        let needless = turned_away.iter().copied().find(|key| {
            let session = sessions.get_mut(*key);
            session.is_some_and(|session| {
                session.is_lingering() || session.is_resting() && session.is_silent()
            })
        });
        let Some(key) = needless else {
            return false;
        };
        self.free(core, key);
        true
    }

    /// Frees a session, unless that is done already.
    pub(super) fn free(&mut self, core: &mut Core, key: usize) {
        let Some(session) = core.sessions.table.try_remove(key) else {
            return;
        };
        match session.admission {
            Admission::Served => self.idle_queue.leave(key, session.idle_entry_at),
            Admission::TurnedAway => self.turned_away.retain(|other| *other != key),
        }
        measure::record_freed(&session, &mut core.node.stats);
    }

    /// Updates the shares of descriptors to the number of partitions and the limit in force.
    pub(super) fn share_descriptors(&mut self, core: &mut Core, replication: &mut Replication) {
        let partition_count = core.node.file_count();
        let wanted = core.node.config().max_connections;
        self.shares = self.descriptors.shares(partition_count, wanted);
        let used = core.sessions.len() + replication.descriptor_count();
        core.node.set_descriptor_limits(
            self.descriptors.partition_max(),
            self.descriptors.openable_count(partition_count, used),
        );
        replication.limit(self.shares);
        core.node.loop_stats.connection_max = self.shares.connections;
        core.node.loop_stats.descriptor_limit = self.descriptors.limit;
    }
}

/// A connection above the limit has sent no request in time: it gets an answer.
pub(super) fn turn_away(core: &mut Core, key: usize) {
    let answer = core.render(&too_many_connections(), false);
    if let Some(session) = core.sessions.get_mut(key) {
        session.answer_unasked(&answer);
        core.sessions.enqueue(key);
    }
}
