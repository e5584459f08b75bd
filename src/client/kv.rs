//! `get`, `set` and `delete`.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use super::command_line::{CommandLine, parse_seconds};
use super::exchange::{Answer, Endpoint};
use super::failure::{CommandError, ExitReason};
use super::json::{field, parse};
use super::output::{Output, note};
use super::request::{ClientRequest, Upload};
use super::text::{bytes_text, is_printable, owned, put};

/// Longest value that is shown on a terminal.
const SHOWN_MAX_BYTES: usize = 1024 * 1024;

/// Longest answer to a write.
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// The key: the first operand.
fn key_of(line: &CommandLine) -> Result<&[u8], CommandError> {
    let key = line.operands[0].as_bytes();
    if key.is_empty() {
        return Err(CommandError::usage(format_args!(
            "the key is empty: a key has 1 to 4096 bytes"
        )));
    }
    Ok(key)
}

pub(crate) fn get(
    line: &CommandLine,
    endpoint: &Endpoint,
    output: &mut Output,
) -> Result<(), CommandError> {
    let key = key_of(line)?;
    if line.has("json") {
        let request = ClientRequest::new("GET", "/get").param("key", key);
        let mut answer = endpoint.ask(request)?;
        answer.check_version()?;
        return answer.copy_json(output);
    }
    let mut answer = endpoint.ask(ClientRequest::new("GET", "/kv/").segment(key))?;
    answer.check_version()?;
    if output.is_terminal {
        return show(&mut answer, output);
    }
    while let Some(piece) = answer.next()? {
        output.write(piece)?;
    }
    Ok(())
}

/// Shows a value on a terminal, if it is text.
fn show(answer: &mut Answer<'_>, output: &mut Output) -> Result<(), CommandError> {
    let (mut value, mut bytes) = (Vec::new(), 0);
    while let Some(piece) = answer.next()? {
        bytes += piece.len() as u64;
        if value.len() < SHOWN_MAX_BYTES {
            value.extend_from_slice(piece);
        }
    }
    if bytes == value.len() as u64 && is_printable(&value) {
        return output.line(&value);
    }
    let size = bytes_text(bytes);
    note(format_args!(
        "the value has {size} and is no text for a terminal: redirect it, as in db-node get KEY > \
         FILE"
    ));
    Ok(())
}

pub(crate) fn set(
    line: &CommandLine,
    endpoint: &Endpoint,
    output: &mut Output,
) -> Result<(), CommandError> {
    let mut request = ClientRequest::new("PUT", "/kv/").segment(key_of(line)?);
    if let Some(ttl) = line.value("ttl")? {
        if parse_seconds(ttl).is_none() {
            return Err(line.unfit("ttl", "give seconds, such as 60 or 0.5"));
        }
        request.field("X-TTL", ttl);
    }
    add_condition(&mut request, line, "if-match", "If-Match")?;
    add_condition(&mut request, line, "if-none-match", "If-None-Match")?;
    if line.has("create") {
        if line.has("if-none-match") {
            return Err(line.unfit("create", "it means --if-none-match '*': give one of them"));
        }
        request.field("If-None-Match", "*");
    }
    request.upload = Some(upload_of(&line.operands[1])?);
    let mut answer = endpoint.ask(request)?;
    let body = answer.collect(ANSWER_MAX_BYTES)?;
    answer.check_version()?;
    if line.has("json") {
        return output.line(&body);
    }
    output.write(match (output.is_terminal, answer.status) {
        (false, _) => b"",
        (true, 201) => b"created, version ",
        (true, _) => b"replaced, version ",
    })?;
    output.line(answer.token.as_bytes())
}

/// The value to store: an argument, a file or standard input.
fn upload_of(value: &OsStr) -> Result<Upload, CommandError> {
    let (name, file) = match value.as_bytes() {
        b"-" => {
            let input = std::io::stdin().as_fd().try_clone_to_owned();
            (owned("standard input"), input.map(File::from))
        }
        [b'@', path @ ..] => {
            let path = OsStr::from_bytes(path);
            let file = File::open(path);
            (path.to_string_lossy().into_owned(), file)
        }
        value => return Ok(Upload::whole(value.to_vec())),
    };
    let upload = file.and_then(Upload::of_file);
    upload.map_err(|error| CommandError::local(format_args!("cannot read {name}"), &error))
}

/// Adds a condition, if it was given: a version token, or `*`.
fn add_condition(
    request: &mut ClientRequest,
    line: &CommandLine,
    flag: &str,
    field: &str,
) -> Result<(), CommandError> {
    let Some(token) = line.value(flag)? else {
        return Ok(());
    };
    let token = token.trim_matches('"');
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"';
    if token.is_empty() || !token.bytes().all(is_plain) {
        return Err(line.unfit(flag, "give a version token, such as 7-1a2b3c4d, or *"));
    }
    let quote = if token == "*" { "" } else { "\"" };
    let mut value = String::new();
    put(&mut value, format_args!("{quote}{token}{quote}"));
    request.field(field, &value);
    Ok(())
}

pub(crate) fn delete(
    line: &CommandLine,
    endpoint: &Endpoint,
    output: &mut Output,
) -> Result<(), CommandError> {
    let key = key_of(line)?;
    let is_json = line.has("json");
    let mut request = if is_json {
        ClientRequest::new("DELETE", "/delete").param("key", key)
    } else {
        ClientRequest::new("DELETE", "/kv/").segment(key)
    };
    add_condition(&mut request, line, "if-match", "If-Match")?;
    let mut answer = endpoint.ask(request)?;
    let body = answer.collect(ANSWER_MAX_BYTES)?;
    if is_json {
        let Some(is_deleted) = field(&parse(&body), "deleted").as_bool() else {
            return Err(answer.broken("it is not the JSON of a node"));
        };
        output.line(&body)?;
        if is_deleted {
            return Ok(());
        }
        return Err(CommandError::new(
            ExitReason::No,
            format_args!("key not found"),
        ));
    }
    answer.check_version()?;
    output.write(if output.is_terminal {
        b"deleted\n"
    } else {
        b""
    })
}
