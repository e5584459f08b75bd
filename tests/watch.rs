//! `/watch` on real nodes: a watcher is told of every change that concerns it, once and in
//! order, or is cut off.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

mod common;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use common::{Client, Folder, Node, assert_error, version_of, wait_for, without_tokens};
use serde_json::{Value as Json, json};

const EVENTS: &str = "Accept: text/event-stream";

/// A listener to server-sent events, as an `EventSource` is one.
struct Listener {
    client: Client,
    /// Told and not yet taken, with their versions.
    told: VecDeque<(u64, Json)>,
    /// The last id that came, with an event or alone.
    last_id: String,
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
        let begin = String::from_utf8(client.chunk().expect("a comment")).expect("text");
        let (comment, id) = begin.split_once("\nid: ").expect("an id");
        let version = comment.strip_prefix(": changes after version ");
        let last_id = id.strip_suffix("\n\n").expect("one block").to_owned();
        assert_eq!(version, Some(&*version_of(&last_id).to_string()), "{begin}");
        Self {
            client,
            told: VecDeque::new(),
            last_id,
        }
    }

    /// Takes in what came together; false at the end.
    fn read_more(&mut self) -> bool {
        let Some(chunk) = self.client.chunk() else {
            return false;
        };
        let chunk = String::from_utf8(chunk).expect("text");
        for event in chunk.split_terminator("\n\n") {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
            field("id: ").expect("an id").clone_into(&mut self.last_id);
            let Some(data) = field("data: ") else {
                assert_eq!(event, format!("id: {}", self.last_id), "nothing but an id");
                continue;
            };
            let change: Json = serde_json::from_str(data).expect("JSON");
            assert_eq!(field("event: "), change["op"].as_str());
            assert_eq!(change["etag"], *self.last_id);
            self.told
                .push_back((version_of(&self.last_id), without_tokens(change)));
        }
        true
    }

    /// The next change; none at the end.
    fn next(&mut self) -> Option<(u64, Json)> {
        while self.told.is_empty() {
            if !self.read_more() {
                return None;
            }
        }
        self.told.pop_front()
    }
}

/// The answer to a long poll, and its position.
fn poll(client: &mut Client, query: &str) -> (Json, String) {
    let response = client.request("GET", &format!("/watch?{query}"), &[], b"");
    assert_eq!(response.status, 200, "{query}: {}", response.text());
    let position = response.json()["position"]
        .as_str()
        .expect("a position")
        .to_owned();
    (response.plain_json(), position)
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

/// Listeners that begin at any time and long polls that go on from one to the next miss nothing and
/// get nothing twice.
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
        let mut client = node.connect();
        let mut polls: Vec<(&str, String, Vec<Json>)> = ["", "a", "bb/1"]
            .map(|prefix| (prefix, "0".to_owned(), Vec::new()))
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
                    let query = format!("timeout=0.05&since={since}&prefix={prefix}");
                    let (answer, position) = poll(&mut client, &query);
                    told.extend(answer["events"].as_array().expect("events").clone());
                    *since = position;
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
            while since == "0" || version_of(&since) < version {
                let query = format!("timeout=1&since={since}&prefix={prefix}");
                let (answer, position) = poll(&mut client, &query);
                told.extend(answer["events"].as_array().expect("events").clone());
                since = position;
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
    let answer = without_tokens(serde_json::from_slice(&body).expect("JSON"));
    assert_eq!(
        answer["events"],
        json!([{ "version": 2, "op": "set", "key": "user:1", "value": "v" }])
    );
    assert_eq!(answer["version"], 2);
    // The connection goes on.
    assert_eq!(waiting.request("GET", "/kv/user:1", &[], b"").text(), "v");
    let (nothing, _) = poll(&mut waiting, "prefix=user:&timeout=0.1");
    assert_eq!(
        nothing,
        json!({ "success": true, "events": [], "version": 2 })
    );
    assert_eq!(waiting.request("HEAD", "/watch", &[], b"").status, 200);
    let bytes = node.request("PUT", "/kv/%FF", &[], &[0xfe]);
    assert_eq!(bytes.status, 201);
    node.request("PUT", "/kv/large", &[], &vec![b'v'; 100_000]);
    let (answer, _) = poll(&mut waiting, "since=2&timeout=5");
    let expected = json!([
        { "version": 3, "op": "set", "key": "/w==", "keyEncoding": "base64", "value": "/g==",
          "encoding": "base64" },
        { "version": 4, "op": "set", "key": "large", "valueBytes": 100_000 },
    ]);
    assert_eq!(answer["events"], expected);
}

/// A watch with a time-out of 0 still sends the changes that there are.
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
            let (answer, _) = poll(&mut client, query);
            let events = answer["events"].as_array().expect("events");
            assert!(
                events.len() == 1 && answer["version"] == 1,
                "{query}: {answer}"
            );
        }
    }
    let mut listener = Listener::start(&node, "since=0&timeout=0", &[]);
    assert_eq!(listener.next().expect("a change").0, 1);
    assert_eq!(listener.next(), None);
}

/// Polls that do not wait, or hardly, come past what others write, however much that is, and are
/// told of what concerns them behind it.
#[test]
fn polls_get_on_through_writes_that_do_not_concern_them() {
    let node = Node::start(&["--memtable-bytes", "64MiB"]);
    let mut client = node.connect();
    client.request("GET", "/watch?timeout=0", &[], b"");
    let write = |client: &mut Client, count: usize| {
        for number in 0..count {
            client.request("PUT", &format!("/kv/other-{number}"), &[], &[b'v'; 10_000]);
        }
    };
    write(&mut client, 300);
    client.request("PUT", "/kv/w-first", &[], b"v");
    write(&mut client, 300);
    for timeout in ["0", "0.001", "0.003"] {
        let (mut since, mut told) = ("0".to_owned(), Vec::new());
        for count in 0.. {
            assert!(count < 12, "{timeout}: still at {since}");
            let query = format!("prefix=w&timeout={timeout}&since={since}");
            let (answer, position) = poll(&mut client, &query);
            told.extend(answer["events"].as_array().expect("events").clone());
            assert_ne!(position, since, "no progress");
            since = position;
            if version_of(&since) == 601 {
                break;
            }
        }
        assert_eq!(told.len(), 1, "{told:?}");
        // Listeners likewise: those that come back go on where they were.
        let (mut id, mut told) = ("Last-Event-ID: 0".to_owned(), 0);
        for count in 0.. {
            assert!(count < 12, "{timeout}: still at {id}");
            let query = format!("prefix=w&timeout={timeout}");
            let mut listener = Listener::start(&node, &query, &[&id]);
            while listener.next().is_some() {
                told += 1;
            }
            assert_ne!(id, format!("Last-Event-ID: {}", listener.last_id));
            id = format!("Last-Event-ID: {}", listener.last_id);
            if version_of(&listener.last_id) == 601 {
                break;
            }
        }
        assert_eq!(told, 1);
    }
}

/// A watcher that no change concerns does not fall out of the log while it is connected: a change
/// that concerns it reaches it after the log from where it began was let go.
#[test]
fn a_quiet_prefix_is_not_left_behind() {
    let node = Node::start(&["--wal-retain-bytes", "64KiB", "--memtable-bytes", "64KiB"]);
    let mut writer = node.connect();
    let mut waiting = node.connect();
    waiting.send_request("GET", "/watch?prefix=w&timeout=300", &[], b"");
    assert_eq!(waiting.response_head().status, 200);
    let mut listener = Listener::start(&node, "prefix=w", &[]);
    let begun_at = listener.last_id.clone();
    for number in 0..3_000 {
        writer.request("PUT", &format!("/kv/{number}"), &[], &[b'v'; 1_000]);
    }
    writer.request("POST", "/admin/compact", &[], b"");
    wait_for("the log to be let go", || {
        let target = format!("/watch?timeout=0&since={begun_at}");
        writer.request("GET", &target, &[], b"").status == 410
    });
    writer.request("PUT", "/kv/w", &[], b"v");
    let mut body = Vec::new();
    while let Some(chunk) = waiting.chunk() {
        body.extend(chunk);
    }
    let answer: Json = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(answer["events"].as_array().expect("events").len(), 1);
    assert_eq!(listener.next().expect("a change").0, 3_001);
    for position in [
        answer["position"].as_str().expect("text"),
        &listener.last_id,
    ] {
        assert_eq!(version_of(position), 3_001);
        poll(&mut writer, &format!("prefix=w&timeout=0&since={position}"));
    }
}

/// The answer to a poll that waited in vain and the end of a stream say how far the log was looked
/// at, not where they began.
#[test]
fn the_end_of_a_wait_says_how_far_the_log_was_looked_at() {
    let node = Node::start(&[]);
    let mut writer = node.connect();
    // A machine that is busy may not do the writes in time: then the next wait is longer.
    for timeout_s in (0..7).map(|doubled| 1 << doubled) {
        let query = format!("prefix=w&timeout={timeout_s}");
        let begun = Instant::now();
        let mut waiting = node.connect();
        waiting.send_request("GET", &format!("/watch?{query}"), &[], b"");
        assert_eq!(waiting.response_head().status, 200);
        let mut listener = Listener::start(&node, &query, &[]);
        let mut last_version = 0;
        for _ in 0..10 {
            let written = writer.request("PUT", "/kv/other", &[], b"v");
            last_version = version_of(written.token().expect("a token"));
        }
        let are_in_time = begun.elapsed() < Duration::from_secs(timeout_s);
        let mut body = Vec::new();
        while let Some(chunk) = waiting.chunk() {
            body.extend(chunk);
        }
        let answer: Json = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(listener.next(), None, "its time is over");
        if !are_in_time {
            continue;
        }
        for position in [
            answer["position"].as_str().expect("text"),
            &listener.last_id,
        ] {
            assert_eq!(version_of(position), last_version);
        }
        return;
    }
    panic!("ten writes take longer than a minute");
}

/// Every 15 s a listener that no change concerns hears how far the log was looked at; an
/// `EventSource` keeps that as its last id, and dispatches nothing.
#[test]
fn signs_of_life_say_how_far_the_log_was_looked_at() {
    let node = Node::start(&[]);
    let mut listener = Listener::start(&node, "prefix=w", &[]);
    assert_eq!(version_of(&listener.last_id), 0);
    let mut token = String::new();
    for number in 0..50 {
        let written = node.request("PUT", &format!("/kv/{number}"), &[], b"v");
        written.token().expect("a token").clone_into(&mut token);
    }
    assert!(listener.read_more() && listener.told.is_empty());
    assert_eq!(listener.last_id, token);
    // The node does not speak up again because of writes that do not concern it.
    node.request("PUT", "/kv/w", &[], b"v");
    assert_eq!(listener.next().expect("a change").0, 51);
}

/// A listener that was cut off before its first event comes back with what it heard at the
/// beginning, and is told of what came between.
#[test]
fn a_listener_that_heard_nothing_goes_on_where_it_began() {
    let node = Node::start(&[]);
    node.request("PUT", "/kv/before", &[], b"v");
    for query in ["", "prefix=k", "timeout=100"] {
        let listener = Listener::start(&node, query, &[]);
        let id = format!("Last-Event-ID: {}", listener.last_id);
        drop(listener);
        let written = node.request("PUT", "/kv/k", &[], query.as_bytes());
        let mut listener = Listener::start(&node, query, &[&id]);
        let (version, change) = listener.next().expect("a change");
        assert_eq!(Some(version), written.tag_version());
        assert_eq!(change["value"], query);
    }
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
    // A version that this leader has not written yet says nothing of what the client has seen.
    for since in ["1", "0-00000000", "1-00000000"] {
        let target = format!("/watch?since={since}");
        for headers in [&[][..], &[EVENTS]] {
            let refused = client.request("GET", &target, headers, b"");
            assert_error(&refused, 410, "unknown_position");
            assert!(refused.text().contains("scan"), "{}", refused.text());
        }
        let id = format!("Last-Event-ID: {since}");
        let refused = client.request("GET", "/watch?since=0", &[EVENTS, &id], b"");
        assert_error(&refused, 410, "unknown_position");
    }
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
            .header("X-Oldest-Position")
            .expect("the oldest position")
            .to_owned();
        version_of(&oldest);
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
            next.header("X-Oldest-Position"),
            Some(&oldest[..]),
            "what is told to be there is there"
        );
    }
}

/// A client that comes back says what it had last, whatever its address says.
#[test]
fn a_listener_goes_on_where_it_was() {
    let node = Node::start(&[]);
    let tokens = (0..5).map(|number| {
        let written = node.request("PUT", &format!("/kv/{number}"), &[], b"v");
        written.token().expect("a token").to_owned()
    });
    let tokens: Vec<String> = tokens.collect();
    for id in ["3", &tokens[2]] {
        let id = format!("Last-Event-ID: {id}");
        let mut listener = Listener::start(&node, "since=0", &[&id]);
        assert_eq!(listener.last_id, tokens[2]);
        assert_eq!(listener.next().expect("a change").0, 4);
        assert_eq!(listener.last_id, tokens[4], "both came together");
    }
    // A poll that says it is not told either what the client has.
    for (query, id, expected) in [
        ("timeout=0", &tokens[3][..], &[5][..]),
        ("timeout=0&since=0", "3", &[4, 5]),
        ("timeout=0&since=4", "5", &[]),
    ] {
        let id = format!("Last-Event-ID: {id}");
        let response = node.request("GET", &format!("/watch?{query}"), &[&id], b"");
        let told = response.json()["events"]
            .as_array()
            .expect("events")
            .clone();
        let versions = told.iter().map(|change| change["version"].as_u64());
        let versions: Option<Vec<u64>> = versions.collect();
        assert_eq!(versions.as_deref(), Some(expected), "{query} {id}");
    }
    let mut timed = Listener::start(&node, "since=4&timeout=0.2", &[]);
    assert_eq!(timed.next().expect("a change").0, 5);
    assert_eq!(timed.next(), None, "its time is over");
    wait_for("those who have left to be forgotten", || {
        node.status()["loop"]["connections"].as_u64() <= Some(2)
    });
}

/// A client that does not read is not waited for, costs one answer, and is cut off when it would
/// have to be told what is gone.
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
    let answer: Json = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(
        without_tokens(answer),
        json!({ "success": true, "events": [], "version": 0 })
    );
    assert!(node.wait().success());
}

/// On a replica, too; and data that is replaced cuts the watchers that knew the old.
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
