//! The log: records, their segments in memory, and the stream that they form on disk and on the
//! wire.

pub(crate) mod position;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod stream;
pub(crate) mod wal;
