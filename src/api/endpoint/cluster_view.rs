//! `GET /cluster` and `GET /cluster/map`: the cluster as this node has read it from etcd.

use serde::Serialize;

use crate::cluster::{Cluster, Member, MemberState, MoveStep};
use crate::http::{Refusal, Reply, json_line};

use crate::api::context::Api;
use crate::api::endpoint::cluster::no_cluster;
use crate::api::errors::refuse;
use crate::api::request::route::Route;
use crate::api::request::values::JSON;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterBody<'a> {
    cluster: &'a str,
    /// This node.
    node: &'a str,
    /// None: the cluster was not made yet, or was not read yet.
    id: Option<&'a str>,
    partition_count: Option<u32>,
    when_all_lost: Option<&'a str>,
    nodes: Vec<NodeBody<'a>>,
    partitions: Vec<PartitionBody<'a>>,
}

#[derive(Serialize)]
struct NodeBody<'a> {
    name: &'a str,
    url: &'a str,
    zone: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PartitionBody<'a> {
    id: u32,
    epoch: u64,
    leader: &'a str,
    in_sync: Vec<&'a str>,
    replicas: &'a [String],
    leaving: &'a [String],
    /// The node that the leader hands over to once its copy is in sync.
    next_leader: Option<&'a str>,
    /// What is done about copies that come or go; none: all is as it is to be.
    step: Option<&'static str>,
    /// Nodes that still have a copy which is not wanted any more.
    kept: Vec<&'a str>,
    /// What this node does about it; none: it has no copy.
    state: Option<&'static str>,
}

#[derive(Serialize)]
struct MapBody<'a> {
    revision: u64,
    partitions: Option<u32>,
    hash: Option<&'a str>,
    leaders: Vec<LeaderBody<'a>>,
}

/// Where a partition is. Addresses that are not known are left out.
#[derive(Serialize)]
struct LeaderBody<'a> {
    id: u32,
    leader: Option<&'a str>,
    replicas: Vec<&'a str>,
}

impl Api<'_> {
    pub(crate) fn answer_cluster(&mut self, route: Route, reply: Reply<'_>) {
        let body = match (self.node.cluster(), route) {
            (None, _) => Err(no_cluster()),
            (Some(cluster), Route::ClusterMap) => Ok(json_line(&map_of(cluster))),
            (Some(cluster), _) => Ok(json_line(&self.view_of(cluster))),
        };
        let answer = |body: Vec<u8>, reply: Reply<'_>| {
            reply.status(200).content_type(JSON).body(&body);
        };
        match body {
            Ok(body) => answer(body, reply),
            Err(refusal) => refuse_view(reply, &refusal),
        }
    }

    fn view_of<'a>(&'a self, cluster: &'a Cluster) -> ClusterBody<'a> {
        let options = cluster.options();
        let value = cluster.value();
        let nodes = cluster.nodes().iter().map(|(name, node)| NodeBody {
            name,
            url: &node.url,
            zone: &node.zone,
            version: &node.version,
        });
        let members = cluster.members().iter();
        let partitions = members.filter_map(|(id, member)| {
            let partition = self.node.look_at(*id);
            let state = partition.map(|own| word_of(cluster.state_of(own, self.now_ms)));
            let config = member.config()?;
            Some(PartitionBody {
                id: *id,
                epoch: config.epoch,
                leader: &config.leader,
                in_sync: config.in_sync.iter().map(|of| &of.node[..]).collect(),
                replicas: &config.replicas,
                leaving: &config.leaving,
                next_leader: config.next_leader.as_deref(),
                step: MoveStep::of(config).map(MoveStep::name),
                kept: cluster.kept(*id, config).collect(),
                state,
            })
        });
        ClusterBody {
            cluster: &options.cluster,
            node: &options.node,
            id: value.map(|value| &value.id[..]),
            partition_count: value.map(|value| value.partitions),
            when_all_lost: value.map(|value| &value.when_all_lost[..]),
            nodes: nodes.collect(),
            partitions: partitions.collect(),
        }
    }
}

fn map_of(cluster: &Cluster) -> MapBody<'_> {
    let url_of = |name: &String| cluster.nodes().get(name).map(|node| &node.url[..]);
    let members = cluster.members().iter();
    let leaders = members.filter_map(|(id, member): (&u32, &Member)| {
        let config = member.config()?;
        Some(LeaderBody {
            id: *id,
            leader: url_of(&config.leader),
            replicas: config.replicas.iter().filter_map(url_of).collect(),
        })
    });
    let value = cluster.value();
    MapBody {
        revision: cluster.revision(),
        partitions: value.map(|value| value.partitions),
        hash: value.map(|value| &value.hash[..]),
        leaders: leaders.collect(),
    }
}

#[cold]
fn refuse_view(reply: Reply<'_>, refusal: &Refusal) {
    refuse(reply, refusal);
}

fn word_of(state: MemberState) -> &'static str {
    match state {
        MemberState::Unknown => "unknown",
        MemberState::EtcdWentBack => "etcd went back",
        MemberState::Following => "following",
        MemberState::Standing => "standing",
        MemberState::Named => "named",
        MemberState::Open => "leading",
        MemberState::Fenced => "fenced",
        MemberState::HandingOver => "handing over",
    }
}
