//! The head and the body of an answer, without I/O: bytes in, what they mean out.
//!
//! Invariants:
//! 1. Any cut of the input gives the same result.
//! 2. An answer of which the end or the content is not certain is refused: two lengths, a length
//!    beside chunks, an unknown coding, or a coding that was not asked for.
//!
//! Not here: limits on the length of a head, reading and waiting (`exchange.rs`).

use crate::http::{BodyDecoder, Framing};

use super::text::owned;

/// Most header fields of an answer.
const FIELD_MAX: usize = 64;

/// What is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BrokenAnswer(pub(crate) &'static str);

/// The head of an answer, as far as commands need it.
#[derive(Debug)]
pub(crate) struct AnswerHead {
    pub(crate) status: u16,
    /// The version token in `ETag`, weak or strong, without its quotes; empty if there is none.
    pub(crate) token: String,
    /// `X-Leader`; empty if there is none.
    pub(crate) leader: String,
    pub(crate) body: AnswerBody,
    /// Its length in bytes.
    pub(crate) head_bytes: usize,
}

/// How the end of a body is found, and how far it is.
#[derive(Debug)]
pub(crate) enum AnswerBody {
    Framed(BodyDecoder),
    UntilClosed,
}

impl AnswerHead {
    /// The head that `input` begins with; none: it is not whole.
    pub(crate) fn parse(input: &[u8]) -> Result<Option<Self>, BrokenAnswer> {
        let mut fields = [httparse::EMPTY_HEADER; FIELD_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let head_bytes = match response.parse(input) {
            Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(BrokenAnswer("it has too many header fields"));
            }
            Err(_) => return Err(BrokenAnswer("it is not HTTP/1.1")),
        };
        let status = response.code.unwrap_or(0);
        let (mut token, mut leader) = (String::new(), String::new());
        let (mut length, mut is_chunked) = (None, false);
        for field in response.headers.iter() {
            let value = field.value.trim_ascii();
            if is_same(field.name.as_bytes(), "content-length") {
                let bytes = number(value).ok_or(BrokenAnswer("its Content-Length is no number"))?;
                if length.replace(bytes).is_some() {
                    return Err(BrokenAnswer("it has two lengths"));
                }
            } else if is_same(field.name.as_bytes(), "transfer-encoding") {
                if is_chunked || !is_same(value, "chunked") {
                    return Err(BrokenAnswer("its Transfer-Encoding is unknown"));
                }
                is_chunked = true;
            } else if is_same(field.name.as_bytes(), "content-encoding") {
                if !is_same(value, "identity") {
                    return Err(BrokenAnswer("it has a Content-Encoding"));
                }
            } else if is_same(field.name.as_bytes(), "etag") {
                token = token_in(value);
            } else if is_same(field.name.as_bytes(), "x-leader") {
                leader = owned(std::str::from_utf8(value).unwrap_or_default());
            }
        }
        let body = match (status, length, is_chunked) {
            (100..=199 | 204 | 304, ..) => AnswerBody::of(Framing::None),
            (_, Some(_), true) => return Err(BrokenAnswer("it has two lengths")),
            (_, Some(bytes), false) => AnswerBody::of(Framing::Length(bytes)),
            (_, None, true) => AnswerBody::of(Framing::Chunked),
            (_, None, false) => AnswerBody::UntilClosed,
        };
        Ok(Some(Self {
            status,
            token,
            leader,
            body,
            head_bytes,
        }))
    }
}

#[inline(never)]
fn is_same(text: &[u8], other: &str) -> bool {
    text.eq_ignore_ascii_case(other.as_bytes())
}

/// A number that has digits alone.
fn number(text: &[u8]) -> Option<u64> {
    let is_number = text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| is_number)?;
    text.parse().ok()
}

/// The version token in an entity tag, such as `7-1a2b3c4d`; empty if there is none in it.
fn token_in(tag: &[u8]) -> String {
    let tag = std::str::from_utf8(tag).unwrap_or_default();
    let quoted = tag.strip_prefix("W/").unwrap_or(tag);
    let token = quoted
        .strip_prefix('"')
        .and_then(|tag| tag.strip_suffix('"'));
    let parts = token.and_then(|token| token.split_once('-'));
    let is_token = parts.is_some_and(|(version, history)| {
        let is_history = history.bytes().all(|byte| byte.is_ascii_hexdigit());
        number(version.as_bytes()).is_some() && history.len() == 8 && is_history
    });
    owned(token.filter(|_| is_token).unwrap_or_default())
}

impl AnswerBody {
    fn of(framing: Framing) -> Self {
        Self::Framed(BodyDecoder::new(framing))
    }

    /// Whether all of it was decoded.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Framed(decoder) => decoder.is_done(),
            Self::UntilClosed => false,
        }
    }

    /// Whether it may end where the connection does.
    pub(crate) fn may_end(&self) -> bool {
        matches!(self, Self::UntilClosed) || self.is_done()
    }

    /// Decodes some input: the bytes used, and how many bytes of data are at their end.
    pub(crate) fn decode(&mut self, input: &[u8]) -> Result<(usize, usize), BrokenAnswer> {
        match self {
            Self::UntilClosed => Ok((input.len(), input.len())),
            Self::Framed(decoder) => {
                let piece = decoder.decode(input);
                let piece = piece.map_err(|_| BrokenAnswer("its chunks are malformed"))?;
                Ok((piece.consumed, piece.data.len()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of an answer in pieces; an error also if it is not whole at the end.
    fn data_of(answer: &[u8], piece_bytes: usize) -> Result<(u16, Vec<u8>), String> {
        let head = (1..=answer.len())
            .find_map(|end| AnswerHead::parse(&answer[..end]).transpose())
            .ok_or("no head")?
            .map_err(|error| error.0)?;
        let (mut body, mut data) = (head.body, Vec::new());
        for mut piece in answer[head.head_bytes..].chunks(piece_bytes) {
            while !piece.is_empty() && !body.is_done() {
                let (used, data_bytes) = body.decode(piece).map_err(|error| error.0)?;
                data.extend_from_slice(&piece[used - data_bytes..used]);
                piece = &piece[used..];
            }
        }
        if body.may_end() {
            Ok((head.status, data))
        } else {
            Err("truncated".to_owned())
        }
    }

    #[test]
    fn bodies_end_where_they_should() {
        for (fields, body, expected) in [
            ("Content-Length: 3\r\n", "abc", Ok((200, "abc"))),
            ("Content-Length: 3\r\n", "abcd", Ok((200, "abc"))),
            ("Content-Length: 3\r\n", "ab", Err("truncated")),
            ("Content-Length: 0\r\n", "", Ok((200, ""))),
            ("", "abc", Ok((200, "abc"))),
            ("", "", Ok((200, ""))),
            (
                "transfer-encoding: Chunked\r\n",
                "2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
                Ok((200, "abc")),
            ),
            (
                "Transfer-Encoding: chunked\r\n",
                "2\r\nab\r\n",
                Err("truncated"),
            ),
            (
                "Transfer-Encoding: chunked\r\n",
                "x\r\n",
                Err("its chunks are malformed"),
            ),
            (
                "Transfer-Encoding: chunked\r\n",
                "fffffffffffffffff\r\n",
                Err("its chunks are malformed"),
            ),
            (
                "Transfer-Encoding: gzip, chunked\r\n",
                "",
                Err("its Transfer-Encoding is unknown"),
            ),
            (
                "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
                "",
                Err("it has two lengths"),
            ),
            (
                "Content-Length: 3\r\nContent-Length: 3\r\n",
                "abc",
                Err("it has two lengths"),
            ),
            (
                "Content-Length: +3\r\n",
                "abc",
                Err("its Content-Length is no number"),
            ),
            (
                "Content-Length: 18446744073709551616\r\n",
                "",
                Err("its Content-Length is no number"),
            ),
            (
                "Content-Length: 18446744073709551615\r\n",
                "abc",
                Err("truncated"),
            ),
        ] {
            let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
            let expected = expected
                .map(|(status, data)| (status, data.as_bytes().to_vec()))
                .map_err(str::to_owned);
            for piece_bytes in 1..=answer.len() {
                let found = data_of(answer.as_bytes(), piece_bytes);
                assert_eq!(found, expected, "{answer:?} in pieces of {piece_bytes}");
            }
        }
    }

    #[test]
    fn heads_are_read_or_refused() {
        let head = b"HTTP/1.1 421 X\r\nETag: \"7-01234567\"\r\nx-leader: http://h:1 \r\n\r\n";
        let found = AnswerHead::parse(head).expect("valid").expect("whole");
        assert_eq!(
            (
                found.status,
                &*found.token,
                &*found.leader,
                found.head_bytes
            ),
            (421, "7-01234567", "http://h:1", head.len())
        );
        let weak = b"HTTP/1.1 200 OK\r\netag: W/\"7-0123abcd\"\r\n\r\n";
        let found = AnswerHead::parse(weak).expect("valid").expect("whole");
        assert_eq!(found.token, "7-0123abcd");
        for tag in [
            "W/\"7-a\"",
            "\"-01234567\"",
            "\"7-0123456g\"",
            "\"7-012345678\"",
            "\"60a1-5e8f0b7c2a900\"",
            "\"7\"a\"",
            "\"\\\"",
            "7-a",
            "\"",
        ] {
            let head = format!("HTTP/1.1 200 OK\r\nETag: {tag}\r\n\r\n");
            let found = AnswerHead::parse(head.as_bytes()).expect("valid");
            assert_eq!(found.expect("whole").token, "", "{tag}");
        }
        let no_content = b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(data_of(no_content, 9), Ok((204, Vec::new())));
        let many = format!(
            "HTTP/1.1 200 OK\r\n{}\r\n",
            "a: b\r\n".repeat(FIELD_MAX + 1)
        );
        for wrong in [
            &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
            b"HTTP/2 200\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00",
            many.as_bytes(),
        ] {
            assert!(
                AnswerHead::parse(wrong).is_err(),
                "{}",
                wrong.escape_ascii()
            );
        }
    }
}
