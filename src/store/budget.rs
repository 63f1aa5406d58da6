//! The byte budget: one number for the whole store, kept by all shards without a common lock.
//!
//! ```text
//!   0 ─────────── used ─────────── soft ──── limit
//!                                     reserve
//! ```
//!
//! A shard evicts its own entries only: it holds one lock, and names its victims under it. So a
//! busy shard may grow past an equal share, and a quiet one may find the budget used up with little
//! of its own to give. For that case there is a reserve of 1/64 of the limit: shards evict above
//! *soft*, but one that holds less than its share may go on up to the limit, and those above their
//! share give the difference back at their own next writes and ticks ([`Shard::trim`]). What even
//! the reserve cannot hold (a huge value) is noted as *wanted*: every shard then gives until it
//! fits.
//!
//! Room is reserved before it is used, so that shards that ask at the same time cannot pass the
//! limit together.
//!
//! [`Shard::trim`]: super::Shard::trim

use std::sync::atomic::{AtomicU64, Ordering};

/// One part in this many of the limit is the reserve.
const RESERVE_PART: u64 = 64;

/// The budget, shared by all shards.
#[derive(Debug)]
pub(super) struct Budget {
    limit: u64,
    soft: u64,
    shards: u64,
    /// Bytes charged and reserved.
    used: AtomicU64,
    /// The largest request that could not be met.
    wanted: AtomicU64,
}

impl Budget {
    pub(super) fn new(limit: u64, evicts: bool, shards: usize) -> Self {
        let soft = if evicts { limit - limit / RESERVE_PART } else { limit };
        let shards = (shards as u64).max(1);
        Self { limit, soft, shards, used: AtomicU64::new(0), wanted: AtomicU64::new(0) }
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

    /// An equal share of what may be used while nobody waits for room.
    pub(super) const fn share(&self) -> u64 {
        self.soft / self.shards
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

    /// By how many bytes shards must shrink together.
    pub(super) fn pressure(&self) -> u64 {
        (self.used() + self.wanted.load(Ordering::Relaxed)).saturating_sub(self.soft)
    }

    /// The share above which a shard gives while there is pressure.
    pub(super) fn share_under_pressure(&self) -> u64 {
        self.soft.saturating_sub(self.wanted.load(Ordering::Relaxed)) / self.shards
    }

    /// What was wanted has been made room for, or was met.
    pub(super) fn satisfy(&self) {
        if self.wanted.load(Ordering::Relaxed) != 0 {
            self.wanted.store(0, Ordering::Relaxed);
        }
    }
}
