//! Sorting a frozen memtable a bounded piece at a time.
//!
//! Entries are gathered in the order of the log, sorted in runs of [`RUN_ENTRIES`], and
//! neighbouring runs merged, two at a time, until there is one. Unlike a heap of all runs, a merge
//! of two reads memory in order, without a branch that the processor cannot predict. Nothing is
//! reallocated on the way: all buffers get their final size when they are first needed.

use std::ops::Range;

use crate::lsm::memtable::index::RecordOffset;
use crate::lsm::memtable::{FrozenMemtable, SortKey};
use crate::lsm::work::{self, Work};

/// Entries sorted at once: some ten microseconds; fewer if long keys differ late.
const RUN_ENTRIES: usize = 1024;
const RUN_ENTRIES_MIN: usize = 16;

/// Bytes of two keys that are compared in one unit of work.
const COMPARED_BYTES: usize = 8;

/// Records gathered, or entries merged, between two looks at the budget.
const STEP_ENTRIES: usize = 64;

#[derive(Debug)]
enum SortPhase {
    Gather {
        next: RecordOffset,
    },
    SortRuns {
        next_run: usize,
    },
    /// The rest of two neighbouring runs of `run_entries` each; the runs before them lie merged in
    /// `merged`.
    MergeRuns {
        run_entries: usize,
        left: Range<usize>,
        right: Range<usize>,
    },
    TakePlaces,
}

/// The buffers of a sort, which are worth keeping for the next one.
pub(crate) type Buffers = [Vec<SortKey>; 2];

/// The state of one sort.
#[derive(Debug)]
pub(crate) struct Sorter {
    phase: SortPhase,
    keys: Vec<SortKey>,
    merged: Vec<SortKey>,
    order: Vec<RecordOffset>,
    /// Entries that are sorted at once.
    run_entries: usize,
    /// Work of comparing two keys, at most, about.
    compare_work: usize,
}

impl Sorter {
    /// A sort of a memtable, in empty buffers.
    pub(crate) fn new(frozen: &FrozenMemtable, [mut keys, merged]: Buffers) -> Self {
        keys.reserve_exact(frozen.memtable.entry_count);
        let compare_work = frozen.mean_rest_bytes() / COMPARED_BYTES;
        let run_entries = RUN_ENTRIES >> (1 + compare_work / 4).ilog2();
        Self {
            phase: SortPhase::Gather { next: 0 },
            keys,
            merged,
            order: Vec::new(),
            run_entries: run_entries.max(RUN_ENTRIES_MIN),
            compare_work,
        }
    }

    /// Its buffers, empty again.
    pub(crate) fn into_buffers(self) -> Buffers {
        [self.keys, self.merged].map(|mut buffer| {
            buffer.clear();
            buffer
        })
    }

    /// Sorts until `work` is used up; true when the memtable has its order.
    pub(crate) fn step(&mut self, frozen: &FrozenMemtable, work: &mut Work) -> bool {
        while !work.is_used_up() {
            match &mut self.phase {
                SortPhase::Gather { next } => {
                    work.spend(work::SORT_GATHER * STEP_ENTRIES);
                    let next = *next;
                    self.phase = match self.gather(frozen, next) {
                        Some(next) => SortPhase::Gather { next },
                        None => SortPhase::SortRuns { next_run: 0 },
                    };
                }
                SortPhase::SortRuns { next_run: start } if *start < self.keys.len() => {
                    let end = self.keys.len().min(*start + self.run_entries);
                    self.keys[*start..end].sort_unstable_by(|a, b| frozen.compare(*a, *b));
                    let depth = self.run_entries.ilog2() as usize;
                    work.spend((work::SORT_RUN + depth * self.compare_work) * (end - *start));
                    *start = end;
                }
                SortPhase::SortRuns { .. } => {
                    if self.keys.len() > self.run_entries {
                        self.merged.reserve_exact(self.keys.len());
                    }
                    self.begin_pass(self.run_entries);
                }
                SortPhase::MergeRuns {
                    run_entries,
                    left,
                    right,
                } => {
                    if Range::is_empty(left) && Range::is_empty(right) {
                        if right.end < self.keys.len() {
                            (*left, *right) = next_runs(right.end, *run_entries, self.keys.len());
                        } else {
                            let run_entries = 2 * *run_entries;
                            std::mem::swap(&mut self.keys, &mut self.merged);
                            self.merged.clear();
                            self.begin_pass(run_entries);
                        }
                        continue;
                    }
                    merge_some(&self.keys, left, right, frozen, &mut self.merged);
                    work.spend((work::SORT_MERGE + self.compare_work) * STEP_ENTRIES);
                    if *run_entries == self.run_entries {
                        // The first pass writes to new memory.
                        work.spend(work::of_new(STEP_ENTRIES * size_of::<SortKey>()));
                    }
                }
                SortPhase::TakePlaces if self.order.len() < self.keys.len() => {
                    let next = &self.keys[self.order.len()..];
                    self.order
                        .extend(next.iter().take(STEP_ENTRIES).map(|key| key.place));
                    work.spend(work::SORT_MERGE * STEP_ENTRIES);
                }
                SortPhase::TakePlaces => {
                    frozen.set_order(std::mem::take(&mut self.order));
                    return true;
                }
            }
        }
        false
    }

    /// Gathers the next records, without superseded ones; `None` at the end.
    fn gather(&mut self, frozen: &FrozenMemtable, mut place: RecordOffset) -> Option<RecordOffset> {
        for _ in 0..STEP_ENTRIES {
            let (key, next) = frozen.next_record(place)?;
            self.keys.extend(key);
            place = next;
        }
        Some(place)
    }

    /// Begins to merge runs of so many entries, or ends merging if there is but one.
    fn begin_pass(&mut self, run_entries: usize) {
        self.phase = if run_entries < self.keys.len() {
            let (left, right) = next_runs(0, run_entries, self.keys.len());
            SortPhase::MergeRuns {
                run_entries,
                left,
                right,
            }
        } else {
            self.order.reserve_exact(self.keys.len());
            SortPhase::TakePlaces
        };
    }
}

/// Two neighbouring runs, the second of them maybe short or empty.
fn next_runs(start: usize, run_entries: usize, end: usize) -> (Range<usize>, Range<usize>) {
    let middle = end.min(start + run_entries);
    (start..middle, middle..end.min(middle + run_entries))
}

/// Merges the next entries of two runs.
fn merge_some(
    keys: &[SortKey],
    left: &mut Range<usize>,
    right: &mut Range<usize>,
    frozen: &FrozenMemtable,
    merged: &mut Vec<SortKey>,
) {
    let mut count = STEP_ENTRIES;
    while count > 0 && !Range::is_empty(left) && !Range::is_empty(right) {
        let (from_left, from_right) = (keys[left.start], keys[right.start]);
        let is_right = frozen.compare(from_right, from_left).is_lt();
        merged.push(if is_right { from_right } else { from_left });
        left.start += usize::from(!is_right);
        right.start += usize::from(is_right);
        count -= 1;
    }
    // One of the runs is at its end: the rest of the other follows.
    for run in [left, right] {
        let rest = run.start..run.end.min(run.start + count);
        count -= rest.len();
        run.start = rest.end;
        merged.extend_from_slice(&keys[rest]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::lsm::{Lsm, NewValue, Options, ScanState};

    /// Memtables of any size, with keys that are overwritten, share their beginnings or all of
    /// their first bytes, against a map; whatever the budget of a step.
    #[test]
    fn the_newest_of_each_key_comes_in_order() {
        for seed in 0..24 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut lsm = Lsm::new(Options {
                memtable_bytes: 64 << 20,
                hash_seed: seed,
            });
            let mut model = BTreeMap::new();
            let prefix = ["", "key:", "a prefix that all keys share: ", "0000000"][rng.usize(..4)];
            let key_count = [10, 3_000, u32::MAX][rng.usize(..3)];
            for _ in 0..[0, 1, 1_024, 1_025, 2_048, 5_000, 9_000][rng.usize(..7)] {
                let key = format!("{prefix}{}", rng.u32(..key_count)).into_bytes();
                let version = lsm.set(&key, NewValue::Inline(b"v"), None);
                model.insert(key, version);
            }
            let (budget, snapshot) = (rng.usize(1..100_000), lsm.snapshot());
            let (mut scan, mut found) = (snapshot.scan(b""), Vec::new());
            loop {
                match scan.step(budget).0 {
                    ScanState::Searching => {}
                    ScanState::Found => found.extend(
                        scan.entry()
                            .map(|entry| (entry.key.to_vec(), entry.version)),
                    ),
                    ScanState::End => break,
                }
            }
            assert!(found.into_iter().eq(model), "seed {seed}");
        }
    }
}
