//! The errors of files. Each displays as one line that says what to do.

use std::fmt::Write as _;
use std::io;

use thiserror::Error;

/// Bytes that are not in a known format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// The bytes were altered or cut, or were never written by a node. The text says how that
    /// shows.
    Damaged(&'static str),
    /// A later version of the program wrote the bytes, in this format.
    TooNew(u32),
}

/// Storage cannot go on: the node refuses to start, or stops taking writes.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StorageError {
    /// The directory or file named on the command line cannot be used: the node exits with 2.
    #[error("{0}")]
    Unusable(String),
    /// Another process uses the directory.
    #[error("{0} is in use by another db-node: stop that one, or choose another --data-dir")]
    Locked(String),
    /// Data that was on disk is damaged.
    #[error(
        "{path} is damaged at byte {offset}: {problem}. Restore a backup into an empty directory \
         with --restore FILE, or start with --accept-data-loss to keep what precedes the damage \
         (the rest is set aside, not deleted)"
    )]
    Damaged {
        /// The file.
        path: String,
        /// Where in the file the damage shows.
        offset: u64,
        /// What is wrong there.
        problem: &'static str,
    },
    /// A file is missing, or is not the file that has to be there.
    #[error(
        "{path} {problem}. Put the file back, restore a backup into an empty directory with \
         --restore FILE, or start with --accept-data-loss to go on with what is there (what does \
         not fit is set aside, not deleted)"
    )]
    Lost {
        /// The file.
        path: String,
        /// What is wrong, as the end of a sentence that begins with the path.
        problem: String,
    },
    /// A file of a later format.
    #[error(
        "{path} has format {format}, which this version does not know: start the newer db-node \
         that wrote it"
    )]
    TooNew {
        /// The file.
        path: String,
        /// Its format.
        format: u32,
    },
    /// A backup to restore from is not whole.
    #[error("{0}")]
    BadBackup(String),
    /// A system call failed.
    #[error("{action} {path} failed: {problem}{}", way_out(*is_full, *is_passing))]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        problem: String,
        /// There is no room left.
        is_full: bool,
        /// Room or descriptors were short, and nothing was lost: the call may be tried again.
        is_passing: bool,
    },
}

impl StorageError {
    /// A system call that failed.
    pub fn io(action: &'static str, path: String, error: &io::Error) -> Self {
        let is_full = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        );
        Self::Io {
            action,
            path,
            problem: error.to_string(),
            is_full,
            is_passing: is_full || is_out_of_descriptors(error),
        }
    }

    /// Whether there is no room left.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { is_full, .. } if *is_full)
    }

    /// The same error, with how much room was asked for at once if there is none.
    pub(super) fn for_room(mut self, bytes: u64) -> Self {
        if let Self::Io {
            problem,
            is_full: true,
            ..
        } = &mut self
        {
            let _ = write!(
                problem,
                ": it needs {} MiB at once",
                bytes.div_ceil(1 << 20)
            );
        }
        self
    }

    /// Whether room or descriptors were short, and nothing was lost.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Io { is_passing, .. } if *is_passing)
    }

    /// The same error, as one that ends writing: after a failed sync it is not known what is lost.
    pub(super) fn into_final(mut self) -> Self {
        if let Self::Io { is_passing, .. } = &mut self {
            *is_passing = false;
        }
        self
    }

    /// The loss, if the error is one that `--accept-data-loss` accepts.
    pub fn loss(&self) -> Option<String> {
        match self {
            Self::Damaged {
                path,
                offset,
                problem,
            } => Some(format!("{path} is damaged at byte {offset}: {problem}")),
            Self::Lost { path, problem } => Some(format!("{path} {problem}")),
            _ => None,
        }
    }

    /// Damage in a file, or a format that is too new.
    pub fn format(path: String, offset: u64, error: FormatError) -> Self {
        match error {
            FormatError::Damaged(problem) => Self::Damaged {
                path,
                offset,
                problem,
            },
            FormatError::TooNew(format) => Self::TooNew { path, format },
        }
    }
}

/// Tells a shortage, which passes, from an error that ends writing.
pub(super) fn shortage(
    outcome: Result<(), StorageError>,
) -> Result<Option<StorageError>, StorageError> {
    match outcome {
        Ok(()) => Ok(None),
        Err(error) if error.is_passing() => Ok(Some(error)),
        Err(error) => Err(error),
    }
}

/// What to do about a shortage, as the end of a message.
fn way_out(is_full: bool, is_passing: bool) -> &'static str {
    match (is_full, is_passing) {
        (true, _) => "; make room on that disk",
        (_, true) => "; raise the limit on open files (ulimit -n), or close some elsewhere",
        _ => "",
    }
}

/// Whether the process, or the system, has no file descriptor left.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    let codes = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    codes
        .iter()
        .any(|code| error.raw_os_error() == Some(code.raw_os_error()))
}
