//! `/watch`: changes as they are committed, as one answer once there are some (long poll), or as
//! server-sent events.
//!
//! A change is `{"version":N,"etag":"N-hhhhhhhh","op":"set","key":…,"value":…}`, or with
//! `"op":"delete"` and no value. A value longer than 16 KiB is left out, with `"valueBytes"` in its
//! place: a client that wants it reads the key. That a key has expired is not a change.
//!
//! A listener to events learns how far it has heard at once, with every event and with every sign
//! of life, by blocks that have an `id` and no data: an `EventSource` keeps the id, and dispatches
//! nothing. So a listener that is cut off before its first event comes back with a position.
//!
//! Not here: which watcher is told when (`node/watches.rs`), when it is said
//! (`reactor/watching.rs`).

use crate::http::{Head, Refusal, Reply};
use crate::lsm::StreamRecord;
use crate::partition::PositionError;
use crate::storage::{Position, Role, VersionToken};

use super::accept::preferred;
use super::json_text::escape_into;
use super::json_value::{encode_base64, is_text};
use super::params::Param;
use super::positions::{add_position, add_version, gone, not_here};
use super::query::Query;
use super::scan::add_bytes;
use super::{Api, JSON, refuse};

const EVENT_STREAM: &str = "text/event-stream";

/// How long a long poll waits if nothing else is asked for, and at most.
const TIMEOUT_DEFAULT_MS: u64 = 30_000;
const TIMEOUT_MAX_MS: u64 = 300_000;

/// Text of changes in one answer, or at a time: a client that wants more asks again, or reads
/// first.
const TOLD_MAX_BYTES: usize = 64 * 1024;

/// How changes are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchForm {
    /// One answer, with the first changes or after a while without any.
    LongPoll,
    /// As server-sent events, for as long as the client listens.
    Events,
}

/// A request whose answer is told bit by bit from now on.
#[derive(Debug)]
pub struct WatchRequest {
    /// The partition.
    pub partition: u32,
    /// Of the keys that concern it.
    pub prefix: Box<[u8]>,
    /// What follows this version.
    pub position: VersionToken,
    /// How.
    pub form: WatchForm,
    /// For how long, if not for good.
    pub timeout_ms: Option<u64>,
}

impl WatchForm {
    /// What goes before the changes.
    pub fn begin(self, position: VersionToken, out: &mut Vec<u8>) {
        match self {
            Self::LongPoll => out.extend_from_slice(b"{\"success\":true,\"events\":["),
            Self::Events => {
                out.extend_from_slice(b": changes after version ");
                out.extend_from_slice(itoa::Buffer::new().format(position.version).as_bytes());
                out.push(b'\n');
                self.sign_of_life(position, out);
            }
        }
    }

    /// Tells a change; false when that is enough for one time. `token`: of its version. `count`:
    /// those told before in the same answer.
    pub fn change(
        self,
        record: &StreamRecord<'_>,
        token: VersionToken,
        count: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        match self {
            Self::LongPoll => {
                out.extend_from_slice(if count == 0 { b"" } else { b"," });
                add_change(record, token, out);
            }
            Self::Events => {
                add_id(token, out);
                out.extend_from_slice(b"event: ");
                out.extend_from_slice(op(record));
                out.extend_from_slice(b"\ndata: ");
                add_change(record, token, out);
                out.extend_from_slice(b"\n\n");
            }
        }
        out.len() < TOLD_MAX_BYTES
    }

    /// What goes behind the changes up to a position.
    pub fn end(self, position: VersionToken, out: &mut Vec<u8>) {
        match self {
            Self::LongPoll => {
                out.extend_from_slice(b"],");
                add_position(out, &position.text());
                out.push(b'}');
            }
            Self::Events => self.sign_of_life(position, out),
        }
    }

    /// What a listener hears when there was nothing else for a while: how far it has heard.
    pub fn sign_of_life(self, position: VersionToken, out: &mut Vec<u8>) {
        if self == Self::Events {
            add_id(position, out);
            out.push(b'\n');
        }
    }
}

fn add_id(token: VersionToken, out: &mut Vec<u8>) {
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(token.text().as_bytes());
    out.push(b'\n');
}

fn op(record: &StreamRecord<'_>) -> &'static [u8] {
    if record.is_tombstone() {
        b"delete"
    } else {
        b"set"
    }
}

fn add_change(record: &StreamRecord<'_>, token: VersionToken, out: &mut Vec<u8>) {
    out.push(b'{');
    add_version(out, &token.text());
    out.extend_from_slice(b",\"op\":\"");
    out.extend_from_slice(op(record));
    out.extend_from_slice(b"\",");
    add_bytes(out, "key", record.key(), "keyEncoding");
    match record.inline_value() {
        _ if record.is_tombstone() => {}
        Some(value) if is_text(value) => {
            out.extend_from_slice(b",\"value\":\"");
            escape_into(out, value);
            out.push(b'"');
        }
        Some(value) => {
            out.extend_from_slice(b",\"value\":\"");
            encode_base64(out, value);
            out.extend_from_slice(b"\",\"encoding\":\"base64\"");
        }
        None => {
            out.extend_from_slice(b",\"valueBytes\":");
            out.extend_from_slice(itoa::Buffer::new().format(record.value_bytes()).as_bytes());
        }
    }
    out.push(b'}');
}

impl Api<'_> {
    pub(super) fn answer_watch(&mut self, head: &Head<'_>, reply: Reply<'_>) {
        match self.watch_request(head) {
            Ok(request) => {
                let reply = reply.status(200).header("Cache-Control", "no-store");
                let reply = match request.form {
                    WatchForm::LongPoll => reply.content_type(JSON),
                    // nginx in between would keep events until it has a buffer full of them.
                    WatchForm::Events => reply
                        .content_type(EVENT_STREAM)
                        .header("X-Accel-Buffering", "no"),
                };
                let mut begin = Vec::new();
                request.form.begin(request.position, &mut begin);
                if reply.feed(&begin) {
                    self.outcome.watch = Some(request);
                }
            }
            Err(refusal) => refuse(reply, &refusal),
        }
    }

    fn watch_request(&mut self, head: &Head<'_>) -> Result<WatchRequest, Refusal> {
        let query = self.query(head);
        let form = match preferred(head.accept, &[JSON, EVENT_STREAM])? {
            EVENT_STREAM => WatchForm::Events,
            _ => WatchForm::LongPoll,
        };
        let prefix = query
            .bytes(Param::Prefix, Param::PrefixEncoding)?
            .unwrap_or_default()
            .into();
        let last_event = head.last_event_id.map(last_event_position).transpose()?;
        let since = query.position(Param::Since)?;
        // A client that was cut off comes with what it had last.
        let since = last_event.or(since);
        let timeout_ms = timeout_of(query, form)?;
        let partition = self.partition(head)?;
        partition.retain_log();
        let version = match since.map(|since| (since, partition.version_at(since))) {
            None => partition.committed_version(),
            Some((_, Ok(version))) => version,
            // A replica may get there. On a leader the next write of that version is another one.
            Some((since, Err(PositionError::Ahead)))
                if partition.roles().role() == Role::Replica =>
            {
                return Err(not_here(partition, since, PositionError::Ahead));
            }
            Some((since, Err(_))) => return Err(gone(partition, since)),
        };
        if partition.lsm().log_behind(version).is_none() {
            let version = partition.token_of(version);
            let oldest = partition.token_of(partition.lsm().oldest_log_version());
            let message = format!(
                "what followed version {version} is no longer in the log: the oldest version to \
                 watch from is {oldest}; scan, then watch from the position of the scan"
            );
            return Err(Refusal::new(410, "log_gone", message)
                .with_header("X-Oldest-Position", &oldest.to_string()));
        }
        Ok(WatchRequest {
            partition: partition.id(),
            prefix,
            position: partition.token_of(version),
            form,
            timeout_ms,
        })
    }
}

fn timeout_of(query: Query<'_>, form: WatchForm) -> Result<Option<u64>, Refusal> {
    let Some(text) = query.get(Param::Timeout)? else {
        return Ok((form == WatchForm::LongPoll).then_some(TIMEOUT_DEFAULT_MS));
    };
    let seconds = serde_json::from_slice::<f64>(&text).ok();
    let timeout_ms = match seconds {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number beyond the range is cut"
        )]
        Some(seconds) if seconds >= 0.0 => Some((seconds * 1_000.0) as u64),
        _ => None,
    };
    timeout_ms
        .filter(|ms| *ms <= TIMEOUT_MAX_MS)
        .map(Some)
        .ok_or_else(|| {
            let message = format!(
                "?timeout= must be a number of seconds, 0 to {}",
                TIMEOUT_MAX_MS / 1_000
            );
            Refusal::new(400, "bad_query", message)
        })
}

fn last_event_position(id: &[u8]) -> Result<Position, Refusal> {
    Position::parse(id).ok_or_else(|| {
        Refusal::bad_request(
            "Last-Event-ID must be an id that this path has told, such as 17-1a2b3c4d",
        )
    })
}
