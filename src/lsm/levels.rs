//! The immutable layers, newest first, and the merges among them.
//!
//! Level 0 holds frozen memtables. Then come levels of small runs, several times larger from one to
//! the next, and last the *bottom*: one run with most of the data. A frozen memtable is sorted
//! first, so that scans need not do it.
//!
//! Besides merges there are sweeps (`expiry.rs`): a job without sources rewrites the chunks of a
//! run of which a good part has expired.
//!
//! Invariants:
//! 1. Layers are ordered: a key's newest entry is in the first layer that has it.
//! 2. A source of a job keeps its place until the job is done; the job's target lies directly below
//!    its oldest source. So every intermediate state reads right.
//! 3. Layers leave oldest first within a level, and only when the target holds all of them.
//!
//! Not here: what to merge next (`merge/policy.rs`), how a merge is done (`merge/job.rs`).

use std::ops::Range;
use std::sync::Arc;

use crate::lsm::footprint::Footprint;
use crate::lsm::hash::KeyHasher;
use crate::lsm::immutable_layer::ImmutableLayer;
use crate::lsm::level::Level;
use crate::lsm::log::record::Entry;
use crate::lsm::lookup_cache::ABSENT;
use crate::lsm::memtable::FrozenMemtable;
use crate::lsm::merge::cursor::Preparation;
use crate::lsm::merge::job::{MergeJob, Tombstones};
use crate::lsm::merge::policy::{self, DueMerge, LayerView, Requests};
use crate::lsm::reclaim::FreeQueue;
use crate::lsm::run::{ChunkPosition, LookupKey, Run};
use crate::lsm::stats::LevelStats;
use crate::lsm::work::Work;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LayerState {
    Idle,
    /// Read by a job, after which the layer leaves.
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
    /// Work that there was at the start, and work done since, in units.
    expected_work: usize,
    done_work: usize,
}

/// All immutable layers and the jobs among them.
#[derive(Debug)]
pub(super) struct Levels {
    /// Newest first.
    layers: Vec<Layer>,
    /// Uppermost first: small merges run before large ones, which have more time.
    jobs: Vec<Job>,
    next_job_id: u64,
    /// Sorts frozen memtables, before any other work.
    preparation: Preparation,
    pub(super) hasher: KeyHasher,
    requests: Requests,
    pub(super) generation: u64,
}

impl Levels {
    pub(super) fn new(hasher: KeyHasher) -> Self {
        Self {
            layers: Vec::new(),
            jobs: Vec::new(),
            next_job_id: 0,
            preparation: Preparation::of_many(),
            hasher,
            requests: Requests::default(),
            generation: 0,
        }
    }

    /// Looks in one layer after the other. `positions` are those that
    /// [`LookupCache`](crate::lsm::lookup_cache::LookupCache) has for the first layers.
    #[inline]
    pub(super) fn get(&self, lookup: &LookupKey<'_>, positions: &[u32]) -> Option<Entry<'_>> {
        self.layers.iter().enumerate().find_map(|(index, layer)| {
            match (&layer.content, positions.get(index)) {
                (_, Some(&ABSENT)) => None,
                (ImmutableLayer::Run(run), Some(position)) => {
                    run.get_in(ChunkPosition::unpack(*position), lookup)
                }
                (content, _) => content.get(lookup),
            }
        })
    }

    pub(super) fn push_frozen(&mut self, frozen: Arc<FrozenMemtable>) {
        self.generation += 1;
        self.preparation.add(Arc::clone(&frozen));
        let content = ImmutableLayer::Memtable(frozen);
        self.layers.insert(0, Layer::idle(Level::Upper(0), content));
    }

    /// Levels made of the given runs, newest first.
    pub(super) fn adopt(hasher: KeyHasher, runs: Vec<(Level, Run)>) -> Self {
        let idle = |(level, run)| Layer::idle(level, ImmutableLayer::Run(run));
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

    /// Moves all layers to the queue of things to free.
    pub(super) fn clear(&mut self, free_queue: &mut FreeQueue) {
        self.generation += 1;
        // Jobs keep layers alive.
        self.jobs.clear();
        self.preparation = Preparation::default();
        for layer in self.layers.drain(..) {
            free_queue.push_layer(layer.content);
        }
    }

    /// Frees a buffer that is kept for later memtables; false: there is none.
    pub(super) fn free_spare(&mut self) -> bool {
        self.preparation.free_buffers()
    }

    /// Whether a buffer is kept for later memtables.
    pub(super) fn has_spare(&self) -> bool {
        self.preparation.has_buffers()
    }

    /// The layers and their levels, newest first.
    pub(super) fn contents(
        &self,
    ) -> impl DoubleEndedIterator<Item = &ImmutableLayer> + ExactSizeIterator {
        self.layers.iter().map(|layer| &layer.content)
    }

    /// Bytes of all layers, large values included.
    pub(super) fn memory_bytes(&self) -> usize {
        self.contents().map(ImmutableLayer::memory_bytes).sum()
    }

    /// Frozen memtables that wait to be flushed, or are being flushed.
    pub(super) fn frozen_count(&self) -> usize {
        let layers = self.layers.iter();
        layers
            .filter(|layer| layer.level == Level::Upper(0))
            .count()
    }

    /// Asks for all layers to become one.
    pub(super) fn compact(&mut self) {
        self.requests.has_compaction = true;
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

    /// Makes memtables runs that would wait for others.
    pub(super) fn flush(&mut self) {
        self.requests.has_flush = true;
    }

    /// Does the work that is due, until `work` is used up or none is due; true if a job has ended.
    /// Entries that have expired by `removed_until_ms` are removed.
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
            let target = target_of(&mut self.layers, job.id);
            let ImmutableLayer::Run(target) = &mut target.content else {
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
        for source in self.layers.extract_if(.., is_source) {
            free_queue.push_layer(source.content);
        }
        let target = target_of(&mut self.layers, id);
        target.state = LayerState::Idle;
        if let (ImmutableLayer::Run(run), Some(filter)) = (&mut target.content, filter) {
            run.set_filter(filter);
        }
        self.layers
            .retain(|layer| layer.state != LayerState::Idle || layer.content.entry_count() > 0);
    }

    /// Number of chunks with entries that expire.
    pub(super) fn expiring_chunk_count(&self) -> usize {
        self.layers.iter().map(Layer::expiring_chunk_count).sum()
    }

    /// Begins a sweep of all runs with entries that expire, unless a merge is busy with them;
    /// memtables become runs.
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
        self.requests.has_compaction &=
            self.layers.iter().any(|layer| layer.level != Level::Bottom);
        while let Some(DueMerge { sources, into }) = self.next_merge() {
            self.start_job(sources, into, last_version);
        }
        self.requests.has_flush = false;
    }

    fn views(&self) -> impl Iterator<Item = LayerView> + Clone {
        self.layers.iter().map(|layer| LayerView {
            level: layer.level,
            is_idle: layer.state == LayerState::Idle,
            bytes: layer.content.memory_bytes(),
        })
    }

    fn next_merge(&self) -> Option<DueMerge> {
        policy::next_merge(self.views(), self.requests)
    }

    fn start_job(&mut self, sources: Range<usize>, level: Level, last_version: u64) {
        if sources.start == 0 {
            self.requests.has_compaction &= level != Level::Bottom;
        }
        let target_at = sources.end;
        let has_target = level == Level::Bottom && target_at < self.layers.len();
        if !has_target {
            let content = ImmutableLayer::Run(Run::default());
            self.layers.insert(target_at, Layer::idle(level, content));
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
        let job = Job {
            id,
            merge,
            expected_work,
            done_work: 0,
        };
        self.jobs.insert(at, job);
    }

    fn position_of(&self, id: JobId) -> usize {
        let is_target = |layer: &Layer| layer.state == LayerState::Target(id);
        let target = self.layers.iter().position(is_target);
        target.expect("the target of a job")
    }

    /// Whether a step would do anything.
    pub(super) fn is_due(&self) -> bool {
        !self.jobs.is_empty()
            || !self.preparation.is_done()
            || self.next_merge().is_some()
            || (self.requests.has_compaction
                && self.layers.iter().any(|layer| layer.level != Level::Bottom))
    }

    /// Whether there are memtables that wait for others.
    pub(super) fn is_waiting(&self) -> bool {
        policy::idle_groups(self.views()).any(|(_, level)| level == 0)
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
        let waiting = self.layers.iter().filter(is_waiting);
        of_jobs + waiting.map(Layer::merge_work).sum::<usize>()
    }

    /// Levels from 0 down, empty ones in between included.
    pub(super) fn stats(&self) -> Vec<LevelStats> {
        let bottom = self.bottom_number();
        let mut levels: Vec<LevelStats> = Vec::with_capacity(bottom + 1);
        for layer in &self.layers {
            let level = layer.level.upper_number().map_or(bottom, usize::from);
            levels.resize(levels.len().max(level + 1), LevelStats::default());
            levels[level].layer_count += 1;
            levels[level].entry_count += layer.content.entry_count();
            levels[level].footprint.add(layer.content.footprint());
        }
        levels
    }

    /// What all layers take.
    pub(super) fn footprint(&self) -> Footprint {
        self.contents().map(ImmutableLayer::footprint).sum()
    }

    /// The number of the bottom: behind those of all other levels.
    pub(super) fn bottom_number(&self) -> usize {
        let layers = self.layers.iter();
        let lowest = layers.filter_map(|layer| layer.level.upper_number()).max();
        usize::from(lowest.unwrap_or(0).max(1)) + 1
    }
}

fn target_of(layers: &mut [Layer], id: JobId) -> &mut Layer {
    let is_target = |layer: &&mut Layer| layer.state == LayerState::Target(id);
    let target = layers.iter_mut().find(is_target);
    target.expect("the target of a job")
}

impl Layer {
    fn idle(level: Level, content: ImmutableLayer) -> Self {
        Self {
            level,
            state: LayerState::Idle,
            content,
        }
    }

    fn expiring_chunk_count(&self) -> usize {
        match &self.content {
            ImmutableLayer::Run(run) => run.expiring_chunk_count,
            ImmutableLayer::Memtable(_) => 0,
        }
    }

    fn merge_work(&self) -> usize {
        crate::lsm::work::ENTRY * self.content.entry_count() + self.content.memory_bytes()
    }
}
