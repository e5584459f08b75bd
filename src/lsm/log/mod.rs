//! The log: records, the stream that they are elsewhere, and where they lie in memory.

pub(in crate::lsm) mod position;
pub(in crate::lsm) mod reader;
pub(in crate::lsm) mod record;
pub(in crate::lsm) mod stream;
pub(in crate::lsm) mod wal;
