//! db-node: the database node of a distributed key-value system.
//!
//! One process, one thread (and one more for files, if data is kept on disk): an event loop
//! ([`reactor`]) reads bytes from sockets, a state machine ([`http`]) makes requests of them,
//! [`api`] says what each request means, and [`node`] and [`partition`] carry it out in an
//! in-memory log-structured merge tree ([`lsm`]).
//!
//! # Code map, lowest first
//!
//! - [`planted`]: bugs for the simulation to find; compiled in for that alone.
//! - [`version`]: which build this is.
//! - [`swar`]: looking at eight bytes at once.
//! - [`slew`]: a clock that is never set.
//! - [`allocator`]: what is allocated is counted, and given back; the only `unsafe` code.
//! - [`config`]: flags and environment into a validated `Config`. Read once, at the start.
//! - [`metrics`]: counters and histograms, and the text that Prometheus reads.
//! - [`http`]: HTTP/1.1 without I/O. Bytes in, requests to a handler, bytes out, in order. Knows
//!   nothing of the engine; every rule about what is a request and where it ends is here.
//! - [`lsm`]: the engine. Pure memory: no I/O, no clock, no HTTP. Start at `lsm/mod.rs`; byte
//!   layouts have one home each, `lsm/log/record.rs` and `lsm/chunk/mod.rs`.
//! - [`storage`]: log files, checkpoint files, recovery, and the disk thread that writes them. The
//!   only place with files.
//! - [`replication`]: what leader and replica say to each other. Bytes in, bytes out: no socket, no
//!   clock.
//! - [`partition`]: one engine, its side of the log on disk, its role, its replicas and its leader,
//!   and what a request may do with them: conditions on writes, and what replies wait for.
//! - [`node`]: the partitions of this process, which node is at the other end of a replication
//!   connection, and figures.
//! - [`api`]: routes, one file a family; access checks; JSON and raw forms of keys and values.
//! - [`reactor`]: mio. The one loop, sockets, clocks, deadlines, signals, the log on standard
//!   error.
//!
//! Imports run one way, down this list; `tests/tidy.rs` fails on any other.
//!
//! # Invariants
//!
//! 1. One thread owns everything: no locks, no async runtime, no shared mutable state. (A leader's
//!    host name is resolved on a thread that lives for that question.) The disk thread is handed
//!    batches of records and `Arc`s of immutable layers through a channel, and tells through
//!    another what is done.
//! 2. No turn of the loop does work proportional to the data, to a value, or to what one peer
//!    sends: it is done in slices.
//! 3. Only `reactor` touches sockets and clocks, only `storage` files. Everything else takes bytes,
//!    events and `now`, and returns bytes and effects.
//! 4. Each byte layout has one home and one test with golden bytes.
//! 5. Whatever a peer sends, the node does not panic, and memory stays within the named limits.

pub mod planted;
pub mod version;
pub mod swar;
pub mod slew;
pub mod allocator;
pub mod config;
pub mod metrics;
pub mod http;
pub mod lsm;
pub mod storage;
pub mod replication;
pub mod partition;
pub mod node;
pub mod api;
pub mod reactor;

pub use version::{COMMIT, VERSION};
