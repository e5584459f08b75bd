//! Requests for `/cluster/map` that wait until the map is another one.
//!
//! Each is answered with the whole map, by turns in slices: once its revision is higher than the
//! client's, when its time is over, or when the node stops.
//!
//! Not here: what the map is (`api/endpoint/cluster_view.rs`), when it changes
//! (`cluster/state.rs`).

use crate::api::{MapPoll, cluster_map};
use crate::cluster::Cluster;
use crate::node::Permit;

use super::core::Core;
use super::limits::WATCH_WORK_BYTES;
use super::timers::Millis;

/// A request that waits.
#[derive(Debug)]
struct WaitingPoll {
    /// The number of its connection.
    key: usize,
    since: u64,
    until: Millis,
    #[expect(dead_code, reason = "it is given back when it is dropped")]
    permit: Permit,
}

/// All of them, by the numbers of their connections.
#[derive(Debug, Default)]
pub(super) struct MapPolls {
    polls: Vec<WaitingPoll>,
    /// The revision up to which all were answered.
    revision: u64,
    /// Some are to be answered in the next turn.
    is_behind: bool,
}

impl MapPolls {
    /// Where a connection is, or would be.
    fn place_of(&self, key: usize) -> Result<usize, usize> {
        self.polls.binary_search_by_key(&key, |poll| poll.key)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.polls.len()
    }

    /// Begins to wait.
    pub(super) fn begin(&mut self, key: usize, poll: MapPoll, now: Millis) {
        let waiting = WaitingPoll {
            key,
            since: poll.since,
            until: now.saturating_add(poll.timeout_ms),
            permit: poll.permit,
        };
        if let Err(at) = self.place_of(key) {
            self.polls.insert(at, waiting);
        }
    }

    /// Whether some are to be answered now.
    pub(super) fn is_behind(&self) -> bool {
        self.is_behind
    }

    /// When the time of the request on a connection is over, if there is one.
    pub(super) fn deadline_of(&self, key: usize) -> Option<Millis> {
        let at = self.place_of(key).ok()?;
        Some(self.polls[at].until)
    }

    /// A connection is closed.
    pub(super) fn forget(&mut self, key: usize) {
        if let Ok(at) = self.place_of(key) {
            self.polls.remove(at);
        }
    }

    /// Answers those that have an older map, a bounded number.
    pub(super) fn answer_all(&mut self, core: &mut Core) {
        let revision = core.node.cluster().map_or(0, Cluster::map_revision);
        self.is_behind = false;
        if self.polls.is_empty() || revision == self.revision {
            self.revision = revision;
            return;
        }
        let mut left = WATCH_WORK_BYTES;
        while let Some(at) = self.polls.iter().position(|poll| poll.since < revision) {
            if left == 0 {
                self.is_behind = true;
                return;
            }
            left = left.saturating_sub(self.answer(core, at));
        }
        self.revision = revision;
    }

    /// The time of a request is over; false if there is none on this connection.
    pub(super) fn time_out(&mut self, core: &mut Core, key: usize) -> bool {
        let at = self.place_of(key);
        if let Ok(at) = at {
            self.answer(core, at);
        }
        at.is_ok()
    }

    /// Answers all: the node stops.
    pub(super) fn end_all(&mut self, core: &mut Core) {
        while !self.polls.is_empty() {
            self.answer(core, 0);
        }
    }

    /// Answers a request; returns the work.
    fn answer(&mut self, core: &mut Core, at: usize) -> usize {
        let key = self.polls.remove(at).key;
        let map = core.node.cluster().map(cluster_map).unwrap_or_default();
        if let Some(session) = core.sessions.get_mut(key) {
            session.output.feed(|out| out.extend_from_slice(&map));
            session.output.end_feed();
            core.sessions.enqueue(key);
            core.set_deadline(key, true, None);
        }
        map.len()
    }
}
