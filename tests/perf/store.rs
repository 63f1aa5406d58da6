//! What operations of the local store cost: `cargo bench --bench store`. Figures are for comparing two
//! versions on one machine, never bounds.
//!
//! Each group works on a store of 64 shards with 200,000 entries of 20-byte keys and 100-byte values;
//! the evicting ones on a store that holds a quarter of the keys that are written.

#![expect(clippy::missing_docs_in_private_items, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;

use chickadee::ring::slot_of;
use chickadee::store::{Policy, Remains, Store, StoreOptions};
use chickadee::types::{BodyRef, ByteSize, RecordRef, Slot, Version, WallMillis};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const ENTRIES: u64 = 200_000;
const VALUE: [u8; 100] = [7; 100];
const NOW: WallMillis = WallMillis(1_000_000);
/// Keys that are warmed together, as the requests of a pipeline are.
const GROUP: usize = 16;

/// A stored key: the database, then the name.
type Key = [u8; 21];

fn key(number: u64) -> Key {
    let mut key = [0; 21];
    key[1..].copy_from_slice(format!("key:{number:016}").as_bytes());
    key
}

fn home(key: &Key) -> Slot {
    slot_of(&key[1..])
}

fn record(key: &Key, clock: u64, expires_at: Option<WallMillis>) -> RecordRef<'_> {
    let version = Version { term: 1, clock, origin: 1 };
    RecordRef { key, version, expires_at, body: BodyRef::String(&VALUE) }
}

fn store(limit: u64) -> Store {
    let limit = ByteSize(limit);
    let policy = Policy::Evict;
    let options = StoreOptions { shards: 64, limit, policy, digest_seed: 1, hash_seed: 2, slot_of };
    let store = Store::new(options);
    for slot in Slot::all() {
        store.lock(slot).header_mut(slot).acting = true;
    }
    store
}

/// Writes as the node does: a little ahead, then room, then the record.
fn write(store: &Store, number: u64, clock: u64, expires_at: Option<WallMillis>) {
    let key = key(number);
    let (slot, record) = (home(&key), record(&key, clock, expires_at));
    let mut shard = store.lock(slot);
    shard.go_ahead(&mut |_| Remains::Nothing);
    let need = shard.room_for(slot, &record);
    let fits = shard.make_room(need, &mut |_| Remains::Nothing);
    assert!(fits, "a small entry finds room");
    shard.put(slot, record);
}

fn filled() -> Store {
    let store = store(1 << 30);
    (0..ENTRIES).for_each(|number| write(&store, number, number + 1, None));
    store
}

/// Numbers below `below` in an order that no cache foresees (Weyl sequence).
fn scattered(below: u64) -> impl Iterator<Item = u64> {
    (1u64..).map(move |step| step.wrapping_mul(0x9e37_79b9_7f4a_7c15) % below)
}

fn reads(criterion: &mut Criterion) {
    let store = filled();
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(1));
    let mut numbers = scattered(ENTRIES);
    group.bench_function("hit", |bench| {
        bench.iter(|| {
            let key = key(numbers.next().unwrap());
            let slot = home(&key);
            black_box(store.lock(slot).get(slot, &key, NOW).map(|entry| entry.value().is_some()));
        });
    });
    group.bench_function("miss", |bench| {
        bench.iter(|| {
            let key = key(ENTRIES + numbers.next().unwrap());
            let slot = home(&key);
            black_box(store.lock(slot).get(slot, &key, NOW).is_some());
        });
    });
    group.throughput(Throughput::Elements(GROUP as u64));
    group.bench_function("hits of a warmed group", |bench| {
        bench.iter(|| {
            let keys: [Key; GROUP] = std::array::from_fn(|_| key(numbers.next().unwrap()));
            store.warm(keys.iter().map(|key| (home(key), key)));
            for key in &keys {
                let slot = home(key);
                black_box(
                    store.lock(slot).get(slot, key, NOW).map(|entry| entry.value().is_some()),
                );
            }
        });
    });
    group.finish();
}

fn writes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("write");
    group.throughput(Throughput::Elements(1));
    let store_of_all = filled();
    let mut clock = ENTRIES;
    let mut numbers = scattered(ENTRIES);
    group.bench_function("over a value of the same length", |bench| {
        bench.iter(|| {
            clock += 1;
            write(&store_of_all, numbers.next().unwrap(), clock, None);
        });
    });
    let full = store(ENTRIES / 4 * 150);
    let mut number = 0;
    group.bench_function("of a new key that evicts another", |bench| {
        bench.iter(|| {
            number += 1;
            write(&full, number, number, None);
        });
    });
    group.finish();
}

fn chores(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("chore");
    group.sample_size(10);
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function("sweep of a store that has expired", |bench| {
        let expired = || {
            let store = store(1 << 30);
            (0..ENTRIES).for_each(|number| write(&store, number, number + 1, Some(NOW)));
            store
        };
        let sweep = |store: Store| {
            let later = WallMillis(NOW.0 + 1_000);
            for index in 0..store.shards() {
                let sweep_some =
                    || store.lock_shard(index).sweep(later, 512, &mut |_| Remains::Nothing);
                while sweep_some() > 0 {}
            }
            assert_eq!(store.totals(later).keys, 0, "all are gone");
        };
        bench.iter_batched(expired, sweep, BatchSize::PerIteration);
    });
    let store = filled();
    group.bench_function("walk over all slots", |bench| {
        bench.iter(|| {
            let mut entries = 0u64;
            for slot in Slot::all() {
                let mut from = Some(0);
                while let Some(hash) = from {
                    from = store.lock(slot).scan(slot, hash, 256, &mut |_, _| entries += 1);
                }
            }
            assert_eq!(entries, ENTRIES);
        });
    });
    group.finish();
}

criterion_group!(benches, reads, writes, chores);
criterion_main!(benches);
