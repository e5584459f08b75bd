//! `Expect: 100-continue`: a value is asked for, or refused before it is sent.

use crate::common::{Node, assert_error, chunked};
use crate::{CHUNKED, JSON, stored};

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
    // The node does not wait where the body is there already, or where there is none.
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
