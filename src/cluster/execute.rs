//! Executes an operation at this node, under the lock of the slot's store shard: the acting bit is
//! checked, writes are stamped, applied and queued for the holders in one piece.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use crate::command::{self, EntryView, Kept, Keyspace, Row};
use crate::config::AcksShortfall;
use crate::limits::{LANE_PAYLOAD_MAX, TRANSFER_RATE_MIN};
use crate::resp::{Encoder, errors};
use crate::store::{EntryRef, Shard};
use crate::types::{BodyRef, Db, RecordRef, Slot, Term, Version, WallMillis};
use crate::wire::message::{ActingHint, Run};
use crate::wire::replication::{Happened, Item};

use super::breakage::Rule;
use super::coordinate::proto_of;
use super::quorum::{Decision, Tally};
use super::replicate::{Group, Link, Outgoing, ToDrive};
use super::room::{Evictions, room_for};
use super::view::View;
use super::{Shared, marks};

/// What became of an operation at this node.
pub(super) enum Executed {
    /// Done; the reply was appended.
    Done,
    /// Applied, and the reply appended; it may be given once the holders have answered.
    Waiting(Awaited),
    /// Not executed: this node does not act for the slot.
    NotActing(Option<ActingHint>),
}

/// The holders' answers to a write.
pub(super) struct Awaited {
    /// Where the verdict arrives.
    pub(super) decision: Decision,
    /// How long it may take: a large value takes longer to arrive.
    pub(super) patience: Duration,
}

/// A stored key, put together without an allocation where it is not long.
pub(super) type KeyBuffer = SmallVec<[u8; 64]>;

/// The stored key of a name in a database.
pub(super) fn stored_key(db: Db, name: &[u8]) -> KeyBuffer {
    let mut key = KeyBuffer::new();
    key.push(db.get());
    key.extend_from_slice(name);
    key
}

/// One slot of one database under its shard lock.
struct SlotKeyspace<'a> {
    shared: &'a Shared,
    shard: &'a mut Shard,
    slot: Slot,
    db: Db,
    now: WallMillis,
    term: Term,
    /// Whether there may be copies elsewhere.
    copies: bool,
    /// Whether anyone must hear what happens to this slot.
    heard: bool,
    /// Whether anything was written.
    wrote: bool,
    /// What happened, for those who must hear it.
    items: Group,
    evictions: Evictions,
}

impl Shared {
    /// Executes `run`, if this node may, and appends the reply to `out`.
    pub(super) fn execute(
        &self,
        row: &Row,
        run: &Run<'_>,
        now: WallMillis,
        out: &mut Vec<u8>,
        to_drive: &mut ToDrive,
    ) -> Executed {
        let view = self.view.load();
        let proto = proto_of(run);
        if row.is_write()
            && let Some(refusal) = self.refusal(&view, run.slot)
        {
            Encoder::new(out, proto).error(refusal);
            return Executed::Done;
        }
        let mut evictions = Evictions::default();
        let mut shard = self.store.lock(run.slot);
        if row.needs_memory() && !self.prepare(&mut shard, row, run, &mut evictions) {
            // Other shards can give what this one cannot; their locks are taken without this one.
            drop(shard);
            self.make_way(&mut evictions);
            self.queue_evictions(&view, &std::mem::take(&mut evictions), to_drive);
            shard = self.store.lock(run.slot);
            if !self.prepare(&mut shard, row, run, &mut evictions) {
                drop(shard);
                self.queue_evictions(&view, &evictions, to_drive);
                self.metrics.store.refused.increment(1);
                Encoder::new(out, proto).error(errors::OOM);
                return Executed::Done;
            }
        }
        // The holders by the view of this moment: one that was published before this lock was taken
        // has compared only what was written before.
        let view = self.view.load();
        let header = shard.header(run.slot);
        let may_read = run.stand_in && header.complete && !row.is_write();
        let acts = header.acting || Rule::ActingBit.is_broken() && header.complete;
        if !acts && !may_read {
            drop(shard);
            self.queue_evictions(&view, &evictions, to_drive);
            return Executed::NotActing(self.hint(run.slot));
        }
        let term = header.term;
        // With one copy of each slot another node may be about to have it, or may have had it.
        let copies = view.table.facts.replicas > 1 || view.table.members.len() > 1;
        let heard = row.is_write()
            && (!header.receivers.is_empty()
                || view.replica_set(run.slot).any(|placed| placed.link.is_some()));
        let mut keyspace = SlotKeyspace {
            shared: self,
            shard: &mut shard,
            slot: run.slot,
            db: run.db,
            now,
            term,
            copies,
            heard,
            wrote: false,
            items: Group::with_room(if heard { room_for(run) } else { 0 }),
            evictions,
        };
        command::execute(row, &run.args.0, &mut keyspace, &mut Encoder::new(out, proto));
        let (wrote, items, evictions) = (keyspace.wrote, keyspace.items, keyspace.evictions);
        let executed = if wrote {
            self.metrics.store.writes_client.increment(1);
            self.queue_write(&view, &shard, run.slot, &items, to_drive)
        } else {
            Executed::Done
        };
        // Behind the records, of which a later write of the same command may have evicted one. They are
        // of this shard, whatever their slots.
        for (slot, group) in &evictions.0 {
            self.queue(&view, &shard, Outgoing::untallied(*slot, group), to_drive);
        }
        executed
    }

    /// Why a write is refused before it is executed: too few copies where that is an error.
    pub(super) fn refusal(&self, view: &View, slot: Slot) -> Option<&'static str> {
        if self.options.acks_shortfall == AcksShortfall::Accept {
            return None;
        }
        let needed = usize::from(self.options.acks.needed(view.table.facts.replicas));
        let holders = view
            .replica_set(slot)
            .filter_map(|placed| placed.link.as_ref())
            .filter(|link| link.is_waited_for() && self.holdings.is_complete(link.node, slot))
            .count();
        (holders + 1 < needed).then_some(errors::NOREPLICAS)
    }

    /// Queues what a write did for every holder of the slot, and starts its tally.
    pub(super) fn queue_write(
        &self,
        view: &View,
        shard: &Shard,
        slot: Slot,
        items: &Group,
        to_drive: &mut ToDrive,
    ) -> Executed {
        let needed = self.options.acks.needed(view.table.facts.replicas) - 1;
        if needed == 0 || Rule::Acks.is_broken() {
            self.queue(view, shard, Outgoing::untallied(slot, items), to_drive);
            return Executed::Done;
        }
        let holders = view.replica_set(slot).filter(|placed| placed.link.is_some()).count();
        let waiting = u8::try_from(holders).unwrap_or(u8::MAX);
        let (tally, decision) = Tally::new(needed, waiting);
        let outgoing = Outgoing { slot, group: items, tally: Some(&tally) };
        self.queue(view, shard, outgoing, to_drive);
        Executed::Waiting(Awaited { decision, patience: self.patience(items.bytes()) })
    }

    /// How long an operation may take that sends so many bytes.
    pub(super) fn patience(&self, bytes: usize) -> Duration {
        self.options.op_timeout + transfer_time(bytes)
    }

    /// Queues what happened to a slot for its holders and receivers; under the slot's shard lock.
    pub(super) fn queue(
        &self,
        view: &View,
        shard: &Shard,
        outgoing: Outgoing<'_>,
        to_drive: &mut ToDrive,
    ) {
        let slot = outgoing.slot;
        let index = self.store.shard_index(slot);
        let mut push = |link: &Arc<Link>, outgoing: Outgoing<'_>| {
            if link.push(index, outgoing) {
                to_drive.push((Arc::clone(link), index));
            }
        };
        for link in view.replica_set(slot).filter_map(|placed| placed.link.as_ref()) {
            push(link, outgoing);
        }
        for receiver in &shard.header(slot).receivers {
            if !view.placement.holds(*receiver, slot)
                && let Some(link) = self.link(*receiver)
            {
                push(&link, Outgoing { tally: None, ..outgoing });
            }
        }
    }
}

/// What is added to a budget for a payload of so many bytes: nothing for one that fits a lane.
pub(super) fn transfer_time(bytes: usize) -> Duration {
    if bytes <= LANE_PAYLOAD_MAX {
        return Duration::ZERO;
    }
    let micros = (bytes as u64).saturating_mul(1_000_000) / TRANSFER_RATE_MIN;
    Duration::from_micros(micros)
}

impl SlotKeyspace<'_> {
    fn leaves_tombstones(&self) -> bool {
        self.copies && !Rule::Tombstones.is_broken()
    }

    /// The version of the next write of `key`: above everything known of the key and the slot.
    fn stamp(&mut self, key: &[u8]) -> Version {
        let found = self.shard.find(self.slot, key);
        let stored = found.map_or(Version::ZERO, EntryRef::version);
        let header = self.shard.header(self.slot);
        let floor = header.floor(self.db);
        let above = stored.clock.max(floor.clock).max(marks::highest(header));
        // What was taken in after a split may be of a higher term than this node's.
        let term = self.term.counter.max(stored.term).max(floor.term);
        let clock = self.shard.clock_mut().tick(self.now, above);
        Version { term, clock, origin: self.shared.options.me.tag() }
    }

    /// Reserves what putting a record takes; `false` if it cannot be had now.
    fn reserve_for(&mut self, record: &RecordRef<'_>) -> bool {
        let need = self.shard.room_for(self.slot, record);
        self.shared.make_room(self.shard, need, &mut self.evictions)
    }

    fn write(&mut self, name: &[u8], body: BodyRef<'_>, expires_at: Option<WallMillis>) {
        let key = stored_key(self.db, name);
        let sized = RecordRef { key: &key, version: Version::ZERO, expires_at, body };
        let before = self.evictions.0.len();
        // What was reserved before the command was enough for it; a command that is not refused for want
        // of memory (one that deletes, or sets an expiry) may pass the limit for a moment.
        let _reserved = self.reserve_for(&sized);
        if self.evictions.0.len() > before {
            // What the record was to take over may have gone meanwhile.
            let _reserved = self.reserve_for(&sized);
        }
        let version = self.stamp(&key);
        let record = RecordRef { key: &key, version, expires_at, body };
        self.shard.put(self.slot, record);
        self.wrote = true;
        if self.heard {
            let happened = Happened::Record(record);
            self.items.put(&Item { slot: self.slot, term: self.term, happened });
        }
    }
}

impl Keyspace for SlotKeyspace<'_> {
    fn now(&self) -> WallMillis {
        self.now
    }

    fn max_value_size(&self) -> usize {
        self.shared.options.max_value()
    }

    fn get(&mut self, name: &[u8]) -> Option<EntryView<'_>> {
        let key = stored_key(self.db, name);
        self.shard.get(self.slot, &key, self.now).and_then(|e| entry_view(e.record()))
    }

    fn peek(&mut self, name: &[u8]) -> Option<EntryView<'_>> {
        let found = self.shard.find(self.slot, &stored_key(self.db, name))?;
        if found.is_live(self.now) { entry_view(found.record()) } else { None }
    }

    fn kept(&mut self, name: &[u8]) -> Option<Kept> {
        let key = stored_key(self.db, name);
        let entry = self.shard.find(self.slot, &key).filter(|entry| entry.is_live(self.now))?;
        let bytes = entry.charged() + self.shard.table_share(self.slot);
        Some(Kept { uses: entry.uses(), bytes })
    }

    fn set(&mut self, name: &[u8], value: &[u8], expires_at: Option<WallMillis>) {
        self.write(name, BodyRef::String(value), expires_at);
    }

    fn expire(&mut self, name: &[u8], expires_at: Option<WallMillis>) -> bool {
        let Some(value) = self.peek(name).map(|entry| entry.value.to_vec()) else {
            return false;
        };
        self.write(name, BodyRef::String(&value), expires_at);
        true
    }

    fn has_room_to_expire(&mut self, name: &[u8]) -> bool {
        if self.shared.store.evicts() {
            return true;
        }
        let found = self.shard.find(self.slot, &stored_key(self.db, name));
        let grows = found.filter(|entry| entry.is_live(self.now) && entry.expires_at().is_none());
        let expiring = grows.map(|it| RecordRef { expires_at: Some(self.now), ..it.record() });
        let need = expiring.map_or(0, |record| self.shard.room_for(self.slot, &record));
        let has_room = self.shared.make_room(self.shard, need, &mut self.evictions);
        if !has_room {
            self.shared.metrics.store.refused.increment(1);
        }
        has_room
    }

    fn has_room_to_remove(&self, name: &[u8]) -> bool {
        let has_room = !self.leaves_tombstones()
            || self.shared.store.has_room_for_tombstones()
            || self.shard.find(self.slot, &stored_key(self.db, name)).is_some();
        if !has_room {
            self.shared.metrics.store.refused.increment(1);
        }
        has_room
    }

    fn remove(&mut self, name: &[u8]) -> bool {
        let was_live = self.peek(name).is_some();
        if self.leaves_tombstones() {
            self.write(name, BodyRef::Tombstone, None);
        } else if was_live {
            self.shard.remove(self.slot, &stored_key(self.db, name), Version::MAX);
        }
        was_live
    }
}

fn entry_view(record: RecordRef<'_>) -> Option<EntryView<'_>> {
    match record.body {
        BodyRef::String(value) => Some(EntryView { value, expires_at: record.expires_at }),
        BodyRef::Tombstone => None,
    }
}
