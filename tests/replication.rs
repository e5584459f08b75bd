//! Replication under simulation: leaders, replicas and a controller, with a network that stalls,
//! slows and cuts, and nodes that are killed, lose their power, and come back with their data or
//! without.
//!
//! Checked in every step: at most one leader takes writes in an epoch; no replica follows a leader
//! of a lower epoch than its own, or has what its leader's disk does not; no node gives up data but
//! for a higher epoch, and never for an empty leader; what was said to be on disk is there after a
//! power cut; a reader that says what it has seen never sees less; a leader whose replicas have all
//! left it, and that was not told, answers no read of what is acknowledged. At each promotion, and
//! in the end: every write that replicas had confirmed is there, and so is everything that a read
//! of what is acknowledged has shown. In the end, when all is mended: all nodes hold exactly what
//! their history says.
//!
//! `DB_NODE_TEST_SEED=n` repeats a run, `DB_NODE_TEST_RUNS=n` does more of them. With the feature
//! `seeded-bugs` each of the bugs in `src/seeded_bugs.rs` has to be found.

#[path = "common/cluster.rs"]
mod cluster;
#[path = "common/sim_disk.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod sim_disk;

use std::collections::BTreeMap;

use cluster::{Cluster, SimDisks, Weather, address};
use db_node::config::Fsync;
use db_node::lsm::{LogBatch, Lsm, NewValue, Options, ScanState, Value};
use db_node::partition::{Assignment, Conditions, DiskLog, Partition, Reached, Wait};
use db_node::replication::{HEARTBEAT_MS, UNHEARD_MS};
use db_node::storage::{
    DiskCommand, DiskEvent, DiskWorker, HistoryId, IdGenerator, Lineage, PartitionMeta,
    RecoveryOptions, Replacement, Role, SHARED_PAST_MAX,
};
use sim_disk::{Fault, Shortage};

type Content = BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

/// Patience of a client whose write is to be confirmed. Long: an old promise must not be kept by a
/// later leader's replicas.
const ACK_TIMEOUT_MS: u64 = 20_000;

/// Clocks differ by minutes, but replicas go by their leader's, as far as heartbeats tell it.
const CLOCKS_APART_MS: u64 = 200;

/// The clocks of the hosts are so far apart (`common/cluster.rs`).
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

#[derive(Debug)]
struct Pending {
    host: usize,
    incarnation: u64,
    wait: Wait,
    version: u64,
    key: Vec<u8>,
    since_ms: u64,
}

/// A write that replicas have confirmed.
#[derive(Debug)]
struct Acked {
    key: Vec<u8>,
    is_lost: bool,
}

/// What was last seen of a node.
#[derive(Clone, Debug)]
struct Seen {
    incarnation: u64,
    lineage: Lineage,
    version: u64,
    data_epoch: u64,
    /// The version that its disk is said to hold, where power cuts are survived.
    durable_version: Option<u64>,
}

/// A read of what is acknowledged, whose answer waits.
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
    pending: Vec<Pending>,
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

fn partition(cluster: &mut Cluster, host: usize) -> Option<&mut Partition> {
    cluster.node(host)?.partition(0).ok()
}

fn content_of(partition: &mut Partition) -> Content {
    let mut scan = partition.lsm_mut().snapshot().into_scan(&[]);
    let mut content = Content::new();
    loop {
        match scan.step(1 << 30).0 {
            ScanState::Searching => {}
            ScanState::End => return content,
            ScanState::Found => {
                let entry = scan.entry().expect("found");
                let Value::Inline(value) = entry.value else {
                    panic!("no such value was written")
                };
                content.insert(entry.key.to_vec(), (entry.version, value.to_vec()));
            }
        }
    }
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

    fn chance(&mut self, one_in: u32) -> bool {
        self.cluster.rng.u32(..one_in) == 0
    }

    fn any_host(&mut self) -> usize {
        let count = self.host_count();
        self.cluster.rng.usize(..count)
    }

    /// Some milliseconds, with whatever comes to mind.
    fn step(&mut self, is_stormy: bool) {
        let passed_ms = if self.chance(30) {
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
        if self.chance(4) {
            self.control();
        }
        self.note_acks();
        self.read();
        self.read_acknowledged();
        self.note_reads();
        self.check();
    }

    fn storm(&mut self) {
        let (a, b) = (self.any_host(), self.any_host());
        if self.chance(40) {
            let weather = match self.cluster.rng.u8(..6) {
                0 => Weather::Slow(self.cluster.rng.usize(1..2_000)),
                1 => Weather::Stalled,
                2 => Weather::Cut,
                _ => Weather::Fine,
            };
            self.cluster.set_weather(a, b, weather);
        }
        if self.chance(60) {
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
        if self.chance(15) && self.cluster.hosts[b].process.is_none() {
            self.cluster.start(b);
        }
        if self.chance(20)
            && let Some(partition) = partition(&mut self.cluster, a)
        {
            partition.lsm_mut().freeze();
        }
        if self.chance(50)
            && let Some(partition) = partition(&mut self.cluster, b)
        {
            partition.request_checkpoint();
        }
        if self.chance(80) {
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
        let shortage = rng.bool().then(|| Shortage::ALL[rng.usize(..3)]);
        self.set_shortage(host, shortage);
    }

    fn set_shortage(&mut self, host: usize, shortage: Option<Shortage>) {
        let disks = self.cluster.hosts[host].disks.clone();
        for disk in disks.iter().flat_map(SimDisks::all) {
            self.shortage_count += usize::from(disk.shortage().is_none() && shortage.is_some());
            disk.set_shortage(shortage);
        }
    }

    /// A controller that is not sure about the leader: first nobody follows it any more, then the
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
        if self.chance(10) {
            let (host, at) = (self.any_host(), self.cluster.rng.usize(..self.orders.len()));
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
                partition(&mut self.cluster, host).is_some_and(|partition| {
                    partition.roles().meta().epoch == epoch
                        && partition.roles().is_settled()
                        && partition.is_replaced()
                })
            })
    }

    fn promote(&mut self) {
        let mut best = None;
        for host in (0..self.host_count()).filter(|host| *host != self.leader) {
            let partition = partition(&mut self.cluster, host).expect("it is fenced");
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

    /// What replicas had confirmed is on the node that is to lead.
    fn check_acked(&mut self, leader: usize) {
        let partition = partition(&mut self.cluster, leader).expect("it is there");
        for acked in self.acked.iter_mut().filter(|acked| !acked.is_lost) {
            if partition.get(&acked.key).is_none() {
                // Where nothing survives a crash, all nodes that had it may have crashed.
                let key = String::from_utf8_lossy(&acked.key);
                assert!(
                    self.kind == Kind::Memory,
                    "{key} was confirmed, and node {leader} leads without it"
                );
                acked.is_lost = true;
            }
        }
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
        let Some(partition) = partition(&mut self.cluster, host) else {
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
                Some(node) => node.reached(0, wait),
                None => Reached::Never,
            };
            match reached {
                Reached::UpTo(reached) if reached < number => {}
                Reached::UpTo(_) => self.shown.push(self.reads.swap_remove(at).shown),
                Reached::Never => drop(self.reads.swap_remove(at)),
            }
        }
    }

    /// What a read of what is acknowledged has shown is not lost: the node that is to lead has that
    /// write, and holds keys that no one deletes.
    fn check_shown(&mut self, leader: usize) {
        if self.kind == Kind::Memory {
            // All that had it may have crashed.
            return;
        }
        let partition = partition(&mut self.cluster, leader).expect("it is there");
        for shown in &self.shown {
            let version = shown.version;
            // Of a history that it was not told of it can have any part.
            let common = partition.lineage().common_version(shown.history, version);
            let has_it = common.is_none_or(|common| common == version)
                && partition.lsm().last_version() >= version;
            let is_kept = |key: &&Vec<u8>| key.starts_with(b"confirmed-");
            let lacks = shown.key.as_ref().filter(is_kept);
            let lacks = lacks.filter(|key| partition.get(key).is_none());
            assert!(
                has_it && lacks.is_none(),
                "a read has shown {shown:?}, and node {leader} leads without it"
            );
        }
    }

    /// A client writes to a node that thinks that it leads.
    fn write(&mut self) {
        let host = self.any_host();
        let incarnation = self.cluster.hosts[host].incarnation;
        let is_confirmed = self.chance(2);
        let (number, short) = (self.write_count, self.cluster.rng.u8(..20));
        let count = self.cluster.rng.u8(1..3);
        let value_bytes = if self.chance(50) {
            16_000
        } else {
            self.cluster.rng.usize(..300)
        };
        let Some(partition) = partition(&mut self.cluster, host) else {
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
        let (history, tenure) = (partition.history(), partition.tenure());
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
            let wait = Wait::Acks { count, tenure };
            let since_ms = self.cluster.now_ms;
            self.pending.push(Pending {
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
        let now_ms = self.cluster.now_ms;
        for at in (0..self.pending.len()).rev() {
            let Pending {
                host,
                incarnation,
                wait,
                version,
                since_ms,
                ..
            } = self.pending[at];
            let is_same = self.cluster.hosts[host].incarnation == incarnation;
            let reached = match self.cluster.node(host).filter(|_| is_same) {
                Some(node) if now_ms - since_ms < ACK_TIMEOUT_MS => node.reached(0, wait),
                _ => Reached::Never,
            };
            match reached {
                Reached::UpTo(reached) if reached < version => {}
                Reached::UpTo(_) => {
                    let key = self.pending.swap_remove(at).key;
                    log::debug!(
                        "{now_ms}: {} is confirmed to node {host}",
                        String::from_utf8_lossy(&key)
                    );
                    self.acked.push(Acked {
                        key,
                        is_lost: false,
                    });
                }
                Reached::Never => drop(self.pending.swap_remove(at)),
            }
        }
    }

    /// A reader that goes from node to node and says what it has seen.
    fn read(&mut self) {
        let host = self.any_host();
        let key = format!("key-{}", self.cluster.rng.u8(..20)).into_bytes();
        let Some(partition) = partition(&mut self.cluster, host) else {
            return;
        };
        let (lineage, last_version) = (
            partition.roles().meta().lineage.clone(),
            partition.lsm().last_version(),
        );
        let found = partition.get(&key).map_or(0, |entry| entry.version);
        // What a leader's disk does not hold yet may be lost with it, whichever client has read it:
        // that is no promise.
        let tenure = partition.tenure();
        let is_held = matches!(partition.reached(Wait::Disk { tenure }), Reached::UpTo(held) if held >= last_version);
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

    fn check(&mut self) {
        for host in 0..self.host_count() {
            let incarnation = self.cluster.hosts[host].incarnation;
            let Some(partition) = partition(&mut self.cluster, host) else {
                continue;
            };
            let meta = partition.roles().meta();
            let (lineage, data_epoch, epoch) = (meta.lineage.clone(), meta.data_epoch, meta.epoch);
            // A node that takes over takes what it lacks from any other.
            let leader_epoch = partition
                .following_stats(0)
                .filter(|_| !partition.roles().is_taking_over())
                .and_then(|stats| stats.leader_epoch);
            assert!(
                leader_epoch.is_none_or(|leader_epoch| leader_epoch >= epoch),
                "node {host} of epoch {epoch} follows a leader of epoch {leader_epoch:?}"
            );
            let durable_version = partition.disk().map(DiskLog::synced_version);
            let durable_version = durable_version
                .filter(|_| self.kind == Kind::Synced && partition.roles().is_settled());
            let now = Seen {
                incarnation,
                lineage,
                version: partition.lsm().last_version(),
                data_epoch,
                durable_version,
            };
            if let Some(seen) = self.seen.get(&host) {
                check_kept(host, seen, &now);
            }
            self.seen.insert(host, now);
        }
        if self.kind == Kind::Synced {
            self.check_sent();
        }
    }

    /// No node has what the disk of the node that leads its history could still lose.
    fn check_sent(&mut self) {
        for leader in 0..self.host_count() {
            let Some(partition_of_leader) = partition(&mut self.cluster, leader) else {
                continue;
            };
            let roles = partition_of_leader.roles();
            if roles.role() != Role::Leader || !roles.is_settled() {
                continue;
            }
            let history = partition_of_leader.history();
            let held = partition_of_leader.disk().map(DiskLog::synced_version);
            for host in 0..self.host_count() {
                let Some(partition) = partition(&mut self.cluster, host) else {
                    continue;
                };
                let version = partition.lsm().last_version();
                assert!(
                    host == leader || partition.history() != history || held >= Some(version),
                    "node {host} has version {version}, of which the disk of its leader holds \
                     {held:?}"
                );
            }
        }
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

    fn is_agreed(&mut self) -> bool {
        if matches!(self.stage, Stage::Fencing) {
            return false;
        }
        let (leader, epoch) = (self.leader, self.epoch);
        let mut position = None;
        (0..self.host_count()).all(|host| {
            let Some(partition) = partition(&mut self.cluster, host) else {
                return false;
            };
            let role = if host == leader {
                Role::Leader
            } else {
                Role::Replica
            };
            let roles = partition.roles();
            let is_settled =
                roles.is_settled() && roles.role() == role && roles.meta().epoch == epoch;
            let here = partition.lsm().position();
            is_settled
                && partition.is_in_sync()
                && partition.is_replaced()
                && *position.get_or_insert(here) == here
        })
    }

    fn picture(&mut self) -> String {
        let mut lines = Vec::new();
        for host in 0..self.host_count() {
            let line = partition(&mut self.cluster, host).map(|partition| {
                let meta = partition.roles().meta();
                format!(
                    "{host}: version {}, {meta:?}, {:?}",
                    partition.lsm().last_version(),
                    partition.following_stats(0)
                )
            });
            lines.push(line.unwrap_or_else(|| format!("{host}: down")));
        }
        lines.join("\n")
    }

    /// What the history of the leader was told, is what every node holds.
    fn check_content(&mut self) {
        let partition_of_leader = partition(&mut self.cluster, self.leader).expect("it leads");
        let (lineage, version) = (
            partition_of_leader.roles().meta().lineage.clone(),
            partition_of_leader.lsm().last_version(),
        );
        let leader_time_ms = partition_of_leader.lsm().time_ms();
        let mut written: BTreeMap<&Vec<u8>, (u64, &Write)> = BTreeMap::new();
        let mut histories: Vec<(HistoryId, u64)> = vec![(lineage.history(), version)];
        histories.extend(lineage.past().map(|past| (past.history, past.end_version)));
        let mut from = 0;
        let mut count = 0;
        let mut is_within_batch = false;
        for (history, end_version) in histories.into_iter().rev() {
            for (version, write) in self
                .told
                .get(&history.0)
                .into_iter()
                .flat_map(|writes| writes.range(from + 1..))
                .take_while(|(version, _)| **version <= end_version)
            {
                count += 1;
                written.insert(&write.key, (*version, write));
                is_within_batch = write.goes_on;
            }
            assert!(!is_within_batch, "a batch was cut at version {end_version}");
            from = from.max(end_version);
        }
        // A node that joined was told of only so many histories.
        let is_all = lineage.past().len() < SHARED_PAST_MAX;
        assert!(
            !is_all || count == version,
            "{count} writes made version {version}"
        );
        for host in 0..self.host_count() {
            let partition = partition(&mut self.cluster, host).expect("all are up");
            let time_ms = partition.lsm().time_ms();
            // A node whose time was ahead does not go back to that of a leader that came later.
            let behind_ms = leader_time_ms.saturating_sub(time_ms);
            let ahead_ms = time_ms.saturating_sub(leader_time_ms);
            assert!(
                behind_ms <= CLOCKS_APART_MS && ahead_ms <= SYSTEM_CLOCKS_APART_MS,
                "{time_ms} on {host}, {leader_time_ms} leads"
            );
            let content = content_of(partition);
            let is_live = |write: &Write| write.value.is_some() && write.expires_at_ms > time_ms;
            let live = written.iter().filter(|(_, (_, write))| is_live(write));
            let expected: Content = live
                .map(|(key, (version, write))| {
                    (
                        (*key).clone(),
                        (*version, write.value.clone().unwrap_or_default()),
                    )
                })
                .collect();
            if is_all && content != expected {
                let differs = |key: &&Vec<u8>| content.get(*key) != expected.get(*key);
                let keys: std::collections::BTreeSet<&Vec<u8>> = content
                    .keys()
                    .chain(expected.keys())
                    .filter(differs)
                    .collect();
                let versions = |key: &Vec<u8>| {
                    (
                        content.get(key).map(|at| at.0),
                        expected.get(key).map(|at| at.0),
                    )
                };
                let shown: Vec<_> = keys
                    .into_iter()
                    .map(|key| (String::from_utf8_lossy(key), versions(key)))
                    .collect();
                panic!("node {host} holds something else than its history: {shown:?}");
            }
            for acked in self.acked.iter().filter(|acked| !acked.is_lost) {
                let key = String::from_utf8_lossy(&acked.key);
                assert!(
                    content.contains_key(&acked.key),
                    "{key} was confirmed and is not on node {host}"
                );
            }
        }
    }
}

/// A node gives up data only for a higher epoch, and never for an empty leader; after a crash it
/// has what was said to be on its disk.
fn check_kept(host: usize, seen: &Seen, now: &Seen) {
    let common = |version| {
        now.lineage
            .common_version_with(&seen.lineage, version)
            .unwrap_or(0)
            .min(now.version)
    };
    if now.incarnation == seen.incarnation {
        assert!(
            now.version > 0 || seen.version == 0,
            "node {host} was emptied"
        );
        let kept = common(seen.version);
        assert!(
            kept >= seen.version || now.data_epoch > seen.data_epoch,
            "node {host} gave up versions {kept} to {} in epoch {}",
            seen.version,
            now.data_epoch
        );
    } else if let Some(durable_version) = seen.durable_version {
        let kept = common(durable_version);
        assert!(
            kept >= durable_version || now.data_epoch > seen.data_epoch,
            "node {host} came back with version {kept}, and {durable_version} was on its disk"
        );
    }
}

/// Tells all that is logged, for a seed that is repeated.
struct Teller;

impl log::Log for Teller {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("{}", record.args());
    }

    fn flush(&self) {}
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

fn seeds(default_runs: u64) -> Vec<u64> {
    let from_env = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    match from_env("DB_NODE_TEST_SEED") {
        Some(seed) => {
            let _ = log::set_logger(&Teller).map(|()| log::set_max_level(log::LevelFilter::Debug));
            vec![seed]
        }
        None => (0..from_env("DB_NODE_TEST_RUNS").unwrap_or(default_runs)).collect(),
    }
}

/// Runs a seed and tells it if it fails.
fn try_seed(seed: u64) -> std::thread::Result<Outcome> {
    std::panic::catch_unwind(|| run(seed))
}

#[test]
fn whatever_happens_nothing_confirmed_is_lost_and_all_agree_in_the_end() {
    let seeds = seeds(3_000);
    let (mut failover_count, mut acked_count, mut shown_count) = (0, 0, 0);
    let mut shortage_count = 0;
    for seed in &seeds {
        let Ok(outcome) = try_seed(*seed) else {
            panic!("seed {seed} fails: repeat it with DB_NODE_TEST_SEED={seed}")
        };
        failover_count += outcome.epoch / 2;
        acked_count += outcome.acked_count;
        shown_count += outcome.shown_count;
        shortage_count += outcome.shortage_count;
    }
    eprintln!(
        "{} runs, {failover_count} failovers, {acked_count} confirmed writes, {shown_count} reads \
         of what is acknowledged, {shortage_count} shortages",
        seeds.len()
    );
    // A simulation in which nothing happens proves nothing.
    assert!(
        seeds.len() < 100
            || (failover_count > seeds.len() as u64
                && acked_count > 10 * seeds.len()
                && shown_count > 10 * seeds.len()
                && shortage_count > seeds.len() / 2)
    );
}

/// Writes that wait for room when all data is replaced are no part of what replaces it: they are
/// told as done with, and not written.
#[test]
fn writes_that_wait_for_room_are_not_appended_to_what_replaces_their_data() {
    let engine = Options {
        memtable_bytes: 64 * 1024,
        hash_seed: 1,
    };
    let disks = SimDisks::new(1);
    let worker = || {
        let options = RecoveryOptions {
            engine,
            fresh_history: HistoryId([1; 16]),
            accept_data_loss: false,
            log_file_bytes: 30_000,
        };
        DiskWorker::new(
            disks.clone(),
            options,
            IdGenerator::new([1; 16]),
            Fsync::Always,
        )
    };
    let mut made = worker();
    let mut loaded = made.load(0, &mut |_| {}).expect("an empty disk");
    let mut events = Vec::new();
    let mut tell = |event| events.push(event);
    let set_shortage = |shortage| disks.all()[0].set_shortage(shortage);
    set_shortage(Some(Shortage::RoomForAnything));
    let lsm = &mut loaded.lsm;
    lsm.keep_log_behind(0);
    let (mut cursor, mut batch) = (lsm.log_end(), LogBatch::default());
    lsm.set(b"waits", NewValue::Inline(b"v"), None);
    lsm.read_log(&mut cursor, 1_000, u64::MAX, &mut batch);
    let changed = PartitionMeta::new(Role::Replica, Lineage::new(HistoryId([1; 16])));
    for command in [
        DiskCommand::Append(0, batch),
        DiskCommand::Settle(0, Box::new(changed)),
    ] {
        made.execute(command, &mut tell).expect("it waits");
    }
    assert!(made.is_stalled());

    let mut of_leader = Lsm::new(engine);
    for key in [b"a", b"b", b"c"] {
        of_leader.set(key, NewValue::Inline(b"v"), None);
    }
    let replacement = Replacement {
        number: 7,
        snapshot: of_leader.snapshot(),
        meta: PartitionMeta::new(Role::Replica, Lineage::new(HistoryId([2; 16]))),
        dropped: None,
    };
    let replace = DiskCommand::Replace(0, Box::new(replacement));
    // There is room again, and the replacement is done before what waits is tried.
    set_shortage(None);
    made.execute(replace, &mut tell).expect("it is begun");
    made.commit(&mut tell).expect("there is room");
    for _ in 0..20 {
        made.write_piece(&mut tell).expect("there is room");
    }
    made.try_stalled(&mut tell).expect("there is room");
    made.commit(&mut tell).expect("there is room");
    let count = |is: fn(&DiskEvent) -> bool| events.iter().filter(|event| is(event)).count();
    assert_eq!(
        count(|event| matches!(event, DiskEvent::Replaced { .. })),
        1
    );
    assert_eq!(count(|event| matches!(event, DiskEvent::Settled { .. })), 1);
    let is_returned = |event: &DiskEvent| matches!(event, DiskEvent::Written { batches, .. } if batches.len() == 1);
    assert_eq!(count(is_returned), 1);
    let loaded = worker().load(0, &mut |_| {}).expect("sound files");
    assert_eq!(loaded.lsm.last_version(), 3);
    assert_eq!(loaded.meta.lineage.history(), HistoryId([2; 16]));
    assert!(loaded.lsm.get(b"waits").is_none() && loaded.lsm.get(b"c").is_some());
}

#[test]
#[cfg(feature = "seeded-bugs")]
fn every_seeded_bug_is_found() {
    use db_node::seeded_bugs::{SeededBug, switch_on};

    let mut missed = Vec::new();
    let is_sought = |bug: &SeededBug| !bug.is_of_takeover();
    for bug in SeededBug::ALL.into_iter().filter(is_sought) {
        switch_on(Some(bug));
        let found = seeds(20_000)
            .into_iter()
            .find(|seed| try_seed(*seed).is_err());
        switch_on(None);
        match found {
            Some(seed) => eprintln!("{bug:?}: found by seed {seed}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
