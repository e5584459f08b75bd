//! Keys and values up to their limits, and over them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use crate::common::{Node, assert_error, chunked, percent_encoded};
use crate::{CHUNKED, FORM, JSON, stored};

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
pub(crate) type Request = (&'static str, &'static str, Vec<&'static str>, Vec<u8>);

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
        assert!(
            response.text().contains("longer than 16 MiB"),
            "{}",
            response.text()
        );
        assert_eq!(response.header("Connection"), Some("close"));
        client.assert_end();
    }
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
