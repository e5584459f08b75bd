//! The logger: one line a record on standard error, which may go away or fill up without harm.
//!
//! A logger that writes with `eprintln!` panics when standard error is a closed pipe, and one that
//! blocks would hold the loop behind a reader that does not read. This one asks first whether there
//! is room, and drops the line if not.

use std::io::{StderrLock, Write};
use std::time::{Duration, UNIX_EPOCH};

use log::{LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::clock;

/// A pipe that polls as writable takes this much without blocking (`PIPE_BUF` on Linux).
const LINE_MAX_BYTES: usize = 4096;

struct StderrLog;

/// Sends log records of `level` and above to standard error.
pub(super) fn install(level: LevelFilter) {
    static LOG: StderrLog = StderrLog;
    // An error says that a logger is there already; that one will do.
    if log::set_logger(&LOG).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for StderrLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Of the years that a date can be written for, whatever the system's clock shows.
        let since_1970 = Duration::from_millis(clock::unix_ms());
        let now = humantime::format_rfc3339_millis(UNIX_EPOCH + since_1970);
        let text = record.args().to_string().replace(['\n', '\r'], " ");
        let mut line = format!("{now} {:<5} {text}", record.level());
        let mut end = line.len().min(LINE_MAX_BYTES - 1);
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push('\n');
        let mut stderr = std::io::stderr().lock();
        if has_room(&stderr) {
            let _ = stderr.write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// Whether a line can be written without waiting.
fn has_room(stderr: &StderrLock<'_>) -> bool {
    let mut room = [PollFd::new(stderr, PollFlags::OUT)];
    let no_wait = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut room, Some(&no_wait)).is_ok() && room[0].revents().contains(PollFlags::OUT)
}
