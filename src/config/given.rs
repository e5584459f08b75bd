//! Values of options as they were given, and what they mean.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::values::{
    Bounds, bytes_within, parse_address, parse_bytes, replication_address, within,
};

/// An option of a command line.
#[derive(Debug)]
pub struct OptionSpec {
    /// Its name, without the dashes.
    pub flag: &'static str,
    /// What stands for its value in `--help`; empty for a switch.
    pub value: &'static str,
    /// What it is where it is not given; empty: nothing.
    pub default: &'static str,
    /// What `--help` says about it.
    pub meaning: &'static str,
}

/// The name that a value was given under, and the value.
pub(super) type NamedValue = (String, String);

/// The command line or the environment is wrong: show the line, exit with 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub(super) String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// What is said about a value that is refused.
#[cold]
pub(super) fn wrong_value(name: &str, text: &str, problem: &str) -> ConfigError {
    let option = format!("{name} {text}");
    ConfigError(format!("{}: {problem}", option.trim_end()))
}

/// Values as given, before they are understood.
pub(super) struct GivenOptions {
    options: &'static [OptionSpec],
    /// For each option its values, with the name they were given under, for messages.
    values: Vec<Vec<NamedValue>>,
}

impl GivenOptions {
    pub(super) fn new(options: &'static [OptionSpec], values: Vec<Vec<NamedValue>>) -> Self {
        Self { options, values }
    }

    /// What was given for an option, last wins.
    pub(super) fn texts(&self, flag: &str) -> &[NamedValue] {
        let mut options = self.options.iter().zip(&self.values);
        options
            .find(|(option, _)| option.flag == flag)
            .map_or(&[], |(_, values)| values)
    }

    /// The last value of an option, or its default, as a `T`.
    pub(super) fn parsed<T>(
        &self,
        flag: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let (name, text) = self.last_text(flag);
        parse(&text).map_err(|problem| wrong_value(&name, &text, &problem))
    }

    /// The last value of an option, or its default, and the name that it was given under.
    fn last_text(&self, flag: &str) -> NamedValue {
        let default = (self.options.iter())
            .find(|option| option.flag == flag)
            .map_or("", |option| option.default);
        let given = self.texts(flag).last().cloned();
        given.unwrap_or_else(|| (format!("--{flag}"), default.to_owned()))
    }

    /// All values of an option that may be repeated.
    pub(super) fn list<T>(
        &self,
        flag: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let parse = |(name, text): &(String, String)| {
            parse(text).map_err(|problem| wrong_value(name, text, &problem))
        };
        self.texts(flag).iter().map(parse).collect()
    }

    pub(super) fn bytes(&self, flag: &str, bounds: &Bounds) -> Result<usize, ConfigError> {
        self.parsed(flag, |text| {
            parse_bytes(text).and_then(|number| bytes_within(number, bounds))
        })
    }

    /// A value of an option that may be left out.
    pub(super) fn optional<T>(
        &self,
        flag: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        self.parsed(flag, |text| match text {
            "" => Ok(None),
            text => parse(text).map(Some),
        })
    }

    pub(super) fn path(&self, flag: &str) -> Result<Option<PathBuf>, ConfigError> {
        self.optional(flag, |text| Ok(PathBuf::from(text)))
    }

    pub(super) fn optional_bytes(
        &self,
        flag: &str,
        bounds: &Bounds,
    ) -> Result<Option<usize>, ConfigError> {
        self.optional(flag, |text| {
            parse_bytes(text).and_then(|number| bytes_within(number, bounds))
        })
    }

    pub(super) fn number<T: TryFrom<u64>>(
        &self,
        flag: &str,
        bounds: &Bounds,
    ) -> Result<T, ConfigError> {
        self.parsed(flag, |text| {
            let number: u64 = text.parse().map_err(|_| "give a whole number".to_owned())?;
            within(number, bounds)
        })
    }

    pub(super) fn switch(&self, flag: &str) -> Result<bool, ConfigError> {
        self.parsed(flag, |text| match text {
            "1" | "true" => Ok(true),
            "" | "0" | "false" => Ok(false),
            _ => Err("give true or false".to_owned()),
        })
    }

    /// The replication address: as given, or the one that goes with `--listen`.
    pub(super) fn replication_address(
        &self,
        flag: &str,
    ) -> Result<Option<SocketAddr>, ConfigError> {
        self.parsed(flag, |text| match text {
            "off" => Ok(None),
            "" => self
                .parsed("listen", parse_address)
                .map_err(|error| error.0)
                .and_then(|listen| replication_address(listen).map(Some)),
            _ => parse_address(text).map(Some),
        })
    }
}
