//! The first words on a connection: who dials, what for, and which versions both speak.
//!
//! TLS has proved by then that both share the secret. The hello names the rest; a connection is
//! up only when the dialler has the acknowledgement, because TLS 1.3 lets a refused client believe
//! for a moment that it is connected. A refusal travels as the reason of the connection's close.
//!
//! On the wire: u16 LE length, one byte for the format of the hello itself, postcard. Fields are
//! never appended: another shape is another format.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::types::{ClusterName, Generation, NodeId};

/// Which versions of the peer protocol a node speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocols {
    /// The oldest of them.
    pub oldest: u16,
    /// The newest of them.
    pub newest: u16,
}

impl Protocols {
    /// Those of this program.
    pub const OWN: Self = Self { oldest: 1, newest: 1 };

    /// Whether a version is one of them.
    pub const fn speak(self, version: u16) -> bool {
        self.oldest <= version && version <= self.newest
    }

    /// The highest that both speak.
    fn common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.oldest, self.newest)
    }
}

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
    /// The protocol versions that it speaks.
    pub protocols: Protocols,
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
    #[error("no common protocol version: peer speaks {theirs}, this node {ours}")]
    Protocol {
        /// The peer's.
        theirs: Protocols,
        /// This node's.
        ours: Protocols,
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
    /// The highest version that both speak, if the dialler belongs here, to a node that speaks `ours`;
    /// `proved` is the node id of its certificate.
    pub fn judge(
        &self,
        ours: Protocols,
        cluster: &ClusterName,
        proved: NodeId,
    ) -> Result<u16, Refusal> {
        let theirs = self.protocols;
        let protocol = ours.common(theirs).ok_or(Refusal::Protocol { theirs, ours })?;
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
        let (protocols, purpose) = (Protocols::OWN, Purpose::Bulk);
        Hello { protocols, cluster, node: NodeId(5), generation: Generation(300), purpose }
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
            protocols: Protocols { oldest: u16::MAX, newest: u16::MAX },
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
        let (own, ours) = (Protocols::OWN, "flock".parse().unwrap());
        assert_eq!(hello().judge(own, &ours, NodeId(5)), Ok(1));
        let text = hello().judge(own, &ours, NodeId(6)).unwrap_err().to_string();
        assert!(text.contains("certificate says"), "{text}");
        let text = hello().judge(own, &"other".parse().unwrap(), NodeId(5)).unwrap_err();
        let text = text.to_string();
        assert_eq!(text, "peer belongs to cluster \"flock\", this node to \"other\"");
        let speaks = |oldest, newest| Protocols { oldest, newest };
        let newer = Hello { protocols: speaks(2, 3), ..hello() };
        let text = newer.judge(own, &ours, NodeId(5)).unwrap_err().to_string();
        assert!(text.ends_with("peer speaks 2 to 3, this node 1 to 1"), "{text}");
    }

    #[test]
    fn two_nodes_speak_the_highest_version_that_both_know() {
        let speaks = |oldest, newest| Protocols { oldest, newest };
        for (theirs, agreed) in [
            (speaks(3, 5), Some(5)),
            (speaks(1, 9), Some(6)),
            (speaks(6, 6), Some(6)),
            (speaks(1, 4), Some(4)),
            (speaks(1, 3), None),
            (speaks(7, 9), None),
        ] {
            assert_eq!(speaks(4, 6).common(theirs), agreed, "{theirs}");
            assert_eq!(theirs.common(speaks(4, 6)), agreed, "{theirs}");
            assert!(agreed.is_none_or(|agreed| theirs.speak(agreed) && speaks(4, 6).speak(agreed)));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _any_outcome = decode::<Hello>(&bytes);
            let _any_outcome = decode::<HelloAck>(&bytes);
        }
    }
}
