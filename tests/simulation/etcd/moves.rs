//! Copies that move from node to node, as an operator orders it and sees each step.

use db_node::cluster::CopyMove;
use db_node::cluster::config::Key;
use db_node::partition::WaitProgress;

use serde_json::{Value as Json, json};

use super::{Kind, Run, name};

impl Run {
    /// An operator asks a node to move a copy, to add or to drop one, or to cancel that.
    pub(super) fn move_copy(&mut self) {
        let asked = self.cluster.any_host();
        if !self.is_running(asked) {
            return;
        }
        if self.cluster.rng.u8(..6) == 0 {
            return self.name_next_leader(asked);
        }
        let config = self.config();
        let (of_copy, free): (Vec<usize>, Vec<usize>) =
            (0..self.host_count()).partition(|host| config.has_replica(&name(*host)));
        let from = self.cluster.rng.choice(of_copy).map(name);
        let to = self.cluster.rng.choice(free).map(name);
        let mut order = CopyMove {
            partition: 0,
            from,
            to,
        };
        // With one copy left no node may crash, and the run would show nothing.
        let may_drop = config.replicas.len() > 2;
        match self.cluster.rng.u8(..8) {
            0 => order.from = None,
            1 if may_drop => order.to = None,
            _ if order.to.is_none() => order.from = None,
            _ => {}
        }
        let is_cancel = !config.leaving.is_empty() && self.cluster.rng.bool();
        if is_cancel {
            let joining = config
                .replicas
                .iter()
                .find(|name| !config.has_in_sync(name));
            order.from = config.leaving.first().cloned();
            order.to = joining.or(config.replicas.last()).cloned();
        }
        let local_ms = self.cluster.local_ms(asked);
        let node = self.cluster.node(asked).expect("it runs");
        let begun = if is_cancel {
            node.cancel_move(&order, local_ms)
        } else {
            node.begin_move(&order, local_ms)
        };
        self.move_count += u64::from(begun.is_ok());
    }

    /// Leadership is to move, as in a cluster that is evened out.
    fn name_next_leader(&mut self, host: usize) {
        let mut config = (*self.config()).clone();
        config.next_leader = Some(name(host));
        let key = Key::Config(0).in_cluster(&self.prefix);
        self.etcd.put(&key, config.encode());
        self.move_count += 1;
    }

    /// An operator sends an order about moves to a node, and waits for the answer.
    #[track_caller]
    fn order(&mut self, host: usize, method: &str, body: &Json) {
        // It knows what is there now.
        self.pass_ms(200);
        let asked = self.ask(host, method, "/partition/move", "", &body.to_string());
        assert_eq!(asked.status(), 202, "{}", asked.text);
        let mut answer = body.clone();
        answer["success"] = json!(true);
        assert_eq!(asked.json(), answer);
        let gate = asked.gate.expect("it waits");
        self.pass_until("etcd has it", |run| {
            let progress = run.progress(host, gate);
            assert_ne!(progress, WaitProgress::Never);
            progress == WaitProgress::UpTo(gate.number)
        });
    }

    /// The node without a copy.
    fn free_host(&mut self) -> usize {
        let config = self.config();
        let is_free = |host: &usize| !config.has_replica(&name(*host));
        (0..self.host_count()).find(is_free).expect("one is free")
    }

    /// What a node shows of the partition.
    fn shown(&mut self, host: usize) -> Json {
        self.get(host, "/cluster").json()["partitions"][0].clone()
    }
}

/// The leader's own copy moves: another node leads first, and at no time are fewer copies in sync.
/// What is left of it goes a minute later, with its entry in etcd.
#[test]
fn the_copy_of_a_leader_moves() {
    for kind in [Kind::Synced, Kind::Memory] {
        let (mut run, leader) = Run::in_sync_with_copies(kind, 2);
        let to = run.free_host();
        assert_eq!(run.shown(to)["step"], Json::Null);
        let body = json!({"id": 0, "from": name(leader), "to": name(to)});
        run.order(to, "POST", &body);
        run.pass_until("it is shown", |run| run.shown(leader)["step"] == "joining");
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
        run.pass_ms(200);
        let shown = run.shown(to);
        assert_eq!(
            (&shown["step"], &shown["kept"]),
            (&Json::Null, &json!([name(leader)]))
        );
        for _ in 0..4 {
            run.pass_ms(20_000);
        }
        assert!(
            run.cluster.partition(leader).is_none(),
            "{kind:?}: it stays"
        );
        assert!(!run.etcd.values.contains_key(&key), "{kind:?}: etcd has it");
        assert_eq!(run.shown(to)["kept"], json!([]));
        assert!(run.is_in_sync(), "{}", run.picture());
    }
}

/// The node that is to get a copy is away: the other copies stay, also one that leaves and that was
/// away itself for a moment. Cancelled, all is as before.
#[test]
fn a_move_to_a_node_that_is_away_costs_no_copy() {
    let (mut run, leader) = Run::in_sync_with_copies(Kind::Synced, 2);
    let to = run.free_host();
    let from = 3 - leader - to;
    run.cluster.crash(to, false);
    let body = json!({"id": 0, "from": name(from), "to": name(to)});
    run.order(leader, "POST", &body);
    run.cluster.crash(from, false);
    run.pass_until("it is out", |run| run.config().in_sync.len() == 1);
    assert!(run.cluster.start(from));
    run.pass_until("it is in sync again", |run| run.config().in_sync.len() == 2);
    run.pass_ms(10_000);
    let config = run.config();
    assert!(
        config.has_in_sync(&name(from)) && config.has_leaving(&name(from)),
        "{config:?}"
    );
    let again = run.ask(leader, "POST", "/partition/move", "", &body.to_string());
    again.assert_refused(409, "has_copy");

    run.order(leader, "DELETE", &body);
    let config = run.config();
    assert!(
        config.leaving.is_empty() && config.replicas.len() == 2,
        "{config:?}"
    );
    run.pass_until("all are in sync", Run::is_in_sync);
    let again = run.ask(leader, "DELETE", "/partition/move", "", &body.to_string());
    again.assert_refused(409, "no_move");
    assert!(run.cluster.start(to));
    run.pass_ms(10_000);
    assert!(run.cluster.partition(to).is_none(), "no copy is made");
}

/// A move is cancelled once the new copy leads: it gives leadership back, and goes.
#[test]
fn a_cancelled_move_is_undone() {
    let (mut run, leader) = Run::in_sync_with_copies(Kind::Synced, 2);
    let to = run.free_host();
    let other = 3 - leader - to;
    run.order(leader, "POST", &json!({"id": 0, "to": name(to)}));
    run.pass_until("it has joined", |run| run.config().in_sync.len() == 3);
    // The old copy would go in the next step; it is away, and so is one that stays.
    run.cluster.crash(other, false);
    run.pass_until("it is out", |run| run.config().in_sync.len() == 2);
    let body = json!({"id": 0, "from": name(leader)});
    run.order(leader, "POST", &body);
    run.pass_ms(3_000);
    assert_eq!(run.config().leaving, [name(leader)]);
    run.order(to, "DELETE", &body);
    assert!(run.cluster.start(other));
    run.pass_until("all are in sync", Run::is_in_sync);
    run.order(to, "POST", &json!({"id": 0, "from": name(to)}));
    run.pass_until("it is gone", |run| {
        run.is_in_sync() && run.config().replicas.len() == 2
    });
    assert!(!run.config().has_replica(&name(to)));
}

/// An order that another node has overtaken is told so.
#[test]
fn an_order_on_an_old_configuration_is_refused() {
    let (mut run, leader) = Run::in_sync_with_copies(Kind::Synced, 2);
    let to = run.free_host();
    let body = json!({"id": 0, "to": name(to)}).to_string();
    let gates = [leader, to].map(|host| {
        let asked = run.ask(host, "POST", "/partition/move", "", &body);
        (host, asked.gate.expect("it waits"))
    });
    let mut ends = [None; 2];
    run.pass_until("both are answered", |run| {
        for (end, (host, gate)) in ends.iter_mut().zip(gates) {
            match run.progress(host, gate) {
                WaitProgress::UpTo(number) if number < gate.number => {}
                progress => *end = Some(progress != WaitProgress::Never),
            }
        }
        ends.iter().all(Option::is_some)
    });
    ends.sort_unstable();
    assert_eq!(ends, [Some(false), Some(true)]);
    assert_eq!(run.config().replicas.len(), 3);
}

/// The leader hands over to the node that is named as the next one, and says so in etcd.
#[test]
fn the_next_leader_takes_over() {
    let (mut run, leader) = Run::in_sync(Kind::Synced);
    let next = (leader + 1) % 3;
    run.name_next_leader(next);
    run.pass_until("it leads", |run| run.open_leader() == Some(next));
    run.pass_until("it is done", |run| run.config().next_leader.is_none());
    run.pass_until("all are in sync", Run::is_in_sync);
    assert!(run.config().handed_over);
    // Of a node that has no copy it means nothing.
    let mut config = (*run.config()).clone();
    config.next_leader = Some("n9".to_owned());
    let key = Key::Config(0).in_cluster(&run.prefix);
    run.etcd.put(&key, config.encode());
    run.pass_until("it is void", |run| run.config().next_leader.is_none());
    assert_eq!(run.open_leader(), Some(next));
}

/// A node leaves for good: its copy moves to the node without one, or is dropped where all have
/// one. Then nothing of it is left in etcd, and it stops.
#[test]
fn a_node_leaves_for_good() {
    for (copy_count, answer) in [
        (2, json!({"success": true, "moving": [0], "dropping": []})),
        (3, json!({"success": true, "moving": [], "dropping": [0]})),
    ] {
        let (mut run, leader) = Run::in_sync_with_copies(Kind::Synced, copy_count);
        let body = json!({"forget": true}).to_string();
        let asked = run.ask(leader, "POST", "/node/drain", "", &body);
        assert_eq!((asked.status(), asked.json()), (202, answer));
        run.pass_until("it is told", |run| {
            let others = (0..3).filter(|host| *host != leader);
            others.into_iter().all(|host| {
                let shown = run.get(host, "/cluster").json();
                let nodes = shown["nodes"].as_array().expect("nodes");
                nodes.iter().any(|node| node["leaving"] == true)
            })
        });
        run.pass_until("its copy is given up", |run| {
            run.check();
            assert!(run.config().in_sync.len() >= 2, "{:?}", run.config());
            !run.config().has_replica(&name(leader)) && run.is_in_sync()
        });
        assert_eq!(run.config().replicas.len(), 2);
        let own = |run: &Run| {
            let keys = [Key::Node(&name(leader)), Key::Copy(0, &name(leader))];
            let keys = keys.map(|key| key.in_cluster(&run.prefix));
            keys.map(|key| run.etcd.values.contains_key(&key))
        };
        assert_eq!(own(&run), [true, true]);
        run.pass_ms(70_000);
        assert_eq!(own(&run), [false, false], "{copy_count} copies");
        let node = run.cluster.node(leader).expect("it runs");
        assert!(node.is_leaving() && node.has_left());
        assert!(run.is_in_sync(), "{}", run.picture());
        // It comes back as a node without copies.
        run.cluster.crash(leader, false);
        assert!(run.cluster.start(leader));
        run.pass_ms(1_000);
        assert_eq!(own(&run), [true, false]);
        let shown = run.get(leader, "/cluster").json();
        assert_eq!(shown["nodes"][leader]["leaving"], false, "{shown}");
    }
}
