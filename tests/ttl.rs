//! Keys with a time to live, on real nodes: however they were written, they are there until their
//! time is over and not a moment longer, for every kind of request, after a restart and on
//! replicas.

#![expect(clippy::too_many_lines, reason = "a scenario reads best in one piece")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

mod common;

use std::time::{Duration, Instant, UNIX_EPOCH};

use common::{Folder, Node, PATIENCE, assert_error, let_pass, wait_for};

/// Long enough for a few requests to be surely before its end.
const TTL: Duration = Duration::from_millis(1_500);
/// More than a turn of the node takes, on a machine that has other things to do.
const TURN: Duration = Duration::from_millis(100);

/// Key, method, target, headers, body.
type Write<'a> = (&'a str, &'a str, &'a str, &'a [&'a str], &'a [u8]);

/// Seconds, as `X-TTL` says them.
fn remaining(node: &Node, key: &str) -> Option<f64> {
    let response = node.request("GET", &format!("/kv/{key}"), &[], b"");
    match response.status {
        200 => response
            .header("X-TTL")
            .map(|text| text.parse().expect("a number")),
        404 => None,
        status => panic!("{status}: {}", response.text()),
    }
}

/// The node's clock, to a second.
fn unix_ms(node: &Node) -> u128 {
    let response = node.request("GET", "/health", &[], b"");
    let date = httpdate::parse_http_date(response.header("Date").expect("a date")).expect("a date");
    date.duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_millis()
}

#[test]
fn every_way_to_write_takes_a_time_to_live_and_every_way_to_read_keeps_to_it() {
    let node = Node::start(&[]);
    let large = vec![b'v'; 100_000];
    let ttl = "X-TTL: 1.5";
    let writes: [Write<'_>; 7] = [
        ("put", "PUT", "/kv/put", &[ttl], b"v"),
        ("put-query", "PUT", "/kv/put-query?ttl=1.5", &[], b"v"),
        ("large", "PUT", "/kv/large", &[ttl], &large),
        ("raw", "POST", "/set?key=raw&ttl=1.5", &[], b"v"),
        (
            "json",
            "POST",
            "/set",
            &[],
            br#"{"key":"json","ttl":1.5,"value":"v"}"#,
        ),
        (
            "json-header",
            "POST",
            "/set",
            &[ttl],
            br#"{"key":"json-header","value":"v"}"#,
        ),
        (
            "form",
            "POST",
            "/set",
            &["Content-Type: application/x-www-form-urlencoded"],
            b"key=form&ttl=1.5&value=v",
        ),
    ];
    let begun = Instant::now();
    for (key, method, target, headers, body) in writes {
        let response = node.request(method, target, headers, body);
        assert!(
            matches!(response.status, 200 | 201),
            "{key}: {}",
            response.text()
        );
    }
    node.request("PUT", "/kv/forever", &[], b"v");
    node.request("PUT", "/kv/renewed", &[ttl], b"v");
    node.request("PUT", "/kv/renewed", &[], b"for good");
    node.request("PUT", "/kv/shortened", &[], b"v");
    node.request("PUT", "/kv/shortened", &[ttl], b"w");
    let written = Instant::now();
    for (key, ..) in writes {
        let (before, left, after) = (begun.elapsed(), remaining(&node, key), written.elapsed());
        let Some(left) = left else {
            assert!(before + begun.elapsed() > TTL, "{key} was gone at once");
            continue;
        };
        let (least, most) = (
            TTL.saturating_sub(begun.elapsed()).as_secs_f64(),
            TTL.as_secs_f64(),
        );
        assert!(
            left >= least - 0.002 && left <= most,
            "{key}: {left} left, {before:?} to {after:?} after its writing"
        );
    }
    assert_eq!(remaining(&node, "forever"), None);
    let scan = node
        .request("GET", "/scan?consistent=true", &[], b"")
        .json();
    let position = scan["position"].as_str().expect("a position").to_owned();
    let response = node.request("GET", "/get?key=json", &[], b"");
    if written.elapsed() < TTL / 2 {
        assert_eq!(
            (response.status, response.header("X-TTL").is_some()),
            (200, true),
            "{}",
            response.text()
        );
    }
    // Once one is gone, it is gone for every kind of request. The node looks at its clock once in a
    // turn, so a request that comes during a turn is answered as of its beginning.
    let_pass((TTL + TURN).saturating_sub(written.elapsed()));
    let scan = node
        .request("GET", &format!("/scan?at={position}"), &[], b"")
        .json();
    let found = scan["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| item["key"].as_str().expect("a key"));
    assert_eq!(
        found.collect::<Vec<_>>(),
        ["forever", "renewed"],
        "not on a later page either"
    );
    for key in writes.iter().map(|write| write.0).chain(["shortened"]) {
        for (method, target) in [
            ("GET", format!("/kv/{key}")),
            ("GET", format!("/get?key={key}")),
        ] {
            assert_error(
                &node.request(method, &target, &[], b""),
                404,
                "key_not_found",
            );
        }
        let deleted = node.request("DELETE", &format!("/delete?key={key}"), &[], b"");
        assert_eq!(deleted.json()["deleted"], false, "{key}");
        assert_error(
            &node.request("DELETE", &format!("/kv/{key}"), &[], b""),
            404,
            "key_not_found",
        );
        let target = format!("/kv/{key}");
        assert_error(
            &node.request("PUT", &target, &["If-Match: *"], b"v"),
            412,
            "condition_failed",
        );
        assert_eq!(
            node.request("PUT", &target, &["If-None-Match: *"], b"new")
                .status,
            201,
            "{key}"
        );
    }
    for (key, value) in [("forever", "v"), ("renewed", "for good"), ("json", "new")] {
        let response = node.request("GET", &format!("/kv/{key}"), &[], b"");
        assert_eq!(
            (response.text().as_str(), response.header("X-TTL")),
            (value, None),
            "{key}"
        );
    }
}

#[test]
fn a_time_to_live_outlasts_a_restart_and_holds_on_replicas() {
    let folder = Folder::new("ttl");
    let arguments = ["--data-dir", folder.path()];
    let mut leader = Node::start(&arguments);
    wait_for("the data to be loaded", || {
        leader.request("GET", "/readyz", &[], b"").status == 200
    });
    let begun = Instant::now();
    for key in ["in-checkpoint", "in-log"] {
        assert_eq!(
            leader
                .request("PUT", &format!("/kv/{key}"), &["X-TTL: 3"], b"v")
                .status,
            201
        );
        leader.request("PUT", &format!("/kv/{key}-stays"), &["X-TTL: 1000"], b"v");
        if key == "in-checkpoint" {
            assert_eq!(
                leader.request("POST", "/admin/checkpoint", &[], b"").status,
                202
            );
            wait_for("the checkpoint", || {
                leader.status()["partitions"][0]["disk"]["checkpointVersion"] == 2
            });
        }
    }
    leader.signal("TERM");
    assert!(leader.wait().success());
    let leader = Node::start(&arguments);
    wait_for("the data to be loaded", || {
        leader.request("GET", "/readyz", &[], b"").status == 200
    });
    let replica = Node::start(&["--replica-of", &format!("http://{}", leader.address)]);
    wait_for("the replica", || {
        replica.request("GET", "/replica", &[], b"").status == 200
    });
    for key in ["in-checkpoint", "in-log"] {
        for node in [&leader, &replica] {
            let left = remaining(node, key);
            assert!(
                left.is_some_and(|left| left <= 3.0) || begun.elapsed() >= Duration::from_secs(3),
                "{key}: {left:?}"
            );
            let left = remaining(node, &format!("{key}-stays"));
            assert!(left.is_some_and(|left| left > 900.0), "{key}: {left:?}");
        }
    }
    let later = format!("/digest?at={}", unix_ms(&leader) + 10_000);
    assert_eq!(leader.request("GET", &later, &[], b"").json()["keys"], 2);
    let all = leader.request(
        "GET",
        &format!("/digest?at={}", unix_ms(&leader) + 2_000_000),
        &[],
        b"",
    );
    assert_eq!(all.json()["keys"], 0);
    assert_eq!(
        leader.request("GET", &later, &[], b"").json(),
        replica.request("GET", &later, &[], b"").json()
    );
    for node in [&leader, &replica] {
        wait_for("the end", || remaining(node, "in-log").is_none());
        assert!(
            begun.elapsed() >= Duration::from_secs(3),
            "gone before its time"
        );
        assert!(begun.elapsed() < Duration::from_secs(3) + PATIENCE);
    }
}
