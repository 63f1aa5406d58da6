//! The local store: what one node holds, in memory and under a byte budget.
//!
//! ```text
//!   Store ─┬─ shard 0   one lock ─┬─ slot 0    header │ table: where the entry of each key is
//!          ├─ shard 1             ├─ slot 64   header │ table
//!          ⋮                      ⋮
//!          │                      └─ pages     the entries, in the order of the eviction
//!          └─ budget    one number of bytes for all shards
//! ```
//!
//! A slot belongs to the shard with its number modulo the number of shards. Whoever wants to read
//! or write locks the shard, does one thing, and lets go: nothing here waits, calls out to a peer
//! or reads a clock (`now` is an argument). What the store holds are *entries*; what goes in and
//! out are *records*, with their versions and tombstones; whether a write is allowed is the cluster
//! layer's business, which keeps its facts about a slot in the slot's header, under the same lock.
//!
//! Invariants, checked against a model by the tests: the header's sums (keys, tombstones, digest)
//! are those of the entries; every byte that grows with the data is charged; the bytes charged
//! never pass the limit as long as room is asked for before a write, but for a page of a write that comes
//! while much of what was flushed waits to be freed.

mod budget;
mod cursor;
mod digest;
mod entry;
mod evict;
mod expire;
mod garbage;
mod ghost;
mod gone;
mod header;
mod outside;
mod pages;
mod shard;
mod slabs;
mod stamps;
mod table;
#[cfg(test)]
mod tests;

use std::ops::{AddAssign, Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use crate::limits::{READ_AHEAD_MAX, STORE_SHARD_MIN, STORE_SHARDS_MAX, TOMBSTONES_MAX_PART};
use crate::types::{ByteSize, Db, SLOTS, Slot, WallMillis};
use budget::Budget;
use digest::Seeds;
use evict::age_of;

pub use cursor::Cursor;
pub use entry::EntryRef;
pub use evict::{EvictionCounts, Whose};
pub use gone::{Gone, OnGone, Remains};
pub use header::SlotHeader;
pub use shard::{Merged, Reads, Shard};

/// Bytes that one shard moves under one lock to leave a slab, if they are not of one value.
const LEAVE_STEP: usize = 512 * 1024;

/// What a store is told when it is made.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Number of shards: a power of two up to 64; anything else is rounded up or cut. With less than
    /// a mebibyte for each there are fewer.
    pub shards: usize,
    /// The byte budget.
    pub limit: ByteSize,
    /// What happens when it is used up.
    pub policy: Policy,
    /// Seed of the digests; equal on all nodes of a cluster.
    pub digest_seed: u64,
    /// Seed of the key hashes; equal on all nodes of a cluster.
    pub hash_seed: u64,
    /// The slot of a key's name.
    pub slot_of: fn(&[u8]) -> Slot,
}

/// What happens to a write when the byte budget is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Other entries make room.
    Evict,
    /// There is no room.
    Refuse,
}

/// Which slots a shard has.
#[derive(Clone, Copy, Debug)]
struct ShardPlace {
    index: usize,
    /// Binary logarithm of the number of shards.
    shift: u32,
    slot_of: fn(&[u8]) -> Slot,
}

impl ShardPlace {
    const fn slots(self) -> usize {
        SLOTS as usize >> self.shift
    }

    const fn has(self, slot: Slot) -> bool {
        slot.index() & ((1 << self.shift) - 1) == self.index
    }

    const fn local(self, slot: Slot) -> usize {
        slot.index() >> self.shift
    }

    fn slot(self, local: usize) -> Slot {
        Slot::from_hash(u16::try_from(local << self.shift | self.index).unwrap_or_default())
    }
}

/// The store of one node.
pub struct Store {
    shards: Box<[Mutex<Shard>]>,
    budget: Arc<Budget>,
    seeds: Seeds,
    policy: Policy,
}

impl Store {
    /// An empty store: no slot is complete, none is acted for. Takes about 3 MiB.
    pub fn new(options: StoreOptions) -> Self {
        let affordable = options.limit.0 / STORE_SHARD_MIN;
        let affordable = usize::try_from(affordable).unwrap_or(usize::MAX).max(1);
        let count = options.shards.clamp(1, STORE_SHARDS_MAX).next_power_of_two();
        let count = count.min(1 << affordable.ilog2());
        let budget = Arc::new(Budget::new(options.limit.0, count));
        let seeds = Seeds { hash: options.hash_seed, digest: options.digest_seed };
        let shift = count.trailing_zeros();
        let shard = |index| {
            let place = ShardPlace { index, shift, slot_of: options.slot_of };
            Mutex::new(Shard::new(place, seeds, options.policy, Arc::clone(&budget)))
        };
        Self { shards: (0..count).map(shard).collect(), budget, seeds, policy: options.policy }
    }

    /// The number of shards.
    pub const fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The shard of a slot.
    pub const fn shard_index(&self, slot: Slot) -> usize {
        slot.index() % self.shards.len()
    }

    /// Locks the shard of a slot.
    pub fn lock(&self, slot: Slot) -> ShardGuard<'_> {
        self.lock_shard(self.shard_index(slot))
    }

    /// Locks the shard of this number, taken modulo the number of shards.
    pub fn lock_shard(&self, index: usize) -> ShardGuard<'_> {
        let shard = self.shards[index % self.shards.len()].lock();
        // A panic ends the process, but in a test that expects one the store must go on.
        ShardGuard(shard.unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads what operations on these keys will read: the processor waits for the memory of several
    /// at a time, where the operations would wait for one after the other.
    ///
    /// All locks are taken first, because a lock waits for the reads before it (measured: a lock
    /// between any two reads makes them three times as slow). One that another thread holds is
    /// passed over: nothing waits here, so that nothing can wait in a circle.
    pub fn warm<K: AsRef<[u8]>>(&self, stored_keys: impl Iterator<Item = (Slot, K)>) {
        let mut shards: SmallVec<[(usize, ShardGuard<'_>); READ_AHEAD_MAX]> = SmallVec::new();
        let mut wanted: SmallVec<[(usize, Slot, u64); READ_AHEAD_MAX]> = SmallVec::new();
        for (slot, key) in stored_keys {
            let index = self.shard_index(slot);
            let mut at = shards.iter().position(|(locked, _)| *locked == index);
            if at.is_none()
                && let Ok(shard) = self.shards[index].try_lock()
            {
                at = Some(shards.len());
                shards.push((index, ShardGuard(shard)));
            }
            wanted.extend(at.map(|at| (at, slot, self.key_hash(key.as_ref()))));
        }
        let read = wanted.iter().fold(0, |read, (at, slot, hash)| {
            read ^ shards.get(*at).map_or(0, |(_, shard)| shard.warm(*slot, *hash))
        });
        // It means nothing, but without a use for it nothing would be read.
        std::hint::black_box(read);
    }

    /// The hash by which a stored key is found and ordered: the same at every node. The number of
    /// the database is in the upper four bits.
    pub fn key_hash(&self, stored_key: &[u8]) -> u64 {
        self.seeds.key_hash(stored_key)
    }

    /// The range of key hashes of a database, both ends included.
    pub const fn hashes_of(db: Db) -> (u64, u64) {
        digest::hashes_of(db)
    }

    /// Bytes that the shards must give up together, because they are over their part of the budget
    /// or because [`Shard::make_room`] failed for one that could not do so alone.
    ///
    /// None where nothing is evicted.
    pub fn pressure(&self) -> u64 {
        match self.policy {
            Policy::Evict => self.budget.pressure(),
            Policy::Refuse => 0,
        }
    }

    /// Whether entries make room for others.
    pub const fn evicts(&self) -> bool {
        matches!(self.policy, Policy::Evict)
    }

    /// By how many bytes more is used than should be.
    pub fn excess(&self) -> u64 {
        self.budget.excess()
    }

    /// Takes and gives back every lock once: where one is never given back this does not return.
    pub fn pass_locks(&self) {
        (0..self.shards()).for_each(|index| drop(self.lock_shard(index)));
    }

    /// Lets shards whose entries last long give memory to those whose entries go soon. To be called
    /// some times a second.
    pub fn balance(&self, now: WallMillis) {
        if self.budget.is_used_up() {
            let ages: Vec<_> =
                (0..self.shards()).map(|index| age_of(&self.lock_shard(index), now)).collect();
            self.budget.balance(&ages);
        }
    }

    /// Gives memory that no shard has a use for back to the system, some megabytes of it at each call. To be
    /// called some times a second, and without a lock: it may take milliseconds.
    pub fn release_memory(&self) {
        let pool = self.budget.pool();
        if let Some(slab) = pool.leaving() {
            for index in 0..self.shards() {
                self.lock_shard(index).log.leave_slab(slab, LEAVE_STEP);
            }
        }
        pool.release();
    }

    /// Bytes of tombstones, their places in tables not included.
    pub fn tombstone_bytes(&self) -> u64 {
        self.budget.tombstones()
    }

    /// Whether a key that is not there may leave a tombstone: they have a part of the budget, because they are
    /// not evicted.
    pub fn has_room_for_tombstones(&self) -> bool {
        self.budget.tombstones() < self.limit() / TOMBSTONES_MAX_PART
    }

    /// The byte budget.
    pub fn limit(&self) -> u64 {
        self.budget.limit()
    }

    /// Sums over all shards as of `now`, each locked for a moment.
    pub fn totals(&self, now: WallMillis) -> Totals {
        let mut totals = Totals { limit_bytes: self.budget.limit(), ..Totals::default() };
        for index in 0..self.shards() {
            let shard = self.lock_shard(index);
            totals.used_bytes += shard.used() as u64;
            totals.memory += shard.memory();
            totals.eviction += shard.eviction_counts();
            totals.reaped += shard.reaped();
            totals.expiry_lag = totals.expiry_lag.max(shard.expiry_lag(now));
            totals.reads.hits += shard.reads().hits;
            totals.reads.misses += shard.reads().misses;
            for (_, header) in shard.headers() {
                header.add_to(&mut totals);
            }
        }
        totals
    }
}

/// A locked shard.
pub struct ShardGuard<'a>(MutexGuard<'a, Shard>);

impl Deref for ShardGuard<'_> {
    type Target = Shard;

    fn deref(&self) -> &Shard {
        &self.0
    }
}

impl DerefMut for ShardGuard<'_> {
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.0
    }
}

impl Drop for ShardGuard<'_> {
    fn drop(&mut self) {
        self.0.give_back_reservation();
    }
}

/// What a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Values, expired ones that were not removed yet included.
    pub keys: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Bytes charged.
    pub used_bytes: u64,
    /// What they are made of.
    pub memory: MemoryKinds,
    /// What the eviction did since the store was made.
    pub eviction: EvictionCounts,
    /// Tombstones that were removed since the store was made.
    pub reaped: u64,
    /// For how long a look for expired values has been due at most, in milliseconds.
    pub expiry_lag: u64,
    /// The budget.
    pub limit_bytes: u64,
    /// Reads since the store was made.
    pub reads: Reads,
    /// By database.
    pub dbs: [DbTotals; Db::COUNT as usize],
}

/// What the bytes of a store are made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryKinds {
    /// Keys and values with their heads, in pages and outside.
    pub entries: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// What is dead or not written yet in pages.
    pub holes: u64,
    /// Tables.
    pub tables: u64,
    /// Fingerprints of evicted keys.
    pub ghost: u64,
    /// What was flushed and is not freed yet.
    pub garbage: u64,
}

impl AddAssign for MemoryKinds {
    fn add_assign(&mut self, other: Self) {
        self.entries += other.entries;
        self.tombstones += other.tombstones;
        self.holes += other.holes;
        self.tables += other.tables;
        self.ghost += other.ghost;
        self.garbage += other.garbage;
    }
}

/// What a store holds in one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DbTotals {
    /// Values, expired ones that were not removed yet included.
    pub keys: u64,
    /// Values with an expiry.
    pub expiring: u64,
}
