//! The header of a file: what it is, of which format, and where the history stood. The only home of
//! this layout.
//!
//! All integers are little-endian.
//!
//! ```text
//!      0      8  "dbnodlog" or "dbnodchk"
//!      8      4  format      of a log file 2, of a checkpoint that of its chunks: 1 or 2
//!     12      4  zero
//!     16     16  history id
//!     32      8  version: of the last record before a log file; that a checkpoint is complete up to
//!     40      4  checksum of that version's record
//!     44      4  zero
//!     48      8  hash seed of a checkpoint's chunks; 0 in a log file
//!     56      4  zero
//!     60      4  CRC-32C of bytes 0..60
//! ```
//!
//! A log file of format 1 has the same layout, and is read. It was written by a version that knew
//! no `log-end` (`log_end.rs`): one of format 2 is never there without.

use crate::lsm::{KeyHasher, LogPosition};

use super::error::FormatError;
use super::history_id::HistoryId;

/// Bytes of a header.
pub(super) const HEADER_BYTES: usize = 64;

const LOG_FORMAT: u32 = 2;

/// The format of log files before there was `log-end`.
const LOG_FORMAT_ALONE: u32 = 1;

/// The integer of 4 bytes at an offset that is known to be there.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("four bytes"))
}

/// The integer of 8 bytes at an offset that is known to be there.
pub(super) fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("eight bytes"))
}

/// What a file is.
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
}

/// Which log file or checkpoint it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId {
    /// The version in its header, which its name tells too.
    pub(super) version: u64,
    /// The checksum of its header.
    pub(super) header_checksum: u32,
}

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    /// The lineage of the writes in the file.
    pub history: HistoryId,
    /// Where the history stood: before a log file, at the end of a checkpoint.
    pub position: LogPosition,
    /// What the hash tables in a checkpoint's chunks are made with.
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

    /// What tells the file from any other of its kind.
    pub(super) fn id(&self) -> FileId {
        let kind = match self.hasher {
            None => FileKind::Log,
            Some(_) => FileKind::Checkpoint,
        };
        FileId {
            version: self.position.version,
            header_checksum: self.encode(kind).1,
        }
    }

    /// Whether `bytes` are the header of a log file beside which there is a `log-end`.
    pub(super) fn has_log_end(bytes: &[u8]) -> bool {
        Self::decode(FileKind::Log, bytes).is_ok() && word(bytes, 8) != LOG_FORMAT_ALONE
    }

    /// Its bytes, and its checksum, which the rest of the file is chained to.
    pub(super) fn encode(&self, kind: FileKind) -> ([u8; HEADER_BYTES], u32) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&kind.magic());
        let format = self
            .hasher
            .map_or(LOG_FORMAT, |hasher| u32::from(hasher.format()));
        bytes[8..12].copy_from_slice(&format.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.history.0);
        bytes[32..40].copy_from_slice(&self.position.version.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.position.checksum.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.hasher.map_or(0, |hasher| hasher.seed()).to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
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
        // Of any format: that of a later one tells it from damage.
        let checksum = word(bytes, 60);
        if checksum != crc32c::crc32c(&bytes[..60]) {
            return Err(FormatError::Damaged(
                "the checksum of the header does not hold",
            ));
        }
        let format = word(bytes, 8);
        let newest = if kind == FileKind::Log {
            LOG_FORMAT
        } else {
            u32::from(KeyHasher::NEWEST_FORMAT)
        };
        if format > newest {
            return Err(FormatError::TooNew(format));
        }
        let history = HistoryId(*bytes[16..].first_chunk().expect("sixteen bytes"));
        let position = LogPosition {
            version: long(bytes, 32),
            checksum: word(bytes, 40),
        };
        let hasher = match kind {
            FileKind::Log => None,
            FileKind::Checkpoint => {
                let hasher = u8::try_from(format)
                    .ok()
                    .and_then(|format| KeyHasher::of_format(format, long(bytes, 48)));
                Some(hasher.ok_or(FormatError::Damaged("a format that there never was"))?)
            }
        };
        Ok((
            Self {
                history,
                position,
                hasher,
            },
            checksum,
        ))
    }
}
