//! The replica's side of the connection to its leader: what it asks for, what it accepts, what it
//! confirms.
//!
//! Invariants:
//! 1. What is applied continues the history without a gap ([`RecordReader`]), and of a batch of
//!    writes all or nothing.
//! 2. A snapshot replaces the data only when it is whole, and only if nothing is given up by that,
//!    or a higher epoch than that of the data says so. An empty leader never replaces anything.
//! 3. What is confirmed is applied.
//! 4. A turn's work is bounded: the caller passes bounded input, and a frame costs no more than its
//!    length.
//!
//! Not here: what is done about the data and the role (`partition/leader_link.rs`), dialing
//! (`reactor/`).

use crate::lsm::{LogBatch, LogPosition, Lsm, Options, RecordReader};
use crate::seeded_bugs::SeededBug;
use crate::storage::{CheckpointDecoder, DecodeStep, FormatError, Lineage, PartitionMeta};

use super::frame::{
    Ack, Continue, DATA_MAX_BYTES, Frame, FrameReader, Hello, Intent, NodeId, PROTOCOL_MIN,
    PeerState, RefusalCode, SnapshotStart,
};
use super::relation::{Relation, is_feed_expected, is_prefix, relation};
use super::{HEARTBEAT_MS, LinkError, SILENCE_MS};

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
    /// It holds what its leader has not: an order must say which of the two is kept.
    Parted,
}

/// The data that a leader sent.
#[derive(Debug)]
pub struct ReceivedData {
    /// The engine.
    pub lsm: Lsm,
    /// The leader's epoch.
    pub epoch: u64,
    /// The lineage of the data.
    pub lineage: Lineage,
}

/// What came of a frame.
#[derive(Debug)]
pub enum ReceiverEvent {
    /// The log goes on in this epoch, as this lineage.
    Continues {
        /// The leader's epoch.
        epoch: u64,
        /// Its lineage.
        lineage: Lineage,
    },
    /// A snapshot begins, of about so many bytes.
    SnapshotBegins {
        /// The version it is complete up to.
        version: u64,
        /// Its length, about.
        about_bytes: u64,
    },
    /// The snapshot is whole.
    ReceivedData(Box<ReceivedData>),
    /// So late it is where the leader is, in Unix ms.
    Beat {
        /// By the leader's clock.
        time_ms: u64,
    },
    /// The peer has told where it stands: [`LeaderReceiver::peer`].
    Told,
    /// Nothing to be done about.
    Noted,
}

#[derive(Debug)]
enum State {
    /// The hello is sent.
    Greeted,
    /// The peer holds nothing that is wanted: there is only a claim to be made.
    Surveyed,
    Snapshot {
        start: SnapshotStart,
        decoder: Box<CheckpointDecoder>,
        /// Of what the decoder wants next.
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

/// The connection to the leader, or to a peer that is surveyed.
#[derive(Debug)]
pub struct LeaderReceiver {
    reader: FrameReader,
    state: State,
    intent: Intent,
    protocol: u16,
    /// What the peer told of itself last.
    peer: Option<PeerState>,
    /// The epoch of the claim made last; what the peer tells after it is the answer.
    claimed_epoch: Option<u64>,
    has_answer: bool,
    /// To be sent next.
    unsent: Option<PeerState>,
    /// Why the peer has refused.
    refusal: Option<RefusalCode>,
    /// The leader's newest version, as last heard; none behind a snapshot until it says.
    leader_version: Option<u64>,
    /// The epoch of the leader's data, once it has answered.
    epoch: Option<u64>,
    sync: SyncState,
    acked: Ack,
    heard_at_ms: u64,
    acked_at_ms: u64,
}

impl LeaderReceiver {
    /// Begins a connection by saying hello: where this node stands, and what it wants.
    #[expect(clippy::too_many_arguments, reason = "what a hello is made of")]
    pub fn greet(
        partition: u32,
        node_id: NodeId,
        state: PeerState,
        position: LogPosition,
        token: &[u8],
        protocol: u16,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Self {
        Frame::Hello(Hello {
            protocol_version: protocol,
            partition,
            node_id,
            epoch: state.epoch,
            history: state.lineage.history_at(position.version),
            position,
            token,
        })
        .encode(out);
        let intent = state.intent;
        let claimed_epoch =
            matches!(intent, Intent::Claim | Intent::OrderedClaim).then_some(state.epoch);
        if protocol > PROTOCOL_MIN {
            Frame::PeerState(state).encode(out);
        }
        Self {
            reader: FrameReader::new(DATA_MAX_BYTES),
            state: State::Greeted,
            intent,
            protocol,
            peer: None,
            claimed_epoch,
            has_answer: false,
            unsent: None,
            refusal: None,
            leader_version: None,
            epoch: None,
            sync: SyncState::Behind,
            acked: Ack {
                applied_version: 0,
                durable_version: 0,
            },
            heard_at_ms: now_ms,
            acked_at_ms: now_ms,
        }
    }

    /// What the peer told of itself last.
    pub fn peer(&self) -> Option<&PeerState> {
        self.peer.as_ref()
    }

    /// The protocol that is spoken.
    pub fn protocol(&self) -> u16 {
        self.protocol
    }

    /// Why the peer has refused, if it has.
    pub fn refusal(&self) -> Option<RefusalCode> {
        self.refusal
    }

    /// Milliseconds since the peer was heard.
    pub fn silent_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.heard_at_ms)
    }

    /// Whether all that is wanted of the peer's data is here.
    pub fn has_all(&self) -> bool {
        match self.state {
            State::Surveyed => true,
            State::Log(_) => self.sync == SyncState::InSync,
            State::Greeted | State::Snapshot { .. } => false,
        }
    }

    /// Whether more of the peer's data comes by itself.
    pub fn is_fed(&self) -> bool {
        !matches!(self.state, State::Surveyed)
    }

    /// Makes a claim, once for each epoch.
    pub fn claim(&mut self, state: PeerState) {
        if self.claimed_epoch != Some(state.epoch) {
            self.claimed_epoch = Some(state.epoch);
            self.has_answer = false;
            self.unsent = Some(state);
        }
    }

    /// What the peer has answered to the claim to this epoch, if it has. An answer to an earlier
    /// claim says nothing about this one.
    pub fn answer_to(&self, epoch: u64) -> Option<&PeerState> {
        let is_answered = self.has_answer && self.claimed_epoch == Some(epoch);
        self.peer.as_ref().filter(|_| is_answered)
    }

    /// How far it is.
    pub fn sync(&self) -> SyncState {
        self.sync
    }

    /// The leader's newest version, as last heard.
    pub fn leader_version(&self) -> Option<u64> {
        self.leader_version
    }

    /// The epoch of the leader's data, once the log goes on.
    pub fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// What it is doing, in a word.
    pub fn state_name(&self) -> &'static str {
        match (&self.state, self.sync) {
            (State::Greeted, _) => "connecting",
            (State::Surveyed, _) => "claiming",
            (State::Snapshot { .. }, _) => "snapshot",
            (State::Log(_), SyncState::Behind | SyncState::Parted) => "catching up",
            (State::Log(_), SyncState::InSync) => "in sync",
        }
    }

    /// Takes in the next frame of `input`, or as much of it as there is. `None`: all was taken.
    pub fn receive(
        &mut self,
        input: &mut &[u8],
        lsm: &mut Lsm,
        meta: &PartitionMeta,
        options: Options,
        now_ms: u64,
    ) -> Result<Option<ReceiverEvent>, LinkError> {
        let Some(frame) = self.reader.next(input)? else {
            return Ok(None);
        };
        self.heard_at_ms = now_ms;
        let following = match (frame, &mut self.state) {
            (Frame::Refusal(refusal), _) => {
                self.refusal = Some(refusal.code);
                if refusal.code == RefusalCode::Ahead {
                    self.sync = SyncState::Parted;
                }
                return Err(LinkError(format!(
                    "the leader refuses: {}",
                    printable(refusal.text)
                )));
            }
            (Frame::PeerState(peer), state) => {
                if matches!(state, State::Greeted) && self.intent != Intent::Follow {
                    let own = (&meta.lineage, lsm.last_version());
                    let related = relation(own, (&peer.lineage, peer.last_version));
                    let (own, its) = (meta.data_ordered_epoch, peer.data_ordered_epoch);
                    if self.intent != Intent::Survey || !is_feed_expected(related, own, its) {
                        self.state = State::Surveyed;
                    }
                }
                self.has_answer = self.claimed_epoch.is_some();
                self.peer = Some(peer);
                ReceiverEvent::Told
            }
            (Frame::Continue(answer), State::Greeted) => {
                self.check_epoch(answer.epoch, meta)?;
                check_continue(&answer, meta, lsm.last_version())
                    .inspect_err(|_| self.sync = SyncState::Parted)?;
                self.leader_version = Some(answer.last_version);
                self.epoch = Some(answer.epoch);
                self.state = State::Log(LogTail::new(lsm));
                ReceiverEvent::Continues {
                    epoch: answer.epoch,
                    lineage: answer.lineage,
                }
            }
            (Frame::SnapshotStart(start), State::Greeted) => {
                self.check_epoch(start.epoch, meta)?;
                let ordered_epoch = self.peer.as_ref().map_or(0, |peer| peer.data_ordered_epoch);
                check_snapshot(&start, ordered_epoch, meta, lsm.last_version())
                    .inspect_err(|_| self.sync = SyncState::Parted)?;
                let begins = ReceiverEvent::SnapshotBegins {
                    version: start.version,
                    about_bytes: start.about_bytes,
                };
                self.state = State::Snapshot {
                    start,
                    decoder: Box::default(),
                    pending: Vec::new(),
                };
                begins
            }
            (
                Frame::SnapshotData(data),
                State::Snapshot {
                    decoder, pending, ..
                },
            ) => {
                if !decode(data, decoder, pending)? {
                    return Ok(Some(ReceiverEvent::Noted));
                }
                let installed = self.finish_snapshot(options)?;
                self.state = State::Log(LogTail::new(&installed.lsm));
                ReceiverEvent::ReceivedData(Box::new(installed))
            }
            (Frame::Records(data), State::Log(tail)) => {
                tail.apply(data, lsm)?;
                self.leader_version = self
                    .leader_version
                    .map(|version| version.max(lsm.last_version()));
                ReceiverEvent::Noted
            }
            (Frame::Heartbeat(heartbeat), _) => {
                self.leader_version = Some(heartbeat.last_version);
                ReceiverEvent::Beat {
                    time_ms: heartbeat.time_ms,
                }
            }
            _ => {
                return Err(LinkError(
                    "the leader sent a frame out of its turn".to_owned(),
                ));
            }
        };
        if matches!(self.state, State::Log(_))
            && self
                .leader_version
                .is_some_and(|version| version <= lsm.last_version())
        {
            self.sync = SyncState::InSync;
        }
        Ok(Some(following))
    }

    fn finish_snapshot(&mut self, options: Options) -> Result<ReceivedData, LinkError> {
        let State::Snapshot { start, decoder, .. } =
            std::mem::replace(&mut self.state, State::Greeted)
        else {
            return Err(LinkError("there is no snapshot to finish".to_owned()));
        };
        let SnapshotStart {
            epoch,
            version,
            lineage,
            ..
        } = start;
        match decoder.finish(options) {
            Some((lsm, header))
                if header.history == lineage.history() && header.position.version == version =>
            {
                Ok(ReceivedData {
                    lsm,
                    epoch,
                    lineage,
                })
            }
            _ => Err(LinkError(
                "the leader sent a snapshot of something else".to_owned(),
            )),
        }
    }

    /// Appends what is to be said to the leader: what was applied and is held as clients are
    /// promised, if that is news.
    pub fn confirm(
        &mut self,
        applied_version: u64,
        durable_version: u64,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        if now_ms.saturating_sub(self.heard_at_ms) >= SILENCE_MS {
            return Err(LinkError(format!(
                "the leader was silent for {SILENCE_MS} ms"
            )));
        }
        if let Some(state) = self.unsent.take() {
            Frame::PeerState(state).encode(out);
        }
        let ack = match &self.state {
            State::Log(_) if SeededBug::AckBeforeApply.is_on() => {
                let version = self
                    .leader_version
                    .unwrap_or(applied_version)
                    .max(applied_version);
                Ack {
                    applied_version: version,
                    durable_version: version,
                }
            }
            State::Log(_) => Ack {
                applied_version,
                durable_version: durable_version.min(applied_version),
            },
            // Alive, and nothing to confirm yet.
            State::Greeted | State::Surveyed | State::Snapshot { .. } => Ack {
                applied_version: 0,
                durable_version: 0,
            },
        };
        if ack != self.acked || now_ms.saturating_sub(self.acked_at_ms) >= HEARTBEAT_MS {
            self.acked = ack;
            self.acked_at_ms = now_ms;
            Frame::Ack(ack).encode(out);
        }
        Ok(())
    }

    /// When to be asked for bytes even if nothing came meanwhile.
    pub fn wake_at_ms(&self) -> u64 {
        self.acked_at_ms + HEARTBEAT_MS
    }

    /// What there is of an engine that will not become whole, to be freed piece by piece.
    pub fn into_remains(self, options: Options) -> Option<Lsm> {
        match self.state {
            State::Snapshot { decoder, .. } => decoder.finish(options).map(|(lsm, _)| lsm),
            State::Greeted | State::Surveyed | State::Log(_) => None,
        }
    }
}

/// Whether the log of a leader may be followed from where the replica is.
fn check_continue(answer: &Continue, meta: &PartitionMeta, version: u64) -> Result<(), LinkError> {
    let leader = (&answer.lineage, answer.last_version.max(version));
    if version > 0 && !is_prefix((&meta.lineage, version), leader) {
        return Err(LinkError(
            "the leader goes on from what this node does not have".to_owned(),
        ));
    }
    Ok(())
}

/// Whether the data may be replaced by that of a leader. `ordered_epoch`: the epoch of the leader's
/// data, as a controller named it. An epoch that nodes chose themselves lets no data be dropped.
fn check_snapshot(
    start: &SnapshotStart,
    ordered_epoch: u64,
    meta: &PartitionMeta,
    version: u64,
) -> Result<(), LinkError> {
    if version == 0 {
        return Ok(());
    }
    let is_empty_taken = SeededBug::EmptinessTaken.is_on();
    let own = (&meta.lineage, version);
    if relation(own, (&start.lineage, start.version)) == Relation::Newer {
        return Ok(());
    }
    let common_version = start
        .lineage
        .common_version_with(&meta.lineage, version)
        .unwrap_or(0)
        .min(start.version);
    let is_begun_empty = common_version == 0 && start.lineage.begun_version() == 0;
    if (start.version == 0 || is_begun_empty) && !is_empty_taken {
        return Err(LinkError(format!(
            "the leader began empty and this replica holds {version} versions: its data is kept. \
             Make this node the leader, or start it empty"
        )));
    }
    let is_ordered = ordered_epoch > meta.data_ordered_epoch
        || (SeededBug::OwnEpochObeyed.is_on() && start.epoch > meta.data_epoch);
    if is_ordered || SeededBug::DataGivenUp.is_on() || is_empty_taken {
        return Ok(());
    }
    Err(LinkError(format!(
        "this replica holds version {version}, of which the leader has only what is up to \
         {common_version}: its data is kept. Make this node the leader, or have a controller \
         assign the leader with an epoch above {}, or start this node with an empty data \
         directory",
        meta.data_ordered_epoch.max(meta.epoch)
    )))
}

impl LeaderReceiver {
    fn check_epoch(&self, epoch: u64, meta: &PartitionMeta) -> Result<(), LinkError> {
        let is_outdated = self.intent == Intent::Follow && epoch < meta.epoch;
        if is_outdated && !SeededBug::EpochNotChecked.is_on() {
            return Err(LinkError(format!(
                "the leader is of epoch {epoch}, and epoch {} has begun: assign it anew",
                meta.epoch
            )));
        }
        Ok(())
    }
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
            return Err(LinkError("the leader sent more than a snapshot".to_owned()));
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
            Ok(DecodeStep::More) => {}
            Ok(DecodeStep::Done) if data.is_empty() => return Ok(true),
            Ok(DecodeStep::Done) => {
                return Err(LinkError("the leader sent more than a snapshot".to_owned()));
            }
            Err(FormatError::Damaged(problem)) => {
                return Err(LinkError(format!("the snapshot is damaged: {problem}")));
            }
            Err(FormatError::TooNew(format)) => {
                return Err(LinkError(format!(
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
        let damaged =
            |problem| LinkError(format!("the log does not continue what is here: {problem}"));
        while let Some(record) = self.reader.next(&mut data).map_err(damaged)? {
            let is_of_batch = record.goes_on() || self.held.is_open();
            if !is_of_batch || SeededBug::BatchCut.is_on() {
                lsm.replay(&record);
                continue;
            }
            self.held.push_record(&record);
            if self.held.stream_bytes() > BATCH_MAX_BYTES {
                return Err(LinkError(format!(
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

/// A peer's text, for the log.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
