//! What was answered: for the counts of `/metrics`, and for the log of slow requests.
//!
//! Invariant: what is counted goes by the table of routes, never by what a peer sends: paths that
//! are not in it count as one.

use std::fmt;

use crate::http::{Head, Method};
use crate::metrics::{GROUP_COUNT, ROUTE_MAX, RequestStats};

use super::Api;
use super::route::Route;

/// Paths that are not in the table.
const OTHER: usize = ROUTE_MAX - 2;

/// What could not be read as a request.
const INVALID: usize = ROUTE_MAX - 1;

const _: () = assert!(Route::PATTERNS.len() <= OTHER);

/// Routes whose durations are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    Read,
    Write,
    Stream,
    Health,
    Admin,
    Other,
}

/// An answer, or a request that waits for one.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    endpoint: u8,
    group: Group,
    method: Method,
    status: u16,
    partition: Option<u32>,
}

impl Answer {
    /// To what could not be read as a request.
    const INVALID: Self = Self {
        endpoint: small(INVALID),
        group: Group::Other,
        method: Method::Other,
        status: 0,
        partition: None,
    };

    /// A request that was begun.
    #[inline]
    pub(super) fn expected(route: Option<Route>, method: Method) -> Self {
        let endpoint = route.map_or(small(OTHER), |route| small(route.number()));
        Self {
            endpoint,
            group: Group::of(route, method),
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
    pub(super) fn expect_partition(&mut self, id: u32) {
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
impl fmt::Display for Answer {
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
pub(super) fn endpoints() -> impl Iterator<Item = (usize, &'static str)> {
    (0..Route::PATTERNS.len())
        .chain([OTHER, INVALID])
        .map(|endpoint| (endpoint, endpoint_name(endpoint)))
}

fn endpoint_name(endpoint: usize) -> &'static str {
    match endpoint {
        OTHER => "other",
        INVALID => "invalid",
        _ => Route::PATTERNS.get(endpoint).copied().unwrap_or("other"),
    }
}

impl Group {
    /// All of them, with their names.
    pub(super) const NAMES: [(Self, &str); GROUP_COUNT] = [
        (Self::Read, "read"),
        (Self::Write, "write"),
        (Self::Stream, "stream"),
        (Self::Health, "health"),
        (Self::Admin, "admin"),
        (Self::Other, "other"),
    ];

    #[inline]
    fn of(route: Option<Route>, method: Method) -> Self {
        match route {
            Some(Route::Get) => Self::Read,
            Some(Route::Key) if matches!(method, Method::Get | Method::Head) => Self::Read,
            Some(Route::Set | Route::Delete | Route::Key | Route::Batch) => Self::Write,
            Some(Route::Scan | Route::Watch | Route::Snapshot | Route::Digest | Route::Metrics) => {
                Self::Stream
            }
            Some(Route::Health | Route::Live | Route::Ready | Route::Leader | Route::Replica) => {
                Self::Health
            }
            Some(
                Route::Status
                | Route::OpenApi
                | Route::Freeze
                | Route::Compact
                | Route::Checkpoint
                | Route::Assign
                | Route::Partition,
            ) => Self::Admin,
            None => Self::Other,
        }
    }

    /// What it is counted under.
    #[inline]
    pub(super) fn number(self) -> usize {
        self as usize
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
pub struct Answers {
    /// Those that go at once, by group; they are counted by route and status already.
    pub sent_counts: [u64; GROUP_COUNT],
    /// The last of them.
    pub last_sent: Option<Answer>,
    /// Those that are held back, in order, and not counted yet.
    pub held: Vec<Answer>,
    is_holding: bool,
}

impl Answers {
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
    pub(super) fn hold(&mut self) {
        self.is_holding = true;
    }
}

impl Api<'_> {
    /// Notes the labels under which the answer to a request is counted.
    #[inline]
    pub(super) fn expect_answer(&mut self, route: Option<Route>, head: &Head<'_>) {
        self.asked = Answer::expected(route, head.method);
    }

    #[inline]
    pub(super) fn count_answer(&mut self, status: u16) {
        let answer = self.asked.with_status(status);
        let answers = &mut self.outcome.answers;
        if answers.is_holding {
            answers.held.push(answer);
            return;
        }
        self.node
            .stats
            .requests
            .count(usize::from(answer.endpoint), status);
        answers.sent_counts[answer.group.number()] += 1;
        answers.last_sent = Some(answer);
    }

    #[cold]
    pub(super) fn count_refusal(&mut self, head: Option<&Head<'_>>, status: u16) {
        self.asked = head.map_or(Answer::INVALID, |head| {
            Answer::expected(Route::of(head.path), head.method)
        });
        self.count_answer(status);
    }
}
