//! Errors that end the node, each as one line with the way out.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::storage::StorageError;

use super::limits::DRAIN_MS;

/// The node cannot run. To be printed before the process exits.
#[derive(Debug)]
pub enum RunError {
    /// The HTTP socket could not be bound.
    Listen(SocketAddr, io::Error),
    /// The replication socket could not be bound.
    ListenForReplicas(SocketAddr, io::Error),
    /// The limit on descriptors leaves too few for connections.
    TooFewDescriptors {
        /// The limit.
        limit: usize,
        /// The least that it has to be.
        needed: usize,
    },
    /// A system call that the loop cannot do without failed.
    System(&'static str, io::Error),
    /// A second signal came before the node had stopped.
    Interrupted,
    /// The data cannot be used, or the log could not be finished.
    Storage(StorageError),
    /// The disk did not finish in time.
    DiskStalled,
}

impl RunError {
    /// Whether the command line is wrong.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Storage(StorageError::Unusable(_)))
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(address, error) if error.kind() == io::ErrorKind::AddrInUse => write!(
                f,
                "cannot listen on {address}: the port is in use; stop the process that has it or \
                 choose another with --listen"
            ),
            Self::Listen(address, error) => {
                write!(
                    f,
                    "cannot listen on {address}: {error}; choose an address of this machine with \
                     --listen"
                )
            }
            Self::ListenForReplicas(address, error) => write!(
                f,
                "cannot listen for replicas on {address}: {error}; choose another address with \
                 --replication-listen, or off"
            ),
            Self::TooFewDescriptors { limit, needed } => write!(
                f,
                "the limit on file descriptors is {limit}, and {needed} are needed at least: raise \
                 it (ulimit -n)"
            ),
            Self::System(call, error) => write!(f, "{call} failed: {error}"),
            Self::Storage(error) => error.fmt(f),
            Self::DiskStalled => {
                write!(
                    f,
                    "the disk did not finish within {DRAIN_MS} ms: the last writes may not be on it"
                )
            }
            Self::Interrupted => write!(
                f,
                "stopped at once by a second signal; requests in flight were cut off"
            ),
        }
    }
}

impl std::error::Error for RunError {}
