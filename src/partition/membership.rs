//! A partition that is one copy of several, as a configuration in etcd says (`cluster/`): which
//! other copies have to hold a write before it is acknowledged, and how long this node may answer
//! reads as the leader, or has promised a leader not to lead.
//!
//! A leader sends *beats*, each with a number, and notes when; a replica *grants* them. The
//! leader's *lease* from a replica lasts from the moment when the granted beat was numbered, before
//! it was sent; the replica's *promise* lasts longer, and from the moment when it looks at its
//! clock after the beat has come. So a promise outlives the lease that it is for, as long as the
//! rates of the two clocks differ by less than a quarter.
//!
//! Invariants:
//! 1. A write is acknowledged once every named copy has confirmed it on a link of this office. What
//!    was acknowledged once stays so: copies join only with all of it.
//! 2. The lease ends with the first that a named copy gave; with no other copy named it has no end.
//! 3. A beat is granted only in the epoch that the configuration names, and only while role and
//!    epoch are durable: what was promised is known after a restart.
//!
//! Not here: what a partition does with it (`in_cluster.rs`), which node leads and which copies are
//! named (`cluster/`).

use crate::replication::{EmptyLeaders, HEARTBEAT_MS};
use crate::seeded_bugs::SeededBug;
use crate::storage::CopyId;

use super::replicas::REPLICAS_MAX;

/// Beats that can still be granted: older ones are of no use, since a lease is eight beats long.
const BEATS_KEPT: usize = 16;

/// Why a leader in a cluster does not take a request: nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Its lease has ended: another node may lead.
    Fenced,
    /// It hands over to another node.
    HandingOver,
    /// Fewer copies are in sync than have to be.
    TooFewCopies {
        /// How many are, this one included.
        count: usize,
        /// How many have to be.
        needed: usize,
    },
}

/// What the leader knows of another copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyFacts {
    /// The copy.
    pub copy: CopyId,
    /// Whether it is connected and gets the log: neither a snapshot nor nothing.
    pub follows_log: bool,
    /// On its disk up to here, as confirmed.
    pub durable_version: u64,
}

/// The lease that one copy has given.
#[derive(Clone, Copy, Debug)]
struct CopyLease {
    copy: CopyId,
    /// When the newest beat that it granted was numbered.
    granted_at_ms: u64,
}

/// A partition's side of its configuration.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// How long a lease of this leader lasts.
    pub(super) lease_ms: u64,
    /// The other copies that have to hold a write.
    pub(super) named: Vec<CopyId>,
    /// Copies in sync, this one included, and how many of them are needed for writes.
    pub(super) copy_count: usize,
    pub(super) needed_count: usize,
    pub(super) is_paused: bool,
    /// Which leaders that began empty are followed although there is data here.
    pub(super) empty_leaders: EmptyLeaders,
    leases: Vec<CopyLease>,
    /// The newest beat, and when each of the last ones was numbered.
    beat: u64,
    beat_at_ms: [u64; BEATS_KEPT],
    /// What was acknowledged in this office.
    pub(super) acked_version: u64,
    /// The epoch in which beats are granted; none: in none.
    pub(super) grant_epoch: Option<u64>,
    /// How long a promise lasts.
    pub(super) promise_ms: u64,
    /// A beat was granted, and the clock was not looked at since.
    pub(super) is_promise_new: bool,
    pub(super) promised_until_ms: u64,
    /// When a beat was granted last, or numbered.
    pub(super) heard_at_ms: Option<u64>,
}

impl Membership {
    /// When the lease ends; never without another copy named.
    pub(super) fn lease_end_ms(&self) -> u64 {
        let ends = self.named.iter().map(|named| {
            let lease = self.leases.iter().find(|lease| lease.copy == *named);
            lease.map_or(0, |lease| lease.granted_at_ms + self.lease_ms)
        });
        if SeededBug::LeaseOfOthersIgnored.is_on() {
            return ends.max().unwrap_or(u64::MAX);
        }
        ends.min().unwrap_or(u64::MAX)
    }

    /// Numbers the next beat.
    pub(super) fn beat(&mut self, now_ms: u64) {
        self.beat += 1;
        self.heard_at_ms = Some(now_ms);
        self.beat_at_ms[slot_of(self.beat)] = now_ms;
    }

    /// The number of the newest beat.
    pub(super) fn newest_beat(&self) -> u64 {
        self.beat
    }

    /// When the newest beat that a copy has granted was numbered.
    pub(super) fn granted_at_ms(&self, copy: CopyId) -> Option<u64> {
        let lease = self.leases.iter().find(|lease| lease.copy == copy);
        lease.map(|lease| lease.granted_at_ms)
    }

    /// A replica has granted a beat.
    pub(super) fn on_grant(&mut self, copy: CopyId, number: u64, now_ms: u64) {
        if number > self.beat || self.beat - number >= BEATS_KEPT as u64 {
            return;
        }
        let mut granted_at_ms = self.beat_at_ms[slot_of(number)];
        if SeededBug::LeaseFromReceipt.is_on() {
            granted_at_ms = now_ms;
        }
        let known = self.leases.iter_mut().find(|lease| lease.copy == copy);
        if let Some(lease) = known {
            lease.granted_at_ms = lease.granted_at_ms.max(granted_at_ms);
            return;
        }
        if self.leases.len() >= REPLICAS_MAX {
            // A node that is started again and again has a new copy each time.
            let others = self.leases.iter().enumerate();
            let unnamed = others.filter(|(_, lease)| !self.named.contains(&lease.copy));
            let oldest = unnamed.min_by_key(|(_, lease)| lease.granted_at_ms);
            let Some(at) = oldest.map(|(at, _)| at) else {
                return;
            };
            self.leases.swap_remove(at);
        }
        self.leases.push(CopyLease {
            copy,
            granted_at_ms,
        });
    }

    /// Whether the leader may serve a read, or a write.
    pub(super) fn check_open(&self, is_write: bool, now_ms: u64) -> Result<(), Closed> {
        if self.is_paused {
            return Err(Closed::HandingOver);
        }
        if now_ms >= self.lease_end_ms() {
            return Err(Closed::Fenced);
        }
        if is_write && self.copy_count < self.needed_count {
            return Err(Closed::TooFewCopies {
                count: self.copy_count,
                needed: self.needed_count,
            });
        }
        Ok(())
    }

    /// How long the other end of a link may be silent: two leases, and some heartbeats at least.
    pub(super) fn silence_ms(&self) -> u64 {
        (2 * self.lease_ms.max(self.promise_ms)).max(3 * HEARTBEAT_MS)
    }

    /// Counts nothing any more of what an earlier office was given.
    pub(super) fn leave_office(&mut self) {
        self.named.clear();
        self.leases.clear();
        (self.acked_version, self.is_paused) = (0, false);
    }
}

fn slot_of(number: u64) -> usize {
    usize::try_from(number % BEATS_KEPT as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A replica that is started again and again has a new copy each time.
    #[test]
    fn grants_of_new_copies_count_after_many_others() {
        let copy = |number: u16| CopyId([number.to_le_bytes(); 8].concat().try_into().expect("16"));
        let mut membership = Membership {
            lease_ms: 1_000,
            named: vec![copy(0)],
            ..Membership::default()
        };
        for number in 0..500 {
            let now_ms = u64::from(number) * 10;
            membership.beat(now_ms);
            membership.on_grant(copy(number), membership.newest_beat(), now_ms);
            assert_eq!(membership.granted_at_ms(copy(number)), Some(now_ms));
            assert_eq!(membership.granted_at_ms(copy(0)), Some(0), "it is named");
        }
        assert!(membership.leases.len() <= REPLICAS_MAX);
    }
}
