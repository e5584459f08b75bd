//! db-node: the database node of a distributed key-value system.
//!
//! One process, one thread (and one more for files, if data is kept on disk): an event loop
//! ([`reactor`]) reads bytes from sockets, a state machine ([`http`]) makes requests of them,
//! [`api`] says what each request means, and [`node`] and [`partition`] carry it out in an
//! in-memory log-structured merge tree ([`lsm`]).
//!
//! # Code map, lowest first
//!
//! - [`seeded_bugs`]: bugs for the simulation to find; compiled in for that alone.
//! - [`version`]: which build this is.
//! - [`status_codes`]: status codes of HTTP and their reason phrases.
//! - [`swar`]: looking at eight bytes at once.
//! - [`slew`]: a clock that is never set.
//! - [`allocator`]: memory that is counted, and goes back to the kernel; the only `unsafe` code.
//! - [`config`]: flags and environment into a validated `Config`. Read once, at the start.
//! - [`metrics`]: counters and histograms, and the text that Prometheus reads.
//! - [`http`]: HTTP/1.1 without I/O. Bytes in, requests to a handler, bytes out, in order. Knows
//!   nothing of the engine; every rule about what is a request and where it ends is here.
//! - [`lsm`]: the engine. Pure memory: no I/O, no clock, no HTTP. Start at `lsm/mod.rs`; byte
//!   layouts have one home each, `lsm/log/record.rs` and `lsm/chunk/layout.rs`.
//! - [`storage`]: log files, checkpoint files, recovery, and the disk thread that writes them. The
//!   only place with files.
//! - [`replication`]: what leader and replica say to each other. Bytes in, bytes out: no socket, no
//!   clock.
//! - [`partition`]: one engine, its side of the log on disk, its role, its replicas and its leader,
//!   and what a request may do with them: conditions on writes, and what replies wait for.
//! - [`cluster`]: what a configuration in etcd makes of this node's partitions: when one stands, is
//!   named and takes office, and which copies are in sync; and the client of etcd, without I/O.
//! - [`node`]: the partitions of this process, which node is at the other end of a replication
//!   connection, and statistics.
//! - [`api`]: a table of routes, a file for each family of endpoints, access checks, JSON and raw
//!   forms of keys and values.
//! - [`reactor`]: mio. The one loop, sockets, clocks, deadlines, signals, the log on standard
//!   error.
//! - [`client`]: the commands that ask a node. No part of the server: blocking sockets, and files
//!   and clocks of its own.
//!
//! Imports run one way, down this list; `tests/tidy/` fails on any other.
//!
//! # Invariants
//!
//! 1. One thread owns everything, and waits for no work of another; no async runtime. (A host name
//!    is resolved on a thread that lives for that question.) The disk thread receives batches of
//!    records and `Arc`s of immutable layers through a mailbox, and reports through another what is
//!    done. A lock is held to add or take one value (`storage/mailbox.rs`). Apart from these,
//!    threads share counts and freed memory by atomics (`allocator/`).
//! 2. No turn of the loop does work proportional to the data, to a value, or to what one peer
//!    sends: it is done in slices.
//! 3. In a server only `reactor` touches sockets and clocks, only `storage` files. Everything else
//!    takes bytes, events and `now`, and returns bytes and effects.
//! 4. Each byte layout has one home and one test with golden bytes.
//! 5. Whatever a peer sends, the node does not panic, and memory stays within the named limits.
//!
//! # How a read travels
//!
//! 1. `reactor/event_loop.rs`: `run` wakes up; `on_events` puts the connection on the ready queue.
//! 2. `reactor/visit_batch.rs`: `visit_ready` reads several sessions (`reactor/session.rs`) and has
//!    the keys that their requests are about fetched into the processor's cache
//!    (`api/endpoint/lookahead.rs`, `lsm/lookup_cache.rs`).
//! 3. `http/connection.rs` finds the head (`http/head_reader.rs`, `http/request.rs`) and calls
//!    `Api::begin` (`api/dispatch.rs`).
//! 4. `api/request/route.rs` names the route, `api/request/access_policy.rs` checks the sender,
//!    `api/request/takes.rs` what the request says, and `api/endpoint/kv.rs` answers:
//!    `Partition::get`, then `Lsm::get` (`lsm/engine/mod.rs`), which asks the memtable and then the
//!    layers, newest first.
//! 5. The answer goes into the session's output (`http/output.rs`) and is sent at the end of the
//!    visit.
//!
//! # How a write travels
//!
//! 1. As a read, up to `api/endpoint/kv.rs`; a body that is not there yet is collected
//!    (`api/body/request_body.rs`).
//! 2. `Partition::set` (`partition/state.rs`) checks role, conditions and room. `Lsm::set` appends
//!    a record to the log (`lsm/log/wal.rs`) and points the memtable's index at it.
//! 3. The reply waits in the session's output if it promises more than memory: `api/effects.rs`
//!    says for what, `reactor/commit_gates.rs` which session waits for it.
//! 4. `partition/disk_log.rs` hands the new records to the disk thread (`storage/thread.rs`), which
//!    writes and syncs them (`storage/log_writer.rs`) and reports the version.
//! 5. `reactor/deferred_replies.rs` releases the replies up to that version. Maintenance that the
//!    write owes is paid in slices at the end of the turn (`reactor/housekeeping.rs`,
//!    `lsm/levels.rs`).
//!
//! # How a replicated record travels
//!
//! 1. `reactor/replication.rs` asks the partition of each link for bytes
//!    (`partition/links.rs`). The leader's end (`replication/replica_sender.rs`) takes records from
//!    the log in memory, up to what the leader's disk holds; `partition/serving.rs` says which
//!    nodes are served and how much log they may pin.
//! 2. The records travel as `Records` frames (`replication/frame.rs`).
//! 3. The replica's end (`replication/leader_receiver.rs`) checks that each record continues the
//!    history (`lsm/log/reader.rs`), and `Lsm::replay` applies it (`partition/following.rs`).
//! 4. The replica writes its own log as for any write, and confirms what is applied and what is on
//!    disk in an `Ack` frame.
//! 5. The leader's end keeps the confirmed versions; `partition/ack_requirements.rs` says how far
//!    enough replicas are, and `reactor/deferred_replies.rs` sends the replies up to there.
//!
//! # Glossary
//!
//! | here | elsewhere |
//! |---|---|
//! | **memtable**, **layer**, **level** | as in RocksDB; a layer is a frozen memtable or a run |
//! | **run**, **chunk** | a sorted table, and its blocks (64 KiB) with an index of their own |
//! | **bottom** | the last level: one run with most of the data |
//! | **version** | sequence number, revision: one for each write of a partition |
//! | **history**, **lineage** | timeline (Postgres): a leader begins a new one; the chain of them |
//! | **token** | a version with the history that it is of: ETag, resume position |
//! | **epoch** | term (Raft), configuration number: decides which node may lead |
//! | **takeover**, **claim**, **grant** | election: a node claims an epoch, the others grant it |
//! | **office** | a leader is in office once its claim is granted and all data is here |
//! | **settled** | role and epoch are durable |
//! | **turn**, **slice** | one pass of the event loop; a bounded piece of longer work |
//! | **debt**, **owed work** | merging that writes have caused and not paid yet |
//! | **gate** | what a reply waits at: the disk, replicas, a change of role |
//! | **checkpoint** | a snapshot on disk, from which a start goes on with the log behind it |
//! | **generation** | a complete set of files; a replacement of all data writes the next one |
//! | **`log-end`** | manifest: which files are the newest, and how far the log was synced |
//! | **sweep** | rewriting chunks of which much has expired |
//! | **stranger** | a replication connection that has not said hello |

pub mod seeded_bugs;
pub mod version;
pub mod status_codes;
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
pub mod cluster;
pub mod node;
pub mod api;
pub mod reactor;
pub mod client;

pub use version::{COMMIT, VERSION};
