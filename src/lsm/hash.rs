//! The seeded hash of keys, shared by memtables and chunks.
//!
//! rapidhash v3 nano (De Carli 2025, after Wang Yi's wyhash). Its secrets are derived from the
//! seed. A merge hashes each key that it moves; `SipHash` takes three times the instructions for a
//! key of 16 bytes. Keys come from strangers: rapidhash is not cryptographic, but collisions cannot
//! be made without the secrets, and no answer reveals these.
//!
//! Chunks carry their hash table and its seed to disk and to replicas, so the algorithm is a part
//! of their format (`chunk/layout.rs`).
//!
//! 32 bits are enough: a table holds some thousand keys.

use rapidhash::v3::{RapidSecrets, rapidhash_v3_nano_inline};

/// An odd number without a pattern, for multiplying: 2^64 divided by the golden ratio.
pub(super) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hashes keys with one seed.
#[derive(Clone, Copy, Debug)]
pub struct KeyHasher {
    seed: u64,
    secrets: RapidSecrets,
}

impl KeyHasher {
    /// A hasher for the given seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            secrets: RapidSecrets::seed(seed),
        }
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u32 {
        let hash = rapidhash_v3_nano_inline::<true, true>(key, &self.secrets);
        let [a, b, c, d, ..] = hash.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    /// The seed it was made with.
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

/// Whether they hash alike.
impl PartialEq for KeyHasher {
    fn eq(&self, other: &Self) -> bool {
        self.seed == other.seed
    }
}

impl Eq for KeyHasher {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_fixed_for_good() {
        let long = [7; 100];
        for (key, expected) in [
            (&b"key"[..], 0x4b34_a3b1),
            (b"a key of 18 bytes!", 0x1fbd_78d7),
            (&long, 0x2df6_9bde),
        ] {
            assert_eq!(KeyHasher::new(1).hash(key), expected, "{key:?}");
            assert_ne!(KeyHasher::new(1).hash(key), KeyHasher::new(2).hash(key));
        }
    }
}
