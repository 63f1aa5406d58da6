//! Copies that a node kept over a restart: written to its snapshot file slot by slot, and loaded as
//! *unconfirmed*. They are not complete, so that nobody is served from them; a fill proves them equal
//! by their digests and brings what is missing (`fill`).
//!
//! ```text
//! slot u16 | as_of u64 | floors u8 | { database u8 (255: all) | version 12 } … | records …
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BufMut;

use crate::hlc;
use crate::limits::{FILL_MESSAGE_BYTES, WALK_STEP};
use crate::types::{Db, Slot, WallMillis};
use crate::wire::snapshot::{DecodeError, Reader, put_record};

use super::Shared;

/// How long before a snapshot a write may have been stamped that has not arrived by then: longer than
/// a replication queue keeps it.
const ARRIVES_WITHIN_MILLIS: u64 = 10_000;
/// While this node is loading nobody else is to believe that its own copies are the last.
const LOADING: u64 = u64::MAX;

/// How far the copies go that this node has and is not sure of.
#[derive(Debug, Default)]
pub(super) struct Kept(AtomicU64);

impl Kept {
    /// The hybrid clock of the snapshot that was loaded; 0 for none.
    pub(super) fn until(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
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
    /// The hybrid clock of this node now, as snapshots name it.
    pub fn snapshot_clock(&self) -> u64 {
        hlc::reading_at(self.clock.wall())
    }

    /// Encodes this node's copy of a slot in pieces, if it is complete; gives the number of entries.
    ///
    /// # Errors
    ///
    /// What `put` says ends it.
    pub fn snapshot_slot<E>(
        &self,
        slot: Slot,
        put: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<u64, E> {
        let wall = self.clock.wall();
        let as_of = hlc::reading_at(WallMillis(wall.0.saturating_sub(ARRIVES_WITHIN_MILLIS)));
        let mut entries = 0;
        let mut from = Some(0);
        while let Some(hash) = from {
            let mut body = Vec::new();
            {
                let shard = self.store.lock(slot);
                let header = shard.header(slot);
                if !header.complete || (hash == 0 && header.keys() + header.tombstones() == 0) {
                    return Ok(entries);
                }
                body.put_u16_le(slot.get());
                body.put_u64_le(as_of);
                let floors: Vec<_> = header.floors().collect();
                body.put_u8(u8::try_from(floors.len()).unwrap_or(u8::MAX));
                for (db, version) in floors {
                    body.put_u8(db.map_or(u8::MAX, Db::get));
                    body.put_slice(&version.to_bytes());
                }
                from = Some(hash);
                while let Some(next) = from
                    && body.len() < FILL_MESSAGE_BYTES
                {
                    from = shard.scan(slot, next, WALK_STEP, &mut |_, entry| {
                        put_record(&mut body, entry.record());
                        entries += 1;
                    });
                }
            }
            put(&body)?;
        }
        Ok(entries)
    }

    /// A snapshot is about to be loaded: nothing is filled or promoted before [`loaded`](Self::loaded).
    pub fn begin_loading(&self) {
        self.kept.0.store(LOADING, Ordering::SeqCst);
    }

    /// The snapshot of that clock was loaded, as far as it was good; 0 if there was none.
    pub fn loaded(&self, clock: u64) {
        self.kept.0.store(clock.min(LOADING - 1), Ordering::SeqCst);
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
