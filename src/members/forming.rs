//! Who forms the cluster when nobody is in one yet.
//!
//! A node that was given seeds asks them all, for ever, and joins the first member that answers.
//! Nodes that are still looking answer as *starters*. Exactly one of them may form the cluster:
//!
//! 1. a node without seeds, at once;
//! 2. the node whose own address stands first in its list, after five seconds without a member (if
//!    lists differ, of several firsts that hear each other the one with the lowest id);
//! 3. else, where no first is heard, the lowest id among starters that reach more than half of the
//!    seeds, after five seconds;
//! 4. else a node that was told to (`serve --form` once all seeds were asked, `chickadee form` at
//!    once).
//!
//! Everyone else waits and says for whom. Two clusters that form in spite of this (a split during
//! the first start) merge when they meet.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::limits::STARTERS_MAX;
use crate::types::{Instant, NodeId};

/// How long a node looks for a member before it may form a cluster.
const PATIENCE: Duration = Duration::from_secs(5);

/// A starter that was not heard for this long counts no more: it asks its seeds twice a second.
const FRESH: Duration = Duration::from_secs(3);

/// What a seed answered last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SeedState {
    /// Not asked yet.
    Unasked,
    /// It is this node.
    Myself,
    /// It looks for a cluster as well.
    Starter,
    /// It did not let this node in, or did not answer, and why.
    Failed(String),
}

/// Whether this node forms the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Form it now.
    Form,
    /// Wait; for whom, in words for people.
    Wait(String),
}

#[derive(Clone, Copy, Debug)]
struct Starter {
    first: bool,
    heard: Instant,
}

/// What a node that looks for a cluster knows.
#[derive(Debug)]
pub(super) struct Forming {
    me: NodeId,
    since: Instant,
    /// Told to form once every seed was asked and none was a member.
    form_when_asked: bool,
    seeds: Vec<(String, SeedState)>,
    starters: BTreeMap<NodeId, Starter>,
}

impl Forming {
    /// A node that begins to look.
    pub(super) fn new(me: NodeId, seeds: Vec<String>, form_when_asked: bool, now: Instant) -> Self {
        let seeds = seeds.into_iter().map(|seed| (seed, SeedState::Unasked)).collect();
        Self { me, since: now, form_when_asked, seeds, starters: BTreeMap::new() }
    }

    /// Notes what a seed answered.
    pub(super) fn note_seed(&mut self, index: usize, state: SeedState) {
        if let Some((_, known)) = self.seeds.get_mut(index) {
            *known = state;
        }
    }

    /// Notes that another node looks for a cluster, whether it was asked or asked this node.
    pub(super) fn note_starter(&mut self, now: Instant, node: NodeId, first: bool) {
        if node == self.me {
            return;
        }
        if self.starters.len() >= STARTERS_MAX && !self.starters.contains_key(&node) {
            return;
        }
        self.starters.insert(node, Starter { first, heard: now });
    }

    /// How long this node has been looking.
    pub(super) fn waited(&self, now: Instant) -> Duration {
        now.saturating_since(self.since)
    }

    /// Whether this node's own address stands first in its list of seeds.
    pub(super) fn is_first(&self) -> bool {
        matches!(self.seeds.first(), Some((_, SeedState::Myself)))
    }

    /// Whether to form the cluster, by what is known now.
    pub(super) fn decide(&mut self, now: Instant) -> Decision {
        if self.seeds.is_empty() {
            return Decision::Form;
        }
        let asked = self.seeds.iter().all(|(_, state)| *state != SeedState::Unasked);
        if self.form_when_asked && asked {
            return Decision::Form;
        }
        self.starters.retain(|_, starter| now.saturating_since(starter.heard) < FRESH);
        if self.waited(now) < PATIENCE {
            return Decision::Wait(format!("looking for members: {}", self.summary()));
        }
        let other_first = self.starters.iter().find(|(_, starter)| starter.first);
        if self.is_first() {
            return match other_first {
                Some((node, _)) if *node < self.me => Decision::Wait(format!(
                    "node {node}, first in its list of seeds, will form the cluster"
                )),
                Some(_) | None => Decision::Form,
            };
        }
        if let Some((node, _)) = other_first {
            return Decision::Wait(format!("first seed, node {node}, will form the cluster"));
        }
        let reached = self
            .seeds
            .iter()
            .filter(|(_, state)| matches!(state, SeedState::Myself | SeedState::Starter))
            .count();
        if reached.saturating_mul(2) <= self.seeds.len() {
            return Decision::Wait(format!(
                "{reached} of {} seeds reached, more than half are needed: {}",
                self.seeds.len(),
                self.summary()
            ));
        }
        match self.starters.keys().next().filter(|lowest| **lowest < self.me) {
            Some(lowest) => Decision::Wait(format!("node {lowest} will form the cluster")),
            None => Decision::Form,
        }
    }

    fn summary(&self) -> String {
        let seed = |(seed, state): &(String, SeedState)| match state {
            SeedState::Unasked => format!("{seed} (not asked yet)"),
            SeedState::Myself => format!("{seed} (this node)"),
            SeedState::Starter => format!("{seed} (looking as well)"),
            SeedState::Failed(why) => format!("{seed} ({why})"),
        };
        self.seeds.iter().map(seed).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(seconds))
    }

    fn forming(me: u128, states: &[SeedState]) -> Forming {
        let seeds = (0..states.len()).map(|seed| format!("s{seed}:7401")).collect();
        let mut forming = Forming::new(NodeId(me), seeds, false, at(0));
        for (index, state) in states.iter().enumerate() {
            forming.note_seed(index, state.clone());
        }
        forming
    }

    fn failed() -> SeedState {
        SeedState::Failed("no route".to_owned())
    }

    #[test]
    fn a_node_without_seeds_forms_at_once() {
        assert_eq!(forming(1, &[]).decide(at(0)), Decision::Form);
    }

    #[test]
    fn the_first_of_the_list_forms_after_five_seconds() {
        let mut first = forming(9, &[SeedState::Myself, SeedState::Starter, SeedState::Starter]);
        first.note_starter(at(4), NodeId(1), false);
        assert!(matches!(first.decide(at(4)), Decision::Wait(_)));
        assert_eq!(first.decide(at(5)), Decision::Form);
    }

    #[test]
    fn others_wait_for_the_first_while_they_hear_it() {
        let mut other = forming(1, &[SeedState::Starter, SeedState::Myself, SeedState::Starter]);
        other.note_starter(at(5), NodeId(9), true);
        assert!(matches!(other.decide(at(6)), Decision::Wait(_)));
        assert_eq!(other.decide(at(8)), Decision::Form, "the first fell silent");
    }

    #[test]
    fn of_several_firsts_the_lowest_id_forms() {
        for (me, other, forms) in [(1, 2, true), (2, 1, false)] {
            let mut first = forming(me, &[SeedState::Myself, SeedState::Starter]);
            first.note_starter(at(5), NodeId(other), true);
            assert_eq!(first.decide(at(5)) == Decision::Form, forms);
        }
    }

    #[test]
    fn without_the_first_the_lowest_of_a_majority_forms() {
        for (me, other, forms) in [(1, 2, true), (2, 1, false)] {
            let mut one = forming(me, &[failed(), SeedState::Myself, SeedState::Starter]);
            one.note_starter(at(5), NodeId(other), false);
            assert_eq!(one.decide(at(5)) == Decision::Form, forms);
        }
    }

    #[test]
    fn half_of_the_seeds_is_not_enough() {
        let mut one = forming(1, &[failed(), SeedState::Myself]);
        let Decision::Wait(why) = one.decide(at(100)) else { panic!("formed alone") };
        assert!(
            why.contains("1 of 2 seeds reached") && why.contains("s0:7401 (no route)"),
            "{why}"
        );
    }

    #[test]
    fn a_node_told_to_form_asks_every_seed_before() {
        let seeds = vec!["a:1".to_owned(), "b:1".to_owned()];
        let mut told = Forming::new(NodeId(1), seeds, true, at(0));
        told.note_seed(0, failed());
        assert!(matches!(told.decide(at(9)), Decision::Wait(_)));
        told.note_seed(1, failed());
        assert_eq!(told.decide(at(9)), Decision::Form);
    }
}
