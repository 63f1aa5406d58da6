//! The meaning of a call's payload: requests and responses between nodes.
//!
//! postcard is positional: an appended field would be silently misread. A message that changes is a
//! new variant at the end; an unknown one is answered [`Response::Unsupported`] and the connection
//! lives.
//!
//! | request | from → to | answered by |
//! |---|---|---|
//! | `Run` | coordinator → acting node, or who stands in for it | `Reply`, `NotOwner` |
//! | `Replicate` | acting node → holders | `Replicated`, `Outcast` |
//! | `Holdings` | any → any | `Holdings`, `Unchanged` |
//! | `Release` | next acting node → acting node | `Released` |
//! | `Keys`, `Count`, `Flush` | coordinator → every node | `Keys`, `Count`, `Flushed` |
//! | `Explain` | any → any | `Explained` |
//! | `Digests`, `List`, `Fetch` | acting node → holder | `Digests`, `Listed`, `Fetched` |
//! | `Member` | any → any | `Member` |
//! | `Terms` | a fenced node → any | `Terms` |
//! | `Present`, `Probe` | deputy → the acting node, a witness | `Present` |

use std::net::SocketAddr;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::member::{MemberAnswer, MemberRequest};
use super::raw::{Args, Raw};
use crate::types::{Db, Generation, NodeId, Slot, SlotSet, Term, Version, WallMillis};

/// An operation on one slot: a command as the client sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run<'a> {
    /// The command's stable number in the command table.
    pub command: u16,
    /// The database of the client's connection.
    pub db: Db,
    /// Whether the reply is wanted in RESP3.
    pub resp3: bool,
    /// The acting node does not answer: a complete replica may answer a read, and takes the slot
    /// over for a write if it finds the acting node silent as well.
    pub stand_in: bool,
    /// The slot of all its keys.
    pub slot: Slot,
    /// The command's name and arguments.
    #[serde(borrow)]
    pub args: Args<'a>,
}

/// What a node asks another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request<'a> {
    /// Execute an operation.
    #[serde(borrow)]
    Run(Run<'a>),
    /// Apply what happened at the acting node: items of `wire::replication`.
    Replicate(Raw<'a>),
    /// Which slots do you hold and act for? Answered `Unchanged` if that is still revision `known`
    /// of this generation.
    Holdings {
        /// The revision that the asker knows.
        known: Option<(Generation, u64)>,
        /// Slots that the asker may take over: the answerer gives up what it has under way for them.
        taking: SlotSet,
        /// The generation of the answerer that the asker took off the ring, if it did and was not
        /// asked since.
        removed: Option<Generation>,
        /// A number that two nodes share when they hear the same members.
        heard: u64,
        /// Slots of which the asker has a copy and does not know that all has arrived which counted for a
        /// write: it would give the copy up, or may have to take the slot over.
        unproved: SlotSet,
        /// The id of the asker's placement.
        placement: u64,
        /// The asker's generation when it last asked the answerer for its terms.
        asked: Generation,
    },
    /// Hand over the acting bit of these slots; the asker is complete for each.
    Release {
        /// The slots.
        slots: SlotSet,
    },
    /// The keys of slots the receiver acts for, in order, from a place on.
    Keys {
        /// The database.
        db: Db,
        /// The first slot wanted.
        slot: Slot,
        /// The first key hash wanted in that slot.
        from: u64,
        /// Stop after about so many keys.
        limit: u32,
        /// Go on to later slots as long as the receiver acts for them.
        onward: bool,
    },
    /// How many keys of a database live in the slots the receiver acts for.
    Count {
        /// The database.
        db: Db,
    },
    /// Forget everything in those of the slots that the receiver acts for.
    Flush {
        /// One database; `None` for all.
        db: Option<Db>,
        /// The slots.
        slots: SlotSet,
    },
    /// What do you hold of this key?
    Explain {
        /// Its slot.
        slot: Slot,
        /// The stored key.
        key: Raw<'a>,
    },
    /// The digests of these slots.
    Digests {
        /// The slots.
        slots: SlotSet,
    },
    /// Key hashes and versions of one slot from a hash on.
    List {
        /// The slot.
        slot: Slot,
        /// The first hash wanted.
        from: u64,
    },
    /// The records of these key hashes.
    Fetch {
        /// The slot.
        slot: Slot,
        /// Hashes of stored keys.
        hashes: Vec<u64>,
    },
    /// About membership.
    Member(MemberRequest),
    /// Are you there?
    Present,
    /// Does this node answer you?
    Probe {
        /// The node.
        node: NodeId,
    },
    /// Under which terms do you hold these slots, and did the asker lose its place?
    Terms {
        /// The slots.
        slots: SlotSet,
        /// Its generation when it last asked this, or started.
        asked: Generation,
    },
}

/// What is told with every answer about holdings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    /// The answerer's generation when it last asked the asker for its terms, or started.
    pub asked: Generation,
    /// The answerer's time of day.
    pub wall: WallMillis,
    /// The generation of the asker that the answerer took off the ring, if the asker has not asked
    /// for terms since.
    pub removed: Option<Generation>,
    /// Whom the answerer hears, if these are not those whom the asker hears.
    pub heard: Vec<NodeId>,
    /// Of the slots that the asker named as unproved those that the answerer acts for and whose sets have
    /// all that was written under earlier placements.
    pub settled: SlotSet,
}

/// Under which terms a node holds slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The term of each slot asked about, in their order; `None` where the answerer is not complete.
    pub held: Vec<Option<Term>>,
    /// Those of them of which the answerer's copy was complete until others had gone on without it, with
    /// its digest and the highest term that the answerer knows.
    pub discounted: Vec<(Slot, u64, Term)>,
    /// Members that the answerer took off the ring and that have not asked it since; the asker
    /// among them if it lost its place since it last asked.
    pub removed: Vec<NodeId>,
}

/// Who acts for a slot, as far as the answering node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActingHint {
    /// The node.
    pub node: NodeId,
    /// Where it is reached.
    pub peer: Option<SocketAddr>,
}

/// What became of a replicated item at a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// Applied, or equal to what was there, by a holder that is complete for the slot.
    Complete,
    /// Applied by a holder that is still filling the slot: counts for no acknowledgement.
    Incomplete,
    /// The holder has a newer version.
    Superseded {
        /// Whether the newer version comes from the same node: then the holder has it all.
        same_origin: bool,
    },
    /// The holder knows a higher term: the sender does not act any more.
    Deposed {
        /// The higher term.
        term: Term,
        /// Who acts, if known.
        acting: Option<ActingHint>,
    },
    /// Not applied: the node dropped the slot, or never held it, and is not filling it.
    Unwanted,
}

/// What a node holds, as it says itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holdings {
    /// The generation that says so.
    pub generation: Generation,
    /// Raised with every change.
    pub revision: u64,
    /// Slots it acts for.
    pub acting: SlotSet,
    /// Slots it is complete for.
    pub complete: SlotSet,
    /// Whether it is fenced: it acts for nothing, and what it is complete for is not sure.
    pub fenced: bool,
    /// How often it was fenced since its start.
    pub fences: u64,
    /// Whether its clock is wrong: it is to act for nothing.
    pub clock_wrong: bool,
    /// The clock up to which its copies go that are not complete because it was restarted; 0 if it
    /// has none, the highest while it is finding out.
    pub kept: u64,
    /// Slots of which it has such copies.
    pub kept_slots: SlotSet,
    /// Slots it has just handed over, to a node that may not know it yet.
    pub in_transit: SlotSet,
    /// Its placement id.
    pub placement: u64,
}

/// What is handed over with the acting bit of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasedSlot {
    /// The slot.
    pub slot: Slot,
    /// The term that ended.
    pub term: Term,
    /// The clock of the old acting node: the next one stamps above it.
    pub clock: u64,
    /// The marks of all holders that it kept.
    pub marks: Vec<(NodeId, u64)>,
    /// Everyone else to whom the old acting node sent the slot's writes, itself included, and
    /// whether all of them arrived. The next one goes on sending to them.
    pub followers: Vec<(NodeId, bool)>,
}

/// One node's copy of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOfKey {
    /// Whether a live value is there.
    pub present: bool,
    /// The version, of a tombstone too.
    pub version: Option<Version>,
    /// When it expires.
    pub expires_at: Option<WallMillis>,
    /// Bytes of the value.
    pub bytes: u64,
}

/// Part of a walk over the keys of slots that the answering node acts for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysPage<'a> {
    /// Names, without the database.
    #[serde(borrow)]
    pub names: Args<'a>,
    /// Where to go on: slot and hash. The slot may be one past the last.
    pub next: (u16, u64),
    /// Whether the walk stopped at `next` because the node does not act there.
    pub not_acting: bool,
}

/// A key hash, its version, and whether it is a tombstone.
pub type Listed = (u64, Version, bool);

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response<'a> {
    /// The reply for the client, encoded.
    #[serde(borrow)]
    Reply(Raw<'a>),
    /// Not executed: another node acts, or nobody is known to.
    NotOwner(Option<ActingHint>),
    /// Not executed, and why; the client may try again.
    TryAgain(Raw<'a>),
    /// For each item what became of it; empty if all were applied by complete holders.
    Replicated(Vec<Applied>),
    /// What the node holds.
    Holdings(Holdings, Aside),
    /// The revision asked about is the present one.
    Unchanged(Aside),
    /// The slots handed over; the others were not the answerer's to give.
    Released(Vec<ReleasedSlot>),
    /// Keys.
    Keys(KeysPage<'a>),
    /// A number of keys.
    Count(u64),
    /// Flushed these slots, all that the node acts for and is sure of.
    Flushed(SlotSet),
    /// The copy of a key.
    Explained(CopyOfKey),
    /// Digest of each slot asked for that is complete here.
    Digests(Vec<(Slot, u64, Term)>),
    /// Entries of a slot, and the hash to go on from; and its floors, of all databases or of one.
    Listed(Vec<Listed>, Option<u64>, Vec<(Option<Db>, Version)>),
    /// Records in the encoding of `wire::snapshot`.
    Fetched(Raw<'a>),
    /// About membership.
    Member(MemberAnswer),
    /// The request was not understood by this version, or is damaged.
    Unsupported,
    /// Whether the node asked about is there.
    Present(bool),
    /// What a fenced node asked.
    Terms(Terms),
    /// Not applied: the answerer took this generation of the asker off the ring, and was not asked for
    /// its terms since.
    Outcast(Generation),
}

impl Request<'_> {
    /// The bytes of the request.
    pub fn encode(&self) -> Bytes {
        encode(self)
    }
}

impl<'a> Request<'a> {
    /// Reads a request; `None` if it is not understood.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

impl Response<'_> {
    /// The bytes of the response.
    pub fn encode(&self) -> Bytes {
        encode(self)
    }
}

impl<'a> Response<'a> {
    /// Reads a response; `None` if it is not understood.
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }
}

fn encode(message: &impl Serialize) -> Bytes {
    // Serialising plain data into memory cannot fail; an empty payload would read as unsupported.
    postcard::to_extend(message, Vec::with_capacity(128)).map(Bytes::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run<'a>(args: &[&'a [u8]]) -> Request<'a> {
        Request::Run(Run {
            command: 7,
            db: Db::default(),
            resp3: true,
            stand_in: false,
            slot: Slot::new(12_182).unwrap(),
            args: Args(args.iter().copied().collect()),
        })
    }

    #[test]
    fn a_run_comes_back_borrowed() {
        let bytes = run(&[b"SET", b"foo", b"bar"]).encode();
        let back = Request::decode(&bytes).unwrap();
        assert_eq!(back, run(&[b"SET", b"foo", b"bar"]));
        assert_ne!(back, run(&[b"SET", b"foo", b"baz"]));
    }

    #[test]
    fn the_bytes_of_version_one_stay_as_they_are() {
        assert_eq!(
            run(&[b"GET", b"foo"]).encode().as_ref(),
            b"\x00\x07\x00\x01\x00\x96\x5f\x02\x03GET\x03foo"
        );
        assert_eq!(Request::Count { db: Db::default() }.encode().as_ref(), b"\x05\x00");
        assert_eq!(Response::Reply(Raw(b"+OK\r\n")).encode().as_ref(), b"\x00\x05+OK\r\n");
        assert_eq!(Response::Unsupported.encode().as_ref(), b"\x0f");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Request::decode(&bytes);
            let _ = Response::decode(&bytes);
        }
    }
}
