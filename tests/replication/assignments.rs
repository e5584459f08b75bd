//! Roles, epochs and partitions, as a controller assigns them.

use std::net::TcpStream;

use serde_json::{Value as Json, json};

use crate::common::member::{Member, assert_follows, own_address};
use crate::common::{Folder, Node, assert_error, command, request_bytes, wait_for, without_tokens};

#[test]
fn the_epoch_decides_which_role_a_node_has() {
    let node = Member::start(&[]);
    assert_eq!(node.put("k", &[], "v").status, 201);
    let leader = |epoch: u64| json!({"id": 0, "role": "leader", "epoch": epoch});
    let address = "http://127.0.0.1:1";
    let replica =
        |epoch: u64| json!({"id": 0, "role": "replica", "leader": address, "epoch": epoch});
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
    let taken = node.assign(&replica(5));
    assert_error(&taken, 409, "epoch_taken");
    assert!(
        taken.text().contains("this node is the leader in epoch 5:"),
        "{}",
        taken.text()
    );
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
    // A replica without any leader so far has heard of no epoch.
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
