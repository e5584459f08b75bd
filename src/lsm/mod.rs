//! The engine: an in-memory log-structured merge tree. Pure memory: no I/O, no clock, no HTTP.
//!
//! A write becomes a record at the end of the log (`wal`), found through the active memtable's hash
//! index (`memtable`). A full memtable is frozen and pushed onto the immutable layers (`levels`);
//! maintenance sorts it (`sorter`), and merges memtables and runs of chunks (`run`, `chunk`) into
//! other runs (`merge_job`, `merge`). A read asks the memtable, then the layers, newest first, but
//! for runs of which a filter says that they have no such key (`filter`); a snapshot clones the
//! layers' `Arc`s (`snapshot`). A snapshot leaves as chunks (`chunk_walk`), and chunks become an
//! engine (`adoption`); the log leaves and comes as a stream of records (`log_stream`).
//!
//! Invariants:
//! 1. One version per write, ascending without a gap; a key reads as its newest write.
//! 2. No call does work proportional to the data: writes and reads are bounded by the key and an
//!    inline value, `freeze` and `snapshot` by the number of layers, [`Lsm::maintain`] by its
//!    budget plus [`WORK_LUMP_MAX`].
//! 3. Writes never wait for maintenance. Each owes work for it ([`Lsm::owed_work`]), more than it
//!    causes on average; a caller that pays what is owed keeps the debt bounded.
//!
//! Ideas: the log-structured merge tree is O'Neil's (1996); log records as memtable storage follow
//! Bitcask and `FASTER`.
//!
//! Entries may expire. The caller sets the time ([`Lsm::set_time_ms`]); an entry whose time
//! is over is not there any more for reads and for snapshots taken from then on.
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
pub use log::wal::{SEGMENT_BYTES, WalCursor};
pub use lookup_cache::PREFETCH_KEYS_MAX;
pub use snapshot::{Scan, ScanState, Snapshot};
pub use stats::{LevelStats, Stats};
