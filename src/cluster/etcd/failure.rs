//! Why a request has no answer.

use std::fmt;

/// Why a request has no answer. Whether etcd has carried it out, or will, is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The end point cannot be connected to, or has closed the connection.
    Lost(String),
    /// The end point does not answer in time.
    TimedOut,
    /// etcd has answered with an error.
    Error {
        /// The code of gRPC, or 0.
        code: u64,
        /// What etcd says about it.
        message: String,
    },
    /// The answer is not one of etcd.
    Malformed(&'static str),
}

impl Failure {
    /// A word for the kind of failure, for metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Lost(_) => "lost",
            Self::TimedOut => "timeout",
            Self::Error { .. } => "error",
            Self::Malformed(_) => "malformed",
        }
    }

    /// Whether etcd wants a token, or a new one.
    pub(super) fn needs_token(&self) -> bool {
        const UNAUTHENTICATED: u64 = 16;
        let parts = [
            "invalid auth token",
            "user name is empty",
            "auth store is old",
        ];
        matches!(self, Self::Error { code, message }
            if *code == UNAUTHENTICATED || parts.iter().any(|part| is_in(part, message)))
    }
}

/// Whether a text contains a part.
pub(super) fn is_in(part: &str, text: &str) -> bool {
    let mut windows = text.as_bytes().windows(part.len());
    windows.any(|window| window == part.as_bytes())
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(reason) => f.write_str(reason),
            Self::TimedOut => f.write_str("it does not answer in time"),
            Self::Error { code, message } => write!(f, "it answers \"{message}\" (code {code})"),
            Self::Malformed(problem) => write!(f, "it does not answer as etcd does: {problem}"),
        }
    }
}
