//! The store against a model, the laws of merging, and the budget.

mod policy;
mod room;

use std::collections::{BTreeMap, BTreeSet};

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

/// A version of one of many nodes, more than have a number.
fn stamped(clock: u64) -> Version {
    Version { origin: u32::try_from(clock % 23).unwrap(), ..version(clock) }
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
    drop(shard);
    let of_shard = |index| store.lock_shard(index).memory().tombstones;
    assert_eq!(store.tombstone_bytes(), (0..store.shards()).map(of_shard).sum::<u64>());
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
            let record = value(&key, stamped(above.clock + 1), *expires_at);
            shard.put(of, record.as_ref());
            model.records.insert(key, record);
        }
        Step::Merge { key, clock, deletes, expires_at } => {
            let (key, version) = (small_key(*key), stamped(*clock));
            let record =
                if *deletes { tombstone(&key, version) } else { value(&key, version, *expires_at) };
            let expected = model.merge(record.clone());
            assert_eq!(shard.merge(of, record.as_ref()), expected);
        }
        Step::Remove { key, up_to } => {
            let key = small_key(*key);
            let goes = model.records.get(&key).is_some_and(|r| r.version <= stamped(*up_to));
            assert_eq!(shard.remove(of, key.stored(), stamped(*up_to)), goes);
            if goes {
                model.records.remove(&key);
            }
        }
        Step::Floor { db, clock } => {
            let db = db.map(|db| Db::new(db).unwrap());
            shard.set_floor(of, db, stamped(*clock));
            model.raise(db, stamped(*clock));
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
            assert_eq!(shard.reap_tombstones(*below, usize::MAX, false), expected);
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

/// Removals leave marks in a hash table. It doubled when they had filled it, and stayed so: under churn a
/// slot's table took twice the bytes, an entry in twenty of a full store.
#[test]
fn a_table_does_not_grow_because_entries_come_and_go() {
    for entries in [80, 700] {
        let (store, of) = (store(1, 64 << 20, Policy::Refuse), slot(9));
        let mut shard = store.lock(of);
        let bytes = |shard: &Shard| shard.table(of).bytes();
        let put = |shard: &mut Shard, number: u64| {
            shard.put(of, sized(&key_in(of, number), number + 1, 10).as_ref());
        };
        (0..entries).for_each(|number| put(&mut shard, number));
        let full = bytes(&shard);
        for number in entries..entries * 200 {
            let gone = key_in(of, number - entries);
            assert!(shard.remove(of, gone.stored(), version(number)));
            put(&mut shard, number);
        }
        assert_eq!(shard.table(of).len() as u64, entries);
        assert_eq!(bytes(&shard), full, "{entries} entries");
        drop(shard);
        check(&store, of);
    }
}

/// Its stamp stood in the entry while more origins were about than have a number.
#[test]
fn a_tombstone_that_becomes_shorter_is_counted_so() {
    let (store, of) = (store(1, 4 << 20, Policy::Evict), slot(9));
    for number in 0..100 {
        let origin = u32::try_from(number).unwrap();
        let stamped = Version { origin, ..version(number + 1) };
        store.lock(of).put(of, tombstone(&key_in(of, number), stamped).as_ref());
    }
    let before = store.tombstone_bytes();
    let same = tombstone(&key_in(of, 99), Version { origin: 0, ..version(1_000) });
    store.lock(of).put(of, same.as_ref());
    assert_eq!(store.tombstone_bytes(), before - 4);
    check(&store, of);
}

/// What goes without a trace is noted in its slot: an old copy of it must not come back.
#[test]
fn a_slot_says_up_to_which_clock_something_was_evicted_or_forgotten() {
    let (store, of) = (store(1, 256 << 10, Policy::Evict), slot(9));
    for number in 0..2_000 {
        assert!(room::put_with_room(&store, of, &sized(&key_in(of, number), number + 1, 300)));
    }
    let evicted = |number: &u64| store.lock(of).find(of, key_in(of, *number).stored()).is_none();
    let last = (0..2_000).filter(evicted).max().unwrap() + 1;
    assert_eq!(store.lock(of).header(of).forgotten, last);

    let mut shard = store.lock(of);
    let gone = key_in(of, 5_000);
    for (clock, unseen, forgotten) in [(9_000, false, last), (9_001, true, 9_001)] {
        shard.put(of, tombstone(&gone, version(clock)).as_ref());
        assert_eq!(shard.reap_tombstones(10_000, usize::MAX, unseen), 1);
        assert_eq!(shard.header(of).forgotten, forgotten);
    }
}
