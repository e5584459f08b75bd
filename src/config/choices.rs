//! Options that take one of several names.

use serde::Serialize;

/// What a read shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ReadConsistency {
    /// What this node has.
    Local,
    /// Only what as many replicas hold as `--min-acks` demands.
    Acknowledged,
}

impl ReadConsistency {
    /// As on the command line, and in requests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Acknowledged => "acknowledged",
        }
    }

    /// The one with a name.
    pub fn of(name: &[u8]) -> Option<Self> {
        let all = [Self::Local, Self::Acknowledged];
        all.into_iter().find(|one| one.name().as_bytes() == name)
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        Self::of(text.as_bytes()).ok_or_else(|| "give local or acknowledged".to_owned())
    }
}

/// When writes are made to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before they are acknowledged.
    Always,
    /// At intervals.
    Interval,
    /// When the system sees fit.
    Never,
}

impl Fsync {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Interval => "interval",
            Self::Never => "never",
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let all = [Self::Always, Self::Interval, Self::Never];
        let named = all.into_iter().find(|one| one.name() == text);
        named.ok_or_else(|| "give always, interval or never".to_owned())
    }
}
