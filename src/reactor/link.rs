//! One replication connection in the loop: its socket, and what it has yet to send.
//!
//! Invariants:
//! 1. mio is edge-triggered: a link counts as readable or writable until a call says otherwise.
//! 2. Nothing more is asked of the node to send while something is unsent, so a peer that does not
//!    read costs one bounded buffer.
//! 3. What came and cannot be taken yet is kept, and nothing more is read: at most one read buffer.
//!
//! Not here: which link is visited when, and dialing (`replication.rs`).

use std::io::{self, Read, Write};

use mio::net::TcpStream;

use crate::node::Node;
use crate::replication::{Link, LinkError, LinkId};

use super::strangers::PeerOrigin;

/// A connection whose other end is a node.
#[derive(Debug)]
pub(super) struct LinkSession {
    pub(super) stream: TcpStream,
    pub(super) link: Link,
    /// Where the other end is, for messages.
    pub(super) peer: String,
    /// Of a connection that has not said hello: what it is counted under.
    pub(super) stranger_from: Option<PeerOrigin>,
    out: Vec<u8>,
    sent: usize,
    /// Came, and not taken yet.
    held_input: Vec<u8>,
    pub(super) is_readable: bool,
    pub(super) is_writable: bool,
}

/// The peer is gone.
fn lost(error: &io::Error) -> LinkError {
    LinkError::Lost(error.to_string())
}

impl LinkSession {
    pub(super) fn new(stream: TcpStream, link: Link, peer: String) -> Self {
        let (out, held_input) = (Vec::new(), Vec::new());
        Self {
            stream,
            link,
            peer,
            stranger_from: None,
            out,
            sent: 0,
            held_input,
            is_readable: true,
            is_writable: true,
        }
    }

    /// The buffer for what is to be sent.
    pub(super) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Reads and takes in what has come, up to a budget of bytes.
    pub(super) fn read(
        &mut self,
        id: LinkId,
        node: &mut Node,
        buffer: &mut [u8],
        budget: &mut usize,
        now_ms: u64,
    ) -> Result<(), LinkError> {
        while *budget > 0 && node.wants_input(&self.link) {
            if !self.held_input.is_empty() {
                let held = std::mem::take(&mut self.held_input);
                let mut input = &held[..];
                node.receive(id, &mut self.link, &mut input, now_ms, &mut self.out)?;
                *budget = budget.saturating_sub(held.len() - input.len());
                self.held_input = input.to_vec();
                continue;
            }
            if !self.is_readable {
                break;
            }
            let len = match self.stream.read(&mut buffer[..*budget]) {
                Ok(0) => {
                    return Err(LinkError::Closed);
                }
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.is_readable = false;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(lost(&error)),
            };
            *budget = budget.saturating_sub(len);
            node.stats.links.received_bytes += len as u64;
            let mut input = &buffer[..len];
            node.receive(id, &mut self.link, &mut input, now_ms, &mut self.out)?;
            self.held_input.extend_from_slice(input);
        }
        Ok(())
    }

    /// Sends what there is to send, up to a budget of bytes.
    pub(super) fn write(
        &mut self,
        node: &mut Node,
        budget: &mut usize,
        now_ms: u64,
    ) -> Result<(), LinkError> {
        loop {
            self.flush().map_err(|error| lost(&error))?;
            if !self.out.is_empty() || *budget == 0 {
                // The peer does not read, or the turn is over: whether it lives is looked at all
                // the same.
                return if self.out.is_empty() {
                    Ok(())
                } else {
                    node.fill(&mut self.link, 0, now_ms, &mut self.out)
                };
            }
            node.fill(
                &mut self.link,
                (*budget).min(super::limits::LINK_FILL_BYTES),
                now_ms,
                &mut self.out,
            )?;
            if self.out.is_empty() {
                return Ok(());
            }
            *budget = budget.saturating_sub(self.out.len());
            node.stats.links.sent_bytes += self.out.len() as u64;
        }
    }

    /// Sends what is in the buffer, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while self.is_writable && self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => self.sent += sent,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.sent == self.out.len() {
            self.sent = 0;
            self.out.clear();
        }
        Ok(())
    }

    /// Gives back what the buffer holds beyond need, once nothing is on its way.
    pub(super) fn rest(&mut self) {
        if self.out.is_empty() && self.out.capacity() > 0 {
            self.out = Vec::new();
        }
    }

    /// Whether a visit would do something that no event announces, and when to visit the link at
    /// the latest.
    pub(super) fn has_work(&self, node: &mut Node, now_ms: u64) -> (bool, u64) {
        let work = node.link_work(&self.link, now_ms);
        let can_send = self.is_writable && (work.has_more || !self.out.is_empty());
        let can_take =
            (self.is_readable || !self.held_input.is_empty()) && node.wants_input(&self.link);
        (can_send || can_take, work.wake_at_ms)
    }
}
