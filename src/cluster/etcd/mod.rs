//! A client of etcd's JSON gateway: bytes in, bytes out, no socket and no clock.
//!
//! `client.rs` is the client: a state machine over two connections, one for requests
//! (`request.rs`, `answer.rs`, `auth.rs`) and one for a watch (`watch.rs`), each of which goes from
//! end point to end point (`endpoints.rs`). `response.rs` reads HTTP.
//!
//! Invariants:
//! 1. One request at a time. A connection on which a request was given up is closed, and what still
//!    comes from it is dropped: a late answer is never taken for that to the next request.
//! 2. A failure says nothing about what etcd did: a `Write` that timed out may be carried out
//!    later.
//! 3. Ranges are linearizable. The watch only says that a range is worthwhile: no content of it is
//!    used.
//! 4. An answer is at most [`ANSWER_MAX_BYTES`] long, a line of the watch [`LINE_MAX_BYTES`], a
//!    head [`HEAD_MAX_BYTES`], and JSON has a bounded number of elements; whatever is longer or
//!    malformed ends its connection.
//!
//! Written for and tried with etcd 3.4; error bodies of 3.6 are understood as well. Not here: what
//! keys and values mean (`cluster/`), sockets and host names (`reactor/`).

mod answer;
mod auth;
mod client;
#[cfg(test)]
mod client_tests;
mod endpoints;
mod failure;
#[cfg(test)]
mod golden_tests;
mod request;
mod response;
mod watch;

pub use answer::{ANSWER_MAX_BYTES, Answer, KeyValue, Outcome, parse_json};
pub use client::{Channel, Client, ClientHealth, ConnectionId, Effect};
pub use failure::Failure;
pub use request::Request;
pub use response::HEAD_MAX_BYTES;
pub use watch::LINE_MAX_BYTES;
