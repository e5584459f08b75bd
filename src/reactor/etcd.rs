//! The sockets of the client of etcd: one connection for requests, one for the watch.
//!
//! Invariants:
//! 1. A turn reads a bounded number of bytes from each connection.
//! 2. mio is edge-triggered: a socket counts as readable or writable until a call says otherwise.
//! 3. A name is looked up once at a time, however long that takes. An answer that comes too late
//!    for the connection is kept for the next one.
//!
//! Not here: what is sent, and when (`cluster/etcd/client.rs`); what etcd is asked (`node/`).

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token, Waker};

use crate::cluster::config::prefix_of;
use crate::cluster::etcd::{Channel, Client, ConnectionId, Effect, Outcome, Request};
use crate::config::Config;
use crate::metrics::{ETCD_FAILURE_KINDS, EtcdStats};
use crate::node::Node;

use super::limits::ETCD_READ_BYTES;
use super::link::write_rest;
use super::replication::connected_address;
use super::resolver::Resolver;
use super::timers::Millis;

/// The tokens of the two connections, by place.
const TOKENS: [Token; 2] = [Token(usize::MAX - 4), Token(usize::MAX - 5)];

/// Shorter failures are not logged.
const QUIET_MS: Millis = 1_000;

const NO_ADDRESS: &str = "its name has no address";

/// What asks etcd.
pub(super) trait EtcdCaller {
    /// The next request, with a ticket; none: there is nothing to ask now.
    fn take_request(&mut self, now: Millis) -> Option<(u64, Request)>;

    /// A request has ended.
    fn on_outcome(&mut self, outcome: Outcome, now: Millis);

    /// Something in etcd has changed, or may have.
    fn on_hint(&mut self);

    /// Where etcd's answers are counted.
    fn stats(&mut self) -> &mut EtcdStats;
}

impl EtcdCaller for Node {
    fn take_request(&mut self, now: Millis) -> Option<(u64, Request)> {
        self.take_etcd_request(now)
    }

    fn on_outcome(&mut self, outcome: Outcome, now: Millis) {
        self.on_etcd_outcome(now, outcome);
    }

    fn on_hint(&mut self) {
        self.on_etcd_hint();
    }

    fn stats(&mut self) -> &mut EtcdStats {
        self.loop_stats.etcd.get_or_insert_default()
    }
}

/// A connection, or one that is to be.
#[derive(Debug)]
struct EtcdSocket {
    id: ConnectionId,
    authority: String,
    /// None while the name is looked up.
    stream: Option<TcpStream>,
    /// Further addresses of the name.
    others: VecDeque<SocketAddr>,
    is_connected: bool,
    out: Vec<u8>,
    sent: usize,
    is_readable: bool,
    is_writable: bool,
}

/// The client of etcd with its sockets.
#[derive(Debug)]
pub(super) struct EtcdConnections {
    client: Client,
    sockets: [Option<EtcdSocket>; 2],
    resolver: Resolver<String>,
    /// Names that are being looked up.
    asked_names: Vec<String>,
    /// Addresses that came too late.
    late_addresses: BTreeMap<String, VecDeque<SocketAddr>>,
    /// When the last request began.
    asked_at: Millis,
    /// There is more to do than this turn did.
    is_busy: bool,
    /// Since when requests fail, and whether that was logged.
    failing_since: Option<(Millis, bool)>,
}

/// The place of a connection and its token.
fn place_of(channel: Channel) -> usize {
    match channel {
        Channel::Requests => 0,
        Channel::Watch => 1,
    }
}

fn count(stats: &mut EtcdStats, outcome: &Outcome, took_ms: u64) {
    match &outcome.result {
        Ok(_) => stats.durations.record(took_ms.saturating_mul(1_000)),
        Err(failure) => {
            let kinds = ETCD_FAILURE_KINDS.iter().zip(&mut stats.failure_counts);
            let of_kind = kinds.filter(|(kind, _)| **kind == failure.kind());
            of_kind.for_each(|(_, count)| *count += 1);
        }
    }
}

impl EtcdConnections {
    /// The connections of a node in a cluster; none: it is in none. `seed` decides how long pauses
    /// are.
    pub(super) fn open(config: &Config, seed: u64, waker: &Arc<Waker>) -> Option<Box<Self>> {
        let endpoints = config.etcd.clone()?;
        let prefix = prefix_of(&config.cluster);
        let client = Client::new(endpoints, config.etcd_user.clone(), prefix, seed);
        Some(Box::new(Self::new(client, Arc::clone(waker))))
    }

    fn new(client: Client, waker: Arc<Waker>) -> Self {
        Self {
            client,
            sockets: [None, None],
            resolver: Resolver::new(waker),
            asked_names: Vec::new(),
            late_addresses: BTreeMap::new(),
            asked_at: 0,
            is_busy: true,
            failing_since: None,
        }
    }

    /// Takes in an event of the poll; false if it is not for these connections.
    pub(super) fn note(&mut self, event: &mio::event::Event) -> bool {
        let Some(place) = TOKENS.iter().position(|token| *token == event.token()) else {
            return false;
        };
        if let Some(socket) = &mut self.sockets[place] {
            socket.is_readable |= event.is_readable() || event.is_read_closed() || event.is_error();
            socket.is_writable |=
                event.is_writable() || event.is_write_closed() || event.is_error();
        }
        true
    }

    /// When the next turn is due without an event.
    pub(super) fn wake_at(&self, now: Millis) -> Millis {
        if self.is_busy {
            return now;
        }
        self.client.wake_at_ms(now)
    }

    /// Takes in what has come, and gives up what is late.
    pub(super) fn receive(
        &mut self,
        caller: &mut impl EtcdCaller,
        registry: &Registry,
        now: Millis,
    ) {
        self.is_busy = false;
        while let Some((name, addresses)) = self.resolver.next() {
            self.on_addresses(name, addresses, registry, now);
        }
        for place in 0..self.sockets.len() {
            self.visit(place, registry, now);
        }
        self.client.on_time(now);
        self.carry_out(caller, registry, now);
    }

    /// Sends the next request, if it is time for one.
    pub(super) fn ask(&mut self, caller: &mut impl EtcdCaller, registry: &Registry, now: Millis) {
        if self.client.wants_request(now)
            && let Some((ticket, request)) = caller.take_request(now)
        {
            self.asked_at = now;
            self.client.submit(ticket, request, now);
            self.carry_out(caller, registry, now);
        }
    }

    /// Does what the client says.
    fn carry_out(&mut self, caller: &mut impl EtcdCaller, registry: &Registry, now: Millis) {
        let mut has_news = false;
        while let Some(effect) = self.client.next_effect() {
            match effect {
                Effect::Connect { id, authority } => self.connect(id, authority, registry, now),
                Effect::Send { id, bytes } => self.send(id, &bytes, now),
                Effect::Close { id } => self.sockets[place_of(id.channel)] = None,
                Effect::Outcome(outcome) => {
                    count(caller.stats(), &outcome, now - self.asked_at);
                    caller.on_outcome(outcome, now);
                    has_news = true;
                }
                Effect::Hint => {
                    caller.on_hint();
                    has_news = true;
                }
            }
        }
        if has_news {
            let (health, stats) = (self.client.health(), caller.stats());
            stats.is_up = health.is_up;
            health.endpoint.clone_into(&mut stats.endpoint);
            health.last_error.clone_into(&mut stats.last_error);
            self.log_health(now);
        }
    }

    /// Logs failures that last, and their end.
    fn log_health(&mut self, now: Millis) {
        let health = self.client.health();
        match (&mut self.failing_since, health.is_up) {
            (None, true) => {}
            (since @ None, false) => *since = Some((now, false)),
            (Some((since, is_logged)), false) => {
                if !*is_logged && now >= *since + QUIET_MS {
                    *is_logged = true;
                    log::warn!(
                        "etcd: no answer for {} ms: {}",
                        now - *since,
                        health.last_error
                    );
                }
            }
            (Some((since, is_logged)), true) => {
                if *is_logged {
                    let endpoint = health.endpoint;
                    log::info!("etcd: {endpoint} answers, after {} ms", now - *since);
                }
                self.failing_since = None;
            }
        }
    }

    fn connect(&mut self, id: ConnectionId, authority: String, registry: &Registry, now: Millis) {
        let place = place_of(id.channel);
        let known = match authority.parse() {
            Ok(address) => Some(VecDeque::from([address])),
            Err(_) => self.late_addresses.remove(&authority),
        };
        if known.is_none() && !self.asked_names.contains(&authority) {
            self.asked_names.push(authority.clone());
            self.resolver.ask(&authority, authority.clone());
        }
        self.sockets[place] = Some(EtcdSocket::new(id, authority));
        if let Some(addresses) = known {
            self.dial(place, addresses, NO_ADDRESS, registry, now);
        }
    }

    /// A name was looked up.
    fn on_addresses(
        &mut self,
        name: String,
        addresses: io::Result<Vec<SocketAddr>>,
        registry: &Registry,
        now: Millis,
    ) {
        self.asked_names.retain(|asked| *asked != name);
        let (addresses, reason) = match addresses {
            Ok(addresses) => (addresses.into(), NO_ADDRESS.to_owned()),
            Err(error) => (VecDeque::new(), format!("its name is not found: {error}")),
        };
        let mut is_late = true;
        for place in 0..self.sockets.len() {
            let socket = self.sockets[place].as_ref();
            if socket.is_some_and(|socket| socket.stream.is_none() && socket.authority == name) {
                is_late = false;
                self.dial(place, addresses.clone(), &reason, registry, now);
            }
        }
        if is_late && !addresses.is_empty() {
            self.late_addresses.insert(name, addresses);
        }
    }

    /// Connects to the first of these addresses that can be tried.
    fn dial(
        &mut self,
        place: usize,
        mut addresses: VecDeque<SocketAddr>,
        reason: &str,
        registry: &Registry,
        now: Millis,
    ) {
        let mut reason = reason.to_owned();
        while let Some(address) = addresses.pop_front() {
            let stream = TcpStream::connect(address).and_then(|mut stream| {
                let interest = Interest::READABLE | Interest::WRITABLE;
                registry.register(&mut stream, TOKENS[place], interest)?;
                Ok(stream)
            });
            match stream {
                Ok(stream) => {
                    if let Some(socket) = &mut self.sockets[place] {
                        (socket.stream, socket.others) = (Some(stream), addresses);
                        (socket.is_readable, socket.is_writable) = (false, false);
                    }
                    return;
                }
                Err(error) => reason = error.to_string(),
            }
        }
        self.on_closed(place, &reason, now);
    }

    fn on_closed(&mut self, place: usize, reason: &str, now: Millis) {
        if let Some(socket) = self.sockets[place].take() {
            self.client.on_closed(socket.id, reason, now);
        }
    }

    /// Goes on with what the poll has told of one connection.
    #[inline(never)]
    fn visit(&mut self, place: usize, registry: &Registry, now: Millis) {
        let Some(socket) = &mut self.sockets[place] else {
            return;
        };
        if !socket.is_connected {
            match socket.advance() {
                Ok(false) => return,
                Ok(true) => self.client.on_connected(socket.id, now),
                Err(error) => {
                    let others = std::mem::take(&mut socket.others);
                    return self.dial(place, others, &error.to_string(), registry, now);
                }
            }
        }
        let result = socket.flush().and_then(|()| {
            let id = socket.id;
            socket.read(|bytes| self.client.on_bytes(id, bytes, now))
        });
        match result {
            Ok(has_more) => self.is_busy |= has_more,
            Err(error) => self.on_closed(place, &error.to_string(), now),
        }
    }

    fn send(&mut self, id: ConnectionId, bytes: &[u8], now: Millis) {
        let place = place_of(id.channel);
        let Some(socket) = &mut self.sockets[place] else {
            return;
        };
        socket.out.extend_from_slice(bytes);
        if let Err(error) = socket.flush() {
            self.on_closed(place, &error.to_string(), now);
        }
    }
}

impl EtcdSocket {
    fn new(id: ConnectionId, authority: String) -> Self {
        Self {
            id,
            authority,
            stream: None,
            others: VecDeque::new(),
            is_connected: false,
            out: Vec::new(),
            sent: 0,
            is_readable: false,
            is_writable: false,
        }
    }

    /// Whether the connection is open now.
    fn advance(&mut self) -> io::Result<bool> {
        let Some(stream) = self.stream.as_ref().filter(|_| self.is_writable) else {
            return Ok(false);
        };
        self.is_connected = connected_address(stream)?.is_some();
        if self.is_connected {
            let _ = stream.set_nodelay(true);
        }
        Ok(self.is_connected)
    }

    /// Passes on what has come, up to a bound; true if there may be more.
    fn read(&mut self, mut take: impl FnMut(&[u8])) -> io::Result<bool> {
        // Nearly all turns end here: without the buffer, which costs its zeros.
        let Some(stream) = self.stream.as_mut().filter(|_| self.is_readable) else {
            return Ok(false);
        };
        let mut buffer = [0; 16 * 1024];
        let mut left = ETCD_READ_BYTES;
        while self.is_readable && left > 0 {
            match stream.read(&mut buffer) {
                Ok(0) => return Err(io::Error::other("it closed the connection")),
                Ok(len) => {
                    take(&buffer[..len]);
                    left = left.saturating_sub(len);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.is_readable)
    }

    /// Sends what is unsent, as far as the socket takes it.
    fn flush(&mut self) -> io::Result<()> {
        let Some(stream) = self.stream.as_mut().filter(|_| self.is_connected) else {
            return Ok(());
        };
        write_rest(stream, &self.out, &mut self.sent, &mut self.is_writable)?;
        if self.sent == self.out.len() {
            (self.out, self.sent) = (Vec::new(), 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream as StdStream};
    use std::time::Duration;

    use mio::{Events, Poll};

    use crate::cluster::etcd::{Answer, Failure};

    use super::*;

    const PREFIX: &str = "/db-node/x/";

    /// Asks for a range whenever it may, up to a number of times.
    #[derive(Default)]
    struct Caller {
        left: u64,
        outcomes: Vec<Result<Answer, Failure>>,
        hint_count: usize,
        stats: EtcdStats,
    }

    impl EtcdCaller for Caller {
        fn take_request(&mut self, _: Millis) -> Option<(u64, Request)> {
            self.left = self.left.checked_sub(1)?;
            let prefix = PREFIX.to_owned();
            Some((self.left, Request::Range { prefix }))
        }

        fn on_outcome(&mut self, outcome: Outcome, _: Millis) {
            self.outcomes.push(outcome.result);
        }

        fn on_hint(&mut self) {
            self.hint_count += 1;
        }

        fn stats(&mut self) -> &mut EtcdStats {
            &mut self.stats
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the other end of the test")]
    fn listener() -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        listener.set_nonblocking(true).expect("nonblocking");
        listener
    }

    /// A poll, connections, and an etcd that says what the test wants.
    struct Setting {
        poll: Poll,
        connections: EtcdConnections,
        caller: Caller,
        listener: TcpListener,
        accepted: Vec<(StdStream, Vec<u8>)>,
        now: Millis,
    }

    impl Setting {
        /// The etcd is known under this name, if it is no address.
        fn new(host: &str) -> Self {
            let listener = listener();
            let port = listener.local_addr().expect("an address").port();
            let poll = Poll::new().expect("a poll");
            let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
            let endpoints = vec![format!("{host}:{port}")];
            let client = Client::new(endpoints, None, PREFIX.to_owned(), 1);
            Self {
                poll,
                connections: EtcdConnections::new(client, Arc::new(waker)),
                caller: Caller::default(),
                listener,
                accepted: Vec::new(),
                now: 0,
            }
        }

        fn turn(&mut self) {
            let mut events = Events::with_capacity(8);
            let patience = Some(Duration::from_millis(5));
            self.poll.poll(&mut events, patience).expect("poll");
            for event in &events {
                self.connections.note(event);
            }
            let registry = self.poll.registry();
            self.connections
                .receive(&mut self.caller, registry, self.now);
            self.connections.ask(&mut self.caller, registry, self.now);
            if let Ok((stream, _)) = self.listener.accept() {
                stream.set_nonblocking(true).expect("nonblocking");
                self.accepted.push((stream, Vec::new()));
            }
            for (stream, received) in &mut self.accepted {
                let mut buffer = [0; 4096];
                if let Ok(len) = stream.read(&mut buffer) {
                    received.extend_from_slice(&buffer[..len]);
                }
            }
        }

        #[track_caller]
        fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
            for _ in 0..2_000 {
                if condition(self) {
                    return;
                }
                self.turn();
            }
            panic!("in vain for: {what}");
        }

        /// Waits until the connection of this number was asked for something.
        #[track_caller]
        fn until_asked(&mut self, number: usize, path: &str) {
            self.until(path, |setting| {
                let connection = setting.accepted.get(number);
                connection.is_some_and(|(_, received)| {
                    String::from_utf8_lossy(received).contains(&format!("POST {path} "))
                })
            });
            self.accepted[number].1.clear();
        }

        fn say(&mut self, number: usize, text: &str) {
            let (stream, _) = &mut self.accepted[number];
            stream.write_all(text.as_bytes()).expect("send");
        }
    }

    const ANSWER: &str =
        "HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n{\"header\":{\"revision\":\"7\"}}";

    fn range_at_7() -> Answer {
        Answer::Range {
            cluster_id: 0,
            revision: 7,
            values: Vec::new(),
        }
    }

    #[test]
    fn requests_and_the_watch_have_connections() {
        for host in ["127.0.0.1", "localhost"] {
            let mut setting = Setting::new(host);
            setting.caller.left = 2;
            setting.until_asked(0, "/v3/kv/range");
            let (first, rest) = ANSWER.split_at(30);
            setting.say(0, first);
            setting.turn();
            assert!(setting.caller.outcomes.is_empty());
            setting.say(0, rest);
            setting.until("an outcome", |setting| !setting.caller.outcomes.is_empty());
            assert!(setting.caller.stats.is_up);
            setting.until_asked(0, "/v3/kv/range");
            setting.say(0, ANSWER);
            setting.until_asked(1, "/v3/watch");
            assert_eq!(
                setting.caller.outcomes,
                [Ok(range_at_7()), Ok(range_at_7())]
            );
            let line = "{\"result\":{\"created\":true,\"events\":[{\"kv\":{}}]}}\n";
            let length = line.len();
            setting.say(
                1,
                &format!(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{line}\r\n"
                ),
            );
            setting.until("a hint", |setting| setting.caller.hint_count == 1);
            setting.accepted.remove(1);
            setting.until("the end", |setting| setting.caller.hint_count == 2);
            assert_eq!(setting.accepted.len(), 1);
        }
    }

    #[test]
    fn a_request_that_is_late_is_given_up_and_its_connection_closed() {
        let mut setting = Setting::new("127.0.0.1");
        setting.caller.left = 2;
        setting.until_asked(0, "/v3/kv/range");
        let late_at = setting.connections.wake_at(setting.now);
        assert_eq!(late_at, 700);
        setting.now = late_at;
        setting.turn();
        assert_eq!(setting.caller.outcomes, [Err(Failure::TimedOut)]);
        assert!(!setting.caller.stats.is_up);
        assert!(setting.caller.stats.last_error.contains("in time"));
        setting.turn();
        setting.now = setting.connections.wake_at(setting.now);
        assert!(setting.now > late_at, "a pause");
        setting.until_asked(1, "/v3/kv/range");
        assert!(matches!(setting.accepted[0].0.read(&mut [0]), Ok(0)));
        setting.say(1, ANSWER);
        setting.until("an outcome", |setting| setting.caller.outcomes.len() == 2);
        assert_eq!(setting.caller.outcomes[1], Ok(range_at_7()));
        let stats = &setting.caller.stats;
        assert_eq!(
            (stats.failure_counts, stats.durations.count()),
            ([0, 1, 0, 0], 1)
        );
    }

    #[test]
    fn refusals_are_failures() {
        let mut setting = Setting::new("localhost");
        // Another one listens, so that nothing does where the client connects to.
        setting.listener = listener();
        setting.caller.left = 1;
        setting.until("an outcome", |setting| !setting.caller.outcomes.is_empty());
        let outcome = &setting.caller.outcomes[0];
        assert!(matches!(outcome, Err(Failure::Lost(_))), "{outcome:?}");
        assert!(setting.accepted.is_empty());
    }

    /// Answers that are longer than a turn reads take several turns.
    #[test]
    fn long_answers_take_turns() {
        let mut setting = Setting::new("127.0.0.1");
        setting.caller.left = 1;
        setting.until_asked(0, "/v3/kv/range");
        let padding = " ".repeat(4 * ETCD_READ_BYTES);
        let body = format!("{{{padding}\"header\":{{\"revision\":7}}}}");
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        let (mut unsent, mut turn_count) = (answer.as_bytes(), 0);
        while setting.caller.outcomes.is_empty() {
            // As much as the socket takes.
            while let Ok(sent) = setting.accepted[0].0.write(unsent)
                && sent > 0
            {
                unsent = &unsent[sent..];
            }
            setting.turn();
            turn_count += 1;
            assert!(turn_count < 2_000, "no outcome");
        }
        assert!(turn_count >= 4);
        assert_eq!(setting.caller.outcomes, [Ok(range_at_7())]);
    }
}
