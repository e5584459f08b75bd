//! Where a request ends, and a connection: cut anywhere, pipelined, malformed.

use serde_json::json;

use crate::common::{Client, Node, Response, assert_error, chunked, request_bytes};
use crate::{CHUNKED, FORM, RAW, assert_json, stored};

/// A response without what changes from one to the next.
fn timeless(mut response: Response) -> Response {
    response
        .headers
        .retain(|(name, _)| !["Date", "ETag"].contains(&name.as_str()));
    response
}

#[test]
fn a_request_cut_anywhere_is_the_same_request() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    client.request("PUT", "/kv/k", &[], b"v");
    let body = "{\"key\":\"\\u006b\",\"value\":\"caf\u{e9} \\ud83d\\ude00\"}";
    let posted = request_bytes(
        "POST",
        "/set",
        &["Content-Type: application/json"],
        body.as_bytes(),
    );
    let trailers = b"4;ext=\"x\"\r\nab\r\n\r\n0000003\r\ncde\r\n0\r\nX-Sum: 1\r\nY: z\r\n\r\n";
    let chunks = request_bytes(
        "PUT",
        "/kv/k",
        &["Transfer-Encoding: chunked", "Trailer: X-Sum"],
        trailers,
    );
    let form = request_bytes("POST", "/set", &[FORM], b"key=%6B&value=a%2Bb+c");
    let requests: [(&[u8], &[u8]); 4] = [
        (
            b"\r\nGET /kv/%6b?partition=0 HTTP/1.1\r\nHost: localhost\r\n\
              X-Other:  a b \t\r\nAccept: */*\r\n\r\n",
            b"v",
        ),
        (&posted, "café 😀".as_bytes()),
        (&chunks, b"ab\r\ncde"),
        (&form, b"a+b c"),
    ];
    for (request, value) in requests {
        client.send(request);
        let whole = timeless(client.response(false));
        assert!(whole.status < 300, "{}", whole.text());
        let key_body = br#"{"key":"k"}"#;
        for cut in 1..request.len() {
            if value != b"v" {
                client.request("PUT", "/kv/k", &[], b"");
            }
            client.send(&request[..cut]);
            node.settle();
            client.send(&request[cut..]);
            let response = timeless(client.response(false));
            if value == b"v" {
                assert_eq!(response, whole, "cut at {cut}");
            } else {
                assert_eq!(
                    (response.status, response.headers.len()),
                    (whole.status, whole.headers.len()),
                    "cut at {cut}"
                );
                assert_eq!(response.json()["success"], true);
            }
            let read = client.request("GET", "/get", &[RAW], key_body);
            assert_eq!(
                read.body,
                value,
                "cut at {cut} of {:?}",
                String::from_utf8_lossy(request)
            );
        }
        // And byte by byte.
        for byte in request {
            client.send(&[*byte]);
            node.settle();
        }
        assert_eq!(timeless(client.response(false)).status, whole.status);
        assert_eq!(stored(&mut client, b"k"), value);
    }
}

/// Which of several faults is told of does not depend on whether the value came with the head.
#[test]
fn a_refusal_does_not_depend_on_the_cut() {
    const FAULTS: [&str; 5] = [
        "If-Match: bad",
        "X-TTL: bad",
        "X-Min-Acks: bad",
        "X-Partition-ID: 9",
        "If-None-Match: bad",
    ];
    let node = Node::start(&[]);
    let mut client = node.connect();
    for (method, target) in [
        ("PUT", "/kv/k"),
        ("POST", "/set?key=k"),
        ("PUT", "/kv/%zz"),
        ("PUT", "/kv/"),
    ] {
        for (at, first) in FAULTS.iter().enumerate() {
            for second in &FAULTS[at..] {
                let headers = if first == second {
                    &[*first][..]
                } else {
                    &[*first, *second]
                };
                let request = request_bytes(method, target, headers, b"value");
                client.send(&request);
                let whole = timeless(client.response(false));
                assert!(whole.status >= 400, "{}", whole.text());
                client.send(&request[..request.len() - 5]);
                node.settle();
                client.send(&request[request.len() - 5..]);
                assert_eq!(
                    timeless(client.response(false)),
                    whole,
                    "{method} {target} with {headers:?}"
                );
            }
        }
    }
    assert_eq!(
        node.status()["partitions"][0]["lastVersion"],
        0,
        "nothing was written"
    );
}

/// A list on several lines is one list, wherever it stands; and no route that has no conditions
/// minds.
#[test]
fn lists_may_stand_on_several_lines() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let tag_of = |client: &mut Client, target: &str| {
        let response = client.request("GET", target, &[], b"");
        response.header("ETag").expect("a tag").to_owned()
    };
    client.request("PUT", "/kv/other", &[], b"");
    client.request("PUT", "/kv/k", &[], b"v");
    for (name, order) in [
        ("If-Match", [0, 1]),
        ("If-Match", [1, 0]),
        ("if-none-match", [0, 1]),
        ("if-none-match", [1, 0]),
    ] {
        let (other, tag) = (
            tag_of(&mut client, "/kv/other"),
            tag_of(&mut client, "/kv/k"),
        );
        let lines = [format!("{name}: {other}"), format!("{name}: {tag}")];
        let lines = [&*lines[order[0]], "X-Between: 1", &*lines[order[1]]];
        let read = client.request("GET", "/kv/k", &lines, b"");
        let is_match = name == "If-Match";
        assert_eq!(read.status, if is_match { 200 } else { 304 }, "{lines:?}");
        let written = client.request("PUT", "/kv/other", &lines, b"w");
        assert_eq!(written.status == 200, is_match, "{lines:?}");
        let health = client.request("GET", "/health", &lines, b"");
        assert_eq!(health.status, 200, "{}", health.text());
    }
    // Each line says what the client takes.
    let raw = client.request(
        "GET",
        "/get?key=k",
        &["Accept: text/html", RAW, "Accept: image/png"],
        b"",
    );
    assert_eq!((raw.status, raw.text().as_str()), (200, "v"));
}

#[test]
fn a_thousand_pipelined_requests_are_answered_in_order() {
    const COUNT: usize = 1000;
    let node = Node::start(&[]);
    let mut client = node.connect();
    let mut bytes = Vec::new();
    for index in 0..COUNT {
        // Each read must see the write before it, through whichever door it came.
        let value = format!("value {index}");
        bytes.extend(match index % 3 {
            0 => request_bytes("PUT", "/kv/k", &[], value.as_bytes()),
            1 => request_bytes(
                "POST",
                "/set?key=k",
                &[CHUNKED],
                &chunked(value.as_bytes(), 4),
            ),
            _ => request_bytes(
                "POST",
                "/set",
                &[],
                json!({"key": "k", "value": value}).to_string().as_bytes(),
            ),
        });
        bytes.extend(request_bytes("GET", "/get?key=k", &[], b""));
        if index % 10 == 9 {
            bytes.extend(request_bytes("DELETE", "/kv/k", &[], b""));
            bytes.extend(request_bytes("HEAD", "/kv/k", &[], b""));
        }
    }
    let sending = client.send_in_background(bytes);
    let mut version = 0;
    for index in 0..COUNT {
        version += 1;
        let written = client.response(false);
        assert_eq!(
            written.plain_json(),
            json!({"success": true, "version": version}),
            "request {index}"
        );
        let read = client.response(false);
        assert_json(
            &read,
            &json!({"success": true, "value": format!("value {index}"), "version": version}),
        );
        if index % 10 == 9 {
            version += 1;
            assert_eq!(client.response(false).status, 204);
            assert_eq!(client.response(true).status, 404);
        }
    }
    sending.join().expect("no panic").expect("all is sent");
    assert_eq!(node.status()["partitions"][0]["lastVersion"], version);
}

#[test]
fn a_client_that_has_said_all_still_gets_all_answers() {
    let node = Node::start(&[]);
    let value = vec![b'v'; 3_000_000];
    assert_eq!(node.request("PUT", "/kv/k", &[], &value).status, 201);
    let mut client = node.connect();
    for index in 0..20 {
        client.send_request("PUT", &format!("/kv/{index}"), &[], b"x");
        client.send_request("GET", "/kv/k", &[], b"");
    }
    // The last one is cut off: it gets no answer, and does nothing.
    client.send(b"PUT /kv/cut HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\ncut");
    client.finish_sending();
    for _ in 0..20 {
        assert_eq!(client.response(false).status, 201);
        assert!(client.response(false).body == value);
    }
    client.assert_end();
    assert_eq!(node.request("GET", "/kv/cut", &[], b"").status, 404);
}

#[test]
fn how_long_a_connection_lasts() {
    let node = Node::start(&[]);
    node.request("PUT", "/kv/k", &[], b"v");
    let big = vec![b'"'; 200_000];
    node.request("PUT", "/kv/big", &[], &big);
    // request, what Connection says in the answer, whether it stays open
    let table: &[(&str, Option<&str>, bool)] = &[
        ("GET /kv/k HTTP/1.1\r\nHost: h\r\n\r\n", None, true),
        (
            "GET /kv/k HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n\r\n",
            None,
            true,
        ),
        (
            "GET /kv/k HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            Some("close"),
            false,
        ),
        (
            "GET /kv/k HTTP/1.1\r\nHost: h\r\nConnection: foo, CLOSE\r\n\r\n",
            Some("close"),
            false,
        ),
        (
            "GET /kv/k HTTP/1.1\r\nHost: h\r\nConnection: foo\r\nConnection: close\r\n\r\n",
            Some("close"),
            false,
        ),
        ("GET /kv/k HTTP/1.0\r\n\r\n", Some("close"), false),
        (
            "GET /kv/k HTTP/1.0\r\nHost: h\r\nConnection: Keep-Alive\r\n\r\n",
            Some("keep-alive"),
            true,
        ),
        (
            "GET /kv/k HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
            Some("close"),
            false,
        ),
        (
            "PUT /kv/k HTTP/1.0\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\nv",
            Some("keep-alive"),
            true,
        ),
    ];
    for (request, connection, stays) in table {
        let mut client = node.connect();
        client.send(request.replace("Host: h", "Host: localhost").as_bytes());
        // What follows the last request must not be carried out.
        client.send(&request_bytes("PUT", "/kv/after", &[], b"x"));
        let response = client.response(false);
        assert_eq!(
            (response.status, response.header("Connection")),
            (200, *connection),
            "{request:?}"
        );
        if *stays {
            assert_eq!(client.response(false).status, 201, "{request:?}");
            assert_eq!(client.request("DELETE", "/kv/after", &[], b"").status, 204);
        } else {
            client.assert_end();
            assert_eq!(
                node.request("GET", "/kv/after", &[], b"").status,
                404,
                "{request:?}"
            );
        }
    }
    // HTTP/1.0 has no chunks: an answer of unknown length ends with the connection.
    let mut client = node.connect();
    client.send(b"GET /get?key=big HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let head = client.response_head();
    assert_eq!(head.header("Transfer-Encoding"), None);
    if head.header("Content-Length").is_none() {
        assert_eq!(head.header("Connection"), Some("close"));
        let body: serde_json::Value = serde_json::from_slice(&client.read_to_end()).expect("JSON");
        assert!(
            body["value"]
                .as_str()
                .is_some_and(|value| value.as_bytes() == big)
        );
    }
}

#[test]
fn leniency_that_is_settled() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    client.request("PUT", "/kv/k", &[], b"v");
    for request in [
        "GET http://localhost/kv/k HTTP/1.1\r\nHost: other.example\r\n\r\n",
        "GET HTTP://127.0.0.1:1/kv/k? HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\r\nGET /kv/k HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\r\n\r\nGET /kv/k HTTP/1.1\r\nhost:localhost:9001\r\n\r\n",
        "GET /kv/k HTTP/1.1\r\nHost: [::1]:9001\r\n\r\n",
        "GET http://localhost/kv/k HTTP/1.1\r\nHost:\r\n\r\n",
        "GET /%6Bv/%6b HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /kv/k HTTP/1.1\r\nHost: localhost\r\nX-Bytes: \u{e9}\t\r\nX-Empty:\r\n\r\n",
        "GET /kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 7\r\n\r\nignored",
        "GET /kv/k HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: \
         Chunked\r\n\r\n1;a=b\r\nx\r\n0;c\r\nT: t\r\n\r\n",
        "GET /kv/k HTTP/1.0\r\nConnection: keep-alive\r\nExpect: nonsense\r\n\r\n",
    ] {
        client.send(request.as_bytes());
        let response = client.response(false);
        assert_eq!(
            (response.status, response.text().as_str()),
            (200, "v"),
            "{request:?}: {}",
            response.text()
        );
    }
}

/// Requests that cannot be read, and the status and code that each gets.
fn malformed() -> Vec<(Vec<u8>, u16, &'static str)> {
    let get = |headers: &str| {
        format!("GET /kv/k HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").into_bytes()
    };
    let set = |headers: &str, body: &str| {
        format!("POST /set?key=k HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}").into_bytes()
    };
    let line = |line: &str| format!("{line}\r\nHost: localhost\r\n\r\n").into_bytes();
    let in_chunks = |body: &str| set("Transfer-Encoding: chunked\r\n", body);
    let bad = |request: Vec<u8>| (request, 400, "bad_request");
    let mut table = vec![
        // Two lengths, or one that is none.
        bad(set(
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
        )),
        bad(set(
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "0\r\n\r\n",
        )),
        bad(set("Content-Length: 1\r\nContent-Length: 1\r\n", "x")),
        bad(set("Content-Length: 1\r\ncontent-length: 2\r\n", "x")),
        bad(set("Content-Length: 1, 1\r\n", "x")),
        bad(set("Content-Length: +1\r\n", "x")),
        bad(set("Content-Length: -1\r\n", "x")),
        bad(set("Content-Length: 0x1\r\n", "x")),
        bad(set("Content-Length: 1 1\r\n", "x")),
        bad(set("Content-Length:\r\n", "x")),
        bad(set("Content-Length: 18446744073709551616\r\n", "x")),
        bad(set(
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "0\r\n\r\n",
        )),
        bad(set("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n")),
        bad(set("Transfer-Encoding: chunked, gzip, \r\n", "0\r\n\r\n")),
        bad(set("Transfer-Encoding:\r\n", "0\r\n\r\n")),
        bad(b"POST /set?key=k HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec()),
        (
            set("Transfer-Encoding: gzip, chunked\r\n", ""),
            501,
            "transfer_coding_not_implemented",
        ),
        (
            set("Transfer-Encoding: xchunked\r\n", ""),
            501,
            "transfer_coding_not_implemented",
        ),
        // Lines.
        bad(b"GET /kv/k HTTP/1.1\nHost: localhost\n\n".to_vec()),
        bad(b"GET /kv/k HTTP/1.1\r\nHost: localhost\nA: b\r\n\r\n".to_vec()),
        bad(b"GET /kv/k HTTP/1.1\r\nHost: localhost\r\n\n".to_vec()),
        bad(b"GET /kv/k HTTP/1.1\r\nHost: localhost\rA: b\r\n\r\n".to_vec()),
        bad(get("A: b\r\n folded\r\n")),
        bad(get("A: b\r\n\tfolded\r\n")),
        bad(b"GET /kv/k HTTP/1.1\r\n Host: localhost\r\n\r\n".to_vec()),
        bad(get("A : b\r\n")),
        bad(get("no colon\r\n")),
        bad(get(": no name\r\n")),
        bad(get("A: nul\0\r\n")),
        bad(get("A\u{1}: b\r\n")),
        // Hosts.
        bad(b"GET /kv/k HTTP/1.1\r\n\r\n".to_vec()),
        bad(get("Host: localhost\r\n")),
        bad(b"GET /kv/k HTTP/1.1\r\nHost:\r\n\r\n".to_vec()),
        bad(b"GET /health HTTP/1.1\r\nHost: :9001\r\n\r\n".to_vec()),
        bad(b"GET /kv/k HTTP/1.1\r\nHost: a b\r\n\r\n".to_vec()),
        bad(b"GET /kv/k HTTP/1.1\r\nHost: user@localhost\r\n\r\n".to_vec()),
        bad(b"GET /kv/k HTTP/1.1\r\nHost: localhost:99999\r\n\r\n".to_vec()),
        // Request lines.
        bad(line("GET  /kv/k HTTP/1.1")),
        bad(line("GET /kv/k  HTTP/1.1")),
        bad(line(" GET /kv/k HTTP/1.1")),
        bad(line("GET /kv/k HTTP/1.1 ")),
        bad(line("GET /kv/k http/1.1")),
        bad(line("GET /kv/k")),
        bad(line("GET")),
        bad(line("GET kv/k HTTP/1.1")),
        bad(line("GET /kv/k#part HTTP/1.1")),
        bad(line("GET http:///kv/k HTTP/1.1")),
        bad(line("GET /kv/a b HTTP/1.1")),
        bad(line("G\u{1}T /kv/k HTTP/1.1")),
        (line("GET /kv/k HTTP/2.0"), 505, "version_not_supported"),
        (
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            505,
            "version_not_supported",
        ),
        (line("GET /kv/k HTTP/0.9"), 505, "version_not_supported"),
        // Not HTTP.
        bad(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        bad(b"\0\0\0\0".to_vec()),
        bad(b"\n\n\nGET / HTTP/1.1\r\n\r\n".to_vec()),
        // Too much.
        (
            format!("GET /kv/{} HTTP/1.1\r\n", "k".repeat(17_000)).into_bytes(),
            414,
            "uri_too_long",
        ),
        (
            get(&format!("A: {}\r\n", "b".repeat(17_000))),
            431,
            "head_too_large",
        ),
        (get(&"A: b\r\n".repeat(101)), 431, "too_many_headers"),
        (get("Expect: miracles\r\n"), 417, "expectation_failed"),
        // Chunks.
        bad(in_chunks("x\r\n")),
        bad(in_chunks("-1\r\n")),
        bad(in_chunks("0x1\r\na\r\n0\r\n\r\n")),
        bad(in_chunks("1\na\r\n0\r\n\r\n")),
        bad(in_chunks("1\r\nab\r\n0\r\n\r\n")),
        bad(in_chunks("1 \r\na\r\n0\r\n\r\n")),
        bad(in_chunks("10000000000000000\r\n")),
        bad(in_chunks("1;a\nb\r\na\r\n0\r\n\r\n")),
        bad(in_chunks("1;bad[=x\r\na\r\n0\r\n\r\n")),
        bad(in_chunks("1;a=\"b\r\na\r\n0\r\n\r\n")),
        bad(in_chunks("0\r\nno colon\r\n\r\n")),
        bad(in_chunks("0\r\nA: b\nC: d\r\n\r\n")),
        bad(in_chunks(&format!(
            "1;{}\r\na\r\n0\r\n\r\n",
            "e".repeat(5000)
        ))),
        (
            in_chunks(&format!("0\r\nT: {}\r\n\r\n", "t".repeat(9000))),
            431,
            "trailers_too_large",
        ),
    ];
    let mut fields = get("");
    fields.truncate(fields.len() - 2);
    fields.extend_from_slice(b"A: del\x7f\r\n\r\n");
    table.push(bad(fields));
    table
}

#[test]
fn malformed_requests_get_an_answer_and_the_end() {
    let node = Node::start(&[]);
    let mut other = node.connect();
    other.request("PUT", "/kv/k", &[], b"kept");
    for (request, status, code) in malformed() {
        let shown = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
        eprintln!("{shown:?}");
        let mut client = node.connect();
        client.send(&request);
        // It goes on sending; that must neither be taken for requests nor reset the connection
        // under the answer.
        let more = request_bytes("PUT", "/kv/k", &[], b"smuggled").repeat(256 * 1024 / 70);
        client.send(&more);
        let response = client.response(false);
        assert_error(&response, status, code);
        assert_eq!(response.header("Connection"), Some("close"), "{shown:?}");
        client.assert_end();
        assert_eq!(stored(&mut other, b"k"), b"kept", "{shown:?}");
    }
    assert_eq!(node.status()["partitions"][0]["lastVersion"], 1);
}

#[test]
fn what_was_asked_before_a_malformed_request_is_answered() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let mut bytes = request_bytes("PUT", "/kv/k", &[], b"v");
    bytes.extend(request_bytes("GET", "/kv/k", &[], b""));
    bytes.extend(b"nonsense\r\n\r\n");
    bytes.extend(request_bytes("DELETE", "/kv/k", &[], b""));
    client.send(&bytes);
    assert_eq!(client.response(false).status, 201);
    assert_eq!(client.response(false).text(), "v");
    assert_error(&client.response(false), 400, "bad_request");
    client.assert_end();
    assert_eq!(node.request("GET", "/kv/k", &[], b"").text(), "v");
}
