//! Which key is asked for next.
//!
//! Zipf's distribution is drawn as in Gray et al., "Quickly generating billion-record synthetic
//! databases" (SIGMOD 1994), which YCSB uses too; ranks are scattered over the keys, so that those
//! asked for often do not lie side by side.

use crate::options::Order;

/// Numbers of keys, below a count.
#[derive(Debug)]
pub struct Keys {
    count: u64,
    order: Drawn,
}

#[derive(Debug)]
enum Drawn {
    Uniform,
    Sequential {
        next: u64,
    },
    Zipf {
        alpha: f64,
        zeta_n: f64,
        eta: f64,
        half: f64,
    },
}

impl Keys {
    pub fn new(order: Order, count: u64) -> Self {
        let order = match order {
            Order::Uniform => Drawn::Uniform,
            Order::Sequential => Drawn::Sequential { next: 0 },
            Order::Zipf(exponent) => {
                let zeta = |n: u64| (1..=n).map(|rank| float(rank).powf(-exponent)).sum::<f64>();
                let (zeta_n, zeta_2) = (zeta(count), zeta(count.min(2)));
                let eta =
                    (1.0 - (2.0 / float(count)).powf(1.0 - exponent)) / (1.0 - zeta_2 / zeta_n);
                Drawn::Zipf {
                    alpha: 1.0 / (1.0 - exponent),
                    zeta_n,
                    eta,
                    half: 0.5_f64.powf(exponent),
                }
            }
        };
        Self { count, order }
    }

    pub fn next(&mut self, rng: &mut fastrand::Rng) -> u64 {
        match &mut self.order {
            Drawn::Uniform => rng.u64(..self.count),
            Drawn::Sequential { next } => {
                let key = *next;
                *next = (key + 1) % self.count;
                key
            }
            Drawn::Zipf {
                alpha,
                zeta_n,
                eta,
                half,
            } => {
                let drawn = rng.f64();
                let scaled = drawn * *zeta_n;
                let rank = if scaled < 1.0 {
                    0
                } else if scaled < 1.0 + *half {
                    1
                } else {
                    whole(float(self.count) * (*eta * drawn - *eta + 1.0).powf(*alpha))
                };
                scatter(rank.min(self.count - 1), self.count)
            }
        }
    }
}

/// Another number below the count, the same for the same rank.
fn scatter(rank: u64, count: u64) -> u64 {
    let mixed = rank.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 32)) % count
}

#[expect(
    clippy::cast_precision_loss,
    reason = "there are fewer keys than a float can count"
)]
fn float(number: u64) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rank below the count"
)]
fn whole(number: f64) -> u64 {
    number as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(order: Order, count: usize, draws: usize) -> Vec<usize> {
        let (mut keys, mut rng) = (Keys::new(order, count as u64), fastrand::Rng::with_seed(7));
        let mut counts = vec![0; count];
        for _ in 0..draws {
            counts[usize::try_from(keys.next(&mut rng)).expect("small")] += 1;
        }
        counts
    }

    #[test]
    fn sequential_keys_come_in_turn() {
        assert_eq!(counts(Order::Sequential, 10, 30), [3; 10]);
    }

    #[test]
    fn uniform_keys_come_equally_often() {
        let counts = counts(Order::Uniform, 100, 100_000);
        assert!(
            counts.iter().all(|count| (800..1_200).contains(count)),
            "{counts:?}"
        );
    }

    /// The first ranks come as often as the law says: rank r in proportion to r to the power of
    /// minus the exponent.
    #[test]
    fn zipf_follows_its_law() {
        let (count, draws, exponent) = (1_000, 1_000_000, 0.9);
        let mut counts = counts(Order::Zipf(exponent), count, draws);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let zeta: f64 = (1..=count as u64)
            .map(|rank| float(rank).powf(-exponent))
            .sum();
        for rank in [1, 2, 5] {
            let expected = float(draws as u64) * float(rank).powf(-exponent) / zeta;
            let found = float(counts[usize::try_from(rank - 1).expect("small")] as u64);
            assert!(
                (found / expected - 1.0).abs() < 0.15,
                "rank {rank}: {found} instead of {expected}"
            );
        }
    }
}
