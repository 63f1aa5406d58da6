//! The list of open connections: for figures, and to close those of a dead member at once.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{Connection, VarInt};
use tokio::sync::Notify;

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
    /// A peer's connection was listed.
    arrived: Notify,
}

#[derive(Default)]
struct Listed {
    next: u64,
    open: BTreeMap<u64, Entry>,
    /// What connections that are closed did since it was last collected.
    by_closed: Traffic,
}

struct Entry {
    node: NodeId,
    direction: Direction,
    connection: Connection,
    collected: Traffic,
}

/// What connections did: sums that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) lost_packets: u64,
    pub(super) congestion_events: u64,
    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
}

impl Traffic {
    fn of(connection: &Connection) -> Self {
        let stats = connection.stats();
        Self {
            lost_packets: stats.path.lost_packets,
            congestion_events: stats.path.congestion_events,
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
        }
    }

    /// Adds what `now` has more than `before`. A change of the path begins its sums anew.
    fn add(&mut self, now: Self, before: Self) {
        self.lost_packets += now.lost_packets.saturating_sub(before.lost_packets);
        self.congestion_events += now.congestion_events.saturating_sub(before.congestion_events);
        self.bytes_sent += now.bytes_sent.saturating_sub(before.bytes_sent);
        self.bytes_received += now.bytes_received.saturating_sub(before.bytes_received);
    }
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
        let entry = Entry {
            node,
            direction,
            connection: connection.clone(),
            collected: Traffic::default(),
        };
        listed.open.insert(number, entry);
        if direction == Direction::In {
            self.arrived.notify_waiters();
        }
        Registered { number, connection, listed: Arc::clone(&self.listed) }
    }

    /// The number of the next connection.
    pub(super) fn next(&self) -> u64 {
        lock(&self.listed).next
    }

    /// Waits until `node` has dialled this one by a connection of number `first` or later.
    pub(super) async fn arrival(&self, node: NodeId, first: u64) {
        let is_its = |entry: &Entry| entry.node == node && entry.direction == Direction::In;
        loop {
            let mut arrived = pin!(self.arrived.notified());
            // From here on none is missed.
            arrived.as_mut().enable();
            if lock(&self.listed).open.range(first..).any(|(_, entry)| is_its(entry)) {
                return;
            }
            arrived.await;
        }
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

    /// What was done since the last time this was asked.
    pub(super) fn collect(&self) -> Traffic {
        let mut listed = lock(&self.listed);
        let mut traffic = std::mem::take(&mut listed.by_closed);
        for entry in listed.open.values_mut() {
            let total = Traffic::of(&entry.connection);
            traffic.add(total, entry.collected);
            entry.collected = total;
        }
        traffic
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
            listed.by_closed.add(Traffic::of(&entry.connection), entry.collected);
        }
    }
}
