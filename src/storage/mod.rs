//! Files: the log, checkpoints, recovery from both, and the disk thread that writes them. The only
//! place that touches files.
//!
//! The loop sends batches of log records and snapshots ([`DiskCommand`]); the thread writes and
//! syncs them, and reports what is on disk ([`DiskEvent`]). Everything below the thread
//! ([`DiskWorker`], [`Store`], [`recover`]) runs on any [`Disk`], a simulated one too.
//!
//! A data directory holds a `lock` file and a folder a partition, with
//! - `wal-N.log`: log files, named after the first version in them (`log_file.rs`);
//! - `checkpoint-N.dbn`: all data as of version N (`checkpoint.rs`); the same bytes are a backup;
//! - `log-end`: which files are the newest, and how far the log was synced (`log_end.rs`);
//! - `*.tmp`: files that were being written when the node went down (`draft.rs`); the next start
//!   removes them;
//! - `*.damaged`: files that `--accept-data-loss` set aside;
//! - `partition.json`: role, epoch, histories and the id of the copy (`partition_meta.rs`,
//!   `copy_id.rs`);
//! - `gN-…`: log and checkpoint after a leader's data has replaced all data (`generation.rs`);
//! - `diverged-*.jsonl`: writes that only this node had, and has dropped to follow a leader
//!   (`diverged.rs`).
//!
//! Invariants:
//! 1. What [`StoreEvent::Written`] reports as synced is read back by any later recovery, unless the
//!    disk itself loses it.
//! 2. Recovery yields a state that the partition was once in, with every durable write in it, or an
//!    error.
//! 3. The first error is the last: it is reported once, and nothing is written after it.
//! 4. A file is removed only if it is a draft, or if a synced file says that it is replaced. A file
//!    that is missing or out of place is an error that names it; `--accept-data-loss` goes on
//!    without it.

mod checkpoint;
mod checkpoint_writer;
mod copy_id;
mod data_dir;
mod disk;
mod draft;
mod diverged;
mod error;
mod file_names;
mod generation;
mod header;
mod history_id;
mod id_generator;
mod inventory;
mod lineage;
mod log_end;
mod log_file;
mod log_writer;
mod mailbox;
mod process;
mod recovery;
mod replacement;
mod restore;
mod partition_meta;
mod start_check;
mod store;
mod thread;
mod version_token;
mod worker;

pub use checkpoint::{CheckpointDecoder, CheckpointEncoder, CodecStep};
pub use copy_id::CopyId;
pub use data_dir::DataDir;
pub use disk::{Disk, DiskFile, Disks, SystemDisk, SystemFile};
pub use diverged::DivergedData;
pub use error::{FormatError, StorageError};
pub use header::FileHeader;
pub use history_id::HistoryId;
pub use id_generator::IdGenerator;
pub use lineage::{Lineage, PAST_MAX, PastHistory, SHARED_PAST_MAX};
pub use log_writer::{LOG_FILE_BYTES, LogWriteStats};
pub use partition_meta::{PEERS_MAX, PartitionMeta, Role};
pub use process::{open_descriptor_count, resident_bytes};
pub use recovery::{
    RecoveredPartition, RecoveryOptions, RecoveryProgress, RecoveryReport, TornTail, recover,
};
pub use replacement::Replacement;
pub use restore::check_restore;
pub use start_check::{StartReport, check_start};
pub use store::{Store, StoreEvent, StoreStats};
pub use thread::{DiskThread, StoragePlan};
pub use version_token::{HistoryPrefix, Position, TokenText, VersionToken};
pub use worker::{DiskCommand, DiskEvent, DiskWorker, LoadedPartition};
