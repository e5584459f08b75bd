//! Which paths, methods and partitions there are.

use crate::common::{Node, assert_error, request_bytes, without_tokens};
use crate::{JSON, stored};

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
        ("/", "GET, HEAD, OPTIONS"),
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
    for path in ["/nothing", "/get/", "/GET", "/kv", "/set/x", "//get"] {
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
