//! The fence: a node that may have been away without knowing it lets go of everything.
//!
//! Who refuted a suspicion of itself, was alone, or finds its own last tick more than a second old
//! drops all its acting bits at once, before it executes anything else, and gives up the releases it
//! asked for. Then it asks everyone what they hold, and under which terms. What somebody else acts
//! for, or acted for under a higher term, it is not complete for any more and compares; what nobody
//! claims it takes back like any other free slot. Slots that it acted for are marked in their
//! headers until then. A node that starts has nothing to drop.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::limits::{HOLDINGS_TIMEOUT, TICK_LATE};
use crate::tasks::lock;
use crate::types::{Instant, NodeId, Slot, SlotSet, Term};
use crate::wire::message::{Request, Response};

use super::view::View;
use super::{Cache, Shared};

/// How often a node ticks.
const TICK: Duration = Duration::from_millis(100);

/// Why a node is fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceReason {
    /// Others suspected it, so they may have stood in for it.
    Suspected,
    /// Nobody else was there for a while.
    Alone,
    /// Its own last tick was late: the process or the machine stood still.
    Late,
}

impl fmt::Display for FenceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Suspected => "suspected",
            Self::Alone => "alone",
            Self::Late => "late",
        })
    }
}

/// Whether the node is fenced, and when it last ticked.
#[derive(Debug)]
pub(super) struct Fence {
    reason: Mutex<Option<FenceReason>>,
    /// Fences so far; a question asked before the last one lifts nothing.
    count: AtomicU64,
    /// Milliseconds of the monotonic clock.
    last_tick: AtomicU64,
}

fn millis(now: Instant) -> u64 {
    u64::try_from(now.since_origin().as_millis()).unwrap_or(u64::MAX)
}

impl Fence {
    /// A node that ticks from `now` on.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            reason: Mutex::default(),
            count: AtomicU64::new(0),
            last_tick: AtomicU64::new(millis(now)),
        }
    }

    /// How many fences there were.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }
}

impl Shared {
    /// Why this node is fenced; `None` if it is not.
    pub fn fenced(&self) -> Option<FenceReason> {
        *lock(&self.fence.reason)
    }

    /// Called before a batch of commands or requests is executed, and by a timer: a node whose last
    /// tick is too old executes nothing under the bits that it had.
    pub fn wake(&self, now: Instant) {
        let (now, last) = (millis(now), self.fence.last_tick.load(Ordering::SeqCst));
        if now.saturating_sub(last) > u64::try_from(TICK_LATE.as_millis()).unwrap_or(u64::MAX) {
            self.fence_off(FenceReason::Late);
            // After the bits are gone: a thread that sees the tick must see that as well.
            self.fence.last_tick.fetch_max(now, Ordering::SeqCst);
        }
    }

    /// The node's timer runs as it should.
    pub(super) fn tick(&self, now: Instant) {
        self.wake(now);
        self.fence.last_tick.fetch_max(millis(now), Ordering::SeqCst);
    }

    /// Drops every acting bit, until the others have said what is whose.
    pub(super) fn fence_off(&self, why: FenceReason) {
        self.yields.give_up(&SlotSet::full());
        let mut dropped = 0;
        for index in 0..self.store.shards() {
            let mut shard = self.store.lock_shard(index);
            let acting: Vec<Slot> =
                shard.headers().filter(|(_, header)| header.acting).map(|(slot, _)| slot).collect();
            dropped += acting.len();
            for slot in acting {
                let header = shard.header_mut(slot);
                header.acting = false;
                header.fenced = true;
                header.successor = None;
                self.hints.clear_if(slot, self.options.me);
            }
        }
        self.fence.count.fetch_add(1, Ordering::SeqCst);
        *lock(&self.fence.reason) = Some(why);
        self.fences.fetch_add(1, Ordering::Relaxed);
        self.metrics.cluster.fences.increment(1);
        self.holdings.changed();
        tracing::warn!(reason = %why, slots = dropped, "fenced: acting bits dropped");
        self.kick();
    }

    /// The terms of slots as this node knows them, in the order of the slots.
    pub(super) fn terms(&self, slots: &SlotSet) -> Vec<Term> {
        slots.iter().map(|slot| self.store.lock(slot).header(slot).term).collect()
    }

    /// The slots that this node acted for when it was fenced.
    fn fenced_slots(&self) -> SlotSet {
        let mut slots = SlotSet::new();
        for index in 0..self.store.shards() {
            let shard = self.store.lock_shard(index);
            for (slot, _) in shard.headers().filter(|(_, header)| header.fenced) {
                slots.insert(slot);
            }
        }
        slots
    }

    /// Somebody else acts for a slot, or did under a higher term, while this node was fenced.
    fn lost_while_fenced(&self, slot: Slot, term: Term) {
        let mut shard = self.store.lock(slot);
        let header = shard.header_mut(slot);
        if header.fenced {
            header.fenced = false;
            header.complete = false;
            header.term = header.term.max(term);
        }
    }
}

impl Cache {
    /// Asks the members that are not silent under which terms the slots were acted for that this
    /// node had, and lifts the fence if all of them answer; whether it is lifted. Their present
    /// words on what they act for must have been heard after the fence.
    pub(super) async fn lift_fence(&self, view: &View, silent: &BTreeSet<NodeId>) -> bool {
        let shared = &self.shared;
        if shared.fenced().is_none() {
            return true;
        }
        let (count, slots) = (shared.fence.count(), shared.fenced_slots());
        let request = Request::Terms { slots: slots.clone() }.encode();
        let others: Vec<NodeId> = view.others().map(|member| member.identity.node).collect();
        let calls: Vec<_> = others
            .iter()
            .filter(|node| !silent.contains(node))
            .map(|node| self.peers.call(*node, request.clone(), HOLDINGS_TIMEOUT))
            .collect();
        let mut known = vec![Vec::new(); slots.len()];
        for call in calls {
            let Ok(answer) = call.await else { return false };
            let Some(Response::Terms(terms)) = Response::decode(&answer) else { return false };
            for (of_slot, term) in known.iter_mut().zip(terms) {
                of_slot.push(term);
            }
        }
        if shared.fence.count() != count {
            return false;
        }
        let mut lost = 0;
        for (slot, terms) in slots.iter().zip(known) {
            let own = shared.store.lock(slot).header(slot).term;
            if let Some(term) = overruling(own, &terms) {
                shared.lost_while_fenced(slot, term);
                lost += 1;
            } else {
                shared.store.lock(slot).header_mut(slot).fenced = false;
            }
        }
        *lock(&shared.fence.reason) = None;
        shared.holdings.changed();
        tracing::info!(slots = slots.len(), lost, "fence lifted");
        true
    }
}

/// The term that overrules the own one, by what the others know: one with a higher counter. Two
/// sides of a partition may have counted alike; then more members know the one than the other, and
/// only where they are as many does the holder decide.
fn overruling(own: Term, known: &[Term]) -> Option<Term> {
    let highest = known.iter().copied().max().filter(|term| term.counter >= own.counter)?;
    if highest.counter > own.counter {
        return Some(highest);
    }
    let votes = |term: Term| known.iter().filter(|known| **known == term).count();
    let rivals = known.iter().copied().filter(|term| term.counter == own.counter && *term != own);
    let strongest = rivals.max_by_key(|term| (votes(*term), *term))?;
    ((votes(strongest), strongest) > (votes(own) + 1, own)).then_some(strongest)
}

/// Ticks until the group stops.
pub(super) async fn run(cache: Cache, mut stop: crate::tasks::Stop) {
    loop {
        cache.shared.tick(cache.shared.clock.now());
        tokio::select! {
            biased;
            () = stop.stopped() => return,
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn term(counter: u16, holder: u32) -> Term {
        Term { counter, holder }
    }

    #[test]
    fn a_higher_count_overrules_whoever_knows_it() {
        assert_eq!(overruling(term(3, 1), &[term(2, 9), term(3, 1)]), None);
        assert_eq!(overruling(term(3, 1), &[term(3, 1), term(4, 0)]), Some(term(4, 0)));
        assert_eq!(overruling(term(3, 1), &[]), None);
    }

    /// An INCR that two nodes had acknowledged was lost to a third that was cut off from them: both
    /// sides had taken the slot over once, and the holder of the lonely one was the higher.
    #[test]
    fn of_two_sides_that_counted_alike_the_larger_one_wins() {
        let (lonely, many) = (term(3, 9), term(3, 1));
        assert_eq!(overruling(lonely, &[many, many]), Some(many));
        assert_eq!(overruling(many, &[many, lonely]), None);
        assert_eq!(overruling(many, &[lonely]), Some(lonely), "one against one: the holder");
        assert_eq!(overruling(lonely, &[many]), None);
    }
}
