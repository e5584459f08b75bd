//! [`Api`]: the node and the state of the request at hand; and which partition a request is about.

use crate::cluster::Cluster;
use crate::http::{Field, Head, Method, Refusal};
use crate::node::{Node, Subject, Unavailable};
use crate::partition::Partition;
use crate::storage::Role;

use super::cluster_refusals;
use super::effects::Effects;
use super::errors::{
    changing, memory_limit, not_leader, storage_refused, taking_over, unassigned, unavailable,
};
use super::request::access_policy::AccessPolicy;
use super::request::params::{Param, ParamSet};
use super::request::query::Query;
use super::request::values;
use super::request_labels::RequestLabels;

/// Answers requests on behalf of a node, for the time of one turn.
#[derive(Debug)]
pub struct Api<'n> {
    pub(super) node: &'n mut Node,
    pub(super) access: &'n mut AccessPolicy,
    /// Where bodies are rendered before their length is known; kept between requests for its
    /// allocation.
    pub(super) scratch: &'n mut Vec<u8>,
    /// Milliseconds since the node started.
    pub(super) now_ms: u64,
    pub(super) effects: &'n mut Effects,
    /// Labels of the request at hand, under which its answer is counted.
    pub(super) labels: RequestLabels,
    /// The query parameters that the request at hand has.
    pub(super) params: ParamSet,
    pub(super) scope: Scope,
}

/// What is answered on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every request.
    All,
    /// Only health, metrics and status: the connection is above the limit.
    AboutNode,
}

impl<'n> Api<'n> {
    /// Answers requests as of `now_ms`, and records in `effects` what remains to be done for them.
    pub fn new(
        node: &'n mut Node,
        access: &'n mut AccessPolicy,
        scratch: &'n mut Vec<u8>,
        effects: &'n mut Effects,
        now_ms: u64,
    ) -> Self {
        let labels = RequestLabels::expected(None, Method::Other);
        Self {
            node,
            access,
            scratch,
            now_ms,
            effects,
            labels,
            params: ParamSet::ALL,
            scope: Scope::All,
        }
    }

    /// The same for a connection on which not every request is answered.
    #[must_use]
    pub fn within(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// The query of the request at hand.
    #[inline]
    pub(crate) fn query<'b>(&self, head: &Head<'b>) -> Query<'b> {
        Query::with(head.target(), self.params)
    }

    /// The partition that a request is about, whatever its role.
    #[inline]
    pub(crate) fn any_partition(
        &mut self,
        head: &Head<'_>,
        subject: Subject<'_>,
    ) -> Result<&mut Partition, Refusal> {
        let (partition, _) = self.partition_in_cluster(head, subject)?;
        Ok(partition)
    }

    /// The same, with the cluster that the node is one of.
    #[inline]
    pub(crate) fn partition_in_cluster(
        &mut self,
        head: &Head<'_>,
        subject: Subject<'_>,
    ) -> Result<(&mut Partition, Option<&Cluster>), Refusal> {
        let id = partition_id(head, self.query(head))?;
        if let Some(id) = id {
            self.labels.expect_partition(id);
        }
        let (partition, cluster) = self.node.partition_in_cluster(id, subject);
        let partition = partition.map_err(|reason| absent(reason, cluster))?;
        if id.is_none() {
            self.labels.expect_partition(partition.id());
        }
        Ok((partition, cluster))
    }

    /// The partition that a request is about, for a read.
    #[inline]
    pub(crate) fn partition(
        &mut self,
        head: &Head<'_>,
        subject: Subject<'_>,
    ) -> Result<&mut Partition, Refusal> {
        let now_ms = self.now_ms;
        let (partition, cluster) = self.partition_in_cluster(head, subject)?;
        match partition.roles().role() {
            Role::Unassigned => Err(without_role(partition, cluster, now_ms)),
            // A proxy has sent it here for the leader: what this node has may be behind.
            Role::Replica if head.given.has(Field::NotLeader) => {
                Err(not_led(partition, cluster, now_ms))
            }
            Role::Leader | Role::Replica => Ok(partition),
        }
    }

    /// The partition that a request is about, for a write.
    #[inline]
    pub(crate) fn writable_partition(
        &mut self,
        head: &Head<'_>,
        subject: Subject<'_>,
    ) -> Result<&mut Partition, Refusal> {
        let now_ms = self.now_ms;
        let (partition, cluster) = self.partition_in_cluster(head, subject)?;
        let roles = partition.roles();
        match partition.write_obstacle() {
            _ if roles.role() == Role::Unassigned => Err(without_role(partition, cluster, now_ms)),
            Some(error) => Err(storage_refused(error)),
            None if roles.is_taking_over() => Err(taking_over()),
            None if roles.role() != Role::Leader => Err(not_led(partition, cluster, now_ms)),
            None if !roles.is_settled() => Err(changing()),
            None => match partition.check_open(true, now_ms) {
                Ok(()) => Ok(partition),
                Err(reason) => Err(cluster_refusals::closed(reason)),
            },
        }
    }

    /// The partition that a request is about, for a write that needs memory.
    #[inline]
    pub(crate) fn growable_partition(
        &mut self,
        head: &Head<'_>,
        subject: Subject<'_>,
    ) -> Result<&mut Partition, Refusal> {
        let is_full = self.node.is_full();
        let partition = self.writable_partition(head, subject)?;
        if is_full {
            Err(memory_limit())
        } else {
            Ok(partition)
        }
    }
}

#[cold]
pub(crate) fn absent(reason: Unavailable, cluster: Option<&Cluster>) -> Refusal {
    match (reason, cluster) {
        (Unavailable::NoCopy(id), Some(cluster)) => cluster_refusals::no_copy(id, cluster),
        (Unavailable::Wrong(id), Some(cluster)) => cluster_refusals::wrong_partition(id, cluster),
        (Unavailable::UnnamedOf(count), _) => cluster_refusals::partition_missing(count),
        (Unavailable::Unread, _) => cluster_refusals::unread(),
        (reason, _) => unavailable(reason),
    }
}

#[cold]
fn without_role(partition: &Partition, cluster: Option<&Cluster>, now_ms: u64) -> Refusal {
    match cluster {
        Some(cluster) => cluster_refusals::not_leading(partition, cluster, now_ms),
        None => unassigned(),
    }
}

#[cold]
fn not_led(partition: &Partition, cluster: Option<&Cluster>, now_ms: u64) -> Refusal {
    match cluster {
        Some(cluster) => cluster_refusals::not_leading(partition, cluster, now_ms),
        None => not_leader(partition.roles().meta().leader.as_deref()),
    }
}

/// The number of the partition that a request names: `X-Partition-ID` or `?partition=`.
#[inline]
fn partition_id(head: &Head<'_>, query: Query<'_>) -> Result<Option<u32>, Refusal> {
    let by_header = head.partition_id.map(partition_in_header).transpose()?;
    let by_query = query.get(Param::Partition)?;
    let by_query = by_query
        .map(|value| partition_in_query(&value))
        .transpose()?;
    match (by_header, by_query) {
        (Some(named), Some(other)) if named != other => Err(Refusal::bad_request(format!(
            "X-Partition-ID names partition {named}, and ?partition= names {other}: send one of \
             them"
        ))),
        _ => Ok(by_header.or(by_query)),
    }
}

fn partition_in_header(value: &[u8]) -> Result<u32, Refusal> {
    values::number(value).ok_or_else(|| no_number("X-Partition-ID: 0"))
}

/// The number of a partition in `?partition=`.
pub(crate) fn partition_in_query(value: &[u8]) -> Result<u32, Refusal> {
    values::number(value).ok_or_else(|| no_number("?partition=0"))
}

#[cold]
fn no_number(example: &str) -> Refusal {
    Refusal::bad_request(format!(
        "the partition must be a number: send {example}, or leave it out"
    ))
}
