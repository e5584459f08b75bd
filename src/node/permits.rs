//! Permits: at most so many requests of one kind run at a time.

use std::sync::Arc;

/// Counts the permits of one kind that are taken.
#[derive(Debug, Default)]
pub struct Permits(Arc<()>);

/// One permit. Dropping it gives it back.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "its references are counted")] Arc<()>);

impl Permits {
    /// Takes a permit; none if `max` permits are taken already.
    pub fn take(&self, max: usize) -> Option<Permit> {
        (Arc::strong_count(&self.0) <= max).then(|| Permit(Arc::clone(&self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_limited_and_come_back() {
        for max in [4, 64] {
            let permits = Permits::default();
            let mut taken: Vec<Permit> = (0..max)
                .map(|_| permits.take(max).expect("a permit"))
                .collect();
            assert!(permits.take(max).is_none(), "more than {max}");
            taken.pop();
            taken.extend(permits.take(max));
            assert!(taken.len() == max && permits.take(max).is_none());
        }
    }
}
