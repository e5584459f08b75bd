//! Limits, time-outs and large values: what is over is told so and ends, what is not is never cut,
//! and nobody else notices.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

mod common;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use common::{Client, Node, assert_error, chunked, let_pass, request_bytes, wait_for};

const LARGE_BYTES: usize = 16 << 20;
const CHUNKED: &str = "Transfer-Encoding: chunked";

/// Says that something is over, also when it ends by a panic: others wait for it.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Serves small requests on another connection while `work` runs; says how long the longest took.
fn while_serving_others<T>(node: &Node, what: &str, work: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    let mut client = node.connect();
    assert!(client.request("PUT", "/kv/small", &[], b"0").status < 300);
    std::thread::scope(|scope| {
        let served = scope.spawn(|| {
            let (mut count, mut longest) = (0_u64, Duration::ZERO);
            // At least one whole round, however fast the work is.
            while !is_over.load(Ordering::Relaxed) || count == 0 {
                let start = Instant::now();
                let value = count.to_string();
                assert_eq!(
                    client
                        .request("PUT", "/kv/small", &[], value.as_bytes())
                        .status,
                    200
                );
                assert_eq!(client.request("GET", "/kv/small", &[], b"").text(), value);
                longest = longest.max(start.elapsed());
                count += 1;
            }
            (count, longest)
        });
        let set_over = SetOnDrop(&is_over);
        let outcome = work();
        drop(set_over);
        let (count, longest) = served.join().expect("the other connection is served");
        eprintln!("{what}: {count} rounds on another connection, the longest took {longest:?}");
        outcome
    })
}

/// Bytes that repeat late, so that a piece that is lost, doubled or moved shows.
fn pattern(seed: u64, length: usize) -> Vec<u8> {
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

/// The 408 and the end of the connection that a slow request gets.
fn assert_timed_out(client: &mut Client, start: Instant, least: Duration) {
    let response = client.response(false);
    assert_error(&response, 408, "request_timeout");
    assert_eq!(response.header("Connection"), Some("close"));
    client.assert_end();
    assert!(start.elapsed() >= least, "too early: {:?}", start.elapsed());
}

const HEADER_TIMEOUT: Duration = Duration::from_millis(200);
const IDLE_TIMEOUT: Duration = Duration::from_millis(300);
const IMPATIENT: [&str; 4] = ["--header-timeout-ms", "200", "--idle-timeout-ms", "300"];

#[test]
fn slow_requests_time_out() {
    let node = Node::start(&IMPATIENT);
    for begun in [
        b"G".to_vec(),
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n".to_vec(),
        b"PUT /kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n".to_vec(),
        b"PUT /kv/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf".to_vec(),
        b"PUT /kv/k HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nval"
            .to_vec(),
        b"POST /set HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30\r\n\r\n{\"key\":".to_vec(),
    ] {
        let mut client = node.connect();
        let start = Instant::now();
        client.send(&begun);
        assert_timed_out(&mut client, start, HEADER_TIMEOUT);
        // The same after a request on the same connection.
        let mut client = node.connect();
        assert_eq!(client.request("GET", "/livez", &[], b"").status, 200);
        let start = Instant::now();
        client.send(&begun);
        assert_timed_out(&mut client, start, HEADER_TIMEOUT);
    }
    assert_eq!(node.request("GET", "/kv/k", &[], b"").status, 404);
}

#[test]
fn a_head_that_drips_times_out() {
    let node = Node::start(&IMPATIENT);
    let mut client = node.connect();
    let mut dripping = client.stream.try_clone().expect("clone");
    let is_over = AtomicBool::new(false);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let drip = scope.spawn(|| {
            let head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: ";
            for byte in head.iter().chain([b'x'; 1000].iter()) {
                if is_over.load(Ordering::Relaxed) || dripping.write_all(&[*byte]).is_err() {
                    return true;
                }
                let_pass(Duration::from_millis(10));
            }
            false
        });
        let set_over = SetOnDrop(&is_over);
        let response = client.response(false);
        drop(set_over);
        assert_error(&response, 408, "request_timeout");
        assert!(
            drip.join().expect("no panic"),
            "as long as bytes came, the head was waited for"
        );
    });
    assert!(start.elapsed() >= HEADER_TIMEOUT);
}

#[test]
fn idle_connections_are_closed_silently() {
    let node = Node::start(&IMPATIENT);
    let start = Instant::now();
    node.connect().assert_end();
    assert!(start.elapsed() >= IDLE_TIMEOUT, "{:?}", start.elapsed());
    let mut client = node.connect();
    for _ in 0..4 {
        // Each request starts the time anew.
        let_pass(IDLE_TIMEOUT / 2);
        assert_eq!(client.request("GET", "/livez", &[], b"").status, 200);
    }
    let start = Instant::now();
    client.assert_end();
    assert!(
        start.elapsed() >= IDLE_TIMEOUT.saturating_sub(Duration::from_millis(10)),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_long_body_that_keeps_coming_is_not_cut() {
    let node = Node::start(&IMPATIENT);
    let value = pattern(6, 1 << 20);
    let mut client = node.connect();
    client.send_request("PUT", "/kv/k", &["Content-Length: 1048576"], b"");
    let start = Instant::now();
    for piece in value.chunks(64 * 1024) {
        client.send(piece);
        let_pass(Duration::from_millis(30));
    }
    assert!(start.elapsed() > 2 * HEADER_TIMEOUT);
    assert_eq!(client.response(false).status, 201);
    assert!(node.request("GET", "/kv/k", &[], b"").body == value);
}

#[test]
fn a_long_answer_that_keeps_being_read_is_not_cut() {
    let node = Node::start(&IMPATIENT);
    let value = pattern(7, LARGE_BYTES);
    assert_eq!(node.request("PUT", "/kv/k", &[], &value).status, 201);
    for target in ["/kv/k", "/get?key=k"] {
        let mut client = node.connect_with_small_buffer();
        client.send_request("GET", target, &[], b"");
        let start = Instant::now();
        let (mut received, mut buffer) = (0, vec![0; 256 * 1024]);
        while received < LARGE_BYTES {
            match client.stream.read(&mut buffer) {
                Ok(count @ 1..) => received += count,
                ended => panic!(
                    "{target}: {ended:?} after {received} bytes and {:?}",
                    start.elapsed()
                ),
            }
            // Much slower than the node could, and never silent for long.
            if received % 7 < 4 {
                let_pass(Duration::from_millis(3));
            }
        }
        eprintln!("{target}: read for {:?}", start.elapsed());
        assert!(
            start.elapsed() > 2 * IDLE_TIMEOUT,
            "too fast to prove anything: {:?}",
            start.elapsed()
        );
    }
}

#[test]
fn the_last_answer_is_not_cut_either() {
    /// Longer than a connection may take to close, once it has nothing more to say.
    const SLOW: Duration = Duration::from_secs(3);
    let node = Node::start(&[]);
    assert_eq!(
        node.request("PUT", "/kv/k", &[], &pattern(8, LARGE_BYTES))
            .status,
        201
    );
    let readers = ["Connection: close", "Connection: keep-alive"].map(|connection| {
        let mut client = node.connect_with_small_buffer();
        client.send_request("GET", "/kv/k", &[connection], b"");
        if connection.ends_with("alive") {
            client.finish_sending();
        }
        std::thread::spawn(move || {
            let start = Instant::now();
            let (mut received, mut buffer) = (0, vec![0; 64 * 1024]);
            while let Ok(count @ 1..) = client.stream.read(&mut buffer) {
                received += count;
                if start.elapsed() < SLOW {
                    let_pass(Duration::from_millis(15));
                }
            }
            (connection, received, start.elapsed())
        })
    });
    for reader in readers {
        let (connection, received, elapsed) = reader.join().expect("no panic");
        assert!(
            received > LARGE_BYTES,
            "{connection}: cut after {received} bytes and {elapsed:?}"
        );
        assert!(elapsed > SLOW, "too fast to prove anything: {elapsed:?}");
    }
}

#[test]
fn a_peer_that_stops_reading_is_let_go() {
    let node = Node::start(&IMPATIENT);
    assert_eq!(
        node.request("PUT", "/kv/k", &[], &vec![0; LARGE_BYTES])
            .status,
        201
    );
    let mut client = node.connect_with_small_buffer();
    client.send_request("GET", "/kv/k", &[], b"");
    wait_for("the connection to be closed", || {
        node.status()["loop"]["connections"] == 1
    });
    let mut received = Vec::new();
    let _ = client.stream.read_to_end(&mut received);
    assert!(received.len() < LARGE_BYTES, "all of it came");
}

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

/// A request with a body that is too long, or not wanted at all, or whose head is refused: whatever
/// the answer, it can be read.
#[test]
fn a_client_that_sends_all_before_it_reads_gets_its_answer() {
    let folder = common::Folder::new("early");
    let token_file = folder.join("token");
    std::fs::write(&token_file, "0123456789abcdef").expect("write the token");
    let plain = Node::start(&[]);
    let with_token = Node::start(&["--token-file", common::text(&token_file)]);
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

#[test]
fn too_many_connections_are_told_so() {
    let node = Node::start(&["--max-connections", "5"]);
    let mut clients: Vec<Client> = (0..5).map(|_| node.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.request("GET", "/livez", &[], b"").status, 200);
    }
    for _ in 0..3 {
        let mut refused = node.connect();
        // Sent before the answer is read: it must not be reset away.
        refused.send(&request_bytes("PUT", "/kv/k", &[], &[b'x'; 10_000]));
        let response = refused.response(false);
        assert_error(&response, 503, "too_many_connections");
        assert_eq!(response.header("Connection"), Some("close"));
        assert!(
            response
                .header("Retry-After")
                .is_some_and(|seconds| seconds.parse::<u32>().is_ok())
        );
        refused.assert_end();
    }
    for client in &mut clients {
        assert_eq!(
            client.request("GET", "/kv/k", &[], b"").status,
            404,
            "those inside are served on"
        );
    }
    clients.pop();
    wait_for("the slot that was freed", || {
        let mut client = node.connect();
        client.send_request("GET", "/livez", &[], b"");
        client.response(false).status == 200
    });
}

#[test]
fn those_turned_away_take_no_slots() {
    let node = Node::start(&["--max-connections", "5"]);
    let mut clients: Vec<Client> = (0..5).map(|_| node.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.request("GET", "/livez", &[], b"").status, 200);
    }
    // They have their answer, and are slow to go.
    let turned_away: Vec<Client> = (0..5)
        .map(|_| {
            let mut client = node.connect();
            assert_error(&client.response(false), 503, "too_many_connections");
            client
        })
        .collect();
    drop(clients.pop());
    clients[0].request("GET", "/livez", &[], b"");
    let mut next = node.connect();
    next.send_request("GET", "/livez", &[], b"");
    let response = next.response(false);
    assert_eq!(response.status, 200, "a slot is free: {}", response.text());
    drop(turned_away);
}

#[test]
fn clients_that_do_not_read_cost_little_and_get_all_in_the_end() {
    const CLIENT_COUNT: usize = 20;
    const REQUEST_COUNT: usize = 5_000;
    const KEY_COUNT: usize = 10;
    let node = Node::start(&[]);
    let values: Vec<Vec<u8>> = (0..KEY_COUNT)
        .map(|index| vec![b'0' + u8::try_from(index).expect("small"); 2_000])
        .collect();
    for (index, value) in values.iter().enumerate() {
        assert_eq!(
            node.request("PUT", &format!("/kv/{index}"), &[], value)
                .status,
            201
        );
    }
    let mut other = node.connect();
    let requests: Vec<u8> = (0..REQUEST_COUNT)
        .flat_map(|index| request_bytes("GET", &format!("/kv/{}", index % KEY_COUNT), &[], b""))
        .collect();
    let before_kib = node.memory_kib("VmRSS");
    let clients: Vec<Client> = (0..CLIENT_COUNT)
        .map(|_| node.connect_with_small_buffer())
        .collect();
    let sending: Vec<_> = clients
        .iter()
        .map(|client| client.send_in_background(requests.clone()))
        .collect();
    // Until the node has done for them all that it can.
    let served = |other: &mut Client| {
        other.request("GET", "/status", &[], b"").json()["loop"]["requests"].as_u64()
    };
    let mut last = None;
    wait_for("the node to stop answering", || {
        let now = served(&mut other);
        let_pass(Duration::from_millis(30));
        let next = served(&mut other);
        let is_still = last == now
            && next == now.map(|count| count + 1)
            && now > Some(10 + CLIENT_COUNT as u64);
        last = next.map(|count| count + 1);
        is_still
    });
    let total = served(&mut other).expect("a number");
    let growth_kib = node.memory_kib("VmRSS").saturating_sub(before_kib);
    eprintln!("{total} requests answered ahead, {growth_kib} KiB more for {CLIENT_COUNT} clients");
    assert!(
        total < (CLIENT_COUNT * REQUEST_COUNT) as u64,
        "nothing was held back: send more"
    );
    assert!(
        growth_kib <= 1024 * CLIENT_COUNT as u64,
        "{growth_kib} KiB for {CLIENT_COUNT} clients"
    );
    assert_eq!(
        other.request("PUT", "/kv/other", &[], b"v").status,
        201,
        "others are served"
    );
    assert_eq!(other.request("GET", "/kv/other", &[], b"").text(), "v");
    std::thread::scope(|scope| {
        for mut client in clients {
            let values = &values;
            scope.spawn(move || {
                for index in 0..REQUEST_COUNT {
                    let response = client.response(false);
                    assert!(
                        response.status == 200 && response.body == values[index % KEY_COUNT],
                        "answer {index}"
                    );
                }
            });
        }
    });
    for thread in sending {
        thread.join().expect("no panic").expect("all is sent");
    }
}

#[test]
fn connections_that_vanish_leave_nothing_behind() {
    let node = Node::start(&[]);
    assert_eq!(
        node.request("PUT", "/kv/k", &[], &pattern(9, LARGE_BYTES))
            .status,
        201
    );
    let open_descriptors = || {
        std::fs::read_dir(format!("/proc/{}/fd", node.pid()))
            .expect("read /proc")
            .count()
    };
    let (descriptors, before_kib) = (open_descriptors(), node.memory_kib("VmRSS"));
    let half = vec![b'h'; 2 << 20];
    for round in 0..100 {
        let mut client = node.connect_with_small_buffer();
        match round % 5 {
            0 => {}
            1 => client.send(b"GET /kv/k HT"),
            2 => client.send_request("GET", ["/kv/k", "/get?key=k"][round % 2], &[], b""),
            3 => client.send_request("PUT", "/kv/new", &["Content-Length: 4000000"], &half),
            _ => {
                client.send_request(
                    "POST",
                    "/set",
                    &["Content-Length: 4000000"],
                    b"{\"key\":\"new\",\"value\":\"half",
                );
            }
        }
        node.settle();
        if round % 2 == 0 {
            // Closing then resets the connection.
            socket2::SockRef::from(&client.stream)
                .set_linger(Some(Duration::ZERO))
                .expect("set linger");
        }
    }
    wait_for("all of them to be noticed", || {
        node.status()["loop"]["connections"] == 1
    });
    wait_for("all descriptors to be closed", || {
        open_descriptors() <= descriptors
    });
    let growth_kib = node.memory_kib("VmRSS").saturating_sub(before_kib);
    assert!(growth_kib <= 8 * 1024, "{growth_kib} KiB stayed");
    assert_eq!(node.request("GET", "/kv/new", &[], b"").status, 404);
    assert_eq!(node.status()["partitions"][0]["lastVersion"], 1);
}

/// Backups that nobody reads on cost little memory, and there are only so many; the others are
/// served.
#[test]
fn backups_that_are_not_read_cost_little() {
    let node = Node::start(&[]);
    let value = pattern(1, 1 << 20);
    for number in 0..40 {
        assert_eq!(
            node.request("PUT", &format!("/kv/{number}"), &[], &value)
                .status,
            201
        );
    }
    node.settle();
    let before_kib = node.memory_kib("VmRSS");
    let mut readers: Vec<Client> = (0..4).map(|_| node.connect_with_small_buffer()).collect();
    for reader in &mut readers {
        reader.send_request("GET", "/snapshot", &[], b"");
        assert_eq!(reader.response_head().status, 200);
    }
    assert_error(
        &node.request("GET", "/snapshot", &[], b""),
        503,
        "too_many_snapshots",
    );
    assert_eq!(node.status()["partitions"][0]["pinnedSnapshots"], 4);
    assert_eq!(node.request("GET", "/kv/7", &[], b"").body, value);
    let grown_kib = node.memory_kib("VmRSS").saturating_sub(before_kib);
    assert!(
        grown_kib < 8 * 1024,
        "{grown_kib} KiB for four backups of 40 MiB"
    );
    drop(readers);
    wait_for("the snapshots to be let go", || {
        node.status()["partitions"][0]["pinnedSnapshots"] == 0
    });
    assert_eq!(node.request("HEAD", "/snapshot", &[], b"").status, 200);
}

/// Connections that each ask for so much that a turn ends within the requests of one: a connection
/// that is cut off gets on in its turn, and is not passed by those that asked later.
#[test]
fn who_is_cut_off_is_not_passed_by() {
    for (method, body) in [("GET", &b""[..]), ("PUT", &[b'v'; 300])] {
        let request = request_bytes(method, "/kv/key", &[], body);
        let most = rounds_of_others(&Node::start(&[]), &request);
        // Their own, one in which they are cut off, and what comes of looking at one after the
        // other.
        assert!(most <= 4, "others had {most} rounds of {method} meanwhile");
    }
}

/// The most rounds that another connection had while a request waited.
fn rounds_of_others(node: &Node, request: &[u8]) -> u64 {
    let mut answered = [0_u64; CONNECTIONS];
    // Of requests sent and not answered: how many were sent at once, and what was answered then.
    let mut waiting: [VecDeque<(usize, [u64; CONNECTIONS])>; CONNECTIONS] =
        std::array::from_fn(|_| VecDeque::new());
    let (mut most, mut pipeliners) = (0, Pipeliners::start(node));
    while answered[0] < 30_000 {
        pipeliners.sweep(|index, mut count| {
            let more = count;
            if let Some((_, then)) = waiting[index].front() {
                answered[index] += count as u64;
                most = most.max(
                    answered
                        .iter()
                        .zip(then)
                        .map(|(now, then)| now - then)
                        .max()
                        .unwrap_or(0),
                );
                while let Some((sent, _)) = waiting[index].front_mut().filter(|_| count > 0) {
                    let done = count.min(*sent);
                    (*sent, count) = (*sent - done, count - done);
                    if *sent == 0 {
                        waiting[index].pop_front();
                    }
                }
            }
            waiting[index].push_back((more, answered));
            request.repeat(more)
        });
    }
    most / PIPELINED as u64
}

/// However fast writes come, merging keeps up: a turn carries out no more of them than it pays for.
#[test]
fn merging_keeps_up_with_pipelined_writes() {
    let node = Node::start(&[]);
    let mut layers_max = 0;
    std::thread::scope(|scope| {
        let node = &node;
        let writers: Vec<_> = (0..8)
            .map(|seed| scope.spawn(move || write_pipelined(node, seed)))
            .collect();
        while !writers
            .iter()
            .all(std::thread::ScopedJoinHandle::is_finished)
        {
            let layers = node.status()["partitions"][0]["levels"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            layers_max = layers_max.max(
                layers
                    .iter()
                    .filter_map(|level| level["layers"].as_u64())
                    .sum(),
            );
        }
    });
    assert!(layers_max > 2, "something is merged");
    assert!(layers_max < 16, "{layers_max} layers wait to be merged");
}

fn write_pipelined(node: &Node, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut client = node.connect();
    for _ in 0..250 {
        let put = |_| {
            request_bytes(
                "PUT",
                &format!("/kv/{}", rng.u32(..5_000)),
                &[],
                &[b'v'; 15_000],
            )
        };
        client.send(&(0..PIPELINED).flat_map(put).collect::<Vec<u8>>());
        for _ in 0..PIPELINED {
            assert!(client.response(false).status < 300);
        }
    }
}

const CONNECTIONS: usize = 64;
const PIPELINED: usize = 16;

/// Connections that each have some requests under way, always.
struct Pipeliners {
    clients: Vec<Client>,
    /// The end of what was read: an answer may begin there.
    ends: Vec<Vec<u8>>,
    is_fresh: [bool; CONNECTIONS],
    buffer: Vec<u8>,
}

impl Pipeliners {
    fn start(node: &Node) -> Self {
        let clients: Vec<Client> = (0..CONNECTIONS).map(|_| node.connect()).collect();
        for client in &clients {
            client.stream.set_nonblocking(true).expect("set");
        }
        Self {
            clients,
            ends: vec![Vec::new(); CONNECTIONS],
            is_fresh: [true; CONNECTIONS],
            buffer: vec![0; 64 * 1024],
        }
    }

    /// Reads what there is of each connection once, and sends what is to follow so many answers;
    /// first of all, some requests.
    fn sweep(&mut self, mut next: impl FnMut(usize, usize) -> Vec<u8>) {
        const BEGIN: &[u8] = b"HTTP/1.1 ";
        for (index, (client, end)) in self.clients.iter_mut().zip(&mut self.ends).enumerate() {
            match client.stream.read(&mut self.buffer) {
                Ok(0) => panic!("closed"),
                Ok(count) => end.extend_from_slice(&self.buffer[..count]),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
            let begun = end
                .windows(BEGIN.len())
                .filter(|bytes| *bytes == BEGIN)
                .count();
            end.drain(..end.len().saturating_sub(BEGIN.len() - 1));
            let count = if std::mem::take(&mut self.is_fresh[index]) {
                PIPELINED
            } else {
                begun
            };
            if count > 0 {
                client.stream.write_all(&next(index, count)).expect("room");
            }
        }
    }
}
