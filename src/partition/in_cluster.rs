//! A partition in a cluster: how it takes on what its configuration says, what counts as
//! acknowledged, and beats, grants and promises as they come and go.
//!
//! Not here: leases and promises themselves (`membership.rs`), which node leads and which copies
//! are named (`cluster/`).

use crate::replication::{EmptyLeaders, LinkError, SenderFacts, SenderPhase};
use crate::seeded_bugs::SeededBug;
use crate::storage::{CopyId, HistoryId, Role, StorageError};

use super::membership::{Closed, CopyFacts, Membership};
use super::roles::{AssignError, Assignment, Roles};
use super::state::Partition;

impl Partition {
    /// The partition is one copy of several from now on, and has no role until it is told one.
    ///
    /// What it promised before it was restarted is not known, so until `promised_until_ms` it does
    /// as if it had promised something. If it was the leader it had promised nothing: it came into
    /// office only once its promises had lapsed, and gives others only as a replica.
    pub fn join_cluster(&mut self, promised_until_ms: u64) {
        let was_leader = self.roles.meta().role == Role::Leader;
        let mut membership = Membership::default();
        if !was_leader {
            membership.promised_until_ms = promised_until_ms;
        }
        self.membership = Some(Box::new(membership));
        self.roles.await_assignment();
    }

    /// Whether etcd says what it is.
    #[inline]
    pub fn is_in_cluster(&self) -> bool {
        self.membership.is_some()
    }

    /// Whether it leads as one copy of several.
    #[inline]
    pub fn leads_in_cluster(&self) -> bool {
        self.membership.is_some() && self.roles.role() == Role::Leader
    }

    /// The id of its data.
    pub fn copy(&self) -> CopyId {
        self.roles.meta().copy
    }

    /// Whether its data can be led by: whole and durable, as far as it is to be.
    pub fn is_fit_to_lead(&self) -> bool {
        self.roles.is_settled() && self.is_replaced() && self.write_obstacle().is_none()
    }

    /// Follows the leader of an epoch; none: it is not known where it is.
    pub fn follow_in(&mut self, epoch: u64, leader: Option<&str>) -> Result<(), AssignError> {
        self.assign(&Assignment {
            role: Role::Replica,
            epoch: Some(epoch),
            leader: leader.map(str::to_owned),
            peers: Vec::new(),
        })?;
        Ok(())
    }

    /// Leads in an epoch, from the moment when that is durable. `named` are the other copies that
    /// have to hold a write.
    pub fn lead_in(
        &mut self,
        epoch: u64,
        named: Vec<CopyId>,
        lease_ms: u64,
    ) -> Result<(), AssignError> {
        let assigned = self.roles.assigned(&Assignment {
            role: Role::Leader,
            epoch: Some(epoch),
            leader: None,
            peers: Vec::new(),
        })?;
        if self.roles.role() == Role::Leader {
            self.leadership.generation += 1;
        }
        let (version, history) = (self.lsm.last_version(), HistoryId(self.ids.draw()));
        let office = Roles::in_force(assigned).in_office(version, Some(history));
        self.leadership.begun_at_ms = self.clock.time_ms;
        self.roles.take_duty();
        self.change_meta(office);
        self.disconnect();
        if let Some(membership) = &mut self.membership {
            membership.leave_office();
            (membership.named, membership.lease_ms) = (named, lease_ms);
        }
        Ok(())
    }

    /// Names the other copies that have to hold a write from now on.
    pub fn name_copies(&mut self, named: Vec<CopyId>) {
        self.note_acked();
        if let Some(membership) = &mut self.membership {
            membership.named = named;
        }
    }

    /// Says how many copies are in sync, this one included, and how many writes need.
    pub fn set_copy_counts(&mut self, count: usize, needed: usize) {
        if let Some(membership) = &mut self.membership {
            (membership.copy_count, membership.needed_count) = (count, needed);
        }
    }

    /// Says which leaders that began empty are followed although there is data here.
    pub fn follow_empty_leaders(&mut self, leaders: EmptyLeaders) {
        if let Some(membership) = &mut self.membership {
            membership.empty_leaders = leaders;
        }
    }

    pub(super) fn empty_leaders(&self) -> EmptyLeaders {
        let membership = self.membership.as_ref();
        membership.map_or(EmptyLeaders::None, |own| own.empty_leaders)
    }

    /// Serves neither reads nor writes, or goes on.
    pub fn set_paused(&mut self, is_paused: bool) {
        if let Some(membership) = &mut self.membership {
            membership.is_paused = is_paused;
        }
    }

    /// Numbers the next beat, which goes to every replica. `now_ms` was read before this call.
    pub fn beat(&mut self, now_ms: u64) {
        if let Some(membership) = &mut self.membership {
            membership.beat(now_ms);
        }
    }

    /// The number of the newest beat, if this node leads in a cluster.
    pub(super) fn newest_beat(&self) -> Option<u64> {
        let membership = self.membership.as_ref()?;
        (self.roles.role() == Role::Leader).then(|| membership.newest_beat())
    }

    /// When this node has to stop answering reads as the leader: `u64::MAX` if it need not.
    #[inline]
    pub fn lease_end_ms(&self) -> u64 {
        let membership = self.membership.as_ref();
        membership.map_or(u64::MAX, |membership| membership.lease_end_ms())
    }

    /// When the newest beat that a copy has granted was numbered.
    pub fn granted_at_ms(&self, copy: CopyId) -> Option<u64> {
        self.membership.as_ref()?.granted_at_ms(copy)
    }

    /// Whether the leader may serve a read, or a write.
    #[inline]
    pub fn check_open(&self, is_write: bool, now_ms: u64) -> Result<(), Closed> {
        match &self.membership {
            Some(membership) => membership.check_open(is_write, now_ms),
            None => Ok(()),
        }
    }

    /// The version up to which every named copy holds the writes: `u64::MAX` outside of a cluster.
    pub(super) fn set_acked_version(&self) -> u64 {
        let Some(membership) = &self.membership else {
            return u64::MAX;
        };
        membership.acked_version.max(self.confirmed_by_named())
    }

    /// What every named copy has confirmed.
    fn confirmed_by_named(&self) -> u64 {
        let Some(membership) = &self.membership else {
            return u64::MAX;
        };
        let named = &membership.named;
        if SeededBug::AckOfAnotherCopy.is_on() {
            return self.replicas.acked_version(named.len());
        }
        let confirmed = named.iter().map(|copy| self.replicas.acked_by(*copy));
        if SeededBug::AnyAckCounts.is_on() {
            return confirmed.max().unwrap_or(u64::MAX);
        }
        confirmed.min().unwrap_or(u64::MAX)
    }

    /// The newest version that is acknowledged: on this node's disk, and on every named copy.
    pub fn acked_version(&self) -> u64 {
        self.held_version().min(self.set_acked_version())
    }

    /// Remembers what is acknowledged: it stays so when other copies are named.
    pub(super) fn note_acked(&mut self) {
        let acked_version = self.acked_version();
        if let Some(membership) = &mut self.membership {
            membership.acked_version = membership.acked_version.max(acked_version);
        }
    }

    /// What is known of the other copies that are connected.
    pub fn copy_facts(&self) -> impl Iterator<Item = CopyFacts> {
        self.replicas.copies().map(|(copy, facts)| CopyFacts {
            copy,
            follows_log: facts.phase == SenderPhase::Log,
            durable_version: facts.acked.durable_version,
        })
    }

    /// A replica's link has new facts.
    pub(super) fn note_grant(&mut self, copy: CopyId, facts: SenderFacts, now_ms: u64) {
        if let Some(membership) = &mut self.membership
            && let Some(number) = facts.granted
        {
            membership.on_grant(copy, number, now_ms);
        }
    }

    /// Ends a link in a cluster sooner than elsewhere when its other end is silent: there is soon
    /// another leader, or a copy less in sync.
    pub(super) fn check_heard(
        &self,
        peer: &'static str,
        heard_at_ms: u64,
        now_ms: u64,
    ) -> Result<(), LinkError> {
        match &self.membership {
            Some(own) if now_ms.saturating_sub(heard_at_ms) >= own.silence_ms() => {
                Err(LinkError::Silent(peer))
            }
            _ => Ok(()),
        }
    }

    /// Grants the beats of an epoch's leader from now on, each for so long; none: grants nothing.
    pub fn grant_in(&mut self, epoch: Option<u64>, promise_ms: u64) {
        if let Some(membership) = &mut self.membership {
            (membership.grant_epoch, membership.promise_ms) = (epoch, promise_ms);
        }
    }

    /// The epoch in which beats are granted; none: in none.
    pub fn grant_epoch(&self) -> Option<u64> {
        self.membership.as_ref()?.grant_epoch
    }

    /// Whether a beat of the leader of an epoch is granted; if so the promise lasts anew.
    pub(super) fn grants_beat(&mut self, leader_epoch: Option<u64>) -> bool {
        let is_settled = self.roles.is_settled();
        let Some(membership) = &mut self.membership else {
            return false;
        };
        let is_granted =
            is_settled && leader_epoch.is_some() && membership.grant_epoch == leader_epoch;
        membership.is_promise_new |= is_granted;
        is_granted
    }

    /// Looks at the clock: `now_ms` was read after everything that was granted so far had come.
    pub fn note_promise(&mut self, now_ms: u64) {
        if let Some(membership) = &mut self.membership
            && std::mem::take(&mut membership.is_promise_new)
        {
            membership.heard_at_ms = Some(now_ms);
            let until_ms = now_ms + membership.promise_ms;
            membership.promised_until_ms = membership.promised_until_ms.max(until_ms);
        }
    }

    /// When a leader was heard last: a beat was granted, or this node led.
    pub fn leader_heard_at_ms(&self) -> Option<u64> {
        self.membership.as_ref()?.heard_at_ms
    }

    /// Until when this node has promised not to lead.
    pub fn promised_until_ms(&self) -> u64 {
        let membership = self.membership.as_ref();
        membership.map_or(0, |membership| membership.promised_until_ms)
    }

    /// Why the disk takes no writes for good, if so.
    pub fn disk_failure(&self) -> Option<&StorageError> {
        self.disk.as_ref()?.failure()
    }
}
