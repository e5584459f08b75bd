//! Reads records from a stream that arrives in pieces, which may be cut anywhere.
//!
//! Invariants:
//! 1. Every record that is returned continues the history without a gap (`log/stream.rs`).
//! 2. Of an incomplete record only the bytes that have arrived are held. A large value is collected
//!    into the buffer in which it is going to stay, and digested as it arrives, so that no call
//!    does work proportional to a value.

use crate::lsm::log::position::LogPosition;
use crate::lsm::log::record::{Blob, RECORD_HEAD_BYTES, RecordHead};
use crate::lsm::log::stream::{RecordError, StreamRecord};

/// First allocation for a large value; more is allocated as bytes arrive, whatever the head says.
const FIRST_RESERVE_BYTES: usize = 64 * 1024;

/// A large value that is being received.
#[derive(Debug)]
struct Large {
    head: RecordHead,
    checksum: u32,
    value: Blob,
}

/// The reader.
#[derive(Debug)]
pub struct RecordReader {
    at: LogPosition,
    /// The stored part of a record that is incomplete, or was returned last.
    stored: Vec<u8>,
    large: Option<Large>,
    /// Whether the collected record was returned.
    is_spent: bool,
}

impl RecordReader {
    /// A reader of the records behind a position.
    pub fn new(at: LogPosition) -> Self {
        Self {
            at,
            stored: Vec::new(),
            large: None,
            is_spent: false,
        }
    }

    /// The record that `input` begins with or completes; moves `input` on. `None`: all of `input`
    /// was used, and more is needed. An error is final: the stream does not continue the history.
    pub fn next<'r, 'i: 'r>(
        &'r mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<StreamRecord<'r>>, &'static str> {
        if std::mem::take(&mut self.is_spent) {
            self.stored.clear();
            self.large = None;
        }
        if self.stored.is_empty() {
            match self.at.next_record(input) {
                Ok(record) => {
                    *input = &input[record.stream_bytes()..];
                    self.at = record.position();
                    return Ok(Some(record));
                }
                Err(RecordError::Damaged(problem)) => return Err(problem),
                Err(RecordError::Incomplete) => {}
            }
        }
        let Some(head) = self.collect_stored(input)? else {
            return Ok(None);
        };
        if !head.is_large() {
            return self.finish_stored().map(Some);
        }
        self.collect_large(head, input)
    }

    /// Collects the part before a large value; returns its head when it is complete.
    fn collect_stored(&mut self, input: &mut &[u8]) -> Result<Option<RecordHead>, &'static str> {
        loop {
            let head = RecordHead::parse(&self.stored);
            if let Some(head) = &head
                && (head.version != self.at.version + 1 || !head.is_well_formed())
            {
                return Err("its version is not the next one, or its lengths or flags cannot be");
            }
            let wanted = match &head {
                Some(head) => head.stored_bytes(),
                // An expiry follows the head.
                None if self.stored.len() >= RECORD_HEAD_BYTES => RECORD_HEAD_BYTES + 8,
                None => RECORD_HEAD_BYTES,
            };
            if self.stored.len() >= wanted {
                return Ok(head);
            }
            if input.is_empty() {
                return Ok(None);
            }
            let (taken, rest) = input.split_at(input.len().min(wanted - self.stored.len()));
            self.stored.extend_from_slice(taken);
            *input = rest;
        }
    }

    fn finish_stored(&mut self) -> Result<StreamRecord<'_>, &'static str> {
        self.is_spent = true;
        match self.at.next_record(&self.stored) {
            Ok(record) => {
                self.at = record.position();
                Ok(record)
            }
            Err(RecordError::Damaged(problem)) => Err(problem),
            Err(RecordError::Incomplete) => Err("it ends before its end"),
        }
    }

    fn collect_large<'r>(
        &'r mut self,
        head: RecordHead,
        input: &mut &[u8],
    ) -> Result<Option<StreamRecord<'r>>, &'static str> {
        let (at, stored) = (self.at, &self.stored);
        let begin = || Large {
            head,
            checksum: at.chained(&stored[4..]),
            value: Blob::default(),
        };
        let large = self.large.get_or_insert_with(begin);
        let len = large.head.stream_bytes() - large.head.stored_bytes();
        let value = Blob::get_mut(&mut large.value).expect("shared only once it is whole");
        let (taken, rest) = input.split_at(input.len().min(len - value.len()));
        if value.capacity() - value.len() < taken.len() {
            let wanted = (value.capacity() * 2)
                .max(value.len() + taken.len())
                .max(FIRST_RESERVE_BYTES)
                .min(len);
            value.reserve_exact(wanted - value.len());
        }
        value.extend_from_slice(taken);
        large.checksum = crc32c::crc32c_append(large.checksum, taken);
        *input = rest;
        if value.len() < len {
            return Ok(None);
        }
        if large.checksum != large.head.checksum {
            return Err("its checksum does not hold");
        }
        self.is_spent = true;
        self.at = large.head.position();
        Ok(Some(StreamRecord::collected(
            large.head,
            stored,
            &large.value,
            at,
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsm::log::record::{INLINE_VALUE_MAX_BYTES, LargeValue, NewValue};
    use crate::lsm::{LogBatch, Lsm, Options};

    const OPTIONS: Options = Options {
        memtable_bytes: 1 << 20,
        hash_seed: 7,
    };

    fn engine(rng: &mut fastrand::Rng) -> (Lsm, Vec<u8>) {
        let mut lsm = Lsm::new(OPTIONS);
        let mut cursor = lsm.log_end();
        for _ in 0..30 {
            let key = vec![b'k'; rng.usize(1..40)];
            let expires = rng.bool().then_some(rng.u64(..));
            match rng.u8(..3) {
                0 => drop(lsm.delete(&key)),
                1 => drop(lsm.set(&key, NewValue::Inline(&vec![1; rng.usize(..500)]), expires)),
                _ => {
                    let mut large =
                        LargeValue::new(vec![
                            rng.u8(..);
                            rng.usize(INLINE_VALUE_MAX_BYTES + 1..100_000)
                        ]);
                    while !large.step(usize::MAX) {}
                    lsm.set(&key, NewValue::Large(large), expires);
                }
            }
        }
        let mut batch = LogBatch::default();
        lsm.read_log(&mut cursor, usize::MAX, u64::MAX, &mut batch);
        (lsm, batch.parts().flatten().copied().collect())
    }

    fn read(stream: &[u8], rng: &mut fastrand::Rng) -> Result<Lsm, &'static str> {
        let (mut lsm, mut reader, mut rest) = (
            Lsm::new(OPTIONS),
            RecordReader::new(LogPosition::default()),
            stream,
        );
        while !rest.is_empty() {
            let (mut piece, behind) = rest.split_at(rng.usize(1..=rest.len().min(50_000)));
            rest = behind;
            while let Some(record) = reader.next(&mut piece)? {
                lsm.replay(&record);
            }
            assert!(piece.is_empty(), "not all was taken");
        }
        Ok(lsm)
    }

    #[test]
    fn pieces_of_any_size_give_the_same_engine() {
        for seed in 0..50 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (lsm, stream) = engine(&mut rng);
            let copy =
                read(&stream, &mut rng).unwrap_or_else(|problem| panic!("seed {seed}: {problem}"));
            assert_eq!(copy.position(), lsm.position(), "seed {seed}");
            for len in 1..40 {
                let key = vec![b'k'; len];
                assert_eq!(copy.get(&key), lsm.get(&key), "seed {seed}");
            }
        }
    }

    #[test]
    fn a_changed_byte_is_found_whatever_the_pieces() {
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (lsm, mut stream) = engine(&mut rng);
            let at = rng.usize(..stream.len());
            stream[at] ^= 1 << rng.u8(..8);
            // A longer length may make the reader wait for more.
            let found = read(&stream, &mut rng).is_ok_and(|copy| copy.position() == lsm.position());
            assert!(!found, "seed {seed}: byte {at} was believed");
        }
    }
}
