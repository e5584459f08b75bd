//! The system's allocator, with what is allocated counted, for `--max-memory`: layers, log, what
//! snapshots pin, buffers of connections.
//!
//! What the process holds beyond that is the heap's own and that of the arenas: bookkeeping, and
//! holes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The allocator that a program names as its global one.
#[derive(Debug)]
pub struct CountingAllocator;

static ALLOCATED_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Bytes allocated now, by all threads: those of blocks, and of everything else where
/// [`CountingAllocator`] is the program's allocator.
pub fn allocated_bytes() -> usize {
    ALLOCATED_BYTES.load(Ordering::Relaxed)
}

pub(super) fn add(bytes: usize) {
    ALLOCATED_BYTES.fetch_add(bytes, Ordering::Relaxed);
}

pub(super) fn subtract(bytes: usize) {
    ALLOCATED_BYTES.fetch_sub(bytes, Ordering::Relaxed);
}

/// Counts an allocation, unless it failed.
fn count(allocated: *mut u8, bytes: usize) -> *mut u8 {
    if !allocated.is_null() {
        add(bytes);
    }
    allocated
}

#[expect(
    unsafe_code,
    reason = "an allocator is implemented by an unsafe trait; this one only counts"
)]
// SAFETY: every call is passed on to `System` unchanged, and `System` keeps the promises of the
// trait; counting allocates nothing and cannot panic.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract, which is that of `System`, too.
        let allocated = unsafe { System.alloc(layout) };
        count(allocated, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let allocated = unsafe { System.alloc_zeroed(layout) };
        count(allocated, layout.size())
    }

    unsafe fn dealloc(&self, allocated: *mut u8, layout: Layout) {
        // SAFETY: as above; `System` allocated what the caller has from this allocator.
        unsafe { System.dealloc(allocated, layout) };
        subtract(layout.size());
    }

    unsafe fn realloc(&self, allocated: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: as above.
        let moved = unsafe { System.realloc(allocated, layout, new_size) };
        if !moved.is_null() {
            subtract(layout.size());
        }
        count(moved, new_size)
    }
}
