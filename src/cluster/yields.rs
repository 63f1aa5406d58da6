//! What this node gave up because another is about to take it over.
//!
//! Who asks what the others hold before it takes a slot over from a silent node must not be
//! overtaken by somebody who heard the same a moment earlier: whoever answers gives up its own
//! take-over of those slots, and any release that it asked for and did not get yet.

use std::sync::Mutex;

use crate::tasks::lock;
use crate::types::{SLOTS, Slot, SlotSet};

/// When each slot was given up, as a count of questions.
#[derive(Debug)]
pub(super) struct Yields(Mutex<State>);

#[derive(Debug)]
struct State {
    questions: u64,
    given_up: Box<[u64]>,
}

impl Yields {
    /// Nothing given up.
    pub(super) fn new() -> Self {
        let given_up = vec![0; usize::from(SLOTS)].into();
        Self(Mutex::new(State { questions: 0, given_up }))
    }

    /// The present moment, to be compared with later.
    pub(super) fn moment(&self) -> u64 {
        lock(&self.0).questions
    }

    /// Another node may take these slots over.
    pub(super) fn give_up(&self, slots: &SlotSet) {
        if slots.is_empty() {
            return;
        }
        let mut state = lock(&self.0);
        state.questions += 1;
        let now = state.questions;
        for slot in slots.iter() {
            state.given_up[slot.index()] = now;
        }
    }

    /// Whether a slot was given up after `moment`.
    pub(super) fn since(&self, moment: u64, slot: Slot) -> bool {
        lock(&self.0).given_up[slot.index()] > moment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_before_a_moment_may_be_taken_after_it() {
        let yields = Yields::new();
        let slot = Slot::new(5).unwrap();
        let before = yields.moment();
        yields.give_up(&SlotSet::new());
        assert!(!yields.since(before, slot));
        yields.give_up(&[slot].into_iter().collect());
        assert!(yields.since(before, slot) && !yields.since(before, Slot::new(6).unwrap()));
        assert!(!yields.since(yields.moment(), slot));
    }
}
