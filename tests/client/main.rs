//! The client: each command against real nodes, on a pipe and on a terminal, and against peers
//! that answer what no node would.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

#[path = "../common/mod.rs"]
mod common;
mod changes;
mod hostile;
mod keys;
mod pages;
mod shells;
mod snapshots;
mod status;
mod usage;

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use common::command;

/// A command of the client that asks the node at `url`.
fn client(url: &str) -> Command {
    let mut command = command();
    command.env("DB_NODE_URL", url);
    command
}

/// Runs a command of the client to its end.
fn ask<S: AsRef<OsStr>>(url: &str, arguments: &[S]) -> Output {
    client(url).args(arguments).output().expect("run")
}

/// The same with standard input.
fn ask_with_input(url: &str, arguments: &[&str], input: Vec<u8>) -> Output {
    let mut command = client(url);
    command.args(arguments).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("run");
    let mut stdin = child.stdin.take().expect("piped");
    // What refuses the input closes it.
    let writing = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("wait");
    let _ = writing.join().expect("no panic");
    output
}

/// The same on a terminal, of which all that is shown is returned. The arguments are words for a
/// shell.
fn ask_on_terminal(url: &str, arguments: &str) -> (Option<i32>, String) {
    let mut script = Command::new("script");
    let program = env!("CARGO_BIN_EXE_db-node");
    let output = script
        .args(["-qec", &format!("'{program}' {arguments}"), "/dev/null"])
        .env("DB_NODE_URL", url)
        .stdin(Stdio::null())
        .output()
        .expect("run script, of util-linux");
    let shown = String::from_utf8(output.stdout).expect("text");
    (output.status.code(), shown.replace("\r\n", "\n"))
}

/// What a command wrote, which has to be text.
#[track_caller]
fn said(output: &Output) -> String {
    assert_eq!(
        (
            output.status.code(),
            &*String::from_utf8_lossy(&output.stderr)
        ),
        (Some(0), "")
    );
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// Asserts that a command failed with one line on standard error; returns it.
#[track_caller]
fn refused(output: &Output, code: i32) -> String {
    let line = String::from_utf8(output.stderr.clone()).expect("text");
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert!(
        line.starts_with("db-node: ") && line.ends_with('\n') && line.lines().count() == 1,
        "not one line: {line:?}"
    );
    line
}
