//! Route, method, status and partition of an answer: labels of `/metrics`, and of the log of slow
//! requests.
//!
//! Invariant: labels come from the table of routes, never from bytes of a peer: all paths that are
//! not in the table share one label.

use std::fmt;

use crate::http::Method;
use crate::metrics::{GROUP_COUNT, PART_COUNT, ROUTE_MAX, RequestStats, SlowRequest};

use crate::api::request::route::{Group, Route};

/// The label of all paths that are not in the table.
const OTHER: usize = ROUTE_MAX - 2;

/// The label of input that is no HTTP request.
const INVALID: usize = ROUTE_MAX - 1;

const _: () = assert!(Route::ALL.len() <= OTHER);

/// The labels of one request and its answer.
#[derive(Clone, Copy, Debug)]
pub struct RequestLabels {
    endpoint: u8,
    group: Group,
    method: Method,
    status: u16,
    partition: Option<u32>,
}

impl RequestLabels {
    /// Of input that is no HTTP request.
    pub(crate) const INVALID: Self = Self {
        endpoint: small(INVALID),
        group: Group::Other,
        method: Method::Other,
        status: 0,
        partition: None,
    };

    /// Of a request that begins; its status is not known yet.
    #[inline]
    pub(crate) fn expected(route: Option<Route>, method: Method) -> Self {
        let endpoint = route.map_or(small(OTHER), |route| small(route as usize));
        Self {
            endpoint,
            group: route.map_or(Group::Other, |route| route.group(method)),
            method,
            status: 0,
            partition: None,
        }
    }

    /// Of a request that did not arrive in full in time.
    pub fn timed_out() -> Self {
        Self {
            status: 408,
            ..Self::INVALID
        }
    }

    /// Sets the partition that the request is about.
    #[inline]
    pub(crate) fn expect_partition(&mut self, id: u32) {
        self.partition = Some(id);
    }

    /// The partition that the request is about, once it is found.
    pub(crate) fn partition(&self) -> Option<u32> {
        self.partition
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// Counts the answer, sent `us` microseconds after the request came.
    pub fn record(&self, stats: &mut RequestStats, us: u64) {
        stats.count(usize::from(self.endpoint), self.status);
        stats.record_durations(self.group.number(), us, 1);
    }

    /// A slow request with these labels, answered at `at_ms`; the last of `count` of a connection.
    pub fn slow_request(
        &self,
        at_ms: u64,
        took_us: u64,
        parts_us: [u64; PART_COUNT],
        count: u64,
    ) -> SlowRequest {
        SlowRequest {
            method: self.method.name(),
            route: endpoint_name(usize::from(self.endpoint)),
            status: self.status,
            partition: self.partition,
            at_ms,
            took_us,
            parts_us,
            count,
        }
    }
}

/// As in the log: `PUT /kv/{key} 200 in partition 0`.
impl fmt::Display for RequestLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {}",
            self.method.name(),
            endpoint_name(usize::from(self.endpoint)),
            self.status
        )?;
        self.partition
            .map_or(Ok(()), |id| write!(f, " in partition {id}"))
    }
}

/// All endpoints by number and name.
pub(crate) fn endpoints() -> impl Iterator<Item = (usize, &'static str)> {
    (0..Route::ALL.len())
        .chain([OTHER, INVALID])
        .map(|endpoint| (endpoint, endpoint_name(endpoint)))
}

fn endpoint_name(endpoint: usize) -> &'static str {
    match endpoint {
        OTHER => "other",
        INVALID => "invalid",
        _ => Route::ALL
            .get(endpoint)
            .map_or("other", |route| route.pattern()),
    }
}

const fn small(number: usize) -> u8 {
    assert!(number < ROUTE_MAX);
    #[expect(clippy::cast_possible_truncation, reason = "there are few")]
    let small = number as u8;
    small
}

/// The answers of one visit. They are sent together, so they share one duration, which is known
/// only once they are sent.
#[derive(Debug, Default)]
pub struct VisitAnswers {
    /// Answers that are sent at once, by group; already counted by route and status.
    pub sent_counts: [u64; GROUP_COUNT],
    /// The last of them.
    pub last_sent: Option<RequestLabels>,
    /// Answers that are held back, in order; not counted yet.
    pub held: Vec<RequestLabels>,
    is_holding: bool,
}

impl VisitAnswers {
    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.last_sent.is_none() && self.held.is_empty()
    }

    /// Removes all answers.
    #[inline]
    pub fn clear(&mut self) {
        self.sent_counts = [0; GROUP_COUNT];
        self.last_sent = None;
        self.held.clear();
        self.is_holding = false;
    }

    /// The next answer is held back, and with it all after it.
    #[inline]
    pub(crate) fn hold(&mut self) {
        self.is_holding = true;
    }

    /// Counts an answer, or keeps it if an answer before it is held back.
    #[inline]
    pub(crate) fn add(&mut self, answer: RequestLabels, stats: &mut RequestStats) {
        if self.is_holding {
            self.held.push(answer);
            return;
        }
        stats.count(usize::from(answer.endpoint), answer.status);
        self.sent_counts[answer.group.number()] += 1;
        self.last_sent = Some(answer);
    }
}
