//! A controller takes a partition away from a node: which orders are taken, what becomes of the
//! data and of clients and nodes that are busy with it, and that it is there whole or gone,
//! whenever the node ends.

#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks, files and sockets of their own"
)]

#[path = "common/cluster.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod cluster;
mod common;
#[path = "common/sim_disk.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod sim_disk;

use std::fs;

use cluster::Cluster;
use db_node::lsm::NewValue;
use db_node::node::RemovalOrder;
use db_node::partition::{Assignment, Conditions, Partition, Wait, WaitProgress};
use db_node::storage::Role;

use serde_json::{Value as Json, json};

use common::member::{Member, put_bytes};
use common::seeds::seeds;
use common::{Folder, Response, assert_error, request_bytes, wait_for};

const PARTITION: &str = "X-Partition-ID: 3";

fn leader(epoch: u64) -> Json {
    json!({"id": 3, "role": "leader", "epoch": epoch})
}

fn replica(leader: &Member, epoch: u64) -> Json {
    json!({"id": 3, "role": "replica", "leader": leader.url(), "epoch": epoch})
}

#[track_caller]
fn tell(node: &Member, order: &Json) {
    let response = node.assign(order);
    assert_eq!(response.status, 200, "{}", response.text());
}

fn delete(node: &Member, query: &str) -> Response {
    node.request("DELETE", &format!("/partition/3{query}"), &[], b"")
}

#[track_caller]
fn assert_given_up(node: &Member, response: &Response, was_here: bool) {
    let expected = json!({"success": true, "id": 3, "role": "none", "deleted": was_here});
    assert_eq!(
        (response.status, response.json()),
        (200, expected),
        "{}",
        response.text()
    );
    let partitions = node.get("/health").json()["partitions"].clone();
    assert!(
        !partitions.as_array().expect("a list").contains(&json!(3)),
        "{partitions}"
    );
}

fn token(node: &Member) -> String {
    let written = node.put("k", &[PARTITION], "v");
    assert!(written.status < 300, "{}", written.text());
    written.token().expect("a write has one").to_owned()
}

/// Waits until a node follows another, with all that is there.
fn wait_in_sync(replica: &Member, leader: &Member) {
    wait_for("the replica to have all", || {
        let digest = |node: &Member| node.get("/digest?partition=3").json();
        replica.get("/replica?partition=3").status == 200 && digest(replica) == digest(leader)
    });
}

/// Names of the files and folders in a folder, ascending.
fn names(folder: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> = entries
        .map(|entry| {
            let name = entry.expect("an entry").file_name();
            name.into_string().expect("text")
        })
        .collect();
    names.sort();
    names
}

/// In memory and on disk: an order of an old epoch changes nothing, one that is taken leaves
/// nothing, and the number begins anew.
#[test]
fn a_partition_is_given_up_in_an_epoch_and_begins_anew() {
    for has_disk in [false, true] {
        let folder = Folder::new("given-up");
        let start = || {
            if has_disk {
                Member::durable(&folder, &["--await-assignment"])
            } else {
                Member::start(&["--await-assignment"])
            }
        };
        let mut node = start();
        let other = Member::start(&["--await-assignment"]);
        tell(&node, &leader(5));
        tell(&node, &json!({"id": 4, "role": "leader", "epoch": 1}));
        let old = token(&node);
        tell(&other, &replica(&node, 5));
        wait_in_sync(&other, &node);

        assert_error(&delete(&node, "?epoch=4"), 409, "epoch_outdated");
        let order = json!({"id": 3, "role": "none", "epoch": 4});
        assert_error(&node.assign(&order), 409, "epoch_outdated");
        let leap = delete(&node, "?epoch=18446744073709551615");
        assert_error(&leap, 409, "epoch_leaps");
        assert_error(&delete(&node, ""), 409, "epoch_missing");
        assert_eq!(
            node.get("/kv/k?partition=3").text(),
            "v",
            "nothing was done"
        );

        assert_given_up(&node, &delete(&node, "?epoch=6"), true);
        assert_given_up(&node, &delete(&node, "?epoch=6"), false);
        for response in [
            node.get("/kv/k?partition=3"),
            node.put("k", &[PARTITION], "w"),
            node.get("/scan?partition=3"),
            node.get("/watch?partition=3&timeout=0"),
        ] {
            assert_error(&response, 404, "partition_not_found");
        }
        node.log.assert_has("partition 3: given up in epoch 6");
        if has_disk {
            assert!(!folder.join("partition-3").exists());
            wait_for("the files to be removed", || {
                names(&folder.0) == ["lock", "partition-4"]
            });
        }

        // A replica that still held it would give it back to the new leader.
        assert_given_up(&other, &delete(&other, "?epoch=6&discard=true"), true);
        // An order that comes late is refused; a new one begins with nothing.
        assert_error(&node.assign(&leader(5)), 409, "epoch_outdated");
        tell(&node, &leader(7));
        let status = node.status();
        let partition = &status["partitions"][0];
        assert_eq!(
            (&partition["epoch"], &partition["lastVersion"]),
            (&json!(7), &json!(0))
        );
        assert_error(&node.get("/kv/k?partition=3"), 404, "key_not_found");
        let new = token(&node);
        assert_ne!(old, new, "another history");
        let condition = format!("If-Match: \"{old}\"");
        let conditional = node.put("k", &[PARTITION, &condition], "w");
        assert_error(&conditional, 412, "condition_failed");

        if has_disk {
            node.kill();
            node = start();
            tell(&node, &leader(7));
            assert_eq!(node.get("/kv/k?partition=3").text(), "v");
            assert_given_up(&node, &delete(&node, "?epoch=8&discard=true"), true);
            node.kill();
            node = start();
            let health = node.get("/health").json();
            assert_eq!(health["partitions"], json!([4]), "it stays away");
        }
    }
}

/// A leader with replicas that lack something, a leader without any, a replica that does not hear
/// its leader: what they alone hold is dropped only on an order that says so.
#[test]
fn data_that_no_other_node_is_known_to_hold_is_kept() {
    let mut first = Member::start(&["--await-assignment"]);
    let second = Member::start(&["--await-assignment"]);
    tell(&first, &leader(1));
    // Nothing is there yet that could be lost.
    assert_given_up(&first, &delete(&first, "?epoch=1"), true);
    tell(&first, &leader(2));
    token(&first);
    assert_error(&delete(&first, "?epoch=3"), 409, "only_copy");
    let order = json!({"id": 3, "role": "none", "epoch": 3});
    assert_error(&first.assign(&order), 409, "only_copy");

    tell(&second, &replica(&first, 2));
    wait_in_sync(&second, &first);
    second.freeze();
    token(&first);
    let refused = delete(&first, "?epoch=3");
    assert_error(&refused, 409, "only_copy");
    assert!(refused.text().contains("version 2, and others up to 1"));
    second.thaw();
    wait_in_sync(&second, &first);

    // The replica has nothing of its own, until it cannot tell what its leader has.
    first.kill();
    wait_for("the replica to notice", || {
        second.get("/replica?partition=3&max_lag=0").status == 503
    });
    assert_error(&delete(&second, "?epoch=3"), 409, "only_copy");
    let order = json!({"id": 3, "role": "none", "epoch": 3, "discard": true});
    assert_given_up(&second, &second.assign(&order), true);
}

/// Where no controller names epochs, none is needed; but a leader is not taken from its replicas.
#[test]
fn without_epochs_a_leader_stays_with_its_replicas() {
    let nodes = [(); 2].map(|()| Member::start(&["--await-assignment"]));
    let [first, second] = &nodes;
    tell(first, &json!({"id": 3, "role": "leader"}));
    token(first);
    let follow = json!({"id": 3, "role": "replica", "leader": first.url()});
    tell(second, &follow);
    wait_in_sync(second, first);
    assert_error(&delete(first, ""), 409, "leads");
    assert_error(&delete(first, "?discard=true"), 409, "leads");
    assert_given_up(second, &delete(second, ""), true);
    wait_for("the leader to be alone", || {
        let status = first.status();
        status["partitions"][0]["replicas"] == json!([])
    });
    assert_error(&delete(first, ""), 409, "only_copy");
    assert_given_up(first, &delete(first, "?discard=true"), true);
    // Made again without an epoch, it leads above the one that it had.
    tell(first, &json!({"id": 3, "role": "leader"}));
    assert_eq!(first.status()["partitions"][0]["epoch"], 2);
}

fn allocated_bytes(node: &Member) -> u64 {
    let metrics = node.get("/metrics").text();
    let name = "dbnode_allocated_memory_bytes ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.expect(name).parse().expect("a number")
}

/// A write that waits for replicas, a watcher, a scan that is being read, a replica and a leader:
/// each hears what it has to, and connections are usable after it.
#[test]
fn clients_and_nodes_that_are_busy_with_it_are_told() {
    let node = Member::start(&["--await-assignment", "--ack-timeout-ms=60000"]);
    let follower = Member::start(&["--await-assignment"]);
    tell(&node, &leader(1));
    tell(&node, &json!({"id": 4, "role": "leader"}));
    let value = "v".repeat(500_000);
    for key in 0..20 {
        let written = node.put(&format!("key-{key:02}"), &[PARTITION], &value);
        assert_eq!(written.status, 201);
    }
    tell(&follower, &replica(&node, 1));
    wait_in_sync(&follower, &node);
    let mut scan = node.connect_with_small_buffer();
    scan.send(&request_bytes(
        "GET",
        "/scan?partition=3&limit=20",
        &[],
        b"",
    ));
    let mut events = node.connect();
    events.send(&request_bytes(
        "GET",
        "/watch?partition=3&prefix=other&timeout=10",
        &["Accept: text/event-stream"],
        b"",
    ));
    node.settle();
    follower.freeze();
    let mut writer = node.connect();
    let headers = [PARTITION, "X-Min-Acks: 1"];
    writer.send(&request_bytes("PUT", "/kv/late", &headers, b"v"));
    node.settle();

    assert_given_up(&node, &delete(&node, "?epoch=2&discard=true"), true);
    assert_error(&writer.response(false), 504, "role_changed");
    let after = writer.request("GET", "/kv/late", &[PARTITION], b"");
    assert_error(&after, 404, "partition_not_found");
    // The answer was begun before: it is of that point in time, and whole.
    let scanned = scan.response(false).json();
    assert_eq!(scanned["items"].as_array().map(Vec::len), Some(20));
    let heard = events.read_to_end();
    assert!(
        !heard.ends_with(b"0\r\n\r\n"),
        "an answer without its end: {}",
        String::from_utf8_lossy(&heard)
    );
    wait_for("10 MB of memory to be freed", || {
        allocated_bytes(&node) < 8_000_000
    });
    // The replica serves what it has, and says that it is not up to date.
    follower.thaw();
    wait_for("the replica to say so", || {
        let ready = follower.get("/replica?partition=3");
        ready.status == 503 && ready.text().contains("is not on that node")
    });
    follower
        .log
        .assert_has("partition 3 was given up by that node");

    // The other way round: the leader of a replica that is given up goes on.
    tell(&node, &leader(3));
    tell(&follower, &replica(&node, 3));
    // It fetches first what its replica still holds.
    wait_for("a write to be taken", || {
        node.put("k", &[PARTITION], "v").status == 201
    });
    let other = json!({"id": 3, "role": "none", "epoch": 4, "discard": true});
    assert_given_up(&follower, &follower.assign(&other), true);
    wait_for("the leader to be alone", || {
        node.status()["partitions"][0]["replicas"] == json!([])
    });
    assert_eq!(node.put("k", &[PARTITION], "w").status, 200);
}

/// The node ends right after the folder was renamed, with all files or some of them still there:
/// the next start neither finds the partition nor refuses, and goes on removing. What was saved for
/// an operator stays.
#[test]
fn a_start_goes_on_where_a_removal_was_cut_off() {
    let folder = Folder::new("cut-off");
    let mut node = Member::durable(&folder, &["--await-assignment"]);
    for id in [3, 4] {
        tell(&node, &json!({"id": id, "role": "leader", "epoch": 1}));
    }
    token(&node);
    node.kill();
    let files = names(&folder.join("partition-3"));
    assert!(files.len() >= 2, "{files:?}");
    for left_count in 0..=files.len() {
        let removed = folder.join("partition-3.removed-1");
        fs::create_dir(&removed).expect("make a folder");
        for file in &files[..left_count] {
            let from = folder.join("partition-3").join(file);
            fs::copy(from, removed.join(file)).expect("copy");
        }
        let saved = folder.join("partition-9.removed-4");
        fs::create_dir_all(&saved).expect("make a folder");
        for name in [
            "diverged-1.jsonl",
            "wal-x.damaged",
            "g2-anything",
            "log-end",
        ] {
            fs::write(saved.join(name), "saved").expect("write");
        }
        let mut node = Member::durable(&folder, &["--await-assignment"]);
        let health = node.get("/health").json();
        assert_eq!(health["partitions"], json!([3, 4]), "those that are whole");
        wait_for("the rest to be removed", || {
            !removed.exists() && names(&saved) == ["diverged-1.jsonl", "wal-x.damaged"]
        });
        node.kill();
    }
}

/// A node that would make partition 0 by itself does not make it anew once it was given up.
#[test]
fn the_first_partition_stays_away_over_restarts() {
    let folder = Folder::new("first");
    let mut node = Member::durable(&folder, &[]);
    for _ in 0..3 {
        assert_eq!(node.put("k", &[], "v").status, 201);
        let given_up = node.request("DELETE", "/partition/0?discard=true", &[], b"");
        assert_eq!(given_up.status, 200, "{}", given_up.text());
        for with_power in [false, true] {
            if with_power {
                node.kill();
            } else {
                node.signal("TERM");
                node.wait();
            }
            node = Member::durable(&folder, &[]);
            assert_eq!(node.get("/health").json()["partitions"], json!([]));
            assert_error(&node.put("k", &[], "v"), 503, "unassigned");
        }
        tell(&node, &json!({"id": 0, "role": "leader"}));
    }
    wait_for("what was removed to be gone", || {
        names(&folder.0) == ["lock", "partition-0", "partition-0.removed-1"]
            && names(&folder.join("partition-0.removed-1")).is_empty()
    });
}

/// Given up and made again over and over, in one go with writes that wait for the disk before and
/// after it: nothing is left behind.
#[test]
fn giving_up_and_making_again_leaves_nothing_behind() {
    let folder = Folder::new("again");
    let node = Member::durable(&folder, &["--await-assignment"]);
    let made = |epoch: u64| json!({"id": 0, "role": "leader", "epoch": epoch});
    let removal = |epoch: u64| format!("/partition/0?epoch={epoch}&discard=true");
    for round in 0..30 {
        let epoch = 4 * round + 1;
        tell(&node, &made(epoch));
        let puts = (0..50).flat_map(|number| put_bytes(number, 1_000));
        let puts: Vec<u8> = puts.collect();
        let remove = request_bytes("DELETE", &removal(epoch + 1), &[], b"");
        let again = made(epoch + 2).to_string();
        let again = request_bytes("POST", "/partition/assign", &[], again.as_bytes());
        let last = request_bytes("GET", "/livez", &["Connection: close"], b"");
        let mut client = node.connect();
        client.send(&[&puts[..], &remove, &again, &puts, &last].concat());
        let answers = String::from_utf8(client.read_to_end()).expect("text");
        let mut answers = answers.split("HTTP/1.1 ").skip(1);
        let statuses = ["200", "201", "409", "503", "504"];
        assert!(answers.all(|answer| statuses.contains(&&answer[..3])));
        tell(&node, &made(epoch + 2));
        assert_eq!(node.get("/leader").status, 200);
        let given_up = node.request("DELETE", &removal(epoch + 3), &[], b"");
        assert_eq!(given_up.status, 200, "{}", given_up.text());
    }
    wait_for("all files to be removed", || {
        names(&folder.0) == ["lock", "partition-0.removed-1"]
    });
}

/// Simulated: given up while batches, checkpoints and changes of role are on their way to the disk,
/// made again at once, with power cuts in between. After a start the partition is one of those that
/// were here under its number, whole up to some version, and none that was reported as removed;
/// what the disk tells late is never taken for news of a new partition.
#[test]
fn what_the_disk_tells_late_is_about_the_partition_that_is_gone() {
    for seed in seeds(400) {
        let mut cluster = Cluster::new(seed.rng(), 1, true, &["--await-assignment"]);
        assert!(cluster.start(0));
        let mut epoch = 0;
        // The keys of each partition that was here, the present one last, and its removal.
        let mut lives: Vec<(Vec<Vec<u8>>, Option<u64>)> = Vec::new();
        for step in 0..150 {
            cluster.step(1);
            let dice = cluster.rng.u8(..20);
            let node = cluster.node(0).expect("it is up");
            let is_here = node.look_at(0).is_some();
            match dice {
                0 if is_here => {
                    epoch += 1;
                    let order = RemovalOrder {
                        epoch: Some(epoch),
                        discards: true,
                    };
                    let given_up = node.give_up(0, order, step).expect("a higher epoch");
                    assert!(given_up.was_here && node.look_at(0).is_none());
                    lives.last_mut().expect("it is here").1 = given_up.removal;
                }
                1..4 if !is_here => {
                    epoch += 1;
                    let order = Assignment {
                        role: Role::Leader,
                        epoch: Some(epoch),
                        leader: None,
                        peers: Vec::new(),
                    };
                    // One that is being made is assigned once more.
                    node.assign(0, order).expect("a higher epoch");
                    if lives.last().is_none_or(|(_, removal)| removal.is_some()) {
                        lives.push((Vec::new(), None));
                    }
                }
                4..15 if is_here => {
                    let partition = node.partition(0).expect("it is here");
                    if partition.roles().role() == Role::Leader && partition.roles().is_settled() {
                        let key = format!("{}-{step}", seed.0).into_bytes();
                        let value = NewValue::Inline(&key);
                        let set = partition.set(&key, value, None, &Conditions::default());
                        let keys = &mut lives.last_mut().expect("it is here").0;
                        keys.push(key.clone());
                        assert_eq!(set.expect("no conditions"), keys.len() as u64);
                    }
                }
                15 => drop(node.partition(0).map(Partition::request_checkpoint)),
                16 => {
                    let done = node.wait_progress(0, Wait::Removed);
                    let is_done = |removal: &Option<u64>| match (removal, done) {
                        (Some(number), WaitProgress::UpTo(done)) => *number <= done,
                        _ => false,
                    };
                    lives.retain(|(_, removal)| !is_done(removal));
                    cluster.crash(0, true);
                    assert!(cluster.start(0));
                    let node = cluster.node(0).expect("it is up");
                    let Some(partition) = node.look_at(0) else {
                        lives.clear();
                        continue;
                    };
                    let version = partition.lsm().last_version();
                    let count = usize::try_from(version).expect("small");
                    let is_it = |(keys, _): &&(Vec<Vec<u8>>, _)| {
                        let has = |key: &Vec<u8>| partition.get(key).is_some();
                        keys.len() >= count && keys[..count].iter().all(has)
                    };
                    let found = lives.iter().rev().find(is_it);
                    let found =
                        found.unwrap_or_else(|| panic!("version {version} of what? {lives:?}"));
                    lives = vec![(found.0[..count].to_vec(), None)];
                }
                _ => {}
            }
        }
    }
}
