//! Errors that end the node, each as one line with the way out.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;

use crate::storage::StorageError;

use super::limits::DRAIN_MS;

/// The node cannot run. To be printed before the process exits.
#[derive(Debug, Error)]
pub enum RunError {
    /// The HTTP socket could not be bound.
    #[error("cannot listen on {0}: {hint}", hint = listen_hint(.1))]
    Listen(SocketAddr, io::Error),
    /// The replication socket could not be bound.
    #[error(
        "cannot listen for replicas on {0}: {1}; choose another address with \
         --replication-listen, or off"
    )]
    ListenForReplicas(SocketAddr, io::Error),
    /// The limit on descriptors leaves too few for connections.
    #[error(
        "the limit on file descriptors is {limit}, and {needed} are needed at least: raise it \
         (ulimit -n)"
    )]
    TooFewDescriptors {
        /// The limit.
        limit: usize,
        /// The least that it has to be.
        needed: usize,
    },
    /// A system call that the loop cannot do without failed.
    #[error("{0} failed: {1}")]
    System(&'static str, io::Error),
    /// A second signal came before the node had stopped.
    #[error("stopped at once by a second signal; requests in flight were cut off")]
    Interrupted,
    /// The data cannot be used, or the log could not be finished.
    #[error("{0}")]
    Storage(StorageError),
    /// Another process has registered in etcd as the same node. Its address.
    #[error(
        "another process runs as the same node, at {0}, and was started later: this one ends. Give \
         each node a --node of its own"
    )]
    Replaced(String),
    /// The disk did not finish in time.
    #[error("the disk did not finish within {DRAIN_MS} ms: the last writes may not be on it")]
    DiskStalled,
}

impl RunError {
    /// Whether the command line is wrong.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Storage(StorageError::Unusable(_)))
    }
}

/// What to do about an address that cannot be listened on, behind the reason.
fn listen_hint(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is in use; stop the process that has it or choose another with --listen"
                .to_owned()
        }
        _ => format!("{error}; choose an address of this machine with --listen"),
    }
}
