//! `/partition/move`: copies of a partition that come, go, or move from node to node.
//!
//! Not here: what becomes of such an order (`cluster/moves.rs`).

use crate::cluster::{CopyMove, MoveRefusal};
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
                body += &format!(",\"{field}\":\"{name}\"");
            }
        }
        body += "}\n";
        Ok(Answer {
            status: 202,
            body: body.into_bytes(),
            operation: Some(number),
        })
    }
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
        MoveRefusal::IsMoving(name) => {
            let message = format!(
                "partition {id} is being moved already, away from {name}: wait until GET /cluster \
                 shows no more of it, or cancel that"
            );
            Refusal::new(409, "move_under_way", message)
        }
        MoveRefusal::IsComing(name, other) => {
            let message = format!(
                "the copy of partition {other} on {name} is not in sync yet, and a node takes at \
                 most 1 incoming and 1 outgoing move at a time: wait until it is"
            );
            Refusal::new(409, "move_under_way", message)
        }
        MoveRefusal::IsGoing(name, other) => {
            let message = format!(
                "{name} is giving its copy of partition {other} up, and a node takes at most 1 \
                 incoming and 1 outgoing move at a time: wait until it is gone"
            );
            Refusal::new(409, "move_under_way", message)
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
