//! Frames: the only home of what goes over the replication socket.
//!
//! A replica dials and says [`Hello`], and from protocol 2 on its [`PeerState`]; the leader answers
//! with its own state and with [`Continue`], [`SnapshotStart`] or [`RefusalFrame`]. After a
//! `SnapshotStart` come `SnapshotData` frames; their data put together is a checkpoint
//! (`storage/checkpoint.rs`), and after that, or after a `Continue`, `Records` frames; their data
//! put together is the log (`lsm/log/record.rs`), from the record behind the snapshot's version, or
//! behind the one in the hello. The replica sends [`Ack`]s, the leader [`Heartbeat`]s. From
//! protocol 3 on the leader may send beats, each with a number, which the replica may grant.
//!
//! All integers are little-endian.
//!
//! ```text
//! every frame
//!      0      4  len       bytes of the payload, at most 128 KiB
//!      4      1  type      as below
//!      5      3  zero
//!      8      4  CRC-32C of bytes 0..8 and of the payload
//!     12         payload
//!
//! type  from     payload
//!    1  replica  hello:     4 "dbnr", 2 protocol version, 2 token length, 4 partition, 16 copy id,
//!                           8 epoch, 16 history id, 8 version, 4 checksum of that version's
//!                           record, then the token
//!    2  leader   continue:  8 epoch, 8 the leader's version, lineage
//!    3  leader   snapshot:  8 epoch, 8 version it is complete up to, 8 bytes of data, about;
//!                           lineage
//!    4  leader   snapshot data: any piece of the checkpoint's bytes, at least one
//!    5  leader   records:   any piece of the log's bytes, at least one
//!    6  replica  ack:       8 version applied, 8 version on its disk (as applied without a disk)
//!    7  leader   heartbeat: 8 the leader's version, 8 the leader's time in Unix ms, by which
//!                           entries expire
//!    8  leader   refusal:   2 code, then what to do, as text
//!    9  leader   beat:      8 number, higher than that of the beat before; protocol 3
//!   10  replica  grant:     8 number of a beat; protocol 3
//!   11  both     state:     1 intent, 1 zero, 2 address length, 8 epoch, 8 ordered epoch, 8 epoch
//!                           of the data, 8 ordered epoch of the data, 8 version, address, lineage;
//!                           protocol 2
//!
//! intent: 0 follows, 1 surveys, 2 claims to lead, 3 claims on an order, 4 grants a claim,
//!         5 reports
//!
//! lineage: 16 history id; then for each history before it, newest first and at most 16:
//!          16 history id, 8 its end version
//! ```
//!
//! Invariants:
//! 1. A frame is given out only if its checksum holds and its payload is exactly what its type has.
//! 2. The reader holds no more than one frame, whatever a peer announces: a length over its limit
//!    is an error before anything is kept for it. Before a hello was found good that limit is the
//!    length of one.
//!
//! Not here: what a hello is answered with, and what follows.

use std::fmt;

use thiserror::Error;

use crate::lsm::LogPosition;
use crate::storage::{CopyId, HistoryId, Lineage, PastHistory, SHARED_PAST_MAX};

/// The newest protocol. Both sides speak the lower of their newest ones.
pub const PROTOCOL_VERSION: u16 = 3;

/// The first protocol with beats and grants.
pub const PROTOCOL_OF_BEATS: u16 = 3;

/// The oldest protocol that is still spoken: without [`PeerState`].
pub const PROTOCOL_MIN: u16 = 1;

/// Longest address in a [`PeerState`].
pub const ADDRESS_MAX_BYTES: usize = 512;

/// Most data in one frame: what either side spends on one at a time.
pub const DATA_MAX_BYTES: usize = 128 * 1024;

/// Longest token.
pub const TOKEN_MAX_BYTES: usize = 4096;

const HEAD_BYTES: usize = 12;
const HELLO_MAGIC: &[u8; 4] = b"dbnr";
const HELLO_BYTES: usize = 64;

const HELLO: u8 = 1;
const CONTINUE: u8 = 2;
const SNAPSHOT_START: u8 = 3;
const SNAPSHOT_DATA: u8 = 4;
const RECORDS: u8 = 5;
const ACK: u8 = 6;
const HEARTBEAT: u8 = 7;
const REFUSAL: u8 = 8;
const BEAT: u8 = 9;
const GRANT: u8 = 10;
const PEER_STATE: u8 = 11;

/// The first frame of a replica: which node it is, and what data it holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hello<'a> {
    /// Of the protocol.
    pub protocol_version: u16,
    /// The partition that the link is about.
    pub partition: u32,
    /// The id of the replica's copy.
    pub copy: CopyId,
    /// The highest epoch it has heard of.
    pub epoch: u64,
    /// The lineage of what it holds.
    pub history: HistoryId,
    /// Where its data ends; version 0: it holds nothing.
    pub position: LogPosition,
    /// The secret, empty if there is none.
    pub token: &'a [u8],
}

impl fmt::Debug for Hello<'_> {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("protocol_version", &self.protocol_version)
            .field("partition", &self.partition)
            .field("copy", &self.copy)
            .field("epoch", &self.epoch)
            .field("history", &self.history)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// The leader's answer if its log has what the replica lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continue {
    /// The epoch of the leader's data: that which it leads in, or of a replica that feeds others,
    /// that of its leader.
    pub epoch: u64,
    /// The leader's newest version.
    pub last_version: u64,
    /// The lineage that goes on.
    pub lineage: Lineage,
}

/// The leader's answer if its log lacks something: all data follows as a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotStart {
    /// The epoch of the leader's data: that which it leads in, or of a replica that feeds others,
    /// that of its leader.
    pub epoch: u64,
    /// The version that the snapshot is complete up to.
    pub version: u64,
    /// About how many bytes the snapshot has.
    pub about_bytes: u64,
    /// The lineage of the data.
    pub lineage: Lineage,
}

/// What the replica has applied and stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// Applied up to here.
    pub applied_version: u64,
    /// On its disk up to here; as applied if it has none.
    pub durable_version: u64,
}

/// Shows that the leader is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Its newest version.
    pub last_version: u64,
    /// The leader's time, in Unix ms.
    pub time_ms: u64,
}

/// Why a node refuses a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum RefusalCode {
    /// Another protocol version.
    Protocol = 1,
    /// The token is wrong or missing.
    Token = 2,
    /// The node does not have the partition.
    Partition = 3,
    /// This node leads nothing that the replica could follow.
    NotLeader = 4,
    /// The replica has heard of a higher epoch, or claims what cannot be.
    Epoch = 5,
    /// Too many snapshots are being sent: try again.
    Busy = 6,
    /// The replica holds data that this node lacks: an operator must say which is to be kept.
    Ahead = 7,
}

impl RefusalCode {
    const ALL: [Self; 7] = [
        Self::Protocol,
        Self::Token,
        Self::Partition,
        Self::NotLeader,
        Self::Epoch,
        Self::Busy,
        Self::Ahead,
    ];
}

/// The leader refuses the replica and closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalFrame<'a> {
    /// Why.
    pub code: RefusalCode,
    /// The reason in words and what to do about it, for the log.
    pub text: &'a str,
}

/// What a node wants of its peer when it sends its [`PeerState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Intent {
    /// It follows the peer as its leader.
    Follow = 0,
    /// It is to lead, and first takes what the peer has and it lacks.
    Survey = 1,
    /// It is about to lead in an epoch that it chose itself, or leads in it.
    Claim = 2,
    /// It is about to lead in an epoch that a controller named, or that it led in before, or leads
    /// in it.
    OrderedClaim = 3,
    /// It grants the peer's claim: it leads no more and takes nothing from leaders of lower epochs.
    Grant = 4,
    /// It reports its state.
    Report = 5,
}

impl Intent {
    const ALL: [Self; 6] = [
        Self::Follow,
        Self::Survey,
        Self::Claim,
        Self::OrderedClaim,
        Self::Grant,
        Self::Report,
    ];
}

/// The state of a node: its epochs and its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerState {
    /// What it wants.
    pub intent: Intent,
    /// The highest epoch that it has taken a role in or granted.
    pub epoch: u64,
    /// The highest epoch that a controller named, as far as the node has heard.
    pub ordered_epoch: u64,
    /// The epoch of its data.
    pub data_epoch: u64,
    /// The epoch of its data, as a controller named it; 0: none did.
    pub data_ordered_epoch: u64,
    /// Its newest version.
    pub last_version: u64,
    /// The lineage of its data.
    pub lineage: Lineage,
    /// The HTTP address of the leader as the node knows it: its own when it claims. `:port` means
    /// the host that the connection comes from; empty: not known.
    pub address: String,
}

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// See [`Hello`].
    Hello(Hello<'a>),
    /// See [`Continue`].
    Continue(Continue),
    /// See [`SnapshotStart`].
    SnapshotStart(SnapshotStart),
    /// A piece of the checkpoint's bytes.
    SnapshotData(&'a [u8]),
    /// A piece of the log's bytes.
    Records(&'a [u8]),
    /// See [`Ack`].
    Ack(Ack),
    /// See [`Heartbeat`].
    Heartbeat(Heartbeat),
    /// See [`RefusalFrame`].
    Refusal(RefusalFrame<'a>),
    /// A leader asks its replica for a grant of this number.
    Beat(u64),
    /// A replica grants the beat of this number.
    Grant(u64),
    /// See [`PeerState`].
    PeerState(PeerState),
}

/// Received bytes are no frame: close the connection. The text says why.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct FrameError(pub &'static str);

impl Frame<'_> {
    /// Appends the frame. Data is at most [`DATA_MAX_BYTES`] long and not empty, a token at most
    /// [`TOKEN_MAX_BYTES`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = begin(out);
        let kind = match self {
            Self::Hello(hello) => {
                encode_hello(hello, out);
                HELLO
            }
            Self::Continue(answer) => {
                encode_numbers(&[answer.epoch, answer.last_version], out);
                encode_lineage(&answer.lineage, out);
                CONTINUE
            }
            Self::SnapshotStart(start) => {
                encode_numbers(&[start.epoch, start.version, start.about_bytes], out);
                encode_lineage(&start.lineage, out);
                SNAPSHOT_START
            }
            Self::SnapshotData(data) => {
                encode_data(data, out);
                SNAPSHOT_DATA
            }
            Self::Records(data) => {
                encode_data(data, out);
                RECORDS
            }
            Self::Ack(ack) => {
                encode_numbers(&[ack.applied_version, ack.durable_version], out);
                ACK
            }
            Self::Heartbeat(heartbeat) => {
                encode_numbers(&[heartbeat.last_version, heartbeat.time_ms], out);
                HEARTBEAT
            }
            Self::Refusal(RefusalFrame { code, text }) => {
                out.extend_from_slice(&(*code as u16).to_le_bytes());
                out.extend_from_slice(&text.as_bytes()[..text.floor_char_boundary(1024)]);
                REFUSAL
            }
            Self::Beat(number) => {
                encode_numbers(&[*number], out);
                BEAT
            }
            Self::Grant(number) => {
                encode_numbers(&[*number], out);
                GRANT
            }
            Self::PeerState(state) => {
                encode_peer_state(state, out);
                PEER_STATE
            }
        };
        finish(out, start, kind);
    }
}

/// Appends a `SnapshotData` frame with what `append` puts behind, at most [`DATA_MAX_BYTES`]; none
/// if that is nothing.
pub fn encode_snapshot_data<T>(out: &mut Vec<u8>, append: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    let start = begin(out);
    let result = append(out);
    if out.len() == start + HEAD_BYTES {
        out.truncate(start);
    } else {
        finish(out, start, SNAPSHOT_DATA);
    }
    result
}

fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    start
}

fn finish(out: &mut [u8], start: usize, kind: u8) {
    let payload_bytes = out.len() - start - HEAD_BYTES;
    assert!(
        payload_bytes <= DATA_MAX_BYTES,
        "a payload of {payload_bytes} bytes"
    );
    let len = u32::try_from(payload_bytes).expect("payloads are small");
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
    out[start + 4] = kind;
    let checksum = checksum_of(&out[start..]);
    out[start + 8..start + HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

fn encode_numbers(numbers: &[u64], out: &mut Vec<u8>) {
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn encode_data(data: &[u8], out: &mut Vec<u8>) {
    let len = data.len();
    assert!((1..=DATA_MAX_BYTES).contains(&len), "{len} bytes of data");
    out.extend_from_slice(data);
}

fn encode_hello(hello: &Hello<'_>, out: &mut Vec<u8>) {
    let token_bytes = hello.token.len();
    assert!(
        token_bytes <= TOKEN_MAX_BYTES,
        "a token of {token_bytes} bytes"
    );
    let token_len = u16::try_from(token_bytes).expect("checked");
    out.extend_from_slice(HELLO_MAGIC);
    out.extend_from_slice(&hello.protocol_version.to_le_bytes());
    out.extend_from_slice(&token_len.to_le_bytes());
    out.extend_from_slice(&hello.partition.to_le_bytes());
    out.extend_from_slice(&hello.copy.0);
    out.extend_from_slice(&hello.epoch.to_le_bytes());
    out.extend_from_slice(&hello.history.0);
    out.extend_from_slice(&hello.position.version.to_le_bytes());
    out.extend_from_slice(&hello.position.checksum.to_le_bytes());
    out.extend_from_slice(hello.token);
}

fn encode_peer_state(state: &PeerState, out: &mut Vec<u8>) {
    let address = &state.address.as_bytes()[..state.address.floor_char_boundary(ADDRESS_MAX_BYTES)];
    out.extend_from_slice(&[state.intent as u8, 0]);
    let address_len = u16::try_from(address.len()).expect("cut to its longest");
    out.extend_from_slice(&address_len.to_le_bytes());
    encode_numbers(&[state.epoch, state.ordered_epoch], out);
    encode_numbers(&[state.data_epoch, state.data_ordered_epoch], out);
    encode_numbers(&[state.last_version], out);
    out.extend_from_slice(address);
    encode_lineage(&state.lineage, out);
}

fn encode_lineage(lineage: &Lineage, out: &mut Vec<u8>) {
    out.extend_from_slice(&lineage.history().0);
    for past in lineage.past().take(SHARED_PAST_MAX) {
        out.extend_from_slice(&past.history.0);
        out.extend_from_slice(&past.end_version.to_le_bytes());
    }
}

/// The checksum of a whole frame, whatever stands in its own place.
fn checksum_of(frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&frame[..8]), &frame[HEAD_BYTES..])
}

/// Takes fields off the front of a payload.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (field, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(FrameError("a frame that is too short"))?;
        self.0 = rest;
        Ok(*field)
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        self.array().map(u64::from_le_bytes)
    }

    fn history(&mut self) -> Result<HistoryId, FrameError> {
        self.array().map(HistoryId)
    }

    fn address(&mut self, len: usize) -> Result<String, FrameError> {
        let too_short = FrameError("a frame that is too short");
        let (address, rest) = self.0.split_at_checked(len).ok_or(too_short)?;
        self.0 = rest;
        let text = str::from_utf8(address).ok();
        let text = text.filter(|_| len <= ADDRESS_MAX_BYTES).map(str::to_owned);
        text.ok_or(FrameError("a state with an impossible address"))
    }

    /// A lineage, which is all that is left.
    fn lineage(&mut self) -> Result<Lineage, FrameError> {
        let history = self.history()?;
        let mut past = Vec::new();
        while !self.0.is_empty() {
            if past.len() == SHARED_PAST_MAX {
                return Err(FrameError("a frame that is too long"));
            }
            past.push(PastHistory {
                history: self.history()?,
                end_version: self.u64()?,
            });
        }
        Ok(Lineage::with_past(history, past))
    }

    fn end(&self) -> Result<(), FrameError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(FrameError("a frame that is too long"))
        }
    }

    fn data(self) -> Result<&'a [u8], FrameError> {
        if self.0.is_empty() {
            Err(FrameError("a frame without data"))
        } else {
            Ok(self.0)
        }
    }
}

fn decode(kind: u8, payload: &[u8]) -> Result<Frame<'_>, FrameError> {
    let mut fields = Fields(payload);
    let frame = match kind {
        HELLO => return decode_hello(fields),
        CONTINUE => Frame::Continue(Continue {
            epoch: fields.u64()?,
            last_version: fields.u64()?,
            lineage: fields.lineage()?,
        }),
        SNAPSHOT_START => Frame::SnapshotStart(SnapshotStart {
            epoch: fields.u64()?,
            version: fields.u64()?,
            about_bytes: fields.u64()?,
            lineage: fields.lineage()?,
        }),
        SNAPSHOT_DATA => return fields.data().map(Frame::SnapshotData),
        RECORDS => return fields.data().map(Frame::Records),
        ACK => Frame::Ack(Ack {
            applied_version: fields.u64()?,
            durable_version: fields.u64()?,
        }),
        HEARTBEAT => Frame::Heartbeat(Heartbeat {
            last_version: fields.u64()?,
            time_ms: fields.u64()?,
        }),
        REFUSAL => {
            let code = u16::from_le_bytes(fields.array()?);
            let code = RefusalCode::ALL
                .into_iter()
                .find(|known| *known as u16 == code);
            let text = std::str::from_utf8(fields.0)
                .map_err(|_| FrameError("a refusal that is not text"))?;
            return Ok(Frame::Refusal(RefusalFrame {
                code: code.ok_or(FrameError("an unknown refusal"))?,
                text,
            }));
        }
        BEAT => Frame::Beat(fields.u64()?),
        GRANT => Frame::Grant(fields.u64()?),
        PEER_STATE => Frame::PeerState(decode_peer_state(&mut fields)?),
        _ => return Err(FrameError("a frame of an unknown type")),
    };
    fields.end()?;
    Ok(frame)
}

fn decode_peer_state(fields: &mut Fields<'_>) -> Result<PeerState, FrameError> {
    let [intent, zero] = fields.array()?;
    let intent = Intent::ALL.into_iter().find(|known| *known as u8 == intent);
    let address_len = usize::from(u16::from_le_bytes(fields.array()?));
    let unknown = FrameError("a state of unknown intent");
    Ok(PeerState {
        intent: intent.filter(|_| zero == 0).ok_or(unknown)?,
        epoch: fields.u64()?,
        ordered_epoch: fields.u64()?,
        data_epoch: fields.u64()?,
        data_ordered_epoch: fields.u64()?,
        last_version: fields.u64()?,
        address: fields.address(address_len)?,
        lineage: fields.lineage()?,
    })
}

fn decode_hello(mut fields: Fields<'_>) -> Result<Frame<'_>, FrameError> {
    if fields.array()? != *HELLO_MAGIC {
        return Err(FrameError("a hello that is none"));
    }
    let protocol_version = u16::from_le_bytes(fields.array()?);
    let token_len = usize::from(u16::from_le_bytes(fields.array()?));
    let hello = Hello {
        protocol_version,
        partition: u32::from_le_bytes(fields.array()?),
        copy: CopyId(fields.array()?),
        epoch: fields.u64()?,
        history: fields.history()?,
        position: LogPosition {
            version: fields.u64()?,
            checksum: u32::from_le_bytes(fields.array()?),
        },
        token: fields.0,
    };
    if hello.token.len() != token_len || token_len > TOKEN_MAX_BYTES {
        return Err(FrameError("a hello with a token of the wrong length"));
    }
    Ok(Frame::Hello(hello))
}

const _: () = assert!(HELLO_BYTES == 4 + 2 + 2 + 4 + 16 + 8 + 16 + 8 + 4);
const _: () = assert!(HELLO_MAX_BYTES <= DATA_MAX_BYTES);

/// Longest payload of a hello.
pub const HELLO_MAX_BYTES: usize = HELLO_BYTES + TOKEN_MAX_BYTES;

/// Makes frames of the bytes of a socket.
#[derive(Debug)]
pub struct FrameReader {
    /// Longest payload taken.
    max_bytes: usize,
    /// Bytes of a frame that is not whole yet, or of one that was given out.
    partial: Vec<u8>,
    /// `partial` was given out.
    is_spent: bool,
}

impl FrameReader {
    /// A reader that takes payloads up to a length.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            partial: Vec::new(),
            is_spent: false,
        }
    }

    /// The frame that `input` begins with or completes; moves `input` on. `None`: all of it was
    /// taken, and more is needed.
    pub fn next<'f, 'i: 'f>(
        &'f mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Frame<'f>>, FrameError> {
        if std::mem::take(&mut self.is_spent) {
            self.partial.clear();
        }
        let wanted = wanted_bytes(input, self.max_bytes);
        if self.partial.is_empty()
            && input.len() >= HEAD_BYTES
            && let Some((frame, rest)) = input.split_at_checked(wanted?)
        {
            *input = rest;
            return checked(frame).map(Some);
        }
        // The head first, since it tells how much follows.
        for _ in 0..2 {
            let wanted =
                wanted_bytes(&self.partial, self.max_bytes)?.saturating_sub(self.partial.len());
            let (taken, rest) = input.split_at(wanted.min(input.len()));
            self.partial.extend_from_slice(taken);
            *input = rest;
        }
        if self.partial.len() < HEAD_BYTES
            || self.partial.len() < wanted_bytes(&self.partial, self.max_bytes)?
        {
            return Ok(None);
        }
        self.is_spent = true;
        checked(&self.partial).map(Some)
    }
}

/// Bytes to have of a frame that begins so, before more can be said: those of the head, then all of
/// it.
fn wanted_bytes(partial: &[u8], max_bytes: usize) -> Result<usize, FrameError> {
    let Some(head) = partial.first_chunk::<HEAD_BYTES>() else {
        return Ok(HEAD_BYTES);
    };
    let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if len > max_bytes || head[5..8] != [0; 3] {
        return Err(FrameError("a frame with an impossible head"));
    }
    Ok(HEAD_BYTES + len)
}

fn checked(frame: &[u8]) -> Result<Frame<'_>, FrameError> {
    let stored = u32::from_le_bytes([frame[8], frame[9], frame[10], frame[11]]);
    if stored != checksum_of(frame) {
        return Err(FrameError("a frame whose checksum does not hold"));
    }
    decode(frame[4], &frame[HEAD_BYTES..])
}
