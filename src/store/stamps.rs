//! What the versions of many entries have in common: the writes of one node under one term differ
//! only in their clock.
//!
//! Each such pair has a number of two bytes for as long as an entry has it, and an entry keeps the
//! number. A shard knows a few dozen pairs; where it knew thousands, further entries would keep
//! theirs whole.

use hashbrown::HashTable;

use crate::types::Version;

/// Stamps that have a number at once; few in tests, so that they see more of them.
const NUMBERED_MAX: usize = if cfg!(test) { 16 } else { 4096 };

/// A version but for its clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) term: u16,
    pub(super) origin: u32,
}

impl Stamp {
    pub(super) const fn of(version: Version) -> Self {
        Self { term: version.term, origin: version.origin }
    }

    pub(super) const fn at(self, clock: u64) -> Version {
        Version { term: self.term, clock, origin: self.origin }
    }

    /// A Fibonacci hash (Knuth, The Art of Computer Programming, volume 3, 6.4), its best bits low.
    const fn hash(self) -> u64 {
        let both = (self.origin as u64) << u16::BITS | self.term as u64;
        both.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(u32::BITS)
    }
}

/// The numbered stamps of a shard.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    /// By number: the stamp, and how many entries have it.
    numbered: Vec<(Stamp, u32)>,
    /// Numbers whose stamp no entry has.
    vacant: Vec<u16>,
    numbers: HashTable<u16>,
}

impl Stamps {
    /// The stamp of a number that was taken.
    pub(super) fn get(&self, number: u16) -> Stamp {
        self.numbered[usize::from(number)].0
    }

    /// Whether [`Stamps::take`] would give a number.
    pub(super) fn fits(&self, stamp: Stamp) -> bool {
        !self.vacant.is_empty()
            || self.numbered.len() < NUMBERED_MAX
            || self.number_of(stamp).is_some()
    }

    fn number_of(&self, stamp: Stamp) -> Option<u16> {
        let same = |number: &u16| self.get(*number) == stamp;
        self.numbers.find(stamp.hash(), same).copied()
    }

    /// The number for one more entry of this stamp; `None` if too many others have one.
    pub(super) fn take(&mut self, stamp: Stamp) -> Option<u16> {
        if let Some(number) = self.number_of(stamp) {
            self.numbered[usize::from(number)].1 += 1;
            return Some(number);
        }
        let number = match self.vacant.pop() {
            Some(number) => number,
            None if self.numbered.len() < NUMBERED_MAX => {
                self.numbered.push((stamp, 0));
                u16::try_from(self.numbered.len() - 1).ok()?
            }
            None => return None,
        };
        self.numbered[usize::from(number)] = (stamp, 1);
        let hash_of = |number: &u16| self.numbered[usize::from(*number)].0.hash();
        self.numbers.insert_unique(stamp.hash(), number, hash_of);
        Some(number)
    }

    /// An entry that had this number is gone.
    pub(super) fn give_back(&mut self, number: u16) {
        let (stamp, entries) = &mut self.numbered[usize::from(number)];
        *entries -= 1;
        if *entries == 0 {
            let same = |other: &u16| *other == number;
            if let Ok(found) = self.numbers.find_entry(stamp.hash(), same) {
                found.remove();
            }
            self.vacant.push(number);
        }
    }

    /// How many entries have each number.
    #[cfg(test)]
    pub(super) fn counts(&self) -> impl Iterator<Item = (u16, u32)> + '_ {
        (0..).zip(&self.numbered).map(|(number, (_, entries))| (number, *entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(origin: u32) -> Stamp {
        Stamp { term: 3, origin }
    }

    #[test]
    fn a_number_is_given_again_when_no_entry_has_it() {
        let mut stamps = Stamps::default();
        let numbers = [7, 8, 7].map(|origin| stamps.take(stamp(origin)).unwrap());
        assert_eq!(numbers, [0, 1, 0]);
        stamps.give_back(0);
        assert_eq!(stamps.get(0), stamp(7));
        stamps.give_back(0);
        assert_eq!(stamps.take(stamp(9)), Some(0));
        assert_eq!(stamps.get(0), stamp(9));
        assert_eq!(stamps.take(stamp(7)), Some(2));
        assert!(stamps.counts().eq([(0, 1), (1, 1), (2, 1)]));
    }

    #[test]
    fn there_are_only_so_many_numbers() {
        let mut stamps = Stamps::default();
        let most = u32::try_from(NUMBERED_MAX).unwrap();
        assert!((0..most).all(|origin| stamps.take(stamp(origin)).is_some()));
        assert!(!stamps.fits(stamp(most)));
        assert_eq!(stamps.take(stamp(most)), None);
        assert!(stamps.fits(stamp(5)));
        stamps.give_back(5);
        assert_eq!(stamps.take(stamp(most)), Some(5));
        assert!(!stamps.fits(stamp(5)));
    }
}
