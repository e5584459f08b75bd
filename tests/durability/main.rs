//! Durability: an acknowledged write is there after `kill -9` at any moment, after a crash or an
//! error at any system call, and on a full disk; what cannot be read is refused and not guessed at;
//! a backup is the state at one point in time.
//!
//! `DB_NODE_TEST_SEED=n` repeats the random choices of a run (not its timing);
//! `DB_NODE_TEST_KILLS=n` makes it longer.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks, files and sockets of their own"
)]

#[path = "../common/mod.rs"]
mod common;
mod backups;
mod copies;
mod damage;
mod full_disk;
mod kill;
mod system_calls;
mod waiting;
mod writer;

use std::io::{self};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::writer::Wire;
use common::{Node, text, wait_for};

fn copy_folder(from: &Path, to: &Path) {
    assert!(
        Command::new("cp")
            .args(["-r", text(from), text(to)])
            .status()
            .expect("run cp")
            .success()
    );
}

/// Waits until the node serves; an error if it ends instead.
fn wait_until_ready(address: SocketAddr) -> io::Result<()> {
    let mut outcome = Ok(());
    wait_for("the data to be loaded", || {
        match Wire::connect(address).and_then(|mut wire| wire.ask("GET", "/readyz", b"")) {
            Ok(answer) => answer.status == 200,
            Err(error) => {
                outcome = Err(error);
                true
            }
        }
    });
    outcome
}

/// A node that keeps its data in `folder`, ready.
fn start(folder: &Path, more: &[&str]) -> Node {
    let mut node = Node::start(&[&["--data-dir", text(folder)], more].concat());
    if let Err(error) = wait_until_ready(node.address) {
        panic!("{error}: {}", node.rest_of_log());
    }
    node
}

fn kill(node: &mut Node) {
    node.signal("KILL");
    let signal = node.wait().signal();
    assert_eq!(
        signal,
        Some(9),
        "it had ended already: {}",
        node.rest_of_log()
    );
}

/// Asks a node to end, which it does at once; returns its exit code and its log.
fn terminate(mut node: Node) -> (Option<i32>, String) {
    let start = Instant::now();
    node.signal("TERM");
    let status = node.wait();
    let log = node.rest_of_log();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "it took {:?} to end: {log}",
        start.elapsed()
    );
    (status.code(), log)
}

/// Ends a node as it should end; returns its log.
fn stop(node: Node) -> String {
    let (code, log) = terminate(node);
    assert_eq!(code, Some(0), "{log}");
    log
}

/// Ends a node with failed storage; returns the reason it gives.
fn stop_failed(node: Node) -> String {
    let (code, log) = terminate(node);
    assert_eq!(code, Some(1), "{log}");
    let line = fatal_line(&log);
    assert!(line.contains("failed"), "{line}");
    line
}

/// The one line that is no log line.
#[track_caller]
fn fatal_line(stderr: &str) -> String {
    let is_log_line = |line: &&str| {
        ["ERROR", "WARN", "INFO"]
            .iter()
            .any(|level| line.split(' ').nth(1) == Some(level))
    };
    let lines: Vec<&str> = stderr.lines().filter(|line| !is_log_line(line)).collect();
    assert!(
        lines.len() == 1 && lines[0].starts_with("db-node: "),
        "not one line: {stderr:?}"
    );
    assert_eq!(
        stderr.lines().last(),
        Some(lines[0]),
        "the line is not the last: {stderr:?}"
    );
    lines[0].to_owned()
}

fn partition_status(node: &Node) -> serde_json::Value {
    node.status()["partitions"][0].clone()
}
