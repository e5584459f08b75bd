//! Conditional reads and writes: `If-Match`, `If-None-Match`.

use serde_json::json;

use crate::common::{Node, Response, assert_error};
use crate::{assert_not_found, stored};

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
