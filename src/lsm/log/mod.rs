//! The log: records, their segments in memory, and the stream that they form on disk and on the
//! wire.

pub(in crate::lsm) mod position;
pub(in crate::lsm) mod reader;
pub(in crate::lsm) mod record;
pub(in crate::lsm) mod stream;
pub(in crate::lsm) mod wal;
