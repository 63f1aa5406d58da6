//! Room: budget, eviction, expiry and flushes while others write.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

pub(super) fn put_with_room(store: &Store, of: Slot, record: &Record) -> bool {
    let mut shard = store.lock(of);
    shard.go_ahead(&mut |_| Remains::Nothing);
    let need = shard.room_for(of, &record.as_ref());
    let fits = shard.make_room(need, &mut |_| Remains::Nothing);
    if fits {
        shard.put(of, record.as_ref());
    }
    drop(shard);
    let (used, limit) = (store.budget.used(), store.budget.limit());
    assert!(used <= limit, "{used} of {limit}");
    fits
}

/// Random bits, the same in every run.
pub(super) fn mixed(number: u64) -> u64 {
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
fn the_bytes_of_what_was_evicted_are_counted() {
    let store = store(1, 2 << 20, Policy::Evict);
    let mut written = 0;
    for number in 0..10_000u64 {
        put_with_room(&store, slot(1), &sized(&key_in(slot(1), number), number + 1, 1_000));
        written += 1;
        let totals = store.totals(WallMillis(0));
        let gone = written - totals.keys;
        let bytes = totals.eviction.evicted_bytes;
        assert!(bytes >= gone * 1_000 && bytes <= gone * 1_100, "{gone} entries, {bytes} bytes");
    }
    assert!(store.lock(slot(1)).eviction_counts().evicted_bytes > 6_000_000);
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

/// A value for which there can be no room beside the replicas once cost everything else its place first.
#[test]
fn what_cannot_fit_beside_replicas_empties_nothing() {
    let store = store(1, 1 << 20, Policy::Evict);
    let (acted, replica) = (slot(1), slot(2));
    store.lock(replica).header_mut(replica).acting = false;
    for number in 0..7_500 {
        let of = if number % 3 == 0 { acted } else { replica };
        assert!(put_with_room(&store, of, &sized(&key_in(of, number), number + 1, 100)));
    }
    let keys = store.lock(acted).header(acted).keys();
    assert!(keys > 1_000);
    let huge = |length| sized(&key_in(acted, 1), 1 << 40, length);
    assert!(!put_with_room(&store, acted, &huge(500 << 10)));
    assert_eq!(store.lock(acted).header(acted).keys(), keys);
    assert!(put_with_room(&store, acted, &huge(60 << 10)));
    assert!(store.lock(acted).header(acted).keys() < keys);
    check(&store, acted);
}

/// The first write after a flush once freed all of it under one lock.
#[test]
fn a_write_frees_a_part_of_what_was_flushed() {
    let limit = 32 << 20;
    let store = store(1, limit, Policy::Evict);
    let of = slot(77);
    let record = |db: u8, number: u64| sized(&key(db, &number.to_string()), number + 1, 100);
    for number in 0..300_000 {
        let record = record(u8::from(number % 8 > 0), number);
        let mut shard = store.lock(of);
        let need = shard.room_for(of, &record.as_ref());
        assert!(shard.make_room(need, &mut |_| Remains::Nothing));
        shard.put(of, record.as_ref());
    }
    store.lock(of).set_floor(of, Db::new(1), version(300_000));
    let (mut writes, mut most, mut last) = (0, 0, usize::MAX);
    while store.lock(of).garbage.waits() {
        writes += 1;
        let record = record(0, 400_000 + writes);
        let mut shard = store.lock(of);
        let need = shard.room_for(of, &record.as_ref());
        assert!(shard.make_room(need, &mut |_| Remains::Nothing));
        shard.put(of, record.as_ref());
        drop(shard);
        most = most.max(store.budget.used());
        let left = store.lock(of).garbage.entries();
        assert!(last == usize::MAX || last - left < 20_000, "{last} {left}");
        last = left;
    }
    assert!(writes > 20, "{writes}");
    assert!(most < limit + limit / 16, "{most}");
    check(&store, of);
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
fn memory_goes_back_to_the_system_when_most_is_gone() {
    let store = store(2, 160 << 20, Policy::Evict);
    let of = [slot(76), slot(77)];
    let key = |number: u64| (of[(number % 2) as usize], key_in(of[(number % 2) as usize], number));
    for number in 0..16_000 {
        let (of, key) = key(number);
        store.lock(of).put(of, sized(&key, number + 1, 7_000).as_ref());
    }
    assert_eq!(store.budget.pool().slabs(), 4);
    for number in (0..16_000).filter(|number| number % 16 > 1) {
        let (of, key) = key(number);
        assert!(store.lock(of).remove(of, key.stored(), Version::MAX));
    }
    for of in of {
        while store.lock(of).tidy(&mut |_| Remains::Nothing) {}
    }
    for _ in 0..100 {
        store.release_memory();
    }
    assert!(store.budget.pool().slabs() <= 2, "{}", store.budget.pool().slabs());
    for number in (0..16_000).filter(|number| number % 16 <= 1) {
        let (of, key) = key(number);
        let expected = sized(&key, number + 1, 7_000);
        assert_eq!(
            store.lock(of).find(of, key.stored()).map(EntryRef::record),
            Some(expected.as_ref())
        );
    }
    for of in of {
        check(&store, of);
    }
}

/// Nothing may ever empty that page any more.
#[test]
fn what_expires_in_a_page_that_is_being_emptied_goes() {
    let store = store(1, 2 << 20, Policy::Evict);
    let of = slot(77);
    for number in 0..u64::MAX {
        let record = sized(&key_in(of, number), number + 1, 300);
        let expires_at = Some(WallMillis(1_000 + number % 500));
        assert!(put_with_room(&store, of, &Record { expires_at, ..record }));
        let shard = store.lock(of);
        let is_half_done = |page| shard.log.live(page) > 0;
        if number > 20_000 && shard.eviction.victim().is_some_and(is_half_done) {
            break;
        }
    }
    for tick in 0..2_000 {
        store.lock(of).sweep(WallMillis(1_000 + tick), 64, &mut |_| Remains::Nothing);
    }
    assert_eq!(store.lock(of).header(of).keys(), 0);
    assert_eq!(store.lock(of).eviction.victim(), None);
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

/// Records of other nodes come without asking for room: what is given back then has no room even to be
/// remembered, which was tried for ever.
#[test]
fn what_is_past_the_limit_is_brought_back() {
    let store = store(1, 256 << 10, Policy::Evict);
    let of = slot(1);
    for number in 0..6_000u64 {
        store.lock(of).merge(of, sized(&key_in(of, number), number + 1, 100).as_ref());
    }
    assert!(store.totals(WallMillis(0)).used_bytes > 400 << 10);
    let mut shard = store.lock(of);
    while shard.trim(Whose::Acted, 64, &mut |_| Remains::Nothing) > 0 {}
    drop(shard);
    assert_eq!(store.pressure(), 0);
    check(&store, of);
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
fn tombstones_have_a_part_of_the_budget_and_give_it_back() {
    let store = store(4, 4 << 20, Policy::Evict);
    let of = |number: u64| slot(u16::try_from(number % 64).unwrap());
    let mut number = 0;
    while store.has_room_for_tombstones() {
        let record = tombstone(&key_in(of(number), number), version(number + 1));
        assert!(put_with_room(&store, of(number), &record));
        number += 1;
        assert!(number < 1 << 20, "they would take all of it");
    }
    assert_eq!(store.tombstone_bytes(), store.totals(WallMillis(0)).memory.tombstones);
    assert!(store.tombstone_bytes() >= 1 << 20);
    check(&store, slot(5));
    for index in 0..store.shards() {
        store.lock_shard(index).reap_tombstones(number / 2, usize::MAX, false);
    }
    assert!(store.has_room_for_tombstones());
    for index in 0..store.shards() {
        store.lock_shard(index).reap_tombstones(u64::MAX, usize::MAX, false);
    }
    assert_eq!(store.tombstone_bytes(), 0);
}

#[test]
fn empty_slots_cost_next_to_nothing() {
    assert!(size_of::<shard::SlotData>() <= 168, "{}", size_of::<shard::SlotData>());
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

/// PERSIST of every key took a full store that evicts nothing past its limit.
#[test]
fn a_shorter_record_takes_the_place_of_the_one_before() {
    let store = store(1, 256 << 10, Policy::Refuse);
    let of = slot(8);
    let expiring = |number: u64| Record {
        expires_at: Some(WallMillis(1_000_000)),
        ..sized(&key_in(of, number), number + 1, 20)
    };
    let full = (0..20_000).find(|number| !put_with_room(&store, of, &expiring(*number)));
    let (full, before) = (full.expect("it is full"), store.lock(of).used());
    for length in [20, 16, 12, 4, 0] {
        for number in 0..full {
            let record = sized(&key_in(of, number), number + 100_000, length);
            assert_eq!(store.lock(of).room_for(of, &record.as_ref()), 0);
            store.lock(of).put(of, record.as_ref());
        }
        check(&store, of);
        assert_eq!(store.lock(of).used(), before);
    }
    let mut shard = store.lock(of);
    assert_eq!(shard.header(of).expiring_in(Db::default()), 0);
    for number in 0..full {
        let found = shard.find(of, key_in(of, number).stored()).map(EntryRef::record);
        assert_eq!(found, Some(sized(&key_in(of, number), number + 100_000, 0).as_ref()));
    }
    // One byte less leaves no room for a dead stretch: the record goes elsewhere.
    shard.put(of, sized(&key_in(of, 0), 200_000, 10).as_ref());
    let shorter = sized(&key_in(of, 0), 200_001, 9);
    let shape = shard.log.shape(&shorter.as_ref());
    assert!(!shard.find(of, key_in(of, 0).stored()).unwrap().can_shrink_to(shape));
    shard.put(of, shorter.as_ref());
    drop(shard);
    check(&store, of);
}

#[test]
fn an_expiry_of_what_stands_outside_copies_nothing() {
    let store = store(2, 8 << 20, Policy::Evict);
    let of = slot(4);
    for number in 0..50 {
        assert!(put_with_room(&store, of, &sized(&key_in(of, number), number + 1, 70_000)));
    }
    let (before, expires_at) = (store.lock(of).used(), Some(WallMillis(10_000)));
    for (clock, number) in (100..).zip(0..50) {
        let same = sized(&key_in(of, number), clock, 70_000);
        let expiring = Record { expires_at, ..same };
        let mut shard = store.lock(of);
        let room = shard.room_for(of, &expiring.as_ref());
        assert!(room < 70_000, "{room}");
        shard.put(of, expiring.as_ref());
        let found = shard.find(of, expiring.key.stored()).map(EntryRef::record);
        assert_eq!(found, Some(expiring.as_ref()));
        drop(shard);
        check(&store, of);
    }
    assert!(store.lock(of).used() < before + 70_000);
    // Another value of the same length is another one.
    let other =
        Record { body: Body::String(vec![8; 70_000].into()), ..sized(&key_in(of, 3), 200, 0) };
    assert!(store.lock(of).room_for(of, &other.as_ref()) >= 70_000);
    assert!(put_with_room(&store, of, &other));
    let shard = store.lock(of);
    assert_eq!(shard.find(of, other.key.stored()).map(EntryRef::record), Some(other.as_ref()));
    drop(shard);
    check(&store, of);
    assert_eq!(store.lock(of).sweep(WallMillis(10_001), 1_000, &mut |_| Remains::Nothing), 49);
    assert!(store.lock(of).used() < 150_000);
    check(&store, of);
}
