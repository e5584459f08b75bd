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
//! Here is what a member knows, and what becomes of it with each answer of etcd. Not here: what it
//! does about it (`standing.rs`, `leading.rs`), whether etcd is believed (`history.rs`), what a
//! leader observes of the other copies (`office.rs`), how and in which order etcd is asked
//! (`etcd/`, `state.rs`), beats, leases and promises (`partition/membership.rs`).

use crate::partition::Partition;
use crate::seeded_bugs::SeededBug;
use crate::storage::Role;

use super::change::{Asked, Change};
use super::config::{CopyOfNode, PartitionConfig};
use super::counts::{ChangeOutcome, MemberCounts};
use super::history::{History, Known};
use super::office::{BEATS_PER_LEASE, Office};
use super::rules::is_named;
use super::surroundings::Surroundings;

/// A copy that the configuration does not want is kept for so long: an operator may have erred.
const UNWANTED_KEPT_MS: u64 = 60_000;

/// How long a replica's promise lasts for a lease: a quarter longer, for clocks of other rates.
pub(super) fn promise_ms(lease_ms: u64) -> u64 {
    lease_ms + lease_ms / 4
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
pub(super) enum Stage {
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
    /// The configuration cannot be read.
    Unreadable,
    /// Its data is a copy of that of another node.
    Copied,
    /// The configuration has no copy on this node any more.
    Unwanted,
    /// All copies in sync are gone for good.
    AllLost,
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
            Self::Unreadable => Some("configuration unreadable"),
            Self::Copied => Some("copied data"),
            Self::Unwanted => Some("not wanted"),
            Self::AllLost => Some("all copies lost"),
            Self::Following => None,
            Self::Standing => Some("standing"),
            Self::Named => Some("named"),
            Self::Open => Some("leading"),
            Self::Fenced => Some("fenced"),
            Self::HandingOver => Some("handing over"),
        }
    }
}

/// Requests with an unknown outcome.
#[derive(Debug, Default)]
struct Unsure {
    /// The revision that the last of them compared.
    compared: Option<u64>,
    /// The copies in sync that they have asked for.
    in_sync: Vec<CopyOfNode>,
}

/// One partition of a cluster, on this node.
#[derive(Debug)]
pub struct Member {
    pub(super) known: Option<Known>,
    pub(super) stage: Stage,
    pub(super) asked: Option<Asked>,
    unsure: Unsure,
    /// When this copy is to stand, if the configuration that is read then lets it.
    pub(super) stand_at_ms: Option<u64>,
    history: History,
    /// When etcd was asked for the first configuration of the epoch that was read last.
    pub(super) epoch_known_ms: u64,
    pub(super) wants_range: bool,
    /// Nothing is asked for before it was read again.
    pub(super) is_outdated: bool,
    /// When etcd was last asked for it.
    pub(super) range_begun_ms: u64,
    pub(super) ended_handover: Option<HandoverEnd>,
    /// Since when the configuration wants no copy here.
    pub(super) unwanted_since_ms: Option<u64>,
    /// All copies in sync are gone for good: the revision of the configuration with which that was
    /// read last, and when it was found first.
    pub(super) lost: Option<(u64, u64)>,
    /// Another node has registered the copy that is here.
    pub(super) is_copied: bool,
    /// When this node last began to hand over because its disk acknowledged nothing.
    pub(super) gave_up_at_ms: Option<u64>,
    pub(super) counts: MemberCounts,
}

impl Default for Member {
    fn default() -> Self {
        Self {
            known: None,
            stage: Stage::Following,
            asked: None,
            unsure: Unsure::default(),
            stand_at_ms: None,
            history: History::default(),
            epoch_known_ms: 0,
            wants_range: true,
            is_outdated: false,
            range_begun_ms: 0,
            ended_handover: None,
            unwanted_since_ms: None,
            lost: None,
            is_copied: false,
            gave_up_at_ms: None,
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
            _ if self.went_back() => MemberState::EtcdWentBack,
            _ if self.known.is_none() => MemberState::Unknown,
            Stage::Named => MemberState::Named,
            Stage::Following if self.is_standing() => MemberState::Standing,
            Stage::Following if self.is_copied => MemberState::Copied,
            Stage::Following if self.unwanted_since_ms.is_some() => MemberState::Unwanted,
            Stage::Following if self.is_lost() => MemberState::AllLost,
            Stage::Following => MemberState::Following,
            Stage::Office(office) if office.is_ending() => MemberState::HandingOver,
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
        let over_at_ms = self.unwanted_since_ms? + UNWANTED_KEPT_MS;
        let known = self.known.as_ref()?;
        // It is read after that time, too: an operator may have named this copy since.
        let is_over = now_ms >= over_at_ms && known.asked_at_ms >= over_at_ms;
        let is_sure = is_over && !self.is_outdated && !self.went_back();
        is_sure.then_some(known.config.epoch)
    }

    /// The copy is gone.
    pub(super) fn on_removed(&mut self) {
        (self.unwanted_since_ms, self.stage) = (None, Stage::Following);
    }

    pub(super) fn is_standing(&self) -> bool {
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
        self.history.on_range_begins(partition);
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
        let read = Known {
            revision,
            config,
            asked_at_ms,
        };
        let has_strangers = self.is_in_office() && {
            let effective = self.effective();
            let mut in_sync = read.config.in_sync.iter();
            in_sync.any(|of| !effective.contains(of))
        };
        let (history, known) = (&mut self.history, self.known.as_ref());
        if !history.believes(&read, known, has_strangers, around, partition) {
            self.asked.take_if(|asked| !asked.is_sent);
            return;
        }
        let compared = self.unsure.compared;
        if compared.is_some_and(|compared| compared != revision) {
            self.resolve();
        }
        self.learn(read, around, partition);
    }

    /// The key of the configuration is not there.
    pub(super) fn on_config_missing(&mut self, partition: &Partition) {
        self.history
            .on_config_missing(self.known.as_ref(), partition);
    }

    /// Etcd was restored, or made anew, and has this configuration.
    pub(super) fn on_other_etcd(&mut self, config: &PartitionConfig) {
        self.history.on_other_etcd(self.known.as_ref(), config);
    }

    /// Whether etcd has lost some of its history (`history.rs`).
    pub(super) fn went_back(&self) -> bool {
        self.history.went_back()
    }

    /// The newest epoch that was known when etcd was found to have lost something; 0: it was not.
    pub(super) fn doubted_epoch(&self) -> u64 {
        self.history.doubted_epoch()
    }

    /// The configuration cannot be read: nothing is asked for before it can.
    pub(super) fn on_config_unreadable(&mut self) {
        self.is_outdated = true;
    }

    /// Whether the configuration was asked for at this time or later; if not, it is once that has
    /// come.
    pub(super) fn has_read_since(&mut self, at_ms: u64, now_ms: u64) -> bool {
        let known = self.known.as_ref();
        let is_read = known.is_some_and(|known| known.asked_at_ms >= at_ms);
        self.wants_range |= !is_read && now_ms >= at_ms && self.range_begun_ms < at_ms;
        is_read
    }

    /// Whether the configuration was read once all nodes that reach etcd had read it; if not, it is
    /// read again when they have.
    pub(super) fn is_settled(&mut self, now_ms: u64, around: &Surroundings<'_>) -> bool {
        self.has_read_since(around.contact.settled_at_ms(), now_ms)
    }

    /// The configuration of this revision was read, and with it which copies are registered.
    pub(super) fn on_registered(
        &mut self,
        revision: u64,
        is_lost: bool,
        asked_at_ms: u64,
        partition_id: u32,
    ) {
        if is_lost && self.lost.is_none() {
            log::error!(
                "partition {partition_id}: all copies in sync are gone for good; docs/cluster.md \
                 says what follows"
            );
        }
        let since_ms = self.lost.map_or(asked_at_ms, |(_, since_ms)| since_ms);
        self.lost = is_lost.then_some((revision, since_ms));
    }

    /// Whether all copies in sync are gone for good.
    pub(super) fn is_lost(&self) -> bool {
        let known = self.known.as_ref();
        let lost_revision = self.lost.map(|(revision, _)| revision);
        known.is_some_and(|known| lost_revision == Some(known.revision))
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
            self.unsure.compared = Some(asked.revision);
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
        self.unsure.compared = Some(asked.revision);
        self.unsure.in_sync.extend(asked.proposal.in_sync);
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
        self.unsure = Unsure::default();
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
                let is_known = self.unsure.compared.is_none() && self.asked.is_none();
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
    pub(super) fn effective(&self) -> Vec<CopyOfNode> {
        let mut effective = Vec::new();
        let asked = self.asked.as_ref().map(|asked| &asked.proposal.in_sync);
        if SeededBug::ShrunkBeforeAnswer.is_on()
            && let Some(asked) = asked
        {
            return asked.clone();
        }
        let asked = asked.filter(|_| !SeededBug::GrownAfterAnswer.is_on());
        let known = self.config().map(|config| &config.in_sync);
        let doubtful = &self.unsure.in_sync;
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
            Stage::Following | Stage::Named if self.went_back() => {}
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

    pub(super) fn ask(&mut self, change: Change, proposal: PartitionConfig) {
        // With no copy in sync none could ever lead.
        if let Some(known) = self.known.as_ref().filter(|_| !proposal.in_sync.is_empty()) {
            self.asked = Some(Asked {
                change,
                revision: known.revision,
                proposal,
                is_sent: false,
            });
        }
    }
}
