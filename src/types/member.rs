//! What nodes tell each other about members: identities, states, metadata, cluster facts.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ClusterName, Generation, NodeId, NodeName, Weight, Zone};

/// Where a node is in its life, announced by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A member that is filling its slots; not on the ring yet.
    Joining,
    /// Back under its node id before it was removed: keeps its place, acts for nothing yet.
    Returning,
    /// On the ring.
    Active,
    /// Stopping for a restart: keeps its place, takes no slot.
    Paused,
    /// Going for good: off the ring, acting until its slots are released.
    Leaving,
}

impl Phase {
    /// Whether members of this phase are placed on the ring.
    pub const fn on_ring(self) -> bool {
        matches!(self, Self::Returning | Self::Active | Self::Paused)
    }

    /// The phase's name as status and logs print it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Returning => "returning",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Leaving => "leaving",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the membership protocol says of a member (SWIM).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// Answers probes.
    Alive,
    /// Missed a probe; has not refuted it yet.
    Suspect,
    /// Did not refute in time.
    Dead,
    /// Said that it goes for good.
    Left,
}

impl MemberState {
    /// Every state, in the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Alive, Self::Suspect, Self::Dead, Self::Left];

    /// The state's name as status, logs and metrics print it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
            Self::Left => "left",
        }
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The gossiped identity: exactly what placement reads, and where gossip reaches the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The node's id.
    pub node: NodeId,
    /// Where its gossip socket is reached.
    pub gossip: SocketAddr,
    /// The number of its present start.
    pub generation: Generation,
    /// Raised with every change of phase, weight or zone within one generation.
    pub revision: u16,
    /// Where it is in its life.
    pub phase: Phase,
    /// Its share of the slots.
    pub weight: Weight,
    /// The tag of its zone's name (`Zone::tag`); 0 for none.
    pub zone: u32,
}

/// What else is known of a node: last writer wins by (generation, revision).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeMeta {
    /// The node this is about.
    pub node: NodeId,
    /// The generation that wrote it.
    pub generation: Generation,
    /// Raised with every change within one generation.
    pub revision: u16,
    /// The name for people.
    pub name: NodeName,
    /// The zone's name.
    pub zone: Option<Zone>,
    /// Version of the program.
    pub version: String,
    /// Where QUIC reaches it.
    pub peer: SocketAddr,
    /// Where plain clients reach it.
    pub client: SocketAddr,
    /// Where cluster clients reach it.
    pub cluster: SocketAddr,
    /// Where its admin HTTP is; `None` if it has none over TCP.
    pub admin: Option<SocketAddr>,
    /// Where cluster clients reach it over TLS, if they do.
    pub cluster_tls: Option<SocketAddr>,
}

/// What a cluster agrees on; one versioned record, last writer wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFacts {
    /// The cluster's name.
    pub name: ClusterName,
    /// Copies of each slot, the owner's included; 1 to 8.
    pub replicas: u8,
    /// Virtual nodes per unit of weight.
    pub virtual_nodes: u16,
    /// How long a dead member keeps its place.
    pub ring_grace: Duration,
    /// How long a tombstone is kept at most while a holder is absent.
    pub tombstone_grace: Duration,
    /// Order among changes: the higher wins.
    pub revision: u64,
    /// Tag of the node that made this revision; settles equal revisions.
    pub origin: u32,
}

impl ClusterFacts {
    /// Whether these facts replace `other`.
    pub fn supersedes(&self, other: &Self) -> bool {
        (self.revision, self.origin) > (other.revision, other.origin)
    }
}

/// A member as push-pull and hello describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Its gossiped identity.
    pub identity: Identity,
    /// SWIM's counter that only the member itself raises.
    pub incarnation: u16,
    /// What the sender believes of it.
    pub state: MemberState,
    /// Whether its place on the ring was given up (`Removed`) at this generation.
    pub removed: bool,
    /// The rest of what is known; `None` if the sender knows only the gossiped part.
    pub meta: Option<NodeMeta>,
}
