//! Replication under simulation: leaders, replicas and a controller, with a network that stalls,
//! slows and cuts, and nodes that are killed, lose their power, and come back with their data or
//! without.
//!
//! Checked in every step: at most one leader takes writes in an epoch; no replica follows a leader
//! of a lower epoch than its own, or has what its leader's disk does not; no node gives up data but
//! for a higher epoch, and never for an empty leader; what was said to be on disk is there after a
//! power cut; a reader that says what it has seen never sees less; a leader that all replicas have
//! left, and that was not told, answers no read of what is acknowledged. At each promotion, and
//! in the end: every write that replicas had confirmed is there, and so is everything that a read
//! of what is acknowledged has shown. In the end, when all is mended: all nodes hold exactly what
//! their history says.
//!
//! `DB_NODE_TEST_SEED=n` repeats a run, `DB_NODE_TEST_RUNS=n` does more of them. With the feature
//! `seeded-bugs` each of the bugs in `src/seeded_bugs.rs` has to be found.

mod checks;

use std::collections::BTreeMap;

use checks::Seen;
use db_node::lsm::NewValue;
use db_node::partition::{Assignment, Conditions, Wait, WaitProgress};
use db_node::replication::{HEARTBEAT_MS, UNHEARD_MS};
use db_node::storage::{HistoryId, Role};

use crate::cluster::{Cluster, SimDisks, Weather, address};
use crate::pending_writes::{PendingWrite, take_confirmed};
use crate::seeds::seeds;
use crate::sim_disk::{Fault, Shortage};

type Content = BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

/// How long a client waits for the confirmation of its write. Long: an old promise must not be kept
/// by a later leader's replicas.
const ACK_TIMEOUT_MS: u64 = 20_000;

/// Clocks differ by minutes, but replicas go by their leader's, as far as heartbeats tell it.
const CLOCKS_APART_MS: u64 = 200;

/// The clocks of the hosts are so far apart (`tests/common/cluster.rs`).
const SYSTEM_CLOCKS_APART_MS: u64 = 4_000;

/// What survives a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// What was synced; the power goes.
    Synced,
    /// What was written; processes are killed.
    Written,
    /// Nothing.
    Memory,
}

/// A write that a client has made.
#[derive(Clone, Debug)]
struct Write {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    /// By the clock of the node that led.
    expires_at_ms: u64,
    /// Of a batch that the next write belongs to, too.
    goes_on: bool,
}

/// A write that replicas have confirmed.
#[derive(Debug)]
struct Acked {
    key: Vec<u8>,
    is_lost: bool,
}

/// A read of acknowledged data with an answer that waits.
#[derive(Debug)]
struct PendingRead {
    host: usize,
    incarnation: u64,
    wait: Wait,
    number: u64,
    shown: Shown,
    since_ms: u64,
}

/// What a read of what is acknowledged shows.
#[derive(Clone, Debug)]
struct Shown {
    /// The key, if it is there.
    key: Option<Vec<u8>>,
    /// The history and version of the write that it shows; of the newest where it shows none.
    history: HistoryId,
    version: u64,
}

#[derive(Debug)]
enum Stage {
    Steady,
    /// Replicas are being turned away from the old leader, in this epoch.
    Fencing,
}

struct Run {
    cluster: Cluster,
    kind: Kind,
    epoch: u64,
    leader: usize,
    stage: Stage,
    /// Which node was to lead in which epoch.
    orders: Vec<(u64, usize)>,
    /// What each history was told, by version.
    told: BTreeMap<[u8; 16], BTreeMap<u64, Write>>,
    pending: Vec<PendingWrite>,
    acked: Vec<Acked>,
    leader_of_epoch: BTreeMap<u64, usize>,
    seen: BTreeMap<usize, Seen>,
    reader: Option<(HistoryId, u64, BTreeMap<Vec<u8>, u64>)>,
    /// Of readers alone, so that seeds are what they were without.
    reader_rng: fastrand::Rng,
    reads: Vec<PendingRead>,
    shown: Vec<Shown>,
    /// Of shortages alone; none if nothing is ever short.
    shortage_rng: Option<fastrand::Rng>,
    shortage_count: usize,
    /// When the present leader was chosen.
    promoted_ms: u64,
    write_count: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let kind = [Kind::Synced, Kind::Written, Kind::Memory][rng.usize(..3)];
        let mut arguments = vec!["--memtable-bytes=64KiB"];
        arguments.push(
            [
                "--wal-retain-bytes=0",
                "--wal-retain-bytes=2000",
                "--wal-retain-bytes=1MiB",
            ][rng.usize(..3)],
        );
        if rng.bool() {
            arguments.push("--await-assignment");
        }
        if kind == Kind::Written {
            arguments.push(["--fsync=never", "--fsync=interval"][rng.usize(..2)]);
        }
        let host_count = rng.usize(3..5);
        let mut cluster = Cluster::new(rng, host_count, kind != Kind::Memory, &arguments);
        for host in 0..host_count {
            assert!(cluster.start(host));
        }
        Self {
            cluster,
            kind,
            epoch: 1,
            leader: 0,
            stage: Stage::Steady,
            orders: vec![(1, 0)],
            told: BTreeMap::new(),
            pending: Vec::new(),
            acked: Vec::new(),
            leader_of_epoch: BTreeMap::new(),
            seen: BTreeMap::new(),
            reader: None,
            reader_rng: fastrand::Rng::with_seed(!seed),
            reads: Vec::new(),
            shown: Vec::new(),
            shortage_rng: seed
                .is_multiple_of(2)
                .then(|| fastrand::Rng::with_seed(seed.rotate_left(32))),
            shortage_count: 0,
            promoted_ms: 0,
            write_count: 0,
        }
    }

    fn host_count(&self) -> usize {
        self.cluster.hosts.len()
    }

    /// Some milliseconds, with whatever comes to mind.
    fn step(&mut self, is_stormy: bool) {
        let passed_ms = if self.cluster.chance(30) {
            self.cluster.rng.u64(..3_000)
        } else {
            self.cluster.rng.u64(1..20)
        };
        self.cluster.step(passed_ms);
        if is_stormy {
            self.storm();
            self.run_short();
            for _ in 0..self.cluster.rng.usize(..4) {
                self.write();
            }
        }
        if self.cluster.chance(4) {
            self.control();
        }
        self.note_acks();
        self.read();
        self.read_acknowledged();
        self.note_reads();
        self.check();
    }

    fn storm(&mut self) {
        let (a, b) = (self.cluster.any_host(), self.cluster.any_host());
        if self.cluster.chance(40) {
            let weather = match self.cluster.rng.u8(..6) {
                0 => Weather::Slow(self.cluster.rng.usize(1..2_000)),
                1 => Weather::Stalled,
                2 => Weather::Cut,
                _ => Weather::Fine,
            };
            self.cluster.set_weather(a, b, weather);
        }
        if self.cluster.chance(60) {
            let with_power = self.kind == Kind::Synced && self.cluster.rng.bool();
            let disks = self.cluster.hosts[a]
                .disks
                .clone()
                .filter(|_| with_power && b > 0);
            match disks {
                // Somewhere in the middle of what the disk does next.
                Some(disks) => {
                    let after = self.cluster.rng.u64(..40);
                    disks
                        .all()
                        .iter()
                        .for_each(|disk| disk.fail_after(after, Fault::PowerCut));
                }
                None => self.cluster.crash(a, with_power),
            }
        }
        if self.cluster.chance(15) && self.cluster.hosts[b].process.is_none() {
            self.cluster.start(b);
        }
        if self.cluster.chance(20)
            && let Some(partition) = self.cluster.partition(a)
        {
            partition.lsm_mut().freeze();
        }
        if self.cluster.chance(50)
            && let Some(partition) = self.cluster.partition(b)
        {
            partition.request_checkpoint();
        }
        if self.cluster.chance(80) {
            self.fail_over();
        }
    }

    /// Room or descriptors of a node run out, or are there again.
    fn run_short(&mut self) {
        let host_count = self.host_count();
        let Some(rng) = &mut self.shortage_rng else {
            return;
        };
        if rng.u8(..60) > 0 {
            return;
        }
        let host = rng.usize(..host_count);
        let shortage = rng
            .bool()
            .then(|| Shortage::ALL[rng.usize(..Shortage::ALL.len())]);
        self.set_shortage(host, shortage);
    }

    fn set_shortage(&mut self, host: usize, shortage: Option<Shortage>) {
        let disks = self.cluster.hosts[host].disks.clone();
        for disk in disks.iter().flat_map(SimDisks::all) {
            self.shortage_count += usize::from(disk.shortage().is_none() && shortage.is_some());
            disk.set_shortage(shortage);
        }
    }

    /// A controller that is not sure about the leader: first no node follows it any more, then the
    /// best of the others leads.
    fn fail_over(&mut self) {
        if matches!(self.stage, Stage::Steady) {
            self.epoch += 1;
            self.stage = Stage::Fencing;
            log::debug!(
                "{}: nobody is to follow node {} in epoch {}",
                self.cluster.now_ms,
                self.leader,
                self.epoch
            );
        }
    }

    /// What the controller tells the nodes, now or again.
    fn control(&mut self) {
        if matches!(self.stage, Stage::Fencing) && self.is_fenced() {
            self.promote();
        }
        for host in 0..self.host_count() {
            let leader = match self.stage {
                Stage::Steady => self.leader,
                // Any node but the old one; which does not matter yet.
                Stage::Fencing => {
                    (self.leader + 1 + usize::from(host == (self.leader + 1) % self.host_count()))
                        % self.host_count()
                }
            };
            if matches!(self.stage, Stage::Fencing) && host == self.leader {
                continue;
            }
            self.assign(host, leader, self.epoch);
        }
        // An order that comes late.
        if self.cluster.chance(10) {
            let (host, at) = (
                self.cluster.any_host(),
                self.cluster.rng.usize(..self.orders.len()),
            );
            let (epoch, leader) = self.orders[at];
            self.assign(host, leader, epoch);
        }
    }

    fn assign(&mut self, host: usize, leader: usize, epoch: u64) {
        let is_leader = host == leader;
        let role = if is_leader {
            Role::Leader
        } else {
            Role::Replica
        };
        let assignment = Assignment {
            role,
            epoch: Some(epoch),
            leader: (!is_leader).then(|| address(leader)),
            peers: Vec::new(),
        };
        if let Some(node) = self.cluster.node(host) {
            // Refused where it is outdated.
            let _ = node.assign(0, assignment);
        }
    }

    /// Whether every node but the old leader is there and follows it no more. One that lost all it
    /// had has nothing to lose.
    fn is_fenced(&mut self) -> bool {
        (0..self.host_count())
            .filter(|host| *host != self.leader)
            .all(|host| {
                let epoch = self.epoch;
                self.cluster.partition(host).is_some_and(|partition| {
                    partition.roles().meta().epoch == epoch
                        && partition.roles().is_settled()
                        && partition.is_replaced()
                })
            })
    }

    fn promote(&mut self) {
        let mut best = None;
        for host in (0..self.host_count()).filter(|host| *host != self.leader) {
            let partition = self.cluster.partition(host).expect("it is fenced");
            let (epoch, version) = (
                partition.roles().meta().data_epoch,
                partition.lsm().last_version(),
            );
            // One that has nothing is worse than any other.
            best = best.max(Some((version > 0, epoch, version, host)));
        }
        let (.., leader) = best.expect("there are others");
        self.epoch += 1;
        self.leader = leader;
        let picture = self.picture();
        log::debug!(
            "{}: node {leader} is to lead in epoch {}: {picture}",
            self.cluster.now_ms,
            self.epoch
        );
        self.stage = Stage::Steady;
        self.orders.push((self.epoch, leader));
        self.assign(leader, leader, self.epoch);
        self.promoted_ms = self.cluster.now_ms;
        self.check_acked(leader);
        self.check_shown(leader);
    }

    /// A client reads what is acknowledged, of a key that was written just now, or of one that is
    /// deleted now and then.
    fn read_acknowledged(&mut self) {
        let (now_ms, host) = (
            self.cluster.now_ms,
            self.reader_rng.usize(..self.host_count()),
        );
        let count = self.reader_rng.u8(1..3);
        let key = match self.pending.len() {
            0 => None,
            pending_count => Some(self.reader_rng.usize(..pending_count)),
        };
        let key = key.filter(|_| self.reader_rng.bool());
        let key = key.map_or_else(
            || format!("key-{}", self.reader_rng.u8(..20)).into_bytes(),
            |at| self.pending[at].key.clone(),
        );
        // Whatever a node that has lost all it had was told anew.
        let is_superseded = self.kind != Kind::Memory
            && host != self.leader
            && now_ms - self.promoted_ms > UNHEARD_MS;
        let incarnation = self.cluster.hosts[host].incarnation;
        let Some(partition) = self.cluster.partition(host) else {
            return;
        };
        let is_settled = partition.roles().is_settled();
        if !is_settled || partition.check_read(count, now_ms).is_err() {
            return;
        }
        assert!(
            !is_superseded,
            "node {host} was replaced, and reads of what is acknowledged are answered"
        );
        let found = partition.get(&key).map(|entry| entry.version);
        let version = found.unwrap_or(partition.lsm().last_version());
        let shown = Shown {
            key: found.map(|_| key),
            history: partition.lineage().history_at(version),
            version,
        };
        match partition.read_gate(count, found) {
            None => self.shown.push(shown),
            Some(number) => {
                let wait = partition.read_wait(count);
                self.reads.push(PendingRead {
                    host,
                    incarnation,
                    wait,
                    number,
                    shown,
                    since_ms: now_ms,
                });
            }
        }
    }

    fn note_reads(&mut self) {
        let now_ms = self.cluster.now_ms;
        for at in (0..self.reads.len()).rev() {
            let read = &self.reads[at];
            let is_same = self.cluster.hosts[read.host].incarnation == read.incarnation;
            let is_in_time = now_ms - read.since_ms < ACK_TIMEOUT_MS;
            let (wait, number) = (read.wait, read.number);
            let node = self.cluster.node(read.host);
            let reached = match node.filter(|_| is_same && is_in_time) {
                Some(node) => node.wait_progress(0, wait),
                None => WaitProgress::Never,
            };
            match reached {
                WaitProgress::UpTo(reached) if reached < number => {}
                WaitProgress::UpTo(_) => self.shown.push(self.reads.swap_remove(at).shown),
                WaitProgress::Never => drop(self.reads.swap_remove(at)),
            }
        }
    }

    /// A client writes to a node that thinks that it leads.
    fn write(&mut self) {
        let host = self.cluster.any_host();
        let incarnation = self.cluster.hosts[host].incarnation;
        let is_confirmed = self.cluster.chance(2);
        let (number, short) = (self.write_count, self.cluster.rng.u8(..20));
        let count = self.cluster.rng.u8(1..3);
        let value_bytes = if self.cluster.chance(50) {
            16_000
        } else {
            self.cluster.rng.usize(..300)
        };
        let Some(partition) = self.cluster.partition(host) else {
            return;
        };
        if partition.roles().role() != Role::Leader || !partition.roles().is_settled() {
            return;
        }
        let epoch = partition.roles().meta().epoch;
        // Each confirmed write has a key of its own, so that it can be looked for.
        let key = if is_confirmed {
            format!("confirmed-{number}")
        } else {
            format!("key-{short}")
        }
        .into_bytes();
        let is_deletion = !is_confirmed && number % 5 == 0;
        let value =
            (!is_deletion).then(|| format!("{number}").into_bytes().repeat(value_bytes / 8 + 1));
        let ttl_unit_ms = if number % 2 == 0 { 50 } else { 5_000 };
        let ttl_ms =
            (!is_confirmed && number % 3 == 0).then_some(u64::from(short) * ttl_unit_ms + 1);
        let expires_at_ms = ttl_ms.map_or(u64::MAX, |ttl_ms| partition.lsm().time_ms() + ttl_ms);
        let none = Conditions::default();
        let batch_count = if !is_confirmed && number % 7 == 0 {
            2 + number % 30
        } else {
            1
        };
        let keys: Vec<Vec<u8>> = match batch_count {
            1 => vec![key.clone()],
            count => (0..count)
                .map(|at| format!("key-{}", (u64::from(short) + at) % 40).into_bytes())
                .collect(),
        };
        let version = match &value {
            Some(value) if batch_count > 1 => Some(
                partition.write_batch(
                    keys.iter()
                        .map(|key| (&key[..], NewValue::Inline(value), ttl_ms)),
                ),
            ),
            Some(value) => partition
                .set(&key, NewValue::Inline(value), ttl_ms, &none)
                .ok(),
            None => partition.delete(&key, &none).expect("no conditions"),
        };
        let Some(version) = version else { return };
        let (history, generation) = (partition.history(), partition.leadership_generation());
        if epoch > 0 {
            let first = *self.leader_of_epoch.entry(epoch).or_insert(host);
            assert_eq!(first, host, "two nodes took writes in epoch {epoch}");
        }
        self.write_count += 1;
        let keys = if value.is_some() {
            keys
        } else {
            vec![key.clone()]
        };
        for (at, key) in (version + 1 - keys.len() as u64..).zip(keys) {
            let write = Write {
                key,
                value: value.clone(),
                expires_at_ms,
                goes_on: at < version,
            };
            let before = self.told.entry(history.0).or_default().insert(at, write);
            assert!(
                before.is_none() || self.kind != Kind::Memory,
                "a history has two writes of version {at}"
            );
        }
        if is_confirmed {
            let wait = Wait::Acks { count, generation };
            let since_ms = self.cluster.now_ms;
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
        let acked = confirmed.into_iter().map(|write| Acked {
            key: write.key,
            is_lost: false,
        });
        self.acked.extend(acked);
    }

    /// A reader that goes from node to node and says what it has seen.
    fn read(&mut self) {
        let host = self.cluster.any_host();
        let key = format!("key-{}", self.cluster.rng.u8(..20)).into_bytes();
        let Some(partition) = self.cluster.partition(host) else {
            return;
        };
        let (lineage, last_version) = (
            partition.roles().meta().lineage.clone(),
            partition.lsm().last_version(),
        );
        let found = partition.get(&key).map_or(0, |entry| entry.version);
        // What a leader's disk does not hold yet may be lost with it, whichever client has read it:
        // that is no promise.
        let generation = partition.leadership_generation();
        let progress = partition.wait_progress(Wait::Disk { generation });
        let is_held = matches!(progress, WaitProgress::UpTo(held) if held >= last_version);
        if partition.roles().role() == Role::Leader && !is_held {
            return;
        }
        let (history, min_version, mut seen) =
            self.reader
                .take()
                .unwrap_or((lineage.history(), 0, BTreeMap::new()));
        let common = lineage.common_version(history, min_version);
        if common != Some(min_version) {
            // What it has seen is not in this node's history: it begins anew.
            return;
        }
        if last_version < min_version {
            self.reader = Some((history, min_version, seen));
            return;
        }
        let before = seen.insert(key.clone(), found).unwrap_or(0);
        let key = String::from_utf8_lossy(&key);
        assert!(
            found >= before || found == 0,
            "{key} went from version {before} back to {found}"
        );
        self.reader = Some((lineage.history(), last_version, seen));
    }

    /// Everything is mended; then all nodes are to agree.
    fn settle(&mut self) {
        for a in 0..self.host_count() {
            for b in 0..a {
                self.cluster.set_weather(a, b, Weather::Fine);
            }
            self.set_shortage(a, None);
        }
        let mut agreed_since_ms = u64::MAX;
        for round in 0.. {
            assert!(round < 6, "the nodes do not agree: {}", self.picture());
            for _ in 0..600 {
                for host in 0..self.host_count() {
                    if self.cluster.hosts[host].process.is_none() {
                        self.cluster.start(host);
                    }
                }
                self.step(false);
                // Every replica is to hear what time it is, too.
                if !self.is_agreed() {
                    agreed_since_ms = u64::MAX;
                } else if agreed_since_ms.min(self.cluster.now_ms) + 2 * HEARTBEAT_MS
                    <= self.cluster.now_ms
                {
                    return;
                } else {
                    agreed_since_ms = agreed_since_ms.min(self.cluster.now_ms);
                }
            }
            // Where all data was lost but on a node that does not lead, only a new leader helps.
            self.fail_over();
        }
    }
}

/// Figures about a run, to see that there is something in it.
struct Outcome {
    epoch: u64,
    acked_count: usize,
    shown_count: usize,
    shortage_count: usize,
}

fn run(seed: u64) -> Outcome {
    let mut run = Run::new(seed);
    let steps = run.cluster.rng.usize(100..600);
    for _ in 0..steps {
        run.step(true);
    }
    run.settle();
    let leader = run.leader;
    run.check_acked(leader);
    run.check_shown(leader);
    run.check_content();
    Outcome {
        epoch: run.epoch,
        acked_count: run.acked.len(),
        shown_count: run.shown.len(),
        shortage_count: run.shortage_count,
    }
}

#[test]
fn whatever_happens_nothing_confirmed_is_lost_and_all_agree_in_the_end() {
    let mut run_count = 0;
    let (mut failover_count, mut acked_count, mut shown_count) = (0, 0, 0);
    let mut shortage_count = 0;
    for seed in seeds(3_000) {
        let outcome = run(seed.0);
        run_count += 1;
        failover_count += outcome.epoch / 2;
        acked_count += outcome.acked_count;
        shown_count += outcome.shown_count;
        shortage_count += outcome.shortage_count;
    }
    eprintln!(
        "{run_count} runs, {failover_count} failovers, {acked_count} confirmed writes, \
         {shown_count} reads of what is acknowledged, {shortage_count} shortages"
    );
    // A simulation in which nothing happens proves nothing.
    assert!(
        run_count < 100
            || (failover_count > run_count as u64
                && acked_count > 10 * run_count
                && shown_count > 10 * run_count
                && shortage_count > run_count / 2)
    );
}

#[test]
#[cfg(feature = "seeded-bugs")]
fn every_seeded_bug_is_found() {
    use db_node::seeded_bugs::SeededBug;

    let bugs = SeededBug::ALL.into_iter();
    let sought = bugs.filter(|bug| !bug.is_of_takeover());
    crate::seeded_bugs::assert_found(sought, 20_000, |seed| {
        run(seed);
    });
}
