//! What every part of the loop works on: the node, the sessions and the clock.

use crate::http::{Exchange, Output, Refusal, Reply, Vary};
use crate::node::Node;

use super::clock::Clock;
use super::sessions::Sessions;

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
            head_only: false,
            http_minor: 1,
            keep_alive,
            answered: false,
            status: 0,
            vary: Vary::Nothing,
        };
        let reply = Reply::new(&mut output, self.clock.date(), &mut exchange);
        reply
            .status(refusal.status)
            .header("Retry-After", "1")
            .error(refusal);
        std::mem::take(output.bytes())
    }
}
