//! Housekeeping of the store: expiry, tombstones, receivers that are done, and the gauges that
//! follow from slot headers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::hlc;
use crate::limits::TOMBSTONES_PART;
use crate::metrics::level;
use crate::store::Remains;
use crate::tasks::Stop;
use crate::types::{MemberState, NodeId, Phase, Slot, WallMillis};

use super::replicate::{Link, ToDrive, drive_all};
use super::room::Evictions;
use super::view::{Standing, View};
use super::{Cache, Shared};

/// How often expired entries are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);
/// Entries that one sweep of one shard looks at, at most.
const SWEEP_STEP: usize = 512;
/// Every so many sweeps the slower chores run.
const CHORES_EVERY: u32 = 10;
/// How old a tombstone is at least when it goes, in milliseconds.
const TOMBSTONE_MILLIS: u64 = 60_000;

/// Keeps house until the group stops.
pub(super) async fn run(cache: Cache, mut stop: Stop) {
    let shared = Arc::clone(&cache.shared);
    let mut sweeps = 0u32;
    let mut shown = None;
    loop {
        tokio::select! {
            biased;
            () = stop.stopped() => return,
            () = tokio::time::sleep(SWEEP_INTERVAL) => {}
        }
        shared.sweep().await;
        cache.tidy().await;
        cache.relieve();
        shared.store.balance(shared.clock.wall());
        shared.store.release_memory();
        shared.show_slots(&mut shown);
        sweeps = sweeps.wrapping_add(1);
        if sweeps.is_multiple_of(CHORES_EVERY) {
            shared.reap_tombstones().await;
            shared.forget_receivers();
            shared.show_store();
        }
    }
}

impl Cache {
    /// Gathers what a mass expiry left in hollow pages, a little under each lock.
    async fn tidy(&self) {
        for index in 0..self.shared.store.shards() {
            let mut evictions = Evictions::default();
            while self.shared.tidy(index, &mut evictions) {
                self.tell(&std::mem::take(&mut evictions));
                tokio::task::yield_now().await;
            }
        }
    }

    /// Tells the holders what went.
    fn tell(&self, evictions: &Evictions) {
        if !evictions.0.is_empty() {
            let mut to_drive = ToDrive::new();
            self.shared.queue_evictions(&self.shared.view(), evictions, &mut to_drive);
            drive_all(&self.shared, &self.peers, to_drive);
        }
    }

    /// Brings the store back under its budget, and tells the holders what went.
    fn relieve(&self) {
        let shared = &self.shared;
        if shared.store.pressure() == 0 {
            return;
        }
        let mut evictions = Evictions::default();
        shared.trim(1, &mut evictions);
        self.tell(&evictions);
    }
}

impl Shared {
    /// Removes what has expired. Where a holder may have an older value of the key a tombstone remains.
    async fn sweep(&self) {
        let now = self.clock.wall();
        let unsettled = self.unsettled.load(Ordering::Relaxed);
        let remains = if unsettled { Remains::Tombstone } else { Remains::Nothing };
        for index in 0..self.store.shards() {
            self.free_garbage(index).await;
            let mut expired = 0;
            self.store.lock_shard(index).sweep(now, SWEEP_STEP, &mut |_| {
                expired += 1;
                remains
            });
            if expired > 0 {
                self.expired.fetch_add(expired, Ordering::Relaxed);
                self.metrics.store.expired.increment(expired);
                tokio::task::yield_now().await;
            }
        }
    }

    /// Frees what was flushed, a little under each lock.
    async fn free_garbage(&self, index: usize) {
        while self.store.lock_shard(index).free_garbage() {
            tokio::task::yield_now().await;
        }
    }

    /// Tombstones go a minute after the delete where every holder is there, complete and clean;
    /// else after `tombstone_grace`, or after a minute while they take more than their part of the
    /// budget. Then a holder that was away may have what they were for: the silence of this copy counts
    /// against it.
    async fn reap_tombstones(&self) {
        let wall = self.clock.wall();
        let unseen = !self.is_settled();
        self.unsettled.store(unseen, Ordering::Relaxed);
        let grace = if unseen {
            let grace = self.view.load().table.facts.tombstone_grace.as_millis();
            let grace = u64::try_from(grace).unwrap_or(u64::MAX);
            waiting_grace(grace, self.store.tombstone_bytes(), self.store.limit())
        } else {
            TOMBSTONE_MILLIS
        };
        let older_than = hlc::reading_at(WallMillis(wall.0.saturating_sub(grace)));
        for index in 0..self.store.shards() {
            let reaped = {
                let mut shard = self.store.lock_shard(index);
                shard.reap_tombstones(older_than, SWEEP_STEP, unseen)
            };
            if reaped > 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Whether every member is alive, active and missed nothing, and nothing is being filled. Members that
    /// are dead count also when their place was given up: they may come back with what they had.
    fn is_settled(&self) -> bool {
        let view = self.view.load();
        let links = self.links.load();
        view.table.members.iter().all(|member| match member.state {
            // Who is coming may bring copies of a time before a delete.
            MemberState::Alive => member.identity.phase == Phase::Active,
            MemberState::Left => true,
            MemberState::Suspect | MemberState::Dead => false,
        }) && links.values().all(|link| !self.is_owed(&view, link))
            && self.fills.under_way().is_empty()
    }

    /// Whether a peer missed something of a slot that it holds or is to hold and this node acts for.
    fn is_owed(&self, view: &View, link: &Link) -> bool {
        let mut missed = link.missed().all();
        missed.intersect_with(&self.own_holdings().acting);
        missed.iter().any(|slot| {
            view.placement.holds(link.node, slot) || self.holdings.is_complete(link.node, slot)
        })
    }

    /// A receiver said that it does not hold the slot: it gets no more of it.
    pub(super) fn forget_receiver(&self, node: NodeId, slot: Slot) {
        let mut shard = self.store.lock(slot);
        shard.header_mut(slot).receivers.retain(|receiver| *receiver != node);
    }

    /// Receivers that are members of the set by now get its writes as such; those that are gone
    /// get none.
    fn forget_receivers(&self) {
        let view = self.view.load_full();
        let is_done = |node: NodeId, slot: Slot| {
            view.placement.holds(node, slot) || view.standing(node) == Standing::Gone
        };
        for index in 0..self.store.shards() {
            let mut shard = self.store.lock_shard(index);
            let receiving: Vec<Slot> = shard
                .headers()
                .filter(|(_, header)| !header.receivers.is_empty())
                .map(|(slot, _)| slot)
                .collect();
            for slot in receiving {
                shard.header_mut(slot).receivers.retain(|node| !is_done(*node, slot));
            }
        }
    }

    /// Brings the metrics about this node's slots up to date, if the holdings or the view are not
    /// those that `shown` says: every slot is looked at.
    fn show_slots(&self, shown: &mut Option<(u64, Arc<View>)>) {
        let (revision, view) = (self.holdings.revision(), self.view());
        if let Some((last, of)) = shown
            && *last == revision
            && Arc::ptr_eq(of, &view)
        {
            return;
        }
        self.note_fill_progress();
        let counts = self.slot_counts();
        let gauges = &self.metrics.view;
        gauges.acting.set(level(counts.acting));
        gauges.owned.set(level(counts.owned));
        gauges.replica.set(level(counts.replica));
        gauges.incomplete.set(level(counts.incomplete));
        gauges.sharing_zone.set(level(view.placement.sharing_zone()));
        gauges.ring_nodes.set(level(view.placement.members().len()));
        *shown = Some((revision, view));
    }

    /// Brings the metrics that follow from the store and its headers up to date.
    pub fn show_gauges(&self) {
        self.show_store();
        self.show_slots(&mut None);
    }

    fn show_store(&self) {
        let wall = self.clock.wall();
        let totals = self.store.totals(wall);
        let store = &self.metrics.store;
        store.hits.absolute(totals.reads.hits);
        store.misses.absolute(totals.reads.misses);
        let set = |gauge: &metrics::Gauge, count| {
            gauge.set(level(usize::try_from(count).unwrap_or(usize::MAX)));
        };
        set(&store.keys, totals.keys);
        set(&store.keys_with_ttl, totals.dbs.iter().map(|db| db.expiring).sum());
        set(&store.tombstones, totals.tombstones);
        set(&store.used_bytes, totals.used_bytes);
        set(&store.limit_bytes, totals.limit_bytes);
        set(&store.memory_entries, totals.memory.entries);
        set(&store.memory_tombstones, totals.memory.tombstones);
        set(&store.memory_holes, totals.memory.holes);
        set(&store.memory_tables, totals.memory.tables);
        set(&store.memory_ghost, totals.memory.ghost);
        set(&store.memory_garbage, totals.memory.garbage);
        store.evicted_bytes.absolute(totals.eviction.evicted_bytes);
        store.moved_bytes.absolute(totals.eviction.moved_bytes);
        store.forced.absolute(totals.eviction.forced);
        store.cleaned.absolute(totals.eviction.cleaned);
        store.ghost_hits.absolute(totals.eviction.ghost_hits);
        store.reaped.absolute(totals.reaped);
        let lag = Duration::from_millis(totals.expiry_lag);
        store.expiry_lag.set(lag.as_secs_f64());
        let ahead = (0..self.store.shards())
            .map(|index| self.store.lock_shard(index).clock_mut().ahead_millis(wall))
            .max()
            .unwrap_or(0);
        store.clock_drift.set(level(usize::try_from(ahead).unwrap_or(usize::MAX)) / 1_000.0);
    }
}

/// How old a tombstone becomes while a holder may not have seen it, in milliseconds.
fn waiting_grace(configured: u64, bytes: u64, limit: u64) -> u64 {
    let too_many = bytes > limit / TOMBSTONES_PART;
    if too_many { configured.min(TOMBSTONE_MILLIS) } else { configured }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tombstones_beyond_their_part_wait_for_nobody_longer_than_a_minute() {
        let (hour, limit) = (3_600_000, 1 << 30);
        assert_eq!(waiting_grace(hour, limit / TOMBSTONES_PART, limit), hour);
        assert_eq!(waiting_grace(hour, limit / TOMBSTONES_PART + 1, limit), TOMBSTONE_MILLIS);
        assert_eq!(waiting_grace(1_000, limit, limit), 1_000);
    }
}
