//! `watch`.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use crate::common::member::{Member, own_address};
use crate::common::{Folder, version_of, wait_for};
use crate::{ask, client, refused, said};

/// A watch that runs; killed when dropped.
struct Watch {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watch {
    fn start(url: &str, arguments: &[&str]) -> Self {
        let mut command = client(url);
        command.arg("watch").args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("run");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("read");
        line
    }

    /// The next change without its version.
    fn change(&mut self) -> String {
        let line = self.line();
        let (token, change) = line.split_once('\t').expect("a version and a change");
        version_of(token);
        change.trim_end_matches('\n').to_owned()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until so many watch the node.
fn wait_for_watchers(node: &Member, count: u64) {
    wait_for("the watch to begin", || {
        node.status()["loop"]["watchers"] == count
    });
}

#[test]
fn changes_are_printed_as_they_happen() {
    let node = Member::start(&[]);
    let url = &node.url();
    let mut watch = Watch::start(url, &["user/"]);
    let mut json = Watch::start(url, &["user/", "--json"]);
    wait_for_watchers(&node, 2);
    node.put("user/1", &[], "Ada");
    node.put("other", &[], "x");
    node.request("PUT", "/kv/user/2", &[], b"a\tb\xff");
    node.request("DELETE", "/kv/user/1", &[], b"");
    node.request("PUT", "/kv/user/3", &[], &vec![b'x'; 20_000]);
    assert_eq!(watch.change(), "set\tuser/1\tAda");
    assert_eq!(watch.change(), "set\tuser/2\ta\\tb\\xff");
    assert_eq!(watch.change(), "delete\tuser/1");
    assert_eq!(watch.change(), "set\tuser/3\t");
    for op in ["set", "set", "delete", "set"] {
        let change: serde_json::Value = serde_json::from_str(&json.line()).expect("JSON");
        assert_eq!(change["op"], op);
    }
    // From an earlier version on, and from one that there is not.
    let mut earlier = Watch::start(url, &["--since", "1"]);
    assert_eq!(earlier.change(), "set\tother\tx");
    let line = refused(&ask(url, &["watch", "--since", "1000"]), 4);
    assert!(line.contains("410"), "{line}");
    refused(&ask(url, &["watch", "--since", "nonsense"]), 4);
}

/// What is written while the node was away, and while it starts, is printed once.
#[test]
fn a_watch_goes_on_after_a_restart() {
    let (folder, address) = (Folder::new("client"), own_address());
    let mut node = Member::durable(&folder, &["--listen", &address]);
    let url = &node.url();
    node.put("a", &[], "0");
    let mut watch = Watch::start(url, &[]);
    wait_for_watchers(&node, 1);
    node.put("a", &[], "1");
    assert_eq!(watch.change(), "set\ta\t1");
    let address = node.address.to_string();
    node.kill();
    let node = Member::durable(&folder, &["--listen", &address]);
    node.put("a", &[], "2");
    node.put("a", &[], "3");
    assert_eq!(watch.change(), "set\ta\t2");
    assert_eq!(watch.change(), "set\ta\t3");
    wait_for_watchers(&node, 1);
    let stderr = BufReader::new(watch.child.stderr.take().expect("piped"));
    let mut said = stderr.lines().map(|line| line.expect("text"));
    let lost = said.next().expect("a line");
    assert!(lost.contains("going on from version 2-"), "{lost}");
    assert_eq!(said.next().as_deref(), Some("db-node: connected again"));
}

/// A node in memory only has forgotten what was, and says so.
#[test]
fn a_watch_ends_where_it_cannot_go_on() {
    let address = own_address();
    let mut node = Member::start(&["--listen", &address]);
    node.put("a", &[], "0");
    let watch = Watch::start(&node.url(), &[]);
    wait_for_watchers(&node, 1);
    let address = node.address.to_string();
    node.kill();
    let _node = Member::start(&["--listen", &address]);
    let mut watch = watch;
    assert_eq!(watch.line(), "");
    assert_eq!(watch.child.wait().expect("wait").code(), Some(4));
    // A first connection that is refused is not tried again.
    refused(&ask("127.0.0.1:1", &["watch"]), 3);
    said(&ask("unused:1", &["watch", "--help"]));
}
