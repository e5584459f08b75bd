//! Connections to the replication port without a hello yet, by origin.
//!
//! At the limit a new one replaces the oldest of the origin that has most. So a flood from one
//! address only hurts that address; in a flood from many addresses each connection still has the
//! time until as many others arrive, and a replica, which says hello at once, needs a fraction of
//! it.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// The origin of a connection: an IPv4 address, or the network of an IPv6 host, which has 2^64
/// addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PeerOrigin(IpAddr);

impl PeerOrigin {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = u128::from(address) >> 64 << 64;
                Self(IpAddr::V6(network.into()))
            }
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }
}

/// Keys of connections by their origin, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    by_origin: BTreeMap<PeerOrigin, VecDeque<usize>>,
    count: usize,
}

impl Strangers {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn enter(&mut self, origin: PeerOrigin, key: usize) {
        self.by_origin.entry(origin).or_default().push_back(key);
        self.count += 1;
    }

    /// Removes a connection that has said hello, or has ended.
    pub(super) fn leave(&mut self, origin: PeerOrigin, key: usize) {
        let Some(keys) = self.by_origin.get_mut(&origin) else {
            return;
        };
        let before = keys.len();
        keys.retain(|other| *other != key);
        self.count -= before - keys.len();
        if keys.is_empty() {
            self.by_origin.remove(&origin);
        }
    }

    /// The connection to replace: the oldest of the origin with most.
    pub(super) fn first_to_go(&self) -> Option<usize> {
        let most = self.by_origin.values().max_by_key(|keys| keys.len())?;
        most.front().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> PeerOrigin {
        PeerOrigin::of(text.parse().expect("an address"))
    }

    #[test]
    fn the_oldest_of_the_origin_with_most_makes_room() {
        let (flood, replica) = (origin("10.0.0.1"), origin("10.0.0.2"));
        let mut strangers = Strangers::default();
        assert_eq!(strangers.first_to_go(), None);
        strangers.enter(replica, 7);
        for key in 10..13 {
            strangers.enter(flood, key);
        }
        for expected in [10, 11] {
            let key = strangers.first_to_go().expect("a stranger");
            assert_eq!(key, expected, "not the replica, which came first");
            strangers.leave(flood, key);
        }
        strangers.leave(replica, 7);
        strangers.leave(replica, 7);
        assert_eq!((strangers.len(), strangers.first_to_go()), (1, Some(12)));
        strangers.leave(flood, 12);
        assert_eq!((strangers.len(), strangers.first_to_go()), (0, None));
    }

    #[test]
    fn an_ipv6_network_is_one_origin() {
        assert_eq!(origin("2001:db8::1"), origin("2001:db8::2:3:4:5"));
        assert_ne!(origin("2001:db8::1"), origin("2001:db8:0:1::1"));
        assert_eq!(origin("::ffff:10.0.0.1"), origin("10.0.0.1"));
        assert_ne!(origin("10.0.0.1"), origin("10.0.0.2"));
    }
}
