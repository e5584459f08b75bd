//! The header of a log file or checkpoint: its kind, format, history and version. The only home of
//! this layout.
//!
//! All integers are little-endian.
//!
//! ```text
//!      0      8  "dbnodlog" or "dbnodchk"
//!      8      4  format      2
//!     12      4  zero
//!     16     16  history id
//!     32      8  version     of the last record before a log file; of a checkpoint its own
//!     40      4  checksum of that version's record
//!     44      4  zero
//!     48      8  hash seed of a checkpoint's chunks; 0 in a log file
//!     56      4  zero
//!     60      4  CRC-32C of bytes 0..60
//! ```
//!
//! A log file of format 1 has the same layout, and is read. It comes from a version without
//! `log-end` (`log_end.rs`); with a log file of format 2 there is always a `log-end`.

use crate::lsm::{CHUNK_FORMAT, KeyHasher, LogPosition};

use super::error::FormatError;
use super::history_id::HistoryId;

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 64;

// Where the fields begin.
const FORMAT: usize = 8;
const HISTORY: usize = 16;
const VERSION: usize = 32;
const POSITION_CHECKSUM: usize = 40;
const HASH_SEED: usize = 48;
const CHECKSUM: usize = 60;

const LOG_FORMAT: u32 = 2;

/// The format of log files before there was `log-end`.
const LOG_FORMAT_ALONE: u32 = 1;

/// The integer of 4 bytes at an offset; the bytes must be there.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("four bytes"))
}

/// The integer of 8 bytes at an offset; the bytes must be there.
pub(super) fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("eight bytes"))
}

/// The kinds of files with such a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    Log,
    Checkpoint,
}

impl FileKind {
    fn magic(self) -> [u8; 8] {
        match self {
            Self::Log => *b"dbnodlog",
            Self::Checkpoint => *b"dbnodchk",
        }
    }

    /// The format that is written.
    fn format(self) -> u32 {
        match self {
            Self::Log => LOG_FORMAT,
            Self::Checkpoint => u32::from(CHUNK_FORMAT),
        }
    }

    /// The oldest format that is read.
    fn oldest_format(self) -> u32 {
        match self {
            Self::Log => LOG_FORMAT_ALONE,
            Self::Checkpoint => u32::from(CHUNK_FORMAT),
        }
    }
}

/// The identity of a log file or checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    /// The version in its header and in its name.
    pub(super) version: u64,
    /// The checksum of its header.
    pub(super) header_checksum: u32,
}

/// The content of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// The lineage of the writes in the file.
    pub history: HistoryId,
    /// The position before a log file, or at the end of a checkpoint.
    pub position: LogPosition,
    /// The hasher of a checkpoint's chunks.
    pub hasher: Option<KeyHasher>,
}

impl FileHeader {
    /// The header of a log file that is begun at a position.
    pub(super) fn of_log(history: HistoryId, position: LogPosition) -> Self {
        Self {
            history,
            position,
            hasher: None,
        }
    }

    /// The identity of the file among those of its kind.
    pub(super) fn id(&self) -> FileId {
        FileId {
            version: self.position.version,
            header_checksum: self.encode().1,
        }
    }

    /// Whether `bytes` are the header of a log file beside which there is a `log-end`.
    pub(super) fn has_log_end(bytes: &[u8]) -> bool {
        Self::decode(FileKind::Log, bytes).is_ok() && word(bytes, FORMAT) != LOG_FORMAT_ALONE
    }

    fn kind(&self) -> FileKind {
        match self.hasher {
            None => FileKind::Log,
            Some(_) => FileKind::Checkpoint,
        }
    }

    /// Its bytes, and its checksum, which the rest of the file is chained to.
    pub(super) fn encode(&self) -> ([u8; HEADER_BYTES], u32) {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..][..field.len()].copy_from_slice(field);
        put(0, &self.kind().magic());
        put(FORMAT, &self.kind().format().to_le_bytes());
        put(HISTORY, &self.history.0);
        put(VERSION, &self.position.version.to_le_bytes());
        put(POSITION_CHECKSUM, &self.position.checksum.to_le_bytes());
        put(
            HASH_SEED,
            &self.hasher.map_or(0, |hasher| hasher.seed()).to_le_bytes(),
        );
        let checksum = crc32c::crc32c(&bytes[..CHECKSUM]);
        bytes[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        (bytes, checksum)
    }

    /// Reads the header that `bytes` begin with, and its checksum.
    pub(super) fn decode(kind: FileKind, bytes: &[u8]) -> Result<(Self, u32), FormatError> {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(FormatError::Damaged("the header is cut off"));
        };
        if bytes[..8] != kind.magic() {
            return Err(FormatError::Damaged(
                "it does not begin as a file of its kind does",
            ));
        }
        // The checksum is the same in every format: a later format is not taken for damage.
        let checksum = word(bytes, CHECKSUM);
        if checksum != crc32c::crc32c(&bytes[..CHECKSUM]) {
            return Err(FormatError::Damaged(
                "the checksum of the header does not hold",
            ));
        }
        let format = word(bytes, FORMAT);
        if format > kind.format() {
            return Err(FormatError::TooNew(format));
        }
        if format < kind.oldest_format() {
            return Err(FormatError::Damaged("its format is none that is read"));
        }
        let hasher = match kind {
            FileKind::Log => None,
            FileKind::Checkpoint => Some(KeyHasher::new(long(bytes, HASH_SEED))),
        };
        let header = Self {
            history: HistoryId(*bytes[HISTORY..].first_chunk().expect("sixteen bytes")),
            position: LogPosition {
                version: long(bytes, VERSION),
                checksum: word(bytes, POSITION_CHECKSUM),
            },
            hasher,
        };
        Ok((header, checksum))
    }
}
