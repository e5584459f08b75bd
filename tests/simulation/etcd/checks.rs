//! What has to be true in every step, and a picture of the nodes for when it is not.

use std::rc::Rc;

use db_node::cluster::config::PartitionConfig;
use db_node::storage::HistoryId;

use super::Run;

impl Run {
    /// At most one node answers reads as the leader. Every acknowledged write is on every copy that
    /// etcd says is in sync, and that is there.
    pub(super) fn check(&mut self) {
        let hosts = 0..self.host_count();
        let open: Vec<usize> = hosts.filter(|host| self.is_open_for_reads(*host)).collect();
        assert!(
            open.len() <= 1,
            "nodes {open:?} lead at a time: {}",
            self.picture()
        );
        let config = self.config();
        let seen = self.seen.replace(Rc::clone(&config));
        // A copy that has not joined may go at once, when its move is cancelled.
        let is_gone = |name: &String| !config.has_replica(name);
        let is_given_up = |seen: &PartitionConfig| seen.leaving.iter().any(is_gone);
        if seen.as_deref().is_some_and(is_given_up) {
            let is_in_sync = |name: &String| config.in_sync.iter().any(|of| of.node == *name);
            assert!(
                config.replicas.iter().all(is_in_sync),
                "a copy was given up before all that stay were in sync: {config:?}"
            );
        }
        self.note_copies();
        if let Some(seen) = &seen {
            self.check_loss(seen, &config);
        }
        let in_sync = &config.in_sync;
        for host in 0..self.host_count() {
            let Some(partition) = self.cluster.partition(host) else {
                continue;
            };
            let copy = partition.copy();
            if !in_sync.iter().any(|of| of.copy == copy) {
                continue;
            }
            let last_version = partition.lsm().last_version();
            let lineage = &partition.roles().meta().lineage;
            for (history, version) in &self.acked {
                let common = lineage.common_version(HistoryId(*history), *version);
                // A lineage names only so many histories.
                let has_it =
                    common.is_none_or(|common| common == *version) && last_version >= *version;
                assert!(
                    has_it,
                    "version {version} of {} was acknowledged, and node {host} is in sync without \
                     it: {lineage:?} up to {last_version}",
                    HistoryId(*history)
                );
            }
        }
    }

    pub(super) fn picture(&mut self) -> String {
        let mut lines = vec![format!("{:?}", self.config())];
        for host in 0..self.host_count() {
            let local_ms = self.cluster.local_ms(host);
            let line = self.cluster.node(host).map(|node| {
                let Some(partition) = node.look_at(0) else {
                    return format!("{host}: no partition");
                };
                let cluster = node.cluster().expect("it is one of a cluster");
                format!(
                    "{host}: copy {}, version {}, {:?}, {:?}, {:?}, {:?}, lease {}, now {local_ms}",
                    partition.copy(),
                    partition.lsm().last_version(),
                    partition.roles().meta(),
                    cluster.state_of(partition, local_ms),
                    partition.leader_stats(0),
                    partition.copy_facts().collect::<Vec<_>>(),
                    partition.lease_end_ms(),
                )
            });
            lines.push(line.unwrap_or_else(|| format!("{host}: down")));
        }
        lines.join("\n")
    }
}
