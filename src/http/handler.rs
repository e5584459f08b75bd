//! The traits that a connection calls: a handler answers requests, a sink collects a body.
//!
//! Guarantees to implementors, by [`Context`] (3) and `connection.rs` (1, 2):
//! 1. Each request is begun once, in the order of arrival, and answered once before the next is
//!    begun.
//! 2. A sink gets the body in order, then steps until it returns true, and is then either passed to
//!    `finish` or dropped.
//! 3. A handler cannot answer twice, since [`Reply`] is consumed. If it does not answer, the peer
//!    gets `500`; if it answers and still wants the body, the answer counts.
//!
//! Not here: the implementations (the api layer).

use super::head::Head;
use super::head_reader::HeadReader;
use super::output::Output;
use super::refusal::Refusal;
use super::response::{Exchange, HttpDate, Reply};

/// Collects a request body.
pub trait BodySink {
    /// `bytes` more bytes are declared: the whole body, or its next chunk. A refusal (`413`)
    /// becomes the answer before they arrive.
    fn expect(&mut self, bytes: u64) -> Result<(), Refusal> {
        let _ = bytes;
        Ok(())
    }

    /// Adds the next piece. A refusal (`413`) becomes the answer; the rest of the body is skipped.
    fn push(&mut self, data: &[u8]) -> Result<(), Refusal>;

    /// Does a bounded step of the work after the last byte, such as decoding a large value; true
    /// when there is none left. Called at least once for every body, also an empty one. A refusal
    /// becomes the answer.
    fn step(&mut self) -> Result<bool, Refusal>;

    /// Heap that it owns, for the memory statistics.
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// The result of [`Handler::begin`].
#[derive(Debug)]
pub enum Begin<B> {
    /// The reply was used. A body that follows is discarded.
    Answered,
    /// The reply was not used: this collects the body, and then [`Handler::finish`] answers.
    Receive(B),
}

/// Answers requests.
pub trait Handler {
    /// Collects the bodies of its requests.
    type Body: BodySink;

    /// A head has arrived. Answers at once, or returns what collects the body. `body` is the whole
    /// body if its length is declared and it has arrived with the head; the handler may use it.
    fn begin(
        &mut self,
        head: &Head<'_>,
        body: Option<&[u8]>,
        reply: Reply<'_>,
    ) -> Begin<Self::Body>;

    /// Answers a request with its complete body.
    fn finish(&mut self, head: &Head<'_>, sink: Self::Body, reply: Reply<'_>);

    /// The request that was begun or finished last is answered with a status. Returns the work, in
    /// bytes, that it leaves for the rest of the turn.
    fn on_answer(&mut self, status: u16) -> usize {
        let _ = status;
        0
    }

    /// What was answered so far may be sent until this time, on the caller's clock in milliseconds;
    /// `u64::MAX`: for ever.
    fn sendable_until_ms(&self) -> u64 {
        u64::MAX
    }

    /// The connection has refused a request itself: it was no HTTP request (then there is no head),
    /// or its body was malformed.
    fn on_refusal(&mut self, head: Option<&Head<'_>>, status: u16) {
        let _ = (head, status);
    }
}

/// Limits of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// No request is begun while more than this is unsent, shared values included.
    pub output_high_bytes: usize,
    /// An unwanted body is skipped, to keep the connection, if at most this many bytes of it are
    /// declared.
    pub kept_body_bytes: u64,
}

/// The environment of one call of [`Connection::advance`](super::Connection::advance).
#[derive(Debug)]
pub struct Context<'t, H> {
    /// Answers requests.
    pub handler: &'t mut H,
    /// Parses heads.
    pub heads: &'t mut HeadReader,
    /// Where responses are rendered.
    pub out: &'t mut Output,
    /// The value of Date.
    pub date: &'t HttpDate,
    /// Limits of the connection.
    pub limits: &'t Limits,
    /// Work left in this turn, in bytes: input and rendered output, a constant for each request and
    /// step, and merge work that requests incur.
    pub budget: &'t mut usize,
}

impl<H: Handler> Context<'_, H> {
    pub(super) fn charge(&mut self, work_bytes: usize) {
        *self.budget = self.budget.saturating_sub(work_bytes);
    }

    /// Answers instead of the handler.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        head: Option<&Head<'_>>,
        exchange: &mut Exchange,
        refusal: &Refusal,
    ) {
        Reply::new(self.out, self.date, exchange).error(refusal);
        self.handler.on_refusal(head, refusal.status);
    }

    /// Calls the handler; none if the request is answered.
    pub(super) fn begin(
        &mut self,
        head: &Head<'_>,
        body: Option<&[u8]>,
        exchange: &mut Exchange,
    ) -> Option<H::Body> {
        let start = self.out.bytes().len();
        let begun = self
            .handler
            .begin(head, body, Reply::new(self.out, self.date, exchange));
        match begun {
            Begin::Receive(sink) if !exchange.answered => {
                // Drops a response that was begun and not ended.
                self.out.bytes().truncate(start);
                Some(sink)
            }
            Begin::Receive(_) => {
                debug_assert!(false, "a request that is answered wants its body");
                self.handler.on_answer(exchange.status);
                None
            }
            Begin::Answered => {
                self.make_sure_of_answer(start, exchange);
                None
            }
        }
    }

    pub(super) fn finish(&mut self, head: &Head<'_>, sink: H::Body, exchange: &mut Exchange) {
        let start = self.out.bytes().len();
        self.handler
            .finish(head, sink, Reply::new(self.out, self.date, exchange));
        self.make_sure_of_answer(start, exchange);
    }

    /// A handler that does not answer has a bug; the peer still gets an answer to each request.
    fn make_sure_of_answer(&mut self, start: usize, exchange: &mut Exchange) {
        if !exchange.answered {
            self.out.bytes().truncate(start);
            let refusal = Refusal::new(
                500,
                "internal_error",
                "the request was not answered: please report this",
            );
            Reply::new(self.out, self.date, exchange).error(&refusal);
        }
        let work_bytes = self.handler.on_answer(exchange.status);
        self.charge(work_bytes);
    }
}
