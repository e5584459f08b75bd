//! Host names to addresses. The system's resolver blocks, so each question gets a thread for as long as it takes; addresses
//! given as such need none.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use mio::Waker;

/// What came of a question, with what it was asked for.
#[derive(Debug)]
pub(super) struct Resolved<T> {
    pub(super) of: T,
    pub(super) addresses: io::Result<Vec<SocketAddr>>,
}

/// Questions under way.
#[derive(Debug)]
pub(super) struct Resolver<T> {
    sender: Sender<Resolved<T>>,
    receiver: Receiver<Resolved<T>>,
    waker: Arc<Waker>,
}

impl<T: Clone + Send + 'static> Resolver<T> {
    /// The waker wakes the loop when [`next`](Self::next) has something.
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        let (sender, receiver) = channel();
        Self {
            sender,
            receiver,
            waker,
        }
    }

    /// Asks for the addresses of an authority such as `10.0.0.7:9001` or `db-0:9001`.
    pub(super) fn ask(&self, authority: &str, of: T) {
        let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
        let Ok(port) = port.parse::<u16>() else {
            return self.tell(Resolved {
                of,
                addresses: Err(io::ErrorKind::InvalidInput.into()),
            });
        };
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = literal.parse::<IpAddr>() {
            return self.tell(Resolved {
                of,
                addresses: Ok(vec![SocketAddr::new(address, port)]),
            });
        }
        let (sender, waker, host) = (
            self.sender.clone(),
            Arc::clone(&self.waker),
            host.to_owned(),
        );
        let asked_for = of.clone();
        let resolve = move || {
            let addresses = (host.as_str(), port)
                .to_socket_addrs()
                .map(Iterator::collect);
            let _ = sender.send(Resolved { of, addresses });
            let _ = waker.wake();
        };
        let thread = std::thread::Builder::new()
            .name("resolve".to_owned())
            .stack_size(256 * 1024)
            .spawn(resolve);
        if let Err(error) = thread {
            self.tell(Resolved {
                of: asked_for,
                addresses: Err(error),
            });
        }
    }

    fn tell(&self, resolved: Resolved<T>) {
        let _ = self.sender.send(resolved);
    }

    /// The next answer, if there is one.
    pub(super) fn next(&self) -> Option<Resolved<T>> {
        self.receiver.try_recv().ok()
    }
}
