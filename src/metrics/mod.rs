//! What the node counts and how it is told: counters, histograms, and the text that Prometheus
//! reads.
//!
//! | file | what it is |
//! |---|---|
//! | `histogram.rs` | durations in buckets that grow by powers of two |
//! | `node_stats.rs` | all counts of one node |
//! | `etcd_stats.rs` | how etcd answers |
//! | `requests.rs` | answers by route and status, durations by group |
//! | `slow_requests.rs` | the last slow requests |
//! | `exposition.rs` | the text format: names, labels, values |
//!
//! Invariants:
//! 1. Counting is adding to a number in memory that is there: no allocation, no clock, no system
//!    call.
//! 2. Every set of labels is bounded by the code, not by what peers send.
//!
//! Not here: what is counted (each layer counts its own), the list of metrics
//! (`api/metrics/families.rs`),
//! clocks (`reactor/`).

mod etcd_stats;
mod exposition;
mod histogram;
mod node_stats;
mod requests;
mod slow_requests;

pub use etcd_stats::{ETCD_FAILURE_KINDS, EtcdStats};
pub use exposition::{Exposition, Label, MetricKind};
pub use histogram::Histogram;
pub use node_stats::{ClockStats, GateKind, LINK_END_COUNT, LinkStats, NodeStats};
pub use requests::{GROUP_COUNT, ROUTE_MAX, RequestStats};
pub use slow_requests::{PART_COUNT, RequestPart, SlowRequest, SlowRequests};
