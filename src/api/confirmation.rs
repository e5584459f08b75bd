//! What an answer waits for before it is sent: a write until it is on disk or on enough replicas, a
//! read with `?consistency=acknowledged` until the write that it shows is. Requests for which too
//! few replicas are connected are refused here.
//!
//! Not here: which replicas count as connected, and what is confirmed
//! (`partition/ack_requirements.rs`).

use crate::config::ReadConsistency;
use crate::http::{Head, Refusal, Reply};
use crate::partition::{Partition, TooFewReplicas, Wait};
use crate::storage::Role;

use crate::api::context::Api;
use crate::api::effects::{CommitGate, FollowUp};
use crate::api::errors::{changing, taking_over};
use crate::api::request::params::Param;
use crate::api::request::values::number;

/// The largest `X-Min-Acks`: a leader has no more replicas than that.
const MIN_ACKS_MAX: u8 = 32;

impl Api<'_> {
    /// The follow-up of the write just made in a partition. `incurred_before` is the partition's
    /// count of incurred merge work before that write.
    #[inline]
    pub(crate) fn follow_up_of_write(
        partition: &Partition,
        min_acks: u8,
        incurred_before: u64,
    ) -> FollowUp {
        let (id, number, generation) = (
            partition.id(),
            partition.lsm().last_version(),
            partition.leadership_generation(),
        );
        let gate = if min_acks > 0 {
            Some(CommitGate {
                partition: id,
                wait: Wait::Acks {
                    count: min_acks,
                    generation,
                },
                number,
            })
        } else {
            partition.gate().map(|number| CommitGate {
                partition: id,
                wait: Wait::Disk { generation },
                number,
            })
        };
        let work = usize::try_from(partition.lsm().incurred_work() - incurred_before)
            .unwrap_or(usize::MAX);
        FollowUp { gate, work }
    }

    /// Charges the work to the turn, and holds the reply back if it has to wait.
    #[inline]
    pub(crate) fn defer<'o>(&mut self, follow_up: FollowUp, reply: Reply<'o>) -> Reply<'o> {
        self.effects.owed_work += follow_up.work;
        let Some(gate) = follow_up.gate else {
            return reply;
        };
        self.effects.defer(gate);
        reply.hold()
    }

    /// How many replicas must hold a write: `X-Min-Acks`, or else `--min-acks`.
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

    /// How many replicas must hold what a read shows; none if it may show what is local.
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

/// Refuses a read of acknowledged data (`acks` is not none) on a node that does not know what is
/// acknowledged.
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

/// The follow-up of a read of acknowledged data. `shown_version` is the version of the entry that
/// the answer shows; none where it shows several, or that a key is missing.
pub(crate) fn follow_up_of_read(
    partition: &Partition,
    acks: Option<u8>,
    shown_version: Option<u64>,
) -> FollowUp {
    let gate = acks.and_then(|count| {
        let number = partition.read_gate(count, shown_version)?;
        Some(CommitGate {
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

/// Refuses a write that `count` replicas must hold while fewer are connected.
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
