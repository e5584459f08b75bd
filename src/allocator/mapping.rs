//! A region of memory from the kernel, shared by the arena that cuts blocks out of it and by those
//! blocks.
//!
//! Invariants:
//! 1. The memory stays mapped as long as the `Mapping`, which every block of it shares.
//! 2. All bytes are initialized, always: the kernel maps zeros, and gives back zeros.

use std::alloc::{Layout, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::grains::{Bits, GRAIN_BYTES, GRAINS, REGION_BYTES, words};

/// The region.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    /// The region's number in the arena that has it. Only that arena's thread sets it.
    number: AtomicUsize,
    /// Grains that other threads have freed, and the arena has not taken back yet.
    returned: [AtomicU64; GRAINS / 64],
    has_returned: AtomicBool,
}

// SAFETY: a mapping is memory of the process, whichever thread asks for it; its bytes are reached
// through blocks alone, and all else is atomic.
#[expect(unsafe_code, reason = "a mapping has a pointer of its own")]
unsafe impl Send for Mapping {}

// SAFETY: as above.
#[expect(unsafe_code, reason = "a mapping has a pointer of its own")]
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a region of zeros.
    #[expect(unsafe_code, reason = "memory is asked for from the kernel")]
    pub(super) fn new() -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let anywhere = std::ptr::null_mut();
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let mapped = unsafe { libc::mmap(anywhere, REGION_BYTES, protection, flags, -1, 0) };
        let start = NonNull::new(mapped.cast()).filter(|_| mapped != libc::MAP_FAILED);
        let Some(start) = start else {
            handle_alloc_error(Layout::from_size_align(REGION_BYTES, 1).expect("a size"))
        };
        Self {
            start,
            number: AtomicUsize::new(0),
            returned: [const { AtomicU64::new(0) }; GRAINS / 64],
            has_returned: AtomicBool::new(false),
        }
    }

    /// Where a grain begins.
    #[expect(unsafe_code, reason = "a place in the region is named by a pointer")]
    pub(super) fn grain(&self, grain: usize) -> NonNull<u8> {
        assert!(grain < GRAINS, "a grain of the region");
        // SAFETY: the place lies within the mapping, by the assertion.
        unsafe { self.start.add(grain * GRAIN_BYTES) }
    }

    /// The grain that begins at an address of the region.
    pub(super) fn grain_at(&self, start: NonNull<u8>) -> usize {
        (start.addr().get() - self.start.addr().get()) / GRAIN_BYTES
    }

    pub(super) fn number(&self) -> usize {
        self.number.load(Ordering::Relaxed)
    }

    pub(super) fn set_number(&self, number: usize) {
        self.number.store(number, Ordering::Relaxed);
    }

    /// Leaves grains to the arena of another thread.
    pub(super) fn return_grains(&self, grain: usize, count: usize) {
        for (word, bits) in words(grain, count) {
            // Releases the bytes, which the arena's thread acquires with the bits.
            self.returned[word].fetch_or(bits, Ordering::Release);
        }
        self.has_returned.store(true, Ordering::Release);
    }

    /// Takes the grains that other threads have left; none if there are none.
    pub(super) fn take_returned(&self) -> Option<Bits> {
        let has_returned = self.has_returned.swap(false, Ordering::Acquire);
        let take = |word: &AtomicU64| word.swap(0, Ordering::Acquire);
        has_returned.then(|| self.returned.each_ref().map(take))
    }
}

impl Drop for Mapping {
    #[expect(unsafe_code, reason = "what was mapped is unmapped")]
    fn drop(&mut self) {
        // SAFETY: mapped with this length by `new`; no block is left, since each shares the
        // mapping, which is about to go.
        let outcome = unsafe { libc::munmap(self.start.as_ptr().cast(), REGION_BYTES) };
        debug_assert!(outcome == 0, "a whole mapping is unmapped");
    }
}
