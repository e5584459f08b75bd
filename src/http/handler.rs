//! What a connection calls: a handler answers requests, a sink collects the body of one.
//!
//! Invariants, kept towards the implementors by [`Turn`] (3) and by `connection.rs`:
//! 1. Each request is begun once, in the order of arrival, and answered once before the next is
//!    begun.
//! 2. A sink gets the body in order, then steps until it says it is done, and is then either
//!    finished or dropped.
//! 3. A handler that answers twice cannot be written ([`Reply`] is consumed); one that does not
//!    answer where it must, or answers and still wants the body, is caught: the peer gets `500`, or
//!    the one answer.
//!
//! Not here: the implementations (the api layer).

use super::head::Head;
use super::head_reader::HeadReader;
use super::output::Output;
use super::refusal::Refusal;
use super::response::{Exchange, HttpDate, Reply};

/// What collects a request body.
pub trait BodySink {
    /// So many bytes are said to come next: the whole body, or its next chunk. A refusal (`413`) is
    /// the answer, before they come.
    fn expect(&mut self, bytes: u64) -> Result<(), Refusal> {
        let _ = bytes;
        Ok(())
    }

    /// Takes in the next piece. A refusal (`413`) is the answer; the rest of the body is read and
    /// dropped.
    fn push(&mut self, data: &[u8]) -> Result<(), Refusal>;

    /// Work left after the last byte (decoding of a large value), a bounded step a call; true when
    /// done. Called at least once for every body, the empty one too. A refusal is the answer.
    fn step(&mut self) -> Result<bool, Refusal>;

    /// Heap it owns, for the accounts of the reactor.
    fn heap_bytes(&self) -> usize {
        0
    }
}

/// What became of a request when its head arrived.
#[derive(Debug)]
pub enum Begin<B> {
    /// The reply was used. A body that follows is discarded.
    Answered,
    /// The reply was not used: the body goes into this, and then [`Handler::finish`] answers.
    Receive(B),
}

/// What answers requests.
pub trait Handler {
    /// What collects its bodies.
    type Body: BodySink;

    /// A head arrived. Answers it now (no body wanted, and every refusal), or gives what shall
    /// collect the body. `body`: all of it, where its length is known and it has come with the
    /// head; then it may be what the answer is about.
    fn begin(
        &mut self,
        head: &Head<'_>,
        body: Option<&[u8]>,
        reply: Reply<'_>,
    ) -> Begin<Self::Body>;

    /// Head and whole body are there: answers.
    fn finish(&mut self, head: &Head<'_>, sink: Self::Body, reply: Reply<'_>);

    /// The request that was begun or finished last is answered with a status. Returns the work, in
    /// bytes, that it leaves for the rest of the turn.
    fn on_answer(&mut self, status: u16) -> usize {
        let _ = status;
        0
    }

    /// A request was refused without this handler: what came is none (then there is no head), or
    /// its body is wrong.
    fn on_refusal(&mut self, head: Option<&Head<'_>>, status: u16) {
        let _ = (head, status);
    }
}

/// How much one connection may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// No request is begun while more than this is unsent, shared values included.
    pub output_high_bytes: usize,
    /// A body of which so many bytes are known to come, and no more, is read to its end where it is
    /// not wanted, to keep the connection.
    pub kept_body_bytes: u64,
}

/// What one call of [`Connection::advance`](super::Connection::advance) works with.
#[derive(Debug)]
pub struct Turn<'t, H> {
    /// What answers.
    pub handler: &'t mut H,
    /// What reads heads.
    pub heads: &'t mut HeadReader,
    /// Where responses are rendered to.
    pub out: &'t mut Output,
    /// What they say in Date.
    pub date: &'t HttpDate,
    /// How much one connection may ask for.
    pub limits: &'t Limits,
    /// Work left, in bytes: of input and of rendered output, a constant a request and a step, and
    /// what requests leave to be done.
    pub budget: &'t mut usize,
}

impl<H: Handler> Turn<'_, H> {
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

    /// Asks the handler; `None`: the request is answered.
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
                // In case a response was begun and dropped.
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

    /// A handler that does not answer is a bug of ours; the peer still gets an answer to each
    /// request.
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
