//! Room in the store: evictions follow the acting node, and the holders are told.
//!
//! A write makes room among the entries that this node acts for, whose holders hear of each victim
//! in the ordered queues. Replicas are dropped only by a node that is well over its budget, or that would have to
//! refuse a write else.

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
const TRIM_ROUNDS: usize = 64;
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
        let bytes = room_for(run) + self.growth(shard, row, run);
        let need = shard.room_for_bytes(bytes) + self.table_growth(shard, run);
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

    /// The bytes that a write sends on beside its arguments, as far as this node has a copy of the value.
    pub(super) fn stored_len(&self, row: &Row, run: &Run<'_>) -> usize {
        let name = run.args.0.get(1).filter(|_| command::sends_stored(row));
        name.map_or(0, |name| {
            let shard = self.store.lock(run.slot);
            shard.find(run.slot, &stored_key(run.db, name)).map_or(0, EntryRef::charged)
        })
    }

    /// By how much the table may grow for the operation's first key, where nothing makes room for it later.
    fn table_growth(&self, shard: &Shard, run: &Run<'_>) -> usize {
        let key = run.args.0.get(1).filter(|_| !self.store.evicts());
        key.map_or(0, |name| shard.table_growth(run.slot, &stored_key(run.db, name)))
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

    /// Makes what room the shards can give together, for a write that has to be refused else: from the entries
    /// that this node acts for, and when those are gone from the replicas. A node with less memory than the
    /// others of its weight is full of what they send.
    pub(super) fn make_way(&self, evictions: &mut Evictions) {
        self.trim(TRIM_ROUNDS, evictions);
        for _ in 0..TRIM_ROUNDS {
            let shards = (0..self.store.shards()).take_while(|_| self.store.pressure() > 0);
            if shards.map(|index| self.shed(&mut self.store.lock_shard(index))).sum::<usize>() == 0
            {
                return;
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
            self.shed(shard);
        }
    }

    /// Drops some replicas of a shard if it is asked to give. Gives how many went.
    fn shed(&self, shard: &mut Shard) -> usize {
        let dropped = shard.trim(Whose::Replicas, TRIM_STEP, &mut |_| Remains::Nothing);
        self.count_evictions(dropped);
        dropped
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

#[cfg(test)]
mod tests {
    use super::super::execute::Executed;
    use super::super::replicate::ToDrive;
    use super::super::tests::{node, table};
    use super::*;
    use crate::command::parse;
    use crate::types::{BodyRef, Db, Phase, RecordRef, Version};
    use crate::wire::raw::Args;

    /// Runs a command of this node's slot and gives the start of its reply.
    fn run(shared: &Shared, args: &[&[u8]]) -> String {
        let row = parse::resolve(args).expect("it is a command");
        let run = Run {
            command: row.id.wire(),
            db: Db::default(),
            resp3: false,
            stand_in: false,
            slot: crate::ring::slot_of(args[1]),
            args: Args(args.iter().copied().collect()),
        };
        let (mut out, now) = (Vec::new(), shared.clock.wall());
        let executed = shared.execute(row, &run, now, &mut out, &mut ToDrive::new());
        assert!(!matches!(executed, Executed::NotActing(_)), "it is this node's");
        String::from_utf8_lossy(&out).chars().take_while(|it| *it != '\r').collect()
    }

    fn one_of_two() -> std::sync::Arc<Shared> {
        let shared = node(table(&[(0, Phase::Active), (1, Phase::Active)]));
        shared.publish(table(&[(0, Phase::Active), (1, Phase::Active)]));
        shared
    }

    fn act_for(shared: &Shared, name: &[u8]) {
        let slot = crate::ring::slot_of(name);
        let mut shard = shared.store.lock(slot);
        let header = shard.header_mut(slot);
        (header.complete, header.acting) = (true, true);
    }

    /// A node of less memory than others of its weight refused every second write.
    #[test]
    fn a_node_full_of_replicas_drops_some_before_it_refuses_a_write() {
        let shared = one_of_two();
        act_for(&shared, b"own");
        let mut clock = 0;
        while shared.store.excess() <= shared.store.limit() / 50 {
            clock += 1;
            let key = [&[0][..], format!("theirs:{clock}").as_bytes()].concat();
            let (slot, version) =
                (crate::ring::slot_of(&key[1..]), Version { clock, ..Version::ZERO });
            let body = BodyRef::String(&[7; 300]);
            let record = RecordRef { key: &key, version, expires_at: None, body };
            shared.store.lock(slot).merge(slot, record);
        }
        assert!(!shared.is_far_over());
        let held = shared.store.totals(shared.clock.wall()).keys;
        let value = [b'v'; 4_000];
        for number in 0..20 {
            let key = format!("{{own}}{number}");
            assert_eq!(run(&shared, &[b"SET", key.as_bytes(), &value]), "+OK", "{number}");
            assert_eq!(run(&shared, &[b"GET", key.as_bytes()]), "$4000");
        }
        let totals = shared.store.totals(shared.clock.wall());
        assert!(totals.keys < held && totals.keys > held / 2, "{} of {held}", totals.keys);
        assert!(totals.used_bytes <= totals.limit_bytes);
        // What went counts when this node acts for it: an older version of it must not come back.
        let forgetful = Slot::all().filter(|it| shared.store.lock(*it).header(*it).forgotten > 0);
        assert!(forgetful.count() > 1);
    }

    #[test]
    fn deletes_of_what_is_not_there_have_a_part_of_the_budget() {
        let shared = one_of_two();
        act_for(&shared, b"own");
        assert_eq!(run(&shared, &[b"SET", b"{own}kept", b"v"]), "+OK");
        let delete = |number: u32| run(&shared, &[b"DEL", format!("{{own}}{number}").as_bytes()]);
        let refused = (0..100_000).find(|number| delete(*number) != ":0").expect("it has an end");
        assert!(delete(refused).starts_with("-OOM too many deletes"));
        assert_eq!(delete(0), ":0", "that one is remembered already");
        assert_eq!(run(&shared, &[b"DEL", b"{own}new", b"{own}kept"]), delete(refused));
        assert_eq!(run(&shared, &[b"EXISTS", b"{own}kept"]), ":1", "nothing was done");
        assert_eq!(run(&shared, &[b"DEL", b"{own}kept"]), ":1");
        assert_eq!(run(&shared, &[b"SET", b"{own}new", b"v"]), "+OK");
        let totals = shared.store.totals(shared.clock.wall());
        assert!(totals.memory.tombstones <= totals.limit_bytes / 4 + 1_000);
        assert!(totals.used_bytes <= totals.limit_bytes / 2);
    }
}
