//! The state machine of one server connection: bytes in, requests to a handler, responses out, in
//! order.
//!
//! ```text
//!            head parsed, begin ──answered, body to come──▶ Discard ──body over──▶ Head
//!   Head ──▶ begin ──Receive──▶ Body ──whole, stepped, finish──▶ Head
//!   any ──framing lost, reply says close, peer gone, time out, drained──▶ Closing
//! ```
//!
//! Invariants:
//! 1. A request with head and body whole in one input costs no allocation here. Only what is
//!    cut off at the end of an input is copied: to `pending`, freed as soon as it is used up.
//! 2. The peer cannot make it hold more than a head, one input, and what the sink takes: after
//!    `Wants::Input` no more than an unfinished head is pending, and the caller reads only then.
//! 3. Each pass of the loop consumes input, changes the state, or ends the call; work is charged to
//!    the budget.
//! 4. Nothing is begun while a source is generating or more than `output_high_bytes` are unsent.
//! 5. Once framing cannot be trusted nothing more is read, and the last response says `Connection:
//!    close`.
//!
//! Not here: reading, writing, timers and the closing itself (the reactor); what the requests mean
//! (`handler.rs`'s implementors). A head that waits for its body is kept as bytes and parsed again:
//! there is no second, owned kind of head.

use std::mem;

use super::body::BodyDecoder;
use super::handler::{BodySink, Context, Handler};
use super::head::{Framing, Head};
use super::incoming_body::{BodyProgress, IncomingBody};
use super::output::Output;
use super::refusal::Refusal;
use super::response::{Exchange, HttpDate, Reply};

/// The fixed cost of a request, in bytes of work: a microsecond, about the time to parse a thousand
/// bytes.
const REQUEST_WORK_BYTES: usize = 768;

/// Most bytes at the start of pending input that can be empty lines before a request.
const BLANK_BYTES: usize = 8;

/// What the connection needs to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// More bytes from the peer.
    Input,
    /// Room: too much is unsent or a source is generating. Send, then advance again.
    Output,
    /// The budget is used up: advance again next turn.
    Turn,
    /// The last answer is rendered: send it, shut down the sending side, drain, close.
    Close,
}

/// What the connection waits for; decides which time-out applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AwaitedInput {
    /// Between requests, with no byte of the next one.
    Idle,
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body {
        /// Bytes of it received, framing included; they tell a slow peer from a silent one.
        received_bytes: u64,
    },
    /// The rest of the body of a request that is answered already.
    Discarded {
        /// The same.
        received_bytes: u64,
    },
    /// Nothing from the peer: the node has work to do or output to send.
    Reply,
    /// The end.
    Closing,
}

/// One server connection.
#[derive(Debug)]
pub struct Connection<B> {
    /// Input not dealt with, from `start` on; empty most of the time.
    pending: Vec<u8>,
    start: usize,
    /// How far `parse_head` has looked for the end of the head.
    scanned: usize,
    state: ConnectionState<B>,
    course: Course,
}

#[derive(Debug)]
enum ConnectionState<B> {
    /// Between requests or inside a head.
    Head,
    /// A body is arriving, or its sink is processing it.
    Body(Box<ParkedRequest<B>>),
    /// The rest of the body of a request that is answered.
    Discard {
        decoder: BodyDecoder,
        received_bytes: u64,
    },
    /// Nothing more is read or answered.
    Closing,
}

/// How long it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    Open,
    /// The next request is the last one, whether or not it has arrived.
    OneMore,
    /// The next answer is the last.
    Draining,
    /// Requests that have arrived in full are answered, then it ends.
    PeerClosed,
}

/// A request without its whole body yet.
#[derive(Debug)]
struct ParkedRequest<B> {
    raw_head: Vec<u8>,
    incoming: IncomingBody<B>,
}

/// The result of one pass of the loop, and how much of the input it used.
enum Pass {
    Done(usize),
    /// Nothing more can be done without more input.
    Starved(usize),
}

impl<B: BodySink> Connection<B> {
    /// A connection just accepted.
    pub fn new() -> Self {
        Self {
            pending: Vec::new(),
            start: 0,
            scanned: 0,
            state: ConnectionState::Head,
            course: Course::Open,
        }
    }

    /// Feeds `input` (empty: to go on after `Output` or `Turn`), and executes whole requests in
    /// order until the input, the room in the output or the budget is used up. Input that is not
    /// consumed is kept; feed more only after `Wants::Input`.
    pub fn advance<H: Handler<Body = B>>(
        &mut self,
        input: &[u8],
        context: &mut Context<'_, H>,
    ) -> Wants {
        if self.pending.is_empty() {
            let (used, wants) = self.run(input, context);
            self.pending = input[used..].to_vec();
            return wants;
        }
        self.pending.extend_from_slice(input);
        let pending = mem::take(&mut self.pending);
        let (used, wants) = self.run(&pending[self.start..], context);
        self.keep(pending, used);
        wants
    }

    /// The peer has closed its sending side. Advance once more: complete requests are answered, a
    /// cut-off one is not.
    pub fn peer_closed(&mut self) {
        self.course = Course::PeerClosed;
    }

    /// The next request is the last, whenever it arrives.
    pub fn end_after_next(&mut self) {
        self.course = Course::OneMore;
    }

    /// The node stops: the request in flight, if any, is the last. Advance once more to learn
    /// whether there is one.
    pub fn drain_after_current(&mut self) {
        if matches!(self.course, Course::Open | Course::OneMore) {
            self.course = Course::Draining;
        }
    }

    /// The peer was too slow: answers `408` if a request had begun and was not answered yet, and
    /// ends the connection.
    pub fn time_out(&mut self, out: &mut Output, date: &HttpDate) -> Wants {
        let message =
            "the request did not arrive in time: send it without pauses, on a new connection";
        let refusal = || Refusal::new(408, "request_timeout", message);
        self.cut_off(refusal, out, date)
    }

    /// Refuses a request that had begun and was not answered yet, and ends the connection.
    pub fn cut_off(
        &mut self,
        refusal: impl FnOnce() -> Refusal,
        out: &mut Output,
        date: &HttpDate,
    ) -> Wants {
        let begun = match &self.state {
            ConnectionState::Head => self.awaited() == AwaitedInput::Head,
            ConnectionState::Body(parked) => !parked.incoming.decoder.is_done(),
            ConnectionState::Discard { .. } | ConnectionState::Closing => false,
        };
        if begun && !out.is_generating() {
            Reply::new(out, date, &mut Exchange::broken()).error(&refusal());
        }
        (self.pending, self.start, self.state) = (Vec::new(), 0, ConnectionState::Closing);
        Wants::Close
    }

    /// What it waits for.
    pub fn awaited(&self) -> AwaitedInput {
        let rest = &self.pending[self.start..];
        match &self.state {
            ConnectionState::Closing => AwaitedInput::Closing,
            ConnectionState::Head if is_blank(rest) => AwaitedInput::Idle,
            // All of it was searched for the end of a head; else its turn has not come yet.
            ConnectionState::Head if self.scanned == rest.len() => AwaitedInput::Head,
            ConnectionState::Body(parked)
                if rest.is_empty() && !parked.incoming.decoder.is_done() =>
            {
                AwaitedInput::Body {
                    received_bytes: parked.incoming.received_bytes,
                }
            }
            ConnectionState::Discard { received_bytes, .. } if rest.is_empty() => {
                AwaitedInput::Discarded {
                    received_bytes: *received_bytes,
                }
            }
            ConnectionState::Head | ConnectionState::Body(_) | ConnectionState::Discard { .. } => {
                AwaitedInput::Reply
            }
        }
    }

    /// What collects the body that is on its way, if one is.
    pub fn body(&self) -> Option<&B> {
        match &self.state {
            ConnectionState::Body(parked) if !parked.incoming.decoder.is_done() => {
                Some(&parked.incoming.sink)
            }
            _ => None,
        }
    }

    /// Heap it owns.
    pub fn heap_bytes(&self) -> usize {
        let parked_bytes = match &self.state {
            ConnectionState::Body(parked) => {
                size_of::<ParkedRequest<B>>()
                    + parked.raw_head.capacity()
                    + parked.incoming.sink.heap_bytes()
            }
            _ => 0,
        };
        self.pending.capacity() + parked_bytes
    }

    /// Takes back the pending input after `used` more bytes of it were dealt with. What is kept
    /// moves at most once for as many bytes dropped, so that many small requests cost linear work;
    /// and what is dropped does not stay allocated.
    fn keep(&mut self, pending: Vec<u8>, used: usize) {
        self.start += used;
        if self.start > pending.len() / 2 {
            self.pending = pending[self.start..].to_vec();
            self.start = 0;
        } else {
            self.pending = pending;
        }
    }

    fn run<H: Handler<Body = B>>(
        &mut self,
        input: &[u8],
        context: &mut Context<'_, H>,
    ) -> (usize, Wants) {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            match self.pause(rest, context) {
                // What follows the last request belongs to no request.
                Some(Wants::Close) => return (input.len(), Wants::Close),
                Some(wants) => return (used, wants),
                None => {}
            }
            let unsent = context.out.pending_bytes();
            let pass = self.pass(rest, context);
            context.charge(context.out.pending_bytes().saturating_sub(unsent));
            match pass {
                Pass::Done(passed) => used += passed,
                Pass::Starved(passed) => {
                    used += passed;
                    return match self.starved(&input[used..]) {
                        Wants::Close => (input.len(), Wants::Close),
                        wants => (used, wants),
                    };
                }
            }
        }
    }

    /// What prevents the next pass, apart from missing input.
    fn pause<H: Handler>(&self, rest: &[u8], context: &Context<'_, H>) -> Option<Wants> {
        let has_work = || {
            !rest.is_empty()
                || matches!(
                    &self.state,
                    ConnectionState::Body(parked) if parked.incoming.decoder.is_done()
                )
        };
        if context.out.is_generating() {
            Some(Wants::Output)
        } else if matches!(self.state, ConnectionState::Closing) {
            Some(Wants::Close)
        } else if context.out.unsent_bytes() > context.limits.output_high_bytes {
            Some(Wants::Output)
        } else if *context.budget == 0 && has_work() {
            Some(Wants::Turn)
        } else {
            None
        }
    }

    /// Decides whether to wait for more input.
    fn starved(&mut self, rest: &[u8]) -> Wants {
        let is_answered = match self.state {
            ConnectionState::Head => is_blank(rest),
            ConnectionState::Discard { .. } => true,
            ConnectionState::Body(_) | ConnectionState::Closing => false,
        };
        match self.course {
            Course::Open | Course::OneMore => Wants::Input,
            Course::Draining if !is_answered => Wants::Input,
            Course::Draining | Course::PeerClosed => {
                self.state = ConnectionState::Closing;
                Wants::Close
            }
        }
    }

    fn pass<H: Handler<Body = B>>(&mut self, rest: &[u8], context: &mut Context<'_, H>) -> Pass {
        match mem::replace(&mut self.state, ConnectionState::Head) {
            ConnectionState::Head => self.head(rest, context),
            ConnectionState::Body(parked) => self.resume(parked, rest, context),
            ConnectionState::Discard {
                decoder,
                received_bytes,
            } => self.discard(decoder, received_bytes, rest, context),
            ConnectionState::Closing => {
                self.state = ConnectionState::Closing;
                Pass::Starved(0)
            }
        }
    }

    fn head<H: Handler<Body = B>>(&mut self, rest: &[u8], context: &mut Context<'_, H>) -> Pass {
        let (mut joined, mut head) = (Vec::new(), Head::default());
        let found = context
            .heads
            .read(rest, &mut self.scanned, &mut joined, &mut head);
        match found {
            Ok(None) => Pass::Starved(0),
            Ok(Some(head_bytes)) => {
                self.scanned = 0;
                context.charge(head_bytes.saturating_add(REQUEST_WORK_BYTES));
                let (raw_head, body) = rest.split_at(head_bytes);
                let used = self.begin(&head, raw_head, body, context);
                Pass::Done(head_bytes + used)
            }
            Err(refusal) => {
                context.refuse(None, &mut Exchange::broken(), &refusal);
                self.state = ConnectionState::Closing;
                Pass::Done(0)
            }
        }
    }

    /// A head is there; returns how much of `body` was used.
    fn begin<H: Handler<Body = B>>(
        &mut self,
        head: &Head<'_>,
        raw_head: &[u8],
        body: &[u8],
        context: &mut Context<'_, H>,
    ) -> usize {
        let mut exchange = self.exchange(head);
        // An answer before the body closes the connection in two cases: a peer that waits for `100
        // Continue` may send the body or not, so that the start of the next request is unknown; and
        // a body above the limit is not worth reading.
        let kept_body_bytes = context.limits.kept_body_bytes;
        let is_long = matches!(head.framing, Framing::Length(bytes) if bytes > kept_body_bytes);
        exchange.keep_alive &= !(is_long || (head.expect_continue && head.has_body()));
        let whole_body = whole_body(head, body);
        let Some(sink) = context.begin(head, whole_body, &mut exchange) else {
            if let Some(body) = whole_body {
                // The body is used up, whether or not the answer depended on it.
                context.charge(body.len());
                self.state = if exchange.keep_alive {
                    ConnectionState::Head
                } else {
                    ConnectionState::Closing
                };
                return body.len();
            }
            self.answered(exchange, BodyDecoder::new(head.framing));
            return 0;
        };
        let mut incoming = IncomingBody::new(head.framing, sink);
        let (used, progress) = incoming.begin(body, context.budget);
        match progress {
            BodyProgress::Starved | BodyProgress::OutOfBudget => {
                if head.expect_continue && body.is_empty() && head.has_body() {
                    context
                        .out
                        .bytes()
                        .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                self.state = ConnectionState::Body(Box::new(ParkedRequest {
                    raw_head: raw_head.to_vec(),
                    incoming,
                }));
            }
            progress => self.conclude(head, incoming, progress, context),
        }
        used
    }

    /// Feeds more of a body to its sink, or lets the sink do another step.
    fn resume<H: Handler<Body = B>>(
        &mut self,
        mut parked: Box<ParkedRequest<B>>,
        rest: &[u8],
        context: &mut Context<'_, H>,
    ) -> Pass {
        let (used, progress) = parked.incoming.advance(rest, context.budget);
        match progress {
            BodyProgress::Starved => {
                self.state = ConnectionState::Body(parked);
                return Pass::Starved(used);
            }
            BodyProgress::OutOfBudget => self.state = ConnectionState::Body(parked),
            progress => {
                let ParkedRequest { raw_head, incoming } = *parked;
                let (mut joined, mut head) = (Vec::new(), Head::default());
                let found = context
                    .heads
                    .read(&raw_head, &mut 0, &mut joined, &mut head);
                if let Ok(Some(_)) = found {
                    self.conclude(&head, incoming, progress, context);
                } else {
                    // Only if the limits were lowered meanwhile.
                    let refusal = Refusal::new(
                        503,
                        "limits_changed",
                        "the limits changed meanwhile: send it again",
                    );
                    context.refuse(None, &mut Exchange::broken(), &refusal);
                    self.state = ConnectionState::Closing;
                }
            }
        }
        Pass::Done(used)
    }

    /// The body is complete, or broken.
    fn conclude<H: Handler<Body = B>>(
        &mut self,
        head: &Head<'_>,
        incoming: IncomingBody<B>,
        progress: BodyProgress,
        context: &mut Context<'_, H>,
    ) {
        let IncomingBody {
            decoder,
            sink,
            received_bytes,
        } = incoming;
        let mut exchange = self.exchange(head);
        match progress {
            BodyProgress::Whole => context.finish(head, sink, &mut exchange),
            BodyProgress::Broken(refusal) => {
                exchange.keep_alive = false;
                context.refuse(Some(head), &mut exchange, &refusal);
            }
            BodyProgress::Refused(refusal) => {
                // Counted to the end of the body or of this chunk, so that the decision does not
                // depend on how the input was cut.
                exchange.keep_alive &= received_bytes.saturating_add(decoder.due_bytes())
                    <= context.limits.kept_body_bytes;
                // A peer that waits for `100 Continue` may not send it.
                exchange.keep_alive &= !(head.expect_continue && received_bytes == 0);
                context.refuse(Some(head), &mut exchange, &refusal);
            }
            BodyProgress::RefusedWhole(refusal) => {
                context.refuse(Some(head), &mut exchange, &refusal);
            }
            BodyProgress::Starved | BodyProgress::OutOfBudget => {
                debug_assert!(false, "there is nothing to conclude");
                exchange.keep_alive = false;
            }
        }
        self.answered(exchange, decoder);
    }

    /// Sets the state after an answer: the rest of the body is read before the next request.
    fn answered(&mut self, exchange: Exchange, decoder: BodyDecoder) {
        self.state = if !exchange.keep_alive {
            ConnectionState::Closing
        } else if decoder.is_done() {
            ConnectionState::Head
        } else {
            ConnectionState::Discard {
                decoder,
                received_bytes: 0,
            }
        };
    }

    fn exchange(&self, head: &Head<'_>) -> Exchange {
        let mut exchange = Exchange::new(head);
        exchange.keep_alive &= !matches!(self.course, Course::OneMore | Course::Draining);
        exchange
    }

    /// Skips the rest of a body, however long it is: many clients send all of it before they read
    /// the answer, and would lose the answer if the connection were closed meanwhile (RFC 9112,
    /// section 9.6). It takes no memory, and the caller limits the time. Errors here have no
    /// answer: the request is answered already.
    fn discard<H: Handler>(
        &mut self,
        mut decoder: BodyDecoder,
        mut received_bytes: u64,
        rest: &[u8],
        context: &mut Context<'_, H>,
    ) -> Pass {
        let mut used = 0;
        while !decoder.is_done() && used < rest.len() && *context.budget > 0 {
            let room = (rest.len() - used).min(*context.budget);
            let Ok(piece) = decoder.decode(&rest[used..used + room]) else {
                self.state = ConnectionState::Closing;
                return Pass::Done(used);
            };
            context.charge(piece.consumed);
            used += piece.consumed;
            received_bytes = received_bytes.saturating_add(piece.consumed as u64);
        }
        if decoder.is_done() {
            self.state = ConnectionState::Head;
            return Pass::Done(used);
        }
        self.state = ConnectionState::Discard {
            decoder,
            received_bytes,
        };
        if used == rest.len() {
            Pass::Starved(used)
        } else {
            Pass::Done(used)
        }
    }
}

impl<B: BodySink> Default for Connection<B> {
    fn default() -> Self {
        Self::new()
    }
}

/// The body, if all of it has come with the head.
fn whole_body<'b>(head: &Head<'_>, behind: &'b [u8]) -> Option<&'b [u8]> {
    match head.framing {
        Framing::Length(length) if !head.expect_continue => {
            behind.get(..usize::try_from(length).ok()?)
        }
        _ => None,
    }
}

/// Nothing, or empty lines that may precede a request.
fn is_blank(rest: &[u8]) -> bool {
    rest.len() <= BLANK_BYTES && rest.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}
