//! A leader that is heard and hears nothing.

use super::sim_etcd::Way;
use super::{Kind, Run};

/// It does not take the others out of the set, without hearing that it has: they could not lead.
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
