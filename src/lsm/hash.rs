//! The seeded hash of keys, shared by memtables and chunks.
//!
//! SipHash-1-3 (Aumasson and Bernstein 2012, with the reduced rounds that Rust's own maps use): keys come from strangers,
//! and no way is known to make collisions without the seed. The algorithm is fixed for good, since chunks carry their
//! hash table and their seed to disk and to replicas. 32 bits are enough: a table holds some thousand keys.

use siphasher::sip::SipHasher13;

/// Second half of the `SipHash` key: a 64-bit seed is secret enough, and is what a chunk's header has room for.
/// Fractional digits of the square root of two, as a number with nothing up its sleeve.
const KEY_HIGH: u64 = 0x6a09_e667_f3bc_c908;

/// Hashes keys with one seed.
#[derive(Clone, Copy, Debug)]
pub struct KeyHasher {
    sip: SipHasher13,
    seed: u64,
}

impl KeyHasher {
    /// A hasher for the given seed.
    pub fn new(seed: u64) -> Self {
        Self { sip: SipHasher13::new_with_keys(seed, KEY_HIGH), seed }
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u32 {
        let hash = self.sip.hash(key);
        let [a, b, c, d, ..] = hash.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// The seed it was made with.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_fixed_for_good() {
        assert_eq!(KeyHasher::new(1).hash(b"key"), 0x2de8_0c46);
        assert_ne!(KeyHasher::new(1).hash(b"key"), KeyHasher::new(2).hash(b"key"));
    }
}
