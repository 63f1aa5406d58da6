//! A shard: one lock, the slots whose number is its own modulo the number of shards, their headers
//! and tables, the pages that hold their entries, and one hybrid clock.
//!
//! Every change goes through here, so that the sums in the headers, the bytes charged and the
//! entries are always in step. Nothing here blocks, and no call but those that say so walks more
//! than one part of a slot.

use std::mem;
use std::sync::Arc;

use super::budget::Budget;
use super::digest::{Seeds, db_of, hashes_of};
use super::entry::{EntryRef, Shape};
use super::evict::Eviction;
use super::expire::Sweep;
use super::garbage::Garbage;
use super::ghost::Ghost;
use super::header::SlotHeader;
use super::pages::{Handle, Log, Queue, Target};
use super::table::{Keys, SlotTable};
use super::{MemoryKinds, Policy, ShardPlace};
use crate::hlc::{self, Hlc};
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
    pub(super) place: ShardPlace,
    pub(super) seeds: Seeds,
    pub(super) policy: Policy,
    pub(super) slots: Box<[SlotData]>,
    pub(super) log: Log,
    pub(super) ghost: Ghost,
    clock: Hlc,
    reads: Reads,
    pub(super) budget: Arc<Budget>,
    /// Bytes of the tables, those that wait to be freed included.
    pub(super) table_bytes: usize,
    /// Entries in the tables of slots.
    pub(super) held: usize,
    /// Bytes charged for this shard.
    used: usize,
    /// Bytes of tombstones that the budget knows of.
    tombstones: usize,
    /// Bytes reserved in the budget for the next writes.
    pub(super) reserved: usize,
    pub(super) garbage: Garbage,
    pub(super) eviction: Eviction,
    pub(super) sweep: Sweep,
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
            log: Log::new(budget.pool()),
            ghost: Ghost::default(),
            clock: Hlc::default(),
            reads: Reads::default(),
            budget,
            table_bytes: 0,
            held: 0,
            used: 0,
            tombstones: 0,
            reserved: 0,
            garbage: Garbage::default(),
            eviction: Eviction::default(),
            sweep: Sweep::default(),
        }
    }

    /// The hybrid clock that stamps the writes of this shard's slots.
    pub const fn clock_mut(&mut self) -> &mut Hlc {
        &mut self.clock
    }

    /// About the present, by the last stamp.
    pub(super) const fn present(&self) -> WallMillis {
        hlc::wall_of(self.clock.newest())
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
        let found = self.data(slot).table.find(&self.log, hash, stored_key);
        let Some(handle) = found.filter(|handle| self.log.entry(*handle).is_live(now)) else {
            self.reads.misses += 1;
            return None;
        };
        self.reads.hits += 1;
        self.log.touch(handle);
        Some(self.log.entry(handle))
    }

    /// Reads what an operation on the key of this hash will read.
    pub(super) fn warm(&self, slot: Slot, hash: u64) -> u8 {
        let data = self.data(slot);
        data.header.warm() ^ data.table.warm(&self.log, hash)
    }

    /// Reads since the store was made.
    pub const fn reads(&self) -> Reads {
        self.reads
    }

    /// Whatever is stored under a key: a tombstone or an expired value too. Not counted as a use.
    pub fn find(&self, slot: Slot, stored_key: &[u8]) -> Option<EntryRef<'_>> {
        let hash = self.key_hash(stored_key);
        let handle = self.data(slot).table.find(&self.log, hash, stored_key)?;
        Some(self.log.entry(handle))
    }

    /// Stores a record in the place of whatever its key has. The caller has stamped it above that
    /// and above the floors, and has made room.
    pub fn put(&mut self, slot: Slot, record: RecordRef<'_>) {
        debug_assert!(
            record.version > self.header(slot).floor(db_of(record.key)),
            "BUG: a write was stamped below a floor"
        );
        let hash = self.key_hash(record.key);
        let old = self.data(slot).table.find(&self.log, hash, record.key);
        self.store(slot, hash, old, &record);
    }

    /// Takes in a record from elsewhere: the higher version wins, and at equal versions a
    /// tombstone. Commutative, associative and idempotent, together with floors.
    pub fn merge(&mut self, slot: Slot, record: RecordRef<'_>) -> Merged {
        if record.version <= self.header(slot).floor(db_of(record.key)) {
            return Merged::Older;
        }
        let hash = self.key_hash(record.key);
        let old = self.data(slot).table.find(&self.log, hash, record.key);
        let merged = old.map_or(Merged::Applied, |handle| compare(&record, self.log.entry(handle)));
        if merged == Merged::Applied {
            self.store(slot, hash, old, &record);
        }
        merged
    }

    fn store(&mut self, slot: Slot, hash: u64, old: Option<Handle>, record: &RecordRef<'_>) {
        self.sweep.note(record.expires_at);
        let shape = self.log.shape(record);
        let queue = self.queue_for(slot, hash, old, shape);
        let header = &mut self.slots[self.place.local(slot)].header;
        header.add(&self.seeds.share(hash, record), shape.charged());
        if let Some(handle) = old {
            let entry = self.log.entry(handle);
            header.subtract(&self.seeds.share(hash, &entry.record()), entry.charged());
            if self.log.queue_of(handle) == queue {
                if entry.has_shape(shape) {
                    return self.log.overwrite(handle, record, shape);
                }
                if entry.can_shrink_to(shape) {
                    self.log.shrink(handle, record, shape);
                    return self.settle();
                }
            }
        }
        let uses = old.map_or(0, |handle| self.log.entry(handle).uses() + 1);
        self.ghost.take(hash);
        let target = Target::End(queue);
        self.open_for(target, shape.len);
        let new = match old.filter(|handle| self.log.entry(*handle).has_outside(record)) {
            Some(heir_of) => self.log.append_heir(target, record, shape, uses, heir_of),
            None => self.log.append(target, record, shape, uses),
        };
        let SlotData { table, .. } = &mut self.slots[self.place.local(slot)];
        if let Some(old) = old {
            table.replace(hash, old, new);
            self.log.kill(old);
        } else {
            self.insert(slot, hash, new);
        }
        self.settle();
    }

    /// Puts a handle into its slot's table.
    pub(super) fn insert(&mut self, slot: Slot, hash: u64, handle: Handle) {
        let keys = Keys { log: &self.log, seeds: self.seeds };
        let table = &mut self.slots[self.place.local(slot)].table;
        let before = table.bytes();
        table.insert(keys, hash, handle);
        self.table_bytes = self.table_bytes + table.bytes() - before;
        self.held += 1;
    }

    /// Takes an entry out of its slot's table and sums, and kills it.
    pub(super) fn take_away(&mut self, slot: Slot, hash: u64, handle: Handle) {
        let keys = Keys { log: &self.log, seeds: self.seeds };
        let SlotData { header, table } = &mut self.slots[self.place.local(slot)];
        let entry = self.log.entry(handle);
        header.subtract(&self.seeds.share(hash, &entry.record()), entry.charged());
        let before = table.bytes();
        table.remove(keys, hash, handle);
        self.table_bytes = self.table_bytes + table.bytes() - before;
        self.held -= 1;
        self.log.kill(handle);
    }

    /// Where a record of a key goes: an overwritten entry keeps its queue, and a key that comes back
    /// soon after its eviction is not new.
    fn queue_for(&self, slot: Slot, hash: u64, old: Option<Handle>, shape: Shape) -> Queue {
        if shape.is_tombstone() {
            return Queue::Tombstones;
        }
        if !self.header(slot).acting {
            return Queue::Replica;
        }
        match old.map(|handle| self.log.queue_of(handle)) {
            Some(queue @ (Queue::Small | Queue::Main)) => queue,
            _ if self.ghost.contains(hash) => Queue::Main,
            _ => Queue::Small,
        }
    }

    /// Opens a page where the next entry does not fit the last one. It is taken from what was reserved, and
    /// from beyond it if that was not enough.
    pub(super) fn open_for(&mut self, target: Target, length: usize) {
        if self.log.room(target) < length {
            self.log.open(target, self.present(), None);
        }
    }

    /// Bytes that putting this record adds to the budget at most: what [`Shard::make_room`] should
    /// be asked for before.
    pub fn room_for(&self, slot: Slot, record: &RecordRef<'_>) -> usize {
        let hash = self.key_hash(record.key);
        let table = &self.data(slot).table;
        let old = table.find(&self.log, hash, record.key);
        let shape = self.log.shape(record);
        let queue = self.queue_for(slot, hash, old, shape);
        if let Some(handle) = old.filter(|handle| self.log.queue_of(*handle) == queue) {
            let entry = self.log.entry(handle);
            if entry.has_shape(shape) || entry.can_shrink_to(shape) {
                return 0;
            }
        }
        let stays = old.is_some_and(|handle| self.log.entry(handle).has_outside(record));
        let outside = if stays { 0 } else { shape.outside_bytes() };
        // What is there now may be evicted before the record comes.
        table.growth(hash) + outside + self.page_for(Target::End(queue), shape.len)
    }

    /// Bytes that writes of so many bytes of records add to the budget at most.
    pub fn room_for_bytes(&self, bytes: usize) -> usize {
        let queues = [Queue::Small, Queue::Main, Queue::Tombstones];
        let fits = |queue: &Queue| self.log.room(Target::End(*queue)) >= bytes;
        if self.log.is_inside(bytes) && queues.iter().all(fits) {
            0
        } else {
            bytes + self.log.page_cost()
        }
    }

    /// Bytes that the table of a slot grows by at most if a key is new.
    pub fn table_growth(&self, slot: Slot, stored_key: &[u8]) -> usize {
        self.data(slot).table.growth(self.key_hash(stored_key))
    }

    fn page_for(&self, target: Target, bytes: usize) -> usize {
        if self.log.room(target) < bytes { self.log.page_cost() } else { 0 }
    }

    /// Drops what is stored under a key if its version is `up_to` or below, and leaves no
    /// tombstone: another node's eviction is followed. Says whether something went.
    pub fn remove(&mut self, slot: Slot, stored_key: &[u8], up_to: Version) -> bool {
        let hash = self.key_hash(stored_key);
        let found = self.data(slot).table.find(&self.log, hash, stored_key);
        let Some(handle) = found.filter(|it| self.log.entry(*it).version() <= up_to) else {
            return false;
        };
        self.take_away(slot, hash, handle);
        self.settle();
        true
    }

    /// Everything of a database (of all databases: `None`) at or below `floor` is gone at once and
    /// can never come back. `false` if the floor was as high already.
    ///
    /// Where the floor is above all that is stored, as that of a flush stamped here is, tables
    /// are taken away whole and freed in steps; else the entries concerned are walked.
    pub fn set_floor(&mut self, slot: Slot, db: Option<Db>, floor: Version) -> bool {
        if !self.data_mut(slot).header.raise_floor(db, floor) {
            return false;
        }
        let dbs = self.header(slot).dbs();
        let concerned = |of: &Db| db.is_none_or(|db| db == *of);
        if dbs.iter().all(|of| concerned(of) && self.header(slot).is_covered(*of, floor)) {
            let data = self.data_mut(slot);
            dbs.iter().for_each(|of| data.header.forget_db(*of));
            let table = mem::take(&mut data.table);
            self.discard(table);
            return true;
        }
        for of in dbs.iter().filter(|of| concerned(of)) {
            let (first, last) = hashes_of(*of);
            if self.header(slot).is_covered(*of, floor) {
                let keys = Keys { log: &self.log, seeds: self.seeds };
                let data = &mut self.slots[self.place.local(slot)];
                data.header.forget_db(*of);
                self.table_bytes -= data.table.bytes();
                let table = data.table.cut(keys, first, last);
                self.table_bytes += data.table.bytes() + table.bytes();
                self.discard(table);
            } else {
                self.drop_below(slot, *of, floor);
            }
        }
        self.settle();
        true
    }

    /// Removes what a database has at or below a floor, one by one.
    fn drop_below(&mut self, slot: Slot, db: Db, floor: Version) {
        let (first, last) = hashes_of(db);
        let mut going = Vec::new();
        let table = &self.data(slot).table;
        let mut index = table.part_index(first);
        while table.start_of(index).is_some_and(|start| start <= last) {
            let keys = Keys { log: &self.log, seeds: self.seeds };
            going.extend(table.parts()[index].hashed(keys).filter(|(_, handle)| {
                let record = self.log.entry(*handle).record();
                db_of(record.key) == db && record.version <= floor
            }));
            index += 1;
        }
        for (hash, handle) in going {
            self.take_away(slot, hash, handle);
        }
    }

    /// Drops all data of a slot and its sums and floors. The facts in its header stay.
    pub fn clear_slot(&mut self, slot: Slot) {
        let data = self.data_mut(slot);
        let table = mem::take(&mut data.table);
        data.header.forget_data();
        self.discard(table);
    }

    /// Ends a reservation that was not used up.
    pub(super) fn give_back_reservation(&mut self) {
        let unused = mem::take(&mut self.reserved);
        if unused > 0 {
            self.budget.subtract(unused);
        }
    }

    /// Charges what has changed, out of the reservation first.
    pub(super) fn settle(&mut self) {
        let tombstones = self.log.weight(Queue::Tombstones);
        self.budget.note_tombstones(self.tombstones, tombstones);
        self.tombstones = tombstones;
        let (before, after) = (self.used, self.charged());
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

    /// What the bytes charged are made of.
    pub(super) fn memory(&self) -> MemoryKinds {
        let values = [Queue::Small, Queue::Main, Queue::Replica];
        let entries = values.map(|queue| self.log.weight(queue)).iter().sum::<usize>();
        let tombstones = self.log.weight(Queue::Tombstones);
        MemoryKinds {
            entries: entries as u64,
            tombstones: tombstones as u64,
            holes: self.log.bytes().saturating_sub(entries + tombstones) as u64,
            tables: self.table_bytes as u64,
            ghost: self.ghost.bytes() as u64,
            garbage: self.garbage.bytes() as u64,
        }
    }

    fn charged(&self) -> usize {
        self.log.bytes() + self.table_bytes + self.ghost.bytes() + self.garbage.bytes()
    }

    /// Bytes of a slot's table for each of its entries.
    pub fn table_share(&self, slot: Slot) -> usize {
        let table = self.table(slot);
        table.bytes().div_ceil(table.len().max(1))
    }

    pub(super) fn table(&self, slot: Slot) -> &SlotTable {
        &self.data(slot).table
    }

    /// The slot of a stored key, which must be one of this shard's.
    pub(super) fn slot_of(&self, stored_key: &[u8]) -> Slot {
        (self.place.slot_of)(stored_key.get(1..).unwrap_or_default())
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

fn compare(record: &RecordRef<'_>, stored: EntryRef<'_>) -> Merged {
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
