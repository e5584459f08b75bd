//! Replaced engines: their memory is freed in slices.

use crate::lsm::{Footprint, Lsm};

/// Engines on their way out.
#[derive(Debug, Default)]
pub struct RetiredEngines {
    pub(super) engines: Vec<Lsm>,
}

impl RetiredEngines {
    /// Frees an engine, piece by piece.
    pub fn add(&mut self, mut engine: Lsm) {
        engine.retire();
        self.engines.push(engine);
    }

    /// Frees other engines, too.
    pub fn append(&mut self, mut other: Self) {
        self.engines.append(&mut other.engines);
    }

    /// Maintenance owed, in units of work.
    pub fn owed_work(&self) -> usize {
        self.engines.iter().map(Lsm::owed_work).sum()
    }

    /// Whether all memory is freed that can be.
    pub fn is_idle(&self) -> bool {
        self.engines.iter().all(Lsm::is_idle)
    }

    pub(super) fn snapshot_count(&self) -> usize {
        self.engines.iter().map(Lsm::snapshot_count).sum()
    }

    /// Bytes that snapshots alone keep alive.
    pub(super) fn pinned(&self) -> impl Iterator<Item = Footprint> {
        self.engines.iter().map(Lsm::pinned)
    }

    /// Frees memory, at most about `budget` units of work; returns the units spent.
    pub fn maintain(&mut self, budget: usize) -> usize {
        let mut spent = 0;
        for engine in &mut self.engines {
            if spent < budget {
                spent += engine.maintain(budget - spent);
            }
        }
        // The last snapshots of an engine send their layers home to it.
        self.engines
            .retain(|engine| !engine.is_idle() || engine.snapshot_count() > 0);
        spent
    }
}
