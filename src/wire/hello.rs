//! The first words on a connection: who dials, what for, and which versions both speak.
//!
//! TLS has proved by then that both share the secret. The hello names the rest; a connection is
//! up only when the dialler has the acknowledgement, because TLS 1.3 lets a refused client believe
//! for a moment that it is connected. A refusal travels as the reason of the connection's close.
//!
//! On the wire: u16 LE length, one byte for the format of the hello itself, postcard. Fields are
//! never appended: another shape is another format.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::types::{ClusterName, Generation, NodeId};

/// The oldest version of the peer protocol that this program speaks.
pub const PROTOCOL_OLDEST: u16 = 1;

/// The newest version of the peer protocol that this program speaks.
pub const PROTOCOL_NEWEST: u16 = 1;

/// Bytes of the length before a hello.
pub const LENGTH_LEN: usize = 2;

/// The longest hello, its length not counted: names are at most 63 bytes.
pub const HELLO_MAX: usize = 256;

/// The shape of the hello.
const FORMAT: u8 = 1;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Frames of small calls, and large ones beside them, until the dialler closes.
    Lane,
    /// One bulk stream.
    Bulk,
    /// One call to whoever answers at an address.
    Address,
}

/// What the dialler says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest protocol version that it speaks.
    pub oldest: u16,
    /// The newest protocol version that it speaks.
    pub newest: u16,
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its node id.
    pub node: NodeId,
    /// The number of its present start.
    pub generation: Generation,
    /// What the connection is for.
    pub purpose: Purpose,
}

/// What the other side says when it agrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelloAck {
    /// The protocol version that both speak from now on.
    pub protocol: u16,
    /// Its node id.
    pub node: NodeId,
    /// The number of its present start.
    pub generation: Generation,
}

/// Why a connection was refused. Its text is sent to the dialler, who logs it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No version is spoken by both. Upgrade the older node.
    #[error(
        "no common protocol version: peer speaks {oldest} to {newest}, \
         this node {PROTOCOL_OLDEST} to {PROTOCOL_NEWEST}"
    )]
    Protocol {
        /// The peer's oldest.
        oldest: u16,
        /// The peer's newest.
        newest: u16,
    },
    /// Another cluster; only seen where its name gives the same certificate names.
    #[error("peer belongs to cluster {theirs:?}, this node to {ours:?}")]
    Cluster {
        /// The peer's cluster.
        theirs: String,
        /// This node's cluster.
        ours: String,
    },
    /// The node id is not the one that the certificate proves.
    #[error("peer claims to be node {claimed}, its certificate says {proved}")]
    Node {
        /// The node id of the hello.
        claimed: NodeId,
        /// The node id of the certificate.
        proved: NodeId,
    },
    /// The bytes are no hello.
    #[error("the hello was not understood")]
    Malformed,
}

impl Hello {
    /// A hello of this program.
    pub const fn new(
        cluster: ClusterName,
        node: NodeId,
        generation: Generation,
        purpose: Purpose,
    ) -> Self {
        let (oldest, newest) = (PROTOCOL_OLDEST, PROTOCOL_NEWEST);
        Self { oldest, newest, cluster, node, generation, purpose }
    }

    /// The highest version that both speak, if the dialler belongs here; `proved` is the node id
    /// of its certificate.
    pub fn judge(&self, cluster: &ClusterName, proved: NodeId) -> Result<u16, Refusal> {
        let protocol = self.newest.min(PROTOCOL_NEWEST);
        if protocol < self.oldest.max(PROTOCOL_OLDEST) {
            return Err(Refusal::Protocol { oldest: self.oldest, newest: self.newest });
        }
        if self.cluster != *cluster {
            let (theirs, ours) = (self.cluster.to_string(), cluster.to_string());
            return Err(Refusal::Cluster { theirs, ours });
        }
        if self.node != proved {
            return Err(Refusal::Node { claimed: self.node, proved });
        }
        Ok(protocol)
    }
}

/// The bytes of a [`Hello`] or [`HelloAck`], its length first.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![0, 0, FORMAT];
    bytes =
        postcard::to_extend(message, bytes).expect("a hello has no field that cannot be written");
    let length = u16::try_from(bytes.len().saturating_sub(LENGTH_LEN)).unwrap_or(u16::MAX);
    if let Some(place) = bytes.first_chunk_mut() {
        *place = length.to_le_bytes();
    }
    bytes
}

/// How many bytes follow a length; more than [`HELLO_MAX`] is malformed.
pub fn decode_length(length: [u8; LENGTH_LEN]) -> Result<usize, Refusal> {
    let length = usize::from(u16::from_le_bytes(length));
    if length > HELLO_MAX { Err(Refusal::Malformed) } else { Ok(length) }
}

/// Reads what [`encode`] wrote, without the length.
pub fn decode<'a, M: Deserialize<'a>>(bytes: &'a [u8]) -> Result<M, Refusal> {
    match bytes.split_first() {
        Some((&FORMAT, rest)) => postcard::from_bytes(rest).map_err(|_| Refusal::Malformed),
        _ => Err(Refusal::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello() -> Hello {
        let cluster = "flock".parse().unwrap();
        Hello::new(cluster, NodeId(5), Generation(300), Purpose::Bulk)
    }

    #[test]
    fn the_bytes_of_a_hello_stay_as_they_are() {
        assert_eq!(encode(&hello()), b"\x0d\0\x01\x01\x01\x05flock\x05\xac\x02\x01");
        let bytes = encode(&hello());
        let (length, rest) = bytes.split_first_chunk().unwrap();
        assert_eq!(decode_length(*length).unwrap(), rest.len());
        assert_eq!(decode::<Hello>(rest).unwrap(), hello());
    }

    #[test]
    fn the_longest_hello_fits() {
        let longest = Hello {
            oldest: u16::MAX,
            newest: u16::MAX,
            cluster: "n".repeat(63).parse().unwrap(),
            node: NodeId(u128::MAX),
            generation: Generation(u64::MAX),
            purpose: Purpose::Address,
        };
        assert!(encode(&longest).len() <= HELLO_MAX);
        assert_eq!(decode_length([1, 1]), Err(Refusal::Malformed));
    }

    #[test]
    fn a_stranger_is_told_why() {
        let ours = "flock".parse().unwrap();
        assert_eq!(hello().judge(&ours, NodeId(5)), Ok(1));
        let text = hello().judge(&ours, NodeId(6)).unwrap_err().to_string();
        assert!(text.contains("certificate says"), "{text}");
        let text = hello().judge(&"other".parse().unwrap(), NodeId(5)).unwrap_err().to_string();
        assert_eq!(text, "peer belongs to cluster \"flock\", this node to \"other\"");
        let newer = Hello { oldest: 2, newest: 3, ..hello() };
        let text = newer.judge(&ours, NodeId(5)).unwrap_err().to_string();
        assert!(text.contains("peer speaks 2 to 3"), "{text}");
        let wider = Hello { oldest: 0, newest: 9, ..hello() };
        assert_eq!(wider.judge(&ours, NodeId(5)), Ok(1));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _any_outcome = decode::<Hello>(&bytes);
            let _any_outcome = decode::<HelloAck>(&bytes);
        }
    }
}
