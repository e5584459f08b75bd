//! What is to be counted of answers that are held back.

use crate::api::RequestLabels;

/// Labels of answers that are held back, to be counted when they are sent; of requests that came
/// together.
#[derive(Debug)]
pub(super) struct PendingMetrics {
    pub(super) first: RequestLabels,
    /// Further ones, of a peer that pipelines.
    pub(super) rest: Vec<RequestLabels>,
    /// When the requests came, in microseconds since the node started.
    pub(super) came_at_us: u64,
}

impl PendingMetrics {
    pub(super) fn one(answer: RequestLabels, came_at_us: u64) -> Self {
        Self {
            first: answer,
            rest: Vec::new(),
            came_at_us,
        }
    }

    pub(super) fn of(answers: &[RequestLabels], came_at_us: u64) -> Option<Self> {
        let (first, rest) = answers.split_first()?;
        Some(Self {
            first: *first,
            rest: rest.to_vec(),
            came_at_us,
        })
    }

    pub(super) fn count(&self) -> usize {
        1 + self.rest.len()
    }

    /// One other answer replaces all of them.
    pub(super) fn replace(&mut self, status: u16) {
        self.first = self.first.with_status(status);
        self.rest = Vec::new();
    }
}
