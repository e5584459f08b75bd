//! From a request to the endpoint that answers it.

use crate::http::{Begin, Handler, Head, Method, Refusal, Reply};

use super::body::order_body::begin_order;
use super::body::request_body::RequestBody;
use super::context::{Api, Scope};
use super::errors::{refuse, too_many_connections};
use super::request::nearest_route::{method_not_allowed, no_such_path};
use super::request::params::ParamSet;
use super::request::route::{ALL_METHODS, AcceptedInput, Route};
use super::request::takes;
use super::request_labels::RequestLabels;

impl Api<'_> {
    /// Checks method, sender and path. Returns the route and what the request may have; none of the
    /// latter for OPTIONS.
    #[inline]
    fn admit(
        &mut self,
        route: Option<Route>,
        head: &Head<'_>,
    ) -> Result<(Route, Option<&'static AcceptedInput>), Refusal> {
        if matches!(head.method, Method::Connect | Method::Other) {
            return Err(not_implemented());
        }
        takes::check_repeated(route, head)?;
        let is_public = route.is_some_and(Route::is_public);
        if !(is_public && route.is_some_and(Route::is_linked)) {
            self.access.check_source(head, is_public)?;
        }
        if !is_public {
            self.access.check_token(head)?;
        }
        let config = self.node.config();
        let route = route.ok_or_else(|| no_such_path(head, config))?;
        match route.takes(head.method) {
            None if head.method != Method::Options => Err(method_not_allowed(route, head, config)),
            takes => Ok((route, takes)),
        }
    }
}

#[cold]
fn answer_options(route: Route, reply: Reply<'_>) {
    let allowed = route.allowed_methods();
    reply.status(204).header("Allow", &allowed).empty();
}

#[cold]
fn not_implemented() -> Refusal {
    let message = "this method is not implemented: use GET, HEAD, POST, PUT, DELETE or OPTIONS";
    Refusal::new(501, "not_implemented", message)
}

impl Handler for Api<'_> {
    type Body = RequestBody;

    fn begin(
        &mut self,
        head: &Head<'_>,
        body: Option<&[u8]>,
        reply: Reply<'_>,
    ) -> Begin<RequestBody> {
        self.node.loop_stats.request_count += 1;
        self.effects.record_request();
        let route = Route::of(head.path);
        self.labels = RequestLabels::expected(route, head.method);
        if self.scope == Scope::AboutNode && !route.is_some_and(Route::is_about_node) {
            refuse(reply.close(), &too_many_connections());
            return Begin::Answered;
        }
        if head.method == Method::Options && head.path == b"*" {
            reply.status(204).header("Allow", ALL_METHODS).empty();
            return Begin::Answered;
        }
        let (route, takes) = match self.admit(route, head) {
            Ok((route, Some(takes))) => (route, takes),
            Ok((route, None)) => {
                answer_options(route, reply);
                return Begin::Answered;
            }
            Err(refusal) => {
                refuse(reply, &refusal);
                return Begin::Answered;
            }
        };
        let reply = reply.vary(route.vary());
        match takes::check(route, takes, head) {
            Ok(params) => self.params = params,
            Err(refusal) => {
                refuse(reply, &refusal);
                return Begin::Answered;
            }
        }
        match route {
            Route::Set | Route::Get | Route::Delete | Route::Key => {
                self.begin_kv(route, head, body, reply)
            }
            Route::Batch => self.begin_batch(head, reply),
            Route::Assign
            | Route::Init
            | Route::Handover
            | Route::Recover
            | Route::Move
            | Route::Rebalance
            | Route::Drain => begin_order(head, reply),
            _ => {
                self.answer(route, head, reply);
                Begin::Answered
            }
        }
    }

    fn finish(&mut self, head: &Head<'_>, body: RequestBody, reply: Reply<'_>) {
        let route = Route::of(head.path);
        self.labels = RequestLabels::expected(route, head.method);
        self.params = ParamSet::ALL;
        let reply = reply.vary(route.map(Route::vary).unwrap_or_default());
        match route {
            Some(Route::Assign) => self.finish_assign(body, reply),
            Some(
                route @ (Route::Init
                | Route::Handover
                | Route::Recover
                | Route::Move
                | Route::Rebalance
                | Route::Drain),
            ) => self.finish_cluster_order((route, head.method), body, reply),
            Some(Route::Batch) => self.finish_batch(head, body, reply),
            Some(route) => self.finish_kv(route, head, body, reply),
            // A request without a route was refused when it began.
            None => {}
        }
    }

    #[inline]
    fn on_answer(&mut self, status: u16) -> usize {
        let answer = self.labels.with_status(status);
        self.effects
            .answers
            .add(answer, &mut self.node.stats.requests);
        std::mem::take(&mut self.effects.owed_work)
    }

    #[inline]
    fn sendable_until_ms(&self) -> u64 {
        self.effects.lease_end_ms()
    }

    #[cold]
    fn on_refusal(&mut self, head: Option<&Head<'_>>, status: u16) {
        let of_head = |head: &Head<'_>| RequestLabels::expected(Route::of(head.path), head.method);
        let answer = head
            .map_or(RequestLabels::INVALID, of_head)
            .with_status(status);
        self.effects
            .answers
            .add(answer, &mut self.node.stats.requests);
    }
}
