//! Pages that one shard has given back and another may take.
//!
//! An allocator that is asked by several threads keeps what each gave back apart, so that pages that
//! wander between shards would cost a part of the budget again. A few are kept here instead.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Pages for all shards of a store.
#[derive(Debug)]
pub(super) struct PagePool {
    page_size: usize,
    /// The most that are kept.
    most: usize,
    free: Mutex<Vec<Box<[u8]>>>,
}

impl PagePool {
    pub(super) const fn new(page_size: usize, most: usize) -> Self {
        Self { page_size, most, free: Mutex::new(Vec::new()) }
    }

    /// Bytes of a page.
    pub(super) const fn page_size(&self) -> usize {
        self.page_size
    }

    /// A page; what it holds is of no meaning.
    pub(super) fn take(&self) -> Box<[u8]> {
        let kept = self.lock().pop();
        kept.unwrap_or_else(|| vec![0; self.page_size].into())
    }

    pub(super) fn give_back(&self, page: Box<[u8]>) {
        let mut free = self.lock();
        if free.len() < self.most {
            free.push(page);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Box<[u8]>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_pages_are_kept() {
        let pool = PagePool::new(4096, 2);
        let pages: Vec<_> = (0..4).map(|_| pool.take()).collect();
        for mut page in pages {
            page[0] = 9;
            pool.give_back(page);
        }
        let kept = (0..4).map(|_| pool.take()).filter(|page| page[0] == 9).count();
        assert_eq!(kept, 2);
    }
}
