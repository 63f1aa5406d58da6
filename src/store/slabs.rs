//! Where pages and large values come from: extents of slabs, each of which the allocator maps by itself.
//!
//! ```text
//!   slab 0   ▓▓▓▓░░▓▓▓░▓▓▓▓▓▓▓▓░░░▓▓      ▓ extents in use   ░ blocks of free bytes
//!   slab 1   ▓▓▓▓▓▓░░░░░░░░░░░░░░░░░
//! ```
//!
//! What comes and goes among other allocations leaves holes between them that nobody else gets: with
//! requests of 100 KB on their way a process had a third more than its budget, and twice as much after a load
//! of large values was followed by one of small ones. Here the shortest block that is long enough is taken,
//! free neighbours become one, and where much is free in all a slab is *left*: what is in it moves to blocks
//! of others, or to a fresh one where it stands close, and its memory goes back to the system. What was
//! never written takes none.
//!
//! What is larger than a sixteenth of a slab stands alone, because a move of it would hold a lock too long: in
//! an allocation as large as a slab at least, so that this too is mapped by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;

use crate::limits::STORE_SLAB;

/// Lengths are multiples of this.
const UNIT: usize = 32;
/// What takes more than one part in this many of a slab stands alone.
const ALONE_PART: usize = 16;
/// The slab of what stands alone.
const ALONE: u32 = u32::MAX;
/// Bytes of a page of the system.
const SYSTEM_PAGE: usize = 4096;
/// A slab is left where so many quarters of one are free…
const LEAVING_QUARTERS: usize = 5;
/// … and one part in so many of all slabs besides.
const LEAVING_PART: usize = 16;
/// Slabs that are looked at for one that can be left.
const CANDIDATES: usize = 4;

/// The bytes that an extent for `bytes` takes from the system.
pub(super) const fn extent_len(bytes: usize) -> usize {
    bytes.next_multiple_of(if stands_alone(bytes) { SYSTEM_PAGE } else { UNIT })
}

const fn stands_alone(bytes: usize) -> bool {
    bytes > STORE_SLAB / ALONE_PART
}

/// Some bytes of a slab; of none if it is empty.
#[derive(Debug, Default)]
pub(super) struct Extent {
    bytes: BytesMut,
    slab: u32,
    at: u32,
}

impl Extent {
    /// Whether it is of this slab.
    pub(super) fn is_of(&self, slab: u32) -> bool {
        self.slab == slab && !self.bytes.is_empty()
    }
}

impl Deref for Extent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Extent {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// One large allocation, as far as nobody has it.
#[derive(Debug, Default)]
struct Slab {
    /// Blocks by where they stand; no two of them touch.
    free: BTreeMap<u32, BytesMut>,
    /// Extents in use, and their bytes.
    extents: usize,
    taken: usize,
}

impl Slab {
    /// Whether there is a slab at all.
    fn has_memory(&self) -> bool {
        self.extents > 0 || !self.free.is_empty()
    }

    /// Whether the free bytes lie about. What moves to a fresh slab stands close there.
    fn is_scattered(&self) -> bool {
        let longest = self.free.values().map(BytesMut::len).max().unwrap_or(0);
        longest < (STORE_SLAB - self.taken) / 2
    }
}

/// A block of free bytes: its length, slab and place.
type Block = (usize, u32, u32);

/// All slabs.
#[derive(Debug, Default)]
struct Slabs {
    all: Vec<Slab>,
    /// The blocks that may be taken, shortest first.
    blocks: BTreeSet<Block>,
    /// The slab that is being left: no block of it is taken.
    leaving: Option<u32>,
}

impl Slabs {
    fn slab(&mut self, index: u32) -> &mut Slab {
        &mut self.all[index as usize]
    }

    /// One slab more.
    fn add(&mut self) -> Block {
        let vacant = self.all.iter().position(|slab| !slab.has_memory()).unwrap_or_else(|| {
            self.all.push(Slab::default());
            self.all.len() - 1
        });
        self.all[vacant].free.insert(0, BytesMut::zeroed(STORE_SLAB));
        (STORE_SLAB, narrow(vacant), 0)
    }

    fn take(&mut self, length: usize) -> Extent {
        let fitting = self.blocks.range((length, 0, 0)..).next().copied();
        let block = fitting.unwrap_or_else(|| self.add());
        self.blocks.remove(&block);
        let (available, index, at) = block;
        let slab = self.slab(index);
        slab.extents += 1;
        slab.taken += length;
        let mut rest = slab.free.remove(&at).expect("BUG: a block is in no slab");
        let bytes = rest.split_to(length);
        if available > length {
            let behind = at + narrow(length);
            slab.free.insert(behind, rest);
            self.blocks.insert((available - length, index, behind));
        }
        Extent { bytes, slab: index, at }
    }

    fn give_back(&mut self, extent: Extent) {
        let Extent { mut bytes, slab: index, mut at } = extent;
        let Self { all, blocks, leaving } = self;
        let slab = &mut all[index as usize];
        slab.extents -= 1;
        slab.taken -= bytes.len();
        if let Some((before, block)) = slab.free.range(..at).next_back()
            && before + narrow(block.len()) == at
        {
            let before = *before;
            let mut block = slab.free.remove(&before).unwrap_or_default();
            blocks.remove(&(block.len(), index, before));
            block.unsplit(bytes);
            (bytes, at) = (block, before);
        }
        let end = at + narrow(bytes.len());
        if let Some(block) = slab.free.remove(&end) {
            blocks.remove(&(block.len(), index, end));
            bytes.unsplit(block);
        }
        if *leaving != Some(index) {
            blocks.insert((bytes.len(), index, at));
        }
        slab.free.insert(at, bytes);
    }

    /// Chooses a slab to be left, if enough is free for it to be worth it.
    fn choose(&mut self) {
        let slabs = self.all.iter().filter(|slab| slab.has_memory()).count();
        let taken: usize = self.all.iter().map(|slab| slab.taken).sum();
        let tolerated = STORE_SLAB * LEAVING_QUARTERS / 4 + slabs * STORE_SLAB / LEAVING_PART;
        if slabs * STORE_SLAB < taken + tolerated {
            return;
        }
        let in_use = (0..).zip(&self.all).filter(|(_, slab)| slab.extents > 0);
        let mut candidates: Vec<_> = in_use.collect();
        candidates.sort_unstable_by_key(|(_, slab)| slab.taken);
        let mut candidates = candidates.into_iter().take(CANDIDATES);
        let Some((index, slab)) = candidates.find(|(index, slab)| self.can_leave(*index, slab))
        else {
            return;
        };
        for (at, block) in &slab.free {
            self.blocks.remove(&(block.len(), index, *at));
        }
        self.leaving = Some(index);
    }

    /// Whether others have the room for what is in a slab, or there is something to win without it.
    fn can_leave(&self, index: u32, slab: &Slab) -> bool {
        if slab.is_scattered() {
            return true;
        }
        // Of what is as long as an extent and a bit a part remains in each block.
        let mean = slab.taken / slab.extents;
        let blocks = self.blocks.iter().rev().take_while(|(length, ..)| *length >= mean);
        let mut elsewhere = 0;
        blocks.filter(|(_, of, _)| *of != index).any(|(length, ..)| {
            elsewhere += length / mean * mean;
            elsewhere >= slab.taken
        })
    }

    /// Takes out what no extent is of.
    fn take_empty(&mut self) -> Vec<Slab> {
        let Self { all, blocks, leaving } = self;
        let mut empty = Vec::new();
        for (index, slab) in (0..).zip(all) {
            if slab.extents == 0 && slab.has_memory() {
                blocks.remove(&(STORE_SLAB, index, 0));
                *leaving = leaving.filter(|of| *of != index);
                empty.push(std::mem::take(slab));
            }
        }
        empty
    }
}

/// A place or a number of slabs in four bytes.
fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Where all shards of a store take memory from.
#[derive(Debug)]
pub(super) struct SlabPool {
    page_size: usize,
    slabs: Mutex<Slabs>,
}

impl SlabPool {
    pub(super) fn new(page_size: usize) -> Self {
        Self { page_size, slabs: Mutex::default() }
    }

    /// Bytes of a page.
    pub(super) const fn page_size(&self) -> usize {
        self.page_size
    }

    /// A page; what it holds is of no meaning.
    pub(super) fn take_page(&self) -> Extent {
        self.take(self.page_size)
    }

    /// An extent of [`extent_len`] bytes; what it holds is of no meaning.
    pub(super) fn take(&self, bytes: usize) -> Extent {
        let length = extent_len(bytes);
        if stands_alone(bytes) {
            let bytes = BytesMut::zeroed(length.max(STORE_SLAB)).split_to(length);
            return Extent { bytes, slab: ALONE, at: 0 };
        }
        self.lock().take(length)
    }

    pub(super) fn give_back(&self, extent: Extent) {
        if extent.slab != ALONE && !extent.bytes.is_empty() {
            self.lock().give_back(extent);
        }
    }

    /// The slab that shards leave, if there is one that is worth it.
    pub(super) fn leaving(&self) -> Option<u32> {
        let mut slabs = self.lock();
        if slabs.leaving.is_none() {
            slabs.choose();
        }
        slabs.leaving
    }

    /// Gives slabs of which nobody has an extent back to the system. It takes milliseconds for each: no
    /// other lock may be held.
    pub(super) fn release(&self) {
        let empty = self.lock().take_empty();
        drop(empty);
    }

    /// How many slabs have memory.
    #[cfg(test)]
    pub(super) fn slabs(&self) -> usize {
        self.lock().all.iter().filter(|slab| slab.has_memory()).count()
    }

    fn lock(&self) -> MutexGuard<'_, Slabs> {
        self.slabs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: usize = 64 * 1024;

    impl SlabPool {
        /// Recounts everything, and gives what is taken.
        fn check(&self) -> usize {
            let slabs = self.lock();
            let mut blocks = BTreeSet::new();
            for (index, slab) in (0..).zip(&slabs.all) {
                let free: usize = slab.free.values().map(BytesMut::len).sum();
                assert_eq!(free + slab.taken, if slab.has_memory() { STORE_SLAB } else { 0 });
                let ends = slab.free.iter().map(|(at, block)| at + narrow(block.len()));
                assert!(ends.zip(slab.free.keys().skip(1)).all(|(end, next)| end < *next));
                let of_slab = slab.free.iter().map(|(at, block)| (block.len(), index, *at));
                blocks.extend(of_slab.filter(|_| slabs.leaving != Some(index)));
            }
            assert_eq!(blocks, slabs.blocks);
            slabs.all.iter().map(|slab| slab.taken).sum()
        }

        /// Leaves slabs as shards do, as long as that is worth it. Gives how many were left.
        fn leave(&self, extents: &mut [Extent]) -> usize {
            let mut left = 0;
            while let Some(slab) = self.leaving() {
                for extent in extents.iter_mut().filter(|extent| extent.is_of(slab)) {
                    let mut place = self.take(extent.len());
                    assert!(!place.is_of(slab));
                    place.copy_from_slice(extent);
                    self.give_back(std::mem::replace(extent, place));
                }
                self.check();
                self.release();
                left += 1;
                assert!(left < 1_000, "the same bytes are moved for ever");
            }
            left
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(usize),
        GiveBack(usize),
        Leave,
    }

    fn a_step() -> impl Strategy<Value = Step> {
        let length = prop_oneof![1..5_000usize, 1..500_000usize, 1..STORE_SLAB / ALONE_PART];
        prop_oneof![
            20 => length.prop_map(Step::Take),
            16 => any::<usize>().prop_map(Step::GiveBack),
            1 => Just(Step::Leave),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn extents_keep_what_was_written_to_them(
            steps in proptest::collection::vec(a_step(), 1..300),
        ) {
            let pool = SlabPool::new(PAGE);
            let mut extents: Vec<Extent> = Vec::new();
            for (number, step) in (1u64..).zip(steps) {
                match step {
                    Step::Take(bytes) => {
                        let mut extent = pool.take(bytes);
                        prop_assert_eq!(extent.len(), extent_len(bytes));
                        let marks = [0, extent.len() - 8];
                        for at in marks {
                            extent[at..at + 8].copy_from_slice(&number.to_le_bytes());
                        }
                        extents.push(extent);
                    }
                    Step::GiveBack(index) if !extents.is_empty() => {
                        let index = index % extents.len();
                        pool.give_back(extents.swap_remove(index));
                    }
                    Step::GiveBack(_) => {}
                    Step::Leave => drop(pool.leave(&mut extents)),
                }
                prop_assert_eq!(pool.check(), extents.iter().map(|extent| extent.len()).sum::<usize>());
            }
            pool.leave(&mut extents);
            let numbers: BTreeSet<_> = extents.iter().map(|extent| extent[..8].to_vec()).collect();
            prop_assert_eq!(numbers.len(), extents.len());
            prop_assert!(extents.iter().all(|extent| extent[..8] == extent[extent.len() - 8..]));
            let taken = pool.check();
            for extent in extents {
                pool.give_back(extent);
            }
            prop_assert!(taken == 0 || pool.slabs() > 0);
            pool.release();
            prop_assert_eq!((pool.check(), pool.slabs()), (0, 0));
        }
    }

    #[test]
    fn a_slab_with_few_pages_is_left() {
        let pool = SlabPool::new(PAGE);
        let in_slab = STORE_SLAB / PAGE;
        let mut pages: Vec<_> = (0..3 * in_slab).map(|_| pool.take(PAGE)).collect();
        assert_eq!((pool.slabs(), pool.leaving()), (3, None));
        pages.drain(2 * in_slab + 9..).for_each(|page| pool.give_back(page));
        assert_eq!(pool.leaving(), None, "less than is worth it");
        pages.drain(in_slab / 4..in_slab).for_each(|page| pool.give_back(page));
        assert_eq!(pool.leave(&mut pages), 1);
        assert_eq!(pool.slabs(), 2);
        assert!(pages.iter().all(|page| !page.is_of(2)));
        for page in pages {
            pool.give_back(page);
        }
        pool.release();
        assert_eq!(pool.slabs(), 0);
    }

    /// Every second extent goes, and nothing that is longer fits where it was.
    #[test]
    fn scattered_slabs_become_dense_ones() {
        let pool = SlabPool::new(PAGE);
        let mut extents: Vec<_> = (0..10_000).map(|_| pool.take(20_000)).collect();
        let before = pool.slabs();
        let mut kept = Vec::new();
        for (index, extent) in extents.drain(..).enumerate() {
            if index % 2 == 0 { kept.push(extent) } else { pool.give_back(extent) }
        }
        assert!(pool.leave(&mut kept) > 0);
        assert!(pool.slabs() <= before / 2 + 2, "{} of {before}", pool.slabs());
        let longer: Vec<_> = (0..kept.len() / 4).map(|_| pool.take(30_000)).collect();
        assert!(pool.slabs() <= before * 7 / 8 + 2, "{} of {before}", pool.slabs());
        drop(longer);
    }

    #[test]
    fn what_is_larger_than_a_part_of_a_slab_stands_alone() {
        let pool = SlabPool::new(PAGE);
        for bytes in [STORE_SLAB / ALONE_PART + 1, STORE_SLAB, 2 * STORE_SLAB + 1] {
            let extent = pool.take(bytes);
            assert!(extent.len() >= bytes && extent.len() < bytes + SYSTEM_PAGE);
            assert!(extent.iter().step_by(SYSTEM_PAGE).all(|byte| *byte == 0));
            assert_eq!(pool.slabs(), 0);
            pool.give_back(extent);
        }
    }
}
