//! What nodes of a cluster answer to requests: the bytes, and what the answers wait for.

use std::io::IoSlice;

use db_node::api::{AccessPolicy, Api, CommitGate, Effects, RequestBody};
use db_node::cluster::MemberState;
use db_node::http::{
    Connection, Context, HeadLimits, HeadReader, HttpDate, Limits, MAX_HEADER_COUNT, Output,
};
use db_node::partition::{Wait, WaitProgress};
use db_node::storage::Role;

use serde_json::{Value as Json, json};

use super::sim_etcd::Way;
use super::{Kind, Run, name};
use crate::cluster::{Weather, address};

/// An answer, and what it needs before it is sent.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) text: String,
    /// What it waits for.
    pub(super) gate: Option<CommitGate>,
    /// Until when it may be sent.
    lease_end_ms: u64,
}

impl Asked {
    pub(super) fn json(&self) -> Json {
        let (_, body) = self.text.split_once("\r\n\r\n").expect("a body");
        serde_json::from_str(body).expect("JSON")
    }

    pub(super) fn status(&self) -> u16 {
        self.text[9..12].parse().expect("a status")
    }

    #[track_caller]
    pub(super) fn assert_refused(&self, status: u16, code: &str) {
        assert_eq!(self.status(), status, "{}", self.text);
        assert!(
            self.text.contains(&format!("\"code\":\"{code}\"")),
            "{}",
            self.text
        );
        assert_eq!(
            self.text.contains("Retry-After: 1\r\n"),
            status == 503,
            "{}",
            self.text
        );
        assert_eq!(
            (self.gate, self.lease_end_ms),
            (None, u64::MAX),
            "{}",
            self.text
        );
    }
}

impl Run {
    /// Three nodes that all are in sync, and nothing is wrong. Returns the leader, too.
    pub(super) fn in_sync(kind: Kind) -> (Self, usize) {
        Self::in_sync_with_copies(kind, 3)
    }

    /// The same with copies on so many of the three nodes.
    pub(super) fn in_sync_with_copies(kind: Kind, count: usize) -> (Self, usize) {
        let mut runs = (1..).map(Self::new);
        let has_copies = |run: &Self| run.config().replicas.len() == count;
        let is_fit = |run: &Self| run.kind == kind && run.host_count() == 3 && has_copies(run);
        let mut run = runs.find(is_fit).expect("one of them is");
        run.pass_until("all are in sync", Self::is_in_sync);
        // The nodes hear of it, too.
        let known_ms = run.cluster.now_ms + 100;
        run.pass_until("time passes", |run| run.cluster.now_ms >= known_ms);
        let leader = run.open_leader().expect("there is one");
        (run, leader)
    }

    /// Time passes until something is so.
    #[track_caller]
    pub(super) fn pass_until(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        for _ in 0..4_000 {
            if is_so(self) {
                return;
            }
            self.cluster.step(5);
            self.step_etcd();
        }
        panic!("{what}: {}", self.picture());
    }

    /// A node executes a request that has come.
    pub(super) fn ask(
        &mut self,
        host: usize,
        method: &str,
        target: &str,
        fields: &str,
        body: &str,
    ) -> Asked {
        let now_ms = self.cluster.local_ms(host);
        let node = self.cluster.node(host).expect("it runs");
        let mut access = AccessPolicy::new(node.config(), "");
        let (mut scratch, mut effects, mut output) =
            (Vec::new(), Effects::default(), Output::new());
        let length = body.len();
        let input = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\
             Content-Length: {length}\r\n\r\n{body}"
        );
        let mut api = Api::new(node, &mut access, &mut scratch, &mut effects, now_ms);
        let mut heads = HeadReader::new(HeadLimits {
            head_bytes: 8 * 1024,
            header_count: MAX_HEADER_COUNT,
        });
        Connection::<RequestBody>::new().advance(
            input.as_bytes(),
            &mut Context {
                handler: &mut api,
                heads: &mut heads,
                out: &mut output,
                date: &HttpDate::from_unix_seconds(0),
                limits: &Limits {
                    output_high_bytes: 1 << 20,
                    kept_body_bytes: 1 << 20,
                },
                budget: &mut 1_000_000,
            },
        );
        assert_eq!(output.is_holding(), !effects.gates.is_empty());
        output.release();
        let mut bytes = Vec::new();
        while !output.is_empty() {
            output.generate(1 << 20);
            let mut slices = [IoSlice::new(b"")];
            let (_, count) = output.slices(&mut slices, usize::MAX);
            bytes.extend_from_slice(&slices[0]);
            output.consume(count);
        }
        Asked {
            text: String::from_utf8_lossy(&bytes).into_owned(),
            gate: effects.gates.first().copied(),
            lease_end_ms: effects.lease_end_ms(),
        }
    }

    pub(super) fn get(&mut self, host: usize, target: &str) -> Asked {
        self.ask(host, "GET", target, "", "")
    }

    fn put(&mut self, host: usize, target: &str, fields: &str) -> Asked {
        self.ask(host, "PUT", target, fields, "value")
    }

    pub(super) fn progress(&mut self, host: usize, gate: CommitGate) -> WaitProgress {
        let node = self.cluster.node(host).expect("it runs");
        node.wait_progress(gate.partition, gate.wait)
    }

    fn lease_end_ms(&mut self, host: usize) -> u64 {
        let partition = self.partition(host).expect("it is there");
        partition.lease_end_ms()
    }

    /// The answer shows data: it waits for all that was written so far, and is sent within the
    /// lease.
    #[track_caller]
    fn assert_read(&mut self, host: usize, asked: &Asked, status: u16) {
        assert_eq!(asked.status(), status, "{}", asked.text);
        let wait = asked.gate.map(|gate| gate.wait);
        assert!(
            matches!(wait, Some(Wait::Read { count: 0, .. })),
            "{asked:?}"
        );
        assert_eq!(asked.lease_end_ms, self.lease_end_ms(host));
        assert!(asked.lease_end_ms < u64::MAX);
    }

    pub(super) fn state_of(&mut self, host: usize) -> MemberState {
        let local_ms = self.cluster.local_ms(host);
        let node = self.cluster.node(host).expect("it runs");
        let partition = node.look_at(0).expect("it is there");
        let cluster = node.cluster().expect("it is one of a cluster");
        cluster.state_of(partition, local_ms)
    }
}

#[test]
fn writes_wait_for_every_copy_in_sync_and_reads_for_what_they_show() {
    for kind in [Kind::Synced, Kind::Memory] {
        let (mut run, leader) = Run::in_sync(kind);
        let first = run.put(leader, "/kv/a", "");
        assert_eq!(first.status(), 201, "{}", first.text);
        let gate = first.gate.expect("it waits");
        assert!(matches!(gate.wait, Wait::Acks { count: 0, .. }), "{gate:?}");
        assert_eq!(first.lease_end_ms, u64::MAX, "the copies answer for it");

        for target in ["/kv/a", "/get?key=a", "/scan?prefix=a"] {
            let read = run.get(leader, target);
            run.assert_read(leader, &read, 200);
        }
        let read = run.get(leader, "/kv/none");
        run.assert_read(leader, &read, 404);
        let read = run.ask(
            leader,
            "POST",
            "/batch",
            "",
            r#"{"ops":[{"op":"get","key":"a"}]}"#,
        );
        run.assert_read(leader, &read, 200);

        let partition = run.partition(leader).expect("it is there");
        assert!(
            partition.committed_version() < gate.number,
            "watchers hear nothing of it"
        );
        run.pass_until("it is acknowledged", |run| {
            run.progress(leader, gate) == WaitProgress::UpTo(gate.number)
        });
        let partition = run.partition(leader).expect("it is there");
        assert_eq!(partition.committed_version(), gate.number);
        let read = run.get(leader, "/kv/a");
        assert_eq!((read.status(), read.gate), (200, None));
        assert_eq!(read.lease_end_ms, run.lease_end_ms(leader));
    }
}

#[test]
fn a_client_can_do_without() {
    for kind in [Kind::Synced, Kind::Memory] {
        let (mut run, leader) = Run::in_sync(kind);
        let written = run.put(leader, "/kv/a", "X-Min-Acks: 0\r\n");
        assert_eq!(written.status(), 201);
        let wait = written.gate.map(|gate| gate.wait);
        assert_eq!(
            matches!(wait, Some(Wait::Disk { .. })),
            kind == Kind::Synced,
            "{wait:?}"
        );
        for target in ["/kv/a?consistency=local", "/scan?consistency=local"] {
            let read = run.get(leader, target);
            assert_eq!((read.status(), read.gate), (200, None));
            assert_eq!(read.lease_end_ms, u64::MAX);
        }
        let more = run.put(leader, "/kv/b", "X-Min-Acks: 2\r\n");
        let wait = more.gate.map(|gate| gate.wait);
        assert!(
            matches!(wait, Some(Wait::Acks { count: 2, .. })),
            "{wait:?}"
        );
    }
}

#[test]
fn a_write_that_was_not_made_for_what_is_there_is_a_read() {
    let (mut run, leader) = Run::in_sync(Kind::Synced);
    run.put(leader, "/kv/a", "");
    for (method, target, fields, body, status) in [
        ("PUT", "/kv/a", "If-None-Match: *\r\n", "v", 412),
        ("PUT", "/kv/b", "If-Match: *\r\n", "v", 412),
        (
            "POST",
            "/set",
            "If-None-Match: *\r\n",
            r#"{"key":"a","value":"v"}"#,
            412,
        ),
        ("DELETE", "/kv/b", "", "", 404),
        ("DELETE", "/kv/b", "If-Match: *\r\n", "", 404),
        ("POST", "/delete", "", r#"{"key":"b"}"#, 200),
        ("POST", "/delete", "If-Match: *\r\n", r#"{"key":"b"}"#, 412),
        (
            "POST",
            "/batch",
            "",
            r#"{"ops":[{"op":"delete","key":"b"}]}"#,
            200,
        ),
        (
            "POST",
            "/batch",
            "",
            r#"{"ops":[{"op":"set","key":"a","value":"v","ifNoneMatch":"*"}]}"#,
            412,
        ),
    ] {
        let asked = run.ask(leader, method, target, fields, body);
        run.assert_read(leader, &asked, status);
    }
    // Before the value has come, too.
    let large = "v".repeat(20_000);
    let asked = run.ask(leader, "PUT", "/kv/a", "If-None-Match: *\r\n", &large);
    run.assert_read(leader, &asked, 412);
}

#[test]
fn past_its_lease_a_leader_answers_nothing() {
    let (mut run, leader) = Run::in_sync(Kind::Synced);
    for other in (0..3).filter(|other| *other != leader) {
        run.cluster.set_weather(leader, other, Weather::Stalled);
    }
    run.etcd.ways[leader] = Way::Away;
    run.pass_until("the lease ends", |run| {
        run.state_of(leader) == MemberState::Fenced
    });
    for target in ["/kv/a", "/scan", "/kv/a?consistency=acknowledged"] {
        run.get(leader, target).assert_refused(503, "fenced");
    }
    run.put(leader, "/kv/a", "").assert_refused(503, "fenced");
    run.put(leader, "/kv/a", "X-Min-Acks: 0\r\n")
        .assert_refused(503, "fenced");
    let batch = r#"{"ops":[{"op":"set","key":"a","value":"v"},{"op":"get","key":"a"}]}"#;
    run.ask(leader, "POST", "/batch", "", batch)
        .assert_refused(503, "fenced");
    assert_eq!(run.get(leader, "/kv/a?consistency=local").status(), 404);
}

#[test]
fn nothing_is_answered_during_a_hand_over() {
    let (mut run, leader) = Run::in_sync(Kind::Synced);
    let (other, local_ms) = ((leader + 1) % 3, run.cluster.local_ms(leader));
    let node = run.cluster.node(leader).expect("it runs");
    assert!(node.begin_handover(0, Some(&name(other)), local_ms).is_ok());
    run.pass_until("it hands over", |run| {
        run.state_of(leader) == MemberState::HandingOver
    });
    run.get(leader, "/kv/a").assert_refused(503, "handing_over");
    run.put(leader, "/kv/a", "")
        .assert_refused(503, "handing_over");
    run.pass_until("the other leads", |run| run.open_leader() == Some(other));
    run.put(leader, "/kv/a", "")
        .assert_refused(421, "not_leader");
}

#[test]
fn with_fewer_copies_than_needed_nothing_is_written() {
    let (mut run, leader) = Run::in_sync(Kind::Synced);
    let partition = run.partition(leader).expect("it is there");
    partition.set_copy_counts(1, 2);
    let asked = run.put(leader, "/kv/a", "");
    asked.assert_refused(503, "not_enough_replicas");
    assert!(asked.text.contains("1 of the 2 copies"), "{}", asked.text);
    assert_eq!(run.get(leader, "/kv/a").status(), 404);
}

#[test]
fn a_replica_names_the_leader_and_reads_what_it_has() {
    let (mut run, leader) = Run::in_sync(Kind::Synced);
    let replica = (leader + 1) % 3;
    let asked = run.put(replica, "/kv/a", "");
    asked.assert_refused(421, "not_leader");
    let field = format!("X-Leader: {}\r\n", address(leader));
    assert!(asked.text.contains(&field), "{}", asked.text);
    let read = run.get(replica, "/kv/a");
    assert_eq!((read.status(), read.gate), (404, None));
    assert_eq!(read.lease_end_ms, u64::MAX);
    run.get(replica, "/kv/a?consistency=acknowledged")
        .assert_refused(421, "not_leader");
    run.get(replica, "/kv/a?partition=7")
        .assert_refused(404, "partition_not_found");
}

#[test]
fn a_node_that_knows_no_leader_says_so() {
    for kind in [Kind::Synced, Kind::Memory] {
        let (mut run, leader) = Run::in_sync(kind);
        run.cluster.crash(leader, false);
        assert!(run.cluster.start(leader));
        run.get(leader, "/kv/a")
            .assert_refused(503, "cluster_unknown");
        run.put(leader, "/kv/a", "")
            .assert_refused(503, "cluster_unknown");
        let is_led = |run: &mut Run| run.open_leader().is_some_and(|host| host != leader);
        if kind == Kind::Synced {
            // It is named, and has to ask etcd before it leads again.
            run.pass_until("it has read", |run| {
                run.state_of(leader) != MemberState::Unknown
            });
            run.get(leader, "/kv/a").assert_refused(503, "no_leader");
            run.put(leader, "/kv/a", "")
                .assert_refused(503, "no_leader");
        } else {
            run.pass_until("another node leads", is_led);
        }
    }
}

#[test]
fn a_write_whose_leader_is_gone_has_no_known_outcome() {
    let (mut run, leader) = Run::in_sync(Kind::Synced);
    for other in (0..3).filter(|other| *other != leader) {
        run.cluster.set_weather(leader, other, Weather::Stalled);
    }
    let written = run.put(leader, "/kv/a", "");
    let gate = written.gate.expect("it waits");
    run.etcd.ways[leader] = Way::Away;
    run.pass_until("another node leads", |run| {
        let mut hosts = 0..run.host_count();
        hosts.any(|host| host != leader && run.is_open(host, true))
    });
    assert!(
        matches!(run.progress(leader, gate), WaitProgress::UpTo(reached) if reached < gate.number)
    );
    run.etcd.ways[leader] = Way::Fine;
    run.pass_until("it hears of it", |run| {
        let partition = run.partition(leader).expect("it is there");
        partition.roles().role() == Role::Replica
    });
    assert_eq!(run.progress(leader, gate), WaitProgress::Never);
    let refusal = db_node::api::deferred_failed(gate.wait, false);
    assert_eq!((refusal.status, refusal.code), (504, "role_changed"));
}

#[test]
fn only_etcd_gives_roles() {
    let (mut run, leader) = Run::in_sync(Kind::Memory);
    for (method, target, body) in [
        (
            "POST",
            "/partition/assign",
            r#"{"id":0,"role":"leader","epoch":99}"#,
        ),
        ("POST", "/partition/assign", r#"{"id":0,"role":"none"}"#),
        ("DELETE", "/partition/0", ""),
    ] {
        let asked = run.ask(leader, method, target, "", body);
        asked.assert_refused(409, "managed_by_etcd");
    }
    assert_eq!(run.open_leader(), Some(leader));
}

/// What load balancers and people are told, while a leader is in order, without a lease, and
/// handing over.
#[test]
fn states_are_told() {
    let (mut run, leader) = Run::in_sync(Kind::Synced);
    let (replica, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let tell = |run: &mut Run, host: usize| {
        let statuses =
            ["/leader", "/replica", "/readyz"].map(|target| run.get(host, target).status());
        let health = run.get(host, "/health").json()["partitionStates"][0].clone();
        let status = run.get(host, "/status").json();
        let partition = status["partitions"][0].clone();
        assert_eq!(health["state"], partition["state"]);
        assert_eq!(
            [&status["cluster"], &status["node"]],
            [&json!("default"), &json!(name(host))]
        );
        assert!(status["etcd"]["revision"].as_u64() > Some(0), "{status}");
        (statuses, partition)
    };
    let (statuses, partition) = tell(&mut run, leader);
    assert_eq!(statuses, [200, 503, 200]);
    assert_eq!(partition["state"], "leading");
    assert_eq!(partition["inSync"].as_array().map(Vec::len), Some(3));
    assert!(partition["leaseLeftMs"].as_u64() > Some(0));
    let (statuses, partition) = tell(&mut run, replica);
    assert_eq!(statuses, [503, 200, 200]);
    assert_eq!(partition["state"], "in sync");
    let reason = partition["stateReason"].as_str().expect("a text");
    assert!(
        reason.starts_with(&format!("{} leads in epoch", name(leader))),
        "{reason}"
    );
    assert_eq!(partition["leaseLeftMs"], Json::Null);

    let local_ms = run.cluster.local_ms(leader);
    let node = run.cluster.node(leader).expect("it runs");
    assert!(
        node.begin_handover(0, Some(&name(replica)), local_ms)
            .is_ok()
    );
    run.pass_until("it hands over", |run| {
        run.state_of(leader) == MemberState::HandingOver
    });
    let (statuses, partition) = tell(&mut run, leader);
    assert_eq!(
        (statuses, &partition["state"]),
        ([503, 503, 503], &json!("handing over"))
    );
    run.pass_until("the other leads", |run| run.open_leader() == Some(replica));
    run.pass_until("all are in sync", Run::is_in_sync);

    // A replica that has come back, and is in sync once the leader has taken it into the set.
    run.cluster.crash(third, false);
    run.pass_until("it is missed", |run| run.config().in_sync.len() == 2);
    assert!(run.cluster.start(third));
    let mut seen = Vec::new();
    run.pass_until("it is in sync", |run| {
        if run.state_of(third) == MemberState::Following {
            let (_, partition) = tell(run, third);
            let state = partition["state"].as_str().expect("a text").to_owned();
            let reason = partition["stateReason"].as_str().expect("a text");
            let is_named = reason.ends_with("this copy is in sync");
            assert_eq!(state == "in sync", is_named, "{state}: {reason}");
            seen.push(state);
        }
        run.is_in_sync() && seen.last().is_some_and(|state| state == "in sync")
    });
    assert!(seen.iter().any(|state| state == "catching up"), "{seen:?}");

    for other in [leader, third] {
        run.cluster.set_weather(replica, other, Weather::Stalled);
    }
    run.etcd.ways[replica] = Way::Away;
    let is_fenced = |run: &mut Run| run.state_of(replica) == MemberState::Fenced;
    run.pass_until("the lease ends", is_fenced);
    run.cluster.step(10);
    run.step_etcd();
    let (statuses, partition) = tell(&mut run, replica);
    assert_eq!(
        (statuses, &partition["state"]),
        ([503, 503, 503], &json!("fenced"))
    );
    assert_eq!(partition["leaseLeftMs"], 0);
    let metrics = run.get(replica, "/metrics").text;
    for line in [
        "dbnode_in_sync_copies{partition=\"0\"} 3",
        "dbnode_takeovers_total{partition=\"0\",cause=\"handed_over\"} 1",
        "dbnode_lease_left_seconds{partition=\"0\"} 0",
        "dbnode_etcd_went_back{partition=\"0\"} 0",
        "dbnode_config_unreadable{partition=\"0\"} 0",
        "dbnode_etcd_up 0",
    ] {
        assert!(
            metrics.contains(&format!("\n{line}\n")),
            "{line} is not in {metrics}"
        );
    }
    assert!(!metrics.contains("dbnode_fenced_seconds_total{partition=\"0\"} 0\n"));
}

/// Each way for a key to come in: whether it writes, method, target, fields and body.
fn ways(key: &str) -> Vec<(bool, &'static str, String, &'static str, String)> {
    const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";
    let (path, set) = (format!("/kv/{key}"), "/set".to_owned());
    let query = |path: &str| format!("{path}?key={key}");
    let fields = json!({"key": key, "value": "v"}).to_string();
    let escaped = format!("{{\"key\":\"\\u006b{}\",\"value\":\"v\"}}", &key[1..]);
    let operation = |fields: &str| format!("{{\"ops\":[{{\"key\":\"{key}\",{fields}}}]}}");
    let (large, batch) = ("v".repeat(20_000), "/batch".to_owned());
    let behind = format!("{{\"value\":\"{large}\",\"key\":\"{key}\"}}");
    let form = format!("key={key}&value=v");
    vec![
        (true, "PUT", path.clone(), "", "v".to_owned()),
        (true, "PUT", path.clone(), "", large),
        (true, "POST", query("/set"), "", "v".to_owned()),
        (true, "POST", set.clone(), "", fields.clone()),
        (true, "POST", set.clone(), "", escaped),
        (true, "POST", set.clone(), "", behind),
        (true, "POST", set, FORM, form.clone()),
        (false, "GET", path.clone(), "", String::new()),
        (false, "GET", query("/get"), "", String::new()),
        (false, "POST", "/get".to_owned(), "", fields.clone()),
        (false, "POST", "/get".to_owned(), FORM, form.clone()),
        (
            true,
            "POST",
            batch.clone(),
            "",
            operation("\"op\":\"set\",\"value\":\"v\""),
        ),
        (
            false,
            "POST",
            batch.clone(),
            "",
            operation("\"op\":\"get\""),
        ),
        (true, "POST", batch, "", operation("\"op\":\"delete\"")),
        (true, "POST", query("/delete"), "", String::new()),
        (true, "POST", "/delete".to_owned(), "", fields),
        (true, "DELETE", query("/delete"), "", String::new()),
        (true, "DELETE", path, "", String::new()),
    ]
}

/// Keys are spread over 16 partitions, of which this node leads number 0.
#[test]
fn a_key_decides_the_partition_whatever_way_it_comes_in() {
    const COUNT: u32 = 16;
    let (mut run, leader) = Run::in_sync(Kind::Memory);
    run.spread_keys(COUNT);
    run.pass_until("the nodes hear of it", |run| {
        (0..3).all(|host| {
            let node = run.cluster.node(host).expect("it runs");
            node.spreads_keys()
        })
    });
    let partition_of = |key: &String| crc32c::crc32c(key.as_bytes()) % COUNT;
    let keys: Vec<String> = (0..100).map(|number| format!("k{number}")).collect();
    let here = keys.iter().find(|key| partition_of(key) == 0).expect("one");
    let away = keys.iter().find(|key| partition_of(key) == 5).expect("one");
    let url = format!("X-Leader: {}\r\n", address(leader));
    for (is_write, method, target, fields, body) in ways(here) {
        let version = |run: &mut Run| {
            let partition = run.partition(leader).expect("it is there");
            partition.lsm().last_version()
        };
        let before = version(&mut run);
        for host in 0..3 {
            for number in ["5", "16", "4294967295"] {
                let named = format!("{fields}X-Partition-ID: {number}\r\n");
                let param = if target.contains('?') { '&' } else { '?' };
                let param = format!("{target}{param}partition={number}");
                for asked in [
                    run.ask(host, method, &target, &named, &body),
                    run.ask(host, method, &param, fields, &body),
                ] {
                    asked.assert_refused(421, "wrong_partition");
                    let is_told = asked.text.contains("X-Partition-ID: 0\r\n");
                    assert!(is_told && asked.text.contains(&url), "{}", asked.text);
                }
            }
            if is_write && host != leader {
                let asked = run.ask(host, method, &target, fields, &body);
                asked.assert_refused(421, "not_leader");
            }
        }
        assert_eq!(
            version(&mut run),
            before,
            "{method} {target}: nothing was done"
        );
        for header in ["", "X-Partition-ID: 0\r\n"] {
            run.put(leader, &format!("/kv/{here}"), "");
            let asked = run.ask(leader, method, &target, &format!("{fields}{header}"), &body);
            assert!([200, 201, 204].contains(&asked.status()), "{}", asked.text);
        }
    }
    // No node has said yet which one leads partition 5.
    for (_, method, target, fields, body) in ways(away) {
        let asked = run.ask(leader, method, &target, fields, &body);
        asked.assert_refused(503, "cluster_unknown");
        let named = format!("{fields}X-Partition-ID: 0\r\n");
        let asked = run.ask(leader, method, &target, &named, &body);
        asked.assert_refused(421, "wrong_partition");
    }
    let both = json!({"ops": [{"op": "get", "key": here}, {"op": "get", "key": away}]}).to_string();
    for fields in ["", "X-Partition-ID: 0\r\n", "X-Partition-ID: 5\r\n"] {
        let asked = run.ask(leader, "POST", "/batch", fields, &both);
        asked.assert_refused(400, "many_partitions");
    }
    for target in ["/scan", "/watch", "/digest", "/snapshot"] {
        run.get(leader, target)
            .assert_refused(400, "partition_missing");
        if target == "/watch" {
            continue; // Its answer has no end.
        }
        assert_eq!(
            run.get(leader, &format!("{target}?partition=0")).status(),
            200
        );
    }
}
