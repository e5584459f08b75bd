//! HTTP/1.1, sans-I/O: bytes of a connection in, requests to a [`Handler`], bytes of responses out.
//!
//! | file | what it is |
//! |---|---|
//! | `refusal.rs` | why a request is turned down: status, code, message |
//! | `field_table.rs` | which header fields are read, and which of them are lists |
//! | `fields.rs` | the grammar of single parts of a head |
//! | `head.rs` | what a request says before its body |
//! | `request.rs` | reading a head: where it ends, what is refused |
//! | `head_reader.rs` | reading head after head: what is like the one before is not parsed again |
//! | `body.rs` | request bodies: cut to length or taken out of chunks |
//! | `output.rs` | what waits to be sent: bytes, shared values, a generated body |
//! | `response.rs` | responses, rendered into an output |
//! | `handler.rs` | the traits of what answers requests and collects bodies; limits |
//! | `incoming_body.rs` | a request body on its way into what collects it |
//! | `connection.rs` | the state machine of one connection, which brings all of it together |
//!
//! Invariants:
//! 1. Nothing here does I/O, reads a clock or knows of the engine.
//! 2. Peer bytes never panic; memory held for a peer is bounded by the limits, one read, and what
//!    the sink takes.
//! 3. A whole request in one piece of input is answered without an allocation here.
//!
//! Not here: routes and what they mean (`api`), sockets, buffers to read into and timers
//! (`reactor`).

pub mod body;
pub mod connection;
pub mod field_table;
mod fields;
pub mod handler;
pub mod head;
pub mod head_reader;
mod incoming_body;
pub mod output;
pub mod refusal;
pub mod request;
pub mod response;

#[cfg(test)]
mod connection_end_tests;
#[cfg(test)]
mod connection_tests;
#[cfg(test)]
mod output_tests;
#[cfg(test)]
mod request_tests;

pub use body::{BodyDecoder, DecodedPiece};
pub use connection::{AwaitedInput, Connection, Wants};
pub use field_table::{Field, FieldSet};
pub use handler::{Begin, BodySink, Context, Handler, Limits};
pub use head::{Framing, Head, Method, Target};
pub use head_reader::HeadReader;
pub use output::{BodySource, Fill, Output, SharedBytes};
pub use refusal::{Refusal, json_line};
pub use request::{HeadLimits, MAX_HEADER_COUNT, given_twice, parse_head};
pub use response::{Exchange, HttpDate, NotLeaderStatus, Reply, ReplyHead, Vary};
