//! Durations, counted in buckets that grow by powers of two from 16 µs to 16.8 s.
//!
//! Invariant: the buckets together hold all that was recorded; what took longer than the last bound
//! is in the bucket behind it.

/// The first bucket takes what lasted up to so long.
const FIRST_BOUND_US: u64 = 16;

/// Buckets with a bound; the last bound is 16 µs × 2^20.
const BOUND_COUNT: usize = 21;

/// How long things took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// By bucket; the last one is without a bound.
    counts: [u64; BOUND_COUNT + 1],
    sum_us: u64,
}

impl Histogram {
    /// Counts a duration.
    #[inline]
    pub fn record(&mut self, us: u64) {
        self.record_many(us, 1);
    }

    /// Counts so many of the same duration.
    #[inline]
    pub fn record_many(&mut self, us: u64, count: u64) {
        self.counts[bucket_of(us)] += count;
        self.sum_us = self.sum_us.saturating_add(us.saturating_mul(count));
    }

    /// The bounds of all buckets but the last, in microseconds; ascending.
    pub fn bounds_us() -> impl Iterator<Item = u64> {
        (0..BOUND_COUNT).map(|index| FIRST_BOUND_US << index)
    }

    /// Durations by bucket; the last one is without a bound.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Bounds in microseconds, each with the number of durations up to it; ascending.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut sum = 0;
        Self::bounds_us()
            .zip(self.counts)
            .map(move |(bound, count)| {
                sum += count;
                (bound, sum)
            })
    }

    /// All durations counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All of them together.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }
}

/// The first bucket with a bound not below a duration.
#[inline]
fn bucket_of(us: u64) -> usize {
    // 17 to 32 µs less one is 16 to 31: as many bits as its bucket's bound less one has.
    let bits = (us.saturating_sub(1) / FIRST_BOUND_US)
        .checked_ilog2()
        .map_or(0, |log| log as usize + 1);
    bits.min(BOUND_COUNT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_in_the_first_bucket_that_takes_them() {
        for us in (0..70_000).chain([1 << 24, (1 << 24) + 1, 1 << 40, u64::MAX]) {
            let mut histogram = Histogram::default();
            histogram.record(us);
            for (bound_us, count) in histogram.cumulative() {
                assert_eq!(
                    count,
                    u64::from(us <= bound_us),
                    "{us} µs, bound {bound_us}"
                );
            }
            assert_eq!((histogram.count(), histogram.sum_us()), (1, us));
        }
    }

    #[test]
    fn buckets_add_up() {
        let mut histogram = Histogram::default();
        histogram.record_many(20, 3);
        histogram.record(16);
        histogram.record(1_000_000_000);
        let bounds: Vec<(u64, u64)> = histogram.cumulative().collect();
        assert_eq!(
            (bounds[0], bounds[1], bounds[20]),
            ((16, 1), (32, 4), (16_777_216, 4))
        );
        assert_eq!((histogram.count(), histogram.sum_us()), (5, 1_000_000_076));
    }
}
