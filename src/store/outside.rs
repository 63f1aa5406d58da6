//! Values outside the pages: those that are large, and those with long keys. Each is one
//! allocation, charged as malloc makes it, and is named by a number that its entry keeps.

use super::entry::charged_for;
use crate::types::{BodyRef, RecordRef};

/// Bytes of the key's length before key and value.
const LENGTH_LEN: usize = 4;

/// Bytes charged for an outside value: its allocation, and its place in the list.
pub(super) const fn charged(key: usize, value: usize) -> usize {
    charged_allocation(LENGTH_LEN + key + value)
}

const fn charged_allocation(bytes: usize) -> usize {
    charged_for(bytes) + size_of::<Box<[u8]>>() + size_of::<u32>()
}

/// The outside values of a shard.
#[derive(Debug, Default)]
pub(super) struct Outside {
    values: Vec<Box<[u8]>>,
    /// Numbers whose value is gone.
    vacant: Vec<u32>,
    bytes: usize,
}

impl Outside {
    /// Bytes charged for all of them.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, record: &RecordRef<'_>) -> u32 {
        let value = match record.body {
            BodyRef::String(value) => value,
            BodyRef::Tombstone => &[],
        };
        let length = u32::try_from(record.key.len()).unwrap_or(u32::MAX);
        let bytes = [&length.to_le_bytes(), record.key, value].concat().into_boxed_slice();
        self.bytes += charged_allocation(bytes.len());
        let number = self.vacant.pop().unwrap_or_else(|| {
            self.values.push(Box::default());
            u32::try_from(self.values.len() - 1).unwrap_or(u32::MAX)
        });
        self.values[number as usize] = bytes;
        number
    }

    /// Key and value of a number.
    pub(super) fn get(&self, number: u32) -> (&[u8], &[u8]) {
        let bytes = &*self.values[number as usize];
        let (length, rest) = bytes.split_at(LENGTH_LEN);
        let mut key = [0; LENGTH_LEN];
        key.copy_from_slice(length);
        rest.split_at(u32::from_le_bytes(key) as usize)
    }

    pub(super) fn remove(&mut self, number: u32) {
        let bytes = std::mem::take(&mut self.values[number as usize]);
        self.bytes -= charged_allocation(bytes.len());
        self.vacant.push(number);
    }

    /// The number of values.
    #[cfg(test)]
    pub(super) const fn count(&self) -> usize {
        self.values.len() - self.vacant.len()
    }

    /// All of them, to be freed one by one.
    pub(super) fn into_values(self) -> Vec<Box<[u8]>> {
        self.values
    }
}
