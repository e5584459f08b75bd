//! What a partition is on this node: its role, the epoch, its histories, and how a controller changes them.
//!
//! Invariants:
//! 1. The epoch never goes down, and whoever has led or followed in an epoch takes another role only in a higher one.
//! 2. A change counts when it is on disk, if there is one; until then it is *unsettled*, and neither role is carried out.
//! 3. Every promotion, and every new epoch of a leader, begins a new history and remembers where the one before it ended.

use crate::planted::{Bug, is_planted};
use crate::storage::{HistoryId, Lineage, Role, Standing};

/// What a controller wants a partition to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Leader or replica.
    pub role: Role,
    /// The epoch; without one a promotion takes the next, and anything else leaves it.
    pub epoch: Option<u64>,
    /// Of a replica, its leader's address.
    pub leader: Option<String>,
}

impl Assignment {
    /// Whether another may come after this one, on a partition that is still being made.
    pub fn check_next(&self, next: &Self) -> Result<(), AssignError> {
        let history = HistoryId([0; 16]);
        let made = Roles::in_force(Standing::new(Role::Unassigned, Lineage::new(history)));
        let assigned = made.assigned(self, 0, history)?;
        Roles::in_force(assigned)
            .assigned(next, 0, history)
            .map(drop)
    }
}

/// An assignment is refused: answer 409.
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
        /// That role.
        role: Role,
    },
    /// There is no epoch above.
    Exhausted,
}

/// How far a change of standing is on its way to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Settled,
    /// To be handed over.
    Waiting,
    HandedOver,
}

/// Whether the role on disk is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    OnDuty,
    /// Not before a controller says so again.
    Awaiting,
}

/// Role, epoch and histories of a partition.
#[derive(Clone, Debug)]
pub struct Roles {
    standing: Standing,
    duty: Duty,
    change: Change,
    changed_count: u64,
    settled_count: u64,
}

impl Roles {
    /// As the standing says.
    pub fn in_force(standing: Standing) -> Self {
        Self {
            standing,
            duty: Duty::OnDuty,
            change: Change::Settled,
            changed_count: 0,
            settled_count: 0,
        }
    }

    /// The standing is kept, but the role is not taken before a controller assigns one.
    pub fn awaiting(standing: Standing) -> Self {
        Self {
            duty: Duty::Awaiting,
            ..Self::in_force(standing)
        }
    }

    /// What the partition is now.
    pub fn role(&self) -> Role {
        match self.duty {
            Duty::OnDuty => self.standing.role,
            Duty::Awaiting => Role::Unassigned,
        }
    }

    /// Where it stands.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Whether the last change is on disk.
    pub fn is_settled(&self) -> bool {
        self.change == Change::Settled || is_planted(Bug::RoleNotSettled)
    }

    /// Changes so far.
    pub fn changed_count(&self) -> u64 {
        self.changed_count
    }

    /// Changes so far that last.
    pub fn settled_count(&self) -> u64 {
        self.settled_count
    }

    pub(super) fn has_unsettled(&self) -> bool {
        self.change == Change::Waiting
    }

    /// The standing to be written, if there is a new one.
    pub(super) fn take_unsettled(&mut self) -> Option<Standing> {
        if self.change != Change::Waiting {
            return None;
        }
        self.change = Change::HandedOver;
        Some(self.standing.clone())
    }

    pub(super) fn note_settled(&mut self) {
        self.settled_count += 1;
        if self.settled_count == self.changed_count {
            self.change = Change::Settled;
        }
    }

    /// Changes the standing; `lasts`: there is no disk that has to have it first.
    pub(super) fn change(&mut self, standing: Standing, lasts: bool) {
        if standing == self.standing && self.duty == Duty::OnDuty {
            return;
        }
        self.duty = Duty::OnDuty;
        self.standing = standing;
        if lasts {
            self.changed_count += 1;
            self.settled_count += 1;
            return;
        }
        // One that was not handed over yet is written as it is by then.
        if self.change != Change::Waiting {
            self.changed_count += 1;
        }
        self.change = Change::Waiting;
    }

    /// Takes on what came with a replacement of all data, which brings it to disk.
    pub(super) fn replace(&mut self, standing: Standing) {
        self.standing = standing;
    }

    /// The standing that an assignment makes of this one. `version`: of the newest write here; `history`: for one that begins.
    pub(super) fn assigned(
        &self,
        assignment: &Assignment,
        version: u64,
        history: HistoryId,
    ) -> Result<Standing, AssignError> {
        let now = &self.standing;
        let epoch = match assignment.epoch {
            Some(epoch) => epoch,
            None if assignment.role == Role::Leader && now.role != Role::Leader => {
                now.epoch.checked_add(1).ok_or(AssignError::Exhausted)?
            }
            None => now.epoch,
        };
        if epoch < now.epoch {
            return Err(AssignError::Outdated {
                in_force: now.epoch,
            });
        }
        // Without an epoch there is no controller that could have given another node this one.
        let is_taken =
            epoch == now.epoch && now.role != assignment.role && now.role != Role::Unassigned;
        if is_taken
            && (assignment.epoch.is_some_and(|epoch| epoch > 0) || assignment.role == Role::Leader)
        {
            return Err(AssignError::Taken {
                epoch,
                role: now.role,
            });
        }
        let mut standing = Standing {
            role: assignment.role,
            epoch,
            ..now.clone()
        };
        if assignment.role == Role::Leader {
            standing.leader = None;
            standing.data_epoch = epoch;
            // Each epoch's leader has a history of its own: where that begins, its epoch begins.
            let is_new = now.role == Role::Replica || epoch > now.epoch;
            if is_new && !is_planted(Bug::HistoryKept) {
                standing.lineage = now.lineage.begin(history, version);
            }
        } else {
            standing.leader.clone_from(&assignment.leader);
        }
        Ok(standing)
    }

    /// The standing once a higher epoch was heard of: whoever led until then follows, though it is not known whom yet.
    pub(super) fn deposed(&self, epoch: u64) -> Standing {
        Standing {
            role: Role::Replica,
            epoch,
            leader: None,
            ..self.standing.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(role: Role, epoch: u64) -> Roles {
        let lineage = Lineage::new(HistoryId([1; 16]));
        Roles::in_force(Standing {
            role,
            epoch,
            leader: None,
            data_epoch: epoch,
            lineage,
        })
    }

    fn assign(roles: &Roles, role: Role, epoch: Option<u64>) -> Result<Standing, AssignError> {
        let leader = (role == Role::Replica).then(|| "http://h:1".to_owned());
        roles.assigned(
            &Assignment {
                role,
                epoch,
                leader,
            },
            70,
            HistoryId([2; 16]),
        )
    }

    #[test]
    fn epochs_never_go_down() {
        for role in [Role::Leader, Role::Replica, Role::Unassigned] {
            for wanted in [Role::Leader, Role::Replica] {
                let outdated = Err(AssignError::Outdated { in_force: 5 });
                assert_eq!(assign(&roles(role, 5), wanted, Some(4)), outdated);
                assert_eq!(
                    assign(&roles(role, 5), wanted, Some(6)).map(|standing| standing.epoch),
                    Ok(6)
                );
            }
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
        assert_eq!(
            assign(&roles(Role::Replica, 5), Role::Leader, None).map(|standing| standing.epoch),
            Ok(6)
        );
        assert_eq!(
            assign(&roles(Role::Leader, 5), Role::Leader, None).map(|standing| standing.epoch),
            Ok(5)
        );
        assert_eq!(
            assign(&roles(Role::Leader, 5), Role::Replica, None).map(|standing| standing.epoch),
            Ok(5)
        );
        assert_eq!(
            assign(&roles(Role::Replica, u64::MAX), Role::Leader, None),
            Err(AssignError::Exhausted)
        );
    }

    #[test]
    fn a_promotion_begins_a_history() {
        let promoted = assign(&roles(Role::Replica, 5), Role::Leader, Some(9)).expect("allowed");
        assert_eq!(promoted.lineage.history(), HistoryId([2; 16]));
        assert_eq!(
            promoted.lineage.common_version(HistoryId([1; 16]), 100),
            Some(70)
        );
        assert_eq!(promoted.data_epoch, 9);
        let raised = assign(&roles(Role::Leader, 5), Role::Leader, Some(9)).expect("allowed");
        assert_eq!(raised.lineage, promoted.lineage);
        let again = assign(&roles(Role::Leader, 5), Role::Leader, Some(5)).expect("allowed");
        assert_eq!(
            again.lineage.history(),
            HistoryId([1; 16]),
            "whoever leads goes on"
        );
    }

    #[test]
    fn a_change_counts_when_it_is_on_disk() {
        let mut roles = roles(Role::Replica, 5);
        let first = assign(&roles, Role::Leader, Some(6)).expect("allowed");
        roles.change(first, false);
        assert!(!roles.is_settled());
        assert!(roles.take_unsettled().is_some() && roles.take_unsettled().is_none());
        let second = roles.deposed(7);
        roles.change(second, false);
        roles.note_settled();
        assert!(!roles.is_settled(), "the second is not written yet");
        assert_eq!(
            roles.take_unsettled().map(|standing| standing.epoch),
            Some(7)
        );
        roles.note_settled();
        assert!(roles.is_settled());
        assert_eq!((roles.changed_count(), roles.settled_count()), (2, 2));
    }
}
