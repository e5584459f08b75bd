//! A leader without data, or with other data, does not take the data of its replicas.

use serde_json::{Value as Json, json};

use crate::common::member::{Member, assert_follows, own_address, value_of};
use crate::common::{Folder, assert_error, wait_for};

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
        "the leader began empty and this replica holds version 200: its data is kept",
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
        "the leader began empty and this replica holds version 200",
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
