//! `man`: the man page, in roff, made of the tables of commands and options.

use crate::config::{self, OptionSpec, environment_name};
use crate::version::VERSION;

use super::commands::{ASKING_OPTIONS, COMMANDS, CommandSpec, ENVIRONMENT_FLAGS};
use super::failure::EXIT_CODES;
use super::template::{Escapes, fill};
use super::text::{push, put};

/// The text of the page before the commands.
const INTRODUCTION: &str = "\" \"User Commands\"
.SH NAME
db\\-node \\- a node of a distributed key\\-value system, and its client
.SH SYNOPSIS
.B db\\-node
.RI [ OPTIONS ]
.br
.B db\\-node
.I COMMAND
.RI [ OPTIONS ]
.SH DESCRIPTION
Without a command, or with
.BR serve ,
a node runs: it keeps keys and values in memory, and on disk if it is given a directory, and
serves them over HTTP.
The other commands ask a node that runs.
Keys and values are bytes.
.SH COMMANDS
";

/// The text of the page behind the options.
const ENVIRONMENT: &str = ".SH ENVIRONMENT
Each option of the server is a variable, too: \\-\\-data\\-dir is
.BR DB_NODE_DATA_DIR .
The client reads
";

/// The text of the page behind the exit codes.
const END: &str = ".PP
A node that runs ends with 0, with 1 after a failure, or with 2 if an option is wrong.
.SH EXAMPLES
.EX
db\\-node serve \\-\\-data\\-dir data
db\\-node set greeting hello
db\\-node get greeting
db\\-node scan user/ \\-\\-limit 10
version=$(db\\-node set counter 1)
db\\-node set counter 2 \\-\\-if\\-match \"$version\"
db\\-node snapshot backup.dbn
.EE
.SH SEE ALSO
.BR curl (1)
";

/// What means something else in roff than it is.
const ESCAPES: Escapes = &[
    ('\\', "\\e"),
    ('-', "\\-"),
    ('\'', "\\(aq"),
    ('^', "\\(ha"),
    ('"', "\\(dq"),
];

const COMMAND: &str = ".TP\n.B @u\n@m.\n";
const DETAILS: &str = "@d\n";
const OPTION: &str = ".TP\n.BI \\-\\-@f \" @v\"\n@t.\n";
const OPTION_WITH_DEFAULT: &str = ".TP\n.BI \\-\\-@f \" @v\"\n@t; by default @b.\n";

/// Appends the page.
pub(crate) fn add_page(out: &mut String) {
    put(
        out,
        format_args!(".TH DB\\-NODE 1 \"\" \"db\\-node {VERSION}{INTRODUCTION}"),
    );
    for command in COMMANDS {
        fill(out, COMMAND, command, None, ESCAPES);
        if !command.details.is_empty() {
            fill(out, DETAILS, command, None, ESCAPES);
        }
        if !command.own_options.is_empty() {
            push(out, ".RS\n");
            add_options(out, command, command.own_options);
            push(out, ".RE\n");
        }
    }
    push(out, ".SH SERVER OPTIONS\n");
    add_options(out, &COMMANDS[0], config::options());
    push(out, ".SH CLIENT OPTIONS\n");
    add_options(out, &COMMANDS[0], ASKING_OPTIONS);
    push(out, ENVIRONMENT);
    for flag in ENVIRONMENT_FLAGS {
        put(out, format_args!(".B {}\n", environment_name(flag)));
    }
    push(out, "for the options of these names.\n.SH EXIT STATUS\n");
    for (code, meaning) in EXIT_CODES {
        put(out, format_args!(".TP\n.B {code}\n{meaning}.\n"));
    }
    push(out, END);
}

#[inline(never)]
fn add_options(out: &mut String, command: &'static CommandSpec, options: &'static [OptionSpec]) {
    for option in options {
        let text = if option.default.is_empty() {
            OPTION
        } else {
            OPTION_WITH_DEFAULT
        };
        fill(out, text, command, Some(option), ESCAPES);
    }
}
