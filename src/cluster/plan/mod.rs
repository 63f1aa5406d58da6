//! What must move, decided slot by slot from what is known. Pure.
//!
//! A plan is level-triggered: it is made anew from the present view and the nodes' own words on
//! what they hold, so that a lost message costs a round, never a slot.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{NodeId, Phase, SLOTS, Slot, SlotSet};
use crate::wire::message::Holdings;

use crate::cluster::breakage::Rule;
use crate::cluster::holdings::PeerHoldings;
use crate::cluster::kept::LOADING;
use crate::cluster::view::{Standing, View};

/// What a plan is made from.
pub(in crate::cluster) struct Known<'a> {
    /// Members and placement.
    pub(in crate::cluster) view: &'a View,
    /// What this node holds.
    pub(in crate::cluster) own: &'a Holdings,
    /// What the others said.
    pub(in crate::cluster) peers: &'a BTreeMap<NodeId, PeerHoldings>,
    /// Members that answer nobody's pings: others stand in for them.
    pub(in crate::cluster) silent: &'a BTreeSet<NodeId>,
    /// Slots whose release was asked for.
    pub(in crate::cluster) asking: &'a SlotSet,
    /// Slots that a fill is bringing already.
    pub(in crate::cluster) filling: &'a SlotSet,
    /// Slots of which this node has entries.
    pub(in crate::cluster) filled: &'a SlotSet,
    /// Slots whose sets have all that this node's copy may have been counted for, by the word of those who
    /// act for them in this round.
    pub(in crate::cluster) settled: &'a SlotSet,
}

/// What this node should do now.
#[derive(Debug, Default)]
pub(in crate::cluster) struct Plan {
    /// Slots to fill, by donor.
    pub(in crate::cluster) fills: BTreeMap<NodeId, SlotSet>,
    /// Acting bits to ask for, by holder.
    pub(in crate::cluster) releases: BTreeMap<NodeId, SlotSet>,
    /// Acting bits that nobody holds and that are this node's to take.
    pub(in crate::cluster) takes: SlotSet,
    /// Slots without any complete copy, of which this node declares its own complete.
    pub(in crate::cluster) promotes: SlotSet,
    /// Slots that are not this node's any more and that everybody else has.
    pub(in crate::cluster) drops: SlotSet,
    /// Slots of this node's place on the ring, and how many of them are complete.
    pub(in crate::cluster) assigned: usize,
    /// How many of the assigned slots are complete.
    pub(in crate::cluster) complete: usize,
    /// Slots this node acts for that have fewer complete copies than configured.
    pub(in crate::cluster) under_replicated: usize,
}

impl Plan {
    /// Whether every assigned slot is complete.
    pub(in crate::cluster) fn is_complete(&self) -> bool {
        self.complete == self.assigned
    }

    /// Whether nothing needs to move.
    pub(in crate::cluster) fn is_idle(&self) -> bool {
        self.fills.is_empty()
            && self.releases.is_empty()
            && self.takes.is_empty()
            && self.promotes.is_empty()
            && self.drops.is_empty()
    }
}

/// It hangs on a member that did not give its word.
struct Unsure;

/// What the members say of the slots, taken together.
struct Claims<'a> {
    /// The peer that says that it acts for each slot.
    by_slot: Vec<Option<NodeId>>,
    /// Slots on their way from one node to another.
    in_transit: SlotSet,
    known: &'a Known<'a>,
    /// Whether every member that is not gone gave its word in this round, and none of them hears a member
    /// that is dead or not known here.
    all_heard: bool,
}

/// Decides what this node should do now.
pub(in crate::cluster) fn plan(known: &Known<'_>) -> Plan {
    let claims = Claims::new(known);
    let mut plan = Plan::default();
    for slot in Slot::all() {
        plan_slot(&claims, slot, &mut plan);
    }
    plan
}

impl Known<'_> {
    /// Whether a member can be expected to act: it is not gone, and not silent.
    fn is_heard_of(&self, node: NodeId) -> bool {
        self.view.standing(node) != Standing::Gone && !self.silent.contains(&node)
    }
}

impl<'a> Claims<'a> {
    fn new(known: &'a Known<'a>) -> Self {
        let mut by_slot = vec![None; usize::from(SLOTS)];
        for (node, word) in known.peers {
            let stopped = known.view.phase_of(*node) == Some(Phase::Paused) && !word.fresh;
            if stopped || word.out || !known.is_heard_of(*node) {
                continue;
            }
            for slot in word.holdings.acting.iter() {
                by_slot[slot.index()] = Some(*node);
            }
        }
        let others_are_heard = known.peers.values().any(|word| word.fresh && word.lacks.any());
        // Whatever generation the view knows: a word of this round is that of a process that runs,
        // and a node raises its generation without a restart when it was taken for dead. Who paused
        // and does not answer has stopped: it released what it had.
        let all_heard = !others_are_heard
            && known.view.others().all(|member| {
                member.identity.phase == Phase::Paused
                    || known.silent.contains(&member.identity.node)
                    || known
                        .peers
                        .get(&member.identity.node)
                        .is_some_and(|word| word.fresh && word.is_sure())
            });
        let mut in_transit = known.own.in_transit.clone();
        for (_, word) in known.peers.iter().filter(|(node, _)| known.is_heard_of(**node)) {
            in_transit.union_with(&word.holdings.in_transit);
        }
        Self { by_slot, in_transit, known, all_heard }
    }

    /// Whether it is certain that nobody acts for the slot or is about to.
    fn is_free(&self, slot: Slot) -> bool {
        self.all_heard && self.acting_peer(slot).is_none() && !self.in_transit.contains(slot)
    }

    fn acting_peer(&self, slot: Slot) -> Option<NodeId> {
        self.by_slot[slot.index()]
    }

    /// Whether a node said that it is complete for the slot; `None` if it said nothing yet, or is
    /// not sure itself.
    fn is_complete(&self, node: NodeId, slot: Slot) -> Option<bool> {
        if node == self.known.view.me {
            return Some(self.known.own.complete.contains(slot));
        }
        let word = self.known.peers.get(&node)?;
        word.is_sure().then(|| word.holdings.complete.contains(slot))
    }

    fn is_clock_wrong(&self, node: NodeId) -> bool {
        if node == self.known.view.me {
            return self.known.own.clock_wrong;
        }
        self.known.peers.get(&node).is_some_and(|word| word.holdings.clock_wrong)
    }

    /// The member of the set that should act: the first that is active, not gone and complete.
    /// `None` where that hangs on a member that did not give its word.
    fn rightful(&self, slot: Slot) -> Option<NodeId> {
        match self.first_fit(slot, |node| !self.is_clock_wrong(node)) {
            // Better a wrong clock than nobody.
            Ok(None) => self.first_fit(slot, |_| true).unwrap_or_default(),
            known => known.unwrap_or_default(),
        }
    }

    /// The first of the set that is active, not gone, complete, and fit, if there is one.
    fn first_fit(
        &self,
        slot: Slot,
        is_fit: impl Fn(NodeId) -> bool,
    ) -> Result<Option<NodeId>, Unsure> {
        for placed in self.known.view.replica_set(slot) {
            let active = self.known.view.phase_of(placed.node) == Some(Phase::Active);
            if !self.known.is_heard_of(placed.node) || !active || !is_fit(placed.node) {
                continue;
            }
            if self.is_complete(placed.node, slot).ok_or(Unsure)? {
                return Ok(Some(placed.node));
            }
        }
        Ok(None)
    }

    /// Whether this node is to declare its copy complete because there is no other: nobody acts or is
    /// complete, no absent member may still have a copy, and of the copies that outlived a restart
    /// this node's goes furthest, whether it is of the set or not. Where there are none the first of
    /// the set begins.
    fn is_last_copy(&self, slot: Slot) -> bool {
        let view = self.known.view;
        let mut set = view.replica_set(slot);
        let first = || match self.last_kept(slot) {
            Some(node) => Some(node),
            None if view.phase == Phase::Joining => None,
            None => view.replica_set(slot).next().map(|first| first.node),
        };
        self.is_free(slot)
            && set.all(|placed| placed.standing != Standing::Gone)
            && first() == Some(view.me)
            && !self.known.peers.values().any(|word| word.holdings.complete.contains(slot))
    }

    /// Whose copy of the slot goes furthest, of those that were kept over a restart. While a node loads
    /// its copies it may be that one.
    fn last_kept(&self, slot: Slot) -> Option<NodeId> {
        let peers = self.known.peers.iter().map(|(node, word)| (*node, &word.holdings));
        let words = peers.chain(std::iter::once((self.known.view.me, self.known.own)));
        let kept = words.filter(|(_, word)| word.kept == LOADING || word.kept_slots.contains(slot));
        kept.max_by_key(|(node, word)| (word.kept, *node)).map(|(node, _)| node)
    }

    /// Whether nobody acts for the slot, no member of its set is complete, and this node, a former
    /// holder, is the first of those that still have it: then the set is filled from here.
    fn is_only_stray_copy(&self, slot: Slot) -> bool {
        let view = self.known.view;
        self.is_free(slot)
            && view.replica_set(slot).all(|placed| {
                placed.standing == Standing::Gone
                    || self.is_complete(placed.node, slot) == Some(false)
            })
            && !self
                .known
                .peers
                .range(..view.me)
                .any(|(_, word)| word.holdings.complete.contains(slot))
    }
}

fn plan_slot(claims: &Claims<'_>, slot: Slot, plan: &mut Plan) {
    let Known { view, own, filling, filled, .. } = *claims.known;
    let acts = own.acting.contains(slot);
    let complete = own.complete.contains(slot);
    let assigned = view.target.holds(view.me, slot);
    plan.assigned += usize::from(assigned);
    plan.complete += usize::from(assigned && complete);
    if acts {
        plan.under_replicated += usize::from(is_under_replicated(claims, slot));
    }
    if assigned && !complete {
        match claims.acting_peer(slot) {
            Some(_) if filling.contains(slot) => {}
            Some(donor) => {
                plan.fills.entry(donor).or_default().insert(slot);
            }
            None if claims.is_last_copy(slot) => {
                plan.promotes.insert(slot);
            }
            None => {}
        }
    } else if assigned && view.phase == Phase::Active {
        if claims.rightful(slot) == Some(view.me) {
            match claims.acting_peer(slot) {
                Some(_) if Rule::Release.is_broken() && !acts => {
                    plan.takes.insert(slot);
                }
                Some(_) if claims.known.asking.contains(slot) => {}
                Some(other) => {
                    plan.releases.entry(other).or_default().insert(slot);
                }
                None if !acts && claims.is_free(slot) && !claims.known.asking.contains(slot) => {
                    plan.takes.insert(slot);
                }
                None => {}
            }
        }
    } else if !assigned && !acts && complete {
        let is_settled = claims.known.settled.contains(slot);
        if is_settled && is_held_by_all(claims, slot) || Rule::FormerHolderKeeps.is_broken() {
            plan.drops.insert(slot);
        } else if claims.is_only_stray_copy(slot) {
            plan.takes.insert(slot);
        }
    } else if !assigned && !complete && filled.contains(slot) && !filling.contains(slot) {
        if claims.acting_peer(slot).is_some() {
            // What a fill left that came to nothing, or was kept and is not wanted.
            plan.drops.insert(slot);
        } else if claims.is_last_copy(slot) {
            plan.promotes.insert(slot);
        }
    }
}

/// Whether another node acts for the slot and every member of its set that is there said in this round
/// that it has it.
fn is_held_by_all(claims: &Claims<'_>, slot: Slot) -> bool {
    claims.acting_peer(slot).is_some()
        && claims
            .known
            .view
            .replica_set(slot)
            .filter(|placed| placed.standing != Standing::Gone)
            .all(|placed| {
                let word = claims.known.peers.get(&placed.node);
                word.is_some_and(|word| word.fresh)
                    && claims.is_complete(placed.node, slot) == Some(true)
            })
}

fn is_under_replicated(claims: &Claims<'_>, slot: Slot) -> bool {
    let view = claims.known.view;
    let copies = view
        .replica_set(slot)
        .filter(|placed| placed.standing != Standing::Gone)
        .filter(|placed| claims.is_complete(placed.node, slot) == Some(true))
        .count();
    copies < usize::from(view.table.facts.replicas)
}

#[cfg(test)]
mod tests;
