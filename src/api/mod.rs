//! What requests mean: routes, and one file a family.
//!
//! Invariants:
//! 1. A request is judged in this order, so that the answer never depends on the state of the store before it is known to be
//!    allowed: method known, host and origin, token, path, method allowed, partition, then the route's own checks.
//! 2. GET and HEAD never change state.
//! 3. No call does work proportional to a value: large ones come in through [`Intake`] and go out through
//!    [`json_value`], piece by piece.
//!
//! Not here: bytes on the wire (`http/`), the store (`partition.rs`, `lsm/`).

mod admin;
mod conditions;
mod digest;
mod form_body;
mod guard;
mod health;
mod intake;
mod json_body;
#[cfg(test)]
mod json_body_tests;
mod json_text;
mod json_value;
mod kv;
mod kv_fields;
mod percent;
mod query;
mod route;
mod snapshot;
mod status;

use crate::http::{Begin, Handler, Head, Method, Refusal, Reply};
use crate::node::{DEFAULT_PARTITION, Node, Unavailable};
use crate::partition::Partition;
use crate::storage::StorageError;

pub use guard::Guard;
pub use intake::Intake;

use query::Query;
use route::{Family, Route};

const JSON: &str = "application/json";

/// Answers requests on behalf of a node, for the time of one turn.
#[derive(Debug)]
pub struct Api<'n> {
    node: &'n mut Node,
    guard: &'n mut Guard,
    /// Where bodies are rendered before their length is known; kept between requests for its allocation.
    scratch: &'n mut Vec<u8>,
    /// Milliseconds since the node started.
    now_ms: u64,
    /// The version that what is held back waits for.
    gate: Option<u64>,
}

impl<'n> Api<'n> {
    /// The api as of `now_ms`.
    pub fn new(node: &'n mut Node, guard: &'n mut Guard, scratch: &'n mut Vec<u8>, now_ms: u64) -> Self {
        Self { node, guard, scratch, now_ms, gate: None }
    }

    /// The version that replies wait for which were held back, if any were.
    pub fn gate(&self) -> Option<u64> {
        self.gate
    }

    /// The partition that a request names.
    #[inline]
    fn partition(&mut self, head: &Head<'_>) -> Result<&mut Partition, Refusal> {
        self.node.partition(partition_id(head)?).map_err(unavailable)
    }

    /// The partition that a request names, for a write.
    #[inline]
    fn writable_partition(&mut self, head: &Head<'_>) -> Result<&mut Partition, Refusal> {
        let partition = self.partition(head)?;
        match partition.write_obstacle() {
            Some(error) => Err(storage_failed(error)),
            None => Ok(partition),
        }
    }

    /// The reply to a write that was just made: it goes when what it says is true.
    #[inline]
    fn promise<'o>(&mut self, gate: Option<u64>, reply: Reply<'o>) -> Reply<'o> {
        if gate.is_none() {
            return reply;
        }
        self.gate = gate;
        reply.hold()
    }

    /// Everything that is decided without the body. On `Err` nothing was written.
    fn admit(&mut self, head: &Head<'_>) -> Result<Route, Refusal> {
        if matches!(head.method, Method::Connect | Method::Other) {
            let message = "this method is not implemented: use GET, HEAD, POST, PUT, DELETE or OPTIONS";
            return Err(Refusal::new(501, "not_implemented", message));
        }
        self.guard.check_source(head)?;
        let route = Route::of(head.path);
        if !route.is_some_and(Route::is_public) {
            self.guard.check_token(head)?;
        }
        route.ok_or_else(|| Refusal::new(404, "not_found", "no such path: see the README for what there is"))
    }
}

impl Handler for Api<'_> {
    type Intake = Intake;

    fn begin(&mut self, head: &Head<'_>, reply: Reply<'_>) -> Begin<Intake> {
        self.node.loop_stats.request_count += 1;
        if head.method == Method::Options && head.path == b"*" {
            reply.status(204).header("Allow", route::ALL_METHODS).empty();
            return Begin::Answered;
        }
        let route = match self.admit(head) {
            Ok(route) => route,
            Err(refusal) => {
                refuse(reply, &refusal);
                return Begin::Answered;
            }
        };
        if !route.allows(head.method) {
            if head.method == Method::Options {
                reply.status(204).header("Allow", route.allowed_methods()).empty();
            } else {
                let message = format!("this path takes {}", route.allowed_methods());
                let refusal = Refusal::new(405, "method_not_allowed", message);
                reply.status(405).header("Allow", route.allowed_methods()).error(&refusal);
            }
            return Begin::Answered;
        }
        match route.family() {
            Family::KeyValue => self.begin_kv(route, head, reply),
            Family::Health => {
                self.answer_health(route, reply);
                Begin::Answered
            }
            Family::Digest => {
                self.answer_digest(head, reply);
                Begin::Answered
            }
            Family::Snapshot => {
                self.answer_snapshot(head, reply);
                Begin::Answered
            }
            Family::Admin => {
                self.answer_admin(route, head, reply);
                Begin::Answered
            }
        }
    }

    fn finish(&mut self, head: &Head<'_>, intake: Intake, reply: Reply<'_>) {
        self.finish_kv(head, intake, reply);
    }
}

/// The partition that a request names, by header or parameter.
#[inline]
fn partition_id(head: &Head<'_>) -> Result<u32, Refusal> {
    let named = match head.partition_id {
        Some(value) => Some(std::borrow::Cow::Borrowed(value)),
        None if head.query.is_some() => Query::new(head.query).get("partition")?,
        None => None,
    };
    let Some(value) = named else { return Ok(DEFAULT_PARTITION) };
    let number = std::str::from_utf8(&value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    number
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Refusal::bad_request("the partition must be a number: send X-Partition-ID: 0, or leave it out"))
}

#[cold]
fn unavailable(reason: Unavailable) -> Refusal {
    match reason {
        Unavailable::Unknown(id) => {
            let message = format!("partition {id} is not on this node: GET /health lists those that are");
            Refusal::new(404, "partition_not_found", message)
        }
        Unavailable::Loading(progress) => {
            let message = format!("the node is loading its data ({progress}): try again");
            Refusal::new(503, "loading", message)
        }
    }
}

/// What a write gets once the disk has failed.
#[cold]
pub fn storage_failed(error: &StorageError) -> Refusal {
    let message = format!("writes are off until the node is restarted: {error}");
    Refusal::new(503, "storage_failed", message)
}

/// Answers with a refusal and the headers that its status calls for.
#[cold]
fn refuse(reply: Reply<'_>, refusal: &Refusal) {
    match refusal.status {
        401 => reply.status(401).header("WWW-Authenticate", "Bearer").error(refusal),
        503 => reply.status(503).header("Retry-After", "1").error(refusal),
        _ => reply.error(refusal),
    }
}
