//! The command line and the environment, and `--help`.

use std::ffi::OsString;
use std::fmt::Write;

use super::given::{ConfigError, GivenOptions, NamedValue, OptionSpec};
use super::nearest::nearest;
use super::options::{ACTION_OPTIONS, Config, OPTIONS};

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Run a node.
    Run(Box<Config>),
    /// Say whether a node could run, and change nothing.
    Check(Box<Config>),
    /// Print [`help`].
    Help,
    /// Print the version.
    Version,
}

/// Reads a command line, without the program's name, and an environment.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Invocation, ConfigError> {
    let mut values: Vec<Vec<NamedValue>> = vec![Vec::new(); OPTIONS.len()];
    let mut only_checks = false;
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser
        .next()
        .map_err(|error| ConfigError(format!("{error}; see --help")))?
    {
        let (flag, typed) = match argument {
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => return Ok(Invocation::Help),
            lexopt::Arg::Short('V') | lexopt::Arg::Long("version") => {
                return Ok(Invocation::Version);
            }
            lexopt::Arg::Long("check") => {
                only_checks = true;
                continue;
            }
            lexopt::Arg::Short('p') => ("listen".to_owned(), "-p".to_owned()),
            lexopt::Arg::Long("port") => ("listen".to_owned(), "--port".to_owned()),
            lexopt::Arg::Long(flag) => (flag.to_owned(), format!("--{flag}")),
            lexopt::Arg::Short(letter) => {
                return Err(ConfigError(format!("unknown option -{letter}; see --help")));
            }
            lexopt::Arg::Value(value) => {
                let value = value.to_string_lossy().into_owned();
                match &*value {
                    "help" => return Ok(Invocation::Help),
                    "version" => return Ok(Invocation::Version),
                    _ => {}
                }
                return Err(ConfigError(format!(
                    "unexpected argument {value}; options begin with --, see --help"
                )));
            }
        };
        let index = OPTIONS
            .iter()
            .position(|option| option.flag == flag)
            .ok_or_else(|| unknown_option(&flag))?;
        let text = value_of(&OPTIONS[index], &typed, &mut parser)?;
        values[index].push((typed, text));
    }
    for (option, given) in OPTIONS.iter().zip(&mut values) {
        let variable = from_environment(option, &environment)?;
        if given.is_empty() {
            *given = variable;
        }
    }
    let config = Box::new(Config::from_given(&GivenOptions::new(OPTIONS, values))?);
    Ok(if only_checks {
        Invocation::Check(config)
    } else {
        Invocation::Run(config)
    })
}

/// The value that follows a flag, which was given as `typed`; that of a switch is `true`.
fn value_of(
    option: &OptionSpec,
    typed: &str,
    parser: &mut lexopt::Parser,
) -> Result<String, ConfigError> {
    if option.value.is_empty() {
        return Ok("true".to_owned());
    }
    let value = parser
        .value()
        .map_err(|_| ConfigError(format!("{typed} needs a value; see --help")))?;
    if value.is_empty() {
        return Err(ConfigError(format!(
            "{typed}: its value is empty: give one, or leave the option out"
        )));
    }
    value
        .into_string()
        .map_err(|_| ConfigError(format!("{typed}: the value is not UTF-8")))
}

/// The values of an option that a variable gives, whether or not the command line gives others.
fn from_environment(
    option: &OptionSpec,
    environment: &impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<NamedValue>, ConfigError> {
    let name = environment_name(option.flag);
    let Some(value) = environment(&name) else {
        return Ok(Vec::new());
    };
    if value.is_empty() {
        return Err(ConfigError(format!(
            "{name}: its value is empty: unset it, or give a value"
        )));
    }
    let value = value
        .into_string()
        .map_err(|_| ConfigError(format!("{name}: the value is not UTF-8")))?;
    if matches!(option.flag, "allowed-host" | "allowed-origin") {
        return Ok(value
            .split(',')
            .map(|part| (name.clone(), part.trim().to_owned()))
            .collect());
    }
    Ok(vec![(name, value)])
}

/// What to tell of environment variables that mean nothing: those that look like a mistyped one of
/// this program, or like one of an option that has none. Others are left alone: a platform may set
/// such variables.
pub fn warnings_about_variables(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Vec<String> {
    let warning = |(name, value): (OsString, OsString)| {
        let way_out = way_out_of_variable(name.to_str()?, value.to_str()?)?;
        let shown = name.display();
        Some(format!(
            "the environment variable {shown} means nothing: {way_out}"
        ))
    };
    variables.into_iter().filter_map(warning).collect()
}

/// What to do instead of setting a variable that means nothing.
fn way_out_of_variable(name: &str, value: &str) -> Option<String> {
    let rest = name.strip_prefix("DB_NODE_")?;
    let is_known = |option: &OptionSpec| environment_name(option.flag) == name;
    if OPTIONS.iter().any(is_known) {
        return None;
    }
    match rest {
        // Of a service named db-node, Kubernetes sets tcp://10.0.0.1:9001.
        "PORT" => value
            .parse::<u16>()
            .is_ok()
            .then(|| format!("set DB_NODE_LISTEN=127.0.0.1:{value}")),
        "CHECK" => Some("give --check on the command line".to_owned()),
        _ => {
            let flag = nearest(rest, OPTIONS.iter().map(|option| option.flag))?;
            Some(format!("did you mean {}?", environment_name(flag)))
        }
    }
}

/// The name of an option in the environment.
pub fn environment_name(flag: &str) -> String {
    format!("DB_NODE_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

fn unknown_option(flag: &str) -> ConfigError {
    let known = OPTIONS.iter().map(|option| option.flag);
    let actions = ACTION_OPTIONS.iter().map(|option| option.flag);
    match nearest(flag, known.chain(actions).chain(["help", "version"])) {
        Some(known) => ConfigError(format!("unknown option --{flag}; did you mean --{known}?")),
        None => ConfigError(format!("unknown option --{flag}; see --help")),
    }
}

/// The text of `--help`: one screen.
pub fn help() -> String {
    let mut text = String::from(
        "db-node [OPTIONS]: the database node of a distributed key-value system, over HTTP\n\n",
    );
    for option in OPTIONS.iter().chain(ACTION_OPTIONS) {
        let flag = format!("--{} {}", option.flag, option.value);
        let default = if option.default.is_empty() {
            String::new()
        } else {
            format!(" [{}]", option.default)
        };
        let _ = writeln!(text, "  {flag:<25} {}{default}", option.meaning);
    }
    text.push_str("  -h, --help; -V, --version\n\n");
    text.push_str(
        "Sizes: 64MiB, 64MB and 64m are the same, 64 times 1,024 KiB; 1.5GiB is 1536MiB.\n\
         Each is an environment variable too: --max-connections is DB_NODE_MAX_CONNECTIONS.\n",
    );
    text.push_str(
        "The client is the same program: db-node get KEY, set KEY VALUE, ...; see db-node help\n",
    );
    text.push_str("Try: curl localhost:9001/set -d '{\"key\":\"a\",\"value\":\"1\"}'\n");
    text
}
