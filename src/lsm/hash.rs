//! The seeded hash of keys, shared by memtables and chunks.
//!
//! Chunks carry their hash table and its seed to disk and to replicas, so an algorithm is fixed for
//! good, and its number is the format of the chunks. All of an engine has one of them: the newest,
//! or that of the chunks that it began with.
//!
//! 1. SipHash-1-3 (Aumasson and Bernstein 2012, with the reduced rounds that Rust's own maps use),
//!    until 2026-11.
//! 2. rapidhash v3 nano (De Carli 2025, after Wang Yi's wyhash), whose secrets are derived from the
//!    seed. A merge hashes each key that it moves; this takes a third of the instructions for a key
//!    of 16 bytes. Keys come from strangers: rapidhash is not cryptographic, but collisions cannot
//!    be made without the secrets, which answers do not tell.
//!
//! 32 bits are enough: a table holds some thousand keys.

use rapidhash::v3::{RapidSecrets, rapidhash_v3_nano_inline};
use siphasher::sip::SipHasher13;

/// An odd number without a pattern, for multiplying: 2^64 divided by the golden ratio.
pub(super) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Second half of the `SipHash` key: a 64-bit seed is secret enough, and is what a chunk's header
/// has room for. Fractional digits of the square root of two, as a number with nothing up its
/// sleeve.
const KEY_HIGH: u64 = 0x6a09_e667_f3bc_c908;

/// Hashes keys with one seed.
#[derive(Clone, Copy, Debug)]
pub struct KeyHasher {
    seed: u64,
    algorithm: Algorithm,
}

#[derive(Clone, Copy, Debug)]
enum Algorithm {
    Sip(SipHasher13),
    Rapid(RapidSecrets),
}

impl KeyHasher {
    /// The format of chunks that are made anew.
    pub const NEWEST_FORMAT: u8 = 2;

    /// A hasher for the given seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            algorithm: Algorithm::Rapid(RapidSecrets::seed(seed)),
        }
    }

    /// The hasher of chunks of a format; none if it is not known.
    pub fn of_format(format: u8, seed: u64) -> Option<Self> {
        match format {
            1 => Some(Self {
                seed,
                algorithm: Algorithm::Sip(SipHasher13::new_with_keys(seed, KEY_HIGH)),
            }),
            Self::NEWEST_FORMAT => Some(Self::new(seed)),
            _ => None,
        }
    }

    /// The format of chunks that it is for.
    pub fn format(&self) -> u8 {
        match self.algorithm {
            Algorithm::Sip(_) => 1,
            Algorithm::Rapid(_) => Self::NEWEST_FORMAT,
        }
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u32 {
        let hash = match &self.algorithm {
            Algorithm::Rapid(secrets) => rapidhash_v3_nano_inline::<true, true>(key, secrets),
            Algorithm::Sip(sip) => sip.hash(key),
        };
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
        (self.seed, self.format()) == (other.seed, other.format())
    }
}

impl Eq for KeyHasher {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_fixed_for_good() {
        let long = [7; 100];
        for (format, keys) in [
            (
                1,
                [
                    (&b"key"[..], 0x2de8_0c46),
                    (b"a key of 18 bytes!", 0xbb5f_c6de),
                    (&long, 0x4590_2bce),
                ],
            ),
            (
                2,
                [
                    (&b"key"[..], 0x4b34_a3b1),
                    (b"a key of 18 bytes!", 0x1fbd_78d7),
                    (&long, 0x2df6_9bde),
                ],
            ),
        ] {
            let hasher = |seed| KeyHasher::of_format(format, seed).expect("a known format");
            for (key, expected) in keys {
                assert_eq!(hasher(1).hash(key), expected, "format {format}: {key:?}");
                assert_ne!(hasher(1).hash(key), hasher(2).hash(key));
            }
            assert_eq!(hasher(1).format(), format);
        }
        assert_eq!(KeyHasher::new(1).format(), KeyHasher::NEWEST_FORMAT);
        assert!(KeyHasher::of_format(KeyHasher::NEWEST_FORMAT + 1, 1).is_none());
    }
}
