//! The command line.

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

/// What `--help` prints.
pub const HELP: &str = "\
db-node-bench [OPTIONS] [ADDRESS]: load for a node (at 127.0.0.1:9001), and what came of it

  --protocol NAME           raw and json: the node's /kv/{key}, and its /get and /set;
                            resp: Redis' own; memcached: its text protocol; webdis, etcd:
                            their HTTP [raw]
  --reads SHARE             share of requests that read [1]
  --keys N                  how many keys there are [1000000]
  --order ORDER             uniform, sequential, or zipf[:EXPONENT below 1] [uniform]
  --value-bytes N           bytes of a value [32]
  --connections N           [64]
  --pipeline N              requests sent together on a connection, closed loop [1]
  --rate N                  open loop: requests a second, due at fixed times
  --seconds N               how long, warm-up aside [10]
  --requests N              how many instead
  --warm-up-seconds N       before anything counts [1; 0 with --requests]
  --fill                    write every key once, in order, and end
  --seed N                  of keys and of the mix [1]
  --slice-ms N              latencies are told for each so many milliseconds, too [1000]
  --pid PID[,PID]           tell processor time and memory of these processes, too
  --json FILE|-             write all figures there
  -h, --help

Keys are key: and twelve digits. Exit codes: 0, 1 when the server failed, 2 for usage.
";

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP, `/kv/{key}`.
    Raw,
    /// HTTP, `/get` and `/set` with JSON.
    Json,
    /// Redis' GET and SET.
    Resp,
    /// memcached's get and set, as text.
    Memcached,
    /// Redis' GET and SET in the address, through webdis.
    Webdis,
    /// etcd's JSON gateway.
    Etcd,
}

impl Protocol {
    const ALL: [(&str, Self); 6] = [
        ("raw", Self::Raw),
        ("json", Self::Json),
        ("resp", Self::Resp),
        ("memcached", Self::Memcached),
        ("webdis", Self::Webdis),
        ("etcd", Self::Etcd),
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, protocol)| *protocol == self)
            .map_or("", |(name, _)| name)
    }
}

/// In which order keys are asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    Uniform,
    Sequential,
    /// With this exponent, above 0 and below 1.
    Zipf(f64),
}

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Options {
    pub address: SocketAddr,
    pub protocol: Protocol,
    pub read_share: f64,
    pub key_count: u64,
    pub order: Order,
    pub value_bytes: usize,
    pub connection_count: usize,
    pub pipeline: usize,
    /// Requests a second; none: closed loop.
    pub rate: Option<f64>,
    pub seconds: f64,
    pub request_count: Option<u64>,
    pub warm_up_seconds: f64,
    pub fill: bool,
    pub seed: u64,
    /// Latencies are told for each slice of time.
    pub slice_ms: u32,
    pub pids: Vec<u32>,
    pub json: Option<String>,
}

/// Reads a command line, without the program's name; none: help is wanted.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Option<Options>, String> {
    let mut options = Options {
        address: SocketAddr::from(([127, 0, 0, 1], 9001)),
        protocol: Protocol::Raw,
        read_share: 1.0,
        key_count: 1_000_000,
        order: Order::Uniform,
        value_bytes: 32,
        connection_count: 64,
        pipeline: 1,
        rate: None,
        seconds: 10.0,
        request_count: None,
        warm_up_seconds: 1.0,
        fill: false,
        seed: 1,
        slice_ms: 1_000,
        pids: Vec::new(),
        json: None,
    };
    let mut has_warm_up = false;
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        let name = match argument {
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => return Ok(None),
            lexopt::Arg::Value(value) => {
                options.address = address(&value.to_string_lossy())?;
                continue;
            }
            lexopt::Arg::Long(name) => format!("--{name}"),
            lexopt::Arg::Short(letter) => {
                return Err(format!("unknown option -{letter}; see --help"));
            }
        };
        if name == "--fill" {
            options.fill = true;
            continue;
        }
        if !HELP.contains(&format!("  {name} ")) {
            return Err(format!("unknown option {name}; see --help"));
        }
        let value = parser
            .value()
            .map_err(|error| error.to_string())?
            .to_string_lossy()
            .into_owned();
        has_warm_up |= name == "--warm-up-seconds";
        set(&mut options, &name, &value)?;
    }
    if options.request_count.is_some() && !has_warm_up {
        options.warm_up_seconds = 0.0;
    }
    if options.fill {
        (options.read_share, options.order) = (0.0, Order::Sequential);
        (options.request_count, options.warm_up_seconds) = (Some(options.key_count), 0.0);
    }
    if options.rate.is_some() && options.pipeline > 1 {
        return Err("--pipeline is for the closed loop: leave it or --rate out".to_owned());
    }
    Ok(Some(options))
}

fn set(options: &mut Options, name: &str, value: &str) -> Result<(), String> {
    match name {
        "--protocol" => {
            let known = Protocol::ALL.iter().find(|(name, _)| *name == value);
            let names = || Protocol::ALL.map(|(name, _)| name).join(", ");
            options.protocol = known
                .map(|(_, protocol)| *protocol)
                .ok_or_else(|| format!("--protocol {value}: give one of {}", names()))?;
        }
        "--reads" => options.read_share = number(name, value, 0.0..=1.0)?,
        "--keys" => options.key_count = number(name, value, 1..=1_000_000_000_000)?,
        "--order" => options.order = order(value)?,
        "--value-bytes" => options.value_bytes = number(name, value, 0..=1 << 30)?,
        "--connections" => options.connection_count = number(name, value, 1..=100_000)?,
        "--pipeline" => options.pipeline = number(name, value, 1..=10_000)?,
        "--rate" => options.rate = Some(number(name, value, 1.0..=1e8)?),
        "--seconds" => options.seconds = number(name, value, 0.0..=1e6)?,
        "--requests" => options.request_count = Some(number(name, value, 1..=u64::MAX)?),
        "--warm-up-seconds" => options.warm_up_seconds = number(name, value, 0.0..=1e6)?,
        "--seed" => options.seed = number(name, value, 0..=u64::MAX)?,
        "--slice-ms" => options.slice_ms = number(name, value, 1..=1_000_000)?,
        "--pid" => {
            options.pids = value
                .split(',')
                .map(|pid| number(name, pid, 1..=u32::MAX))
                .collect::<Result<_, _>>()?;
        }
        "--json" => options.json = Some(value.to_owned()),
        _ => return Err(format!("unknown option {name}; see --help")),
    }
    Ok(())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let found = text
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next());
    found.ok_or_else(|| format!("{text}: give an address and a port, such as 127.0.0.1:9001"))
}

fn number<T>(name: &str, text: &str, range: std::ops::RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| {
        format!(
            "{name} {text}: give a number from {} to {}",
            range.start(),
            range.end()
        )
    })
}

fn order(text: &str) -> Result<Order, String> {
    let (kind, exponent) = text.split_once(':').unwrap_or((text, "0.99"));
    match (kind, exponent.parse::<f64>()) {
        ("uniform", _) => Ok(Order::Uniform),
        ("sequential", _) => Ok(Order::Sequential),
        ("zipf", Ok(exponent)) if exponent > 0.0 && exponent < 1.0 => Ok(Order::Zipf(exponent)),
        _ => Err(format!(
            "--order {text}: give uniform, sequential, or zipf with an exponent between 0 and 1"
        )),
    }
}
