//! The command line of a command: its options and operands as they were given.

use std::ffi::OsString;
use std::fmt;

use crate::config::{environment_name, nearest};

use super::commands::{COMMANDS, CommandSpec, ENVIRONMENT_FLAGS, Verb};
use super::failure::CommandError;

/// What other programs call a command.
const OTHER_NAMES: [(&str, &str); 4] = [
    ("put", "set"),
    ("ping", "status"),
    ("rm", "delete"),
    ("list", "scan"),
];

/// What a command was given.
#[derive(Debug)]
pub(crate) struct CommandLine {
    pub(crate) command: &'static CommandSpec,
    /// Values by flag, those of the environment first: the last one counts. A switch has an empty
    /// one.
    options: Vec<(&'static str, OsString)>,
    /// How many of them are of the environment.
    environment_count: usize,
    pub(crate) operands: Vec<OsString>,
    /// `--help` was among them.
    pub(crate) is_help: bool,
}

impl CommandLine {
    /// Reads the arguments, the command's name first.
    pub(crate) fn parse(
        arguments: Vec<OsString>,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, CommandError> {
        let mut arguments = arguments.into_iter();
        let name = arguments.next().unwrap_or_default();
        let name = name.to_string_lossy();
        let command = CommandSpec::named(&name).ok_or_else(|| unknown_command(&name))?;
        let mut line = Self {
            command,
            options: Vec::new(),
            environment_count: 0,
            operands: Vec::new(),
            is_help: false,
        };
        if command.asks() {
            for flag in ENVIRONMENT_FLAGS {
                match environment(&environment_name(flag)) {
                    Some(value) if !value.is_empty() => line.options.push((flag, value)),
                    _ => {}
                }
            }
        }
        line.environment_count = line.options.len();
        let mut parser = lexopt::Parser::from_args(arguments);
        while let Some(argument) = parser
            .next()
            .map_err(|error| line.wrong(format_args!("{error}")))?
        {
            match argument {
                lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => line.is_help = true,
                lexopt::Arg::Value(operand) => line.operands.push(operand),
                lexopt::Arg::Short(letter) => {
                    let rest = parser.optional_value().unwrap_or_default();
                    return Err(line.unknown_letter(letter, &rest.to_string_lossy()));
                }
                lexopt::Arg::Long(flag) => {
                    let mut options = command.options();
                    let option = options.find(|option| option.flag == flag);
                    let option = option.ok_or_else(|| line.unknown_option(flag))?;
                    let value = match option.value {
                        "" => OsString::new(),
                        _ => parser
                            .value()
                            .map_err(|error| line.wrong(format_args!("{error}")))?,
                    };
                    if value.is_empty() && !option.value.is_empty() {
                        return Err(line.wrong(format_args!("--{} is empty", option.flag)));
                    }
                    line.options.push((option.flag, value));
                }
            }
        }
        line.check_operands()?;
        Ok(line)
    }

    fn check_operands(&self) -> Result<(), CommandError> {
        let (min, max) = self.command.operand_counts();
        let count = self.operands.len();
        if self.is_help || (min..=max).contains(&count) {
            return Ok(());
        }
        let problem = if count < min {
            "too little is given"
        } else {
            "too much is given; quote what has spaces in it"
        };
        let mut synopsis = String::new();
        self.command.add_synopsis(&mut synopsis);
        Err(CommandError::usage(format_args!(
            "{problem}: db-node {synopsis}"
        )))
    }

    /// A problem with the command line, and where to read on.
    #[cold]
    fn wrong(&self, problem: fmt::Arguments<'_>) -> CommandError {
        let name = self.command.name;
        CommandError::usage(format_args!("{problem}; see db-node help {name}"))
    }

    #[cold]
    fn unknown_letter(&self, letter: char, rest: &str) -> CommandError {
        match &self.operands[..] {
            [key] if self.command.verb == Verb::Set => CommandError::usage(format_args!(
                "a value that begins with - stands behind --: db-node set {} -- -{letter}{rest}",
                key.display()
            )),
            _ => self.wrong(format_args!("unknown option -{letter}")),
        }
    }

    #[cold]
    fn unknown_option(&self, flag: &str) -> CommandError {
        let known = self.command.options().map(|option| option.flag);
        if let Some(known) = nearest(flag, known) {
            return self.wrong(format_args!(
                "unknown option --{flag}: did you mean --{known}?"
            ));
        }
        let takes = |command: &&CommandSpec| command.options().any(|option| option.flag == flag);
        match COMMANDS.iter().find(takes) {
            Some(other) => self.wrong(format_args!(
                "--{flag} is an option of {}, not of {}",
                other.name, self.command.name
            )),
            None => self.wrong(format_args!("unknown option --{flag}")),
        }
    }

    /// Whether an option was given.
    pub(crate) fn has(&self, flag: &str) -> bool {
        self.options.iter().any(|(other, _)| *other == flag)
    }

    /// The value of an option, or its default; none: it has neither.
    pub(crate) fn value(&self, flag: &str) -> Result<Option<&str>, CommandError> {
        let mut given = self.options.iter().rev();
        let value = if let Some((_, value)) = given.find(|(other, _)| *other == flag) {
            value.to_str()
        } else {
            let mut options = self.command.options();
            let option = options.find(|option| option.flag == flag);
            option.map(|option| option.default)
        };
        match value {
            Some("") => Ok(None),
            Some(value) => Ok(Some(value)),
            None => Err(self.unfit(flag, "the value is not UTF-8")),
        }
    }

    /// The failure of an option with a value that it does not take, under the name that it was
    /// given by.
    #[cold]
    pub(crate) fn unfit(&self, flag: &str, problem: &str) -> CommandError {
        let last = self.options.iter().rposition(|(other, _)| *other == flag);
        if last.is_some_and(|index| index < self.environment_count) {
            return self.wrong(format_args!("{}: {problem}", environment_name(flag)));
        }
        self.wrong(format_args!("--{flag}: {problem}"))
    }

    /// A whole number that is at least `min`.
    pub(crate) fn number(&self, flag: &str, min: u64) -> Result<Option<u64>, CommandError> {
        let Some(text) = self.value(flag)? else {
            return Ok(None);
        };
        match text.parse() {
            Ok(number) if number >= min => Ok(Some(number)),
            _ if min == 0 => Err(self.unfit(flag, "give a number, such as 0")),
            _ => Err(self.unfit(flag, "give a whole number that is more than 0")),
        }
    }
}

/// A time in seconds, with or without a fraction.
pub(crate) fn parse_seconds(text: &str) -> Option<f64> {
    let is_number = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.'));
    let seconds = serde_json::from_slice::<f64>(text.as_bytes()).ok();
    seconds.filter(|seconds| is_number && *seconds > 0.0)
}

/// What is said about a name that is no command.
#[cold]
pub(crate) fn unknown_command(name: &str) -> CommandError {
    let known = COMMANDS.iter().map(|command| command.name);
    let called = OTHER_NAMES.iter().find(|(other, _)| *other == name);
    match called
        .map(|(_, known)| *known)
        .or_else(|| nearest(name, known))
    {
        _ if name == "-v" => {
            CommandError::usage(format_args!("unknown option -v: did you mean --version?"))
        }
        _ if name.starts_with('-') => CommandError::usage(format_args!(
            "options of the client stand behind the command, as in db-node get KEY {name} …; see \
             db-node help"
        )),
        _ if name == "bench" => CommandError::usage(format_args!(
            "the load generator is a program of its own: cargo run --release --features bench \
             --bin db-node-bench"
        )),
        Some(known) => CommandError::usage(format_args!(
            "unknown command {name}: did you mean {known}?"
        )),
        None => CommandError::usage(format_args!("unknown command {name}; see db-node help")),
    }
}
