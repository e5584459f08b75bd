//! What etcd keeps for a cluster of nodes: the only home of its keys and values.
//!
//! ```text
//! /db-node/<cluster>/cluster
//!   {"format":1,"id":"<32 hex>","partitions":16,"hash":"crc32c","whenAllLost":"wait"}
//! /db-node/<cluster>/nodes/<name>             written by each node when it starts
//!   {"format":1,"url":"http://10.0.0.11:9001","zone":"a","version":"0.2.0","protocol":[1,3],
//!    "process":"<32 hex>"}
//! /db-node/<cluster>/partitions/<id>/config   the leader, and the copies in sync
//!   {"format":1,"epoch":7,"leader":"n1","handedOver":false,"leaseMs":2000,
//!    "inSync":[{"node":"n1","copy":"<32 hex>"}],"replicas":["n1","n2","n3"],"leaving":[],
//!    "nextLeader":"n2",                       left out where the leader is to stay
//!    "recovered":5}                           left out where no operator has decided by force
//! /db-node/<cluster>/partitions/<id>/copies/<name>  written by each node for its copy
//!   {"copy":"<32 hex>","epoch":7,"version":1234,
//!    "doubts":7}                              left out where etcd was not found to have gone back
//! ```
//!
//! A configuration changes only by a comparison of its revision, so each is made from the one
//! before. Fields that this release does not know are kept when it writes a value anew.
//!
//! Not here: what a node does about them (`member.rs`).

use serde_json::{Map, Value};
use thiserror::Error;

use crate::config::{PARTITION_MAX, WhenAllLost};
use crate::storage::{CopyId, PEERS_MAX};

use super::etcd::parse_json;

/// The newest layout that this release reads.
const FORMAT: u64 = 1;

/// The shortest lease.
pub const LEASE_MS_MIN: u64 = 500;
/// The longest lease.
pub const LEASE_MS_MAX: u64 = 60_000;

/// The highest epoch. What etcd has above is a mistake, and leaves no room for others.
pub const EPOCH_MAX: u64 = 1 << 62;

/// Longest name of a node or a cluster.
pub const NAME_MAX_BYTES: usize = 63;

/// A value in etcd is not what a node writes. The text says why.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ValueError(&'static str);

impl ValueError {
    /// No copy takes a role in such an epoch.
    pub(super) const TOO_FAR: Self =
        Self("its epoch is more than 2^32 above that of this copy: write it with a lower one");
}

/// A copy of a partition, and the node that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOfNode {
    /// The node's name.
    pub node: String,
    /// The copy.
    pub copy: CopyId,
}

/// The configuration of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionConfig {
    /// Counts changes of the leader; 0: no node has led yet, and the one that is named may.
    pub epoch: u64,
    /// The name of the node that leads, or is to.
    pub leader: String,
    /// The leader before had stopped before it wrote this.
    pub handed_over: bool,
    /// How long the leader of this epoch may answer reads after its beats.
    pub lease_ms: u64,
    /// The copies that hold every acknowledged write.
    pub in_sync: Vec<CopyOfNode>,
    /// The names of the nodes that are to have a copy.
    pub replicas: Vec<String>,
    /// The names of those that are to have none any more.
    pub leaving: Vec<String>,
    /// The name of the node that the leader hands over to once its copy is in sync.
    pub next_leader: Option<String>,
    /// The newest epoch in which an operator has named the leader by force; 0: none has.
    pub recovered: u64,
    /// Fields that this release does not know, as text: an object, or nothing.
    pub(super) others: Vec<u8>,
}

impl PartitionConfig {
    /// That of a partition in which no node has led yet.
    pub fn first(leader: String, replicas: Vec<String>, lease_ms: u64) -> Self {
        Self {
            epoch: 0,
            leader,
            handed_over: false,
            lease_ms,
            in_sync: Vec::new(),
            replicas,
            leaving: Vec::new(),
            next_leader: None,
            recovered: 0,
            others: Vec::new(),
        }
    }

    /// Reads a value.
    pub fn decode(bytes: &[u8]) -> Result<Self, ValueError> {
        const NO_CONFIG: ValueError = ValueError("it is not the configuration of a partition");
        let mut fields = Fields::parse(bytes).ok_or(NO_CONFIG)?;
        if fields.number("format").ok_or(NO_CONFIG)? > FORMAT {
            return Err(ValueError("it is of a later release: upgrade this node"));
        }
        let copies = fields.list("inSync").ok_or(NO_CONFIG)?;
        let mut config = Self::of_fields(fields).ok_or(NO_CONFIG)?;
        for of in copies {
            let (node, copy) = copy_of_node(of).ok_or(NO_CONFIG)?;
            let copy = CopyId::parse(&copy).ok_or(ValueError("it names an impossible copy"))?;
            config.in_sync.push(CopyOfNode { node, copy });
        }
        let names = config.replicas.iter().chain(&config.leaving);
        let names = names.chain(&config.next_leader);
        let mut names = names.chain(config.in_sync.iter().map(|of| &of.node));
        if !is_name(&config.leader) || !names.all(|name| is_name(name)) {
            return Err(ValueError("it names an impossible node"));
        }
        let longest = config.in_sync.len().max(config.replicas.len());
        if longest > PEERS_MAX || config.leaving.len() > PEERS_MAX {
            return Err(ValueError("it names too many nodes"));
        }
        if config.epoch.max(config.recovered) > EPOCH_MAX {
            return Err(ValueError(
                "its epoch is above 2^62: write it with a lower one",
            ));
        }
        if !(LEASE_MS_MIN..=LEASE_MS_MAX).contains(&config.lease_ms) {
            return Err(ValueError("its leaseMs is out of bounds"));
        }
        Ok(config)
    }

    /// All but the copies in sync.
    fn of_fields(mut fields: Fields) -> Option<Self> {
        Some(Self {
            epoch: fields.number("epoch")?,
            leader: fields.text("leader")?,
            handed_over: fields.take("handedOver")?.as_bool()?,
            lease_ms: fields.number("leaseMs")?,
            in_sync: Vec::new(),
            replicas: texts(fields.list("replicas")?)?,
            leaving: match fields.take("leaving") {
                Some(Value::Array(list)) => texts(list)?,
                Some(_) => return None,
                None => Vec::new(),
            },
            next_leader: match fields.take("nextLeader") {
                Some(name) => Some(text(name)?),
                None => None,
            },
            recovered: fields.number_or_zero("recovered")?,
            others: match fields.0 {
                none if none.is_empty() => Vec::new(),
                others => to_vec(&Value::Object(others)),
            },
        })
    }

    /// The value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{".to_vec();
        push_number(&mut out, "format", FORMAT);
        push_number(&mut out, "epoch", self.epoch);
        push_text(&mut out, "leader", &self.leader);
        push_field(&mut out, "handedOver", &Value::Bool(self.handed_over));
        push_number(&mut out, "leaseMs", self.lease_ms);
        push_name(&mut out, "inSync");
        out.push(b'[');
        for (index, of) in self.in_sync.iter().enumerate() {
            out.extend_from_slice(if index == 0 { b"{" } else { b",{" });
            push_text(&mut out, "node", &of.node);
            push_text(&mut out, "copy", &of.copy.to_string());
            out.push(b'}');
        }
        out.push(b']');
        push_texts(&mut out, "replicas", &self.replicas);
        push_texts(&mut out, "leaving", &self.leaving);
        if let Some(next) = &self.next_leader {
            push_text(&mut out, "nextLeader", next);
        }
        if self.recovered > 0 {
            push_number(&mut out, "recovered", self.recovered);
        }
        if self.others.is_empty() {
            out.push(b'}');
        } else {
            out.push(b',');
            out.extend_from_slice(&self.others[1..]);
        }
        out
    }

    /// Whether a copy holds every acknowledged write.
    pub fn is_in_sync(&self, copy: CopyId) -> bool {
        self.in_sync.iter().any(|of| of.copy == copy)
    }

    /// The node of a copy in sync that is not to be given up.
    pub fn staying_node_of(&self, copy: CopyId) -> Option<&str> {
        let of = self.in_sync.iter().find(|of| of.copy == copy)?;
        (!self.has_leaving(&of.node)).then_some(&of.node[..])
    }

    /// Whether the copies of all nodes that are to keep theirs are in sync, and there are any.
    pub fn are_staying_in_sync(&self) -> bool {
        let replicas = self.replicas.iter();
        let mut staying = replicas.filter(|name| !self.has_leaving(name));
        let is_in_sync = |name: &String| self.has_in_sync(name);
        let (first, others) = (
            staying.next().is_some_and(is_in_sync),
            staying.all(is_in_sync),
        );
        first && others
    }

    /// Whether the copy of a node is in sync.
    pub fn has_in_sync(&self, node: &str) -> bool {
        self.in_sync.iter().any(|of| of.node == node)
    }

    /// Whether a node is to give its copy up.
    pub fn has_leaving(&self, node: &str) -> bool {
        self.leaving.iter().any(|name| name == node)
    }

    /// Whether a node is to have a copy.
    pub fn has_replica(&self, node: &str) -> bool {
        self.replicas.iter().any(|name| name == node)
    }
}

/// A node, as it has registered itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeValue {
    /// Its HTTP address.
    pub url: String,
    /// Where it runs; empty: not told.
    pub zone: String,
    /// Its release.
    pub version: String,
    /// The oldest and the newest protocol that it speaks.
    pub protocol: [u16; 2],
    /// It had data when it started.
    pub has_data: bool,
    /// It leaves the cluster for good: it is to get no copies.
    pub is_leaving: bool,
    /// The id of the process: another one after each start. Empty: of an earlier release.
    pub process: String,
    /// The revision of etcd that wrote this; 0: none has yet.
    pub revision: u64,
}

impl NodeValue {
    /// That of this release.
    pub fn new(url: String, zone: String, protocol: [u16; 2]) -> Self {
        Self {
            url,
            zone,
            version: crate::version::VERSION.to_owned(),
            protocol,
            has_data: false,
            is_leaving: false,
            process: String::new(),
            revision: 0,
        }
    }

    /// Reads a value.
    pub fn decode(bytes: &[u8], revision: u64) -> Option<Self> {
        let mut fields = Fields::of_format(bytes)?;
        let mut protocol = fields.list("protocol")?.into_iter();
        let mut version = || u16::try_from(protocol.next()?.as_u64()?).ok();
        let protocol_range = [version()?, version()?];
        let value = Self {
            url: fields.text("url")?,
            zone: fields.text_or_empty("zone")?,
            version: fields.text("version")?,
            protocol: protocol_range,
            has_data: fields.take("hasData") == Some(Value::Bool(true)),
            is_leaving: fields.take("leaving") == Some(Value::Bool(true)),
            process: fields.text_or_empty("process")?,
            revision,
        };
        let is_whole = protocol.next().is_none() && value.url.starts_with("http://");
        is_whole.then_some(value)
    }

    /// The value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{".to_vec();
        push_number(&mut out, "format", FORMAT);
        push_text(&mut out, "url", &self.url);
        push_text(&mut out, "zone", &self.zone);
        push_text(&mut out, "version", &self.version);
        let protocol = self.protocol.map(Value::from).to_vec();
        push_field(&mut out, "protocol", &Value::Array(protocol));
        for (name, is_it) in [("hasData", self.has_data), ("leaving", self.is_leaving)] {
            if is_it {
                push_field(&mut out, name, &Value::Bool(true));
            }
        }
        if !self.process.is_empty() {
            push_text(&mut out, "process", &self.process);
        }
        out.push(b'}');
        out
    }
}

/// A copy, as its node has registered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyRecord {
    /// The copy.
    pub copy: CopyId,
    /// The epoch of its data.
    pub epoch: u64,
    /// Its newest version at that time.
    pub version: u64,
    /// The newest epoch that its node knew when it found that etcd has lost something: it believes
    /// only what an operator has decided since. 0: it believes etcd.
    pub doubts: u64,
    /// The revision of etcd that wrote this; 0: none has yet.
    pub revision: u64,
}

impl CopyRecord {
    /// Reads a value.
    pub fn decode(bytes: &[u8], revision: u64) -> Option<Self> {
        let mut fields = Fields::parse(bytes)?;
        let record = Self {
            revision,
            copy: CopyId::parse(&fields.text("copy")?)?,
            epoch: fields.number("epoch")?,
            version: fields.number("version")?,
            doubts: fields.number_or_zero("doubts")?,
        };
        (record.epoch.max(record.doubts) <= EPOCH_MAX).then_some(record)
    }

    /// What stands for a value that cannot be read: its node is to write it anew.
    pub(super) fn unreadable(revision: u64) -> Self {
        Self {
            copy: CopyId::NONE,
            epoch: 0,
            version: 0,
            doubts: 0,
            revision,
        }
    }

    /// The value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{".to_vec();
        push_text(&mut out, "copy", &self.copy.to_string());
        push_number(&mut out, "epoch", self.epoch);
        push_number(&mut out, "version", self.version);
        if self.doubts > 0 {
            push_number(&mut out, "doubts", self.doubts);
        }
        out.push(b'}');
        out
    }
}

/// The epoch that is so far above another one.
pub(super) fn epoch_above(epoch: u64, leap: u64) -> u64 {
    epoch.saturating_add(leap).min(EPOCH_MAX)
}

/// The partition that a key belongs to, of `count`.
#[inline]
pub fn partition_of_key(key: &[u8], count: u32) -> u32 {
    crc32c::crc32c(key) % count.max(1)
}

/// What all nodes of a cluster have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterValue {
    /// The cluster's id, drawn when it was made: 32 hexadecimal digits.
    pub id: String,
    /// How many partitions the keys are spread over, for good.
    pub partitions: u32,
    /// How a key's partition is found.
    pub hash: String,
    /// What is done once all copies in sync are gone for good.
    pub when_all_lost: WhenAllLost,
}

impl ClusterValue {
    /// A new cluster.
    pub fn new(id: [u8; 16], partitions: u32, when_all_lost: WhenAllLost) -> Self {
        Self {
            id: CopyId(id).to_string(),
            partitions,
            hash: "crc32c".to_owned(),
            when_all_lost,
        }
    }

    /// Reads a value.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::of_format(bytes)?;
        let value = Self {
            id: fields.text("id")?,
            partitions: u32::try_from(fields.number("partitions")?).ok()?,
            hash: fields.text("hash")?,
            when_all_lost: WhenAllLost::parse(&fields.text_or_empty("whenAllLost")?)
                .unwrap_or(WhenAllLost::Wait),
        };
        (value.hash == "crc32c" && value.partitions > 0).then_some(value)
    }

    /// The value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{".to_vec();
        push_number(&mut out, "format", FORMAT);
        push_text(&mut out, "id", &self.id);
        push_number(&mut out, "partitions", u64::from(self.partitions));
        push_text(&mut out, "hash", &self.hash);
        push_text(&mut out, "whenAllLost", self.when_all_lost.name());
        out.push(b'}');
        out
    }
}

/// The fields of a value that are not read yet.
///
/// Read by name rather than by derived code, which is several times as large.
struct Fields(Map<String, Value>);

impl Fields {
    #[inline(never)]
    fn parse(bytes: &[u8]) -> Option<Self> {
        match parse_json(bytes) {
            Ok(Value::Object(fields)) => Some(Self(fields)),
            _ => None,
        }
    }

    /// Those of a value that is not of a later release.
    fn of_format(bytes: &[u8]) -> Option<Self> {
        let mut fields = Self::parse(bytes)?;
        (fields.number("format")? <= FORMAT).then_some(fields)
    }

    #[inline(never)]
    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    #[inline(never)]
    fn number(&mut self, name: &str) -> Option<u64> {
        self.take(name)?.as_u64()
    }

    /// A number that may be missing.
    fn number_or_zero(&mut self, name: &str) -> Option<u64> {
        self.take(name).map_or(Some(0), |value| value.as_u64())
    }

    #[inline(never)]
    fn text(&mut self, name: &str) -> Option<String> {
        text(self.take(name)?)
    }

    /// A text that may be missing.
    fn text_or_empty(&mut self, name: &str) -> Option<String> {
        match self.take(name) {
            Some(value) => text(value),
            None => Some(String::new()),
        }
    }

    #[inline(never)]
    fn list(&mut self, name: &str) -> Option<Vec<Value>> {
        match self.take(name) {
            Some(Value::Array(list)) => Some(list),
            _ => None,
        }
    }
}

#[inline(never)]
fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

#[inline(never)]
fn texts(list: Vec<Value>) -> Option<Vec<String>> {
    list.into_iter().map(text).collect()
}

/// The names of a node and of its copy.
fn copy_of_node(value: Value) -> Option<(String, String)> {
    let Value::Object(fields) = value else {
        return None;
    };
    let mut fields = Fields(fields);
    Some((fields.text("node")?, fields.text("copy")?))
}

#[inline(never)]
fn to_vec(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).expect("names of fields are strings")
}

/// Appends the name of a field, which needs no escapes.
#[inline(never)]
fn push_name(out: &mut Vec<u8>, name: &str) {
    if !out.ends_with(b"{") {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

#[inline(never)]
fn push_field(out: &mut Vec<u8>, name: &str, value: &Value) {
    push_name(out, name);
    out.extend_from_slice(&to_vec(value));
}

#[inline(never)]
fn push_number(out: &mut Vec<u8>, name: &str, number: u64) {
    push_field(out, name, &Value::from(number));
}

#[inline(never)]
fn push_text(out: &mut Vec<u8>, name: &str, text: &str) {
    push_field(out, name, &Value::from(text));
}

#[inline(never)]
fn push_texts(out: &mut Vec<u8>, name: &str, texts: &[String]) {
    push_field(out, name, &Value::from(texts));
}

/// Whether a node or a cluster can have this name.
pub fn is_name(name: &str) -> bool {
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    (1..=NAME_MAX_BYTES).contains(&name.len()) && name.bytes().all(is_plain)
}

/// What a key is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// The cluster.
    Cluster,
    /// The node of this name.
    Node(&'a str),
    /// The configuration of this partition.
    Config(u32),
    /// The copy of this partition on the node of this name.
    Copy(u32, &'a str),
}

impl<'a> Key<'a> {
    /// Reads the part of a key behind its prefix; none: it is of no use to this release.
    pub fn parse(key: &'a str) -> Option<Self> {
        if key == "cluster" {
            return Some(Self::Cluster);
        }
        if let Some(name) = key.strip_prefix("nodes/") {
            return is_name(name).then_some(Self::Node(name));
        }
        let (text, rest) = key.strip_prefix("partitions/")?.split_once('/')?;
        let id: u32 = text.parse().ok()?;
        if id >= PARTITION_MAX || id.to_string() != text {
            return None;
        }
        match rest.strip_prefix("copies/") {
            Some(name) => is_name(name).then_some(Self::Copy(id, name)),
            None => (rest == "config").then_some(Self::Config(id)),
        }
    }

    /// The whole key.
    pub fn in_cluster(self, prefix: &str) -> String {
        match self {
            Self::Cluster => format!("{prefix}cluster"),
            Self::Node(name) => format!("{prefix}nodes/{name}"),
            Self::Config(id) => format!("{prefix}partitions/{id}/config"),
            Self::Copy(id, name) => format!("{prefix}partitions/{id}/copies/{name}"),
        }
    }
}

/// What all keys of a cluster begin with.
pub fn prefix_of(cluster: &str) -> String {
    format!("/db-node/{cluster}/")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = concat!(
        r#"{"format":1,"epoch":7,"leader":"n1","handedOver":false,"leaseMs":2000,"#,
        r#""inSync":[{"node":"n1","copy":"01010101010101010101010101010101"},"#,
        r#"{"node":"n2","copy":"02020202020202020202020202020202"}],"#,
        r#""replicas":["n1","n2","n3"],"leaving":[]}"#
    );

    fn config() -> PartitionConfig {
        let of = |node: &str, byte| CopyOfNode {
            node: node.to_owned(),
            copy: CopyId([byte; 16]),
        };
        let replicas = ["n1", "n2", "n3"].map(str::to_owned).to_vec();
        PartitionConfig {
            epoch: 7,
            in_sync: vec![of("n1", 1), of("n2", 2)],
            ..PartitionConfig::first("n1".to_owned(), replicas, 2000)
        }
    }

    #[test]
    fn golden_values() {
        assert_eq!(String::from_utf8_lossy(&config().encode()), CONFIG);
        assert_eq!(PartitionConfig::decode(CONFIG.as_bytes()), Ok(config()));
        let node = NodeValue {
            version: "0.2.0".to_owned(),
            process: "05".repeat(16),
            revision: 41,
            ..NodeValue::new("http://10.0.0.11:9001".to_owned(), "a".to_owned(), [1, 3])
        };
        let text = concat!(
            r#"{"format":1,"url":"http://10.0.0.11:9001","zone":"a","version":"0.2.0","#,
            r#""protocol":[1,3],"process":"05050505050505050505050505050505"}"#
        );
        assert_eq!(String::from_utf8_lossy(&node.encode()), text);
        assert_eq!(NodeValue::decode(text.as_bytes(), 41), Some(node.clone()));
        let leaving = NodeValue {
            has_data: true,
            is_leaving: true,
            ..node
        };
        let text = text.replace("],", r#"],"hasData":true,"leaving":true,"#);
        assert_eq!(String::from_utf8_lossy(&leaving.encode()), text);
        assert_eq!(NodeValue::decode(text.as_bytes(), 41), Some(leaving));
        let record = CopyRecord {
            copy: CopyId([3; 16]),
            epoch: 7,
            version: 1234,
            doubts: 0,
            revision: 41,
        };
        let text = r#"{"copy":"03030303030303030303030303030303","epoch":7,"version":1234}"#;
        assert_eq!(String::from_utf8_lossy(&record.encode()), text);
        assert_eq!(
            CopyRecord::decode(text.as_bytes(), 41),
            Some(record.clone())
        );
        for (from, to) in [("7", "4611686018427387905"), ("1234", "-1")] {
            let odd = text.replace(from, to);
            assert_eq!(CopyRecord::decode(odd.as_bytes(), 41), None, "{odd}");
        }
        let doubting = CopyRecord {
            doubts: 9,
            ..record
        };
        let text = text.replace("1234", "1234,\"doubts\":9");
        assert_eq!(String::from_utf8_lossy(&doubting.encode()), text);
        assert_eq!(CopyRecord::decode(text.as_bytes(), 41), Some(doubting));
        let cluster = ClusterValue::new([4; 16], 16, WhenAllLost::Wait);
        let text = concat!(
            r#"{"format":1,"id":"04040404040404040404040404040404","partitions":16,"#,
            r#""hash":"crc32c","whenAllLost":"wait"}"#
        );
        assert_eq!(String::from_utf8_lossy(&cluster.encode()), text);
        assert_eq!(ClusterValue::decode(text.as_bytes()), Some(cluster));
    }

    #[test]
    fn the_next_leader_is_named_only_where_there_is_one() {
        let text = CONFIG.replace(r#""leaving":[]"#, r#""leaving":["n1"],"nextLeader":"n2""#);
        let decoded = PartitionConfig::decode(text.as_bytes()).expect("it is one");
        assert_eq!(decoded.next_leader.as_deref(), Some("n2"));
        assert_eq!(String::from_utf8_lossy(&decoded.encode()), text);
    }

    #[test]
    fn it_says_in_which_epoch_an_operator_has_decided() {
        let text = CONFIG.replace(r#""leaving":[]"#, r#""leaving":[],"recovered":5"#);
        let decoded = PartitionConfig::decode(text.as_bytes()).expect("it is one");
        assert_eq!((decoded.recovered, config().recovered), (5, 0));
        assert_eq!(String::from_utf8_lossy(&decoded.encode()), text);
    }

    #[test]
    fn unknown_fields_are_kept() {
        let text = CONFIG.replace(r#""leaving":[]"#, r#""leaving":[],"later":{"a":[1]}"#);
        let decoded = PartitionConfig::decode(text.as_bytes()).expect("it is one");
        assert_eq!(String::from_utf8_lossy(&decoded.encode()), text);
    }

    /// They would take a hundred times their size, and be kept.
    #[test]
    fn many_small_elements_are_refused() {
        let list = vec!["{\"\":0}"; 64 * 1024].join(",");
        let text = CONFIG.replace(
            r#""leaving":[]"#,
            &format!(r#""leaving":[],"later":[{list}]"#),
        );
        assert!(PartitionConfig::decode(text.as_bytes()).is_err());
    }

    #[test]
    fn what_no_node_writes_is_refused() {
        for (from, to) in [
            ("\"format\":1", "\"format\":2"),
            ("2000", "499"),
            ("2000", "60001"),
            ("\"leader\":\"n1\"", "\"leader\":\"\""),
            ("\"n3\"", "\"N3\""),
            ("0101", "01zz"),
            ("\"epoch\":7", "\"epoch\":-7"),
            ("\"epoch\":7", "\"epoch\":4611686018427387905"),
            ("\"epoch\":7", "\"epoch\":18446744073709551615"),
            ("\"leaving\":[]", "\"leaving\":[],\"nextLeader\":\"N2\""),
            ("\"leaving\":[]", "\"leaving\":[],\"nextLeader\":2"),
            ("\"leaving\":[]", "\"leaving\":[],\"recovered\":\"2\""),
        ] {
            let text = CONFIG.replacen(from, to, 1);
            assert_ne!(text, CONFIG);
            assert!(PartitionConfig::decode(text.as_bytes()).is_err(), "{text}");
        }
        for cut in 0..CONFIG.len() {
            assert!(PartitionConfig::decode(&CONFIG.as_bytes()[..cut]).is_err());
        }
    }

    #[test]
    fn keys_are_read_back() {
        let prefix = prefix_of("default");
        for (key, text) in [
            (Key::Cluster, "/db-node/default/cluster"),
            (Key::Node("n1"), "/db-node/default/nodes/n1"),
            (Key::Config(15), "/db-node/default/partitions/15/config"),
            (
                Key::Copy(0, "n1.a-b"),
                "/db-node/default/partitions/0/copies/n1.a-b",
            ),
        ] {
            assert_eq!(key.in_cluster(&prefix), text);
            assert_eq!(Key::parse(&text[prefix.len()..]), Some(key));
        }
        for odd in [
            "",
            "clusters",
            "nodes/",
            "nodes/N",
            "partitions/x/config",
            "partitions/1024/config",
            "partitions/+1/config",
            "partitions/01/config",
            "partitions/1",
        ] {
            assert_eq!(Key::parse(odd), None, "{odd}");
        }
    }
}
