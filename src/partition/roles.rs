//! The role of a partition on this node, its epoch and its histories, and how a controller changes
//! them.
//!
//! Invariants:
//! 1. The epoch never goes down. A node that was assigned a role in an epoch takes another role
//!    only in a higher one.
//! 2. A change takes effect when it is durable; until then it is *unsettled*, and the partition
//!    acts in neither role.
//! 3. Every promotion, and every new epoch of a leader, begins a new history and records where the
//!    one before it ended.
//! 4. A node that is to lead acts as a replica until it has what its peers hold (`takeover.rs`).
//! 5. One message raises the epoch by at most [`EPOCH_LEAP_MAX`], so that a mistyped number cannot
//!    use up all epochs.

use crate::seeded_bugs::SeededBug;
use crate::storage::{CopyId, HistoryId, Lineage, PartitionMeta, Role};

/// How far above the one in force an epoch may be. Enough for counters and for seconds since 1970,
/// and too little to come near the last epoch.
pub const EPOCH_LEAP_MAX: u64 = 1 << 32;

/// The role that a controller assigns to a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Leader or replica.
    pub role: Role,
    /// The epoch. Without one a promotion takes the next, and other changes keep it.
    pub epoch: Option<u64>,
    /// The leader's address, for a replica.
    pub leader: Option<String>,
    /// Addresses of the partition's other nodes; empty if the controller named none.
    pub peers: Vec<String>,
}

impl Assignment {
    /// Whether a partition that begins with `epoch` accepts this assignment.
    pub fn check_first(&self, epoch: u64) -> Result<(), AssignError> {
        unassigned(epoch).assigned(self).map(drop)
    }

    /// Whether `other` may follow this assignment while the partition is being created.
    pub fn check_next(&self, epoch: u64, next: &Self) -> Result<(), AssignError> {
        let assigned = unassigned(epoch).assigned(self)?;
        Roles::in_force(assigned).assigned(next).map(drop)
    }
}

/// A partition without a role.
fn unassigned(epoch: u64) -> Roles {
    let history = HistoryId([0; 16]);
    Roles::in_force(PartitionMeta {
        epoch,
        ..PartitionMeta::new(Role::Unassigned, Lineage::new(history), CopyId::NONE)
    })
}

/// An assignment is refused; the answer is 409.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssignError {
    /// A higher epoch is in force.
    Outdated {
        /// That epoch.
        in_force: u64,
    },
    /// Another role was taken in this epoch.
    Taken {
        /// The epoch.
        epoch: u64,
        /// The role.
        role: Role,
    },
    /// The epoch is too far above the one in force.
    Leap {
        /// The highest epoch that would be accepted.
        max: u64,
    },
}

/// The progress of a change of the metadata to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Settled,
    /// To be handed over.
    Waiting,
    HandedOver,
}

/// Whether the partition acts in its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    Taken,
    /// It is to lead, and acts as a replica until it holds what its peers hold.
    TakingOver,
    /// Not before a controller assigns it again.
    Awaiting,
}

/// Role, epoch and histories of a partition.
#[derive(Clone, Debug)]
pub struct Roles {
    meta: PartitionMeta,
    duty: Duty,
    change: Change,
    pub(super) changed_count: u64,
    pub(super) settled_count: u64,
}

impl Roles {
    /// The roles of the metadata.
    pub fn in_force(meta: PartitionMeta) -> Self {
        Self {
            meta,
            duty: Duty::Taken,
            change: Change::Settled,
            changed_count: 0,
            settled_count: 0,
        }
    }

    /// The same, but the partition has no role until a controller assigns one.
    pub fn awaiting(meta: PartitionMeta) -> Self {
        Self {
            duty: Duty::Awaiting,
            ..Self::in_force(meta)
        }
    }

    /// The role in which the partition acts.
    pub fn role(&self) -> Role {
        match (self.duty, self.meta.role) {
            (Duty::Awaiting, _) => Role::Unassigned,
            (Duty::TakingOver, Role::Leader) => Role::Replica,
            (_, role) => role,
        }
    }

    /// Acts as a replica from now on, until [`take_office`](Self::take_office).
    pub(super) fn begin_takeover(&mut self) {
        self.duty = Duty::TakingOver;
    }

    /// Whether it is to lead, and does not lead yet.
    pub fn is_taking_over(&self) -> bool {
        self.duty == Duty::TakingOver
    }

    /// The metadata.
    #[inline]
    pub fn meta(&self) -> &PartitionMeta {
        &self.meta
    }

    /// Whether the last change is durable.
    pub fn is_settled(&self) -> bool {
        SeededBug::RoleNotSettled.is_on() || self.change == Change::Settled
    }

    pub(super) fn has_unsettled(&self) -> bool {
        self.change == Change::Waiting
    }

    /// The metadata to be written, if it has changed.
    pub(super) fn take_unsettled(&mut self) -> Option<PartitionMeta> {
        if self.change != Change::Waiting {
            return None;
        }
        self.change = Change::HandedOver;
        Some(self.meta.clone())
    }

    pub(super) fn on_settled(&mut self) {
        self.settled_count += 1;
        if self.settled_count == self.changed_count {
            self.change = Change::Settled;
        }
    }

    /// Has no role from now on, until one is assigned.
    pub(super) fn await_assignment(&mut self) {
        self.duty = Duty::Awaiting;
    }

    /// A controller assigns a role.
    pub(super) fn take_duty(&mut self) {
        if self.duty == Duty::Awaiting {
            self.duty = Duty::Taken;
        }
    }

    /// Changes the metadata; `lasts`: it is durable at once, since there is no disk. A takeover
    /// goes on if the role is still leader.
    pub(super) fn change(&mut self, meta: PartitionMeta, lasts: bool) {
        if meta == self.meta {
            return;
        }
        if self.duty == Duty::TakingOver && meta.role != Role::Leader {
            self.duty = Duty::Taken;
        }
        self.meta = meta;
        if lasts {
            self.changed_count += 1;
            self.settled_count += 1;
            return;
        }
        // A change that is not handed to the disk yet is merged with this one.
        if self.change != Change::Waiting {
            self.changed_count += 1;
        }
        self.change = Change::Waiting;
    }

    /// Takes on the metadata of a replacement of all data, which makes it durable.
    pub(super) fn replace(&mut self, meta: PartitionMeta) {
        self.meta = meta;
    }

    /// The metadata after an assignment. A leader is not in office yet.
    pub(super) fn assigned(&self, assignment: &Assignment) -> Result<PartitionMeta, AssignError> {
        let now = &self.meta;
        let epoch = match assignment.epoch {
            Some(epoch) => epoch,
            None if assignment.role == Role::Leader && now.role != Role::Leader => now.epoch + 1,
            None => now.epoch,
        };
        if epoch < now.epoch {
            return Err(AssignError::Outdated {
                in_force: now.epoch,
            });
        }
        let max = now.epoch.saturating_add(EPOCH_LEAP_MAX);
        if epoch > max {
            return Err(AssignError::Leap { max });
        }
        // Without an epoch no controller can have given this epoch to another node.
        let is_taken = epoch == now.epoch
            && !now.is_heard
            && now.role != assignment.role
            && now.role != Role::Unassigned;
        if is_taken
            && (assignment.epoch.is_some_and(|epoch| epoch > 0) || assignment.role == Role::Leader)
        {
            return Err(AssignError::Taken {
                epoch,
                role: now.role,
            });
        }
        let leader = match assignment.role {
            Role::Leader => None,
            Role::Replica | Role::Unassigned => assignment.leader.clone(),
        };
        let peers = if assignment.peers.is_empty() {
            now.peers.clone()
        } else {
            assignment.peers.clone()
        };
        Ok(PartitionMeta {
            role: assignment.role,
            epoch,
            ordered_epoch: now.ordered_epoch.max(assignment.epoch.unwrap_or(0)),
            is_heard: false,
            leader,
            peers,
            ..now.clone()
        })
    }

    /// The metadata of a leader that takes office with data up to `version`. `history` is the
    /// history that begins; none: the present one goes on.
    pub(super) fn in_office(&self, version: u64, history: Option<HistoryId>) -> PartitionMeta {
        let now = &self.meta;
        let data_ordered_epoch = if now.ordered_epoch == now.epoch {
            now.epoch
        } else {
            now.data_ordered_epoch
        };
        let lineage = match history {
            Some(history) if begins_history() => now.lineage.begin(history, version),
            _ => now.lineage.clone(),
        };
        PartitionMeta {
            data_epoch: now.epoch,
            data_ordered_epoch,
            lineage,
            ..now.clone()
        }
    }

    /// Acts as the leader from now on.
    pub(super) fn take_office(&mut self) {
        self.duty = Duty::Taken;
    }

    /// The metadata after hearing of a higher epoch: the node leads no more. `leader` is the leader
    /// of that epoch, if it is known.
    pub(super) fn deposed(
        &self,
        epoch: u64,
        ordered_epoch: u64,
        leader: Option<String>,
    ) -> PartitionMeta {
        let now = &self.meta;
        let role = match now.role {
            Role::Unassigned => Role::Unassigned,
            Role::Leader | Role::Replica => Role::Replica,
        };
        PartitionMeta {
            role,
            epoch,
            ordered_epoch: now.ordered_epoch.max(ordered_epoch.min(epoch)),
            is_heard: true,
            leader,
            ..now.clone()
        }
    }
}

/// Whether a promotion begins a history.
fn begins_history() -> bool {
    !SeededBug::HistoryKept.is_on()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(role: Role, epoch: u64) -> Roles {
        let lineage = Lineage::new(HistoryId([1; 16]));
        Roles::in_force(PartitionMeta {
            epoch,
            data_epoch: epoch,
            ..PartitionMeta::new(role, lineage, CopyId([1; 16]))
        })
    }

    fn assign(roles: &Roles, role: Role, epoch: Option<u64>) -> Result<PartitionMeta, AssignError> {
        let leader = (role == Role::Replica).then(|| "http://h:1".to_owned());
        roles.assigned(&Assignment {
            role,
            epoch,
            leader,
            peers: Vec::new(),
        })
    }

    #[test]
    fn epochs_never_go_down() {
        for role in [Role::Leader, Role::Replica, Role::Unassigned] {
            for wanted in [Role::Leader, Role::Replica] {
                let outdated = Err(AssignError::Outdated { in_force: 5 });
                assert_eq!(assign(&roles(role, 5), wanted, Some(4)), outdated);
                assert_eq!(
                    assign(&roles(role, 5), wanted, Some(6)).map(|meta| meta.epoch),
                    Ok(6)
                );
            }
        }
    }

    #[test]
    fn epochs_do_not_leap() {
        for role in [Role::Leader, Role::Replica, Role::Unassigned] {
            let max = 5 + EPOCH_LEAP_MAX;
            for epoch in [max + 1, 1 << 53, u64::MAX] {
                let refused = Err(AssignError::Leap { max });
                assert_eq!(assign(&roles(role, 5), Role::Leader, Some(epoch)), refused);
            }
            assert!(assign(&roles(role, 5), Role::Leader, Some(max)).is_ok());
        }
    }

    #[test]
    fn a_role_is_taken_once_in_an_epoch() {
        for (role, other) in [(Role::Leader, Role::Replica), (Role::Replica, Role::Leader)] {
            assert_eq!(
                assign(&roles(role, 5), other, Some(5)),
                Err(AssignError::Taken { epoch: 5, role })
            );
            assert!(
                assign(&roles(role, 5), role, Some(5)).is_ok(),
                "the same again"
            );
            assert!(assign(&roles(Role::Unassigned, 5), role, Some(5)).is_ok());
        }
        let epoch_of = |role, wanted| assign(&roles(role, 5), wanted, None).map(|meta| meta.epoch);
        assert_eq!(epoch_of(Role::Replica, Role::Leader), Ok(6));
        assert_eq!(epoch_of(Role::Leader, Role::Leader), Ok(5));
        assert_eq!(epoch_of(Role::Leader, Role::Replica), Ok(5));
    }

    #[test]
    fn an_epoch_that_was_only_heard_of_is_free_for_any_role() {
        let mut roles = roles(Role::Leader, 1);
        roles.change(roles.deposed(2, 0, None), true);
        assert_eq!(roles.role(), Role::Replica);
        let led = assign(&roles, Role::Leader, Some(2)).expect("no role was assigned in epoch 2");
        roles.change(led, true);
        assert_eq!(
            assign(&roles, Role::Replica, Some(2)),
            Err(AssignError::Taken {
                epoch: 2,
                role: Role::Leader
            })
        );
    }

    #[test]
    fn a_promotion_begins_a_history() {
        let mut roles = roles(Role::Replica, 5);
        let ordered = assign(&roles, Role::Leader, Some(9)).expect("allowed");
        roles.change(ordered, true);
        let promoted = roles.in_office(70, Some(HistoryId([2; 16])));
        assert_eq!(promoted.lineage.history(), HistoryId([2; 16]));
        assert_eq!(
            promoted.lineage.common_version(HistoryId([1; 16]), 100),
            Some(70)
        );
        assert_eq!((promoted.data_epoch, promoted.data_ordered_epoch), (9, 9));
        let again = roles.in_office(70, None);
        assert_eq!(again.lineage.history(), HistoryId([1; 16]));
    }

    #[test]
    fn an_epoch_that_the_node_chose_is_no_order() {
        let mut roles = roles(Role::Replica, 5);
        let chosen = assign(&roles, Role::Leader, None).expect("allowed");
        roles.change(chosen, true);
        let promoted = roles.in_office(70, Some(HistoryId([2; 16])));
        assert_eq!((promoted.data_epoch, promoted.data_ordered_epoch), (6, 0));
    }

    #[test]
    fn a_node_that_takes_over_acts_as_a_replica() {
        let mut roles = roles(Role::Leader, 5);
        roles.begin_takeover();
        assert_eq!(roles.role(), Role::Replica);
        roles.take_office();
        assert_eq!(roles.role(), Role::Leader);
        roles.begin_takeover();
        roles.change(roles.deposed(6, 0, None), true);
        assert!(!roles.is_taking_over(), "it leads no more");
    }

    #[test]
    fn a_change_counts_when_it_is_on_disk() {
        let mut roles = roles(Role::Replica, 5);
        let first = assign(&roles, Role::Leader, Some(6)).expect("allowed");
        roles.change(first, false);
        assert!(!roles.is_settled());
        assert!(roles.take_unsettled().is_some() && roles.take_unsettled().is_none());
        let second = roles.deposed(7, 0, None);
        roles.change(second, false);
        roles.on_settled();
        assert!(!roles.is_settled(), "the second is not written yet");
        assert_eq!(roles.take_unsettled().map(|meta| meta.epoch), Some(7));
        roles.on_settled();
        assert!(roles.is_settled());
        assert_eq!((roles.changed_count, roles.settled_count), (2, 2));
    }
}
