//! The header of a slot: what a node knows about the slot itself.
//!
//! The first half are facts that the cluster layer keeps here because they must be read and changed
//! under the same lock as the data: who is complete, who acts, under which term, who receives. The
//! second half are sums over the data (counts, digest) and floors, kept by the store alone.

use smallvec::SmallVec;
use thin_vec::ThinVec;

use super::Totals;
use super::digest::Share;
use crate::types::{Db, NodeId, Term, Version};

/// Facts about one slot at one node, and sums over its data.
///
/// A node has 16,384 of them, most with empty lists: a list takes eight bytes while it is empty.
#[derive(Clone, Debug, Default)]
pub struct SlotHeader {
    /// This node has every record of the slot, by its own word.
    pub complete: bool,
    /// This node holds the acting bit.
    pub acting: bool,
    /// This node held the acting bit when it was fenced, and does not know yet who has it now.
    pub fenced: bool,
    /// The copy was complete until others had gone on without it, and is to be filled: whoever takes the
    /// slot from nobody takes in what it has. It says nothing of a copy that is complete.
    pub discounted: bool,
    /// The highest term seen for this slot; the own one while acting.
    pub term: Term,
    /// The highest term that anybody was found to know: whoever takes the bit goes above it.
    pub above: Term,
    successor: Option<Box<NodeId>>,
    /// Nodes that get every write though they may not be of the set: those that fill the slot from here,
    /// and holders that have not dropped their copy.
    pub receivers: ThinVec<NodeId>,
    /// For each other holder the clock up to which it was proved equal.
    pub marks: ThinVec<(NodeId, u64)>,
    /// The clock up to which this node's own copy is proved equal to the acting node's.
    pub as_of: u64,
    /// The highest clock of what was evicted here, and of tombstones that went though a holder may not
    /// have seen them: what this copy lacks at or below may have been evicted or deleted.
    pub forgotten: u64,
    floors: Floors,
    sums: ThinVec<(Db, Sums)>,
}

/// Versions at or below which nothing exists.
#[derive(Clone, Debug, Default)]
struct Floors {
    all: Version,
    dbs: ThinVec<(Db, Version)>,
}

/// Sums over the entries of one database in one slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums {
    keys: u32,
    expiring: u32,
    tombstones: u32,
    digest: u64,
    /// Bytes of the values' entries.
    bytes: u64,
    /// At least the highest version there is; removals do not lower it.
    newest: Version,
}

impl SlotHeader {
    /// Others went on without this copy: it is not complete any more.
    pub const fn discount(&mut self) {
        self.discounted |= self.complete;
        self.complete = false;
    }

    /// Who took the acting bit from this node, or is known to hold it.
    pub fn successor(&self) -> Option<NodeId> {
        self.successor.as_deref().copied()
    }

    /// Notes who took the acting bit.
    pub fn set_successor(&mut self, successor: Option<NodeId>) {
        self.successor = successor.map(Box::new);
    }

    /// Something of this clock went without a trace.
    pub fn forget(&mut self, clock: u64) {
        self.forgotten = self.forgotten.max(clock);
    }

    /// XOR over the hashes of all values, expired ones that were not removed yet included.
    pub fn digest(&self) -> u64 {
        self.sums.iter().fold(0, |digest, (_, sums)| digest ^ sums.digest)
    }

    /// Values in all databases, expired ones that were not removed yet included.
    pub fn keys(&self) -> u32 {
        self.sums.iter().map(|(_, sums)| sums.keys).sum()
    }

    /// Values in one database, expired ones that were not removed yet included.
    pub fn keys_in(&self, db: Db) -> u32 {
        self.sums_of(db).keys
    }

    /// Values with an expiry in one database.
    pub fn expiring_in(&self, db: Db) -> u32 {
        self.sums_of(db).expiring
    }

    /// Tombstones in all databases.
    pub fn tombstones(&self) -> u32 {
        self.sums.iter().map(|(_, sums)| sums.tombstones).sum()
    }

    /// Bytes of all values with their keys and heads, tombstones and tables not included.
    pub fn bytes(&self) -> usize {
        let bytes: u64 = self.sums.iter().map(|(_, sums)| sums.bytes).sum();
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// The version at or below which no key of `db` exists.
    pub fn floor(&self, db: Db) -> Version {
        let own = self.floors.dbs.iter().find(|(of, _)| *of == db);
        own.map_or(self.floors.all, |(_, floor)| self.floors.all.max(*floor))
    }

    /// Every floor that was set: that of all databases as `None`, then by database.
    pub fn floors(&self) -> impl Iterator<Item = (Option<Db>, Version)> + '_ {
        let all = (self.floors.all > Version::ZERO).then_some((None, self.floors.all));
        all.into_iter().chain(self.floors.dbs.iter().map(|(db, floor)| (Some(*db), *floor)))
    }

    /// Reads a little of everything that operations look at, which lies in several lines of memory.
    pub(super) fn warm(&self) -> u8 {
        let sums = self.sums.first().is_some_and(|(_, sums)| sums.keys == 0);
        u8::from(self.acting)
            ^ u8::from(self.term.counter == 0)
            ^ u8::from(self.receivers.is_empty())
            ^ u8::from(self.floors.dbs.is_empty())
            ^ u8::from(sums)
    }

    /// Adds the counts to those of the whole store.
    pub(super) fn add_to(&self, totals: &mut Totals) {
        for (db, sums) in &self.sums {
            totals.keys += u64::from(sums.keys);
            totals.tombstones += u64::from(sums.tombstones);
            let of_db = &mut totals.dbs[usize::from(db.get())];
            of_db.keys += u64::from(sums.keys);
            of_db.expiring += u64::from(sums.expiring);
        }
    }

    /// Raises a floor; `false` if it is as high already.
    pub(super) fn raise_floor(&mut self, db: Option<Db>, floor: Version) -> bool {
        let Some(db) = db else {
            let raised = floor > self.floors.all;
            self.floors.all = self.floors.all.max(floor);
            self.floors.dbs.retain(|(_, own)| *own > floor);
            return raised;
        };
        if floor <= self.floor(db) {
            return false;
        }
        match self.floors.dbs.binary_search_by_key(&db, |(of, _)| *of) {
            Ok(index) => self.floors.dbs[index].1 = floor,
            Err(index) => self.floors.dbs.insert(index, (db, floor)),
        }
        true
    }

    /// Takes an entry of so many bytes into the sums.
    pub(super) fn add(&mut self, share: &Share, bytes: usize) {
        let sums = self.sums_mut(share.db);
        sums.digest ^= share.digest;
        sums.newest = sums.newest.max(share.version);
        if share.tombstone {
            sums.tombstones += 1;
        } else {
            sums.keys += 1;
            sums.bytes += bytes as u64;
            sums.expiring += u32::from(share.expiring);
        }
    }

    /// Takes an entry of so many bytes out of the sums.
    pub(super) fn subtract(&mut self, share: &Share, bytes: usize) {
        let sums = self.sums_mut(share.db);
        sums.digest ^= share.digest;
        if share.tombstone {
            sums.tombstones -= 1;
        } else {
            sums.keys -= 1;
            sums.bytes -= bytes as u64;
            sums.expiring -= u32::from(share.expiring);
        }
    }

    /// Whether nothing of `db` is above `floor`.
    pub(super) fn is_covered(&self, db: Db, floor: Version) -> bool {
        self.sums_of(db).newest <= floor
    }

    /// A term counter at least as high as that of any entry. One that was taken in after a split may be
    /// above the terms that this copy followed.
    pub fn newest_term(&self) -> u16 {
        self.sums.iter().map(|(_, sums)| sums.newest.term).max().unwrap_or_default()
    }

    /// The databases that have or had entries since the slot was last empty.
    pub(super) fn dbs(&self) -> SmallVec<[Db; 16]> {
        self.sums.iter().map(|(db, _)| *db).collect()
    }

    /// All entries of one database are gone.
    pub(super) fn forget_db(&mut self, db: Db) {
        self.sums.retain(|(of, _)| *of != db);
    }

    /// All entries and floors are gone.
    pub(super) fn forget_data(&mut self) {
        self.forgotten = 0;
        self.sums.clear();
        self.floors = Floors::default();
    }

    fn sums_of(&self, db: Db) -> Sums {
        self.sums.iter().find(|(of, _)| *of == db).map_or_else(Sums::default, |(_, sums)| *sums)
    }

    fn sums_mut(&mut self, db: Db) -> &mut Sums {
        let known = self.sums.iter().position(|(of, _)| *of == db);
        let index = known.unwrap_or_else(|| {
            self.sums.reserve_exact(1);
            self.sums.push((db, Sums::default()));
            self.sums.len() - 1
        });
        &mut self.sums[index].1
    }
}
