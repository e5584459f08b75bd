//! One HTTP connection in the loop: socket, state machine, unsent output.
//!
//! Invariants:
//! 1. mio is edge-triggered: a session counts as readable or writable until a call says otherwise
//!    (would block, or a short read or write). A short read does not count once the peer has
//!    closed: then the end of file is still to be read.
//! 2. Input is read only when nothing is left to send, so a peer that sends requests and does not
//!    read answers is stopped by its own socket, and holds no more memory than one read and one
//!    bounded output.
//! 3. A visit does bounded work: the budget of the turn, one write of [`WRITE_MAX_BYTES`] at a
//!    time.
//! 4. Output that is held back for the disk is not sent; meanwhile nothing is read (2).
//! 5. The last answer reaches the peer: first the sending side is shut down, then input is read and
//!    dropped for as long as `deadlines.rs` allows, then the socket is closed. Closing it with
//!    unread input would reset the connection.
//!
//! Not here: the order of visits (`visit_batch.rs`), deadlines (`deadlines.rs`).

use std::io::{self, IoSlice, Read, Write};

use mio::net::TcpStream;

use crate::api::{CommitGate, RequestBody, Scope};
use crate::http::{AwaitedInput, Connection, Context, Handler, HttpDate, Output, Refusal, Wants};
use crate::metrics::GateKind;
use crate::partition::Wait;

use super::clock::Clock;
use super::deadlines::TimeoutState;
use super::pending_metrics::PendingMetrics;
use super::timers::Millis;

/// Most bytes handed to the kernel at once: copying them takes a hundred microseconds. (With half
/// of it, a byte costs a quarter more.)
const WRITE_MAX_BYTES: usize = 512 * 1024;

/// Slices in one write: head, value, head, value, …
const WRITE_SLICES: usize = 16;

/// Bytes to send that cost as much as one byte of input that is parsed.
const SENT_PER_WORK_BYTE: usize = 8;

/// The input of a visit.
pub(super) struct Visit<'v, 't, H> {
    /// Where to read to; of the loop's one read buffer.
    pub(super) input: &'v mut [u8],
    /// The result of [`Session::read_ahead`], if it was called: its input is executed already.
    pub(super) read: Option<io::Result<Option<usize>>>,
    /// What requests are executed with. Its output may hold answers, which are sent first.
    pub(super) context: &'v mut Context<'t, H>,
    pub(super) clock: &'v Clock,
}

/// What a session needs after a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// An event from its socket.
    Event,
    /// Another visit.
    Visit,
    /// To be closed.
    Close,
}

/// The stage of a session's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SessionStage {
    /// Requests are answered.
    Open,
    /// The last answer is being sent.
    Flushing,
    /// The last answer is sent; further input is dropped.
    Lingering { dropped_bytes: u64 },
}

/// The limit that a session counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// The limit on connections.
    Served,
    /// The limit on connections above that one, which get a single answer.
    TurnedAway,
}

/// How a visit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastVisit {
    Whole,
    /// Before all of its input was executed.
    Cut,
}

/// The peer's sending side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SendingSide {
    Sending,
    /// The poll saw it close: the end of file is still to be read.
    Closed,
    /// The end of file was read.
    Ended,
}

/// How a write ended.
enum FlushResult {
    All,
    WouldBlock,
    OutOfBudget,
    /// The rest is held back, or is yet to be fed.
    Held,
}

/// The socket of a connection, and what is known of it.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) stream: TcpStream,
    is_readable: bool,
    is_writable: bool,
    peer: SendingSide,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) socket: Socket,
    pub(super) http: Connection<RequestBody>,
    pub(super) output: Output,
    /// Bytes handed to the kernel so far: how deadlines see that the peer reads.
    pub(super) sent_bytes: u64,
    wants: Wants,
    stage: SessionStage,
    /// It is in the ready queue.
    pub(super) is_queued: bool,
    /// When it entered the queue last, in microseconds since the node started.
    pub(super) queued_at_us: u64,
    /// When the requests arrived that are being executed, in microseconds since the node started.
    pub(super) came_at_us: u64,
    pub(super) admission: Admission,
    /// The time of its entry in the idle queue.
    pub(super) idle_entry_at: Millis,
    pub(super) last_visit: LastVisit,
    pub(super) timeouts: TimeoutState,
    pub(super) deferred: Option<DeferredReply>,
    /// Metrics of replies that are held back, or are released and not sent yet.
    pub(super) held: Option<PendingMetrics>,
    pub(super) accounting: Accounting,
}

/// What is counted of a session in the statistics of the node.
#[derive(Debug, Default)]
pub(super) struct Accounting {
    /// Bytes read that are not counted yet.
    pub(super) uncounted_bytes: u64,
    /// The part of `heap_bytes()` already added to `NodeStats::connection_bytes`.
    pub(super) counted_heap_bytes: usize,
}

/// Replies that are held back.
#[derive(Clone, Copy, Debug)]
pub(super) struct DeferredReply {
    ticket: u64,
    /// Gates that are not open yet.
    gate_count: usize,
    awaits_acks: bool,
    /// All of them are replies to reads.
    pub(super) is_read: bool,
    /// It is a single reply, and the last one.
    pub(super) is_alone: bool,
    /// In microseconds since the node started.
    since_us: u64,
}

impl Session {
    /// A session that answers requests.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            socket: Socket {
                stream,
                is_readable: false,
                is_writable: true,
                peer: SendingSide::Sending,
            },
            http: Connection::new(),
            output: Output::new(),
            sent_bytes: 0,
            wants: Wants::Input,
            stage: SessionStage::Open,
            is_queued: false,
            queued_at_us: 0,
            came_at_us: 0,
            admission: Admission::Served,
            idle_entry_at: 0,
            last_visit: LastVisit::Whole,
            timeouts: TimeoutState::default(),
            deferred: None,
            held: None,
            accounting: Accounting::default(),
        }
    }

    /// A session above the limit: one request is answered.
    pub(super) fn turned_away(stream: TcpStream) -> Self {
        let mut session = Self::new(stream);
        session.http.end_after_next();
        session.admission = Admission::TurnedAway;
        session
    }

    /// The requests that are answered on it.
    pub(super) fn scope(&self) -> Scope {
        match self.admission {
            Admission::Served => Scope::All,
            Admission::TurnedAway => Scope::AboutNode,
        }
    }

    /// Whether it is idle, as far as is known without reading its socket.
    pub(super) fn is_resting(&self) -> bool {
        self.stage == SessionStage::Open
            && !self.is_queued
            && !self.socket.is_readable
            && self.socket.peer == SendingSide::Sending
            && self.output.is_empty()
            && matches!(self.http.awaited(), AwaitedInput::Idle | AwaitedInput::Head)
    }

    /// Whether its last answer is sent, and the peer is to close.
    pub(super) fn is_lingering(&self) -> bool {
        matches!(self.stage, SessionStage::Lingering { .. })
    }

    /// Whether its socket has no input now.
    pub(super) fn is_silent(&mut self) -> bool {
        let outcome = self.socket.stream.peek(&mut [0]);
        self.socket.is_readable =
            !matches!(outcome, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        !self.socket.is_readable
    }

    /// Sends an answer without a request, and ends. To be visited afterwards.
    pub(super) fn answer_unasked(&mut self, answer: &[u8]) {
        self.output.bytes().extend_from_slice(answer);
        self.stage = SessionStage::Flushing;
    }

    /// Takes in an event of the poll.
    pub(super) fn on_event(&mut self, event: &mio::event::Event) {
        self.socket.is_readable |=
            event.is_readable() || event.is_read_closed() || event.is_error();
        self.socket.is_writable |=
            event.is_writable() || event.is_write_closed() || event.is_error();
        if self.socket.peer == SendingSide::Sending && (event.is_read_closed() || event.is_error())
        {
            self.socket.peer = SendingSide::Closed;
        }
    }

    /// Ends it after the request in flight, or at once if there is none.
    pub(super) fn drain(&mut self) -> Next {
        if self.stage == SessionStage::Open && self.wants == Wants::Input {
            if self.http.awaited() == AwaitedInput::Idle
                && !self.socket.is_readable
                && self.output.is_empty()
            {
                return Next::Close;
            }
            self.wants = Wants::Turn;
        }
        self.http.drain_after_current();
        Next::Visit
    }

    /// The peer was too slow. To be closed, or visited once more.
    pub(super) fn time_out(&mut self, date: &HttpDate) -> Next {
        if self.stage != SessionStage::Open || !self.output.is_empty() {
            return Next::Close;
        }
        self.wants = self.http.time_out(&mut self.output, date);
        if self.output.is_empty() {
            Next::Close
        } else {
            Next::Visit
        }
    }

    /// Memory claimed by the body that is arriving.
    pub(super) fn upload_claimed_bytes(&self) -> usize {
        self.http.body().map_or(0, RequestBody::claimed_bytes)
    }

    /// Whether the request with the arriving body can be refused now, since no other output is
    /// before it.
    pub(super) fn can_be_refused(&self) -> bool {
        self.stage == SessionStage::Open && self.output.is_empty() && self.http.body().is_some()
    }

    /// Refuses the request with the arriving body. To be visited afterwards.
    pub(super) fn end_upload(&mut self, refusal: Refusal, date: &HttpDate) {
        self.wants = self.http.cut_off(|| refusal, &mut self.output, date);
    }

    /// The replies that this visit has held back wait at gates.
    pub(super) fn hold(
        &mut self,
        ticket: u64,
        gates: &[CommitGate],
        is_alone: bool,
        since_us: u64,
    ) {
        let is_read = |gate: &CommitGate| matches!(gate.wait, Wait::Read { .. });
        let awaits_acks = gates
            .iter()
            .any(|gate| matches!(gate.wait, Wait::Acks { .. }) || is_read(gate));
        let is_read = gates.iter().all(is_read);
        self.deferred = Some(DeferredReply {
            ticket,
            gate_count: gates.len(),
            awaits_acks,
            is_read,
            is_alone,
            since_us,
        });
    }

    /// Since when replies are held back, in microseconds since the node started; none: none are.
    pub(super) fn holds_since_us(&self) -> Option<u64> {
        self.deferred.map(|deferred| deferred.since_us)
    }

    /// What is held back has waited so long for this.
    pub(super) fn record_wait(&mut self, kind: GateKind, us: u64) {
        if let Some(held) = &mut self.held {
            held.phases.record_wait(kind, us);
        }
    }

    /// Metrics of replies that were released, and are sent with the next visit.
    pub(super) fn take_released(&mut self) -> Option<PendingMetrics> {
        if self.deferred.is_none() {
            self.held.take()
        } else {
            None
        }
    }

    /// Heap it owns.
    pub(super) fn heap_bytes(&self) -> usize {
        self.output.heap_bytes() + self.http.heap_bytes()
    }

    /// Whether the replies with this ticket are still held back.
    pub(super) fn waits_with(&self, ticket: u64) -> bool {
        self.deferred
            .is_some_and(|deferred| deferred.ticket == ticket)
    }

    /// A gate has opened; true if it was the last one, and the replies are released.
    pub(super) fn leave_gate(&mut self, ticket: u64) -> bool {
        let Some(deferred) = self
            .deferred
            .as_mut()
            .filter(|deferred| deferred.ticket == ticket)
        else {
            return false;
        };
        deferred.gate_count -= 1;
        if deferred.gate_count > 0 {
            return false;
        }
        self.deferred = None;
        self.output.release();
        true
    }

    /// Whether the replies that are held back wait for replicas.
    pub(super) fn awaits_acks(&self) -> bool {
        self.deferred.is_some_and(|deferred| deferred.awaits_acks)
    }

    /// Replaces the replies that are held back by `answer`, which may be the last.
    pub(super) fn fail_deferred(&mut self, answer: &[u8], is_last: bool) {
        self.deferred = None;
        self.output.drop_held();
        self.output.bytes().extend_from_slice(answer);
        if is_last && self.stage == SessionStage::Open {
            self.stage = SessionStage::Flushing;
        }
    }

    /// Whether a body is being sent that is rendered as the peer reads it.
    pub(super) fn is_streaming(&self) -> bool {
        self.output.is_generating() && !self.output.is_fed()
    }

    /// The memory that unsent answers may keep; unlimited for a body that is rendered as the peer
    /// reads it, since that may pin a snapshot.
    pub(super) fn kept_bytes(&self) -> usize {
        if self.is_streaming() {
            usize::MAX
        } else {
            self.output.unsent_bytes()
        }
    }

    /// Bytes that wait for the peer to read.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.output.pending_bytes()
    }

    /// Whether output waits for the peer to read.
    pub(super) fn has_unsent(&self) -> bool {
        if self.output.is_fed() {
            self.output.pending_bytes() > 0
        } else {
            !self.output.is_empty()
        }
    }

    /// Whether input is left that was not executed yet.
    pub(super) fn is_cut(&self) -> bool {
        self.stage == SessionStage::Open && self.wants == Wants::Turn
    }

    /// Bytes read and dropped since the last answer; none if it goes on.
    pub(super) fn ending_bytes(&self) -> Option<u64> {
        match self.stage {
            SessionStage::Open => None,
            SessionStage::Flushing => Some(0),
            SessionStage::Lingering { dropped_bytes } => Some(dropped_bytes),
        }
    }

    /// Sends, reads and executes as far as budget and socket allow. An error: the connection is
    /// gone.
    pub(super) fn visit<H: Handler<Body = RequestBody>>(
        &mut self,
        visit: &mut Visit<'_, '_, H>,
    ) -> io::Result<Next> {
        if let Some(read) = visit.read.take() {
            read?;
            self.send(visit)?;
        }
        loop {
            if !self.output.is_empty() {
                match flush(
                    &mut self.socket,
                    &mut self.output,
                    &mut self.sent_bytes,
                    visit.context.budget,
                )? {
                    FlushResult::All => {}
                    // The client of a watch has left, or has closed its sending side.
                    FlushResult::Held
                        if self.output.is_fed() && self.socket.peer != SendingSide::Sending =>
                    {
                        return Ok(Next::Close);
                    }
                    FlushResult::WouldBlock | FlushResult::Held => return Ok(Next::Event),
                    FlushResult::OutOfBudget => return Ok(Next::Visit),
                }
            }
            match self.stage {
                SessionStage::Open if self.wants == Wants::Close => {
                    self.stage = SessionStage::Flushing;
                }
                SessionStage::Open => {}
                SessionStage::Flushing if self.socket.peer == SendingSide::Ended => {
                    return Ok(Next::Close);
                }
                SessionStage::Flushing => {
                    self.socket.stream.shutdown(std::net::Shutdown::Write)?;
                    self.stage = SessionStage::Lingering { dropped_bytes: 0 };
                }
                SessionStage::Lingering { .. } => return self.linger(visit),
            }
            if self.stage != SessionStage::Open {
                continue;
            }
            if *visit.context.budget == 0 {
                return Ok(Next::Visit);
            }
            let input_len = match self.wants {
                Wants::Input if !self.socket.is_readable => return Ok(Next::Event),
                Wants::Input => match self.read(visit.input)? {
                    Some(len) => len,
                    None => continue,
                },
                _ => 0,
            };
            self.advance(input_len, visit)?;
        }
    }

    /// Executes the input that was read.
    pub(super) fn execute<H: Handler<Body = RequestBody>>(
        &mut self,
        input: &[u8],
        context: &mut Context<'_, H>,
    ) {
        self.wants = self.http.advance(input, context);
    }

    /// The same, and sends the answers.
    fn advance<H: Handler<Body = RequestBody>>(
        &mut self,
        input_len: usize,
        visit: &mut Visit<'_, '_, H>,
    ) -> io::Result<()> {
        self.execute(&visit.input[..input_len], visit.context);
        self.send(visit)
    }

    /// Sends the rendered answers, and keeps the rest. Drops them if what they show may be out of
    /// date: then the connection is to be closed.
    ///
    /// A leader in a cluster answers reads only within its lease (`partition/membership.rs`). The
    /// clock is read after the requests were carried out, so that it does not matter how long the
    /// process stood still before: what was read was true at a time after they had come. That
    /// holds also for answers that wait for replicas, and for those that are rendered in slices
    /// later on, of what was taken hold of now; so there is no second look.
    fn send<H: Handler<Body = RequestBody>>(
        &mut self,
        visit: &mut Visit<'_, '_, H>,
    ) -> io::Result<()> {
        let until_ms = visit.context.handler.sendable_until_ms();
        let output = &mut *visit.context.out;
        if output.is_empty() {
            return Ok(());
        }
        if until_ms < u64::MAX && visit.clock.read_us() / 1_000 >= until_ms {
            output.discard();
            return Err(io::ErrorKind::TimedOut.into());
        }
        let outcome = flush(
            &mut self.socket,
            output,
            &mut self.sent_bytes,
            visit.context.budget,
        );
        // The batch's buffer must not keep bytes of this session.
        self.output.append(output);
        outcome.map(|_| ())
    }

    /// Reads once, if a visit would begin with that; 0 bytes if earlier input is still to be
    /// executed. None if a visit begins with something else. The result is to be passed to the
    /// visit.
    pub(super) fn read_ahead(&mut self, buffer: &mut [u8]) -> Option<io::Result<Option<usize>>> {
        match self.wants {
            _ if self.stage != SessionStage::Open || !self.output.is_empty() => None,
            Wants::Input if self.socket.is_readable => Some(self.read(buffer)),
            Wants::Turn => Some(Ok(Some(0))),
            _ => None,
        }
    }

    /// Reads once; none if there is no input now.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.socket.stream.read(buffer) {
            Ok(0) => {
                self.socket.peer = SendingSide::Ended;
                self.socket.is_readable = false;
                self.http.peer_closed();
                Ok(Some(0))
            }
            Ok(len) => {
                self.socket.is_readable =
                    len == buffer.len() || self.socket.peer == SendingSide::Closed;
                self.accounting.uncounted_bytes += len as u64;
                self.came_at_us = self.queued_at_us;
                Ok(Some(len))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.socket.is_readable = false;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads and drops input after the last answer.
    fn linger<H>(&mut self, visit: &mut Visit<'_, '_, H>) -> io::Result<Next> {
        while self.socket.is_readable {
            if *visit.context.budget == 0 {
                return Ok(Next::Visit);
            }
            let Some(len) = self.read(visit.input)? else {
                continue;
            };
            *visit.context.budget = visit.context.budget.saturating_sub(len);
            let SessionStage::Lingering { dropped_bytes } = &mut self.stage else {
                break;
            };
            *dropped_bytes += len as u64;
            if self.socket.peer == SendingSide::Ended {
                return Ok(Next::Close);
            }
        }
        Ok(Next::Event)
    }
}

/// Sends as much as the socket and the budget take.
fn flush(
    socket: &mut Socket,
    output: &mut Output,
    sent_bytes: &mut u64,
    budget: &mut usize,
) -> io::Result<FlushResult> {
    loop {
        if output.is_generating() {
            *budget = budget.saturating_sub(output.generate(*budget));
        }
        if output.is_empty() {
            return Ok(FlushResult::All);
        }
        if !socket.is_writable {
            return Ok(FlushResult::WouldBlock);
        }
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
        let (count, offered_bytes) = output.slices(&mut slices, WRITE_MAX_BYTES);
        if count == 0 && (output.is_holding() || output.is_fed()) {
            return Ok(FlushResult::Held);
        }
        if count == 0 {
            // A source that needs another turn to render something.
            return Ok(FlushResult::OutOfBudget);
        }
        // A single buffer costs the kernel less than a list of one.
        let outcome = if count == 1 {
            socket.stream.write(&slices[0])
        } else {
            socket.stream.write_vectored(&slices[..count])
        };
        match outcome {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => {
                socket.is_writable = sent == offered_bytes;
                output.consume(sent);
                *sent_bytes += sent as u64;
                *budget = budget.saturating_sub(sent / SENT_PER_WORK_BYTE);
                if *budget == 0 && !output.is_empty() {
                    return Ok(FlushResult::OutOfBudget);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.is_writable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::disallowed_methods,
        reason = "the client of the test has a socket, too"
    )]

    use std::cell::Cell;

    use super::*;
    use crate::http::{Begin, Head, HeadLimits, HeadReader, Limits, MAX_HEADER_COUNT, Reply};

    /// Answers everything, until a time.
    struct Until(Cell<u64>);

    impl Handler for Until {
        type Body = RequestBody;

        fn begin(
            &mut self,
            _: &Head<'_>,
            _: Option<&[u8]>,
            reply: Reply<'_>,
        ) -> Begin<RequestBody> {
            reply.status(200).body(b"what was read");
            Begin::Answered
        }

        fn finish(&mut self, _: &Head<'_>, _: RequestBody, _: Reply<'_>) {}

        fn sendable_until_ms(&self) -> u64 {
            self.0.get()
        }
    }

    /// What a client gets for two requests that are executed within a lease, which ends before the
    /// answers are sent or not. `is_ahead`: they were executed with those of other sessions.
    fn answered(until_ms: u64, is_ahead: bool) -> (io::Result<Next>, String) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("an address");
        let mut client = std::net::TcpStream::connect(address).expect("connect");
        let request = b"GET /kv/a HTTP/1.1\r\nHost: n\r\n\r\n";
        client.write_all(&request.repeat(2)).expect("write");
        let (stream, _) = listener.accept().expect("accept");
        // Until what was sent is there.
        stream.peek(&mut [0]).expect("peek");
        stream.set_nonblocking(true).expect("set");
        let mut session = Session::new(TcpStream::from_std(stream));
        session.socket.is_readable = true;
        let (mut handler, mut out) = (Until(Cell::new(u64::MAX)), Output::keeping(1024));
        let head_limits = HeadLimits {
            head_bytes: 1024,
            header_count: MAX_HEADER_COUNT,
        };
        let (mut heads, mut input) = (HeadReader::new(head_limits), [0; 1024]);
        let mut context = Context {
            handler: &mut handler,
            heads: &mut heads,
            out: &mut out,
            date: &HttpDate::from_unix_seconds(0),
            limits: &Limits {
                output_high_bytes: 1024,
                kept_body_bytes: 1024,
            },
            budget: &mut 100_000,
        };
        let mut read = None;
        if is_ahead {
            let len = session.read_ahead(&mut input).expect("it reads");
            session.execute(&input[..len.expect("input").unwrap_or(0)], &mut context);
            read = Some(Ok(Some(0)));
        }
        context.handler.0.set(until_ms);
        let next = session.visit(&mut Visit {
            input: &mut input,
            read,
            context: &mut context,
            clock: &Clock::start(),
        });
        assert!(out.is_empty(), "the next session renders there");
        drop(session);
        let mut text = String::new();
        // Closed with unread input, the connection is reset.
        let _ = client.read_to_string(&mut text);
        (next, text)
    }

    #[test]
    fn answers_are_dropped_whose_lease_has_ended_before_they_are_sent() {
        for is_ahead in [false, true] {
            for until_ms in [u64::MAX, 60_000] {
                let (next, text) = answered(until_ms, is_ahead);
                assert_eq!(next.expect("it goes on"), Next::Event);
                assert_eq!(text.matches("what was read").count(), 2, "{text}");
            }
            let (next, text) = answered(0, is_ahead);
            assert!(next.is_err(), "it is closed");
            assert_eq!(text, "");
        }
    }
}
