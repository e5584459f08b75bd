//! Nodes, disks and the network between them, simulated: the node's own code, with time, files and
//! sockets that are ours.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use db_node::cluster::ClusterOptions;
use db_node::config::{self, Config, Invocation};
use db_node::lsm::Options;
use db_node::node::{DiskNews, Node};
use db_node::replication::{DialFailure, Link, LinkError, LinkId};
use db_node::storage::{
    CopyId, DiskCommand, DiskEvent, DiskWorker, Disks, HistoryId, IdGenerator, PartitionMeta,
    RecoveryOptions, Role, StorageError,
};

use crate::sim_disk::{Shortage, SimDisk};

/// Bytes that fit between two ends of a connection, as in socket buffers.
const WIRE_BYTES: usize = 200_000;

/// The disks of a node's partitions.
#[derive(Clone, Debug)]
pub(crate) struct SimDisks {
    disks: Arc<Mutex<BTreeMap<u32, SimDisk>>>,
    seed: u64,
}

impl SimDisks {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            disks: Arc::default(),
            seed,
        }
    }

    pub(crate) fn all(&self) -> Vec<SimDisk> {
        self.disks
            .lock()
            .expect("one thread")
            .values()
            .cloned()
            .collect()
    }
}

impl Disks for SimDisks {
    type Disk = SimDisk;

    fn partitions(&self) -> Result<Vec<u32>, StorageError> {
        Ok(self
            .disks
            .lock()
            .expect("one thread")
            .keys()
            .copied()
            .collect())
    }

    fn partition(&self, id: u32) -> Result<SimDisk, StorageError> {
        let mut disks = self.disks.lock().expect("one thread");
        Ok(disks
            .entry(id)
            .or_insert_with(|| SimDisk::new(self.seed ^ u64::from(id)))
            .clone())
    }

    fn remove(&self, id: u32) -> Result<(), StorageError> {
        self.disks.lock().expect("one thread").remove(&id);
        Ok(())
    }

    fn clear_removed(&self) -> Result<bool, StorageError> {
        Ok(false)
    }
}

/// A process that runs.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) node: Node,
    worker: Option<DiskWorker<SimDisks>>,
    queue: VecDeque<DiskCommand>,
}

/// A node, running or not.
#[derive(Debug)]
pub(crate) struct Host {
    arguments: Vec<String>,
    pub(crate) disks: Option<SimDisks>,
    pub(crate) process: Option<Process>,
    /// Counted with each start.
    pub(crate) incarnation: u64,
    next_link: usize,
    /// The cluster that its node is one of, if etcd says what it is.
    pub(crate) cluster: Option<ClusterOptions>,
    /// How fast its clock runs, in thousandths.
    pub(crate) clock_rate: u64,
    /// Until when its process stands still: nothing runs in it, and what comes waits.
    pub(crate) paused_until_ms: u64,
    /// Until when its disks do nothing of what they are told.
    pub(crate) disk_hangs_until_ms: u64,
    /// Whether it sends what no node does.
    pub(crate) is_liar: bool,
    /// What it sends next of that kind, on one of its connections.
    pub(crate) forged: Vec<u8>,
    /// Connections that ended meanwhile.
    ended: Vec<(Link, LinkError)>,
}

#[derive(Debug)]
struct End {
    host: usize,
    id: LinkId,
    link: Link,
    /// What the node wants to send, and what is on its way to it.
    out: Vec<u8>,
    wire: VecDeque<u8>,
    /// Came, and was not taken yet.
    held: Vec<u8>,
    /// Where the other side stood when it said hello, if it wants to follow.
    hello: Option<(PartitionMeta, u64)>,
}

#[derive(Debug)]
struct Connection {
    ends: [End; 2],
}

/// How connections between two hosts behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    Fine,
    /// At most so many bytes a step.
    Slow(usize),
    /// Nothing goes through, and neither side notices.
    Stalled,
    /// Connections are refused.
    Cut,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) rng: fastrand::Rng,
    pub(crate) now_ms: u64,
    pub(crate) hosts: Vec<Host>,
    connections: Vec<Connection>,
    weather: BTreeMap<(usize, usize), Weather>,
    /// From the first to the second nothing goes through.
    pub(crate) one_way_cuts: BTreeSet<(usize, usize)>,
    /// What the hosts' clocks show at the start, in Unix ms.
    pub(crate) clocks_ms: Vec<u64>,
    /// How many steps a disk takes to write a piece of a checkpoint, about.
    steps_per_piece: u32,
}

pub(crate) fn address(host: usize) -> String {
    format!("http://n{host}:1")
}

fn epoch_of(node: &mut Node, partition: u32) -> u64 {
    node.partition(partition)
        .map_or(0, |partition| partition.roles().meta().epoch)
}

/// The epoch that a node is to believe when another wants to follow it: that of data with the same
/// origin as its own.
fn believed_epoch(node: &mut Node, (hello, hello_version): &(PartitionMeta, u64)) -> u64 {
    let Ok(partition) = node.partition(0) else {
        return 0;
    };
    let (own, version) = (
        &partition.roles().meta().lineage,
        partition.lsm().last_version(),
    );
    let is_believed = version == 0
        || hello.lineage.common_version_with(own, version).is_some()
        || own
            .common_version_with(&hello.lineage, *hello_version)
            .is_some();
    if is_believed { hello.epoch } else { 0 }
}

fn host_of(address: &str) -> usize {
    address
        .trim_start_matches("http://n")
        .trim_end_matches(":1")
        .parse()
        .expect("an address of ours")
}

fn config_of(arguments: &[String]) -> Config {
    match config::parse(arguments.iter().map(Into::into), |_| None) {
        Ok(Invocation::Run(config)) => *config,
        other => panic!("{other:?}"),
    }
}

impl Cluster {
    /// Hosts that are not started yet.
    pub(crate) fn new(
        mut rng: fastrand::Rng,
        host_count: usize,
        has_disks: bool,
        arguments: &[&str],
    ) -> Self {
        let mut arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        if has_disks {
            arguments.push("--data-dir=simulated".to_owned());
        }
        let mut host = |number| Host {
            arguments: [
                &arguments[..],
                &[format!("--advertise={}", address(number))],
            ]
            .concat(),
            disks: has_disks.then(|| SimDisks::new(rng.u64(..))),
            process: None,
            incarnation: 0,
            next_link: 0,
            cluster: None,
            clock_rate: 1000,
            paused_until_ms: 0,
            disk_hangs_until_ms: 0,
            is_liar: false,
            forged: Vec::new(),
            ended: Vec::new(),
        };
        let hosts = (0..host_count).map(&mut host).collect();
        let (connections, weather) = (Vec::new(), BTreeMap::new());
        let steps_per_piece = [1, 2, 40][rng.usize(..3)];
        let clocks_ms = (0..host_count)
            .map(|_| rng.u64(1_000_000..1_004_000))
            .collect();
        Self {
            rng,
            now_ms: 0,
            hosts,
            connections,
            weather,
            one_way_cuts: BTreeSet::new(),
            clocks_ms,
            steps_per_piece,
        }
    }

    pub(crate) fn node(&mut self, host: usize) -> Option<&mut Node> {
        self.hosts[host]
            .process
            .as_mut()
            .map(|process| &mut process.node)
    }

    /// What a host's clock shows that counts from the beginning.
    pub(crate) fn local_ms(&self, host: usize) -> u64 {
        self.now_ms * self.hosts[host].clock_rate / 1000
    }

    /// Whether a process stands still.
    pub(crate) fn is_paused(&self, host: usize) -> bool {
        self.now_ms < self.hosts[host].paused_until_ms
    }

    /// Starts a host; false if its disk failed on the way, which is a crash.
    pub(crate) fn start(&mut self, host: usize) -> bool {
        let mut seed = [0; 16];
        self.rng.fill(&mut seed);
        let mut ids = IdGenerator::new(seed);
        let time_ms = self.clocks_ms[host] + self.now_ms;
        let number = u8::try_from(host + 1).expect("few hosts");
        let host = &mut self.hosts[host];
        host.incarnation += 1;
        let config = config_of(&host.arguments);
        let engine = Options {
            memtable_bytes: config.memtable_bytes,
            hash_seed: self.rng.u64(..),
        };
        let (fsync, first) = (config.fsync, (!config.await_assignment).then_some(0));
        let mut node = Node::new(config, engine.hash_seed, ids.split());
        if let Some(options) = &host.cluster {
            node.join_cluster(options.clone());
        }
        let mut worker = None;
        if let Some(disks) = &host.disks {
            let options = RecoveryOptions {
                engine,
                fresh_history: HistoryId([0; 16]),
                // Only a seeded bug uses it.
                fresh_copy: CopyId([number; 16]),
                fsync,
                accept_data_loss: false,
                log_file_bytes: 30_000,
            };
            let mut found = disks.partitions().expect("ours");
            if found.is_empty() {
                found.extend(first);
            }
            let mut made = DiskWorker::new(disks.clone(), options, ids, fsync);
            for id in found {
                match made.load(id, &mut |_| {}) {
                    Ok(loaded) => drop(node.on_disk_event(DiskEvent::Loaded(Box::new(loaded)))),
                    // There is nothing to read with: it is to be started again.
                    Err(error) if error.is_passing() => {
                        let is_short =
                            |disk: &SimDisk| disk.shortage() == Some(Shortage::Descriptors);
                        assert!(
                            disks.all().iter().any(is_short),
                            "a node does not start: {error}"
                        );
                        return false;
                    }
                    Err(StorageError::Io { .. }) => {
                        disks.all().iter().for_each(SimDisk::crash);
                        return false;
                    }
                    Err(error) => panic!("a node does not start: {error}"),
                }
            }
            node.on_disk_event(DiskEvent::Ready);
            worker = Some(made);
        }
        log::debug!("{}: a node starts", self.now_ms);
        node.set_time_ms(time_ms);
        host.process = Some(Process {
            node,
            worker,
            queue: VecDeque::new(),
        });
        true
    }

    /// The disks of a node that runs fail: nothing more is written, and what waits is dropped.
    pub(crate) fn fail_disk(&mut self, host: usize) {
        let Some(process) = &mut self.hosts[host].process else {
            return;
        };
        process.queue.clear();
        if process.worker.take().is_some() {
            let error = std::io::Error::other("the disk fails");
            let failed = StorageError::io("sync", "log".to_owned(), &error);
            process.node.on_disk_event(DiskEvent::Failed(failed));
        }
    }

    /// Whether the disks of a node have failed.
    pub(crate) fn has_failed_disk(&self, host: usize) -> bool {
        let of = &self.hosts[host];
        let is_without = |process: &Process| process.worker.is_none();
        of.disks.is_some() && of.process.as_ref().is_some_and(is_without)
    }

    /// Ends a process: killed, or with the power of its machine.
    pub(crate) fn crash(&mut self, host: usize, with_power: bool) {
        if self.hosts[host].process.take().is_none() {
            return;
        }
        self.hosts[host].ended.clear();
        log::debug!(
            "{}: node {host} crashes, with power: {with_power}",
            self.now_ms
        );
        if let Some(disks) = self.hosts[host].disks.as_ref().filter(|_| with_power) {
            disks.all().iter().for_each(SimDisk::crash);
        }
        let is_of = |connection: &Connection| connection.ends.iter().any(|end| end.host == host);
        for at in (0..self.connections.len()).rev() {
            if is_of(&self.connections[at]) {
                self.close(at, &LinkError::Closed);
            }
        }
    }

    pub(crate) fn set_weather(&mut self, a: usize, b: usize, weather: Weather) {
        self.weather.insert((a.min(b), a.max(b)), weather);
        if weather == Weather::Cut {
            let lost = LinkError::Lost("the network is cut".to_owned());
            for at in (0..self.connections.len()).rev() {
                let [x, y] = &self.connections[at].ends;
                if (x.host.min(y.host), x.host.max(y.host)) == (a.min(b), a.max(b)) {
                    self.close(at, &lost);
                }
            }
        }
    }

    fn weather(&self, a: usize, b: usize) -> Weather {
        self.weather
            .get(&(a.min(b), a.max(b)))
            .copied()
            .unwrap_or(Weather::Fine)
    }

    fn close(&mut self, at: usize, reason: &LinkError) {
        // Nothing is damaged here but by the nodes themselves.
        let mut ends = self.connections[at].ends.iter();
        let has_liar = ends.any(|end| self.hosts[end.host].is_liar);
        let is_fault = reason.is_fault_of_peer() && !has_liar;
        assert!(!is_fault, "a connection ended: {reason}");
        let connection = self.connections.swap_remove(at);
        log::debug!(
            "{}: {} and {}: {reason}",
            self.now_ms,
            connection.ends[0].host,
            connection.ends[1].host
        );
        for end in connection.ends {
            self.hosts[end.host].ended.push((end.link, reason.clone()));
            self.notice_ends(end.host);
        }
    }

    /// A node hears of the connections that have ended, unless it stands still.
    fn notice_ends(&mut self, host: usize) {
        if self.is_paused(host) {
            return;
        }
        let now_ms = self.local_ms(host);
        for (link, reason) in std::mem::take(&mut self.hosts[host].ended) {
            if let Some(node) = self.node(host) {
                node.close_link(link, &reason, now_ms);
            }
        }
    }

    /// Some time passes, and everything that is due happens, or a part of it.
    pub(crate) fn step(&mut self, passed_ms: u64) {
        self.now_ms += passed_ms;
        for host in 0..self.hosts.len() {
            if self.is_paused(host) {
                continue;
            }
            self.notice_ends(host);
            let time_ms = self.clocks_ms[host] + self.now_ms;
            if let Some(node) = self.node(host) {
                node.set_time_ms(time_ms);
            }
            self.step_disk(host);
            self.dial(host);
        }
        for at in (0..self.connections.len()).rev() {
            if let Err(reason) = self.step_connection(at) {
                self.deliver_last_words(at);
                self.close(at, &reason);
            }
        }
        for host in 0..self.hosts.len() {
            let budget = self.rng.usize(1..400_000);
            if self.is_paused(host) {
                continue;
            }
            if let Some(node) = self.node(host) {
                node.maintain(budget);
            }
        }
    }

    fn step_disk(&mut self, host: usize) {
        let now_us = self.local_ms(host) * 1_000;
        let hangs = self.now_ms < self.hosts[host].disk_hangs_until_ms;
        let Some(process) = &mut self.hosts[host].process else {
            return;
        };
        let Process {
            node,
            worker: Some(worker),
            queue,
        } = process
        else {
            return;
        };
        while let Some(command) = node.take_disk_command(now_us) {
            queue.push_back(command);
        }
        if hangs {
            return;
        }
        let mut events = Vec::new();
        let mut work = || {
            let mut tell = |event| events.push(event);
            for _ in 0..self.rng.usize(..4) {
                let Some(command) = queue.pop_front() else {
                    break;
                };
                worker.execute(command, &mut tell)?;
            }
            if self.rng.u8(..4) == 0 {
                worker.execute(DiskCommand::Sync, &mut tell)?;
            }
            if worker.is_stalled() && self.rng.u8(..4) == 0 {
                worker.try_stalled(&mut tell)?;
            }
            worker.commit(&mut tell)?;
            if self.rng.u8(..3) == 0 {
                worker.rest()?;
            }
            if self.rng.u8(..200) == 0 {
                worker.sync_log_ends()?;
            }
            if self.rng.u32(..self.steps_per_piece) == 0 {
                worker.write_piece(&mut tell)?;
            }
            Ok(())
        };
        let outcome: Result<(), StorageError> = work();
        for event in events {
            let news = node.on_disk_event(event);
            let is_fatal = matches!(news, DiskNews::Failed(..) | DiskNews::Closed);
            assert!(!is_fatal, "{news:?}");
        }
        // The only errors are those of a power cut.
        if let Err(error) = outcome {
            assert!(error.to_string().contains("the power is off"), "{error}");
            self.crash(host, true);
        }
    }

    fn dial(&mut self, host: usize) {
        let now_ms = self.local_ms(host);
        while let Some(dial) = self.node(host).and_then(|node| node.take_dial(now_ms)) {
            let partition = dial.partition;
            let other = host_of(&dial.leader);
            let is_there = other != host && self.hosts[other].process.is_some();
            let is_cut = matches!(self.weather(host, other), Weather::Cut | Weather::Stalled)
                || self.one_way_cuts.contains(&(host, other))
                || self.one_way_cuts.contains(&(other, host));
            if !is_there || is_cut {
                let node = self.node(host).expect("it dials");
                node.on_unreachable(&dial, DialFailure::new("it is not there"), now_ms);
                continue;
            }
            let (mut out, id) = (Vec::new(), self.next_link(host));
            let link = self
                .node(host)
                .and_then(|node| node.connected(id, &dial, now_ms, &mut out));
            let Some(link) = link else { continue };
            let other_id = self.next_link(other);
            let hello = self.hello_of(host, partition);
            let end = |host, id, link, out, hello| {
                let (wire, held) = (VecDeque::new(), Vec::new());
                End {
                    host,
                    id,
                    link,
                    out,
                    wire,
                    held,
                    hello,
                }
            };
            let accepted = Link::accepted(address(host), self.local_ms(other));
            let ends = [
                end(host, id, link, out, None),
                end(other, other_id, accepted, Vec::new(), hello),
            ];
            self.connections.push(Connection { ends });
        }
    }

    /// Where a node stands that wants to follow another.
    fn hello_of(&mut self, from: usize, partition: u32) -> Option<(PartitionMeta, u64)> {
        let partition = self.node(from)?.partition(partition).ok()?;
        let roles = partition.roles();
        let is_visit = roles.role() != Role::Replica || roles.is_taking_over();
        (!is_visit).then(|| (roles.meta().clone(), partition.lsm().last_version()))
    }

    fn next_link(&mut self, host: usize) -> LinkId {
        self.hosts[host].next_link += 1;
        LinkId(self.hosts[host].next_link)
    }

    fn step_connection(&mut self, at: usize) -> Result<(), LinkError> {
        let hosts = self.connections[at].ends.each_ref().map(|end| end.host);
        let step_bytes = match self.weather(hosts[0], hosts[1]) {
            Weather::Stalled => 0,
            Weather::Slow(bytes) => self.rng.usize(..=bytes),
            Weather::Fine => self.rng.usize(1..100_000),
            Weather::Cut => return Err(LinkError::Lost("the network is cut".to_owned())),
        };
        for side in 0..2 {
            let sent = self.send(at, side, step_bytes);
            let taken = self.take(at, 1 - side, step_bytes);
            sent.and(taken)?;
        }
        Ok(())
    }

    /// What each side has said before it closed reaches the other, refusals and farewells, unless
    /// the network swallows it.
    fn deliver_last_words(&mut self, at: usize) {
        let hosts = self.connections[at].ends.each_ref().map(|end| end.host);
        if matches!(
            self.weather(hosts[0], hosts[1]),
            Weather::Cut | Weather::Stalled
        ) {
            return;
        }
        for side in 0..2 {
            let [a, b] = &mut self.connections[at].ends;
            let (from, to) = if side == 0 { (a, b) } else { (b, a) };
            let mut words: Vec<u8> = std::mem::take(&mut to.held);
            words.extend(to.wire.drain(..));
            words.append(&mut from.out);
            let mut input = &words[..];
            let mut answer = Vec::new();
            if self.now_ms < self.hosts[to.host].paused_until_ms {
                continue;
            }
            let now_ms = self.now_ms * self.hosts[to.host].clock_rate / 1000;
            let Some(process) = &mut self.hosts[to.host].process else {
                continue;
            };
            // How it takes them no longer matters: the connection ends.
            let _ = process
                .node
                .receive(to.id, &mut to.link, &mut input, now_ms, &mut answer);
        }
    }

    /// One end sends.
    fn send(&mut self, at: usize, side: usize, step_bytes: usize) -> Result<(), LinkError> {
        let Self {
            connections,
            hosts,
            now_ms,
            rng,
            one_way_cuts,
            ..
        } = self;
        let [a, b] = &mut connections[at].ends;
        let (from, to) = if side == 0 { (a, b) } else { (b, a) };
        let local_ms = *now_ms * hosts[from.host].clock_rate / 1000;
        let is_cut = one_way_cuts.contains(&(from.host, to.host));
        if *now_ms < hosts[from.host].paused_until_ms {
            return Ok(());
        }
        let node = &mut hosts[from.host]
            .process
            .as_mut()
            .expect("connections end with their hosts")
            .node;
        let budget = if from.out.is_empty() {
            rng.usize(1..100_000)
        } else {
            0
        };
        node.fill(&mut from.link, budget, local_ms, &mut from.out)?;
        if !from.link.is_handshake() {
            from.out.append(&mut hosts[from.host].forged);
        }
        let room = WIRE_BYTES
            .saturating_sub(to.wire.len())
            .min(if is_cut { 0 } else { step_bytes })
            .min(from.out.len());
        to.wire.extend(from.out.drain(..room));
        Ok(())
    }

    /// One end takes in what has come.
    fn take(&mut self, at: usize, side: usize, step_bytes: usize) -> Result<(), LinkError> {
        let Self {
            connections,
            hosts,
            now_ms,
            ..
        } = self;
        let end = &mut connections[at].ends[side];
        let local_ms = *now_ms * hosts[end.host].clock_rate / 1000;
        if *now_ms < hosts[end.host].paused_until_ms {
            return Ok(());
        }
        let node = &mut hosts[end.host]
            .process
            .as_mut()
            .expect("connections end with their hosts")
            .node;
        if !node.wants_input(&end.link) {
            return Ok(());
        }
        let len = end.wire.len().min(step_bytes);
        end.held.extend(end.wire.drain(..len));
        if end.held.is_empty() {
            return Ok(());
        }
        let held = std::mem::take(&mut end.held);
        let mut input = &held[..];
        let was_greeted = !end.link.is_handshake();
        let heard_epoch = end
            .hello
            .as_ref()
            .map_or(0, |hello| believed_epoch(node, hello));
        let outcome = node.receive(end.id, &mut end.link, &mut input, local_ms, &mut end.out);
        end.held = input.to_vec();
        let has_heard = !was_greeted && (outcome.is_err() || !end.link.is_handshake());
        if has_heard
            && node
                .partition(0)
                .is_ok_and(|partition| partition.roles().role() == Role::Leader)
        {
            assert!(
                epoch_of(node, 0) >= heard_epoch,
                "a leader goes on although a higher epoch was heard"
            );
        }
        outcome
    }
}
