//! `/health`, `/livez`, `/readyz`, `/leader` and `/replica`: for controllers, load balancers and
//! kubelets, without a token.

use serde::Serialize;

use crate::cluster::{Cluster, MemberState};
use crate::http::{Head, Refusal, Reply, json_line};
use crate::node::Subject;
use crate::partition::{Closed, Partition};
use crate::storage::Role;

use crate::api::context::Api;
use crate::api::context::partition_in_query;
use crate::api::endpoint::member_status::{doubt_about, state_name, told_if};
use crate::api::errors::refuse;
use crate::api::request::params::Param;
use crate::api::request::route::Route;
use crate::api::request::values::JSON;

const TEXT: &str = "text/plain";

/// Most partitions in `partitionStates`: probes ask often, and a replica that looks for this node's
/// replication port reads 64 KiB at most (`replication/port_probe.rs`).
const STATES_MAX: usize = 100;

/// The body of `/health`. The first four fields are what the controller reads.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HealthBody {
    status: &'static str,
    /// Bytes of log in the active memtables.
    mem_table_size: usize,
    /// The largest number of levels of a partition, the memtable included.
    levels: usize,
    partitions: Vec<u32>,
    /// The role of the partition that requests without a partition are about. Where there is no
    /// such partition: the role that all partitions have, or `mixed`.
    role: &'static str,
    /// The version of that partition, or the highest of all.
    version: u64,
    /// The token of that version; none where there is no such partition.
    position: Option<String>,
    /// The epoch of that partition.
    epoch: Option<u64>,
    uptime_ms: u64,
    replication_port: Option<u16>,
    /// The first [`STATES_MAX`] partitions, or the one that the request names.
    partition_states: Vec<PartitionHealth>,
}

/// One partition in it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PartitionHealth {
    id: u32,
    role: &'static str,
    /// The same word as in `/status`, such as `in sync`.
    state: &'static str,
    epoch: u64,
    version: u64,
    /// The token of that version.
    position: String,
}

impl PartitionHealth {
    fn of(partition: &Partition, cluster: Option<&Cluster>, now_ms: u64) -> Self {
        let position = partition.last_token();
        Self {
            id: partition.id(),
            role: partition.roles().role().name(),
            state: state_name(partition, cluster, now_ms),
            epoch: partition.roles().meta().epoch,
            version: position.version,
            position: position.to_string(),
        }
    }
}

impl Api<'_> {
    pub(crate) fn answer_health(&mut self, route: Route, head: &Head<'_>, reply: Reply<'_>) {
        match route {
            Route::Health => match self.health(head) {
                Ok(health) => {
                    let body = json_line(&health);
                    let is_loading = self.node.loading().is_some();
                    let status = if is_loading { 503 } else { 200 };
                    reply.status(status).content_type(JSON).body(&body);
                }
                Err(refusal) => refuse(reply, &refusal),
            },
            Route::Ready => match self.check_ready(head) {
                Ok(Some(obstacle)) => {
                    let reply = reply
                        .status(503)
                        .content_type(TEXT)
                        .header("Retry-After", "1");
                    reply.body(obstacle.as_bytes());
                }
                Ok(None) => match self.ready_text(head) {
                    Ok(text) => reply.status(200).content_type(TEXT).body(text.as_bytes()),
                    Err(refusal) => refuse(reply, &refusal),
                },
                Err(refusal) => refuse(reply, &refusal),
            },
            Route::Leader | Route::Replica => self.answer_role(route, head, reply),
            _ => reply.status(200).content_type(TEXT).body(b"alive\n"),
        }
    }

    /// Whether a load balancer may send requests for this role here.
    fn answer_role(&mut self, route: Route, head: &Head<'_>, reply: Reply<'_>) {
        if self.node.is_draining() {
            return reply.status(404).content_type(TEXT).body(b"draining\n");
        }
        if self.node.is_leaving() {
            let reply = reply.status(503).header("Retry-After", "1");
            return reply.content_type(TEXT).body(b"handing over\n");
        }
        match self.check_role(route, head) {
            Ok(Ok(role)) => reply
                .status(200)
                .content_type(TEXT)
                .body(format!("{}\n", role.name()).as_bytes()),
            Ok(Err(reason)) => {
                reply
                    .status(503)
                    .content_type(TEXT)
                    .header("Retry-After", "1")
                    .body(format!("{reason}\n").as_bytes());
            }
            Err(refusal) => refuse(reply, &refusal),
        }
    }

    fn check_role(
        &mut self,
        route: Route,
        head: &Head<'_>,
    ) -> Result<Result<Role, String>, Refusal> {
        let max_lag = self.max_lag(head)?;
        let (now_ms, min_acks) = (self.now_ms, self.node.config().min_acks);
        let index = self.partition_index(head, Subject::Node)?;
        let (partition, cluster) = (&self.node.partitions()[index], self.node.cluster());
        let role = partition.roles().role();
        let wanted = if route == Route::Leader {
            Role::Leader
        } else {
            Role::Replica
        };
        if role != wanted && !partition.roles().is_taking_over() {
            return Ok(Err(format!("the role of this node is {}", role.name())));
        }
        if let Some(obstacle) = obstacle_of(partition, cluster, now_ms) {
            return Ok(Err(obstacle));
        }
        if role == Role::Leader
            && let Err(few) = partition.check_replicas(min_acks, now_ms)
        {
            return Ok(Err(format!(
                "{} of the {min_acks} replicas that --min-acks needs are connected: writes are \
                 refused",
                few.count
            )));
        }
        Ok(lag_obstacle(partition, max_lag, now_ms).map_or(Ok(role), Err))
    }

    /// `?max_lag=`: how many versions a replica may be behind its leader.
    fn max_lag(&self, head: &Head<'_>) -> Result<Option<u64>, Refusal> {
        self.query(head)
            .number(Param::MaxLag, "how many versions a replica may be behind")
    }

    /// Why requests should go to another node: requests for the named partition, or for any.
    fn check_ready(&mut self, head: &Head<'_>) -> Result<Option<String>, Refusal> {
        let max_lag = self.max_lag(head)?;
        if !self.names_partition(head)? || self.node.is_draining() || self.node.loading().is_some()
        {
            return Ok(self.obstacle(max_lag));
        }
        let now_ms = self.now_ms;
        let index = self.partition_index(head, Subject::Node)?;
        let (partition, cluster) = (&self.node.partitions()[index], self.node.cluster());
        let obstacle = obstacle_of(partition, cluster, now_ms)
            .or_else(|| lag_obstacle(partition, max_lag, now_ms));
        Ok(obstacle.map(|obstacle| obstacle + "\n"))
    }

    fn names_partition(&self, head: &Head<'_>) -> Result<bool, Refusal> {
        let named = self.query(head).get(Param::Partition)?;
        Ok(head.partition_id.is_some() || named.is_some())
    }

    /// What is said of the named partition, or of all, when requests may come: replicas may be
    /// missing all the same, or etcd may have lost what would let another node take over.
    fn ready_text(&mut self, head: &Head<'_>) -> Result<String, Refusal> {
        let (now_ms, min_acks) = (self.now_ms, self.node.config().min_acks);
        let misses_replicas = |partition: &Partition| {
            let role = partition.roles().role();
            let has_few_copies = matches!(
                partition.check_open(true, now_ms),
                Err(Closed::TooFewCopies { .. })
            );
            role == Role::Leader
                && (has_few_copies || partition.check_replicas(min_acks, now_ms).is_err())
        };
        let named = if self.names_partition(head)? {
            Some(self.partition_index(head, Subject::Node)?)
        } else {
            None
        };
        let partitions = self.node.partitions();
        let meant = named.map_or(partitions, |index| &partitions[index..=index]);
        let mut text = "ready".to_owned();
        if meant.iter().any(misses_replicas) {
            text += "; too few replicas are connected: writes are refused";
        }
        let cluster = self.node.cluster();
        let doubt = |partition| doubt_about(partition, cluster, now_ms);
        if let Some(doubt) = meant.iter().find_map(doubt) {
            text = format!("{text}; {doubt}");
        }
        Ok(text + "\n")
    }

    /// Why requests should go to another node, as one line.
    fn obstacle(&self, max_lag: Option<u64>) -> Option<String> {
        if self.node.is_draining() {
            return Some("draining: the node is stopping\n".to_owned());
        }
        if let Some(progress) = self.node.loading() {
            return Some(format!("loading: {progress}\n"));
        }
        if let Some(cluster) = self.node.cluster()
            && cluster.revision() == 0
        {
            let waits = "waiting for etcd: it has not answered yet; GET /status has the last error";
            return Some(format!("{waits}\n"));
        }
        if let Some(cluster) = self.node.cluster()
            && cluster.members().is_empty()
            && !cluster.has_unreadable()
        {
            let waits = "not configured: etcd has no partitions of this cluster. If it is new, \
                         POST /cluster/init makes them; if etcd has lost them, docs/cluster.md \
                         says what comes first. GET /status says more";
            return Some(format!("{waits}\n"));
        }
        if self.node.partitions().is_empty() {
            return Some("unassigned: no partition is on this node\n".to_owned());
        }
        let partitions = self.node.partitions();
        partitions.iter().find_map(|partition| {
            let obstacle = obstacle_of(partition, self.node.cluster(), self.now_ms)
                .or_else(|| lag_obstacle(partition, max_lag, self.now_ms))?;
            Some(match partitions {
                [_] => format!("{obstacle}\n"),
                _ => format!("partition {}: {obstacle}\n", partition.id()),
            })
        })
    }

    fn health(&self, head: &Head<'_>) -> Result<HealthBody, Refusal> {
        // `X-Partition-ID` is ignored here: probes send the same fields everywhere.
        let named = self.query(head).get(Param::Partition)?;
        let named = named.map(|value| partition_in_query(&value)).transpose()?;
        let partitions = self.node.partitions();
        let listed = match named {
            Some(id) => self.node.look_at(id).map(std::slice::from_ref),
            None => Some(&partitions[..partitions.len().min(STATES_MAX)]),
        };
        let meant = self.node.look_at_unnamed();
        let stats: Vec<_> = partitions
            .iter()
            .map(|partition| partition.lsm().stats())
            .collect();
        let mut roles = partitions.iter().map(|partition| partition.roles().role());
        let role = roles.next().unwrap_or(Role::Unassigned);
        let common_role = if roles.all(|other| other == role) {
            role.name()
        } else {
            "mixed"
        };
        let highest = stats.iter().map(|stats| stats.last_version).max();
        Ok(HealthBody {
            status: if self.node.loading().is_some() {
                "LOADING"
            } else {
                "OK"
            },
            mem_table_size: stats.iter().map(|stats| stats.memtable_bytes).sum(),
            levels: stats
                .iter()
                .map(|stats| stats.levels.len().max(1))
                .max()
                .unwrap_or(0),
            partitions: partitions.iter().map(Partition::id).collect(),
            role: meant.map_or(common_role, |partition| partition.roles().role().name()),
            version: meant.map_or(highest.unwrap_or(0), |partition| {
                partition.lsm().last_version()
            }),
            position: meant.map(|partition| partition.last_token().to_string()),
            epoch: meant.map(|partition| partition.roles().meta().epoch),
            uptime_ms: self.now_ms,
            replication_port: self.node.replication_port,
            partition_states: listed
                .unwrap_or_default()
                .iter()
                .map(|partition| PartitionHealth::of(partition, self.node.cluster(), self.now_ms))
                .collect(),
        })
    }
}

/// Why a partition cannot act in its role.
fn obstacle_of(partition: &Partition, cluster: Option<&Cluster>, now_ms: u64) -> Option<String> {
    use MemberState::{AllLost, Copied, EtcdWentBack, Unreadable, Unwanted};

    if let Some(error) = partition.write_obstacle() {
        return Some(if error.is_passing() {
            format!("writes wait, and go on by themselves once they can: {error}")
        } else {
            format!("storage failed, writes are off: {error}")
        });
    }
    if partition.roles().is_taking_over() {
        let stats = partition.leader_stats(now_ms);
        let obstacle = stats.and_then(|stats| stats.obstacle).unwrap_or_default();
        let separator = if obstacle.is_empty() { "" } else { ": " };
        return Some(format!(
            "taking over as the leader: catching up with the other nodes first{separator}{obstacle}"
        ));
    }
    // A leader goes on, and so does what follows it.
    let lasting: &[MemberState] = if partition.is_in_sync() {
        &[Copied, Unwanted, AllLost]
    } else {
        &[Copied, Unwanted, AllLost, EtcdWentBack, Unreadable]
    };
    if let Some(told) = told_if(lasting, partition, cluster, now_ms) {
        return Some(told);
    }
    match partition.roles().role() {
        Role::Unassigned if partition.is_in_cluster() => {
            Some("unassigned: no role yet; GET /status says what is waited for".to_owned())
        }
        Role::Unassigned => Some("unassigned: no role yet".to_owned()),
        Role::Leader if !partition.roles().is_settled() => Some("the role is changing".to_owned()),
        Role::Leader => match partition.check_open(false, now_ms) {
            Ok(()) | Err(Closed::TooFewCopies { .. }) => None,
            Err(Closed::Fenced) => Some("fenced: its lease has ended".to_owned()),
            Err(Closed::HandingOver) => Some("handing over to another node".to_owned()),
        },
        Role::Replica if partition.is_in_sync() => None,
        Role::Replica => {
            let stats = partition.leader_stats(now_ms);
            let is_connecting = stats
                .as_ref()
                .is_some_and(|stats| stats.state == "connecting");
            let obstacle = match stats.and_then(|stats| stats.obstacle) {
                Some(obstacle) if is_connecting => format!(
                    "whether this replica has all data is not known before its leader is reached: \
                     {obstacle}"
                ),
                Some(obstacle) => obstacle,
                None => "catching up".to_owned(),
            };
            Some(format!("not in sync: {obstacle}"))
        }
    }
}

/// Why a replica is too far behind: by more than `max_lag` versions, or by an unknown number.
fn lag_obstacle(partition: &Partition, max_lag: Option<u64>, now_ms: u64) -> Option<String> {
    let max_lag = max_lag?;
    match lag_of(partition, now_ms) {
        None if partition.roles().role() == Role::Replica => {
            Some("the leader is not heard: the lag is not known".to_owned())
        }
        Some(lag) if lag > max_lag => Some(format!("the lag behind the leader is {lag}")),
        _ => None,
    }
}

/// How many versions a replica is behind its leader. None while that is not known: the leader is
/// not connected, or has missed two heartbeats.
pub(crate) fn lag_of(partition: &Partition, now_ms: u64) -> Option<u64> {
    let leader_version = partition.leader_stats(now_ms)?.leader_version?;
    Some(leader_version.saturating_sub(partition.lsm().last_version()))
}
