//! The cluster facts: one versioned record that all members come to agree on.

use std::time::Duration;

use thiserror::Error;

use crate::types::{ClusterFacts, NodeId};

/// The most copies of a slot.
const REPLICAS_MAX: u8 = 8;

/// The range of virtual nodes per unit of weight.
const VIRTUAL_NODES: std::ops::RangeInclusive<u16> = 16..=4096;

/// Why the facts were not changed. Nothing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FactsError {
    /// `replicas` must be 1 to 8.
    #[error("replicas must be 1 to {REPLICAS_MAX}")]
    Replicas,
    /// `virtual_nodes` must be 16 to 4096.
    #[error("virtual_nodes must be {} to {}", VIRTUAL_NODES.start(), VIRTUAL_NODES.end())]
    VirtualNodes,
    /// `tombstone_grace` must be longer than `ring_grace`.
    #[error("tombstone_grace must be longer than ring_grace")]
    Graces,
    /// There is no cluster yet whose facts could be changed.
    #[error("this node is in no cluster yet")]
    NotFormed,
    /// The member service is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// A change of the facts; `None` leaves a fact as it is. The name never changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FactsChange {
    /// Copies of each slot, 1 to 8.
    pub replicas: Option<u8>,
    /// Virtual nodes per unit of weight, 16 to 4096.
    pub virtual_nodes: Option<u16>,
    /// How long a dead member keeps its place.
    pub ring_grace: Option<Duration>,
    /// How long a tombstone is kept at most while a holder is absent.
    pub tombstone_grace: Option<Duration>,
}

impl FactsChange {
    /// The facts after this change, made by `origin`.
    pub(super) fn apply(
        self,
        facts: &ClusterFacts,
        origin: NodeId,
    ) -> Result<ClusterFacts, FactsError> {
        if self.replicas.is_some_and(|replicas| !(1..=REPLICAS_MAX).contains(&replicas)) {
            return Err(FactsError::Replicas);
        }
        if self.virtual_nodes.is_some_and(|count| !VIRTUAL_NODES.contains(&count)) {
            return Err(FactsError::VirtualNodes);
        }
        let ring_grace = self.ring_grace.unwrap_or(facts.ring_grace);
        let tombstone_grace = self.tombstone_grace.unwrap_or(facts.tombstone_grace);
        if tombstone_grace <= ring_grace {
            return Err(FactsError::Graces);
        }
        Ok(ClusterFacts {
            name: facts.name.clone(),
            replicas: self.replicas.unwrap_or(facts.replicas),
            virtual_nodes: self.virtual_nodes.unwrap_or(facts.virtual_nodes),
            ring_grace,
            tombstone_grace,
            revision: facts.revision.saturating_add(1),
            origin: origin.tag(),
        })
    }
}

/// The facts of a cluster that is formed now: those kept from before, or the settings' as the first
/// revision.
pub(super) fn founding(facts: &ClusterFacts, origin: NodeId) -> ClusterFacts {
    if facts.revision > 0 {
        return facts.clone();
    }
    ClusterFacts { revision: 1, origin: origin.tag(), ..facts.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> ClusterFacts {
        ClusterFacts {
            name: "c".parse().unwrap(),
            replicas: 2,
            virtual_nodes: 256,
            ring_grace: Duration::from_secs(30),
            tombstone_grace: Duration::from_hours(1),
            revision: 0,
            origin: 0,
        }
    }

    #[test]
    fn a_change_supersedes_what_it_changed() {
        let before = founding(&facts(), NodeId(1));
        let change = FactsChange { replicas: Some(3), ..FactsChange::default() };
        let after = change.apply(&before, NodeId(2)).unwrap();
        assert!(after.supersedes(&before) && !before.supersedes(&after));
        assert_eq!((after.replicas, after.virtual_nodes), (3, 256));
    }

    #[test]
    fn a_cluster_that_is_formed_again_keeps_its_facts() {
        let kept = ClusterFacts { revision: 7, replicas: 3, ..facts() };
        assert_eq!(founding(&kept, NodeId(1)), kept);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for replicas in [0, 9] {
            let change = FactsChange { replicas: Some(replicas), ..FactsChange::default() };
            assert_eq!(change.apply(&facts(), NodeId(1)), Err(FactsError::Replicas));
        }
        let change = FactsChange { virtual_nodes: Some(0), ..FactsChange::default() };
        assert_eq!(change.apply(&facts(), NodeId(1)), Err(FactsError::VirtualNodes));
    }
}
