//! A controller that names no epochs, under simulation: it tells a replaced leader nothing, changes
//! its mind without looking, and sends its messages at once, so that they come in any order, late,
//! twice or not at all. Nodes crash, come back with or without their data, and are cut off from
//! each other meanwhile.
//!
//! Checked in every step: no node drops a write, since no epoch is a controller's. Whenever a node
//! begins to lead: every confirmed write that a node held which it could reach the whole time is on
//! it, unless its data is of a later epoch: then that node was out of reach when the epoch began.
//! In the end, when all is mended and the controller has said once more what it wants: the node
//! that it named leads, the others follow it, and all confirmed writes that were not lost with
//! every node that held them are there. Where two nodes wrote without knowing of each other, they
//! say so, drop nothing, and an order with an epoch ends it.
//!
//! Seeds begin with one of the sequences of messages that once lost writes, or with none.
//! `DB_NODE_TEST_SEED=n` repeats a run, `DB_NODE_TEST_RUNS=n` does more of them. With the feature
//! `seeded-bugs` the bugs in taking over have to be found.

mod checks;

use std::collections::BTreeMap;

use checks::Seen;
use db_node::lsm::NewValue;
use db_node::partition::{Assignment, Conditions, Wait};
use db_node::storage::Role;

use crate::cluster::{Cluster, Weather, address};
use crate::pending_writes::{PendingWrite, take_confirmed};
use crate::seeds::seeds;
use crate::sim_disk::Fault;

/// How long a client waits for the confirmation of its write.
const ACK_TIMEOUT_MS: u64 = 5_000;

/// A node that asks others what they hold leads, at the latest, so long after they have answered:
/// by then they may have answered another one.
const OVERTAKEN_MS: u64 = 2_000;

/// An order to a node, on its way.
#[derive(Debug)]
struct Message {
    host: usize,
    order: Assignment,
    at_ms: u64,
}

#[derive(Clone, Copy, Debug)]
enum Script {
    None,
    /// The first leader is replaced without being told, and made leader again after that.
    LedAgain,
    /// The leader loses its data, and is made leader again.
    Emptied,
    /// A replica is promoted while it follows a leader that lives.
    PromotedBesideLeader,
}

struct Run {
    cluster: Cluster,
    keeps_data: bool,
    loses_power: bool,
    leader: usize,
    messages: Vec<Message>,
    pending: Vec<PendingWrite>,
    /// Confirmed writes that are not lost.
    confirmed: Vec<Vec<u8>>,
    lost_count: usize,
    seen: BTreeMap<usize, Seen>,
    /// Since when the connection between two nodes is fine.
    fine_since_ms: BTreeMap<(usize, usize), u64>,
    started_ms: Vec<u64>,
    write_count: u64,
    takeover_count: u64,
}

/// Figures about a run, to see that there is something in it.
struct Outcome {
    takeover_count: u64,
    confirmed_count: usize,
    has_parted: bool,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let keeps_data = rng.u8(..3) > 0;
        let loses_power = keeps_data && rng.bool();
        let mut arguments = vec!["--memtable-bytes=64KiB", "--await-assignment"];
        arguments.push(["--wal-retain-bytes=0", "--wal-retain-bytes=1MiB"][rng.usize(..2)]);
        if keeps_data && !loses_power {
            arguments.push("--fsync=never");
        }
        let host_count = rng.usize(3..5);
        let mut cluster = Cluster::new(rng, host_count, keeps_data, &arguments);
        for host in 0..host_count {
            assert!(cluster.start(host));
        }
        Self {
            cluster,
            keeps_data,
            loses_power,
            leader: 0,
            messages: Vec::new(),
            pending: Vec::new(),
            confirmed: Vec::new(),
            lost_count: 0,
            seen: BTreeMap::new(),
            fine_since_ms: BTreeMap::new(),
            started_ms: vec![0; host_count],
            write_count: 0,
            takeover_count: 0,
        }
    }

    fn host_count(&self) -> usize {
        self.cluster.hosts.len()
    }

    fn order(&self, host: usize, leader: usize, epoch: Option<u64>) -> Assignment {
        let is_leader = host == leader;
        let others = (0..self.host_count()).filter(|other| *other != host);
        Assignment {
            role: if is_leader {
                Role::Leader
            } else {
                Role::Replica
            },
            epoch,
            leader: (!is_leader).then(|| address(leader)),
            peers: if is_leader {
                others.map(address).collect()
            } else {
                Vec::new()
            },
        }
    }

    /// The controller makes a node the leader. It tells all but some, in any order.
    fn make_leader(&mut self, leader: usize, untold: Option<usize>, max_delay_ms: u64) {
        log::debug!(
            "{}: node {leader} is to lead, untold: {untold:?}",
            self.cluster.now_ms
        );
        self.leader = leader;
        for host in (0..self.host_count()).filter(|host| Some(*host) != untold) {
            let order = self.order(host, leader, None);
            let at_ms = self.cluster.now_ms + self.cluster.rng.u64(..=max_delay_ms);
            self.messages.push(Message { host, order, at_ms });
        }
    }

    fn deliver(&mut self) {
        let now_ms = self.cluster.now_ms;
        while let Some(at) = self
            .messages
            .iter()
            .position(|message| message.at_ms <= now_ms)
        {
            let Message { host, order, .. } = self.messages.swap_remove(at);
            if let Some(node) = self.cluster.node(host) {
                log::debug!(
                    "{now_ms}: node {host} is told: {:?} {:?}",
                    order.role,
                    order.leader
                );
                // Refused while the node loads, or where a role was taken.
                let _ = node.assign(0, order);
            }
        }
    }

    fn set_weather(&mut self, a: usize, b: usize, weather: Weather) {
        self.cluster.set_weather(a, b, weather);
        let since_ms = if weather == Weather::Fine {
            self.cluster.now_ms
        } else {
            u64::MAX
        };
        let pair = (a.min(b), a.max(b));
        let is_fine = self
            .fine_since_ms
            .get(&pair)
            .is_none_or(|since_ms| *since_ms < u64::MAX);
        if weather != Weather::Fine || !is_fine {
            self.fine_since_ms.insert(pair, since_ms);
        }
    }

    /// Whether a node could be reached from another all the time since some moment, with time to
    /// spare.
    fn is_reached(&mut self, from: usize, to: usize, since_ms: u64) -> bool {
        let pair = (from.min(to), from.max(to));
        let fine_since_ms = self.fine_since_ms.get(&pair).copied().unwrap_or(0);
        from != to
            && self.cluster.hosts[to].process.is_some()
            && fine_since_ms <= since_ms
            && self.started_ms[to] <= since_ms
    }

    fn crash(&mut self, host: usize, with_power: bool) {
        self.cluster.crash(host, with_power);
        if !self.keeps_data {
            // What only this node still held is gone with it.
            let confirmed = std::mem::take(&mut self.confirmed);
            for key in confirmed {
                if (0..self.host_count()).any(|host| self.holds(host, &key)) {
                    self.confirmed.push(key);
                } else {
                    self.lost_count += 1;
                }
            }
        }
    }

    fn start(&mut self, host: usize) {
        if self.cluster.hosts[host].process.is_none() && self.cluster.start(host) {
            self.started_ms[host] = self.cluster.now_ms;
            // A node that comes back is told what the controller believes.
            let order = self.order(host, self.leader, None);
            let at_ms = self.cluster.now_ms + self.cluster.rng.u64(..2_000);
            self.messages.push(Message { host, order, at_ms });
        }
    }

    fn step(&mut self, is_stormy: bool) {
        let passed_ms = if self.cluster.chance(30) {
            self.cluster.rng.u64(..2_000)
        } else {
            self.cluster.rng.u64(1..20)
        };
        self.cluster.step(passed_ms);
        self.deliver();
        if is_stormy {
            self.storm();
            for _ in 0..self.cluster.rng.usize(..4) {
                self.write();
            }
        }
        self.note_acks();
        self.check();
    }

    fn storm(&mut self) {
        let (a, b) = (self.cluster.any_host(), self.cluster.any_host());
        if a != b && self.cluster.chance(40) {
            let weather = match self.cluster.rng.u8(..6) {
                0 => Weather::Slow(self.cluster.rng.usize(1..2_000)),
                1 => Weather::Stalled,
                2 => Weather::Cut,
                _ => Weather::Fine,
            };
            self.set_weather(a, b, weather);
        }
        if self.cluster.chance(80) {
            let with_power = self.loses_power && self.cluster.rng.bool();
            let disks = self.cluster.hosts[a]
                .disks
                .clone()
                .filter(|_| with_power && b > 0);
            match disks {
                Some(disks) => {
                    let after = self.cluster.rng.u64(..40);
                    disks
                        .all()
                        .iter()
                        .for_each(|disk| disk.fail_after(after, Fault::PowerCut));
                }
                None => self.crash(a, with_power),
            }
        }
        if self.cluster.chance(15) {
            self.start(b);
        }
        if self.cluster.chance(100) {
            // The real controller tells a replaced leader nothing.
            let untold = Some(self.leader).filter(|_| self.cluster.rng.bool());
            let delay_ms = [0, 50, 3_000][self.cluster.rng.usize(..3)];
            self.make_leader(a, untold, delay_ms);
        }
        if self.cluster.chance(300) && !self.messages.is_empty() {
            let at = self.cluster.rng.usize(..self.messages.len());
            self.messages.swap_remove(at);
        }
    }

    fn write(&mut self) {
        let host = self.cluster.any_host();
        let incarnation = self.cluster.hosts[host].incarnation;
        let is_confirmed = self.cluster.chance(2);
        let number = self.write_count;
        let (now_ms, short) = (self.cluster.now_ms, self.cluster.rng.u8(..20));
        let value = vec![b'v'; self.cluster.rng.usize(1..300)];
        let Some(partition) = self.cluster.partition(host) else {
            return;
        };
        let roles = partition.roles();
        if roles.role() != Role::Leader
            || !roles.is_settled()
            || partition.write_obstacle().is_some()
        {
            return;
        }
        self.write_count += 1;
        let key = if is_confirmed {
            format!("confirmed-{number}")
        } else {
            format!("key-{short}")
        };
        let key = key.into_bytes();
        let written = partition.set(&key, NewValue::Inline(&value), None, &Conditions::default());
        let version = written.expect("no conditions");
        if is_confirmed {
            let wait = Wait::Acks {
                count: 1,
                generation: partition.leadership_generation(),
            };
            let since_ms = now_ms;
            self.pending.push(PendingWrite {
                host,
                incarnation,
                wait,
                version,
                key,
                since_ms,
            });
        }
    }

    fn note_acks(&mut self) {
        let confirmed = take_confirmed(&mut self.pending, &mut self.cluster, ACK_TIMEOUT_MS);
        let keys = confirmed.into_iter().map(|write| write.key);
        self.confirmed.extend(keys);
    }

    fn holds(&mut self, host: usize, key: &[u8]) -> bool {
        self.cluster
            .partition(host)
            .is_some_and(|partition| partition.get(key).is_some())
    }

    /// Everything is mended, and the controller says once more what it wants; true if two nodes
    /// hold what the other lacks.
    fn settle(&mut self) -> bool {
        for a in 0..self.host_count() {
            for b in 0..a {
                self.set_weather(a, b, Weather::Fine);
            }
        }
        self.messages.clear();
        for host in 0..self.host_count() {
            while self.cluster.hosts[host].process.is_none() {
                self.start(host);
            }
        }
        self.messages.clear();
        let leader = self.leader;
        self.make_leader(leader, None, 200);
        if self.agrees(3_000, None) {
            return false;
        }
        let picture = self.picture();
        assert!(
            ["its data is kept", "cannot lead", "nothing in common"]
                .iter()
                .any(|reason| picture.contains(reason)),
            "the nodes do not agree, and do not say why: {picture}"
        );
        // An order with an epoch ends it: the node with the newest data leads.
        let mut best = (0, 0, 0);
        let mut epoch = 0;
        for host in 0..self.host_count() {
            let partition = self.cluster.partition(host).expect("all are up");
            let meta = partition.roles().meta();
            epoch = epoch.max(meta.epoch);
            best = best.max((meta.data_epoch, partition.lsm().last_version(), host));
        }
        self.leader = best.2;
        for host in 0..self.host_count() {
            let order = self.order(host, self.leader, Some(epoch + 1));
            let node = self.cluster.node(host).expect("all are up");
            node.assign(0, order).expect("a higher epoch");
            self.seen.clear();
        }
        assert!(
            self.agrees(6_000, Some(epoch + 1)),
            "the nodes do not agree: {}",
            self.picture()
        );
        true
    }

    /// Whether the nodes come to agree. `epoch`: of the order that they were given, if it named
    /// one; data may be dropped then.
    fn agrees(&mut self, steps: usize, epoch: Option<u64>) -> bool {
        for _ in 0..steps {
            if epoch.is_none() {
                self.step(false);
            } else {
                let passed_ms = self.cluster.rng.u64(1..200);
                self.cluster.step(passed_ms);
            }
            // A disk that was to fail does so now.
            for host in 0..self.host_count() {
                if self.cluster.hosts[host].process.is_none() && self.cluster.start(host) {
                    self.started_ms[host] = self.cluster.now_ms;
                    let order = self.order(host, self.leader, epoch);
                    let node = self.cluster.node(host).expect("it was started");
                    let _ = node.assign(0, order);
                }
            }
            let leader = self.leader;
            let is_agreed = self.cluster.is_agreed(leader, None);
            if is_agreed && self.messages.is_empty() {
                return true;
            }
        }
        false
    }

    /// Goes on until a condition holds, or for long enough that it will not.
    fn until(&mut self, condition: impl Fn(&mut Self) -> bool) {
        for _ in 0..2_000 {
            self.step(false);
            if condition(self) {
                return;
            }
        }
        panic!("a quiet cluster does not get on: {}", self.picture());
    }

    fn is_led_by(&mut self, leader: usize) -> bool {
        (0..self.host_count()).all(|host| {
            self.cluster.partition(host).is_some_and(|partition| {
                let role = if host == leader {
                    Role::Leader
                } else {
                    Role::Replica
                };
                partition.roles().role() == role && partition.is_in_sync()
            })
        })
    }

    fn write_some(&mut self, host: usize) {
        for number in 0..5 {
            let key = format!("script-{}-{number}", self.write_count).into_bytes();
            let partition = self.cluster.partition(host).expect("it leads");
            let written = partition.set(&key, NewValue::Inline(b"v"), None, &Conditions::default());
            written.expect("no conditions");
            self.confirmed.push(key);
        }
        self.write_count += 1;
    }

    fn play(&mut self, script: Script) {
        if matches!(script, Script::None) {
            return;
        }
        self.make_leader(0, None, 30);
        self.until(|run| run.is_led_by(0));
        self.write_some(0);
        self.until(Self::is_agreed_on_version);
        match script {
            Script::None => {}
            Script::LedAgain => {
                self.make_leader(1, Some(0), 30);
                self.until(|run| run.leads(1));
                self.until(Self::is_agreed_on_version);
                self.write_some(1);
                self.until(Self::is_agreed_on_version);
                self.make_leader(0, None, 30);
                self.until(|run| run.is_led_by(0));
            }
            Script::Emptied => {
                self.crash(0, false);
                if self.keeps_data {
                    self.cluster.hosts[0].disks = Some(crate::cluster::SimDisks::new(7));
                }
                self.start(0);
                self.messages.clear();
                self.seen.remove(&0);
                self.make_leader(0, None, 30);
                self.until(|run| run.is_led_by(0));
            }
            Script::PromotedBesideLeader => {
                self.make_leader(1, Some(0), 0);
                self.until(|run| run.leads(1));
                let old = self.cluster.partition(0).expect("it is up");
                assert_ne!(old.roles().role(), Role::Leader, "the old leader goes on");
            }
        }
        for key in self.confirmed.clone() {
            let leader = self.leader;
            assert!(
                self.holds(leader, &key),
                "{}",
                String::from_utf8_lossy(&key)
            );
        }
    }

    fn leads(&mut self, host: usize) -> bool {
        self.cluster.partition(host).is_some_and(|partition| {
            partition.roles().role() == Role::Leader && partition.roles().is_settled()
        })
    }

    fn is_agreed_on_version(&mut self) -> bool {
        let versions: Vec<u64> = (0..self.host_count())
            .filter_map(|host| Some(self.cluster.partition(host)?.lsm().last_version()))
            .collect();
        versions.iter().all(|version| *version == versions[0])
    }
}

fn run(seed: u64) -> Outcome {
    let mut run = Run::new(seed);
    let scripts = [
        Script::None,
        Script::LedAgain,
        Script::Emptied,
        Script::PromotedBesideLeader,
    ];
    let script = scripts[run.cluster.rng.usize(..scripts.len())];
    run.play(script);
    if run.messages.is_empty() {
        run.make_leader(0, None, 50);
    }
    let steps = run.cluster.rng.usize(100..600);
    for _ in 0..steps {
        run.step(true);
    }
    let has_parted = run.settle();
    let leader = run.leader;
    let confirmed = std::mem::take(&mut run.confirmed);
    for key in &confirmed {
        let key_text = String::from_utf8_lossy(key);
        let is_there = run.holds(leader, key);
        assert!(
            is_there || has_parted,
            "{key_text} was confirmed and is lost: {}",
            run.picture()
        );
    }
    Outcome {
        takeover_count: run.takeover_count,
        confirmed_count: confirmed.len(),
        has_parted,
    }
}

#[test]
fn a_clumsy_controller_loses_nothing_that_a_node_in_reach_held() {
    let mut run_count = 0;
    let (mut takeover_count, mut confirmed_count, mut parted_count) = (0, 0, 0);
    for seed in seeds(1_000) {
        let outcome = run(seed.0);
        run_count += 1;
        takeover_count += outcome.takeover_count;
        confirmed_count += outcome.confirmed_count;
        parted_count += usize::from(outcome.has_parted);
    }
    eprintln!(
        "{run_count} runs, {takeover_count} takeovers, {confirmed_count} confirmed writes, \
         {parted_count} runs in which data parted"
    );
    // A simulation in which nothing happens proves nothing.
    assert!(
        run_count < 100
            || (takeover_count > 2 * run_count as u64
                && confirmed_count > 5 * run_count
                && parted_count < run_count / 2)
    );
}

#[test]
#[cfg(feature = "seeded-bugs")]
fn every_bug_in_taking_over_is_found() {
    use db_node::seeded_bugs::SeededBug;

    let bugs = SeededBug::ALL.into_iter();
    let sought = bugs.filter(|bug| bug.is_of_takeover());
    crate::seeded_bugs::assert_found(sought, 20_000, |seed| {
        run(seed);
    });
}
