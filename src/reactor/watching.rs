//! Watchers' connections: telling them what concerns them, and when their time is over.
//!
//! Not here: which watcher is told of what (`node/watches.rs`), how it looks
//! (`api/body/change_stream.rs`).

use std::collections::BTreeMap;

use crate::api::{WatchForm, WatchRequest};
use crate::node::{WatchProgress, Watches};
use crate::storage::VersionToken;

use super::core::Core;
use super::limits::TOLD_WORK_BYTES;
use super::timers::Millis;

/// A listener hears something at least so often: proxies cut connections that say nothing.
const SIGN_OF_LIFE_MS: Millis = 15_000;

/// What telling one watcher costs beside the bytes: finding its place in the log, and a visit.
const TELL_WORK_BYTES: usize = 1024;

/// Bytes of log looked through for the price of one that is rendered.
const LOOKED_PER_WORK_BYTE: usize = 4;

/// A watcher reads so much of the log, or all of it, however short its time is: polls that do not
/// wait get on through what is written to keys of others.
const LOOKED_MIN_BYTES: usize = 1024 * 1024;

/// What is known of a watcher's connection.
#[derive(Debug)]
struct Telling {
    form: WatchForm,
    /// When it has heard enough.
    until: Option<Millis>,
    /// Its time is over, and it still has to read.
    is_overdue: bool,
    /// When it is to hear a sign of life.
    silent_until: Millis,
    /// It has been told of everything up to here, as last found out.
    position: VersionToken,
    /// Log that was read for it.
    looked_bytes: usize,
}

impl Telling {
    fn new(form: WatchForm, until: Option<Millis>, position: VersionToken, now: Millis) -> Self {
        Self {
            form,
            until,
            is_overdue: false,
            silent_until: now + SIGN_OF_LIFE_MS,
            position,
            looked_bytes: 0,
        }
    }

    /// When it is to hear from us, having been told everything.
    fn deadline(&self) -> Millis {
        let until = match self.until {
            // It ends once it has read enough.
            Some(until) if !self.is_overdue => until,
            _ => Millis::MAX,
        };
        match self.form {
            WatchForm::LongPoll => until,
            WatchForm::Events => until.min(self.silent_until),
        }
    }

    /// The deadline has come: true if its time is over; it hears a sign of life otherwise.
    fn time_out(&mut self, now: Millis, out: &mut Vec<u8>) -> bool {
        let is_over = self.until.is_some_and(|until| until <= now);
        if !is_over {
            self.form.sign_of_life(self.position, out);
            self.silent_until = now + SIGN_OF_LIFE_MS;
        }
        is_over
    }
}

/// The watchers and their connections.
#[derive(Debug, Default)]
pub(super) struct Watching {
    watches: Watches,
    tellings: BTreeMap<usize, Telling>,
    /// There is more of the log to look at.
    is_behind: bool,
}

impl Watching {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.tellings.len()
    }

    /// Whether there is something to do now.
    pub(super) fn is_busy(&self) -> bool {
        self.is_behind || self.watches.is_due()
    }

    /// When a watcher that was told everything is to hear from us.
    pub(super) fn deadline_of(&self, key: usize) -> Option<Millis> {
        self.tellings.get(&key).map(Telling::deadline)
    }

    /// A connection is closed.
    pub(super) fn forget(&mut self, key: usize) {
        if self.tellings.remove(&key).is_some() {
            self.watches.leave(key);
        }
    }
}

impl Watching {
    /// A request is to be told of changes from now on.
    pub(super) fn begin(&mut self, core: &mut Core, key: usize, request: WatchRequest) {
        let WatchRequest {
            partition,
            prefix,
            position,
            form,
            timeout_ms,
        } = request;
        let Some(partition) = core.node.look_at(partition) else {
            core.sessions.close(key);
            return;
        };
        let now = core.clock.now();
        let until = timeout_ms.map(|ms| now.saturating_add(ms));
        self.tellings
            .insert(key, Telling::new(form, until, position, now));
        let version = position.version;
        self.watches.enter(key, partition, prefix, version);
    }

    /// Tells watchers of what was committed.
    pub(super) fn tell_all(&mut self, core: &mut Core) {
        if self.watches.is_empty() {
            return;
        }
        self.is_behind = false;
        for id in self.watches.partitions() {
            match core.node.look_at(id) {
                Some(partition) => {
                    self.is_behind |= self.watches.look(partition);
                }
                None => self.watches.cut(id),
            }
        }
        let mut left = TOLD_WORK_BYTES;
        while left > 0 {
            let Some(key) = self.watches.take_due() else {
                break;
            };
            left = left.saturating_sub(self.tell(core, key));
        }
    }

    /// Tells one watcher what there is for it; returns the work.
    fn tell(&mut self, core: &mut Core, key: usize) -> usize {
        let Watching {
            watches, tellings, ..
        } = self;
        let (Some(session), Some(telling)) = (core.sessions.get_mut(key), tellings.get_mut(&key))
        else {
            return 0;
        };
        if session.has_unsent() {
            // Once it has read what it was told it is asked again.
            return 0;
        }
        let partition = watches
            .partition_of(key)
            .and_then(|id| core.node.look_at(id));
        let (form, mut count) = (telling.form, 0);
        let told = session
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
            telling.silent_until = core.clock.now() + SIGN_OF_LIFE_MS;
        }
        telling.looked_bytes += watches.looked_bytes();
        let work = TELL_WORK_BYTES
            + session.unsent_bytes()
            + watches.looked_bytes() / LOOKED_PER_WORK_BYTE;
        let has_read_enough =
            told == Some(WatchProgress::All) || telling.looked_bytes >= LOOKED_MIN_BYTES;
        let is_over =
            form == WatchForm::LongPoll && count > 0 || telling.is_overdue && has_read_enough;
        match told {
            None | Some(WatchProgress::Cut) => {
                // A body without its end tells the client that it was cut off.
                core.sessions.close(key);
                return work;
            }
            Some(WatchProgress::More | WatchProgress::All) if is_over => self.end(core, key),
            // An empty answer goes when its time is over.
            Some(WatchProgress::More | WatchProgress::All) => {}
        }
        self.go_on(core, key);
        work
    }

    /// Brings up to date how far a watcher has heard.
    fn find_position(&mut self, core: &Core, key: usize) {
        let Watching {
            watches, tellings, ..
        } = self;
        let position = watches
            .partition_of(key)
            .and_then(|id| core.node.look_at(id))
            .and_then(|partition| watches.position_of(key, partition));
        if let (Some(telling), Some(position)) = (tellings.get_mut(&key), position) {
            telling.position = position;
        }
    }

    /// The answer is whole.
    fn end(&mut self, core: &mut Core, key: usize) {
        self.find_position(core, key);
        let (Some(session), Some(telling)) = (core.sessions.get_mut(key), self.tellings.get(&key))
        else {
            return;
        };
        session.feed(|out| telling.form.end(telling.position, out));
        session.end_feed();
        self.forget(key);
    }

    /// Something was fed, or a deadline has changed.
    fn go_on(&self, core: &mut Core, key: usize) {
        if core.sessions.get_mut(key).is_some() {
            core.sessions.enqueue(key);
            // The deadline was that of a watcher with nothing to read, and may come up in this very
            // turn.
            let (until, now) = (self.deadline_of(key), core.clock.now());
            core.sessions.set_deadline(key, true, until, now);
        }
    }

    /// A watcher was sent all it was told: there may be more for it.
    pub(super) fn on_drained(&mut self, key: usize) {
        self.watches.list(key);
    }

    /// The time of a watcher that was told everything is over, or it is to hear a sign of life.
    pub(super) fn time_out(&mut self, core: &mut Core, key: usize) {
        let now = core.clock.now();
        self.find_position(core, key);
        let rests = self.watches.rests(key);
        let (Some(session), Some(telling)) =
            (core.sessions.get_mut(key), self.tellings.get_mut(&key))
        else {
            return;
        };
        if session.feed(|out| telling.time_out(now, out)) == Some(true) {
            if rests || telling.looked_bytes >= LOOKED_MIN_BYTES {
                self.end(core, key);
            } else {
                telling.is_overdue = true;
            }
        }
        self.go_on(core, key);
    }

    /// The node stops: all answers end.
    pub(super) fn end_all(&mut self, core: &mut Core) {
        for key in self.tellings.keys().copied().collect::<Vec<_>>() {
            self.end(core, key);
            self.go_on(core, key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{HistoryId, Lineage};

    fn telling(form: WatchForm, until: Option<Millis>) -> Telling {
        let position = Lineage::new(HistoryId([0xab; 16])).token_of(7);
        Telling::new(form, until, position, 100)
    }

    /// What it hears at its next deadlines, until its time is over or some are past; and when.
    fn heard(mut telling: Telling) -> Vec<(Millis, String)> {
        let mut heard = Vec::new();
        for _ in 0..3 {
            let (now, mut out) = (telling.deadline(), Vec::new());
            let is_over = telling.time_out(now, &mut out);
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
        assert_eq!(heard(telling(WatchForm::Events, None)), signs);
        let timed = telling(WatchForm::Events, Some(20_000));
        assert_eq!(heard(timed), [said(15_100, sign), said(20_000, "")]);
        // What is in one answer has nothing to be said in between.
        assert_eq!(
            heard(telling(WatchForm::LongPoll, Some(60_000))),
            [said(60_000, "")]
        );
    }
}
