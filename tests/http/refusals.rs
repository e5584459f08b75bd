//! Requests that are refused, and that each refusal names what it refuses.

use crate::common::{Node, assert_error, chunked};
use crate::{CHUNKED, FORM, JSON, stored};

/// Target, headers and body; the status and the code that they get.
type RefusedRow = (
    &'static str,
    &'static [&'static str],
    &'static [u8],
    u16,
    &'static str,
);

#[test]
fn bodies_that_are_refused() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    client.request("PUT", "/kv/k", &[], b"kept");
    let table: &[RefusedRow] = &[
        // JSON that is none.
        ("/set", &[JSON], b"{", 400, "bad_json"),
        ("/set", &[JSON], b"[]", 400, "bad_json"),
        ("/set", &[JSON], b"\"k\"", 400, "bad_json"),
        (
            "/set",
            &[JSON],
            br#"{"key":"k","value":"w"}x"#,
            400,
            "bad_json",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"k","value":"w",}"#,
            400,
            "bad_json",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"k" "value":"w"}"#,
            400,
            "bad_json",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"k","value":"w"#,
            400,
            "bad_json",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"k","value":"\x"}"#,
            400,
            "bad_json",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"k","value":"\ud800"}"#,
            400,
            "bad_json",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"k","value":"\udc00\ud800"}"#,
            400,
            "bad_json",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"k","value":"\u12g4"}"#,
            400,
            "bad_json",
        ),
        (
            "/set",
            &[JSON],
            b"{\"key\":\"k\",\"value\":\"a\nb\"}",
            400,
            "bad_json",
        ),
        (
            "/set",
            &[JSON],
            b"{\"key\":\"k\",\"value\":\"\xff\"}",
            400,
            "bad_json",
        ),
        (
            "/set",
            &[JSON],
            b"{\"key\":\"k\",\"value\":\"\xc3\"}",
            400,
            "bad_json",
        ),
        (
            "/set",
            &[JSON],
            b"\xef\xbb\xbf{\"key\":\"k\",\"value\":\"w\"}",
            400,
            "bad_json",
        ),
        // JSON that says something else.
        (
            "/set",
            &[JSON],
            br#"{"key":"k","value":"w","key":"k"}"#,
            400,
            "bad_request",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"k","value":"w","value":"w"}"#,
            400,
            "bad_request",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"k","value":"w","\u006bey":"k"}"#,
            400,
            "bad_request",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"k","value":"w","more":"x"}"#,
            400,
            "bad_request",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"k","Value":"w"}"#,
            400,
            "bad_request",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"k","value":1}"#,
            400,
            "bad_request",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"k","value":null}"#,
            400,
            "bad_request",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":["k"],"value":"w"}"#,
            400,
            "bad_request",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"k","value":"w","encoding":"rot13"}"#,
            400,
            "bad_request",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"k","value":"?!","encoding":"base64"}"#,
            400,
            "bad_base64",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"k","value":"A","encoding":"base64"}"#,
            400,
            "bad_base64",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"k","value":"AA==AA==","encoding":"base64"}"#,
            400,
            "bad_base64",
        ),
        ("/set", &[JSON], b"{}", 400, "key_missing"),
        ("/set", &[JSON], br#"{"value":"w"}"#, 400, "key_missing"),
        ("/set", &[JSON], br#"{"key":"k"}"#, 400, "value_missing"),
        (
            "/set",
            &[JSON],
            br#"{"key":"","value":"w"}"#,
            400,
            "key_empty",
        ),
        (
            "/delete",
            &[JSON],
            br#"{"key":"k","ttl":1}"#,
            400,
            "bad_request",
        ),
        (
            "/get",
            &[JSON],
            br#"{"key":"k","encoding":"base64"}"#,
            400,
            "bad_request",
        ),
        ("/delete", &[JSON], b"{}", 400, "key_missing"),
        // Forms.
        ("/set", &[FORM], b"key=k&value=w&key=k", 400, "bad_request"),
        ("/set", &[FORM], b"key=k&value=w&more=x", 400, "bad_request"),
        ("/set", &[FORM], b"key=k", 400, "value_missing"),
        ("/set", &[FORM], b"value=w", 400, "key_missing"),
        ("/set", &[FORM], b"key=&value=w", 400, "key_empty"),
        // Other types say neither key nor value.
        (
            "/set",
            &["Content-Type: text/plain"],
            b"key=k&value=w",
            415,
            "unsupported_media_type",
        ),
        ("/set", &[], b"k=w", 415, "unsupported_media_type"),
        (
            "/delete",
            &["Content-Type: text/plain"],
            b"k",
            415,
            "unsupported_media_type",
        ),
        // Nothing at all.
        ("/set", &[JSON], b"", 400, "key_missing"),
        ("/get", &[], b"", 400, "key_missing"),
        ("/delete", &[], b"", 400, "key_missing"),
        ("/set?key=", &[], b"w", 400, "key_empty"),
        ("/set?key=k&key=k", &[], b"w", 400, "bad_query"),
        ("/set?key=%f", &[], b"w", 400, "bad_query"),
        // Times to live that are none, and two of them.
        ("/set?key=k&ttl=0", &[], b"w", 400, "bad_ttl"),
        ("/set?key=k&ttl=", &[], b"w", 400, "bad_ttl"),
        ("/set?key=k", &["X-TTL: soon"], b"w", 400, "bad_ttl"),
        (
            "/set?ttl=-1",
            &[JSON],
            br#"{"key":"k","value":"w"}"#,
            400,
            "bad_ttl",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"k","value":"w","ttl":1e10}"#,
            400,
            "bad_ttl",
        ),
        (
            "/set",
            &[JSON],
            br#"{"ttl":"1.5s","key":"k","value":"w"}"#,
            400,
            "bad_ttl",
        ),
        (
            "/set",
            &[JSON, "X-TTL: 10"],
            br#"{"key":"k","value":"w","ttl":10}"#,
            400,
            "bad_ttl",
        ),
        ("/set?key=k&ttl=10", &["X-TTL: 10"], b"w", 400, "bad_ttl"),
        // What can never be kept.
        ("/set?key=k", &["X-Min-Acks: one"], b"w", 400, "bad_request"),
        ("/set?key=k", &["X-Min-Acks: 33"], b"w", 400, "bad_request"),
        (
            "/set",
            &[JSON, "X-Min-Acks: -1"],
            br#"{"key":"k","value":"w"}"#,
            400,
            "bad_request",
        ),
    ];
    for &(target, headers, body, status, code) in table {
        eprintln!("{target} {headers:?} {}", String::from_utf8_lossy(body));
        let response = client.request("POST", target, headers, body);
        assert_error(&response, status, code);
        let headers: Vec<&str> = headers.iter().copied().chain([CHUNKED]).collect();
        let response = client.request("POST", target, &headers, &chunked(body, 1));
        assert_eq!(
            response.status,
            status,
            "the same in chunks: {}",
            response.text()
        );
    }
    assert_error(
        &client.request("PUT", "/kv/k", &["X-TTL: 0"], b"w"),
        400,
        "bad_ttl",
    );
    for header in ["X-Min-Acks: x", "X-Min-Acks: 999"] {
        // A delete is a write too.
        assert_error(
            &client.request("PUT", "/kv/k", &[header], b"w"),
            400,
            "bad_request",
        );
        assert_error(
            &client.request("DELETE", "/kv/k", &[header], b""),
            400,
            "bad_request",
        );
        assert_error(
            &client.request("DELETE", "/delete?key=k", &[header], b""),
            400,
            "bad_request",
        );
        assert_error(
            &client.request("POST", "/delete", &[header], br#"{"key":"k"}"#),
            400,
            "bad_request",
        );
        // Reads promise nothing that these could be about.
        assert_error(
            &client.request("GET", "/get?key=k", &[header], b""),
            400,
            "unexpected_header",
        );
    }
    assert_eq!(
        client
            .request("PUT", "/kv/k", &["X-Min-Acks: 0"], b"kept")
            .status,
        200
    );
    // A value without any length.
    client.send(
        b"POST /set?key=k HTTP/1.1\r\nHost: localhost\r\n\r\n\
          PUT /kv/k HTTP/1.1\r\nHost: localhost\r\n\r\n",
    );
    assert_error(&client.response(false), 411, "length_required");
    assert_error(&client.response(false), 411, "length_required");
    assert_eq!(stored(&mut client, b"k"), b"kept");
    assert_eq!(
        node.status()["partitions"][0]["lastVersion"],
        2,
        "nothing else was written"
    );
}

/// A single value that stands twice is refused where it matters, and the connection goes on.
#[test]
fn single_values_that_stand_twice_are_refused_where_they_matter() {
    let folder = crate::common::Folder::new("twice");
    let token_file = folder.join("token");
    std::fs::write(&token_file, "0123456789abcdef").expect("write the token");
    let node = Node::start(&["--token-file", crate::common::text(&token_file)]);
    let mut client = node.connect();
    let token = "Authorization: Bearer 0123456789abcdef";
    let json = br#"{"key":"k","value":"v"}"#.as_slice();
    for (method, target, line, body) in [
        ("PUT", "/kv/k", "X-TTL: 5", b"v".as_slice()),
        ("PUT", "/kv/k", "X-Partition-ID: 0", b"v"),
        ("PUT", "/kv/k", "X-Min-Acks: 0", b"v"),
        ("POST", "/set", JSON, json),
        ("POST", "/batch", "X-Min-Acks: 0", br#"{"ops":[]}"#),
        ("GET", "/kv/k", token, b""),
        ("GET", "/kv/k", "Origin: http://localhost", b""),
        ("GET", "/watch?timeout=0", "Last-Event-ID: 0", b""),
        ("GET", "/leader", "X-Partition-ID: 0", b""),
        ("GET", "/health", "Sec-Fetch-Site: none", b""),
        ("GET", "/nothing", "Sec-Fetch-Site: none", b""),
    ] {
        let headers = if line == token {
            vec![line, line]
        } else {
            vec![line, token, line]
        };
        let response = client.request(method, target, &headers, body);
        assert_error(&response, 400, "bad_request");
        let name = line.split(':').next().expect("a name");
        assert!(response.text().contains(name), "{}", response.text());
        assert_eq!(response.header("Connection"), None, "{target} {line}");
    }
    for (target, line, status) in [
        ("/health", token, 200),
        ("/livez", "X-TTL: 5", 200),
        ("/readyz", "X-Min-Acks: 1", 200),
        ("/leader", "If-Unmodified-Since: never", 200),
        ("/health", "X-Partition-ID: 3", 200),
        ("/kv/k", JSON, 404),
        ("/kv/k", "X-Unknown: 1", 404),
    ] {
        let response = client.request("GET", target, &[line, token, line], b"");
        let expected = if line == token { 401 } else { status };
        let expected = if target == "/health" { 200 } else { expected };
        assert_eq!(
            response.status,
            expected,
            "{target} {line}: {}",
            response.text()
        );
    }
}

/// What changes the meaning of a request and is not obeyed is refused by name, and nothing is
/// written.
#[test]
fn what_a_request_does_not_take_is_refused_by_name() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    client.request("PUT", "/kv/k", &[], b"foobar");
    let batch = br#"{"ops":[{"op":"set","key":"k","value":"w"}]}"#.as_slice();
    let json = br#"{"key":"k","value":"w"}"#.as_slice();
    let role = br#"{"id":0,"role":"leader"}"#.as_slice();
    let range = "Content-Range: bytes 3-5/6";
    let table: &[(&str, &str, &[u8], &str)] = &[
        ("PUT", "/kv/k", b"bar", range),
        ("PUT", "/kv/k", b"bar", "content-range: nonsense"),
        ("POST", "/set?key=k", b"bar", range),
        ("POST", "/set", json, range),
        ("DELETE", "/kv/k", b"", range),
        ("DELETE", "/delete?key=k", b"", range),
        ("POST", "/batch", batch, range),
        ("POST", "/partition/assign", role, range),
        (
            "PUT",
            "/kv/k",
            b"w",
            "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
        ),
        (
            "DELETE",
            "/kv/k",
            b"",
            "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
        ),
        ("POST", "/batch", batch, "If-Match: \"1\""),
        ("POST", "/batch", batch, "If-None-Match: *"),
        ("POST", "/batch", batch, "X-TTL: 5"),
        ("POST", "/batch", batch, "X-HTTP-Method-Override: GET"),
        ("POST", "/delete?key=k", b"", "X-HTTP-Method-Override: GET"),
        ("POST", "/set?key=k", b"w", "X-HTTP-Method: DELETE"),
        ("PUT", "/kv/k", b"w", "X-Method-Override: PATCH"),
        ("PUT", "/kv/k", b"w", "X-Min-Ack: 1"),
        ("POST", "/set", json, "x-minacks: 1"),
        ("POST", "/set", json, "X-Partition: 1"),
        ("GET", "/get?key=k", b"", "X-PartitionId: 1"),
        ("DELETE", "/kv/k", b"", "X-TTL: 5"),
        ("GET", "/kv/k", b"", "X-TTL: 5"),
        ("GET", "/kv/k", b"", "X-Min-Acks: 1"),
        ("GET", "/scan", b"", "If-None-Match: *"),
        ("GET", "/metrics", b"", "X-Partition-ID: 0"),
        ("POST", "/admin/freeze", b"", "X-TTL: 5"),
        ("POST", "/admin/freeze", b"", "If-Match: *"),
        ("POST", "/partition/assign", role, "X-Partition-ID: 0"),
        ("POST", "/partition/assign", role, "If-Match: *"),
        ("GET", "/kv/k", b"", "Last-Event-ID: 1"),
    ];
    for &(method, target, body, line) in table {
        let response = client.request(method, target, &[line], body);
        assert_error(&response, 400, "unexpected_header");
        let name = line.split(':').next().expect("a name").to_lowercase();
        assert!(
            response.text().to_lowercase().contains(&name),
            "{}",
            response.text()
        );
        assert_eq!(
            response.header("Connection"),
            None,
            "{method} {target} {line}"
        );
    }
    let response = client.request("PUT", "/kv/k", &["X-Min-Ack: 1"], b"w");
    let told = "X-Min-Ack has no meaning for PUT /kv/{key}: did you mean X-Min-Acks?";
    assert!(response.text().contains(told), "{}", response.text());
    // A load balancer may send it with every probe.
    let probe = client.request("GET", "/livez", &["X-Partition: 1"], b"");
    assert_eq!(probe.status, 200);
    let encoded = "Content-Encoding: gzip";
    let encodings = [encoded, "Content-Encoding: identity, br"];
    for (method, target, body) in [
        ("PUT", "/kv/k", b"w".as_slice()),
        ("PUT", "/kv/k", b""),
        ("POST", "/set", json),
        ("POST", "/set?key=k", b"w"),
        ("DELETE", "/delete", json),
        ("GET", "/get", json),
        ("POST", "/batch", batch),
        ("POST", "/partition/assign", role),
    ] {
        for line in encodings {
            let response = client.request(method, target, &[line], body);
            assert_error(&response, 415, "unsupported_encoding");
            assert_eq!(response.header("Accept-Encoding"), Some("identity"));
        }
    }
    for (method, target, param, expected) in [
        ("PUT", "/kv/k?tll=5", "tll", "did you mean \\\"ttl\\\"?"),
        (
            "PUT",
            "/kv/k?x=1&ttl=5",
            "x",
            "this path takes partition, ttl",
        ),
        ("DELETE", "/kv/k?ttl=5", "ttl", "POST /set, PUT /kv/{key}"),
        ("GET", "/kv/k?ttl=5", "ttl", "POST /set, PUT /kv/{key}"),
        (
            "POST",
            "/set?key=k&min_version=1",
            "min_version",
            "GET /get",
        ),
        ("POST", "/batch?ttl=5", "ttl", "operation of the batch"),
        (
            "GET",
            "/scan?prefx=user/",
            "prefx",
            "did you mean \\\"prefix\\\"?",
        ),
        (
            "GET",
            "/watch?prefx=a&timeout=0",
            "prefx",
            "did you mean \\\"prefix\\\"?",
        ),
        ("GET", "/watch?limit=1&timeout=0", "limit", "GET /scan"),
        (
            "GET",
            "/get?key=k&Partition=0",
            "Partition",
            "did you mean \\\"partition\\\"?",
        ),
        (
            "GET",
            "/metrics?partition=0",
            "partition",
            "the node as a whole",
        ),
        ("GET", "/metrics?x", "x", "takes none"),
        ("GET", "/openapi.json?x", "x", "takes none"),
        ("GET", "/health?verbose=1", "verbose", "partition, max_lag"),
        ("GET", "/livez?x=1", "x", "partition, max_lag"),
        (
            "GET",
            "/leader?maxlag=1",
            "maxlag",
            "did you mean \\\"max_lag\\\"?",
        ),
        (
            "POST",
            "/partition/assign?partition=1",
            "partition",
            "in the body",
        ),
        (
            "POST",
            "/admin/compact?x=1",
            "x",
            "this path takes partition",
        ),
        ("GET", "/digest?x=1", "x", "this path takes"),
        ("GET", "/snapshot?at=1", "at", "GET /scan"),
    ] {
        let body = if target.starts_with("/batch") {
            batch
        } else {
            b""
        };
        let response = client.request(method, target, &[], body);
        assert_error(&response, 400, "unknown_parameter");
        let text = response.text();
        assert!(text.contains(&format!("\\\"{param}\\\"")), "{text}");
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(stored(&mut client, b"k"), b"foobar");
    assert_eq!(node.status()["partitions"][0]["lastVersion"], 1);
    // A name may be percent-encoded like anything else.
    assert_eq!(
        client.request("PUT", "/kv/k?t%74l=0", &[], b"w").status,
        400
    );
    let written = client.request(
        "PUT",
        "/kv/k?t%74l=50",
        &["Content-Encoding: identity"],
        b"w",
    );
    assert_eq!(written.status, 200, "{}", written.text());
    assert!(
        client
            .request("GET", "/kv/k", &[], b"")
            .header("X-TTL")
            .is_some()
    );
    // Health checks are answered whatever comes along.
    for target in [
        "/health",
        "/livez",
        "/readyz",
        "/leader?partition=0&max_lag=5",
    ] {
        let lines = [
            range,
            encoded,
            "If-Match: \"x",
            "X-TTL: z",
            "X-Min-Acks: z",
            "Last-Event-ID: z",
        ];
        let response = client.request("GET", target, &lines, b"");
        assert_eq!(response.status, 200, "{}", response.text());
    }
}
