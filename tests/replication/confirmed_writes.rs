//! Writes wait for replicas, and a confirmed write survives a failover.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value as Json, json};

use crate::common::member::{Member, assert_follows, value_of};
use crate::common::{Folder, PATIENCE, assert_error, request_bytes, text, wait_for};
use crate::{GETS_SNAPSHOT, fed};

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
        while !unread.ends_with(b"}\n") {
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
pub(crate) fn saved_lines(folder: &Folder) -> Vec<Json> {
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
    // That of the leader, not that of its own data before.
    old.log.assert_has("in sync with its leader at version 101");
    old.log
        .assert_has("5 writes that only this node had are dropped; they are saved in ");
    let expected = [
        json!({"version": 104, "key": "key-1", "value": "mine"}),
        json!({"version": 105, "key": "key-2", "deleted": true}),
        json!({"version": 102, "key": "lost-bytes", "value": "//4=", "encoding": "base64"}),
        {
            let text = String::from_utf8(large).expect("text");
            json!({"version": 103, "key": "lost-large", "value": text})
        },
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
