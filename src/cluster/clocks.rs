//! How far the peers' clocks are from this node's, and whether it is this node's that is wrong.
//!
//! Every answer about holdings tells the answerer's time of day. Expiries are times of day, and so
//! are the stamps of writes: a node whose clock most others find far off acts for nothing until it is
//! right again, and the others ask it for its slots. Of two nodes nobody can tell which is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::tasks::lock;
use crate::types::{NodeId, WallMillis};

use super::Shared;
use super::view::View;

/// How far off a clock is wrong, in milliseconds.
const WRONG_MILLIS: u64 = 5_000;
/// How far off one is at most that was wrong and is right again, in milliseconds.
const RIGHT_MILLIS: u64 = 3_000;
/// A question that took longer measures nothing, in milliseconds.
const QUICK_MILLIS: u64 = 1_000;

/// What is known of the peers' clocks.
#[derive(Debug, Default)]
pub(super) struct Clocks {
    /// Milliseconds by which each peer's clock is ahead of this node's.
    offsets: Mutex<BTreeMap<NodeId, i64>>,
    /// When each peer last said so, on this node's clock.
    told: Mutex<BTreeMap<NodeId, WallMillis>>,
    wrong: AtomicBool,
}

impl Clocks {
    /// A peer said what time it is, between two looks at the own clock.
    pub(super) fn note(&self, node: NodeId, asked: WallMillis, told: WallMillis, now: WallMillis) {
        lock(&self.told).insert(node, now);
        let took = now.0.saturating_sub(asked.0);
        if took <= QUICK_MILLIS {
            let half_way = asked.0.saturating_add(took / 2);
            lock(&self.offsets).insert(node, told.0.cast_signed() - half_way.cast_signed());
        }
    }

    /// Milliseconds by which a peer's clock is ahead.
    fn offset(&self, node: NodeId) -> Option<i64> {
        lock(&self.offsets).get(&node).copied()
    }

    /// Whether this node's clock is the one that is wrong.
    pub(super) fn is_wrong(&self) -> bool {
        self.wrong.load(Ordering::SeqCst)
    }

    /// Whether most of the members find this node's clock wrong.
    fn judge(&self, others: impl Iterator<Item = NodeId>) -> bool {
        let others: BTreeSet<NodeId> = others.collect();
        let mut offsets = lock(&self.offsets);
        offsets.retain(|node, _| others.contains(node));
        lock(&self.told).retain(|node, _| others.contains(node));
        let limit = if self.is_wrong() { RIGHT_MILLIS } else { WRONG_MILLIS };
        let far = offsets.values().filter(|offset| offset.unsigned_abs() >= limit).count();
        far * 2 > others.len() + 1
    }
}

impl Shared {
    /// Seconds by which a peer's clock is ahead of this node's; `None` if it was not heard of.
    pub fn clock_offset(&self, node: NodeId) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a wrong clock")]
        self.clocks.offset(node).map(|millis| millis as f64 / 1_000.0)
    }

    /// When a peer last said what it holds; `None` if it did not yet, or is gone.
    pub fn last_told(&self, node: NodeId) -> Option<WallMillis> {
        lock(&self.clocks.told).get(&node).copied()
    }

    /// Whether this node acts for nothing because its clock is wrong.
    pub fn is_clock_wrong(&self) -> bool {
        self.clocks.is_wrong()
    }

    /// Looks at the clocks after a round in which all were asked.
    pub(super) fn judge_clocks(&self, view: &View) {
        let wrong = self.clocks.judge(view.others().map(|member| member.identity.node));
        if self.clocks.wrong.swap(wrong, Ordering::SeqCst) == wrong {
            return;
        }
        if wrong {
            tracing::error!(
                "this node's clock is wrong: it hands its slots over until it is set right"
            );
        } else {
            tracing::info!("this node's clock is right again");
        }
        self.holdings.changed();
        self.kick();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_of_the_others_must_find_a_clock_wrong() {
        let clocks = Clocks::default();
        let at = WallMillis(1_000_000);
        let others = || [NodeId(1), NodeId(2)].into_iter();
        clocks.note(NodeId(1), at, WallMillis(at.0 + 6_000), at);
        assert_eq!(clocks.offset(NodeId(1)), Some(6_000));
        assert!(!clocks.judge(others()), "one of two: it may be that one's");
        clocks.note(NodeId(2), at, WallMillis(at.0 - 6_000), WallMillis(at.0 + 2_000));
        assert_eq!(clocks.offset(NodeId(2)), None, "it took too long");
        assert_eq!(lock(&clocks.told)[&NodeId(2)], WallMillis(at.0 + 2_000), "and yet it answered");
        clocks.note(NodeId(2), at, WallMillis(at.0 - 6_000), WallMillis(at.0 + 200));
        assert_eq!(clocks.offset(NodeId(2)), Some(-6_100));
        assert!(clocks.judge(others()));
        assert!(!clocks.judge([NodeId(1)].into_iter()), "two nodes cannot tell");
    }
}
