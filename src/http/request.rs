//! The head of a request: where it ends, and what it says.
//!
//! Invariants:
//! 1. Looking for the end of a head costs work linear in its bytes, however it was cut on the way.
//! 2. A head is parsed once, whole, without allocation; everything in [`Head`] borrows from the
//!    input. A list on several lines is joined in a buffer.
//! 3. Two readers cannot disagree about where a request ends: what RFC 9112 leaves to leniency
//!    (bare LF, line folding, two lengths, two hosts, a space before a colon) is refused. See the
//!    table in `request_tests.rs`.
//! 4. The verdict does not depend on how the bytes were cut: a head is judged when its last byte is
//!    there, and only a bare LF, a head over the limit, and what cannot become a request line are
//!    refused earlier: a client of another protocol waits for an answer to its first line.
//!
//! Not here: the grammar of single values (`fields.rs`), the bytes of the body (`body.rs`), which
//! methods and paths exist and which Host is ours (the api layer).

use std::mem::MaybeUninit;

use memchr::{memchr, memchr_iter, memrchr};

use super::field_table::{Field, FieldSet, Repeat};
use super::fields;
use super::head::{Framing, Head, Method};
use super::refusal::Refusal;

/// The most header lines a head may have, whatever [`HeadLimits`] say: the parser's table lives on
/// the stack.
pub const MAX_HEADER_COUNT: usize = 100;

/// Empty lines skipped before a request line: old clients send one after a body.
const MAX_EMPTY_LINE_COUNT: usize = 4;

/// Bytes of a request line that are checked before the line is whole: enough to tell another
/// protocol.
const BEGIN_BYTES: usize = 64;

/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

/// How large a head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes from the first byte of the request line through the empty line (and empty lines before
    /// it).
    pub head_bytes: usize,
    /// Header lines; at most [`MAX_HEADER_COUNT`] count.
    pub header_count: usize,
}

/// Parses the head that `input` begins with.
///
/// `scanned`: how far earlier calls looked for the end of the head, so that a head that arrives
/// byte by byte costs linear work. Zero for a new head; the caller keeps it between calls and
/// passes the same bytes with more behind them.
///
/// `joined`: where lists on several lines are joined; empty, and left so by nearly all heads.
///
/// Returns the length of the head, where the body begins, once all of it is there and read into
/// `head`, which is that of [`Head::default`]: a head is large, and moving it from call to call
/// would cost as much as reading it. A refusal: this is not a request we read, and where the next
/// one begins is unknown; answer and close.
pub fn parse_head<'b>(
    input: &'b [u8],
    scanned: &mut usize,
    limits: &HeadLimits,
    joined: &'b mut Vec<u8>,
    head: &mut Head<'b>,
) -> Result<Option<usize>, Refusal> {
    let window = &input[..input.len().min(limits.head_bytes)];
    let Some(start) = skip_empty_lines(window)? else {
        *scanned = input.len();
        return if window.len() < limits.head_bytes {
            Ok(None)
        } else {
            Err(over_limit(window))
        };
    };
    let found = find_end(window, start, *scanned);
    if !matches!(found, Ok(Some(_))) {
        check_begun(&window[start..], scanned.saturating_sub(start))?;
    }
    let Some(end) = found? else {
        *scanned = input.len();
        return if window.len() < limits.head_bytes {
            Ok(None)
        } else {
            Err(over_limit(&window[start..]))
        };
    };
    parse_whole(&input[start..end], limits.header_count, joined, head)?;
    Ok(Some(end))
}

/// Where the request line begins; `None`: not there yet.
fn skip_empty_lines(window: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut at = 0;
    loop {
        match window.get(at) {
            None => return Ok(None),
            Some(&first) if fields::is_token_byte(first) => return Ok(Some(at)),
            Some(b'\r') if at < 2 * MAX_EMPTY_LINE_COUNT => match window.get(at + 1) {
                None => return Ok(None),
                Some(b'\n') => at += 2,
                Some(_) => return Err(Refusal::bad_request("bare CR: end lines with CR LF")),
            },
            Some(&TLS_HANDSHAKE) => {
                return Err(Refusal::bad_request(
                    "this is TLS, and this port speaks plain HTTP: use http://, not https://",
                ));
            }
            Some(_) => return Err(not_http()),
        }
    }
}

/// Refuses what begins like no request line, as soon as that is certain. The first `seen` bytes
/// were checked before: a line is checked once when it is whole, and only its first bytes before
/// that.
#[cold]
fn check_begun(begun: &[u8], seen: usize) -> Result<(), Refusal> {
    let seen = seen.min(begun.len());
    let line = match memchr(b'\n', &begun[seen..]) {
        Some(at) if memrchr(b'\n', &begun[..seen]).is_none() => &begun[..=seen + at],
        None if seen < BEGIN_BYTES && memchr(b'\n', &begun[..seen]).is_none() => {
            &begun[..begun.len().min(BEGIN_BYTES)]
        }
        _ => return Ok(()),
    };
    match httparse::Request::new(&mut []).parse(line) {
        Ok(_) => Ok(()),
        // The rest of the line decides what is said about a version.
        Err(httparse::Error::Version) if line.last() != Some(&b'\n') => Ok(()),
        Err(error) => Err(refuse_syntax(error, line)),
    }
}

/// One past the empty line that ends the head; `None`: not there yet. `window[start]` is a token
/// byte.
fn find_end(window: &[u8], start: usize, scanned: usize) -> Result<Option<usize>, Refusal> {
    let from = scanned.clamp(start, window.len());
    for offset in memchr_iter(b'\n', &window[from..]) {
        let at = from + offset;
        // Neither index goes below `start`: the token byte there is no CR, and a LF never stands
        // right behind it.
        if window[at - 1] != b'\r' {
            return Err(Refusal::bad_request("bare LF: end lines with CR LF"));
        }
        if window[at - 2] == b'\n' {
            return Ok(Some(at + 1));
        }
    }
    Ok(None)
}

/// `window` fills the limit and does not hold a whole head.
#[cold]
fn over_limit(window: &[u8]) -> Refusal {
    if memchr(b'\n', window).is_none() {
        Refusal::new(
            414,
            "uri_too_long",
            "the request line is over the limit for a head: send a long key in the body",
        )
    } else {
        Refusal::new(
            431,
            "head_too_large",
            "the request head is over the limit (--max-head-bytes): send fewer headers",
        )
    }
}

/// Parses exactly one head: every LF in `bytes` follows a CR, and the only empty line is the last.
fn parse_whole<'b>(
    bytes: &'b [u8],
    header_count: usize,
    joined: &'b mut Vec<u8>,
    head: &mut Head<'b>,
) -> Result<(), Refusal> {
    let mut table = [const { MaybeUninit::uninit() }; MAX_HEADER_COUNT];
    let mut request = httparse::Request::new(&mut []);
    let parsed =
        request.parse_with_uninit_headers(bytes, &mut table[..header_count.min(MAX_HEADER_COUNT)]);
    match parsed {
        Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
        // What is left over or missing is a request line cut short: the end of the head is known to
        // be there.
        Ok(_) => return Err(refuse_request_line(bytes)),
        Err(error) => return Err(refuse_syntax(error, bytes)),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(refuse_request_line(bytes));
    };
    head.method = method_of(method.as_bytes());
    head.http_minor = minor;
    let mut seen = HeadFields::default();
    for header in &*request.headers {
        if let Some(field) = Field::of(header.name.as_bytes()) {
            read_field(field, header.value, head, &mut seen)?;
        }
    }
    if !seen.lists.is_empty() {
        join(request.headers, head, &mut seen, joined);
    }
    seen.finish(head)?;
    // After the headers: the authority of an absolute-form target takes the place of Host.
    fields::read_target(target.as_bytes(), head)?;
    if head.http_minor == 1 && head.host.is_none_or(fields::is_nameless) {
        let message = "empty Host: HTTP/1.1 requires the name or the address of the node";
        return Err(Refusal::bad_request(message));
    }
    Ok(())
}

fn method_of(method: &[u8]) -> Method {
    match method {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        b"PUT" => Method::Put,
        b"DELETE" => Method::Delete,
        b"OPTIONS" => Method::Options,
        b"PATCH" => Method::Patch,
        b"TRACE" => Method::Trace,
        b"CONNECT" => Method::Connect,
        _ => Method::Other,
    }
}

/// What the headers said that is judged only when all of them are known.
#[derive(Default)]
struct HeadFields<'b> {
    content_length: Option<&'b [u8]>,
    transfer_encoding: Option<&'b [u8]>,
    connection_close: bool,
    connection_keep_alive: bool,
    /// Lists that stand on several lines.
    lists: FieldSet,
}

/// Takes in one line.
fn read_field<'b>(
    field: Field,
    value: &'b [u8],
    head: &mut Head<'b>,
    seen: &mut HeadFields<'b>,
) -> Result<(), Refusal> {
    match field {
        // What they say adds up line by line.
        Field::Connection => {
            fields::read_connection(
                value,
                &mut seen.connection_close,
                &mut seen.connection_keep_alive,
            );
            return Ok(());
        }
        Field::Expect => return fields::read_expect(value, head),
        Field::ContentEncoding if fields::is_identity(value) => return Ok(()),
        _ => {}
    }
    if !head.given.insert(field) {
        return repeated(field, head, seen);
    }
    match field {
        Field::ContentLength => seen.content_length = Some(value),
        Field::TransferEncoding => seen.transfer_encoding = Some(value),
        _ => {
            if let Some(slot) = head.value_mut(field) {
                *slot = Some(value);
            }
        }
    }
    Ok(())
}

/// A line more of a field that was there before.
#[cold]
fn repeated(field: Field, head: &mut Head<'_>, seen: &mut HeadFields<'_>) -> Result<(), Refusal> {
    match field.repeat() {
        Repeat::List => seen.lists.insert(field),
        Repeat::Single => head.repeated.insert(field),
        // Two values for one question are an ambiguity that an intermediary may resolve
        // differently.
        Repeat::Framing => return Err(given_twice(field)),
    };
    Ok(())
}

/// The refusal of a single value that stands on several lines.
#[cold]
pub fn given_twice(field: Field) -> Refusal {
    Refusal::bad_request(format!(
        "{} given more than once: send it once",
        field.name()
    ))
}

/// Joins the lines of lists by commas.
#[cold]
fn join<'b>(
    headers: &[httparse::Header<'_>],
    head: &mut Head<'b>,
    seen: &mut HeadFields<'b>,
    joined: &'b mut Vec<u8>,
) {
    let mut ends = [0; Field::ALL.len()];
    for (field, end) in seen.lists.iter().zip(&mut ends) {
        let mut comma: &[u8] = b"";
        for header in headers {
            if Field::of(header.name.as_bytes()) == Some(field) {
                joined.extend_from_slice(comma);
                joined.extend_from_slice(header.value);
                comma = b", ";
            }
        }
        *end = joined.len();
    }
    let (joined, mut start) = (&joined[..], 0);
    for (field, end) in seen.lists.iter().zip(ends) {
        let value = Some(&joined[start..end]);
        start = end;
        if field == Field::TransferEncoding {
            seen.transfer_encoding = value;
        } else if let Some(slot) = head.value_mut(field) {
            *slot = value;
        }
    }
}

impl HeadFields<'_> {
    fn finish(&self, head: &mut Head<'_>) -> Result<(), Refusal> {
        head.keep_alive =
            !self.connection_close && (head.http_minor == 1 || self.connection_keep_alive);
        head.framing = match (self.content_length, self.transfer_encoding) {
            (None, None) => Framing::None,
            (Some(length), None) => Framing::Length(fields::content_length(length)?),
            (Some(_), Some(_)) => {
                return Err(Refusal::bad_request(
                    "Content-Length and Transfer-Encoding together: send one of them",
                ));
            }
            (None, Some(_)) if head.http_minor == 0 => {
                return Err(Refusal::bad_request(
                    "Transfer-Encoding in HTTP/1.0: send Content-Length, or use HTTP/1.1",
                ));
            }
            (None, Some(coding)) => fields::transfer_encoding(coding)?,
        };
        match head.host {
            Some(host) => fields::check_host(host),
            None if head.http_minor == 0 => Ok(()),
            None => Err(Refusal::bad_request("no Host: HTTP/1.1 requires one")),
        }
    }
}

#[cold]
fn refuse_syntax(error: httparse::Error, head: &[u8]) -> Refusal {
    use httparse::Error;
    match error {
        Error::TooManyHeaders => {
            Refusal::new(431, "too_many_headers", "too many header lines: send fewer")
        }
        Error::HeaderName => Refusal::bad_request(
            "malformed header line: write `name: value`, without folding and without a space \
             before the name or the colon",
        ),
        Error::HeaderValue => Refusal::bad_request("a control byte in a header value: remove it"),
        Error::NewLine => Refusal::bad_request(
            "malformed line ending: end each line with one CR LF, nothing before it",
        ),
        Error::Token => not_http(),
        Error::Status | Error::Version => refuse_request_line(head),
    }
}

/// Tells a version we do not speak from a request line that is none.
#[cold]
fn refuse_request_line(head: &[u8]) -> Refusal {
    let line = &head[..memchr(b'\r', head).unwrap_or(head.len())];
    let mut words = line.split(|&byte| byte == b' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(_), Some(_), Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit()
                && minor.is_ascii_digit()
                && !(*major == b'1' && *minor <= b'1') =>
        {
            Refusal::new(
                505,
                "version_not_supported",
                "this HTTP version is not spoken here: use HTTP/1.1",
            )
        }
        _ => not_http(),
    }
}

#[cold]
fn not_http() -> Refusal {
    Refusal::bad_request(
        "this is not an HTTP request, and this port speaks only HTTP/1.1: begin with a line such \
         as `GET /get?key=k HTTP/1.1`, one space between the parts, or try curl \
         'http://HOST:PORT/get?key=k'",
    )
}
