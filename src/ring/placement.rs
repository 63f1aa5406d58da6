//! The table slot → replica set.
//!
//! A slot stands on the ring at its own number, so that neighbouring slots share a replica set and
//! `CLUSTER SLOTS` stays short. Slots are placed in ascending order; each walks the ring clockwise
//! and takes the first members that fit. What fits is bounded: no member holds more than 1.10 ×
//! its share by weight of all copies, nor owns more than 1.10 × its share of the slots, and two
//! copies do not stand in one zone. Where no member satisfies bound and zones, the zones are given
//! up, and where none satisfies the bound, that too: a slot always gets as many copies as there
//! are members for.
//!
//! The bound keeps no memory of earlier placements: one that did would starve newcomers and differ
//! between nodes with different pasts.

use std::fmt;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::tokens::{Token, tokens};
use crate::types::{NodeId, SLOTS, Slot, Weight};

/// Raised with any change of the function; part of the placement id.
const FORMAT: u32 = 1;
/// How much of its share a member may hold, in percent.
const BOUND_PERCENT: u64 = 110;
/// A token points at its member with 16 bits.
const MEMBERS_MAX: usize = u16::MAX as usize;

/// What placement reads of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RingMember {
    /// Its id.
    pub node: NodeId,
    /// Its share of the slots.
    pub weight: Weight,
    /// The tag of its zone's name; 0 for none, which shares a zone with nobody.
    pub zone: u32,
}

/// The hash of a placement's inputs: equal ids mean equal tables. It says nothing of order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlacementId(u64);

impl PlacementId {
    fn of(members: &[RingMember], replicas: u8, virtual_nodes: u16) -> Self {
        let mut bytes = Vec::with_capacity(7 + members.len() * 21);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.push(replicas);
        bytes.extend(virtual_nodes.to_le_bytes());
        for member in members {
            bytes.extend(member.node.0.to_le_bytes());
            bytes.push(member.weight.get());
            bytes.extend(member.zone.to_le_bytes());
        }
        Self(xxh3_64(&bytes))
    }

    /// The id as a number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for PlacementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for PlacementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlacementId({self})")
    }
}

/// For each slot its replica set, owner first.
#[derive(Clone)]
pub struct Placement {
    members: Vec<RingMember>,
    /// `width` member indexes for each slot.
    table: Vec<u16>,
    width: usize,
    sharing_zone: usize,
    id: PlacementId,
}

impl Placement {
    /// The placement of these members, given in any order. `replicas` counts all copies, the
    /// owner's included. A node id that occurs twice counts once; members past 65,535 are left out.
    pub fn compute(members: &[RingMember], replicas: u8, virtual_nodes: u16) -> Self {
        let mut members = members.to_vec();
        members.sort_unstable();
        members.dedup_by_key(|member| member.node);
        members.truncate(MEMBERS_MAX);
        let id = PlacementId::of(&members, replicas, virtual_nodes);
        let width = usize::from(replicas).min(members.len());
        let mut table = Vec::with_capacity(width * usize::from(SLOTS));
        let mut sharing_zone = 0;
        if width > 0 {
            let tokens = tokens(&members, virtual_nodes);
            let mut walk = Walk::new(&members, &tokens, width);
            for slot in Slot::all() {
                sharing_zone += usize::from(walk.place(slot, &mut table));
            }
        }
        Self { members, table, width, sharing_zone, id }
    }

    /// The placement without members.
    pub fn empty(replicas: u8, virtual_nodes: u16) -> Self {
        Self::compute(&[], replicas, virtual_nodes)
    }

    /// The members, sorted by node id.
    pub fn members(&self) -> &[RingMember] {
        &self.members
    }

    /// The replica set of a slot as indexes into [`Placement::members`], owner first; empty only
    /// if there are no members.
    pub fn replicas(&self, slot: Slot) -> &[u16] {
        let start = slot.index() * self.width;
        &self.table[start..start + self.width]
    }

    /// The replica set of a slot, owner first.
    pub fn replica_set(&self, slot: Slot) -> impl ExactSizeIterator<Item = NodeId> + '_ {
        self.replicas(slot).iter().map(|index| self.node(*index))
    }

    /// The owner of a slot; `None` if there are no members.
    pub fn owner(&self, slot: Slot) -> Option<NodeId> {
        self.replicas(slot).first().map(|index| self.node(*index))
    }

    /// The node of a member index that this placement gave.
    pub fn node(&self, index: u16) -> NodeId {
        self.members[usize::from(index)].node
    }

    /// The member index of a node; `None` if it is not on the ring.
    pub fn index_of(&self, node: NodeId) -> Option<u16> {
        let index = self.members.binary_search_by_key(&node, |member| member.node).ok()?;
        u16::try_from(index).ok()
    }

    /// Whether the node is in the slot's replica set.
    pub fn holds(&self, node: NodeId, slot: Slot) -> bool {
        self.replica_set(slot).any(|holder| holder == node)
    }

    /// The hash of the inputs.
    pub const fn id(&self) -> PlacementId {
        self.id
    }

    /// How many slots have two copies in one zone.
    pub const fn sharing_zone(&self) -> usize {
        self.sharing_zone
    }
}

impl fmt::Debug for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Placement({}, {} members, {} copies)", self.id, self.members.len(), self.width)
    }
}

/// How much of what each member may still take.
struct Bound {
    copies: Vec<u32>,
    owned: Vec<u32>,
}

/// What a pick must satisfy; tried in this order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    BoundAndZones,
    Bound,
    Neither,
}

/// The state of one computation: the ring, what is left to each member, and the walk that the
/// present slot shares with its neighbours.
struct Walk<'a> {
    members: &'a [RingMember],
    tokens: &'a [Token],
    width: usize,
    /// Different zones on the ring; a member without a zone counts as one of its own.
    zones: usize,
    left: Bound,
    /// Where the walk starts.
    start: usize,
    /// How many tokens were walked over.
    walked: usize,
    /// The distinct members met so far, in order.
    met: Vec<u16>,
    /// For each member whether it was met.
    seen: Vec<bool>,
}

impl<'a> Walk<'a> {
    fn new(members: &'a [RingMember], tokens: &'a [Token], width: usize) -> Self {
        let left = Bound { copies: caps(members, width), owned: caps(members, 1) };
        let mut zones: Vec<_> = members.iter().map(zone_of).collect();
        zones.sort_unstable();
        zones.dedup();
        let seen = vec![false; members.len()];
        Self {
            members,
            tokens,
            width,
            zones: zones.len(),
            left,
            start: 0,
            walked: 0,
            met: Vec::new(),
            seen,
        }
    }

    /// Appends the replica set of `slot` to the table; says whether two copies share a zone.
    fn place(&mut self, slot: Slot, table: &mut Vec<u16>) -> bool {
        self.start_at(position(slot));
        let first = table.len();
        let mut shares = false;
        for _ in 0..self.width {
            let Some(index) = self.pick(&table[first..]) else { break };
            let member = usize::from(index);
            shares |= self.shares_zone(index, &table[first..]);
            self.left.copies[member] = self.left.copies[member].saturating_sub(1);
            if table.len() == first {
                self.left.owned[member] = self.left.owned[member].saturating_sub(1);
            }
            table.push(index);
        }
        shares
    }

    fn start_at(&mut self, position: u64) {
        let start = self.tokens.partition_point(|(token, _)| *token < position);
        let start = if start == self.tokens.len() { 0 } else { start };
        if start == self.start {
            return;
        }
        self.start = start;
        self.walked = 0;
        for index in self.met.drain(..) {
            self.seen[usize::from(index)] = false;
        }
    }

    fn pick(&mut self, chosen: &[u16]) -> Option<u16> {
        let rules: &[Rule] = if chosen.len() < self.zones {
            &[Rule::BoundAndZones, Rule::Bound, Rule::Neither]
        } else {
            // As many copies as zones: looking for one more would walk the whole ring in vain.
            &[Rule::Bound, Rule::Neither]
        };
        rules.iter().find_map(|rule| self.first(*rule, chosen))
    }

    fn first(&mut self, rule: Rule, chosen: &[u16]) -> Option<u16> {
        let mut nth = 0;
        while let Some(index) = self.nth_member(nth) {
            if self.fits(index, rule, chosen) {
                return Some(index);
            }
            nth += 1;
        }
        None
    }

    /// The nth distinct member clockwise; walks on as far as that takes, at most once around.
    fn nth_member(&mut self, nth: usize) -> Option<u16> {
        while self.met.len() <= nth
            && self.met.len() < self.members.len()
            && self.walked < self.tokens.len()
        {
            let mut at = self.start + self.walked;
            if at >= self.tokens.len() {
                at -= self.tokens.len();
            }
            self.walked += 1;
            let (_, index) = self.tokens[at];
            let seen = &mut self.seen[usize::from(index)];
            if !*seen {
                *seen = true;
                self.met.push(index);
            }
        }
        self.met.get(nth).copied()
    }

    fn fits(&self, index: u16, rule: Rule, chosen: &[u16]) -> bool {
        if chosen.contains(&index) {
            return false;
        }
        let member = usize::from(index);
        let bounded =
            self.left.copies[member] > 0 && (!chosen.is_empty() || self.left.owned[member] > 0);
        match rule {
            Rule::BoundAndZones => bounded && !self.shares_zone(index, chosen),
            Rule::Bound => bounded,
            Rule::Neither => true,
        }
    }

    fn shares_zone(&self, index: u16, chosen: &[u16]) -> bool {
        let zone = self.members[usize::from(index)].zone;
        zone != 0 && chosen.iter().any(|other| self.members[usize::from(*other)].zone == zone)
    }
}

/// The middle of the stretch of the ring that belongs to the slot.
const fn position(slot: Slot) -> u64 {
    (slot.get() as u64) << 50 | 1 << 49
}

/// What tells zones apart: the tag, and for members without a zone themselves.
fn zone_of(member: &RingMember) -> (u32, u128) {
    (member.zone, if member.zone == 0 { member.node.0 } else { 0 })
}

/// How many of `copies` copies of every slot each member may hold: 1.10 × its share by weight,
/// rounded up, and never more than one copy of each slot. What heavy members cannot take for that
/// reason is shared among the others, again by weight.
fn caps(members: &[RingMember], copies: usize) -> Vec<u32> {
    let slots = u64::from(SLOTS);
    let mut caps = vec![SLOTS.into(); members.len()];
    let mut by_weight: Vec<usize> = (0..members.len()).collect();
    by_weight.sort_unstable_by_key(|index| std::cmp::Reverse(members[*index].weight));
    let weight_of = |index: usize| u64::from(members[index].weight.get());
    let mut weights: u64 = (0..members.len()).map(weight_of).sum();
    let mut remaining = slots * copies as u64;
    for index in by_weight {
        let weight = weight_of(index);
        if remaining * weight >= slots * weights {
            // Its share is a copy of every slot; the others divide the rest.
            remaining -= slots;
            weights -= weight;
        } else {
            let cap = (remaining * weight * BOUND_PERCENT).div_ceil(weights * 100).min(slots);
            caps[index] = u32::try_from(cap).unwrap_or(u32::MAX);
        }
    }
    caps
}
