//! Connections that come: taken in, or given one answer where there are too many.
//!
//! Where as many connections are open as may be, the one that has waited for its next request for
//! longest is closed for the one that comes, if it has waited for [`EVICT_IDLE_MS`]: what good
//! servers do with connections that are kept for later. A client sees that between two requests,
//! which HTTP allows at any time. Where none is idle, the request of the newcomer is read:
//! questions about the node (health, metrics, status) are answered, or a supervisor would take a
//! busy node for a dead one; all else gets `503`. Either way the connection ends with the answer.
//! There are few such connections, for a short time; one that has sent nothing, or has had its
//! answer, makes room for the next.

use mio::net::TcpStream;
use mio::{Interest, Token};

use crate::api::too_many_connections;
use crate::http::{Exchange, Output, Refusal, Reply, Vary};

use super::idle_queue::Look;
use super::limits::EVICT_IDLE_MS;
use super::listener::{ACCEPTS_PER_TURN, Accepted, RETRY_MS};
use super::session::Session;
use super::{Reactor, enqueue};

impl Reactor {
    pub(super) fn accept(&mut self) {
        if self.node.is_short_of_descriptors() {
            self.close_idlest();
        }
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = self.listener.as_mut().filter(|_| self.is_accepting) else {
                return;
            };
            match listener.accept() {
                Accepted::Stream(stream, _) => self.admit(stream),
                Accepted::Lost => self.node.loop_stats.refused_count += 1,
                Accepted::NoneWaiting => self.is_accepting = false,
                Accepted::OutOfDescriptors => {
                    log::warn!(
                        "out of file descriptors: new connections wait; raise the limit (ulimit -n)"
                    );
                    self.is_accepting = false;
                    self.accept_again_at = Some(self.clock.now() + RETRY_MS);
                    // Shares are made so that this does not happen: the limit was lowered
                    // meanwhile, or the whole machine is short.
                    self.descriptors.read_again();
                }
            }
        }
    }

    /// Takes a connection in. Beyond the limit another one that is idle makes room for it; where
    /// none is, it gets one answer.
    fn admit(&mut self, stream: TcpStream) {
        self.node.loop_stats.accepted_count += 1;
        let has_room = self.sessions.len() - self.turned_away.len() < self.shares.connections
            || self.close_idlest();
        if !has_room {
            self.node.loop_stats.refused_count += 1;
            if self.turned_away.len() >= self.shares.turned_away && !self.close_turned_away() {
                return;
            }
        }
        let entry = self.sessions.vacant_entry();
        let key = entry.key();
        let session = entry.insert(if has_room {
            Session::new(stream)
        } else {
            Session::turned_away(stream)
        });
        let now = self.clock.now();
        if has_room {
            session.idle_entry_at = now;
            self.idle_queue.enter(key, now);
        } else {
            self.turned_away.push_back(key);
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self
            .poll
            .registry()
            .register(&mut session.stream, Token(key), interest)
            .is_err()
        {
            self.closed.push(key);
            return;
        }
        self.node.stats.connection_table_bytes = self.sessions.capacity() * size_of::<Session>();
        self.set_deadline(key, true);
    }

    /// Closes the connection that has waited for its next request for longest; false if none has
    /// for [`EVICT_IDLE_MS`]. It is freed at once: the events of this turn are noted, and nothing
    /// else of this turn has its key.
    fn close_idlest(&mut self) -> bool {
        let now = self.clock.now();
        let Some(until) = now.checked_sub(EVICT_IDLE_MS) else {
            return false;
        };
        let sessions = &mut self.sessions;
        let idlest = self.idle_queue.idlest(until, |key, at| {
            let session = &mut sessions[key];
            let idle_since = session.patience.idle_since();
            let used_until = match idle_since.filter(|_| session.is_resting()) {
                Some(since) if since <= at && session.is_silent() => return Look::Idle,
                Some(since) if since > at => since,
                _ => now,
            };
            session.idle_entry_at = used_until;
            Look::UsedUntil(used_until)
        });
        let Some(key) = idlest else {
            return false;
        };
        self.node.loop_stats.evicted_count += 1;
        self.free(key);
        true
    }

    /// Closes the oldest of the connections beyond the limit that have sent no request or have had
    /// their answer; false if there is none.
    fn close_turned_away(&mut self) -> bool {
        let (sessions, turned_away) = (&mut self.sessions, &self.turned_away);
        let needless = turned_away.iter().copied().find(|key| {
            let session = sessions.get_mut(*key);
            session.is_some_and(|session| {
                session.is_lingering() || session.is_resting() && session.is_silent()
            })
        });
        let Some(key) = needless else {
            return false;
        };
        self.free(key);
        true
    }

    /// A connection beyond the limit has sent no request in time.
    pub(super) fn turn_away(&mut self, key: usize) {
        let answer = self.answer(&too_many_connections(), false);
        if let Some(session) = self.sessions.get_mut(key) {
            session.answer_unasked(&answer);
            enqueue(&mut self.ready, session, key);
        }
    }

    /// Shares descriptors out, as of the partitions that there are and the limit in force.
    pub(super) fn share_descriptors(&mut self) {
        let partition_count = self.node.file_count();
        let wanted = self.node.config().max_connections;
        self.shares = self.descriptors.shares(partition_count, wanted);
        let used = self.sessions.len() + self.replication.descriptor_count();
        self.node.set_descriptor_limits(
            self.descriptors.partition_max(),
            self.descriptors.openable_count(partition_count, used),
        );
        self.replication.limit(self.shares);
        self.node.loop_stats.connection_max = self.shares.connections;
        self.node.loop_stats.descriptor_limit = self.descriptors.limit();
    }

    /// A refusal in bytes; without `keep_alive` the connection is to be closed after it.
    pub(super) fn answer(&self, refusal: &Refusal, keep_alive: bool) -> Vec<u8> {
        let mut output = Output::new();
        let mut exchange = Exchange {
            head_only: false,
            http_minor: 1,
            keep_alive,
            answered: false,
            status: 0,
            vary: Vary::Nothing,
        };
        let reply = Reply::new(&mut output, &self.date, &mut exchange);
        reply
            .status(refusal.status)
            .header("Retry-After", "1")
            .error(refusal);
        std::mem::take(output.bytes())
    }
}
