//! The key-value API and its HTTP over real sockets: what each request gets, however its bytes are
//! cut, and that a malformed one harms nobody.

#![expect(clippy::too_many_lines, reason = "a scenario reads best in one piece")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use common::{
    Client, Node, Response, assert_error, chunked, percent_encoded, request_bytes, without_tokens,
};
use serde_json::json;

const JSON: &str = "Content-Type: application/json";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded";
const RAW: &str = "Accept: application/octet-stream";
const CHUNKED: &str = "Transfer-Encoding: chunked";

#[track_caller]
fn assert_json(response: &Response, expected: &serde_json::Value) {
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    assert_eq!(&response.plain_json(), expected);
    let (json, token) = (response.json(), response.token());
    match (expected["version"].as_u64(), expected["deleted"].as_bool()) {
        (Some(_), _) => assert_eq!(token, json["etag"].as_str()),
        // A deletion has a version, too.
        (None, deleted) => assert_eq!(token.is_some(), deleted == Some(true)),
    }
}

#[track_caller]
fn assert_not_found(response: &Response) {
    assert_error(response, 404, "key_not_found");
    assert_eq!(response.json()["error"], "key not found");
}

/// The value of a key as it is stored.
fn stored(client: &mut Client, key: &[u8]) -> Vec<u8> {
    let response = client.request("GET", &format!("/kv/{}", percent_encoded(key)), &[], b"");
    assert_eq!(response.status, 200, "{}", response.text());
    response.body
}

#[test]
fn set_get_delete_with_json() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let set = |key: &str, value: &str| json!({"key": key, "value": value}).to_string().into_bytes();
    let key = |key: &str| json!({ "key": key }).to_string().into_bytes();

    assert_not_found(&client.request("GET", "/get?key=a", &[], b""));
    let response = client.request("POST", "/set", &[JSON], &set("a", "1"));
    assert_json(&response, &json!({"success": true, "version": 1}));
    let response = client.request("POST", "/set", &[JSON], &set("b", "é\"\\\n\u{0}"));
    assert_json(&response, &json!({"success": true, "version": 2}));
    let response = client.request("POST", "/set", &[JSON], &set("a", "3"));
    assert_json(&response, &json!({"success": true, "version": 3}));

    let a = json!({"success": true, "value": "3", "version": 3});
    for method in ["GET", "POST"] {
        assert_json(&client.request(method, "/get?key=a", &[], b""), &a);
        assert_json(&client.request(method, "/get", &[JSON], &key("a")), &a);
        assert_json(
            &client.request(method, "/get", &[CHUNKED], &chunked(&key("a"), 3)),
            &a,
        );
        // A body beside ?key= says nothing more, and is read past.
        assert_json(
            &client.request(
                method,
                "/get?key=a",
                &[],
                b"GET /get?key=b HTTP/1.1\r\n\r\n",
            ),
            &a,
        );
        assert_not_found(&client.request(method, "/get", &[JSON], &key("c")));
    }
    let response = client.request("GET", "/get?key=b", &[], b"");
    assert_json(
        &response,
        &json!({"success": true, "value": "é\"\\\n\u{0}", "version": 2}),
    );
    assert_eq!(stored(&mut client, b"b"), "é\"\\\n\u{0}".as_bytes());

    let deleted = |deleted: bool| json!({"success": true, "deleted": deleted});
    assert_json(
        &client.request("DELETE", "/delete?key=a", &[], b""),
        &deleted(true),
    );
    assert_json(
        &client.request("DELETE", "/delete?key=a", &[], b""),
        &deleted(false),
    );
    assert_json(
        &client.request("POST", "/delete", &[JSON], &key("b")),
        &deleted(true),
    );
    assert_json(
        &client.request("DELETE", "/delete", &[JSON], &key("b")),
        &deleted(false),
    );
    for gone in ["/get?key=a", "/get?key=b"] {
        assert_not_found(&client.request("GET", gone, &[], b""));
    }
    // Two deletes wrote, two found nothing and did not.
    assert_eq!(
        client
            .request("POST", "/set", &[JSON], &set("a", ""))
            .json()["version"],
        6
    );
    assert_json(
        &client.request("GET", "/get?key=a", &[], b""),
        &json!({"success": true, "value": "", "version": 6}),
    );
}

/// The load balancer of the system sends one message for everything: a key and a value, whichever
/// request it is.
#[test]
fn messages_with_key_and_value_are_taken_by_every_request() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let message = |key: &str, value: &str| {
        format!("{{\"key\":\"{key}\",\"value\":\"{value}\"}}").into_bytes()
    };
    // As its HTTP library sends them, on one connection that stays open.
    let headers = [
        "User-Agent: Go-http-client/1.1",
        JSON,
        "Accept-Encoding: gzip",
    ];
    for (index, key) in ["k1", "k2", "k\\u00e9"].into_iter().enumerate() {
        let version = 2 * index + 1;
        let set = client.request("POST", "/set", &headers, &message(key, "v1"));
        assert_json(&set, &json!({"success": true, "version": version}));
        let found = json!({"success": true, "value": "v1", "version": version});
        let long = "x".repeat(100_000);
        for value in ["", "other", &long] {
            let body = message(key, value);
            assert_json(&client.request("GET", "/get", &headers, &body), &found);
            assert_json(&client.request("POST", "/get", &headers, &body), &found);
        }
        let form = format!("value=&key={}", key.replace("\\u00e9", "%C3%A9"));
        assert_json(
            &client.request("GET", "/get", &[FORM], form.as_bytes()),
            &found,
        );
        let in_chunks = chunked(&message(key, ""), 7);
        assert_json(
            &client.request("GET", "/get", &[CHUNKED], &in_chunks),
            &found,
        );
        let deleted = client.request("DELETE", "/delete", &headers, &message(key, ""));
        assert_json(&deleted, &json!({"success": true, "deleted": true}));
        let deleted = client.request("DELETE", "/delete", &headers, &message(key, ""));
        assert_json(&deleted, &json!({"success": true, "deleted": false}));
        assert_not_found(&client.request("GET", "/get", &headers, &message(key, "")));
    }
}

/// Target, headers and body; the key and the value that they set.
type SetRow = (
    &'static str,
    &'static [&'static str],
    &'static [u8],
    &'static [u8],
    &'static [u8],
);

#[test]
fn what_a_set_body_means() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let table: &[SetRow] = &[
        // What `curl -d '{…}'` sends, and other types: an object is JSON whatever it is called.
        (
            "/set",
            &[FORM],
            br#"{"key":"f","value":"a=b&c"}"#,
            b"f",
            b"a=b&c",
        ),
        (
            "/set",
            &["Content-Type: text/plain"],
            b" \r\n\t{\"value\":\"v\",\"key\":\"p\"} \n",
            b"p",
            b"v",
        ),
        ("/set", &[], br#"{"key":"n","value":"v"}"#, b"n", b"v"),
        (
            "/set",
            &["Content-Type: Application/JSON; charset=utf-8"],
            br#"{"key":"j","value":""}"#,
            b"j",
            b"",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"\u00e9\ud83d\ude00","value":"\u0000\/\b\f\n\r\t\\\""}"#,
            "é😀".as_bytes(),
            b"\0/\x08\x0c\n\r\t\\\"",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"u","value":"eA","encoding":"utf-8"}"#,
            b"u",
            b"eA",
        ),
        (
            "/set",
            &[JSON],
            br#"{"encoding":"base64","value":"AP+A","key":"b64"}"#,
            b"b64",
            b"\0\xff\x80",
        ),
        (
            "/set",
            &[JSON],
            br#"{"key":"nopad","value":"/w","encoding":"base64"}"#,
            b"nopad",
            b"\xff",
        ),
        // Forms.
        (
            "/set",
            &[FORM],
            b"key=k+1&value=a+b%2Bc%00%fF",
            b"k 1",
            b"a b+c\0\xff",
        ),
        ("/set", &[FORM], b"value=&key=%ff", b"\xff", b""),
        (
            "/set",
            &[FORM],
            b"key=form64&value=AP%2BA&encoding=base64",
            b"form64",
            b"\0\xff\x80",
        ),
        // With the key in the address the body is the value, whatever it looks like and is called.
        (
            "/set?key=r",
            &[],
            b"\0\xff\r\n\r\nraw",
            b"r",
            b"\0\xff\r\n\r\nraw",
        ),
        (
            "/set?key=r+2%2B",
            &[JSON],
            br#"{"key":"x","value":"y"}"#,
            b"r 2+",
            br#"{"key":"x","value":"y"}"#,
        ),
        (
            "/set?partition=0&key=q",
            &[FORM],
            b"key=x&value=y",
            b"q",
            b"key=x&value=y",
        ),
        ("/set?key=empty", &[], b"", b"empty", b""),
    ];
    for (index, &(target, headers, body, key, value)) in table.iter().enumerate() {
        let version = 2 * index + 1;
        let response = client.request("POST", target, headers, body);
        assert_json(&response, &json!({"success": true, "version": version}));
        assert_eq!(stored(&mut client, key), value, "{target} {headers:?}");
        // The same in chunks.
        let headers: Vec<&str> = headers.iter().copied().chain([CHUNKED]).collect();
        let response = client.request("POST", target, &headers, &chunked(body, 2));
        assert_json(&response, &json!({"success": true, "version": version + 1}));
        assert_eq!(stored(&mut client, key), value, "{target} {headers:?}");
    }
}

#[test]
fn keys_in_paths_are_bytes() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let every_byte: Vec<u8> = (0..=255).collect();
    let keys: &[(&str, &[u8])] = &[
        ("plain", b"plain"),
        ("a%2Fb", b"a/b"),
        ("a+b", b"a+b"),
        ("a%20b%2b", b"a b+"),
        ("a//b/../c/", b"a//b/../c/"),
        ("%00%ff%FE", b"\0\xff\xfe"),
        ("%25", b"%"),
        ("%3Fq%23", b"?q#"),
        (&percent_encoded(&every_byte), &every_byte),
    ];
    for (path, key) in keys {
        let target = format!("/kv/{path}");
        let same = format!("/kv/{}", percent_encoded(key));
        let query = format!("/get?key={}", percent_encoded(key));
        assert_not_found(&client.request("GET", &target, &[], b""));
        assert_not_found(&client.request("DELETE", &target, &[], b""));
        assert_eq!(client.request("HEAD", &target, &[], b"").status, 404);

        let value = [b"{not json}\0\xff", *key].concat();
        let created = client.request("PUT", &target, &[JSON], &value);
        assert_eq!(created.status, 201, "{}", created.text());
        let version = created.json()["version"].as_u64().expect("a version");
        assert_eq!(
            created.plain_json(),
            json!({"success": true, "version": version})
        );
        assert_eq!(created.token(), created.json()["etag"].as_str());
        for target in [&target, &same] {
            let response = client.request("GET", target, &[], b"");
            assert_eq!((response.status, &response.body), (200, &value), "{target}");
            assert_eq!(
                response.header("Content-Type"),
                Some("application/octet-stream")
            );
            assert_eq!(response.header("ETag"), created.header("ETag"));
            let head = client.request("HEAD", target, &[], b"");
            assert_eq!(head.status, 200);
            assert_eq!(
                head.header("Content-Length"),
                Some(value.len().to_string().as_str())
            );
            assert_eq!(head.header("ETag"), created.header("ETag"));
        }
        assert_eq!(
            client.request("GET", &query, &[], b"").json()["version"],
            version,
            "{query}"
        );

        let replaced = client.request("PUT", &same, &[CHUNKED], &chunked(b"", 1));
        assert_eq!(
            (replaced.status, &replaced.json()["version"]),
            (200, &json!(version + 1))
        );
        assert_eq!(stored(&mut client, key), b"");
        let deleted = client.request("DELETE", &target, &[], b"");
        assert_eq!(
            (
                deleted.status,
                deleted.header("Content-Length"),
                deleted.body.len()
            ),
            (204, None, 0)
        );
        assert_eq!(deleted.tag_version(), Some(version + 2));
        assert_not_found(&client.request("GET", &same, &[], b""));
    }
    assert_error(&client.request("GET", "/kv/", &[], b""), 400, "key_empty");
    assert_error(&client.request("PUT", "/kv/%4", &[], b"v"), 400, "bad_path");
    assert_error(&client.request("GET", "/kv/%zz", &[], b""), 400, "bad_path");
    // A query is no part of the key.
    assert_eq!(
        client.request("PUT", "/kv/q?partition=0", &[], b"v").status,
        201
    );
    assert_eq!(stored(&mut client, b"q"), b"v");
}

#[test]
fn values_that_are_no_text() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let (binary, text) = (b"\0\xff\xfe plain".as_slice(), "héllo".as_bytes());
    for (key, value) in [
        ("binary", binary),
        ("cut", &text[..2]),
        ("surrogate", b"\xed\xa0\x80"),
    ] {
        let target = format!("/get?key={key}");
        assert_eq!(
            client
                .request("PUT", &format!("/kv/{key}"), &[], value)
                .status,
            201
        );
        let response = client.request("GET", &target, &[], b"");
        let version = response.json()["version"].as_u64().expect("a version");
        let encoded = BASE64.encode(value);
        assert_json(
            &response,
            &json!({"success": true, "value": encoded, "encoding": "base64", "version": version}),
        );
        // What was answered can be sent back as it is.
        let body = json!({"key": "copy", "value": encoded, "encoding": "base64"}).to_string();
        assert_eq!(
            client
                .request("POST", "/set", &[JSON], body.as_bytes())
                .status,
            200
        );
        assert_eq!(stored(&mut client, b"copy"), value);
        for accept in [RAW, "Accept: text/html, Application/Octet-Stream;q=0.5"] {
            let raw = client.request("GET", &target, &[accept], b"");
            assert_eq!((raw.status, raw.body.as_slice()), (200, value));
            assert_eq!(raw.header("Content-Type"), Some("application/octet-stream"));
            // Another form of the same write.
            let etag = response.json()["etag"].as_str().map(str::to_owned);
            let weak = etag.map(|etag| format!("W/\"{etag}\""));
            assert_eq!(raw.header("ETag"), weak.as_deref());
        }
        let head = client.request("HEAD", &target, &[], b"");
        assert_eq!(head.status, 200);
        assert_eq!(
            head.header("Content-Length"),
            Some(response.body.len().to_string().as_str())
        );
        assert_eq!(head.header("ETag"), response.header("ETag"));
    }
    assert_eq!(
        client
            .request("GET", "/get?key=copy", &["Accept: */*"], b"")
            .json()["encoding"],
        "base64"
    );
    assert_not_found(&client.request("GET", "/get?key=none", &[RAW], b""));
    assert_eq!(
        client.request("HEAD", "/get?key=none", &[], b"").status,
        404
    );
}

#[test]
fn conditions_on_reads() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let tag = |response: Response| response.header("ETag").expect("a tag").to_owned();
    let other = tag(client.request("PUT", "/kv/other", &[], b""));
    let current = tag(client.request("PUT", "/kv/k", &[], b"v"));
    // The same version of a history that this node has never had.
    let strange = "\"2-00000000\"";
    for target in ["/kv/k", "/get?key=k"] {
        for method in ["GET", "HEAD"] {
            for (condition, status) in [
                (format!("If-None-Match: {current}"), 304),
                (format!("If-None-Match: W/{current}"), 304),
                (format!("If-None-Match: {other}, {current}"), 304),
                (format!("If-None-Match: {strange},, ,{current},"), 304),
                ("If-None-Match: *".to_owned(), 304),
                (format!("If-None-Match: {other}"), 200),
                (format!("If-None-Match: {strange}"), 200),
                ("If-None-Match: \"x\"".to_owned(), 200),
                (format!("If-Match: {current}"), 200),
                (format!("If-Match: {other},,{current}"), 200),
                ("If-Match: *".to_owned(), 200),
                (format!("If-Match: {other}"), 412),
                (format!("If-Match: {strange}"), 412),
                (format!("If-Match: W/{current}"), 412),
                ("If-Match: 2".to_owned(), 400),
                ("If-Match: \"2\"".to_owned(), 400),
                ("If-None-Match: \"2\"".to_owned(), 400),
                (format!("If-None-Match: {current}, \"2\""), 400),
                ("If-None-Match: ".to_owned(), 400),
            ] {
                let response = client.request(method, target, &[&condition], b"");
                assert_eq!(response.status, status, "{method} {target} {condition}");
                if status < 400 {
                    assert_eq!(
                        response.header("ETag"),
                        Some(&current[..]),
                        "{method} {target} {condition}"
                    );
                }
                if method == "GET" && status == 412 {
                    assert_error(&response, 412, "condition_failed");
                }
            }
        }
    }
    // RFC 9110, section 13.2.1: conditions count only where the answer would else have been a
    // success.
    let named = format!("If-None-Match: {current}");
    for condition in [&named[..], "If-None-Match: *", "If-Match: *"] {
        assert_not_found(&client.request("GET", "/kv/none", &[condition], b""));
        assert_not_found(&client.request("GET", "/get?key=none", &[condition], b""));
    }
}

#[test]
fn conditions_on_writes() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let set_body = br#"{"key":"k","value":"json"}"#.as_slice();
    let writes: [(&str, &str, &[u8]); 3] = [
        ("PUT", "/kv/k", b"put"),
        ("POST", "/set?key=k", b"raw"),
        ("POST", "/set", set_body),
    ];
    for (method, target, body) in writes {
        client.request("DELETE", "/kv/k", &[], b"");
        let mut write = |condition: &str| client.request(method, target, &[condition], body);
        for condition in ["If-Match: *", "If-Match: \"1-00000000\""] {
            assert_error(&write(condition), 412, "condition_failed");
        }
        let created = write("If-None-Match: *");
        assert!(created.status < 300, "{}", created.text());
        let version = created.json()["version"].as_u64().expect("a version");
        let token = created.token().expect("a token");
        let (_, history) = token.split_once('-').expect("a token");
        for condition in [
            "If-None-Match: *".to_owned(),
            format!("If-None-Match: \"{token}\""),
            format!("If-None-Match: \"1-{history}\",,W/\"{token}\""),
            format!("If-Match: \"{}-{history}\"", version - 1),
            format!("If-Match: \"{}-{history}\"", version + 1),
            format!("If-Match: \"{version}-00000000\""),
            format!("If-Match: W/\"{token}\""),
        ] {
            assert_error(&write(&condition), 412, "condition_failed");
        }
        for condition in [
            "If-Match: nonsense".to_owned(),
            format!("If-Match: \"{version}\""),
            format!("If-None-Match: \"{version}\""),
            format!("If-Match: {token}"),
        ] {
            assert_error(&write(&condition), 400, "bad_request");
        }
        let replaced = write(&format!("If-Match: \"1-{history}\",, \"{token}\","));
        assert_eq!(
            (replaced.status, &replaced.json()["version"]),
            (200, &json!(version + 1))
        );
        assert_error(
            &write(&format!("If-Match: \"{token}\"")),
            412,
            "condition_failed",
        );
        // None of the refused ones wrote.
        let next = write("If-Match: *");
        assert_eq!(
            (next.status, &next.json()["version"]),
            (200, &json!(version + 2))
        );
    }
    for (method, target, success) in [("DELETE", "/kv/k", 204), ("DELETE", "/delete?key=k", 200)] {
        let created = client.request("PUT", "/kv/k", &[], b"v");
        let tag = created.header("ETag").expect("a tag").to_owned();
        let refused = client.request(method, target, &["If-Match: \"1-00000000\""], b"");
        assert_error(&refused, 412, "condition_failed");
        assert_eq!(stored(&mut client, b"k"), b"v");
        let deleted = client.request(method, target, &[&format!("If-Match: {tag}")], b"");
        assert_eq!(deleted.status, success);
        assert_not_found(&client.request("GET", "/kv/k", &[], b""));
    }
    // Where the answer would be no success anyway, conditions do not count (RFC 9110, section
    // 13.2.1).
    assert_not_found(&client.request("DELETE", "/kv/k", &["If-Match: *"], b""));
    let refused = client.request("DELETE", "/delete?key=k", &["If-Match: *"], b"");
    assert_error(&refused, 412, "condition_failed");
}

#[test]
fn partitions_are_named_by_header_or_parameter() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    assert_eq!(
        client
            .request("POST", "/set?key=k&partition=0", &[], b"v")
            .status,
        200
    );
    assert_eq!(
        client
            .request("GET", "/get?key=k", &["X-Partition-ID: 0"], b"")
            .json()["value"],
        "v"
    );
    let body = br#"{"key":"k","value":"w"}"#;
    let table: &[(&str, &str, &[u8])] = &[
        ("POST", "/set?key=k", b"w"),
        ("POST", "/set", body),
        ("GET", "/get?key=k", b""),
        ("GET", "/get", br#"{"key":"k"}"#),
        ("DELETE", "/delete?key=k", b""),
        ("PUT", "/kv/k", b"w"),
        ("GET", "/kv/k", b""),
        ("DELETE", "/kv/k", b""),
        ("POST", "/admin/freeze", b""),
        ("POST", "/admin/compact", b""),
    ];
    for (method, target, body) in table {
        let join = if target.contains('?') { '&' } else { '?' };
        let response = client.request(method, target, &["X-Partition-ID: 7"], body);
        assert_error(&response, 404, "partition_not_found");
        let response = client.request(method, &format!("{target}{join}partition=7"), &[], body);
        assert_error(&response, 404, "partition_not_found");
        for bad in [
            "X-Partition-ID: x",
            "X-Partition-ID: -1",
            "X-Partition-ID: 99999999999",
            "X-Partition-ID: ",
        ] {
            let response = client.request(method, target, &[bad], body);
            assert_error(&response, 400, "bad_request");
        }
        // Two names of one partition are one, two partitions are a contradiction.
        for (header, param) in [("0", "7"), ("7", "0"), ("0", "1")] {
            let target = format!("{target}{join}partition={param}");
            let header = format!("X-Partition-ID: {header}");
            let response = client.request(method, &target, &[&header], body);
            assert_error(&response, 400, "bad_request");
            assert!(response.text().contains("X-Partition-ID"), "{target}");
        }
    }
    let named_alike = client.request(
        "GET",
        "/get?key=k&partition=00",
        &["X-Partition-ID: 0"],
        b"",
    );
    assert_eq!(named_alike.json()["value"], "v");
    assert_eq!(stored(&mut client, b"k"), b"v");
}

#[test]
fn methods_and_paths() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let table = [
        ("/set", "POST, OPTIONS"),
        ("/get", "GET, HEAD, POST, OPTIONS"),
        ("/delete", "DELETE, POST, OPTIONS"),
        ("/kv/k", "GET, HEAD, PUT, DELETE, OPTIONS"),
        ("/health", "GET, HEAD, OPTIONS"),
        ("/livez", "GET, HEAD, OPTIONS"),
        ("/readyz", "GET, HEAD, OPTIONS"),
        ("/status", "GET, HEAD, OPTIONS"),
        ("/admin/freeze", "POST, OPTIONS"),
        ("/admin/compact", "POST, OPTIONS"),
    ];
    for (path, allow) in table {
        let options = client.request("OPTIONS", path, &[], b"");
        assert_eq!(
            (options.status, options.header("Allow")),
            (204, Some(allow)),
            "{path}"
        );
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE"] {
            let is_allowed = allow.split(", ").any(|allowed| allowed == method);
            let response = client.request(method, path, &[], b"");
            assert_eq!(
                response.status != 405,
                is_allowed,
                "{method} {path}: {}",
                response.status
            );
            if !is_allowed {
                assert_eq!(response.header("Allow"), Some(allow), "{method} {path}");
                if method != "HEAD" {
                    assert_error(&response, 405, "method_not_allowed");
                }
            }
        }
    }
    let options = client.request("OPTIONS", "*", &[], b"");
    assert_eq!(
        (options.status, options.header("Allow")),
        (204, Some("GET, HEAD, POST, PUT, DELETE, OPTIONS"))
    );
    for path in ["/", "/nothing", "/get/", "/GET", "/kv", "/set/x", "//get"] {
        assert_error(&client.request("GET", path, &[], b""), 404, "not_found");
        assert_error(
            &client.request("POST", path, &[], b"body"),
            404,
            "not_found",
        );
        assert_error(&client.request("OPTIONS", path, &[], b""), 404, "not_found");
    }
    for method in ["BREW", "get", "PROPFIND"] {
        assert_error(
            &client.request(method, "/get?key=k", &[], b""),
            501,
            "not_implemented",
        );
    }
    assert_error(
        &client.request("CONNECT", "localhost:80", &[], b""),
        501,
        "not_implemented",
    );
}

#[test]
fn reads_never_change_state() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    client.request("PUT", "/kv/k", &[], b"v");
    let body = br#"{"key":"k","value":"w"}"#;
    for method in ["GET", "HEAD"] {
        for target in [
            "/set?key=k&value=w",
            "/set",
            "/delete?key=k",
            "/delete",
            "/admin/freeze",
            "/kv/k",
        ] {
            let bytes = request_bytes(method, target, &[JSON], body);
            client.send(&bytes);
            client.response(method == "HEAD");
        }
    }
    let status = node.status();
    assert_eq!(status["partitions"][0]["lastVersion"], 1);
    assert_eq!(status["partitions"][0]["memtableEntries"], 1);
    assert_eq!(stored(&mut client, b"k"), b"v");
}

#[test]
fn keys_up_to_their_limit() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    for (key, value) in [(vec![b'k'; 4096], "text"), (vec![0xff; 4096], "binary")] {
        let encoded = percent_encoded(&key);
        assert_eq!(
            client
                .request("PUT", &format!("/kv/{encoded}"), &[], value.as_bytes())
                .status,
            201
        );
        assert_eq!(
            client
                .request("GET", &format!("/get?key={encoded}"), &[], b"")
                .json()["value"],
            value
        );
        assert_eq!(
            client
                .request("POST", &format!("/set?key={encoded}"), &[], b"2")
                .status,
            200
        );
        let form = format!("key={encoded}&value=3");
        assert_eq!(
            client
                .request("POST", "/set", &[FORM], form.as_bytes())
                .status,
            200
        );
        assert_eq!(stored(&mut client, &key), b"3");
        assert_eq!(
            client
                .request("DELETE", &format!("/delete?key={encoded}"), &[], b"")
                .json()["deleted"],
            true
        );
    }
    let longest = "k".repeat(4096);
    let body = json!({"key": longest, "value": "json"}).to_string();
    assert_eq!(
        client
            .request("POST", "/set", &[JSON], body.as_bytes())
            .status,
        200
    );
    assert_eq!(stored(&mut client, longest.as_bytes()), b"json");

    let long = "k".repeat(4097);
    let encoded = "%6B".repeat(4097);
    let set = json!({"key": long, "value": "v"}).to_string();
    let get = json!({ "key": long }).to_string();
    let table: &[(&str, &str, &[&str], &str)] = &[
        ("PUT", &format!("/kv/{long}"), &[], "v"),
        ("GET", &format!("/kv/{encoded}"), &[], ""),
        ("DELETE", &format!("/kv/{long}"), &[], ""),
        ("POST", &format!("/set?key={encoded}"), &[], "v"),
        ("GET", &format!("/get?key={long}"), &[], ""),
        ("DELETE", &format!("/delete?key={long}"), &[], ""),
        ("POST", "/set", &[JSON], &set),
        ("POST", "/set", &[FORM], &format!("key={encoded}&value=v")),
        ("GET", "/get", &[JSON], &get),
        ("POST", "/delete", &[JSON], &get),
    ];
    for (method, target, headers, body) in table {
        let response = client.request(method, target, headers, body.as_bytes());
        assert_error(&response, 414, "key_too_long");
        assert!(
            response.text().contains("4096"),
            "the limit is named: {}",
            response.text()
        );
    }
    assert_eq!(node.status()["partitions"][0]["lastVersion"], 9);
}

/// Method, target, headers, body.
type Request = (&'static str, &'static str, Vec<&'static str>, Vec<u8>);

/// All ways to set a key to `value`.
fn ways_to_set(value: &[u8]) -> Vec<Request> {
    let text = String::from_utf8(value.to_vec()).expect("text");
    let escaped = value
        .iter()
        .fold(String::new(), |text, byte| text + &format!("\\u{byte:04x}"));
    let base64 = BASE64.encode(value);
    let plain_json = json!({"key": "k", "value": text}).to_string().into_bytes();
    vec![
        ("PUT", "/kv/k", vec![], value.to_vec()),
        ("PUT", "/kv/k", vec![CHUNKED], chunked(value, 100)),
        ("POST", "/set?key=k", vec![], value.to_vec()),
        ("POST", "/set?key=k", vec![CHUNKED], chunked(value, 1)),
        ("POST", "/set", vec![JSON], plain_json.clone()),
        (
            "POST",
            "/set",
            vec![JSON, CHUNKED],
            chunked(&plain_json, 1000),
        ),
        (
            "POST",
            "/set",
            vec![JSON],
            format!(r#"{{"value":"{escaped}","key":"k"}}"#).into_bytes(),
        ),
        (
            "POST",
            "/set",
            vec![FORM],
            [b"key=k&value=", value].concat(),
        ),
        (
            "POST",
            "/set",
            vec![FORM],
            format!("value={}&key=k", percent_encoded(value)).into_bytes(),
        ),
        (
            "POST",
            "/set",
            vec![JSON],
            json!({"key": "k", "value": base64, "encoding": "base64"})
                .to_string()
                .into(),
        ),
        (
            "POST",
            "/set",
            vec![JSON],
            format!(r#"{{"encoding":"base64","key":"k","value":"{base64}"}}"#).into_bytes(),
        ),
    ]
}

#[test]
fn values_up_to_their_limit() {
    const LIMIT_BYTES: usize = 5000;
    let node = Node::start(&["--max-value-bytes", "5000"]);
    let mut client = node.connect();
    let fits = vec![b'v'; LIMIT_BYTES];
    let too_long = vec![b'w'; LIMIT_BYTES + 1];
    for (fitting, over) in ways_to_set(&fits).into_iter().zip(ways_to_set(&too_long)) {
        let (method, target, headers, body) = fitting;
        client.request("PUT", "/kv/k", &[], b"before");
        let response = client.request(method, target, &headers, &body);
        assert_eq!(
            response.status,
            200,
            "{method} {target} {headers:?}: {}",
            response.text()
        );
        assert_eq!(
            stored(&mut client, b"k"),
            fits,
            "{method} {target} {headers:?}"
        );

        let (method, target, headers, body) = over;
        let response = client.request(method, target, &headers, &body);
        assert_error(&response, 413, "value_too_large");
        assert!(
            response.text().contains("5000"),
            "the limit is named: {}",
            response.text()
        );
        // Where the request ends is still known, so the connection stays, and nothing was written.
        assert_eq!(
            response.header("Connection"),
            None,
            "{method} {target} {headers:?}"
        );
        assert_eq!(
            stored(&mut client, b"k"),
            fits,
            "{method} {target} {headers:?}"
        );
    }
}

#[test]
fn a_declared_length_far_over_the_limit_is_refused_at_once() {
    let node = Node::start(&[]);
    for target in ["/kv/k", "/set?key=k"] {
        let method = if target.starts_with("/kv") {
            "PUT"
        } else {
            "POST"
        };
        let mut client = node.connect();
        client.send_request(method, target, &["Content-Length: 17179869184"], b"");
        let response = client.response(false);
        assert_error(&response, 413, "value_too_large");
        assert!(response.text().contains("16777216"), "{}", response.text());
        assert_eq!(response.header("Connection"), Some("close"));
        client.assert_end();
    }
}

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
    client.send(b"POST /set?key=k HTTP/1.1\r\nHost: localhost\r\n\r\nPUT /kv/k HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_error(&client.response(false), 411, "length_required");
    assert_error(&client.response(false), 411, "length_required");
    assert_eq!(stored(&mut client, b"k"), b"kept");
    assert_eq!(
        node.status()["partitions"][0]["lastVersion"],
        2,
        "nothing else was written"
    );
}

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
        (b"\r\nGET /kv/%6b?partition=0 HTTP/1.1\r\nHost: localhost\r\nX-Other:  a b \t\r\nAccept: */*\r\n\r\n", b"v"),
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

/// A single value that stands twice is refused where it matters, and the connection goes on.
#[test]
fn single_values_that_stand_twice_are_refused_where_they_matter() {
    let folder = common::Folder::new("twice");
    let token_file = folder.join("token");
    std::fs::write(&token_file, "0123456789abcdef").expect("write the token");
    let node = Node::start(&["--token-file", common::text(&token_file)]);
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
        ("DELETE", "/kv/k", b"", "X-TTL: 5"),
        ("GET", "/kv/k", b"", "X-TTL: 5"),
        ("GET", "/kv/k", b"", "X-Min-Acks: 1"),
        ("GET", "/scan", b"", "If-None-Match: *"),
        ("GET", "/status", b"", "X-Partition-ID: 0"),
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
            "/status?partition=0",
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

/// `/readyz` of one partition is about that one.
#[test]
fn readiness_of_a_partition() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let body = br#"{"id":7,"role":"replica","leader":"http://127.0.0.1:1"}"#;
    assert_eq!(
        client
            .request("POST", "/partition/assign", &[], body)
            .status,
        200
    );
    for (target, headers, status) in [
        ("/readyz", &[][..], 503),
        ("/readyz?partition=0", &[], 200),
        ("/readyz?partition=0&max_lag=3", &[], 200),
        ("/readyz?partition=7", &[], 503),
        ("/readyz", &["X-Partition-ID: 0"], 200),
        ("/readyz", &["X-Partition-ID: 7"], 503),
        ("/readyz?partition=8", &[], 404),
        ("/readyz?max_lag=x", &[], 400),
    ] {
        let response = client.request("GET", target, headers, b"");
        assert_eq!(
            response.status,
            status,
            "{target} {headers:?}: {}",
            response.text()
        );
    }
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
    // HTTP/1.0 has no chunks: an answer whose length is not known ends with the connection.
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

const EXPECT: &str = "Expect: 100-continue";

#[test]
fn a_client_that_asks_first_is_told_to_go_on() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let body = br#"{"key":"k","value":"v"}"#;
    for (method, target, framing, body) in [
        ("PUT", "/kv/k", "Content-Length: 1", b"v".to_vec()),
        ("POST", "/set?key=k", CHUNKED, chunked(b"v", 1)),
        ("POST", "/set", "Content-Length: 23", body.to_vec()),
        (
            "GET",
            "/get",
            "Content-Length: 11",
            br#"{"key":"k"}"#.to_vec(),
        ),
    ] {
        client.send_request(method, target, &["expect: 100-Continue", framing], b"");
        let interim = client.response_head();
        assert_eq!(
            (interim.status, interim.headers.len()),
            (100, 0),
            "{method} {target}"
        );
        client.send(&body);
        let response = client.response(false);
        assert!(
            matches!(response.status, 200 | 201),
            "{method} {target}: {}",
            response.text()
        );
        assert_eq!(response.header("Connection"), None, "{method} {target}");
    }
    // Nobody waits where the body is there already, or where there is none.
    client.send_request("PUT", "/kv/k", &[EXPECT], b"w");
    assert_eq!(client.response(false).status, 200);
    client.send_request("GET", "/kv/k", &[EXPECT], b"");
    assert_eq!(client.response(false).text(), "w");
    client.send_request("PUT", "/kv/k", &[EXPECT, "Content-Length: 0"], b"");
    assert_eq!(client.response(false).status, 200);
}

#[test]
fn a_client_that_asks_first_and_is_refused_is_told_so_at_once() {
    let directory = std::env::temp_dir().join(format!("db-node-expect-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let token_file = directory.join("token");
    std::fs::write(&token_file, "0123456789abcdef").expect("write the token");
    let node = Node::start(&[
        "--token-file",
        token_file.to_str().expect("a path"),
        "--max-value-bytes",
        "10",
    ]);
    std::fs::remove_dir_all(&directory).expect("clean up");
    let token = "Authorization: Bearer 0123456789abcdef";
    for (method, target, headers, status) in [
        ("PUT", "/kv/k", vec!["Content-Length: 5"], 401),
        ("PUT", "/kv/k", vec!["Content-Length: 11", token], 413),
        ("POST", "/nothing", vec!["Content-Length: 5", token], 404),
        ("GET", "/set", vec!["Content-Length: 5", token], 405),
        ("PUT", "/kv/k", vec![CHUNKED, "X-TTL: 0", token], 400),
        (
            "PUT",
            "/kv/k?partition=3",
            vec!["Content-Length: 5", token],
            404,
        ),
    ] {
        let mut client = node.connect();
        let headers: Vec<&str> = headers.into_iter().chain([EXPECT]).collect();
        client.send_request(method, target, &headers, b"");
        let response = client.response(false);
        assert_eq!(response.status, status, "{target}: {}", response.text());
        // Whether the body will come is not known, so nothing after it could be trusted.
        assert_eq!(response.header("Connection"), Some("close"));
        client.assert_end();
    }
}

/// What is wrong without the value is told before it is sent; nothing is told to go on.
#[test]
fn a_client_that_asks_first_is_told_what_fails_without_its_value() {
    let node = Node::start(&[]);
    let replica = Node::start(&["--replica-of", "127.0.0.1:1"]);
    let mut client = node.connect();
    let first = client.request("PUT", "/kv/k", &[], b"v");
    client.request("PUT", "/kv/k", &[], b"v");
    let tag = first.header("ETag").expect("a tag");
    let outdated = format!("If-Match: {tag}");
    let token = "Authorization: Bearer 0123456789abcdef";
    let long = "Content-Length: 104857600";
    let (short, not_there) = ("Content-Length: 5", "If-None-Match: *");
    let table: &[(&Node, &str, &str, &[&str], u16)] = &[
        (&node, "PUT", "/kv/k", &[short, &outdated], 412),
        (&node, "PUT", "/kv/k", &[CHUNKED, &outdated], 412),
        (&node, "PUT", "/kv/k", &[short, not_there], 412),
        (&node, "PUT", "/kv/none", &[short, "If-Match: *"], 412),
        (&node, "POST", "/set?key=k", &[short, &outdated], 412),
        (&node, "POST", "/set?key=k", &[CHUNKED, not_there], 412),
        (&node, "PUT", "/kv/k", &[short, "If-Match: x"], 400),
        (&node, "PUT", "/kv/k", &[short, "X-Min-Acks: x"], 400),
        (&node, "POST", "/batch", &[short, "X-Min-Acks: x"], 400),
        (&node, "POST", "/set", &[short, "If-Match: x"], 400),
        (&node, "DELETE", "/delete", &[short, "If-Match: x"], 400),
        (&node, "POST", "/delete", &[short, "X-Min-Acks: x"], 400),
        (&node, "DELETE", "/delete", &[CHUNKED, "X-Min-Acks: 1"], 503),
        (&node, "PUT", "/kv/k?tll=5", &[short], 400),
        (
            &node,
            "PUT",
            "/kv/k",
            &[short, "Content-Encoding: gzip"],
            415,
        ),
        (
            &node,
            "PUT",
            "/kv/k",
            &[short, "Content-Range: bytes 0-4/9"],
            400,
        ),
        (
            &node,
            "PUT",
            "/kv/k",
            &[short, "Origin: http://evil.example"],
            403,
        ),
        (&node, "PUT", "/kv/k", &[long], 413),
        (&node, "POST", "/set", &[long, JSON], 413),
        (&node, "GET", "/get", &[long, JSON], 413),
        (&node, "POST", "/batch", &[long], 413),
        (&node, "POST", "/partition/assign", &[long], 413),
        (&replica, "PUT", "/kv/k", &[short, token], 421),
        (&replica, "POST", "/set", &[short, JSON], 421),
        (&replica, "DELETE", "/delete", &[short, JSON], 421),
        (&replica, "POST", "/delete", &[CHUNKED, JSON], 421),
    ];
    for (node, method, target, headers, status) in table {
        let mut client = node.connect();
        let headers: Vec<&str> = headers.iter().copied().chain([EXPECT]).collect();
        client.send_request(method, target, &headers, b"");
        let response = client.response(false);
        assert_eq!(
            response.status,
            *status,
            "{target} {headers:?}: {}",
            response.text()
        );
        assert_eq!(response.header("Connection"), Some("close"));
        client.assert_end();
    }
    // A condition that holds when the client asks, and not when its value is there.
    let tag = client.request("GET", "/kv/k", &[], b"");
    let current = format!("If-Match: {}", tag.header("ETag").expect("a tag"));
    let mut slow = node.connect();
    slow.send_request("PUT", "/kv/k", &[short, &current, EXPECT], b"");
    assert_eq!(slow.response_head().status, 100);
    client.request("PUT", "/kv/k", &[], b"faster");
    slow.send(b"slow!");
    assert_error(&slow.response(false), 412, "condition_failed");
    assert_eq!(stored(&mut client, b"k"), b"faster");
}

/// A chunk that is longer than what is taken is refused at the line with its size.
#[test]
fn a_chunk_that_is_too_long_is_refused_at_its_size() {
    let node = Node::start(&["--max-value-bytes", "1000"]);
    for (method, target, begin) in [
        ("PUT", "/kv/k", "3e9\r\n"),
        ("PUT", "/kv/k", "3e8\r\n<1000>\r\n1;a=b\r\n"),
        ("POST", "/set?key=k", "FFFFFFFFFFFFFFFF\r\n"),
        ("POST", "/set", "1000000\r\n"),
        ("GET", "/get", "1000000\r\n"),
        ("POST", "/batch", "100001\r\n"),
        ("POST", "/partition/assign", "4001\r\n"),
    ] {
        let mut client = node.connect();
        client.send_request(method, target, &[CHUNKED], b"");
        let begin = begin.replace("<1000>", &"v".repeat(1000));
        client.send(begin.as_bytes());
        assert_eq!(client.response(false).status, 413, "{method} {target}");
    }
    assert_eq!(node.request("GET", "/kv/k", &[], b"").status, 404);
}

#[test]
fn parts_of_values_are_not_sent() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    client.request("PUT", "/kv/k", &[], b"foobar");
    client.request("PUT", "/kv/large", &[], &vec![b'v'; 100_000]);
    for target in ["/kv/k", "/get?key=k", "/kv/large", "/get?key=large"] {
        for method in ["GET", "HEAD"] {
            for headers in [&[][..], &["Range: bytes=1-2"], &["Range: bytes=1-", RAW]] {
                let response = client.request(method, target, headers, b"");
                assert_eq!(response.status, 200, "{method} {target} {headers:?}");
                assert_eq!(response.header("Accept-Ranges"), Some("none"));
                assert_eq!(response.header("Content-Range"), None);
            }
        }
    }
    assert_eq!(stored(&mut client, b"k"), b"foobar");
}

/// The client gets the form that it gives the highest weight, never one that it excludes, and
/// caches can tell forms apart.
#[test]
fn forms_are_negotiated() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    client.request("PUT", "/kv/k", &[], b"v");
    let tag = client.request("GET", "/kv/k", &[], b"");
    assert_eq!(tag.header("Vary"), None, "this path has one form");
    let strong = tag.header("ETag").expect("a tag").to_owned();
    let weak = format!("W/{strong}");
    let (json_type, raw_type) = ("application/json", "application/octet-stream");
    let body = br#"{"key":"k"}"#.as_slice();
    for (accept, expected) in [
        ("*/*", json_type),
        ("application/octet-stream", raw_type),
        ("application/octet-stream;q=0", json_type),
        ("application/json;q=0", raw_type),
        (
            "application/json;q=0.2, application/octet-stream;q=0.3",
            raw_type,
        ),
        (
            "application/json;q=0.3, application/octet-stream;q=0.2",
            json_type,
        ),
    ] {
        let accept = format!("Accept: {accept}");
        for (method, target, body) in [
            ("GET", "/get?key=k", b"".as_slice()),
            ("HEAD", "/get?key=k", b""),
            ("POST", "/get?key=k", b""),
            ("GET", "/get", body),
        ] {
            let response = client.request(method, target, &[&accept], body);
            assert_eq!(response.header("Content-Type"), Some(expected), "{accept}");
            assert_eq!(response.header("Vary"), Some("Accept"), "{accept}");
            let own = if expected == raw_type { &weak } else { &strong };
            assert_eq!(response.header("ETag"), Some(&**own), "{accept}");
            // Either tag says that the client has the value, and is answered by that of its form.
            for known in [&strong, &weak] {
                let known = format!("If-None-Match: {known}");
                let response = client.request(method, target, &[&accept, &known], body);
                assert_eq!(response.status, 304, "{accept} {known}");
                assert_eq!(response.header("ETag"), Some(&**own), "{accept}");
                assert_eq!(response.header("Vary"), Some("Accept"), "{accept}");
            }
        }
    }
    for target in ["/get?key=k", "/watch?timeout=0"] {
        let response = client.request("GET", target, &["Accept: */*;q=0"], b"");
        assert_error(&response, 406, "not_acceptable");
        assert_eq!(response.header("Vary"), Some("Accept"));
        assert!(response.text().contains(json_type), "{}", response.text());
    }
    let missing = client.request("GET", "/get?key=none", &[], b"");
    assert_eq!(
        (missing.status, missing.header("Vary")),
        (404, Some("Accept"))
    );
    for (accept, expected) in [
        ("*/*", json_type),
        ("text/event-stream", "text/event-stream"),
        ("text/event-stream;q=0", json_type),
        ("text/event-stream;q=0.1, */*;q=0.5", json_type),
        ("application/json;q=0.1, text/*;q=0.5", "text/event-stream"),
        ("text/html, application/json;q=0", "text/event-stream"),
    ] {
        let accept = format!("Accept: {accept}");
        let response = client.request("GET", "/watch?timeout=0", &[&accept], b"");
        assert_eq!(response.header("Content-Type"), Some(expected), "{accept}");
        assert_eq!(response.header("Vary"), Some("Accept"), "{accept}");
        // Where nginx is in between, events must not wait for more of them.
        let buffering = (expected == "text/event-stream").then_some("no");
        assert_eq!(response.header("X-Accel-Buffering"), buffering, "{accept}");
    }
}

#[test]
fn encoded_letters_in_paths_are_letters() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    assert_eq!(
        client.request("PUT", "/%6B%76/a%2Fb", &[], b"v").status,
        201
    );
    assert_eq!(stored(&mut client, b"a/b"), b"v");
    assert_eq!(
        client.request("GET", "/g%65t?key=a/b", &[], b"").json()["value"],
        "v"
    );
    for (path, status) in [
        ("/%68ealth", 200),
        ("/%6c%69vez", 200),
        ("/health%2f", 404),
        ("/kv%2Fa", 404),
        ("/%25%36%38ealth", 404),
        ("/%zzhealth", 404),
        ("/%", 404),
    ] {
        let response = client.request("GET", path, &[], b"");
        assert_eq!(response.status, status, "{path}: {}", response.text());
    }
    assert_eq!(client.request("PATCH", "/%68ealth", &[], b"").status, 405);
}

#[test]
fn nodes_with_the_same_content_have_the_same_digest() {
    let nodes = [
        Node::start(&[]),
        Node::start(&["--memtable-bytes", "64KiB"]),
    ];
    let large = vec![b'x'; 100_000];
    for (index, node) in nodes.iter().enumerate() {
        for number in 0..300 {
            node.request("PUT", &format!("/kv/{number}"), &[], b"value");
            if index == 1 && number % 100 == 0 {
                node.request("POST", "/admin/freeze", &[], b"");
            }
        }
        node.request("PUT", "/kv/large", &[], &large);
        node.request("DELETE", "/kv/7", &[], b"");
    }
    nodes[1].request("POST", "/admin/compact", &[], b"");
    nodes[1].settle();
    let digest = |node: &Node| node.request("GET", "/digest", &[], b"").json();
    let of_first = digest(&nodes[0]);
    assert_eq!(
        (of_first["version"].as_u64(), of_first["keys"].as_u64()),
        (Some(302), Some(300))
    );
    assert_eq!(of_first["digest"].as_str().map(str::len), Some(32));
    assert_eq!(
        without_tokens(of_first.clone()),
        without_tokens(digest(&nodes[1]))
    );
    nodes[1].request("PUT", "/kv/large", &[], b"small");
    assert_ne!(of_first["digest"], digest(&nodes[1])["digest"]);
}
