//! What has to be true of the nodes in every step, at each promotion, and in the end.

use std::collections::BTreeMap;

use db_node::lsm::{ScanState, Value};
use db_node::partition::{DiskLog, Partition};
use db_node::storage::{HistoryId, Lineage, Role, SHARED_PAST_MAX};

use super::{CLOCKS_APART_MS, Content, Kind, Run, SYSTEM_CLOCKS_APART_MS, Stage, Write};

/// What was last seen of a node.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) incarnation: u64,
    pub(super) lineage: Lineage,
    pub(super) version: u64,
    pub(super) data_epoch: u64,
    /// The version that its disk is said to hold, where power cuts are survived.
    pub(super) durable_version: Option<u64>,
}

impl Run {
    /// What replicas had confirmed is on the node that is to lead.
    pub(super) fn check_acked(&mut self, leader: usize) {
        let partition = self.cluster.partition(leader).expect("it is there");
        for acked in self.acked.iter_mut().filter(|acked| !acked.is_lost) {
            if partition.get(&acked.key).is_none() {
                // Where nothing survives a crash, all nodes that had it may have crashed.
                let key = String::from_utf8_lossy(&acked.key);
                assert!(
                    self.kind == Kind::Memory,
                    "{key} was confirmed, and node {leader} leads without it"
                );
                acked.is_lost = true;
            }
        }
    }

    /// What a read of what is acknowledged has shown is not lost: the node that is to lead has that
    /// write, and holds keys that no one deletes.
    pub(super) fn check_shown(&mut self, leader: usize) {
        if self.kind == Kind::Memory {
            // All that had it may have crashed.
            return;
        }
        let partition = self.cluster.partition(leader).expect("it is there");
        for shown in &self.shown {
            let version = shown.version;
            // Of a history that it was not told of it can have any part.
            let common = partition.lineage().common_version(shown.history, version);
            let has_it = common.is_none_or(|common| common == version)
                && partition.lsm().last_version() >= version;
            let is_kept = |key: &&Vec<u8>| key.starts_with(b"confirmed-");
            let lacks = shown.key.as_ref().filter(is_kept);
            let lacks = lacks.filter(|key| partition.get(key).is_none());
            assert!(
                has_it && lacks.is_none(),
                "a read has shown {shown:?}, and node {leader} leads without it"
            );
        }
    }

    pub(super) fn check(&mut self) {
        for host in 0..self.host_count() {
            let incarnation = self.cluster.hosts[host].incarnation;
            let Some(partition) = self.cluster.partition(host) else {
                continue;
            };
            let meta = partition.roles().meta();
            let (lineage, data_epoch, epoch) = (meta.lineage.clone(), meta.data_epoch, meta.epoch);
            // A node that takes over takes what it lacks from any other.
            let leader_epoch = partition
                .leader_stats(0)
                .filter(|_| !partition.roles().is_taking_over())
                .and_then(|stats| stats.leader_epoch);
            assert!(
                leader_epoch.is_none_or(|leader_epoch| leader_epoch >= epoch),
                "node {host} of epoch {epoch} follows a leader of epoch {leader_epoch:?}"
            );
            let durable_version = partition.disk().map(DiskLog::synced_version);
            let durable_version = durable_version
                .filter(|_| self.kind == Kind::Synced && partition.roles().is_settled());
            let now = Seen {
                incarnation,
                lineage,
                version: partition.lsm().last_version(),
                data_epoch,
                durable_version,
            };
            if let Some(seen) = self.seen.get(&host) {
                check_kept(host, seen, &now);
            }
            self.seen.insert(host, now);
        }
        if self.kind == Kind::Synced {
            self.check_sent();
        }
    }

    /// No node has what the disk of the node that leads its history could still lose.
    pub(super) fn check_sent(&mut self) {
        for leader in 0..self.host_count() {
            let Some(partition_of_leader) = self.cluster.partition(leader) else {
                continue;
            };
            let roles = partition_of_leader.roles();
            if roles.role() != Role::Leader || !roles.is_settled() {
                continue;
            }
            let history = partition_of_leader.history();
            let held = partition_of_leader.disk().map(DiskLog::synced_version);
            for host in 0..self.host_count() {
                let Some(partition) = self.cluster.partition(host) else {
                    continue;
                };
                let version = partition.lsm().last_version();
                assert!(
                    host == leader || partition.history() != history || held >= Some(version),
                    "node {host} has version {version}, of which the disk of its leader holds \
                     {held:?}"
                );
            }
        }
    }

    pub(super) fn is_agreed(&mut self) -> bool {
        if matches!(self.stage, Stage::Fencing) {
            return false;
        }
        self.cluster.is_agreed(self.leader, Some(self.epoch))
    }

    pub(super) fn picture(&mut self) -> String {
        let mut lines = Vec::new();
        for host in 0..self.host_count() {
            let line = self.cluster.partition(host).map(|partition| {
                let meta = partition.roles().meta();
                format!(
                    "{host}: version {}, {meta:?}, {:?}",
                    partition.lsm().last_version(),
                    partition.leader_stats(0)
                )
            });
            lines.push(line.unwrap_or_else(|| format!("{host}: down")));
        }
        lines.join("\n")
    }

    /// What the history of the leader was told, is what every node holds.
    pub(super) fn check_content(&mut self) {
        let partition_of_leader = self.cluster.partition(self.leader).expect("it leads");
        let (lineage, version) = (
            partition_of_leader.roles().meta().lineage.clone(),
            partition_of_leader.lsm().last_version(),
        );
        let leader_time_ms = partition_of_leader.lsm().time_ms();
        let mut written: BTreeMap<&Vec<u8>, (u64, &Write)> = BTreeMap::new();
        let mut histories: Vec<(HistoryId, u64)> = vec![(lineage.history(), version)];
        histories.extend(lineage.past().map(|past| (past.history, past.end_version)));
        let mut from = 0;
        let mut count = 0;
        let mut is_within_batch = false;
        for (history, end_version) in histories.into_iter().rev() {
            for (version, write) in self
                .told
                .get(&history.0)
                .into_iter()
                .flat_map(|writes| writes.range(from + 1..))
                .take_while(|(version, _)| **version <= end_version)
            {
                count += 1;
                written.insert(&write.key, (*version, write));
                is_within_batch = write.goes_on;
            }
            assert!(!is_within_batch, "a batch was cut at version {end_version}");
            from = from.max(end_version);
        }
        // A node that joined was told of only so many histories.
        let is_all = lineage.past().len() < SHARED_PAST_MAX;
        assert!(
            !is_all || count == version,
            "{count} writes made version {version}"
        );
        for host in 0..self.host_count() {
            let partition = self.cluster.partition(host).expect("all are up");
            let time_ms = partition.lsm().time_ms();
            // A node with its time ahead does not go back to that of a leader that came later.
            let behind_ms = leader_time_ms.saturating_sub(time_ms);
            let ahead_ms = time_ms.saturating_sub(leader_time_ms);
            assert!(
                behind_ms <= CLOCKS_APART_MS && ahead_ms <= SYSTEM_CLOCKS_APART_MS,
                "{time_ms} on {host}, {leader_time_ms} leads"
            );
            let content = content_of(partition);
            let is_live = |write: &Write| write.value.is_some() && write.expires_at_ms > time_ms;
            let live = written.iter().filter(|(_, (_, write))| is_live(write));
            let expected: Content = live
                .map(|(key, (version, write))| {
                    (
                        (*key).clone(),
                        (*version, write.value.clone().unwrap_or_default()),
                    )
                })
                .collect();
            if is_all && content != expected {
                let differs = |key: &&Vec<u8>| content.get(*key) != expected.get(*key);
                let keys: std::collections::BTreeSet<&Vec<u8>> = content
                    .keys()
                    .chain(expected.keys())
                    .filter(differs)
                    .collect();
                let versions = |key: &Vec<u8>| {
                    (
                        content.get(key).map(|at| at.0),
                        expected.get(key).map(|at| at.0),
                    )
                };
                let shown: Vec<_> = keys
                    .into_iter()
                    .map(|key| (String::from_utf8_lossy(key), versions(key)))
                    .collect();
                panic!("node {host} holds something else than its history: {shown:?}");
            }
            for acked in self.acked.iter().filter(|acked| !acked.is_lost) {
                let key = String::from_utf8_lossy(&acked.key);
                assert!(
                    content.contains_key(&acked.key),
                    "{key} was confirmed and is not on node {host}"
                );
            }
        }
    }
}

/// A node gives up data only for a higher epoch, and never for an empty leader; after a crash it
/// has what was said to be on its disk.
fn check_kept(host: usize, seen: &Seen, now: &Seen) {
    let common = |version| {
        now.lineage
            .common_version_with(&seen.lineage, version)
            .unwrap_or(0)
            .min(now.version)
    };
    if now.incarnation == seen.incarnation {
        assert!(
            now.version > 0 || seen.version == 0,
            "node {host} was emptied"
        );
        let kept = common(seen.version);
        assert!(
            kept >= seen.version || now.data_epoch > seen.data_epoch,
            "node {host} gave up versions {kept} to {} in epoch {}",
            seen.version,
            now.data_epoch
        );
    } else if let Some(durable_version) = seen.durable_version {
        let kept = common(durable_version);
        assert!(
            kept >= durable_version || now.data_epoch > seen.data_epoch,
            "node {host} came back with version {kept}, and {durable_version} was on its disk"
        );
    }
}

fn content_of(partition: &mut Partition) -> Content {
    let mut scan = partition.lsm_mut().snapshot().into_scan(&[]);
    let mut content = Content::new();
    loop {
        match scan.step(1 << 30).0 {
            ScanState::Searching => {}
            ScanState::End => return content,
            ScanState::Found => {
                let entry = scan.entry().expect("found");
                let Value::Inline(value) = entry.value else {
                    panic!("no such value was written")
                };
                content.insert(entry.key.to_vec(), (entry.version, value.to_vec()));
            }
        }
    }
}
