//! The byte budget: one number for the whole store, kept by all shards without a common lock.
//!
//! ```text
//!   0 ─────────── used ─────────── soft ──── limit
//!                                     reserve
//! ```
//!
//! A shard evicts its own entries only: it holds one lock, and names its victims under it. Each has
//! a *target*; a busy shard may grow past it while there is room, and a quiet one may find the budget
//! used up with little of its own to give. For that case there is a reserve of a little more than a
//! page for each shard: shards evict above *soft*, but one below its target may go on up to the
//! limit, and those above theirs give the difference back at their own next writes and ticks
//! ([`Shard::trim`]). What even the reserve cannot hold (a huge value) is noted as *wanted*: every
//! shard then gives until it fits.
//!
//! Targets begin as equal shares and move ([`Budget::balance`]) from shards whose unused entries
//! last long to those whose go soon, as they would in one common queue: a hash tag with most of the
//! keys is not held to a 64th of the memory.
//!
//! Room is reserved before it is used, so that shards that ask at the same time cannot pass the
//! limit together.
//!
//! [`Shard::trim`]: super::Shard::trim

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::slabs::SlabPool;
use crate::limits::{STORE_PAGE_MAX, STORE_PAGE_MIN, STORE_SHARD_PAGES};

/// Quarters of a page that the reserve has for each shard: what is to stay of a page that is emptied
/// needs another one before that is free.
const RESERVE_QUARTERS: u64 = 5;
/// The reserve is at most one part in this many of the limit.
const RESERVE_PART: u64 = 16;
/// Targets move where one shard's entries last so many quarters as long as another's.
const UNEVEN_QUARTERS: u64 = 6;
/// One part in this many of a target moves at once.
const MOVED_PART: u64 = 16;
/// One part in this many of an equal share is never given away.
const KEPT_PART: u64 = 4;

/// The budget, shared by all shards.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    soft: u64,
    pool: Arc<SlabPool>,
    /// What each shard may use while nobody waits for room.
    targets: Box<[AtomicU64]>,
    /// Bytes charged and reserved.
    used: AtomicU64,
    /// The largest request that could not be met.
    wanted: AtomicU64,
    /// Bytes of tombstones.
    tombstones: AtomicU64,
}

impl Budget {
    pub(super) fn new(limit: u64, shards: usize) -> Self {
        let share = limit / shards.max(1) as u64;
        let page_size = usize::try_from(share / STORE_SHARD_PAGES).unwrap_or(STORE_PAGE_MAX);
        let page_size = page_size.clamp(STORE_PAGE_MIN, STORE_PAGE_MAX).next_multiple_of(1024);
        let reserve = (shards * page_size) as u64 * RESERVE_QUARTERS / 4;
        let soft = limit - reserve.min(limit / RESERVE_PART);
        Self {
            limit,
            soft,
            pool: SlabPool::new(page_size).into(),
            targets: (0..shards).map(|_| AtomicU64::new(soft / shards.max(1) as u64)).collect(),
            used: AtomicU64::new(0),
            wanted: AtomicU64::new(0),
            tombstones: AtomicU64::new(0),
        }
    }

    /// Where every shard takes memory from.
    pub(super) fn pool(&self) -> Arc<SlabPool> {
        Arc::clone(&self.pool)
    }

    /// Bytes of the pages of every shard.
    pub(super) fn page_size(&self) -> usize {
        self.pool.page_size()
    }

    pub(super) const fn limit(&self) -> u64 {
        self.limit
    }

    // The counters order nothing but themselves, so relaxed operations are enough.

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, bytes: usize) {
        self.used.fetch_sub(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn tombstones(&self) -> u64 {
        self.tombstones.load(Ordering::Relaxed)
    }

    /// The tombstones of a shard took `before` bytes and take `after` now.
    pub(super) fn note_tombstones(&self, before: usize, after: usize) {
        if after > before {
            self.tombstones.fetch_add((after - before) as u64, Ordering::Relaxed);
        } else if after < before {
            self.tombstones.fetch_sub((before - after) as u64, Ordering::Relaxed);
        }
    }

    /// Reserves `bytes` if they fit below the soft limit.
    pub(super) fn reserve_soft(&self, bytes: usize) -> bool {
        self.reserve_below(bytes, self.soft)
    }

    /// Reserves `bytes` if they fit below the limit.
    pub(super) fn reserve_hard(&self, bytes: usize) -> bool {
        self.reserve_below(bytes, self.limit)
    }

    fn reserve_below(&self, bytes: usize, ceiling: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes as u64).filter(|sum| *sum <= ceiling);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// What a shard may use while nobody waits for room.
    pub(super) fn target(&self, shard: usize) -> u64 {
        self.targets[shard].load(Ordering::Relaxed)
    }

    /// Whether a shard that uses `own` bytes will soon have to evict.
    pub(super) fn is_near(&self, shard: usize, own: usize) -> bool {
        self.is_used_up() && (own + self.page_size()) as u64 > self.target(shard)
    }

    /// Whether there is no room for one page more.
    pub(super) fn is_used_up(&self) -> bool {
        self.used() + self.page_size() as u64 > self.soft
    }

    /// Whether a shard that evicted all of its `own` bytes could fit `bytes` more.
    pub(super) fn could_fit(&self, bytes: usize, own: usize) -> bool {
        (self.used() + bytes as u64).saturating_sub(own as u64) <= self.limit
    }

    /// Notes a request that could not be met, if the whole store could ever meet it.
    pub(super) fn want(&self, bytes: usize) {
        if bytes as u64 <= self.soft {
            self.wanted.fetch_max(bytes as u64, Ordering::Relaxed);
        }
    }

    /// By how many bytes shards must shrink together. What was wanted is forgotten when there is room
    /// for it, whether it comes or not.
    pub(super) fn pressure(&self) -> u64 {
        let wanted = self.wanted.load(Ordering::Relaxed);
        let pressure = (self.used() + wanted).saturating_sub(self.soft);
        if pressure == 0 && wanted > 0 {
            self.wanted.store(0, Ordering::Relaxed);
        }
        pressure
    }

    /// By how many bytes more is used than should be, whatever is wanted.
    pub(super) fn excess(&self) -> u64 {
        self.used().saturating_sub(self.soft)
    }

    /// The bytes above which a shard gives while there is pressure.
    pub(super) fn target_under_pressure(&self, shard: usize) -> u64 {
        let part = self.wanted.load(Ordering::Relaxed) / self.targets.len() as u64;
        self.target(shard).saturating_sub(part)
    }

    /// Moves a part of a target from the shard where entries last longest to the one where they go
    /// soonest, if they differ by half or more; `ages` are in milliseconds, `None` where nothing was
    /// evicted. Says whether something moved.
    pub(super) fn balance(&self, ages: &[Option<u64>]) -> bool {
        let share = self.soft / self.targets.len() as u64;
        let gives = |shard: &usize| self.target(*shard) > share / KEPT_PART;
        let age = |shard: &usize| ages[*shard].unwrap_or(u64::MAX / UNEVEN_QUARTERS);
        let all = 0..self.targets.len().min(ages.len());
        let Some(young) = all.clone().filter(|shard| ages[*shard].is_some()).min_by_key(age) else {
            return false;
        };
        let Some(old) = all.filter(gives).max_by_key(age).filter(|old| *old != young) else {
            return false;
        };
        if age(&old) * 4 < age(&young).max(1) * UNEVEN_QUARTERS {
            return false;
        }
        let moved = (self.target(old) / MOVED_PART).min(self.target(young) / 2);
        self.targets[old].fetch_sub(moved, Ordering::Relaxed);
        self.targets[young].fetch_add(moved, Ordering::Relaxed);
        moved > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_move_to_where_entries_go_soonest_and_keep_their_sum() {
        let budget = Budget::new(64 << 20, 8);
        let mut ages = [None; 8];
        assert!(!budget.balance(&ages), "nobody evicts");
        ages[3] = Some(100);
        for _ in 0..1_000 {
            budget.balance(&ages);
        }
        let sum = |budget: &Budget| (0..8).map(|shard| budget.target(shard)).sum::<u64>();
        assert_eq!(sum(&budget), budget.soft / 8 * 8);
        assert!(budget.target(3) > budget.soft / 2, "{}", budget.target(3));
        assert!((0..8).all(|shard| budget.target(shard) >= budget.soft / 8 / KEPT_PART * 9 / 10));
        assert!(!budget.balance(&ages), "nobody has more to give");

        // And back, when another needs it.
        ages[3] = Some(4_000);
        ages[5] = Some(500);
        while budget.balance(&ages) {}
        assert!(budget.target(5) > budget.target(3));
        assert_eq!(sum(&budget), budget.soft / 8 * 8);

        let even = Budget::new(64 << 20, 2);
        assert!(!even.balance(&[Some(100), Some(149)]));
        assert!(even.balance(&[Some(100), Some(150)]));
    }
}
