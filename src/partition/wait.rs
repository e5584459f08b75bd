//! What replies wait for, and how far that has come.

/// What a reply waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wait {
    /// A version is on this node's disk, as clients are promised, while the node leads.
    Disk {
        /// The partition's leadership generation when the write was made.
        generation: u64,
    },
    /// So many replicas hold a version, too.
    Acks {
        /// How many.
        count: u8,
        /// The partition's leadership generation when the write was made.
        generation: u64,
    },
    /// So many replicas hold the version that a read shows.
    Read {
        /// How many.
        count: u8,
        /// The partition's leadership generation when the read was made.
        generation: u64,
    },
    /// A change of role is durable. Changes are counted.
    Settled {
        /// The leadership generation that the partition began with.
        first_generation: u64,
    },
    /// No start finds the files of a removed partition any more. Removals are counted.
    Removed,
    /// An operation of the cluster has ended.
    Operation {
        /// Its number.
        number: u64,
    },
}

/// How far a kind of wait has been satisfied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitProgress {
    /// Waits for this number or a lower one are satisfied.
    UpTo(u64),
    /// It never will be: the node has lost its leadership.
    Never,
}
