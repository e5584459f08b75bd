//! Nodes that are killed or stand still, and an etcd that is away, while a client writes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::common::etcd::Etcd;
use crate::common::member::Member;
use crate::common::{Folder, let_pass, request_bytes, wait_for};
use crate::{put, value_of};

const LEASE_MS: u64 = 1_000;
const NAMES: [&str; 3] = ["n0", "n1", "n2"];

/// Longer than a fail-over takes on a machine that is busy.
const FAILOVER_MAX: Duration = Duration::from_secs(20);

/// Three nodes with data directories and one partition, in sync; `n0` leads at first.
pub(crate) struct Three {
    pub(crate) etcd: Etcd,
    folders: Vec<Folder>,
    /// None: it is down.
    pub(crate) members: Vec<Option<Member>>,
}

impl Three {
    pub(crate) fn start() -> Option<Self> {
        Self::start_under(None)
    }

    /// The same, and `strace` does this to system calls of the first node, if that is given.
    pub(crate) fn start_under(injected: Option<&str>) -> Option<Self> {
        let etcd = Etcd::start()?;
        let folders = NAMES.map(|name| Folder::new(&format!("faults-{name}")));
        let mut three = Self {
            etcd,
            folders: folders.into(),
            members: vec![None, None, None],
        };
        three.start_member_under(0, injected);
        (1..3).for_each(|at| three.start_member(at));
        let cluster = json!({"format": 1, "id": "04".repeat(16), "partitions": 1,
            "hash": "crc32c"});
        let config = json!({"format": 1, "epoch": 0, "leader": "n0", "handedOver": false,
            "leaseMs": LEASE_MS, "inSync": [], "replicas": NAMES, "leaving": []});
        put(&three.etcd, "cluster", &cluster);
        put(&three.etcd, "partitions/0/config", &config);
        three.wait_for_sync(3);
        Some(three)
    }

    pub(crate) fn start_member(&mut self, at: usize) {
        self.start_member_under(at, None);
    }

    fn start_member_under(&mut self, at: usize, injected: Option<&str>) {
        let url = self.etcd.url();
        let lease = LEASE_MS.to_string();
        let arguments = ["--etcd", &url, "--cluster", "x", "--node", NAMES[at]];
        let arguments = [&arguments[..], &["--lease-ms", &lease]].concat();
        let directory = ["--data-dir", self.folders[at].path()];
        let arguments = [&directory[..], &arguments].concat();
        let member = match injected {
            Some(injected) => Member::under(&strace(injected), &arguments),
            None => Member::start(&arguments),
        };
        self.members[at] = Some(member);
    }

    pub(crate) fn member(&mut self, at: usize) -> &mut Member {
        self.members[at].as_mut().expect("it runs")
    }

    pub(crate) fn kill(&mut self, at: usize) {
        self.member(at).kill();
        self.members[at] = None;
    }

    pub(crate) fn config(&self) -> Json {
        value_of(&self.etcd, "partitions/0/config").expect("a configuration")
    }

    pub(crate) fn wait_for_sync(&self, count: usize) {
        wait_for("copies in sync", || {
            let config = self.config();
            config["inSync"].as_array().map_or(0, Vec::len) == count
        });
    }

    /// The node that leads.
    pub(crate) fn leader(&self) -> usize {
        let mut found = None;
        wait_for("a leader", || {
            found = self.members.iter().position(|member| {
                let address = member.as_ref().map(|member| member.address);
                let answer = address.and_then(|to| ask(to, "GET", "/leader", &[], ""));
                answer.is_some_and(|(status, _)| status == 200)
            });
            found.is_some()
        });
        found.expect("found")
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let running = self.members.iter().flatten();
        running.map(|member| member.address).collect()
    }
}

/// The words before a command that tamper with its system calls. The tracer is a grandchild, so
/// that the node is the child.
fn strace(injected: &str) -> [String; 10] {
    let call = injected.split(':').next().unwrap_or_default();
    let (traced, injected) = (format!("trace={call}"), format!("inject={injected}"));
    [
        "strace",
        "-D",
        "-f",
        "-qq",
        "-e",
        &traced,
        "-e",
        &injected,
        "-o",
        "/dev/null",
    ]
    .map(str::to_owned)
}

/// Status and text of an answer, if the node has answered.
pub(crate) fn ask(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[&str],
    body: &str,
) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(1)).ok()?;
    let patience = Some(Duration::from_secs(10));
    stream.set_read_timeout(patience).ok()?;
    let headers = [headers, &["Connection: close"]].concat();
    let request = request_bytes(method, path, &headers, body.as_bytes());
    stream.write_all(&request).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    Some((text.get(9..12)?.parse().ok()?, text))
}

/// Writes each of a few keys again and again, at whichever node takes it.
pub(crate) struct Writer {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Written>,
}

#[derive(Default)]
pub(crate) struct Written {
    /// The last value of each key that was acknowledged, and those that were tried after it.
    values: BTreeMap<String, Vec<u64>>,
    acknowledged_count: u64,
    unknown_count: u64,
    longest_gap: Duration,
}

impl Writer {
    pub(crate) fn start(addresses: Vec<SocketAddr>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&is_over);
        let thread = thread::spawn(move || write_until(&until, &addresses));
        Self { is_over, thread }
    }

    pub(crate) fn end(self) -> Written {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the writer ends")
    }
}

fn write_until(is_over: &AtomicBool, addresses: &[SocketAddr]) -> Written {
    let mut written = Written::default();
    let (mut at, mut last) = (0, Instant::now());
    for number in 1.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("k{}", number % 10);
        let values = written.values.entry(key.clone()).or_default();
        values.push(number);
        let path = format!("/kv/{key}");
        match ask(addresses[at], "PUT", &path, &[], &number.to_string()) {
            Some((200 | 201, _)) => {
                written.longest_gap = written.longest_gap.max(last.elapsed());
                last = Instant::now();
                written.acknowledged_count += 1;
                *values = vec![number];
            }
            Some((421 | 503, _)) => {
                // Nothing was done.
                values.pop();
                at = (at + 1) % addresses.len();
            }
            _ => {
                written.unknown_count += 1;
                at = (at + 1) % addresses.len();
            }
        }
        let_pass(Duration::from_millis(2));
    }
    written
}

impl Written {
    /// Each key has the value that was acknowledged last, or one that was tried later.
    #[track_caller]
    pub(crate) fn assert_kept(&self, leader: SocketAddr) {
        assert!(self.acknowledged_count > 20, "it has hardly written");
        for (key, values) in self.values.iter().filter(|(_, values)| !values.is_empty()) {
            let answer = ask(leader, "GET", &format!("/kv/{key}"), &[], "");
            let (status, text) = answer.expect("an answer");
            let value = text
                .rsplit("\r\n")
                .next()
                .and_then(|text| text.parse().ok());
            let is_kept = value.is_some_and(|value: u64| values.contains(&value));
            assert!(is_kept, "{key}: {status} {value:?}, and not of {values:?}");
        }
    }
}

#[test]
fn a_leader_that_is_killed_is_replaced() {
    let Some(mut three) = Three::start() else {
        return;
    };
    let writer = Writer::start(three.addresses());
    let_pass(Duration::from_millis(500));
    let first = three.leader();
    let killed_at = Instant::now();
    three.kill(first);
    let second = three.leader();
    let gap = killed_at.elapsed();
    eprintln!("another node leads after {gap:?}");
    assert!(gap < FAILOVER_MAX);
    assert_ne!(second, first);
    let is_told = |line: &str| {
        line.contains("this node leads in epoch 2 ")
            && line.contains(" ms after a leader was heard last: the leader before fell silent")
    };
    wait_for("its log to say so", || {
        three.member(second).log.text().lines().any(is_told)
    });
    three.wait_for_sync(2);
    three.start_member(first);
    three.wait_for_sync(3);
    // And once more, soon after.
    let_pass(Duration::from_millis(300));
    three.kill(second);
    let third = three.leader();
    let_pass(Duration::from_millis(300));
    let written = writer.end();
    written.assert_kept(three.member(third).address);
    assert!(three.config()["epoch"].as_u64() > Some(2));
}

#[test]
fn writes_go_on_without_a_replica_that_is_killed() {
    let Some(mut three) = Three::start() else {
        return;
    };
    let writer = Writer::start(three.addresses());
    let leader = three.leader();
    let replica = (leader + 1) % 3;
    three.kill(replica);
    three.wait_for_sync(2);
    let_pass(Duration::from_millis(300));
    three.start_member(replica);
    three.wait_for_sync(3);
    let written = writer.end();
    eprintln!("longest time without a write: {:?}", written.longest_gap);
    assert_eq!(written.unknown_count, 0);
    assert_eq!(three.leader(), leader);
    written.assert_kept(three.member(leader).address);
}

#[test]
fn requests_go_on_while_etcd_is_away() {
    let Some(mut three) = Three::start() else {
        return;
    };
    let (leader, epoch) = (three.leader(), three.config()["epoch"].clone());
    let writer = Writer::start(vec![three.member(leader).address]);
    three.etcd.signal("STOP");
    // Longer than a lease, and than the nodes wait between two looks at etcd.
    let away_until = Instant::now() + Duration::from_secs(6);
    let address = three.member(leader).address;
    while Instant::now() < away_until {
        let answer = ask(address, "GET", "/kv/none", &[], "");
        let (status, text) = answer.expect("an answer");
        assert_eq!(status, 404, "{text}");
        let_pass(Duration::from_millis(20));
    }
    three.etcd.signal("CONT");
    let written = writer.end();
    assert_eq!(written.unknown_count, 0);
    eprintln!("longest time without a write: {:?}", written.longest_gap);
    written.assert_kept(address);
    wait_for("etcd to answer", || {
        three.config()["epoch"] == epoch && three.leader() == leader
    });
}

#[test]
fn a_leader_that_stood_still_answers_nothing_old() {
    let Some(mut three) = Three::start() else {
        return;
    };
    let first = three.leader();
    let address = three.member(first).address;
    assert_eq!(
        ask(address, "PUT", "/kv/a", &[], "old")
            .expect("it leads")
            .0,
        201
    );
    // It comes while the leader stands still, and is answered afterwards.
    three.member(first).freeze();
    let waiting =
        thread::spawn(move || ask(address, "GET", "/kv/a?consistency=acknowledged", &[], ""));
    wait_for("another leader", || {
        let config = three.config();
        config["leader"] != NAMES[first]
    });
    let others: Vec<SocketAddr> = three.addresses();
    let others: Vec<SocketAddr> = others.into_iter().filter(|of| *of != address).collect();
    wait_for("a new value", || {
        let mut answers = others
            .iter()
            .filter_map(|to| ask(*to, "PUT", "/kv/a", &[], "new"));
        answers.any(|(status, _)| status == 200)
    });
    three.member(first).thaw();
    let answer = waiting.join().expect("the reader ends");
    if let Some((status, text)) = answer {
        assert!(status != 200 || text.ends_with("new"), "{text}");
    }
    three.wait_for_sync(3);
}

#[test]
fn a_node_that_does_not_lead_says_503_to_a_proxy() {
    let Some(mut three) = Three::start() else {
        return;
    };
    let replica = (three.leader() + 1) % 3;
    let address = three.member(replica).address;
    for (headers, expected) in [(&[][..], 421), (&["X-Not-Leader: 503"], 503)] {
        let answer = ask(address, "PUT", "/kv/a", headers, "1");
        let (status, text) = answer.expect("an answer");
        assert_eq!(status, expected, "{text}");
        assert!(text.contains("X-Leader: http://"), "{text}");
        assert!(text.contains("not_leader"), "{text}");
    }
}
