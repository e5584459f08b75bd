//! Which member of etcd a connection goes to, and when the next try is due.
//!
//! After a failure it is the next member's turn, after a pause that grows with each failure in a
//! row. The pause is random, so that many nodes do not try in step.

/// The pause after the first failure, and after many.
const PAUSE_MIN_MS: u64 = 100;
const PAUSE_MAX_MS: u64 = 2_000;

/// Doublings of the pause until it is the longest.
const DOUBLING_MAX: u32 = 5;

/// Random numbers from a seed (`SplitMix64`).
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

/// The end point in use.
#[derive(Clone, Debug, Default)]
pub(super) struct EndpointChoice {
    /// Its place in the list.
    pub(super) index: usize,
    failure_count: u32,
    /// No connection is begun before.
    pub(super) retry_at_ms: u64,
}

impl EndpointChoice {
    /// Begins with the end point at this place in the list.
    pub(super) fn at(index: usize) -> Self {
        Self {
            index,
            ..Self::default()
        }
    }

    /// Goes to the next of `count` end points, after a pause.
    pub(super) fn on_failure(&mut self, count: usize, random: &mut Random, now_ms: u64) {
        self.index = (self.index + 1) % count.max(1);
        let most = (PAUSE_MIN_MS << self.failure_count.min(DOUBLING_MAX)).min(PAUSE_MAX_MS);
        self.failure_count = self.failure_count.saturating_add(1);
        // Half of the pause is certain.
        let pause_ms = most / 2 + random.below(most / 2 + 1);
        self.retry_at_ms = now_ms.saturating_add(pause_ms);
    }

    /// The end point works: the next failure is the first.
    pub(super) fn on_success(&mut self) {
        self.failure_count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_points_take_turns() {
        let (mut choice, mut random) = (EndpointChoice::default(), Random(7));
        for (number, most) in [100, 200, 400, 800, 1600, 2000, 2000, 2000]
            .iter()
            .enumerate()
        {
            choice.on_failure(3, &mut random, 5);
            assert_eq!(choice.index, (number + 1) % 3);
            let pause_ms = choice.retry_at_ms - 5;
            assert!(
                (most / 2..=*most).contains(&pause_ms),
                "{pause_ms} of {most}"
            );
        }
        choice.on_success();
        choice.on_failure(3, &mut random, 5);
        assert!(choice.retry_at_ms <= 105);
    }
}
