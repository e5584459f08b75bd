//! `db-node-bench`: load for a node, or for anything that speaks its HTTP or Redis' protocol, and
//! what came of it.
//!
//! Two ways to ask. *Open loop* (`--rate`): requests are due at fixed times, whatever became of
//! those before, and latency counts from the time a request was due; so a server that stands still
//! is seen to (no coordinated omission). How late the generator itself was is told beside it, and
//! has to be small for the rest to mean something. *Closed loop*: each connection asks anew when it
//! has its answers; this finds out how many a server can answer.
//!
//! One thread, one event loop. Not here: what servers are compared, and under which conditions
//! (`benches/`).
#![allow(
    clippy::disallowed_methods,
    reason = "a load generator has a clock, files and sockets of its own"
)]
#![allow(
    missing_docs,
    unreachable_pub,
    reason = "a program: nobody else sees its modules"
)]

mod drive;
mod keys;
mod options;
mod protocol;
mod report;
mod server;

use std::process::ExitCode;

fn main() -> ExitCode {
    let options = match options::parse(std::env::args_os().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(problem) => return fail(2, &problem),
    };
    let outcome = drive::run(&options).and_then(|outcome| report::tell(&options, &outcome));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(1, &problem),
    }
}

fn fail(code: u8, problem: &str) -> ExitCode {
    eprintln!("db-node-bench: {problem}");
    ExitCode::from(code)
}
