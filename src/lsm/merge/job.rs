//! One flush, merge or sweep under way: layers on top, merged into the run below them, a chunk at a
//! time.
//!
//! A flush merges frozen memtables into a new, empty run; a merge of small runs does the same with
//! those; a merge into the lowest level replaces chunks of the run that is there. A sweep is a
//! merge without sources. Every merge rewrites the chunks of which a good part has expired.
//!
//! If the only changes in a chunk of the bottom are new values of the same length, the chunk is
//! updated: it is copied with its index, and the values are replaced in the copy. (Requests that
//! overwrite like this, 16 pipelined, took a tenth less processor time in all.)
//!
//! Invariants:
//! 1. After every step the target run is complete, and correct beneath the sources: a group of its
//!    chunks is replaced at once by chunks with the same entries and those of the sources within
//!    the group's range. The sources still shadow all entries that they brought, so the merge may
//!    be repeated, or stop for good.
//! 2. Chunks that no source entry falls into, and of which little has expired, are left as they
//!    are, not copied.
//! 3. Beyond the target itself a job holds one chunk being built and the finished chunks of one
//!    group; a group, and what replaces it, is a bounded number of chunks, whatever lies in them.
//! 4. An expired entry is written as a tombstone, or not at all where no layer lies below.
//!
//! Not here: which layers to merge (`levels.rs`).

use std::cmp::Ordering;
use std::sync::Arc;

use crate::lsm::chunk::Chunk;
use crate::lsm::chunk::build::ChunkBuilder;
use crate::lsm::chunk::layout::CHUNK_MAX_BYTES;
use crate::lsm::hash::KeyHasher;
use crate::lsm::immutable_layer::ImmutableLayer;
use crate::lsm::log::record::{Entry, Value};
use crate::lsm::merge::cursor::{MergeCursor, Preparation};
use crate::lsm::reclaim::FreeQueue;
use crate::lsm::run::filter::{FILTER_MAX_KEYS, Filter};
use crate::lsm::run::{ChunkPosition, Run};
use crate::lsm::work::{self, Work};

/// The least length of a chunk behind a merge, if its neighbours permit: merges join smaller
/// chunks.
pub(crate) const CHUNK_MIN_BYTES: usize = CHUNK_MAX_BYTES / 2;

/// The most chunks, read and finished, of a group, which is replaced at once.
pub(crate) const GROUP_MAX_CHUNKS: usize = 16;

/// Entries copied at once, and their bytes, about.
const COPY_ENTRIES: usize = 64;
const COPY_BYTES: usize = 8 * 1024;

/// Most chunks that are merged without trying to update them, after updates have failed.
const UNTRIED_MAX: usize = 63;

/// Whether tombstones are kept: in the lowest level they hide nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tombstones {
    Keep,
    Drop,
}

#[derive(Debug)]
pub(crate) struct MergeJob {
    layers: Vec<ImmutableLayer>,
    preparation: Preparation,
    upper: Option<MergeCursor>,
    /// First chunk of the target that belongs to the group.
    group: ChunkPosition,
    /// First chunk of the target behind the group.
    next: ChunkPosition,
    /// Chunks of the target in the group, all read but for that of the stage.
    group_chunk_count: usize,
    stage: MergeStage,
    /// Chunks that are still to be merged without trying to update them, and how many the last
    /// failed update has caused: each failure causes twice as many.
    untried_count: usize,
    untried_max: usize,
    output: MergeOutput,
}

/// What is being done with a chunk of the target.
#[derive(Debug)]
enum MergeStage {
    /// None: all chunks of the group are read.
    Between,
    /// The chunk, the only one of the group, is being updated: new values of the same length
    /// replace those in a copy.
    Update(Arc<Chunk>),
    /// The chunk is being read, from an offset on.
    Read(Arc<Chunk>, usize),
    /// The group ends within the chunk: its entries from an offset on become the next chunk, behind
    /// so many finished ones.
    End(Arc<Chunk>, usize, usize),
}

/// The chunks that will replace the group.
#[derive(Debug)]
struct MergeOutput {
    builder: ChunkBuilder,
    finished: Vec<Chunk>,
    hasher: KeyHasher,
    tombstones: Tombstones,
    removed_until_ms: u64,
    /// The filter over all keys of the sources.
    filter: Option<Filter>,
}

impl MergeOutput {
    /// Whether a chunk joins the group that is being built; limits the builder if it does.
    fn joins(&mut self, next: &Chunk, has_entry: bool, work: &mut Work) -> bool {
        let built_bytes = self.builder.len();
        // Behind the last source entry a chunk is joined only if it fits as a whole: else all
        // later chunks of the run would be rewritten, too.
        let fits = has_entry || built_bytes + next.bytes().len() <= CHUNK_MAX_BYTES;
        let is_done = built_bytes >= CHUNK_MIN_BYTES || self.builder.is_empty();
        if is_done || (!fits && !is_worth_sweeping(next, self.removed_until_ms, work)) {
            return false;
        }
        let both_bytes = built_bytes + next.bytes().len();
        if both_bytes > CHUNK_MAX_BYTES {
            // Two halves: a full chunk would leave a small rest, and so would each of the full
            // chunks that may follow.
            self.builder.limit(both_bytes / 2);
        }
        true
    }

    /// Clears a filter for so many keys, unless they are too many or go to the bottom, which has
    /// most keys anyway. True at the end.
    fn make_filter(&mut self, key_count: usize, work: &mut Work) -> bool {
        if self.tombstones == Tombstones::Drop || !(1..=FILTER_MAX_KEYS).contains(&key_count) {
            return true;
        }
        self.filter
            .get_or_insert_with(|| Filter::new(key_count))
            .clear(work)
    }

    fn add(&mut self, entry: &Entry<'_>, work: &mut Work) {
        work.spend(work::of_entry(entry.key.len()));
        let gone = Entry {
            expires_at_ms: None,
            value: Value::Tombstone,
            ..*entry
        };
        let entry = if entry.is_expired(self.removed_until_ms) {
            &gone
        } else {
            entry
        };
        if self.tombstones == Tombstones::Drop && entry.value.is_tombstone() {
            return;
        }
        if !self.builder.has_room_for(entry) {
            self.finish_chunk(work);
        }
        let hash = self.hasher.hash(entry.key);
        if let Some(filter) = &mut self.filter {
            filter.put(hash);
        }
        work.spend(self.builder.add(entry, hash));
        work.spend(work::of_new(self.builder.prepare()));
    }

    /// Copies entries of a chunk with keys below `end`, as far as their bytes need no change.
    /// Returns the offset behind them.
    fn add_some_of(
        &mut self,
        chunk: &Chunk,
        offset: usize,
        end: Option<&[u8]>,
        work: &mut Work,
    ) -> usize {
        let (count, behind) =
            self.builder
                .add_some_of(chunk, offset, end, (COPY_ENTRIES, COPY_BYTES), &self.hasher);
        work.spend(count * work::ENTRY + behind - offset);
        work.spend(work::of_new(self.builder.prepare()));
        behind
    }

    /// The offset in a chunk of the bottom at which an entry can replace the one of its key, if
    /// nothing else changes by that.
    fn place_in(&self, chunk: &Chunk, entry: &Entry<'_>) -> Option<usize> {
        if self.tombstones == Tombstones::Keep {
            return None;
        }
        let offset = chunk.find(self.hasher.hash(entry.key), entry.key)?;
        self.builder
            .can_replace(chunk, offset, entry)
            .then_some(offset)
    }

    /// Prepares the memory of the chunk in the builder; true at the end.
    fn prepare(&mut self, work: &mut Work) -> bool {
        while !work.is_used_up() {
            let Some(new_bytes) = self.builder.prepare_page() else {
                return true;
            };
            work.spend(work::of_new(new_bytes));
        }
        false
    }

    /// Keeps the entries before an offset in the copy of a chunk, and drops the rest; true at the
    /// end.
    fn keep_some(&mut self, chunk: &Chunk, end: usize, work: &mut Work) -> bool {
        let count = self
            .builder
            .keep_some(chunk, end, COPY_ENTRIES, &self.hasher);
        work.spend(count * work::ENTRY);
        count < COPY_ENTRIES
    }

    fn finish_chunk(&mut self, work: &mut Work) {
        if !self.builder.is_empty() {
            self.finished.push(self.builder.finish());
            work.spend(work::CHUNK_FINISH);
        }
    }
}

impl MergeJob {
    /// A job that merges `layers`, newest first. `last_version` bounds the versions in them and in
    /// the target.
    pub(crate) fn new(
        layers: Vec<ImmutableLayer>,
        hasher: KeyHasher,
        last_version: u64,
        tombstones: Tombstones,
    ) -> Self {
        Self {
            preparation: Preparation::new(layers.iter()),
            layers,
            upper: None,
            group: ChunkPosition::default(),
            next: ChunkPosition::default(),
            group_chunk_count: 0,
            stage: MergeStage::Between,
            untried_count: 0,
            untried_max: 0,
            output: MergeOutput {
                builder: ChunkBuilder::new(&hasher, last_version),
                finished: Vec::new(),
                hasher,
                tombstones,
                removed_until_ms: 0,
                filter: None,
            },
        }
    }

    /// Merges until `work` is used up; true when the target has all entries. Entries that have
    /// expired by `removed_until_ms` are removed.
    pub(crate) fn step(
        &mut self,
        target: &mut Run,
        removed_until_ms: u64,
        work: &mut Work,
        free_queue: &mut FreeQueue,
    ) -> bool {
        self.output.removed_until_ms = removed_until_ms;
        if self.upper.is_none() {
            let entry_count = self.layers.iter().map(ImmutableLayer::entry_count).sum();
            if !self.preparation.step(work) || !self.output.make_filter(entry_count, work) {
                return false;
            }
            self.upper = Some(MergeCursor::new(self.layers.iter(), &[]));
        }
        while !work.is_used_up() {
            let is_full = self.group_chunk_count + self.output.finished.len() >= GROUP_MAX_CHUNKS;
            match &self.stage {
                MergeStage::Between if is_full => self.end_group(target, work, free_queue),
                MergeStage::Between => {
                    if self.between_chunks(target, work, free_queue) {
                        return true;
                    }
                }
                MergeStage::Update(_) => self.update_some(target, work, free_queue),
                MergeStage::Read(chunk, offset) if is_full => {
                    let (chunk, offset) = (Arc::clone(chunk), *offset);
                    self.output.finish_chunk(work);
                    self.stage = MergeStage::End(chunk, offset, self.output.finished.len());
                }
                MergeStage::Read(..) => self.merge_some(work),
                MergeStage::End(..) => self.end_within(target, work, free_queue),
            }
        }
        false
    }

    /// The filter over all keys of the sources, once the job is done, for a target that was empty.
    /// None for the bottom, for a sweep, and for too many keys.
    pub(crate) fn into_filter(self) -> Option<Filter> {
        self.output.filter
    }

    /// Number of chunks in the group, with the finished ones.
    #[cfg(test)]
    pub(crate) fn held_count(&self) -> usize {
        self.group_chunk_count + self.output.finished.len()
    }

    /// Adds the entries of the current chunk before the next source entry, and then that entry.
    fn merge_some(&mut self, work: &mut Work) {
        let (Some(upper), MergeStage::Read(chunk, offset)) = (&mut self.upper, &mut self.stage)
        else {
            return;
        };
        let upper_entry = upper.entry();
        while *offset < chunk.end() {
            if work.is_used_up() {
                return;
            }
            *offset =
                self.output
                    .add_some_of(chunk, *offset, upper_entry.map(|entry| entry.key), work);
            if *offset == chunk.end() {
                break;
            }
            if work.is_used_up() {
                return;
            }
            let order = upper_entry.map_or(Ordering::Greater, |entry| {
                entry.key.cmp(chunk.key_at(*offset))
            });
            if order == Ordering::Greater {
                let (lower_entry, next_offset) = chunk.entry_at(*offset);
                self.output.add(&lower_entry, work);
                *offset = next_offset;
                continue;
            }
            if order == Ordering::Equal {
                *offset = chunk.entry_end(*offset);
            }
            if let Some(entry) = upper_entry {
                self.output.add(&entry, work);
                upper.advance();
            }
            break;
        }
        if *offset == chunk.end() {
            self.stage = MergeStage::Between;
        }
    }

    /// Replaces entries in the copy of the chunk by the next source entries. From the first one
    /// that cannot replace another, the chunk is merged as others are.
    fn update_some(&mut self, target: &mut Run, work: &mut Work, free_queue: &mut FreeQueue) {
        let (Some(upper), MergeStage::Update(chunk)) = (&mut self.upper, &self.stage) else {
            return;
        };
        let end = target.chunk(self.next).map(|behind| behind.first_key());
        while let Some(entry) = upper
            .entry()
            .filter(|entry| end.is_none_or(|end| entry.key < end))
        {
            if work.is_used_up() {
                return;
            }
            let Some(offset) = self.output.place_in(chunk, &entry) else {
                let rest = chunk.seek(entry.key);
                if self.output.prepare(work) && self.output.keep_some(chunk, rest, work) {
                    self.stage = MergeStage::Read(Arc::clone(chunk), rest);
                    self.untried_max = UNTRIED_MAX.min(2 * self.untried_max + 1);
                    self.untried_count = self.untried_max;
                    return;
                }
                continue;
            };
            self.output.builder.replace(offset, &entry);
            work.spend(work::of_entry(entry.key.len() + entry.value.len()));
            upper.advance();
        }
        if !self.output.prepare(work) {
            return;
        }
        self.output
            .finished
            .push(self.output.builder.finish_as(chunk));
        work.spend(work::CHUNK_FINISH);
        self.stage = MergeStage::Between;
        self.untried_max = 0;
        self.put_finished(target, free_queue);
    }

    /// When all chunks of the group are read: goes on with the gap behind them, the next chunk, or
    /// the next group. True at the end.
    fn between_chunks(
        &mut self,
        target: &mut Run,
        work: &mut Work,
        free_queue: &mut FreeQueue,
    ) -> bool {
        let Some(upper) = &mut self.upper else {
            return false;
        };
        let next = target.chunk(self.next);
        let entry = upper.entry();
        let Some(next) =
            next.filter(|next| entry.is_none_or(|entry| entry.key >= next.first_key()))
        else {
            let Some(entry) = entry else {
                self.end_group(target, work, free_queue);
                return true;
            };
            // The entry belongs in the gap before the next chunk.
            let finished_before = self.output.finished.len();
            self.output.add(&entry, work);
            upper.advance();
            if self.output.finished.len() > finished_before {
                self.put_finished(target, free_queue);
            }
            return false;
        };
        work.spend(work::CHUNK_LOOK);
        let behind = target.chunk(target.next(self.next));
        // A chunk without entries of the sources is left as it is, unless it is small or much of it
        // has expired.
        let is_passed =
            entry.is_none_or(|entry| behind.is_some_and(|behind| entry.key >= behind.first_key()));
        let is_group_empty = self.group_chunk_count == 0 && self.output.builder.is_empty();
        if is_group_empty {
            let is_small = entry.is_some() && next.bytes().len() < CHUNK_MIN_BYTES;
            if is_passed
                && !is_small
                && !is_worth_sweeping(next, self.output.removed_until_ms, work)
            {
                self.next = target.next(self.next);
                self.group = self.next;
                return false;
            }
            let is_tried = self.untried_count == 0;
            self.untried_count = self.untried_count.saturating_sub(1);
            let is_updated = is_tried
                && !is_small
                && next.first_expiry_ms() > self.output.removed_until_ms
                && next.blobs().is_empty()
                && entry.is_some_and(|entry| self.output.place_in(next, &entry).is_some());
            if is_updated {
                self.output.builder.begin_as(next);
                work.spend(work::CHUNK_COPY);
                self.stage = MergeStage::Update(Arc::clone(next));
                self.add_to_group(target);
                return false;
            }
        } else if !self.output.joins(next, entry.is_some(), work) {
            self.end_group(target, work, free_queue);
            return false;
        }
        self.stage = MergeStage::Read(Arc::clone(next), next.begin());
        self.add_to_group(target);
        false
    }

    /// The next chunk becomes a part of the group.
    #[inline]
    fn add_to_group(&mut self, target: &Run) {
        self.next = target.next(self.next);
        self.group_chunk_count += 1;
    }

    /// Replaces the group, all of which is read, by the finished chunks.
    fn end_group(&mut self, target: &mut Run, work: &mut Work, free_queue: &mut FreeQueue) {
        self.output.finish_chunk(work);
        self.put_finished(target, free_queue);
    }

    /// Ends the group within a chunk, a bounded piece at a time.
    fn end_within(&mut self, target: &mut Run, work: &mut Work, free_queue: &mut FreeQueue) {
        let MergeStage::End(chunk, offset, count) = &mut self.stage else {
            return;
        };
        while *offset < chunk.end() {
            if work.is_used_up() {
                return;
            }
            let before = *offset;
            *offset = self.output.add_some_of(chunk, before, None, work);
            if *offset == before {
                let (entry, next_offset) = chunk.entry_at(before);
                self.output.add(&entry, work);
                *offset = next_offset;
            }
        }
        let count = *count;
        self.stage = MergeStage::Between;
        self.output.finish_chunk(work);
        let rest_key = self
            .output
            .finished
            .get(count)
            .map(|rest| rest.first_key().to_vec());
        self.put_finished(target, free_queue);
        if let Some(key) = rest_key {
            self.group = target.seek(&key);
            self.next = self.group;
        }
    }

    /// Replaces the chunks read so far by the finished ones, which have all of their entries.
    fn put_finished(&mut self, target: &mut Run, free_queue: &mut FreeQueue) {
        for _ in 0..self.group_chunk_count {
            let (chunk, at) = target.remove(self.group);
            free_queue.push_chunk(chunk);
            self.group = at;
        }
        self.group_chunk_count = 0;
        for chunk in self.output.finished.drain(..) {
            free_queue.record_made(&chunk);
            self.group = target.insert(self.group, Arc::new(chunk));
        }
        self.next = self.group;
    }
}

fn is_worth_sweeping(chunk: &Chunk, removed_until_ms: u64, work: &mut Work) -> bool {
    let is_looked_at = chunk.first_expiry_ms() <= removed_until_ms;
    if is_looked_at {
        work.spend(work::EXPIRY_LOOK * chunk.entry_count());
    }
    is_looked_at && chunk.is_worth_sweeping(removed_until_ms)
}
