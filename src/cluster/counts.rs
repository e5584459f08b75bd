//! What is counted of a partition in a cluster, for metrics.

use super::config::PartitionConfig;

/// Why a node took office, in the order of [`MemberCounts::takeovers`].
pub const TAKEOVER_CAUSES: [&str; 6] = [
    "silent",
    "handed_over",
    "restarted",
    "named",
    "first",
    "all_lost",
];

/// What a change of the set of copies in sync is for, in the order of [`MemberCounts::changes`].
pub const SET_CHANGES: [&str; 2] = ["leave", "join"];

/// How such a change ended, in the order of [`MemberCounts::changes`].
pub const CHANGE_OUTCOMES: [&str; 3] = ["made", "refused", "unknown"];

/// Why a node took office.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TakeoverCause {
    /// The leader before was not heard.
    Silent,
    /// The leader before handed over.
    HandedOver,
    /// It was the leader before, and has started.
    Restarted,
    /// It was named, and did not ask for it: an operator recovered the partition.
    Named,
    /// No node has led before.
    First,
    /// All copies in sync are gone for good.
    AllLost,
}

impl TakeoverCause {
    /// The cause as a part of a sentence.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Silent => "the leader before fell silent",
            Self::HandedOver => "the leader before handed over",
            Self::Restarted => "it led before, and was started again",
            Self::Named => "it was named by order, or before it was started",
            Self::First => "it is the first leader",
            Self::AllLost => "all copies in sync are gone for good, and whenAllLost is start",
        }
    }
}

/// How a change of the set ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeOutcome {
    Made,
    Refused,
    Unknown,
}

/// Counts of one partition since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberCounts {
    /// How often this node took office, by [`TAKEOVER_CAUSES`].
    pub takeovers: [u64; TAKEOVER_CAUSES.len()],
    /// Changes of the set, by [`SET_CHANGES`] and [`CHANGE_OUTCOMES`].
    pub changes: [[u64; CHANGE_OUTCOMES.len()]; SET_CHANGES.len()],
    /// How long it led without a lease, in milliseconds.
    pub fenced_ms: u64,
    /// When it was last seen to be without a lease.
    fenced_at_ms: Option<u64>,
    /// Why it has asked to lead.
    stood_for: Option<TakeoverCause>,
}

impl MemberCounts {
    /// The node asks to lead.
    pub(super) fn on_stand(&mut self, cause: TakeoverCause) {
        self.stood_for = Some(cause);
    }

    /// The node takes office; says why.
    pub(super) fn record_takeover(&mut self, is_handed_over: bool) -> TakeoverCause {
        let cause = match self.stood_for.take() {
            _ if is_handed_over => TakeoverCause::HandedOver,
            cause => cause.unwrap_or(TakeoverCause::Named),
        };
        self.takeovers[cause as usize] += 1;
        self.fenced_at_ms = None;
        cause
    }

    /// Etcd was asked for another set of copies than that of `config`.
    pub(super) fn record_change(
        &mut self,
        config: Option<&PartitionConfig>,
        proposal: &PartitionConfig,
        outcome: ChangeOutcome,
    ) {
        if config.is_some_and(|config| config.in_sync == proposal.in_sync) {
            return;
        }
        let count_before = config.map_or(0, |config| config.in_sync.len());
        let kind = usize::from(proposal.in_sync.len() >= count_before);
        self.changes[kind][outcome as usize] += 1;
    }

    /// The leader looks at its lease.
    pub(super) fn record_lease(&mut self, now_ms: u64, lease_end_ms: u64) {
        let is_fenced = now_ms >= lease_end_ms;
        if let Some(at_ms) = self.fenced_at_ms.filter(|_| is_fenced) {
            self.fenced_ms += now_ms.saturating_sub(at_ms);
        }
        self.fenced_at_ms = is_fenced.then_some(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_without_a_lease_adds_up() {
        let mut counts = MemberCounts::default();
        for (now_ms, lease_end_ms) in [
            (100, 200),
            (200, 200),
            (250, 200),
            (300, 500),
            (520, 500),
            (530, 500),
        ] {
            counts.record_lease(now_ms, lease_end_ms);
        }
        assert_eq!(counts.fenced_ms, 60);
    }
}
