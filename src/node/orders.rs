//! Orders of a controller: assigning partitions to this node, and removing them from it.
//!
//! Not here: roles and epochs (`partition/`), which data may be removed (`partition/removal.rs`),
//! what becomes of a removed partition (`removals.rs`).

use crate::lsm::Lsm;
use crate::partition::{Assignment, DiskLog, Partition, Roles};
use crate::storage::{PartitionMeta, Role};

use super::errors::{AssignRefusal, PARTITIONS_MAX};
use super::removals::{Removal, RemovalOrder, RemovalRefusal};
use super::state::{Node, Opening};

impl Node {
    /// A controller says what a partition is to be; the number of the change, which
    /// [`Wait::Settled`](crate::partition::Wait::Settled) waits for.
    pub fn assign(&mut self, id: u32, assignment: Assignment) -> Result<u64, AssignRefusal> {
        self.check_orders()?;
        if let Some(index) = self.index_of(id) {
            return Ok(self.partitions[index].assign(&assignment)?);
        }
        let epoch = self.removals.epoch_of(id);
        let mut pending = self.openings.pending.iter_mut();
        if let Some(opening) = pending.find(|opening| opening.id == id) {
            opening.assignment.check_next(epoch, &assignment)?;
            opening.assignment = assignment;
            return Ok(1);
        }
        assignment.check_first(epoch)?;
        if self.partition_count() >= PARTITIONS_MAX {
            return Err(AssignRefusal::TooMany);
        }
        let opening = Opening {
            id,
            assignment,
            generation: self.removals.next_generation,
        };
        if self.config.data_dir.is_some() {
            let partition_max = self.openings.partition_max;
            if self.file_count() >= partition_max {
                return Err(AssignRefusal::TooFewDescriptors { partition_max });
            }
            self.openings.pending.push(opening);
            self.openings.untold.push(id);
            return Ok(1);
        }
        let meta = self.fresh_meta(Role::Unassigned);
        self.make(&opening, Lsm::new(self.options.engine), meta, None)
    }

    /// Whether this node can take orders now.
    fn check_orders(&self) -> Result<(), AssignRefusal> {
        match self.loading() {
            Some(progress) => Err(AssignRefusal::Loading(progress)),
            None if self.write_obstacle().is_some() => Err(AssignRefusal::Failed),
            None => Ok(()),
        }
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
        let (roles, ids) = (Roles::in_force(meta), self.ids.split());
        let mut partition = Partition::new(id, lsm, roles, disk, self.options.clone(), ids)
            .counting_from(opening.generation);
        let change = partition.assign(&opening.assignment)?;
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
        self.check_orders().map_err(RemovalRefusal::AsAssignment)?;
        if self.openings.pending.iter().any(|opening| opening.id == id) {
            return Err(RemovalRefusal::Opening);
        }
        let Some(index) = self.index_of(id) else {
            // An order that is repeated is answered when the first one would be.
            let removal = self.removals.is_pending(id);
            return Ok(Removal {
                was_here: false,
                removal: removal.then_some(self.removals.begun_count),
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
            removal: is_on_disk.then_some(self.removals.begun_count),
        })
    }
}
