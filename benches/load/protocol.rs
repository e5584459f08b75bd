//! Requests as they are sent, answers as they come: the node's HTTP with raw values and with JSON,
//! and what its peers speak.
//!
//! Of an answer its length and its verdict are read, and nothing else: the generator has to cost
//! less than what it measures.

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::options::Protocol;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Get,
    Set,
}

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Done,
    /// There is no such key.
    Missing,
    /// Anything else.
    Refused,
}

fn render_put(path: &str, key: u64, value: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let length = value.len();
    write!(
        out,
        "PUT {path}/key:{key:012} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    )?;
    out.write_all(value)
}

fn render_etcd(kind: Kind, key: u64, value: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let base64 = |bytes: &[u8]| STANDARD.encode(bytes);
    let key = base64(format!("key:{key:012}").as_bytes());
    let (path, body) = match kind {
        Kind::Get => ("range", format!("{{\"key\":\"{key}\"}}")),
        Kind::Set => (
            "put",
            format!("{{\"key\":\"{key}\",\"value\":\"{}\"}}", base64(value)),
        ),
    };
    let length = body.len();
    write!(
        out,
        "POST /v3/kv/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: \
         {length}\r\n\r\n{body}"
    )
}

impl Protocol {
    /// Appends a request.
    pub fn render(self, kind: Kind, key: u64, value: &[u8], out: &mut Vec<u8>) {
        let written = match (self, kind) {
            (Self::Raw, Kind::Get) => write!(
                out,
                "GET /kv/key:{key:012} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            ),
            (Self::Json, Kind::Get) => write!(
                out,
                "GET /get?key=key:{key:012} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            ),
            (Self::Resp, Kind::Get) => write!(out, "*2\r\n$3\r\nGET\r\n$16\r\nkey:{key:012}\r\n"),
            (Self::Raw, Kind::Set) => render_put("/kv", key, value, out),
            (Self::Json, Kind::Set) => {
                let length = value.len() + r#"{"key":"key:000000000000","value":""}"#.len();
                let head =
                    "POST /set HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
                write!(
                    out,
                    "{head}Content-Length: {length}\r\n\r\n{{\"key\":\"key:{key:012}\",\"value\":\""
                )
                .and_then(|()| out.write_all(value))
                .and_then(|()| out.write_all(b"\"}"))
            }
            (Self::Resp, Kind::Set) => {
                let length = value.len();
                write!(
                    out,
                    "*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n${length}\r\n"
                )
                .and_then(|()| out.write_all(value))
                .and_then(|()| out.write_all(b"\r\n"))
            }
            (Self::Memcached, Kind::Get) => write!(out, "get key:{key:012}\r\n"),
            (Self::Memcached, Kind::Set) => {
                write!(out, "set key:{key:012} 0 0 {}\r\n", value.len())
                    .and_then(|()| out.write_all(value))
                    .and_then(|()| out.write_all(b"\r\n"))
            }
            (Self::Webdis, Kind::Get) => write!(
                out,
                "GET /GET/key:{key:012} HTTP/1.1\r\nHost: localhost\r\n\r\n"
            ),
            (Self::Webdis, Kind::Set) => render_put("/SET", key, value, out),
            (Self::Etcd, _) => render_etcd(kind, key, value, out),
        };
        written.expect("memory takes it");
    }

    /// Verdict and length of the answer that `bytes` begin with; none: it is not whole. An error:
    /// it is no answer.
    pub fn answer(self, bytes: &[u8]) -> Result<Option<(Verdict, usize)>, String> {
        match self {
            Self::Raw | Self::Json | Self::Webdis | Self::Etcd => http_answer(bytes),
            Self::Resp => resp_answer(bytes),
            Self::Memcached => memcached_answer(bytes),
        }
    }
}

fn http_answer(bytes: &[u8]) -> Result<Option<(Verdict, usize)>, String> {
    let Some(head_end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = &bytes[..head_end];
    let status = head
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| digits(rest.get(2..5)?));
    let status = status.ok_or_else(|| no_answer(bytes))?;
    let length = match status {
        204 | 304 => 0,
        _ => head
            .split(|byte| *byte == b'\n')
            .find_map(content_length)
            .ok_or_else(|| no_answer(bytes))?,
    };
    let verdict = match status {
        200..=299 => Verdict::Done,
        404 => Verdict::Missing,
        _ => Verdict::Refused,
    };
    let end = head_end + 4 + length;
    Ok((bytes.len() >= end).then_some((verdict, end)))
}

fn content_length(line: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let (name, value) = line.split_at_checked(NAME.len())?;
    if name.eq_ignore_ascii_case(NAME) {
        digits(value.trim_ascii())
    } else {
        None
    }
}

fn digits(text: &[u8]) -> Option<usize> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn resp_answer(bytes: &[u8]) -> Result<Option<(Verdict, usize)>, String> {
    let Some(line_end) = memchr::memmem::find(bytes, b"\r\n") else {
        return Ok(None);
    };
    let line = &bytes[..line_end];
    let after = line_end + 2;
    match line.split_first() {
        Some((b'+' | b':', _)) => Ok(Some((Verdict::Done, after))),
        Some((b'-', _)) => Ok(Some((Verdict::Refused, after))),
        Some((b'$', b"-1")) => Ok(Some((Verdict::Missing, after))),
        Some((b'$', length)) => {
            let end = after + digits(length).ok_or_else(|| no_answer(bytes))? + 2;
            Ok((bytes.len() >= end).then_some((Verdict::Done, end)))
        }
        _ => Err(no_answer(bytes)),
    }
}

fn memcached_answer(bytes: &[u8]) -> Result<Option<(Verdict, usize)>, String> {
    const END: &[u8] = b"END\r\n";
    let Some(line_end) = memchr::memmem::find(bytes, b"\r\n") else {
        return Ok(None);
    };
    let after = line_end + 2;
    match &bytes[..line_end] {
        b"END" => Ok(Some((Verdict::Missing, after))),
        b"STORED" => Ok(Some((Verdict::Done, after))),
        line if line.starts_with(b"VALUE ") => {
            let length = line
                .rsplit(|byte| *byte == b' ')
                .next()
                .and_then(digits)
                .ok_or_else(|| no_answer(bytes))?;
            let end = after + length + 2 + END.len();
            Ok((bytes.len() >= end).then_some((Verdict::Done, end)))
        }
        line if line.starts_with(b"SERVER_ERROR") => Ok(Some((Verdict::Refused, after))),
        _ => Err(no_answer(bytes)),
    }
}

fn no_answer(bytes: &[u8]) -> String {
    format!(
        "this is no answer: {:?}",
        String::from_utf8_lossy(&bytes[..bytes.len().min(200)])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_of_the_protocol() {
        let table = [
            (
                Protocol::Raw,
                Kind::Get,
                "GET /kv/key:000000000042 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            ),
            (
                Protocol::Raw,
                Kind::Set,
                "PUT /kv/key:000000000042 HTTP/1.1\r\nHost: localhost\r\nContent-Length: \
                 2\r\n\r\nvv",
            ),
            (
                Protocol::Json,
                Kind::Get,
                "GET /get?key=key:000000000042 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            ),
            (
                Protocol::Json,
                Kind::Set,
                "POST /set HTTP/1.1\r\nHost: localhost\r\nContent-Type: \
                 application/json\r\nContent-Length: \
                 39\r\n\r\n{\"key\":\"key:000000000042\",\"value\":\"vv\"}",
            ),
            (
                Protocol::Resp,
                Kind::Get,
                "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000042\r\n",
            ),
            (
                Protocol::Resp,
                Kind::Set,
                "*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000042\r\n$2\r\nvv\r\n",
            ),
            (Protocol::Memcached, Kind::Get, "get key:000000000042\r\n"),
            (
                Protocol::Memcached,
                Kind::Set,
                "set key:000000000042 0 0 2\r\nvv\r\n",
            ),
            (
                Protocol::Webdis,
                Kind::Get,
                "GET /GET/key:000000000042 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            ),
            (
                Protocol::Webdis,
                Kind::Set,
                "PUT /SET/key:000000000042 HTTP/1.1\r\nHost: localhost\r\nContent-Length: \
                 2\r\n\r\nvv",
            ),
            (
                Protocol::Etcd,
                Kind::Get,
                "POST /v3/kv/range HTTP/1.1\r\nHost: localhost\r\nContent-Length: \
                 34\r\n\r\n{\"key\":\"a2V5OjAwMDAwMDAwMDA0Mg==\"}",
            ),
            (
                Protocol::Etcd,
                Kind::Set,
                "POST /v3/kv/put HTTP/1.1\r\nHost: localhost\r\nContent-Length: 49\r\n\r\n\
                 {\"key\":\"a2V5OjAwMDAwMDAwMDA0Mg==\",\"value\":\"dnY=\"}",
            ),
        ];
        for (protocol, kind, expected) in table {
            let mut rendered = Vec::new();
            protocol.render(kind, 42, b"vv", &mut rendered);
            assert_eq!(
                String::from_utf8_lossy(&rendered),
                expected,
                "{protocol:?} {kind:?}"
            );
        }
    }

    /// Whole answers are found at their length, and not before; what follows does not matter.
    #[test]
    fn answers_cut_anywhere() {
        let table: &[(Protocol, &[u8], Verdict)] = &[
            (
                Protocol::Raw,
                b"HTTP/1.1 200 OK\r\nX: 1\r\ncontent-LENGTH: 5\r\nY: 2\r\n\r\nhello",
                Verdict::Done,
            ),
            (
                Protocol::Raw,
                b"HTTP/1.1 204 No Content\r\nDate: x\r\n\r\n",
                Verdict::Done,
            ),
            (
                Protocol::Json,
                b"HTTP/1.0 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
                Verdict::Missing,
            ),
            (
                Protocol::Raw,
                b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
                Verdict::Refused,
            ),
            (Protocol::Resp, b"+OK\r\n", Verdict::Done),
            (Protocol::Resp, b"$5\r\nhe\r\no\r\n", Verdict::Done),
            (Protocol::Resp, b"$0\r\n\r\n", Verdict::Done),
            (Protocol::Resp, b"$-1\r\n", Verdict::Missing),
            (Protocol::Resp, b"-ERR no\r\n", Verdict::Refused),
            (
                Protocol::Memcached,
                b"VALUE key:1 0 5\r\nhe\r\no\r\nEND\r\n",
                Verdict::Done,
            ),
            (Protocol::Memcached, b"STORED\r\n", Verdict::Done),
            (Protocol::Memcached, b"END\r\n", Verdict::Missing),
            (
                Protocol::Memcached,
                b"SERVER_ERROR out of memory\r\n",
                Verdict::Refused,
            ),
        ];
        for (protocol, bytes, verdict) in table {
            let shown = String::from_utf8_lossy(bytes);
            for cut in 0..bytes.len() {
                assert_eq!(
                    protocol.answer(&bytes[..cut]),
                    Ok(None),
                    "{shown:?} cut at {cut}"
                );
            }
            let followed = [bytes, &b"HTTP/1.1 200"[..]].concat();
            assert_eq!(
                protocol.answer(&followed),
                Ok(Some((*verdict, bytes.len()))),
                "{shown:?}"
            );
        }
        for (protocol, bytes) in [
            (Protocol::Raw, &b"SSH-2.0\r\n\r\n"[..]),
            (Protocol::Raw, b"HTTP/1.1 200 OK\r\n\r\n"),
            (Protocol::Resp, b"HTTP/1.1 400\r\n"),
            (Protocol::Resp, b"$x\r\n"),
            (Protocol::Memcached, b"ERROR\r\n"),
        ] {
            assert!(
                protocol.answer(bytes).is_err(),
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
    }
}
