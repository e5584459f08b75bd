//! The layers there are, newest first, and what to merge next.
//!
//! Level 0 holds frozen memtables, then come levels of small runs, about [`LEVEL_RUNS`] times larger from one to the next,
//! and last the *bottom*: one run with most of the data. Policy (lazy levelling, after Dayan and Idreos 2018):
//! - a frozen memtable is sorted, so that scans need not;
//! - once the layers above the bottom add up to a [`BOTTOM_SHARE`]th of it, all of them are merged into it;
//! - otherwise [`LEVEL_RUNS`] memtables become a run of level 1, or as many runs of a level one of the next;
//! - memtables that wait for others become a run when there is nothing else to do.
//!
//! Beside that, runs that hold what expires are swept from time to time (`expiry.rs`): a job without sources rewrites chunks of
//! which a good part has expired.
//!
//! So reads look into few layers, memory beyond the live data is bounded by that share, and each entry is rewritten a
//! number of times that grows with the logarithm of the data, plus [`BOTTOM_SHARE`] + 1 for the bottom.
//!
//! Invariants:
//! 1. Layers are ordered: a key's newest entry is in the first layer that has it.
//! 2. A source of a job keeps its place until the job is done; the job's target lies directly below its oldest source.
//!    So every intermediate state reads right.
//! 3. Layers leave oldest first within a level, and only when all of them is in the target.
//!
//! Not here: how a merge is done (`merge/job.rs`).

use std::ops::Range;
use std::sync::Arc;

use crate::lsm::footprint::Footprint;
use crate::lsm::hash::KeyHasher;
use crate::lsm::immutable_layer::ImmutableLayer;
use crate::lsm::log::record::Entry;
use crate::lsm::lookup_cache::ABSENT;
use crate::lsm::memtable::FrozenMemtable;
use crate::lsm::merge::cursor::Preparation;
use crate::lsm::merge::job::{MergeJob, Tombstones};
use crate::lsm::reclaim::FreeQueue;
use crate::lsm::run::{LookupKey, Position, Run};
use crate::lsm::stats::LevelStats;
use crate::lsm::work::Work;

/// Runs of one level that are merged into one of the next: reads pay for more runs, writes for fewer.
const LEVEL_RUNS: usize = 4;

/// The bottom is rewritten when the layers above add up to one part in this many of it. Overwriting a million small entries again
/// and again took 1.1 times the memory of a fresh load with 8 and 1.1 to 1.15 with 6, for as much processor time a write; merging values
/// of 1 KiB that do not stay as long as they are, so that chunks cannot be updated, took 30 % more of it with 8.
const BOTTOM_SHARE: usize = 6;

/// Where a layer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// 0 for frozen memtables, above it for runs.
    Upper(u8),
    /// The one run with most of the data.
    Bottom,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LayerState {
    Idle,
    /// Read by a job; leaves when it is done.
    Source(JobId),
    /// Written by a job.
    Target(JobId),
}

#[derive(Debug)]
struct Layer {
    level: Level,
    state: LayerState,
    content: ImmutableLayer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct JobId(u64);

#[derive(Debug)]
struct Job {
    id: JobId,
    merge: MergeJob,
    /// What was to be moved when it started, and what was done since, in units of work.
    expected_work: usize,
    done_work: usize,
}

/// All immutable layers and the jobs among them.
#[derive(Debug)]
pub(super) struct Levels {
    /// Newest first.
    layers: Vec<Layer>,
    /// Uppermost first: small merges go before large ones, which have more time.
    jobs: Vec<Job>,
    next_job_id: u64,
    /// Sorts memtables that were frozen, before anything else is done.
    preparation: Preparation,
    hasher: KeyHasher,
    is_compaction_due: bool,
    /// Memtables are not to wait for others.
    is_flush_due: bool,
    generation: u64,
}

impl Levels {
    pub(super) fn new(hasher: KeyHasher) -> Self {
        Self {
            layers: Vec::new(),
            jobs: Vec::new(),
            next_job_id: 0,
            preparation: Preparation::of_many(),
            hasher,
            is_compaction_due: false,
            is_flush_due: false,
            generation: 0,
        }
    }

    /// Looks in one layer after the other. `places`: what [`LookupCache`](crate::lsm::lookup_cache::LookupCache) knows of the first of them.
    #[inline]
    pub(super) fn get(&self, lookup: &LookupKey<'_>, positions: &[u32]) -> Option<Entry<'_>> {
        self.layers.iter().enumerate().find_map(|(index, layer)| {
            match (&layer.content, positions.get(index)) {
                (_, Some(&ABSENT)) => None,
                (ImmutableLayer::Run(run), Some(position)) => {
                    run.get_in(Position::unpack(*position), lookup)
                }
                (content, _) => content.get(lookup),
            }
        })
    }

    /// A number that is another one whenever layers, or chunks in them, have moved.
    #[inline]
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn push_frozen(&mut self, frozen: Arc<FrozenMemtable>) {
        self.generation += 1;
        self.preparation.add(Arc::clone(&frozen));
        let content = ImmutableLayer::Memtable(frozen);
        self.layers.insert(
            0,
            Layer {
                level: Level::Upper(0),
                state: LayerState::Idle,
                content,
            },
        );
    }

    /// Levels whose layers are the given runs, newest first.
    pub(super) fn adopt(hasher: KeyHasher, runs: Vec<(Level, Run)>) -> Self {
        let idle = |(level, run)| Layer {
            level,
            state: LayerState::Idle,
            content: ImmutableLayer::Run(run),
        };
        Self {
            layers: runs.into_iter().map(idle).collect(),
            ..Self::new(hasher)
        }
    }

    /// Clones of all layers, newest first.
    pub(super) fn snapshot(&self) -> Vec<(Level, ImmutableLayer)> {
        self.layers
            .iter()
            .map(|layer| (layer.level, layer.content.clone()))
            .collect()
    }

    /// Hands all layers over to be freed.
    pub(super) fn clear(&mut self, free_queue: &mut FreeQueue) {
        self.generation += 1;
        // These hold on to layers.
        self.jobs.clear();
        self.preparation = Preparation::default();
        self.layers
            .drain(..)
            .for_each(|layer| free_queue.push_layer(layer.content));
    }

    /// Frees what is kept for memtables to come; false: there is nothing.
    pub(super) fn free_spare(&mut self) -> bool {
        self.preparation.free_buffers()
    }

    /// Whether something is kept for memtables to come.
    pub(super) fn has_spare(&self) -> bool {
        self.preparation.has_buffers()
    }

    /// What is in the layers, newest first.
    pub(super) fn contents(
        &self,
    ) -> impl DoubleEndedIterator<Item = &ImmutableLayer> + ExactSizeIterator {
        self.layers.iter().map(|layer| &layer.content)
    }

    /// Bytes of all layers, large values included.
    pub(super) fn memory_bytes(&self) -> usize {
        self.layers
            .iter()
            .map(|layer| layer.content.memory_bytes())
            .sum()
    }

    /// Frozen memtables that wait to be flushed, or are being flushed.
    pub(super) fn frozen_count(&self) -> usize {
        self.layers
            .iter()
            .filter(|layer| layer.level == Level::Upper(0))
            .count()
    }

    /// Asks for all layers to become one.
    pub(super) fn compact(&mut self) {
        self.is_compaction_due = true;
    }

    /// The oldest frozen memtable that is not in runs yet.
    pub(super) fn oldest_memtable(&self) -> Option<&FrozenMemtable> {
        self.layers
            .iter()
            .rev()
            .find_map(|layer| match &layer.content {
                ImmutableLayer::Memtable(frozen) => Some(&**frozen),
                ImmutableLayer::Run(_) => None,
            })
    }

    /// Has memtables that wait for others become runs.
    pub(super) fn flush(&mut self) {
        self.is_flush_due = true;
    }

    /// Works on what is due, until `work` is used up or nothing is due; true if a job was finished. What has expired by
    /// `removed_until_ms` goes.
    pub(super) fn step(
        &mut self,
        last_version: u64,
        removed_until_ms: u64,
        work: &mut Work,
        free_queue: &mut FreeQueue,
    ) -> bool {
        let mut has_finished = false;
        self.generation += 1;
        if !self.preparation.step(work) {
            return false;
        }
        self.start_due_jobs(last_version);
        while !work.is_used_up()
            && let Some(job) = self.jobs.first_mut()
        {
            let spent_before = work.spent();
            let target = self
                .layers
                .iter_mut()
                .find(|layer| layer.state == LayerState::Target(job.id));
            let Some(ImmutableLayer::Run(target)) = target.map(|layer| &mut layer.content) else {
                unreachable!("a job's target is a run among the layers");
            };
            let is_done = job.merge.step(target, removed_until_ms, work, free_queue);
            job.done_work += work.spent() - spent_before;
            if is_done {
                self.finish_first_job(free_queue);
                has_finished = true;
                self.start_due_jobs(last_version);
            }
        }
        has_finished
    }

    fn finish_first_job(&mut self, free_queue: &mut FreeQueue) {
        let Job { id, merge, .. } = self.jobs.remove(0);
        let filter = merge.into_filter();
        let is_source = |layer: &mut Layer| layer.state == LayerState::Source(id);
        self.layers
            .extract_if(.., is_source)
            .for_each(|source| free_queue.push_layer(source.content));
        let target = self
            .layers
            .iter_mut()
            .find(|layer| layer.state == LayerState::Target(id));
        let target = target.expect("the target of the job");
        target.state = LayerState::Idle;
        if let (ImmutableLayer::Run(run), Some(filter)) = (&mut target.content, filter) {
            run.set_filter(filter);
        }
        self.layers
            .retain(|layer| layer.state != LayerState::Idle || layer.content.entry_count() > 0);
    }

    /// Chunks with entries that expire, some day.
    pub(super) fn expiring_chunk_count(&self) -> usize {
        self.layers.iter().map(Layer::expiring_chunk_count).sum()
    }

    /// Begins a sweep of all runs that hold what expires and are not being merged; memtables become runs.
    pub(super) fn begin_sweep(&mut self, last_version: u64) {
        self.flush();
        for at in 0..self.layers.len() {
            let layer = &self.layers[at];
            if layer.state == LayerState::Idle && layer.expiring_chunk_count() > 0 {
                self.start_job_into(at..at, at, last_version);
            }
        }
    }

    fn start_due_jobs(&mut self, last_version: u64) {
        self.is_compaction_due &= self.layers.iter().any(|layer| layer.level != Level::Bottom);
        while let Some((sources, level)) = self.due() {
            self.start_job(sources, level, last_version);
        }
        self.is_flush_due = false;
    }

    /// Which layers are to be merged next, and into which level.
    fn due(&self) -> Option<(Range<usize>, Level)> {
        if let Some(sources) = self.due_for_bottom() {
            return Some((sources, Level::Bottom));
        }
        self.idle_runs().find_map(|(layers, level)| {
            let enough = if level == 0 && self.is_flush_due {
                1
            } else {
                LEVEL_RUNS
            };
            (layers.len() >= enough).then_some((layers, Level::Upper(level + 1)))
        })
    }

    /// The idle layers directly above the bottom, if they are to be merged into it now.
    fn due_for_bottom(&self) -> Option<Range<usize>> {
        let bottom = self
            .layers
            .last()
            .filter(|layer| layer.level == Level::Bottom);
        if bottom.is_some_and(|layer| layer.state != LayerState::Idle) {
            return None;
        }
        let end = self.layers.len() - usize::from(bottom.is_some());
        let start = self.layers[..end]
            .iter()
            .rposition(|layer| layer.state != LayerState::Idle)
            .map_or(0, |at| at + 1);
        let upper_bytes: usize = self.layers[start..end]
            .iter()
            .map(|layer| layer.content.memory_bytes())
            .sum();
        let bottom_bytes = bottom.map_or(0, |layer| layer.content.memory_bytes());
        let is_large = upper_bytes.saturating_mul(BOTTOM_SHARE) >= bottom_bytes;
        let is_compaction = self.is_compaction_due && start == 0 && self.jobs.is_empty();
        (start < end && (is_large || is_compaction)).then_some(start..end)
    }

    /// Idle layers above the bottom that lie side by side and are of one level, and that level, lowest first. A layer counts as of the
    /// level of those above it, if that is higher: merges of newer layers can end before those of older ones, and what is left of
    /// a low level below others would never have enough neighbours.
    fn idle_runs(&self) -> impl Iterator<Item = (Range<usize>, u8)> {
        let (mut at, mut level) = (0, 0);
        std::iter::from_fn(move || {
            let is_idle =
                |layer: &Layer| layer.state == LayerState::Idle && layer.level != Level::Bottom;
            let start = at + self.layers[at..].iter().position(is_idle)?;
            level = level.max(self.layers[start].upper_number()?);
            let is_alike = |layer: &&Layer| {
                is_idle(layer) && layer.upper_number().is_some_and(|number| number <= level)
            };
            at = start + self.layers[start..].iter().take_while(is_alike).count();
            Some((start..at, level))
        })
    }

    fn start_job(&mut self, sources: Range<usize>, level: Level, last_version: u64) {
        if sources.start == 0 {
            self.is_compaction_due &= level != Level::Bottom;
        }
        let target_at = sources.end;
        let has_target = level == Level::Bottom && target_at < self.layers.len();
        if !has_target {
            let content = ImmutableLayer::Run(Run::default());
            self.layers.insert(
                target_at,
                Layer {
                    level,
                    state: LayerState::Idle,
                    content,
                },
            );
        }
        self.start_job_into(sources, target_at, last_version);
    }

    /// A job that merges layers into the run below them; without layers, a sweep of that run.
    fn start_job_into(&mut self, sources: Range<usize>, target_at: usize, last_version: u64) {
        let id = JobId(self.next_job_id);
        self.next_job_id += 1;
        let level = self.layers[target_at].level;
        // Nothing lies below the bottom: there, tombstones have done their work.
        let tombstones = if level == Level::Bottom {
            Tombstones::Drop
        } else {
            Tombstones::Keep
        };
        let layers = self.layers[sources.clone()]
            .iter()
            .map(|layer| layer.content.clone())
            .collect();
        let merge = MergeJob::new(layers, self.hasher, last_version, tombstones);
        let merged = if sources.is_empty() {
            sources.clone()
        } else {
            sources.start..target_at + 1
        };
        let expected_work = self.layers[merged].iter().map(Layer::merge_work).sum();
        for layer in &mut self.layers[sources] {
            layer.state = LayerState::Source(id);
        }
        self.layers[target_at].state = LayerState::Target(id);
        let at = self
            .jobs
            .partition_point(|job| self.position_of(job.id) < target_at);
        self.jobs.insert(
            at,
            Job {
                id,
                merge,
                expected_work,
                done_work: 0,
            },
        );
    }

    fn position_of(&self, id: JobId) -> usize {
        let is_target = |layer: &Layer| layer.state == LayerState::Target(id);
        self.layers
            .iter()
            .position(is_target)
            .expect("the target of a job")
    }

    /// Whether a step would do anything.
    pub(super) fn is_due(&self) -> bool {
        !self.jobs.is_empty()
            || !self.preparation.is_done()
            || self.due().is_some()
            || (self.is_compaction_due
                && self.layers.iter().any(|layer| layer.level != Level::Bottom))
    }

    /// Whether there are memtables that wait for others.
    pub(super) fn is_waiting(&self) -> bool {
        self.idle_runs().any(|(_, level)| level == 0)
    }

    /// Work owed by jobs under way and by memtables that wait for one. An estimate.
    pub(super) fn debt(&self) -> usize {
        let of_jobs: usize = self
            .jobs
            .iter()
            .map(|job| job.expected_work.saturating_sub(job.done_work).max(1))
            .sum();
        let is_waiting =
            |layer: &&Layer| layer.level == Level::Upper(0) && layer.state == LayerState::Idle;
        of_jobs
            + self
                .layers
                .iter()
                .filter(is_waiting)
                .map(Layer::merge_work)
                .sum::<usize>()
    }

    /// Levels from 0 down, empty ones in between included.
    pub(super) fn stats(&self) -> Vec<LevelStats> {
        let bottom = self.bottom_number();
        let mut levels: Vec<LevelStats> = Vec::with_capacity(bottom + 1);
        for layer in &self.layers {
            let level = layer.upper_number().map_or(bottom, usize::from);
            levels.resize(levels.len().max(level + 1), LevelStats::default());
            levels[level].layer_count += 1;
            levels[level].entry_count += layer.content.entry_count();
            levels[level].footprint.add(layer.content.footprint());
        }
        levels
    }

    /// What all layers take.
    pub(super) fn footprint(&self) -> Footprint {
        let mut all = Footprint::default();
        self.layers
            .iter()
            .for_each(|layer| all.add(layer.content.footprint()));
        all
    }

    /// The number of the bottom: behind those of all other levels.
    pub(super) fn bottom_number(&self) -> usize {
        usize::from(
            self.layers
                .iter()
                .filter_map(Layer::upper_number)
                .max()
                .unwrap_or(0)
                .max(1),
        ) + 1
    }

    pub(super) fn hasher(&self) -> KeyHasher {
        self.hasher
    }
}

impl Layer {
    fn upper_number(&self) -> Option<u8> {
        match self.level {
            Level::Upper(number) => Some(number),
            Level::Bottom => None,
        }
    }

    fn expiring_chunk_count(&self) -> usize {
        match &self.content {
            ImmutableLayer::Run(run) => run.expiring_chunk_count(),
            ImmutableLayer::Memtable(_) => 0,
        }
    }

    fn merge_work(&self) -> usize {
        crate::lsm::work::ENTRY * self.content.entry_count() + self.content.memory_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsm::chunk::build::ChunkBuilder;
    use crate::lsm::log::record::Value;

    #[test]
    fn a_low_level_below_others_counts_as_theirs() {
        let hasher = KeyHasher::new(1);
        let mut builder = ChunkBuilder::new(&hasher, 1);
        builder.add(
            &Entry {
                key: b"key",
                version: 1,
                expires_at_ms: None,
                value: Value::Inline(b""),
            },
            0,
        );
        let mut bottom = Run::default();
        bottom.insert(Position::default(), Arc::new(builder.finish()));
        let due = |numbers: &[u8]| {
            let upper = numbers
                .iter()
                .map(|number| (Level::Upper(*number), Run::default()));
            Levels::adopt(
                hasher,
                upper.chain([(Level::Bottom, bottom.clone())]).collect(),
            )
            .due()
        };
        assert_eq!(due(&[1, 1, 1, 2, 2, 3]), None);
        assert_eq!(due(&[1, 1, 2, 2, 2, 2, 3]), Some((2..6, Level::Upper(3))));
        assert_eq!(
            due(&[1, 4, 4, 5, 5, 7, 1, 3, 3]),
            Some((5..9, Level::Upper(8)))
        );
        assert_eq!(due(&[0, 0, 2, 1, 1, 1, 1]), Some((2..7, Level::Upper(3))));
    }
}
