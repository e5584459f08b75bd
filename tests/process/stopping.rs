//! How a node stops, and what does not stop it.

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use crate::common::{Client, Node, PATIENCE, let_pass, request_bytes, wait_for};

/// Waits until the node refuses connections.
fn wait_for_refusal(node: &Node) {
    wait_for("new connections to be refused", || {
        TcpStream::connect(node.address).is_err()
    });
}

#[test]
fn a_signal_lets_what_is_in_flight_finish() {
    for signal in ["TERM", "INT"] {
        let mut node = Node::start(&[]);
        let (mut writing, mut asking, mut idle, mut used) = (
            node.connect(),
            node.connect(),
            node.connect(),
            node.connect(),
        );
        assert_eq!(used.request("GET", "/livez", &[], b"").status, 200);
        writing.send_request("PUT", "/kv/k", &["Content-Length: 10"], b"half ");
        asking.send(b"GET /readyz HTT");
        node.settle();
        node.signal(signal);
        wait_for_refusal(&node);
        idle.assert_end();
        used.assert_end();
        drop((idle, used));
        asking.send(b"P/1.1\r\nHost: localhost\r\n\r\n");
        let response = asking.response(false);
        assert_eq!(
            (response.status, response.header("Connection")),
            (503, Some("close")),
            "{}",
            response.text()
        );
        asking.assert_end();
        drop(asking);
        assert!(node.is_running(), "a request is in flight");
        writing.send(b"done!");
        // What follows is too late.
        writing.send(&request_bytes("GET", "/kv/k", &[], b""));
        let response = writing.response(false);
        assert_eq!(
            (response.status, response.header("Connection")),
            (201, Some("close")),
            "{}",
            response.text()
        );
        writing.assert_end();
        drop(writing);
        assert_eq!(node.wait().code(), Some(0), "SIG{signal}");
        let log = node.rest_of_log();
        let last = log.lines().last().expect("a log");
        assert!(last.ends_with("stopped"), "{log}");
    }
}

#[test]
fn an_answer_on_its_way_is_finished() {
    let mut node = Node::start(&[]);
    let value = vec![b'v'; 16 << 20];
    assert_eq!(node.request("PUT", "/kv/k", &[], &value).status, 201);
    let mut client = node.connect_with_small_buffer();
    client.send_request("GET", "/kv/k", &[], b"");
    node.settle();
    node.signal("TERM");
    wait_for_refusal(&node);
    assert!(client.response(false).body == value);
    client.assert_end();
    drop(client);
    assert_eq!(node.wait().code(), Some(0));
}

#[test]
fn without_anything_in_flight_it_stops_at_once() {
    let mut node = Node::start(&[]);
    let start = Instant::now();
    node.signal("TERM");
    assert_eq!(node.wait().code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second) in [("TERM", "TERM"), ("TERM", "INT"), ("INT", "INT")] {
        let mut node = Node::start(&[]);
        let mut client = node.connect();
        client.send_request("PUT", "/kv/k", &["Content-Length: 10"], b"half ");
        node.settle();
        node.signal(first);
        wait_for_refusal(&node);
        assert!(node.is_running(), "a request is in flight");
        let start = Instant::now();
        node.signal(second);
        let status = node.wait();
        assert!(!status.success(), "{first}, {second}: {status}");
        assert!(status.code().is_some() || status.signal().is_some());
        // The request had ten seconds.
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        let log = node.rest_of_log();
        assert!(!log.contains("panic"), "{log}");
    }
}

#[test]
fn a_lack_of_descriptors_passes() {
    let mut node = Node::start(&["--idle-timeout-ms", "2000"]);
    // The node made room for its connections at the start; what it finds later is less.
    let limit = rustix::process::Rlimit {
        current: Some(64),
        maximum: Some(64),
    };
    let pid = rustix::process::Pid::from_raw(node.pid().try_into().expect("a process id"));
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit)
        .expect("lower the limit");
    let mut inside = node.connect();
    assert_eq!(inside.request("PUT", "/kv/k", &[], b"v").status, 201);
    // More than there are descriptors, all held.
    let mut crowd: Vec<TcpStream> = Vec::new();
    for _ in 0..150 {
        crowd.push(TcpStream::connect(node.address).expect("the backlog takes it"));
        assert_eq!(
            inside.request("GET", "/kv/k", &[], b"").text(),
            "v",
            "with {} others",
            crowd.len()
        );
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", node.pid()))
        .expect("read /proc")
        .count();
    eprintln!("{open} of 64 descriptors in use");
    assert!(open >= 60, "{open} descriptors: there is no lack of them");
    assert!(node.is_running());
    // It waits for better times instead of spinning: turns stand for polls.
    let turns = |client: &mut Client| {
        client.request("GET", "/status", &[], b"").json()["loop"]["turns"].as_u64()
    };
    let before = turns(&mut inside).expect("a number");
    let_pass(Duration::from_millis(200));
    let spent = turns(&mut inside).expect("a number") - before;
    assert!(spent < 300, "{spent} turns in 200 ms with nothing to do");
    // No client is left hanging: those inside end by their time-out, those that never got in as
    // well.
    for (index, stream) in crowd.iter_mut().enumerate() {
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("set a time-out");
        match stream.read_to_end(&mut Vec::new()) {
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => {
                panic!("connection {index}: {error}")
            }
            _ => {}
        }
    }
    drop(crowd);
    drop(inside);
    wait_for("the node to recover", || {
        let mut client = node.connect();
        client.send_request("GET", "/kv/k", &[], b"");
        client.response(false).text() == "v"
    });
    node.signal("TERM");
    assert_eq!(node.wait().code(), Some(0));
}
