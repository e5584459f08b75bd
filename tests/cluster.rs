//! Replication between real nodes: replicas become and stay the same as their leader, writes wait
//! for those they ask for, roles change hands without losing what was confirmed, and no stranger
//! that connects can do harm.

#![expect(clippy::too_many_lines, reason = "a scenario reads best in one piece")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks, files and sockets of their own"
)]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use db_node::lsm::LogPosition;
use db_node::replication::frame::{
    Ack, Continue, DATA_MAX_BYTES, Frame, FrameReader, Heartbeat, Hello, Intent, NodeId,
    PROTOCOL_MIN, PROTOCOL_VERSION, PeerState, Refusal, RefusalCode, SnapshotStart,
};
use db_node::storage::{HistoryId, Lineage};
use serde_json::{Value as Json, json};

use common::member::{Member, assert_follows, own_address, put_bytes, value_of};
use common::{
    Folder, Node, PATIENCE, assert_error, command, let_pass, request_bytes, text, wait_for,
    without_tokens,
};

/// What a leader says when a replica gets all data.
const GETS_SNAPSHOT: &str = "gets a snapshot";

/// The only replica that a leader feeds.
fn fed(leader: &Member) -> Json {
    let replicas = leader.partition()["replicas"].clone();
    assert_eq!(replicas.as_array().map(Vec::len), Some(1), "{replicas}");
    replicas[0].clone()
}

#[test]
fn an_empty_replica_becomes_the_same_as_its_leader() {
    const KEY_COUNT: usize = 10_000;
    let leader = Member::start(&["--memtable-bytes", "256KiB"]);
    leader.fill(0..KEY_COUNT, 100);
    leader.fill(KEY_COUNT..KEY_COUNT + 8, 1 << 20);
    let deleted = leader.pipeline(0..KEY_COUNT / 4, |number| {
        request_bytes("DELETE", &format!("/kv/key-{}", number * 4), &[], b"")
    });
    assert!(deleted.iter().all(|response| response.status == 204));

    let replica = Member::replica_of(&leader, &["--memtable-bytes", "64KiB"]);
    // Written while the snapshot is on its way.
    leader.fill(KEY_COUNT / 2..KEY_COUNT, 50);
    assert_follows(&replica, &leader);
    assert_eq!(
        replica.digest()["keys"],
        KEY_COUNT - KEY_COUNT / 4 + KEY_COUNT / 8 + 8
    );
    for number in (0..KEY_COUNT).step_by(97).chain(KEY_COUNT..KEY_COUNT + 8) {
        let key = format!("/kv/key-{number}");
        let (ours, theirs) = (leader.get(&key), replica.get(&key));
        assert_eq!(
            (ours.status, ours.header("ETag")),
            (theirs.status, theirs.header("ETag")),
            "{key}"
        );
        assert!(ours.body == theirs.body, "{key}");
    }
    leader.fill(KEY_COUNT..KEY_COUNT + 2, 20);
    leader.fill(0..100, 1 << 15);
    assert_follows(&replica, &leader);
    assert_eq!(leader.log.count(GETS_SNAPSHOT), 1, "{}", leader.log.text());
}

#[test]
fn a_replica_serves_reads_and_sends_writers_to_its_leader() {
    let leader = Member::start(&[]);
    assert_eq!(leader.put("k", &[], "v").status, 201);
    let replica = Member::replica_of(&leader, &[]);
    assert_follows(&replica, &leader);
    assert_eq!(replica.get("/kv/k").text(), "v");
    assert_eq!(replica.get("/get?key=k").json()["version"], 1);
    for (method, target, body) in [
        ("PUT", "/kv/k", &b"other"[..]),
        ("POST", "/set", br#"{"key":"k","value":"other"}"#),
        ("DELETE", "/kv/k", b""),
        ("DELETE", "/delete?key=k", b""),
        ("DELETE", "/delete?key=missing", b""),
    ] {
        let response = replica.request(method, target, &[], body);
        assert_error(&response, 421, "not_leader");
        assert_eq!(
            response.header("X-Leader"),
            Some(leader.url().as_str()),
            "{method} {target}"
        );
    }
    assert_eq!(replica.get("/kv/k").text(), "v");

    for (node, mine, other) in [
        (&leader, "/leader", "/replica"),
        (&replica, "/replica", "/leader"),
    ] {
        assert_eq!(node.get(mine).status, 200, "{}", node.get(mine).text());
        assert_eq!(node.get(other).status, 503, "{}", node.get(other).text());
        assert_eq!(node.get("/readyz").status, 200);
        assert_eq!(node.get("/health").json()["role"], mine[1..]);
        assert_eq!(node.partition()["role"], mine[1..]);
    }
    assert_eq!(replica.get("/replica?max_lag=0").status, 200);

    assert_eq!(replica.get("/kv/k?min_version=1").text(), "v");
    for node in [&leader, &replica] {
        let behind = node.get("/kv/k?min_version=2");
        assert_error(&behind, 503, "behind");
        assert!(behind.header("Retry-After").is_some());
        assert_error(&node.get("/get?key=k&min_version=99"), 503, "behind");
        assert_error(&node.get("/get?key=k&min_version=x"), 400, "bad_query");
    }
    let written = leader.put("k", &["X-Min-Acks: 1"], "new");
    let at_least = format!("/kv/k?min_version={}", written.token().expect("a token"));
    assert_eq!(
        replica.get(&at_least).text(),
        "new",
        "what was confirmed can be read there"
    );
}

#[test]
fn writes_wait_for_as_many_replicas_as_they_ask_for() {
    let leader = Member::start(&["--ack-timeout-ms", "300"]);
    let alone = leader.put("alone", &["X-Min-Acks: 1"], "v");
    assert_error(&alone, 503, "too_few_replicas");
    let replica = Member::replica_of(&leader, &[]);
    assert_follows(&replica, &leader);
    let mut client = leader.connect();
    let mut put =
        |acks: &str, key: &str| client.request("PUT", &format!("/kv/{key}"), &[acks], b"v");
    assert_eq!(put("X-Min-Acks: 1", "one").status, 201);
    assert_eq!(put("X-Min-Acks: 0", "none").status, 201);
    // On the same connection as what comes before and after.
    assert_error(&put("X-Min-Acks: 2", "more"), 503, "too_few_replicas");
    assert_eq!(leader.version(), 2, "nothing was done");
    replica.freeze();
    for _ in 0..2 {
        assert_error(&put("X-Min-Acks: 1", "two"), 504, "acks_timeout");
    }
    replica.thaw();
    assert_eq!(put("X-Min-Acks: 1", "one").status, 200);
    assert_error(&put("X-Min-Acks: many", "x"), 400, "bad_request");
    assert_error(&put("X-Min-Acks: 33", "x"), 400, "bad_request");
    assert_eq!(leader.get("/kv/two").text(), "v", "applied all the same");
    assert_follows(&replica, &leader);
    assert_eq!(fed(&leader)["appliedVersion"], leader.version());

    // Nothing but the answers that wait comes late, and each write finds the ones before it.
    let second = Member::replica_of(&leader, &[]);
    assert_follows(&second, &leader);
    assert_eq!(
        client
            .request("PUT", "/kv/two", &["X-Min-Acks: 2"], b"v")
            .status,
        200
    );
    let acks = ["X-Min-Acks: 2", "X-Min-Acks: 0", "X-Min-Acks: 1"];
    let responses = leader.pipeline(0..300, |number| match number % 4 {
        3 => request_bytes("GET", &format!("/kv/count-{}", number / 4), &[], b""),
        step => request_bytes(
            "PUT",
            &format!("/kv/count-{}", number / 4),
            &[acks[step]],
            number.to_string().as_bytes(),
        ),
    });
    let mut last_version = 0;
    for (number, response) in responses.iter().enumerate() {
        let version = response.tag_version().unwrap_or(0);
        match number % 4 {
            0 => assert_eq!(response.status, 201, "{number}: {}", response.text()),
            3 => assert_eq!(
                (response.text(), version),
                ((number - 1).to_string(), last_version)
            ),
            _ => assert_eq!(response.status, 200, "{number}: {}", response.text()),
        }
        assert!(
            version > last_version || (number % 4 == 3 && version == last_version),
            "{number}: out of order"
        );
        last_version = version;
    }
    assert_follows(&second, &leader);
    assert_follows(&replica, &leader);
}

#[test]
fn a_pipeline_that_is_not_confirmed_is_cut_and_the_node_goes_on() {
    let leader = Member::start(&["--ack-timeout-ms", "300"]);
    let replica = Member::replica_of(&leader, &[]);
    assert_follows(&replica, &leader);
    replica.freeze();
    let mut client = leader.connect();
    client.send(
        &[0, 1, 2]
            .map(|number| request_bytes("PUT", &format!("/kv/{number}"), &["X-Min-Acks: 1"], b"v"))
            .concat(),
    );
    let response = client.response(false);
    assert_error(&response, 504, "acks_timeout");
    assert_eq!(
        response.header("Connection"),
        Some("close"),
        "two more answers cannot come"
    );
    client.assert_end();
    assert_eq!(leader.get("/kv/2").text(), "v");
}

#[test]
fn a_replica_that_was_away_goes_on_where_it_was() {
    let folder = Folder::new("away");
    let leader = Member::start(&["--memtable-bytes", "64KiB"]);
    leader.fill(0..1_000, 100);
    let mut replica = Member::durable(&folder, &["--replica-of", &leader.url()]);
    assert_follows(&replica, &leader);
    assert_eq!(leader.log.count(GETS_SNAPSHOT), 1);

    replica.freeze();
    leader.fill(500..3_000, 100);
    leader.fill(3_000..3_003, 1 << 20);
    assert!(fed(&leader)["appliedVersion"].as_u64() < Some(leader.version()));
    replica.thaw();
    assert_follows(&replica, &leader);

    for round in 0..2 {
        replica.wait_for_disk();
        replica.kill();
        leader.fill(round * 500..2_000 + round * 500, 150);
        leader.fill(3_003..3_005, 1 << 20);
        replica = Member::durable(&folder, &["--replica-of", &leader.url()]);
        assert_follows(&replica, &leader);
    }
    assert_eq!(
        leader.log.count(GETS_SNAPSHOT),
        1,
        "the first, and no other: {}",
        leader.log.text()
    );
}

#[test]
fn a_replica_that_was_away_too_long_gets_a_snapshot() {
    const RETAINED_BYTES: u64 = 128 * 1024;
    let folder = Folder::new("too-long");
    let leader = Member::start(&["--memtable-bytes", "64KiB", "--wal-retain-bytes", "128KiB"]);
    leader.fill(0..1_000, 100);
    let mut replica = Member::durable(&folder, &["--replica-of", &leader.url()]);
    assert_follows(&replica, &leader);
    replica.kill();
    leader.fill(0..20_000, 200);
    replica = Member::durable(&folder, &["--replica-of", &leader.url()]);
    assert_follows(&replica, &leader);
    assert_eq!(leader.log.count(GETS_SNAPSHOT), 2, "{}", leader.log.text());
    leader
        .log
        .assert_has("gets a snapshot of version 21000: the log no longer has what it lacks");
    replica
        .log
        .assert_has("gets a snapshot of version 21000 from its leader");

    // What is on its way to nobody is kept by nobody.
    let is_done = |node: &Member| {
        let now = node.partition();
        now["pinnedSnapshots"] == 0 && now["debt"] == 0
    };
    wait_for("the snapshot to be let go", || {
        is_done(&leader) && is_done(&replica)
    });
    leader.fill(0..20_000, 200);
    assert_follows(&replica, &leader);
    wait_for("all to be confirmed", || {
        fed(&leader)["durableVersion"] == leader.version() && is_done(&leader)
    });
    let log_bytes = leader.partition()["logBytes"].as_u64().expect("a number");
    // Segments go whole, and the one that is written stays; so does what is in the memtable.
    let slack_bytes = 2 * 256 * 1024 + 64 * 1024;
    assert!(
        (RETAINED_BYTES..=RETAINED_BYTES + slack_bytes).contains(&log_bytes),
        "{log_bytes} bytes of log are kept"
    );
}

/// Writes keys of its own, one after the other, until the connection breaks; the number of those
/// that were confirmed.
fn write_until_cut(address: SocketAddr, writer: usize, confirmed_count: &AtomicUsize) -> usize {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("set a time-out");
    let mut unread = Vec::new();
    for number in 0.. {
        let request = request_bytes(
            "PUT",
            &format!("/kv/writer-{writer}-{number}"),
            &[],
            &value_of(number, 100),
        );
        let mut buffer = [0; 4096];
        let sent = stream.write_all(&request);
        while !unread.ends_with(b"}") {
            match stream.read(&mut buffer) {
                Ok(len @ 1..) if sent.is_ok() => unread.extend_from_slice(&buffer[..len]),
                _ => return number,
            }
        }
        assert!(
            unread.starts_with(b"HTTP/1.1 201 "),
            "{}",
            String::from_utf8_lossy(&unread)
        );
        unread.clear();
        confirmed_count.fetch_add(1, Ordering::Relaxed);
    }
    unreachable!("there is always a next number")
}

#[test]
fn what_was_confirmed_is_there_after_a_failover() {
    const WRITER_COUNT: usize = 8;
    let folders = ["a", "b", "c"].map(|name| Folder::new(&format!("failover-{name}")));
    let arguments = ["--min-acks", "1", "--ack-timeout-ms", "10000"];
    let mut old = Member::durable(&folders[0], &arguments);
    let replicas = [1, 2].map(|index| {
        Member::durable(
            &folders[index],
            &[&["--replica-of", &old.url()], &arguments[..]].concat(),
        )
    });
    for replica in &replicas {
        assert_follows(replica, &old);
    }

    let confirmed_count = AtomicUsize::new(0);
    let confirmed = thread::scope(|scope| {
        let (address, confirmed_count) = (old.address, &confirmed_count);
        let writers: Vec<_> = (0..WRITER_COUNT)
            .map(|writer| scope.spawn(move || write_until_cut(address, writer, confirmed_count)))
            .collect();
        wait_for("writes under way", || {
            confirmed_count.load(Ordering::Relaxed) >= 40 * WRITER_COUNT
        });
        old.kill();
        writers
            .into_iter()
            .map(|writer| writer.join().expect("no panic"))
            .collect::<Vec<_>>()
    });
    eprintln!("confirmed: {confirmed:?}");

    // The replica that is ahead leads.
    wait_for("the replicas to notice", || {
        replicas
            .iter()
            .all(|replica| replica.partition()["leader"]["state"] == "connecting")
    });
    let [first, second] = &replicas;
    let (new, other) = if first.version() >= second.version() {
        (first, second)
    } else {
        (second, first)
    };
    new.lead(1);
    other.follow(new, 1);
    assert_follows(other, new);
    assert_eq!(
        new.log.count(GETS_SNAPSHOT),
        0,
        "the histories agree: {}",
        new.log.text()
    );
    let revived = Member::start(
        &[
            &["--data-dir", folders[0].path(), "--await-assignment"],
            &arguments[..],
        ]
        .concat(),
    );
    wait_for("the data to be loaded", || {
        revived.get("/health").status == 200
    });
    revived.follow(new, 1);
    assert_follows(&revived, new);
    for (writer, count) in confirmed.iter().enumerate() {
        for node in [new, other, &revived] {
            let responses = node.pipeline(0..*count, |number| {
                request_bytes("GET", &format!("/kv/writer-{writer}-{number}"), &[], b"")
            });
            for (number, response) in responses.iter().enumerate() {
                assert!(
                    response.body == value_of(number, 100),
                    "writer-{writer}-{number}: {}",
                    response.text()
                );
            }
        }
    }
    new.fill(0..50, 100);
    assert_follows(&revived, new);
    assert_follows(other, new);
    assert_eq!(new.digest()["digest"], revived.digest()["digest"]);
}

/// The lines of the files in which a node has saved what only it had.
fn saved_lines(folder: &Folder) -> Vec<Json> {
    let entries = std::fs::read_dir(folder.join("partition-0")).expect("read the folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let is_saved = |path: &PathBuf| {
        text(path).contains("diverged-") && path.extension().is_some_and(|end| end == "jsonl")
    };
    let texts = paths
        .filter(is_saved)
        .map(|path| std::fs::read_to_string(path).expect("text"));
    texts
        .flat_map(|text| {
            text.lines()
                .map(|line| serde_json::from_str(line).expect("JSON"))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn what_only_the_old_leader_had_is_saved_in_a_file() {
    let folders = ["old", "new"].map(|name| Folder::new(&format!("diverged-{name}")));
    let mut old = Member::durable(&folders[0], &[]);
    let mut new = Member::durable(&folders[1], &["--replica-of", &old.url()]);
    old.fill(0..100, 100);
    assert_follows(&new, &old);
    new.wait_for_disk();
    new.kill();
    let large = value_of(7, 1 << 20);
    for (key, value) in [
        ("lost-text", &b"v"[..]),
        ("lost-bytes", b"\xff\xfe"),
        ("lost-large", &large),
        ("key-1", b"mine"),
    ] {
        let response = old.request("PUT", &format!("/kv/{key}"), &["X-Min-Acks: 0"], value);
        assert!(response.status < 300, "{}", response.text());
    }
    assert_eq!(
        old.request("DELETE", "/kv/key-2", &["X-Min-Acks: 0"], b"")
            .status,
        204
    );
    assert_eq!(old.version(), 105);
    old.kill();

    new = Member::durable(&folders[1], &["--await-assignment"]);
    new.lead(1);
    assert_eq!(new.put("key-1", &[], "theirs").status, 200);
    let mut old = Member::durable(&folders[0], &["--await-assignment"]);
    old.follow(&new, 1);
    assert_follows(&old, &new);
    new.log
        .assert_has("gets a snapshot of version 101: its history has parted from this one");
    old.log
        .assert_has("5 writes that only this node had are dropped; they are saved in ");
    let expected = [
        json!({"version": 104, "key": "key-1", "value": "mine"}),
        json!({"version": 105, "key": "key-2", "deleted": true}),
        json!({"version": 102, "key": "lost-bytes", "value": "//4=", "encoding": "base64"}),
        json!({"version": 103, "key": "lost-large", "value": String::from_utf8(large).expect("text")}),
        json!({"version": 101, "key": "lost-text", "value": "v"}),
    ];
    assert!(
        saved_lines(&folders[0]) == expected,
        "{:.2000}",
        json!(saved_lines(&folders[0])).to_string()
    );
    assert_eq!(old.get("/kv/lost-text").status, 404);
    assert_eq!(old.get("/kv/key-1").text(), "theirs");
    assert!(saved_lines(&folders[1]).is_empty());

    // What replaced it lasts, and is taken up from there.
    old.wait_for_disk();
    old.kill();
    new.fill(0..50, 100);
    let again = Member::durable(&folders[0], &[]);
    assert_follows(&again, &new);
    assert_eq!(new.log.count(GETS_SNAPSHOT), 1, "{}", new.log.text());
    assert_eq!(saved_lines(&folders[0]).len(), 5);
}

#[test]
fn a_write_that_was_dropped_is_never_confirmed() {
    let folder = Folder::new("dropped");
    let old = Member::start(&["--ack-timeout-ms", "30000"]);
    let mut new = Member::durable(&folder, &["--replica-of", &old.url()]);
    old.fill(0..10, 10);
    assert_follows(&new, &old);
    new.wait_for_disk();
    new.kill();
    wait_for("the replica to leave", || {
        old.partition()["replicas"] == json!([])
    });
    // It left just now, and is waited for.
    let mut writer = old.connect();
    writer.send(&request_bytes(
        "PUT",
        "/kv/dropped",
        &["X-Min-Acks: 1"],
        b"v",
    ));
    old.settle();
    assert_eq!(old.version(), 11);
    // The old leader cannot be asked, and hears of its successor when it goes on.
    old.freeze();
    new = Member::durable(&folder, &["--await-assignment"]);
    new.lead(1);
    wait_for("the new leader", || new.get("/leader").status == 200);
    new.fill(0..10, 20);
    old.thaw();
    assert_error(&writer.response(false), 504, "role_changed");
    assert_follows(&old, &new);
    assert_eq!(old.get("/kv/dropped").status, 404);
}

#[test]
fn the_epoch_decides_which_role_a_node_has() {
    let node = Member::start(&[]);
    assert_eq!(node.put("k", &[], "v").status, 201);
    let leader = |epoch: u64| json!({"id": 0, "role": "leader", "epoch": epoch});
    let replica = |epoch: u64| json!({"id": 0, "role": "replica", "leader": "http://127.0.0.1:1", "epoch": epoch});
    let history = || node.partition()["historyId"].clone();
    let first_history = history();
    for _ in 0..2 {
        let response = node.assign(&leader(5));
        let expected =
            json!({"success": true, "id": 0, "role": "leader", "epoch": 5, "version": 1});
        assert_eq!((response.status, response.plain_json()), (200, expected));
    }
    for outdated in [leader(4), replica(4), leader(0), replica(0)] {
        assert_error(&node.assign(&outdated), 409, "epoch_outdated");
    }
    assert_error(&node.assign(&replica(5)), 409, "epoch_taken");
    assert_eq!(node.assign(&leader(7)).status, 200);
    assert_error(&node.assign(&leader(5)), 409, "epoch_outdated");
    assert_eq!(
        (&node.partition()["role"], &node.partition()["epoch"]),
        (&json!("leader"), &json!(7))
    );
    let raised_history = history();
    assert_ne!(
        raised_history, first_history,
        "each epoch of a leader has a history of its own"
    );
    assert_eq!(node.put("k", &[], "v").status, 200);

    assert_eq!(node.assign(&replica(8)).status, 200);
    assert_error(&node.assign(&leader(8)), 409, "epoch_taken");
    assert_error(&node.assign(&leader(7)), 409, "epoch_outdated");
    assert_error(&node.put("k", &[], "v"), 421, "not_leader");
    assert_eq!(node.assign(&replica(8)).status, 200);
    // Without an epoch a promotion takes the next one.
    assert_eq!(
        node.assign(&json!({"id": 0, "role": "leader"})).json()["epoch"],
        9
    );
    assert_ne!(history(), raised_history);
    assert_eq!(node.put("k", &[], "v").status, 200);
}

#[test]
fn malformed_assignments_are_refused() {
    let node = Member::start(&[]);
    for body in [
        "",
        "x",
        "[]",
        "{}",
        r#"{"id":0}"#,
        r#"{"role":"leader"}"#,
        r#"{"id":0,"role":"king"}"#,
        r#"{"id":-1,"role":"leader"}"#,
        r#"{"id":4294967296,"role":"leader"}"#,
        r#"{"id":"0","role":"leader"}"#,
        r#"{"id":0,"id":0,"role":"leader"}"#,
        r#"{"id":0,"role":"leader","epoch":-1}"#,
        r#"{"id":0,"role":"leader","epoch":18446744073709551616}"#,
        r#"{"id":0,"role":"leader"}x"#,
        r#"{"id":0,"role":"replica"}"#,
        r#"{"id":0,"role":"replica","leader":""}"#,
        r#"{"id":0,"role":"replica","leader":"http://127.0.0.1"}"#,
        r#"{"id":0,"role":"replica","leader":"127.0.0.1:0"}"#,
        r#"{"id":0,"role":"replica","leader":"http://127.0.0.1:x"}"#,
        r#"{"id":0,"role":"replica","leader":"https://127.0.0.1:1"}"#,
        r#"{"id":0,"role":"replica","leader":"http://127.0.0.1:1/x"}"#,
        r#"{"id":0,"role":"replica","leader":"http://a b:1"}"#,
        r#"{"id":0,"role":"replica","leader":"http://a\r\nX-Evil: 1:1"}"#,
    ] {
        let response = node.request("POST", "/partition/assign", &[], body.as_bytes());
        assert_error(&response, 400, "bad_request");
    }
    let long = format!(
        r#"{{"id":0,"role":"leader","more":"{}"}}"#,
        "x".repeat(20_000)
    );
    assert_error(
        &node.request("POST", "/partition/assign", &[], long.as_bytes()),
        413,
        "body_too_large",
    );
    assert_eq!(
        node.request("GET", "/partition/assign", &[], b"").status,
        405
    );
    assert_eq!(
        (&node.partition()["role"], &node.partition()["epoch"]),
        (&json!("leader"), &json!(0))
    );
    assert_eq!(node.get("/health").json()["partitions"], json!([0]));
    // Fields of other controllers do no harm.
    let more = br#"{"id":0,"role":"leader","replicas":["http://127.0.0.1:1"],"else":{}}"#;
    assert_eq!(
        node.request("POST", "/partition/assign", &[], more).status,
        200
    );
}

/// A node that is told to follow itself would dial itself for ever.
#[test]
fn a_node_is_not_made_to_follow_itself() {
    let node = Member::start(&["--advertise", "db-0.example:9001"]);
    let port = node.address.port();
    for leader in [
        node.url(),
        node.address.to_string(),
        format!("http://localhost:{port}/"),
        format!("[::ffff:127.0.0.1]:{port}"),
        "http://db-0.example:9001".to_owned(),
    ] {
        let order = json!({"id": 0, "role": "replica", "leader": leader, "epoch": 9});
        let refused = node.assign(&order);
        assert_error(&refused, 400, "own_address");
        assert!(refused.text().contains("this node itself"));
    }
    let partition = node.partition();
    assert_eq!(
        (&partition["role"], &partition["epoch"]),
        (&json!("leader"), &json!(0))
    );
    // A field that means nothing is named in the answer, and the others count.
    let order = json!({"id": 0, "role": "leader", "epoc": 10, "zone": {"name": "a"}});
    let answer = node.assign(&order).json();
    assert_eq!(answer["ignored"], json!(["epoc", "zone"]), "{answer}");
    let order = json!({"id": 0, "role": "leader"});
    assert_eq!(node.assign(&order).json().get("ignored"), None);
    // Another node of the same machine may be followed.
    let other = Member::start(&[]);
    other.lead(9);
    assert_eq!(other.put("k", &[], "v").status, 201);
    node.follow(&other, 9);
    assert_follows(&node, &other);

    let address = own_address().replace(":0", ":21003");
    let mut started = command();
    started.args(["--listen", &address, "--replica-of", &address]);
    let Err((status, log)) = Node::try_spawn(started) else {
        panic!("it starts");
    };
    assert_eq!(status.code(), Some(2));
    assert!(log.contains("that is this node itself"), "{log}");
}

#[test]
fn roles_survive_a_restart() {
    let folders = ["leader", "replica"].map(|name| Folder::new(&format!("roles-{name}")));
    let any_port = own_address();
    let mut leader = Member::durable(&folders[0], &["--listen", &any_port]);
    let place = leader.address.to_string();
    let mut replica = Member::durable(&folders[1], &["--replica-of", &place]);
    assert_eq!(leader.put("k", &[], "v").status, 201);
    assert_follows(&replica, &leader);
    leader.lead(3);
    replica.follow(&leader, 3);
    assert_follows(&replica, &leader);
    for how in ["KILL", "TERM"] {
        for node in [&mut leader, &mut replica] {
            node.signal(how);
            node.wait();
        }
        replica = Member::durable(&folders[1], &[]);
        let now = replica.partition();
        assert_eq!(
            (&now["role"], &now["epoch"]),
            (&json!("replica"), &json!(3)),
            "{how}"
        );
        assert_eq!(now["leader"]["address"], format!("http://{place}"));
        assert_error(&replica.put("k", &[], "w"), 421, "not_leader");
        // What a controller has said counts for more than the command line.
        let arguments = [
            "--listen",
            &place,
            "--replication-listen",
            &any_port,
            "--replica-of",
            "127.0.0.1:1",
        ];
        leader = Member::durable(&folders[0], &arguments);
        let now = leader.partition();
        assert_eq!(
            (&now["role"], &now["epoch"]),
            (&json!("leader"), &json!(3)),
            "{how}"
        );
        assert!(leader.put("k", &["X-Min-Acks: 0"], how).status < 300);
        assert_follows(&replica, &leader);
        assert_error(
            &leader.assign(&json!({"id": 0, "role": "leader", "epoch": 2})),
            409,
            "epoch_outdated",
        );
    }
}

#[test]
fn a_node_can_wait_for_its_role() {
    let folder = Folder::new("await");
    let assert_waits = |node: &Member| {
        for target in ["/kv/k", "/get?key=k"] {
            assert_error(&node.get(target), 503, "unassigned");
        }
        assert_error(&node.put("k", &[], "v"), 503, "unassigned");
        for target in ["/readyz", "/leader", "/replica"] {
            assert_eq!(node.get(target).status, 503, "{target}");
        }
        assert!(
            node.get("/readyz").text().starts_with("unassigned"),
            "{}",
            node.get("/readyz").text()
        );
        let health = node.get("/health");
        assert_eq!(
            (health.status, &health.json()["role"]),
            (200, &json!("unassigned"))
        );
    };
    let in_memory = Member::start(&["--await-assignment"]);
    assert_waits(&in_memory);
    let mut durable = Member::durable(&folder, &["--await-assignment"]);
    assert_waits(&durable);
    for node in [&in_memory, &durable] {
        node.lead(1);
        assert_eq!(node.put("k", &[], "v").status, 201);
        assert_eq!(node.get("/leader").status, 200);
    }
    durable.kill();
    durable = Member::durable(&folder, &["--await-assignment"]);
    assert_waits(&durable);
    assert_error(
        &durable.assign(&json!({"id": 0, "role": "leader", "epoch": 0})),
        409,
        "epoch_outdated",
    );
    durable.lead(1);
    assert_eq!(durable.get("/kv/k").text(), "v");
}

#[test]
fn partitions_have_data_and_roles_of_their_own() {
    let folders = ["one", "two"].map(|name| Folder::new(&format!("partitions-{name}")));
    let any_port = own_address();
    let mut one = Member::durable(&folders[0], &["--listen", &any_port, "--await-assignment"]);
    let place = one.address.to_string();
    let mut two = Member::durable(&folders[1], &["--await-assignment"]);
    let lead = |node: &Member, id: u32| {
        let response = node.assign(&json!({"id": id, "role": "leader", "epoch": 1}));
        assert_eq!(response.status, 200, "{}", response.text());
    };
    let put = |node: &Member, id: u32, value: &str| {
        node.put("k", &[&format!("X-Partition-ID: {id}")], value)
            .status
    };
    let read = |node: &Member, id: u32| {
        node.request("GET", "/kv/k", &[&format!("X-Partition-ID: {id}")], b"")
            .text()
    };
    lead(&one, 7);
    assert_eq!(one.put("k", &[], "the only one is meant").status, 201);
    lead(&one, 1);
    lead(&two, 2);
    assert_error(&one.put("k", &[], "v"), 404, "partition_not_found");
    assert_eq!(put(&one, 7, "seven"), 200);
    assert_eq!(put(&one, 1, "one"), 201);
    assert_eq!(put(&two, 2, "two"), 201);
    assert_eq!(put(&one, 3, "three"), 404);
    assert_error(
        &one.put("k", &["X-Partition-ID: x"], "v"),
        400,
        "bad_request",
    );
    let follow =
        json!({"id": 7, "role": "replica", "leader": format!("http://{place}"), "epoch": 1});
    assert_eq!(two.assign(&follow).status, 200);
    assert_eq!(
        two.assign(&json!({"id": 2, "role": "replica", "leader": one.url(), "epoch": 1}))
            .status,
        409
    );

    for round in 0..2 {
        wait_for("partition 7 to follow", || {
            read(&two, 7) == "seven" && two.get("/readyz").status == 200
        });
        assert_eq!(
            (
                read(&one, 1).as_str(),
                read(&one, 7).as_str(),
                read(&two, 2).as_str()
            ),
            ("one", "seven", "two")
        );
        assert_eq!(
            one.get("/health").json()["partitions"],
            json!([1, 7]),
            "{round}"
        );
        let health = two.get("/health").json();
        // Neither of the two is the one that is meant without a number.
        let state = |node: &Member, id: u32| {
            let health = node.get(&format!("/health?partition={id}")).json();
            without_tokens(health["partitionStates"].clone())
        };
        let listed = health["partitionStates"].as_array().cloned();
        assert_eq!(listed.map(|states| states.len()), Some(2), "{health}");
        assert_eq!(
            state(&two, 2),
            json!([{"id": 2, "role": "leader", "state": "leading", "epoch": 1, "version": 1}])
        );
        assert_eq!(state(&two, 7)[0]["role"], "replica");
        assert_eq!(state(&two, 3), json!([]));
        assert_eq!(
            (&health["position"], &health["epoch"]),
            (&Json::Null, &Json::Null)
        );
        assert_eq!(
            (&health["partitions"], &health["role"]),
            (&json!([2, 7]), &json!("mixed")),
            "{round}"
        );
        assert_eq!(
            one.get("/digest?partition=7").json(),
            two.get("/digest?partition=7").json()
        );
        assert_eq!(put(&two, 7, "x"), 421);
        assert_eq!(
            (
                two.get("/leader?partition=2").status,
                two.get("/leader?partition=7").status
            ),
            (200, 503)
        );
        assert_eq!(put(&one, 7, "seven"), 200);
        one.kill();
        two.kill();
        two = Member::durable(&folders[1], &[]);
        one = Member::durable(
            &folders[0],
            &["--listen", &place, "--replication-listen", &any_port],
        );
    }
}

/// What `/health` tells at its top is about partition 0, which requests mean that name none; the
/// list beside it is bounded, and reaches every partition by its number.
#[test]
fn health_tells_of_each_partition() {
    let node = Member::start(&[]);
    for id in 1..150 {
        let order =
            json!({"id": id, "role": "replica", "leader": "http://127.0.0.1:1", "epoch": id});
        let assigned = node.assign(&order).json();
        assert_eq!(without_tokens(assigned)["epoch"], id);
    }
    assert_eq!(node.put("k", &[], "v").status, 201);
    let health = node.get("/health").json();
    assert_eq!(
        (&health["role"], &health["version"], &health["epoch"]),
        (&json!("leader"), &json!(1), &json!(0))
    );
    assert_eq!(health["position"], node.partition()["position"]);
    let states = health["partitionStates"].as_array().expect("a list");
    assert_eq!((states.len(), &states[99]["id"]), (100, &json!(99)));
    let last = node.get("/health?partition=149").json();
    assert_eq!(last["partitionStates"][0]["epoch"], 149);
    assert_error(&node.get("/health?partition=x"), 400, "bad_request");
}

#[test]
fn a_partition_that_is_being_made_knows_its_epoch() {
    let folder = Folder::new("made");
    let node = Member::durable(&folder, &["--await-assignment"]);
    let mut client = node.connect();
    let assignments = [
        json!({"id": 1, "role": "leader", "epoch": 5}),
        json!({"id": 1, "role": "leader", "epoch": 4}),
        json!({"id": 1, "role": "replica", "leader": "http://127.0.0.1:1", "epoch": 5}),
    ];
    let assign = |assignment: &Json| {
        request_bytes(
            "POST",
            "/partition/assign",
            &[],
            assignment.to_string().as_bytes(),
        )
    };
    client.send(&assignments.iter().flat_map(assign).collect::<Vec<u8>>());
    assert_eq!(client.response(false).status, 200);
    assert_error(&client.response(false), 409, "epoch_outdated");
    assert_error(&client.response(false), 409, "epoch_taken");
    assert_eq!(
        (&node.partition()["role"], &node.partition()["epoch"]),
        (&json!("leader"), &json!(5))
    );
}

/// Asserts that a replica keeps what it holds, is not ready, and says what can be done.
#[track_caller]
fn assert_keeps(replica: &Member, digest: &Json, words: &str) {
    wait_for(words, || {
        let ready = replica.get("/readyz");
        ready.status == 503
            && ready.text().contains(words)
            && ready.text().starts_with("not in sync: ")
    });
    assert!(
        replica
            .get("/readyz")
            .text()
            .contains("Make this node the leader"),
        "{}",
        replica.get("/readyz").text()
    );
    assert_eq!(replica.get("/replica").status, 503);
    assert_eq!(&replica.digest(), digest);
    replica.log.assert_has(words);
}

/// A leader that has lost its data and is back at its place, empty; and its replica, with the
/// digest of what that holds.
fn emptied_leader() -> (Member, Member, Json) {
    let any_port = own_address();
    let mut leader = Member::start(&["--listen", &any_port]);
    leader.fill(0..200, 100);
    let replica = Member::replica_of(&leader, &[]);
    assert_follows(&replica, &leader);
    let digest = replica.digest();
    let place = leader.address.to_string();
    leader.kill();
    leader = Member::start(&["--listen", &place, "--replication-listen", &any_port]);
    (leader, replica, digest)
}

#[test]
fn an_empty_leader_does_not_empty_its_replica() {
    let (leader, replica, digest) = emptied_leader();
    assert_keeps(
        &replica,
        &digest,
        "the leader began empty and this replica holds 200 versions: its data is kept",
    );
    assert_eq!(
        replica.get("/kv/key-7").status,
        200,
        "what it has is served"
    );
    // Told to lead, it first fetches what the replica holds.
    leader.lead(1);
    replica.follow(&leader, 1);
    assert_follows(&replica, &leader);
    assert_eq!(leader.digest()["digest"], digest["digest"]);
}

#[test]
fn a_leader_with_other_data_takes_over_only_with_a_higher_epoch() {
    let (leader, replica, digest) = emptied_leader();
    leader.fill(0..300, 50);
    assert_keeps(
        &replica,
        &digest,
        "the leader began empty and this replica holds 200 versions",
    );
    leader.lead(1);
    replica.follow(&leader, 1);
    assert_follows(&replica, &leader);
    assert_eq!(replica.get("/kv/key-250").body, value_of(250, 50));
    replica
        .log
        .assert_has("which the leader's history lacks, are dropped");
}

#[test]
fn a_leader_that_hears_of_a_higher_epoch_leads_no_more() {
    let folder = Folder::new("deposed");
    let mut old = Member::durable(&folder, &[]);
    let new = Member::replica_of(&old, &[]);
    let third = Member::replica_of(&old, &[]);
    old.fill(0..20, 10);
    assert_follows(&new, &old);
    assert_follows(&third, &old);
    // A replica that a controller has told of an epoch, and of no new leader.
    third.follow(&old, 5);
    wait_for("the old leader to hear", || {
        old.get("/leader").status == 503
    });
    let refused = old.put("k", &[], "v");
    assert_error(&refused, 421, "not_leader");
    assert_eq!(
        refused.header("X-Leader"),
        None,
        "it has not heard which node leads"
    );
    old.log
        .assert_has("epoch 5 has begun elsewhere: this node leads no more");
    let ready = old.get("/readyz");
    assert_eq!(
        (ready.status, ready.text().as_str()),
        (503, "not in sync: no leader is known: assign one\n")
    );
    old.wait_for_disk();
    old.kill();
    old = Member::durable(&folder, &[]);
    assert_eq!(
        (&old.partition()["role"], &old.partition()["epoch"]),
        (&json!("replica"), &json!(5))
    );
    assert_error(&old.put("k", &[], "v"), 421, "not_leader");
    new.lead(5);
    for node in [&old, &third] {
        node.follow(&new, 5);
        assert_follows(node, &new);
    }

    // One that followed before it led hears of its successor from that, and follows it.
    old.lead(6);
    wait_for("the successor to be followed", || {
        new.get("/leader").status == 503 && new.get("/replica").status == 200
    });
    assert_error(&new.put("k", &[], "v"), 421, "not_leader");
    assert_follows(&new, &old);
}

#[test]
fn replicas_feed_replicas() {
    let folder = Folder::new("chain");
    let any_port = own_address();
    let first = Member::start(&[]);
    first.fill(0..1_000, 100);
    let mut middle = Member::durable(
        &folder,
        &["--listen", &any_port, "--replica-of", &first.url()],
    );
    let place = middle.address.to_string();
    let last = Member::replica_of(&middle, &[]);
    assert_follows(&middle, &first);
    assert_follows(&last, &first);
    first.fill(0..500, 200);
    assert_follows(&last, &first);
    assert_error(&last.put("k", &[], "v"), 421, "not_leader");
    let digest = last.digest();

    middle.kill();
    first.fill(500..700, 200);
    assert_eq!(last.digest(), digest);
    assert_eq!(last.get("/kv/key-1").status, 200);
    let arguments = [
        "--listen",
        &place,
        "--replication-listen",
        &any_port,
        "--replica-of",
        &first.url(),
    ];
    middle = Member::durable(&folder, &arguments);
    assert_follows(&last, &first);
    assert_follows(&middle, &first);
    first.fill(0..100, 300);
    assert_follows(&last, &first);
    assert_eq!(middle.log.count(GETS_SNAPSHOT), 0, "{}", middle.log.text());
    assert_eq!(
        first.log.count(GETS_SNAPSHOT),
        0,
        "its log was all there: {}",
        first.log.text()
    );
}

#[test]
fn a_leader_is_found_by_name_and_by_address() {
    let leader = Member::start(&["--allowed-host", "127.1"]);
    leader.fill(0..10, 10);
    let port = leader.address.port();
    for (name, address) in [
        (
            format!("localhost:{port}"),
            format!("http://localhost:{port}"),
        ),
        (
            format!("http://127.0.0.1:{port}"),
            format!("http://127.0.0.1:{port}"),
        ),
        (
            format!("http://localhost:{port}/"),
            format!("http://localhost:{port}"),
        ),
    ] {
        let replica = Member::start(&["--replica-of", &name]);
        assert_follows(&replica, &leader);
        assert_eq!(
            replica.put("k", &[], "v").header("X-Leader"),
            Some(address.as_str()),
            "{name}"
        );
    }
    // This name of the node itself is seen through only once it is dialed.
    let itself = json!({"id": 0, "role": "replica", "leader": format!("127.1:{port}"), "epoch": 1});
    assert_eq!(leader.assign(&itself).status, 200);
    wait_for("the reason", || {
        leader
            .get("/readyz")
            .text()
            .contains("this is the same node")
    });
    let lost = Member::start(&["--replica-of", "no-such-host.invalid:1"]);
    wait_for("the reason", || {
        lost.get("/readyz")
            .text()
            .contains("no-such-host.invalid:1 cannot be reached")
    });
}

#[test]
fn a_leader_may_come_later_and_come_back() {
    let folder = Folder::new("later");
    let any_port = own_address();
    let mut leader = Member::start(&["--listen", &any_port]);
    let place = leader.address.to_string();
    leader.kill();
    let replica = Member::start(&["--replica-of", &place]);
    wait_for("the reason", || {
        replica
            .get("/readyz")
            .text()
            .contains(&format!("http://{place} cannot be reached"))
    });
    assert_eq!(replica.get("/readyz").status, 503);
    let arguments = ["--listen", &place, "--replication-listen", &any_port];
    leader = Member::durable(&folder, &arguments);
    leader.fill(0..1_000, 100);
    assert_follows(&replica, &leader);
    for round in 0..2 {
        leader.kill();
        wait_for("the replica to notice", || {
            replica.partition()["leader"]["state"] == "connecting"
        });
        assert_eq!(replica.get("/readyz").status, 200, "it serves what it has");
        assert_eq!(
            replica.get("/replica?max_lag=1000").status,
            503,
            "nobody knows how far it is behind"
        );
        leader = Member::durable(&folder, &arguments);
        leader.fill(round * 100..round * 100 + 300, 150);
        assert_follows(&replica, &leader);
        assert_eq!(leader.log.count(GETS_SNAPSHOT), 0, "{}", leader.log.text());
    }
}

/// With a memtable larger than all log that replicas may pin, there is that much log, whichever
/// reader needs it.
#[test]
fn a_large_memtable_is_not_held_against_replicas() {
    let leader = Member::start(&["--memtable-bytes", "256MiB"]);
    let replica = Member::replica_of(&leader, &["--memtable-bytes", "256MiB"]);
    assert_follows(&replica, &leader);
    leader.fill(0..80, 1 << 20);
    let response = leader.put("k", &["X-Min-Acks: 1"], "v");
    assert_eq!(response.status, 201, "{}", response.text());
    leader.fill(0..10, 100);
    assert_follows(&replica, &leader);
    assert_eq!(
        leader.log.count("pins more log"),
        0,
        "{}",
        leader.log.text()
    );
}

const TOKEN: &str = "correct-horse-battery-staple";

/// What a peer sends that wants to be fed.
fn hello(token: &str) -> Hello<'_> {
    Hello {
        protocol_version: PROTOCOL_MIN,
        partition: 0,
        node_id: NodeId([7; 16]),
        epoch: 0,
        history: HistoryId([0; 16]),
        position: LogPosition::default(),
        token: token.as_bytes(),
    }
}

/// Where a node without data says that it stands.
fn state(intent: Intent, epoch: u64) -> PeerState {
    PeerState {
        intent,
        epoch,
        ordered_epoch: epoch,
        data_epoch: epoch,
        data_ordered_epoch: epoch,
        last_version: 0,
        lineage: Lineage::new(HistoryId([0; 16])),
        address: String::new(),
    }
}

fn encoded(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        frame.encode(&mut bytes);
    }
    bytes
}

/// A connection to a node's replication socket.
fn dial(node: &Member) -> TcpStream {
    let port = node.get("/health").json()["replicationPort"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok());
    let stream = TcpStream::connect((node.address.ip(), port.expect("a port"))).expect("connect");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("set a time-out");
    stream
}

/// Everything that comes until the connection ends, however that is.
fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    match stream.read_to_end(&mut received) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("it is not closed"),
        _ => received,
    }
}

/// Waits until a node has said why it has ended a connection.
#[track_caller]
fn assert_ended(node: &Member, stream: &TcpStream, reason: &str) {
    let address = stream.local_addr().expect("an address");
    node.log
        .assert_has(&format!("replication with {address}: {reason}"));
}

#[test]
fn hostile_replicas_are_turned_away() {
    let folder = Folder::new("hostile");
    std::fs::write(folder.join("token"), TOKEN).expect("write the token");
    let token_file = folder.join("token");
    let leader = Member::start(&["--token-file", text(&token_file)]);
    let bearer = format!("Authorization: Bearer {TOKEN}");
    assert_eq!(leader.put("k", &[&bearer], "v").status, 201);
    let status = leader.request("GET", "/status", &[&bearer], b"").json();
    let history = status["partitions"][0]["historyId"]
        .as_str()
        .and_then(|id| id.parse().ok())
        .expect("an id");
    let good = hello(TOKEN);
    let of = |hello: Hello<'_>| encoded(&[Frame::Hello(hello)]);
    let head = |len: u32| [&len.to_le_bytes()[..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat();
    let damaged = |at: usize| {
        let mut bytes = of(good);
        bytes[at] ^= 1;
        bytes
    };
    let future = LogPosition {
        version: 1_000_000,
        checksum: 1,
    };
    let ack = Ack {
        applied_version: u64::MAX,
        durable_version: u64::MAX,
    };
    for (bytes, reason) in [
        (
            vec![b'x'; 5_000],
            "the peer sent a frame with an impossible head",
        ),
        (
            b"GET /kv/k HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            "the peer sent a frame with an impossible head",
        ),
        (
            head(u32::MAX),
            "the peer sent a frame with an impossible head",
        ),
        (
            head(100_000),
            "the peer sent a frame with an impossible head",
        ),
        (
            damaged(20),
            "the peer sent a frame whose checksum does not hold",
        ),
        (
            damaged(4),
            "the peer sent a frame whose checksum does not hold",
        ),
        (encoded(&[Frame::Ack(ack)]), "a stranger did not say hello"),
        (
            encoded(&[Frame::Records(b"x")]),
            "a stranger did not say hello",
        ),
        (
            of(hello("")),
            "a replica is turned away: the token is missing or wrong",
        ),
        (
            of(hello("wrong-horse-battery-staple")),
            "a replica is turned away: the token is missing or wrong",
        ),
        (
            of(hello(&TOKEN[1..])),
            "a replica is turned away: the token is missing or wrong",
        ),
        // The token comes first: no stranger ends its time as leader.
        (
            of(Hello {
                epoch: u64::MAX,
                ..hello("wrong")
            }),
            "a replica is turned away: the token is missing or wrong",
        ),
        (
            of(Hello {
                protocol_version: 0,
                ..good
            }),
            "a replica is turned away: this node speaks protocol 1 to 2",
        ),
        // A newer protocol: more is to follow the hello.
        (
            encoded(&[
                Frame::Hello(Hello {
                    protocol_version: u16::MAX,
                    ..good
                }),
                Frame::Ack(ack),
            ]),
            "a stranger did not say hello",
        ),
        (
            encoded(&[
                Frame::Hello(Hello {
                    protocol_version: PROTOCOL_VERSION,
                    ..good
                }),
                Frame::PeerState(state(Intent::Follow, 7)),
            ]),
            "a node contradicts its own hello",
        ),
        (
            encoded(&[
                Frame::Hello(Hello {
                    protocol_version: PROTOCOL_VERSION,
                    ..good
                }),
                Frame::PeerState(state(Intent::Follow, 0)),
                Frame::PeerState(state(Intent::Grant, 0)),
            ]),
            "the peer told its state out of its turn",
        ),
        (
            of(Hello {
                epoch: u64::MAX,
                ..good
            }),
            "a replica is turned away: epoch 18446744073709551615 is not believed",
        ),
        (
            of(Hello {
                partition: 3,
                ..good
            }),
            "a replica is turned away: partition 3 is not here",
        ),
        (
            of(Hello {
                history,
                position: future,
                ..good
            }),
            "a replica is turned away: this replica is at version 1000000",
        ),
        (
            of(Hello {
                history,
                position: LogPosition {
                    version: 1,
                    checksum: 1,
                },
                ..good
            }),
            "a replica is turned away: this replica has another record of the same version",
        ),
        (
            encoded(&[Frame::Hello(good), Frame::Hello(good)]),
            "the replica sent what only a leader sends",
        ),
        (
            encoded(&[Frame::Hello(good), Frame::Records(b"x")]),
            "the replica sent what only a leader sends",
        ),
        (
            encoded(&[Frame::Hello(good), Frame::Ack(ack)]),
            "the replica confirms what it cannot have",
        ),
    ] {
        let start = Instant::now();
        let mut stream = dial(&leader);
        stream.write_all(&bytes).expect("send");
        let received = read_all(&mut stream);
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{reason}: {:?}",
            start.elapsed()
        );
        assert_ended(&leader, &stream, reason);
        if reason.contains("is turned away") {
            let mut input = &received[..];
            let mut reader = FrameReader::new(DATA_MAX_BYTES);
            let refusal = reader.next(&mut input);
            assert!(
                matches!(refusal, Ok(Some(Frame::Refusal(refusal))) if reason.contains(&refusal.text[..20]))
            );
        }
        assert_eq!(leader.request("GET", "/kv/k", &[&bearer], b"").text(), "v");
    }
    assert_eq!(leader.put("k", &[&bearer], "w").status, 200, "it leads");
    assert!(
        !leader.log.text().contains(&TOKEN[1..]),
        "the token is in the log"
    );
    let replica = Member::start(&[
        "--replica-of",
        &leader.url(),
        "--token-file",
        text(&token_file),
    ]);
    wait_for("a replica with the token", || {
        replica.request("GET", "/kv/k", &[&bearer], b"").text() == "w"
    });
}

/// Takes as long as a node listens to silence.
#[test]
fn silent_peers_are_let_go() {
    let leader = Member::start(&[]);
    leader.fill(0..100, 100);
    let before_kib = leader.memory_kib("VmRSS");
    let greeting = encoded(&[Frame::Hello(hello(""))]);
    let no_hello = "a stranger did not say hello in time";
    let peers = [
        (&greeting[..0], 2, no_hello),
        (&greeting[..7], 2, no_hello),
        (&greeting[..40], 2, no_hello),
        (&greeting[..], 10, "the replica was silent for 10000 ms"),
    ];
    let start = Instant::now();
    let mut streams = peers.map(|(bytes, _, _)| {
        let mut stream = dial(&leader);
        stream.write_all(bytes).expect("send");
        stream
    });
    // One that does not read either.
    for _ in 0..8 {
        leader.fill(0..2, 1 << 20);
    }
    for (stream, (_, seconds, reason)) in streams.iter_mut().zip(peers) {
        read_all(stream);
        assert!(
            (seconds - 1..seconds + 5).contains(&start.elapsed().as_secs()),
            "{reason}: {:?}",
            start.elapsed()
        );
        assert_ended(&leader, stream, reason);
    }
    assert_eq!(leader.partition()["replicas"], json!([]));
    let grown_kib = leader.memory_kib("VmRSS").saturating_sub(before_kib);
    assert!(grown_kib < 40 * 1024, "{grown_kib} KiB more");
}

#[test]
fn a_replica_that_does_not_read_is_let_go_and_no_writer_waits_for_it() {
    let leader = Member::start(&[]);
    let replica = Member::replica_of(&leader, &[]);
    assert_follows(&replica, &leader);
    let before_kib = leader.memory_kib("VmRSS");
    let mut idle = dial(&leader);
    idle.write_all(&encoded(&[Frame::Hello(hello(""))]))
        .expect("send");
    let mut largest_kib = 0;
    for round in 0..12 {
        leader.pipeline(0..8, |_| put_bytes(round, 1 << 20));
        largest_kib = largest_kib.max(leader.memory_kib("VmRSS").saturating_sub(before_kib));
        assert_eq!(
            leader.put("k", &["X-Min-Acks: 1"], "v").status,
            if round == 0 { 201 } else { 200 }
        );
    }
    assert_ended(
        &leader,
        &idle,
        "the replica pins more log than is kept for one: it starts over",
    );
    read_all(&mut idle);
    eprintln!("at most {largest_kib} KiB more");
    // 64 MiB may be pinned, 12 are there to stay, 16 are kept for replicas that come back.
    assert!(largest_kib < 112 * 1024, "{largest_kib} KiB more");
    assert_follows(&replica, &leader);
    assert_eq!(
        replica.log.count("in sync with its leader"),
        1,
        "the other was fed on: {}",
        replica.log.text()
    );
    wait_for("the memory to be given back", || {
        leader.memory_kib("VmRSS").saturating_sub(before_kib) < 48 * 1024
    });
}

#[test]
fn connections_that_come_and_go_leave_nothing_behind() {
    let leader = Member::start(&[]);
    leader.fill(0..100, 100);
    let replica = Member::replica_of(&leader, &[]);
    assert_follows(&replica, &leader);
    let open_descriptors = || {
        std::fs::read_dir(format!("/proc/{}/fd", leader.pid()))
            .expect("read /proc")
            .count()
    };
    let (descriptors, before_kib) = (open_descriptors(), leader.memory_kib("VmRSS"));
    let address = dial(&leader).peer_addr().expect("an address");
    let greeting = encoded(&[Frame::Hello(hello(""))]);
    for number in 0..2_000 {
        let mut stream = TcpStream::connect(address).expect("connect");
        if number % 4 == 0 {
            stream
                .write_all(&greeting[..number % greeting.len()])
                .expect("send");
        }
        if number % 2 == 0 {
            // Closing then resets the connection.
            socket2::SockRef::from(&stream)
                .set_linger(Some(Duration::ZERO))
                .expect("set linger");
        }
    }
    wait_for("all descriptors to be closed", || {
        open_descriptors() <= descriptors
    });
    let grown_kib = leader.memory_kib("VmRSS").saturating_sub(before_kib);
    assert!(grown_kib < 8 * 1024, "{grown_kib} KiB stayed");
    leader.fill(0..100, 200);
    assert_follows(&replica, &leader);
    let next = Member::replica_of(&leader, &[]);
    assert_follows(&next, &leader);

    // As many as there are places: nobody else gets in, and everybody is served.
    let crowd: Vec<TcpStream> = (0..1_100)
        .map(|_| TcpStream::connect(address).expect("connect"))
        .collect();
    leader.fill(0..100, 300);
    assert_follows(&replica, &leader);
    drop(crowd);
    let late = Member::replica_of(&leader, &[]);
    assert_follows(&late, &leader);
}

#[test]
fn a_controller_need_not_speak_of_epochs() {
    let folders = ["one", "two"].map(|name| Folder::new(&format!("without-epoch-{name}")));
    let any_port = own_address();
    let mut one = Member::durable(&folders[0], &["--listen", &any_port, "--await-assignment"]);
    let place = one.address.to_string();
    let mut two = Member::durable(&folders[1], &["--await-assignment"]);
    for id in [3, 4] {
        assert_eq!(
            one.assign(&json!({"id": id, "role": "leader", "replicas": [two.url()]}))
                .status,
            200
        );
        assert_eq!(
            two.assign(&json!({"id": id, "role": "replica", "leader": one.url()}))
                .status,
            200
        );
    }
    // One whose leader was never there has heard of no epoch.
    assert_eq!(
        two.assign(&json!({"id": 5, "role": "replica", "leader": "http://127.0.0.1:1"}))
            .status,
        200
    );
    let put = |node: &Member, value: &str| {
        node.put("k", &["X-Partition-ID: 4", "X-Min-Acks: 1"], value)
            .status
    };
    wait_for("a write that is confirmed", || put(&one, "v") < 300);
    for _ in 0..2 {
        one.kill();
        two.kill();
        one = Member::durable(
            &folders[0],
            &["--listen", &place, "--replication-listen", &any_port],
        );
        two = Member::durable(&folders[1], &[]);
        assert_eq!(
            (
                &one.get("/health").json()["role"],
                &two.get("/health").json()["role"]
            ),
            (&json!("leader"), &json!("replica"))
        );
        wait_for("the replica to follow", || {
            two.get("/replica?partition=4").status == 200
        });
        assert_eq!(put(&two, "v"), 421);
        assert_eq!(put(&one, "v"), 200);
    }
}

/// A leader that is none: it tells its port, and answers every hello in the same way. Returns its
/// address.
fn false_leader(answer: Vec<u8>, says_more: bool) -> String {
    let http = TcpListener::bind("127.0.0.1:0").expect("listen");
    let for_replicas = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = format!("http://{}", http.local_addr().expect("an address"));
    let port = for_replicas.local_addr().expect("an address").port();
    // Both end with the test; connections may break at any time.
    thread::spawn(move || {
        for mut stream in http.incoming().flatten() {
            let body = format!("{{\"replicationPort\":{port}}}");
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    thread::spawn(move || {
        for mut stream in for_replicas.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
            if says_more {
                let _ = stream.read_to_end(&mut Vec::new());
            }
        }
    });
    address
}

#[test]
fn a_false_leader_does_no_harm() {
    let leader = Member::start(&[]);
    leader.fill(0..50, 100);
    leader.lead(1);
    let replica = Member::start(&["--await-assignment"]);
    replica.follow(&leader, 1);
    assert_follows(&replica, &leader);
    let digest = replica.digest();
    let before_kib = replica.memory_kib("VmRSS");
    let own = replica.partition()["historyId"]
        .as_str()
        .and_then(|id| id.parse::<HistoryId>().ok())
        .expect("an id");
    let ours = |epoch: u64| {
        Frame::Continue(Continue {
            epoch,
            last_version: 50,
            lineage: Lineage::new(own),
        })
    };
    let theirs = Lineage::new(HistoryId([8; 16])).begin(HistoryId([9; 16]), 60);
    // A controller named epoch 9 for its data, so it says.
    let ordered = Frame::PeerState(PeerState {
        last_version: 60,
        lineage: theirs.clone(),
        ..state(Intent::Tell, 9)
    });
    let other = Frame::Continue(Continue {
        epoch: 1,
        last_version: 90,
        lineage: theirs.clone(),
    });
    let snapshot = |epoch: u64, version: u64| {
        Frame::SnapshotStart(SnapshotStart {
            epoch,
            version,
            about_bytes: u64::MAX,
            lineage: theirs.clone(),
        })
    };
    let far = Frame::Heartbeat(Heartbeat {
        last_version: u64::MAX,
        time_ms: u64::MAX,
    });
    let evil = Frame::Refusal(Refusal {
        code: RefusalCode::Busy,
        text: "go\u{1b}[31m\r\naway",
    });
    let (noise, zeros) = (vec![0xa5; DATA_MAX_BYTES], vec![0; DATA_MAX_BYTES]);
    for (answer, reason) in [
        (
            noise.clone(),
            "the peer sent a frame with an impossible head",
        ),
        (
            encoded(&[Frame::Records(b"x")]),
            "the leader sent a frame out of its turn",
        ),
        (
            encoded(&[Frame::Hello(hello(""))]),
            "the leader sent a frame out of its turn",
        ),
        (
            encoded(&[ours(1), ours(1)]),
            "the leader sent a frame out of its turn",
        ),
        (
            encoded(&[ours(0)]),
            "the leader is of epoch 0, and epoch 1 has begun: assign it anew",
        ),
        (
            encoded(&[other]),
            "the leader goes on from what this node does not have",
        ),
        (
            encoded(&[ours(1), far, Frame::Records(&zeros)]),
            "the log does not continue what is here",
        ),
        (
            encoded(&[ours(1), Frame::Records(&noise)]),
            "the log does not continue what is here",
        ),
        (encoded(&[snapshot(1, 60)]), "this replica holds version 50"),
        (
            // No controller named the epoch.
            encoded(&[snapshot(9, 60)]),
            "this replica holds version 50",
        ),
        (
            encoded(&[snapshot(9, 0)]),
            "the leader began empty and this replica holds 50 versions",
        ),
        (
            encoded(&[
                ordered.clone(),
                snapshot(9, 60),
                Frame::SnapshotData(&noise),
            ]),
            "the snapshot is damaged",
        ),
        (
            encoded(&[
                ordered.clone(),
                snapshot(9, 60),
                Frame::SnapshotData(&zeros),
            ]),
            "the snapshot is damaged",
        ),
        (
            encoded(&[ordered.clone(), snapshot(9, 60), Frame::Records(&noise)]),
            "the leader sent a frame out of its turn",
        ),
        (encoded(&[evil]), "the leader refuses: go [31m  away"),
    ] {
        let address = false_leader(answer, true);
        let response =
            replica.assign(&json!({"id": 0, "role": "replica", "leader": address, "epoch": 1}));
        assert_eq!(response.status, 200, "{}", response.text());
        replica
            .log
            .assert_has(&format!("replication with {address}: {reason}"));
        assert_eq!(replica.digest(), digest, "{reason}");
        assert_eq!(replica.partition()["epoch"], 1, "{reason}");
    }
    // One that goes away in the middle of a snapshot.
    let address = false_leader(encoded(&[ordered, snapshot(9, 60)]), false);
    assert_eq!(
        replica
            .assign(&json!({"id": 0, "role": "replica", "leader": address, "epoch": 1}))
            .status,
        200
    );
    replica
        .log
        .assert_has(&format!("replication with {address}: the "));
    assert_eq!(replica.get("/kv/key-7").status, 200);
    assert_eq!(
        replica.get("/readyz").status,
        503,
        "of its data only a part may be what the leader has"
    );
    let grown_kib = replica.memory_kib("VmRSS").saturating_sub(before_kib);
    assert!(grown_kib < 16 * 1024, "{grown_kib} KiB more");
    replica.follow(&leader, 1);
    leader.fill(0..10, 50);
    assert_follows(&replica, &leader);
    assert_eq!(replica.partition()["pinnedSnapshots"], 0);
}

#[test]
fn a_replica_that_is_killed_while_it_takes_over_starts_over() {
    let folders = ["leader", "replica"].map(|name| Folder::new(&format!("takes-over-{name}")));
    let seed = std::env::var("DB_NODE_TEST_SEED").map_or_else(
        |_| fastrand::u64(..),
        |text| text.parse().expect("a number"),
    );
    eprintln!("DB_NODE_TEST_SEED={seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let any_port = own_address();
    let mut leader = Member::durable(&folders[0], &["--fsync", "never", "--listen", &any_port]);
    let place = leader.address.to_string();
    leader.fill(0..2_000, 1_000);
    leader.fill(2_000..2_006, 1 << 20);
    let mut replica = Member::durable(&folders[1], &["--replica-of", &leader.url()]);
    assert_follows(&replica, &leader);
    for round in 0..6 {
        // Each leads alone for a while; then one follows the other: all its data is replaced.
        leader.kill();
        replica.lead(2 * round + 1);
        assert_eq!(
            replica.put(&format!("only-{round}"), &[], "here").status,
            201
        );
        replica.wait_for_disk();
        replica.kill();
        leader = Member::durable(
            &folders[0],
            &[
                "--listen",
                &place,
                "--replication-listen",
                &any_port,
                "--fsync",
                "never",
            ],
        );
        leader.lead(2 * round + 2);
        wait_for("the leader", || leader.get("/leader").status == 200);
        assert!(leader.put("there", &[], "too").status < 300);
        replica = Member::durable(&folders[1], &[]);
        replica.follow(&leader, 2 * round + 2);
        let_pass(Duration::from_millis(rng.u64(0..80)));
        replica.kill();
        replica = Member::durable(&folders[1], &[]);
        assert_follows(&replica, &leader);
        let key = json!(format!("only-{round}"));
        wait_for("what is dropped to be saved", || {
            saved_lines(&folders[1])
                .iter()
                .any(|line| line["key"] == key)
        });
        assert_eq!(replica.get(&format!("/kv/only-{round}")).status, 404);
        replica.wait_for_disk();
    }
    replica.kill();
    replica = Member::durable(&folders[1], &[]);
    let snapshot_count = leader.log.count(GETS_SNAPSHOT);
    assert_follows(&replica, &leader);
    assert_eq!(leader.log.count(GETS_SNAPSHOT), snapshot_count);
    let names = std::fs::read_dir(folders[1].join("partition-0")).expect("read the folder");
    let mut paths = names.map(|entry| entry.expect("an entry").path());
    assert!(
        paths.all(|path| path.extension().is_none_or(|end| end != "tmp")),
        "drafts are left"
    );
}

#[test]
fn load_balancers_leave_a_node_that_is_stopping() {
    let mut leader = Member::start(&[]);
    let mut replica = Member::replica_of(&leader, &[]);
    assert_follows(&replica, &leader);
    for (node, target) in [(&mut replica, "/replica"), (&mut leader, "/leader")] {
        let mut asking = node.connect();
        asking.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n").as_bytes());
        node.settle();
        node.signal("TERM");
        wait_for("new connections to be refused", || {
            TcpStream::connect(node.address).is_err()
        });
        asking.send(b"\r\n");
        assert_eq!(asking.response(false).status, 404);
        drop(asking);
        assert_eq!(node.wait().code(), Some(0));
    }
}
