//! The event loop: mio, sockets, clocks and signals, and nothing that could be decided without
//! them.
//!
//! One turn (`event_loop.rs`), and what owns each part of it:
//!
//! ```text
//!   1 poll        time-out 0 if anything is ready or owed, else the next deadline
//!   2 accept      a bounded number of connections (`acceptor.rs`)
//!   3 replicate   read from leaders and replicas (`replication.rs`)
//!     cluster     ask etcd, and act on what it says (`etcd.rs`)
//!     release     records go to the disk thread (`disk.rs`); then the replies to
//!                 durable writes are sent (`deferred_replies.rs`)
//!   4 visit       sessions of the ready queue, in batches, within the budget of the turn: read,
//!                 execute, send (`visit_batch.rs`, `session.rs`)
//!     watch       watchers get what was committed (`watching.rs`)
//!   5 hand over   the turn's records go to the disk thread, if it is idle, and to replicas
//!   6 maintain    one slice of merging, paid for by the writes of this turn; more when there
//!                 is nothing else to do (`housekeeping.rs`)
//!   7 deadlines   connections that are too slow (`sessions.rs`, `deadlines.rs`)
//!     relieve     where memory is short, the slowest connections end (`relief.rs`)
//!   8 free        closed sessions; only here, so that a stale event never meets a reused key
//!     report      to the service manager, if there is one (`sd_notify.rs`)
//! ```
//!
//! `core.rs` has what all of them work on: the node, the sessions and the clock.
//!
//! Invariants:
//! 1. A turn does bounded work: limits of time and bytes for requests (`limits.rs`), and a slice of
//!    maintenance. The rest waits on the ready queue, first come first served.
//! 2. Sockets are registered once, for reading and writing.
//! 3. Nothing outside of this folder reads a clock, touches a socket or handles a signal.

mod acceptor;
mod clock;
mod commit_gates;
mod core;
mod deadlines;
mod deferred_replies;
mod descriptors;
mod disk;
mod error;
mod etcd;
mod event_loop;
mod greeting;
mod housekeeping;
mod idle_queue;
mod limits;
mod line_limit;
mod link;
mod listener;
mod map_polls;
mod measure;
mod pending_metrics;
mod progress;
mod relief;
mod replication;
mod resolver;
mod sd_notify;
mod session;
mod sessions;
mod slow_log;
mod stderr_log;
mod strangers;
mod timers;
mod visit_batch;
mod watching;

use crate::config::Config;
use crate::storage::{IdGenerator, StartReport};

use descriptors::Descriptors;

pub use error::RunError;

/// Says in one line what a node of this configuration would start with; the error is what would
/// prevent the start. Nothing is changed, and nothing listens.
///
/// An address in use is no error: it may be that of the node that this one is to replace. The line
/// names it.
pub fn check(config: &Config) -> Result<String, RunError> {
    Descriptors::before_start(config).check()?;
    let taken = addresses_in_use(config)?;
    let condition = if taken.is_empty() {
        String::new()
    } else {
        format!(" once {} is free, which is in use now", taken.join(" and "))
    };
    let found = match disk::check(config)? {
        StartReport::Usable(found) => found,
        StartReport::InUse(path) => {
            format!("once the db-node that uses {path} now has ended (its files were not read)")
        }
    };
    Ok(format!(
        "a node can start{condition}: it would listen on http://{}, {found}",
        config.listen
    ))
}

/// The addresses of a configuration that other processes listen on.
fn addresses_in_use(config: &Config) -> Result<Vec<String>, RunError> {
    let mut taken = Vec::new();
    let listen = config.listen;
    if !listener::is_free(listen).map_err(|error| RunError::Listen(listen, error))? {
        taken.push(listen.to_string());
    }
    if let Some(address) = config.replication_listen
        && !listener::is_free(address)
            .map_err(|error| RunError::ListenForReplicas(address, error))?
    {
        taken.push(address.to_string());
    }
    Ok(taken)
}

/// Runs a node until it is told to stop. `hash_seed` and `ids` are to be random.
pub fn run(config: &Config, hash_seed: u64, ids: IdGenerator) -> Result<(), RunError> {
    stderr_log::install(config.log_level)
        .map_err(|error| RunError::System("prepare the log", error))?;
    event_loop::EventLoop::new(config, hash_seed, ids)?.run()
}
