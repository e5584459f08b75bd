//! The node's side of replication connections: who is at the other end, and what is said.
//!
//! Invariants:
//! 1. Nothing of a peer counts before its hello was found good, the token included.
//! 2. A connection belongs to one partition, which forgets it when its role changes; then it is closed.
//!
//! Not here: sockets, and how much is read from which when (`reactor/`).

use crate::partition::{LinkId, Peer};
use crate::replication::Ended;
use crate::replication::frame::{Frame, FrameReader, HELLO_MAX_BYTES, Refusal, RefusalCode};

use super::Node;

/// A replica says hello with its first bytes: a connection that has not done so after this long is closed.
pub const HELLO_MS: u64 = 2_000;

/// The other end of a connection.
#[derive(Debug)]
pub enum Link {
    /// Somebody who has not said hello yet.
    Stranger {
        /// What came of the hello.
        reader: FrameReader,
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
pub struct Dial {
    /// On behalf of this partition.
    pub partition: u32,
    /// Its HTTP address, as given.
    pub leader: String,
}

impl Link {
    /// A connection that was just accepted.
    pub fn accepted(address: String, now_ms: u64) -> Self {
        Self::Stranger {
            reader: FrameReader::new(HELLO_MAX_BYTES),
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
    /// Takes in what a peer sends; what is to be answered goes to `out`, even if the connection ends with it. What is left of `input`
    /// is to come again once [`wants_input`](Self::wants_input).
    pub fn receive(
        &mut self,
        id: LinkId,
        link: &mut Link,
        input: &mut &[u8],
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), Ended> {
        if let Link::Stranger {
            reader, address, ..
        } = link
        {
            let hello = match reader.next(input)? {
                Some(Frame::Hello(hello)) => hello,
                Some(_) => return Err(Ended("a stranger did not say hello".to_owned())),
                None => return Ok(()),
            };
            let is_known = self
                .config
                .token
                .as_ref()
                .is_none_or(|token| token.matches(hello.token));
            let refusal = match self.index_of(hello.partition) {
                _ if !is_known => (
                    RefusalCode::Token,
                    "the token is missing or wrong: give both nodes the same --token-file"
                        .to_owned(),
                ),
                None if self.loading().is_some() => {
                    (RefusalCode::Busy, "the node is loading its data".to_owned())
                }
                None => (
                    RefusalCode::Partition,
                    format!("partition {} is not here", hello.partition),
                ),
                Some(index) => match self.partitions[index].greet(id, address, &hello, now_ms, out)
                {
                    Ok(()) => {
                        *link = Link::Of {
                            partition: hello.partition,
                            peer: Peer::Replica,
                        };
                        return self.receive(id, link, input, now_ms, out);
                    }
                    Err(turned) => (turned.code, turned.text),
                },
            };
            let (code, text) = refusal;
            Frame::Refusal(Refusal { code, text: &text }).encode(out);
            return Err(Ended(format!("a replica is turned away: {text}")));
        }
        let Link::Of { partition, peer } = *link else {
            return Ok(());
        };
        let partition = self
            .partition(partition)
            .map_err(|_| Ended("the partition is gone".to_owned()))?;
        match peer {
            Peer::Replica => {
                let all = std::mem::take(input);
                partition.receive_from_replica(id, all, now_ms)
            }
            Peer::Leader => {
                let outcome = partition.receive_from_leader(id, input, now_ms);
                outcome.and_then(|()| partition.confirm_to_leader(id, now_ms, out))
            }
        }
    }

    /// Appends what a peer is to be sent next, about `budget` bytes.
    pub fn fill(
        &mut self,
        id: LinkId,
        link: &Link,
        budget: usize,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), Ended> {
        match *link {
            Link::Stranger { since_ms, .. } if now_ms.saturating_sub(since_ms) >= HELLO_MS => {
                Err(Ended("a stranger did not say hello in time".to_owned()))
            }
            Link::Stranger { .. } => Ok(()),
            Link::Of { partition, peer } => {
                let partition = self
                    .partition(partition)
                    .map_err(|_| Ended("the partition is gone".to_owned()))?;
                match peer {
                    Peer::Replica => partition.feed_replica(id, budget, now_ms, out),
                    Peer::Leader => partition.confirm_to_leader(id, now_ms, out),
                }
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
    pub fn forget(&mut self, id: LinkId, link: &Link, reason: &Ended, now_ms: u64) {
        if let Link::Of { partition, peer } = *link
            && let Ok(partition) = self.partition(partition)
        {
            match peer {
                Peer::Replica => partition.forget_replica(id),
                Peer::Leader => partition.forget_leader(id, reason, now_ms),
            }
        }
    }

    /// A leader to connect to now, if there is one: [`connected`](Self::connected) or [`note_unreachable`](Self::note_unreachable)
    /// follows.
    pub fn take_dial(&mut self, now_ms: u64) -> Option<Dial> {
        if self.loading().is_some() || self.is_draining {
            return None;
        }
        self.partitions.iter_mut().find_map(|partition| {
            partition.take_dial(now_ms).map(|leader| Dial {
                partition: partition.id(),
                leader,
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

    /// A leader's replication socket is open; what is to be said first goes to `out`. None: it is not wanted any more.
    pub fn connected(
        &mut self,
        id: LinkId,
        dial: &Dial,
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

    /// A leader cannot be reached.
    pub fn note_unreachable(&mut self, dial: &Dial, reason: String, now_ms: u64) {
        if let Some(index) = self.index_of(dial.partition) {
            self.partitions[index].note_unreachable(&dial.leader, reason, now_ms);
        }
    }
}
