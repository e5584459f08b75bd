//! What a configuration lets a copy do, and what it makes a replica follow.
//!
//! Not here: when (`member.rs`).

use crate::partition::Partition;
use crate::seeded_bugs::SeededBug;
use crate::storage::{CopyId, Role};

use super::config::{CopyOfNode, PartitionConfig};
use super::surroundings::Surroundings;

/// Whether the configuration names this copy as the leader of an office that it was never in.
pub(super) fn is_named(config: &PartitionConfig, node: &str, partition: &Partition) -> bool {
    let meta = partition.roles().meta();
    let is_new = match meta.role {
        Role::Leader => config.epoch > meta.epoch,
        Role::Replica | Role::Unassigned => config.epoch >= meta.epoch,
    };
    config.leader == node && config.epoch > 0 && is_new && config.is_in_sync(partition.copy())
}

/// Whether a copy may ask to be named.
pub(super) fn may_stand(config: &PartitionConfig, copy: CopyId) -> bool {
    config.is_in_sync(copy) || (SeededBug::StandsOutsideSet.is_on() && config.epoch > 0)
}

/// Follows no leader any more.
pub(super) fn leave_leader(config: &PartitionConfig, partition: &mut Partition) {
    let meta = partition.roles().meta();
    let is_done = meta.leader.is_none() && partition.roles().role() != Role::Leader;
    if !is_done && config.epoch >= meta.epoch {
        // Refused only where it is of a later epoch: then another configuration is read soon.
        let _ = partition.follow_in(config.epoch, None);
    }
}

/// Follows the leader that the configuration names.
pub(super) fn follow(
    config: &PartitionConfig,
    around: &Surroundings<'_>,
    partition: &mut Partition,
) {
    let url = around.url_of(&config.leader);
    let roles = partition.roles();
    let meta = roles.meta();
    let is_followed = roles.role() == Role::Replica
        && meta.epoch == config.epoch
        && meta.leader.as_deref() == url;
    if is_followed || config.epoch < meta.epoch {
        return;
    }
    if let Err(error) = partition.follow_in(config.epoch, url) {
        log::error!(
            "partition {}: cannot follow {} in epoch {}: {error:?}",
            partition.id(),
            config.leader,
            config.epoch
        );
    }
}

pub(super) fn others(copies: &[CopyOfNode], own: CopyId) -> Vec<CopyId> {
    let copies = copies.iter().map(|of| of.copy);
    copies.filter(|copy| *copy != own).collect()
}
