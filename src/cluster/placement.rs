//! Which nodes get which partitions of a new cluster: the copies of a partition in as many zones as
//! there are, then as many copies for each node as for any other, and leaders spread evenly.
//!
//! The same nodes give the same placement, so that two nodes that make a cluster at the same time
//! write the same.

use std::collections::BTreeMap;

/// The nodes of a partition: the first leads.
pub(super) type Nodes = Vec<String>;

/// Places partitions on nodes, which are given by name with their zones. `replica_count` is at most
/// the number of nodes.
pub(super) fn place(
    nodes: &BTreeMap<String, String>,
    partition_count: u32,
    replica_count: usize,
) -> Vec<Nodes> {
    let names: Vec<&String> = nodes.keys().collect();
    let mut copy_counts = vec![0_u32; names.len()];
    let mut leader_counts = vec![0_u32; names.len()];
    let mut placed = Vec::new();
    for _ in 0..partition_count {
        let mut chosen: Vec<usize> = Vec::new();
        while chosen.len() < replica_count.min(names.len()) {
            let zone = |at: usize| &nodes[names[at]];
            // A zone of its own where nodes say where they are.
            let shared_count = |at: usize| {
                let same = |other: &&usize| !zone(at).is_empty() && zone(**other) == zone(at);
                chosen.iter().filter(same).count()
            };
            let free = (0..names.len()).filter(|at| !chosen.contains(at));
            let next = free.min_by_key(|at| (shared_count(*at), copy_counts[*at], *at));
            let Some(next) = next else { break };
            copy_counts[next] += 1;
            chosen.push(next);
        }
        let leader = (0..chosen.len()).min_by_key(|at| (leader_counts[chosen[*at]], *at));
        let Some(leader) = leader else { break };
        leader_counts[chosen[leader]] += 1;
        chosen.swap(0, leader);
        placed.push(chosen.iter().map(|at| names[*at].clone()).collect());
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes, each in the zone of its number modulo `zone_count`; 0: no zones.
    fn nodes(node_count: usize, zone_count: usize) -> BTreeMap<String, String> {
        let zone = |node: usize| match zone_count {
            0 => String::new(),
            count => format!("z{}", node % count),
        };
        let named = (0..node_count).map(|node| (format!("n{node:02}"), zone(node)));
        named.collect()
    }

    fn spread(counts: &BTreeMap<&String, usize>, node_count: usize) -> usize {
        let is_full = counts.len() == node_count;
        let least = counts.values().min().copied().filter(|_| is_full);
        let least = least.unwrap_or(0);
        counts.values().max().copied().unwrap_or(0) - least
    }

    /// By how much the counts of copies, and those of leaders, differ at most.
    fn differences(nodes: &BTreeMap<String, String>, placed: &[Nodes]) -> (usize, usize) {
        let (mut copies, mut leaders) = (BTreeMap::new(), BTreeMap::new());
        for names in placed {
            *leaders.entry(&names[0]).or_insert(0) += 1;
            for name in names {
                *copies.entry(name).or_insert(0) += 1;
            }
        }
        (spread(&copies, nodes.len()), spread(&leaders, nodes.len()))
    }

    #[test]
    fn copies_and_leaders_are_spread_evenly() {
        for node_count in 1..8 {
            for replica_count in 1..=node_count.min(4) {
                for partition_count in [1, 2, 7, 16, 64, 1024] {
                    let nodes = nodes(node_count, 0);
                    let placed = place(&nodes, partition_count, replica_count);
                    let of = (node_count, replica_count, partition_count);
                    assert_eq!(placed.len(), partition_count as usize);
                    for names in &placed {
                        let mut sorted = names.clone();
                        sorted.sort();
                        sorted.dedup();
                        assert_eq!(sorted.len(), replica_count, "{of:?}: {names:?}");
                    }
                    let (copies, leaders) = differences(&nodes, &placed);
                    assert!(copies <= 1 && leaders <= 1, "{of:?}: {copies}, {leaders}");
                }
            }
        }
    }

    #[test]
    fn copies_are_in_different_zones() {
        for (node_count, zone_count) in [(2, 2), (4, 2), (6, 2), (3, 3), (6, 3), (9, 3)] {
            for replica_count in 2..=zone_count {
                let nodes = nodes(node_count, zone_count);
                let placed = place(&nodes, 64, replica_count);
                for names in &placed {
                    let mut zones: Vec<&String> = names.iter().map(|name| &nodes[name]).collect();
                    zones.sort();
                    zones.dedup();
                    assert_eq!(zones.len(), replica_count, "{names:?}");
                }
                let (copies, leaders) = differences(&nodes, &placed);
                let of = (node_count, zone_count, replica_count);
                assert!(copies <= 1 && leaders <= 1, "{of:?}: {copies}, {leaders}");
            }
        }
        // One zone has one node, which then has a copy of all.
        let mut uneven = nodes(3, 1);
        uneven.insert("n02".to_owned(), "other".to_owned());
        for names in place(&uneven, 16, 2) {
            assert!(names.iter().any(|name| name == "n02"), "{names:?}");
        }
    }

    #[test]
    fn the_same_nodes_give_the_same_placement() {
        assert_eq!(place(&nodes(5, 3), 16, 3), place(&nodes(5, 3), 16, 3));
    }
}
