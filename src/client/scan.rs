//! `scan`: keys and values, page after page.

use std::os::unix::ffi::OsStrExt;

use super::command_line::CommandLine;
use super::exchange::{Answer, Endpoint};
use super::failure::CommandError;
use super::json::{add_value, bytes_of, field, parse};
use super::json_items::{JsonItems, TooLong};
use super::output::{Output, note};
use super::request::ClientRequest;
use super::text::escape_into;

/// Keys in one page.
const PAGE_KEYS: u64 = 1000;

/// What follows a page.
struct Page {
    keys: u64,
    /// The last key, if more follow.
    next: Option<Vec<u8>>,
    /// The point in time that it is of.
    position: Option<String>,
}

pub(crate) fn scan(
    line: &CommandLine,
    endpoint: &Endpoint,
    output: &mut Output,
) -> Result<(), CommandError> {
    let mut left = line.number("limit", 1)?.unwrap_or(u64::MAX);
    let (mut after, mut at): (Vec<u8>, Option<String>) = (Vec::new(), None);
    loop {
        let request = page_request(line, left, &after, at.as_deref());
        let mut answer = match endpoint.ask(request) {
            Err(error) if error.answer().0 == 410 && at.take().is_some() => {
                note(format_args!(
                    "the node keeps the view of the first page no more: the rest is newer"
                ));
                continue;
            }
            answer => answer?,
        };
        let page = read_page(&mut answer, line.has("json"), output)?;
        left = left.saturating_sub(page.keys);
        let Some(next) = page.next.filter(|_| left > 0) else {
            return Ok(());
        };
        if next <= after {
            return Err(answer.broken("its pages go round in a ring"));
        }
        (after, at) = (next, page.position);
    }
}

fn page_request(line: &CommandLine, left: u64, after: &[u8], at: Option<&str>) -> ClientRequest {
    let limit = left.min(PAGE_KEYS).to_string();
    let mut request = ClientRequest::new("GET", "/scan").param("limit", limit.as_bytes());
    if let Some(prefix) = line.operands.first() {
        request = request.param("prefix", prefix.as_bytes());
    }
    if line.has("keys-only") {
        request = request.param("values", b"false");
    }
    if !after.is_empty() {
        request = request.param("after", after);
    }
    match at {
        Some(at) => request.param("at", at.as_bytes()),
        None if left > PAGE_KEYS => request.param("consistent", b"true"),
        None => request,
    }
}

/// Writes a page as it comes.
fn read_page(
    answer: &mut Answer<'_>,
    is_json: bool,
    output: &mut Output,
) -> Result<Page, CommandError> {
    const NOT_OURS: &str = "it is not the JSON of a node";
    let (mut items, mut keys, mut text) = (JsonItems::default(), 0, Vec::new());
    let (mut is_line, mut problem) = (false, None);
    while let Some(mut piece) = answer.next()? {
        if is_json {
            output.write(piece)?;
            is_line = piece.ends_with(b"\n");
        }
        while !piece.is_empty() && problem.is_none() {
            match items.push(piece) {
                Err(TooLong) => problem = Some("an entry is too long: try --keys-only"),
                Ok((used, item)) => {
                    piece = &piece[used..];
                    let Some(item) = item else { continue };
                    keys += 1;
                    if !is_json && !add_entry(&item, output.is_terminal, &mut text) {
                        problem = Some(NOT_OURS);
                    }
                }
            }
        }
        output.write(&text)?;
        text.clear();
        if let Some(problem) = problem {
            return Err(answer.broken(problem));
        }
    }
    if is_json && !is_line {
        output.write(b"\n")?;
    }
    let frame = parse(&items.frame);
    if !field(&frame, "items").is_array() {
        return Err(answer.broken(NOT_OURS));
    }
    Ok(Page {
        keys,
        next: bytes_of(&frame, "next", "nextEncoding"),
        position: field(&frame, "position").as_str().map(str::to_owned),
    })
}

/// Appends the line of an entry; false if it is none.
fn add_entry(item: &[u8], is_shortened: bool, out: &mut Vec<u8>) -> bool {
    let json = parse(item);
    let Some(key) = bytes_of(&json, "key", "keyEncoding") else {
        return false;
    };
    escape_into(&key, out);
    add_value(&json, is_shortened, out);
    out.push(b'\n');
    true
}
