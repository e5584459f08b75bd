//! Bodies that are refused: the client gets the answer, and the node no load.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Client, Node, chunked, let_pass, request_bytes, wait_for};
use crate::{CHUNKED, LARGE_BYTES, SetOnDrop, while_serving_others};

/// A client as most are: it sends all of its request, and only then reads. Then it waits for the
/// end of the connection.
fn send_all_then_read(node: &Node, request: &[u8]) -> (u16, String) {
    let mut client = node.connect();
    if let Err(error) = client.stream.write_all(request) {
        return (0, format!("sending ended early: {error}"));
    }
    let response = client.response(false);
    client.finish_sending();
    client.assert_end();
    (response.status, response.text())
}

/// A request with a body that is too long, or not wanted at all, or behind a refused head: whatever
/// the answer, it can be read.
#[test]
fn a_client_that_sends_all_before_it_reads_gets_its_answer() {
    let folder = crate::common::Folder::new("early");
    let token_file = folder.join("token");
    std::fs::write(&token_file, "0123456789abcdef").expect("write the token");
    let plain = Node::start(&[]);
    let with_token = Node::start(&["--token-file", crate::common::text(&token_file)]);
    let replica = Node::start(&["--replica-of", "127.0.0.1:1"]);
    let body = vec![b'z'; LARGE_BYTES + 1];
    let in_chunks = [&chunked(&body, LARGE_BYTES + 1), &chunked(&body, 100_000)];
    let put = |target: &str, headers: &[&str]| request_bytes("PUT", target, headers, &body);
    let post = |target: &str, headers: &[&str]| request_bytes("POST", target, headers, &body);
    let raw = |head: &str| {
        let head = format!("{head}\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), &body].concat()
    };
    let many_lines = "a: b\r\n".repeat(120);
    let table = [
        (413, &plain, put("/kv/x", &[])),
        (413, &plain, post("/set?key=x", &[])),
        (
            413,
            &plain,
            request_bytes("PUT", "/kv/x", &[CHUNKED], in_chunks[0]),
        ),
        (
            413,
            &plain,
            request_bytes("PUT", "/kv/x", &[CHUNKED], in_chunks[1]),
        ),
        (413, &plain, post("/batch", &[])),
        (413, &plain, post("/partition/assign", &[])),
        (404, &plain, post("/nothing", &[])),
        (
            404,
            &plain,
            request_bytes("POST", "/nothing", &[CHUNKED], in_chunks[1]),
        ),
        (404, &plain, put("/kv/x?partition=7", &[])),
        (401, &with_token, put("/kv/x", &[])),
        (403, &plain, put("/kv/x", &["Origin: http://evil.example"])),
        (405, &plain, put("/set", &[])),
        (405, &plain, post("/health", &[])),
        (415, &plain, put("/kv/x", &["Content-Encoding: gzip"])),
        (415, &plain, post("/set", &["Content-Type: text/plain"])),
        (421, &replica, put("/kv/x", &[])),
        (421, &plain, raw("PUT /kv/x HTTP/1.1\r\nHost: evil.example")),
        (400, &plain, put("/kv/x", &["X-TTL: never"])),
        (400, &plain, put("/kv/x?tll=5", &[])),
        (
            400,
            &plain,
            post("/set", &["Content-Type: application/json"]),
        ),
        (400, &plain, raw("PUT /kv/x HTTP/1.1\r\nHost: a\r\nHost: b")),
        (400, &plain, raw("PUT  /kv/x HTTP/1.1\r\nHost: localhost")),
        (417, &plain, put("/kv/x", &["Expect: tea"])),
        // It says that it will wait, and does not.
        (413, &plain, put("/kv/x", &["Expect: 100-continue"])),
        (
            431,
            &plain,
            raw(&format!(
                "PUT /kv/x HTTP/1.1\r\nHost: localhost\r\n{many_lines}"
            )),
        ),
        (
            501,
            &plain,
            request_bytes("BREW", "/kv/x", &["Content-Length: 16777217"], &body),
        ),
        (505, &plain, raw("PUT /kv/x HTTP/2.0\r\nHost: localhost")),
    ];
    for (status, node, request) in table {
        let shown = String::from_utf8_lossy(&request[..60]).into_owned();
        eprintln!("{shown:?}");
        let (found, text) = send_all_then_read(node, &request);
        assert_eq!(found, status, "{shown:?}: {text}");
    }
    assert_eq!(plain.status()["partitions"][0]["lastVersion"], 0);
}

/// A body that is not wanted, and no longer than the longest value, is read to its end: the
/// connection goes on.
#[test]
fn bodies_up_to_the_longest_value_cost_no_connection() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    for body in [vec![b'z'; 4 << 20], vec![b'z'; LARGE_BYTES]] {
        for (method, target, headers, status) in [
            ("POST", "/nothing", &[][..], 404),
            ("PUT", "/set", &[], 405),
            ("PUT", "/kv/k", &["X-TTL: never"], 400),
            ("PUT", "/kv/k", &["Content-Encoding: br"], 415),
            ("GET", "/livez", &[], 200),
            ("DELETE", "/kv/k", &[], 404),
            ("POST", "/batch", &[], 413),
        ] {
            let response = client.request(method, target, headers, &body);
            assert_eq!(response.status, status, "{}", response.text());
            assert_eq!(response.header("Connection"), None, "{method} {target}");
        }
    }
    let in_chunks = chunked(&vec![b'z'; LARGE_BYTES], 1 << 20);
    let response = client.request("POST", "/nothing", &[CHUNKED], &in_chunks);
    assert_eq!(
        (response.status, response.header("Connection")),
        (404, None)
    );
    assert_eq!(client.request("GET", "/livez", &[], b"").status, 200);
}

/// What is dropped costs no memory, and others are served meanwhile.
#[test]
fn what_is_dropped_costs_no_memory_and_no_turns() {
    const LONG_BYTES: usize = 192 << 20;
    let node = Node::start(&[]);
    let before_kib = node.memory_kib("VmRSS");
    let piece = vec![b'z'; 1 << 20];
    while_serving_others(&node, "dropping", || {
        for framing in ["Content-Length: 201326592", CHUNKED] {
            let mut client = node.connect();
            client.send_request("POST", "/nothing", &[framing], b"");
            for _ in 0..LONG_BYTES >> 20 {
                if framing == CHUNKED {
                    client.send(b"100000\r\n");
                }
                client.send(&piece);
                if framing == CHUNKED {
                    client.send(b"\r\n");
                }
            }
            assert_eq!(client.response(false).status, 404);
        }
    });
    let growth_kib = node.memory_kib("VmHWM").saturating_sub(before_kib);
    assert!(
        growth_kib < 8 * 1024,
        "{growth_kib} KiB for what is dropped"
    );
}

/// A peer that has its answer and neither sends nor goes is let go, and does not hold up the end of
/// the node.
#[test]
fn what_is_not_wanted_is_not_waited_for_long() {
    let heads = [
        request_bytes("POST", "/nothing", &["Content-Length: 1000"], b"half"),
        request_bytes("POST", "/nothing", &[CHUNKED], b"5\r\nhal"),
        request_bytes("PUT", "/kv/k", &["Content-Length: 17000000"], b"half"),
        request_bytes("GET", "/livez", &["Connection: close"], b""),
        b"nonsense\r\n\r\n".to_vec(),
    ];
    let mut node = Node::start(&[]);
    let begin = |node: &Node| -> Vec<Client> {
        let begin_one = |head: &Vec<u8>| {
            let mut client = node.connect();
            client.send(head);
            client.response(false);
            client
        };
        heads.iter().map(begin_one).collect()
    };
    let start = Instant::now();
    let silent = begin(&node);
    wait_for("silent peers to be let go", || {
        node.status()["loop"]["connections"] == 1
    });
    assert!(
        start.elapsed() > Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?}",
        start.elapsed()
    );
    drop(silent);

    let sending = begin(&node);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _set_over = SetOnDrop(&is_over);
        for client in &sending[..2] {
            let mut stream = client.stream.try_clone().expect("clone");
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) && stream.write_all(b"x").is_ok() {
                    let_pass(Duration::from_millis(20));
                }
            });
        }
        let start = Instant::now();
        node.signal("TERM");
        assert!(node.wait().success());
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
    });
}
