//! How the C library's allocator and the kernel are to serve this program. To be called once, at
//! the start, before there is a second thread.
//!
//! One heap for all threads: the disk thread would get a heap of its own, in which what it
//! allocates for the loop (the engine, after recovery) stays scattered. Measured after reading a
//! log of 950,000 records: 110 MiB resident instead of 124.
//!
//! A fixed size above which allocations come from the kernel and go back to it: glibc raises that
//! size, up to 32 MiB, after the first such allocation is freed; large values then come from the
//! heap, and stay with the process for good. Measured: two values of 16 MiB, one overwritten 20
//! times, then all deleted and merged away: 34 MiB stay resident without this, 2.2 MiB with it; 62
//! and 46 MiB while the values are there.

/// Allocations of this size and above come from the kernel: glibc's own first choice.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MMAP_THRESHOLD_BYTES: i32 = 128 * 1024;

/// Has glibc use one heap, and return large allocations to the kernel when they are freed. With
/// another C library it does nothing.
pub fn return_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    for (option, value) in [
        (libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES),
        (libc::M_ARENA_MAX, 1),
    ] {
        #[expect(
            unsafe_code,
            reason = "glibc has no safe way to set this; the gain is in the module's documentation"
        )]
        // SAFETY: `mallopt` takes two integers, keeps no pointer, and locks the heap that it
        // changes (mallopt(3): MT-Safe init). M_MMAP_THRESHOLD takes any size from 0 to HEAP_MAX/2
        // (32 MiB) and refuses others without effect. M_ARENA_MAX takes any count.
        let outcome = unsafe { libc::mallopt(option, value) };
        debug_assert!(outcome == 1, "both values are within bounds");
    }
}

/// Has the kernel use no huge pages for this process, whatever it does for others; why is in
/// `arena.rs`.
pub fn use_small_pages() {
    // Where that fails (a kernel without huge pages, or before 3.15) nothing is lost.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
