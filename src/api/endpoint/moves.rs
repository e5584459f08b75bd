//! `/partition/move`: copies of a partition that come, go, or move from node to node;
//! `/cluster/rebalance`: the moves that even a cluster out; and `/node/drain` for good.
//!
//! Not here: what becomes of such an order (`cluster/moves.rs`).

use crate::cluster::{BalanceMove, CopyMove, ForgetRefusal, MoveRefusal};
use crate::config::COPIES_MAX;
use crate::http::{Method, Refusal};

use crate::api::body::order_body::OrderFields;
use crate::api::body::request_body::RequestBody;
use crate::api::context::Api;

use super::cluster::Answer;

impl Api<'_> {
    /// Begins a move, or cancels it.
    pub(super) fn move_copy(
        &mut self,
        method: Method,
        intake: RequestBody,
    ) -> Result<Answer, Refusal> {
        let mut fields = OrderFields::read(intake, "{\"id\":3,\"from\":\"n1\",\"to\":\"n4\"}")?;
        let id = fields.number("id")?;
        let order = CopyMove {
            partition: id,
            from: fields.text("from")?,
            to: fields.text("to")?,
        };
        fields.end()?;
        if order.from.is_none() && order.to.is_none() {
            let message = "name the node that gives its copy up as \"from\", the node that gets \
                           one as \"to\", or both";
            return Err(Refusal::bad_request(message));
        }
        self.check_in_cluster()?;
        self.labels.expect_partition(id);
        let begun = if method == Method::Delete {
            self.node.cancel_move(&order, self.now_ms)
        } else {
            self.node.begin_move(&order, self.now_ms)
        };
        let number = begun.map_err(|refusal| not_moved(id, refusal))?;
        // Names of nodes need no escapes.
        let mut body = format!("{{\"success\":true,\"id\":{id}");
        for (field, name) in [("from", &order.from), ("to", &order.to)] {
            if let Some(name) = name {
                body.extend([",\"", field, "\":\"", name, "\""]);
            }
        }
        body += "}\n";
        Ok(Answer {
            status: 202,
            body: body.into_bytes(),
            operation: Some(number),
        })
    }

    /// Tells what has to move until all nodes have as much as any other, and begins a part of it.
    pub(super) fn rebalance(&mut self, intake: RequestBody) -> Result<Answer, Refusal> {
        let mut fields =
            OrderFields::read_optional(intake, "{\"dryRun\":true} or {\"dryRun\":false}")?;
        let is_dry_run = fields.flag("dryRun")?;
        fields.end()?;
        let Some(is_dry_run) = is_dry_run else {
            let message = "send {\"dryRun\":true} to see what would move, or {\"dryRun\":false} to \
                           begin it";
            return Err(Refusal::bad_request(message));
        };
        self.check_in_cluster()?;
        let planned = self.node.begin_rebalance(is_dry_run, self.now_ms);
        let planned = planned.map_err(|refusal| not_moved(0, refusal))?;
        let mut body = format!("{{\"success\":true,\"dryRun\":{is_dry_run},\"moves\":[");
        add_moves(&planned.copies, &mut body);
        body += "],\"leaders\":[";
        add_moves(&planned.leaders, &mut body);
        let count = planned.under_way_count.to_string();
        body.extend(["],\"underWay\":", &count, "}\n"]);
        Ok(Answer {
            status: if planned.operation.is_some() {
                202
            } else {
                200
            },
            body: body.into_bytes(),
            operation: planned.operation,
        })
    }

    /// Has the node leave for good.
    pub(super) fn forget_node(&mut self) -> Result<Answer, Refusal> {
        let forgotten = self
            .node
            .begin_forgetting()
            .map_err(|refusal| match refusal {
                ForgetRefusal::Unknown => not_moved(0, MoveRefusal::Unknown),
                ForgetRefusal::Needed(id) => needed(id),
            })?;
        let body = format!(
            "{{\"success\":true,\"moving\":{:?},\"dropping\":{:?}}}\n",
            forgotten.moving, forgotten.dropping
        );
        Ok(Answer {
            status: 202,
            body: body.into_bytes(),
            operation: None,
        })
    }
}

fn add_moves(moves: &[BalanceMove], out: &mut String) {
    for (index, own) in moves.iter().enumerate() {
        let BalanceMove {
            partition,
            from,
            to,
            is_begun,
        } = own;
        *out += if index == 0 { "" } else { "," };
        // Names of nodes need no escapes.
        let told = format!(
            "{{\"id\":{partition},\"from\":\"{from}\",\"to\":\"{to}\",\"begun\":{is_begun}}}"
        );
        *out += &told;
    }
}

#[cold]
fn needed(id: u32) -> Refusal {
    let message = format!(
        "the copy of partition {id} is needed, and no other node can take it: nothing was done; \
         start another node, or wait until more copies are in sync"
    );
    Refusal::new(409, "only_copy", message)
}

#[cold]
pub(super) fn not_moved(id: u32, refusal: MoveRefusal) -> Refusal {
    match refusal {
        MoveRefusal::Unknown => {
            let message = "etcd was not read yet: nothing was done, try again";
            Refusal::new(503, "cluster_unknown", message)
        }
        MoveRefusal::Changing => {
            let message = "this node is changing a configuration: nothing was done, try again";
            Refusal::new(503, "cluster_changing", message)
        }
        MoveRefusal::NoPartition => {
            let message = format!("the cluster has no partition {id}: GET /cluster lists them");
            Refusal::new(404, "partition_not_found", message)
        }
        MoveRefusal::NoNode(name) => {
            let message = format!("no node {name} has registered: GET /cluster lists the nodes");
            Refusal::new(404, "node_not_found", message)
        }
        MoveRefusal::NoCopy(name) => {
            let message = format!("{name} has no copy of partition {id}: GET /cluster shows them");
            Refusal::new(409, "no_copy", message)
        }
        MoveRefusal::HasCopy(name) => {
            let message = format!("{name} has a copy of partition {id} already");
            Refusal::new(409, "has_copy", message)
        }
        MoveRefusal::IsMoving(_)
        | MoveRefusal::IsLeaving(_)
        | MoveRefusal::IsComing(..)
        | MoveRefusal::IsGoing(..) => under_way(id, &refusal),
        MoveRefusal::Unreadable => {
            let message = format!(
                "the configuration of partition {id} in etcd cannot be read: GET /status says more"
            );
            Refusal::new(409, "config_changed", message)
        }
        MoveRefusal::ClusterFull => {
            let message = format!("the cluster has {COPIES_MAX} copies, and cannot have more");
            Refusal::new(409, "too_many_copies", message)
        }
        MoveRefusal::TooMany(count) => {
            let message = format!("partition {id} has {count} copies, and cannot have more");
            Refusal::new(409, "too_many_copies", message)
        }
        MoveRefusal::TooFew(count) => {
            let message = format!(
                "{count} copies of partition {id} would be left, fewer than one or than \
                 --min-in-sync: name the node that gets one instead as \"to\""
            );
            Refusal::new(409, "only_copy", message)
        }
        MoveRefusal::NoMove => {
            let message = format!(
                "there is no such move of partition {id}: it is over, or was never begun; GET \
                 /cluster shows the copies"
            );
            Refusal::new(409, "no_move", message)
        }
    }
}

#[cold]
fn under_way(id: u32, refusal: &MoveRefusal) -> Refusal {
    let limit = "a node takes at most 1 incoming and 1 outgoing move at a time";
    let message = match refusal {
        MoveRefusal::IsLeaving(name) => format!("{name} is leaving for good: name another node"),
        MoveRefusal::IsComing(name, other) => format!(
            "the copy of partition {other} on {name} is not in sync yet, and {limit}: wait until \
             it is"
        ),
        MoveRefusal::IsGoing(name, other) => format!(
            "{name} is giving its copy of partition {other} up, and {limit}: wait until it is gone"
        ),
        _ => format!(
            "partition {id} is being moved already: wait until GET /cluster shows no more of it, \
             or cancel that"
        ),
    };
    Refusal::new(409, "move_under_way", message)
}
