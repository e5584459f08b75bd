//! Memory: what is allocated is counted, and goes back to the kernel when it is freed.
//!
//! - `counting.rs`: the global allocator's count, for `--max-memory`;
//! - `system.rs`: settings of the C library's allocator and of the kernel;
//! - `block.rs`: blocks for chunks and indexes, apart from the heap, in the regions of each
//!   thread's `arena.rs`;
//! - `prefetch.rs`: fetching memory into the processor's cache;
//! - `copy.rs`: `memcpy` and `memmove` for static builds;
//! - `compare.rs`: `memcmp` and `bcmp` for them.
//!
//! The only `unsafe` code of the project is here. `.ci/run memory` runs its tests, and those of
//! the engine's memtables, under valgrind's memcheck.

mod arena;
mod block;
#[cfg(all(target_arch = "x86_64", any(target_env = "musl", test)))]
mod compare;
#[cfg(all(target_arch = "x86_64", any(target_env = "musl", test)))]
mod copy;
mod counting;
mod grains;
mod mapping;
mod prefetch;
mod system;

pub use arena::{Regions, spare_bytes, take_regions};
pub use block::{BLOCK_MAX_BYTES, Block};
pub use counting::{CountingAllocator, allocated_bytes};
pub use prefetch::{CACHE_LINE_BYTES, prefetch};
pub use system::{return_large_blocks, use_small_pages};
