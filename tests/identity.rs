//! Version tokens on real nodes: a token counts wherever the write that it was given out for is
//! still there, and nowhere else.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks, files and sockets of their own"
)]

mod common;

use std::fs;
use std::path::Path;

use common::{Client, Folder, Node, Response, assert_error, text, version_of, wait_for};
use serde_json::{Value as Json, json};

const EVENTS: &str = "Accept: text/event-stream";

/// A node that has loaded its data.
fn start(arguments: &[&str]) -> Node {
    let node = Node::start(arguments);
    wait_for("the data to be loaded", || {
        node.request("GET", "/health", &[], b"").status == 200
    });
    node
}

fn end(mut node: Node, signal: &str) {
    node.signal(signal);
    node.wait();
}

fn put(node: &Node, key: &str, value: &str) -> String {
    let written = node.request("PUT", &format!("/kv/{key}"), &[], value.as_bytes());
    assert!(written.status < 300, "{}", written.text());
    written.token().expect("a token").to_owned()
}

fn token_of(node: &Node, key: &str) -> Option<String> {
    let read = node.request("HEAD", &format!("/kv/{key}"), &[], b"");
    read.token().map(str::to_owned)
}

fn last_version(node: &Node) -> u64 {
    node.status()["partitions"][0]["lastVersion"]
        .as_u64()
        .expect("a number")
}

/// One operation as a batch.
fn batch(client: &mut Client, op: &Json) -> Response {
    let body = json!({ "ops": [op] }).to_string();
    client.request("POST", "/batch", &[], body.as_bytes())
}

/// Asserts that a token of a version that the node has, but of another history, counts for nothing:
/// as a condition on the key that has that version, and as a position.
#[track_caller]
fn assert_counts_for_nothing(node: &Node, key: &str, token: &str) {
    let mut client = node.connect();
    let current = token_of(node, key).expect("the key is there");
    assert_eq!(version_of(&current), version_of(token), "the same number");
    assert_ne!(current, token, "the tokens tell them apart");
    let (quoted, weak) = (format!("\"{token}\""), format!("W/\"{token}\""));
    let (kv, get) = (format!("/kv/{key}"), format!("/get?key={key}"));

    for target in [&kv, &get] {
        for tag in [&quoted, &weak] {
            let condition = format!("If-None-Match: {tag}");
            let read = client.request("GET", target, &[&condition], b"");
            assert_eq!((read.status, read.token()), (200, Some(&*current)));
            assert!(!read.body.is_empty());
        }
        let read = client.request("GET", target, &[&format!("If-Match: {quoted}")], b"");
        assert_error(&read, 412, "condition_failed");
    }
    let before = last_version(node);
    let condition = format!("If-Match: {quoted}");
    for (method, target, body) in [
        ("PUT", kv.clone(), "lost"),
        ("POST", format!("/set?key={key}"), "lost"),
        ("DELETE", kv.clone(), ""),
        ("DELETE", format!("/delete?key={key}"), ""),
    ] {
        let refused = client.request(method, &target, &[&condition], body.as_bytes());
        assert_error(&refused, 412, "condition_failed");
        assert!(refused.text().contains(&current), "{}", refused.text());
    }
    for op in [
        json!({ "op": "set", "key": key, "value": "lost", "ifMatch": token }),
        json!({ "op": "delete", "key": key, "ifMatch": token }),
    ] {
        assert_error(&batch(&mut client, &op), 412, "condition_failed");
    }
    assert_eq!(last_version(node), before, "nothing was written");

    assert_is_no_position(node, token);
    // It is a version that the key does not have.
    let written = client.request(
        "PUT",
        &kv,
        &[&format!("If-None-Match: {quoted}, {weak}")],
        b"",
    );
    assert_eq!(written.status, 200, "{}", written.text());
    let op = json!({ "op": "set", "key": key, "value": "v", "ifNoneMatch": token });
    assert_eq!(batch(&mut client, &op).status, 200);
}

/// Asserts that nothing goes on from a token, and that the node does not vouch for it.
#[track_caller]
fn assert_is_no_position(node: &Node, token: &str) {
    let mut client = node.connect();
    for headers in [&[][..], &[EVENTS]] {
        let target = format!("/watch?timeout=0&since={token}");
        let gone = client.request("GET", &target, headers, b"");
        assert_error(&gone, 410, "unknown_position");
    }
    let id = format!("Last-Event-ID: {token}");
    let gone = client.request("GET", "/watch?timeout=0&since=0", &[EVENTS, &id], b"");
    assert_error(&gone, 410, "unknown_position");
    let gone = client.request("GET", &format!("/scan?at={token}"), &[], b"");
    assert_error(&gone, 410, "snapshot_gone");
    for target in ["/kv/k?", "/get?key=k&", "/scan?"] {
        let target = format!("{target}min_version={token}");
        let refused = client.request("GET", &target, &[], b"");
        assert_error(&refused, 503, "unknown_position");
        assert!(refused.header("Retry-After").is_some());
    }
    let refused = client.request(
        "POST",
        &format!("/batch?min_version={token}"),
        &[],
        br#"{"ops":[{"op":"get","key":"k"}]}"#,
    );
    assert_error(&refused, 503, "unknown_position");
}

/// Asserts that a token is that of a key on a node, which goes on from there.
#[track_caller]
fn assert_counts(node: &Node, key: &str, token: &str) {
    let mut client = node.connect();
    let kv = format!("/kv/{key}");
    assert_eq!(token_of(node, key).as_deref(), Some(token));
    let known = client.request("GET", &kv, &[&format!("If-None-Match: \"{token}\"")], b"");
    assert_eq!(known.status, 304);
    let read = client.request("GET", &kv, &[&format!("If-Match: \"{token}\"")], b"");
    assert_eq!(read.status, 200);
    let read = client.request("GET", &format!("{kv}?min_version={token}"), &[], b"");
    assert_eq!(read.status, 200, "{}", read.text());
    let target = format!("/watch?timeout=0&since={token}");
    let watched = client.request("GET", &target, &[], b"");
    // The log may be gone; the position is not.
    if watched.status != 200 {
        assert_error(&watched, 410, "log_gone");
    }
}

/// However a node loses what it has written, what it writes next has the same versions and other
/// tokens.
#[test]
fn tokens_of_lost_writes_count_for_nothing() {
    // Nothing is kept.
    let node = start(&[]);
    let tokens = ["a", "b", "c"].map(|value| put(&node, "k", value));
    end(node, "KILL");
    let node = start(&[]);
    for key in ["a", "b", "k"] {
        put(&node, key, "other");
    }
    assert_counts_for_nothing(&node, "k", &tokens[2]);
    assert_counts_for_nothing(&node, "b", &tokens[1]);
    for token in &tokens {
        assert_is_no_position(&node, token);
    }

    // The end of the log is lost; and, whatever is promised, reads do not wait for the disk.
    for fsync in ["always", "interval", "never"] {
        let folder = Folder::new("identity");
        let data = folder.join("data");
        let arguments = ["--data-dir", text(&data), "--fsync", fsync];
        let node = start(&arguments);
        let kept = put(&node, "kept", "v");
        end(node, "TERM");
        copy(&data, &folder.join("earlier"));
        for round in 0..2 {
            let node = start(&arguments);
            let lost = ["1", "2"].map(|value| put(&node, "k", value));
            assert_counts(&node, "kept", &kept);
            end(node, "KILL");
            fs::remove_dir_all(&data).expect("remove");
            copy(&folder.join("earlier"), &data);
            let node = start(&arguments);
            assert_eq!(last_version(&node), 1, "round {round}");
            assert_is_no_position(&node, &lost[1]);
            put(&node, "other", "v");
            put(&node, "k", "other");
            assert_counts_for_nothing(&node, "k", &lost[1]);
            assert_counts(&node, "kept", &kept);
            end(node, if round == 0 { "KILL" } else { "TERM" });
            fs::remove_dir_all(&data).expect("remove");
            copy(&folder.join("earlier"), &data);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("make a folder");
    for entry in fs::read_dir(from).expect("read a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copy");
        }
    }
}

/// A node that starts from a backup goes on elsewhere than the node that the backup is of.
#[test]
fn tokens_of_writes_after_a_backup_count_for_nothing() {
    let folder = Folder::new("identity-backup");
    let source = start(&[]);
    put(&source, "kept", "v");
    let backup = source.request("GET", "/snapshot", &[], b"");
    assert_eq!(backup.tag_version(), Some(1));
    let file = folder.join("backup.dbn");
    fs::write(&file, &backup.body).expect("write");
    let later = put(&source, "k", "later");
    let data = folder.join("data");
    for arguments in [
        &["--restore", text(&file)][..],
        &["--restore", text(&file), "--data-dir", text(&data)],
    ] {
        let node = start(arguments);
        assert_eq!(node.request("GET", "/kv/kept", &[], b"").text(), "v");
        assert_is_no_position(&node, &later);
        put(&node, "k", "other");
        assert_counts_for_nothing(&node, "k", &later);
    }
}

/// What follows a loss that an operator has accepted is another history.
#[test]
fn tokens_of_damaged_writes_count_for_nothing() {
    let folder = Folder::new("identity-loss");
    let arguments = ["--data-dir", folder.path()];
    let node = start(&arguments);
    put(&node, "kept", "v");
    let lost = [
        put(&node, "k", "what will be damaged"),
        put(&node, "k", "what stands behind it"),
    ];
    end(node, "TERM");
    let log = folder.join("partition-0/wal-00000000000000000001.log");
    let mut bytes = fs::read(&log).expect("read");
    let at = bytes
        .windows(20)
        .position(|window| window == b"what will be damaged")
        .expect("the record");
    bytes[at] ^= 1;
    fs::write(&log, bytes).expect("write");
    let node = start(&[&arguments[..], &["--accept-data-loss"]].concat());
    assert_eq!(last_version(&node), 1);
    for token in &lost {
        assert_is_no_position(&node, token);
    }
    put(&node, "other", "v");
    put(&node, "k", "other");
    assert_counts_for_nothing(&node, "k", &lost[1]);
}

/// A token is that of its write for good: over restarts of any kind, more of them than a replica is
/// told of.
#[test]
fn tokens_of_kept_writes_outlive_restarts() {
    let folder = Folder::new("identity-kept");
    let arguments = ["--data-dir", folder.path()];
    let mut tokens: Vec<(usize, String)> = Vec::new();
    for round in 0..20 {
        let node = start(&arguments);
        for (written_in, token) in &tokens {
            let condition = format!("If-None-Match: \"{token}\"");
            let target = format!("/kv/key-{written_in}");
            let read = node.request("GET", &target, &[&condition], b"");
            assert_eq!(read.status, 304, "round {round}: {target} was {token}");
            let query = format!("/scan?limit=1&min_version={token}");
            assert_eq!(node.request("GET", &query, &[], b"").status, 200);
        }
        // What is shown stays the same for as long as all nodes know the history.
        for (written_in, token) in &tokens {
            if round - written_in <= 15 {
                assert_counts(&node, &format!("key-{written_in}"), token);
            }
        }
        // Now and then nothing is written.
        if round % 3 != 2 {
            tokens.push((round, put(&node, &format!("key-{round}"), "v")));
        }
        end(node, ["TERM", "KILL"][round % 2]);
    }
}

/// Asks a node to take a role.
fn assign(node: &Node, assignment: &Json) {
    let body = assignment.to_string();
    let response = node.request("POST", "/partition/assign", &[], body.as_bytes());
    assert_eq!(response.status, 200, "{}", response.text());
}

fn lead(node: &Node, epoch: u64) {
    assign(node, &json!({ "id": 0, "role": "leader", "epoch": epoch }));
}

fn follow(node: &Node, leader: &Node, epoch: u64) {
    let leader = format!("http://{}", leader.address);
    assign(
        node,
        &json!({ "id": 0, "role": "replica", "epoch": epoch, "leader": leader }),
    );
}

#[track_caller]
fn wait_for_replica(node: &Node, version: u64) {
    wait_for("the replica", || {
        node.request("GET", "/replica", &[], b"").status == 200 && last_version(node) == version
    });
}

/// What the old leader alone had is told apart from what the new one has written since.
#[test]
fn tokens_of_writes_that_a_failover_dropped_count_for_nothing() {
    let folder = Folder::new("identity-failover");
    let (one, two) = (folder.join("one"), folder.join("two"));
    let old_arguments = [
        "--data-dir",
        text(&one),
        "--await-assignment",
        "--ack-timeout-ms",
        "50",
    ];
    let new_arguments = ["--data-dir", text(&two), "--await-assignment"];
    let old = start(&old_arguments);
    lead(&old, 1);
    let new = start(&new_arguments);
    follow(&new, &old, 1);
    wait_for_replica(&new, 0);
    let kept = old.request("PUT", "/kv/kept", &["X-Min-Acks: 1"], b"v");
    let kept = kept.token().expect("a token").to_owned();
    wait_for_replica(&new, 1);
    // The replica is cut off: what is written now is on the old leader alone, and read there.
    end(new, "KILL");
    let cut = old.request("PUT", "/kv/k", &["X-Min-Acks: 1"], b"old");
    assert_error(&cut, 504, "acks_timeout");
    let read = old.request("GET", "/kv/k", &[], b"");
    let (lost, value) = (read.token().expect("a token"), read.text());
    assert_eq!((version_of(lost), &*value), (2, "old"));
    assert_counts(&old, "k", lost);
    let page = old.request("GET", "/scan?consistent=true", &[], b"").json();
    assert_eq!(page["position"], lost);

    // The new leader cannot fetch it: the old one does not answer.
    old.signal("STOP");
    let new = start(&new_arguments);
    lead(&new, 2);
    wait_for("the new leader", || {
        new.request("GET", "/leader", &[], b"").status == 200
    });
    assert_counts(&new, "kept", &kept);
    assert_is_no_position(&new, lost);
    put(&new, "k", "new");
    assert_counts_for_nothing(&new, "k", lost);
    assert_counts(&new, "kept", &kept);
    old.signal("CONT");

    // The old leader comes to follow: what it had is told apart there, too, also the page that it
    // kept.
    follow(&old, &new, 2);
    wait_for_replica(&old, last_version(&new));
    assert_is_no_position(&old, lost);
    assert_counts(&old, "kept", &kept);
    let now = token_of(&new, "k").expect("a token");
    assert_counts(&old, "k", &now);
    for target in ["/scan?at=2", &format!("/scan?at={lost}")] {
        let gone = old.request("GET", target, &[], b"");
        assert_error(&gone, 410, "snapshot_gone");
    }
}

/// A replica does not vouch for a history that it has not got yet, however high its own versions
/// are.
#[test]
fn a_replica_vouches_only_for_histories_that_it_has() {
    let (one, other) = (start(&[]), start(&[]));
    for number in 0..10 {
        put(&one, &format!("one-{number}"), "v");
    }
    let (early, late) = (put(&other, "k", "v"), put(&other, "k", "w"));
    let replica = start(&["--await-assignment"]);
    follow(&replica, &one, 0);
    wait_for_replica(&replica, 10);
    assert_is_no_position(&replica, &early);
    assert_is_no_position(&replica, &late);

    // A leader that has a history of its own since its promotion.
    lead(&one, 3);
    follow(&replica, &one, 3);
    let newest = put(&one, "k", "v");
    wait_for_replica(&replica, 11);
    assert_counts(&replica, "k", &newest);
    // Not yet here, and perhaps soon: that is no reason to start over.
    let (version, history) = newest.split_once('-').expect("a token");
    assert_eq!(version, "11");
    let ahead = format!("12-{history}");
    for target in ["/kv/k?min_version=", "/watch?timeout=0&since="] {
        let behind = replica.request("GET", &format!("{target}{ahead}"), &[], b"");
        assert_error(&behind, 503, "behind");
    }
    // On its leader no such version was ever told of.
    let gone = one.request("GET", &format!("/watch?timeout=0&since={ahead}"), &[], b"");
    assert_error(&gone, 410, "unknown_position");

    // All data is replaced by that of the other leader.
    lead(&other, 5);
    follow(&replica, &other, 5);
    wait_for_replica(&replica, 2);
    assert_counts(&replica, "k", &late);
    assert_is_no_position(&replica, &newest);
}

/// A leader that was started again, over and over, and its replica: none of it costs a snapshot,
/// whichever of them leads then.
#[test]
fn restarts_of_a_leader_cost_no_snapshots() {
    let folder = Folder::new("identity-restarts");
    let (one, two) = (folder.join("one"), folder.join("two"));
    let one_arguments = ["--data-dir", text(&one), "--await-assignment"];
    let two_arguments = ["--data-dir", text(&two), "--await-assignment"];
    let leader = start(&one_arguments);
    lead(&leader, 1);
    let replica = start(&two_arguments);
    follow(&replica, &leader, 1);
    let token = put(&leader, "k", "v");
    wait_for_replica(&replica, 1);
    // The replica is away meanwhile.
    end(replica, "TERM");
    end(leader, "TERM");
    for _ in 0..20 {
        end(start(&one_arguments), "KILL");
    }
    let mut leader = start(&one_arguments);
    let log = leader.collect_log();
    lead(&leader, 1);
    let mut replica = start(&two_arguments);
    let replica_log = replica.collect_log();
    follow(&replica, &leader, 1);
    wait_for_replica(&replica, 1);
    let second = put(&leader, "second", "v");
    wait_for_replica(&replica, 2);
    for node in [&leader, &replica] {
        assert_counts(node, "second", &second);
        let known = format!("If-None-Match: \"{token}\"");
        let read = node.request("GET", "/kv/k", &[&known], b"");
        assert_eq!(read.status, 304);
    }
    assert_eq!(token_of(&leader, "k"), token_of(&replica, "k"));
    // It goes down, comes back with a history of its own, and follows the one that it led.
    end(leader, "KILL");
    lead(&replica, 2);
    let leader = start(&one_arguments);
    follow(&leader, &replica, 2);
    wait_for_replica(&leader, 2);
    let third = put(&replica, "third", "v");
    wait_for_replica(&leader, 3);
    assert_counts(&leader, "third", &third);
    assert_counts(&leader, "second", &second);
    for log in [&log, &replica_log] {
        assert_eq!(log.count("gets a snapshot"), 0, "{}", log.text());
    }
}
