//! Answers peers: executes operations for slots this node acts for, applies what acting nodes
//! replicate, hands over acting bits, and says what this node holds.

use std::sync::Arc;
use std::time::Duration;

use crate::command::{self, Row};
use crate::peers::{BulkStream, Caller, Serve, Served};
use crate::resp::Proto;
use crate::store::{Merged, Shard};
use crate::types::{Instant, NodeId, Slot, SlotSet, Version, WallMillis};
use crate::wire::message::{ActingHint, Applied, Aside, ReleasedSlot, Request, Response, Run};
use crate::wire::raw::{Args, Raw};
use crate::wire::replication::{self, Happened, Item};

use super::breakage::Rule;
use super::coordinate::proto_of;
use super::execute::Executed;
use super::replicate::{ToDrive, drive_all};
use super::{Cache, MemberPort, Shared};

/// How long a release may wait for the queue of writes before it.
const RELEASE_DRAIN: Duration = Duration::from_secs(1);
/// How long it may wait for the queues to those who only follow the slots: the next acting node
/// compares whoever is late.
const FOLLOWERS_DRAIN: Duration = Duration::from_millis(100);

/// Serves peers on one thread.
pub struct PeerService {
    cache: Cache,
    members: Arc<dyn MemberPort>,
}

impl PeerService {
    /// A service that executes through `cache`.
    pub fn new(cache: Cache, members: Arc<dyn MemberPort>) -> Self {
        Self { cache, members }
    }

    fn run(&self, run: &Run<'_>, budget: Duration) -> Served {
        let Some(row) = command::table::by_wire(run.command) else {
            return now(&Response::Unsupported);
        };
        let mut out = Vec::with_capacity(64);
        let wall = self.cache.shared.clock.wall();
        match self.cache.run_here(row, run, wall, &mut out) {
            Executed::NotActing(_) if run.stand_in && row.is_write() => {
                self.run_as_deputy(row, run, budget)
            }
            executed => answer(&self.cache, executed, out, proto_of(run)),
        }
    }

    /// Waits whether this node is to act for the slot, and executes the operation if so.
    fn run_as_deputy(&self, row: &'static Row, run: &Run<'_>, budget: Duration) -> Served {
        let (cache, slot, proto) = (self.cache.clone(), run.slot, proto_of(run));
        let request = Request::Run(run.clone()).encode();
        let deadline = cache.shared.clock.now() + budget;
        Served::Later(Box::pin(async move {
            cache.stand_in(slot, budget).await;
            let Some(Request::Run(run)) = Request::decode(&request) else {
                return Response::Unsupported.encode();
            };
            // Whoever asked has been told that the outcome is not known: it must not be executed.
            if cache.shared.clock.now() >= deadline {
                return Response::NotOwner(None).encode();
            }
            let (mut out, wall) = (Vec::with_capacity(64), cache.shared.clock.wall());
            let executed = cache.run_here(row, &run, wall, &mut out);
            drop(run);
            match answer(&cache, executed, out, proto) {
                Served::Now(answer) => answer,
                Served::Later(answer) => answer.await,
            }
        }))
    }

    fn release(&self, asker: NodeId, slots: &SlotSet) -> Served {
        let shared = Arc::clone(&self.cache.shared);
        let Some(link) = shared.link(asker) else {
            return now(&Response::Released(Vec::new()));
        };
        let peers = Arc::clone(&self.cache.peers);
        let drops = link.drops();
        let mut released = shared.release(&shared.view(), asker, slots);
        let mut queues: Vec<usize> =
            released.iter().map(|given| shared.store.shard_index(given.slot)).collect();
        queues.sort_unstable();
        queues.dedup();
        let ends = link.ends(&queues);
        Served::Later(Box::pin(async move {
            let drained = crate::clock::within(RELEASE_DRAIN, link.drain(&ends, drops)).await;
            if drained == Some(true) {
                shared.drain_followers(&mut released, &queues).await;
            }
            // What was missed or is mended since the bits were given is not among what has arrived.
            let has_all =
                |given: &ReleasedSlot| drained == Some(true) && !link.missed().contains(given.slot);
            let (mut given, kept): (Vec<_>, Vec<_>) = released.into_iter().partition(has_all);
            let mut to_drive = ToDrive::new();
            shared.take_back(&kept, asker, &mut to_drive);
            drive_all(&shared, &peers, to_drive);
            given.retain(|given| shared.is_given(given, asker));
            Response::Released(given).encode()
        }))
    }

    fn keys(&self, request: &Request<'_>) -> Served {
        let Request::Keys { db, slot, from, limit, onward } = request else {
            return now(&Response::Unsupported);
        };
        let page = self.cache.shared.keys_page(*db, *slot, *from, *limit, *onward);
        let names = Args(page.names.iter().map(|name| &**name).collect());
        let (next, not_acting) = (page.next, page.not_acting);
        now(&Response::Keys(crate::wire::message::KeysPage { names, next, not_acting }))
    }
}

/// What the asker is told of an operation, once its acknowledgements are there.
fn answer(cache: &Cache, executed: Executed, out: Vec<u8>, proto: Proto) -> Served {
    match executed {
        Executed::Done => now(&Response::Reply(Raw(&out))),
        Executed::NotActing(hint) => now(&Response::NotOwner(hint)),
        Executed::Waiting(awaited) => {
            let cache = cache.clone();
            Served::Later(Box::pin(async move {
                let reply = cache.acknowledged(awaited, out.into(), proto).await;
                Response::Reply(Raw(&reply)).encode()
            }))
        }
    }
}

fn now(response: &Response<'_>) -> Served {
    Served::Now(response.encode())
}

impl Serve for PeerService {
    fn serve(&self, from: Caller, request: &[u8], budget: Duration) -> Served {
        let Some(request) = Request::decode(request) else {
            return now(&Response::Unsupported);
        };
        let shared = &self.cache.shared;
        match request {
            Request::Run(run) => self.run(&run, budget),
            Request::Replicate(Raw(batch)) => now(&match shared.outcasts.removal(from.node) {
                Some(removed) => Response::Outcast(removed),
                None => shared.apply_batch(from.node, batch),
            }),
            Request::Holdings { known, taking, removed, heard, unproved, placement, asked } => {
                shared.mind_removal(from.node, removed);
                shared.hear_asked(from.node, asked);
                // Before the answer is made: what is taken after it would be unknown to the asker.
                shared.yields.give_up(&taking);
                let asked = shared.outcasts.asked(from.node);
                let (view, removed) = (shared.view.load(), shared.outcasts.removal(from.node));
                let is_same = view.heard_fingerprint() == heard;
                let heard = if is_same { Vec::new() } else { view.heard() };
                let settled = shared.settled(&view, (from.node, placement), unproved);
                let wall = shared.clock.wall();
                let aside = Aside { asked, wall, removed, heard, settled };
                if shared.holdings.is_current(known, shared.clock.now()) {
                    return now(&Response::Unchanged(aside));
                }
                now(&Response::Holdings(shared.own_holdings(), aside))
            }
            Request::Release { slots } => self.release(from.node, &slots),
            Request::Keys { .. } => self.keys(&request),
            Request::Count { db } => now(&Response::Count(shared.count_keys(db))),
            Request::Flush { db, slots } => {
                let cache = self.cache.clone();
                // What is done by then is told while the caller still listens.
                let patience = budget / 4 * 3;
                Served::Later(Box::pin(async move {
                    Response::Flushed(cache.flush_here(db, &slots, patience).await).encode()
                }))
            }
            Request::Explain { slot, key: Raw(key) } => {
                now(&Response::Explained(shared.explain_here(slot, key)))
            }
            Request::Digests { slots } => now(&Response::Digests(shared.digests(&slots))),
            Request::List { slot, from } => {
                let (listed, next) = shared.list(slot, from);
                now(&Response::Listed(listed, next, shared.floors(slot)))
            }
            Request::Fetch { slot, hashes } => {
                now(&Response::Fetched(Raw(&shared.fetch(slot, &hashes))))
            }
            Request::Terms { slots, asked } => {
                now(&Response::Terms(shared.terms(from.node, &slots, asked)))
            }
            Request::Present => now(&Response::Present(true)),
            Request::Probe { node } => self.cache.probe(node),
            Request::Member(request) => {
                let answer = self.members.serve(from, request);
                Served::Later(Box::pin(async move { Response::Member(answer.await).encode() }))
            }
        }
    }

    fn wake(&self, now: Instant) {
        let _stops_are_for_clients = self.cache.shared.wake(now);
    }

    fn serve_bulk(&self, from: Caller, stream: BulkStream) {
        self.cache.serve_fill(from, stream);
    }
}

impl Shared {
    /// Waits until what was queued for the followers of released slots has arrived: it carries the
    /// old term, and would be refused once they hear of the next one.
    pub(super) async fn drain_followers(&self, released: &mut [ReleasedSlot], queues: &[usize]) {
        let me = self.options.me;
        let mut nodes: Vec<NodeId> =
            released.iter().flat_map(|given| given.followers.iter().map(|(n, _)| *n)).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let deadline = self.clock.now() + FOLLOWERS_DRAIN;
        let mut arrived = vec![me];
        for node in nodes.into_iter().filter(|node| *node != me) {
            let Some(link) = self.link(node) else { continue };
            let left = deadline.saturating_since(self.clock.now());
            let drops = link.drops();
            let ends = link.ends(queues);
            let drain = link.drain(&ends, drops);
            if crate::clock::within(left, drain).await == Some(true) {
                arrived.push(node);
            }
        }
        for given in released {
            for (node, all) in &mut given.followers {
                let dirty = self.link(*node).is_some_and(|link| link.missed().contains(given.slot));
                *all = arrived.contains(node) && !dirty;
            }
        }
    }

    /// Applies a batch of `from`, item by item; an empty answer says that all were applied here by
    /// a complete holder. Nothing of one that is damaged is acknowledged.
    pub(super) fn apply_batch(&self, from: NodeId, batch: &[u8]) -> Response<'static> {
        let mut outcomes: Vec<Applied> = Vec::new();
        let mut records = 0;
        for item in replication::items(batch) {
            match item {
                Ok(item) => {
                    let outcome = self.apply(from, &item);
                    let merged = matches!(outcome, Applied::Complete | Applied::Incomplete);
                    let is_record = matches!(item.happened, Happened::Record(_));
                    records += u64::from(merged && is_record);
                    outcomes.push(outcome);
                }
                Err(error) => {
                    tracing::warn!(node = %from, %error, "replication batch is damaged");
                    return Response::Unsupported;
                }
            }
        }
        self.metrics.store.writes_replica.increment(records);
        if outcomes.iter().all(|outcome| *outcome == Applied::Complete) {
            outcomes.clear();
        }
        Response::Replicated(outcomes)
    }

    /// Applies one item of the acting node `from`, unless a higher term is known.
    pub(super) fn apply(&self, from: NodeId, item: &Item<'_>) -> Applied {
        let wall = self.clock.wall();
        let slot = item.slot;
        let mut shard = self.store.lock(slot);
        let header = shard.header_mut(slot);
        if item.term < header.term {
            let (term, acting) = (header.term, header.acting);
            drop(shard);
            let me = self.options.me;
            let own = ActingHint { node: me, peer: self.view.load().peer_address(me) };
            let acting = if acting { Some(own) } else { self.hint(slot) };
            return Applied::Deposed { term, acting };
        }
        if !header.complete && !self.is_wanted(slot) {
            return Applied::Unwanted;
        }
        // Of two that took the bit under one counter the tag decides, once something was written. That one
        // of them acts may be a word from before it was fenced.
        let is_tie = item.term.counter == header.term.counter && item.term > header.term;
        if is_tie && item.happened == Happened::Acting {
            return if header.complete { Applied::Complete } else { Applied::Incomplete };
        }
        let mut lost = false;
        if item.term > header.term {
            header.term = item.term;
            header.set_successor(Some(from));
            lost = std::mem::take(&mut header.acting);
            if lost || std::mem::take(&mut header.fenced) {
                header.discount();
            }
        }
        let complete = header.complete;
        let outcome = self.apply_happened(&mut shard, wall, slot, item.happened);
        drop(shard);
        self.hints.set(slot, from);
        if lost {
            tracing::info!(%slot, node = %from, "acting bit lost to a higher term");
            self.holdings.changed();
            self.kick();
        }
        match outcome {
            Some(newer) => Applied::Superseded { same_origin: newer },
            None if complete => Applied::Complete,
            None => Applied::Incomplete,
        }
    }

    /// Whether a slot that this node is not complete for is to be filled, or is being filled.
    fn is_wanted(&self, slot: Slot) -> bool {
        self.view.load().target.holds(self.options.me, slot) || self.fills.is_under_way(slot)
    }

    /// `Some` where a newer version is there already: whether it has the same origin.
    fn apply_happened(
        &self,
        shard: &mut Shard,
        wall: WallMillis,
        slot: Slot,
        happened: Happened<'_>,
    ) -> Option<bool> {
        match happened {
            Happened::Record(record) => {
                shard.clock_mut().observe(wall, record.version.clock);
                self.shed_replicas(shard);
                if Rule::HigherVersion.is_broken() && shard.find(slot, record.key).is_some() {
                    return None;
                }
                if shard.merge(slot, record) != Merged::Older {
                    return None;
                }
                let newer = shard.find(slot, record.key).map(|entry| entry.version().origin);
                self.metrics.store.superseded.increment(1);
                return Some(newer == Some(record.version.origin));
            }
            Happened::Evicted { key, version } => {
                shard.header_mut(slot).forget(version.clock);
                if shard.remove(slot, key, version) {
                    self.metrics.store.evicted_notice.increment(1);
                }
            }
            Happened::Absent { hash, version } => drop_hash(shard, slot, hash, version),
            Happened::Floor { db, version } => {
                shard.clock_mut().observe(wall, version.clock);
                shard.set_floor(slot, db, version);
            }
            Happened::Filled { session, as_of, forgotten } => {
                shard.header_mut(slot).forget(forgotten);
                self.fills.note_filled(self, shard, slot, session, as_of);
            }
            Happened::CursorEnd { session } => {
                self.fills.note_cursor_end(self, shard, slot, session);
            }
            Happened::Declined => self.fills.declined(slot),
            // The term was taken over with the item.
            Happened::Acting => {}
        }
        None
    }

    /// What this node holds now.
    pub(super) fn own_holdings(&self) -> crate::wire::message::Holdings {
        let kept = self.kept.until();
        let mut own = self.holdings.own(&self.store, self.clock.now(), kept != 0);
        own.placement = self.view.load().placement.id().get();
        own.fences = self.fence.count();
        own.fenced = self.fenced().is_some();
        own.clock_wrong = self.clocks.is_wrong();
        own.kept = kept;
        own
    }
}

/// Drops the entry of a hash, up to a version.
fn drop_hash(shard: &mut Shard, slot: Slot, hash: u64, version: Version) {
    let mut found = None;
    shard.scan(slot, hash, 1, &mut |at, entry| {
        if at == hash {
            found = Some(entry.record().key.to_vec());
        }
    });
    if let Some(key) = found {
        shard.remove(slot, &key, version);
    }
}
