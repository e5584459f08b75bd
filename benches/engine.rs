//! Engine operations at 10 k, 100 k and 1 M entries of 16-byte keys and 32-byte values, keys at
//! random.
//!
//! `cargo bench --bench engine`; a part of it with `cargo bench --bench engine -- get`.

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use db_node::lsm::{Lsm, NewValue, Options, PREFETCH_KEYS_MAX, ScanState};

const ENTRY_COUNTS: [u32; 3] = [10_000, 100_000, 1_000_000];
const MEMTABLE_BYTES: usize = 4 << 20;
const VALUE: [u8; 32] = [b'v'; 32];
const SLICE: usize = 128 * 1024;

fn key(number: u32) -> [u8; 16] {
    let mut key = *b"key:000000000000";
    let mut rest = number;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
    }
    key
}

fn set(lsm: &mut Lsm, number: u32) {
    lsm.set(&key(number), NewValue::Inline(&VALUE), None);
    let owed = lsm.owed_work();
    if owed > SLICE {
        lsm.maintain(owed);
    }
}

fn settle(lsm: &mut Lsm) {
    while !lsm.is_idle() {
        lsm.maintain(SLICE);
    }
}

/// An engine with all of `count` keys, written in random order, its debt paid.
fn filled(count: u32) -> Lsm {
    let mut lsm = Lsm::new(Options {
        memtable_bytes: MEMTABLE_BYTES,
        hash_seed: 7,
    });
    let mut numbers: Vec<u32> = (0..count).collect();
    fastrand::Rng::with_seed(1).shuffle(&mut numbers);
    for number in numbers {
        set(&mut lsm, number);
    }
    settle(&mut lsm);
    lsm
}

fn bench_get(group: &mut BenchmarkGroup<'_, WallTime>, lsm: &mut Lsm, count: u32) {
    let mut rng = fastrand::Rng::with_seed(2);
    group.throughput(Throughput::Elements(1));
    group.bench_function(BenchmarkId::new("get hit", count), |bencher| {
        bencher.iter(|| black_box(lsm.get(&key(rng.u32(..count)))).is_some());
    });
    group.throughput(Throughput::Elements(PREFETCH_KEYS_MAX as u64));
    group.bench_function(BenchmarkId::new("get hit, prefetched", count), |bencher| {
        bencher.iter(|| {
            let keys: [[u8; 16]; PREFETCH_KEYS_MAX] =
                std::array::from_fn(|_| key(rng.u32(..count)));
            lsm.prefetch(&keys.each_ref().map(|key| &key[..]));
            keys.iter()
                .filter(|key| black_box(lsm.get(&key[..])).is_some())
                .count()
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function(BenchmarkId::new("get miss", count), |bencher| {
        bencher.iter(|| {
            let mut missing = key(rng.u32(..count));
            missing[15] = b'x';
            black_box(lsm.get(&missing)).is_some()
        });
    });
}

fn bench_scan(group: &mut BenchmarkGroup<'_, WallTime>, lsm: &mut Lsm, count: u32) {
    group.throughput(Throughput::Elements(u64::from(count)));
    group.bench_function(BenchmarkId::new("scan all", count), |bencher| {
        bencher.iter(|| {
            let snapshot = lsm.snapshot();
            let mut scan = snapshot.scan(b"");
            let mut found_count = 0;
            loop {
                match scan.step(SLICE).0 {
                    ScanState::Searching => {}
                    ScanState::Found => found_count += u32::from(black_box(scan.entry()).is_some()),
                    ScanState::End => break,
                }
            }
            assert_eq!(found_count, count);
            drop(scan);
            drop(snapshot);
        });
    });
}

/// Writes with the maintenance they owe: what a set costs over its life.
fn bench_overwrite(group: &mut BenchmarkGroup<'_, WallTime>, lsm: &mut Lsm, count: u32) {
    let mut rng = fastrand::Rng::with_seed(3);
    group.throughput(Throughput::Elements(1));
    group.bench_function(
        BenchmarkId::new("overwrite, maintained", count),
        |bencher| {
            bencher.iter(|| set(lsm, rng.u32(..count)));
        },
    );
    settle(lsm);
}

fn bench_reads_and_overwrites(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500))
        .sample_size(20);
    for count in ENTRY_COUNTS {
        let mut lsm = filled(count);
        bench_get(&mut group, &mut lsm, count);
        bench_scan(&mut group, &mut lsm, count);
        bench_overwrite(&mut group, &mut lsm, count);
    }
    group.finish();
}

/// The figures are per entry of `count`. "put": into one memtable. "flush": that memtable sorted,
/// made a run, and the run merged into an empty bottom. "merge": a compaction that rewrites a
/// bottom of `count` entries with the few layers above it.
fn bench_building(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("engine");
    group
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500))
        .sample_size(10);
    for count in ENTRY_COUNTS {
        let mut numbers: Vec<u32> = (0..count).collect();
        fastrand::Rng::with_seed(4).shuffle(&mut numbers);
        let one_memtable = Options {
            memtable_bytes: 1 << 30,
            hash_seed: 7,
        };
        let put_all = |lsm: &mut Lsm| {
            for number in &numbers {
                lsm.set(&key(*number), NewValue::Inline(&VALUE), None);
            }
        };
        group.throughput(Throughput::Elements(u64::from(count)));
        group.bench_function(BenchmarkId::new("put", count), |bencher| {
            bencher.iter_batched(
                || Lsm::new(one_memtable),
                |mut lsm| {
                    put_all(&mut lsm);
                    lsm
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function(BenchmarkId::new("flush", count), |bencher| {
            let frozen = || {
                let mut lsm = Lsm::new(one_memtable);
                put_all(&mut lsm);
                lsm.freeze();
                lsm
            };
            bencher.iter_batched(
                frozen,
                |mut lsm| {
                    settle(&mut lsm);
                    lsm
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function(BenchmarkId::new("merge", count), |bencher| {
            let two_runs = || {
                let mut lsm = filled(count);
                put_all(&mut lsm);
                settle(&mut lsm);
                lsm.compact();
                lsm
            };
            bencher.iter_batched(
                two_runs,
                |mut lsm| {
                    settle(&mut lsm);
                    lsm
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, bench_reads_and_overwrites, bench_building);
criterion_main!(benches);
