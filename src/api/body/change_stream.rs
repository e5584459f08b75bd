//! How changes are told to a watcher: as one answer once there are some (long poll), or as
//! server-sent events.
//!
//! A change is `{"version":N,"etag":"N-hhhhhhhh","op":"set","key":…,"value":…}`, or with
//! `"op":"delete"` and no value. A value longer than 16 KiB is left out, with `"valueBytes"` in its
//! place: a client that wants it reads the key. That a key has expired is not a change.
//!
//! A client that reads events learns the position at once, with every event and with every sign of
//! life, by blocks that have an `id` and no data: an `EventSource` keeps the id, and dispatches
//! nothing. So a client that is cut off before its first event comes back with a position.
//!
//! Not here: which watcher is told when (`node/watches.rs`), when it is said
//! (`reactor/watching.rs`).

use crate::lsm::StreamRecord;
use crate::storage::VersionToken;

use crate::api::body::json_text::escape_into;
use crate::api::body::json_value::{add_bytes, encode_base64, is_text};
use crate::api::request::positions::{add_position, add_version};

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
