//! Looking ahead: which keys requests are about that have been read and not begun.
//!
//! Invariant: nothing depends on it. Requests that are not plainly like others are not looked at, and what is found is judged
//! when their turn comes.

use std::borrow::Cow;

use crate::http::HeadReader;
use crate::lsm::PREFETCH_KEYS_MAX;
use crate::node::Node;

use super::kv::key_of_target;
use super::route::{Family, Route};

/// Keys that requests to come are about.
#[derive(Debug, Default)]
pub struct Ahead<'b> {
    keys: [&'b [u8]; PREFETCH_KEYS_MAX],
    count: usize,
    /// Whether there were as many as can be fetched for at once.
    is_enough: bool,
}

impl<'b> Ahead<'b> {
    /// Nothing is known yet. `None`: there is so little data that it is in the cache anyway.
    pub fn new(node: &Node) -> Option<Self> {
        node.is_prefetch_worth().then(Self::default)
    }

    /// Looks at the requests that `input` begins with.
    pub fn look(&mut self, input: &'b [u8], heads: &HeadReader, node: &mut Node) {
        for target in heads.look_ahead(input) {
            let route = Route::of(target.path).filter(|route| route.family() == Family::KeyValue);
            let key = route.and_then(|route| key_of_target(route, target).ok().flatten());
            if let Some(Cow::Borrowed(key)) = key {
                self.keys[self.count] = key;
                self.count += 1;
                if self.count == PREFETCH_KEYS_MAX {
                    self.is_enough = true;
                    self.fetch(node);
                }
            }
        }
    }

    /// Whether to go on with these before looking at more: what is fetched much earlier than it is used is gone again by then.
    pub fn is_enough(&self) -> bool {
        self.is_enough
    }

    /// Fetches what reads of the keys will touch. Of one there is nothing to gain.
    pub fn fetch(&mut self, node: &mut Node) {
        if self.count > 1 {
            node.prefetch(&self.keys[..self.count]);
        }
        self.count = 0;
    }
}
