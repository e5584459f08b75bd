//! `/watch` on real nodes: whoever watches is told of every change that concerns it, once and in order, or is cut off.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

mod common;

use std::collections::VecDeque;

use common::{Client, Folder, Node, assert_error, wait_for};
use serde_json::{Value as Json, json};

const EVENTS: &str = "Accept: text/event-stream";

/// A listener to server-sent events.
struct Listener {
    client: Client,
    /// Told and not yet taken, with their ids.
    told: VecDeque<(u64, Json)>,
}

impl Listener {
    fn start(node: &Node, query: &str, headers: &[&str]) -> Self {
        let mut client = node.connect();
        client.send_request(
            "GET",
            &format!("/watch?{query}"),
            &[&[EVENTS], headers].concat(),
            b"",
        );
        let head = client.response_head();
        assert_eq!(
            (head.status, head.header("Content-Type")),
            (200, Some("text/event-stream"))
        );
        let begin = client.chunk().expect("a comment");
        assert!(
            begin.starts_with(b": changes after version "),
            "{}",
            String::from_utf8_lossy(&begin)
        );
        Self {
            client,
            told: VecDeque::new(),
        }
    }

    /// The next change; none at the end.
    fn next(&mut self) -> Option<(u64, Json)> {
        while self.told.is_empty() {
            let chunk = String::from_utf8(self.client.chunk()?).expect("text");
            for event in chunk.split_terminator("\n\n").filter(|event| *event != ":") {
                let field = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .expect("a field")
                };
                let change: Json = serde_json::from_str(field("data: ")).expect("JSON");
                assert_eq!(field("event: "), change["op"]);
                self.told
                    .push_back((field("id: ").parse().expect("a version"), change));
            }
        }
        self.told.pop_front()
    }
}

/// What a batch of random writes changes, in order.
fn write(node: &Node, rng: &mut fastrand::Rng, version: &mut u64) -> Vec<Json> {
    let key =
        |rng: &mut fastrand::Rng| format!("{}/{}", ["a", "b", "bb"][rng.usize(..3)], rng.u8(..20));
    let ops: Vec<Json> = (0..rng.usize(1..6))
        .map(|_| match rng.u8(..4) {
            0 => json!({ "op": "delete", "key": key(rng) }),
            _ => json!({ "op": "set", "key": key(rng), "value": "v".repeat(rng.usize(..200)) }),
        })
        .collect();
    let response = node.request(
        "POST",
        "/batch",
        &[],
        json!({ "ops": ops }).to_string().as_bytes(),
    );
    let results = response.json()["results"].clone();
    let mut changes = Vec::new();
    for (mut change, result) in ops.into_iter().zip(results.as_array().expect("results")) {
        if result["deleted"] != false {
            *version += 1;
            change["version"] = json!(*version);
            changes.push(change);
        }
    }
    changes
}

fn concerns(change: &Json, prefix: &str) -> bool {
    change["key"].as_str().expect("a key").starts_with(prefix)
}

/// Listeners that begin at any time and long polls that go on from one to the next miss nothing and get nothing twice.
#[test]
fn every_change_is_told_once_and_in_order() {
    let folder = Folder::new("watch");
    for arguments in [vec![], vec!["--data-dir", folder.path()]] {
        let node = Node::start(&arguments);
        wait_for("the data to be loaded", || {
            node.request("GET", "/readyz", &[], b"").status == 200
        });
        let mut rng = fastrand::Rng::with_seed(2);
        let (mut version, mut changes) = (0, Vec::new());
        let mut listeners: Vec<(&str, u64, Listener)> = Vec::new();
        let mut polls: Vec<(&str, u64, Vec<Json>)> = ["", "a", "bb/1"]
            .map(|prefix| (prefix, 0, Vec::new()))
            .to_vec();
        for round in 0..150 {
            if round % 10 == 0 {
                let prefix = ["", "a/", "b", "b/7", "nothing"][rng.usize(..5)];
                let since = rng.u64(..=version);
                let query = format!("since={since}&prefix={prefix}");
                listeners.push((prefix, since, Listener::start(&node, &query, &[])));
            }
            changes.extend(write(&node, &mut rng, &mut version));
            if round % 7 == 0 {
                for (prefix, since, told) in &mut polls {
                    let target = format!("/watch?timeout=0.05&since={since}&prefix={prefix}");
                    let answer = node.request("GET", &target, &[], b"").json();
                    told.extend(answer["events"].as_array().expect("events").clone());
                    *since = answer["version"].as_u64().expect("a version");
                }
            }
        }
        for (prefix, since, mut listener) in listeners {
            for change in changes.iter().filter(|change| concerns(change, prefix)) {
                if change["version"].as_u64() > Some(since) {
                    assert_eq!(
                        listener.next().expect("it goes on"),
                        (change["version"].as_u64().unwrap_or(0), change.clone())
                    );
                }
            }
        }
        for (prefix, mut since, mut told) in polls {
            while since < version {
                let target = format!("/watch?timeout=1&since={since}&prefix={prefix}");
                let answer = node.request("GET", &target, &[], b"").json();
                told.extend(answer["events"].as_array().expect("events").clone());
                since = answer["version"].as_u64().expect("a version");
            }
            let expected: Vec<&Json> = changes
                .iter()
                .filter(|change| concerns(change, prefix))
                .collect();
            assert_eq!(told.iter().collect::<Vec<_>>(), expected, "prefix {prefix}");
        }
    }
}

#[test]
fn a_long_poll_waits_for_what_concerns_it() {
    let node = Node::start(&[]);
    let mut waiting = node.connect();
    waiting.send_request("GET", "/watch?prefix=user:&timeout=30", &[], b"");
    assert_eq!(waiting.response_head().status, 200);
    node.request("PUT", "/kv/other", &[], b"v");
    node.request("PUT", "/kv/user:1", &["X-TTL: 1000"], b"v");
    let mut body = Vec::new();
    while let Some(chunk) = waiting.chunk() {
        body.extend(chunk);
    }
    let answer: Json = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(
        answer["events"],
        json!([{ "version": 2, "op": "set", "key": "user:1", "value": "v" }])
    );
    assert_eq!(answer["version"], 2);
    // The connection goes on.
    assert_eq!(waiting.request("GET", "/kv/user:1", &[], b"").text(), "v");
    let nothing = waiting
        .request("GET", "/watch?prefix=user:&timeout=0.1", &[], b"")
        .json();
    assert_eq!(
        nothing,
        json!({ "success": true, "events": [], "version": 2 })
    );
    assert_eq!(waiting.request("HEAD", "/watch", &[], b"").status, 200);
    let bytes = node.request("PUT", "/kv/%FF", &[], &[0xfe]);
    assert_eq!(bytes.status, 201);
    node.request("PUT", "/kv/large", &[], &vec![b'v'; 100_000]);
    let answer = waiting
        .request("GET", "/watch?since=2&timeout=5", &[], b"")
        .json();
    let expected = json!([
        { "version": 3, "op": "set", "key": "/w==", "keyEncoding": "base64", "value": "/g==", "encoding": "base64" },
        { "version": 4, "op": "set", "key": "large", "valueBytes": 100_000 },
    ]);
    assert_eq!(answer["events"], expected);
}

/// A watch whose time is over as soon as it begins still tells what there is.
#[test]
fn a_time_out_does_not_cut_an_answer() {
    let node = Node::start(&[]);
    node.request("PUT", "/kv/key", &[], b"v");
    let mut client = node.connect();
    for query in [
        "since=0&timeout=0",
        "since=0&timeout=0.001",
        "since=0&timeout=0.002&prefix=key",
    ] {
        for _ in 0..20 {
            let answer = client
                .request("GET", &format!("/watch?{query}"), &[], b"")
                .json();
            let events = answer["events"].as_array().expect("events");
            assert!(
                events.len() == 1 || answer["version"] == 0,
                "{query}: {answer}"
            );
        }
    }
    let mut listener = Listener::start(&node, "since=0&timeout=0", &[]);
    while listener.next().is_some() {}
}

#[test]
fn what_cannot_be_watched() {
    let node = Node::start(&["--wal-retain-bytes", "0", "--memtable-bytes", "64KiB"]);
    let mut client = node.connect();
    for query in [
        "since=x",
        "since=-1",
        "timeout=x",
        "timeout=-1",
        "timeout=301",
        "prefix=%f",
        "prefix=a&prefix=b",
    ] {
        let response = client.request("GET", &format!("/watch?{query}"), &[], b"");
        assert_eq!(response.status, 400, "{query}: {}", response.text());
    }
    assert_error(
        &client.request("GET", "/watch", &[EVENTS, "Last-Event-ID: x"], b""),
        400,
        "bad_request",
    );
    assert_error(
        &client.request("GET", "/watch?since=1", &[], b""),
        503,
        "behind",
    );
    for number in 0..2_000 {
        client.request("PUT", &format!("/kv/{number}"), &[], &[b'v'; 500]);
    }
    client.request("POST", "/admin/compact", &[], b"");
    // Until all of it is merged there is less log with every look.
    for attempt in 0.. {
        assert!(attempt < 10_000, "the log is never let go");
        let first = client.request("GET", "/watch?since=1&timeout=0", &[], b"");
        if first.status == 200 {
            continue;
        }
        assert_error(&first, 410, "log_gone");
        let oldest = first
            .header("X-Oldest-Version")
            .expect("the oldest version")
            .to_owned();
        assert!(
            first.text().contains(&format!("watch from is {oldest}")),
            "{}",
            first.text()
        );
        let next = client.request("GET", &format!("/watch?since={oldest}&timeout=0"), &[], b"");
        if next.status == 200 {
            break;
        }
        assert_error(&next, 410, "log_gone");
        assert_ne!(
            next.header("X-Oldest-Version"),
            Some(&oldest[..]),
            "what is told to be there is there"
        );
    }
}

/// A client that comes back says what it had last, whatever its address says.
#[test]
fn a_listener_goes_on_where_it_was() {
    let node = Node::start(&[]);
    for number in 0..5 {
        node.request("PUT", &format!("/kv/{number}"), &[], b"v");
    }
    let mut listener = Listener::start(&node, "since=0", &["Last-Event-ID: 3"]);
    assert_eq!(listener.next().expect("a change").0, 4);
    drop(listener);
    let mut timed = Listener::start(&node, "since=4&timeout=0.2", &[]);
    assert_eq!(timed.next().expect("a change").0, 5);
    assert_eq!(timed.next(), None, "its time is over");
    wait_for("those who have left to be forgotten", || {
        node.status()["loop"]["connections"].as_u64() <= Some(2)
    });
}

/// Whoever does not read is not waited for, costs one answer, and is cut off when it would have to be told what is gone.
#[test]
fn a_slow_listener_is_cut() {
    let node = Node::start(&["--wal-retain-bytes", "256KiB", "--memtable-bytes", "64KiB"]);
    let mut slow: Vec<Client> = (0..30).map(|_| node.connect_with_small_buffer()).collect();
    for listener in &mut slow {
        listener.send_request("GET", "/watch", &[EVENTS], b"");
        assert_eq!(listener.response_head().status, 200);
    }
    let mut quick = Listener::start(&node, "prefix=last", &[]);
    let mut writer = node.connect();
    for number in 0..20_000 {
        writer.request("PUT", &format!("/kv/{}", number % 100), &[], &[b'v'; 1_000]);
    }
    writer.request("PUT", "/kv/last", &[], b"v");
    assert_eq!(quick.next().expect("a change").0, 20_001);
    assert!(
        node.memory_kib("VmHWM") < 30 * 1024,
        "{} KiB",
        node.memory_kib("VmHWM")
    );
    for mut listener in slow {
        let text = String::from_utf8(listener.read_to_end()).expect("text");
        assert!(
            !text.contains("\"version\":20001") && !text.ends_with("0\r\n\r\n"),
            "a gap, or an end that looks whole"
        );
    }
}

#[test]
fn watches_end_with_the_node() {
    let mut node = Node::start(&[]);
    let mut listener = Listener::start(&node, "", &[]);
    let mut poll = node.connect();
    poll.send_request("GET", "/watch?timeout=100", &[], b"");
    assert_eq!(poll.response_head().status, 200);
    wait_for("both to be there", || {
        node.status()["loop"]["requests"].as_u64() >= Some(2)
    });
    node.signal("TERM");
    assert_eq!(listener.next(), None);
    let mut body = Vec::new();
    while let Some(chunk) = poll.chunk() {
        body.extend(chunk);
    }
    assert_eq!(body, br#"{"success":true,"events":[],"version":0}"#);
    assert!(node.wait().success());
}

/// On a replica, too; and data that is replaced cuts those who knew the old.
#[test]
fn replicas_are_watched() {
    let leader = Node::start(&[]);
    let url = format!("http://{}", leader.address);
    let replica = Node::start(&["--replica-of", &url]);
    wait_for("the replica", || {
        replica.request("GET", "/replica", &[], b"").status == 200
    });
    let mut listener = Listener::start(&replica, "", &[]);
    for number in 1..=3 {
        leader.request("PUT", &format!("/kv/{number}"), &[], b"v");
        assert_eq!(listener.next().expect("a change").0, number);
    }
    // Another leader of a higher epoch, with other data.
    let other = Node::start(&[]);
    for number in 0..10 {
        other.request("PUT", &format!("/kv/other-{number}"), &[], b"v");
    }
    let assign = |node: &Node, body: Json| {
        let response = node.request(
            "POST",
            "/partition/assign",
            &[],
            body.to_string().as_bytes(),
        );
        assert_eq!(response.status, 200, "{}", response.text());
    };
    assign(&other, json!({ "id": 0, "role": "leader", "epoch": 5 }));
    let url = format!("http://{}", other.address);
    assign(
        &replica,
        json!({ "id": 0, "role": "replica", "epoch": 5, "leader": url }),
    );
    wait_for("the other data", || {
        replica.request("GET", "/kv/other-9", &[], b"").status == 200
    });
    let rest = String::from_utf8(listener.client.read_to_end()).expect("text");
    assert!(
        !rest.contains("other") && !rest.ends_with("0\r\n\r\n"),
        "{rest}"
    );
}
