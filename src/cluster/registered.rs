//! What a node has read from etcd: all keys of its cluster, as of one revision.
//!
//! Not here: what becomes of it (`state.rs`, `member.rs`).

use std::collections::BTreeMap;

use crate::partition::EPOCH_LEAP_MAX;

use super::config::{ClusterValue, CopyRecord, Key, NodeValue, PartitionConfig, ValueError};
use super::etcd::KeyValue;

/// What was read from etcd.
#[derive(Debug, Default)]
pub(super) struct Registered {
    /// The id of etcd, which is another one where it was made anew, and that of the cluster there,
    /// as they were read last.
    etcd_id: u64,
    common_id: String,
    /// The revision of etcd.
    pub(super) revision: u64,
    /// A revision of etcd since which leaders, copies and nodes are as they are now.
    pub(super) map_revision: u64,
    pub(super) common: Option<ClusterValue>,
    /// As it was read last, also where etcd has it no more: the data is spread so still.
    pub(super) last_common: Option<ClusterValue>,
    pub(super) nodes: BTreeMap<String, NodeValue>,
    /// The revisions of nodes that cannot be read.
    odd_nodes: BTreeMap<String, u64>,
    /// The copies of each partition, by the names of their nodes.
    pub(super) copies: BTreeMap<u32, BTreeMap<String, CopyRecord>>,
    /// The configurations as they were read together with the rest, with their revisions.
    pub(super) configs: BTreeMap<u32, (u64, PartitionConfig)>,
    /// Checksums of the configurations as they were read.
    checksums: BTreeMap<u32, u32>,
    /// The revisions of configurations that cannot be read.
    pub(super) unreadable: BTreeMap<u32, u64>,
    /// Whether anything was read.
    pub(super) is_read: bool,
}

impl Registered {
    /// What all keys with this prefix say, at a revision of etcd. `before`: what was read last; a
    /// configuration that has the same revision and value is not decoded again. `own_epoch`: of the
    /// copy of a partition on this node.
    pub(super) fn read(
        before: &mut Self,
        prefix: &str,
        (values, etcd_id, revision): (Vec<KeyValue>, u64, u64),
        own_epoch: impl Fn(u32) -> u64,
    ) -> Self {
        let mut read = Self {
            is_read: true,
            etcd_id: if etcd_id > 0 { etcd_id } else { before.etcd_id },
            revision,
            ..Self::default()
        };
        for pair in values {
            let Some(key) = pair.key.strip_prefix(prefix).and_then(Key::parse) else {
                continue;
            };
            if !matches!(key, Key::Copy(..)) {
                read.map_revision = read.map_revision.max(pair.mod_revision);
            }
            match key {
                Key::Cluster => read.common = ClusterValue::decode(&pair.value),
                Key::Node(name) => match NodeValue::decode(&pair.value, pair.mod_revision) {
                    Some(node) => drop(read.nodes.insert(name.to_owned(), node)),
                    None => drop(read.odd_nodes.insert(name.to_owned(), pair.mod_revision)),
                },
                Key::Copy(id, name) => {
                    let of = read.copies.entry(id).or_default();
                    let record = CopyRecord::decode(&pair.value, pair.mod_revision);
                    let record = record.unwrap_or(CopyRecord::unreadable(pair.mod_revision));
                    of.insert(name.to_owned(), record);
                }
                Key::Config(id) => read.add_config(id, &pair, before, own_epoch(id)),
            }
        }
        read.follow_map(before);
        let last = before.last_common.take();
        read.last_common = read.common.clone().or(last);
        let common_id = read.common.as_ref().map(|common| common.id.clone());
        read.common_id = common_id.unwrap_or_else(|| before.common_id.clone());
        read
    }

    /// Why this cannot be what came after what was read before: etcd was made anew, or restored
    /// from a backup.
    pub(super) fn loss(&self, before: &Self) -> Option<&'static str> {
        if !before.is_read {
            None
        } else if self.revision < before.revision {
            Some("its revision is lower than before")
        } else if before.etcd_id > 0 && self.etcd_id != before.etcd_id {
            Some("it has another id than before")
        } else if !before.common_id.is_empty() && self.common_id != before.common_id {
            Some("the cluster in it has another id than before")
        } else {
            None
        }
    }

    /// One that cannot be read is logged once.
    fn add_config(&mut self, id: u32, pair: &KeyValue, before: &Self, own_epoch: u64) {
        let revision = pair.mod_revision;
        let is_same = self.revision >= before.revision && self.etcd_id == before.etcd_id;
        let known = before.configs.get(&id);
        // After a restore etcd can give the same revision to another value.
        let checksum = crc32c::crc32c(&pair.value);
        let is_same = is_same && before.checksums.get(&id) == Some(&checksum);
        self.checksums.insert(id, checksum);
        let known = known.filter(|(known, _)| is_same && *known == revision);
        let config = match known {
            Some((_, config)) => Ok(config.clone()),
            None => decode(&pair.value, own_epoch),
        };
        match config {
            Ok(config) => drop(self.configs.insert(id, (revision, config))),
            Err(error) => {
                if before.unreadable.get(&id) != Some(&revision) {
                    log::error!("partition {id}: its configuration: {error}");
                }
                self.unreadable.insert(id, revision);
            }
        }
    }

    /// The revision of a node, be it readable or not; 0: there is none.
    pub(super) fn node_revision(&self, name: &str) -> u64 {
        let node = self.nodes.get(name).map(|node| node.revision);
        let revision = node.or_else(|| self.odd_nodes.get(name).copied());
        revision.unwrap_or(0)
    }

    /// The revision of a configuration, be it readable or not; 0: there is none.
    pub(super) fn config_revision(&self, id: u32) -> u64 {
        let config = self.configs.get(&id).map(|(revision, _)| *revision);
        let revision = config.or_else(|| self.unreadable.get(&id).copied());
        revision.unwrap_or(0)
    }

    /// Goes on counting revisions of the map. What was deleted has no revision: that of the read
    /// stands for it.
    fn follow_map(&mut self, before: &Self) {
        let is_gone = |name: &String| !self.nodes.contains_key(name);
        let is_shorter = before.nodes.keys().any(is_gone)
            || before
                .configs
                .keys()
                .any(|id| !self.configs.contains_key(id));
        if is_shorter {
            self.map_revision = self.revision;
        } else if before.map_revision <= self.revision {
            // Else etcd was emptied, or restored from a backup.
            self.map_revision = self.map_revision.max(before.map_revision);
        }
    }
}

/// A configuration that this node can take a role by.
fn decode(value: &[u8], own_epoch: u64) -> Result<PartitionConfig, ValueError> {
    let config = PartitionConfig::decode(value)?;
    if config.epoch > own_epoch.saturating_add(EPOCH_LEAP_MAX) {
        return Err(ValueError::TOO_FAR);
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use crate::config::WhenAllLost;

    use super::*;

    fn pair(value: &[u8], mod_revision: u64) -> KeyValue {
        KeyValue {
            key: Key::Config(3).in_cluster("/x/"),
            mod_revision,
            value: value.to_vec(),
        }
    }

    fn config(epoch: u64) -> PartitionConfig {
        PartitionConfig {
            epoch,
            ..PartitionConfig::first("n1".to_owned(), vec!["n1".to_owned()], 2_000)
        }
    }

    #[test]
    fn a_configuration_is_known_by_its_revision_and_value() {
        let mut before = Registered::default();
        let mut read = |value: &[u8], mod_revision, revision| {
            let values = vec![pair(value, mod_revision)];
            let read = Registered::read(&mut before, "/x/", (values, 1, revision), |_| 0);
            before = read;
            (before.configs.get(&3).cloned(), before.config_revision(3))
        };
        let known = Some((7, config(5)));
        assert_eq!(read(&config(5).encode(), 7, 9), (known.clone(), 7));
        assert_eq!(read(&config(5).encode(), 7, 10), (known, 7));
        let restored = Some((7, config(6)));
        assert_eq!(read(&config(6).encode(), 7, 10), (restored, 7));
        assert_eq!(read(b"no JSON", 8, 11), (None, 8));
        assert_eq!(read(&config(5).encode(), 8, 12).0, Some((8, config(5))));
        // Of an etcd that went back.
        let other = Some((8, config(4)));
        assert_eq!(read(&config(4).encode(), 8, 11), (other, 8));
    }

    #[test]
    fn an_epoch_that_no_copy_here_can_take_is_not_read() {
        for (epoch, own_epoch, is_read) in [
            (EPOCH_LEAP_MAX, 0, true),
            (EPOCH_LEAP_MAX + 1, 0, false),
            (EPOCH_LEAP_MAX + 1, 1, true),
        ] {
            let read = decode(&config(epoch).encode(), own_epoch);
            assert_eq!(read.is_ok(), is_read, "{epoch} above {own_epoch}");
        }
    }

    #[test]
    fn an_etcd_that_is_another_one_is_known() {
        let read = |before: &mut Registered, cluster: [u8; 16], etcd_id, revision| {
            let pair = KeyValue {
                key: "/x/cluster".to_owned(),
                mod_revision: 3,
                value: ClusterValue::new(cluster, 1, WhenAllLost::Wait).encode(),
            };
            Registered::read(before, "/x/", (vec![pair], etcd_id, revision), |_| 0)
        };
        let mut unread = Registered::default();
        let mut before = read(&mut unread, [1; 16], 5, 9);
        assert_eq!(before.loss(&unread), None);
        for (cluster, etcd_id, revision, is_lost) in [
            ([1; 16], 5, 9, false),
            ([1; 16], 5, 10, false),
            // Of a release that does not say.
            ([1; 16], 0, 9, false),
            ([1; 16], 5, 8, true),
            ([1; 16], 6, 9, true),
            ([2; 16], 5, 9, true),
        ] {
            let read = read(&mut before, cluster, etcd_id, revision);
            assert_eq!(read.loss(&before).is_some(), is_lost, "{read:?}");
        }
        // What was emptied is found to be another one once a cluster is made in it.
        let mut emptied = Registered::read(&mut before, "/x/", (Vec::new(), 5, 9), |_| 0);
        let made = read(&mut emptied, [2; 16], 5, 10);
        assert!(made.loss(&emptied).is_some());
    }
}
