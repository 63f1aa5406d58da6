//! Of which slots this node's copy has all that counted for a write while other nodes were of their sets.
//!
//! A copy is complete once its fill has ended, but a write may have been acknowledged by a node that was
//! of the set before, and still be queued for this one. Until whoever acts for the slot has said, under the
//! present placement, that nothing is, this node compares with all complete holders before it takes the
//! slot over from nobody.

use std::sync::Mutex;

use crate::tasks::lock;
use crate::types::SlotSet;

/// The slots that are proved under the placement after so many changes.
#[derive(Debug, Default)]
pub(super) struct Proved(Mutex<(u64, SlotSet)>);

impl Proved {
    /// `slots` were proved after so many changes. What is not `complete` any more is not proved either.
    pub(super) fn note(&self, placements: u64, slots: &SlotSet, complete: &SlotSet) {
        let mut proved = lock(&self.0);
        if proved.0 < placements {
            *proved = (placements, SlotSet::new());
        } else if proved.0 > placements {
            return;
        }
        proved.1.union_with(slots);
        proved.1.intersect_with(complete);
    }

    /// Nothing is proved any more.
    pub(super) fn forget(&self) {
        lock(&self.0).1 = SlotSet::new();
    }

    /// The slots that are proved after so many changes.
    pub(super) fn under(&self, placements: u64) -> SlotSet {
        let proved = lock(&self.0);
        if proved.0 == placements { proved.1.clone() } else { SlotSet::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Slot;

    #[test]
    fn what_was_proved_counts_until_the_placement_changes() {
        let slot: SlotSet = Slot::all().take(1).collect();
        let (none, all, proved) = (SlotSet::new(), SlotSet::full(), Proved::default());
        proved.note(1, &slot, &all);
        proved.note(1, &none, &all);
        assert_eq!(proved.under(1), slot);
        assert!(proved.under(2).is_empty());
        proved.note(2, &none, &all);
        proved.note(1, &slot, &all);
        assert!(proved.under(1).is_empty() && proved.under(2).is_empty());
        proved.note(2, &slot, &all);
        proved.forget();
        assert!(proved.under(2).is_empty());
    }

    #[test]
    fn a_copy_that_is_not_complete_is_proved_anew() {
        let slot: SlotSet = Slot::all().take(1).collect();
        let (none, proved) = (SlotSet::new(), Proved::default());
        proved.note(1, &slot, &slot);
        proved.note(1, &none, &none);
        proved.note(1, &none, &slot);
        assert!(proved.under(1).is_empty());
    }
}
