//! The text of a watch: changes in one answer once there are some (long poll), or as server-sent
//! events.
//!
//! A change is `{"version":N,"etag":"N-hhhhhhhh","op":"set","key":…,"value":…}`, or with
//! `"op":"delete"` and no value. A value longer than 16 KiB is left out, with `"valueBytes"` in its
//! place: a client that wants it reads the key. That a key has expired is not a change.
//!
//! A client of server-sent events gets its position at once, with every event, and with every
//! keep-alive, as a block with an `id` and no data: an `EventSource` keeps the id and dispatches
//! nothing. So a client that is cut off before its first event reconnects with a position.
//!
//! Not here: which changes a watcher gets (`node/watches.rs`), and when (`reactor/watching.rs`).

use crate::lsm::StreamRecord;
use crate::node::Permit;
use crate::storage::VersionToken;

use crate::api::body::json_text::escape_into;
use crate::api::body::json_value::{add_bytes, encode_base64, is_text};
use crate::api::request::positions::{add_position, add_version};

/// Most text in one long-poll answer, or in one piece of an event stream.
const CHANGES_MAX_BYTES: usize = 64 * 1024;

/// The form of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchForm {
    /// One answer, with the first changes, or empty after the time-out.
    LongPoll,
    /// Server-sent events, until the client disconnects.
    Events,
}

/// A watch that begins.
#[derive(Debug)]
pub struct WatchRequest {
    /// The partition.
    pub partition: u32,
    /// Only keys with this prefix are watched.
    pub prefix: Box<[u8]>,
    /// Changes after this version are watched.
    pub position: VersionToken,
    /// The form of the answer.
    pub form: WatchForm,
    /// After this time the watch ends; none: it does not.
    pub timeout_ms: Option<u64>,
}

/// A request that waits for the next revision of the cluster's map.
#[derive(Debug)]
pub struct MapPoll {
    /// The revision that the client has.
    pub since: u64,
    /// After this time the answer comes in any case.
    pub timeout_ms: u64,
    /// One of a bounded number.
    pub permit: Permit,
}

/// A request with an answer that is sent when there is something to tell.
#[derive(Debug)]
pub enum FeedRequest {
    /// A watch.
    Changes(WatchRequest),
    /// `/cluster/map` with `?since=`.
    Map(MapPoll),
}

impl WatchForm {
    /// The text before the changes.
    pub fn begin(self, position: VersionToken, out: &mut Vec<u8>) {
        match self {
            Self::LongPoll => out.extend_from_slice(b"{\"success\":true,\"events\":["),
            Self::Events => {
                out.extend_from_slice(b": changes after version ");
                out.extend_from_slice(itoa::Buffer::new().format(position.version).as_bytes());
                out.push(b'\n');
                self.keep_alive(position, out);
            }
        }
    }

    /// Appends a change; false if the text is now long enough. `token` is that of the change,
    /// `count` the number of changes before it in the same answer.
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
        out.len() < CHANGES_MAX_BYTES
    }

    /// The text after the changes up to a position.
    pub fn end(self, position: VersionToken, out: &mut Vec<u8>) {
        match self {
            Self::LongPoll => {
                out.extend_from_slice(b"],");
                add_position(out, &position.text());
                out.extend_from_slice(b"}\n");
            }
            Self::Events => self.keep_alive(position, out),
        }
    }

    /// The keep-alive of an event stream: its position.
    pub fn keep_alive(self, position: VersionToken, out: &mut Vec<u8>) {
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
