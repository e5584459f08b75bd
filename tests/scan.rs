//! `/scan` on a real node: the keys that there are, in order, from one point in time, whatever is
//! written meanwhile.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

mod common;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use common::seeds::seed;
use common::{
    Client, Node, assert_error, let_pass, percent_encoded, version_of, wait_for, without_tokens,
};
use serde_json::Value as Json;

/// Key to version and value.
type Model = BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

fn put(client: &mut Client, model: &mut Model, key: &[u8], value: Vec<u8>) {
    let response = client.request("PUT", &format!("/kv/{}", percent_encoded(key)), &[], &value);
    let version = response.tag_version().expect("a version");
    model.insert(key.to_vec(), (version, value));
}

/// What a field and its encoding stand for.
fn bytes(object: &Json, name: &str, encoding_name: &str) -> Option<Vec<u8>> {
    let text = object[name].as_str()?;
    Some(match object[encoding_name].as_str() {
        Some("base64") => BASE64.decode(text).expect("base64"),
        None => text.as_bytes().to_vec(),
        Some(other) => panic!("encoding {other}"),
    })
}

/// Key, version and value.
type Item = (Vec<u8>, (u64, Vec<u8>));

struct Page {
    items: Vec<Item>,
    next: Option<Vec<u8>>,
    position: String,
}

fn scan(client: &mut Client, query: &str) -> Page {
    let response = client.request("GET", &format!("/scan?{query}"), &[], b"");
    assert_eq!(response.status, 200, "{query}: {}", response.text());
    let position = response.json()["position"].as_str().map(str::to_owned);
    let json = without_tokens(response.json());
    assert_eq!(json["success"], true);
    let item = |item: &Json| {
        let value = bytes(item, "value", "encoding").unwrap_or_default();
        (
            bytes(item, "key", "keyEncoding").expect("a key"),
            (item["version"].as_u64().expect("a version"), value),
        )
    };
    Page {
        items: json["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(item)
            .collect(),
        next: bytes(&json, "next", "nextEncoding"),
        position: position.expect("a position"),
    }
}

fn random_key(rng: &mut fastrand::Rng) -> Vec<u8> {
    match rng.u8(..5) {
        0 => vec![0xff; rng.usize(1..4)],
        1 => vec![rng.u8(..), rng.u8(..)],
        2 => format!("user/{}/é\"", rng.u8(..30)).into_bytes(),
        _ => format!("user:{:03}", rng.u8(..200)).into_bytes(),
    }
}

fn random_value(rng: &mut fastrand::Rng) -> Vec<u8> {
    let len = if rng.u8(..100) == 0 {
        40_000
    } else {
        rng.usize(..80)
    };
    vec![if rng.u8(..5) == 0 { 0xff } else { b'v' }; len]
}

#[test]
fn a_scan_finds_what_is_in_its_range() {
    let seed = seed(9);
    let mut rng = seed.rng();
    let node = Node::start(&["--memtable-bytes", "64KiB"]);
    let mut client = node.connect();
    let mut model = Model::new();
    for round in 0..400 {
        for _ in 0..rng.usize(..20) {
            let key = random_key(&mut rng);
            if rng.u8(..4) == 0 {
                client.request(
                    "DELETE",
                    &format!("/kv/{}", percent_encoded(&key)),
                    &[],
                    b"",
                );
                model.remove(&key);
            } else {
                let value = random_value(&mut rng);
                put(&mut client, &mut model, &key, value);
            }
        }
        let mut query = Vec::new();
        let mut pick = |rng: &mut fastrand::Rng, name: &str| {
            let key = if rng.u8(..3) == 0 {
                Some(random_key(rng))
            } else {
                None
            };
            query.extend(
                key.as_ref()
                    .map(|key| format!("{name}={}", percent_encoded(key))),
            );
            key
        };
        let (start, end, after) = (
            pick(&mut rng, "start"),
            pick(&mut rng, "end"),
            pick(&mut rng, "after"),
        );
        let prefix = pick(&mut rng, "prefix").map(|prefix| prefix[..1].to_vec());
        query.retain(|parameter| !parameter.starts_with("prefix"));
        query.extend(
            prefix
                .as_ref()
                .map(|prefix| format!("prefix={}", percent_encoded(prefix))),
        );
        let limit = if rng.bool() { rng.usize(1..30) } else { 100 };
        query.push(format!("limit={limit}"));
        let is_found = |key: &[u8]| {
            start.as_ref().is_none_or(|start| key >= &start[..])
                && end.as_ref().is_none_or(|end| key < &end[..])
                && after.as_ref().is_none_or(|after| key > &after[..])
                && prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix))
        };
        let all: Vec<_> = model.iter().filter(|(key, _)| is_found(key)).collect();
        let page = scan(&mut client, &query.join("&"));
        let at = format!("round {round}: {query:?}");
        let expected: Vec<_> = all
            .iter()
            .take(limit)
            .map(|(key, value)| ((*key).clone(), (*value).clone()))
            .collect();
        assert_eq!(page.items, expected, "{at}");
        let next = if all.len() > limit {
            expected.last().map(|(key, _)| key.clone())
        } else {
            None
        };
        assert_eq!(page.next, next, "{at}");
    }
}

#[test]
fn pages_of_one_scan_are_of_one_point_in_time() {
    let node = Node::start(&["--memtable-bytes", "64KiB"]);
    let mut client = node.connect();
    let mut rng = fastrand::Rng::with_seed(4);
    let mut model = Model::new();
    for _ in 0..3_000 {
        let key = [random_key(&mut rng), random_key(&mut rng)].concat();
        let value = random_value(&mut rng);
        put(&mut client, &mut model, &key, value);
    }
    let expected = model.clone();
    let mut page = scan(&mut client, "consistent=true&limit=70");
    let position = page.position;
    let mut found = page.items;
    while let Some(next) = page.next {
        for _ in 0..5 {
            let key = [random_key(&mut rng), random_key(&mut rng)].concat();
            put(&mut client, &mut model, &key, b"later".to_vec());
        }
        let after = percent_encoded(BASE64.encode(next).as_bytes());
        page = scan(
            &mut client,
            &format!("at={position}&limit=70&after={after}&after_encoding=base64"),
        );
        assert_eq!(page.position, position);
        found.extend(page.items);
    }
    assert!(
        found == expected.into_iter().collect::<Vec<_>>(),
        "the pages are of different times"
    );
    let now = scan(&mut client, "limit=10000");
    assert!(
        now.items == model.into_iter().collect::<Vec<_>>(),
        "what was written meanwhile"
    );
    // The version alone will do; that of another history will not.
    let version = version_of(&position);
    let same = scan(&mut client, &format!("at={version}"));
    assert_eq!(same.position, position);
    for at in ["7".to_owned(), format!("{version}-00000000")] {
        let gone = client.request("GET", &format!("/scan?at={at}"), &[], b"");
        assert_error(&gone, 410, "snapshot_gone");
    }
}

/// Prefix and ends, whatever bytes they are of.
#[test]
fn any_bytes_bound_a_scan() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let keys = [[0xfe, 7], [0xff, 1], [0xff, 2], [0xff, 3]];
    for key in &keys {
        client.request("PUT", &format!("/kv/{}", percent_encoded(key)), &[], b"");
    }
    let base64 = |bytes: &[u8]| percent_encoded(BASE64.encode(bytes).as_bytes());
    let mut found = |query: &str| -> Vec<Vec<u8>> {
        scan(&mut client, query)
            .items
            .into_iter()
            .map(|(key, _)| key)
            .collect()
    };
    assert_eq!(
        found(&format!(
            "prefix={}&prefix_encoding=base64",
            base64(&[0xff])
        )),
        keys[1..]
    );
    let (start, end) = (base64(&keys[0]), base64(&keys[2]));
    let query = format!("start={start}&start_encoding=base64&end={end}&end_encoding=base64");
    assert_eq!(found(&query), keys[..2]);
}

#[test]
fn scans_that_cannot_be() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    for query in [
        "limit=0",
        "limit=10001",
        "limit=x",
        "limit=-1",
        "values=maybe",
        "after=",
        "at=x",
        "after=a&after=b",
        "after=%25&after_encoding=base64",
        "after=a&after_encoding=rot13",
        "prefix=%f",
        "prefix=%25&prefix_encoding=base64",
        "start=a&start_encoding=rot13",
        "end=%25&end_encoding=base64",
        "min_version=x",
    ] {
        let response = client.request("GET", &format!("/scan?{query}"), &[], b"");
        assert_eq!(response.status, 400, "{query}: {}", response.text());
    }
    assert_error(
        &client.request("GET", "/scan?min_version=1", &[], b""),
        503,
        "behind",
    );
    let page = scan(&mut client, "");
    assert_eq!((page.items.len(), page.next), (0, None));
    assert_eq!(version_of(&page.position), 0);
    client.request("PUT", "/kv/a", &[], b"value");
    let response = client.request("GET", "/scan?values=false", &[], b"");
    let (json, token) = (response.json(), client.request("HEAD", "/kv/a", &[], b""));
    let token = token.token().expect("a token");
    assert_eq!(
        (json["position"].as_str(), version_of(token)),
        (Some(token), 1)
    );
    assert_eq!(
        response.text(),
        format!(
            "{{\"success\":true,\"items\":[{{\"key\":\"a\",\"version\":1,\"etag\":\"{token}\"}}],\
             \"next\":null,\"version\":1,\"position\":\"{token}\"}}\n"
        )
    );
    assert_eq!(client.request("HEAD", "/scan", &[], b"").status, 200);
    assert_error(
        &client.request("POST", "/scan", &[], b"{}"),
        405,
        "method_not_allowed",
    );
    // Snapshots for further pages are few: those with their last page sent make room.
    let positions: Vec<String> = (0..9)
        .map(|_| {
            let page = client.request("GET", "/scan?consistent=true", &[], b"");
            page.json()["position"].as_str().expect("text").to_owned()
        })
        .collect();
    assert_eq!(positions.len(), 9);
}

/// Views for further pages: one with its last page sent, or that was not asked for a second, makes
/// room for the ninth; those that are being read do not.
#[test]
fn kept_views_make_room_when_they_are_not_in_use() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    for number in 0..1_500 {
        client.request("PUT", &format!("/kv/{number:05}"), &[], &[b'v'; 10_000]);
    }
    let view = |client: &mut Client, number: u32, query: &str| {
        // Each is of a state of its own.
        client.request("PUT", "/kv/last", &[], number.to_string().as_bytes());
        client.request("GET", &format!("/scan?consistent=true&{query}"), &[], b"")
    };
    // Read to their end, or to that of their first page.
    let mut pages = Vec::new();
    for number in 0..20 {
        let page = view(&mut client, number, "prefix=last");
        assert_eq!(page.status, 200, "{}", page.text());
        pages.push(page.json()["position"].as_str().expect("text").to_owned());
    }
    let again = |client: &mut Client, position: &str| {
        let target = format!("/scan?at={position}&prefix=last");
        client.request("GET", &target, &[], b"").status
    };
    assert_eq!(again(&mut client, &pages[0]), 410);
    assert_eq!(
        again(&mut client, &pages[19]),
        200,
        "as long as there is room"
    );
    for number in 0..8 {
        assert_eq!(view(&mut client, number, "limit=1").status, 200);
    }
    let since_ms = node.status()["uptimeMs"].as_u64().expect("a number");
    wait_for("one of them to be idle", || {
        view(&mut client, 8, "limit=1").status == 200
    });
    let waited_ms = node.status()["uptimeMs"].as_u64().expect("a number") - since_ms;
    assert!(
        waited_ms < 20_000,
        "its 30 s were waited for: {waited_ms} ms"
    );
    // No client reads these, but they are under way.
    let mut readers = Vec::new();
    for _ in 0..8 {
        wait_for("room", || {
            let mut reader = node.connect_with_small_buffer();
            reader.send_request("GET", "/scan?consistent=true&limit=10000", &[], b"");
            let is_begun = reader.response_head().status == 200;
            readers.extend(is_begun.then_some(reader));
            is_begun
        });
        client.request("PUT", "/kv/last", &[], b"v");
    }
    let refused = view(&mut client, 9, "limit=1");
    assert_error(&refused, 503, "too_many_snapshots");
}

/// A client that asks for much and reads nothing costs one buffer, and is cut off in the end.
#[test]
fn a_slow_reader_costs_little() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let value = vec![b'v'; 10_000];
    for number in 0..3_000 {
        client.request("PUT", &format!("/kv/{number:05}"), &[], &value);
    }
    // What is merged while a scan has it is there twice: nothing is left to merge.
    client.request("POST", "/admin/compact", &[], b"");
    wait_for("all to be merged", || {
        node.status()["partitions"][0]["debt"] == 0
    });
    let before = node.memory_kib("VmRSS");
    let mut slow: Vec<Client> = (0..20).map(|_| node.connect_with_small_buffer()).collect();
    for reader in &mut slow {
        reader.send_request("GET", "/scan?limit=3000", &[], b"");
    }
    wait_for("all to be under way", || {
        node.status()["loop"]["requests"].as_u64() >= Some(3_020)
    });
    let_pass(std::time::Duration::from_millis(300));
    let grown = node.memory_kib("VmRSS").saturating_sub(before);
    assert!(
        grown < 20 * 300,
        "{grown} KiB for 20 readers that do not read"
    );
    // There are only so many at a time.
    let mut more: Vec<Client> = (20..64).map(|_| node.connect_with_small_buffer()).collect();
    for reader in &mut more {
        reader.send_request("GET", "/scan?limit=3000", &[], b"");
        assert_eq!(reader.response_head().status, 200);
    }
    assert_error(
        &client.request("GET", "/scan", &[], b""),
        503,
        "too_many_scans",
    );
    drop(more);
    wait_for("the others to be forgotten", || {
        client.request("GET", "/scan", &[], b"").status == 200
    });
    for reader in &mut slow {
        let text = reader.response(false).text();
        assert!(text.ends_with("\"}\n") && text.contains("\"version\":3000,\"position\":\"3000-"));
    }
}
