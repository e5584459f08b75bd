//! `snapshot FILE`: a backup that is whole, or no file.
//!
//! Invariant: the file has its name only when all of it is there and synced. What is downloaded
//! stands beside it, and is removed when the command fails or is interrupted.

use std::fs::{self, File};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use serde_json::Value as Json;

use super::command_line::CommandLine;
use super::exchange::{Answer, Endpoint};
use super::failure::CommandError;
use super::json::field;
use super::output::Output;
use super::request::ClientRequest;
use super::status::{data_bytes, status_of};
use super::text::{bytes_text, push, put};

/// Time between two states of the progress bar.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Marks in a full progress bar.
const BAR_WIDTH: u64 = 30;
/// A full bar and an empty one, of which a part is shown.
const BAR: &str = "##############################..............................";

pub(crate) fn snapshot(
    line: &CommandLine,
    endpoint: &Endpoint,
    output: &mut Output,
) -> Result<(), CommandError> {
    let path = Path::new(&line.operands[0]);
    for signal in [SIGINT, SIGTERM] {
        let registered = flag::register(signal, Arc::clone(&endpoint.is_interrupted));
        registered
            .map_err(|error| CommandError::local(format_args!("cannot heed signals"), &error))?;
    }
    let mut progress = Progress::new(endpoint);
    let mut answer = endpoint.ask(ClientRequest::new("GET", "/snapshot"))?;
    let mut draft = line.operands[0].clone();
    let mut ending = String::new();
    put(&mut ending, format_args!(".{}.part", std::process::id()));
    draft.push(&ending);
    let draft = Path::new(&draft);
    let written = download(&mut answer, draft, &mut progress);
    progress.clear();
    let finished = written.and_then(|bytes| {
        put_in_place(draft, path).map_err(|error| local_error(path, &error))?;
        Ok(bytes)
    });
    if finished.is_err() {
        let _ = fs::remove_file(draft);
    }
    let (bytes, token) = (finished?, &answer.token);
    let (file, mut said) = (path.to_string_lossy(), String::new());
    if line.has("json") {
        put(
            &mut said,
            format_args!("{{\"bytes\":{bytes},\"etag\":\"{token}\"}}"),
        );
    } else if output.is_terminal {
        let size = bytes_text(bytes);
        put(&mut said, format_args!("{file}: {size}, version {token}"));
    } else {
        push(&mut said, token);
    }
    output.line(said.as_bytes())
}

fn local_error(path: &Path, error: &io::Error) -> CommandError {
    CommandError::local(format_args!("cannot write {}", path.display()), error)
}

/// Writes the answer to a file and syncs it; how long it is.
fn download(
    answer: &mut Answer<'_>,
    draft: &Path,
    progress: &mut Progress,
) -> Result<u64, CommandError> {
    let file = File::create(draft);
    let mut file = file.map_err(|error| local_error(draft, &error))?;
    let mut bytes = 0;
    while let Some(piece) = answer.next()? {
        let written = file.write_all(piece);
        written.map_err(|error| local_error(draft, &error))?;
        bytes += piece.len() as u64;
        progress.show(bytes);
    }
    file.sync_all()
        .map_err(|error| local_error(draft, &error))?;
    Ok(bytes)
}

/// Renames a file within its folder, for good.
fn put_in_place(draft: &Path, path: &Path) -> io::Result<()> {
    fs::rename(draft, path)?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new(".")))?;
    folder.sync_all()
}

/// A bar on standard error, if that is a terminal.
struct Progress {
    is_shown: bool,
    /// About how much there will be; 0: unknown.
    expected_bytes: u64,
    start: Instant,
    shown_at: Option<Instant>,
}

impl Progress {
    fn new(endpoint: &Endpoint) -> Self {
        let is_shown = io::stderr().is_terminal();
        let mut expected_bytes = 0;
        if is_shown && let Ok(status) = status_of(endpoint) {
            // Without a number it is partition 0, or the only one: the first.
            let id = endpoint.partition;
            let is_ours = |json: &&Json| id.is_none_or(|id| field(json, "id").as_u64() == Some(id));
            let partitions = field(&status, "partitions").as_array();
            let mut partitions = partitions.into_iter().flatten();
            let ours = partitions.find(is_ours);
            expected_bytes = ours.map_or(0, data_bytes);
        }
        Self {
            is_shown,
            expected_bytes,
            start: Instant::now(),
            shown_at: None,
        }
    }

    fn show(&mut self, bytes: u64) {
        let is_due = |shown: Instant| shown.elapsed() >= PROGRESS_EVERY;
        if !self.is_shown || !self.shown_at.is_none_or(is_due) {
            return;
        }
        self.shown_at = Some(Instant::now());
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let rate = bytes.saturating_mul(1000) / ms.max(1);
        let (mut line, bytes_now, rate) = (String::new(), bytes_text(bytes), bytes_text(rate));
        put(&mut line, format_args!("\r\x1b[K{bytes_now}, {rate}/s"));
        let percent = bytes.saturating_mul(100).checked_div(self.expected_bytes);
        if let Some(percent) = percent {
            // How much it is in the end is not known: it is done when it is done.
            let percent = percent.min(99);
            let full = usize::try_from(percent * BAR_WIDTH / 100).unwrap_or(0);
            let empty = BAR.len() / 2 - full;
            let bar = &BAR[empty..][..BAR.len() / 2];
            put(&mut line, format_args!(" [{bar}] {percent} %"));
        }
        let _ = io::stderr().write_all(line.as_bytes());
    }

    fn clear(&self) {
        if self.shown_at.is_some() {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}
