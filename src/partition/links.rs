//! What a partition does for its replication links: the data that they send, what they bring, and
//! what it has to know of them. A link that the partition has dropped ends with its next call.
//!
//! Not here: the dialogue (`replication/`), which replicas are served (`serving.rs`), what data of
//! a leader means (`following.rs`).

use crate::replication::frame::Frame;
use crate::replication::{LeaderReceiver, Link, LinkError, LinkWork, ReplicaSender};

use super::state::Partition;

impl Partition {
    /// Takes in what the peer sends after its hello. What is to be answered goes to `out`, even if
    /// the link ends. The rest of `input` is to come again once the partition
    /// [wants it](Self::wants_data).
    pub fn receive(
        &mut self,
        link: &mut Link,
        input: &mut &[u8],
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        let received = match link {
            Link::Handshake(_) => Ok(()),
            Link::Sender(sender) => self.receive_acks(sender, input, now_ms),
            Link::Receiver(receiver) => self
                .receive_data(receiver, input, now_ms)
                .and_then(|()| receiver.fill(self.held_versions(receiver.link)?, now_ms, out)),
        };
        received.inspect_err(|_| self.send_farewell(link, out))
    }

    /// Appends what the peer is to be sent next, about `budget` bytes.
    pub fn fill(
        &mut self,
        link: &mut Link,
        budget: usize,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), LinkError> {
        let filled = match link {
            Link::Handshake(_) => Ok(()),
            Link::Sender(sender) => self
                .check_heard("replica", sender.facts.heard_at_ms, now_ms)
                .and_then(|()| self.source(sender.link))
                .and_then(|source| sender.fill(&source, budget, now_ms, out))
                .and_then(|()| self.record_sender(sender, now_ms)),
            Link::Receiver(receiver) => self
                .check_heard("leader", receiver.facts().heard_at_ms, now_ms)
                .and_then(|()| self.held_versions(receiver.link))
                .and_then(|held| receiver.fill(held, now_ms, out)),
        };
        filled.inspect_err(|_| self.send_farewell(link, out))
    }

    /// Takes in what a replica sends.
    fn receive_acks(
        &mut self,
        sender: &mut ReplicaSender,
        input: &mut &[u8],
        now_ms: u64,
    ) -> Result<(), LinkError> {
        while let Some(state) = sender.receive(input, now_ms)? {
            self.record_sender(sender, now_ms)?;
            if let Some(answer) = self.on_peer_state(sender.link, state)? {
                sender.report(answer);
            }
        }
        self.record_sender(sender, now_ms)
    }

    /// Takes in what a leader sends: all of `input`, unless a change of role or epoch has to become
    /// durable first.
    fn receive_data(
        &mut self,
        receiver: &mut LeaderReceiver,
        input: &mut &[u8],
        now_ms: u64,
    ) -> Result<(), LinkError> {
        while self.roles.is_settled() {
            self.check_connected(receiver.link)?;
            let (target, options) = ((&mut self.lsm, self.roles.meta()), self.options.engine);
            let Some(event) = receiver.receive(input, target, options, now_ms)? else {
                break;
            };
            self.on_received(receiver, event, now_ms)?;
        }
        Ok(())
    }

    /// The last words to the peer of a link that ends, if the partition has any.
    fn send_farewell(&mut self, link: &Link, out: &mut Vec<u8>) {
        let is_its = |told| link.subject().is_some_and(|(link, _)| told == link);
        if let Some(at) = self
            .known_peers
            .farewells
            .iter()
            .position(|(told, _)| is_its(*told))
        {
            Frame::PeerState(self.known_peers.farewells.swap_remove(at).1).encode(out);
        }
    }

    /// What there is to do for a link; none if the partition has dropped it.
    pub fn link_work(&self, link: &Link) -> Option<LinkWork> {
        let (has_more, wake_at_ms) = match link {
            Link::Handshake(_) => return None,
            Link::Sender(sender) => {
                let source = self.source(sender.link).ok()?;
                (sender.has_more(&source), sender.wake_at_ms())
            }
            Link::Receiver(receiver) => {
                self.check_connected(receiver.link).ok()?;
                (receiver.has_more(), receiver.wake_at_ms())
            }
        };
        Some(LinkWork {
            has_more,
            wake_at_ms,
        })
    }

    /// The connection has ended.
    pub fn on_link_closed(&mut self, link: &Link, reason: &LinkError, now_ms: u64) {
        let Some((id, _)) = link.subject() else {
            return;
        };
        self.known_peers.farewells.retain(|(told, _)| *told != id);
        if let Link::Receiver(receiver) = link {
            self.on_receiver_closed(receiver, reason, now_ms);
        } else {
            self.replicas.on_closed(id, now_ms);
            self.keep_log();
        }
    }
}
