//! `/metrics` and the log of slow requests, on real nodes: the text is what Prometheus reads, and
//! what it says is what has happened.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value as Json, json};

use common::{Folder, Node, assert_error, let_pass, wait_for};

/// A sample's name with its labels, sorted, and its value.
type Samples = BTreeMap<(String, BTreeMap<String, String>), f64>;

/// The exposition, read and checked as a whole.
struct Scraped {
    samples: Samples,
    kinds: BTreeMap<String, String>,
}

/// Reads `{a="b",c="d"} 1` behind a name.
fn read_labels(text: &str) -> (BTreeMap<String, String>, &str) {
    let mut labels = BTreeMap::new();
    let Some(mut rest) = text.strip_prefix('{') else {
        return (labels, text);
    };
    loop {
        let (name, behind) = rest.split_once("=\"").expect("a label");
        let mut value = String::new();
        let mut chars = behind.char_indices();
        let end = loop {
            match chars.next().expect("the end of a value") {
                (at, '"') => break at,
                (_, '\\') => value.push(match chars.next().expect("what is escaped").1 {
                    'n' => '\n',
                    escaped @ ('"' | '\\') => escaped,
                    other => panic!("\\{other} in {text}"),
                }),
                (_, other) => value.push(other),
            }
        };
        assert!(
            labels.insert(name.to_owned(), value).is_none(),
            "{name} twice in {text}"
        );
        rest = &behind[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => {
                return (
                    labels,
                    rest.strip_prefix('}').expect("the end of the labels"),
                );
            }
        }
    }
}

impl Scraped {
    fn of(node: &Node) -> Self {
        let response = node.request("GET", "/metrics", &[], b"");
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(
            response.header("Content-Type"),
            Some("text/plain; version=0.0.4; charset=utf-8")
        );
        Self::read(&response.text())
    }

    fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'));
        let mut helped = BTreeSet::new();
        let (mut samples, mut kinds) = (Samples::new(), BTreeMap::new());
        let mut family = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help text");
                assert!(help.ends_with('.') && name.starts_with("dbnode_"), "{line}");
                assert!(helped.insert(name.to_owned()), "{name} has two helps");
                name.clone_into(&mut family);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a kind");
                assert_eq!(name, family, "the type comes behind the help");
                assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(
                    kinds.insert(name.to_owned(), kind.to_owned()).is_none(),
                    "{name} has two types"
                );
            } else {
                let end = line.find(['{', ' ']).expect("a name");
                let (labels, value) = read_labels(&line[end..]);
                let value: f64 = value
                    .trim_start()
                    .parse()
                    .unwrap_or_else(|_| panic!("{line}"));
                let is_histogram = kinds.get(&family).is_some_and(|kind| kind == "histogram");
                let of_family = line[..end]
                    .strip_prefix(&family)
                    .unwrap_or_else(|| panic!("{line} within {family}"));
                let suffixes: &[&str] = if is_histogram {
                    &["_bucket", "_sum", "_count"]
                } else {
                    &[""]
                };
                assert!(suffixes.contains(&of_family), "{line}");
                assert!(value >= 0.0, "{line}");
                assert!(
                    samples
                        .insert((line[..end].to_owned(), labels), value)
                        .is_none(),
                    "twice: {line}"
                );
            }
        }
        let scraped = Self { samples, kinds };
        scraped.check_histograms();
        scraped
    }

    /// Buckets go up with their bounds and end with everything; each histogram is whole.
    fn check_histograms(&self) {
        for (name, _) in self.kinds.iter().filter(|(_, kind)| *kind == "histogram") {
            let mut buckets: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
            for ((sample, labels), value) in &self.samples {
                if *sample == format!("{name}_bucket") {
                    let mut labels = labels.clone();
                    let bound = labels.remove("le").expect("a bound");
                    let bound = if bound == "+Inf" {
                        f64::INFINITY
                    } else {
                        bound.parse().expect("a number")
                    };
                    buckets.entry(labels).or_default().push((bound, *value));
                }
            }
            assert!(!buckets.is_empty(), "{name} has no buckets");
            for (labels, mut buckets) in buckets {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(
                    buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1),
                    "{name} {labels:?}: {buckets:?}"
                );
                let (bound, all) = *buckets.last().expect("a bucket");
                assert!(bound.is_infinite(), "{name} {labels:?} lacks +Inf");
                assert_same(
                    all,
                    self.samples[&(format!("{name}_count"), labels.clone())],
                );
                let sum = self.samples[&(format!("{name}_sum"), labels.clone())];
                assert!(all > 0.0 || sum == 0.0, "{name} {labels:?}");
            }
        }
    }

    /// A sample, or 0 if there is none.
    fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        self.samples
            .get(&(format!("dbnode_{name}"), labels))
            .copied()
            .unwrap_or(0.0)
    }

    fn requests(&self, route: &str, code: &str) -> f64 {
        self.get("requests_total", &[("route", route), ("code", code)])
    }

    /// Samples of a family, whatever their labels.
    fn all(&self, name: &str) -> Vec<(&BTreeMap<String, String>, f64)> {
        let name = format!("dbnode_{name}");
        self.samples
            .iter()
            .filter(|((found, _), _)| *found == name)
            .map(|((_, labels), value)| (labels, *value))
            .collect()
    }
}

/// Counts are whole numbers: they are the same or not.
#[track_caller]
fn assert_same(found: f64, expected: impl Into<f64>) {
    let expected = expected.into();
    assert!(
        (found - expected).abs() < 0.5,
        "{found} instead of {expected}"
    );
}

/// Like [`assert_same`], for what is counted a little later than it happens.
#[track_caller]
fn wait_for_count(node: &Node, what: &str, expected: f64, find: impl Fn(&Scraped) -> f64) {
    wait_for(what, || (find(&Scraped::of(node)) - expected).abs() < 0.5);
}

#[test]
fn answers_are_counted_by_route_and_status() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    for number in 0..7 {
        client.request("PUT", &format!("/kv/{number}"), &[], b"v");
    }
    client.request("PUT", "/kv/1", &[], b"w");
    client.request("GET", "/kv/1", &[], b"");
    client.request("GET", "/kv/missing", &[], b"");
    client.request("GET", "/get?key=missing", &[], b"");
    client.request("POST", "/set", &[], b"{no json");
    client.request("PUT", "/kv/1", &["If-Match: \"99-00000000\""], b"");
    client.request("POST", "/kv/1", &[], b"");
    for path in ["/nothing", "/no/more", "/kv"] {
        client.request("GET", path, &[], b"");
    }
    client.request("POST", "/set?key=long", &["Content-Length: 99999999"], b"");
    let mut broken = node.connect();
    broken.send(b"no http\r\n\r\n");
    assert_eq!(broken.response(false).status, 400);
    let scraped = Scraped::of(&node);
    for (route, code, count) in [
        ("/kv/{key}", "201", 7),
        ("/kv/{key}", "200", 2),
        ("/kv/{key}", "404", 1),
        ("/kv/{key}", "405", 1),
        ("/kv/{key}", "412", 1),
        ("/get", "404", 1),
        ("/set", "400", 1),
        ("/set", "413", 1),
        ("other", "404", 3),
        ("invalid", "400", 1),
    ] {
        assert_same(scraped.requests(route, code), count);
    }
    assert_same(
        scraped
            .all("requests_total")
            .iter()
            .map(|(_, count)| count)
            .sum(),
        19,
    );
    let durations = |group| scraped.get("request_seconds_count", &[("group", group)]);
    assert_same(durations("read"), 3);
    assert_same(durations("write"), 12);
    assert_same(durations("other"), 4);
    assert_same(scraped.get("accepted_connections_total", &[]), 3);
    assert!(scraped.get("http_received_bytes_total", &[]) > 1_000.0);
    assert!(scraped.get("http_sent_bytes_total", &[]) > 2_000.0);
    assert!(scraped.get("process_start_time_seconds", &[]) > 1.6e9);
    assert!(scraped.get("resident_memory_bytes", &[]) > 1e6);
    // The scrape itself is counted with the next one.
    assert_same(Scraped::of(&node).requests("/metrics", "200"), 1);
    assert_eq!(node.request("HEAD", "/metrics", &[], b"").body, b"");
}

#[test]
fn pipelined_requests_and_bodies_in_pieces_are_counted_once() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let many: Vec<u8> = (0..3_000)
        .flat_map(|number| {
            common::request_bytes("PUT", &format!("/kv/{}", number % 10), &[], b"some value")
        })
        .collect();
    let sending = client.send_in_background(many);
    let created = (0..3_000)
        .filter(|_| client.response(false).status == 201)
        .count();
    sending.join().expect("no panic").expect("sent");
    assert_eq!(created, 10);
    client.send(b"PUT /kv/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab");
    node.settle();
    client.send(b"cd");
    assert_eq!(client.response(false).status, 201);
    let scraped = Scraped::of(&node);
    assert_same(scraped.requests("/kv/{key}", "201"), 11);
    assert_same(scraped.requests("/kv/{key}", "200"), 2_990);
    assert_same(scraped.get("held_replies", &[]), 0);
}

#[test]
fn writes_that_are_held_are_counted_when_they_go_and_so_are_syncs() {
    let folder = Folder::new("metrics");
    let node = Node::start(&["--data-dir", folder.path()]);
    wait_for("the data to be loaded", || {
        node.request("GET", "/readyz", &[], b"").status == 200
    });
    let mut client = node.connect();
    for number in 0..5 {
        client.request("PUT", &format!("/kv/{number}"), &[], b"v");
    }
    let partition = ("partition", "0");
    let scraped = Scraped::of(&node);
    assert_same(scraped.requests("/kv/{key}", "201"), 5);
    assert_same(
        scraped.get("gate_wait_seconds_count", &[("kind", "disk")]),
        5,
    );
    assert!(scraped.get("gate_wait_seconds_sum", &[("kind", "disk")]) > 0.0);
    assert_same(scraped.get("log_sync_seconds_count", &[]), 5);
    assert!(scraped.get("log_sync_seconds_sum", &[]) > 0.0);
    assert_same(scraped.get("log_writes_total", &[partition]), 5);
    assert!(scraped.get("log_written_bytes_total", &[partition]) > 100.0);
    assert_same(scraped.get("durable_version", &[partition]), 5);
    assert_same(scraped.get("last_version", &[partition]), 5);
    assert_same(scraped.get("storage_failed", &[partition]), 0);
    let group = [("group", "write")];
    let wait = scraped.get("gate_wait_seconds_sum", &[("kind", "disk")]);
    assert!(
        scraped.get("request_seconds_sum", &group) >= wait,
        "requests last as long as they wait"
    );

    // Several at once: what is held is held together.
    let many: Vec<u8> = (0..50)
        .flat_map(|number| common::request_bytes("PUT", &format!("/kv/{number}"), &[], b"w"))
        .collect();
    client.send(&many);
    (0..50).for_each(|_| drop(client.response(false)));
    let scraped = Scraped::of(&node);
    assert_same(
        scraped.requests("/kv/{key}", "201") + scraped.requests("/kv/{key}", "200"),
        55,
    );
    assert_same(scraped.get("held_replies", &[]), 0);

    node.request("POST", "/admin/checkpoint", &[], b"");
    wait_for_count(&node, "the checkpoint", 55.0, |scraped| {
        scraped.get("checkpoint_version", &[partition])
    });
}

#[test]
fn a_leader_tells_of_its_replicas_and_a_replica_of_its_leader() {
    let folder = Folder::new("metrics-leader");
    let leader = Node::start(&[
        "--data-dir",
        folder.path(),
        "--ack-timeout-ms=300",
        "--wal-retain-bytes=0",
    ]);
    wait_for("the data to be loaded", || {
        leader.request("GET", "/readyz", &[], b"").status == 200
    });
    for number in 0..100 {
        leader.request("PUT", &format!("/kv/{number}"), &[], b"v");
    }
    let frozen = Node::start(&["--replica-of", &format!("http://{}", leader.address)]);
    wait_for("the replica", || {
        frozen.request("GET", "/replica", &[], b"").status == 200
    });
    frozen.signal("STOP");
    let held = leader.request("PUT", "/kv/alone", &["X-Min-Acks: 1"], b"v");
    assert_error(&held, 504, "acks_timeout");
    drop(frozen);
    wait_for_count(&leader, "the replica to leave", 0.0, |scraped| {
        scraped.get("replicas", &[("partition", "0")])
    });
    let scraped = Scraped::of(&leader);
    assert_same(scraped.requests("/kv/{key}", "504"), 1);
    assert_same(scraped.requests("/kv/{key}", "201"), 100);
    assert_same(
        scraped.get("gate_wait_seconds_count", &[("kind", "acks")]),
        1,
    );
    assert!(scraped.get("gate_wait_seconds_sum", &[("kind", "acks")]) > 0.25);

    // With its log gone, a replica that joins gets a snapshot.
    leader.request("POST", "/admin/compact", &[], b"");
    let partition = ("partition", "0");
    wait_for_count(&leader, "the log to go", 0.0, |scraped| {
        scraped.get("log_memory_bytes", &[partition])
    });
    let replica = Node::start(&["--replica-of", &format!("http://{}", leader.address)]);
    wait_for("the replica", || {
        replica.request("GET", "/replica", &[], b"").status == 200
    });
    assert_eq!(
        leader
            .request("PUT", "/kv/both", &["X-Min-Acks: 1"], b"v")
            .status,
        201
    );
    wait_for("the replica to confirm", || {
        let scraped = Scraped::of(&leader);
        let lags = scraped.all("replica_lag_versions");
        lags.len() == 1 && lags[0].0["state"] == "log" && lags[0].1 < 0.5
    });
    let scraped = Scraped::of(&leader);
    assert_same(scraped.get("replicas", &[partition]), 1);
    assert_same(scraped.get("snapshots_sent_total", &[partition]), 1);
    assert_same(scraped.get("role", &[partition, ("role", "leader")]), 1);
    assert_same(
        scraped.get("gate_wait_seconds_count", &[("kind", "acks")]),
        2,
    );
    assert!(scraped.get("replication_sent_bytes_total", &[]) > 1_000.0);
    let scraped = Scraped::of(&replica);
    assert_same(scraped.get("role", &[partition, ("role", "replica")]), 1);
    assert_same(scraped.get("in_sync", &[partition]), 1);
    assert_same(scraped.get("snapshots_received_total", &[partition]), 1);
    assert_same(scraped.get("leader_connected", &[partition]), 1);
    assert_same(scraped.get("leader_lag_versions", &[partition]), 0);
    assert!(scraped.get("replication_received_bytes_total", &[]) > 1_000.0);
    let ended_count = |scraped: &Scraped| -> f64 {
        let all = scraped.all("replication_link_ends_total");
        all.iter().map(|(_, count)| count).sum()
    };
    let ended_before = ended_count(&scraped);
    drop(leader);
    wait_for_count(&replica, "the leader to be gone", 0.0, |scraped| {
        scraped.get("leader_connected", &[partition])
    });
    assert_same(ended_count(&Scraped::of(&replica)), ended_before + 1.0);
}

#[test]
fn what_a_backup_pins_is_told() {
    let node = Node::start(&["--memtable-bytes", "64KiB"]);
    let partition = ("partition", "0");
    let mut client = node.connect();
    let load = |client: &mut common::Client, value: u8| {
        for number in 0..2_000 {
            client.request("PUT", &format!("/kv/{number}"), &[], &[value; 8_000]);
        }
    };
    load(&mut client, 1);
    let mut reader = node.connect_with_small_buffer();
    reader.send_request("GET", "/snapshot", &[], b"");
    assert_eq!(reader.response_head().status, 200);
    load(&mut client, 2);
    node.request("POST", "/admin/compact", &[], b"");
    let pinned = |scraped: &Scraped| scraped.get("pinned_bytes", &[partition, ("what", "data")]);
    wait_for("what the backup pins", || {
        pinned(&Scraped::of(&node)) > 15e6
    });
    let scraped = Scraped::of(&node);
    assert_same(scraped.get("snapshots", &[partition]), 1);
    assert!(scraped.get("memory_bytes", &[("owner", "snapshots")]) > 15e6);
    assert!(scraped.get("memory_bytes", &[("owner", "runs")]) > 15e6);
    let status = node.status();
    assert!(
        status["partitions"][0]["pinnedBytes"].as_u64() > Some(15_000_000),
        "{status}"
    );
    drop(reader);
    wait_for_count(&node, "it to be freed", 0.0, pinned);
}

#[test]
fn many_partitions_are_told_whole() {
    let node = Node::start(&["--await-assignment"]);
    let mut client = node.connect();
    for id in 0..1_024 {
        let body = format!("{{\"id\":{id},\"role\":\"leader\"}}");
        assert_eq!(
            client
                .request("POST", "/partition/assign", &[], body.as_bytes())
                .status,
            200
        );
    }
    let scraped = Scraped::of(&node);
    assert_eq!(scraped.all("epoch").len(), 1_024);
    assert_eq!(scraped.all("role").len(), 3 * 1_024);
    // A client that does not read holds a place, and there are only so many. One answer fits into
    // what the kernel takes for a peer.
    let mut idle: Vec<_> = (0..4).map(|_| node.connect_with_small_buffer()).collect();
    for reader in &mut idle {
        for _ in 0..20 {
            reader.send_request("GET", "/metrics", &[], b"");
        }
        assert_eq!(reader.response_head().status, 200);
    }
    wait_for("all places to be taken", || {
        node.request("GET", "/metrics", &[], b"").status == 503
    });
    assert_error(
        &node.request("GET", "/metrics", &[], b""),
        503,
        "too_many_scrapes",
    );
    idle.pop();
    wait_for("a place", || {
        node.request("GET", "/metrics", &[], b"").status == 200
    });
}

#[test]
fn slow_requests_are_logged_and_not_too_many() {
    let mut node = Node::start(&["--slow-request-ms", "50", "--ack-timeout-ms", "120"]);
    let log = node.collect_log();
    let replica = Node::start(&["--replica-of", &format!("http://{}", node.address)]);
    wait_for("the replica", || {
        replica.request("GET", "/replica", &[], b"").status == 200
    });
    replica.signal("STOP");
    let mut clients: Vec<_> = (0..20).map(|_| node.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send_request(
            "PUT",
            &format!("/kv/secret{number}"),
            &["X-Min-Acks: 1"],
            b"v",
        );
    }
    for client in &mut clients {
        assert_eq!(client.response(false).status, 504);
    }
    log.assert_has("slow: PUT /kv/{key} 504 in partition 0 took 1");
    // What the time went to.
    log.assert_has(" ms: waiting for replicas 1");
    // The line about the rest comes with the next turn after a second.
    let_pass(Duration::from_millis(1_100));
    node.settle();
    wait_for("the rest", || {
        node.settle();
        log.count("slow: and 15 more within a second") == 1
    });
    assert_eq!(log.count("slow: PUT"), 5, "{}", log.text());
    assert_eq!(log.count("secret"), 0, "keys are not logged");
    assert_same(Scraped::of(&node).get("slow_requests_total", &[]), 20);
    // The last of them are in /status, without their keys.
    let status = node.request("GET", "/status", &[], b"");
    assert!(!status.text().contains("secret"), "{}", status.text());
    let requests = &status.json()["requests"];
    assert_eq!(requests["slow"], 20);
    let recent = requests["slowRecent"].as_array().expect("a list");
    assert_eq!(recent.len(), 16);
    for slow in recent {
        let words = ["method", "route", "status", "partition"].map(|name| &slow[name]);
        assert_eq!(json!(words), json!(["PUT", "/kv/{key}", 504, 0]));
        let [took_us, acks_us, ago_ms] =
            ["tookUs", "acksUs", "agoMs"].map(|name| slow[name].as_u64().expect("a number"));
        assert!((50_000..60_000_000).contains(&took_us), "{slow}");
        assert!((50_000..=took_us).contains(&acks_us), "{slow}");
        assert!((1_000..60_000).contains(&ago_ms), "{slow}");
    }

    let mut quiet = Node::start(&["--slow-request-ms", "0", "--ack-timeout-ms", "120"]);
    let log = quiet.collect_log();
    let replica = Node::start(&["--replica-of", &format!("http://{}", quiet.address)]);
    wait_for("the replica", || {
        replica.request("GET", "/replica", &[], b"").status == 200
    });
    replica.signal("STOP");
    assert_eq!(
        quiet
            .request("PUT", "/kv/a", &["X-Min-Acks: 1"], b"v")
            .status,
        504
    );
    quiet.settle();
    assert_same(Scraped::of(&quiet).get("slow_requests_total", &[]), 0);
    assert_eq!(quiet.status()["requests"]["slowRecent"], json!([]));
    assert_eq!(log.count("slow"), 0);
}

/// The metrics that the documents and the alerts name exist.
#[test]
fn metrics_that_are_documented_are_there() {
    let folder = Folder::new("metrics-names");
    let node = Node::start(&["--data-dir", folder.path()]);
    wait_for("the data to be loaded", || {
        node.request("GET", "/readyz", &[], b"").status == 200
    });
    let mut kinds = Scraped::of(&node).kinds;
    assert!(!kinds.contains_key("dbnode_etcd_up"));
    let in_cluster = Node::start(&["--etcd", "http://127.0.0.1:1", "--node", "n1"]);
    kinds.extend(Scraped::of(&in_cluster).kinds);
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for (file, count) in [("docs/metrics.md", 20), ("packaging/alerts.yaml", 20)] {
        let text = std::fs::read_to_string(root.join(file)).expect("read it");
        let is_part = |c: char| c.is_ascii_lowercase() || c == '_';
        let behind = text
            .split("dbnode_")
            .skip(1)
            .map(|rest| rest.split(|c| !is_part(c)).next().unwrap_or_default());
        let named: Vec<String> = behind
            .map(|name| format!("dbnode_{}", name.trim_end_matches("_bucket")))
            .collect();
        assert!(named.len() >= count, "{file} names {} metrics", named.len());
        for name in named {
            assert!(
                kinds.contains_key(&name),
                "{file} names {name}, which is no metric"
            );
        }
    }
}

/// Requests and memory in `/status` are those of `/metrics`.
#[test]
fn status_and_metrics_say_the_same() {
    let node = Node::start(&["--max-memory", "64MiB"]);
    let mut client = node.connect();
    for number in 0..200 {
        client.request("PUT", &format!("/kv/{number}"), &[], &[b'v'; 100]);
        client.request("GET", &format!("/kv/{number}"), &[], b"");
    }
    let scraped = Scraped::of(&node);
    let status = node.status();
    let bounds = status["requests"]["boundsUs"]
        .as_array()
        .expect("a list")
        .len();
    let groups = status["requests"]["groups"].as_array().expect("a list");
    for group in ["read", "write"] {
        let is_named = |found: &&Json| found["name"] == group;
        let found = groups.iter().find(is_named).expect(group);
        let counts = found["counts"].as_array().expect("a list");
        assert_eq!(counts.len(), bounds + 1);
        let sum: f64 = counts.iter().filter_map(Json::as_f64).sum();
        assert_same(sum, 200);
        let labels = [("group", group)];
        assert_same(scraped.get("request_seconds_count", &labels), sum);
    }
    let owners = &status["memory"]["byOwner"];
    for owner in ["memtables", "runs", "log", "snapshots"] {
        let bytes = owners[owner].as_f64().expect("a number");
        assert_same(scraped.get("memory_bytes", &[("owner", owner)]), bytes);
    }
    assert!(owners["memtables"].as_u64() > Some(200 * 100), "{owners}");
    assert_eq!(status["memory"]["limitBytes"], json!(64 << 20));
}

/// A request that names a partition gets that one alone.
#[test]
fn status_of_one_partition() {
    let node = Node::start(&[]);
    let role = br#"{"id":7,"role":"leader"}"#;
    assert_eq!(
        node.request("POST", "/partition/assign", &[], role).status,
        200
    );
    let ids = |target: &str, headers: &[&str]| {
        let status = node.request("GET", target, headers, b"").json();
        let partitions = status["partitions"].as_array().expect("a list").clone();
        partitions
            .iter()
            .map(|partition| partition["id"].as_u64())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids("/status", &[]), [Some(0), Some(7)]);
    assert_eq!(ids("/status?partition=7", &[]), [Some(7)]);
    assert_eq!(ids("/status", &["X-Partition-ID: 0"]), [Some(0)]);
    let other = node.request("GET", "/status?partition=8", &[], b"");
    assert_error(&other, 404, "partition_not_found");
}
