//! What commands run against: one slot of one database.

use crate::types::WallMillis;

/// One slot of one database under its shard lock.
///
/// Live means: neither expired at [`Keyspace::now`], nor deleted. Implementations stamp versions,
/// queue replication and charge the memory budget; a command knows nothing of them.
pub trait Keyspace {
    /// The time at which the command runs; the same for all its calls.
    fn now(&self) -> WallMillis;

    /// The longest value that may be stored, in bytes.
    fn max_value_size(&self) -> usize;

    /// The live entry. Counts as a use, and as a hit or a miss.
    fn get(&mut self, name: &[u8]) -> Option<EntryView<'_>>;

    /// The live entry, without counting.
    fn peek(&mut self, name: &[u8]) -> Option<EntryView<'_>>;

    /// How the live entry is kept, without counting.
    fn kept(&mut self, name: &[u8]) -> Option<Kept>;

    /// Stores a value in the place of whatever is there. `expires_at` lies after `now`.
    fn set(&mut self, name: &[u8], value: &[u8], expires_at: Option<WallMillis>);

    /// Whether there is room for an expiry where the live entry has none: always where entries make room
    /// for others.
    fn has_room_to_expire(&mut self, name: &[u8]) -> bool;

    /// Gives a live entry another expiry and keeps its value; `false` if there is none.
    fn expire(&mut self, name: &[u8], expires_at: Option<WallMillis>) -> bool;

    /// Whether there is room for what a removal may leave behind: always where something is stored.
    fn has_room_to_remove(&self, name: &[u8]) -> bool;

    /// Removes a live entry; `false` if there is none.
    fn remove(&mut self, name: &[u8]) -> bool;
}

/// How an entry is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Uses that the eviction has counted lately, 0 to 3.
    pub uses: u8,
    /// Bytes that it takes, with its key and its part of the tables.
    pub bytes: usize,
}

/// A live entry. All values are strings in this release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryView<'a> {
    /// The value.
    pub value: &'a [u8],
    /// When it expires; `None` = never.
    pub expires_at: Option<WallMillis>,
}
