//! Entries that go without a client's word, by eviction or expiry: who is told, and what remains.

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

/// Is told of an entry that is going, under the shard lock, and says what shall remain of it.
pub type OnGone<'f> = dyn FnMut(&Gone<'_>) -> Remains + 'f;
