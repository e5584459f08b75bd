//! Time-outs of a connection, by what it waits for.
//!
//! | waiting for | until |
//! |---|---|
//! | the next request | the idle time-out after the last one |
//! | the rest of a head | the header time-out after its first byte |
//! | the rest of a body | the header time-out after its head, and time for its bytes (1) |
//! | the peer to read | the idle time-out after it last read something |
//! | … a generated body | the idle time-out, and time for its bytes (2): it may pin a snapshot |
//! | changes for a watcher | its time-out, or the next keep-alive |
//! | replicas to confirm a write | the ack time-out after the write |
//! | the end of an answered body, or of the connection | see [`DROP_MS`], [`DROP_SILENCE_MS`] |
//!
//! (1) at [`BODY_MIN_BYTES_PER_MS`], (2) at [`STREAM_MIN_BYTES_PER_MS`]. While the node stops, the
//! last row is [`DROP_STOPPING_MS`].
//!
//! So slow heads and slow bodies end however steadily they arrive, and fast ones of any size do
//! not. A connection above the limit has [`TURNED_AWAY_MS`] instead of the idle or the header
//! time-out.

use crate::http::AwaitedInput;

use super::timers::{Deadline, Millis};

/// A body that stays slower than this is not worth its connection: about a bad mobile link (1
/// KiB/s).
const BODY_MIN_BYTES_PER_MS: u64 = 1;

/// A backup that is read slower than this (64 KB/s) pins its snapshot for too long.
const STREAM_MIN_BYTES_PER_MS: u64 = 64;

/// The pace of a peer is measured over at least this time.
const PACE_MS: u64 = 1_000;

/// How long a peer may go on sending a body that is answered already, without a pause of
/// [`DROP_SILENCE_MS`]. Many clients read the answer only after they have sent everything. (The
/// same as nginx' `lingering_time` and `lingering_timeout`.)
const DROP_MS: u64 = 30_000;
const DROP_SILENCE_MS: u64 = 5_000;

/// The same while the node stops.
const DROP_STOPPING_MS: u64 = 1_000;

/// How long a connection above the limit may take for its request, and to read the answer.
const TURNED_AWAY_MS: u64 = 1_000;

/// Configured time-outs.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "the unit stands last")]
pub(super) struct TimeOuts {
    pub(super) idle_ms: u64,
    pub(super) header_ms: u64,
    pub(super) acks_ms: u64,
}

impl TimeOuts {
    /// The time-outs of a connection above the limit.
    pub(super) fn of_turned_away(self) -> Self {
        Self {
            idle_ms: self.idle_ms.min(TURNED_AWAY_MS),
            header_ms: self.header_ms.min(TURNED_AWAY_MS),
            ..self
        }
    }
}

/// What a session waits for, as far as time-outs differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum TimeoutKind {
    #[default]
    Idle,
    Head,
    Body,
    Reading,
    Streaming,
    Confirming,
    Watching,
    /// For the end of a body that is answered already.
    Discarding,
    /// For the peer to close.
    Ending,
    /// Either, while the node stops.
    Stopping,
}

/// The state of a session after a visit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation {
    pub(super) awaited: AwaitedInput,
    /// Bytes dropped since the last answer; none if that is not sent yet.
    pub(super) ending_bytes: Option<u64>,
    /// The node is told to stop.
    pub(super) is_stopping: bool,
    /// A request was begun or answered, or output sent, in that visit.
    pub(super) has_progressed: bool,
    /// Bytes sent on the connection so far.
    pub(super) sent_bytes: u64,
    /// The same while a generated body is being sent.
    pub(super) streamed_bytes: Option<u64>,
    /// Its replies wait for replicas.
    pub(super) awaits_acks: bool,
    /// It watches changes, until then.
    pub(super) watches_until: Option<Millis>,
}

/// The recent pace of a peer, over the last second or two.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// When this measurement began, and the bytes moved before it.
    since: Millis,
    bytes_before: u64,
    /// Bytes moved by now, and when the last ones were.
    bytes: u64,
    moved_at: Millis,
    /// The result of the measurement before.
    bytes_per_s: Option<u64>,
}

impl Pace {
    fn begin(bytes: u64, now: Millis) -> Self {
        Self {
            since: now,
            bytes_before: bytes,
            bytes,
            moved_at: now,
            bytes_per_s: None,
        }
    }

    fn note(&mut self, bytes: u64, now: Millis) {
        if bytes == self.bytes {
            return;
        }
        (self.bytes, self.moved_at) = (bytes, now);
        self.bytes_per_s = self.bytes_per_s(now);
        if now.saturating_sub(self.since) >= PACE_MS {
            (self.since, self.bytes_before) = (now, bytes);
        }
    }

    fn bytes_per_s(&self, now: Millis) -> Option<u64> {
        if now.saturating_sub(self.moved_at) >= PACE_MS {
            return Some(0);
        }
        let passed_ms = now.saturating_sub(self.since);
        if passed_ms < PACE_MS {
            return self.bytes_per_s;
        }
        Some(self.bytes.saturating_sub(self.bytes_before) * 1_000 / passed_ms)
    }
}

/// A session's record of what it waits for and since when.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TimeoutState {
    kind: TimeoutKind,
    since: Millis,
    pace: Pace,
    /// Bytes sent before the generated body.
    sent_before: u64,
    /// Bytes dropped so far, and when the last of them came.
    dropped_bytes: u64,
    dropped_at: Millis,
    pub(super) deadline: Deadline,
}

impl TimeoutState {
    /// Since when it waits for the next request, if that is what it does.
    pub(super) fn idle_since(&self) -> Option<Millis> {
        (self.kind == TimeoutKind::Idle).then_some(self.since)
    }

    /// Bytes a second at which a body arrives; none if none arrives, or if it is too early to tell.
    pub(super) fn upload_bytes_per_s(&self, now: Millis) -> Option<u64> {
        match self.kind {
            TimeoutKind::Body => self.pace.bytes_per_s(now),
            _ => None,
        }
    }

    /// Bytes a second at which the peer reads an answer; none if there is none to read, or if it is
    /// too early to tell.
    pub(super) fn download_bytes_per_s(&self, now: Millis) -> Option<u64> {
        match self.kind {
            TimeoutKind::Reading | TimeoutKind::Streaming => self.pace.bytes_per_s(now),
            _ => None,
        }
    }

    /// The deadline after a visit.
    pub(super) fn until(
        &mut self,
        situation: Situation,
        now: Millis,
        time_outs: TimeOuts,
    ) -> Millis {
        let (awaited, ending_bytes) = (situation.awaited, situation.ending_bytes);
        let streamed_bytes = situation.streamed_bytes.unwrap_or(0);
        let watches_until = situation.watches_until;
        if let Some(until) = watches_until.filter(|_| ending_bytes.is_none()) {
            self.kind = TimeoutKind::Watching;
            return until;
        }
        let dropped_bytes = match awaited {
            AwaitedInput::Discarded { received_bytes } => ending_bytes.or(Some(received_bytes)),
            _ => ending_bytes,
        };
        let kind = kind_of(&situation, dropped_bytes);
        self.measure_pace(kind, &situation, now);
        let is_fresh = situation.has_progressed
            && !matches!(
                kind,
                TimeoutKind::Ending
                    | TimeoutKind::Stopping
                    | TimeoutKind::Streaming
                    | TimeoutKind::Confirming
            );
        if kind != self.kind || is_fresh {
            (self.kind, self.since, self.dropped_at) = (kind, now, now);
            self.sent_before = streamed_bytes;
        }
        if let Some(dropped_bytes) = dropped_bytes.filter(|bytes| *bytes != self.dropped_bytes) {
            (self.dropped_bytes, self.dropped_at) = (dropped_bytes, now);
        }
        if matches!(kind, TimeoutKind::Ending | TimeoutKind::Discarding) {
            let silence_until = self.dropped_at.saturating_add(DROP_SILENCE_MS);
            return silence_until.min(self.since.saturating_add(DROP_MS));
        }
        let sent_bytes = streamed_bytes.saturating_sub(self.sent_before);
        let timeout_ms = timeout_ms(kind, awaited, sent_bytes, time_outs);
        self.since.saturating_add(timeout_ms)
    }

    /// Measures how fast the peer sends its body, or reads.
    fn measure_pace(&mut self, kind: TimeoutKind, situation: &Situation, now: Millis) {
        let sent_bytes = situation.sent_bytes;
        if let AwaitedInput::Body { received_bytes } = situation.awaited {
            if kind == self.kind && !situation.has_progressed {
                self.pace.note(received_bytes, now);
            } else {
                self.pace = Pace::begin(received_bytes, now);
            }
        }
        if matches!(kind, TimeoutKind::Reading | TimeoutKind::Streaming) {
            if kind == self.kind {
                self.pace.note(sent_bytes, now);
            } else {
                self.pace = Pace::begin(sent_bytes, now);
            }
        }
    }
}

/// What a session waits for. `dropped_bytes`: of input after an answer.
fn kind_of(situation: &Situation, dropped_bytes: Option<u64>) -> TimeoutKind {
    match situation.awaited {
        _ if dropped_bytes.is_some() && situation.is_stopping => TimeoutKind::Stopping,
        _ if situation.ending_bytes.is_some() => TimeoutKind::Ending,
        _ if situation.awaits_acks => TimeoutKind::Confirming,
        _ if situation.streamed_bytes.is_some() => TimeoutKind::Streaming,
        AwaitedInput::Closing => TimeoutKind::Ending,
        AwaitedInput::Idle => TimeoutKind::Idle,
        AwaitedInput::Head => TimeoutKind::Head,
        AwaitedInput::Body { .. } => TimeoutKind::Body,
        AwaitedInput::Discarded { .. } => TimeoutKind::Discarding,
        AwaitedInput::Reply => TimeoutKind::Reading,
    }
}

/// The time-out of a kind. `sent_bytes`: of a generated body.
fn timeout_ms(
    kind: TimeoutKind,
    awaited: AwaitedInput,
    sent_bytes: u64,
    time_outs: TimeOuts,
) -> u64 {
    match awaited {
        _ if kind == TimeoutKind::Stopping => DROP_STOPPING_MS,
        _ if kind == TimeoutKind::Confirming => time_outs.acks_ms,
        _ if kind == TimeoutKind::Streaming => time_outs
            .idle_ms
            .saturating_add(sent_bytes / STREAM_MIN_BYTES_PER_MS),
        AwaitedInput::Body { received_bytes } => time_outs
            .header_ms
            .saturating_add(received_bytes / BODY_MIN_BYTES_PER_MS),
        AwaitedInput::Head => time_outs.header_ms,
        _ => time_outs.idle_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME_OUTS: TimeOuts = TimeOuts {
        idle_ms: 60_000,
        header_ms: 10_000,
        acks_ms: 1_000,
    };

    fn open(awaited: AwaitedInput, has_progressed: bool) -> Situation {
        Situation {
            awaited,
            ending_bytes: None,
            is_stopping: false,
            has_progressed,
            sent_bytes: 0,
            streamed_bytes: None,
            awaits_acks: false,
            watches_until: None,
        }
    }

    #[test]
    fn a_stream_earns_time_with_its_bytes() {
        let mut timeouts = TimeoutState::default();
        let streaming = |sent| Situation {
            streamed_bytes: Some(sent),
            ..open(AwaitedInput::Reply, true)
        };
        assert_eq!(timeouts.until(streaming(1_000), 100, TIME_OUTS), 60_100);
        assert_eq!(
            timeouts.until(streaming(1_000 + 640), 50_000, TIME_OUTS),
            60_110
        );
        assert_eq!(
            timeouts.until(open(AwaitedInput::Idle, true), 60_000, TIME_OUTS),
            120_000
        );
    }

    #[test]
    fn a_head_that_drips_has_one_deadline() {
        let mut timeouts = TimeoutState::default();
        assert_eq!(
            timeouts.until(open(AwaitedInput::Idle, false), 5, TIME_OUTS),
            60_000
        );
        assert_eq!(
            timeouts.until(open(AwaitedInput::Head, false), 100, TIME_OUTS),
            10_100
        );
        assert_eq!(
            timeouts.until(open(AwaitedInput::Head, false), 9_000, TIME_OUTS),
            10_100
        );
        assert_eq!(
            timeouts.until(open(AwaitedInput::Head, true), 9_500, TIME_OUTS),
            19_500,
            "the head of a new request"
        );
    }

    #[test]
    fn a_body_earns_time_with_its_bytes() {
        let mut timeouts = TimeoutState::default();
        assert_eq!(
            timeouts.until(
                open(AwaitedInput::Body { received_bytes: 0 }, true),
                100,
                TIME_OUTS
            ),
            10_100
        );
        assert_eq!(
            timeouts.until(
                open(
                    AwaitedInput::Body {
                        received_bytes: 5_000
                    },
                    false
                ),
                9_000,
                TIME_OUTS
            ),
            15_100
        );
    }

    /// Bytes that are dropped, after an answer or after the last one.
    fn dropping(dropped_bytes: u64, is_last: bool) -> Situation {
        if is_last {
            return Situation {
                ending_bytes: Some(dropped_bytes),
                ..open(AwaitedInput::Closing, true)
            };
        }
        open(
            AwaitedInput::Discarded {
                received_bytes: dropped_bytes,
            },
            false,
        )
    }

    #[test]
    fn the_pace_of_a_body_is_that_of_late() {
        let mut timeouts = TimeoutState::default();
        let mut received = |at, bytes, is_new| {
            let awaited = AwaitedInput::Body {
                received_bytes: bytes,
            };
            timeouts.until(open(awaited, is_new), at, TIME_OUTS);
            timeouts
        };
        let timeouts = received(0, 5_000, true);
        assert_eq!(timeouts.upload_bytes_per_s(999), None, "too short to tell");
        assert_eq!(timeouts.upload_bytes_per_s(1_000), Some(0), "silent since");
        let timeouts = received(500, 1_005_000, false);
        assert_eq!(timeouts.upload_bytes_per_s(1_499), Some(667_111));
        assert_eq!(
            timeouts.upload_bytes_per_s(1_500),
            Some(0),
            "it was fast once"
        );
        let timeouts = received(1_000, 2_005_000, false);
        assert_eq!(timeouts.upload_bytes_per_s(1_100), Some(2_000_000));
        assert_eq!(timeouts.upload_bytes_per_s(1_999), Some(2_000_000));
        assert_eq!(timeouts.upload_bytes_per_s(2_000), Some(0));
        // Some bytes now and then are not fast, whatever came before.
        for at in 1..40 {
            received(1_000 + at * 100, 2_005_000 + at, false);
        }
        let timeouts = received(5_000, 2_006_000, false);
        assert!(timeouts.upload_bytes_per_s(5_001) < Some(1_000));
        let timeouts = received(5_500, 100, true);
        assert_eq!(timeouts.upload_bytes_per_s(5_501), None, "another body");
    }

    #[test]
    fn what_is_not_wanted_may_come_for_a_while_without_a_pause() {
        for is_last in [false, true] {
            let mut timeouts = TimeoutState::default();
            let mut until = |bytes, now| timeouts.until(dropping(bytes, is_last), now, TIME_OUTS);
            assert_eq!(until(0, 100), 100 + DROP_SILENCE_MS);
            assert_eq!(until(0, 900), 100 + DROP_SILENCE_MS, "nothing came");
            assert_eq!(until(1, 4_000), 4_000 + DROP_SILENCE_MS);
            assert_eq!(until(1, 8_000), 4_000 + DROP_SILENCE_MS);
            assert_eq!(until(9_000_000, 28_000), 100 + DROP_MS, "in all");
            assert_eq!(until(9_000_001, 29_000), 100 + DROP_MS);
        }
        // The body of another request has its own time.
        let mut timeouts = TimeoutState::default();
        assert_eq!(
            timeouts.until(dropping(5, false), 100, TIME_OUTS),
            100 + DROP_SILENCE_MS
        );
        let next = Situation {
            has_progressed: true,
            ..dropping(5, false)
        };
        assert_eq!(
            timeouts.until(next, 29_000, TIME_OUTS),
            29_000 + DROP_SILENCE_MS
        );
    }

    #[test]
    fn a_node_that_stops_does_not_wait_for_what_is_not_wanted() {
        for is_last in [false, true] {
            let mut timeouts = TimeoutState::default();
            timeouts.until(dropping(0, is_last), 100, TIME_OUTS);
            for (now, bytes) in [(5_000, 1), (5_500, 2), (5_900, 900)] {
                let stopping = Situation {
                    is_stopping: true,
                    ..dropping(bytes, is_last)
                };
                assert_eq!(
                    timeouts.until(stopping, now, TIME_OUTS),
                    5_000 + DROP_STOPPING_MS
                );
            }
        }
    }
}
