//! Replies that were held back: let go when what they say is true, replaced when it will not be.
//!
//! Not here: who waits for what (`gates.rs`), and the bytes that wait (`session.rs`).

use crate::storage::StorageError;

use super::limits::RELEASES_PER_TURN;
use super::{Reactor, enqueue};

impl Reactor {
    /// Lets replies go that say what is true now.
    pub(super) fn release(&mut self) {
        let (node, sessions, ready) = (&self.node, &mut self.sessions, &mut self.ready);
        let reached = |partition, wait| node.reached(partition, wait);
        self.gates.open(RELEASES_PER_TURN, reached, |waiting| {
            if let Some(session) = sessions.get_mut(waiting.key)
                && session.leave_gate(waiting.ticket)
            {
                enqueue(ready, session, waiting.key);
            }
        });
    }

    /// The disk has failed: what waits for it will never be true.
    pub(super) fn break_promises(&mut self, error: &StorageError) {
        log::error!("no more writes until the node is restarted; reads go on: {error}");
        let answer = self.answer(&crate::api::storage_failed(error), false);
        let (sessions, ready) = (&mut self.sessions, &mut self.ready);
        self.gates.open(
            usize::MAX,
            |_, _| u64::MAX,
            |waiting| {
                if let Some(session) =
                    sessions.get_mut(waiting.key).filter(|session| session.waits_with(waiting.ticket))
                {
                    session.break_promise(&answer, true);
                    enqueue(ready, session, waiting.key);
                }
            },
        );
    }

    /// What a writer hears whose write no replica has confirmed in time. If more answers wait behind that one, they are dropped with
    /// the connection.
    pub(super) fn unconfirmed(&self, key: usize) -> Vec<u8> {
        let refusal = crate::api::acks_timeout(self.node.config().ack_timeout_ms);
        self.answer(&refusal, self.sessions[key].is_promise_alone())
    }
}
