//! Unique identities without a random number for each: a sequence out of one seed.

use siphasher::sip128::SipHasher24;

/// Generates unique ids from one random seed.
#[derive(Clone, Debug)]
pub struct IdGenerator {
    seed: [u8; 16],
    count: u64,
}

impl IdGenerator {
    /// A generator; the seed must be random.
    pub fn new(seed: [u8; 16]) -> Self {
        Self { seed, count: 0 }
    }

    /// The next sixteen bytes.
    pub fn draw(&mut self) -> [u8; 16] {
        self.count += 1;
        SipHasher24::new_with_key(&self.seed)
            .hash(&self.count.to_le_bytes())
            .as_bytes()
    }

    /// A generator for another thread, with ids of its own.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self::new(self.draw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_id_is_repeated() {
        let mut ids = IdGenerator::new([7; 16]);
        let mut child = ids.split();
        let made = [
            ids.draw(),
            ids.draw(),
            child.draw(),
            child.draw(),
            IdGenerator::new([8; 16]).draw(),
        ];
        assert!((1..made.len()).all(|at| !made[..at].contains(&made[at])));
    }
}
