//! Orders to a node of a cluster: `/cluster/init`, `/partition/handover`, `/partition/recover`,
//! `/node/drain`.
//!
//! Not here: copies that move, with `/cluster/rebalance` and `{"forget":true}` (`moves.rs`), what
//! becomes of orders (`cluster/operations.rs`), the refusals of those that were begun
//! (`api/errors.rs`).

use serde::Serialize;
use serde_json::Value;

use crate::cluster::{HandoverRefusal, InitRefusal, RecoveryRefusal};
use crate::config::{ClusterInit, PARTITION_MAX, REPLICA_MAX, WhenAllLost};
use crate::http::{Method, Refusal, Reply, json_line};
use crate::partition::Wait;

use crate::api::body::order_body::OrderFields;
use crate::api::body::request_body::RequestBody;
use crate::api::cluster_refusals::led_by;
use crate::api::context::{Api, absent};
use crate::api::effects::{CommitGate, FollowUp};
use crate::api::errors::refuse;
use crate::api::request::route::Route;
use crate::api::request::values::JSON;

/// A count, which JSON may write as `9.0`; 0, which no count may be, for what is none.
fn count_in(value: &Value) -> u32 {
    let value = value.as_f64().unwrap_or(0.0);
    let is_it = |count: &u32| (f64::from(*count) - value).abs() < f64::EPSILON;
    (1..=PARTITION_MAX).find(is_it).unwrap_or(0)
}

#[derive(Serialize)]
struct InitAnswer {
    success: bool,
    partitions: Vec<PlacedPartition>,
}

#[derive(Serialize)]
struct PlacedPartition {
    id: u32,
    leader: String,
    replicas: Vec<String>,
}

#[derive(Serialize)]
struct HandoverAnswer<'a> {
    success: bool,
    id: u32,
    leader: &'a str,
}

#[derive(Serialize)]
struct RecoveryAnswer<'a> {
    success: bool,
    id: u32,
    leader: &'a str,
    epoch: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DrainAnswer {
    success: bool,
    /// Partitions that other nodes are to lead.
    handing_over: Vec<u32>,
    /// Partitions of which no other copy is in sync: they stop with the node.
    staying: Vec<u32>,
}

/// An answer, and the operation that it waits for.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) operation: Option<u64>,
}

impl Api<'_> {
    pub(crate) fn finish_cluster_order(
        &mut self,
        (route, method): (Route, Method),
        intake: RequestBody,
        reply: Reply<'_>,
    ) {
        let answer = match route {
            Route::Init => self.init_cluster(intake),
            Route::Handover => self.hand_over(intake),
            Route::Recover => self.recover(intake),
            Route::Move => self.move_copy(method, intake),
            Route::Rebalance => self.rebalance(intake),
            _ => self.drain_node(intake),
        };
        match answer {
            Ok(answer) => {
                let gate = answer.operation.map(|number| CommitGate {
                    partition: 0,
                    wait: Wait::Operation { number },
                    number,
                });
                let due = FollowUp {
                    gate,
                    ..FollowUp::default()
                };
                let reply = self.defer(due, reply).status(answer.status);
                reply.content_type(JSON).body(&answer.body);
            }
            Err(refusal) => refuse(reply, &refusal),
        }
    }

    fn init_cluster(&mut self, intake: RequestBody) -> Result<Answer, Refusal> {
        let form = "{\"partitions\":16,\"replicas\":3} or {\"adopt\":\"n1\"}";
        let mut fields = OrderFields::read(intake, form)?;
        let counts = ["partitions", "replicas"].map(|name| fields.value(name));
        // The node of which partition 0 goes on with its data, as the only one.
        let adopt = fields.text("adopt")?;
        let when_all_lost = fields.text("whenAllLost")?;
        fields.end()?;
        let is_adoption = adopt.is_some();
        let default = if is_adoption { 1 } else { 16 };
        let shape = ClusterInit {
            partitions: counts[0].as_ref().map_or(default, count_in),
            replicas: counts[1].as_ref().map_or(3, count_in),
            when_all_lost: match when_all_lost.as_deref() {
                Some(name) => WhenAllLost::parse(name).ok_or_else(|| {
                    Refusal::bad_request("whenAllLost may be \"wait\" or \"start\"")
                })?,
                None => WhenAllLost::Wait,
            },
        };
        if !(1..=PARTITION_MAX).contains(&shape.partitions)
            || !(1..=REPLICA_MAX).contains(&shape.replicas)
        {
            return Err(Refusal::bad_request(format!(
                "partitions may be 1 to {PARTITION_MAX}, and replicas 1 to {REPLICA_MAX}"
            )));
        }
        let too_many = |message: String| Refusal::new(409, "too_many_copies", message);
        shape.check_copies().map_err(too_many)?;
        self.check_in_cluster()?;
        if is_adoption && shape.partitions != 1 {
            let message = "a node's data is adopted as one partition: leave partitions out";
            return Err(Refusal::bad_request(message));
        }
        let begun = if let Some(node) = &adopt {
            self.node.begin_adoption(node, shape, self.now_ms)
        } else {
            self.node.begin_init(shape, self.now_ms)
        };
        let (number, made) = begun.map_err(|refusal| not_made(shape.replicas, &refusal))?;
        let placed = made.into_iter().map(|(id, config)| PlacedPartition {
            id,
            leader: config.leader,
            replicas: config.replicas,
        });
        let answer = InitAnswer {
            success: true,
            partitions: placed.collect(),
        };
        Ok(Answer {
            status: 201,
            body: json_line(&answer),
            operation: Some(number),
        })
    }

    fn hand_over(&mut self, intake: RequestBody) -> Result<Answer, Refusal> {
        let form = "{\"id\":0} or {\"id\":0,\"to\":\"n2\"}";
        let mut fields = OrderFields::read(intake, form)?;
        let (id, to) = (fields.number("id")?, fields.text("to")?);
        fields.end()?;
        self.check_in_cluster()?;
        self.labels.expect_partition(id);
        let found = self.node.partition(id).map(drop);
        found.map_err(|reason| absent(reason, self.node))?;
        let begun = self.node.begin_handover(id, to.as_deref(), self.now_ms);
        let (number, to) = begun.map_err(|refusal| not_begun(id, to.as_deref(), refusal))?;
        let answer = HandoverAnswer {
            success: true,
            id,
            leader: &to,
        };
        Ok(Answer {
            status: 200,
            body: json_line(&answer),
            operation: Some(number),
        })
    }

    fn recover(&mut self, intake: RequestBody) -> Result<Answer, Refusal> {
        let form = "{\"id\":0,\"node\":\"n2\",\"acceptDataLoss\":true}";
        let mut fields = OrderFields::read(intake, form)?;
        let (id, node) = (fields.number("id")?, fields.text("node")?);
        let node = &node.ok_or_else(|| fields.wrong("node", "a text"))?[..];
        let accepts_loss = fields.flag("acceptDataLoss")?.unwrap_or(false);
        fields.end()?;
        if !accepts_loss {
            let message = format!(
                "this makes {node} lead with what it has, and writes that it lacks are lost: make \
                 sure that the old leader is down, and send \"acceptDataLoss\":true"
            );
            return Err(Refusal::bad_request(message));
        }
        self.check_in_cluster()?;
        self.labels.expect_partition(id);
        let begun = self.node.begin_recovery(id, node, self.now_ms);
        let (number, config) = begun.map_err(|refusal| not_recovered(id, node, refusal))?;
        let answer = RecoveryAnswer {
            success: true,
            id,
            leader: node,
            epoch: config.epoch,
        };
        Ok(Answer {
            status: 200,
            body: json_line(&answer),
            operation: Some(number),
        })
    }

    fn drain_node(&mut self, intake: RequestBody) -> Result<Answer, Refusal> {
        let mut fields = OrderFields::read_optional(intake, "{\"forget\":true}, or no body")?;
        let is_forgotten = fields.flag("forget")?.unwrap_or(false);
        fields.end()?;
        self.check_in_cluster()?;
        if is_forgotten {
            return self.forget_node();
        }
        let leaving = self.node.begin_leaving();
        let answer = DrainAnswer {
            success: true,
            handing_over: leaving.handing_over,
            staying: leaving.staying,
        };
        Ok(Answer {
            status: 202,
            body: json_line(&answer),
            operation: None,
        })
    }

    pub(super) fn check_in_cluster(&self) -> Result<(), Refusal> {
        match self.node.cluster() {
            Some(_) => Ok(()),
            None => Err(no_cluster()),
        }
    }
}

#[cold]
pub(crate) fn no_cluster() -> Refusal {
    let message = "this node is not one of a cluster: start it with --etcd";
    Refusal::new(409, "no_cluster", message)
}

#[cold]
fn not_made(replicas: u32, refusal: &InitRefusal) -> Refusal {
    match refusal {
        InitRefusal::Unknown => {
            let message = "etcd was not read yet: nothing was done, try again";
            Refusal::new(503, "cluster_unknown", message)
        }
        InitRefusal::Exists => {
            let message = "the cluster has been made already: GET /cluster shows it";
            Refusal::new(409, "exists", message)
        }
        InitRefusal::TooFewNodes(count) => Refusal::new(
            409,
            "too_few_nodes",
            format!(
                "{replicas} copies need as many nodes, and {count} have registered: start more"
            ),
        ),
        InitRefusal::OtherShape(count) => Refusal::new(
            409,
            "exists",
            format!("a cluster of at least {count} partitions was begun: name as many"),
        ),
        InitRefusal::HasData(node) => Refusal::new(
            409,
            "has_data",
            format!(
                "{node} has data, which a new cluster would drop: send {{\"adopt\":\"{node}\"}} \
                 to it, or start it without its data"
            ),
        ),
        InitRefusal::NotHere(url) => {
            let place = url.as_deref().unwrap_or("it");
            let message = format!("only the node that has the data can do that: ask {place}");
            let refusal = Refusal::new(421, "not_leader", message);
            match url {
                Some(url) => refusal.with_header("X-Leader", url),
                None => refusal,
            }
        }
        InitRefusal::NothingToAdopt => {
            let message = "there is no partition 0 on this node: send {\"partitions\":16}";
            Refusal::new(409, "no_copy", message)
        }
    }
}

#[cold]
fn not_recovered(id: u32, node: &str, refusal: RecoveryRefusal) -> Refusal {
    match refusal {
        RecoveryRefusal::Unknown => {
            let message = "etcd was not read yet: nothing was done, try again";
            Refusal::new(503, "cluster_unknown", message)
        }
        RecoveryRefusal::NoPartition => {
            let message = format!("the cluster has no partition {id}: GET /cluster lists them");
            Refusal::new(404, "partition_not_found", message)
        }
        RecoveryRefusal::NoCopy => {
            let message = format!(
                "{node} has registered no copy of partition {id}: start it, or ask it itself; GET \
                 /cluster lists the nodes"
            );
            Refusal::new(409, "no_copy", message)
        }
    }
}

#[cold]
fn not_begun(id: u32, to: Option<&str>, refusal: HandoverRefusal) -> Refusal {
    match refusal {
        HandoverRefusal::NotLeader(url) => led_by(id, url.as_deref()),
        HandoverRefusal::UnderWay => {
            let message = format!("partition {id} is being handed over already");
            Refusal::new(503, "handing_over", message)
        }
        HandoverRefusal::NotInSync(others) => {
            let what = match to {
                Some(to) => format!("the copy of {to} is not in sync"),
                None => "no other copy can take over now".to_owned(),
            };
            let message = match &others[..] {
                [] => format!("{what}: wait until one is in sync; GET /cluster shows it"),
                others => format!("{what}: in sync are {}", others.join(", ")),
            };
            Refusal::new(409, "not_in_sync", message)
        }
    }
}
