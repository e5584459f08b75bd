//! Units of maintenance work, so that slices are bounded by what they do and not by a clock.
//!
//! One unit is about the cost of moving one byte; the constants below are the costs of other work
//! in this unit. They were measured with `cargo bench --bench engine` and only need to be right
//! within a factor of two: they bound slices, and decide nothing else.

/// Handling one entry in a merge, its bytes aside: comparing, hashing, indexing.
pub(super) const ENTRY: usize = 64;

/// Looking at a chunk or a layer and its first key, in memory that is in no cache.
pub(super) const CHUNK_LOOK: usize = 1536;

/// Looking whether an entry of a chunk has expired.
pub(super) const EXPIRY_LOOK: usize = 8;

/// Finishing a chunk: checksum, exact copy, hash table.
pub(super) const CHUNK_FINISH: usize = 16 * 1024;

/// Copying a chunk.
pub(super) const CHUNK_COPY: usize = 8 * 1024;

/// Flushing a small memtable, and merging it further: a chunk for each, in the end.
pub(super) const SMALL_LAYER: usize = 4 * CHUNK_FINISH;

/// Looking at one record of a memtable's log, to sort it if it is its key's newest.
pub(super) const SORT_GATHER: usize = 64;

/// Sorting one entry within a run.
pub(super) const SORT_RUN: usize = 48;

/// Merging one entry out of two sorted runs.
pub(super) const SORT_MERGE: usize = 12;

/// Taking back a layer from a dropped snapshot; freeing the layer comes on top.
pub(super) const RETURN: usize = 512;

/// Freeing one allocation.
pub(super) const FREE: usize = 1024;

/// Giving memory back to the kernel: for a chunk, some ten microseconds.
pub(super) fn of_give_back(bytes: usize) -> usize {
    bytes * 3 / 8
}

/// Merging one entry of `bytes`.
pub(super) fn of_entry(bytes: usize) -> usize {
    ENTRY + bytes
}

/// Freeing a large value.
pub(super) fn of_free(bytes: usize) -> usize {
    FREE + of_unmap(bytes)
}

/// Unmapping so many bytes that were touched: the kernel takes the pages back one by one.
pub(super) fn of_unmap(bytes: usize) -> usize {
    bytes / 16
}

/// Filling new memory: the kernel provides each page when it is touched, in 1 us, or in 30 where a
/// virtual machine's host has to provide it first.
pub(super) fn of_new(bytes: usize) -> usize {
    2 * bytes
}

/// A budget of work, and how much of it is spent.
#[derive(Debug)]
pub(super) struct Work {
    budget: usize,
    spent: usize,
}

impl Work {
    pub(super) fn new(budget: usize) -> Self {
        Self { budget, spent: 0 }
    }

    /// Lowers the budget to this, if it is higher.
    pub(super) fn limit(&mut self, budget: usize) {
        self.budget = self.budget.min(budget);
    }

    pub(super) fn spend(&mut self, units: usize) {
        self.spent += units;
    }

    pub(super) fn spent(&self) -> usize {
        self.spent
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.spent >= self.budget
    }
}
