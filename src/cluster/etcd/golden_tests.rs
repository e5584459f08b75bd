//! Answers as etcd gives them, in any cut, and damaged.

use crate::config::EtcdUser;

use super::client::{Channel, Client, ConnectionId, Effect, TOO_LONG};
use super::{ANSWER_MAX_BYTES, Answer, Failure, HEAD_MAX_BYTES, KeyValue, Request};

/// What etcd 3.4.23 sends before a body of which it knows the length.
const FIELDS: &str = "Access-Control-Allow-Headers: accept, content-type, authorization\r\n\
    Access-Control-Allow-Methods: POST, GET, OPTIONS, PUT, DELETE\r\n\
    Access-Control-Allow-Origin: *\r\n\
    Content-Type: application/json\r\n\
    Grpc-Metadata-Content-Type: application/grpc\r\n\
    Date: Mon, 30 Nov 2026 02:40:05 GMT\r\n";

const HEADER: &str = "\"header\":{\"cluster_id\":\"4112934336692182944\",\
    \"member_id\":\"9673840041913631436\",\"revision\":\"7\",\"raft_term\":\"2\"}";

const PREFIX: &str = "/db-node/x/";

/// An answer with its length.
fn with_length(status: &str, body: &str) -> Vec<u8> {
    let body = body.replace("HEADER", HEADER);
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{FIELDS}Content-Length: {length}\r\n\r\n{body}").into_bytes()
}

/// An error as etcd sends it, in chunks with a trailer.
fn in_chunks(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{FIELDS}Trailer: Grpc-Trailer-Content-Type\r\n\
         Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\
         Grpc-Trailer-Content-Type: application/grpc\r\n\r\n"
    )
    .into_bytes()
}

/// A watch that says these lines, each in a chunk, and ends if it says so.
fn stream(lines: &[&str], has_end: bool) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\n{FIELDS}Transfer-Encoding: chunked\r\n\r\n");
    for line in lines {
        let line = line.replace("HEADER", HEADER);
        let length = line.len() + 1;
        answer = format!("{answer}{length:x}\r\n{line}\n\r\n");
    }
    if has_end {
        answer.push_str("0\r\n\r\n");
    }
    answer.into_bytes()
}

fn client(user: Option<EtcdUser>) -> Client {
    Client::new(vec!["h:1".to_owned()], user, PREFIX.to_owned(), 1)
}

fn range() -> Request {
    Request::Range {
        prefix: PREFIX.to_owned(),
    }
}

fn write() -> Request {
    Request::Write {
        compares: vec![("/db-node/x/a".to_owned(), 2)],
        puts: vec![("/db-node/x/a".to_owned(), b"one".to_vec())],
        deletes: Vec::new(),
    }
}

fn number(channel: Channel, number: u64) -> ConnectionId {
    ConnectionId { channel, number }
}

/// What a client makes of an answer in pieces; none: it waits for more.
fn answer_to(
    request: Request,
    pieces: &mut dyn Iterator<Item = &[u8]>,
) -> Option<Result<Answer, Failure>> {
    let mut client = client(None);
    client.submit(3, request, 0);
    let id = number(Channel::Requests, 1);
    client.on_connected(id, 0);
    for piece in pieces {
        client.on_bytes(id, piece, 0);
    }
    let mut found = None;
    while let Some(effect) = client.next_effect() {
        if let Effect::Outcome(outcome) = effect {
            assert_eq!(outcome.ticket, 3);
            assert!(found.is_none(), "two outcomes");
            found = Some(outcome.result);
        }
    }
    found
}

/// The same answer however it is cut, and none before it is whole.
fn assert_answer(request: &Request, answer: &[u8], expected: &Result<Answer, Failure>) {
    let expected = Some(expected);
    for cut in 0..=answer.len() {
        let (first, rest) = answer.split_at(cut);
        let found = answer_to(request.clone(), &mut [first, rest].into_iter());
        assert_eq!(found.as_ref(), expected, "cut at {cut}");
        if cut < answer.len() {
            let found = answer_to(request.clone(), &mut [first].into_iter());
            assert_eq!(found, None, "of {cut} bytes");
        }
    }
    for piece_bytes in [1, 2, 3, 7] {
        let found = answer_to(request.clone(), &mut answer.chunks(piece_bytes));
        assert_eq!(found.as_ref(), expected, "in pieces of {piece_bytes}");
    }
}

fn pair(key: &str, mod_revision: u64, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        mod_revision,
        value: value.as_bytes().to_vec(),
    }
}

fn error<T>(code: u64, message: &str) -> Result<T, Failure> {
    Err(Failure::Error {
        code,
        message: message.to_owned(),
    })
}

/// Answers to ranges and transactions.
fn good_answers() -> Vec<(Request, Vec<u8>, Answer)> {
    let values = vec![
        pair("/db-node/x/a", 3, "three"),
        pair("/db-node/x/b", 3, ""),
    ];
    let ok = |body: &str| with_length("200 OK", body);
    vec![
        (
            range(),
            ok("{HEADER}"),
            Answer::Range {
                cluster_id: 4_112_934_336_692_182_944,
                revision: 7,
                values: Vec::new(),
            },
        ),
        (
            range(),
            ok(
                "{HEADER,\"kvs\":[{\"key\":\"L2RiLW5vZGUveC9h\",\"create_revision\":\"2\",\
                \"mod_revision\":\"3\",\"version\":\"2\",\"value\":\"dGhyZWU=\"},\
                {\"key\":\"L2RiLW5vZGUveC9i\",\"create_revision\":\"2\",\
                \"mod_revision\":\"3\",\"version\":\"2\"}],\"count\":\"2\"}",
            ),
            Answer::Range {
                cluster_id: 4_112_934_336_692_182_944,
                revision: 7,
                values: values.clone(),
            },
        ),
        // Numbers instead of strings, white space, and a key that is not UTF-8.
        (
            range(),
            ok("{\"header\": {\"revision\": 7}, \"kvs\": [\
                {\"key\": \"/w==\", \"mod_revision\": 4},\
                {\"key\": \"L2RiLW5vZGUveC9h\", \"mod_revision\": 3, \"value\": \"dGhyZWU=\"},\
                {\"key\": \"L2RiLW5vZGUveC9i\", \"mod_revision\": \"3\", \"value\": \"\"}]}\n"),
            Answer::Range {
                cluster_id: 0,
                revision: 7,
                values,
            },
        ),
        (
            write(),
            ok(
                "{HEADER,\"succeeded\":true,\"responses\":[{\"response_put\":\
                {\"header\":{\"revision\":\"7\"}}},{\"response_delete_range\":\
                {\"header\":{\"revision\":\"7\"},\"deleted\":\"1\"}}]}",
            ),
            Answer::Written { revision: 7 },
        ),
        (
            write(),
            ok(
                "{HEADER,\"responses\":[{\"response_range\":{\"header\":{\"revision\":\"7\"},\
                \"kvs\":[{\"key\":\"L2RiLW5vZGUveC9h\",\"create_revision\":\"2\",\
                \"mod_revision\":\"5\",\"version\":\"1\",\"value\":\"b25l\",\
                \"lease\":\"6408237594757559557\"}],\"count\":\"1\"}}]}",
            ),
            Answer::Refused {
                revision: 7,
                current: vec![pair("/db-node/x/a", 5, "one")],
            },
        ),
        (
            write(),
            ok("{HEADER,\"responses\":[{\"response_range\":{\"header\":{\"revision\":\"7\"}}}]}"),
            Answer::Refused {
                revision: 7,
                current: Vec::new(),
            },
        ),
    ]
}

#[test]
fn answers_are_the_same_in_any_cut() {
    for (request, answer, expected) in good_answers() {
        assert_answer(&request, &answer, &Ok(expected));
    }
}

#[test]
fn errors_are_understood_in_all_wordings() {
    for (answer, expected) in [
        (
            with_length(
                "400 Bad Request",
                "{\"error\":\"illegal base64 data at input byte 0\",\
                 \"message\":\"illegal base64 data at input byte 0\",\"code\":3}",
            ),
            error(3, "illegal base64 data at input byte 0"),
        ),
        (
            in_chunks(
                "404 Not Found",
                "{\"error\":\"etcdserver: requested lease not found\",\
                 \"message\":\"etcdserver: requested lease not found\",\"code\":5}",
            ),
            error(5, "etcdserver: requested lease not found"),
        ),
        (
            in_chunks(
                "403 Forbidden",
                "{\"error\":\"etcdserver: permission denied\",\
                 \"message\":\"etcdserver: permission denied\",\"code\":7}",
            ),
            error(7, "etcdserver: permission denied"),
        ),
        (
            in_chunks(
                "400 Bad Request",
                "{\"error\":\"etcdserver: mvcc: required revision is a future revision\",\
                 \"code\":11}",
            ),
            error(
                11,
                "etcdserver: mvcc: required revision is a future revision",
            ),
        ),
        // etcd 3.6.
        (
            with_length(
                "503 Service Unavailable",
                "{\"code\":14,\"message\":\"etcdserver: no leader\",\"details\":[]}",
            ),
            error(14, "etcdserver: no leader"),
        ),
        (
            with_length(
                "503 Service Unavailable",
                "{\"error\":{\"grpc_code\":14,\"http_code\":503,\"message\":\"no leader\"}}",
            ),
            error(14, "no leader"),
        ),
        (
            with_length(
                "503 Service Unavailable",
                "{\"error\":{\"code\":14,\"message\":\"no leader\"}}",
            ),
            error(14, "no leader"),
        ),
        (
            with_length("404 Not Found", "Not Found\n"),
            error(0, "status 404: Not Found"),
        ),
        (
            with_length("502 Bad Gateway", "{\"a\":\"b\"}"),
            error(0, "status 502"),
        ),
        // No user, no token.
        (
            in_chunks(
                "400 Bad Request",
                "{\"error\":\"etcdserver: user name is empty\",\
                 \"message\":\"etcdserver: user name is empty\",\"code\":3}",
            ),
            error(3, "etcdserver: user name is empty"),
        ),
    ] {
        for request in [range(), write()] {
            assert_answer(&request, &answer, &expected);
        }
    }
}

#[test]
fn bodies_of_others_are_no_answers() {
    for body in [
        "",
        "{}",
        "null",
        "[]",
        "{\"header\":{}}",
        "{\"header\":{\"revision\":\"0\"}}",
        "{\"header\":{\"revision\":\"-7\"}}",
        "{\"header\":{\"revision\":\"99999999999999999999\"}}",
        "{\"header\":{\"revision\":7.5}}",
        "{HEADER",
        "{HEADER,\"kvs\":[{\"key\":\"YQ==\"}],\"responses\":[{\"response_range\":{\"kvs\":[{}]}}]}",
        "{HEADER,\"kvs\":[{\"key\":\"!\",\"mod_revision\":1}],\"responses\":[{\"response_range\":\
         {\"kvs\":[{\"key\":\"YQ==\",\"value\":\"!\",\"mod_revision\":1}]}}]}",
        "<html>",
    ] {
        let answer = with_length("200 OK", body);
        for request in [range(), write()] {
            let found = answer_to(request, &mut [&answer[..]].into_iter());
            let is_refused = matches!(found, Some(Err(Failure::Malformed(_))));
            assert!(is_refused, "{body}: {found:?}");
        }
    }
}

#[test]
fn long_answers_are_refused_and_not_kept() {
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n").into_bytes();
    let too_long = Some(Err(Failure::Malformed(TOO_LONG)));
    let length = head(&format!("Content-Length: {}", ANSWER_MAX_BYTES + 1));
    let chunk = head("Transfer-Encoding: chunked\r\n\r\n400001\r\n");
    // Refused before it comes.
    for answer in [length, chunk] {
        let answer = &answer[..answer.len() - 2];
        let mut answer = answer.to_vec();
        answer.extend_from_slice(b"\r\nx");
        assert_eq!(answer_to(range(), &mut [&answer[..]].into_iter()), too_long);
    }
    let piece = [b"1000\r\n", &[b' '; 4096][..], b"\r\n"].concat();
    let start = head("Transfer-Encoding: chunked");
    let pieces = |count| std::iter::once(&start[..]).chain(std::iter::repeat_n(&piece[..], count));
    let most = ANSWER_MAX_BYTES / 4096;
    assert_eq!(answer_to(range(), &mut pieces(most)), None);
    assert_eq!(answer_to(range(), &mut pieces(most + 1)), too_long);
    let endless = vec![b'x'; HEAD_MAX_BYTES];
    let answer = [b"HTTP/1.1 200 OK\r\nA: ", &endless[..]].concat();
    assert_eq!(
        answer_to(range(), &mut answer.chunks(1000)),
        Some(Err(Failure::Malformed("its head is too long")))
    );
}

/// A body of short elements would take a hundred times its size as JSON.
#[test]
fn many_small_elements_are_refused() {
    let too_many = Some(Err(Failure::Malformed("too many elements")));
    for (element, count, expected) in [
        ("{\"\":0}", 1, Some(Err(Failure::Malformed("no revision")))),
        ("{\"\":0}", 64 * 1024, too_many.clone()),
        ("0", 256 * 1024 + 2, too_many),
    ] {
        let list = vec![element; count].join(",");
        let answer = with_length("200 OK", &format!("{{\"x\":[{list}]}}"));
        assert_eq!(answer_to(range(), &mut [&answer[..]].into_iter()), expected);
    }
}

/// Hints of a watch with its stream in pieces, and how it ended, if it did.
fn watch(pieces: &mut dyn Iterator<Item = &[u8]>) -> (usize, Option<String>) {
    let mut client = client(None);
    client.submit(1, range(), 0);
    client.on_connected(number(Channel::Requests, 1), 0);
    let answer = with_length("200 OK", "{HEADER}");
    client.on_bytes(number(Channel::Requests, 1), &answer, 0);
    client.on_time(0);
    let id = number(Channel::Watch, 1);
    client.on_connected(id, 0);
    let (mut hint_count, mut is_closed) = (0, false);
    let mut take_effects = |client: &mut Client| {
        while let Some(effect) = client.next_effect() {
            match effect {
                Effect::Hint => hint_count += 1,
                Effect::Close { id: closed } => {
                    assert_eq!(closed, id);
                    is_closed = true;
                }
                Effect::Send { id: on, bytes } if on == id => {
                    let request = String::from_utf8(bytes).expect("ASCII");
                    let from = "\"start_revision\":\"8\"";
                    assert!(request.contains(from), "{request}");
                }
                _ => {}
            }
        }
    };
    take_effects(&mut client);
    for piece in pieces {
        client.on_bytes(id, piece, 0);
        take_effects(&mut client);
    }
    let reason = client.health().last_error.to_owned();
    (hint_count, is_closed.then_some(reason))
}

#[test]
fn watches_hint_and_end() {
    let created = "{\"result\":{HEADER,\"created\":true}}";
    let put = "{\"result\":{HEADER,\"events\":[{\"kv\":{\"key\":\"L2RiLW5vZGUveC9h\",\
        \"create_revision\":\"2\",\"mod_revision\":\"8\",\"version\":\"2\",\"value\":\"b25l\"}},\
        {\"type\":\"DELETE\",\"kv\":{\"key\":\"L2RiLW5vZGUveC9i\",\"mod_revision\":\"9\"}}]}}";
    let progress = "{\"result\":{HEADER}}";
    let denied = "etcdserver: permission denied";
    let canceled = format!(
        "{{\"result\":{{HEADER,\"watch_id\":\"-1\",\"created\":true,\"canceled\":true,\
         \"cancel_reason\":\"rpc error: code = PermissionDenied desc = {denied}\"}}}}"
    );
    let compacted = "{\"result\":{\"header\":{\"raft_term\":\"2\"},\"canceled\":true,\
        \"compact_revision\":\"6\"}}";
    let closing = "{\"error\":{\"grpc_code\":14,\"http_code\":503,\
        \"message\":\"transport is closing\",\"http_status\":\"Service Unavailable\"}}";
    let no_leader = "{\"error\":{\"code\":14,\"message\":\"etcdserver: no leader\"}}";
    let error = "{\"error\":\"x\",\"code\":2}";
    let text = with_length("404 Not Found", "Not Found\n");
    for (answer, hint_count, reason) in [
        (stream(&[created], false), 0, None),
        (stream(&[created, put, progress, put], false), 2, None),
        (
            stream(&[created, put], true),
            2,
            Some("the watch has ended"),
        ),
        (stream(&[&canceled], false), 1, Some(denied)),
        (stream(&[created, compacted], false), 1, Some("compacted")),
        (
            stream(&[created, closing], true),
            1,
            Some("transport is closing"),
        ),
        (stream(&[created, no_leader], true), 1, Some("no leader")),
        (
            stream(&[created, put, error], true),
            2,
            Some("\"x\" (code 2)"),
        ),
        (stream(&[created, "{}"], false), 1, Some("neither")),
        (stream(&[created, "<html>"], false), 1, Some("no JSON")),
        (text, 1, Some("status 404: Not Found")),
    ] {
        let name = String::from_utf8_lossy(&answer);
        let check = |found: (usize, Option<String>)| {
            assert_eq!(found.0, hint_count, "{name}");
            assert_eq!(found.1.is_some(), reason.is_some(), "{name}");
            let found = found.1.unwrap_or_default();
            assert!(
                found.contains(reason.unwrap_or_default()),
                "{found}: {name}"
            );
        };
        for cut in 0..=answer.len() {
            let (first, rest) = answer.split_at(cut);
            check(watch(&mut [first, rest].into_iter()));
        }
        for piece_bytes in [1, 2, 3, 7] {
            check(watch(&mut answer.chunks(piece_bytes)));
        }
    }
    let long = vec![b'x'; super::LINE_MAX_BYTES + 1];
    let answer = stream(
        &[created, std::str::from_utf8(&long).expect("ASCII")],
        false,
    );
    let (hint_count, reason) = watch(&mut answer.chunks(64 * 1024));
    assert_eq!(hint_count, 1);
    assert!(reason.is_some_and(|reason| reason.contains("too long")));
}

/// Bytes changed, lost, doubled or added: nothing panics, and there is one outcome, or none yet.
#[test]
fn damage_is_survived() {
    let damage = |answer: &[u8], random: &mut fastrand::Rng| {
        let mut answer = answer.to_vec();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..answer.len());
            let end = (at + random.usize(1..20)).min(answer.len());
            match random.u8(..4) {
                0 => answer[at] = random.u8(..),
                1 => drop(answer.drain(at..end)),
                2 => answer.extend_from_within(at..end),
                _ => answer.insert(at, b"\r\n{}[]\",0"[random.usize(..9)]),
            }
            if answer.is_empty() {
                break;
            }
        }
        answer
    };
    let lines = [
        "{\"result\":{HEADER,\"created\":true}}",
        "{\"result\":{HEADER,\"events\":[{\"kv\":{\"mod_revision\":\"8\"}}]}}",
        "{\"error\":{\"grpc_code\":14,\"message\":\"transport is closing\"}}",
    ];
    for seed in 0..3_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        for (request, answer, _) in good_answers() {
            let answer = damage(&answer, &mut random);
            let piece_bytes = random.usize(1..200);
            answer_to(request, &mut answer.chunks(piece_bytes));
        }
        let answer = damage(&stream(&lines, true), &mut random);
        let (hint_count, _) = watch(&mut answer.chunks(random.usize(1..200)));
        assert!(hint_count <= 4, "seed {seed}");
    }
}
