//! Orders of a controller: assigning partitions to this node, and removing them from it.
//!
//! Not here: roles and epochs (`partition/`), which data may be removed (`partition/removal.rs`),
//! what becomes of a removed partition (`removals.rs`).

use crate::lsm::Lsm;
use crate::partition::{Assignment, DiskLog, Partition, Roles};
use crate::storage::{HistoryId, Lineage, PartitionMeta, Role};

use super::errors::{AssignRefusal, PARTITIONS_MAX};
use super::removals::{Removal, RemovalOrder, RemovalRefusal};
use super::state::{Node, Opening};

impl Node {
    /// A controller says what a partition is to be; the number of the change, which
    /// [`Wait::Settled`](crate::partition::Wait::Settled) waits for.
    pub fn assign(&mut self, id: u32, assignment: Assignment) -> Result<u64, AssignRefusal> {
        if let Some(progress) = self.loading() {
            return Err(AssignRefusal::Loading(progress));
        }
        if self.write_obstacle().is_some() {
            return Err(AssignRefusal::Failed);
        }
        if let Some(index) = self.index_of(id) {
            return self.partitions[index]
                .assign(&assignment)
                .map_err(AssignRefusal::PartitionMeta);
        }
        let epoch = self.removals.epoch_of(id);
        if let Some(opening) = self
            .openings
            .pending
            .iter_mut()
            .find(|opening| opening.id == id)
        {
            opening
                .assignment
                .check_next(epoch, &assignment)
                .map_err(AssignRefusal::PartitionMeta)?;
            opening.assignment = assignment;
            return Ok(1);
        }
        assignment
            .check_first(epoch)
            .map_err(AssignRefusal::PartitionMeta)?;
        if self.partition_count() >= PARTITIONS_MAX {
            return Err(AssignRefusal::TooMany);
        }
        if self.config.data_dir.is_some() {
            if self.file_count() >= self.openings.partition_max {
                return Err(AssignRefusal::TooFewDescriptors {
                    partition_max: self.openings.partition_max,
                });
            }
            let generation = self.removals.next_generation();
            self.openings.pending.push(Opening {
                id,
                assignment,
                generation,
            });
            self.openings.untold.push(id);
            return Ok(1);
        }
        let history = HistoryId(self.ids.draw());
        let meta = PartitionMeta::new(Role::Unassigned, Lineage::new(history));
        let opening = Opening {
            id,
            assignment,
            generation: self.removals.next_generation(),
        };
        self.make(&opening, Lsm::new(self.options.engine), meta, None)
    }

    /// A partition that did not exist before.
    pub(super) fn make(
        &mut self,
        opening: &Opening,
        lsm: Lsm,
        mut meta: PartitionMeta,
        disk: Option<DiskLog>,
    ) -> Result<u64, AssignRefusal> {
        let id = opening.id;
        meta.epoch = self.removals.epoch_of(id);
        let mut partition = Partition::new(
            id,
            lsm,
            Roles::in_force(meta),
            disk,
            self.options.clone(),
            self.ids.split(),
        )
        .counting_from(opening.generation);
        let change = partition
            .assign(&opening.assignment)
            .map_err(AssignRefusal::PartitionMeta)?;
        self.add(partition);
        Ok(change)
    }

    /// A controller takes a partition away from this node.
    pub fn give_up(
        &mut self,
        id: u32,
        order: RemovalOrder,
        now_ms: u64,
    ) -> Result<Removal, RemovalRefusal> {
        if let Some(progress) = self.loading() {
            return Err(RemovalRefusal::AsAssignment(AssignRefusal::Loading(
                progress,
            )));
        }
        if self.write_obstacle().is_some() {
            return Err(RemovalRefusal::AsAssignment(AssignRefusal::Failed));
        }
        if self.openings.pending.iter().any(|opening| opening.id == id) {
            return Err(RemovalRefusal::Opening);
        }
        let Some(index) = self.index_of(id) else {
            // An order that is repeated is answered when the first one would be.
            let removal = self.removals.is_pending(id);
            return Ok(Removal {
                was_here: false,
                removal: removal.then_some(self.removals.begun_count()),
            });
        };
        let epoch = self.partitions[index]
            .check_give_up(order.epoch, order.discards, now_ms)
            .map_err(RemovalRefusal::Kept)?;
        let partition = self.partitions.remove(index);
        log::info!(
            "partition {id}: given up in epoch {epoch} at version {}",
            partition.lsm().last_version()
        );
        self.resources.scan_snapshots.forget(id);
        let is_on_disk = partition.disk().is_some();
        self.removals.begin(partition, epoch, is_on_disk);
        Ok(Removal {
            was_here: true,
            removal: is_on_disk.then_some(self.removals.begun_count()),
        })
    }
}
