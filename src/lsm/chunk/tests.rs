//! Tests of the chunk: golden bytes, and every entry found both ways.

use std::sync::Arc;

use crate::lsm::chunk::Chunk;
use crate::lsm::chunk::build::ChunkBuilder;
use crate::lsm::chunk::layout::CHUNK_MAX_BYTES;
use crate::lsm::hash::KeyHasher;
use crate::lsm::log::record::{Entry, INLINE_VALUE_MAX_BYTES, KEY_MAX_BYTES, Value};

fn entry<'a>(key: &'a [u8], version: u64, value: Value<'a>) -> Entry<'a> {
    Entry {
        key,
        version,
        expires_at_ms: None,
        value,
    }
}

#[test]
fn golden_bytes() {
    let hasher = KeyHasher::new(0x0102_0304_0506_0708);
    let mut builder = ChunkBuilder::new(&hasher, 300);
    let blob = Arc::new(vec![1; INLINE_VALUE_MAX_BYTES + 1]);
    let entries = [
        entry(b"a", 1, Value::Inline(b"xyz")),
        entry(b"bb", 300, Value::Tombstone),
        Entry {
            key: b"c",
            version: 2,
            expires_at_ms: Some(5),
            value: Value::Large(&blob),
        },
    ];
    for entry in &entries {
        builder.add(entry, hasher.hash(entry.key));
    }
    let chunk = builder.finish();
    let bytes = chunk.bytes();
    assert_eq!(crc32c::crc32c(&bytes[4..]).to_le_bytes(), bytes[..4]);
    let expected_head = [
        192, 0, 0, 0, // len
        8, 7, 6, 5, 4, 3, 2, 1, // hash_seed
        5, 0, 0, 0, 0, 0, 0, 0, // first_expiry
        3, 0, 1, 0, 1, 0, // entries, tombstones, blobs
        77, 0, 1, 0, 2, 2, // restarts_at, bucket_count, version_width, format
        0, 0, 0, 0, // zero
        1, 0, 3, 0, 1, 0, b'a', b'x', b'y', b'z', // "a"
        2, 0x20, 0, 0, 44, 1, b'b', b'b', // "bb"
        1, 0xc0, 4, 0, 2, 0, 5, 0, 0, 0, 0, 0, 0, 0, b'c', 0, 0, 0, 0, // "c"
        40, 0, // restarts
    ];
    assert_eq!(bytes[4..4 + expected_head.len()], expected_head);
    let (zeros, bucket) = bytes[4 + expected_head.len()..].split_at(128 - 79);
    assert_eq!(zeros, [0; 128 - 79]);
    assert_eq!(bucket.len(), 64);
    let tags: Vec<u8> = entries
        .iter()
        .map(|entry| hasher.hash(entry.key).to_le_bytes()[0].max(1))
        .collect();
    assert_eq!(bucket[..4], [tags[0], tags[1], tags[2], 0]);
    assert_eq!(bucket[21..29], [40, 0, 50, 0, 58, 0, 0, 0]);
    assert_eq!(bucket[63], 0);
}

/// Fills one chunk with keys made by `key_of` and looks everything up.
fn fill_and_check(value_len: usize, key_of: impl Fn(usize) -> Vec<u8>) {
    let hasher = KeyHasher::new(7);
    let mut builder = ChunkBuilder::new(&hasher, u64::from(u32::MAX));
    let value = vec![b'v'; value_len];
    let mut keys = Vec::new();
    loop {
        let key = key_of(keys.len());
        let next = entry(&key, keys.len() as u64, Value::Inline(&value));
        if !builder.has_room_for(&next) {
            break;
        }
        builder.add(&next, hasher.hash(&key));
        keys.push(key);
    }
    let promised_len = builder.len();
    let chunk = builder.finish();
    assert_eq!(chunk.bytes().len(), promised_len);
    assert!(promised_len <= CHUNK_MAX_BYTES);
    assert!(
        builder.is_empty()
            && builder.has_room_for(&entry(&[0; KEY_MAX_BYTES], 1, Value::Inline(&value)))
    );
    let mut offset = chunk.begin();
    for (index, key) in keys.iter().enumerate() {
        let expected = entry(key, index as u64, Value::Inline(&value));
        let (found, next_offset) = chunk.entry_at(offset);
        assert_eq!(found, expected);
        assert_eq!(chunk.get(hasher.hash(key), key), Some(expected));
        assert_eq!(chunk.seek(key), offset);
        let mut behind = key.clone();
        behind.push(0);
        assert_eq!(chunk.seek(&behind), next_offset);
        assert_eq!(chunk.get(hasher.hash(&behind), &behind), None);
        offset = next_offset;
    }
    assert_eq!(offset, chunk.end());
    assert_eq!(chunk.seek(b""), chunk.begin());
    assert_eq!(chunk.entry_count(), keys.len());
}

#[test]
fn every_entry_is_found() {
    fill_and_check(32, |i| format!("key:{i:012}").into_bytes());
    fill_and_check(0, |i| (i as u64).to_be_bytes()[5..].to_vec());
    fill_and_check(INLINE_VALUE_MAX_BYTES, |i| {
        let mut key = vec![b'k'; KEY_MAX_BYTES - 1];
        key.push(u8::try_from(i).expect("few"));
        key
    });
}

/// Whatever is changed in a chunk, with a checksum that is right all the same: it is refused, or it
/// can be read through.
#[test]
fn adopted_chunks_never_panic() {
    let hasher = KeyHasher::new(7);
    let mut rng = fastrand::Rng::with_seed(3);
    let blob = Arc::new(vec![1; INLINE_VALUE_MAX_BYTES + 1]);
    let mut builder = ChunkBuilder::new(&hasher, 70_000);
    for number in 0..40_u64 {
        let key = format!("key {number:04}");
        let value = match number % 5 {
            0 => Value::Large(&blob),
            1 => Value::Tombstone,
            _ => Value::Inline(b"some value"),
        };
        let expires_at_ms = (number % 3 == 0).then_some(number);
        let entry = Entry {
            key: key.as_bytes(),
            version: 1 + number,
            expires_at_ms,
            value,
        };
        builder.add(&entry, hasher.hash(key.as_bytes()));
    }
    let sound = builder.finish();
    let adopt = |bytes: Vec<u8>| Chunk::adopt(&bytes, sound.blobs().to_vec(), &hasher, 40);
    let (again, last_entry) = adopt(sound.bytes().to_vec()).expect("a sound chunk");
    assert_eq!(again.entry_at(last_entry).0.key, b"key 0039");
    assert!(adopt(sound.bytes()[..100].to_vec()).is_err());
    let mut accepted_count = 0;
    for _ in 0..60_000 {
        let mut bytes = sound.bytes().to_vec();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(4..bytes.len());
            bytes[at] = if rng.bool() {
                rng.u8(..)
            } else {
                bytes[at] ^ (1 << rng.u8(..8))
            };
        }
        let checksum = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        let Ok((chunk, _)) = adopt(bytes) else {
            continue;
        };
        accepted_count += 1;
        let mut at = chunk.begin();
        while at < chunk.end() {
            let (entry, next) = chunk.entry_at(at);
            let _ = (
                chunk.get(hasher.hash(entry.key), entry.key),
                chunk.seek(entry.key),
            );
            at = next;
        }
    }
    assert!(
        accepted_count > 1000,
        "changed values and tags are let through: {accepted_count}"
    );
}
