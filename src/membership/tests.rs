//! What is proved of the core without a network; `net_sim` proves the rest.

use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::config::GossipProfile;
use crate::metrics::GossipMetrics;
use crate::types::{
    Generation, Identity, Instant, MemberRecord, MemberState, NodeId, Phase, Weight,
};

/// The identity of node `node` at `generation`, active, at the address that net_sim gives it.
pub(super) fn identity(node: u16, generation: u64) -> Identity {
    let [high, low] = node.to_be_bytes();
    Identity {
        node: NodeId(u128::from(node) << 64 | 0xabcd),
        gossip: SocketAddr::from(([10, 0, high, low], 7400)),
        generation: Generation(generation),
        revision: 0,
        phase: Phase::Active,
        weight: Weight::DEFAULT,
        zone: 0,
    }
}

pub(super) fn member(identity: Identity, state: MemberState) -> Member {
    Member { identity, incarnation: 0, state, since: Instant::ORIGIN, removed: false }
}

pub(super) fn record(identity: Identity, state: MemberState) -> MemberRecord {
    MemberRecord { identity, incarnation: 0, state, removed: false, meta: None }
}

pub(super) fn key_ring() -> KeyRing {
    KeyRing::new("test".parse().unwrap(), 1, GossipKey::new([7; 32]))
}

pub(super) fn core(identity: Identity, seed: u64, now: Instant) -> Membership {
    let options = MembershipOptions {
        identity,
        profile: GossipProfile::Lan,
        probe_interval: None,
        ring_grace: Duration::from_secs(30),
    };
    Membership::new(options, key_ring(), seed, GossipMetrics::unregistered(), now)
}
