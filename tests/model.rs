//! The engine against a model: random operations, freezes, maintenance budgets, and snapshots held
//! across them.
//!
//! `DB_NODE_TEST_SEED=n` repeats one run; `DB_NODE_TEST_RUNS=n` makes it longer.

#[path = "common/seeds.rs"]
mod seeds;

use std::collections::BTreeMap;

use db_node::lsm::{
    ChunkStep, ChunkWalk, Digest, Digester, EngineBuilder, INLINE_VALUE_MAX_BYTES, LargeValue, Lsm,
    NewValue, Options, PREFETCH_KEYS_MAX, ScanState, Snapshot, Stats, WORK_LUMP_MAX,
};

use seeds::{Seed, seeds};

/// What a key should read as: version and value.
type Content = BTreeMap<Vec<u8>, (u64, Vec<u8>)>;

/// What was written and not deleted, and when its time is over, in Unix ms.
#[derive(Clone, Default)]
struct Model {
    keys: BTreeMap<Vec<u8>, (u64, Vec<u8>, u64)>,
    now_ms: u64,
}

impl Model {
    fn get(&self, key: &[u8]) -> Option<(u64, Vec<u8>)> {
        let (version, value, expires_at_ms) = self.keys.get(key)?;
        (*expires_at_ms > self.now_ms).then(|| (*version, value.clone()))
    }

    /// Everything that can be read.
    fn content(&self) -> Content {
        self.keys
            .keys()
            .filter_map(|key| Some((key.clone(), self.get(key)?)))
            .collect()
    }
}

struct Held {
    snapshot: Snapshot,
    content: Content,
}

fn random_key(rng: &mut fastrand::Rng, key_space: u32) -> Vec<u8> {
    let number = rng.u32(..key_space);
    match number % 4 {
        0 => format!("key:{number:08}").into_bytes(),
        // With zeros at the end, more or fewer of them.
        1 if number % 8 == 1 => [
            (number / 64).to_be_bytes().as_slice(),
            &[0; 8][..number as usize / 8 % 8],
        ]
        .concat(),
        1 => number.to_be_bytes().to_vec(),
        2 => vec![b'x'; 1 + (number as usize % 300)],
        _ => format!("a common prefix that is longer than any fence:{number}").into_bytes(),
    }
}

fn random_value(rng: &mut fastrand::Rng) -> Vec<u8> {
    let len = match rng.u8(..100) {
        0 => rng.usize(INLINE_VALUE_MAX_BYTES - 2..INLINE_VALUE_MAX_BYTES + 3),
        1 => 0,
        2..10 => rng.usize(..2000),
        _ => rng.usize(..60),
    };
    vec![rng.u8(..); len]
}

fn set(lsm: &mut Lsm, key: &[u8], value: &[u8], expires_at_ms: Option<u64>) -> u64 {
    if value.len() <= INLINE_VALUE_MAX_BYTES {
        return lsm.set(key, NewValue::Inline(value), expires_at_ms);
    }
    let mut large = LargeValue::new(value.to_vec());
    while !large.step(5000) {}
    lsm.set(key, NewValue::Large(large), expires_at_ms)
}

fn bytes_of(value: db_node::lsm::Value<'_>) -> Vec<u8> {
    match value {
        db_node::lsm::Value::Tombstone => panic!("a tombstone was returned"),
        db_node::lsm::Value::Inline(bytes) => bytes.to_vec(),
        db_node::lsm::Value::Large(blob) => blob.to_vec(),
    }
}

fn check_snapshot(held: &Held, rng: &mut fastrand::Rng, key_space: u32) {
    let start = if rng.bool() {
        Vec::new()
    } else {
        random_key(rng, key_space)
    };
    let mut scan = held.snapshot.scan(&start);
    let mut expected = held.content.range(start..);
    loop {
        let budget = rng.usize(1..100_000);
        let (state, spent) = scan.step(budget);
        assert!(
            spent <= budget + WORK_LUMP_MAX,
            "a scan step of {budget} spent {spent}"
        );
        match state {
            ScanState::Searching => {}
            ScanState::Found => {
                let found = scan.entry().expect("found");
                let found = (found.key.to_vec(), (found.version, bytes_of(found.value)));
                let (key, value) = expected.next().expect("a scan found more than there is");
                assert_eq!(found, (key.clone(), value.clone()));
            }
            ScanState::End => break,
        }
    }
    assert_eq!(expected.next(), None, "a scan ended early");
}

fn maintain(lsm: &mut Lsm, budget: usize) {
    let spent = lsm.maintain(budget);
    assert!(
        spent <= budget + WORK_LUMP_MAX,
        "a slice of {budget} spent {spent}"
    );
}

/// One random history. The weights of operations are drawn too, so that runs differ in kind and not
/// only in detail.
fn run(seed: &Seed) {
    let mut rng = seed.rng();
    let key_space = [50, 2_000, 100_000][rng.usize(..3)];
    let memtable_bytes = rng.usize(1_000..300_000);
    let mut lsm = Lsm::new(Options {
        memtable_bytes,
        hash_seed: rng.u64(..),
    });
    let delete_weight = rng.u32(1..40);
    let maintain_weight = rng.u32(1..60);
    let budget_max = [100, 20_000, 2_000_000][rng.usize(..3)];
    let mut model = Model {
        keys: BTreeMap::new(),
        now_ms: 1_000,
    };
    lsm.set_time_ms(model.now_ms);
    // Of a hundred writes so many expire, most of them soon.
    let ttl_weight = [0, 5, 60, 100][rng.usize(..4)];
    let ttl_max_ms = rng.u64(1..30_000);
    let mut version = 0;
    let mut held: Vec<Held> = Vec::new();
    // Keys of the next operations, which the engine may be told of beforehand.
    let (prefetches, are_all_read) = (rng.bool(), rng.bool());
    let mut next_keys: Vec<Vec<u8>> = Vec::new();
    for _ in 0..rng.usize(2_000..12_000) {
        if next_keys.is_empty() {
            next_keys = (0..rng.usize(1..2 * PREFETCH_KEYS_MAX))
                .map(|_| random_key(&mut rng, key_space))
                .collect();
            let keys: Vec<&[u8]> = next_keys.iter().map(Vec::as_slice).collect();
            if prefetches && (are_all_read || rng.bool()) {
                lsm.prefetch(&keys);
            } else if prefetches {
                lsm.prefetch_for_writes(&keys);
            }
        }
        let key = next_keys.swap_remove(rng.usize(..next_keys.len()));
        match rng.u32(..200) {
            0 => {
                lsm.freeze();
            }
            1 if rng.u8(..10) == 0 => lsm.compact(),
            1 if rng.u8(..3) == 0 => {
                model.now_ms += rng.u64(..10_000);
                lsm.set_time_ms(model.now_ms);
            }
            1 if rng.u8(..5) == 0 => {
                let mut other = reborn(&mut lsm, &mut rng, memtable_bytes);
                other.set_time_ms(model.now_ms);
                assert_eq!(
                    digest(&mut other, &mut rng),
                    digest(&mut lsm, &mut rng),
                    "equal content, equal digest"
                );
                lsm = other;
            }
            2 if held.len() < 4 => {
                held.push(Held {
                    snapshot: lsm.snapshot(),
                    content: model.content(),
                });
                assert_eq!(
                    held.last().expect("just pushed").snapshot.version(),
                    version
                );
            }
            3 if !held.is_empty() => {
                let index = rng.usize(..held.len());
                check_snapshot(&held[index], &mut rng, key_space);
                if rng.bool() {
                    drop(held.swap_remove(index).snapshot);
                }
            }
            n if n < 4 + maintain_weight => maintain(&mut lsm, rng.usize(1..budget_max)),
            n if n < 4 + maintain_weight + delete_weight => {
                version += 1;
                assert_eq!(lsm.delete(&key), version);
                model.keys.remove(&key);
            }
            n if n < 130 => {
                let value = random_value(&mut rng);
                version += 1;
                let expires_at_ms =
                    (rng.u32(..100) < ttl_weight).then(|| model.now_ms + rng.u64(..ttl_max_ms));
                assert_eq!(set(&mut lsm, &key, &value, expires_at_ms), version);
                model
                    .keys
                    .insert(key, (version, value, expires_at_ms.unwrap_or(u64::MAX)));
            }
            _ => {
                let found = lsm
                    .get(&key)
                    .map(|entry| (entry.version, bytes_of(entry.value)));
                assert_eq!(found, model.get(&key), "get");
            }
        }
    }
    finish(lsm, &model, held, &mut rng, key_space);
}

/// Pays all debt and checks that everything is still there, and nothing else.
fn finish(mut lsm: Lsm, model: &Model, held: Vec<Held>, rng: &mut fastrand::Rng, key_space: u32) {
    let compacts = rng.bool();
    if compacts {
        lsm.compact();
    }
    while !lsm.is_idle() {
        maintain(&mut lsm, 50_000);
    }
    for one in held {
        check_snapshot(&one, rng, key_space);
        drop(one.snapshot);
    }
    while !lsm.is_idle() {
        maintain(&mut lsm, 50_000);
    }
    let content = model.content();
    for (key, (version, value)) in &content {
        let entry = lsm.get(key).expect("a key was lost");
        assert_eq!((entry.version, &bytes_of(entry.value)), (*version, value));
    }
    let stats = lsm.stats();
    assert_eq!(lsm.snapshot_count(), 0);
    assert_eq!(stats.debt, 0, "debt of an idle engine");
    // Where something expires, a little of it may stay until its chunk is rewritten.
    if compacts
        && model
            .keys
            .values()
            .all(|(_, _, expires_at_ms)| *expires_at_ms == u64::MAX)
    {
        let expected = (usize::from(!content.is_empty()), content.len());
        assert_eq!(
            counts(&stats),
            expected,
            "one layer without tombstones and overwritten entries"
        );
        assert_eq!(
            stats.wal_segment_count, 0,
            "log segments that nothing needs"
        );
    }
    check_snapshot(
        &Held {
            snapshot: lsm.snapshot(),
            content,
        },
        rng,
        key_space,
    );
}

/// Immutable layers and their entries, in all levels.
fn counts(stats: &Stats) -> (usize, usize) {
    stats
        .levels
        .iter()
        .fold((0, 0), |(layers, entries), level| {
            (layers + level.layer_count, entries + level.entry_count)
        })
}

/// The digest of all content, and of that alone: a change changes it.
fn digest(lsm: &mut Lsm, rng: &mut fastrand::Rng) -> Digest {
    let mut digester = Digester::new(lsm.snapshot());
    loop {
        if let Some(digest) = digester.step(rng.usize(1..200_000)) {
            return digest;
        }
    }
}

/// An engine made of another one's chunks, as recovery makes one: it must behave as the other would
/// have.
fn reborn(lsm: &mut Lsm, rng: &mut fastrand::Rng, memtable_bytes: usize) -> Lsm {
    let snapshot = lsm.snapshot();
    let mut adoption = EngineBuilder::new(snapshot.hasher, snapshot.position);
    let mut walk = ChunkWalk::new(snapshot);
    loop {
        let budget = rng.usize(1..300_000);
        let (step, spent) = walk.step(budget);
        assert!(
            spent <= budget + WORK_LUMP_MAX,
            "a step of {budget} spent {spent}"
        );
        match step {
            ChunkStep::Working => {}
            ChunkStep::Layer(level) => adoption.begin_layer(level).expect("a layer"),
            ChunkStep::Chunk(chunk) => {
                adoption
                    .add_chunk(chunk.bytes(), chunk.blobs().to_vec())
                    .expect("a sound chunk");
            }
            ChunkStep::End => {
                return adoption.finish(Options {
                    memtable_bytes,
                    hash_seed: 0,
                });
            }
        }
    }
}

#[test]
fn a_digest_is_that_of_the_content() {
    let rng = &mut fastrand::Rng::with_seed(1);
    let options = Options {
        memtable_bytes: 100_000,
        hash_seed: 1,
    };
    let mut lsm = Lsm::new(options);
    let mut seen = vec![digest(&mut lsm, rng)];
    assert_eq!((seen[0].version, seen[0].key_count), (0, 0));
    let writes: [(&[u8], Vec<u8>); 5] = [
        (b"a", vec![1]),
        (b"b", vec![1]),
        (b"a", vec![2]),
        (b"large", vec![7; INLINE_VALUE_MAX_BYTES + 1]),
        (b"large", vec![8; INLINE_VALUE_MAX_BYTES + 1]),
    ];
    for (key, value) in writes {
        set(&mut lsm, key, &value, None);
        let next = digest(&mut lsm, rng);
        assert!(
            seen.iter().all(|other| other.digest != next.digest),
            "{key:?} did not change it"
        );
        seen.push(next);
    }
    let before = digest(&mut lsm, rng);
    lsm.compact();
    while !lsm.is_idle() {
        lsm.maintain(100_000);
    }
    assert_eq!(digest(&mut lsm, rng), before, "layers do not count");
    lsm.delete(b"b");
    assert_eq!(digest(&mut lsm, rng).key_count, 2);
}

#[test]
fn engine_behaves_as_a_sorted_map() {
    for seed in seeds(150) {
        run(&seed);
    }
}

/// Goes through the time up to `until_ms`, doing what is due and no more.
fn let_pass(lsm: &mut Lsm, until_ms: u64) {
    while let Some(at_ms) = lsm.sweep_at_ms().filter(|at_ms| *at_ms <= until_ms) {
        lsm.set_time_ms(at_ms.max(lsm.time_ms()));
        while !lsm.is_idle() {
            assert!(
                lsm.owed_work() > 0,
                "nobody would pay for the sweep while requests are answered"
            );
            maintain(lsm, 30_000);
        }
    }
    lsm.set_time_ms(until_ms);
}

/// Without a write, a read or a snapshot, what has expired goes; what has not stays; and a sweep
/// that finds little moves nothing.
#[test]
fn memory_of_what_has_expired_comes_back() {
    const KEYS: u32 = 60_000;
    for keeps_every in [2, 40, u32::MAX] {
        let mut lsm = Lsm::new(Options {
            memtable_bytes: 256 * 1024,
            hash_seed: 1,
        });
        let mut rng = fastrand::Rng::with_seed(3);
        let is_kept = |number: u32| keeps_every != u32::MAX && number.is_multiple_of(keeps_every);
        lsm.set_time_ms(1_000_000);
        for number in 0..KEYS {
            let expires_at_ms = if is_kept(number) {
                None
            } else {
                Some(1_010_000 + rng.u64(..1_000))
            };
            let value = if number % 1_000 == 7 {
                vec![1; INLINE_VALUE_MAX_BYTES + 1]
            } else {
                vec![1; 32]
            };
            set(
                &mut lsm,
                format!("key:{number:012}").as_bytes(),
                &value,
                expires_at_ms,
            );
            if lsm.owed_work() > 0 {
                maintain(&mut lsm, 10_000);
            }
        }
        while !lsm.is_idle() {
            maintain(&mut lsm, 30_000);
        }
        let full_bytes = lsm.data_bytes();
        let_pass(&mut lsm, 1_009_000);
        assert!(
            lsm.data_bytes() * 10 > full_bytes * 9,
            "something went before its time"
        );
        let_pass(&mut lsm, 1_030_000);
        let kept_count = (0..KEYS).filter(|number| is_kept(*number)).count();
        let live_count = (0..KEYS)
            .filter(|number| lsm.get(format!("key:{number:012}").as_bytes()).is_some())
            .count();
        assert_eq!(live_count, kept_count);
        let (_, entry_count) = counts(&lsm.stats());
        // An eighth of a chunk may be what has expired, and tombstones wait for their merge.
        assert!(
            entry_count <= kept_count * 5 / 4,
            "{entry_count} entries for {kept_count} keys, every {keeps_every}."
        );
        if kept_count == 0 {
            assert_eq!(
                (lsm.data_bytes(), lsm.sweep_at_ms()),
                (0, None),
                "all memory, and nothing to wake up for"
            );
        }
    }
}

/// Writers that pay what they owe keep the debt bounded: it does not grow from pass to pass.
#[test]
fn debt_is_bounded_when_writes_pay_what_they_owe() {
    let mut lsm = Lsm::new(Options {
        memtable_bytes: 64 * 1024,
        hash_seed: 1,
    });
    let mut rng = fastrand::Rng::with_seed(5);
    let mut highest_debt = Vec::new();
    let mut highest_level_count = 0;
    for _pass in 0..6 {
        let mut highest = 0;
        for _ in 0..100_000 {
            let key = format!("key:{:012}", rng.u32(..100_000));
            lsm.set(key.as_bytes(), NewValue::Inline(&[b'v'; 32]), None);
            let owed = lsm.owed_work();
            if owed > 0 {
                maintain(&mut lsm, owed.min(10_000));
            }
            highest = highest.max(lsm.stats().debt);
        }
        let stats = lsm.stats();
        highest_debt.push(highest);
        highest_level_count = highest_level_count.max(stats.levels.len());
        let (layer_count, _) = counts(&stats);
        assert!(layer_count <= 16, "{layer_count} layers: {stats:?}");
    }
    assert!(
        highest_level_count >= 3,
        "only {highest_level_count} levels"
    );
    let (first, last) = (highest_debt[1], highest_debt[5]);
    assert!(last <= first + first / 2, "debt grows: {highest_debt:?}");
}

/// What is written while there is nothing to do is not paid for later, all at once.
#[test]
fn nothing_is_owed_for_times_when_nothing_was_due() {
    let mut lsm = Lsm::new(Options {
        memtable_bytes: 1 << 20,
        hash_seed: 1,
    });
    let mut freeze_count = 0;
    for number in 0..200_000_u32 {
        let (owed_before, incurred_before) = (lsm.owed_work(), lsm.incurred_work());
        lsm.set(
            format!("key:{number:012}").as_bytes(),
            NewValue::Inline(&[b'v'; 32]),
            None,
        );
        let incurred =
            usize::try_from(lsm.incurred_work() - incurred_before).expect("the work of one write");
        assert!(
            lsm.owed_work() <= owed_before + incurred,
            "write {number} owes for others: {}",
            lsm.owed_work()
        );
        freeze_count += usize::from(owed_before == 0 && lsm.owed_work() > 0);
        if number % 64 == 0 {
            maintain(&mut lsm, 300_000);
        }
    }
    assert!(
        freeze_count > 3,
        "{freeze_count} times something became due"
    );
}

/// The work that slices report is what they do: seen from outside, by the entries that change place
/// in one slice.
#[test]
fn a_slice_moves_no_more_than_its_budget_pays_for() {
    const BUDGET: usize = 20_000;
    // What the budget pays for at 64 units an entry, and the entries of a chunk or two that earlier
    // slices built.
    const MOVED_MAX: usize = BUDGET / 64 + 2 * 1_300;
    let mut lsm = Lsm::new(Options {
        memtable_bytes: 4 << 20,
        hash_seed: 1,
    });
    let mut slice_count = 0;
    for pass in 0..3 {
        for number in 0..50_000_u32 {
            let key = format!("key:{:012}", number.wrapping_mul(2_654_435_761) % 1_000_000);
            lsm.set(key.as_bytes(), NewValue::Inline(&[pass; 32]), None);
        }
        lsm.compact();
        while !lsm.is_idle() {
            let entries_of = |lsm: &Lsm| -> Vec<usize> {
                lsm.stats()
                    .levels
                    .iter()
                    .map(|level| level.entry_count)
                    .collect()
            };
            let before = entries_of(&lsm);
            maintain(&mut lsm, BUDGET);
            slice_count += 1;
            let after = entries_of(&lsm);
            let grown = after.iter().zip(before.iter().chain(std::iter::repeat(&0)));
            let moved = grown
                .map(|(after, before)| after.saturating_sub(*before))
                .max()
                .unwrap_or(0);
            let is_relabelled = after.len() != before.len();
            assert!(
                moved <= MOVED_MAX || is_relabelled,
                "one slice moved {moved} entries: {before:?} to {after:?}"
            );
        }
    }
    assert!(
        slice_count > 1_000,
        "only {slice_count} slices for 300,000 merged entries"
    );
}
