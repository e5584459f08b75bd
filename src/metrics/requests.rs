//! Answers by route and status, and how long they took by group of routes.
//!
//! What routes and groups there are the api layer says; here they are numbers.

use crate::status_codes::with_status_codes;

use super::histogram::Histogram;

/// Routes are numbered below this.
pub const ROUTE_MAX: usize = 40;

/// Groups of routes are numbered below this.
pub const GROUP_COUNT: usize = 6;

macro_rules! codes {
    ($($status:literal $reason:literal)*) => {
        /// Statuses that are counted by themselves: all that the node sends.
        const STATUSES: &[u16] = &[$($status,)*];
    };
}

with_status_codes!(codes);

/// Those and any other.
const STATUS_COUNT: usize = STATUSES.len() + 1;

/// The index of each status in [`STATUSES`].
const INDEX_OF_STATUS: [u8; 600] = {
    #[expect(clippy::cast_possible_truncation, reason = "there are few")]
    let mut indexes = [STATUSES.len() as u8; 600];
    let mut index = 0;
    while index < STATUSES.len() {
        #[expect(clippy::cast_possible_truncation, reason = "there are few")]
        let short = index as u8;
        indexes[STATUSES[index] as usize] = short;
        index += 1;
    }
    indexes
};

/// Counts of answers.
#[derive(Clone, Debug)]
pub struct RequestStats {
    counts: Box<[[u64; STATUS_COUNT]; ROUTE_MAX]>,
    durations: [Histogram; GROUP_COUNT],
}

impl Default for RequestStats {
    fn default() -> Self {
        Self {
            counts: Box::new([[0; STATUS_COUNT]; ROUTE_MAX]),
            durations: [Histogram::default(); GROUP_COUNT],
        }
    }
}

impl RequestStats {
    /// Counts an answer.
    #[inline]
    pub fn count(&mut self, route: usize, status: u16) {
        let index = INDEX_OF_STATUS
            .get(usize::from(status))
            .map_or(STATUSES.len(), |index| usize::from(*index));
        self.counts[route][index] += 1;
    }

    /// Counts how long so many answers of a group took, each.
    #[inline]
    pub fn record_durations(&mut self, group: usize, us: u64, count: u64) {
        self.durations[group].record_many(us, count);
    }

    /// Answers of a route by status; 0 stands for any other. Only those that were given.
    pub fn counts(&self, route: usize) -> impl Iterator<Item = (u16, u64)> {
        let statuses = STATUSES.iter().copied().chain([0]);
        statuses
            .zip(self.counts[route])
            .filter(|(_, count)| *count > 0)
    }

    /// How long the answers of a group took.
    pub fn durations(&self, group: usize) -> &Histogram {
        &self.durations[group]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_route_and_status() {
        let mut stats = RequestStats::default();
        for status in [200, 503, 200, 299, 700, 507, 406] {
            stats.count(3, status);
            stats.record_durations(1, 100, 1);
        }
        assert_eq!(
            stats.counts(3).collect::<Vec<_>>(),
            [(200, 2), (406, 1), (503, 1), (507, 1), (0, 2)]
        );
        assert_eq!(stats.counts(2).count(), 0);
        assert_eq!(
            (stats.durations(1).count(), stats.durations(0).count()),
            (7, 0)
        );
    }
}
