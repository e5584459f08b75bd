//! The process: what may ask it, how it starts, stops and survives, and what it says of itself.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

mod common;

use std::io::Read;
use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use common::{
    Client, Folder, Node, PATIENCE, assert_error, command, let_pass, request_bytes, text, wait_for,
};

const TOKEN: &str = "correct-horse-battery-staple";

/// A file that goes when this does.
struct TokenFile(PathBuf);

impl TokenFile {
    fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("db-node-{name}-{}", std::process::id()));
        std::fs::write(&path, content).expect("write the token");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path")
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Runs the program to its end.
fn run(arguments: &[&str]) -> Output {
    command().args(arguments).output().expect("run the program")
}

/// Asserts that a run failed with one line on standard error; returns it.
#[track_caller]
fn assert_fails(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).expect("text");
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(output.stdout.is_empty());
    assert!(
        stderr.ends_with('\n') && stderr.lines().count() == 1,
        "not one line: {stderr:?}"
    );
    stderr
}

#[test]
fn web_pages_of_other_sites_are_refused() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    client.request("PUT", "/kv/k", &[], b"v");
    let own = format!("Origin: http://{}", node.address);
    let host = format!("Host: {}", node.address);
    let mut ask = |method: &str, target: &str, headers: &[&str]| {
        // Host is the test's own here, so these are written out.
        let headers = headers.join("\r\n");
        client.send(
            format!("{method} {target} HTTP/1.1\r\n{headers}\r\nContent-Length: 0\r\n\r\n")
                .as_bytes(),
        );
        client.response(method == "HEAD")
    };
    for foreign in [
        "Origin: http://evil.example",
        "Origin: null",
        "Origin: http://127.0.0.1:1",
        "Origin: http://localhost.evil.example",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ] {
        for (method, target) in [
            ("GET", "/kv/k"),
            ("POST", "/set?key=k"),
            ("DELETE", "/kv/k"),
            ("GET", "/status"),
            ("GET", "/health"),
            ("POST", "/admin/freeze"),
            ("GET", "/nothing"),
        ] {
            assert_error(
                &ask(method, target, &[&host, foreign]),
                403,
                "foreign_origin",
            );
        }
    }
    assert_eq!(
        ask(
            "GET",
            "/kv/k",
            &[&host, &own, "Sec-Fetch-Site: same-origin"]
        )
        .text(),
        "v"
    );
    assert_eq!(
        ask("GET", "/kv/k", &[&host, "Sec-Fetch-Site: none"]).text(),
        "v"
    );

    for foreign in [
        "evil.example",
        "evil.example:9001",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
    ] {
        let foreign = format!("Host: {foreign}");
        assert_error(&ask("GET", "/kv/k", &[&foreign]), 421, "host_not_allowed");
        assert_error(
            &ask("DELETE", "/kv/k", &[&foreign]),
            421,
            "host_not_allowed",
        );
        // A supervisor names the node as it likes.
        for path in ["/health", "/livez", "/readyz", "/leader"] {
            assert_eq!(ask("GET", path, &[&foreign]).status, 200, "{path}");
        }
        assert_eq!(ask("GET", "/replica", &[&foreign]).status, 503);
    }
    // The authority of the target is the host, whatever Host says.
    assert_error(
        &ask("GET", "http://evil.example/kv/k", &[&host]),
        421,
        "host_not_allowed",
    );
    for good in [
        "localhost",
        "LOCALHOST:1",
        "127.0.0.1",
        "[::1]:9001",
        "10.1.2.3:80",
    ] {
        assert_eq!(
            ask("GET", "/kv/k", &[&format!("Host: {good}")]).text(),
            "v",
            "{good}"
        );
    }
}

#[test]
fn hosts_can_be_allowed() {
    let node = Node::start(&[
        "--allowed-host",
        "db.example",
        "--allowed-host",
        "other.example",
    ]);
    for (host, status) in [
        ("db.example", 200),
        ("DB.example:9001", 200),
        ("other.example", 200),
        ("a.db.example", 421),
        ("localhost", 200),
    ] {
        let mut client = node.connect();
        client.send(format!("GET /status HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        assert_eq!(client.response(false).status, status, "{host}");
    }
}

/// What a proxy copies from the browser of a page that is allowed does not keep it out; a page that
/// is not allowed stays out.
#[test]
fn origins_can_be_allowed() {
    let node = Node::start(&[
        "--allowed-origin",
        "https://app.example",
        "--allowed-origin",
        "http://localhost:3000",
    ]);
    let mut client = node.connect();
    let copied = |origin: &str, site: &str| {
        [
            format!("Origin: {origin}"),
            format!("Sec-Fetch-Site: {site}"),
        ]
    };
    for site in ["same-origin", "same-site", "cross-site"] {
        for origin in ["https://app.example", "http://localhost:3000"] {
            let headers = copied(origin, site);
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            let put = client.request("PUT", "/kv/k", &headers, b"v");
            assert!(matches!(put.status, 200 | 201), "{origin} {site}");
        }
        for origin in ["http://app.example", "https://evil.example", "null"] {
            let headers = copied(origin, site);
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            let put = client.request("PUT", "/kv/k", &headers, b"v");
            assert_error(&put, 403, "foreign_origin");
            assert!(put.text().contains("--allowed-origin"), "{}", put.text());
        }
    }
    let config = &node.status()["config"];
    let expected = ["https://app.example", "http://localhost:3000"];
    assert_eq!(config["allowedOrigins"], serde_json::json!(expected));
}

#[test]
fn the_token_is_asked_for() {
    let file = TokenFile::new("token", &format!("{TOKEN}\n"));
    let node = Node::start(&["--token-file", file.path()]);
    let mut client = node.connect();
    let right = format!("Authorization: Bearer {TOKEN}");
    let wrong = [
        String::new(),
        "Authorization: Bearer".to_owned(),
        "Authorization: Bearer ".to_owned(),
        "Authorization: Bearer wrong-horse-battery-staple".to_owned(),
        format!("Authorization: Bearer {}", &TOKEN[..TOKEN.len() - 1]),
        format!("Authorization: Bearer {TOKEN}x"),
        format!("Authorization: Basic {TOKEN}"),
        format!("Authorization: {TOKEN}"),
        format!("X-Authorization: Bearer {TOKEN}"),
    ];
    let asked = [
        ("PUT", "/kv/k"),
        ("GET", "/kv/k"),
        ("POST", "/set?key=k"),
        ("GET", "/get?key=k"),
        ("DELETE", "/delete?key=k"),
        ("GET", "/status"),
        ("POST", "/admin/freeze"),
        ("POST", "/admin/compact"),
        // Not even what there is.
        ("GET", "/nothing"),
    ];
    for (method, target) in asked {
        for header in &wrong {
            let headers: Vec<&str> = [header.as_str()]
                .into_iter()
                .filter(|header| !header.is_empty())
                .collect();
            let response = client.request(method, target, &headers, b"key=k&value=v");
            assert_error(&response, 401, "unauthorized");
            assert!(
                response
                    .header("WWW-Authenticate")
                    .is_some_and(|value| value.starts_with("Bearer"))
            );
            assert!(!response.text().contains(TOKEN));
        }
    }
    assert_eq!(
        client.request("PUT", "/kv/k", &[&right], b"v").json()["version"],
        1,
        "nothing was written before"
    );
    assert_eq!(
        client
            .request("GET", "/kv/k", &[&right.replace("Bearer", "bearer")], b"")
            .text(),
        "v"
    );
    assert_eq!(
        client.request("GET", "/nothing", &[&right], b"").status,
        404
    );
    assert!(
        !client
            .request("GET", "/status", &[&right], b"")
            .text()
            .contains(TOKEN)
    );
    for public in ["/health", "/livez", "/readyz"] {
        assert_eq!(
            client.request("GET", public, &[], b"").status,
            200,
            "{public}"
        );
    }
}

#[test]
fn an_open_node_must_be_meant() {
    let refused = assert_fails(&run(&["--listen", "0.0.0.0:0"]), 2);
    for way_out in ["--token-file", "--allow-open"] {
        assert!(refused.contains(way_out), "{refused}");
    }
    let file = TokenFile::new("open", TOKEN);
    for meant in [&["--allow-open"][..], &["--token-file", file.path()]] {
        let mut command = command();
        command.args(["--listen", "0.0.0.0:0"]).args(meant);
        let mut node = Node::spawn(command);
        node.address.set_ip([127, 0, 0, 1].into());
        assert_eq!(node.request("GET", "/livez", &[], b"").status, 200);
    }
}

#[test]
fn what_cannot_start_says_why_in_one_line() {
    let node = Node::start(&[]);
    let taken = node.address.to_string();
    let line = assert_fails(&run(&["--listen", &taken]), 1);
    assert!(line.contains(&taken) && line.contains("--listen"), "{line}");
    assert_eq!(node.request("GET", "/livez", &[], b"").status, 200);
    let short = TokenFile::new("short", "short");
    for (arguments, named) in [
        (&["--lsiten", "127.0.0.1:0"][..], "--listen"),
        (&["--listen"], "--listen"),
        (&["--listen", "nonsense"], "--listen"),
        (&["--max-connections", "0"], "--max-connections"),
        (&["--max-value-bytes", "-1"], "--max-value-bytes"),
        (&["--idle-timeout-ms", "1s"], "--idle-timeout-ms"),
        (&["--token-file", "/nowhere/token"], "--token-file"),
        (&["--token-file", short.path()], "--token-file"),
        (&["--log", "loud"], "--log"),
        (&["--allowed-host", "http://x"], "--allowed-host"),
        (&["-x"], "--help"),
        (&["word"], "--help"),
    ] {
        let line = assert_fails(&run(arguments), 2);
        assert!(line.contains(named), "{arguments:?}: {line}");
    }
    let output = command()
        .env("DB_NODE_MAX_CONNECTIONS", "many")
        .output()
        .expect("run");
    assert!(assert_fails(&output, 2).contains("DB_NODE_MAX_CONNECTIONS"));
}

#[test]
fn help_and_version() {
    for flag in ["--help", "-h"] {
        let output = run(&[flag]);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(text.lines().count() <= 40, "more than one screen:\n{text}");
        assert!(
            text.lines().all(|line| line.chars().count() <= 90),
            "too wide a screen:\n{text}"
        );
        for option in [
            "--listen",
            "--token-file",
            "--max-value-bytes",
            "--allow-open",
            "--version",
            "DB_NODE_",
        ] {
            assert!(text.contains(option), "{option}");
        }
    }
    for flag in ["--version", "-V"] {
        let output = run(&[flag]);
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
        let commit = db_node::COMMIT.map_or(String::new(), |commit| format!(" ({commit})"));
        let expected = format!("db-node {}{commit}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8(output.stdout).expect("text"), expected);
    }
}

/// Touching a huge page for the first time would hold the loop for milliseconds.
#[test]
fn no_memory_is_backed_with_huge_pages() {
    let node = Node::start(&[]);
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("read /proc");
    // Kernels without huge pages do not say.
    if let Some(line) = status.lines().find(|line| line.starts_with("THP_enabled:")) {
        assert_eq!(line.split_whitespace().last(), Some("0"), "{line}");
    }
}

fn thread_count(node: &Node) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", node.pid()))
        .expect("read /proc")
        .count()
}

#[test]
fn one_thread_does_everything() {
    let node = Node::start(&["--memtable-bytes", "64KiB"]);
    assert_eq!(thread_count(&node), 1);
    let mut clients: Vec<Client> = (0..50).map(|_| node.connect()).collect();
    for round in 0..40 {
        for (index, client) in clients.iter_mut().enumerate() {
            client.send_request("PUT", &format!("/kv/{round}-{index}"), &[], &[b'v'; 200]);
        }
        assert_eq!(thread_count(&node), 1);
        for client in &mut clients {
            assert_eq!(client.response(false).status, 201);
        }
    }
    assert_eq!(thread_count(&node), 1);
}

/// Waits until nobody can connect any more.
fn wait_for_refusal(node: &Node) {
    wait_for("new connections to be refused", || {
        TcpStream::connect(node.address).is_err()
    });
}

#[test]
fn a_signal_lets_what_is_in_flight_finish() {
    for signal in ["TERM", "INT"] {
        let mut node = Node::start(&[]);
        let (mut writing, mut asking, mut idle, mut used) = (
            node.connect(),
            node.connect(),
            node.connect(),
            node.connect(),
        );
        assert_eq!(used.request("GET", "/livez", &[], b"").status, 200);
        writing.send_request("PUT", "/kv/k", &["Content-Length: 10"], b"half ");
        asking.send(b"GET /readyz HTT");
        node.settle();
        node.signal(signal);
        wait_for_refusal(&node);
        idle.assert_end();
        used.assert_end();
        drop((idle, used));
        asking.send(b"P/1.1\r\nHost: localhost\r\n\r\n");
        let response = asking.response(false);
        assert_eq!(
            (response.status, response.header("Connection")),
            (503, Some("close")),
            "{}",
            response.text()
        );
        asking.assert_end();
        drop(asking);
        assert!(node.is_running(), "a request is in flight");
        writing.send(b"done!");
        // What follows is too late.
        writing.send(&request_bytes("GET", "/kv/k", &[], b""));
        let response = writing.response(false);
        assert_eq!(
            (response.status, response.header("Connection")),
            (201, Some("close")),
            "{}",
            response.text()
        );
        writing.assert_end();
        drop(writing);
        assert_eq!(node.wait().code(), Some(0), "SIG{signal}");
    }
}

#[test]
fn an_answer_on_its_way_is_finished() {
    let mut node = Node::start(&[]);
    let value = vec![b'v'; 16 << 20];
    assert_eq!(node.request("PUT", "/kv/k", &[], &value).status, 201);
    let mut client = node.connect_with_small_buffer();
    client.send_request("GET", "/kv/k", &[], b"");
    node.settle();
    node.signal("TERM");
    wait_for_refusal(&node);
    assert!(client.response(false).body == value);
    client.assert_end();
    drop(client);
    assert_eq!(node.wait().code(), Some(0));
}

#[test]
fn without_anything_in_flight_it_stops_at_once() {
    let mut node = Node::start(&[]);
    let start = Instant::now();
    node.signal("TERM");
    assert_eq!(node.wait().code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second) in [("TERM", "TERM"), ("TERM", "INT"), ("INT", "INT")] {
        let mut node = Node::start(&[]);
        let mut client = node.connect();
        client.send_request("PUT", "/kv/k", &["Content-Length: 10"], b"half ");
        node.settle();
        node.signal(first);
        wait_for_refusal(&node);
        assert!(node.is_running(), "a request is in flight");
        let start = Instant::now();
        node.signal(second);
        let status = node.wait();
        assert!(!status.success(), "{first}, {second}: {status}");
        assert!(status.code().is_some() || status.signal().is_some());
        // The request had ten seconds.
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        let log = node.rest_of_log();
        assert!(!log.contains("panic"), "{log}");
    }
}

#[test]
fn nobody_reading_its_log_does_not_end_it() {
    let mut node = Node::start(&["--log", "trace"]);
    node.close_stderr();
    let mut client = node.connect();
    for index in 0..100 {
        assert_eq!(
            client
                .request("PUT", &format!("/kv/{index}"), &[], b"v")
                .status,
            201
        );
    }
    drop(client);
    // It has a line to say about this.
    node.signal("TERM");
    assert_eq!(node.wait().code(), Some(0));
}

#[test]
fn a_lack_of_descriptors_passes() {
    let mut node = Node::start(&["--idle-timeout-ms", "2000"]);
    // The node made room for its connections at the start; what it finds later is less.
    let limit = rustix::process::Rlimit {
        current: Some(64),
        maximum: Some(64),
    };
    let pid = rustix::process::Pid::from_raw(node.pid().try_into().expect("a process id"));
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit)
        .expect("lower the limit");
    let mut inside = node.connect();
    assert_eq!(inside.request("PUT", "/kv/k", &[], b"v").status, 201);
    // More than there are descriptors, all held.
    let mut crowd: Vec<TcpStream> = Vec::new();
    for _ in 0..150 {
        crowd.push(TcpStream::connect(node.address).expect("the backlog takes it"));
        assert_eq!(
            inside.request("GET", "/kv/k", &[], b"").text(),
            "v",
            "with {} others",
            crowd.len()
        );
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", node.pid()))
        .expect("read /proc")
        .count();
    eprintln!("{open} of 64 descriptors in use");
    assert!(open >= 60, "{open} descriptors: there is no lack of them");
    assert!(node.is_running());
    // It waits for better times instead of spinning: turns stand for polls.
    let turns = |client: &mut Client| {
        client.request("GET", "/status", &[], b"").json()["loop"]["turns"].as_u64()
    };
    let before = turns(&mut inside).expect("a number");
    let_pass(Duration::from_millis(200));
    let spent = turns(&mut inside).expect("a number") - before;
    assert!(spent < 300, "{spent} turns in 200 ms with nothing to do");
    // No client is left hanging: those inside end by their time-out, those that never got in as
    // well.
    for (index, stream) in crowd.iter_mut().enumerate() {
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("set a time-out");
        match stream.read_to_end(&mut Vec::new()) {
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => {
                panic!("connection {index}: {error}")
            }
            _ => {}
        }
    }
    drop(crowd);
    drop(inside);
    wait_for("the node to recover", || {
        let mut client = node.connect();
        client.send_request("GET", "/kv/k", &[], b"");
        client.response(false).text() == "v"
    });
    node.signal("TERM");
    assert_eq!(node.wait().code(), Some(0));
}

#[test]
fn health_has_what_controllers_read() {
    let node = Node::start(&[]);
    let mut client = node.connect();
    let empty = client.request("GET", "/health", &[], b"");
    assert_eq!(
        (empty.status, empty.header("Content-Type")),
        (200, Some("application/json"))
    );
    let empty = empty.json();
    assert_eq!(empty["status"], "OK");
    assert_eq!(empty["memTableSize"], 0);
    assert!(empty["levels"].is_u64());
    assert_eq!(empty["partitions"], serde_json::json!([0]));
    assert_eq!(empty["role"], "leader");
    assert_eq!(empty["version"], 0);
    assert!(empty["uptimeMs"].is_u64());
    assert!(
        empty
            .get("replicationPort")
            .is_some_and(|port| port.is_null() || port.is_u64())
    );

    for index in 0..10 {
        client.request("PUT", &format!("/kv/{index}"), &[], &[b'v'; 100]);
    }
    let written = client.request("GET", "/health", &[], b"").json();
    assert_eq!(written["version"], 10);
    let bytes = written["memTableSize"].as_u64().expect("a number");
    assert!(
        (1_000..3_000).contains(&bytes),
        "{bytes} for 1010 bytes of keys and values"
    );
    for (path, said) in [("/livez", "alive\n"), ("/readyz", "ready\n")] {
        let response = client.request("GET", path, &[], b"");
        assert_eq!((response.status, response.text().as_str()), (200, said));
        assert_eq!(response.header("Content-Type"), Some("text/plain"));
        let head = client.request("HEAD", path, &[], b"");
        assert_eq!(
            head.header("Content-Length"),
            Some(said.len().to_string().as_str())
        );
    }
}

#[test]
fn status_tells_the_configuration_in_force() {
    let arguments = [
        "--max-connections",
        "99",
        "--max-value-bytes",
        "1MiB",
        "--idle-timeout-ms",
        "1234",
    ];
    let mut command = command();
    command
        .args(["--listen", "127.0.0.1:0"])
        .args(arguments)
        .env("DB_NODE_HEADER_TIMEOUT_MS", "4321");
    // A flag wins over the environment.
    command.env("DB_NODE_MAX_CONNECTIONS", "7");
    let node = Node::spawn(command);
    let status = node.status();
    let config = &status["config"];
    assert_eq!(config["maxConnections"], 99);
    assert_eq!(config["maxValueBytes"], 1 << 20);
    assert_eq!(config["idleTimeoutMs"], 1234);
    assert_eq!(config["headerTimeoutMs"], 4321);
    assert_eq!(config["memtableBytes"], 4 << 20);
    assert_eq!(config["token"], false);
    assert_eq!(status["draining"], false);
    let requests = node.status()["loop"]["requests"]
        .as_u64()
        .expect("a number");
    assert_eq!(requests, 2);
    assert_eq!(node.status()["loop"]["acceptedConnections"], 3);
}

/// The sum of a field over the levels.
fn over_levels(partition: &serde_json::Value, field: &str) -> u64 {
    let levels = partition["levels"].as_array().expect("levels");
    levels
        .iter()
        .map(|level| level[field].as_u64().expect("a number"))
        .sum()
}

#[test]
fn status_tells_what_was_written() {
    const KEY_COUNT: u64 = 3_000;
    let node = Node::start(&["--memtable-bytes", "64KiB"]);
    let mut client = node.connect();
    let mut write = |round: u64| {
        let mut bytes = Vec::new();
        for key in 0..KEY_COUNT {
            bytes.extend(request_bytes(
                "PUT",
                &format!("/kv/key-{key:05}"),
                &[],
                format!("{round}:{key}").as_bytes(),
            ));
        }
        let sending = client.send_in_background(bytes);
        for _ in 0..KEY_COUNT {
            assert!(client.response(false).status < 300);
        }
        sending.join().expect("no panic").expect("all is sent");
    };
    write(0);
    write(1);
    for key in 0..KEY_COUNT / 3 {
        assert_eq!(
            node.request(
                "DELETE",
                &format!("/kv/key-{:05}", key * 3),
                &["Connection: close"],
                b""
            )
            .status,
            204
        );
    }
    let version = 2 * KEY_COUNT + KEY_COUNT / 3;
    let partition = |node: &Node| node.status()["partitions"][0].clone();
    let now = partition(&node);
    assert_eq!((&now["id"], &now["role"]), (&0.into(), &"leader".into()));
    assert_eq!(now["lastVersion"], version);
    assert!(
        over_levels(&now, "layers") > 0,
        "64 KiB memtables were frozen: {now}"
    );
    assert_eq!(now["pinnedSnapshots"], 0);

    client = node.connect();
    let frozen = client.request("POST", "/admin/freeze", &[], b"");
    assert_eq!(
        (frozen.status, frozen.json()),
        (200, serde_json::json!({"success": true, "frozen": true}))
    );
    let again = client.request("POST", "/admin/freeze", &[], b"");
    assert_eq!(
        again.json(),
        serde_json::json!({"success": true, "frozen": false})
    );
    wait_for("the debt to be paid", || partition(&node)["debt"] == 0);
    let settled = partition(&node);
    assert_eq!(
        (&settled["memtableEntries"], &settled["lastVersion"]),
        (&0.into(), &version.into())
    );
    let entries = over_levels(&settled, "entries");
    assert!(
        (KEY_COUNT - KEY_COUNT / 3..=version).contains(&entries),
        "{settled}"
    );

    let compacting = client.request("POST", "/admin/compact", &[], b"");
    assert_eq!(
        (compacting.status, compacting.json()),
        (202, serde_json::json!({"success": true}))
    );
    wait_for("one layer", || {
        let now = partition(&node);
        now["debt"] == 0 && over_levels(&now, "layers") == 1
    });
    let compact = partition(&node);
    assert_eq!(
        over_levels(&compact, "entries"),
        KEY_COUNT - KEY_COUNT / 3,
        "the deleted are gone: {compact}"
    );
    assert_eq!(compact["lastVersion"], version);
    let health = client.request("GET", "/health", &[], b"").json();
    assert_eq!(
        (&health["version"], &health["memTableSize"]),
        (&version.into(), &0.into())
    );
    for key in 0..KEY_COUNT {
        let response = client.request("GET", &format!("/kv/key-{key:05}"), &[], b"");
        if key % 3 == 0 {
            assert_eq!(response.status, 404, "{key}");
        } else {
            assert_eq!(response.text(), format!("1:{key}"));
            assert_eq!(response.tag_version(), Some(KEY_COUNT + key + 1));
        }
    }
}

/// A node that a service manager starts: it listens for what the node has to say.
fn managed(folder: &Folder, socket: &str, arguments: &[&str]) -> Node {
    let mut command = command();
    command
        .args([
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            text(&folder.join("data")),
        ])
        .args(arguments);
    command
        .env("NOTIFY_SOCKET", socket)
        .env("WATCHDOG_USEC", "200000");
    Node::spawn(command)
}

/// The next message with this line in it, and all lines before.
#[track_caller]
fn heard(manager: &UnixDatagram, line: &str) -> String {
    let (mut lines, mut buffer) = (String::new(), [0; 4096]);
    manager
        .set_read_timeout(Some(PATIENCE))
        .expect("set a time-out");
    while !lines.lines().any(|heard| heard == line) {
        let len = manager
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("no {line}: {error}; only:\n{lines}"));
        lines.push_str(std::str::from_utf8(&buffer[..len]).expect("text"));
    }
    lines
}

/// READY comes when requests are answered, WATCHDOG again and again, and STOPPING before the end,
/// at paths and abstract names.
#[test]
fn a_service_manager_is_told_what_the_node_does() {
    let folder = Folder::new("notify");
    let path = folder.join("socket");
    let name = format!("db-node-notify-{}", std::process::id());
    let by_name = SocketAddr::from_abstract_name(&name).expect("an address");
    for (socket, manager) in [
        (
            text(&path).to_owned(),
            UnixDatagram::bind(&path).expect("bind"),
        ),
        (
            format!("@{name}"),
            UnixDatagram::bind_addr(&by_name).expect("bind"),
        ),
    ] {
        let mut node = managed(&folder, &socket, &[]);
        let start = heard(&manager, "READY=1");
        assert!(
            start.contains(&format!(
                "STATUS=serving on http://{}, data in ",
                node.address
            )),
            "{start}"
        );
        assert_eq!(
            node.request("PUT", "/kv/k", &[], b"v").status / 100,
            2,
            "ready"
        );
        for _ in 0..3 {
            assert!(
                !heard(&manager, "WATCHDOG=1").contains("READY"),
                "once is enough"
            );
        }
        // A request that is not whole yet keeps the node from its end.
        let mut client = node.connect();
        client.send(b"PUT /kv/slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nsl");
        node.settle();
        node.signal("TERM");
        let stop = heard(&manager, "STOPPING=1");
        assert!(stop.contains("STATUS=stopping"), "{stop}");
        heard(&manager, "WATCHDOG=1");
        client.send(b"ow");
        assert_eq!(client.response(false).status, 201);
        drop(client);
        assert_eq!(node.wait().code(), Some(0));
        std::fs::remove_dir_all(folder.join("data")).expect("remove");
    }
}

/// Nobody listens, or nobody reads: the node does not care.
#[test]
fn a_service_manager_that_is_gone_or_deaf_holds_nothing_up() {
    let folder = Folder::new("deaf");
    let deaf = UnixDatagram::bind(folder.join("deaf")).expect("bind");
    for socket in [folder.join("nobody"), folder.join("deaf")] {
        let mut node = managed(&folder, text(&socket), &[]);
        wait_for("the data to be loaded", || {
            node.request("GET", "/readyz", &[], b"").status == 200
        });
        // Its queue is full after some of these.
        let filler = UnixDatagram::unbound().expect("a socket");
        filler.set_nonblocking(true).expect("set");
        while filler.send_to(b"x", folder.join("deaf")).is_ok() {}
        let_pass(Duration::from_millis(300));
        node.settle();
        node.signal("TERM");
        assert_eq!(node.wait().code(), Some(0));
    }
    drop(deaf);
}
