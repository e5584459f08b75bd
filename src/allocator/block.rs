//! Blocks of memory for what is most of the data, chunks, and for what comes and goes beside it,
//! the indexes of memtables.
//!
//! They are cut out of regions of their own, which go back to the system when they are empty.
//!
//! Why not in huge pages: the system clears one as a whole when it is touched first, which holds
//! the loop for 0.3 ms, or for 8 to 25 ms where a virtual machine's host has yet to give the
//! memory. Since what requests look for is fetched ahead, waits for tables of pages overlap, too.
//! Measured with 1 M entries, with huge pages and without, in turns: GET 11.0 and 11.0 us of
//! processor time, 16 pipelined 1.9 and 1.9; SET 14.1 and 11.8, 3.2 and 3.5. With 10 M: GET 11.0
//! and 11.3, 2.5 and 2.6; SET 16 pipelined 3.8 and 4.2. The longest slice of maintenance: 8 ms and
//! 0.6 ms.
//!
//! A block takes the first hole that is large enough, in the oldest region that has one; so the
//! newest regions become empty first when data gets less, and go back to the system.
//!
//! Invariants:
//! 1. The bytes of a block are its own from [`Block::new`] until it is dropped, and are always
//!    initialized.
//! 2. A region lives as long as any block of it. At most one region without a block is kept.
//! 3. Finding a hole looks at the bitmaps of few regions: those that have been seen to have none
//!    are not looked at again before something in them is freed.

use std::alloc::{Layout, handle_alloc_error};
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use slab::Slab;

/// A region: some dozens of chunks, and far more than a page.
const REGION_BYTES: usize = 2 * 1024 * 1024;

/// Blocks begin at multiples of this within their region.
const GRAIN_BYTES: usize = 1024;

const GRAINS: usize = REGION_BYTES / GRAIN_BYTES;

/// The longest block there can be.
pub const BLOCK_MAX_BYTES: usize = REGION_BYTES;

static ARENA: Mutex<Arena> = Mutex::new(Arena::new());

/// Some bytes.
#[derive(Debug)]
pub struct Block {
    start: NonNull<u8>,
    len: usize,
    region: usize,
}

#[expect(unsafe_code, reason = "a block has a pointer of its own")]
// SAFETY: a block owns its bytes as a `Box<[u8]>` does: nobody else has a pointer to them.
unsafe impl Send for Block {}

#[expect(unsafe_code, reason = "a block has a pointer of its own")]
// SAFETY: as above; a shared block is only read.
unsafe impl Sync for Block {}

impl Block {
    /// A block of `len` bytes, at most [`BLOCK_MAX_BYTES`], with anything in them.
    pub fn new(len: usize) -> Self {
        Self::new_counted(len).0
    }

    /// The same, and how many bytes of it the system has yet to give memory for.
    pub fn new_counted(len: usize) -> (Self, usize) {
        assert!(len <= BLOCK_MAX_BYTES, "a block of {len} bytes");
        let (region, start, touched_count) = arena().allocate(grains(len));
        super::add(grains(len) * GRAIN_BYTES);
        (
            Self { start, len, region },
            (grains(len) - touched_count) * GRAIN_BYTES,
        )
    }

    /// A block that holds these bytes.
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut block = Self::new(bytes.len());
        block.copy_from_slice(bytes);
        block
    }

    /// Shortens the block, if it is one of `len` bytes already but for bookkeeping: it takes as
    /// much memory. False: it does not.
    pub fn shorten(&mut self, len: usize) -> bool {
        let fits = len <= self.len && grains(len) == grains(self.len);
        if fits {
            self.len = len;
        }
        fits
    }

    /// Frees the block. Returns how many bytes went back to the system with it: those of a region
    /// that has become empty.
    pub fn free(self) -> usize {
        ManuallyDrop::new(self).release()
    }

    /// Has the system take back the memory that the block lies in, though its place is kept, and
    /// frees it as [`free`](Self::free) does.
    pub fn give_back(mut self) -> usize {
        super::give_back(&mut self);
        arena().on_given_back(self.region, self.start, grains(self.len));
        self.free()
    }

    /// To be done once, last of all.
    fn release(&mut self) -> usize {
        super::subtract(grains(self.len) * GRAIN_BYTES);
        arena().free(self.region, self.start, grains(self.len)) * GRAIN_BYTES
    }
}

impl Deref for Block {
    type Target = [u8];

    #[inline(always)]
    #[expect(unsafe_code, reason = "a block has a pointer of its own")]
    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes are the block's own and initialized (invariant 1), and borrowed as long
        // as the block is.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Block {
    #[inline(always)]
    #[expect(unsafe_code, reason = "a block has a pointer of its own")]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the block is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.release();
    }
}

/// Memory of freed blocks that was not given back, in bytes, about: blocks that are made next may
/// lie there.
pub fn spare_bytes() -> usize {
    arena().spare_count * GRAIN_BYTES
}

/// Grains that so many bytes take; an empty block takes one, so that every block has a place.
fn grains(bytes: usize) -> usize {
    bytes.div_ceil(GRAIN_BYTES).max(1)
}

fn arena() -> MutexGuard<'static, Arena> {
    // Nothing in here panics half-way; and a panic ends the process.
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Arena {
    regions: Slab<Region>,
    /// By number of the region: no hole in it is longer, in grains.
    hole_max: Vec<u16>,
    /// A region without a block.
    empty: Option<usize>,
    /// Grains that are touched and free.
    spare_count: usize,
}

/// A bit for each grain.
type Bits = [u64; GRAINS / 64];

#[derive(Debug)]
struct Region {
    start: NonNull<u8>,
    /// Grains that are in use.
    used: Bits,
    used_count: usize,
    /// Grains that were in use since the system gave their memory last, which so may hold some.
    touched: Bits,
}

// SAFETY: a region's memory is reached through its blocks alone; here its address is a number.
#[expect(unsafe_code, reason = "a region has a pointer of its own")]
unsafe impl Send for Region {}

impl Arena {
    const fn new() -> Self {
        Self {
            regions: Slab::new(),
            hole_max: Vec::new(),
            empty: None,
            spare_count: 0,
        }
    }

    /// Returns the region's number, the block's start, and how many grains of it were touched.
    fn allocate(&mut self, count: usize) -> (usize, NonNull<u8>, usize) {
        let mut number = 0;
        while let Some(at) = self.hole_max[number..]
            .iter()
            .position(|hole| usize::from(*hole) >= count)
        {
            number += at;
            let region = &mut self.regions[number];
            match region.find(count) {
                Ok(grain) => {
                    if region.used_count == 0 {
                        self.empty = None;
                    }
                    let touched_count = region.touch(grain, count);
                    self.spare_count -= touched_count;
                    return (number, region.take(grain, count), touched_count);
                }
                Err(hole_max) => self.hole_max[number] = small(hole_max),
            }
        }
        let region = Region::map();
        let number = self.regions.insert(region);
        if number == self.hole_max.len() {
            self.hole_max.push(0);
        }
        self.hole_max[number] = small(GRAINS);
        let region = &mut self.regions[number];
        region.touch(0, count);
        (number, region.take(0, count), 0)
    }

    /// Returns how many grains that were touched went back to the system: those of a region that
    /// has become empty.
    fn free(&mut self, number: usize, start: NonNull<u8>, count: usize) -> usize {
        let region = &mut self.regions[number];
        let grain = region.put_back(start, count);
        self.spare_count += region.touched_count(grain, count);
        // It may have joined others.
        self.hole_max[number] = small(GRAINS - region.used_count);
        if region.used_count > 0 {
            return 0;
        }
        match self.empty {
            None => {
                self.empty = Some(number);
                0
            }
            Some(other) => {
                // The older one is kept.
                let (kept, gone) = (other.min(number), other.max(number));
                self.empty = Some(kept);
                self.hole_max[gone] = 0;
                let region = self.regions.remove(gone);
                let touched_count = region.touched_count(0, GRAINS);
                self.spare_count -= touched_count;
                region.unmap();
                touched_count
            }
        }
    }

    /// The memory of a block that is about to be freed is with the system.
    fn on_given_back(&mut self, number: usize, start: NonNull<u8>, count: usize) {
        let region = &mut self.regions[number];
        let grain = region.grain_of(start);
        region.set_touched(grain, count, false);
    }
}

fn small(grains: usize) -> u16 {
    u16::try_from(grains).expect("a region has few grains")
}

impl Region {
    /// A region from the system, of zeros.
    fn map() -> Self {
        let layout = Layout::from_size_align(REGION_BYTES, 1).expect("a size");
        let Some(start) = map() else {
            handle_alloc_error(layout)
        };
        Self {
            start,
            used: [0; GRAINS / 64],
            used_count: 0,
            touched: [0; GRAINS / 64],
        }
    }

    #[expect(unsafe_code, reason = "what was mapped is unmapped")]
    fn unmap(self) {
        assert!(self.used_count == 0, "a region with blocks");
        // SAFETY: the region was mapped with this length by `map`, no block of it is left, and it
        // is gone from the arena.
        let outcome = unsafe { libc::munmap(self.start.as_ptr().cast(), REGION_BYTES) };
        debug_assert!(outcome == 0, "a whole mapping is unmapped");
    }

    /// The first of `count` free grains in a row, or how long the longest row is.
    fn find(&self, count: usize) -> Result<usize, usize> {
        let (mut start, mut longest) = (0, 0);
        while let Some(free) = self.next(start, false) {
            let end = self.next(free, true).unwrap_or(GRAINS);
            if end - free >= count {
                return Ok(free);
            }
            longest = longest.max(end - free);
            start = end;
        }
        Err(longest)
    }

    /// The next grain from `start` on that is in use, or is not.
    fn next(&self, start: usize, is_used: bool) -> Option<usize> {
        let mut at = start;
        while at < GRAINS {
            let word = if is_used {
                self.used[at / 64]
            } else {
                !self.used[at / 64]
            };
            let rest = word >> (at % 64);
            if rest != 0 {
                return Some(at + rest.trailing_zeros() as usize);
            }
            at = (at / 64 + 1) * 64;
        }
        None
    }

    #[expect(
        unsafe_code,
        reason = "a place within the region is named by a pointer"
    )]
    fn take(&mut self, grain: usize, count: usize) -> NonNull<u8> {
        self.mark(grain, count, true);
        // SAFETY: the grain lies within the region.
        unsafe { self.start.add(grain * GRAIN_BYTES) }
    }

    /// Returns its first grain.
    fn put_back(&mut self, start: NonNull<u8>, count: usize) -> usize {
        let grain = self.grain_of(start);
        self.mark(grain, count, false);
        grain
    }

    fn grain_of(&self, start: NonNull<u8>) -> usize {
        (start.addr().get() - self.start.addr().get()) / GRAIN_BYTES
    }

    /// Takes note that grains are touched; returns how many of them were before.
    fn touch(&mut self, grain: usize, count: usize) -> usize {
        let before = self.touched_count(grain, count);
        self.set_touched(grain, count, true);
        before
    }

    fn touched_count(&self, grain: usize, count: usize) -> usize {
        (grain..grain + count)
            .filter(|at| self.touched[at / 64] & (1 << (at % 64)) != 0)
            .count()
    }

    fn set_touched(&mut self, grain: usize, count: usize, is_touched: bool) {
        for at in grain..grain + count {
            let bit = 1 << (at % 64);
            self.touched[at / 64] = if is_touched {
                self.touched[at / 64] | bit
            } else {
                self.touched[at / 64] & !bit
            };
        }
    }

    fn mark(&mut self, grain: usize, count: usize, is_used: bool) {
        for at in grain..grain + count {
            let bit = 1 << (at % 64);
            assert!(
                (self.used[at / 64] & bit != 0) != is_used,
                "a grain is taken once, and put back once"
            );
            self.used[at / 64] ^= bit;
        }
        self.used_count = if is_used {
            self.used_count + count
        } else {
            self.used_count - count
        };
    }
}

/// Maps a region.
#[expect(unsafe_code, reason = "memory is asked for from the system")]
fn map() -> Option<NonNull<u8>> {
    let (protection, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a new mapping at an address that the system chooses.
    let mapped =
        unsafe { libc::mmap(std::ptr::null_mut(), REGION_BYTES, protection, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        None
    } else {
        NonNull::new(mapped.cast())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random blocks against a model: their bytes stay their own, and holes are used again.
    #[test]
    fn blocks_are_their_own() {
        for seed in 0..10 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut arena = Arena::new();
            let mut held: Vec<(usize, NonNull<u8>, usize)> = Vec::new();
            let mut used = 0;
            for _ in 0..3000 {
                let wants_more = if used > 3 * GRAINS {
                    rng.u8(..4) == 0
                } else {
                    rng.u8(..4) > 0
                };
                if wants_more || held.is_empty() {
                    let count = if rng.bool() {
                        rng.usize(1..=64)
                    } else {
                        rng.usize(1..=GRAINS / 4)
                    };
                    let spare_before = arena.spare_count;
                    let (number, start, touched_count) = arena.allocate(count);
                    assert_eq!(
                        arena.spare_count,
                        spare_before - touched_count,
                        "seed {seed}"
                    );
                    let place = start.addr().get();
                    for (_, other, other_count) in &held {
                        let other = other.addr().get();
                        assert!(
                            place + count * GRAIN_BYTES <= other
                                || other + other_count * GRAIN_BYTES <= place,
                            "seed {seed}: two blocks in one place"
                        );
                    }
                    used += count;
                    held.push((number, start, count));
                } else {
                    let (number, start, count) = held.swap_remove(rng.usize(..held.len()));
                    if rng.bool() {
                        arena.on_given_back(number, start, count);
                    }
                    let of_regions = |arena: &Arena| {
                        arena
                            .regions
                            .iter()
                            .map(|(_, region)| region.touched_count(0, GRAINS))
                            .sum::<usize>()
                    };
                    let touched_before = of_regions(&arena);
                    let gone = arena.free(number, start, count);
                    assert_eq!(of_regions(&arena), touched_before - gone, "seed {seed}");
                    used -= count;
                }
                assert_eq!(
                    arena
                        .regions
                        .iter()
                        .map(|(_, region)| region.used_count)
                        .sum::<usize>(),
                    used
                );
                let touched = arena
                    .regions
                    .iter()
                    .map(|(_, region)| region.touched_count(0, GRAINS))
                    .sum::<usize>();
                assert_eq!(arena.spare_count, touched - used, "seed {seed}");
                assert!(
                    arena.regions.len() <= 2 + 2 * used.max(3 * GRAINS) / GRAINS,
                    "seed {seed}: holes are not used"
                );
            }
            for (number, start, count) in held {
                arena.free(number, start, count);
            }
            assert_eq!(
                (arena.regions.len(), arena.empty.is_some()),
                (1, true),
                "seed {seed}"
            );
            let last = arena.empty.expect("one is kept");
            arena.regions.remove(last).unmap();
        }
    }

    #[test]
    fn bytes_stay_until_they_are_freed() {
        let mut blocks = Vec::new();
        for (index, len) in [0, 1, 1023, 1024, 1025, 65_536, BLOCK_MAX_BYTES, 5_000]
            .into_iter()
            .enumerate()
        {
            let fill = u8::try_from(index).expect("few");
            blocks.push((Block::copy_of(&vec![fill; len]), fill, len));
            let mut given = Block::new(70_000);
            given.fill(0xff);
            given.give_back();
        }
        for (mut block, fill, len) in blocks {
            assert_eq!(block.len(), len);
            for shorter in [len / 2, len.saturating_sub(1)] {
                let is_alike =
                    shorter.div_ceil(GRAIN_BYTES).max(1) == len.div_ceil(GRAIN_BYTES).max(1);
                assert_eq!(block.shorten(shorter), is_alike, "{len} to {shorter}");
                assert_eq!(block.len(), if is_alike { shorter } else { len });
                assert!(!block.shorten(len + GRAIN_BYTES), "a block grows");
                if is_alike {
                    break;
                }
            }
            assert!(block.iter().all(|byte| *byte == fill));
            assert_eq!(
                block.as_ptr().align_offset(64),
                0,
                "blocks begin with a cache line"
            );
        }
    }
}
