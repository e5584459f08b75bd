//! Removing a partition: whether an order may do so, and what is left to be freed.
//!
//! Invariants:
//! 1. An order of a lower epoch than the one in force changes nothing, and where a controller has
//!    named epochs, neither does one without.
//! 2. Writes that no other node is known to hold are dropped only by an order that says so.
//!
//! Not here: requests, connections and files (`node/removals.rs`).

use crate::storage::Role;

use super::retired::RetiredEngines;
use super::roles::{AssignError, EPOCH_LEAP_MAX};
use super::state::Partition;

/// An order to give a partition up is refused: answer 409.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalError {
    /// Its epoch is too low, or leaps.
    Epoch(AssignError),
    /// It names no epoch, and controllers of this partition do.
    EpochMissing {
        /// The one in force.
        in_force: u64,
    },
    /// It names no epoch, and this node leads nodes that follow it.
    Leads,
    /// Writes would be lost.
    OnlyCopy {
        /// The newest version here.
        version: u64,
        /// Another node holds versions up to this one, as far as this node knows.
        held_version: u64,
    },
}

impl Partition {
    /// Whether the partition may be given up; the epoch that is in force then.
    pub fn check_give_up(
        &self,
        epoch: Option<u64>,
        discards: bool,
        now_ms: u64,
    ) -> Result<u64, RemovalError> {
        let meta = self.roles.meta();
        let in_force = meta.epoch;
        match epoch {
            Some(epoch) if epoch < in_force => {
                return Err(RemovalError::Epoch(AssignError::Outdated { in_force }));
            }
            Some(epoch) if epoch - in_force > EPOCH_LEAP_MAX => {
                let max = in_force.saturating_add(EPOCH_LEAP_MAX);
                return Err(RemovalError::Epoch(AssignError::Leap { max }));
            }
            None if meta.ordered_epoch > 0 => {
                return Err(RemovalError::EpochMissing { in_force });
            }
            None if self.roles.role() == Role::Leader && self.replicas.is_followed() => {
                return Err(RemovalError::Leads);
            }
            Some(_) | None => {}
        }
        let version = self.lsm.last_version();
        let held_version = self.held_elsewhere(now_ms).min(version);
        if held_version < version && !discards {
            return Err(RemovalError::OnlyCopy {
                version,
                held_version,
            });
        }
        Ok(epoch.unwrap_or(in_force))
    }

    /// Another node holds the versions up to this one, as far as is known.
    fn held_elsewhere(&self, now_ms: u64) -> u64 {
        if self.roles.is_taking_over() {
            return 0;
        }
        match (self.roles.role(), self.leader_link.facts()) {
            (Role::Leader, _) => self.replicas.acked_version(1),
            // What is here came from the leader, and that is heard.
            (Role::Replica, Some(facts)) if facts.has_all => {
                let stats = self.leader_stats(now_ms);
                let is_heard = stats.is_some_and(|stats| stats.leader_version.is_some());
                if is_heard { u64::MAX } else { 0 }
            }
            (Role::Replica | Role::Unassigned, _) => 0,
        }
    }

    /// The partition is given up: the engines to be freed. Its connections find
    /// that it is gone.
    pub fn into_engines(mut self) -> RetiredEngines {
        // A replacement that was not handed over lets its snapshot go.
        self.disk = None;
        let mut engines = std::mem::take(&mut self.retired);
        engines.add(self.lsm);
        engines
    }
}
