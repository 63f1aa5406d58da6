//! Who acts for each slot, as this node last heard: a hint for routing, never a right.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

use arc_swap::ArcSwap;

use crate::tasks::lock;
use crate::types::{NodeId, SLOTS, Slot};

/// The last known acting node of each slot; one atomic read.
#[derive(Debug)]
pub(super) struct Hints {
    /// Index + 1 into `nodes`; 0 for unknown.
    slots: Box<[AtomicU16]>,
    /// Nodes ever named; only grows, by one for each node id that ever acted.
    nodes: ArcSwap<Vec<NodeId>>,
    adding: Mutex<()>,
}

impl Hints {
    /// Nothing known.
    pub(super) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| AtomicU16::new(0)).collect(),
            nodes: ArcSwap::default(),
            adding: Mutex::default(),
        }
    }

    /// The node that was last heard to act.
    pub(super) fn get(&self, slot: Slot) -> Option<NodeId> {
        let index = self.slots[slot.index()].load(Ordering::Relaxed).checked_sub(1)?;
        self.nodes.load().get(usize::from(index)).copied()
    }

    /// Notes that `node` acts.
    pub(super) fn set(&self, slot: Slot, node: NodeId) {
        if let Some(index) = self.index_of(node) {
            self.slots[slot.index()].store(index, Ordering::Relaxed);
        }
    }

    /// Forgets who acts, if that was `node`.
    pub(super) fn clear_if(&self, slot: Slot, node: NodeId) {
        if self.get(slot) == Some(node) {
            self.slots[slot.index()].store(0, Ordering::Relaxed);
        }
    }

    /// The node's index + 1; `None` once 65,534 different nodes were named.
    fn index_of(&self, node: NodeId) -> Option<u16> {
        let position = |nodes: &[NodeId]| {
            let index = nodes.iter().position(|known| *known == node)?;
            u16::try_from(index + 1).ok()
        };
        if let Some(index) = position(&self.nodes.load()) {
            return Some(index);
        }
        let _one_at_a_time = lock(&self.adding);
        let mut nodes = Vec::clone(&self.nodes.load());
        if let Some(index) = position(&nodes) {
            return Some(index);
        }
        nodes.push(node);
        let index = u16::try_from(nodes.len()).ok()?;
        self.nodes.store(nodes.into());
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_what_was_last_heard() {
        let hints = Hints::new();
        let slot = Slot::new(5).unwrap();
        assert_eq!(hints.get(slot), None);
        hints.set(slot, NodeId(1));
        hints.set(slot, NodeId(2));
        assert_eq!(hints.get(slot), Some(NodeId(2)));
        hints.clear_if(slot, NodeId(1));
        assert_eq!(hints.get(slot), Some(NodeId(2)));
        hints.clear_if(slot, NodeId(2));
        assert_eq!(hints.get(slot), None);
    }
}
