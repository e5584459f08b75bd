//! Figures for monitoring: what there is by level and by owner, and what snapshots alone keep
//! alive.
//!
//! What is *pinned* is found without asking any snapshot. The engine counts the bytes of all frozen
//! memtables and chunks that were made and not freed yet (`reclaim.rs` frees all of them, those of
//! snapshots too, which send their layers home). What of them is in no live layer any more is kept
//! by snapshots, or waits to be freed, which is a slice of maintenance at most while maintenance
//! keeps up.
//!
//! Large values are counted apart, once for each layer that refers to them: the value itself is
//! there once, and may be in a live layer, too. So what snapshots pin of them is at most what is
//! told.
//!
//! Cost: O(layers + segments of memtables), and one allocation.

use super::footprint::Footprint;

/// What there is in one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelStats {
    /// Layers in it.
    pub layer_count: usize,
    /// Entries in them, tombstones and overwritten entries included.
    pub entry_count: usize,
    /// Bytes in them.
    pub footprint: Footprint,
}

/// Figures about the engine.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Version of the newest write.
    pub last_version: u64,
    /// Keys in the active memtable, tombstones included.
    pub memtable_entry_count: usize,
    /// Bytes of log in the active memtable.
    pub memtable_bytes: usize,
    /// Memtables, the active one included; without their hash index.
    pub memtables: Footprint,
    /// All runs.
    pub runs: Footprint,
    /// From level 0, the frozen memtables, to the last that has a layer.
    pub levels: Vec<LevelStats>,
    /// The number of the bottom, whether it has a layer or not.
    pub bottom_level: usize,
    /// Log segments held.
    pub wal_segment_count: usize,
    /// Bytes in them, large values not included.
    pub wal_bytes: usize,
    /// The same with large values.
    pub log_bytes: usize,
    /// The same of what no memtable needs any more: it is kept for replicas.
    pub retained_log_bytes: usize,
    /// Work that merges still have to do. An estimate.
    pub debt: usize,
}
