//! Commands over many slots: split by slot and merged again, or asked of every node.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::command::parse::{key_groups, keys};
use crate::command::scan::{Scan, keys_reply};
use crate::command::{KeyspaceCommand, Merge, Row, glob};
use crate::limits::{FAN_OUT_MAX, SCAN_COUNT_MAX, SCAN_SLOTS_MAX};
use crate::peers::CallError;
use crate::resp::{Encoder, Proto, Reply, errors};
use crate::ring::slot_of;
use crate::store::Store;
use crate::types::{Db, SLOTS, Slot, SlotSet, Version};
use crate::wire::message::{Request, Response};
use crate::wire::replication::{Happened, Item};

use super::coordinate::error_reply;
use super::execute::{Awaited, Executed};
use super::replicate::{Group, ToDrive, drive_all};
use super::{Cache, CommandCall, Port, Shared, Started};

/// The pause before a flush is repeated.
const FLUSH_PAUSE: Duration = Duration::from_millis(100);
/// A node that does not answer holds a flush up for this part of the command's budget: the rest is for those
/// that take its slots over.
const FLUSH_TRIES: u32 = 4;
/// Keys that one step of `KEYS` asks a node for.
const PAGE_OF_KEYS: u32 = 1024;

/// One slot's part of a command.
struct Part {
    /// The command's name and the part's arguments.
    args: Vec<Bytes>,
    /// Where the part's values belong in the reply.
    places: Vec<usize>,
}

/// A walk's page of names.
pub(super) struct Page {
    pub(super) names: Vec<Vec<u8>>,
    pub(super) next: (u16, u64),
    pub(super) not_acting: bool,
}

/// The rows and connection facts that the parts of a fan-out share.
#[derive(Clone, Copy)]
struct Shape {
    row: &'static Row,
    db: Db,
    proto: Proto,
    port: Port,
}

impl Cache {
    /// Splits a command by slot; at most [`FAN_OUT_MAX`] parts are under way at a time.
    pub(super) fn start_fan_out(
        &self,
        call: &CommandCall<'_>,
        merge: Merge,
        out: &mut Vec<u8>,
    ) -> Started {
        let mut slots = keys(call.row, call.args).map(slot_of);
        let first = slots.next();
        if slots.all(|slot| Some(slot) == first) {
            return self.start_on_slot(call, out);
        }
        let parts = split(call);
        let total = keys(call.row, call.args).count();
        let shape = Shape { row: call.row, db: call.db, proto: call.proto, port: call.port };
        let cache = self.clone();
        Started::Waiting(Box::pin(async move {
            let mut merged = Merged::new(merge, total);
            for chunk in parts.chunks(FAN_OUT_MAX) {
                let started: Vec<_> =
                    chunk.iter().map(|part| (part, cache.start_part(shape, part))).collect();
                for (part, (ready, waiting)) in started {
                    let reply = match waiting {
                        Some(future) => future.await,
                        None => ready.into(),
                    };
                    merged.add(part, &reply);
                }
            }
            merged.encode(shape.proto)
        }))
    }

    fn start_part(
        &self,
        shape: Shape,
        part: &Part,
    ) -> (Vec<u8>, Option<crate::tasks::BoxFuture<'static, Bytes>>) {
        let args: Vec<&[u8]> = part.args.iter().map(|arg| &**arg).collect();
        let Shape { row, db, proto, port } = shape;
        let call = CommandCall { row, args: &args, db, proto, port, now: self.shared.clock.wall() };
        let mut out = Vec::new();
        match self.start_on_slot(&call, &mut out) {
            Started::Done => (out, None),
            Started::Waiting(future) => (out, Some(future)),
        }
    }

    /// Starts a command about the whole keyspace; on the cluster port about this node's part.
    pub(super) fn start_wide(&self, call: &CommandCall<'_>, out: &mut Vec<u8>) -> Started {
        if let Err(error) = KeyspaceCommand::parse(call.row, call.args) {
            error.encode(&mut Encoder::new(out, call.proto));
            return Started::Done;
        }
        let (cache, row, db, proto, port) =
            (self.clone(), call.row, call.db, call.proto, call.port);
        let args: Vec<Bytes> = call.args.iter().map(|arg| Bytes::copy_from_slice(arg)).collect();
        Started::Waiting(Box::pin(async move {
            let args: Vec<&[u8]> = args.iter().map(|arg| &**arg).collect();
            let mut out = Vec::new();
            let mut reply = Encoder::new(&mut out, proto);
            let done = match KeyspaceCommand::parse(row, &args) {
                Ok(command) => cache.run_wide(&command, db, port, &mut reply).await,
                Err(error) => Err(error.to_string()),
            };
            match done {
                Ok(()) => out.into(),
                Err(text) => error_reply(proto, &text),
            }
        }))
    }

    /// Runs a command about the whole keyspace; writes its reply only if it succeeds.
    async fn run_wide(
        &self,
        command: &KeyspaceCommand<'_>,
        db: Db,
        port: Port,
        reply: &mut Encoder<'_>,
    ) -> Result<(), String> {
        match command {
            KeyspaceCommand::Scan(options) => self.scan(db, options, port, reply).await?,
            KeyspaceCommand::Keys(pattern) => self.all_keys(db, pattern, port, reply).await?,
            KeyspaceCommand::DbSize => {
                let count = self.size(db, port).await?;
                reply.integer(i64::try_from(count).unwrap_or(i64::MAX));
            }
            KeyspaceCommand::RandomKey => {
                let name = self.random_key(db, port).await?;
                reply.optional(name.as_deref());
            }
            KeyspaceCommand::Flush { all } => {
                self.flush(if *all { None } else { Some(db) }, port).await?;
                reply.ok();
            }
        }
        Ok(())
    }

    async fn size(&self, db: Db, port: Port) -> Result<u64, String> {
        let mut total = self.shared.count_keys(db);
        if port == Port::Client {
            for answer in self.ask_all(&Request::Count { db }).await {
                let bytes = answer.map_err(|error| errors::try_again(&error.to_string()))?;
                if let Some(Response::Count(count)) = Response::decode(&bytes) {
                    total += count;
                }
            }
        }
        Ok(total)
    }

    /// Forgets everything. On the client port that is repeated for the slots for which it was not done: one
    /// that is just passed on, or whose node has just died, has nobody who acts for a moment.
    pub(super) async fn flush(&self, db: Option<Db>, port: Port) -> Result<(), String> {
        let (clock, budget) = (&self.shared.clock, self.shared.options.op_timeout);
        let deadline = clock.now() + budget;
        let mut left = match port {
            Port::Client => SlotSet::full(),
            Port::Cluster => self.shared.own_holdings().acting,
        };
        loop {
            let patience = deadline.saturating_since(clock.now());
            let flushed = match port {
                Port::Client => self.flush_everywhere(db, &left, patience).await,
                Port::Cluster => self.flush_here(db, &left, patience).await,
            };
            left.subtract(&flushed);
            if left.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(FLUSH_PAUSE).await;
            // Looked at before each try: one after a stop would flush what was written meanwhile.
            if clock.now() >= deadline {
                let why = format!("{} slots are not known to be flushed", left.len());
                return Err(errors::outcome_unknown(&why));
            }
        }
    }

    /// Has every node flush that may be expected to answer; the slots for which it was done.
    async fn flush_everywhere(
        &self,
        db: Option<Db>,
        slots: &SlotSet,
        patience: Duration,
    ) -> SlotSet {
        let (shared, view) = (&self.shared, self.view());
        // Who does not answer does not use up what is left for those that take its slots over.
        let patience = patience.min(shared.options.op_timeout / FLUSH_TRIES);
        let request = Request::Flush { db, slots: slots.clone() }.encode();
        let nodes = view.others().map(|member| member.identity.node);
        let calls: Vec<_> = nodes
            .filter(|node| shared.is_answering(&view, *node))
            .map(|node| (node, self.peers.call(node, request.clone(), patience)))
            .collect();
        let mut flushed = self.flush_here(db, slots, patience).await;
        for (node, call) in calls {
            let answer = call.await;
            if let Some(link) = shared.link(node) {
                shared.note_answer(&link, &answer);
            }
            if let Ok(Some(Response::Flushed(slots))) = answer.as_deref().map(Response::decode) {
                flushed.union_with(&slots);
            }
        }
        flushed
    }

    /// Asks every other member that is not gone.
    async fn ask_all(&self, request: &Request<'_>) -> Vec<Result<Bytes, CallError>> {
        let request = request.encode();
        let budget = self.shared.options.op_timeout;
        let calls: Vec<_> = self
            .view()
            .others()
            .map(|member| self.peers.call(member.identity.node, request.clone(), budget))
            .collect();
        let mut answers = Vec::with_capacity(calls.len());
        for call in calls {
            answers.push(call.await);
        }
        answers
    }

    async fn scan(
        &self,
        db: Db,
        options: &Scan<'_>,
        port: Port,
        reply: &mut Encoder<'_>,
    ) -> Result<(), String> {
        let mut place = place_of(options.cursor);
        let start = place.0;
        let wanted = usize::try_from(options.count).unwrap_or(usize::MAX).min(SCAN_COUNT_MAX);
        let mut looked_at = 0;
        let mut found: Vec<Vec<u8>> = Vec::new();
        while place.0 < SLOTS && looked_at < wanted && place.0 - start < SCAN_SLOTS_MAX {
            let limit = u32::try_from(wanted - looked_at).unwrap_or(u32::MAX);
            let page = self.page(db, place, limit, port).await?;
            looked_at += page.names.len();
            found.extend(page.names.into_iter().filter(|name| options.takes(name)));
            place = page.next;
        }
        Scan::reply(cursor_of(place), &found, reply);
        Ok(())
    }

    async fn all_keys(
        &self,
        db: Db,
        pattern: &[u8],
        port: Port,
        reply: &mut Encoder<'_>,
    ) -> Result<(), String> {
        let mut place = (0, 0);
        let mut found: Vec<Vec<u8>> = Vec::new();
        while place.0 < SLOTS {
            let page = self.page(db, place, PAGE_OF_KEYS, port).await?;
            found.extend(page.names.into_iter().filter(|name| glob::matches(pattern, name)));
            place = page.next;
        }
        keys_reply(&found, reply);
        Ok(())
    }

    /// Any key: the first one from a random place on.
    async fn random_key(&self, db: Db, port: Port) -> Result<Option<Vec<u8>>, String> {
        let rng = &self.shared.rng;
        let slot = u16::try_from(rng.below(u64::from(SLOTS))).unwrap_or(0);
        for mut place in [(slot, rng.next_u64()), (0, 0)] {
            while place.0 < SLOTS {
                let page = self.page(db, place, 1, port).await?;
                if let Some(name) = page.names.into_iter().next() {
                    return Ok(Some(name));
                }
                place = page.next;
            }
        }
        Ok(None)
    }

    /// The next page of a walk, from whoever acts at `place`. On the cluster port slots that this
    /// node does not act for are passed over.
    async fn page(
        &self,
        db: Db,
        place: (u16, u64),
        limit: u32,
        port: Port,
    ) -> Result<Page, String> {
        let Some(slot) = Slot::new(place.0) else {
            return Ok(Page { names: Vec::new(), next: (SLOTS, 0), not_acting: false });
        };
        if port == Port::Cluster {
            // A walk that never waits for a peer must not hold up this thread's other clients.
            tokio::task::yield_now().await;
            let page = self.shared.keys_page(db, slot, place.1, limit, true);
            let next = if page.not_acting { (page.next.0 + 1, 0) } else { page.next };
            return Ok(Page { next, ..page });
        }
        let clock = &self.shared.clock;
        let deadline = clock.now() + self.shared.options.op_timeout;
        loop {
            if let Some(page) = self.try_page(db, slot, place.1, limit).await {
                return Ok(page);
            }
            if clock.now() >= deadline {
                return Err(errors::try_again(&format!("no node acts for slot {slot}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A page from the node that is believed to act; `None` if it does not.
    async fn try_page(&self, db: Db, slot: Slot, from: u64, limit: u32) -> Option<Page> {
        let node = self.shared.acting_node(slot)?;
        let page = if node == self.shared.options.me {
            self.shared.keys_page(db, slot, from, limit, true)
        } else {
            let request = Request::Keys { db, slot, from, limit, onward: true }.encode();
            let answer = self.peers.call(node, request, self.shared.options.call_timeout).await;
            match answer.as_deref().map(Response::decode) {
                Ok(Some(Response::Keys(page))) => Page {
                    names: page.names.0.iter().map(|name| name.to_vec()).collect(),
                    next: page.next,
                    not_acting: page.not_acting,
                },
                _ => return None,
            }
        };
        if page.not_acting && page.next == (slot.get(), from) {
            self.shared.hints.clear_if(slot, node);
            return None;
        }
        self.shared.hints.set(slot, node);
        Some(page)
    }

    /// Forgets everything in those of `slots` that this node acts for, acknowledged as any write is. Gives
    /// those for which that is done, after `patience` at most.
    pub(super) async fn flush_here(
        &self,
        db: Option<Db>,
        slots: &SlotSet,
        patience: Duration,
    ) -> SlotSet {
        let clock = &self.shared.clock;
        let deadline = clock.now() + patience;
        let (mut flushed, waiting) = self.raise_floors(db, slots);
        for (slot, awaited) in waiting {
            let patience = deadline.saturating_since(clock.now());
            if self.verdict(Awaited { patience, ..awaited }).await.is_ok() {
                flushed.insert(slot);
            }
        }
        flushed
    }

    /// A floor for each of `slots` that this node acts for and may write to, told to its holders. Gives
    /// which are done with at once, and what the others wait for.
    fn raise_floors(&self, db: Option<Db>, slots: &SlotSet) -> (SlotSet, Vec<(Slot, Awaited)>) {
        let (shared, wall) = (&self.shared, self.shared.clock.wall());
        let (mut to_drive, mut waiting) = (ToDrive::new(), Vec::new());
        let mut flushed = SlotSet::new();
        for slot in slots.iter() {
            let mut shard = shared.store.lock(slot);
            // The holders by the view of this moment, as for any write.
            let view = shared.view.load();
            let header = shard.header(slot);
            if !header.acting || shared.refusal(&view, slot).is_some() {
                continue;
            }
            let (term, newest) = (header.term, header.newest_term());
            let clock = shard.clock_mut().tick(wall, 0);
            let origin = shared.options.me.tag();
            let version = Version { term: term.counter.max(newest), clock, origin };
            shard.set_floor(slot, db, version);
            let group = Group::of(&Item { slot, term, happened: Happened::Floor { db, version } });
            match shared.queue_write(&view, &shard, slot, &group, &mut to_drive) {
                Executed::Waiting(awaited) => waiting.push((slot, awaited)),
                Executed::Done | Executed::NotActing(_) => {
                    flushed.insert(slot);
                }
            }
        }
        drive_all(shared, &self.peers, to_drive);
        (flushed, waiting)
    }
}

impl Shared {
    /// How many keys of a database live in the slots this node acts for.
    pub(super) fn count_keys(&self, db: Db) -> u64 {
        let mut count = 0;
        for index in 0..self.store.shards() {
            let shard = self.store.lock_shard(index);
            for (_, header) in shard.headers() {
                if header.acting {
                    count += u64::from(header.keys_in(db));
                }
            }
        }
        count
    }

    /// Keys from a place on, as far as this node acts, about `limit` of them.
    pub(super) fn keys_page(
        &self,
        db: Db,
        slot: Slot,
        from: u64,
        limit: u32,
        onward: bool,
    ) -> Page {
        let now = self.clock.wall();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).clamp(1, 4096);
        let (lowest, highest) = Store::hashes_of(db);
        let mut page = Page { names: Vec::new(), next: (slot.get(), from), not_acting: false };
        for slot in slot.onward() {
            let from = if page.next.0 == slot.get() { page.next.1 } else { 0 };
            page.next = (slot.get(), from);
            let shard = self.store.lock(slot);
            if !shard.header(slot).acting {
                page.not_acting = true;
                return page;
            }
            let room = limit - page.names.len();
            let next = shard.scan(slot, from.max(lowest), room, &mut |_, entry| {
                if let [stored_db, name @ ..] = entry.record().key
                    && *stored_db == db.get()
                    && entry.is_live(now)
                {
                    page.names.push(name.to_vec());
                }
            });
            let next = next.filter(|hash| *hash <= highest);
            page.next = match next {
                Some(hash) => (slot.get(), hash),
                None => (slot.get() + 1, 0),
            };
            if page.names.len() >= limit || next.is_some() || !onward {
                return page;
            }
        }
        page
    }
}

/// The parts of a command, one for each slot.
fn split(call: &CommandCall<'_>) -> Vec<Part> {
    let mut parts: BTreeMap<Slot, Part> = BTreeMap::new();
    let name = call.args.first().copied().unwrap_or_default();
    for (place, group) in key_groups(call.row, call.args).enumerate() {
        let slot = slot_of(group.first().copied().unwrap_or_default());
        let part = parts.entry(slot).or_insert_with(|| Part {
            args: vec![Bytes::copy_from_slice(name)],
            places: Vec::new(),
        });
        part.places.push(place);
        part.args.extend(group.iter().map(|arg| Bytes::copy_from_slice(arg)));
    }
    parts.into_values().collect()
}

/// Where a cursor points: slot, and the first key hash. The upper 16 bits of a cursor are the slot,
/// the rest the upper 48 bits of the hash; a place in the middle of equal prefixes is repeated.
const fn place_of(cursor: u64) -> (u16, u64) {
    ((cursor >> 48) as u16, cursor << 16)
}

/// The cursor of a place; 0 past the last slot.
fn cursor_of((slot, hash): (u16, u64)) -> u64 {
    if slot >= SLOTS { 0 } else { u64::from(slot) << 48 | hash >> 16 }
}

/// The replies of the parts, put together.
enum Merged {
    Sum(i64),
    Values(Vec<Reply>),
    Ok,
    Failed(Reply),
}

impl Merged {
    fn new(merge: Merge, total: usize) -> Self {
        match merge {
            Merge::Sum => Self::Sum(0),
            Merge::Array => Self::Values(vec![Reply::Null; total]),
            Merge::Ok => Self::Ok,
        }
    }

    fn add(&mut self, part: &Part, reply: &[u8]) {
        let reply = match Reply::decode(reply) {
            Ok(Some((reply, _))) => reply,
            Ok(None) | Err(_) => Reply::error("ERR a part's reply was not understood"),
        };
        match (&mut *self, reply) {
            (Self::Failed(_), _) => {}
            (_, failed @ Reply::Error(_)) => *self = Self::Failed(failed),
            (Self::Sum(sum), Reply::Integer(count)) => *sum += count,
            (Self::Values(values), Reply::Array(part_values)) => {
                for (place, value) in part.places.iter().zip(part_values) {
                    values[*place] = value;
                }
            }
            _ => {}
        }
    }

    fn encode(self, proto: Proto) -> Bytes {
        let mut out = Vec::new();
        let mut encoder = Encoder::new(&mut out, proto);
        match self {
            Self::Sum(sum) => encoder.integer(sum),
            Self::Values(values) => encoder.reply(&Reply::Array(values)),
            Self::Ok => encoder.ok(),
            Self::Failed(error) => encoder.reply(&error),
        }
        out.into()
    }
}
