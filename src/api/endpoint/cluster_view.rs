//! `GET /cluster` and `GET /cluster/map`: the cluster as this node has read it from etcd.

use serde::Serialize;

use crate::cluster::{Cluster, Member, MemberState, MoveStep};
use crate::http::{Head, Refusal, Reply, json_line};

use crate::api::body::change_stream::{FeedRequest, MapPoll, WatchForm};
use crate::api::context::Api;
use crate::api::endpoint::cluster::no_cluster;
use crate::api::endpoint::watch::timeout_of;
use crate::api::errors::refuse;
use crate::api::request::params::Param;
use crate::api::request::values::{JSON, number};

/// Requests that wait for another map at a time.
const MAP_POLLS_MAX: usize = 1024;

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
    /// It leaves for good.
    leaving: bool,
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
    pub(crate) fn answer_cluster(&mut self, reply: Reply<'_>) {
        match self.node.cluster() {
            Some(cluster) => {
                let body = json_line(&self.view_of(cluster));
                reply.status(200).content_type(JSON).body(&body);
            }
            None => refuse(reply, &no_cluster()),
        }
    }

    /// Answers at once, or once the map has changed.
    pub(crate) fn answer_map(&mut self, head: &Head<'_>, reply: Reply<'_>) {
        let poll = self.map_poll(head);
        let (poll, cluster) = match (poll, self.node.cluster()) {
            (Ok(poll), Some(cluster)) => (poll, cluster),
            (Err(refusal), _) => return refuse(reply, &refusal),
            (_, None) => return refuse(reply, &no_cluster()),
        };
        let reply = reply.status(200).header("Cache-Control", "no-store");
        let reply = reply.content_type(JSON);
        match poll {
            Some(poll) => {
                if reply.feed(b"") {
                    self.effects.watch = Some(FeedRequest::Map(poll));
                }
            }
            None => reply.body(&cluster_map(cluster)),
        }
    }

    /// What a request waits for; none: nothing.
    fn map_poll(&self, head: &Head<'_>) -> Result<Option<MapPoll>, Refusal> {
        let query = self.query(head);
        let timeout_ms = timeout_of(query, WatchForm::LongPoll)?;
        let since = match query.get(Param::Since)? {
            Some(text) => number(&text).ok_or_else(bad_revision)?,
            None => return Ok(None),
        };
        let revision = self.node.cluster().map_or(0, Cluster::map_revision);
        let timeout_ms = timeout_ms.filter(|ms| *ms > 0 && revision <= since);
        let Some(timeout_ms) = timeout_ms else {
            return Ok(None);
        };
        let permit = self.node.resources.map_polls.take(MAP_POLLS_MAX);
        let permit = permit.ok_or_else(too_many_polls)?;
        Ok(Some(MapPoll {
            since,
            timeout_ms,
            permit,
        }))
    }

    fn view_of<'a>(&'a self, cluster: &'a Cluster) -> ClusterBody<'a> {
        let options = cluster.options();
        let value = cluster.value();
        let nodes = cluster.nodes().iter().map(|(name, node)| NodeBody {
            name,
            url: &node.url,
            zone: &node.zone,
            version: &node.version,
            leaving: node.is_leaving,
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
            when_all_lost: value.map(|value| value.when_all_lost.name()),
            nodes: nodes.collect(),
            partitions: partitions.collect(),
        }
    }
}

/// The body of `/cluster/map`.
pub fn cluster_map(cluster: &Cluster) -> Vec<u8> {
    json_line(&map_of(cluster))
}

#[cold]
fn bad_revision() -> Refusal {
    let message = "?since= must be the revision of the map that you have: without it, the answer \
                   comes at once";
    Refusal::new(400, "bad_query", message)
}

#[cold]
fn too_many_polls() -> Refusal {
    let message = format!("{MAP_POLLS_MAX} requests wait for a change already: ask again later");
    Refusal::new(503, "too_many_polls", message)
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
        revision: cluster.map_revision(),
        partitions: value.map(|value| value.partitions),
        hash: value.map(|value| &value.hash[..]),
        leaders: leaders.collect(),
    }
}

fn word_of(state: MemberState) -> &'static str {
    match state {
        MemberState::Unknown => "unknown",
        state => state.name().unwrap_or("following"),
    }
}
