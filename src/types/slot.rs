//! Slots: the 16,384 parts of the key space, and sets of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of slots, as in Redis Cluster.
pub const SLOTS: u16 = 16_384;

/// One of the 16,384 slots: CRC16 of a key, or of its hash tag, modulo 16,384.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Slot(u16);

impl Slot {
    /// The slot of this number; `None` at 16,384 and above.
    pub const fn new(number: u16) -> Option<Self> {
        if number < SLOTS { Some(Self(number)) } else { None }
    }

    /// The slot of a hash: its value modulo 16,384.
    pub const fn from_hash(hash: u16) -> Self {
        Self(hash % SLOTS)
    }

    /// The slot's number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The slot's number as an index into a table of all slots.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Every slot in ascending order.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (0..SLOTS).map(Self)
    }

    /// This slot and every later one, in ascending order.
    pub fn onward(self) -> impl DoubleEndedIterator<Item = Self> + ExactSizeIterator {
        (self.0..SLOTS).map(Self)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({})", self.0)
    }
}

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u16::deserialize(deserializer)?;
        Self::new(number).ok_or_else(|| serde::de::Error::custom("slot out of range"))
    }
}

const WORDS: usize = SLOTS as usize / 64;

/// A set of slots: a bitmap of 2 KiB.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet(Box<[u64; WORDS]>);

impl SlotSet {
    /// The empty set.
    pub fn new() -> Self {
        Self(Box::new([0; WORDS]))
    }

    /// The set of all slots.
    pub fn full() -> Self {
        Self(Box::new([u64::MAX; WORDS]))
    }

    /// Adds a slot; `true` if it was not in the set.
    pub fn insert(&mut self, slot: Slot) -> bool {
        let (word, bit) = Self::place(slot);
        let was = self.0[word] & bit;
        self.0[word] |= bit;
        was == 0
    }

    /// Takes a slot out; `true` if it was in the set.
    pub fn remove(&mut self, slot: Slot) -> bool {
        let (word, bit) = Self::place(slot);
        let was = self.0[word] & bit;
        self.0[word] &= !bit;
        was != 0
    }

    /// Whether the slot is in the set.
    pub fn contains(&self, slot: Slot) -> bool {
        let (word, bit) = Self::place(slot);
        self.0[word] & bit != 0
    }

    /// How many slots are in the set.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether no slot is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// The slots of the set in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.0.iter().enumerate().flat_map(|(index, word)| {
            let base = u16::try_from(index * 64).unwrap_or(0);
            (0..64u16).filter(move |bit| word >> bit & 1 == 1).map(move |bit| Slot(base + bit))
        })
    }

    /// Adds every slot of `other`.
    pub fn union_with(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0.iter()) {
            *mine |= theirs;
        }
    }

    /// Takes out every slot that is not in `other`.
    pub fn intersect_with(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0.iter()) {
            *mine &= theirs;
        }
    }

    /// Takes out every slot of `other`.
    pub fn subtract(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0.iter()) {
            *mine &= !theirs;
        }
    }

    const fn place(slot: Slot) -> (usize, u64) {
        (slot.index() / 64, 1 << (slot.0 % 64))
    }
}

impl Default for SlotSet {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotSet({} slots)", self.len())
    }
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        let mut set = Self::new();
        for slot in slots {
            set.insert(slot);
        }
        set
    }
}

impl Serialize for SlotSet {
    /// Writes ranges: a list of (first, last) pairs, which is short for neighbouring slots.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut ranges: Vec<(Slot, Slot)> = Vec::new();
        for slot in self.iter() {
            match ranges.last_mut() {
                Some((_, last)) if last.0 + 1 == slot.0 => *last = slot,
                _ => ranges.push((slot, slot)),
            }
        }
        ranges.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SlotSet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ranges = Vec::<(Slot, Slot)>::deserialize(deserializer)?;
        if ranges.len() > usize::from(SLOTS) {
            return Err(serde::de::Error::custom("too many slot ranges"));
        }
        Ok(ranges.iter().flat_map(|(first, last)| (first.0..=last.0).map(Slot)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_travels_as_ranges_and_comes_back_equal() {
        let mut set: SlotSet = (10..20).chain(16_380..16_384).filter_map(Slot::new).collect();
        let bytes = postcard::to_stdvec(&set).unwrap();
        assert!(bytes.len() < 16);
        assert_eq!(postcard::from_bytes::<SlotSet>(&bytes).unwrap(), set);
        set.remove(Slot::new(12).unwrap());
        assert_ne!(postcard::from_bytes::<SlotSet>(&bytes).unwrap(), set);
        assert_eq!(set.len(), 13);
    }

    #[test]
    fn a_slot_out_of_range_is_refused() {
        let bytes = postcard::to_stdvec(&16_384u16).unwrap();
        assert!(postcard::from_bytes::<Slot>(&bytes).is_err());
    }
}
