//! One partition of a cluster, on this node: whether it follows, stands, is named, or is in office.
//!
//! The rules are those of `PacificA`, with etcd as the keeper of the configuration. A copy in sync
//! *stands* by asking etcd to name it as the leader in a new epoch; etcd does so only if the
//! configuration is still the one that the copy has read. Once *named* it waits until what it had
//! promised the leader before has lapsed, or learns that this one has stopped; then it takes
//! *office*. In office it changes the set of copies in sync, beats, and hands over.
//!
//! Invariants:
//! 1. Every acknowledged write is on every copy that etcd says is in sync: a write is acknowledged
//!    only if all copies of the *effective set* hold it. Those are the copies in sync of the
//!    configuration that was read last, with all that this node has asked for since, for as long
//!    as it is not known which of the two holds.
//! 2. A copy joins the set with all that was acknowledged, and all that this office began with.
//! 3. The outcome of a request without an answer is known only when the key has another revision
//!    than the one compared, or when a later request of the same kind is answered.
//! 4. Each office has an epoch of its own, also after a restart.
//!
//! Not here: what a leader observes of the other copies (`office.rs`), how and in which order etcd
//! is asked (`etcd/`, `state.rs`), beats, leases and promises (`partition/membership.rs`).

use crate::partition::Partition;
use crate::seeded_bugs::SeededBug;
use crate::storage::Role;

use super::change::{Asked, Change};
use super::config::{CopyOfNode, PartitionConfig};
use super::counts::{ChangeOutcome, MemberCounts};
use super::office::{BEATS_PER_LEASE, HANDOVER_MS, Handover, Office};
use super::rules::{follow, is_named, leave_leader, may_stand, others};
use super::surroundings::Surroundings;

/// Copies that stand at the same time ask etcd a little apart.
const STAND_SPREAD_MS: u64 = 100;

/// A copy that the configuration does not want is kept for so long: an operator may have erred.
const UNWANTED_KEPT_MS: u64 = 60_000;

/// How long a replica's promise lasts for a lease: a quarter longer, for clocks of other rates.
pub(super) fn promise_ms(lease_ms: u64) -> u64 {
    lease_ms + lease_ms / 4
}

/// A configuration with the revision that it has in etcd.
#[derive(Clone, Debug)]
struct Known {
    revision: u64,
    config: PartitionConfig,
    /// When etcd was asked for it.
    asked_at_ms: u64,
}

/// How a hand-over ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandoverEnd {
    /// The other node is named, and takes office.
    Done,
    /// It did not have everything in time; this node goes on.
    TooSlow,
    /// The configuration changed meanwhile; this node goes on, or follows.
    Superseded,
}

#[derive(Debug)]
enum Stage {
    /// It follows, or waits until it may.
    Following,
    /// The configuration names this copy as the leader.
    Named,
    Office(Box<Office>),
}

/// What a partition does, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// No configuration was read yet.
    Unknown,
    /// The configuration is of an epoch that is over: etcd has lost some of its history.
    EtcdWentBack,
    /// It follows the leader.
    Following,
    /// It asks etcd to name it.
    Standing,
    /// It is named, and takes office soon.
    Named,
    /// It leads.
    Open,
    /// It leads, and its lease has ended.
    Fenced,
    /// It leads, and hands over.
    HandingOver,
}

impl MemberState {
    /// A word for it; none: it follows, and the replication connection says more.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Unknown => Some("waiting for etcd"),
            Self::EtcdWentBack => Some("etcd went back"),
            Self::Following => None,
            Self::Standing => Some("standing"),
            Self::Named => Some("named"),
            Self::Open => Some("leading"),
            Self::Fenced => Some("fenced"),
            Self::HandingOver => Some("handing over"),
        }
    }
}

/// One partition of a cluster, on this node.
#[derive(Debug)]
pub struct Member {
    known: Option<Known>,
    stage: Stage,
    asked: Option<Asked>,
    /// What requests with an unknown outcome have asked for, and the revision that they compared.
    doubtful: Vec<CopyOfNode>,
    unsure: Option<u64>,
    /// When this copy is to stand, if the configuration that is read then lets it.
    stand_at_ms: Option<u64>,
    went_back: bool,
    /// The epoch of the partition when etcd was asked for the configuration.
    epoch_at_range: u64,
    /// When etcd was asked for the first configuration of the epoch that was read last.
    epoch_known_ms: u64,
    wants_range: bool,
    /// Nothing is asked for before it was read again.
    is_outdated: bool,
    /// When etcd was last asked for it.
    range_begun_ms: u64,
    ended_handover: Option<HandoverEnd>,
    /// Since when the configuration wants no copy here.
    unwanted_since_ms: Option<u64>,
    counts: MemberCounts,
}

impl Default for Member {
    fn default() -> Self {
        Self {
            known: None,
            stage: Stage::Following,
            asked: None,
            doubtful: Vec::new(),
            unsure: None,
            stand_at_ms: None,
            went_back: false,
            epoch_at_range: 0,
            epoch_known_ms: 0,
            wants_range: true,
            is_outdated: false,
            range_begun_ms: 0,
            ended_handover: None,
            unwanted_since_ms: None,
            counts: MemberCounts::default(),
        }
    }
}

impl Member {
    /// The configuration that was read last.
    pub fn config(&self) -> Option<&PartitionConfig> {
        self.known.as_ref().map(|known| &known.config)
    }

    /// Whether it is in office, as far as it knows.
    pub fn is_in_office(&self) -> bool {
        matches!(self.stage, Stage::Office(_))
    }

    /// Whether it is named, and not in office yet.
    pub(super) fn is_named(&self) -> bool {
        matches!(self.stage, Stage::Named)
    }

    /// What it does.
    pub fn state(&self, partition: &Partition, now_ms: u64) -> MemberState {
        match &self.stage {
            _ if self.went_back => MemberState::EtcdWentBack,
            _ if self.known.is_none() => MemberState::Unknown,
            Stage::Named => MemberState::Named,
            Stage::Following if self.is_standing() => MemberState::Standing,
            Stage::Following => MemberState::Following,
            Stage::Office(office) if office.handover.is_some() => MemberState::HandingOver,
            Stage::Office(_) if now_ms >= partition.lease_end_ms() => MemberState::Fenced,
            Stage::Office(_) => MemberState::Open,
        }
    }

    /// What is counted of it.
    pub fn counts(&self) -> MemberCounts {
        self.counts
    }

    /// Whether the configuration is to be read soon.
    pub(super) fn wants_range(&self) -> bool {
        self.wants_range
    }

    /// How the last hand-over ended, once.
    pub(super) fn take_ended_handover(&mut self) -> Option<HandoverEnd> {
        self.ended_handover.take()
    }

    /// The epoch in which this node's copy may go, if it may: the configuration has not wanted it
    /// for long enough.
    pub(super) fn removal_epoch(&self, now_ms: u64) -> Option<u64> {
        let since_ms = self.unwanted_since_ms?;
        let is_over = now_ms.saturating_sub(since_ms) >= UNWANTED_KEPT_MS;
        self.config().filter(|_| is_over).map(|config| config.epoch)
    }

    /// The copy is gone.
    pub(super) fn on_removed(&mut self) {
        (self.unwanted_since_ms, self.stage) = (None, Stage::Following);
    }

    fn is_standing(&self) -> bool {
        let asked = self.asked.as_ref();
        asked.is_some_and(|asked| asked.change == Change::Stand)
    }

    /// The change to ask etcd for, if it was not asked yet: an outcome follows.
    pub(super) fn take_change(&mut self, now_ms: u64) -> Option<&Asked> {
        let asked = self.asked.as_mut().filter(|asked| !asked.is_sent)?;
        asked.is_sent = true;
        if let Stage::Office(office) = &mut self.stage {
            office.on_asked(asked, now_ms);
        }
        Some(asked)
    }

    /// Whether there is a change to ask for.
    pub(super) fn has_change(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| !asked.is_sent)
    }

    /// Etcd is asked for the configuration now.
    pub(super) fn on_range_begins(&mut self, now_ms: u64, partition: Option<&Partition>) {
        self.range_begun_ms = now_ms;
        self.epoch_at_range = partition.map_or(0, |partition| partition.roles().meta().epoch);
        self.wants_range = false;
    }

    /// The configuration was read: all that was asked before `asked_at_ms` may be in it.
    pub(super) fn on_config(
        &mut self,
        revision: u64,
        config: PartitionConfig,
        asked_at_ms: u64,
        around: &Surroundings<'_>,
        partition: &mut Partition,
    ) {
        let went_back = config.epoch < self.epoch_at_range;
        self.note_history(went_back, config.epoch, partition);
        if went_back {
            return;
        }
        if self.unsure.is_some_and(|compared| compared != revision) {
            self.resolve();
        }
        let known = Known {
            revision,
            config,
            asked_at_ms,
        };
        self.learn(known, around, partition);
    }

    /// The configuration was read, and this node has no such partition.
    pub(super) fn on_config_elsewhere(
        &mut self,
        revision: u64,
        config: PartitionConfig,
        asked_at_ms: u64,
    ) {
        self.known = Some(Known {
            revision,
            config,
            asked_at_ms,
        });
    }

    /// The key is not there.
    pub(super) fn on_config_missing(&mut self, partition: &Partition) {
        let went_back = self.epoch_at_range > 0 || partition.lsm().last_version() > 0;
        self.note_history(went_back, 0, partition);
    }

    /// Whether etcd has lost some of its history: it was emptied, or restored from a backup.
    fn note_history(&mut self, went_back: bool, epoch: u64, partition: &Partition) {
        if went_back && !self.went_back {
            log::error!(
                "partition {}: etcd went back: it has a configuration of epoch {epoch}, and this \
                 copy is of epoch {}: it stands no more; docs/cluster.md says what to do",
                partition.id(),
                self.epoch_at_range
            );
        }
        self.went_back = went_back;
    }

    /// Etcd has answered the change that was asked for: it was made, and has this revision.
    pub(super) fn on_changed(
        &mut self,
        revision: u64,
        now_ms: u64,
        around: &Surroundings<'_>,
        partition: &mut Partition,
    ) {
        let Some(asked) = self.asked.take() else {
            return;
        };
        self.record_change(&asked, ChangeOutcome::Made);
        self.resolve();
        if asked.change == Change::HandOver {
            self.end_handover(HandoverEnd::Done);
        }
        let known = Known {
            revision,
            config: asked.proposal,
            asked_at_ms: now_ms,
        };
        self.learn(known, around, partition);
        if SeededBug::OfficeAtOnce.is_on() && asked.change == Change::Stand {
            self.take_office(around, partition);
        }
    }

    /// Etcd has answered that the configuration was another one: this change was not made. An
    /// earlier one may have been, so what was asked for stays in doubt until that one is read.
    pub(super) fn on_not_changed(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.record_change(&asked, ChangeOutcome::Refused);
            self.unsure = Some(asked.revision);
        }
        (self.wants_range, self.is_outdated) = (true, true);
    }

    /// No answer came: the change may have been made, or may still be.
    pub(super) fn on_unknown(&mut self) {
        let Some(asked) = self.asked.take() else {
            return;
        };
        self.record_change(&asked, ChangeOutcome::Unknown);
        (self.wants_range, self.is_outdated) = (true, true);
        if SeededBug::TimeoutTakenForNo.is_on() {
            return self.resolve();
        }
        self.unsure = Some(asked.revision);
        self.doubtful.extend(asked.proposal.in_sync);
        if SeededBug::ServesAfterResign.is_on() && asked.change == Change::HandOver {
            self.end_handover(HandoverEnd::Superseded);
        }
    }

    fn record_change(&mut self, asked: &Asked, outcome: ChangeOutcome) {
        if asked.change == Change::Set {
            let config = self.known.as_ref().map(|known| &known.config);
            self.counts.record_change(config, &asked.proposal, outcome);
        }
    }

    /// It is known what etcd holds.
    fn resolve(&mut self) {
        self.unsure = None;
        self.doubtful.clear();
    }

    fn end_handover(&mut self, end: HandoverEnd) {
        if let Stage::Office(office) = &mut self.stage
            && office.handover.take().is_some()
        {
            self.ended_handover = Some(end);
        }
    }

    fn learn(&mut self, known: Known, around: &Surroundings<'_>, partition: &mut Partition) {
        self.is_outdated = false;
        let config = &known.config;
        if self.config().is_none_or(|own| own.epoch != config.epoch) {
            self.epoch_known_ms = known.asked_at_ms;
        }
        if let Some(asked) = &self.asked
            && asked.revision != known.revision
            && !asked.is_sent
        {
            self.asked = None;
        }
        match &mut self.stage {
            Stage::Office(office) if config.epoch > office.epoch => self.stage = Stage::Following,
            Stage::Office(office) => {
                // The outcome of a hand-over is known, and this node still leads.
                let is_known = self.unsure.is_none() && self.asked.is_none();
                if office.handover.as_ref().is_some_and(|to| to.is_in_doubt) && is_known {
                    office.handover = None;
                    self.ended_handover = Some(HandoverEnd::Superseded);
                }
            }
            Stage::Following | Stage::Named => {}
        }
        if !self.is_in_office() {
            let is_named = is_named(config, around.node, partition);
            self.stage = if is_named {
                Stage::Named
            } else {
                Stage::Following
            };
            let is_same = |own: &Known| own.revision == known.revision;
            let is_news = !self.known.as_ref().is_some_and(is_same);
            if is_named && is_news && SeededBug::OfficeWithoutHandover.is_on() {
                self.known = Some(known);
                return self.take_office(around, partition);
            }
        }
        self.known = Some(known);
    }

    /// The copies that have to hold a write: those in sync as was read last, with those that were
    /// asked for.
    fn effective(&self) -> Vec<CopyOfNode> {
        let mut effective = Vec::new();
        let asked = self.asked.as_ref().map(|asked| &asked.proposal.in_sync);
        if SeededBug::ShrunkBeforeAnswer.is_on()
            && let Some(asked) = asked
        {
            return asked.clone();
        }
        let asked = asked.filter(|_| !SeededBug::GrownAfterAnswer.is_on());
        let known = self.config().map(|config| &config.in_sync);
        let doubtful = &self.doubtful;
        for of in known.into_iter().chain(asked).chain([doubtful]).flatten() {
            if !effective.contains(of) {
                effective.push(of.clone());
            }
        }
        effective
    }

    /// Does what is due. `now_ms` was read after all that this node has taken in so far.
    pub(super) fn step(
        &mut self,
        now_ms: u64,
        around: &Surroundings<'_>,
        partition: &mut Partition,
    ) {
        partition.note_promise(now_ms);
        // What was not sent yet is thought over.
        if self.has_change() {
            self.asked = None;
        }
        if self.is_in_office() && partition.roles().role() != Role::Leader {
            // It has heard of a higher epoch.
            self.stage = Stage::Following;
            self.wants_range = true;
        }
        if self.known.is_none() {
            return;
        }
        match self.stage {
            // It goes on granting the leader that it follows.
            Stage::Following | Stage::Named if self.went_back => {}
            Stage::Following => self.step_following(now_ms, around, partition),
            Stage::Named => self.step_named(now_ms, around, partition),
            Stage::Office(_) => {}
        }
        if self.is_in_office() {
            self.step_office(now_ms, around, partition);
        }
    }

    /// When there is something to do although nothing happens.
    pub(super) fn wake_at_ms(&self, now_ms: u64, lease_ms: u64) -> u64 {
        let soon = now_ms + (lease_ms / BEATS_PER_LEASE).max(1);
        match &self.stage {
            Stage::Office(office) if office.handover.is_some() => now_ms + 1,
            Stage::Office(office) => soon.min(office.next_beat_ms),
            Stage::Named => now_ms + 5,
            Stage::Following => soon.min(self.stand_at_ms.unwrap_or(u64::MAX).max(now_ms + 1)),
        }
    }

    fn step_following(
        &mut self,
        now_ms: u64,
        around: &Surroundings<'_>,
        partition: &mut Partition,
    ) {
        let Some(Known { config, .. }) = &self.known else {
            return;
        };
        let is_own = config.leader == around.node;
        let is_wanted =
            is_own || config.has_replica(around.node) || config.is_in_sync(partition.copy());
        if !is_wanted {
            partition.grant_in(None, 0);
            self.unwanted_since_ms.get_or_insert(now_ms);
            return leave_leader(config, partition);
        }
        self.unwanted_since_ms = None;
        if !is_own {
            follow(config, around, partition);
        }
        let grants = !is_own && !self.is_standing() && !around.is_draining;
        let granted_ms = if SeededBug::GraceOfOwnOption.is_on() {
            around.lease_ms
        } else {
            config.lease_ms
        };
        partition.grant_in(grants.then_some(config.epoch), promise_ms(granted_ms));
        self.consider_standing(now_ms, around, partition);
    }

    /// Stands if it may, once the configuration was read anew.
    fn consider_standing(
        &mut self,
        now_ms: u64,
        around: &Surroundings<'_>,
        partition: &mut Partition,
    ) {
        let Some(known) = &self.known else { return };
        let config = &known.config;
        let is_own = config.leader == around.node;
        let is_first = is_own && config.epoch == 0;
        let may = is_first || may_stand(config, partition.copy());
        // A new leader has as long to be heard as one that falls silent: a leader that has handed
        // over has promised nothing for a long time.
        let new_until_ms = self.epoch_known_ms + promise_ms(config.lease_ms);
        let is_due = is_own || now_ms >= partition.promised_until_ms().max(new_until_ms);
        let can = may && is_due && partition.is_fit_to_lead() && !around.is_draining;
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
        let spread_ms = if is_own {
            0
        } else {
            around.random % STAND_SPREAD_MS
        };
        let stand_at_ms = *self.stand_at_ms.get_or_insert(now_ms + spread_ms);
        if now_ms < stand_at_ms {
            return;
        }
        if known.asked_at_ms < stand_at_ms {
            self.wants_range |= self.range_begun_ms < stand_at_ms;
            return;
        }
        self.stand_at_ms = None;
        let own = CopyOfNode {
            node: around.node.to_owned(),
            copy: partition.copy(),
        };
        let is_other = |of: &&CopyOfNode| is_own || of.node != config.leader;
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
                epoch + 1
            },
            leader: around.node.to_owned(),
            handed_over: false,
            lease_ms: around.lease_ms,
            in_sync,
            ..config.clone()
        };
        self.counts.on_stand(is_own);
        self.ask(Change::Stand, proposal);
    }

    fn ask(&mut self, change: Change, proposal: PartitionConfig) {
        if let Some(known) = &self.known {
            self.asked = Some(Asked {
                change,
                revision: known.revision,
                proposal,
                is_sent: false,
            });
        }
    }

    fn step_named(&mut self, now_ms: u64, around: &Surroundings<'_>, partition: &mut Partition) {
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

    /// Leads from the moment when that is durable.
    fn take_office(&mut self, around: &Surroundings<'_>, partition: &mut Partition) {
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
        self.counts.record_takeover(config.handed_over);
        self.stand_at_ms = None;
        let begun_version = partition.lsm().last_version();
        self.stage = Stage::Office(Box::new(Office::new(epoch, begun_version)));
    }

    /// Begins to hand over to a copy in sync; false if that cannot be.
    pub(super) fn hand_over(&mut self, to: &str, now_ms: u64, partition: &mut Partition) -> bool {
        let Some(Known { config, .. }) = &self.known else {
            return false;
        };
        let to = config.in_sync.iter().find(|of| of.node == to).cloned();
        let (Some(to), Stage::Office(office)) = (to, &mut self.stage) else {
            return false;
        };
        if self.went_back || office.handover.is_some() || to.copy == partition.copy() {
            return false;
        }
        office.handover = Some(Handover {
            to,
            begun_at_ms: now_ms,
            is_in_doubt: false,
        });
        self.ended_handover = None;
        if !SeededBug::HandoverWithoutPause.is_on() {
            partition.set_paused(true);
        }
        true
    }

    /// The copy in sync that is furthest, to hand over to.
    pub(super) fn successor(&self, partition: &Partition) -> Option<String> {
        let config = self.config()?;
        let furthest = partition
            .copy_facts()
            .filter_map(|facts| Some((facts, config.staying_node_of(facts.copy)?)))
            .filter(|(facts, _)| facts.follows_log)
            .max_by_key(|(facts, _)| facts.durable_version)?;
        Some(furthest.1.to_owned())
    }

    fn step_office(&mut self, now_ms: u64, around: &Surroundings<'_>, partition: &mut Partition) {
        let effective = self.effective();
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
        counts.record_lease(now_ms, partition.lease_end_ms());
        let can_ask = !self.went_back && self.asked.is_none() && !self.is_outdated;
        // Nothing can be handed over where etcd is asked nothing; one in doubt stays so.
        let is_over = |handover: &mut Handover| self.went_back && !handover.is_in_doubt;
        if office.handover.take_if(is_over).is_some() {
            self.ended_handover = Some(HandoverEnd::Superseded);
        }
        office.look(now_ms, config.lease_ms, &effective, partition);
        office.beat(now_ms, config.lease_ms, around, partition);
        let is_paused = office.handover.is_some() && !SeededBug::HandoverWithoutPause.is_on();
        partition.set_paused(is_paused);
        if can_ask {
            self.consider_change(now_ms, around, partition);
        }
        partition.name_copies(others(&self.effective(), partition.copy()));
        if let Some(config) = self.config() {
            partition.set_copy_counts(config.in_sync.len(), around.min_in_sync);
        }
    }

    /// Asks for a change of the configuration, if one is due.
    fn consider_change(
        &mut self,
        now_ms: u64,
        around: &Surroundings<'_>,
        partition: &mut Partition,
    ) {
        let Self {
            stage: Stage::Office(office),
            known: Some(Known { config, .. }),
            ..
        } = self
        else {
            return;
        };
        if let Some(handover) = &office.handover {
            let to = handover.to.clone();
            if !config.is_in_sync(to.copy) {
                // A change that was asked for before has taken it out of the set.
                if !handover.is_in_doubt {
                    partition.set_paused(false);
                    self.end_handover(HandoverEnd::Superseded);
                }
                return;
            }
            if handover.is_in_doubt || handover.is_ready(partition) {
                // All is on the other copies, too. One that is about to stop would hold up writes.
                let own = partition.copy();
                let stays = |of: &&CopyOfNode| !around.is_draining || of.copy != own;
                let proposal = PartitionConfig {
                    epoch: config.epoch.max(partition.roles().meta().epoch) + 1,
                    leader: to.node,
                    handed_over: true,
                    in_sync: config.in_sync.iter().filter(stays).cloned().collect(),
                    ..config.clone()
                };
                return self.ask(Change::HandOver, proposal);
            }
            if now_ms - handover.begun_at_ms < HANDOVER_MS {
                return;
            }
            partition.set_paused(false);
            return self.end_handover(HandoverEnd::TooSlow);
        }
        let (own, lease_ms) = (partition.copy(), config.lease_ms);
        let leaves = |of: &&CopyOfNode| {
            of.copy != own && office.is_bad(of.copy, now_ms, lease_ms, partition)
        };
        let mut in_sync = config.in_sync.clone();
        in_sync.retain(|of| !leaves(&of));
        if in_sync.len() == config.in_sync.len() {
            let joining = office.joining(now_ms, config, around, partition);
            if joining.is_empty() {
                return self.consider_leaving(now_ms, around, partition);
            }
            // A node has one copy.
            in_sync.retain(|of| joining.iter().all(|joins| joins.node != of.node));
            in_sync.extend(joining);
        }
        let proposal = PartitionConfig {
            in_sync,
            ..config.clone()
        };
        self.ask(Change::Set, proposal);
    }

    /// A copy that is to be given up goes once all that stay are in sync. If it is this one,
    /// another node leads first.
    fn consider_leaving(
        &mut self,
        now_ms: u64,
        around: &Surroundings<'_>,
        partition: &mut Partition,
    ) {
        let Some(Known { config, .. }) = &self.known else {
            return;
        };
        let Some(leaving) = config.leaving.first().cloned() else {
            return;
        };
        if !config.are_staying_in_sync() && !SeededBug::MoveDropsLastInSync.is_on() {
            return;
        }
        if leaving == around.node {
            let successor = self.successor(partition);
            if let Some(successor) = successor {
                self.hand_over(&successor, now_ms, partition);
            }
            return;
        }
        let mut proposal = config.clone();
        proposal.in_sync.retain(|of| of.node != leaving);
        proposal.replicas.retain(|name| *name != leaving);
        proposal.leaving.retain(|name| *name != leaving);
        self.ask(Change::Set, proposal);
    }
}
