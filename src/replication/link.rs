//! A link: one replication connection.
//!
//! A link that was accepted begins with a handshake and becomes a sender; one that was dialed is a
//! receiver from the start. Links own their state machines.
//!
//! Not here: sockets (`reactor/link.rs`), finding a link's partition (`node/links.rs`), what a
//! partition does for its links (`partition/links.rs`).

use super::frame::RefusalCode;
use super::handshake::Handshake;
use super::leader_receiver::LeaderReceiver;
use super::link_error::{LinkError, Rejection};
use super::link_id::LinkId;
use super::replica_sender::ReplicaSender;

/// A replication connection.
#[derive(Debug)]
pub enum Link {
    /// The peer has not said all of its hello yet.
    Handshake(Box<Handshake>),
    /// The peer is a replica, or a node that claims to lead.
    Sender(Box<ReplicaSender>),
    /// The peer is the leader, or a node that a takeover visits.
    Receiver(Box<LeaderReceiver>),
}

/// What there is to do for a link without an event from its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkWork {
    /// Whether there is something to send.
    pub has_more: bool,
    /// When to visit the link at the latest.
    pub wake_at_ms: u64,
}

impl Link {
    /// A connection from an address that was just accepted.
    pub fn accepted(address: String, now_ms: u64) -> Self {
        Self::Handshake(Box::new(Handshake::new(address, now_ms)))
    }

    /// Whether the peer has not said hello yet.
    pub fn is_handshake(&self) -> bool {
        matches!(self, Self::Handshake(_))
    }

    /// The link's number, and the partition that it is about; none before the hello.
    pub fn subject(&self) -> Option<(LinkId, u32)> {
        match self {
            Self::Handshake(_) => None,
            Self::Sender(sender) => Some((sender.link, sender.partition)),
            Self::Receiver(receiver) => Some((receiver.link, receiver.partition)),
        }
    }

    /// The node has removed the partition. A replica is told, so that it knows that its data grows
    /// old.
    pub fn on_partition_removed(&self, out: &mut Vec<u8>) -> LinkError {
        let partition = self.subject().map_or(0, |(_, partition)| partition);
        let removed = LinkError::PartitionRemoved(partition);
        if let Self::Sender(_) = self {
            let text = format!("partition {partition} was given up by that node");
            let rejection = Rejection::new(RefusalCode::Partition, text);
            rejection.encode(out);
            return LinkError::Rejected(rejection);
        }
        removed
    }
}
