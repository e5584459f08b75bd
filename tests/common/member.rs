//! A node of a cluster: a real process, with what it has said so far.

use std::ops::{Deref, DerefMut, Range};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value as Json, json};

use super::{Folder, Node, NodeLog, Response, command, request_bytes, wait_for};

/// A node of a cluster, with what it has said so far.
pub struct Member {
    pub node: Node,
    pub log: NodeLog,
}

impl Deref for Member {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl DerefMut for Member {
    fn deref_mut(&mut self) -> &mut Node {
        &mut self.node
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{} says:\n{}", self.address, self.log.text());
        }
    }
}

impl Member {
    pub fn start(arguments: &[&str]) -> Self {
        let mut node = Node::start(arguments);
        let log = node.collect_log();
        Self { node, log }
    }

    /// The same as an argument of other commands.
    pub fn under(words: &[String], arguments: &[&str]) -> Self {
        let mut wrapped = Command::new(&words[0]);
        let node_command = command();
        wrapped.args(&words[1..]).arg(node_command.get_program());
        wrapped.args(["--listen", "127.0.0.1:0"]).args(arguments);
        for (name, _) in node_command.get_envs() {
            wrapped.env_remove(name);
        }
        let mut node = Node::spawn(wrapped);
        let log = node.collect_log();
        Self { node, log }
    }

    /// A replica of another node.
    pub fn replica_of(leader: &Self, arguments: &[&str]) -> Self {
        Self::start(&[&["--replica-of", &leader.url()], arguments].concat())
    }

    /// A node with its data in a folder.
    pub fn durable(folder: &Folder, arguments: &[&str]) -> Self {
        let member = Self::start(&[&["--data-dir", folder.path()], arguments].concat());
        wait_for("the data to be loaded", || {
            member.request("GET", "/health", &[], b"").status == 200
        });
        member
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn get(&self, target: &str) -> Response {
        self.request("GET", target, &[], b"")
    }

    pub fn put(&self, key: &str, headers: &[&str], value: &str) -> Response {
        self.request("PUT", &format!("/kv/{key}"), headers, value.as_bytes())
    }

    pub fn partition(&self) -> Json {
        self.status()["partitions"][0].clone()
    }

    pub fn version(&self) -> u64 {
        self.partition()["lastVersion"].as_u64().expect("a number")
    }

    pub fn digest(&self) -> Json {
        self.get("/digest").json()
    }

    pub fn kill(&mut self) {
        self.signal("KILL");
        assert_eq!(self.wait().signal(), Some(9));
    }

    /// Waits until all that it holds, and what it is, is on its disk.
    #[track_caller]
    pub fn wait_for_disk(&self) {
        wait_for("the disk to have it", || {
            let now = self.partition();
            now["durableVersion"] == now["lastVersion"] && now["settled"] == true
        });
    }

    /// Stops the process, without ending it.
    pub fn freeze(&self) {
        self.signal("STOP");
        let stat =
            || std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("read /proc");
        wait_for("the node to stand still", || stat().contains(") T "));
    }

    pub fn thaw(&self) {
        self.signal("CONT");
    }

    pub fn assign(&self, assignment: &Json) -> Response {
        self.request(
            "POST",
            "/partition/assign",
            &[],
            assignment.to_string().as_bytes(),
        )
    }

    #[track_caller]
    pub fn lead(&self, epoch: u64) {
        let response = self.assign(&json!({"id": 0, "role": "leader", "epoch": epoch}));
        assert_eq!(response.status, 200, "{}", response.text());
    }

    #[track_caller]
    pub fn follow(&self, leader: &Self, epoch: u64) {
        let response = self
            .assign(&json!({"id": 0, "role": "replica", "leader": leader.url(), "epoch": epoch}));
        assert_eq!(response.status, 200, "{}", response.text());
    }

    /// Sends one request for each number, without waiting for answers in between; returns those.
    pub fn pipeline(
        &self,
        numbers: Range<usize>,
        request: impl Fn(usize) -> Vec<u8>,
    ) -> Vec<Response> {
        let mut client = self.connect();
        let sending = client.send_in_background(numbers.clone().flat_map(request).collect());
        let responses = numbers.map(|_| client.response(false)).collect();
        sending.join().expect("no panic").expect("all is sent");
        responses
    }

    /// Writes `key-N` for each number.
    pub fn fill(&self, numbers: Range<usize>, value_bytes: usize) {
        for response in self.pipeline(numbers, |number| put_bytes(number, value_bytes)) {
            assert!(response.status < 300, "{}", response.text());
        }
    }
}

pub fn put_bytes(number: usize, value_bytes: usize) -> Vec<u8> {
    request_bytes(
        "PUT",
        &format!("/kv/key-{number}"),
        &[],
        &value_of(number, value_bytes),
    )
}

/// The number over and over.
pub fn value_of(number: usize, value_bytes: usize) -> Vec<u8> {
    let mut value = format!("{number:010} ")
        .into_bytes()
        .repeat(value_bytes.div_ceil(11));
    value.truncate(value_bytes);
    value
}

/// An address of this machine that no other node and no client has, with any port: a node that
/// is started again where it was finds its port free. Its replication port may be another then.
pub fn own_address() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(1);
    format!("127.0.1.{}:0", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Waits until a replica has all that its leader has; both are then the same.
#[track_caller]
pub fn assert_follows(replica: &Member, leader: &Member) {
    let version = leader.version();
    wait_for("the replica to be in sync", || {
        replica.get("/readyz").status == 200
            && replica.version() >= version
            && replica.get("/replica").status == 200
    });
    let (ours, theirs) = (leader.digest(), replica.digest());
    assert!(
        ours["keys"].is_u64() && ours["digest"].is_string(),
        "{ours}"
    );
    assert_eq!(ours, theirs);
}
