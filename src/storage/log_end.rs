//! `log-end`: which files are the data of a partition, how far its log was synced, and what time it
//! was. Each start compares the directory with it. The only home of its layout.
//!
//! Log and checkpoints prove by their checksums that nothing within them is missing. They cannot
//! prove that the newest of them is there: a log without its last file looks like a log that ended
//! earlier. This file names the newest ones by the checksums of their headers, and the
//! version up to which the log was synced.
//!
//! Nor do they show whether anything is missing that was confirmed and not synced. The file has a
//! mark, which names the copy by the checksum of its id while nothing can be missing: with `--fsync
//! always` at all times, else from a clean stop to the next start. Without the mark a start draws
//! another id (`copy_id.rs`). A release that knows no mark writes zeros in its place.
//!
//! Nor do they show which entries had expired. This file has the time by which entries expired, and
//! the next start goes on from that time, whatever its clock shows.
//!
//! All integers are little-endian. The file has 8,192 bytes, and two slots, at 0 and at 4,096:
//!
//! ```text
//! slot, 136 bytes
//!      0      8  "dbnodend"
//!      8      4  format      1
//!     12      4  draft generation: its files are a replacement on its way; 0: none
//!     16      8  number: of two slots that check out the one with the higher number counts
//!     24      8  time by which entries expired, in Unix ms; 0: not recorded yet
//!     32     48  the files in force
//!     80     48  the files that a change on its way puts in force; zeros: none is
//!    128      4  the mark: checksum of the id of the copy; 0: something may be missing
//!    132      4  CRC-32C of bytes 0..132
//!
//! files, 48 bytes
//!      0      4  generation
//!      4      4  flags: 1 these are files, 2 `partition.json`, 4 a checkpoint, 8 a log file
//!      8      4  checksum in `partition.json`
//!     12      4  checksum of the checkpoint's header
//!     16      8  version of the checkpoint
//!     24      8  version before the newest log file
//!     32      4  checksum of that log file's header
//!     36      4  zero
//!     40      8  synced_version: all records up to this one are on disk
//! ```
//!
//! Invariants:
//! 1. A log file, a checkpoint or `partition.json` gets its name only after a synced slot announces
//!    it, and no log file is written to before a synced slot confirms it. So a start after a crash
//!    finds the files in force or the announced ones, and anything else is damage.
//! 2. `synced_version` is written after each sync of the log, and synced later: when a file
//!    changes, at a clean stop, and about a second after it was written. It is exact after the
//!    process was killed; after a power cut it may be behind, never ahead.
//! 3. Until a slot is synced, only that slot is written: however a power cut tears it, the other
//!    one holds what was synced last.
//!
//! 4. The mark is synced after everything else of a clean stop, and its removal before anything
//!    that could be missing later is written.
//!
//! Not here: what a start does with it (`inventory.rs`, `recovery.rs`).

use super::copy_id::CopyId;
use super::disk::{Disk, DiskFile, OnFile};
use super::draft::write_file;
use super::error::{FormatError, StorageError, shortage};
use super::header::{FileId, long, word};

/// The name of the file.
pub(super) const LOG_END_NAME: &str = "log-end";

const MAGIC: &[u8; 8] = b"dbnodend";

const FORMAT: u32 = 1;

/// From one slot to the other: at least a sector of any disk.
const SLOT_STRIDE_BYTES: usize = 4_096;

const SLOT_BYTES: usize = 136;

const FILE_BYTES: usize = 2 * SLOT_STRIDE_BYTES;

const ARE_FILES: u32 = 1;
const HAS_METADATA: u32 = 2;
const HAS_CHECKPOINT: u32 = 4;
const HAS_LOG: u32 = 8;

/// The files that are the data of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DataFiles {
    /// The generation of log and checkpoint.
    pub(super) generation: u32,
    /// The checksum in `partition.json`, if there is one.
    pub(super) metadata: Option<u32>,
    /// The newest checkpoint, if there is one.
    pub(super) checkpoint: Option<FileId>,
    /// The newest log file, once there is one.
    pub(super) log: Option<FileId>,
    /// Version up to which the log was synced.
    pub(super) synced_version: u64,
}

impl DataFiles {
    fn encode(&self, bytes: &mut [u8]) {
        let id = |id: Option<FileId>| id.map_or((0, 0), |id| (id.version, id.header_checksum));
        let flag = |is_there: bool, flag: u32| if is_there { flag } else { 0 };
        let flags = ARE_FILES
            | flag(self.metadata.is_some(), HAS_METADATA)
            | flag(self.checkpoint.is_some(), HAS_CHECKPOINT)
            | flag(self.log.is_some(), HAS_LOG);
        let (checkpoint_version, checkpoint_checksum) = id(self.checkpoint);
        let (log_version, log_checksum) = id(self.log);
        bytes[..4].copy_from_slice(&self.generation.to_le_bytes());
        bytes[4..8].copy_from_slice(&flags.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.metadata.unwrap_or(0).to_le_bytes());
        bytes[12..16].copy_from_slice(&checkpoint_checksum.to_le_bytes());
        bytes[16..24].copy_from_slice(&checkpoint_version.to_le_bytes());
        bytes[24..32].copy_from_slice(&log_version.to_le_bytes());
        bytes[32..36].copy_from_slice(&log_checksum.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.synced_version.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let flags = word(bytes, 4);
        let id = |flag, version_at, checksum_at| {
            (flags & flag != 0).then(|| FileId {
                version: long(bytes, version_at),
                header_checksum: word(bytes, checksum_at),
            })
        };
        (flags & ARE_FILES != 0).then(|| Self {
            generation: word(bytes, 0),
            metadata: (flags & HAS_METADATA != 0).then(|| word(bytes, 8)),
            checkpoint: id(HAS_CHECKPOINT, 16, 12),
            log: id(HAS_LOG, 24, 32),
            synced_version: long(bytes, 40),
        })
    }
}

/// The content of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogEndSlot {
    number: u64,
    /// The time by which entries expired, in Unix ms; 0: not recorded yet.
    pub(super) time_ms: u64,
    in_force: DataFiles,
    /// The files of a change that is under way, or that a crash has interrupted.
    pub(super) announced: Option<DataFiles>,
    /// The generation of a replacement on its way; 0: none is.
    pub(super) draft_generation: u32,
    /// The checksum of the id of the copy that is known to be whole; 0: none is.
    mark: u32,
}

impl LogEndSlot {
    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.draft_generation.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.time_ms.to_le_bytes());
        self.in_force.encode(&mut bytes[32..80]);
        if let Some(announced) = &self.announced {
            announced.encode(&mut bytes[80..128]);
        }
        bytes[128..132].copy_from_slice(&self.mark.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..132]);
        bytes[132..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let broken = FormatError::Damaged("no slot of it checks out");
        if bytes[..8] != *MAGIC || word(bytes, 132) != crc32c::crc32c(&bytes[..132]) {
            return Err(broken);
        }
        match word(bytes, 8) {
            FORMAT => Ok(Self {
                number: long(bytes, 16),
                time_ms: long(bytes, 24),
                in_force: DataFiles::decode(&bytes[32..80]).ok_or(broken)?,
                announced: DataFiles::decode(&bytes[80..128]),
                draft_generation: word(bytes, 12),
                mark: word(bytes, 128),
            }),
            later => Err(FormatError::TooNew(later)),
        }
    }
}

/// The open file.
#[derive(Debug)]
pub(super) struct LogEnd<D: Disk> {
    root: D,
    /// None until it is made.
    file: Option<D::File>,
    pub(super) slot: LogEndSlot,
    /// The slot that was synced last: 0 or 1. The other one is written next.
    synced_index: usize,
    /// Whether `slot` differs from what the file has.
    is_write_due: bool,
    /// Whether the file is written and not synced.
    pub(super) is_sync_due: bool,
    /// Whether the files in force are only announced on disk.
    is_confirm_due: bool,
}

impl<D: Disk> LogEnd<D> {
    /// A `log-end` of these files. The first write makes it, in place of any other.
    pub(super) fn new(root: &D, in_force: DataFiles, time_ms: u64) -> Self {
        let slot = LogEndSlot {
            time_ms,
            in_force,
            ..LogEndSlot::default()
        };
        Self {
            root: root.clone(),
            file: None,
            slot,
            synced_index: 1,
            is_write_due: true,
            is_sync_due: true,
            is_confirm_due: false,
        }
    }

    /// Opens the file, which must be there.
    pub(super) fn open(root: &D) -> Result<Self, StorageError> {
        let path = root.path(LOG_END_NAME);
        let mut bytes = [0; FILE_BYTES];
        let mut read = || {
            let mut file = root.open(LOG_END_NAME)?;
            let is_whole = file.len_bytes()? == FILE_BYTES as u64;
            if is_whole {
                file.read_at(&mut bytes, 0)?;
                // After a kill, what was read may be in the kernel's cache alone.
                file.sync()?;
            }
            Ok((file, is_whole))
        };
        let (file, is_whole) = read().on("opening", root, LOG_END_NAME)?;
        if !is_whole {
            let problem = FormatError::Damaged("it does not have its 8,192 bytes");
            return Err(StorageError::format(path, 0, problem));
        }
        let slots = [0, 1]
            .map(|index| LogEndSlot::decode(&bytes[index * SLOT_STRIDE_BYTES..][..SLOT_BYTES]));
        let (slot, synced_index) = match slots {
            [Err(FormatError::TooNew(format)), _] | [_, Err(FormatError::TooNew(format))] => {
                return Err(StorageError::TooNew { path, format });
            }
            [Ok(first), Ok(second)] if second.number > first.number => (second, 1),
            [Ok(first), _] => (first, 0),
            [_, Ok(second)] => (second, 1),
            [Err(error), _] => return Err(StorageError::format(path, 0, error)),
        };
        Ok(Self {
            root: root.clone(),
            file: Some(file),
            slot,
            synced_index,
            is_write_due: false,
            is_sync_due: false,
            is_confirm_due: false,
        })
    }

    /// Whether nothing can be missing that was confirmed under this id.
    pub(super) fn vouches_for(&self, copy: CopyId) -> bool {
        self.slot.mark != 0 && self.slot.mark == copy.checksum()
    }

    /// Makes durable that a copy is whole, at the end of a clean stop.
    pub(super) fn vouch_for(&mut self, copy: CopyId) -> Result<(), StorageError> {
        self.set_mark(copy.checksum());
        self.sync()
    }

    /// From the next write on the mark names this copy, or none.
    pub(super) fn mark_copy(&mut self, whole: Option<CopyId>) {
        self.set_mark(whole.map_or(0, CopyId::checksum));
    }

    fn set_mark(&mut self, mark: u32) {
        self.is_write_due |= self.slot.mark != mark;
        self.slot.mark = mark;
    }

    /// The files in force.
    pub(super) fn in_force(&self) -> DataFiles {
        self.slot.in_force
    }

    /// Sets the files that a start has found to be in force, for the next write.
    pub(super) fn set_in_force(&mut self, files: DataFiles) {
        (self.slot.in_force, self.slot.announced) = (files, None);
        self.slot.draft_generation = 0;
    }

    /// Announces that files of this generation are written beside those in force. Until they are in
    /// force, a start removes them.
    pub(super) fn announce_draft(&mut self, generation: u32) -> Result<(), StorageError> {
        self.slot.draft_generation = generation;
        self.write_and_sync()
    }

    /// Puts other files in force by `act`: announces them before, and confirms them after. If there
    /// is no room for that, [`confirm`](Self::confirm) does it later.
    pub(super) fn change<T>(
        &mut self,
        files: DataFiles,
        act: impl FnOnce() -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.slot.announced = Some(files);
        self.write_and_sync()?;
        let acted = act().inspect_err(|_| self.slot.announced = None)?;
        (self.slot.in_force, self.slot.announced) = (files, None);
        if files.generation == self.slot.draft_generation {
            self.slot.draft_generation = 0;
        }
        self.is_confirm_due = true;
        shortage(self.confirm())?;
        Ok(acted)
    }

    /// Confirms the files in force. To be called before their log file is written to.
    pub(super) fn confirm(&mut self) -> Result<(), StorageError> {
        if self.is_confirm_due {
            self.write_and_sync()?;
        }
        Ok(())
    }

    /// Records how far the log is synced; [`sync`](Self::sync) makes this durable.
    pub(super) fn record_synced(&mut self, version: u64) -> Result<(), StorageError> {
        if version <= self.slot.in_force.synced_version {
            return Ok(());
        }
        self.slot.in_force.synced_version = version;
        self.write_if_there_is_room()
    }

    /// Records the time by which entries expire; [`sync`](Self::sync) makes this durable.
    pub(super) fn record_time(&mut self, time_ms: u64) -> Result<(), StorageError> {
        self.slot.time_ms = time_ms;
        self.write_if_there_is_room()
    }

    fn write_if_there_is_room(&mut self) -> Result<(), StorageError> {
        // Without room the slot is written with the next sync.
        shortage(self.write())?;
        Ok(())
    }

    /// Makes what was recorded durable.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        if self.is_write_due {
            self.write()?;
        }
        if std::mem::take(&mut self.is_sync_due) {
            let synced = self.file.as_mut().map_or(Ok(()), DiskFile::sync);
            let synced = synced.on("syncing", &self.root, LOG_END_NAME);
            synced.map_err(StorageError::into_final)?;
            self.synced_index = 1 - self.synced_index;
            self.is_confirm_due = false;
        }
        Ok(())
    }

    fn write_and_sync(&mut self) -> Result<(), StorageError> {
        self.write()?;
        self.sync()
    }

    fn write(&mut self) -> Result<(), StorageError> {
        self.slot.number += 1;
        let offset = (1 - self.synced_index) * SLOT_STRIDE_BYTES;
        (self.is_write_due, self.is_sync_due) = (true, true);
        if let Some(file) = &mut self.file {
            let written = file.write_at(&[&self.slot.encode()], offset as u64);
            written.on("writing", &self.root, LOG_END_NAME)?;
        } else {
            let mut bytes = [0; FILE_BYTES];
            bytes[offset..][..SLOT_BYTES].copy_from_slice(&self.slot.encode());
            self.file = Some(write_file(&self.root, LOG_END_NAME, &bytes, 0)?);
        }
        self.is_write_due = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> LogEndSlot {
        let log = FileId {
            version: 0x0102,
            header_checksum: 0x0a0b_0c0d,
        };
        let in_force = DataFiles {
            generation: 3,
            metadata: Some(0x1122_3344),
            checkpoint: None,
            log: Some(log),
            synced_version: 0x0203,
        };
        let checkpoint = Some(FileId {
            version: 0x0203,
            header_checksum: 0x5566_7788,
        });
        let announced = Some(DataFiles {
            checkpoint,
            ..in_force
        });
        LogEndSlot {
            number: 9,
            time_ms: 0x0304,
            in_force,
            announced,
            draft_generation: 4,
            mark: 0x0908_0706,
        }
    }

    #[test]
    fn golden_bytes() {
        let mut expected = b"dbnodend\x01\0\0\0\x04\0\0\0\x09\0\0\0\0\0\0\0".to_vec();
        expected.extend([4, 3, 0, 0, 0, 0, 0, 0]);
        expected.extend([3, 0, 0, 0, 0b1011, 0, 0, 0, 0x44, 0x33, 0x22, 0x11]);
        expected.extend([0; 12]);
        expected.extend([2, 1, 0, 0, 0, 0, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a, 0, 0, 0, 0]);
        expected.extend([3, 2, 0, 0, 0, 0, 0, 0]);
        expected.extend([3, 0, 0, 0, 0b1111, 0, 0, 0, 0x44, 0x33, 0x22, 0x11]);
        expected.extend([0x88, 0x77, 0x66, 0x55, 3, 2, 0, 0, 0, 0, 0, 0]);
        expected.extend([2, 1, 0, 0, 0, 0, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a, 0, 0, 0, 0]);
        expected.extend([3, 2, 0, 0, 0, 0, 0, 0]);
        expected.extend([6, 7, 8, 9]);
        expected.extend(0xf7ee_35b2_u32.to_le_bytes());
        let bytes = slot().encode();
        assert_eq!(bytes, *expected);
        assert_eq!(LogEndSlot::decode(&bytes), Ok(slot()));
    }

    #[test]
    fn damage_is_found_wherever_it_is() {
        let bytes = slot().encode();
        for bit in 0..SLOT_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                matches!(LogEndSlot::decode(&damaged), Err(FormatError::Damaged(_))),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        let mut bytes = slot().encode();
        bytes[8] = 2;
        let checksum = crc32c::crc32c(&bytes[..132]);
        bytes[132..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(LogEndSlot::decode(&bytes), Err(FormatError::TooNew(2)));
    }
}
