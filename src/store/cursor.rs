//! Walking a slot in the order of its key hashes, a few entries at a time.
//!
//! A position is a key hash: it means the same on every node and whatever was written since, so a
//! walk that was interrupted goes on where it was, also at another holder. Every entry that is
//! there during the whole walk is visited exactly once; one that comes or goes meanwhile may be.

use super::entry::EntryRef;
use super::shard::Shard;
use crate::types::Slot;

impl Shard {
    /// Visits entries of `slot` in ascending order of their key hashes, from `from_hash` on, with
    /// their hashes: tombstones and expired values too. Stops after `limit` entries (at least
    /// one), but never between entries of equal hash. Returns the hash to go on from, or `None` at
    /// the end.
    ///
    /// A call sorts one part of the slot, at most 3,584 entries: limits near that size walk large
    /// slots cheapest.
    pub fn scan(
        &self,
        slot: Slot,
        from_hash: u64,
        limit: usize,
        visit: &mut dyn FnMut(u64, EntryRef<'_>),
    ) -> Option<u64> {
        let table = self.table(slot);
        let mut index = table.part_index(from_hash);
        let mut left = limit.max(1);
        let mut order: Vec<(u64, usize)> = Vec::new();
        while let Some(part) = table.parts().get(index) {
            order.clear();
            order.extend(part.entries.iter_buckets().filter_map(|bucket| {
                let hash = self.key_hash(part.entries.get_bucket(bucket)?.key());
                (hash >= from_hash).then_some((hash, bucket))
            }));
            order.sort_unstable();
            let mut last = None;
            for (hash, bucket) in &order {
                if left == 0 && last != Some(*hash) {
                    return Some(*hash);
                }
                if let Some(entry) = part.entries.get_bucket(*bucket) {
                    visit(*hash, EntryRef::new(entry));
                }
                left = left.saturating_sub(1);
                last = Some(*hash);
            }
            index += 1;
            if left == 0 {
                return table.start_of(index);
            }
        }
        None
    }
}
