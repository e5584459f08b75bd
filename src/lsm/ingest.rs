//! An engine made of chunks from elsewhere: a checkpoint, a backup, a leader.
//!
//! Chunks are adopted as they are: checked, not indexed again.
//!
//! Invariants:
//! 1. Everything that a read, a merge or a scan relies on is checked: each chunk as a whole
//!    ([`Chunk::adopt`]), and that the chunks of a layer ascend without overlap.
//! 2. No version in a chunk lies behind the position of the engine.

use std::sync::Arc;

use super::engine::{Lsm, Options};
use crate::lsm::chunk::Chunk;
use crate::lsm::hash::KeyHasher;
use crate::lsm::level::Level;
use crate::lsm::levels::Levels;
use crate::lsm::log::position::LogPosition;
use crate::lsm::log::record::Blob;
use crate::lsm::run::{ChunkPosition, Run};

/// The bytes are not those of an engine. The text says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IngestError(pub &'static str);

/// Builds an engine.
#[derive(Debug)]
pub struct EngineBuilder {
    hasher: KeyHasher,
    position: LogPosition,
    /// Newest first.
    runs: Vec<(Level, Run)>,
    /// The position of the next chunk in the last run, and the greatest key before it.
    at: ChunkPosition,
    last_key: Vec<u8>,
}

impl EngineBuilder {
    /// Begins an engine at a position, with chunks of the given hasher.
    pub fn new(hasher: KeyHasher, position: LogPosition) -> Self {
        Self {
            hasher,
            position,
            runs: Vec::new(),
            at: ChunkPosition::default(),
            last_key: Vec::new(),
        }
    }

    /// Begins the next layer, older than those before it.
    pub fn begin_layer(&mut self, level: Level) -> Result<(), IngestError> {
        if level == Level::Upper(0) {
            return Err(IngestError("a layer of chunks in level 0"));
        }
        if self.runs.iter().any(|(level, _)| *level == Level::Bottom) {
            return Err(IngestError("a layer below the bottom"));
        }
        self.runs.push((level, Run::default()));
        self.at = ChunkPosition::default();
        self.last_key.clear();
        Ok(())
    }

    /// Adds the next chunk of the layer, with the large values it refers to.
    pub fn add_chunk(&mut self, bytes: &[u8], blobs: Vec<Blob>) -> Result<(), IngestError> {
        let Some((_, run)) = self.runs.last_mut() else {
            return Err(IngestError("a chunk outside of any layer"));
        };
        let (chunk, last_entry) =
            Chunk::adopt(bytes, blobs, &self.hasher, self.position.version).map_err(IngestError)?;
        if !self.last_key.is_empty() && chunk.first_key() <= self.last_key.as_slice() {
            return Err(IngestError("chunks that overlap"));
        }
        self.last_key.clear();
        self.last_key
            .extend_from_slice(chunk.entry_at(last_entry).0.key);
        self.at = run.insert(self.at, Arc::new(chunk));
        Ok(())
    }

    /// The engine. It has the hasher of the chunks, not that of `options`.
    pub fn finish(mut self, options: Options) -> Lsm {
        self.runs.retain(|(_, run)| run.entry_count > 0);
        let options = Options {
            hash_seed: self.hasher.seed(),
            ..options
        };
        let levels = Levels::adopt(self.hasher, self.runs);
        Lsm::from_parts(options, levels, self.position)
    }
}
