//! Refusals of a node that is one of a cluster. After each of them, nothing was done: a proxy or a
//! client may send the request again, also a write.
//!
//! Not here: when a leader is closed (`partition/membership.rs`), which node leads (`cluster/`).

use crate::cluster::{Cluster, MemberState};
use crate::http::Refusal;
use crate::partition::{Closed, Partition};

/// A leader that answers neither reads nor writes for now, or no writes.
#[cold]
pub(crate) fn closed(reason: Closed) -> Refusal {
    match reason {
        Closed::Fenced => Refusal::new(
            503,
            "fenced",
            "this node leads, and its lease has ended: it has not heard all copies in sync for a \
             while, and another node may lead by now. Nothing was done: try again",
        ),
        Closed::HandingOver => Refusal::new(
            503,
            "handing_over",
            "this node hands the partition over to another node: nothing was done, try again",
        ),
        Closed::TooFewCopies { count, needed } => {
            let message = format!(
                "{count} of the {needed} copies that --min-in-sync needs are in sync: nothing was \
                 done, try again; GET /status shows the copies"
            );
            Refusal::new(503, "not_enough_replicas", message)
        }
    }
}

/// A partition that this node does not lead, or has no role in yet.
#[cold]
pub(crate) fn not_leading(partition: &Partition, cluster: &Cluster, now_ms: u64) -> Refusal {
    let id = partition.id();
    match cluster.state_of(partition, now_ms) {
        MemberState::Unknown => unknown(id),
        MemberState::Following | MemberState::EtcdWentBack => led_by(id, cluster.leader_url(id)),
        MemberState::Standing
        | MemberState::Named
        | MemberState::Open
        | MemberState::Fenced
        | MemberState::HandingOver => no_leader(id),
    }
}

/// A partition that this node has no copy of. None: the request names none.
#[cold]
pub(crate) fn no_copy(id: Option<u32>, cluster: &Cluster) -> Refusal {
    let is_known = |id: &u32| {
        let member = cluster.member(*id);
        member.is_some_and(|member| member.config().is_some())
    };
    match id {
        Some(id) if is_known(&id) => led_by(id, cluster.leader_url(id)),
        Some(id) if cluster.members().is_empty() => unknown(id),
        Some(id) => {
            let message =
                format!("partition {id} is not in this cluster: GET /status lists its partitions");
            Refusal::new(404, "partition_not_found", message)
        }
        None if cluster.members().is_empty() => unread(),
        None => {
            let message = "this cluster has several partitions: name one by X-Partition-ID";
            Refusal::new(404, "partition_not_found", message)
        }
    }
}

pub(crate) fn led_by(id: u32, leader: Option<&str>) -> Refusal {
    let Some(leader) = leader else {
        return no_leader(id);
    };
    let message = format!("this node does not lead partition {id}: send the request to {leader}");
    Refusal::new(421, "not_leader", message).with_header("X-Leader", leader)
}

fn no_leader(id: u32) -> Refusal {
    let message = format!(
        "partition {id} has no leader at the moment, or this node does not know where it is: \
         nothing was done, try again; GET /status says what is waited for"
    );
    Refusal::new(503, "no_leader", message)
}

fn unknown(id: u32) -> Refusal {
    let message = format!(
        "this node has not read from etcd which node leads partition {id}: nothing was done, try \
         again; GET /status says whether etcd answers"
    );
    Refusal::new(503, "cluster_unknown", message)
}

fn unread() -> Refusal {
    let message = "this node has not read from etcd which partitions there are: nothing was done, \
                   try again; GET /status says whether etcd answers";
    Refusal::new(503, "cluster_unknown", message)
}

/// Only etcd gives roles to the partitions of a cluster.
#[cold]
pub(crate) fn managed_by_etcd() -> Refusal {
    let message = "etcd says which copies there are and which of them leads (--etcd), and another \
                   order would be undone: nothing was changed. GET /status shows the copies; to \
                   have a node assigned by a controller, start it without --etcd";
    Refusal::new(409, "managed_by_etcd", message)
}
