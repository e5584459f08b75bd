//! The leader's end of a link: what a replica is sent, and what it confirms.
//!
//! Invariants:
//! 1. There is no queue: a sender is a position in layers and log that all senders share. It is
//!    asked for bytes when its socket takes some.
//! 2. Snapshot and log meet without a gap: the cursor is taken where the snapshot ends, before
//!    anything else is written.
//! 3. Nothing is sent that is not released: written to this node's disk as its own clients are
//!    promised, if the node has a disk.
//! 4. A grant counts only for a beat that was sent on this link.
//! 5. The log that a sender still needs is kept ([`SenderFacts::needed_version`]) until the replica
//!    has confirmed it.
//!
//! Not here: whether a replica is accepted (`partition/serving.rs`).

use std::collections::VecDeque;

use crate::lsm::{Lsm, Snapshot, WalCursor};
use crate::seeded_bugs::SeededBug;
use crate::storage::{CheckpointEncoder, CodecStep, Lineage};

use super::frame::{
    self, Ack, Continue, DATA_MAX_BYTES, Frame, FrameReader, HELLO_MAX_BYTES, Heartbeat,
    PROTOCOL_MIN, PROTOCOL_OF_BEATS, PeerState,
};
use super::handshake::PeerHello;
use super::link_error::LinkError;
use super::link_id::LinkId;
use super::timing::{HEARTBEAT_MS, SILENCE_MS};

/// Bytes that the encoder is asked for at a time: with one whole chunk more they still fit a frame.
const SNAPSHOT_FRAME_BYTES: usize = 48 * 1024;

/// Beats of a link that a grant may name: more than are sent before a link is silent for too long.
const BEATS_MAX: usize = 256;

/// The data that a sender sends.
#[derive(Clone, Copy, Debug)]
pub struct SenderSource<'a> {
    /// The engine.
    pub lsm: &'a Lsm,
    /// The lineage of its data.
    pub lineage: &'a Lineage,
    /// The epoch in which the data came to be of that lineage.
    pub epoch: u64,
    /// No later version is sent.
    pub released_version: u64,
    /// Whether role and epoch are durable: only then a state is sent.
    pub is_settled: bool,
    /// The number of the newest beat; none: no beats are sent.
    pub beat: Option<u64>,
}

impl SenderSource<'_> {
    /// The newest version that may be sent.
    fn last_version(&self) -> u64 {
        self.released_version.min(self.lsm.last_version())
    }
}

/// What a sender sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderPhase {
    /// No data: the peer has all that is here and only makes a claim.
    Idle,
    /// A snapshot.
    Snapshot,
    /// The log.
    Log,
}

impl SenderPhase {
    /// The name that users see.
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Snapshot => "snapshot",
            Self::Log => "log",
        }
    }
}

/// What a partition knows of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderFacts {
    /// The protocol that both sides speak.
    pub protocol: u16,
    /// What it sends.
    pub phase: SenderPhase,
    /// The version that the replica had when its log began.
    pub begun_version: u64,
    /// The newest version that was sent.
    pub sent_version: u64,
    /// What the replica has confirmed on this link.
    pub acked: Ack,
    /// The highest number of a beat that the replica has granted on this link.
    pub granted: Option<u64>,
    /// Bytes of the snapshot that were sent.
    pub snapshot_sent_bytes: u64,
    /// When the replica was last heard.
    pub heard_at_ms: u64,
}

impl SenderFacts {
    /// The log behind this version must be kept for the sender.
    pub fn needed_version(&self) -> u64 {
        self.acked.applied_version.max(self.begun_version)
    }

    /// Whether the replica is sent data.
    pub fn sends_data(&self) -> bool {
        self.phase != SenderPhase::Idle
    }

    /// Milliseconds since the replica was last heard.
    pub fn silent_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.heard_at_ms)
    }
}

/// What is being sent.
#[derive(Debug)]
enum SenderState {
    Nothing,
    Snapshot {
        encoder: Box<CheckpointEncoder>,
        version: u64,
        /// Where the log goes on behind it.
        cursor: WalCursor,
    },
    Log {
        cursor: WalCursor,
        /// Bytes behind the cursor that were sent: a part of the next piece of the log.
        sent_bytes: usize,
    },
}

impl SenderState {
    fn log(cursor: WalCursor) -> Self {
        Self::Log {
            cursor,
            sent_bytes: 0,
        }
    }

    fn phase(&self) -> SenderPhase {
        match self {
            Self::Nothing => SenderPhase::Idle,
            Self::Snapshot { .. } => SenderPhase::Snapshot,
            Self::Log { .. } => SenderPhase::Log,
        }
    }
}

/// The leader's end of a link.
#[derive(Debug)]
pub struct ReplicaSender {
    pub(crate) link: LinkId,
    /// The partition that is sent.
    pub(crate) partition: u32,
    reader: FrameReader,
    /// The state to be sent next.
    unsent_state: Option<PeerState>,
    sending: SenderState,
    /// What the partition keeps of the sender.
    pub(crate) facts: SenderFacts,
    /// When the last heartbeat was sent; none yet: one is due.
    heartbeat_at_ms: Option<u64>,
    beats: SentBeats,
}

impl ReplicaSender {
    /// Continues with the log from what the replica holds, if the log still has what follows. `out`
    /// gets the answer to the hello.
    pub fn from_log(
        link: LinkId,
        hello: &PeerHello,
        source: &SenderSource<'_>,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Option<Self> {
        let version = hello.position.version;
        let (cursor, position) = source.lsm.log_behind(version)?;
        if position != hello.position {
            return None;
        }
        Frame::Continue(Continue {
            epoch: source.epoch,
            last_version: source.lsm.last_version(),
            lineage: source.lineage.shared_with(hello.history),
        })
        .encode(out);
        let sending = SenderState::log(cursor);
        Some(Self::new(link, hello, sending, version, now_ms))
    }

    /// Sends all data as of a snapshot, and then the log behind it. `out` gets the answer to the
    /// hello. None if the log no longer has what follows.
    pub fn from_snapshot(
        link: LinkId,
        hello: &PeerHello,
        snapshot: Snapshot,
        source: &SenderSource<'_>,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Option<Self> {
        let version = snapshot.version();
        let (cursor, _) = source
            .lsm
            .log_behind(log_start_behind(version, source.lsm))?;
        Frame::SnapshotStart(frame::SnapshotStart {
            epoch: source.epoch,
            version,
            about_bytes: source.lsm.data_bytes() as u64,
            lineage: source.lineage.shared_with(hello.history),
        })
        .encode(out);
        let encoder = Box::new(CheckpointEncoder::new(snapshot, source.lineage.history()));
        let sending = SenderState::Snapshot {
            encoder,
            version,
            cursor,
        };
        Some(Self::new(link, hello, sending, version, now_ms))
    }

    /// Sends no data: the peer holds all that is here. No log is kept for it.
    pub fn idle(link: LinkId, hello: &PeerHello, now_ms: u64) -> Self {
        Self::new(link, hello, SenderState::Nothing, u64::MAX, now_ms)
    }

    fn new(
        link: LinkId,
        hello: &PeerHello,
        sending: SenderState,
        begun_version: u64,
        now_ms: u64,
    ) -> Self {
        Self {
            link,
            partition: hello.partition,
            reader: FrameReader::new(HELLO_MAX_BYTES),
            unsent_state: None,
            facts: SenderFacts {
                protocol: hello.protocol,
                phase: sending.phase(),
                begun_version,
                sent_version: begun_version,
                acked: Ack::default(),
                granted: None,
                snapshot_sent_bytes: 0,
                heard_at_ms: now_ms,
            },
            sending,
            heartbeat_at_ms: None,
            beats: SentBeats::default(),
        }
    }

    /// Sends the node's state next, if the protocol has words for it.
    pub fn report(&mut self, state: PeerState) {
        if self.facts.protocol > PROTOCOL_MIN {
            self.unsent_state = Some(state);
        }
    }

    /// Takes in what the replica sends, up to a state that is to be answered. None: all was taken.
    pub fn receive(
        &mut self,
        input: &mut &[u8],
        now_ms: u64,
    ) -> Result<Option<PeerState>, LinkError> {
        while let Some(frame) = self.reader.next(input)? {
            self.facts.heard_at_ms = now_ms;
            match frame {
                Frame::Ack(ack) => self.facts.on_ack(ack)?,
                Frame::Grant(number) => {
                    self.beats.on_grant(number)?;
                    self.facts.granted = self.facts.granted.max(Some(number));
                }
                Frame::PeerState(state) => return Ok(Some(state)),
                _ => {
                    let problem = "the replica sent what only a leader sends";
                    return Err(LinkError::Protocol(problem));
                }
            }
        }
        Ok(None)
    }

    /// Appends what is to be sent next, about `budget` bytes of it.
    pub fn fill(
        &mut self,
        source: &SenderSource<'_>,
        budget: usize,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        if self.facts.silent_ms(now_ms) >= SILENCE_MS {
            return Err(LinkError::Silent("replica"));
        }
        if source.is_settled
            && let Some(state) = self.unsent_state.take()
        {
            Frame::PeerState(state).encode(out);
        }
        if let Some(number) = self.unsent_beat(source) {
            self.beats.on_sent(number);
            Frame::Beat(number).encode(out);
        }
        if self.wake_at_ms() <= now_ms {
            self.heartbeat_at_ms = Some(now_ms);
            encode_heartbeat(source, out);
        }
        let end = out.len() + budget;
        self.send_snapshot(source, end, out);
        self.send_log(source, end, out)
    }

    /// When to be asked for bytes even if nothing was written meanwhile.
    pub fn wake_at_ms(&self) -> u64 {
        self.heartbeat_at_ms.map_or(0, |at_ms| at_ms + HEARTBEAT_MS)
    }

    /// The newest beat, if it is to be sent. A peer that only makes a claim gets none.
    fn unsent_beat(&self, source: &SenderSource<'_>) -> Option<u64> {
        let has_beats = self.facts.protocol >= PROTOCOL_OF_BEATS && self.facts.sends_data();
        let is_news = |number: &u64| has_beats && self.beats.newest() < Some(*number);
        source.beat.filter(is_news)
    }

    /// Whether there is something to send.
    pub fn has_more(&self, source: &SenderSource<'_>) -> bool {
        let has_state = self.unsent_state.is_some() && source.is_settled;
        if has_state || self.unsent_beat(source).is_some() {
            return true;
        }
        match &self.sending {
            SenderState::Nothing => false,
            SenderState::Snapshot { version, .. } => *version <= source.released_version,
            SenderState::Log { sent_bytes, .. } => {
                *sent_bytes > 0 || self.facts.sent_version < source.last_version()
            }
        }
    }

    /// Sends the next pieces of the snapshot, each in a frame; goes on to the log behind its end.
    fn send_snapshot(&mut self, source: &SenderSource<'_>, end: usize, out: &mut Vec<u8>) {
        let SenderState::Snapshot {
            encoder,
            version,
            cursor,
        } = &mut self.sending
        else {
            return;
        };
        if *version > source.released_version {
            return;
        }
        let before = out.len();
        // A piece may come to nothing: sorting a memtable takes some steps.
        let piece_count = (end - out.len()).div_ceil(SNAPSHOT_FRAME_BYTES);
        for _ in 0..piece_count {
            if out.len() >= end {
                break;
            }
            let step =
                frame::encode_snapshot_data(out, |out| encoder.next(SNAPSHOT_FRAME_BYTES, out));
            if step == CodecStep::Done {
                self.sending = SenderState::log(*cursor);
                self.facts.phase = SenderPhase::Log;
                self.facts.snapshot_sent_bytes = 0;
                encode_heartbeat(source, out);
                return;
            }
        }
        self.facts.snapshot_sent_bytes += (out.len() - before) as u64;
    }

    /// Sends the log from where it lies in memory: frames get its bytes by the only copy.
    fn send_log(
        &mut self,
        source: &SenderSource<'_>,
        end: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        let SenderState::Log { cursor, sent_bytes } = &mut self.sending else {
            return Ok(());
        };
        while out.len() < end {
            let Some(piece) = source.lsm.log_piece(*cursor, source.released_version) else {
                return Ok(());
            };
            let rest = piece.bytes_behind(*sent_bytes);
            if rest.is_empty() {
                // A confirmation has let log go of which a part was not sent yet.
                let problem = "the replica confirms what it cannot have";
                return Err(LinkError::Protocol(problem));
            }
            let data = &rest[..rest.len().min(DATA_MAX_BYTES).min(end - out.len())];
            Frame::Records(data).encode(out);
            self.facts.sent_version = piece.last.version;
            *sent_bytes += data.len();
            if *sent_bytes == piece.stream_bytes() {
                (*cursor, *sent_bytes) = (piece.next, 0);
            }
        }
        Ok(())
    }
}

/// The numbers of the newest beats that were sent, in order.
#[derive(Debug, Default)]
struct SentBeats {
    numbers: VecDeque<u64>,
    /// The newest of the numbers that are kept no more.
    forgotten: Option<u64>,
}

impl SentBeats {
    fn newest(&self) -> Option<u64> {
        self.numbers.back().copied()
    }

    fn on_sent(&mut self, number: u64) {
        if self.numbers.len() == BEATS_MAX {
            self.forgotten = self.numbers.pop_front();
        }
        self.numbers.push_back(number);
    }

    /// The replica grants a beat. Whether a forgotten one was sent is not known.
    fn on_grant(&mut self, number: u64) -> Result<(), LinkError> {
        let is_sent = self.numbers.binary_search(&number).is_ok();
        if is_sent || Some(number) <= self.forgotten {
            return Ok(());
        }
        let problem = "the replica grants a beat that was not sent to it";
        Err(LinkError::Protocol(problem))
    }
}

impl SenderFacts {
    /// The replica confirms what it has applied and what is durable there.
    fn on_ack(&mut self, ack: Ack) -> Result<(), LinkError> {
        // Until the snapshot is sent there is nothing to confirm.
        if self.phase != SenderPhase::Log || ack.applied_version == 0 {
            return Ok(());
        }
        let is_possible =
            ack.applied_version <= self.sent_version && ack.durable_version <= ack.applied_version;
        if !is_possible {
            let problem = "the replica confirms what it cannot have";
            return Err(LinkError::Protocol(problem));
        }
        self.acked.applied_version = self.acked.applied_version.max(ack.applied_version);
        self.acked.durable_version = self.acked.durable_version.max(ack.durable_version);
        Ok(())
    }
}

/// The version behind which the log goes on for a replica that gets a snapshot of `version`.
fn log_start_behind(version: u64, lsm: &Lsm) -> u64 {
    let is_late = SeededBug::SnapshotOffByOne.is_on() && lsm.last_version() > version;
    version + u64::from(is_late)
}

fn encode_heartbeat(source: &SenderSource<'_>, out: &mut Vec<u8>) {
    Frame::Heartbeat(Heartbeat {
        last_version: source.last_version(),
        time_ms: source.lsm.time_ms(),
    })
    .encode(out);
}
