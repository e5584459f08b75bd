//! Searching eight bytes at once, in an ordinary register ("SIMD within a register").
//!
//! Each function takes eight bytes in little-endian order and marks the bytes that it searches for
//! by their high bits. The lowest mark is right, and is that of the first such byte; marks above it
//! may be wrong. Without such a byte there is no mark.
//!
//! Source: Mycroft's test for a zero byte (1987), as in Warren, Hacker's Delight, section 6-1.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x80 * ONES;

/// Marks bytes below `limit`, which is at most 0x80.
#[inline]
pub fn below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(u64::from(limit) * ONES) & !word & HIGHS
}

/// Marks bytes that are `byte`.
#[inline]
pub fn equal(word: u64, byte: u8) -> u64 {
    below(word ^ (u64::from(byte) * ONES), 1)
}

/// Marks bytes that are `byte`; all marks are right, which takes one step more.
#[inline]
pub fn each_equal(word: u64, byte: u8) -> u64 {
    let differing = word ^ (u64::from(byte) * ONES);
    // The addition carries into the high bit of a byte from its lower ones, and no further.
    !(((differing & !HIGHS) + !HIGHS) | differing) & HIGHS
}

/// Marks bytes above `limit`, which is below 0x80.
#[inline]
pub fn above(word: u64, limit: u8) -> u64 {
    // The addition carries out of a byte only where it is above, and then the mark is not the
    // lowest.
    (word.wrapping_add(u64::from(0x7f - limit) * ONES) | word) & HIGHS
}

/// Whether all bytes are ASCII.
#[inline]
pub fn is_ascii(word: u64) -> bool {
    word & HIGHS == 0
}

/// The index of the first marked byte, 0 to 7; 8: none is marked.
#[inline]
pub fn first(marks: u64) -> usize {
    marks.trailing_zeros() as usize / 8
}

/// The first eight bytes of a slice as a big-endian number, filled with zeros: numbers compare as
/// the bytes do.
#[inline]
pub fn big_endian_prefix(bytes: &[u8]) -> u64 {
    if let Some(first) = bytes.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    // Two overlapping halves: both have the same bytes where they overlap.
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let [first, last] = [first, last].map(|half| u64::from(u32::from_be_bytes(*half)));
        return first << 32 | last << (64 - 8 * bytes.len());
    }
    bytes
        .iter()
        .rev()
        .fold(0, |number, byte| (number >> 8) | u64::from(*byte) << 56)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_found() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..100_000 {
            // Few values, so that they meet; those around the limits, so that they differ by one.
            let bytes: [u8; 8] = std::array::from_fn(|_| {
                [0, 1, 0x20, 0x21, 0x22, 0x7f, 0x80, 0x81, 0xff][rng.usize(..9)]
            });
            let word = u64::from_le_bytes(bytes);
            let position = |is_it: &dyn Fn(u8) -> bool| {
                bytes.iter().position(|byte| is_it(*byte)).unwrap_or(8)
            };
            assert_eq!(
                first(below(word, 0x21)),
                position(&|byte| byte < 0x21),
                "{bytes:x?}"
            );
            assert_eq!(
                first(equal(word, 0x21)),
                position(&|byte| byte == 0x21),
                "{bytes:x?}"
            );
            let each: Vec<usize> = (0..8)
                .filter(|at| each_equal(word, 0x21) >> (8 * at) & 0x80 != 0)
                .collect();
            assert_eq!(
                each,
                (0..8).filter(|at| bytes[*at] == 0x21).collect::<Vec<_>>(),
                "{bytes:x?}"
            );
            assert_eq!(each_equal(word, 0x21) & !HIGHS, 0);
            assert_eq!(
                first(above(word, 0x7e)),
                position(&|byte| byte > 0x7e),
                "{bytes:x?}"
            );
            assert_eq!(
                first(above(word, 0x20)),
                position(&|byte| byte > 0x20),
                "{bytes:x?}"
            );
        }
    }

    #[test]
    fn a_prefix_is_filled_with_zeros() {
        let bytes = [0x81, 0xff, 3, 4, 0x85, 6, 7, 0xf8, 9];
        for len in 0..=bytes.len() {
            let mut filled = [0; 8];
            filled[..len.min(8)].copy_from_slice(&bytes[..len.min(8)]);
            assert_eq!(
                big_endian_prefix(&bytes[..len]),
                u64::from_be_bytes(filled),
                "{len}"
            );
        }
    }
}
