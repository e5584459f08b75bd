//! Unique identities without a random number for each: a sequence out of one seed.

use siphasher::sip128::SipHasher24;

/// Makes unique identities: a sequence out of one random seed.
#[derive(Clone, Debug)]
pub struct IdGenerator {
    seed: [u8; 16],
    count: u64,
}

impl IdGenerator {
    /// A mint; the seed is to be random.
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

    /// A mint of its own, for another thread.
    #[must_use]
    pub fn split(&mut self) -> Self {
        Self::new(self.draw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mint_repeats_nothing() {
        let mut mint = IdGenerator::new([7; 16]);
        let mut child = mint.split();
        let made = [
            mint.draw(),
            mint.draw(),
            child.draw(),
            child.draw(),
            IdGenerator::new([8; 16]).draw(),
        ];
        assert!((1..made.len()).all(|at| !made[..at].contains(&made[at])));
    }
}
