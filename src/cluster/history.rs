//! What a member knows of the past of its configuration, and whether etcd still does. An etcd that
//! was restored from a backup may name copies in sync that have left the set since.
//!
//! A node that finds so *doubts* etcd: it neither stands nor changes the configuration, and
//! registers its doubt beside its copy (`copies/<name>`). All nodes read that together with the
//! configuration, and doubt etcd, too. A doubt ends with what an operator decides in a later epoch
//! than all that were known.
//!
//! A node that has just come to etcd may be the first that reads a backup. So it waits until all
//! nodes that reach etcd have read it (`contact.rs`), and reads it again: until then it neither
//! stands without copies that it leaves out, nor takes any out of the set, nor as a copy in sync
//! grants the beats of an epoch that is new to it. A leader that was heard meanwhile is proof
//! enough.
//!
//! Not here: what a member does otherwise about what it reads (`member.rs`).

use crate::partition::Partition;
use crate::seeded_bugs::SeededBug;
use crate::storage::Role;

use super::config::PartitionConfig;
use super::surroundings::Surroundings;

/// A configuration with the revision that it has in etcd.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) revision: u64,
    pub(super) config: PartitionConfig,
    /// When etcd was asked for it.
    pub(super) asked_at_ms: u64,
}

/// What is known of the past of a configuration.
#[derive(Debug, Default)]
pub(super) struct History {
    /// What was read last is not believed.
    went_back: bool,
    /// The epoch of the partition when etcd was asked for the configuration.
    epoch_at_range: u64,
    /// The newest epoch that was known when etcd was found to have lost something; 0: it was not.
    doubted_epoch: u64,
}

impl History {
    /// Whether etcd has lost some of its history: it was emptied, or restored from a backup.
    pub(super) fn went_back(&self) -> bool {
        self.went_back
    }

    /// The newest epoch that was known when etcd was found to have lost something; 0: it was not.
    pub(super) fn doubted_epoch(&self) -> u64 {
        self.doubted_epoch
    }

    /// Etcd is asked for the configuration now.
    pub(super) fn on_range_begins(&mut self, partition: Option<&Partition>) {
        self.epoch_at_range = partition.map_or(0, |partition| partition.roles().meta().epoch);
    }

    fn doubt(&mut self, known: Option<&Known>) {
        if SeededBug::BackupBelieved.is_on() {
            return;
        }
        let known_epoch = known.map_or(0, |known| known.config.epoch);
        let newest = known_epoch.max(self.epoch_at_range);
        self.doubted_epoch = self.doubted_epoch.max(newest);
    }

    /// Etcd was restored, or made anew, and has this configuration: what it had before is not
    /// known.
    pub(super) fn on_other_etcd(&mut self, known: Option<&Known>, config: &PartitionConfig) {
        if known.is_some_and(|known| config.recovered <= known.config.epoch) {
            self.doubt(known);
        }
    }

    /// Compares the configuration that was read with what is known, and whether any node doubts it.
    /// `has_strangers`: this node leads, and copies are in the set that it has not asked for.
    pub(super) fn believes(
        &mut self,
        read: &Known,
        known: Option<&Known>,
        has_strangers: bool,
        around: &Surroundings<'_>,
        partition: &Partition,
    ) -> bool {
        let contradicts = self.contradicts_copy(&read.config, around.node, partition)
            || known.is_some_and(|known| contradicts_known(read, known, has_strangers));
        if contradicts {
            self.doubt(known);
        }
        let doubts = around.copies.values().map(|record| record.doubts);
        let doubts = doubts.filter(|_| !SeededBug::DoubtOfOthersIgnored.is_on());
        let doubted_epoch = doubts.fold(self.doubted_epoch, u64::max);
        let went_back = doubted_epoch > 0 && read.config.recovered <= doubted_epoch;
        self.note(went_back, partition);
        !went_back
    }

    /// Whether a configuration is older than what the copy of this node knows.
    fn contradicts_copy(
        &self,
        config: &PartitionConfig,
        node: &str,
        partition: &Partition,
    ) -> bool {
        let meta = partition.roles().meta();
        let has_led = meta.role == Role::Leader && meta.epoch > 0;
        let is_other_leader = has_led && meta.epoch == config.epoch && config.leader != node;
        config.epoch < self.epoch_at_range || is_other_leader
    }

    /// The key is not there.
    pub(super) fn on_config_missing(&mut self, known: Option<&Known>, partition: &Partition) {
        let went_back = self.epoch_at_range > 0 || partition.lsm().last_version() > 0;
        if went_back {
            self.doubt(known);
        }
        self.note(went_back, partition);
    }

    fn note(&mut self, went_back: bool, partition: &Partition) {
        if went_back && !self.went_back {
            log::error!(
                "partition {}: etcd went back: it has lost some of its history, as after a \
                 restore from a backup; this copy, of epoch {}, stands no more; docs/cluster.md \
                 says what to do",
                partition.id(),
                self.epoch_at_range
            );
        }
        self.went_back = went_back;
    }
}

/// Whether a configuration cannot be one that came after the known one.
fn contradicts_known(read: &Known, known: &Known, has_strangers: bool) -> bool {
    let (config, before) = (&read.config, &known.config);
    if config.recovered > before.epoch {
        return false;
    }
    if read.revision == known.revision {
        return config != before;
    }
    let is_of_epoch = config.epoch > 0 && config.epoch == before.epoch;
    read.revision < known.revision
        || config.epoch < before.epoch
        // Only the leader takes copies into the set.
        || (is_of_epoch && (config.leader != before.leader || has_strangers))
        // It changes with the epoch only: a leader counts on the one that it began with.
        || (is_of_epoch && config.lease_ms != before.lease_ms)
}
