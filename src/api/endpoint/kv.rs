//! `/set`, `/get`, `/delete` and `/kv/{key}`.

use std::borrow::Cow;
use std::sync::Arc;

use crate::http::{Begin, Framing, Head, Method, Refusal, Reply, ReplyHead, Target};
use crate::lsm::{Entry, INLINE_VALUE_MAX_BYTES, KEY_MAX_BYTES, NewValue, Value};
use crate::node::{ClaimKind, Subject};
use crate::partition::{ConditionFailed, Conditions, Partition};
use crate::storage::{TokenText, VersionToken};

use crate::api::body::json_plain::plain_fields;
use crate::api::body::json_value::{JsonValueSource, render_value};
use crate::api::body::kv_fields::{AllowedFields, KvLimits, value_too_large};
use crate::api::body::ready_value::ReadyValue;
use crate::api::body::request_body::{RequestBody, claim_refused};
use crate::api::confirmation::{
    WriteDemand, check_read, check_replicas, follow_up_of_read, follow_up_of_shown,
};
use crate::api::context::Api;
use crate::api::errors::refuse;
use crate::api::request::accept::preferred;
use crate::api::request::conditions::conditions_of;
use crate::api::request::params::Param;
use crate::api::request::positions::{add_written, check_min_version};
use crate::api::request::query::{Query, check_key, decode_path_key};
use crate::api::request::route::Route;
use crate::api::request::ttl::{remaining, ttl_of};
use crate::api::request::values::JSON;

const RAW: &str = "application/octet-stream";

const JSON_LINE: &str = "Content-Type: application/json\r\n";

/// Header lines that go with a value. `Accept-Ranges: none`, since values are only sent whole.
const JSON_LINES: &str = "Content-Type: application/json\r\nAccept-Ranges: none\r\n";
const RAW_LINES: &str = "Content-Type: application/octet-stream\r\nAccept-Ranges: none\r\n";

/// Bodies of answers to a delete.
const DELETED: &[u8] = b"{\"success\":true,\"deleted\":true}\n";
const NOT_DELETED: &[u8] = b"{\"success\":true,\"deleted\":false}\n";

/// What a key-value request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KvAction {
    Get(KvForm),
    Set,
    /// `PUT /kv/{key}`: answers 201 or 200, by whether the key existed.
    Put,
    Delete(KvForm),
}

/// What a set stores: the value, and the time to live if the body names one.
struct EntryToSet<'v> {
    value: NewValue<'v>,
    ttl_ms: Option<u64>,
}

/// A key, and the value if the request has one.
type KeyAndValue<'b> = (Cow<'b, [u8]>, Option<&'b [u8]>);

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KvForm {
    Json,
    Raw,
    /// Raw because Accept asks for it: the path has two forms, so the entity tag is weak.
    RawByChoice,
}

impl KvAction {
    #[inline]
    fn of(route: Route, head: &Head<'_>) -> Result<Self, Refusal> {
        Ok(match (route, head.method) {
            (Route::Set, _) => Self::Set,
            (Route::Key, Method::Put) => Self::Put,
            (Route::Key, Method::Delete) => Self::Delete(KvForm::Raw),
            (Route::Key, _) => Self::Get(KvForm::Raw),
            (Route::Delete, _) => Self::Delete(KvForm::Json),
            _ => match preferred(head.accept, &[JSON, RAW])? {
                RAW => Self::Get(KvForm::RawByChoice),
                _ => Self::Get(KvForm::Json),
            },
        })
    }

    fn has_value(self) -> bool {
        matches!(self, Self::Set | Self::Put)
    }
}

/// The declared length of a body, at most `max_bytes`; 0 where none is declared.
pub(crate) fn declared_bytes(head: &Head<'_>, max_bytes: usize) -> usize {
    match head.framing {
        Framing::Length(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX).min(max_bytes),
        Framing::None | Framing::Chunked => 0,
    }
}

/// The key in the path or in `?key=`; none if there is neither.
#[inline]
pub(crate) fn key_of_target(
    route: Route,
    target: Target<'_>,
) -> Result<Option<Cow<'_, [u8]>>, Refusal> {
    let key = match route {
        Route::Key => Some(decode_path_key(
            Route::raw_key(target.path),
            target.is_literal,
        )?),
        _ if target.query.is_some() => Query::new(target).get(Param::Key)?,
        _ => None,
    };
    if let Some(key) = &key {
        check_key(key)?;
    }
    Ok(key)
}

impl Api<'_> {
    /// Answers a request that needs no body, or has it already; else returns what collects it.
    #[inline]
    pub(crate) fn begin_kv(
        &mut self,
        route: Route,
        head: &Head<'_>,
        body: Option<&[u8]>,
        reply: Reply<'_>,
    ) -> Begin<RequestBody> {
        let action = match KvAction::of(route, head) {
            Ok(action) => action,
            Err(refusal) => {
                refuse(reply, &refusal);
                return Begin::Answered;
            }
        };
        let outcome = key_of_target(route, head.target())
            .and_then(|key| self.arrived(action, key, head, body));
        match outcome {
            Ok(Ok((key, value))) => {
                let entry = EntryToSet {
                    value: NewValue::Inline(value.unwrap_or_default()),
                    ttl_ms: None,
                };
                self.act(action, head, &key, entry, reply);
                Begin::Answered
            }
            Ok(Err(intake)) => Begin::Receive(intake),
            Err(refusal) => {
                self.refuse_write(&refusal, reply);
                Begin::Answered
            }
        }
    }

    /// The key and the value of a request, if both have arrived; else what collects the body.
    #[inline(always)] // its result is not moved then
    fn arrived<'b>(
        &mut self,
        action: KvAction,
        key: Option<Cow<'b, [u8]>>,
        head: &Head<'_>,
        body: Option<&'b [u8]>,
    ) -> Result<Result<KeyAndValue<'b>, RequestBody>, Refusal> {
        let config = self.node.config();
        let value_max_bytes = config.max_value_bytes.min(INLINE_VALUE_MAX_BYTES);
        match (key, body) {
            // With a key in the address the body means nothing; the connection skips it.
            (Some(key), _) if !action.has_value() => Ok(Ok((key, None))),
            (Some(key), Some(value)) if value.len() <= value_max_bytes => {
                Ok(Ok((key, Some(value))))
            }
            (Some(key), _) => self.intake(action, Some(&key), head).map(Err),
            (None, body) => {
                let fields = body.and_then(plain_fields).filter(|(key, value)| {
                    let is_value_right = !action.has_value()
                        || value.is_some_and(|value| value.len() <= value_max_bytes);
                    is_value_right && check_key(key).is_ok()
                });
                match fields {
                    Some((key, Some(value))) if action.has_value() => {
                        Ok(Ok((Cow::Borrowed(key), Some(value))))
                    }
                    // Load balancers send the same message to all paths: the value is ignored here.
                    Some((key, _)) => Ok(Ok((Cow::Borrowed(key), None))),
                    None => self.intake(action, None, head).map(Err),
                }
            }
        }
    }

    /// What collects the body. A request that would be refused whatever its body is, is refused
    /// before the body is sent, with the same answer.
    fn intake(
        &mut self,
        action: KvAction,
        key: Option<&[u8]>,
        head: &Head<'_>,
    ) -> Result<RequestBody, Refusal> {
        // Where keys are spread over partitions, nothing can be said before the key is there.
        if key.is_some() || !self.node.spreads_keys() {
            self.check_ahead(action, key, head)?;
        }
        let has_key = key.is_some();
        let limits = KvLimits {
            key_bytes: KEY_MAX_BYTES,
            value_bytes: self.node.config().max_value_bytes,
        };
        let allowed = if action.has_value() {
            AllowedFields::KeyAndValue
        } else {
            AllowedFields::Key
        };
        let intake = match head.framing {
            Framing::None if has_key => {
                let message = "no length: send Content-Length (0 for an empty value) or \
                               Transfer-Encoding: chunked";
                Err(Refusal::new(411, "length_required", message))
            }
            Framing::None | Framing::Length(0) if !has_key => {
                Err(Refusal::new(400, "key_missing", no_key(action)))
            }
            Framing::Length(length) if has_key => match usize::try_from(length) {
                Ok(bytes) if bytes <= limits.value_bytes => {
                    Ok(RequestBody::raw(limits, Some(bytes)))
                }
                _ => Err(value_too_large(limits.value_bytes)),
            },
            _ if has_key => Ok(RequestBody::raw(limits, None)),
            _ => Ok(RequestBody::fields(limits, allowed, head)),
        }?;
        if !action.has_value() {
            return Ok(intake);
        }
        let bytes = declared_bytes(head, limits.body_max_bytes());
        let claim = self.node.resources.bodies.claim(bytes, ClaimKind::Adding);
        Ok(intake.claiming(claim.map_err(claim_refused)?))
    }

    /// Makes the checks that do not need the body. None: the key is in the body.
    fn check_ahead(
        &mut self,
        action: KvAction,
        key: Option<&[u8]>,
        head: &Head<'_>,
    ) -> Result<(), Refusal> {
        let subject = Subject::Key(key.unwrap_or_default());
        if !action.has_value() {
            return match action {
                KvAction::Delete(_) => self.deletable_partition(head, subject).map(drop),
                _ => self.partition(head, subject).map(drop),
            };
        }
        let (query, demand) = (self.query(head), self.write_demand(head));
        let now_ms = self.now_ms;
        let partition = self.growable_partition(head, subject)?;
        ttl_of(head, query, None)?;
        let conditions = conditions_of(head)?;
        check_replicas(partition, demand?.acks, now_ms)?;
        match key {
            Some(key) => {
                let checked = partition.check(key, &conditions);
                checked.map(drop).map_err(condition_failed)
            }
            None => Ok(()),
        }
    }

    /// Executes a request with its complete body.
    pub(crate) fn finish_kv(
        &mut self,
        route: Route,
        head: &Head<'_>,
        intake: RequestBody,
        reply: Reply<'_>,
    ) {
        let outcome = intake.into_received().and_then(|mut received| {
            let key = match (key_of_target(route, head.target())?, received.key.take()) {
                (Some(key), _) => key,
                (None, Some(key)) => Cow::Owned(key),
                (None, None) => {
                    let message = "no key: the body needs a field \"key\"";
                    return Err(Refusal::new(400, "key_missing", message));
                }
            };
            let action = KvAction::of(route, head)?;
            if action.has_value() && received.value.is_none() {
                let message = "no value: the body needs a field \"value\"";
                return Err(Refusal::new(400, "value_missing", message));
            }
            Ok((action, key, received))
        });
        match outcome {
            Ok((action, key, received)) => {
                let value = received.value.as_ref();
                let entry = EntryToSet {
                    value: value.map_or(NewValue::Inline(&[]), ReadyValue::as_new_value),
                    ttl_ms: received.ttl_ms,
                };
                self.act(action, head, &key, entry, reply);
            }
            Err(refusal) => refuse(reply, &refusal),
        }
    }

    /// Executes a request. `entry` is for sets.
    #[inline]
    fn act(
        &mut self,
        action: KvAction,
        head: &Head<'_>,
        key: &[u8],
        entry: EntryToSet<'_>,
        reply: Reply<'_>,
    ) {
        match action {
            KvAction::Get(form) => self.answer_get(form, head, key, reply),
            KvAction::Set | KvAction::Put => {
                self.answer_set(action, head, key, entry, reply);
            }
            KvAction::Delete(form) => self.answer_delete(form, head, key, reply),
        }
    }

    /// The partition that a request is about, for a read; it has at least `?min_version=`.
    #[inline]
    pub(crate) fn readable_partition(
        &mut self,
        head: &Head<'_>,
        subject: Subject<'_>,
    ) -> Result<&Partition, Refusal> {
        let params = self.params;
        let partition = self.partition(head, subject)?;
        if params.has(Param::MinVersion) {
            check_min_version(partition, Query::with(head.target(), params))?;
        }
        Ok(partition)
    }

    #[inline]
    fn answer_get(&mut self, form: KvForm, head: &Head<'_>, key: &[u8], reply: Reply<'_>) {
        let demand = match self.read_demand(head) {
            Ok(demand) => demand,
            Err(refusal) => return refuse(reply, &refusal),
        };
        self.scratch.clear();
        let scratch = std::mem::take(self.scratch);
        let (loop_ms, mut due) = (self.now_ms, None);
        let readable = self.readable_partition(head, Subject::Key(key));
        let found = readable.and_then(|partition| {
            let acks = demand.acks_in(partition);
            check_read(partition, acks, loop_ms)?;
            let conditions = conditions_of(head)?;
            let entry = partition.get(key);
            if acks.is_some() {
                // What waits may also show that the key is missing (404) or unchanged (304).
                let shown_version = entry.as_ref().map(|entry| entry.version);
                due = Some(follow_up_of_read(partition, acks, shown_version));
            }
            let entry = entry.ok_or_else(key_not_found)?;
            let now_ms = partition.lsm().time_ms();
            let (current, lineage) = (Some(entry.version), partition.lineage());
            let token = lineage.token_of(entry.version);
            if conditions
                .if_match
                .is_some_and(|set| !set.contains(current, lineage))
            {
                let current = Some(token);
                return Err(condition_failed(ConditionFailed { current }));
            }
            let is_known = conditions
                .if_none_match
                .is_some_and(|set| set.contains(current, lineage));
            Ok((entry, token, now_ms, is_known))
        });
        let reply = match &due {
            Some(due) if due.gate.is_some() => reply.hold(),
            _ => reply,
        };
        *self.scratch = match found {
            Ok((_, token, _, true)) => {
                with_etag(form, reply.status(304), &token.text()).empty();
                scratch
            }
            Ok((entry, token, now_ms, false)) => {
                send_value(form, &entry, token, now_ms, reply, scratch)
            }
            Err(refusal) => {
                refuse(reply, &refusal);
                scratch
            }
        };
        if let Some(due) = due {
            self.effects.take_on(due);
        }
    }

    #[inline]
    fn answer_set(
        &mut self,
        action: KvAction,
        head: &Head<'_>,
        key: &[u8],
        entry: EntryToSet<'_>,
        reply: Reply<'_>,
    ) {
        let (query, demand, now_ms) = (self.query(head), self.write_demand(head), self.now_ms);
        let growable = self.growable_partition(head, Subject::Key(key));
        let written = growable.and_then(|partition| {
            // The checks that `intake` makes come first, in the same order: the answer must not
            // depend on how the request was cut into packets.
            let ttl_ms = ttl_of(head, query, entry.ttl_ms)?;
            let conditions = conditions_of(head)?;
            let demand = demand?;
            check_replicas(partition, demand.acks, now_ms)?;
            let incurred = partition.lsm().incurred_work();
            let written = match action {
                KvAction::Put => partition
                    .put(key, entry.value, ttl_ms, &conditions)
                    .map(|written| (written.version, !written.replaced)),
                _ => partition
                    .set(key, entry.value, ttl_ms, &conditions)
                    .map(|version| (version, false)),
            };
            let (version, created) = written.map_err(condition_failed)?;
            Ok((
                partition.token_of(version),
                created,
                Self::follow_up_of_write(partition, demand, incurred),
            ))
        });
        match written {
            Ok((token, created, due)) => {
                let text = token.text();
                self.scratch.clear();
                add_written(self.scratch, &text);
                let status = if created { 201 } else { 200 };
                let reply = self.defer(due, reply);
                reply
                    .status(status)
                    .lines(JSON_LINE)
                    .etag(text.as_bytes())
                    .body(self.scratch);
            }
            Err(refusal) => self.refuse_write(&refusal, reply),
        }
    }

    /// For a delete: the partition, the conditions, and what it waits for.
    fn deletable_partition(
        &mut self,
        head: &Head<'_>,
        subject: Subject<'_>,
    ) -> Result<(&mut Partition, Conditions, WriteDemand), Refusal> {
        let conditions = conditions_of(head)?;
        let (demand, now_ms) = (self.write_demand(head)?, self.now_ms);
        let partition = self.writable_partition(head, subject)?;
        check_replicas(partition, demand.acks, now_ms)?;
        Ok((partition, conditions, demand))
    }

    fn answer_delete(&mut self, form: KvForm, head: &Head<'_>, key: &[u8], reply: Reply<'_>) {
        let outcome = self.deletable_partition(head, Subject::Key(key));
        let deleted = outcome.and_then(|(partition, conditions, demand)| {
            let incurred = partition.lsm().incurred_work();
            let deleted = partition.delete(key, &conditions).map_err(|failed| {
                match (form, failed.current) {
                    // Without the condition the answer would be 404, so it is 404 with it, too (RFC
                    // 9110, section 13.2.1).
                    (KvForm::Raw, None) => key_not_found(),
                    _ => condition_failed(failed),
                }
            })?;
            Ok(match deleted {
                Some(version) => {
                    let due = Self::follow_up_of_write(partition, demand, incurred);
                    (due, Some(partition.token_of(version)))
                }
                None => (follow_up_of_shown(partition, None), None),
            })
        });
        let (reply, deleted) = match deleted {
            Ok((due, token)) => (self.defer(due, reply), token),
            Err(refusal) => return self.refuse_write(&refusal, reply),
        };
        match (form, deleted) {
            (KvForm::Json, Some(token)) => {
                reply
                    .status(200)
                    .content_type(JSON)
                    .etag(token.text().as_bytes())
                    .body(DELETED);
            }
            (KvForm::Json, None) => {
                reply.status(200).content_type(JSON).body(NOT_DELETED);
            }
            (KvForm::Raw | KvForm::RawByChoice, Some(token)) => {
                reply.status(204).etag(token.text().as_bytes()).empty();
            }
            (KvForm::Raw | KvForm::RawByChoice, None) => refuse(reply, &key_not_found()),
        }
    }
}

/// Adds the entity tag. Two forms of one path must not share a strong tag, or a cache could send
/// one for the other (RFC 9110, section 8.8.1): the form that Accept selects has a weak one, with
/// the same token in it.
#[inline]
fn with_etag<'o>(form: KvForm, head: ReplyHead<'o>, token: &TokenText) -> ReplyHead<'o> {
    match form {
        KvForm::Json | KvForm::Raw => head.etag(token.as_bytes()),
        KvForm::RawByChoice => head.weak_etag(token.as_bytes()),
    }
}

/// Answers with a value; returns the buffer, which it may have used.
#[inline]
fn send_value(
    form: KvForm,
    entry: &Entry<'_>,
    token: VersionToken,
    now_ms: u64,
    reply: Reply<'_>,
    mut scratch: Vec<u8>,
) -> Vec<u8> {
    let reply = match (entry.expires_at_ms, entry.value) {
        (_, Value::Tombstone) => {
            refuse(reply, &key_not_found());
            return scratch;
        }
        (None, _) => reply.status(200),
        (Some(at_ms), _) => reply.status(200).header("X-TTL", &remaining(at_ms, now_ms)),
    };
    let text = token.text();
    match (form, entry.value) {
        (KvForm::Json, Value::Inline(value)) => {
            render_value(&mut scratch, value, &text);
            scratch.push(b'\n');
            reply.lines(JSON_LINES).etag(text.as_bytes()).body(&scratch);
        }
        (KvForm::Json, Value::Large(blob)) => {
            let source = JsonValueSource::answer(Arc::clone(blob), token);
            reply
                .lines(JSON_LINES)
                .etag(text.as_bytes())
                .source(Box::new(source));
        }
        (KvForm::Raw | KvForm::RawByChoice, Value::Inline(value)) => {
            with_etag(form, reply.lines(RAW_LINES), &text).body(value);
        }
        (KvForm::Raw | KvForm::RawByChoice, Value::Large(blob)) => {
            with_etag(form, reply.lines(RAW_LINES), &text).blob(Arc::clone(blob));
        }
        (_, Value::Tombstone) => {}
    }
    scratch
}

/// What to say of a request that names no key and has no body.
#[cold]
fn no_key(action: KvAction) -> &'static str {
    if action.has_value() {
        "no key: send a JSON body such as {\"key\":\"k\",\"value\":\"v\"}, or name the key with \
         ?key= and send the value as the body"
    } else {
        "no key: name it with ?key=, or send a JSON body such as {\"key\":\"k\"}"
    }
}

#[cold]
fn key_not_found() -> Refusal {
    Refusal::new(404, "key_not_found", "key not found")
}

#[cold]
pub(crate) fn condition_failed(failed: ConditionFailed) -> Refusal {
    let message = match failed.current {
        Some(token) => {
            format!("the condition does not hold: the key is at version {token}; read it again")
        }
        None => "the condition does not hold: the key does not exist".to_owned(),
    };
    Refusal::new(412, "condition_failed", message)
}
