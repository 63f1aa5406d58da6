//! Fills: how a slot reaches a node that lacks it.
//!
//! 1. The receiver opens a bulk stream to the acting node and names the slots and a session.
//! 2. For each slot the donor notes the receiver under the shard lock; from then on every write of
//!    the slot goes to it too. Then the cursor starts.
//! 3. When the cursor ends, `Filled` follows in the replication queue, behind those writes, and
//!    `CursorEnd` on the stream. With both the slot is complete, and the mark is `as_of`.
//!
//! A donor that does not act says `Declined`; a stream that is cut off leaves what has arrived, and
//! the next round of the reconciler asks again.
//!
//! Of a slot of which the receiver has entries already it tells the digest, and the clock up to which
//! it should have everything. If the digests are equal nothing is sent but the ends. Else the donor
//! sends what is younger, and says `Declined`: the receiver asks again, and is told that the digests
//! are equal. Where they are not after two tries the whole slot is sent, and compared afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::limits::{FILL_MESSAGE_BYTES, WALK_STEP};
use crate::metrics::{UnderWay, level};
use crate::peers::{BulkMessage, BulkStream, CallError, Caller};
use crate::store::Shard;
use crate::tasks::{self, lock};
use crate::types::{Instant, NodeId, Slot, SlotSet, Term};
use crate::wire::replication::{self, Happened, Item, put_item};

use super::acting::HOLLOW;
use super::breakage::Rule;
use super::replicate::{Group, Outgoing, ToDrive, drive_all};
use super::{Cache, Shared, marks};

/// How often a copy that is there already is tried to be proved equal, before it is sent whole.
const TRIES_MAX: u8 = 2;

/// The first message of a fill's stream, from the receiver.
#[derive(Debug, Serialize, Deserialize)]
struct FillRequest {
    session: u64,
    slots: SlotSet,
    /// Those of which the receiver has entries already: it acted under a lower term, or came back.
    had: BTreeMap<Slot, Had>,
}

/// What a receiver has of a slot.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Had {
    /// About the same.
    Nearly {
        /// The digest of what it has.
        digest: u64,
        /// The clock up to which it should have everything.
        as_of: u64,
    },
    /// Something else. A fill brings nothing of what it alone has, so the two are compared afterwards.
    Something {
        /// The clock up to which it had what the others had: what they lack of that is gone.
        as_of: u64,
    },
}

/// What is to be sent of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Everything.
    All,
    /// Everything, and the two are compared afterwards: what the receiver had up to that clock and the
    /// donor lacks was deleted or evicted meanwhile.
    Compared(u64),
    /// What was written after that clock; then the receiver asks again.
    Since(u64),
    /// Nothing: the receiver has it.
    Nothing,
    /// The tombstones since that clock: the receiver has all values.
    Tombstones(u64),
}

/// The slots that fills are bringing to this node.
#[derive(Debug, Default)]
pub(super) struct Fills {
    sessions: AtomicU64,
    slots: Mutex<BTreeMap<Slot, Filling>>,
    /// How often it was tried to prove a copy equal that this node has already.
    tries: Mutex<BTreeMap<Slot, u8>>,
}

#[derive(Clone, Copy, Debug)]
struct Filling {
    session: u64,
    cursor_ended: bool,
    filled: Option<u64>,
}

impl Fills {
    /// Slots under way.
    pub(super) fn under_way(&self) -> SlotSet {
        lock(&self.slots).keys().copied().collect()
    }

    /// Whether a slot is under way.
    pub(super) fn is_under_way(&self, slot: Slot) -> bool {
        lock(&self.slots).contains_key(&slot)
    }

    fn begin(&self, slots: &SlotSet) -> u64 {
        let session = self.sessions.fetch_add(1, Ordering::Relaxed) + 1;
        let filling = Filling { session, cursor_ended: false, filled: None };
        lock(&self.slots).extend(slots.iter().map(|slot| (slot, filling)));
        session
    }

    fn end(&self, session: u64) {
        lock(&self.slots).retain(|_, filling| filling.session != session);
    }

    /// Whether it is worth trying once more to prove the copy of a slot equal. Not to be called under
    /// a shard lock, which comes first elsewhere.
    fn may_try(&self, slot: Slot) -> bool {
        let mut tries = lock(&self.tries);
        let tried = tries.entry(slot).or_default();
        let may = *tried < TRIES_MAX;
        *tried += u8::from(may);
        may
    }

    /// How many slots of a session are still under way.
    fn remaining(&self, session: u64) -> usize {
        lock(&self.slots).values().filter(|filling| filling.session == session).count()
    }

    pub(super) fn declined(&self, slot: Slot) {
        lock(&self.slots).remove(&slot);
    }

    pub(super) fn note_filled(
        &self,
        shared: &Shared,
        shard: &mut Shard,
        slot: Slot,
        session: u64,
        as_of: u64,
    ) {
        self.note(shared, shard, slot, session, |filling| filling.filled = Some(as_of));
    }

    pub(super) fn note_cursor_end(
        &self,
        shared: &Shared,
        shard: &mut Shard,
        slot: Slot,
        session: u64,
    ) {
        self.note(shared, shard, slot, session, |filling| filling.cursor_ended = true);
    }

    fn note(
        &self,
        shared: &Shared,
        shard: &mut Shard,
        slot: Slot,
        session: u64,
        note: impl FnOnce(&mut Filling),
    ) {
        let mut slots = lock(&self.slots);
        let Some(filling) = slots.get_mut(&slot).filter(|filling| filling.session == session)
        else {
            return;
        };
        note(filling);
        let (true, Some(as_of)) = (filling.cursor_ended, filling.filled) else { return };
        slots.remove(&slot);
        drop(slots);
        lock(&self.tries).remove(&slot);
        let header = shard.header_mut(slot);
        header.complete = true;
        header.discounted = false;
        header.as_of = as_of;
        shared.filled.fetch_add(1, Ordering::Relaxed);
        shared.holdings.changed();
    }
}

impl Cache {
    /// Fills `slots` from `donor`; returns when each is complete, declined or given up.
    pub(super) async fn fill_from(&self, donor: NodeId, slots: SlotSet) {
        let session = self.shared.fills.begin(&slots);
        let count = slots.len();
        let metrics = &self.shared.metrics.cluster;
        let under_way = UnderWay::on(&metrics.sync_receiving);
        match self.receive(donor, session, slots).await {
            Ok(()) => metrics.sync_received.increment(1),
            Err(error) => {
                metrics.sync_received_failed.increment(1);
                tracing::warn!(node = %donor, slots = count, %error, "fill was cut off");
            }
        }
        drop(under_way);
        self.shared.fills.end(session);
        self.shared.kick();
    }

    async fn receive(&self, donor: NodeId, session: u64, slots: SlotSet) -> Result<(), CallError> {
        let shared = &self.shared;
        let mut stream = self.peers.open_bulk(donor, shared.options.op_timeout).await?;
        let had = shared.had(&slots);
        let request = postcard::to_stdvec(&FillRequest { session, slots, had })
            .map_err(|error| CallError::Refused(error.to_string()))?;
        let request = BulkMessage { read_at: shared.clock.now(), bytes: request.into() };
        stream.outgoing.send(request).await.map_err(|_| CallError::Lost)?;
        while let Some(message) = stream.incoming.recv().await {
            let message = message?;
            shared.metrics.cluster.sync_bytes_received.increment(message.len() as u64);
            shared.receive_fill(donor, &message);
        }
        // The stream ends before the last `Filled` has come through the replication queues.
        let patience = crate::clock::within(Duration::from_secs(5), async {
            while shared.fills.remaining(session) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        patience.await.ok_or(CallError::TimedOut)
    }

    /// Serves a fill that a peer asked for.
    pub(super) fn serve_fill(&self, from: Caller, stream: BulkStream) {
        let cache = self.clone();
        tasks::spawn("fill donor", async move {
            let metrics = &cache.shared.metrics.cluster;
            let _under_way = UnderWay::on(&metrics.sync_sending);
            match cache.donate(from.node, stream).await {
                Ok(()) => metrics.sync_sent.increment(1),
                Err(error) => {
                    metrics.sync_sent_failed.increment(1);
                    tracing::warn!(node = %from.node, %error, "fill of a peer was cut off");
                }
            }
        });
    }

    async fn donate(&self, receiver: NodeId, mut stream: BulkStream) -> Result<(), CallError> {
        let Some(first) = stream.incoming.recv().await else { return Ok(()) };
        let request: FillRequest =
            postcard::from_bytes(&first?).map_err(|error| CallError::Refused(error.to_string()))?;
        let read_at = self.shared.clock.now();
        let mut sender = Sender { cache: self, stream: &stream, read_at, buffer: Vec::new() };
        for slot in request.slots.iter() {
            self.donate_slot(receiver, slot, &request, &mut sender).await?;
        }
        sender.flush().await
    }

    /// Sends one slot: notes the receiver, walks the slot, closes with both ends.
    async fn donate_slot(
        &self,
        receiver: NodeId,
        slot: Slot,
        request: &FillRequest,
        sender: &mut Sender<'_>,
    ) -> Result<(), CallError> {
        let shared = &self.shared;
        sender.is_about_to_read();
        let (part, term, drops) = {
            let mut shard = shared.store.lock(slot);
            let header = shard.header_mut(slot);
            let term = header.term;
            let link = shared.link(receiver).filter(|_| header.acting);
            let Some(link) = link else {
                put_item(&mut sender.buffer, &Item { slot, term, happened: Happened::Declined });
                return Ok(());
            };
            if !header.receivers.contains(&receiver) {
                header.receivers.push(receiver);
            }
            let drops = link.drops();
            link.missed().clear(slot);
            for (db, version) in header.floors() {
                let happened = Happened::Floor { db, version };
                put_item(&mut sender.buffer, &Item { slot, term, happened });
            }
            let part = match request.had.get(&slot) {
                None => Part::All,
                Some(Had::Something { as_of }) => Part::Compared(*as_of),
                Some(Had::Nearly { digest, as_of })
                    if *digest == header.digest() || Rule::KeptIsProved.is_broken() =>
                {
                    let has_tombstones = header.tombstones() > 0;
                    if has_tombstones { Part::Tombstones(*as_of) } else { Part::Nothing }
                }
                Some(Had::Nearly { as_of, .. }) => Part::Since(*as_of),
            };
            (part, term, drops)
        };
        let mut from = (part != Part::Nothing).then_some(0);
        while let Some(hash) = from {
            sender.is_about_to_read();
            from = shared.walk_step((slot, hash, part), term, &mut sender.buffer);
            sender.flush_if_full().await?;
        }
        let asks_again = matches!(part, Part::Since(_));
        if !asks_again && self.close_slot(receiver, slot, (request, part), (term, drops)) {
            let happened = Happened::CursorEnd { session: request.session };
            put_item(&mut sender.buffer, &Item { slot, term, happened });
        } else {
            put_item(&mut sender.buffer, &Item { slot, term, happened: Happened::Declined });
        }
        Ok(())
    }

    /// Queues `Filled` behind the writes that went to the receiver meanwhile; `false` if one of
    /// them was dropped, or this node does not act any more, or does so anew.
    fn close_slot(
        &self,
        receiver: NodeId,
        slot: Slot,
        (request, part): (&FillRequest, Part),
        (term, drops): (Term, u64),
    ) -> bool {
        let shared = &self.shared;
        let Some(link) = shared.link(receiver) else { return false };
        let wall = shared.clock.wall();
        let index = shared.store.shard_index(slot);
        let mut to_drive = ToDrive::new();
        {
            let mut shard = shared.store.lock(slot);
            let as_of = shard.clock_mut().last(wall);
            let header = shard.header_mut(slot);
            // Who said meanwhile, of an older copy, that it has none was sent nothing since.
            let follows = header.receivers.contains(&receiver)
                || shared.view.load().placement.holds(receiver, slot);
            if !header.acting || !follows || header.term != term || link.drops() != drops {
                return false;
            }
            if let Part::Compared(until) = part {
                link.set_dirty(slot);
                if term.counter != HOLLOW {
                    // A receiver whose clock was wrong must not pull the stamps of the slot with it.
                    marks::raise(header, receiver, until.min(as_of));
                }
            } else {
                marks::raise(header, receiver, as_of);
            }
            let (session, forgotten) = (request.session, header.forgotten);
            let happened = Happened::Filled { session, as_of, forgotten };
            let group = Group::of(&Item { slot, term: header.term, happened });
            if link.push(index, Outgoing::untallied(slot, &group)) {
                to_drive.push((Arc::clone(&link), index));
            }
        }
        drive_all(shared, &self.peers, to_drive);
        true
    }
}

/// Collects items into messages and sends them at the configured pace.
struct Sender<'a> {
    cache: &'a Cache,
    stream: &'a BulkStream,
    /// When the first of what is in the buffer was read.
    read_at: Instant,
    buffer: Vec<u8>,
}

impl Sender<'_> {
    fn is_about_to_read(&mut self) {
        if self.buffer.is_empty() {
            self.read_at = self.cache.shared.clock.now();
        }
    }

    /// Others have their turn even where nothing is to be sent.
    async fn flush_if_full(&mut self) -> Result<(), CallError> {
        if self.buffer.len() >= FILL_MESSAGE_BYTES {
            return self.flush().await;
        }
        tokio::task::yield_now().await;
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), CallError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let message = Bytes::from(std::mem::take(&mut self.buffer));
        let message = BulkMessage { read_at: self.read_at, bytes: message };
        let rate = self.cache.shared.sync_rate.load(Ordering::Relaxed);
        let bytes = message.bytes.len() as u64;
        self.cache.shared.metrics.cluster.sync_bytes_sent.increment(bytes);
        self.stream.outgoing.send(message).await.map_err(|_| CallError::Lost)?;
        match bytes.saturating_mul(1_000_000).checked_div(rate) {
            Some(micros) => tokio::time::sleep(Duration::from_micros(micros)).await,
            None => tokio::task::yield_now().await,
        }
        Ok(())
    }
}

impl Shared {
    /// What this node has of slots that it is to be sent.
    fn had(&self, slots: &SlotSet) -> BTreeMap<Slot, Had> {
        let mut filled = self.filled_slots();
        filled.intersect_with(slots);
        let had = filled.iter().map(|slot| {
            let may_try = self.fills.may_try(slot);
            let shard = self.store.lock(slot);
            let header = shard.header(slot);
            let (digest, as_of) = (header.digest(), header.as_of);
            (slot, if may_try { Had::Nearly { digest, as_of } } else { Had::Something { as_of } })
        });
        had.collect()
    }

    /// Encodes the next entries of a slot under one hold of its lock.
    fn walk_step(
        &self,
        (slot, from, part): (Slot, u64, Part),
        term: Term,
        buffer: &mut Vec<u8>,
    ) -> Option<u64> {
        let since = match part {
            Part::Since(clock) | Part::Tombstones(clock) => clock,
            Part::All | Part::Compared(_) | Part::Nothing => 0,
        };
        let only_tombstones = matches!(part, Part::Tombstones(_));
        let mut keys = 0;
        let next = self.store.lock(slot).scan(slot, from, WALK_STEP, &mut |_, entry| {
            if entry.record().version.clock < since || only_tombstones && !entry.is_tombstone() {
                return;
            }
            let happened = Happened::Record(entry.record());
            put_item(buffer, &Item { slot, term, happened });
            keys += 1;
        });
        self.metrics.cluster.sync_keys_sent.increment(keys);
        next
    }

    /// Applies one message of a fill.
    fn receive_fill(&self, donor: NodeId, message: &[u8]) {
        let mut keys = 0;
        for item in replication::items(message) {
            match item {
                Ok(item) => {
                    keys += u64::from(matches!(item.happened, Happened::Record(_)));
                    self.apply(donor, &item);
                }
                Err(error) => {
                    tracing::warn!(node = %donor, %error, "message of a fill is damaged");
                    break;
                }
            }
        }
        self.metrics.cluster.sync_keys_received.increment(keys);
        self.metrics.store.writes_sync.increment(keys);
    }

    /// Shows how much of this node's place is complete. Takes every shard lock in turn.
    pub(super) fn note_fill_progress(&self) {
        let view = self.view();
        let own = self.own_holdings();
        let assigned = Slot::all().filter(|slot| view.target.holds(view.me, *slot)).count();
        let complete = own.complete.iter().filter(|slot| view.target.holds(view.me, *slot)).count();
        let ratio = if assigned == 0 { 1.0 } else { level(complete) / level(assigned) };
        self.metrics.cluster.sync_progress.set(ratio);
    }
}
