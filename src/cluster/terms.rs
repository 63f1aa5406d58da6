//! Under which terms the others hold slots: asked by a node that was fenced, and by whoever is about
//! to act for slots that nobody acts for.
//!
//! Who is complete follows a term, and a higher one that it does not know may have brought writes that
//! it missed: it catches up before it acts. What the others answer is weighed by whether they, or this
//! node, lost their place on the ring.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::HOLDINGS_TIMEOUT;
use crate::types::{Generation, NodeId, Phase, Slot, SlotSet, Term};
use crate::wire::message::{Request, Response, Terms};

use super::acting::HOLLOW;
use super::breakage::Rule;
use super::outcasts::{self, Verdict};
use super::view::View;
use super::{Cache, Shared};

/// The terms that other complete holders of a slot follow.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// Of those who are not out, where this node is: theirs count, whatever its own is.
    pub(super) stronger: Vec<Term>,
    /// Of those whose terms are weighed against the own one.
    pub(super) equal: Vec<Term>,
    /// Of those who are out, where this node is not, or who began with nothing.
    weaker: Vec<Term>,
    /// The highest of `equal`, and who follows it.
    highest: Option<(Term, NodeId)>,
}

impl Heard {
    pub(super) fn all(&self) -> impl Iterator<Item = Term> + '_ {
        [&self.stronger, &self.equal, &self.weaker].into_iter().flatten().copied()
    }
}

/// What was answered.
pub(super) struct Answers {
    pub(super) terms: BTreeMap<NodeId, Vec<Option<Term>>>,
    verdicts: Vec<Verdict>,
}

impl Answers {
    /// Whether most others took a node off the ring.
    pub(super) fn is_out(&self, node: NodeId) -> bool {
        outcasts::is_outvoted(node, &self.verdicts)
    }

    /// What was heard of each of `slots`, in their order.
    pub(super) fn by_slot(&self, me: NodeId, slots: &SlotSet) -> Vec<Heard> {
        let mut heard = vec![Heard::default(); slots.len()];
        let own_out = self.is_out(me);
        for (node, terms) in &self.terms {
            let their_out = self.is_out(*node);
            for (of_slot, term) in heard.iter_mut().zip(terms) {
                let is_hollow = term.is_some_and(|term| term.counter == HOLLOW);
                let place = match (own_out, their_out) {
                    _ if is_hollow => &mut of_slot.weaker,
                    (true, false) => &mut of_slot.stronger,
                    (false, true) => &mut of_slot.weaker,
                    _ => &mut of_slot.equal,
                };
                place.extend(*term);
                if own_out == their_out && !is_hollow {
                    let theirs = term.map(|term| (term, *node));
                    of_slot.highest = of_slot.highest.max(theirs);
                }
            }
        }
        heard
    }
}

impl Shared {
    /// Tells a node, which last asked this one as a fenced one under `asked`, under which terms this
    /// node holds slots, and who is off the ring.
    pub(super) fn terms(&self, asker: NodeId, slots: &SlotSet, asked: Generation) -> Terms {
        let term = |slot| {
            let shard = self.store.lock(slot);
            let header = shard.header(slot);
            header.complete.then_some(header.term)
        };
        let mut removed = self.outcasts.all();
        if !self.outcasts.is_out(asker, asked) {
            removed.remove(&asker);
        }
        let removed = removed.into_iter().collect();
        Terms { terms: slots.iter().map(term).collect(), removed }
    }

    /// Notes the terms that others follow for a slot that this node is about to act for. Gives the
    /// complete holder of the highest, if that is higher than its own: there may be writes that it
    /// missed.
    fn note_terms(&self, slot: Slot, heard: &Heard) -> Option<NodeId> {
        let mut shard = self.store.lock(slot);
        let header = shard.header_mut(slot);
        let highest = heard.all().max().unwrap_or_default();
        header.above = header.above.max(highest);
        let own = header.term;
        heard.highest.filter(|(term, _)| *term > own).map(|(_, node)| node)
    }
}

impl Shared {
    /// Complete holders of the term that this node follows which are not of the slot's set any more.
    fn former_equals(
        &self,
        view: &View,
        slots: &SlotSet,
        answers: &Answers,
    ) -> Vec<(NodeId, Slot)> {
        let mut former = Vec::new();
        for (node, terms) in &answers.terms {
            let held = slots.iter().zip(terms).filter_map(|(slot, term)| Some((slot, (*term)?)));
            for (slot, term) in held.filter(|(slot, _)| !view.placement.holds(*node, *slot)) {
                if self.store.lock(slot).header(slot).term == term {
                    former.push((*node, slot));
                }
            }
        }
        former
    }
}

impl Cache {
    /// Of slots that nobody acts for those that this node may take. It asks everyone who is not silent for
    /// the terms that they follow, and where a complete holder follows a higher one it takes in first
    /// what that has and it has not. So it does with former holders of the same term, whose word may
    /// have counted for a write until a moment ago. Nothing, if one does not answer or this node is out.
    pub(super) async fn catch_up(
        &self,
        view: &View,
        silent: &BTreeSet<NodeId>,
        slots: SlotSet,
    ) -> SlotSet {
        if slots.is_empty() || Rule::HighestTerm.is_broken() {
            return slots;
        }
        let shared = &self.shared;
        let answers = self.ask_terms(view, silent, &slots).await;
        let Some(answers) = answers.filter(|answers| !answers.is_out(view.me)) else {
            return SlotSet::new();
        };
        let mut ahead: BTreeMap<NodeId, SlotSet> = BTreeMap::new();
        for (slot, heard) in slots.iter().zip(&answers.by_slot(view.me, &slots)) {
            if let Some(node) = shared.note_terms(slot, heard) {
                ahead.entry(node).or_default().insert(slot);
            }
        }
        for (node, slot) in shared.former_equals(view, &slots, &answers) {
            ahead.entry(node).or_default().insert(slot);
        }
        let mut ready = slots;
        for (node, mut behind) in ahead {
            match self.pull_from(node, &behind).await {
                Ok(done) => behind.subtract(&done),
                Err(error) => tracing::info!(%node, %error, "not taken over: cannot catch up"),
            }
            ready.subtract(&behind);
        }
        ready
    }

    /// Asks everyone who is not silent; `None` if one of them did not answer.
    pub(super) async fn ask_terms(
        &self,
        view: &View,
        silent: &BTreeSet<NodeId>,
        slots: &SlotSet,
    ) -> Option<Answers> {
        let shared = &self.shared;
        let calls: Vec<_> = view
            .others()
            .map(|member| member.identity.node)
            .filter(|node| !silent.contains(node))
            .map(|node| {
                let asked = shared.outcasts.asked(node);
                let request = Request::Terms { slots: slots.clone(), asked }.encode();
                (node, self.peers.call(node, request, HOLDINGS_TIMEOUT))
            })
            .collect();
        let own = Verdict { by: view.me, out: shared.outcasts.all() };
        let mut answers = Answers { terms: BTreeMap::new(), verdicts: vec![own] };
        for (node, call) in calls {
            let answer = match call.await {
                Ok(answer) => answer,
                // It has stopped, and released what it had.
                Err(_) if view.phase_of(node) == Some(Phase::Paused) => continue,
                Err(_) => return None,
            };
            let Some(Response::Terms(said)) = Response::decode(&answer) else { return None };
            answers.terms.insert(node, said.terms);
            let out = said.removed.into_iter().collect();
            answers.verdicts.push(Verdict { by: node, out });
        }
        Some(answers)
    }
}

/// The term that overrules the own one, by what the other complete holders know: the one that most
/// of them know, this node included, and of those that as many know the highest.
///
/// A write that a majority of the holders acknowledged has shown them its term. So a side of a
/// partition with most of the copies is not overruled by a lonely holder that took over from it; and
/// where a stopped node meets the one deputy that stood in for it, the deputy's term is the higher.
pub(super) fn overruling(own: Term, known: &[Term]) -> Option<Term> {
    let votes = |term: Term| {
        known.iter().filter(|known| **known == term).count() + usize::from(term == own)
    };
    let strongest = known.iter().copied().max_by_key(|term| (votes(*term), *term))?;
    ((votes(strongest), strongest) > (votes(own), own)).then_some(strongest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn term(counter: u16, holder: u32) -> Term {
        Term { counter, holder }
    }

    #[test]
    fn a_deputy_overrules_the_node_that_it_stood_in_for() {
        assert_eq!(overruling(term(3, 9), &[term(4, 1)]), Some(term(4, 1)));
        assert_eq!(overruling(term(4, 1), &[term(3, 9)]), None);
        assert_eq!(overruling(term(3, 1), &[term(3, 1), term(2, 9)]), None);
        assert_eq!(overruling(term(3, 1), &[]), None);
    }

    /// INCRs that two nodes had acknowledged were lost to a third that was cut off from them: it had
    /// taken the slot over, as high as they or higher, and had acknowledged nothing.
    #[test]
    fn of_two_sides_the_larger_one_wins() {
        for lonely in [term(3, 9), term(4, 1), term(7, 1)] {
            let many = term(3, 2);
            assert_eq!(overruling(lonely, &[many, many]), Some(many));
            assert_eq!(overruling(many, &[many, lonely]), None);
            assert_eq!(overruling(many, &[lonely]), Some(lonely), "one against one");
            assert_eq!(overruling(lonely, &[many]), None);
        }
    }
}
