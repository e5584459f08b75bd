//! Positions in a history.

/// The position behind a record: its version, and its checksum, which covers all records before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// Version of the record; 0 before the first.
    pub version: u64,
    /// Its checksum; 0 before the first.
    pub checksum: u32,
}
