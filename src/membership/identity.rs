//! The gossiped identity as foca reads it.
//!
//! A node id has one living identity: of two, the one with the higher generation wins, then the one
//! with the higher revision. What is left is compared only so that every member settles a broken
//! cluster (one node id started twice) the same way.

use std::cmp::Ordering;

use crate::types::{Generation, Identity, NodeId, Phase};

/// Which of two identities of one node is the later one.
pub(super) fn order(a: &Identity, b: &Identity) -> Ordering {
    (a.generation, a.revision).cmp(&(b.generation, b.revision))
}

/// The identity with another phase, one revision later.
pub(super) fn with_phase(identity: &Identity, phase: Phase) -> Identity {
    Identity { phase, revision: identity.revision.saturating_add(1), ..identity.clone() }
}

/// The identity at a later generation, where revisions start anew.
pub(super) fn renewed(identity: &Identity, generation: Generation) -> Identity {
    Identity { generation, revision: 0, ..identity.clone() }
}

impl foca::Identity for Identity {
    type Addr = NodeId;

    /// Always `None`: the engine renews by itself, at a bounded rate and never while leaving.
    fn renew(&self) -> Option<Self> {
        None
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        let rest = |id: &Self| (id.phase, id.weight, id.zone, id.gossip);
        order(self, other).then_with(|| rest(self).cmp(&rest(other))) == Ordering::Greater
    }
}
