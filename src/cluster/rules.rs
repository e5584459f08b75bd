//! What a configuration lets a copy do, and what it makes a replica follow.
//!
//! Not here: when (`standing.rs`).

use std::collections::BTreeMap;

use crate::partition::Partition;
use crate::seeded_bugs::SeededBug;
use crate::storage::{CopyId, Role};

use super::config::{CopyOfNode, CopyRecord, PartitionConfig};
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

/// Another node than this one that has registered the copy.
pub(super) fn other_with<'a>(
    copies: &'a BTreeMap<String, CopyRecord>,
    node: &str,
    copy: CopyId,
) -> Option<&'a str> {
    let mut others = copies.iter().filter(|(name, _)| *name != node);
    let found = others.find(|(_, record)| record.copy == copy);
    found.map(|(name, _)| &name[..])
}

/// What a copy holds: the epoch of its data, and its last version. Of two copies the one with more
/// is the later one.
pub(super) fn held_by(partition: &Partition) -> (u64, u64) {
    let data_epoch = partition.roles().meta().data_epoch;
    (data_epoch, partition.lsm().last_version())
}

/// Whether a copy may ask to be named.
pub(super) fn may_stand(config: &PartitionConfig, copy: CopyId) -> bool {
    config.is_in_sync(copy) || (SeededBug::StandsOutsideSet.is_on() && config.epoch > 0)
}

/// Whether all copies in sync are gone for good: each of their nodes has registered another copy
/// since. A copy is in the set only after it was registered, and a registration is replaced only
/// by a process that has read it. `copies` are of the same answer of etcd as the configuration.
pub(super) fn is_lost(config: &PartitionConfig, copies: &BTreeMap<String, CopyRecord>) -> bool {
    let mut in_sync = config.in_sync.iter();
    let is_gone = |of: &CopyOfNode| {
        let record = copies.get(&of.node);
        record.is_some_and(|record| ![of.copy, CopyId::NONE].contains(&record.copy))
    };
    !config.in_sync.is_empty() && in_sync.all(is_gone)
}

/// How many of the registered copies come before that of `node` where none is in sync: those of a
/// later epoch, then those with a higher version, then those named earlier. None: it has no place.
pub(super) fn place_when_lost(
    config: &PartitionConfig,
    copies: &BTreeMap<String, CopyRecord>,
    node: &str,
) -> Option<u64> {
    let record_of = |name: &String| copies.get(name).map(|own| (own.epoch, own.version));
    let own_at = config.replicas.iter().position(|name| name == node)?;
    let own = record_of(&config.replicas[own_at])?;
    let others = config.replicas.iter().enumerate();
    let is_before = |(at, name): &(usize, &String)| {
        let is_better = |other| other > own || (other == own && *at < own_at);
        record_of(name).is_some_and(is_better)
    };
    Some(others.filter(is_before).count() as u64)
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
