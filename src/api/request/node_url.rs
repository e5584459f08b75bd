//! The address of this node in commands that a client may copy: the one that its request was sent
//! to.
//!
//! Invariant: bytes of a request stand in a command only if a shell takes them for a word.

use crate::config::Config;
use crate::http::Head;

/// The beginning of the addresses of this node, such as `http://localhost:9001`.
pub(crate) fn node_url(head: &Head<'_>, config: &Config) -> String {
    let host = head.host.filter(|host| is_word(host));
    match host.and_then(|host| str::from_utf8(host).ok()) {
        Some(host) => format!("http://{host}"),
        None => config.own_url(),
    }
}

/// A shell and curl take it as it is, in quotes and without.
pub(crate) fn is_word(text: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:/%".contains(byte);
    !text.is_empty() && text.iter().all(is_plain)
}
