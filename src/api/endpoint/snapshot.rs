//! `/snapshot`: streams a backup while writes go on.
//!
//! Memory stays bounded: rendered bytes that are not sent yet (`http/output.rs`), and data that
//! snapshots pin, by the number of backups ([`BACKUP_MAX`]) and the time that each may take (the
//! reactor's deadlines: an answer that is read too slowly is cut off, and lacks its end).

use crate::http::{BodySource, Fill, Head, Refusal, Reply};
use crate::lsm::Snapshot;
use crate::node::{Permit, Subject};
use crate::storage::{CheckpointEncoder, CodecStep, HistoryId, VersionToken};

use crate::api::context::Api;
use crate::api::errors::refuse;

/// Most backups and digests at a time: each pins the data of its moment.
const BACKUP_MAX: usize = 4;

struct Backup {
    encoder: CheckpointEncoder,
    _slot: Permit,
}

impl BodySource for Backup {
    fn fill(&mut self, out: &mut Vec<u8>, budget_bytes: usize) -> Fill {
        match self.encoder.next(budget_bytes, out) {
            CodecStep::More => Fill::More,
            CodecStep::Done => Fill::Done,
        }
    }
}

/// A snapshot of a partition, for an answer about all of its data.
pub(crate) struct FullView {
    pub(crate) snapshot: Snapshot,
    /// That of the snapshot's version.
    pub(crate) token: VersionToken,
    pub(crate) history: HistoryId,
    pub(crate) slot: Permit,
}

impl Api<'_> {
    /// A snapshot of the partition that a request names; refused while there are too many.
    pub(crate) fn full_view(&mut self, head: &Head<'_>) -> Result<FullView, Refusal> {
        let slot = self.node.resources.backups.take(BACKUP_MAX);
        let partition = self.any_partition(head, Subject::Partition)?;
        let Some(slot) = slot else {
            let message =
                format!("{BACKUP_MAX} backups are being read: try again when one is done");
            return Err(Refusal::new(503, "too_many_snapshots", message));
        };
        let snapshot = partition.lsm_mut().snapshot();
        Ok(FullView {
            token: partition.token_of(snapshot.version()),
            history: partition.history(),
            snapshot,
            slot,
        })
    }

    pub(crate) fn answer_snapshot(&mut self, head: &Head<'_>, reply: Reply<'_>) {
        match self.full_view(head) {
            Ok(FullView {
                snapshot,
                token,
                history,
                slot,
            }) => {
                let encoder = CheckpointEncoder::new(snapshot, history);
                let name = format!("attachment; filename=\"db-node-{token}.dbn\"");
                let reply = reply.status(200).content_type("application/octet-stream");
                reply
                    .etag(token.text().as_bytes())
                    .header("Content-Disposition", &name)
                    .source(Box::new(Backup {
                        encoder,
                        _slot: slot,
                    }));
            }
            Err(refusal) => refuse(reply, &refusal),
        }
    }
}
