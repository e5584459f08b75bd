//! What has to be true of the nodes in every step, and of a node that begins to lead.

use db_node::replication::{Relation, relation};
use db_node::storage::{Lineage, Role};

use super::{OVERTAKEN_MS, Run};

/// What was last seen of a node.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) incarnation: u64,
    pub(super) lineage: Lineage,
    pub(super) version: u64,
    /// Since when it is taking over.
    pub(super) taking_over_since_ms: Option<u64>,
    pub(super) is_leading: bool,
    pub(super) epoch: u64,
    /// Since when it knows of it.
    pub(super) epoch_since_ms: u64,
    pub(super) data_epoch: u64,
}

impl Run {
    /// No node drops anything, and a node that begins to lead has what it could reach.
    pub(super) fn check(&mut self) {
        let now_ms = self.cluster.now_ms;
        let mut offices = Vec::new();
        for host in 0..self.host_count() {
            let incarnation = self.cluster.hosts[host].incarnation;
            let Some(partition) = self.cluster.partition(host) else {
                continue;
            };
            let roles = partition.roles();
            let before = self
                .seen
                .get(&host)
                .filter(|seen| seen.incarnation == incarnation);
            let taking_over_since_ms = roles.is_taking_over().then(|| {
                before
                    .and_then(|seen| seen.taking_over_since_ms)
                    .unwrap_or(now_ms)
            });
            let epoch = roles.meta().epoch;
            let epoch_since_ms = before
                .filter(|seen| seen.epoch == epoch)
                .map_or(now_ms, |seen| seen.epoch_since_ms);
            let now = Seen {
                incarnation,
                lineage: roles.meta().lineage.clone(),
                version: partition.lsm().last_version(),
                taking_over_since_ms,
                is_leading: roles.role() == Role::Leader,
                epoch,
                epoch_since_ms,
                data_epoch: roles.meta().data_epoch,
            };
            // That of its data before it leads, also from before a restart that kept the data.
            let data_epoch = self
                .seen
                .get(&host)
                .filter(|seen| seen.incarnation == incarnation || self.keeps_data)
                .map_or(0, |seen| seen.data_epoch);
            let mut office = None;
            if let Some(seen) = before {
                let own = (&now.lineage, now.version);
                assert!(
                    relation(own, (&seen.lineage, seen.version)) == Relation::Covered,
                    "node {host} dropped writes up to version {}, and no controller named an epoch",
                    seen.version
                );
                if now.is_leading && (!seen.is_leading || seen.epoch != now.epoch) {
                    // What was reached since before it began to ask, and until now.
                    office = Some(seen.taking_over_since_ms.unwrap_or(now_ms));
                }
            } else if now.is_leading {
                office = Some(now_ms);
            }
            self.seen.insert(host, now);
            offices.extend(office.map(|since_ms| (host, since_ms, data_epoch)));
        }
        for (host, since_ms, data_epoch) in offices {
            self.check_office(host, since_ms, data_epoch);
        }
    }

    pub(super) fn check_office(&mut self, leader: usize, since_ms: u64, data_epoch: u64) {
        self.takeover_count += 1;
        let confirmed = std::mem::take(&mut self.confirmed);
        for key in confirmed {
            if self.holds(leader, &key) {
                self.confirmed.push(key);
                continue;
            }
            for other in 0..self.host_count() {
                let is_reached = self.is_reached(leader, other, since_ms)
                    && self.holds(other, &key)
                    && !self.is_overtaken(leader, other);
                assert!(
                    !is_reached || self.data_of(other).is_none_or(|data| data_epoch > data.2),
                    "node {leader} leads without {}, which node {other} holds: {}",
                    String::from_utf8_lossy(&key),
                    self.picture()
                );
            }
            self.lost_count += 1;
        }
        let (own_lineage, own_version, _) = self.data_of(leader).expect("it leads");
        for other in 0..self.host_count() {
            let Some((lineage, version, epoch)) = self.data_of(other) else {
                continue;
            };
            let related = relation((&own_lineage, own_version), (&lineage, version));
            assert!(
                related != Relation::Newer
                    || data_epoch > epoch
                    || !self.is_reached(leader, other, since_ms)
                    || self.is_overtaken(leader, other),
                "node {leader} leads without writes that node {other} holds: {}",
                self.picture()
            );
        }
    }

    /// Whether another node has just made way to a leader of a higher epoch than this leader's,
    /// which is about to hear of it.
    pub(super) fn is_overtaken(&self, leader: usize, other: usize) -> bool {
        let [seen, by] = [leader, other].map(|host| self.seen.get(&host));
        seen.zip(by).is_some_and(|(seen, by)| {
            by.epoch > seen.epoch && self.cluster.now_ms - by.epoch_since_ms <= OVERTAKEN_MS
        })
    }

    /// What a node holds: a lineage, its newest version, its epoch.
    pub(super) fn data_of(&mut self, host: usize) -> Option<(Lineage, u64, u64)> {
        let partition = self.cluster.partition(host)?;
        let meta = partition.roles().meta();
        let version = partition.lsm().last_version();
        Some((meta.lineage.clone(), version, meta.data_epoch))
    }

    pub(super) fn picture(&mut self) -> String {
        let mut lines = Vec::new();
        for host in 0..self.host_count() {
            let line = self.cluster.partition(host).map(|partition| {
                let version = partition.lsm().last_version();
                let (roles, stats) = (partition.roles(), partition.leader_stats(0));
                format!(
                    "{host}: {}, version {version}, {:?}, {stats:?}",
                    partition.state_name(),
                    roles.meta()
                )
            });
            lines.push(line.unwrap_or_else(|| format!("{host}: down")));
        }
        lines.join("\n")
    }
}
