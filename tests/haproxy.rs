//! The shipped `haproxy.cfg` with a real `haproxy`: writes find the leader, reads the replicas,
//! also after a failover, and no write is ever sent twice. And `haproxy-etcd.cfg`: what a node
//! answers with 503 is sent again. Passed over, and says so, where `haproxy` is not installed.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

mod common;

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value as Json, json};

use common::{
    Client, Folder, Node, Response, assert_error, inherited_listener, let_pass, text, wait_for,
};

/// The shipped configuration, and what in it is of a place.
const CONFIGURATION: &str = include_str!("../packaging/haproxy.cfg");
const WITH_ETCD: &str = include_str!("../packaging/haproxy-etcd.cfg");
const SERVERS: [&str; 3] = ["10.0.0.11:9001", "10.0.0.12:9001", "10.0.0.13:9001"];
const BIND: &str = "bind :9000";

/// A running `haproxy`, killed when dropped.
struct Proxy {
    child: Child,
    address: SocketAddr,
    folder: Folder,
}

impl Proxy {
    /// In front of these nodes, with the shipped file; none if there is no `haproxy` on this
    /// machine.
    fn start(servers: [SocketAddr; 3]) -> Option<Self> {
        Self::start_file(CONFIGURATION, servers)
    }

    /// With a file for these addresses and the user that runs the tests.
    fn start_file(shipped: &str, servers: [SocketAddr; 3]) -> Option<Self> {
        if Command::new("haproxy")
            .arg("-v")
            .stdout(Stdio::null())
            .status()
            .is_err()
        {
            eprintln!("haproxy is not installed: this test is passed over");
            return None;
        }
        // HAProxy takes a socket that listens already: so the system may choose the port.
        let (socket, address) = inherited_listener();
        let folder = Folder::new("haproxy");
        let path = folder.join("haproxy.cfg");
        let configuration = configuration(shipped, servers, socket.as_raw_fd());
        std::fs::write(&path, configuration).expect("write");
        let mut command = Command::new("haproxy");
        let log = File::create(folder.join("log")).expect("create");
        command
            .args(["-db", "-f", text(&path)])
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().expect("start haproxy");
        Some(Self {
            child,
            address,
            folder,
        })
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).expect("read the log")
    }

    fn connect(&self) -> Client {
        Client::to(self.address)
    }

    fn request(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Response {
        let mut client = self.connect();
        client.send_request(method, target, headers, body);
        client.response_of_anyone(method == "HEAD")
    }

    fn put(&self, key: &str, value: &str) -> Response {
        self.request("PUT", &format!("/kv/{key}"), &[], value.as_bytes())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The shipped file, for these addresses and the user that runs the tests.
fn configuration(shipped: &str, servers: [SocketAddr; 3], listener: i32) -> String {
    let mut configuration = shipped.to_owned();
    for line in ["    user haproxy\n", "    group haproxy\n"] {
        assert!(
            configuration.contains(line),
            "the shipped file has changed: {line}"
        );
        configuration = configuration.replace(line, "");
    }
    for (shipped, server) in SERVERS.iter().zip(servers) {
        assert_eq!(
            configuration.matches(shipped).count(),
            3,
            "the shipped file has changed: {shipped}"
        );
        configuration = configuration.replace(shipped, &server.to_string());
    }
    assert!(
        configuration.contains(BIND),
        "the shipped file has changed: {BIND}"
    );
    configuration.replace(BIND, &format!("bind fd@{listener}"))
}

/// Where in a node's answers a read through the proxy came from: its role and its replication port,
/// which no other node has.
fn reader(proxy: &Proxy) -> (String, u64) {
    let response = proxy.request("GET", "/health", &[], b"");
    assert_eq!(response.status, 200, "{}", response.text());
    let health = response.json();
    let role = health["role"].as_str().expect("a role").to_owned();
    (role, health["replicationPort"].as_u64().expect("a port"))
}

fn assign(node: &Node, assignment: &Json) {
    let response = node.request(
        "POST",
        "/partition/assign",
        &[],
        assignment.to_string().as_bytes(),
    );
    assert_eq!(response.status, 200, "{}", response.text());
}

fn url(node: &Node) -> String {
    format!("http://{}", node.address)
}

fn get(node: &Node, key: &str) -> Response {
    node.request("GET", &format!("/kv/{key}"), &[], b"")
}

#[test]
fn writes_go_to_the_leader_and_reads_to_replicas_before_and_after_a_failover() {
    let leader = Node::start(&["--ack-timeout-ms", "30000"]);
    let follow = || Node::start(&["--replica-of", &url(&leader)]);
    let (first, second) = (follow(), follow());
    let Some(proxy) = Proxy::start([leader.address, first.address, second.address]) else {
        return;
    };
    // Before its first checks the proxy takes every node for anything.
    wait_for("writes to go to the leader", || {
        (0..10).all(|_| proxy.put("a", "1").status / 100 == 2)
    });
    wait_for("reads to go to replicas", || {
        (0..10).all(|_| reader(&proxy).0 == "replica")
    });
    assert_eq!(get(&leader, "a").text(), "1");

    let mut readers = HashSet::new();
    wait_for("both replicas to serve reads", || {
        readers.extend([reader(&proxy)]);
        readers.len() == 2
    });
    assert!(
        readers.iter().all(|(role, _)| role == "replica"),
        "{readers:?}"
    );
    let written = proxy.request(
        "POST",
        "/set",
        &["X-Partition-ID: 0", "X-Min-Acks: 2"],
        br#"{"key":"b","value":"2"}"#,
    );
    assert_eq!(written.status, 200, "{}", written.text());
    assert_eq!(
        proxy.request("POST", "/get", &[], br#"{"key":"b"}"#).json()["value"],
        "2"
    );
    let newest = format!(
        "/get?key=b&min_version={}",
        written.token().expect("a token")
    );
    assert_eq!(proxy.request("GET", &newest, &[], b"").json()["value"], "2");
    // What the node says of a partition that it has not.
    let elsewhere = proxy.request("PUT", "/kv/a", &["X-Partition-ID: 7"], b"x");
    let direct = leader.request("PUT", "/kv/a", &["X-Partition-ID: 7"], b"x");
    assert_ne!(direct.status / 100, 2, "{}", direct.text());
    assert_eq!(
        (elsewhere.status, elsewhere.text()),
        (direct.status, direct.text())
    );
    assert_error(
        &proxy.request("POST", "/partition/assign", &[], b"{}"),
        403,
        "not_through_proxy",
    );
    assert_error(
        &proxy.request("POST", "/admin/freeze", &[], b""),
        403,
        "not_through_proxy",
    );

    drop(leader);
    for _ in 0..20 {
        assert_eq!(
            proxy.request("GET", "/kv/b", &[], b"").text(),
            "2",
            "reads go on"
        );
    }
    wait_for("the loss to be noticed", || {
        proxy.put("c", "3").status == 503
    });
    let refused = proxy.put("c", "3");
    assert_error(&refused, 503, "no_node");
    assert_eq!(refused.header("Retry-After"), Some("1"));

    assign(&first, &json!({"id": 0, "role": "leader", "epoch": 2}));
    assign(
        &second,
        &json!({"id": 0, "role": "replica", "epoch": 2, "leader": url(&first)}),
    );
    wait_for("writes to flow again", || {
        proxy.put("c", "4").status / 100 == 2
    });
    assert_eq!(get(&first, "c").text(), "4");
    wait_for("the other replica to have it", || {
        get(&second, "c").status == 200
    });
    wait_for("reads from the replica that is left", || {
        reader(&proxy).0 == "replica"
    });

    drop(second);
    for _ in 0..20 {
        assert_eq!(
            proxy.request("GET", "/kv/c", &[], b"").text(),
            "4",
            "the leader serves where no replica does"
        );
    }
    wait_for("reads from the leader", || reader(&proxy).0 == "leader");
}

/// What stands in for a node: it says that it leads, or follows.
struct StandIn {
    address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    checks: AtomicUsize,
    requests: AtomicUsize,
}

/// The status that a request gets, by its number; none: the node breaks off.
type Status = fn(usize, usize) -> Option<&'static str>;

const GOOD: &str = "200 OK";
const UNAVAILABLE: &str = "503 Unavailable";

impl StandIn {
    /// The first `answered_count` requests are answered, and the others broken off.
    fn start(role: &'static str, answered_count: usize) -> Self {
        Self::start_with(role, answered_count, |number, count| {
            (number < count).then_some(GOOD)
        })
    }

    /// The first `count` requests get a 503.
    fn start_refusing(role: &'static str, count: usize) -> Self {
        Self::start_with(role, count, |number, count| {
            Some(if number < count { UNAVAILABLE } else { GOOD })
        })
    }

    fn start_with(role: &'static str, count: usize, status: Status) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let address = listener.local_addr().expect("an address");
        let counts = Arc::new(Counts::default());
        let shared = Arc::clone(&counts);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, counts) = (stream.expect("a connection"), Arc::clone(&shared));
                let status = move |number| status(number, count);
                thread::spawn(move || serve(&stream, role, status, &counts));
            }
        });
        Self { address, counts }
    }

    /// Waits until the proxy knows what this is. Before its first checks it takes every node for
    /// good.
    fn wait_for_checks(&self, count: usize) {
        wait_for("health checks", || {
            self.counts.checks.load(Ordering::SeqCst) >= count
        });
    }

    fn request_count(&self) -> usize {
        self.counts.requests.load(Ordering::SeqCst)
    }
}

fn serve(
    mut stream: &TcpStream,
    role: &str,
    status: impl Fn(usize) -> Option<&'static str>,
    counts: &Counts,
) {
    let (mut received, mut buffer) = (String::new(), [0; 4096]);
    loop {
        // The requests of this test have bodies of one byte, `x`, or none.
        let Some(end) = received.find("\r\n\r\n").map(|end| end + 4) else {
            match stream.read(&mut buffer) {
                Ok(len @ 1..) => received.push_str(&String::from_utf8_lossy(&buffer[..len])),
                _ => return,
            }
            continue;
        };
        let is_check = received.starts_with("GET /leader") || received.starts_with("GET /replica");
        let status = if is_check {
            counts.checks.fetch_add(1, Ordering::SeqCst);
            let is_good = received[4..].starts_with(role);
            if is_good { GOOD } else { UNAVAILABLE }
        } else {
            let Some(status) = status(counts.requests.fetch_add(1, Ordering::SeqCst)) else {
                return;
            };
            status
        };
        let has_body = received.starts_with("PUT");
        received.drain(..end);
        while has_body && !received.starts_with('x') {
            let len = stream.read(&mut buffer).expect("the body");
            received.push_str(&String::from_utf8_lossy(&buffer[..len]));
        }
        received.drain(..usize::from(has_body));
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A write that a node broke off may have been carried out: the node hears it once, and the client
/// hears that the outcome is unknown, or, on a connection that was used before, nothing.
#[test]
fn no_write_is_sent_twice() {
    for answered_count in [0, 1] {
        let leader = StandIn::start("/leader", answered_count);
        let others = ["/nothing", "/replica"].map(|role| StandIn::start(role, 0));
        let Some(proxy) = Proxy::start([leader.address, others[0].address, others[1].address])
        else {
            return;
        };
        for node in [&leader, &others[0], &others[1]] {
            node.wait_for_checks(6);
        }
        let mut client = proxy.connect();
        for _ in 0..answered_count {
            client.send_request("PUT", "/kv/a", &[], b"x");
            assert_eq!(client.response_of_anyone(false).status, 200);
        }
        client.send_request("PUT", "/kv/a", &[], b"x");
        if answered_count == 0 {
            assert_error(&client.response_of_anyone(false), 502, "outcome_unknown");
        } else {
            client.assert_end();
        }
        assert_eq!(leader.request_count(), answered_count + 1);
        assert_eq!(others.map(|other| other.request_count()), [0, 0]);
    }
}

/// A read that a node broke off is answered by another.
#[test]
fn reads_are_sent_again() {
    let bad = StandIn::start("/replica", 0);
    let good = StandIn::start("/replica", usize::MAX);
    let neither = StandIn::start("/nothing", 0);
    let Some(proxy) = Proxy::start([bad.address, good.address, neither.address]) else {
        return;
    };
    for node in [&bad, &good, &neither] {
        node.wait_for_checks(6);
    }
    for _ in 0..10 {
        let mut client = proxy.connect();
        client.send_request("GET", "/kv/a", &[], b"");
        assert_eq!(client.response_of_anyone(false).status, 200);
    }
    assert!(bad.request_count() > 0, "it was never asked");
}

/// A write that a node has refused with 503 was not carried out: it is sent again until it is,
/// also where its body comes after its head.
#[test]
fn what_was_refused_is_sent_again_before_nodes_of_etcd() {
    let leader = StandIn::start_refusing("/leader", 3);
    let others = ["/nothing", "/replica"].map(|role| StandIn::start(role, 0));
    // Sockets of a name that another HAProxy of this machine does not have.
    let name = format!("abns@db-node-{}", leader.address.port());
    let shipped = WITH_ETCD.replace("abns@db-node", &name);
    let addresses = [leader.address, others[0].address, others[1].address];
    let Some(proxy) = Proxy::start_file(&shipped, addresses) else {
        return;
    };
    for node in [&leader, &others[0], &others[1]] {
        node.wait_for_checks(6);
    }
    let mut client = proxy.connect();
    client.send(b"PUT /kv/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n");
    // So that the head is on its way alone: nothing tells when the proxy has read it.
    let_pass(Duration::from_millis(50));
    client.send(b"x");
    let response = client.response_of_anyone(false);
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(leader.request_count(), 4);
    assert_eq!(others.map(|other| other.request_count()), [0, 0]);
}

/// A long poll is silent for longer than any other answer may be.
#[test]
fn a_long_poll_outlasts_the_time_out_of_other_answers() {
    let node = Node::start(&[]);
    let elsewhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let line = "    timeout server 30s\n";
    assert!(
        CONFIGURATION.contains(line),
        "the shipped file has changed: {line}"
    );
    let shortened = CONFIGURATION.replace(line, "    timeout server 200ms\n");
    let Some(proxy) = Proxy::start_file(&shortened, [node.address, elsewhere, elsewhere]) else {
        return;
    };
    // Until its first checks HAProxy sends requests to nodes that are not there.
    wait_for("the checks", || proxy.log().contains("Running on backup"));
    let polled = proxy.request("GET", "/watch?prefix=a&timeout=0.6", &[], b"");
    assert_eq!(polled.status, 200, "{}", polled.text());
    assert_eq!(polled.json()["events"], serde_json::json!([]));
}

/// `HAProxy` does not take `tcp-ut` from `default-server`: without it in each line, requests that
/// were sent to a machine just before it was gone would wait for the time-out of a silent node.
#[test]
fn connections_to_a_machine_that_is_gone_are_given_up() {
    for shipped in [CONFIGURATION, include_str!("../packaging/haproxy-etcd.cfg")] {
        let lines = shipped.lines().map(str::trim);
        for line in lines.filter(|line| line.starts_with("server db")) {
            assert!(line.contains(" tcp-ut "), "{line}");
        }
        assert!(shipped.contains("option srvtcpka"));
    }
}
