//! The list of open connections: for figures, and to close those of a dead member at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{Connection, VarInt};

use crate::types::NodeId;

/// Which side dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// The peer.
    In,
    /// This node.
    Out,
}

/// Every connection whose hello is done.
#[derive(Default)]
pub(super) struct Connections {
    listed: Arc<Mutex<Listed>>,
}

#[derive(Default)]
struct Listed {
    next: u64,
    open: BTreeMap<u64, Entry>,
    /// Packets lost by connections that are closed, and not collected yet.
    lost_by_closed: u64,
}

struct Entry {
    node: NodeId,
    direction: Direction,
    connection: Connection,
    lost_collected: u64,
}

/// What the open connections with one peer say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) connections: usize,
    pub(super) rtt: Option<Duration>,
    pub(super) lost_packets: u64,
}

/// A listed connection; dropping it takes it off the list.
pub(super) struct Registered {
    number: u64,
    connection: Connection,
    listed: Arc<Mutex<Listed>>,
}

fn lock(listed: &Mutex<Listed>) -> MutexGuard<'_, Listed> {
    listed.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connections {
    pub(super) fn register(
        &self,
        node: NodeId,
        direction: Direction,
        connection: Connection,
    ) -> Registered {
        let mut listed = lock(&self.listed);
        let number = listed.next;
        listed.next += 1;
        let entry = Entry { node, direction, connection: connection.clone(), lost_collected: 0 };
        listed.open.insert(number, entry);
        Registered { number, connection, listed: Arc::clone(&self.listed) }
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        lock(&self.listed).open.len()
    }

    /// Closes those with `node`.
    pub(super) fn close(&self, node: NodeId, code: VarInt, reason: &[u8]) {
        for entry in lock(&self.listed).open.values().filter(|entry| entry.node == node) {
            entry.connection.close(code, reason);
        }
    }

    /// What they say, peer by peer. Round trips are those of connections this node dialled.
    pub(super) fn summaries(&self) -> BTreeMap<NodeId, Summary> {
        let mut summaries: BTreeMap<NodeId, Summary> = BTreeMap::new();
        for entry in lock(&self.listed).open.values() {
            let summary = summaries.entry(entry.node).or_default();
            summary.connections += 1;
            summary.lost_packets += entry.connection.stats().path.lost_packets;
            if entry.direction == Direction::Out {
                let rtt = entry.connection.rtt();
                summary.rtt = Some(summary.rtt.map_or(rtt, |known| known.min(rtt)));
            }
        }
        summaries
    }

    /// Packets lost since the last time this was asked.
    pub(super) fn collect_lost_packets(&self) -> u64 {
        let mut listed = lock(&self.listed);
        let mut lost = std::mem::take(&mut listed.lost_by_closed);
        for entry in listed.open.values_mut() {
            let total = entry.connection.stats().path.lost_packets;
            lost += total.saturating_sub(entry.lost_collected);
            entry.lost_collected = total;
        }
        lost
    }
}

impl Registered {
    pub(super) const fn connection(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut listed = lock(&self.listed);
        if let Some(entry) = listed.open.remove(&self.number) {
            let total = entry.connection.stats().path.lost_packets;
            listed.lost_by_closed += total.saturating_sub(entry.lost_collected);
        }
    }
}
