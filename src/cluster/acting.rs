//! The acting bit and its term: taking it, handing it over, losing it to a higher term.
//!
//! Every change happens under the slot's shard lock and raises the holdings revision. A term only
//! grows: who takes the bit takes a term above every one it has seen for the slot.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::{MemberState, NodeId, Phase, Slot, SlotSet, Term};
use crate::wire::message::{ActingHint, ReleasedSlot};
use crate::wire::replication::{Happened, Item};

use super::holdings::PeerHoldings;
use super::replicate::{Group, Outgoing, ToDrive};
use super::view::{Standing, View};
use super::{Shared, marks};

/// The term counter of a slot that was started empty while members were dead.
pub(super) const HOLLOW: u16 = 0;

impl Shared {
    /// The node that is believed to act for a slot.
    pub(super) fn acting_node(&self, slot: Slot) -> Option<NodeId> {
        let me = self.options.me;
        if self.store.lock(slot).header(slot).acting {
            return Some(me);
        }
        let hint = self.hints.get(slot).filter(|node| *node != me);
        hint.or_else(|| self.believed_acting(&self.view.load(), slot))
    }

    /// Who acts for a slot where nobody was heard to: this node by its own bit, a peer by its last
    /// word, else whoever should.
    pub(super) fn believed_acting(&self, view: &View, slot: Slot) -> Option<NodeId> {
        if self.store.lock(slot).header(slot).acting {
            return Some(self.options.me);
        }
        let claims = self.holdings.acting_peer(slot);
        claims.filter(|node| view.standing(*node) != Standing::Gone).or_else(|| {
            let mut set = view.replica_set(slot);
            set.find(|placed| placed.standing != Standing::Gone).map(|placed| placed.node)
        })
    }

    /// This node acts for the slot from now on, under a new term. It must be complete for it, and
    /// not fenced. The holders hear of the term at once: who stands in for this node before anything
    /// is written must go above it.
    fn take(&self, slot: Slot, to_drive: &mut ToDrive) {
        let me = self.options.me;
        {
            let mut shard = self.store.lock(slot);
            let header = shard.header_mut(slot);
            if !header.complete || header.acting || self.fenced().is_some() {
                return;
            }
            let newest = Term { counter: header.newest_term(), holder: 0 };
            header.term = header.term.max(header.above).max(newest).next(me.tag());
            header.acting = true;
            header.fenced = false;
            header.set_successor(Some(me));
            let (term, happened) = (header.term, Happened::Acting);
            let group = Group::of(&Item { slot, term, happened });
            self.queue(&self.view.load(), &shard, Outgoing::untallied(slot, &group), to_drive);
        }
        self.hints.set(slot, me);
        self.holdings.changed();
    }

    /// This node acts for a slot that nobody handed to it. Who followed the last acting node is not
    /// known: receivers ask again, and the members of the set are compared. So are, a round later, those
    /// that have a copy and are not of the set.
    pub(super) fn take_free(&self, slot: Slot, to_drive: &mut ToDrive) {
        self.store.lock(slot).header_mut(slot).receivers.clear();
        self.take_doubting(slot, |_| true, to_drive);
    }

    /// Takes the bit; members of the slot's set for which `lacks` says that they may not have everything
    /// are compared, before anything is handed to them.
    fn take_doubting(&self, slot: Slot, lacks: impl Fn(NodeId) -> bool, to_drive: &mut ToDrive) {
        let doubt = |view: &View| {
            let links = view.replica_set(slot).filter_map(|placed| placed.link.as_ref());
            links.filter(|link| lacks(link.node)).for_each(|link| link.set_dirty(slot));
        };
        let view = self.view();
        doubt(&view);
        self.take(slot, to_drive);
        // Who acts when a view is published is told who is new in the set: this node did not.
        let later = self.view();
        if !Arc::ptr_eq(&view, &later) {
            doubt(&later);
        }
    }

    /// Nobody has a complete copy: this node's is declared complete, and it acts.
    ///
    /// Where it has none and members are dead, it may be the one that is cut off, and they may act
    /// with all they have. Then it acts under the term of a *hollow* copy, which every other beats:
    /// whoever has data wins when they meet again.
    pub(super) fn promote(&self, view: &View, slot: Slot, to_drive: &mut ToDrive) {
        let some_are_dead =
            view.table.members.iter().any(|member| member.state == MemberState::Dead);
        let hollow = {
            let mut shard = self.store.lock(slot);
            let header = shard.header_mut(slot);
            if self.fenced().is_some() || header.complete || header.acting {
                return;
            }
            header.complete = true;
            header.discounted = false;
            let hollow = some_are_dead && header.keys() + header.tombstones() == 0;
            if hollow {
                header.term = Term { counter: HOLLOW, holder: view.me.tag() };
                header.acting = true;
                header.set_successor(Some(view.me));
            }
            hollow
        };
        if hollow {
            self.hints.set(slot, view.me);
            self.holdings.changed();
        } else {
            self.take_free(slot, to_drive);
        }
    }

    /// Hands the acting bits of `slots` to `asker`, as far as this node holds them and agrees that
    /// the asker comes before it and missed nothing. Repeating the question gives the same answer. Who
    /// is off the ring is given nothing.
    pub(super) fn release(&self, view: &View, asker: NodeId, slots: &SlotSet) -> Vec<ReleasedSlot> {
        if self.outcasts.removal(asker).is_some() {
            return Vec::new();
        }
        let (wall, link) = (self.clock.wall(), self.link(asker));
        let missed = link.map_or_else(SlotSet::new, |link| link.missed().all());
        let gives_up = view.phase == Phase::Paused || self.clocks.is_wrong();
        let may_have =
            |slot: &Slot| comes_before(view, asker, *slot, gives_up) && !missed.contains(*slot);
        let mut released = Vec::new();
        for slot in slots.iter().filter(may_have) {
            let mut shard = self.store.lock(slot);
            let clock = shard.clock_mut().last(wall);
            let header = shard.header_mut(slot);
            let asked_before = header.successor() == Some(asker);
            if !header.acting && !asked_before {
                continue;
            }
            header.acting = false;
            header.set_successor(Some(asker));
            let (term, marks) = (header.term, header.marks.to_vec());
            let followers = followers(view, slot, &header.receivers, asker);
            drop(shard);
            self.hints.set(slot, asker);
            released.push(ReleasedSlot { slot, term, clock, marks, followers });
        }
        if !released.is_empty() {
            self.holdings.handed_over(self.clock.now(), released.iter().map(|given| given.slot));
            self.holdings.changed();
            self.metrics.cluster.handovers_given.increment(released.len() as u64);
        }
        released
    }

    /// Whether a slot that was given to `asker` is its still: one that was taken back meanwhile, because an
    /// earlier question of the same asker came to nothing, is not.
    pub(super) fn is_given(&self, given: &ReleasedSlot, asker: NodeId) -> bool {
        let shard = self.store.lock(given.slot);
        let header = shard.header(given.slot);
        !header.acting && header.successor() == Some(asker) && header.term == given.term
    }

    /// The slots given could not be handed over after all: this node takes those back that nobody
    /// else took.
    pub(super) fn take_back(
        &self,
        released: &[ReleasedSlot],
        asker: NodeId,
        to_drive: &mut ToDrive,
    ) {
        for given in released {
            let nobody_else = {
                let shard = self.store.lock(given.slot);
                let header = shard.header(given.slot);
                header.successor() == Some(asker) && header.term == given.term
            };
            if nobody_else {
                // It did not act when a placement told who is new.
                self.take_doubting(given.slot, |_| true, to_drive);
            }
        }
    }

    /// Takes the acting bits that `from` handed over.
    ///
    /// Where this node followed that very term, it has every write of it, and `from` is proved
    /// equal. Otherwise (a healed partition, or a term under which nothing was written) the copies
    /// are compared. Whoever followed `from` follows this node from its first write on, so that
    /// nobody who is complete for the slot misses one.
    pub(super) fn accept(
        &self,
        from: NodeId,
        released: &[ReleasedSlot],
        to_drive: &mut ToDrive,
    ) -> usize {
        let (wall, link) = (self.clock.wall(), self.link(from));
        let mut taken = 0;
        for given in released {
            let complete = {
                let mut shard = self.store.lock(given.slot);
                shard.clock_mut().observe(wall, given.clock);
                let header = shard.header_mut(given.slot);
                let followed = header.term == given.term;
                header.term = header.term.max(given.term);
                marks::inherit(header, &given.marks);
                if followed {
                    marks::raise(header, from, given.clock);
                } else if let Some(link) = &link {
                    link.set_dirty(given.slot);
                }
                if !header.acting {
                    header.receivers.clear();
                }
                // One that is not known here cannot be sent anything: it is compared when it is.
                let can_follow = |node: &NodeId| self.link(*node).is_some();
                for node in given.followers.iter().map(|(node, _)| *node).filter(can_follow) {
                    if !header.receivers.contains(&node) {
                        header.receivers.push(node);
                    }
                }
                header.complete
            };
            for (node, _) in given.followers.iter().filter(|(_, arrived)| !arrived) {
                if let Some(link) = self.link(*node) {
                    link.set_dirty(given.slot);
                }
            }
            if complete {
                // By this node's placement the set may have others than those to whom `from` sent.
                let is_follower = |node| given.followers.iter().any(|(known, _)| *known == node);
                let lacks = |node| node != from && !is_follower(node);
                self.take_doubting(given.slot, lacks, to_drive);
                taken += 1;
            }
        }
        self.metrics.cluster.handovers.increment(taken as u64);
        taken
    }

    /// A peer knows a higher term for the slot: this node does not act any more, and must compare
    /// before it is complete again. The terms of who is off the ring count for nothing.
    pub(super) fn deposed(&self, by: NodeId, slot: Slot, term: Term, acting: Option<ActingHint>) {
        if self.outcasts.removal(by).is_some() {
            return;
        }
        {
            let mut shard = self.store.lock(slot);
            let header = shard.header_mut(slot);
            if term <= header.term {
                return;
            }
            let heir = acting.filter(|hint| {
                hint.node != self.options.me
                    && self.view.load().standing(hint.node) != Standing::Gone
            });
            if header.acting && header.term.counter == HOLLOW && heir.is_none() {
                // The term of somebody who is gone for good. Who was filled under the hollow one is told
                // by a compare.
                header.term = term.next(self.options.me.tag());
                let view = self.view.load();
                let set = view.replica_set(slot).map(|placed| placed.node);
                set.chain(header.receivers.iter().copied())
                    .filter_map(|node| self.link(node))
                    .for_each(|link| link.set_dirty(slot));
                self.holdings.changed();
                return;
            }
            header.term = term;
            if header.acting || header.fenced {
                header.acting = false;
                header.fenced = false;
                header.discount();
            }
            header.set_successor(acting.map(|hint| hint.node));
        }
        if let Some(hint) = acting {
            self.hints.set(slot, hint.node);
        } else {
            self.hints.clear_if(slot, self.options.me);
        }
        tracing::info!(%slot, term = term.counter, "acting bit lost to a higher term");
        self.holdings.changed();
        self.kick();
    }

    /// Who has a copy of a slot for which this node acts, and is not of its set, gets its writes until it
    /// has dropped it: it may be asked what it has by whoever takes the slot over.
    pub(super) fn follow_holders(&self, view: &View, peers: &BTreeMap<NodeId, PeerHoldings>) {
        let acting = self.own_holdings().acting;
        for (node, word) in peers.iter().filter(|(_, word)| word.fresh && word.is_sure()) {
            let Some(link) = self.link(*node) else { continue };
            let is_outside =
                |slot: &Slot| acting.contains(*slot) && !view.placement.holds(*node, *slot);
            for slot in word.holdings.complete.iter().filter(is_outside) {
                let mut shard = self.store.lock(slot);
                let header = shard.header_mut(slot);
                if header.acting && !header.receivers.contains(node) {
                    header.receivers.push(*node);
                    link.set_dirty(slot);
                }
            }
        }
    }

    /// Notes which copies are proved under a placement: those that this node acts for have all there is,
    /// and `settled` those who act said so of.
    pub(super) fn note_proved(&self, view: &View, settled: &SlotSet) {
        let own = self.own_holdings();
        let mut proved = own.acting;
        proved.union_with(settled);
        self.proved.note(view.changes, &proved, &own.complete);
    }

    /// Complete copies of this node of which it does not know that all has arrived which counted for a
    /// write; and those that it would give up, not being of their sets any more.
    pub(super) fn unproved(&self, view: &View) -> SlotSet {
        let (own, proved) = (self.own_holdings(), self.proved.under(view.changes));
        let asks = |slot: &Slot| {
            let is_leaving = !view.target.holds(view.me, *slot);
            !own.acting.contains(*slot) && (is_leaving || !proved.contains(*slot))
        };
        own.complete.iter().filter(asks).collect()
    }

    /// Of `slots` those for which this node acts and whose sets, by the placement that both have, lack
    /// nothing of what was queued for them while another's copy may have counted for a write; nor does
    /// the asker.
    pub(super) fn settled(
        &self,
        view: &View,
        (asker, placement): (NodeId, u64),
        slots: SlotSet,
    ) -> SlotSet {
        let mut settled = slots;
        settled.intersect_with(&self.own_holdings().acting);
        if settled.is_empty() || view.placement.id().get() != placement {
            return SlotSet::new();
        }
        let indexes = 0..self.store.shards();
        // Whoever began a write under the last placement has queued it when its lock is free.
        indexes.clone().for_each(|index| drop(self.store.lock_shard(index)));
        let links = self.links.load();
        let mut known: BTreeMap<NodeId, (Vec<bool>, SlotSet)> = BTreeMap::new();
        let mut has_all = |node: NodeId, slot: Slot| {
            let Some(link) = links.get(&node) else { return false };
            let (arrived, missed) = known.entry(node).or_insert_with(|| {
                let arrived = indexes.clone().map(|index| link.has_settled(index, view.changes));
                (arrived.collect(), link.missed().all())
            });
            arrived[self.store.shard_index(slot)] && !missed.contains(slot)
        };
        let mut lacks_nothing = |slot: &Slot| {
            let set = view.replica_set(*slot);
            let set = set.filter(|placed| placed.node != view.me && placed.node != asker);
            let set = set.filter(|placed| placed.standing != Standing::Gone);
            // All of them are asked, so that all are marked the first time.
            let others = set.map(|placed| placed.node).chain([asker]);
            others.map(|node| has_all(node, *slot)).filter(|has| !has).count() == 0
        };
        settled.iter().filter(|slot| lacks_nothing(slot)).collect()
    }

    /// This node gives up its copy of the slot.
    pub(super) fn drop_slot(&self, slot: Slot) {
        {
            let mut shard = self.store.lock(slot);
            let header = shard.header_mut(slot);
            if header.acting {
                return;
            }
            header.complete = false;
            header.discounted = false;
            header.as_of = 0;
            header.receivers.clear();
            shard.clear_slot(slot);
        }
        self.holdings.changed();
    }
}

/// Everyone but `asker` to whom this node sends what happens to the slot, and this node, which the
/// next one tells until it has dropped its copy. Whether all has arrived is not known yet.
fn followers(view: &View, slot: Slot, receivers: &[NodeId], asker: NodeId) -> Vec<(NodeId, bool)> {
    let set = view.replica_set(slot).map(|placed| placed.node);
    let mut nodes: Vec<NodeId> = set.chain(receivers.iter().copied()).collect();
    nodes.push(view.me);
    nodes.retain(|node| *node != asker);
    nodes.sort_unstable();
    nodes.dedup();
    nodes.into_iter().map(|node| (node, node == view.me)).collect()
}

/// Whether `asker` stands before this node for the slot, by this node's own view, or is of its set
/// where this node gives everything up: then the acting bit is the asker's.
fn comes_before(view: &View, asker: NodeId, slot: Slot, gives_up: bool) -> bool {
    for placed in view.replica_set(slot) {
        if placed.node == asker {
            return placed.standing != Standing::Gone;
        }
        if placed.node == view.me {
            return gives_up && view.replica_set(slot).any(|other| other.node == asker);
        }
    }
    false
}
