//! `/partition/assign`: what a controller tells a node to be.

use serde::{Deserialize, Serialize};

use crate::config::parse_peer;
use crate::http::{Begin, Framing, Head, Refusal, Reply};
use crate::node::{AssignRefusal, PARTITIONS_MAX, Unavailable};
use crate::partition::{AssignError, Assignment, EPOCH_LEAP_MAX, Reached, Wait};
use crate::storage::{PEERS_MAX, Role};

use super::intake::{Intake, ReadyValue};
use super::kv_fields::KvLimits;
use super::promise::{Due, Gate};
use super::{Api, JSON, refuse, unavailable};

/// Longest body.
const BODY_MAX_BYTES: usize = 16 * 1024;

/// The body. Other fields are left for controllers that say more.
#[derive(Deserialize)]
struct Body {
    id: u32,
    role: BodyRole,
    #[serde(default)]
    leader: Option<String>,
    #[serde(default)]
    epoch: Option<u64>,
    #[serde(default)]
    replicas: Vec<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
enum BodyRole {
    Leader,
    Replica,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    success: bool,
    id: u32,
    role: &'static str,
    epoch: Option<u64>,
    version: u64,
    /// Of a leader that takes first what its peers hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
}

impl Api<'_> {
    pub(super) fn begin_assign(head: &Head<'_>, reply: Reply<'_>) -> Begin<Intake> {
        let declared_bytes = match head.framing {
            Framing::Length(bytes) => usize::try_from(bytes).ok(),
            Framing::None => Some(0),
            Framing::Chunked => None,
        };
        if declared_bytes.is_some_and(|bytes| bytes > BODY_MAX_BYTES) {
            let message = format!("the body is longer than {BODY_MAX_BYTES} bytes");
            reply.error(&Refusal::new(413, "body_too_large", message));
            return Begin::Answered;
        }
        Begin::Receive(Intake::raw(
            KvLimits {
                key_bytes: 0,
                value_bytes: BODY_MAX_BYTES,
            },
            declared_bytes,
        ))
    }

    pub(super) fn finish_assign(&mut self, intake: Intake, reply: Reply<'_>) {
        match self.assign(intake) {
            Ok((answer, gate)) => {
                let body = serde_json::to_vec(&answer).expect("plain fields serialize");
                self.promise(
                    Due {
                        gate,
                        ..Due::default()
                    },
                    reply,
                )
                .status(200)
                .content_type(JSON)
                .body(&body);
            }
            Err(refusal) => refuse(reply, &refusal),
        }
    }

    fn assign(&mut self, intake: Intake) -> Result<(Answer, Option<Gate>), Refusal> {
        let value = intake.into_received()?.value;
        let bytes = match &value {
            Some(ReadyValue::Small(bytes)) => &bytes[..],
            _ => &[],
        };
        let body: Body = serde_json::from_slice(bytes).map_err(|error| {
            Refusal::bad_request(format!(
                "send {{\"id\":0,\"role\":\"leader\"}} or {{\"id\":0,\"role\":\"replica\",\"leader\":\"http://host:port\"}}: {error}"
            ))
        })?;
        let assignment = assignment_of(&body)?;
        let (id, role) = (body.id, assignment.role);
        let change = self.node.assign(id, assignment).map_err(refusal_of)?;
        let gate = Gate {
            partition: id,
            wait: Wait::Settled,
            number: change,
        };
        let is_settled =
            matches!(self.node.reached(id, Wait::Settled), Reached::UpTo(count) if count >= change);
        let partition = self.node.partition(id).ok();
        let epoch = partition
            .as_ref()
            .map(|partition| partition.roles().standing().epoch)
            .or(body.epoch);
        let state = partition
            .as_ref()
            .is_some_and(|partition| partition.roles().is_taking_over())
            .then_some("catching_up");
        let version = partition.map_or(0, |partition| partition.lsm().last_version());
        let answer = Answer {
            success: true,
            id,
            role: role.name(),
            epoch,
            version,
            state,
        };
        Ok((answer, (!is_settled).then_some(gate)))
    }
}

fn assignment_of(body: &Body) -> Result<Assignment, Refusal> {
    let (role, leader) = match body.role {
        BodyRole::Leader => (Role::Leader, None),
        BodyRole::Replica => {
            let message = "a replica needs its leader: add \"leader\":\"http://host:port\"";
            let leader = body
                .leader
                .as_deref()
                .ok_or_else(|| Refusal::bad_request(message))?;
            let leader = parse_peer(leader)
                .map_err(|problem| Refusal::bad_request(format!("leader: {problem}")))?;
            (Role::Replica, Some(leader))
        }
    };
    if body.replicas.len() > PEERS_MAX {
        let message = format!("replicas: name at most {PEERS_MAX} addresses");
        return Err(Refusal::bad_request(message));
    }
    let peers = body.replicas.iter().map(|peer| parse_peer(peer)).collect();
    let peers = Result::map_err(peers, |problem| {
        Refusal::bad_request(format!("replicas: {problem}"))
    })?;
    Ok(Assignment {
        role,
        epoch: body.epoch,
        leader,
        peers,
    })
}

#[cold]
fn refusal_of(refusal: AssignRefusal) -> Refusal {
    match refusal {
        AssignRefusal::Loading(progress) => unavailable(Unavailable::Loading(progress)),
        AssignRefusal::Standing(AssignError::Outdated { in_force }) => {
            let message = format!("epoch {in_force} is in force: assign with that or a higher one");
            Refusal::new(409, "epoch_outdated", message)
        }
        AssignRefusal::Standing(AssignError::Taken { epoch, role }) => {
            let message = format!(
                "this node is {} in epoch {epoch}: another role needs a higher epoch",
                role.name()
            );
            Refusal::new(409, "epoch_taken", message)
        }
        AssignRefusal::Standing(AssignError::Leap { max }) => {
            let message = format!(
                "the epoch leaps: it may be {EPOCH_LEAP_MAX} above the one in force at most, which is {max} here"
            );
            Refusal::new(409, "epoch_leaps", message)
        }
        AssignRefusal::TooMany => {
            let message = format!("this node has {PARTITIONS_MAX} partitions, and takes no more");
            Refusal::new(409, "too_many_partitions", message)
        }
        AssignRefusal::TooFewDescriptors { partition_max } => {
            let message = format!(
                "the limit on file descriptors allows {partition_max} partitions on disk: \
                 start the node with a higher one (ulimit -n)"
            );
            Refusal::new(409, "too_many_partitions", message)
        }
        AssignRefusal::Failed => Refusal::new(
            503,
            "storage_failed",
            "the disk has failed: roles cannot change until the node is restarted",
        ),
    }
}
