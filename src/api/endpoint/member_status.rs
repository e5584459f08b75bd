//! What `/status` and `/health` say of a partition in a cluster, and of the cluster's etcd.

use serde::Serialize;

use crate::cluster::{Cluster, Member, MemberState};
use crate::config::WhenAllLost;
use crate::node::Node;
use crate::partition::Partition;
use crate::replication::SyncState;

/// The cluster that the node is one of.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClusterStatus<'n> {
    /// The name of the cluster.
    cluster: &'n str,
    /// The name of this node.
    node: &'n str,
    etcd: EtcdStatus<'n>,
}

/// How etcd answers.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EtcdStatus<'n> {
    /// Whether the last request was answered.
    up: bool,
    /// The member that is asked.
    endpoint: Option<&'n str>,
    /// The revision as of the last read; 0: it was not read yet.
    revision: u64,
    /// While it does not answer, or its watch fails.
    last_error: Option<&'n str>,
}

impl<'n> ClusterStatus<'n> {
    /// None: the node is of no cluster.
    pub(super) fn of(node: &'n Node) -> Option<Self> {
        let cluster = node.cluster()?;
        let options = cluster.options();
        let stats = node.loop_stats.etcd.as_deref();
        let told = |text: &'n String| Some(&text[..]).filter(|text| !text.is_empty());
        Some(Self {
            cluster: &options.cluster,
            node: &options.node,
            etcd: EtcdStatus {
                up: stats.is_some_and(|stats| stats.is_up),
                endpoint: stats.and_then(|stats| told(&stats.endpoint)),
                revision: cluster.revision(),
                last_error: stats.and_then(|stats| told(&stats.last_error)),
            },
        })
    }
}

/// A partition of a cluster.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct MemberStatus {
    /// Why its state is what it is, and what is waited for.
    state_reason: String,
    /// The nodes of the copies in sync, as the configuration says.
    in_sync: Vec<String>,
    /// Of a leader: how long it may still answer reads; none: without end.
    lease_left_ms: Option<u64>,
}

impl MemberStatus {
    /// None: the node is of no cluster.
    pub(super) fn of(
        partition: &Partition,
        cluster: Option<&Cluster>,
        now_ms: u64,
    ) -> Option<Self> {
        let cluster = cluster?;
        let member = cluster.member(partition.id());
        let in_sync = member
            .and_then(Member::config)
            .map(|config| config.in_sync.iter().map(|of| of.node.clone()).collect());
        Some(Self {
            state_reason: reason(partition, cluster, now_ms),
            in_sync: in_sync.unwrap_or_default(),
            lease_left_ms: lease_left_ms(partition, now_ms),
        })
    }
}

/// How long a leader may still answer reads; none: it does not lead, or may without end.
pub(crate) fn lease_left_ms(partition: &Partition, now_ms: u64) -> Option<u64> {
    let end_ms = partition.lease_end_ms();
    (partition.leads_in_cluster() && end_ms < u64::MAX).then(|| end_ms.saturating_sub(now_ms))
}

/// What a partition does, in a word or two.
pub(super) fn state_name(
    partition: &Partition,
    cluster: Option<&Cluster>,
    now_ms: u64,
) -> &'static str {
    let state = cluster.map(|cluster| cluster.state_of(partition, now_ms));
    let is_settled = partition.roles().is_settled();
    match state.filter(|_| is_settled) {
        Some(MemberState::Unknown) if is_etcd_read(cluster) => "not configured",
        Some(MemberState::Following) => following_name(partition, cluster, now_ms),
        state => {
            let name = state.and_then(MemberState::name);
            name.unwrap_or_else(|| partition.state_name())
        }
    }
}

fn is_etcd_read(cluster: Option<&Cluster>) -> bool {
    cluster.is_some_and(|cluster| cluster.revision() > 0)
}

/// What a replica does in a cluster: whether it is in sync, the configuration says.
fn following_name(partition: &Partition, cluster: Option<&Cluster>, now_ms: u64) -> &'static str {
    let member = cluster.and_then(|cluster| cluster.member(partition.id()));
    let config = member.and_then(Member::config);
    let is_named = config.is_some_and(|config| config.is_in_sync(partition.copy()));
    match partition.leader_stats(now_ms).map(|stats| stats.sync) {
        Some(SyncState::Behind | SyncState::InSync) if is_named => "in sync",
        Some(SyncState::InSync) => "catching up",
        _ => partition.state_name(),
    }
}

/// What may go wrong next although requests are served.
pub(super) fn doubt_about(
    partition: &Partition,
    cluster: Option<&Cluster>,
    now_ms: u64,
) -> Option<String> {
    if cluster?.is_unreadable(partition.id()) {
        return Some(UNREADABLE.to_owned());
    }
    told_if(&[MemberState::EtcdWentBack], partition, cluster, now_ms)
}

const UNREADABLE: &str = "the configuration in etcd cannot be read, and the log says why: no other \
                          node can lead, and no copy join or leave the set, until it can. Upgrade \
                          this node if a later release wrote it, or put back what was there";

fn copied_reason(partition: &Partition, cluster: &Cluster) -> String {
    let (own, id) = (&cluster.options().node, partition.id());
    let owner = cluster.owner_of(partition).unwrap_or_default();
    format!(
        "its data is a copy of that of {owner}, with the same id, and two nodes cannot be one \
         copy: start {own} with an empty data directory; or, if {owner} never comes back, delete \
         partitions/{id}/copies/{owner} in etcd"
    )
}

fn all_lost_reason(cluster: &Cluster) -> String {
    let choice = cluster.value().map(|value| value.when_all_lost);
    let follows = match choice {
        Some(WhenAllLost::Start) => "\"start\": the copy that holds most leads within seconds",
        _ => "\"wait\": none leads before POST /partition/recover names one",
    };
    format!("all copies in sync are gone for good, and whenAllLost is {follows}")
}

/// The state of a partition with its reason, if it is one of these.
pub(super) fn told_if(
    states: &[MemberState],
    partition: &Partition,
    cluster: Option<&Cluster>,
    now_ms: u64,
) -> Option<String> {
    let cluster = cluster?;
    let state = cluster.state_of(partition, now_ms);
    let name = state.name().filter(|_| states.contains(&state))?;
    Some(format!("{name}: {}", reason(partition, cluster, now_ms)))
}

/// Why a partition is in its state, as a sentence.
fn reason(partition: &Partition, cluster: &Cluster, now_ms: u64) -> String {
    let config = cluster.member(partition.id()).and_then(Member::config);
    let (leader, epoch) = config.map_or(("", 0), |config| (&config.leader[..], config.epoch));
    let is_own = leader == cluster.options().node;
    let is_in_sync = config.is_some_and(|config| config.is_in_sync(partition.copy()));
    match cluster.state_of(partition, now_ms) {
        MemberState::Unknown if is_etcd_read(Some(cluster)) => format!(
            "etcd answers, and has no configuration of this partition for the cluster {}. If the \
             cluster is new, POST /cluster/init makes one, and goes on with this data by \
             \"adopt\"; if etcd has lost it, POST /partition/recover comes first, as \
             docs/cluster.md says",
            cluster.options().cluster
        ),
        MemberState::Unknown => "etcd has not answered yet: \"etcd\" has the last error".to_owned(),
        MemberState::EtcdWentBack => format!(
            "etcd has lost some of its history, as after a restore from a backup: this copy, of \
             epoch {}, neither stands nor changes the configuration until an operator decides",
            partition.roles().meta().epoch
        ),
        MemberState::Unreadable => UNREADABLE.to_owned(),
        MemberState::Copied => copied_reason(partition, cluster),
        MemberState::Unwanted => format!(
            "{leader} leads in epoch {epoch}; no copy is wanted here any more: it is frozen, and \
             freed about a minute after that was read"
        ),
        MemberState::AllLost => all_lost_reason(cluster),
        MemberState::Following if is_own && epoch > 0 && !is_in_sync => {
            "etcd names this node as the leader, and its copy is another one than that in sync: it \
             may not lead"
                .to_owned()
        }
        MemberState::Following if is_own => {
            "etcd names this node as the leader: it is about to ask for a new epoch".to_owned()
        }
        MemberState::Following if is_in_sync => {
            format!("{leader} leads in epoch {epoch}; this copy is in sync")
        }
        MemberState::Following => {
            format!("{leader} leads in epoch {epoch}; this copy is not in sync, and may not lead")
        }
        MemberState::Standing => {
            format!("{leader} is not heard as the leader: this node asks etcd to lead")
        }
        MemberState::Named => {
            "etcd names this node as the leader: it leads once the lease of the leader before is \
             over"
                .to_owned()
        }
        MemberState::Open => format!("it leads in epoch {epoch}"),
        MemberState::Fenced => {
            "its lease has ended: it does not hear all copies in sync, and answers nothing until \
             it does, or until the others have left the set"
                .to_owned()
        }
        MemberState::HandingOver => "it hands over, and answers nothing meanwhile".to_owned(),
    }
}
