//! Known bugs, to be switched on one at a time by the simulation that has to find them
//! (`tests/replication.rs`, `tests/controller.rs`). Only with the feature `planted-bugs`, which no
//! binary is built with; without it [`is_planted`] is `false` and nothing of them is left.

/// A bug that could be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A replica confirms what its leader has, applied or not.
    AckBeforeApply,
    /// A replica confirms as lasting what is not on its disk yet.
    AckBeforeSync,
    /// A leader sends what its own disk could still lose.
    SendBeforeSync,
    /// The log goes on one record late behind a snapshot.
    SnapshotOffByOne,
    /// Log is freed although a replica has not confirmed it.
    LogFreedTooEarly,
    /// A leader that hears of a higher epoch goes on.
    EpochNotHeard,
    /// A replica follows a leader of a lower epoch.
    EpochNotChecked,
    /// A role is carried out before it is on disk.
    RoleNotSettled,
    /// A promotion goes on with the history that was there.
    HistoryKept,
    /// A replica gives up what it holds although no higher epoch says so.
    DataGivenUp,
    /// A replica takes over an empty leader's emptiness.
    EmptinessTaken,
    /// A snapshot that is not on disk yet counts as if it were.
    ReplacementNotAwaited,
    /// The old files go before the new ones are in force.
    OldFilesRemovedFirst,
    /// A batch is applied while it is still coming.
    BatchCut,
    /// Confirmations of replicas count although the node has led, followed and leads again.
    TenureIgnored,
    /// A node leads as soon as its claim is granted, although the node that granted it has more.
    TakeoverTooEarly,
    /// A node leads without asking any other.
    PeersNotAsked,
    /// A node that grants a claim goes on as before.
    GrantNotKept,
    /// An epoch that a node chose itself lets data be dropped.
    OwnEpochObeyed,
    /// A read shows what is to be confirmed before it is.
    ReadNotAwaited,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::AckBeforeApply,
        Self::AckBeforeSync,
        Self::SendBeforeSync,
        Self::SnapshotOffByOne,
        Self::LogFreedTooEarly,
        Self::EpochNotHeard,
        Self::EpochNotChecked,
        Self::RoleNotSettled,
        Self::HistoryKept,
        Self::DataGivenUp,
        Self::EmptinessTaken,
        Self::ReplacementNotAwaited,
        Self::OldFilesRemovedFirst,
        Self::BatchCut,
        Self::TenureIgnored,
        Self::TakeoverTooEarly,
        Self::PeersNotAsked,
        Self::GrantNotKept,
        Self::OwnEpochObeyed,
        Self::ReadNotAwaited,
    ];
}

impl Bug {
    /// Whether it shows with a controller that names no epochs (`tests/controller.rs`).
    pub fn is_of_takeover(self) -> bool {
        matches!(
            self,
            Self::TakeoverTooEarly
                | Self::PeersNotAsked
                | Self::GrantNotKept
                | Self::OwnEpochObeyed
        )
    }
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Switches a bug on for this thread, and any other off.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether a bug is on.
    pub fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(feature = "planted-bugs")]
pub use switch::{is_planted, plant};

/// Whether a bug is on: never.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub fn is_planted(_: Bug) -> bool {
    false
}
