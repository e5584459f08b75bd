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
        MemberState::Unknown if cluster.revision() > 0 => not_configured(id),
        MemberState::Unknown => unknown(id),
        MemberState::Following
        | MemberState::Unreadable
        | MemberState::Copied
        | MemberState::Unwanted
        | MemberState::EtcdWentBack => led_by(id, cluster.leader_url(id)),
        MemberState::AllLost
        | MemberState::Standing
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
        Some(id) if cluster.partition_count().is_none_or(|count| id < count) => unknown(id),
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

/// The key belongs to a partition that the request does not name.
#[cold]
pub(crate) fn wrong_partition(id: u32, cluster: &Cluster) -> Refusal {
    let message = format!(
        "the key belongs to partition {id}, and the request names another: nothing was done; send \
         X-Partition-ID: {id}, or leave it out"
    );
    let refusal = Refusal::new(421, "wrong_partition", message);
    let refusal = refusal.with_header("X-Partition-ID", &id.to_string());
    match cluster.leader_url(id).or_else(|| cluster.own_url(id)) {
        Some(leader) => refusal.with_header("X-Leader", leader),
        None => refusal,
    }
}

/// The request is about a partition as a whole, and does not say which.
#[cold]
pub(crate) fn partition_missing(count: u32) -> Refusal {
    let message = format!(
        "the keys of this cluster are in {count} partitions, and this is about one of them: name \
         it by ?partition= or X-Partition-ID, from 0 to {}, and ask for each in turn to have all",
        count.saturating_sub(1)
    );
    Refusal::new(400, "partition_missing", message)
}

/// The keys of a batch do not belong together. `index`: the first operation about another partition
/// than that of the first one.
#[cold]
pub(crate) fn many_partitions(index: usize, [first, other]: [u32; 2]) -> Refusal {
    let message = format!(
        "a batch is carried out in one partition: the key of operation 0 is in partition {first}, \
         that of operation {index} in {other}. Nothing was done: send one batch for each \
         partition; GET /cluster/map says how to find it"
    );
    Refusal::new(400, "many_partitions", message)
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

fn not_configured(id: u32) -> Refusal {
    let message = format!(
        "etcd answers, and has no configuration of partition {id} for this cluster: nothing was \
         done; GET /status says what to do"
    );
    Refusal::new(503, "cluster_unknown", message)
}

#[cold]
pub(crate) fn unread() -> Refusal {
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
