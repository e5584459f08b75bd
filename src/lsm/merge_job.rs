//! One flush, merge or sweep under way: layers on top, merged into the run below them, a chunk at a time.
//!
//! A flush merges frozen memtables into a new, empty run; a merge of small runs does the same with those; a merge
//! into the lowest level goes into the run that is there, replacing its chunks. A sweep is a merge of nothing into a run: all
//! of them rewrite the chunks that they pass of which a good part has expired.
//!
//! Invariants:
//! 1. After every step the target run is whole, and reads right beneath the sources: a group of its chunks is replaced
//!    at once by chunks that hold the same entries and those of the sources within the group's range. The sources still
//!    shadow all they brought, so doing it again, or stopping for good, is harmless.
//! 2. Chunks that no source entry falls into, and of which little has expired, are left as they are, not copied.
//! 4. What has expired is written as a tombstone, or not at all where nothing lies below it.
//! 3. Beyond the target itself a job holds one chunk being built and the finished chunks of one group.
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

/// Entries copied at once.
const COPY_ENTRIES: usize = 64;

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
    }

    /// Adds entries of a chunk with keys below `end`, as far as they can be copied as they lie there. Returns the offset behind.
    fn add_some_of(&mut self, chunk: &Chunk, offset: usize, end: Option<&[u8]>, work: &mut Work) -> usize {
        let (count, behind) = self.builder.add_some_of(chunk, offset, end, COPY_ENTRIES, &self.hasher);
        work.spend(count * work::ENTRY + behind - offset);
        behind
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
        // The bottom has most keys anyway.
        let key_count = layers.iter().map(ImmutableLayer::entry_count).sum();
        let has_filter = tombstones == Tombstones::Keep && (1..=FILTER_MAX_KEYS).contains(&key_count);
        Self {
            preparation: Preparation::new(layers.iter()),
            layers,
            upper: None,
            group: Position::default(),
            next: Position::default(),
            group_chunk_count: 0,
            current: None,
            output: Output {
                builder: ChunkBuilder::new(&hasher, last_version),
                finished: Vec::new(),
                hasher,
                tombstones,
                removed_until_ms: 0,
                filter: has_filter.then(|| Filter::new(key_count)),
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
            if !self.preparation.step(work) {
                return false;
            }
            self.upper = Some(MergeCursor::new(self.layers.iter(), &[]));
        }
        while !work.is_used_up() {
            if self.current.is_some() {
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
            let (lower_entry, next_offset) = chunk.entry_at(*offset);
            let order = upper_entry.map_or(Ordering::Greater, |entry| entry.key.cmp(lower_entry.key));
            if order != Ordering::Less {
                *offset = next_offset;
            }
            match upper_entry {
                Some(entry) if order != Ordering::Greater => {
                    self.output.add(&entry, work);
                    upper.advance();
                    break;
                }
                _ => self.output.add(&lower_entry, work),
            }
        }
        if *offset == chunk.end() {
            self.current = None;
        }
    }

    /// All chunks of the group are read: goes on with the gap behind them, the next chunk, or the next group. True at the end.
    fn between_chunks(&mut self, target: &mut Run, work: &mut Work, garbage: &mut Garbage) -> bool {
        work.spend(work::CHUNK_LOOK);
        let Some(upper) = &mut self.upper else { return false };
        let next = target.chunk(self.next);
        let entry = upper.entry();
        let Some(next) = next.filter(|next| entry.is_none_or(|entry| entry.key >= next.first_key())) else {
            let Some(entry) = entry else {
                self.replace_group(target, work, garbage);
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
        } else {
            let built_bytes = self.output.builder.len();
            // Behind the last source entry only what fits is joined: the rest of the run is not to be moved by a few bytes.
            let fits = entry.is_some() || built_bytes + next.bytes().len() <= CHUNK_MAX_BYTES;
            let is_done = built_bytes >= CHUNK_MIN_BYTES || self.output.builder.is_empty();
            if is_done || (!fits && !is_worth_sweeping(next, self.output.removed_until_ms, work)) {
                self.replace_group(target, work, garbage);
                return false;
            }
        }
        self.current = Some((Arc::clone(next), next.begin()));
        self.next = target.next(self.next);
        self.group_chunk_count += 1;
        false
    }

    fn replace_group(&mut self, target: &mut Run, work: &mut Work, garbage: &mut Garbage) {
        self.output.finish_chunk(work);
        self.put_finished(target, garbage);
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
