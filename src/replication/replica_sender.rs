//! The leader's side of one replica: what it is sent, and what it has confirmed.
//!
//! Invariants:
//! 1. There is no queue: a feed is a place in layers and log that all share. It is asked for bytes
//!    when its socket takes some.
//! 2. Snapshot and log meet without a gap: the cursor is taken where the snapshot ends, before
//!    anything else is written.
//! 3. Nothing is sent that is not released: written to this node's disk as its own clients are
//!    promised, if it has one.
//! 4. What the feed still needs is pinned ([`ReplicaSender::needed_version`]) until the replica has
//!    confirmed it.
//!
//! Not here: whether a replica may be fed at all (`partition/replicas.rs`).

use crate::lsm::{LogBatch, Lsm, Snapshot, WalCursor};
use crate::seeded_bugs::SeededBug;
use crate::storage::{CheckpointEncoder, EncodeStep, Lineage};

use super::frame::{
    self, Ack, Continue, DATA_MAX_BYTES, Frame, FrameReader, HELLO_MAX_BYTES, Heartbeat, NodeId,
    PROTOCOL_MIN, PeerState,
};
use super::{HEARTBEAT_MS, LinkError, PeerHello, SILENCE_MS};

/// Asked of the encoder for one frame: with a whole chunk more it still fits.
const SNAPSHOT_FRAME_BYTES: usize = 48 * 1024;

/// Read from the log at a time, large values aside, which are shared.
const LOG_READ_BYTES: usize = 64 * 1024;

/// What a feed takes from.
#[derive(Debug)]
pub struct SenderSource<'a> {
    /// The engine.
    pub lsm: &'a mut Lsm,
    /// Its lineage.
    pub lineage: &'a Lineage,
    /// The epoch under which the data came to be of that lineage.
    pub epoch: u64,
    /// Nothing behind this version is sent.
    pub released_version: u64,
    /// Whether role and epoch are on disk: what is told of them may be told.
    pub is_settled: bool,
    /// Milliseconds since the node started.
    pub now_ms: u64,
}

#[derive(Debug)]
enum State {
    /// The peer has all that is here: it only makes a claim.
    Idle,
    Snapshot {
        encoder: Box<CheckpointEncoder>,
        snapshot: Snapshot,
        /// Where the log goes on behind it.
        cursor: WalCursor,
        sent_bytes: u64,
    },
    Log {
        cursor: WalCursor,
        batch: LogBatch,
        /// Of the batch.
        sent_bytes: usize,
    },
}

/// Figures about a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenderStats {
    /// `snapshot` or `log`.
    pub state: &'static str,
    /// Sent up to here.
    pub sent_version: u64,
    /// Applied up to here, as confirmed.
    pub applied_version: u64,
    /// Held up to here as its own clients are promised.
    pub durable_version: u64,
    /// Of a snapshot on its way, bytes sent.
    pub snapshot_sent_bytes: u64,
    /// Since anything was heard.
    pub silent_ms: u64,
}

/// One replica, as its leader sees it.
#[derive(Debug)]
pub struct ReplicaSender {
    node_id: NodeId,
    protocol: u16,
    /// To be told to the peer next.
    untold: Option<PeerState>,
    reader: FrameReader,
    state: State,
    /// What the replica had when its log was begun.
    begun_version: u64,
    sent_version: u64,
    /// What the replica has confirmed, in this connection.
    acked: Ack,
    heard_at_ms: u64,
    /// The last heartbeat; none yet: one is due.
    beat_at_ms: Option<u64>,
}

impl ReplicaSender {
    /// A replica that holds what the hello says goes on from the log, if it is still there; says so
    /// in `out`.
    pub fn from_log(
        hello: &PeerHello,
        source: &SenderSource<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Self> {
        let (cursor, position) = source.lsm.log_behind(hello.position.version)?;
        if position != hello.position {
            return None;
        }
        let (epoch, last_version) = (source.epoch, source.lsm.last_version());
        Frame::Continue(Continue {
            epoch,
            last_version,
            lineage: source.lineage.shared_with(hello.history),
        })
        .encode(out);
        let state = State::Log {
            cursor,
            batch: LogBatch::default(),
            sent_bytes: 0,
        };
        Some(Self::new(
            hello,
            state,
            hello.position.version,
            source.now_ms,
        ))
    }

    /// A replica is to get all data, as of a snapshot behind which the log is there; says so in
    /// `out`.
    pub fn from_snapshot(
        hello: &PeerHello,
        snapshot: Snapshot,
        source: &SenderSource<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Self> {
        let (version, epoch) = (snapshot.version(), source.epoch);
        let late =
            u64::from(SeededBug::SnapshotOffByOne.is_on() && source.lsm.last_version() > version);
        let (cursor, _) = source.lsm.log_behind(version + late)?;
        let about_bytes = source.lsm.data_bytes() as u64;
        let lineage = source.lineage.shared_with(hello.history);
        Frame::SnapshotStart(frame::SnapshotStart {
            epoch,
            version,
            about_bytes,
            lineage,
        })
        .encode(out);
        let encoder = Box::new(CheckpointEncoder::new(
            snapshot.clone(),
            source.lineage.history(),
        ));
        let state = State::Snapshot {
            encoder,
            snapshot,
            cursor,
            sent_bytes: 0,
        };
        Some(Self::new(hello, state, version, source.now_ms))
    }

    /// A peer that holds all that is here.
    pub fn idle(hello: &PeerHello, now_ms: u64) -> Self {
        // Nothing is kept for it.
        Self::new(hello, State::Idle, u64::MAX, now_ms)
    }

    /// Tells the peer where this node stands, if the protocol has words for it.
    pub fn tell(&mut self, state: PeerState) {
        if self.protocol > PROTOCOL_MIN {
            self.untold = Some(state);
        }
    }

    fn new(hello: &PeerHello, state: State, begun_version: u64, now_ms: u64) -> Self {
        Self {
            node_id: hello.node_id,
            protocol: hello.protocol,
            untold: None,
            reader: FrameReader::new(HELLO_MAX_BYTES),
            state,
            begun_version,
            sent_version: begun_version,
            acked: Ack {
                applied_version: 0,
                durable_version: 0,
            },
            heard_at_ms: now_ms,
            beat_at_ms: None,
        }
    }

    /// The replica's node.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// Whether it is sent data.
    pub fn is_fed(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Milliseconds since anything was heard of it.
    pub fn silent_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.heard_at_ms)
    }

    /// The protocol that is spoken.
    pub fn protocol(&self) -> u16 {
        self.protocol
    }

    /// What it has confirmed.
    pub fn acked(&self) -> Ack {
        self.acked
    }

    /// The snapshot that is on its way to it, for others to share.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        match &self.state {
            State::Snapshot { snapshot, .. } => Some(snapshot),
            State::Idle | State::Log { .. } => None,
        }
    }

    /// What is behind this version must stay in the log.
    pub fn needed_version(&self) -> u64 {
        self.acked.applied_version.max(self.begun_version)
    }

    /// Figures.
    pub fn stats(&self, now_ms: u64) -> SenderStats {
        let (state, snapshot_sent_bytes) = match &self.state {
            State::Snapshot { sent_bytes, .. } => ("snapshot", *sent_bytes),
            State::Log { .. } => ("log", 0),
            State::Idle => ("idle", 0),
        };
        SenderStats {
            state,
            sent_version: self.sent_version,
            applied_version: self.acked.applied_version,
            durable_version: self.acked.durable_version,
            snapshot_sent_bytes,
            silent_ms: self.silent_ms(now_ms),
        }
    }

    /// Takes in what the replica says, up to where it tells its state.
    pub fn receive(
        &mut self,
        input: &mut &[u8],
        now_ms: u64,
    ) -> Result<Option<PeerState>, LinkError> {
        while let Some(frame) = self.reader.next(input)? {
            let ack = match frame {
                Frame::Ack(ack) => ack,
                Frame::PeerState(state) => {
                    self.heard_at_ms = now_ms;
                    return Ok(Some(state));
                }
                _ => {
                    return Err(LinkError(
                        "the replica sent what only a leader sends".to_owned(),
                    ));
                }
            };
            self.heard_at_ms = now_ms;
            // Until the snapshot is sent there is nothing to confirm.
            if !matches!(self.state, State::Log { .. }) || ack.applied_version == 0 {
                continue;
            }
            if ack.applied_version > self.sent_version || ack.durable_version > ack.applied_version
            {
                return Err(LinkError(
                    "the replica confirms what it cannot have".to_owned(),
                ));
            }
            self.acked.applied_version = self.acked.applied_version.max(ack.applied_version);
            self.acked.durable_version = self.acked.durable_version.max(ack.durable_version);
        }
        Ok(None)
    }

    /// Appends what is to be sent next, about `budget` bytes of it.
    pub fn fill(
        &mut self,
        source: &SenderSource<'_>,
        budget: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        if source.now_ms.saturating_sub(self.heard_at_ms) >= SILENCE_MS {
            return Err(LinkError(format!(
                "the replica was silent for {SILENCE_MS} ms"
            )));
        }
        if source.is_settled
            && let Some(state) = self.untold.take()
        {
            Frame::PeerState(state).encode(out);
        }
        if self.wake_at_ms() <= source.now_ms {
            self.beat_at_ms = Some(source.now_ms);
            beat(source, out);
        }
        let before = out.len();
        let end = before + budget;
        if let State::Snapshot {
            encoder,
            snapshot,
            cursor,
            sent_bytes,
        } = &mut self.state
            && snapshot.version() <= source.released_version
        {
            if send_snapshot(encoder, end, out) == EncodeStep::Done {
                let cursor = *cursor;
                self.state = State::Log {
                    cursor,
                    batch: LogBatch::default(),
                    sent_bytes: 0,
                };
                beat(source, out);
            } else {
                *sent_bytes += (out.len() - before) as u64;
            }
        }
        self.send_log(source, end, out);
        Ok(())
    }

    /// When to be asked for bytes even if nothing was written meanwhile.
    pub fn wake_at_ms(&self) -> u64 {
        self.beat_at_ms.map_or(0, |at_ms| at_ms + HEARTBEAT_MS)
    }

    /// Whether there is something to send.
    pub fn has_more(&self, source: &SenderSource<'_>) -> bool {
        if self.untold.is_some() && source.is_settled {
            return true;
        }
        match &self.state {
            State::Idle => false,
            State::Snapshot { snapshot, .. } => snapshot.version() <= source.released_version,
            State::Log {
                batch, sent_bytes, ..
            } => {
                *sent_bytes < batch.stream_bytes()
                    || self.sent_version < source.released_version.min(source.lsm.last_version())
            }
        }
    }

    fn send_log(&mut self, source: &SenderSource<'_>, end: usize, out: &mut Vec<u8>) {
        let State::Log {
            cursor,
            batch,
            sent_bytes,
        } = &mut self.state
        else {
            return;
        };
        while out.len() < end {
            if *sent_bytes == batch.stream_bytes() {
                batch.clear(0);
                *sent_bytes = 0;
                if self.sent_version >= source.released_version.min(source.lsm.last_version()) {
                    return;
                }
                source
                    .lsm
                    .read_log(cursor, LOG_READ_BYTES, source.released_version, batch);
                let Some(last) = batch.last() else { return };
                self.sent_version = last.version;
            }
            *sent_bytes += send_part(batch, *sent_bytes, end - out.len(), out);
        }
    }
}

fn beat(source: &SenderSource<'_>, out: &mut Vec<u8>) {
    let last_version = source.lsm.last_version().min(source.released_version);
    Frame::Heartbeat(Heartbeat {
        last_version,
        time_ms: source.lsm.time_ms(),
    })
    .encode(out);
}

/// Sends the next pieces of a snapshot, each in a frame.
fn send_snapshot(encoder: &mut CheckpointEncoder, end: usize, out: &mut Vec<u8>) -> EncodeStep {
    // A piece may come to nothing: sorting a memtable takes some steps.
    let piece_count = (end - out.len()).div_ceil(SNAPSHOT_FRAME_BYTES);
    for _ in 0..piece_count {
        if out.len() >= end {
            break;
        }
        if frame::encode_snapshot_data(out, |out| encoder.next(SNAPSHOT_FRAME_BYTES, out))
            == EncodeStep::Done
        {
            return EncodeStep::Done;
        }
    }
    EncodeStep::More
}

/// Sends what follows `sent_bytes` of a batch, at most one frame; returns how much of the batch
/// that was.
fn send_part(batch: &LogBatch, sent_bytes: usize, max_bytes: usize, out: &mut Vec<u8>) -> usize {
    let mut skip = sent_bytes;
    for part in batch.parts() {
        if skip < part.len() {
            let piece = &part[skip..];
            let piece = &piece[..piece.len().min(DATA_MAX_BYTES).min(max_bytes.max(1))];
            Frame::Records(piece).encode(out);
            return piece.len();
        }
        skip -= part.len();
    }
    0
}
