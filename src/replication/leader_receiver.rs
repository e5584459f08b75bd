//! The replica's end of a link: what it asks of a leader, what it accepts, what it confirms. A node
//! that takes over visits other nodes with the same dialogue (`partition/visits.rs`).
//!
//! Invariants:
//! 1. What is applied continues the history without a gap ([`RecordReader`]), and of a batch of
//!    writes all or nothing.
//! 2. A snapshot replaces the data only when it is whole, and only if nothing is lost by that or a
//!    higher epoch than that of the data orders it. An empty leader never replaces anything.
//! 3. What is confirmed is applied.
//! 4. A turn's work is bounded: the caller passes bounded input, and a frame costs no more than its
//!    length.
//!
//! Not here: what the partition does with data and role (`partition/following.rs`), dialing
//! (`reactor/`).

use crate::lsm::{LogBatch, Lsm, Options, RecordReader, StreamRecord};
use crate::seeded_bugs::SeededBug;
use crate::storage::{CheckpointDecoder, CodecStep, FormatError, Lineage, PartitionMeta};

use super::frame::{
    Ack, Continue, DATA_MAX_BYTES, Frame, FrameReader, Hello, Intent, PROTOCOL_MIN,
    PROTOCOL_OF_BEATS, PeerState, RefusalCode, SnapshotStart,
};
use super::link_error::LinkError;
use super::link_id::LinkId;
use super::relation::{Relation, is_data_sent_to_surveyor, is_prefix, relation};
use super::timing::{HEARTBEAT_MS, SILENCE_MS};

/// Most bytes of one batch of writes: more than a leader of this version takes at once, whatever it
/// is set to.
const BATCH_MAX_BYTES: usize = 64 * 1024 * 1024;

/// How far a replica is behind its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncState {
    /// It has not caught up with its leader yet.
    Behind,
    /// It has had all that the leader had at the time, and follows.
    InSync,
    /// It holds data that its leader lacks: an operator must say which of the two is kept.
    Parted,
}

/// Which leaders that began empty a replica with data follows: its data is dropped then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptyLeaders {
    /// None: the leader may have lost the data.
    #[default]
    None,
    /// Those that know a history of the data: they have followed it, or what it follows.
    Related,
    /// All.
    All,
}

/// The data that a leader sent as a snapshot.
#[derive(Debug)]
pub struct ReceivedData {
    /// The engine.
    pub lsm: Lsm,
    /// The leader's epoch.
    pub epoch: u64,
    /// The lineage of the data.
    pub lineage: Lineage,
}

/// What a frame has brought.
#[derive(Debug)]
pub enum ReceiverEvent {
    /// The log goes on in this epoch, as this lineage.
    LogContinues {
        /// The leader's epoch.
        epoch: u64,
        /// Its lineage.
        lineage: Lineage,
    },
    /// A snapshot begins.
    SnapshotBegins {
        /// The version it is complete up to.
        version: u64,
        /// About how many bytes it has.
        about_bytes: u64,
    },
    /// The snapshot is whole.
    SnapshotReceived(Box<ReceivedData>),
    /// The leader's clock shows this time, in Unix ms.
    Heartbeat {
        /// By the leader's clock.
        time_ms: u64,
    },
    /// The leader asks for a grant of this beat: [`LeaderReceiver::grant`].
    Beat {
        /// Of the beat.
        number: u64,
    },
    /// The peer has sent its state: [`LeaderReceiver::peer`].
    PeerState,
    /// Data that has been dealt with.
    Data,
}

/// What a partition knows of its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiverFacts {
    /// What the link is doing, as users see it.
    pub state_name: &'static str,
    /// The protocol that this side offered; the peer may speak a lower one.
    pub protocol: u16,
    /// Whether all that is wanted of the peer's data is here.
    pub has_all: bool,
    /// The leader's newest version, as last heard.
    pub leader_version: Option<u64>,
    /// The epoch of the leader's data, once it has answered.
    pub leader_epoch: Option<u64>,
    /// When the peer was last heard.
    pub heard_at_ms: u64,
}

/// What is being received.
#[derive(Debug)]
enum ReceiverState {
    /// The hello is sent.
    Answer,
    /// The peer holds no data that is wanted: only claims are made to it.
    ClaimsOnly,
    Snapshot {
        start: SnapshotStart,
        decoder: Box<CheckpointDecoder>,
        /// The beginning of what the decoder wants next.
        pending: Vec<u8>,
    },
    Log(LogTail),
}

/// The log as it comes.
#[derive(Debug)]
struct LogTail {
    reader: RecordReader,
    /// Records of a batch that is not whole yet.
    held: LogBatch,
}

/// The claim made last.
#[derive(Debug)]
struct ClaimState {
    /// Its epoch; the state that the peer sends after it is the answer.
    epoch: Option<u64>,
    has_answer: bool,
    /// The claim, if it is to be sent next.
    unsent: Option<PeerState>,
}

/// The replica's end of a link.
#[derive(Debug)]
pub struct LeaderReceiver {
    pub(crate) link: LinkId,
    /// The partition that data is received for.
    pub(crate) partition: u32,
    reader: FrameReader,
    receiving: ReceiverState,
    intent: Intent,
    /// The protocol that this side offered; the peer may speak a lower one.
    pub(crate) protocol: u16,
    /// The state that the peer sent last.
    pub(crate) peer: Option<PeerState>,
    claim: ClaimState,
    /// The number of the beat to be granted next.
    unsent_grant: Option<u64>,
    /// Why the peer has refused.
    pub(crate) refusal: Option<RefusalCode>,
    /// The leader's newest version, as last heard; none behind a snapshot until the leader says.
    leader_version: Option<u64>,
    /// The epoch of the leader's data, once it has answered.
    pub(crate) leader_epoch: Option<u64>,
    pub(crate) sync: SyncState,
    /// Which leaders that began empty are followed all the same.
    pub(crate) empty_leaders: EmptyLeaders,
    heard_at_ms: u64,
    /// The last acknowledgement that was sent, and when.
    acked: (Ack, u64),
}

impl LeaderReceiver {
    /// Begins a link by saying hello, with the state of this node.
    pub fn handshake(
        link: LinkId,
        hello: Hello<'_>,
        state: PeerState,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Self {
        Frame::Hello(hello).encode(out);
        let (protocol, intent) = (hello.protocol_version, state.intent);
        let claimed_epoch =
            matches!(intent, Intent::Claim | Intent::OrderedClaim).then_some(state.epoch);
        if protocol > PROTOCOL_MIN {
            Frame::PeerState(state).encode(out);
        }
        Self {
            link,
            partition: hello.partition,
            reader: FrameReader::new(DATA_MAX_BYTES),
            receiving: ReceiverState::Answer,
            intent,
            protocol,
            peer: None,
            claim: ClaimState {
                epoch: claimed_epoch,
                has_answer: false,
                unsent: None,
            },
            unsent_grant: None,
            refusal: None,
            leader_version: None,
            leader_epoch: None,
            sync: SyncState::Behind,
            empty_leaders: EmptyLeaders::default(),
            heard_at_ms: now_ms,
            acked: (Ack::default(), now_ms),
        }
    }

    /// What the partition keeps of the receiver.
    pub fn facts(&self) -> ReceiverFacts {
        ReceiverFacts {
            state_name: self.state_name(),
            protocol: self.protocol,
            has_all: self.has_all(),
            leader_version: self.leader_version,
            leader_epoch: self.leader_epoch,
            heard_at_ms: self.heard_at_ms,
        }
    }

    /// Whether all that is wanted of the peer's data is here.
    pub fn has_all(&self) -> bool {
        match self.receiving {
            ReceiverState::ClaimsOnly => true,
            ReceiverState::Log(_) => self.sync == SyncState::InSync,
            ReceiverState::Answer | ReceiverState::Snapshot { .. } => false,
        }
    }

    /// Whether more of the peer's data comes by itself.
    pub fn receives_data(&self) -> bool {
        !matches!(self.receiving, ReceiverState::ClaimsOnly)
    }

    /// Makes a claim, once for each epoch.
    pub fn claim(&mut self, state: PeerState) {
        if self.claim.epoch != Some(state.epoch) {
            self.claim = ClaimState {
                epoch: Some(state.epoch),
                has_answer: false,
                unsent: Some(state),
            };
        }
    }

    /// The peer's answer to the claim to this epoch, if it has answered. An answer to an earlier
    /// claim says nothing about this one.
    pub fn answer_to(&self, epoch: u64) -> Option<&PeerState> {
        let is_answered = self.claim.has_answer && self.claim.epoch == Some(epoch);
        self.peer.as_ref().filter(|_| is_answered)
    }

    /// Grants a beat of the leader. Of beats that are granted before the next bytes are sent only
    /// the newest is.
    pub fn grant(&mut self, number: u64) {
        self.unsent_grant = self.unsent_grant.max(Some(number));
    }

    /// Whether there is something to send that waits for no time.
    pub fn has_more(&self) -> bool {
        self.unsent_grant.is_some()
    }

    fn state_name(&self) -> &'static str {
        match (&self.receiving, self.sync) {
            (ReceiverState::Answer, _) => "connecting",
            (ReceiverState::ClaimsOnly, _) => "claiming",
            (ReceiverState::Snapshot { .. }, _) => "snapshot",
            (ReceiverState::Log(_), SyncState::Behind | SyncState::Parted) => "catching up",
            (ReceiverState::Log(_), SyncState::InSync) => "in sync",
        }
    }

    /// Takes in the next frame of `input`, or as much of it as there is. None: all was taken.
    /// `options`: of the engine that a snapshot makes.
    pub fn receive(
        &mut self,
        input: &mut &[u8],
        (lsm, meta): (&mut Lsm, &PartitionMeta),
        options: Options,
        now_ms: u64,
    ) -> Result<Option<ReceiverEvent>, LinkError> {
        let Some(frame) = self.reader.next(input)? else {
            return Ok(None);
        };
        self.heard_at_ms = now_ms;
        let event = match (frame, &mut self.receiving) {
            (Frame::Refusal(refusal), _) => {
                let (code, text) = (refusal.code, printable(refusal.text));
                return Err(self.on_refusal(code, text));
            }
            (Frame::PeerState(peer), _) => self.on_peer_state(peer, meta, lsm.last_version()),
            (Frame::Continue(answer), ReceiverState::Answer) => {
                self.on_continue(answer, meta, lsm)?
            }
            (Frame::SnapshotStart(start), ReceiverState::Answer) => {
                self.on_snapshot_start(start, meta, lsm.last_version())?
            }
            (
                Frame::SnapshotData(data),
                ReceiverState::Snapshot {
                    decoder, pending, ..
                },
            ) => {
                if !decode(data, decoder, pending)? {
                    return Ok(Some(ReceiverEvent::Data));
                }
                let received = self.finish_snapshot(options)?;
                self.receiving = ReceiverState::Log(LogTail::new(&received.lsm));
                ReceiverEvent::SnapshotReceived(Box::new(received))
            }
            (Frame::Records(data), ReceiverState::Log(tail)) => {
                tail.apply(data, lsm)?;
                self.leader_version = self
                    .leader_version
                    .map(|version| version.max(lsm.last_version()));
                ReceiverEvent::Data
            }
            (Frame::Heartbeat(heartbeat), _) => {
                self.leader_version = Some(heartbeat.last_version);
                let time_ms = heartbeat.time_ms;
                ReceiverEvent::Heartbeat { time_ms }
            }
            (Frame::Beat(number), ReceiverState::Snapshot { .. } | ReceiverState::Log(_))
                if self.protocol >= PROTOCOL_OF_BEATS =>
            {
                ReceiverEvent::Beat { number }
            }
            _ => {
                let problem = "the leader sent a frame out of its turn";
                return Err(LinkError::Protocol(problem));
            }
        };
        self.update_sync(lsm.last_version());
        Ok(Some(event))
    }

    /// The replica is in sync once it has all that its leader had at some time.
    fn update_sync(&mut self, last_version: u64) {
        let leader_version = self.leader_version.unwrap_or(u64::MAX);
        if matches!(self.receiving, ReceiverState::Log(_)) && leader_version <= last_version {
            self.sync = SyncState::InSync;
        }
    }

    fn on_refusal(&mut self, code: RefusalCode, text: String) -> LinkError {
        self.refusal = Some(code);
        if code == RefusalCode::Ahead {
            self.sync = SyncState::Parted;
        }
        match code {
            RefusalCode::Token => LinkError::TokenRefused,
            _ => LinkError::Refused(text),
        }
    }

    fn on_continue(
        &mut self,
        answer: Continue,
        meta: &PartitionMeta,
        lsm: &Lsm,
    ) -> Result<ReceiverEvent, LinkError> {
        check_epoch(self.intent, answer.epoch, meta)?;
        check_continue(&answer, meta, lsm.last_version())
            .inspect_err(|_| self.sync = SyncState::Parted)?;
        self.leader_version = Some(answer.last_version);
        self.leader_epoch = Some(answer.epoch);
        self.receiving = ReceiverState::Log(LogTail::new(lsm));
        Ok(ReceiverEvent::LogContinues {
            epoch: answer.epoch,
            lineage: answer.lineage,
        })
    }

    fn on_snapshot_start(
        &mut self,
        start: SnapshotStart,
        meta: &PartitionMeta,
        last_version: u64,
    ) -> Result<ReceiverEvent, LinkError> {
        check_epoch(self.intent, start.epoch, meta)?;
        let ordered_epoch = self.peer.as_ref().map_or(0, |peer| peer.data_ordered_epoch);
        check_snapshot(
            &start,
            ordered_epoch,
            self.empty_leaders,
            (meta, last_version),
        )
        .inspect_err(|_| self.sync = SyncState::Parted)?;
        let event = ReceiverEvent::SnapshotBegins {
            version: start.version,
            about_bytes: start.about_bytes,
        };
        self.receiving = ReceiverState::Snapshot {
            start,
            decoder: Box::default(),
            pending: Vec::new(),
        };
        Ok(event)
    }

    fn on_peer_state(
        &mut self,
        peer: PeerState,
        meta: &PartitionMeta,
        last_version: u64,
    ) -> ReceiverEvent {
        if matches!(self.receiving, ReceiverState::Answer) && self.intent != Intent::Follow {
            let related = relation(
                (&meta.lineage, last_version),
                (&peer.lineage, peer.last_version),
            );
            let (own, its) = (meta.data_ordered_epoch, peer.data_ordered_epoch);
            if self.intent != Intent::Survey || !is_data_sent_to_surveyor(related, own, its) {
                self.receiving = ReceiverState::ClaimsOnly;
            }
        }
        self.claim.has_answer = self.claim.epoch.is_some();
        self.peer = Some(peer);
        ReceiverEvent::PeerState
    }

    fn finish_snapshot(&mut self, options: Options) -> Result<ReceivedData, LinkError> {
        let unexpected = || {
            let problem = "the leader sent a snapshot of something else";
            LinkError::Damaged(problem.to_owned())
        };
        let receiving = std::mem::replace(&mut self.receiving, ReceiverState::Answer);
        let ReceiverState::Snapshot { start, decoder, .. } = receiving else {
            return Err(unexpected());
        };
        let (lsm, header) = decoder.finish(options).ok_or_else(unexpected)?;
        let is_expected =
            header.history == start.lineage.history() && header.position.version == start.version;
        if !is_expected {
            return Err(unexpected());
        }
        self.leader_epoch = Some(start.epoch);
        Ok(ReceivedData {
            lsm,
            epoch: start.epoch,
            lineage: start.lineage,
        })
    }

    /// Appends what is to be said: a claim, a grant, and what is applied and durable here.
    pub fn fill(&mut self, held: Ack, now_ms: u64, out: &mut Vec<u8>) -> Result<(), LinkError> {
        if now_ms.saturating_sub(self.heard_at_ms) >= SILENCE_MS {
            return Err(LinkError::Silent("leader"));
        }
        if let Some(claim) = self.claim.unsent.take() {
            Frame::PeerState(claim).encode(out);
        }
        if let Some(number) = self.unsent_grant.take() {
            Frame::Grant(number).encode(out);
        }
        let ack = match &self.receiving {
            ReceiverState::Log(_) => self.confirmable(held),
            // The node lives, and has nothing to confirm yet.
            ReceiverState::Answer | ReceiverState::ClaimsOnly | ReceiverState::Snapshot { .. } => {
                Ack::default()
            }
        };
        if ack != self.acked.0 || self.wake_at_ms() <= now_ms {
            self.acked = (ack, now_ms);
            Frame::Ack(ack).encode(out);
        }
        Ok(())
    }

    fn confirmable(&self, held: Ack) -> Ack {
        if SeededBug::AckBeforeApply.is_on() {
            let version = self.leader_version.unwrap_or(0).max(held.applied_version);
            return Ack {
                applied_version: version,
                durable_version: version,
            };
        }
        Ack {
            durable_version: held.durable_version.min(held.applied_version),
            ..held
        }
    }

    /// When to be asked for bytes even if nothing came meanwhile.
    pub fn wake_at_ms(&self) -> u64 {
        self.acked.1 + HEARTBEAT_MS
    }

    /// The engine of a snapshot that will not become whole, to be freed piece by piece.
    pub fn into_remains(self, options: Options) -> Option<Lsm> {
        match self.receiving {
            ReceiverState::Snapshot { decoder, .. } => decoder.finish(options).map(|(lsm, _)| lsm),
            ReceiverState::Answer | ReceiverState::ClaimsOnly | ReceiverState::Log(_) => None,
        }
    }
}

/// Whether the log of a leader may be followed from where the replica is.
fn check_continue(answer: &Continue, meta: &PartitionMeta, version: u64) -> Result<(), LinkError> {
    let leader = (&answer.lineage, answer.last_version.max(version));
    if version > 0 && !is_prefix((&meta.lineage, version), leader) {
        let problem = "the leader goes on from what this node does not have";
        return Err(LinkError::NotFollowed(problem.to_owned()));
    }
    Ok(())
}

/// Whether the data may be replaced by that of a leader. `ordered_epoch`: the epoch of the leader's
/// data, as a controller named it. An epoch that nodes chose themselves lets no data be dropped.
fn check_snapshot(
    start: &SnapshotStart,
    ordered_epoch: u64,
    empty_leaders: EmptyLeaders,
    (meta, version): (&PartitionMeta, u64),
) -> Result<(), LinkError> {
    let own = (&meta.lineage, version);
    if version == 0 || relation(own, (&start.lineage, start.version)) == Relation::Newer {
        return Ok(());
    }
    let common_version = start.lineage.common_version_with(&meta.lineage, version);
    let is_followed = match empty_leaders {
        EmptyLeaders::None => false,
        EmptyLeaders::Related => common_version.is_some(),
        EmptyLeaders::All => true,
    };
    let common_version = common_version.unwrap_or(0).min(start.version);
    if !is_followed && has_begun_empty(start, common_version) {
        return Err(LinkError::NotFollowed(format!(
            "the leader began empty and this replica holds version {version}: its data is kept, \
             and may be the only copy. Make this node the leader, with an epoch above {} \
             (POST /partition/assign; with --etcd, POST /partition/recover). Start it with an \
             empty data directory only if its data is not needed",
            meta.epoch.max(start.epoch)
        )));
    }
    if is_data_dropped_for(start, ordered_epoch, meta) {
        return Ok(());
    }
    Err(LinkError::NotFollowed(format!(
        "this replica holds version {version}, of which the leader has only what is up to \
         {common_version}: its data is kept. To keep it, make this node the leader; to drop it, \
         assign the leader anew: either with an epoch above {} (POST /partition/assign; with \
         --etcd, POST /partition/recover). Or start this node with an empty data directory",
        meta.data_ordered_epoch.max(meta.epoch).max(start.epoch)
    )))
}

/// Whether the leader holds nothing of what it held before it lost its data.
fn has_begun_empty(start: &SnapshotStart, common_version: u64) -> bool {
    let is_begun_empty = common_version == 0 && start.lineage.begun_version() == 0;
    !SeededBug::EmptinessTaken.is_on() && (start.version == 0 || is_begun_empty)
}

/// Whether a controller's order lets this replica drop data that the leader lacks.
fn is_data_dropped_for(start: &SnapshotStart, ordered_epoch: u64, meta: &PartitionMeta) -> bool {
    let is_own_epoch_obeyed = SeededBug::OwnEpochObeyed.is_on() && start.epoch > meta.data_epoch;
    let is_anything_dropped = SeededBug::DataGivenUp.is_on() || SeededBug::EmptinessTaken.is_on();
    is_own_epoch_obeyed || is_anything_dropped || ordered_epoch > meta.data_ordered_epoch
}

/// Whether a leader of this epoch may be followed.
fn check_epoch(intent: Intent, epoch: u64, meta: &PartitionMeta) -> Result<(), LinkError> {
    if intent == Intent::Follow && is_outdated(epoch, meta) {
        return Err(LinkError::NotFollowed(format!(
            "the leader is of epoch {epoch}, and epoch {} has begun: assign it anew, or wait where \
             etcd says which node leads",
            meta.epoch
        )));
    }
    Ok(())
}

fn is_outdated(epoch: u64, meta: &PartitionMeta) -> bool {
    !SeededBug::EpochNotChecked.is_on() && epoch < meta.epoch
}

/// Takes in a piece of a snapshot; true when it is whole.
fn decode(
    mut data: &[u8],
    decoder: &mut CheckpointDecoder,
    pending: &mut Vec<u8>,
) -> Result<bool, LinkError> {
    while !data.is_empty() {
        let wanted = decoder.wanted_bytes();
        if wanted == 0 {
            return Err(LinkError::Protocol("the leader sent more than a snapshot"));
        }
        if pending.is_empty() {
            pending.reserve_exact(wanted);
        }
        let (taken, rest) = data.split_at(data.len().min(wanted - pending.len()));
        pending.extend_from_slice(taken);
        data = rest;
        if pending.len() < wanted {
            break;
        }
        match decoder.feed(std::mem::take(pending)) {
            Ok(CodecStep::More) => {}
            Ok(CodecStep::Done) if data.is_empty() => return Ok(true),
            Ok(CodecStep::Done) => {
                return Err(LinkError::Protocol("the leader sent more than a snapshot"));
            }
            Err(FormatError::Damaged(problem)) => {
                return Err(LinkError::Damaged(format!(
                    "the snapshot is damaged: {problem}"
                )));
            }
            Err(FormatError::TooNew(format)) => {
                return Err(LinkError::NotFollowed(format!(
                    "the leader is of a later version (format {format}): upgrade this node"
                )));
            }
        }
    }
    Ok(false)
}

impl LogTail {
    fn new(lsm: &Lsm) -> Self {
        Self {
            reader: RecordReader::new(lsm.position()),
            held: LogBatch::default(),
        }
    }

    /// Applies records; those of a batch once it is whole.
    fn apply(&mut self, mut data: &[u8], lsm: &mut Lsm) -> Result<(), LinkError> {
        let damaged = |problem| {
            LinkError::Damaged(format!("the log does not continue what is here: {problem}"))
        };
        while let Some(record) = self.reader.next(&mut data).map_err(damaged)? {
            if is_applied_at_once(&record, &self.held) {
                lsm.replay(&record);
                continue;
            }
            self.held.push_record(&record);
            if self.held.stream_bytes() > BATCH_MAX_BYTES {
                return Err(LinkError::Damaged(format!(
                    "the leader sent a batch of more than {BATCH_MAX_BYTES} bytes"
                )));
            }
            if !self.held.is_open() {
                let before = lsm.position();
                self.held.records(before).for_each(|record| {
                    lsm.replay(&record);
                });
                self.held.clear(0);
            }
        }
        Ok(())
    }
}

/// Whether the record is not part of a batch of writes, of which `held` is the beginning.
fn is_applied_at_once(record: &StreamRecord<'_>, held: &LogBatch) -> bool {
    SeededBug::BatchCut.is_on() || !(record.goes_on() || held.is_open())
}

/// A peer's text, for the log.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
