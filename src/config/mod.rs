//! Configuration: flags and environment into a validated [`Config`], or one line that says the way
//! out.
//!
//! Invariants:
//! 1. One table, [`OPTIONS`], makes flags, environment names, defaults and `--help`: they cannot
//!    drift apart.
//! 2. A flag wins over the environment; a repeated flag over the earlier one, except for lists.
//! 3. A `Config` that exists is valid: no one checks it again.
//!
//! Not here: what each value does. Exit codes are `main.rs`'s.

mod nearest;
mod options;
mod origin;
mod own_address;
mod values;

use std::ffi::OsString;
use std::fmt::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use subtle::ConstantTimeEq;

pub use nearest::nearest;
pub use origin::Origin;
pub use values::{host_name_in, parse_peer};

use options::{OPTIONS, OptionSpec};
use values::{
    Bounds, bytes_within, parse_address, parse_bytes, parse_host_name, read_token,
    replication_address, within,
};

/// Everything that can be set, in force.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where HTTP is served.
    pub listen: SocketAddr,
    /// Where data is kept; without it in memory only.
    pub data_dir: Option<PathBuf>,
    /// Where replicas connect; none: nowhere.
    pub replication_listen: Option<SocketAddr>,
    /// The HTTP address of the leader to follow.
    pub replica_of: Option<String>,
    /// The HTTP address that other nodes and clients reach this node at, where it is not `listen`.
    pub advertise: Option<String>,
    /// Take no role before a controller assigns one.
    pub await_assignment: bool,
    /// Replicas that must hold a write before it is acknowledged.
    pub min_acks: u8,
    /// What reads show that do not say it themselves.
    pub read_consistency: ReadConsistency,
    /// How long a reply waits for them.
    pub ack_timeout_ms: u64,
    /// Log kept for replicas that come back, once there was one.
    pub wal_retain_bytes: usize,
    /// When writes are made to last, with a data directory.
    pub fsync: Fsync,
    /// Time between two syncs, with `Fsync::Interval`.
    pub fsync_interval_ms: u64,
    /// A backup to start from.
    pub restore: Option<PathBuf>,
    /// Start without what is damaged.
    pub accept_data_loss: bool,
    /// Log bytes after which the active memtable is frozen.
    pub memtable_bytes: usize,
    /// Memory from which on sets are refused.
    pub max_memory_bytes: Option<usize>,
    /// Memory for request bodies that are on their way, all together.
    pub max_upload_bytes: usize,
    /// Connections at a time.
    pub max_connections: usize,
    /// How long a connection may be silent between requests.
    pub idle_timeout_ms: u64,
    /// How long a request head may take, and a body beyond the time its bytes earn.
    pub header_timeout_ms: u64,
    /// Longest value.
    pub max_value_bytes: usize,
    /// Longest request head.
    pub max_head_bytes: usize,
    /// What requests must present.
    pub token: Option<Token>,
    /// Host names answered under, beside addresses, `localhost` and the node's own names.
    pub allowed_hosts: Vec<String>,
    /// The name in `--listen`, where it is not an address.
    pub listen_name: Option<String>,
    /// Origins of web pages whose requests are answered.
    pub allowed_origins: Vec<Origin>,
    /// Requests that take so long are logged; 0: none.
    pub slow_request_ms: u64,
    /// What is logged.
    pub log_level: log::LevelFilter,
}

/// What a read shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadConsistency {
    /// What this node has.
    Local,
    /// Only what as many replicas hold as `--min-acks` demands.
    Acknowledged,
}

impl ReadConsistency {
    /// As on the command line, and in requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Acknowledged => "acknowledged",
        }
    }

    /// The one with a name.
    pub fn of(name: &[u8]) -> Option<Self> {
        let all = [Self::Local, Self::Acknowledged];
        all.into_iter().find(|one| one.name().as_bytes() == name)
    }
}

/// When writes are made to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before they are acknowledged.
    Always,
    /// At intervals.
    Interval,
    /// When the system sees fit.
    Never,
}

impl Fsync {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Interval => "interval",
            Self::Never => "never",
        }
    }
}

impl Config {
    /// Whether there is data to load before requests can be answered.
    pub fn loads_data(&self) -> bool {
        self.data_dir.is_some() || self.restore.is_some()
    }
}

/// The secret that requests must present. Never printed.
#[derive(Clone)]
pub struct Token(Vec<u8>);

impl Token {
    /// Whether `presented` is the token; takes as long whatever the bytes are.
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.0.ct_eq(presented).into()
    }

    /// The token itself, to present it to another node.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    fn new(content: &[u8]) -> Result<Self, String> {
        let token = content.trim_ascii_end();
        if !(TOKEN_MIN_BYTES..=TOKEN_MAX_BYTES).contains(&token.len()) {
            return Err(format!(
                "holds {} bytes; a token has {TOKEN_MIN_BYTES} to {TOKEN_MAX_BYTES}",
                token.len()
            ));
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err("holds more than visible ASCII characters".to_owned());
        }
        Ok(Self(token.to_vec()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Shorter tokens can be guessed.
const TOKEN_MIN_BYTES: usize = 16;
/// Longer ones do not fit beside other headers.
const TOKEN_MAX_BYTES: usize = 4096;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A memtable of one log segment is the least that makes sense; places in one are 32 bits wide.
const MEMTABLE_BYTES: Bounds = Bounds {
    min: 64 * KIB,
    max: GIB,
};
/// Less than an empty node takes would refuse everything.
const MAX_MEMORY_BYTES: Bounds = Bounds {
    min: 4 * MIB,
    max: 1 << 50,
};
/// One body alone is taken whatever this says; more than any machine has memory.
const MAX_UPLOAD_BYTES: Bounds = Bounds {
    min: MIB,
    max: MAX_MEMORY_BYTES.max,
};
/// More than any process has descriptors for.
const MAX_CONNECTIONS: Bounds = Bounds {
    min: 1,
    max: 1 << 20,
};
/// A day; a time-out of 0 would close every connection at once.
const TIMEOUT_MS: Bounds = Bounds {
    min: 1,
    max: 24 * 60 * 60 * 1000,
};
/// A day; 0 is never.
const SLOW_REQUEST_MS: Bounds = Bounds {
    min: 0,
    max: TIMEOUT_MS.max,
};
/// Lengths of values are 32 bits wide on disk and wire.
const MAX_VALUE_BYTES: Bounds = Bounds { min: 1, max: GIB };
/// A key of 4,096 bytes, percent-encoded, must fit into the largest head.
const MAX_HEAD_BYTES: Bounds = Bounds {
    min: 512,
    max: 64 * KIB,
};

/// As many replicas as are fed at once.
const MIN_ACKS: Bounds = Bounds { min: 0, max: 32 };
/// Nothing, or what is still a small part of a machine.
const WAL_RETAIN_BYTES: Bounds = Bounds {
    min: 0,
    max: 64 * GIB,
};
/// What the replication port is above that of HTTP, unless it is given.
const REPLICATION_PORT_OFFSET: u16 = 1000;

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Run a node.
    Run(Box<Config>),
    /// Print [`help`].
    Help,
    /// Print the version.
    Version,
}

/// The command line or the environment is wrong: show the line, exit with 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Values as given, before they are understood: one slot for each of [`OPTIONS`].
struct Given {
    /// Values with the name they were given under, for messages.
    values: Vec<Vec<(String, String)>>,
}

impl Given {
    fn texts(&self, flag: &str) -> &[(String, String)] {
        let index = OPTIONS
            .iter()
            .position(|option| option.flag == flag)
            .expect("an option of the table");
        &self.values[index]
    }

    /// The last value of an option, or its default, as a `T`.
    fn parsed<T>(
        &self,
        flag: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let default = OPTIONS
            .iter()
            .find(|option| option.flag == flag)
            .map_or("", |option| option.default);
        let from_default = (format!("--{flag}"), default.to_owned());
        let (name, text) = self.texts(flag).last().unwrap_or(&from_default);
        parse(text).map_err(|problem| {
            ConfigError(format!(
                "{}: {problem}",
                format!("{name} {text}").trim_end()
            ))
        })
    }

    /// All values of an option that may be repeated.
    fn list<T>(
        &self,
        flag: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let parse = |(name, text): &(String, String)| {
            parse(text).map_err(|problem| ConfigError(format!("{name} {text}: {problem}")))
        };
        self.texts(flag).iter().map(parse).collect()
    }

    fn bytes(&self, flag: &str, bounds: &Bounds) -> Result<usize, ConfigError> {
        self.parsed(flag, |text| {
            parse_bytes(text).and_then(|number| bytes_within(number, bounds))
        })
    }

    fn number(&self, flag: &str, bounds: &Bounds) -> Result<u64, ConfigError> {
        self.parsed(flag, |text| {
            let number: u64 = text.parse().map_err(|_| "give a whole number".to_owned())?;
            within(number, bounds)
        })
    }

    fn switch(&self, flag: &str) -> Result<bool, ConfigError> {
        self.parsed(flag, |text| match text {
            "1" | "true" => Ok(true),
            "" | "0" | "false" => Ok(false),
            _ => Err("give true or false".to_owned()),
        })
    }
}

/// Reads a command line, without the program's name, and an environment.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Invocation, ConfigError> {
    let mut given = Given {
        values: OPTIONS
            .iter()
            .map(|option| from_environment(option, &environment))
            .collect(),
    };
    let mut is_from_flag = vec![false; OPTIONS.len()];
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser
        .next()
        .map_err(|error| ConfigError(format!("{error}; see --help")))?
    {
        let flag = match argument {
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => return Ok(Invocation::Help),
            lexopt::Arg::Short('V') | lexopt::Arg::Long("version") => {
                return Ok(Invocation::Version);
            }
            lexopt::Arg::Short('p') | lexopt::Arg::Long("port") => "listen".to_owned(),
            lexopt::Arg::Long(flag) => flag.to_owned(),
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
        let text = if OPTIONS[index].value.is_empty() {
            "true".to_owned()
        } else {
            let value = parser
                .value()
                .map_err(|_| ConfigError(format!("--{flag} needs a value; see --help")))?;
            if value.is_empty() {
                return Err(ConfigError(format!(
                    "--{flag}: its value is empty: give one, or leave the option out"
                )));
            }
            value
                .into_string()
                .map_err(|_| ConfigError(format!("--{flag}: the value is not UTF-8")))?
        };
        if !std::mem::replace(&mut is_from_flag[index], true) {
            given.values[index].clear();
        }
        given.values[index].push((format!("--{flag}"), text));
    }
    Ok(Invocation::Run(Box::new(build(&given)?)))
}

fn from_environment(
    option: &OptionSpec,
    environment: &impl Fn(&str) -> Option<OsString>,
) -> Vec<(String, String)> {
    let name = environment_name(option.flag);
    let Some(value) = environment(&name).filter(|value| !value.is_empty()) else {
        return Vec::new();
    };
    let value = value.to_string_lossy().into_owned();
    if matches!(option.flag, "allowed-host" | "allowed-origin") {
        return value
            .split(',')
            .map(|part| (name.clone(), part.trim().to_owned()))
            .collect();
    }
    vec![(name, value)]
}

/// What to tell of the names of environment variables: those that look like a mistyped one of this
/// program. Names that are like none are left alone: a platform may set such variables.
pub fn warnings_about_variables(names: impl IntoIterator<Item = OsString>) -> Vec<String> {
    let known: Vec<String> = (OPTIONS.iter())
        .map(|option| environment_name(option.flag))
        .collect();
    let warning = |name: OsString| {
        let name = name.into_string().ok()?;
        let rest = name.strip_prefix("DB_NODE_")?;
        if known.contains(&name) {
            return None;
        }
        let flag = nearest(rest, OPTIONS.iter().map(|option| option.flag))?;
        let meant = environment_name(flag);
        Some(format!(
            "the environment variable {name} means nothing: did you mean {meant}?"
        ))
    };
    names.into_iter().filter_map(warning).collect()
}

fn environment_name(flag: &str) -> String {
    format!("DB_NODE_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

fn build(given: &Given) -> Result<Config, ConfigError> {
    let small = |number: u64| usize::try_from(number).expect("bounded far below the address space");
    let path = |text: &str| Ok((!text.is_empty()).then(|| PathBuf::from(text)));
    let config = Config {
        listen: given.parsed("listen", parse_address)?,
        replication_listen: given.parsed("replication-listen", |text| match text {
            "off" => Ok(None),
            "" => Ok(Some(
                given
                    .parsed("listen", parse_address)
                    .map_err(|error| error.0)?,
            ))
            .and_then(replication_address),
            _ => parse_address(text).map(Some),
        })?,
        replica_of: given.parsed("replica-of", optional_peer)?,
        advertise: given.parsed("advertise", optional_peer)?,
        await_assignment: given.switch("await-assignment")?,
        min_acks: given.parsed("min-acks", |text| {
            text.parse()
                .map_err(|_| "give a whole number".to_owned())
                .and_then(|number| within(number, &MIN_ACKS))
        })?,
        read_consistency: given.parsed("read-consistency", |text| {
            ReadConsistency::of(text.as_bytes())
                .ok_or_else(|| "give local or acknowledged".to_owned())
        })?,
        ack_timeout_ms: given.number("ack-timeout-ms", &TIMEOUT_MS)?,
        wal_retain_bytes: given.bytes("wal-retain-bytes", &WAL_RETAIN_BYTES)?,
        data_dir: given.parsed("data-dir", path)?,
        fsync: given.parsed("fsync", |text| match text {
            text if text == Fsync::Always.name() => Ok(Fsync::Always),
            text if text == Fsync::Interval.name() => Ok(Fsync::Interval),
            text if text == Fsync::Never.name() => Ok(Fsync::Never),
            _ => Err("give always, interval or never".to_owned()),
        })?,
        fsync_interval_ms: given.number("fsync-interval-ms", &TIMEOUT_MS)?,
        restore: given.parsed("restore", path)?,
        accept_data_loss: given.switch("accept-data-loss")?,
        memtable_bytes: given.bytes("memtable-bytes", &MEMTABLE_BYTES)?,
        max_memory_bytes: given.parsed("max-memory", |text| {
            let bytes =
                || parse_bytes(text).and_then(|number| bytes_within(number, &MAX_MEMORY_BYTES));
            if text.is_empty() {
                Ok(None)
            } else {
                bytes().map(Some)
            }
        })?,
        max_upload_bytes: given.bytes("max-upload-memory", &MAX_UPLOAD_BYTES)?,
        max_connections: small(given.number("max-connections", &MAX_CONNECTIONS)?),
        idle_timeout_ms: given.number("idle-timeout-ms", &TIMEOUT_MS)?,
        header_timeout_ms: given.number("header-timeout-ms", &TIMEOUT_MS)?,
        max_value_bytes: given.bytes("max-value-bytes", &MAX_VALUE_BYTES)?,
        max_head_bytes: given.bytes("max-head-bytes", &MAX_HEAD_BYTES)?,
        token: given.parsed("token-file", |path| {
            if path.is_empty() {
                Ok(None)
            } else {
                read_token(path).map(Some)
            }
        })?,
        allowed_hosts: given.list("allowed-host", parse_host_name)?,
        listen_name: given.parsed("listen", |text| Ok(host_name_in(text)))?,
        allowed_origins: given.list("allowed-origin", Origin::parse)?,
        slow_request_ms: given.number("slow-request-ms", &SLOW_REQUEST_MS)?,
        log_level: given.parsed("log", |text| {
            log::LevelFilter::from_str(text)
                .map_err(|_| "give off, error, warn, info, debug or trace".to_owned())
        })?,
    };
    if config.data_dir.is_none()
        && let Some((name, text)) = given.texts("fsync").last()
    {
        let problem = "nothing is synced without --data-dir: name a directory, or leave this out";
        return Err(ConfigError(format!("{name} {text}: {problem}")));
    }
    if let Some(leader) = &config.replica_of
        && config.is_own_address(leader)
    {
        let (name, text) = given.texts("replica-of").last().expect("it was given");
        return Err(ConfigError(format!(
            "{name} {text}: that is this node itself: name the node to follow, or leave it out to \
             lead"
        )));
    }
    let listeners = [Some(config.listen), config.replication_listen];
    let is_reachable = |address: &SocketAddr| !address.ip().is_loopback();
    if let Some(address) = listeners.into_iter().flatten().find(is_reachable)
        && config.token.is_none()
        && !given.switch("allow-open")?
    {
        return Err(ConfigError(format!(
            "listening on {address} lets anyone on the network in: give --token-file FILE to \
             require a token, or --allow-open if the network is trusted"
        )));
    }
    Ok(config)
}

/// The address of a node, if one is given.
fn optional_peer(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        Ok(None)
    } else {
        parse_peer(text).map(Some)
    }
}

fn unknown_option(flag: &str) -> ConfigError {
    match nearest(flag, OPTIONS.iter().map(|option| option.flag)) {
        Some(known) => ConfigError(format!("unknown option --{flag}; did you mean --{known}?")),
        None => ConfigError(format!("unknown option --{flag}; see --help")),
    }
}

/// The text of `--help`: one screen.
pub fn help() -> String {
    let mut text = String::from(
        "db-node [OPTIONS]: the database node of a distributed key-value system, over HTTP\n\n",
    );
    for option in OPTIONS {
        let flag = format!("--{} {}", option.flag, option.value);
        let default = if option.default.is_empty() {
            String::new()
        } else {
            format!(" [{}]", option.default)
        };
        let _ = writeln!(text, "  {flag:<25} {}{default}", option.meaning);
    }
    text.push_str("  -p, --port N: --listen 127.0.0.1:N; -h, --help; -V, --version\n\n");
    text.push_str(
        "Sizes: 64MiB, 64MB and 64m are the same, 64 times 1,024 KiB.\n\
         Each is an environment variable too: --max-connections is DB_NODE_MAX_CONNECTIONS.\n",
    );
    text.push_str("Try: curl localhost:9001/set -d '{\"key\":\"a\",\"value\":\"1\"}'\n");
    text
}

#[cfg(test)]
mod tests;
