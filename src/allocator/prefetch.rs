//! Fetching memory into the processor's cache before it is read.

/// What processors take from memory at a time, most of them.
pub const CACHE_LINE_BYTES: usize = 64;

/// Fetches the cache line in which a value begins that is going to be read soon. Without effect
/// where the processor cannot do that.
#[inline(always)]
pub fn prefetch<T>(begin: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[expect(
            unsafe_code,
            reason = "there is no safe way to prefetch; the gain is in lsm/lookup_cache.rs"
        )]
        // SAFETY: the address is that of a live reference; a prefetch reads nothing that the
        // program could see, and SSE is part of every x86-64.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(begin).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = begin;
}
