//! What is to be counted of answers that are held back.

use crate::api::RequestLabels;
use crate::metrics::{GateKind, PART_COUNT, RequestPart};

/// Labels of answers that are held back, to be counted when they are sent; of requests that came
/// together.
#[derive(Debug)]
pub(super) struct PendingMetrics {
    pub(super) first: RequestLabels,
    /// Further ones, of a peer that pipelines.
    pub(super) rest: Vec<RequestLabels>,
    /// When the requests came, in microseconds since the node started.
    pub(super) came_at_us: u64,
    /// What their time went to so far.
    pub(super) phases: Phases,
}

/// What the time of a request went to, in microseconds; up to 71 minutes each. Waits for the disk
/// and for replicas go on at the same time.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_field_names, reason = "units stand last in names")]
pub(super) struct Phases {
    /// Until the turn that executed it.
    pub(super) queued_us: u32,
    /// From the beginning of that turn until it was executed, other requests of the turn included.
    pub(super) executed_us: u32,
    /// Waits of its reply, by [`GateKind`].
    pub(super) waited_us: [u32; GateKind::ALL.len()],
}

impl Phases {
    /// A request that came at `came_at_us` and was executed in the turn that began at `turn_at_us`.
    pub(super) fn executed(came_at_us: u64, turn_at_us: u64, now_us: u64) -> Self {
        Self {
            queued_us: micros(turn_at_us.saturating_sub(came_at_us)),
            executed_us: micros(now_us.saturating_sub(turn_at_us.max(came_at_us))),
            ..Self::default()
        }
    }

    /// Its reply has waited so long for this.
    pub(super) fn record_wait(&mut self, kind: GateKind, us: u64) {
        self.waited_us[kind as usize] = micros(us);
    }

    /// What the time of a request that took `took_us` went to, by [`RequestPart`].
    pub(super) fn parts_us(&self, took_us: u64) -> [u64; PART_COUNT] {
        let waited_us = self.waited_us.into_iter().max().unwrap_or(0);
        let before = [self.queued_us, self.executed_us, waited_us];
        let mut parts_us = [0; PART_COUNT];
        for (part, us) in [
            (RequestPart::Queued, self.queued_us),
            (RequestPart::Executed, self.executed_us),
            (RequestPart::Disk, self.waited_us[GateKind::Disk as usize]),
            (RequestPart::Acks, self.waited_us[GateKind::Acks as usize]),
            (RequestPart::Role, self.waited_us[GateKind::Role as usize]),
        ] {
            parts_us[part as usize] = us.into();
        }
        // Once the reply waited for nothing more it took the rest to go.
        parts_us[RequestPart::Sending as usize] =
            took_us.saturating_sub(before.into_iter().map(u64::from).sum());
        parts_us
    }
}

fn micros(us: u64) -> u32 {
    u32::try_from(us).unwrap_or(u32::MAX)
}

impl PendingMetrics {
    pub(super) fn one(answer: RequestLabels, came_at_us: u64) -> Self {
        Self {
            first: answer,
            rest: Vec::new(),
            came_at_us,
            phases: Phases::default(),
        }
    }

    pub(super) fn of(answers: &[RequestLabels], came_at_us: u64, phases: Phases) -> Option<Self> {
        let (first, rest) = answers.split_first()?;
        Some(Self {
            first: *first,
            rest: rest.to_vec(),
            came_at_us,
            phases,
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
