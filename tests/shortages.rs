//! What runs short does not end what matters more: floods of connections leave descriptors to
//! files, and writes, replicas and health checks go on.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

mod common;

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{Client, Folder, Node, assert_error, command, let_pass, request_bytes, wait_for};
use serde_json::json;

/// A node that may have so many descriptors open, and no more.
fn start_with_descriptors(limit: usize, arguments: &[&str]) -> Node {
    let mut shell = Command::new("sh");
    let script = format!("ulimit -n {limit} && exec \"$0\" \"$@\"");
    shell
        .arg("-c")
        .arg(script)
        .arg(command().get_program())
        .args(["--listen", "127.0.0.1:0", "--log", "warn"])
        .args(arguments)
        .env_clear();
    // A line of the log says where it listens.
    shell.args(["--log", "info"]);
    let node = Node::spawn(shell);
    wait_for("the data to be loaded", || {
        node.request("GET", "/readyz", &[], b"").status == 200
    });
    assert_eq!(node.status()["loop"]["descriptorLimit"], limit);
    node
}

fn replication_address(node: &Node) -> SocketAddr {
    let health = node.request("GET", "/health", &[], b"").json();
    let port = health["replicationPort"].as_u64().expect("a port");
    SocketAddr::new(node.address.ip(), u16::try_from(port).expect("a port"))
}

/// Opens connections as fast as they are taken, says nothing on them, and holds those that the node
/// does not close, up to a number. One that is told something it does not close for some seconds
/// either.
struct Flood {
    is_over: AtomicBool,
    opened: AtomicUsize,
}

impl Flood {
    /// Does `work` meanwhile, from when the flood has opened what it is to hold; returns what came
    /// of it.
    fn during<T>(address: SocketAddr, held: usize, work: impl FnOnce() -> T) -> T {
        let flood = Self {
            is_over: AtomicBool::new(false),
            opened: AtomicUsize::new(0),
        };
        std::thread::scope(|scope| {
            scope.spawn(|| flood.run(address, held));
            let end = EndOnDrop(&flood.is_over);
            wait_for("the flood", || flood.opened.load(Ordering::Relaxed) >= held);
            let outcome = work();
            drop(end);
            eprintln!(
                "{} connections were opened",
                flood.opened.load(Ordering::Relaxed)
            );
            outcome
        })
    }

    fn run(&self, address: SocketAddr, held: usize) {
        let mut connections = VecDeque::new();
        while !self.is_over.load(Ordering::Relaxed) {
            // Some of those that are there are looked at for each one that comes.
            for _ in 0..connections.len().min(4) {
                let oldest = connections.pop_front();
                connections.extend(oldest.filter(|(stream, since)| is_held(stream, *since)));
            }
            if connections.len() >= held {
                let_pass(Duration::from_millis(1));
                continue;
            }
            // With a full backlog a connection takes a second: it is given up sooner.
            if let Ok(connection) = TcpStream::connect_timeout(&address, Duration::from_millis(50))
            {
                connection.set_nonblocking(true).expect("set");
                connections.push_back((connection, Instant::now()));
            }
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether the node has not closed a connection, or has just told something on it.
fn is_held(connection: &TcpStream, since: Instant) -> bool {
    match connection.peek(&mut [0]) {
        Ok(0) => false,
        Ok(_) => since.elapsed() < Duration::from_secs(3),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes more than a log file holds on a connection that is there, for some seconds.
fn write_through(node: &Node, flooded: SocketAddr, held: usize, what: &str) {
    const VALUE_COUNT: usize = 20;
    let value = vec![b'v'; 1_000_000];
    let mut client = node.connect();
    assert_eq!(client.request("PUT", "/kv/first", &[], b"v").status, 201);
    let longest = Flood::during(flooded, held, || {
        let mut longest = Duration::ZERO;
        for number in 0..VALUE_COUNT {
            let start = Instant::now();
            let put = client.request("PUT", &format!("/kv/{number}"), &[], &value);
            assert_eq!(put.status, 201, "{what}: {}", put.text());
            longest = longest.max(start.elapsed());
            let_pass(Duration::from_millis(100));
        }
        longest
    });
    eprintln!("{what}: the longest write took {longest:?}");
    assert_eq!(client.request("GET", "/readyz", &[], b"").status, 200);
    let disk = &node.status()["partitions"][0]["disk"];
    assert!(disk["logFiles"].as_u64() > Some(1), "{what}: {disk}");
}

#[test]
fn a_flood_of_http_connections_leaves_descriptors_to_the_log() {
    for limit in [256, 1024] {
        let folder = Folder::new("flood-http");
        let node = start_with_descriptors(limit, &["--data-dir", folder.path()]);
        write_through(&node, node.address, limit * 2, &format!("HTTP, {limit}"));
    }
}

#[test]
fn a_flood_of_replication_connections_leaves_descriptors_to_the_log() {
    for limit in [256, 1024] {
        let folder = Folder::new("flood-replication");
        let node = start_with_descriptors(limit, &["--data-dir", folder.path()]);
        let address = replication_address(&node);
        write_through(&node, address, limit * 2, &format!("replication, {limit}"));
        let mut new = node.connect();
        assert_eq!(
            new.request("GET", "/kv/first", &[], b"").text(),
            "v",
            "the flood costs HTTP nothing"
        );
    }
}

#[test]
fn floods_on_both_ports_leave_descriptors_to_the_log() {
    let folder = Folder::new("flood-both");
    let node = start_with_descriptors(256, &["--data-dir", folder.path()]);
    Flood::during(replication_address(&node), 500, || {
        write_through(&node, node.address, 500, "both, 256");
    });
}

/// A replica says hello at once: it is taken in whatever else connects to the port.
#[test]
fn a_flood_does_not_keep_replicas_out() {
    let leader = start_with_descriptors(256, &[]);
    assert_eq!(leader.request("PUT", "/kv/k", &[], b"v").status, 201);
    let authority = leader.address.to_string();
    Flood::during(replication_address(&leader), 1_000, || {
        for _ in 0..3 {
            let replica = Node::start(&["--replica-of", &authority]);
            wait_for("the replica to follow", || {
                replica.request("GET", "/replica", &[], b"").status == 200
            });
            assert_eq!(replica.request("GET", "/kv/k", &[], b"").text(), "v");
        }
        let stats = &leader.status()["loop"];
        assert!(
            stats["replicationConnections"].as_u64() <= Some(52),
            "{stats}"
        );
        assert!(
            stats["refusedReplicationConnections"].as_u64() > Some(100),
            "{stats}"
        );
    });
    // Those that said nothing are let go soon, without a newcomer in their place.
    let mut silent = Client::to(replication_address(&leader));
    let start = Instant::now();
    silent.assert_end();
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// What is written and asked of many partitions at once finds descriptors, whatever connects.
#[test]
fn a_flood_leaves_descriptors_to_the_files_of_all_partitions() {
    const LIMIT: usize = 256;
    let folder = Folder::new("flood-partitions");
    let node = start_with_descriptors(LIMIT, &["--data-dir", folder.path()]);
    let mut client = node.connect();
    let assign = |id: usize| {
        let body = json!({ "id": id, "role": "leader" }).to_string();
        let answer = node.request("POST", "/partition/assign", &[], body.as_bytes());
        (answer.status, answer.text())
    };
    // As many as there may be.
    let count = (1..LIMIT)
        .find(|id| assign(*id).0 != 200)
        .expect("a limit on partitions");
    assert!(count > 40, "{count}: {:?}", assign(count));
    let replication = replication_address(&node);
    Flood::during(replication, LIMIT, || {
        Flood::during(node.address, 2 * LIMIT, || {
            for id in 0..count {
                let headers = [&format!("X-Partition-ID: {id}")[..]];
                let put = client.request("PUT", "/kv/k", &headers, b"v");
                assert_eq!(put.status, 201, "{id}: {}", put.text());
                let target = format!("/admin/checkpoint?partition={id}");
                assert_eq!(client.request("POST", &target, &[], b"").status, 202);
            }
            let mut status = || client.request("GET", "/status", &[], b"").json();
            wait_for("all checkpoints", || {
                let status = status();
                let partitions = status["partitions"].as_array().expect("partitions");
                partitions.iter().all(|partition| {
                    let disk = &partition["disk"];
                    assert_eq!(disk["checkpointsGivenUp"], 0, "{disk}");
                    assert_eq!(disk["stall"], serde_json::Value::Null, "{disk}");
                    disk["checkpointVersion"].as_u64() > Some(0)
                })
            });
        });
    });
}

/// Each partition on disk has files open: there are no more of them than descriptors, and what is
/// asked of all of them at once does not open more.
#[test]
fn partitions_and_their_files_fit_under_the_limit() {
    let folder = Folder::new("few-descriptors");
    let node = start_with_descriptors(64, &["--data-dir", folder.path()]);
    // Takes connections into its backlog, and never answers.
    let deaf = TcpListener::bind("127.0.0.1:0").expect("listen");
    let deaf_address = deaf.local_addr().expect("an address");
    let mut client = node.connect();
    let assign = |id: usize, role: serde_json::Value| {
        let mut body = json!({ "id": id, "epoch": 1 });
        body.as_object_mut()
            .expect("an object")
            .extend(role.as_object().expect("an object").clone());
        node.request(
            "POST",
            "/partition/assign",
            &[],
            body.to_string().as_bytes(),
        )
    };
    let mut count = 1;
    loop {
        let answer = assign(count, json!({ "role": "leader" }));
        if answer.status != 200 {
            assert_error(&answer, 409, "too_many_partitions");
            break;
        }
        count += 1;
    }
    assert!((5..30).contains(&count), "{count} partitions");
    let mut write_to_all = |value: &[u8]| {
        for id in 0..count {
            let headers = [&format!("X-Partition-ID: {id}")[..]];
            let put = client.request("PUT", "/kv/k", &headers, value);
            assert!(put.status < 300, "{id}: {}", put.text());
        }
    };
    write_to_all(b"v");
    for id in 0..count {
        let target = format!("/admin/checkpoint?partition={id}");
        assert_eq!(node.request("POST", &target, &[], b"").status, 202);
    }
    wait_for("all checkpoints", || {
        let status = node.status();
        let partitions = status["partitions"].as_array().expect("partitions");
        partitions.iter().all(|partition| {
            let disk = &partition["disk"];
            assert_eq!(disk["failure"], serde_json::Value::Null);
            disk["checkpointVersion"].as_u64() > Some(0)
        })
    });
    write_to_all(b"w");
    // All but the first look for a leader that does not answer, and hold a connection each while
    // they do.
    for id in 1..count {
        let leader =
            json!({ "role": "replica", "leader": format!("http://{deaf_address}"), "epoch": 2 });
        assert_eq!(assign(id, leader).status, 200);
    }
    for number in 0..50 {
        let put = node.request("PUT", "/kv/k", &["X-Partition-ID: 0"], &[b'v'; 10_000]);
        assert_eq!(put.status, 200, "{}", put.text());
        let links = node.status()["loop"]["replicationConnections"].clone();
        assert!(links.as_u64() <= Some(8), "{links} connections, {number}");
        let_pass(Duration::from_millis(20));
    }
}

/// As many clients as there may be, none of them idle for long.
fn fill(node: &Node, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| node.connect()).collect();
    for client in &mut clients {
        assert_eq!(client.request("GET", "/livez", &[], b"").status, 200);
    }
    clients
}

#[test]
fn questions_about_the_node_are_answered_however_many_connections_there_are() {
    let folder = Folder::new("questions");
    let token_file = folder.join("token");
    std::fs::write(&token_file, "0123456789abcdef").expect("write");
    let token = ["--token-file", common::text(&token_file)];
    let node = Node::start(&[&["--max-connections", "5"], &token[..]].concat());
    let bearer = "Authorization: Bearer 0123456789abcdef";
    let inside = fill(&node, 5);
    // More than may wait for an answer, and nothing is heard of them.
    let silent: Vec<Client> = (0..200).map(|_| node.connect()).collect();
    assert_eq!(node.request("GET", "/livez", &[], b"").status, 200);
    // By now all of them were told that they are too many, and do not close.
    let_pass(Duration::from_millis(1_500));
    for (method, target, status) in [
        ("GET", "/health", 200),
        ("HEAD", "/health", 200),
        ("GET", "/livez", 200),
        ("GET", "/readyz", 200),
        ("GET", "/leader", 200),
        ("GET", "/replica", 503),
        ("GET", "/metrics", 200),
        ("GET", "/status", 200),
        ("POST", "/livez", 405),
    ] {
        let answer = node.request(method, target, &[bearer], b"");
        assert_eq!(answer.status, status, "{method} {target}");
        assert!(!answer.text().contains("too_many"), "{method} {target}");
        if target != "/metrics" {
            assert_eq!(answer.header("Connection"), Some("close"), "{target}");
        }
    }
    let long = vec![b'v'; 300_000];
    for (method, target, body) in [
        ("GET", "/kv/k", &b""[..]),
        ("PUT", "/kv/k", b"v"),
        ("PUT", "/kv/k", &long),
        ("POST", "/partition/assign", b"{}"),
        ("GET", "/scan", b""),
        ("GET", "/openapi.json", b""),
        ("GET", "/nothing", b""),
    ] {
        let answer = node.request(method, target, &[bearer], body);
        assert_error(&answer, 503, "too_many_connections");
        assert_eq!(answer.header("Connection"), Some("close"), "{target}");
    }
    // What needs the token needs it here, too.
    assert_eq!(node.request("GET", "/status", &[], b"").status, 401);
    assert_eq!(node.request("GET", "/livez", &[], b"").status, 200);
    // In pieces, and with another one behind it, which is not answered.
    let mut client = node.connect();
    for piece in request_bytes("GET", "/livez", &[], b"").chunks(7) {
        client.send(piece);
        let_pass(Duration::from_millis(5));
    }
    client.send_request("GET", "/livez", &[], b"");
    assert_eq!(client.response(false).status, 200);
    client.assert_end();
    // One that says nothing, or half of something, is told why it ends.
    for begun in [&b""[..], b"GET /livez HTTP/1.1\r\n"] {
        let mut client = node.connect();
        client.send(begun);
        let start = Instant::now();
        assert_error(&client.response(false), 503, "too_many_connections");
        client.assert_end();
        assert!(start.elapsed() < Duration::from_secs(4));
    }
    drop((inside, silent));
}

#[test]
fn a_flood_does_not_keep_questions_about_the_node_out() {
    let node = Node::start(&["--max-connections", "5"]);
    let _inside = fill(&node, 5);
    Flood::during(node.address, 1_000, || {
        for _ in 0..50 {
            assert_eq!(node.request("GET", "/livez", &[], b"").status, 200);
            let_pass(Duration::from_millis(10));
        }
    });
}

/// The longest idle connection is closed for the next one that comes; connections in use are not.
#[test]
fn idle_connections_make_room() {
    let node = Node::start(&["--max-connections", "5"]);
    let [
        mut first,
        mut second,
        mut third,
        mut uploading,
        mut watching,
    ] = <[Client; 5]>::try_from(fill(&node, 5)).ok().expect("five");
    uploading.send_request("PUT", "/kv/up", &["Content-Length: 4"], b"up");
    watching.send_request("GET", "/watch?timeout=20", &[], b"");
    let start = Instant::now();
    assert_error(
        &node.request("GET", "/kv/k", &[], b""),
        503,
        "too_many_connections",
    );
    let_pass(Duration::from_millis(1_500));
    for client in [&mut first, &mut third] {
        assert_eq!(client.request("GET", "/kv/k", &[], b"").status, 404);
        let_pass(Duration::from_millis(100));
    }
    // In the order in which they were used last.
    let mut inside = Vec::new();
    for idle in [&mut second, &mut first, &mut third] {
        wait_for("an idle connection to make room", || {
            let mut client = node.connect();
            let answer = client.request("GET", "/kv/k", &[], b"");
            let is_served = answer.status == 404;
            assert!(is_served || answer.status == 503, "{}", answer.text());
            inside.extend(is_served.then_some(client));
            is_served
        });
        assert!(start.elapsed() >= Duration::from_secs(4));
        idle.assert_end();
    }
    assert_eq!(node.status()["loop"]["evictedConnections"], 3);
    uploading.send(b"->");
    assert_eq!(uploading.response(false).status, 201);
    assert_eq!(watching.response(false).json()["events"][0]["key"], "up");
    for client in &mut inside {
        assert_eq!(client.request("GET", "/kv/up", &[], b"").text(), "up->");
    }
}
