//! `?consistency=`: what a read may show, and what its answer waits for; and whether there are
//! replicas enough for a write.
//!
//! Not here: which replicas count as connected, and what is confirmed
//! (`partition/acknowledged.rs`).

use crate::config::ReadConsistency;
use crate::http::{Head, Refusal};
use crate::partition::{Partition, TooFewReplicas};
use crate::storage::Role;

use super::params::Param;
use super::promise::{Due, Gate};
use super::{Api, changing, taking_over};

impl Api<'_> {
    /// Replicas that must hold what a read shows, if it asks for that.
    #[inline]
    pub(super) fn read_acks(&self, head: &Head<'_>) -> Result<Option<u8>, Refusal> {
        let config = self.node.config();
        let mut consistency = config.read_consistency;
        if self.params.has(Param::Consistency) {
            consistency = self.consistency_of(head)?.unwrap_or(consistency);
        }
        Ok(match consistency {
            ReadConsistency::Local => None,
            ReadConsistency::Acknowledged => Some(config.min_acks),
        })
    }

    #[cold]
    fn consistency_of(&self, head: &Head<'_>) -> Result<Option<ReadConsistency>, Refusal> {
        let name = self.query(head).get(Param::Consistency)?;
        name.map(|name| ReadConsistency::of(&name).ok_or_else(unknown_consistency))
            .transpose()
    }
}

/// Refuses a read that shows only what so many replicas hold, if `acks` says so, on a node that
/// cannot tell.
pub(super) fn check_read(
    partition: &Partition,
    acks: Option<u8>,
    now_ms: u64,
) -> Result<(), Refusal> {
    let Some(count) = acks else { return Ok(()) };
    let roles = partition.roles();
    if roles.is_taking_over() {
        return Err(taking_over());
    }
    if roles.role() != Role::Leader {
        return Err(not_told_here(roles.meta().leader.as_deref()));
    }
    if !roles.is_settled() {
        return Err(changing());
    }
    partition
        .check_read(count, now_ms)
        .map_err(|few| too_few(count, few))
}

/// What the answer to such a read waits for. `shown_version`: that of the write that it shows;
/// none: it shows that there is none, or many.
pub(super) fn due_of_read(
    partition: &Partition,
    acks: Option<u8>,
    shown_version: Option<u64>,
) -> Due {
    let gate = acks.and_then(|count| {
        let number = partition.read_gate(count, shown_version)?;
        Some(Gate {
            partition: partition.id(),
            wait: partition.read_wait(count),
            number,
        })
    });
    Due {
        gate,
        ..Due::default()
    }
}

/// Refuses a write that so many replicas are to hold, where fewer are connected.
#[inline]
pub(super) fn check_replicas(partition: &Partition, count: u8, now_ms: u64) -> Result<(), Refusal> {
    match partition.check_replicas(count, now_ms) {
        Ok(()) => Ok(()),
        Err(few) => Err(too_few(count, few)),
    }
}

#[cold]
fn too_few(needed_count: u8, few: TooFewReplicas) -> Refusal {
    let message = format!(
        "{} of the {needed_count} replicas that are needed are connected: nothing was done, try \
         again; GET /status shows the replicas",
        few.count
    );
    Refusal::new(503, "too_few_replicas", message)
}

#[cold]
fn unknown_consistency() -> Refusal {
    let message = "?consistency= must be local or acknowledged";
    Refusal::new(400, "bad_query", message)
}

#[cold]
fn not_told_here(leader: Option<&str>) -> Refusal {
    let message = "this node is a replica, and only the leader knows what is acknowledged: ask it, \
                   or read with ?consistency=local";
    let refusal = Refusal::new(421, "not_leader", message);
    match leader {
        Some(leader) => refusal.with_header("X-Leader", leader),
        None => refusal,
    }
}
