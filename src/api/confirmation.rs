//! What an answer waits for before it is sent: a write until it is on disk or on enough replicas, a
//! read with `?consistency=acknowledged` until the write that it shows is. Requests for which too
//! few replicas are connected are refused here.
//!
//! On the leader in a cluster, all named copies have to hold a write before it is acknowledged, and
//! before a read shows it; a read is answered under a lease, too, which is looked at again before
//! the answer is sent (`reactor/session.rs`). So reads are linearizable there. A client can do
//! without, request by request: `X-Min-Acks: 0` for a write, `?consistency=local` for a read.
//!
//! Not here: which replicas count as connected, and what is confirmed
//! (`partition/ack_requirements.rs`), leases (`partition/membership.rs`).

use crate::config::ReadConsistency;
use crate::http::{Head, Refusal, Reply};
use crate::partition::{Partition, TooFewReplicas, Wait};
use crate::storage::Role;

use crate::api::cluster_refusals::closed;
use crate::api::context::Api;
use crate::api::effects::{CommitGate, FollowUp};
use crate::api::errors::{changing, refuse, taking_over};
use crate::api::request::params::Param;
use crate::api::request::values::number;

/// The largest `X-Min-Acks`: a leader has no more replicas than that.
const MIN_ACKS_MAX: u8 = 32;

/// What a write waits for beside this node's disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriteDemand {
    /// So many replicas.
    pub(crate) acks: u8,
    /// Whether the named copies of a cluster are not waited for: the request says `X-Min-Acks: 0`.
    pub(crate) is_waived: bool,
}

/// What a read may show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadDemand {
    /// Only what so many replicas hold; none: what is here.
    acks: Option<u8>,
    /// Whether the request says `?consistency=local`.
    is_local: bool,
}

impl ReadDemand {
    /// How many replicas must hold what a read in this partition shows; none if it may show what
    /// is here.
    #[inline]
    pub(crate) fn acks_in(self, partition: &Partition) -> Option<u8> {
        match self.acks {
            None if partition.leads_in_cluster() && !self.is_local => Some(0),
            acks => acks,
        }
    }
}

impl Api<'_> {
    /// The follow-up of the write just made in a partition. `incurred_before` is the partition's
    /// count of incurred merge work before that write.
    #[inline]
    pub(crate) fn follow_up_of_write(
        partition: &Partition,
        demand: WriteDemand,
        incurred_before: u64,
    ) -> FollowUp {
        let (id, number, generation) = (
            partition.id(),
            partition.lsm().last_version(),
            partition.leadership_generation(),
        );
        let gate = if demand.acks > 0 || (partition.is_in_cluster() && !demand.is_waived) {
            Some(CommitGate {
                partition: id,
                wait: Wait::Acks {
                    count: demand.acks,
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
        FollowUp {
            gate,
            work,
            lease_end_ms: u64::MAX,
        }
    }

    /// Charges the work to the turn, and holds the reply back if it has to wait.
    #[inline]
    pub(crate) fn defer<'o>(&mut self, follow_up: FollowUp, reply: Reply<'o>) -> Reply<'o> {
        if self.effects.take_on(follow_up) {
            reply.hold()
        } else {
            reply
        }
    }

    /// Refuses a request that writes. In a cluster, a refusal that shows what a key holds is
    /// answered as a read is.
    #[cold]
    pub(crate) fn refuse_write(&mut self, refusal: &Refusal, reply: Reply<'_>) {
        let shows_data = refusal.status == 412 || refusal.code == "key_not_found";
        let id = self.labels.partition().filter(|_| shows_data);
        let partition = id.and_then(|id| self.node.look_at(id));
        let due = partition.map(|partition| follow_up_of_shown(partition, None));
        let reply = self.defer(due.unwrap_or_default(), reply);
        refuse(reply, refusal);
    }

    /// How many replicas must hold a write: `X-Min-Acks`, or else `--min-acks`.
    #[inline]
    pub(crate) fn write_demand(&self, head: &Head<'_>) -> Result<WriteDemand, Refusal> {
        let Some(value) = head.min_acks else {
            return Ok(WriteDemand {
                acks: self.node.config().min_acks,
                is_waived: false,
            });
        };
        let acks = number(value).filter(|count| *count <= MIN_ACKS_MAX);
        let acks = acks.ok_or_else(|| {
            Refusal::bad_request(format!(
                "X-Min-Acks must be a number of replicas, 0 to {MIN_ACKS_MAX}"
            ))
        })?;
        Ok(WriteDemand {
            acks,
            is_waived: acks == 0,
        })
    }

    /// What a read may show: by `?consistency=`, or else `--read-consistency`.
    #[inline]
    pub(crate) fn read_demand(&self, head: &Head<'_>) -> Result<ReadDemand, Refusal> {
        let config = self.node.config();
        let mut consistency = config.read_consistency;
        let mut is_local = false;
        if self.params.has(Param::Consistency)
            && let Some(asked) = self.consistency_of(head)?
        {
            (consistency, is_local) = (asked, asked == ReadConsistency::Local);
        }
        let acks = match consistency {
            ReadConsistency::Local => None,
            ReadConsistency::Acknowledged => Some(config.min_acks),
        };
        Ok(ReadDemand { acks, is_local })
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
#[inline]
pub(crate) fn check_read(
    partition: &Partition,
    acks: Option<u8>,
    now_ms: u64,
) -> Result<(), Refusal> {
    match acks {
        None => Ok(()),
        Some(count) => check_read_of_acknowledged(partition, count, now_ms),
    }
}

fn check_read_of_acknowledged(
    partition: &Partition,
    count: u8,
    now_ms: u64,
) -> Result<(), Refusal> {
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
    partition.check_open(false, now_ms).map_err(closed)?;
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
        lease_end_ms: acks.map_or(u64::MAX, |_| partition.lease_end_ms()),
        ..FollowUp::default()
    }
}

/// The follow-up of a write that was not made for what a key holds: in a cluster, the answer shows
/// data as a read does.
pub(crate) fn follow_up_of_shown(partition: &Partition, shown_version: Option<u64>) -> FollowUp {
    let acks = partition.leads_in_cluster().then_some(0);
    follow_up_of_read(partition, acks, shown_version)
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
