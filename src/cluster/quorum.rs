//! Counts the acknowledgements of one write and decides when enough is enough. Pure.

use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use crate::tasks::lock;
use crate::wire::message::Applied;

/// What came of waiting for a write's acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// As many copies as asked for.
    Enough,
    /// Every holder answered or is given up, and too few applied it.
    Short,
    /// A holder knows a higher term: whether the write survives is not known.
    Deposed,
}

/// The tally of one write. Shared by the queues of the holders that it was sent to.
#[derive(Debug)]
pub(super) struct Tally(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Acknowledgements still needed.
    needed: u8,
    /// Holders that may still give one.
    waiting: u8,
    /// Taken when the verdict is given.
    decided: Option<oneshot::Sender<Verdict>>,
}

/// Where the verdict arrives; a dropped tally reads as [`Verdict::Short`].
pub(super) type Decision = oneshot::Receiver<Verdict>;

impl Tally {
    /// A tally that needs `needed` acknowledgements out of `waiting` holders.
    pub(super) fn new(needed: u8, waiting: u8) -> (Arc<Self>, Decision) {
        let (sender, receiver) = oneshot::channel();
        let mut state = State { needed, waiting, decided: Some(sender) };
        state.settle();
        (Arc::new(Self(Mutex::new(state))), receiver)
    }

    /// A holder answered.
    pub(super) fn answered(&self, applied: Applied) {
        let mut state = lock(&self.0);
        state.waiting = state.waiting.saturating_sub(1);
        match applied {
            Applied::Complete | Applied::Superseded { same_origin: true } => {
                state.needed = state.needed.saturating_sub(1);
            }
            Applied::Incomplete
            | Applied::Unwanted
            | Applied::Superseded { same_origin: false } => {}
            Applied::Deposed { .. } => state.decide(Verdict::Deposed),
        }
        state.settle();
    }

    /// This node hears that it was given up: whether the write survives is not known.
    pub(super) fn disowned(&self) {
        lock(&self.0).decide(Verdict::Deposed);
    }

    /// A holder is not waited for any more.
    pub(super) fn given_up(&self) {
        let mut state = lock(&self.0);
        state.waiting = state.waiting.saturating_sub(1);
        state.settle();
    }
}

impl State {
    fn settle(&mut self) {
        if self.needed == 0 {
            self.decide(Verdict::Enough);
        } else if self.waiting == 0 {
            self.decide(Verdict::Short);
        }
    }

    fn decide(&mut self, verdict: Verdict) {
        if let Some(sender) = self.decided.take() {
            // The client may be gone; then nobody waits for the verdict.
            let _unheard = sender.send(verdict);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Term;

    fn verdict(needed: u8, waiting: u8, steps: &[Option<Applied>]) -> Option<Verdict> {
        let (tally, mut decision) = Tally::new(needed, waiting);
        for step in steps {
            match step {
                Some(applied) => tally.answered(*applied),
                None => tally.given_up(),
            }
        }
        decision.try_recv().ok()
    }

    #[test]
    fn enough_is_said_as_soon_as_it_is_true() {
        assert_eq!(verdict(1, 2, &[]), None);
        assert_eq!(verdict(1, 2, &[Some(Applied::Complete)]), Some(Verdict::Enough));
        assert_eq!(verdict(0, 2, &[]), Some(Verdict::Enough));
    }

    #[test]
    fn an_incomplete_holder_counts_for_nothing() {
        let steps = [Some(Applied::Incomplete), Some(Applied::Complete)];
        assert_eq!(verdict(2, 2, &steps), Some(Verdict::Short));
        let newer = Applied::Superseded { same_origin: false };
        assert_eq!(verdict(1, 1, &[Some(newer)]), Some(Verdict::Short));
        let own = Applied::Superseded { same_origin: true };
        assert_eq!(verdict(1, 1, &[Some(own)]), Some(Verdict::Enough));
    }

    #[test]
    fn a_deposed_sender_is_told_at_once() {
        let deposed = Applied::Deposed { term: Term::default(), acting: None };
        assert_eq!(verdict(1, 2, &[Some(deposed)]), Some(Verdict::Deposed));
        assert_eq!(verdict(1, 1, &[None]), Some(Verdict::Short));
    }
}
