//! The client of etcd, and nodes with it, with a real `etcd`: each request, each answer, the watch,
//! users, members that are not there, and a fail-over. Passed over, and says so, where `etcd` is
//! not installed.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use db_node::cluster::etcd::{
    ANSWER_MAX_BYTES, Answer, Channel, Client, ConnectionId, Effect, Failure, KeyValue, Outcome,
    Request,
};
use db_node::config::EtcdUser;
use serde_json::{Value as Json, json};

use common::etcd::Etcd;
use common::member::Member;
use common::{Folder, PATIENCE, text, wait_for};

const PREFIX: &str = "/db-node/x/";
/// The prefix, and the end of all that begins so.
const RANGE: [&str; 2] = ["L2RiLW5vZGUveC8=", "L2RiLW5vZGUveDA="];

/// A client with sockets of its own.
struct Driver {
    client: Client,
    sockets: Vec<(ConnectionId, TcpStream)>,
    start: Instant,
    ticket: u64,
    outcomes: Vec<Outcome>,
    hint_count: usize,
    /// The watch has begun.
    watches: bool,
}

impl Driver {
    fn new(endpoints: &[String], user: Option<EtcdUser>) -> Self {
        let authority = |url: &String| url.trim_start_matches("http://").to_owned();
        let endpoints = endpoints.iter().map(authority).collect();
        Self {
            client: Client::new(endpoints, user, PREFIX.to_owned(), 0),
            sockets: Vec::new(),
            start: Instant::now(),
            ticket: 0,
            outcomes: Vec::new(),
            hint_count: 0,
            watches: false,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).expect("short")
    }

    fn turn(&mut self) {
        self.client.on_time(self.now_ms());
        self.take_effects();
        let mut buffer = vec![0; 64 * 1024];
        for (id, mut stream) in std::mem::take(&mut self.sockets) {
            let now_ms = self.now_ms();
            match stream.read(&mut buffer) {
                Ok(0) => {
                    self.client.on_closed(id, "closed", now_ms);
                    continue;
                }
                Ok(len) => {
                    self.watches |= id.channel == Channel::Watch;
                    self.client.on_bytes(id, &buffer[..len], now_ms);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.client.on_closed(id, &error.to_string(), now_ms);
                    continue;
                }
            }
            self.sockets.push((id, stream));
        }
        self.take_effects();
    }

    fn take_effects(&mut self) {
        while let Some(effect) = self.client.next_effect() {
            match effect {
                Effect::Connect { id, authority } => match TcpStream::connect(&authority) {
                    Ok(stream) => {
                        let patience = Duration::from_millis(2);
                        stream.set_read_timeout(Some(patience)).expect("a time-out");
                        self.sockets.push((id, stream));
                        self.client.on_connected(id, self.now_ms());
                    }
                    Err(error) => {
                        self.client.on_closed(id, &error.to_string(), self.now_ms());
                    }
                },
                Effect::Send { id, bytes } => {
                    let found = self.sockets.iter_mut().find(|(open, _)| *open == id);
                    let (_, stream) = found.expect("an open connection");
                    let _ = stream.write_all(&bytes);
                }
                Effect::Close { id } => {
                    self.watches &= id.channel != Channel::Watch;
                    self.sockets.retain(|(open, _)| *open != id);
                }
                Effect::Outcome(outcome) => self.outcomes.push(outcome),
                Effect::Hint => self.hint_count += 1,
            }
        }
    }

    #[track_caller]
    fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            let health = self.client.health();
            assert!(start.elapsed() < PATIENCE, "not {what}: {health:?}");
            self.turn();
        }
    }

    /// One request, and how it ends.
    #[track_caller]
    fn ask(&mut self, request: Request) -> Result<Answer, Failure> {
        self.until("ready", |driver| {
            driver.client.wants_request(driver.now_ms())
        });
        self.ticket += 1;
        let now_ms = self.now_ms();
        self.client.submit(self.ticket, request, now_ms);
        self.until("answered", |driver| !driver.outcomes.is_empty());
        let outcome = self.outcomes.pop().expect("one");
        assert_eq!((outcome.ticket, self.outcomes.len()), (self.ticket, 0));
        outcome.result
    }

    /// One request, again until it is answered.
    #[track_caller]
    fn ask_until_answered(&mut self, request: &Request) -> Answer {
        let start = Instant::now();
        loop {
            match self.ask(request.clone()) {
                Ok(answer) => return answer,
                Err(failure) => assert!(start.elapsed() < PATIENCE, "{failure}"),
            }
        }
    }

    #[track_caller]
    fn range(&mut self) -> (u64, Vec<KeyValue>) {
        match self.ask(range()) {
            Ok(Answer::Range {
                cluster_id,
                revision,
                values,
            }) => {
                assert_ne!(cluster_id, 0);
                (revision, values)
            }
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn write(&mut self, compares: &[(&str, u64)], puts: &[(&str, &str)], deletes: &[&str]) -> u64 {
        match self.ask(write(compares, puts, deletes)) {
            Ok(Answer::Written { revision }) => revision,
            other => panic!("{other:?}"),
        }
    }
}

fn range() -> Request {
    let prefix = PREFIX.to_owned();
    Request::Range { prefix }
}

fn write(compares: &[(&str, u64)], puts: &[(&str, &str)], deletes: &[&str]) -> Request {
    Request::Write {
        compares: (compares.iter())
            .map(|(key, revision)| (format!("{PREFIX}{key}"), *revision))
            .collect(),
        puts: (puts.iter())
            .map(|(key, value)| (format!("{PREFIX}{key}"), value.as_bytes().to_vec()))
            .collect(),
        deletes: deletes.iter().map(|key| format!("{PREFIX}{key}")).collect(),
    }
}

fn pair(key: &str, mod_revision: u64, value: &str) -> KeyValue {
    KeyValue {
        key: format!("{PREFIX}{key}"),
        mod_revision,
        value: value.as_bytes().to_vec(),
    }
}

#[test]
fn requests_are_answered() {
    let Some(etcd) = Etcd::start() else {
        return;
    };
    let mut driver = Driver::new(&[etcd.url()], None);
    assert_eq!(driver.range(), (1, Vec::new()));
    let created = driver.write(&[("a", 0)], &[("a", "one"), ("b", "")], &[]);
    let (revision, values) = driver.range();
    assert_eq!(revision, created);
    assert_eq!(values, [pair("a", created, "one"), pair("b", created, "")]);
    assert_eq!(
        driver.ask(write(
            &[("a", 0), ("none", 0), ("b", created)],
            &[("a", "two")],
            &[]
        )),
        Ok(Answer::Refused {
            revision: created,
            current: values,
        })
    );
    assert_eq!(
        driver.ask(write(&[("none", created)], &[], &[])),
        Ok(Answer::Refused {
            revision: created,
            current: Vec::new(),
        })
    );
    let changed = driver.write(&[("a", created), ("none", 0)], &[("a", "two")], &["b"]);
    assert_eq!(changed, created + 1);
    assert_eq!(driver.range(), (changed, vec![pair("a", changed, "two")]));
    // Of others: a name that begins almost so, and one that is no text.
    for (key, value) in [("L2RiLW5vZGUveDA=", "MQ=="), ("L2RiLW5vZGUveC//", "MQ==")] {
        etcd.call("/v3/kv/put", &json!({"key": key, "value": value}));
    }
    let (revision, values) = driver.range();
    assert_eq!((revision, values.len()), (changed + 2, 1));
    let everything = Request::Range {
        prefix: String::new(),
    };
    match driver.ask(everything) {
        Ok(Answer::Range { values, .. }) => assert_eq!(values.len(), 2),
        other => panic!("{other:?}"),
    }
}

#[test]
fn errors_and_long_answers_are_failures() {
    let Some(etcd) = Etcd::start() else {
        return;
    };
    let mut driver = Driver::new(&[etcd.url()], None);
    let names: Vec<String> = (0..129).map(|number| format!("n{number}")).collect();
    let puts: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    match driver.ask(write(&[], &puts, &[])) {
        Err(Failure::Error { code: 3, message }) => {
            assert!(message.contains("too many operations"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    match driver.ask(write(&[], &[("a", ""), ("a", "")], &[])) {
        Err(Failure::Error { code: 3, message }) => {
            assert!(message.contains("duplicate key"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!driver.client.health().is_up);
    // In base64 a third longer.
    let value = "v".repeat(ANSWER_MAX_BYTES / 4);
    for key in ["a", "b"] {
        driver.write(&[], &[(key, &value)], &[]);
    }
    let (_, values) = driver.range();
    assert!(values.iter().all(|pair| pair.value == value.as_bytes()));
    driver.write(&[], &[("c", &value)], &[]);
    match driver.ask(range()) {
        Err(Failure::Malformed(problem)) => {
            assert!(problem.contains("longer than 4 MiB"), "{problem}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn changes_are_heard_of() {
    let Some(mut etcd) = Etcd::start() else {
        return;
    };
    let mut other = Driver::new(&[etcd.url()], None);
    let mut driver = Driver::new(&[etcd.url()], None);
    driver.range();
    driver.until("watching", |driver| driver.watches);
    assert_eq!(driver.hint_count, 0);
    let key = json!({"key": "L2RiLW5vZGUveDA=", "value": ""});
    etcd.call("/v3/kv/put", &key);
    other.write(&[], &[("a", "1")], &[]);
    driver.until("told", |driver| driver.hint_count == 1);
    other.write(&[], &[], &["a"]);
    driver.until("told of the end", |driver| driver.hint_count == 2);
    // Changes that are compacted before the watch begins.
    let mut late = Driver::new(&[etcd.url()], None);
    late.client.submit(1, range(), 0);
    late.take_effects();
    while late.outcomes.is_empty() {
        let (id, stream) = &mut late.sockets[0];
        let mut buffer = [0; 4096];
        if let Ok(len) = stream.read(&mut buffer) {
            late.client.on_bytes(*id, &buffer[..len], 0);
        }
        late.take_effects();
    }
    other.write(&[], &[("a", "2")], &[]);
    let revision = other.write(&[], &[("a", "3")], &[]);
    etcd.call("/v3/kv/compaction", &json!({"revision": revision}));
    late.until("canceled", |late| late.hint_count == 1);
    let health = late.client.health();
    assert!(health.last_error.contains("compacted"), "{health:?}");
    late.outcomes.clear();
    late.range();
    late.until("watching", |late| late.watches);
    other.write(&[], &[("a", "4")], &[]);
    late.until("told", |late| late.hint_count == 2);
    // etcd stops, and comes back.
    driver.until("told", |driver| driver.hint_count == 5);
    etcd.signal("TERM");
    driver.until("told of the end", |driver| driver.hint_count == 6);
    etcd.kill();
    assert!(driver.ask(range()).is_err());
    assert!(!driver.client.health().is_up);
    assert!(etcd.run(), "etcd starts again");
    driver.ask_until_answered(&range());
    driver.until("watching", |driver| driver.watches);
    driver.write(&[], &[("a", "5")], &[]);
    driver.until("told", |driver| driver.hint_count == 7);
}

/// A member that is gone, and one that takes connections and says nothing.
#[test]
fn another_member_is_asked() {
    let Some(etcd) = Etcd::start() else {
        return;
    };
    let gone = TcpListener::bind("127.0.0.1:0").expect("bind");
    let gone = format!("http://{}", gone.local_addr().expect("an address"));
    let silent = TcpListener::bind("127.0.0.1:0").expect("bind");
    let silent_url = format!("http://{}", silent.local_addr().expect("an address"));
    let mut driver = Driver::new(&[gone, silent_url, etcd.url()], None);
    driver.ask_until_answered(&range());
    let (revision, _) = driver.range();
    assert_eq!(revision, 1);
    driver.until("watching", |driver| driver.watches || driver.hint_count > 0);
}

/// A stopped process takes connections and bytes, and answers when it goes on: not the next
/// request.
#[test]
fn a_late_answer_is_dropped() {
    let Some(etcd) = Etcd::start() else {
        return;
    };
    let mut driver = Driver::new(&[etcd.url()], None);
    let revision = driver.write(&[("a", 0)], &[("a", "1")], &[]);
    etcd.signal("STOP");
    let late = write(&[("a", revision)], &[("a", "2")], &[]);
    assert_eq!(driver.ask(late), Err(Failure::TimedOut));
    etcd.signal("CONT");
    // It may have been carried out all the same.
    match driver.ask_until_answered(&range()) {
        Answer::Range { values, .. } => {
            let found = &values[0].value;
            assert!(found == b"1" || found == b"2", "{values:?}");
        }
        other => panic!("the answer to a write: {other:?}"),
    }
}

#[test]
fn users_are_asked_for_their_names() {
    let Some(mut etcd) = Etcd::start() else {
        return;
    };
    let user = |name: &str, password: &str| {
        Some(EtcdUser {
            name: name.to_owned(),
            password: password.to_owned(),
        })
    };
    let mut driver = Driver::new(&[etcd.url()], user("dbn", "secret"));
    // There are no users yet.
    assert_eq!(driver.range(), (1, Vec::new()));
    driver.until("watching", |driver| driver.watches);
    etcd.require_users("dbn", "secret", RANGE);
    driver.write(&[("a", 0)], &[("a", "1")], &[]);
    let mut stranger = Driver::new(&[etcd.url()], None);
    match stranger.ask(range()) {
        Err(Failure::Error { code: 3, message }) => {
            assert!(message.contains("user name is empty"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    let mut wrong = Driver::new(&[etcd.url()], user("dbn", "guessed"));
    match wrong.ask(range()) {
        Err(Failure::Error { code: 3, message }) => {
            assert!(message.contains("authentication failed"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    let all = Request::Range {
        prefix: String::new(),
    };
    match driver.ask(all) {
        Err(Failure::Error { code: 7, message }) => {
            assert!(message.contains("permission denied"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    // Tokens do not outlast etcd's process.
    etcd.kill();
    assert!(etcd.run(), "etcd starts again");
    driver.ask_until_answered(&range());
    driver.until("watching", |driver| driver.watches);
    let hint_count = driver.hint_count;
    let (revision, _) = driver.range();
    assert_eq!(driver.write(&[], &[("a", "2")], &[]), revision + 1);
    driver.until("told", |driver| driver.hint_count > hint_count);
}

/// Keys and values of a cluster, by what they are about.
fn keys(etcd: &Etcd, user: Option<EtcdUser>) -> Vec<(String, Json)> {
    let mut driver = Driver::new(&[etcd.url()], user);
    let prefix = PREFIX.to_owned();
    let Answer::Range { values, .. } = driver.ask_until_answered(&Request::Range { prefix }) else {
        panic!("no range");
    };
    let value = |pair: KeyValue| {
        let json = serde_json::from_slice(&pair.value).expect("JSON");
        (pair.key.trim_start_matches(PREFIX).to_owned(), json)
    };
    values.into_iter().map(value).collect()
}

fn value_of(etcd: &Etcd, key: &str) -> Option<Json> {
    let mut keys = keys(etcd, None).into_iter();
    keys.find(|(found, _)| found == key).map(|(_, value)| value)
}

/// A node of the cluster x.
fn member(etcd: &Etcd, name: &str, more: &[&str]) -> Member {
    let url = etcd.url();
    let arguments = ["--etcd", &url, "--cluster", "x", "--node", name];
    Member::start(&[&arguments, more].concat())
}

#[test]
fn a_node_registers_as_a_user() {
    let Some(etcd) = Etcd::start() else {
        return;
    };
    etcd.require_users("dbn", "secret", RANGE);
    let folder = Folder::new("etcd-user");
    std::fs::write(folder.join("user"), "dbn:secret\n").expect("write");
    let path = folder.join("user");
    let user_file = ["--etcd-user-file", text(&path), "--zone", "a"];
    let node = member(&etcd, "n1", &user_file);
    let user = EtcdUser {
        name: "dbn".to_owned(),
        password: "secret".to_owned(),
    };
    wait_for("its key", || !keys(&etcd, Some(user.clone())).is_empty());
    let keys = keys(&etcd, Some(user));
    assert_eq!(keys[0].0, "nodes/n1");
    assert_eq!(keys[0].1["url"], node.url());
    assert_eq!(keys[0].1["zone"], "a");
    let config = &node.status()["config"];
    assert_eq!(
        (&config["node"], &config["etcdUser"]),
        (&json!("n1"), &json!(true))
    );
}

#[test]
fn a_follower_takes_over_from_a_leader_that_is_killed() {
    let Some(mut etcd) = Etcd::start() else {
        return;
    };
    let mut members: Vec<_> = ["n0", "n1", "n2"]
        .iter()
        .map(|name| Some(member(&etcd, name, &["--lease-ms", "1000"])))
        .collect();
    let cluster = json!({"format": 1, "id": "04".repeat(16), "partitions": 1, "hash": "crc32c"});
    let config = json!({"format": 1, "epoch": 0, "leader": "n0", "handedOver": false,
        "leaseMs": 1000, "inSync": [], "replicas": ["n0", "n1", "n2"], "leaving": []});
    let mut driver = Driver::new(&[etcd.url()], None);
    let (cluster, config) = (cluster.to_string(), config.to_string());
    let puts = [("cluster", &*cluster), ("partitions/0/config", &*config)];
    driver.write(&[("partitions/0/config", 0)], &puts, &[]);
    let config = || value_of(&etcd, "partitions/0/config").expect("a configuration");
    let in_sync_count = || config()["inSync"].as_array().map_or(0, Vec::len);
    wait_for("three copies in sync", || in_sync_count() == 3);
    let leader = members[0].take().expect("running");
    let set = |member: &Member, key: &str| member.put(key, &[], "1").status;
    for number in 0..20 {
        assert_eq!(set(&leader, &format!("k{number}")), 201);
    }
    let url = leader.url();
    assert_eq!(set(members[1].as_ref().expect("running"), "a"), 421);
    drop(leader);
    let others: Vec<_> = members.iter().flatten().collect();
    let mut successor = None;
    wait_for("a successor", || {
        successor = others.iter().find(|member| set(member, "b") == 201);
        successor.is_some()
    });
    let successor = successor.expect("found");
    assert_ne!(successor.url(), url);
    assert_eq!((&config()["epoch"], in_sync_count()), (&json!(2), 2));
    for number in 0..20 {
        assert_eq!(successor.get(&format!("/kv/k{number}")).status, 200);
    }
    // Without etcd all goes on.
    etcd.kill();
    assert_eq!(set(successor, "c"), 201);
    successor.log.assert_has("etcd: no answer for");
    assert!(etcd.run(), "etcd starts again");
    successor.log.assert_has("answers, after");
    assert_eq!(set(successor, "d"), 201);
}
