//! Keys spread over partitions: whatever way a key comes in, it decides the partition.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::{Value as Json, json};

use crate::common::etcd::Etcd;
use crate::common::member::Member;
use crate::common::seeds::random_seed;
use crate::common::{Response, assert_error, command, percent_encoded, wait_for};
use crate::{member, post, put, value_of};

pub(crate) const COUNT: u32 = 16;

const NAMES: [&str; 3] = ["n0", "n1", "n2"];

pub(crate) fn partition_of(key: &str) -> u32 {
    crc32c::crc32c(key.as_bytes()) % COUNT
}

/// The index of the node that leads a partition. The next node has a copy, the third one has none.
pub(crate) fn leader_of(id: u32) -> usize {
    usize::try_from(id).expect("small") % 3
}

fn cluster_of(count: u32) -> Json {
    json!({"format": 1, "id": "04".repeat(16), "partitions": count, "hash": "crc32c"})
}

fn config_of(leader: &str, replicas: &[&str]) -> Json {
    json!({"format": 1, "epoch": 0, "leader": leader, "handedOver": false, "leaseMs": 1000,
        "inSync": [], "replicas": replicas, "leaving": []})
}

/// Three nodes with 16 partitions, each with two copies, both in sync.
pub(crate) fn spread(etcd: &Etcd) -> Vec<Member> {
    let members: Vec<Member> = NAMES.iter().map(|name| member(etcd, name, &[])).collect();
    put(etcd, "cluster", &cluster_of(COUNT));
    for id in 0..COUNT {
        let (leader, next) = (leader_of(id), (leader_of(id) + 1) % 3);
        let config = config_of(NAMES[leader], &[NAMES[leader], NAMES[next]]);
        put(etcd, &format!("partitions/{id}/config"), &config);
    }
    wait_for("all partitions to be led, and all copies in sync", || {
        (0..COUNT).all(|id| {
            let config = value_of(etcd, &format!("partitions/{id}/config")).expect("a value");
            let leader = &members[leader_of(id)];
            config["inSync"].as_array().is_some_and(|of| of.len() == 2)
                && leader.get(&format!("/leader?partition={id}")).status == 200
        })
    });
    members
}

/// A way for a key to come in.
struct Way {
    name: &'static str,
    method: &'static str,
    target: String,
    headers: &'static [&'static str],
    body: Vec<u8>,
    is_write: bool,
}

const FORM: &[&str] = &["Content-Type: application/x-www-form-urlencoded"];

/// Some ways, for a key that has letters only; `tests/simulation/etcd/requests.rs` has more.
fn ways(key: &str) -> Vec<Way> {
    let large = "v".repeat(200_000);
    let path = format!("/kv/{key}");
    let fields = json!({"key": key, "value": "v"}).to_string();
    let behind = format!("{{\"value\":\"{large}\",\"key\":\"{key}\"}}");
    let form = format!("value=v&key={key}");
    let batch = |op: &str| json!({"ops": [{"op": op, "key": key}]}).to_string();
    let way = |name: &'static str, method, target: &str, body: String| Way {
        is_write: !name.contains("get"),
        name,
        method,
        target: target.to_owned(),
        headers: if name == "form" { FORM } else { &[] },
        body: body.into_bytes(),
    };
    vec![
        way("raw put", "PUT", &path, "v".to_owned()),
        way("large put", "PUT", &path, large),
        way("JSON", "POST", "/set", fields.clone()),
        way("key behind a value", "POST", "/set", behind),
        way("form", "POST", "/set", form),
        way("get of a path", "GET", &path, String::new()),
        way("get by JSON", "POST", "/get", fields.clone()),
        way("batch that gets", "POST", "/batch", batch("get")),
        way("batch that deletes", "POST", "/batch", batch("delete")),
        way("delete by JSON", "POST", "/delete", fields),
        way("delete of a path", "DELETE", &path, String::new()),
    ]
}

impl Way {
    fn send(&self, to: &Member, header: Option<u32>, param: Option<u32>) -> Response {
        let field = header.map(|id| format!("X-Partition-ID: {id}"));
        let mut headers = self.headers.to_vec();
        headers.extend(field.as_deref());
        let separator = if self.target.contains('?') { "&" } else { "?" };
        let param = param.map(|id| format!("{separator}partition={id}"));
        let target = self.target.clone() + &param.unwrap_or_default();
        let mut client = to.connect();
        client.send_request(self.method, &target, &headers, &self.body);
        client.response(self.method == "HEAD")
    }

    #[track_caller]
    fn assert_refused(&self, answer: &Response, code: &str, partition: Option<u32>, leader: &str) {
        assert_eq!(answer.status, 421, "{}: {}", self.name, answer.text());
        if self.method != "HEAD" {
            assert_error(answer, 421, code);
        }
        let named = partition.map(|id| id.to_string());
        assert_eq!(
            answer.header("X-Partition-ID"),
            named.as_deref(),
            "{}",
            self.name
        );
        assert_eq!(answer.header("X-Leader"), Some(leader), "{}", self.name);
    }
}

/// The newest version of each partition, as the node that leads it has it.
fn versions(members: &[Member]) -> Vec<Json> {
    let version = |id: u32| {
        let status = members[leader_of(id)]
            .get(&format!("/status?partition={id}"))
            .json();
        status["partitions"][0]["lastVersion"].clone()
    };
    (0..COUNT).map(version).collect()
}

#[test]
fn a_key_decides_the_partition_whatever_way_it_comes_in() {
    let Some(etcd) = Etcd::start() else { return };
    let members = spread(&etcd);
    let ids = ["alpha", "beta", "gamma", "delta", "omega"].map(partition_of);
    assert!(ids.iter().any(|id| *id != 0), "{ids:?}");
    for key in ["alpha", "beta", "gamma", "delta", "omega"] {
        let right = partition_of(key);
        let wrong = (right + 1) % COUNT;
        let (leader, next) = (leader_of(right), (leader_of(right) + 1) % 3);
        let url = members[leader].url();
        let third = &members[(leader + 2) % 3];
        for way in ways(key) {
            let before = versions(&members);
            for node in &members {
                for (header, param) in [(Some(wrong), None), (None, Some(wrong)), (Some(99), None)]
                {
                    let answer = way.send(node, header, param);
                    way.assert_refused(&answer, "wrong_partition", Some(right), &url);
                }
            }
            for header in [None, Some(right)] {
                way.assert_refused(&way.send(third, header, None), "not_leader", None, &url);
                let answer = way.send(&members[next], header, None);
                if way.is_write {
                    way.assert_refused(&answer, "not_leader", None, &url);
                } else {
                    assert!([200, 404].contains(&answer.status), "{}", answer.text());
                }
            }
            assert_eq!(versions(&members), before, "{}: nothing was done", way.name);
            for (header, param) in [(None, None), (Some(right), None), (None, Some(right))] {
                let written = members[leader].put(key, &[], "there");
                assert_eq!(written.status / 100, 2, "{}", written.text());
                let answer = way.send(&members[leader], header, param);
                assert_eq!(answer.status / 100, 2, "{}: {}", way.name, answer.text());
            }
            let after = versions(&members);
            for (id, (before, after)) in (0..).zip(before.iter().zip(&after)) {
                assert_eq!(before != after, id == right, "{}: partition {id}", way.name);
            }
        }
    }
}

#[test]
fn a_batch_has_its_keys_in_one_partition() {
    let Some(etcd) = Etcd::start() else { return };
    let members = spread(&etcd);
    let keys: Vec<String> = (0..200).map(|number| format!("k{number}")).collect();
    let of = |id: u32| keys.iter().filter(move |key| partition_of(key) == id);
    let set = |key: &String| json!({"op": "set", "key": key, "value": "v"});
    let together: Vec<Json> = of(5).map(set).collect();
    assert!(together.len() > 3);
    let leader = &members[leader_of(5)];
    let batch = |ops: &[Json], headers: &[&str]| {
        let body = json!({"ops": ops}).to_string();
        leader.request("POST", "/batch", headers, body.as_bytes())
    };
    let answer = batch(&together, &[]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_error(
        &batch(&together, &["X-Partition-ID: 2"]),
        421,
        "wrong_partition",
    );
    let before = versions(&members);
    let mixed = [&together[..2], &[set(of(2).next().expect("one"))]].concat();
    let get = json!({"op": "get", "key": of(2).next()});
    for ops in [&mixed[..], &[together[0].clone(), get][..]] {
        for headers in [&[][..], &["X-Partition-ID: 5"], &["X-Partition-ID: 2"]] {
            let answer = batch(ops, headers);
            assert_error(&answer, 400, "many_partitions");
            let words = format!("operation {}", ops.len() - 1);
            assert!(answer.text().contains(&words), "{}", answer.text());
        }
    }
    assert_eq!(versions(&members), before);
}

/// What is about a partition as a whole is never about one that the client did not name.
#[test]
fn a_partition_as_a_whole_is_named() {
    let Some(etcd) = Etcd::start() else { return };
    let members = spread(&etcd);
    let node = &members[leader_of(3)];
    let empty_batch: &[u8] = br#"{"ops":[]}"#;
    for (method, target, body) in [
        ("GET", "/scan", &b""[..]),
        ("GET", "/scan?prefix=a", b""),
        ("GET", "/watch?timeout=0", b""),
        ("GET", "/digest", b""),
        ("GET", "/snapshot", b""),
        ("POST", "/admin/freeze", b""),
        ("POST", "/admin/compact", b""),
        ("POST", "/batch", empty_batch),
    ] {
        let answer = node.request(method, target, &[], body);
        assert_error(&answer, 400, "partition_missing");
        assert!(answer.text().contains("16 partitions"), "{}", answer.text());
        let named = node.request(method, target, &["X-Partition-ID: 3"], body);
        assert_eq!(named.status / 100, 2, "{method} {target}: {}", named.text());
        let separator = if target.contains('?') { "&" } else { "?" };
        let target = format!("{target}{separator}partition=3");
        let named = node.request(method, &target, &[], body);
        assert_eq!(named.status / 100, 2, "{method} {target}: {}", named.text());
    }
    // These are about the node.
    for target in ["/health", "/status", "/livez", "/cluster"] {
        assert_eq!(node.get(target).status, 200, "{target}");
    }
    assert_eq!(
        node.get("/status").json()["partitions"]
            .as_array()
            .map(Vec::len),
        Some(11)
    );
}

#[test]
fn keys_written_by_any_node_are_in_their_partition_and_nowhere_else() {
    let Some(etcd) = Etcd::start() else { return };
    let members = spread(&etcd);
    let seed = random_seed();
    let mut rng = seed.rng();
    let mut keys = BTreeSet::new();
    while keys.len() < 312 {
        let len = rng.usize(1..20);
        keys.insert(
            (0..len)
                .map(|_| rng.char('!'..'\u{24f}'))
                .collect::<String>(),
        );
    }
    let mut led_elsewhere = 0;
    for (number, key) in keys.iter().enumerate() {
        let target = format!("/kv/{}", percent_encoded(key.as_bytes()));
        let first = &members[number % 3];
        let mut answer = first.request("PUT", &target, &[], key.as_bytes());
        if answer.status == 421 {
            led_elsewhere += 1;
            let url = answer.header("X-Leader").expect("a leader").to_owned();
            let leader = members
                .iter()
                .find(|node| node.url() == url)
                .expect("a node");
            answer = leader.request("PUT", &target, &[], key.as_bytes());
        }
        assert_eq!(answer.status, 201, "{key}: {}", answer.text());
    }
    assert!(led_elsewhere > 100, "{led_elsewhere}");
    let mut found = 0;
    for id in 0..COUNT {
        let scan = format!("/scan?partition={id}&limit=1000");
        let items = members[leader_of(id)].get(&scan).json()["items"].take();
        for item in items.as_array().expect("items") {
            let key = item["key"].as_str().expect("text");
            assert_eq!(partition_of(key), id, "{key}");
            assert!(keys.contains(key) && item["value"] == key, "{item}");
            found += 1;
        }
    }
    assert_eq!(found, keys.len());
    // The client follows the answer to the node that leads.
    for (number, key) in keys.iter().take(12).enumerate() {
        let url = members[number % 3].url();
        let run = |arguments: &[&str]| {
            let mut command = command();
            command.arg(arguments[0]).args(["--url", &url]);
            command
                .args(&arguments[1..])
                .stdin(Stdio::null())
                .output()
                .expect("run the client")
        };
        let output = run(&["set", "--", key, "new"]);
        assert!(output.status.success(), "{output:?}");
        let output = run(&["get", "--", key]);
        assert_eq!(output.stdout, b"new", "{output:?}");
        let wrong = ((partition_of(key) + 1) % COUNT).to_string();
        let output = run(&["get", "--partition", &wrong, "--", key]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let words = format!("the key belongs to partition {}", partition_of(key));
        assert!(!output.status.success() && text.contains(&words), "{text}");
    }
}

/// Until a node knows over how many partitions keys are spread, it finds no place for a key.
#[test]
fn without_the_number_of_partitions_no_key_is_taken() {
    let Some(etcd) = Etcd::start() else { return };
    let node = member(&etcd, "n0", &[]);
    let refuses_keys = || {
        for way in ways("alpha") {
            for header in [None, Some(0), Some(3)] {
                let answer = way.send(&node, header, None);
                assert_eq!(answer.status, 503, "{}: {}", way.name, answer.text());
                if way.method != "HEAD" {
                    assert_error(&answer, 503, "cluster_unknown");
                }
            }
        }
    };
    refuses_keys();
    let leads = || node.get("/leader?partition=0").status == 200;
    put(&etcd, "partitions/0/config", &config_of("n0", &["n0"]));
    wait_for("a leader", leads);
    refuses_keys();
    assert_error(&node.get("/scan"), 503, "cluster_unknown");
    assert_eq!(node.get("/scan?partition=0").status, 200);
    put(&etcd, "cluster", &cluster_of(1));
    wait_for("a write", || node.put("alpha", &[], "v").status == 201);
    // With one partition nothing has to be named, and no key is looked at.
    assert_eq!(node.put("alpha", &["X-Partition-ID: 0"], "v").status, 200);
    assert_error(
        &node.put("alpha", &["X-Partition-ID: 1"], "v"),
        404,
        "partition_not_found",
    );
    assert_eq!(node.get("/scan").status, 200);
    // What etcd has lost, the node still knows, and writes anew when it recovers a partition.
    etcd.call(
        "/v3/kv/deleterange",
        &json!({"key": "AA==", "range_end": "AA=="}),
    );
    assert_eq!(value_of(&etcd, "cluster"), None);
    assert_eq!(node.put("alpha", &[], "v").status, 200);
    let order = json!({"id": 0, "node": "n0", "acceptDataLoss": true});
    wait_for("the recovery", || {
        post(&node, "/partition/recover", &order).status == 200
    });
    let value = value_of(&etcd, "cluster").expect("a value");
    assert_eq!(value["partitions"], 1);
    assert_eq!(value["id"], "04".repeat(16));
}
