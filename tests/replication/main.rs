//! Replication between real nodes: replicas become and stay the same as their leader, writes wait
//! for those they ask for, roles change hands without losing what was confirmed, and no stranger
//! that connects can do harm.

#![expect(clippy::too_many_lines, reason = "a scenario reads best in one piece")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests are the outside: they have clocks, files and sockets of their own"
)]

#[path = "../common/mod.rs"]
mod common;
mod assignments;
mod catch_up;
mod confirmed_writes;
mod empty_leader;
mod hostile_peers;
mod orders;
mod reads;

use serde_json::Value as Json;

use common::member::Member;

/// What a leader says when a replica gets all data.
const GETS_SNAPSHOT: &str = "gets a snapshot";

/// The only replica that a leader feeds.
fn fed(leader: &Member) -> Json {
    let replicas = leader.partition()["replicas"].clone();
    assert_eq!(replicas.as_array().map(Vec::len), Some(1), "{replicas}");
    replicas[0].clone()
}
