//! Members that lost their place on the ring, and what their word is worth.
//!
//! Who takes a member off the ring goes on without its copies. If it comes back it may not know that
//! yet, and says that it is complete and acts as before. Its word counts for nothing until it was
//! fenced and has asked everyone since: each member keeps the generation under which it last asked
//! each other, and tells it with its holdings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use crate::members::MemberTable;
use crate::tasks::lock;
use crate::types::{Generation, NodeId};

use super::breakage::Rule;

/// Who is out by this node's own doing, and with whom this node has settled that it is not.
#[derive(Debug)]
pub(super) struct Outcasts {
    /// Members that this node took off the ring and that have not asked it since, with the
    /// generation that lost its place.
    removed: Mutex<BTreeMap<NodeId, Generation>>,
    /// This node's generation when it last asked a member.
    asked: Mutex<BTreeMap<NodeId, Generation>>,
    /// The generation of this node that a member said it took off the ring.
    told: Mutex<BTreeMap<NodeId, Generation>>,
    /// This node's generation at its start, when it had nothing to be wrong about.
    first: Generation,
}

impl Outcasts {
    /// Nobody is out.
    pub(super) fn new(first: Generation) -> Self {
        Self { removed: Mutex::default(), asked: Mutex::default(), told: Mutex::default(), first }
    }

    /// Remembers who lost its place.
    pub(super) fn note(&self, table: &MemberTable) {
        if Rule::Outcasts.is_broken() {
            return;
        }
        let mut removed = lock(&self.removed);
        removed.retain(|node, _| table.get(*node).is_some());
        for member in table.members.iter().filter(|member| member.removed) {
            let known = removed.entry(member.identity.node).or_default();
            *known = (*known).max(member.identity.generation);
        }
    }

    /// The generation of a member that is out.
    pub(super) fn removal(&self, node: NodeId) -> Option<Generation> {
        lock(&self.removed).get(&node).copied()
    }

    /// All that are out.
    pub(super) fn all(&self) -> BTreeSet<NodeId> {
        lock(&self.removed).keys().copied().collect()
    }

    /// Whether a member that last asked under `asked` lost its place since.
    pub(super) fn is_out(&self, node: NodeId, asked: Generation) -> bool {
        self.removal(node).is_some_and(|removed| removed >= asked)
    }

    /// A member said under which generation it last asked this node. If it lost its place before
    /// that, its word counts again. Whether it is still out.
    pub(super) fn heard(&self, node: NodeId, asked: Generation) -> bool {
        let mut removed = lock(&self.removed);
        let is_out = removed.get(&node).is_some_and(|removed| *removed >= asked);
        if !is_out {
            removed.remove(&node);
        }
        is_out
    }

    /// This node's generation when it last asked a member, or started.
    pub(super) fn asked(&self, node: NodeId) -> Generation {
        lock(&self.asked).get(&node).copied().unwrap_or(self.first)
    }

    /// A member says which generation of this node it took off the ring; whether this node has not
    /// asked it since.
    pub(super) fn is_news(&self, node: NodeId, removed: Generation) -> bool {
        let news = removed >= self.asked(node);
        if news {
            lock(&self.told).insert(node, removed);
        }
        news
    }

    /// This node has asked a member under its present generation, and acted upon the answer. If that
    /// is the very generation that lost its place, what it was told of is settled all the same.
    pub(super) fn settle(&self, node: NodeId, generation: Generation) {
        let told = lock(&self.told).remove(&node).unwrap_or_default();
        let settled = generation.max(Generation(told.0.saturating_add(1)));
        lock(&self.asked).insert(node, settled);
    }
}

/// What one member says of who is out.
#[derive(Clone, Debug)]
pub(super) struct Verdict {
    /// Who says it.
    pub(super) by: NodeId,
    /// Those that it took off the ring.
    pub(super) out: BTreeSet<NodeId>,
}

/// Whether more than half of the others took a node off the ring.
pub(super) fn is_outvoted(node: NodeId, verdicts: &[Verdict]) -> bool {
    let others = || verdicts.iter().filter(|verdict| verdict.by != node);
    others().filter(|verdict| verdict.out.contains(&node)).count() * 2 > others().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(by: u128, out: &[u128]) -> Verdict {
        Verdict { by: NodeId(by), out: out.iter().map(|node| NodeId(*node)).collect() }
    }

    #[test]
    fn of_a_split_the_smaller_side_is_out() {
        let verdicts = [verdict(1, &[2]), verdict(2, &[1]), verdict(3, &[1])];
        assert!(is_outvoted(NodeId(1), &verdicts), "by both others");
        assert!(!is_outvoted(NodeId(2), &verdicts), "by one of two");
        assert!(!is_outvoted(NodeId(3), &verdicts));
        let two = [verdict(1, &[2]), verdict(2, &[1])];
        assert!(is_outvoted(NodeId(1), &two) && is_outvoted(NodeId(2), &two), "each by the other");
        assert!(!is_outvoted(NodeId(1), &[verdict(1, &[])]), "nobody said so");
    }

    #[test]
    fn a_word_counts_again_once_its_node_has_asked() {
        let outcasts = Outcasts::new(Generation(3));
        lock(&outcasts.removed).insert(NodeId(7), Generation(10));
        assert!(
            outcasts.is_out(NodeId(7), Generation(10)) && outcasts.is_out(NodeId(7), Generation(4))
        );
        assert!(outcasts.heard(NodeId(7), Generation(10)));
        assert_eq!(
            outcasts.removal(NodeId(7)),
            Some(Generation(10)),
            "asked before it was removed"
        );
        assert!(!outcasts.heard(NodeId(7), Generation(11)));
        assert_eq!(outcasts.removal(NodeId(7)), None);
        assert_eq!(outcasts.asked(NodeId(7)), Generation(3));
        outcasts.settle(NodeId(7), Generation(5));
        assert_eq!(outcasts.asked(NodeId(7)), Generation(5));
        assert!(outcasts.is_news(NodeId(7), Generation(5)));
        outcasts.settle(NodeId(7), Generation(5));
        assert!(!outcasts.is_news(NodeId(7), Generation(5)), "no fence after fence");
    }
}
