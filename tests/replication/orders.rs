//! What a controller may do to nodes without a write being lost: one that names no epochs, tells a
//! replaced leader nothing, and sends its messages at once and in any order; one that names epochs;
//! and errors in either. Real nodes and real messages.

use std::io::{Read, Write};
use std::net::TcpStream;

use db_node::lsm::LogPosition;
use db_node::replication::frame::{
    Frame, Hello, Intent, PROTOCOL_MIN, PROTOCOL_VERSION, PeerState,
};
use db_node::storage::{CopyId, HistoryId, Lineage};
use serde_json::{Value as Json, json};

use crate::common::member::{Member, assert_follows, own_address};
use crate::common::{Folder, assert_error, wait_for};

const PARTITION: &str = "X-Partition-ID: 3";

fn put(node: &Member, key: &str, value: &str) -> u16 {
    node.put(key, &[PARTITION], value).status
}

fn value(node: &Member, key: &str) -> Option<String> {
    let response = node.get(&format!("/kv/{key}?partition=3"));
    (response.status == 200).then(|| response.text())
}

fn is_ready(node: &Member, role: &str) -> bool {
    node.get(&format!("/{role}?partition=3")).status == 200
}

fn leader_order(replicas: &[&Member]) -> Json {
    let replicas: Vec<String> = replicas.iter().map(|node| node.url()).collect();
    json!({"id": 3, "role": "leader", "replicas": replicas})
}

fn replica_order(leader: &Member) -> Json {
    json!({"id": 3, "role": "replica", "leader": leader.url()})
}

#[track_caller]
fn tell(node: &Member, order: &Json) {
    let response = node.assign(order);
    assert_eq!(response.status, 200, "{}", response.text());
}

fn with_epoch(mut order: Json, epoch: u64) -> Json {
    order["epoch"] = json!(epoch);
    order
}

/// Three nodes of partition 3, in memory or on disk.
fn three(name: &str, has_disks: bool) -> (Vec<Folder>, [Member; 3]) {
    let folders: Vec<Folder> = ["a", "b", "c"]
        .map(|node| Folder::new(&format!("{name}-{node}")))
        .into();
    let start = |folder: &Folder| {
        if has_disks {
            Member::durable(folder, &["--await-assignment"])
        } else {
            Member::start(&["--await-assignment"])
        }
    };
    let nodes = [start(&folders[0]), start(&folders[1]), start(&folders[2])];
    (folders, nodes)
}

/// Node A leads with keys a, b and c, then B leads without A being told, with keys d and e.
fn replaced_leader(name: &str, has_disks: bool) -> (Vec<Folder>, [Member; 3]) {
    let (folders, nodes) = three(name, has_disks);
    let [a, b, c] = &nodes;
    tell(a, &leader_order(&[b, c]));
    tell(b, &replica_order(a));
    tell(c, &replica_order(a));
    wait_for("A to lead", || is_ready(a, "leader"));
    for key in ["a", "b", "c"] {
        assert_eq!(put(a, key, "of-a"), 201);
    }
    wait_for("both to follow A", || {
        [b, c]
            .iter()
            .all(|node| is_ready(node, "replica") && value(node, "c").is_some())
    });
    tell(b, &leader_order(&[c]));
    tell(c, &replica_order(b));
    wait_for("B to lead", || is_ready(b, "leader"));
    for key in ["d", "e"] {
        assert_eq!(put(b, key, "of-b"), 201);
    }
    wait_for("C to follow B", || {
        is_ready(c, "replica") && value(c, "e").is_some()
    });
    (folders, nodes)
}

const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

/// Sends three orders in a sequence, or all at once.
fn send(nodes: &[Member; 3], orders: &[Json; 3], sequence: [usize; 3], at_once: bool) {
    std::thread::scope(|scope| {
        for at in sequence {
            let telling = scope.spawn(move || tell(&nodes[at], &orders[at]));
            if !at_once {
                telling.join().expect("the order is taken");
            }
        }
    });
}

fn assert_a_leads_with_everything(nodes: &[Member; 3], what: &str) {
    let [a, b, c] = nodes;
    wait_for(&format!("A to lead: {what}"), || is_ready(a, "leader"));
    for node in [b, c] {
        wait_for(&format!("B and C to follow: {what}"), || {
            is_ready(node, "replica")
        });
    }
    for (key, expected) in [
        ("a", "of-a"),
        ("b", "of-a"),
        ("c", "of-a"),
        ("d", "of-b"),
        ("e", "of-b"),
    ] {
        for node in nodes {
            assert_eq!(value(node, key).as_deref(), Some(expected), "{key}: {what}");
        }
    }
    assert_eq!(put(a, "f", "of-a"), 201, "{what}");
    for node in [b, c] {
        wait_for(&format!("the next write: {what}"), || {
            value(node, "f").is_some()
        });
    }
}

#[test]
fn whatever_the_order_of_messages_the_leader_has_what_the_last_one_wrote() {
    for (number, sequence) in ORDERS.into_iter().enumerate() {
        for at_once in [false, true] {
            let has_disks = number % 2 == 0;
            let what = format!("{sequence:?}, at once: {at_once}, disks: {has_disks}");
            let (_folders, nodes) =
                replaced_leader(&format!("orders-{number}-{at_once}"), has_disks);
            let [a, b, c] = &nodes;
            let orders = [leader_order(&[b, c]), replica_order(a), replica_order(a)];
            send(&nodes, &orders, sequence, at_once);
            assert_a_leads_with_everything(&nodes, &what);
        }
    }
}

#[test]
fn a_leader_finds_what_others_wrote_without_being_told_where_they_are() {
    for sequence in ORDERS {
        let (_folders, nodes) = replaced_leader(&format!("unnamed-{sequence:?}"), false);
        let [a, ..] = &nodes;
        let orders = [leader_order(&[]), replica_order(a), replica_order(a)];
        send(&nodes, &orders, sequence, true);
        assert_a_leads_with_everything(&nodes, &format!("{sequence:?}"));
    }
}

#[test]
fn a_replaced_leader_hears_of_its_successor() {
    for epoch in [None, Some(7)] {
        let (_folders, nodes) = three(&format!("successor-{}", epoch.unwrap_or(0)), true);
        let [a, b, c] = &nodes;
        let order = |order: Json, above: u64| match epoch {
            Some(epoch) => with_epoch(order, epoch + above),
            None => order,
        };
        tell(a, &order(leader_order(&[b, c]), 0));
        tell(b, &order(replica_order(a), 0));
        tell(c, &order(replica_order(a), 0));
        wait_for("A to lead", || is_ready(a, "leader"));
        assert_eq!(put(a, "k", "1"), 201);
        wait_for("B and C to follow", || {
            is_ready(b, "replica") && is_ready(c, "replica")
        });
        // Only B is told.
        tell(b, &order(leader_order(&[c]), 1));
        wait_for("B to lead", || is_ready(b, "leader"));
        let refused = a.put("late", &[PARTITION], "v");
        assert_error(&refused, 421, "not_leader");
        assert_eq!(refused.header("X-Leader"), Some(&b.url()[..]));
        for node in [a, c] {
            wait_for("all to follow B", || is_ready(node, "replica"));
        }
        assert_eq!(put(b, "k", "2"), 200);
        wait_for("A to have it", || value(a, "k").as_deref() == Some("2"));
        assert_eq!(a.get("/leader?partition=3").status, 503);
    }
}

#[test]
fn a_leader_that_was_away_hears_of_its_successor_when_it_is_back() {
    let (_folders, nodes) = three("away", false);
    let [a, b, c] = &nodes;
    tell(a, &leader_order(&[b, c]));
    tell(b, &replica_order(a));
    tell(c, &replica_order(a));
    wait_for("A to lead", || is_ready(a, "leader"));
    assert_eq!(put(a, "k", "1"), 201);
    wait_for("B and C to follow", || {
        is_ready(b, "replica") && is_ready(c, "replica")
    });
    a.freeze();
    tell(b, &leader_order(&[c]));
    tell(c, &replica_order(b));
    wait_for("B to lead", || is_ready(b, "leader"));
    assert_eq!(put(b, "k", "2"), 200);
    a.thaw();
    wait_for("A to follow B", || value(a, "k").as_deref() == Some("2"));
    assert_error(&a.put("k", &[PARTITION], "3"), 421, "not_leader");
}

/// A leader that lost its data with its process, and is made leader again.
#[test]
fn an_emptied_leader_fetches_its_data_before_it_leads() {
    for (names_replicas, writes_first) in [(true, false), (false, false), (true, true)] {
        let what = format!("names replicas: {names_replicas}, written to first: {writes_first}");
        let any_port = own_address();
        let mut a = Member::start(&["--listen", &any_port]);
        let (b, c) = (Member::replica_of(&a, &[]), Member::replica_of(&a, &[]));
        a.fill(0..50, 20);
        assert_follows(&b, &a);
        assert_follows(&c, &a);
        let digest = a.digest()["digest"].clone();
        let place = a.address.to_string();
        a.kill();
        a = Member::start(&["--listen", &place, "--replication-listen", &any_port]);
        if writes_first {
            assert_eq!(a.put("one", &[], "key").status, 201);
        }
        let replicas = if names_replicas {
            vec![b.url(), c.url()]
        } else {
            Vec::new()
        };
        let order = json!({"id": 0, "role": "leader", "replicas": replicas});
        assert_eq!(a.assign(&order).status, 200, "{what}");
        for node in [&b, &c] {
            let follow = json!({"id": 0, "role": "replica", "leader": a.url()});
            assert_eq!(node.assign(&follow).status, 200, "{what}");
        }
        if writes_first {
            // Its key and theirs: neither is dropped, and the replicas say why they do not follow.
            for node in [&b, &c] {
                wait_for(&format!("the replicas to say so: {what}"), || {
                    node.get("/readyz").text().contains("its data is kept")
                });
            }
        } else {
            wait_for(&format!("all to agree: {what}"), || {
                a.get("/leader").status == 200
                    && [&a, &b, &c]
                        .iter()
                        .all(|node| node.digest()["digest"] == digest)
            });
            assert_eq!(a.put("one", &[], "key").status, 201, "{what}");
            assert_follows(&b, &a);
            assert_follows(&c, &a);
        }
        for node in [&b, &c] {
            assert_eq!(node.get("/kv/key-7").status, 200, "{what}");
            assert_eq!(node.log.count("are dropped"), 0, "{what}");
        }
    }
}

#[test]
fn a_node_that_only_heard_of_an_epoch_may_lead_in_it() {
    let (_folders, nodes) = three("heard", true);
    let [a, b, c] = &nodes;
    tell(a, &with_epoch(leader_order(&[b]), 1));
    tell(c, &with_epoch(replica_order(a), 1));
    wait_for("A to lead", || is_ready(a, "leader"));
    assert_eq!(put(a, "k", "1"), 201);
    wait_for("C to follow", || is_ready(c, "replica"));
    tell(c, &with_epoch(replica_order(a), 2));
    wait_for("A to hear", || !is_ready(a, "leader"));
    tell(a, &with_epoch(leader_order(&[b, c]), 2));
    wait_for("A to lead", || is_ready(a, "leader"));
    assert_eq!(put(a, "k", "2"), 200);
    wait_for("C to follow", || value(c, "k").as_deref() == Some("2"));
    let again = with_epoch(replica_order(c), 2);
    assert_error(&a.assign(&again), 409, "epoch_taken");
}

#[test]
fn epochs_do_not_leap() {
    let folder = Folder::new("leap");
    let node = Member::durable(&folder, &[]);
    assert_eq!(node.put("k", &[], "v").status, 201);
    for epoch in [u64::MAX, 1 << 63, 1 << 53, (1 << 32) + 1] {
        for order in [
            json!({"id": 0, "role": "leader", "epoch": epoch}),
            json!({"id": 0, "role": "replica", "leader": "http://127.0.0.1:1", "epoch": epoch}),
        ] {
            let refused = node.assign(&order);
            assert_error(&refused, 409, "epoch_leaps");
            assert!(refused.text().contains("4294967296"), "{}", refused.text());
        }
    }
    // Nor by what strangers say.
    let port = node.get("/health").json()["replicationPort"]
        .as_u64()
        .expect("a port");
    let address = format!("{}:{port}", node.address.ip());
    for epoch in [u64::MAX, 5] {
        let mut bytes = Vec::new();
        Frame::Hello(Hello {
            protocol_version: PROTOCOL_MIN,
            partition: 0,
            copy: CopyId([9; 16]),
            epoch,
            history: HistoryId([9; 16]),
            position: LogPosition::default(),
            token: b"",
        })
        .encode(&mut bytes);
        let mut stranger = TcpStream::connect(&address).expect("connect");
        stranger.write_all(&bytes).expect("send");
        node.log
            .assert_has(&format!("epoch {epoch} is not believed"));
    }
    // Nor by the claim of a node that shares the data.
    let id = node.partition()["historyId"]
        .as_str()
        .expect("text")
        .to_owned();
    let history: HistoryId = HistoryId::parse(&id).expect("a history");
    let position = LogPosition::default();
    let state = |intent, epoch| {
        Frame::PeerState(PeerState {
            intent,
            epoch,
            ordered_epoch: 0,
            data_epoch: 0,
            data_ordered_epoch: 0,
            last_version: 0,
            lineage: Lineage::new(history),
            address: "http://127.0.0.1:1".to_owned(),
        })
    };
    let mut bytes = Vec::new();
    Frame::Hello(Hello {
        protocol_version: PROTOCOL_VERSION,
        partition: 0,
        copy: CopyId([9; 16]),
        epoch: 0,
        history,
        position,
        token: b"",
    })
    .encode(&mut bytes);
    state(Intent::Survey, 0).encode(&mut bytes);
    state(Intent::Claim, u64::MAX).encode(&mut bytes);
    let mut peer = TcpStream::connect(&address).expect("connect");
    peer.write_all(&bytes).expect("send");
    let mut answer = Vec::new();
    // Its end may be a reset.
    let _ = peer.read_to_end(&mut answer);
    assert!(!answer.is_empty(), "the survey was answered");
    assert_eq!(node.get("/leader").status, 200);
    assert_eq!(node.partition()["epoch"], 0);
    assert_eq!(
        node.assign(&json!({"id": 0, "role": "leader", "epoch": 7}))
            .status,
        200
    );
    assert_eq!(node.put("k", &[], "w").status, 200);
}

#[test]
fn a_replica_that_cannot_tell_how_far_it_is_behind_says_so() {
    let leader = Member::start(&[]);
    let replica = Member::replica_of(&leader, &[]);
    leader.fill(0..10, 10);
    assert_follows(&replica, &leader);
    assert_eq!(replica.get("/replica?max_lag=10").status, 200);
    leader.freeze();
    wait_for("two heartbeats to be missed", || {
        replica.get("/replica?max_lag=10").status == 503
    });
    // Long before the connection is given up, which would say it too.
    let following = &replica.status()["partitions"][0]["leader"];
    assert_eq!(following["state"], "in sync", "{following}");
    assert_eq!(replica.get("/replica").status, 200, "it serves what it has");
    leader.thaw();
    wait_for("the leader to be heard", || {
        replica.get("/replica?max_lag=10").status == 200
    });
}

#[test]
fn a_replica_that_is_refused_is_not_ready() {
    let any_port = own_address();
    let mut leader = Member::start(&["--listen", &any_port]);
    let replica = Member::replica_of(&leader, &[]);
    leader.fill(0..10, 10);
    assert_follows(&replica, &leader);
    let place = leader.address.to_string();
    leader.kill();
    assert_eq!(replica.get("/replica").status, 200, "the leader is away");
    // It comes back without a role.
    let again = [
        "--listen",
        &place,
        "--replication-listen",
        &any_port,
        "--await-assignment",
    ];
    leader = Member::start(&again);
    wait_for("the refusal to count", || {
        replica.get("/replica").status == 503 && replica.get("/readyz").status == 503
    });
    let ready = replica.get("/readyz").text();
    assert!(
        ready.contains("refuses") || ready.contains("not in sync"),
        "{ready}"
    );
    assert_eq!(
        replica.get("/kv/key-7").status,
        200,
        "what it has is served"
    );
    drop(leader);
}

/// A leader that comes back from disk asks before it takes writes, and follows its successor: which
/// of their orders named an epoch does not matter.
#[test]
fn a_restarted_leader_follows_its_successor() {
    for (of_a, of_b) in [
        (None, None),
        (Some(1), None),
        (None, Some(5)),
        (Some(1), Some(5)),
    ] {
        let order = |order: Json, epoch: Option<u64>| match epoch {
            Some(epoch) => with_epoch(order, epoch),
            None => order,
        };
        let what = format!("epochs of the orders: {of_a:?}, {of_b:?}");
        let folders = ["a", "b"].map(|name| Folder::new(&format!("asks-{name}")));
        let any_port = own_address();
        let listen = ["--await-assignment", "--listen", &any_port];
        let mut a = Member::durable(&folders[0], &listen);
        let b = Member::durable(&folders[1], &["--await-assignment"]);
        let place = a.address.to_string();
        tell(&a, &order(leader_order(&[&b]), of_a));
        tell(&b, &order(replica_order(&a), of_a));
        wait_for("A to lead", || is_ready(&a, "leader"));
        assert_eq!(put(&a, "k", "1"), 201);
        wait_for("B to follow", || value(&b, "k").is_some());
        a.kill();
        // While A is away B leads, and nothing tells A.
        tell(&b, &order(leader_order(&[&a]), of_b));
        wait_for("B to lead", || is_ready(&b, "leader"));
        assert_eq!(put(&b, "k", "2"), 200);
        a = Member::durable(
            &folders[0],
            &["--listen", &place, "--replication-listen", &any_port],
        );
        for _ in 0..20 {
            assert_ne!(put(&a, "k", "3"), 200, "{what}: A leads with its old data");
            assert_ne!(put(&a, "other", "3"), 201, "{what}");
        }
        wait_for(&format!("A to follow B ({what})"), || {
            is_ready(&a, "replica") && value(&a, "k").as_deref() == Some("2")
        });
        assert!(is_ready(&b, "leader") && !is_ready(&a, "leader"), "{what}");
        assert_eq!(put(&b, "k", "3"), 200, "{what}");
    }
}

/// Two replicas that follow each other would look in sync for ever: whichever asks second is
/// refused.
#[test]
fn two_nodes_that_follow_each_other_are_not_ready() {
    let a = Member::start(&["--await-assignment"]);
    let b = Member::start(&["--await-assignment"]);
    tell(&a, &leader_order(&[&b]));
    tell(&b, &replica_order(&a));
    wait_for("A to lead", || is_ready(&a, "leader"));
    assert_eq!(put(&a, "k", "1"), 201);
    wait_for("B to follow", || {
        is_ready(&b, "replica") && value(&b, "k").is_some()
    });
    tell(&a, &replica_order(&b));
    wait_for("both to say that there is no leader", || {
        !is_ready(&a, "replica") && !is_ready(&b, "replica")
    });
    tell(&a, &leader_order(&[&b]));
    wait_for("A to lead again", || {
        is_ready(&a, "leader") && is_ready(&b, "replica")
    });
    assert_eq!(put(&a, "k", "2"), 200);
}

/// Writes that two nodes took without knowing of one another: neither is dropped until a controller
/// says which is kept.
#[test]
fn data_that_has_parted_is_dropped_only_on_an_order() {
    for has_disks in [false, true] {
        let (_folders, nodes) = three(&format!("parted-{has_disks}"), has_disks);
        let [a, b, c] = &nodes;
        tell(a, &leader_order(&[b, c]));
        tell(b, &replica_order(a));
        tell(c, &replica_order(a));
        wait_for("A to lead", || is_ready(a, "leader"));
        assert_eq!(put(a, "k", "1"), 201);
        wait_for("B and C to follow", || {
            value(b, "k").is_some() && value(c, "k").is_some()
        });
        // B leads while A stands still, with a write in A's socket that A then takes.
        a.freeze();
        let mut writer = a.connect();
        writer.send(&crate::common::request_bytes(
            "PUT",
            "/kv/x",
            &[PARTITION],
            b"only-a",
        ));
        tell(b, &leader_order(&[c]));
        tell(c, &replica_order(b));
        wait_for("B to lead", || is_ready(b, "leader"));
        assert_eq!(put(b, "y", "only-b"), 201);
        a.thaw();
        let taken = writer.response(false).status;
        if taken != 201 {
            // A heard of B first: there is nothing to tell apart.
            assert_eq!(taken, 421);
            continue;
        }
        wait_for("A to make way, and to say that it holds more", || {
            a.get("/leader?partition=3").status == 503
                && a.get("/readyz").text().contains("its data is kept")
        });
        assert_eq!(value(a, "x").as_deref(), Some("only-a"));
        assert_eq!(value(b, "y").as_deref(), Some("only-b"));
        // Told to lead without an epoch, A does not: B's data is newer, and would be lost to
        // readers.
        tell(a, &leader_order(&[b, c]));
        a.log.assert_has("cannot lead");
        assert!(!is_ready(a, "leader"));
        assert_eq!(value(a, "x").as_deref(), Some("only-a"));
        // An order with an epoch says which of the two is kept.
        tell(b, &with_epoch(leader_order(&[a, c]), 20));
        tell(a, &with_epoch(replica_order(b), 20));
        wait_for("A to follow B", || {
            is_ready(b, "leader") && is_ready(a, "replica") && value(a, "x").is_none()
        });
        assert_eq!(value(a, "y").as_deref(), Some("only-b"));
    }
}

/// A leader names the nodes that it could not tell of its leadership.
#[test]
fn nodes_that_a_leader_could_not_tell_are_shown() {
    let [leader, stranger] = [(); 2].map(|()| Member::start(&[]));
    for (node, key) in [(&leader, "a"), (&stranger, "b")] {
        assert_eq!(node.put(key, &[], "v").status, 201);
    }
    assert_eq!(leader.partition()["notTold"], json!([]));
    let away = "http://127.0.0.1:1";
    let order = json!({"id": 0, "role": "leader", "epoch": 1, "replicas": [away, stranger.url()]});
    tell(&leader, &order);
    wait_for("the leader to take office", || {
        leader.get("/leader").status == 200
    });
    assert_eq!(leader.partition()["notTold"], json!([away, stranger.url()]));
    assert_eq!(stranger.get("/leader").status, 200);
    // On a controller's order it gives up its own data, and follows.
    stranger.follow(&leader, 1);
    assert_follows(&stranger, &leader);
    assert_eq!(leader.partition()["notTold"], json!([away]));
}

#[test]
fn a_replica_that_has_not_reached_its_leader_says_that_it_cannot_know() {
    let replica = Member::start(&["--replica-of", "http://127.0.0.1:1"]);
    wait_for("the reason", || {
        let ready = replica.get("/readyz");
        let words = "not in sync: whether this replica has all data is not known before its leader \
                     is reached: ";
        ready.status == 503 && ready.text().starts_with(words)
    });
}
