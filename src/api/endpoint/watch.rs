//! `/watch`: changes as they are committed.
//!
//! Not here: how they look (`body/change_stream.rs`), which watcher is told when
//! (`node/watches.rs`).

use crate::http::{Head, Refusal, Reply};
use crate::node::Subject;
use crate::partition::PositionError;
use crate::storage::{Position, Role};

use crate::api::body::change_stream::{FeedRequest, WatchForm, WatchRequest};
use crate::api::context::Api;
use crate::api::errors::refuse;
use crate::api::request::accept::preferred;
use crate::api::request::params::Param;
use crate::api::request::positions::{gone, not_here};
use crate::api::request::query::Query;
use crate::api::request::values::JSON;

const EVENT_STREAM: &str = "text/event-stream";

/// How long a long poll waits by default, and at most.
const TIMEOUT_DEFAULT_MS: u64 = 30_000;
const TIMEOUT_MAX_MS: u64 = 300_000;

impl Api<'_> {
    pub(crate) fn answer_watch(&mut self, head: &Head<'_>, reply: Reply<'_>) {
        match self.watch_request(head) {
            Ok(request) => {
                let reply = reply.status(200).header("Cache-Control", "no-store");
                let reply = match request.form {
                    WatchForm::LongPoll => reply.content_type(JSON),
                    // Without it nginx would collect events until its buffer is full.
                    WatchForm::Events => reply
                        .content_type(EVENT_STREAM)
                        .header("X-Accel-Buffering", "no"),
                };
                let mut begin = Vec::new();
                request.form.begin(request.position, &mut begin);
                if reply.feed(&begin) {
                    self.effects.watch = Some(FeedRequest::Changes(request));
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
        // A client that reconnects names the last event that it has.
        let since = last_event.or(since);
        let timeout_ms = timeout_of(query, form)?;
        let partition = self.partition(head, Subject::Partition)?;
        partition.retain_log();
        let version = match since.map(|since| (since, partition.version_at(since))) {
            None => partition.committed_version(),
            Some((_, Ok(version))) => version,
            // A replica may still reach that version. On a leader another write will have it.
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

pub(super) fn timeout_of(query: Query<'_>, form: WatchForm) -> Result<Option<u64>, Refusal> {
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
