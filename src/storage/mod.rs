//! Files: the log, checkpoints, recovery from both, and the disk thread that writes them. The only
//! place that touches files.
//!
//! The loop hands over batches of log records and snapshots ([`Command`]); the thread writes and
//! syncs, and tells when what is on disk ([`Event`]). Everything below the thread ([`Store`],
//! [`recover`]) runs on any [`Disk`], a simulated one too.
//!
//! A data directory holds a `lock` file and a folder a partition, with
//! - `wal-N.log`: log files, named after the first version in them (`log_file.rs`);
//! - `checkpoint-N.dbn`: all data as of version N (`checkpoint.rs`); the same bytes are a backup;
//! - `log-end`: which files are the newest, and how far the log was synced (`log_end.rs`);
//! - `*.tmp`: what was being written when the node went down; removed at the next start;
//! - `*.damaged`: what `--accept-data-loss` set aside;
//! - `partition.json`: role, epoch and histories, once they are more than those of a fresh
//!   partition (`standing.rs`);
//! - `gN-…`: log and checkpoint after all data was replaced by a leader's (`generation.rs`);
//! - `diverged-*.jsonl`: writes that only this node had, and dropped to follow a leader
//!   (`diverged.rs`).
//!
//! Invariants:
//! 1. What [`Event::Written`] tells as synced is read back by any later recovery, unless the disk
//!    itself loses it.
//! 2. Recovery yields a state that the partition was once in, with every durable write in it, or
//!    refuses.
//! 3. The first error is the last: nothing is written after it, and it is told once.
//! 4. A file is removed only if it is a draft, or if something synced says that it is replaced.
//!    What is missing or out of place is refused by name; `--accept-data-loss` gets past that.

mod checkpoint;
mod checkpoint_writer;
mod data_dir;
mod disk;
mod diverged;
mod error;
mod generation;
mod header;
mod inventory;
mod lineage;
mod log_end;
mod log_file;
mod log_writer;
mod process;
mod recovery;
mod replacement;
mod restore;
mod standing;
mod store;
mod thread;
mod version_token;
mod worker;

pub use checkpoint::{CheckpointDecoder, CheckpointEncoder, DecodeStep, EncodeStep};
pub use data_dir::DataDir;
pub use disk::{Disk, DiskFile, SystemDisk};
pub use error::{FormatError, StorageError};
pub use header::FileHeader;
pub use lineage::{HistoryId, Lineage, Mint, PAST_MAX, PastHistory, SHARED_PAST_MAX};
pub use log_writer::LOG_FILE_BYTES;
pub use process::{open_descriptor_count, resident_bytes};
pub use recovery::{Progress, Recovered, RecoveryOptions, Torn, recover};
pub use replacement::{Dropped, Replacement};
pub use standing::{PEERS_MAX, Role, Standing};
pub use store::{CheckpointEnd, Store, StoreStats, Written};
pub use thread::{DiskThread, Plan};
pub use version_token::{HistoryPrefix, Position, TokenText, VersionToken};
pub use worker::{Command, DiskWorker, Disks, Event, Loaded};

/// The number in a file name such as `wal-00000000000000000001.log`.
fn version_in_name(name: &str, prefix: &str, suffix: &str) -> Option<u64> {
    let digits = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}
