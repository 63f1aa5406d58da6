//! What one node knows of its cluster at a moment: members and placement, published as one
//! immutable value that hot paths read without a lock.
//!
//! A view says who *should* hold and act for a slot. Who *does* act is a bit in the slot's header.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3Default;

use crate::members::{MemberInfo, MemberTable};
use crate::ring::{Placement, RingMember};
use crate::types::{MemberState, NodeId, Phase, Slot};

use super::replicate::Link;

/// How a member stands, as far as routing and replication care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Alive, or this node itself.
    Alive,
    /// Suspect: sent to, not waited for, not read from first.
    Suspect,
    /// Dead or left.
    Gone,
}

/// A ring member with what replication needs to reach it.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its id.
    pub node: NodeId,
    /// How it stands.
    pub standing: Standing,
    /// The way to it; `None` for this node itself.
    pub(super) link: Option<Arc<Link>>,
}

/// Members and placement at a moment.
#[derive(Debug)]
pub struct View {
    /// This node.
    pub me: NodeId,
    /// The phase of this node.
    pub phase: Phase,
    /// The member table it was made from.
    pub table: Arc<MemberTable>,
    /// Where slots belong.
    pub placement: Arc<Placement>,
    /// How often that had changed.
    pub(super) changes: u64,
    /// Where slots belong once this node, if it is joining, is on the ring.
    pub target: Arc<Placement>,
    /// The members of `placement`, in its order.
    placed: Vec<Placed>,
    heard_fingerprint: u64,
}

fn heard_in(table: &MemberTable) -> impl Iterator<Item = NodeId> + '_ {
    let heard = |member: &&MemberInfo| standing(member) != Standing::Gone;
    table.members.iter().filter(heard).map(|member| member.identity.node)
}

/// Members that another node hears and this one does not: they may act for slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lacks {
    /// One is dead here.
    pub(super) dead: bool,
    /// One is not known here.
    pub(super) strangers: bool,
}

impl Lacks {
    /// Whether there is such a member.
    pub(super) const fn any(self) -> bool {
        self.dead || self.strangers
    }
}

/// The standing of a member.
pub(super) fn standing(member: &MemberInfo) -> Standing {
    match member.state {
        MemberState::Alive => Standing::Alive,
        MemberState::Suspect => Standing::Suspect,
        MemberState::Dead | MemberState::Left => Standing::Gone,
    }
}

/// Whether slots belong to a member. With one copy of each a paused node keeps no place: what it has
/// is handed to others before it stops, and comes back to it when it returns.
fn is_placed(table: &MemberTable, member: &MemberInfo) -> bool {
    let only_copies = table.facts.replicas == 1;
    member.is_placed() && !(only_copies && member.identity.phase == Phase::Paused)
}

fn ring_member(member: &MemberInfo) -> RingMember {
    RingMember {
        node: member.identity.node,
        weight: member.identity.weight,
        zone: member.identity.zone,
    }
}

impl View {
    /// The view of a member table; the placement of `last` is kept where its inputs are the same.
    pub(super) fn build(
        table: Arc<MemberTable>,
        links: &BTreeMap<NodeId, Arc<Link>>,
        last: Option<&Self>,
    ) -> Self {
        let me = table.me;
        let phase = table.get(me).map_or(Phase::Joining, |own| own.identity.phase);
        let ring: Vec<RingMember> = if table.formed {
            table
                .members
                .iter()
                .filter(|member| is_placed(&table, member))
                .map(ring_member)
                .collect()
        } else {
            Vec::new()
        };
        let place = |members: &[RingMember], known: Option<&Arc<Placement>>| {
            let placement =
                Placement::compute(members, table.facts.replicas, table.facts.virtual_nodes);
            known
                .filter(|old| old.id() == placement.id())
                .cloned()
                .unwrap_or_else(|| placement.into())
        };
        let placement = place(&ring, last.map(|view| &view.placement));
        let target = if phase == Phase::Joining && table.formed {
            let mut with_me = ring;
            with_me.extend(table.get(me).map(ring_member));
            place(&with_me, last.map(|view| &view.target))
        } else {
            Arc::clone(&placement)
        };
        let placed = placement
            .members()
            .iter()
            .map(|member| Placed {
                node: member.node,
                standing: table.get(member.node).map_or(Standing::Gone, standing),
                link: links.get(&member.node).cloned(),
            })
            .collect();
        let mut heard = Xxh3Default::new();
        heard_in(&table).for_each(|node| heard.update(&node.0.to_le_bytes()));
        let heard_fingerprint = heard.digest();
        let changes =
            last.map_or(0, |last| last.changes + u64::from(last.placement.id() != placement.id()));
        Self { me, phase, table, placement, changes, target, placed, heard_fingerprint }
    }

    /// The members of a slot's replica set, owner first.
    pub fn replica_set(&self, slot: Slot) -> impl Iterator<Item = &Placed> {
        self.placement
            .replicas(slot)
            .iter()
            .filter_map(|index| self.placed.get(usize::from(*index)))
    }

    /// How a node stands; nodes that are not members are gone.
    pub fn standing(&self, node: NodeId) -> Standing {
        self.table.get(node).map_or(Standing::Gone, standing)
    }

    /// The members that are alive or suspect here, this node among them.
    pub(super) fn heard(&self) -> Vec<NodeId> {
        heard_in(&self.table).collect()
    }

    /// A number that two nodes share when they hear the same members.
    pub(super) const fn heard_fingerprint(&self) -> u64 {
        self.heard_fingerprint
    }

    /// What this node lacks of the members that another hears.
    pub(super) fn lacks(&self, heard: &[NodeId]) -> Lacks {
        let mut lacks = Lacks::default();
        for node in heard {
            match self.table.get(*node).map(|member| member.state) {
                None => lacks.strangers = true,
                Some(MemberState::Dead) => lacks.dead = true,
                Some(MemberState::Alive | MemberState::Suspect | MemberState::Left) => {}
            }
        }
        lacks
    }

    /// Where a member is in its life, by its own last word.
    pub(super) fn phase_of(&self, node: NodeId) -> Option<Phase> {
        Some(self.table.get(node)?.identity.phase)
    }

    /// Members that can be talked to, this node excepted.
    pub fn others(&self) -> impl Iterator<Item = &MemberInfo> {
        self.table
            .members
            .iter()
            .filter(|member| member.identity.node != self.me)
            .filter(|member| standing(member) != Standing::Gone)
    }

    /// Whether there are other members, and none of them is known to be well.
    pub(super) fn is_alone(&self) -> bool {
        let mut others = self.table.members.iter().filter(|it| it.identity.node != self.me);
        let lost = others.clone().any(|it| it.state != MemberState::Left);
        lost && others.all(|it| standing(it) != Standing::Alive)
    }

    /// Whether there are other members that are not gone, and did not pause.
    pub(super) fn expects_answers(&self) -> bool {
        self.others().any(|member| member.identity.phase != Phase::Paused)
    }

    /// Whether another member is dead, and its place still kept.
    pub(super) fn misses_somebody(&self) -> bool {
        let is_missed = |it: &&MemberInfo| it.state == MemberState::Dead;
        self.table.members.iter().filter(is_missed).any(|member| is_placed(&self.table, member))
    }

    /// Where the peers of a node reach it.
    pub fn peer_address(&self, node: NodeId) -> Option<SocketAddr> {
        Some(self.table.get(node)?.meta.as_ref()?.peer)
    }
}
