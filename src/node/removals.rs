//! Giving partitions up: what an order needs for it, and what becomes of memory and files.
//!
//! Invariants:
//! 1. From the moment an order is taken the partition is not here: requests do not find it, its
//!    connections end, and replies that wait in it are told so.
//! 2. The reply to the order waits until no start finds the partition's files. Until then what the
//!    disk tells of its number is about the old partition, and a new one is not opened.
//! 3. Memory is freed in slices.
//! 4. A partition that is made under the number of a removed one has nothing of it but the epoch:
//!    an order of a lower one came late, and is refused. The epochs of the last
//!    [`EPOCHS_KEPT`] removals are known, for as long as the process runs.
//!
//! Not here: which data may be given up (`partition/removal.rs`), files (`storage/`).

use std::collections::VecDeque;

use crate::partition::{Partition, RemovalError, RetiredEngines};
use crate::storage::{DiskCommand, DiskEvent};

use super::errors::{AssignRefusal, PARTITIONS_MAX};

/// As many as there may be partitions.
const EPOCHS_KEPT: usize = PARTITIONS_MAX;

/// An order to give a partition up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemovalOrder {
    /// The epoch that the order is of, if the controller counts them.
    pub epoch: Option<u64>,
    /// Data that no other node is known to hold is dropped, too.
    pub discards: bool,
}

/// What came of such an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Whether the partition was here.
    pub was_here: bool,
    /// The number of the removal, which [`Wait::Removed`](crate::partition::Wait::Removed) waits
    /// for; none if there is nothing to wait for.
    pub removal: Option<u64>,
}

/// Why it was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalRefusal {
    /// For the same reasons as an assignment.
    AsAssignment(AssignRefusal),
    /// The partition is being made: try again.
    Opening,
    /// The partition stays as it is.
    Kept(RemovalError),
}

/// Partitions on their way out, and what is known of those that are gone.
#[derive(Debug, Default)]
pub(super) struct Removals {
    /// Partitions that the disk was not told to remove yet.
    untold: VecDeque<u32>,
    /// Partitions that the disk was told to remove.
    told: VecDeque<u32>,
    pub(super) begun_count: u64,
    /// Engines to be freed.
    pub(super) engines: RetiredEngines,
    epochs: VecDeque<(u32, u64)>,
    /// No removed partition has had this leadership generation.
    pub(super) next_generation: u64,
}

impl Removals {
    /// Removed partitions that still have files.
    pub(super) fn pending_count(&self) -> usize {
        self.untold.len() + self.told.len()
    }

    /// Whether the files of a partition of this number are still there.
    pub(super) fn is_pending(&self, id: u32) -> bool {
        self.untold.contains(&id) || self.told.contains(&id)
    }

    /// Removals that are done, of all that were begun: they are done in order.
    pub(super) fn done_count(&self) -> u64 {
        self.begun_count - self.pending_count() as u64
    }

    /// Whether the disk is still to be told of a removal.
    pub(super) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    pub(super) fn take_command(&mut self) -> Option<DiskCommand> {
        let id = self.untold.pop_front()?;
        self.told.push_back(id);
        Some(DiskCommand::Remove(id))
    }

    /// Whether what the disk tells is about a partition that is gone.
    pub(super) fn concerns(&mut self, event: &DiskEvent) -> bool {
        match event {
            DiskEvent::Store(id, ..) => self.is_pending(*id),
            DiskEvent::Removed(id) => {
                let first = self.told.pop_front();
                debug_assert_eq!(first, Some(*id), "removals are done in order");
                true
            }
            _ => false,
        }
    }

    /// The epoch that a new partition of this number begins with.
    pub(super) fn epoch_of(&self, id: u32) -> u64 {
        let known = self.epochs.iter().find(|(of, _)| *of == id);
        known.map_or(0, |(_, epoch)| *epoch)
    }

    pub(super) fn begin(&mut self, partition: Partition, epoch: u64, is_on_disk: bool) {
        let id = partition.id();
        self.begun_count += 1;
        self.next_generation = self
            .next_generation
            .max(partition.leadership_generation() + 1);
        self.epochs.retain(|(of, _)| *of != id);
        if self.epochs.len() == EPOCHS_KEPT {
            self.epochs.pop_front();
        }
        self.epochs.push_back((id, epoch));
        self.engines.append(partition.into_engines());
        if is_on_disk {
            self.untold.push_back(id);
        }
    }
}
