//! Sorting a frozen memtable a bounded piece at a time.
//!
//! Entries are gathered in the order of the log, sorted in runs of [`RUN_ENTRIES`], and the runs merged through a heap. Nothing is
//! reallocated on the way: both buffers get their final size at the start.

use std::cmp::Ordering;

use super::memtable::{FrozenMemtable, Place, SortKey};
use super::work::{self, Work};

/// Entries sorted at once: some ten microseconds.
const RUN_ENTRIES: usize = 1024;

/// Records gathered between two looks at the budget.
const GATHER_ENTRIES: usize = 16;

#[derive(Debug)]
enum Phase {
    Gather { next: Place },
    SortRuns { next_run: usize },
    Merge,
}

/// The state of one sort.
#[derive(Debug)]
pub(super) struct Sorter {
    phase: Phase,
    keys: Vec<SortKey>,
    /// A binary heap of runs, the one with the smallest next key on top: (next index, end index) into `keys`.
    heap: Vec<(usize, usize)>,
    order: Vec<Place>,
}

impl Sorter {
    pub(super) fn new(frozen: &FrozenMemtable) -> Self {
        Self {
            phase: Phase::Gather { next: 0 },
            keys: Vec::with_capacity(frozen.entry_count()),
            heap: Vec::with_capacity(frozen.entry_count().div_ceil(RUN_ENTRIES)),
            order: Vec::with_capacity(frozen.entry_count()),
        }
    }

    /// Goes on until `work` is used up; true when the memtable has its order.
    pub(super) fn step(&mut self, frozen: &FrozenMemtable, work: &mut Work) -> bool {
        while !work.is_used_up() {
            match self.phase {
                Phase::Gather { next } => {
                    work.spend(work::SORT_GATHER * GATHER_ENTRIES);
                    self.phase = match self.gather(frozen, next) {
                        Some(next) => Phase::Gather { next },
                        None => Phase::SortRuns { next_run: 0 },
                    };
                }
                Phase::SortRuns { next_run: start } if start < self.keys.len() => {
                    let end = self.keys.len().min(start + RUN_ENTRIES);
                    self.keys[start..end].sort_unstable_by(|a, b| frozen.compare(*a, *b));
                    work.spend(work::SORT_RUN * (end - start));
                    self.heap_push(frozen, (start, end));
                    self.phase = Phase::SortRuns { next_run: end };
                }
                Phase::SortRuns { .. } => self.phase = Phase::Merge,
                Phase::Merge => {
                    let Some(&(next, end)) = self.heap.first() else {
                        frozen.set_order(std::mem::take(&mut self.order));
                        return true;
                    };
                    self.order.push(self.keys[next].place);
                    work.spend(work::SORT_MERGE);
                    if next + 1 < end {
                        self.heap[0].0 = next + 1;
                    } else {
                        self.heap.swap_remove(0);
                    }
                    self.heap_sift_down(frozen);
                }
            }
        }
        false
    }

    /// Takes down the next records but for those that a newer one took the place of; `None` at the end.
    fn gather(&mut self, frozen: &FrozenMemtable, mut place: Place) -> Option<Place> {
        for _ in 0..GATHER_ENTRIES {
            let (key, next) = frozen.next_record(place)?;
            self.keys.extend(key);
            place = next;
        }
        Some(place)
    }

    fn heap_less(&self, frozen: &FrozenMemtable, a: usize, b: usize) -> bool {
        frozen.compare(self.keys[self.heap[a].0], self.keys[self.heap[b].0]) == Ordering::Less
    }

    fn heap_push(&mut self, frozen: &FrozenMemtable, run: (usize, usize)) {
        self.heap.push(run);
        let mut child = self.heap.len() - 1;
        while child > 0 {
            let parent = (child - 1) / 2;
            if !self.heap_less(frozen, child, parent) {
                return;
            }
            self.heap.swap(child, parent);
            child = parent;
        }
    }

    fn heap_sift_down(&mut self, frozen: &FrozenMemtable) {
        let mut parent = 0;
        loop {
            let (left, right) = (2 * parent + 1, 2 * parent + 2);
            if left >= self.heap.len() {
                return;
            }
            let child = if right < self.heap.len() && self.heap_less(frozen, right, left) { right } else { left };
            if !self.heap_less(frozen, child, parent) {
                return;
            }
            self.heap.swap(child, parent);
            parent = child;
        }
    }
}
