//! Writes that wait until replicas have confirmed them.

use db_node::partition::{Wait, WaitProgress};

use crate::cluster::Cluster;

/// A write that waits.
#[derive(Debug)]
pub(crate) struct PendingWrite {
    pub(crate) host: usize,
    /// The life of the host in which it was written.
    pub(crate) incarnation: u64,
    pub(crate) wait: Wait,
    pub(crate) version: u64,
    pub(crate) key: Vec<u8>,
    pub(crate) since_ms: u64,
}

/// Takes out the writes that are confirmed now, and drops those that never will be, or not within
/// the time-out.
pub(crate) fn take_confirmed(
    pending: &mut Vec<PendingWrite>,
    cluster: &mut Cluster,
    timeout_ms: u64,
) -> Vec<PendingWrite> {
    let now_ms = cluster.now_ms;
    let mut confirmed = Vec::new();
    for at in (0..pending.len()).rev() {
        let write = &pending[at];
        let is_in_time = now_ms - write.since_ms < timeout_ms
            && cluster.hosts[write.host].incarnation == write.incarnation;
        let progress = match cluster.node(write.host).filter(|_| is_in_time) {
            Some(node) => node.wait_progress(0, write.wait),
            None => WaitProgress::Never,
        };
        match progress {
            WaitProgress::UpTo(version) if version < write.version => {}
            WaitProgress::UpTo(_) => {
                let write = pending.swap_remove(at);
                let key = String::from_utf8_lossy(&write.key);
                log::debug!("{now_ms}: {key} is confirmed to node {}", write.host);
                confirmed.push(write);
            }
            WaitProgress::Never => drop(pending.swap_remove(at)),
        }
    }
    confirmed
}
