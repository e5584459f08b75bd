//! An immutable layer: a frozen memtable or a run of chunks.

use std::sync::Arc;

use crate::lsm::footprint::Footprint;
use crate::lsm::log::record::Entry;
use crate::lsm::memtable::FrozenMemtable;
use crate::lsm::run::{LookupKey, Run};

/// A layer. A clone shares all memory with it.
#[derive(Clone, Debug)]
pub(super) enum ImmutableLayer {
    Memtable(Arc<FrozenMemtable>),
    Run(Run),
}

impl ImmutableLayer {
    #[inline]
    pub(super) fn get(&self, lookup: &LookupKey<'_>) -> Option<Entry<'_>> {
        match self {
            Self::Memtable(frozen) => frozen.get(lookup.hash, lookup.key),
            Self::Run(run) => run.get(lookup),
        }
    }

    /// Entries in it, tombstones included.
    pub(super) fn entry_count(&self) -> usize {
        match self {
            Self::Memtable(frozen) => frozen.memtable.entry_count,
            Self::Run(run) => run.entry_count,
        }
    }

    /// The memory that it takes.
    pub(super) fn footprint(&self) -> Footprint {
        match self {
            Self::Memtable(frozen) => frozen.memtable.footprint(),
            Self::Run(run) => run.footprint(),
        }
    }

    /// Bytes of log or chunks, large values included.
    pub(super) fn memory_bytes(&self) -> usize {
        match self {
            Self::Memtable(frozen) => frozen.memtable.log_bytes,
            Self::Run(run) => run.memory_bytes,
        }
    }
}
