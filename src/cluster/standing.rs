//! A member that does not lead: it follows, grants beats, stands once it may, and takes office once
//! it is named and free of its promise.
//!
//! Not here: what it does in office (`leading.rs`), what it reads and is answered (`member.rs`).

use crate::config::WhenAllLost;
use crate::partition::Partition;
use crate::replication::EmptyLeaders;
use crate::seeded_bugs::SeededBug;
use crate::storage::Role;

use super::change::Change;
use super::config::{CopyOfNode, PartitionConfig, epoch_above};
use super::contact::SETTLE_MS;
use super::counts::TakeoverCause;
use super::history::Known;
use super::member::{Member, promise_ms};
use super::rules::{follow, held_by, leave_leader, may_stand, other_with, place_when_lost};
use super::surroundings::Surroundings;

/// Copies that stand at the same time ask etcd a little apart.
const STAND_SPREAD_MS: u64 = 100;

impl Member {
    pub(super) fn step_following(
        &mut self,
        now_ms: u64,
        around: &Surroundings<'_>,
        partition: &mut Partition,
    ) {
        let is_settled = self.is_settled(now_ms, around);
        let owner = other_with(around.copies, around.node, partition.copy());
        self.note_owner(owner, partition);
        let Some(Known { config, .. }) = &self.known else {
            return;
        };
        if self.is_copied {
            partition.grant_in(None, 0);
            return leave_leader(config, partition);
        }
        let is_own = config.leader == around.node;
        let is_wanted =
            is_own || config.has_replica(around.node) || config.is_in_sync(partition.copy());
        if !is_wanted {
            partition.grant_in(None, 0);
            self.unwanted_since_ms.get_or_insert(now_ms);
            return leave_leader(config, partition);
        }
        self.unwanted_since_ms = None;
        partition.follow_empty_leaders(match around.when_all_lost {
            // One that etcd names held all that was acknowledged, which can be nothing.
            WhenAllLost::Wait => EmptyLeaders::Related,
            WhenAllLost::Start => EmptyLeaders::All,
        });
        if !is_own {
            follow(config, around, partition);
        }
        // A copy that stops grants until it is out of the set: the leader would be fenced.
        let is_leaving = around.is_draining && !config.is_in_sync(partition.copy());
        // Where etcd went back, a copy in sync is not to help another leader than the one that it
        // granted beats before.
        let is_sure = is_settled
            || partition.grant_epoch() == Some(config.epoch)
            || around.contact.has_heard(partition)
            || !config.is_in_sync(partition.copy());
        let grants = is_sure && !is_own && !self.is_standing() && !is_leaving;
        let granted_ms = if SeededBug::GraceOfOwnOption.is_on() {
            around.lease_ms
        } else {
            config.lease_ms
        };
        partition.grant_in(grants.then_some(config.epoch), promise_ms(granted_ms));
        self.consider_standing(now_ms, around, partition);
        if around.is_draining {
            self.consider_leaving(now_ms, around, partition);
        }
    }

    /// Remembers whether the data here is that of another node, as where a data directory was
    /// copied: the two would confirm writes as one copy.
    fn note_owner(&mut self, owner: Option<&str>, partition: &Partition) {
        if let Some(owner) = owner
            && !self.is_copied
        {
            log::error!(
                "partition {}: the data here is a copy of that of {owner}, under the same id: this \
                 node takes no role. GET /status says what to do",
                partition.id()
            );
        }
        self.is_copied = owner.is_some();
    }

    /// Asks to be taken out of the set before the node stops: else the leader would wait for what
    /// this copy neither confirms nor grants any more. Only while the leader is heard: without one,
    /// this copy may be needed to lead.
    fn consider_leaving(&mut self, now_ms: u64, around: &Surroundings<'_>, partition: &Partition) {
        let Some(Known { config, .. }) = &self.known else {
            return;
        };
        let copy = partition.copy();
        // Within the quarter by which a promise outlives the lease.
        let is_heard = now_ms + config.lease_ms < partition.promised_until_ms();
        let has_leader = config.leader != around.node && config.has_in_sync(&config.leader);
        let can_ask = self.asked.is_none() && !self.is_outdated;
        if !is_heard || !has_leader || !config.is_in_sync(copy) || !can_ask {
            return;
        }
        let in_sync = config.in_sync.iter().filter(|of| of.copy != copy);
        let proposal = PartitionConfig {
            in_sync: in_sync.cloned().collect(),
            ..config.clone()
        };
        self.ask(Change::Set, proposal);
    }

    /// Stands if it may, once the configuration was read anew.
    fn consider_standing(
        &mut self,
        now_ms: u64,
        around: &Surroundings<'_>,
        partition: &mut Partition,
    ) {
        let is_settled = self.is_settled(now_ms, around);
        let place_when_lost = self.place_when_lost(now_ms, around, partition);
        let Some(Known { config, .. }) = &self.known else {
            return;
        };
        let is_own = config.leader == around.node;
        // The copies in sync are registered, from the first one on.
        let is_first = config.epoch == 0
            && config.has_replica(around.node)
            && around.has_registered(around.node, partition.copy());
        let may = is_first || place_when_lost.is_some() || may_stand(config, partition.copy());
        // A new leader has as long to be heard as one that falls silent: a leader that has handed
        // over has promised nothing for a long time.
        let new_until_ms = self.epoch_known_ms + promise_ms(config.lease_ms);
        let is_due = is_own || now_ms >= partition.promised_until_ms().max(new_until_ms);
        // Where etcd went back, nodes that know better are to say so first. One that keeps others
        // in the set has to hear from them anyway.
        let keeps_others = is_own && place_when_lost.is_none() && config.in_sync.len() > 1;
        let is_settled = is_settled || around.contact.has_heard(partition);
        let is_sure = (is_first && is_own) || keeps_others || is_settled || around.is_alone(config);
        let is_fit = partition.is_fit_to_lead() && !around.is_draining;
        let can = may && is_due && is_sure && is_fit;
        if !can || self.is_outdated || self.asked.is_some() {
            self.stand_at_ms = self.stand_at_ms.filter(|_| can);
            return;
        }
        if SeededBug::ResumesWithoutEpoch.is_on()
            && is_own
            && config.epoch > 0
            && partition.roles().meta().role == Role::Leader
        {
            return self.take_office(around, partition);
        }
        let spread_ms = match place_when_lost {
            // Each has its turn, the best copy first.
            Some(place) => place * (promise_ms(config.lease_ms) + STAND_SPREAD_MS),
            None if is_own => 0,
            None => around.random % STAND_SPREAD_MS,
        };
        if self.has_waited_to_stand(now_ms, spread_ms) {
            self.stand_at_ms = None;
            self.stand(place_when_lost.is_some(), around, partition);
        }
    }

    /// Whether this node has waited so long since it could stand first, and has read the
    /// configuration since.
    fn has_waited_to_stand(&mut self, now_ms: u64, spread_ms: u64) -> bool {
        let stand_at_ms = *self.stand_at_ms.get_or_insert(now_ms + spread_ms);
        now_ms >= stand_at_ms && self.has_read_since(stand_at_ms, now_ms)
    }

    /// Asks etcd to name this node as the leader. `is_lost`: none of the copies in sync is left.
    fn stand(&mut self, is_lost: bool, around: &Surroundings<'_>, partition: &Partition) {
        let Some(Known { config, .. }) = &self.known else {
            return;
        };
        let is_own = config.leader == around.node;
        let own = CopyOfNode {
            node: around.node.to_owned(),
            copy: partition.copy(),
        };
        let is_other = |of: &&CopyOfNode| !is_lost && (is_own || of.node != config.leader);
        let mut in_sync: Vec<CopyOfNode> =
            config.in_sync.iter().filter(is_other).cloned().collect();
        if !in_sync.contains(&own) {
            in_sync.push(own);
        }
        let epoch = config.epoch.max(partition.roles().meta().epoch);
        let proposal = PartitionConfig {
            epoch: if SeededBug::EpochReused.is_on() {
                epoch
            } else {
                epoch_above(epoch, 1)
            },
            leader: around.node.to_owned(),
            handed_over: false,
            lease_ms: around.lease_ms,
            in_sync,
            ..config.clone()
        };
        self.counts.on_stand(match config.epoch {
            _ if is_lost => TakeoverCause::AllLost,
            0 => TakeoverCause::First,
            _ if is_own => TakeoverCause::Restarted,
            _ => TakeoverCause::Silent,
        });
        self.ask(Change::Stand, proposal);
    }

    /// How many other copies may lead before this one where all copies in sync are gone for good,
    /// and the cluster is to go on without them. None: that is not so.
    fn place_when_lost(
        &mut self,
        now_ms: u64,
        around: &Surroundings<'_>,
        partition: &Partition,
    ) -> Option<u64> {
        let (_, since_ms) = self
            .lost
            .filter(|_| around.when_all_lost == WhenAllLost::Start && self.is_lost())?;
        // By then all nodes that run have registered what they hold.
        if !self.has_read_since(since_ms + SETTLE_MS, now_ms) {
            return None;
        }
        let known = self.known.as_ref()?;
        let own = around.copies.get(around.node)?;
        let held = held_by(partition);
        let is_own = own.copy == partition.copy() && (own.epoch, own.version) == held;
        let place = || place_when_lost(&known.config, around.copies, around.node);
        is_own.then(place).flatten()
    }

    pub(super) fn step_named(
        &mut self,
        now_ms: u64,
        around: &Surroundings<'_>,
        partition: &mut Partition,
    ) {
        let Some(Known { config, .. }) = &self.known else {
            return;
        };
        if SeededBug::GrantsWhenNamed.is_on() {
            let epoch = partition.roles().meta().epoch;
            partition.grant_in(Some(epoch), 0);
        } else {
            partition.grant_in(None, 0);
        }
        let is_free = now_ms >= partition.promised_until_ms() || config.handed_over;
        if is_free && partition.is_fit_to_lead() {
            self.take_office(around, partition);
        }
    }
}
