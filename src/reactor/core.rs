//! What every part of the loop works on: the node, the sessions and the clock.

use crate::http::{AwaitedInput, Exchange, Output, Refusal, Reply};
use crate::node::Node;

use super::clock::Clock;
use super::deadlines::Situation;
use super::session::Admission;
use super::sessions::Sessions;
use super::timers::Millis;

/// The node, the sessions and the clock.
pub(super) struct Core {
    pub(super) node: Node,
    pub(super) sessions: Sessions,
    pub(super) clock: Clock,
}

impl Core {
    /// A refusal as the bytes of a response; without `keep_alive` the connection is to be closed
    /// after it.
    pub(super) fn render(&self, refusal: &Refusal, keep_alive: bool) -> Vec<u8> {
        let mut output = Output::new();
        let mut exchange = Exchange {
            keep_alive,
            ..Exchange::broken()
        };
        let reply = Reply::new(&mut output, &self.clock.date, &mut exchange);
        reply
            .status(refusal.status)
            .header("Retry-After", "1")
            .error(refusal);
        std::mem::take(output.bytes())
    }

    /// Sets the deadline of a session by what it waits for. `watches_until`: of one that waits for
    /// changes.
    pub(super) fn set_deadline(
        &mut self,
        key: usize,
        has_progressed: bool,
        watches_until: Option<Millis>,
    ) {
        let sessions = &mut self.sessions;
        let session = &mut sessions.table[key];
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
            is_stopping: self.node.is_draining(),
            has_progressed,
            sent_bytes: session.sent_bytes,
            streamed_bytes: session.is_streaming().then_some(session.sent_bytes),
            awaits_acks: session.awaits_acks(),
            watches_until: watches_until.filter(|_| !has_unsent),
        };
        let time_outs = match session.admission {
            Admission::Served => sessions.time_outs,
            Admission::TurnedAway => sessions.time_outs.of_turned_away(),
        };
        let at = session.timeouts.until(situation, self.clock.now, time_outs);
        sessions.timers.set(key, &mut session.timeouts.deadline, at);
    }
}
