//! `/scan`: streams keys in byte order from a snapshot.
//!
//! Invariants:
//! 1. Memory and the work of one call are bounded, whatever the limit, the sizes of values and the
//!    number of deleted keys: the scan can pause at any entry (`lsm/snapshot.rs`).
//! 2. Pages with the same `at` are of the same point in time.

use std::sync::Arc;

use crate::http::{BodySource, Fill, Head, Refusal, Reply};
use crate::lsm::{Entry, Scan, ScanState, Snapshot, Value};
use crate::node::{Permit, SnapshotUse, Subject};
use crate::storage::{Lineage, Position, VersionToken};

use crate::api::body::json_value::{JsonValueSource, add_bytes, render_rest};
use crate::api::confirmation::{check_read, follow_up_of_read};
use crate::api::context::Api;
use crate::api::effects::FollowUp;
use crate::api::errors::refuse;
use crate::api::request::params::Param;
use crate::api::request::positions::{add_position, add_version};
use crate::api::request::query::{Query, check_key};
use crate::api::request::values::JSON;

const LIMIT_DEFAULT: u64 = 100;
const LIMIT_MAX: u64 = 10_000;

/// Most scans at a time: each pins data that is overwritten meanwhile.
const SCAN_MAX: usize = 64;

/// What a request asks for.
#[derive(Debug)]
struct ScanRange {
    /// The first key that may be in the result.
    from: Vec<u8>,
    prefix: Vec<u8>,
    /// The result ends before this key.
    end: Option<Vec<u8>>,
    limit: u64,
    with_values: bool,
}

impl ScanRange {
    fn of(query: Query<'_>) -> Result<Self, Refusal> {
        let prefix = query
            .bytes(Param::Prefix, Param::PrefixEncoding)?
            .unwrap_or_default();
        let mut from = query
            .bytes(Param::Start, Param::StartEncoding)?
            .unwrap_or_default()
            .max(prefix.clone());
        let end = query.bytes(Param::End, Param::EndEncoding)?;
        if let Some(mut after) = query.bytes(Param::After, Param::AfterEncoding)? {
            check_key(&after)?;
            after.push(0);
            from = from.max(after);
        }
        let limit = query
            .number(Param::Limit, "how many keys")?
            .unwrap_or(LIMIT_DEFAULT);
        if !(1..=LIMIT_MAX).contains(&limit) {
            let message =
                format!("?limit= must be 1 to {LIMIT_MAX}: ask for the next keys with ?after=");
            return Err(Refusal::new(400, "bad_query", message));
        }
        let with_values = query.flag(Param::Values)?.unwrap_or(true);
        Ok(Self {
            from,
            prefix,
            end,
            limit,
            with_values,
        })
    }

    fn includes(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix) && self.end.as_ref().is_none_or(|end| key < &end[..])
    }
}

/// The rest of the answer.
#[derive(Debug)]
struct ScanSource {
    scan: Scan,
    token: VersionToken,
    /// That of the entries.
    lineage: Lineage,
    wanted: ScanRange,
    item_count: u64,
    last_key: Vec<u8>,
    /// A large value that is being rendered.
    large: Option<JsonValueSource>,
    /// The snapshot, kept for further pages.
    view_use: Option<SnapshotUse>,
    _slot: Permit,
}

impl BodySource for ScanSource {
    fn fill(&mut self, out: &mut Vec<u8>, budget_bytes: usize) -> Fill {
        let mut left = budget_bytes;
        while left > 0 {
            if let Some(large) = &mut self.large {
                if large.fill(out, left) == Fill::Done {
                    self.large = None;
                }
                return Fill::More;
            }
            let (state, spent) = self.scan.step(left);
            let before = out.len();
            match state {
                ScanState::Searching => return Fill::More,
                ScanState::Found if self.add_found(out) => {}
                ScanState::Found | ScanState::End => {
                    self.add_end(out, state);
                    return Fill::Done;
                }
            }
            left = left.saturating_sub(spent + out.len() - before);
        }
        Fill::More
    }
}

impl ScanSource {
    /// Adds the entry at which the scan is; false if the result ends before it.
    fn add_found(&mut self, out: &mut Vec<u8>) -> bool {
        let Some(Entry {
            key,
            version,
            value,
            ..
        }) = self.scan.entry()
        else {
            return false;
        };
        if !self.wanted.includes(key) || self.item_count == self.wanted.limit {
            return false;
        }
        out.extend_from_slice(if self.item_count == 0 { ITEMS } else { b"," });
        self.item_count += 1;
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        out.push(b'{');
        add_bytes(out, "key", key, "keyEncoding");
        let token = self.lineage.token_of(version);
        match value {
            Value::Large(blob) if self.wanted.with_values => {
                let begin = b",\"value\":\"".to_vec();
                self.large = Some(JsonValueSource::beginning(begin, Arc::clone(blob), token));
            }
            Value::Inline(bytes) if self.wanted.with_values => {
                out.extend_from_slice(b",\"value\":\"");
                render_rest(out, bytes, &token.text());
            }
            _ => {
                out.push(b',');
                add_version(out, &token.text());
                out.push(b'}');
            }
        }
        true
    }

    fn add_end(&mut self, out: &mut Vec<u8>, state: ScanState) {
        if self.item_count == 0 {
            out.extend_from_slice(ITEMS);
        }
        out.extend_from_slice(b"],");
        let is_more = state == ScanState::Found
            && self
                .scan
                .entry()
                .is_some_and(|entry| self.wanted.includes(entry.key));
        if is_more {
            add_bytes(out, "next", &self.last_key, "nextEncoding");
        } else {
            if let Some(view_use) = &self.view_use {
                view_use.finish();
            }
            out.extend_from_slice(b"\"next\":null");
        }
        out.push(b',');
        add_position(out, &self.token.text());
        out.extend_from_slice(b"}\n");
    }
}

const ITEMS: &[u8] = b"{\"success\":true,\"items\":[";

impl Api<'_> {
    pub(crate) fn answer_scan(&mut self, head: &Head<'_>, reply: Reply<'_>) {
        match self.scan(head) {
            Ok((source, due)) => self
                .defer(due, reply)
                .status(200)
                .content_type(JSON)
                .source(Box::new(source)),
            Err(refusal) => refuse(reply, &refusal),
        }
    }

    fn scan(&mut self, head: &Head<'_>) -> Result<(ScanSource, FollowUp), Refusal> {
        let query = self.query(head);
        let wanted = ScanRange::of(query)?;
        let at = query.position(Param::At)?;
        let is_held = query.flag(Param::Consistent)?.unwrap_or(false);
        let (demand, now_ms) = (self.read_demand(head)?, self.now_ms);
        let partition = self.readable_partition(head, Subject::Partition)?;
        let acks = demand.acks_in(partition);
        check_read(partition, acks, now_ms)?;
        let slot = self.node.resources.scans.take(SCAN_MAX).ok_or_else(|| {
            let message = format!("{SCAN_MAX} scans are under way: try again");
            Refusal::new(503, "too_many_scans", message)
        })?;
        let (snapshot, token, view_use) = self.view(head, at, is_held)?;
        let partition = self.partition(head, Subject::Partition)?;
        // The place of a scan in the order is that of its snapshot: the lease is looked at once,
        // before the first byte is sent, however long the rest takes.
        let due = follow_up_of_read(partition, acks, Some(token.version));
        let lineage = partition.lineage().clone();
        let source = ScanSource {
            scan: snapshot.into_scan(&wanted.from),
            token,
            lineage,
            wanted,
            item_count: 0,
            last_key: Vec::new(),
            large: None,
            view_use,
            _slot: slot,
        };
        Ok((source, due))
    }

    /// The snapshot to scan: a new one, kept for further pages if the request wants that; or one
    /// that was kept.
    fn view(
        &mut self,
        head: &Head<'_>,
        at: Option<Position>,
        is_held: bool,
    ) -> Result<(Snapshot, VersionToken, Option<SnapshotUse>), Refusal> {
        let now_ms = self.now_ms;
        let partition = self.partition(head, Subject::Partition)?;
        let (id, time_ms) = (partition.id(), partition.lsm().time_ms());
        if let Some(position) = at {
            let token = partition
                .version_at(position)
                .map(|version| partition.token_of(version));
            let kept = token.ok().and_then(|token| {
                let (snapshot, view_use) =
                    self.node.resources.scan_snapshots.get(id, token, now_ms)?;
                // Keys that have expired since are left out.
                Some((snapshot.at_time(time_ms), token, Some(view_use)))
            });
            return kept.ok_or_else(|| {
                let message =
                    format!("version {position} is not kept: begin again with ?consistent=true");
                Refusal::new(410, "snapshot_gone", message)
            });
        }
        let snapshot = partition.lsm_mut().snapshot();
        let token = partition.token_of(snapshot.version());
        if !is_held {
            return Ok((snapshot, token, None));
        }
        let kept = &mut self.node.resources.scan_snapshots;
        let view_use = kept.hold(id, token, snapshot.clone(), now_ms);
        let view_use = view_use.ok_or_else(|| {
            let message = "as many snapshots are kept for scans as may be, and all are in use: try \
                           again in a second, or scan without ?consistent=true";
            Refusal::new(503, "too_many_snapshots", message)
        })?;
        Ok((snapshot, token, Some(view_use)))
    }
}
