//! The client: commands that ask a node, and what tells about commands. It runs in place of the
//! server, over blocking sockets, and shares with it the tables of options and the decoder of
//! bodies.
//!
//! | file | what it is |
//! |---|---|
//! | `commands.rs` | the table of commands and their options |
//! | `command_line.rs` | what a command was given |
//! | `failure.rs` | exit codes, and what is said with them |
//! | `request.rs` | a request: percent-encoding, uploads |
//! | `answer_body.rs` | heads and bodies of answers, without I/O |
//! | `exchange.rs` | a request and its answer on a connection; time-outs; `X-Leader` |
//! | `output.rs`, `text.rs` | standard output; escapes, units, tables |
//! | `json_items.rs`, `event_stream.rs` | pages and changes as they arrive, without I/O |
//! | `json.rs` | fields in the JSON of a node; entries as lines |
//! | `kv.rs`, `scan.rs`, `watch.rs`, `status.rs`, `snapshot.rs` | the commands |
//! | `help.rs`, `man.rs`, `completions.rs`, `template.rs` | what is made of the tables |
//!
//! Invariants:
//! 1. Whatever a peer answers, a command does not panic, its memory is bounded, and it ends with an
//!    exit code that the table names.
//! 2. Bytes of keys and values go out and come in unchanged, whatever they are. On a terminal
//!    nothing that a node sends can move the cursor.
//! 3. The server imports nothing from here.

#![expect(
    clippy::disallowed_methods,
    reason = "a program of its own, which waits for its sockets and has files and a clock"
)]

mod answer_body;
mod command_line;
mod commands;
mod completions;
mod event_stream;
mod exchange;
mod failure;
mod help;
mod json;
mod json_items;
mod kv;
mod man;
mod output;
mod request;
mod scan;
mod snapshot;
mod status;
mod template;
mod text;
mod watch;

use std::borrow::Cow;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, OptionSpec, parse_peer, read_token};
use crate::version;

use command_line::{CommandLine, parse_seconds};
use commands::{ASKING_OPTIONS, CommandSpec, Verb};
use exchange::Endpoint;
use failure::CommandError;
use output::{Output, note};
use text::{owned, push, put};

/// Shorter, it is over before anything can answer.
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// A year.
const TIMEOUT_MAX: Duration = Duration::from_hours(365 * 24);

/// Whether arguments, without the program's name, start a server; takes the word that says so out.
/// An option that only commands have starts none.
pub fn is_server(arguments: &mut Vec<OsString>) -> bool {
    let Some(first) = arguments.first() else {
        return true;
    };
    let command = first.to_str().and_then(CommandSpec::named);
    if command.is_some_and(|command| command.verb == Verb::Serve) {
        arguments.remove(0);
        return true;
    }
    let text = first.to_string_lossy();
    let flag = text.strip_prefix("--").unwrap_or_default();
    let flag = flag.split('=').next().unwrap_or_default();
    let is_option = |options: &[OptionSpec]| options.iter().any(|option| option.flag == flag);
    let is_of_client = is_option(ASKING_OPTIONS) && !is_option(config::options());
    text.starts_with('-') && text != "-v" && !is_of_client
}

/// Runs a command to its end: the exit code.
#[cold]
pub fn run(arguments: Vec<OsString>, environment: &dyn Fn(&str) -> Option<OsString>) -> u8 {
    let mut output = Output::new();
    let outcome =
        CommandLine::parse(arguments, environment).and_then(|line| execute(&line, &mut output));
    // What was written before an error goes out, too.
    let Err(error) = outcome.and(output.flush()) else {
        return 0;
    };
    let _ = output.flush();
    if !error.message().is_empty() {
        note(format_args!("{}", error.message()));
    }
    error.reason().code()
}

fn execute(line: &CommandLine, output: &mut Output) -> Result<(), CommandError> {
    let command: fn(&CommandLine, &Endpoint, &mut Output) -> _ = match line.command.verb {
        Verb::Get => kv::get,
        Verb::Set => kv::set,
        Verb::Delete => kv::delete,
        Verb::Scan => scan::scan,
        Verb::Watch => watch::watch,
        Verb::Status => status::status,
        Verb::Snapshot => snapshot::snapshot,
        _ => return describe(line, output),
    };
    if line.is_help {
        return describe(line, output);
    }
    let outcome = command(line, &endpoint_of(line)?, output);
    if let Err(error) = &outcome
        && let (1.., body) = error.answer()
        && line.has("json")
    {
        output.line(body)?;
    }
    outcome
}

/// Writes what is made of the tables alone.
fn describe(line: &CommandLine, output: &mut Output) -> Result<(), CommandError> {
    let operand = line.operands.first();
    let operand = operand.map_or(Cow::Borrowed(""), |operand| operand.to_string_lossy());
    let mut text = String::new();
    match line.command.verb {
        _ if line.is_help => help::of_command(line.command, &mut text),
        Verb::Version => put(&mut text, format_args!("db-node {}\n", version::full())),
        Verb::Man => man::add_page(&mut text),
        Verb::Completions => completions::add_script(&operand, &mut text)?,
        _ if operand.is_empty() => help::overview(&mut text),
        _ => {
            let command = CommandSpec::named(&operand);
            let command = command.ok_or_else(|| command_line::unknown_command(&operand))?;
            help::of_command(command, &mut text);
        }
    }
    output.write(text.as_bytes())
}

/// The node that the options name.
fn endpoint_of(line: &CommandLine) -> Result<Endpoint, CommandError> {
    let url = line.value("url")?.unwrap_or_default();
    let time = line.value("timeout")?.unwrap_or_default();
    let token = line.value("token-file")?.map(read_token).transpose();
    Ok(Endpoint {
        url: parse_url(url).map_err(|problem| line.unfit("url", &problem))?,
        token: token.map_err(|problem| line.unfit("token-file", &problem))?,
        follows_leader: line.has("follow-leader"),
        partition: line.number("partition", 0)?,
        patience: parse_time(time)
            .ok_or_else(|| line.unfit("timeout", "give seconds, such as 60 or 0.5"))?,
        is_interrupted: Arc::default(),
    })
}

/// The address of a node; a port alone is one of this machine.
fn parse_url(text: &str) -> Result<String, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    match port.parse::<u16>() {
        Ok(_) => {
            let mut address = owned("127.0.0.1:");
            push(&mut address, port);
            parse_peer(&address)
        }
        Err(_) => parse_peer(text),
    }
}

fn parse_time(text: &str) -> Option<Duration> {
    let time = Duration::try_from_secs_f64(parse_seconds(text)?).ok()?;
    (TIMEOUT_MIN..TIMEOUT_MAX).contains(&time).then_some(time)
}
