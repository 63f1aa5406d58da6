//! The ghost of S3-FIFO: fingerprints of keys that were evicted lately without having been used.
//!
//! A key that comes back while its fingerprint is here goes to the main queue at once. Buckets of
//! eight fingerprints, newest first; how many of the eight count follows from the number of entries,
//! so that the ghost remembers about as many keys as the shard holds. It is made at the first
//! eviction, and costs about two bytes an entry.

use super::entry::charged_for;

/// Fingerprints of a bucket.
const WAYS: usize = 8;
/// So many tenths of the shard's entries are remembered.
const TENTHS: usize = 9;
/// Bits of the key hash below those that choose the bucket.
const BUCKET_BITS_FROM: u32 = 24;
/// Bits of the key hash below those of the fingerprint.
const FINGERPRINT_BITS_FROM: u32 = 8;

/// Remembers keys that were evicted.
#[derive(Debug, Default)]
pub(super) struct Ghost {
    /// A power of two of them, or none.
    buckets: Vec<[u16; WAYS]>,
    /// How many fingerprints of each bucket count.
    ways: usize,
    /// How often a key came back.
    pub(super) hits: u64,
}

/// How many keys a shard that has so many entries remembers.
const fn wanted(entries: usize) -> usize {
    let wanted = entries * TENTHS / 10;
    if wanted == 0 { 1 } else { wanted }
}

/// Never 0, which marks an empty place.
fn fingerprint(hash: u64) -> u16 {
    let bits = (hash >> FINGERPRINT_BITS_FROM) & u64::from(u16::MAX);
    u16::try_from(bits).unwrap_or_default().max(1)
}

impl Ghost {
    pub(super) const fn bytes(&self) -> usize {
        charged_for(self.buckets.capacity() * size_of::<[u16; WAYS]>())
    }

    fn bucket(&self, hash: u64) -> usize {
        (hash >> BUCKET_BITS_FROM) as usize & self.buckets.len().wrapping_sub(1)
    }

    /// Remembers a key of a shard that has so many entries.
    pub(super) fn insert(&mut self, hash: u64, entries: usize) {
        self.fit(entries);
        let (index, ways) = (self.bucket(hash), self.ways);
        let bucket = &mut self.buckets[index];
        bucket.copy_within(0..ways - 1, 1);
        bucket[0] = fingerprint(hash);
    }

    pub(super) fn contains(&self, hash: u64) -> bool {
        let bucket = self.buckets.get(self.bucket(hash));
        bucket.is_some_and(|bucket| bucket[..self.ways].contains(&fingerprint(hash)))
    }

    /// Forgets a key; says whether it was there.
    pub(super) fn take(&mut self, hash: u64) -> bool {
        let (index, ways) = (self.bucket(hash), self.ways);
        let Some(bucket) = self.buckets.get_mut(index) else { return false };
        let wanted = fingerprint(hash);
        let Some(at) = bucket[..ways].iter().position(|known| *known == wanted) else {
            return false;
        };
        bucket.copy_within(at + 1..ways, at);
        bucket[ways - 1] = 0;
        self.hits += 1;
        true
    }

    /// Bytes by which remembering a key of a shard that has so many entries makes it grow.
    pub(super) fn growth(&self, entries: usize) -> usize {
        let buckets = wanted(entries).div_ceil(WAYS).next_power_of_two();
        let grown = charged_for(buckets * size_of::<[u16; WAYS]>());
        if buckets > self.buckets.len() { grown - self.bytes() } else { 0 }
    }

    /// Sizes it by the number of entries. Growing copies the buckets to both halves: a key is never
    /// found in the wrong one, because its bits choose the other.
    fn fit(&mut self, entries: usize) {
        let wanted = wanted(entries);
        if self.buckets.is_empty() {
            self.buckets = vec![[0; WAYS]; wanted.div_ceil(WAYS).next_power_of_two()];
        }
        while self.buckets.len() * WAYS < wanted {
            self.buckets.extend_from_within(..);
        }
        let ways = wanted.div_ceil(self.buckets.len()).clamp(1, WAYS);
        if ways < self.ways {
            for bucket in &mut self.buckets {
                bucket[ways..].fill(0);
            }
        }
        self.ways = ways;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(number: u64) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes())
    }

    #[test]
    fn about_as_many_keys_are_remembered_as_there_are_entries() {
        let mut ghost = Ghost::default();
        for number in 0..50_000 {
            ghost.insert(hash(number), 10_000);
        }
        let known = (0..50_000).filter(|number| ghost.contains(hash(*number))).count();
        assert!((7_500..11_000).contains(&known), "{known}");
        let latest = (45_000..50_000).filter(|number| ghost.contains(hash(*number))).count();
        assert!(latest > 4_500, "{latest}");
        assert!(ghost.bytes() < 10_000 * 4);
    }

    #[test]
    fn a_key_that_came_back_is_forgotten_and_growing_forgets_nothing() {
        let mut ghost = Ghost::default();
        assert!(!ghost.take(hash(1)));
        for number in 0..20 {
            ghost.insert(hash(number), 100);
        }
        let known: Vec<u64> = (0..20).filter(|number| ghost.contains(hash(*number))).collect();
        assert!(known.len() > 15, "{}", known.len());
        ghost.insert(hash(100), 100_000);
        assert!(known.iter().all(|number| ghost.contains(hash(*number))));
        assert!(ghost.take(hash(known[0])) && !ghost.take(hash(known[0])));
        assert_eq!(ghost.hits, 1);
    }
}
