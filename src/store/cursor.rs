//! Walking a slot in the order of its key hashes, a few entries at a time.
//!
//! A position is a key hash: it means the same on every node and whatever was written since, so a
//! walk that was interrupted goes on where it was, also at another holder. Every entry that is
//! there during the whole walk is visited exactly once; one that comes or goes meanwhile may be.

use super::digest::hashes_of;
use super::entry::EntryRef;
use super::pages::Handle;
use super::shard::Shard;
use super::table::Keys;
use crate::types::{Db, Slot};

/// Bits of a key hash that a client's cursor leaves out, so that slot and hash fit.
const DROPPED_BITS: u32 = 12;
/// Bits of a key hash that a client's cursor holds; the upper four are the database.
const HASH_BITS: u32 = 60 - DROPPED_BITS;

/// Where a walk over one database goes on, as a number that fits a client's `SCAN`.
///
/// A number holds 48 bits of the hash: entries that share them with the next one are visited
/// again, which SCAN allows. 0 is the start of a walk and stands for its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The slot to go on in.
    pub slot: Slot,
    /// The hash to go on from.
    pub hash: u64,
}

impl Cursor {
    /// The start of a walk over `db`.
    pub const fn start(db: Db) -> Self {
        Self { slot: Slot::from_hash(0), hash: hashes_of(db).0 }
    }

    /// The number that a client is given: 1 to 2^62.
    pub const fn to_number(self) -> u64 {
        let prefix = (self.hash >> DROPPED_BITS) & ((1 << HASH_BITS) - 1);
        ((self.slot.get() as u64) << HASH_BITS | prefix) + 1
    }

    /// Reads a number that a client gave for a walk over `db`; `None` if no walk gives it.
    pub fn from_number(db: Db, number: u64) -> Option<Self> {
        let Some(place) = number.checked_sub(1) else { return Some(Self::start(db)) };
        let slot = Slot::new(u16::try_from(place >> HASH_BITS).ok()?)?;
        let prefix = place & ((1 << HASH_BITS) - 1);
        Some(Self { slot, hash: hashes_of(db).0 | prefix << DROPPED_BITS })
    }
}

impl Shard {
    /// Visits entries of `slot` in ascending order of their key hashes, from `from_hash` on, with
    /// their hashes: tombstones and expired values too. Stops after `limit` entries (at least
    /// one), but never between entries of equal hash. Returns the hash to go on from, or `None` at
    /// the end.
    ///
    /// A call sorts one part of the slot, at most 896 entries: limits near that size walk large
    /// slots cheapest.
    pub fn scan(
        &self,
        slot: Slot,
        from_hash: u64,
        limit: usize,
        visit: &mut dyn FnMut(u64, EntryRef<'_>),
    ) -> Option<u64> {
        let table = self.table(slot);
        let keys = Keys { log: &self.log, seeds: self.seeds };
        let mut index = table.part_index(from_hash);
        let mut left = limit.max(1);
        let mut order: Vec<(u64, Handle)> = Vec::new();
        while let Some(part) = table.parts().get(index) {
            order.clear();
            order.extend(part.hashed(keys).filter(|(hash, _)| *hash >= from_hash));
            order.sort_unstable();
            let mut last = None;
            for (hash, handle) in &order {
                if left == 0 && last != Some(*hash) {
                    return Some(*hash);
                }
                visit(*hash, self.log.entry(*handle));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_at_or_just_before_its_hash() {
        let db = Db::new(3).unwrap();
        for (slot, hash) in [(0, 0), (0, 5_000), (16_383, (1 << 60) - 1), (77, 0x1234_5678_9abc)] {
            let cursor = Cursor { slot: Slot::new(slot).unwrap(), hash: hashes_of(db).0 | hash };
            let number = cursor.to_number();
            assert!((1..=1 << 62).contains(&number));
            let back = Cursor::from_number(db, number).unwrap();
            assert_eq!(back.slot, cursor.slot);
            assert!(back.hash <= cursor.hash && cursor.hash - back.hash < 1 << DROPPED_BITS);
            assert_eq!(back.to_number(), number);
        }
        assert_eq!(Cursor::from_number(db, 0), Some(Cursor::start(db)));
        assert_eq!(Cursor::from_number(db, u64::MAX), None);
        assert_eq!(Cursor::from_number(db, (1 << 62) + 1), None);
    }
}
