//! Heads: what is read out of them, and the table of what is refused.

use super::field_table::{Field, FieldSet, Repeat};
use super::head::{Framing, Head, Method};
use super::head_reader::HeadReader;
use super::refusal::Refusal;
use super::request::{HeadLimits, parse_head};

const LIMITS: HeadLimits = HeadLimits {
    head_bytes: 2048,
    header_count: 20,
};

#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
enum ParsedHead<'b> {
    Incomplete,
    Complete { head: Head<'b>, head_bytes: usize },
    Refused(Refusal),
}

/// What comes of reading, by `read`.
fn verdict<'b>(
    read: impl FnOnce(&'b mut Vec<u8>, &mut Head<'b>) -> Result<Option<usize>, Refusal>,
) -> ParsedHead<'b> {
    let mut head = Head::default();
    // Lists that are joined live as long as the head; a test may leave them behind.
    match read(Box::leak(Box::default()), &mut head) {
        Ok(None) => ParsedHead::Incomplete,
        Ok(Some(head_bytes)) => ParsedHead::Complete { head, head_bytes },
        Err(refusal) => ParsedHead::Refused(refusal),
    }
}

/// The verdict on `input` given whole; checked to be the same byte by byte, and by a reader that
/// has read it before.
fn parse(input: &[u8]) -> ParsedHead<'_> {
    let whole = verdict(|joined, head| parse_head(input, &mut 0, &LIMITS, joined, head));
    let mut reader = HeadReader::new(LIMITS);
    for _ in 0..2 {
        assert_eq!(
            verdict(|joined, head| reader.read(input, &mut 0, joined, head)),
            whole
        );
    }
    let mut scanned = 0;
    for end in 0..=input.len() {
        let piecewise =
            verdict(|joined, head| parse_head(&input[..end], &mut scanned, &LIMITS, joined, head));
        if piecewise != ParsedHead::Incomplete {
            assert_eq!(
                piecewise,
                whole,
                "after {end} bytes of {:?}",
                String::from_utf8_lossy(input)
            );
            return whole;
        }
    }
    assert_eq!(whole, ParsedHead::Incomplete);
    whole
}

fn head(input: &[u8]) -> Head<'_> {
    match parse(input) {
        ParsedHead::Complete { head, head_bytes } => {
            assert_eq!(head_bytes, input.len());
            head
        }
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(input)),
    }
}

/// The head of a request with this target, or `None` if it is refused.
fn target(line: &str) -> Option<(String, Option<String>, String)> {
    let text = format!("{line} HTTP/1.1\r\nHost: h:1\r\n\r\n");
    let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    match parse(text.as_bytes()) {
        ParsedHead::Complete { head, .. } => {
            let is_literal = !line.contains(['%', '+']);
            assert_eq!(head.is_literal, is_literal, "{line}");
            Some((
                utf8(head.path),
                head.query.map(utf8),
                utf8(head.host.expect("a host")),
            ))
        }
        _ => None,
    }
}

/// Other protocols are answered at once: their clients wait for that. What may still become a
/// request waits for the rest.
#[test]
fn other_protocols_are_answered_at_once() {
    for begin in [
        &b"PING\r\n"[..],
        b"PING\n",
        b"\r\nPING\r\n",
        b"hello\r\n",
        b"quit\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"*3\r\n$3\r\nSET\r\n",
        b"$4\r\n",
        b"+PING\r\n",
        b"get a\r\n",
        b"set a 0 0 1\r\n",
        b"GET a\r\n",
        b"GET /\r\n",
        b"SELECT 1;\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"EHLO mail.example\r\n",
        b"USER a 0 * :b\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\x80\x80\x01\x03\x01",
        // The first packets of Postgres, MongoDB, Cassandra, and of binary memcached.
        b"\0\0\0\x08\x04\xd2\x16\x2f",
        b"A\0\0\0\x02\0\0\0",
        b"\x04\0\0\0",
        b"\x80\0\0\x01",
        b"GET /\x01",
        b"G\xe9T / HTTP/1.1",
    ] {
        let ParsedHead::Refused(refusal) = parse(begin) else {
            panic!("{} is not refused", begin.escape_ascii());
        };
        assert_eq!((refusal.status, refusal.code), (400, "bad_request"));
        let is_tls = begin[0] == 0x16;
        let word = if is_tls { "TLS" } else { "curl" };
        assert!(refusal.message.contains(word), "{}", refusal.message);
    }
    let ParsedHead::Refused(refusal) = parse(b"PRI * HTTP/2.0\r\n") else {
        panic!("HTTP/2 is not refused");
    };
    assert_eq!(refusal.status, 505);
    let whole = b"GET http://host:9001/kv/a?x=/%20+ HTTP/1.1\r\nHost: h\r\nA: b";
    for end in 0..=whole.len() {
        assert_eq!(parse(&whole[..end]), ParsedHead::Incomplete, "{end}");
    }
    for begin in [
        &b"BREW"[..],
        b"get",
        b"*",
        b"OPTIONS *",
        b"GET / HTTP/2",
        b"CONNECT a:1 HTTP",
    ] {
        assert_eq!(parse(begin), ParsedHead::Incomplete);
    }
}

#[test]
fn a_whole_head() {
    let input = b"\r\n\r\nPOST /set?key=a%20b HTTP/1.1\r\nhOST: localhost:9001\r\n\
        Content-Length: 0012\r\n\
        Content-Type:text/plain \t\r\nACCEPT: a/b\r\nAccept: c/d\r\nAuthorization: Bearer x\r\n\
        Origin: http://o\r\n\
        Sec-Fetch-Site: none\r\nIf-Match: \"1\"\r\nIf-None-Match: *\r\nX-Partition-ID: 3\r\n\
        X-TTL: 1.5\r\n\
        X-Min-Acks: 2\r\nExpect: 100-Continue\r\nX-Unknown: \xff\r\nEmpty:\r\n\r\n";
    let expected = Head {
        is_literal: false,
        method: Method::Post,
        path: b"/set",
        query: Some(b"key=a%20b"),
        http_minor: 1,
        keep_alive: true,
        framing: Framing::Length(12),
        expect_continue: true,
        host: Some(b"localhost:9001"),
        content_type: Some(b"text/plain"),
        accept: Some(b"a/b, c/d"),
        authorization: Some(b"Bearer x"),
        origin: Some(b"http://o"),
        sec_fetch_site: Some(b"none"),
        if_match: Some(b"\"1\""),
        if_none_match: Some(b"*"),
        partition_id: Some(b"3"),
        ttl: Some(b"1.5"),
        last_event_id: None,
        min_acks: Some(b"2"),
        given: FieldSet::of(&[
            Field::Host,
            Field::ContentLength,
            Field::ContentType,
            Field::Accept,
            Field::Authorization,
            Field::Origin,
            Field::SecFetchSite,
            Field::IfMatch,
            Field::IfNoneMatch,
            Field::PartitionId,
            Field::Ttl,
            Field::MinAcks,
        ]),
        repeated: FieldSet::EMPTY,
    };
    assert_eq!(head(input), expected);
}

/// Each field of the table on two lines, apart and in any case, with another in between.
#[test]
fn fields_on_several_lines() {
    for &field in Field::ALL {
        let (first, second) = match field {
            Field::Host | Field::Origin => ("a", "b"),
            Field::ContentLength => ("1", "1"),
            Field::TransferEncoding => ("gzip", "chunked"),
            Field::Expect => ("100-continue", ", 100-Continue"),
            Field::IfMatch => ("\"1\"", "\"2\",,\"3\""),
            _ => ("", "x"),
        };
        let name = field.name();
        let host = if field == Field::Host {
            ""
        } else {
            "Host: h\r\n"
        };
        let (upper, lower) = (name.to_uppercase(), name.to_lowercase());
        let text = format!(
            "GET / HTTP/1.1\r\n{host}{upper}: {first}\r\nA: b\r\n{lower}:{second} \r\n\r\n"
        );
        match (field, field.repeat(), parse(text.as_bytes())) {
            (_, Repeat::Framing, ParsedHead::Refused(refusal)) => {
                assert_eq!(
                    refusal.message,
                    format!("{name} given more than once: send it once")
                );
            }
            // What they are together is no coding that is implemented.
            (Field::TransferEncoding, _, ParsedHead::Refused(refusal)) => {
                assert_eq!(refusal.status, 501);
            }
            (_, Repeat::Single, ParsedHead::Complete { mut head, .. }) => {
                assert_eq!(head.repeated, FieldSet::of(&[field]));
                let value = head.value_mut(field).map(|value| *value);
                assert!(
                    value.is_none_or(|value| value == Some(first.as_bytes())),
                    "{name}"
                );
            }
            (_, Repeat::List, ParsedHead::Complete { mut head, .. }) => {
                assert!(head.repeated.is_empty());
                let joined = format!("{first}, {second}");
                let value = head.value_mut(field).map(|value| *value);
                assert!(
                    value.is_none_or(|value| value == Some(joined.as_bytes())),
                    "{name}"
                );
                assert_eq!(head.expect_continue, field == Field::Expect);
                assert_eq!(
                    head.given.has(field),
                    !matches!(field, Field::Connection | Field::Expect)
                );
            }
            (.., other) => panic!("{name}: {other:?}"),
        }
    }
}

/// Several lists on several lines each are joined each for itself.
#[test]
fn lists_are_joined_apart_from_one_another() {
    let head = head(
        b"GET / HTTP/1.1\r\nHost: h\r\nIf-Match: \"1\"\r\nAccept: a/b\r\nIf-None-Match:\r\n\
          If-Match: \"2\"\r\n\
          Accept: c/d\r\nIf-None-Match: \"3\"\r\nIf-Match: \"4\"\r\n\r\n",
    );
    assert_eq!(head.if_match, Some(&b"\"1\", \"2\", \"4\""[..]));
    assert_eq!(head.if_none_match, Some(&b", \"3\""[..]));
    assert_eq!(head.accept, Some(&b"a/b, c/d"[..]));
}

#[test]
fn a_content_encoding_is_given_only_if_it_encodes() {
    for (value, is_given) in [
        ("", false),
        ("identity", false),
        (" , Identity,", false),
        ("gzip", true),
        ("identity, gzip", true),
    ] {
        let text = format!("PUT / HTTP/1.0\r\nContent-Encoding: {value}\r\n\r\n");
        let given = head(text.as_bytes()).given;
        assert_eq!(given.has(Field::ContentEncoding), is_given, "{value}");
    }
}

#[test]
fn only_the_head_is_taken() {
    let input = b"GET / HTTP/1.0\r\nHost:\r\n\r\nGET /next";
    let ParsedHead::Complete { head, head_bytes } = parse(input) else {
        panic!("whole")
    };
    assert_eq!((head.host, head_bytes), (Some(&b""[..]), 25));
    assert_eq!(parse(&input[..24]), ParsedHead::Incomplete);
    assert_eq!(parse(b""), ParsedHead::Incomplete);
    assert_eq!(parse(b"\r\n\r"), ParsedHead::Incomplete);
}

#[test]
fn methods() {
    for (name, method) in [
        ("GET", Method::Get),
        ("DELETE", Method::Delete),
        ("BREW", Method::Other),
        ("get", Method::Other),
    ] {
        assert_eq!(
            head(format!("{name} / HTTP/1.0\r\n\r\n").as_bytes()).method,
            method
        );
    }
    assert_eq!(
        head(b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n").path,
        b"a:1"
    );
}

#[test]
fn targets() {
    let found = |path: &str, query: Option<&str>, host: &str| {
        Some((path.to_owned(), query.map(str::to_owned), host.to_owned()))
    };
    assert_eq!(target("GET /a?b?c"), found("/a", Some("b?c"), "h:1"));
    assert_eq!(target("GET /a?"), found("/a", Some(""), "h:1"));
    assert_eq!(target("GET //a"), found("//a", None, "h:1"));
    assert_eq!(target("OPTIONS *"), found("*", None, "h:1"));
    assert_eq!(
        target("GET http://other:80/x?y"),
        found("/x", Some("y"), "other:80")
    );
    assert_eq!(target("GET HTTPS://[::1]"), found("/", None, "[::1]"));
    assert_eq!(target("GET http://other?y"), found("/", Some("y"), "other"));
    for refused in [
        "GET *",
        "GET a",
        "GET ftp://h/",
        "GET http:///x",
        "GET http://:80/x",
        "GET http://u@h/",
        "GET /#",
        "GET /?#",
        "GET /é",
        "GET http://h#f",
    ] {
        assert_eq!(target(refused), None, "{refused}");
    }
}

#[test]
fn hosts() {
    let parse_host = |host: &str| {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        matches!(parse(text.as_bytes()), ParsedHead::Complete { .. })
    };
    for valid in [
        "a",
        "a.b-c_d",
        "127.0.0.1:9001",
        "[::1]",
        "[::ffff:1.2.3.4]:65535",
        "a:",
        "xn--e1aybc.example:80",
    ] {
        assert!(parse_host(valid), "{valid:?}");
    }
    let invalid = [
        "",
        ":",
        ":80",
        "a b",
        "a,b",
        "u@h",
        "a/b",
        "a:65536",
        "a:1:2",
        "::1",
        "[::1",
        "[::1]x",
        "[]",
        "[x]",
        "a:-1",
        "a:8a",
        "é",
        "a\tb",
        "a?b",
        "a#b",
        "a:184467440737095516160",
        "\"a\"",
        "<a>",
        "a\\b",
    ];
    for invalid in invalid {
        assert!(!parse_host(invalid), "{invalid:?}");
    }
}

/// The authority of the target stands for Host; HTTP/1.0 needs none.
#[test]
fn an_empty_host_is_refused_where_it_names_the_node() {
    for (text, is_refused) in [
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nHost: \t\r\n\r\n", true),
        ("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n", true),
        ("GET http://h/ HTTP/1.1\r\nHost:\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nHost:\r\n\r\n", false),
        ("GET / HTTP/1.0\r\n\r\n", false),
    ] {
        let found = parse(text.as_bytes());
        let refused = matches!(&found, ParsedHead::Refused(refusal) if refusal.status == 400);
        assert_eq!(refused, is_refused, "{text:?}: {found:?}");
    }
}

#[test]
fn keep_alive() {
    let keeps = |minor: u8, lines: &str| {
        head(format!("GET / HTTP/1.{minor}\r\nHost: h\r\n{lines}\r\n").as_bytes()).keep_alive
    };
    assert!(keeps(1, "") && !keeps(0, ""));
    assert!(keeps(0, "Connection: foo, Keep-Alive\r\n"));
    assert!(!keeps(1, "Connection: x ,\tCLOSE\r\n"));
    assert!(!keeps(0, "Connection: close\r\nConnection: keep-alive\r\n"));
    assert!(!keeps(1, "Connection: keep-alive, close\r\n"));
    assert!(keeps(1, "Connection: closed\r\nConnection:\r\n"));
}

#[test]
fn http_1_0_has_no_expectations() {
    let head = head(
        b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n",
    );
    assert!(!head.expect_continue);
}

#[test]
fn header_count_is_limited() {
    let with = |count: usize| format!("GET / HTTP/1.0\r\n{}\r\n", "a: b\r\n".repeat(count));
    assert!(matches!(
        parse(with(20).as_bytes()),
        ParsedHead::Complete { .. }
    ));
    assert!(
        matches!(parse(with(21).as_bytes()), ParsedHead::Refused(refusal) if refusal.status == 431)
    );
    let beyond = HeadLimits {
        head_bytes: 10_000,
        header_count: usize::MAX,
    };
    for count in [100, 101] {
        let text = with(count);
        let found =
            verdict(|joined, head| parse_head(text.as_bytes(), &mut 0, &beyond, joined, head));
        assert_eq!(
            matches!(found, ParsedHead::Complete { .. }),
            count == 100,
            "{found:?}"
        );
    }
}

#[test]
fn head_bytes_are_limited() {
    let with = |bytes: usize| format!("GET / HTTP/1.0\r\na: {}\r\n\r\n", "v".repeat(bytes - 23));
    assert!(matches!(
        parse(with(2048).as_bytes()),
        ParsedHead::Complete {
            head_bytes: 2048,
            ..
        }
    ));
    assert!(matches!(
        parse(with(2049).as_bytes()),
        ParsedHead::Refused(refusal) if refusal.status == 431
    ));
    assert_eq!(
        parse(&with(2049).as_bytes()[..2047]),
        ParsedHead::Incomplete
    );
    let long_line = format!("GET /{} HTTP/1.0\r\n\r\n", "p".repeat(2048));
    assert!(
        matches!(parse(long_line.as_bytes()), ParsedHead::Refused(refusal) if refusal.status == 414)
    );
}

#[test]
fn malformed_heads() {
    const R: &str = "GET / HTTP/1.1\r\nHost: h\r\n";
    let lines = |status: u16, lines: &str| (status, format!("{R}{lines}\r\n\r\n").into_bytes());
    let raw = |status: u16, head: &str| (status, head.as_bytes().to_vec());
    let table = [
        // framing
        lines(400, "Content-Length: 1\r\nTransfer-Encoding: chunked"),
        lines(400, "Transfer-Encoding: gzip, chunked\r\nContent-Length: 1"),
        lines(400, "Content-Length: 1\r\nContent-Length: 1"),
        lines(400, "Content-Length: 1\r\nContent-Length: 2"),
        lines(400, "Content-Length: 1, 1"),
        lines(400, "Content-Length: +1"),
        lines(400, "Content-Length: -1"),
        lines(400, "Content-Length: 0x1"),
        lines(400, "Content-Length: 1 1"),
        lines(400, "Content-Length:"),
        lines(400, "Content-Length: 18446744073709551616"),
        lines(400, "Content-Length: 99999999999999999999999999"),
        lines(
            400,
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ),
        lines(400, "Transfer-Encoding: chunked, gzip"),
        lines(400, "Transfer-Encoding: chunked, chunked"),
        lines(400, "Transfer-Encoding: chunked,"),
        lines(400, "Transfer-Encoding: ,chunked"),
        lines(400, "Transfer-Encoding:"),
        lines(400, "Transfer-Encoding : chunked"),
        lines(400, "Transfer-Encoding: \x0bchunked"),
        lines(501, "Transfer-Encoding: gzip, chunked"),
        lines(501, "Transfer-Encoding: nonsense"),
        lines(501, "Transfer-Encoding: chunked;q=1"),
        lines(501, "Transfer-Encoding: \"chunked\""),
        raw(400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        // lines
        lines(400, "A: b\r\n folded"),
        lines(400, "A: b\r\n\tfolded"),
        lines(400, "A : b"),
        lines(400, "A\t: b"),
        lines(400, "no colon"),
        lines(400, ": b"),
        lines(400, "A: b\nC: d"),
        lines(400, "A: b\rC: d"),
        lines(400, "A: \0"),
        lines(400, "A\0: b"),
        lines(400, "A: \x7f"),
        lines(400, "A(: b"),
        lines(400, "\u{e9}: b"),
        raw(400, "GET / HTTP/1.1\r\n Host: h\r\n\r\n"),
        raw(400, "GET / HTTP/1.1\nHost: h\n\n"),
        raw(400, "GET / HTTP/1.1\r\nHost: h\r\n\n"),
        raw(400, "GET / HTTP/1.1\r\nHost: h\r\n\r\r\n\r\n"),
        raw(400, "GET / HTTP/1.1\r\r\nHost: h\r\n\r\n"),
        // request line
        raw(400, "GET /\r\n\r\n"),
        raw(400, "GET / \r\n\r\n"),
        raw(400, "GET\r\n\r\n"),
        raw(400, "GET  / HTTP/1.1\r\nHost: h\r\n\r\n"),
        raw(400, "GET /  HTTP/1.1\r\nHost: h\r\n\r\n"),
        raw(400, "GET / HTTP/1.1 \r\nHost: h\r\n\r\n"),
        raw(400, "GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n"),
        raw(400, "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"),
        raw(400, "GET /\x01 HTTP/1.1\r\nHost: h\r\n\r\n"),
        raw(400, "GET /\x7f HTTP/1.1\r\nHost: h\r\n\r\n"),
        raw(400, "G(T / HTTP/1.1\r\nHost: h\r\n\r\n"),
        raw(400, "GET / http/1.1\r\nHost: h\r\n\r\n"),
        raw(400, "GET / HTTP/1.10\r\nHost: h\r\n\r\n"),
        raw(400, "GET / HTTP/11\r\nHost: h\r\n\r\n"),
        raw(400, "GET / HTTP/1\r\n\r\n"),
        raw(400, "GET / HTTP/1.\r\n\r\n"),
        raw(400, "GET / JUNK\r\n\r\n"),
        raw(505, "GET / HTTP/2.0\r\nHost: h\r\n\r\n"),
        raw(505, "GET / HTTP/1.2\r\nHost: h\r\n\r\n"),
        raw(505, "GET / HTTP/0.9\r\n\r\n"),
        raw(505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        // not HTTP
        raw(400, "\x16\x03\x01"),
        raw(400, " GET"),
        raw(400, "\n"),
        raw(400, "\rG"),
        raw(400, "\r\n\r\n\r\n\r\n\r\n"),
        raw(400, "\0"),
        raw(400, "{"),
        // Host, and what may stand once
        raw(400, "GET / HTTP/1.1\r\n\r\n"),
        raw(400, "GET http://h/ HTTP/1.1\r\n\r\n"),
        lines(400, "Host: h"),
        lines(400, "Transfer-Encoding:\r\nTransfer-Encoding: chunked"),
        lines(501, "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"),
        lines(417, "Expect: tea"),
        lines(417, "Expect: 100-continue\r\nExpect: tea"),
        lines(417, "Expect: 100-continue, tea"),
    ];
    for (status, input) in table {
        match parse(&input) {
            ParsedHead::Refused(refusal) if refusal.status == status => {}
            other => panic!(
                "{:?}: {status} expected, {other:?} found",
                String::from_utf8_lossy(&input)
            ),
        }
    }
}

/// Whatever a reader has read before, it reads as one that has read nothing.
#[test]
fn what_is_remembered_changes_nothing() {
    const LINES: [&str; 17] = [
        "Host: h",
        "Host: other:9001",
        "HOST:\t",
        "Accept: */*",
        "Content-Length: 3",
        "Content-Length: 12",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
        "Connection: close",
        "Expect: 100-continue",
        "X-TTL: 5",
        "X-Partition-ID: 2",
        "If-Match: \"1\"",
        "if-match: \"2\"",
        "X-TTL: 6",
        "Content-Encoding: gzip",
        "X-Unknown: ?",
    ];
    const TARGETS: [&str; 12] = [
        "/",
        "/kv/a",
        "/kv/a%20b",
        "/kv/a-longer-one+",
        "/get?key=longer+than-eight",
        "/get?key=100%25&key=%41",
        "/get?key=a?b",
        "/?",
        "/#",
        "http://x/y",
        "*",
        "/\u{e9}",
    ];
    let (mut alike_count, mut whole_count) = (0, 0);
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut reader = HeadReader::new(LIMITS);
        // Few lines, so that heads are often alike.
        let some: Vec<&str> = (0..3).map(|_| LINES[rng.usize(..LINES.len())]).collect();
        for _ in 0..100 {
            let method = ["GET", "PUT", "POST", "DELETE", "HEAD", "GETS"][rng.usize(..6)];
            let (target, minor) = (
                TARGETS[rng.usize(..TARGETS.len())],
                u8::from(rng.u8(..8) > 0),
            );
            let mut text = format!("{method} {target} HTTP/1.{minor}\r\n");
            for line in some.iter().filter(|_| rng.u8(..8) > 0) {
                text.extend([*line, "\r\n"]);
            }
            let mut input = (text + "\r\nGET").into_bytes();
            if rng.u8(..4) == 0 {
                let at = rng.usize(..input.len());
                input[at] = if rng.bool() {
                    rng.u8(..)
                } else {
                    b" \r\n?#:"[rng.usize(..6)]
                };
            }
            input.truncate(
                input.len()
                    - if rng.bool() {
                        rng.usize(..input.len())
                    } else {
                        0
                    },
            );
            alike_count += usize::from(reader.read_alike(&input, &mut Head::default()).is_some());
            let expected =
                verdict(|joined, head| parse_head(&input, &mut 0, &LIMITS, joined, head));
            whole_count += usize::from(matches!(expected, ParsedHead::Complete { .. }));
            let found = verdict(|joined, head| reader.read(&input, &mut 0, joined, head));
            assert_eq!(
                found,
                expected,
                "seed {seed}: {:?}",
                String::from_utf8_lossy(&input)
            );
        }
    }
    assert!(
        alike_count > whole_count / 10,
        "{alike_count} of {whole_count} heads were found to be like one before"
    );
}

/// What is going to be asked is found as far as it is plain, and no further.
#[test]
fn looking_ahead() {
    let stream = b"GET /kv/a HTTP/1.1\r\nHost: h\r\n\r\nPUT /kv/b HTTP/1.1\r\nHost: h\r\n\
        Content-Length: 3\r\n\r\nGETGET /kv/c?d HTTP/1.1\r\n\
        Host: h\r\n\r\n\r\nGET /kv/e HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut reader = HeadReader::new(LIMITS);
    assert_eq!(reader.look_ahead(stream).count(), 0, "nothing is known yet");
    for known in [
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n",
    ] {
        assert!(
            reader
                .read(
                    known.as_bytes(),
                    &mut 0,
                    &mut Vec::new(),
                    &mut Head::default()
                )
                .is_ok()
        );
    }
    let paths = |stream| {
        reader
            .look_ahead(stream)
            .map(|(target, _)| target.path.to_vec())
            .collect::<Vec<_>>()
    };
    assert_eq!(paths(stream), [b"/kv/a", b"/kv/b", b"/kv/c"]);
    assert_eq!(
        paths(&stream[..90]),
        [b"/kv/a", b"/kv/b"],
        "cut within the third"
    );
    let put = b"PUT /kv/d HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nxyz";
    let bodies = |stream| {
        reader
            .look_ahead(stream)
            .map(|(_, body)| body.to_vec())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (bodies(put), bodies(&put[..put.len() - 1])),
        (vec![b"xyz".to_vec()], vec![b"".to_vec()])
    );
}

#[test]
fn long_heads_are_not_remembered() {
    let input = format!("GET / HTTP/1.0\r\na: {}\r\n\r\n", "v".repeat(1024)).into_bytes();
    let mut reader = HeadReader::new(LIMITS);
    assert!(matches!(
        verdict(|joined, head| reader.read(&input, &mut 0, joined, head)),
        ParsedHead::Complete { .. }
    ));
    assert_eq!(reader.read_alike(&input, &mut Head::default()), None);
}

/// A head that is remembered under a limit is still held to it with a longer target.
#[test]
fn the_limit_holds_for_what_is_alike() {
    let with =
        |bytes: usize| format!("GET /{} HTTP/1.0\r\n\r\n", "p".repeat(bytes - 18)).into_bytes();
    let mut reader = HeadReader::new(LIMITS);
    for (bytes, fits) in [(100, true), (2048, true), (2049, false)] {
        let input = with(bytes);
        let found = verdict(|joined, head| reader.read(&input, &mut 0, joined, head));
        assert_eq!(
            matches!(found, ParsedHead::Complete { .. }),
            fits,
            "{bytes}"
        );
    }
}
