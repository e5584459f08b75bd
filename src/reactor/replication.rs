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

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token, Waker};
use slab::Slab;

use crate::node::{DialRequest, Node};
use crate::replication::{DialFailure, Link, LinkError, LinkId, PortProbe};

use super::descriptors::Shares;
use super::error::RunError;
use super::limits::{
    BUSY_LINK_BYTES, LINKS_MAX, LOOKUP_DESCRIPTORS, QUIET_LINK_BYTES, STRANGER_BYTES,
    STRANGER_LINES,
};
use super::line_limit::LineLimit;
use super::link::LinkSession;
use super::listener::{ACCEPTS_PER_TURN, AcceptResult, Listener};
use super::resolver::Resolver;
use super::strangers::{PeerOrigin, Strangers};
use super::timers::Millis;

/// The listener's token, and the first of those of links; those of HTTP connections are small.
const REPLICA_LISTENER: Token = Token(usize::MAX / 2);
const LINK_BASE: usize = usize::MAX / 2 + 1;

#[derive(Debug)]
enum LinkSlot {
    Dialing(Dialing),
    Open(LinkSession),
}

/// A connection that is being opened.
#[derive(Debug)]
struct Dialing {
    stream: TcpStream,
    request: DialRequest,
    until: Millis,
    /// While the leader is asked for its port; none once that port is dialed.
    search: Option<PortSearch>,
}

/// A leader is asked for its port, by `/health`.
#[derive(Debug, Default)]
struct PortSearch {
    /// Further addresses of the leader's name.
    others: VecDeque<SocketAddr>,
    probe: PortProbe,
    is_asked: bool,
}

/// What connections are made with in a turn of the loop.
pub(super) struct LinkTurn<'t> {
    pub(super) node: &'t mut Node,
    pub(super) registry: &'t Registry,
    pub(super) now: Millis,
}

/// All replication connections.
#[derive(Debug)]
pub(super) struct Replication {
    listener: Option<Listener>,
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
                registry.register(&mut listener.socket, REPLICA_LISTENER, Interest::READABLE);
            register.map_err(|error| RunError::System("epoll_ctl", error))?;
            let address = listener
                .local_addr()
                .map_err(|error| RunError::System("getsockname", error))?;
            Ok((listener, address))
        });
        let (listener, address) = listener.transpose()?.unzip();
        let replication = Self {
            listener,
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
            self.listener.iter_mut().for_each(Listener::on_event);
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
            Some(LinkSlot::Dialing(_)) => {}
            None => return key < LINKS_MAX,
        }
        true
    }

    /// When the next turn is due without an event; 0: now.
    pub(super) fn wake_at(&self, node: &Node) -> Option<Millis> {
        let link_at = if self.is_busy { 0 } else { self.wake_at };
        let link_at = (!self.slots.is_empty()).then_some(link_at);
        let accept_at = self.listener.as_ref().and_then(Listener::wake_at);
        let times = [link_at, node.dial_at_ms(), accept_at];
        times.into_iter().flatten().min()
    }

    /// No more replicas; leaders are not dialed again.
    pub(super) fn drain(&mut self) {
        self.listener = None;
    }

    /// Reads from all links, and dials what is to be dialed.
    pub(super) fn read(&mut self, turn: &mut LinkTurn<'_>, is_quiet: bool) {
        let now = turn.now;
        let left_out_count = self.stranger_lines.tick(now);
        if left_out_count > 0 {
            log::info!("replication: and {left_out_count} more strangers within a second");
        }
        while let Some(dial) = turn.node.take_dial(now) {
            let authority = dial.leader.trim_start_matches("http://").to_owned();
            self.resolver.ask(&authority, dial);
        }
        while let Some((request, addresses)) = self.resolver.next() {
            self.probe(request, addresses, turn);
        }
        let mut budget = link_budget(is_quiet);
        let mut buffer = std::mem::take(&mut self.buffer);
        if self.slots.is_empty() {
            buffer = Vec::new();
        } else if buffer.is_empty() {
            // Zeroed by the kernel where it is first used: links at rest use some pages of it.
            buffer = vec![0; QUIET_LINK_BYTES];
        }
        let mut stranger_budget = STRANGER_BYTES;
        self.for_each(turn.node, now, |session, id, node| {
            let budget = match session.stranger_from {
                Some(_) => &mut stranger_budget,
                None => &mut budget,
            };
            session.read(id, node, &mut buffer, budget, now)
        });
        self.buffer = buffer;
        self.accept(turn);
        self.advance_dials(turn);
    }

    /// Sends to all links.
    pub(super) fn write(&mut self, node: &mut Node, is_quiet: bool, now: Millis) {
        let mut budget = link_budget(is_quiet);
        self.for_each(node, now, |session, _, node| {
            session.write(node, &mut budget, now)
        });
        self.next = self.next.wrapping_add(1);
        (self.is_busy, self.wake_at) = (false, Millis::MAX);
        for (_, slot) in &mut self.slots {
            match slot {
                LinkSlot::Dialing(dialing) => self.wake_at = self.wake_at.min(dialing.until),
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

    fn accept(&mut self, turn: &mut LinkTurn<'_>) {
        // No more than the limit on strangers, so that each is read once before it can be closed.
        for _ in 0..ACCEPTS_PER_TURN.min(self.stranger_max) {
            let Some(listener) = &mut self.listener else {
                return;
            };
            match listener.accept(turn.now) {
                AcceptResult::Stream(stream, address) => self.admit(stream, address, turn),
                AcceptResult::Lost => {}
                AcceptResult::NoneWaiting | AcceptResult::OutOfDescriptors => return,
            }
        }
    }

    /// Adds a connection without a hello. Without room it is closed; a replica tries again.
    fn admit(&mut self, stream: TcpStream, address: SocketAddr, turn: &mut LinkTurn<'_>) {
        let is_full = self.strangers.len() >= self.stranger_max;
        let has_room = if is_full {
            self.let_stranger_go(turn.node, turn.now)
        } else {
            self.make_room(turn.node, turn.now)
        };
        if !has_room {
            turn.node.loop_stats.refused_link_count += 1;
            return;
        }
        let origin = PeerOrigin::of(address.ip());
        let link = Link::accepted(address.to_string(), turn.now);
        let mut session = LinkSession::new(stream, link, address.to_string());
        session.stranger_from = Some(origin);
        self.strangers.enter(origin, self.slots.vacant_key());
        self.insert(LinkSlot::Open(session), turn);
    }

    fn insert(&mut self, slot: LinkSlot, turn: &mut LinkTurn<'_>) {
        let entry = self.slots.vacant_entry();
        let token = Token(LINK_BASE + entry.key());
        let stream = match entry.insert(slot) {
            LinkSlot::Dialing(dialing) => &mut dialing.stream,
            LinkSlot::Open(session) => &mut session.stream,
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = turn.registry.register(stream, token, interest);
        debug_assert!(
            registered.is_ok() || turn.node.is_draining(),
            "registering fails only for lack of memory"
        );
    }

    /// Asks the leader for its port, at the first of its addresses that takes the connection.
    fn probe(
        &mut self,
        request: DialRequest,
        addresses: io::Result<Vec<SocketAddr>>,
        turn: &mut LinkTurn<'_>,
    ) {
        match addresses {
            Ok(addresses) => self.probe_first(request, addresses.into(), turn),
            Err(error) => {
                let reason = format!("its name is not found: {error}");
                give_up(&request, DialFailure::new(reason), turn);
            }
        }
    }

    fn probe_first(
        &mut self,
        request: DialRequest,
        mut others: VecDeque<SocketAddr>,
        turn: &mut LinkTurn<'_>,
    ) {
        let Some(first) = others.pop_front() else {
            let failure = DialFailure::new("its name has no address");
            return give_up(&request, failure, turn);
        };
        if !self.make_room(turn.node, turn.now) {
            return give_up(&request, DialFailure::new("too many connections"), turn);
        }
        let search = PortSearch {
            others,
            ..PortSearch::default()
        };
        self.dial(request, first, Some(search), turn);
    }

    fn dial(
        &mut self,
        request: DialRequest,
        address: SocketAddr,
        search: Option<PortSearch>,
        turn: &mut LinkTurn<'_>,
    ) {
        match TcpStream::connect(address) {
            Ok(stream) => {
                let dialing = Dialing {
                    stream,
                    until: turn.now + request.timeout_ms,
                    request,
                    search,
                };
                self.insert(LinkSlot::Dialing(dialing), turn);
            }
            Err(error) => give_up(&request, error.into(), turn),
        }
    }

    /// Continues opening connections.
    fn advance_dials(&mut self, turn: &mut LinkTurn<'_>) {
        for key in 0..self.slots.capacity().min(LINKS_MAX) {
            let Some(LinkSlot::Dialing(dialing)) = self.slots.get_mut(key) else {
                continue;
            };
            let outcome = dialing.advance(turn.now);
            if matches!(outcome, Ok(None)) {
                continue;
            }
            let LinkSlot::Dialing(dialing) = self.slots.remove(key) else {
                continue;
            };
            match (outcome, dialing.search) {
                (Ok(Some(address)), Some(_)) => self.dial(dialing.request, address, None, turn),
                (Ok(_), _) => self.open(dialing.stream, &dialing.request, turn),
                (Err(_), Some(search)) if !search.others.is_empty() => {
                    self.probe_first(dialing.request, search.others, turn);
                }
                (Err(failure), _) => give_up(&dialing.request, failure, turn),
            }
        }
    }

    /// The connection to a leader's replication port is open.
    fn open(&mut self, mut stream: TcpStream, dial: &DialRequest, turn: &mut LinkTurn<'_>) {
        let _ = stream.set_nodelay(true);
        let _ = turn.registry.deregister(&mut stream);
        let entry = self.slots.vacant_entry();
        let key = entry.key();
        let mut out = Vec::new();
        let link = turn.node.connected(LinkId(key), dial, turn.now, &mut out);
        let Some(link) = link else {
            return;
        };
        let token = Token(LINK_BASE + key);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = turn.registry.register(&mut stream, token, interest);
        let mut session = LinkSession::new(stream, link, dial.leader.clone());
        session.out.append(&mut out);
        entry.insert(LinkSlot::Open(session));
        if let Err(error) = registered {
            let reason = LinkError::Lost(error.to_string());
            self.close(key, turn.node, &reason, turn.now);
        }
    }
}

/// Bytes that links may read or send in a turn.
fn link_budget(is_quiet: bool) -> usize {
    if is_quiet {
        QUIET_LINK_BYTES
    } else {
        BUSY_LINK_BYTES
    }
}

fn give_up(dial: &DialRequest, mut failure: DialFailure, turn: &mut LinkTurn<'_>) {
    failure.reason = format!("{} cannot be reached: {}", dial.leader, failure.reason);
    turn.node.on_unreachable(dial, failure, turn.now);
}

impl Dialing {
    /// The address to dial next, or the one that is connected; none: it takes longer.
    fn advance(&mut self, now: Millis) -> Result<Option<SocketAddr>, DialFailure> {
        let found = match (connected_address(&self.stream)?, &mut self.search) {
            (Some(address), Some(search)) => search
                .advance(&mut self.stream, &self.request.leader)?
                .map(|port| SocketAddr::new(address.ip(), port)),
            (address, _) => address,
        };
        if found.is_none() && self.until <= now {
            return Err(DialFailure::new("it does not answer"));
        }
        Ok(found)
    }
}

/// The peer's address once a connection that was begun is open.
pub(super) fn connected_address(stream: &TcpStream) -> io::Result<Option<SocketAddr>> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(None),
        address => address.map(Some),
    }
}

impl PortSearch {
    /// Asks a leader for its port; the port when it has answered.
    fn advance(
        &mut self,
        stream: &mut TcpStream,
        leader: &str,
    ) -> Result<Option<u16>, DialFailure> {
        if !self.is_asked {
            let request = PortProbe::request(leader.trim_start_matches("http://"));
            match stream.write(&request) {
                Ok(sent) if sent == request.len() => self.is_asked = true,
                Ok(_) => return Err(DialFailure::new("it takes no request")),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => {
                    let reason = "it closed the connection before it answered";
                    return Err(DialFailure::new(reason));
                }
                Ok(len) => {
                    if let Some(port) = self.probe.receive(&buffer[..len])? {
                        return Ok(Some(port));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
