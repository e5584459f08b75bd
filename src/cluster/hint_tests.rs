//! How often etcd is read where a watch tells of one change after the other.

use super::config::Key;
use super::etcd::{Answer, Failure, KeyValue, Outcome, Request};
use super::moves_tests::cluster;
use super::state::Cluster;

/// Etcd, and what it has of the node.
#[derive(Default)]
struct Etcd {
    node: Option<Vec<u8>>,
}

impl Etcd {
    /// Answers what it is asked at this time: whether it was read.
    fn is_read(&mut self, cluster: &mut Cluster, now_ms: u64) -> bool {
        if cluster.wake_at_ms() <= now_ms {
            cluster.step(now_ms, &mut []);
        }
        let Some((ticket, request)) = cluster.take_request(now_ms, &[]) else {
            return false;
        };
        let is_read = matches!(request, Request::Range { .. });
        let answer = match request {
            Request::Range { .. } => Answer::Range {
                cluster_id: 1,
                revision: 9,
                values: self.node.iter().cloned().map(key_value).collect(),
            },
            Request::Write { mut puts, .. } => {
                self.node = puts.pop().map(|(_, value)| value);
                Answer::Written { revision: 9 }
            }
        };
        let result = Ok(answer);
        cluster.on_outcome(now_ms, Outcome { ticket, result }, &mut []);
        is_read
    }
}

fn key_value(value: Vec<u8>) -> KeyValue {
    KeyValue {
        key: Key::Node("n0").in_cluster("/db-node/x/"),
        mod_revision: 9,
        value,
    }
}

#[test]
fn the_first_change_is_read_at_once_and_others_soon() {
    let (mut etcd, mut cluster) = (Etcd::default(), cluster(Vec::new()));
    assert!(etcd.is_read(&mut cluster, 1_000));
    assert!((1_001..3_000).all(|now_ms| !etcd.is_read(&mut cluster, now_ms)));
    cluster.on_hint();
    assert!(etcd.is_read(&mut cluster, 3_000), "the first at once");
    cluster.on_hint();
    let again = (3_001..4_000).find(|now_ms| etcd.is_read(&mut cluster, *now_ms));
    assert_eq!(again, Some(3_020), "the next a little later");
    // Changes all the time.
    let mut count = 0;
    for now_ms in 5_000..6_000 {
        cluster.on_hint();
        cluster.on_hint();
        count += u32::from(etcd.is_read(&mut cluster, now_ms));
    }
    assert_eq!(count, 50);
}

/// While etcd is away the client says when it can be asked again: until then the loop sleeps.
#[test]
fn a_read_that_is_due_wakes_no_node_that_cannot_ask() {
    let mut cluster = cluster(Vec::new());
    let (ticket, _) = cluster.take_request(1_000, &[]).expect("a read");
    let result = Err(Failure::TimedOut);
    cluster.on_outcome(1_700, Outcome { ticket, result }, &mut []);
    cluster.step(2_000, &mut []);
    assert!(cluster.wake_at_ms() > 2_001, "{}", cluster.wake_at_ms());
    assert!(cluster.take_request(2_000, &[]).is_some(), "it is due");
}
