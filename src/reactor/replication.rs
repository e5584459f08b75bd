//! Replication connections: accepts replicas, dials leaders, and visits both in turn.
//!
//! A leader is known by its HTTP address. Its name is resolved (`resolver.rs`), its `/health` is
//! asked for the replication port, then that port is dialed.
//!
//! Invariants:
//! 1. A turn's work is bounded by bytes read and sent over all links; the bound is higher while no
//!    client waits for the loop.
//! 2. Each turn begins with another link, so that every link gets its share.
//! 3. A connection that has not said hello is a stranger: it holds one buffer for a hello, for a
//!    short time ([`HELLO_MS`](crate::replication::HELLO_MS)). There are few, and a newcomer takes
//!    the place of an older one (`strangers.rs`).
//! 4. Connections of all kinds, those that are dialed and names that are looked up included, hold
//!    no more descriptors than replication may have (`descriptors.rs`).
//! 5. Strangers are read before new connections are accepted, with a budget of their own: no
//!    stranger is closed for another while its hello waits to be read.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token, Waker};
use slab::Slab;

use crate::node::{DialRequest, Node};
use crate::replication::{Link, LinkError, LinkId, PortProbe, PortProbeError};

use super::descriptors::Shares;
use super::error::RunError;
use super::limits::{
    BUSY_LINK_BYTES, LINKS_MAX, LOOKUP_DESCRIPTORS, QUIET_LINK_BYTES, STRANGER_BYTES,
    STRANGER_LINES,
};
use super::line_limit::LineLimit;
use super::link::LinkSession;
use super::listener::{ACCEPTS_PER_TURN, AcceptResult, Listener, RETRY_MS};
use super::resolver::{LookupResult, Resolver};
use super::strangers::{PeerOrigin, Strangers};
use super::timers::Millis;

/// The listener's token, and the first of those of links; those of HTTP connections are small.
const REPLICA_LISTENER: Token = Token(usize::MAX / 2);
const LINK_BASE: usize = usize::MAX / 2 + 1;

/// A connection that is being opened.
#[derive(Debug)]
enum LinkSlot {
    /// A leader is asked for its port, by `/health`.
    Probing {
        stream: TcpStream,
        dial: DialRequest,
        /// The leader's address, and further addresses of the same name.
        addresses: Vec<SocketAddr>,
        probe: PortProbe,
        is_asked: bool,
        until: Millis,
    },
    /// Its replication port is dialed.
    Connecting {
        stream: TcpStream,
        dial: DialRequest,
        until: Millis,
    },
    Open(LinkSession),
}

/// All replication connections.
#[derive(Debug)]
pub(super) struct Replication {
    listener: Option<Listener>,
    is_accepting: bool,
    accept_again_at: Option<Millis>,
    slots: Slab<LinkSlot>,
    strangers: Strangers,
    /// Descriptors for all of them.
    descriptor_max: usize,
    stranger_max: usize,
    /// Limits lines of log about strangers.
    stranger_lines: LineLimit,
    resolver: Resolver<DialRequest>,
    /// The read buffer, while there are links; larger than for requests, so that most frames arrive
    /// in full.
    buffer: Vec<u8>,
    /// The link with which the next turn begins.
    next: usize,
    /// When the next turn is due for them.
    wake_at: Millis,
    is_busy: bool,
}

impl Replication {
    /// Listens for replicas, if there is an address for that.
    pub(super) fn start(
        listen: Option<SocketAddr>,
        registry: &Registry,
        waker: Arc<Waker>,
    ) -> Result<(Self, Option<SocketAddr>), RunError> {
        let listener = listen.map(|address| {
            let mut listener = Listener::bind(address)
                .map_err(|error| RunError::ListenForReplicas(address, error))?;
            let register =
                registry.register(listener.source(), REPLICA_LISTENER, Interest::READABLE);
            register.map_err(|error| RunError::System("epoll_ctl", error))?;
            let address = listener
                .local_addr()
                .map_err(|error| RunError::System("getsockname", error))?;
            Ok((listener, address))
        });
        let (listener, address) = listener.transpose()?.unzip();
        let replication = Self {
            listener,
            is_accepting: false,
            accept_again_at: None,
            slots: Slab::new(),
            strangers: Strangers::default(),
            descriptor_max: 1,
            stranger_max: 1,
            stranger_lines: LineLimit::new(STRANGER_LINES),
            resolver: Resolver::new(waker),
            buffer: Vec::new(),
            next: 0,
            wake_at: 0,
            is_busy: false,
        };
        Ok((replication, address))
    }

    /// Sets how many connections there may be.
    pub(super) fn limit(&mut self, shares: Shares) {
        (self.descriptor_max, self.stranger_max) = (shares.links, shares.strangers);
    }

    /// Descriptors in use.
    pub(super) fn descriptor_count(&self) -> usize {
        self.slots.len() + self.resolver.lookup_count() * LOOKUP_DESCRIPTORS
    }

    /// Connections, those that are being opened included.
    pub(super) fn link_count(&self) -> usize {
        self.slots.len()
    }

    /// Connections that have not said hello.
    pub(super) fn stranger_count(&self) -> usize {
        self.strangers.len()
    }

    /// Takes in an event of the poll; false if it is not for a link.
    pub(super) fn note(&mut self, event: &mio::event::Event) -> bool {
        if event.token() == REPLICA_LISTENER {
            self.is_accepting = self.accept_again_at.is_none();
            return true;
        }
        let Some(key) = event.token().0.checked_sub(LINK_BASE) else {
            return false;
        };
        let is_readable = event.is_readable() || event.is_read_closed() || event.is_error();
        let is_writable = event.is_writable() || event.is_write_closed() || event.is_error();
        match self.slots.get_mut(key) {
            Some(LinkSlot::Open(session)) => {
                session.is_readable |= is_readable;
                session.is_writable |= is_writable;
            }
            // Checked in every turn.
            Some(LinkSlot::Probing { .. } | LinkSlot::Connecting { .. }) => {}
            None => return key < LINKS_MAX,
        }
        true
    }

    /// When the next turn is due without an event; 0: now.
    pub(super) fn wake_at(&self, node: &Node) -> Option<Millis> {
        if self.is_busy || self.is_accepting {
            return Some(0);
        }
        let link_at = (!self.slots.is_empty()).then_some(self.wake_at);
        [link_at, node.dial_at_ms(), self.accept_again_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// No more replicas; leaders are not dialed again.
    pub(super) fn drain(&mut self) {
        self.listener = None;
        self.is_accepting = false;
        self.accept_again_at = None;
    }

    /// Reads from all links, and dials what is to be dialed.
    pub(super) fn read(
        &mut self,
        node: &mut Node,
        registry: &Registry,
        is_quiet: bool,
        now: Millis,
    ) {
        let left_out_count = self.stranger_lines.tick(now);
        if left_out_count > 0 {
            log::info!("replication: and {left_out_count} more strangers within a second");
        }
        while let Some(dial) = node.take_dial(now) {
            let authority = dial.leader.trim_start_matches("http://").to_owned();
            self.resolver.ask(&authority, dial);
        }
        while let Some(resolved) = self.resolver.next() {
            self.probe(resolved, node, registry, now);
        }
        let mut budget = if is_quiet {
            QUIET_LINK_BYTES
        } else {
            BUSY_LINK_BYTES
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        if self.slots.is_empty() {
            buffer = Vec::new();
        } else {
            buffer.resize(QUIET_LINK_BYTES, 0);
        }
        let mut stranger_budget = STRANGER_BYTES;
        self.for_each(node, now, |session, id, node| {
            let budget = match session.stranger_from {
                Some(_) => &mut stranger_budget,
                None => &mut budget,
            };
            session.read(id, node, &mut buffer, budget, now)
        });
        self.buffer = buffer;
        self.accept(node, registry, now);
        self.advance_dials(node, registry, now);
    }

    /// Sends to all links.
    pub(super) fn write(&mut self, node: &mut Node, is_quiet: bool, now: Millis) {
        let mut budget = if is_quiet {
            QUIET_LINK_BYTES
        } else {
            BUSY_LINK_BYTES
        };
        self.for_each(node, now, |session, _, node| {
            session.write(node, &mut budget, now)
        });
        self.next = self.next.wrapping_add(1);
        (self.is_busy, self.wake_at) = (false, Millis::MAX);
        for (_, slot) in &mut self.slots {
            match slot {
                LinkSlot::Probing { until, .. } | LinkSlot::Connecting { until, .. } => {
                    self.wake_at = self.wake_at.min(*until);
                }
                LinkSlot::Open(session) => {
                    let (has_work, wake_at) = session.has_work(node, now);
                    self.is_busy |= has_work;
                    self.wake_at = self.wake_at.min(wake_at);
                    if !has_work {
                        session.rest();
                    }
                }
            }
        }
    }

    /// Visits all open links, each time beginning with another; closes those that end.
    fn for_each(
        &mut self,
        node: &mut Node,
        now: Millis,
        mut visit: impl FnMut(&mut LinkSession, LinkId, &mut Node) -> Result<(), LinkError>,
    ) {
        if self.slots.is_empty() {
            return;
        }
        let count = self.slots.capacity().min(LINKS_MAX);
        for offset in 0..count {
            let key = self.next.wrapping_add(offset) % count;
            let Some(LinkSlot::Open(session)) = self.slots.get_mut(key) else {
                continue;
            };
            let outcome = visit(session, LinkId(key), node);
            if !session.link.is_handshake()
                && let Some(origin) = session.stranger_from.take()
            {
                self.strangers.leave(origin, key);
            }
            if let Err(reason) = outcome {
                self.close(key, node, &reason, now);
            }
        }
    }

    fn close(&mut self, key: usize, node: &mut Node, reason: &LinkError, now: Millis) {
        let Some(LinkSlot::Open(mut session)) = self.slots.try_remove(key) else {
            return;
        };
        // A refusal, if there is one.
        let _ = session.flush();
        let level = match session.stranger_from {
            Some(origin) => {
                self.strangers.leave(origin, key);
                node.loop_stats.refused_link_count += 1;
                self.stranger_lines.admits(1).then_some(log::Level::Info)
            }
            None => Some(reason.log_level()),
        };
        if let Some(level) = level {
            log::log!(level, "replication with {}: {reason}", session.peer);
        }
        node.close_link(session.link, reason, now);
    }

    /// Whether there is room for one more connection; a stranger is closed for it, if there is one.
    fn make_room(&mut self, node: &mut Node, now: Millis) -> bool {
        if self.slots.len() < LINKS_MAX && self.descriptor_count() < self.descriptor_max {
            return true;
        }
        self.let_stranger_go(node, now)
    }

    /// Closes a stranger (`strangers.rs` says which); false if there is none.
    fn let_stranger_go(&mut self, node: &mut Node, now: Millis) -> bool {
        let Some(key) = self.strangers.first_to_go() else {
            return false;
        };
        self.close(key, node, &LinkError::Displaced, now);
        true
    }

    fn accept(&mut self, node: &mut Node, registry: &Registry, now: Millis) {
        if self.accept_again_at.is_some_and(|at| at <= now) {
            self.accept_again_at = None;
            self.is_accepting = true;
        }
        // No more than the limit on strangers, so that each is read once before it can be closed.
        for _ in 0..ACCEPTS_PER_TURN.min(self.stranger_max) {
            let Some(listener) = self.listener.as_mut().filter(|_| self.is_accepting) else {
                return;
            };
            match listener.accept() {
                AcceptResult::Stream(stream, address) => {
                    self.admit(stream, address, node, registry, now);
                }
                AcceptResult::Lost => {}
                AcceptResult::NoneWaiting => self.is_accepting = false,
                AcceptResult::OutOfDescriptors => {
                    self.is_accepting = false;
                    self.accept_again_at = Some(now + RETRY_MS);
                }
            }
        }
    }

    /// Adds a connection without a hello. Without room it is closed; a replica tries again.
    fn admit(
        &mut self,
        stream: TcpStream,
        address: SocketAddr,
        node: &mut Node,
        registry: &Registry,
        now: Millis,
    ) {
        let is_full = self.strangers.len() >= self.stranger_max;
        let has_room = if is_full {
            self.let_stranger_go(node, now)
        } else {
            self.make_room(node, now)
        };
        if !has_room {
            node.loop_stats.refused_link_count += 1;
            return;
        }
        let origin = PeerOrigin::of(address.ip());
        let link = Link::accepted(address.to_string(), now);
        let mut session = LinkSession::new(stream, link, address.to_string());
        session.stranger_from = Some(origin);
        self.strangers.enter(origin, self.slots.vacant_key());
        self.insert(LinkSlot::Open(session), node, registry);
    }

    fn insert(&mut self, slot: LinkSlot, node: &mut Node, registry: &Registry) {
        let entry = self.slots.vacant_entry();
        let token = Token(LINK_BASE + entry.key());
        let slot = entry.insert(slot);
        let registered = registry.register(
            slot.stream(),
            token,
            Interest::READABLE | Interest::WRITABLE,
        );
        debug_assert!(
            registered.is_ok() || node.is_draining(),
            "registering fails only for lack of memory"
        );
    }

    /// Asks the leader for its port, at the first of its addresses that takes the connection.
    fn probe(
        &mut self,
        resolved: LookupResult<DialRequest>,
        node: &mut Node,
        registry: &Registry,
        now: Millis,
    ) {
        let LookupResult {
            of: dial,
            addresses,
        } = resolved;
        match addresses {
            Ok(addresses) if !addresses.is_empty() => {
                self.probe_first(dial, addresses, node, registry, now);
            }
            Ok(_) => give_up(&dial, "its name has no address", node, now),
            Err(error) => give_up(&dial, format!("its name is not found: {error}"), node, now),
        }
    }

    fn probe_first(
        &mut self,
        dial: DialRequest,
        addresses: Vec<SocketAddr>,
        node: &mut Node,
        registry: &Registry,
        now: Millis,
    ) {
        if !self.make_room(node, now) {
            return give_up(&dial, "too many connections", node, now);
        }
        match TcpStream::connect(addresses[0]) {
            Ok(stream) => {
                let (probe, until) = (PortProbe::default(), now + dial.timeout_ms);
                let slot = LinkSlot::Probing {
                    stream,
                    dial,
                    addresses,
                    probe,
                    is_asked: false,
                    until,
                };
                self.insert(slot, node, registry);
            }
            Err(error) => give_up(&dial, error, node, now),
        }
    }

    /// Continues opening connections.
    fn advance_dials(&mut self, node: &mut Node, registry: &Registry, now: Millis) {
        let is_dial =
            |(key, slot): (usize, &LinkSlot)| (!matches!(slot, LinkSlot::Open(_))).then_some(key);
        let keys: Vec<usize> = self.slots.iter().filter_map(is_dial).collect();
        for key in keys {
            match self.slots[key].advance(now) {
                DialProgress::Wait => {}
                DialProgress::Port(port) => {
                    let LinkSlot::Probing {
                        dial, addresses, ..
                    } = self.slots.remove(key)
                    else {
                        continue;
                    };
                    let address = SocketAddr::new(addresses[0].ip(), port);
                    match TcpStream::connect(address) {
                        Ok(stream) => {
                            let until = now + dial.timeout_ms;
                            self.insert(
                                LinkSlot::Connecting {
                                    stream,
                                    dial,
                                    until,
                                },
                                node,
                                registry,
                            );
                        }
                        Err(error) => give_up(&dial, error, node, now),
                    }
                }
                DialProgress::Connected => {
                    let LinkSlot::Connecting { stream, dial, .. } = self.slots.remove(key) else {
                        continue;
                    };
                    self.open(stream, &dial, node, registry, now);
                }
                DialProgress::Failed(reason) => match self.slots.remove(key) {
                    LinkSlot::Probing {
                        dial,
                        mut addresses,
                        ..
                    } if addresses.len() > 1 => {
                        addresses.remove(0);
                        self.probe_first(dial, addresses, node, registry, now);
                    }
                    LinkSlot::Probing { dial, .. } | LinkSlot::Connecting { dial, .. } => {
                        give_up(&dial, reason, node, now);
                    }
                    LinkSlot::Open(_) => {}
                },
            }
        }
    }

    /// The connection to a leader's replication port is open.
    fn open(
        &mut self,
        mut stream: TcpStream,
        dial: &DialRequest,
        node: &mut Node,
        registry: &Registry,
        now: Millis,
    ) {
        let _ = stream.set_nodelay(true);
        let _ = registry.deregister(&mut stream);
        let entry = self.slots.vacant_entry();
        let key = entry.key();
        let mut out = Vec::new();
        let Some(link) = node.connected(LinkId(key), dial, now, &mut out) else {
            return;
        };
        let token = Token(LINK_BASE + key);
        let registered =
            registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE);
        let mut session = LinkSession::new(stream, link, dial.leader.clone());
        session.out().append(&mut out);
        entry.insert(LinkSlot::Open(session));
        if let Err(error) = registered {
            self.close(key, node, &LinkError::Lost(error.to_string()), now);
        }
    }
}

fn give_up(dial: &DialRequest, failure: impl Into<DialFailure>, node: &mut Node, now: Millis) {
    let DialFailure {
        reason,
        is_starting,
    } = failure.into();
    let reason = format!("{} cannot be reached: {reason}", dial.leader);
    node.on_unreachable(dial, reason, is_starting, now);
}

/// Why a node cannot be reached.
struct DialFailure {
    reason: String,
    /// The node answers that it is not ready yet.
    is_starting: bool,
}

impl From<String> for DialFailure {
    fn from(reason: String) -> Self {
        Self {
            reason,
            is_starting: false,
        }
    }
}

impl From<&str> for DialFailure {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

impl From<io::Error> for DialFailure {
    fn from(error: io::Error) -> Self {
        error.to_string().into()
    }
}

impl From<PortProbeError> for DialFailure {
    fn from(
        PortProbeError {
            reason,
            is_starting,
        }: PortProbeError,
    ) -> Self {
        Self {
            reason,
            is_starting,
        }
    }
}

/// The result of a step of opening a connection.
enum DialProgress {
    Wait,
    Port(u16),
    Connected,
    Failed(DialFailure),
}

impl LinkSlot {
    fn stream(&mut self) -> &mut TcpStream {
        match self {
            Self::Probing { stream, .. } | Self::Connecting { stream, .. } => stream,
            Self::Open(session) => &mut session.stream,
        }
    }

    fn advance(&mut self, now: Millis) -> DialProgress {
        let outcome = match self {
            Self::Probing {
                stream,
                dial,
                probe,
                is_asked,
                ..
            } => ask(stream, dial, probe, is_asked),
            Self::Connecting { stream, .. } => match is_connected(stream) {
                Ok(true) => return DialProgress::Connected,
                Ok(false) => Ok(None),
                Err(error) => Err(error.into()),
            },
            Self::Open(_) => return DialProgress::Wait,
        };
        let (Self::Probing { until, .. } | Self::Connecting { until, .. }) = self else {
            return DialProgress::Wait;
        };
        match outcome {
            Ok(Some(port)) => DialProgress::Port(port),
            Ok(None) if *until <= now => DialProgress::Failed("it does not answer".into()),
            Ok(None) => DialProgress::Wait,
            Err(reason) => DialProgress::Failed(reason),
        }
    }
}

/// Whether a connection that was begun is open.
fn is_connected(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

/// Asks a leader for its port; the port when it has answered.
fn ask(
    stream: &mut TcpStream,
    dial: &DialRequest,
    probe: &mut PortProbe,
    is_asked: &mut bool,
) -> Result<Option<u16>, DialFailure> {
    if !is_connected(stream)? {
        return Ok(None);
    }
    if !*is_asked {
        let request = PortProbe::request(dial.leader.trim_start_matches("http://"));
        match stream.write(&request) {
            Ok(sent) if sent == request.len() => *is_asked = true,
            Ok(_) => return Err("it takes no request".into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err("it closed the connection before it answered".into()),
            Ok(len) => {
                if let Some(port) = probe.receive(&buffer[..len])? {
                    return Ok(Some(port));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
