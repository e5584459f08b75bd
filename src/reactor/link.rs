//! One replication connection in the loop: socket, unsent output, input that was not taken yet.
//!
//! Invariants:
//! 1. mio is edge-triggered: a link counts as readable or writable until a call says otherwise.
//! 2. The node renders nothing more while output is unsent, so a peer that does not read costs one
//!    bounded buffer.
//! 3. Input that cannot be taken yet is kept, at most one read buffer, and nothing more is read.
//!
//! Not here: the order of visits, and dialing (`replication.rs`).

use std::io::{self, Read, Write};

use mio::net::TcpStream;

use crate::node::Node;
use crate::replication::{Link, LinkError, LinkId};

use super::strangers::PeerOrigin;

/// A connection to another node.
#[derive(Debug)]
pub(super) struct LinkSession {
    pub(super) stream: TcpStream,
    pub(super) link: Link,
    /// The peer's address, for messages.
    pub(super) peer: String,
    /// The origin of a connection without a hello yet.
    pub(super) stranger_from: Option<PeerOrigin>,
    pub(super) out: Vec<u8>,
    sent: usize,
    /// Input that was not taken yet.
    held_input: Vec<u8>,
    pub(super) is_readable: bool,
    pub(super) is_writable: bool,
}

/// The peer has closed the connection.
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

    /// Reads, and passes input to the link, up to a budget of bytes.
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

    /// Renders and sends, up to a budget of bytes.
    pub(super) fn write(
        &mut self,
        node: &mut Node,
        budget: &mut usize,
        now_ms: u64,
    ) -> Result<(), LinkError> {
        loop {
            self.flush().map_err(|error| lost(&error))?;
            if !self.out.is_empty() || *budget == 0 {
                // The peer does not read, or the turn is over: the time-outs are checked all the
                // same.
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

    /// Sends the output as far as the socket takes it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        write_rest(
            &mut self.stream,
            &self.out,
            &mut self.sent,
            &mut self.is_writable,
        )?;
        if self.sent == self.out.len() {
            self.sent = 0;
            self.out.clear();
        }
        Ok(())
    }

    /// Shrinks a large buffer once it is empty.
    pub(super) fn rest(&mut self) {
        if self.out.is_empty() && self.out.capacity() > 0 {
            self.out = Vec::new();
        }
    }

    /// The work of the link without an event, and when it is to be visited at the latest.
    pub(super) fn has_work(&self, node: &mut Node, now_ms: u64) -> (bool, u64) {
        let work = node.link_work(&self.link, now_ms);
        let can_send = self.is_writable && (work.has_more || !self.out.is_empty());
        let can_take =
            (self.is_readable || !self.held_input.is_empty()) && node.wants_input(&self.link);
        (can_send || can_take, work.wake_at_ms)
    }
}

/// Writes what is behind the first `sent` bytes, as far as the socket takes it.
pub(super) fn write_rest(
    stream: &mut TcpStream,
    out: &[u8],
    sent: &mut usize,
    is_writable: &mut bool,
) -> io::Result<()> {
    while *is_writable && *sent < out.len() {
        match stream.write(&out[*sent..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => *sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => *is_writable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
