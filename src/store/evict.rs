//! Eviction: making room within the byte budget, in bounded steps.
//!
//! A hand walks the shard's slots, parts and buckets round and round (CLOCK with counters). Every
//! entry has a counter of uses, up to three; the hand takes one away from each it passes and evicts
//! the first that has none. After [`STORE_SPARED_MAX`] spared entries in a row the next one goes
//! whatever its counter, so that one eviction costs a bounded time also where everything is in use.
//! Tombstones are never evicted: a deleted key would come back from a holder that missed the
//! deletion.

use super::Policy;
use super::digest::Seeds;
use super::entry::charged_record;
use super::gone::{Evictable, Hand, OnGone, part_with};
use super::shard::{Shard, SlotData};
use crate::limits::{STORE_EVICT_STEP, STORE_SPARED_MAX};
use crate::types::{RecordRef, Slot};

impl Shard {
    /// Bytes that putting this record adds to the budget at most: what [`Shard::make_room`] should
    /// be asked for before.
    pub fn room_for(&self, slot: Slot, record: &RecordRef<'_>) -> usize {
        let hash = self.key_hash(record.key);
        let new = charged_record(record);
        let table = self.table(slot);
        match table.find(hash, record.key) {
            Some(old) => new.saturating_sub(old.charged()),
            None => new + table.growth(hash),
        }
    }

    /// Reserves `need` bytes, evicting entries of this shard as far as that takes. `false` if they
    /// cannot be had now: the policy forbids eviction, or the entries of this shard are not
    /// enough. In the second case the other shards have been told to give; once
    /// [`super::Store::pressure`] is relieved by [`Shard::trim`] on them, the same call succeeds.
    ///
    /// The reservation is used up by the next writes and given back with the guard or by the next
    /// call.
    pub fn make_room(
        &mut self,
        need: usize,
        evictable: &mut Evictable<'_>,
        evicted: &mut OnGone<'_>,
    ) -> bool {
        self.give_back_reservation();
        let done = self.reserve(need, evictable, evicted);
        if done {
            self.reserved = need;
        }
        done
    }

    fn reserve(
        &mut self,
        need: usize,
        evictable: &mut Evictable<'_>,
        evicted: &mut OnGone<'_>,
    ) -> bool {
        if self.budget.reserve_soft(need) {
            return true;
        }
        while self.free_garbage() {
            if self.budget.reserve_soft(need) {
                return true;
            }
        }
        if self.policy == Policy::Refuse {
            return false;
        }
        let below_share = (self.used() + need) as u64 <= self.budget.share();
        if below_share && self.budget.reserve_hard(need) {
            return true;
        }
        if !self.budget.could_fit(need, self.used()) {
            self.budget.want(need);
            return false;
        }
        // Up to the limit what must go goes; back down to the soft limit only a step at a time.
        for step in 0usize.. {
            if self.budget.reserve_soft(need)
                || (step >= STORE_EVICT_STEP && self.budget.reserve_hard(need))
            {
                return true;
            }
            if !self.evict_next(evictable, evicted) {
                break;
            }
        }
        let fits = self.budget.reserve_hard(need);
        if !fits {
            self.budget.want(need);
        }
        fits
    }

    /// Evicts up to `limit` entries while the store as a whole is short of room and this shard
    /// holds more than its share. Returns how many went. To be called on every shard from time to
    /// time, and when [`Shard::make_room`] fails on another one.
    pub fn trim(
        &mut self,
        limit: usize,
        evictable: &mut Evictable<'_>,
        evicted: &mut OnGone<'_>,
    ) -> usize {
        if self.budget.pressure() == 0 {
            self.budget.satisfy();
        }
        let mut count = 0;
        while self.is_asked_to_give() {
            if self.free_garbage() {
                continue;
            }
            if count == limit || !self.evict_next(evictable, evicted) {
                break;
            }
            count += 1;
        }
        count
    }

    fn is_asked_to_give(&self) -> bool {
        self.policy == Policy::Evict
            && self.budget.pressure() > 0
            && self.used() as u64 > self.budget.share_under_pressure()
    }

    /// Evicts the next victim; `false` if there is none.
    fn evict_next(&mut self, evictable: &mut Evictable<'_>, evicted: &mut OnGone<'_>) -> bool {
        let mut hand = self.evict_hand;
        let mut spared = 0;
        let mut found = false;
        // A round in which all are spared, a second that spares none, and the rest of the slot in
        // whose middle the hand began.
        let slots = self.slot_count();
        for round in 0..=2 * slots {
            if round == slots {
                spared = STORE_SPARED_MAX;
            }
            let seeds = self.seeds;
            let (slot, data) = self.slot_at_mut(hand.slot);
            if data.header.keys() > 0 && evictable(&data.header) {
                let before = data.table.bytes();
                found = data.evict_from(seeds, slot, &mut hand, &mut spared, evicted);
                let after = data.table.bytes();
                self.settle(before, after);
                if found {
                    break;
                }
            }
            hand.next_slot(slots);
        }
        self.evict_hand = hand;
        found
    }
}

impl SlotData {
    /// Moves the hand to the next victim of this slot and evicts it; `false` at the slot's end.
    fn evict_from(
        &mut self,
        seeds: Seeds,
        slot: Slot,
        hand: &mut Hand,
        spared: &mut usize,
        evicted: &mut OnGone<'_>,
    ) -> bool {
        while let Some(buckets) = self.table.buckets(hand.part) {
            while hand.bucket < buckets {
                let bucket = hand.bucket;
                hand.bucket += 1;
                let Some(entry) = self.table.bucket_mut(hand.part, bucket) else { continue };
                if entry.is_tombstone() {
                    continue;
                }
                if *spared < STORE_SPARED_MAX && entry.cool() {
                    *spared += 1;
                    continue;
                }
                match part_with(&mut self.header, seeds, slot, entry, evicted) {
                    Some(rest) => self.table.replace_bucket(hand.part, bucket, rest),
                    None => self.table.remove_bucket(seeds, hand.part, bucket),
                }
                return true;
            }
            hand.part += 1;
            hand.bucket = 0;
        }
        false
    }
}
