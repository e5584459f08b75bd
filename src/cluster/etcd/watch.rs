//! The watch: a stream of lines, each a JSON object, that say when a key has changed.
//!
//! Only hints are taken from it. Every error, end or gap of it is the end of this watch, after
//! which a range says what is so.

use super::answer::{cut, error_in, field, is_true, list, number, parse_json};
use super::failure::Failure;
use super::request::{Post, push_prefix};

/// Longest line of a watch.
pub const LINE_MAX_BYTES: usize = 1024 * 1024;

/// What a line of the watch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// The watch has begun.
    Created,
    /// Keys have changed, last with this revision.
    Changed { revision: u64 },
    /// Nothing has changed; etcd says so now and then.
    Alive,
}

/// The request that begins a watch of all keys that begin so, from a revision on.
pub(super) fn render(prefix: &str, from: u64, authority: &str, token: &str) -> Vec<u8> {
    let mut body = String::from("{\"create_request\":{");
    push_prefix(&mut body, prefix);
    body.push_str(",\"start_revision\":\"");
    body.push_str(&from.to_string());
    body.push_str("\",\"progress_notify\":true}}");
    // Without this field a member that has lost the others goes on saying nothing.
    let post = Post::new("/v3/watch", authority, token);
    post.with_field("Grpc-Metadata-hasleader: true")
        .with_body(&body)
}

/// What a line says; a failure is the end of the watch.
pub(super) fn parse_line(line: &[u8]) -> Result<Hint, Failure> {
    let line = parse_json(line)?;
    let result = field(&line, "result");
    if !field(&line, "error").is_null() || !result.is_object() {
        let error = error_in(&line);
        return Err(error.unwrap_or(Failure::Malformed("neither a result nor an error")));
    }
    let compacted = number(result, "compact_revision").is_none_or(|revision| revision > 0);
    if compacted || is_true(result, "canceled") {
        let reason = field(result, "cancel_reason").as_str().map(cut);
        let message = reason.unwrap_or_else(|| "compacted, or canceled".to_owned());
        return Err(Failure::Error { code: 0, message });
    }
    let revisions = list(result, "events")
        .iter()
        .map(|event| number(field(event, "kv"), "mod_revision").unwrap_or(0));
    Ok(match revisions.max() {
        Some(revision) => Hint::Changed { revision },
        None if is_true(result, "created") => Hint::Created,
        None => Hint::Alive,
    })
}

/// Cuts a stream into lines.
#[derive(Debug, Default)]
pub(super) struct LineReader {
    line: Vec<u8>,
}

impl LineReader {
    /// Takes the next line out of the data, or keeps what there is of it.
    pub(super) fn next(&mut self, data: &mut &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let end = memchr::memchr(b'\n', data);
        let (rest, after) = data.split_at(end.unwrap_or(data.len()));
        if self.line.len() + rest.len() > LINE_MAX_BYTES {
            return Err(Failure::Malformed("a line of the watch is too long"));
        }
        self.line.extend_from_slice(rest);
        *data = after.get(1..).unwrap_or_default();
        Ok(end.map(|_| std::mem::take(&mut self.line)))
    }

    /// What there is of a line that has no end.
    pub(super) fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_wants_to_hear_of_lost_leaders() {
        let request = render("/db-node/x/", 42, "h:1", "t.1");
        assert_eq!(
            request,
            b"POST /v3/watch HTTP/1.1\r\n\
              Host: h:1\r\n\
              Connection: keep-alive\r\n\
              Content-Type: application/json\r\n\
              Authorization: t.1\r\n\
              Grpc-Metadata-hasleader: true\r\n\
              Content-Length: 121\r\n\
              \r\n\
              {\"create_request\":{\"key\":\"L2RiLW5vZGUveC8=\",\"range_end\":\"L2RiLW5vZGUveDA=\",\
              \"start_revision\":\"42\",\"progress_notify\":true}}"
        );
    }

    #[test]
    fn lines_are_cut_and_bounded() {
        let mut reader = LineReader::default();
        let mut lines = Vec::new();
        for mut data in [&b"a"[..], b"b\n", b"\ncd\ne", b"f", b"\n"] {
            while !data.is_empty() {
                lines.extend(reader.next(&mut data).expect("short"));
            }
        }
        assert_eq!(lines, [&b"ab"[..], b"", b"cd", b"ef"]);
        let half = vec![b'x'; LINE_MAX_BYTES / 2];
        for _ in 0..2 {
            assert_eq!(reader.next(&mut &half[..]), Ok(None));
        }
        assert!(reader.next(&mut &b"x"[..]).is_err());
    }
}
