//! Clusters under simulation: the node's own code, with time, network and disks that are the
//! test's. Whatever happens to nodes and to the messages between them, no confirmed write is lost.

#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks, files and sockets of their own"
)]

#[path = "../common/cluster.rs"]
mod cluster;
#[path = "../common/seeds.rs"]
mod seeds;
#[path = "../common/sim_disk.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod sim_disk;

mod clocks;
mod controller;
mod dialogue;
mod etcd;
mod failover;
mod full_disk;
mod on_clusters;
mod pending_writes;
#[cfg(feature = "seeded-bugs")]
mod seeded_bugs;
