//! How a node starts, and what it says if it cannot.

use crate::access::TokenFile;
use crate::common::{Client, Node, command};
use crate::{assert_fails, run};

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
