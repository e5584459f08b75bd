//! Copies that move between real nodes, while clients write.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::common::etcd::Etcd;
use crate::common::member::Member;
use crate::common::{Response, let_pass, request_bytes, wait_for};
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
    let names = ["n0", "n1", "n2", "n3"];
    for number in 0..count {
        let mut value = String::new();
        wait_for("the leader to answer", || {
            let leader = config(&etcd)["leader"].clone();
            let at = names.iter().position(|name| leader == **name);
            let answer = members[at.expect("one of them")].get(&format!("/kv/k{number:06}"));
            value = answer.text();
            ![421, 503].contains(&answer.status)
        });
        assert_eq!(value, number.to_string(), "it is lost");
    }
    let deadline = Instant::now() + KEPT + Duration::from_secs(20);
    let mut is_gone = false;
    while !is_gone && Instant::now() < deadline {
        is_gone = members[0].get("/status").json()["partitions"] == json!([]);
        let_pass(Duration::from_millis(200));
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
        // Refused while the configuration in etcd is another than n1 has read.
        wait_for("n1 to know", || {
            let order = json!({"id": 0, "to": "n3"});
            post(&members[1], "/partition/move", &order).status == 202
        });
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

/// Two new nodes get their share of copies and of leaders by the same order again and again. What a
/// node had is written all the while.
#[test]
fn a_cluster_is_evened_out_over_new_nodes() {
    let Some(etcd) = Etcd::start() else { return };
    let mut members: Vec<Member> = ["n0", "n1"].map(|name| member(&etcd, name, &[])).into();
    wait_for("both to be known", || {
        let nodes = members[0].get("/cluster").json()["nodes"].clone();
        nodes.as_array().is_some_and(|nodes| nodes.len() == 2)
    });
    let order = json!({"partitions": 6, "replicas": 2});
    assert_eq!(post(&members[0], "/cluster/init", &order).status, 201);
    let rebalance = |member: &Member, is_dry_run: bool| {
        let answer = post(member, "/cluster/rebalance", &json!({"dryRun": is_dry_run}));
        assert!(
            [200, 202, 409, 503].contains(&answer.status),
            "{}",
            answer.text()
        );
        let body = answer.json();
        (answer.status, body)
    };
    let is_even = |member: &Member| {
        let (status, plan) = rebalance(member, true);
        status == 200
            && plan["moves"] == json!([])
            && plan["leaders"] == json!([])
            && plan["underWay"] == 0
    };
    wait_for("all to be in sync", || is_even(&members[0]));
    members.extend(["n2", "n3"].map(|name| member(&etcd, name, &[])));
    wait_for("a plan", || {
        let (_, plan) = rebalance(&members[0], true);
        let moves = plan["moves"].as_array().expect("moves");
        moves.len() == 6 && moves.iter().all(|one| one["begun"] == false)
    });
    let (_, view) = (200, members[0].get("/cluster").json());
    assert!(view["partitions"].as_array().is_some_and(|all| {
        all.iter()
            .all(|one| one["leaving"] == json!([]) && one["nextLeader"] == Json::Null)
    }));
    wait_for("all to be even", || {
        if is_even(&members[3]) {
            return true;
        }
        let (status, plan) = rebalance(&members[0], false);
        let count = |name: &str| plan["moves"].to_string().matches(name).count();
        assert!(status != 202 || count("\"begun\":true") <= 2, "{plan}");
        let_pass(Duration::from_millis(100));
        false
    });
    let view = members[1].get("/cluster").json();
    for name in ["n0", "n1", "n2", "n3"] {
        let partitions = view["partitions"].as_array().expect("partitions");
        let has_copy = |one: &&Json| {
            one["inSync"]
                .as_array()
                .is_some_and(|all| all.contains(&json!(name)))
        };
        let leads = |one: &&Json| one["leader"] == name;
        assert_eq!(partitions.iter().filter(has_copy).count(), 3, "{view}");
        assert!(
            [1, 2].contains(&partitions.iter().filter(leads).count()),
            "{view}"
        );
    }
    let answer = post(&members[0], "/cluster/rebalance", &json!({}));
    assert_refused(&answer, 400, "bad_request");
}

/// A client that has a map waits for the next one.
#[test]
fn a_map_is_waited_for() {
    let Some(etcd) = Etcd::start() else { return };
    let members = four(&etcd);
    let map = |member: &Member, query: &str| member.get(&format!("/cluster/map{query}")).json();
    let settled = || {
        let before = map(&members[1], "");
        let_pass(Duration::from_millis(300));
        (map(&members[1], "") == before).then(|| before["revision"].as_u64().expect("a number"))
    };
    let mut revision = None;
    wait_for("the map to stay", || {
        revision = settled();
        revision.is_some()
    });
    let revision = revision.expect("found");
    // It is the same on all nodes.
    assert_eq!(map(&members[3], "")["revision"], revision);
    let since = Instant::now();
    let same = map(&members[1], &format!("?since={revision}&timeout=0.5"));
    assert_eq!(same["revision"], revision);
    assert!(
        since.elapsed() >= Duration::from_millis(500),
        "{:?}",
        since.elapsed()
    );
    let old = format!("?since={}&timeout=300", revision - 1);
    assert_eq!(map(&members[1], &old)["revision"], revision);
    let newest = format!("?since={revision}&timeout=300");
    // A client that goes away.
    let mut gone = members[1].connect();
    gone.send(&request_bytes(
        "GET",
        &format!("/cluster/map{newest}"),
        &[],
        b"",
    ));
    let watchers = || {
        let text = members[1].get("/metrics").text();
        let line = text
            .lines()
            .find(|line| line.starts_with("dbnode_watchers "));
        line.map(|line| line["dbnode_watchers ".len()..].to_owned())
    };
    wait_for("it to wait", || watchers().as_deref() == Some("1"));
    drop(gone);
    wait_for("it to be forgotten", || watchers().as_deref() == Some("0"));
    let next = thread::scope(|scope| {
        let waiting = [0, 1, 2].map(|at| {
            (
                at,
                scope.spawn({
                    let (member, newest) = (&members[at], &newest);
                    move || map(member, newest)
                }),
            )
        });
        wait_for("one to wait", || watchers().as_deref() == Some("1"));
        let order = json!({"id": 0, "to": "n2"});
        assert_eq!(post(&members[0], "/partition/handover", &order).status, 200);
        waiting.map(|(at, waiting)| (at, waiting.join().expect("no panic")))
    });
    for (at, next) in next {
        assert!(next["revision"].as_u64() > Some(revision), "{at}: {next}");
        assert_eq!(next["leaders"][0]["leader"], members[2].url(), "{at}");
    }
    // Nothing is waited for without a revision.
    map(&members[1], "?timeout=300");
    for query in ["?since=-1", "?since=x", "?since=1&timeout=301"] {
        let answer = members[1].get(&format!("/cluster/map{query}"));
        assert_refused(&answer, 400, "bad_query");
    }
    // A node that stops answers first.
    let last = map(&members[1], "")["revision"].as_u64().expect("a number");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| map(&members[1], &format!("?since={}", last + 1_000)));
        wait_for("it to wait", || watchers().as_deref() == Some("1"));
        members[1].signal("TERM");
        assert!(waiting.join().expect("no panic")["leaders"].is_array());
    });
}

#[test]
fn without_a_cluster_no_copy_moves() {
    let node = Member::start(&[]);
    let body = json!({"id": 0, "to": "n1"});
    assert_refused(&post(&node, "/partition/move", &body), 409, "no_cluster");
    assert_refused(&cancel(&node, &body), 409, "no_cluster");
    for (path, body) in [
        ("/cluster/rebalance", json!({"dryRun": true})),
        ("/node/drain", json!({"forget": true})),
    ] {
        assert_refused(&post(&node, path, &body), 409, "no_cluster");
    }
    let answer = node.get("/cluster/map?since=1&timeout=9");
    assert_refused(&answer, 409, "no_cluster");
}
