//! What requests mean: routes, and one file a family.
//!
//! Invariants:
//! 1. A request is judged in this order, so that the answer never depends on the state of the store
//!    before it is known to be allowed: method known, fields that stand once, host and origin,
//!    token, path, method allowed, fields and parameters that the route takes, partition, then the
//!    route's own checks.
//! 2. GET and HEAD never change state.
//! 3. No call does work proportional to a value: large ones come in through [`Intake`] and go out
//!    through [`json_value`], piece by piece.
//!
//! Not here: bytes on the wire (`http/`), the store (`partition.rs`, `lsm/`).

mod accept;
mod admin;
mod ahead;
mod answered;
mod batch;
mod batch_body;
mod conditions;
mod consistency;
mod digest;
mod form_body;
mod guard;
mod health;
mod intake;
mod json_body;
#[cfg(test)]
mod json_body_tests;
mod json_plain;
mod json_text;
mod json_value;
mod kv;
mod kv_fields;
mod metrics;
mod metrics_list;
mod metrics_partition;
mod openapi;
mod params;
mod partition;
mod percent;
mod positions;
mod promise;
mod query;
mod route;
mod scan;
mod snapshot;
mod status;
mod takes;
mod ttl;
mod values;
mod watch;

use crate::http::{Begin, Handler, Head, Method, Refusal, Reply};
use crate::node::{Node, Unavailable};
use crate::partition::Partition;
use crate::storage::{Role, StorageError};

pub use ahead::Ahead;
pub use answered::{Answer, Answers};
pub use guard::Guard;
pub use intake::{Intake, upload_too_slow};
pub use promise::{Gate, Outcome, acks_timeout, broken, unconfirmed};
pub use watch::{WatchForm, WatchRequest};

use params::{Param, ParamSet};
use query::Query;
use route::{Family, Route};

const JSON: &str = "application/json";

/// Answers requests on behalf of a node, for the time of one turn.
#[derive(Debug)]
pub struct Api<'n> {
    node: &'n mut Node,
    guard: &'n mut Guard,
    /// Where bodies are rendered before their length is known; kept between requests for its
    /// allocation.
    scratch: &'n mut Vec<u8>,
    /// Milliseconds since the node started.
    now_ms: u64,
    outcome: &'n mut Outcome,
    /// The request at hand, for counting its answer.
    asked: Answer,
    /// The query parameters that it may have.
    params: ParamSet,
    scope: Scope,
}

/// What is answered on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every request.
    All,
    /// Health, metrics and status: the connection is one too many.
    AboutNode,
}

impl<'n> Api<'n> {
    /// The api as of `now_ms`; what requests leave to be done is noted in `outcome`.
    pub fn new(
        node: &'n mut Node,
        guard: &'n mut Guard,
        scratch: &'n mut Vec<u8>,
        outcome: &'n mut Outcome,
        now_ms: u64,
    ) -> Self {
        let asked = Answer::expected(None, Method::Other);
        Self {
            node,
            guard,
            scratch,
            now_ms,
            outcome,
            asked,
            params: ParamSet::ALL,
            scope: Scope::All,
        }
    }

    /// The same for a connection on which not every request is answered.
    #[must_use]
    pub fn within(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// The query of the request at hand.
    #[inline]
    fn query<'b>(&self, head: &Head<'b>) -> Query<'b> {
        Query::with(head.target(), self.params)
    }

    /// The partition that a request names, whatever its role.
    #[inline]
    fn any_partition(&mut self, head: &Head<'_>) -> Result<&mut Partition, Refusal> {
        let partition = match partition_id(head, self.query(head))? {
            Some(id) => {
                self.asked.expect_partition(id);
                self.node.partition(id)
            }
            None => self
                .node
                .unnamed_partition()
                .inspect(|partition| self.asked.expect_partition(partition.id())),
        };
        partition.map_err(unavailable)
    }

    /// The partition that a request names, for a read.
    #[inline]
    fn partition(&mut self, head: &Head<'_>) -> Result<&mut Partition, Refusal> {
        let partition = self.any_partition(head)?;
        match partition.roles().role() {
            Role::Unassigned => Err(unassigned()),
            Role::Leader | Role::Replica => Ok(partition),
        }
    }

    /// The partition that a request names, for a write.
    #[inline]
    fn writable_partition(&mut self, head: &Head<'_>) -> Result<&mut Partition, Refusal> {
        let partition = self.partition(head)?;
        let roles = partition.roles();
        match partition.write_obstacle() {
            Some(error) => Err(storage_refused(error)),
            None if roles.is_taking_over() => Err(taking_over()),
            None if roles.role() != Role::Leader => Err(not_leader(roles.meta().leader.as_deref())),
            None if !roles.is_settled() => Err(changing()),
            None => Ok(partition),
        }
    }

    /// The partition that a request names, for a write that adds something.
    #[inline]
    fn growable_partition(&mut self, head: &Head<'_>) -> Result<&mut Partition, Refusal> {
        let is_full = self.node.is_full();
        let partition = self.writable_partition(head)?;
        if is_full {
            Err(memory_limit())
        } else {
            Ok(partition)
        }
    }

    /// Everything that is decided without the body. On `Err` nothing was written.
    fn admit(&mut self, route: Option<Route>, head: &Head<'_>) -> Result<Route, Refusal> {
        if matches!(head.method, Method::Connect | Method::Other) {
            let message =
                "this method is not implemented: use GET, HEAD, POST, PUT, DELETE or OPTIONS";
            return Err(Refusal::new(501, "not_implemented", message));
        }
        takes::check_repeated(route, head)?;
        let is_public = route.is_some_and(Route::is_public);
        self.guard.check_source(head, is_public)?;
        if !is_public {
            self.guard.check_token(head)?;
        }
        route.ok_or_else(|| {
            Refusal::new(
                404,
                "not_found",
                "no such path: GET /openapi.json tells what there is",
            )
        })
    }
}

impl Handler for Api<'_> {
    type Intake = Intake;

    fn begin(&mut self, head: &Head<'_>, body: Option<&[u8]>, reply: Reply<'_>) -> Begin<Intake> {
        self.node.loop_stats.request_count += 1;
        self.outcome.note_request();
        let route = Route::of(head.path);
        self.expect_answer(route, head);
        if self.scope == Scope::AboutNode && !route.is_some_and(Route::is_about_node) {
            refuse(reply.close(), &too_many_connections());
            return Begin::Answered;
        }
        if head.method == Method::Options && head.path == b"*" {
            reply
                .status(204)
                .header("Allow", route::ALL_METHODS)
                .empty();
            return Begin::Answered;
        }
        let route = match self.admit(route, head) {
            Ok(route) => route,
            Err(refusal) => {
                refuse(reply, &refusal);
                return Begin::Answered;
            }
        };
        if !route.allows(head.method) {
            if head.method == Method::Options {
                reply
                    .status(204)
                    .header("Allow", route.allowed_methods())
                    .empty();
            } else {
                let message = format!("this path takes {}", route.allowed_methods());
                let refusal = Refusal::new(405, "method_not_allowed", message);
                reply
                    .status(405)
                    .header("Allow", route.allowed_methods())
                    .error(&refusal);
            }
            return Begin::Answered;
        }
        let reply = reply.vary(route.vary());
        match takes::check(route, head) {
            Ok(params) => self.params = params,
            Err(refusal) => {
                refuse(reply, &refusal);
                return Begin::Answered;
            }
        }
        match route.family() {
            Family::KeyValue => self.begin_kv(route, head, body, reply),
            Family::Health => {
                self.answer_health(route, head, reply);
                Begin::Answered
            }
            Family::Metrics => {
                self.answer_metrics(reply);
                Begin::Answered
            }
            Family::Digest => {
                self.answer_digest(head, reply);
                Begin::Answered
            }
            Family::OpenApi => {
                self.answer_openapi(reply);
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
            Family::Partition if route == Route::Partition => {
                self.answer_removal(head, reply);
                Begin::Answered
            }
            Family::Partition => Self::begin_assign(head, reply),
            Family::Watch => {
                self.answer_watch(head, reply);
                Begin::Answered
            }
            Family::Batch => self.begin_batch(head, reply),
            Family::Scan => {
                self.answer_scan(head, reply);
                Begin::Answered
            }
        }
    }

    fn finish(&mut self, head: &Head<'_>, intake: Intake, reply: Reply<'_>) {
        let route = Route::of(head.path);
        self.expect_answer(route, head);
        self.params = ParamSet::ALL;
        let reply = reply.vary(route.map(Route::vary).unwrap_or_default());
        match route {
            Some(Route::Assign) => self.finish_assign(intake, reply),
            Some(Route::Batch) => self.finish_batch(head, intake, reply),
            _ => self.finish_kv(head, intake, reply),
        }
    }

    #[inline]
    fn note_answer(&mut self, status: u16) {
        self.count_answer(status);
    }

    #[inline]
    fn take_owed(&mut self) -> usize {
        std::mem::take(&mut self.outcome.owed_work)
    }

    fn note_refusal(&mut self, head: Option<&Head<'_>>, status: u16) {
        self.count_refusal(head, status);
    }
}

/// The partition that a request names, by header or else by parameter.
#[inline]
fn partition_id(head: &Head<'_>, query: Query<'_>) -> Result<Option<u32>, Refusal> {
    let by_header = head.partition_id.map(partition_number).transpose()?;
    let by_query = query.get(Param::Partition)?;
    let by_query = by_query.map(|value| partition_number(&value)).transpose()?;
    match (by_header, by_query) {
        (Some(named), Some(other)) if named != other => Err(Refusal::bad_request(format!(
            "X-Partition-ID names partition {named}, and ?partition= names {other}: send one of \
             them"
        ))),
        _ => Ok(by_header.or(by_query)),
    }
}

fn partition_number(value: &[u8]) -> Result<u32, Refusal> {
    values::number(value).ok_or_else(|| {
        Refusal::bad_request(
            "the partition must be a number: send X-Partition-ID: 0, or leave it out",
        )
    })
}

#[cold]
fn unavailable(reason: Unavailable) -> Refusal {
    match reason {
        Unavailable::Unknown(id) => {
            let message =
                format!("partition {id} is not on this node: GET /health lists those that are");
            Refusal::new(404, "partition_not_found", message)
        }
        Unavailable::Unassigned => unassigned(),
        Unavailable::Unnamed => {
            let message = "this node has several partitions: name one by X-Partition-ID";
            Refusal::new(404, "partition_not_found", message)
        }
        Unavailable::Loading(progress) => {
            let message = format!("the node is loading its data ({progress}): try again");
            Refusal::new(503, "loading", message)
        }
    }
}

/// What a connection beyond the limit gets.
#[cold]
pub fn too_many_connections() -> Refusal {
    let message =
        "too many connections: close some, or start the node with a higher --max-connections";
    Refusal::new(503, "too_many_connections", message)
}

#[cold]
fn unassigned() -> Refusal {
    Refusal::new(
        503,
        "unassigned",
        "this node waits for a controller to give it a role: POST /partition/assign",
    )
}

#[cold]
fn changing() -> Refusal {
    Refusal::new(
        503,
        "role_changing",
        "the role of this node is changing: try again",
    )
}

#[cold]
fn memory_limit() -> Refusal {
    let message = "more memory is in use than --max-memory allows: delete something, or wait until \
                   merging has freed some";
    Refusal::new(507, "memory_limit", message)
}

/// A leader takes no writes before it has what its peers hold.
#[cold]
fn taking_over() -> Refusal {
    let message = "this node is to lead, and is still catching up with the other nodes: nothing \
                   was done, try again";
    Refusal::new(503, "catching_up", message)
}

/// Writes belong to the leader.
#[cold]
fn not_leader(leader: Option<&str>) -> Refusal {
    let refusal = |message: String| Refusal::new(421, "not_leader", message);
    match leader {
        Some(leader) => refusal(format!(
            "this node is a replica: send writes to its leader, {leader}"
        ))
        .with_header("X-Leader", leader),
        None => refusal(
            "this node leads no more, and has not heard who does: ask the controller".to_owned(),
        ),
    }
}

/// What a write gets whose reply waited for the disk when that failed, or had no room.
#[cold]
pub fn storage_failed(error: &StorageError) -> Refusal {
    storage_refusal(error, "This one is not confirmed: it may be there later")
}

/// What a write gets that comes after that.
#[cold]
fn storage_refused(error: &StorageError) -> Refusal {
    storage_refusal(error, "Nothing was done")
}

fn storage_refusal(error: &StorageError, outcome: &str) -> Refusal {
    if error.is_passing() {
        let message =
            format!("writes wait, and go on by themselves once they can: {error}. {outcome}");
        return Refusal::new(503, "storage_stalled", message);
    }
    let message = format!("writes are off until the node is restarted: {error}. {outcome}");
    Refusal::new(503, "storage_failed", message)
}

/// Answers with a refusal and the headers that its status calls for.
#[cold]
fn refuse(reply: Reply<'_>, refusal: &Refusal) {
    match (refusal.status, &refusal.header) {
        (401, None) => reply
            .status(401)
            .header("WWW-Authenticate", "Bearer")
            .error(refusal),
        (503, None) => reply.status(503).header("Retry-After", "1").error(refusal),
        _ => reply.error(refusal),
    }
}
