//! Watchers' connections: state them what concerns them, and when their time is over.
//!
//! Not here: which watcher is told of what (`node/watches.rs`), how it looks
//! (`api/body/change_stream.rs`).

use std::collections::BTreeMap;

use crate::api::{FeedRequest, WatchForm};
use crate::node::{WatchProgress, Watches};
use crate::storage::VersionToken;

use super::core::Core;
use super::limits::WATCH_WORK_BYTES;
use super::map_polls::MapPolls;
use super::timers::Millis;

/// Time between keep-alives of an event stream: proxies cut silent connections.
const KEEP_ALIVE_MS: Millis = 15_000;

/// What state one watcher costs beside the bytes: finding its place in the log, and a visit.
const SEND_WORK_BYTES: usize = 1024;

/// Bytes of log that are searched for the cost of one byte of text.
const LOOKED_PER_WORK_BYTE: usize = 4;

/// A watch searches at least this much of the log, or all of it, however short its time-out is: so
/// polls with a time-out of 0 make progress through changes of other keys.
const LOOKED_MIN_BYTES: usize = 1024 * 1024;

/// The state of a watch.
#[derive(Debug)]
struct WatchConnection {
    form: WatchForm,
    /// When its time is over.
    until: Option<Millis>,
    /// Its time is over, and it has not searched enough of the log.
    is_overdue: bool,
    /// When the next keep-alive is due.
    keep_alive_at: Millis,
    /// The position up to which it was sent all changes, as last computed.
    position: VersionToken,
    /// Bytes of log that were searched for it.
    looked_bytes: usize,
}

impl WatchConnection {
    /// When it ends or gets a keep-alive, if there is no change before.
    fn deadline(&self) -> Millis {
        let until = match self.until {
            // An overdue watch ends once it has searched enough of the log.
            Some(until) if !self.is_overdue => until,
            _ => Millis::MAX,
        };
        match self.form {
            WatchForm::LongPoll => until,
            WatchForm::Events => until.min(self.keep_alive_at),
        }
    }

    /// The deadline has come: true if its time is over; else renders a keep-alive.
    fn time_out(&mut self, now: Millis, out: &mut Vec<u8>) -> bool {
        let is_over = self.until.is_some_and(|until| until <= now);
        if !is_over {
            self.form.keep_alive(self.position, out);
            self.keep_alive_at = now + KEEP_ALIVE_MS;
        }
        is_over
    }
}

/// All watches.
#[derive(Debug, Default)]
pub(super) struct Watching {
    watches: Watches,
    states: BTreeMap<usize, WatchConnection>,
    map_polls: MapPolls,
    /// There is more log to search.
    is_behind: bool,
}

impl Watching {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.states.len() + self.map_polls.count()
    }

    /// Whether there is something to do now.
    pub(super) fn is_busy(&self) -> bool {
        self.is_behind || self.watches.is_due() || self.map_polls.is_behind()
    }

    /// The deadline of the watch on a connection, if there is one.
    pub(super) fn deadline_of(&self, key: usize) -> Option<Millis> {
        let state = self.states.get(&key).map(WatchConnection::deadline);
        state.or_else(|| self.map_polls.deadline_of(key))
    }

    /// A connection is closed.
    pub(super) fn forget(&mut self, key: usize) {
        if self.states.remove(&key).is_some() {
            self.watches.leave(key);
        } else {
            self.map_polls.forget(key);
        }
    }

    /// Begins a watch.
    pub(super) fn begin(&mut self, core: &mut Core, key: usize, request: FeedRequest) {
        let request = match request {
            FeedRequest::Changes(request) => request,
            FeedRequest::Map(poll) => return self.map_polls.begin(key, poll, core.clock.now),
        };
        let Some(partition) = core.node.look_at(request.partition) else {
            core.sessions.close(key);
            return;
        };
        let now = core.clock.now;
        let connection = WatchConnection {
            form: request.form,
            until: request.timeout_ms.map(|ms| now.saturating_add(ms)),
            is_overdue: false,
            keep_alive_at: now + KEEP_ALIVE_MS,
            position: request.position,
            looked_bytes: 0,
        };
        self.states.insert(key, connection);
        let version = request.position.version;
        self.watches.enter(key, partition, request.prefix, version);
    }

    /// Sends what was committed to the watches that it concerns, a bounded amount.
    pub(super) fn send_all(&mut self, core: &mut Core) {
        self.map_polls.answer_all(core);
        if self.watches.is_empty() {
            return;
        }
        self.is_behind = false;
        for id in self.watches.partitions() {
            match core.node.look_at(id) {
                Some(partition) => self.is_behind |= self.watches.look(partition),
                None => self.watches.cut(id),
            }
        }
        let mut left = WATCH_WORK_BYTES;
        while left > 0 {
            let Some(key) = self.watches.take_due() else {
                break;
            };
            left = left.saturating_sub(self.send(core, key));
        }
    }

    /// Sends to one watch; returns the work.
    fn send(&mut self, core: &mut Core, key: usize) -> usize {
        let (watches, states) = (&mut self.watches, &mut self.states);
        let (Some(session), Some(state)) = (core.sessions.get_mut(key), states.get_mut(&key))
        else {
            return 0;
        };
        if session.has_unsent() {
            // It comes again once the client has read what was sent.
            return 0;
        }
        let partition = watches
            .partition_of(key)
            .and_then(|id| core.node.look_at(id));
        let (form, mut count) = (state.form, 0);
        let progress = session
            .output
            .feed(|out| {
                let partition = partition?;
                Some(watches.read(key, partition, |record| {
                    let token = partition.token_of(record.position().version);
                    count += 1;
                    form.change(record, token, count - 1, out)
                }))
            })
            .flatten();
        if count > 0 {
            state.keep_alive_at = core.clock.now + KEEP_ALIVE_MS;
        }
        state.looked_bytes += watches.looked_bytes();
        let work = SEND_WORK_BYTES
            + session.unsent_bytes()
            + watches.looked_bytes() / LOOKED_PER_WORK_BYTE;
        let has_read_enough =
            progress == Some(WatchProgress::All) || state.looked_bytes >= LOOKED_MIN_BYTES;
        let is_over =
            form == WatchForm::LongPoll && count > 0 || state.is_overdue && has_read_enough;
        match progress {
            None | Some(WatchProgress::Cut) => {
                // A body without its end tells the client that it was cut off.
                core.sessions.close(key);
                return work;
            }
            Some(WatchProgress::More | WatchProgress::All) if is_over => self.end(core, key),
            // An empty answer is sent when its time is over.
            Some(WatchProgress::More | WatchProgress::All) => {}
        }
        self.go_on(core, key);
        work
    }

    /// Updates the position of a watch.
    fn find_position(&mut self, core: &Core, key: usize) {
        let (watches, states) = (&mut self.watches, &mut self.states);
        let position = watches
            .partition_of(key)
            .and_then(|id| core.node.look_at(id))
            .and_then(|partition| watches.position_of(key, partition));
        if let (Some(state), Some(position)) = (states.get_mut(&key), position) {
            state.position = position;
        }
    }

    /// Ends a watch.
    fn end(&mut self, core: &mut Core, key: usize) {
        self.find_position(core, key);
        let (Some(session), Some(state)) = (core.sessions.get_mut(key), self.states.get(&key))
        else {
            return;
        };
        session
            .output
            .feed(|out| state.form.end(state.position, out));
        session.output.end_feed();
        self.forget(key);
    }

    /// Has the session visited, after text was added or the deadline has changed.
    fn go_on(&self, core: &mut Core, key: usize) {
        if core.sessions.get_mut(key).is_some() {
            core.sessions.enqueue(key);
            // Its deadline was that of a watch with nothing unsent, and may come up in this turn.
            let until = self.deadline_of(key);
            core.set_deadline(key, true, until);
        }
    }

    /// All text of a watch is sent: there may be more for it.
    pub(super) fn on_drained(&mut self, key: usize) {
        self.watches.list(key);
    }

    /// The deadline of a watch has come: it ends, or gets a keep-alive.
    pub(super) fn time_out(&mut self, core: &mut Core, key: usize) {
        let now = core.clock.now;
        if self.map_polls.time_out(core, key) {
            return self.go_on(core, key);
        }
        self.find_position(core, key);
        let rests = self.watches.rests(key);
        let (Some(session), Some(state)) = (core.sessions.get_mut(key), self.states.get_mut(&key))
        else {
            return;
        };
        if session.output.feed(|out| state.time_out(now, out)) == Some(true) {
            if rests || state.looked_bytes >= LOOKED_MIN_BYTES {
                self.end(core, key);
            } else {
                state.is_overdue = true;
            }
        }
        self.go_on(core, key);
    }

    /// Ends all watches: the node stops.
    pub(super) fn end_all(&mut self, core: &mut Core) {
        self.map_polls.end_all(core);
        for key in self.states.keys().copied().collect::<Vec<_>>() {
            self.end(core, key);
            self.go_on(core, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{HistoryId, Lineage};

    fn state(form: WatchForm, until: Option<Millis>) -> WatchConnection {
        let position = Lineage::new(HistoryId([0xab; 16])).token_of(7);
        WatchConnection {
            form,
            until,
            is_overdue: false,
            keep_alive_at: 100 + KEEP_ALIVE_MS,
            position,
            looked_bytes: 0,
        }
    }

    /// What it hears at its next deadlines, until its time is over or some are past; and when.
    fn heard(mut state: WatchConnection) -> Vec<(Millis, String)> {
        let mut heard = Vec::new();
        for _ in 0..3 {
            let (now, mut out) = (state.deadline(), Vec::new());
            let is_over = state.time_out(now, &mut out);
            heard.push((now, String::from_utf8(out).expect("text")));
            if is_over {
                break;
            }
        }
        heard
    }

    #[test]
    fn a_listener_hears_how_far_it_is_every_15_seconds() {
        let said = |at, text: &str| (at, text.to_owned());
        let sign = "id: 7-abababab\n\n";
        let signs = [15_100, 30_100, 45_100].map(|at| said(at, sign));
        assert_eq!(heard(state(WatchForm::Events, None)), signs);
        let timed = state(WatchForm::Events, Some(20_000));
        assert_eq!(heard(timed), [said(15_100, sign), said(20_000, "")]);
        // What is in one answer has nothing to be said in between.
        assert_eq!(
            heard(state(WatchForm::LongPoll, Some(60_000))),
            [said(60_000, "")]
        );
    }
}
