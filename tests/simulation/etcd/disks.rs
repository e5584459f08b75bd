//! Disks that hang, fail, or have no room, under the node that leads and others.

use super::{Kind, Run};
use crate::cluster::{Cluster, SimDisks};
use crate::sim_disk::{Shortage, SimDisk};

/// What a disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskFault {
    /// Nothing of what it is told, for so long.
    Hangs(u64),
    /// Nothing any more, and the node hears of it.
    Fails,
    /// It has no room.
    IsFull,
}

/// Leases for which a node leads on with a slow disk, after it has handed over for one.
const REST_LEASES: u64 = 20;

fn set_shortage(cluster: &Cluster, host: usize, shortage: Option<Shortage>) {
    let disks = cluster.hosts[host].disks.iter();
    for disk in disks.flat_map(SimDisks::all) {
        SimDisk::set_shortage(&disk, shortage);
    }
}

impl Run {
    pub(super) fn trouble_disk(&mut self, host: usize, fault: DiskFault) {
        if self.kind == Kind::Memory {
            return;
        }
        self.disk_fault_count += 1;
        match fault {
            DiskFault::Hangs(ms) => {
                let until_ms = self.cluster.now_ms.saturating_add(ms);
                self.cluster.hosts[host].disk_hangs_until_ms = until_ms;
            }
            DiskFault::Fails => self.cluster.fail_disk(host),
            DiskFault::IsFull => {
                set_shortage(&self.cluster, host, Some(Shortage::RoomForAnything));
            }
        }
    }

    /// A disk does something at random.
    pub(super) fn trouble_disk_somehow(&mut self, host: usize) {
        let max_ms = [100, 1_000, 8_000][self.cluster.rng.usize(..3)];
        let fault = match self.cluster.rng.u8(..8) {
            0 => DiskFault::Fails,
            1 | 2 => DiskFault::IsFull,
            _ => DiskFault::Hangs(self.cluster.rng.u64(1..max_ms)),
        };
        // The node has to be started again before its disk works.
        if fault != DiskFault::Fails || self.is_spared(host) {
            self.trouble_disk(host, fault);
        }
    }

    /// All disks work; nodes with failed ones are to be started again.
    pub(super) fn mend_disks(&mut self) {
        for host in 0..self.host_count() {
            self.cluster.hosts[host].disk_hangs_until_ms = 0;
            set_shortage(&self.cluster, host, None);
            if self.cluster.has_failed_disk(host) {
                self.cluster.crash(host, false);
            }
        }
    }

    /// All is well, and the leader's disk takes no writes any more: another node leads soon, and no
    /// acknowledged write is lost.
    pub(super) fn replace_leader_without_disk(&mut self, fault: DiskFault) {
        // A node that has just come to etcd waits before it grants the beats of a new leader.
        self.pass_ms(5_000);
        self.pass_until("a leader", |run| run.open_leader().is_some());
        let leader = self.open_leader().expect("there is one");
        let rest_leases = match fault {
            DiskFault::Hangs(_) | DiskFault::IsFull if self.disk_fault_count > 0 => REST_LEASES,
            _ => 0,
        };
        self.trouble_disk(leader, fault);
        let begun_ms = self.cluster.now_ms;
        let max_ms = (rest_leases + 2) * self.config().lease_ms + 1_500;
        while self.open_leader().is_none_or(|host| host == leader) {
            self.write();
            self.cluster.step(5);
            self.step_etcd();
            self.note_answers();
            self.check();
            let since_ms = self.cluster.now_ms - begun_ms;
            assert!(since_ms < max_ms, "{fault:?}: it stays: {}", self.picture());
        }
    }
}

#[test]
fn a_leader_with_a_disk_that_takes_nothing_is_replaced() {
    for fault in [
        DiskFault::Hangs(u64::MAX),
        DiskFault::Fails,
        DiskFault::IsFull,
    ] {
        for kind in [Kind::Synced, Kind::Written] {
            let (mut run, first) = Run::in_sync_with_copies(kind, 3);
            run.replace_leader_without_disk(fault);
            let config = run.config();
            assert!(config.handed_over, "{fault:?}: {config:?}");
            // It would hold up the writes of the new leader.
            let names = config.in_sync.iter().map(|of| &of.node[..]);
            assert!(names.clone().all(|name| name != super::name(first)));
        }
    }
}

#[test]
fn a_leader_that_was_just_handed_over_to_is_replaced_as_soon() {
    let (mut run, first) = Run::in_sync_with_copies(Kind::Synced, 3);
    let next = (first + 1) % 3;
    let local_ms = run.cluster.local_ms(first);
    let node = run.cluster.node(first).expect("it leads");
    assert!(
        node.begin_handover(0, Some(&super::name(next)), local_ms)
            .is_ok()
    );
    run.pass_until("it leads", |run| {
        run.open_leader() == Some(next) && run.is_in_sync()
    });
    run.replace_leader_without_disk(DiskFault::Hangs(u64::MAX));
}

/// A leader with no other copy in sync goes on: reads are answered. Once others have come back, one
/// of them leads.
#[test]
fn a_leader_alone_stays_though_its_disk_takes_nothing() {
    for fault in [DiskFault::Hangs(u64::MAX), DiskFault::Fails] {
        let (mut run, leader) = Run::in_sync_with_copies(Kind::Synced, 3);
        for other in (0..3).filter(|other| *other != leader) {
            run.cluster.crash(other, false);
        }
        run.pass_until("it is alone", |run| run.config().in_sync.len() == 1);
        run.trouble_disk(leader, fault);
        let epoch = run.config().epoch;
        for _ in 0..400 {
            run.write();
            run.pass_ms(20);
        }
        assert_eq!(run.config().epoch, epoch);
        assert!(run.is_open_for_reads(leader), "{fault:?}");
        run.start_all();
        run.pass_until("another leads", |run| {
            run.check();
            run.open_leader().is_some_and(|host| host != leader)
        });
    }
}

/// Two nodes with slow disks do not hand over to each other again and again.
#[test]
fn slow_disks_do_not_have_the_leader_change_again_and_again() {
    let (mut run, _) = Run::in_sync_with_copies(Kind::Synced, 3);
    let (epoch, lease_ms) = (run.config().epoch, run.config().lease_ms);
    let until_ms = run.cluster.now_ms + 40 * lease_ms;
    while run.cluster.now_ms < until_ms {
        // Whichever node leads, its disk stands still for longer than a lease, now and then.
        if let Some(leader) = run.open_leader()
            && run.cluster.hosts[leader].disk_hangs_until_ms < run.cluster.now_ms
            && run.cluster.chance(10)
        {
            run.trouble_disk(leader, DiskFault::Hangs(lease_ms * 3 / 2));
        }
        run.write();
        run.pass_ms(20);
    }
    let change_count = run.config().epoch - epoch;
    assert!((1..=9).contains(&change_count), "{change_count} changes");
}
