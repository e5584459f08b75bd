//! A Bloom filter over the keys of a run: it rules most keys out that are not in the run.
//!
//! All bits of a key lie in one cache line ("blocked", Putze, Sanders and Singler 2007). With about
//! 11 bits and 6 lookups a key, 1 in 50 keys that are not in the run passes.
//!
//! Invariant: for every hash that was put in, [`may_have`](Filter::may_have) is true.

use crate::allocator::Block;
use crate::lsm::hash::GOLDEN;
use crate::lsm::work::{self, Work};

/// Runs of more keys than this have no filter, since a filter is freed in one piece.
pub(crate) const FILTER_MAX_KEYS: usize = 320 * 1024;

/// Keys that a block is made for.
const BLOCK_KEYS: usize = 48;

const PROBES: usize = 6;

/// A cache line of eight words.
type FilterBlock = [[u8; 8]; 8];

/// Cleared at once.
const CLEARED_BYTES: usize = 4096;

/// The filter.
#[derive(Debug)]
pub(crate) struct Filter {
    bytes: Block,
    /// How many of the bytes are cleared; all are before the first hash is added.
    cleared_bytes: usize,
}

impl Filter {
    /// A filter for so many keys, which is to be cleared first.
    pub(crate) fn new(key_count: usize) -> Self {
        let block_count = key_count.div_ceil(BLOCK_KEYS).max(1);
        Self {
            bytes: Block::new(block_count * size_of::<FilterBlock>()),
            cleared_bytes: 0,
        }
    }

    /// Clears the filter until `work` is used up; true at the end.
    pub(crate) fn clear(&mut self, work: &mut Work) -> bool {
        while self.cleared_bytes < self.bytes.len() && !work.is_used_up() {
            let rest = &mut self.bytes[self.cleared_bytes..];
            let len = rest.len().min(CLEARED_BYTES);
            rest[..len].fill(0);
            self.cleared_bytes += len;
            work.spend(work::of_new(len));
        }
        self.cleared_bytes == self.bytes.len()
    }

    pub(crate) fn put(&mut self, hash: u32) {
        debug_assert!(
            self.cleared_bytes == self.bytes.len(),
            "a filter that is not cleared"
        );
        let at = self.block_at(hash);
        let words = self.bytes[at..][..size_of::<FilterBlock>()]
            .as_chunks_mut()
            .0;
        for (word, bit) in bits_of(hash) {
            words[word] = (u64::from_le_bytes(words[word]) | bit).to_le_bytes();
        }
    }

    /// False: no key with this hash was added.
    #[inline]
    pub(crate) fn may_have(&self, hash: u32) -> bool {
        let words = self.bytes[self.block_at(hash)..][..size_of::<FilterBlock>()]
            .as_chunks()
            .0;
        bits_of(hash).fold(0, |missing, (word, bit)| {
            missing | (bit & !u64::from_le_bytes(words[word]))
        }) == 0
    }

    /// High bits of the hash choose the block …
    #[inline]
    fn block_at(&self, hash: u32) -> usize {
        let block_count = self.bytes.len() / size_of::<FilterBlock>();
        ((u64::from(hash) * block_count as u64) >> 32) as usize * size_of::<FilterBlock>()
    }
}

/// … and all of them, multiplied, the bits in it: nine for each lookup, from the high end, where
/// the product depends on most.
#[inline]
fn bits_of(hash: u32) -> impl Iterator<Item = (usize, u64)> {
    let product = u64::from(hash).wrapping_mul(GOLDEN);
    (0..PROBES).map(move |lookup| {
        let bits = product >> (u64::BITS as usize - 9 * (lookup + 1));
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
            while !filter.clear(&mut Work::new(rng.usize(1..1 << 20))) {}
            let hashes: Vec<u32> = (0..key_count).map(|_| rng.u32(..)).collect();
            for hash in &hashes {
                filter.put(*hash);
            }
            assert!(
                hashes.iter().all(|hash| filter.may_have(*hash)),
                "{key_count} keys"
            );
            let wrong_count = (0..100_000)
                .filter(|_| filter.may_have(rng.u32(..)))
                .count();
            assert!(
                wrong_count < 3_000,
                "{wrong_count} of 100,000 hashes seem to be among {key_count}"
            );
        }
    }
}
