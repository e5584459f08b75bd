//! A hash table from keys to offsets in the log: one shard of a memtable's index.
//!
//! Open addressing with linear probing over cache lines of eight slots. A look-up touches one line
//! as a rule. Its address follows from the hash, so that it can be fetched ahead; all slots of a
//! line are compared at once, without a branch for each that no processor could predict. The table
//! has no keys: the caller compares the key of each record that a search proposes.
//!
//! Invariants:
//! 1. At most three quarters of the slots are taken, so every search ends, and soon.
//! 2. Nothing is ever removed. The slots of a line are taken in order: a line with a free last
//!    slot ends a search.

use crate::allocator::{Block, CACHE_LINE_BYTES, prefetch};

const LINE_SLOTS: usize = 8;

/// Where a record lies in a memtable's part of the log: number of the segment × `SEGMENT_BYTES` +
/// offset in it.
pub(crate) type RecordOffset = u32;

/// No place: the log of a memtable is far shorter.
const FREE: RecordOffset = RecordOffset::MAX;

/// Slots that lie in one cache line: their hashes, then their places.
#[derive(Clone, Copy)]
struct Line<'s>(&'s [[u8; 4]; 2 * LINE_SLOTS]);

const _: () = assert!(CACHE_LINE_BYTES == 4 * 2 * LINE_SLOTS);

impl Line<'_> {
    #[inline]
    fn hash(self, slot: usize) -> u32 {
        u32::from_ne_bytes(self.0[slot])
    }

    #[inline]
    fn place(self, slot: usize) -> RecordOffset {
        RecordOffset::from_ne_bytes(self.0[LINE_SLOTS + slot])
    }

    /// The slot of a key.
    #[inline]
    fn find(self, hash: u32, is_it: impl Fn(RecordOffset) -> bool) -> Option<usize> {
        let mut candidates = (0..LINE_SLOTS).fold(0, |all, slot| {
            all | u32::from(self.hash(slot) == hash) << slot
        });
        while candidates != 0 {
            let slot = candidates.trailing_zeros() as usize;
            let place = self.place(slot);
            if place != FREE && is_it(place) {
                return Some(slot);
            }
            candidates &= candidates - 1;
        }
        None
    }

    /// Whether the next line may have keys of this one.
    #[inline]
    fn is_full(self) -> bool {
        self.place(LINE_SLOTS - 1) != FREE
    }

    /// The taken slots.
    #[inline]
    fn taken_count(self) -> usize {
        (0..LINE_SLOTS)
            .filter(|slot| self.place(*slot) != FREE)
            .count()
    }
}

/// A hash table of places.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    /// A power of two of lines, or none; free slots are all ones.
    block: Option<Block>,
    count: usize,
}

impl Shard {
    /// The place that has a key, by its hash and `is_it`.
    #[inline]
    pub(crate) fn find(
        &self,
        hash: u32,
        is_it: impl Fn(RecordOffset) -> bool,
    ) -> Option<RecordOffset> {
        let (line, slot) = self.find_slot(hash, is_it).ok()?;
        Some(Line(&self.lines()[line]).place(slot))
    }

    /// Sets the place of a key. Returns the place that the key had before, and how many bytes of
    /// new memory the table took. The first place allocates room for `expected_count`.
    #[inline]
    pub(crate) fn put(
        &mut self,
        hash: u32,
        place: RecordOffset,
        expected_count: usize,
        is_it: impl Fn(RecordOffset) -> bool,
    ) -> (Option<RecordOffset>, usize) {
        assert!(place != FREE, "a place in the log of a memtable");
        let mut new_bytes = 0;
        match self.find_slot(hash, is_it) {
            Ok((line, slot)) => {
                let before = Line(&self.lines()[line]).place(slot);
                self.set(line, slot, hash, place);
                return (Some(before), 0);
            }
            Err(line) if 4 * (self.count + 1) <= 3 * LINE_SLOTS * self.lines().len() => {
                self.take(line, hash, place);
            }
            Err(_) => {
                new_bytes = self.grow(expected_count);
                self.put_new(hash, place);
            }
        }
        self.count += 1;
        (None, new_bytes)
    }

    /// Prefetches the line in which a search for a hash begins.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u32) {
        let lines = self.lines();
        if let Some(line) = lines.get(first(lines, hash)) {
            prefetch(line);
        }
    }

    /// Its memory, for freeing it.
    pub(crate) fn into_block(self) -> Option<Block> {
        self.block
    }

    #[inline]
    fn lines(&self) -> &[[[u8; 4]; 2 * LINE_SLOTS]] {
        self.block
            .as_ref()
            .map_or(&[], |block| block.as_chunks().0.as_chunks().0)
    }

    /// The line and slot of a key, or the line where it belongs, which has a free slot.
    #[inline]
    fn find_slot(
        &self,
        hash: u32,
        is_it: impl Fn(RecordOffset) -> bool,
    ) -> Result<(usize, usize), usize> {
        let lines = self.lines();
        let mut at = first(lines, hash);
        while let Some(line) = lines.get(at).map(Line) {
            if let Some(slot) = line.find(hash, &is_it) {
                return Ok((at, slot));
            }
            if !line.is_full() {
                return Err(at);
            }
            at = (at + 1) & (lines.len() - 1);
        }
        Err(0)
    }

    /// Takes the first free slot of a line.
    #[inline]
    fn take(&mut self, line: usize, hash: u32, place: RecordOffset) {
        let slot = Line(&self.lines()[line]).taken_count();
        self.set(line, slot, hash, place);
    }

    #[inline]
    fn set(&mut self, line: usize, slot: usize, hash: u32, place: RecordOffset) {
        if let Some(block) = &mut self.block {
            let line = &mut block[line * CACHE_LINE_BYTES..][..CACHE_LINE_BYTES];
            line[4 * slot..][..4].copy_from_slice(&hash.to_ne_bytes());
            line[4 * (LINE_SLOTS + slot)..][..4].copy_from_slice(&place.to_ne_bytes());
        }
    }

    fn put_new(&mut self, hash: u32, place: RecordOffset) {
        if let Err(line) = self.find_slot(hash, |_| false) {
            self.take(line, hash, place);
        }
    }

    /// Doubles the table; the first one is two thirds full with `expected_count`, so that few
    /// shards have to grow. Returns how many bytes of new memory it takes.
    #[cold]
    fn grow(&mut self, expected_count: usize) -> usize {
        let line_count = match self.lines().len() {
            0 => (3 * expected_count)
                .div_ceil(2 * LINE_SLOTS)
                .next_power_of_two(),
            line_count => 2 * line_count,
        };
        let (mut block, new_bytes) = Block::new_counted(line_count * CACHE_LINE_BYTES);
        block.fill(0xff);
        let before = Self {
            block: self.block.replace(block),
            count: self.count,
        };
        for line in before.lines().iter().map(Line) {
            for slot in 0..line.taken_count() {
                self.put_new(line.hash(slot), line.place(slot));
            }
        }
        new_bytes
    }
}

/// The line that a search begins with.
#[inline]
fn first<T>(lines: &[T], hash: u32) -> usize {
    hash as usize & lines.len().wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Against a map, with hashes that collide as a whole, in their low bits, or not.
    #[test]
    fn behaves_as_a_map() {
        for seed in 0..30 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mask = [0, 7, 0xffff_0000, u32::MAX][rng.usize(..4)];
            let hash_of = |key: u32| key.wrapping_mul(0x9e37_79b9) & mask;
            let (mut shard, mut model) = (Shard::default(), HashMap::new());
            // The key of a place, as in the log.
            let mut keys = Vec::new();
            let expected_count = [0, 1, 300, 5_000][rng.usize(..4)];
            for _ in 0..rng.usize(..2_000) {
                let key = rng.u32(..500);
                let place = RecordOffset::try_from(keys.len()).expect("few");
                keys.push(key);
                let (before, _) = shard.put(hash_of(key), place, expected_count, |place| {
                    keys[place as usize] == key
                });
                assert_eq!(before, model.insert(key, place), "seed {seed}");
                assert_eq!(shard.count, model.len());
                assert!(4 * shard.count <= 3 * LINE_SLOTS * shard.lines().len());
            }
            for key in 0..600 {
                shard.prefetch(hash_of(key));
                let found = shard.find(hash_of(key), |place| keys[place as usize] == key);
                assert_eq!(found, model.get(&key).copied(), "seed {seed}");
            }
        }
    }
}
