//! What an answer waits for before it goes: of a write that it is on disk or on replicas, of a read
//! with `?consistency=` that what it shows is; and whether there are replicas enough.
//!
//! Not here: which replicas count as connected, and what is confirmed
//! (`partition/acknowledged.rs`).

use crate::config::ReadConsistency;
use crate::http::{Head, Refusal, Reply};
use crate::partition::{Partition, TooFewReplicas, Wait};
use crate::storage::Role;

use crate::api::context::Api;
use crate::api::effects::{FollowUp, Gate};
use crate::api::errors::{changing, taking_over};
use crate::api::request::params::Param;
use crate::api::request::values::number;

/// Most replicas that a request can ask for; more than one leader feeds.
const MIN_ACKS_MAX: u8 = 32;

impl Api<'_> {
    /// What a write that was just made in a partition leaves to be done, given what all writes
    /// before had incurred.
    #[inline]
    pub(crate) fn follow_up_of_write(
        partition: &Partition,
        min_acks: u8,
        incurred_before: u64,
    ) -> FollowUp {
        let (id, number, tenure) = (
            partition.id(),
            partition.lsm().last_version(),
            partition.tenure(),
        );
        let gate = if min_acks > 0 {
            Some(Gate {
                partition: id,
                wait: Wait::Acks {
                    count: min_acks,
                    tenure,
                },
                number,
            })
        } else {
            partition.gate().map(|number| Gate {
                partition: id,
                wait: Wait::Disk { tenure },
                number,
            })
        };
        let work = usize::try_from(partition.lsm().incurred_work() - incurred_before)
            .unwrap_or(usize::MAX);
        FollowUp { gate, work }
    }

    /// The reply: it goes when its gate opens.
    #[inline]
    pub(crate) fn defer<'o>(&mut self, follow_up: FollowUp, reply: Reply<'o>) -> Reply<'o> {
        self.effects.owed_work += follow_up.work;
        let Some(gate) = follow_up.gate else {
            return reply;
        };
        self.effects.defer(gate);
        reply.hold()
    }

    /// Replicas that must hold a write, as asked for by the request or else by the command line.
    #[inline]
    pub(crate) fn min_acks(&self, head: &Head<'_>) -> Result<u8, Refusal> {
        let Some(value) = head.min_acks else {
            return Ok(self.node.config().min_acks);
        };
        number(value)
            .filter(|count| *count <= MIN_ACKS_MAX)
            .ok_or_else(|| {
                Refusal::bad_request(format!(
                    "X-Min-Acks must be a number of replicas, 0 to {MIN_ACKS_MAX}"
                ))
            })
    }

    /// Replicas that must hold what a read shows, if it asks for that.
    #[inline]
    pub(crate) fn read_acks(&self, head: &Head<'_>) -> Result<Option<u8>, Refusal> {
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
pub(crate) fn check_read(
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
pub(crate) fn follow_up_of_read(
    partition: &Partition,
    acks: Option<u8>,
    shown_version: Option<u64>,
) -> FollowUp {
    let gate = acks.and_then(|count| {
        let number = partition.read_gate(count, shown_version)?;
        Some(Gate {
            partition: partition.id(),
            wait: partition.read_wait(count),
            number,
        })
    });
    FollowUp {
        gate,
        ..FollowUp::default()
    }
}

/// Refuses a write that so many replicas are to hold, where fewer are connected.
#[inline]
pub(crate) fn check_replicas(partition: &Partition, count: u8, now_ms: u64) -> Result<(), Refusal> {
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
