//! The checkpoint: a snapshot as a stream of bytes, for files, backups and replicas alike. The only
//! home of this layout, the header aside.
//!
//! All integers are little-endian.
//!
//! ```text
//! header, 64 bytes (`header.rs`)
//!
//! items, each with a head of 16 bytes
//!      0      1  kind        1 layer, 2 chunk, 3 large value, 4 end
//!      1      1  level       of a layer; 255: the bottom
//!      2      2  zero
//!      4      4  len         bytes that follow the head; 0 for a layer and the end
//!      8      4  checksum    of a chunk its own, of a large value the CRC-32C of its bytes, else 0
//!     12      4  CRC-32C over the last four bytes of the head before (of the first: the header),
//!                and bytes 0..12
//! ```
//!
//! A layer's chunks follow it in the order of their keys, the large values of a chunk follow the
//! chunk in the order of its entries, layers come newest first. Chunks are as they lie in memory
//! (`lsm/chunk/layout.rs`). The heads are a chain like the log's records:
//! if the checksum of the end holds, everything before it is sound.
//!
//! Invariants:
//! 1. Each call of the encoder does bounded work, however large a value is, and may come at any
//!    later time.
//! 2. The decoder never asks for more than a head, a chunk or a piece of a value, and believes no
//!    length in a head with a wrong checksum.

use std::sync::Arc;

use crate::lsm::{
    Blob, CHUNK_MAX_BYTES, Chunk, ChunkStep, ChunkWalk, EngineBuilder, Level, Lsm, Options,
    Snapshot, VALUE_MAX_BYTES,
};

use super::error::FormatError;
use super::header::{FileHeader, FileKind, HEADER_BYTES, word};
use super::history_id::HistoryId;

const ITEM_HEAD_BYTES: usize = 16;

const KIND_LAYER: u8 = 1;
const KIND_CHUNK: u8 = 2;
const KIND_VALUE: u8 = 3;
const KIND_END: u8 = 4;

/// A level's number as stored.
const BOTTOM: u8 = u8::MAX;

/// Bytes of a large value that a decoder takes at a time.
const VALUE_PIECE_BYTES: usize = 256 * 1024;

/// Bytes of a large value that are digested in one step.
const DIGEST_STEP_BYTES: usize = 256 * 1024;

/// How far an encoder or decoder has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodecStep {
    /// There is more to encode, or to be fed.
    More,
    /// That was the end.
    Done,
}

#[derive(Debug)]
enum EncodeState {
    Header,
    Walk,
    /// Of the large values of `chunk`, `index` is being digested.
    Digest {
        chunk: Arc<Chunk>,
        index: usize,
        digested: usize,
        crc: u32,
    },
    /// Of the large values of `chunk`, `index` is being copied.
    Copy {
        chunk: Arc<Chunk>,
        index: usize,
        copied: usize,
    },
    Done,
}

/// Turns a snapshot into bytes.
#[derive(Debug)]
pub struct CheckpointEncoder {
    /// The header of the checkpoint.
    pub(super) header: FileHeader,
    walk: ChunkWalk,
    state: EncodeState,
    chain: u32,
}

impl CheckpointEncoder {
    /// An encoder of a snapshot of this history.
    pub fn new(snapshot: Snapshot, history: HistoryId) -> Self {
        let header = FileHeader {
            history,
            position: snapshot.position,
            hasher: Some(snapshot.hasher),
        };
        Self {
            header,
            walk: ChunkWalk::new(snapshot),
            state: EncodeState::Header,
            chain: 0,
        }
    }

    /// Appends the next bytes, about `budget` of them or none; the work is bounded by the budget
    /// plus that of one chunk.
    pub fn next(&mut self, budget: usize, out: &mut Vec<u8>) -> CodecStep {
        let end = out.len() + budget.max(1);
        let mut work_left = budget.max(1);
        while out.len() < end && work_left > 0 {
            match &mut self.state {
                EncodeState::Header => self.encode_header(out),
                EncodeState::Walk => {
                    let (step, spent) = self.walk.step(work_left);
                    work_left = work_left.saturating_sub(spent);
                    self.encode_step(step, out);
                }
                EncodeState::Digest {
                    chunk,
                    index,
                    digested,
                    crc,
                } => {
                    let blob = &chunk.blobs()[*index];
                    let upto = blob.len().min(*digested + DIGEST_STEP_BYTES);
                    *crc = crc32c::crc32c_append(*crc, &blob[*digested..upto]);
                    work_left = work_left.saturating_sub((upto - *digested) / 8);
                    *digested = upto;
                    if upto == blob.len() {
                        let (len, crc, index, chunk) =
                            (blob.len(), *crc, *index, Arc::clone(chunk));
                        self.push_item_head(KIND_VALUE, 0, len, crc, out);
                        self.state = EncodeState::Copy {
                            chunk,
                            index,
                            copied: 0,
                        };
                    }
                }
                EncodeState::Copy {
                    chunk,
                    index,
                    copied,
                } => {
                    let blob = &chunk.blobs()[*index];
                    let upto = blob
                        .len()
                        .min(*copied + end.saturating_sub(out.len()).max(1));
                    out.extend_from_slice(&blob[*copied..upto]);
                    *copied = upto;
                    if upto == blob.len() {
                        self.state = value_state(Arc::clone(chunk), *index + 1);
                    }
                }
                EncodeState::Done => return CodecStep::Done,
            }
        }
        if matches!(self.state, EncodeState::Done) {
            CodecStep::Done
        } else {
            CodecStep::More
        }
    }

    fn encode_header(&mut self, out: &mut Vec<u8>) {
        let (bytes, checksum) = self.header.encode();
        self.chain = checksum;
        out.extend_from_slice(&bytes);
        self.state = EncodeState::Walk;
    }

    fn encode_step(&mut self, step: ChunkStep, out: &mut Vec<u8>) {
        match step {
            ChunkStep::Working => {}
            ChunkStep::Layer(level) => {
                let level = match level {
                    Level::Upper(number) => number,
                    Level::Bottom => BOTTOM,
                };
                self.push_item_head(KIND_LAYER, level, 0, 0, out);
            }
            ChunkStep::Chunk(chunk) => {
                let bytes = chunk.bytes();
                self.push_item_head(KIND_CHUNK, 0, bytes.len(), chunk.checksum(), out);
                out.extend_from_slice(bytes);
                self.state = value_state(chunk, 0);
            }
            ChunkStep::End => {
                self.push_item_head(KIND_END, 0, 0, 0, out);
                self.state = EncodeState::Done;
            }
        }
    }

    fn push_item_head(
        &mut self,
        kind: u8,
        level: u8,
        len: usize,
        checksum: u32,
        out: &mut Vec<u8>,
    ) {
        let mut head = [0; ITEM_HEAD_BYTES];
        head[..2].copy_from_slice(&[kind, level]);
        head[4..8].copy_from_slice(
            &u32::try_from(len)
                .expect("chunks and values are below 4 GiB")
                .to_le_bytes(),
        );
        head[8..12].copy_from_slice(&checksum.to_le_bytes());
        self.chain = chain(self.chain, &head);
        head[12..].copy_from_slice(&self.chain.to_le_bytes());
        out.extend_from_slice(&head);
    }
}

fn chain(before: u32, head: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&before.to_le_bytes()), &head[..12])
}

/// The state in which the large value `index` of a chunk is encoded, or that behind the last one.
fn value_state(chunk: Arc<Chunk>, index: usize) -> EncodeState {
    if index < chunk.blobs().len() {
        EncodeState::Digest {
            chunk,
            index,
            digested: 0,
            crc: 0,
        }
    } else {
        EncodeState::Walk
    }
}

#[derive(Debug, Default)]
enum DecodeState {
    #[default]
    Header,
    ItemHead,
    Chunk {
        len: usize,
    },
    Value {
        len: usize,
        checksum: u32,
        crc: u32,
        value: Vec<u8>,
    },
    Done,
}

/// Turns bytes into an engine.
#[derive(Debug, Default)]
pub struct CheckpointDecoder {
    state: DecodeState,
    header: Option<FileHeader>,
    builder: Option<EngineBuilder>,
    chain: u32,
    /// A chunk that waits for its large values, and the offset at which it began.
    chunk: Option<(Vec<u8>, Vec<Blob>, u64)>,
    /// Offset of the bytes that are wanted next.
    pub(super) offset: u64,
    /// All bytes before this offset are sound.
    pub(super) sound_to: u64,
}

impl CheckpointDecoder {
    /// How many bytes to feed next; 0 at the end.
    pub fn wanted_bytes(&self) -> usize {
        match &self.state {
            DecodeState::Header => HEADER_BYTES,
            DecodeState::ItemHead => ITEM_HEAD_BYTES,
            DecodeState::Chunk { len } => *len,
            DecodeState::Value { len, value, .. } => (len - value.len()).min(VALUE_PIECE_BYTES),
            DecodeState::Done => 0,
        }
    }

    /// Decodes exactly [`wanted_bytes`](Self::wanted_bytes). After an error, only
    /// [`finish`](Self::finish) may be called; it returns what was sound.
    pub fn feed(&mut self, bytes: Vec<u8>) -> Result<CodecStep, FormatError> {
        assert_eq!(bytes.len(), self.wanted_bytes(), "fed what was not wanted");
        self.sound_to = self.offset;
        let begin = self.offset;
        self.offset += bytes.len() as u64;
        match &mut self.state {
            DecodeState::Header => {
                let (header, checksum) = FileHeader::decode(FileKind::Checkpoint, &bytes)?;
                self.chain = checksum;
                self.builder = header
                    .hasher
                    .map(|hasher| EngineBuilder::new(hasher, header.position));
                self.header = Some(header);
                self.state = DecodeState::ItemHead;
            }
            DecodeState::ItemHead => self.item_head(&bytes)?,
            DecodeState::Chunk { .. } => {
                self.chunk = Some((bytes, Vec::new(), begin));
                self.state = DecodeState::ItemHead;
            }
            DecodeState::Value {
                len,
                checksum,
                crc,
                value,
            } => {
                *crc = crc32c::crc32c_append(*crc, &bytes);
                if value.is_empty() {
                    *value = bytes;
                } else {
                    let wanted = (value.capacity() * 2)
                        .min(*len)
                        .max(value.len() + bytes.len());
                    value.reserve_exact(wanted - value.len());
                    value.extend_from_slice(&bytes);
                }
                if value.len() < *len {
                    return Ok(CodecStep::More);
                }
                if crc != checksum {
                    return Err(FormatError::Damaged(
                        "the checksum of a value does not hold",
                    ));
                }
                let Some((_, blobs, _)) = &mut self.chunk else {
                    return Err(FormatError::Damaged("a large value outside of any chunk"));
                };
                blobs.push(Arc::new(std::mem::take(value)));
                self.state = DecodeState::ItemHead;
            }
            DecodeState::Done => {}
        }
        self.sound_to = self.offset;
        Ok(if matches!(self.state, DecodeState::Done) {
            CodecStep::Done
        } else {
            CodecStep::More
        })
    }

    fn item_head(&mut self, head: &[u8]) -> Result<(), FormatError> {
        let chain = chain(self.chain, head);
        if chain != word(head, 12) {
            return Err(FormatError::Damaged(
                "the checksum of an item's head does not hold",
            ));
        }
        self.chain = chain;
        let (kind, level, len, checksum) =
            (head[0], head[1], word(head, 4) as usize, word(head, 8));
        if kind != KIND_VALUE {
            self.adopt_chunk()?;
        }
        self.state = match kind {
            KIND_LAYER if len == 0 => {
                let level = if level == BOTTOM {
                    Level::Bottom
                } else {
                    Level::Upper(level)
                };
                self.builder()?
                    .begin_layer(level)
                    .map_err(|error| FormatError::Damaged(error.0))?;
                DecodeState::ItemHead
            }
            KIND_CHUNK if (1..=CHUNK_MAX_BYTES).contains(&len) => DecodeState::Chunk { len },
            KIND_VALUE if (1..=VALUE_MAX_BYTES).contains(&len) => DecodeState::Value {
                len,
                checksum,
                crc: 0,
                value: Vec::new(),
            },
            KIND_END if len == 0 => DecodeState::Done,
            _ => {
                return Err(FormatError::Damaged(
                    "an item of an unknown kind or an impossible length",
                ));
            }
        };
        Ok(())
    }

    fn builder(&mut self) -> Result<&mut EngineBuilder, FormatError> {
        self.builder
            .as_mut()
            .ok_or(FormatError::Damaged("an item before the header"))
    }

    /// Adds the chunk, which is complete once an item other than a large value follows.
    fn adopt_chunk(&mut self) -> Result<(), FormatError> {
        let Some((bytes, blobs, begin)) = self.chunk.take() else {
            return Ok(());
        };
        let head_begin = std::mem::replace(&mut self.sound_to, begin);
        self.builder()?
            .add_chunk(&bytes, blobs)
            .map_err(|error| FormatError::Damaged(error.0))?;
        self.sound_to = head_begin;
        Ok(())
    }

    /// The engine made of the sound bytes, and the header; none if there was no header.
    pub fn finish(self, options: Options) -> Option<(Lsm, FileHeader)> {
        Some((self.builder?.finish(options), self.header?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsm::{INLINE_VALUE_MAX_BYTES, LargeValue, NewValue};

    const OPTIONS: Options = Options {
        memtable_bytes: 1 << 20,
        hash_seed: 0x0102,
    };

    fn engine() -> Lsm {
        let mut lsm = Lsm::new(OPTIONS);
        lsm.set(b"a", NewValue::Inline(b"1"), None);
        lsm.freeze();
        while !lsm.is_idle() {
            lsm.maintain(100_000);
        }
        let mut large = LargeValue::new(vec![3; INLINE_VALUE_MAX_BYTES + 1]);
        while !large.step(usize::MAX) {}
        lsm.set(b"b", NewValue::Large(large), Some(77));
        lsm.delete(b"a");
        lsm
    }

    fn encode(lsm: &mut Lsm, budget: usize) -> Vec<u8> {
        let mut encoder = CheckpointEncoder::new(lsm.snapshot(), HistoryId([9; 16]));
        let mut out = Vec::new();
        while encoder.next(budget, &mut out) == CodecStep::More {}
        out
    }

    fn decode(bytes: &[u8]) -> Result<Option<Lsm>, FormatError> {
        let (mut decoder, mut rest) = (CheckpointDecoder::default(), bytes);
        loop {
            let Some((next, behind)) = rest.split_at_checked(decoder.wanted_bytes()) else {
                return Ok(None);
            };
            rest = behind;
            if decoder.feed(next.to_vec())? == CodecStep::Done {
                assert!(rest.is_empty());
                return Ok(decoder.finish(OPTIONS).map(|(lsm, _)| lsm));
            }
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = encode(&mut engine(), 1 << 20);
        let mut expected = b"dbnodchk\x02\0\0\0\0\0\0\0".to_vec();
        expected.extend([9; 16]);
        expected.extend([3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[..40], *expected);
        assert_eq!(bytes[48..56], [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[60..64], crc32c::crc32c(&bytes[..60]).to_le_bytes());
        // A layer of level 1 with one chunk and its large value, the layer below it with another,
        // the end.
        assert_eq!(bytes[64..76], [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut chained = bytes[60..64].to_vec();
        chained.extend(&bytes[64..76]);
        assert_eq!(bytes[76..80], crc32c::crc32c(&chained).to_le_bytes());
        let chunk_len = word(&bytes, 84) as usize;
        assert_eq!(bytes[80..84], [2, 0, 0, 0]);
        assert_eq!(bytes[88..92], bytes[96..100], "the chunk's own checksum");
        let value = 96 + chunk_len;
        assert_eq!(bytes[value..value + 8], [3, 0, 0, 0, 1, 0x40, 0, 0]);
        let below = value + 16 + INLINE_VALUE_MAX_BYTES + 1;
        assert_eq!(bytes[below..below + 2], [1, 255]);
        assert_eq!(
            bytes[bytes.len() - 16..][..12],
            [4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn decoding_gives_the_engine_back() {
        let mut lsm = engine();
        let whole = encode(&mut lsm, 1 << 20);
        assert_eq!(
            encode(&mut lsm, 1),
            whole,
            "the bytes do not depend on the budget"
        );
        let back = decode(&whole).expect("sound").expect("whole");
        assert_eq!(back.position(), lsm.position());
        assert_eq!(back.get(b"a"), None);
        assert_eq!(back.get(b"b"), lsm.get(b"b"));
    }

    #[test]
    fn no_damage_goes_unnoticed() {
        let whole = encode(&mut engine(), 1 << 20);
        for cut in 0..whole.len() {
            assert!(
                decode(&whole[..cut]).is_ok_and(|lsm| lsm.is_none()),
                "cut at {cut}"
            );
        }
        let mut rng = fastrand::Rng::with_seed(1);
        let sampled = (0..20_000).map(|_| rng.usize(..whole.len() * 8));
        for bit in (0..2_000).chain(sampled) {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                !matches!(decode(&damaged), Ok(Some(_))),
                "bit {bit} of {}",
                whole.len() * 8
            );
        }
    }
}
