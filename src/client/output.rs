//! Standard output of a command.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use super::failure::CommandError;

/// Output is written once it is as long.
const BUFFER_BYTES: usize = 64 * 1024;

/// Standard output, collected until it is flushed.
#[derive(Debug)]
pub(crate) struct Output {
    /// None if there is none: what is written goes nowhere then.
    file: Option<File>,
    buffer: Vec<u8>,
    pub(crate) is_terminal: bool,
}

impl Output {
    pub(crate) fn new() -> Self {
        let stdout = io::stdout();
        let file = stdout.as_fd().try_clone_to_owned();
        Self {
            is_terminal: stdout.is_terminal(),
            file: file.ok().map(File::from),
            buffer: Vec::new(),
        }
    }

    #[inline(never)]
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), CommandError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < BUFFER_BYTES {
            return Ok(());
        }
        self.flush()
    }

    /// Writes bytes, and a newline unless they end in one.
    #[inline(never)]
    pub(crate) fn line(&mut self, bytes: &[u8]) -> Result<(), CommandError> {
        self.write(bytes)?;
        self.write(if bytes.ends_with(b"\n") { b"" } else { b"\n" })
    }

    /// Writes what was collected. What cannot be written is dropped with the error.
    #[inline(never)]
    pub(crate) fn flush(&mut self) -> Result<(), CommandError> {
        let written = match &mut self.file {
            Some(file) => file.write_all(&self.buffer),
            None => Ok(()),
        };
        self.buffer.clear();
        written.map_err(|error| CommandError::output(&error))
    }
}

/// Says something beside the output: one line on standard error.
#[cold]
#[inline(never)]
pub(crate) fn note(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "db-node: {text}");
}
