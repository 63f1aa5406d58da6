//! Replication queues: one per (store shard, peer), filled under the shard lock, so that what
//! happened to a slot arrives in the order in which it happened.
//!
//! A queue sends one batch at a time; while that is under way the next one gathers. What cannot be
//! delivered is dropped as a whole and its slots become *dirty*: one bit a slot and peer is the
//! whole of our hinted handoff, and a compare mends it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use crate::limits::{REPLICATION_BATCH_MAX, REPLICATION_PATIENCE, REPLICATION_QUEUE_MAX};
use crate::peers::Peers;
use crate::tasks::{self, lock};
use crate::types::{Instant, NodeId, Slot};
use crate::wire::message::{Applied, Request, Response};
use crate::wire::raw::Raw;
use crate::wire::replication::{self, Item, put_item};

use super::Shared;
use super::missed::Missed;
use super::quorum::Tally;

/// Everything that this node sends one peer about its slots.
#[derive(Debug)]
pub(super) struct Link {
    /// The peer.
    pub(super) node: NodeId,
    queues: Box<[Mutex<Queue>]>,
    /// Slots of which the peer missed something.
    missed: Mutex<Missed>,
    /// Whether the peer is gone: nothing is queued, slots become dirty at once.
    gone: AtomicBool,
    /// Whether the peer is suspect: sent to, not waited for.
    suspect: AtomicBool,
    /// Whether it did not answer a call, and nothing since.
    doubted: AtomicBool,
    /// Whether it did not answer this node's pings either: sent to, not waited for.
    silent: AtomicBool,
    /// Whether it is off the ring by this node's doing and has not asked since: nothing is queued.
    outcast: AtomicBool,
    queued_bytes: AtomicUsize,
    /// Counts drops, so that a fill can tell whether one came between.
    drops: AtomicU64,
    drained: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<u8>,
    /// The groups in `waiting`, in order.
    groups: VecDeque<Queued>,
    /// The groups of the batch that is under way.
    sent: VecDeque<Queued>,
    sending: bool,
    /// Groups ever queued, and how many of them were answered or given up.
    queued: u64,
    settled: u64,
    /// Where the queue ended when it was first asked about in this state of affairs.
    mark: Option<(Affairs, u64)>,
}

/// What must be the same for two questions about a queue to be about the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Affairs {
    /// How often the placement had changed.
    placements: u64,
    /// How often something had been dropped.
    drops: u64,
    /// How often something had been missed or mended.
    missed: u64,
}

/// The items that one operation left for a holder of its slot.
#[derive(Debug)]
struct Queued {
    /// Where the group ends in `waiting`.
    end: usize,
    /// How many items it has.
    count: usize,
    /// Who waits for its outcome.
    tally: Option<Arc<Tally>>,
}

/// Encoded items about one slot.
#[derive(Debug, Default)]
pub(super) struct Group {
    bytes: Vec<u8>,
    count: usize,
}

impl Group {
    /// A group of one item.
    pub(super) fn of(item: &Item<'_>) -> Self {
        let mut group = Self::default();
        group.put(item);
        group
    }

    /// An empty group for items of about so many bytes.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), count: 0 }
    }

    /// Appends an item.
    pub(super) fn put(&mut self, item: &Item<'_>) {
        put_item(&mut self.bytes, item);
        self.count += 1;
    }

    /// How long it is, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing to say.
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// A batch on its way.
struct Batch {
    bytes: Bytes,
}

/// A group on its way to holders.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing<'a> {
    /// The slot it is about.
    pub(super) slot: Slot,
    /// What happened.
    pub(super) group: &'a Group,
    /// Who waits for the holders' answers.
    pub(super) tally: Option<&'a Arc<Tally>>,
}

impl<'a> Outgoing<'a> {
    /// A group for whose outcome nobody waits.
    pub(super) const fn untallied(slot: Slot, group: &'a Group) -> Self {
        Self { slot, group, tally: None }
    }
}

impl Link {
    /// A link with one queue for each of `shards` store shards.
    pub(super) fn new(node: NodeId, shards: usize) -> Self {
        Self {
            node,
            queues: (0..shards).map(|_| Mutex::default()).collect(),
            missed: Mutex::default(),
            gone: AtomicBool::new(false),
            suspect: AtomicBool::new(false),
            doubted: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            outcast: AtomicBool::new(false),
            queued_bytes: AtomicUsize::new(0),
            drops: AtomicU64::new(0),
            drained: Notify::new(),
        }
    }

    /// Bytes that wait or are under way.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    /// Whether the peer's acknowledgements are worth waiting for.
    pub(super) fn is_waited_for(&self) -> bool {
        !self.gone.load(Ordering::Relaxed)
            && !self.suspect.load(Ordering::Relaxed)
            && !self.silent.load(Ordering::Relaxed)
            && !self.is_outcast()
    }

    /// Whether nothing that the peer has or says counts.
    pub(super) fn is_outcast(&self) -> bool {
        self.outcast.load(Ordering::Relaxed)
    }

    /// Follows whether the peer is off the ring and has not asked since.
    pub(super) fn set_outcast(&self, outcast: bool) {
        self.outcast.store(outcast, Ordering::Relaxed);
    }

    /// Whether the peer did not answer lately.
    pub(super) fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::Relaxed)
    }

    /// The peer did not answer; whether that is news.
    pub(super) fn doubt(&self) -> bool {
        !self.doubted.swap(true, Ordering::Relaxed)
    }

    /// The peer answered.
    pub(super) fn answered(&self) {
        // Read first: nearly every answer comes from a peer that is not doubted.
        if self.is_doubted() {
            self.doubted.store(false, Ordering::Relaxed);
            self.silent.store(false, Ordering::Relaxed);
        }
    }

    /// The peer did not answer pings: what is sent to it is not waited for.
    pub(super) fn set_silent(&self) {
        self.silent.store(true, Ordering::Relaxed);
        for queue in &self.queues {
            lock(queue).give_up_waiting();
        }
    }

    /// How often a queue to this peer was dropped.
    pub(super) fn drops(&self) -> u64 {
        self.drops.load(Ordering::SeqCst)
    }

    /// Slots of which the peer missed something.
    pub(super) fn missed(&self) -> MutexGuard<'_, Missed> {
        lock(&self.missed)
    }

    /// Notes that the peer missed something of a slot.
    pub(super) fn set_dirty(&self, slot: Slot) {
        self.missed().set(slot);
    }

    /// Follows the peer's standing. One that is not alive is not waited for; for one that is gone
    /// everything queued is dropped.
    pub(super) fn set_standing(&self, suspect: bool, gone: bool) {
        self.suspect.store(suspect, Ordering::Relaxed);
        self.gone.store(gone, Ordering::Relaxed);
        if suspect || gone {
            for queue in &self.queues {
                lock(queue).give_up_waiting();
            }
        }
        if gone {
            for index in 0..self.queues.len() {
                self.drop_queue(index);
            }
        }
    }

    /// Queues what happened to a slot; called under the slot's shard lock. Returns whether the
    /// caller must drive the queue.
    pub(super) fn push(&self, index: usize, outgoing: Outgoing<'_>) -> bool {
        let Outgoing { slot, group, tally } = outgoing;
        let tally = tally.filter(|tally| {
            let waited_for = self.is_waited_for();
            if !waited_for {
                tally.given_up();
            }
            waited_for
        });
        let gone = self.gone.load(Ordering::Relaxed) || self.is_outcast();
        let mut queue = lock(&self.queues[index]);
        let full = queue.waiting.len() >= REPLICATION_QUEUE_MAX;
        if gone || full {
            drop(queue);
            self.set_dirty(slot);
            self.drops.fetch_add(1, Ordering::SeqCst);
            if let Some(tally) = tally {
                tally.given_up();
            }
            if full {
                self.drop_queue(index);
            }
            return false;
        }
        queue.waiting.extend_from_slice(&group.bytes);
        let end = queue.waiting.len();
        queue.queued += 1;
        queue.groups.push_back(Queued { end, count: group.count, tally: tally.cloned() });
        self.queued_bytes.fetch_add(group.bytes.len(), Ordering::Relaxed);
        !std::mem::replace(&mut queue.sending, true)
    }

    /// Whether everything that was queued for a store shard before it was first asked about under
    /// this placement, the one after so many changes, has arrived. What was dropped or mended meanwhile
    /// begins the question anew.
    pub(super) fn has_settled(&self, index: usize, placements: u64) -> bool {
        let missed = self.missed().changes();
        let affairs = Affairs { placements, drops: self.drops(), missed };
        let has_settled = {
            let mut queue = lock(&self.queues[index]);
            let known = queue.mark.filter(|(known, _)| *known == affairs);
            if known.is_none() {
                // What was begun under another placement may still be queued in this moment.
                queue.mark = Some((affairs, queue.queued));
            }
            known.is_some_and(|(_, end)| queue.settled >= end)
        };
        // What is dropped counts as settled after it counts as dropped.
        has_settled && self.drops() == affairs.drops
    }

    /// Where the queues of these store shards end now.
    pub(super) fn ends(&self, indexes: &[usize]) -> Vec<(usize, u64)> {
        indexes.iter().map(|index| (*index, lock(&self.queues[*index]).queued)).collect()
    }

    /// Waits until everything up to these ends was answered, whatever is queued behind it; `false`
    /// if a queue was dropped.
    pub(super) async fn drain(&self, ends: &[(usize, u64)], since_drops: u64) -> bool {
        loop {
            let notified = self.drained.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.drops() != since_drops {
                return false;
            }
            if ends.iter().all(|(index, end)| lock(&self.queues[*index]).settled >= *end) {
                return true;
            }
            notified.await;
        }
    }

    fn take(&self, index: usize) -> Option<Batch> {
        let mut queue = lock(&self.queues[index]);
        let batch = queue.take_batch();
        queue.sending = batch.is_some();
        batch.map(|bytes| Batch { bytes })
    }

    /// Everything of a queue is given up: its slots are dirty.
    fn drop_queue(&self, index: usize) {
        // Before the groups count as settled: who waits for them must see the drop.
        self.drops.fetch_add(1, Ordering::SeqCst);
        let (bytes, groups) = lock(&self.queues[index]).clear_waiting();
        if bytes.is_empty() {
            return;
        }
        self.queued_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
        self.mark_dirty(&bytes);
        for tally in groups.into_iter().filter_map(|group| group.tally) {
            tally.given_up();
        }
    }

    /// This node is fenced: nobody can tell any more what becomes of the writes that wait or are under way.
    pub(super) fn disown(&self) {
        for queue in &self.queues {
            lock(queue).tallies().for_each(|tally| tally.disowned());
        }
    }

    fn mark_dirty(&self, batch: &[u8]) {
        self.drops.fetch_add(1, Ordering::SeqCst);
        {
            let mut missed = self.missed();
            for item in replication::items(batch).flatten() {
                missed.set(item.slot);
            }
        }
        self.drained.notify_waiters();
    }

    /// The batch under way has its answer, or is given up for good (`None`).
    fn settle(&self, index: usize, batch: &Batch, outcomes: Option<&[Applied]>) {
        if outcomes.is_none() {
            // Before the groups count as settled: who waits for them must see the drop.
            self.mark_dirty(&batch.bytes);
        }
        let groups = {
            let mut queue = lock(&self.queues[index]);
            let groups = std::mem::take(&mut queue.sent);
            queue.settled += groups.len() as u64;
            groups
        };
        self.drained.notify_waiters();
        self.queued_bytes.fetch_sub(batch.bytes.len(), Ordering::Relaxed);
        let mut items = 0;
        for group in groups {
            items += group.count;
            let Some(tally) = group.tally else { continue };
            // An empty list says that all were applied by complete holders; the last item of a
            // group speaks for it, because a refusal of one is a refusal of those behind it.
            match outcomes {
                Some(all) => {
                    tally.answered(all.get(items - 1).copied().unwrap_or(Applied::Complete));
                }
                None => tally.given_up(),
            }
        }
    }
}

impl Queue {
    /// Moves groups from waiting to under way: as many as fit a batch, at least one.
    fn take_batch(&mut self) -> Option<Bytes> {
        let mut cut = 0;
        while let Some(group) = self.groups.front() {
            if cut > 0 && group.end > REPLICATION_BATCH_MAX {
                break;
            }
            cut = group.end;
            self.sent.extend(self.groups.pop_front());
        }
        if cut == 0 {
            return None;
        }
        let rest = self.waiting.split_off(cut);
        let batch = std::mem::replace(&mut self.waiting, rest);
        for group in &mut self.groups {
            group.end -= cut;
        }
        Some(batch.into())
    }

    fn clear_waiting(&mut self) -> (Vec<u8>, VecDeque<Queued>) {
        let groups = std::mem::take(&mut self.groups);
        self.settled += groups.len() as u64;
        (std::mem::take(&mut self.waiting), groups)
    }

    /// Everybody who waits for an outcome, and will have it from elsewhere.
    fn tallies(&mut self) -> impl Iterator<Item = Arc<Tally>> {
        let groups = self.groups.iter_mut().chain(&mut self.sent);
        groups.filter_map(|group| group.tally.take())
    }

    fn give_up_waiting(&mut self) {
        self.tallies().for_each(|tally| tally.given_up());
    }
}

/// Queues to be driven by the current thread once the shard lock is released.
pub(super) type ToDrive = smallvec::SmallVec<[(Arc<Link>, usize); 2]>;

/// Starts sending the queues that [`Link::push`] said must be driven.
pub(super) fn drive_all(shared: &Arc<Shared>, peers: &Arc<dyn Peers>, queues: ToDrive) {
    for (link, index) in queues {
        let (shared, peers) = (Arc::clone(shared), Arc::clone(peers));
        tasks::spawn("replicate", async move {
            while let Some(batch) = link.take(index) {
                deliver(&shared, &*peers, &link, index, batch).await;
            }
        });
    }
}

async fn deliver(shared: &Shared, peers: &dyn Peers, link: &Link, index: usize, batch: Batch) {
    let request = Request::Replicate(Raw(&batch.bytes)).encode();
    let started = shared.clock.now();
    let mut pause = Duration::from_millis(5);
    loop {
        let answer = peers.call(link.node, request.clone(), shared.options.call_timeout).await;
        shared.note_answer(link, &answer);
        let outcomes = match answer.as_deref().map(Response::decode) {
            // What it has may be dropped in a moment.
            Ok(Some(Response::Replicated(_))) if link.is_outcast() => break,
            Ok(Some(Response::Replicated(outcomes))) => outcomes,
            Ok(Some(Response::Outcast(removed))) => {
                shared.mind_removal(link.node, Some(removed));
                // It hears in the next round that this node has asked since, if it has.
                shared.kick();
                if shared.fenced().is_some() {
                    // The fence may be just begun by another queue's answer.
                    link.disown();
                    break;
                }
                if !worth_repeating(shared.clock.now(), started, link) {
                    break;
                }
                pause_longer(&mut pause).await;
                continue;
            }
            Ok(_) => {
                tracing::warn!(node = %link.node, "peer did not understand a replication batch");
                break;
            }
            Err(_) if !worth_repeating(shared.clock.now(), started, link) => break,
            Err(_) => {
                pause_longer(&mut pause).await;
                continue;
            }
        };
        note_outcomes(shared, link.node, &batch.bytes, &outcomes);
        link.settle(index, &batch, Some(&outcomes));
        return;
    }
    let items = replication::items(&batch.bytes).count();
    shared.metrics.cluster.replicated_missed.increment(items as u64);
    link.settle(index, &batch, None);
    shared.kick();
}

async fn pause_longer(pause: &mut Duration) {
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(Duration::from_millis(100));
}

fn worth_repeating(now: Instant, started: Instant, link: &Link) -> bool {
    !link.gone.load(Ordering::Relaxed) && now.saturating_since(started) < REPLICATION_PATIENCE
}

fn note_outcomes(shared: &Shared, node: NodeId, batch: &[u8], outcomes: &[Applied]) {
    let metrics = &shared.metrics.cluster;
    if outcomes.is_empty() {
        metrics.replicated_applied.increment(replication::items(batch).count() as u64);
        return;
    }
    for (item, outcome) in replication::items(batch).flatten().zip(outcomes) {
        match outcome {
            Applied::Deposed { term, acting } => {
                metrics.replicated_deposed.increment(1);
                shared.deposed(node, item.slot, *term, *acting);
            }
            Applied::Unwanted => shared.forget_receiver(node, item.slot),
            Applied::Complete | Applied::Incomplete | Applied::Superseded { .. } => {
                metrics.replicated_applied.increment(1);
            }
        }
    }
}
