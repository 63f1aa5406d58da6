//! Where entries live: pages of one size, each a log that entries are appended to.
//!
//! ```text
//!   small       ▢▢▢▢▣      acted-for entries that came lately      the last page of a queue is
//!   main        ▢▢▢▢▢▢▢▣   acted-for entries that were used        open: it takes what comes next
//!   replica     ▢▢▢▢▢▣     entries another node acts for
//!   tombstones  ▢▣         never evicted
//! ```
//!
//! An entry is named by its page and offset, and nothing but its slot's table points at it, so that
//! any entry may be moved by changing one number. Where an entry dies a dead stretch remains until
//! its page is freed: because all in it are dead, or because the eviction or the cleaner walked it
//! and moved what is to stay.

use std::collections::VecDeque;
use std::sync::Arc;

use super::entry::{self, EntryRef, Numbers, Shape};
use super::outside::Outside;
use super::slabs::{Extent, SlabPool};
use super::stamps::{Stamp, Stamps};
use super::table::NEVER;
use crate::types::{RecordRef, WallMillis};

/// An entry takes at most this part of its page; what is larger stands outside.
const INSIDE_PART: usize = 8;
/// Bits of a handle for the place within a page.
const OFFSET_BITS: u32 = 16;
/// The most pages of a shard.
const PAGES_MAX: usize = 1 << (u32::BITS - OFFSET_BITS);
/// Pages kept for what is to stay of others and for what other nodes send.
const PAGES_MARGIN: usize = 4096;

/// Names an entry of a shard: its page and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Handle(pub(super) u32);

impl Handle {
    fn new(page: u16, offset: usize) -> Self {
        Self(u32::from(page) << OFFSET_BITS | u32::try_from(offset).unwrap_or_default())
    }

    /// The number of its page.
    pub(super) const fn page(self) -> u16 {
        (self.0 >> OFFSET_BITS) as u16
    }

    const fn offset(self) -> usize {
        (self.0 & ((1 << OFFSET_BITS) - 1)) as usize
    }
}

/// The order in which pages are emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// Acted-for entries that came lately: S3-FIFO's small queue.
    Small,
    /// Acted-for entries that were used or came back: its main queue.
    Main,
    /// Entries of slots that another node acts for. They go when it says so.
    Replica,
    /// Tombstones. They go when every holder has seen them.
    Tombstones,
}

impl Queue {
    const fn index(self) -> usize {
        self as usize
    }
}

/// Where an entry is appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The end of a queue.
    End(Queue),
    /// The page in which the cleaner gathers what is left of a queue's hollow pages. It stands
    /// where the first of these stood.
    Gathered(Queue),
}

impl Target {
    const fn queue(self) -> Queue {
        match self {
            Self::End(queue) | Self::Gathered(queue) => queue,
        }
    }
}

/// A page and what is known of it.
#[derive(Debug)]
struct Page {
    /// Empty where the number is vacant.
    bytes: Extent,
    queue: Queue,
    /// Whether entries are still appended.
    is_open: bool,
    /// Bytes that entries were appended to.
    used: usize,
    /// Bytes of live entries.
    live: usize,
    /// Wall milliseconds from which a look for expired entries is worth its cost.
    scan_from: u64,
    /// At most the lowest clock of a tombstone here.
    oldest: u64,
    /// Wall milliseconds of the shard's clock when it was opened.
    opened_at: u64,
    /// Another one for each page that was ever opened.
    serial: u64,
}

/// The pages of a shard.
#[derive(Debug)]
pub(super) struct Log {
    pool: Arc<SlabPool>,
    pages: Vec<Page>,
    /// Numbers that have no page.
    vacant: Vec<u16>,
    queues: [VecDeque<u16>; 4],
    open: [Option<u16>; 4],
    gathered: [Option<u16>; 4],
    /// Bytes of live entries by queue, those outside included.
    weight: [usize; 4],
    /// Bytes without a live entry in pages that are not open.
    dead: usize,
    in_use: usize,
    opened: u64,
    outside: Outside,
    stamps: Stamps,
}

impl Log {
    pub(super) fn new(pool: Arc<SlabPool>) -> Self {
        let outside = Outside::new(Arc::clone(&pool));
        Self {
            pool,
            pages: Vec::new(),
            vacant: Vec::new(),
            queues: [const { VecDeque::new() }; 4],
            open: [None; 4],
            gathered: [None; 4],
            weight: [0; 4],
            dead: 0,
            in_use: 0,
            opened: 0,
            outside,
            stamps: Stamps::default(),
        }
    }

    /// Bytes charged for a page.
    pub(super) fn page_cost(&self) -> usize {
        self.pool.page_size() + size_of::<Page>()
    }

    /// Bytes charged: pages, and what stands outside.
    pub(super) fn bytes(&self) -> usize {
        self.in_use * self.page_cost() + self.outside.bytes()
    }

    /// Bytes of dead entries and of unused ends in pages that are not open.
    pub(super) const fn dead(&self) -> usize {
        self.dead
    }

    /// Bytes of pages that hold entries.
    pub(super) fn size(&self) -> usize {
        self.in_use * self.pool.page_size()
    }

    /// Bytes of live entries in a queue, those outside included.
    pub(super) const fn weight(&self, queue: Queue) -> usize {
        self.weight[queue.index()]
    }

    /// The pages of a queue.
    pub(super) fn pages_of(&self, queue: Queue) -> usize {
        self.queues[queue.index()].len()
    }

    /// Whether entries of so many bytes stand in pages.
    pub(super) fn is_inside(&self, bytes: usize) -> bool {
        bytes <= self.pool.page_size() / INSIDE_PART
    }

    /// Whether the shard may have no more pages: an entry is named by four bytes.
    pub(super) const fn is_full(&self) -> bool {
        self.in_use + PAGES_MARGIN >= PAGES_MAX
    }

    /// The shape of a record in pages of this size.
    pub(super) fn shape(&self, record: &RecordRef<'_>) -> Shape {
        let numbered = self.stamps.fits(Stamp::of(record.version));
        Shape::of(record, self.pool.page_size() / INSIDE_PART, numbered)
    }

    /// The entry of a handle.
    pub(super) fn entry(&self, handle: Handle) -> EntryRef<'_> {
        let bytes = &self.pages[usize::from(handle.page())].bytes[handle.offset()..];
        let outside = entry::outside_number(bytes).map(|number| self.outside.get(number));
        EntryRef::new(bytes, outside, &self.stamps)
    }

    fn bytes_mut(&mut self, handle: Handle) -> &mut [u8] {
        &mut self.pages[usize::from(handle.page())].bytes[handle.offset()..]
    }

    /// The queue in which an entry stands.
    pub(super) fn queue_of(&self, handle: Handle) -> Queue {
        self.queue_of_page(handle.page())
    }

    /// The queue of a page.
    pub(super) fn queue_of_page(&self, number: u16) -> Queue {
        self.pages[usize::from(number)].queue
    }

    /// Counts a use.
    pub(super) fn touch(&mut self, handle: Handle) {
        entry::touch(self.bytes_mut(handle));
    }

    /// Writes another record that is no longer over an entry, and counts a use.
    pub(super) fn overwrite(&mut self, handle: Handle, record: &RecordRef<'_>, shape: Shape) {
        self.note(handle.page(), record.expires_at, record.version.clock);
        let old = entry::stamp_number(self.bytes_mut(handle));
        let stamp = Stamp::of(record.version);
        let kept = old.filter(|number| self.stamps.get(*number) == stamp);
        let number = kept.unwrap_or_else(|| self.number(stamp, shape));
        let bytes = self.bytes_mut(handle);
        let uses = entry::uses(bytes) + 1;
        shape.write(bytes, record, uses, Numbers { stamp: number, outside: 0 });
        if let Some(old) = old.filter(|_| kept.is_none()) {
            self.stamps.give_back(old);
        }
    }

    /// Writes a shorter record over an entry, and counts a use. What it takes less is dead.
    pub(super) fn shrink(&mut self, handle: Handle, record: &RecordRef<'_>, shape: Shape) {
        let left = entry::len(self.bytes_mut(handle)) - shape.len;
        self.overwrite(handle, record, shape);
        entry::bury(&mut self.bytes_mut(handle)[shape.len..], left);
        self.weight[self.queue_of(handle).index()] -= left;
        self.lose(handle.page(), left);
    }

    /// The number of a stamp for one more entry of this shape; 0 if it needs none.
    fn number(&mut self, stamp: Stamp, shape: Shape) -> u16 {
        let number = if shape.is_numbered() { self.stamps.take(stamp) } else { Some(0) };
        number.expect("BUG: a shape has a number that no stamp has")
    }

    /// Lowers what a page tells the sweeps, so that they do not pass over an entry.
    fn note(&mut self, page: u16, expires_at: Option<WallMillis>, clock: u64) {
        let page = &mut self.pages[usize::from(page)];
        if let Some(WallMillis(expiry)) = expires_at {
            page.scan_from = page.scan_from.min(expiry);
        }
        if page.queue == Queue::Tombstones {
            page.oldest = page.oldest.min(clock);
        }
    }

    const fn open_page(&self, target: Target) -> Option<u16> {
        match target {
            Target::End(queue) => self.open[queue.index()],
            Target::Gathered(queue) => self.gathered[queue.index()],
        }
    }

    /// Bytes that can be appended before a page must be opened.
    pub(super) fn room(&self, target: Target) -> usize {
        self.open_page(target)
            .map_or(0, |page| self.pool.page_size() - self.pages[usize::from(page)].used)
    }

    /// Opens a page, in the place of the one that was. `before` is the page whose place in the order
    /// a gathered one takes.
    pub(super) fn open(&mut self, target: Target, now: WallMillis, before: Option<usize>) {
        if let Some(closed) = self.close(target) {
            self.free_if_empty(closed);
        }
        let queue = target.queue();
        let bytes = self.pool.take_page();
        let page = Page {
            bytes,
            queue,
            is_open: true,
            used: 0,
            live: 0,
            scan_from: NEVER,
            oldest: NEVER,
            opened_at: now.0,
            serial: self.opened,
        };
        self.opened += 1;
        let number = self.vacant.pop().unwrap_or_else(|| {
            assert!(self.pages.len() < PAGES_MAX, "BUG: a shard has more than 4 GiB of entries");
            u16::try_from(self.pages.len()).unwrap_or(u16::MAX)
        });
        match self.pages.get_mut(usize::from(number)) {
            Some(vacant) => *vacant = page,
            None => self.pages.push(page),
        }
        self.in_use += 1;
        let order = &mut self.queues[queue.index()];
        match target {
            Target::End(_) => {
                self.open[queue.index()] = Some(number);
                order.push_back(number);
            }
            Target::Gathered(_) => {
                self.gathered[queue.index()] = Some(number);
                order.insert(before.unwrap_or(0).min(order.len()), number);
            }
        }
    }

    /// Takes no more entries in at a target; gives the page that was open.
    fn close(&mut self, target: Target) -> Option<u16> {
        let number = match target {
            Target::End(queue) => self.open[queue.index()].take(),
            Target::Gathered(queue) => self.gathered[queue.index()].take(),
        }?;
        let page = &mut self.pages[usize::from(number)];
        page.is_open = false;
        self.dead += self.pool.page_size() - page.live;
        Some(number)
    }

    /// Appends a record. There must be room.
    pub(super) fn append(
        &mut self,
        target: Target,
        record: &RecordRef<'_>,
        shape: Shape,
        uses: u8,
    ) -> Handle {
        let outside = if shape.is_outside() { self.outside.add(record) } else { 0 };
        self.append_with(target, record, shape, uses, outside)
    }

    /// Appends a record that takes over what stands outside from the entry before: an expiry of a
    /// value of megabytes needs no copy of it. There must be room.
    pub(super) fn append_heir(
        &mut self,
        target: Target,
        record: &RecordRef<'_>,
        shape: Shape,
        uses: u8,
        of: Handle,
    ) -> Handle {
        let number = entry::outside_number(self.bytes_mut(of));
        let number = number.expect("BUG: there is nothing to take over");
        self.weight[self.queue_of(of).index()] -= shape.outside_bytes();
        entry::disown(self.bytes_mut(of));
        self.append_with(target, record, shape, uses, number)
    }

    fn append_with(
        &mut self,
        target: Target,
        record: &RecordRef<'_>,
        shape: Shape,
        uses: u8,
        outside: u32,
    ) -> Handle {
        let stamp = self.number(Stamp::of(record.version), shape);
        let handle = self.extend(target, shape.len);
        self.weight[target.queue().index()] += shape.charged();
        shape.write(self.bytes_mut(handle), record, uses, Numbers { stamp, outside });
        self.note(handle.page(), record.expires_at, record.version.clock);
        handle
    }

    /// Takes the next bytes of the open page of a target.
    fn extend(&mut self, target: Target, length: usize) -> Handle {
        let number = self.open_page(target).expect("there is room: a page is open");
        let page = &mut self.pages[usize::from(number)];
        let handle = Handle::new(number, page.used);
        page.used += length;
        page.live += length;
        handle
    }

    /// Moves an entry to another page. There must be room; its old place is dead.
    pub(super) fn relocate(&mut self, from: Handle, target: Target, uses: u8) -> Handle {
        let (length, weight) = (self.entry(from).len(), self.entry(from).charged());
        self.weight[self.queue_of(from).index()] -= weight;
        self.weight[target.queue().index()] += weight;
        let to = self.extend(target, length);
        let places = [from, to].map(|handle| usize::from(handle.page()));
        let [source, place] =
            self.pages.get_disjoint_mut(places).expect("an entry moves to another page");
        let bytes = &mut place.bytes[to.offset()..];
        bytes[..length].copy_from_slice(&source.bytes[from.offset()..from.offset() + length]);
        entry::set_uses(bytes, uses);
        let source = &mut source.bytes[from.offset()..];
        entry::kill(source);
        self.lose(from.page(), length);
        let (expires_at, clock) = {
            let entry = self.entry(to);
            (entry.expires_at(), entry.version().clock)
        };
        self.note(to.page(), expires_at, clock);
        to
    }

    /// An entry is dead: its bytes are lost until its page goes.
    pub(super) fn kill(&mut self, handle: Handle) {
        self.weight[self.queue_of(handle).index()] -= self.entry(handle).charged();
        let bytes = self.bytes_mut(handle);
        let (outside, stamp) = (entry::outside_number(bytes), entry::stamp_number(bytes));
        let length = entry::len(bytes);
        entry::kill(bytes);
        if let Some(number) = stamp {
            self.stamps.give_back(number);
        }
        if let Some(number) = outside {
            self.outside.remove(number);
        }
        self.lose(handle.page(), length);
    }

    fn lose(&mut self, number: u16, length: usize) {
        let page = &mut self.pages[usize::from(number)];
        page.live -= length;
        if !page.is_open {
            self.dead += length;
        }
        self.free_if_empty(number);
    }

    /// Frees a page that is not open and has no live entry. One that is being emptied is freed by
    /// whoever empties it: it is in no queue any more.
    fn free_if_empty(&mut self, number: u16) {
        let page = &self.pages[usize::from(number)];
        if page.is_open || page.live > 0 {
            return;
        }
        let order = &mut self.queues[page.queue.index()];
        if let Some(at) = order.iter().position(|queued| *queued == number) {
            order.remove(at);
            self.vacate(number);
        }
    }

    /// Takes a page out of its queue, to be emptied; it takes no entries any more. Gives its place
    /// in the order.
    pub(super) fn take_out(&mut self, number: u16) -> usize {
        let queue = self.pages[usize::from(number)].queue;
        for target in [Target::End(queue), Target::Gathered(queue)] {
            if self.open_page(target) == Some(number) {
                self.close(target);
            }
        }
        let order = &mut self.queues[queue.index()];
        let at = order.iter().position(|queued| *queued == number);
        if let Some(at) = at {
            order.remove(at);
        }
        at.unwrap_or(0)
    }

    /// Frees a page that was taken out and has no live entry left.
    pub(super) fn free(&mut self, number: u16) {
        debug_assert_eq!(self.pages[usize::from(number)].live, 0, "BUG: a page has entries left");
        self.vacate(number);
    }

    fn vacate(&mut self, number: u16) {
        let page = &mut self.pages[usize::from(number)];
        let bytes = std::mem::take(&mut page.bytes);
        page.used = 0;
        page.scan_from = NEVER;
        page.oldest = NEVER;
        self.dead -= self.pool.page_size();
        self.in_use -= 1;
        self.vacant.push(number);
        self.pool.give_back(bytes);
    }

    /// Moves pages and what stands outside, about so many bytes, out of a slab that is to be left.
    pub(super) fn leave_slab(&mut self, slab: u32, limit: usize) {
        let pages = self.pages.iter_mut().map(|page| &mut page.bytes);
        let leaving = pages.chain(self.outside.extents_mut()).filter(|extent| extent.is_of(slab));
        let mut moved = 0;
        for extent in leaving {
            if moved >= limit {
                return;
            }
            moved += extent.len();
            let mut place = self.pool.take(extent.len());
            place.copy_from_slice(extent);
            self.pool.give_back(std::mem::replace(extent, place));
        }
    }

    /// The oldest page of a queue, and when it was opened.
    pub(super) fn oldest(&self, queue: Queue) -> Option<(u16, WallMillis)> {
        let number = *self.queues[queue.index()].front()?;
        Some((number, WallMillis(self.pages[usize::from(number)].opened_at)))
    }

    /// Of the pages that are not open the one with the fewest live bytes.
    pub(super) fn hollowest(&self) -> Option<(u16, usize)> {
        let numbers = self.queues.iter().flatten();
        numbers
            .map(|number| (*number, &self.pages[usize::from(*number)]))
            .filter(|(_, page)| !page.is_open)
            .map(|(number, page)| (number, page.live))
            .min_by_key(|(_, live)| *live)
    }

    /// Bytes of live entries of a page.
    pub(super) fn live(&self, number: u16) -> usize {
        self.pages[usize::from(number)].live
    }

    /// The next live entry of a page from a place on; the place moves behind it.
    pub(super) fn next_entry(&self, number: u16, at: &mut usize) -> Option<Handle> {
        let page = &self.pages[usize::from(number)];
        while *at < page.used {
            let offset = *at;
            let bytes = &page.bytes[offset..];
            *at += entry::len(bytes);
            if !entry::is_dead(bytes) {
                return Some(Handle::new(number, offset));
            }
        }
        None
    }

    /// The numbers of the pages that may have expired entries, and when the next will have some. The one
    /// that was taken out of its queue is among them.
    pub(super) fn due(&self, now: WallMillis, taken_out: Option<u16>) -> (Vec<u16>, u64) {
        let (mut due, mut next) = (Vec::new(), NEVER);
        for number in self.queues.iter().flatten().chain(&taken_out) {
            let scan_from = self.pages[usize::from(*number)].scan_from;
            if scan_from <= now.0 {
                due.push(*number);
            } else {
                next = next.min(scan_from);
            }
        }
        (due, next)
    }

    /// What tells a page from others of the same number.
    pub(super) fn serial(&self, number: u16) -> Option<u64> {
        let page = self.pages.get(usize::from(number)).filter(|page| !page.bytes.is_empty());
        page.map(|page| page.serial)
    }

    /// Sets from when a look for expired entries is worth its cost.
    pub(super) fn set_scan_from(&mut self, number: u16, scan_from: u64) {
        self.pages[usize::from(number)].scan_from = scan_from;
    }

    /// When a look for expired entries is due.
    pub(super) fn scan_from(&self, number: u16) -> u64 {
        self.pages.get(usize::from(number)).map_or(NEVER, |page| page.scan_from)
    }

    /// The pages of tombstones of which one may have a clock below `bound`.
    pub(super) fn with_tombstones_below(&self, bound: u64) -> Vec<u16> {
        let order = &self.queues[Queue::Tombstones.index()];
        let old = |number: &&u16| self.pages[usize::from(**number)].oldest < bound;
        order.iter().filter(old).copied().collect()
    }

    /// Sets the lowest clock of a page's tombstones.
    pub(super) fn set_oldest(&mut self, number: u16, oldest: u64) {
        if let Some(page) = self.pages.get_mut(usize::from(number)) {
            page.oldest = oldest;
        }
    }

    /// All pages, to be given back, and all outside values, to be freed, one by one.
    pub(super) fn into_parts(self) -> (Vec<Extent>, Vec<Extent>) {
        let pages = self.pages.into_iter().map(|page| page.bytes).filter(|page| !page.is_empty());
        (pages.collect(), self.outside.into_values())
    }

    /// Recounts every sum, and gives the number of live entries.
    #[cfg(test)]
    pub(super) fn check(&self, taken_out: Option<u16>) -> usize {
        let (mut weight, mut dead, mut entries, mut outside) = ([0; 4], 0, 0, 0);
        let mut stamped = std::collections::BTreeMap::<_, u32>::new();
        for number in self.queues.iter().flatten().chain(&taken_out) {
            let page = &self.pages[usize::from(*number)];
            let (mut at, mut bytes) = (0, 0);
            while let Some(handle) = self.next_entry(*number, &mut at) {
                let raw = &page.bytes[handle.offset()..];
                bytes += entry::len(raw);
                outside += usize::from(entry::outside_number(raw).is_some());
                *stamped.entry(entry::stamp_number(raw)).or_default() += 1;
                entries += 1;
                weight[page.queue.index()] += self.entry(handle).charged();
                assert!(self.entry(handle).expires_at().is_none() || page.scan_from != NEVER);
            }
            assert_eq!(at, page.used);
            assert_eq!(bytes, page.live);
            assert!(page.is_open || page.live > 0 || taken_out == Some(*number));
            dead += if page.is_open { 0 } else { self.pool.page_size() - bytes };
        }
        assert_eq!((weight, dead, outside), (self.weight, self.dead, self.outside.count()));
        for (number, count) in self.stamps.counts() {
            assert_eq!(stamped.get(&Some(number)).copied().unwrap_or(0), count);
        }
        let queued = self.queues.iter().map(VecDeque::len).sum::<usize>();
        assert_eq!(queued + usize::from(taken_out.is_some()), self.in_use);
        entries
    }
}
