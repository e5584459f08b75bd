//! Statistics for monitoring: memory by level and by owner, and memory that snapshots pin.
//!
//! Memory is *pinned* if snapshots alone keep it alive. The engine counts the bytes of all frozen
//! memtables and chunks that were made and not freed (`reclaim.rs` frees all of them, those of
//! dropped snapshots, too). Those that are in no live layer are pinned, or wait to be freed: a
//! slice of maintenance at most, while maintenance keeps up.
//!
//! Large values are counted apart, once for each layer that refers to them. A value is in memory
//! once, and may be in a live layer, too: so the pinned bytes of large values are an upper bound.
//!
//! Cost: O(layers + segments of memtables), and one allocation.

use super::footprint::Footprint;

/// Statistics of one level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelStats {
    /// Layers in it.
    pub layer_count: usize,
    /// Entries in them, tombstones and overwritten entries included.
    pub entry_count: usize,
    /// Bytes in them.
    pub footprint: Footprint,
}

/// Statistics of the engine.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Version of the newest write.
    pub last_version: u64,
    /// Keys in the active memtable, tombstones included.
    pub memtable_entry_count: usize,
    /// Bytes of log in the active memtable.
    pub memtable_bytes: usize,
    /// Memory of memtables, the active one included, without their hash index.
    pub memtables: Footprint,
    /// Memory of all runs.
    pub runs: Footprint,
    /// From level 0, the frozen memtables, to the last that has a layer.
    pub levels: Vec<LevelStats>,
    /// The number of the bottom, whether it has a layer or not.
    pub bottom_level: usize,
    /// Log segments held.
    pub wal_segment_count: usize,
    /// Bytes in them, large values not included.
    pub wal_bytes: usize,
    /// Bytes of records in the log, large values included.
    pub log_bytes: usize,
    /// Bytes of records that are kept for readers alone, since no memtable needs them any more.
    pub retained_log_bytes: usize,
    /// Work that merges still have to do. An estimate.
    pub debt: usize,
}
