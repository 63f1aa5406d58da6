//! The acting bit and its term: taking it, handing it over, losing it to a higher term.
//!
//! Every change happens under the slot's shard lock and raises the holdings revision. A term only
//! grows: who takes the bit takes a term above every one it has seen for the slot.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::types::{MemberState, NodeId, Phase, Slot, SlotSet, Term};
use crate::wire::message::{ActingHint, ReleasedSlot};
use crate::wire::replication::{Happened, Item};

use super::replicate::{Group, Link, Outgoing, ToDrive};
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
            header.term = header.term.max(header.above).next(me.tag());
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
    /// known: receivers ask again, and the members of the set are compared.
    pub(super) fn take_free(&self, view: &View, slot: Slot, to_drive: &mut ToDrive) {
        self.store.lock(slot).header_mut(slot).receivers.clear();
        for link in view.replica_set(slot).filter_map(|placed| placed.link.as_ref()) {
            link.set_dirty(slot);
        }
        self.take(slot, to_drive);
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
            if self.fenced().is_some() {
                return;
            }
            header.complete = true;
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
            self.take_free(view, slot, to_drive);
        }
    }

    /// Hands the acting bits of `slots` to `asker`, as far as this node holds them and agrees that
    /// the asker comes before it and missed nothing. Repeating the question gives the same answer.
    pub(super) fn release(&self, view: &View, asker: NodeId, slots: &SlotSet) -> Vec<ReleasedSlot> {
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
                self.take(given.slot, to_drive);
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
        view: &View,
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
                let placed = |node: &NodeId| view.placement.holds(*node, given.slot);
                // One that is not known here cannot be sent anything: it is compared when it is.
                let can_follow = |node: &NodeId| self.link(*node).is_some() && !placed(node);
                let followers = given.followers.iter().map(|(node, _)| *node);
                header.receivers = followers.filter(can_follow).collect();
                header.complete
            };
            for (node, _) in given.followers.iter().filter(|(_, arrived)| !arrived) {
                if let Some(link) = self.link(*node) {
                    link.set_dirty(given.slot);
                }
            }
            if complete {
                self.take(given.slot, to_drive);
                taken += 1;
            }
        }
        self.metrics.cluster.handovers.increment(taken as u64);
        taken
    }

    /// A peer knows a higher term for the slot: this node does not act any more, and must compare
    /// before it is complete again.
    pub(super) fn deposed(&self, slot: Slot, term: Term, acting: Option<ActingHint>) {
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
                // The term of somebody who is gone for good.
                header.term = term.next(self.options.me.tag());
                self.holdings.changed();
                return;
            }
            header.term = term;
            if header.acting || header.fenced {
                header.acting = false;
                header.fenced = false;
                header.complete = false;
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

    /// Slots of which this node has a complete copy and of whose sets it is not.
    pub(super) fn leaving(&self, view: &View) -> SlotSet {
        let own = self.own_holdings();
        let is_former =
            |slot: &Slot| !view.target.holds(view.me, *slot) && !own.acting.contains(*slot);
        own.complete.iter().filter(is_former).collect()
    }

    /// Of the slots that a former holder is leaving those for which this node acts and whose sets, by the
    /// placement that both have, lack nothing of what was queued for them while the former holder's
    /// copy may have counted for a write.
    pub(super) fn settled(&self, view: &View, placement: u64, leaving: &SlotSet) -> SlotSet {
        let changes = self.placements.load(Ordering::SeqCst);
        if view.placement.id().get() != placement {
            return SlotSet::new();
        }
        let lacks_nothing = |slot: &Slot| {
            let index = self.store.shard_index(*slot);
            let has_all = |link: &Arc<Link>| {
                link.has_settled(index, changes) && !link.missed().contains(*slot)
            };
            let set = view.replica_set(*slot).filter(|placed| placed.node != view.me);
            let set = set.filter(|placed| placed.standing != Standing::Gone);
            // All of them are asked, so that all are marked the first time.
            set.map(|placed| placed.link.as_ref().is_some_and(has_all)).filter(|has| !has).count()
                == 0
        };
        let acts = |slot: &Slot| self.store.lock(*slot).header(*slot).acting;
        leaving.iter().filter(acts).filter(lacks_nothing).collect()
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
