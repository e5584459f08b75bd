//! Why a replication link ends.

use thiserror::Error;

use crate::metrics::LINK_END_COUNT;

use super::frame::{Frame, FrameError, RefusalCode, RefusalFrame};
use super::timing::SILENCE_MS;

/// A node refuses to be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The reason.
    pub code: RefusalCode,
    /// The reason in words, and what to do about it: `this node` is the one that is told, `that
    /// node` the one that refuses.
    pub text: String,
}

impl Rejection {
    /// A rejection with its words.
    pub fn new(code: RefusalCode, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, text }
    }

    /// The peer is to try again.
    pub fn busy(text: impl Into<String>) -> Self {
        Self::new(RefusalCode::Busy, text)
    }

    /// The peer is to follow another node.
    pub fn not_leader(text: impl Into<String>) -> Self {
        Self::new(RefusalCode::NotLeader, text)
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
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LinkError {
    /// The peer has closed the connection.
    #[error("the other side has closed the connection")]
    Closed,
    /// The connection has failed.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The peer, which is named, sent nothing for [`SILENCE_MS`].
    #[error("the {0} was silent for {SILENCE_MS} ms")]
    Silent(&'static str),
    /// A new connection did not say hello in time.
    #[error("a stranger did not say hello in time")]
    NoHello,
    /// A newer connection needed the place of this one, which had not said hello.
    #[error("a stranger made room for a newer connection")]
    Displaced,
    /// The peer sent bytes that are no frame.
    #[error("the peer sent {0}")]
    Frame(#[from] FrameError),
    /// The peer sent an HTTP request. HTTP is on the port that is named.
    #[error("an HTTP request came: this is the replication port; HTTP is on port {0}")]
    Http(u16),
    /// The peer sent a frame that the protocol does not allow at this point.
    #[error("{0}")]
    Protocol(&'static str),
    /// The peer's data is damaged, or does not continue the data of this node.
    #[error("{0}")]
    Damaged(String),
    /// The peer's data or epoch cannot be followed. The text says what an operator can do.
    #[error("{0}")]
    NotFollowed(String),
    /// The peer has refused this node.
    #[error("the leader refuses: {0}")]
    Refused(String),
    /// The peer has refused the token of this node.
    #[error("the leader refuses this node's token: give both nodes the same --token-file")]
    TokenRefused,
    /// This node has refused the peer, in words that the peer gets.
    #[error("a replica is turned away, and told: {}", .0.text)]
    Rejected(Rejection),
    /// The replica needs more log than is kept for one replica.
    #[error("the replica pins more log than is kept for one: it starts over")]
    TooFarBehind,
    /// This node has changed its role, its leader or its data.
    #[error("the role of this node has changed")]
    RoleChanged,
    /// This node has removed the partition.
    #[error("partition {0} was given up by this node")]
    PartitionRemoved(u32),
    /// A takeover has what it needs of the peer, or asks it again later.
    #[error("{0}")]
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
            Self::Frame(_) | Self::Http(_) | Self::Protocol(_) => 5,
            Self::Damaged(_) => 6,
            Self::NotFollowed(_) => 7,
            Self::Refused(_) | Self::TokenRefused => 8,
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
            Self::NotFollowed(_) | Self::TokenRefused => log::Level::Warn,
            _ if self.is_fault_of_peer() => log::Level::Warn,
            Self::VisitOver(_) => log::Level::Debug,
            _ => log::Level::Info,
        }
    }
}
