//! Hand-overs, nodes that leave, and recovery by force.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::common::etcd::Etcd;
use crate::common::member::Member;
use crate::common::{Folder, let_pass, wait_for};
use crate::{assert_refused, member, post, put, value_of};

/// Three nodes with one partition, which `n0` leads, and all three copies in sync.
fn three(etcd: &Etcd) -> Vec<Member> {
    let names = ["n0", "n1", "n2"];
    let members: Vec<Member> = names.iter().map(|name| member(etcd, name, &[])).collect();
    let cluster = json!({"format": 1, "id": "04".repeat(16), "partitions": 1, "hash": "crc32c"});
    let config = json!({"format": 1, "epoch": 0, "leader": "n0", "handedOver": false,
        "leaseMs": 1000, "inSync": [], "replicas": names, "leaving": []});
    put(etcd, "cluster", &cluster);
    put(etcd, "partitions/0/config", &config);
    wait_for("three copies in sync", || in_sync_count(etcd) == 3);
    members
}

fn config(etcd: &Etcd) -> serde_json::Value {
    value_of(etcd, "partitions/0/config").expect("a configuration")
}

fn in_sync_count(etcd: &Etcd) -> usize {
    config(etcd)["inSync"].as_array().map_or(0, Vec::len)
}

/// Writes until it succeeds; no outcome may be unknown.
fn write_somewhere(members: &[&Member], key: &str) -> usize {
    let mut leader = None;
    wait_for("a write to be taken", || {
        leader = members.iter().position(|member| {
            let answer = member.put(key, &[], "1");
            assert!(
                [201, 200, 421, 503].contains(&answer.status),
                "{}",
                answer.text()
            );
            answer.status < 300
        });
        leader.is_some()
    });
    leader.expect("found")
}

#[test]
fn without_a_cluster_there_is_nothing_to_order() {
    let node = Member::start(&[]);
    for (path, body) in [
        ("/partition/handover", json!({"id": 0})),
        (
            "/partition/recover",
            json!({"id": 0, "node": "n1", "acceptDataLoss": true}),
        ),
        ("/partition/move", json!({"id": 0, "to": "n1"})),
        ("/node/drain", json!({})),
    ] {
        assert_refused(&post(&node, path, &body), 409, "no_cluster");
    }
    let order = json!({"partitions": 1024, "replicas": 5});
    let answer = post(&node, "/cluster/init", &order);
    assert_refused(&answer, 409, "too_many_copies");
    let answer = post(&node, "/partition/recover", &json!({"id": 0, "node": "n1"}));
    assert!(
        answer
            .text()
            .contains("make sure that the old leader is down")
    );
    assert_refused(&answer, 400, "bad_request");
    let answer = post(&node, "/node/drain", &json!({"forget": 1}));
    assert_refused(&answer, 400, "bad_request");
}

#[test]
fn a_node_that_waits_for_etcd_says_so() {
    let arguments = ["--etcd", "http://127.0.0.1:1", "--node", "n0"];
    let answer = Member::start(&arguments).get("/readyz");
    assert_eq!(answer.status, 503);
    assert!(
        answer.text().contains("waiting for etcd"),
        "{}",
        answer.text()
    );
}

#[test]
fn the_last_error_of_etcd_is_told_while_it_lasts() {
    let Some(mut etcd) = Etcd::start() else {
        return;
    };
    let node = member(&etcd, "n0", &[]);
    let told = || node.get("/status").json()["etcd"].take();
    wait_for("etcd to answer", || told()["up"] == true);
    assert_eq!(told()["lastError"], Json::Null);
    etcd.kill();
    // The watch fails first.
    wait_for("an error", || told()["lastError"].is_string());
    wait_for("etcd to be missed", || told()["up"] == false);
    assert!(told()["lastError"].is_string());
    assert!(etcd.run());
    wait_for("etcd to answer again", || {
        let told = told();
        told["up"] == true && told["lastError"] == Json::Null
    });
}

#[test]
fn a_partition_is_handed_over() {
    let Some(etcd) = Etcd::start() else { return };
    let members = three(&etcd);
    let order = json!({"id": 0, "to": "n2"});
    let answer = post(&members[1], "/partition/handover", &order);
    assert_eq!(answer.header("X-Leader"), Some(&members[0].url()[..]));
    assert_refused(&answer, 421, "not_leader");
    let unknown = json!({"id": 0, "to": "n9"});
    assert_refused(
        &post(&members[0], "/partition/handover", &unknown),
        409,
        "not_in_sync",
    );
    let unknown = json!({"id": 7});
    assert_refused(
        &post(&members[0], "/partition/handover", &unknown),
        404,
        "partition_not_found",
    );
    for number in 0..100 {
        assert_eq!(members[0].put(&format!("k{number}"), &[], "1").status, 201);
    }
    let answer = post(&members[0], "/partition/handover", &order);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        answer.json(),
        json!({"success": true, "id": 0, "leader": "n2"})
    );
    // It is in office, and open as soon as the others have granted its first beat.
    wait_for("a write", || members[2].put("k", &[], "1").status == 201);
    assert_eq!(members[2].get("/kv/k99").status, 200);
    let answer = members[0].put("k", &[], "2");
    assert_eq!(
        answer.header("X-Leader"),
        Some(&members[2].url()[..]),
        "{}",
        answer.text()
    );
    // To itself: nothing is to be done. To any other: one of the two.
    let answer = post(&members[2], "/partition/handover", &order);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = post(&members[2], "/partition/handover", &json!({"id": 0}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_ne!(answer.json()["leader"], "n2");
    assert_eq!(config(&etcd)["handedOver"], true);
}

#[test]
fn a_node_that_is_stopped_hands_over_first() {
    let Some(etcd) = Etcd::start() else { return };
    let mut members = three(&etcd);
    for by_signal in [true, false] {
        let refs: Vec<&Member> = members.iter().collect();
        let leader = write_somewhere(&refs, "a");
        wait_for("all copies in sync", || {
            in_sync_count(&etcd) == members.len()
        });
        let since = Instant::now();
        if by_signal {
            members[leader].signal("TERM");
        } else {
            let answer = post(&members[leader], "/node/drain", &json!({}));
            assert_eq!(answer.status, 202, "{}", answer.text());
            assert_eq!(
                answer.json(),
                json!({"success": true, "handingOver": [0], "staying": []})
            );
        }
        let mut left = members.remove(leader);
        let others: Vec<&Member> = members.iter().collect();
        write_somewhere(&others, "b");
        let gap = since.elapsed();
        eprintln!("by signal: {by_signal}; another node took a write after {gap:?}");
        assert!(gap < Duration::from_millis(900), "it was not handed over");
        assert_eq!(config(&etcd)["handedOver"], true);
        assert_eq!(left.wait().code(), Some(0));
        left.log.assert_has("handing 1 partitions over");
    }
    // The last one has no other to hand over to.
    let mut last = members.pop().expect("one is left");
    wait_for("it to be alone", || in_sync_count(&etcd) == 1);
    let answer = post(&last, "/node/drain", &json!({}));
    assert_eq!(
        answer.json(),
        json!({"success": true, "handingOver": [], "staying": [0]})
    );
    assert_eq!(last.wait().code(), Some(0));
}

#[test]
fn a_partition_is_recovered_by_force() {
    let Some(etcd) = Etcd::start() else { return };
    let mut members = three(&etcd);
    assert_eq!(members[0].put("k", &[], "1").status, 201);
    let epoch = config(&etcd)["epoch"].as_u64().expect("a number");
    // What only lost copies hold, no node may lead.
    let mut lost = config(&etcd);
    lost["epoch"] = json!(epoch + 5);
    lost["leader"] = json!("n0");
    lost["inSync"] = json!([{"node": "n0", "copy": "09".repeat(16)}]);
    put(&etcd, "partitions/0/config", &lost);
    for member in &members {
        wait_for("it to say so", || {
            let ready = member.get("/readyz");
            ready.status == 503 && ready.text().starts_with("all copies lost: ")
        });
        let told = member.get("/status").json()["partitions"][0].take();
        assert_eq!(told["state"], "all copies lost");
        let reason = told["stateReason"].as_str().expect("a text");
        assert!(reason.contains("/partition/recover"), "{reason}");
        assert_refused(&member.put("k", &[], "2"), 503, "no_leader");
        member
            .log
            .assert_has("all copies in sync are gone for good");
    }
    let order = json!({"id": 0, "node": "n1", "acceptDataLoss": true});
    let unknown = json!({"id": 0, "node": "n9", "acceptDataLoss": true});
    assert_refused(
        &post(&members[2], "/partition/recover", &unknown),
        409,
        "no_copy",
    );
    let unknown = json!({"id": 3, "node": "n1", "acceptDataLoss": true});
    assert_refused(
        &post(&members[2], "/partition/recover", &unknown),
        404,
        "partition_not_found",
    );
    // Until it has read what is there now, it is told that this has changed.
    let mut answer = post(&members[2], "/partition/recover", &order);
    wait_for("the order to be carried out", || {
        if answer.status != 200 {
            assert_refused(&answer, 409, "config_changed");
            answer = post(&members[2], "/partition/recover", &order);
        }
        answer.status == 200
    });
    assert_eq!(
        answer.json(),
        json!({"success": true, "id": 0, "leader": "n1", "epoch": epoch + 1_005})
    );
    wait_for("it to lead", || members[1].put("k", &[], "3").status < 300);
    wait_for("all copies in sync", || in_sync_count(&etcd) == 3);
    // Etcd loses the configuration, and what tells of the copies. A node that is down is to have
    // one all the same.
    members.pop();
    wait_for("two copies in sync", || in_sync_count(&etcd) == 2);
    let [key, end] = ["/db-node/x/partitions/", "/db-node/x/partitions0"].map(base64_of);
    etcd.call("/v3/kv/deleterange", &json!({"key": key, "range_end": end}));
    wait_for("those that run to register theirs", || {
        let copies = ["n0", "n1"].map(|name| format!("partitions/0/copies/{name}"));
        copies.iter().all(|key| value_of(&etcd, key).is_some())
    });
    wait_for("a node to have read that", || {
        let answer = post(&members[1], "/partition/recover", &order);
        [200, 409].contains(&answer.status) && value_of(&etcd, "partitions/0/config").is_some()
    });
    wait_for("it to lead", || members[1].put("k", &[], "4").status < 300);
    wait_for("all copies in sync", || in_sync_count(&etcd) == 2);
    assert!(config(&etcd)["epoch"].as_u64() > Some(epoch + 6));
    assert_eq!(config(&etcd)["replicas"], json!(["n0", "n1", "n2"]));
}

fn base64_of(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn a_cluster_is_made_of_the_nodes_that_have_registered() {
    let Some(etcd) = Etcd::start() else { return };
    let zones = ["a", "b", "b"];
    let start =
        |(number, zone): (usize, &&str)| member(&etcd, &format!("n{number}"), &["--zone", zone]);
    let members: Vec<Member> = zones.iter().enumerate().map(start).collect();
    let nodes = |member: &Member| member.get("/cluster").json()["nodes"].clone();
    wait_for("all to be known", || {
        nodes(&members[0])
            .as_array()
            .is_some_and(|nodes| nodes.len() == 3)
    });
    for (order, status, code) in [
        (json!({"partitions": 0}), 400, "bad_request"),
        (json!({"partitions": 1025}), 400, "bad_request"),
        (json!({"replicas": 33}), 400, "bad_request"),
        (json!({"copies": 3}), 400, "bad_request"),
        (json!({"replicas": 4}), 409, "too_few_nodes"),
        (json!({"adopt": "n0"}), 409, "no_copy"),
        (json!({"adopt": "n1"}), 421, "not_leader"),
    ] {
        assert_refused(&post(&members[0], "/cluster/init", &order), status, code);
    }
    let order = json!({"partitions": 120, "replicas": 2});
    let answer = post(&members[0], "/cluster/init", &order);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let placed = answer.json()["partitions"].clone();
    let placed = placed.as_array().expect("partitions");
    assert_eq!(placed.len(), 120);
    // Zone a has one node.
    let has_first = |one: &serde_json::Value| {
        let replicas = one["replicas"].as_array().expect("names");
        replicas.len() == 2 && replicas.contains(&json!("n0"))
    };
    assert!(placed.iter().all(has_first));
    wait_for("it to exist for all", || {
        let answer = post(&members[2], "/cluster/init", &order);
        answer.status == 409 && answer.json()["code"] == "exists"
    });
    wait_for("all to be led and in sync", || {
        let view = members[1].get("/cluster").json();
        let partitions = view["partitions"].as_array().expect("partitions");
        let is_whole = |one: &serde_json::Value| {
            one["epoch"] == 1
                && one["inSync"]
                    .as_array()
                    .is_some_and(|names| names.len() == 2)
        };
        partitions.len() == 120 && partitions.iter().all(is_whole)
    });
    let map = members[1].get("/cluster/map").json();
    assert_eq!(
        (&map["partitions"], &map["hash"]),
        (&json!(120), &json!("crc32c"))
    );
    let first = &map["leaders"][0];
    let urls: Vec<String> = members.iter().map(Member::url).collect();
    assert!(urls.iter().any(|url| first["leader"] == *url), "{first}");
}

#[test]
fn nodes_make_a_cluster_by_themselves() {
    let Some(etcd) = Etcd::start() else { return };
    let init = ["--cluster-init", "partitions=4,replicas=3"];
    let mut members = vec![member(&etcd, "n0", &init), member(&etcd, "n1", &init)];
    let_pass(Duration::from_millis(300));
    assert_eq!(value_of(&etcd, "cluster"), None);
    members.push(member(&etcd, "n2", &init));
    wait_for("a cluster", || value_of(&etcd, "cluster").is_some());
    wait_for("a leader for each", || {
        let view = members[0].get("/cluster").json();
        let partitions = view["partitions"].as_array().expect("partitions");
        partitions.len() == 4 && partitions.iter().all(|one| one["epoch"] == 1)
    });
}

#[test]
fn a_node_with_data_is_adopted() {
    let Some(etcd) = Etcd::start() else { return };
    let folder = Folder::new("adopted");
    let alone = Member::durable(&folder, &[]);
    assert_eq!(alone.put("k", &[], "1").status, 201);
    alone.signal("TERM");
    let mut alone = alone;
    assert_eq!(alone.wait().code(), Some(0));
    let with_data = ["--data-dir", folder.path()];
    let members = [member(&etcd, "n0", &with_data), member(&etcd, "n1", &[])];
    wait_for("both to be known", || {
        let nodes = members[1].get("/cluster").json()["nodes"].clone();
        nodes.as_array().is_some_and(|nodes| nodes.len() == 2)
    });
    // Until then the node with data says what it waits for, and what to do.
    let told = || members[0].get("/status").json()["partitions"][0].take();
    wait_for("it to have read etcd", || {
        told()["state"] == "not configured"
    });
    let partition = told();
    let reason = partition["stateReason"].as_str().expect("a text");
    for word in [
        "etcd answers",
        "/cluster/init",
        "adopt",
        "/partition/recover",
    ] {
        assert!(reason.contains(word), "{reason}");
    }
    assert_refused(&members[0].get("/kv/k"), 503, "cluster_unknown");
    for node in &members {
        let ready = node.get("/readyz");
        assert_eq!(ready.status, 503);
        assert!(ready.text().contains("not configured"), "{}", ready.text());
    }
    let order = json!({"partitions": 1, "replicas": 2});
    assert_refused(&post(&members[1], "/cluster/init", &order), 409, "has_data");
    let order = json!({"adopt": "n0"});
    wait_for("it to be adopted", || {
        post(&members[0], "/cluster/init", &order).status == 201
    });
    wait_for("two copies in sync", || in_sync_count(&etcd) == 2);
    assert_eq!(members[0].get("/kv/k").text(), "1");
}

/// Of two processes with the same name the one that was started first ends.
#[test]
fn the_earlier_one_of_two_processes_with_a_name_ends() {
    let Some(etcd) = Etcd::start() else { return };
    let is_registered = |member: &Member| {
        let node = value_of(&etcd, "nodes/n0");
        node.is_some_and(|node| node["url"] == json!(member.url()))
    };
    let mut first = member(&etcd, "n0", &[]);
    wait_for("the first to register", || is_registered(&first));
    let mut second = member(&etcd, "n0", &[]);
    wait_for("the second to register", || is_registered(&second));
    assert_eq!(first.wait().code(), Some(1));
    // What it wrote last may be read a little later.
    wait_for("its reason", || {
        let log = first.log.text();
        log.contains("another process runs as the same node") && log.contains(&second.url())
    });
    // One that is started after another has ended goes on.
    second.kill();
    let third = member(&etcd, "n0", &[]);
    wait_for("the third to register", || is_registered(&third));
    assert_eq!(third.get("/health").status, 200);
    // What cannot be read is written anew.
    put(&etcd, "nodes/n0", &json!({"format": 1}));
    wait_for("the third to register again", || is_registered(&third));
    assert_eq!(third.get("/health").status, 200);
}
