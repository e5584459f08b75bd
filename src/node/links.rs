//! The node's side of replication connections: which node is at the other end, and what is said.
//!
//! Invariants:
//! 1. Nothing of a peer counts before its hello was found good, the token included.
//! 2. A connection belongs to one partition, which forgets it when its role changes; then it is
//!    closed.
//!
//! Not here: sockets, and how much is read from which when (`reactor/`).

use crate::partition::{LinkId, Peer};
use crate::replication::frame::{
    Frame, FrameReader, HELLO_MAX_BYTES, PROTOCOL_MIN, PROTOCOL_VERSION, Refusal, RefusalCode,
};
use crate::replication::{LinkError, PeerHello};

use super::Node;

/// A replica says hello with its first bytes: a connection that has not done so after this long is
/// closed.
pub const HELLO_MS: u64 = 2_000;

/// The other end of a connection.
#[derive(Debug)]
pub enum Link {
    /// A peer that has not said hello yet.
    Stranger {
        /// What came of the hello.
        reader: FrameReader,
        /// The hello, while what the node tells of itself has yet to come.
        hello: Option<Box<PeerHello>>,
        /// Where it connects from.
        address: String,
        /// When it connected.
        since_ms: u64,
    },
    /// A replica or the leader of a partition.
    Of {
        /// The partition.
        partition: u32,
        /// Which of the two.
        peer: Peer,
    },
}

/// A leader to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialRequest {
    /// On behalf of this partition.
    pub partition: u32,
    /// Its HTTP address, as given.
    pub leader: String,
    /// How long finding its port, and connecting to that, may take each.
    pub timeout_ms: u64,
}

/// … for a leader that is to be followed.
const DIAL_TIMEOUT_MS: u64 = 3_000;

/// … for a node that a takeover visits: the partition has no leader meanwhile.
const VISIT_TIMEOUT_MS: u64 = 1_000;

impl Link {
    /// A connection that was just accepted.
    pub fn accepted(address: String, now_ms: u64) -> Self {
        Self::Stranger {
            reader: FrameReader::new(HELLO_MAX_BYTES),
            hello: None,
            address,
            since_ms: now_ms,
        }
    }

    /// Whether it has not said hello yet.
    pub fn is_stranger(&self) -> bool {
        matches!(self, Self::Stranger { .. })
    }
}

impl Node {
    /// Takes in what a peer sends; what is to be answered goes to `out`, even if the connection
    /// ends with it. What is left of `input` is to come again once
    /// [`wants_input`](Self::wants_input).
    pub fn receive(
        &mut self,
        id: LinkId,
        link: &mut Link,
        input: &mut &[u8],
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        if let Link::Stranger {
            reader,
            hello,
            address,
            ..
        } = link
        {
            let Some(greeting) = self.read_hello(reader, hello, input, out)? else {
                return Ok(());
            };
            let refusal = match self.index_of(greeting.partition) {
                None if self.loading().is_some() => {
                    (RefusalCode::Busy, "the node is loading its data".to_owned())
                }
                None => (
                    RefusalCode::Partition,
                    format!("partition {} is not here", greeting.partition),
                ),
                Some(index) => {
                    match self.partitions[index].greet(id, address, &greeting, now_ms, out) {
                        Ok(()) => {
                            *link = Link::Of {
                                partition: greeting.partition,
                                peer: Peer::Replica,
                            };
                            return self.receive(id, link, input, now_ms, out);
                        }
                        Err(turned) => (turned.code, turned.text),
                    }
                }
            };
            return Err(turn_away(refusal.0, &refusal.1, out));
        }
        let Link::Of { partition, peer } = *link else {
            return Ok(());
        };
        let Ok(partition) = self.partition(partition) else {
            return Err(gone(partition, peer, out));
        };
        let outcome = match peer {
            Peer::Replica => partition.receive_from_replica(id, input, now_ms),
            Peer::Leader => partition
                .receive_from_leader(id, input, now_ms)
                .and_then(|()| partition.confirm_to_leader(id, now_ms, out)),
        };
        if outcome.is_err() {
            partition.say_farewell(id, out);
        }
        outcome
    }

    /// Reads what a node says first: its hello, and with protocol 2 what it tells of itself.
    fn read_hello(
        &self,
        reader: &mut FrameReader,
        hello: &mut Option<Box<PeerHello>>,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<PeerHello>, LinkError> {
        while let Some(frame) = reader.next(input)? {
            match (frame, hello.take()) {
                (Frame::Hello(said), None) => {
                    let token = self.config.token.as_ref();
                    if !token.is_none_or(|token| token.matches(said.token)) {
                        let text =
                            "the token is missing or wrong: give both nodes the same --token-file";
                        return Err(turn_away(RefusalCode::Token, text, out));
                    }
                    if said.protocol_version < PROTOCOL_MIN {
                        let text = format!(
                            "this node speaks protocol {PROTOCOL_MIN} to {PROTOCOL_VERSION}: \
                             upgrade the older node"
                        );
                        return Err(turn_away(RefusalCode::Protocol, &text, out));
                    }
                    let greeting = PeerHello {
                        protocol: said.protocol_version.min(PROTOCOL_VERSION),
                        partition: said.partition,
                        node_id: said.node_id,
                        epoch: said.epoch,
                        history: said.history,
                        position: said.position,
                        state: None,
                    };
                    if greeting.protocol == PROTOCOL_MIN {
                        return Ok(Some(greeting));
                    }
                    *hello = Some(Box::new(greeting));
                }
                (Frame::PeerState(state), Some(mut greeting)) => {
                    let is_same = state.epoch == greeting.epoch
                        && state.last_version == greeting.position.version;
                    if !is_same {
                        return Err(LinkError("a node contradicts its own hello".to_owned()));
                    }
                    greeting.state = Some(state);
                    return Ok(Some(*greeting));
                }
                _ => return Err(LinkError("a stranger did not say hello".to_owned())),
            }
        }
        Ok(None)
    }

    /// Appends what a peer is to be sent next, about `budget` bytes.
    pub fn fill(
        &mut self,
        id: LinkId,
        link: &Link,
        budget: usize,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        match *link {
            Link::Stranger { since_ms, .. } if now_ms.saturating_sub(since_ms) >= HELLO_MS => {
                Err(LinkError("a stranger did not say hello in time".to_owned()))
            }
            Link::Stranger { .. } => Ok(()),
            Link::Of { partition, peer } => {
                let Ok(partition) = self.partition(partition) else {
                    return Err(gone(partition, peer, out));
                };
                let outcome = match peer {
                    Peer::Replica => partition.feed_replica(id, budget, now_ms, out),
                    Peer::Leader => partition.confirm_to_leader(id, now_ms, out),
                };
                if outcome.is_err() {
                    partition.say_farewell(id, out);
                }
                outcome
            }
        }
    }

    /// Whether what a peer sends can be taken now.
    pub fn wants_input(&mut self, link: &Link) -> bool {
        match *link {
            Link::Of {
                partition,
                peer: Peer::Leader,
            } => self
                .partition(partition)
                .is_ok_and(|partition| partition.wants_from_leader()),
            _ => true,
        }
    }

    /// Whether there is something to send to a peer, and when to look again at the latest.
    pub fn link_state(&mut self, id: LinkId, link: &Link, now_ms: u64) -> (bool, u64) {
        match *link {
            Link::Stranger { since_ms, .. } => (false, since_ms + HELLO_MS),
            Link::Of { partition, peer } => {
                let Ok(partition) = self.partition(partition) else {
                    return (true, now_ms);
                };
                let state = match peer {
                    Peer::Replica => partition.feed_state(id, now_ms),
                    Peer::Leader => partition.confirm_at_ms().map(|at_ms| (false, at_ms)),
                };
                // One that is gone is told so.
                state.unwrap_or((true, now_ms))
            }
        }
    }

    /// A connection has ended.
    pub fn forget(&mut self, id: LinkId, link: &Link, reason: &LinkError, now_ms: u64) {
        if let Link::Of { partition, peer } = *link
            && let Ok(partition) = self.partition(partition)
        {
            match peer {
                Peer::Replica => partition.forget_replica(id, now_ms),
                Peer::Leader => partition.forget_leader(id, reason, now_ms),
            }
        }
    }

    /// A leader to connect to now, if there is one: [`connected`](Self::connected) or
    /// [`on_unreachable`](Self::on_unreachable) follows.
    pub fn take_dial(&mut self, now_ms: u64) -> Option<DialRequest> {
        if self.loading().is_some() || self.is_draining {
            return None;
        }
        self.partitions.iter_mut().find_map(|partition| {
            partition.take_dial(now_ms).map(|leader| DialRequest {
                partition: partition.id(),
                leader,
                timeout_ms: if partition.roles().is_taking_over() {
                    VISIT_TIMEOUT_MS
                } else {
                    DIAL_TIMEOUT_MS
                },
            })
        })
    }

    /// When the next leader is to be connected to.
    pub fn dial_at_ms(&self) -> Option<u64> {
        if self.is_draining {
            return None;
        }
        self.partitions()
            .iter()
            .filter_map(crate::partition::Partition::dial_at_ms)
            .min()
    }

    /// A leader's replication socket is open; what is to be said first goes to `out`. None: it is
    /// not wanted any more.
    pub fn connected(
        &mut self,
        id: LinkId,
        dial: &DialRequest,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Option<Link> {
        let index = self.index_of(dial.partition)?;
        let token = self
            .config
            .token
            .as_ref()
            .map_or(&[][..], |token| token.expose());
        let is_wanted = self.partitions[index].connected(id, &dial.leader, token, now_ms, out);
        is_wanted.then_some(Link::Of {
            partition: dial.partition,
            peer: Peer::Leader,
        })
    }

    /// A leader cannot be reached; `is_starting`: it answers that it is not ready yet.
    pub fn on_unreachable(
        &mut self,
        dial: &DialRequest,
        reason: String,
        is_starting: bool,
        now_ms: u64,
    ) {
        if let Some(index) = self.index_of(dial.partition) {
            self.partitions[index].on_unreachable(&dial.leader, reason, is_starting, now_ms);
        }
    }
}

/// The partition of a connection was given up: a replica is told, so that it knows that what it
/// serves grows old.
fn gone(partition: u32, peer: Peer, out: &mut Vec<u8>) -> LinkError {
    let text = format!("partition {partition} was given up by this node");
    match peer {
        Peer::Replica => turn_away(RefusalCode::Partition, &text, out),
        Peer::Leader => LinkError(text),
    }
}

/// Refuses a node that wants to follow this one, and says why.
fn turn_away(code: RefusalCode, text: &str, out: &mut Vec<u8>) -> LinkError {
    Frame::Refusal(Refusal { code, text }).encode(out);
    LinkError(format!("a replica is turned away: {text}"))
}
