//! The listening socket. It has a long backlog, and survives a lack of descriptors.
//!
//! Invariants:
//! 1. At most [`ACCEPTS_PER_TURN`] connections are taken in one turn; the rest waits in the backlog
//!    for the next.
//! 2. Out of descriptors, the node neither spins on a listener that stays readable nor leaves
//!    clients hanging: it frees a spare descriptor, accepts and closes the waiting connections with
//!    it, and tries again after [`RETRY_MS`].

use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, Socket, Type};

use super::timers::Millis;

/// The backlog. mio's own `bind` asks for less.
const BACKLOG: i32 = 1024;

/// Each accept costs some ten microseconds, registration included.
pub(super) const ACCEPTS_PER_TURN: usize = 16;

/// Pause after running out of descriptors.
pub(super) const RETRY_MS: u64 = 100;

/// The listener.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    spare: Option<Socket>,
    /// Connections may be waiting to be accepted.
    is_ready: bool,
    /// Out of descriptors until then.
    again_at: Option<Millis>,
}

/// The result of an accept.
#[derive(Debug)]
pub(super) enum AcceptResult {
    /// A connection, and the address of its peer.
    Stream(TcpStream, SocketAddr),
    /// A connection that ended before it was accepted, or for which no descriptor was left; there
    /// may be more.
    Lost,
    /// None is waiting.
    NoneWaiting,
    /// No descriptor is left: accepting goes on after [`RETRY_MS`].
    OutOfDescriptors,
}

impl Listener {
    /// Listens on `address`.
    pub(super) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = bound(address)?;
        socket.listen(BACKLOG)?;
        Ok(Self {
            socket: TcpListener::from_std(socket.into()),
            spare: new_spare().ok(),
            is_ready: false,
            again_at: None,
        })
    }

    /// The address it listens on, with the port the system chose for port 0.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// The poll reports connections.
    pub(super) fn on_event(&mut self) {
        self.is_ready = self.again_at.is_none();
    }

    /// When to accept the next connection at the latest; 0: now.
    pub(super) fn wake_at(&self) -> Option<Millis> {
        if self.is_ready {
            Some(0)
        } else {
            self.again_at
        }
    }

    /// Takes one connection.
    pub(super) fn accept(&mut self, now: Millis) -> AcceptResult {
        self.is_ready |= self.again_at.take_if(|at| *at <= now).is_some();
        if !self.is_ready {
            return AcceptResult::NoneWaiting;
        }
        let result = self.take();
        match result {
            AcceptResult::Stream(..) | AcceptResult::Lost => {}
            AcceptResult::NoneWaiting => self.is_ready = false,
            AcceptResult::OutOfDescriptors => {
                (self.is_ready, self.again_at) = (false, Some(now + RETRY_MS));
            }
        }
        result
    }

    fn take(&mut self) -> AcceptResult {
        match self.socket.accept() {
            Ok((stream, address)) => AcceptResult::Stream(stream, address),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => AcceptResult::NoneWaiting,
            Err(error) if is_out_of_descriptors(&error) => self.turn_one_away(),
            // The peer gave up, or a signal came: the next accept may succeed.
            Err(_) => AcceptResult::Lost,
        }
    }

    fn turn_one_away(&mut self) -> AcceptResult {
        if self.spare.take().is_none() {
            self.spare = new_spare().ok();
            return AcceptResult::OutOfDescriptors;
        }
        let outcome = self.socket.accept().map(drop);
        self.spare = new_spare().ok();
        if outcome.is_ok() {
            AcceptResult::Lost
        } else {
            AcceptResult::OutOfDescriptors
        }
    }
}

/// Whether no other process listens on `address`. It is not listened on: no client notices.
pub(super) fn is_free(address: SocketAddr) -> io::Result<bool> {
    match bound(address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(false),
        bound => bound.map(|_| true),
    }
}

fn bound(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restarted node gets its port back at once, connections of its predecessor in TIME_WAIT or
    // not.
    socket.set_reuse_address(true)?;
    // Answers are sent whole: nothing is gained by waiting for more. On Linux connections inherit
    // this.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn new_spare() -> io::Result<Socket> {
    Socket::new(Domain::UNIX, Type::STREAM, None)
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}
