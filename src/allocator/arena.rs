//! Which grains of which regions are in use, for the blocks of one thread.
//!
//! Each thread has an arena of its own, so that no lock is needed. What another thread frees is
//! left in the region, and taken back before the arena asks the kernel for more. The regions of one
//! thread's arena can be handed to another's: recovery fills them on the disk thread, and the loop
//! goes on with them ([`take_regions`]).
//!
//! A block takes the first hole that is large enough, in the oldest region that has one; so the
//! newest regions become empty first when data gets less, and go back to the kernel.
//!
//! Why regions are not made of huge pages: the kernel clears one as a whole when it is touched
//! first, which holds the loop for 0.3 ms, or for 8 to 25 ms where a virtual machine's host has yet
//! to give the memory. Since what requests look for is fetched ahead, waits for tables of pages
//! overlap, too. Measured with 1 M entries, with huge pages and without, in turns: GET 11.0 and
//! 11.0 us of processor time, 16 pipelined 1.9 and 1.9; SET 14.1 and 11.8, 3.2 and 3.5. With 10 M:
//! GET 11.0 and 11.3, 2.5 and 2.6; SET 16 pipelined 3.8 and 4.2. The longest slice of maintenance:
//! 8 ms and 0.6 ms.
//!
//! Invariants:
//! 1. A grain is in one block at most.
//! 2. At most one region without a block is kept.
//! 3. Finding a hole looks at the bitmaps of few regions: those that have been seen to have none
//!    are not looked at again before something in them is freed.

use std::cell::RefCell;
use std::sync::Arc;

use slab::Slab;

use super::grains::{Bits, GRAIN_BYTES, GRAINS, next, words};
use super::mapping::Mapping;

thread_local! {
    static ARENA: RefCell<Arena> = const { RefCell::new(Arena::new()) };
}

/// Regions on their way from one thread's arena to another's. Blocks in them stay what they are.
#[derive(Debug, Default)]
pub struct Regions(Vec<Region>);

/// Takes all regions from the arena of this thread.
pub fn take_regions() -> Regions {
    let arena = ARENA.replace(Arena::new());
    let regions = arena.regions.into_iter();
    Regions(regions.map(|(_, region)| region).collect())
}

impl Regions {
    /// Gives the regions to the arena of this thread.
    pub fn adopt(self) {
        ARENA.with_borrow_mut(|arena| self.0.into_iter().for_each(|region| arena.insert(region)));
    }
}

/// Memory of freed blocks that was not given back, in bytes, about: blocks that this thread makes
/// next may lie there.
pub fn spare_bytes() -> usize {
    ARENA.with_borrow(|arena| arena.spare_count) * GRAIN_BYTES
}

/// Takes grains in a row. Returns their region, the first of them, and how many were touched
/// before.
pub(super) fn allocate(count: usize) -> (Arc<Mapping>, usize, usize) {
    ARENA.with_borrow_mut(|arena| arena.allocate(count))
}

/// Frees grains; `is_given_back`: the kernel has taken back their memory. Returns how many bytes
/// went back to the kernel with them: those of a region that has become empty.
pub(super) fn free(mapping: &Mapping, grain: usize, count: usize, is_given_back: bool) -> usize {
    let freed = ARENA.try_with(|arena| {
        let mut arena = arena.borrow_mut();
        let number = arena.number_of(mapping)?;
        if is_given_back {
            arena.regions[number].set_touched(grain, count, false);
        }
        Some(arena.free(number, grain, count))
    });
    let Ok(Some(surplus)) = freed else {
        // The region is of another thread's arena, or of one that has ended.
        mapping.return_grains(grain, count);
        return 0;
    };
    // The region is unmapped here.
    surplus.map_or(0, |region| region.touched_count(0, GRAINS)) * GRAIN_BYTES
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

#[derive(Debug)]
struct Region {
    mapping: Arc<Mapping>,
    /// Grains that are in use.
    used: Bits,
    used_count: usize,
    /// Grains that were in use since the kernel gave their memory last, which so may hold some.
    touched: Bits,
}

impl Arena {
    const fn new() -> Self {
        Self {
            regions: Slab::new(),
            hole_max: Vec::new(),
            empty: None,
            spare_count: 0,
        }
    }

    /// The number of a region, if it is this arena's.
    fn number_of(&self, mapping: &Mapping) -> Option<usize> {
        let number = mapping.number();
        let region = self.regions.get(number)?;
        std::ptr::eq(Arc::as_ptr(&region.mapping), mapping).then_some(number)
    }

    fn allocate(&mut self, count: usize) -> (Arc<Mapping>, usize, usize) {
        if let Some(taken) = self.allocate_in_hole(count) {
            return taken;
        }
        self.take_back();
        if let Some(taken) = self.allocate_in_hole(count) {
            return taken;
        }
        self.insert(Region::new());
        self.allocate_in_hole(count)
            .expect("a region holds any block")
    }

    fn allocate_in_hole(&mut self, count: usize) -> Option<(Arc<Mapping>, usize, usize)> {
        let mut number = 0;
        loop {
            let has_room = |hole_max: &u16| usize::from(*hole_max) >= count;
            number += self.hole_max.get(number..)?.iter().position(has_room)?;
            let region = &mut self.regions[number];
            match region.find(count) {
                Ok(grain) => {
                    if self.empty == Some(number) {
                        self.empty = None;
                    }
                    region.mark(grain, count, true);
                    let touched_count = region.touched_count(grain, count);
                    region.set_touched(grain, count, true);
                    self.spare_count -= touched_count;
                    return Some((Arc::clone(&region.mapping), grain, touched_count));
                }
                Err(hole_max) => self.hole_max[number] = small(hole_max),
            }
        }
    }

    /// Takes a region in, with the blocks that are in it.
    fn insert(&mut self, region: Region) {
        let free_count = GRAINS - region.used_count;
        let spare_count = region.touched_count(0, GRAINS) - region.used_count;
        let number = self.regions.vacant_key();
        region.mapping.set_number(number);
        self.regions.insert(region);
        if number == self.hole_max.len() {
            self.hole_max.push(0);
        }
        self.hole_max[number] = small(free_count);
        self.spare_count += spare_count;
        if free_count == GRAINS {
            drop(self.on_empty(number));
        }
    }

    /// Takes back what other threads have freed.
    fn take_back(&mut self) {
        for number in 0..self.hole_max.len() {
            let region = self.regions.get(number);
            let Some(returned) = region.and_then(|region| region.mapping.take_returned()) else {
                continue;
            };
            let mut at = 0;
            while let Some(grain) = next(&returned, at, true) {
                at = next(&returned, grain, false).unwrap_or(GRAINS);
                drop(self.free(number, grain, at - grain));
            }
        }
    }

    /// Returns a region that is to go back to the kernel, if there is one now.
    fn free(&mut self, number: usize, grain: usize, count: usize) -> Option<Region> {
        let region = &mut self.regions[number];
        region.mark(grain, count, false);
        self.spare_count += region.touched_count(grain, count);
        // It may have joined others.
        self.hole_max[number] = small(GRAINS - region.used_count);
        if region.used_count > 0 {
            return None;
        }
        self.on_empty(number)
    }

    /// A region has no block any more. Of two such regions the older one is kept.
    fn on_empty(&mut self, number: usize) -> Option<Region> {
        let other = self.empty.replace(number)?;
        let (kept, surplus) = (other.min(number), other.max(number));
        self.empty = Some(kept);
        self.hole_max[surplus] = 0;
        let region = self.regions.remove(surplus);
        self.spare_count -= region.touched_count(0, GRAINS);
        Some(region)
    }
}

fn small(grains: usize) -> u16 {
    u16::try_from(grains).expect("a region has few grains")
}

impl Region {
    fn new() -> Self {
        Self {
            mapping: Arc::new(Mapping::new()),
            used: [0; GRAINS / 64],
            used_count: 0,
            touched: [0; GRAINS / 64],
        }
    }

    /// The first of `count` free grains in a row, or how long the longest row is.
    fn find(&self, count: usize) -> Result<usize, usize> {
        let (mut start, mut longest) = (0, 0);
        while let Some(free) = next(&self.used, start, false) {
            let end = next(&self.used, free, true).unwrap_or(GRAINS);
            if end - free >= count {
                return Ok(free);
            }
            longest = longest.max(end - free);
            start = end;
        }
        Err(longest)
    }

    fn touched_count(&self, grain: usize, count: usize) -> usize {
        words(grain, count)
            .map(|(word, bits)| (self.touched[word] & bits).count_ones() as usize)
            .sum()
    }

    fn set_touched(&mut self, grain: usize, count: usize, is_touched: bool) {
        for (word, bits) in words(grain, count) {
            if is_touched {
                self.touched[word] |= bits;
            } else {
                self.touched[word] &= !bits;
            }
        }
    }

    fn mark(&mut self, grain: usize, count: usize, is_used: bool) {
        for (word, bits) in words(grain, count) {
            let before = self.used[word] & bits;
            assert!(
                before == if is_used { 0 } else { bits },
                "a grain is taken once, and put back once"
            );
            self.used[word] ^= bits;
        }
        self.used_count = if is_used {
            self.used_count + count
        } else {
            self.used_count - count
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random blocks against a model: no two share a grain, and holes are used again, whichever
    /// thread frees.
    #[test]
    fn grains_are_in_one_block_and_holes_are_used_again() {
        for seed in 0..10 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut arena = Arena::new();
            let mut held: Vec<(Arc<Mapping>, usize, usize)> = Vec::new();
            // Freed by another thread, and perhaps not taken back yet.
            let (mut used, mut returned) = (0, 0);
            for _ in 0..3000 {
                let few = if used > 3 * GRAINS { 3 } else { 1 };
                if rng.u8(..4) >= few || held.is_empty() {
                    let count_max = if rng.bool() { 64 } else { GRAINS / 4 };
                    let count = rng.usize(1..=count_max);
                    let region_count = arena.regions.len();
                    let (mapping, grain, _) = arena.allocate(count);
                    if arena.regions.len() > region_count {
                        returned = 0;
                    }
                    let is_apart = |(other, at, len): &(Arc<Mapping>, usize, usize)| {
                        !Arc::ptr_eq(other, &mapping) || grain + count <= *at || at + len <= grain
                    };
                    assert!(
                        held.iter().all(is_apart),
                        "seed {seed}: two blocks in one place"
                    );
                    used += count;
                    held.push((mapping, grain, count));
                } else {
                    let (mapping, grain, count) = held.swap_remove(rng.usize(..held.len()));
                    let number = arena.number_of(&mapping).expect("of this arena");
                    used -= count;
                    if rng.u8(..4) == 0 {
                        mapping.return_grains(grain, count);
                        returned += count;
                        continue;
                    }
                    if rng.bool() {
                        arena.regions[number].set_touched(grain, count, false);
                    }
                    arena.free(number, grain, count);
                }
                let sum = |of: fn(&Region) -> usize| -> usize {
                    arena.regions.iter().map(|(_, region)| of(region)).sum()
                };
                let in_use = sum(|region| region.used_count);
                assert!((used..=used + returned).contains(&in_use), "seed {seed}");
                let touched = sum(|region| region.touched_count(0, GRAINS));
                assert_eq!(arena.spare_count, touched - in_use, "seed {seed}");
                assert!(
                    arena.regions.len() <= 2 + 2 * used.max(3 * GRAINS) / GRAINS,
                    "seed {seed}: holes are not used"
                );
            }
            for (mapping, grain, count) in held {
                mapping.return_grains(grain, count);
            }
            arena.take_back();
            assert_eq!(
                (arena.regions.len(), arena.empty.is_some()),
                (1, true),
                "seed {seed}"
            );
        }
    }
}
