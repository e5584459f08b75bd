//! Frees data without readers, a bounded piece at a time.
//!
//! Dropping a large layer at once would hold the loop for as long as the allocator needs for
//! thousands of chunks. So it is taken apart: each step frees about one allocation. Data that a
//! snapshot shares is freed after the snapshot; layers of snapshots come here, too.

use std::sync::Arc;

use crate::allocator::{Block, spare_bytes};

use crate::lsm::chunk::Chunk;
use crate::lsm::footprint::Footprint;
use crate::lsm::immutable_layer::ImmutableLayer;
use crate::lsm::log::record::Blob;
use crate::lsm::log::wal::{SEGMENT_BYTES, Segment, Wal};
use crate::lsm::memtable::FrozenMemtable;
use crate::lsm::run::{self, Blocks};
use crate::lsm::work::{self, Work};

/// Freed at once of a large value: allocators give the end of a large block back to the system
/// where it lies.
const BLOB_PIECE_BYTES: usize = 1024 * 1024;

/// Memory of freed blocks that is kept for the next blocks. More is given back to the kernel, which
/// costs a call for each block now, and page faults when the memory is needed again.
const SPARE_BYTES: usize = 4 * 1024 * 1024;

/// The queue of things to free.
#[derive(Debug, Default)]
pub(super) struct FreeQueue {
    /// A large value that is being freed, piece by piece from its end.
    blob: Option<Vec<u8>>,
    blobs: Vec<Blob>,
    chunks: Vec<Arc<Chunk>>,
    /// Indexes of memtables.
    indexes: Vec<Block>,
    block: Option<run::ChunkBlock>,
    blocks: Vec<Blocks>,
    segments: Vec<Arc<Segment>>,
    segment: Option<Segment>,
    memtables: Vec<FrozenMemtable>,
    /// Frozen memtables and chunks that were made and not freed: here, in live layers and in
    /// snapshots.
    pub(super) alive: Footprint,
}

impl FreeQueue {
    /// Nothing to free; `alive` is what the engine begins with.
    pub(super) fn new(alive: Footprint) -> Self {
        Self {
            alive,
            ..Self::default()
        }
    }

    /// Counts a memtable that was frozen.
    pub(super) fn record_frozen(&mut self, frozen: &FrozenMemtable) {
        self.alive.add(frozen.memtable.footprint());
    }

    pub(super) fn push_layer(&mut self, layer: ImmutableLayer) {
        match layer {
            ImmutableLayer::Memtable(frozen) => {
                let Some(frozen) = Arc::into_inner(frozen) else {
                    return;
                };
                self.alive.subtract(frozen.memtable.footprint());
                self.memtables.push(frozen);
            }
            ImmutableLayer::Run(run) => self.blocks.extend(Arc::into_inner(run.blocks)),
        }
    }

    pub(super) fn push_chunk(&mut self, chunk: Arc<Chunk>) {
        self.chunks.push(chunk);
    }

    /// Counts a chunk that was made.
    pub(super) fn record_made(&mut self, chunk: &Chunk) {
        self.alive.add(chunk.footprint());
    }

    pub(super) fn push_segment(&mut self, segment: Arc<Segment>) {
        self.segments.push(segment);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.blob.is_none()
            && self.blobs.is_empty()
            && self.chunks.is_empty()
            && self.indexes.is_empty()
            && self.block.is_none()
            && self.blocks.is_empty()
            && self.segments.is_empty()
            && self.segment.is_none()
            && self.memtables.is_empty()
    }

    /// Frees until `work` is used up or nothing is left; smallest things first, so that the queue
    /// stays short. Buffers of segments go back to the log, which uses them again.
    pub(super) fn step(&mut self, wal: &mut Wal, work: &mut Work) {
        while !work.is_used_up() && self.free_one(wal, work) {}
    }

    fn free_one(&mut self, wal: &mut Wal, work: &mut Work) -> bool {
        if let Some(blob) = &mut self.blob {
            let kept_bytes = blob.len().saturating_sub(BLOB_PIECE_BYTES);
            work.spend(work::of_free(blob.len() - kept_bytes));
            blob.truncate(kept_bytes);
            blob.shrink_to_fit();
            if kept_bytes == 0 {
                self.blob = None;
            }
        } else if let Some(blob) = self.blobs.pop() {
            self.blob = Arc::into_inner(blob);
            work.spend(work::FREE);
        } else if let Some(mut segment) = self.segment.take() {
            if let Some(blob) = segment.pop_large() {
                self.blobs.push(blob);
                self.segment = Some(segment);
                work.spend(work::FREE);
            } else {
                work.spend(if wal.recycle(segment) {
                    work::FREE
                } else {
                    work::of_give_back(SEGMENT_BYTES)
                });
            }
        } else if let Some(chunk) = self.chunks.pop() {
            if let Some(chunk) = Arc::into_inner(chunk) {
                self.alive.subtract(chunk.footprint());
                let (bytes, blobs) = chunk.into_parts();
                self.blobs = blobs;
                free(bytes, work);
            }
            work.spend(work::FREE);
        } else if let Some(bytes) = self.indexes.pop() {
            free(bytes, work);
            work.spend(work::FREE);
        } else if let Some(segment) = self.segments.pop() {
            self.segment = Arc::into_inner(segment);
        } else if let Some(block) = &mut self.block {
            match block.pop() {
                Some(chunk) => self.chunks.push(chunk),
                None => self.block = None,
            }
        } else if let Some(blocks) = self.blocks.last_mut() {
            match blocks.pop() {
                Some((_, block)) => self.block = Arc::into_inner(block),
                None => drop(self.blocks.pop()),
            }
        } else if let Some(memtable) = self.memtables.last_mut() {
            if !memtable.shrink(&mut self.segments, &mut self.indexes) {
                self.memtables.pop();
            }
            work.spend(work::FREE);
        } else {
            return false;
        }
        true
    }
}

/// Frees a block: its memory is kept for the next blocks, or given back to the kernel.
fn free(bytes: Block, work: &mut Work) {
    let unmapped_bytes = if spare_bytes() + bytes.len() > SPARE_BYTES {
        work.spend(work::of_give_back(bytes.len()));
        bytes.give_back()
    } else {
        bytes.free()
    };
    work.spend(work::of_unmap(unmapped_bytes));
}
