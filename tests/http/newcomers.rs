//! What is typed on the first day, mistakes included, and what is answered.

use serde_json::Value as Json;

use crate::common::{Client, Node};
use crate::stored;

/// A node with a key in it.
fn node_with_a_key() -> (Node, Client) {
    let node = Node::start(&[]);
    let mut client = node.connect();
    assert_eq!(client.request("PUT", "/kv/k", &[], b"v").status, 201);
    (node, client)
}

/// On a terminal the next prompt begins a line of its own. Nothing else changes: a value is sent as
/// it was stored.
#[test]
fn every_json_answer_is_one_line_with_its_end() {
    let (_node, mut client) = node_with_a_key();
    let large = vec![b'x'; 100_000];
    assert_eq!(client.request("PUT", "/kv/large", &[], &large).status, 201);
    let batch = br#"{"ops":[{"op":"get","key":"large"},{"op":"delete","key":"none"}]}"#;
    let assignment = br#"{"id":7,"role":"replica","leader":"http://127.0.0.1:1"}"#;
    for (method, target, body) in [
        ("POST", "/set?key=a", &b"1"[..]),
        ("PUT", "/kv/a", b"2"),
        ("GET", "/get?key=a", b""),
        ("GET", "/get?key=large", b""),
        ("GET", "/get?key=none", b""),
        ("POST", "/get?key=a", b""),
        ("DELETE", "/delete?key=a", b""),
        ("DELETE", "/delete?key=a", b""),
        ("GET", "/kv/none", b""),
        ("POST", "/batch", br#"{"ops":[{"op":"get","key":"k"}]}"#),
        ("POST", "/batch", batch),
        ("GET", "/scan", b""),
        ("GET", "/scan?limit=1", b""),
        ("GET", "/watch?timeout=0", b""),
        ("GET", "/watch?timeout=x", b""),
        ("GET", "/health", b""),
        ("GET", "/status", b""),
        ("GET", "/digest", b""),
        ("GET", "/openapi.json", b""),
        ("POST", "/admin/freeze", b""),
        ("POST", "/admin/freeze", b""),
        ("POST", "/admin/compact", b""),
        ("POST", "/admin/checkpoint", b""),
        ("POST", "/partition/assign", assignment),
        ("DELETE", "/partition/7?discard=true", b""),
        ("DELETE", "/partition/7", b""),
        ("GET", "/nothing", b""),
        ("PATCH", "/get", b""),
        ("BREW", "/get", b""),
    ] {
        let response = client.request(method, target, &[], body);
        let text = response.text();
        assert_eq!(
            response.header("Content-Type"),
            Some("application/json"),
            "{method} {target}"
        );
        assert!(
            text.ends_with("}\n") && !text.ends_with("\n\n"),
            "{method} {target}: {text:?}"
        );
        let json: Result<Json, _> = serde_json::from_str(&text);
        assert!(json.is_ok(), "{method} {target}: {text}");
        if let Some(length) = response.header("Content-Length") {
            assert_eq!(length, text.len().to_string(), "{method} {target}");
        }
    }
    let whole = client.request("GET", "/get?key=k", &[], b"");
    let head = client.request("HEAD", "/get?key=k", &[], b"");
    assert_eq!(
        head.header("Content-Length"),
        Some(&*whole.body.len().to_string())
    );
    assert_eq!(stored(&mut client, b"k"), b"v");
    assert_eq!(stored(&mut client, b"large"), large);
    let raw = ["Accept: application/octet-stream"];
    let response = client.request("GET", "/get?key=k", &raw, b"");
    assert_eq!(response.body, b"v");
}
