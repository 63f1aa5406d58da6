//! What the front end asks of the cluster: running commands on keys, and facts to show.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::config::MemoryPolicy;
use crate::types::{ByteSize, Db, Instant, MemberState, NodeId, NodeName, Slot};

pub use crate::cluster::{CommandCall, Port, Started};

/// The cluster, as the front end of one thread sees it.
pub trait Backend: Send + Sync + 'static {
    /// Starts a command that runs at a slot, at several, or over the keyspace. Its reply is
    /// appended to `out`, or given by the future; what it sends is sent in the order of calls.
    fn start(&self, call: &CommandCall<'_>, out: &mut Vec<u8>) -> Started;

    /// Called before commands are started that arrived together. Counts how often this node stood
    /// still for as long as a command may take.
    fn wake(&self, _now: Instant) -> u64 {
        0
    }

    /// Prepares for commands on these keys, which are about to start.
    fn warm(&self, db: Db, keys: &mut dyn Iterator<Item = &[u8]>);

    /// The slot of a key.
    fn slot_of(&self, key: &[u8]) -> Slot;

    /// Who there is and where slots are; the same `Arc` as long as nothing changed.
    fn topology(&self) -> Arc<Topology>;

    /// Figures and addresses of this node.
    fn facts(&self) -> ServerFacts;
}

/// Members and slots as `CLUSTER` shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The node that was asked.
    pub me: NodeId,
    /// Members, ascending by node id.
    pub nodes: Vec<TopologyNode>,
    /// Ranges of slots with one replica set, ascending; slots without any are left out.
    pub ranges: Vec<SlotRange>,
    /// Whether the node is ready.
    pub ready: bool,
    /// The id of the placement.
    pub placement_id: u64,
}

/// A member as `CLUSTER` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopologyNode {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: NodeName,
    /// Where cluster clients reach it.
    pub cluster: SocketAddr,
    /// Where they reach it over TLS, if that is known.
    pub cluster_tls: Option<SocketAddr>,
    /// Where gossip reaches it.
    pub gossip: SocketAddr,
    /// What membership says of it.
    pub state: MemberState,
}

/// Neighbouring slots with one replica set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotRange {
    /// The first slot.
    pub first: Slot,
    /// The last slot.
    pub last: Slot,
    /// The replica set, owner first: positions in [`Topology::nodes`].
    pub nodes: Vec<usize>,
}

/// Figures and addresses of one node, for `INFO`, `CONFIG GET` and `HELLO`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFacts {
    /// The node's id.
    pub node: NodeId,
    /// The node's name.
    pub name: NodeName,
    /// 40 hex digits that change with every start.
    pub run_id: String,
    /// Since the node's start.
    pub uptime: Duration,
    /// The address for plain clients.
    pub client: SocketAddr,
    /// The address for cluster clients.
    pub cluster: SocketAddr,
    /// Whether the node is ready.
    pub ready: bool,
    /// Bytes charged to the memory budget.
    pub memory_used: ByteSize,
    /// Bytes of them that are keys and values with their heads.
    pub memory_entries: ByteSize,
    /// Bytes that the process has from the system, if that is known.
    pub memory_resident: Option<ByteSize>,
    /// The memory budget.
    pub memory_limit: ByteSize,
    /// What happens when it is used up.
    pub memory_policy: MemoryPolicy,
    /// Databases that have keys, ascending: of the cluster, or of this node on the cluster port.
    pub databases: Vec<DatabaseFacts>,
    /// Reads that found a live value.
    pub hits: u64,
    /// Reads that found nothing live.
    pub misses: u64,
    /// Entries that expired and were removed.
    pub expired: u64,
    /// Entries that were evicted.
    pub evicted: u64,
}

/// Keys of one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseFacts {
    /// The database.
    pub db: Db,
    /// Live keys.
    pub keys: u64,
    /// Keys that expire.
    pub expires: u64,
}
