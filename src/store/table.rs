//! The entries of one slot, found by key and walked in the order of their key hashes.
//!
//! ```text
//!   hash 0 ────────┬──────────────┬───────── 2^64
//!         part 0   │    part 1    │  part 2          each a hash table of at most 3,584 entries
//! ```
//!
//! A slot starts without any part and without an allocation. A part that is full is split at the
//! median of its hashes instead of growing, so that no step (growth, a page of a scan, a sweep)
//! ever touches more than one part, whether a slot holds sixty keys or, under one hash tag,
//! millions. The parts are in ascending order, each the home of all hashes from its start to the
//! next one's start; the first starts at 0. No part is empty.

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::digest::Seeds;
use super::entry::{Entry, charged_for};
use crate::limits::STORE_PART_MAX;
use crate::types::{BodyRef, RecordRef, WallMillis};

/// Later than anything: nothing to do for a part.
pub(super) const NEVER: u64 = u64::MAX;

/// One in this many of a part's expiring values may have expired before the part is looked at.
const EXPIRY_LAG_PART: usize = 32;

/// The entries of a range of key hashes.
pub(super) struct Part {
    start: u64,
    pub(super) entries: HashTable<Entry>,
    /// Bytes charged for the entries, the table not included.
    pub(super) entry_bytes: usize,
    /// Wall milliseconds from which a look for expired entries is worth its cost.
    pub(super) scan_from: u64,
    /// At most the lowest clock of a tombstone here.
    pub(super) oldest_tombstone: u64,
}

impl Part {
    fn new(start: u64, capacity: usize) -> Self {
        Self {
            start,
            entries: HashTable::with_capacity(capacity),
            entry_bytes: 0,
            scan_from: NEVER,
            oldest_tombstone: NEVER,
        }
    }

    fn table_bytes(&self) -> usize {
        charged_for(self.entries.allocation_size())
    }

    /// Lowers the hints so that the sweeps do not pass over this entry.
    pub(super) fn note(&mut self, record: &RecordRef<'_>) {
        match (record.body, record.expires_at) {
            (BodyRef::Tombstone, _) => {
                self.oldest_tombstone = self.oldest_tombstone.min(record.version.clock);
            }
            (_, Some(WallMillis(expiry))) => self.scan_from = self.scan_from.min(expiry),
            (_, None) => {}
        }
    }

    fn insert(&mut self, seeds: Seeds, hash: u64, entry: Entry) {
        self.note(&entry.record());
        self.entry_bytes += entry.charged();
        self.entries.insert_unique(table_hash(hash), entry, |entry| {
            table_hash(seeds.key_hash(entry.key()))
        });
    }

    fn is_full(&self) -> bool {
        self.entries.len() == self.entries.capacity()
    }

    /// Whether the table has the buckets for [`STORE_PART_MAX`] entries; removals leave marks in
    /// buckets, so that the capacity alone does not tell.
    fn is_at_largest(&self) -> bool {
        self.entries.num_buckets() * 7 / 8 >= STORE_PART_MAX
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
    /// Bytes charged: entries, tables, and the list of parts where it is an allocation.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// The entry of a key, whatever it is.
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<&Entry> {
        let part = self.parts.get(self.part_index(hash))?;
        part.entries.find(table_hash(hash), |entry| entry.key() == key)
    }

    /// Reads what finding this hash will read: its place, and the entry that is probably meant.
    pub(super) fn warm(&self, hash: u64) -> u8 {
        let part = self.parts.get(self.part_index(hash));
        let entry = part.and_then(|part| part.entries.find(table_hash(hash), |_| true));
        entry.map_or(0, Entry::warm)
    }

    /// The same, to be touched. Its length and version stay as they are.
    pub(super) fn find_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Entry> {
        let index = self.part_index(hash);
        let part = self.parts.get_mut(index)?;
        part.entries.find_mut(table_hash(hash), |entry| entry.key() == key)
    }

    /// Puts the record in the place of what its key has, which `before` sees first.
    pub(super) fn put(
        &mut self,
        seeds: Seeds,
        hash: u64,
        record: &RecordRef<'_>,
        before: impl FnOnce(&Entry),
    ) {
        let index = self.part_index(hash);
        if let Some(part) = self.parts.get_mut(index)
            && let Some(entry) =
                part.entries.find_mut(table_hash(hash), |entry| entry.key() == record.key)
        {
            before(entry);
            let old = entry.charged();
            entry.overwrite(record);
            let new = entry.charged();
            part.entry_bytes = part.entry_bytes + new - old;
            self.bytes = self.bytes + new - old;
            part.note(record);
        } else {
            self.insert(seeds, hash, Entry::new(record));
        }
    }

    /// Removes the entry of a key if `wanted` agrees.
    pub(super) fn remove(
        &mut self,
        seeds: Seeds,
        hash: u64,
        key: &[u8],
        wanted: impl FnOnce(&Entry) -> bool,
    ) -> bool {
        let index = self.part_index(hash);
        let Some(part) = self.parts.get_mut(index) else { return false };
        let found = part.entries.find_entry(table_hash(hash), |entry| entry.key() == key);
        let Ok(found) = found else { return false };
        if !wanted(found.get()) {
            return false;
        }
        let (entry, _) = found.remove();
        part.entry_bytes -= entry.charged();
        self.bytes -= entry.charged();
        self.tidy(seeds, index);
        true
    }

    /// Bytes that inserting a new key adds at most, besides its entry.
    pub(super) fn growth(&self, hash: u64) -> usize {
        let Some(part) = self.parts.get(self.part_index(hash)) else {
            return charged_for(4 * (size_of::<Entry>() + 1) + 16);
        };
        if !part.is_full() {
            return 0;
        }
        // Growing doubles the table; a split makes two of the same size, and a longer list.
        part.table_bytes() + charged_for(2 * (self.list_bytes() + 2 * size_of::<Part>())) + 64
    }

    /// The bucket's entry of a part, to be looked at by the eviction.
    pub(super) fn bucket_mut(&mut self, part: usize, bucket: usize) -> Option<&mut Entry> {
        self.parts.get_mut(part)?.entries.get_bucket_mut(bucket)
    }

    /// Buckets of a part; `None` past the last part.
    pub(super) fn buckets(&self, part: usize) -> Option<usize> {
        Some(self.parts.get(part)?.entries.num_buckets())
    }

    /// Removes the entry of a bucket.
    pub(super) fn remove_bucket(&mut self, seeds: Seeds, index: usize, bucket: usize) {
        let Some(part) = self.parts.get_mut(index) else { return };
        let Ok(found) = part.entries.get_bucket_entry(bucket) else { return };
        let (entry, _) = found.remove();
        part.entry_bytes -= entry.charged();
        self.bytes -= entry.charged();
        self.tidy(seeds, index);
    }

    /// Puts another entry of the same key into a bucket.
    pub(super) fn replace_bucket(&mut self, index: usize, bucket: usize, entry: Entry) {
        let Some(part) = self.parts.get_mut(index) else { return };
        part.note(&entry.record());
        let Some(place) = part.entries.get_bucket_mut(bucket) else { return };
        let (old, new) = (place.charged(), entry.charged());
        *place = entry;
        part.entry_bytes = part.entry_bytes + new - old;
        self.bytes = self.bytes + new - old;
    }

    /// Walks one part, lets `visit` keep, replace or remove each entry (the return value says
    /// which stay), and renews the part's hints. `false` past the last part.
    ///
    /// A part that becomes empty is gone afterwards, and the next one has its index.
    pub(super) fn retain_part(
        &mut self,
        seeds: Seeds,
        index: usize,
        mut visit: impl FnMut(&mut Entry) -> bool,
    ) -> bool {
        let Some(part) = self.parts.get_mut(index) else { return false };
        let mut kept_bytes = 0;
        let mut expiries: Vec<u64> = Vec::new();
        part.oldest_tombstone = NEVER;
        part.entries.retain(|entry| {
            let kept = visit(entry);
            if kept {
                kept_bytes += entry.charged();
                if entry.is_tombstone() {
                    part.oldest_tombstone = part.oldest_tombstone.min(entry.version().clock);
                } else if let Some(expiry) = entry.expires_at() {
                    expiries.push(expiry.0);
                }
            }
            kept
        });
        let rank = expiries.len() / EXPIRY_LAG_PART;
        let due = expiries.get(rank).is_some().then(|| *expiries.select_nth_unstable(rank).1);
        part.scan_from = due.unwrap_or(NEVER);
        self.bytes = self.bytes + kept_bytes - part.entry_bytes;
        part.entry_bytes = kept_bytes;
        self.tidy(seeds, index);
        true
    }

    /// Takes out everything whose hash is in `first..=last`: whole parts go to the returned table
    /// unseen, entries of parts that reach beyond are removed here.
    pub(super) fn cut(&mut self, seeds: Seeds, first: u64, last: u64) -> Self {
        let mut out = Self::default();
        let mut index = self.part_index(first);
        while let Some(part) = self.parts.get(index) {
            if part.start > last {
                break;
            }
            let end = self.parts.get(index + 1).map_or(u64::MAX, |next| next.start - 1);
            if part.start >= first && end <= last {
                let part = self.take_part(index);
                let bytes = part.entry_bytes + part.table_bytes();
                self.bytes -= bytes;
                out.bytes += bytes;
                out.parts.push(part);
                continue;
            }
            let parts = self.parts.len();
            let inside = |entry: &Entry| (first..=last).contains(&seeds.key_hash(entry.key()));
            self.retain_part(seeds, index, |entry| !inside(entry));
            // A part that became empty has made room for the next at the same index.
            index += usize::from(self.parts.len() == parts);
        }
        out.bytes += out.list_bytes();
        out
    }

    /// Frees the last part.
    pub(super) fn drop_part(&mut self) {
        let before = self.list_bytes();
        if let Some(part) = self.parts.pop() {
            self.bytes -= part.entry_bytes + part.table_bytes();
        }
        if self.parts.len() <= 1 {
            self.parts.shrink_to_fit();
        }
        self.bytes = self.bytes + self.list_bytes() - before;
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

    fn insert(&mut self, seeds: Seeds, hash: u64, entry: Entry) {
        let mut index = self.part_index(hash);
        if self.parts.is_empty() {
            self.parts.push(Part::new(0, 0));
        }
        let part = &self.parts[index];
        if part.is_full() && part.entries.len() > STORE_PART_MAX / 2 && self.split(seeds, index) {
            index = self.part_index(hash);
        }
        let part = &mut self.parts[index];
        let before = part.table_bytes();
        self.bytes += entry.charged();
        part.insert(seeds, hash, entry);
        self.bytes = self.bytes + part.table_bytes() - before;
    }

    /// Splits a part at its median if its table has reached the largest size; `false` if it may
    /// still grow or if all its hashes are the same.
    fn split(&mut self, seeds: Seeds, index: usize) -> bool {
        let part = &self.parts[index];
        if !part.is_at_largest() {
            return false;
        }
        let mut hashes: Vec<u64> =
            part.entries.iter().map(|entry| seeds.key_hash(entry.key())).collect();
        let middle = hashes.len() / 2;
        let (lower, median, upper) = hashes.select_nth_unstable(middle);
        let pivot = if lower.iter().any(|hash| *hash < *median) {
            *median
        } else {
            match upper.iter().filter(|hash| **hash > *median).min() {
                Some(above) => *above,
                None => return false,
            }
        };
        let before = self.list_bytes();
        let old = std::mem::replace(&mut self.parts[index], Part::new(0, 0));
        self.bytes -= old.table_bytes();
        let mut below = Part::new(old.start, STORE_PART_MAX * 3 / 4);
        let mut above = Part::new(pivot, STORE_PART_MAX * 3 / 4);
        for entry in old.entries {
            let hash = seeds.key_hash(entry.key());
            let side = if hash < pivot { &mut below } else { &mut above };
            side.insert(seeds, hash, entry);
        }
        self.bytes += below.table_bytes() + above.table_bytes();
        self.parts[index] = below;
        self.parts.insert(index + 1, above);
        self.bytes = self.bytes + self.list_bytes() - before;
        true
    }

    /// After removals: drops the part if it is empty, shrinks its table if it is nearly so.
    fn tidy(&mut self, seeds: Seeds, index: usize) {
        let part = &mut self.parts[index];
        let (entries, buckets) = (part.entries.len(), part.entries.num_buckets());
        if entries == 0 {
            let part = self.take_part(index);
            self.bytes -= part.table_bytes();
            return;
        }
        if buckets >= 64 && entries * 8 < buckets {
            let before = part.table_bytes();
            part.entries.shrink_to(entries * 2, |entry| table_hash(seeds.key_hash(entry.key())));
            self.bytes = self.bytes + part.table_bytes() - before;
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

    /// [`SlotTable::bytes`], counted anew.
    #[cfg(test)]
    pub(super) fn recount_bytes(&self) -> usize {
        let entries: usize =
            self.parts.iter().flat_map(|part| part.entries.iter()).map(Entry::charged).sum();
        let tables: usize = self.parts.iter().map(Part::table_bytes).sum();
        entries + tables + self.list_bytes()
    }

    /// Fails if a part is empty, out of order, or holds what is not its own.
    #[cfg(test)]
    pub(super) fn check(&self, seeds: Seeds) {
        assert_eq!(self.bytes, self.recount_bytes());
        assert!(self.parts.first().is_none_or(|part| part.start == 0));
        assert!(self.parts.is_sorted_by(|a, b| a.start < b.start));
        for (index, part) in self.parts.iter().enumerate() {
            assert!(!part.entries.is_empty());
            let bytes: usize = part.entries.iter().map(Entry::charged).sum();
            assert_eq!(part.entry_bytes, bytes);
            for entry in &part.entries {
                assert_eq!(self.part_index(seeds.key_hash(entry.key())), index);
            }
        }
    }
}
