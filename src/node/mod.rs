//! The node: the partitions of this process, and what it tells about itself.
//!
//! Invariants:
//! 1. Everything is owned here, by one thread; nothing is shared.
//! 2. The node has no clock and touches no file and no socket: `now_ms` (milliseconds since it
//!    started), what the disk tells and what peers send come in; commands for the disk, addresses
//!    to dial and bytes for peers go out. So all of it runs in a simulation, too
//!    (`tests/simulation/failover/`).
//! 3. Until its data is loaded it has no partition, and says how far it is.

mod body_budget;
mod cluster;
mod errors;
mod links;
mod loop_stats;
mod orders;
mod permits;
mod removals;
mod scan_snapshots;
mod state;
mod watches;

pub use body_budget::{BodyBudget, BodyClaim, ClaimKind, ClaimRefusal};
pub use errors::{AssignRefusal, DEFAULT_PARTITION, PARTITIONS_MAX, Subject, Unavailable};
pub use links::DialRequest;
pub use loop_stats::{LoopStats, SLOW_TURN_US};
pub use permits::{Permit, Permits};
pub use removals::{Removal, RemovalOrder, RemovalRefusal};
pub use scan_snapshots::{ScanSnapshots, SnapshotUse};
pub use state::{DiskNews, Node, RequestResources};
pub use watches::{WatchProgress, Watches};
