//! All copies in sync are gone for good: what the cluster is told to do then.

use db_node::cluster::MemberState;
use db_node::cluster::config::PartitionConfig;
use db_node::storage::CopyId;

use super::clients::OnceKey;
use super::sim_etcd::Way;
use super::{Kind, Run, name};
use crate::cluster::Weather;

impl Run {
    /// Which copies there are.
    pub(super) fn note_copies(&mut self) {
        for host in 0..self.host_count() {
            let is_down = self.cluster.hosts[host].process.is_none();
            let copy = self.cluster.partition(host).map(|own| own.copy());
            // What is on a disk is there again after a start.
            let is_kept = is_down && self.kind == Kind::Synced;
            self.copies[host] = copy.or(self.copies[host].filter(|_| is_kept));
        }
    }

    fn exists(&self, copy: CopyId) -> bool {
        self.copies.contains(&Some(copy))
    }

    /// A copy leads that was not in sync: then none is left that was.
    pub(super) fn check_loss(&mut self, before: &PartitionConfig, now: &PartitionConfig) {
        let mut kept = before.in_sync.iter().filter(|of| now.is_in_sync(of.copy));
        if before.in_sync.is_empty() || kept.next().is_some() {
            return;
        }
        assert!(self.starts_when_lost, "{before:?}, and then {now:?}");
        let mut before = before.in_sync.iter();
        assert!(
            before.all(|of| !self.exists(of.copy)),
            "a copy is left: {}",
            self.picture()
        );
        self.loss_count += 1;
        self.acked.clear();
        self.operations.clear();
        self.pending.clear();
        self.unanswered.clear();
        (self.once, self.once_before) = (OnceKey::default(), OnceKey::default());
    }

    /// Nodes in memory that are in sync, and lose what they hold.
    fn lost(starts_when_lost: bool) -> Self {
        let mut runs = (1..).map(Self::new);
        let is_fit = |run: &Self| {
            run.kind == Kind::Memory
                && run.config().replicas.len() == 3
                && run.starts_when_lost == starts_when_lost
        };
        let mut run = runs.find(is_fit).expect("one of them is");
        run.pass_until("all are in sync", Self::is_in_sync);
        run.check();
        for _ in 0..20 {
            run.write();
            run.pass_ms(5);
            run.note_answers();
        }
        run
    }
}

#[test]
fn once_all_copies_are_lost_an_operator_is_waited_for() {
    let mut run = Run::lost(false);
    let epoch = run.config().epoch;
    (0..3).for_each(|host| run.cluster.crash(host, false));
    run.start_all();
    for _ in 0..600 {
        run.pass_ms(50);
        run.check();
        assert!(run.open_leader().is_none());
    }
    assert_eq!(run.config().epoch, epoch);
    let host = 1;
    assert_eq!(run.state_of(host), MemberState::AllLost);
}

#[test]
fn once_all_copies_are_lost_one_leads_if_told_so() {
    let mut run = Run::lost(true);
    let epoch = run.config().epoch;
    (0..3).for_each(|host| run.cluster.crash(host, false));
    run.start_all();
    run.pass_until("all are in sync", |run| {
        run.check();
        run.is_in_sync()
    });
    assert!(run.config().epoch > epoch);
    assert_eq!(run.loss_count, 1);
}

/// A copy that is not in sync has data, and is away until one without leads: it follows.
#[test]
fn what_is_left_outside_the_set_gives_way() {
    let mut run = Run::lost(true);
    let leader = run.open_leader().expect("there is one");
    let away = (leader + 1) % 3;
    run.cluster.hosts[away].paused_until_ms = u64::MAX;
    run.pass_until("it leaves the set", |run| run.config().in_sync.len() == 2);
    let lost = [leader, (leader + 2) % 3];
    for host in lost {
        run.cluster.crash(host, false);
    }
    run.start_all();
    run.pass_until("one without the data leads", |run| {
        run.check();
        run.open_leader().is_some()
    });
    run.mend();
    run.pass_until("all are in sync", |run| {
        run.check();
        run.is_in_sync()
    });
    assert_eq!(run.loss_count, 1);
}

/// A copy that is not in sync runs, and has data: it leads, and nothing of that is lost.
#[test]
fn the_copy_with_the_most_data_leads_when_all_in_sync_are_lost() {
    let mut run = Run::lost(true);
    let leader = run.open_leader().expect("there is one");
    // The others are named before it, or after it.
    for away in [(leader + 1) % 3, (leader + 2) % 3] {
        let mut run = Run::lost(true);
        let version = run.last_version(away);
        assert!(version > 0);
        let lost = [0, 1, 2].into_iter().filter(|host| *host != away);
        for host in lost.clone() {
            run.cluster.set_weather(away, host, Weather::Stalled);
        }
        run.pass_until("it leaves the set", |run| run.config().in_sync.len() == 2);
        lost.for_each(|host| run.cluster.crash(host, false));
        for host in 0..3 {
            if host != away {
                run.cluster.set_weather(away, host, Weather::Fine);
            }
        }
        run.start_all();
        run.pass_until("one leads", |run| {
            run.check();
            run.open_leader().is_some()
        });
        assert_eq!(run.open_leader(), Some(away));
        let held = run.last_version(away);
        assert!(held >= version, "{held} of {version}");
        run.pass_until("all are in sync", |run| {
            run.check();
            run.is_in_sync()
        });
    }
}

/// One that cannot be reached is not lost.
#[test]
fn while_a_copy_in_sync_is_left_none_without_the_data_leads() {
    let mut run = Run::lost(true);
    let epoch = run.config().epoch;
    let leader = run.open_leader().expect("there is one");
    let (left, lost) = ((leader + 1) % 3, (leader + 2) % 3);
    run.cluster.hosts[left].paused_until_ms = u64::MAX;
    for host in [leader, lost] {
        run.cluster.set_weather(left, host, Weather::Stalled);
        run.cluster.crash(host, false);
        assert!(run.cluster.start(host));
    }
    for _ in 0..600 {
        run.pass_ms(50);
        run.check();
    }
    assert_eq!((run.config().epoch, run.open_leader()), (epoch, None));
    run.mend();
    run.pass_until("it leads", |run| run.open_leader() == Some(left));
    assert_eq!(run.loss_count, 0);
    run.check();
}

/// A leader has writes that no other copy has, and is gone. None of them was acknowledged, so a
/// copy that holds nothing leads in its place, and it follows once it is back.
#[test]
fn what_was_never_acknowledged_gives_way_to_nothing() {
    let mut runs = (1..).map(Run::new);
    let has_all = |run: &Run| run.config().replicas.len() == run.host_count();
    let is_fit = |run: &Run| run.kind == Kind::Synced && !run.starts_when_lost && has_all(run);
    let mut run = runs.find(is_fit).expect("one of them is");
    run.pass_until("all are in sync", Run::is_in_sync);
    let leader = run.open_leader().expect("there is one");
    let others: Vec<usize> = (0..run.host_count())
        .filter(|host| *host != leader)
        .collect();
    for other in &others {
        run.cluster.set_weather(leader, *other, Weather::Stalled);
    }
    while run.last_version(leader) == 0 {
        run.write();
        run.pass_ms(5);
    }
    run.pass_ms(100);
    run.cluster.crash(leader, false);
    for other in &others {
        assert_eq!(run.last_version(*other), 0);
        run.cluster.set_weather(leader, *other, Weather::Fine);
    }
    run.pass_until("another node leads", |run| run.open_leader().is_some());
    run.start_all();
    run.pass_until("it is loaded", |run| run.partition(leader).is_some());
    assert!(run.last_version(leader) > 0);
    run.pass_until("all are in sync", Run::is_in_sync);
    run.check();
}

/// The node that was to lead first was never started.
#[test]
fn a_new_partition_does_not_wait_for_its_first_leader() {
    for kind in [Kind::Synced, Kind::Memory] {
        let mut runs = (1..).map(Run::new);
        let mut run = runs.find(|run| run.kind == kind).expect("one of them is");
        run.cluster.crash(0, false);
        run.pass_until("another node leads", |run| run.open_leader().is_some());
        run.start_all();
        run.pass_until("all are in sync", Run::is_in_sync);
    }
}

/// A node that etcd does not answer keeps its copy: an operator may have named it meanwhile.
#[test]
fn a_copy_is_given_up_by_what_was_read_lately() {
    let (mut run, leader) = Run::in_sync_with_copies(Kind::Memory, 3);
    let host = (leader + 1) % 3;
    let mut without = (*run.config()).clone();
    without.replicas.retain(|of| *of != name(host));
    without.in_sync.retain(|of| of.node != name(host));
    let key = run.config_key.clone();
    run.etcd.put(&key, without.encode());
    run.pass_ms(10_000);
    assert_eq!(run.state_of(host), MemberState::Unwanted);
    assert_eq!(run.get(host, "/replica").status(), 503);
    let ready = run.get(host, "/readyz");
    assert!(ready.text.contains("not wanted: "), "{}", ready.text);
    run.etcd.ways[host] = Way::Away;
    run.pass_ms(70_000);
    assert!(run.cluster.partition(host).is_some(), "{}", run.picture());
    run.etcd.ways[host] = Way::Fine;
    run.pass_ms(10_000);
    assert!(run.cluster.partition(host).is_none(), "{}", run.picture());
}

/// Nodes go on with what they know, and say what does not work.
#[test]
fn a_configuration_that_cannot_be_read_is_told() {
    let (mut run, leader) = Run::in_sync(Kind::Synced);
    let (replica, value) = ((leader + 1) % 3, run.config().encode());
    let key = run.config_key.clone();
    run.etcd.put(&key, b"{\"format\":2}".to_vec());
    run.pass_ms(6_000);
    for host in [leader, replica] {
        let ready = run.get(host, "/readyz");
        assert_eq!(ready.status(), 200);
        assert!(ready.text.contains("cannot be read"), "{}", ready.text);
        let metrics = run.get(host, "/metrics");
        let told = "dbnode_config_unreadable{partition=\"0\"} 1";
        assert!(metrics.text.contains(told), "{}", metrics.text);
    }
    let body = r#"{"id":0,"from":"n1"}"#;
    let asked = run.ask(leader, "POST", "/partition/move", "", body);
    asked.assert_refused(409, "config_changed");
    run.cluster.crash(replica, false);
    assert!(run.cluster.start(replica));
    run.pass_until("it says so", |run| {
        run.partition(replica).is_some() && run.state_of(replica) == MemberState::Unreadable
    });
    let ready = run.get(replica, "/readyz");
    assert_eq!(ready.status(), 503);
    assert!(ready.text.contains("unreadable: "), "{}", ready.text);
    run.etcd.put(&key, value);
    run.pass_until("all are in sync", Run::is_in_sync);
}

/// The data directory of a node is copied, and another node is started with the copy: the two would
/// confirm writes as one.
#[test]
fn a_copied_data_directory_takes_no_role() {
    let (mut run, leader) = Run::in_sync_with_copies(Kind::Synced, 2);
    let is_other = |host: &usize| *host != leader && run.config().has_replica(&name(*host));
    let owner = (0..3).find(is_other).expect("there is one");
    let copied = 3 - leader - owner;
    run.write();
    run.pass_ms(100);
    run.cluster.crash(owner, false);
    run.cluster.crash(copied, false);
    run.cluster.hosts[copied].disks = run.cluster.hosts[owner].disks.clone();
    assert!(run.cluster.start(copied));
    run.pass_until("it is loaded", |run| run.partition(copied).is_some());
    run.pass_ms(2_000);
    assert_eq!(run.state_of(copied), MemberState::Copied);
    let partition = run.partition(copied).expect("it is there");
    assert_eq!(partition.roles().meta().leader, None);
    let ready = run.get(copied, "/readyz");
    assert!(ready.text.contains("copied data: "), "{}", ready.text);
    // The leader is gone, and so is the node of the copy in sync.
    run.cluster.crash(leader, false);
    run.pass_ms(10_000);
    assert_eq!(run.open_leader(), None);
}

impl Run {
    fn last_version(&mut self, host: usize) -> u64 {
        let partition = self.cluster.partition(host).expect("it is there");
        partition.lsm().last_version()
    }
}
