//! The full state of the cluster as two members exchange it, and the metadata in it.
//!
//! A push-pull begins with a fingerprint; only when it differs the state itself travels, and only
//! when the other's state lacked something it travels back. Suspicions and incarnations are no part
//! of the fingerprint: they come and go by gossip.

use std::collections::BTreeMap;
use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3Default;

use crate::limits::MEMBERS_MAX;
use crate::membership::Membership;
use crate::types::{ClusterFacts, MemberRecord, MemberState, NodeId, NodeMeta};
use crate::wire::member::ClusterState;

/// The metadata of nodes, last writer wins.
#[derive(Debug, Default)]
pub(super) struct Metas {
    by_node: BTreeMap<NodeId, Arc<NodeMeta>>,
}

impl Metas {
    /// Takes over metadata if it is newer; whether it was.
    pub(super) fn merge(&mut self, meta: NodeMeta) -> bool {
        let order = |meta: &NodeMeta| (meta.generation, meta.revision);
        let known = self.by_node.get(&meta.node);
        let newer =
            known.map_or(self.by_node.len() < MEMBERS_MAX, |known| order(&meta) > order(known));
        if newer {
            self.by_node.insert(meta.node, Arc::new(meta));
        }
        newer
    }

    /// The metadata of a node.
    pub(super) fn get(&self, node: NodeId) -> Option<&Arc<NodeMeta>> {
        self.by_node.get(&node)
    }

    /// Forgets the nodes that are no members any more.
    pub(super) fn keep_only(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.by_node.retain(|node, _| is_member(*node));
    }
}

/// What this node knows, to be sent.
pub(super) fn state_of(core: &Membership, metas: &Metas, facts: &ClusterFacts) -> ClusterState {
    let mut records = core.records();
    for record in &mut records {
        record.meta = metas.get(record.identity.node).map(|meta| NodeMeta::clone(meta));
    }
    ClusterState { records, facts: facts.clone() }
}

/// A number that two nodes share when their states are equal.
pub(super) fn fingerprint(state: &ClusterState) -> u64 {
    let mut records: Vec<&MemberRecord> = state.records.iter().collect();
    records.sort_unstable_by_key(|record| record.identity.node);
    let mut hash = Xxh3Default::new();
    for record in records {
        let identity = &record.identity;
        hash.update(&identity.node.0.to_le_bytes());
        hash.update(&identity.generation.0.to_le_bytes());
        hash.update(&identity.revision.to_le_bytes());
        let life: u8 = match record.state {
            MemberState::Alive | MemberState::Suspect => 0,
            MemberState::Dead => 1,
            MemberState::Left => 2,
        };
        hash.update(&[life, u8::from(record.removed)]);
        let meta = record.meta.as_ref().map_or((0, 0), |meta| (meta.generation.0, meta.revision));
        hash.update(&meta.0.to_le_bytes());
        hash.update(&meta.1.to_le_bytes());
    }
    hash.update(&state.facts.revision.to_le_bytes());
    hash.update(&state.facts.origin.to_le_bytes());
    hash.digest()
}
