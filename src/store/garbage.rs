//! What a flush or the drop of a slot took away whole, freed in bounded steps.
//!
//! The entries of a table that waits here still stand in pages, where they count as live until a
//! step kills them. Nothing walks pages meanwhile. If nothing else is left in the shard the pages go
//! as they are.

use std::mem;

use super::entry::charged_for;
use super::outside;
use super::pages::{Handle, Log};
use super::shard::Shard;
use super::slabs::Extent;
use super::table::SlotTable;

/// Entries killed in one step.
const KILL_STEP: usize = 256;
/// Allocations freed in one step.
const FREE_STEP: usize = 16;

/// What waits to be freed.
#[derive(Default)]
pub(super) struct Garbage {
    /// Tables whose entries stand in pages.
    tables: Vec<SlotTable>,
    /// The entries of the part that is being freed.
    handles: Vec<Handle>,
    /// Tables whose entries are gone.
    husks: Vec<SlotTable>,
    pages: Vec<Extent>,
    /// Outside values.
    values: Vec<Extent>,
    /// Bytes charged for both.
    allocated: usize,
}

impl Garbage {
    /// Bytes charged for what waits, tables not included.
    pub(super) const fn bytes(&self) -> usize {
        self.allocated + charged_for(self.handles.capacity() * size_of::<Handle>())
    }

    /// Whether there is something to be freed.
    pub(super) fn waits(&self) -> bool {
        self.hides_entries()
            || !self.husks.is_empty()
            || !self.pages.is_empty()
            || !self.values.is_empty()
    }

    /// Entries that stand in pages.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.handles.len() + self.tables.iter().map(SlotTable::len).sum::<usize>()
    }

    /// Whether entries of pages are in no slot's table.
    pub(super) fn hides_entries(&self) -> bool {
        !self.tables.is_empty() || !self.handles.is_empty()
    }
}

impl Shard {
    /// Takes in a table that was taken away whole, with all its entries.
    pub(super) fn discard(&mut self, table: SlotTable) {
        self.held -= table.len();
        if !table.is_empty() {
            self.garbage.tables.push(table);
        }
        if self.held == 0 {
            self.discard_pages();
        }
        self.settle();
    }

    /// No entry of this shard is in a table: no page is worth a look.
    fn discard_pages(&mut self) {
        let fresh = Log::new(self.budget.pool());
        let (pages, values) = mem::replace(&mut self.log, fresh).into_parts();
        self.eviction.start_over();
        self.sweep.start_over();
        let garbage = &mut self.garbage;
        garbage.allocated += pages.iter().map(|page| page.len()).sum::<usize>();
        garbage.allocated +=
            values.iter().map(|value| outside::charged_extent(value.len())).sum::<usize>();
        garbage.pages.extend(pages);
        garbage.values.extend(values);
        garbage.husks.append(&mut garbage.tables);
        garbage.handles = Vec::new();
    }

    /// Frees a part of what was taken away whole; `false` if nothing waits for it.
    pub fn free_garbage(&mut self) -> bool {
        let garbage = &mut self.garbage;
        if !garbage.handles.is_empty() {
            let rest = garbage.handles.len().saturating_sub(KILL_STEP);
            for handle in garbage.handles.split_off(rest) {
                self.log.kill(handle);
            }
            if garbage.handles.is_empty() {
                garbage.handles = Vec::new();
            }
        } else if let Some(part) = pop_part(&mut garbage.tables, &mut self.table_bytes) {
            garbage.handles = part.into_handles();
        } else if let Some(part) = pop_part(&mut garbage.husks, &mut self.table_bytes) {
            drop(part);
        } else if !garbage.pages.is_empty() {
            let rest = garbage.pages.len().saturating_sub(FREE_STEP);
            let pool = self.budget.pool();
            for page in garbage.pages.split_off(rest) {
                garbage.allocated -= page.len();
                pool.give_back(page);
            }
        } else if !garbage.values.is_empty() {
            let rest = garbage.values.len().saturating_sub(FREE_STEP);
            let pool = self.budget.pool();
            for value in garbage.values.split_off(rest) {
                garbage.allocated -= outside::charged_extent(value.len());
                pool.give_back(value);
            }
        } else {
            return false;
        }
        self.settle();
        true
    }
}

fn pop_part(tables: &mut Vec<SlotTable>, bytes: &mut usize) -> Option<super::table::Part> {
    let table = tables.last_mut()?;
    *bytes -= table.bytes();
    let part = table.pop_part();
    *bytes += table.bytes();
    if table.is_empty() {
        tables.pop();
    }
    part
}
