//! An etcd that has lost some of its history: nodes go on, and none stands.

use db_node::cluster::config::{Key, PartitionConfig};
use db_node::cluster::{Cluster, Member, MemberState};

use super::register::violation;
use super::{Kind, Run, name};
use crate::seeds::seeds;

/// An operator waits for so long until all nodes have read etcd.
const READ_MS: u64 = 8_000;

impl Run {
    /// The member of a host that runs.
    fn member(&mut self, host: usize) -> Option<&Member> {
        let node = self.cluster.node(host)?;
        node.cluster().and_then(|cluster| cluster.member(0))
    }

    /// What a host does.
    fn state(&mut self, host: usize) -> Option<MemberState> {
        let local_ms = self.cluster.local_ms(host);
        let node = self.cluster.node(host)?;
        let (cluster, partition) = (node.cluster()?, node.look_at(0)?);
        Some(Cluster::state_of(cluster, partition, local_ms))
    }

    /// A host that runs, and knows the configuration that etcd has now.
    fn choose_witness(&mut self) -> Option<usize> {
        let config = self.config();
        let knows = |run: &mut Self, host| {
            let is_fit = run.partition(host).is_some() && !run.cluster.has_failed_disk(host);
            is_fit && run.member(host).and_then(Member::config) == Some(&config)
        };
        let hosts: Vec<usize> = (0..self.host_count())
            .filter(|host| knows(self, *host))
            .collect();
        self.cluster.rng.choice(hosts)
    }

    /// An operator looks at all nodes, and says which copy is to lead: that of the node that does,
    /// else the one with the newest data.
    fn recover(&mut self) {
        let leaders: Vec<usize> = (0..self.host_count())
            .filter(|host| self.is_open_for_reads(*host))
            .collect();
        assert!(leaders.len() < 2, "two leaders: {}", self.picture());
        let newest = (0..self.host_count()).max_by_key(|host| {
            let partition = self.cluster.partition(*host);
            partition.map(|own| (own.roles().meta().data_epoch, own.lsm().last_version()))
        });
        let to = leaders
            .first()
            .copied()
            .or(newest)
            .expect("there are nodes");
        let before = self.config().recovered;
        self.pass_until("the order is carried out", |run| {
            let local_ms = run.cluster.local_ms(to);
            let node = run.cluster.node(to).expect("it runs");
            let _ = node.begin_recovery(0, &name(to), local_ms);
            run.pass_ms(200);
            run.config().recovered > before
        });
    }
}

/// Figures about runs in which etcd went back.
#[derive(Debug, Default)]
struct Figures {
    runs: u64,
    /// Those in which a node led on, in which none did, and in which nothing was lost.
    led: u64,
    unled: u64,
    same: u64,
}

/// Etcd is stopped, and comes back as it was at any time before, while nodes crash and start and
/// the network fails.
fn go_back(seed: u64, figures: &mut Figures) {
    let mut run = Run::new(seed);
    if run.kind != Kind::Synced {
        return;
    }
    run.etcd.past_max = usize::MAX;
    for _ in 0..run.cluster.rng.usize(500..4_000) {
        run.step(true);
    }
    run.etcd.stop();
    run.witness = run.choose_witness();
    let Some(witness) = run.witness else { return };
    let last = run.config();
    let down_until_ms = run.cluster.now_ms + 10_000;
    let is_stormy = run.cluster.rng.bool();
    while run.cluster.now_ms < down_until_ms {
        run.step(is_stormy);
    }
    run.etcd.ways[witness] = super::Way::Fine;
    let key = Key::Config(0).in_cluster(&run.prefix);
    run.etcd.go_back(&key, &mut run.cluster.rng);
    let until_ms = run.cluster.now_ms + run.cluster.rng.u64(100..40_000);
    let is_stormy = run.cluster.rng.bool();
    while run.cluster.now_ms < until_ms {
        run.step(is_stormy);
    }
    run.mend();
    run.pass_ms(READ_MS);
    figures.runs += 1;
    let hosts = 0..run.host_count();
    if hosts
        .into_iter()
        .any(|host| run.state(host) == Some(MemberState::EtcdWentBack))
    {
        let is_led = (0..run.host_count()).any(|host| run.is_open_for_reads(host));
        figures.led += u64::from(is_led);
        figures.unled += u64::from(!is_led);
        run.recover();
    } else {
        figures.same += 1;
        let is_same = |config: &PartitionConfig| config.epoch >= last.epoch;
        assert!(is_same(&run.config()), "{last:?}: {}", run.picture());
    }
    (run.witness, run.seen) = (None, None);
    run.settle();
    for (key, operations) in &run.operations {
        let told = operations
            .iter()
            .filter(|one| one.is_write || one.end < u64::MAX);
        let told: Vec<_> = told.cloned().collect();
        if let Some(problem) = violation(&told) {
            panic!("key {}: {problem}", String::from_utf8_lossy(key));
        }
    }
}

/// As long as one node that knows what etcd has lost runs on and reaches it, no other node leads
/// with what a backup says: no two nodes take writes in one epoch, nothing acknowledged is lost.
#[test]
fn an_etcd_that_went_back_makes_no_leader() {
    let mut figures = Figures::default();
    for seed in seeds(300) {
        go_back(seed.0, &mut figures);
    }
    eprintln!("{figures:?}");
    let Figures {
        runs, led, unled, ..
    } = figures;
    assert!(runs < 50 || led.min(unled) > runs / 8);
}

/// Emptied, or restored from a backup: the leader serves by its leases for as long as its replicas
/// are there, and is not replaced when they are not.
#[test]
fn a_leader_goes_on_when_etcd_went_back() {
    for is_emptied in [false, true] {
        let (mut run, _) = Run::in_sync_with_copies(Kind::Synced, 3);
        let backup = run.etcd.values.clone();
        // Another node leads in a later epoch than that of the backup.
        let first = run.open_leader().expect("there is one");
        run.cluster.crash(first, false);
        run.pass_until("another node leads", |run| {
            run.open_leader().is_some_and(|leader| leader != first)
        });
        run.start_all();
        run.pass_until("all are in sync", Run::is_in_sync);
        let leader = run.open_leader().expect("there is one");
        run.etcd.revision += 100;
        run.etcd.values = if is_emptied {
            std::collections::BTreeMap::new()
        } else {
            backup
        };
        for _ in 0..40 {
            run.pass_ms(500);
            let here = run.open_leader();
            assert_eq!(here, Some(leader), "emptied: {is_emptied}");
        }
        // None of the others may lead: what etcd says of them is of another time.
        run.cluster.crash(leader, false);
        run.pass_ms(20_000);
        assert_eq!(run.open_leader(), None, "emptied: {is_emptied}");
    }
}

#[test]
#[cfg(feature = "seeded-bugs")]
fn every_seeded_bug_about_that_is_found() {
    let bugs = db_node::seeded_bugs::SeededBug::HISTORY.into_iter();
    crate::seeded_bugs::assert_found(bugs, 5_000, |seed| go_back(seed, &mut Figures::default()));
}
