//! What leader and replica say to each other, and when. Bytes in, bytes out: no socket, no clock.
//!
//! A replica dials the leader's replication socket and says what it holds; the leader goes on from
//! there with its log, or sends a snapshot and then its log (`replica_sender.rs`); the replica checks,
//! applies and confirms (`leader_receiver.rs`). The bytes are in `frame.rs`, the question for the leader's
//! port in `port_probe.rs`.
//!
//! Promises:
//! 1. Records arrive in order, each once: the log is a chain of checksums, and every reader checks
//!    it (`lsm/log/stream.rs`).
//! 2. A leader sends nothing that its own disk could lose while others have it: a replica is never
//!    ahead of a leader that was killed and started again. (A power cut with `--fsync interval` or
//!    `never` can take what others have; the leader then begins a history of its own, so that this
//!    shows.)
//! 3. A replica drops nothing that it holds to follow a leader unless a controller named a higher
//!    epoch for the leader's data, and nothing at all to follow a leader that began empty.
//!
//! A node that is to lead speaks the same dialogue with the partition's other nodes first
//! (`partition/takeover.rs`).
//!
//! Not here: roles, epochs and what they allow (`partition/`), sockets (`reactor/`).

pub mod frame;
#[cfg(test)]
mod frame_tests;
mod leader_receiver;
mod port_probe;
mod relation;
mod replica_sender;

use std::fmt;

use crate::lsm::LogPosition;
use crate::storage::HistoryId;

pub use frame::{FrameReader, Intent, NodeId, PeerState};
pub use leader_receiver::{LeaderReceiver, ReceivedData, ReceiverEvent, SyncState};
pub use port_probe::{PortProbe, PortProbeError};
pub use relation::{Relation, is_feed_expected, relation};
pub use replica_sender::{ReplicaSender, SenderSource, SenderStats};

/// A connection without anything to say repeats itself so often, so that the other side knows that
/// it is there.
pub const HEARTBEAT_MS: u64 = 1_000;

/// A peer that is silent for so long is given up: ten heartbeats.
pub const SILENCE_MS: u64 = 10_000;

/// A peer that was silent for so long is not heard: two heartbeats were missed.
pub const UNHEARD_MS: u64 = 2 * HEARTBEAT_MS + HEARTBEAT_MS / 4;

/// A node that has connected and presented the right token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHello {
    /// The protocol that both sides speak.
    pub protocol: u16,
    /// The partition it wants.
    pub partition: u32,
    /// Its id.
    pub node_id: NodeId,
    /// The highest epoch it has heard of.
    pub epoch: u64,
    /// The history of its data.
    pub history: HistoryId,
    /// Where its data ends; version 0: it holds nothing.
    pub position: LogPosition,
    /// What else it tells of itself; none with protocol 1.
    pub state: Option<PeerState>,
}

impl PeerHello {
    /// What it wants.
    pub fn intent(&self) -> Intent {
        self.state
            .as_ref()
            .map_or(Intent::Follow, |state| state.intent)
    }
}

/// The address that a peer told, made whole with the host that the peer is at: `:9001` is a port
/// there. Empty: not known.
pub fn whole_address(told: &str, host: &str) -> String {
    match told.strip_prefix(':') {
        Some(port) => format!("http://{host}:{port}"),
        None => told.to_owned(),
    }
}

/// A connection is to be closed, for this reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkError(pub String);

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<frame::FrameError> for LinkError {
    fn from(error: frame::FrameError) -> Self {
        Self(format!("the peer sent {}", error.0))
    }
}
