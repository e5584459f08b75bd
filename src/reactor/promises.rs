//! Replies that were held back: let go when what they say is true, replaced when it will not be.
//!
//! Not here: who waits for what (`gates.rs`), and the bytes that wait (`session.rs`).

use crate::http::Refusal;
use crate::partition::Reached;
use crate::storage::StorageError;

use super::limits::RELEASES_PER_TURN;
use super::{Reactor, enqueue};

impl Reactor {
    /// Lets replies go that say what is true now.
    pub(super) fn release(&mut self) {
        let (node, sessions, ready) = (&self.node, &mut self.sessions, &mut self.ready);
        let reached = |partition, wait| node.reached(partition, wait);
        let mut broken = Vec::new();
        self.gates.open(RELEASES_PER_TURN, reached, |waiting, is_kept| {
            let Some(session) = sessions.get_mut(waiting.key) else { return };
            if !is_kept && session.waits_with(waiting.ticket) {
                broken.push(waiting);
            } else if is_kept && session.leave_gate(waiting.ticket) {
                enqueue(ready, session, waiting.key);
            }
        });
        for waiting in broken {
            // One that waits at two gates is here twice.
            if self.sessions[waiting.key].waits_with(waiting.ticket) {
                self.break_promise(waiting.key, &crate::api::role_changed());
            }
        }
    }

    /// The disk has failed: what waits for it will never be true.
    pub(super) fn break_promises(&mut self, error: &StorageError) {
        log::error!("no more writes until the node is restarted; reads go on: {error}");
        let answer = self.answer(&crate::api::storage_failed(error), false);
        let (sessions, ready) = (&mut self.sessions, &mut self.ready);
        self.gates.open(
            usize::MAX,
            |_, _| Reached::Never,
            |waiting, _| {
                if let Some(session) =
                    sessions.get_mut(waiting.key).filter(|session| session.waits_with(waiting.ticket))
                {
                    session.break_promise(&answer, true);
                    enqueue(ready, session, waiting.key);
                }
            },
        );
    }

    /// What one session waits for will not be said. If more answers wait behind the one, they are dropped with the connection.
    pub(super) fn break_promise(&mut self, key: usize, refusal: &Refusal) {
        let is_alone = self.sessions[key].is_promise_alone();
        let answer = self.answer(refusal, is_alone);
        let session = &mut self.sessions[key];
        session.break_promise(&answer, !is_alone);
        enqueue(&mut self.ready, session, key);
    }
}
