//! Copies that a node kept over a restart: written to its snapshot file slot by slot, and loaded as
//! *unconfirmed*. They are not complete, so that nobody is served from them; a fill proves them equal
//! by their digests and brings what is missing (`fill`).
//!
//! ```text
//! slot u16 | as_of u64 | floors u8 | { database u8 (255: all) | version 12 } … | records …
//! ```

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BufMut;

use crate::hlc;
use crate::limits::{FILL_MESSAGE_BYTES, WALK_STEP};
use crate::tasks::lock;
use crate::types::{Db, Instant, NodeId, Slot, WallMillis};
use crate::wire::snapshot::{DecodeError, Reader, put_record};

use super::Shared;
use super::view::View;

/// How long before a snapshot a write may have been stamped that has not arrived by then: longer than
/// a replication queue keeps it.
const ARRIVES_WITHIN_MILLIS: u64 = 10_000;
/// While this node is loading nobody else is to believe that its own copies are the last.
pub(super) const LOADING: u64 = u64::MAX;

/// How far the copies go that this node has and is not sure of, and who may have copies that go
/// further.
#[derive(Debug)]
pub(super) struct Kept {
    until: AtomicU64,
    /// The members when this node stopped, until all of them were seen or had their time.
    former: Mutex<BTreeSet<NodeId>>,
    started: Instant,
}

impl Kept {
    /// Nothing yet, at a node that starts now.
    pub(super) const fn new(former: BTreeSet<NodeId>, started: Instant) -> Self {
        Self { until: AtomicU64::new(0), former: Mutex::new(former), started }
    }

    /// Whether a member of former days may be about to come back: a cluster that was stopped as a
    /// whole starts node by node, and the first of them may have the oldest copies.
    pub(super) fn awaits_others(&self, view: &View, now: Instant) -> bool {
        let mut former = lock(&self.former);
        if now.saturating_since(self.started) >= view.table.facts.ring_grace {
            former.clear();
        }
        former.retain(|node| view.table.get(*node).is_none());
        !former.is_empty()
    }

    /// The hybrid clock of the snapshot that was loaded; 0 for none.
    pub(super) fn until(&self) -> u64 {
        self.until.load(Ordering::SeqCst)
    }

    /// Whether a snapshot is being loaded.
    pub(super) fn is_loading(&self) -> bool {
        self.until() == LOADING
    }
}

/// What became of the records of a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Taken in.
    pub keys: u64,
    /// Expired meanwhile.
    pub expired: u64,
}

impl Shared {
    /// The hybrid clock up to which a snapshot taken now goes; `None` while one is being loaded.
    pub fn snapshot_clock(&self) -> Option<u64> {
        match self.kept.until() {
            LOADING => None,
            // Copies that are not proved yet go no further than when they were written.
            kept @ 1.. => Some(kept),
            0 => Some(hlc::reading_at(self.clock.wall())),
        }
    }

    /// Encodes the next entries of this node's copy of a slot, from a key hash on; gives how many there
    /// are and the hash to go on from. Nothing is written of a slot that is empty, nor of a copy that is
    /// neither complete nor kept: a fill that was cut off must not pass for a copy that goes far.
    pub fn snapshot_piece(&self, slot: Slot, from: u64, body: &mut Vec<u8>) -> (u64, Option<u64>) {
        let wall = self.clock.wall();
        let shard = self.store.lock(slot);
        let header = shard.header(slot);
        let floors: Vec<_> = header.floors().collect();
        let is_empty = header.keys() + header.tombstones() == 0 && floors.is_empty();
        let is_kept = self.kept.until() != 0 && header.as_of != 0;
        if is_empty || !(header.complete || is_kept) {
            return (0, None);
        }
        let arrived = hlc::reading_at(WallMillis(wall.0.saturating_sub(ARRIVES_WITHIN_MILLIS)));
        body.put_u16_le(slot.get());
        body.put_u64_le(if header.complete { arrived } else { header.as_of });
        body.put_u8(u8::try_from(floors.len()).unwrap_or(u8::MAX));
        for (db, version) in floors {
            body.put_u8(db.map_or(u8::MAX, Db::get));
            body.put_slice(&version.to_bytes());
        }
        let (mut entries, mut last, mut left_out) = (0, None, None);
        let next = shard.scan(slot, from, WALK_STEP, &mut |hash, entry| {
            // One value may be as large as all others together. Those of one hash stay together.
            if left_out.is_some() || body.len() >= FILL_MESSAGE_BYTES && last != Some(hash) {
                left_out.get_or_insert(hash);
                return;
            }
            last = Some(hash);
            put_record(body, entry.record());
            entries += 1;
        });
        (entries, left_out.or(next))
    }

    /// This node is sure of its copies again.
    pub(super) fn confirm_kept(&self) {
        if self.kept.until.swap(0, Ordering::SeqCst) != 0 {
            self.holdings.changed();
        }
    }

    /// A snapshot is about to be loaded: nothing is filled or promoted before [`loaded`](Self::loaded).
    pub fn begin_loading(&self) {
        self.kept.until.store(LOADING, Ordering::SeqCst);
    }

    /// The snapshot of that clock was loaded, as far as it was good; 0 if there was none.
    pub fn loaded(&self, clock: u64) {
        self.kept.until.store(clock.min(LOADING - 1), Ordering::SeqCst);
        self.holdings.changed();
        self.kick();
    }

    /// Takes in a piece of a snapshot.
    ///
    /// # Errors
    ///
    /// The piece is none; what stands before the damage was taken in.
    pub fn load_piece(&self, piece: &[u8]) -> Result<Loaded, DecodeError> {
        let wall = self.clock.wall();
        let mut reader = Reader::new(piece);
        let slot = Slot::new(reader.u16()?).ok_or(DecodeError::Range)?;
        let as_of = reader.u64()?;
        let mut loaded = Loaded::default();
        let mut shard = self.store.lock(slot);
        if shard.header(slot).complete {
            return Ok(loaded);
        }
        shard.header_mut(slot).as_of = as_of;
        for _ in 0..reader.u8()? {
            let db = match reader.u8()? {
                u8::MAX => None,
                number => Some(Db::new(number).ok_or(DecodeError::Range)?),
            };
            shard.set_floor(slot, db, reader.version()?);
        }
        while !reader.is_empty() {
            let record = reader.record()?;
            shard.clock_mut().observe(wall, record.version.clock);
            if record.expires_at.is_some_and(|at| at <= wall) {
                loaded.expired += 1;
                continue;
            }
            shard.merge(slot, record);
            loaded.keys += 1;
        }
        Ok(loaded)
    }

    /// Whether the store has room for more of a snapshot.
    pub fn has_room(&self) -> bool {
        self.store.pressure() == 0
    }
}
