//! What was answered: for the counts of `/metrics`, and for the log of slow requests.
//!
//! Invariant: what is counted goes by the table of routes, never by what a peer sends: paths that
//! are not in it count as one.

use std::fmt;

use crate::http::Method;
use crate::metrics::{GROUP_COUNT, ROUTE_MAX, RequestStats};

use crate::api::request::route::{Group, Route};

/// Paths that are not in the table.
const OTHER: usize = ROUTE_MAX - 2;

/// What could not be read as a request.
const INVALID: usize = ROUTE_MAX - 1;

const _: () = assert!(Route::ALL.len() <= OTHER);

/// An answer, or a request that waits for one.
#[derive(Clone, Copy, Debug)]
pub struct RequestLabels {
    endpoint: u8,
    group: Group,
    method: Method,
    status: u16,
    partition: Option<u32>,
}

impl RequestLabels {
    /// To what could not be read as a request.
    pub(crate) const INVALID: Self = Self {
        endpoint: small(INVALID),
        group: Group::Other,
        method: Method::Other,
        status: 0,
        partition: None,
    };

    /// A request that was begun.
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

    /// To a connection that began a request and did not end it in time.
    pub fn timed_out() -> Self {
        Self {
            status: 408,
            ..Self::INVALID
        }
    }

    /// Notes which partition it is about.
    #[inline]
    pub(crate) fn expect_partition(&mut self, id: u32) {
        self.partition = Some(id);
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// Counts it, given after so long.
    pub fn record(&self, stats: &mut RequestStats, us: u64) {
        stats.count(usize::from(self.endpoint), self.status);
        stats.note_durations(self.group.number(), us, 1);
    }
}

/// As the log says it: `PUT /kv/{key} 200 in partition 0`.
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

/// The answers of one visit. They all take as long, which is not known before its end.
#[derive(Debug, Default)]
pub struct VisitAnswers {
    /// Those that go at once, by group; they are counted by route and status already.
    pub sent_counts: [u64; GROUP_COUNT],
    /// The last of them.
    pub last_sent: Option<RequestLabels>,
    /// Those that are held back, in order, and not counted yet.
    pub held: Vec<RequestLabels>,
    is_holding: bool,
}

impl VisitAnswers {
    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.last_sent.is_none() && self.held.is_empty()
    }

    /// Forgets them.
    #[inline]
    pub fn clear(&mut self) {
        self.sent_counts = [0; GROUP_COUNT];
        self.last_sent = None;
        self.held.clear();
        self.is_holding = false;
    }

    /// The next one is held back, and all behind it.
    #[inline]
    pub(crate) fn hold(&mut self) {
        self.is_holding = true;
    }

    /// Counts an answer, or keeps it until the answers before it go.
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
