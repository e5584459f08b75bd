//! What replies wait for, and how far that has come.

/// What a reply waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// Until a version is on this node's disk, as clients are promised, while it leads.
    Disk {
        /// The partition's leadership generation when the write was made.
        generation: u64,
    },
    /// That so many replicas hold a version too.
    Acks {
        /// How many.
        count: u8,
        /// The partition's leadership generation when the write was made.
        generation: u64,
    },
    /// The same, for the reply to a read that shows the version.
    Read {
        /// How many.
        count: u8,
        /// The partition's leadership generation when the read was made.
        generation: u64,
    },
    /// That a change of role, counted, lasts.
    Settled {
        /// The leadership generation that the partition began with.
        first_generation: u64,
    },
    /// That no start finds the files of a removed partition: removals of the node are counted.
    Removed,
}

/// How far a wait has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitProgress {
    /// What waits for this number, or one below, has what it waits for.
    UpTo(u64),
    /// It will not come: the node leads no more.
    Never,
}
