//! Large values in and out; other connections are served meanwhile.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::common::{Node, assert_error, chunked};
use crate::{CHUNKED, LARGE_BYTES, while_serving_others};

/// Bytes that repeat late, so that a piece that is lost, doubled or moved shows.
pub(crate) fn pattern(seed: u64, length: usize) -> Vec<u8> {
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
}

#[test]
fn large_raw_values_in_and_out() {
    let node = Node::start(&[]);
    let value = pattern(1, LARGE_BYTES);
    let mut client = node.connect();
    while_serving_others(&node, "raw", || {
        assert_eq!(client.request("PUT", "/kv/large", &[], &value).status, 201);
        assert!(client.request("GET", "/kv/large", &[], b"").body == value);
    });
    for chunk_bytes in [999_983, 65_536, 1_000] {
        while_serving_others(&node, "chunked", || {
            client.request("DELETE", "/kv/large", &[], b"");
            client.send_request("PUT", "/kv/large", &[CHUNKED], b"");
            client.send(&chunked(&value, chunk_bytes));
            assert_eq!(client.response(false).status, 201);
            assert!(
                client.request("GET", "/kv/large", &[], b"").body == value,
                "chunks of {chunk_bytes}"
            );
        });
    }
    let head = client.request("HEAD", "/kv/large", &[], b"");
    assert_eq!(
        (head.status, head.header("Content-Length")),
        (200, Some("16777216"))
    );
    // The answer to HEAD had no body: the connection is where it should be.
    let raw = client.request(
        "GET",
        "/get?key=large",
        &["Accept: application/octet-stream"],
        b"",
    );
    assert!(raw.body == value);
    // One more byte, of which the node hears only at the end.
    client.send_request("PUT", "/kv/large", &[CHUNKED], b"");
    let over = [chunked(&value, 1 << 20), vec![]].concat();
    let over = [&over[..over.len() - 5], b"1\r\nx\r\n0\r\n\r\n"].concat();
    client.send(&over);
    assert_error(&client.response(false), 413, "value_too_large");
    assert!(node.request("GET", "/kv/large", &[], b"").body == value);
}

#[test]
fn large_json_values_in_and_out() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    // All kinds of characters, cut by buffers everywhere.
    let mut text = String::new();
    let mut random = fastrand::Rng::with_seed(2);
    while text.len() < LARGE_BYTES - 4 {
        text.push(
            *random
                .choice(&['a', '"', '\\', '\n', '\u{0}', '\u{1f}', 'é', '€', '😀', '/'])
                .expect("one of them"),
        );
    }
    text.push_str(&"x".repeat(LARGE_BYTES - text.len()));
    let body = serde_json::json!({"key": "text", "value": text}).to_string();
    while_serving_others(&node, "JSON text", || {
        let set = client.request("POST", "/set", &[], body.as_bytes());
        assert_eq!(set.status, 200, "{}", set.text());
        let got = client.request("GET", "/get?key=text", &[], b"");
        assert_eq!(got.status, 200);
        assert!(got.json()["value"].as_str() == Some(text.as_str()));
        assert_eq!(got.json()["encoding"], serde_json::Value::Null);
    });
    assert!(client.request("GET", "/kv/text", &[], b"").body == text.as_bytes());

    let binary = pattern(3, LARGE_BYTES);
    let encoded = BASE64.encode(&binary);
    let body =
        serde_json::json!({"key": "binary", "value": encoded, "encoding": "base64"}).to_string();
    while_serving_others(&node, "base64", || {
        let set = client.request("POST", "/set", &[], body.as_bytes());
        assert_eq!(set.status, 200, "{}", set.text());
        let got = client.request("GET", "/get?key=binary", &[], b"").json();
        assert!(got["value"].as_str() == Some(encoded.as_str()));
        assert_eq!(got["encoding"], "base64");
        assert_eq!(got["version"], set.json()["version"]);
    });
    assert!(client.request("GET", "/kv/binary", &[], b"").body == binary);
    // Text up to its very last character.
    let almost = [&text.as_bytes()[..LARGE_BYTES - 1], b"\xc3"].concat();
    client.request("PUT", "/kv/almost", &[], &almost);
    let got = client.request("GET", "/get?key=almost", &[], b"").json();
    assert_eq!(got["encoding"], "base64");
    assert!(got["value"].as_str() == Some(BASE64.encode(&almost).as_str()));
    let head = client.request("HEAD", "/get?key=text", &[], b"");
    assert_eq!(head.status, 200);
    assert_eq!(
        client.request("GET", "/livez", &[], b"").status,
        200,
        "no body followed the head"
    );
}

#[test]
fn a_value_that_is_being_read_is_the_one_that_was_asked_for() {
    let node = Node::start(&[]);
    let (first, second) = (pattern(4, LARGE_BYTES), pattern(5, LARGE_BYTES));
    assert_eq!(node.request("PUT", "/kv/k", &[], &first).status, 201);
    let mut client = node.connect_with_small_buffer();
    client.send_request("GET", "/kv/k", &[], b"");
    node.settle();
    assert_eq!(node.request("PUT", "/kv/k", &[], &second).status, 200);
    assert_eq!(node.request("DELETE", "/kv/k", &[], b"").status, 204);
    assert!(client.response(false).body == first);
}
