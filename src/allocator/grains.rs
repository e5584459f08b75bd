//! The grains that a region is made of, and sets of them as bits.

/// A region: some dozens of chunks, and far more than a page.
pub(super) const REGION_BYTES: usize = 2 * 1024 * 1024;

/// Blocks begin at multiples of this within their region.
pub(super) const GRAIN_BYTES: usize = 1024;

pub(super) const GRAINS: usize = REGION_BYTES / GRAIN_BYTES;

/// A bit for each grain.
pub(super) type Bits = [u64; GRAINS / 64];

/// Grains that so many bytes take; an empty block takes one, so that every block has a place.
pub(super) fn grains_of(bytes: usize) -> usize {
    bytes.div_ceil(GRAIN_BYTES).max(1)
}

/// The words in which the bits of `count` grains from `grain` on lie, each with these bits.
pub(super) fn words(grain: usize, count: usize) -> impl Iterator<Item = (usize, u64)> {
    let end = grain + count;
    (grain / 64..end.div_ceil(64)).map(move |word| {
        let (from, to) = (grain.max(word * 64), end.min(word * 64 + 64));
        (word, u64::MAX >> (64 - (to - from)) << (from - word * 64))
    })
}

/// The next grain from `start` on with its bit set, or not set.
pub(super) fn next(bits: &Bits, start: usize, is_set: bool) -> Option<usize> {
    let mut at = start;
    while at < GRAINS {
        let word = bits[at / 64];
        let rest = if is_set { word } else { !word } >> (at % 64);
        if rest != 0 {
            return Some(at + rest.trailing_zeros() as usize);
        }
        at = (at / 64 + 1) * 64;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_the_bits_of_the_grains() {
        for (grain, count) in [
            (0, 1),
            (63, 2),
            (64, 64),
            (5, 300),
            (GRAINS - 1, 1),
            (0, GRAINS),
        ] {
            let mut bits: Bits = [0; GRAINS / 64];
            for (word, part) in words(grain, count) {
                bits[word] |= part;
            }
            let set: u32 = bits.iter().map(|word| word.count_ones()).sum();
            assert_eq!(set as usize, count);
            assert_eq!(next(&bits, 0, true), Some(grain));
            let end = Some(grain + count).filter(|end| *end < GRAINS);
            assert_eq!(next(&bits, grain, false), end);
        }
    }
}
