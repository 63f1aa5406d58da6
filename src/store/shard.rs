//! A shard: one lock, the slots whose number is its own modulo the number of shards, their headers
//! and entries, and one hybrid clock.
//!
//! Every change goes through here, so that the sums in the headers, the bytes charged and the
//! entries are always in step. Nothing here blocks, and no call but those that say so walks more
//! than one part of a slot.

use std::mem;
use std::sync::Arc;

use super::budget::Budget;
use super::digest::{Seeds, db_of, hashes_of};
use super::entry::{Entry, EntryRef};
use super::gone::Hand;
use super::header::SlotHeader;
use super::table::{NEVER, SlotTable};
use super::{Policy, ShardPlace};
use crate::hlc::Hlc;
use crate::types::{BodyRef, Db, RecordRef, Slot, Version, WallMillis};

/// What [`Shard::merge`] did with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// It was new and is stored.
    Applied,
    /// The same version of the same kind was there.
    Equal,
    /// A newer one was there, or a tombstone of the same version, or it is at or below a floor.
    Older,
}

/// Reads by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Found a live value.
    pub hits: u64,
    /// Found nothing live.
    pub misses: u64,
}

/// One slot: its header and entries.
#[derive(Default)]
pub(super) struct SlotData {
    pub(super) header: SlotHeader,
    pub(super) table: SlotTable,
}

/// One shard of the store; reached through its lock.
pub struct Shard {
    place: ShardPlace,
    pub(super) seeds: Seeds,
    pub(super) policy: Policy,
    slots: Box<[SlotData]>,
    clock: Hlc,
    reads: Reads,
    pub(super) budget: Arc<Budget>,
    /// Bytes charged for this shard, what waits to be freed included.
    used: usize,
    /// Bytes reserved in the budget for the next writes.
    pub(super) reserved: usize,
    /// Tables that were emptied at once and are freed part by part.
    garbage: Vec<SlotTable>,
    pub(super) evict_hand: Hand,
    pub(super) sweep_hand: Hand,
    /// Wall milliseconds before which no part has anything to sweep.
    pub(super) sweep_from: u64,
    pub(super) reap_hand: Hand,
}

impl Shard {
    pub(super) fn new(
        place: ShardPlace,
        seeds: Seeds,
        policy: Policy,
        budget: Arc<Budget>,
    ) -> Self {
        Self {
            place,
            seeds,
            policy,
            slots: (0..place.slots()).map(|_| SlotData::default()).collect(),
            clock: Hlc::default(),
            reads: Reads::default(),
            budget,
            used: 0,
            reserved: 0,
            garbage: Vec::new(),
            evict_hand: Hand::default(),
            sweep_hand: Hand::default(),
            sweep_from: NEVER,
            reap_hand: Hand::default(),
        }
    }

    /// The hybrid clock that stamps the writes of this shard's slots.
    pub const fn clock_mut(&mut self) -> &mut Hlc {
        &mut self.clock
    }

    /// Bytes charged for the entries and tables of this shard.
    pub const fn used(&self) -> usize {
        self.used
    }

    /// The slots of this shard with their headers, in ascending order.
    pub fn headers(&self) -> impl Iterator<Item = (Slot, &SlotHeader)> + '_ {
        (0..).zip(&self.slots).map(|(local, data)| (self.place.slot(local), &data.header))
    }

    /// The header of a slot.
    pub fn header(&self, slot: Slot) -> &SlotHeader {
        &self.data(slot).header
    }

    /// The header of a slot, to change the facts in it.
    pub fn header_mut(&mut self, slot: Slot) -> &mut SlotHeader {
        &mut self.data_mut(slot).header
    }

    /// The hash by which a stored key is found and ordered; equal on all nodes.
    pub fn key_hash(&self, stored_key: &[u8]) -> u64 {
        self.seeds.key_hash(stored_key)
    }

    /// The live value of a key, and counts the use for the eviction and the read for the metrics.
    pub fn get(&mut self, slot: Slot, stored_key: &[u8], now: WallMillis) -> Option<EntryRef<'_>> {
        let hash = self.key_hash(stored_key);
        let table = &mut self.slots[self.place.local(slot)].table;
        let live = |entry: &&mut Entry| !entry.is_tombstone() && !entry.is_expired(now);
        let Some(entry) = table.find_mut(hash, stored_key).filter(live) else {
            self.reads.misses += 1;
            return None;
        };
        self.reads.hits += 1;
        entry.touch();
        Some(EntryRef::new(entry))
    }

    /// Reads what an operation on the key of this hash will read.
    pub(super) fn warm(&self, slot: Slot, hash: u64) -> u8 {
        let data = self.data(slot);
        data.header.warm() ^ data.table.warm(hash)
    }

    /// Reads since the store was made.
    pub const fn reads(&self) -> Reads {
        self.reads
    }

    /// Whatever is stored under a key: a tombstone or an expired value too. Not counted as a use.
    pub fn find(&self, slot: Slot, stored_key: &[u8]) -> Option<EntryRef<'_>> {
        let hash = self.key_hash(stored_key);
        self.data(slot).table.find(hash, stored_key).map(EntryRef::new)
    }

    /// Stores a record in the place of whatever its key has. The caller has stamped it above that
    /// and above the floors, and has made room.
    pub fn put(&mut self, slot: Slot, record: RecordRef<'_>) {
        debug_assert!(
            record.version > self.header(slot).floor(db_of(record.key)),
            "BUG: a write was stamped below a floor"
        );
        let hash = self.key_hash(record.key);
        self.store(slot, hash, &record);
    }

    /// Takes in a record from elsewhere: the higher version wins, and at equal versions a
    /// tombstone. Commutative, associative and idempotent, together with floors.
    pub fn merge(&mut self, slot: Slot, record: RecordRef<'_>) -> Merged {
        if record.version <= self.header(slot).floor(db_of(record.key)) {
            return Merged::Older;
        }
        let hash = self.key_hash(record.key);
        let table = &self.data(slot).table;
        let merged =
            table.find(hash, record.key).map_or(Merged::Applied, |stored| compare(&record, stored));
        if merged == Merged::Applied {
            self.store(slot, hash, &record);
        }
        merged
    }

    fn store(&mut self, slot: Slot, hash: u64, record: &RecordRef<'_>) {
        if let Some(expiry) = record.expires_at {
            self.sweep_from = self.sweep_from.min(expiry.0);
        }
        self.change(slot, |seeds, data| data.put(seeds, hash, record));
    }

    /// Drops what is stored under a key if its version is `up_to` or below, and leaves no
    /// tombstone: another node's eviction is followed. Says whether something went.
    pub fn remove(&mut self, slot: Slot, stored_key: &[u8], up_to: Version) -> bool {
        let hash = self.key_hash(stored_key);
        self.change(slot, |seeds, data| data.remove(seeds, hash, stored_key, up_to))
    }

    /// Everything of a database (of all databases: `None`) at or below `floor` is gone at once and
    /// can never come back. `false` if the floor was as high already.
    ///
    /// Where the floor is above all that is stored, as that of a flush stamped here is, tables
    /// are taken away whole and freed in steps; else the entries concerned are walked.
    pub fn set_floor(&mut self, slot: Slot, db: Option<Db>, floor: Version) -> bool {
        let mut garbage = mem::take(&mut self.garbage);
        let (seeds, waiting) = (self.seeds, garbage.len());
        let data = self.data_mut(slot);
        let before = data.table.bytes();
        let raised = data.set_floor(seeds, db, floor, &mut garbage);
        let moved: usize = garbage.iter().skip(waiting).map(SlotTable::bytes).sum();
        let after = data.table.bytes() + moved;
        self.settle(before, after);
        self.garbage = garbage;
        self.free_garbage();
        raised
    }

    /// Drops all data of a slot and its sums and floors. The facts in its header stay.
    pub fn clear_slot(&mut self, slot: Slot) {
        let data = self.data_mut(slot);
        let table = mem::take(&mut data.table);
        data.header.forget_data();
        self.garbage.push(table);
        self.free_garbage();
    }

    /// Frees a part of what was taken away whole; `false` if nothing waits for it.
    pub(super) fn free_garbage(&mut self) -> bool {
        let Some(table) = self.garbage.last_mut() else { return false };
        let before = table.bytes();
        table.drop_part();
        let after = table.bytes();
        if table.is_empty() {
            self.garbage.pop();
        }
        self.settle(before, after);
        true
    }

    /// Ends a reservation that was not used up.
    pub(super) fn give_back_reservation(&mut self) {
        let unused = mem::take(&mut self.reserved);
        if unused > 0 {
            self.budget.subtract(unused);
        }
    }

    /// Charges a change from `before` to `after` bytes, out of the reservation first.
    pub(super) fn settle(&mut self, before: usize, after: usize) {
        if after >= before {
            let more = after - before;
            self.used += more;
            let reserved = more.min(self.reserved);
            self.reserved -= reserved;
            if more > reserved {
                self.budget.add(more - reserved);
            }
        } else {
            self.used -= before - after;
            self.budget.subtract(before - after);
        }
    }

    pub(super) fn table(&self, slot: Slot) -> &SlotTable {
        &self.data(slot).table
    }

    pub(super) const fn slot_count(&self) -> usize {
        self.slots.len()
    }

    /// The slot with this local number.
    pub(super) fn slot_at_mut(&mut self, local: usize) -> (Slot, &mut SlotData) {
        (self.place.slot(local), &mut self.slots[local])
    }

    /// Runs a change of a slot and charges what it did to the bytes.
    fn change<T>(&mut self, slot: Slot, change: impl FnOnce(Seeds, &mut SlotData) -> T) -> T {
        let seeds = self.seeds;
        let data = self.data_mut(slot);
        let before = data.table.bytes();
        let result = change(seeds, data);
        let after = data.table.bytes();
        self.settle(before, after);
        result
    }

    fn data(&self, slot: Slot) -> &SlotData {
        debug_assert!(self.place.has(slot), "BUG: {slot} is a slot of another shard");
        &self.slots[self.place.local(slot)]
    }

    fn data_mut(&mut self, slot: Slot) -> &mut SlotData {
        debug_assert!(self.place.has(slot), "BUG: {slot} is a slot of another shard");
        &mut self.slots[self.place.local(slot)]
    }
}

fn compare(record: &RecordRef<'_>, stored: &Entry) -> Merged {
    let deletes = record.body == BodyRef::Tombstone;
    match record.version.cmp(&stored.version()) {
        std::cmp::Ordering::Greater => Merged::Applied,
        std::cmp::Ordering::Less => Merged::Older,
        std::cmp::Ordering::Equal => match (deletes, stored.is_tombstone()) {
            (true, false) => Merged::Applied,
            (false, true) => Merged::Older,
            (true, true) | (false, false) => Merged::Equal,
        },
    }
}

impl SlotData {
    fn put(&mut self, seeds: Seeds, hash: u64, record: &RecordRef<'_>) {
        let header = &mut self.header;
        self.table.put(seeds, hash, record, |old| {
            header.subtract(&seeds.share(hash, &old.record()));
        });
        self.header.add(&seeds.share(hash, record));
    }

    fn remove(&mut self, seeds: Seeds, hash: u64, key: &[u8], up_to: Version) -> bool {
        let header = &mut self.header;
        self.table.remove(seeds, hash, key, |entry| {
            let goes = entry.version() <= up_to;
            if goes {
                header.subtract(&seeds.share(hash, &entry.record()));
            }
            goes
        })
    }

    fn set_floor(
        &mut self,
        seeds: Seeds,
        db: Option<Db>,
        floor: Version,
        garbage: &mut Vec<SlotTable>,
    ) -> bool {
        if !self.header.raise_floor(db, floor) {
            return false;
        }
        let dbs = self.header.dbs();
        let concerned = |of: &Db| db.is_none_or(|db| db == *of);
        if dbs.iter().all(|of| concerned(of) && self.header.is_covered(*of, floor)) {
            garbage.push(mem::take(&mut self.table));
            dbs.iter().for_each(|of| self.header.forget_db(*of));
            return true;
        }
        for of in dbs.iter().filter(|of| concerned(of)) {
            let (first, last) = hashes_of(*of);
            if self.header.is_covered(*of, floor) {
                garbage.push(self.table.cut(seeds, first, last));
                self.header.forget_db(*of);
            } else {
                self.drop_below(seeds, *of, first, last, floor);
            }
        }
        true
    }

    /// Walks the range of hashes of one database and removes what is at or below the floor.
    fn drop_below(&mut self, seeds: Seeds, db: Db, first: u64, last: u64, floor: Version) {
        let header = &mut self.header;
        let mut index = self.table.part_index(first);
        while self.table.start_of(index).is_some_and(|start| start <= last) {
            let parts = self.table.parts().len();
            self.table.retain_part(seeds, index, |entry| {
                let record = entry.record();
                let goes = db_of(record.key) == db && record.version <= floor;
                if goes {
                    header.subtract(&seeds.share(seeds.key_hash(record.key), &record));
                }
                !goes
            });
            index += usize::from(self.table.parts().len() == parts);
        }
    }
}
