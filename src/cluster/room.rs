//! Room in the store: evictions follow the acting node, and the holders are told.
//!
//! A write makes room among the entries that this node acts for, whose holders hear of each victim
//! in the ordered queues. Replicas are dropped only by a node that is well over its budget.

use std::sync::atomic::Ordering;

use crate::command::{self, Row};
use crate::store::{EntryRef, Gone, Remains, Shard, Whose};
use crate::types::Slot;
use crate::wire::message::Run;
use crate::wire::replication::{Happened, Item};

use super::Shared;
use super::execute::stored_key;
use super::replicate::{Group, Outgoing, ToDrive};
use super::view::View;

/// What an entry takes beside its key and value, at most, tables included.
const ENTRY_OVERHEAD: usize = 160;
/// Entries that one trim of one shard evicts at most.
const TRIM_STEP: usize = 64;
/// Rounds of such trims for a write that waits: a large value may need the room of many small ones.
pub(super) const TRIM_ROUNDS: usize = 64;
/// A node drops replicas by itself when it is over its budget by this part of it.
const FAR_OVER: u64 = 20;

/// Entries that were evicted, for the holders of their slots.
#[derive(Default)]
pub(super) struct Evictions(pub(super) Vec<(Slot, Group)>);

/// The room that an operation may need: all of its arguments, as entries.
pub(super) fn room_for(run: &Run<'_>) -> usize {
    let values = run.args.0.iter().map(|arg| arg.len()).sum::<usize>();
    values + ENTRY_OVERHEAD * run.args.0.len().div_ceil(2)
}

impl Evictions {
    fn note(&mut self, gone: &Gone<'_>) -> Remains {
        let happened = Happened::Evicted { key: gone.key, version: gone.version };
        let item = Item { slot: gone.slot, term: gone.header.term, happened };
        self.0.push((gone.slot, Group::of(&item)));
        Remains::Nothing
    }
}

impl Shared {
    /// Makes sure that an operation will have its room in a shard; `false` if it cannot be had now.
    pub(super) fn prepare(
        &self,
        shard: &mut Shard,
        row: &Row,
        run: &Run<'_>,
        evictions: &mut Evictions,
    ) -> bool {
        let before = evictions.0.len();
        shard.go_ahead(&mut |gone| evictions.note(gone));
        self.count_evictions(evictions.0.len() - before);
        let need = shard.room_for_bytes(room_for(run) + self.growth(shard, row, run));
        self.make_room(shard, need, evictions)
    }

    /// By how much the value of an operation's key may become longer than its arguments.
    fn growth(&self, shard: &Shard, row: &Row, run: &Run<'_>) -> usize {
        let length = || {
            let found = run.args.0.get(1).map(|name| stored_key(run.db, name));
            let found = found.and_then(|key| shard.find(run.slot, &key));
            found.map_or(0, EntryRef::charged)
        };
        command::growth(row, &run.args.0, self.options.max_value(), length)
    }

    /// Reserves `need` bytes in a shard; `false` if it cannot give them now.
    pub(super) fn make_room(
        &self,
        shard: &mut Shard,
        need: usize,
        evictions: &mut Evictions,
    ) -> bool {
        let before = evictions.0.len();
        let fits = shard.make_room(need, &mut |gone| evictions.note(gone));
        self.count_evictions(evictions.0.len() - before);
        fits
    }

    /// Brings every shard that holds more than its share back under the budget: entries that this
    /// node acts for go first, then, if that is not enough, replicas. Each lock is held for a step; no more than so many rounds over all shards.
    pub(super) fn trim(&self, rounds: usize, evictions: &mut Evictions) {
        let rounds = std::iter::repeat_with(|| self.trim_round(evictions)).take(rounds);
        let gone: usize = rounds.take_while(|gone| *gone > 0).sum();
        self.count_evictions(gone);
        if self.is_far_over() {
            for index in 0..self.store.shards() {
                self.shed_replicas(&mut self.store.lock_shard(index));
            }
        }
    }

    /// Evicts a little from every shard while there is need. Gives how many went.
    fn trim_round(&self, evictions: &mut Evictions) -> usize {
        let mut gone = 0;
        for index in (0..self.store.shards()).take_while(|_| self.store.pressure() > 0) {
            let mut shard = self.store.lock_shard(index);
            gone += shard.trim(Whose::Acted, TRIM_STEP, &mut |gone| evictions.note(gone));
        }
        gone
    }

    /// Gathers a little of what is left in hollow pages of a shard; `false` if there is nothing to do.
    pub(super) fn tidy(&self, index: usize, evictions: &mut Evictions) -> bool {
        let before = evictions.0.len();
        let tidied = self.store.lock_shard(index).tidy(&mut |gone| evictions.note(gone));
        self.count_evictions(evictions.0.len() - before);
        tidied
    }

    /// Drops replicas of a shard while the node is far over its budget.
    pub(super) fn shed_replicas(&self, shard: &mut Shard) {
        if self.is_far_over() {
            let dropped = shard.trim(Whose::Replicas, TRIM_STEP, &mut |_| Remains::Nothing);
            self.count_evictions(dropped);
        }
    }

    /// Tells the holders of evicted entries. Takes the shard lock of each slot in turn.
    pub(super) fn queue_evictions(
        &self,
        view: &View,
        evictions: &Evictions,
        to_drive: &mut ToDrive,
    ) {
        for (slot, group) in &evictions.0 {
            let shard = self.store.lock(*slot);
            self.queue(view, &shard, Outgoing::untallied(*slot, group), to_drive);
        }
    }

    fn is_far_over(&self) -> bool {
        self.store.excess() > self.store.limit() / FAR_OVER
    }

    fn count_evictions(&self, count: usize) {
        if count > 0 {
            self.evicted.fetch_add(count as u64, Ordering::Relaxed);
            self.metrics.store.evicted_memory.increment(count as u64);
        }
    }
}
