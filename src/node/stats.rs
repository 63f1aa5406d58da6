//! The figures of one node that a program which embeds it reads most often.

use super::Inner;

/// What a node has in memory and what it did since its start.
///
/// The figures are this node's own, copies that it keeps for others included: summed over the
/// nodes of a cluster, `keys` counts every key once for each of its copies. All figures that
/// there are stand in [`Node::metrics`](super::Node::metrics).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys in memory; an expired one counts until it is removed.
    pub keys: u64,
    /// Bytes charged to the memory budget.
    pub used_bytes: u64,
    /// The memory budget, in bytes.
    pub limit_bytes: u64,
    /// Reads at this node that found a live value, whoever asked.
    pub hits: u64,
    /// Reads at this node that found nothing live.
    pub misses: u64,
    /// Entries that were removed because their time was over.
    pub expired: u64,
    /// Entries that were removed to make room.
    pub evicted: u64,
    /// Clients connected to this node's ports now.
    pub clients: usize,
}

impl Inner {
    pub(super) fn stats(&self) -> Stats {
        let totals = self.shared.store().totals(self.clock.wall());
        let gone = self.shared.counts();
        Stats {
            keys: totals.keys,
            used_bytes: totals.used_bytes,
            limit_bytes: totals.limit_bytes,
            hits: totals.reads.hits,
            misses: totals.reads.misses,
            expired: gone.expired,
            evicted: gone.evicted,
            clients: self.server.clients().count(),
        }
    }
}
