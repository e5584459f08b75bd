//! The table of commands and their options: parsing, `help`, completions and the man page are made
//! of it. The options of `serve` are those of `config`.

use crate::config::{self, OptionSpec};

use super::text::put;

/// Which command it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Serve,
    Get,
    Set,
    Delete,
    Scan,
    Watch,
    Status,
    Snapshot,
    Completions,
    Man,
    Help,
    Version,
}

/// A command.
#[derive(Debug)]
pub(crate) struct CommandSpec {
    pub(crate) verb: Verb,
    pub(crate) name: &'static str,
    /// The words that follow it, apart from options; one in brackets may be left out.
    pub(crate) operands: &'static str,
    pub(crate) meaning: &'static str,
    /// What else is to be known, in lines.
    pub(crate) details: &'static str,
    /// Its options, besides those of all commands that ask a node.
    pub(crate) own_options: &'static [OptionSpec],
}

const fn option(
    flag: &'static str,
    value: &'static str,
    default: &'static str,
    meaning: &'static str,
) -> OptionSpec {
    OptionSpec {
        flag,
        value,
        default,
        meaning,
    }
}

/// The options of each command that asks a node.
pub(crate) const ASKING_OPTIONS: &[OptionSpec] = &[
    option(
        "url",
        "URL",
        "http://127.0.0.1:9001",
        "the node; host:port or a port alone will do",
    ),
    option(
        "token-file",
        "FILE",
        "",
        "a file with the token that the node wants",
    ),
    option(
        "follow-leader",
        "",
        "",
        "send the token to the leader, even if its host is not that of --url",
    ),
    option("partition", "N", "", "the partition"),
    option(
        "timeout",
        "SECONDS",
        "30",
        "wait so long to connect and for a silent node",
    ),
    option("json", "", "", "print the node's JSON answers as they are"),
];

/// Options that the environment may give, too, under the name that the server's would have.
pub(crate) const ENVIRONMENT_FLAGS: [&str; 2] = ["url", "token-file"];

const IF_MATCH: OptionSpec = option(
    "if-match",
    "TOKEN",
    "",
    "only if the key is at this version; *: if it is there",
);

macro_rules! commands {
    ($($verb:ident $name:literal $operands:literal $meaning:literal
        $options:expr, $details:literal)*) => {
        /// All commands, in the order of `help`.
        pub(crate) const COMMANDS: &[CommandSpec] = &[$(CommandSpec {
            verb: Verb::$verb,
            name: $name,
            operands: $operands,
            meaning: $meaning,
            details: $details,
            own_options: $options,
        },)*];
    };
}

commands! {
    Serve "serve" "" "run a node; the same without a command" config::ACTION_OPTIONS, ""
    Get "get" "KEY" "write the value of a key to standard output" &[],
        "On a terminal a newline follows the value, and a value that is not text is not shown.
Elsewhere the bytes are those of the value and no others."
    Set "set" "KEY VALUE|-|@FILE" "store a value; print its version" &[
        option("ttl", "SECONDS", "", "the key expires after this time; fractions are allowed"),
        IF_MATCH,
        option("if-none-match", "TOKEN", "", "unless the key is at this version"),
        option("create", "", "", "only if the key is not there: --if-none-match '*'")
    ],
        "The value is the argument, standard input for -, or the content of a file for @FILE.
A value that begins with - stands behind --, as in: db-node set KEY -- -5
The version printed is a token for --if-match: it names this very write."
    Delete "delete" "KEY" "delete a key" &[IF_MATCH], ""
    Scan "scan" "[PREFIX]" "list keys and values in the order of keys" &[
        option("limit", "N", "", "stop after so many keys"),
        option("keys-only", "", "", "leave the values out")
    ],
        "A line is a key, a tab and a value. What would break the line is escaped: \\n, \\t, \\\\,
\\xHH for a byte. All is of one point in time. With --json each page of the node is a line."
    Watch "watch" "[PREFIX]" "print changes as they happen, until Ctrl-C" &[
        option("since", "TOKEN", "", "begin behind this version; else now")
    ],
        "A line is a version, set or delete, the key and the value, with tabs in between, escaped as
by scan. A value over 16 KiB is left out. A connection that is lost is made again, and nothing
in between is missed."
    Status "status" "" "show what the node does, and its replicas" &[], ""
    Snapshot "snapshot" "FILE" "write a backup to a file, for serve --restore" &[],
        "The backup is of one point in time. The file is there, or replaced, once all of it is;
a pipe, a device and, for -, standard output are written at once."
    Completions "completions" "bash|zsh|fish" "print completions for a shell" &[], ""
    Man "man" "" "print the man page, in roff" &[], ""
    Help "help" "[COMMAND]" "tell about commands, or about one" &[], ""
    Version "version" "" "print the version" &[], ""
}

impl CommandSpec {
    /// The command of that name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        COMMANDS.iter().find(|command| command.name == name)
    }

    /// Whether it asks a node.
    pub(crate) fn asks(&self) -> bool {
        matches!(
            self.verb,
            Verb::Get
                | Verb::Set
                | Verb::Delete
                | Verb::Scan
                | Verb::Watch
                | Verb::Status
                | Verb::Snapshot
        )
    }

    /// Its options.
    pub(crate) fn options(&self) -> impl Iterator<Item = &'static OptionSpec> {
        (0..).map_while(|index| self.option(index))
    }

    #[inline(never)] // small, and called from many loops
    fn option(&self, index: usize) -> Option<&'static OptionSpec> {
        let shared = match self.verb {
            Verb::Serve => config::options(),
            _ if self.asks() => ASKING_OPTIONS,
            _ => &[],
        };
        let own = self.own_options;
        own.get(index).or_else(|| shared.get(index - own.len()))
    }

    /// How few and how many operands it takes.
    pub(crate) fn operand_counts(&self) -> (usize, usize) {
        let words = self.operands.split_whitespace();
        let required = words.clone().filter(|word| !word.starts_with('['));
        (required.count(), words.count())
    }

    /// Appends how it is called: `set [OPTIONS] KEY VALUE|-|@FILE`.
    #[inline(never)]
    pub(crate) fn add_synopsis(&self, out: &mut String) {
        let options = self.option(0).map_or("", |_| " [OPTIONS]");
        let space = if self.operands.is_empty() { "" } else { " " };
        put(
            out,
            format_args!("{}{options}{space}{}", self.name, self.operands),
        );
    }
}
