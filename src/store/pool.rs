//! Where the pages of all shards come from: slabs of many pages, each of which the allocator maps by
//! itself.
//!
//! Pages that stood among other allocations would leave holes between them: with requests of 100 KB on
//! their way a process had a third more than its budget. The memory of a slab is the system's until it
//! is written to. Where more than a slab is free shards move their pages out of the one of which they
//! have the fewest, and it goes back to the system: what was flushed, what expired, and what made room
//! for values that stand outside.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;

use crate::limits::STORE_SLAB;

/// A slab is left where so many quarters of one are free.
const LEAVING_QUARTERS: usize = 5;

/// The bytes of a page; none where there is no page.
#[derive(Debug, Default)]
pub(super) struct PageBytes {
    bytes: BytesMut,
    /// Which slab they are of.
    slab: usize,
}

impl PageBytes {
    /// Whether they are of this slab.
    pub(super) fn is_of(&self, slab: usize) -> bool {
        self.slab == slab && !self.bytes.is_empty()
    }
}

impl Deref for PageBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for PageBytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// One large allocation, as far as shards do not have it.
#[derive(Debug, Default)]
struct Slab {
    /// What no page was made of yet.
    rest: BytesMut,
    /// Pages that were given back.
    free: Vec<BytesMut>,
    /// Pages that shards have.
    taken: usize,
}

/// All slabs.
#[derive(Debug, Default)]
struct Slabs {
    all: Vec<Slab>,
    /// The one that shards leave: no page of it is taken.
    leaving: Option<usize>,
}

impl Slabs {
    /// The first slab that has a page.
    fn with_page(&self) -> Option<usize> {
        let has_page = |slab: &usize| self.leaving != Some(*slab) && self.all[*slab].has_page();
        (0..self.all.len()).find(has_page)
    }

    /// A place for one slab more.
    fn vacant(&mut self) -> usize {
        let is_vacant = |slab: &Slab| slab.taken == 0 && !slab.has_page();
        self.all.iter().position(is_vacant).unwrap_or_else(|| {
            self.all.push(Slab::default());
            self.all.len() - 1
        })
    }

    /// The slab with the fewest pages taken, if others have room for them and it is worth it.
    fn to_leave(&self, in_slab: usize) -> Option<usize> {
        let free: usize = self.all.iter().map(|slab| slab.free.len()).sum();
        let taken = self.all.iter().enumerate().filter(|(_, slab)| slab.taken > 0);
        let (index, slab) = taken.min_by_key(|(_, slab)| slab.taken)?;
        let elsewhere = free - slab.free.len();
        let is_worth_it = free * 4 >= in_slab * LEAVING_QUARTERS && elsewhere >= slab.taken;
        is_worth_it.then_some(index)
    }
}

impl Slab {
    fn has_page(&self) -> bool {
        !self.free.is_empty() || !self.rest.is_empty()
    }

    fn take(&mut self, page_size: usize) -> BytesMut {
        self.taken += 1;
        self.free.pop().unwrap_or_else(|| self.rest.split_to(page_size))
    }
}

/// Pages for all shards of a store.
#[derive(Debug)]
pub(super) struct PagePool {
    page_size: usize,
    slabs: Mutex<Slabs>,
}

impl PagePool {
    pub(super) fn new(page_size: usize) -> Self {
        Self { page_size, slabs: Mutex::default() }
    }

    /// Bytes of a page.
    pub(super) const fn page_size(&self) -> usize {
        self.page_size
    }

    /// A page; what it holds is of no meaning.
    pub(super) fn take(&self) -> PageBytes {
        let mut slabs = self.lock();
        let slab = slabs.with_page().unwrap_or_else(|| {
            let slab = slabs.vacant();
            slabs.all[slab].rest = BytesMut::zeroed(self.in_slab() * self.page_size);
            slab
        });
        PageBytes { bytes: slabs.all[slab].take(self.page_size), slab }
    }

    pub(super) fn give_back(&self, page: PageBytes) {
        let slab = &mut self.lock().all[page.slab];
        slab.taken -= 1;
        slab.free.push(page.bytes);
    }

    /// The slab that shards leave, if there is one that is worth it.
    pub(super) fn leaving(&self) -> Option<usize> {
        let mut slabs = self.lock();
        if slabs.leaving.is_none() {
            slabs.leaving = slabs.to_leave(self.in_slab());
        }
        slabs.leaving
    }

    /// Gives slabs of which no shard has a page back to the system. It takes milliseconds for each: no
    /// lock may be held.
    pub(super) fn release(&self) {
        let mut slabs = self.lock();
        let is_empty = |slab: &&mut Slab| slab.taken == 0 && slab.has_page();
        let empty: Vec<Slab> = slabs.all.iter_mut().filter(is_empty).map(std::mem::take).collect();
        slabs.leaving = slabs.leaving.filter(|slab| slabs.all[*slab].taken > 0);
        drop(slabs);
        drop(empty);
    }

    /// How many slabs have memory.
    #[cfg(test)]
    pub(super) fn slabs(&self) -> usize {
        self.lock().all.iter().filter(|slab| slab.taken > 0 || slab.has_page()).count()
    }

    /// Pages in a slab.
    const fn in_slab(&self) -> usize {
        STORE_SLAB / self.page_size
    }

    fn lock(&self) -> MutexGuard<'_, Slabs> {
        self.slabs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 64 * 1024;

    fn slabs(pool: &PagePool) -> Vec<bool> {
        pool.lock().all.iter().map(Slab::has_page).collect()
    }

    #[test]
    fn a_slab_with_few_pages_is_left() {
        let pool = PagePool::new(PAGE);
        let in_slab = STORE_SLAB / PAGE;
        let mut pages: Vec<_> = (0..3 * in_slab).map(|_| pool.take()).collect();
        assert_eq!(pool.leaving(), None);
        let mut rest = pages.split_off(in_slab * 2);
        rest.drain(9..).for_each(|page| pool.give_back(page));
        assert_eq!(pool.leaving(), None, "less than is worth it");
        pages.drain(in_slab / 2..in_slab).for_each(|page| pool.give_back(page));
        assert_eq!(pool.leaving(), Some(2));
        for page in rest {
            assert!(page.is_of(2));
            let place = pool.take();
            assert!(place.is_of(0));
            pages.push(place);
            pool.give_back(page);
        }
        pool.release();
        assert_eq!(slabs(&pool), [true, false, false]);
        assert_eq!(pool.leaving(), None);
        for page in pages {
            pool.give_back(page);
        }
        pool.release();
        assert_eq!(slabs(&pool), [false; 3]);
    }

    #[test]
    fn pages_are_taken_again_and_empty_slabs_go() {
        let pool = PagePool::new(PAGE);
        let in_slab = STORE_SLAB / PAGE;
        let mut pages: Vec<_> = (0..=in_slab).map(|_| pool.take()).collect();
        assert!(pages.iter().all(|page| page.len() == PAGE));
        assert_eq!(slabs(&pool), [false, true]);
        let mut last = pages.pop().unwrap();
        last[0] = 9;
        pool.give_back(last);
        pool.give_back(pages.pop().unwrap());
        assert_eq!(slabs(&pool), [true, true]);
        pages.push(pool.take());
        assert_eq!(slabs(&pool), [false, true], "the first slab's");
        pool.release();
        assert_eq!(slabs(&pool), [false, false]);
        let fresh = pool.take();
        assert_eq!((fresh[0], fresh.slab), (0, 1));
        pool.give_back(fresh);
        for page in pages {
            pool.give_back(page);
        }
        pool.release();
        assert_eq!(slabs(&pool), [false, false]);
    }
}
