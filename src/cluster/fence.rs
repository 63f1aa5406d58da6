//! The fence: a node that may have been away without knowing it lets go of everything.
//!
//! Who refuted a suspicion of itself, was alone, hears that it lost its place on the ring, or finds its
//! own last tick more than a second old drops all its acting bits at once, before it executes anything
//! else, and gives up the releases it asked for. What becomes of the writes that it has under way it
//! cannot tell: others may have taken the slots over before those arrive. Then it asks everyone what
//! they hold, and under which terms. Where the holders followed another term meanwhile it is not
//! complete any more: it is filled, and compared. What nobody claims it takes back like any other free
//! slot. Slots that it acted for are marked in their headers until then. A node that starts has nothing
//! to drop.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::limits::TICK_LATE;
use crate::tasks::lock;
use crate::types::{Generation, Instant, NodeId, Slot, SlotSet};

use super::breakage::Rule;
use super::lateness::Lateness;
use super::terms::{Heard, overruling};
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
    /// How often the node stood still for as long as a client's command may take.
    stops: AtomicU64,
    /// Told of each such stop.
    stopped: Notify,
    /// Held while a node that finds itself late is fenced, by the first thread that finds it.
    waking: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Why the node is fenced, if it is.
    reason: Option<FenceReason>,
    /// Fences so far; a question asked before the last one lifts nothing.
    count: u64,
}

fn millis(now: Instant) -> u64 {
    span(now.since_origin())
}

fn span(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Fence {
    /// A node that ticks from `now` on.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: Mutex::default(),
            last_tick: AtomicU64::new(millis(now)),
            stops: AtomicU64::new(0),
            stopped: Notify::new(),
            waking: Mutex::default(),
        }
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
    ///
    /// Counts how often the node stood still for as long as a client's command may take or longer:
    /// what was sent to it before its last such stop may have been given up by its client.
    pub fn wake(&self, now: Instant) -> u64 {
        let now = millis(now);
        if now.saturating_sub(self.fence.last_tick.load(Ordering::SeqCst)) > span(TICK_LATE) {
            self.wake_late(now);
        }
        self.fence.stops.load(Ordering::SeqCst)
    }

    #[cold]
    fn wake_late(&self, now: u64) {
        let _one_at_a_time = lock(&self.fence.waking);
        let late = now.saturating_sub(self.fence.last_tick.load(Ordering::SeqCst));
        if late <= span(TICK_LATE) {
            return;
        }
        self.fence_off(FenceReason::Late);
        if late >= span(self.options.op_timeout) && !Rule::OldCommands.is_broken() {
            self.fence.stops.fetch_add(1, Ordering::SeqCst);
            self.fence.stopped.notify_one();
        }
        // After the bits are gone: a thread that sees the tick must see that as well.
        self.fence.last_tick.fetch_max(now, Ordering::SeqCst);
    }

    /// Waits until the node has stood still for as long as a client's command may take.
    pub async fn has_stood_still(&self) {
        self.fence.stopped.notified().await;
    }

    /// The node's timer runs as it should.
    pub(super) fn tick(&self, now: Instant) {
        let _stops_are_for_clients = self.wake(now);
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
                header.set_successor(None);
                self.hints.clear_if(slot, self.options.me);
            }
        }
        // Whoever queued a write under a bit has done so when the bit is gone.
        for link in self.links.load().values() {
            link.disown();
        }
        self.proved.forget();
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

    /// A peer says under which generation it last asked this node.
    pub(super) fn hear_asked(&self, node: NodeId, asked: Generation) {
        let is_out = self.outcasts.heard(node, asked);
        if let Some(link) = self.link(node) {
            link.set_outcast(is_out);
        }
    }

    /// This node had lost its place on the ring: others went on without its copies, of which none
    /// counts as complete but those that it acted for.
    pub(super) fn discount_copies(&self) -> usize {
        let mut discounted = 0;
        for index in 0..self.store.shards() {
            let mut shard = self.store.lock_shard(index);
            let complete: Vec<Slot> = shard
                .headers()
                .filter(|(_, header)| header.complete && !header.fenced)
                .map(|(slot, _)| slot)
                .collect();
            discounted += complete.len();
            for slot in complete {
                shard.header_mut(slot).discount();
            }
        }
        discounted
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
        header.discount();
        header.term = term;
        true
    }
}

impl Cache {
    /// Asks the members that are not silent under which terms the slots were acted for that this
    /// node had, and lifts the fence if all of them answer. The next round takes what is free.
    pub(super) async fn lift_fence(&self, view: &View, silent: &BTreeSet<NodeId>) {
        let shared = &self.shared;
        let (count, slots) = (shared.fence.count(), shared.fenced_slots());
        let Some(answers) = self.ask_terms(view, silent, &slots).await else { return };
        // Who hears others, and has an answer from none of them, is the one that is cut off.
        let is_unheard = answers.terms.is_empty() && view.expects_answers();
        if is_unheard || shared.fence.count() != count {
            return;
        }
        // Both sides of a split take each other off the ring; the smaller one was gone.
        let discounted = if answers.is_out(view.me) { shared.discount_copies() } else { 0 };
        let heard = answers.by_slot(view.me, &slots);
        let lost = heard.filter(|(slot, heard)| shared.judge(*slot, heard)).count();
        if !shared.fence.lift(count) {
            return;
        }
        if let Some(own) = view.table.get(view.me) {
            let generation = own.identity.generation;
            answers.terms.keys().for_each(|node| shared.outcasts.settle(*node, generation));
        }
        shared.holdings.changed();
        shared.kick();
        tracing::info!(slots = slots.len(), lost, discounted, "fence lifted");
    }
}

/// Ticks until the group stops.
pub(super) async fn run(cache: Cache, mut stop: crate::tasks::Stop) {
    let mut lateness = Lateness::new(TICK, cache.shared.clock.now());
    loop {
        let now = cache.shared.clock.now();
        cache.shared.tick(now);
        let worst = lateness.note(now);
        cache.shared.metrics.cluster.tick_delay.set(worst.as_secs_f64());
        tokio::select! {
            biased;
            () = stop.stopped() => return,
            () = tokio::time::sleep(TICK) => {}
        }
    }
}
