//! `memcmp` and `bcmp` for static builds with musl on x86-64. What musl has there compares byte by
//! byte, which was 4 % of the processor time of pipelined requests.
//!
//! From 16 bytes on, blocks of 16 are compared, the last of which ends where the ranges do and may
//! overlap the one before it. Below, the beginning and the end are compared as two numbers, first
//! byte first, that overlap in the middle.
//!
//! Not here: other processors and glibc, as for `copy.rs`.

#![expect(
    unsafe_code,
    reason = "the C library's contract is in raw pointers; the gain is in the documentation above"
)]

use core::cmp::Ordering;
use core::ptr::read_unaligned;

const BLOCK_BYTES: usize = size_of::<u128>();

/// Loads the bytes at an offset.
///
/// # Safety
///
/// `from` can be read for `N` bytes from the offset on.
#[inline(always)]
unsafe fn load<const N: usize>(from: *const u8, offset: usize) -> [u8; N] {
    // SAFETY: the caller's range.
    unsafe { read_unaligned(from.wrapping_add(offset).cast()) }
}

/// Fewer than eight bytes as a number, ordered as they are; those in the middle may count twice.
///
/// # Safety
///
/// `from` can be read for `len` bytes, and `len < 8`.
#[inline(always)]
#[expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "all are loads, and the proof is the same for each"
)]
unsafe fn short_number(from: *const u8, len: usize) -> u64 {
    // SAFETY: each load begins where the range does, or ends where it does, and is not longer.
    unsafe {
        if len >= 4 {
            let first = u32::from_be_bytes(load(from, 0));
            let last = u32::from_be_bytes(load(from, len.wrapping_sub(4)));
            u64::from(first) << 32 | u64::from(last)
        } else if len >= 2 {
            let first = u16::from_be_bytes(load(from, 0));
            let last = u16::from_be_bytes(load(from, len.wrapping_sub(2)));
            u64::from(first) << 16 | u64::from(last)
        } else if len == 1 {
            u64::from(*from)
        } else {
            0
        }
    }
}

/// How the bytes of two ranges are ordered, as `memcmp` of C has it.
///
/// # Safety
///
/// Both can be read for `len` bytes.
#[inline(always)]
#[expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "all are loads, and the proof is the same for each"
)]
unsafe fn compare(left: *const u8, right: *const u8, len: usize) -> Ordering {
    // Wrapping, since the code of a panic could need `memcmp`; no sum or difference wraps.
    // SAFETY: no load reaches beyond the end of the ranges: in the loop `offset < end`.
    unsafe {
        if len >= BLOCK_BYTES {
            let block_at = |from, offset| u128::from_be_bytes(load(from, offset));
            let end = len.wrapping_sub(BLOCK_BYTES);
            let mut offset = 0;
            while offset < end {
                let (left, right) = (block_at(left, offset), block_at(right, offset));
                if left != right {
                    return left.cmp(&right);
                }
                offset = offset.wrapping_add(BLOCK_BYTES);
            }
            block_at(left, end).cmp(&block_at(right, end))
        } else if len >= 8 {
            let number_at = |from, offset| u64::from_be_bytes(load(from, offset));
            let (left_first, right_first) = (number_at(left, 0), number_at(right, 0));
            if left_first != right_first {
                return left_first.cmp(&right_first);
            }
            let end = len.wrapping_sub(8);
            number_at(left, end).cmp(&number_at(right, end))
        } else {
            short_number(left, len).cmp(&short_number(right, len))
        }
    }
}

/// The symbols that the compiler and the C library call. Inlined they would make the program 19 KB
/// larger, with no gain that could be measured.
#[cfg(target_env = "musl")]
mod symbols {
    use core::ffi::c_int;

    /// `memcmp` of C.
    ///
    /// # Safety
    ///
    /// As in C.
    #[unsafe(no_mangle)]
    #[inline(never)]
    unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, len: usize) -> c_int {
        // SAFETY: the caller keeps the contract of C.
        unsafe { super::compare(left, right, len) as c_int }
    }

    /// `bcmp` of POSIX: zero if the bytes are equal.
    ///
    /// # Safety
    ///
    /// As in POSIX.
    #[unsafe(no_mangle)]
    #[inline(never)]
    unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, len: usize) -> c_int {
        // SAFETY: the caller keeps the contract of POSIX.
        unsafe { super::compare(left, right, len) as c_int }
    }
}

#[cfg(test)]
mod tests {
    use super::compare;

    fn assert_compared(left: &[u8], right: &[u8]) {
        // SAFETY: both slices have this length.
        let order = unsafe { compare(left.as_ptr(), right.as_ptr(), left.len()) };
        assert_eq!(order, left.cmp(right), "{left:?} and {right:?}");
    }

    /// Ranges that begin at different addresses and differ in any one byte, or in that and all
    /// behind it, the other way round. What lies beside the ranges differs, too.
    #[test]
    fn every_length_and_difference_is_compared() {
        for len in 0..=140 {
            for start in 0..17 {
                let (left, mut right) = (vec![0x7f_u8; 200], vec![0x80_u8; 200]);
                right[start..start + len].fill(0x7f);
                let left = &left[3..3 + len];
                assert_compared(left, &right[start..start + len]);
                for different in start..start + len {
                    for byte in [0, 0x7e, 0x80, 0xff] {
                        right[different] = byte;
                        assert_compared(left, &right[start..start + len]);
                        right[different + 1..start + len].fill(!byte);
                        assert_compared(left, &right[start..start + len]);
                        right[different..start + len].fill(0x7f);
                    }
                }
            }
        }
    }
}
