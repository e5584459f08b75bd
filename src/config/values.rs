//! What a value of an option may look like, and what is said about one that does not.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use super::{GIB, KIB, MIB, REPLICATION_PORT_OFFSET, Token};

/// A whole number between two bounds.
pub(super) struct Bounds {
    pub(super) min: u64,
    pub(super) max: u64,
}

pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    // `localhost:9001` and other names of this machine are resolved once, here.
    let mut addresses = text.to_socket_addrs().map_err(|_| {
        "give an address and a port, such as 127.0.0.1:9001 or [::1]:9001".to_owned()
    })?;
    addresses
        .next()
        .ok_or_else(|| "no address has that name".to_owned())
}

/// The replication address that goes with an HTTP address: another port of the system's choice for one of its choice.
pub(super) fn replication_address(
    listen: Option<SocketAddr>,
) -> Result<Option<SocketAddr>, String> {
    let Some(mut address) = listen else {
        return Ok(None);
    };
    if address.port() != 0 {
        let port = address.port().checked_add(REPLICATION_PORT_OFFSET);
        address.set_port(
            port.ok_or("there is no port 1000 above that of --listen: give one, or off")?,
        );
    }
    Ok(Some(address))
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

pub(super) fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits_end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let unit = match text[digits_end..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => KIB,
        "m" | "mib" => MIB,
        "g" | "gib" => GIB,
        _ => return Err("give bytes, or a number with KiB, MiB or GiB".to_owned()),
    };
    let number: u64 = text[..digits_end]
        .parse()
        .map_err(|_| "give bytes, or a number with KiB, MiB or GiB".to_owned())?;
    number
        .checked_mul(unit)
        .ok_or_else(|| "that is more than there is".to_owned())
}

pub(super) fn within<T: TryFrom<u64>>(number: u64, bounds: &Bounds) -> Result<T, String> {
    let problem = || format!("give a number from {} to {}", bounds.min, bounds.max);
    if !(bounds.min..=bounds.max).contains(&number) {
        return Err(problem());
    }
    T::try_from(number).map_err(|_| problem())
}

pub(super) fn read_token(path: &str) -> Result<Token, String> {
    #[expect(
        clippy::disallowed_methods,
        reason = "read once, before the node starts"
    )]
    let content = std::fs::read(path).map_err(|error| format!("cannot read it: {error}"))?;
    Token::new(&content)
        .map_err(|problem| format!("{problem}; make one with: openssl rand -hex 32 > FILE"))
}
