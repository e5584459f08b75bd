//! Tests of merging: what is in a run afterwards, what is held meanwhile, and what a step spends.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::lsm::WORK_LUMP_MAX;
use crate::lsm::chunk::Chunk;
use crate::lsm::chunk::build::ChunkBuilder;
use crate::lsm::footprint::Footprint;
use crate::lsm::hash::KeyHasher;
use crate::lsm::immutable_layer::ImmutableLayer;
use crate::lsm::log::record::{Entry, Value};
use crate::lsm::merge::job::{CHUNK_MIN_BYTES, GROUP_MAX_CHUNKS, MergeJob, Tombstones};
use crate::lsm::reclaim::FreeQueue;
use crate::lsm::run::{ChunkPosition, Run};
use crate::lsm::work::Work;

/// Keys, and how long their values are; none: deleted.
type Model = BTreeMap<Vec<u8>, Option<usize>>;

/// The same with versions.
type Versioned = BTreeMap<Vec<u8>, (Option<usize>, u64)>;

fn expires(key: &[u8], version: u64) -> bool {
    key.ends_with(if version == 1 { b"77" } else { b"33" })
}

/// A run of these entries, in chunks that are full or end anywhere. Values are of bytes that tell
/// the version.
fn run(rng: &mut fastrand::Rng, entries: &Model, version: u64, ends_anywhere: bool) -> Run {
    let hasher = KeyHasher::new(1);
    let (mut run, mut at, value) = (
        Run::default(),
        ChunkPosition::default(),
        vec![version.to_le_bytes()[0]; 20_000],
    );
    let mut builder = ChunkBuilder::new(&hasher, 2);
    for (key, value_bytes) in entries {
        let value = value_bytes.map_or(Value::Tombstone, |value_bytes| {
            Value::Inline(&value[..value_bytes])
        });
        // Some expire, one day.
        let expires_at_ms = expires(key, version).then_some(1 << 40);
        let entry = Entry {
            key,
            version,
            expires_at_ms,
            value,
        };
        if !builder.has_room_for(&entry)
            || (ends_anywhere && !builder.is_empty() && rng.u8(..100) == 0)
        {
            at = run.insert(at, Arc::new(builder.finish()));
        }
        builder.add(&entry, hasher.hash(key));
    }
    if !builder.is_empty() {
        run.insert(at, Arc::new(builder.finish()));
    }
    run
}

/// What is in a run, with versions, and how many of its chunks are small. Each is as a stranger's
/// is checked to be.
fn content(run: &Run) -> (Versioned, usize) {
    let (mut at, mut all, mut small_count) = (ChunkPosition::default(), Versioned::new(), 0);
    while let Some(chunk) = run.chunk(at) {
        Chunk::adopt(chunk.bytes(), Vec::new(), &KeyHasher::new(1), 2).expect("a valid chunk");
        let mut offset = chunk.begin();
        while offset < chunk.end() {
            let (entry, next_offset) = chunk.entry_at(offset);
            assert_eq!(
                entry.expires_at_ms.is_some(),
                expires(entry.key, entry.version),
                "what expires"
            );
            assert!(
                all.keys()
                    .next_back()
                    .is_none_or(|last: &Vec<u8>| &last[..] < entry.key),
                "keys ascend"
            );
            let value_bytes = match entry.value {
                Value::Inline(value) => {
                    assert!(
                        value.iter().all(|byte| u64::from(*byte) == entry.version),
                        "a value of that version"
                    );
                    Some(value.len())
                }
                _ => None,
            };
            all.insert(entry.key.to_vec(), (value_bytes, entry.version));
            offset = next_offset;
        }
        small_count += usize::from(chunk.bytes().len() < CHUNK_MIN_BYTES);
        at = run.next(at);
    }
    (all, small_count)
}

/// Merges a run into another a little at a time; returns the most chunks that were held meanwhile.
fn merge(rng: &mut fastrand::Rng, source: Run, target: &mut Run) -> usize {
    let layers = vec![ImmutableLayer::Run(source)];
    let mut job = MergeJob::new(layers, KeyHasher::new(1), 2, Tombstones::Drop);
    let mut free_queue = FreeQueue::new(Footprint::default());
    let mut held_max = 0;
    loop {
        let budget = rng.usize(1..50_000);
        let mut work = Work::new(budget);
        let is_done = job.step(target, 0, &mut work, &mut free_queue);
        assert!(
            work.spent() <= budget + WORK_LUMP_MAX,
            "a step of {budget} spent {}",
            work.spent()
        );
        if is_done {
            break;
        }
        held_max = held_max.max(job.held_count());
    }
    held_max
}

fn keys(count: usize, value_bytes: usize) -> impl Iterator<Item = (Vec<u8>, Option<usize>)> {
    (0..count).map(move |number| (format!("key {number:09}").into_bytes(), Some(value_bytes)))
}

/// Runs of any shape against a map.
#[test]
fn what_is_held_is_bounded_whatever_is_merged() {
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let value_bytes = [0, 30, 1_000, 15_000][rng.usize(..4)];
        let of_target = keys(4_000_000 / (50 + value_bytes), value_bytes);
        let model: Model = of_target.filter(|_| rng.u8(..4) > 0).collect();
        let is_ragged = rng.bool();
        let mut target = run(&mut rng, &model, 1, is_ragged);
        // Some keys all over, or many at one place; new ones or others' newer values.
        let first = rng.usize(..1_000);
        let of_source: Model = match rng.u8(..4) {
            0 => model
                .keys()
                .filter(|_| rng.u8(..40) == 0)
                .map(|key| (key.clone(), Some(value_bytes)))
                .collect(),
            // Now and then one of another length, or none.
            1 => model
                .keys()
                .filter_map(|key| {
                    let chance = rng.u16(..10_000);
                    let other_bytes = [Some(value_bytes + 1), None][usize::from(chance % 2)];
                    (chance < 1_000).then(|| {
                        (
                            key.clone(),
                            if chance < 5 {
                                other_bytes
                            } else {
                                Some(value_bytes)
                            },
                        )
                    })
                })
                .collect(),
            2 => keys(first + 2_000, value_bytes).skip(first).collect(),
            _ => (0..20_000)
                .map(|number| (format!("key {first:09} {number:09}").into_bytes(), Some(30)))
                .collect(),
        };
        let source = run(&mut rng, &of_source, 2, false);
        let held_max = merge(&mut rng, source, &mut target);
        let mut expected: Versioned = model
            .into_iter()
            .map(|(key, bytes)| (key, (bytes, 1)))
            .collect();
        expected.extend(of_source.into_iter().map(|(key, bytes)| (key, (bytes, 2))));
        expected.retain(|_, (bytes, _)| bytes.is_some());
        assert!(content(&target).0 == expected, "seed {seed}");
        // What one chunk turns into comes on top.
        assert!(
            held_max <= GROUP_MAX_CHUNKS + 2,
            "seed {seed}: {held_max} chunks"
        );
    }
}

/// Behind a small chunk, full ones that nothing is added to could each leave a rest that is as
/// small.
#[test]
fn a_small_chunk_moves_its_neighbour_and_no_more() {
    let mut rng = fastrand::Rng::with_seed(1);
    let all: Model = keys(100_000, 30).collect();
    let mut target = run(&mut rng, &all, 1, false);
    let (small, next) = target.remove(ChunkPosition::default());
    let few: Model = keys(100, 30).collect();
    let small_run = run(&mut rng, &few, 1, false);
    let at = target.insert(
        next,
        Arc::clone(
            small_run
                .chunk(ChunkPosition::default())
                .expect("one chunk"),
        ),
    );
    assert_eq!(
        target
            .chunk(at)
            .map(|chunk| chunk.first_key() > small.first_key()),
        Some(true)
    );
    // A few keys at the very end, so that everything before could be left as it is.
    let source = run(
        &mut rng,
        &keys(100_000, 30).skip(99_990).collect(),
        2,
        false,
    );
    let held_max = merge(&mut rng, source, &mut target);
    assert!(held_max <= 4, "{held_max} chunks");
    assert!(content(&target).1 <= 1, "small chunks are left");
}

/// A chunk of thousands of entries, in the middle of which comes more than a group may hold.
#[test]
fn what_is_left_of_a_chunk_is_moved_in_steps() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut all: Model = (0..60_000_u32)
        .map(|number| (number.to_be_bytes()[1..].to_vec(), Some(0)))
        .collect();
    let mut target = run(&mut rng, &all, 1, false);
    let large: Model = (0..140)
        .map(|number| (vec![0, 65, 60, number], Some(16_000)))
        .collect();
    let source = run(&mut rng, &large, 2, false);
    merge(&mut rng, source, &mut target);
    all.extend(large);
    assert!(
        content(&target)
            .0
            .into_iter()
            .map(|(key, (bytes, _))| (key, bytes))
            .eq(all)
    );
}
