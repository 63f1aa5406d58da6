//! What is due by `now`: expired values and old tombstones, found and removed in bounded steps.
//!
//! Reads never serve an expired value, so this is about memory alone. Nothing is kept per entry: a
//! part of a slot knows from when a look at it is worth its cost, which after a look is when 1/32
//! of its expiring values will have expired. Measured on a prototype: about 2 µs of CPU for each
//! expiry where lifetimes are spread over an hour.

use super::digest::Seeds;
use super::gone::{Hand, OnGone, part_with};
use super::header::SlotHeader;
use super::shard::{Shard, SlotData};
use super::table::NEVER;
use crate::types::{Slot, WallMillis};

/// What a walk over the parts of a shard did.
struct Round {
    /// Where the next one begins.
    hand: Hand,
    /// Entries removed.
    removed: usize,
    /// Whether every part was looked at.
    complete: bool,
}

impl Shard {
    /// Removes values whose time is over by `now`, looking at about `limit` entries (at most one
    /// part of a slot more), from where the last call stopped. Returns how many values went, at
    /// most `limit` of one part: freeing costs more than looking. Nothing is looked at that is not
    /// due, and if nothing in the shard is, the call ends at once.
    pub fn sweep(&mut self, now: WallMillis, limit: usize, expired: &mut OnGone<'_>) -> usize {
        self.free_garbage();
        if now.0 < self.sweep_from {
            return 0;
        }
        let mut next = NEVER;
        let round = self.patrol(self.sweep_hand, limit, &mut |seeds, slot, data, index| {
            let part = data.table.parts().get(index)?;
            let due = part.scan_from <= now.0;
            let removed = due.then(|| data.sweep_part(seeds, (slot, index), now, limit, expired));
            next = data.table.parts().get(index).map_or(next, |part| next.min(part.scan_from));
            removed
        });
        self.sweep_hand = round.hand;
        if round.complete {
            self.sweep_from = next;
        }
        round.removed
    }

    /// Removes tombstones whose clock is below what `below` says for their slot, looking at about
    /// `limit` entries from where the last call stopped. Returns how many went.
    pub fn reap_tombstones(
        &mut self,
        below: &mut dyn FnMut(&SlotHeader) -> u64,
        limit: usize,
    ) -> usize {
        let round = self.patrol(self.reap_hand, limit, &mut |seeds, _, data, index| {
            let oldest = data.table.parts().get(index)?.oldest_tombstone;
            if oldest == NEVER {
                return None;
            }
            let bound = below(&data.header);
            (oldest < bound).then(|| data.reap_part(seeds, index, bound))
        });
        self.reap_hand = round.hand;
        round.removed
    }

    /// Lets `work` do every part from `hand` on, once around at most. It returns how many entries
    /// it removed, or `None` where nothing was due; stops after about `limit` entries looked at.
    fn patrol(
        &mut self,
        mut hand: Hand,
        limit: usize,
        work: &mut dyn FnMut(Seeds, Slot, &mut SlotData, usize) -> Option<usize>,
    ) -> Round {
        let (mut looked, mut removed) = (0, 0);
        let (slots, seeds) = (self.slot_count(), self.seeds);
        for _ in 0..=slots {
            let (slot, data) = self.slot_at_mut(hand.slot);
            let before = data.table.bytes();
            while looked < limit
                && let Some(part) = data.table.parts().get(hand.part)
            {
                let (parts, entries) = (data.table.parts().len(), part.entries.len());
                if let Some(count) = work(seeds, slot, data, hand.part) {
                    looked += entries;
                    removed += count;
                }
                // A part that became empty has made room for the next at the same index.
                hand.part += usize::from(data.table.parts().len() == parts);
            }
            let after = data.table.bytes();
            self.settle(before, after);
            if looked >= limit {
                return Round { hand, removed, complete: false };
            }
            hand.next_slot(slots);
        }
        Round { hand, removed, complete: true }
    }
}

impl SlotData {
    fn sweep_part(
        &mut self,
        seeds: Seeds,
        (slot, part): (Slot, usize),
        now: WallMillis,
        limit: usize,
        expired: &mut OnGone<'_>,
    ) -> usize {
        let header = &mut self.header;
        let mut removed = 0;
        self.table.retain_part(seeds, part, |entry| {
            // What is left over keeps the part due.
            if removed >= limit || !entry.is_expired(now) {
                return true;
            }
            removed += 1;
            let Some(rest) = part_with(header, seeds, slot, entry, expired) else { return false };
            *entry = rest;
            true
        });
        removed
    }

    fn reap_part(&mut self, seeds: Seeds, part: usize, bound: u64) -> usize {
        let header = &mut self.header;
        let mut removed = 0;
        self.table.retain_part(seeds, part, |entry| {
            let goes = entry.is_tombstone() && entry.version().clock < bound;
            if goes {
                let record = entry.record();
                header.subtract(&seeds.share(seeds.key_hash(record.key), &record));
                removed += 1;
            }
            !goes
        });
        removed
    }
}
