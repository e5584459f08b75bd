//! How long a connection may take for what.
//!
//! | waiting for | until |
//! |---|---|
//! | the next request | the idle time-out after the last one |
//! | the rest of a head | the header time-out after its first byte |
//! | the rest of a body | the header time-out after its head, plus the time its bytes take at [`BODY_MIN_BYTES_PER_MS`] |
//! | the peer to read | the idle time-out after it last read something |
//! | the peer to close | [`LINGER_MS`] after its last answer |
//!
//! So slow heads and slow bodies end however steadily they drip, and fast ones of any size do not.

use crate::http::Waiting;

use super::timers::{Deadline, Millis};

/// A body slower than this for good is not worth its connection: about what a bad mobile link gives (1 KiB/s).
const BODY_MIN_BYTES_PER_MS: u64 = 1;

/// How long a peer that has had its last answer may go on sending.
const LINGER_MS: u64 = 2_000;

/// The configured part.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeOuts {
    pub(super) idle_ms: u64,
    pub(super) header_ms: u64,
}

/// What a session waits for; the states that have different time-outs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Idle,
    Head,
    Body,
    Reading,
    Ending,
}

/// A session's record of what it waits for and since when.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    kind: Kind,
    since: Millis,
    pub(super) deadline: Deadline,
}

impl Patience {
    /// The deadline after a visit. `has_progressed`: a request was begun or answered, or output sent, in that visit.
    pub(super) fn until(
        &mut self,
        waiting: Waiting,
        is_ending: bool,
        has_progressed: bool,
        now: Millis,
        time_outs: TimeOuts,
    ) -> Millis {
        let kind = match waiting {
            _ if is_ending => Kind::Ending,
            Waiting::Closing => Kind::Ending,
            Waiting::Idle => Kind::Idle,
            Waiting::Head => Kind::Head,
            Waiting::Body { .. } => Kind::Body,
            Waiting::Reply => Kind::Reading,
        };
        if kind != self.kind || (has_progressed && kind != Kind::Ending) {
            self.kind = kind;
            self.since = now;
        }
        let patience_ms = match waiting {
            _ if kind == Kind::Ending => LINGER_MS,
            Waiting::Body { received_bytes } => {
                time_outs.header_ms.saturating_add(received_bytes / BODY_MIN_BYTES_PER_MS)
            }
            Waiting::Head => time_outs.header_ms,
            _ => time_outs.idle_ms,
        };
        self.since.saturating_add(patience_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME_OUTS: TimeOuts = TimeOuts { idle_ms: 60_000, header_ms: 10_000 };

    #[test]
    fn a_head_that_drips_has_one_deadline() {
        let mut patience = Patience::default();
        assert_eq!(patience.until(Waiting::Idle, false, false, 5, TIME_OUTS), 60_000);
        assert_eq!(patience.until(Waiting::Head, false, false, 100, TIME_OUTS), 10_100);
        assert_eq!(patience.until(Waiting::Head, false, false, 9_000, TIME_OUTS), 10_100);
        assert_eq!(patience.until(Waiting::Head, false, true, 9_500, TIME_OUTS), 19_500, "the head of a new request");
    }

    #[test]
    fn a_body_earns_time_with_its_bytes() {
        let mut patience = Patience::default();
        assert_eq!(patience.until(Waiting::Body { received_bytes: 0 }, false, true, 100, TIME_OUTS), 10_100);
        assert_eq!(patience.until(Waiting::Body { received_bytes: 5_000 }, false, false, 9_000, TIME_OUTS), 15_100);
    }

    #[test]
    fn an_ending_connection_has_one_deadline() {
        let mut patience = Patience::default();
        assert_eq!(patience.until(Waiting::Closing, true, true, 100, TIME_OUTS), 100 + LINGER_MS);
        assert_eq!(patience.until(Waiting::Closing, true, true, 900, TIME_OUTS), 100 + LINGER_MS);
    }
}
