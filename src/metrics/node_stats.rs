//! What one node counts about requests, connections and its loop, all partitions together.

use super::histogram::Histogram;
use super::requests::RequestStats;
use super::slow_requests::SlowRequests;

/// What replies wait for; the index into [`NodeStats::gate_waits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateKind {
    /// The disk.
    Disk,
    /// Replicas.
    Acks,
    /// A change of role.
    Role,
}

impl GateKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Disk, Self::Acks, Self::Role];

    /// As in labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Acks => "acks",
            Self::Role => "role",
        }
    }
}

/// What the system's clock did.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockStats {
    /// How often it was set.
    pub step_count: u64,
    /// Now: how far it is from the time for times to live.
    pub away_ms: u64,
}

/// Reasons for which replication connections end are numbered below this.
pub const LINK_END_COUNT: usize = 14;

/// Counts of replication connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinkStats {
    /// Bytes read.
    pub received_bytes: u64,
    /// Bytes rendered, to be sent.
    pub sent_bytes: u64,
    /// Connections that ended, by reason.
    pub ends: [u64; LINK_END_COUNT],
}

/// Counts since the start, unless they say that they are of now.
#[derive(Clone, Debug, Default)]
pub struct NodeStats {
    /// Unix time of the start.
    pub started_unix_ms: u64,
    /// The system's clock.
    pub clock: ClockStats,
    /// Answers.
    pub requests: RequestStats,
    /// Requests that took longer than the threshold of the slow log.
    pub slow_requests: SlowRequests,
    /// Bytes read from HTTP connections.
    pub received_bytes: u64,
    /// Bytes written to them.
    pub sent_bytes: u64,
    /// Replication connections.
    pub links: LinkStats,
    /// Now: heap of HTTP connections: unsent answers and requests that are not whole.
    pub connection_bytes: usize,
    /// Now: the table of connections itself.
    pub connection_table_bytes: usize,
    /// Uploads ended because memory was short and they were slow.
    pub ended_upload_count: u64,
    /// Answers cut off because memory was short and their readers were slow.
    pub ended_download_count: u64,
    /// Now: replies that are held back.
    pub held_reply_count: usize,
    /// How long connections waited with what they held back, by [`GateKind`].
    pub gate_waits: [Histogram; 3],
    /// Processor time of turns of the loop.
    pub turns: Histogram,
    /// Processor time of slices of maintenance.
    pub slices: Histogram,
    /// Syncs of the log that commits waited for, as the disk thread measured them.
    pub log_syncs: Histogram,
}
