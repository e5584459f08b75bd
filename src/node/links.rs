//! The node's side of replication links: finding a link's partition, and which nodes to dial.
//!
//! A link owns its state machine (`replication/link.rs`); its partition keeps what it has to know
//! of the link.
//!
//! Not here: sockets, and how much is read from which when (`reactor/`).

use crate::partition::Partition;
use crate::replication::frame::RefusalCode;
use crate::replication::{
    DialFailure, Link, LinkError, LinkId, LinkWork, PeerHello, Rejection, ReplicaSender,
};

use super::state::Node;

/// A node to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialRequest {
    /// On behalf of this partition.
    pub partition: u32,
    /// The node's HTTP address, as given.
    pub leader: String,
    /// How long finding its port, and connecting to that, may take each.
    pub timeout_ms: u64,
}

/// … for a leader that is to be followed.
const DIAL_TIMEOUT_MS: u64 = 3_000;

/// … for a node that a takeover visits: the partition has no leader meanwhile.
const VISIT_TIMEOUT_MS: u64 = 1_000;

impl Node {
    /// Takes in what a peer sends. What is to be answered goes to `out`, even if the link ends. The
    /// rest of `input` is to come again once the link [wants it](Self::wants_input).
    pub fn receive(
        &mut self,
        id: LinkId,
        link: &mut Link,
        input: &mut &[u8],
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        if let Link::Handshake(handshake) = link {
            let accepted = match handshake.receive(input, self.config()) {
                Ok(None) => return Ok(()),
                Ok(Some(hello)) => self
                    .accept_peer(id, &handshake.address, &hello, now_ms, out)
                    .map_err(LinkError::Rejected),
                Err(error) => Err(error),
            };
            let accepted = accepted.inspect_err(|error| {
                if let LinkError::Rejected(rejection) = error {
                    rejection.encode(out);
                }
            });
            *link = Link::Sender(Box::new(accepted?));
        }
        match self.partition_of(link) {
            Some(partition) => partition.receive(link, input, now_ms, out),
            None => Err(link.on_partition_removed(out)),
        }
    }

    /// A node has said hello.
    fn accept_peer(
        &mut self,
        id: LinkId,
        address: &str,
        hello: &PeerHello,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<ReplicaSender, Rejection> {
        if self.loading().is_some() {
            return Err(Rejection::busy("that node is loading its data"));
        }
        let Ok(partition) = self.partition(hello.partition) else {
            let text = format!("partition {} is not on that node", hello.partition);
            return Err(Rejection::new(RefusalCode::Partition, text));
        };
        partition.accept(id, address, hello, now_ms, out)
    }

    /// The partition of a link, if it is still here.
    fn partition_of(&mut self, link: &Link) -> Option<&mut Partition> {
        link.subject().and_then(|(_, id)| self.partition(id).ok())
    }

    /// Appends what a peer is to be sent next, about `budget` bytes.
    pub fn fill(
        &mut self,
        link: &mut Link,
        budget: usize,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        if let Link::Handshake(handshake) = link {
            return handshake.check_time(now_ms);
        }
        match self.partition_of(link) {
            Some(partition) => partition.fill(link, budget, now_ms, out),
            None => Err(link.on_partition_removed(out)),
        }
    }

    /// Whether what a peer sends can be taken in now.
    pub fn wants_input(&mut self, link: &Link) -> bool {
        match link {
            Link::Receiver(_) => self.partition_of(link).is_some_and(|own| own.wants_data()),
            Link::Handshake(_) | Link::Sender(_) => true,
        }
    }

    /// What there is to do for a link without an event from its socket.
    pub fn link_work(&mut self, link: &Link, now_ms: u64) -> LinkWork {
        let work = match link {
            Link::Handshake(handshake) => Some(LinkWork {
                has_more: false,
                wake_at_ms: handshake.until_ms(),
            }),
            _ => self.partition_of(link).and_then(|own| own.link_work(link)),
        };
        // A link that its partition has dropped ends with the next visit.
        work.unwrap_or(LinkWork {
            has_more: true,
            wake_at_ms: now_ms,
        })
    }

    /// A connection has ended.
    pub fn close_link(&mut self, link: Link, reason: &LinkError, now_ms: u64) {
        self.stats.links.ends[reason.number()] += 1;
        if let Some(partition) = self.partition_of(&link) {
            partition.on_link_closed(&link, reason, now_ms);
        }
        // A leader that has handed over ends its links, and a watch can be slow to tell.
        if matches!(link, Link::Receiver(_)) {
            self.on_etcd_hint();
        }
        // The engine of a snapshot that did not become whole is freed piece by piece.
        if let Link::Receiver(receiver) = link
            && let Some(engine) = receiver.into_remains(self.options.engine)
        {
            self.removals.engines.add(engine);
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
            .filter_map(Partition::dial_at_ms)
            .min()
    }

    /// A node's replication socket is open: what is to be said first goes to `out`. None: the node
    /// is not wanted any more.
    pub fn connected(
        &mut self,
        id: LinkId,
        dial: &DialRequest,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Option<Link> {
        let index = self.index_of(dial.partition)?;
        let token = self.config.token.as_ref();
        let token = token.map_or(&[][..], |token| token.expose());
        let receiver = self.partitions[index].connected(id, &dial.leader, token, now_ms, out)?;
        Some(Link::Receiver(Box::new(receiver)))
    }

    /// A leader cannot be reached.
    pub fn on_unreachable(&mut self, dial: &DialRequest, failure: DialFailure, now_ms: u64) {
        if let Some(index) = self.index_of(dial.partition) {
            self.partitions[index].on_unreachable(&dial.leader, failure, now_ms);
        }
    }
}
