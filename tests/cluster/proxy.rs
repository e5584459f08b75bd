//! `packaging/haproxy-partitions.sh` with a real `haproxy`: each request finds the node that leads
//! the partition of its key. Passed over, and says so, where `haproxy` or `curl` is not installed.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::common::etcd::Etcd;
use crate::common::member::Member;
use crate::common::seeds::random_seed;
use crate::common::{
    Client, Folder, Response, assert_error, inherited_listener, let_pass, percent_encoded,
    request_bytes, text, wait_for,
};
use crate::keys::{COUNT, leader_of, partition_of, spread};
use crate::post;

const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/packaging/haproxy-partitions.sh"
);

/// A running `haproxy`, killed when dropped.
struct Proxy {
    child: Child,
    address: SocketAddr,
    _folder: Folder,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_installed(program: &str, argument: &str) -> bool {
    let mut command = Command::new(program);
    let ran = command.arg(argument).stdout(Stdio::null()).status();
    if ran.is_err() {
        eprintln!("{program} is not installed: this test is passed over");
    }
    ran.is_ok()
}

impl Proxy {
    /// With the file that the script makes of the map of a node.
    fn start(node: &Member) -> Option<Self> {
        if !is_installed("haproxy", "-v") || !is_installed("curl", "-V") {
            return None;
        }
        let made = Command::new("bash")
            .args([SCRIPT, &node.url()])
            .output()
            .expect("run bash");
        let words = String::from_utf8_lossy(&made.stderr).into_owned();
        assert!(made.status.success(), "{words}");
        let file = String::from_utf8(made.stdout).expect("text");
        // HAProxy takes a socket that listens already: so the system may choose the port.
        let (socket, address) = inherited_listener();
        let folder = Folder::new("partitions");
        let own_name = format!("abns@db-node-{}-", address.port());
        let mut changed = file.replace("abns@db-node-", &own_name);
        for (shipped, own) in [
            ("    user haproxy\n", ""),
            ("    group haproxy\n", ""),
            (
                "bind :9000\n",
                &format!("bind fd@{}\n", socket.as_raw_fd())[..],
            ),
        ] {
            assert_eq!(changed.matches(shipped).count(), 1, "{shipped}");
            changed = changed.replace(shipped, own);
        }
        let path = folder.join("haproxy.cfg");
        std::fs::write(&path, changed).expect("write");
        let log = File::create(folder.join("log")).expect("create");
        let check = Command::new("haproxy")
            .args(["-c", "-f", text(&path)])
            .output();
        let check = check.expect("run haproxy");
        let words = String::from_utf8_lossy(&check.stderr).into_owned();
        assert!(
            check.status.success() && !words.contains("WARNING"),
            "{words}"
        );
        let mut command = Command::new("haproxy");
        command
            .args(["-db", "-f", text(&path)])
            .stdout(Stdio::null())
            .stderr(log);
        Some(Self {
            child: command.spawn().expect("start haproxy"),
            address,
            _folder: folder,
        })
    }

    fn request(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Response {
        let mut client = Client::to(self.address);
        client.send_request(method, target, headers, body);
        client.response_of_anyone(method == "HEAD")
    }
}

fn random_keys(rng: &mut fastrand::Rng, count: usize) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    while keys.len() < count {
        let len = rng.usize(1..20);
        keys.insert((0..len).map(|_| rng.char('!'..'\u{24f}')).collect());
    }
    keys
}

/// What all partitions hold, as the nodes that lead them have it.
fn held(members: &[Member], leader: impl Fn(u32) -> usize) -> Vec<(u32, String, String)> {
    let mut held = Vec::new();
    for id in 0..COUNT {
        let scan = format!("/scan?partition={id}&limit=10000");
        let items = members[leader(id)].get(&scan).json()["items"].take();
        for item in items.as_array().expect("items") {
            let text = |name: &str| item[name].as_str().expect("text").to_owned();
            held.push((id, text("key"), text("value")));
        }
    }
    held
}

#[test]
fn haproxy_sends_each_key_to_its_partition() {
    let Some(etcd) = Etcd::start() else { return };
    let members = spread(&etcd);
    let Some(proxy) = Proxy::start(&members[1]) else {
        return;
    };
    wait_for("the checks", || {
        (0..COUNT).all(|id| {
            proxy
                .request("GET", &format!("/scan?partition={id}"), &[], b"")
                .status
                == 200
        })
    });
    let seed = random_seed();
    let keys = random_keys(&mut seed.rng(), 312);
    for key in &keys {
        let encoded = percent_encoded(key.as_bytes());
        let body = json!({"key": key, "value": key}).to_string();
        let ways = [
            ("PUT", format!("/kv/{encoded}"), key.as_bytes()),
            ("GET", format!("/kv/{encoded}"), b""),
            ("POST", format!("/set?key={encoded}"), key.as_bytes()),
            ("GET", format!("/get?key={encoded}"), b""),
            ("POST", "/set".to_owned(), body.as_bytes()),
            ("POST", "/get".to_owned(), body.as_bytes()),
        ];
        for (method, target, body) in ways {
            let answer = proxy.request(method, &target, &[], body);
            assert_eq!(
                answer.status / 100,
                2,
                "{method} {target} {key}: {}",
                answer.text()
            );
        }
    }
    let all = held(&members, leader_of);
    assert_eq!(all.len(), keys.len());
    for (id, key, value) in &all {
        assert_eq!((partition_of(key), key), (*id, value));
    }
    waits_for_bodies(&proxy, &keys);
    refuses_what_it_cannot_see(&proxy, &members);
    // Leadership moves: the file stays right.
    let order = json!({"id": partition_of("moved"), "to": next_of(partition_of("moved"))});
    let from = &members[leader_of(partition_of("moved"))];
    assert_eq!(post(from, "/partition/handover", &order).status, 200);
    for number in 0..20 {
        let value = number.to_string();
        let answer = proxy.request("PUT", "/kv/moved", &[], value.as_bytes());
        assert_eq!(answer.status / 100, 2, "{}", answer.text());
        assert_eq!(proxy.request("GET", "/kv/moved", &[], b"").text(), value);
    }
}

/// The node that a partition is handed over to.
fn next_of(id: u32) -> String {
    format!("n{}", (leader_of(id) + 1) % 3)
}

/// A key is found in a body that comes after its head, too.
fn waits_for_bodies(proxy: &Proxy, keys: &BTreeSet<String>) {
    for key in keys.iter().take(12) {
        let body = json!({"key": key, "value": key}).to_string();
        let bytes = request_bytes("POST", "/set", &[], body.as_bytes());
        let (head, rest) = bytes.split_at(bytes.len() - body.len());
        let mut client = Client::to(proxy.address);
        client.send(head);
        // So that the head is on its way alone: nothing tells when the proxy has read it.
        let_pass(Duration::from_millis(30));
        client.send(rest);
        let answer = client.response_of_anyone(false);
        assert_eq!(answer.status, 200, "{key}: {}", answer.text());
    }
}

/// Keys that the proxy reads wrongly, or not at all: the answer names the right node, and nothing
/// is in a wrong place.
fn refuses_what_it_cannot_see(proxy: &Proxy, members: &[Member]) {
    let mut refused = 0;
    for number in 0..60 {
        let key = format!("é{number}");
        let escaped = format!("{{\"key\":\"\\u00e9{number}\",\"value\":\"\\u00e9\"}}");
        let large = format!("{{\"value\":\"{}\",\"key\":\"{key}\"}}", "v".repeat(40_000));
        let url = members[leader_of(partition_of(&key))].url();
        for (body, code) in [(escaped, "wrong_partition"), (large, "not_leader")] {
            let answer = proxy.request("POST", "/set", &[], body.as_bytes());
            if answer.status == 200 {
                continue;
            }
            refused += 1;
            assert_error(&answer, 421, code);
            assert_eq!(answer.header("X-Leader"), Some(&url[..]));
            if code == "wrong_partition" {
                // With the number that the answer names, it finds its way through the proxy.
                let id = answer.header("X-Partition-ID").expect("a number");
                let named = format!("X-Partition-ID: {id}");
                let answer = proxy.request("POST", "/set", &[&named], body.as_bytes());
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        }
    }
    assert!(refused > 30, "{refused}");
    for (id, key, _) in held(members, leader_of) {
        assert_eq!(partition_of(&key), id, "{key}");
    }
    assert_error(
        &proxy.request("GET", "/scan", &[], b""),
        400,
        "partition_missing",
    );
    for header in [
        "X-Partition-ID: 16",
        "X-Partition-ID: 007",
        "X-Partition-ID: x",
    ] {
        let answer = proxy.request("GET", "/kv/alpha", &[header], b"");
        assert!(
            [421, 400].contains(&answer.status) || header.ends_with("007"),
            "{}",
            answer.text()
        );
    }
}
