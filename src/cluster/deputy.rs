//! Deputies: the next complete member of a slot takes over from an acting node that is silent.
//!
//! A coordinator that finds the acting node suspect or without an answer sends a write to the next
//! member of the set, asking it to stand in. That one doubts the acting node too from then on, which
//! has it pinged in a round of the reconciler, and waits for what the round brings: the slot is its
//! own, or the acting node is well and the coordinator is told so. *Busy* never gets this far.

use std::time::Duration;

use crate::clock::within;
use crate::limits::DEPUTY_PATIENCE;
use crate::types::{NodeId, Slot, SlotSet};

use super::view::View;
use super::{Cache, Shared};

impl Cache {
    /// Waits until this node acts for the slot or it is clear that it will not, at most `patience`.
    pub(super) async fn stand_in(&self, slot: Slot, patience: Duration) {
        let shared = &self.shared;
        let mut rounds = shared.rounds.subscribe();
        let Some(acting) = shared.acting_node(slot).filter(|node| *node != shared.options.me)
        else {
            return;
        };
        if let Some(link) = shared.link(acting) {
            shared.doubt(&link);
        }
        let settled = async {
            while !shared.is_settled_after(slot, acting) && rounds.changed().await.is_ok() {}
        };
        // What came of it shows in the slot's header.
        let _settled_or_late = within(patience.min(DEPUTY_PATIENCE), settled).await;
    }
}

impl Shared {
    /// Whether there is nothing to wait for any more: this node acts, cannot act, or the node that
    /// was thought silent answers.
    fn is_settled_after(&self, slot: Slot, acting: NodeId) -> bool {
        let (complete, acts) = {
            let shard = self.store.lock(slot);
            let header = shard.header(slot);
            (header.complete, header.acting)
        };
        acts || !complete || self.link(acting).is_none_or(|link| !link.is_doubted())
    }

    /// Slots that this node may take over: it is complete for them, and a silent node acted.
    pub(super) fn takeable(&self, view: &View, silent: impl Iterator<Item = NodeId>) -> SlotSet {
        let mut slots = SlotSet::new();
        for node in silent {
            slots.union_with(&self.holdings.last_acting(node));
        }
        if slots.is_empty() {
            return slots;
        }
        let own = self.own_holdings();
        slots
            .iter()
            .filter(|slot| own.complete.contains(*slot) && view.placement.holds(view.me, *slot))
            .collect()
    }
}
