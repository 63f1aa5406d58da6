//! What status, `explain` and `ring locate` tell: facts about slots and copies, read from where
//! they are.

use std::sync::atomic::Ordering;

use crate::peers::CallError;
use crate::ring::slot_of;
use crate::tasks::lock;
use crate::types::{BodyRef, Db, Key, NodeId, Phase, Slot, SlotSet, Term};
use crate::wire::message::{CopyOfKey, Request, Response};
use crate::wire::raw::Raw;

use super::reconcile::Progress;
use super::view::Standing;
use super::{Cache, Shared};

/// Entries that went without a client's word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GoneCounts {
    /// By time.
    pub expired: u64,
    /// By memory pressure.
    pub evicted: u64,
}

/// How often slots moved to a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MoveCounts {
    /// Slots that nobody acted for and that it took.
    pub taken_over: usize,
    /// Slots that were filled.
    pub filled: usize,
    /// How often the node was fenced.
    pub fences: u64,
}

/// How many slots this node has to do with.
#[derive(Clone, Copy, Debug, Default)]
pub struct SlotCounts {
    /// Slots of which it is owner.
    pub owned: usize,
    /// Slots of which it is replica.
    pub replica: usize,
    /// Slots for which it acts.
    pub acting: usize,
    /// Slots of its place that it is not complete for.
    pub incomplete: usize,
}

/// A slot as this node holds it.
#[derive(Clone, Debug)]
pub struct SlotReport {
    /// The slot.
    pub slot: Slot,
    /// Whether this node is first of its set; `None` if it is not in the set.
    pub owner: Option<bool>,
    /// Whether this node acts for it.
    pub acting: bool,
    /// Whether this node is complete for it.
    pub complete: bool,
    /// Live keys.
    pub keys: u64,
    /// Digest of the live keys.
    pub digest: u64,
    /// Clock up to which the last fill brought it.
    pub as_of: u64,
    /// The term that it follows, or acts under.
    pub term: Term,
}

/// A member of a slot's set.
#[derive(Clone, Debug)]
pub struct LocatedReplica {
    /// The node.
    pub node: NodeId,
    /// Whether it is first.
    pub owner: bool,
    /// Whether it says that it is complete.
    pub complete: bool,
    /// Whether it says that it acts.
    pub acting: bool,
}

/// A copy of a key at a node.
#[derive(Clone, Debug)]
pub struct CopyReport {
    /// The node.
    pub node: NodeId,
    /// What it holds; an error if it did not answer.
    pub copy: Result<CopyOfKey, CallError>,
}

impl Shared {
    /// How many slots this node has to do with.
    pub fn slot_counts(&self) -> SlotCounts {
        let view = self.view.load();
        let own = self.own_holdings();
        let mut counts = SlotCounts { acting: own.acting.len(), ..SlotCounts::default() };
        for slot in Slot::all() {
            let place = view.replica_set(slot).position(|placed| placed.node == view.me);
            match place {
                Some(0) => counts.owned += 1,
                Some(_) => counts.replica += 1,
                None => {}
            }
            counts.incomplete += usize::from(place.is_some() && !own.complete.contains(slot));
        }
        counts
    }

    /// The slots of which this node has entries.
    pub(super) fn filled_slots(&self) -> SlotSet {
        let mut filled = SlotSet::new();
        for index in 0..self.store.shards() {
            let shard = self.store.lock_shard(index);
            for (slot, header) in shard.headers() {
                if header.keys() > 0 || header.tombstones() > 0 {
                    filled.insert(slot);
                }
            }
        }
        filled
    }

    /// The slots this node acts for.
    pub fn acting_slots(&self) -> SlotSet {
        self.own_holdings().acting
    }

    /// Whether an answer to a question for releases is on its way.
    pub fn is_asking(&self) -> bool {
        !lock(&self.asking).is_empty()
    }

    /// Of `slots` those that no other node says that it acts for: how many another may still take
    /// over, and how many nobody is there for. Asks the others to be heard anew.
    pub fn unclaimed(&self, slots: &SlotSet) -> (usize, usize) {
        let mut unclaimed = slots.clone();
        for word in self.holdings.peers().values() {
            unclaimed.subtract(&word.holdings.acting);
        }
        if !unclaimed.is_empty() {
            self.kick();
        }
        let view = self.view.load();
        let has_heir = |slot: &Slot| {
            view.replica_set(*slot).any(|placed| {
                let phase = view.table.get(placed.node).map(|member| member.identity.phase);
                placed.node != view.me
                    && placed.standing != Standing::Gone
                    && phase != Some(Phase::Paused)
            })
        };
        let awaited = unclaimed.iter().filter(has_heir).count();
        (awaited, unclaimed.len() - awaited)
    }

    /// How many slots this node acts for or has completely.
    pub fn own_held(&self) -> usize {
        let mut held = self.own_holdings();
        held.acting.union_with(&held.complete);
        held.acting.len()
    }

    /// How often slots moved to this node since its start.
    pub fn tallies(&self) -> MoveCounts {
        MoveCounts {
            taken_over: self.taken_over.load(Ordering::Relaxed),
            filled: self.filled.load(Ordering::Relaxed),
            fences: self.fence.count(),
        }
    }

    /// Entries that went without a client's word since the start.
    pub fn counts(&self) -> GoneCounts {
        GoneCounts {
            expired: self.expired.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }

    /// What the last round of the reconciler found.
    pub fn progress(&self) -> Progress {
        *lock(&self.progress)
    }

    /// Bytes queued for a peer.
    pub fn queued_bytes(&self, node: NodeId) -> usize {
        self.link(node).map_or(0, |link| link.queued_bytes())
    }

    /// Slots of which a peer missed something that is not mended yet.
    pub fn dirty_slots(&self, node: NodeId) -> usize {
        self.link(node).map_or(0, |link| link.missed().all().len())
    }

    /// The slots of a range that this node holds or should hold.
    pub fn slot_reports(&self, slots: impl Iterator<Item = Slot>) -> Vec<SlotReport> {
        let view = self.view.load();
        slots
            .filter_map(|slot| {
                let place = view.replica_set(slot).position(|placed| placed.node == view.me);
                let shard = self.store.lock(slot);
                let header = shard.header(slot);
                (place.is_some() || header.acting || header.complete).then(|| SlotReport {
                    slot,
                    owner: place.map(|place| place == 0),
                    acting: header.acting,
                    complete: header.complete,
                    keys: u64::from(header.keys()),
                    digest: header.digest(),
                    as_of: header.as_of,
                    term: header.term,
                })
            })
            .collect()
    }

    /// The set of a key's slot, with what its members say of it.
    pub fn locate_key(&self, name: &[u8]) -> (Slot, Vec<LocatedReplica>) {
        let slot = slot_of(name);
        let view = self.view.load();
        let own = self.own_holdings();
        let peers = self.holdings.peers();
        let replicas = view
            .replica_set(slot)
            .enumerate()
            .map(|(place, placed)| {
                let word = if placed.node == view.me {
                    Some(&own)
                } else {
                    peers.get(&placed.node).map(|word| &word.holdings)
                };
                LocatedReplica {
                    node: placed.node,
                    owner: place == 0,
                    complete: word.is_some_and(|word| word.complete.contains(slot)),
                    acting: word.is_some_and(|word| word.acting.contains(slot)),
                }
            })
            .collect();
        (slot, replicas)
    }

    /// This node's copy of a stored key.
    pub(super) fn explain_here(&self, slot: Slot, key: &[u8]) -> CopyOfKey {
        let now = self.clock.wall();
        let shard = self.store.lock(slot);
        let Some(entry) = shard.find(slot, key) else {
            return CopyOfKey { present: false, version: None, expires_at: None, bytes: 0 };
        };
        let record = entry.record();
        let bytes = match record.body {
            BodyRef::String(value) => value.len() as u64,
            BodyRef::Tombstone => 0,
        };
        CopyOfKey {
            present: entry.is_live(now),
            version: Some(record.version),
            expires_at: record.expires_at,
            bytes,
        }
    }
}

impl Cache {
    /// What every member that is not gone holds of a key.
    pub async fn explain(&self, db: Db, name: &[u8]) -> (Slot, Vec<CopyReport>) {
        let (slot, key) = (slot_of(name), Key::new(db, name));
        let request = Request::Explain { slot, key: Raw(key.stored()) }.encode();
        let budget = self.shared.options.op_timeout;
        let calls: Vec<_> = self
            .view()
            .others()
            .map(|member| member.identity.node)
            .map(|node| (node, self.peers.call(node, request.clone(), budget)))
            .collect();
        let own = self.shared.explain_here(slot, key.stored());
        let mut copies = vec![CopyReport { node: self.shared.options.me, copy: Ok(own) }];
        for (node, call) in calls {
            let copy = call.await.and_then(|bytes| match Response::decode(&bytes) {
                Some(Response::Explained(copy)) => Ok(copy),
                _ => Err(CallError::Refused("the answer was not understood".to_owned())),
            });
            copies.push(CopyReport { node, copy });
        }
        copies.sort_by_key(|copy| copy.node);
        (slot, copies)
    }
}
