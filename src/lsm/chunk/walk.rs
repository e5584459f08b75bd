//! A snapshot as chunks, layer by layer, for checkpoint files, backups and joining replicas.
//!
//! Chunks of runs are returned as they lie in memory. Chunks of a frozen memtable are made on the
//! way, so that the walk is complete up to the snapshot's version without waiting for a flush.
//!
//! Invariant: each step does bounded work, and the walk can pause anywhere; it holds `Arc`s and
//! borrows nothing.

use std::sync::Arc;

use crate::lsm::chunk::Chunk;
use crate::lsm::chunk::build::ChunkBuilder;
use crate::lsm::hash::KeyHasher;
use crate::lsm::immutable_layer::ImmutableLayer;
use crate::lsm::level::Level;
use crate::lsm::log::record::INLINE_VALUE_MAX_BYTES;
use crate::lsm::memtable::FrozenMemtable;
use crate::lsm::merge::cursor::Preparation;
use crate::lsm::run::{ChunkPosition, Run};
use crate::lsm::snapshot::Snapshot;
use crate::lsm::work::{self, Work};

/// The result of a step.
#[derive(Debug)]
pub enum ChunkStep {
    /// The budget is used up.
    Working,
    /// A layer begins; its chunks follow, ascending. Layers come newest first. A memtable comes as
    /// a run of level 1.
    Layer(Level),
    /// The next chunk of the layer.
    Chunk(Arc<Chunk>),
    /// The walk is complete.
    End,
}

#[derive(Debug)]
enum WalkState {
    /// Between layers.
    Between,
    Run {
        run: Run,
        at: ChunkPosition,
    },
    Memtable {
        frozen: Arc<FrozenMemtable>,
        next: usize,
        builder: ChunkBuilder,
    },
}

/// A walk through the chunks of a snapshot.
#[derive(Debug)]
pub struct ChunkWalk {
    preparation: Preparation,
    next_layer: usize,
    state: WalkState,
    /// Dropped last: by then it holds the only reference to the layers that it returns.
    snapshot: Snapshot,
}

impl ChunkWalk {
    /// The walk through a snapshot, which is given back at its end.
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            preparation: Preparation::new(snapshot.layers.iter().map(|(_, layer)| layer)),
            next_layer: 0,
            state: WalkState::Between,
            snapshot,
        }
    }

    /// Goes to the next layer or chunk, with at most about `budget` units of work; returns the work
    /// done.
    pub fn step(&mut self, budget: usize) -> (ChunkStep, usize) {
        let mut work = Work::new(budget);
        let step = self.find_next(&mut work);
        (step, work.spent())
    }

    fn find_next(&mut self, work: &mut Work) -> ChunkStep {
        if !self.preparation.step(work) {
            return ChunkStep::Working;
        }
        work.spend(work::CHUNK_LOOK);
        let step = match &mut self.state {
            WalkState::Between => None,
            WalkState::Run { run, at } => run.chunk(*at).map(|chunk| {
                *at = run.next(*at);
                ChunkStep::Chunk(Arc::clone(chunk))
            }),
            WalkState::Memtable {
                frozen,
                next,
                builder,
            } => build(frozen, next, builder, self.snapshot.hasher, work),
        };
        step.unwrap_or_else(|| self.begin_layer())
    }

    fn begin_layer(&mut self) -> ChunkStep {
        let Some((level, layer)) = self.snapshot.layers.get(self.next_layer) else {
            self.state = WalkState::Between;
            return ChunkStep::End;
        };
        self.next_layer += 1;
        match layer {
            ImmutableLayer::Run(run) => {
                self.state = WalkState::Run {
                    run: run.clone(),
                    at: ChunkPosition::default(),
                };
                ChunkStep::Layer(*level)
            }
            ImmutableLayer::Memtable(frozen) => {
                let builder =
                    ChunkBuilder::new(&self.snapshot.hasher, frozen.memtable.last_version);
                self.state = WalkState::Memtable {
                    frozen: Arc::clone(frozen),
                    next: 0,
                    builder,
                };
                ChunkStep::Layer(Level::Upper(1))
            }
        }
    }
}

/// Makes the next chunk of a memtable; `None` when there is none.
fn build(
    frozen: &FrozenMemtable,
    next: &mut usize,
    builder: &mut ChunkBuilder,
    hasher: KeyHasher,
    work: &mut Work,
) -> Option<ChunkStep> {
    let order = frozen.order().expect("sorted by the preparation");
    while let Some(place) = order.get(*next) {
        let entry = frozen.entry(*place);
        if !builder.has_room_for(&entry) {
            break;
        }
        builder.add(&entry, hasher.hash(entry.key));
        work.spend(work::of_entry(
            entry.key.len() + entry.value.len().min(INLINE_VALUE_MAX_BYTES),
        ));
        *next += 1;
        if work.is_used_up() {
            return Some(ChunkStep::Working);
        }
    }
    if builder.is_empty() {
        return None;
    }
    work.spend(work::CHUNK_FINISH);
    Some(ChunkStep::Chunk(Arc::new(builder.finish())))
}
