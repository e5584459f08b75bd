//! The HTTP side of an answer: its head, and its body cut to length or taken out of chunks.
//!
//! Invariants:
//! 1. Any cut of the input gives the same data and the same verdict.
//! 2. An answer of which the end is not certain is refused.
//!
//! Not here: how long a body may be (`answer.rs`, `watch.rs`).

use crate::http::{BodyDecoder, Framing};

use super::failure::Failure;

/// Longest head of an answer.
pub const HEAD_MAX_BYTES: usize = 16 * 1024;

/// Most header fields of an answer: etcd sends eight, a proxy adds some.
const FIELD_MAX: usize = 64;

/// Reads one answer.
#[derive(Debug, Default)]
pub(super) struct ResponseReader {
    /// The head, while it is not whole.
    head: Vec<u8>,
    answer: Option<ResponseHead>,
}

/// What the head says, and how far the body is.
#[derive(Debug)]
pub(super) struct ResponseHead {
    pub(super) status: u16,
    /// The connection stays open after this answer.
    pub(super) is_kept: bool,
    body: BodyDecoder,
}

impl ResponseReader {
    /// Takes in some input; returns the next data of the body in it, which may be empty. To be
    /// called again while there is input and the answer is not whole.
    pub(super) fn receive<'i>(&mut self, input: &mut &'i [u8]) -> Result<&'i [u8], Failure> {
        let answer = match &mut self.answer {
            Some(answer) => answer,
            None => match Self::read_head(&mut self.head, input)? {
                Some(answer) => self.answer.insert(answer),
                None => return Ok(&[]),
            },
        };
        let malformed = |_| Failure::Malformed("malformed chunks");
        let piece = answer.body.decode(input).map_err(malformed)?;
        *input = &input[piece.consumed..];
        Ok(piece.data)
    }

    /// The head of an answer that is whole.
    pub(super) fn whole(&self) -> Option<&ResponseHead> {
        let answer = self.answer.as_ref()?;
        answer.body.is_done().then_some(answer)
    }

    /// The status, once it is there.
    pub(super) fn status(&self) -> Option<u16> {
        self.answer.as_ref().map(|answer| answer.status)
    }

    /// Bytes of the body that are to come for sure.
    pub(super) fn due_bytes(&self) -> u64 {
        (self.answer.as_ref()).map_or(0, |answer| answer.body.due_bytes())
    }

    /// Takes the head off the input, as far as it is there.
    fn read_head(head: &mut Vec<u8>, input: &mut &[u8]) -> Result<Option<ResponseHead>, Failure> {
        let (known_bytes, room) = (head.len(), HEAD_MAX_BYTES - head.len());
        head.extend_from_slice(&input[..input.len().min(room)]);
        let mut fields = [httparse::EMPTY_HEADER; FIELD_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let no_http = |_| Failure::Malformed("no head of HTTP/1.1");
        let httparse::Status::Complete(head_bytes) = response.parse(head).map_err(no_http)? else {
            if head.len() == HEAD_MAX_BYTES {
                return Err(Failure::Malformed("its head is too long"));
            }
            *input = &[];
            return Ok(None);
        };
        let answer = ResponseHead::new(&response)?;
        *input = &input[head_bytes - known_bytes..];
        *head = Vec::new();
        Ok(Some(answer))
    }
}

impl ResponseHead {
    fn new(response: &httparse::Response<'_, '_>) -> Result<Self, Failure> {
        let (mut framing, mut is_kept) = (None, response.version == Some(1));
        for field in response.headers.iter() {
            let is_named = |name: &str| field.name.eq_ignore_ascii_case(name);
            let value = field.value.trim_ascii();
            let found = if is_named("content-length") {
                let is_number = value.iter().all(u8::is_ascii_digit);
                let text = str::from_utf8(value).ok().filter(|_| is_number);
                let length = text.and_then(|text| text.parse().ok());
                Framing::Length(length.ok_or(Failure::Malformed("its length is no number"))?)
            } else if is_named("transfer-encoding") {
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Failure::Malformed("an unknown Transfer-Encoding"));
                }
                Framing::Chunked
            } else {
                is_kept &= !(is_named("connection") && value.eq_ignore_ascii_case(b"close"));
                continue;
            };
            if framing.replace(found).is_some() {
                return Err(Failure::Malformed("it has two lengths"));
            }
        }
        let status = response.code.unwrap_or(0);
        match framing {
            Some(framing) if status >= 200 => Ok(Self {
                status,
                is_kept,
                body: BodyDecoder::new(framing),
            }),
            _ => Err(Failure::Malformed("it has no length")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status and data of an answer in pieces, whether it is whole, and bytes behind it.
    fn read(answer: &[u8], piece_bytes: usize) -> Result<(u16, Vec<u8>, bool, usize), Failure> {
        let (mut reader, mut data, mut surplus) = (ResponseReader::default(), Vec::new(), 0);
        for mut piece in answer.chunks(piece_bytes) {
            while !piece.is_empty() && reader.whole().is_none() {
                data.extend_from_slice(reader.receive(&mut piece)?);
            }
            surplus += piece.len();
        }
        let is_whole = reader.whole().is_some();
        Ok((reader.status().unwrap_or(0), data, is_whole, surplus))
    }

    #[test]
    fn bodies_end_where_they_should() {
        let chunks = "Transfer-Encoding: chunked\r\nTrailer: T\r\n\r\n\
                      2\r\nab\r\n1\r\nc\r\n0\r\nT: application/grpc\r\n\r\n";
        for (rest, whole, surplus) in [
            ("content-length: 3\r\n\r\nabc", true, 0),
            ("content-length: 3\r\n\r\nabcHTTP", true, 4),
            ("Content-Length: 4\r\n\r\nabc", false, 0),
            (chunks, true, 0),
            (&chunks[..chunks.len() - 1], false, 0),
        ] {
            let answer = format!("HTTP/1.1 400 Bad Request\r\n{rest}");
            for piece_bytes in 1..=answer.len() {
                let found = read(answer.as_bytes(), piece_bytes);
                let expected = Ok((400, b"abc".to_vec(), whole, surplus));
                assert_eq!(found, expected, "{answer:?} in pieces of {piece_bytes}");
            }
        }
    }

    #[test]
    fn other_answers_are_refused() {
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(HEAD_MAX_BYTES));
        for answer in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            &long,
        ] {
            for piece_bytes in [1, 7, answer.len()] {
                assert!(read(answer.as_bytes(), piece_bytes).is_err(), "{answer:?}");
            }
        }
    }

    #[test]
    fn connections_that_close_are_noticed() {
        for (head, is_kept) in [
            ("HTTP/1.1 200 OK\r\n", true),
            ("HTTP/1.1 200 OK\r\nconnection: Close\r\n", false),
            ("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n", true),
            ("HTTP/1.0 200 OK\r\n", false),
        ] {
            let answer = format!("{head}Content-Length: 0\r\n\r\n");
            let mut reader = ResponseReader::default();
            reader.receive(&mut answer.as_bytes()).expect("valid");
            assert_eq!(reader.whole().map(|head| head.is_kept), Some(is_kept));
        }
    }
}
