//! A node of a cluster with its configuration in etcd: which node leads each partition, and which
//! copies are in sync.
//!
//! `config.rs` has the values in etcd; `member.rs` is one partition on this node, `office.rs` its
//! time as the leader, `change.rs` a change that it asks for, and `counts.rs` what is counted;
//! `state.rs` is all partitions, and what etcd is asked next; `etcd/` is the client of etcd.
//!
//! Not here: beats, leases and acknowledgements (`partition/membership.rs`), sockets (`reactor/`).

mod change;
pub mod config;
mod counts;
pub mod etcd;
mod member;
mod office;
mod state;
mod surroundings;

pub use counts::{CHANGE_OUTCOMES, MemberCounts, SET_CHANGES, TAKEOVER_CAUSES};
pub use member::{HandoverEnd, Member, MemberState};
pub use state::{Cluster, ClusterOptions};
