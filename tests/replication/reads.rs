//! Reads that show only what as many replicas hold as `--min-acks` demands, and writes and load
//! balancers where fewer are connected: real nodes, and replicas that stand still.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::common::member::{Member, assert_follows, own_address};
use crate::common::{Response, assert_error, let_pass, wait_for};

const NO_ACKS: &[&str] = &["X-Min-Acks: 0"];

/// Two heartbeats, and the time that a heartbeat may be late: within it a replica that stands still
/// still counts.
const UNHEARD: Duration = Duration::from_millis(2_250);

/// A leader with writes and reads that need one replica, and that replica.
fn pair(arguments: &[&str]) -> (Member, Member) {
    let leader = Member::start(&[&["--min-acks", "1"], arguments].concat());
    let replica = Member::replica_of(&leader, &[]);
    assert_follows(&replica, &leader);
    (leader, replica)
}

fn ask(node: &Member, request: &(&str, String, Option<&str>)) -> Response {
    let (method, target, body) = request;
    node.request(method, target, &[], body.unwrap_or_default().as_bytes())
}

/// All ways to read a key that can say what they may show.
fn reads_of(key: &str, consistency: &str) -> Vec<(&'static str, String, Option<&'static str>)> {
    let parameter = format!("consistency={consistency}");
    let batch = r#"{"ops":[{"op":"get","key":"new"},{"op":"get","key":"none"}]}"#;
    vec![
        ("GET", format!("/kv/{key}?{parameter}"), None),
        ("HEAD", format!("/kv/{key}?{parameter}"), None),
        ("GET", format!("/get?key={key}&{parameter}"), None),
        (
            "POST",
            format!("/get?{parameter}"),
            Some(r#"{"key":"new"}"#),
        ),
        ("GET", format!("/scan?prefix={key}&{parameter}"), None),
        ("GET", format!("/scan?consistent=true&{parameter}"), None),
        ("POST", format!("/batch?{parameter}"), Some(batch)),
        // Nothing is there now, since a write that is not confirmed has removed it.
        ("GET", format!("/kv/gone?{parameter}"), None),
    ]
}

/// What a replica does not hold yet is shown by local reads, and by no other: they wait, and are
/// refused if it does not come. What is confirmed is shown at once.
#[test]
fn a_read_of_what_is_acknowledged_waits_until_it_is() {
    let (leader, replica) = pair(&["--ack-timeout-ms", "400"]);
    for key in ["old", "gone"] {
        assert_eq!(leader.put(key, &[], "v").status, 201);
    }
    replica.freeze();
    assert_eq!(leader.put("new", NO_ACKS, "v").status, 201);
    let deleted = leader.request("DELETE", "/kv/gone", NO_ACKS, b"");
    assert_eq!(deleted.status, 204);
    for read in reads_of("new", "local") {
        assert_ne!(ask(&leader, &read).status, 503, "{read:?}");
    }
    let known = leader.get("/kv/old?consistency=acknowledged");
    assert_eq!(known.text(), "v", "it was confirmed before");
    // All of them wait at once, and for as long as they may.
    std::thread::scope(|scope| {
        for read in reads_of("new", "acknowledged") {
            let leader = &leader;
            scope.spawn(move || {
                let refused = ask(leader, &read);
                assert_eq!(refused.status, 503, "{read:?}");
                if read.0 != "HEAD" {
                    assert_error(&refused, 503, "unconfirmed");
                }
            });
        }
    });
    replica.thaw();
    wait_for("the replica to be heard", || {
        leader.get("/kv/new?consistency=acknowledged").status == 200
    });
    for read in reads_of("new", "acknowledged") {
        let shown = ask(&leader, &read);
        let expected = if read.1.starts_with("/kv/gone") {
            404
        } else {
            200
        };
        assert_eq!(shown.status, expected, "{read:?}: {}", shown.text());
    }
}

/// While it waits nothing else of the connection is answered, and then everything in order.
#[test]
fn a_read_that_waits_is_answered_once_it_is_confirmed() {
    let (leader, replica) = pair(&["--ack-timeout-ms", "20000"]);
    replica.freeze();
    let written = leader.put("k", NO_ACKS, "v");
    let token = written.token().expect("a token").to_owned();
    let mut client = leader.connect();
    let condition = format!("If-None-Match: \"{token}\"");
    client.send_request("GET", "/kv/k?consistency=acknowledged", &[], b"");
    client.send_request("GET", "/kv/k?consistency=acknowledged", &[&condition], b"");
    client.send_request("GET", "/kv/none?consistency=acknowledged", &[], b"");
    client.send_request("GET", "/kv/k", &[], b"");
    leader.settle();
    client
        .stream
        .set_nonblocking(true)
        .expect("set nonblocking");
    let mut byte = [0];
    let early = client.stream.peek(&mut byte);
    assert!(early.is_err(), "an answer came before it was true");
    client.stream.set_nonblocking(false).expect("set blocking");
    replica.thaw();
    assert_eq!(client.response(false).text(), "v");
    assert_eq!(client.response(false).status, 304);
    assert_error(&client.response(false), 404, "key_not_found");
    assert_eq!(client.response(false).text(), "v");
}

/// A leader that does not hear its replica for two heartbeats refuses such reads at once, and
/// writes, without doing anything; load balancers are told. So does a replaced
/// leader that no message about it has reached.
#[test]
fn a_leader_that_hears_too_few_replicas_says_so() {
    let (leader, replica) = pair(&["--ack-timeout-ms", "20000"]);
    assert_eq!(leader.put("k", &[], "v").status, 201);
    assert_eq!(leader.get("/leader").status, 200);
    let version = leader.version();
    replica.freeze();
    let frozen_at = Instant::now();
    wait_for("the leader to notice", || {
        leader.get("/leader").status == 503
    });
    assert!(
        frozen_at.elapsed() < UNHEARD + Duration::from_secs(5),
        "after {:?}",
        frozen_at.elapsed()
    );
    let said = leader.get("/leader").text();
    assert!(said.contains("0 of the 1 replicas"), "{said}");
    // At once: far sooner than the 20 s that a reply may wait.
    let asked_at = Instant::now();
    for read in reads_of("k", "acknowledged") {
        let refused = ask(&leader, &read);
        assert_eq!(refused.status, 503, "{read:?}");
        if read.0 != "HEAD" {
            assert_error(&refused, 503, "too_few_replicas");
            assert_eq!(refused.header("Retry-After"), Some("1"));
        }
    }
    let set = json!({"ops": [{"op": "set", "key": "k", "value": "w"}, {"op": "get", "key": "k"}]});
    for (method, target, body) in [
        ("PUT", "/kv/k", "w".to_owned()),
        ("POST", "/set", r#"{"key":"k","value":"w"}"#.to_owned()),
        ("PUT", "/kv/k", "w".repeat(1 << 20)),
        ("DELETE", "/kv/k", String::new()),
        ("POST", "/delete", r#"{"key":"k"}"#.to_owned()),
        ("POST", "/batch", set.to_string()),
    ] {
        let refused = leader.request(method, target, &[], body.as_bytes());
        assert_error(&refused, 503, "too_few_replicas");
    }
    assert!(asked_at.elapsed() < Duration::from_secs(10));
    assert_eq!(leader.version(), version, "nothing was done");
    assert_eq!(leader.get("/kv/k").text(), "v", "local reads go on");
    assert_eq!(leader.get("/readyz").status, 200);
    assert_eq!(leader.put("k", NO_ACKS, "w").status, 200);
    replica.thaw();
    wait_for("all to go on", || {
        leader.get("/leader").status == 200
            && leader.get("/kv/k?consistency=acknowledged").text() == "w"
            && leader.put("k", &[], "x").status == 200
    });
}

/// A replica that was connected just now is likely to be back at once: a write waits for it rather
/// than being refused. One that stays away is not waited for.
#[test]
fn a_write_waits_for_a_replica_that_is_about_to_come_back() {
    let leader = Member::start(&["--min-acks", "1", "--ack-timeout-ms", "20000"]);
    let refused = leader.put("early", &[], "v");
    assert_error(&refused, 503, "too_few_replicas");
    assert_eq!(leader.get("/kv/early").status, 404);
    assert_eq!(leader.get("/leader").status, 503);
    let ready = |expected: &str| {
        for target in ["/readyz", "/readyz?partition=0"] {
            let answer = leader.get(target);
            assert_eq!((answer.status, &answer.text()[..]), (200, expected));
        }
    };
    ready("ready; too few replicas are connected: writes are refused\n");
    let address = own_address();
    let arguments = ["--listen", &address];
    let mut replica = Member::replica_of(&leader, &arguments);
    wait_for("the replica to count", || {
        leader.get("/leader").status == 200
    });
    ready("ready\n");
    assert_eq!(leader.put("k", &[], "v").status, 201);
    for round in 0..3 {
        replica.kill();
        wait_for("the replica to leave", || {
            leader.partition()["replicas"] == json!([])
        });
        let mut writer = leader.connect();
        writer.send_request("PUT", "/kv/k", &[], round.to_string().as_bytes());
        leader.settle();
        // Reads are not answered by a leader without replicas, however short that lasts.
        let read = leader.get("/kv/k?consistency=acknowledged");
        assert_error(&read, 503, "too_few_replicas");
        replica = Member::replica_of(&leader, &arguments);
        assert_eq!(writer.response(false).status, 200);
    }
    replica.kill();
    let_pass(UNHEARD + Duration::from_millis(100));
    assert_error(&leader.put("k", &[], "v"), 503, "too_few_replicas");
}

/// Replicas do not know what is acknowledged, and a node may read like that unless asked otherwise.
#[test]
fn what_a_read_shows_is_asked_for_or_set() {
    let leader = Member::start(&["--min-acks=1", "--read-consistency=acknowledged"]);
    let replica = Member::replica_of(&leader, &["--read-consistency=acknowledged"]);
    wait_for("the replica", || replica.get("/replica").status == 200);
    assert_eq!(leader.put("k", &[], "v").status, 201);
    assert_follows(&replica, &leader);
    assert_eq!(leader.get("/kv/k").text(), "v");
    for read in reads_of("k", "acknowledged") {
        let refused = ask(&replica, &read);
        assert_eq!(refused.status, 421, "{read:?}");
        assert_eq!(refused.header("X-Leader"), Some(&*leader.url()));
    }
    assert_error(&replica.get("/kv/k"), 421, "not_leader");
    assert_eq!(replica.get("/kv/k?consistency=local").text(), "v");
    assert_eq!(leader.status()["config"]["readConsistency"], "acknowledged");
    assert_error(&leader.get("/kv/k?consistency=strong"), 400, "bad_query");
    let unknown = leader.get("/watch?consistency=local&timeout=0");
    assert_error(&unknown, 400, "unknown_parameter");
    // Without --min-acks there is nothing to wait for but this node's own disk.
    let alone = Member::start(&[]);
    alone.put("k", &[], "v");
    assert_eq!(alone.get("/kv/k?consistency=acknowledged").text(), "v");
    assert_eq!(alone.get("/leader").status, 200);
}
