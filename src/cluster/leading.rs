//! A member that leads: it takes office, asks for changes of the set, and hands over.
//!
//! Not here: what it observes of the other copies (`office.rs`), how it comes to lead
//! (`standing.rs`), what it reads and is answered (`member.rs`).

use crate::partition::Partition;
use crate::seeded_bugs::SeededBug;

use super::change::Change;
use super::config::{CopyOfNode, PartitionConfig, epoch_above};
use super::history::Known;
use super::member::{HandoverEnd, Member, Stage};
use super::moves::MoveAction;
use super::office::{HANDOVER_REST_MS, Handover, Office};
use super::rules::others;
use super::surroundings::Surroundings;

impl Member {
    /// Leads from the moment when that is durable.
    pub(super) fn take_office(&mut self, around: &Surroundings<'_>, partition: &mut Partition) {
        let Some(Known { config, .. }) = &self.known else {
            return;
        };
        let copy = partition.copy();
        let named = others(&self.effective(), copy);
        let (epoch, lease_ms) = (config.epoch, config.lease_ms);
        partition.grant_in(None, 0);
        if let Err(error) = partition.lead_in(epoch, named, lease_ms) {
            log::error!(
                "partition {}: cannot lead in epoch {epoch}: {error:?}",
                partition.id()
            );
            return;
        }
        partition.set_copy_counts(config.in_sync.len(), around.min_in_sync);
        let cause = self.counts.record_takeover(config.handed_over);
        self.stand_at_ms = None;
        let begun_version = partition.lsm().last_version();
        self.stage = Stage::Office(Box::new(Office::new(epoch, begun_version, cause)));
    }

    /// Begins to hand over to a copy in sync, once etcd has answered what it was asked since then;
    /// false if that cannot be.
    pub(super) fn hand_over(
        &mut self,
        to: &str,
        answered_since_ms: u64,
        now_ms: u64,
        partition: &Partition,
    ) -> bool {
        let Some(Known { config, .. }) = &self.known else {
            return false;
        };
        let to = config.in_sync.iter().find(|of| of.node == to).cloned();
        let went_back = self.went_back();
        let (Some(to), Stage::Office(office)) = (to, &mut self.stage) else {
            return false;
        };
        if went_back || office.handover.is_some() || to.copy == partition.copy() {
            return false;
        }
        office.handover = Some(Handover {
            to,
            begun_at_ms: now_ms,
            answered_since_ms,
            paused_since_ms: None,
            is_in_doubt: false,
        });
        self.ended_handover = None;
        true
    }

    /// The copy in sync that is furthest, to hand over to.
    pub(super) fn successor(&self, partition: &Partition) -> Option<String> {
        match &self.stage {
            Stage::Office(office) => office.successor(self.config()?, partition),
            Stage::Following | Stage::Named => None,
        }
    }

    pub(super) fn step_office(
        &mut self,
        now_ms: u64,
        around: &Surroundings<'_>,
        partition: &mut Partition,
    ) {
        let (effective, went_back) = (self.effective(), self.went_back());
        let is_answered = self.is_handover_answered(now_ms);
        let Self {
            stage: Stage::Office(office),
            known: Some(known),
            counts,
            ..
        } = self
        else {
            return;
        };
        if !partition.roles().is_settled() {
            return;
        }
        let config = &known.config;
        office.log_takeover(now_ms, around.started_at_ms, partition);
        counts.record_lease(now_ms, partition.lease_end_ms());
        let can_ask = !went_back && self.asked.is_none() && !self.is_outdated;
        // Nothing can be handed over where etcd is asked nothing; one in doubt stays so.
        let is_over = |handover: &mut Handover| went_back && !handover.is_in_doubt;
        if office.handover.take_if(is_over).is_some() {
            self.ended_handover = Some(HandoverEnd::Superseded);
        }
        if office.handover.take_if(|own| own.is_late(now_ms)).is_some() {
            office.rest_until_ms = now_ms + HANDOVER_REST_MS;
            self.ended_handover = Some(HandoverEnd::TooSlow);
        }
        office.look(now_ms, config.lease_ms, &effective, partition);
        office.beat(now_ms, config.lease_ms, around, partition);
        let handover = office.handover.as_mut().filter(|_| is_answered);
        partition.set_paused(handover.is_some() && !SeededBug::HandoverWithoutPause.is_on());
        if let Some(handover) = handover {
            handover.paused_since_ms.get_or_insert(now_ms);
        }
        if can_ask {
            self.consider_change(now_ms, around, partition);
        }
        partition.name_copies(others(&self.effective(), partition.copy()));
        if let Some(config) = self.config() {
            partition.set_copy_counts(config.in_sync.len(), around.min_in_sync);
        }
    }

    /// Whether etcd has answered since a hand-over was to begin; if not, it is asked.
    fn is_handover_answered(&mut self, now_ms: u64) -> bool {
        let Stage::Office(office) = &self.stage else {
            return false;
        };
        let handover = office.handover.as_ref();
        let Some(handover) = handover.filter(|own| own.paused_since_ms.is_none()) else {
            return true;
        };
        self.has_read_since(handover.answered_since_ms, now_ms)
    }

    /// Goes on with the hand-over that is under way: asks etcd to name the other copy, once that
    /// has everything.
    fn go_on_handing_over(&mut self, around: &Surroundings<'_>, partition: &mut Partition) {
        let (Stage::Office(office), Some(Known { config, .. })) = (&self.stage, &self.known) else {
            return;
        };
        let Some(handover) = &office.handover else {
            return;
        };
        let to = handover.to.clone();
        if !config.is_in_sync(to.copy) {
            // A change that was asked for before has taken it out of the set.
            if !handover.is_in_doubt {
                partition.set_paused(false);
                self.end_handover(HandoverEnd::Superseded);
            }
            return;
        }
        if office.can_name(handover, partition) {
            // All is on the other copies, too. One that is about to stop, or has a disk that
            // confirms nothing, would hold up writes.
            let (own, is_unfit) = (partition.copy(), office.own_disk.trouble().is_some());
            let stays = |of: &&CopyOfNode| !(around.is_draining || is_unfit) || of.copy != own;
            let proposal = PartitionConfig {
                epoch: epoch_above(config.epoch.max(partition.roles().meta().epoch), 1),
                leader: to.node,
                handed_over: true,
                // What this node was started with last is in force with the next epoch.
                lease_ms: around.lease_ms,
                in_sync: config.in_sync.iter().filter(stays).cloned().collect(),
                ..config.clone()
            };
            self.ask(Change::HandOver, proposal);
        }
    }

    /// Asks for a change of the configuration, if one is due.
    fn consider_change(
        &mut self,
        now_ms: u64,
        around: &Surroundings<'_>,
        partition: &mut Partition,
    ) {
        let is_handing_over =
            matches!(&self.stage, Stage::Office(office) if office.handover.is_some());
        if is_handing_over {
            return self.go_on_handing_over(around, partition);
        }
        if self.consider_giving_up(now_ms, partition) {
            return;
        }
        // Where etcd went back, nodes that know better are to say so first.
        let is_settled = self.is_settled(now_ms, around);
        let Self {
            stage: Stage::Office(office),
            known: Some(Known { config, .. }),
            ..
        } = self
        else {
            return;
        };
        let heard_since_ms = if is_settled {
            0
        } else {
            around.contact.since_ms
        };
        let mut in_sync = office.staying(now_ms, config, heard_since_ms, partition);
        if in_sync.len() == config.in_sync.len() {
            let joining = office.joining(now_ms, config, around, partition);
            if joining.is_empty() {
                return self.consider_moves(now_ms, around, partition);
            }
            // A node has one copy.
            in_sync.retain(|of| joining.iter().all(|joins| joins.node != of.node));
            in_sync.extend(joining);
        } else if around.contact.answered_at_ms < office.bad_since_ms() {
            // A leader that etcd hears, and that hears nothing itself, would leave all the others
            // out of the set and not learn of it: no node could lead. So etcd is to answer first.
            self.wants_range = true;
            return;
        }
        let proposal = PartitionConfig {
            in_sync,
            ..config.clone()
        };
        self.ask(Change::Set, proposal);
    }

    /// Hands over where this node's disk acknowledges no write, and another copy can lead. Alone in
    /// the set it stays: reads go on.
    fn consider_giving_up(&mut self, now_ms: u64, partition: &mut Partition) -> bool {
        let (Stage::Office(office), Some(known)) = (&mut self.stage, &self.known) else {
            return false;
        };
        let config = &known.config;
        let reason = office.reason_to_go(now_ms, config.lease_ms, self.gave_up_at_ms);
        let Some((trouble, since_ms)) = reason else {
            return false;
        };
        let Some(successor) = office.successor(config, partition) else {
            return false;
        };
        // Reads end with the hand-over: it begins only where etcd answers.
        if !self.has_read_since(since_ms, now_ms) {
            return false;
        }
        self.gave_up_at_ms = Some(now_ms);
        log::warn!(
            "partition {}: the disk of this node {}: {successor} is to lead in its place",
            partition.id(),
            trouble.text()
        );
        self.hand_over(&successor, since_ms, now_ms, partition)
    }

    /// Does what is due for copies that move: one that is to be given up goes once all that stay
    /// are in sync. If it is this one, another node leads first.
    fn consider_moves(
        &mut self,
        now_ms: u64,
        around: &Surroundings<'_>,
        partition: &mut Partition,
    ) {
        let Some(Known { config, .. }) = &self.known else {
            return;
        };
        if config.leaving.is_empty() && config.next_leader.is_none() {
            return;
        }
        let may_leave = config.are_staying_in_sync() || SeededBug::MoveDropsLastInSync.is_on();
        match MoveAction::of(config, around.node, may_leave) {
            Some(MoveAction::HandOver(to)) => {
                let is_rested = matches!(&self.stage, Stage::Office(own) if own.is_rested(now_ms));
                let to = to.or_else(|| self.successor(partition));
                if let Some(to) = to.filter(|_| is_rested) {
                    self.hand_over(&to, now_ms, now_ms, partition);
                }
            }
            Some(MoveAction::Change(proposal)) => self.ask(Change::Set, *proposal),
            None => {}
        }
    }

    pub(super) fn end_handover(&mut self, end: HandoverEnd) {
        if let Stage::Office(office) = &mut self.stage
            && office.handover.take().is_some()
        {
            self.ended_handover = Some(end);
        }
    }
}
