//! The fence: a node that may have been away without knowing it lets go of everything.
//!
//! Who refuted a suspicion of itself, was alone, hears that it lost its place on the ring, or finds its
//! own last tick more than a second old drops all its acting bits at once, before it executes anything else, and gives up the releases it
//! asked for. Then it asks everyone what they hold, and under which terms. Where the holders followed
//! another term meanwhile it is not complete any more: it is filled, and compared. What nobody claims
//! it takes back like any other free slot. Slots that it acted for are marked in their
//! headers until then. A node that starts has nothing to drop.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::limits::{HOLDINGS_TIMEOUT, TICK_LATE};
use crate::tasks::lock;
use crate::types::{Generation, Instant, NodeId, Slot, SlotSet, Term};
use crate::wire::message::{Request, Response, Terms};

use super::acting::HOLLOW;
use super::breakage::Rule;
use super::outcasts::{self, Verdict};
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
    /// Another member took it off the ring.
    Removed,
}

impl fmt::Display for FenceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Suspected => "suspected",
            Self::Alone => "alone",
            Self::Late => "late",
            Self::Removed => "removed",
        })
    }
}

/// Whether the node is fenced, and when it last ticked.
#[derive(Debug)]
pub(super) struct Fence {
    state: Mutex<State>,
    /// Milliseconds of the monotonic clock.
    last_tick: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Why the node is fenced, if it is.
    reason: Option<FenceReason>,
    /// Fences so far; a question asked before the last one lifts nothing.
    count: u64,
}

fn millis(now: Instant) -> u64 {
    u64::try_from(now.since_origin().as_millis()).unwrap_or(u64::MAX)
}

impl Fence {
    /// A node that ticks from `now` on.
    pub(super) fn new(now: Instant) -> Self {
        Self { state: Mutex::default(), last_tick: AtomicU64::new(millis(now)) }
    }

    /// How many fences there were.
    pub(super) fn count(&self) -> u64 {
        lock(&self.state).count
    }

    fn set(&self, why: FenceReason) {
        let mut state = lock(&self.state);
        state.reason = Some(why);
        state.count += 1;
    }

    /// Ends the fence of that number; `false` if there was another meanwhile.
    fn lift(&self, count: u64) -> bool {
        let mut state = lock(&self.state);
        let is_last = state.count == count;
        if is_last {
            state.reason = None;
        }
        is_last
    }
}

impl Shared {
    /// Why this node is fenced; `None` if it is not.
    pub fn fenced(&self) -> Option<FenceReason> {
        lock(&self.fence.state).reason
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
        if Rule::Fence.is_broken() {
            return;
        }
        // Before the bits are dropped: whoever takes one after that, under the shard lock, sees it.
        self.fence.set(why);
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
        self.metrics.cluster.fences.increment(1);
        self.holdings.changed();
        tracing::warn!(reason = %why, slots = dropped, "fenced: acting bits dropped");
        self.kick();
    }

    /// A peer says which generation of this node it took off the ring.
    pub(super) fn mind_removal(&self, by: NodeId, removed: Option<Generation>) {
        let is_news = removed.is_some_and(|removed| self.outcasts.is_news(by, removed));
        if is_news && self.fenced().is_none() {
            self.fence_off(FenceReason::Removed);
        }
    }

    /// Tells a fenced node, which last asked this one under `asked`, under which terms this node
    /// holds slots, and who is off the ring.
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

    /// This node had lost its place on the ring: others went on without its copies, of which none
    /// counts as complete but those that it acted for.
    fn doubt_copies(&self) -> usize {
        let mut doubted = 0;
        for index in 0..self.store.shards() {
            let mut shard = self.store.lock_shard(index);
            let complete: Vec<Slot> = shard
                .headers()
                .filter(|(_, header)| header.complete && !header.fenced)
                .map(|(slot, _)| slot)
                .collect();
            doubted += complete.len();
            for slot in complete {
                shard.header_mut(slot).complete = false;
            }
        }
        doubted
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

    /// A slot of the time before the fence, by what the other holders know of it; whether this
    /// node's copy counts no more.
    fn judge(&self, slot: Slot, heard: &Heard) -> bool {
        let mut shard = self.store.lock(slot);
        let header = shard.header_mut(slot);
        if !std::mem::take(&mut header.fenced) {
            return false;
        }
        let highest = heard.all().max().unwrap_or_default();
        header.above = header.above.max(highest).max(header.term);
        let term = heard.stronger.iter().copied().max();
        let Some(term) = term.or_else(|| overruling(header.term, &heard.equal)) else {
            return false;
        };
        header.complete = false;
        header.term = term;
        true
    }
}

/// The terms that other complete holders of a slot follow.
#[derive(Clone, Debug, Default)]
struct Heard {
    /// Of those who are not out, where this node is: theirs count, whatever its own is.
    stronger: Vec<Term>,
    /// Of those whose terms are weighed against the own one.
    equal: Vec<Term>,
    /// Of those who are out, where this node is not, or who began with nothing.
    weaker: Vec<Term>,
}

impl Heard {
    fn all(&self) -> impl Iterator<Item = Term> + '_ {
        [&self.stronger, &self.equal, &self.weaker].into_iter().flatten().copied()
    }
}

/// What a fenced node was told.
struct Answers {
    terms: BTreeMap<NodeId, Vec<Option<Term>>>,
    verdicts: Vec<Verdict>,
}

impl Answers {
    /// Whether most others took a node off the ring.
    fn is_out(&self, node: NodeId) -> bool {
        outcasts::is_outvoted(node, &self.verdicts)
    }

    /// What was heard of each of `slots`, in their order.
    fn by_slot(&self, me: NodeId, slots: &SlotSet) -> Vec<Heard> {
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
            }
        }
        heard
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
        let Some(answers) = self.ask_terms(view, silent, &slots).await else { return false };
        if shared.fence.count() != count {
            return false;
        }
        // Both sides of a split take each other off the ring; the smaller one was gone.
        let doubted = if answers.is_out(view.me) { shared.doubt_copies() } else { 0 };
        let heard = answers.by_slot(view.me, &slots);
        let lost = slots.iter().zip(&heard).filter(|(slot, heard)| shared.judge(*slot, heard));
        let lost = lost.count();
        if !shared.fence.lift(count) {
            return false;
        }
        if let Some(own) = view.table.get(view.me) {
            let generation = own.identity.generation;
            answers.terms.keys().for_each(|node| shared.outcasts.settle(*node, generation));
        }
        shared.holdings.changed();
        tracing::info!(slots = slots.len(), lost, doubted, "fence lifted");
        true
    }

    /// Asks everyone who is not silent; `None` if one of them did not answer.
    async fn ask_terms(
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
            let answer = call.await.ok()?;
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
fn overruling(own: Term, known: &[Term]) -> Option<Term> {
    let votes = |term: Term| {
        known.iter().filter(|known| **known == term).count() + usize::from(term == own)
    };
    let strongest = known.iter().copied().max_by_key(|term| (votes(*term), *term))?;
    ((votes(strongest), strongest) > (votes(own), own)).then_some(strongest)
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
