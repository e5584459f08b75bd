//! Clients: what they ask of nodes, and what they are told.

use db_node::lsm::{NewValue, Value};
use db_node::partition::{Conditions, Wait, WaitProgress};
use db_node::storage::HistoryId;

use super::register::Operation;
use super::{ACK_TIMEOUT_MS, KEY_COUNT, Run};

/// A key that is written once and then deleted.
#[derive(Debug, Default)]
pub(super) struct OnceKey {
    pub(super) number: u64,
    /// When its write was acknowledged.
    pub(super) written_ms: Option<u64>,
    /// The number of its deletion among the values.
    pub(super) deletion: Option<u64>,
}

impl OnceKey {
    fn name(&self) -> Vec<u8> {
        format!("once-{}", self.number).into_bytes()
    }
}

/// A write or a read with an answer that waits.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) host: usize,
    pub(super) incarnation: u64,
    pub(super) wait: Wait,
    pub(super) number: u64,
    pub(super) key: Vec<u8>,
    /// Where in the key's operations it is.
    pub(super) at: usize,
    /// The history and the version of a write.
    pub(super) written: Option<(HistoryId, u64)>,
    pub(super) since_ms: u64,
}

/// A read that was carried out, and not answered yet.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) host: usize,
    pub(super) incarnation: u64,
    pub(super) lease_end_ms: u64,
    pub(super) gate: Option<(Wait, u64)>,
    pub(super) key: Vec<u8>,
    pub(super) value: u64,
    pub(super) since_ms: u64,
}

fn number_of(value: Value<'_>) -> u64 {
    let Value::Inline(value) = value else {
        panic!("values are short");
    };
    let text = str::from_utf8(value).expect("they are numbers");
    text.parse().expect("they are numbers")
}

impl Run {
    /// A client writes to a node that thinks that it leads.
    pub(super) fn write(&mut self) {
        let host = self.cluster.any_host();
        let now_ms = self.cluster.now_ms;
        let incarnation = self.cluster.hosts[host].incarnation;
        if !self.is_open(host, true) {
            return;
        }
        let mut key = vec![b'a' + self.cluster.rng.u8(..KEY_COUNT)];
        let value = self.next_value;
        let is_once = self.cluster.chance(20);
        let is_deletion = is_once && self.once.written_ms.is_some();
        if is_once {
            let is_begun = self.once.written_ms.is_some();
            if self.once.deletion.is_some() || !is_begun {
                let next = OnceKey {
                    number: self.once.number + 1,
                    ..OnceKey::default()
                };
                self.once_before = std::mem::replace(&mut self.once, next);
            }
            key = self.once.name();
        }
        let is_deletion = is_deletion && self.once.written_ms.is_some();
        let Some(partition) = self.partition(host) else {
            return;
        };
        let epoch = partition.roles().meta().epoch;
        let text = value.to_string();
        let new = NewValue::Inline(text.as_bytes());
        let none = Conditions::default();
        let version = if is_deletion {
            partition.delete(&key, &none).expect("no conditions")
        } else {
            partition.set(&key, new, None, &none).ok()
        };
        // This node may not have it yet: then nothing is deleted.
        let Some(version) = version else { return };
        let (history, generation) = (partition.history(), partition.leadership_generation());
        let first = *self.leader_of_epoch.entry(epoch).or_insert(host);
        assert_eq!(first, host, "two nodes took writes in epoch {epoch}");
        self.next_value += 1;
        if is_deletion {
            self.once.deletion = Some(value);
        }
        let operations = self.operations.entry(key.clone()).or_default();
        operations.push(Operation {
            is_write: true,
            value,
            start: now_ms,
            end: u64::MAX,
        });
        self.pending.push(Pending {
            host,
            incarnation,
            wait: Wait::Acks {
                count: 0,
                generation,
            },
            number: version,
            at: operations.len() - 1,
            key,
            written: Some((history, version)),
            since_ms: now_ms,
        });
    }

    /// A client reads at a node that thinks that it leads. The node may stand still before it has
    /// answered.
    pub(super) fn read(&mut self) {
        let host = self.cluster.any_host();
        let now_ms = self.cluster.now_ms;
        let incarnation = self.cluster.hosts[host].incarnation;
        if !self.is_open(host, false) {
            return;
        }
        let mut key = vec![b'a' + self.cluster.rng.u8(..KEY_COUNT)];
        let is_once = self.cluster.chance(4);
        let once = if self.cluster.rng.bool() {
            &self.once
        } else {
            &self.once_before
        };
        if is_once {
            key = once.name();
        }
        let deletion = (is_once, once.written_ms, once.deletion);
        let stands_still =
            self.cluster.chance(self.mix.pause.saturating_mul(2)) && self.witness != Some(host);
        let Some(partition) = self.partition(host) else {
            return;
        };
        let found = partition.get(&key);
        let (value, version) = match found {
            Some(entry) => (number_of(entry.value), Some(entry.version)),
            // It was there, and acknowledged: only its deletion can be seen.
            None => match deletion {
                (true, Some(_), Some(deletion)) => (deletion, None),
                _ => (0, None),
            },
        };
        let gate = partition.read_gate(0, version);
        let unanswered = Unanswered {
            host,
            incarnation,
            lease_end_ms: partition.lease_end_ms(),
            gate: gate.map(|number| (partition.read_wait(0), number)),
            key,
            value,
            since_ms: now_ms,
        };
        self.unanswered.push(unanswered);
        if stands_still {
            let ms = self.cluster.rng.u64(1..6_000);
            self.cluster.hosts[host].paused_until_ms = now_ms + ms;
        }
    }

    /// Before the answers of a turn leave, the clock is looked at.
    pub(super) fn answer_reads(&mut self) {
        let now_ms = self.cluster.now_ms;
        for at in (0..self.unanswered.len()).rev() {
            let host = self.unanswered[at].host;
            let is_same = self.cluster.hosts[host].incarnation == self.unanswered[at].incarnation;
            if is_same && !self.is_running(host) {
                continue;
            }
            let read = self.unanswered.swap_remove(at);
            if !is_same || self.clock_of(host) >= read.lease_end_ms {
                continue;
            }
            let operations = self.operations.entry(read.key.clone()).or_default();
            operations.push(Operation {
                is_write: false,
                value: read.value,
                start: read.since_ms,
                end: now_ms,
            });
            let Some((wait, number)) = read.gate else {
                self.read_count += 1;
                continue;
            };
            // It is not answered yet: the client knows nothing.
            let at = operations.len() - 1;
            operations[at].end = u64::MAX;
            self.pending.push(Pending {
                host,
                incarnation: read.incarnation,
                wait,
                number,
                at,
                key: read.key,
                written: None,
                since_ms: read.since_ms,
            });
        }
    }

    pub(super) fn note_answers(&mut self) {
        let now_ms = self.cluster.now_ms;
        for at in (0..self.pending.len()).rev() {
            let one = &self.pending[at];
            let (host, wait) = (one.host, one.wait);
            let is_same = self.cluster.hosts[host].incarnation == one.incarnation;
            let is_in_time = now_ms - one.since_ms < ACK_TIMEOUT_MS;
            if is_same && is_in_time && self.cluster.is_paused(host) {
                continue;
            }
            let node = self.cluster.node(host).filter(|_| is_same && is_in_time);
            let progress = node.map_or(WaitProgress::Never, |node| node.wait_progress(0, wait));
            match progress {
                WaitProgress::UpTo(reached) if reached < self.pending[at].number => {}
                WaitProgress::UpTo(_) => {
                    let one = self.pending.swap_remove(at);
                    let operations = self.operations.get_mut(&one.key).expect("its own");
                    operations[one.at].end = now_ms;
                    match one.written {
                        Some((history, version)) => {
                            if one.key == self.once.name() {
                                self.once.written_ms.get_or_insert(now_ms);
                            }
                            let newest = self.acked.entry(history.0).or_default();
                            *newest = version.max(*newest);
                            self.acked_count += 1;
                        }
                        None => self.read_count += 1,
                    }
                }
                WaitProgress::Never => drop(self.pending.swap_remove(at)),
            }
        }
    }
}
