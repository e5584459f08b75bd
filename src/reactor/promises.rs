//! Replies that were held back: let go when what they say is true, replaced when it will not be.
//!
//! Not here: what each reply waits for (`commit_gates.rs`), and the bytes that wait (`session.rs`).

use crate::http::Refusal;
use crate::metrics::{GateKind, NodeStats};
use crate::partition::{Wait, WaitProgress};
use crate::storage::StorageError;

use super::limits::RELEASES_PER_TURN;
use super::measure::release;
use super::session::Session;
use super::{Reactor, enqueue};

impl Reactor {
    /// Lets replies go that say what is true now.
    pub(super) fn release(&mut self) {
        if self.gates.is_empty() {
            return;
        }
        let now_us = self.clock.now_us();
        let mut waits = std::mem::take(&mut self.node.stats.gate_waits);
        let (node, sessions, ready) = (&self.node, &mut self.sessions, &mut self.ready);
        let reached = |partition, wait| node.wait_progress(partition, wait);
        let mut broken = Vec::new();
        self.gates
            .open(RELEASES_PER_TURN, reached, |waiting, wait, is_kept| {
                let Some(session) = sessions.get_mut(waiting.key) else {
                    return;
                };
                if session.waits_with(waiting.ticket)
                    && let Some(since_us) = session.holds_since_us()
                {
                    waits[kind_of(wait) as usize].record(now_us.saturating_sub(since_us));
                }
                if !is_kept && session.waits_with(waiting.ticket) {
                    broken.push((waiting, wait));
                } else if is_kept && session.leave_gate(waiting.ticket) {
                    enqueue(ready, session, waiting.key);
                }
            });
        self.node.stats.gate_waits = waits;
        for (waiting, wait) in broken {
            // One that waits at two gates is here twice.
            if self.sessions[waiting.key].waits_with(waiting.ticket) {
                self.break_promise(waiting.key, &crate::api::deferred_failed(wait));
            }
        }
    }

    /// The disk has failed: what waits for it will never be true.
    pub(super) fn break_promises(&mut self, error: &StorageError) {
        log::error!("no more writes until the node is restarted; reads go on: {error}");
        self.break_stalled(error, |_, _| true);
    }

    /// The disk cannot do for now what the concerned replies wait for: they wait no longer.
    pub(super) fn break_stalled(
        &mut self,
        error: &StorageError,
        is_concerned: impl Fn(u32, Wait) -> bool,
    ) {
        let refusal = crate::api::storage_failed(error);
        let answer = self.answer(&refusal, false);
        let (sessions, ready, stats) = (&mut self.sessions, &mut self.ready, &mut self.node.stats);
        self.gates.open(
            usize::MAX,
            |partition, wait| {
                if is_concerned(partition, wait) {
                    WaitProgress::Never
                } else {
                    WaitProgress::UpTo(0)
                }
            },
            |waiting, _, _| {
                if let Some(session) = sessions
                    .get_mut(waiting.key)
                    .filter(|session| session.waits_with(waiting.ticket))
                {
                    replace_held(session, refusal.status, stats);
                    session.break_promise(&answer, true);
                    enqueue(ready, session, waiting.key);
                }
            },
        );
    }

    /// Replicas have not confirmed in time what a session waits for.
    pub(super) fn time_out_acks(&mut self, key: usize) {
        if let Some(since_us) = self.sessions[key].holds_since_us() {
            let waited_us = self.clock.now_us().saturating_sub(since_us);
            self.node.stats.gate_waits[GateKind::Acks as usize].record(waited_us);
        }
        let timeout_ms = self.node.config().ack_timeout_ms;
        let refusal = if self.sessions[key].is_promise_of_read() {
            crate::api::unconfirmed(timeout_ms)
        } else {
            crate::api::acks_timeout(timeout_ms)
        };
        self.break_promise(key, &refusal);
    }

    /// What one session waits for will not be said. If more answers wait behind the one, they are
    /// dropped with the connection.
    pub(super) fn break_promise(&mut self, key: usize, refusal: &Refusal) {
        let is_alone = self.sessions[key].is_one_deferred();
        let answer = self.answer(refusal, is_alone);
        let session = &mut self.sessions[key];
        replace_held(session, refusal.status, &mut self.node.stats);
        session.break_promise(&answer, !is_alone);
        enqueue(&mut self.ready, session, key);
    }
}

/// What replies wait for, as it is counted.
fn kind_of(wait: Wait) -> GateKind {
    match wait {
        Wait::Disk { .. } => GateKind::Disk,
        Wait::Acks { .. } | Wait::Read { .. } => GateKind::Acks,
        Wait::Settled { .. } | Wait::Removed => GateKind::Role,
    }
}

/// Something else is said than what is held back.
fn replace_held(session: &mut Session, status: u16, counts: &mut NodeStats) {
    if let Some(held) = &mut session.held {
        release(held.count() - 1, counts);
        held.replace(status);
    }
}
