//! Clocks that are wrong, in simulated clusters: what has expired stays so, and nothing expires
//! because another node leads.

use db_node::lsm::NewValue;
use db_node::partition::{Assignment, Conditions};
use db_node::storage::Role;

use crate::cluster::{Cluster, address};
use crate::seeds::seeds;

fn assign(cluster: &mut Cluster, host: usize, epoch: u64, leader: Option<usize>) {
    let order = Assignment {
        role: leader.map_or(Role::Leader, |_| Role::Replica),
        epoch: Some(epoch),
        leader: leader.map(address),
        peers: Vec::new(),
    };
    let node = cluster.node(host).expect("it is up");
    node.assign(0, order).expect("a higher epoch");
}

fn has(cluster: &mut Cluster, host: usize, key: &str) -> bool {
    let node = cluster.node(host).expect("it is up");
    let partition = node.partition(0).expect("it is here");
    partition.get(key.as_bytes()).is_some()
}

fn set(cluster: &mut Cluster, host: usize, key: &str, ttl_ms: u64) {
    let node = cluster.node(host).expect("it is up");
    let partition = node.partition(0).expect("it is here");
    let value = NewValue::Inline(b"v");
    let set = partition.set(key.as_bytes(), value, Some(ttl_ms), &Conditions::default());
    set.expect("no conditions");
}

/// Steps until something is so.
fn step_until(cluster: &mut Cluster, what: &str, mut is_so: impl FnMut(&mut Cluster) -> bool) {
    for _ in 0..20_000 {
        if is_so(cluster) {
            return;
        }
        cluster.step(1);
    }
    panic!("{what}: not in 20 s");
}

/// A leader with a clock ahead of its replica's, or behind it, by so much; it writes keys, is
/// lost, and the replica leads. Twice, so that the first one's clock counts on a third node, too.
#[test]
fn what_has_expired_stays_so_when_another_node_leads() {
    for (seed, ahead_ms) in [8_000, -8_000, 60_000, -60_000, 3_600_000]
        .into_iter()
        .enumerate()
    {
        let rng = fastrand::Rng::with_seed(seed as u64);
        let mut cluster = Cluster::new(rng, 3, false, &["--await-assignment"]);
        let base_ms = 10_000_000;
        let first_ms = 10_000_000_u64.saturating_add_signed(ahead_ms);
        cluster.clocks_ms = vec![first_ms, base_ms, base_ms + 500];
        for host in 0..3 {
            assert!(cluster.start(host));
        }
        assign(&mut cluster, 0, 1, None);
        for host in [1, 2] {
            assign(&mut cluster, host, 1, Some(0));
        }
        let node = |cluster: &mut Cluster| cluster.node(0).is_some();
        step_until(&mut cluster, "a node", node);
        for _ in 0..3_000 {
            cluster.step(1);
        }
        set(&mut cluster, 0, "short", 3_000);
        set(&mut cluster, 0, "long", 100_000);
        for host in [1, 2] {
            step_until(&mut cluster, "the replica has both", |cluster| {
                has(cluster, host, "short") && has(cluster, host, "long")
            });
        }
        for host in 0..3 {
            step_until(&mut cluster, "it expires", |cluster| {
                !has(cluster, host, "short")
            });
        }
        assert!(cluster.now_ms < 7_000, "{ahead_ms}: {}", cluster.now_ms);
        for (epoch, old, new, other) in [(2, 0, 1, Some(2)), (3, 1, 2, None)] {
            cluster.crash(old, false);
            assign(&mut cluster, new, epoch, None);
            if let Some(other) = other {
                assign(&mut cluster, other, epoch, Some(new));
            }
            for _ in 0..12_000 {
                cluster.step(1);
                for host in [Some(new), other].into_iter().flatten() {
                    let what = format!("{ahead_ms} ms, node {host} at {}", cluster.now_ms);
                    assert!(!has(&mut cluster, host, "short"), "{what}: it is back");
                    assert!(has(&mut cluster, host, "long"), "{what}: ended early");
                }
            }
        }
        // In its own time the other one ends as well.
        for _ in 0..90_000 {
            cluster.step(1);
        }
        assert!(!has(&mut cluster, 2, "long"), "{ahead_ms}: it lives on");
    }
}

/// A node is killed, or its power cut, when a value has expired, and its clock is set back while it
/// is down.
#[test]
fn what_has_expired_stays_so_over_a_restart() {
    for seed in seeds(30) {
        let mut rng = seed.rng();
        let back_ms = [3_000, 8_000, 3_600_000][rng.usize(..3)];
        let with_power = rng.bool();
        let mut cluster = Cluster::new(rng, 1, true, &[]);
        cluster.clocks_ms = vec![10_000_000];
        assert!(cluster.start(0));
        set(&mut cluster, 0, "short", 3_000);
        set(&mut cluster, 0, "long", 100_000);
        step_until(&mut cluster, "it expires", |cluster| {
            !has(cluster, 0, "short")
        });
        // What a start goes by is written within 100 ms, and synced within a second.
        for _ in 0..if with_power { 1_500 } else { 200 } {
            cluster.step(1);
        }
        cluster.crash(0, with_power);
        cluster.clocks_ms[0] -= back_ms;
        assert!(cluster.start(0));
        for _ in 0..12_000 {
            let what = format!("{back_ms} ms back, power cut: {with_power}");
            assert!(!has(&mut cluster, 0, "short"), "{what}: it is back");
            assert!(has(&mut cluster, 0, "long"), "{what}: ended early");
            cluster.step(1);
        }
        for _ in 0..95_000 {
            cluster.step(1);
        }
        assert!(!has(&mut cluster, 0, "long"), "it lives on");
    }
}

/// Time also passes while a node is down.
#[test]
fn what_expires_while_a_node_is_down_is_gone_when_it_is_back() {
    let mut cluster = Cluster::new(fastrand::Rng::with_seed(1), 1, true, &[]);
    cluster.clocks_ms = vec![10_000_000];
    assert!(cluster.start(0));
    set(&mut cluster, 0, "short", 3_000);
    set(&mut cluster, 0, "long", 100_000);
    for _ in 0..1_500 {
        cluster.step(1);
    }
    cluster.crash(0, false);
    cluster.clocks_ms[0] += 50_000;
    assert!(cluster.start(0));
    assert!(!has(&mut cluster, 0, "short"), "it lives on");
    assert!(has(&mut cluster, 0, "long"), "it ended early");
}

/// Whatever a leader's clock shows, its replica goes on.
#[test]
fn a_leader_whose_clock_shows_nonsense_does_no_harm() {
    for (seed, clock_ms) in [1 << 63, u64::MAX - 1_000_000, 1].into_iter().enumerate() {
        let rng = fastrand::Rng::with_seed(seed as u64);
        let mut cluster = Cluster::new(rng, 2, false, &["--await-assignment"]);
        cluster.clocks_ms = vec![clock_ms, 10_000_000];
        assert!(cluster.start(0) && cluster.start(1));
        assign(&mut cluster, 0, 1, None);
        assign(&mut cluster, 1, 1, Some(0));
        for _ in 0..5_000 {
            cluster.step(1);
        }
        set(&mut cluster, 0, "key", 100_000);
        step_until(&mut cluster, "the replica has heard of it", |cluster| {
            let partition = cluster.node(1).expect("it is up").partition(0);
            partition.expect("it is here").lsm().last_version() == 1
        });
    }
}
