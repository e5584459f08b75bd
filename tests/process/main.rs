//! The process: what may ask it, how it starts, stops and survives, and what it says of itself.
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks and sockets of their own"
)]

#[path = "../common/mod.rs"]
mod common;
mod access;
mod health;
mod log;
mod service_manager;
mod starting;
mod stopping;

use std::process::Output;

use common::command;

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
