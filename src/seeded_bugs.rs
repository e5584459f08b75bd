//! Known bugs that the simulations (`tests/simulation/`) switch on, one at
//! a time, and have to find. They exist only with the feature `seeded-bugs`, which no released
//! binary has: without it [`SeededBug::is_on`] is `false`, and the compiler removes every one.

/// A bug that the simulations have to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeededBug {
    /// A replica confirms what its leader has, applied or not.
    AckBeforeApply,
    /// A replica confirms as durable what is not on its disk yet.
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
    /// A role takes effect before it is durable.
    RoleNotSettled,
    /// A promotion begins no history.
    HistoryKept,
    /// A replica drops data although no higher epoch orders it.
    DataGivenUp,
    /// A replica replaces its data by that of a leader that began empty.
    EmptinessTaken,
    /// A snapshot that is not on disk yet counts as if it were.
    ReplacementNotAwaited,
    /// The old files go before the new ones are in force.
    OldFilesRemovedFirst,
    /// A batch is applied while it is still coming.
    BatchCut,
    /// Confirmations of replicas count although the node has led, followed and leads again.
    LeadershipIgnored,
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
    /// A copy that begins empty has the id of the one before.
    EmptyCopyKeepsId,
    /// A copy keeps its id although a stop without a sync may have cost it writes.
    UncleanStopKeepsId,
    /// A copy that is to leave the set is not waited for before etcd has answered.
    ShrunkBeforeAnswer,
    /// A copy that is to join the set is waited for only once etcd has answered.
    GrownAfterAnswer,
    /// A request to etcd without an answer counts as not carried out.
    TimeoutTakenForNo,
    /// A late answer of etcd is taken for that to the next request.
    AnswerOfAnotherRequest,
    /// A copy joins the set without what the leader's office began with.
    JoinBelowOffice,
    /// A copy joins the set while it is behind.
    JoinBehind,
    /// A write is acknowledged as soon as one copy of the set holds it.
    AnyAckCounts,
    /// Confirmations count whichever copy they are of.
    AckOfAnotherCopy,
    /// A copy stands that is not in sync.
    StandsOutsideSet,
    /// The configuration is replaced whatever it is.
    NoCompare,
    /// A copy that stands takes the epoch of the leader before.
    EpochReused,
    /// A leader that was restarted goes on in its epoch.
    ResumesWithoutEpoch,
    /// A copy that was named takes office before its promise has lapsed.
    OfficeAtOnce,
    /// A copy that is named goes on granting beats, and counts no promise for them.
    GrantsWhenNamed,
    /// A copy that finds itself named takes office as if that were handed over.
    OfficeWithoutHandover,
    /// A lease counts from the arrival of its grant.
    LeaseFromReceipt,
    /// A lease from one copy is enough.
    LeaseOfOthersIgnored,
    /// The clock of the beginning of a turn vouches for what came later in it.
    ClockOfTurnStart,
    /// A promise lasts for the lease of this node, not for that of the leader.
    GraceOfOwnOption,
    /// A read shows a value before it is acknowledged.
    ReadsUncommitted,
    /// A read shows that a key is missing before that is acknowledged.
    NotFoundUncommitted,
    /// What a watch tells is taken for what etcd holds.
    WatchTrusted,
    /// A leader goes on while it is not known whether it has handed over.
    ServesAfterResign,
    /// A leader that hands over takes writes meanwhile.
    HandoverWithoutPause,
    /// A move takes a copy out of the set before another one has joined it.
    MoveDropsLastInSync,
    /// What a backup of etcd says is believed by a node that knows better.
    BackupBelieved,
    /// A node believes etcd although another one has found that it went back.
    DoubtOfOthersIgnored,
    /// A node that has just come to etcd does not wait for others to read it.
    OthersNotAwaited,
}

impl SeededBug {
    /// Those of a node without a cluster.
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
        Self::LeadershipIgnored,
        Self::TakeoverTooEarly,
        Self::PeersNotAsked,
        Self::GrantNotKept,
        Self::OwnEpochObeyed,
        Self::ReadNotAwaited,
    ];

    /// Those that show only where copies are named by their ids.
    pub const CLUSTER: [Self; 27] = [
        Self::EmptyCopyKeepsId,
        Self::UncleanStopKeepsId,
        Self::ShrunkBeforeAnswer,
        Self::GrownAfterAnswer,
        Self::TimeoutTakenForNo,
        Self::AnswerOfAnotherRequest,
        Self::JoinBelowOffice,
        Self::JoinBehind,
        Self::AnyAckCounts,
        Self::AckOfAnotherCopy,
        Self::StandsOutsideSet,
        Self::NoCompare,
        Self::EpochReused,
        Self::ResumesWithoutEpoch,
        Self::OfficeAtOnce,
        Self::GrantsWhenNamed,
        Self::OfficeWithoutHandover,
        Self::LeaseFromReceipt,
        Self::LeaseOfOthersIgnored,
        Self::ClockOfTurnStart,
        Self::GraceOfOwnOption,
        Self::ReadsUncommitted,
        Self::NotFoundUncommitted,
        Self::WatchTrusted,
        Self::ServesAfterResign,
        Self::HandoverWithoutPause,
        Self::MoveDropsLastInSync,
    ];
}

impl SeededBug {
    /// Those that show only where etcd goes back to an earlier state.
    pub const HISTORY: [Self; 3] = [
        Self::BackupBelieved,
        Self::DoubtOfOthersIgnored,
        Self::OthersNotAwaited,
    ];

    /// Whether it shows with a controller that names no epochs (`tests/simulation/controller/`).
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

#[cfg(feature = "seeded-bugs")]
mod switch {
    use std::cell::Cell;

    use super::SeededBug;

    thread_local! {
        static ACTIVE: Cell<Option<SeededBug>> = const { Cell::new(None) };
    }

    /// Switches one bug on for this thread, and every other bug off.
    pub fn switch_on(bug: Option<SeededBug>) {
        ACTIVE.set(bug);
    }

    /// Switches the bug with this name on for this thread: a whole node is then tried with it.
    ///
    /// # Panics
    ///
    /// If no bug has this name.
    pub fn switch_on_by_name(name: Option<std::ffi::OsString>) {
        if let Some(name) = name {
            let bugs = SeededBug::ALL.iter().chain(&SeededBug::CLUSTER);
            let mut bugs = bugs.chain(&SeededBug::HISTORY);
            let bug = bugs.find(|bug| name == *format!("{bug:?}"));
            let name = name.display();
            assert!(bug.is_some(), "there is no seeded bug with the name {name}");
            switch_on(bug.copied());
        }
    }

    impl SeededBug {
        /// Whether this bug is switched on.
        pub fn is_on(self) -> bool {
            ACTIVE.get() == Some(self)
        }
    }
}

#[cfg(feature = "seeded-bugs")]
pub use switch::{switch_on, switch_on_by_name};

#[cfg(not(feature = "seeded-bugs"))]
impl SeededBug {
    /// Whether this bug is switched on: never, without the feature.
    #[inline(always)]
    pub fn is_on(self) -> bool {
        false
    }
}
