//! The metadata of a partition: its role, its epoch, its histories, the id of the copy, and the
//! generation of its files. One small file, which is replaced as a whole. The only home of its
//! layout:
//!
//! ```text
//! partition.json
//!   {"format":1,"generation":0,"role":"replica","epoch":3,"leader":"http://10.0.0.7:9001",
//!    "dataEpoch":3,"history":"000102030405060708090a0b0c0d0e0f",
//!    "past":[{"history":"…","endVersion":120}],
//!    "orderedEpoch":3,"dataOrderedEpoch":2,"heard":true,"peers":["http://10.0.0.8:9001"],
//!    "copy":"101112131415161718191a1b1c1d1e1f"}
//!   e3069283     CRC-32C of the line before without its end, in hexadecimal
//! ```
//!
//! `generation` names the files in force (`generation.rs`). When a leader's data has replaced all
//! data, this file makes the change from the old files to the new ones.
//!
//! `orderedEpoch` and the fields behind it are left out where they are 0, false, empty or none.
//!
//! `copy` came last, without another format: an older release passes over it, and drops it when it
//! writes the file, upon which a new id is drawn. If it does not write the file, the mark in
//! `log-end` that lets a start keep the id is gone (`log_end.rs`).
//!
//! Without the file, a partition is of generation 0 and of the history that its log names, and has
//! the role that it was made with.

use serde::Serialize;
use serde_json::Value;

use super::copy_id::CopyId;
use super::disk::{Disk, DiskFile, OnFile};
use super::draft::write_file;
use super::error::{FormatError, StorageError};
use super::history_id::HistoryId;
use super::lineage::{Lineage, PastHistory};

/// The name of the file.
pub(super) const META_NAME: &str = "partition.json";

const FORMAT: u32 = 1;

/// Longer than any such file: an address has at most 2 KiB.
const FILE_MAX_BYTES: u64 = 16 * 1024;

/// The role of a partition on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// None, until a controller assigns one.
    Unassigned,
    /// The node takes the writes.
    Leader,
    /// The node follows a leader.
    Replica,
}

impl Role {
    /// The name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unassigned => "unassigned",
            Self::Leader => "leader",
            Self::Replica => "replica",
        }
    }
}

/// Role, epoch and histories of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMeta {
    /// The role.
    pub role: Role,
    /// The highest epoch that the node knows of. The epoch decides which node may lead.
    pub epoch: u64,
    /// The address of a replica's leader, as it was given; none if it is not known.
    pub leader: Option<String>,
    /// The epoch of the data: that of the newest leader with a history that the data reaches. Of
    /// two nodes that have lost their leader, the one with the higher data epoch has more data;
    /// with equal ones, the one with the higher version.
    pub data_epoch: u64,
    /// The history of the data, and those before it.
    pub lineage: Lineage,
    /// The highest epoch that a controller has named, as far as this node knows: at most `epoch`,
    /// which nodes may have raised by themselves since.
    pub ordered_epoch: u64,
    /// The ordered epoch of the data. Data that only this node holds may be replaced only by data
    /// of a higher ordered epoch.
    pub data_ordered_epoch: u64,
    /// The node knows the epoch from another node, and was assigned no role in it.
    pub is_heard: bool,
    /// HTTP addresses of the other nodes of the partition, as a controller named them.
    pub peers: Vec<String>,
    /// The id of this copy; none was drawn yet in what an older release has written.
    pub copy: CopyId,
}

/// Most peers of a partition.
pub const PEERS_MAX: usize = 32;

impl PartitionMeta {
    /// The metadata of a partition without an assignment.
    pub fn new(role: Role, lineage: Lineage, copy: CopyId) -> Self {
        Self {
            role,
            epoch: 0,
            leader: None,
            data_epoch: 0,
            lineage,
            ordered_epoch: 0,
            data_ordered_epoch: 0,
            is_heard: false,
            peers: Vec::new(),
            copy,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MetaFile {
    format: u32,
    generation: u32,
    role: Role,
    epoch: u64,
    leader: Option<String>,
    data_epoch: u64,
    history: String,
    past: Vec<MetaFilePast>,
    #[serde(default, skip_serializing_if = "is_default")]
    ordered_epoch: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    data_ordered_epoch: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    heard: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    peers: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    copy: Option<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MetaFilePast {
    history: String,
    end_version: u64,
}

/// The checksum at the end of the file with this content.
pub(super) fn checksum(meta: &PartitionMeta, generation: u32) -> u32 {
    crc32c::crc32c(&encode_line(meta, generation))
}

fn encode(meta: &PartitionMeta, generation: u32) -> Vec<u8> {
    let mut bytes = encode_line(meta, generation);
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(format!("\n{checksum:08x}\n").as_bytes());
    bytes
}

fn encode_line(meta: &PartitionMeta, generation: u32) -> Vec<u8> {
    let past = |past: &PastHistory| MetaFilePast {
        history: past.history.to_string(),
        end_version: past.end_version,
    };
    let file = MetaFile {
        format: FORMAT,
        generation,
        role: meta.role,
        epoch: meta.epoch,
        leader: meta.leader.clone(),
        data_epoch: meta.data_epoch,
        history: meta.lineage.history().to_string(),
        past: meta.lineage.past().map(past).collect(),
        ordered_epoch: meta.ordered_epoch,
        data_ordered_epoch: meta.data_ordered_epoch,
        heard: meta.is_heard,
        peers: meta.peers.clone(),
        copy: (meta.copy != CopyId::NONE).then(|| meta.copy.to_string()),
    };
    serde_json::to_vec(&file).expect("plain fields serialize")
}

/// The content of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StoredMeta {
    pub(super) meta: PartitionMeta,
    pub(super) generation: u32,
    /// The checksum at the end of the file.
    pub(super) checksum: u32,
}

fn decode(bytes: &[u8]) -> Result<StoredMeta, FormatError> {
    let line_end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or(FormatError::Damaged("it is cut off"))?;
    let (line, rest) = bytes.split_at(line_end);
    let checksum = crc32c::crc32c(line);
    if rest != format!("\n{checksum:08x}\n").as_bytes() {
        return Err(FormatError::Damaged("its checksum does not hold"));
    }
    let not_ours = FormatError::Damaged("it is not what a node writes");
    let value: Value = serde_json::from_slice(line).map_err(|_| not_ours)?;
    let format = number(&value, "format").ok_or(not_ours)?;
    if format > u64::from(FORMAT) {
        return Err(FormatError::TooNew(
            u32::try_from(format).unwrap_or(u32::MAX),
        ));
    }
    let generation = number(&value, "generation").and_then(|number| u32::try_from(number).ok());
    Ok(StoredMeta {
        meta: meta_of(&value).ok_or(not_ours)?,
        generation: generation.ok_or(not_ours)?,
        checksum,
    })
}

/// Reads by name: derived code is several times as large.
fn meta_of(value: &Value) -> Option<PartitionMeta> {
    let mut past = Vec::new();
    for of in value.get("past")?.as_array()? {
        past.push(PastHistory {
            history: HistoryId::parse(text(of, "history")?)?,
            end_version: number(of, "endVersion")?,
        });
    }
    let mut peers = Vec::new();
    if let Some(listed) = value.get("peers") {
        for peer in listed.as_array()? {
            peers.push(peer.as_str()?.to_owned());
        }
    }
    peers.truncate(PEERS_MAX);
    let role = text(value, "role")?;
    let roles = [Role::Unassigned, Role::Leader, Role::Replica];
    Some(PartitionMeta {
        role: *roles.iter().find(|known| known.name() == role)?,
        epoch: number(value, "epoch")?,
        leader: match field(value, "leader") {
            Value::Null => None,
            leader => Some(leader.as_str()?.to_owned()),
        },
        data_epoch: number(value, "dataEpoch")?,
        lineage: Lineage::with_past(HistoryId::parse(text(value, "history")?)?, past),
        ordered_epoch: number_or_0(value, "orderedEpoch")?,
        data_ordered_epoch: number_or_0(value, "dataOrderedEpoch")?,
        is_heard: value.get("heard").map_or(Some(false), Value::as_bool)?,
        peers,
        copy: match field(value, "copy") {
            Value::Null => CopyId::NONE,
            copy => CopyId::parse(copy.as_str()?)?,
        },
    })
}

#[inline(never)]
fn number(object: &Value, name: &str) -> Option<u64> {
    object.get(name)?.as_u64()
}

fn number_or_0(object: &Value, name: &str) -> Option<u64> {
    object.get(name).map_or(Some(0), Value::as_u64)
}

#[inline(never)]
fn text<'v>(object: &'v Value, name: &str) -> Option<&'v str> {
    object.get(name)?.as_str()
}

/// A field; null if it is missing.
#[inline(never)]
fn field<'v>(object: &'v Value, name: &str) -> &'v Value {
    object.get(name).unwrap_or(&Value::Null)
}

/// Reads the file, if it is there.
pub(super) fn read<D: Disk>(disk: &D) -> Result<Option<StoredMeta>, StorageError> {
    if !disk.list()?.iter().any(|name| name == META_NAME) {
        return Ok(None);
    }
    let read = || {
        let file = disk.open(META_NAME)?;
        let file_bytes = file.len_bytes()?.min(FILE_MAX_BYTES);
        let mut bytes = vec![0; usize::try_from(file_bytes).unwrap_or(0)];
        file.read_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    decode(&read().on("reading", disk, META_NAME)?)
        .map(Some)
        .map_err(|error| StorageError::format(disk.path(META_NAME), 0, error))
}

/// Replaces the file; when this returns, that is durable.
pub(super) fn write<D: Disk>(
    disk: &D,
    meta: &PartitionMeta,
    generation: u32,
) -> Result<(), StorageError> {
    write_file(disk, META_NAME, &encode(meta, generation), 0).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> PartitionMeta {
        let lineage = Lineage::new(HistoryId([1; 16])).begin(HistoryId([2; 16]), 120);
        PartitionMeta {
            role: Role::Replica,
            epoch: 3,
            leader: Some("http://h:1".to_owned()),
            data_epoch: 2,
            lineage,
            ordered_epoch: 0,
            data_ordered_epoch: 0,
            is_heard: false,
            peers: Vec::new(),
            copy: CopyId::NONE,
        }
    }

    fn stored(meta: &PartitionMeta, generation: u32) -> StoredMeta {
        StoredMeta {
            meta: meta.clone(),
            generation,
            checksum: checksum(meta, generation),
        }
    }

    #[test]
    fn what_is_not_default_is_written_and_read_back() {
        let meta = PartitionMeta {
            ordered_epoch: 3,
            data_ordered_epoch: 2,
            is_heard: true,
            peers: vec!["http://h:2".to_owned(), "http://h:3".to_owned()],
            copy: CopyId([3; 16]),
            ..meta()
        };
        let bytes = encode(&meta, 4);
        let text = String::from_utf8_lossy(&bytes);
        let end = concat!(
            r#"}],"orderedEpoch":3,"dataOrderedEpoch":2,"heard":true,"#,
            r#""peers":["http://h:2","http://h:3"],"#,
            r#""copy":"03030303030303030303030303030303"}"#
        );
        assert!(text.contains(end), "{text}");
        assert_eq!(decode(&bytes), Ok(stored(&meta, 4)));
    }

    /// As older releases have written it, which know no copies.
    #[test]
    fn golden_bytes_without_a_copy() {
        let expected = concat!(
            r#"{"format":1,"generation":4,"role":"replica","epoch":3,"#,
            r#""leader":"http://h:1","dataEpoch":2,"#,
            r#""history":"02020202020202020202020202020202","#,
            r#""past":[{"history":"01010101010101010101010101010101","endVersion":120}]}"#,
            "\n5bbc55f5\n"
        );
        let bytes = encode(&meta(), 4);
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
        assert_eq!(decode(&bytes), Ok(stored(&meta(), 4)));
    }

    #[test]
    fn golden_bytes() {
        let meta = PartitionMeta {
            copy: CopyId([0xa; 16]),
            ..meta()
        };
        let expected = concat!(
            r#"{"format":1,"generation":4,"role":"replica","epoch":3,"#,
            r#""leader":"http://h:1","dataEpoch":2,"#,
            r#""history":"02020202020202020202020202020202","#,
            r#""past":[{"history":"01010101010101010101010101010101","endVersion":120}],"#,
            r#""copy":"0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"}"#,
            "\n6f6aa88b\n"
        );
        let bytes = encode(&meta, 4);
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
        assert_eq!(decode(&bytes), Ok(stored(&meta, 4)));
        let line = br#"{"format":1,"generation":0,"role":"leader","epoch":0,"leader":null,"#;
        let rest = br#""dataEpoch":0,"history":"02","past":[],"copy":"0a"}"#;
        let line = [&line[..], rest].concat();
        let end = format!("\n{:08x}\n", crc32c::crc32c(&line));
        let odd = decode(&[line, end.into_bytes()].concat());
        assert!(matches!(odd, Err(FormatError::Damaged(_))), "{odd:?}");
    }

    #[test]
    fn damage_is_found_wherever_it_is() {
        let bytes = encode(&meta(), 0);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(decode(&damaged), Err(FormatError::Damaged(_))),
                "bit {bit}"
            );
        }
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        let line = br#"{"format":2,"anything":true}"#;
        let bytes = [
            &line[..],
            format!("\n{:08x}\n", crc32c::crc32c(line)).as_bytes(),
        ]
        .concat();
        assert_eq!(decode(&bytes), Err(FormatError::TooNew(2)));
    }
}
