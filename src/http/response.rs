//! Responses, rendered straight into an [`Output`].
//!
//! Invariants:
//! 1. A response is framed exactly once: Content-Length, chunked, or the end of the connection, and
//!    never two of them. HEAD, 204 and 304 never carry a body.
//! 2. A response after which the connection closes says `Connection: close`.
//! 3. No header name or value can end its line early: what would is blanked out or left out.
//! 4. Rendering is appending: no allocation beyond the output's buffer, refusals apart.
//!
//! Not here: what is answered (the api layer), whether the connection can stay (`connection.rs`
//! decides it before; a body without a known length on HTTP/1.0, and [`Reply::close`], change it
//! here), the clock (a [`HttpDate`] comes in).

use crate::status_codes::with_status_codes;

use super::field_table::Field;
use super::fields::is_token_byte;
use super::output::{BodySource, Output, SharedBytes};
use super::refusal::Refusal;

/// The longest date RFC 9110's fixed format can write: Fri, 31 Dec 9999 23:59:59 GMT.
const LAST_UNIX_SECOND: u64 = 253_402_300_799;

/// Room for the head of a common response, so that its buffer grows once.
const HEAD_ROOM_BYTES: usize = 256;

/// The value of the Date header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpDate {
    date: [u8; DATE_BYTES],
    /// How a response with status 200 begins, as one piece: most have it.
    ok_lines: [u8; OK_LINES_BYTES],
}

const DATE_BYTES: usize = 29;
const OK_LINE: &[u8] = b"HTTP/1.1 200 OK\r\nDate: ";
const OK_LINES_BYTES: usize = OK_LINE.len() + DATE_BYTES + 2;

impl HttpDate {
    /// The date this many seconds after 1970 began, e.g. `Sun, 06 Nov 1994 08:49:37 GMT`.
    pub fn from_unix_seconds(seconds: u64) -> Self {
        let since = std::time::Duration::from_secs(seconds.min(LAST_UNIX_SECOND));
        let text = httpdate::fmt_http_date(std::time::SystemTime::UNIX_EPOCH + since);
        let mut date = *b"Thu, 01 Jan 1970 00:00:00 GMT";
        if text.len() == date.len() {
            date.copy_from_slice(text.as_bytes());
        }
        let mut ok_lines = [0; OK_LINES_BYTES];
        ok_lines[..OK_LINE.len()].copy_from_slice(OK_LINE);
        ok_lines[OK_LINE.len()..][..DATE_BYTES].copy_from_slice(&date);
        ok_lines[OK_LINES_BYTES - 2..].copy_from_slice(b"\r\n");
        Self { date, ok_lines }
    }

    /// The 29 bytes.
    pub fn as_bytes(&self) -> &[u8; DATE_BYTES] {
        &self.date
    }
}

/// What the request lets its response be, and afterwards: how it was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// The request was HEAD: no body is sent.
    pub head_only: bool,
    /// Of the request's `HTTP/1.x`.
    pub http_minor: u8,
    /// The connection stays open afterwards.
    pub keep_alive: bool,
    /// With what a node answers that does not lead.
    pub not_leader: NotLeaderStatus,
    /// A response was rendered whole.
    pub answered: bool,
    /// Of the response, once it is rendered.
    pub status: u16,
    /// What its form depends on.
    pub vary: Vary,
}

/// What the form of a response depends on beside its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vary {
    /// Nothing: there is one form.
    #[default]
    Nothing,
    /// Accept.
    Accept,
}

/// The status of an answer of a node that does not lead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NotLeaderStatus {
    /// 421.
    #[default]
    Misdirected,
    /// 503: proxies may send the request to another node then.
    Unavailable,
}

impl Exchange {
    /// The exchange a request begins.
    pub fn new(head: &super::head::Head<'_>) -> Self {
        Self {
            head_only: head.method == super::head::Method::Head,
            http_minor: head.http_minor,
            keep_alive: head.keep_alive,
            not_leader: if head.given.has(Field::NotLeader) {
                NotLeaderStatus::Unavailable
            } else {
                NotLeaderStatus::Misdirected
            },
            ..Self::default()
        }
    }

    /// The exchange of what could not be read as a request.
    pub fn broken() -> Self {
        Self {
            http_minor: 1,
            ..Self::default()
        }
    }
}

/// The one response a request gets. Unused, it writes nothing.
#[must_use = "a request must be answered"]
#[derive(Debug)]
pub struct Reply<'o> {
    out: &'o mut Output,
    date: &'o HttpDate,
    exchange: &'o mut Exchange,
}

impl<'o> Reply<'o> {
    /// The response to `exchange`, to be written behind what `out` holds.
    pub fn new(out: &'o mut Output, date: &'o HttpDate, exchange: &'o mut Exchange) -> Self {
        Self {
            out,
            date,
            exchange,
        }
    }

    /// Closes the connection after this response.
    pub fn close(self) -> Self {
        self.exchange.keep_alive = false;
        self
    }

    /// With what a node answers that does not lead.
    pub fn not_leader(&self) -> NotLeaderStatus {
        self.exchange.not_leader
    }

    /// Says what the form of this response depends on.
    #[inline]
    pub fn vary(self, vary: Vary) -> Self {
        self.exchange.vary = vary;
        self
    }

    /// Holds this response back, and all that follow, until the output is released: it says what is
    /// not true yet.
    pub fn hold(self) -> Self {
        self.out.hold();
        self
    }

    /// Begins the response: status line and Date.
    #[inline]
    pub fn status(mut self, status: u16) -> ReplyHead<'o> {
        debug_assert!(
            (200..=599).contains(&status),
            "{status} is not the status of a final response"
        );
        let bytes = self.out.bytes();
        bytes.reserve(HEAD_ROOM_BYTES);
        if (status, self.exchange.vary) == (200, Vary::Nothing) {
            bytes.extend_from_slice(&self.date.ok_lines);
        } else {
            self.begin_head(status);
        }
        ReplyHead {
            reply: self,
            status,
        }
    }

    /// Appends status line, Date, and Vary where the form depends on something.
    fn begin_head(&mut self, status: u16) {
        let bytes = self.out.bytes();
        if let Some(line) = status_line(status) {
            bytes.extend_from_slice(line.as_bytes());
        } else {
            bytes.extend_from_slice(b"HTTP/1.1 ");
            bytes.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
            bytes.extend_from_slice(b" \r\nDate: ");
        }
        bytes.extend_from_slice(self.date.as_bytes());
        let end: &[u8] = match self.exchange.vary {
            Vary::Nothing => b"\r\n",
            Vary::Accept => b"\r\nVary: Accept\r\n",
        };
        bytes.extend_from_slice(end);
    }

    /// Answers with a refusal, as JSON.
    #[cold]
    pub fn error(self, refusal: &Refusal) {
        let mut head = self.status(refusal.status);
        for (name, value) in &refusal.headers {
            head = head.header(name, value);
        }
        head.error(refusal);
    }
}

/// A response while its head is being written. Each method appends; one of [`body`](Self::body),
/// [`blob`](Self::blob), [`source`](Self::source), [`empty`](Self::empty),
/// [`length_only`](Self::length_only) and [`error`](Self::error) ends it.
#[must_use = "a response is whole only with body, blob, source, empty, length_only or error"]
#[derive(Debug)]
pub struct ReplyHead<'o> {
    reply: Reply<'o>,
    status: u16,
}

impl ReplyHead<'_> {
    /// Content-Type. The value is one of ours, so it is not looked at byte by byte.
    #[inline]
    pub fn content_type(self, value: &'static str) -> Self {
        debug_assert!(
            value
                .bytes()
                .all(|byte| byte.is_ascii_graphic() || byte == b' '),
            "{value:?} is a content type"
        );
        let bytes = self.reply.out.bytes();
        bytes.extend_from_slice(b"Content-Type: ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
        self
    }

    /// Header lines as they are, each with its CR LF: some of ours that always go together.
    #[inline]
    pub fn lines(self, lines: &'static str) -> Self {
        debug_assert!(
            lines.ends_with("\r\n") && lines.is_ascii() && !lines.contains("\r\n\r\n"),
            "{lines:?} are header lines"
        );
        self.reply.out.bytes().extend_from_slice(lines.as_bytes());
        self
    }

    /// `ETag: "…"`: a strong entity tag.
    #[inline]
    pub fn etag(self, tag: &[u8]) -> Self {
        self.tag(b"ETag: \"", tag)
    }

    /// `ETag: W/"…"`: a weak one, of a form that shares its tag with another one.
    #[inline]
    pub fn weak_etag(self, tag: &[u8]) -> Self {
        self.tag(b"ETag: W/\"", tag)
    }

    #[inline]
    fn tag(self, before: &[u8], tag: &[u8]) -> Self {
        let bytes = self.reply.out.bytes();
        bytes.extend_from_slice(before);
        bytes.extend_from_slice(tag);
        bytes.extend_from_slice(b"\"\r\n");
        self
    }

    /// Any other header. Control bytes in the value become spaces; a name that is not a token is
    /// left out with its value. Framing headers (Content-Length, Transfer-Encoding, Connection) are
    /// this type's business.
    pub fn header(self, name: &str, value: &str) -> Self {
        let name_is_token = !name.is_empty() && name.bytes().all(is_token_byte);
        debug_assert!(name_is_token, "{name:?} is not a header name");
        if name_is_token {
            let bytes = self.reply.out.bytes();
            bytes.extend_from_slice(name.as_bytes());
            bytes.extend_from_slice(b": ");
            let start = bytes.len();
            bytes.extend_from_slice(value.as_bytes());
            for byte in &mut bytes[start..] {
                if byte.is_ascii_control() {
                    *byte = b' ';
                }
            }
            bytes.extend_from_slice(b"\r\n");
        }
        self
    }

    /// Ends the response with this body.
    #[inline]
    pub fn body(mut self, body: &[u8]) {
        if self.end_head_with_length(body.len() as u64) {
            self.reply.out.bytes().extend_from_slice(body);
        }
    }

    /// Ends the response with this value as its body, which is shared and not copied.
    pub fn blob(mut self, blob: SharedBytes) {
        if self.end_head_with_length(blob.len() as u64) {
            self.reply.out.push_blob(blob);
        }
    }

    /// Ends the response with a body that is rendered as the peer takes it: chunked, or on HTTP/1.0
    /// up to the end of the connection.
    pub fn source(mut self, source: Box<dyn BodySource>) {
        if self.is_bodiless() {
            return self.empty();
        }
        let chunked = self.begin_generated();
        if !self.reply.exchange.head_only {
            self.reply.out.push_source(source, chunked);
        }
    }

    /// Ends the response with a body that begins so and is fed later ([`Output::feed`]), framed
    /// like that of a source. False if there is none: the request was HEAD.
    pub fn feed(mut self, begin: &[u8]) -> bool {
        if self.is_bodiless() {
            self.empty();
            return false;
        }
        let chunked = self.begin_generated();
        if !self.reply.exchange.head_only {
            self.reply.out.push_feed(chunked);
            self.reply.out.feed(|out| out.extend_from_slice(begin));
        }
        !self.reply.exchange.head_only
    }

    /// Ends the head of a response of unknown length; whether its body is in chunks.
    fn begin_generated(&mut self) -> bool {
        let chunked = self.reply.exchange.http_minor == 1;
        if chunked {
            self.reply
                .out
                .bytes()
                .extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        } else {
            self.reply.exchange.keep_alive = false;
        }
        self.end_head();
        chunked
    }

    /// Ends the response without a body.
    pub fn empty(mut self) {
        self.end_head_with_length(0);
    }

    /// Ends the response to HEAD with the length its body would have.
    pub fn length_only(mut self, length_bytes: u64) {
        if !self.reply.exchange.head_only && length_bytes > 0 {
            debug_assert!(false, "only HEAD is answered by a length");
            // The peer waits for bytes that will not come: let it see the end.
            self.reply.exchange.keep_alive = false;
        }
        self.end_head_with_length(length_bytes);
    }

    /// Ends the response with a refusal as JSON, when headers stand beside it (`Allow`,
    /// `Retry-After`).
    #[cold]
    pub fn error(self, refusal: &Refusal) {
        self.content_type("application/json")
            .body(&refusal.to_json());
    }

    /// These never have a body, and no Content-Length that claims one.
    fn is_bodiless(&self) -> bool {
        matches!(self.status, 100..=199 | 204 | 304)
    }

    /// Ends the head; true if the body of this length is to follow.
    #[inline]
    fn end_head_with_length(&mut self, length_bytes: u64) -> bool {
        if self.is_bodiless() {
            debug_assert!(
                length_bytes == 0 || self.status == 304,
                "{} has no body",
                self.status
            );
            self.end_head();
            return false;
        }
        let bytes = self.reply.out.bytes();
        bytes.extend_from_slice(b"Content-Length: ");
        bytes.extend_from_slice(itoa::Buffer::new().format(length_bytes).as_bytes());
        bytes.extend_from_slice(b"\r\n");
        self.end_head();
        !self.reply.exchange.head_only
    }

    fn end_head(&mut self) {
        let exchange = &mut *self.reply.exchange;
        let bytes = self.reply.out.bytes();
        match (exchange.keep_alive, exchange.http_minor) {
            (true, 0) => bytes.extend_from_slice(b"Connection: keep-alive\r\n\r\n"),
            (true, _) => bytes.extend_from_slice(b"\r\n"),
            (false, _) => bytes.extend_from_slice(b"Connection: close\r\n\r\n"),
        }
        exchange.answered = true;
        exchange.status = self.status;
    }
}

macro_rules! status_lines {
    ($($status:literal $reason:literal)*) => {
        /// The status line and the start of the Date header, as one piece.
        fn status_line(status: u16) -> Option<&'static str> {
            match status {
                $($status => Some(concat!("HTTP/1.1 ", $status, " ", $reason, "\r\nDate: ")),)*
                _ => None,
            }
        }
    };
}

with_status_codes!(status_lines);

#[cfg(test)]
mod tests {
    use super::super::output::Fill;
    use super::*;

    const HEAD: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

    /// What `answer` renders, and the exchange afterwards.
    fn render(mut exchange: Exchange, answer: impl FnOnce(Reply<'_>)) -> (String, Exchange) {
        let mut out = Output::new();
        answer(Reply::new(
            &mut out,
            &HttpDate::from_unix_seconds(784_111_777),
            &mut exchange,
        ));
        while out.is_generating() {
            out.generate(1000);
        }
        let mut slices = [std::io::IoSlice::new(&[]); 8];
        let (count, _) = out.slices(&mut slices, usize::MAX);
        let bytes = slices[..count]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        (
            String::from_utf8(bytes).expect("text").replace(HEAD, ""),
            exchange,
        )
    }

    fn get() -> Exchange {
        Exchange {
            keep_alive: true,
            ..Exchange::broken()
        }
    }

    struct Once;
    impl BodySource for Once {
        fn fill(&mut self, out: &mut Vec<u8>, _: usize) -> Fill {
            out.extend_from_slice(b"hello, chunked worl");
            Fill::Done
        }
    }

    #[test]
    fn dates_are_fixed_width() {
        assert_eq!(
            HttpDate::from_unix_seconds(784_111_777).as_bytes(),
            b"Sun, 06 Nov 1994 08:49:37 GMT"
        );
        assert_eq!(
            HttpDate::from_unix_seconds(u64::MAX).as_bytes(),
            b"Fri, 31 Dec 9999 23:59:59 GMT"
        );
    }

    #[test]
    fn bodies() {
        let (text, exchange) = render(get(), |reply| {
            reply
                .status(200)
                .content_type("text/plain")
                .etag(b"7-1a2b3c4d")
                .body(b"hi");
        });
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nETag: \
             \"7-1a2b3c4d\"\r\nContent-Length: 2\r\n\r\nhi"
        );
        assert!(exchange.answered && exchange.keep_alive);
        let (text, _) = render(get(), |reply| {
            reply.status(201).blob(SharedBytes::new(b"shared".to_vec()));
        });
        assert_eq!(
            text,
            "HTTP/1.1 201 Created\r\nContent-Length: 6\r\n\r\nshared"
        );
        let (text, _) = render(get(), |reply| reply.status(204).empty());
        assert_eq!(text, "HTTP/1.1 204 No Content\r\n\r\n");
        let (text, _) = render(get(), |reply| reply.status(404).empty());
        assert_eq!(text, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        let (text, _) = render(get(), |reply| reply.status(599).empty());
        assert_eq!(text, "HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n");
    }

    #[test]
    fn head_has_the_head_only() {
        let head = Exchange {
            head_only: true,
            ..get()
        };
        let expected = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(
            render(head, |reply| reply.status(200).body(b"hi")).0,
            expected
        );
        assert_eq!(
            render(head, |reply| reply
                .status(200)
                .blob(SharedBytes::new(b"hi".to_vec())))
            .0,
            expected
        );
        assert_eq!(
            render(head, |reply| reply.status(200).length_only(2)).0,
            expected
        );
        let (text, _) = render(head, |reply| reply.status(200).source(Box::new(Once)));
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
    }

    #[test]
    fn sources_are_chunked_or_end_with_the_connection() {
        let (text, exchange) = render(get(), |reply| reply.status(200).source(Box::new(Once)));
        let chunks = "00000013\r\nhello, chunked worl\r\n0\r\n\r\n";
        assert_eq!(
            text,
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")
        );
        assert!(exchange.keep_alive);
        let old = Exchange {
            http_minor: 0,
            ..get()
        };
        let (text, exchange) = render(old, |reply| reply.status(200).source(Box::new(Once)));
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello, chunked worl"
        );
        assert!(!exchange.keep_alive);
    }

    #[test]
    fn connection_header() {
        let old = Exchange {
            http_minor: 0,
            ..get()
        };
        assert!(
            render(old, |reply| reply.status(200).empty())
                .0
                .contains("\r\nConnection: keep-alive\r\n")
        );
        let (text, exchange) = render(get(), |reply| reply.close().status(200).empty());
        assert!(text.contains("\r\nConnection: close\r\n") && !exchange.keep_alive);
    }

    #[test]
    fn errors_are_json() {
        let refusal = Refusal::new(405, "method_not_allowed", "use GET");
        let (text, _) = render(get(), |reply| {
            reply.status(405).header("Allow", "GET").error(&refusal);
        });
        let head = "HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nContent-Type: \
                    application/json\r\nContent-Length: 64\r\n\r\n";
        assert_eq!(
            text,
            format!(
                "{head}{}",
                "{\"success\":false,\"error\":\"use GET\",\"code\":\"method_not_allowed\"}\n"
            )
        );
    }

    #[test]
    fn a_value_cannot_end_its_line() {
        let evil = "http://a\r\nSet-Cookie: x\r\n\r\nHTTP/1.1 200 OK\0\n";
        let (text, _) = render(get(), |reply| {
            reply.status(421).header("X-Leader", evil).empty();
        });
        let value = "http://a  Set-Cookie: x    HTTP/1.1 200 OK  ";
        assert_eq!(
            text,
            format!(
                "HTTP/1.1 421 Misdirected Request\r\nX-Leader: {value}\r\nContent-Length: 0\r\n\r\n"
            )
        );
    }
}
