//! A file for each family of paths: what its requests do, and what they are answered with.
//!
//! A new endpoint is a row of the table (`request/route.rs`), a file here, its two lines below, and
//! its description in `openapi.json`. One with a body is begun and finished in `dispatch.rs`.

pub(crate) mod admin;
pub(crate) mod batch;
pub(crate) mod cluster;
pub(crate) mod cluster_view;
pub(crate) mod digest;
pub(crate) mod health;
pub(crate) mod kv;
pub(crate) mod lookahead;
pub(crate) mod member_status;
pub(crate) mod metrics;
pub(crate) mod moves;
pub(crate) mod openapi;
mod packed;
pub(crate) mod partition;
pub(crate) mod scan;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod status_page;
mod status_stats;
pub(crate) mod watch;

use crate::http::{Head, Reply};

use super::context::Api;
use super::request::route::Route;

impl Api<'_> {
    /// Answers a request; its body, if there is one, means nothing.
    pub(crate) fn answer(&mut self, route: Route, head: &Head<'_>, reply: Reply<'_>) {
        match route {
            Route::Scan => self.answer_scan(head, reply),
            Route::Watch => self.answer_watch(head, reply),
            Route::Health | Route::Live | Route::Ready | Route::Leader | Route::Replica => {
                self.answer_health(route, head, reply);
            }
            Route::Root => self.answer_root(head, reply),
            Route::Status => self.answer_status(head, reply),
            Route::Snapshot => self.answer_snapshot(head, reply),
            Route::Digest => self.answer_digest(head, reply),
            Route::Metrics => self.answer_metrics(reply),
            Route::Freeze | Route::Compact | Route::Checkpoint => {
                self.answer_admin(route, head, reply);
            }
            Route::Partition => self.answer_removal(head, reply),
            Route::Cluster => self.answer_cluster(reply),
            Route::ClusterMap => self.answer_map(head, reply),
            Route::OpenApi => Self::answer_openapi(reply),
            // `begin` has dispatched these already.
            Route::Set
            | Route::Get
            | Route::Delete
            | Route::Key
            | Route::Batch
            | Route::Assign
            | Route::Init
            | Route::Handover
            | Route::Recover
            | Route::Move
            | Route::Rebalance
            | Route::Drain => {}
        }
    }
}
