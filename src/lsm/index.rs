//! A hash table from keys to places in the log: one shard of a memtable's index.
//!
//! Open addressing with linear probing over slots of eight bytes: a look into it is one cache line, whose address is known from
//! the hash, so that it can be fetched ahead. Keys are not in it; who looks says which place has the right one.
//!
//! Invariants:
//! 1. At most three quarters of the slots are taken, so every search ends, and soon.
//! 2. Nothing is ever taken out.

use crate::allocator::prefetch;

use super::memtable::Place;

const FIRST_SLOTS: usize = 8;

/// No place: the log of a memtable is far shorter.
const FREE: Place = Place::MAX;

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u32,
    place: Place,
}

/// A hash table of places.
#[derive(Clone, Debug, Default)]
pub(super) struct Shard {
    /// A power of two of them, or none.
    slots: Box<[Slot]>,
    count: usize,
}

impl Shard {
    /// The place that has a key, by its hash and `is_it`.
    #[inline]
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(Place) -> bool) -> Option<Place> {
        let at = self.find_slot(hash, is_it).ok()?;
        Some(self.slots[at].place)
    }

    /// Puts a place in for a key, and returns the one that it had before.
    #[inline]
    pub(super) fn put(&mut self, hash: u32, place: Place, is_it: impl Fn(Place) -> bool) -> Option<Place> {
        assert!(place != FREE, "a place in the log of a memtable");
        match self.find_slot(hash, is_it) {
            Ok(at) => return Some(std::mem::replace(&mut self.slots[at].place, place)),
            Err(at) if 4 * (self.count + 1) <= 3 * self.slots.len() => self.slots[at] = Slot { hash, place },
            Err(_) => {
                self.grow();
                self.put_new(Slot { hash, place });
            }
        }
        self.count += 1;
        None
    }

    /// Asks for the memory that looking for a hash begins with.
    #[inline]
    pub(super) fn prefetch(&self, hash: u32) {
        if let Some(slot) = self.slots.get(self.first(hash)) {
            prefetch(slot);
        }
    }

    /// Where a search begins.
    #[inline]
    fn first(&self, hash: u32) -> usize {
        hash as usize & self.slots.len().wrapping_sub(1)
    }

    /// The slot of a key, or the free one where it belongs.
    #[inline]
    fn find_slot(&self, hash: u32, is_it: impl Fn(Place) -> bool) -> Result<usize, usize> {
        let mut at = self.first(hash);
        while let Some(slot) = self.slots.get(at) {
            if slot.place == FREE {
                return Err(at);
            }
            if slot.hash == hash && is_it(slot.place) {
                return Ok(at);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
        Err(0)
    }

    fn put_new(&mut self, slot: Slot) {
        if let Err(at) = self.find_slot(slot.hash, |_| false) {
            self.slots[at] = slot;
        }
    }

    fn grow(&mut self) {
        let slot_count = (2 * self.slots.len()).max(FIRST_SLOTS);
        let free = vec![Slot { hash: 0, place: FREE }; slot_count].into_boxed_slice();
        for slot in std::mem::replace(&mut self.slots, free) {
            if slot.place != FREE {
                self.put_new(slot);
            }
        }
    }
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
            // The key of a place, as the log would tell it.
            let mut keys = Vec::new();
            for _ in 0..rng.usize(..2_000) {
                let key = rng.u32(..500);
                let place = Place::try_from(keys.len()).expect("few");
                keys.push(key);
                let before = shard.put(hash_of(key), place, |place| keys[place as usize] == key);
                assert_eq!(before, model.insert(key, place), "seed {seed}");
                assert_eq!(shard.count, model.len());
                assert!(4 * shard.count <= 3 * shard.slots.len());
            }
            for key in 0..600 {
                shard.prefetch(hash_of(key));
                let found = shard.find(hash_of(key), |place| keys[place as usize] == key);
                assert_eq!(found, model.get(&key).copied(), "seed {seed}");
            }
        }
    }
}
