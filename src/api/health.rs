//! `/health`, `/livez` and `/readyz`: what controllers, load balancers and kubelets ask, without a token.

use serde::Serialize;

use crate::http::Reply;

use super::route::Route;
use super::{Api, JSON};

/// The body of `/health`. The first four fields are what the controller reads.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    status: &'static str,
    /// Bytes of log in the active memtables.
    mem_table_size: usize,
    /// Levels, the memtable's included, of the partition that has the most.
    levels: usize,
    partitions: Vec<u32>,
    role: &'static str,
    version: u64,
    uptime_ms: u64,
    replication_port: Option<u16>,
}

impl Api<'_> {
    pub(super) fn answer_health(&self, route: Route, reply: Reply<'_>) {
        match route {
            Route::Health => {
                let body = serde_json::to_vec(&self.health()).expect("plain fields serialize");
                reply.status(200).content_type(JSON).body(&body);
            }
            Route::Ready if self.node.is_draining() => {
                reply
                    .status(503)
                    .content_type("text/plain")
                    .header("Retry-After", "1")
                    .body(b"draining: the node is stopping\n");
            }
            Route::Ready => reply.status(200).content_type("text/plain").body(b"ready\n"),
            _ => reply.status(200).content_type("text/plain").body(b"alive\n"),
        }
    }

    fn health(&self) -> Health {
        let stats: Vec<_> = self.node.partitions().map(|partition| partition.lsm().stats()).collect();
        Health {
            status: "OK",
            mem_table_size: stats.iter().map(|stats| stats.memtable_bytes).sum(),
            levels: stats.iter().map(|stats| stats.levels.len().max(1)).max().unwrap_or(0),
            partitions: self.node.partitions().map(crate::partition::Partition::id).collect(),
            role: "leader",
            version: stats.iter().map(|stats| stats.last_version).max().unwrap_or(0),
            uptime_ms: self.now_ms,
            replication_port: None,
        }
    }
}
