//! The grammar of single parts of a head: request target, Host, Content-Length, Transfer-Encoding,
//! Connection, Expect.
//!
//! Invariants:
//! 1. Every function here is one pass over its value and allocates only for a refusal's text.
//! 2. A value that RFC 9110 or 9112 do not allow is refused; nothing is repaired.
//!
//! Not here: which header goes where and what they mean together (`request.rs`), percent-decoding
//! (the api layer).

use std::str::FromStr;

use memchr::{memchr, memchr2};

use super::head::{Framing, Head, Method};
use super::refusal::Refusal;

/// A byte of a token (RFC 9110 section 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    TOKEN_BYTES[usize::from(byte)]
}

const TOKEN_BYTES: [bool; 256] = letters_digits_and(b"!#$%&'*+-.^_`|~");

/// A table of the bytes that are ASCII letters, digits or one of `others`.
const fn letters_digits_and(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128_u8 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
}

/// Takes the request target apart into `head`'s path and query, and host if it names one (RFC 9112
/// section 3.2).
pub(super) fn read_target<'b>(target: &'b [u8], head: &mut Head<'b>) -> Result<(), Refusal> {
    // httparse has seen to control bytes and spaces; it lets UTF-8 through.
    if !target.is_ascii() {
        return Err(Refusal::bad_request(
            "a byte that is not ASCII in the request target: percent-encode it",
        ));
    }
    head.is_literal = memchr2(b'%', b'+', target).is_none();
    if head.method == Method::Connect {
        head.path = target;
        return Ok(());
    }
    match target {
        [b'/', ..] => read_path(target, head),
        b"*" if head.method == Method::Options => {
            head.path = target;
            Ok(())
        }
        _ => read_absolute(target, head),
    }
}

fn read_path<'b>(target: &'b [u8], head: &mut Head<'b>) -> Result<(), Refusal> {
    match memchr2(b'?', b'#', target) {
        None => head.path = target,
        Some(at) => {
            let query = &target[at + 1..];
            if target[at] == b'#' || memchr(b'#', query).is_some() {
                return Err(Refusal::bad_request(
                    "a `#` in the request target: percent-encode it as %23",
                ));
            }
            head.path = &target[..at];
            head.query = Some(query);
        }
    }
    if head.path.is_empty() {
        head.path = b"/";
    }
    Ok(())
}

/// `http://authority/path?query`.
fn read_absolute<'b>(target: &'b [u8], head: &mut Head<'b>) -> Result<(), Refusal> {
    let scheme_bytes = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|scheme| {
            target
                .get(..scheme.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        })
        .map(<[u8]>::len);
    let Some(scheme_bytes) = scheme_bytes else {
        return Err(Refusal::bad_request(
            "malformed request target: write a path that begins with `/`",
        ));
    };
    let rest = &target[scheme_bytes..];
    let authority_bytes = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'))
        .unwrap_or(rest.len());
    let (authority, path) = rest.split_at(authority_bytes);
    check_host(authority)?;
    if is_nameless(authority) {
        return Err(Refusal::bad_request(
            "no host in the request target: write `http://host/path`, or only the path",
        ));
    }
    head.host = Some(authority);
    read_path(path, head)
}

/// Is this `host`, `host:port`, `[address]:port` or nothing? User information is refused: it only
/// serves to mislead.
pub(super) fn check_host(value: &[u8]) -> Result<(), Refusal> {
    let port = if let [b'[', rest @ ..] = value {
        memchr(b']', rest).and_then(|end| {
            let (address, port) = (&rest[..end], &rest[end + 1..]);
            let is_address = address.contains(&b':')
                && address
                    .iter()
                    .all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
            is_address.then_some(port)
        })
    } else {
        let (name, port) = value.split_at(memchr(b':', value).unwrap_or(value.len()));
        let is_name = name.iter().all(|byte| HOST_NAME_BYTES[usize::from(*byte)]);
        is_name.then_some(port)
    };
    match port {
        // RFC 3986 allows `host:` with nothing behind the colon.
        Some([] | [b':']) => Ok(()),
        Some([b':', digits @ ..]) if number::<u16>(digits).is_some() => Ok(()),
        _ => Err(Refusal::bad_request(
            "invalid Host: write a name or an address, and `:port` if needed",
        )),
    }
}

/// Whether there is neither name nor address before the port.
pub(super) fn is_nameless(host: &[u8]) -> bool {
    matches!(host, [] | [b':', ..])
}

/// The characters of RFC 3986's reg-name, without the comma, by which intermediaries join repeated
/// headers. A table, since every request has a host.
const HOST_NAME_BYTES: [bool; 256] = letters_digits_and(b"-._~%!$&'()*+;=");

/// The number that digits name; none if there is another byte, or the number is too large.
fn number<N: FromStr>(digits: &[u8]) -> Option<N> {
    let is_decimal = digits.iter().all(u8::is_ascii_digit);
    let digits = str::from_utf8(digits).ok().filter(|_| is_decimal)?;
    digits.parse().ok()
}

/// A decimal number: digits only, within `u64`.
pub(super) fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    number(value).ok_or_else(|| {
        Refusal::bad_request("malformed Content-Length: write one number of bytes, digits only")
    })
}

/// Accepts `chunked` only: an unknown coding is refused with 501, a body without an end with 400.
pub(super) fn transfer_encoding(value: &[u8]) -> Result<Framing, Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(Framing::Chunked);
    }
    let mut codings = value.rsplit(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let last_is_chunked = codings
        .next()
        .is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    let (mut chunked_earlier, mut any_empty) = (
        false,
        value.trim_ascii_end().ends_with(b",") || value.is_empty(),
    );
    for coding in codings {
        chunked_earlier |= coding.eq_ignore_ascii_case(b"chunked");
        any_empty |= coding.is_empty();
    }
    if chunked_earlier || any_empty {
        return Err(Refusal::bad_request(
            "malformed Transfer-Encoding: `chunked` must be the last coding, and stand once",
        ));
    }
    let message = if last_is_chunked {
        "a coding before `chunked` is not implemented: send the body as it is, Transfer-Encoding: \
         chunked"
    } else {
        "this transfer coding is not implemented: use Transfer-Encoding: chunked"
    };
    Err(Refusal::new(
        501,
        "transfer_coding_not_implemented",
        message,
    ))
}

/// Adds the options of one Connection line; unknown options are ignored.
pub(super) fn read_connection(value: &[u8], close: &mut bool, keep_alive: &mut bool) {
    for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
        *close |= option.eq_ignore_ascii_case(b"close");
        *keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
    }
}

/// HTTP/1.0 has no interim responses: there the expectation is ignored (RFC 9110 section 10.1.1).
pub(super) fn read_expect(value: &[u8], head: &mut Head<'_>) -> Result<(), Refusal> {
    if head.http_minor == 0 {
        return Ok(());
    }
    for expectation in members(value) {
        if !expectation.eq_ignore_ascii_case(b"100-continue") {
            let message = "this expectation cannot be met: send Expect: 100-continue or none";
            return Err(Refusal::new(417, "expectation_failed", message));
        }
        head.expect_continue = true;
    }
    Ok(())
}

/// Whether a Content-Encoding is `identity`.
pub(super) fn is_identity(value: &[u8]) -> bool {
    members(value).all(|coding| coding.eq_ignore_ascii_case(b"identity"))
}

/// The members of a list, without the empty ones (RFC 9110, section 5.6.1.2).
fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}
