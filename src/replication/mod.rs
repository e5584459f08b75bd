//! Replication: what a leader and a replica say to each other over the replication socket. Sans-I/O: bytes in, bytes out.
//!
//! Here so far: the frames (`frame.rs`). The leader's and the replica's side come on top of them.

mod frame;
#[cfg(test)]
mod frame_tests;

pub use frame::{
    Ack, Continue, DATA_MAX_BYTES, Frame, FrameError, FrameReader, Heartbeat, Hello, NodeId, PROTOCOL_VERSION, Refusal,
    RefusalCode, SnapshotStart, TOKEN_MAX_BYTES,
};
