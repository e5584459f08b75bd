//! Replicas get what they lack, as records or as a snapshot, and find their leader.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use db_node::replication::frame::Frame;
use serde_json::json;

use crate::common::member::{Member, assert_follows, own_address, put_bytes};
use crate::common::seeds::random_seed;
use crate::common::{Folder, assert_error, let_pass, request_bytes, wait_for};
use crate::confirmed_writes::saved_lines;
use crate::hostile_peers::{assert_ended, dial, encoded, hello, read_all};
use crate::{GETS_SNAPSHOT, fed};

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

    // A snapshot for a replica that is gone is dropped.
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
            .contains("that is this node itself")
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

    // As many as there are places: no further one gets in, and all are served.
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
fn a_replica_that_is_killed_while_it_takes_over_starts_over() {
    let folders = ["leader", "replica"].map(|name| Folder::new(&format!("takes-over-{name}")));
    let seed = random_seed();
    let mut rng = seed.rng();
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
