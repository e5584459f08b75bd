//! `watch`: changes as they happen, over connections that are made again.

use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::command_line::CommandLine;
use super::event_stream::{EventStream, StreamEvent};
use super::exchange::{Answer, Endpoint};
use super::failure::{CommandError, ExitReason};
use super::json::{add_value, bytes_of, field, parse};
use super::output::{Output, note};
use super::request::ClientRequest;
use super::text::{escape_into, owned};

/// A node that has nothing to say for this long is gone: it sends a keep-alive every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(40);

/// Time between two attempts to connect.
const RETRY_WAIT: Duration = Duration::from_millis(500);

/// How far a watch is.
struct WatchProgress {
    /// The version of the last event, or the one to begin behind; empty: now.
    position: String,
    /// No node has told a position yet.
    is_new: bool,
    /// The connection at hand has told one.
    is_connected: bool,
}

pub(crate) fn watch(
    line: &CommandLine,
    endpoint: &Endpoint,
    output: &mut Output,
) -> Result<(), CommandError> {
    let mut progress = WatchProgress {
        position: owned(line.value("since")?.unwrap_or_default()),
        is_new: true,
        is_connected: false,
    };
    loop {
        let request = request_of(line, &progress.position);
        let followed = match endpoint.ask(request) {
            Ok(mut answer) => follow(&mut answer, &mut progress, line.has("json"), output),
            Err(error) => Err(error),
        };
        let error = match followed {
            Ok(()) => CommandError::no_answer(format_args!("the node ended the watch")),
            Err(error) => error,
        };
        // A node that is starting refuses for a while.
        let is_passing = error.reason() == ExitReason::NoAnswer || error.answer().0 == 503;
        if progress.is_new || !is_passing {
            return Err(error);
        }
        if std::mem::replace(&mut progress.is_connected, false) {
            let (problem, position) = (error.message(), &progress.position);
            note(format_args!(
                "{problem}; going on from version {position} once it answers"
            ));
        }
        std::thread::sleep(RETRY_WAIT);
    }
}

fn request_of(line: &CommandLine, position: &str) -> ClientRequest {
    let mut request = ClientRequest::new("GET", "/watch");
    request.field("Accept", "text/event-stream");
    if let Some(prefix) = line.operands.first() {
        request = request.param("prefix", prefix.as_bytes());
    }
    if position.is_empty() {
        return request;
    }
    request.param("since", position.as_bytes())
}

/// Writes events until the connection ends.
fn follow(
    answer: &mut Answer<'_>,
    progress: &mut WatchProgress,
    is_json: bool,
    output: &mut Output,
) -> Result<(), CommandError> {
    let (mut stream, mut text) = (EventStream::default(), Vec::new());
    let mut patience = answer.patience;
    while let Some(mut piece) = answer.next()? {
        let mut is_ours = true;
        while !piece.is_empty() && is_ours {
            let Ok((used, event)) = stream.push(piece) else {
                is_ours = false;
                break;
            };
            piece = &piece[used..];
            let Some(StreamEvent { id, data }) = event else {
                continue;
            };
            if is_json && !data.is_empty() {
                text.extend_from_slice(&data);
                text.push(b'\n');
            } else if !data.is_empty() {
                is_ours = add_change(&data, output.is_terminal, &mut text);
            }
            if id.is_empty() {
                continue;
            }
            progress.position = id;
            if !std::mem::replace(&mut progress.is_connected, true) {
                // From now on it sends something from time to time.
                patience = SILENCE_MAX;
                if !std::mem::replace(&mut progress.is_new, false) {
                    note(format_args!("connected again"));
                }
            }
        }
        answer.patience = answer.patience.max(patience);
        output.write(&text)?;
        output.flush()?;
        text.clear();
        if !is_ours {
            return Err(answer.broken("it is no stream of changes"));
        }
    }
    Ok(())
}

/// Appends the line of a change; false if it is none.
fn add_change(data: &[u8], is_shortened: bool, out: &mut Vec<u8>) -> bool {
    let json = parse(data);
    let Some(key) = bytes_of(&json, "key", "keyEncoding") else {
        return false;
    };
    for name in ["etag", "op"] {
        let text = field(&json, name).as_str().unwrap_or_default();
        escape_into(text.as_bytes(), out);
        out.push(b'\t');
    }
    escape_into(&key, out);
    add_value(&json, is_shortened, out);
    out.push(b'\n');
    true
}
