//! Orders about copies that move, and what the leader makes of them; and a cluster for such tests.

use crate::storage::{CopyId, IdGenerator};

use super::config::{CopyOfNode, CopyRecord, NodeValue, PartitionConfig};
use super::etcd::Request;
use super::moves::{CopyMove, MoveAction, MoveRefusal};
use super::operations::Operations;
use super::state::{Cluster, ClusterOptions};

/// A configuration: the first node leads, and the copies of `in_sync` are so.
pub(super) fn config(replicas: &[&str], in_sync: &[&str], leaving: &[&str]) -> PartitionConfig {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let copies = in_sync.iter().map(|name| CopyOfNode {
        node: (*name).to_owned(),
        copy: CopyId([name.as_bytes()[1]; 16]),
    });
    PartitionConfig {
        epoch: 7,
        in_sync: copies.collect(),
        leaving: names(leaving),
        ..PartitionConfig::first(replicas[0].to_owned(), names(replicas), 2_000)
    }
}

/// A node of a cluster of the nodes n0 to n5 that has read these configurations.
pub(super) fn cluster(configs: Vec<PartitionConfig>) -> Cluster {
    let options = ClusterOptions {
        cluster: "x".to_owned(),
        node: "n0".to_owned(),
        url: "http://n0".to_owned(),
        zone: String::new(),
        lease_ms: 2_000,
        min_in_sync: 1,
    };
    let mut cluster = Cluster::new(options, IdGenerator::new([1; 16]));
    cluster.registered.is_read = true;
    for number in 0..6 {
        let value = NodeValue::new(format!("http://n{number}"), String::new(), [1, 3]);
        let nodes = &mut cluster.registered.nodes;
        nodes.insert(format!("n{number}"), value);
    }
    let revised = configs.into_iter().map(|config| (9, config));
    cluster.registered.configs = (0..).zip(revised).collect();
    cluster
}

fn order(partition: u32, from: &str, to: &str) -> CopyMove {
    let name = |name: &str| (!name.is_empty()).then(|| name.to_owned());
    CopyMove {
        partition,
        from: name(from),
        to: name(to),
    }
}

/// What etcd is asked to make of a partition.
fn written(cluster: &Cluster) -> PartitionConfig {
    let (_, request) = cluster.operations.next_request().expect("a request");
    let Request::Write { compares, puts, .. } = request else {
        panic!("{request:?}");
    };
    assert_eq!((compares.len(), compares[0].1), (1, 9));
    assert_eq!(compares[0].0, puts[0].0);
    PartitionConfig::decode(&puts[0].1).expect("a configuration")
}

#[test]
fn an_order_changes_the_configuration_and_nothing_else() {
    let whole = || config(&["n0", "n1"], &["n0", "n1"], &[]);
    for (from, to, replicas, leaving) in [
        ("n1", "n2", &["n0", "n1", "n2"][..], &["n1"][..]),
        ("n0", "n2", &["n0", "n1", "n2"], &["n0"]),
        ("", "n2", &["n0", "n1", "n2"], &[]),
        ("n1", "", &["n0", "n1"], &["n1"]),
    ] {
        let mut cluster = cluster(vec![whole()]);
        let begun = cluster.begin_move(&order(0, from, to), 0);
        assert!(begun.is_ok(), "{from} {to}: {begun:?}");
        assert_eq!(written(&cluster), config(replicas, &["n0", "n1"], leaving));
        let again = cluster.begin_move(&order(0, from, to), 0);
        assert_eq!(again, Err(MoveRefusal::Changing));
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let name = str::to_owned;
    let configs = || {
        vec![
            config(&["n0", "n1"], &["n0", "n1"], &[]),
            config(&["n0", "n2", "n3"], &["n0", "n2"], &["n2"]),
            config(&["n0"], &["n0"], &[]),
        ]
    };
    for (partition, from, to, refusal) in [
        (7, "n0", "n1", MoveRefusal::NoPartition),
        (0, "n0", "n9", MoveRefusal::NoNode(name("n9"))),
        (0, "n4", "n5", MoveRefusal::NoCopy(name("n4"))),
        (0, "n0", "n1", MoveRefusal::HasCopy(name("n1"))),
        (0, "n1", "n1", MoveRefusal::HasCopy(name("n1"))),
        (0, "n4", "n4", MoveRefusal::NoCopy(name("n4"))),
        (0, "n1", "n3", MoveRefusal::IsComing(name("n3"), 1)),
        (1, "n0", "n4", MoveRefusal::IsMoving(name("n2"))),
        (2, "n0", "", MoveRefusal::TooFew(0)),
    ] {
        let begun = cluster(configs()).begin_move(&order(partition, from, to), 0);
        assert_eq!(begun, Err(refusal), "{partition} {from} {to}");
    }
    let mut two = configs();
    two[0] = config(&["n2", "n1"], &["n2", "n1"], &[]);
    let begun = cluster(two).begin_move(&order(0, "n2", "n4"), 0);
    assert_eq!(begun, Err(MoveRefusal::IsGoing(name("n2"), 1)));
    let mut strict = cluster(configs());
    strict.options.min_in_sync = 2;
    let begun = strict.begin_move(&order(0, "n1", ""), 0);
    assert_eq!(begun, Err(MoveRefusal::TooFew(1)));
    let mut unread = cluster(configs());
    unread.registered.is_read = false;
    let begun = unread.begin_move(&order(0, "n1", "n4"), 0);
    assert_eq!(begun, Err(MoveRefusal::Unknown));
    let mut leaving = cluster(configs());
    let node = leaving.registered.nodes.get_mut("n4").expect("it is there");
    node.is_leaving = true;
    let begun = leaving.begin_move(&order(0, "n1", "n4"), 0);
    assert_eq!(begun, Err(MoveRefusal::IsLeaving(name("n4"))));
    let mut many = vec![config(&["n0", "n1", "n2", "n3"], &[], &[]); 1_023];
    many.push(config(&["n0", "n1", "n2"], &[], &[]));
    let begun = cluster(many.clone()).begin_move(&order(1_023, "", "n4"), 0);
    assert!(begun.is_ok());
    many[0].replicas.push("n5".to_owned());
    let begun = cluster(many.clone()).begin_move(&order(1_023, "", "n4"), 0);
    assert_eq!(begun, Err(MoveRefusal::ClusterFull));
    let begun = cluster(many).begin_move(&order(1_023, "n0", "n4"), 0);
    assert!(begun.is_ok());
    let names: Vec<String> = (0..32).map(|number| format!("m{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let begun = cluster(vec![config(&names, &[], &[])]).begin_move(&order(0, "m1", "n4"), 0);
    assert_eq!(begun, Err(MoveRefusal::TooMany(32)));
}

#[test]
fn a_move_is_cancelled_for_as_long_as_the_old_copy_is_there() {
    let (two, three) = (["n0", "n1"], ["n0", "n1", "n2"]);
    for (before, from, to, after) in [
        // The new copy has not joined: it goes at once.
        (
            config(&three, &two, &["n1"]),
            "n1",
            "n2",
            config(&two, &two, &[]),
        ),
        (config(&three, &two, &[]), "", "n2", config(&two, &two, &[])),
        (
            config(&two, &two, &["n1"]),
            "n1",
            "",
            config(&two, &two, &[]),
        ),
        // It has: the leader drops it as any other.
        (
            config(&three, &three, &["n1"]),
            "n1",
            "n2",
            config(&three, &three, &["n2"]),
        ),
        (
            config(&three, &["n0"], &["n1"]),
            "n1",
            "n2",
            config(&two, &["n0"], &[]),
        ),
    ] {
        let mut cluster = cluster(vec![before]);
        let begun = cluster.cancel_move(&order(0, from, to), 0);
        assert!(begun.is_ok(), "{from} {to}: {begun:?}");
        assert_eq!(written(&cluster), after, "{from} {to}");
    }
    for (from, to) in [
        ("n0", "n2"),
        ("n1", "n3"),
        ("n2", ""),
        ("", "n1"),
        ("", "n2"),
        ("", ""),
    ] {
        let mut cluster = cluster(vec![config(&three, &three, &["n1"])]);
        let begun = cluster.cancel_move(&order(0, from, to), 0);
        assert_eq!(begun, Err(MoveRefusal::NoMove), "{from} {to}");
    }
    let mut cluster = cluster(vec![config(&["n0"], &[], &[])]);
    let begun = cluster.cancel_move(&order(0, "", "n0"), 0);
    assert_eq!(begun, Err(MoveRefusal::NoMove), "it is the only one");
}

#[test]
fn a_leader_does_one_step_after_the_other() {
    let (two, three) = (["n0", "n1"], ["n0", "n1", "n2"]);
    let next = |config: PartitionConfig, next: Option<&str>| PartitionConfig {
        next_leader: next.map(str::to_owned),
        ..config
    };
    let change = |config| Some(MoveAction::Change(Box::new(config)));
    for (before, expected) in [
        (config(&three, &two, &["n1"]), None),
        (
            config(&three, &["n0", "n2"], &["n1"]),
            change(config(&["n0", "n2"], &["n0", "n2"], &[])),
        ),
        (
            config(&three, &three, &["n1"]),
            change(config(&["n0", "n2"], &["n0", "n2"], &[])),
        ),
        (
            config(&three, &three, &["n0"]),
            Some(MoveAction::HandOver(None)),
        ),
        (next(config(&three, &two, &["n0"]), Some("n2")), None),
        (
            next(config(&three, &three, &["n0"]), Some("n2")),
            Some(MoveAction::HandOver(Some("n2".to_owned()))),
        ),
        (
            next(config(&two, &two, &[]), Some("n1")),
            Some(MoveAction::HandOver(Some("n1".to_owned()))),
        ),
        // It leads, is to have no copy any more, or has none.
        (
            next(config(&two, &two, &[]), Some("n0")),
            change(config(&two, &two, &[])),
        ),
        (
            next(config(&two, &two, &[]), Some("n2")),
            change(config(&two, &two, &[])),
        ),
        (
            next(config(&three, &three, &["n1"]), Some("n0")),
            change(config(&["n0", "n2"], &["n0", "n2"], &[])),
        ),
    ] {
        let may_leave = before.are_staying_in_sync();
        let found = MoveAction::of(&before, "n0", may_leave);
        assert_eq!(found, expected, "{before:?}");
    }
}

/// What an operation has written is known before the configurations are read again.
#[test]
fn the_next_order_is_checked_against_the_one_before() {
    let whole = config(&["n0", "n1"], &["n0", "n1"], &[]);
    let mut cluster = cluster(vec![whole.clone(), whole]);
    assert!(cluster.begin_move(&order(0, "n1", "n2"), 0).is_ok());
    let (_, request) = cluster.operations.next_request().expect("a request");
    cluster.operations = Operations::default();
    cluster.on_operation_written(&request, 12);
    let refusal = |from, to| cluster_refusal(&cluster, from, to);
    assert_eq!(
        refusal("n0", "n2"),
        Some(MoveRefusal::IsComing("n2".to_owned(), 0))
    );
    assert_eq!(
        refusal("n1", "n3"),
        Some(MoveRefusal::IsGoing("n1".to_owned(), 0))
    );
    assert_eq!(refusal("n0", "n3"), None);
    assert_eq!(cluster.registered.configs[&0].0, 12);
}

/// A partition that etcd has lost, with more copies than a configuration can name.
#[test]
fn a_recovered_partition_names_no_more_nodes_than_can_be_read() {
    let mut cluster = cluster(Vec::new());
    let record = CopyRecord {
        copy: CopyId([3; 16]),
        epoch: 4,
        version: 1,
        doubts: 0,
        revision: 9,
    };
    let names = (0..40).map(|number| (format!("m{number}"), record.clone()));
    cluster.registered.copies.insert(0, names.collect());
    let (_, made) = cluster.begin_recovery(0, "m39", &[], 0).expect("it begins");
    assert_eq!((made.replicas.len(), &made.leader[..]), (32, "m39"));
    assert!(made.has_replica("m39"));
    assert_eq!(PartitionConfig::decode(&made.encode()).ok(), Some(made));
}

/// A value that was written by hand.
#[test]
fn nodes_may_leave_that_have_no_copy() {
    let odd = config(&["n0"], &["n0"], &["n1", "n2", "n3"]);
    let cluster = cluster(vec![odd.clone(), odd]);
    assert!(cluster_refusal(&cluster, "n0", "n3").is_some());
    let adds = CopyMove {
        partition: 1,
        from: None,
        to: Some("n3".to_owned()),
    };
    assert!(cluster.moved(&adds).is_ok());
}

fn cluster_refusal(cluster: &Cluster, from: &str, to: &str) -> Option<MoveRefusal> {
    cluster.moved(&order(1, from, to)).err()
}
