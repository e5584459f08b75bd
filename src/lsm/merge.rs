//! Newest-wins merge of sorted sources: what flush, merge and scan read from.
//!
//! Invariants:
//! 1. Entries come in ascending key order, each key once, with the entry of the newest source that has it.
//! 2. Nothing is held but `Arc`s and positions, so a merge can rest between any two entries for as long as it likes.
//!
//! Not here: what is done with the entries (`merge_job.rs`, `snapshot.rs`).

use std::sync::Arc;

use super::chunk::Chunk;
use super::immutable_layer::ImmutableLayer;
use super::memtable::FrozenMemtable;
use super::record::Entry;
use super::run::{Position, Run};
use super::sorter::Sorter;
use super::work::Work;

/// So many entries ahead a record is asked for.
const PREFETCH_ENTRIES: usize = 8;

/// One layer, read in key order.
#[derive(Debug)]
enum Source {
    Memtable { frozen: Arc<FrozenMemtable>, index: usize },
    Run { run: Run, position: Position, chunk: Option<Arc<Chunk>>, offset: usize },
}

impl Source {
    /// The layer from its first key at or above `start` on. A memtable must have its order.
    fn new(layer: &ImmutableLayer, start: &[u8]) -> Self {
        match layer {
            ImmutableLayer::Memtable(frozen) => {
                let order = frozen.order().expect("sorted before it is read in order");
                let index = order.partition_point(|place| frozen.key(*place) < start);
                Self::Memtable { frozen: Arc::clone(frozen), index }
            }
            ImmutableLayer::Run(run) => {
                let position = run.seek(start);
                let chunk = run.chunk(position).map(Arc::clone);
                let offset = chunk.as_ref().map_or(0, |chunk| chunk.seek(start));
                let mut source = Self::Run { run: run.clone(), position, chunk, offset };
                source.skip_finished_chunk();
                source
            }
        }
    }

    #[inline]
    fn entry(&self) -> Option<Entry<'_>> {
        match self {
            Self::Memtable { frozen, index } => {
                let order = frozen.order().expect("sorted before it is read in order");
                order.get(*index).map(|place| frozen.entry(*place))
            }
            Self::Run { chunk, offset, .. } => chunk.as_ref().map(|chunk| chunk.entry_at(*offset).0),
        }
    }

    fn advance(&mut self) {
        match self {
            Self::Memtable { frozen, index } => {
                *index += 1;
                // In the order of keys records lie anywhere.
                if let Some(place) = frozen.order().and_then(|order| order.get(*index + PREFETCH_ENTRIES)) {
                    frozen.prefetch(*place);
                }
            }
            Self::Run { chunk, offset, .. } => {
                if let Some(chunk) = chunk {
                    *offset = chunk.entry_at(*offset).1;
                }
                self.skip_finished_chunk();
            }
        }
    }

    fn skip_finished_chunk(&mut self) {
        if let Self::Run { run, position, chunk, offset } = self
            && chunk.as_ref().is_some_and(|chunk| *offset == chunk.end())
        {
            *position = run.next(*position);
            *chunk = run.chunk(*position).map(Arc::clone);
            *offset = chunk.as_ref().map_or(0, |chunk| chunk.begin());
        }
    }
}

/// The merged view of some layers.
#[derive(Debug)]
pub(super) struct MergeCursor {
    /// Newest first.
    sources: Vec<Source>,
    current: Option<usize>,
}

impl MergeCursor {
    /// Merges `layers`, newest first, from key `start` on. Memtables among them must have their order
    /// ([`Preparation`]).
    pub(super) fn new<'a>(layers: impl Iterator<Item = &'a ImmutableLayer>, start: &[u8]) -> Self {
        let mut cursor = Self { sources: layers.map(|layer| Source::new(layer, start)).collect(), current: None };
        cursor.find_smallest();
        cursor
    }

    /// The entry under the cursor; `None` at the end.
    #[inline]
    pub(super) fn entry(&self) -> Option<Entry<'_>> {
        self.sources[self.current?].entry()
    }

    /// Goes on to the next key.
    pub(super) fn advance(&mut self) {
        let Some(current) = self.current else { return };
        for index in current + 1..self.sources.len() {
            let is_same_key = match (self.sources[index].entry(), self.sources[current].entry()) {
                (Some(older), Some(newest)) => older.key == newest.key,
                _ => false,
            };
            if is_same_key {
                self.sources[index].advance();
            }
        }
        self.sources[current].advance();
        self.find_smallest();
    }

    /// The newest source with the smallest key: only a strictly smaller key displaces a newer source.
    fn find_smallest(&mut self) {
        let mut smallest: Option<(usize, &[u8])> = None;
        for (index, source) in self.sources.iter().enumerate() {
            if let Some(entry) = source.entry()
                && smallest.is_none_or(|(_, key)| entry.key < key)
            {
                smallest = Some((index, entry.key));
            }
        }
        self.current = smallest.map(|(index, _)| index);
    }
}

/// Sorting whatever memtables among some layers have no order yet.
#[derive(Debug, Default)]
pub(super) struct Preparation {
    waiting: Vec<Arc<FrozenMemtable>>,
    sorter: Option<Sorter>,
}

impl Preparation {
    pub(super) fn new<'a>(layers: impl Iterator<Item = &'a ImmutableLayer>) -> Self {
        let waiting = layers.filter_map(|layer| match layer {
            ImmutableLayer::Memtable(frozen) => Some(Arc::clone(frozen)),
            ImmutableLayer::Run(_) => None,
        });
        Self { waiting: waiting.collect(), sorter: None }
    }

    /// Goes on until `work` is used up; true when all have their order.
    pub(super) fn step(&mut self, work: &mut Work) -> bool {
        while let Some(frozen) = self.waiting.last() {
            if frozen.order().is_none() {
                let sorter = self.sorter.get_or_insert_with(|| Sorter::new(frozen));
                if !sorter.step(frozen, work) {
                    return false;
                }
            }
            self.sorter = None;
            self.waiting.pop();
        }
        true
    }
}
