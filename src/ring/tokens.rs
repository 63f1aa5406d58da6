//! Virtual nodes: the points at which each member stands on the ring.
//!
//! The only file that knows the `hashring` crate. A virtual node is hashed by one write of fixed
//! little-endian bytes, because derived `Hash` implementations may change with the compiler and
//! the machine, and the points with them. The crate's ring is built once, in the order of the node
//! ids so that equal points are settled alike everywhere, and flattened: its own search for
//! replicas copies the whole ring and repeats nodes.

use std::hash::{BuildHasher, Hash, Hasher};

use hashring::{DefaultHashBuilder, HashRing};

use super::placement::RingMember;
use crate::limits::RING_TOKENS_MAX;

/// A point on the ring, and the index of the member that stands there.
pub(super) type Token = (u64, u16);

/// One of the points of a member.
#[derive(Clone, Debug)]
struct VirtualNode {
    /// Node id and number of the point, little-endian.
    bytes: [u8; 20],
    member: u16,
}

impl VirtualNode {
    fn new(member: u16, node: u128, number: u32) -> Self {
        let mut bytes = [0; 20];
        bytes[..16].copy_from_slice(&node.to_le_bytes());
        bytes[16..].copy_from_slice(&number.to_le_bytes());
        Self { bytes, member }
    }
}

impl Hash for VirtualNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.bytes);
    }
}

/// The tokens of all members in ring order. `members` must be sorted by node id.
pub(super) fn tokens(members: &[RingMember], virtual_nodes: u16) -> Vec<Token> {
    let per_weight = points_per_weight(members, virtual_nodes);
    let mut points = Vec::new();
    for (index, member) in (0u16..).zip(members) {
        let count = per_weight * u32::from(member.weight.get());
        points.extend((0..count).map(|number| VirtualNode::new(index, member.node.0, number)));
    }
    let mut ring: HashRing<VirtualNode> = HashRing::new();
    ring.batch_add(points);
    ring.into_iter().map(|point| (DefaultHashBuilder.hash_one(&point), point.member)).collect()
}

/// `virtual_nodes`, or fewer where the sum over all weights would pass the bound: a pure function
/// of what every node agrees on, so all of them lower it alike.
fn points_per_weight(members: &[RingMember], virtual_nodes: u16) -> u32 {
    let weights: u32 = members.iter().map(|member| u32::from(member.weight.get())).sum();
    u32::from(virtual_nodes).min(RING_TOKENS_MAX / weights.max(1)).max(1)
}
