//! Connections that come: taken in, or turned away with an answer.

use mio::net::TcpStream;
use mio::{Interest, Token};

use crate::http::{Exchange, Output, Refusal, Reply};

use super::listener::{ACCEPTS_PER_TURN, Accepted, RETRY_MS};
use super::session::Session;
use super::{Reactor, enqueue};

impl Reactor {
    pub(super) fn accept(&mut self) {
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
                    // Shares are made so that this does not happen: the limit was lowered meanwhile,
                    // or the whole machine is short.
                    self.descriptors.read_again();
                }
            }
        }
    }

    /// Takes a connection in, or turns it away.
    fn admit(&mut self, stream: TcpStream) {
        self.node.loop_stats.accepted_count += 1;
        let session = if self.sessions.len() - self.turned_away_count < self.shares.connections {
            Session::new(stream)
        } else {
            self.node.loop_stats.refused_count += 1;
            if self.turned_away_count >= self.shares.turned_away {
                return;
            }
            self.turned_away_count += 1;
            let message = "too many connections: close some, or start the node with a higher --max-connections";
            Session::turned_away(
                stream,
                &self.answer(&Refusal::new(503, "too_many_connections", message), false),
            )
        };
        let entry = self.sessions.vacant_entry();
        let key = entry.key();
        let session = entry.insert(session);
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
        if session.is_ending() {
            enqueue(&mut self.ready, session, key);
        }
        self.node.stats.connection_table_bytes = self.sessions.capacity() * size_of::<Session>();
        self.set_deadline(key, true);
    }

    /// Shares descriptors out, as of the partitions that there are and the limit in force.
    pub(super) fn share_descriptors(&mut self) {
        let partition_count = self.node.file_count();
        let wanted = self.node.config().max_connections;
        self.shares = self.descriptors.shares(partition_count, wanted);
        let used = self.sessions.len() + self.replication.descriptor_count();
        self.node.note_descriptors(
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
        };
        let reply = Reply::new(&mut output, &self.date, &mut exchange);
        reply
            .status(refusal.status)
            .header("Retry-After", "1")
            .error(refusal);
        std::mem::take(output.bytes())
    }
}
