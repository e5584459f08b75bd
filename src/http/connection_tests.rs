//! Connections: the same answers whatever the cuts, the budget and the room; bounds.
//!
//! The handler below echoes; a few paths misbehave on purpose. Random tests print their seed when
//! they fail and take it back from `HTTP_TEST_SEED`.

use std::io::IoSlice;

use super::{
    AwaitedInput, Begin, BodySink, BodySource, Connection, Context, Fill, Handler, Head,
    HeadLimits, HeadReader, HttpDate, Limits, Method, Output, Refusal, Reply, SharedBytes, Wants,
};

const LIMITS: Limits = Limits {
    output_high_bytes: 64 * 1024,
    kept_body_bytes: 1000,
};

const HEAD_LIMITS: HeadLimits = HeadLimits {
    head_bytes: 1024,
    header_count: 20,
};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Collects a body of at most `room` bytes, and needs `steps` more steps then.
#[derive(Debug)]
pub(super) struct Echo {
    body: Vec<u8>,
    room: usize,
    steps: usize,
}

impl BodySink for Echo {
    fn expect(&mut self, bytes: u64) -> Result<(), Refusal> {
        assert!(bytes > 0);
        if bytes > (self.room - self.body.len()) as u64 {
            return Err(Refusal::new(413, "too_large", "too large: send less"));
        }
        Ok(())
    }

    fn push(&mut self, data: &[u8]) -> Result<(), Refusal> {
        assert!(!data.is_empty());
        if data.len() > self.room - self.body.len() {
            return Err(Refusal::new(413, "too_large", "too large: send less"));
        }
        self.body.extend_from_slice(data);
        Ok(())
    }

    fn step(&mut self) -> Result<bool, Refusal> {
        if self.body.starts_with(b"bad") {
            return Err(Refusal::bad_request("a bad body: send a good one"));
        }
        self.steps = self.steps.saturating_sub(1);
        Ok(self.steps == 0)
    }

    fn heap_bytes(&self) -> usize {
        self.body.capacity()
    }
}

struct Count(usize);

impl BodySource for Count {
    fn fill(&mut self, out: &mut Vec<u8>, _: usize) -> Fill {
        out.extend_from_slice(format!("{},", self.0).as_bytes());
        self.0 -= 1;
        if self.0 == 0 { Fill::Done } else { Fill::More }
    }
}

#[derive(Default)]
struct Echoes {
    begun: usize,
    finished: usize,
}

impl Handler for Echoes {
    type Body = Echo;

    fn begin(&mut self, head: &Head<'_>, body: Option<&[u8]>, reply: Reply<'_>) -> Begin<Echo> {
        self.begun += 1;
        match head.path {
            b"/early" => reply.status(403).content_type("text/plain").body(b"no"),
            b"/blob" => reply
                .status(200)
                .etag(b"1-00000000")
                .blob(SharedBytes::new(vec![b'B'; 100_000])),
            b"/source" => reply.status(200).source(Box::new(Count(3))),
            b"/nothing" => reply.status(204).empty(),
            b"/mute" => drop(reply.status(200)),
            _ if head.method == Method::Get && !head.has_body() => {
                reply
                    .status(200)
                    .body(&[b"get ", head.path, b"?", head.query.unwrap_or(b"-")].concat());
            }
            path => {
                let room = if path == b"/small" { 10 } else { 100_000 };
                let steps = if path == b"/slow" { 5 } else { 1 };
                let is_taken =
                    |body: &&[u8]| body.len() <= room && steps == 1 && !body.starts_with(b"bad");
                if let Some(body) = body.filter(is_taken) {
                    self.finished += 1;
                    reply
                        .status(200)
                        .body(&[b"took ", path, b" ", body].concat());
                    return Begin::Answered;
                }
                return Begin::Receive(Echo {
                    body: Vec::new(),
                    room,
                    steps,
                });
            }
        }
        Begin::Answered
    }

    fn finish(&mut self, head: &Head<'_>, sink: Echo, reply: Reply<'_>) {
        self.finished += 1;
        assert!(sink.steps == 0);
        reply
            .status(200)
            .body(&[b"took ", head.path, b" ", &sink.body[..]].concat());
    }
}

/// One connection, with a reactor that sends everything at once.
pub(super) struct Peer {
    pub(super) connection: Connection<Echo>,
    handler: Echoes,
    heads: HeadReader,
    out: Output,
    date: HttpDate,
    pub(super) got: Vec<u8>,
    pub(super) wants: Wants,
    turns: usize,
}

impl Peer {
    pub(super) fn new() -> Self {
        Self {
            connection: Connection::new(),
            handler: Echoes::default(),
            heads: HeadReader::new(HEAD_LIMITS),
            out: Output::new(),
            date: HttpDate::from_unix_seconds(0),
            got: Vec::new(),
            wants: Wants::Input,
            turns: 0,
        }
    }

    pub(super) fn once(&mut self, input: &[u8], budget: usize) -> Wants {
        self.once_within(input, budget).0
    }

    /// The same, with what is left of the budget.
    fn once_within(&mut self, input: &[u8], mut budget: usize) -> (Wants, usize) {
        let Self {
            connection,
            handler,
            heads,
            out,
            date,
            ..
        } = self;
        let mut turn = Context {
            handler,
            heads,
            out,
            date,
            limits: &LIMITS,
            budget: &mut budget,
        };
        self.wants = connection.advance(input, &mut turn);
        self.turns += 1;
        (self.wants, budget)
    }

    fn send(&mut self) {
        loop {
            self.out.generate(7);
            let mut slices = [IoSlice::new(&[]); 4];
            let (count, _) = self.out.slices(&mut slices, usize::MAX);
            let before = self.got.len();
            for slice in &slices[..count] {
                self.got.extend_from_slice(slice);
            }
            self.out.consume(self.got.len() - before);
            if self.out.is_empty() {
                return;
            }
        }
    }

    /// Feeds `input`, with `budget` a turn, until it wants more or is closed.
    pub(super) fn feed(&mut self, input: &[u8], budget: usize) {
        if self.wants == Wants::Close {
            return;
        }
        assert_eq!(self.wants, Wants::Input);
        let most_turns = self.turns + 100 + 2 * input.len();
        self.once(input, budget);
        while matches!(self.wants, Wants::Turn | Wants::Output) {
            self.send();
            self.once(b"", budget);
            assert!(self.turns < most_turns, "it does not come to an end");
        }
        self.send();
    }

    /// Goes on without input.
    pub(super) fn feed_on(&mut self) {
        self.wants = Wants::Input;
        self.feed(b"", usize::MAX);
    }

    pub(super) fn time_out(&mut self) -> Vec<String> {
        let Self {
            connection,
            out,
            date,
            ..
        } = self;
        assert_eq!(connection.time_out(out, date), Wants::Close);
        assert_eq!(
            (connection.awaited(), connection.heap_bytes()),
            (AwaitedInput::Closing, 0)
        );
        self.send();
        self.statuses()
    }

    /// What it answered, without interim responses and dates.
    pub(super) fn answers(&self) -> String {
        let text = String::from_utf8_lossy(&self.got);
        text.replace("HTTP/1.1 100 Continue\r\n\r\n", "")
            .replace("Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n", "")
    }

    pub(super) fn statuses(&self) -> Vec<String> {
        let answers = self.answers();
        answers
            .split("HTTP/1.1 ")
            .skip(1)
            .map(|answer| answer[..3].to_owned())
            .collect()
    }
}

/// The answers to `input` given whole, and whether the connection closed.
fn whole(input: &[u8]) -> (String, bool) {
    let mut peer = Peer::new();
    peer.feed(input, usize::MAX);
    (peer.answers(), peer.wants == Wants::Close)
}

/// Pipelined streams; the last byte of each matters.
fn streams() -> Vec<Vec<u8>> {
    let streams: [&[u8]; 8] = [
        b"GET /a?b HTTP/1.1\r\nHost: h\r\n\r\nPOST /p HTTP/1.1\r\nHost: h\r\n\
          Content-Length: 5\r\n\r\nhello\
          HEAD /h HTTP/1.1\r\nHost: h\r\n\r\n\r\nDELETE /d HTTP/1.1\r\nHost: h\r\n\
          Content-Length: 0\r\n\r\n\
          PUT /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n\
          1\r\nd\r\n0\r\nT: v\r\n\r\n\
          GET /nothing HTTP/1.1\r\nHost: h\r\n\r\nGET /last HTTP/1.1\r\nHost: h\r\n\
          Connection: close\r\n\r\nGET /x",
        b"POST /e HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc\
          POST /slow HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nxyzGET /g HTTP/1.1\r\n\
          Host: h\r\nContent-Length: 1\r\n\r\ng\
          POST /early HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n\
          abcGET / HTTP/1.1\r\n\r\n",
        b"GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nPOST /2 HTTP/1.0\r\n\
          Connection: keep-alive\r\nContent-Length: 2\r\n\r\nab\
          GET /source HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /never HTTP/1.0\r\n\r\n",
        b"POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nGET \
          POST /early HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n\
          GET /source HTTP/1.1\r\nHost: h\r\n\r\nHEAD /source HTTP/1.1\r\nHost: h\r\n\r\n\
          GET /blob HTTP/1.1\r\nHost: h\r\n\r\n\
          HEAD /blob HTTP/1.1\r\nHost: h\r\n\r\nGET /z HTTP/1.1\r\nHost: h\r\n\r\nGARBAGE\r\n\r\n",
        b"POST /small HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\n01234567890123456789\
          POST /small HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n01234567\r\n\
          8\r\n01234567\r\n0\r\n\r\n\
          POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nbad\
          POST /mute HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nxyz\
          POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nX\r\n\r\n\
          GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\nxxxxxxxx",
        b"GET http://other/abs?q HTTP/1.1\r\nHost: h\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n\
          CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\
          Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/3.0\r\n\r\n",
    ];
    streams.map(<[u8]>::to_vec).to_vec()
}

fn seed() -> u64 {
    std::env::var("HTTP_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..))
}

#[test]
fn answers_in_order() {
    let answer = |status: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let (text, closed) = whole(&streams()[0]);
    let expected = [
        answer("200 OK", "get /a?b"),
        answer("200 OK", "took /p hello"),
        "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n".to_owned(),
        answer("200 OK", "took /d "),
        answer("200 OK", "took /c abcd"),
        "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 11\r\nConnection: close\r\n\r\nget /last?-".to_owned(),
    ];
    assert_eq!(text, expected.concat());
    assert!(closed);
}

#[test]
fn statuses_and_endings_of_the_streams() {
    let expected: [&[&str]; 8] = [
        &["200", "200", "200", "200", "200", "204", "200"],
        &["200", "200", "200", "403"],
        &["200", "200", "200"],
        &["403", "403", "200", "200", "200", "200", "200", "400"],
        &["413", "413", "400", "500", "400"],
        &["403"],
        &["200", "200", "200", "400"],
        &["200", "505"],
    ];
    for (stream, expected) in streams().iter().zip(expected) {
        let mut peer = Peer::new();
        peer.feed(stream, usize::MAX);
        assert_eq!(
            peer.statuses(),
            expected,
            "{}",
            String::from_utf8_lossy(stream)
        );
        assert_eq!(peer.wants, Wants::Close);
        let answers = peer.answers();
        let last = &answers[answers.rfind("HTTP/1.1 ").expect("an answer")..];
        assert!(last.contains("\r\nConnection: close\r\n"), "{last}");
        assert_eq!(answers.matches("Connection: close").count(), 1, "{answers}");
        assert_eq!(peer.connection.heap_bytes(), 0);
    }
}

#[test]
fn cuts_change_nothing() {
    for stream in streams() {
        let expected = whole(&stream);
        for cut in 0..=stream.len() {
            let mut peer = Peer::new();
            peer.feed(&stream[..cut], usize::MAX);
            peer.feed(&stream[cut..], usize::MAX);
            assert_eq!(
                (peer.answers(), peer.wants == Wants::Close),
                expected,
                "cut at {cut}"
            );
        }
        let mut peer = Peer::new();
        for byte in &stream {
            peer.feed(&[*byte], usize::MAX);
        }
        assert_eq!(
            (peer.answers(), peer.wants == Wants::Close),
            expected,
            "byte by byte"
        );
    }
}

#[test]
fn random_pieces_and_budgets_change_nothing() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    for stream in streams() {
        let expected = whole(&stream);
        for _ in 0..200 {
            let mut peer = Peer::new();
            let (most, budget) = (random.usize(1..200), random.usize(1..400));
            let mut rest = &stream[..];
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(random.usize(1..=most).min(rest.len()));
                peer.feed(piece, budget);
                rest = after;
            }
            assert_eq!(
                (peer.answers(), peer.wants == Wants::Close),
                expected,
                "HTTP_TEST_SEED={seed}"
            );
        }
    }
}

#[test]
fn mutated_streams_never_panic_and_cuts_change_nothing() {
    let seed = seed();
    println!("HTTP_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let streams: Vec<_> = streams()
        .into_iter()
        .filter(|stream| !stream.windows(5).any(|part| part == b"/blob"))
        .collect();
    let spice = b"\r\n|\n|\r|\0| |:|\r\n\r\n|ffffffffffffffff|0\r\n\r\n|\xff|;|HTTP/1.1"
        .split(|byte| *byte == b'|');
    let spice: Vec<&[u8]> = spice.collect();
    for round in 0..100_000 {
        let mut stream = streams[round % streams.len()].clone();
        for _ in 0..random.usize(1..6) {
            let (at, other) = (random.usize(..stream.len()), random.usize(..stream.len()));
            match random.u8(..6) {
                0 => stream[at] = random.u8(..),
                1 => stream[at] ^= 1 << random.u8(..8),
                2 => drop(stream.drain(at.min(other)..at.max(other))),
                3 => drop(
                    stream.splice(at..at, random.choice(&spice).expect("some").iter().copied()),
                ),
                4 => stream.swap(at, other),
                _ => {
                    let copy = stream[at.min(other)..at.max(other)].to_vec();
                    drop(stream.splice(at..at, copy));
                }
            }
            if stream.is_empty() {
                stream.push(b'G');
            }
        }
        let (mut peer, most, budget) = (Peer::new(), random.usize(1..500), random.usize(1..2000));
        for piece in stream.chunks(most) {
            peer.feed(piece, budget);
        }
        peer.connection.peer_closed();
        peer.feed(b"", budget);
        let mut at_once = Peer::new();
        at_once.feed(&stream, usize::MAX);
        at_once.connection.peer_closed();
        at_once.feed_on();
        assert_eq!(
            (peer.wants, at_once.wants),
            (Wants::Close, Wants::Close),
            "HTTP_TEST_SEED={seed}"
        );
        assert_eq!(
            peer.answers(),
            at_once.answers(),
            "HTTP_TEST_SEED={seed}: {}",
            stream.escape_ascii()
        );
    }
}

/// A body is refused in the same byte however it is cut, but with what follows that byte in the
/// same piece, or not.
#[test]
fn whether_the_rest_of_a_refused_body_is_read_does_not_depend_on_the_cut() {
    for (framing, body, closes) in [
        (
            "Transfer-Encoding: chunked",
            format!("3e7\r\n{}\r\n0\r\n\r\n", "x".repeat(999)),
            true,
        ),
        (
            "Transfer-Encoding: chunked",
            format!("320\r\n{}\r\n0\r\n\r\n", "x".repeat(800)),
            false,
        ),
        ("Content-Length: 1001", "x".repeat(1001), true),
        ("Content-Length: 1000", "x".repeat(1000), false),
    ] {
        let stream = format!("POST /small HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n{body}");
        for most in [1, 7, 500, stream.len()] {
            let mut peer = Peer::new();
            stream
                .as_bytes()
                .chunks(most)
                .for_each(|piece| peer.feed(piece, usize::MAX));
            let found = (
                peer.answers().contains("Connection: close"),
                peer.wants == Wants::Close,
            );
            assert_eq!(found, (closes, closes), "{framing} in pieces of {most}");
        }
    }
}

/// What is said to come and does not fit is refused before it comes, and before a peer that waits
/// is told to go on.
#[test]
fn what_does_not_fit_is_refused_when_it_is_said() {
    for (head, closes) in [
        ("Content-Length: 11\r\n\r\n", false),
        ("Content-Length: 1001\r\n\r\n", true),
        ("Content-Length: 11\r\nExpect: 100-continue\r\n\r\n", true),
        ("Transfer-Encoding: chunked\r\n\r\nb\r\n", false),
        (
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n",
            false,
        ),
        (
            "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            true,
        ),
    ] {
        let text = format!("POST /small HTTP/1.1\r\nHost: h\r\n{head}");
        for most in [1, text.len()] {
            let mut peer = Peer::new();
            for piece in text.as_bytes().chunks(most) {
                assert_eq!(peer.got, b"", "too early");
                peer.feed(piece, usize::MAX);
            }
            assert_eq!(peer.statuses(), ["413"], "{head}");
            assert!(!peer.got.starts_with(CONTINUE));
            let found = peer.answers().contains("Connection: close");
            assert_eq!(
                (found, peer.wants == Wants::Close),
                (closes, closes),
                "{head}"
            );
        }
    }
}

#[test]
fn a_thousand_in_one_input() {
    let stream = b"GET /n HTTP/1.1\r\nHost: h\r\n\r\nPOST /m HTTP/1.1\r\nHost: h\r\n\
          Content-Length: 1\r\n\r\nx"
        .repeat(500);
    let mut peer = Peer::new();
    peer.feed(&stream, usize::MAX);
    assert_eq!((peer.handler.begun, peer.handler.finished), (1000, 500));
    assert_eq!(peer.answers().matches("get /n?-").count(), 500);
    assert_eq!(
        (peer.wants, peer.connection.awaited()),
        (Wants::Input, AwaitedInput::Idle)
    );
    assert_eq!(peer.connection.heap_bytes(), 0);

    let mut bit_by_bit = Peer::new();
    bit_by_bit.feed(&stream, 1);
    assert_eq!(bit_by_bit.answers(), peer.answers());
    assert!(
        bit_by_bit.turns >= 1000,
        "a budget of 1 lets one request through a turn"
    );
}

#[test]
fn room_and_budget_are_respected() {
    let one = b"GET /blob HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut peer = Peer::new();
    assert_eq!(peer.once(&one.repeat(3), usize::MAX), Wants::Output);
    assert_eq!(
        (peer.handler.begun, peer.connection.awaited()),
        (1, AwaitedInput::Reply)
    );
    assert_eq!(
        peer.once(b"", usize::MAX),
        Wants::Output,
        "nothing was sent"
    );
    peer.out
        .consume(peer.out.unsent_bytes() - LIMITS.output_high_bytes);
    assert_eq!(
        (peer.once(b"", usize::MAX), peer.handler.begun),
        (Wants::Output, 2)
    );
    peer.send();
    assert_eq!(
        (peer.once(b"", usize::MAX), peer.handler.begun),
        (Wants::Output, 3)
    );
    peer.send();
    assert_eq!(peer.once(b"", usize::MAX), Wants::Input);

    let small = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut peer = Peer::new();
    assert_eq!(peer.once_within(&small.repeat(20), 5000), (Wants::Turn, 0));
    assert!(
        (4..=6).contains(&peer.handler.begun),
        "{} requests for 5,000 bytes of work",
        peer.handler.begun
    );
    assert_eq!(
        (peer.once(b"", usize::MAX), peer.handler.begun),
        (Wants::Input, 20)
    );

    let head = b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 90\r\n\r\n";
    assert_eq!(peer.once(head, usize::MAX), Wants::Input);
    for (length, budget, expected) in [(40, 50, (Wants::Input, 10)), (50, 49, (Wants::Turn, 0))] {
        assert_eq!(
            peer.once_within(&vec![b'x'; length], budget),
            expected,
            "{length} bytes of a body"
        );
    }
}

#[test]
fn a_source_holds_what_follows() {
    let mut peer = Peer::new();
    let stream = b"GET /source HTTP/1.1\r\nHost: h\r\n\r\nGET /next HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_eq!(
        (peer.once(stream, usize::MAX), peer.handler.begun),
        (Wants::Output, 1)
    );
    peer.send();
    assert_eq!(
        (peer.once(b"", usize::MAX), peer.handler.begun),
        (Wants::Input, 2)
    );
    peer.send();
    assert!(peer.answers().contains(
        "\r\n\r\n00000002\r\n3,\r\n00000002\r\n2,\r\n00000002\r\n1,\r\n0\r\n\r\nHTTP/1.1 200 OK"
    ));

    // On HTTP/1.0 the end of the connection ends the body: close only when it is rendered.
    let mut peer = Peer::new();
    assert_eq!(
        peer.once(b"GET /source HTTP/1.0\r\n\r\n", usize::MAX),
        Wants::Output
    );
    peer.send();
    assert_eq!(peer.once(b"", usize::MAX), Wants::Close);
    assert!(peer.answers().ends_with("Connection: close\r\n\r\n3,2,1,"));
}

#[test]
fn continue_is_sent_only_while_the_peer_waits() {
    let head = b"POST /e HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    let mut peer = Peer::new();
    peer.feed(head, usize::MAX);
    assert_eq!(peer.got, CONTINUE);
    peer.feed(b"a", usize::MAX);
    peer.feed(b"bc", usize::MAX);
    assert!(peer.answers().ends_with("took /e abc") && peer.wants == Wants::Input);
    assert_eq!(
        peer.got
            .windows(CONTINUE.len())
            .filter(|part| *part == CONTINUE)
            .count(),
        1
    );

    for body in [&b"a"[..], b"abc"] {
        let mut peer = Peer::new();
        peer.feed(&[head, body].concat(), usize::MAX);
        assert!(!peer.got.starts_with(CONTINUE));
    }
    let mut peer = Peer::new();
    peer.feed(
        b"POST /early HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
        usize::MAX,
    );
    assert_eq!(
        (peer.statuses(), peer.wants),
        (vec!["403".to_owned()], Wants::Close)
    );
}

#[test]
fn unwanted_bodies_are_read_to_their_end() {
    let body_of = |bytes: usize| {
        let head = format!("POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: {bytes}\r\n\r\n");
        [head.into_bytes(), vec![b'x'; bytes]].concat()
    };
    let mut peer = Peer::new();
    peer.feed(&body_of(1000), usize::MAX);
    assert_eq!(
        (peer.wants, peer.connection.awaited()),
        (Wants::Input, AwaitedInput::Idle)
    );
    assert!(!peer.answers().contains("Connection: close"));
    // One that is known to be longer ends the connection: the caller reads on, and drops what
    // comes.
    peer.feed(&body_of(1001), usize::MAX);
    assert_eq!(peer.wants, Wants::Close);
    assert!(peer.answers().contains("Connection: close"));

    // Chunks do not tell: they are read up to the end, and the connection goes on.
    let mut peer = Peer::new();
    peer.feed(
        b"POST /early HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        usize::MAX,
    );
    peer.feed(b"fff\r\n", usize::MAX);
    for received_bytes in (905..=3805).step_by(100) {
        let piece = if received_bytes == 905 { 900 } else { 100 };
        peer.feed(&vec![b'x'; piece], usize::MAX);
        assert_eq!(
            (peer.wants, peer.connection.awaited()),
            (Wants::Input, AwaitedInput::Discarded { received_bytes })
        );
        assert_eq!(peer.connection.heap_bytes(), 0, "nothing of it is kept");
    }
    peer.feed(&[b'x'; 295], usize::MAX);
    peer.feed(
        b"\r\n0\r\n\r\nGET /next HTTP/1.1\r\nHost: h\r\n\r\n",
        usize::MAX,
    );
    assert_eq!(peer.statuses(), ["403", "200"]);
    assert_eq!(
        (peer.wants, peer.connection.awaited()),
        (Wants::Input, AwaitedInput::Idle)
    );
}

/// What is dropped is work like any other: a turn ends within it.
#[test]
fn discarding_is_paid_for() {
    let head = b"POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\n\r\n";
    let mut peer = Peer::new();
    peer.once(head, usize::MAX);
    for (length, budget, expected) in [
        (400, 500, (Wants::Input, 100)),
        (400, 150, (Wants::Turn, 0)),
    ] {
        assert_eq!(peer.once_within(&vec![b'x'; length], budget), expected);
    }
}

/// A node that stops does not wait for the end of a body that is answered.
#[test]
fn draining_does_not_wait_for_what_is_not_wanted() {
    for framing in ["Content-Length: 900", "Transfer-Encoding: chunked"] {
        let head = format!("POST /early HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n1\r\n");
        let mut peer = Peer::new();
        peer.feed(head.as_bytes(), usize::MAX);
        peer.connection.drain_after_current();
        peer.feed_on();
        assert_eq!((peer.statuses().len(), peer.wants), (1, Wants::Close));
    }
}
