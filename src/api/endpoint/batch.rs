//! `/batch`: several reads and writes as one.
//!
//! Invariants:
//! 1. Every condition is checked, and every refusal made, before the first write. No other request
//!    is executed in between, and the log has all writes of a batch or none.
//! 2. Results are those of the operations in order: a get sees the sets before it. Conditions are
//!    about the state before the batch.
//! 3. The work of one turn is bounded by the limits of the text (`body/batch_body.rs`) and by
//!    [`READ_MAX_BYTES`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::config::show_bytes;
use crate::http::{Begin, BodySource, Fill, Framing, Head, Refusal, Reply, ReplyHead};
use crate::lsm::{KEY_MAX_BYTES, NewValue, Value};
use crate::node::{ClaimKind, Node, Subject};
use crate::partition::Partition;
use crate::storage::VersionToken;

use crate::api::body::batch_body::{BATCH_MAX_BYTES, BatchAction, BatchOperation, about_operation};
use crate::api::body::json_value::{JsonValueSource, render_value};
use crate::api::body::kv_fields::KvLimits;
use crate::api::body::ready_value::ReadyValue;
use crate::api::body::request_body::{RequestBody, claim_refused};
use crate::api::cluster_refusals::many_partitions;
use crate::api::confirmation::{
    WriteDemand, check_read, check_replicas, follow_up_of_read, follow_up_of_shown,
};
use crate::api::context::Api;
use crate::api::endpoint::kv::{condition_failed, declared_bytes};
use crate::api::errors::refuse;
use crate::api::request::positions::add_version;
use crate::api::request::values::JSON;

/// Most bytes of values that the gets of one batch return. Large values do not count, since they
/// are not copied.
const READ_MAX_BYTES: usize = 1024 * 1024;

/// The answer as a sequence of text and large values.
#[derive(Debug, Default)]
struct Results {
    pieces: VecDeque<Piece>,
    read_bytes: usize,
}

#[derive(Debug)]
enum Piece {
    Text(Vec<u8>),
    Large(JsonValueSource),
}

impl Results {
    /// The last piece of text; begins one where a large value is last.
    fn text(&mut self) -> &mut Vec<u8> {
        if !matches!(self.pieces.back(), Some(Piece::Text(_))) {
            self.pieces.push_back(Piece::Text(Vec::new()));
        }
        match self.pieces.back_mut() {
            Some(Piece::Text(text)) => text,
            _ => unreachable!("a text was just put there"),
        }
    }

    fn add_value(&mut self, value: Value<'_>, token: VersionToken) -> Result<(), Refusal> {
        match value {
            Value::Inline(bytes) => {
                self.read_bytes += bytes.len();
                if self.read_bytes > READ_MAX_BYTES {
                    let read_max = show_bytes(READ_MAX_BYTES as u64);
                    let message =
                        format!("the gets of a batch read more than {read_max}: send several");
                    return Err(Refusal::new(413, "batch_too_large", message));
                }
                render_value(self.text(), bytes, &token.text());
            }
            Value::Large(blob) => {
                self.pieces
                    .push_back(Piece::Large(JsonValueSource::part(Arc::clone(blob), token)));
            }
            Value::Tombstone => self
                .text()
                .extend_from_slice(b"{\"success\":false,\"error\":\"key not found\"}"),
        }
        Ok(())
    }
}

impl Results {
    /// Sends them: at once if they are one text, else piece by piece.
    fn send(mut self, reply: ReplyHead<'_>) {
        match self.pieces.pop_front() {
            Some(Piece::Text(text)) if self.pieces.is_empty() => reply.body(&text),
            first => {
                self.pieces.extend(first);
                self.pieces.rotate_right(1);
                reply.source(Box::new(self));
            }
        }
    }
}

impl BodySource for Results {
    fn fill(&mut self, out: &mut Vec<u8>, budget_bytes: usize) -> Fill {
        let fill = match self.pieces.front_mut() {
            Some(Piece::Text(text)) => {
                out.extend_from_slice(text);
                Fill::Done
            }
            Some(Piece::Large(source)) => source.fill(out, budget_bytes),
            None => Fill::Done,
        };
        if fill == Fill::Done {
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() {
            Fill::Done
        } else {
            Fill::More
        }
    }
}

/// The state of a key after the operations so far.
#[derive(Clone, Copy, Debug)]
enum KeyState<'o> {
    Deleted,
    Set { value: &'o ReadyValue, version: u64 },
}

/// The answer of the operations, and for each whether it writes. Nothing is written here.
fn results_of(
    partition: &Partition,
    operations: &[BatchOperation],
) -> Result<(Results, Vec<bool>), Refusal> {
    check_conditions(partition, operations)?;
    let (mut results, mut writes) = (Results::default(), Vec::with_capacity(operations.len()));
    let mut changed: BTreeMap<&[u8], KeyState<'_>> = BTreeMap::new();
    let mut version = partition.lsm().last_version();
    results
        .text()
        .extend_from_slice(b"{\"success\":true,\"results\":[");
    for (index, BatchOperation { key, action, .. }) in operations.iter().enumerate() {
        if index > 0 {
            results.text().push(b',');
        }
        let now = changed.get(&key[..]).copied();
        let writes_it = match action {
            BatchAction::Set { value, .. } => {
                version += 1;
                changed.insert(key, KeyState::Set { value, version });
                add_written(results.text(), b"", partition.token_of(version));
                true
            }
            BatchAction::Delete => {
                let exists = match now {
                    Some(KeyState::Set { .. }) => true,
                    Some(KeyState::Deleted) => false,
                    None => partition.get(key).is_some(),
                };
                version += u64::from(exists);
                changed.insert(key, KeyState::Deleted);
                if exists {
                    let token = partition.token_of(version);
                    add_written(results.text(), b"\"deleted\":true,", token);
                } else {
                    let text = results.text();
                    text.extend_from_slice(b"{\"success\":true,\"deleted\":false}");
                }
                exists
            }
            BatchAction::Get => {
                let (value, version) = match now {
                    Some(KeyState::Set { value, version }) => (value.as_value(), version),
                    Some(KeyState::Deleted) => (Value::Tombstone, 0),
                    None => partition
                        .get(key)
                        .map_or((Value::Tombstone, 0), |entry| (entry.value, entry.version)),
                };
                results
                    .add_value(value, partition.token_of(version))
                    .map_err(|refusal| about_operation(index, refusal))?;
                false
            }
        };
        writes.push(writes_it);
    }
    results.text().extend_from_slice(b"]}\n");
    Ok((results, writes))
}

/// What a batch is about: a key of it, since all belong to one partition, or the batch is refused.
fn subject_of<'o>(node: &Node, operations: &'o [BatchOperation]) -> Result<Subject<'o>, Refusal> {
    let Some(BatchOperation { key: first, .. }) = operations.first() else {
        return Ok(Subject::Partition);
    };
    if let Some(id) = node.partition_of_key(first) {
        let others = operations
            .iter()
            .map(|operation| node.partition_of_key(&operation.key));
        for (index, other) in others.enumerate() {
            if let Some(other) = other.filter(|other| *other != id) {
                return Err(many_partitions(index, [id, other]));
            }
        }
    }
    Ok(Subject::Key(first))
}

fn check_conditions(partition: &Partition, operations: &[BatchOperation]) -> Result<(), Refusal> {
    for (index, operation) in operations.iter().enumerate() {
        let checked = partition.check(&operation.key, &operation.conditions);
        checked.map_err(|failed| about_operation(index, condition_failed(failed)))?;
    }
    Ok(())
}

/// Adds the result of a write: `{"success":true,`, more fields, and the new version.
fn add_written(text: &mut Vec<u8>, fields: &[u8], token: VersionToken) {
    text.extend_from_slice(b"{\"success\":true,");
    text.extend_from_slice(fields);
    add_version(text, &token.text());
    text.push(b'}');
}

impl Api<'_> {
    pub(crate) fn begin_batch(&mut self, head: &Head<'_>, reply: Reply<'_>) -> Begin<RequestBody> {
        let demand = self.write_demand(head);
        // Where keys are spread over partitions, nothing can be said before the keys are there.
        let partition = if self.node.spreads_keys() {
            Ok(())
        } else {
            self.partition(head, Subject::Key(b"")).map(drop)
        };
        let outcome = partition
            .and(demand)
            .and_then(|_| match head.framing {
                Framing::Length(length) if length > BATCH_MAX_BYTES as u64 => {
                    Err(crate::api::body::batch_body::too_large())
                }
                Framing::None => Err(crate::api::body::batch_body::malformed()),
                _ => Ok(declared_bytes(head, BATCH_MAX_BYTES)),
            })
            .and_then(|bytes| {
                let claim = self.node.resources.bodies.claim(bytes, ClaimKind::Any);
                claim.map_err(claim_refused)
            });
        match outcome {
            Ok(claim) => {
                let value_bytes = self.node.config().max_value_bytes;
                let intake = RequestBody::batch(KvLimits {
                    key_bytes: KEY_MAX_BYTES,
                    value_bytes,
                });
                Begin::Receive(intake.claiming(claim))
            }
            Err(refusal) => {
                refuse(reply, &refusal);
                Begin::Answered
            }
        }
    }

    pub(crate) fn finish_batch(&mut self, head: &Head<'_>, intake: RequestBody, reply: Reply<'_>) {
        let operations = intake.into_operations();
        let outcome = self.write_demand(head).and_then(|demand| {
            let is_read_only = operations
                .iter()
                .all(|operation| matches!(operation.action, BatchAction::Get));
            let (read_demand, now_ms) = (self.read_demand(head)?, self.now_ms);
            let subject = subject_of(self.node, &operations)?;
            if is_read_only {
                let partition = self.readable_partition(head, subject)?;
                let read_acks = read_demand.acks_in(partition);
                check_read(partition, read_acks, now_ms)?;
                let (results, _) = results_of(partition, &operations)?;
                return Ok((results, follow_up_of_read(partition, read_acks, None), None));
            }
            let adds = operations
                .iter()
                .any(|operation| matches!(operation.action, BatchAction::Set { .. }));
            self.writable_partition(head, subject)?;
            self.readable_partition(head, subject)?;
            let partition = if adds {
                self.growable_partition(head, subject)?
            } else {
                self.writable_partition(head, subject)?
            };
            check_replicas(partition, demand.acks, now_ms)?;
            let reads = |operation: &BatchOperation| matches!(operation.action, BatchAction::Get);
            let read_acks = read_demand.acks_in(partition);
            let read_acks = read_acks.filter(|_| operations.iter().any(reads));
            check_read(partition, read_acks, now_ms)?;
            // What the batch reads was written before what it writes: its last write covers both.
            let demand = WriteDemand {
                acks: demand.acks.max(read_acks.unwrap_or(0)),
                is_waived: demand.is_waived && read_acks.is_none(),
            };
            let (results, writes) = results_of(partition, &operations)?;
            let incurred = partition.lsm().incurred_work();
            write(partition, &operations, &writes);
            if writes.contains(&true) {
                let due = Self::follow_up_of_write(partition, demand, incurred);
                return Ok((results, due, Some(partition.last_token())));
            }
            // It shows that what was to be deleted is not there.
            let due = match read_acks {
                Some(_) => follow_up_of_read(partition, read_acks, None),
                None => follow_up_of_shown(partition, None),
            };
            Ok((results, due, None))
        });
        match outcome {
            Ok((results, due, written)) => {
                let reply = self.defer(due, reply).status(200);
                let reply = match written {
                    Some(token) => reply.etag(token.text().as_bytes()),
                    None => reply,
                };
                results.send(reply.content_type(JSON));
            }
            Err(refusal) => self.refuse_write(&refusal, reply),
        }
    }
}

/// Makes the writes of the operations that have any.
fn write(partition: &mut Partition, operations: &[BatchOperation], writes: &[bool]) {
    let writing = operations
        .iter()
        .zip(writes)
        .filter(|(_, writes)| **writes)
        .map(|(operation, _)| operation);
    partition.write_batch(
        writing.map(|BatchOperation { key, action, .. }| match action {
            BatchAction::Set { value, ttl_ms } => (&key[..], value.as_new_value(), *ttl_ms),
            BatchAction::Delete | BatchAction::Get => (&key[..], NewValue::Tombstone, None),
        }),
    );
}
