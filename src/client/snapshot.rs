//! `snapshot FILE`: a backup that is whole, or no file.
//!
//! Invariants:
//! 1. A file has its name only when all of it is there and synced. What is downloaded stands beside
//!    it, and is removed when the command fails or is interrupted.
//! 2. What is no regular file is never replaced: a device, a pipe and standard output are written.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::flag;

use serde_json::Value as Json;

use super::command_line::CommandLine;
use super::exchange::{Answer, Endpoint};
use super::failure::CommandError;
use super::json::field;
use super::output::Output;
use super::request::ClientRequest;
use super::status::{data_bytes, is_of, status_of};
use super::text::{bytes_text, push, put};

/// Time between two states of the progress bar.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Marks in a full progress bar.
const BAR_WIDTH: u64 = 30;
/// A full bar and an empty one, of which a part is shown.
const BAR: &str = "##############################..............................";

/// What a backup begins with; see `storage/header.rs`.
const BACKUP_MAGIC: &[u8] = b"dbnodchk";

/// Signals that end a program, and would leave a draft behind.
const END_SIGNALS: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

/// The operand that means standard output.
const STANDARD_OUTPUT: &str = "-";

/// Where a backup goes.
enum Target {
    /// Standard output, a device or a pipe.
    InPlace(File),
    /// A file: `draft` gets its name, and the permissions of the file that had it before.
    Whole {
        path: PathBuf,
        draft: PathBuf,
        permissions: Option<Permissions>,
    },
}

pub(crate) fn snapshot(
    line: &CommandLine,
    endpoint: &Endpoint,
    output: &mut Output,
) -> Result<(), CommandError> {
    let name = &*line.operands[0];
    if name == STANDARD_OUTPUT && output.is_terminal {
        return Err(CommandError::usage(format_args!(
            "a backup is no text for a terminal: redirect it, or name a file"
        )));
    }
    let target = Target::named(name).map_err(|error| local_error(name, &error))?;
    if let Target::Whole { .. } = target {
        heed_signals(&endpoint.is_interrupted)
            .map_err(|error| CommandError::local(format_args!("cannot heed signals"), &error))?;
    }
    let mut progress = Progress::new(endpoint);
    let mut answer = endpoint.ask(ClientRequest::new("GET", "/snapshot"))?;
    let written = download(&mut answer, &target, name, &mut progress);
    progress.clear();
    let finished = written.and_then(|bytes| {
        let finished = target.put_in_place();
        finished.map_err(|error| local_error(name, &error))?;
        Ok(bytes)
    });
    if let (Target::Whole { draft, .. }, Err(_)) = (&target, &finished) {
        let _ = fs::remove_file(draft);
    }
    let (bytes, token) = (finished?, &answer.token);
    if name == STANDARD_OUTPUT {
        return Ok(());
    }
    let (file, mut said) = (name.to_string_lossy(), String::new());
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

#[cold]
#[inline(never)]
fn local_error(name: &OsStr, error: &io::Error) -> CommandError {
    if name == STANDARD_OUTPUT {
        return CommandError::output(error);
    }
    CommandError::local(format_args!("cannot write {}", name.display()), error)
}

/// Has signals ask to stop, except those that the parent has this program ignore, as `nohup` does.
fn heed_signals(is_interrupted: &Arc<AtomicBool>) -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let ignored = lines.find_map(|line| line.strip_prefix("SigIgn:\t"));
    let ignored = u64::from_str_radix(ignored.unwrap_or_default(), 16).unwrap_or(0);
    for signal in END_SIGNALS {
        if ignored & (1 << (signal - 1)) == 0 {
            flag::register(signal, Arc::clone(is_interrupted))?;
        }
    }
    Ok(())
}

impl Target {
    /// What a name means. Only a regular file is replaced, and a link to one stays a link.
    fn named(name: &OsStr) -> io::Result<Self> {
        if name == STANDARD_OUTPUT {
            let output = io::stdout().as_fd().try_clone_to_owned()?;
            return Ok(Self::InPlace(File::from(output)));
        }
        let (path, permissions) = match fs::metadata(name) {
            Ok(meta) if !meta.is_file() => {
                return Ok(Self::InPlace(File::options().write(true).open(name)?));
            }
            Ok(meta) if meta.permissions().readonly() => {
                return Err(ErrorKind::PermissionDenied.into());
            }
            Ok(meta) => (fs::canonicalize(name)?, Some(meta.permissions())),
            // A link to nothing is there.
            Err(_) if fs::symlink_metadata(name).is_err() => (PathBuf::from(name), None),
            Err(error) => return Err(error),
        };
        let (mut draft, mut ending) = (path.clone().into_os_string(), String::new());
        put(&mut ending, format_args!(".{}.part", std::process::id()));
        draft.push(&ending);
        Ok(Self::Whole {
            path,
            draft: draft.into(),
            permissions,
        })
    }

    /// The file to write to.
    fn open(&self) -> io::Result<File> {
        match self {
            Self::InPlace(file) => file.try_clone(),
            Self::Whole {
                draft, permissions, ..
            } => {
                let file = File::create(draft)?;
                if let Some(permissions) = permissions {
                    file.set_permissions(permissions.clone())?;
                }
                Ok(file)
            }
        }
    }

    /// Gives the draft its name, for good.
    fn put_in_place(&self) -> io::Result<()> {
        let Self::Whole { path, draft, .. } = self else {
            return Ok(());
        };
        fs::rename(draft, path)?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = File::open(folder.unwrap_or(Path::new(".")))?;
        folder.sync_all()
    }
}

/// Writes the answer to a file and syncs it; how long it is. An answer that does not begin as a
/// backup is not written.
fn download(
    answer: &mut Answer<'_>,
    target: &Target,
    name: &OsStr,
    progress: &mut Progress,
) -> Result<u64, CommandError> {
    answer.check_version()?;
    let mut first = Vec::new();
    while first.len() < BACKUP_MAGIC.len()
        && let Some(piece) = answer.next()?
    {
        first.extend_from_slice(piece);
    }
    if !first.starts_with(BACKUP_MAGIC) {
        return Err(answer.broken("it is no backup"));
    }
    let file = target.open();
    let mut file = file.map_err(|error| local_error(name, &error))?;
    let (mut bytes, mut piece) = (0, &*first);
    loop {
        let written = file.write_all(piece);
        written.map_err(|error| local_error(name, &error))?;
        bytes += piece.len() as u64;
        progress.show(bytes);
        let Some(next) = answer.next()? else { break };
        piece = next;
    }
    match file.sync_all() {
        // A pipe has nothing to sync.
        Err(error) if error.kind() != ErrorKind::InvalidInput => Err(local_error(name, &error)),
        _ => Ok(bytes),
    }
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
        if is_shown && let Ok((status, _)) = status_of(endpoint) {
            // Without a number it is partition 0, or the only one: the first.
            let id = endpoint.partition;
            let is_ours = |json: &&Json| id.is_none_or(|id| is_of(json, id));
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
