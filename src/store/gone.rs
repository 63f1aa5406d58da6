//! Entries that go without a client's word, by eviction or expiry: who is told, and what remains.

use super::digest::Seeds;
use super::entry::Entry;
use super::header::SlotHeader;
use crate::types::{Slot, Version};

/// An entry that is going.
#[derive(Clone, Copy, Debug)]
pub struct Gone<'a> {
    /// Its slot.
    pub slot: Slot,
    /// The slot's header; its sums still count the entry.
    pub header: &'a SlotHeader,
    /// The stored key.
    pub key: &'a [u8],
    /// The version that goes.
    pub version: Version,
}

/// What remains of an entry that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    /// Nothing: no holder can bring the version back.
    Nothing,
    /// A tombstone of the same version, which wins over the value wherever it is merged.
    Tombstone,
}

/// Asks whether entries of a slot may be evicted.
pub type Evictable<'f> = dyn FnMut(&SlotHeader) -> bool + 'f;

/// Is told of an entry that is going, under the shard lock, and says what shall remain of it.
pub type OnGone<'f> = dyn FnMut(&Gone<'_>) -> Remains + 'f;

/// Tells of an entry's going and takes it out of the sums; returns the tombstone that is to take
/// its place, if any, already part of the sums.
pub(super) fn part_with(
    header: &mut SlotHeader,
    seeds: Seeds,
    slot: Slot,
    entry: &Entry,
    told: &mut OnGone<'_>,
) -> Option<Entry> {
    let record = entry.record();
    let remains = told(&Gone { slot, header, key: record.key, version: record.version });
    let hash = seeds.key_hash(record.key);
    header.subtract(&seeds.share(hash, &record));
    match remains {
        Remains::Nothing => None,
        Remains::Tombstone => {
            let tombstone = entry.tombstone();
            header.add(&seeds.share(hash, &tombstone.record()));
            Some(tombstone)
        }
    }
}

/// Where a background walk of a shard stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hand {
    /// Local number of the slot.
    pub(super) slot: usize,
    pub(super) part: usize,
    pub(super) bucket: usize,
}

impl Hand {
    /// Goes to the start of the next of `slots` slots.
    pub(super) const fn next_slot(&mut self, slots: usize) {
        let next = self.slot + 1;
        *self = Self { slot: if next < slots { next } else { 0 }, part: 0, bucket: 0 };
    }
}
