//! One connection in the loop: its socket, its HTTP state machine, what it has yet to send.
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
//! 4. Of the output nothing goes that is held back for the disk; meanwhile nothing is read either
//!    (2).
//! 5. The last answer reaches the peer: the sending side is shut down, what the peer still sends is
//!    read and dropped, for as long as `deadlines.rs` allows, and only then is the socket closed.
//!    Closing with unread input would reset the connection.
//!
//! Not here: which session is visited when (`mod.rs`), deadlines (`deadlines.rs`).

use std::io::{self, IoSlice, Read, Write};

use mio::net::TcpStream;

use crate::api::{CommitGate, RequestBody, Scope};
use crate::http::{Awaited, Connection, Context, Handler, HttpDate, Output, Refusal, Wants};
use crate::partition::Wait;

use super::deadlines::TimeoutState;
use super::pending_metrics::PendingMetrics;
use super::timers::Millis;

/// Most bytes handed to the kernel at once: copying them takes a hundred microseconds. (In halves,
/// a byte costs a quarter more.)
const WRITE_MAX_BYTES: usize = 512 * 1024;

/// Slices in one write: head, value, head, value, …
const WRITE_SLICES: usize = 16;

/// Bytes to send that cost as much as one byte of input that is parsed.
const SENT_PER_WORK_BYTE: usize = 8;

/// What a visit works with.
pub(super) struct Visit<'v, 't, H> {
    /// Where to read to; of the loop's one read buffer.
    pub(super) input: &'v mut [u8],
    /// The result of [`Session::read_ahead`], if it was called: its input is executed already.
    pub(super) read: Option<io::Result<Option<usize>>>,
    /// What requests are executed with. Its output may hold answers, which are sent first.
    pub(super) context: &'v mut Context<'t, H>,
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

/// How far its life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SessionStage {
    /// Requests are answered.
    Open,
    /// The last answer is on its way.
    Flushing,
    /// It is sent; what the peer still sends is dropped.
    Lingering { dropped_bytes: u64 },
}

/// Which limit a session counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// That of connections.
    Served,
    /// That of connections beyond that limit: they get one answer, about the node, or that there
    /// are too many.
    TurnedAway,
}

/// How a visit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastVisit {
    Whole,
    /// Before it was through with what it had read.
    Cut,
}

/// The peer's sending side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerState {
    Sending,
    /// The poll saw it close: the end of file is still to be read.
    Closed,
    /// The end of file was read.
    Ended,
}

/// How a write ended.
enum Flushed {
    All,
    WouldBlock,
    OutOfBudget,
    /// What is left waits for the disk, or is yet to be fed.
    Held,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) stream: TcpStream,
    pub(super) http: Connection<RequestBody>,
    output: Output,
    /// Bytes handed to the kernel so far: how deadlines see that the peer reads.
    pub(super) sent_bytes: u64,
    /// Bytes read that are not counted yet.
    pub(super) uncounted_bytes: u64,
    wants: Wants,
    stage: SessionStage,
    is_readable: bool,
    is_writable: bool,
    peer: PeerState,
    /// On the ready list.
    pub(super) is_queued: bool,
    /// When it came there last, in microseconds since the node started.
    pub(super) queued_at_us: u64,
    /// The same of the visit that read last: when the requests came that are being answered.
    pub(super) came_at_us: u64,
    pub(super) admission: Admission,
    /// The time of the entry that counts in the queue of idle connections.
    pub(super) idle_entry_at: Millis,
    pub(super) last_visit: LastVisit,
    pub(super) timeouts: TimeoutState,
    deferred: Option<DeferredReply>,
    /// What is held back, or was and has not been sent yet.
    pub(super) held: Option<PendingMetrics>,
    /// As told last.
    pub(super) counted_heap_bytes: usize,
}

/// Replies that are held back.
#[derive(Clone, Copy, Debug)]
struct DeferredReply {
    ticket: u64,
    /// Gates that are not open yet.
    gate_count: usize,
    awaits_acks: bool,
    /// Nothing but replies to reads waits.
    is_read: bool,
    /// It is one reply, and nothing is behind it.
    is_alone: bool,
    /// In microseconds since the node started.
    since_us: u64,
}

impl Session {
    /// A session that answers requests.
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            http: Connection::new(),
            output: Output::new(),
            sent_bytes: 0,
            uncounted_bytes: 0,
            wants: Wants::Input,
            stage: SessionStage::Open,
            is_readable: false,
            is_writable: true,
            peer: PeerState::Sending,
            is_queued: false,
            queued_at_us: 0,
            came_at_us: 0,
            admission: Admission::Served,
            idle_entry_at: 0,
            last_visit: LastVisit::Whole,
            timeouts: TimeoutState::default(),
            deferred: None,
            held: None,
            counted_heap_bytes: 0,
        }
    }

    /// A session beyond the limit: one request is answered.
    pub(super) fn turned_away(stream: TcpStream) -> Self {
        let mut session = Self::new(stream);
        session.http.end_after_next();
        session.admission = Admission::TurnedAway;
        session
    }

    /// What is answered on it.
    pub(super) fn scope(&self) -> Scope {
        match self.admission {
            Admission::Served => Scope::All,
            Admission::TurnedAway => Scope::AboutNode,
        }
    }

    /// Whether nothing is under way, and nothing has come that was not looked at.
    pub(super) fn is_resting(&self) -> bool {
        self.stage == SessionStage::Open
            && !self.is_queued
            && !self.is_readable
            && self.peer == PeerState::Sending
            && self.output.is_empty()
            && matches!(self.http.awaited(), Awaited::Idle | Awaited::Head)
    }

    /// Whether it has had its last answer, and its peer is to close.
    pub(super) fn is_lingering(&self) -> bool {
        matches!(self.stage, SessionStage::Lingering { .. })
    }

    /// Whether the system has nothing to read from it either, as of now.
    pub(super) fn is_silent(&mut self) -> bool {
        let outcome = self.stream.peek(&mut [0]);
        self.is_readable =
            !matches!(outcome, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        !self.is_readable
    }

    /// Answers instead of waiting for a request. It is to be visited.
    pub(super) fn answer_unasked(&mut self, answer: &[u8]) {
        self.output.bytes().extend_from_slice(answer);
        self.stage = SessionStage::Flushing;
    }

    /// Takes in an event of the poll.
    pub(super) fn on_event(&mut self, event: &mio::event::Event) {
        self.is_readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.is_writable |= event.is_writable() || event.is_write_closed() || event.is_error();
        if self.peer == PeerState::Sending && (event.is_read_closed() || event.is_error()) {
            self.peer = PeerState::Closed;
        }
    }

    /// Ends it after the request in flight, or at once if there is none and nothing more has come.
    pub(super) fn drain(&mut self) -> Next {
        if self.stage == SessionStage::Open && self.wants == Wants::Input {
            if self.http.awaited() == Awaited::Idle && !self.is_readable && self.output.is_empty() {
                return Next::Close;
            }
            self.wants = Wants::Turn;
        }
        self.http.drain_after_current();
        Next::Visit
    }

    /// The peer was too slow. Visit it once more, if it is not to be closed.
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

    /// Memory that the body on its way claims.
    pub(super) fn upload_claimed_bytes(&self) -> usize {
        self.http.body().map_or(0, RequestBody::claimed_bytes)
    }

    /// Whether the request whose body is on its way can be answered now: nothing else is to be
    /// said.
    pub(super) fn can_be_refused(&self) -> bool {
        self.stage == SessionStage::Open && self.output.is_empty() && self.http.body().is_some()
    }

    /// Refuses the request whose body is on its way. It is to be visited.
    pub(super) fn end_upload(&mut self, refusal: Refusal, date: &HttpDate) {
        self.wants = self.http.cut_off(|| refusal, &mut self.output, date);
    }

    /// What this visit has held back waits at gates.
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

    /// Since when something is held back, if it is; in microseconds since the node started.
    pub(super) fn holds_since_us(&self) -> Option<u64> {
        self.deferred.map(|deferred| deferred.since_us)
    }

    /// What was held back and goes with the next visit.
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

    /// Whether what is held back has this ticket.
    pub(super) fn waits_with(&self, ticket: u64) -> bool {
        self.deferred
            .is_some_and(|deferred| deferred.ticket == ticket)
    }

    /// A gate is open; true if it was the last one and what was held back goes.
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

    /// Whether what is held back waits for replicas.
    pub(super) fn awaits_acks(&self) -> bool {
        self.deferred.is_some_and(|deferred| deferred.awaits_acks)
    }

    /// Whether replies to reads are held back, and no others.
    pub(super) fn is_deferred_read(&self) -> bool {
        self.deferred.is_some_and(|deferred| deferred.is_read)
    }

    /// Whether what is held back is one reply, with nothing behind it.
    pub(super) fn is_one_deferred(&self) -> bool {
        self.deferred.is_some_and(|deferred| deferred.is_alone)
    }

    /// What was held back will not be said: `answer` goes instead, and may be the last.
    pub(super) fn fail_deferred(&mut self, answer: &[u8], is_last: bool) {
        self.deferred = None;
        self.output.drop_held();
        self.output.bytes().extend_from_slice(answer);
        if is_last && self.stage == SessionStage::Open {
            self.stage = SessionStage::Flushing;
        }
    }

    /// Whether a body is on its way that is rendered as the peer takes it.
    pub(super) fn is_streaming(&self) -> bool {
        self.output.is_generating() && !self.output.is_fed()
    }

    /// What answers that the peer does not take may keep in memory: what is not sent, and all that
    /// a body that is rendered on its way may refer to.
    pub(super) fn kept_bytes(&self) -> usize {
        if self.is_streaming() {
            usize::MAX
        } else {
            self.output.unsent_bytes()
        }
    }

    /// Whether a body is on its way that is fed.
    pub(super) fn is_fed(&self) -> bool {
        self.output.is_fed()
    }

    /// Adds to the body that is fed.
    pub(super) fn feed<R>(&mut self, render: impl FnOnce(&mut Vec<u8>) -> R) -> Option<R> {
        self.output.feed(render)
    }

    /// Ends the body that is fed.
    pub(super) fn end_feed(&mut self) {
        self.output.end_feed();
    }

    /// Bytes that wait for the peer to read.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.output.pending_bytes()
    }

    /// Whether output waits for the peer to read.
    pub(super) fn has_unsent(&self) -> bool {
        if self.is_fed() {
            self.output.pending_bytes() > 0
        } else {
            !self.output.is_empty()
        }
    }

    /// Whether there is more to carry out of what it has read.
    pub(super) fn is_cut(&self) -> bool {
        self.stage == SessionStage::Open && self.wants == Wants::Turn
    }

    /// Bytes that were read and dropped since the last answer; `None`: it is not past it.
    pub(super) fn ending_bytes(&self) -> Option<u64> {
        match self.stage {
            SessionStage::Open => None,
            SessionStage::Flushing => Some(0),
            SessionStage::Lingering { dropped_bytes } => Some(dropped_bytes),
        }
    }

    /// Does what can be done now. An error means that the connection is gone.
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
                    &mut self.stream,
                    &mut self.output,
                    &mut self.is_writable,
                    &mut self.sent_bytes,
                    visit.context.budget,
                )? {
                    Flushed::All => {}
                    // A listener that has left, or says that it will say nothing more.
                    Flushed::Held if self.output.is_fed() && self.peer != PeerState::Sending => {
                        return Ok(Next::Close);
                    }
                    Flushed::WouldBlock | Flushed::Held => return Ok(Next::Event),
                    Flushed::OutOfBudget => return Ok(Next::Visit),
                }
            }
            match self.stage {
                SessionStage::Open if self.wants == Wants::Close => {
                    self.stage = SessionStage::Flushing;
                }
                SessionStage::Open => {}
                SessionStage::Flushing if self.peer == PeerState::Ended => return Ok(Next::Close),
                SessionStage::Flushing => {
                    self.stream.shutdown(std::net::Shutdown::Write)?;
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
                Wants::Input if !self.is_readable => return Ok(Next::Event),
                Wants::Input => match self.read(visit.input)? {
                    Some(len) => len,
                    None => continue,
                },
                _ => 0,
            };
            self.advance(input_len, visit)?;
        }
    }

    /// Runs the state machine on what was read.
    pub(super) fn execute<H: Handler<Body = RequestBody>>(
        &mut self,
        input: &[u8],
        context: &mut Context<'_, H>,
    ) {
        self.wants = self.http.advance(input, context);
    }

    /// The same, and sends what it rendered.
    fn advance<H: Handler<Body = RequestBody>>(
        &mut self,
        input_len: usize,
        visit: &mut Visit<'_, '_, H>,
    ) -> io::Result<()> {
        self.execute(&visit.input[..input_len], visit.context);
        self.send(visit)
    }

    /// Sends what was rendered, and keeps what does not go.
    fn send<H>(&mut self, visit: &mut Visit<'_, '_, H>) -> io::Result<()> {
        let output = &mut *visit.context.out;
        if output.is_empty() {
            return Ok(());
        }
        let outcome = flush(
            &mut self.stream,
            output,
            &mut self.is_writable,
            &mut self.sent_bytes,
            visit.context.budget,
        );
        // Nothing of this session may stay behind in the loop's buffer.
        self.output.append(output);
        outcome.map(|_| ())
    }

    /// Reads once, if that is what the next visit would do first; nothing, if it has yet to carry
    /// out what it read before. None: it has other things to do. It is to be told.
    pub(super) fn read_ahead(&mut self, buffer: &mut [u8]) -> Option<io::Result<Option<usize>>> {
        match self.wants {
            _ if self.stage != SessionStage::Open || !self.output.is_empty() => None,
            Wants::Input if self.is_readable => Some(self.read(buffer)),
            Wants::Turn => Some(Ok(Some(0))),
            _ => None,
        }
    }

    /// Reads once. `None`: look again at what to do, there is no input.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.stream.read(buffer) {
            Ok(0) => {
                self.peer = PeerState::Ended;
                self.is_readable = false;
                self.http.peer_closed();
                Ok(Some(0))
            }
            Ok(len) => {
                self.is_readable = len == buffer.len() || self.peer == PeerState::Closed;
                self.uncounted_bytes += len as u64;
                self.came_at_us = self.queued_at_us;
                Ok(Some(len))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.is_readable = false;
                Ok(None)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads and drops what the peer sends after its last answer.
    fn linger<H>(&mut self, visit: &mut Visit<'_, '_, H>) -> io::Result<Next> {
        while self.is_readable {
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
            if self.peer == PeerState::Ended {
                return Ok(Next::Close);
            }
        }
        Ok(Next::Event)
    }
}

/// Sends as much as the socket and the budget take.
fn flush(
    stream: &mut TcpStream,
    output: &mut Output,
    is_writable: &mut bool,
    sent_bytes: &mut u64,
    budget: &mut usize,
) -> io::Result<Flushed> {
    loop {
        if output.is_generating() {
            *budget = budget.saturating_sub(output.generate(*budget));
        }
        if output.is_empty() {
            return Ok(Flushed::All);
        }
        if !*is_writable {
            return Ok(Flushed::WouldBlock);
        }
        let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
        let (count, offered_bytes) = output.slices(&mut slices, WRITE_MAX_BYTES);
        if count == 0 && (output.is_holding() || output.is_fed()) {
            return Ok(Flushed::Held);
        }
        if count == 0 {
            // A source that needs another turn before it has something to send.
            return Ok(Flushed::OutOfBudget);
        }
        // A single buffer costs the kernel less than a list of one.
        let outcome = if count == 1 {
            stream.write(&slices[0])
        } else {
            stream.write_vectored(&slices[..count])
        };
        match outcome {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => {
                *is_writable = sent == offered_bytes;
                output.consume(sent);
                *sent_bytes += sent as u64;
                *budget = budget.saturating_sub(sent / SENT_PER_WORK_BYTE);
                if *budget == 0 && !output.is_empty() {
                    return Ok(Flushed::OutOfBudget);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => *is_writable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
