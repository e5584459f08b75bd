//! Deferred replies: sent once their writes are durable, on replicas, or in force; replaced by a
//! refusal when they will never be.
//!
//! Not here: the queues of sessions that wait (`commit_gates.rs`), the bytes that are held back
//! (`session.rs`).

use crate::http::Refusal;
use crate::metrics::{GateKind, Histogram, NodeStats};
use crate::partition::{Wait, WaitProgress};
use crate::storage::StorageError;

use super::commit_gates::CommitGates;
use super::core::Core;
use super::limits::RELEASES_PER_TURN;
use super::measure::release;
use super::session::Session;
use super::sessions::enqueue;

/// The replies that wait, by what they wait for.
#[derive(Debug, Default)]
pub(super) struct DeferredReplies {
    pub(super) gates: CommitGates,
}

impl DeferredReplies {
    /// Whether [`release`](Self::release) would send a reply.
    pub(super) fn is_due(&self, core: &Core) -> bool {
        self.gates
            .is_due(|partition, wait| core.node.wait_progress(partition, wait))
    }

    /// Sends the replies that have waited long enough, a bounded number.
    pub(super) fn release(&mut self, core: &mut Core) {
        if self.gates.is_empty() {
            return;
        }
        let now_us = core.clock.now_us;
        let mut waits = std::mem::take(&mut core.node.stats.gate_waits);
        let (node, sessions) = (&core.node, &mut core.sessions);
        let reached = |partition, wait| node.wait_progress(partition, wait);
        let mut failed = Vec::new();
        self.gates
            .open(RELEASES_PER_TURN, reached, |waiter, wait, is_kept| {
                let Some(session) = sessions.table.get_mut(waiter.key) else {
                    return;
                };
                if session.waits_with(waiter.ticket) {
                    record_wait(session, kind_of(wait), now_us, &mut waits);
                }
                if !is_kept && session.waits_with(waiter.ticket) {
                    failed.push((waiter, wait));
                } else if is_kept && session.leave_gate(waiter.ticket) {
                    enqueue(&mut sessions.ready, session, waiter.key);
                }
            });
        core.node.stats.gate_waits = waits;
        for (waiter, wait) in failed {
            // A session that waits at two gates is here twice.
            let session = &core.sessions.table[waiter.key];
            if session.waits_with(waiter.ticket) {
                let is_read = session.deferred.is_some_and(|reply| reply.is_read);
                let refusal = match (wait, core.node.cluster()) {
                    (Wait::Operation { number }, Some(cluster)) => {
                        crate::api::operation_failed(cluster.operation_end(number))
                    }
                    _ => crate::api::deferred_failed(wait, is_read),
                };
                fail(core, waiter.key, &refusal);
            }
        }
    }

    /// The disk has failed: no reply that waits for it will ever be sent.
    pub(super) fn fail_all(&mut self, error: &StorageError, core: &mut Core) {
        log::error!("no more writes until the node is restarted; reads go on: {error}");
        let is_concerned = |_, wait| !matches!(wait, Wait::Operation { .. });
        self.fail_where(error, core, is_concerned);
    }

    /// The disk cannot do for now what the concerned replies wait for: a refusal replaces them.
    pub(super) fn fail_where(
        &mut self,
        error: &StorageError,
        core: &mut Core,
        is_concerned: impl Fn(u32, Wait) -> bool,
    ) {
        let refusal = crate::api::storage_failed(error, core.node.cluster().is_some());
        let answer = core.render(&refusal, false);
        let now_us = core.clock.now_us;
        let (sessions, stats) = (&mut core.sessions, &mut core.node.stats);
        let reached = |partition, wait| {
            if is_concerned(partition, wait) {
                WaitProgress::Never
            } else {
                WaitProgress::UpTo(0)
            }
        };
        self.gates.open(usize::MAX, reached, |waiter, wait, _| {
            if let Some(session) = sessions.table.get_mut(waiter.key)
                && session.waits_with(waiter.ticket)
            {
                record_wait(session, kind_of(wait), now_us, &mut stats.gate_waits);
                replace_held(session, refusal.status, stats);
                session.fail_deferred(&answer, true);
                enqueue(&mut sessions.ready, session, waiter.key);
            }
        });
    }
}

/// Replicas have not confirmed in time what a session waits for.
pub(super) fn time_out_acks(core: &mut Core, key: usize) {
    let session = &mut core.sessions.table[key];
    let waits = &mut core.node.stats.gate_waits;
    record_wait(session, GateKind::Acks, core.clock.now_us, waits);
    let timeout_ms = core.node.config().ack_timeout_ms;
    let refusal = if session.deferred.is_some_and(|reply| reply.is_read) {
        crate::api::unconfirmed(timeout_ms)
    } else {
        crate::api::acks_timeout(timeout_ms)
    };
    fail(core, key, &refusal);
}

/// Replaces the deferred replies of a session by one refusal. If there are several, the connection
/// ends with it.
fn fail(core: &mut Core, key: usize, refusal: &Refusal) {
    let deferred = core.sessions.table[key].deferred;
    let is_alone = deferred.is_some_and(|reply| reply.is_alone);
    let answer = core.render(refusal, is_alone);
    let session = &mut core.sessions.table[key];
    replace_held(session, refusal.status, &mut core.node.stats);
    session.fail_deferred(&answer, !is_alone);
    core.sessions.enqueue(key);
}

/// The wait of a session's replies for one thing is over, for better or worse.
fn record_wait(session: &mut Session, kind: GateKind, now_us: u64, waits: &mut [Histogram]) {
    if let Some(since_us) = session.holds_since_us() {
        let waited_us = now_us.saturating_sub(since_us);
        waits[kind as usize].record(waited_us);
        session.record_wait(kind, waited_us);
    }
}

/// The kind under which a wait is counted.
fn kind_of(wait: Wait) -> GateKind {
    match wait {
        Wait::Disk { .. } => GateKind::Disk,
        Wait::Acks { .. } | Wait::Read { .. } => GateKind::Acks,
        Wait::Settled { .. } | Wait::Removed | Wait::Operation { .. } => GateKind::Role,
    }
}

/// Counts the answers that are held back as one, with another status.
fn replace_held(session: &mut Session, status: u16, counts: &mut NodeStats) {
    if let Some(held) = &mut session.held {
        release(held.count() - 1, counts);
        held.replace(status);
    }
}
