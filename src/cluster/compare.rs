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
//! Slots that a holder missed something of (*dirty*) are compared at once, all others once a minute, and when
//! a member is gone or has started anew: it may have taken slots over and told one of their holders only, so
//! that the node that it took them from goes on under a term which another holder does not follow any more.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::hlc;
use crate::limits::{FILL_MESSAGE_BYTES, LIST_MAX, WALK_STEP};
use crate::metrics::level;
use crate::peers::CallError;
use crate::store::{Merged, Shard};
use crate::tasks::Stop;
use crate::types::{BodyRef, Db, Generation, NodeId, RecordRef, Slot, SlotSet, Term, Version};
use crate::wire::message::{Listed, Request, Response};
use crate::wire::raw::Raw;
use crate::wire::replication::{Happened, Item};
use crate::wire::snapshot::{Reader, put_record};

use super::acting::HOLLOW;
use super::replicate::{Group, Link, Outgoing, ToDrive, drive_all};
use super::view::{Standing, View};
use super::{Cache, Shared, marks};

/// How often dirty slots are looked for.
const DIRTY_INTERVAL: Duration = Duration::from_secs(1);
/// How often every slot is compared.
const FULL_INTERVAL: Duration = Duration::from_mins(1);
/// How old an entry must be to be compared, in milliseconds.
const SETTLED_MILLIS: u64 = 1_000;
/// Slots of one `Digests` call.
pub(super) const DIGESTS_AT_ONCE: usize = 1_024;
/// Records of one `Fetch` call.
const FETCH_AT_ONCE: usize = 64;

/// Where a holder differs from the acting node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Hashes that the holder lacks or has older.
    send: Vec<u64>,
    /// Hashes that the acting node has older, or lacks and may never have had.
    pub(super) fetch: Vec<u64>,
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
    let mut lives = lives_in(&cache.view());
    loop {
        tokio::select! {
            biased;
            () = stop.stopped() => return,
            () = tokio::time::sleep(DIRTY_INTERVAL) => {}
        }
        let last_lives = std::mem::replace(&mut lives, lives_in(&cache.view()));
        let has_ended = |(node, life): (&NodeId, &Generation)| lives.get(node) != Some(life);
        let full = cache.shared.clock.now().saturating_since(last_full) >= FULL_INTERVAL
            || last_lives.iter().any(has_ended);
        if full {
            last_full = cache.shared.clock.now();
        }
        let round = cache.compare_round(full).await;
        if full {
            cache.shared.note_round(round);
        }
    }
}

/// The members that are not gone, and their generations.
fn lives_in(view: &View) -> BTreeMap<NodeId, Generation> {
    view.others().map(|member| (member.identity.node, member.identity.generation)).collect()
}

impl Cache {
    /// Compares with every peer that is alive: all slots, or those of which it missed something.
    async fn compare_round(&self, full: bool) -> Round {
        let view = self.view();
        let mut round = Round::default();
        for member in view.others() {
            let node = member.identity.node;
            let Some(link) = self.shared.link(node) else { continue };
            // The copies of who is off the ring may count for nothing in a moment.
            let is_out = self.shared.outcasts.removal(node).is_some();
            let is_there = view.standing(node) == Standing::Alive && !is_out;
            if !is_there || (!full && link.missed().is_empty()) {
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
            shared.deposed(node, slot, term, None);
            let Some(own) = self.assert_term(link, slot, term) else { continue };
            if own != digest {
                divergent += 1;
                let up_to = if dirty.contains(slot) { u64::MAX } else { shared.settled_clock() };
                if !self.mend(node, link, slot, up_to).await? {
                    continue;
                }
            }
            dirty.remove(slot);
            marks::raise(shared.store.lock(slot).header_mut(slot), node, *as_of);
        }
        Ok(divergent)
    }

    /// Tells a holder that follows a lower term of the present one, and all of the next where the two have
    /// the same counter: of such two no holder follows the other before something is written. Gives the
    /// digest of the slot if this node acts for it.
    fn assert_term(&self, link: &Arc<Link>, slot: Slot, theirs: Term) -> Option<u64> {
        let (shared, view) = (&self.shared, self.view());
        let acts_too = shared.holdings.last_acting(link.node).contains(slot);
        let mut to_drive = ToDrive::new();
        let digest = {
            let mut shard = shared.store.lock(slot);
            let header = shard.header_mut(slot);
            if !header.acting {
                return None;
            }
            let is_tie = theirs.counter == header.term.counter && theirs.counter != HOLLOW;
            if theirs < header.term && is_tie && !acts_too {
                header.term = header.term.next(shared.options.me.tag());
                let (term, happened) = (header.term, Happened::Acting);
                let group = Group::of(&Item { slot, term, happened });
                shared.queue(&view, &shard, Outgoing::untallied(slot, &group), &mut to_drive);
            } else if theirs < header.term {
                let (term, index) = (header.term, shared.store.shard_index(slot));
                let group = Group::of(&Item { slot, term, happened: Happened::Acting });
                if link.push(index, Outgoing::untallied(slot, &group)) {
                    to_drive.push((Arc::clone(link), index));
                }
            }
            shard.header(slot).digest()
        };
        drive_all(shared, &self.peers, to_drive);
        Some(digest)
    }

    async fn ask(&self, node: NodeId, request: &Request<'_>) -> Result<bytes::Bytes, CallError> {
        self.peers.call(node, request.encode(), self.shared.options.op_timeout).await
    }

    /// Makes the two copies equal, up to a clock reading; `false` if this node does not act any more. As
    /// long as that takes the slot is not handed to the peer as one who has everything.
    async fn mend(
        &self,
        node: NodeId,
        link: &Arc<Link>,
        slot: Slot,
        up_to: u64,
    ) -> Result<bool, CallError> {
        let begun = link.missed().begin_mend(slot);
        let mended = async {
            let difference = self.difference(node, slot, up_to).await?;
            self.fetch_from(node, slot, &difference.fetch).await?;
            let has_floors = self.shared.store.lock(slot).header(slot).floors().next().is_some();
            let has_sent =
                has_floors || !(difference.send.is_empty() && difference.absent.is_empty());
            Ok((has_sent, self.send_to(link, slot, &difference)))
        };
        let mended = mended.await;
        let mut missed = link.missed();
        if !matches!(mended, Ok((_, true))) {
            missed.set(slot);
        }
        missed.end_mend(slot, begun, matches!(mended, Ok((true, _))));
        mended.map(|(_, whole)| whole)
    }

    /// Where a holder's copy of a slot differs from this node's, up to a clock reading.
    pub(super) async fn difference(
        &self,
        node: NodeId,
        slot: Slot,
        up_to: u64,
    ) -> Result<Difference, CallError> {
        let mut theirs = Vec::new();
        let mut from = Some(0);
        while let Some(hash) = from {
            let answer = self.ask(node, &Request::List { slot, from: hash }).await?;
            let Some(Response::Listed(listed, next, floors)) = Response::decode(&answer) else {
                return Err(not_understood());
            };
            self.take_floors(slot, &floors);
            theirs.extend(listed);
            from = next.filter(|next| *next > hash);
        }
        let (ours, mark) = self.shared.list_whole(slot, node);
        Ok(differ(&ours, &theirs, mark, up_to))
    }

    /// A flush that a holder heard of counts here too. If this node acts the others hear of it.
    fn take_floors(&self, slot: Slot, floors: &[(Option<Db>, Version)]) {
        let (shared, view, wall) = (&self.shared, self.shared.view(), self.shared.clock.wall());
        let mut to_drive = ToDrive::new();
        for (db, version) in floors.iter().copied() {
            let mut shard = shared.store.lock(slot);
            shard.clock_mut().observe(wall, version.clock);
            let (acts, term) = (shard.header(slot).acting, shard.header(slot).term);
            if shard.set_floor(slot, db, version) && acts {
                let item = Item { slot, term, happened: Happened::Floor { db, version } };
                let group = Group::of(&item);
                shared.queue(&view, &shard, Outgoing::untallied(slot, &group), &mut to_drive);
            }
        }
        drive_all(shared, &self.peers, to_drive);
    }

    /// Fetches records and merges them here. If this node acts the other holders hear of what was new.
    pub(super) async fn fetch_from(
        &self,
        node: NodeId,
        slot: Slot,
        hashes: &[u64],
    ) -> Result<(), CallError> {
        let mut left = hashes;
        while let Some(chunk) =
            left.get(..left.len().min(FETCH_AT_ONCE)).filter(|it| !it.is_empty())
        {
            let answer = self.ask(node, &Request::Fetch { slot, hashes: chunk.to_vec() }).await?;
            let Some(Response::Fetched(Raw(records))) = Response::decode(&answer) else {
                return Err(not_understood());
            };
            let last = self.take_in(slot, records)?;
            // An answer ends early where its values are large. None of those behind it may exist any more.
            let came = last.and_then(|last| chunk.iter().position(|hash| *hash == last));
            left = &left[came.map_or(chunk.len(), |last| last + 1)..];
        }
        Ok(())
    }

    /// Merges fetched records; gives the hash of the last one.
    fn take_in(&self, slot: Slot, records: &[u8]) -> Result<Option<u64>, CallError> {
        let (shared, mut reader) = (&self.shared, Reader::new(records));
        let (mut to_drive, mut last) = (ToDrive::new(), None);
        let (view, wall) = (shared.view(), shared.clock.wall());
        while !reader.is_empty() {
            let record = reader.record().map_err(|_| not_understood())?;
            last = Some(shared.store.key_hash(record.key));
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
        Ok(last)
    }

    /// Sends the holder what it lacks, through the queue that its writes take, and the floors first: it may
    /// have missed a flush. `false` if this node handed the slot on meanwhile, under whose next term it would
    /// be refused.
    fn send_to(&self, link: &Arc<Link>, slot: Slot, difference: &Difference) -> bool {
        let shared = &self.shared;
        let index = shared.store.shard_index(slot);
        let mut to_drive = ToDrive::new();
        let mut send = |what: &dyn Fn(&Shard, Term) -> Group| {
            let shard = shared.store.lock(slot);
            let header = shard.header(slot);
            let acts = header.acting;
            let group = if acts { what(&shard, header.term) } else { Group::default() };
            if !group.is_empty() && link.push(index, Outgoing::untallied(slot, &group)) {
                to_drive.push((Arc::clone(link), index));
            }
            acts
        };
        let floors = shared.floors(slot);
        let whole = floors.into_iter().all(|(db, version)| {
            let happened = Happened::Floor { db, version };
            send(&|_, term| Group::of(&Item { slot, term, happened }))
        }) && difference.send.iter().all(|hash| {
            shared.metrics.cluster.repaired_pushed.increment(1);
            send(&|shard, term| {
                let mut group = Group::default();
                shard.scan(slot, *hash, 1, &mut |at, entry| {
                    if at == *hash {
                        let happened = Happened::Record(entry.record());
                        group.put(&Item { slot, term, happened });
                    }
                });
                group
            })
        }) && difference.absent.iter().all(|(hash, version)| {
            let happened = Happened::Absent { hash: *hash, version: *version };
            send(&|_, term| Group::of(&Item { slot, term, happened }))
        });
        drive_all(shared, &self.peers, to_drive);
        whole
    }
}

pub(super) fn not_understood() -> CallError {
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

    /// The versions at or below which nothing exists in a slot.
    pub(super) fn floors(&self, slot: Slot) -> Vec<(Option<Db>, Version)> {
        self.store.lock(slot).header(slot).floors().collect()
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

    /// The records of some hashes, encoded: as many of them as a message of a fill would have.
    pub(super) fn fetch(&self, slot: Slot, hashes: &[u64]) -> Vec<u8> {
        let mut out = Vec::new();
        for hash in hashes.iter().take(WALK_STEP) {
            if out.len() >= FILL_MESSAGE_BYTES {
                break;
            }
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
