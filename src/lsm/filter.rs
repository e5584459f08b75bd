//! A Bloom filter over the keys of a run: most of the time it is known without looking into the run that a key is not in it.
//!
//! All bits of a key lie in one cache line ("blocked", Putze, Sanders and Singler 2007). At about 11 bits and 6 probes a key, of
//! keys that are not there 1 in 50 seems to be.
//!
//! Invariant: for every hash that was put in, [`may_have`](Filter::may_have) is true.

use super::run::GOLDEN;

/// Runs of more keys than this have no filter: it is made, and freed, in one piece.
pub(super) const FILTER_MAX_KEYS: usize = 320 * 1024;

/// Keys that a block is made for.
const BLOCK_KEYS: usize = 48;

const PROBES: usize = 6;

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct FilterBlock([u64; 8]);

/// Which hashes there are, about.
#[derive(Debug)]
pub(super) struct Filter {
    blocks: Box<[FilterBlock]>,
}

impl Filter {
    /// An empty one, for so many keys.
    pub(super) fn new(key_count: usize) -> Self {
        let block_count = key_count.div_ceil(BLOCK_KEYS).max(1);
        Self { blocks: vec![FilterBlock([0; 8]); block_count].into() }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.blocks)
    }

    pub(super) fn put(&mut self, hash: u32) {
        let at = self.block_of(hash);
        for (word, bit) in bits_of(hash) {
            self.blocks[at].0[word] |= bit;
        }
    }

    /// False: no key with this hash was put in.
    #[inline]
    pub(super) fn may_have(&self, hash: u32) -> bool {
        let FilterBlock(words) = &self.blocks[self.block_of(hash)];
        bits_of(hash).fold(0, |missing, (word, bit)| missing | (bit & !words[word])) == 0
    }

    /// High bits of the hash choose the block …
    #[inline]
    fn block_of(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.blocks.len() as u64) >> 32) as usize
    }
}

/// … and all of them, multiplied, the bits in it: nine for each probe, from the high end, where the product depends on most.
#[inline]
fn bits_of(hash: u32) -> impl Iterator<Item = (usize, u64)> {
    let product = u64::from(hash).wrapping_mul(GOLDEN);
    (0..PROBES).map(move |probe| {
        let bits = product >> (u64::BITS as usize - 9 * (probe + 1));
        ((bits >> 6) as usize & 7, 1 << (bits & 63))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_and_little_else() {
        let mut rng = fastrand::Rng::with_seed(1);
        for key_count in [0, 1, 47, 5_000, FILTER_MAX_KEYS] {
            let mut filter = Filter::new(key_count);
            let hashes: Vec<u32> = (0..key_count).map(|_| rng.u32(..)).collect();
            for hash in &hashes {
                filter.put(*hash);
            }
            assert!(hashes.iter().all(|hash| filter.may_have(*hash)), "{key_count} keys");
            let wrong_count = (0..100_000).filter(|_| filter.may_have(rng.u32(..))).count();
            assert!(wrong_count < 3_000, "{wrong_count} of 100,000 hashes seem to be among {key_count}");
        }
    }
}
