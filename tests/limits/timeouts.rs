//! Time-outs end what does not move, and never what does.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::{Client, Node, assert_error, let_pass, wait_for};
use crate::large_values::pattern;
use crate::{LARGE_BYTES, SetOnDrop};

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
