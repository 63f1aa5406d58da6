//! What admin HTTP tells, as structs that are its JSON and the command line's tables.
//!
//! Names are a contract with scripts and dashboards: fields are added, never renamed. Times are
//! RFC 3339, spans seconds, sizes bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::types::{MemberState, Phase, WallMillis};

/// A time of day, RFC 3339 in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Stamp(pub WallMillis);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.0.0).unwrap_or(i64::MAX);
        let stamp = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{stamp:.3}")
    }
}

impl From<Stamp> for String {
    fn from(stamp: Stamp) -> Self {
        stamp.to_string()
    }
}

impl TryFrom<String> for Stamp {
    type Error = jiff::Error;

    fn try_from(text: String) -> Result<Self, jiff::Error> {
        let millis = text.parse::<jiff::Timestamp>()?.as_millisecond();
        Ok(Self(WallMillis(u64::try_from(millis).unwrap_or(0))))
    }
}

/// `GET /v1/status`: one node, by its own word.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Who it is.
    pub node: NodeStatus,
    /// The cluster's name.
    pub cluster: String,
    /// Whether it is ready: joined, all of its slots complete, not fenced.
    pub ready: bool,
    /// Where it is in its life.
    pub phase: Phase,
    /// Why it is fenced; `None` if it is not.
    pub fenced: Option<String>,
    /// Members by state.
    pub members: MemberCounts,
    /// Placement.
    pub ring: RingStatus,
    /// The store.
    pub store: StoreStatus,
    /// Seconds since its start.
    pub uptime_seconds: f64,
    /// Where it is reached.
    pub addresses: Addresses,
}

/// `GET /v1/cluster`: what the cluster agrees on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The cluster's name.
    pub name: String,
    /// Copies of each slot.
    pub replicas: u8,
    /// Points on the ring per unit of weight.
    pub virtual_nodes: u16,
    /// How long a dead member keeps its place.
    pub ring_grace_seconds: f64,
    /// How long a deletion is remembered for a holder that is away.
    pub tombstone_grace_seconds: f64,
    /// Grows with each change.
    pub revision: u64,
}

/// `GET /v1/keys`: a key of the gossip key ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    /// Its id.
    pub id: u8,
    /// Whether it is the one that seals.
    pub primary: bool,
    /// Eight hex digits by which keys are told apart.
    pub fingerprint: String,
}

/// What a change of the key ring came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyChanged {
    /// The id of the key that it was about.
    pub id: u8,
    /// Living members that have not confirmed the change, by name; they get it within a minute.
    pub late: Vec<String>,
}

/// Who a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its id, 32 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The version of the program.
    pub version: String,
    /// Its zone.
    pub zone: Option<String>,
    /// The newest version of the protocol between nodes that it speaks.
    pub protocol: u16,
}

/// Members by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberCounts {
    /// Alive, this node included.
    pub alive: u32,
    /// Suspect.
    pub suspect: u32,
    /// Dead and not forgotten.
    pub dead: u32,
    /// Left and not forgotten.
    pub left: u32,
}

/// Placement as a node sees it, and its part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingStatus {
    /// 16 hex digits; equal on nodes that agree.
    pub placement_id: String,
    /// Nodes on the ring.
    pub nodes: u32,
    /// Slots of which the node is owner.
    pub slots_owned: u32,
    /// Slots of which it is replica.
    pub slots_replica: u32,
    /// Slots for which it acts.
    pub slots_acting: u32,
    /// Slots it should hold and does not hold completely.
    pub slots_incomplete: u32,
    /// Slots it acts for that have fewer complete copies than configured.
    pub slots_under_replicated: u32,
}

/// The store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Live keys.
    pub keys: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Bytes charged to the budget.
    pub used_bytes: u64,
    /// The budget.
    pub limit_bytes: u64,
}

/// Where a node is reached; real ports, also where the settings said 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Plain clients.
    pub client: SocketAddr,
    /// Cluster clients.
    pub cluster: SocketAddr,
    /// Plain clients over TLS, where they are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_tls: Option<SocketAddr>,
    /// Cluster clients over TLS, where they are served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_tls: Option<SocketAddr>,
    /// Gossip.
    pub gossip: SocketAddr,
    /// Peers.
    pub peer: SocketAddr,
    /// Admin HTTP; `None` if it is not served over TCP.
    pub admin: Option<SocketAddr>,
}

/// A row of `GET /v1/members`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its id, 32 hex digits.
    pub id: String,
    /// Its name; the id's first digits until the name is known.
    pub name: String,
    /// What membership says of it.
    pub state: MemberState,
    /// What it said of itself last.
    pub phase: Phase,
    /// Since when it is in this state.
    pub since: Stamp,
    /// Its gossip address.
    pub gossip: SocketAddr,
    /// Its peer address, once known; so the next three.
    pub peer: Option<SocketAddr>,
    /// Its client address.
    pub client: Option<SocketAddr>,
    /// Its cluster address.
    pub cluster: Option<SocketAddr>,
    /// Its admin address.
    pub admin: Option<SocketAddr>,
    /// Its zone.
    pub zone: Option<String>,
    /// Its weight.
    pub weight: u8,
    /// The number of its start.
    pub generation: u64,
    /// The version of its program, once known.
    pub version: Option<String>,
    /// Smoothed round trip, if there is a connection.
    pub rtt_seconds: Option<f64>,
    /// Whether it is the node that answers.
    #[serde(rename = "self")]
    pub is_self: bool,
}

/// `GET /v1/ring`: the placement in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// 16 hex digits; equal on nodes that agree.
    pub placement_id: String,
    /// Copies of each slot, the owner's included.
    pub replicas: u8,
    /// The nodes on the ring, by name.
    pub nodes: Vec<RingNode>,
}

/// A node on the ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingNode {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: Option<String>,
    /// Its weight.
    pub weight: u8,
    /// Slots of which it is owner.
    pub slots_owned: u32,
    /// Slots of which it is replica.
    pub slots_replica: u32,
}

/// A node's part in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// First of the replica set.
    Owner,
    /// Another one of it.
    Replica,
}

/// `GET /v1/ring/locate?key=`: who should hold a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Located {
    /// The key, as text.
    pub key: String,
    /// Its slot.
    pub slot: u16,
    /// The replica set, owner first.
    pub replicas: Vec<Replica>,
}

/// A member of a replica set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replica {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its part.
    pub role: Role,
    /// What membership says of it.
    pub state: MemberState,
    /// Whether it has the slot completely, as far as this node knows.
    pub complete: bool,
    /// Whether it acts for the slot, as far as this node knows.
    pub acting: bool,
}

/// `GET /v1/explain?key=`: what each holder has of a key, asked just now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The key, as text.
    pub key: String,
    /// Its slot.
    pub slot: u16,
    /// One row for each member of the replica set, owner first.
    pub copies: Vec<Copy>,
}

/// One holder's answer about a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// The holder's name.
    pub name: String,
    /// Whether it has a live value.
    pub present: bool,
    /// The record's version, also of a tombstone: comparable as text between holders.
    pub version: Option<String>,
    /// When the value expires.
    pub expires_at: Option<Stamp>,
    /// The value's bytes.
    pub bytes: Option<u64>,
    /// Why there is no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `GET /v1/slots`: the slots a node holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    /// In ascending order.
    pub slots: Vec<SlotRow>,
}

/// A slot that a node holds. Equal digests at the holders of a slot mean equal records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRow {
    /// Its number.
    pub slot: u16,
    /// The node's part by the placement; `None` for a former holder that still keeps it.
    pub role: Option<Role>,
    /// Whether the node acts for it.
    pub acting: bool,
    /// Whether the node has it completely.
    pub complete: bool,
    /// Live keys.
    pub keys: u64,
    /// Digest of its records, 16 hex digits; tombstones are no part of it.
    pub digest: String,
    /// Up to when the node is known to have every record, by the clock of the slot's acting node;
    /// `None` before the two have compared, and at the acting node itself.
    pub as_of: Option<Stamp>,
}

/// Which slots are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotFilter {
    /// The first.
    pub from: u16,
    /// The last, itself included.
    pub to: u16,
    /// Only those in which the node has this part.
    pub role: Option<Role>,
}

/// A row of `GET /v1/peers`: another member, from this node's side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What membership says of it.
    pub state: MemberState,
    /// Its peer address.
    pub address: Option<SocketAddr>,
    /// Its zone.
    pub zone: Option<String>,
    /// The version of its program, once known.
    pub version: Option<String>,
    /// Whether a QUIC connection to it is open.
    pub connected: bool,
    /// Smoothed round trip.
    pub rtt_seconds: Option<f64>,
    /// Bytes of records that wait to be sent to it.
    pub queue_bytes: u64,
    /// Slots of which it missed something that is not mended yet.
    pub dirty_slots: u32,
    /// When it last said what it holds; it is asked every second or two.
    pub last_seen: Option<Stamp>,
    /// How far its wall clock is ahead of this node's, where that is known.
    pub clock_offset_seconds: Option<f64>,
    /// Why the last call to it failed.
    pub last_error: Option<String>,
}

/// A target of `GET /v1/sd`, as Prometheus' `http_sd_configs` reads them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SdTarget {
    /// One address.
    pub targets: Vec<String>,
    /// `cluster`, `node` and, if it has one, `zone`.
    pub labels: BTreeMap<String, String>,
}

/// The targets of the members that have not left and serve admin HTTP.
pub fn sd_targets(cluster: &str, members: &[Member]) -> Vec<SdTarget> {
    let stays = |member: &&Member| member.state != MemberState::Left;
    let target = |member: &Member| {
        let mut labels = BTreeMap::from([
            ("cluster".to_owned(), cluster.to_owned()),
            ("node".to_owned(), member.name.clone()),
        ]);
        labels.extend(member.zone.clone().map(|zone| ("zone".to_owned(), zone)));
        Some(SdTarget { targets: vec![member.admin?.to_string()], labels })
    };
    members.iter().filter(stays).filter_map(target).collect()
}

/// The answer of `POST /v1/leave`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Slots of which this node held the only complete copy when it went.
    pub slots_remaining: u32,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// One sentence.
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_rfc_3339_and_comes_back() {
        let stamp = Stamp(WallMillis(1_795_000_000_123));
        let json = serde_json::to_string(&stamp).unwrap();
        assert_eq!(json, "\"2026-11-18T11:06:40.123Z\"");
        assert_eq!(serde_json::from_str::<Stamp>(&json).unwrap(), stamp);
        assert!(serde_json::from_str::<Stamp>("\"today\"").is_err());
    }
}
