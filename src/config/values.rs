//! What a value of an option may look like, and what is said about one that does not.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use super::token::Token;

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

/// What the replication port is above that of HTTP, unless it is given.
const REPLICATION_PORT_OFFSET: u16 = 1000;

/// A whole number between two bounds.
pub(super) struct Bounds {
    pub(super) min: u64,
    pub(super) max: u64,
}

/// An address to listen on; a port alone is one of this machine.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let problem =
        || "give an address and a port, such as 127.0.0.1:9001 or [::1]:9001; or a port".to_owned();
    if let Some(digits) = port_alone(text) {
        let port: u16 = digits
            .parse()
            .map_err(|_| "a port is a number up to 65535".to_owned())?;
        return Ok((Ipv4Addr::LOCALHOST, port).into());
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(problem)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(problem());
    }
    // `localhost:9001` and other names of this machine are resolved once, here.
    let mut addresses = text.to_socket_addrs().map_err(|_| {
        if host_name_in(text).is_some_and(|name| parse_host_name(&name).is_ok()) {
            format!("the name {host} was not found: give its IP address, such as 127.0.0.1:{port}")
        } else {
            problem()
        }
    })?;
    addresses
        .next()
        .ok_or_else(|| format!("the name {host} has no address"))
}

/// The digits of `9001` or `:9001`, which are a port of this machine.
fn port_alone(text: &str) -> Option<&str> {
    let digits = text.strip_prefix(':').unwrap_or(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some(digits)
}

/// The replication address that goes with an HTTP address: another port of the system's choice for
/// one of its choice.
pub(super) fn replication_address(mut listen: SocketAddr) -> Result<SocketAddr, String> {
    if listen.port() != 0 {
        let port = listen.port().checked_add(REPLICATION_PORT_OFFSET);
        listen.set_port(
            port.ok_or("there is no port 1000 above that of --listen: give one, or off")?,
        );
    }
    Ok(listen)
}

/// The address of another node, as `http://host:port`. Names are resolved whenever it is dialed.
pub fn parse_peer(text: &str) -> Result<String, String> {
    let problem = || "give a host and a port, such as 10.0.0.7:9001 or http://db-0:9001".to_owned();
    if text.starts_with("https://") {
        return Err("https is not spoken: give an http:// address".to_owned());
    }
    let authority = text.strip_prefix("http://").unwrap_or(text);
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let (host, port) = authority.rsplit_once(':').ok_or_else(problem)?;
    let is_bracketed = host.starts_with('[') && host.ends_with(']');
    let is_host = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || b"-._".contains(&byte)
            || (is_bracketed && b"[]:%".contains(&byte))
    };
    let is_valid = (1..=255).contains(&host.len()) && host.bytes().all(is_host);
    if !is_valid || port.parse::<u16>().map_or(true, |port| port == 0) {
        return Err(problem());
    }
    Ok(format!("http://{authority}"))
}

/// The address of the leader to follow: as [`parse_peer`] takes it, or a port alone, which is one
/// of this machine.
pub(super) fn parse_leader(text: &str) -> Result<String, String> {
    match port_alone(text) {
        Some(digits) => parse_peer(&format!("{}:{digits}", Ipv4Addr::LOCALHOST)),
        None => parse_peer(text),
    }
}

/// A name to answer under.
pub(super) fn parse_host_name(host: &str) -> Result<String, String> {
    let is_name = !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if is_name {
        Ok(host.to_owned())
    } else {
        Err("give a host name without scheme and port, such as db.example".to_owned())
    }
}

/// The name before the port of an address, where it is not an IP address.
pub fn host_name_in(address: &str) -> Option<String> {
    let address = address.strip_prefix("http://").unwrap_or(address);
    let (host, _) = address.rsplit_once(':')?;
    let is_ip = host.starts_with('[') || host.parse::<IpAddr>().is_ok();
    (!is_ip && !host.is_empty()).then(|| host.to_owned())
}

/// A number of bytes. Units are powers of 1,024, however they are written: so are those of
/// Postgres, and `kb`, `mb` and `gb` of Redis.
pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let problem = || {
        "give bytes, or a number with KiB, MiB, GiB or TiB, such as 64MiB or 1.5GiB (KB, k and the \
         like are the same)"
            .to_owned()
    };
    let number_end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let unit = match text[number_end..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => KIB,
        "m" | "mb" | "mib" => MIB,
        "g" | "gb" | "gib" => GIB,
        "t" | "tb" | "tib" => 1024 * GIB,
        _ => return Err(problem()),
    };
    let (whole, fraction) = match text[..number_end].split_once('.') {
        Some((whole, fraction)) if unit > 1 => (whole, parse_fraction(fraction)),
        Some(_) => return Err(problem()),
        None => (&text[..number_end], Some(0)),
    };
    let number: u64 = whole.parse().map_err(|_| problem())?;
    let thousandths = fraction.ok_or_else(problem)?;
    number
        .checked_mul(unit)
        .and_then(|bytes| bytes.checked_add(unit.checked_mul(thousandths)? / 1_000))
        .ok_or_else(|| "that is more than there is".to_owned())
}

/// Digits behind a point, in thousandths: at most three.
fn parse_fraction(digits: &str) -> Option<u64> {
    let is_valid = (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    is_valid
        .then(|| format!("{digits:0<3}").parse().ok())
        .flatten()
}

/// The most verbose level of what is logged.
pub(super) fn parse_log_level(text: &str) -> Result<log::LevelFilter, String> {
    text.parse()
        .map_err(|_| "give off, error, warn, info, debug or trace".to_owned())
}

/// A number of bytes as a person writes it: in the largest unit that it is a whole number of.
pub fn show_bytes(bytes: u64) -> String {
    let units = [
        (1024 * GIB, "TiB"),
        (GIB, "GiB"),
        (MIB, "MiB"),
        (KIB, "KiB"),
    ];
    let whole = units
        .into_iter()
        .find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    match whole {
        Some((unit, name)) => format!("{} {name}", bytes / unit),
        None if bytes == 1 => "1 byte".to_owned(),
        None => format!("{bytes} bytes"),
    }
}

/// The same as [`within`] of a number of bytes.
pub(super) fn bytes_within<T: TryFrom<u64>>(bytes: u64, bounds: &Bounds) -> Result<T, String> {
    if bytes < bounds.min {
        return Err(format!("give at least {}", show_bytes(bounds.min)));
    }
    within(bytes, bounds).map_err(|_| format!("give at most {}", show_bytes(bounds.max)))
}

pub(super) fn within<T: TryFrom<u64>>(number: u64, bounds: &Bounds) -> Result<T, String> {
    let problem = || format!("give a number from {} to {}", bounds.min, bounds.max);
    if !(bounds.min..=bounds.max).contains(&number) {
        return Err(problem());
    }
    T::try_from(number).map_err(|_| problem())
}

/// The token in a file.
pub fn read_token(path: &str) -> Result<Token, String> {
    Token::new(&read_file(path)?)
        .map_err(|problem| format!("{problem}; make one with: openssl rand -hex 32 > FILE"))
}

pub(super) fn read_file(path: &str) -> Result<Vec<u8>, String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "read once, before the node starts"
    )]
    std::fs::read(path).map_err(|error| format!("cannot read it: {error}"))
}
