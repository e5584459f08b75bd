//! Copies that move from node to node, each step as an operator sees it.

use db_node::cluster::config::Key;

use super::{Kind, Run, name};

impl Run {
    /// Has the copy of one node given up, and one made on the node that has none.
    fn begin_move(&mut self, from: usize) -> usize {
        let mut config = self.config();
        let is_free = |host: &usize| !config.has_replica(&name(*host));
        let to = (0..self.host_count()).find(is_free).expect("one is free");
        config.leaving.push(name(from));
        config.replicas.push(name(to));
        let key = Key::Config(0).in_cluster(&self.prefix);
        self.etcd.put(&key, config.encode());
        to
    }
}

/// The leader's own copy moves: another node leads first, and at no time are fewer copies in sync.
/// What is left of it goes a minute later, with its entry in etcd.
#[test]
fn the_copy_of_a_leader_moves() {
    for kind in [Kind::Synced, Kind::Memory] {
        let (mut run, leader) = Run::in_sync_with_copies(kind, 2);
        let to = run.begin_move(leader);
        run.pass_until("the copy has moved", |run| {
            run.check();
            assert!(run.config().in_sync.len() >= 2, "{:?}", run.config());
            let is_over = run.config().leaving.is_empty();
            is_over && run.is_in_sync()
        });
        let config = run.config();
        assert!(config.has_replica(&name(to)) && !config.has_replica(&name(leader)));
        let key = Key::Copy(0, &name(leader)).in_cluster(&run.prefix);
        assert!(run.cluster.partition(leader).is_some() && run.etcd.values.contains_key(&key));
        for _ in 0..4 {
            run.pass_ms(20_000);
        }
        assert!(
            run.cluster.partition(leader).is_none(),
            "{kind:?}: it stays"
        );
        assert!(!run.etcd.values.contains_key(&key), "{kind:?}: etcd has it");
        assert!(run.is_in_sync(), "{}", run.picture());
    }
}
