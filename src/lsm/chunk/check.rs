//! Checking a chunk that came from a file or a peer, before anything reads it. The layout is
//! `chunk/layout.rs`'s.
//!
//! A checksum finds damage, but not a wrong chunk: a peer may have a bug, or be no node at all. So
//! after the checksum everything is checked that reading, merging and scanning rely on. A chunk
//! that passes never causes a panic, and gives wrong answers only if its writer forged it.

use crate::lsm::chunk::layout::{
    self, BUCKET_BYTES, BUCKET_SLOTS, CHUNK_MAX_BYTES, ChunkHeader, FLAG_EXPIRES, FLAG_LARGE,
    FLAG_TOMBSTONE, HEADER_BYTES, KEY_LEN_MASK, NO_EXPIRY, RESTART_ENTRIES, read_u16, read_u64,
};
use crate::lsm::hash::KeyHasher;
use crate::lsm::log::record::{Blob, INLINE_VALUE_MAX_BYTES, KEY_MAX_BYTES, VALUE_MAX_BYTES};

/// Where the parts of a chunk lie, and what its header says of them.
pub(crate) struct Parts {
    first_expiry: u64,
    entry_count: usize,
    tombstone_count: usize,
    pub(crate) restarts_at: usize,
    pub(crate) buckets_at: usize,
    pub(crate) version_width: usize,
}

/// Offsets at which an entry starts, a bit each.
struct EntryStarts([u64; CHUNK_MAX_BYTES / 64]);

impl EntryStarts {
    fn add(&mut self, offset: usize) {
        self.0[offset / 64] |= 1 << (offset % 64);
    }

    /// Removes an offset; false if it is not there, or was removed before.
    fn remove(&mut self, offset: usize) -> bool {
        let bit = 1 << (offset % 64);
        let was_in = self.0[offset / 64] & bit != 0;
        self.0[offset / 64] &= !bit;
        was_in
    }
}

/// Returns the parts of a sound chunk, and the offset of its last entry.
pub(crate) fn check(
    bytes: &[u8],
    blobs: &[Blob],
    hasher: &KeyHasher,
    last_version: u64,
) -> Result<(Parts, usize), &'static str> {
    let header = check_header(bytes, blobs.len(), hasher)?;
    let mut starts = EntryStarts([0; CHUNK_MAX_BYTES / 64]);
    let last_entry = check_entries(bytes, blobs, &header, last_version, &mut starts)?;
    check_buckets(&bytes[header.buckets_at..], header.entry_count, &mut starts)?;
    Ok((header, last_entry))
}

fn ensure(holds: bool, problem: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(problem) }
}

fn check_header(
    bytes: &[u8],
    blob_count: usize,
    hasher: &KeyHasher,
) -> Result<Parts, &'static str> {
    ensure(
        (HEADER_BYTES..=CHUNK_MAX_BYTES).contains(&bytes.len()),
        "a chunk of impossible length",
    )?;
    ensure(
        layout::checksum(bytes) == layout::checksum_of(bytes),
        "a chunk whose checksum does not hold",
    )?;
    let header = ChunkHeader::read(bytes).ok_or("a chunk of another format")?;
    ensure(
        header.len as usize == bytes.len(),
        "a chunk with a wrong header",
    )?;
    ensure(
        header.hash_seed == hasher.seed(),
        "a chunk with another hash seed",
    )?;
    let entry_count = usize::from(header.entry_count);
    let restarts_at = usize::from(header.restarts_at);
    let bucket_count = usize::from(header.bucket_count);
    let version_width = usize::from(header.version_width);
    let restarts_end = restarts_at + 2 * entry_count.div_ceil(RESTART_ENTRIES);
    let buckets_at = bytes.len().saturating_sub(bucket_count * BUCKET_BYTES);
    ensure(
        entry_count > 0
            && restarts_at > HEADER_BYTES
            && bytes
                .get(restarts_end..buckets_at)
                .is_some_and(|zeros| zeros.len() < BUCKET_BYTES)
            && bucket_count * BUCKET_SLOTS >= entry_count
            && (1..=8).contains(&version_width)
            && usize::from(header.blob_count) == blob_count,
        "a chunk whose parts do not fit",
    )?;
    Ok(Parts {
        first_expiry: header.first_expiry,
        entry_count,
        tombstone_count: usize::from(header.tombstone_count),
        restarts_at,
        buckets_at,
        version_width,
    })
}

/// Returns the offset of the last entry.
fn check_entries(
    bytes: &[u8],
    blobs: &[Blob],
    header: &Parts,
    last_version: u64,
    starts: &mut EntryStarts,
) -> Result<usize, &'static str> {
    let entries = &bytes[..header.restarts_at];
    let (mut at, mut last_at, mut last_key): (usize, usize, &[u8]) = (HEADER_BYTES, 0, &[]);
    let (mut tombstone_count, mut blob_count, mut first_expiry) = (0, 0, NO_EXPIRY);
    for index in 0..header.entry_count {
        let fixed_end = at + 4 + header.version_width;
        ensure(fixed_end <= entries.len(), "an entry that is cut off")?;
        let (key_word, value_len) = (
            read_u16(entries, at),
            usize::from(read_u16(entries, at + 2)),
        );
        let expires = key_word & FLAG_EXPIRES != 0;
        let key_start = fixed_end + if expires { 8 } else { 0 };
        let key_end = key_start + usize::from(key_word & KEY_LEN_MASK);
        let end = key_end + value_len;
        ensure(end <= entries.len(), "an entry that is cut off")?;
        let mut version = [0; 8];
        version[..header.version_width].copy_from_slice(&entries[at + 4..fixed_end]);
        ensure(
            (1..=last_version).contains(&u64::from_le_bytes(version)),
            "an entry with an impossible version",
        )?;
        if expires {
            first_expiry = first_expiry.min(read_u64(entries, fixed_end));
        }
        let key = &entries[key_start..key_end];
        ensure(
            (1..=KEY_MAX_BYTES).contains(&key.len()) && key > last_key,
            "keys that are out of order",
        )?;
        check_value(key_word, &entries[key_end..end], blobs, blob_count)?;
        tombstone_count += usize::from(key_word & FLAG_TOMBSTONE != 0);
        blob_count += u32::from(key_word & FLAG_LARGE != 0);
        if index % RESTART_ENTRIES == 0 {
            let restart = read_u16(bytes, header.restarts_at + index / RESTART_ENTRIES * 2);
            ensure(usize::from(restart) == at, "a restart that is not an entry")?;
        }
        starts.add(at);
        (last_at, last_key, at) = (at, key, end);
    }
    ensure(
        at == entries.len()
            && tombstone_count == header.tombstone_count
            && blob_count as usize == blobs.len()
            && first_expiry == header.first_expiry,
        "a chunk whose counts are wrong",
    )?;
    Ok(last_at)
}

/// Checks the value of an entry, before which there are `blob_count` large values.
fn check_value(
    key_word: u16,
    value: &[u8],
    blobs: &[Blob],
    blob_count: u32,
) -> Result<(), &'static str> {
    match (key_word & FLAG_TOMBSTONE != 0, key_word & FLAG_LARGE != 0) {
        (true, is_large) => ensure(value.is_empty() && !is_large, "a tombstone with a value"),
        (false, true) => {
            let blob_bytes = blobs.get(blob_count as usize).map_or(0, |blob| blob.len());
            let is_large = blob_bytes > INLINE_VALUE_MAX_BYTES && blob_bytes <= VALUE_MAX_BYTES;
            let names_next = value == u32::to_le_bytes(blob_count);
            ensure(names_next && is_large, "a large value that is not there")
        }
        (false, false) => ensure(
            value.len() <= INLINE_VALUE_MAX_BYTES,
            "a value that is too long",
        ),
    }
}

/// Checks that each entry is in one slot, and that each slot names an entry. Whether a slot is in
/// the bucket of its key's hash is not checked: a key in a wrong one is not found, and no other
/// harm is done.
fn check_buckets(
    buckets: &[u8],
    entry_count: usize,
    starts: &mut EntryStarts,
) -> Result<(), &'static str> {
    let mut slot_count = 0;
    for bucket in buckets.chunks_exact(BUCKET_BYTES) {
        for slot in 0..BUCKET_SLOTS {
            if bucket[slot] != 0 {
                let offset = usize::from(read_u16(bucket, BUCKET_SLOTS + 2 * slot));
                ensure(starts.remove(offset), "a slot that is not an entry")?;
                slot_count += 1;
            }
        }
    }
    ensure(slot_count == entry_count, "an entry without a slot")
}
