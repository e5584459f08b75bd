//! Copies that move between real nodes, while clients write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::common::etcd::Etcd;
use crate::common::member::Member;
use crate::common::{Response, wait_for};
use crate::{assert_refused, member, post, put, value_of};

/// The old copy is kept for so long.
const KEPT: Duration = Duration::from_mins(1);

/// Four nodes, and one partition with copies on the first three, all in sync. `n0` leads.
fn four(etcd: &Etcd) -> Vec<Member> {
    let names = ["n0", "n1", "n2", "n3"];
    let members: Vec<Member> = names.iter().map(|name| member(etcd, name, &[])).collect();
    let cluster = json!({"format": 1, "id": "04".repeat(16), "partitions": 1, "hash": "crc32c"});
    let config = json!({"format": 1, "epoch": 0, "leader": "n0", "handedOver": false,
        "leaseMs": 1000, "inSync": [], "replicas": names[..3], "leaving": []});
    put(etcd, "cluster", &cluster);
    put(etcd, "partitions/0/config", &config);
    wait_for("three copies in sync", || in_sync(etcd).len() == 3);
    wait_for("all nodes to be known", || {
        let nodes = members[2].get("/cluster").json()["nodes"].clone();
        nodes.as_array().is_some_and(|nodes| nodes.len() == 4)
    });
    members
}

fn config(etcd: &Etcd) -> Json {
    value_of(etcd, "partitions/0/config").expect("a configuration")
}

fn in_sync(etcd: &Etcd) -> Vec<String> {
    let config = config(etcd);
    let copies = config["inSync"].as_array().expect("copies").iter();
    copies
        .map(|of| of["node"].as_str().expect("a name").to_owned())
        .collect()
}

fn cancel(member: &Member, body: &Json) -> Response {
    let body = body.to_string();
    member.request("DELETE", "/partition/move", &[], body.as_bytes())
}

/// Writes numbers in turn until it is told to stop; returns the last one that was acknowledged.
/// Nothing but a change of the leader may turn a write down.
fn write_on(members: &[Member], is_over: &AtomicBool) -> (u64, Duration) {
    let (mut number, mut leader) = (0_u64, 0);
    let (mut since, mut longest) = (Instant::now(), Duration::ZERO);
    while !is_over.load(Ordering::Relaxed) {
        let key = format!("k{number:06}");
        let answer = members[leader].put(&key, &[], &number.to_string());
        match answer.status {
            200 | 201 => {
                longest = longest.max(since.elapsed());
                (number, since) = (number + 1, Instant::now());
            }
            421 | 503 => leader = (leader + 1) % members.len(),
            _ => panic!("{}", answer.text()),
        }
    }
    (number, longest)
}

/// The leader's copy moves to a fourth node while a client writes: at no time are fewer copies in
/// sync, nothing is lost, and what is left of the old copy goes.
#[test]
fn a_copy_moves_to_a_fourth_node_under_writes() {
    let Some(etcd) = Etcd::start() else { return };
    let members = four(&etcd);
    let is_over = AtomicBool::new(false);
    let (count, longest, moved) = thread::scope(|scope| {
        let writing = scope.spawn(|| write_on(&members, &is_over));
        wait_for("some writes", || members[0].version() > 500);
        let body = json!({"id": 0, "from": "n0", "to": "n3"});
        let since = Instant::now();
        let answer = post(&members[3], "/partition/move", &body);
        assert_eq!(answer.status, 202, "{}", answer.text());
        assert_eq!(
            answer.json(),
            json!({"success": true, "id": 0, "from": "n0", "to": "n3"})
        );
        wait_for("the copy to have moved", || {
            let (in_sync, config) = (in_sync(&etcd), config(&etcd));
            assert!(in_sync.len() >= 3, "fewer copies in sync: {config}");
            config["replicas"] == json!(["n1", "n2", "n3"]) && in_sync.len() == 3
        });
        let moved = since.elapsed();
        wait_for("more writes", || members[3].version() > 1_000);
        is_over.store(true, Ordering::Relaxed);
        let (count, longest) = writing.join().expect("no panic");
        (count, longest, moved)
    });
    eprintln!("{count} writes; moved after {moved:?}; the longest write took {longest:?}");
    let kept = |node: usize| members[node].get("/cluster").json()["partitions"][0]["kept"].clone();
    wait_for("it to be shown", || kept(1) == json!(["n0"]));
    let leader = config(&etcd)["leader"].clone();
    let leader = members
        .iter()
        .find(|member| member.get("/cluster").json()["node"] == leader);
    let leader = leader.expect("one of them");
    for number in 0..count {
        let answer = leader.get(&format!("/kv/k{number:06}"));
        assert_eq!(answer.text(), number.to_string(), "it is lost");
    }
    let deadline = Instant::now() + KEPT + Duration::from_secs(20);
    let mut is_gone = false;
    while !is_gone && Instant::now() < deadline {
        is_gone = members[0].get("/status").json()["partitions"] == json!([]);
        thread::sleep(Duration::from_millis(200));
    }
    assert!(
        is_gone,
        "the old copy stays: {}",
        members[0].get("/status").text()
    );
    wait_for("it to be forgotten", || kept(1) == json!([]));
    assert_eq!(value_of(&etcd, "partitions/0/copies/n0"), None);
}

#[test]
fn orders_that_cannot_be_are_refused() {
    let Some(etcd) = Etcd::start() else { return };
    let members = four(&etcd);
    for body in [
        json!({"id": 0}),
        json!({"to": "n3"}),
        json!({"id": 0, "to": 3}),
        json!({"id": 0, "too": "n3"}),
        json!([0, "n3"]),
    ] {
        assert_refused(
            &post(&members[1], "/partition/move", &body),
            400,
            "bad_request",
        );
        assert_refused(&cancel(&members[1], &body), 400, "bad_request");
    }
    for (body, status, code) in [
        (
            json!({"id": 0, "from": "n0", "to": "n9"}),
            404,
            "node_not_found",
        ),
        (json!({"id": 0, "from": "n3"}), 409, "no_copy"),
        (json!({"id": 0, "from": "n0", "to": "n2"}), 409, "has_copy"),
    ] {
        assert_refused(&post(&members[1], "/partition/move", &body), status, code);
        assert_refused(&cancel(&members[1], &body), 409, "no_move");
    }
    let body = json!({"id": 7, "to": "n3"});
    assert_refused(
        &post(&members[1], "/partition/move", &body),
        404,
        "partition_not_found",
    );
    assert_refused(&cancel(&members[1], &body), 404, "partition_not_found");
    let answer = members[1].request("POST", "/partition/move", &[], b"");
    assert_refused(&answer, 400, "bad_request");
    // Nothing of it was done. A copy is added and dropped again.
    let before = config(&etcd);
    assert_eq!(before["replicas"], json!(["n0", "n1", "n2"]));
    for _ in 0..2 {
        let answer = post(
            &members[1],
            "/partition/move",
            &json!({"id": 0, "to": "n3"}),
        );
        assert_eq!(answer.status, 202, "{}", answer.text());
        wait_for("it to have joined", || in_sync(&etcd).len() == 4);
        wait_for("n1 to know", || {
            let answer = post(
                &members[1],
                "/partition/move",
                &json!({"id": 0, "from": "n3"}),
            );
            answer.status == 202
        });
        wait_for("it to be gone", || in_sync(&etcd).len() == 3);
        wait_for("n1 to know", || {
            let shown = members[1].get("/cluster").json()["partitions"][0].clone();
            shown["replicas"] == before["replicas"]
        });
    }
}

#[test]
fn without_a_cluster_no_copy_moves() {
    let node = Member::start(&[]);
    let body = json!({"id": 0, "to": "n1"});
    assert_refused(&post(&node, "/partition/move", &body), 409, "no_cluster");
    assert_refused(&cancel(&node, &body), 409, "no_cluster");
}
