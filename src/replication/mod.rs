//! The dialogue of leader and replica. Bytes in, bytes out: no socket, no clock.
//!
//! A replica dials the leader's replication socket and says what it holds (`handshake.rs`). The
//! leader goes on from there with its log, or sends a snapshot and then its log
//! (`replica_sender.rs`). The replica checks, applies and confirms (`leader_receiver.rs`).
//! `link.rs` is one connection, `frame.rs` has the bytes, and
//! `port_probe.rs` asks a leader for its port.
//!
//! Promises:
//! 1. Records arrive in order, each once: the log is a chain of checksums, and every reader checks
//!    it (`lsm/log/stream.rs`).
//! 2. A leader sends nothing that its own disk could lose while others have it: a replica is never
//!    ahead of a leader that was killed and started again. (A power cut with `--fsync interval` or
//!    `never` can take what others have; the leader then begins a history of its own, so that this
//!    shows.)
//! 3. A replica drops no data to follow a leader unless a controller named a higher epoch for the
//!    leader's data, and none at all to follow a leader that began empty. In a cluster etcd names
//!    only leaders that hold what was acknowledged, which can be nothing: it follows one that knows
//!    its data, and any where the cluster goes on once all copies in sync are gone.
//!
//! A node that takes over speaks the same dialogue with the partition's other nodes first
//! (`partition/takeover.rs`).
//!
//! Not here: roles, epochs and what they allow (`partition/`), sockets (`reactor/`).

#[cfg(test)]
mod beat_tests;
pub mod frame;
#[cfg(test)]
mod frame_tests;
mod handshake;
mod leader_receiver;
mod link;
mod link_error;
mod link_id;
mod port_probe;
mod relation;
mod replica_sender;
mod timing;

pub use frame::{FrameReader, Intent, PeerState};
pub use handshake::{HELLO_MS, Handshake, PeerHello, whole_address};
pub use leader_receiver::{
    EmptyLeaders, LeaderReceiver, ReceivedData, ReceiverEvent, ReceiverFacts, SyncState,
};
pub use link::{Link, LinkWork};
pub use link_error::{LINK_END_REASONS, LinkError, Rejection};
pub use link_id::LinkId;
pub use port_probe::{DialFailure, PortProbe};
pub use relation::{Relation, is_data_sent_to_surveyor, relation};
pub use replica_sender::{ReplicaSender, SenderFacts, SenderPhase, SenderSource};
pub use timing::{HEARTBEAT_MS, SILENCE_MS, UNHEARD_MS};
