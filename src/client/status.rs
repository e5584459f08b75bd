//! `status`: what a node does, as tables. Fields that are not in its answer are left blank.

use serde_json::Value as Json;

use super::command_line::CommandLine;
use super::exchange::Endpoint;
use super::failure::{CommandError, ExitReason};
use super::json::{field, parse};
use super::output::Output;
use super::request::ClientRequest;
use super::text::{Table, bytes_text, one_line, owned, push, put, time_text};

/// Longest `/status`: a node has at most 1,024 partitions.
const STATUS_MAX_BYTES: usize = 64 * 1024 * 1024;

/// A replica that was silent for this long is not known to follow: two heartbeats.
const HEARD_WITHIN_MS: u64 = 2250;

/// The `/status` of a node, also as it came.
pub(crate) fn status_of(endpoint: &Endpoint) -> Result<(Json, Vec<u8>), CommandError> {
    let mut request = ClientRequest::new("GET", "/status");
    request.is_about_node = true;
    let mut answer = endpoint.ask(request)?;
    let body = answer.collect(STATUS_MAX_BYTES)?;
    let json = parse(&body);
    if field(&json, "partitions").is_array() {
        Ok((json, body))
    } else {
        Err(answer.broken("it is not the JSON of a node"))
    }
}

pub(crate) fn status(
    line: &CommandLine,
    endpoint: &Endpoint,
    output: &mut Output,
) -> Result<(), CommandError> {
    let (json, body) = status_of(endpoint)?;
    if line.has("json") {
        return output.line(&body);
    }
    if let Some(id) = endpoint.partition
        && !list(&json, "partitions").iter().any(|it| is_of(it, id))
    {
        return Err(CommandError::new(
            ExitReason::Refused,
            format_args!("partition {id} is not on this node"),
        ));
    }
    output.write(report(&endpoint.url, endpoint.partition, &json).as_bytes())
}

/// A field as text: a word, a number, or nothing.
#[inline(never)]
fn text(json: &Json, name: &str) -> String {
    match field(json, name) {
        Json::Null => String::new(),
        Json::String(text) => one_line(text),
        Json::Bool(true) => owned("yes"),
        Json::Bool(false) => owned("no"),
        other => other.as_u64().map(number_text).unwrap_or_default(),
    }
}

#[inline(never)]
fn number_text(number: u64) -> String {
    let mut text = String::new();
    put(&mut text, format_args!("{number}"));
    text
}

#[inline(never)]
fn number(json: &Json, name: &str) -> u64 {
    field(json, name).as_u64().unwrap_or(0)
}

fn list<'j>(json: &'j Json, name: &str) -> &'j [Json] {
    field(json, name).as_array().map_or(&[], |items| items)
}

/// The bytes of keys and values of a partition, in all its layers.
pub(crate) fn data_bytes(partition: &Json) -> u64 {
    let mut bytes = number(partition, "memtableBytes");
    for level in list(partition, "levels") {
        bytes = bytes.saturating_add(number(level, "bytes"));
    }
    bytes
}

/// Whether a partition has this number.
pub(crate) fn is_of(partition: &Json, id: u64) -> bool {
    field(partition, "id").as_u64() == Some(id)
}

fn report(url: &str, wanted: Option<u64>, json: &Json) -> String {
    let mut partitions = Table::new(&[
        "PARTITION",
        "ROLE",
        "STATE",
        "EPOCH",
        "VERSION",
        "ON DISK",
        "DATA",
        "LOG",
    ]);
    let mut peers = Table::new(&["PARTITION", "PEER", "STATE", "IN SYNC", "VERSION", "LAG"]);
    for partition in list(json, "partitions") {
        if wanted.is_some_and(|id| !is_of(partition, id)) {
            continue;
        }
        for name in [
            "id",
            "role",
            "state",
            "epoch",
            "lastVersion",
            "durableVersion",
        ] {
            add_cell(&mut partitions, partition, name);
        }
        partitions.cell(bytes_text(data_bytes(partition)));
        partitions.cell(bytes_text(number(partition, "logBytes")));
        add_peers(partition, &mut peers);
    }
    let mut report = String::new();
    add_node(url, json, &mut report);
    for table in [partitions, peers] {
        if table.has_rows() {
            push(&mut report, "\n");
            table.add_to(&mut report);
        }
    }
    report
}

#[inline(never)]
fn add_cell(table: &mut Table, json: &Json, name: &str) {
    table.cell(text(json, name));
}

/// Appends a field behind some text, unless there is none.
#[inline(never)]
fn add_field(out: &mut String, before: &str, json: &Json, name: &str) {
    let text = text(json, name);
    if !text.is_empty() {
        put(out, format_args!("{before}{text}"));
    }
}

/// Adds the lines about the node as a whole.
fn add_node(url: &str, json: &Json, out: &mut String) {
    put(out, format_args!("node     {url}"));
    add_field(out, ", version ", json, "version");
    put(
        out,
        format_args!(", up {}", time_text(number(json, "uptimeMs"))),
    );
    if field(json, "draining").as_bool() == Some(true) {
        push(out, ", stopping");
    }
    let (config, event_loop) = (field(json, "config"), field(json, "loop"));
    push(out, "\ndata     ");
    match field(config, "durability").as_str() {
        Some("memory") => push(out, "in memory only"),
        _ => add_field(out, "synced: ", config, "durability"),
    }
    add_field(out, ", in ", config, "dataDir");
    add_field(out, "\nclients  ", event_loop, "connections");
    add_field(out, " of ", event_loop, "connectionsMax");
    push(out, "\n");
}

/// Adds the rows of the replicas of a partition, and of its leader.
fn add_peers(partition: &Json, table: &mut Table) {
    let last_version = number(partition, "lastVersion");
    for replica in list(partition, "replicas") {
        let is_loading = field(replica, "state").as_str() == Some("snapshot");
        let silent_ms = field(replica, "silentMs").as_u64();
        let is_heard = silent_ms.is_some_and(|ms| ms <= HEARD_WITHIN_MS);
        let in_sync = if is_heard && !is_loading { "yes" } else { "no" };
        add_cell(table, partition, "id");
        add_cell(table, replica, "address");
        add_cell(table, replica, "state");
        table.cell(owned(in_sync));
        add_cell(table, replica, "appliedVersion");
        let lag = last_version.saturating_sub(number(replica, "appliedVersion"));
        table.cell(number_text(lag));
    }
    let leader = field(partition, "leader");
    if leader.is_object() {
        let mut peer = owned("leader");
        add_field(&mut peer, " ", leader, "address");
        let mut state = text(leader, "state");
        add_field(&mut state, ": ", leader, "obstacle");
        add_cell(table, partition, "id");
        table.cell(peer);
        table.cell(state);
        for name in ["inSync", "version", "lag"] {
            add_cell(table, leader, name);
        }
    }
}
