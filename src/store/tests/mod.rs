//! The store against a model, the laws of merging, and the budget.

mod policy;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::pages::Queue;
use super::table::Keys;
use super::*;
use crate::types::{Body, BodyRef, Key, Record, RecordRef, Version, WallMillis};

fn store(shards: usize, limit: u64, policy: Policy) -> Store {
    let limit = ByteSize(limit);
    let options =
        StoreOptions { shards, limit, policy, digest_seed: 11, hash_seed: 12, slot_of: home };
    let store = Store::new(options);
    assert_eq!(store.shards(), shards);
    for slot in Slot::all() {
        store.lock(slot).header_mut(slot).acting = true;
    }
    store
}

/// Keys of tests say their slot: `{slot}…`. Others are at home in slot 77.
fn home(name: &[u8]) -> Slot {
    let number = name.strip_prefix(b"{").and_then(|rest| rest.split(|byte| *byte == b'}').next());
    let number = number.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    number.and_then(Slot::new).unwrap_or_else(|| slot(77))
}

/// A key of database 0 in a slot.
fn key_in(slot: Slot, name: u64) -> Key {
    key(0, &format!("{{{}}}{name}", slot.get()))
}

fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

fn version(clock: u64) -> Version {
    Version { term: 1, clock, origin: 1 }
}

fn key(db: u8, name: &str) -> Key {
    Key::new(Db::new(db).unwrap(), name.as_bytes())
}

fn value(key: &Key, version: Version, expires_at: Option<u64>) -> Record {
    // At one version there is one value, as where one node stamps it.
    let byte = u8::try_from(version.clock % 251).unwrap();
    let length = usize::try_from(version.clock % 50).unwrap();
    Record {
        key: key.clone(),
        version,
        expires_at: expires_at.map(WallMillis),
        body: Body::String(vec![byte; length].into()),
    }
}

fn tombstone(key: &Key, version: Version) -> Record {
    Record { key: key.clone(), version, expires_at: None, body: Body::Tombstone }
}

fn sized(key: &Key, clock: u64, length: usize) -> Record {
    Record {
        key: key.clone(),
        version: version(clock),
        expires_at: None,
        body: Body::String(vec![7; length].into()),
    }
}

fn dump(shard: &Shard, slot: Slot) -> Vec<Record> {
    let mut records = Vec::new();
    let mut from = Some(0);
    while let Some(hash) = from {
        from = shard.scan(slot, hash, 100, &mut |_, entry| {
            records.push(entry.record().to_record().unwrap());
        });
    }
    records.sort_by(|a, b| a.key.cmp(&b.key));
    records
}

/// Recounts every sum of a slot and the bytes of its shard.
fn check(store: &Store, of: Slot) {
    let mut shard = store.lock(of);
    let records = dump(&shard, of);
    let header = shard.header(of);
    let is_value = |record: &&Record| record.body != Body::Tombstone;
    assert_eq!(header.keys() as usize, records.iter().filter(is_value).count());
    assert_eq!(header.tombstones() as usize, records.len() - header.keys() as usize);
    let digest = records.iter().fold(0, |digest, record| {
        digest ^ store.seeds.share(store.key_hash(record.key.stored()), &record.as_ref()).digest
    });
    assert_eq!(header.digest(), digest);
    for db in Db::all() {
        let in_db = || records.iter().filter(is_value).filter(|record| record.key.db() == db);
        assert_eq!(header.keys_in(db) as usize, in_db().count());
        let expiring = in_db().filter(|record| record.expires_at.is_some()).count();
        assert_eq!(header.expiring_in(db) as usize, expiring);
    }
    while shard.free_garbage() {}
    let keys = Keys { log: &shard.log, seeds: shard.seeds };
    let tables = shard.slots.iter().inspect(|data| data.table.check(keys));
    assert_eq!(tables.map(|data| data.table.bytes()).sum::<usize>(), shard.table_bytes);
    let held: usize = shard.slots.iter().map(|data| data.table.len()).sum();
    assert_eq!(shard.held, held);
    assert_eq!(shard.log.check(shard.eviction.victim()), held);
    let weights: usize = shard.slots.iter().map(|data| data.header.bytes()).sum();
    let values = [Queue::Small, Queue::Main, Queue::Replica];
    assert_eq!(values.iter().map(|queue| shard.log.weight(*queue)).sum::<usize>(), weights);
    let charged = shard.log.bytes() + shard.table_bytes + shard.ghost.bytes();
    assert_eq!(shard.used(), charged + shard.garbage.bytes());
}

#[derive(Clone, Debug)]
enum Step {
    Put { key: u8, expires_at: Option<u64> },
    Merge { key: u8, clock: u64, deletes: bool, expires_at: Option<u64> },
    Remove { key: u8, up_to: u64 },
    Floor { db: Option<u8>, clock: u64 },
    Clear,
    Sweep { now: u64, leaves: bool },
    Reap { below: u64 },
}

fn a_step() -> impl Strategy<Value = Step> {
    let clock = 1u64..400;
    let expiry = proptest::option::of(1u64..1_000);
    prop_oneof![
        4 => (0u8..40, expiry.clone()).prop_map(|(key, expires_at)| Step::Put { key, expires_at }),
        8 => (0u8..40, clock.clone(), any::<bool>(), expiry).prop_map(
            |(key, clock, deletes, expires_at)| Step::Merge { key, clock, deletes, expires_at }
        ),
        2 => (0u8..40, clock.clone()).prop_map(|(key, up_to)| Step::Remove { key, up_to }),
        1 => (proptest::option::of(0u8..4), clock.clone())
            .prop_map(|(db, clock)| Step::Floor { db, clock }),
        1 => Just(Step::Clear),
        1 => (1u64..1_000, any::<bool>()).prop_map(|(now, leaves)| Step::Sweep { now, leaves }),
        1 => clock.prop_map(|below| Step::Reap { below }),
    ]
}

/// What a slot should hold.
#[derive(Default)]
struct Model {
    records: BTreeMap<Key, Record>,
    all: Version,
    dbs: BTreeMap<Db, Version>,
}

impl Model {
    fn floor(&self, db: Db) -> Version {
        self.all.max(self.dbs.get(&db).copied().unwrap_or_default())
    }

    fn merge(&mut self, record: Record) -> Merged {
        if record.version <= self.floor(record.key.db()) {
            return Merged::Older;
        }
        let rank = |record: &Record| (record.version, record.body == Body::Tombstone);
        if let Some(stored) = self.records.get(&record.key) {
            match rank(&record).cmp(&rank(stored)) {
                std::cmp::Ordering::Less => return Merged::Older,
                std::cmp::Ordering::Equal => return Merged::Equal,
                std::cmp::Ordering::Greater => {}
            }
        }
        self.records.insert(record.key.clone(), record);
        Merged::Applied
    }

    fn raise(&mut self, db: Option<Db>, floor: Version) {
        match db {
            None => self.all = self.all.max(floor),
            Some(db) => {
                let own = self.dbs.entry(db).or_default();
                *own = floor.max(*own);
            }
        }
        let floors: Vec<_> = Db::all().map(|db| self.floor(db)).collect();
        self.records.retain(|key, record| record.version > floors[usize::from(key.db().get())]);
    }
}

fn small_key(number: u8) -> Key {
    key(number % 4, &format!("key-{number}"))
}

fn run(store: &Store, of: Slot, model: &mut Model, step: &Step) {
    let mut shard = store.lock(of);
    match step {
        Step::Put { key, expires_at } => {
            let key = small_key(*key);
            let stored = shard.find(of, key.stored()).map(EntryRef::version);
            let above = stored.unwrap_or_default().max(shard.header(of).floor(key.db()));
            let record = value(&key, version(above.clock + 1), *expires_at);
            shard.put(of, record.as_ref());
            model.records.insert(key, record);
        }
        Step::Merge { key, clock, deletes, expires_at } => {
            let (key, version) = (small_key(*key), version(*clock));
            let record =
                if *deletes { tombstone(&key, version) } else { value(&key, version, *expires_at) };
            let expected = model.merge(record.clone());
            assert_eq!(shard.merge(of, record.as_ref()), expected);
        }
        Step::Remove { key, up_to } => {
            let key = small_key(*key);
            let goes = model.records.get(&key).is_some_and(|r| r.version <= version(*up_to));
            assert_eq!(shard.remove(of, key.stored(), version(*up_to)), goes);
            if goes {
                model.records.remove(&key);
            }
        }
        Step::Floor { db, clock } => {
            let db = db.map(|db| Db::new(db).unwrap());
            shard.set_floor(of, db, version(*clock));
            model.raise(db, version(*clock));
        }
        Step::Clear => {
            shard.clear_slot(of);
            *model = Model::default();
        }
        Step::Sweep { now, leaves } => {
            let remains = if *leaves { Remains::Tombstone } else { Remains::Nothing };
            let mut gone = BTreeSet::new();
            shard.sweep(WallMillis(*now), usize::MAX, &mut |entry| {
                gone.insert(entry.key.to_vec());
                remains
            });
            for key in gone {
                let record = model.records.values_mut().find(|r| r.key.stored() == key).unwrap();
                assert!(record.expires_at.is_some_and(|at| at <= WallMillis(*now)));
                if *leaves {
                    *record = tombstone(&record.key, record.version);
                } else {
                    let key = record.key.clone();
                    model.records.remove(&key);
                }
            }
        }
        Step::Reap { below } => {
            let of_slot =
                |record: &Record| record.body == Body::Tombstone && record.version.clock < *below;
            let expected = model.records.values().filter(|record| of_slot(record)).count();
            assert_eq!(shard.reap_tombstones(*below, usize::MAX), expected);
            model.records.retain(|_, record| !of_slot(record));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn the_store_does_what_its_model_does(steps in proptest::collection::vec(a_step(), 1..150)) {
        let store = store(64, 1 << 30, Policy::Evict);
        let of = slot(77);
        let mut model = Model::default();
        for step in &steps {
            run(&store, of, &mut model, step);
            let records = dump(&store.lock(of), of);
            prop_assert_eq!(&records, &model.records.values().cloned().collect::<Vec<_>>());
            check(&store, of);
        }
        let used = store.totals(WallMillis(0)).used_bytes;
        prop_assert_eq!(store.budget.used(), used);
        // A sweep may be late by a part of the time that was left, never for good.
        let mut shard = store.lock(of);
        shard.sweep(WallMillis(1_500), usize::MAX, &mut |_| Remains::Nothing);
        prop_assert!(Db::all().all(|db| shard.header(of).expiring_in(db) == 0));
    }

    #[test]
    fn merges_and_floors_give_the_same_in_any_order_and_number(
        (steps, shuffled) in proptest::collection::vec(
            (0u8..6, 1u64..8, any::<bool>(), proptest::option::weighted(0.15, 0u8..5)),
            1..40,
        )
        .prop_flat_map(|steps| {
            let doubled = [steps.clone(), steps.clone()].concat();
            (Just(steps), Just(doubled).prop_shuffle())
        }),
    ) {
        let apply = |steps: &[(u8, u64, bool, Option<u8>)]| {
            let store = store(1, 1 << 30, Policy::Evict);
            let of = slot(5);
            for (number, clock, deletes, floor) in steps {
                let (key, version) = (small_key(*number), version(*clock));
                let mut shard = store.lock(of);
                if let Some(db) = floor {
                    // The fifth stands for all databases.
                    shard.set_floor(of, Db::new(*db).filter(|_| *db < 4), version);
                } else if *deletes {
                    shard.merge(of, tombstone(&key, version).as_ref());
                } else {
                    shard.merge(of, value(&key, version, Some(*clock * 7)).as_ref());
                }
            }
            let shard = store.lock(of);
            let floors: Vec<_> = Db::all().map(|db| shard.header(of).floor(db)).collect();
            (dump(&shard, of), floors, shard.header(of).digest())
        };
        prop_assert_eq!(apply(&steps), apply(&shuffled));
    }
}

/// A slot of many parts: every law again where tables are split, cut and merged.
#[test]
fn a_slot_of_many_keys_is_split_and_keeps_its_sums() {
    let store = store(64, 1 << 30, Policy::Evict);
    let of = slot(77);
    let name = |number: u32| key(u8::try_from(number % 3).unwrap(), &format!("k{number}"));
    for number in 0..30_000u32 {
        let expiry = number.is_multiple_of(5).then(|| u64::from(number));
        let record = value(&name(number), version(u64::from(number) + 1), expiry);
        store.lock(of).put(of, record.as_ref());
    }
    check(&store, of);
    assert_eq!(store.lock(of).header(of).keys_in(Db::default()), 10_000);
    assert!(store.lock(of).table(of).parts().len() >= 9);

    // Half of the parts' entries go one by one, an old floor takes some, a flush a database.
    for number in (0..30_000u32).step_by(2) {
        assert!(store.lock(of).remove(of, name(number).stored(), version(1 << 40)));
    }
    check(&store, of);
    assert!(store.lock(of).set_floor(of, Db::new(1), version(15_000)));
    check(&store, of);
    assert_eq!(store.lock(of).header(of).keys_in(Db::new(1).unwrap()), 2_500);
    let before = store.totals(WallMillis(0));
    assert!(store.lock(of).set_floor(of, Db::new(2), version(1 << 40)));
    assert_eq!(store.lock(of).header(of).keys_in(Db::new(2).unwrap()), 0);
    check(&store, of);
    assert!(store.totals(WallMillis(0)).used_bytes < before.used_bytes);
    assert_eq!(store.lock(of).header(of).keys_in(Db::default()), 5_000);

    // Swept in steps: no step looks at much more than a part.
    let now = WallMillis(30_000);
    let mut swept = 0;
    for _ in 0..100 {
        swept += store.lock(of).sweep(now, 500, &mut |_| Remains::Nothing);
    }
    assert_eq!(swept, 1_000 + 500);
    check(&store, of);
    store.lock(of).clear_slot(of);
    check(&store, of);
    assert_eq!(store.totals(WallMillis(0)).used_bytes, 0);
    assert_eq!(store.budget.used(), 0);
}

#[test]
fn a_scan_visits_what_stays_exactly_once_while_others_write() {
    let store = store(8, 1 << 30, Policy::Evict);
    let of = slot(77);
    let put = |name: &str, clock| {
        store.lock(of).put(of, value(&key(0, name), version(clock), None).as_ref());
    };
    for number in 0..9_000 {
        put(&format!("stays-{number}"), 1);
        put(&format!("goes-{number}"), 1);
    }
    let mut seen = BTreeMap::new();
    let (mut from, mut last, mut page) = (Some(0), 0, 0);
    while let Some(start) = from {
        from = store.lock(of).scan(of, start, 100, &mut |hash, entry| {
            assert!(hash >= start.max(last));
            last = hash;
            *seen.entry(entry.key()[1..].to_vec()).or_insert(0) += 1;
        });
        for number in page * 100..(page + 1) * 100 {
            let gone = key(0, &format!("goes-{number}"));
            store.lock(of).remove(of, gone.stored(), version(9));
            put(&format!("comes-{number}"), 1);
            put(&format!("stays-{number}"), 2 + page);
        }
        page += 1;
    }
    assert!(page >= 180);
    for number in 0..9_000 {
        assert_eq!(seen.get(format!("stays-{number}").as_bytes()), Some(&1), "{number}");
    }
    assert!(seen.values().all(|count| *count == 1));
}

#[test]
fn only_live_values_are_got() {
    let store = store(64, 1 << 30, Policy::Evict);
    let of = slot(3);
    let (live, dead) = (key(0, "live"), key(0, "dead"));
    let mut shard = store.lock(of);
    shard.put(of, value(&live, version(1), Some(100)).as_ref());
    shard.put(of, tombstone(&dead, version(1)).as_ref());
    assert_eq!(shard.get(of, live.stored(), WallMillis(99)).unwrap().version(), version(1));
    assert!(shard.get(of, live.stored(), WallMillis(100)).is_none());
    assert!(shard.get(of, dead.stored(), WallMillis(0)).is_none());
    assert!(shard.find(of, dead.stored()).unwrap().is_tombstone());
    assert!(!shard.find(of, live.stored()).unwrap().is_live(WallMillis(100)));
    assert!(shard.get(of, b"\0absent", WallMillis(0)).is_none());
}

#[test]
fn the_facts_in_a_header_outlive_its_data() {
    let store = store(64, 1 << 30, Policy::Evict);
    let of = slot(64);
    let mut shard = store.lock(of);
    shard.header_mut(of).acting = true;
    shard.header_mut(of).complete = true;
    shard.put(of, value(&key(0, "k"), version(1), None).as_ref());
    shard.set_floor(of, None, version(5));
    assert_eq!(shard.header(of).floors().collect::<Vec<_>>(), [(None, version(5))]);
    assert_eq!(shard.merge(of, value(&key(0, "k"), version(5), None).as_ref()), Merged::Older);
    shard.clear_slot(of);
    let header = shard.header(of);
    assert!(header.acting && header.complete);
    assert_eq!((header.keys(), header.digest(), header.floors().count()), (0, 0, 0));
    assert_eq!(shard.headers().nth(1).unwrap().0, of);
}

fn put_with_room(store: &Store, of: Slot, record: &Record) -> bool {
    let mut shard = store.lock(of);
    shard.go_ahead(&mut |_| Remains::Nothing);
    let need = shard.room_for(of, &record.as_ref());
    let fits = shard.make_room(need, &mut |_| Remains::Nothing);
    if fits {
        shard.put(of, record.as_ref());
    }
    drop(shard);
    assert!(store.budget.used() <= store.budget.limit());
    fits
}

/// Random bits, the same in every run.
fn mixed(number: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes())
}

#[test]
fn the_budget_holds_while_sizes_change() {
    let limit = 4 << 20;
    let store = store(2, limit, Policy::Evict);
    for (phase, mean) in [(0u64, 60), (1, 700), (2, 40), (3, 4_000)] {
        for number in 0..24_000u64 {
            let random = mixed(phase << 32 | number);
            let of = Slot::from_hash((random % 997) as u16);
            let length = usize::try_from(random >> 40).unwrap() % (2 * mean);
            let record = sized(&key_in(of, random % 60_000), (phase << 32) + number + 1, length);
            assert!(put_with_room(&store, of, &record), "{phase} {number} {length}");
        }
        let totals = store.totals(WallMillis(0));
        assert_eq!(totals.used_bytes, store.budget.used());
        assert!(totals.used_bytes <= limit);
        assert!(phase == 0 || totals.used_bytes > limit * 9 / 10, "{phase} {totals:?}");
        for of in Slot::all().take(2) {
            check(&store, of);
        }
    }
}

#[test]
fn most_of_the_budget_is_keys_and_values() {
    let limit = 8 << 20;
    let store = store(1, limit, Policy::Evict);
    let mut kept = 0;
    for (phase, mean) in [(0u64, 61), (1, 190), (2, 675), (3, 56), (4, 790)] {
        for number in 0..200_000u64 {
            let random = mixed(phase << 32 | number);
            let of = Slot::from_hash((random % 100) as u16);
            let length = usize::try_from(random >> 40).unwrap() % (2 * mean);
            let record = sized(&key_in(of, random % 90_000), (phase << 32) + number + 1, length);
            assert!(put_with_room(&store, of, &record));
        }
        let shard = store.lock(slot(0));
        kept = 0;
        for of in Slot::all().take(100) {
            let mut from = Some(0);
            while let Some(hash) = from {
                from = shard.scan(of, hash, 1_000, &mut |_, entry| {
                    kept += entry.key().len() + entry.value().unwrap().len();
                });
            }
        }
        assert!(kept as u64 > limit * 6 / 10, "{phase}: {kept}");
    }
    assert!(kept as u64 > limit * 7 / 10, "{kept}");
    check(&store, slot(0));
    let counts = store.lock(slot(0)).eviction_counts();
    assert!(counts.moved_bytes > 0 && counts.cleaned > 0, "{counts:?}");
}

#[test]
fn a_huge_value_gets_room_when_every_shard_gives() {
    let store = store(4, 4 << 20, Policy::Evict);
    for number in 0..40_000u64 {
        let of = Slot::from_hash((number % 4_000) as u16);
        put_with_room(&store, of, &sized(&key_in(of, number), number + 1, 100));
    }
    let of = slot(1);
    let huge = sized(&key_in(of, 0), 1 << 40, 2 << 20);
    assert!(!put_with_room(&store, of, &huge));
    assert!(store.pressure() > 0);
    let trim = || {
        for index in 0..store.shards() {
            let mut shard = store.lock_shard(index);
            while shard.trim(Whose::Acted, 100, &mut |_| Remains::Nothing) > 0 {}
        }
    };
    trim();
    assert!(put_with_room(&store, of, &huge));
    trim();
    assert_eq!(store.pressure(), 0);
    // What can never fit is refused and does not press on the others.
    let more = sized(&key_in(of, 0), 2 << 40, 5 << 20);
    assert!(!put_with_room(&store, of, &more));
    assert_eq!(store.pressure(), 0);
    check(&store, of);
}

/// What could not be had once pressed on the store for good: it went on as if it were smaller.
#[test]
fn what_was_wanted_is_forgotten_when_there_is_room() {
    let store = store(1, 8 << 20, Policy::Evict);
    store.budget.want(2 << 20);
    assert_eq!(store.pressure(), 0);
    for number in 0..20_000u64 {
        put_with_room(&store, slot(1), &sized(&key_in(slot(1), number), number + 1, 450));
    }
    assert_eq!(store.pressure(), 0);
    assert!(store.totals(WallMillis(0)).used_bytes > 7_700_000);
}

/// Eight of these fill a page but for a little more than a tenth: pages were cleaned again and again
/// that had nothing dead.
#[test]
fn pages_with_a_wide_end_are_not_hollow() {
    let store = store(1, 16 << 20, Policy::Evict);
    for number in 0..6_000u64 {
        let record = sized(&key_in(slot(1), number), number + 1, 7_300);
        assert!(put_with_room(&store, slot(1), &record), "{number}");
    }
    assert_eq!(store.lock(slot(1)).eviction_counts().cleaned, 0);
}

#[test]
fn a_quiet_shard_can_write_beside_one_that_holds_everything() {
    let store = store(2, 8 << 20, Policy::Evict);
    let (busy, quiet) = (slot(0), slot(1));
    for number in 0..20_000u64 {
        put_with_room(&store, busy, &sized(&key_in(busy, number), number + 1, 450));
    }
    assert!(store.lock(busy).used() > 7_900_000);
    let written = (0..2_000u64)
        .filter(|number| {
            let record = sized(&key_in(quiet, *number), number + 1, 450);
            store.lock(busy).trim(Whose::Acted, 16, &mut |_| Remains::Nothing);
            put_with_room(&store, quiet, &record)
        })
        .count();
    assert_eq!(written, 2_000);
    assert_eq!(store.lock(quiet).header(quiet).keys(), 2_000);
}

/// One slot under one hash tag takes most of the writes: its shard is given most of the memory.
#[test]
fn memory_moves_to_the_shard_that_needs_it() {
    let store = store(4, 8 << 20, Policy::Evict);
    let mut held = Vec::new();
    for number in 0..400_000u64 {
        let of =
            if number % 20 == 0 { Slot::from_hash((number / 20 % 64) as u16) } else { slot(1) };
        let now = WallMillis(1_600_000_000_000 + number);
        store.lock(of).clock_mut().tick(now, 0);
        put_with_room(&store, of, &sized(&key_in(of, number), number + 1, 100));
        if number % 100 == 0 {
            store.balance(now);
            for index in 0..store.shards() {
                store.lock_shard(index).trim(Whose::Acted, 64, &mut |_| Remains::Nothing);
            }
        }
        if number % 100_000 == 50_000 {
            held.push(store.lock(slot(1)).used());
        }
    }
    held.push(store.lock(slot(1)).used());
    assert!(*held.last().unwrap() > 4 << 20, "{held:?}");
}

#[test]
fn threads_that_write_at_once_do_not_pass_the_limit_together() {
    let limit = 4 << 20;
    let store = store(4, limit, Policy::Evict);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert!(store.budget.used() <= limit);
            }
        });
        let writers: Vec<_> = (0..4u64)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || {
                    for number in 0..12_000u64 {
                        let random = mixed(writer << 32 | number);
                        let of = Slot::from_hash((random % 256) as u16);
                        let length = (random >> 32) as usize % 3_000;
                        put_with_room(store, of, &sized(&key_in(of, random), 1, length));
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        watcher.join().unwrap();
    });
    assert_eq!(store.totals(WallMillis(0)).used_bytes, store.budget.used());
    for of in Slot::all().take(4) {
        check(&store, of);
    }
}

#[test]
fn what_is_used_outlives_what_is_not() {
    let store = store(1, 1 << 20, Policy::Evict);
    let of = |number: u64| Slot::from_hash((number % 100) as u16);
    for number in 0..20_000u64 {
        let at = of(number);
        put_with_room(&store, at, &sized(&key_in(at, number), number + 1, 50));
        for hot in 0..20u64 {
            let at = of(hot);
            let name = key_in(at, number / 4_000 * 4_000 + hot);
            store.lock(at).get(at, name.stored(), WallMillis(0));
        }
    }
    let kept = (16_000..16_020u64)
        .filter(|hot| {
            let at = of(*hot);
            store.lock(at).find(at, key_in(at, *hot).stored()).is_some()
        })
        .count();
    assert_eq!(kept, 20);
    check(&store, slot(0));
}

#[test]
fn an_eviction_names_its_victim_and_leaves_what_is_asked_for() {
    let store = store(1, 256 << 10, Policy::Evict);
    let (spared, taken) = (slot(1), slot(2));
    store.lock(spared).header_mut(spared).acting = false;
    for number in 0..600u64 {
        for of in [spared, taken] {
            let record = sized(&key_in(of, number), number + 1, 100);
            store.lock(of).put(of, record.as_ref());
        }
    }
    let mut victims = 0;
    let mut shard = store.lock(taken);
    let mut leaves = |gone: &Gone<'_>| {
        assert_eq!(gone.slot, taken);
        assert!(gone.header.acting);
        victims += 1;
        Remains::Tombstone
    };
    assert!(shard.make_room(100 << 10, &mut leaves));
    assert!(victims > 0);
    assert_eq!(shard.header(taken).tombstones(), victims);
    assert_eq!(shard.header(taken).keys(), 600 - victims);
    assert_eq!(shard.header(spared).keys(), 600);
    // Neither tombstones nor what another node acts for are victims: with nothing else left there
    // is no room.
    assert!(!shard.make_room(220 << 10, &mut |_| Remains::Nothing));
    assert_eq!(shard.header(spared).keys(), 600);
    drop(shard);
    check(&store, taken);
}

/// The acting bit moves after the entries came: what is acted for is found among the replicas, and
/// what is not any more is left alone.
#[test]
fn entries_are_evicted_by_who_acts_for_them_now() {
    let store = store(1, 1 << 20, Policy::Evict);
    let (came, went) = (slot(1), slot(2));
    store.lock(came).header_mut(came).acting = false;
    let put = |of, number| {
        assert!(put_with_room(&store, of, &sized(&key_in(of, number), number + 1, 100)));
    };
    for number in 0..3_000 {
        put(came, number);
        put(went, number);
    }
    store.lock(came).header_mut(came).acting = true;
    store.lock(went).header_mut(went).acting = false;
    for number in 3_000..30_000 {
        put(came, number);
    }
    let shard = store.lock(came);
    assert_eq!(shard.header(went).keys(), 3_000);
    let old = (0..3_000).filter(|it| shard.find(came, key_in(came, *it).stored()).is_some());
    assert!(old.count() < 100);
    assert!(shard.header(came).keys() > 2_000);
    drop(shard);
    check(&store, came);
    // Only where that does not suffice replicas go.
    let mut shard = store.lock(went);
    assert!(!shard.make_room(900 << 10, &mut |_| Remains::Nothing));
    while shard.trim(Whose::Replicas, 100, &mut |_| Remains::Nothing) > 0 {}
    assert!(shard.header(went).keys() < 3_000);
}

#[test]
fn memory_comes_back_when_most_has_expired() {
    let store = store(1, 64 << 20, Policy::Evict);
    let of = slot(77);
    for number in 0..100_000u64 {
        let expires_at = (number % 10 != 0).then(|| WallMillis(1_000 + number % 100));
        let record = Record { expires_at, ..sized(&key_in(of, number), number + 1, 100) };
        store.lock(of).put(of, record.as_ref());
    }
    let before = store.totals(WallMillis(0)).used_bytes;
    let mut shard = store.lock(of);
    let mut expired = 0;
    for tick in 0..2_000 {
        expired += shard.sweep(WallMillis(1_000 + tick), 512, &mut |_| Remains::Nothing);
    }
    assert_eq!(expired, 90_000);
    while shard.tidy(&mut |_| Remains::Nothing) {}
    assert_eq!(shard.header(of).keys(), 10_000);
    drop(shard);
    let after = store.totals(WallMillis(0)).used_bytes;
    assert!(after < before / 4, "{before} {after}");
    check(&store, of);
}

#[test]
fn a_flush_frees_in_steps_and_what_comes_meanwhile_stays() {
    let store = store(1, 64 << 20, Policy::Evict);
    let of = slot(77);
    let put = |db: u8, number: u64| {
        let record = sized(&key(db, &number.to_string()), number + 1, 100);
        store.lock(of).put(of, record.as_ref());
    };
    for number in 0..50_000 {
        put(u8::from(number % 2 == 0), number);
    }
    let before = store.totals(WallMillis(0)).used_bytes;
    store.lock(of).set_floor(of, Db::new(1), version(50_000));
    let mut steps = 0;
    while store.lock(of).free_garbage() {
        put(1, 60_000 + steps);
        steps += 1;
    }
    assert!(steps > 50, "{steps}");
    check(&store, of);
    assert_eq!(store.lock(of).header(of).keys(), 25_000 + u32::try_from(steps).unwrap());
    while store.lock(of).tidy(&mut |_| Remains::Nothing) {}
    assert!(store.totals(WallMillis(0)).used_bytes < before * 3 / 4);
    // Where nothing is left pages go as they are.
    store.lock(of).set_floor(of, None, version(1 << 40));
    assert!(store.lock(of).garbage.bytes() > 0);
    while store.lock(of).free_garbage() {}
    check(&store, of);
    assert!(
        store.totals(WallMillis(0)).used_bytes < 200_000,
        "{}",
        store.totals(WallMillis(0)).used_bytes
    );
}

#[test]
fn a_store_that_refuses_keeps_what_it_has_and_reclaims_what_was_overwritten() {
    let store = store(1, 256 << 10, Policy::Refuse);
    let of = slot(8);
    let accepted = (0..4_000u64)
        .filter(|number| put_with_room(&store, of, &sized(&key_in(of, *number), number + 1, 100)))
        .count() as u64;
    assert!((1_300..2_000).contains(&accepted), "{accepted}");
    assert_eq!(store.totals(WallMillis(0)).keys, accepted);
    assert_eq!(store.pressure(), 0);
    // What is deleted leaves holes, which are room for others.
    for number in (0..accepted).step_by(2) {
        assert!(store.lock(of).remove(of, key_in(of, number).stored(), version(1 << 40)));
    }
    let more = (accepted..4_000)
        .filter(|number| put_with_room(&store, of, &sized(&key_in(of, *number), number + 1, 100)))
        .count() as u64;
    assert!(more > accepted / 3, "{more}");
    check(&store, of);
}

#[test]
fn empty_slots_cost_next_to_nothing() {
    assert!(size_of::<shard::SlotData>() <= 328, "{}", size_of::<shard::SlotData>());
    assert_eq!(store(64, 1 << 30, Policy::Evict).totals(WallMillis(0)).used_bytes, 0);
}

#[test]
fn an_overwrite_of_the_same_length_is_charged_nothing() {
    let store = store(64, 1 << 30, Policy::Evict);
    let (of, name) = (slot(4), key_in(slot(4), 2));
    let mut shard = store.lock(of);
    shard.put(of, sized(&name, 1, 10).as_ref());
    let before = shard.used();
    let next = sized(&name, 2, 10);
    assert_eq!(shard.room_for(of, &next.as_ref()), 0);
    shard.put(of, next.as_ref());
    assert_eq!(shard.used(), before);
    let large = vec![9; 70_000];
    let large = RecordRef { body: BodyRef::String(&large), version: version(3), ..next.as_ref() };
    let room = shard.room_for(of, &large);
    shard.put(of, large);
    assert!((70_000..=room).contains(&(shard.used() - before)), "{room}");
}
