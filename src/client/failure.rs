//! Why a command fails: an exit code and a line for people.
//!
//! Not here: printing the line (`mod.rs`).

use std::fmt;
use std::io;

/// What a command ends with, besides 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitReason {
    /// The reader of the output is gone: nothing is left to do.
    OutputClosed,
    /// The key is not there, or a condition does not hold.
    No,
    /// The command line is wrong, or a file of this machine cannot be read or written.
    Usage,
    /// The node cannot be reached, is silent, or its answer is broken.
    NoAnswer,
    /// The node answers with an error.
    Refused,
    /// A signal ended the command.
    Interrupted,
}

/// The codes of `help` and of the man page, with what they mean.
pub(crate) const EXIT_CODES: [(&str, &str); 5] = [
    ("0", "it is done"),
    ("1", "the key is not there, or a condition does not hold"),
    ("2", "wrong usage, or a local file that cannot be used"),
    ("3", "no answer: no connection, a time-out, a broken answer"),
    ("4", "the node answers with an error"),
];

impl ExitReason {
    /// The exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::NoAnswer => 3,
            Self::Refused => 4,
            Self::Interrupted => 130,
        }
    }
}

/// Why a command fails. As large as a pointer.
#[derive(Debug)]
pub(crate) struct CommandError(Box<ErrorParts>);

#[derive(Debug)]
struct ErrorParts {
    reason: ExitReason,
    message: String,
    answer: Option<(u16, Vec<u8>)>,
}

impl CommandError {
    #[cold]
    #[inline(never)]
    pub(crate) fn new(reason: ExitReason, message: fmt::Arguments<'_>) -> Self {
        Self(Box::new(ErrorParts {
            reason,
            message: message.to_string(),
            answer: None,
        }))
    }

    /// The same with the answer that it is about.
    #[cold]
    pub(crate) fn with_answer(mut self, status: u16, body: Vec<u8>) -> Self {
        self.0.answer = Some((status, body));
        self
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn usage(message: fmt::Arguments<'_>) -> Self {
        Self::new(ExitReason::Usage, message)
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn no_answer(message: fmt::Arguments<'_>) -> Self {
        Self::new(ExitReason::NoAnswer, message)
    }

    /// A local file, or standard input or output, that cannot be used.
    #[cold]
    #[inline(never)]
    pub(crate) fn local(what: fmt::Arguments<'_>, error: &io::Error) -> Self {
        Self::usage(format_args!("{what}: {error}"))
    }

    /// Standard output cannot be written. A closed pipe, as in `db-node scan | head`, is no error.
    #[cold]
    #[inline(never)]
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(ExitReason::OutputClosed, format_args!(""));
        }
        Self::local(format_args!("cannot write the output"), error)
    }

    pub(crate) fn reason(&self) -> ExitReason {
        self.0.reason
    }

    /// One line; empty: nothing is to be said.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// The status of the node's answer, and its body; 0: the error is none of the node's.
    pub(crate) fn answer(&self) -> (u16, &[u8]) {
        let answer = self.0.answer.as_ref();
        answer.map_or((0, &[]), |(status, body)| (*status, body))
    }
}
