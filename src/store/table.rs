//! The entries of one slot, found by key and walked in the order of their key hashes.
//!
//! ```text
//!   hash 0 ────────┬──────────────┬───────── 2^64
//!         part 0   │    part 1    │  part 2          each a hash table of at most 896 handles
//! ```
//!
//! A slot starts without any part and without an allocation. A part that is full is split at the
//! median of its hashes instead of growing, so that no step (growth, a page of a scan, a flush)
//! ever touches more than one part, whether a slot holds sixty keys or, under one hash tag,
//! millions. The parts are in ascending order, each the home of all hashes from its start to the
//! next one's start; the first starts at 0. No part is empty.
//!
//! A table holds handles, four bytes an entry; keys and hashes are read from the pages.

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::digest::Seeds;
use super::entry::charged_for;
use super::pages::{Handle, Log};
use crate::limits::STORE_PART_MAX;

/// A table whose entries are one part in this many fewer than it could hold is not made larger.
const MARKS_PART: usize = 16;

/// Later than anything: nothing to do.
pub(super) const NEVER: u64 = u64::MAX;

/// Where the keys of handles are read.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    pub(super) log: &'a Log,
    pub(super) seeds: Seeds,
}

impl Keys<'_> {
    fn key_hash(self, handle: Handle) -> u64 {
        self.seeds.key_hash(self.log.entry(handle).key())
    }

    fn table_hash(self, handle: Handle) -> u64 {
        table_hash(self.key_hash(handle))
    }
}

/// The handles of a range of key hashes.
pub(super) struct Part {
    start: u64,
    handles: HashTable<Handle>,
}

impl Part {
    fn new(start: u64, capacity: usize) -> Self {
        Self { start, handles: HashTable::with_capacity(capacity) }
    }

    fn bytes(&self) -> usize {
        charged_for(self.handles.allocation_size())
    }

    fn insert(&mut self, keys: Keys<'_>, hash: u64, handle: Handle) {
        self.handles.insert_unique(table_hash(hash), handle, |handle| keys.table_hash(*handle));
    }

    fn is_full(&self) -> bool {
        self.handles.len() == self.handles.capacity()
    }

    /// Entries that the buckets are enough for. Removals leave marks in buckets, so that the capacity
    /// alone does not tell.
    fn most(&self) -> usize {
        self.handles.num_buckets() * 7 / 8
    }

    /// Whether the table has the buckets for [`STORE_PART_MAX`] entries.
    fn is_at_largest(&self) -> bool {
        self.most() >= STORE_PART_MAX
    }

    /// Whether it is marks that fill the table. It would grow though its buckets are enough, and stay so
    /// large as long as entries come and go: twice the bytes for nothing.
    fn is_full_of_marks(&self) -> bool {
        self.is_full() && self.handles.len() * MARKS_PART <= self.most() * (MARKS_PART - 1)
    }

    /// Takes the marks away: all handles go to another table of the same size.
    fn clear_marks(&mut self, keys: Keys<'_>) {
        let fresh = HashTable::with_capacity(self.most());
        for handle in std::mem::replace(&mut self.handles, fresh) {
            self.handles.insert_unique(keys.table_hash(handle), handle, |it| keys.table_hash(*it));
        }
    }

    /// The handles, with the hashes of their keys.
    pub(super) fn hashed<'a>(&'a self, keys: Keys<'a>) -> impl Iterator<Item = (u64, Handle)> + 'a {
        self.handles.iter().map(move |handle| (keys.key_hash(*handle), *handle))
    }

    /// The handles, in no order.
    pub(super) fn into_handles(self) -> Vec<Handle> {
        self.handles.into_iter().collect()
    }
}

/// The hash that tables use: they look at the upper and lower ends, which within a part are the
/// same for all (the upper bits of the key hash) or free (the lower ones).
const fn table_hash(key_hash: u64) -> u64 {
    key_hash.rotate_left(32)
}

/// All entries of a slot.
#[derive(Default)]
pub(super) struct SlotTable {
    parts: SmallVec<[Part; 1]>,
    bytes: usize,
}

impl SlotTable {
    /// Bytes charged: tables, and the list of parts where it is an allocation.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.handles.len()).sum()
    }

    /// The entry of a key, whatever it is.
    pub(super) fn find(&self, log: &Log, hash: u64, key: &[u8]) -> Option<Handle> {
        let part = self.parts.get(self.part_index(hash))?;
        part.handles.find(table_hash(hash), |handle| log.entry(*handle).key() == key).copied()
    }

    /// Reads what finding this hash will read: its place, and the entry that is probably meant.
    pub(super) fn warm(&self, log: &Log, hash: u64) -> u8 {
        let part = self.parts.get(self.part_index(hash));
        let handle = part.and_then(|part| part.handles.find(table_hash(hash), |_| true));
        handle.map_or(0, |handle| log.entry(*handle).warm())
    }

    /// The entry of this key hash has moved.
    pub(super) fn replace(&mut self, hash: u64, old: Handle, new: Handle) {
        let index = self.part_index(hash);
        let part = self.parts.get_mut(index);
        let found =
            part.and_then(|part| part.handles.find_mut(table_hash(hash), |handle| *handle == old));
        *found.expect("an entry of a page is in its slot's table") = new;
    }

    /// Takes a handle out; its entry may still be read.
    pub(super) fn remove(&mut self, keys: Keys<'_>, hash: u64, handle: Handle) {
        let index = self.part_index(hash);
        let part = self.parts.get_mut(index);
        let found = part
            .and_then(|part| part.handles.find_entry(table_hash(hash), |it| *it == handle).ok());
        found.expect("an entry of a page is in its slot's table").remove();
        self.tidy(keys, index);
    }

    /// Bytes that inserting a new key adds at most, besides its entry.
    pub(super) fn growth(&self, hash: u64) -> usize {
        let Some(part) = self.parts.get(self.part_index(hash)) else {
            return charged_for(4 * (size_of::<Handle>() + 1) + 16);
        };
        if !part.is_full() {
            return 0;
        }
        // Growing doubles the table; a split makes two of the same size, and a longer list.
        part.bytes() + charged_for(2 * (self.list_bytes() + 2 * size_of::<Part>())) + 64
    }

    /// Takes out everything whose hash is in `first..=last`: whole parts go to the returned table
    /// unseen, handles of parts that reach beyond are picked.
    pub(super) fn cut(&mut self, keys: Keys<'_>, first: u64, last: u64) -> Self {
        let mut out = Self::default();
        let mut index = self.part_index(first);
        while let Some(part) = self.parts.get_mut(index) {
            if part.start > last {
                break;
            }
            let (start, before) = (part.start, part.bytes());
            let end = self.parts.get(index + 1).map_or(u64::MAX, |next| next.start - 1);
            let parts = self.parts.len();
            if start >= first && end <= last {
                let part = self.take_part(index);
                self.bytes -= before;
                out.push(part);
            } else if let Some(part) = self.parts.get_mut(index) {
                let mut picked = Part::new(start, 0);
                let inside = |handle: &mut Handle| (first..=last).contains(&keys.key_hash(*handle));
                for handle in part.handles.extract_if(inside) {
                    picked.insert(keys, keys.key_hash(handle), handle);
                }
                if !picked.handles.is_empty() {
                    out.push(picked);
                }
                self.tidy(keys, index);
            }
            // A part that became empty has made room for the next at the same index.
            index += usize::from(self.parts.len() == parts);
        }
        out
    }

    fn push(&mut self, part: Part) {
        let before = self.list_bytes();
        self.bytes += part.bytes();
        self.parts.push(part);
        self.bytes = self.bytes + self.list_bytes() - before;
    }

    /// Takes out the last part.
    pub(super) fn pop_part(&mut self) -> Option<Part> {
        let before = self.list_bytes();
        let part = self.parts.pop()?;
        self.bytes -= part.bytes();
        if self.parts.len() <= 1 {
            self.parts.shrink_to_fit();
        }
        self.bytes = self.bytes + self.list_bytes() - before;
        Some(part)
    }

    /// The index of the part in whose range the hash is.
    pub(super) fn part_index(&self, hash: u64) -> usize {
        if self.parts.len() <= 1 {
            return 0;
        }
        self.parts.partition_point(|part| part.start <= hash).saturating_sub(1)
    }

    /// The first hash of a part's range; `None` past the last part.
    pub(super) fn start_of(&self, part: usize) -> Option<u64> {
        Some(self.parts.get(part)?.start)
    }

    /// Puts in the handle of a key that is not there.
    pub(super) fn insert(&mut self, keys: Keys<'_>, hash: u64, handle: Handle) {
        let mut index = self.part_index(hash);
        if self.parts.is_empty() {
            self.parts.push(Part::new(0, 0));
        }
        let part = &mut self.parts[index];
        if part.is_full_of_marks() {
            part.clear_marks(keys);
        }
        if part.is_full() && part.handles.len() > STORE_PART_MAX / 2 && self.split(keys, index) {
            index = self.part_index(hash);
        }
        let part = &mut self.parts[index];
        let before = part.bytes();
        part.insert(keys, hash, handle);
        self.bytes = self.bytes + part.bytes() - before;
    }

    /// Splits a part at its median if its table has reached the largest size; `false` if it may
    /// still grow or if all its hashes are the same.
    fn split(&mut self, keys: Keys<'_>, index: usize) -> bool {
        let part = &self.parts[index];
        if !part.is_at_largest() {
            return false;
        }
        let mut hashed: Vec<(u64, Handle)> = part.hashed(keys).collect();
        let middle = hashed.len() / 2;
        let (lower, (median, _), upper) =
            hashed.select_nth_unstable_by_key(middle, |(hash, _)| *hash);
        let pivot = if lower.iter().any(|(hash, _)| hash < median) {
            *median
        } else {
            match upper.iter().map(|(hash, _)| *hash).filter(|hash| hash > median).min() {
                Some(above) => above,
                None => return false,
            }
        };
        let before = self.list_bytes();
        let old = std::mem::replace(&mut self.parts[index], Part::new(0, 0));
        self.bytes -= old.bytes();
        let mut below = Part::new(old.start, STORE_PART_MAX * 3 / 4);
        let mut above = Part::new(pivot, STORE_PART_MAX * 3 / 4);
        for (hash, handle) in hashed {
            let side = if hash < pivot { &mut below } else { &mut above };
            side.insert(keys, hash, handle);
        }
        self.bytes += below.bytes() + above.bytes();
        self.parts[index] = below;
        self.parts.insert(index + 1, above);
        self.bytes = self.bytes + self.list_bytes() - before;
        true
    }

    /// After removals: drops the part if it is empty, shrinks its table if it is nearly so. The
    /// bytes of its table may have changed meanwhile.
    fn tidy(&mut self, keys: Keys<'_>, index: usize) {
        let part = &mut self.parts[index];
        let (entries, buckets) = (part.handles.len(), part.handles.num_buckets());
        if entries == 0 {
            let part = self.take_part(index);
            self.bytes -= part.bytes();
            return;
        }
        if buckets >= 64 && entries * 8 < buckets {
            let before = part.bytes();
            part.handles.shrink_to(entries * 2, |handle| keys.table_hash(*handle));
            self.bytes = self.bytes + part.bytes() - before;
        }
    }

    /// Takes a part out; its range falls to the one before, or to the next if it was the first.
    /// What the part is charged is for the caller to take off.
    fn take_part(&mut self, index: usize) -> Part {
        let before = self.list_bytes();
        let part = self.parts.remove(index);
        if let Some(first) = self.parts.first_mut() {
            first.start = 0;
        }
        if self.parts.len() <= 1 {
            self.parts.shrink_to_fit();
        }
        self.bytes = self.bytes + self.list_bytes() - before;
        part
    }

    fn list_bytes(&self) -> usize {
        let spilled = self.parts.spilled();
        if spilled { charged_for(self.parts.capacity() * size_of::<Part>()) } else { 0 }
    }

    /// Fails if a part is empty, out of order, or holds what is not its own.
    #[cfg(test)]
    pub(super) fn check(&self, keys: Keys<'_>) {
        let tables: usize = self.parts.iter().map(Part::bytes).sum();
        assert_eq!(self.bytes, tables + self.list_bytes());
        assert!(self.parts.first().is_none_or(|part| part.start == 0));
        assert!(self.parts.is_sorted_by(|a, b| a.start < b.start));
        for (index, part) in self.parts.iter().enumerate() {
            assert!(!part.handles.is_empty());
            assert!(part.hashed(keys).all(|(hash, _)| self.part_index(hash) == index));
        }
    }
}
