//! `--max-memory` on real nodes: sets are refused beyond it, everything else goes on, and what can be freed is freed.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

mod common;

use std::time::Duration;

use common::{Client, Node, assert_error, let_pass, wait_for};
use serde_json::json;

const LIMIT_KIB: u64 = 16 * 1024;

/// What may be resident then: the program itself, and what the heap takes beyond what is allocated.
const RESIDENT_MAX_KIB: u64 = 4 * 1024 + LIMIT_KIB * 13 / 10;

fn put(client: &mut Client, number: usize, value: &[u8]) -> u16 {
    let response = client.request("PUT", &format!("/kv/key:{number:08}"), &[], value);
    if response.status == 507 {
        assert_error(&response, 507, "memory_limit");
    }
    response.status
}

/// Sets keys until they are refused although merging has freed what it can; returns how many there are.
fn fill(node: &Node, client: &mut Client, value: &[u8]) -> usize {
    let mut count = 0;
    loop {
        while put(client, count, value) != 507 {
            count += 1;
        }
        // The last try to free something is a second away at most.
        wait_for("maintenance", || {
            let_pass(Duration::from_millis(1_100));
            node.status()["partitions"][0]["debt"] == 0
        });
        if put(client, count, value) == 507 {
            return count;
        }
        count += 1;
    }
}

#[test]
fn sets_are_refused_and_all_else_goes_on() {
    for value in [vec![b'v'; 200], vec![b'v'; 50_000]] {
        let node = Node::start(&["--max-memory", "16MiB", "--memtable-bytes", "1MiB"]);
        let mut client = node.connect();
        let count = fill(&node, &mut client, &value);
        assert!(
            count * value.len() > 8 << 20,
            "only {count} values of {} bytes",
            value.len()
        );
        let peak_kib = node.memory_kib("VmHWM");
        assert!(
            peak_kib < RESIDENT_MAX_KIB,
            "{peak_kib} KiB resident with a limit of {LIMIT_KIB}"
        );
        assert_eq!(
            put(&mut client, 0, b"smaller"),
            507,
            "an overwrite adds, too"
        );
        let batch = |op: &str| {
            json!({ "ops": [{ "op": op, "key": "key:00000001" }] })
                .to_string()
                .into_bytes()
        };
        let set =
            json!({ "ops": [{ "op": "set", "key": "key:00000001", "value": "v" }] }).to_string();
        assert_error(
            &client.request("POST", "/batch", &[], set.as_bytes()),
            507,
            "memory_limit",
        );
        assert_eq!(
            client.request("POST", "/batch", &[], &batch("get")).status,
            200
        );
        assert_eq!(
            client.request("GET", "/kv/key:00000001", &[], b"").body,
            value
        );
        assert_eq!(client.request("GET", "/scan?limit=5", &[], b"").status, 200);
        assert_eq!(
            client
                .request("POST", "/batch", &[], &batch("delete"))
                .status,
            200
        );
        for number in 2..count / 2 {
            assert_eq!(
                client
                    .request("DELETE", &format!("/kv/key:{number:08}"), &[], b"")
                    .status,
                204
            );
        }
        wait_for("room to be made", || {
            put(&mut node.connect(), 1, b"again") == 201
        });
        for number in 2..count / 4 {
            wait_for("more room", || put(&mut client, number, &value) == 201);
        }
    }
}

/// Data that is overwritten again and again stays within the limit, although its log does not.
#[test]
fn what_is_overwritten_makes_room() {
    let node = Node::start(&["--max-memory", "16MiB", "--memtable-bytes", "1MiB"]);
    let mut client = node.connect();
    let value = vec![b'v'; 1_000];
    for number in 0..100_000 {
        while put(&mut client, number % 10_000, &value) == 507 {}
    }
    let peak_kib = node.memory_kib("VmHWM");
    assert!(
        peak_kib < RESIDENT_MAX_KIB,
        "{peak_kib} KiB resident with a limit of {LIMIT_KIB}"
    );
    assert_eq!(
        client.request("GET", "/digest", &[], b"").json()["keys"],
        10_000
    );
}
