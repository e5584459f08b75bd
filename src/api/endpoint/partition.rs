//! `POST /partition/assign` and `DELETE /partition/{id}`: a controller assigns a role, or has a
//! partition removed.

use serde::Serialize;

use crate::config::parse_peer;
use crate::http::{Head, Refusal, Reply, json_line};
use crate::node::{AssignRefusal, PARTITIONS_MAX, RemovalOrder, RemovalRefusal, Unavailable};
use crate::partition::{AssignError, Assignment, EPOCH_LEAP_MAX, RemovalError, Wait, WaitProgress};
use crate::storage::{PEERS_MAX, Role};

use crate::api::body::order_body::OrderFields;
use crate::api::body::request_body::RequestBody;
use crate::api::cluster_refusals::managed_by_etcd;
use crate::api::context::Api;
use crate::api::effects::{CommitGate, FollowUp};
use crate::api::errors::{refuse, storage_failed, unavailable};
use crate::api::request::params::Param;
use crate::api::request::route::Route;
use crate::api::request::values::JSON;

/// The body of an assignment. Unknown fields are allowed, and the answer lists them as `ignored`,
/// so that a mistyped one is noticed.
struct AssignmentBody {
    id: u32,
    role: AssignedRole,
    leader: Option<String>,
    epoch: Option<u64>,
    replicas: Vec<String>,
    /// With the role `none`: also drops data that no other node is known to hold.
    discard: bool,
    ignored: Vec<String>,
}

#[derive(Clone, Copy)]
enum AssignedRole {
    Leader,
    Replica,
    /// The node gives the partition up and frees its data.
    None,
}

/// The answer when a partition is given up.
#[derive(Serialize)]
struct RemovalAnswer {
    success: bool,
    id: u32,
    role: &'static str,
    /// Whether the partition was on this node.
    deleted: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AssignmentAnswer {
    success: bool,
    id: u32,
    role: &'static str,
    epoch: Option<u64>,
    version: u64,
    /// The token of that version; none while the partition is being created.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<String>,
    /// `catching_up`: a leader that first fetches what its peers hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    /// Unknown fields of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ignored: Vec<String>,
}

impl Api<'_> {
    pub(crate) fn finish_assign(&mut self, intake: RequestBody, reply: Reply<'_>) {
        if self.node.cluster().is_some() {
            return refuse(reply, &managed_by_etcd());
        }
        let outcome = body_of(intake).and_then(|body| match body.role {
            AssignedRole::None => {
                let order = RemovalOrder {
                    epoch: body.epoch,
                    discards: body.discard,
                };
                self.give_up(body.id, order)
            }
            AssignedRole::Leader | AssignedRole::Replica => self.assign(&body),
        });
        self.answer_order(outcome, reply);
    }

    /// Answers `DELETE /partition/{id}`.
    pub(crate) fn answer_removal(&mut self, head: &Head<'_>, reply: Reply<'_>) {
        if self.node.cluster().is_some() {
            return refuse(reply, &managed_by_etcd());
        }
        let query = self.query(head);
        let epoch = query.number(Param::Epoch, "the epoch of this order");
        let outcome = epoch.and_then(|epoch| {
            let discards = query.flag(Param::Discard)?.unwrap_or(false);
            let id = Route::partition_in(head.path).ok_or_else(|| {
                Refusal::bad_request("the partition must be a number: DELETE /partition/7")
            })?;
            self.give_up(id, RemovalOrder { epoch, discards })
        });
        self.answer_order(outcome, reply);
    }

    /// Answers once the change is durable.
    fn answer_order(
        &mut self,
        outcome: Result<(Vec<u8>, Option<CommitGate>), Refusal>,
        reply: Reply<'_>,
    ) {
        match outcome {
            Ok((body, gate)) => {
                let due = FollowUp {
                    gate,
                    ..FollowUp::default()
                };
                let reply = self.defer(due, reply).status(200);
                reply.content_type(JSON).body(&body);
            }
            Err(refusal) => refuse(reply, &refusal),
        }
    }

    fn give_up(
        &mut self,
        id: u32,
        order: RemovalOrder,
    ) -> Result<(Vec<u8>, Option<CommitGate>), Refusal> {
        self.labels.expect_partition(id);
        let given_up = self
            .node
            .give_up(id, order, self.now_ms)
            .map_err(|refusal| kept(id, refusal))?;
        let answer = RemovalAnswer {
            success: true,
            id,
            role: "none",
            deleted: given_up.was_here,
        };
        let gate = given_up.removal.map(|number| CommitGate {
            partition: id,
            wait: Wait::Removed,
            number,
        });
        let body = json_line(&answer);
        Ok((body, gate))
    }

    fn assign(&mut self, body: &AssignmentBody) -> Result<(Vec<u8>, Option<CommitGate>), Refusal> {
        let assignment = assignment_of(body)?;
        if let Some(leader) = &assignment.leader
            && self.node.config().is_own_address(leader)
        {
            let message = format!(
                "leader: {leader} is this node itself: name the node that is to be followed, or \
                 assign the role leader"
            );
            return Err(Refusal::new(400, "own_address", message));
        }
        let (id, role) = (body.id, assignment.role);
        let change = self.node.assign(id, assignment).map_err(refusal_of)?;
        let gate = self.node.settled_wait(id).map(|wait| CommitGate {
            partition: id,
            wait,
            number: change,
        });
        let is_settled = |gate: &CommitGate| match self.node.wait_progress(id, gate.wait) {
            WaitProgress::UpTo(count) => count >= change,
            WaitProgress::Never => false,
        };
        let gate = gate.filter(|gate| !is_settled(gate));
        let partition = self.node.partition(id).ok();
        let obstacle = partition
            .as_ref()
            .and_then(|partition| partition.write_obstacle());
        if let Some(error) = obstacle.filter(|_| gate.is_some()) {
            return Err(storage_failed(error, false));
        }
        let epoch = partition
            .as_ref()
            .map(|partition| partition.roles().meta().epoch)
            .or(body.epoch);
        let state = partition
            .as_ref()
            .is_some_and(|partition| partition.roles().is_taking_over())
            .then_some("catching_up");
        let position = partition.map(|partition| partition.last_token());
        let answer = AssignmentAnswer {
            success: true,
            id,
            role: role.name(),
            epoch,
            version: position.map_or(0, |position| position.version),
            position: position.map(|position| position.to_string()),
            state,
            ignored: body.ignored.clone(),
        };
        let body = json_line(&answer);
        Ok((body, gate))
    }
}

fn body_of(intake: RequestBody) -> Result<AssignmentBody, Refusal> {
    let mut fields = OrderFields::read(
        intake,
        "{\"id\":0,\"role\":\"leader\"}, \
         {\"id\":0,\"role\":\"replica\",\"leader\":\"http://host:port\"} or \
         {\"id\":0,\"role\":\"none\"}",
    )?;
    let role = match fields.text("role")?.as_deref() {
        Some("leader") => AssignedRole::Leader,
        Some("replica") => AssignedRole::Replica,
        Some("none") => AssignedRole::None,
        _ => return Err(fields.wrong("role", "leader, replica or none")),
    };
    Ok(AssignmentBody {
        id: fields.number("id")?,
        role,
        leader: fields.text("leader")?,
        epoch: fields.large_number("epoch")?,
        replicas: fields.texts("replicas")?,
        discard: fields.flag("discard")?.unwrap_or(false),
        ignored: fields.names_left(),
    })
}

fn assignment_of(body: &AssignmentBody) -> Result<Assignment, Refusal> {
    let (role, leader) = match body.role {
        AssignedRole::None => (Role::Unassigned, None),
        AssignedRole::Leader => (Role::Leader, None),
        AssignedRole::Replica => {
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

/// The refusal to give a partition up.
#[cold]
fn kept(id: u32, refusal: RemovalRefusal) -> Refusal {
    match refusal {
        RemovalRefusal::AsAssignment(refusal) => refusal_of(refusal),
        RemovalRefusal::Opening => {
            let message = format!("partition {id} is being made: try again");
            Refusal::new(503, "role_changing", message)
        }
        RemovalRefusal::Kept(RemovalError::Epoch(error)) => {
            refusal_of(AssignRefusal::PartitionMeta(error))
        }
        RemovalRefusal::Kept(RemovalError::EpochMissing { in_force }) => {
            let message = format!(
                "partition {id} is assigned with epochs, and epoch {in_force} is in force: add \
                 ?epoch={in_force}, or the next one"
            );
            Refusal::new(409, "epoch_missing", message)
        }
        RemovalRefusal::Kept(RemovalError::Leads) => {
            let message = format!(
                "this node leads partition {id}, and other nodes follow it: make one of them the \
                 leader first, or add ?epoch= to leave them without one"
            );
            Refusal::new(409, "leads", message)
        }
        RemovalRefusal::Kept(RemovalError::OnlyCopy {
            version,
            held_version,
        }) => {
            let message = format!(
                "no other node is known to hold what this one has of partition {id}: it is at \
                 version {version}, and others up to {held_version}. Let a replica catch up first, \
                 or add ?discard=true to drop the data"
            );
            Refusal::new(409, "only_copy", message)
        }
    }
}

#[cold]
fn refusal_of(refusal: AssignRefusal) -> Refusal {
    match refusal {
        AssignRefusal::Loading(progress) => unavailable(Unavailable::Loading(progress)),
        AssignRefusal::PartitionMeta(AssignError::Outdated { in_force }) => {
            let message = format!("epoch {in_force} is in force: assign with that or a higher one");
            Refusal::new(409, "epoch_outdated", message)
        }
        AssignRefusal::PartitionMeta(AssignError::Taken { epoch, role }) => {
            let role = match role {
                Role::Leader => "the leader",
                Role::Replica => "a replica",
                Role::Unassigned => "unassigned",
            };
            let message =
                format!("this node is {role} in epoch {epoch}: another role needs a higher epoch");
            Refusal::new(409, "epoch_taken", message)
        }
        AssignRefusal::PartitionMeta(AssignError::Leap { max }) => {
            let message = format!(
                "the epoch leaps: it may be {EPOCH_LEAP_MAX} above the one in force at most, which \
                 is {max} here"
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
