//! Assignments: what a partition does when a controller gives it a role, and at a start.
//!
//! Not here: which assignments are allowed (`roles.rs`).

use crate::storage::{PartitionMeta, Role};

use super::roles::{AssignError, Assignment};
use super::state::Partition;
use super::takeover::ClaimBasis;

impl Partition {
    /// Takes on a role; the number of the change, which [`Wait::Settled`](super::Wait::Settled)
    /// waits for.
    pub fn assign(&mut self, assignment: &Assignment) -> Result<u64, AssignError> {
        let meta = self.roles.assigned(assignment)?;
        let before = self.roles.meta().clone();
        let (role_before, took_over) = (self.roles.role(), self.roles.is_taking_over());
        if before.leader.is_some() {
            self.known_peers.last_leader.clone_from(&before.leader);
        }
        self.roles.take_duty();
        self.leadership.is_ordered = meta.role == Role::Leader;
        if meta.role == Role::Leader {
            return Ok(self.assign_leader(meta, assignment, &before, role_before));
        }
        self.change_meta(meta);
        if role_before == Role::Leader {
            self.leadership.generation += 1;
        }
        let now = self.roles.meta();
        if took_over
            || (now.role, &now.leader, now.epoch) != (role_before, &before.leader, before.epoch)
        {
            log::info!(
                "partition {}: {} in epoch {}",
                self.id,
                now.role.name(),
                now.epoch
            );
            self.takeover = None;
            self.disconnect();
        }
        Ok(self.roles.changed_count)
    }

    /// The partition is to lead: it takes over, or goes on doing so or leading.
    fn assign_leader(
        &mut self,
        mut meta: PartitionMeta,
        assignment: &Assignment,
        before: &PartitionMeta,
        role_before: Role,
    ) -> u64 {
        let is_same_epoch = meta.epoch == before.epoch;
        meta.peers = self.with_known_peers(&meta.peers);
        let peers = meta.peers.clone();
        self.change_meta(meta);
        if is_same_epoch && self.roles.is_taking_over() {
            self.add_to_takeover(&assignment.peers);
            return self.roles.changed_count;
        }
        let basis = match assignment.epoch {
            Some(epoch) if epoch > 0 => ClaimBasis::Ordered,
            _ if before.role == Role::Leader => ClaimBasis::Resumed,
            _ => ClaimBasis::OwnEpoch,
        };
        if is_same_epoch && role_before == Role::Leader {
            self.reassure_peers(&peers, basis);
            return self.roles.changed_count;
        }
        if role_before == Role::Leader {
            self.leave_office();
        }
        self.roles.begin_takeover();
        self.queue_farewell_to_leader();
        self.disconnect();
        self.begin_takeover(basis);
        self.roles.changed_count.min(self.ordered_change())
    }

    /// Goes on as the leader that the partition was before a restart, once its peers were asked.
    pub fn resume_office(&mut self) {
        let meta = self.roles.meta();
        let is_in_office = meta.data_epoch == meta.epoch;
        if self.roles.role() == Role::Leader && !(is_in_office && meta.peers.is_empty()) {
            self.begin_takeover(ClaimBasis::Resumed);
        }
    }
}
