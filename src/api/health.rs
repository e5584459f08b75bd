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
                let status = if self.node.loading().is_some() { 503 } else { 200 };
                reply.status(status).content_type(JSON).body(&body);
            }
            Route::Ready => match self.obstacle() {
                Some(obstacle) => {
                    let reply = reply.status(503).content_type("text/plain").header("Retry-After", "1");
                    reply.body(obstacle.as_bytes());
                }
                None => reply.status(200).content_type("text/plain").body(b"ready\n"),
            },
            _ => reply.status(200).content_type("text/plain").body(b"alive\n"),
        }
    }

    /// Why requests should go elsewhere, as one line.
    fn obstacle(&self) -> Option<String> {
        if self.node.is_draining() {
            return Some("draining: the node is stopping\n".to_owned());
        }
        if let Some(progress) = self.node.loading() {
            return Some(format!("loading: {progress}\n"));
        }
        self.node.write_obstacle().map(|error| format!("storage failed, writes are off: {error}\n"))
    }

    fn health(&self) -> Health {
        let stats: Vec<_> = self.node.partitions().map(|partition| partition.lsm().stats()).collect();
        Health {
            status: if self.node.loading().is_some() { "LOADING" } else { "OK" },
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
