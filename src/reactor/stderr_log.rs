//! The logger: `simple_logger`, so guarded that a closed, full or broken standard error neither
//! ends nor blocks the node.
//!
//! Invariants:
//! 1. A line that standard error has no room for is dropped: the loop never waits for a reader.
//! 2. An error of a write is ignored: a pipe without a reader, a full disk, a terminal that is
//!    gone.
//! 3. A line is at most [`LINE_MAX_BYTES`] long, and lines of two threads do not mix.
//!
//! `simple_logger` prints with `eprintln!`, which panics on any error and waits for room, and a
//! panic ends the node. Therefore it prints into a pipe of this module's own: file descriptor 2 is
//! that pipe while it prints, and standard error again afterwards. Both ends of the pipe are held
//! here, and it is empty before each line, so that printing cannot fail. What was printed goes on
//! to standard error in one write, with the time in front, if there is room. (The time that
//! `simple_logger` itself can print would make the binary 40 KiB larger.)
//!
//! One limit: a panic of the other thread in the microseconds in which descriptor 2 is the pipe
//! ends the node without its message.

use std::io::{self, StderrLock};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, UNIX_EPOCH};

use log::{LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{fcntl_dupfd_cloexec, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::dup2_stderr;
use simple_logger::SimpleLogger;

use super::clock;

/// A pipe that polls as writable takes this much without blocking (`PIPE_BUF` on Linux).
const LINE_MAX_BYTES: usize = 4096;

/// Bytes of a line besides its target and its text: time, level, brackets, end of line.
const FRAME_BYTES: usize = "2026-01-31T12:00:00.000Z ERROR [] \n".len();

/// Lowest number of a descriptor that is no standard stream.
const FIRST_DESCRIPTOR: i32 = 3;

struct StderrLog {
    logger: SimpleLogger,
    /// Standard error, under another number.
    stderr: OwnedFd,
    /// What the logger prints into, and the end that it is read from.
    pipe_in: OwnedFd,
    pipe_out: OwnedFd,
}

/// Sends log records of `level` and above to standard error.
pub(super) fn install(level: LevelFilter) -> io::Result<()> {
    let stderr = fcntl_dupfd_cloexec(io::stderr(), FIRST_DESCRIPTOR)?;
    let (pipe_out, pipe_in) = pipe_with(PipeFlags::CLOEXEC)?;
    let log = StderrLog {
        logger: SimpleLogger::new().with_level(level),
        stderr,
        pipe_in,
        pipe_out,
    };
    // An error says that a logger is there already; that one will do.
    if log::set_boxed_logger(Box::new(log)).is_ok() {
        log::set_max_level(level);
    }
    Ok(())
}

impl Log for StderrLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut text = record.args().to_string().replace(['\n', '\r'], " ");
        let room = LINE_MAX_BYTES.saturating_sub(FRAME_BYTES + record.target().len());
        text.truncate(text.floor_char_boundary(room));
        // Of the years that a date can be written for, whatever the system's clock shows.
        let since_1970 = Duration::from_millis(clock::unix_ms());
        let now = humantime::format_rfc3339_millis(UNIX_EPOCH + since_1970);
        let mut line = format!("{now} ").into_bytes();
        let lock = io::stderr().lock();
        if self.print(record, &text, &mut line, &lock).is_ok() && has_room(&self.stderr) {
            let _ = rustix::io::write(&self.stderr, &line);
        }
    }

    fn flush(&self) {}
}

impl StderrLog {
    /// Appends what the logger prints of a record with this text. The lock keeps other threads away
    /// from descriptor 2.
    fn print(
        &self,
        record: &Record<'_>,
        text: &str,
        line: &mut Vec<u8>,
        _lock: &StderrLock<'_>,
    ) -> io::Result<()> {
        let (level, target) = (record.level(), record.target());
        retry_on_intr(|| dup2_stderr(&self.pipe_in))?;
        self.logger.log(
            &Record::builder()
                .level(level)
                .target(target)
                .args(format_args!("{text}"))
                .build(),
        );
        retry_on_intr(|| dup2_stderr(&self.stderr))?;
        let mut printed = [0; LINE_MAX_BYTES];
        let len = retry_on_intr(|| rustix::io::read(&self.pipe_out, &mut printed))?;
        line.extend_from_slice(&printed[..len]);
        Ok(())
    }
}

/// Whether a line can be written without waiting.
fn has_room(stderr: &impl AsFd) -> bool {
    let mut room = [PollFd::new(stderr, PollFlags::OUT)];
    let no_wait = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut room, Some(&no_wait)).is_ok() && room[0].revents().contains(PollFlags::OUT)
}
