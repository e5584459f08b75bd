//! An etcd that was restored from a backup, while nodes run, fail and start.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::{let_pass, wait_for};
use crate::faults::{Three, ask};
use crate::{post, value_of};

/// Longer than a node takes that leads by what etcd says.
const LONG: Duration = Duration::from_secs(8);

/// The leader of the backup is down when another one takes over, and starts again once etcd went
/// back: it does not lead beside, in the same epoch or any other.
#[test]
fn a_leader_of_a_backup_does_not_lead_beside_the_present_one() {
    let Some(mut three) = Three::start() else {
        return;
    };
    assert_eq!(three.leader(), 0);
    three.etcd.back_up();
    three.kill(0);
    let leader = three.leader();
    wait_for("a write", || {
        three.member(leader).put("k", &[], "1").status < 300
    });
    three.etcd.restore();
    three.start_member(0);
    let started = Instant::now();
    while started.elapsed() < LONG {
        for (at, member) in three.members.iter().flatten().enumerate() {
            let answer = ask(member.address, "PUT", "/kv/k", &[], "2");
            let is_taken = answer.is_some_and(|(status, _)| status < 300);
            assert_eq!(is_taken, at == leader, "node {at}");
        }
        let_pass(Duration::from_millis(100));
    }
    let state = three.member(0).partition()["state"].clone();
    assert_eq!(state, "etcd went back");
    // An operator says that the leader is to go on.
    let name = format!("n{leader}");
    let order = json!({"id": 0, "node": name, "acceptDataLoss": true});
    let answer = post(three.member(leader), "/partition/recover", &order);
    assert_eq!(answer.status, 200, "{}", answer.text());
    three.wait_for_sync(3);
    assert_eq!(three.leader(), leader);
    assert_eq!(three.member(leader).get("/kv/k").text(), "2");
    let config = three.config();
    assert_eq!(config["recovered"], config["epoch"]);
    let record = value_of(&three.etcd, "partitions/0/copies/n0").expect("it is registered");
    assert!(record["doubts"].as_u64() < config["epoch"].as_u64());
}

/// A copy that has left the set since the backup does not lead while the leader runs, although the
/// two do not reach each other.
#[test]
fn a_copy_that_was_in_sync_does_not_lead_once_etcd_went_back() {
    let Some(mut three) = Three::start() else {
        return;
    };
    three.etcd.back_up();
    three.kill(1);
    three.kill(2);
    three.wait_for_sync(1);
    wait_for("a write", || {
        three.member(0).put("k", &[], "1").status < 300
    });
    three.etcd.restore();
    wait_for("the leader to doubt that", || {
        three.member(0).partition()["state"] == "etcd went back"
    });
    let ready = three.member(0).get("/readyz");
    assert_eq!(ready.status, 200, "it goes on serving");
    assert!(ready.text().contains("etcd went back"), "{}", ready.text());
    // A node that stands still hears nothing, and is not heard.
    three.member(0).freeze();
    three.start_member(1);
    three.start_member(2);
    let started = Instant::now();
    while started.elapsed() < LONG {
        for at in 1..3 {
            assert_ne!(three.member(at).get("/leader").status, 200);
        }
        let_pass(Duration::from_millis(100));
    }
    three.member(0).thaw();
    wait_for("a read", || three.member(0).get("/kv/k").text() == "1");
}
