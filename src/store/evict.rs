//! Eviction: making room within the byte budget, in bounded steps, in the order of S3-FIFO
//! (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023).
//!
//! A page is emptied a few entries at a time: what was used goes on to the main queue, what was not
//! is dropped and, if it was new, remembered in the ghost. When its last entry is done the page is
//! free. Where pages are hollow the hollowest one is *cleaned* instead: what lives in it is gathered
//! in a page that takes its place in the order.
//!
//! Entries that another node acts for are not evicted here but when that node says so; where one is
//! found in the wrong queue, because the acting bit has moved, it is put where it belongs.
//! Tombstones are never evicted: a deleted key would come back from a holder that missed the
//! deletion.

use std::ops::AddAssign;

use super::Policy;
use super::gone::{Gone, OnGone, Remains};
use super::header::SlotHeader;
use super::pages::{Handle, Queue, Target};
use super::shard::Shard;
use super::table::NEVER;
use crate::limits::{STORE_EVICT_STEP, STORE_EVICT_STEPS};
use crate::types::{BodyRef, RecordRef, Slot, WallMillis};

/// Pages are cleaned while more than one part in this many of them is dead.
const CLEAN_PART: usize = 16;
/// A page is worth cleaning while so many eighths of it live at most. A page that was filled and has
/// no dead entry has more, because entries are smaller than an eighth.
const HOLLOW_EIGHTHS: usize = 7;
/// Slots whose sums are added up for each victim on average.
const SLOTS_PER_VICTIM: usize = 256;
/// The small queue has one part in this many of what is acted for.
const SMALL_PART: usize = 10;
/// Uses that take an entry from the small queue to the main one.
const PROMOTING_USES: u8 = 2;
/// Steps of one trim: it holds the lock.
const TRIM_STEPS_MAX: usize = 128;
/// Steps of one write in what was flushed, before it may pass the limit.
const FLUSHED_STEPS: usize = 32;
/// So many pages are emptied in a row without one to show for it, before there is no room.
const IN_VAIN_PAGES_MAX: usize = 32;
/// So many pages' worth of entries may be moved in vain before the main queue spares less.
const IN_VAIN_PAGES: usize = 4;

/// Whose entries are evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// Those of slots that this node acts for.
    Acted,
    /// Those of slots that another node acts for: only where that node's word does not suffice.
    Replicas,
}

impl Whose {
    const fn are(self, header: &SlotHeader) -> bool {
        match self {
            Self::Acted => header.acting,
            Self::Replicas => !header.acting,
        }
    }
}

/// What the eviction of a shard did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EvictionCounts {
    /// Bytes of entries that were evicted.
    pub evicted_bytes: u64,
    /// Bytes of entries that were moved to another page.
    pub moved_bytes: u64,
    /// Entries that were dropped although they had been used, because nothing else made room.
    pub forced: u64,
    /// Pages that were cleaned.
    pub cleaned: u64,
    /// Keys that came back soon after they were evicted.
    pub ghost_hits: u64,
}

impl AddAssign for EvictionCounts {
    fn add_assign(&mut self, other: Self) {
        self.evicted_bytes += other.evicted_bytes;
        self.moved_bytes += other.moved_bytes;
        self.forced += other.forced;
        self.cleaned += other.cleaned;
        self.ghost_hits += other.ghost_hits;
    }
}

/// Where the eviction of a shard stands.
#[derive(Debug)]
pub(super) struct Eviction {
    victim: Option<Victim>,
    /// Bytes spared by the main queue since a page's worth was last dropped.
    in_vain: usize,
    dropped: usize,
    /// Replica pages emptied in a row to find what this node acts for by now.
    sorted: usize,
    counted: Counted,
    /// How long a page of the small queue lasted, in milliseconds.
    pub(super) age: u64,
    pub(super) counts: EvictionCounts,
}

impl Default for Eviction {
    fn default() -> Self {
        Self {
            victim: None,
            in_vain: 0,
            dropped: 0,
            sorted: 0,
            counted: Counted::default(),
            age: NEVER,
            counts: EvictionCounts::default(),
        }
    }
}

impl Eviction {
    /// All pages are others.
    pub(super) fn start_over(&mut self) {
        *self = Self { counts: self.counts, ..Self::default() };
    }

    /// The page that is being emptied.
    pub(super) fn victim(&self) -> Option<u16> {
        self.victim.as_ref().map(|victim| victim.page)
    }
}

/// What may be evicted, as counted last.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    whose: Option<Whose>,
    keys: usize,
    bytes: usize,
    /// Victims that were chosen by it.
    victims: usize,
}

/// A page that is being emptied.
#[derive(Clone, Copy, Debug)]
struct Victim {
    page: u16,
    queue: Queue,
    /// Its place in the order.
    place: usize,
    /// Where to go on in it.
    at: usize,
    cleans: bool,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// There is nothing that could be emptied.
    Nothing,
    /// A page is on its way.
    Going,
    /// A page was emptied. What it held may fill another one.
    Emptied,
}

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Move { target: Target, uses: u8, must: bool },
    Drop { remembered: bool },
}

impl Shard {
    /// Reserves `need` bytes, evicting entries of this shard as far as that takes. `false` if they
    /// cannot be had now: the policy forbids eviction, or the entries of this shard are not
    /// enough. In the second case the other shards have been told to give; once
    /// [`super::Store::pressure`] is relieved by [`Shard::trim`] on them, the same call succeeds.
    ///
    /// The reservation is used up by the next writes and given back with the guard. What is reserved
    /// already counts.
    pub fn make_room(&mut self, need: usize, evicted: &mut OnGone<'_>) -> bool {
        let missing = need.saturating_sub(self.reserved);
        let done = missing == 0 || self.reserve(missing, evicted);
        if done {
            self.reserved += missing;
        }
        done
    }

    /// Does a little of what the next page will take, so that no write does all of it. To be called
    /// before a write.
    pub fn go_ahead(&mut self, evicted: &mut OnGone<'_>) {
        let half = self.log.page_cost() / 2;
        if self.policy == Policy::Evict
            && self.budget.is_near(self.place.index, self.used())
            && self.log.room(Target::End(Queue::Small)) < half
        {
            self.step(Whose::Acted, STORE_EVICT_STEP, evicted);
        }
    }

    fn reserve(&mut self, need: usize, evicted: &mut OnGone<'_>) -> bool {
        if self.reserve_soft(need) {
            return true;
        }
        let below_target = (self.used() + need) as u64 <= self.budget.target(self.place.index);
        if self.policy == Policy::Evict && below_target && self.reserve_hard(need) {
            return true;
        }
        let own = self.could_give(need);
        if !self.budget.could_fit(need, own) {
            self.want(need);
            return false;
        }
        // Up to the limit what must go goes; back down to the soft limit only a step at a time.
        let (mut steps, mut in_vain, mut lowest) = (0, 0, self.used());
        while in_vain < IN_VAIN_PAGES_MAX {
            let may_pass = steps >= STORE_EVICT_STEPS;
            if self.reserve_soft(need) || may_pass && self.reserve_hard(need) {
                return true;
            }
            match self.step(Whose::Acted, STORE_EVICT_STEP, evicted) {
                Progress::Nothing => break,
                // A page that is emptied into another one is no gain.
                _ if self.used() < lowest => (in_vain, lowest) = (0, self.used()),
                // What was flushed is as good as gone, and there may be much of it.
                Progress::Going
                    if steps >= FLUSHED_STEPS && self.is_page(need) && self.garbage.waits() =>
                {
                    self.budget.add(need);
                    return true;
                }
                Progress::Going => {}
                Progress::Emptied => in_vain += 1,
            }
            steps += 1;
        }
        let fits = self.reserve_hard(need);
        if !fits {
            self.want(need);
        }
        fits
    }

    /// About the bytes that this shard could evict. They are counted for what is large only: a shard
    /// that gave all it has for nothing would be empty.
    fn could_give(&mut self, need: usize) -> usize {
        if self.is_page(need) || self.garbage.waits() {
            return self.used();
        }
        let evicted = if self.policy == Policy::Evict { self.count(Whose::Acted) } else { 0 };
        evicted + self.log.dead()
    }

    /// Whether so many bytes are what a write takes that needs a page, and not more.
    fn is_page(&self, bytes: usize) -> bool {
        bytes <= 2 * self.log.page_cost()
    }

    /// Reserves below the soft limit, unless the shard has all the pages it may have.
    fn reserve_soft(&self, need: usize) -> bool {
        !self.log.is_full() && self.budget.reserve_soft(need)
    }

    /// Reserves below the limit, unless the shard has all the pages it may have.
    fn reserve_hard(&self, need: usize) -> bool {
        !self.log.is_full() && self.budget.reserve_hard(need)
    }

    /// Tells the other shards to give what this one cannot.
    fn want(&self, need: usize) {
        if self.policy == Policy::Evict {
            self.budget.want(need);
        }
    }

    /// Adds to what is reserved, if the budget has it.
    fn reserve_more(&mut self, bytes: usize) -> bool {
        let reserved = self.budget.reserve_hard(bytes);
        self.reserved += if reserved { bytes } else { 0 };
        reserved
    }

    /// Evicts up to `limit` entries while the store as a whole is short of room and this shard
    /// holds more than its share. Returns how many went. To be called on every shard from time to
    /// time, and when [`Shard::make_room`] fails on another one.
    pub fn trim(&mut self, whose: Whose, limit: usize, evicted: &mut OnGone<'_>) -> usize {
        let mut count = 0;
        for _ in 0..TRIM_STEPS_MAX {
            if !self.is_asked_to_give() || count >= limit {
                break;
            }
            let mut counted = |gone: &Gone<'_>| {
                count += 1;
                evicted(gone)
            };
            if self.step(whose, STORE_EVICT_STEP, &mut counted) == Progress::Nothing {
                break;
            }
        }
        count
    }

    fn is_asked_to_give(&self) -> bool {
        self.policy == Policy::Evict
            && self.budget.pressure() > 0
            && self.used() as u64 > self.budget.target_under_pressure(self.place.index)
    }

    /// Cleans a little where a quarter of the pages is dead, as after a mass expiry. Says whether
    /// there was something to do. Where the budget is used up entries may go.
    pub fn tidy(&mut self, evicted: &mut OnGone<'_>) -> bool {
        let (dead, size) = (self.log.dead(), self.log.size());
        if self.garbage.hides_entries() || self.eviction.victim.is_none() && dead * 4 < size {
            return false;
        }
        let begins = self.eviction.victim.is_none();
        if begins {
            self.eviction.victim = self.hollow();
        }
        let cleans = self.eviction.victim.is_some_and(|victim| victim.cleans);
        let step = STORE_EVICT_STEP * 8;
        cleans && self.step(Whose::Acted, step, evicted) != Progress::Nothing
    }

    /// What the eviction did since the store was made.
    pub const fn eviction_counts(&self) -> EvictionCounts {
        EvictionCounts { ghost_hits: self.ghost.hits, ..self.eviction.counts }
    }

    /// Goes over the next `limit` entries of the page that is being emptied, or of the next such
    /// page. What was flushed is freed first.
    fn step(&mut self, whose: Whose, limit: usize, evicted: &mut OnGone<'_>) -> Progress {
        if self.free_garbage() {
            return Progress::Going;
        }
        let Some(mut victim) = self.eviction.victim.take().or_else(|| self.choose(whose)) else {
            return Progress::Nothing;
        };
        for _ in 0..limit {
            let Some(handle) = self.log.next_entry(victim.page, &mut victim.at) else {
                self.log.free(victim.page);
                self.settle();
                return Progress::Emptied;
            };
            self.pass(&victim, handle, whose, evicted);
        }
        self.eviction.victim = Some(victim);
        self.settle();
        Progress::Going
    }

    /// What was left of the page that is being emptied is gone. Nothing may ever go on with it.
    pub(super) fn drop_empty_victim(&mut self) {
        if let Some(page) = self.eviction.victim().filter(|page| self.log.live(*page) == 0) {
            self.eviction.victim = None;
            self.log.free(page);
        }
    }

    /// Chooses the next page to be emptied.
    fn choose(&mut self, whose: Whose) -> Option<Victim> {
        if self.log.dead() * CLEAN_PART > self.log.size()
            && let Some(victim) = self.hollow()
        {
            return Some(victim);
        }
        let wanted = self.count(whose);
        if self.policy == Policy::Refuse || wanted == 0 {
            return self.hollow();
        }
        let queue = match whose {
            Whose::Acted => self.queue_to_evict(wanted),
            Whose::Replicas => {
                let all = [Queue::Replica, Queue::Small, Queue::Main];
                all.into_iter().find(|queue| self.log.pages_of(*queue) > 0)
            }
        }?;
        let (page, opened_at) = self.log.oldest(queue)?;
        if queue == Queue::Small {
            self.eviction.age = self.present().saturating_since(opened_at);
        }
        let place = self.log.take_out(page);
        Some(Victim { page, queue, place, at: 0, cleans: false })
    }

    /// Bytes of the values that may be evicted. They are counted for every victim where a shard has
    /// few slots, else once for several.
    fn count(&mut self, whose: Whose) -> usize {
        let known = self.eviction.counted;
        if known.whose == Some(whose) && known.victims < self.slots.len() / SLOTS_PER_VICTIM {
            self.eviction.counted.victims += 1;
            return known.bytes;
        }
        let headers = self.slots.iter().map(|data| &data.header).filter(|it| whose.are(it));
        let (keys, bytes) = headers.fold((0, 0), |(keys, bytes), header| {
            (keys + header.keys() as usize, bytes + header.bytes())
        });
        self.eviction.counted = Counted { whose: Some(whose), keys, bytes, victims: 0 };
        bytes
    }

    /// The queue whose oldest page is emptied next, where `acted` bytes are acted for.
    fn queue_to_evict(&mut self, acted: usize) -> Option<Queue> {
        let (small, main) = (self.log.weight(Queue::Small), self.log.weight(Queue::Main));
        let page = self.log.page_cost();
        // What this node acts for by now and still stands among the replicas.
        let astray = acted.saturating_sub(small + main);
        let replicas = self.log.pages_of(Queue::Replica);
        // One of those, one of the others: what is astray may be little among much.
        let looks_there = astray > 2 * page && self.eviction.sorted < 2 * replicas;
        self.eviction.sorted = if looks_there { self.eviction.sorted + 1 } else { 0 };
        if looks_there && self.eviction.sorted % 2 == 1 {
            return Some(Queue::Replica);
        }
        let has = |queue: &Queue| self.log.pages_of(*queue) > 0;
        let small_first = small >= (small + main) / SMALL_PART + page / 2;
        let order = if small_first {
            [Queue::Small, Queue::Main, Queue::Replica]
        } else {
            [Queue::Main, Queue::Small, Queue::Replica]
        };
        order.into_iter().find(has)
    }

    /// The hollowest page, if cleaning it is worth its cost.
    fn hollow(&mut self) -> Option<Victim> {
        let (page, live) = self.log.hollowest()?;
        if live * 8 > self.budget.page_size() * HOLLOW_EIGHTHS {
            return None;
        }
        let queue = self.log.queue_of_page(page);
        let place = self.log.take_out(page);
        self.eviction.counts.cleaned += 1;
        Some(Victim { page, queue, place, at: 0, cleans: true })
    }

    /// Decides on one entry of the victim, and does it.
    fn pass(&mut self, victim: &Victim, handle: Handle, whose: Whose, evicted: &mut OnGone<'_>) {
        let entry = self.log.entry(handle);
        let (key, length) = (entry.key(), entry.len());
        let (slot, hash) = (self.slot_of(key), self.key_hash(key));
        let mut fate = self.fate(victim, handle, slot, whose);
        if let Fate::Move { target, must, .. } = fate
            && self.log.room(target) < length
            && !self.open_for_survivors(target, victim.place, must)
        {
            self.eviction.counts.forced += 1;
            fate = Fate::Drop { remembered: false };
        }
        match fate {
            Fate::Move { target, uses, must } => {
                let moved = self.log.relocate(handle, target, uses);
                let table = &mut self.slots[self.place.local(slot)].table;
                table.replace(hash, handle, moved);
                self.eviction.counts.moved_bytes += length as u64;
                self.eviction.in_vain += if must || victim.cleans { 0 } else { length };
                self.sweep.note(self.log.entry(moved).expires_at());
            }
            Fate::Drop { remembered } => {
                self.eviction.dropped += length;
                self.eviction.counts.evicted_bytes += length as u64;
                if self.eviction.dropped >= self.log.page_cost() {
                    (self.eviction.dropped, self.eviction.in_vain) = (0, 0);
                }
                if remembered {
                    self.remember(hash);
                }
                // Also of a replica: this node may act for its slot tomorrow, and a holder come back then with
                // what it had before.
                let clock = self.log.entry(handle).version().clock;
                self.header_mut(slot).forget(clock);
                self.part_with(slot, hash, handle, evicted);
            }
        }
    }

    fn remember(&mut self, hash: u64) {
        // Where the budget has no room for all of it, it grows as pages become free; where it has none
        // at all nothing is remembered.
        let mut keys = self.eviction.counted.keys;
        while keys > 0 {
            let growth = self.ghost.growth(keys);
            if growth == 0 || self.reserve_more(growth) {
                return self.ghost.insert(hash, keys);
            }
            keys /= 2;
        }
    }

    fn fate(&self, victim: &Victim, handle: Handle, slot: Slot, whose: Whose) -> Fate {
        let entry = self.log.entry(handle);
        let uses = entry.uses();
        let header = self.header(slot);
        if victim.cleans {
            let must = entry.is_tombstone() || !whose.are(header) || self.policy == Policy::Refuse;
            return Fate::Move { target: Target::Gathered(victim.queue), uses, must };
        }
        let stay = |queue| Fate::Move { target: Target::End(queue), uses, must: true };
        if entry.is_tombstone() {
            return stay(Queue::Tombstones);
        }
        if !whose.are(header) {
            let small = if victim.queue == Queue::Main { Queue::Main } else { Queue::Small };
            return stay(if header.acting { small } else { Queue::Replica });
        }
        if whose == Whose::Replicas || entry.is_expired(self.present()) {
            return Fate::Drop { remembered: false };
        }
        let spare = |uses| Fate::Move { target: Target::End(Queue::Main), uses, must: false };
        if victim.queue == Queue::Main {
            let unmoved = self.eviction.in_vain / (IN_VAIN_PAGES * self.log.page_cost());
            let spared = usize::from(uses) > unmoved;
            return if spared { spare(uses - 1) } else { Fate::Drop { remembered: false } };
        }
        if uses >= PROMOTING_USES { spare(0) } else { Fate::Drop { remembered: true } }
    }

    /// Opens a page for entries of the victim that are to stay, out of the reserve of the budget; if
    /// they `must` stay and that is used up, beyond it until the victim is free.
    fn open_for_survivors(&mut self, target: Target, place: usize, must: bool) -> bool {
        if !self.reserve_more(self.log.page_cost()) && !must {
            return false;
        }
        self.log.open(target, self.present(), Some(place));
        self.settle();
        true
    }

    /// Tells of an entry's going, and takes it away; a tombstone takes its place where that is
    /// asked for.
    pub(super) fn part_with(
        &mut self,
        slot: Slot,
        hash: u64,
        handle: Handle,
        told: &mut OnGone<'_>,
    ) {
        let record = self.log.entry(handle).record();
        let (key, version) = (record.key, record.version);
        let header = self.header(slot);
        match told(&Gone { slot, header, key, version }) {
            Remains::Nothing => self.take_away(slot, hash, handle),
            Remains::Tombstone => {
                let key = key.to_vec();
                self.take_away(slot, hash, handle);
                let body = BodyRef::Tombstone;
                let record = RecordRef { key: &key, version, expires_at: None, body };
                let shape = self.log.shape(&record);
                let header = &mut self.slots[self.place.local(slot)].header;
                header.add(&self.seeds.share(hash, &record), shape.charged());
                let target = Target::End(Queue::Tombstones);
                self.open_for(target, shape.len);
                let tombstone = self.log.append(target, &record, shape, 0);
                self.insert(slot, hash, tombstone);
            }
        }
    }
}

/// How long an entry of a shard lasts, in milliseconds, if nobody asks for it.
pub(super) fn age_of(shard: &Shard, now: WallMillis) -> Option<u64> {
    let (_, opened_at) = shard.log.oldest(Queue::Small)?;
    let last = shard.eviction.age;
    (last != NEVER).then(|| last.max(now.saturating_since(opened_at)))
}
