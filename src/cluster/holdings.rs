//! What each node holds and acts for, by its own word: this node's, and the last word of its peers.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::store::Store;
use crate::tasks::lock;
use crate::types::{Generation, Instant, NodeId, Slot, SlotSet};
use crate::wire::message::Holdings;

use super::view::Lacks;

/// How long the answer to a `Release` may be on its way: longer than a client's budget.
const TRANSIT: Duration = Duration::from_secs(3);

/// A peer's last word.
#[derive(Clone, Debug)]
pub(super) struct PeerHoldings {
    /// What it said.
    pub(super) holdings: Holdings,
    /// Whether it said so in the present round.
    pub(super) fresh: bool,
    /// Whether it lost its place on the ring and may not know.
    pub(super) out: bool,
    /// Whom it hears and this node does not.
    pub(super) lacks: Lacks,
    /// How often it had been fenced when it last was not.
    pub(super) fences: u64,
}

impl PeerHoldings {
    /// Whether what it says of its copies counts.
    pub(super) const fn is_sure(&self) -> bool {
        !self.holdings.fenced && !self.out
    }
}

/// The holdings of this node and its peers.
#[derive(Debug)]
pub(super) struct HoldingsBook {
    generation: Generation,
    /// Raised with every change of a bit in any slot header.
    revision: AtomicU64,
    own: Mutex<Option<Holdings>>,
    /// Slots handed over within [`TRANSIT`], with the time of the last hand-over.
    in_transit: Mutex<(Instant, SlotSet)>,
    peers: Mutex<BTreeMap<NodeId, PeerHoldings>>,
}

impl HoldingsBook {
    /// Nothing known.
    pub(super) fn new(generation: Generation) -> Self {
        Self {
            generation,
            revision: AtomicU64::new(1),
            own: Mutex::default(),
            in_transit: Mutex::default(),
            peers: Mutex::default(),
        }
    }

    /// A bit of a slot header changed.
    pub(super) fn changed(&self) {
        self.revision.fetch_add(1, Ordering::SeqCst);
    }

    /// Slots were handed over: nobody else may take them while the answer is on its way.
    pub(super) fn handed_over(&self, now: Instant, slots: impl Iterator<Item = Slot>) {
        let mut in_transit = lock(&self.in_transit);
        if now.saturating_since(in_transit.0) >= TRANSIT {
            in_transit.1 = SlotSet::new();
        }
        in_transit.0 = now;
        for slot in slots {
            in_transit.1.insert(slot);
        }
    }

    /// Slots that were handed over a moment ago. Once that moment is over it is news.
    fn in_transit(&self, now: Instant) -> SlotSet {
        let mut in_transit = lock(&self.in_transit);
        if now.saturating_since(in_transit.0) >= TRANSIT && !in_transit.1.is_empty() {
            in_transit.1 = SlotSet::new();
            self.changed();
        }
        in_transit.1.clone()
    }

    /// The present revision.
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::SeqCst)
    }

    /// Whether `known` is the present word of this node.
    pub(super) fn is_current(&self, known: Option<(Generation, u64)>, now: Instant) -> bool {
        self.in_transit(now);
        known == Some((self.generation, self.revision()))
    }

    /// What this node holds, read from its slot headers when something changed. What is true of the
    /// node as a whole is left blank.
    /// If this node `keeps` copies over a restart it names them: what only a fill began has no clock.
    pub(super) fn own(&self, store: &Store, now: Instant, keeps: bool) -> Holdings {
        let in_transit = self.in_transit(now);
        let mut cached = lock(&self.own);
        // Read before the headers: a change in between is seen by the next call.
        let revision = self.revision();
        if let Some(known) = cached.as_mut().filter(|known| known.revision == revision) {
            known.in_transit = in_transit;
            return known.clone();
        }
        let (mut acting, mut complete) = (SlotSet::new(), SlotSet::new());
        let mut kept_slots = SlotSet::new();
        for index in 0..store.shards() {
            let shard = store.lock_shard(index);
            for (slot, header) in shard.headers() {
                if header.acting {
                    acting.insert(slot);
                }
                if header.complete {
                    complete.insert(slot);
                } else if keeps && header.as_of != 0 && header.keys() + header.tombstones() > 0 {
                    kept_slots.insert(slot);
                }
            }
        }
        let generation = self.generation;
        let fresh = Holdings {
            generation,
            revision,
            acting,
            complete,
            kept_slots,
            in_transit,
            ..Holdings::default()
        };
        *cached = Some(fresh.clone());
        fresh
    }

    /// The last word of the peers.
    pub(super) fn peers(&self) -> BTreeMap<NodeId, PeerHoldings> {
        lock(&self.peers).clone()
    }

    /// The revision of a peer's last word.
    pub(super) fn known(&self, node: NodeId) -> Option<(Generation, u64)> {
        let peers = lock(&self.peers);
        let known = &peers.get(&node)?.holdings;
        Some((known.generation, known.revision))
    }

    /// A round begins: no word is fresh, and peers that are not `present` are forgotten.
    pub(super) fn begin_round(&self, present: &[NodeId]) {
        let mut peers = lock(&self.peers);
        peers.retain(|node, _| present.contains(node));
        for known in peers.values_mut() {
            known.fresh = false;
        }
    }

    /// A peer gave its word, or (`None`) said that the last one still holds; and whether it is out,
    /// and whom it hears and this node does not. Says whether a fence of it has ended
    /// since its last word.
    pub(super) fn heard(
        &self,
        node: NodeId,
        word: Option<Holdings>,
        (out, lacks): (bool, Lacks),
    ) -> bool {
        let mut peers = lock(&self.peers);
        let known = peers.get(&node).map_or(0, |known| known.fences);
        let is_back = word.as_ref().is_some_and(|word| !word.fenced && word.fences != known);
        match word {
            Some(holdings) => {
                let fences = if holdings.fenced { known } else { holdings.fences };
                let word = PeerHoldings { holdings, fresh: true, out, lacks, fences };
                peers.insert(node, word);
            }
            None => {
                if let Some(known) = peers.get_mut(&node) {
                    known.fresh = true;
                    known.out = out;
                    known.lacks = lacks;
                }
            }
        }
        is_back
    }

    /// Whether a peer that gave its word in this round hears a member that is dead or not known here.
    pub(super) fn hear_others(&self) -> bool {
        lock(&self.peers).values().any(|word| word.fresh && word.lacks.any())
    }

    /// The slots that a peer acted for by its last word.
    pub(super) fn last_acting(&self, node: NodeId) -> SlotSet {
        let peers = lock(&self.peers);
        peers.get(&node).map_or_else(SlotSet::new, |word| word.holdings.acting.clone())
    }

    /// A peer that said that it acts for a slot.
    pub(super) fn acting_peer(&self, slot: Slot) -> Option<NodeId> {
        let peers = lock(&self.peers);
        peers.iter().find(|(_, word)| word.holdings.acting.contains(slot)).map(|(node, _)| *node)
    }

    /// Whether a peer said that it is complete for a slot.
    pub(super) fn is_complete(&self, node: NodeId, slot: Slot) -> bool {
        lock(&self.peers).get(&node).is_some_and(|known| known.holdings.complete.contains(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Policy, StoreOptions};
    use crate::types::{BodyRef, ByteSize, RecordRef, Version};

    /// A copy that a fill had begun passed for one that was kept, and could be declared complete.
    #[test]
    fn what_a_fill_began_is_not_a_copy_that_was_kept() {
        let slot_of = crate::ring::slot_of;
        let (limit, policy) = (ByteSize(1 << 20), Policy::Refuse);
        let options =
            StoreOptions { shards: 2, limit, policy, digest_seed: 1, hash_seed: 2, slot_of };
        let store = Store::new(options);
        let [kept, begun, complete] = [1, 2, 3].map(|slot| Slot::new(slot).unwrap());
        for slot in [kept, begun, complete] {
            let version = Version { term: 1, clock: 5, origin: 1 };
            let body = BodyRef::String(b"value");
            let record = RecordRef { key: b"\0key", version, expires_at: None, body };
            store.lock(slot).merge(slot, record);
        }
        store.lock(kept).header_mut(kept).as_of = 7;
        store.lock(complete).header_mut(complete).complete = true;
        let book = HoldingsBook::new(Generation(1));
        assert!(book.own(&store, Instant::ORIGIN, false).kept_slots.is_empty());
        book.changed();
        let own = book.own(&store, Instant::ORIGIN, true);
        assert_eq!(own.kept_slots.iter().collect::<Vec<_>>(), [kept]);
    }
}
