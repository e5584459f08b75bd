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

    /// The index of the partition that a request is about.
    #[inline]
    pub(crate) fn partition_index(
        &mut self,
        head: &Head<'_>,
        subject: Subject<'_>,
    ) -> Result<usize, Refusal> {
        let has_number = head.partition_id.is_some() || self.params.has(Param::Partition);
        let index = match self.node.default_index() {
            Some(index) if !has_number => index,
            _ => self.find_partition(head, subject)?,
        };
        self.labels
            .expect_partition(self.node.partition_at(index).id());
        Ok(index)
    }

    #[inline(never)] // so that requests that name none do not carry it along
    fn find_partition(&mut self, head: &Head<'_>, subject: Subject<'_>) -> Result<usize, Refusal> {
        let named = partition_id(head, self.query(head))?;
        if let Some(id) = named {
            self.labels.expect_partition(id);
        }
        let index = self.node.index_of_subject(named, subject);
        index.map_err(|reason| absent(reason, self.node))
    }

    /// The partition that a request is about, whatever its role.
    #[inline]
    pub(crate) fn any_partition(
        &mut self,
        head: &Head<'_>,
        subject: Subject<'_>,
    ) -> Result<&mut Partition, Refusal> {
        let index = self.partition_index(head, subject)?;
        Ok(self.node.partition_at(index))
    }

    /// The partition that a request is about, for a read.
    #[inline]
    pub(crate) fn partition(
        &mut self,
        head: &Head<'_>,
        subject: Subject<'_>,
    ) -> Result<&mut Partition, Refusal> {
        let index = self.partition_index(head, subject)?;
        match self.node.partition_at(index).roles().role() {
            Role::Unassigned => Err(self.without_role(index)),
            // A proxy has sent it here for the leader: what this node has may be behind.
            Role::Replica if head.given.has(Field::NotLeader) => Err(self.not_led(index)),
            Role::Leader | Role::Replica => Ok(self.node.partition_at(index)),
        }
    }

    /// The partition that a request is about, for a write.
    #[inline]
    pub(crate) fn writable_partition(
        &mut self,
        head: &Head<'_>,
        subject: Subject<'_>,
    ) -> Result<&mut Partition, Refusal> {
        let index = self.partition_index(head, subject)?;
        let now_ms = self.now_ms;
        let partition = self.node.partition_at(index);
        let roles = partition.roles();
        match partition.write_obstacle() {
            _ if roles.role() == Role::Unassigned => Err(self.without_role(index)),
            Some(error) => Err(storage_refused(error)),
            None if roles.is_taking_over() => Err(taking_over()),
            None if roles.role() != Role::Leader => Err(self.not_led(index)),
            None if !roles.is_settled() => Err(changing()),
            None => match partition.check_open(true, now_ms) {
                Ok(()) => Ok(self.node.partition_at(index)),
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

    #[cold]
    fn without_role(&self, index: usize) -> Refusal {
        match self.node.cluster() {
            Some(cluster) => self.not_leading(index, cluster),
            None => unassigned(),
        }
    }

    #[cold]
    fn not_led(&self, index: usize) -> Refusal {
        if let Some(cluster) = self.node.cluster() {
            return self.not_leading(index, cluster);
        }
        let roles = self.node.partitions()[index].roles();
        not_leader(roles.meta().leader.as_deref())
    }

    fn not_leading(&self, index: usize, cluster: &Cluster) -> Refusal {
        cluster_refusals::not_leading(&self.node.partitions()[index], cluster, self.now_ms)
    }
}

#[cold]
pub(crate) fn absent(reason: Unavailable, node: &Node) -> Refusal {
    match (reason, node.cluster()) {
        (Unavailable::NoCopy(id), Some(cluster)) => cluster_refusals::no_copy(id, cluster),
        (Unavailable::Wrong(id), Some(cluster)) => cluster_refusals::wrong_partition(id, cluster),
        (Unavailable::UnnamedOf(count), _) => cluster_refusals::partition_missing(count),
        (Unavailable::Unread, _) => cluster_refusals::unread(),
        (reason, _) => unavailable(reason),
    }
}

/// The number of the partition that a request names: `X-Partition-ID` or `?partition=`.
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
