//! Version tokens in answers, and the positions that clients send back.
//!
//! Not here: how a token looks and whether a lineage holds it (`storage/version_token.rs`); entity
//! tags in conditions (`conditions.rs`).

use crate::http::Refusal;
use crate::partition::{Partition, PositionError};
use crate::storage::{Position, TokenText};

use crate::api::request::params::Param;
use crate::api::request::query::Query;

/// Appends the fields `"version":N,"etag":"N-hhhhhhhh"`.
#[inline]
pub(crate) fn add_version(out: &mut Vec<u8>, token: &TokenText) {
    add_fields(out, b"\"version\":", b",\"etag\":\"", token, b"\"");
}

/// Appends the fields `"version":N,"position":"N-hhhhhhhh"`.
pub(crate) fn add_position(out: &mut Vec<u8>, token: &TokenText) {
    add_fields(out, b"\"version\":", b",\"position\":\"", token, b"\"");
}

/// Appends the whole answer to a write.
#[inline]
pub(crate) fn add_written(out: &mut Vec<u8>, token: &TokenText) {
    let before = b"{\"success\":true,\"version\":";
    add_fields(out, before, b",\"etag\":\"", token, b"\"}\n");
}

#[inline(always)] // so that the pieces are of known length
fn add_fields(out: &mut Vec<u8>, before: &[u8], between: &[u8], token: &TokenText, after: &[u8]) {
    out.extend_from_slice(before);
    out.extend_from_slice(token.version());
    out.extend_from_slice(between);
    out.extend_from_slice(token.as_bytes());
    out.extend_from_slice(after);
}

impl Query<'_> {
    /// The position that a parameter names; none if it is missing.
    #[inline]
    pub(crate) fn position(self, param: Param) -> Result<Option<Position>, Refusal> {
        let Some(value) = self.get(param)? else {
            return Ok(None);
        };
        Position::parse(&value).map(Some).ok_or_else(|| {
            let name = param.name();
            let message =
                format!("?{name}= must be a position such as 17-1a2b3c4d, or a version such as 17");
            Refusal::new(400, "bad_query", message)
        })
    }
}

/// Refuses a read with `?min_version=` of a partition that does not have that version yet.
#[cold]
pub(crate) fn check_min_version(partition: &Partition, query: Query<'_>) -> Result<(), Refusal> {
    let Some(position) = query.position(Param::MinVersion)? else {
        return Ok(());
    };
    match partition.version_at(position) {
        Ok(_) => Ok(()),
        Err(error) => Err(not_here(partition, position, error)),
    }
}

#[cold]
pub(crate) fn not_here(partition: &Partition, position: Position, error: PositionError) -> Refusal {
    let last = partition.last_token();
    match error {
        PositionError::Ahead => {
            let message = format!(
                "this node is at version {last}, not yet at {position}: try again, or ask the \
                 leader"
            );
            Refusal::new(503, "behind", message)
        }
        PositionError::Unknown => {
            let message = format!(
                "position {position} is not in the history of this node, which is at {last}: try \
                 again, or ask the leader; if the leader says the same, a failover has dropped \
                 that write: read without min_version"
            );
            Refusal::new(503, "unknown_position", message)
        }
    }
}

/// The refusal of a watch from a position that is not in this node's history.
#[cold]
pub(crate) fn gone(partition: &Partition, position: Position) -> Refusal {
    let last = partition.last_token();
    let message = format!(
        "position {position} is not in the history of this node, which is at {last}: scan, then \
         watch from the position of the scan"
    );
    Refusal::new(410, "unknown_position", message)
}
