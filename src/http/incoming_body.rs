//! A request body that is arriving: from the input through the decoder into the sink, then the
//! steps of the sink.
//!
//! Invariants:
//! 1. Each call uses at most `budget` bytes of input, and makes one step at least once the body is
//!    there.
//! 2. The sink gets exactly the body, whatever the cuts of the input.
//!
//! Not here: what the connection does next (`connection.rs`), framing (`body.rs`).

use super::body::BodyDecoder;
use super::handler::BodySink;
use super::head::Framing;
use super::refusal::Refusal;

/// The cost of a step of a sink, in bytes of work.
const STEP_WORK_BYTES: usize = 16 * 1024;

/// A body that is arriving.
#[derive(Debug)]
pub(super) struct IncomingBody<B> {
    pub(super) decoder: BodyDecoder,
    pub(super) sink: B,
    /// Bytes received, framing included.
    pub(super) received_bytes: u64,
}

/// The progress of a body after some input.
pub(super) enum BodyProgress {
    Starved,
    OutOfBudget,
    /// Complete, and all steps are done.
    Whole,
    /// The decoder found malformed framing.
    Broken(Refusal),
    /// The sink refused it before all of it had arrived.
    Refused(Refusal),
    /// The sink refused it after all of it had arrived.
    RefusedWhole(Refusal),
}

impl<B: BodySink> IncomingBody<B> {
    pub(super) fn new(framing: Framing, sink: B) -> Self {
        Self {
            decoder: BodyDecoder::new(framing),
            sink,
            received_bytes: 0,
        }
    }

    /// Tells the sink how long the body is, if the head says so, and feeds it what came with the
    /// head.
    pub(super) fn begin(&mut self, input: &[u8], budget: &mut usize) -> (usize, BodyProgress) {
        let due_bytes = self.decoder.due_bytes();
        if due_bytes > 0
            && let Err(refusal) = self.sink.expect(due_bytes)
        {
            return (0, BodyProgress::Refused(refusal));
        }
        self.advance(input, budget)
    }

    /// Feeds the sink; returns how much of `input` was used.
    pub(super) fn advance(&mut self, input: &[u8], budget: &mut usize) -> (usize, BodyProgress) {
        let mut used = 0;
        while !self.decoder.is_done() {
            let rest = &input[used..];
            if rest.is_empty() {
                return (used, BodyProgress::Starved);
            }
            if *budget == 0 {
                return (used, BodyProgress::OutOfBudget);
            }
            let decoded = match self.decoder.decode(&rest[..rest.len().min(*budget)]) {
                Ok(decoded) => decoded,
                Err(refusal) => return (used, BodyProgress::Broken(refusal)),
            };
            used += decoded.consumed;
            *budget -= decoded.consumed;
            self.received_bytes = self.received_bytes.saturating_add(decoded.consumed as u64);
            let taken = match decoded {
                _ if !decoded.data.is_empty() => self.sink.push(decoded.data),
                _ if decoded.declared_bytes > 0 => self.sink.expect(decoded.declared_bytes),
                _ => Ok(()),
            };
            if let Err(refusal) = taken {
                return (used, BodyProgress::Refused(refusal));
            }
        }
        (used, self.step(budget))
    }

    fn step(&mut self, budget: &mut usize) -> BodyProgress {
        loop {
            match self.sink.step() {
                Ok(true) => return BodyProgress::Whole,
                Ok(false) => *budget = budget.saturating_sub(STEP_WORK_BYTES),
                Err(refusal) => return BodyProgress::RefusedWhole(refusal),
            }
            if *budget == 0 {
                return BodyProgress::OutOfBudget;
            }
        }
    }
}
