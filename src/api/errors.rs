//! Refusals that several endpoints share, and the answer to a refused request.

use crate::cluster::OperationEnd;
use crate::http::{NotLeaderStatus, Refusal, Reply};
use crate::node::Unavailable;
use crate::partition::Wait;
use crate::storage::StorageError;

#[cold]
pub(crate) fn unavailable(reason: Unavailable) -> Refusal {
    match reason {
        Unavailable::Unknown(id) => {
            let message =
                format!("partition {id} is not on this node: GET /health lists those that are");
            Refusal::new(404, "partition_not_found", message)
        }
        Unavailable::Unassigned
        | Unavailable::NoCopy(_)
        | Unavailable::Wrong(_)
        | Unavailable::UnnamedOf(_)
        | Unavailable::Unread => unassigned(),
        Unavailable::Unnamed => {
            let message = "this node has several partitions: name one by X-Partition-ID";
            Refusal::new(404, "partition_not_found", message)
        }
        Unavailable::Loading(progress) => {
            let message = format!("the node is loading its data ({progress}): try again");
            Refusal::new(503, "loading", message)
        }
    }
}

/// The answer on a connection above the limit.
#[cold]
pub fn too_many_connections() -> Refusal {
    let message =
        "too many connections: close some, or start the node with a higher --max-connections";
    Refusal::new(503, "too_many_connections", message)
}

#[cold]
pub(crate) fn unassigned() -> Refusal {
    Refusal::new(
        503,
        "unassigned",
        "this node waits for a controller to give it a role: POST /partition/assign",
    )
}

#[cold]
pub(crate) fn changing() -> Refusal {
    Refusal::new(
        503,
        "role_changing",
        "the role of this node is changing: try again",
    )
}

#[cold]
pub(crate) fn memory_limit() -> Refusal {
    let message = "more memory is in use than --max-memory allows: delete something, or wait until \
                   merging has freed some";
    Refusal::new(507, "memory_limit", message)
}

/// A leader that is still fetching what its peers hold takes no writes.
#[cold]
pub(crate) fn taking_over() -> Refusal {
    let message = "this node is to lead, and is still catching up with the other nodes: nothing \
                   was done, try again";
    Refusal::new(503, "catching_up", message)
}

/// Only the leader takes writes.
#[cold]
pub(crate) fn not_leader(leader: Option<&str>) -> Refusal {
    let refusal = |message: String| Refusal::new(421, "not_leader", message);
    match leader {
        Some(leader) => refusal(format!(
            "this node is a replica: send writes to its leader, {leader}"
        ))
        .with_header("X-Leader", leader),
        None => refusal(
            "this node leads no more, and has not heard who does: ask the controller".to_owned(),
        ),
    }
}

/// The answer to a write that was waiting for the disk when the disk failed or was full. In a
/// cluster every 503 says that nothing was done, and this one may have been.
#[cold]
pub fn storage_failed(error: &StorageError, is_in_cluster: bool) -> Refusal {
    let refusal = storage_refusal(error, "This one is not confirmed: it may be there later");
    if is_in_cluster {
        return Refusal::new(504, refusal.code, refusal.message.clone());
    }
    refusal
}

/// The answer to a write that comes while the disk has failed or is full.
#[cold]
pub(crate) fn storage_refused(error: &StorageError) -> Refusal {
    storage_refusal(error, "Nothing was done")
}

pub(crate) fn storage_refusal(error: &StorageError, outcome: &str) -> Refusal {
    if error.is_passing() {
        let message =
            format!("writes wait, and go on by themselves once they can: {error}. {outcome}");
        return Refusal::new(503, "storage_stalled", message);
    }
    let message = format!("writes are off until the node is restarted: {error}. {outcome}");
    Refusal::new(503, "storage_failed", message)
}

/// Answers with a refusal, and with the header that its status requires.
#[cold]
pub(crate) fn refuse(reply: Reply<'_>, refusal: &Refusal) {
    let is_for_proxy =
        refusal.code == "not_leader" && reply.not_leader() == NotLeaderStatus::Unavailable;
    match (refusal.status, &refusal.headers[..]) {
        (401, []) => reply
            .status(401)
            .header("WWW-Authenticate", "Bearer")
            .error(refusal),
        (503, []) => reply.status(503).header("Retry-After", "1").error(refusal),
        (421, headers) if is_for_proxy => {
            let mut reply = reply.status(503).header("Retry-After", "1");
            for (name, value) in headers {
                reply = reply.header(name, value);
            }
            reply.error(refusal);
        }
        _ => reply.error(refusal),
    }
}

/// The answer in place of deferred replies that can no longer be sent, by what they waited for.
/// `is_read`: all of them are to reads.
#[cold]
pub fn deferred_failed(wait: Wait, is_read: bool) -> Refusal {
    match wait {
        Wait::Disk { .. } | Wait::Acks { .. } => role_changed(),
        Wait::Read { .. } if !is_read => role_changed(),
        Wait::Read { .. } => {
            let message = "this node leads no more: what was read may be out of date; read it from \
                           the new leader";
            Refusal::new(503, "role_changing", message)
        }
        Wait::Settled { .. } | Wait::Removed => {
            let message = "the partition was given up before this was done: ask for its state, and \
                           order again";
            Refusal::new(409, "superseded", message)
        }
        Wait::Operation { .. } => operation_failed(None),
    }
}

/// The answer to an operation of the cluster that was not done, or that may have been.
#[cold]
pub fn operation_failed(end: Option<OperationEnd>) -> Refusal {
    match end {
        Some(OperationEnd::TooSlow) => {
            let message = "the other node did not have everything in time: this node goes on; try \
                           again when fewer writes come, or with another node";
            Refusal::new(504, "handover_timeout", message)
        }
        Some(OperationEnd::Unseen) => {
            let message = "the other node is named as the leader, and was not heard as the leader \
                           in time: GET /cluster shows what it does";
            Refusal::new(504, "takeover_timeout", message)
        }
        Some(OperationEnd::Changed) => {
            let message = "the configuration in etcd has changed meanwhile: look at GET /cluster, \
                           and try again";
            Refusal::new(409, "config_changed", message)
        }
        Some(OperationEnd::Exists) => {
            let message = "the cluster has been made already: GET /cluster shows it";
            Refusal::new(409, "exists", message)
        }
        Some(OperationEnd::Done | OperationEnd::Unknown) | None => {
            let message = "etcd has not answered in time: whether this is done, or will be, is not \
                           known; GET /cluster shows it";
            Refusal::new(504, "etcd_timeout", message)
        }
    }
}

/// The answer to a write that was waiting when the node stopped being the leader.
#[cold]
fn role_changed() -> Refusal {
    let message = "applied here, but this node leads no more: whether the write lasts is not \
                   known; read it from the new leader";
    Refusal::new(504, "role_changed", message)
}

/// The answer to a write that too few replicas confirmed in time.
#[cold]
pub fn acks_timeout(timeout_ms: u64) -> Refusal {
    let message = format!(
        "applied here, and not confirmed by enough replicas within {timeout_ms} ms: it may last or \
         be lost if this node fails; GET /status shows the replicas"
    );
    Refusal::new(504, "acks_timeout", message)
}

/// The answer to a read of data that too few replicas confirmed in time.
#[cold]
pub fn unconfirmed(timeout_ms: u64) -> Refusal {
    let message = format!(
        "what this read would show was not confirmed by enough replicas within {timeout_ms} ms: \
         try again, or read with ?consistency=local; GET /status shows the replicas"
    );
    Refusal::new(503, "unconfirmed", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy may send a request again after a 503: then nothing was done.
    #[test]
    fn in_a_cluster_an_unknown_outcome_is_no_503() {
        let (count, generation) = (0, 1);
        let wait = Wait::Read { count, generation };
        assert_eq!(deferred_failed(wait, true).status, 503);
        assert_eq!(deferred_failed(wait, false).code, "role_changed");
        for wait in [
            Wait::Disk { generation },
            Wait::Acks { count, generation },
            wait,
        ] {
            assert_eq!(deferred_failed(wait, false).status, 504);
        }
        let error = StorageError::Unusable("it broke".to_owned());
        let statuses = [false, true].map(|is_in_cluster| storage_failed(&error, is_in_cluster));
        assert_eq!(statuses.map(|refusal| refusal.status), [503, 504]);
        assert_eq!(storage_refused(&error).status, 503);
    }
}
