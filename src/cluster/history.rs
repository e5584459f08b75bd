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
use super::member::Member;
use super::surroundings::Surroundings;

/// What is known of the past of a configuration.
#[derive(Debug, Default)]
pub(super) struct History {
    /// What was read last is not believed.
    pub(super) went_back: bool,
    /// The epoch of the partition when etcd was asked for the configuration.
    pub(super) epoch_at_range: u64,
    /// The newest epoch that was known when etcd was found to have lost something; 0: it was not.
    pub(super) doubted_epoch: u64,
}

impl History {
    /// Etcd is asked for the configuration now.
    pub(super) fn on_range_begins(&mut self, partition: Option<&Partition>) {
        self.epoch_at_range = partition.map_or(0, |partition| partition.roles().meta().epoch);
    }
}

impl Member {
    /// Whether etcd has lost some of its history: it was emptied, or restored from a backup.
    pub(super) fn went_back(&self) -> bool {
        self.history.went_back
    }

    /// The newest epoch that was known when etcd was found to have lost something; 0: it was not.
    pub(super) fn doubted_epoch(&self) -> u64 {
        self.history.doubted_epoch
    }

    fn doubt(&mut self) {
        if SeededBug::BackupBelieved.is_on() {
            return;
        }
        let known_epoch = self.config().map_or(0, |config| config.epoch);
        let history = &mut self.history;
        let newest = known_epoch.max(history.epoch_at_range);
        history.doubted_epoch = history.doubted_epoch.max(newest);
    }

    /// Etcd was restored, or made anew: what it had before is not known.
    pub(super) fn on_other_etcd(&mut self, config: &PartitionConfig) {
        let known = self.config();
        if known.is_some_and(|known| config.recovered <= known.epoch) {
            self.doubt();
        }
    }

    /// Compares the configuration that was read with what is known, and whether any node doubts it.
    pub(super) fn believes(
        &mut self,
        read: (u64, &PartitionConfig),
        around: &Surroundings<'_>,
        partition: &Partition,
    ) -> bool {
        if self.contradicts(read, around, partition) {
            self.doubt();
        }
        let doubts = around.copies.values().map(|record| record.doubts);
        let doubts = doubts.filter(|_| !SeededBug::DoubtOfOthersIgnored.is_on());
        let doubted_epoch = doubts.fold(self.history.doubted_epoch, u64::max);
        let went_back = doubted_epoch > 0 && read.1.recovered <= doubted_epoch;
        self.note_history(went_back, partition);
        if went_back {
            self.asked.take_if(|asked| !asked.is_sent);
        }
        !went_back
    }

    /// Whether a configuration cannot be one that came after what is known.
    fn contradicts(
        &self,
        (revision, config): (u64, &PartitionConfig),
        around: &Surroundings<'_>,
        partition: &Partition,
    ) -> bool {
        let meta = partition.roles().meta();
        let has_led = meta.role == Role::Leader && meta.epoch > 0;
        let is_other_leader = has_led && meta.epoch == config.epoch && config.leader != around.node;
        if config.epoch < self.history.epoch_at_range || is_other_leader {
            return true;
        }
        let known = self.known.as_ref();
        let Some(known) = known.filter(|known| config.recovered <= known.config.epoch) else {
            return false;
        };
        if revision == known.revision {
            return *config != known.config;
        }
        let is_of_epoch = config.epoch > 0 && config.epoch == known.config.epoch;
        // Only the leader takes copies into the set.
        let has_strangers = || {
            let effective = self.effective();
            self.is_in_office() && config.in_sync.iter().any(|of| !effective.contains(of))
        };
        revision < known.revision
            || config.epoch < known.config.epoch
            || (is_of_epoch && (config.leader != known.config.leader || has_strangers()))
    }

    /// Whether the configuration was read once all nodes that reach etcd had read it; if not, it is
    /// read again when they have.
    pub(super) fn is_settled(&mut self, now_ms: u64, around: &Surroundings<'_>) -> bool {
        self.has_read_since(around.contact.settled_at_ms(), now_ms)
    }

    /// The key is not there.
    pub(super) fn on_config_missing(&mut self, partition: &Partition) {
        let went_back = self.history.epoch_at_range > 0 || partition.lsm().last_version() > 0;
        if went_back {
            self.doubt();
        }
        self.note_history(went_back, partition);
    }

    fn note_history(&mut self, went_back: bool, partition: &Partition) {
        if went_back && !self.history.went_back {
            log::error!(
                "partition {}: etcd went back: it has lost some of its history, as after a \
                 restore from a backup; this copy, of epoch {}, stands no more; docs/cluster.md \
                 says what to do",
                partition.id(),
                self.history.epoch_at_range
            );
        }
        self.history.went_back = went_back;
    }
}
