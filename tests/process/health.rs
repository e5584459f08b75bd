//! What a node says of itself: `/healthz` and `/status`.

use crate::common::{Node, command, request_bytes, wait_for};

#[test]
fn health_has_what_controllers_read() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let empty = client.request("GET", "/health", &[], b"");
    assert_eq!(
        (empty.status, empty.header("Content-Type")),
        (200, Some("application/json"))
    );
    let empty = empty.json();
    assert_eq!(empty["status"], "OK");
    assert_eq!(empty["memTableSize"], 0);
    assert!(empty["levels"].is_u64());
    assert_eq!(empty["partitions"], serde_json::json!([0]));
    assert_eq!(empty["role"], "leader");
    assert_eq!(empty["version"], 0);
    assert!(empty["uptimeMs"].is_u64());
    assert!(
        empty
            .get("replicationPort")
            .is_some_and(|port| port.is_null() || port.is_u64())
    );

    for index in 0..10 {
        client.request("PUT", &format!("/kv/{index}"), &[], &[b'v'; 100]);
    }
    let written = client.request("GET", "/health", &[], b"").json();
    assert_eq!(written["version"], 10);
    let bytes = written["memTableSize"].as_u64().expect("a number");
    assert!(
        (1_000..3_000).contains(&bytes),
        "{bytes} for 1010 bytes of keys and values"
    );
    for (path, said) in [("/livez", "alive\n"), ("/readyz", "ready\n")] {
        let response = client.request("GET", path, &[], b"");
        assert_eq!((response.status, response.text().as_str()), (200, said));
        assert_eq!(response.header("Content-Type"), Some("text/plain"));
        let head = client.request("HEAD", path, &[], b"");
        assert_eq!(
            head.header("Content-Length"),
            Some(said.len().to_string().as_str())
        );
    }
}

#[test]
fn status_tells_the_configuration_in_force() {
    let arguments = [
        "--max-connections",
        "99",
        "--max-value-bytes",
        "1MiB",
        "--idle-timeout-ms",
        "1234",
    ];
    let mut command = command();
    command
        .args(["--listen", "127.0.0.1:0"])
        .args(arguments)
        .env("DB_NODE_HEADER_TIMEOUT_MS", "4321");
    // A flag wins over the environment.
    command.env("DB_NODE_MAX_CONNECTIONS", "7");
    let node = Node::spawn(command);
    let status = node.status();
    let config = &status["config"];
    assert_eq!(config["maxConnections"], 99);
    assert_eq!(config["maxValueBytes"], 1 << 20);
    assert_eq!(config["idleTimeoutMs"], 1234);
    assert_eq!(config["headerTimeoutMs"], 4321);
    assert_eq!(config["memtableBytes"], 4 << 20);
    assert_eq!(config["token"], false);
    assert_eq!(status["draining"], false);
    let requests = node.status()["loop"]["requests"]
        .as_u64()
        .expect("a number");
    assert_eq!(requests, 2);
    assert_eq!(node.status()["loop"]["acceptedConnections"], 3);
}

/// The sum of a field over the levels.
fn over_levels(partition: &serde_json::Value, field: &str) -> u64 {
    let levels = partition["levels"].as_array().expect("levels");
    levels
        .iter()
        .map(|level| level[field].as_u64().expect("a number"))
        .sum()
}

#[test]
fn status_tells_what_was_written() {
    const KEY_COUNT: u64 = 3_000;
    let node = Node::start(&["--memtable-bytes", "64KiB"]);
    let mut client = node.connect();
    let mut write = |round: u64| {
        let mut bytes = Vec::new();
        for key in 0..KEY_COUNT {
            bytes.extend(request_bytes(
                "PUT",
                &format!("/kv/key-{key:05}"),
                &[],
                format!("{round}:{key}").as_bytes(),
            ));
        }
        let sending = client.send_in_background(bytes);
        for _ in 0..KEY_COUNT {
            assert!(client.response(false).status < 300);
        }
        sending.join().expect("no panic").expect("all is sent");
    };
    write(0);
    write(1);
    for key in 0..KEY_COUNT / 3 {
        assert_eq!(
            node.request(
                "DELETE",
                &format!("/kv/key-{:05}", key * 3),
                &["Connection: close"],
                b""
            )
            .status,
            204
        );
    }
    let version = 2 * KEY_COUNT + KEY_COUNT / 3;
    let partition = |node: &Node| node.status()["partitions"][0].clone();
    let now = partition(&node);
    assert_eq!((&now["id"], &now["role"]), (&0.into(), &"leader".into()));
    assert_eq!(now["lastVersion"], version);
    assert!(
        over_levels(&now, "layers") > 0,
        "64 KiB memtables were frozen: {now}"
    );
    assert_eq!(now["pinnedSnapshots"], 0);

    client = node.connect();
    let frozen = client.request("POST", "/admin/freeze", &[], b"");
    assert_eq!(
        (frozen.status, frozen.json()),
        (200, serde_json::json!({"success": true, "frozen": true}))
    );
    let again = client.request("POST", "/admin/freeze", &[], b"");
    assert_eq!(
        again.json(),
        serde_json::json!({"success": true, "frozen": false})
    );
    wait_for("the debt to be paid", || partition(&node)["debt"] == 0);
    let settled = partition(&node);
    assert_eq!(
        (&settled["memtableEntries"], &settled["lastVersion"]),
        (&0.into(), &version.into())
    );
    let entries = over_levels(&settled, "entries");
    assert!(
        (KEY_COUNT - KEY_COUNT / 3..=version).contains(&entries),
        "{settled}"
    );

    let compacting = client.request("POST", "/admin/compact", &[], b"");
    assert_eq!(
        (compacting.status, compacting.json()),
        (202, serde_json::json!({"success": true}))
    );
    wait_for("one layer", || {
        let now = partition(&node);
        now["debt"] == 0 && over_levels(&now, "layers") == 1
    });
    let compact = partition(&node);
    assert_eq!(
        over_levels(&compact, "entries"),
        KEY_COUNT - KEY_COUNT / 3,
        "the deleted are gone: {compact}"
    );
    assert_eq!(compact["lastVersion"], version);
    let health = client.request("GET", "/health", &[], b"").json();
    assert_eq!(
        (&health["version"], &health["memTableSize"]),
        (&version.into(), &0.into())
    );
    for key in 0..KEY_COUNT {
        let response = client.request("GET", &format!("/kv/key-{key:05}"), &[], b"");
        if key % 3 == 0 {
            assert_eq!(response.status, 404, "{key}");
        } else {
            assert_eq!(response.text(), format!("1:{key}"));
            assert_eq!(response.tag_version(), Some(KEY_COUNT + key + 1));
        }
    }
}
