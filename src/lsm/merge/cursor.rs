//! Newest-wins merge of sorted sources: what flush, merge and scan read from.
//!
//! Invariants:
//! 1. Entries come in ascending key order, each key once, with the entry of the newest source that
//!    has it.
//! 2. A cursor consists of `Arc`s and positions, so a merge can pause between any two entries for
//!    any time.
//!
//! Not here: what is done with the entries (`merge/job.rs`, `snapshot.rs`).

use std::cmp::Ordering;
use std::sync::Arc;

use crate::lsm::chunk::Chunk;
use crate::lsm::immutable_layer::ImmutableLayer;
use crate::lsm::log::record::Entry;
use crate::lsm::memtable::FrozenMemtable;
use crate::lsm::memtable::sort::{Buffers, Sorter};
use crate::lsm::run::{ChunkPosition, Fence, Run};
use crate::lsm::work::Work;

/// How many entries ahead a record is prefetched.
const PREFETCH_ENTRIES: usize = 8;

/// One layer, read in key order.
#[derive(Debug)]
struct MergeSource {
    place: SourceCursor,
    /// The fence of the current key, which decides most comparisons; none at the end.
    fence: Option<Fence>,
}

/// The position in a source.
#[derive(Debug)]
enum SourceCursor {
    Memtable {
        frozen: Arc<FrozenMemtable>,
        index: usize,
    },
    Run {
        run: Run,
        position: ChunkPosition,
        chunk: Option<Arc<Chunk>>,
        offset: usize,
    },
}

impl SourceCursor {
    /// A source at the first key of a layer at or above `start`. A memtable must have its order.
    fn new(layer: &ImmutableLayer, start: &[u8]) -> Self {
        match layer {
            ImmutableLayer::Memtable(frozen) => {
                let order = frozen.order().expect("sorted before it is read in order");
                let index = order.partition_point(|place| frozen.key(*place) < start);
                Self::Memtable {
                    frozen: Arc::clone(frozen),
                    index,
                }
            }
            ImmutableLayer::Run(run) => {
                let position = run.seek(start);
                let chunk = run.chunk(position).map(Arc::clone);
                let offset = chunk.as_ref().map_or(0, |chunk| chunk.seek(start));
                let mut place = Self::Run {
                    run: run.clone(),
                    position,
                    chunk,
                    offset,
                };
                place.skip_finished_chunk();
                place
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
            Self::Run { chunk, offset, .. } => {
                chunk.as_ref().map(|chunk| chunk.entry_at(*offset).0)
            }
        }
    }

    #[inline]
    fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Memtable { frozen, index } => Some(frozen.key(*frozen.order()?.get(*index)?)),
            Self::Run { chunk, offset, .. } => chunk.as_ref().map(|chunk| chunk.key_at(*offset)),
        }
    }

    fn advance(&mut self) {
        match self {
            Self::Memtable { frozen, index } => {
                *index += 1;
                // In the order of keys, records do not lie one behind the other.
                if let Some(place) = frozen
                    .order()
                    .and_then(|order| order.get(*index + PREFETCH_ENTRIES))
                {
                    frozen.prefetch(*place);
                }
            }
            Self::Run { chunk, offset, .. } => {
                if let Some(chunk) = chunk {
                    *offset = chunk.entry_end(*offset);
                }
                self.skip_finished_chunk();
            }
        }
    }

    fn skip_finished_chunk(&mut self) {
        if let Self::Run {
            run,
            position,
            chunk,
            offset,
        } = self
            && chunk.as_ref().is_some_and(|chunk| *offset == chunk.end())
        {
            *position = run.next(*position);
            *chunk = run.chunk(*position).map(Arc::clone);
            *offset = chunk.as_ref().map_or(0, |chunk| chunk.begin());
        }
    }
}

impl MergeSource {
    fn new(layer: &ImmutableLayer, start: &[u8]) -> Self {
        let place = SourceCursor::new(layer, start);
        let fence = place.key().map(Fence::new);
        Self { place, fence }
    }

    fn advance(&mut self) {
        self.place.advance();
        self.fence = self.place.key().map(Fence::new);
    }

    /// The order of the current keys.
    #[inline]
    fn compare(&self, other: &Self) -> Ordering {
        // A source at its end comes behind all keys.
        match (self.fence, other.fence) {
            (Some(fence), Some(other_fence)) if fence == other_fence => {
                self.place.key().cmp(&other.place.key())
            }
            (Some(fence), Some(other_fence)) => fence.cmp(&other_fence),
            (fence, other_fence) => fence.is_none().cmp(&other_fence.is_none()),
        }
    }
}

/// The merged view of some layers.
#[derive(Debug)]
pub(crate) struct MergeCursor {
    /// Newest first.
    sources: Vec<MergeSource>,
    /// The newest source with the smallest key.
    current: usize,
}

impl MergeCursor {
    /// Merges `layers`, newest first, from key `start` on. Memtables among them must have their
    /// order ([`Preparation`]).
    pub(crate) fn new<'a>(layers: impl Iterator<Item = &'a ImmutableLayer>, start: &[u8]) -> Self {
        let mut cursor = Self {
            sources: layers.map(|layer| MergeSource::new(layer, start)).collect(),
            current: 0,
        };
        cursor.find_smallest();
        cursor
    }

    /// The entry under the cursor; `None` at the end.
    #[inline]
    pub(crate) fn entry(&self) -> Option<Entry<'_>> {
        self.sources.get(self.current)?.place.entry()
    }

    /// Goes on to the next key.
    pub(crate) fn advance(&mut self) {
        let Some((current, older)) = self
            .sources
            .get_mut(self.current..)
            .and_then(<[MergeSource]>::split_first_mut)
        else {
            return;
        };
        if current.fence.is_none() {
            return;
        }
        for source in older {
            if source.compare(current).is_eq() {
                source.advance();
            }
        }
        current.advance();
        self.find_smallest();
    }

    /// Only a strictly smaller key displaces a newer source.
    fn find_smallest(&mut self) {
        self.current = 0;
        for index in 1..self.sources.len() {
            if self.sources[index]
                .compare(&self.sources[self.current])
                .is_lt()
            {
                self.current = index;
            }
        }
    }
}

/// Sorts the memtables among some layers that have no order yet.
#[derive(Debug, Default)]
pub(crate) struct Preparation {
    waiting: Vec<Arc<FrozenMemtable>>,
    sorter: Option<Sorter>,
    buffers: Buffers,
    /// Whether buffers are kept for later memtables.
    keeps_buffers: bool,
}

impl Preparation {
    pub(crate) fn new<'a>(layers: impl Iterator<Item = &'a ImmutableLayer>) -> Self {
        let waiting = layers.filter_map(|layer| match layer {
            ImmutableLayer::Memtable(frozen) => Some(Arc::clone(frozen)),
            ImmutableLayer::Run(_) => None,
        });
        Self {
            waiting: waiting.collect(),
            ..Self::default()
        }
    }

    /// A preparation of memtables that are added one after the other.
    pub(crate) fn of_many() -> Self {
        Self {
            keeps_buffers: true,
            ..Self::default()
        }
    }

    /// Adds a memtable to sort.
    pub(crate) fn add(&mut self, frozen: Arc<FrozenMemtable>) {
        self.waiting.insert(0, frozen);
    }

    /// Whether all have their order.
    pub(crate) fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sorts until `work` is used up; true when all memtables have their order.
    pub(crate) fn step(&mut self, work: &mut Work) -> bool {
        while let Some(frozen) = self.waiting.last() {
            if frozen.order().is_none() {
                let sorter = self
                    .sorter
                    .get_or_insert_with(|| Sorter::new(frozen, std::mem::take(&mut self.buffers)));
                if !sorter.step(frozen, work) {
                    return false;
                }
            }
            if let Some(sorter) = self.sorter.take() {
                self.buffers = sorter.into_buffers();
            }
            self.waiting.pop();
        }
        if !self.keeps_buffers {
            self.free_buffers();
        }
        true
    }

    /// Frees buffers that are kept for later memtables; false: there are none.
    pub(crate) fn free_buffers(&mut self) -> bool {
        std::mem::take(&mut self.buffers)
            .iter()
            .any(|buffer| buffer.capacity() > 0)
    }

    /// Whether there are buffers that are kept for later memtables.
    pub(crate) fn has_buffers(&self) -> bool {
        self.buffers.iter().any(|buffer| buffer.capacity() > 0)
    }
}
