//! Keys and values in every form of a request and of an answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use crate::common::{Node, assert_error, chunked, percent_encoded};
use crate::{CHUNKED, FORM, JSON, RAW, assert_json, assert_not_found, stored};

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
