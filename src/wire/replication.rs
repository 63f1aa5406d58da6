//! The items of a replication queue and of a fill: what the acting node of a slot tells its
//! holders, in order.
//!
//! Every item names its slot and the term under which the sender acts:
//! `kind u8 | slot u16 | term counter u16 | term holder u32 | …`.

use bytes::BufMut;

use crate::types::{Db, RecordRef, Slot, Term, Version};

use super::snapshot::{DecodeError, Reader, put_bytes, put_record};

const RECORD: u8 = 1;
const EVICTED: u8 = 2;
const FLOOR: u8 = 3;
const FILLED: u8 = 4;
const ABSENT: u8 = 5;
const CURSOR_END: u8 = 6;
const DECLINED: u8 = 7;
const ACTING: u8 = 8;

/// One thing that happened to a slot at its acting node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened<'a> {
    /// A record was written.
    Record(RecordRef<'a>),
    /// An entry was evicted: drop this version and below.
    Evicted {
        /// The stored key.
        key: &'a [u8],
        /// The evicted version.
        version: Version,
    },
    /// A compare found an entry that the acting node lacks by its own will.
    Absent {
        /// Hash of the stored key.
        hash: u64,
        /// The version to drop, and below.
        version: Version,
    },
    /// The slot, or one database of it, was flushed up to this version.
    Floor {
        /// The database; `None` for all.
        db: Option<Db>,
        /// Entries at or below are gone.
        version: Version,
    },
    /// Everything of a fill session was sent before this.
    Filled {
        /// The receiver's number of the session.
        session: u64,
        /// Clock of the acting node when the cursor ended.
        as_of: u64,
        /// The highest clock of a tombstone that went unseen by a holder.
        forgotten: u64,
    },
    /// In a fill: every entry of the slot was sent.
    CursorEnd {
        /// The receiver's number of the session.
        session: u64,
    },
    /// In a fill: the donor does not act for the slot.
    Declined,
    /// The sender acts for the slot, under the item's term.
    Acting,
}

/// An item of a replication queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// The slot.
    pub slot: Slot,
    /// The term under which the sender acts for it.
    pub term: Term,
    /// What happened.
    pub happened: Happened<'a>,
}

/// Appends an item.
pub fn put_item(out: &mut Vec<u8>, item: &Item<'_>) {
    let kind = match item.happened {
        Happened::Record(_) => RECORD,
        Happened::Evicted { .. } => EVICTED,
        Happened::Floor { .. } => FLOOR,
        Happened::Filled { .. } => FILLED,
        Happened::Absent { .. } => ABSENT,
        Happened::CursorEnd { .. } => CURSOR_END,
        Happened::Declined => DECLINED,
        Happened::Acting => ACTING,
    };
    out.put_u8(kind);
    out.put_u16_le(item.slot.get());
    out.put_u16_le(item.term.counter);
    out.put_u32_le(item.term.holder);
    match item.happened {
        Happened::Record(record) => put_record(out, record),
        Happened::Evicted { key, version } => {
            out.put_slice(&version.to_bytes());
            put_bytes(out, key);
        }
        Happened::Absent { hash, version } => {
            out.put_slice(&version.to_bytes());
            out.put_u64_le(hash);
        }
        Happened::Floor { db, version } => {
            out.put_u8(db.map_or(u8::MAX, Db::get));
            out.put_slice(&version.to_bytes());
        }
        Happened::Filled { session, as_of, forgotten } => {
            out.put_u64_le(session);
            out.put_u64_le(as_of);
            out.put_u64_le(forgotten);
        }
        Happened::CursorEnd { session } => out.put_u64_le(session),
        Happened::Declined | Happened::Acting => {}
    }
}

/// Reads the items of a batch one by one; after an error it ends.
pub fn items(batch: &[u8]) -> impl Iterator<Item = Result<Item<'_>, DecodeError>> {
    let mut reader = Some(Reader::new(batch));
    std::iter::from_fn(move || {
        let mut at = reader.take().filter(|reader| !reader.is_empty())?;
        let item = read_item(&mut at);
        if item.is_ok() {
            reader = Some(at);
        }
        Some(item)
    })
}

fn read_item<'a>(reader: &mut Reader<'a>) -> Result<Item<'a>, DecodeError> {
    let kind = reader.u8()?;
    let slot = Slot::new(reader.u16()?).ok_or(DecodeError::Range)?;
    let term = Term { counter: reader.u16()?, holder: reader.u32()? };
    let happened = match kind {
        RECORD => Happened::Record(reader.record()?),
        EVICTED => Happened::Evicted { version: reader.version()?, key: reader.bytes()? },
        ABSENT => Happened::Absent { version: reader.version()?, hash: reader.u64()? },
        FLOOR => {
            let db = match reader.u8()? {
                u8::MAX => None,
                number => Some(Db::new(number).ok_or(DecodeError::Range)?),
            };
            Happened::Floor { db, version: reader.version()? }
        }
        FILLED => Happened::Filled {
            session: reader.u64()?,
            as_of: reader.u64()?,
            forgotten: reader.u64()?,
        },
        CURSOR_END => Happened::CursorEnd { session: reader.u64()? },
        DECLINED => Happened::Declined,
        ACTING => Happened::Acting,
        other => return Err(DecodeError::Kind(other)),
    };
    Ok(Item { slot, term, happened })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::BodyRef;
    use proptest::prelude::*;

    fn samples() -> Vec<Item<'static>> {
        let slot = Slot::new(77).unwrap();
        let term = Term { counter: 3, holder: 9 };
        let version = Version { term: 3, clock: 1000, origin: 9 };
        [
            Happened::Record(RecordRef {
                key: b"\0key",
                version,
                expires_at: None,
                body: BodyRef::String(b"value"),
            }),
            Happened::Evicted { key: b"\0other", version },
            Happened::Absent { hash: 12, version },
            Happened::Floor { db: None, version },
            Happened::Floor { db: Db::new(4), version },
            Happened::Filled { session: 5, as_of: 6, forgotten: 7 },
            Happened::CursorEnd { session: 5 },
            Happened::Declined,
            Happened::Acting,
        ]
        .map(|happened| Item { slot, term, happened })
        .to_vec()
    }

    #[test]
    fn items_come_back_in_order() {
        let mut batch = Vec::new();
        for item in samples() {
            put_item(&mut batch, &item);
        }
        let back: Result<Vec<_>, _> = items(&batch).collect();
        assert_eq!(back.unwrap(), samples());
    }

    proptest! {
        #[test]
        fn damaged_batches_end_with_an_error_not_a_panic(cut in 0usize..200, flip in 0usize..200) {
            let mut batch = Vec::new();
            for item in samples() {
                put_item(&mut batch, &item);
            }
            if let Some(byte) = batch.get_mut(flip) {
                *byte ^= 0x55;
            }
            batch.truncate(cut);
            for _ in items(&batch) {}
        }
    }
}
