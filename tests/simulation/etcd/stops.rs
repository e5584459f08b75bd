//! Nodes that are told to stop, and do so in order, as in `reactor/event_loop.rs`: each hands over
//! what it leads, and takes its copies out of the sets of those in sync.

use db_node::api::CommitGate;
use db_node::partition::WaitProgress;

use super::sim_etcd::Way;
use super::{Kind, Run, name};

/// As in `reactor/limits.rs`: how long a node that stops stays at most where it leads a partition,
/// and where it leads none; in that case, how long at least.
const LEAVE_MS: u64 = 1_000;
const LEAVE_SETS_MS: u64 = 500;
const LINGER_SETS_MS: u64 = 250;

/// The stop of a node that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    incarnation: u64,
    least_ms: u64,
    most_ms: u64,
}

impl Run {
    /// Tells a node to stop.
    pub(super) fn begin_stop(&mut self, host: usize) {
        let (now_ms, incarnation) = (self.cluster.now_ms, self.cluster.hosts[host].incarnation);
        let node = self.cluster.node(host).expect("it runs");
        let leads = !node.begin_leaving().handing_over.is_empty();
        let most_ms = if leads { LEAVE_MS } else { LEAVE_SETS_MS };
        self.stops[host] = Some(Stop {
            incarnation,
            least_ms: now_ms + LINGER_SETS_MS,
            most_ms: now_ms + most_ms,
        });
    }

    /// Ends the nodes that have left or have no more time; `is_now`: all that were told to stop.
    pub(super) fn end_stops(&mut self, is_now: bool) {
        for host in 0..self.host_count() {
            let Some(stop) = self.stops[host] else {
                continue;
            };
            let is_same = self.cluster.hosts[host].incarnation == stop.incarnation;
            let Some(node) = self.cluster.node(host).filter(|_| is_same) else {
                self.stops[host] = None;
                continue;
            };
            let has_left = node.has_left();
            let now_ms = self.cluster.now_ms;
            let is_over = now_ms >= stop.most_ms || (has_left && now_ms >= stop.least_ms);
            if is_now || (is_over && self.is_spared(host)) {
                self.stops[host] = None;
                self.cluster.crash(host, false);
            }
        }
    }
}

/// A client that writes all the time.
#[derive(Debug, Default)]
struct Writer {
    waiting: Vec<(u64, CommitGate)>,
    longest_wait_ms: u64,
}

impl Writer {
    /// A write, and a few milliseconds.
    fn pass(&mut self, run: &mut Run, leader: usize) {
        let asked = run.ask(leader, "PUT", "/kv/a", "", "value");
        assert!([200, 201].contains(&asked.status()), "{}", asked.text);
        let now_ms = run.cluster.now_ms;
        self.waiting.extend(asked.gate.map(|gate| (now_ms, gate)));
        run.cluster.step(5);
        run.step_etcd();
        run.end_stops(false);
        self.waiting.retain(|(asked_ms, gate)| {
            let waited_ms = run.cluster.now_ms - asked_ms;
            self.longest_wait_ms = self.longest_wait_ms.max(waited_ms);
            let progress = run.progress(leader, *gate);
            assert_ne!(progress, WaitProgress::Never);
            matches!(progress, WaitProgress::UpTo(number) if number < gate.number)
        });
    }
}

/// No write waits for a replica that stops, also where etcd takes its time.
#[test]
fn a_replica_leaves_the_set_before_it_stops() {
    for kind in [Kind::Synced, Kind::Memory] {
        let (mut run, leader) = Run::in_sync(kind);
        let replica = (leader + 1) % 3;
        run.etcd.ways.fill(Way::Slow(150));
        let mut writer = Writer::default();
        run.begin_stop(replica);
        while run.cluster.node(replica).is_some() {
            writer.pass(&mut run, leader);
        }
        assert!(!run.config().has_in_sync(&name(replica)));
        for _ in 0..200 {
            writer.pass(&mut run, leader);
        }
        assert!(writer.longest_wait_ms < 100, "{writer:?}");
    }
}

/// Where the leader is not heard, a copy that stops stays in the set: it may be needed to lead.
#[test]
fn a_copy_in_sync_stays_one_while_no_leader_is_heard() {
    let (mut run, leader) = Run::in_sync(Kind::Synced);
    let replica = (leader + 1) % 3;
    for host in (0..3).filter(|host| *host != replica) {
        run.cluster.crash(host, false);
    }
    run.pass_ms(run.lease_ms / 2);
    run.begin_stop(replica);
    run.pass_ms(LEAVE_SETS_MS);
    run.end_stops(false);
    assert!(run.cluster.node(replica).is_none());
    assert!(run.config().has_in_sync(&name(replica)));
}

/// A copy that stops and is still in the set grants beats: the leader would be fenced.
#[test]
fn a_copy_grants_until_it_is_out_of_the_set() {
    let (mut run, leader) = Run::in_sync(Kind::Synced);
    let replica = (leader + 1) % 3;
    let copy = run.partition(replica).expect("it is there").copy();
    run.etcd.ways[replica] = Way::Away;
    run.begin_stop(replica);
    run.pass_ms(LEAVE_SETS_MS - 10);
    let lease_ms = run.config().lease_ms;
    let local_ms = run.cluster.local_ms(leader);
    let partition = run.partition(leader).expect("it is there");
    let granted_ms = partition.granted_at_ms(copy).expect("it has granted");
    assert!(
        local_ms - granted_ms < lease_ms / 8 + 100,
        "{granted_ms} at {local_ms}"
    );
    run.end_stops(true);
}
