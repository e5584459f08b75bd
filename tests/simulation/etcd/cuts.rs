//! Nodes that hear only some of the others, or nothing of etcd's watch.

use db_node::cluster::MemberState;

use super::sim_etcd::Way;
use super::{Kind, Run, name};
use crate::cluster::Weather;

/// A leader that is heard and hears nothing does not take the others out of the set: it would not
/// hear that it has, and would keep them from leading.
#[test]
fn a_leader_that_hears_nothing_is_replaced() {
    let (mut run, leader) = Run::in_sync(Kind::Synced);
    for host in (0..3).filter(|host| *host != leader) {
        run.cluster.one_way_cuts.insert((host, leader));
    }
    run.etcd.ways[leader] = Way::Mute;
    run.pass_until("another node leads", |run| {
        run.open_leader().is_some_and(|host| host != leader)
    });
}

/// Where its watch is silent, the node that is to lead asks etcd once the leader before ends its
/// link.
#[test]
fn a_hand_over_does_not_wait_for_the_watch() {
    let (mut run, leader) = Run::in_sync(Kind::Synced);
    let next = (leader + 1) % 3;
    run.etcd.is_deaf[next] = true;
    let begun_ms = run.cluster.now_ms;
    assert!(run.begin_handover(leader, next));
    run.pass_until("it leads", |run| run.open_leader() == Some(next));
    let passed_ms = run.cluster.now_ms - begun_ms;
    assert!(passed_ms < 500, "after {passed_ms} ms");
}

/// A copy stands, gives its request up, and hears the leader again before etcd carries it out. The
/// leader does not reach etcd: it ends by its lease before the copy leads.
#[test]
pub(super) fn a_stand_is_carried_out_late() {
    let (mut run, leader) = Run::in_sync_with_copies(Kind::Synced, 2);
    let lease_ms = run.config().lease_ms;
    let is_other = |host: &usize| *host != leader && run.config().has_replica(&name(*host));
    let other = (0..3).find(is_other).expect("there is one");
    (run.etcd.ways[leader], run.etcd.is_deaf[leader]) = (Way::Away, true);
    run.cluster.set_weather(leader, other, Weather::Stalled);
    run.pass_until("it stands", |run| run.etcd.host_of_change() == Some(other));
    let carried_at_ms = run.cluster.now_ms + 2 * lease_ms + 1_500;
    run.etcd.carry_out_at(other, carried_at_ms);
    run.cluster.set_weather(leader, other, Weather::Fine);
    run.pass_until("it leads", |run| {
        run.check();
        run.open_leader() == Some(other)
    });
    assert!(
        run.cluster.now_ms >= carried_at_ms + lease_ms / 2,
        "{}",
        run.picture()
    );
}

impl Run {
    fn begin_handover(&mut self, leader: usize, to: usize) -> bool {
        let local_ms = self.cluster.local_ms(leader);
        let node = self.cluster.node(leader).expect("it runs");
        node.begin_handover(0, Some(&name(to)), local_ms).is_ok()
    }
}

/// Only etcd ends a hand-over: where it does not answer, none begins, and the leader goes on.
#[test]
fn without_etcd_no_hand_over_begins() {
    let (mut run, leader) = Run::in_sync(Kind::Synced);
    (run.etcd.ways[leader], run.etcd.is_deaf[leader]) = (Way::Away, true);
    for _ in 0..2 {
        assert!(run.begin_handover(leader, (leader + 1) % 3));
        for _ in 0..500 {
            run.pass_ms(5);
            assert_eq!(run.open_leader(), Some(leader), "{}", run.picture());
        }
    }
    run.etcd.ways[leader] = Way::Fine;
    run.pass_ms(5_000);
    assert_eq!(
        run.open_leader(),
        Some(leader),
        "an old order is carried out"
    );
}

/// A leader that does not hear whether it has handed over serves nothing any more: where the others
/// reach etcd, one of them leads.
#[test]
fn a_leader_whose_hand_over_is_in_doubt_makes_way() {
    let (mut run, leader) = Run::in_sync(Kind::Synced);
    let epoch = run.config().epoch;
    assert!(run.begin_handover(leader, (leader + 1) % 3));
    run.pass_until("etcd is asked", |run| {
        run.etcd.host_of_change() == Some(leader)
    });
    run.etcd.carry_out_at(leader, u64::MAX);
    (run.etcd.ways[leader], run.etcd.is_deaf[leader]) = (Way::Away, true);
    run.pass_until("another node leads", |run| {
        run.check();
        run.open_leader().is_some_and(|host| host != leader)
    });
    assert!(run.config().epoch > epoch);
}

/// A node that was started with another lease has it in force in the epoch after its own.
#[test]
fn a_new_lease_comes_with_a_hand_over() {
    let own_lease_ms = |run: &Run, host: usize| {
        let cluster = run.cluster.hosts[host].cluster.as_ref();
        cluster.expect("it is one of a cluster").lease_ms
    };
    let differs = |run: &Run| run.host_count() == 3 && own_lease_ms(run, 1) != own_lease_ms(run, 0);
    let mut runs = (1..99).map(Run::new).filter(differs);
    let mut run = runs.next().expect("one of them is");
    run.pass_until("all are in sync", Run::is_in_sync);
    for (leader, to) in [(0, 1), (1, 0)] {
        assert_eq!(run.open_leader(), Some(leader));
        assert!(run.begin_handover(leader, to));
        run.pass_until("it leads", |run| run.open_leader() == Some(to));
        assert_eq!(run.config().lease_ms, own_lease_ms(&run, leader));
        run.pass_until("all are in sync", Run::is_in_sync);
    }
}

/// Replicas would promise less than the leader counts on.
#[test]
fn a_lease_that_was_changed_by_hand_is_not_believed() {
    let (mut run, leader) = Run::in_sync(Kind::Synced);
    let mut config = (*run.config()).clone();
    config.lease_ms += 1;
    let key = run.config_key.clone();
    run.etcd.put(&key, config.encode());
    run.pass_ms(6_000);
    for host in 0..3 {
        assert_eq!(run.state_of(host), MemberState::EtcdWentBack);
    }
    assert_eq!(run.open_leader(), Some(leader), "it goes on");
}
