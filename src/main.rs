//! The `db-node` program: a command of the client; or a server: arguments to configuration,
//! configuration to a running node, failures to exit codes.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use db_node::allocator::{self, CountingAllocator};
use db_node::client;
use db_node::config::{self, Invocation};
use db_node::reactor;
use db_node::storage::IdGenerator;
use db_node::version;

/// Counts what is allocated, for `--max-memory`.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Exit codes besides success (0); see docs/operations.md.
const EXIT_RUNTIME: u8 = 1;
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if !client::is_server(&mut arguments) {
        return ExitCode::from(client::run(arguments, &|name| std::env::var_os(name)));
    }
    match config::parse(arguments, |name| std::env::var_os(name)) {
        Ok(Invocation::Help) => print(&config::help()),
        Ok(Invocation::Version) => print(&format!("db-node {}\n", version::full())),
        Ok(Invocation::Check(config)) => {
            warn_about_variables();
            match reactor::check(&config) {
                Ok(found) => print(&format!("db-node: {found}\n")),
                Err(error) => fail(&error.to_string(), EXIT_USAGE),
            }
        }
        Ok(Invocation::Run(config)) => {
            warn_about_variables();
            match run(&config) {
                Ok(()) => ExitCode::SUCCESS,
                Err((message, code)) => fail(&message, code),
            }
        }
        Err(error) => fail(&error.to_string(), EXIT_USAGE),
    }
}

fn warn_about_variables() {
    for warning in config::warnings_about_variables(std::env::vars_os()) {
        let _ = writeln!(std::io::stderr(), "db-node: {warning}");
    }
}

fn run(config: &config::Config) -> Result<(), (String, u8)> {
    #[cfg(feature = "seeded-bugs")]
    db_node::seeded_bugs::switch_on_by_name(std::env::var_os("DB_NODE_SEEDED_BUG"));
    allocator::return_large_blocks();
    allocator::use_small_pages();
    let (mut seed, mut identity) = ([0; 8], [0; 16]);
    for bytes in [&mut seed[..], &mut identity[..]] {
        #[expect(clippy::disallowed_methods, reason = "the one place that draws seeds")]
        getrandom::fill(bytes).map_err(|error| {
            (
                format!("no random numbers from the system: {error}"),
                EXIT_RUNTIME,
            )
        })?;
    }
    reactor::run(config, u64::from_ne_bytes(seed), IdGenerator::new(identity)).map_err(|error| {
        (
            error.to_string(),
            if error.is_usage() {
                EXIT_USAGE
            } else {
                EXIT_RUNTIME
            },
        )
    })
}

/// Ignores write errors: standard output may be a closed pipe (`db-node --help | head`).
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn fail(message: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "db-node: {message}");
    ExitCode::from(code)
}
