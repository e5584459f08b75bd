//! `--max-memory` on real nodes: sets are refused beyond it, everything else goes on, and what can
//! be freed is freed.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

mod common;

use std::time::Duration;

use common::{Client, Node, assert_error, chunked, let_pass, request_bytes, wait_for};
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

/// Sets keys until they are refused although merging has freed what it can; returns how many there
/// are.
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

const UPLOAD_BYTES: usize = 16 << 20;

/// The bytes of an upload as a raw body with a length, in chunks, as JSON, as a form.
fn uploads(value: &[u8]) -> [Vec<u8>; 4] {
    let text = String::from_utf8_lossy(value);
    let json = json!({ "key": "up", "value": text }).to_string();
    let form = format!("key=up&value={text}");
    let chunks = ["Transfer-Encoding: chunked"];
    let form_type = ["Content-Type: application/x-www-form-urlencoded"];
    let mut raw_in_chunks = request_bytes("PUT", "/kv/up", &chunks, b"");
    raw_in_chunks.extend(chunked(value, 100_000));
    [
        request_bytes("PUT", "/kv/up", &[], value),
        raw_in_chunks,
        request_bytes("POST", "/set", &[], json.as_bytes()),
        request_bytes("POST", "/set", &form_type, form.as_bytes()),
    ]
}

/// Uploads that stop before their end hold little, and not for long: small writes go on, and an
/// upload that comes gets in.
#[test]
fn uploads_that_stop_hold_little_and_make_room() {
    const UPLOAD_COUNT: usize = 40;
    for whole in uploads(&vec![b'v'; UPLOAD_BYTES]) {
        let node = Node::start(&["--max-memory", "64MiB"]);
        let what = String::from_utf8_lossy(&whole[..40]).into_owned();
        let stalled: Vec<Client> = (0..UPLOAD_COUNT).map(|_| node.connect()).collect();
        std::thread::scope(|scope| {
            for client in &stalled {
                let part = &whole[..UPLOAD_BYTES / 16 * 15];
                let mut stream = client.stream.try_clone().expect("clone");
                // Those that are refused are closed while they send.
                scope.spawn(move || {
                    let _ = std::io::Write::write_all(&mut stream, part);
                });
            }
        });
        let mut small = node.connect();
        assert!(put(&mut small, 1, b"small") < 300, "{what}");
        // As many as fit were taken, and they are silent now.
        wait_for("room for another upload", || {
            assert!(put(&mut small, 1, b"small") < 300, "{what}");
            let mut client = node.connect();
            client.stream.set_write_timeout(None).expect("set");
            let sending = client.send_in_background(whole.clone());
            let answer = client.response(false);
            if answer.status == 507 {
                assert!(answer.header("Retry-After").is_some(), "{}", answer.text());
            } else {
                assert!(answer.status < 300, "{what}: {}", answer.text());
                sending.join().expect("no panic").expect("all is sent");
            }
            answer.status < 300
        });
        let peak_kib = node.memory_kib("VmHWM");
        eprintln!("{what:?}: {peak_kib} KiB resident at most");
        assert!(peak_kib < 80 * 1024, "{what}: {peak_kib} KiB resident");
        let loop_stats = &node.status()["loop"];
        assert!(loop_stats["endedUploads"].as_u64() >= Some(1), "{what}");
    }
}

#[test]
fn an_upload_that_is_ended_is_told_why() {
    let node = Node::start(&["--max-memory", "24MiB"]);
    let part = vec![b'v'; UPLOAD_BYTES / 2];
    let head = ["Content-Length: 16000000"];
    // Alone it may have more than the half that others would share.
    let mut slow = node.connect();
    slow.send_request("PUT", "/kv/slow", &head, &part);
    node.settle();
    assert_error(
        &node.request("PUT", "/kv/next", &head, b"begun"),
        507,
        "memory_limit",
    );
    let response = slow.response(false);
    assert_error(&response, 507, "upload_too_slow");
    assert_eq!(response.header("Connection"), Some("close"));
    slow.assert_end();
    assert_eq!(node.request("GET", "/kv/slow", &[], b"").status, 404);
    let whole = vec![b'v'; 16_000_000];
    assert_eq!(node.request("PUT", "/kv/next", &[], &whole).status, 201);
    assert_eq!(node.request("GET", "/kv/next", &[], b"").body, whole);
}

/// The one that stands still goes, the one that gets on stays, however long it takes.
#[test]
fn of_two_uploads_the_slower_is_ended() {
    let node = Node::start(&["--max-upload-memory", "32MiB"]);
    let [mut standing, mut getting_on] = [(); 2].map(|()| {
        let mut client = node.connect();
        let head = ["Content-Length: 16000000"];
        client.send_request("PUT", "/kv/k", &head, &[b'v'; 1_000]);
        client
    });
    let third_value = vec![b'3'; 2_000_000];
    let mut sent = 1_000;
    let mut third = None;
    while sent < 16_000_000 {
        let piece = (16_000_000 - sent).min(200_000);
        getting_on.send(&vec![b'v'; piece]);
        sent += piece;
        let_pass(Duration::from_millis(20));
        if third.is_none() {
            let answer = node.request("PUT", "/kv/third", &[], &third_value);
            assert!(matches!(answer.status, 201 | 507), "{}", answer.text());
            third = (answer.status == 201).then_some(sent);
        }
    }
    assert!(third.is_some(), "the third has got in meanwhile");
    assert_eq!(getting_on.response(false).status, 201);
    assert_error(&standing.response(false), 507, "upload_too_slow");
    standing.assert_end();
}

/// Without a limit on memory there is one on uploads. What frees memory goes on whatever it says.
#[test]
fn uploads_together_are_limited_and_deletes_go_on() {
    let node = Node::start(&["--max-upload-memory", "1MiB"]);
    assert_eq!(node.request("PUT", "/kv/k", &[], b"v").status, 201);
    let mut first = node.connect();
    first.send_request("PUT", "/kv/a", &["Content-Length: 900000"], &[b'v'; 5]);
    node.settle();
    let mut second = node.connect();
    let expecting = ["Content-Length: 900000", "Expect: 100-continue"];
    second.send_request("PUT", "/kv/b", &expecting, b"");
    assert_error(&second.response(false), 507, "upload_limit");
    let mut deleting = node.connect();
    deleting.send_request("DELETE", "/delete", &["Content-Length: 11"], b"{\"key\":");
    node.settle();
    deleting.send(b"\"k\"}");
    assert_eq!(deleting.response(false).json()["deleted"], true);
    first.send(&vec![b'v'; 899_995]);
    assert_eq!(first.response(false).status, 201);
    let all = vec![b'v'; 900_000];
    assert_eq!(node.request("PUT", "/kv/b", &[], &all).status, 201);
}

/// Writes all keys anew, again and again, until they were accepted; sets that get 507 are tried
/// again, and are taken before long.
fn overwrite(client: &mut Client, round: u8) {
    let value = vec![round; 20_000];
    for number in 0..400 {
        wait_for("a set to be taken", || put(client, number, &value) < 300);
    }
}

/// Clients ask for scans, backups and views of ever other states, and read none of them: sets go
/// on, and what those pin is let go of.
#[test]
fn answers_that_nobody_reads_do_not_take_the_memory() {
    for arguments in [&["--max-memory", "64MiB"][..], &[]] {
        for target in [
            "/scan?limit=10000",
            "/scan?limit=1&consistent=true",
            "/snapshot",
        ] {
            let what = format!("{arguments:?} {target}");
            let node = Node::start(arguments);
            let mut client = node.connect();
            overwrite(&mut client, 0);
            let mut readers = Vec::new();
            for round in 1..14 {
                let mut reader = node.connect_with_small_buffer();
                reader.send_request("GET", target, &[], b"");
                readers.push(reader);
                overwrite(&mut client, round);
            }
            wait_for("what is pinned to be let go", || {
                let pinned_bytes = node.status()["partitions"][0]["pinnedBytes"].as_u64();
                pinned_bytes.is_some_and(|bytes| bytes <= 64 << 20)
            });
            overwrite(&mut client, 99);
            let peak_kib = node.memory_kib("VmHWM");
            eprintln!("{what}: {peak_kib} KiB resident at most");
            let limit_kib = if arguments.is_empty() { 256 } else { 84 } * 1024;
            assert!(peak_kib < limit_kib, "{what}: {peak_kib} KiB resident");
            let ended = node.status()["loop"]["endedDownloads"].as_u64();
            match target {
                "/scan?limit=10000" => assert!(ended > Some(0), "{what}"),
                // Of backups there are four at most: whether they pin too much is up to the
                // machine.
                "/snapshot" => {}
                _ => assert_eq!(ended, Some(0), "{what}: views are not sent"),
            }
        }
    }
}

/// An answer that is read goes on to its end, however much it pins.
#[test]
fn answers_that_are_read_are_not_cut_off() {
    let node = Node::start(&["--max-memory", "64MiB"]);
    let mut client = node.connect();
    overwrite(&mut client, 1);
    let mut reader = node.connect_with_small_buffer();
    reader.send_request("GET", "/scan?limit=10000", &[], b"");
    assert_eq!(reader.response_head().status, 200);
    let mut bytes = 0;
    for round in 2..6 {
        overwrite(&mut client, round);
        for _ in 0..20 {
            bytes += reader.chunk().map_or(0, |chunk| chunk.len());
        }
    }
    while let Some(chunk) = reader.chunk() {
        bytes += chunk.len();
    }
    assert!(bytes > 400 * 20_000, "{bytes}");
}
