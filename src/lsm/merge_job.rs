//! One flush, merge or sweep under way: layers on top, merged into the run below them, a chunk at a time.
//!
//! A flush merges frozen memtables into a new, empty run; a merge of small runs does the same with those; a merge
//! into the lowest level goes into the run that is there, replacing its chunks. A sweep is a merge of nothing into a run: all
//! of them rewrite the chunks that they pass of which a good part has expired.
//!
//! A chunk of the bottom in which values are replaced by others as long, and nothing else changes, keeps its index: it is copied whole
//! and they are put into their places. (Requests that overwrite like this, 16 pipelined, took a tenth less processor time in all.)
//!
//! Invariants:
//! 1. After every step the target run is whole, and reads right beneath the sources: a group of its chunks is replaced
//!    at once by chunks that hold the same entries and those of the sources within the group's range. The sources still
//!    shadow all they brought, so doing it again, or stopping for good, is harmless.
//! 2. Chunks that no source entry falls into, and of which little has expired, are left as they are, not copied.
//! 3. Beyond the target itself a job holds one chunk being built and the finished chunks of one group; a group, and what replaces
//!    it, is a bounded number of chunks, whatever lies in them.
//! 4. What has expired is written as a tombstone, or not at all where nothing lies below it.
//!
//! Not here: which layers to merge (`levels.rs`).

use std::cmp::Ordering;
use std::sync::Arc;

use super::chunk::{CHUNK_MAX_BYTES, Chunk};
use super::chunk_builder::ChunkBuilder;
use super::filter::{FILTER_MAX_KEYS, Filter};
use super::garbage::Garbage;
use super::hash::KeyHasher;
use super::immutable_layer::ImmutableLayer;
use super::merge::{MergeCursor, Preparation};
use super::record::{Entry, Value};
use super::run::{Position, Run};
use super::work::{self, Work};

/// A chunk that a merge leaves is at least this long, its neighbours permitting; smaller ones are joined as merges pass by.
const CHUNK_MIN_BYTES: usize = CHUNK_MAX_BYTES / 2;

/// Chunks read and finished when a group is ended at the latest: it is replaced at once.
const GROUP_MAX_CHUNKS: usize = 16;

/// Entries copied at once, and their bytes, about.
const COPY_ENTRIES: usize = 64;
const COPY_BYTES: usize = 8 * 1024;

/// Most chunks that are not tried to be updated after one that did not go well.
const UNTRIED_MAX: usize = 63;

/// Whether a merge ends in the lowest level, where nothing is left for a tombstone to hide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tombstones {
    Keep,
    Drop,
}

#[derive(Debug)]
pub(super) struct MergeJob {
    layers: Vec<ImmutableLayer>,
    preparation: Preparation,
    upper: Option<MergeCursor>,
    /// First chunk of the target that belongs to the group.
    group: Position,
    /// First chunk of the target behind the group.
    next: Position,
    /// Chunks of the target in the group, all read but for `current`.
    group_chunk_count: usize,
    current: Option<(Arc<Chunk>, usize)>,
    /// The group is being ended: so many chunks are finished, and what is left of the current one becomes the next.
    ended_with: Option<usize>,
    /// The only chunk in the group, as long as all that changes in it are values that stay as long as they are.
    updated: Option<Arc<Chunk>>,
    /// Chunks that are still not tried to be updated, and how many were not in all since that went wrong last: each time twice as many.
    untried_count: usize,
    untried_max: usize,
    output: Output,
}

/// The chunks that will replace the group.
#[derive(Debug)]
struct Output {
    builder: ChunkBuilder,
    finished: Vec<Chunk>,
    hasher: KeyHasher,
    tombstones: Tombstones,
    removed_until_ms: u64,
    /// Over all keys that came from the sources.
    filter: Option<Filter>,
}

impl Output {
    /// Goes on making a filter for so many keys, unless they are too many or go to the bottom, which has most keys anyway. True at
    /// the end.
    fn make_filter(&mut self, key_count: usize, work: &mut Work) -> bool {
        if self.tombstones == Tombstones::Drop || !(1..=FILTER_MAX_KEYS).contains(&key_count) {
            return true;
        }
        self.filter.get_or_insert_with(|| Filter::new(key_count)).clear(work)
    }

    fn add(&mut self, entry: &Entry<'_>, work: &mut Work) {
        work.spend(work::of_entry(entry.key.len()));
        let gone = Entry { expires_at_ms: None, value: Value::Tombstone, ..*entry };
        let entry = if entry.is_expired(self.removed_until_ms) { &gone } else { entry };
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

    /// Adds entries of a chunk with keys below `end`, as far as they can be copied as they lie there. Returns the offset behind.
    fn add_some_of(&mut self, chunk: &Chunk, offset: usize, end: Option<&[u8]>, work: &mut Work) -> usize {
        let (count, behind) = self.builder.add_some_of(chunk, offset, end, (COPY_ENTRIES, COPY_BYTES), &self.hasher);
        work.spend(count * work::ENTRY + behind - offset);
        work.spend(work::of_new(self.builder.prepare()));
        behind
    }

    /// Where in a chunk of the bottom an entry can be put in the place of its key's, all else staying as it is.
    fn place_in(&self, chunk: &Chunk, entry: &Entry<'_>) -> Option<usize> {
        if self.tombstones == Tombstones::Keep {
            return None;
        }
        let offset = chunk.find(self.hasher.hash(entry.key), entry.key)?;
        self.builder.can_replace(chunk, offset, entry).then_some(offset)
    }

    /// Goes on preparing the memory for what is in the builder; true when all of it is there.
    fn prepare(&mut self, work: &mut Work) -> bool {
        while !work.is_used_up() {
            let Some(new_bytes) = self.builder.prepare_page() else { return true };
            work.spend(work::of_new(new_bytes));
        }
        false
    }

    /// Goes on making an entry each of what comes before an offset in the copy of a chunk, and drops what follows in the end; true then.
    fn keep_some(&mut self, chunk: &Chunk, end: usize, work: &mut Work) -> bool {
        let count = self.builder.keep_some(chunk, end, COPY_ENTRIES, &self.hasher);
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
    /// A job that merges `layers`, newest first. `last_version` bounds the versions in them and in the target.
    pub(super) fn new(
        layers: Vec<ImmutableLayer>,
        hasher: KeyHasher,
        last_version: u64,
        tombstones: Tombstones,
    ) -> Self {
        Self {
            preparation: Preparation::new(layers.iter()),
            layers,
            upper: None,
            group: Position::default(),
            next: Position::default(),
            group_chunk_count: 0,
            current: None,
            ended_with: None,
            updated: None,
            untried_count: 0,
            untried_max: 0,
            output: Output {
                builder: ChunkBuilder::new(&hasher, last_version),
                finished: Vec::new(),
                hasher,
                tombstones,
                removed_until_ms: 0,
                filter: None,
            },
        }
    }

    /// Goes on until `work` is used up; true when the target holds everything. What has expired by `removed_until_ms`
    /// goes.
    pub(super) fn step(
        &mut self,
        target: &mut Run,
        removed_until_ms: u64,
        work: &mut Work,
        garbage: &mut Garbage,
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
            if let Some(count) = self.ended_with {
                self.end_within(count, target, work, garbage);
            } else if self.group_chunk_count + self.output.finished.len() >= GROUP_MAX_CHUNKS {
                self.output.finish_chunk(work);
                self.ended_with = Some(self.output.finished.len());
            } else if self.updated.is_some() {
                self.update_some(target, work, garbage);
            } else if self.current.is_some() {
                self.merge_some(work);
            } else if self.between_chunks(target, work, garbage) {
                return true;
            }
        }
        false
    }

    /// The filter over all keys of the sources, once the job is done: those of a target that was empty when it began. None for the
    /// bottom, a sweep, or so many keys that it would be too large.
    pub(super) fn into_filter(self) -> Option<Filter> {
        self.output.filter
    }

    /// Moves the entries of the current chunk that come before the next source entry, and then that.
    fn merge_some(&mut self, work: &mut Work) {
        let (Some(upper), Some((chunk, offset))) = (&mut self.upper, &mut self.current) else { return };
        let upper_entry = upper.entry();
        while *offset < chunk.end() {
            if work.is_used_up() {
                return;
            }
            *offset = self.output.add_some_of(chunk, *offset, upper_entry.map(|entry| entry.key), work);
            if *offset == chunk.end() {
                break;
            }
            if work.is_used_up() {
                return;
            }
            let order = upper_entry.map_or(Ordering::Greater, |entry| entry.key.cmp(chunk.key_at(*offset)));
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
            self.current = None;
        }
    }

    /// Puts the next source entries into the copy of the chunk that is updated; from one on that does not fit into its place, the chunk
    /// is merged as others are.
    fn update_some(&mut self, target: &mut Run, work: &mut Work, garbage: &mut Garbage) {
        let (Some(upper), Some(chunk)) = (&mut self.upper, &self.updated) else { return };
        let end = target.chunk(self.next).map(|behind| behind.first_key());
        while let Some(entry) = upper.entry().filter(|entry| end.is_none_or(|end| entry.key < end)) {
            if work.is_used_up() {
                return;
            }
            let Some(offset) = self.output.place_in(chunk, &entry) else {
                let rest = chunk.seek(entry.key);
                if self.output.prepare(work) && self.output.keep_some(chunk, rest, work) {
                    self.current = Some((Arc::clone(chunk), rest));
                    self.updated = None;
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
        self.output.finished.push(self.output.builder.finish_as(chunk));
        work.spend(work::CHUNK_FINISH);
        self.updated = None;
        self.untried_max = 0;
        self.put_finished(target, garbage);
    }

    /// All chunks of the group are read: goes on with the gap behind them, the next chunk, or the next group. True at the end.
    fn between_chunks(&mut self, target: &mut Run, work: &mut Work, garbage: &mut Garbage) -> bool {
        let Some(upper) = &mut self.upper else { return false };
        let next = target.chunk(self.next);
        let entry = upper.entry();
        let Some(next) = next.filter(|next| entry.is_none_or(|entry| entry.key >= next.first_key())) else {
            let Some(entry) = entry else {
                self.end_group(target, work, garbage);
                return true;
            };
            // The entry belongs into the gap before the next chunk.
            let finished_before = self.output.finished.len();
            self.output.add(&entry, work);
            upper.advance();
            if self.output.finished.len() > finished_before {
                self.put_finished(target, garbage);
            }
            return false;
        };
        work.spend(work::CHUNK_LOOK);
        let behind = target.chunk(target.next(self.next));
        // Nothing of the sources falls into it: it is passed, unless it is small or much of it has expired.
        let is_passed = entry.is_none_or(|entry| behind.is_some_and(|behind| entry.key >= behind.first_key()));
        let is_group_empty = self.group_chunk_count == 0 && self.output.builder.is_empty();
        if is_group_empty {
            let is_small = entry.is_some() && next.bytes().len() < CHUNK_MIN_BYTES;
            if is_passed && !is_small && !is_worth_sweeping(next, self.output.removed_until_ms, work) {
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
                self.updated = Some(Arc::clone(next));
                self.next = target.next(self.next);
                self.group_chunk_count += 1;
                return false;
            }
        } else {
            let built_bytes = self.output.builder.len();
            // Behind the last source entry only what fits is joined: the rest of the run is not to be moved by a few bytes.
            let fits = entry.is_some() || built_bytes + next.bytes().len() <= CHUNK_MAX_BYTES;
            let is_done = built_bytes >= CHUNK_MIN_BYTES || self.output.builder.is_empty();
            if is_done || (!fits && !is_worth_sweeping(next, self.output.removed_until_ms, work)) {
                self.end_group(target, work, garbage);
                return false;
            }
            let both_bytes = built_bytes + next.bytes().len();
            if both_bytes > CHUNK_MAX_BYTES {
                // In halves: filled up, it would leave a small rest, and so would each of the full chunks that may follow.
                self.output.builder.limit(both_bytes / 2);
            }
        }
        self.current = Some((Arc::clone(next), next.begin()));
        self.next = target.next(self.next);
        self.group_chunk_count += 1;
        false
    }

    /// Replaces the group, all of which is read, by what was made of it.
    fn end_group(&mut self, target: &mut Run, work: &mut Work, garbage: &mut Garbage) {
        self.output.finish_chunk(work);
        self.put_finished(target, garbage);
    }

    /// Goes on ending the group within the current chunk: what is left of that becomes a chunk of its own, the next one behind `count`.
    fn end_within(&mut self, count: usize, target: &mut Run, work: &mut Work, garbage: &mut Garbage) {
        while let Some((chunk, offset)) = self.current.as_mut().filter(|(chunk, offset)| *offset < chunk.end()) {
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
        (self.current, self.ended_with) = (None, None);
        self.output.finish_chunk(work);
        let rest_key = self.output.finished.get(count).map(|rest| rest.first_key().to_vec());
        self.put_finished(target, garbage);
        if let Some(key) = rest_key {
            self.group = target.seek(&key);
            self.next = self.group;
        }
    }

    /// Replaces the chunks read so far by the finished ones, which hold all entries of theirs.
    fn put_finished(&mut self, target: &mut Run, garbage: &mut Garbage) {
        for _ in 0..self.group_chunk_count {
            let (chunk, at) = target.remove(self.group);
            garbage.push_chunk(chunk);
            self.group = at;
        }
        self.group_chunk_count = 0;
        for chunk in self.output.finished.drain(..) {
            garbage.note_made(&chunk);
            self.group = target.insert(self.group, Arc::new(chunk));
        }
        self.next = self.group;
    }
}

fn is_worth_sweeping(chunk: &Chunk, removed_until_ms: u64, work: &mut Work) -> bool {
    let is_looked_at = chunk.first_expiry_ms() <= removed_until_ms;
    work.spend(if is_looked_at { work::EXPIRY_LOOK * chunk.entry_count() } else { 0 });
    is_looked_at && chunk.is_worth_sweeping(removed_until_ms)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{WORK_LUMP_MAX, figures::Footprint};
    use super::*;

    /// Keys, and how long their values are; none: deleted.
    type Model = BTreeMap<Vec<u8>, Option<usize>>;

    /// The same with versions.
    type Versioned = BTreeMap<Vec<u8>, (Option<usize>, u64)>;

    fn expires(key: &[u8], version: u64) -> bool {
        key.ends_with(if version == 1 { b"77" } else { b"33" })
    }

    /// A run of these entries, in chunks that are full or end anywhere. Values are of bytes that tell the version.
    fn run(rng: &mut fastrand::Rng, entries: &Model, version: u64, ends_anywhere: bool) -> Run {
        let hasher = KeyHasher::new(1);
        let (mut run, mut at, value) = (Run::default(), Position::default(), vec![version.to_le_bytes()[0]; 20_000]);
        let mut builder = ChunkBuilder::new(&hasher, 2);
        for (key, value_bytes) in entries {
            let value = value_bytes.map_or(Value::Tombstone, |value_bytes| Value::Inline(&value[..value_bytes]));
            // Some expire, one day.
            let expires_at_ms = expires(key, version).then_some(1 << 40);
            let entry = Entry { key, version, expires_at_ms, value };
            if !builder.has_room_for(&entry) || (ends_anywhere && !builder.is_empty() && rng.u8(..100) == 0) {
                at = run.insert(at, Arc::new(builder.finish()));
            }
            builder.add(&entry, hasher.hash(key));
        }
        if !builder.is_empty() {
            run.insert(at, Arc::new(builder.finish()));
        }
        run
    }

    /// What is in a run, with versions, and how many of its chunks are small. Each is as a stranger's is checked to be.
    fn content(run: &Run) -> (Versioned, usize) {
        let (mut at, mut all, mut small_count) = (Position::default(), Versioned::new(), 0);
        while let Some(chunk) = run.chunk(at) {
            Chunk::adopt(chunk.bytes(), Vec::new(), &KeyHasher::new(1), 2).expect("a valid chunk");
            let mut offset = chunk.begin();
            while offset < chunk.end() {
                let (entry, next_offset) = chunk.entry_at(offset);
                assert_eq!(entry.expires_at_ms.is_some(), expires(entry.key, entry.version), "what expires");
                assert!(all.keys().next_back().is_none_or(|last: &Vec<u8>| &last[..] < entry.key), "keys ascend");
                let value_bytes = match entry.value {
                    Value::Inline(value) => {
                        assert!(value.iter().all(|byte| u64::from(*byte) == entry.version), "a value of that version");
                        Some(value.len())
                    }
                    _ => None,
                };
                all.insert(entry.key.to_vec(), (value_bytes, entry.version));
                offset = next_offset;
            }
            small_count += usize::from(chunk.bytes().len() < CHUNK_MIN_BYTES);
            at = run.next(at);
        }
        (all, small_count)
    }

    /// Merges a run into another a little at a time; returns the most chunks that were held meanwhile.
    fn merge(rng: &mut fastrand::Rng, source: Run, target: &mut Run) -> usize {
        let layers = vec![ImmutableLayer::Run(source)];
        let mut job = MergeJob::new(layers, KeyHasher::new(1), 2, Tombstones::Drop);
        let mut garbage = Garbage::new(Footprint::default());
        let mut held_max = 0;
        loop {
            let budget = rng.usize(1..50_000);
            let mut work = Work::new(budget);
            let is_done = job.step(target, 0, &mut work, &mut garbage);
            assert!(work.spent() <= budget + WORK_LUMP_MAX, "a step of {budget} spent {}", work.spent());
            if is_done {
                break;
            }
            held_max = held_max.max(job.group_chunk_count + job.output.finished.len());
        }
        held_max
    }

    fn keys(count: usize, value_bytes: usize) -> impl Iterator<Item = (Vec<u8>, Option<usize>)> {
        (0..count).map(move |number| (format!("key {number:09}").into_bytes(), Some(value_bytes)))
    }

    /// Runs of any shape against a map.
    #[test]
    fn what_is_held_is_bounded_whatever_is_merged() {
        for seed in 0..40 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let value_bytes = [0, 30, 1_000, 15_000][rng.usize(..4)];
            let of_target = keys(4_000_000 / (50 + value_bytes), value_bytes);
            let model: Model = of_target.filter(|_| rng.u8(..4) > 0).collect();
            let is_ragged = rng.bool();
            let mut target = run(&mut rng, &model, 1, is_ragged);
            // Some keys all over, or many at one place; new ones or others' newer values.
            let first = rng.usize(..1_000);
            let of_source: Model = match rng.u8(..4) {
                0 => model.keys().filter(|_| rng.u8(..40) == 0).map(|key| (key.clone(), Some(value_bytes))).collect(),
                // Now and then one of another length, or none.
                1 => model
                    .keys()
                    .filter_map(|key| {
                        let chance = rng.u16(..10_000);
                        let other_bytes = [Some(value_bytes + 1), None][usize::from(chance % 2)];
                        (chance < 1_000)
                            .then(|| (key.clone(), if chance < 5 { other_bytes } else { Some(value_bytes) }))
                    })
                    .collect(),
                2 => keys(first + 2_000, value_bytes).skip(first).collect(),
                _ => (0..20_000).map(|number| (format!("key {first:09} {number:09}").into_bytes(), Some(30))).collect(),
            };
            let source = run(&mut rng, &of_source, 2, false);
            let held_max = merge(&mut rng, source, &mut target);
            let mut expected: Versioned = model.into_iter().map(|(key, bytes)| (key, (bytes, 1))).collect();
            expected.extend(of_source.into_iter().map(|(key, bytes)| (key, (bytes, 2))));
            expected.retain(|_, (bytes, _)| bytes.is_some());
            assert!(content(&target).0 == expected, "seed {seed}");
            // What one chunk turns into comes on top.
            assert!(held_max <= GROUP_MAX_CHUNKS + 2, "seed {seed}: {held_max} chunks");
        }
    }

    /// Behind a small chunk, full ones that nothing is added to could each leave a rest that is as small.
    #[test]
    fn a_small_chunk_moves_its_neighbour_and_no_more() {
        let mut rng = fastrand::Rng::with_seed(1);
        let all: Model = keys(100_000, 30).collect();
        let mut target = run(&mut rng, &all, 1, false);
        let (small, next) = target.remove(Position::default());
        let few: Model = keys(100, 30).collect();
        let small_run = run(&mut rng, &few, 1, false);
        let at = target.insert(next, Arc::clone(small_run.chunk(Position::default()).expect("one chunk")));
        assert_eq!(target.chunk(at).map(|chunk| chunk.first_key() > small.first_key()), Some(true));
        // A few keys at the very end, so that everything before could be left as it is.
        let source = run(&mut rng, &keys(100_000, 30).skip(99_990).collect(), 2, false);
        let held_max = merge(&mut rng, source, &mut target);
        assert!(held_max <= 4, "{held_max} chunks");
        assert!(content(&target).1 <= 1, "small chunks are left");
    }

    /// A chunk of thousands of entries, in the middle of which comes more than a group may hold.
    #[test]
    fn what_is_left_of_a_chunk_is_moved_in_steps() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut all: Model = (0..60_000_u32).map(|number| (number.to_be_bytes()[1..].to_vec(), Some(0))).collect();
        let mut target = run(&mut rng, &all, 1, false);
        let large: Model = (0..140).map(|number| (vec![0, 65, 60, number], Some(16_000))).collect();
        let source = run(&mut rng, &large, 2, false);
        merge(&mut rng, source, &mut target);
        all.extend(large);
        assert!(content(&target).0.into_iter().map(|(key, (bytes, _))| (key, bytes)).eq(all));
    }
}
