//! Frees memory when it is short: ends slow uploads, and answers that peers do not read.
//!
//! Memory is short while more is in use than `--max-memory` allows, after a body was refused
//! because other bodies use up `--max-upload-memory`, and while snapshots pin more than they may
//! ([`PINNED_SHARE`]; without a limit [`PINNED_MIN_BYTES`] or a part of the data). Then connections
//! are checked in rounds, and the slowest are ended first. A peer that moves [`FAST_BYTES_PER_S`]
//! is never ended. If no connection is slow, a snapshot that is kept for the next page of a scan is
//! freed.
//!
//! Invariants:
//! 1. A turn checks [`LOOKS_PER_TURN`] connections, and a round ends at most [`ENDED_PER_ROUND`].
//! 2. No more uploads are ended than needed.
//! 3. While memory is not short, a turn compares two numbers, and every [`LOOK_MS`] the bytes that
//!    each partition has pinned.
//!
//! Not here: claims of bodies (`node/body_budget.rs`), the pace of peers (`deadlines.rs`).

use crate::api::{RequestLabels, upload_too_slow};
use crate::node::Node;

use super::core::Core;
use super::measure;
use super::pending_metrics::PendingMetrics;
use super::timers::Millis;

/// Connections checked in one turn.
const LOOKS_PER_TURN: usize = 512;

/// Connections ended by one round.
const ENDED_PER_ROUND: usize = 16;

/// Peers as fast as this are left alone. At this pace a body of 16 MiB takes four minutes.
const FAST_BYTES_PER_S: u64 = 64 * 1024;

/// How long memory is freed for a body that was refused; long enough to learn that an upload that
/// has just begun is slow.
const REFUSED_MS: Millis = 2_000;

/// Pause after a round that has ended something.
const ROUND_MS: Millis = 100;

/// Pause after a round that has found nothing to end.
const VAIN_ROUND_MS: Millis = 500;

/// Time between two checks of what snapshots pin.
const LOOK_MS: Millis = 100;

/// With `--max-memory`, snapshots may pin this fraction of it, and the smaller fraction while
/// memory is full.
const PINNED_SHARE: usize = 8;
const PINNED_SHARE_FULL: usize = 64;

/// Without it they may pin this much, or the fraction [`PINNED_DATA_SHARE`] of the data, if that is
/// more.
const PINNED_MIN_BYTES: usize = 64 * 1024 * 1024;
const PINNED_DATA_SHARE: usize = 4;

/// An answer with less than this left is not worth ending.
const KEPT_MIN_BYTES: usize = 64 * 1024;

/// A connection that a round may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    /// First, so that the slowest comes first.
    bytes_per_s: u64,
    key: usize,
    freed_bytes: usize,
}

/// The state of the rounds.
#[derive(Debug, Default)]
pub(super) struct Relief {
    /// The connection to check next, during a round.
    next_key: Option<usize>,
    /// The slowest uploads of the round, in order.
    uploads: Vec<Candidate>,
    /// The slowest readers of the round, in order.
    downloads: Vec<Candidate>,
    /// Snapshots pinned more than they may at the last check.
    is_much_pinned: bool,
    /// The time of the next check.
    look_at: Millis,
    /// The largest body that was refused and for which no memory was freed yet.
    refused_bytes: usize,
    /// Until when memory is freed for it; its client is expected to try again.
    refused_until: Millis,
    /// The earliest time of the next round.
    next_at: Millis,
}

impl Relief {
    /// When the next turn is due for it.
    pub(super) fn wake_at(&self, is_memory_short: bool, now: Millis) -> Option<Millis> {
        match self.next_key {
            Some(_) => Some(now),
            None => self.is_wanted(is_memory_short).then_some(self.next_at),
        }
    }

    fn is_wanted(&self, is_memory_short: bool) -> bool {
        is_memory_short || self.is_much_pinned || self.refused_bytes > 0
    }
}

/// The pace, if it is slow.
fn slow(bytes_per_s: Option<u64>) -> Option<u64> {
    bytes_per_s.filter(|pace| *pace < FAST_BYTES_PER_S)
}

/// Keeps the slowest, in order.
fn note(candidates: &mut Vec<Candidate>, candidate: Candidate) {
    let at = candidates.partition_point(|other| *other < candidate);
    if at < ENDED_PER_ROUND {
        candidates.truncate(ENDED_PER_ROUND - 1);
        candidates.insert(at, candidate);
    }
}

impl Relief {
    /// Checks some connections, if memory is short; ends the slowest at the end of a round.
    pub(super) fn relieve(&mut self, core: &mut Core) {
        let now = core.clock.now;
        let refused_bytes = core.node.resources.bodies.take_refused_bytes();
        if refused_bytes > 0 {
            self.refused_bytes = self.refused_bytes.max(refused_bytes);
            self.refused_until = now + REFUSED_MS;
        }
        if now >= self.look_at {
            self.look_at = now + LOOK_MS;
            self.is_much_pinned = is_much_pinned(&core.node);
        }
        let is_wanted = self.is_wanted(core.node.is_full());
        let begin = match self.next_key {
            Some(key) => key,
            None if is_wanted && now >= self.next_at => 0,
            None => return,
        };
        let end = (begin + LOOKS_PER_TURN).min(core.sessions.table.capacity());
        for key in begin..end {
            let Some(session) = core.sessions.table.get(key) else {
                continue;
            };
            let candidate = |bytes_per_s, freed_bytes| Candidate {
                bytes_per_s,
                key,
                freed_bytes,
            };
            if let Some(pace) = slow(session.timeouts.upload_bytes_per_s(now)) {
                let claimed_bytes = session.upload_claimed_bytes();
                note(&mut self.uploads, candidate(pace, claimed_bytes));
            }
            if let Some(pace) = slow(session.timeouts.download_bytes_per_s(now)) {
                // A stream keeps its snapshot, which matters only while snapshots pin too much.
                let is_cause = self.is_much_pinned || !session.is_streaming();
                let kept_bytes = session.kept_bytes();
                if is_cause && kept_bytes >= KEPT_MIN_BYTES {
                    note(&mut self.downloads, candidate(pace, kept_bytes));
                }
            }
        }
        self.next_key = Some(end).filter(|end| *end < core.sessions.table.capacity());
        if self.next_key.is_none() {
            self.end_round(core, now);
        }
    }

    /// All connections are checked: ends the slowest.
    fn end_round(&mut self, core: &mut Core, now: Millis) {
        let uploads = std::mem::take(&mut self.uploads);
        let downloads = std::mem::take(&mut self.downloads);
        let needed_bytes = self.refused_bytes.max(core.node.over_bytes());
        let (mut freed_bytes, mut ended_count) = (0, 0);
        for upload in uploads.iter().filter(|upload| upload.freed_bytes > 0) {
            // It may have become faster, or ended, since it was checked.
            if freed_bytes < needed_bytes && end_upload(core, upload.key, now) {
                freed_bytes += upload.freed_bytes;
                ended_count += 1;
            }
        }
        if freed_bytes >= self.refused_bytes || now >= self.refused_until {
            self.refused_bytes = 0;
        }
        if core.node.is_full() || self.is_much_pinned {
            for candidate in downloads {
                ended_count += usize::from(end_download(core, candidate.key, now));
            }
            // If nothing else can be ended, a client that pages through a scan has to begin again.
            let is_wanted = ended_count == 0 && self.is_much_pinned;
            if is_wanted && core.node.resources.scan_snapshots.release_idle(now) {
                ended_count += 1;
            }
            self.look_at = now;
        }
        let pause_ms = if ended_count > 0 {
            ROUND_MS
        } else {
            VAIN_ROUND_MS
        };
        self.next_at = now + pause_ms;
    }
}

/// Ends an answer if its peer is still slow: the connection is closed in the middle of it.
fn end_download(core: &mut Core, key: usize, now: Millis) -> bool {
    let Some(session) = core.sessions.get_mut(key) else {
        return false;
    };
    let is_slow = slow(session.timeouts.download_bytes_per_s(now)).is_some();
    if !is_slow || session.kept_bytes() < KEPT_MIN_BYTES {
        return false;
    }
    core.node.stats.ended_download_count += 1;
    core.sessions.close(key);
    true
}

/// Ends an upload if it is still slow, with an answer that says why.
fn end_upload(core: &mut Core, key: usize, now: Millis) -> bool {
    let Some(session) = core.sessions.get_mut(key) else {
        return false;
    };
    let is_slow = slow(session.timeouts.upload_bytes_per_s(now)).is_some();
    if !is_slow || !session.can_be_refused() {
        return false;
    }
    session.end_upload(upload_too_slow(), &core.clock.date);
    let answer = RequestLabels::timed_out().with_status(507);
    measure::hold(
        session,
        PendingMetrics::one(answer, core.clock.now_us),
        &mut core.node.stats,
    );
    core.node.stats.ended_upload_count += 1;
    core.sessions.enqueue(key);
    core.set_deadline(key, true, None);
    true
}

/// Whether snapshots pin more than they may.
fn is_much_pinned(node: &Node) -> bool {
    let (mut pinned_bytes, mut data_bytes) = (0, 0);
    for partition in node.partitions() {
        pinned_bytes += partition.pinned().total_bytes();
        data_bytes += partition.lsm().data_bytes();
    }
    let max_bytes = match node.config().max_memory_bytes {
        Some(max_bytes) if node.is_full() => max_bytes / PINNED_SHARE_FULL,
        Some(max_bytes) => max_bytes / PINNED_SHARE,
        None => PINNED_MIN_BYTES.max(data_bytes / PINNED_DATA_SHARE),
    };
    pinned_bytes > max_bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_are_kept_in_order() {
        let mut uploads = Vec::new();
        for number in 0..100 {
            let key = number * 37 % 100;
            let candidate = Candidate {
                bytes_per_s: key as u64 / 2,
                key,
                freed_bytes: 1,
            };
            note(&mut uploads, candidate);
        }
        let keys: Vec<usize> = uploads.iter().map(|candidate| candidate.key).collect();
        assert_eq!(keys, (0..ENDED_PER_ROUND).collect::<Vec<_>>());
    }
}
