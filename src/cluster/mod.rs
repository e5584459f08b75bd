//! A node of a cluster with its configuration in etcd: which node leads each partition, and which
//! copies are in sync.
//!
//! `config.rs` has the values in etcd; `member.rs` is one partition on this node, `standing.rs`
//! what it does until it leads and `leading.rs` what it does then, `office.rs` what it observes as
//! the leader and `own_disk.rs` what of its own disk, `change.rs` a change that it asks for,
//! `history.rs` whether etcd went back and `contact.rs` when it has answered, and `counts.rs` what
//! is counted; `state.rs` is all partitions, and what etcd is asked next, `registered.rs` what was
//! read there, `orders.rs`, `init.rs`, `moves.rs`, `rebalance.rs` and `forget.rs` what an operator
//! asks for, and `balance.rs` plans it; `etcd/` is the client of etcd.
//!
//! Not here: beats, leases and acknowledgements (`partition/membership.rs`), sockets (`reactor/`).

mod balance;
mod change;
pub mod config;
mod contact;
mod counts;
pub mod etcd;
mod forget;
#[cfg(test)]
mod hint_tests;
mod history;
mod init;
mod leading;
mod member;
mod moves;
#[cfg(test)]
mod moves_tests;
mod office;
mod operations;
mod orders;
mod own_disk;
mod placement;
mod rebalance;
mod registered;
mod rules;
mod standing;
mod state;
mod surroundings;

pub use counts::{CHANGE_OUTCOMES, MemberCounts, SET_CHANGES, TAKEOVER_CAUSES};
pub use forget::{ForgetRefusal, Forgotten};
pub use init::Made;
pub use member::{HandoverEnd, Member, MemberState};
pub use moves::{CopyMove, MoveRefusal, MoveStep};
pub use operations::{InitRefusal, OperationEnd};
pub use orders::{HandoverRefusal, Leaving, RecoveryRefusal};
pub use rebalance::{BalanceMove, Rebalance};
pub use state::{Cluster, ClusterOptions};
