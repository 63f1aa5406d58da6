//! The member table: foca's members, with what foca does not tell: *left*, *removed* and *since*.

use std::collections::BTreeMap;

use foca::State;

use crate::types::{Identity, Instant, MemberState, NodeId, Phase};

/// A member other than this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its gossiped identity.
    pub identity: Identity,
    /// SWIM's counter that only the member itself raises.
    pub incarnation: u16,
    /// How it fares.
    pub state: MemberState,
    /// When it came into this state, on this node's clock.
    pub since: Instant,
    /// Whether its place on the ring was given up at this generation.
    pub removed: bool,
}

impl Member {
    /// Whether it is dead or left.
    pub const fn is_gone(&self) -> bool {
        matches!(self.state, MemberState::Dead | MemberState::Left)
    }
}

/// What a scan found to have changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) node: NodeId,
    /// The state before; `None` for a member that was not known.
    pub(super) before: Option<MemberState>,
    /// Whether it had died under this very generation.
    pub(super) revived: bool,
}

/// The state as this project names it: foca's *down* is *left* for a member that said it goes.
pub(super) const fn state_of(member: &foca::Member<Identity>) -> MemberState {
    match (member.state(), member.id().phase) {
        (State::Alive, _) => MemberState::Alive,
        (State::Suspect, _) => MemberState::Suspect,
        (State::Down, Phase::Leaving) => MemberState::Left,
        (State::Down, Phase::Joining | Phase::Returning | Phase::Active | Phase::Paused) => {
            MemberState::Dead
        }
    }
}

/// All members but this node, by node id.
#[derive(Debug, Default)]
pub(super) struct Table {
    members: BTreeMap<NodeId, Member>,
}

impl Table {
    /// Takes over one of foca's members; says what changed.
    pub(super) fn take_over(
        &mut self,
        now: Instant,
        theirs: &foca::Member<Identity>,
    ) -> Option<Change> {
        let (node, state) = (theirs.id().node, state_of(theirs));
        let Some(ours) = self.members.get_mut(&node) else {
            let member = Member {
                identity: theirs.id().clone(),
                incarnation: theirs.incarnation(),
                state,
                since: now,
                removed: false,
            };
            self.members.insert(node, member);
            return Some(Change { node, before: None, revived: false });
        };
        ours.incarnation = theirs.incarnation();
        if ours.state == state && &ours.identity == theirs.id() {
            return None;
        }
        let (before, was_gone) = (ours.state, ours.is_gone());
        let same_generation = ours.identity.generation == theirs.id().generation;
        if !same_generation {
            ours.removed = false;
        }
        if before != state {
            ours.since = now;
        }
        ours.state = state;
        ours.identity = theirs.id().clone();
        let revived = same_generation && was_gone && !ours.is_gone();
        Some(Change { node, before: Some(before), revived })
    }

    /// A member.
    pub(super) fn get(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    /// Notes that a member's place was given up; whether that is news.
    pub(super) fn set_removed(&mut self, node: NodeId) -> bool {
        self.members
            .get_mut(&node)
            .is_some_and(|member| !std::mem::replace(&mut member.removed, true))
    }

    /// Forgets a member.
    pub(super) fn remove(&mut self, node: NodeId) {
        self.members.remove(&node);
    }

    /// All members, by node id.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }
}
