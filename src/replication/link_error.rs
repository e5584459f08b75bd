//! Why a replication link ends.

use std::fmt;

use crate::metrics::LINK_END_COUNT;

use super::frame::{Frame, FrameError, RefusalCode, RefusalFrame};
use super::timing::SILENCE_MS;

/// A node refuses to be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The reason.
    pub code: RefusalCode,
    /// The reason in words, and what to do about it.
    pub text: String,
}

impl Rejection {
    /// A rejection with its words.
    pub fn new(code: RefusalCode, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, text }
    }

    /// Appends the frame that tells the peer.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (code, text) = (self.code, &self.text[..]);
        Frame::Refusal(RefusalFrame { code, text }).encode(out);
    }
}

/// The reasons for which links end, as labels of metrics.
pub const LINK_END_REASONS: [&str; LINK_END_COUNT] = [
    "closed",
    "lost",
    "silent",
    "no_hello",
    "displaced",
    "protocol",
    "damaged",
    "not_followed",
    "refused",
    "rejected",
    "too_far_behind",
    "role_changed",
    "partition_removed",
    "visit_over",
];

/// Why a link ends: close its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// The peer has closed the connection.
    Closed,
    /// The connection has failed.
    Lost(String),
    /// The peer, which is named, sent nothing for [`SILENCE_MS`].
    Silent(&'static str),
    /// A new connection did not say hello in time.
    NoHello,
    /// A newer connection needed the place of this one, which had not said hello.
    Displaced,
    /// The peer sent bytes that are no frame.
    Frame(FrameError),
    /// The peer sent a frame that the protocol does not allow at this point.
    Protocol(&'static str),
    /// The peer's data is damaged, or does not continue the data of this node.
    Damaged(String),
    /// The peer's data or epoch cannot be followed. The text says what an operator can do.
    NotFollowed(String),
    /// The peer has refused this node.
    Refused(String),
    /// This node has refused the peer.
    Rejected(Rejection),
    /// The replica needs more log than is kept for one replica.
    TooFarBehind,
    /// This node has changed its role, its leader or its data.
    RoleChanged,
    /// This node has removed the partition.
    PartitionRemoved(u32),
    /// A takeover has what it needs of the peer, or asks it again later.
    VisitOver(String),
}

impl LinkError {
    /// Whether the peer is at fault: it broke the protocol or sent damaged data.
    pub fn is_fault_of_peer(&self) -> bool {
        matches!(self, Self::Frame(_) | Self::Protocol(_) | Self::Damaged(_))
    }

    /// The reason as a number, for counting: an index into [`LINK_END_REASONS`].
    pub fn number(&self) -> usize {
        match self {
            Self::Closed => 0,
            Self::Lost(_) => 1,
            Self::Silent(_) => 2,
            Self::NoHello => 3,
            Self::Displaced => 4,
            Self::Frame(_) | Self::Protocol(_) => 5,
            Self::Damaged(_) => 6,
            Self::NotFollowed(_) => 7,
            Self::Refused(_) => 8,
            Self::Rejected(_) => 9,
            Self::TooFarBehind => 10,
            Self::RoleChanged => 11,
            Self::PartitionRemoved(_) => 12,
            Self::VisitOver(_) => 13,
        }
    }

    /// How important the end of the link is to an operator.
    pub fn log_level(&self) -> log::Level {
        match self {
            Self::NotFollowed(_) => log::Level::Warn,
            _ if self.is_fault_of_peer() => log::Level::Warn,
            Self::VisitOver(_) => log::Level::Debug,
            _ => log::Level::Info,
        }
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the other side has closed the connection"),
            Self::Lost(reason) => write!(f, "the connection was lost: {reason}"),
            Self::Silent(peer) => write!(f, "the {peer} was silent for {SILENCE_MS} ms"),
            Self::NoHello => f.write_str("a stranger did not say hello in time"),
            Self::Displaced => f.write_str("a stranger made room for a newer connection"),
            Self::Frame(error) => write!(f, "the peer sent {}", error.0),
            Self::Protocol(problem) => f.write_str(problem),
            Self::Damaged(problem) | Self::NotFollowed(problem) | Self::VisitOver(problem) => {
                f.write_str(problem)
            }
            Self::Refused(text) => write!(f, "the leader refuses: {text}"),
            Self::Rejected(rejection) => {
                write!(f, "a replica is turned away: {}", rejection.text)
            }
            Self::TooFarBehind => {
                f.write_str("the replica pins more log than is kept for one: it starts over")
            }
            Self::RoleChanged => f.write_str("the role of this node has changed"),
            Self::PartitionRemoved(id) => {
                write!(f, "partition {id} was given up by this node")
            }
        }
    }
}

impl From<FrameError> for LinkError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}
