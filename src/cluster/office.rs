//! The time of a node as the leader of a partition: what it observes of the other copies, which of
//! them leave the set or join it, its beats, and a hand-over.
//!
//! Not here: when changes are asked for (`leading.rs`), and what becomes of them (`member.rs`).

use crate::partition::{CopyFacts, Partition};
use crate::seeded_bugs::SeededBug;
use crate::storage::CopyId;

use super::change::{Asked, Change};
use super::config::{CopyOfNode, PartitionConfig};
use super::contact::SETTLE_MS;
use super::counts::TakeoverCause;
use super::own_disk::{DiskTrouble, OwnDisk};
use super::surroundings::Surroundings;

/// A copy that is not connected for so long leaves the set.
const ABSENT_MS: u64 = 300;

/// The same copy joins the set at most once in this time.
const REJOIN_MS: u64 = 5_000;

/// How long a leader that is to hand over waits for etcd to answer; and then, while requests wait,
/// for its successor to have everything.
const ANSWER_MS: u64 = 1_000;
const HANDOVER_MS: u64 = 500;

/// After a hand-over that took too long, time until the leader begins another one by itself: each
/// of them holds writes up.
pub(super) const HANDOVER_REST_MS: u64 = 5_000;

/// A node hands over for a slow disk at most once in so many leases: where all have slow disks,
/// each leads for a while.
const REST_LEASES: u64 = 20;

/// Parts of a lease: from one beat to the next; until a copy that is behind leaves the set.
pub(super) const BEATS_PER_LEASE: u64 = 8;
const PATIENCE_PER_LEASE: u64 = 2;

/// A copy joins that is no further behind than it was so many beats ago.
const NEAR_BEATS: usize = 2;

/// What the leader has observed of another copy.
#[derive(Debug)]
struct Observed {
    copy: CopyId,
    absent_since_ms: Option<u64>,
    /// A version that it has not confirmed, and since when it was to.
    unconfirmed: Option<(u64, u64)>,
    /// Since when it is near the newest version.
    near_since_ms: Option<u64>,
    /// Whether it is named.
    is_in_set: bool,
    /// When etcd was last asked to take it into the set.
    joined_at_ms: Option<u64>,
    /// Since when it holds up the acknowledgement of writes.
    bad_since_ms: Option<u64>,
}

/// A hand-over that is under way.
#[derive(Debug)]
pub(super) struct Handover {
    pub(super) to: CopyOfNode,
    pub(super) begun_at_ms: u64,
    /// Requests wait once etcd has answered what it was asked since then: only etcd ends that.
    pub(super) answered_since_ms: u64,
    /// Since when they wait.
    pub(super) paused_since_ms: Option<u64>,
    /// Whether etcd may have been asked: then this node stays stopped until the outcome is known.
    pub(super) is_in_doubt: bool,
}

/// The time as leader, from the decision to lead on.
#[derive(Debug)]
pub(super) struct Office {
    pub(super) epoch: u64,
    /// Why it began; none: that is logged.
    cause: Option<TakeoverCause>,
    /// The version at which it began: a copy without it does not join the set.
    begun_version: u64,
    /// When it became durable; none: not yet.
    begun_at_ms: Option<u64>,
    /// Nothing before this time is held against another copy: this node did not look.
    looked_since_ms: u64,
    stepped_at_ms: u64,
    observed: Vec<Observed>,
    /// The newest version on this node's disk at each of the last beats, the latest last.
    versions: Vec<u64>,
    pub(super) next_beat_ms: u64,
    pub(super) handover: Option<Handover>,
    /// Until when no hand-over is begun without an order.
    pub(super) rest_until_ms: u64,
    pub(super) own_disk: OwnDisk,
    /// When it ceased to beat, since it can neither serve nor reach etcd.
    silent_since_ms: Option<u64>,
}

impl Handover {
    /// Whether it has taken too long, and etcd was not asked for it.
    pub(super) fn is_late(&self, now_ms: u64) -> bool {
        let is_over = match self.paused_since_ms {
            None => now_ms - self.begun_at_ms >= ANSWER_MS,
            Some(at_ms) => now_ms - at_ms >= HANDOVER_MS,
        };
        is_over && !self.is_in_doubt
    }

    /// Whether all is acknowledged, and on the copy that is to lead. `is_unfit`: this node's own
    /// disk confirms nothing any more.
    fn is_ready(&self, is_unfit: bool, partition: &Partition) -> bool {
        if SeededBug::HandoverWithoutPause.is_on() {
            return true;
        }
        let last_version = if is_unfit {
            // No other copy has more. What the disk has not taken is not acknowledged: its clients
            // hear that the outcome is unknown.
            partition.held_version()
        } else {
            partition.lsm().last_version()
        };
        let mut facts = partition.copy_facts();
        let is_there = facts.any(|facts| {
            facts.copy == self.to.copy && facts.follows_log && facts.durable_version >= last_version
        });
        is_there && partition.acked_version() >= last_version
    }
}

impl Office {
    pub(super) fn new(epoch: u64, begun_version: u64, cause: TakeoverCause) -> Self {
        Self {
            epoch,
            cause: Some(cause),
            begun_version,
            begun_at_ms: None,
            looked_since_ms: 0,
            stepped_at_ms: 0,
            observed: Vec::new(),
            versions: Vec::new(),
            next_beat_ms: 0,
            handover: None,
            rest_until_ms: 0,
            own_disk: OwnDisk::default(),
            silent_since_ms: None,
        }
    }

    /// Whether it hands over, and requests wait.
    pub(super) fn is_ending(&self) -> bool {
        let handover = self.handover.as_ref();
        handover.is_some_and(|own| own.paused_since_ms.is_some())
    }

    /// Whether a hand-over may begin without an order.
    pub(super) fn is_rested(&self, now_ms: u64) -> bool {
        now_ms >= self.rest_until_ms
    }

    /// Etcd may have this request from now on.
    pub(super) fn on_asked(&mut self, asked: &Asked, now_ms: u64) {
        match asked.change {
            Change::HandOver => {
                if let Some(handover) = &mut self.handover {
                    handover.is_in_doubt = true;
                }
            }
            Change::Set => {
                let in_sync = &asked.proposal.in_sync;
                for known in &mut self.observed {
                    if in_sync.iter().any(|of| of.copy == known.copy) && !known.is_in_set {
                        known.joined_at_ms = Some(now_ms);
                    }
                }
            }
            Change::Stand => {}
        }
    }

    /// Logs that it has begun, once it has: with the cause, and for how long no node led.
    pub(super) fn log_takeover(&mut self, now_ms: u64, started_at_ms: u64, partition: &Partition) {
        let Some(cause) = self.cause.take() else {
            return;
        };
        let (id, epoch, version) = (partition.id(), self.epoch, self.begun_version);
        let (since_ms, what) = match partition.leader_heard_at_ms() {
            Some(heard_at_ms) => (heard_at_ms, "a leader was heard last"),
            None => (started_at_ms, "this node was started and heard no leader"),
        };
        log::info!(
            "partition {id}: this node leads in epoch {epoch} from version {version} on, {} ms \
             after {what}: {}",
            now_ms.saturating_sub(since_ms),
            cause.text()
        );
    }

    /// Looks at the other copies.
    pub(super) fn look(
        &mut self,
        now_ms: u64,
        lease_ms: u64,
        effective: &[CopyOfNode],
        partition: &Partition,
    ) {
        // After a pause of its own, nothing that it has not seen is held against the others.
        let is_late = now_ms - self.stepped_at_ms.min(now_ms) > lease_ms / 4;
        if is_late {
            self.looked_since_ms = now_ms;
        }
        self.own_disk.look(now_ms, is_late, lease_ms, partition);
        self.stepped_at_ms = now_ms;
        self.begun_at_ms.get_or_insert(now_ms);
        // Nothing is sent before it is on this node's own disk.
        let held_version = partition.held_version();
        let near_version = match self.versions.len() {
            0..NEAR_BEATS => held_version,
            count => self.versions[count - NEAR_BEATS],
        };
        let facts: Vec<CopyFacts> = partition.copy_facts().collect();
        for copy in effective
            .iter()
            .map(|of| of.copy)
            .chain(facts.iter().map(|of| of.copy))
        {
            if copy != partition.copy() && self.observed.iter().all(|known| known.copy != copy) {
                self.observed.push(Observed::new(copy));
            }
        }
        self.observed.retain(|known| {
            effective.iter().any(|of| of.copy == known.copy)
                || facts.iter().any(|of| of.copy == known.copy)
                || known
                    .joined_at_ms
                    .is_some_and(|at_ms| now_ms - at_ms < REJOIN_MS)
        });
        for known in &mut self.observed {
            known.is_in_set = effective.iter().any(|of| of.copy == known.copy);
            let of_copy = facts.iter().filter(|facts| facts.copy == known.copy);
            let best = of_copy.max_by_key(|facts| (facts.follows_log, facts.durable_version));
            known.note(now_ms, best, held_version, near_version);
        }
        for at in 0..self.observed.len() {
            let is_bad = self.is_bad(self.observed[at].copy, now_ms, lease_ms, partition);
            let since = &mut self.observed[at].bad_since_ms;
            *since = is_bad.then(|| since.unwrap_or(now_ms));
        }
    }

    /// Whether a copy is to leave the set: it is not connected, or has not confirmed what it was
    /// sent in time, or not granted it.
    pub(super) fn is_bad(
        &self,
        copy: CopyId,
        now_ms: u64,
        lease_ms: u64,
        partition: &Partition,
    ) -> bool {
        let Some(known) = self.observed.iter().find(|known| known.copy == copy) else {
            return false;
        };
        let begun_ms = self.begun_at_ms.unwrap_or(now_ms);
        // A new leader is dialed only once the others have heard of it.
        let first_ms = (begun_ms + lease_ms / 4).max(self.looked_since_ms);
        let since = |at_ms: u64| now_ms.saturating_sub(at_ms.max(first_ms));
        let patience_ms = lease_ms / PATIENCE_PER_LEASE;
        let granted_at_ms = partition
            .granted_at_ms(copy)
            .unwrap_or(SETTLE_MS + first_ms);
        known
            .absent_since_ms
            .is_some_and(|at_ms| since(at_ms) >= ABSENT_MS)
            || known
                .unconfirmed
                .is_some_and(|(_, at_ms)| since(at_ms) >= patience_ms)
            || since(granted_at_ms) >= patience_ms
    }

    /// The copies in sync without those that are to leave the set. One that has granted nothing
    /// since `heard_since_ms` may follow another leader, and stays.
    pub(super) fn staying(
        &self,
        now_ms: u64,
        config: &PartitionConfig,
        heard_since_ms: u64,
        partition: &Partition,
    ) -> Vec<CopyOfNode> {
        let (own, lease_ms) = (partition.copy(), config.lease_ms);
        let may_go = |copy| partition.granted_at_ms(copy).unwrap_or(0) >= heard_since_ms;
        let is_bad = |copy| self.is_bad(copy, now_ms, lease_ms, partition);
        let stays = |copy| copy == own || !is_bad(copy) || !may_go(copy);
        let in_sync = config.in_sync.iter();
        in_sync.filter(|of| stays(of.copy)).cloned().collect()
    }

    /// When the last of the copies in the set that hold up writes began to; 0: none does.
    pub(super) fn bad_since_ms(&self) -> u64 {
        let in_set = self.observed.iter().filter(|known| known.is_in_set);
        in_set
            .filter_map(|known| known.bad_since_ms)
            .max()
            .unwrap_or(0)
    }

    /// Whether a copy holds up the acknowledgement of writes.
    fn is_slow(&self, copy: CopyId) -> bool {
        let mut slow = self.observed.iter();
        slow.any(|known| known.copy == copy && known.bad_since_ms.is_some())
    }

    /// The copy in sync that is furthest, of those that can lead in this node's place.
    pub(super) fn successor(
        &self,
        config: &PartitionConfig,
        partition: &Partition,
    ) -> Option<String> {
        let furthest = partition
            .copy_facts()
            .filter_map(|facts| Some((facts, config.staying_node_of(facts.copy)?)))
            .filter(|(facts, _)| facts.follows_log && !self.is_slow(facts.copy))
            .max_by_key(|(facts, _)| facts.durable_version)?;
        Some(furthest.1.to_owned())
    }

    /// Whether etcd can be asked to let the other copy lead.
    pub(super) fn can_name(&self, handover: &Handover, partition: &Partition) -> bool {
        let is_paused = handover.paused_since_ms.is_some();
        let is_unfit = self.own_disk.trouble().is_some();
        handover.is_in_doubt || (is_paused && handover.is_ready(is_unfit, partition))
    }

    /// The trouble with this node's disk that another copy is to lead for, and since when it is
    /// known. `gave_up_at_ms`: when this node last tried to hand over for such a trouble.
    pub(super) fn reason_to_go(
        &self,
        now_ms: u64,
        lease_ms: u64,
        gave_up_at_ms: Option<u64>,
    ) -> Option<(DiskTrouble, u64)> {
        let (trouble, since_ms) = self.own_disk.trouble()?;
        let rest_leases = match gave_up_at_ms {
            None => 0,
            // In this office: it did not work out.
            at_ms if at_ms >= self.begun_at_ms => 1,
            // A disk that has failed kept its node from leading until it was started again.
            Some(_) if trouble == DiskTrouble::Failed => 0,
            Some(_) => REST_LEASES,
        };
        let rest_until_ms = gave_up_at_ms.map_or(0, |at_ms| at_ms + rest_leases * lease_ms);
        (now_ms >= rest_until_ms).then_some((trouble, since_ms))
    }

    /// Copies that can join the set.
    pub(super) fn joining(
        &self,
        now_ms: u64,
        config: &PartitionConfig,
        around: &Surroundings<'_>,
        partition: &Partition,
    ) -> Vec<CopyOfNode> {
        let acked_version = partition.acked_version();
        let least_version = acked_version.max(self.begun_version);
        let needs_leaving = !config.leaving.is_empty() && !config.are_staying_in_sync();
        let mut joining = Vec::new();
        for facts in partition.copy_facts().filter(|facts| facts.follows_log) {
            let node = around.node_of(facts.copy);
            let node = node.filter(|node| config.has_replica(node));
            // One that leaves comes back only where it is needed until the others are there.
            let node = node.filter(|node| !config.has_leaving(node) || needs_leaving);
            let Some(node) = node.filter(|_| !config.is_in_sync(facts.copy)) else {
                continue;
            };
            let mut observed = self.observed.iter();
            let Some(known) = observed.find(|known| known.copy == facts.copy) else {
                continue;
            };
            let patience_ms = config.lease_ms / PATIENCE_PER_LEASE;
            let is_near = known
                .near_since_ms
                .is_some_and(|at_ms| now_ms - at_ms >= patience_ms);
            let is_rested = known
                .joined_at_ms
                .is_none_or(|at_ms| now_ms - at_ms >= REJOIN_MS);
            let has_all = facts.durable_version >= least_version;
            let has_granted = partition.granted_at_ms(facts.copy).is_some();
            let is_bad = self.is_bad(facts.copy, now_ms, config.lease_ms, partition);
            let is_good = is_near && has_granted && !is_bad;
            let is_seeded = SeededBug::JoinBehind.is_on()
                || (SeededBug::JoinBelowOffice.is_on() && facts.durable_version >= acked_version);
            if is_rested && ((is_good && has_all) || is_seeded) {
                joining.push(CopyOfNode {
                    node: node.to_owned(),
                    copy: facts.copy,
                });
            }
        }
        joining
    }

    /// Numbers a beat if one is due.
    pub(super) fn beat(
        &mut self,
        now_ms: u64,
        lease_ms: u64,
        around: &Surroundings<'_>,
        partition: &mut Partition,
    ) {
        // Requests wait for this node's disk, for a copy that cannot be taken out of the set, or
        // for the outcome of a hand-over: a node that reaches etcd may do better.
        let since_ms = now_ms.saturating_sub(2 * lease_ms);
        let is_old = |at_ms: u64| at_ms < since_ms;
        let is_unfit = self
            .own_disk
            .trouble()
            .is_some_and(|(_, at_ms)| is_old(at_ms));
        let mut in_set = self.observed.iter().filter(|known| known.is_in_set);
        let in_doubt = self.handover.as_ref().filter(|own| own.is_in_doubt);
        let is_stuck = in_doubt.is_some_and(|own| is_old(own.begun_at_ms))
            || in_set.any(|known| is_unfit || known.bad_since_ms.is_some_and(is_old));
        let is_silent = self.silent_since_ms.is_some();
        if !is_silent && is_stuck && around.contact.answered_at_ms < since_ms {
            self.silent_since_ms = Some(now_ms);
        } else if self
            .silent_since_ms
            .is_some_and(|at_ms| around.contact.answered_at_ms > at_ms)
        {
            self.silent_since_ms = None;
        }
        if now_ms < self.next_beat_ms {
            return;
        }
        self.next_beat_ms = now_ms + lease_ms / BEATS_PER_LEASE;
        if self.versions.len() > NEAR_BEATS {
            self.versions.remove(0);
        }
        self.versions.push(partition.held_version());
        if self.silent_since_ms.is_none() {
            partition.beat(now_ms);
        }
    }
}

impl Observed {
    fn new(copy: CopyId) -> Self {
        Self {
            copy,
            absent_since_ms: None,
            unconfirmed: None,
            near_since_ms: None,
            is_in_set: false,
            joined_at_ms: None,
            bad_since_ms: None,
        }
    }

    /// What is known of the copy now; none: it is not connected.
    fn note(
        &mut self,
        now_ms: u64,
        facts: Option<&CopyFacts>,
        held_version: u64,
        near_version: u64,
    ) {
        let Some(facts) = facts.filter(|facts| facts.follows_log) else {
            self.absent_since_ms.get_or_insert(now_ms);
            (self.unconfirmed, self.near_since_ms) = (None, None);
            return;
        };
        self.absent_since_ms = None;
        let durable_version = facts.durable_version;
        let has_target = |(target, _): &(u64, u64)| durable_version < *target;
        let is_behind = durable_version < held_version;
        self.unconfirmed = match self.unconfirmed.filter(has_target) {
            Some(waiting) => Some(waiting),
            None => is_behind.then_some((held_version, now_ms)),
        };
        self.near_since_ms = if durable_version >= near_version {
            self.near_since_ms.or(Some(now_ms))
        } else {
            None
        };
    }
}
