//! What a change of placement means for one node.

use super::placement::Placement;
use crate::types::{NodeId, Slot, SlotSet};

/// The slots that one node gains and loses from one placement to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotChanges {
    /// Slots it is to hold and did not.
    pub gained: SlotSet,
    /// Slots it held and is no longer to hold.
    pub lost: SlotSet,
    /// Slots it is to own and did not, held before or not.
    pub owner_gained: SlotSet,
    /// Slots it owned and no longer does, still held or not.
    pub owner_lost: SlotSet,
}

impl SlotChanges {
    /// Whether nothing changes for the node.
    pub fn is_empty(&self) -> bool {
        self.gained.is_empty()
            && self.lost.is_empty()
            && self.owner_gained.is_empty()
            && self.owner_lost.is_empty()
    }
}

/// The slots that `node` holds under `placement`.
pub fn held(placement: &Placement, node: NodeId) -> SlotSet {
    match placement.index_of(node) {
        Some(index) => {
            Slot::all().filter(|slot| placement.replicas(*slot).contains(&index)).collect()
        }
        None => SlotSet::new(),
    }
}

/// What changes for `node` from `old` to `new`.
pub fn changes(old: &Placement, new: &Placement, node: NodeId) -> SlotChanges {
    let (before, after) = (old.index_of(node), new.index_of(node));
    let mut changes = SlotChanges::default();
    for slot in Slot::all() {
        let (was, is) = (role(old, before, slot), role(new, after, slot));
        if was.holds != is.holds {
            let set = if is.holds { &mut changes.gained } else { &mut changes.lost };
            set.insert(slot);
        }
        if was.owns != is.owns {
            let set = if is.owns { &mut changes.owner_gained } else { &mut changes.owner_lost };
            set.insert(slot);
        }
    }
    changes
}

#[derive(Clone, Copy, Default)]
struct Role {
    holds: bool,
    owns: bool,
}

fn role(placement: &Placement, index: Option<u16>, slot: Slot) -> Role {
    let Some(index) = index else { return Role::default() };
    let set = placement.replicas(slot);
    Role { holds: set.contains(&index), owns: set.first() == Some(&index) }
}
