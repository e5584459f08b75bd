//! One partition: an engine, its log on disk if it has one, its role, its replicas and its leader,
//! and what a request may do with them.
//!
//! `state.rs` is the partition and what every role does; `assigning.rs` what an assignment changes;
//! `links.rs` its replication links; `serving.rs` its replicas; `following.rs` its leader;
//! `takeover.rs` and `visits.rs` how it comes to lead; `claims.rs` how it makes way for another
//! leader; `in_cluster.rs` and `membership.rs` what it is in a cluster that etcd configures;
//! `removal.rs` how it is removed.
//!
//! Not here: which partition a request means (`node/`), HTTP (`api/`).

mod ack_requirements;
mod assigning;
mod checkpoint_schedule;
mod claims;
mod conditions;
mod disk_log;
mod following;
mod in_cluster;
mod known_peers;
mod leader_link;
mod links;
mod membership;
mod partition_clock;
mod removal;
mod replicas;
mod retired;
mod roles;
mod serving;
mod state;
mod takeover;
#[cfg(test)]
mod tests;
mod visits;
mod wait;

pub use ack_requirements::TooFewReplicas;
pub use conditions::{ConditionFailed, Conditions, TokenSet};
pub use disk_log::{BulkWrites, DiskLog};
pub use leader_link::LeaderStats;
pub use membership::{Closed, CopyFacts};
pub use removal::RemovalError;
pub use replicas::ReplicaStats;
pub use retired::RetiredEngines;
pub use roles::{AssignError, Assignment, EPOCH_LEAP_MAX, Roles};
pub use state::{Partition, PartitionOptions, PositionError, SnapshotStats, WriteResult};
pub use wait::{Wait, WaitProgress};
