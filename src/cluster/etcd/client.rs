//! The client: what to send to which end point, and what an answer or its absence means.
//!
//! The driver calls `submit` and the `on_…` functions, then carries out [`Client::next_effect`]
//! until there is none, and calls [`Client::on_time`] at [`Client::wake_at_ms`].
//!
//! Invariants:
//! 1. Each request submitted has exactly one [`Outcome`].
//! 2. Events of a connection that was closed, or was replaced, change nothing: each connection has
//!    a number of its own.
//! 3. Nothing is sent on a connection before the answer to what was sent before is whole.
//! 4. A watch begins right behind the revision of a range, so nothing is missed between them. When
//!    it ends, however it does, there is one [`Effect::Hint`], and the next watch begins after the
//!    next range.

use std::collections::VecDeque;

use crate::config::EtcdUser;

use super::answer::{
    ANSWER_MAX_BYTES, Answer, Outcome, parse_error, parse_json, parse_range, parse_write,
};
use super::auth::{self, is_without_users, parse_token};
use super::endpoints::{EndpointChoice, Random};
use super::failure::Failure;
use super::request::Request;
use super::response::ResponseReader;
use super::watch::{self, Hint, LineReader};

/// Time for a connection to open.
const CONNECT_MS: u64 = 300;
/// Time for an answer; a follower that has lost its leader takes ten times as long to say so.
const REQUEST_MS: u64 = 700;

/// Why an answer above [`ANSWER_MAX_BYTES`] is not read.
pub(super) const TOO_LONG: &str =
    "its answer is longer than 4 MiB: delete what does not belong below the cluster's prefix";
/// A watch that has lasted so long was none that fails at once.
const LASTING_MS: u64 = 5_000;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Requests, one at a time.
    Requests,
    /// The watch.
    Watch,
}

/// One connection; the next of its channel has another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionId {
    /// What it is for: there is at most one connection of each channel.
    pub channel: Channel,
    /// Its number.
    pub number: u64,
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Connect, and call [`Client::on_connected`], or [`Client::on_closed`] with the reason.
    Connect {
        /// The connection to be.
        id: ConnectionId,
        /// The end point, such as `10.0.0.5:2379`.
        authority: String,
    },
    /// Send these bytes.
    Send {
        /// Where.
        id: ConnectionId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Close the connection, open or not.
    Close {
        /// Which one.
        id: ConnectionId,
    },
    /// A request has ended.
    Outcome(Outcome),
    /// Something under the watched prefix has changed, or may have: a range is worthwhile.
    Hint,
}

/// How the client fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHealth<'c> {
    /// The last request was answered.
    pub is_up: bool,
    /// The end point in use for requests.
    pub endpoint: &'c str,
    /// The last failure of a request or of the watch, with its end point; empty: there was none, or
    /// both go on.
    pub last_error: &'c str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChannelState {
    Closed,
    Connecting,
    Open,
}

/// One of the two connections.
#[derive(Debug)]
struct Side {
    id: ConnectionId,
    state: ChannelState,
    endpoint: EndpointChoice,
    /// When what is awaited is late; `u64::MAX`: nothing is.
    late_at_ms: u64,
    reader: ResponseReader,
}

/// A request that is not answered yet.
#[derive(Debug)]
struct Pending {
    ticket: u64,
    request: Request,
    /// The token comes first.
    wants_token: bool,
    /// It was asked for already.
    has_token: bool,
}

/// The client of etcd.
#[derive(Debug)]
pub struct Client {
    endpoints: Vec<String>,
    user: Option<EtcdUser>,
    /// None: it is to be asked for. Empty: etcd wants none.
    token: Option<String>,
    watched: String,
    random: Random,
    requests: Side,
    pending: Option<Pending>,
    /// The answer so far.
    body: Vec<u8>,
    watch: Side,
    lines: LineReader,
    /// Where the next watch is to begin; none: a range comes first.
    watch_from: Option<u64>,
    /// When the watch was created; none: it was not yet.
    created_at_ms: Option<u64>,
    /// The last revision that the watch, or the range before it, has shown.
    watched_revision: u64,
    effects: VecDeque<Effect>,
    is_up: bool,
    last_error: String,
}

impl Client {
    /// A client for these end points, of which there is at least one, such as `10.0.0.5:2379`. It
    /// watches the keys that begin with `watched`. The seed decides where to begin and how long
    /// pauses are.
    pub fn new(endpoints: Vec<String>, user: Option<EtcdUser>, watched: String, seed: u64) -> Self {
        assert!(!endpoints.is_empty(), "no end point");
        let mut random = Random(seed);
        let count = u64::try_from(endpoints.len()).unwrap_or(1);
        let first = usize::try_from(random.below(count)).unwrap_or(0);
        Self {
            requests: Side::new(Channel::Requests, first),
            watch: Side::new(Channel::Watch, first),
            endpoints,
            user,
            token: None,
            watched,
            random,
            pending: None,
            body: Vec::new(),
            lines: LineReader::default(),
            watch_from: None,
            created_at_ms: None,
            watched_revision: 0,
            effects: VecDeque::new(),
            is_up: false,
            last_error: String::new(),
        }
    }

    /// Whether a request may be submitted: none is pending, and the pause after a failure is over.
    pub fn wants_request(&self, now_ms: u64) -> bool {
        self.pending.is_none() && self.requests.endpoint.retry_at_ms <= now_ms
    }

    /// Begins a request; only if [`Client::wants_request`].
    pub fn submit(&mut self, ticket: u64, request: Request, now_ms: u64) {
        assert!(self.pending.is_none(), "one request at a time");
        self.pending = Some(Pending {
            ticket,
            request,
            wants_token: self.user.is_some() && self.token.is_none(),
            has_token: false,
        });
        match self.requests.state {
            ChannelState::Open => self.send_request(now_ms),
            _ => self.connect(Channel::Requests, now_ms),
        }
    }

    /// What is to be done next.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// How the client fares.
    pub fn health(&self) -> ClientHealth<'_> {
        let fares_well = self.is_up && self.created_at_ms.is_some();
        ClientHealth {
            is_up: self.is_up,
            endpoint: &self.endpoints[self.requests.endpoint.index],
            last_error: if fares_well { "" } else { &self.last_error },
        }
    }

    /// When [`Client::on_time`] is to be called, or a request may be submitted again; `u64::MAX`:
    /// not before something else happens.
    pub fn wake_at_ms(&self, now_ms: u64) -> u64 {
        let watch_at_ms = match self.watch.state {
            ChannelState::Closed if self.watch_from.is_some() => self.watch.endpoint.retry_at_ms,
            _ => self.watch.late_at_ms,
        };
        let retry_at_ms = self.requests.endpoint.retry_at_ms;
        let retry_at_ms = if retry_at_ms > now_ms {
            retry_at_ms
        } else {
            u64::MAX
        };
        self.requests.late_at_ms.min(watch_at_ms).min(retry_at_ms)
    }

    /// Gives up what is late, and begins the watch when it is time.
    pub fn on_time(&mut self, now_ms: u64) {
        for channel in [Channel::Requests, Channel::Watch] {
            if self.side(channel).late_at_ms <= now_ms {
                self.on_failure(channel, Failure::TimedOut, now_ms);
            }
        }
        let may_connect = self.watch.endpoint.retry_at_ms <= now_ms;
        if self.watch.state == ChannelState::Closed && self.watch_from.is_some() && may_connect {
            self.connect(Channel::Watch, now_ms);
        }
    }

    /// A connection is open.
    pub fn on_connected(&mut self, id: ConnectionId, now_ms: u64) {
        if !self.is_current(id, ChannelState::Connecting) {
            return;
        }
        self.side(id.channel).state = ChannelState::Open;
        match id.channel {
            Channel::Requests => self.send_request(now_ms),
            Channel::Watch => self.send_watch(now_ms),
        }
    }

    /// Bytes have come.
    pub fn on_bytes(&mut self, id: ConnectionId, bytes: &[u8], now_ms: u64) {
        if !self.is_current(id, ChannelState::Open) {
            return;
        }
        let result = match id.channel {
            Channel::Requests => self.receive_answer(bytes, now_ms),
            Channel::Watch => self.receive_lines(bytes, now_ms),
        };
        if let Err(failure) = result {
            self.on_failure(id.channel, failure, now_ms);
        }
    }

    /// A connection could not be opened, or was closed by the other end.
    pub fn on_closed(&mut self, id: ConnectionId, reason: &str, now_ms: u64) {
        let side = self.side(id.channel);
        if side.id != id || side.state == ChannelState::Closed {
            return;
        }
        side.forget();
        let is_idle = id.channel == Channel::Requests && self.pending.is_none();
        if !is_idle {
            self.on_failure(id.channel, Failure::Lost(reason.to_owned()), now_ms);
        }
    }

    fn side(&mut self, channel: Channel) -> &mut Side {
        match channel {
            Channel::Requests => &mut self.requests,
            Channel::Watch => &mut self.watch,
        }
    }

    fn is_current(&mut self, id: ConnectionId, state: ChannelState) -> bool {
        let side = self.side(id.channel);
        side.id == id && side.state == state
    }

    fn connect(&mut self, channel: Channel, now_ms: u64) {
        let side = self.side(channel);
        side.id.number += 1;
        side.state = ChannelState::Connecting;
        side.late_at_ms = now_ms.saturating_add(CONNECT_MS);
        let (id, index) = (side.id, side.endpoint.index);
        let authority = self.endpoints[index].clone();
        self.effects.push_back(Effect::Connect { id, authority });
    }

    fn close(&mut self, channel: Channel) {
        let side = self.side(channel);
        if side.state != ChannelState::Closed {
            let id = side.id;
            side.forget();
            self.effects.push_back(Effect::Close { id });
        }
    }

    fn send(&mut self, channel: Channel, bytes: Vec<u8>, now_ms: u64) {
        let side = self.side(channel);
        side.reader = ResponseReader::default();
        side.late_at_ms = now_ms.saturating_add(REQUEST_MS);
        let id = side.id;
        self.effects.push_back(Effect::Send { id, bytes });
    }

    fn on_failure(&mut self, channel: Channel, failure: Failure, now_ms: u64) {
        self.close(channel);
        let index = self.side(channel).endpoint.index;
        let name = match channel {
            Channel::Requests => "",
            Channel::Watch => "the watch of ",
        };
        self.last_error = format!("{name}{}: {failure}", self.endpoints[index]);
        if failure.needs_token() {
            self.token = None;
        }
        let endpoint = match channel {
            Channel::Requests => &mut self.requests.endpoint,
            Channel::Watch => &mut self.watch.endpoint,
        };
        let created_at_ms = self.created_at_ms.take_if(|_| channel == Channel::Watch);
        if created_at_ms.is_some_and(|at_ms| at_ms.saturating_add(LASTING_MS) <= now_ms) {
            endpoint.on_success();
        }
        endpoint.on_failure(self.endpoints.len(), &mut self.random, now_ms);
        match channel {
            Channel::Requests => {
                self.is_up = false;
                self.end_request(Err(failure));
            }
            Channel::Watch => {
                self.watch_from = None;
                self.lines = LineReader::default();
                self.effects.push_back(Effect::Hint);
            }
        }
    }

    /// Sends what is next for the pending request on the open connection.
    fn send_request(&mut self, now_ms: u64) {
        let authority = &self.endpoints[self.requests.endpoint.index];
        let token = self.token.as_deref().unwrap_or_default();
        let bytes = match (&self.pending, &self.user) {
            (None, _) => return,
            (Some(pending), Some(user)) if pending.wants_token => auth::render(user, authority),
            (Some(pending), _) => pending.request.render(authority, token),
        };
        self.send(Channel::Requests, bytes, now_ms);
    }

    fn receive_answer(&mut self, mut input: &[u8], now_ms: u64) -> Result<(), Failure> {
        let reader = &mut self.requests.reader;
        while !input.is_empty() && reader.whole().is_none() && self.pending.is_some() {
            let data = reader.receive(&mut input)?;
            self.body.extend_from_slice(data);
            let due_bytes = usize::try_from(reader.due_bytes()).unwrap_or(usize::MAX);
            if self.body.len().saturating_add(due_bytes) > ANSWER_MAX_BYTES {
                return Err(Failure::Malformed(TOO_LONG));
            }
        }
        if let Some(head) = reader.whole() {
            let (status, is_kept) = (head.status, head.is_kept && input.is_empty());
            self.requests.reader = ResponseReader::default();
            self.requests.late_at_ms = u64::MAX;
            let body = std::mem::take(&mut self.body);
            if !is_kept {
                self.close(Channel::Requests);
            }
            self.on_answer(status, &body, now_ms)?;
        } else if !input.is_empty() {
            // Nothing was asked.
            self.close(Channel::Requests);
        }
        Ok(())
    }

    fn on_answer(&mut self, status: u16, body: &[u8], now_ms: u64) -> Result<(), Failure> {
        let Some(pending) = &mut self.pending else {
            return Ok(());
        };
        let error = (status != 200).then(|| parse_error(status, body));
        if pending.wants_token {
            self.token = match error {
                None => Some(parse_token(body)?),
                Some(error) if is_without_users(&error) => Some(String::new()),
                Some(error) => return Err(error),
            };
            (pending.wants_token, pending.has_token) = (false, true);
            self.go_on(now_ms);
        } else if let Some(error) = error {
            if !error.needs_token() || pending.has_token || self.user.is_none() {
                return Err(error);
            }
            // etcd did nothing: it asks first.
            pending.wants_token = true;
            self.token = None;
            self.go_on(now_ms);
        } else {
            let body = parse_json(body)?;
            let answer = match &pending.request {
                Request::Range { .. } => parse_range(&body)?,
                Request::Write { .. } => parse_write(&body)?,
            };
            self.on_range(&answer, now_ms);
            self.is_up = true;
            self.requests.endpoint.on_success();
            self.end_request(Ok(answer));
        }
        Ok(())
    }

    /// Goes on with the pending request, on a new connection if the last was closed.
    fn go_on(&mut self, now_ms: u64) {
        match self.requests.state {
            ChannelState::Open => self.send_request(now_ms),
            _ => self.connect(Channel::Requests, now_ms),
        }
    }

    fn end_request(&mut self, result: Result<Answer, Failure>) {
        self.body = Vec::new();
        if let Some(Pending { ticket, .. }) = self.pending.take() {
            let outcome = Outcome { ticket, result };
            self.effects.push_back(Effect::Outcome(outcome));
        }
    }

    /// A range of all that is watched shows from where to watch, and whether the watch is silent.
    fn on_range(&mut self, answer: &Answer, now_ms: u64) {
        let (
            Some(Pending { request, .. }),
            Answer::Range {
                revision, values, ..
            },
        ) = (&self.pending, answer)
        else {
            return;
        };
        if !matches!(request, Request::Range { prefix } if self.watched.starts_with(prefix)) {
            return;
        }
        if self.watch.state == ChannelState::Closed {
            self.watch_from = Some(revision.saturating_add(1));
            self.watched_revision = *revision;
            return;
        }
        let of_watched = values
            .iter()
            .filter(|pair| pair.key.starts_with(&self.watched));
        let newest = of_watched.map(|pair| pair.mod_revision).max().unwrap_or(0);
        let is_listening = self.watch.late_at_ms == u64::MAX;
        if is_listening && newest > self.watched_revision {
            // The watch is to say so, too.
            self.watch.late_at_ms = now_ms.saturating_add(REQUEST_MS);
        }
    }

    fn send_watch(&mut self, now_ms: u64) {
        let authority = &self.endpoints[self.watch.endpoint.index];
        let (from, token) = (self.watch_from.unwrap_or(0), self.token.as_deref());
        let token = token.unwrap_or_default();
        let bytes = watch::render(&self.watched, from, authority, token);
        self.send(Channel::Watch, bytes, now_ms);
    }

    fn receive_lines(&mut self, mut input: &[u8], now_ms: u64) -> Result<(), Failure> {
        while !input.is_empty() {
            let reader = &mut self.watch.reader;
            let mut data = reader.receive(&mut input)?;
            let status = reader.status().unwrap_or(0);
            let is_whole = reader.whole().is_some();
            while !data.is_empty() {
                match self.lines.next(&mut data)? {
                    Some(line) if status == 200 && !line.is_empty() => {
                        self.on_line(&line, now_ms)?;
                    }
                    Some(line) if status != 200 => return Err(parse_error(status, &line)),
                    _ => {}
                }
            }
            if is_whole {
                let rest = self.lines.rest();
                return Err(match status {
                    200 => Failure::Lost("the watch has ended".to_owned()),
                    status => parse_error(status, &rest),
                });
            }
        }
        Ok(())
    }

    fn on_line(&mut self, line: &[u8], now_ms: u64) -> Result<(), Failure> {
        match watch::parse_line(line)? {
            Hint::Created => {
                self.created_at_ms = Some(now_ms);
                self.watch.late_at_ms = u64::MAX;
            }
            Hint::Changed { revision } => {
                self.watched_revision = self.watched_revision.max(revision);
                self.watch.late_at_ms = u64::MAX;
                self.watch.endpoint.on_success();
                self.effects.push_back(Effect::Hint);
            }
            Hint::Alive => {}
        }
        Ok(())
    }
}

impl Side {
    fn new(channel: Channel, index: usize) -> Self {
        Self {
            id: ConnectionId { channel, number: 0 },
            state: ChannelState::Closed,
            endpoint: EndpointChoice::at(index),
            late_at_ms: u64::MAX,
            reader: ResponseReader::default(),
        }
    }

    /// The connection is no more.
    fn forget(&mut self) {
        self.state = ChannelState::Closed;
        self.late_at_ms = u64::MAX;
        self.reader = ResponseReader::default();
    }
}
