//! `help`: all commands, or one of them.

use crate::config::{self, environment_name};

use super::commands::{COMMANDS, CommandSpec, ENVIRONMENT_FLAGS, Verb};
use super::failure::EXIT_CODES;
use super::text::{push, put};

/// What `help` prints.
pub(crate) fn overview(out: &mut String) {
    push(
        out,
        "db-node: a node of a distributed key-value system, and its client\n\n\
         Usage: db-node COMMAND [OPTIONS], or db-node [OPTIONS] to run a node\n\n",
    );
    for CommandSpec {
        name,
        operands,
        meaning,
        ..
    } in COMMANDS
    {
        let width = 25 - name.len();
        put(out, format_args!("  {name} {operands:<width$} {meaning}\n"));
    }
    push(
        out,
        "\ndb-node help COMMAND tells about one; db-node help serve lists the options of a node.\n\
         Load for measurements is made by a program of its own, db-node-bench, built apart.\n\n\
         Exit codes:\n",
    );
    for (code, meaning) in EXIT_CODES {
        put(out, format_args!("  {code}  {meaning}\n"));
    }
}

/// What `help` prints about a command, and `--help` behind it.
pub(crate) fn of_command(command: &CommandSpec, out: &mut String) {
    if command.verb == Verb::Serve {
        *out = config::help();
        return;
    }
    let (meaning, details) = (command.meaning, command.details);
    push(out, "db-node ");
    command.add_synopsis(out);
    put(out, format_args!(": {meaning}\n\n"));
    if !details.is_empty() {
        put(out, format_args!("{details}\n\n"));
    }
    for option in command.options() {
        let (flag, value, meaning) = (option.flag, option.value, option.meaning);
        let width = 20 - flag.len();
        put(out, format_args!("  --{flag} {value:<width$}{meaning}"));
        if !option.default.is_empty() {
            put(out, format_args!(" [{}]", option.default));
        }
        push(out, "\n");
    }
    if command.asks() {
        push(out, "\nEnvironment:");
        for flag in ENVIRONMENT_FLAGS {
            put(out, format_args!(" {}", environment_name(flag)));
        }
        push(out, ". Exit codes: db-node help.\n");
    }
}
