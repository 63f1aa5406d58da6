//! Under which terms the others hold slots: asked by a node that was fenced, and by whoever is about
//! to act for slots that nobody acts for.
//!
//! Who is complete follows a term, and a higher one that it does not know may have brought writes that
//! it missed: it catches up before it acts. What the others answer is weighed by whether they, or this
//! node, lost their place on the ring.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::{HOLDINGS_TIMEOUT, PULLS_AT_ONCE};
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

    /// Weighs a term that a node follows by whether this node and that one are out.
    fn note(&mut self, node: NodeId, term: Term, own_out: bool, their_out: bool) {
        match (own_out, their_out) {
            _ if term.counter == HOLLOW => self.weaker.push(term),
            (true, false) => self.stronger.push(term),
            (false, true) => self.weaker.push(term),
            _ => {
                self.equal.push(term);
                self.highest = self.highest.max(Some((term, node)));
            }
        }
    }
}

/// What was answered.
pub(super) struct Answers {
    pub(super) terms: BTreeMap<NodeId, Vec<Option<Term>>>,
    /// Copies that were complete until others had gone on without them, with their digests and terms.
    discounted: BTreeMap<NodeId, Vec<(Slot, u64, Term)>>,
    verdicts: Vec<Verdict>,
}

impl Answers {
    /// Whether most others took a node off the ring.
    pub(super) fn is_out(&self, node: NodeId) -> bool {
        outcasts::is_outvoted(node, &self.verdicts)
    }

    /// The complete holders of each of `slots` that are not out and did not begin with nothing.
    fn holders<'a>(&'a self, slots: &'a SlotSet) -> impl Iterator<Item = (NodeId, Slot)> + 'a {
        let counts = |term: &Option<Term>| term.is_some_and(|term| term.counter != HOLLOW);
        let present = self.terms.iter().filter(|(node, _)| !self.is_out(**node));
        present.flat_map(move |(node, terms)| {
            let held = slots.iter().zip(terms).filter(move |(_, term)| counts(term));
            held.map(|(slot, _)| (*node, slot))
        })
    }

    /// What was heard of each of `slots`, one after the other: all at once would be megabytes.
    pub(super) fn by_slot<'a>(
        &'a self,
        me: NodeId,
        slots: &'a SlotSet,
    ) -> impl Iterator<Item = (Slot, Heard)> + 'a {
        let own_out = self.is_out(me);
        let terms = self.terms.iter().map(|(node, terms)| (*node, self.is_out(*node), terms));
        let terms: Vec<_> = terms.collect();
        slots.iter().enumerate().map(move |(index, slot)| {
            let mut heard = Heard::default();
            for (node, their_out, terms) in &terms {
                if let Some(Some(term)) = terms.get(index) {
                    heard.note(*node, *term, own_out, *their_out);
                }
            }
            (slot, heard)
        })
    }
}

impl Shared {
    /// Tells a node, which last asked this one as a fenced one under `asked`, under which terms this
    /// node holds slots, which of its copies count no more, and who is off the ring.
    pub(super) fn terms(&self, asker: NodeId, slots: &SlotSet, asked: Generation) -> Terms {
        let (mut held, mut discounted) = (Vec::with_capacity(slots.len()), Vec::new());
        for slot in slots.iter() {
            let shard = self.store.lock(slot);
            let header = shard.header(slot);
            held.push(header.complete.then_some(header.term));
            if header.discounted && !header.complete {
                discounted.push((slot, header.digest(), header.term.max(header.above)));
            }
        }
        let mut removed = self.outcasts.all();
        if !self.outcasts.is_out(asker, asked) {
            removed.remove(&asker);
        }
        let removed = removed.into_iter().collect();
        Terms { held, discounted, removed }
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

impl Cache {
    /// Of slots that nobody acts for those that this node may take. It asks everyone who is not silent for
    /// the terms that they follow, and where a complete holder follows a higher one it takes in first
    /// what that has and it has not. So it does with complete holders that are not of the set, and with all
    /// where its own copy is not proved under the present placement, or where fewer than all acknowledge a
    /// write: the word of each may have counted for one that was on its way here. Nothing, if one does not answer or this node is out.
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
        let fences = shared.fence.count();
        let answers = self.ask_terms(view, silent, &slots).await;
        let Some(answers) = answers.filter(|answers| !answers.is_out(view.me)) else {
            return SlotSet::new();
        };
        let mut ahead: BTreeMap<NodeId, SlotSet> = BTreeMap::new();
        for (slot, heard) in answers.by_slot(view.me, &slots) {
            if let Some(node) = shared.note_terms(slot, &heard) {
                ahead.entry(node).or_default().insert(slot);
            }
        }
        let proved = shared.proved.under(view.changes);
        let replicas = view.table.facts.replicas;
        let all_acknowledge = shared.options.acks.needed(replicas) == replicas;
        // Who acts may have counted one that this node's placement does not know yet, or knows no more.
        let may_lack = |node, slot| {
            !all_acknowledge || !proved.contains(slot) || !view.placement.holds(node, slot)
        };
        for (node, slot) in answers.holders(&slots).filter(|(node, slot)| may_lack(*node, *slot)) {
            ahead.entry(node).or_default().insert(slot);
        }
        let ready = self.pull(ahead, slots).await;
        let ready = self.pull_discounted(answers.discounted, ready).await;
        // So that the next round need not begin anew if nothing comes of this one.
        if shared.fence.count() == fences {
            shared.proved.note(view.changes, &ready, &shared.own_holdings().complete);
        }
        ready
    }

    /// Takes in what holders may have that this node has not; gives those of `slots` for which that was
    /// done. The next round goes on.
    async fn pull(&self, ahead: BTreeMap<NodeId, SlotSet>, slots: SlotSet) -> SlotSet {
        let mut ready = slots;
        for (node, mut behind) in ahead {
            let (done, ended) = self.pull_from(node, &behind).await;
            behind.subtract(&done);
            match ended {
                Err(error) => tracing::info!(%node, %error, "not taken over: cannot catch up"),
                Ok(()) if !behind.is_empty() => self.shared.kick(),
                Ok(()) => {}
            }
            ready.subtract(&behind);
        }
        ready
    }

    /// Takes in what copies have that were complete until others had gone on without them: where a split left one
    /// node on each side nobody can tell whose copy has what was acknowledged. Both have it then, and of
    /// each key the newer one. Gives those of `slots` for which that was done.
    async fn pull_discounted(
        &self,
        discounted: BTreeMap<NodeId, Vec<(Slot, u64, Term)>>,
        slots: SlotSet,
    ) -> SlotSet {
        let mut ready = slots;
        for (node, copies) in discounted {
            let mut differing = Vec::new();
            for (slot, digest, term) in copies.into_iter().filter(|copy| ready.contains(copy.0)) {
                let mut shard = self.shared.store.lock(slot);
                let header = shard.header_mut(slot);
                // What it has may be of that term: what this node writes goes above it.
                header.above = header.above.max(term);
                if header.digest() != digest {
                    differing.push(slot);
                }
            }
            let later = differing.split_off(differing.len().min(PULLS_AT_ONCE));
            let (done, ended) = self.pull_slots(node, &differing).await;
            match ended {
                Err(error) => {
                    tracing::info!(%node, %error, "not taken over: cannot take in its copy");
                }
                Ok(()) if !later.is_empty() => self.shared.kick(),
                Ok(()) => {}
            }
            let missing = differing.into_iter().filter(|slot| !done.contains(*slot));
            ready.subtract(&missing.chain(later).collect());
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
        let mut answers =
            Answers { terms: BTreeMap::new(), discounted: BTreeMap::new(), verdicts: vec![own] };
        for (node, call) in calls {
            let answer = match call.await {
                Ok(answer) => answer,
                // It has stopped, and released what it had.
                Err(_) if view.phase_of(node) == Some(Phase::Paused) => continue,
                Err(_) => return None,
            };
            let Some(Response::Terms(said)) = Response::decode(&answer) else { return None };
            answers.terms.insert(node, said.held);
            answers.discounted.insert(node, said.discounted);
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
