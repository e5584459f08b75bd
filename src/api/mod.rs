//! What requests mean: from a parsed request to its answer.
//!
//! | place | what it has |
//! |---|---|
//! | `context.rs` | [`Api`]: the node and the request at hand; which partition a request is about |
//! | `dispatch.rs` | the way of every request: checks in order, then its endpoint |
//! | `request/` | what a request says: the table of routes, parameters, conditions, access |
//! | `body/` | JSON, forms and raw values, piece by piece, in and out |
//! | `endpoint/` | a file for each family of paths |
//! | `metrics/` | the rows of `/metrics` |
//! | `effects.rs` | what requests leave to be done: replies that wait, merging, counts |
//!
//! Invariants:
//! 1. A request is judged in this order, so that the answer never depends on the state of the store
//!    before it is known to be allowed: method known, fields that stand once, host and origin,
//!    token, path, method allowed, fields and parameters that the route takes, partition, then the
//!    route's own checks.
//! 2. GET and HEAD never change state.
//! 3. No call does work proportional to a value: large ones come in through [`RequestBody`] and go
//!    out through `body/json_value.rs`, piece by piece.
//!
//! Not here: bytes on the wire (`http/`), the store (`partition/`, `lsm/`).

mod body;
mod cluster_refusals;
mod confirmation;
mod context;
mod dispatch;
mod effects;
mod endpoint;
mod errors;
mod metrics;
mod request;
mod request_labels;

pub use body::change_stream::{FeedRequest, MapPoll, WatchForm, WatchRequest};
pub use body::request_body::{RequestBody, upload_too_slow};
pub use context::{Api, Scope};
pub use effects::{CommitGate, Effects};
pub use endpoint::cluster_view::cluster_map;
pub use endpoint::lookahead::Lookahead;

pub use errors::{
    acks_timeout, deferred_failed, operation_failed, storage_failed, too_many_connections,
    unconfirmed,
};
pub use request::access_policy::AccessPolicy;
pub use request_labels::{RequestLabels, VisitAnswers};
