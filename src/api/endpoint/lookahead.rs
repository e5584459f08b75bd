//! Lookahead: the keys of requests that were read from the socket and not executed yet, so that the
//! memory that they need is fetched into the processor's cache together.
//!
//! Invariant: it changes no answer. Requests of an unusual shape are skipped; all are parsed and
//! checked again when they are executed.

use std::borrow::Cow;

use crate::http::HeadReader;
use crate::lsm::PREFETCH_KEYS_MAX;
use crate::node::Node;

use crate::api::body::json_text::plain_bytes;
use crate::api::endpoint::kv::key_of_target;
use crate::api::request::route::Route;

/// Keys of the next requests.
#[derive(Debug, Default)]
pub struct Lookahead<'b> {
    keys: [&'b [u8]; PREFETCH_KEYS_MAX],
    count: usize,
    /// Whether one of them is to be read, not only written.
    is_read: bool,
    /// Whether there were as many keys as can be fetched at once.
    is_enough: bool,
}

impl<'b> Lookahead<'b> {
    /// No keys yet. None if there is so little data that it is in the cache anyway.
    pub fn new(node: &Node) -> Option<Self> {
        node.is_prefetch_worth().then(Self::default)
    }

    /// Adds the keys of the requests that `input` begins with.
    #[inline(never)]
    pub fn look(&mut self, input: &'b [u8], heads: &HeadReader, node: &mut Node) {
        for (target, body) in heads.look_ahead(input) {
            let Some(route) = Route::of(target.path).filter(|route| route.is_about_key()) else {
                continue;
            };
            let key = match key_of_target(route, target) {
                Ok(Some(Cow::Borrowed(key))) => Some(key),
                Ok(None) => key_of_body(body),
                _ => None,
            };
            if let Some(key) = key {
                self.keys[self.count] = key;
                self.count += 1;
                self.is_read |= route != Route::Set;
                if self.count == PREFETCH_KEYS_MAX {
                    self.is_enough = true;
                    self.fetch(node);
                }
            }
        }
    }

    /// Whether to execute these requests before adding more: memory that is fetched long before it
    /// is used is out of the cache again.
    pub fn is_enough(&self) -> bool {
        self.is_enough
    }

    /// Fetches the memory that the requests will touch. For a single one that gains nothing.
    #[inline]
    pub fn fetch(&mut self, node: &mut Node) {
        let keys = &self.keys[..self.count];
        match keys {
            [] | [_] => {}
            _ if self.is_read => node.prefetch(keys),
            _ => node.prefetch_for_writes(keys),
        }
        (self.count, self.is_read) = (0, false);
    }
}

/// The key of a JSON body of the usual shape.
fn key_of_body(body: &[u8]) -> Option<&[u8]> {
    let text = body.strip_prefix(b"{\"key\":\"")?;
    let (key, rest) = text.split_at(plain_bytes(text));
    rest.starts_with(b"\"").then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_where_they_are_plain() {
        assert_eq!(key_of_body(br#"{"key":"k","value":"v"}"#), Some(&b"k"[..]));
        for other in [
            &br#"{"value":"v","key":"k"}"#[..],
            br#"{"key":"a\n"}"#,
            br#"{"key":"k"#,
            b"",
        ] {
            assert_eq!(key_of_body(other), None);
        }
    }
}
