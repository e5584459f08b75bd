//! The writes that only this node has, saved before they are dropped to follow a leader: a file for
//! an operator to read, and to write again from.
//!
//! One JSON object a line, in the order of the keys: the newest write of each key behind the
//! version up to which node and leader agree.
//!
//! ```text
//! {"version":121,"key":"k","value":"v"}
//! {"version":125,"key":"gone","deleted":true}
//! {"version":122,"key":"/w==","keyEncoding":"base64","value":"/w==","encoding":"base64",
//!  "expiresAtMs":1700000000000}       all in one line
//! ```
//!
//! A deletion is in the file unless its tombstone was merged away.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value as Json};

use crate::lsm::{Entry, Scan, ScanState, Snapshot, Value};

use super::disk::Disk;
use super::draft::Draft;
use super::error::StorageError;
use super::history_id::HistoryId;

/// Written and synced in one step.
const STEP_BYTES: usize = 512 * 1024;

/// Work on the scan in one step.
const STEP_WORK: usize = 1024 * 1024;

/// Data that is saved, and then dropped.
#[derive(Debug)]
pub struct DivergedData {
    /// The data.
    pub snapshot: Snapshot,
    /// Its history.
    pub history: HistoryId,
    /// The new data has all writes up to this version, too.
    pub common_version: u64,
}

/// The writer of the file.
#[derive(Debug)]
pub(super) struct DivergedWriter<D: Disk> {
    scan: Scan,
    common_version: u64,
    draft: Draft<D>,
    buffer: Vec<u8>,
    count: u64,
}

impl<D: Disk> DivergedWriter<D> {
    pub(super) fn begin(disk: D, data: DivergedData) -> Self {
        let DivergedData {
            snapshot,
            history,
            common_version,
        } = data;
        let version = snapshot.version();
        let name = format!("diverged-{history}-{common_version}-{version}.jsonl");
        Self {
            scan: snapshot.into_scan_of_writes(),
            common_version,
            draft: Draft::new(disk, name, 0),
            buffer: Vec::new(),
            count: 0,
        }
    }

    /// Writes the next piece; true when the file has its name and that is durable. Without a write
    /// to save there is no file.
    pub(super) fn step(&mut self) -> Result<bool, StorageError> {
        let is_done = self.collect();
        self.draft.append_all(&mut self.buffer)?;
        if is_done {
            self.draft.put_in_place()?;
        }
        if is_done && self.count > 0 {
            let dropped = match self.count {
                1 => "a write that only this node had is dropped; it is".to_owned(),
                count => format!("{count} writes that only this node had are dropped; they are"),
            };
            log::warn!("{dropped} saved in {}", self.draft.path());
        }
        Ok(is_done)
    }

    /// Fills the buffer; true at the end of the data.
    fn collect(&mut self) -> bool {
        let mut work_left = STEP_WORK;
        while work_left > 0 && self.buffer.len() < STEP_BYTES {
            let (state, spent) = self.scan.step(work_left);
            work_left = work_left.saturating_sub(spent.max(1));
            match state {
                ScanState::Searching => {}
                ScanState::End => return true,
                ScanState::Found => {
                    let entry = self.scan.entry();
                    if let Some(entry) = entry.filter(|entry| entry.version > self.common_version) {
                        render(&entry, &mut self.buffer);
                        self.count += 1;
                    }
                }
            }
        }
        false
    }
}

fn render(entry: &Entry<'_>, out: &mut Vec<u8>) {
    let mut line = Map::new();
    line.insert("version".to_owned(), entry.version.into());
    insert(&mut line, "key", "keyEncoding", entry.key);
    match entry.value {
        Value::Tombstone => drop(line.insert("deleted".to_owned(), true.into())),
        Value::Inline(value) => insert(&mut line, "value", "encoding", value),
        Value::Large(blob) => insert(&mut line, "value", "encoding", blob),
    }
    if let Some(expires_at_ms) = entry.expires_at_ms {
        line.insert("expiresAtMs".to_owned(), expires_at_ms.into());
    }
    out.extend_from_slice(Json::Object(line).to_string().as_bytes());
    out.push(b'\n');
}

fn insert(line: &mut Map<String, Json>, name: &str, encoding_name: &str, bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        line.insert(name.to_owned(), text.into());
    } else {
        line.insert(name.to_owned(), STANDARD.encode(bytes).into());
        line.insert(encoding_name.to_owned(), "base64".into());
    }
}
