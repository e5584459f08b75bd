//! What is ended where memory is short, so that the rest goes on: uploads whose peers are slow.
//!
//! Memory is short while more is in use than `--max-memory` allows, or when a body was refused
//! because others on their way take what there is for all of them. Then connections are looked
//! through in rounds, and the slowest go first. A peer that moves [`FAST_BYTES_PER_S`] is never
//! ended for it.
//!
//! Invariants:
//! 1. A turn looks at [`LOOKS_PER_TURN`] connections, a round ends at most [`ENDED_PER_ROUND`].
//! 2. No more uploads are ended than free what is needed.
//! 3. While memory is not short, a turn costs a look at two numbers.
//!
//! Not here: what bodies claim (`node/body_budget.rs`), how fast a peer is (`deadlines.rs`).

use crate::api::{Answer, upload_too_slow};

use super::measure::{self, Held};
use super::timers::Millis;
use super::{Reactor, enqueue};

/// Connections looked at in one turn.
const LOOKS_PER_TURN: usize = 512;

/// Connections ended by one round.
const ENDED_PER_ROUND: usize = 16;

/// Peers as fast as this are left alone: more than a slow line gives, and a body of 16 MiB takes
/// four minutes.
const FAST_BYTES_PER_S: u64 = 64 * 1024;

/// Room is made for a body that was refused for so long: an upload that has just begun is not known
/// to be slow before.
const REFUSED_MS: Millis = 2_000;

/// Time between two rounds where the last one has ended something …
const ROUND_MS: Millis = 100;

/// … and where it has found nothing to end.
const VAIN_ROUND_MS: Millis = 500;

/// A connection that a round may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// First, so that the slowest comes first.
    bytes_per_s: u64,
    key: usize,
    freed_bytes: usize,
}

/// The rounds.
#[derive(Debug, Default)]
pub(super) struct Relief {
    /// The connection that the round goes on with, while there is one.
    next_key: Option<usize>,
    /// The slowest uploads of the round, in order.
    uploads: Vec<Candidate>,
    /// The largest body that was refused and that no room was made for yet.
    refused_bytes: usize,
    /// Until when room is made for it: its client tries again, or does not.
    refused_until: Millis,
    /// When the next round may begin.
    next_at: Millis,
}

impl Relief {
    /// When there is something to do that no event announces.
    pub(super) fn wake_at(&self, is_memory_short: bool, now: Millis) -> Option<Millis> {
        match self.next_key {
            Some(_) => Some(now),
            None => (is_memory_short || self.refused_bytes > 0).then_some(self.next_at),
        }
    }

    fn note_upload(&mut self, candidate: Candidate) {
        let at = self.uploads.partition_point(|other| *other < candidate);
        if at < ENDED_PER_ROUND {
            self.uploads.truncate(ENDED_PER_ROUND - 1);
            self.uploads.insert(at, candidate);
        }
    }
}

impl Reactor {
    /// Ends what is slow, if memory is short; some connections are looked at in each turn.
    pub(super) fn relieve(&mut self) {
        let now = self.clock.now();
        let relief = &mut self.relief;
        let refused_bytes = self.node.bodies.take_refused_bytes();
        if refused_bytes > 0 {
            relief.refused_bytes = relief.refused_bytes.max(refused_bytes);
            relief.refused_until = now + REFUSED_MS;
        }
        let is_wanted = relief.refused_bytes > 0 || self.node.is_full();
        let begin = match relief.next_key {
            Some(key) => key,
            None if is_wanted && now >= relief.next_at => 0,
            None => return,
        };
        let end = (begin + LOOKS_PER_TURN).min(self.sessions.capacity());
        for key in begin..end {
            if let Some(session) = self.sessions.get(key)
                && let Some(bytes_per_s) = session.patience.upload_bytes_per_s(now)
                && bytes_per_s < FAST_BYTES_PER_S
            {
                let freed_bytes = session.upload_claimed_bytes();
                relief.note_upload(Candidate {
                    bytes_per_s,
                    key,
                    freed_bytes,
                });
            }
        }
        relief.next_key = Some(end).filter(|end| *end < self.sessions.capacity());
        if relief.next_key.is_none() {
            self.end_round(now);
        }
    }

    /// All connections were looked at: ends the slowest.
    fn end_round(&mut self, now: Millis) {
        let uploads = std::mem::take(&mut self.relief.uploads);
        let needed_bytes = self.relief.refused_bytes.max(self.node.over_bytes());
        let (mut freed_bytes, mut ended_count) = (0, 0);
        for Candidate {
            key,
            freed_bytes: bytes,
            ..
        } in uploads
        {
            // It may have got on, or ended, since it was looked at.
            if freed_bytes < needed_bytes && bytes > 0 && self.end_upload(key, now) {
                freed_bytes += bytes;
                ended_count += 1;
            }
        }
        if freed_bytes >= self.relief.refused_bytes || now >= self.relief.refused_until {
            self.relief.refused_bytes = 0;
        }
        let pause_ms = if ended_count > 0 {
            ROUND_MS
        } else {
            VAIN_ROUND_MS
        };
        self.relief.next_at = now + pause_ms;
    }

    /// Ends an upload if it is still slow, with an answer that says why.
    fn end_upload(&mut self, key: usize, now: Millis) -> bool {
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let is_slow = session
            .patience
            .upload_bytes_per_s(now)
            .is_some_and(|bytes_per_s| bytes_per_s < FAST_BYTES_PER_S);
        if !is_slow || !session.can_be_refused() {
            return false;
        }
        session.end_upload(upload_too_slow(), &self.date);
        let answer = Answer::timed_out().with_status(507);
        measure::hold(
            session,
            Held::one(answer, self.clock.now_us()),
            &mut self.node.stats,
        );
        self.node.stats.ended_upload_count += 1;
        enqueue(&mut self.ready, session, key);
        self.set_deadline(key, true);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_are_kept_in_order() {
        let mut relief = Relief::default();
        for number in 0..100 {
            let key = number * 37 % 100;
            relief.note_upload(Candidate {
                bytes_per_s: key as u64 / 2,
                key,
                freed_bytes: 1,
            });
        }
        let keys: Vec<usize> = relief
            .uploads
            .iter()
            .map(|candidate| candidate.key)
            .collect();
        assert_eq!(keys, (0..ENDED_PER_ROUND).collect::<Vec<_>>());
    }
}
