//! The engine: an in-memory log-structured merge tree. Pure memory: no I/O, no clock, no HTTP.
//!
//! A write becomes a record at the end of the log (`log/`), found through the active memtable's
//! hash index (`memtable/`). A full memtable is frozen and pushed onto the immutable layers
//! (`levels.rs`); maintenance sorts it, and merges memtables and runs of chunks (`run/`, `chunk/`)
//! into other runs (`merge/`). A read looks in the memtable, then in the layers, newest first, and
//! skips runs with a filter that rules the key out. A snapshot clones the layers' `Arc`s
//! (`snapshot.rs`). It is sent as chunks (`chunk/walk.rs`), and chunks become an engine
//! (`ingest.rs`); the log is sent and received as a stream of records (`log/stream.rs`).
//!
//! Invariants:
//! 1. One version per write, ascending without a gap; a key reads as its newest write.
//! 2. No call does work proportional to the data: writes and reads are bounded by the key and an
//!    inline value, `freeze` and `snapshot` by the number of layers, [`Lsm::maintain`] by its
//!    budget plus [`WORK_LUMP_MAX`].
//! 3. Writes never wait for maintenance. Each write owes work ([`Lsm::owed_work`]), more than it
//!    causes on average; a caller that does the owed work keeps the debt bounded.
//!
//! Ideas: the log-structured merge tree is O'Neil's (1996); log records as memtable storage follow
//! Bitcask and `FASTER`.
//!
//! Entries may expire. The caller sets the time ([`Lsm::set_time_ms`]); reads, and snapshots taken
//! from then on, skip entries that have expired.
//!
//! Not here: durability (`storage/`), conditions on writes (`partition/`).

mod chunk;
mod digest;
mod engine;
mod expiry;
mod footprint;
mod hash;
mod immutable_layer;
mod ingest;
mod level;
mod levels;
mod log;
mod lookup_cache;
mod memtable;
mod merge;
mod reclaim;
mod run;
mod snapshot;
mod stats;
mod work;

pub use chunk::Chunk;
pub use chunk::build::ChunkBuilder;
pub use chunk::layout::{CHUNK_FORMAT, CHUNK_MAX_BYTES};
pub use chunk::walk::{ChunkStep, ChunkWalk};
pub use digest::{Digest, Digester};
pub use engine::{Lsm, Options, WORK_LUMP_MAX};
pub use footprint::Footprint;
pub use hash::KeyHasher;
pub use ingest::{EngineBuilder, IngestError};
pub use level::Level;
pub use log::position::LogPosition;
pub use log::reader::RecordReader;
pub use log::record::{
    Blob, Entry, INLINE_VALUE_MAX_BYTES, KEY_MAX_BYTES, LargeValue, NewValue, RECORD_HEAD_BYTES,
    VALUE_MAX_BYTES, Value, Write,
};
pub use log::stream::{LogBatch, RecordError, StreamRecord};
pub use log::wal::{LogPiece, SEGMENT_BYTES, WalCursor};
pub use lookup_cache::PREFETCH_KEYS_MAX;
pub use snapshot::{Scan, ScanState, Snapshot};
pub use stats::{LevelStats, Stats};
