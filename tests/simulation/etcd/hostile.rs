//! A node of the cluster that has the token and lies: forged beats and grants, between what it
//! says otherwise, one by one and by the thousand.

use db_node::replication::frame::Frame;

use super::{Run, name};
use crate::seeds::seeds;

/// Frames that no node sends, or not from there: with numbers near the newest, and impossible ones.
fn forged(rng: &mut fastrand::Rng) -> Vec<u8> {
    let count = match rng.u32(..100) {
        0 => 5_000,
        1..10 => rng.usize(2..50),
        _ => 1,
    };
    let is_beat = rng.bool();
    let mut bytes = Vec::new();
    for _ in 0..count {
        let number = match rng.u32(..6) {
            0 => u64::MAX - rng.u64(..3),
            1 => rng.u64(..),
            2 => 0,
            _ => rng.u64(..300),
        };
        let frame = if is_beat {
            Frame::Beat(number)
        } else {
            Frame::Grant(number)
        };
        frame.encode(&mut bytes);
    }
    bytes
}

impl Run {
    /// No lease and no promise is longer than one that begins now, and a lease is over before the
    /// promise of an honest node that it is from.
    fn assert_bounded(&mut self) {
        let config = self.config();
        for host in 0..self.host_count() {
            let local_ms = self.cluster.local_ms(host);
            let Some(partition) = self.partition(host) else {
                continue;
            };
            let lease_end_ms = partition.lease_end_ms();
            let has_others = config.in_sync.iter().any(|of| of.node != name(host));
            assert!(
                !partition.leads_in_cluster()
                    || !has_others
                    || config.leader != name(host)
                    || lease_end_ms <= local_ms + config.lease_ms,
                "the lease of {host}: {lease_end_ms} at {local_ms}"
            );
            let promised_ms = partition.promised_until_ms();
            assert!(
                promised_ms <= local_ms + 2_500 + 2_500 / 4,
                "the promise of {host}: {promised_ms} at {local_ms}"
            );
            self.assert_promised(host, config.lease_ms);
        }
    }

    /// What a leader counts on, honest nodes have promised.
    fn assert_promised(&mut self, leader: usize, lease_ms: u64) {
        let since_start = |ms: u64, rate: u64| ms * 1_000 / rate;
        let leader_rate = self.cluster.hosts[leader].clock_rate;
        for host in (0..self.host_count()).filter(|host| *host != leader) {
            let rate = self.cluster.hosts[host].clock_rate;
            let Some(own) = self.partition(host) else {
                continue;
            };
            let (copy, epoch) = (own.copy(), own.roles().meta().epoch);
            let promised_ms = since_start(own.promised_until_ms(), rate);
            let partition = self.partition(leader).expect("it runs");
            let is_same = partition.leads_in_cluster() && partition.roles().meta().epoch == epoch;
            let granted_ms = partition.granted_at_ms(copy).filter(|_| is_same);
            let end_ms = granted_ms.map(|ms| since_start(ms + lease_ms, leader_rate));
            assert!(
                self.cluster.hosts[host].is_liar || end_ms <= Some(promised_ms),
                "{leader} counts on {host} until {end_ms:?}, and not {promised_ms}"
            );
        }
    }
}

#[test]
fn forged_beats_and_grants_do_no_harm() {
    for seed in seeds(60) {
        let mut run = Run::new(seed.0);
        run.pass_until("all are in sync", Run::is_in_sync);
        let mut rng = seed.rng();
        let liar = rng.usize(..run.host_count());
        run.cluster.hosts[liar].is_liar = true;
        let often = [2, 20, 100][rng.usize(..3)];
        for _ in 0..600 {
            if rng.u32(..often) == 0 {
                run.cluster.hosts[liar].forged = forged(&mut rng);
            }
            run.cluster.step(5);
            run.step_etcd();
            run.check();
            run.assert_bounded();
        }
        run.cluster.hosts[liar].forged.clear();
        run.pass_until("all are in sync again", Run::is_in_sync);
    }
}
