//! Anti-entropy: the acting node of a slot finds out where a holder differs, and mends it.
//!
//! 1. Digests: equal slots are done; the mark moves to the clock read before.
//! 2. The holder lists (key hash, version); entries of the last second are left alone, because
//!    they may still be in a replication queue. In a *dirty* slot they are not, because it is not
//!    known that they are in one.
//! 3. What the holder lacks or has older goes out through the replication queue. What the acting
//!    node has older is fetched. What it lacks is fetched if it is newer than the holder's mark;
//!    at or below the mark its silence counts: the holder drops it.
//!
//! Slots that a holder missed something of (*dirty*) are compared at once, all others once a minute.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::hlc;
use crate::limits::{LIST_MAX, PULLS_AT_ONCE, WALK_STEP};
use crate::metrics::level;
use crate::peers::CallError;
use crate::store::Merged;
use crate::tasks::Stop;
use crate::types::{BodyRef, NodeId, RecordRef, Slot, SlotSet, Term, Version};
use crate::wire::message::{Listed, Request, Response};
use crate::wire::raw::Raw;
use crate::wire::replication::{Happened, Item};
use crate::wire::snapshot::{Reader, put_record};

use super::replicate::{Group, Link, Outgoing, ToDrive, drive_all};
use super::view::Standing;
use super::{Cache, Shared, marks};

/// How often dirty slots are looked for.
const DIRTY_INTERVAL: Duration = Duration::from_secs(1);
/// How often every slot is compared.
const FULL_INTERVAL: Duration = Duration::from_mins(1);
/// How old an entry must be to be compared, in milliseconds.
const SETTLED_MILLIS: u64 = 1_000;
/// Slots of one `Digests` call.
const DIGESTS_AT_ONCE: usize = 1_024;
/// Records of one `Fetch` call.
const FETCH_AT_ONCE: usize = 64;

/// Where a holder differs from the acting node.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    /// Hashes that the holder lacks or has older.
    send: Vec<u64>,
    /// Hashes that the acting node has older, or lacks and may never have had.
    fetch: Vec<u64>,
    /// Entries that the acting node lacks by its own will.
    absent: Vec<(u64, Version)>,
}

/// What one look at the peers found.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    /// Slots that were not equal at a holder.
    divergent: usize,
    /// Whether a peer did not answer to the end.
    cut_off: bool,
}

/// Compares until the group stops.
pub(super) async fn run(cache: Cache, mut stop: Stop) {
    let mut last_full = cache.shared.clock.now();
    loop {
        tokio::select! {
            biased;
            () = stop.stopped() => return,
            () = tokio::time::sleep(DIRTY_INTERVAL) => {}
        }
        let full = cache.shared.clock.now().saturating_since(last_full) >= FULL_INTERVAL;
        if full {
            last_full = cache.shared.clock.now();
        }
        let round = cache.compare_round(full).await;
        if full {
            cache.shared.note_round(round);
        }
    }
}

impl Cache {
    /// Compares with every peer that is alive: all slots, or those of which it missed something.
    async fn compare_round(&self, full: bool) -> Round {
        let view = self.view();
        let mut round = Round::default();
        for member in view.others() {
            let node = member.identity.node;
            let Some(link) = self.shared.link(node) else { continue };
            if view.standing(node) != Standing::Alive || (!full && link.missed().is_empty()) {
                continue;
            }
            let slots = if full { SlotSet::full() } else { link.missed().dirty() };
            match self.compare_with(node, &slots).await {
                Ok(divergent) => round.divergent += divergent,
                Err(error) => {
                    round.cut_off = true;
                    tracing::debug!(%node, %error, "compare was cut off");
                }
            }
        }
        round
    }

    /// Compares those of `slots` that this node acts for and `node` is complete for. Gives how many
    /// were not equal.
    pub(super) async fn compare_with(
        &self,
        node: NodeId,
        slots: &SlotSet,
    ) -> Result<usize, CallError> {
        let shared = &self.shared;
        let Some(link) = shared.link(node) else { return Ok(0) };
        let own = shared.own_holdings();
        let due: Vec<Slot> = slots
            .iter()
            .filter(|slot| own.acting.contains(*slot) && shared.holdings.is_complete(node, *slot))
            .collect();
        let mut divergent = 0;
        for chunk in due.chunks(DIGESTS_AT_ONCE) {
            // Before the slots are read: a write missed from here on makes them dirty again.
            let dirty = link.missed().begin_compare(chunk);
            let mut left = dirty.clone();
            let outcome = self.compare_chunk(node, &link, chunk, &mut left).await;
            link.missed().end_compare(&dirty, &left);
            divergent += outcome?;
        }
        Ok(divergent)
    }

    /// Compares some slots; those that are done are taken out of `dirty`. Gives how many were not
    /// equal.
    async fn compare_chunk(
        &self,
        node: NodeId,
        link: &Arc<Link>,
        chunk: &[Slot],
        dirty: &mut SlotSet,
    ) -> Result<usize, CallError> {
        let shared = &self.shared;
        let mut divergent = 0;
        let as_of: BTreeMap<Slot, u64> =
            chunk.iter().map(|slot| (*slot, shared.settled_clock())).collect();
        let request = Request::Digests { slots: chunk.iter().copied().collect() };
        let answer = self.ask(node, &request).await?;
        let Some(Response::Digests(theirs)) = Response::decode(&answer) else {
            return Err(not_understood());
        };
        for (slot, digest, term) in theirs {
            let Some(as_of) = as_of.get(&slot) else { continue };
            // Else it would show with the next write only.
            shared.deposed(slot, term, None);
            let Some(own) = self.assert_term(link, slot, term) else { continue };
            if own != digest {
                divergent += 1;
                let up_to = if dirty.contains(slot) { u64::MAX } else { shared.settled_clock() };
                self.mend(node, link, slot, up_to).await?;
            }
            dirty.remove(slot);
            marks::raise(shared.store.lock(slot).header_mut(slot), node, *as_of);
        }
        Ok(divergent)
    }

    /// Tells a holder that follows a lower term of the present one. Gives the digest of the slot if this
    /// node acts for it.
    fn assert_term(&self, link: &Arc<Link>, slot: Slot, theirs: Term) -> Option<u64> {
        let shared = &self.shared;
        let mut to_drive = ToDrive::new();
        let digest = {
            let shard = shared.store.lock(slot);
            let header = shard.header(slot);
            if !header.acting {
                return None;
            }
            if theirs < header.term {
                let (term, index) = (header.term, shared.store.shard_index(slot));
                let group = Group::of(&Item { slot, term, happened: Happened::Acting });
                if link.push(index, Outgoing::untallied(slot, &group)) {
                    to_drive.push((Arc::clone(link), index));
                }
            }
            header.digest()
        };
        drive_all(shared, &self.peers, to_drive);
        Some(digest)
    }

    async fn ask(&self, node: NodeId, request: &Request<'_>) -> Result<bytes::Bytes, CallError> {
        self.peers.call(node, request.encode(), self.shared.options.op_timeout).await
    }

    /// Makes the two copies equal, up to a clock reading.
    async fn mend(
        &self,
        node: NodeId,
        link: &Arc<Link>,
        slot: Slot,
        up_to: u64,
    ) -> Result<(), CallError> {
        let difference = self.difference(node, slot, up_to).await?;
        self.fetch_from(node, slot, &difference.fetch).await?;
        self.send_to(link, slot, &difference);
        Ok(())
    }

    /// Takes in what a complete holder has of slots that nobody acts for, and this node has not or has
    /// older. Gives the slots for which that was done: not more than a few that differ, because a round
    /// waits for it, and the next round goes on.
    pub(super) async fn pull_from(
        &self,
        node: NodeId,
        slots: &SlotSet,
    ) -> Result<SlotSet, CallError> {
        let (shared, all) = (&self.shared, slots.iter().collect::<Vec<_>>());
        let (mut done, mut pulled) = (SlotSet::new(), 0);
        for chunk in all.chunks(DIGESTS_AT_ONCE) {
            let request = Request::Digests { slots: chunk.iter().copied().collect() };
            let answer = self.ask(node, &request).await?;
            let Some(Response::Digests(theirs)) = Response::decode(&answer) else {
                return Err(not_understood());
            };
            for (slot, digest, term) in theirs.into_iter().filter(|it| slots.contains(it.0)) {
                if shared.store.lock(slot).header(slot).digest() != digest {
                    // The rest in the next round; those that are equal are done all the same.
                    if pulled == PULLS_AT_ONCE {
                        continue;
                    }
                    pulled += 1;
                    let difference = self.difference(node, slot, u64::MAX).await?;
                    self.fetch_from(node, slot, &difference.fetch).await?;
                }
                let mut shard = shared.store.lock(slot);
                let header = shard.header_mut(slot);
                header.term = header.term.max(term);
                done.insert(slot);
            }
        }
        Ok(done)
    }

    /// Where a holder's copy of a slot differs from this node's, up to a clock reading.
    async fn difference(
        &self,
        node: NodeId,
        slot: Slot,
        up_to: u64,
    ) -> Result<Difference, CallError> {
        let mut theirs = Vec::new();
        let mut from = Some(0);
        while let Some(hash) = from {
            let answer = self.ask(node, &Request::List { slot, from: hash }).await?;
            let Some(Response::Listed(listed, next)) = Response::decode(&answer) else {
                return Err(not_understood());
            };
            theirs.extend(listed);
            from = next.filter(|next| *next > hash);
        }
        let (ours, mark) = self.shared.list_whole(slot, node);
        Ok(differ(&ours, &theirs, mark, up_to))
    }

    /// Fetches records and merges them here. If this node acts the other holders hear of what was new.
    async fn fetch_from(&self, node: NodeId, slot: Slot, hashes: &[u64]) -> Result<(), CallError> {
        let shared = &self.shared;
        for chunk in hashes.chunks(FETCH_AT_ONCE) {
            let answer = self.ask(node, &Request::Fetch { slot, hashes: chunk.to_vec() }).await?;
            let Some(Response::Fetched(Raw(records))) = Response::decode(&answer) else {
                return Err(not_understood());
            };
            let mut reader = Reader::new(records);
            let mut to_drive = ToDrive::new();
            let (view, wall) = (shared.view(), shared.clock.wall());
            while !reader.is_empty() {
                let record = reader.record().map_err(|_| not_understood())?;
                let mut shard = shared.store.lock(slot);
                shard.clock_mut().observe(wall, record.version.clock);
                if shard.merge(slot, record) == Merged::Applied {
                    if shard.header(slot).acting {
                        let term = shard.header(slot).term;
                        let item = Item { slot, term, happened: Happened::Record(record) };
                        let group = Group::of(&item);
                        let outgoing = Outgoing::untallied(slot, &group);
                        shared.queue(&view, &shard, outgoing, &mut to_drive);
                    }
                    shared.metrics.cluster.repaired_pulled.increment(1);
                    shared.metrics.store.writes_repair.increment(1);
                }
            }
            drive_all(shared, &self.peers, to_drive);
        }
        Ok(())
    }

    /// Sends the holder what it lacks, through the queue that its writes take.
    fn send_to(&self, link: &Arc<Link>, slot: Slot, difference: &Difference) {
        let shared = &self.shared;
        let index = shared.store.shard_index(slot);
        let mut to_drive = ToDrive::new();
        for hash in &difference.send {
            let shard = shared.store.lock(slot);
            let term = shard.header(slot).term;
            let mut group = Group::default();
            shard.scan(slot, *hash, 1, &mut |at, entry| {
                if at == *hash {
                    let happened = Happened::Record(entry.record());
                    group.put(&Item { slot, term, happened });
                }
            });
            if !group.is_empty() && link.push(index, Outgoing::untallied(slot, &group)) {
                to_drive.push((Arc::clone(link), index));
            }
            shared.metrics.cluster.repaired_pushed.increment(1);
        }
        for (hash, version) in &difference.absent {
            let shard = shared.store.lock(slot);
            let term = shard.header(slot).term;
            let happened = Happened::Absent { hash: *hash, version: *version };
            let group = Group::of(&Item { slot, term, happened });
            if link.push(index, Outgoing::untallied(slot, &group)) {
                to_drive.push((Arc::clone(link), index));
            }
        }
        drive_all(shared, &self.peers, to_drive);
    }
}

fn not_understood() -> CallError {
    CallError::Refused("the answer was not understood".to_owned())
}

/// Where the holder's list differs from the acting node's. Entries stamped after `up_to` are left alone
/// on both sides.
fn differ(ours: &[Listed], theirs: &[Listed], mark: u64, up_to: u64) -> Difference {
    let mut difference = Difference::default();
    let mine: BTreeMap<u64, (Version, bool)> =
        ours.iter().map(|(hash, version, tombstone)| (*hash, (*version, *tombstone))).collect();
    let known: std::collections::BTreeSet<u64> = theirs.iter().map(|(hash, ..)| *hash).collect();
    for (hash, version, tombstone) in theirs.iter().filter(|(_, v, _)| v.clock <= up_to) {
        match mine.get(hash) {
            Some((own, _)) if own > version => difference.send.push(*hash),
            Some((own, _)) if own < version => difference.fetch.push(*hash),
            Some(_) => {}
            None if *tombstone => {}
            None if version.clock <= mark => difference.absent.push((*hash, *version)),
            None => difference.fetch.push(*hash),
        }
    }
    let unknown = ours
        .iter()
        .filter(|(hash, version, tombstone)| {
            !tombstone && version.clock <= up_to && !known.contains(hash)
        })
        .map(|(hash, ..)| *hash);
    difference.send.extend(unknown);
    difference
}

impl Shared {
    /// Shows how a round over all slots ended.
    fn note_round(&self, round: Round) {
        let metrics = &self.metrics.cluster;
        if round.cut_off {
            metrics.rounds_failed.increment(1);
            return;
        }
        metrics.rounds.increment(1);
        metrics.divergent.set(level(round.divergent));
        metrics.full_pass.set(Duration::from_millis(self.clock.wall().0).as_secs_f64());
    }

    /// The highest clock reading whose writes have left the replication queues by now.
    fn settled_clock(&self) -> u64 {
        let wall = self.clock.wall();
        hlc::reading_at(crate::types::WallMillis(wall.0.saturating_sub(SETTLED_MILLIS)))
    }

    /// The digests of those of `slots` that are complete here, and the terms they follow.
    pub(super) fn digests(&self, slots: &SlotSet) -> Vec<(Slot, u64, Term)> {
        slots
            .iter()
            .filter_map(|slot| {
                let shard = self.store.lock(slot);
                let header = shard.header(slot);
                header.complete.then(|| (slot, header.digest(), header.term))
            })
            .collect()
    }

    /// Hashes and versions of a slot from a hash on.
    pub(super) fn list(&self, slot: Slot, from: u64) -> (Vec<Listed>, Option<u64>) {
        let mut listed = Vec::new();
        let next = self.store.lock(slot).scan(slot, from, LIST_MAX, &mut |hash, entry| {
            let record = entry.record();
            listed.push((hash, record.version, record.body == BodyRef::Tombstone));
        });
        (listed, next)
    }

    fn list_whole(&self, slot: Slot, holder: NodeId) -> (Vec<Listed>, u64) {
        let mut ours = Vec::new();
        let mut from = Some(0);
        while let Some(hash) = from {
            let (listed, next) = self.list(slot, hash);
            ours.extend(listed);
            from = next;
        }
        (ours, marks::silence(self.store.lock(slot).header(slot), holder))
    }

    /// The records of some hashes, encoded.
    pub(super) fn fetch(&self, slot: Slot, hashes: &[u64]) -> Vec<u8> {
        let mut out = Vec::new();
        for hash in hashes.iter().take(WALK_STEP) {
            self.store.lock(slot).scan(slot, *hash, 1, &mut |at, entry| {
                if at == *hash {
                    let record: RecordRef<'_> = entry.record();
                    put_record(&mut out, record);
                }
            });
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(clock: u64) -> Version {
        Version { term: 1, clock, origin: 1 }
    }

    #[test]
    fn above_the_mark_both_sides_merge() {
        let ours = [(1, at(10), false), (2, at(20), false), (3, at(30), false)];
        let theirs = [(1, at(10), false), (2, at(25), false), (4, at(40), false)];
        let found = differ(&ours, &theirs, 5, 100);
        assert_eq!(found, Difference { send: vec![3], fetch: vec![2, 4], absent: vec![] });
    }

    #[test]
    fn below_the_mark_the_silence_of_the_acting_node_counts() {
        let theirs = [(4, at(40), false), (5, at(60), false), (6, at(30), true)];
        let found = differ(&[], &theirs, 50, 100);
        assert_eq!(found, Difference { send: vec![], fetch: vec![5], absent: vec![(4, at(40))] });
    }

    #[test]
    fn what_may_still_be_on_its_way_is_left_alone() {
        let found = differ(&[(1, at(200), false)], &[(2, at(200), false)], 0, 100);
        assert_eq!(found, Difference::default());
    }
}
