//! Values outside the pages: those that are large, and those with long keys. Each is an extent of a
//! slab, charged with what it takes there, and is named by a number that its entry keeps.
//!
//! ```text
//!   key length 4 │ value length 4 │ key │ value │ up to the extent's length
//! ```

use std::sync::Arc;

use super::slabs::{Extent, SlabPool, extent_len};
use crate::types::{BodyRef, RecordRef};

/// Bytes of a length before key and value.
const LENGTH_LEN: usize = 4;
/// Bytes before key and value.
const HEAD_LEN: usize = 2 * LENGTH_LEN;

/// Bytes charged for an outside value: its extent, and its place in the list.
pub(super) const fn charged(key: usize, value: usize) -> usize {
    charged_extent(extent_len(HEAD_LEN + key + value))
}

/// Bytes charged for an extent of this length.
pub(super) const fn charged_extent(length: usize) -> usize {
    length + size_of::<Extent>() + size_of::<u32>()
}

/// The outside values of a shard.
#[derive(Debug)]
pub(super) struct Outside {
    pool: Arc<SlabPool>,
    values: Vec<Extent>,
    /// Numbers whose value is gone.
    vacant: Vec<u32>,
    bytes: usize,
}

impl Outside {
    pub(super) const fn new(pool: Arc<SlabPool>) -> Self {
        Self { pool, values: Vec::new(), vacant: Vec::new(), bytes: 0 }
    }

    /// Bytes charged for all of them.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, record: &RecordRef<'_>) -> u32 {
        let value = match record.body {
            BodyRef::String(value) => value,
            BodyRef::Tombstone => &[],
        };
        let key = record.key;
        let mut extent = self.pool.take(HEAD_LEN + key.len() + value.len());
        let (head, rest) = extent.split_at_mut(HEAD_LEN);
        for (place, length) in head.chunks_exact_mut(LENGTH_LEN).zip([key.len(), value.len()]) {
            place.copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        }
        rest[..key.len()].copy_from_slice(key);
        rest[key.len()..key.len() + value.len()].copy_from_slice(value);
        self.bytes += charged_extent(extent.len());
        let number = self.vacant.pop().unwrap_or_else(|| {
            self.values.push(Extent::default());
            u32::try_from(self.values.len() - 1).unwrap_or(u32::MAX)
        });
        self.values[number as usize] = extent;
        number
    }

    /// Key and value of a number.
    pub(super) fn get(&self, number: u32) -> (&[u8], &[u8]) {
        let (head, rest) = self.values[number as usize].split_at(HEAD_LEN);
        let length = |at: usize| {
            let mut bytes = [0; LENGTH_LEN];
            bytes.copy_from_slice(&head[at..at + LENGTH_LEN]);
            u32::from_le_bytes(bytes) as usize
        };
        let (key, rest) = rest.split_at(length(0));
        (key, &rest[..length(LENGTH_LEN)])
    }

    pub(super) fn remove(&mut self, number: u32) {
        let extent = std::mem::take(&mut self.values[number as usize]);
        self.bytes -= charged_extent(extent.len());
        self.vacant.push(number);
        self.pool.give_back(extent);
    }

    /// The extents of all values, to be moved.
    pub(super) fn extents_mut(&mut self) -> impl Iterator<Item = &mut Extent> {
        self.values.iter_mut()
    }

    /// The number of values.
    #[cfg(test)]
    pub(super) const fn count(&self) -> usize {
        self.values.len() - self.vacant.len()
    }

    /// All of them, to be given back one by one.
    pub(super) fn into_values(self) -> Vec<Extent> {
        self.values.into_iter().filter(|extent| !extent.is_empty()).collect()
    }
}
