//! Etcd, simulated: revisions, comparisons, and a watch that only says that something has changed;
//! and the way of a request to it, on which the answer may be lost, or the request be carried out
//! long after its sender gave it up.

use std::collections::BTreeMap;

use db_node::cluster::etcd::{Answer, Failure, KeyValue, Outcome, Request};

/// When a client gives a request up.
const REQUEST_MS: u64 = 700;

/// How a host reaches etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Fine,
    /// Nothing goes through.
    Away,
    /// Requests arrive, and are carried out, up to so much later.
    Slow(u64),
    /// Requests are carried out, and answers are lost.
    Mute,
}

/// A request that is on its way, or has been carried out.
#[derive(Debug)]
struct Flight {
    host: usize,
    /// The process that asked.
    incarnation: u64,
    ticket: u64,
    request: Request,
    carried_at_ms: u64,
    answered_at_ms: u64,
    given_up_at_ms: u64,
    is_given_up: bool,
    loses_answer: bool,
    answer: Option<Answer>,
}

/// What a host is told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) host: usize,
    pub(super) incarnation: u64,
    pub(super) outcome: Outcome,
}

/// Etcd.
#[derive(Debug)]
pub(super) struct SimEtcd {
    pub(super) cluster_id: u64,
    pub(super) revision: u64,
    pub(super) values: BTreeMap<String, (u64, Vec<u8>)>,
    flights: Vec<Flight>,
    /// States that were in force, for those that trust what is old; the last ones, or all.
    pub(super) past: Vec<BTreeMap<String, (u64, Vec<u8>)>>,
    pub(super) past_max: usize,
    /// No host reaches it.
    pub(super) is_down: bool,
    /// Hosts that are to hear that something has changed, and when.
    pub(super) hints: Vec<(usize, u64)>,
    pub(super) ways: Vec<Way>,
    /// Watches that say nothing.
    pub(super) is_deaf: Vec<bool>,
    pub(super) change_count: u64,
}

impl SimEtcd {
    pub(super) fn new(host_count: usize) -> Self {
        Self {
            cluster_id: 1,
            revision: 1,
            values: BTreeMap::new(),
            flights: Vec::new(),
            past: Vec::new(),
            past_max: 8,
            is_down: false,
            hints: Vec::new(),
            ways: vec![Way::Fine; host_count],
            is_deaf: vec![false; host_count],
            change_count: 0,
        }
    }

    /// A host sends a request.
    pub(super) fn send(
        &mut self,
        (host, incarnation): (usize, u64),
        (ticket, request): (u64, Request),
        now_ms: u64,
        rng: &mut fastrand::Rng,
    ) {
        let way = self.ways[host];
        let delay_ms = match way {
            Way::Slow(max_ms) => rng.u64(1..=max_ms),
            _ => rng.u64(0..6),
        };
        let carried_at_ms = match way {
            _ if self.is_down => u64::MAX,
            Way::Away => u64::MAX,
            _ => now_ms + delay_ms,
        };
        self.flights.push(Flight {
            host,
            incarnation,
            ticket,
            request,
            carried_at_ms,
            answered_at_ms: carried_at_ms.saturating_add(rng.u64(0..6)),
            given_up_at_ms: now_ms + REQUEST_MS,
            is_given_up: false,
            loses_answer: way == Way::Mute,
            answer: None,
        });
    }

    /// A host with a change on its way that it has given up on or waits for.
    pub(super) fn host_of_change(&self) -> Option<usize> {
        let is_change = |flight: &&Flight| {
            let is_write =
                matches!(&flight.request, Request::Write { compares, .. } if !compares.is_empty());
            is_write && flight.answer.is_none()
        };
        self.flights
            .iter()
            .find(is_change)
            .map(|flight| flight.host)
    }

    /// What a host has asked for is carried out at this time.
    pub(super) fn carry_out_at(&mut self, host: usize, at_ms: u64) {
        for flight in self.flights.iter_mut().filter(|flight| flight.host == host) {
            (flight.carried_at_ms, flight.answered_at_ms) = (at_ms, at_ms);
        }
    }

    pub(super) fn put(&mut self, key: &str, value: Vec<u8>) {
        let request = Request::Write {
            compares: Vec::new(),
            puts: vec![(key.to_owned(), value)],
            deletes: Vec::new(),
        };
        self.carry_out(&request);
    }

    /// Stops: what is under way is lost.
    pub(super) fn stop(&mut self) {
        self.is_down = true;
        self.hints.clear();
        for flight in &mut self.flights {
            flight.loses_answer = true;
            if flight.answer.is_none() {
                flight.carried_at_ms = u64::MAX;
            }
        }
    }

    /// Starts again with an earlier state that has this key, as from a backup.
    pub(super) fn go_back(&mut self, key: &str, rng: &mut fastrand::Rng) {
        self.is_down = false;
        self.past.retain(|values| values.contains_key(key));
        if let Some(values) = rng.choice(&self.past) {
            self.values = values.clone();
        }
        let revisions = self.values.values().map(|(revision, _)| *revision);
        self.revision = revisions.max().unwrap_or(1);
    }

    fn carry_out(&mut self, request: &Request) -> Answer {
        match request {
            Request::Range { prefix } => {
                let values = self.values.range(prefix.clone()..);
                let values = values.take_while(|(key, _)| key.starts_with(prefix));
                Answer::Range {
                    cluster_id: self.cluster_id,
                    revision: self.revision,
                    values: values.map(key_value).collect(),
                }
            }
            Request::Write {
                compares,
                puts,
                deletes,
            } => {
                let revision_of = |key: &String| self.values.get(key).map_or(0, |(at, _)| *at);
                if compares.iter().any(|(key, at)| revision_of(key) != *at) {
                    let current = compares
                        .iter()
                        .filter_map(|(key, _)| self.values.get_key_value(key).map(key_value));
                    return Answer::Refused {
                        revision: self.revision,
                        current: current.collect(),
                    };
                }
                self.past.push(self.values.clone());
                if self.past.len() > self.past_max {
                    self.past.remove(0);
                }
                self.revision += 1;
                self.change_count += u64::from(puts.iter().any(|(key, _)| key.ends_with("config")));
                for (key, value) in puts {
                    self.values
                        .insert(key.clone(), (self.revision, value.clone()));
                }
                for key in deletes {
                    self.values.remove(key);
                }
                Answer::Written {
                    revision: self.revision,
                }
            }
        }
    }

    /// Time passes: requests are carried out, and answered or given up.
    pub(super) fn step(&mut self, now_ms: u64, rng: &mut fastrand::Rng) -> Vec<Told> {
        let mut flights = std::mem::take(&mut self.flights);
        flights.sort_by_key(|flight| flight.carried_at_ms);
        let mut told = Vec::new();
        for mut flight in flights {
            if flight.answer.is_none() && flight.carried_at_ms <= now_ms {
                let before = self.revision;
                let mut answer = self.carry_out(&flight.request);
                if let Answer::Range { values, .. } = &mut answer
                    && trusts_what_is_old()
                    && let Some(past) = rng.choice(&self.past)
                {
                    *values = past.iter().map(key_value).collect();
                }
                flight.answer = Some(answer);
                if self.revision != before {
                    for host in (0..self.ways.len()).filter(|host| !self.is_deaf[*host]) {
                        self.hints.push((host, now_ms + rng.u64(0..10)));
                    }
                }
            }
            let of = (flight.host, flight.incarnation, flight.ticket);
            let mut tell = |result| {
                let (host, incarnation, ticket) = of;
                let outcome = Outcome { ticket, result };
                told.push(Told {
                    host,
                    incarnation,
                    outcome,
                });
            };
            let is_answered = flight.answered_at_ms <= now_ms && !flight.loses_answer;
            if let Some(answer) = flight.answer.take_if(|_| is_answered) {
                // The client has closed the connection of what it gave up. What comes late all the
                // same is not to be taken for anything.
                tell(Ok(answer));
                continue;
            }
            if flight.given_up_at_ms <= now_ms && !flight.is_given_up {
                flight.is_given_up = true;
                tell(Err(Failure::TimedOut));
            }
            let is_over = flight.is_given_up && flight.loses_answer && flight.answer.is_some();
            let never_comes = flight.is_given_up && flight.carried_at_ms == u64::MAX;
            if !is_over && !never_comes {
                self.flights.push(flight);
            }
        }
        told
    }

    /// Hosts that hear now that something has changed.
    pub(super) fn take_hints(&mut self, now_ms: u64) -> Vec<usize> {
        let mut due = Vec::new();
        self.hints.retain(|(host, at_ms)| {
            let is_due = *at_ms <= now_ms;
            due.extend(is_due.then_some(*host));
            !is_due
        });
        due
    }
}

fn key_value((key, (mod_revision, value)): (&String, &(u64, Vec<u8>))) -> KeyValue {
    KeyValue {
        key: key.clone(),
        mod_revision: *mod_revision,
        value: value.clone(),
    }
}

/// Whether ranges are answered with what a watch may still tell: an earlier state.
fn trusts_what_is_old() -> bool {
    db_node::seeded_bugs::SeededBug::WatchTrusted.is_on()
}
