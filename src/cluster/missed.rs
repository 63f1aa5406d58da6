//! What a peer may have missed of this node's slots: one bit a slot, the whole of hinted handoff.
//!
//! A slot is *dirty* from the moment at which something for the peer was dropped until a compare
//! has mended it. While the compare runs the bit is put aside: a drop meanwhile sets it anew, and
//! nobody takes the slot for clean before the compare has ended.

use crate::types::{Slot, SlotSet};

use super::breakage::Rule;

/// The bits of one peer.
#[derive(Debug, Default)]
pub(super) struct Missed {
    dirty: SlotSet,
    comparing: SlotSet,
    changes: u64,
}

impl Missed {
    /// The peer missed something of a slot.
    pub(super) fn set(&mut self, slot: Slot) {
        if !Rule::DirtyBits.is_broken() {
            self.dirty.insert(slot);
            self.changes += 1;
        }
    }

    /// The slot is sent anew from its beginning.
    pub(super) fn clear(&mut self, slot: Slot) {
        self.dirty.remove(slot);
    }

    /// The slots to be compared.
    pub(super) fn dirty(&self) -> SlotSet {
        self.dirty.clone()
    }

    /// Slots that are dirty or being compared for it.
    pub(super) fn all(&self) -> SlotSet {
        let mut all = self.dirty.clone();
        all.union_with(&self.comparing);
        all
    }

    /// Whether a slot is dirty or being compared for it.
    pub(super) fn contains(&self, slot: Slot) -> bool {
        self.dirty.contains(slot) || self.comparing.contains(slot)
    }

    /// How often something was missed, or mended: what mends may still be queued.
    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether the peer has everything.
    pub(super) fn is_empty(&self) -> bool {
        self.dirty.is_empty() && self.comparing.is_empty()
    }

    /// A slot differs and is about to be mended: nobody takes it for clean before that has ended. Says
    /// whether it was not being compared as a dirty one already.
    pub(super) fn begin_mend(&mut self, slot: Slot) -> bool {
        self.comparing.insert(slot)
    }

    /// What mends the slot is queued, if anything had to be sent; `begun` is what its beginning said.
    pub(super) fn end_mend(&mut self, slot: Slot, begun: bool, has_sent: bool) {
        self.changes += u64::from(has_sent);
        if begun {
            self.comparing.remove(slot);
        }
    }

    /// A compare of these slots begins; gives those that were dirty.
    pub(super) fn begin_compare(&mut self, slots: &[Slot]) -> SlotSet {
        let begun: SlotSet =
            slots.iter().copied().filter(|slot| self.dirty.contains(*slot)).collect();
        self.dirty.subtract(&begun);
        self.comparing.union_with(&begun);
        begun
    }

    /// The compare of slots that were dirty has ended; `left` were not mended.
    pub(super) fn end_compare(&mut self, begun: &SlotSet, left: &SlotSet) {
        self.changes += u64::from(!begun.is_empty());
        self.comparing.subtract(begun);
        self.dirty.union_with(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_clean_only_after_its_compare() {
        let slots: Vec<Slot> = Slot::all().take(3).collect();
        let mut missed = Missed::default();
        missed.set(slots[0]);
        missed.set(slots[1]);
        let begun = missed.begin_compare(&slots);
        assert_eq!((begun.len(), missed.dirty().len(), missed.all().len()), (2, 0, 2));
        missed.set(slots[0]);
        missed.end_compare(&begun, &[slots[1]].into_iter().collect());
        assert_eq!(missed.dirty().len(), 2, "one was dropped meanwhile, one not mended");
        let begun = missed.begin_compare(&slots);
        missed.end_compare(&begun, &SlotSet::new());
        assert!(missed.is_empty() && !missed.contains(slots[0]));
    }
}
