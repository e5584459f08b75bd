//! Which copies and which leaders would have to move so that every node has as many as any other,
//! with the copies of a partition in as many zones as there are.
//!
//! A plan is made from what etcd says now, and nothing of it is kept: once a part of it is done,
//! the next one is made from what etcd says then. Partitions with a move under way count as they
//! will be, and stay out of it. So do nodes that are away: those that are to have copies of which
//! none is in sync; and nodes that are leaving for good.
//!
//! Not here: how a move is begun and carried out (`moves.rs`).

use std::collections::VecDeque;

use super::config::PartitionConfig;
use super::state::Cluster;

/// A plan looks at so many places for copies, about 10 ms. What it has not come to is in the next.
const LOOKS_MAX: usize = 1_000_000;

/// A node, as it is planned with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedNode {
    pub(super) name: String,
    /// Where it runs; empty: not told.
    zone: String,
    /// Whether its copies may go, and others come.
    pub(super) is_open: bool,
    /// Whether a copy that it is to have is not in sync yet.
    pub(super) is_taking: bool,
    /// Whether it is giving a copy up.
    pub(super) is_giving: bool,
    copy_count: usize,
    leader_count: usize,
    /// No partition before this one has a copy that can go from here: they are not looked at again.
    first_movable: usize,
}

/// A partition, as it is planned with; nodes are given by their places in the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
struct PlannedPartition {
    id: u32,
    /// Where copies are now.
    original: Vec<usize>,
    /// Where they will be.
    replicas: Vec<usize>,
    leader: usize,
    /// Nothing is planned for it: a move is under way.
    is_fixed: bool,
}

/// A copy, or the leader, of a partition goes from one node to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlannedMove {
    pub(super) partition: u32,
    pub(super) from: usize,
    pub(super) to: usize,
    /// Whether the node that gives the copy up leads.
    pub(super) is_of_leader: bool,
}

/// What would have to move.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) nodes: Vec<PlannedNode>,
    partitions: Vec<PlannedPartition>,
    pub(super) copies: Vec<PlannedMove>,
    pub(super) leaders: Vec<PlannedMove>,
    looks_left: usize,
}

impl Plan {
    /// The nodes and partitions of a cluster, and nothing planned yet.
    pub(super) fn of(cluster: &Cluster) -> Self {
        let mut plan = Self {
            looks_left: LOOKS_MAX,
            ..Self::default()
        };
        for (name, node) in cluster.nodes() {
            plan.nodes.push(PlannedNode {
                name: name.clone(),
                zone: node.zone.clone(),
                is_open: !node.is_leaving,
                is_taking: false,
                is_giving: false,
                copy_count: 0,
                leader_count: 0,
                first_movable: 0,
            });
        }
        let mut in_sync_counts = vec![0; plan.nodes.len()];
        for (id, (_, config)) in &cluster.registered.configs {
            plan.add(*id, config, &mut in_sync_counts);
        }
        for (node, in_sync_count) in plan.nodes.iter_mut().zip(in_sync_counts) {
            let is_away = in_sync_count == 0 && (node.is_taking || node.is_giving);
            node.is_open &= !is_away;
        }
        plan
    }

    fn add(&mut self, id: u32, config: &PartitionConfig, in_sync_counts: &mut [usize]) {
        let (mut original, mut leader) = (Vec::new(), None);
        for name in &config.replicas {
            let Some(at) = self.place_of(name) else {
                continue;
            };
            let (is_in_sync, is_leaving) = (config.has_in_sync(name), config.has_leaving(name));
            let node = &mut self.nodes[at];
            in_sync_counts[at] += usize::from(is_in_sync);
            node.is_giving |= is_leaving;
            node.is_taking |= !is_leaving && !is_in_sync;
            if !is_leaving {
                node.copy_count += 1;
                original.push(at);
                let next = config.next_leader.as_ref().unwrap_or(&config.leader);
                leader = leader.filter(|_| next != name).or(Some(at));
            }
        }
        let Some(leader) = leader else { return };
        self.nodes[leader].leader_count += 1;
        let is_whole = original.len() == config.in_sync.len() && config.are_staying_in_sync();
        self.partitions.push(PlannedPartition {
            id,
            replicas: original.clone(),
            original,
            leader,
            is_fixed: !is_whole || config.next_leader.is_some(),
        });
    }

    /// Where a node is in the plan.
    pub(super) fn place_of(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == *name)
    }

    /// Partitions for which something is under way.
    pub(super) fn fixed_count(&self) -> usize {
        self.partitions.iter().filter(|own| own.is_fixed).count()
    }

    /// Plans what has to move.
    pub(super) fn fill(&mut self) {
        for at in 0..self.partitions.len() {
            while self.spread_over_zones(at) {}
        }
        while self.even_out_copies() {}
        while self.even_out_leaders() {}
        self.leaders.retain(|own| own.from != own.to);
    }

    /// Counts a place that is looked at; false once there were enough.
    fn look(&mut self) -> bool {
        self.looks_left = self.looks_left.saturating_sub(1);
        self.looks_left > 0
    }

    /// How many pairs of copies are in the same zone, with one of them on another node.
    fn zone_cost(&self, replicas: &[usize], from: usize, to: usize) -> usize {
        let place = |at: usize| if at == from { to } else { at };
        let zone = |at: usize| &self.nodes[place(at)].zone;
        let mut cost = 0;
        for (index, first) in replicas.iter().enumerate() {
            let is_same =
                |second: &&usize| !zone(*first).is_empty() && zone(*first) == zone(**second);
            cost += replicas[index + 1..].iter().filter(is_same).count();
        }
        cost
    }

    /// Whether a partition has a copy that can go from a node: one that has come does not go on.
    /// Once that is not so, it stays so.
    fn can_go(&self, partition: usize, from: usize) -> bool {
        let own = &self.partitions[partition];
        !own.is_fixed && own.replicas.contains(&from) && own.original.contains(&from)
    }

    /// Whether a copy can go, as far as the partition is concerned.
    fn can_move(&self, partition: usize, from: usize, to: usize) -> bool {
        let own = &self.partitions[partition];
        // What has gone does not come back.
        let can_come = !own.replicas.contains(&to) && !own.original.contains(&to);
        can_come && self.can_go(partition, from)
    }

    /// Moves a copy of a partition that has two in one zone; true if that was of use.
    fn spread_over_zones(&mut self, at: usize) -> bool {
        let replicas = self.partitions[at].replicas.clone();
        let cost = self.zone_cost(&replicas, usize::MAX, usize::MAX);
        let mut best = None;
        if cost > 0 {
            for from in &replicas {
                for to in 0..self.nodes.len() {
                    let (giving, taking) = (&self.nodes[*from], &self.nodes[to]);
                    let is_open = giving.is_open && taking.is_open;
                    let counts = (taking.copy_count, usize::MAX - giving.copy_count);
                    if is_open && self.look() && self.can_move(at, *from, to) {
                        let next = self.zone_cost(&replicas, *from, to);
                        let found = (next, counts, *from, to);
                        best = best.filter(|best| *best < found).or(Some(found));
                    }
                }
            }
        }
        match best.filter(|(next, ..)| *next < cost) {
            Some((_, _, from, to)) => {
                self.move_copy(at, from, to);
                true
            }
            None => false,
        }
    }

    /// The nodes that are planned with, those with the lowest count first.
    fn open_by(&self, count: fn(&PlannedNode) -> usize) -> Vec<usize> {
        let mut places: Vec<usize> = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            if node.is_open {
                let is_before = |other: &usize| count(&self.nodes[*other]) <= count(node);
                places.insert(places.partition_point(is_before), at);
            }
        }
        places
    }

    /// Moves a copy from a node with more to a node with fewer; true if there was one.
    fn even_out_copies(&mut self) -> bool {
        let by_count = self.open_by(|node| node.copy_count);
        for from in by_count.iter().rev() {
            for to in &by_count {
                if self.nodes[*from].copy_count < self.nodes[*to].copy_count + 2 {
                    break;
                }
                if let Some(at) = self.movable(*from, *to) {
                    self.move_copy(at, *from, *to);
                    return true;
                }
            }
        }
        false
    }

    /// A partition of which a copy can go from one node to another: where it helps to even leaders
    /// out, one that is led there, else one that is not.
    fn movable(&mut self, from: usize, to: usize) -> Option<usize> {
        let leads_more = self.nodes[from].leader_count > self.nodes[to].leader_count;
        let mut second = None;
        let mut first = self.nodes[from].first_movable;
        while first < self.partitions.len() && !self.can_go(first, from) && self.look() {
            first += 1;
        }
        self.nodes[from].first_movable = first;
        for at in first..self.partitions.len() {
            if !self.look() {
                return None;
            }
            if !self.can_move(at, from, to) {
                continue;
            }
            let own = &self.partitions[at];
            let cost = self.zone_cost(&own.replicas, usize::MAX, usize::MAX);
            if self.zone_cost(&own.replicas, from, to) > cost {
                continue;
            }
            if (own.leader == from) == leads_more {
                return Some(at);
            }
            second = second.or(Some(at));
        }
        second
    }

    fn move_copy(&mut self, at: usize, from: usize, to: usize) {
        let own = &mut self.partitions[at];
        for replica in own.replicas.iter_mut().filter(|replica| **replica == from) {
            *replica = to;
        }
        self.copies.push(PlannedMove {
            partition: own.id,
            from,
            to,
            is_of_leader: own.leader == from,
        });
        let is_of_leader = own.leader == from;
        self.nodes[from].copy_count -= 1;
        self.nodes[to].copy_count += 1;
        if is_of_leader {
            self.partitions[at].leader = to;
            self.nodes[from].leader_count -= 1;
            self.nodes[to].leader_count += 1;
        }
    }

    /// Has a node that leads more lead one partition less, and one that leads fewer one more: where
    /// no partition has copies on both, by way of other nodes. True if there was a way.
    fn even_out_leaders(&mut self) -> bool {
        let by_count = self.open_by(|node| node.leader_count);
        for from in by_count.iter().rev() {
            if self.nodes[*from].leader_count < self.nodes[by_count[0]].leader_count + 2 {
                return false;
            }
            if let Some(way) = self.way_from(*from) {
                for (partition, to) in way {
                    self.move_leader(partition, to);
                }
                return true;
            }
        }
        false
    }

    /// Partitions that change their leaders, each with the next one, so that a node which leads two
    /// fewer than this one leads one more.
    fn way_from(&mut self, from: usize) -> Option<Vec<(usize, usize)>> {
        let limit = self.nodes[from].leader_count - 1;
        let mut came_by: Vec<Option<(usize, usize)>> = vec![None; self.nodes.len()];
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            for at in 0..self.partitions.len() {
                if !self.look() {
                    return None;
                }
                let own = &self.partitions[at];
                if own.leader != node || own.is_fixed {
                    continue;
                }
                for to in &own.replicas {
                    if *to == from || came_by[*to].is_some() || !self.nodes[*to].is_open {
                        continue;
                    }
                    came_by[*to] = Some((at, node));
                    if self.nodes[*to].leader_count < limit {
                        return Some(way_back(*to, from, &came_by));
                    }
                    queue.push_back(*to);
                }
            }
        }
        None
    }

    fn move_leader(&mut self, at: usize, to: usize) {
        let own = &mut self.partitions[at];
        let from = std::mem::replace(&mut own.leader, to);
        self.nodes[from].leader_count -= 1;
        self.nodes[to].leader_count += 1;
        let is_same = |known: &&mut PlannedMove| known.partition == own.id;
        match self.leaders.iter_mut().find(is_same) {
            Some(known) => known.to = to,
            None => self.leaders.push(PlannedMove {
                partition: own.id,
                from,
                to,
                is_of_leader: true,
            }),
        }
    }

    /// The node that a copy can best go to; none: no node can take it. One that is taking another
    /// copy is not as good as any that is not.
    pub(super) fn place_for(&mut self, id: u32, from: usize) -> Option<usize> {
        let at = self.partitions.iter().position(|own| own.id == id)?;
        let replicas = self.partitions[at].replicas.clone();
        let mut best = None;
        for (to, node) in self.nodes.iter().enumerate() {
            if node.is_open && to != from && !replicas.contains(&to) {
                let cost = self.zone_cost(&replicas, from, to);
                let found = (node.is_taking, cost, node.copy_count, to);
                best = best.filter(|best| *best < found).or(Some(found));
            }
        }
        best.map(|(.., to)| to)
    }
}

fn way_back(end: usize, from: usize, came_by: &[Option<(usize, usize)>]) -> Vec<(usize, usize)> {
    let (mut way, mut to) = (Vec::new(), end);
    while to != from
        && let Some((partition, node)) = came_by[to]
    {
        way.push((partition, to));
        to = node;
    }
    way
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::config::{CopyOfNode, NodeValue};
    use crate::cluster::etcd::Answer;
    use crate::cluster::moves::MoveAction;
    use crate::cluster::moves_tests::{cluster, config};
    use crate::storage::CopyId;

    /// A cluster of nodes with zones (0: none), and partitions with copies here and there.
    fn random(rng: &mut fastrand::Rng, node_count: usize, zone_count: usize) -> Cluster {
        let names: Vec<String> = (0..node_count).map(|at| format!("n{at}")).collect();
        let copy_count = rng.usize(1..=node_count.min(4));
        let mut configs = Vec::new();
        for _ in 0..rng.usize(1..40) {
            let mut replicas: Vec<&str> = names.iter().map(String::as_str).collect();
            rng.shuffle(&mut replicas);
            replicas.truncate(copy_count);
            // New nodes have nothing.
            if rng.bool() {
                replicas.retain(|name| *name < "n3");
            }
            if replicas.is_empty() {
                replicas.push("n0");
            }
            configs.push(config(&replicas, &replicas, &[]));
        }
        let mut cluster = cluster(configs);
        cluster.registered.nodes.clear();
        for (at, name) in names.into_iter().enumerate() {
            let zone = match zone_count {
                0 => String::new(),
                count => format!("z{}", at % count),
            };
            let value = NodeValue::new(format!("http://{name}"), zone, [1, 3]);
            cluster.registered.nodes.insert(name, value);
        }
        cluster
    }

    /// By how much the counts of nodes that are planned with differ.
    fn spread(plan: &Plan, count: fn(&PlannedNode) -> usize) -> usize {
        let counts = || plan.nodes.iter().filter(|node| node.is_open).map(count);
        counts().max().unwrap_or(0) - counts().min().unwrap_or(0)
    }

    /// Pairs of copies in one zone, of all partitions.
    fn shared_zones(plan: &Plan) -> usize {
        let costs = plan.partitions.iter();
        let costs = costs.map(|own| plan.zone_cost(&own.replicas, usize::MAX, usize::MAX));
        costs.sum()
    }

    /// Carries the orders of a plan out, as leaders would, one order after the other; how many
    /// orders that took.
    fn carry_out(cluster: &mut Cluster) -> usize {
        for count in 1..2_000 {
            let rebalance = cluster.begin_rebalance(false, 0).expect("it is read");
            let mut busy: Vec<&str> = Vec::new();
            for moved in rebalance.copies.iter().filter(|own| own.is_begun) {
                for name in [&moved.from, &moved.to] {
                    let times = busy.iter().filter(|other| **other == name).count();
                    assert!(times < 2, "{name} has more than one move: {rebalance:?}");
                    busy.push(name);
                }
            }
            if rebalance.operation.is_none() {
                let left = rebalance.copies.len() + rebalance.leaders.len();
                assert_eq!(left, 0, "nothing is begun: {rebalance:?}");
                return count;
            }
            let mut written = Vec::new();
            while let Some((number, request)) = cluster.operations.next_request() {
                let answer = Answer::Written { revision: 9 };
                cluster.operations.on_outcome(number, Some(&answer), 0);
                written.push(request);
            }
            for request in &written {
                cluster.on_operation_written(request, 9);
            }
            for (_, config) in cluster.registered.configs.values_mut() {
                settle(config);
            }
        }
        panic!("it does not end");
    }

    /// What the leaders of a partition make of its configuration in the end.
    fn settle(config: &mut PartitionConfig) {
        let before: Vec<String> = config.in_sync.iter().map(|of| of.node.clone()).collect();
        for name in config.replicas.clone() {
            if !config.has_in_sync(&name) {
                let copy = CopyId([7; 16]);
                config.in_sync.push(CopyOfNode { node: name, copy });
            }
        }
        loop {
            let leader = config.leader.clone();
            match MoveAction::of(config, &leader, true) {
                Some(MoveAction::HandOver(to)) => {
                    let staying = config
                        .replicas
                        .iter()
                        .find(|name| !config.has_leaving(name));
                    config.leader = to.or(staying.cloned()).expect("one stays");
                }
                Some(MoveAction::Change(next)) => *config = *next,
                None => break,
            }
        }
        assert!(
            config.in_sync.len() >= before.len(),
            "fewer copies in sync: {config:?}"
        );
    }

    #[test]
    fn whatever_there_is_ends_even_and_with_zones_apart() {
        for seed in 0..400 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let node_count = rng.usize(1..7);
            let zone_count = [0, 0, 1, 2, 3][rng.usize(..5)];
            let mut cluster = random(&mut rng, node_count, zone_count);
            let zones_before = shared_zones(&Plan::of(&cluster));
            let whole = {
                let mut plan = Plan::of(&cluster);
                plan.fill();
                plan
            };
            carry_out(&mut cluster);
            let plan = Plan::of(&cluster);
            assert!(shared_zones(&plan) <= zones_before, "seed {seed}");
            let is_regular = zone_count < 2 || node_count.is_multiple_of(zone_count);
            let copies = spread(&plan, |node| node.copy_count);
            let leaders = spread(&plan, |node| node.leader_count);
            let picture = format!("seed {seed}, {zone_count} zones: {:?}", plan.nodes);
            // Zones may stand in the way of the last one.
            let most = if zone_count < 2 { 1 } else { 2 };
            if is_regular {
                assert!(copies <= most, "copies: {picture}");
                assert!(leaders <= most, "leaders: {picture}");
            }
            for own in plan.partitions.iter().filter(|_| zone_count > 1) {
                let mut zones: Vec<&String> = Vec::new();
                for at in &own.replicas {
                    if !zones.contains(&&plan.nodes[*at].zone) {
                        zones.push(&plan.nodes[*at].zone);
                    }
                }
                let most = own.replicas.len().min(zone_count).min(node_count);
                assert_eq!(zones.len(), most, "zones: {own:?}, {picture}");
            }
            // What is told at once is what it comes to.
            if zone_count < 2 {
                assert!(spread(&whole, |node| node.copy_count) <= 1, "{picture}");
            }
        }
    }

    /// Six nodes of which three are new: half of all copies move, and no more.
    #[test]
    fn no_more_moves_than_there_have_to_be() {
        let three = ["n0", "n1", "n2"];
        let rotated = |by: usize| [three[by % 3], three[(by + 1) % 3], three[(by + 2) % 3]];
        let configs = (0..16).map(|by| config(&rotated(by), &rotated(by), &[]));
        let cluster = cluster(configs.collect());
        let mut plan = Plan::of(&cluster);
        plan.fill();
        assert_eq!((plan.copies.len(), plan.fixed_count()), (24, 0));
        assert!(
            spread(&plan, |node| node.leader_count) <= 1,
            "{:?}",
            plan.nodes
        );
        assert!(plan.leaders.len() < 4, "{:?}", plan.leaders);
    }

    /// Nothing goes to, or comes from, nodes that are away or leave, and partitions that are being
    /// moved are left alone.
    #[test]
    fn what_is_away_or_under_way_is_left_alone() {
        let mut cluster = cluster(vec![
            config(&["n0", "n1"], &["n0"], &[]),
            config(&["n0", "n2"], &["n0", "n2"], &["n2"]),
            config(&["n0", "n2"], &["n0", "n2"], &[]),
            config(&["n0", "n2"], &["n0", "n2"], &[]),
        ]);
        let leaving = cluster.registered.nodes.get_mut("n3").expect("it is there");
        leaving.is_leaving = true;
        let mut plan = Plan::of(&cluster);
        plan.fill();
        let names: Vec<&str> = plan
            .copies
            .iter()
            .map(|own| &plan.nodes[own.to].name[..])
            .collect();
        assert_eq!(plan.fixed_count(), 2);
        assert!(!names.is_empty());
        for (own, to) in plan.copies.iter().zip(names) {
            assert!(
                own.partition > 1 && ["n4", "n5"].contains(&to),
                "{own:?} to {to}"
            );
        }
    }

    /// The most that there can be: 1,024 partitions on three of six nodes.
    #[test]
    fn a_plan_has_an_end() {
        let three = ["n0", "n1", "n2"];
        let configs = (0..1024).map(|_| config(&three, &three, &[]));
        let mut plan = Plan::of(&cluster(configs.collect()));
        plan.fill();
        eprintln!("{} looks", LOOKS_MAX - plan.looks_left);
        assert!(plan.looks_left > 0 && spread(&plan, |node| node.copy_count) == 0);
        assert!(
            spread(&plan, |node| node.leader_count) <= 1,
            "{:?}",
            plan.nodes
        );
        let configs = (0..1024).map(|_| config(&three, &three, &[]));
        let mut plan = Plan::of(&cluster(configs.collect()));
        plan.looks_left = 500;
        plan.fill();
        assert!(
            plan.copies.len() < 1_000,
            "what is left over is in the next plan"
        );
    }
}
