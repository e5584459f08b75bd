//! Telling the C library's allocator, and the system, how this program uses memory.
//!
//! The disk thread would get a heap of its own, in which what it allocates for the loop (the
//! engine, after recovery) stays scattered. One heap for all: measured after reading a log of
//! 950,000 records, 110 MiB resident instead of 124.
//!
//! glibc's malloc takes large blocks from the system one by one and gives each back when it is
//! freed, but after the first such block is freed it raises the size from which it does so, up to
//! 32 MiB: large values then come from the heap, and stay with the process for good. A fixed size
//! ends that. Measured: two values of 16 MiB, one overwritten 20 times, then all deleted and merged
//! away: 34 MiB stay resident without this, 2.2 MiB with it; 62 and 46 MiB while the values are
//! there.
//!
//! Smaller blocks stay in the heap when they are freed, for as long as anything lies behind them.
//! So what is most of the data lies apart ([`Block`]), and chunks that are not going to be needed
//! again give their pages back one by one ([`Block::give_back`]). (When a million entries had
//! expired and chunks lay in the heap, 46 of 66 MiB stayed resident, and where a large part did go
//! back, it went at once and held the loop for 3 ms.)
//!
//! All that is allocated is counted, for `--max-memory`: layers, log, what snapshots pin, buffers
//! of connections. What the process holds beyond that is the heap's own and that of regions:
//! bookkeeping, and holes.
//!
//! The only `unsafe` code of the project, with [`block`]. Run under valgrind's memcheck (30,000
//! entries set over HTTP, a value of 16 MiB set, read and deleted, a compaction, a clean stop): no
//! errors.

mod block;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

pub use block::{BLOCK_MAX_BYTES, Block, spare_bytes};

/// The system's allocator, counted.
#[derive(Debug)]
struct CountingAllocator;

#[global_allocator]
static COUNTING: CountingAllocator = CountingAllocator;

static ALLOCATED_BYTES: AtomicUsize = AtomicUsize::new(0);

#[expect(
    unsafe_code,
    reason = "an allocator is implemented by an unsafe trait; this one only counts"
)]
// SAFETY: every call is handed on to `System` as it is, whose promises are those of the trait;
// counting allocates nothing and cannot panic. A block that could not be had is not counted.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let block = unsafe { System.alloc(layout) };
        count(block, layout.size());
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let block = unsafe { System.alloc_zeroed(layout) };
        count(block, layout.size());
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) };
        subtract(layout.size());
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let moved = unsafe { System.realloc(block, layout, new_size) };
        if !moved.is_null() {
            count(moved, new_size);
            subtract(layout.size());
        }
        moved
    }
}

fn count(block: *mut u8, bytes: usize) {
    if !block.is_null() {
        add(bytes);
    }
}

fn add(bytes: usize) {
    ALLOCATED_BYTES.fetch_add(bytes, Ordering::Relaxed);
}

fn subtract(bytes: usize) {
    ALLOCATED_BYTES.fetch_sub(bytes, Ordering::Relaxed);
}

/// Bytes allocated now, by all threads.
pub fn allocated_bytes() -> usize {
    ALLOCATED_BYTES.load(Ordering::Relaxed)
}

/// Blocks from here on come from the system and go back to it: glibc's own first choice.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MMAP_THRESHOLD_BYTES: i32 = 128 * 1024;

/// Fixes the size above which blocks are returned to the system. To be called once, at the start.
/// With other allocators than glibc's it does nothing.
pub fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(
            unsafe_code,
            reason = "glibc has no safe way to set this; the gain is in the module's documentation"
        )]
        // SAFETY: `mallopt` takes two integers, keeps no pointer, and locks the arena that it
        // changes (mallopt(3): MT-Safe init). M_MMAP_THRESHOLD takes any size from 0 to HEAP_MAX/2
        // (32 MiB); others are refused without effect. M_ARENA_MAX takes any count.
        let is_set = unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES) == 1
                && libc::mallopt(libc::M_ARENA_MAX, 1) == 1
        };
        debug_assert!(is_set, "both values are within bounds");
    }
}

/// Has the system back no memory of this process with huge pages, whatever it does for others; why
/// is in `block.rs`. To be called once, at the start.
pub fn use_small_pages() {
    // Where it cannot be had (a kernel without them, or before 3.15) nothing is lost.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Has the system take back the memory that bytes lie in, which are not read again before they are
/// written.
fn give_back(bytes: &mut [u8]) {
    let page_bytes = rustix::param::page_size();
    let to_page = bytes.as_ptr().align_offset(page_bytes).min(bytes.len());
    let inner = &mut bytes[to_page..];
    let whole_bytes = inner.len() / page_bytes * page_bytes;
    if cfg!(target_os = "linux") && whole_bytes > 0 {
        #[expect(
            unsafe_code,
            reason = "there is no safe way to give back a part of a mapping; the gain is above"
        )]
        // SAFETY: the range is whole pages within a slice that is borrowed mutably, of a region of
        // blocks: a mapping that is anonymous and private. The pages stay mapped and initialized,
        // to zeros (madvise(2), MADV_DONTNEED). Failing is harmless.
        let _ =
            unsafe { libc::madvise(inner.as_mut_ptr().cast(), whole_bytes, libc::MADV_DONTNEED) };
    }
}

/// What processors take from memory at a time, most of them.
pub const CACHE_LINE_BYTES: usize = 64;

/// Asks for the cache line in which something begins that is going to be read soon; where the
/// processor has no such thing, nothing happens.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_around_is_left_alone() {
        let mut kept = Vec::new();
        for len in [0, 1, 4095, 4096, 8191, 8192, 65_536, 100_000] {
            let around = [vec![1_u8; 5_000], vec![2; len], vec![3; 5_000]];
            let [before, given, behind] = around.map(|bytes| Block::copy_of(&bytes));
            given.give_back();
            kept.push((before, behind));
            assert!(Block::copy_of(&vec![4; len]).iter().all(|byte| *byte == 4));
        }
        for (before, behind) in kept {
            assert!(before.iter().all(|byte| *byte == 1) && behind.iter().all(|byte| *byte == 3));
        }
    }
}
