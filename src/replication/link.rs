//! A link: one replication connection, as the reactor drives it.
//!
//! A link that was accepted begins with a handshake and becomes a sender; one that was dialed is a
//! receiver from the start. Links own their state machines. What a partition has to know of a link
//! it learns through [`LinkPort`], and a link that its partition has dropped ends with its next
//! call.
//!
//! Not here: sockets (`reactor/link.rs`), finding a link's partition (`node/links.rs`).

use crate::lsm::{Lsm, Options};

use super::frame::{Frame, PeerState, RefusalCode};
use super::handshake::Handshake;
use super::leader_receiver::{LeaderReceiver, ReceiverPort};
use super::link_error::{LinkError, Rejection};
use super::link_id::LinkId;
use super::replica_sender::{ReplicaSender, SenderPort};

/// What a link needs of its partition.
pub trait LinkPort: SenderPort + ReceiverPort {
    /// The state to send to the peer of a link that the partition has dropped, if any.
    fn take_farewell(&mut self, link: LinkId) -> Option<PeerState>;
}

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

    /// The partition that the link is about; none before the hello.
    pub fn partition(&self) -> Option<u32> {
        match self {
            Self::Handshake(_) => None,
            Self::Sender(sender) => Some(sender.partition()),
            Self::Receiver(receiver) => Some(receiver.partition()),
        }
    }

    /// Takes in what the peer sends after its hello. What is to be answered goes to `out`, even if
    /// the link ends. The rest of `input` is to come again once the link
    /// [wants it](Self::wants_input). `port`: the link's partition, if the node has it.
    pub fn receive(
        &mut self,
        port: Option<&mut impl LinkPort>,
        input: &mut &[u8],
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        self.run(port, out, |link, port, out| match link {
            Self::Handshake(_) => Ok(()),
            Self::Sender(sender) => sender.receive(port, input, now_ms),
            Self::Receiver(receiver) => receiver
                .receive(port, input, now_ms)
                .and_then(|()| receiver.fill(port, now_ms, out)),
        })
    }

    /// Appends what the peer is to be sent next, about `budget` bytes.
    pub fn fill(
        &mut self,
        port: Option<&mut impl LinkPort>,
        budget: usize,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        if let Self::Handshake(handshake) = self {
            let is_late = handshake.until_ms() <= now_ms;
            return if is_late {
                Err(LinkError::NoHello)
            } else {
                Ok(())
            };
        }
        self.run(port, out, |link, port, out| match link {
            Self::Handshake(_) => Ok(()),
            Self::Sender(sender) => sender.fill(port, budget, now_ms, out),
            Self::Receiver(receiver) => receiver.fill(port, now_ms, out),
        })
    }

    /// Runs a step of the link. If the link ends by it, `out` gets the last words to the peer.
    fn run<P: LinkPort>(
        &mut self,
        port: Option<&mut P>,
        out: &mut Vec<u8>,
        step: impl FnOnce(&mut Self, &mut P, &mut Vec<u8>) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        let Some(port) = port else {
            return Err(self.on_partition_removed(out));
        };
        step(self, port, out).inspect_err(|_| {
            if let Some(farewell) = self.id().and_then(|link| port.take_farewell(link)) {
                Frame::PeerState(farewell).encode(out);
            }
        })
    }

    fn id(&self) -> Option<LinkId> {
        match self {
            Self::Handshake(_) => None,
            Self::Sender(sender) => Some(sender.link()),
            Self::Receiver(receiver) => Some(receiver.link()),
        }
    }

    /// The node has removed the partition. A replica is told, so that it knows that its data grows
    /// old.
    fn on_partition_removed(&self, out: &mut Vec<u8>) -> LinkError {
        let removed = LinkError::PartitionRemoved(self.partition().unwrap_or_default());
        if let Self::Sender(_) = self {
            let rejection = Rejection::new(RefusalCode::Partition, removed.to_string());
            rejection.encode(out);
            return LinkError::Rejected(rejection);
        }
        removed
    }

    /// Whether what the peer sends can be taken in now.
    pub fn wants_input(&self, port: Option<&impl LinkPort>) -> bool {
        match (self, port) {
            (Self::Receiver(_), Some(port)) => port.is_settled() && port.wants_data(),
            (Self::Receiver(_), None) => false,
            (Self::Handshake(_) | Self::Sender(_), _) => true,
        }
    }

    /// What there is to do for the link. One that its partition has dropped is to be visited now.
    pub fn work(&self, port: Option<&impl LinkPort>, now_ms: u64) -> LinkWork {
        let ends_now = LinkWork {
            has_more: true,
            wake_at_ms: now_ms,
        };
        match (self, port) {
            (Self::Handshake(handshake), _) => LinkWork {
                has_more: false,
                wake_at_ms: handshake.until_ms(),
            },
            (_, None) => ends_now,
            (Self::Sender(sender), Some(port)) => match port.source(sender.link()) {
                Ok(source) => LinkWork {
                    has_more: sender.has_more(&source),
                    wake_at_ms: sender.wake_at_ms(),
                },
                Err(_) => ends_now,
            },
            (Self::Receiver(receiver), Some(port)) => match port.held_versions(receiver.link()) {
                Ok(_) => LinkWork {
                    has_more: false,
                    wake_at_ms: receiver.wake_at_ms(),
                },
                Err(_) => ends_now,
            },
        }
    }

    /// The connection has ended. Returns an engine that is to be freed piece by piece: that of a
    /// snapshot which did not become whole. `options`: of that engine.
    pub fn close(
        self,
        port: Option<&mut impl LinkPort>,
        reason: &LinkError,
        now_ms: u64,
        options: Options,
    ) -> Option<Lsm> {
        match self {
            Self::Handshake(_) => None,
            Self::Sender(sender) => {
                if let Some(port) = port {
                    port.on_sender_closed(sender.link(), now_ms);
                }
                None
            }
            Self::Receiver(receiver) => {
                if let Some(port) = port {
                    port.on_receiver_closed(&receiver, reason, now_ms);
                }
                receiver.into_remains(options)
            }
        }
    }
}
