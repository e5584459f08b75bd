//! An etcd that has lost some of its history: nodes go on, and none stands.

use super::{Kind, Run};

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
