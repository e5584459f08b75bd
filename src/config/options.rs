//! The table of options: a row makes the flag, the name in the environment, the line of `--help`,
//! the field of [`Config`] and its part of `/status`.
//!
//! A row is `field: type = how, "flag" "VALUE" "default" "meaning";`. *How* is a method of
//! [`GivenOptions`], with what it takes beside the flag; VALUE stands for the value in `--help`,
//! and is empty for a switch; an empty default means nothing.
//!
//! Not here: what values look like (`values.rs`).

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use super::choices::{Fsync, ReadConsistency};
use super::cluster::{ClusterInit, EtcdUser, parse_plain_name};
use super::etcd_url::parse_etcd_urls;
use super::given::{ConfigError, GivenOptions, OptionSpec};
use super::origin::Origin;
use super::token::Token;
use super::values::{
    Bounds, GIB, KIB, MIB, host_name_in, parse_address, parse_host_name, parse_leader,
    parse_log_level, parse_peer, read_token,
};

/// A memtable of one log segment is the least that makes sense; places in one are 32 bits wide.
const MEMTABLE_BYTES: Bounds = Bounds {
    min: 64 * KIB,
    max: GIB,
};
/// Less than an empty node takes would refuse everything.
const MAX_MEMORY_BYTES: Bounds = Bounds {
    min: 4 * MIB,
    max: 1 << 50,
};
/// One body alone is taken whatever this says; more than any machine has memory.
const MAX_UPLOAD_BYTES: Bounds = Bounds {
    min: MIB,
    max: MAX_MEMORY_BYTES.max,
};
/// More than any process has descriptors for.
const MAX_CONNECTIONS: Bounds = Bounds {
    min: 1,
    max: 1 << 20,
};
/// A day; a time-out of 0 would close every connection at once.
const TIMEOUT_MS: Bounds = Bounds {
    min: 1,
    max: 24 * 60 * 60 * 1000,
};
/// A day; 0 is never.
const SLOW_REQUEST_MS: Bounds = Bounds {
    min: 0,
    max: TIMEOUT_MS.max,
};
/// Lengths of values are 32 bits wide on disk and wire.
const MAX_VALUE_BYTES: Bounds = Bounds { min: 1, max: GIB };
/// A key of 4,096 bytes, percent-encoded, must fit into the largest head.
const MAX_HEAD_BYTES: Bounds = Bounds {
    min: 512,
    max: 64 * KIB,
};

/// As many replicas as are fed at once.
const MIN_ACKS: Bounds = Bounds { min: 0, max: 32 };
/// As many copies as a partition may have.
const MIN_IN_SYNC: Bounds = Bounds { min: 1, max: 32 };
/// A replica is waited for as long as half of it; a shorter one ends with every pause of a machine.
const LEASE_MS: Bounds = Bounds {
    min: 500,
    max: 60_000,
};
/// Nothing, or what is still a small part of a machine.
const WAL_RETAIN_BYTES: Bounds = Bounds {
    min: 0,
    max: 64 * GIB,
};

macro_rules! options {
    ($($(#[$attribute:meta])* $field:ident: $type:ty = $how:ident($($argument:expr)?),
        $flag:literal $value:literal $default:literal $meaning:literal;)*) => {
        /// Everything that can be set, in force. Serialized, it is the configuration as `/status`
        /// shows it.
        #[derive(Clone, Debug, Serialize)]
        #[serde(rename_all = "camelCase")]
        pub struct Config {
            $($(#[$attribute])* pub $field: $type,)*
            /// The name in `--listen`, where it is not an address.
            #[serde(skip)]
            pub listen_name: Option<String>,
        }

        /// All options, in the order of `--help`.
        pub(super) const OPTIONS: &[OptionSpec] = &[$(OptionSpec {
            flag: $flag,
            value: $value,
            default: $default,
            meaning: $meaning,
        },)*];

        impl Config {
            /// What was given, understood and checked.
            pub(super) fn from_given(given: &GivenOptions) -> Result<Self, ConfigError> {
                let mut config = Self {
                    $($field: given.$how($flag $(, $argument)?)?,)*
                    listen_name: given.parsed("listen", |text| Ok(host_name_in(text)))?,
                };
                config.settle_for_cluster(given);
                config.check(given)?;
                Ok(config)
            }
        }
    };
}

options! {
    /// Where HTTP is served.
    listen: SocketAddr = parsed(parse_address),
        "listen" "ADDR" "127.0.0.1:9001" "address and port to serve HTTP on";
    /// Where data is kept; without it in memory only.
    #[serde(serialize_with = "show_path")]
    data_dir: Option<PathBuf> = path(),
        "data-dir" "DIR" "" "keep data there; without it in memory only";
    /// When writes are made to last, with a data directory.
    #[serde(skip)]
    fsync: Fsync = parsed(Fsync::parse),
        "fsync" "WHEN" "always" "sync to disk: always, interval or never";
    /// Time between two syncs, with `Fsync::Interval`.
    fsync_interval_ms: u64 = number(&TIMEOUT_MS),
        "fsync-interval-ms" "N" "1000" "time between syncs with --fsync interval";
    /// Where replicas connect; none: nowhere.
    replication_listen: Option<SocketAddr> = replication_address(),
        "replication-listen" "ADDR" "" "for replicas, or off; without it --listen, port + 1000";
    /// The HTTP address of the leader to follow.
    replica_of: Option<String> = optional(parse_leader),
        "replica-of" "ADDR" "" "follow the leader with this HTTP address";
    /// The HTTP address that other nodes and clients reach this node at, where it is not `listen`.
    advertise: Option<String> = optional(parse_peer),
        "advertise" "URL" "" "the HTTP address that others reach this node at";
    /// Take no role before a controller assigns one.
    await_assignment: bool = switch(),
        "await-assignment" "" "" "take no role until a controller assigns one";
    /// The members of etcd, as authorities such as `10.0.0.5:2379`; none: this node is of no
    /// cluster.
    etcd: Option<Vec<String>> = optional(parse_etcd_urls),
        "etcd" "URL,..." "" "be of a cluster that this etcd configures";
    /// The name of this node in the cluster.
    node: Option<String> = optional(parse_plain_name),
        "node" "NAME" "" "the node's name in the cluster; the same after each restart";
    /// The name of the cluster, of which one etcd can have many.
    cluster: String = parsed(parse_plain_name),
        "cluster" "NAME" "default" "the name of the cluster in etcd";
    /// Where the node is: copies are spread over zones.
    zone: Option<String> = optional(parse_plain_name),
        "zone" "NAME" "" "where the node is; copies are spread over zones";
    /// How long a leader may answer reads after its replicas have heard from it.
    lease_ms: u64 = number(&LEASE_MS),
        "lease-ms" "N" "2000" "how long a leader may answer that is cut off";
    /// Copies in sync, the leader's included, without which writes are refused.
    min_in_sync: u8 = number(&MIN_IN_SYNC),
        "min-in-sync" "N" "1" "with fewer copies in sync writes get 503";
    /// The user that etcd knows.
    #[serde(serialize_with = "show_presence", rename = "etcdUser")]
    etcd_user: Option<EtcdUser> = optional(EtcdUser::read),
        "etcd-user-file" "FILE" "" "user of etcd: the file holds name:password";
    /// The cluster to make, where there is none.
    #[serde(skip)]
    cluster_init: Option<ClusterInit> = optional(ClusterInit::parse),
        "cluster-init" "WHAT" ""
            "make it if new: partitions=16,replicas=3,when-all-lost=wait";
    /// Replicas that must hold a write before it is acknowledged.
    min_acks: u8 = number(&MIN_ACKS),
        "min-acks" "N" "0" "replicas that must hold a write before the reply";
    /// What reads show that do not say it themselves.
    read_consistency: ReadConsistency = parsed(ReadConsistency::parse),
        "read-consistency" "WHAT" "local" "reads show what is local, or acknowledged by replicas";
    /// How long a reply waits for them.
    ack_timeout_ms: u64 = number(&TIMEOUT_MS),
        "ack-timeout-ms" "N" "1000" "how long a write waits for replicas; then 504";
    /// Log kept for replicas that come back, once there was one.
    wal_retain_bytes: usize = bytes(&WAL_RETAIN_BYTES),
        "wal-retain-bytes" "N" "16MiB" "log kept for replicas that come back";
    /// A backup to start from.
    #[serde(skip)]
    restore: Option<PathBuf> = path(),
        "restore" "FILE" "" "start from a backup that GET /snapshot gave";
    /// Start without what is damaged.
    #[serde(skip)]
    accept_data_loss: bool = switch(),
        "accept-data-loss" "" "" "start without what is damaged; it is set aside";
    /// Log bytes after which the active memtable is frozen.
    memtable_bytes: usize = bytes(&MEMTABLE_BYTES),
        "memtable-bytes" "N" "4MiB" "freeze the memtable at this size";
    /// Memory from which on sets are refused.
    max_memory_bytes: Option<usize> = optional_bytes(&MAX_MEMORY_BYTES),
        "max-memory" "N" "" "memory limit; above it sets get 507, reads and deletes go on";
    /// Memory for request bodies that are on their way, all together.
    max_upload_bytes: usize = bytes(&MAX_UPLOAD_BYTES),
        "max-upload-memory" "N" "1GiB" "memory for bodies that are arriving; above it 507";
    /// Longest value.
    max_value_bytes: usize = bytes(&MAX_VALUE_BYTES),
        "max-value-bytes" "N" "16MiB" "longest value";
    /// Longest request head.
    max_head_bytes: usize = bytes(&MAX_HEAD_BYTES),
        "max-head-bytes" "N" "16KiB" "longest request head";
    /// Connections at a time.
    max_connections: usize = number(&MAX_CONNECTIONS),
        "max-connections" "N" "10240" "connections at a time; more get 503";
    /// How long a connection may be silent between requests.
    idle_timeout_ms: u64 = number(&TIMEOUT_MS),
        "idle-timeout-ms" "N" "60000" "silence allowed between requests";
    /// How long a request head may take, and a body beyond the time its bytes earn.
    header_timeout_ms: u64 = number(&TIMEOUT_MS),
        "header-timeout-ms" "N" "10000" "time for a request head to arrive";
    /// What requests must present.
    #[serde(serialize_with = "show_presence")]
    token: Option<Token> = optional(read_token),
        "token-file" "FILE" "" "requests need the token in this file";
    /// Host names answered under, beside addresses, `localhost` and the node's own names.
    allowed_hosts: Vec<String> = list(parse_host_name),
        "allowed-host" "NAME" "" "a Host name to answer under; may be repeated";
    /// Origins of web pages that may send requests.
    #[serde(serialize_with = "show_all")]
    allowed_origins: Vec<Origin> = list(Origin::parse),
        "allowed-origin" "ORIGIN" "" "a web page's origin to answer, or *; may be repeated";
    /// Listen beyond loopback without a token.
    #[serde(skip)]
    allow_open: bool = switch(),
        "allow-open" "" "" "listen beyond loopback without a token";
    /// Requests that take so long are logged; 0: none.
    slow_request_ms: u64 = number(&SLOW_REQUEST_MS),
        "slow-request-ms" "N" "100" "log requests that take longer; 0: none";
    /// What is logged.
    #[serde(skip)]
    log_level: log::LevelFilter = parsed(parse_log_level),
        "log" "LEVEL" "info" "off, error, warn, info, debug or trace";
}

/// Options that are none of a [`Config`]: what they do is up to the command line.
pub const ACTION_OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        flag: "check",
        value: "",
        default: "",
        meaning: "say whether a node could start, and change nothing",
    },
    OptionSpec {
        flag: "port",
        value: "N",
        default: "",
        meaning: "the same as --listen 127.0.0.1:N; -p N, too",
    },
];

/// All options, for those that describe them.
pub fn options() -> &'static [OptionSpec] {
    OPTIONS
}

impl Config {
    /// Whether there is data to load before requests can be answered.
    pub fn loads_data(&self) -> bool {
        self.data_dir.is_some() || self.restore.is_some()
    }

    /// When writes are made to last, as `/status` names it: `memory` where nothing is kept.
    pub fn durability(&self) -> &'static str {
        match self.data_dir {
            Some(_) => self.fsync.name(),
            None => "memory",
        }
    }

    /// Refuses options that do not go together.
    fn check(&self, given: &GivenOptions) -> Result<(), ConfigError> {
        if self.data_dir.is_none()
            && let Some((name, text)) = given.texts("fsync").last()
        {
            let problem =
                "nothing is synced without --data-dir: name a directory, or leave this out";
            return Err(ConfigError(format!("{name} {text}: {problem}")));
        }
        if let Some(leader) = &self.replica_of
            && self.is_own_address(leader)
        {
            let (name, text) = given.texts("replica-of").last().expect("it was given");
            return Err(ConfigError(format!(
                "{name} {text}: that is this node itself: name the node to follow, or leave it out \
                 to lead"
            )));
        }
        self.check_cluster(given)?;
        let listeners = [Some(self.listen), self.replication_listen];
        let is_reachable = |address: &SocketAddr| !address.ip().is_loopback();
        if let Some(address) = listeners.into_iter().flatten().find(is_reachable)
            && self.token.is_none()
            && !self.allow_open
        {
            return Err(ConfigError(format!(
                "listening on {address} lets anyone on the network in: give --token-file FILE to \
                 require a token, or --allow-open if the network is trusted"
            )));
        }
        Ok(())
    }
}

#[expect(clippy::ref_option, reason = "serde passes a field by reference")]
fn show_path<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    let text = path.as_ref().map(|path| path.display().to_string());
    text.serialize(serializer)
}

#[expect(clippy::ref_option, reason = "serde passes a field by reference")]
fn show_presence<S: Serializer, T>(secret: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bool(secret.is_some())
}

fn show_all<S: Serializer>(origins: &[Origin], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(origins.iter().map(ToString::to_string))
}
