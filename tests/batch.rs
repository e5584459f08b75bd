//! `/batch` on a real node: results as if the operations came one by one, and all writes or none.

#![expect(clippy::too_many_lines, reason = "a scenario reads best in one piece")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

mod common;

use std::collections::BTreeMap;

use common::seeds::seed;
use common::{Client, Node, Response, assert_error, chunked, request_bytes};
use serde_json::{Value as Json, json};

fn batch(client: &mut Client, ops: &[Json]) -> Response {
    client.request(
        "POST",
        "/batch",
        &[],
        json!({ "ops": ops }).to_string().as_bytes(),
    )
}

fn last_version(node: &Node) -> u64 {
    node.status()["partitions"][0]["lastVersion"]
        .as_u64()
        .expect("a number")
}

/// Key to version and value.
type Model = BTreeMap<String, (u64, String)>;

/// Does an operation to the model; what it answers.
fn apply(model: &mut Model, version: &mut u64, op: &Json) -> Json {
    let key = op["key"].as_str().expect("a key").to_owned();
    match op["op"].as_str() {
        Some("set") => {
            *version += 1;
            model.insert(
                key,
                (*version, op["value"].as_str().expect("a value").to_owned()),
            );
            json!({ "success": true, "version": *version })
        }
        Some("delete") => {
            let deleted = model.remove(&key).is_some();
            *version += u64::from(deleted);
            if deleted {
                json!({ "success": true, "deleted": true, "version": *version })
            } else {
                json!({ "success": true, "deleted": false })
            }
        }
        _ => match model.get(&key) {
            Some((version, value)) => {
                json!({ "success": true, "value": value, "version": version })
            }
            None => json!({ "success": false, "error": "key not found" }),
        },
    }
}

/// An operation; `history` is the part of a token behind its version.
fn random_op(rng: &mut fastrand::Rng, model: &Model, history: &str) -> Json {
    let token = |version: u64| json!(format!("{version}-{history}"));
    let key = format!("key {}", rng.u8(..40));
    let current = model.get(&key).map_or(1, |(version, _)| *version);
    let mut op = match rng.u8(..3) {
        0 => json!({ "op": "delete", "key": key }),
        1 => return json!({ "op": "get", "key": key }),
        _ => {
            let len = if rng.u8(..30) == 0 {
                20_000
            } else {
                rng.usize(..300)
            };
            {
                let text = String::from(['x', '"', 'é'][rng.usize(..3)]).repeat(len);
                json!({ "op": "set", "key": key, "value": text })
            }
        }
    };
    let (name, condition) = match rng.u8(..40) {
        0 => ("ifMatch", token(current)),
        1 => ("ifMatch", json!("*")),
        2 => ("ifNoneMatch", json!("*")),
        3 => ("ifNoneMatch", token(current)),
        4 => ("ifMatch", json!(format!("{current}-00000000"))),
        5 => ("ifNoneMatch", json!(format!("{current}-00000000"))),
        _ => return op,
    };
    op[name] = condition;
    op
}

/// Whether the conditions of an operation hold before the batch.
fn holds(model: &Model, op: &Json, history: &str) -> bool {
    let current = model
        .get(op["key"].as_str().expect("a key"))
        .map(|(version, _)| format!("{version}-{history}"));
    let matches = |condition: &Json| {
        current
            .as_ref()
            .is_some_and(|current| condition == "*" || condition == current)
    };
    let is_matched = op.get("ifMatch").is_none_or(matches);
    is_matched && !op.get("ifNoneMatch").is_some_and(matches)
}

#[test]
fn results_are_those_of_the_operations_one_by_one() {
    let seed = seed(5);
    let mut rng = seed.rng();
    let node = Node::start(&["--memtable-bytes", "64KiB"]);
    let mut client = node.connect();
    let (mut model, mut version, mut refused_count) = (Model::new(), 0, 0);
    let history = node.status()["partitions"][0]["historyId"]
        .as_str()
        .expect("text")[..8]
        .to_owned();
    for round in 0..1_500 {
        let ops: Vec<Json> = (0..rng.usize(..12))
            .map(|_| random_op(&mut rng, &model, &history))
            .collect();
        let response = batch(&mut client, &ops);
        let at = format!("round {round}: {ops:?}");
        if let Some(failing) = ops.iter().position(|op| !holds(&model, op, &history)) {
            refused_count += 1;
            assert_error(&response, 412, "condition_failed");
            assert!(
                response.text().contains(&format!("operation {failing}:")),
                "{at}: {}",
                response.text()
            );
            continue;
        }
        let version_before = version;
        let expected: Vec<Json> = ops
            .iter()
            .map(|op| apply(&mut model, &mut version, op))
            .collect();
        assert_eq!(response.status, 200, "{at}: {}", response.text());
        assert_eq!(
            response.plain_json(),
            json!({ "success": true, "results": expected }),
            "{at}"
        );
        // The tag is that of the last write, if there was one.
        let written = (version > version_before).then(|| format!("{version}-{history}"));
        assert_eq!(response.token(), written.as_deref(), "{at}");
    }
    assert!(refused_count > 50, "only {refused_count} were refused");
    assert_eq!(last_version(&node), version, "a refused batch left a write");
    for (key, (version, value)) in &model {
        let response = client.request(
            "POST",
            "/get",
            &[],
            json!({ "key": key }).to_string().as_bytes(),
        );
        assert_eq!(
            response.plain_json(),
            json!({ "success": true, "value": value, "version": version })
        );
    }
}

#[test]
fn what_a_batch_must_look_like() {
    let node = Node::start(&["--max-value-bytes", "1000"]);
    let mut client = node.connect();
    let table: &[(&str, u16, &str)] = &[
        ("", 400, "bad_json"),
        ("[]", 400, "bad_json"),
        ("{}", 400, "bad_json"),
        (r#"{"ops":[]"#, 400, "bad_json"),
        (r#"{"ops":[]}x"#, 400, "bad_json"),
        (r#"{"ops":[],"ops":[]}"#, 400, "bad_json"),
        (r#"{"opss":[]}"#, 400, "bad_json"),
        (r#"{"op":[]}"#, 400, "bad_json"),
        (r#"{"ops":[{"op":"get","key":"a"},]}"#, 400, "bad_json"),
        (
            r#"{"ops":[{"op":"get","key":"a"}{"op":"get","key":"a"}]}"#,
            400,
            "bad_json",
        ),
        (r#"{"ops":["get"]}"#, 400, "bad_json"),
        (r#"{"ops":[{"op":"get","key":"a"]}"#, 400, "bad_json"),
        (r#"{"ops":[{}]}"#, 400, "key_missing"),
        (r#"{"ops":[{"key":"a"}]}"#, 400, "bad_request"),
        (r#"{"ops":[{"op":"incr","key":"a"}]}"#, 400, "bad_request"),
        (r#"{"ops":[{"op":"get","key":""}]}"#, 400, "key_empty"),
        (
            r#"{"ops":[{"op":"get","key":"a","key":"a"}]}"#,
            400,
            "bad_request",
        ),
        (
            r#"{"ops":[{"op":"get","key":"a","value":"b"}]}"#,
            400,
            "bad_request",
        ),
        (
            r#"{"ops":[{"op":"get","key":"a","ifMatch":"*"}]}"#,
            400,
            "bad_request",
        ),
        (
            r#"{"ops":[{"op":"delete","key":"a","ttl":1}]}"#,
            400,
            "bad_request",
        ),
        (r#"{"ops":[{"op":"set","key":"a"}]}"#, 400, "value_missing"),
        (
            r#"{"ops":[{"op":"set","key":"a","value":"b","ttl":0}]}"#,
            400,
            "bad_ttl",
        ),
        (
            r#"{"ops":[{"op":"set","key":"a","value":"b","ifMatch":"x"}]}"#,
            400,
            "bad_request",
        ),
        (
            r#"{"ops":[{"op":"set","key":"a","value":"b","ifMatch":-1}]}"#,
            400,
            "bad_request",
        ),
        (
            r#"{"ops":[{"op":"set","key":"a","value":"b","ifMatch":1}]}"#,
            400,
            "bad_request",
        ),
        (
            r#"{"ops":[{"op":"delete","key":"a","ifNoneMatch":"1"}]}"#,
            400,
            "bad_request",
        ),
        (
            r#"{"ops":[{"op":"delete","key":"a","ifMatch":true}]}"#,
            400,
            "bad_request",
        ),
        (
            r#"{"ops":[{"op":"set","key":"a","value":"b","encoding":"rot13"}]}"#,
            400,
            "bad_request",
        ),
        (
            r#"{"ops":[{"op":"set","key":"a","value":"!","encoding":"base64"}]}"#,
            400,
            "bad_base64",
        ),
        (
            r#"{"ops":[{"op":"set","key":"a","value":"b","colour":"red"}]}"#,
            400,
            "bad_request",
        ),
    ];
    for (text, status, code) in table {
        // One good write before it, which must not be made.
        for text in [
            (*text).to_owned(),
            text.replace("[{", r#"[{"op":"set","key":"first","value":"v"},{"#),
        ] {
            assert_error(
                &client.request("POST", "/batch", &[], text.as_bytes()),
                *status,
                code,
            );
            let pieces = chunked(text.as_bytes(), 1);
            let response =
                client.request("POST", "/batch", &["Transfer-Encoding: chunked"], &pieces);
            assert_eq!(response.status, *status, "{text} in pieces");
        }
    }
    let long = "v".repeat(1001);
    assert_error(
        &batch(
            &mut client,
            &[json!({ "op": "set", "key": "a", "value": long })],
        ),
        413,
        "value_too_large",
    );
    let long = "k".repeat(4097);
    assert_error(
        &batch(&mut client, &[json!({ "op": "get", "key": long })]),
        414,
        "key_too_long",
    );
    let many = |count| vec![json!({ "op": "set", "key": "a", "value": "b" }); count];
    assert_error(&batch(&mut client, &many(1_001)), 413, "batch_too_large");
    let mut spaces = br#"{"ops":["#.to_vec();
    spaces.extend(vec![b' '; 1024 * 1024]);
    let response = client.request(
        "POST",
        "/batch",
        &["Transfer-Encoding: chunked"],
        &chunked(&spaces, 60_000),
    );
    assert_error(&response, 413, "batch_too_large");
    let mut client = node.connect();
    client.send(&request_bytes(
        "POST",
        "/batch",
        &["Content-Length: 2000000", "Expect: 100-continue"],
        b"",
    ));
    assert_error(&client.response(false), 413, "batch_too_large");
    assert_eq!(last_version(&node), 0, "something was written");
    let mut client = node.connect();
    assert_eq!(
        batch(&mut client, &many(1_000)).json()["results"]
            .as_array()
            .map(Vec::len),
        Some(1_000)
    );
    assert_eq!(last_version(&node), 1_000);
}

#[test]
fn reads_are_bounded_and_large_values_are_shared() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let (inline, large) = ("v".repeat(16 * 1024), "é".repeat(400_000));
    client.request("PUT", "/kv/inline", &[], inline.as_bytes());
    client.request("PUT", "/kv/large", &[], large.as_bytes());
    client.request("PUT", "/kv/bytes", &[], &vec![0xff; 100_000]);
    let get = |key: &str| json!({ "op": "get", "key": key });
    let set = json!({ "op": "set", "key": "written", "value": "v" });
    let too_many: Vec<Json> = std::iter::once(set.clone())
        .chain((0..65).map(|_| get("inline")))
        .collect();
    assert_error(&batch(&mut client, &too_many), 413, "batch_too_large");
    assert_eq!(
        client.request("GET", "/kv/written", &[], b"").status,
        404,
        "a refused batch has written"
    );
    let ops: Vec<Json> = std::iter::once(get("large"))
        .chain((0..100).map(|_| get("large")))
        .collect();
    let response = batch(
        &mut client,
        &[&ops[..], &[set, get("bytes"), get("written"), get("none")]].concat(),
    );
    let results = response.json()["results"]
        .as_array()
        .expect("results")
        .clone();
    assert!(
        results[..101]
            .iter()
            .all(|result| result["value"] == large.as_str() && result["version"] == 2)
    );
    assert_eq!(
        (&results[101]["version"], &results[102]["encoding"]),
        (&json!(4), &json!("base64"))
    );
    assert_eq!(
        (&results[103]["value"], &results[104]["success"]),
        (&json!("v"), &json!(false))
    );
    assert!(
        node.memory_kib("VmHWM") < 40 * 1024,
        "{} KiB for an answer of 80 MB",
        node.memory_kib("VmHWM")
    );
}
